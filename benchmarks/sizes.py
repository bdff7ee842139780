"""How large should a model see the nuclei? On validation images, as they are and magnified.

    python -m benchmarks.sizes runs/nuclei_base-random

The images of the validation part of the run's split (of large ones the middle 640 pixels), and one
of each field of view four times as large, where nuclei measure about 100 pixels. The size of the
nuclei is known here; for how well it is estimated see `benchmarks.diameters`. Writes
`sizes.json` into the run's folder.
"""

from collections import defaultdict
from pathlib import Path

import keras
from tqdm import tqdm

from benchmarks import nuclei, runs
from benchmarks.diameters import View, magnify, one_of_each_field
from keras_nuclei import matching, scores
from keras_nuclei.diameters import LARGEST_DIAMETER, SMALLEST_DIAMETER, model_scale
from keras_nuclei.maps import label_maps, predict_maps

MAGNIFICATION = 4
LARGEST = (30, 35, 40, 45, 50, 60, 70)
LIMITS = (
    *((SMALLEST_DIAMETER, largest) for largest in LARGEST),
    *((smallest, LARGEST_DIAMETER) for smallest in (20, 32)),
)
"""Smaller nuclei than the one, and larger ones than the other, are brought to that diameter, in
pixels. One is changed at a time."""


def main(argv: list[str] | None = None) -> Path:
    """Compare the sizes as the command line says and return the path of the JSON."""
    args = runs.trial_arguments(__doc__.splitlines()[0]).parse_args(argv)
    training, model = runs.load(args.run)
    rows = nuclei.validation_rows_of(training, args.data_dir)

    found = {limits: defaultdict(list) for limits in LIMITS}
    for magnification, images in ((1, rows), (MAGNIFICATION, one_of_each_field(rows))):
        for row in tqdm(images, desc=f"{magnification} times as large", unit="image"):
            view = magnify(row, magnification)
            if view.diameter:
                for limits, match in compare(view, model).items():
                    for group in groups_of(view, magnification):
                        found[limits][group].append(match)

    trials = []
    for (smallest, largest), groups in found.items():
        results = {group: scores.summarize(matches) for group, matches in groups.items()}
        trials.append({"smallest": smallest, "largest": largest, "scores": results})
        shown = ", ".join(f"{group} {each['dsb_per_image']:.4f}" for group, each in results.items())
        print(f"{smallest} to {largest} pixels: DSB of {shown}")
    path = args.run / "sizes.json"
    runs.write_json(path, {**training, **runs.segment_settings(), "trials": trials})
    return path


def groups_of(view: View, magnification: int) -> list[str]:
    """By what names a view is scored."""
    if magnification > 1:
        return ["magnified"]
    return ["all", "large"] if view.diameter > min(LARGEST) else ["all"]


def compare(view: View, model: keras.Model) -> dict[tuple[int, int], matching.Match]:
    """What is found in a view, for each least and greatest diameter that the model may see."""
    by_scale: dict[float, matching.Match] = {}
    found = {}
    for smallest, largest in LIMITS:
        scale = model_scale(view.diameter, (smallest, largest))
        if scale not in by_scale:
            maps = predict_maps(view.image, model, scale=scale)
            label_map = label_maps(maps, scale=scale)
            by_scale[scale] = matching.match(view.label_map, label_map)
        found[smallest, largest] = by_scale[scale]
    return found


if __name__ == "__main__":
    main()
