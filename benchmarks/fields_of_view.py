"""Tell which images of the Data Science Bowl 2018 are tiles of one field of view.

    python -m benchmarks.fields_of_view --source DIR

DIR holds `stage1_train.zip` and `stage1_test.zip`, or the folders of these names. The command
writes `tfds_dsb2018/fields_of_view.csv`, the table that the data set ships, and
`benchmarks/results/fields_of_view.json`, what was counted on the way.

Why it matters: a tile and its neighbour share nuclei, stain, focus and illumination. A validation
set drawn at random from such tiles measures how well a model knows fields it has already seen.

Images share a field when their borders continue each other (`benchmarks.seams` says how that is
judged), or when they overlap: show the same scene, up to a shift and to contrast. The table errs on
the side of too many fields, so the leak that it tells of is a lower bound.

Facts of the data, each looked at in pictures. Most fields were cut into 2 x 2 tiles, those of 360
x 360 pixels into up to 4 x 4. Four tiles of the training set return in the test set at another
contrast; one embryo is there twice, and two brightfield images overlap by 44 %. Compared with a
table made earlier by correlating borders, this one also joins tiles whose sizes differ by a
pixel, dim seams that a square of four tiles confirms, and those copies. It misses one seam of that
table: tile 6aa7dd0c... is brighter than its true neighbour 0280fa8f..., so their borders differ.
"""

import argparse
import csv
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import matplotlib.figure
import numpy as np
import scipy
import sklearn
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import pair_confusion_matrix
from tqdm import tqdm

from benchmarks import seams as seams_module
from benchmarks.seams import Images, Seam, accept, find_squares, lay_out, mutual_best_seams
from tfds_dsb2018 import masks, sources

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tfds_dsb2018" / "fields_of_view.csv"
REPORT = ROOT / "benchmarks" / "results" / "fields_of_view.json"


def read_split(source: Path, split: str) -> dict[str, NDArray[np.uint8]]:
    """Read `image_id -> image`, uint8 (H, W, 3), of `stage1_<split>.zip` or such a folder.

    Raises:
        FileNotFoundError: there is neither, or no image in it.
        ValueError, OSError: a file is damaged; the message names it.
    """
    places = [source / f"stage1_{split}.zip", source / f"stage1_{split}"]
    found = [place for place in places if place.exists()]
    archive = sources.open_archive(found[0]) if found else None
    names = [name for name in archive.names if "/images/" in name] if archive else []
    names = sorted(name for name in names if name.endswith(".png"))
    if not names:
        raise FileNotFoundError(
            f"No <image id>/images/<image id>.png in {places[0]} or {places[1]}. Pass as --source "
            "the folder that holds them."
        )
    return {
        Path(name).stem: masks.decode_png(archive.read(name), f"{name} in {archive.label}")
        for name in tqdm(names, desc=f"read {split}", unit="image")
    }


def number_fields(ids: Iterable[str], pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Number the connected components of `pairs`, from 0 in the order of their smallest id.

    Example:
        >>> number_fields(["a", "b", "c", "d"], [("d", "b")])
        {'a': 0, 'b': 1, 'c': 2, 'd': 1}
    """
    ids = sorted(ids)
    index = {name: position for position, name in enumerate(ids)}
    edges = np.array([(index[a], index[b]) for a, b in pairs], dtype=int).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(ids), len(ids)))
    _, labels = connected_components(graph, directed=False)
    numbers: dict[int, int] = {}
    return {
        name: numbers.setdefault(label, len(numbers))
        for name, label in zip(ids, labels, strict=True)
    }


def expected_leak(fields: Iterable[int], share: float = 0.2) -> float:
    """Return the share of a random validation set that has a tile of its field in training.

    The expectation over all random splits, exactly. Of `n` images `v` validate; one that does so,
    of a field of `size` tiles, is safe when the other `size - 1` are among the other `v - 1`.

    Example:
        >>> round(expected_leak([0, 0, 1, 2], share=0.5), 4)  # half the images; their twin: 2 in 3
        0.3333
    """
    sizes = np.unique(list(fields), return_counts=True)[1]
    n = int(sizes.sum())
    v = round(share * n)
    others = [np.arange(1, size) for size in sizes]
    safe = np.array([np.prod((v - k) / (n - k)) for k in others])
    return float(np.sum(sizes * (1 - safe)) / n)


def compare(ours: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, object]:
    """Count the pairs of images that both tables, or one alone, put in one field."""
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(f"The tables hold different images; {len(odd)} in one alone: {odd[:3]}")
    ids = sorted(ours)
    a, b = ([table[name] for name in ids] for table in (ours, theirs))
    (_, only_b), (only_a, both) = pair_confusion_matrix(b, a).T // 2

    def mates(table: Mapping[str, int], name: str) -> set[str]:
        return {other for other in ids if table[other] == table[name]}

    return {
        "pairs_in_both": int(both),
        "pairs_only_here": int(only_a),
        "pairs_only_there": int(only_b),
        "adjusted_rand_index": round(float(adjusted_rand_score(b, a)), 6),
        "differing_image_ids": [name for name in ids if mates(ours, name) != mates(theirs, name)],
    }


def draw_fields(images: Images, seams: Iterable[Seam], path: Path, count: int = 9) -> None:
    """Save a picture of the largest fields of each kind, stitched from their tiles."""
    places, _ = lay_out(seams)
    fields = number_fields(places, [(seam.first, seam.second) for seam in seams])
    groups: dict[int, list[str]] = {}
    for name, number in fields.items():
        groups.setdefault(number, []).append(name)
    kinds: dict[tuple[int, ...], list[str]] = {}
    for group in sorted(groups.values(), key=len, reverse=True):
        kinds.setdefault(images[group[0]].shape, group)
    figure = matplotlib.figure.Figure(figsize=(12, 12), layout="constrained")
    shown = list(kinds.values())[:count]
    for axes, group in zip(figure.subplots(3, count // 3).flat, shown, strict=False):
        axes.imshow(_stitch({places[name]: images[name] for name in group}))
        axes.set_title(f"{len(group)} tiles of {' x '.join(map(str, images[group[0]].shape[:2]))}")
    for axes in figure.axes:
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def _stitch(tiles: Mapping[tuple[int, int], NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Put tiles at their (row, column), 3 white pixels apart, and brighten dark fields."""
    gap = 3
    height, width = (max(tile.shape[axis] for tile in tiles.values()) + gap for axis in (0, 1))
    top, left = (min(place[axis] for place in tiles) for axis in (0, 1))
    rows, columns = (1 + max(p[axis] for p in tiles) - (top, left)[axis] for axis in (0, 1))
    high = max(np.percentile(tile, 99.8) for tile in tiles.values())
    canvas = np.ones((rows * height, columns * width, 3))
    for (row, column), tile in tiles.items():
        y, x = (row - top) * height, (column - left) * width
        shown = np.clip(tile / max(high, 1), 0, 1) ** (0.5 if tile.mean() < 64 else 1.0)
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = shown
    return canvas


def read_table(path: Path) -> dict[str, int]:
    """Read `image_id -> field_of_view` from a CSV with these columns."""
    with path.open(newline="") as file:
        return {row["image_id"]: int(row["field_of_view"]) for row in csv.DictReader(file)}


def write_table(path: Path, splits: Mapping[str, str], fields: Mapping[str, int]) -> None:
    """Write the table that the data set ships, sorted by split and image id."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "split", "field_of_view"])
        writer.writerows(
            [name, splits[name], fields[name]]
            for name in sorted(fields, key=lambda name: (splits[name], name))
        )


def count_matches(seams: list[Seam]) -> dict[str, float | int]:
    """Summarize matched borders, real or of the null test, for the report."""
    costs = [seam.cost for seam in seams]
    accepted = accept(seams)
    return {
        "mutual_best": len(seams),
        "lowest_cost": round(min(costs, default=np.inf), 4),
        "by_own_cost": sum(cost <= seams_module.MAX_COST for cost in costs),
        "squares": len(find_squares(seams)),
        "accepted": len(accepted),
        "contradictions": lay_out(accepted)[1],
    }


def count_fields(splits: Mapping[str, str], fields: Mapping[str, int]) -> dict[str, object]:
    """Count fields, tiles and what the two splits share, for the report."""
    sizes = np.bincount(list(fields.values()))
    train = [fields[name] for name in sorted(fields) if splits[name] == "train"]
    train_sizes = np.bincount(train, minlength=len(sizes))
    shared = [n for n in sorted(fields) if splits[n] == "test" and train_sizes[fields[n]]]
    return {
        "images": len(fields),
        "fields": len(sizes),
        "fields_with_more_than_one_tile": int((sizes > 1).sum()),
        "largest_field": int(sizes.max()),
        "train_images": len(train),
        "train_fields": int((train_sizes > 0).sum()),
        "train_images_that_share_a_field": int(train_sizes[train_sizes > 1].sum()),
        "test_images_in_fields_of_train": shared,
        "leak_of_random_20_percent_validation": round(expected_leak(train), 4),
    }


def main(argv: list[str] | None = None) -> None:
    """Run the command; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder of the two zip files")
    parser.add_argument("--table", type=Path, default=TABLE, help="CSV to write")
    parser.add_argument("--report", type=Path, default=REPORT, help="JSON to write")
    parser.add_argument("--figure", type=Path, help="picture to write: fields put together again")
    parser.add_argument("--compare", type=Path, help="CSV to compare with, of the same columns")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    args = parser.parse_args(argv)
    outputs = [path for path in (args.table, args.report, args.figure) if path]
    existing = [str(path) for path in outputs if path.exists()]
    if existing and not args.overwrite:
        parser.error(f"{', '.join(existing)} would be lost: add --overwrite or choose other paths")
    theirs = read_table(args.compare) if args.compare else None

    by_split = {split: read_split(args.source, split) for split in ("train", "test")}
    splits = {name: split for split, images in by_split.items() for name in images}
    images = by_split["train"] | by_split["test"]
    seams, null = (mutual_best_seams(images, flipped=flipped) for flipped in (False, True))
    overlaps = seams_module.find_overlaps(images)
    fields = number_fields(images, [(s.first, s.second) for s in accept(seams)] + overlaps)
    report = {
        "command": "python -m benchmarks.fields_of_view --source DIR",
        "parameters": {k: v for k, v in vars(seams_module).items() if k.isupper()},
        "versions": {"python": platform.python_version()}
        | {module.__name__: module.__version__ for module in (np, scipy, sklearn, cv2)},
        **count_fields(splits, fields),
        "seams": count_matches(seams),
        "null": count_matches(null),
        "overlaps": overlaps,
    }
    if theirs:
        report["comparison"] = {"table": args.compare.name} | compare(fields, theirs)
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_table(args.table, splits, fields)
    args.report.write_text(json.dumps(report, indent=2) + "\n")
    if args.figure:
        draw_fields(images, accept(seams), args.figure)
    keys = ("images", "fields", "largest_field", "leak_of_random_20_percent_validation")
    print(", ".join(f"{key} {report[key]}" for key in keys))
    print(*(f"wrote {path}" for path in outputs), sep="\n")


if __name__ == "__main__":
    main()
