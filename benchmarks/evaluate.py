"""Score a trained run on every split: pixel scores as JSON, pictures of its masks.

    python -m benchmarks.evaluate runs/reference-random-seed0

writes `evaluation.json`, `masks.png` and `curves.png` into the run's folder.
"""

import argparse
import json
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np

import keras_nuclei
from benchmarks import pipeline
from benchmarks.runs import NOT_DSB2018, write_json

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(argv: list[str] | None = None) -> Path:
    """Evaluate as the command line says and return the path of the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that benchmarks.train has written")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    args = parser.parse_args(argv)
    if not (args.run / "train.json").exists():
        sys.exit(f"{args.run} holds no train.json. Train it first: python -m benchmarks.train")
    training = json.loads((args.run / "train.json").read_text())
    model = keras.models.load_model(args.run / "model.keras", compile=False)

    name = pipeline.DATA_SETS[training["data"]]
    image_size = training["config"]["image_size"]
    examples = pipeline.load(name, "train", image_size, args.data_dir)
    parts = pipeline.split(examples, training["split"], training["seed"])
    official = pipeline.load(name, "test", image_size, args.data_dir)
    unseen = ~np.isin(official.fields_of_view, examples.fields_of_view)
    parts["official_test"] = official
    parts["official_test_unseen_fields"] = official.take(np.flatnonzero(unseen))

    batch_size = training["config"]["batch_size"]
    probabilities = {
        part: model.predict(pipeline.batches(parts[part], batch_size)) for part in parts
    }
    scores = {part: score(parts[part].masks, probabilities[part]) for part in parts}
    if training["data"] == "synthetic":
        print(NOT_DSB2018)
    print_scores(scores)
    draw_masks(parts["test"], probabilities["test"], args.run / "masks.png")
    draw_curves(training["history"], args.run / "curves.png")
    path = args.run / "evaluation.json"
    write_json(path, {**training, "scores": scores})
    print(f"Wrote {path}, masks.png and curves.png")
    return path


def score(masks: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Pixel scores of predicted probabilities, `(n, height, width, 1)`, at threshold 0.5."""
    metrics = {
        "iou": keras_nuclei.metrics.IoU(),
        "dice": keras_nuclei.metrics.Dice(),
        "per_image_dice": keras_nuclei.metrics.Dice(per_image=True),
    }
    for metric in metrics.values():
        metric.update_state(masks, probabilities)
    return {
        "images": len(masks),
        "accuracy": float(np.mean((probabilities > 0.5) == (masks == 1))),
        "accuracy_of_nothing": float(np.mean(masks == 0)),
        **{name: float(metric.result()) for name, metric in metrics.items()},
    }


def print_scores(scores: dict[str, dict[str, float]]) -> None:
    """Print a table, a line for each split."""
    print(f"{'':28} images  accuracy  of nothing  IoU     Dice    per-image Dice")
    for part, values in scores.items():
        print(
            f"{part:28} {values['images']:6}  {values['accuracy']:.4f}    "
            f"{values['accuracy_of_nothing']:.4f}      {values['iou']:.4f}  {values['dice']:.4f}  "
            f"{values['per_image_dice']:.4f}"
        )


def draw_masks(examples: pipeline.Examples, probabilities: np.ndarray, path: Path) -> None:
    """Draw image, true and predicted mask of the best, the median and the worst image."""
    dice = np.array(
        [
            score(examples.masks[i : i + 1], probabilities[i : i + 1])["dice"]
            for i in range(len(examples.masks))
        ]
    )
    order = np.argsort(-dice, kind="stable")
    rows = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure, axes = plt.subplots(3, 3, figsize=(7.5, 7.8), layout="constrained")
    for row, (title, index) in zip(axes, rows.items(), strict=True):
        pictures = (
            examples.images[index],
            examples.masks[index, ..., 0],
            probabilities[index, ..., 0] > 0.5,
        )
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=None if picture.ndim == 3 else 1)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{title}: Dice {dice[index]:.3f}")
    for axis, title in zip(axes[0], ("image", "true mask", "predicted mask"), strict=True):
        axis.set_title(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_curves(history: list[dict], path: Path) -> None:
    """Draw loss and accuracy of training and validation over the epochs."""
    epochs = np.arange(1, len(history) + 1)
    best = min(history, key=lambda row: row["val_loss"])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, title in zip(
        axes, ("loss", "accuracy"), ("Loss", "Pixel accuracy"), strict=True
    ):
        for prefix, label in (("", "training"), ("val_", "validation")):
            axis.plot(epochs, [row[prefix + key] for row in history], ".-", label=label)
        axis.axvline(history.index(best) + 1, color="gray", linestyle=":", label="kept")
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    # The first epochs are far off and would flatten the rest.
    later = history[len(history) // 4 :]
    middle = np.median([row[key] for row in later for key in ("accuracy", "val_accuracy")])
    axes[1].set_ylim(max(0, middle - 0.1), 1)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
