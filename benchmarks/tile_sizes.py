"""How far does what a model sees in tiles differ from what it sees at once?

    python -m benchmarks.tile_sizes --output benchmarks/results/tile_sizes.json

With the packaged `nuclei_base`, on images of stage1_train: those of other than stained tissue that
are larger than 512 pixels, one of each field of view, and stained tissue three times as large, as a
stronger objective shows it, where the context of a pixel counts most. What is true does not matter
here: the measure is the image seen at once, as one tile.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

import keras_nuclei
from benchmarks import nuclei, runs
from benchmarks.diameters import one_of_each_field
from benchmarks.inference import as_function
from keras_nuclei import instances, runtimes
from keras_nuclei.images import normalize
from keras_nuclei.maps import predict_maps, resize, scaled_size

PRESET = "nuclei_base"
TILES = ((512, 64), (512, 128), (1024, 64), (1024, 128), (1024, 256))
"""Height and width at most, and what neighbours share, in pixels."""
AT_ONCE = 4096, 64
IMAGES = 24
"""Of each group, at most."""
MAGNIFICATION = 3


def main(argv: list[str] | None = None) -> None:
    """Compare the tiles as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON to write")
    parser.add_argument("--overwrite", action="store_true", help="replace it")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    args = parser.parse_args(argv)
    if args.output.exists() and not args.overwrite:
        parser.error(f"{args.output} exists; name another file or pass --overwrite")
    groups = images_of(nuclei.load("dsb2018", "train", args.data_dir))
    result = {
        "weights": {PRESET: keras_nuclei.PRESETS[PRESET].sha256},
        "images": {group: len(images) for group, images in groups.items()},
        "trials": compare(groups, as_function(runtimes.fastest(PRESET))),
        "environment": runs.environment(),
    }
    runs.write_json(args.output, result)


def images_of(rows: list[nuclei.NucleiImage]) -> dict[str, list[np.ndarray]]:
    """The images to look at, as the model takes them, by group."""
    rows = one_of_each_field(rows)
    tissue = [row.image for row in rows if row.modality == "histology"][:IMAGES]
    large = [
        row.image
        for row in rows
        if row.modality != "histology" and max(row.label_map.shape) > min(TILES)[0]
    ]
    magnified = [resize(image, scaled_size(image.shape[:2], MAGNIFICATION)) for image in tissue]
    return {
        "tissue": list(map(normalize, magnified)),
        "large": list(map(normalize, large[:IMAGES])),
    }


def compare(groups: dict[str, list[np.ndarray]], model: Callable) -> list[dict]:
    """For each kind of tiles: how much of the foreground differs, and what it costs."""
    different = {tiles: dict.fromkeys(groups, 0) for tiles in TILES}
    either = {tiles: dict.fromkeys(groups, 0) for tiles in TILES}
    seen = dict.fromkeys(TILES, 0)
    pixels = sum(image[..., 0].size for images in groups.values() for image in images)
    for group, images in groups.items():
        for image in tqdm(images, desc=group, unit="image"):
            whole, _ = foreground(image, model, AT_ONCE)
            for tiles in TILES:
                tiled, count = foreground(image, model, tiles)
                different[tiles][group] += int((tiled != whole).sum())
                either[tiles][group] += int((tiled | whole).sum())
                seen[tiles] += count
    return [
        {
            "tile_size": tiles[0],
            "overlap": tiles[1],
            "different": {
                group: different[tiles][group] / either[tiles][group] for group in groups
            },
            "pixels_seen": seen[tiles] / pixels,
        }
        for tiles in TILES
    ]


def foreground(
    image: np.ndarray, model: Callable, tiles: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """What of an image is foreground, seen in tiles, and how many pixels the model has seen."""
    seen = 0

    def count(batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal seen
        seen += batch[..., 0].size
        return model(batch)

    tile_size, overlap = tiles
    maps = predict_maps(image, count, tile_size=tile_size, overlap=overlap)
    return maps["foreground"][..., 0] > instances.THRESHOLD, seen


if __name__ == "__main__":
    main()
