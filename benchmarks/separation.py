"""Which maps separate touching nuclei best? A trial on validation images of unseen fields.

    python -m benchmarks.presets --preset nuclei_base --split grouped
    python -m benchmarks.separation runs/nuclei_base-grouped

One network has learned all maps at once (where it was trained on, fewer, and it can be asked for
fewer `--methods`); each method makes label maps of some of them, with the settings that score best
on the validation part of the run's split. Writes `separation.json` into the run's folder.
"""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from benchmarks import nuclei, runs
from keras_nuclei import matching, scores, segmentation
from keras_nuclei.diameters import model_scale
from keras_nuclei.maps import label_maps, predict_maps

THRESHOLDS = {"threshold": (0.5, 0.55, 0.6, 0.65)}
SMOOTHINGS = {"smoothing": (0, 1, 1.5, 2, 2.5)}
"""What every method tries that has such a setting: none is to win by a finer grid."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to separate nuclei.

    Attributes:
        heads: What it needs of a model.
        settings: Values to try, by the name of the setting.
        landscape: From maps to what is highest in the middle of a nucleus; None where the method
            has no such thing.
    """

    heads: tuple[str, ...]
    settings: dict[str, tuple] = dataclasses.field(default_factory=dict)
    landscape: Callable[[dict[str, np.ndarray]], np.ndarray] | None = None


METHODS = {
    "foreground alone": Method(("foreground",), THRESHOLDS),
    "boundary": Method(
        ("foreground", "boundary"),
        {**THRESHOLDS, "seed_thresholds": ((0.3,), (0.4,), (0.5,), (0.7,)), **SMOOTHINGS},
        lambda maps: maps["foreground"] - maps["boundary"],
    ),
    "distance": Method(
        ("foreground", "distance"),
        {
            **THRESHOLDS,
            "seed_thresholds": ((0.4,), (0.5,), (0.6,), (0.5, 0.6, 0.7, 0.8)),
            **SMOOTHINGS,
        },
        lambda maps: maps["distance"],
    ),
    "distance less boundary": Method(
        ("foreground", "distance", "boundary"),
        {**THRESHOLDS, "seed_thresholds": ((0.2,), (0.3,), (0.4,), (0.5,)), **SMOOTHINGS},
        lambda maps: maps["distance"] - 0.4 * maps["boundary"],
    ),
    "centre": Method(
        ("foreground", "centre"),
        {**THRESHOLDS, "seed_thresholds": ((0.3,), (0.4,), (0.5,), (0.6,)), **SMOOTHINGS},
        lambda maps: maps["centre"],
    ),
    "flow": Method(("foreground", "flow"), {**THRESHOLDS, "min_votes": (8, 16, 32)}),
}
"""By name, as in the results."""


def label(
    maps: dict[str, np.ndarray], scale: float, method: str, *, threshold: float, **settings
) -> np.ndarray:
    """Label map by one of `METHODS`, from maps `(H, W, channels)` drawn at a scale."""
    pixels = min(scale, 1) ** -2  # of the image, in one that the model saw
    min_area = round(12 * pixels)
    foreground = maps["foreground"][..., 0]
    if method == "foreground alone":
        return numbered(foreground > threshold, min_area)
    if method == "flow":
        return follow(maps["flow"], foreground > threshold, min_area=min_area, **settings)
    landscape = METHODS[method].landscape(maps)[..., 0]
    drawn = {"foreground": foreground, "distance": np.clip(landscape, 0, 1)}
    return label_maps(drawn, scale=scale, threshold=threshold, **settings)


def numbered(pieces: np.ndarray, min_area: int) -> np.ndarray:
    """Number the pieces of a mask or label map that have at least so many pixels."""
    if pieces.dtype == bool:
        pieces, _ = ndimage.label(pieces, np.ones((3, 3)))
    kept = np.bincount(pieces.ravel(), minlength=1) >= min_area
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[pieces]


def follow(flow: np.ndarray, inside: np.ndarray, min_votes: int, min_area: int) -> np.ndarray:
    """Let every pixel of the foreground walk along the flow; those that meet are a nucleus."""
    step = np.moveaxis(2 * flow - 1, -1, 0)
    start = np.nonzero(inside)
    place = np.array(start, np.float32)
    limits = np.array(inside.shape)[:, None] - 1
    for _ in range(60):
        rows, columns = np.round(place).astype(int)
        place = np.clip(place + step[:, rows, columns], 0, limits)
    rows, columns = np.round(place).astype(int)
    votes = np.zeros(inside.shape)
    np.add.at(votes, (rows, columns), 1)
    votes = ndimage.uniform_filter(votes, 3) * 9
    sinks, _ = ndimage.label(votes >= min_votes, np.ones((3, 3)))
    label_map = np.zeros(inside.shape, int)
    label_map[start] = sinks[rows, columns]
    return numbered(label_map, min_area)


def main(argv: list[str] | None = None) -> Path:
    """Compare the methods as the command line says and return the path of the JSON."""
    parser = runs.trial_arguments(__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_args(argv)
    training, model = runs.load(args.run, all_heads=True)
    heads = set(model.output)
    lacking = {head for method in args.methods for head in METHODS[method].heads} - heads
    if lacking:
        possible = [name for name, each in METHODS.items() if set(each.heads) <= heads]
        parser.error(
            f"{args.run} has no heads {sorted(lacking)}. Pass a run from ImageNet weights, or "
            f"--methods of: {', '.join(map(repr, possible))}"
        )
    rows = nuclei.validation_rows_of(training, args.data_dir)
    scales, maps = [], []
    for row in tqdm(rows, unit="image"):
        scale = model_scale(segmentation.estimate_diameter(row.image, model))
        image = row.image.astype("float32")
        scales.append(scale)
        # No flips: the mean of a direction and its mirror image is none.
        maps.append(predict_maps(image, model, scale=scale))

    results = {}
    for method in args.methods:
        grid = METHODS[method].settings
        trials = []
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            found = [
                matching.match(row.label_map, label(each, scale, method, **settings))
                for row, each, scale in zip(rows, maps, scales, strict=True)
            ]
            trials.append({"settings": settings, **scores.summarize(found)})
        results[method] = trials
        best = max(trials, key=lambda trial: trial["dsb_per_image"])
        print(f"{method:22} DSB {best['dsb_per_image']:.4f} with {best['settings']}")
    path = args.run / "separation.json"
    # The size of nuclei is estimated by `segment`'s own settings, whatever the methods'.
    runs.write_json(path, {**training, "sizes_by": runs.segment_settings(), "methods": results})
    return path


if __name__ == "__main__":
    main()
