"""Train a preset on DSB2018, resumable at every epoch.

    python -m benchmarks.presets --preset nuclei_base --split grouped

writes into `runs/nuclei_base-grouped/`. Started again, it goes on where it stopped. What is trained
can be trained on:

    python -m benchmarks.presets --preset nuclei_base --split grouped --output runs/first
    python -m benchmarks.presets --preset nuclei_base --split grouped --from_run RUN

with RUN the folder `runs/first/nuclei_base-grouped`; and the packaged weights, with
`--from_package`. `--encoder` and `--epochs` try others than the preset's, in a folder of a name of
its own, such as `runs/nuclei_base-grouped_efficientnet_lite2`: such a run is scored and published
as any, but not packaged.
"""

import argparse
import collections
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np

import keras_nuclei
from benchmarks import augmentation, nuclei, pipeline, runs, targets
from keras_nuclei.presets import PRESETS

CORRECTED = {"dsb2018": "dsb2018/stage1_fixed"}
"""The data set with better annotation of the same images."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a preset's training, but for the split and its architecture.

    Attributes:
        epochs: Of so many steps each; there is no pass over the data, since crops are drawn.
        heads: Names of maps of `benchmarks.targets`; those that the preset lacks help to learn.
        crossentropy_weight: Share of the cross-entropy in the loss of the foreground. The rest is a
            Dice loss, in which the nuclei of a crop count for as much however few they are: the
            more of it, the fewer are missed in images unlike those learned from, and the more is
            taken for nuclei (`benchmarks.recipes`).
        foreground_weight: Of the loss of the foreground, where that of each other head weighs 1.
        crop_size: Height and width of a training crop, in pixels.
        batch_size: Crops in a step.
        steps_per_epoch: Steps after which a checkpoint is written.
        learning_rate: Of Adam at its highest: it rises for a fifteenth of the steps and falls to
            nothing along a cosine.
        shares: Of each modality among the crops.
        rarity: An image of a kind of n images is drawn with a weight of n ** -rarity: with 0 all
            images count alike, with 1 all kinds.
        plain: Share, in the last epoch, of crops that look much as `keras_nuclei.segment` shows the
            image.
        plain_at_first: That share in the first epoch, from which it grows evenly.
        crowded: Share of the other crops with nuclei of another crop laid over them.
        uneven: Share of the other crops of fluorescence whose nuclei are made of uneven brightness.
    """

    epochs: int
    heads: tuple[str, ...] = tuple(targets.CHANNELS)
    crossentropy_weight: float = 0.5
    foreground_weight: float = 2.0
    crop_size: int = 192
    batch_size: int = 8
    steps_per_epoch: int = 100
    learning_rate: float = 1.5e-3
    shares: tuple[tuple[str, float], ...] = (
        ("fluorescence", 0.58),
        ("histology", 0.34),
        ("brightfield", 0.08),
    )
    rarity: float = 0.4
    plain: float = 0.8
    plain_at_first: float = 0.0
    crowded: float = 0.25
    uneven: float = 0.25

    def plain_in(self, epoch: int) -> float:
        """Share of plain crops in an epoch, counted from 0."""
        done = epoch / max(1, self.epochs - 1)
        return self.plain_at_first + done * (self.plain - self.plain_at_first)


RECIPES = {
    "nuclei_small": Recipe(epochs=50),
    # What each run took, on what, and how it scored is in its JSON.
    "nuclei_base": Recipe(epochs=80),
}

FURTHER_LEARNING_RATE = 1e-3
FURTHER_EPOCHS = {"nuclei_small": 20, "nuclei_base": 45}
FURTHER_PLAIN_AT_FIRST = 0.4
"""What differs where trained weights are trained on."""


def recipe_of(preset: str, split: str, *, further: bool = False) -> Recipe:
    """The recipe of a preset; a split of fluorescence alone takes the epochs that are its share.

    Args:
        preset: Of `RECIPES`.
        split: Of `benchmarks.nuclei.SPLITS`.
        further: Whether weights are trained on that have been trained already.

    Returns:
        The recipe.
    """
    recipe = RECIPES[preset]
    if further:
        recipe = dataclasses.replace(
            recipe,
            epochs=FURTHER_EPOCHS[preset],
            # Larger steps would lead away first from a goal that is near.
            learning_rate=FURTHER_LEARNING_RATE,
            # The others have helped, and would have to be learned anew.
            heads=tuple(PRESETS[preset].architecture["heads"]),
            plain_at_first=FURTHER_PLAIN_AT_FIRST,
        )
    if not split.startswith("stardist"):
        return recipe
    share = dict(recipe.shares)["fluorescence"]
    return dataclasses.replace(recipe, epochs=round(recipe.epochs * share))


def corrected(data: str, ids: set[str], data_dir: str | None) -> list[nuclei.NucleiImage]:
    """Training images of some ids, with the better annotation where there is one.

    Args:
        data: Of `benchmarks.pipeline.DATA_SETS`.
        ids: Of the images.
        data_dir: Where TFDS keeps prepared data sets; None for where it does by itself.
    """
    name = pipeline.DATA_SETS[data]
    rows = nuclei.load(CORRECTED.get(name, name), "train", data_dir)
    return [row for row in rows if row.image_id in ids]


class Crops(keras.utils.PyDataset):
    """Batches of random crops; each depends on the seed, the epoch and its number alone."""

    def __init__(
        self,
        rows: list[nuclei.NucleiImage],
        chances: np.ndarray,
        recipe: Recipe,
        epoch: int,
        seed: int,
    ):
        super().__init__(workers=2, max_queue_size=8)
        self.rows = rows
        self.chances = chances
        self.recipe = recipe
        self.epoch = epoch
        self.seed = seed

    def __len__(self):
        return self.recipe.steps_per_epoch

    def __getitem__(self, index):
        generator = np.random.default_rng((self.seed, self.epoch, index))
        chosen = generator.choice(len(self.rows), self.recipe.batch_size, p=self.chances)
        crops = [self.crop(self.rows[row], generator) for row in chosen]
        images = np.stack([image for image, _ in crops])
        maps = [targets.draw(label_map, self.recipe.heads) for _, label_map in crops]
        return images, {name: np.stack([each[name] for each in maps]) for name in maps[0]}

    def crop(self, row: nuclei.NucleiImage, generator: np.random.Generator):
        scene = row.image, row.label_map, row.diameter, self.recipe.crop_size, generator
        if generator.random() < self.recipe.plain_in(self.epoch):
            return augmentation.plain_crop(*scene)
        image, label_map = augmentation.random_crop(*scene)
        if generator.random() < self.recipe.crowded:
            other, other_labels = augmentation.random_crop(*scene)
            if row.modality == "fluorescence":  # nuclei differ in brightness
                other = np.clip(other * generator.uniform(0.6, 1.4), 0, 255)
            image, label_map = augmentation.crowd(image, label_map, other, other_labels)
        if row.modality == "fluorescence" and generator.random() < self.recipe.uneven:
            image = augmentation.vary_brightness(image, label_map, generator)
        return augmentation.random_look(image, generator), label_map


def chances(rows: list[nuclei.NucleiImage], shares: dict[str, float], rarity: float) -> np.ndarray:
    """Chance of each image to be drawn: more for the larger, and for those of a rarer kind.

    A modality has its share. Within it, an image weighs the square root of its pixels, divided by
    the number of images of its kind to the power `rarity`.
    """
    modalities = np.array([row.modality for row in rows])
    kinds = [kind(row) for row in rows]
    counts = collections.Counter(kinds)
    weights = np.sqrt([row.label_map.size for row in rows])
    weights *= [counts[each] ** -rarity for each in kinds]
    for modality in np.unique(modalities):
        members = modalities == modality
        weights[members] *= shares[modality] / weights[members].sum()
    return weights / weights.sum()


def kind(row: nuclei.NucleiImage) -> tuple:
    """What images of one source have in common: modality, size, and whether they are pink."""
    red, _, blue = np.median(row.image.reshape(-1, 3), axis=0)
    return row.modality, row.label_map.shape, bool(red > blue)


def main(argv: list[str] | None = None) -> Path:
    """Train as the command line says and return the run's folder."""
    args = parse_arguments(argv)
    run, architecture, recipe = planned(args)
    settings = settings_of(args, run, architecture, recipe)
    if args.overwrite:
        shutil.rmtree(run, ignore_errors=True)
    runs.prepare_folder(run, settings)
    if (run / "train.json").exists():
        print(f"{run} is trained already. Pass --overwrite to train it anew.")
        return run

    # -- Data: learns from the corrected annotation, is judged by the original one ----------------
    if args.data == "synthetic":
        print(runs.NOT_DSB2018)
    published = nuclei.load(pipeline.DATA_SETS[args.data], "train", args.data_dir)
    ids = nuclei.training_ids(published, args.split)
    rows = corrected(args.data, ids, args.data_dir)
    print(f"{run}: {len(rows)} images")

    # -- Training, from ImageNet's weights or others ----------------------------------------------
    def trained():
        return (
            runs.load(args.from_run)[1] if args.from_run else keras_nuclei.from_preset(args.preset)
        )

    further = "continues" in settings
    model, history = learn(
        run, rows, architecture, recipe, settings["seed"], trained if further else None
    )

    # -- What stays -----------------------------------------------------------------------------
    model.save(run / "model.keras")
    runs.write_json(
        run / "train.json",
        {
            **settings,
            "images": len(rows),
            "parameters": model.count_params(),
            "seconds": sum(row["seconds"] for row in history),
            "history": history,
            "environment": runs.environment(),
        },
    )
    shutil.rmtree(run / "checkpoints")
    print(f"Trained: {run / 'model.keras'}")
    return run


def planned(args: argparse.Namespace) -> tuple[Path, dict, Recipe]:
    """The folder of the run that the command line asks for, its network and its recipe."""
    further = args.from_package or args.from_run is not None
    recipe = recipe_of(args.preset, args.split, further=further)
    architecture = dict(PRESETS[args.preset].architecture)
    name = f"{args.preset}-{args.split}"
    if args.encoder:
        architecture["encoder"] = args.encoder
        name += f"_{args.encoder}"
    if args.epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
        name += f"_{args.epochs}_epochs"
    if args.data == "synthetic":
        name += "-synthetic"
    return args.output / name, architecture, recipe


def settings_of(args: argparse.Namespace, run: Path, architecture: dict, recipe: Recipe) -> dict:
    """What decides a run, as its JSON tells it: its command, and what it trains on, if anything.

    Raises:
        SystemExit: If it would know images that its split holds back, overwrite what it trains on,
            or if what it is to train on is of another kind.
    """
    command = f"python -m benchmarks.presets --preset {args.preset} --split {args.split}"
    if args.encoder:
        command += f" --encoder {args.encoder}"
    if args.epochs is not None:
        command += f" --epochs {args.epochs}"
    settings = runs.as_json(
        {
            "command": command,
            "preset": args.preset,
            "data": args.data,
            "split": args.split,
            "architecture": architecture,
            "recipe": dataclasses.asdict(recipe),
        }
    )
    if args.from_package:
        if args.split != "all":
            sys.exit(
                "The packaged weights know all images of DSB2018, those too that --split "
                f"{args.split} holds back: --from_package needs --split all."
            )
        settings["command"] += " --from_package"
        settings["continues"] = packaged_training(args.preset)
    if args.from_run:
        if args.from_run.resolve().is_relative_to(run.resolve()):
            sys.exit(
                f"{args.from_run} is to be trained on, and {run}, where it lies, is written to: "
                "pass another folder as --output."
            )
        if args.split == "all":
            sys.exit("To train on what knows all images, package it and pass --from_package.")
        # As seen from the folder of all runs, wherever that is and whoever calls it what.
        place = Path("runs", os.path.relpath(args.from_run, args.output))
        settings["command"] += f" --from_run {place.as_posix()}"
        settings["continues"] = trained_before(args.from_run, settings)
    # Training on draws other crops than the training before.
    settings["seed"] = len(runs.training_stages(settings)) - 1
    return settings


def learn(
    run: Path,
    rows: list[nuclei.NucleiImage],
    architecture: dict,
    recipe: Recipe,
    seed: int = 0,
    trained: Callable[[], keras.Model] | None = None,
) -> tuple[keras.Model, list[dict]]:
    """Train a network, from the last epoch whose checkpoint is in the run's folder.

    Args:
        run: The run's folder.
        rows: What to learn from.
        architecture: Keyword arguments of `keras_nuclei.unet`; the recipe has the heads.
        recipe: How.
        seed: Of the crops.
        trained: Gives the model whose weights to begin with, if no epoch is done; None for
            ImageNet's.

    Returns:
        The model, and a row of losses and seconds for each epoch.

    Raises:
        SystemExit: If the loss is no longer finite.
        ValueError: As `adopt`.
    """
    keras.utils.set_random_seed(0)
    history, model = runs.resume(run)
    if model is None:
        model = build(architecture, recipe)
        if trained is not None:
            adopt(model, trained())
    else:
        print(f"Resuming after epoch {len(history)}.")
    drawn = chances(rows, dict(recipe.shares), recipe.rarity)
    while len(history) < recipe.epochs:
        epoch = len(history)
        started = time.perf_counter()
        crops = Crops(rows, drawn, recipe, epoch, seed)
        with keras_nuclei.fused_batch_norm():
            logs = model.fit(crops, initial_epoch=epoch, epochs=epoch + 1, shuffle=False).history
        row = {name: values[-1] for name, values in logs.items()}
        if not np.isfinite(row["loss"]):
            sys.exit(f"The loss of epoch {epoch + 1} is not finite: {row}.")
        history.append({**row, "seconds": time.perf_counter() - started})
        runs.checkpoint(run, model, history)
    return model, history


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=RECIPES, required=True)
    parser.add_argument("--split", choices=nuclei.SPLITS, default="all")
    parser.add_argument("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument("--overwrite", action="store_true", help="train anew, drop what is there")
    parser.add_argument(
        "--encoder",
        choices=[name for name in keras_nuclei.ENCODERS if name.startswith("efficientnet_lite")],
        help="as a trial; default: the preset's",
    )
    parser.add_argument(
        "--epochs", type=int, help="for how long to train, as a trial; default: the recipe's"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--from_package",
        action="store_true",
        help="train the packaged weights on, where else one starts from ImageNet's",
    )
    start.add_argument(
        "--from_run",
        type=Path,
        metavar="RUN",
        help="train the weights on that an earlier run of the same split has left in its folder",
    )
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1; got {args.epochs}")
    if args.from_package and args.encoder:
        parser.error("the packaged weights are of one encoder: pass no --encoder")
    return args


def build(architecture: dict, recipe: Recipe) -> keras.Model:
    """Build a network with the heads of a recipe, from ImageNet weights, and compile it."""
    heads = {name: targets.CHANNELS[name] for name in recipe.heads}
    model = keras_nuclei.unet(**{**architecture, "heads": heads}, batch_norm_momentum=0.98)
    steps = recipe.epochs * recipe.steps_per_epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=steps // 15,
        decay_steps=steps - steps // 15,
    )
    # Soft targets are learned by cross-entropy, too: its least is where they are met.
    losses = dict.fromkeys(recipe.heads, "binary_crossentropy")
    losses["foreground"] = keras_nuclei.losses.BinaryCrossentropyDice(
        crossentropy_weight=recipe.crossentropy_weight
    )
    weights = dict.fromkeys(recipe.heads, 1.0)
    weights["foreground"] = recipe.foreground_weight
    optimizer = keras.optimizers.Adam(learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, loss=losses, loss_weights=weights)
    return model


def packaged_training(preset: str) -> dict:
    """How the packaged weights of a preset were trained, from what was published of them."""
    path = Path(__file__).parent / "results" / f"{preset}-all.json"
    published = json.loads(path.read_text())
    if published["sha256"] != PRESETS[preset].sha256:
        sys.exit(f"{path} is of other weights than those in the package.")
    return {"sha256": published["sha256"], **history_of(published)}


def trained_before(run: Path, settings: dict) -> dict:
    """How an earlier run was trained, whose weights a run with these settings is to train on."""
    path = run / "train.json"
    if not path.exists() or not (run / "model.keras").exists():
        sys.exit(f"{run} holds no finished run of benchmarks.presets, which --from_run needs.")
    earlier = json.loads(path.read_text())
    for key, why in (
        ("preset", "it is another network"),
        ("data", "it has learned from other images"),
        ("split", "it may know images that the other holds back"),
    ):
        if earlier.get(key) != settings[key]:
            sys.exit(
                f"{run} was trained with --{key} {earlier.get(key)}, and can't be trained on with "
                f"--{key} {settings[key]}: {why}. Pass the same."
            )
    architecture = settings["architecture"]
    # Runs from before it was written down are of the presets'.
    if earlier.get("architecture", architecture) != architecture:
        sys.exit(
            f"{run} was trained as the network {earlier['architecture']}, and can't be trained on "
            f"as {architecture}. Pass the --encoder that it was trained with, or another run."
        )
    return history_of(earlier)


def history_of(training: dict) -> dict:
    """What is told of an earlier training."""
    keys = ("command", "recipe", "seconds", "history", "environment")
    told = {key: training[key] for key in keys}
    # Runs from before there were seeds and stages to tell have neither.
    return {**told, "seed": training.get("seed", 0), "continues": training.get("continues")}


def adopt(model: keras.Model, trained: keras.Model) -> None:
    """Give a model the weights of one that has all of its layers but some heads."""
    known = {variable.path: variable for variable in trained.variables}
    taken = [variable for variable in model.variables if variable.path in known]
    if len(taken) != len(known):
        raise ValueError(f"{trained.name!r} has layers that {model.name!r} lacks.")
    for variable in taken:
        variable.assign(known[variable.path])


if __name__ == "__main__":
    # The network keeps all cores busy: OpenCV's own threads would take turns with it.
    cv2.setNumThreads(0)
    runs.keep_freed_memory()
    main()
