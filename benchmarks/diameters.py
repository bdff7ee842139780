"""How well is the size of nuclei estimated? On validation images, shown at several sizes.

    python -m benchmarks.diameters runs/nuclei_base-random

One image of each field of view in the validation part of the run's split, larger or smaller than it
is. Right is an estimate by which the model sees the nuclei less than 1.5 times too large or too
small. Writes `diameters.json` into the run's folder.
"""

import functools
import itertools
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import cv2
import keras
import numpy as np
from tqdm import tqdm

from benchmarks import nuclei, runs
from keras_nuclei.diameters import FAR, Look, choose, look, model_scale, typical_diameter

MAGNIFICATIONS = (0.5, 1, 2, 4)
MARGINS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)
"""By which nuclei must show more clearly from afar; `keras_nuclei.diameters.FAR_MARGIN`."""

LARGER = (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 100.0)
"""How many times larger they may be there; `keras_nuclei.diameters.FAR_LARGER`. 100: any."""

LARGEST = 640
"""Images that would be larger are cropped first."""


def main(argv: list[str] | None = None) -> Path:
    """Compare both settings as the command line says and return the path of the JSON."""
    args = runs.trial_arguments(__doc__.splitlines()[0]).parse_args(argv)
    training, model = runs.load(args.run)
    rows = one_of_each_field(nuclei.validation_rows_of(training, args.data_dir))

    settings = list(itertools.product(MARGINS, LARGER))
    factors = {setting: defaultdict(list) for setting in settings}
    for row in tqdm(rows, unit="image"):
        for magnification in MAGNIFICATIONS:
            view = magnify(row, magnification)
            if not view.diameter:
                continue
            wanted = model_scale(view.diameter)
            for setting, estimate in estimates(view.image, model, settings).items():
                factor = model_scale(estimate) / wanted
                factors[setting][magnification].append(factor)

    trials = []
    for (margin, larger), by_magnification in factors.items():
        every = [factor for each in by_magnification.values() for factor in each]
        groups = {**by_magnification, "all": every}
        right = {key: np.mean(np.abs(np.log(each)) < np.log(1.5)) for key, each in groups.items()}
        trials.append({"margin": margin, "larger": larger, "right": right})
        print(f"margin {margin}, at most {larger} times larger: {right['all']:.1%} right")
    path = args.run / "diameters.json"
    counts = {"images": len(rows), "views": len(every)}
    runs.write_json(path, {**training, **runs.segment_settings(), **counts, "trials": trials})
    return path


def estimates(
    image: np.ndarray, model: keras.Model, settings: list[tuple[float, float]]
) -> dict[tuple[float, float], float]:
    """Diameters that are estimated, by margin and how many times larger."""

    @functools.cache
    def look_at(scale: float) -> Look:
        return look(image, model, scale=scale)

    def look_again(view: Look) -> Look:
        return look_at(model_scale(view.diameter))

    near, far = look_at(1), look_at(FAR)
    return {setting: choose(near, far, look_again, *setting).diameter for setting in settings}


def one_of_each_field(rows: list[nuclei.NucleiImage]) -> list[nuclei.NucleiImage]:
    """The first image of each field of view."""
    return list({row.field_of_view: row for row in rows[::-1]}.values())


class View(NamedTuple):
    """Part of an image, larger or smaller than it is.

    Attributes:
        image: float32 `(H, W, 3)`, values about 0..255.
        label_map: Its true nuclei, `(H, W)`.
        diameter: Of a typical one, in pixels; 0 where there is none.
    """

    image: np.ndarray
    label_map: np.ndarray
    diameter: float


def magnify(row: nuclei.NucleiImage, factor: float) -> View:
    """The middle of an image, resized."""
    window = tuple(
        slice(max(0, (length - reach) // 2), max(0, (length - reach) // 2) + reach)
        for length in row.label_map.shape
        for reach in [int(LARGEST / factor)]
    )
    image, label_map = row.image[window], row.label_map[window]
    areas = np.bincount(label_map.ravel())[1:]
    diameter = factor * typical_diameter(areas) if areas.any() else 0.0
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)
    size = image.shape[1::-1]
    label_map = cv2.resize(label_map.astype("int32"), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return View(image.astype("float32"), label_map, diameter)


if __name__ == "__main__":
    main()
