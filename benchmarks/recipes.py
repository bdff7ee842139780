"""Which recipe finds nuclei where the stain is unknown? A trial without any test image.

    python -m benchmarks.recipes

trains `nuclei_base` by each of `VARIANTS` on the training part of the grouped split without its
tissue on a clear ground: what is left of stained tissue lies on lilac or pink. Scored are the
validation part of the split, by modality, and the tissue that was held back. Resumable at every
epoch; writes `recipes.json` into the folder of the runs.
"""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
from tqdm import tqdm

from benchmarks import evaluate_presets, nuclei, pipeline, presets, runs
from keras_nuclei import instances

PRESET, SPLIT = "nuclei_base", "grouped"
EPOCHS = 24
"""Fewer than the preset learns for: to be seen is which way leads further."""

VARIANTS = {
    "cross-entropy": {"crossentropy_weight": 1.0},
    "cross-entropy and Dice": {"crossentropy_weight": 0.5},
}
"""What differs from the preset's recipe, by the name in the results."""

THRESHOLDS = tuple(sorted({0.3, 0.4, 0.5, 0.6, 0.7, instances.THRESHOLD}))
"""Of the foreground: what one loss finds may be but a matter of a threshold."""


def main(argv: list[str] | None = None) -> Path:
    """Train and score the variants as the command line says and return the path of the JSON."""
    args = parse_arguments(argv)
    published = nuclei.load(pipeline.DATA_SETS[args.data], "train", args.data_dir)
    ids = nuclei.training_ids(published, SPLIT)
    held_back = {row.image_id for row in published if on_clear_ground(row)}
    rows = presets.corrected(args.data, ids - held_back, args.data_dir)
    parts = {
        "validation": nuclei.validation_rows(published, SPLIT),
        "unknown stain": [row for row in published if row.image_id in ids & held_back],
    }
    architecture = presets.PRESETS[PRESET].architecture
    results = {}
    for variant in VARIANTS:
        recipe = dataclasses.replace(
            presets.recipe_of(PRESET, SPLIT), epochs=args.epochs, **VARIANTS[variant]
        )
        settings = {
            "preset": PRESET,
            "data": args.data,
            "split": SPLIT,
            "architecture": architecture,
            "recipe": dataclasses.asdict(recipe),
        }
        run = args.output / variant.replace(" ", "_")
        if args.overwrite:
            shutil.rmtree(run, ignore_errors=True)
        runs.prepare_folder(run, runs.as_json(settings))
        if not scored_as_now(run / "scores.json"):
            print(f"{variant}: {len(rows)} images")
            model, history = presets.learn(run, rows, architecture, recipe)
            told = {"images": len(rows), "history": history, "environment": runs.environment()}
            measured = {**runs.segment_settings(), "scores": score(model, parts)}
            runs.write_json(run / "scores.json", {**settings, **told, **measured})
        results[variant] = json.loads((run / "scores.json").read_text())
    path = args.output / "recipes.json"
    runs.write_json(path, {"data": args.data, "variants": results})
    return path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default: {EPOCHS}")
    parser.add_argument("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--overwrite", action="store_true", help="train anew, drop what is there")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/recipes"), help="default: runs/recipes"
    )
    return parser.parse_args(argv)


def scored_as_now(path: Path) -> bool:
    """Whether scores are there, and of `keras_nuclei.segment`'s settings of now."""
    return path.exists() and runs.is_by_segment_settings(json.loads(path.read_text()))


def on_clear_ground(row: nuclei.NucleiImage) -> bool:
    """Whether the brightest parts of stained tissue are hardly more blue than green.

    On lilac and on pink they are.
    """
    _, green, blue = np.percentile(row.image.reshape(-1, 3), 80, axis=0)
    return bool(row.modality == "histology" and blue - green < 30)


def score(model: keras.Model, parts: dict[str, list[nuclei.NucleiImage]]) -> dict[str, dict]:
    """Scores of each part in one view, by each of `THRESHOLDS`."""
    results = {}
    for part, rows in parts.items():
        predicted = [
            evaluate_presets.predict(row, model, views=(1,))
            for row in tqdm(rows, desc=part, unit="image")
        ]
        results[part] = {}
        for threshold in THRESHOLDS:
            found = [
                evaluate_presets.find(row, each, 1, threshold)
                for row, each in zip(rows, predicted, strict=True)
            ]
            results[part][str(threshold)] = evaluate_presets.score(rows, found, threshold)
        for group, each in results[part][str(instances.THRESHOLD)].items():
            print(
                f"{part}, {group}: {each['images']} images, accuracy {each['accuracy']:.4f}, Dice "
                f"{each['dice']:.4f}, DSB {each['dsb_per_image']:.4f}"
            )
    return results


if __name__ == "__main__":
    # As for `benchmarks.presets`.
    cv2.setNumThreads(0)
    runs.keep_freed_memory()
    main()
