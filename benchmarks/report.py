"""The numbers of the READMEs and the model cards, made from `benchmarks/results/*.json`.

python -m benchmarks.report --publish runs/reference-random-seed0   # copy a run's scores
python -m benchmarks.report --write                                 # write tables and cards
python -m benchmarks.report --check                                 # do they agree?
"""

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import sys
from pathlib import Path

from benchmarks import ablation_page, exports_table, model_cards, rivals_table
from benchmarks.presets import recipe_of
from benchmarks.recipes import VARIANTS
from benchmarks.runs import (
    as_json,
    is_by_segment_settings,
    mean,
    segment_settings,
    spread,
    training_stages,
)
from keras_nuclei.diameters import FAR_LARGER, FAR_MARGIN
from keras_nuclei.encoders import list_encoders
from keras_nuclei.instances import SEED_THRESHOLDS, SMOOTHING, THRESHOLD
from keras_nuclei.presets import PRESETS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WEIGHTS = ROOT / "keras_nuclei" / "weights"
RUNTIMES = {"openvino": "OpenVINO takes", "onnxruntime": "ONNX Runtime takes"}
STEPS = ("reading", "network", "separation", "writing")

OTHER_RECIPES = {
    "haze": "haze over 30 % of the fluorescence",
    "haze_further": "the same, trained on for 4,500 steps",
    "three_quarters": "three quarters cross-entropy, longer",
    "cross_entropy": "cross-entropy alone",
    "stages": "earlier ones, in stages",
    "efficientnet_lite0": "today's but for the encoder, longer",
}
"""What their table calls them, by the end of the names of their results."""

MARKS = {
    "*": "an earlier recipe, or another network than the preset is now",
    "†": "several stages by earlier recipes, as the preset's card tells",
}
"""What is said of trainings that are not of today's recipe, by what they are marked with."""


def main(argv: list[str] | None = None) -> None:
    """Do what the command line says; print the tables where it says nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publish", type=Path, nargs="+", default=[], metavar="RUN")
    parser.add_argument("--overwrite", action="store_true", help="replace published scores")
    parser.add_argument(
        "--write", action="store_true", help="write the READMEs' tables and the model cards"
    )
    parser.add_argument("--check", action="store_true", help="fail where they differ")
    args = parser.parse_args(argv)
    for run in args.publish:
        publish(run, args.overwrite)
    if args.publish and not (args.write or args.check):
        return
    blocks = {
        page: {name: make() for name, make in makers.items()} for page, makers in BLOCKS.items()
    }
    texts = {ROOT / page: fill((ROOT / page).read_text(), blocks[page]) for page in blocks}
    texts |= {WEIGHTS / preset.card: model_card(name) for name, preset in PRESETS.items()}
    if args.write:
        for path, text in texts.items():
            path.write_text(text)
    elif args.check:
        for path, text in texts.items():
            if not path.exists() or path.read_text() != text:
                sys.exit(f"{path} and {RESULTS} differ. Run: python -m benchmarks.report --write")
        names = ", ".join(str(path.relative_to(ROOT)) for path in texts)
        print(f"{names} agree with {RESULTS}.")
    else:
        print("\n\n".join(text for page in blocks.values() for text in page.values()))


def publish(run: Path, overwrite: bool) -> None:
    """Copy the scores of a run on DSB2018, and its pictures, to the results."""
    targets = {
        "evaluation.json": RESULTS / f"{run.name}.json",
        "masks.png": RESULTS / f"{run.name}.png",
        "curves.png": RESULTS / f"{run.name}-curves.png",
        "separation.json": RESULTS / f"{run.name}-separation.json",
        "diameters.json": RESULTS / f"{run.name}-diameters.json",
        "sizes.json": RESULTS / f"{run.name}-sizes.json",
        "recipes.json": RESULTS / "recipes.json",
    }
    if (run / "evaluation-packed.json").exists():  # what ships is what is judged
        targets["evaluation.json"] = RESULTS / f"{run.name}-single.json"
        targets["evaluation-packed.json"] = RESULTS / f"{run.name}.json"
        targets["masks-packed.png"] = targets.pop("masks.png")
    targets = {source: target for source, target in targets.items() if (run / source).exists()}
    results = [run / source for source in targets if source.endswith(".json")]
    if not results:
        sys.exit(f"{run} holds neither an evaluation.json nor a trial. Evaluate it first.")
    for path in results:
        data = json.loads(path.read_text())["data"]
        if data != "dsb2018":
            sys.exit(f"{run} is a run on {data} images. Only DSB2018 is published.")
    there = [str(target) for target in targets.values() if target.exists()]
    if there and not overwrite:
        sys.exit(f"{', '.join(there)} exist already. Pass --overwrite to replace them.")
    for source, target in targets.items():
        shutil.copyfile(run / source, target)


def fill(text: str, blocks: dict[str, str]) -> str:
    """Replace what stands between `<!-- report:NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: If a block has no place in the text.
    """
    for name, block in blocks.items():
        pattern = rf"(<!-- report:{name} -->\n).*?(<!-- end -->)"
        text, places = re.subn(
            pattern, lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text, flags=re.S
        )
        if places != 1:
            raise ValueError(f"There must be one place <!-- report:{name} -->; there are {places}.")
    return text


def reference_table() -> str:
    """Scores of the reference on every split, averaged over the seeds."""
    rows = (
        ("random 80:20, training", "random", "train"),
        ("random 80:20, validation", "random", "validation"),
        ("random 80:20, test", "random", "test"),
        ("grouped by field of view, validation", "grouped", "validation"),
        ("grouped by field of view, test", "grouped", "test"),
        ("official test (stage1_test)", "random", "official_test"),
        ("official test, fields unseen in training", "random", "official_test_unseen_fields"),
    )
    lines = [
        "| split | seeds | images | pixel accuracy | predicting nothing | IoU | Dice "
        "| per-image Dice |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, split, part in rows:
        runs = [run["scores"][part] for run in reference_runs(split)]
        images = "-".join(str(count) for count in sorted({run["images"] for run in runs}))
        lines.append(
            f"| {title} | {len(runs)} | {images} | {spread(runs, 'accuracy', 4)}"
            f" | {mean(runs, 'accuracy_of_nothing'):.4f} | {spread(runs, 'iou', 3)}"
            f" | {spread(runs, 'dice', 3)} | {spread(runs, 'per_image_dice', 3)} |"
        )
    return "\n".join(lines)


def training_line() -> str:
    """How long the reference trained."""
    runs = [
        json.loads(path.read_text()) for path in sorted(RESULTS.glob("reference-random-*.json"))
    ]
    epochs = ", ".join(str(run["epochs_trained"]) for run in runs)
    return (
        f"Early stopping ended the {len(runs)} runs on the random split after {epochs} epochs; "
        f"the model has {runs[0]['parameters']:,} parameters."
    )


def presets_table() -> str:
    """What the presets score on images that they have not learned from."""
    rows = (
        ("random 80:20, validation", "random", "validation", "scores"),
        ("random 80:20, validation, one view each", "random", "validation", "scores_of_one_view"),
        ("random 80:20, test", "random", "test", "scores"),
        ("grouped by field of view, validation", "grouped", "validation", "scores"),
        ("grouped by field of view, test", "grouped", "test", "scores"),
        ("official test (stage1_test)", "all", "official_test", "scores"),
        ("official test, fields unseen", "all", "official_test_unseen_fields", "scores"),
        ("official test, one view each", "all", "official_test", "scores_of_one_view"),
        ("StarDist's 50 test images", "stardist", "stardist_test", "scores"),
        ("StarDist's 50, one view each", "stardist", "stardist_test", "scores_of_one_view"),
        ("the same, fields unseen in training", "stardist_unseen", "stardist_test", "scores"),
    )
    scored, marks = [], set()
    for title, split, part, views in rows:
        for preset in PRESETS:
            if (RESULTS / f"{preset}-{split}.json").exists():
                result = read(f"{preset}-{split}")
                mark = recipe_mark(result)
                marks.add(mark)
                steps = f"{steps_trained(result):,}{mark}"
                scored.append((title, f"`{preset}`", steps, result[views][part]["all"]))
    legend = [f"Steps marked {mark} are of {MARKS[mark]}." for mark in MARKS if mark in marks]
    return "\n\n".join([scores_table("preset", scored), *legend])


def other_recipes_table() -> str:
    """What `nuclei_base` scored by recipes that were tried."""
    rows = (
        ("random 80:20, validation", "random", "validation"),
        ("random 80:20, test", "random", "test"),
        ("official test (stage1_test)", "all", "official_test"),
        ("StarDist's 50 test images", "stardist", "stardist_test"),
    )
    scored = []
    for title, split, part in rows:
        for name, recipe in OTHER_RECIPES.items():
            if (RESULTS / f"nuclei_base-{split}_{name}.json").exists():
                result = read(f"nuclei_base-{split}_{name}")
                steps = f"{steps_trained(result):,}"
                scored.append((title, recipe, steps, result["scores"][part]["all"]))
    return scores_table("recipe", scored)


def scores_table(column: str, rows: list[tuple[str, str, str, dict]]) -> str:
    """Scores in Markdown, of rows of images, what the column names, steps, and scores."""
    lines = [
        f"| images | {column} | steps | number | pixel accuracy | predicting nothing | Dice | IoU "
        "| AP@0.5 | DSB score |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for *cells, scores in rows:
        lines.append(
            f"| {' | '.join(cells)} | {scores['images']}"
            f" | {scores['accuracy']:.4f}"
            f" | {scores['accuracy_of_nothing']:.4f} | {scores['dice']:.3f}"
            f" | {scores['iou']:.3f} | {scores['ap50_per_image']:.3f}"
            f" | {scores['dsb_per_image']:.3f} |"
        )
    return "\n".join(lines)


def chosen_thresholds() -> str:
    """By which thresholds the preset's splits are scored, and what others make of them."""
    lines = [
        "Where a split has a validation part, the run of `nuclei_base` is scored by the threshold "
        "that is the best of it by pixel accuracy, without StarDist's images; one view each by "
        f"`segment`'s, {THRESHOLD}:",
        "",
    ]
    for split in ("random", "grouped"):
        result = read(f"nuclei_base-{split}")
        trials = ", ".join(
            f"{trial['threshold']}: {trial['accuracy']:.4f}" for trial in result["threshold_trials"]
        )
        lines.append(f"- {split} split: {result['threshold']} ({trials})")
    return "\n".join(lines)


def recipe_mark(result: dict) -> str:
    """Which of `MARKS` a training has; empty where all of it is of today's recipe."""
    recipes = [
        model_cards.with_crossentropy_weight(stage["recipe"]) for stage in training_stages(result)
    ]
    today = [
        dataclasses.asdict(recipe_of(result["preset"], result["split"], further=number > 0))
        for number in range(len(recipes))
    ]
    architecture = as_json(PRESETS[result["preset"]].architecture)
    # Runs from before it was written down are marked by their recipes.
    if recipes == as_json(today) and result.get("architecture", architecture) == architecture:
        return ""
    return "†" if len(recipes) > 1 else "*"


def steps_trained(result: dict) -> int:
    """Steps of all stages of the training of what was measured."""
    return sum(model_cards.steps(stage["recipe"]) for stage in training_stages(result))


def trained_for(result: dict) -> list[str]:
    """The lines above the table of a trial: how long its network was trained."""
    return [f"(`nuclei_base` after {steps_trained(result):,} steps.)", ""]


def model_card(name: str) -> str:
    """The model card of a preset."""
    weights = WEIGHTS / PRESETS[name].file
    if not weights.exists():
        sys.exit(f"{weights} is missing. Train, then run: python -m benchmarks.package")
    size = weights.stat().st_size
    packed = read(f"{name}-all")
    if packed["sha256"] != PRESETS[name].sha256:
        sys.exit(
            f"The scores of {name} are not those of the packaged weights. Run: python -m "
            "benchmarks.evaluate_presets --packed, and --publish it."
        )
    require_settings(f"{name}-all", packed)
    single = read(f"{name}-all-single")
    return model_cards.card(name, single, packed, size, modalities_table(name))


def require_settings(name: str, result: dict) -> None:
    """Refuse a result that was measured with other settings than `segment` has now."""
    if not is_by_segment_settings(result):
        sys.exit(
            f"{name}.json is not of `segment`'s settings, {segment_settings()}. Run what wrote it "
            "once more, and --publish it."
        )


def modalities_table(preset: str = "nuclei_base") -> str:
    """Scores of a preset on the official test by modality."""
    lines = [
        "| official test | number | nuclei | found | Dice | AP@0.5 | DSB score | missed | extra "
        "| split | merged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    parts = read(f"{preset}-all")["scores"]
    unseen = {"fields unseen in training": parts["official_test_unseen_fields"]["all"]}
    for modality, scores in (parts["official_test"] | unseen).items():
        lines.append(
            f"| {modality} | {scores['images']} | {scores['true_nuclei']}"
            f" | {scores['predicted_nuclei']} | {scores['dice']:.3f}"
            f" | {scores['ap50_per_image']:.3f} | {scores['dsb_per_image']:.3f}"
            f" | {scores['missed']} | {scores['extra']} | {scores['split']} | {scores['merged']} |"
        )
    return "\n".join(lines)


def recipes_table() -> str:
    """How the foreground's loss changes what is found in images unlike those learned from."""
    variants = read("recipes")["variants"]
    if list(variants) != list(VARIANTS):
        sys.exit(f"recipes.json is of {list(variants)}, not of {list(VARIANTS)}.")
    for result in variants.values():
        require_settings("recipes", result)
    (steps,) = {model_cards.steps(result["recipe"]) for result in variants.values()}
    (images,) = {result["images"] for result in variants.values()}
    lines = [
        f"(`nuclei_base` after {steps:,} steps on {images} images, one view, foreground above "
        f"{THRESHOLD}.)",
        "",
        "| foreground learned by | images | number | pixel accuracy | predicting nothing | Dice "
        "| AP@0.5 | DSB score | missed | extra | merged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups = (
        ("fluorescence", "validation", "fluorescence"),
        ("brightfield", "validation", "brightfield"),
        ("stained tissue", "validation", "histology"),
        ("tissue on a clear ground", "unknown stain", "all"),
    )
    for title, part, group in groups:
        for variant, result in variants.items():
            scores = result["scores"][part][str(THRESHOLD)][group]
            lines.append(
                f"| {variant} | {title} | {scores['images']} | {scores['accuracy']:.4f}"
                f" | {scores['accuracy_of_nothing']:.4f} | {scores['dice']:.3f}"
                f" | {scores['ap50_per_image']:.3f} | {scores['dsb_per_image']:.3f}"
                f" | {scores['missed']} | {scores['extra']} | {scores['merged']} |"
            )
    return "\n".join(lines)


def separation_table() -> str:
    """What each method to separate touching nuclei scores with its best settings."""
    result = read("nuclei_base-grouped-separation")
    lines = [
        *trained_for(result),
        "| maps | DSB score | AP@0.5 | merged | split |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, trials in result["methods"].items():
        best = max(trials, key=lambda trial: trial["dsb_per_image"])
        lines.append(
            f"| {method} | {best['dsb_per_image']:.3f} | {best['ap50_per_image']:.3f}"
            f" | {best['merged']} | {best['split']} |"
        )
    return "\n".join(lines)


def thresholds_table() -> str:
    """What thresholds and smoothing are good for, changed one after the other."""
    result = read("nuclei_base-random-separation")
    lines = [
        *trained_for(result),
        "| foreground above | seeds above | smoothed by | DSB score | AP@0.5 | merged | split |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    trials = result["methods"]["distance"]
    best = max(trials, key=lambda trial: trial["dsb_per_image"])["settings"]
    now = segment_settings()
    if best != {key: now[key] for key in best}:
        sys.exit(
            "benchmarks/README.md says that `segment`'s settings are the best tried; these are: "
            f"{best}."
        )
    steps = (
        (0.5, (0.5, 0.6, 0.7, 0.8), 2.5),
        (0.5, SEED_THRESHOLDS, 2.5),
        (0.5, SEED_THRESHOLDS, SMOOTHING),
        (THRESHOLD, SEED_THRESHOLDS, SMOOTHING),
    )
    for threshold, seeds, smoothing in steps:
        wanted = {"threshold": threshold, "seed_thresholds": [*seeds], "smoothing": smoothing}
        (trial,) = (each for each in trials if each["settings"] == wanted)
        lines.append(
            f"| {threshold} | {', '.join(map(str, seeds))} | {smoothing}"
            f" | {trial['dsb_per_image']:.3f}"
            f" | {trial['ap50_per_image']:.3f} | {trial['merged']} | {trial['split']} |"
        )
    return "\n".join(lines)


def diameters_line() -> str:
    """How well the size of nuclei is estimated."""
    result = read("nuclei_base-random-diameters")
    require_settings("nuclei_base-random-diameters", result)
    chosen = FAR_MARGIN, FAR_LARGER
    (trial,) = (each for each in result["trials"] if (each["margin"], each["larger"]) == chosen)
    return (
        f"Of {result['views']} views of {result['images']} validation images, at half, once, twice "
        f"and four times their size, the model then saw {trial['right']['all']:.1%} less than 1.5 "
        "times too large or too small."
    )


def sizes_table() -> str:
    """How large a model should see the nuclei: the largest that it sees, then the smallest."""
    result = read("nuclei_base-random-sizes")
    require_settings("nuclei_base-random-sizes", result)
    trials = result["trials"]
    titles = {
        "all": "all {images}",
        "large": "the {images} of nuclei above 30 pixels",
        "magnified": "one of each field of view ({images}), four times as large",
    }
    images = {group: trials[0]["scores"][group]["images"] for group in titles}
    heads = [f"DSB score: {title.format(images=images[group])}" for group, title in titles.items()]
    lines = [
        *trained_for(result),
        f"| not below | not above | {' | '.join(heads)} | merged | split |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for trial in trials:
        scores = [trial["scores"][group] for group in titles]
        counts = [sum(each[kind] for each in scores[1:]) for kind in ("merged", "split")]
        lines.append(
            f"| {trial['smallest']} | {trial['largest']}"
            f" | {' | '.join(format(each['dsb_per_image'], '.3f') for each in scores)}"
            f" | {counts[0]} | {counts[1]} |"
        )
    return "\n".join(lines)


def tile_sizes_table() -> str:
    """How far what is seen in tiles differs from what is seen at once."""
    result = read("tile_sizes")
    images = result["images"]
    lines = [
        f"| tiles of | sharing | stained tissue, enlarged ({images['tissue']}) "
        f"| other images above 512 pixels ({images['large']}) | pixels seen / of the image |",
        "| --- | --- | --- | --- | --- |",
    ]
    for trial in result["trials"]:
        different = trial["different"]
        lines.append(
            f"| {trial['tile_size']} | {trial['overlap']} | {different['tissue']:.2%}"
            f" | {different['large']:.2%} | {trial['pixels_seen']:.2f} |"
        )
    return "\n".join(lines)


def inference_table() -> str:
    """What segmenting costs, by preset and size."""
    lines = [
        "| preset | images | runtime | per second | reading | network | separation | writing "
        "| network / its bare forward pass | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    measured = read("inference")
    require_settings("inference", measured)
    if measured["weights"] != {name: preset.sha256 for name, preset in PRESETS.items()}:
        sys.exit(
            "inference.json is not of the packaged weights. Run: python -m benchmarks.inference "
            f"--output {RESULTS / 'inference.json'} --overwrite"
        )
    for preset, groups in measured["presets"].items():
        for group, result in groups.items():
            title = f"mosaic of {group}x{group}" if group.isdigit() else group
            seconds = result["seconds"]
            total = sum(seconds[step] for step in STEPS)
            shares = " | ".join(f"{seconds[step] / total:.0%}" for step in STEPS)
            lines.append(
                f"| `{preset}` | {title} | {result.get('runtime', 'Keras')}"
                f" | {result['images_per_second']:.3g} | {shares}"
                f" | {result['network_over_floor']:.2f} | {result['peak_memory_megabytes']:.0f} |"
            )
    return "\n".join(lines)


def runtimes_line() -> str:
    """Whether other runtimes are faster than Keras."""
    sentences = []
    for preset, groups in read("inference")["presets"].items():
        passes = groups["512"]["forward_pass"]
        others = [
            f"{RUNTIMES[name]} {each['seconds'] / passes['keras']['seconds']:.2f} times as long "
            f"(maps differ by at most {each['largest_difference']:.0e})"
            for name, each in passes.items()
            if name != "keras"
        ]
        sentences.append(f"`{preset}`, {' and '.join(others)}")
    return f"For the forward pass of 512x512 pixels, next to Keras: {'; '.join(sentences)}."


def growth_line() -> str:
    """How the time without the network grows with the pixels."""
    points = read("inference")["separation"]["by_pixels"]
    sizes = " to ".join(f"{point['size']}x{point['size']}" for point in points)
    pairs = list(itertools.pairwise(points))
    ratios = ", ".join(f"{after['seconds'] / before['seconds']:.1f}" for before, after in pairs)
    (pixels,) = {(after["size"] / before["size"]) ** 2 for before, after in pairs}
    return (
        f"From {sizes} pixels, with nuclei equally dense, all but the network takes {ratios} times "
        f"as long, each time for {pixels:.0f} times the pixels."
    )


def speedrun_line() -> str:
    """How much sooner `fast` gets there than `reference`."""
    result = read("speedrun")
    seconds, seeds = result["median_seconds"], {run["seed"] for run in result["runs"]}
    return (
        f"To a validation accuracy of {result['accuracy']}, on the reference's own split and size, "
        f"in one run on {result['environment']['cpus']} CPU cores (median of {len(seeds)} seeds, "
        f"loading and tracing included): `reference` {seconds['reference']:.0f} s, `fast` "
        f"{seconds['fast']:.0f} s, **{result['ratio']:.1f} times** sooner."
    )


def data_table() -> str:
    """What preparing and reading cost."""
    result = read("data")
    rows = {
        "prepare_over_decode": "preparing all 735 images / decoding all PNG files by OpenCV",
        "read_over_raw": "images per second, prepared / raw folder",
        "cached_over_raw": "images per second, cached / raw folder",
        "peak_memory_megabytes": "peak memory of preparing, MB",
    }
    lines = ["| what | measured | target |", "| --- | --- | --- |"]
    for key, title in rows.items():
        bound, target = result["targets"][key]
        lines.append(f"| {title} | {result['ratios'][key]:.3g} | {bound} {target} |")
    return "\n".join(lines)


def fields_line() -> str:
    """How many images share a field of view, and how a random split leaks."""
    result = read("fields_of_view")
    return (
        f"The {result['images']} images come from {result['fields']} fields of view at most. In a "
        f"random 20 % of the training images, "
        f"{result['leak_of_random_20_percent_validation']:.1%} have a tile of the same field on "
        f"the other side, and {len(result['test_images_in_fields_of_train'])} of the official test "
        "images lie in fields of the training set."
    )


def rivals_block() -> str:
    """Our U-Nets beside those of others."""
    return rivals_table.table(read("rivals"))


def exports_page() -> str:
    """What can be exported how, for the docs."""
    return exports_table.page(read("exports"), dict(list_encoders()[["name", "parameters"]].values))


BLOCKS = {
    "README.md": {
        "presets": presets_table,
        "chosen_thresholds": chosen_thresholds,
        "modalities": modalities_table,
        "inference": inference_table,
        "runtimes": runtimes_line,
        "growth": growth_line,
        "reference": reference_table,
        "training": training_line,
        "fields": fields_line,
        "speedrun": speedrun_line,
        "data": data_table,
        "rivals": rivals_block,
    },
    "benchmarks/README.md": {
        "other_recipes": other_recipes_table,
        "recipes": recipes_table,
        "separation": separation_table,
        "thresholds": thresholds_table,
        "sizes": sizes_table,
        "diameters": diameters_line,
        "tile_sizes": tile_sizes_table,
    },
}
"""What stands between `<!-- report:NAME -->` and `<!-- end -->`, by page and name."""

PAGES = {
    "ablation": lambda: ablation_page.page(read("ablation")),
    "exports": exports_page,
}
"""Pages of the docs, by name, beside those that are made of the READMEs."""


def reference_runs(split: str) -> list[dict]:
    """Read the published runs of the reference on a split, one for each seed."""
    names = sorted(path.stem for path in RESULTS.glob(f"reference-{split}-seed*.json"))
    if not names:
        sys.exit(f"{RESULTS} holds no reference-{split}-seed*.json. Train, evaluate and --publish.")
    return [read(name) for name in names]


def read(name: str) -> dict:
    """Read a result."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path} is missing. Run the benchmark that writes it.")
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
