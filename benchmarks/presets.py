"""Train a preset on DSB2018, resumable at every epoch.

    python -m benchmarks.presets --preset nuclei_base --split grouped

writes into `runs/nuclei_base-grouped/`. Started again, it goes on where it stopped.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np

import keras_nuclei
from benchmarks import augmentation, nuclei, pipeline, targets
from benchmarks.train import NOT_DSB2018, environment, prepare_folder, write_json
from keras_nuclei.presets import PRESETS

CORRECTED = {"dsb2018": "dsb2018/stage1_fixed"}
"""The data set with better annotation of the same images."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides a preset's training, but for the split and its architecture.

    Attributes:
        epochs: Of so many steps each; there is no pass over the data, since crops are drawn.
        heads: Names of maps of `benchmarks.targets`, those too that the preset lacks.
        crop_size: Height and width of a training crop, in pixels.
        batch_size: Crops in a step.
        steps_per_epoch: Steps after which a checkpoint is written.
        learning_rate: Of Adam at its highest: it rises for a fifteenth of the steps and falls to
            nothing along a cosine.
        shares: Of each modality among the crops.
    """

    epochs: int
    heads: tuple[str, ...] = ("foreground", "boundary", "distance", "centre", "flow")
    crop_size: int = 192
    batch_size: int = 8
    steps_per_epoch: int = 100
    learning_rate: float = 1.5e-3
    shares: tuple[tuple[str, float], ...] = (
        ("fluorescence", 0.58),
        ("histology", 0.34),
        ("brightfield", 0.08),
    )


RECIPES = {
    "nuclei_base": Recipe(epochs=30),
}


class Crops(keras.utils.PyDataset):
    """Batches of random crops; each depends on the seed, the epoch and its number alone."""

    def __init__(self, rows: list[nuclei.NucleiImage], recipe: Recipe, epoch: int, seed: int):
        super().__init__(workers=2, max_queue_size=8)
        self.rows = rows
        self.recipe = recipe
        self.epoch = epoch
        self.seed = seed
        self.chances = chances(rows, dict(recipe.shares))

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
        image, label_map = augmentation.random_crop(
            row.image, row.label_map, row.diameter, self.recipe.crop_size, generator
        )
        return augmentation.random_look(image, generator), label_map


def chances(rows: list[nuclei.NucleiImage], shares: dict[str, float]) -> np.ndarray:
    """Chance of each image to be drawn: its modality's share, the larger the image the more."""
    modalities = np.array([row.modality for row in rows])
    weights = np.sqrt([row.label_map.size for row in rows])
    for modality in np.unique(modalities):
        members = modalities == modality
        weights[members] *= shares[modality] / weights[members].sum()
    return weights / weights.sum()


def main(argv: list[str] | None = None) -> Path:
    """Train as the command line says and return the run's folder."""
    args = parse_arguments(argv)
    recipe = RECIPES[args.preset]
    suffix = "-synthetic" if args.data == "synthetic" else ""
    run = args.output / f"{args.preset}-{args.split}{suffix}"
    settings = {
        "command": f"python -m benchmarks.presets --preset {args.preset} --split {args.split}",
        "preset": args.preset,
        "data": args.data,
        "split": args.split,
        "architecture": PRESETS[args.preset].architecture,
        "recipe": dataclasses.asdict(recipe),
    }
    settings = json.loads(json.dumps(settings))
    if args.overwrite:
        shutil.rmtree(run, ignore_errors=True)
    prepare_folder(run, settings)
    if (run / "train.json").exists():
        print(f"{run} is trained already. Pass --overwrite to train it anew.")
        return run

    # -- Data: learns from the corrected annotation, is judged by the original one ----------------
    if args.data == "synthetic":
        print(NOT_DSB2018)
    name = pipeline.DATA_SETS[args.data]
    ids = nuclei.training_ids(nuclei.load(name, "train", args.data_dir), args.split)
    rows = nuclei.load(CORRECTED.get(name, name), "train", args.data_dir)
    rows = [row for row in rows if row.image_id in ids]
    print(f"{run}: {len(rows)} images")

    # -- Model: new, or as the last finished epoch left it ----------------------------------------
    keras.utils.set_random_seed(0)
    history, model = resume(run)
    if model is None:
        model = build(args.preset)
    else:
        print(f"Resuming after epoch {len(history)}.")

    # -- Epochs ---------------------------------------------------------------------------------
    while len(history) < recipe.epochs:
        epoch = len(history)
        started = time.perf_counter()
        crops = Crops(rows, recipe, epoch, seed=0)
        logs = model.fit(crops, initial_epoch=epoch, epochs=epoch + 1, shuffle=False).history
        row = {name: values[-1] for name, values in logs.items()}
        if not np.isfinite(row["loss"]):
            sys.exit(f"The loss of epoch {epoch + 1} is not finite: {row}.")
        history.append({**row, "seconds": time.perf_counter() - started})
        checkpoint(run, model, history)

    # -- What stays -----------------------------------------------------------------------------
    model.save(run / "model.keras")
    write_json(
        run / "train.json",
        {
            **settings,
            "images": len(rows),
            "parameters": model.count_params(),
            "seconds": sum(row["seconds"] for row in history),
            "history": history,
            "environment": environment(),
        },
    )
    shutil.rmtree(run / "checkpoints")
    print(f"Trained: {run / 'model.keras'}")
    return run


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=RECIPES, required=True)
    parser.add_argument("--split", choices=nuclei.SPLITS, default="all")
    parser.add_argument("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument("--overwrite", action="store_true", help="train anew, drop what is there")
    return parser.parse_args(argv)


def build(preset: str) -> keras.Model:
    """Build a preset with all heads of its recipe, from ImageNet weights, and compile it."""
    recipe = RECIPES[preset]
    heads = {name: targets.CHANNELS[name] for name in recipe.heads}
    architecture = {**PRESETS[preset].architecture, "heads": heads}
    model = keras_nuclei.unet(**architecture, batch_norm_momentum=0.98)
    steps = recipe.epochs * recipe.steps_per_epoch
    learning_rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.learning_rate,
        warmup_steps=steps // 15,
        decay_steps=steps - steps // 15,
    )
    # Soft targets are learned by cross-entropy, too: its least is where they are met.
    losses = dict.fromkeys(recipe.heads, "binary_crossentropy")
    losses["foreground"] = keras_nuclei.losses.BinaryCrossentropyDice()
    model.compile(keras.optimizers.Adam(learning_rate, global_clipnorm=1.0), loss=losses)
    return model


def checkpoint(run: Path, model: keras.Model, history: list[dict]) -> None:
    """Keep the model of the last epoch; a kill at any moment leaves the last whole one."""
    checkpoints = run / "checkpoints"
    partial = checkpoints / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save(partial / "model.keras")
    write_json(partial / "history.json", history)
    partial.rename(checkpoints / f"{len(history):04d}")
    for folder in sorted(checkpoints.glob("[0-9]*"))[:-1]:
        shutil.rmtree(folder)


def resume(run: Path) -> tuple[list[dict], keras.Model | None]:
    """History and model of the last whole checkpoint; none of them where there is none."""
    folders = sorted((run / "checkpoints").glob("[0-9]*"))
    if not folders:
        return [], None
    history = json.loads((folders[-1] / "history.json").read_text())
    return history, keras.models.load_model(folders[-1] / "model.keras")


if __name__ == "__main__":
    main()
