"""Score a trained preset on the images that its split holds back.

    python -m benchmarks.evaluate_presets runs/nuclei_base-grouped

writes `evaluation.json` and `masks.png` into the run's folder, and with `--packed`
`evaluation-packed.json` and `masks-packed.png`. The images are segmented as `keras_nuclei.segment`
does, both with twelve augmentations and as it does by default, at their own size, and judged by the
original annotation.

Where the split has a validation part, it chooses the threshold: that of `THRESHOLDS` by which, with
twelve augmentations, most pixels are right of its images (without StarDist's test images, as all
that is chosen). Elsewhere it is `segment`'s. What the images score by `segment`'s is written down
in any case.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
from scipy.ndimage import uniform_filter
from tqdm import tqdm

import keras_nuclei
from benchmarks import nuclei, pipeline
from benchmarks.runs import load, segment_settings, write_json
from keras_nuclei import images, instances, matching, overlay, scores, segmentation
from keras_nuclei.diameters import model_scale
from keras_nuclei.maps import label_maps, predict_maps

matplotlib.use("Agg")
from matplotlib import pyplot as plt

AUGMENTATIONS = 12
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
PICTURED = ("test", "official_test", "stardist_test")
PICTURED_SIZE = 256
"""Height and width of what is drawn of an image, in pixels: outlines of one pixel can be seen."""


def main(argv: list[str] | None = None) -> Path:
    """Evaluate as the command line says and return the path of the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that benchmarks.presets has written")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument(
        "--packed", action="store_true", help="score the packaged weights in place of the run's"
    )
    args = parser.parse_args(argv)
    training, model = load(args.run)
    if args.packed and training["split"] != "all":
        parser.error(f"the packaged weights know the images that {args.run} holds back")
    if args.packed:
        training["sha256"] = keras_nuclei.PRESETS[training["preset"]].sha256
        model = keras_nuclei.from_preset(training["preset"])
    training["parameters"] = model.count_params()

    parts = held_back(training, args.data_dir)
    predicted = predict_parts(parts, model)
    threshold, trials = instances.THRESHOLD, []
    if "validation" in parts:
        choosing = [row for row in parts["validation"] if not nuclei.is_stardist_test(row)]
        trials = try_thresholds(choosing, predicted)
        threshold = best_threshold(trials)
        print(f"On the validation images, most pixels are right by a threshold of {threshold}.")
    suffix = "-packed" if args.packed else ""
    results = score_parts(parts, predicted, threshold, args.run / f"masks{suffix}.png")
    for part, groups in results["scores"].items():
        values = groups["all"]
        print(
            f"{part}: {values['images']} images, accuracy {values['accuracy']:.4f} (predicting "
            f"nothing {values['accuracy_of_nothing']:.4f}), Dice {values['dice']:.4f}, IoU "
            f"{values['iou']:.4f}, DSB {values['dsb_per_image']:.4f}, AP@0.5 "
            f"{values['ap50_per_image']:.4f}"
        )
    path = args.run / f"evaluation{suffix}.json"
    settings = {"augmentations": AUGMENTATIONS, **segment_settings(), "threshold": threshold}
    write_json(path, {**training, **settings, "threshold_trials": trials, **results})
    return path


def held_back(training: dict, data_dir: str | None) -> dict[str, list[nuclei.NucleiImage]]:
    """The images that a run has not learned from, by the name of the part."""
    name, split = pipeline.DATA_SETS[training["data"]], training["split"]
    train = nuclei.load(name, "train", data_dir, normalized=False)
    if split in ("random", "grouped"):
        fields = np.array([row.field_of_view for row in train])
        parts = pipeline.split_indices(fields, split, seed=0)
        return {part: [train[i] for i in parts[part]] for part in ("validation", "test")}
    if split == "all":
        official = nuclei.load(name, "test", data_dir, normalized=False)
        known = {row.field_of_view for row in train}
        unseen = [row for row in official if row.field_of_view not in known]
        return {"official_test": official, "official_test_unseen_fields": unseen}
    return {"stardist_test": [row for row in train if nuclei.is_stardist_test(row)]}


class Predicted(NamedTuple):
    """What a model makes of an image.

    Attributes:
        scale: That the model has seen the image at.
        maps: By the number of augmentations.
    """

    scale: float
    maps: dict[int, dict[str, np.ndarray]]


def predict(
    row: nuclei.NucleiImage, model: keras.Model, views: tuple[int, ...] = (AUGMENTATIONS, 1)
) -> Predicted:
    """Let a model draw its maps of an image, as `keras_nuclei.segment` does.

    Args:
        row: The image.
        model: The model.
        views: Numbers of augmentations; one view is `segment`'s default.

    Returns:
        The scale, and the maps by number of augmentations.
    """
    scale = model_scale(segmentation.estimate_diameter(row.image, model))
    image = images.normalize(row.image)
    maps = {
        number: predict_maps(image, model, scale=scale, augmentations=number) for number in views
    }
    return Predicted(scale, maps)


def predict_parts(
    parts: dict[str, list[nuclei.NucleiImage]], model: keras.Model
) -> dict[str, Predicted]:
    """What a model makes of the images of all parts, by their ids."""
    predicted = {}
    for part, rows in parts.items():
        for row in tqdm(rows, desc=part, unit="image"):
            if row.image_id not in predicted:  # a part may be of another
                predicted[row.image_id] = predict(row, model)
    return predicted


def try_thresholds(
    rows: list[nuclei.NucleiImage], predicted: dict[str, Predicted]
) -> list[dict[str, float]]:
    """Pixel scores of images by each of `THRESHOLDS`."""
    masks = [
        (row.label_map > 0, predicted[row.image_id].maps[AUGMENTATIONS]["foreground"][..., 0])
        for row in rows
    ]
    return [{"threshold": threshold, **pixel_scores(masks, threshold)} for threshold in THRESHOLDS]


def best_threshold(trials: list[dict[str, float]]) -> float:
    """The threshold by which most pixels are right; of several, the nearest to `segment`'s."""
    most = max(trial["accuracy"] for trial in trials)
    best = [trial["threshold"] for trial in trials if trial["accuracy"] == most]
    return min(best, key=lambda threshold: abs(threshold - instances.THRESHOLD))


class Found(NamedTuple):
    """What was found in an image.

    Attributes:
        foreground: Probabilities, float32 `(H, W)`.
        label_map: int32 `(H, W)`.
        match: Of the true label map and this one.
    """

    foreground: np.ndarray
    label_map: np.ndarray
    match: matching.Match


def find(
    row: nuclei.NucleiImage, predicted: Predicted, augmentations: int, threshold: float
) -> Found:
    """Make nuclei of an image's maps, as `keras_nuclei.segment` does."""
    maps = predicted.maps[augmentations]
    label_map = label_maps(maps, scale=predicted.scale, threshold=threshold)
    match = matching.match(row.label_map, label_map)
    return Found(maps["foreground"][..., 0], label_map, match)


def score_parts(
    parts: dict[str, list[nuclei.NucleiImage]],
    predicted: dict[str, Predicted],
    threshold: float,
    picture: Path,
) -> dict[str, dict[str, dict]]:
    """Scores of all parts: by a threshold, by `segment`'s, and by `segment`'s in one view.

    Args:
        parts: Images by the name of the part.
        predicted: What a model makes of them.
        threshold: Of the foreground.
        picture: Where to draw what is found of a part of `PICTURED` by that threshold.

    Returns:
        By the name of the scores and that of the part, as `score`.
    """
    measured = {
        "scores": (AUGMENTATIONS, threshold),
        "scores_by_default_threshold": (AUGMENTATIONS, instances.THRESHOLD),
        "scores_of_one_view": (1, instances.THRESHOLD),
    }
    results: dict[str, dict[str, dict]] = {}
    known = {}
    for name, how in measured.items():
        results[name] = {}
        for part, rows in parts.items():
            for row in tqdm(rows, desc=f"{name}: {part}", unit="image"):
                if (row.image_id, how) not in known:
                    known[row.image_id, how] = find(row, predicted[row.image_id], *how)
            found = [known[row.image_id, how] for row in rows]
            results[name][part] = score(rows, found, how[1])
            if name == "scores" and part in PICTURED:
                draw(rows, found, picture)
    return results


def score(rows: list[nuclei.NucleiImage], found: list[Found], threshold: float) -> dict[str, dict]:
    """Pixel and instance scores of images by a threshold, of all and of each modality."""
    modalities = np.array([row.modality for row in rows])
    groups = {"all": np.arange(len(rows))}
    groups |= {name: np.flatnonzero(modalities == name) for name in np.unique(modalities)}
    return {
        group: {
            **pixel_scores(
                [(rows[i].label_map > 0, found[i].foreground) for i in members], threshold
            ),
            **scores.summarize([found[i].match for i in members]),
        }
        for group, members in groups.items()
    }


def pixel_scores(masks: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> dict[str, float]:
    """Pixel scores of pairs of a true mask and predicted probabilities, by a threshold."""
    metrics = {
        "iou": keras_nuclei.metrics.IoU(threshold=threshold),
        "dice": keras_nuclei.metrics.Dice(threshold=threshold),
        "per_image_dice": keras_nuclei.metrics.Dice(threshold=threshold, per_image=True),
    }
    pixels = right = empty = 0
    for true, probabilities in masks:
        for metric in metrics.values():
            metric.update_state(
                true[None, ..., None].astype("uint8"), probabilities[None, ..., None]
            )
        pixels += true.size
        right += np.sum((probabilities > threshold) == true)
        empty += np.sum(~true)
    return {
        "accuracy": float(right / pixels),
        "accuracy_of_nothing": float(empty / pixels),
        **{name: float(metric.result()) for name, metric in metrics.items()},
    }


def draw(rows: list[nuclei.NucleiImage], found: list[Found], path: Path) -> None:
    """Draw true and found nuclei of the best, the median and the worst image, by AP@0.5.

    Of each, the part that nuclei cover most.
    """
    precision = np.array([scores.average_precision([each.match], 0.5) for each in found])
    order = np.argsort(-precision, kind="stable")
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure, axes = plt.subplots(3, 3, figsize=(9, 9), layout="constrained")
    for line, (title, index) in zip(axes, chosen.items(), strict=True):
        row = rows[index]
        pictures = (
            images.normalize(row.image).astype("uint8"),
            overlay(row.image, row.label_map),
            overlay(row.image, found[index].label_map),
        )
        window = crowded_window(row.label_map > 0)
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture[window], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"{title}: AP@0.5 {precision[index]:.3f}")
    for axis, title in zip(axes[0], ("image", "true nuclei", "found nuclei"), strict=True):
        axis.set_title(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def crowded_window(mask: np.ndarray, size: int = PICTURED_SIZE) -> tuple[slice, slice]:
    """Rows and columns of the square of a mask, or of what fits into it, where most is set."""
    share = uniform_filter(mask.astype("float32"), size, mode="constant")
    centre = np.unravel_index(np.argmax(share), share.shape)
    top, left = (
        int(np.clip(middle - size // 2, 0, max(0, length - size)))
        for middle, length in zip(centre, mask.shape, strict=True)
    )
    return slice(top, top + size), slice(left, left + size)


if __name__ == "__main__":
    main()
