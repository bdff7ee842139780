"""Tests of `benchmarks.fields_of_view` and `benchmarks.seams`.

Expected groups come from the drawing: which tile was cut from which field is known beforehand.
"""

import csv
import itertools
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ShuffleSplit

from benchmarks import fields_of_view, seams

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("DSB2018_DIR") or ROOT.parent / "shared" / "dsb2018")


def draw_field(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw bright blurred discs, close together on a dark noisy ground: uint8 (H, W, 3)."""
    image = np.full((height, width), 8, np.float32)
    for _ in range(height * width // 300):
        center = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, center, int(rng.integers(3, 8)), float(rng.uniform(60, 220)), -1)
    image = cv2.GaussianBlur(image, (0, 0), 2.5) + rng.normal(0, 1, image.shape)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def cut(field: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """Cut a field into equal tiles, row by row."""
    return [tile for strip in np.split(field, rows) for tile in np.split(strip, columns, axis=1)]


def group(images: dict[str, np.ndarray]) -> set[frozenset[str]]:
    """Group image ids by the field that their borders tell."""
    found = seams.accept(seams.mutual_best_seams(images))
    numbers = fields_of_view.number_fields(images, [(s.first, s.second) for s in found])
    return {frozenset(k for k in numbers if numbers[k] == n) for n in numbers.values()}


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    grids=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5),
    size=st.tuples(st.sampled_from([128, 140]), st.sampled_from([128, 161])),
)
def test_any_grid_in_any_order_is_put_together_again(seed, grids, size):
    rng = np.random.default_rng(seed)
    tiles, truth = [], []
    for rows, columns in grids:
        truth.append(range(len(tiles), len(tiles) + rows * columns))
        tiles += cut(draw_field(rng, rows * size[0], columns * size[1]), rows, columns)
    names = [f"{number:03}" for number in rng.permutation(len(tiles))]
    order = rng.permutation(len(tiles))
    images = {names[index]: tiles[index] for index in order}
    assert group(images) == {frozenset(names[index] for index in part) for part in truth}


def test_tiles_of_unequal_width_join_at_their_equal_borders():
    field = draw_field(np.random.default_rng(1), 128, 321)
    others = {f"other{i}": draw_field(np.random.default_rng(2 + i), 128, 160) for i in range(3)}
    joined = group({"left": field[:, :160], "right": field[:, 160:]} | others)
    assert frozenset({"left", "right"}) in joined
    assert len(joined) == 4


def test_a_flipped_tile_matches_nobody():
    left, right = cut(draw_field(np.random.default_rng(3), 128, 256), 1, 2)
    others = {f"other{i}": draw_field(np.random.default_rng(4 + i), 128, 128) for i in range(4)}
    assert frozenset({"left", "right"}) in group({"left": left, "right": right} | others)
    assert len(group({"left": left, "right": right[::-1].copy()} | others)) == 6


def test_the_null_test_accepts_nothing_where_the_real_one_finds_all():
    images = {}
    for number in range(4):
        for place, tile in enumerate(
            cut(draw_field(np.random.default_rng(number), 256, 256), 2, 2)
        ):
            images[f"{number}{place}"] = tile
    found = seams.accept(seams.mutual_best_seams(images))
    assert len(found) == 4 * 4  # each 2 x 2 field has four seams
    assert seams.lay_out(found)[1] == 0
    assert seams.accept(seams.mutual_best_seams(images, flipped=True)) == []


@pytest.mark.parametrize("noise", [0, 1, 3])
@pytest.mark.parametrize("slope", [0, 10])
def test_flat_and_dark_tiles_stay_alone(noise, slope):
    rng = np.random.default_rng(noise)
    ground = 8 + np.linspace(0, slope, 96)[:, None, None] + np.zeros((96, 96, 3))
    tiles = [np.clip(ground + rng.normal(0, noise, ground.shape), 0, 255) for _ in range(12)]
    tiles += [np.zeros_like(ground)] * 2
    images = {f"{number:02}": tile.astype(np.uint8) for number, tile in enumerate(tiles)}
    assert len(group(images)) == len(images)


def test_a_square_confirms_a_seam_too_weak_to_stand_alone():
    cost = seams.MAX_COST + 0.1
    square = [
        seams.Seam("a", "b", "right", 0.5, 1.0),
        seams.Seam("c", "d", "right", cost, 1.0),
        seams.Seam("a", "c", "down", cost, 1.0),
        seams.Seam("b", "d", "down", 0.5, 1.0),
    ]
    assert set(seams.accept(square)) == set(square)
    assert {(seam.first, seam.second) for seam in seams.accept(square[:3])} == {("a", "b")}
    rough = [*square[:3], square[3]._replace(step=seams.MAX_STEP + 0.1)]
    assert len(seams.accept(rough)) == 2
    poor = [seam._replace(cost=seams.MAX_SQUARE_COST + 0.01) for seam in square]
    assert seams.accept(poor) == []


def test_lay_out_counts_contradictions():
    right = seams.Seam("a", "b", "right", 0.1, 1.0)
    assert seams.lay_out([right]) == ({"a": (0, 0), "b": (0, 1)}, 0)
    assert seams.lay_out([right, right._replace(direction="down")])[1] > 0
    both_right_of_a = [right, right._replace(second="c")]
    assert seams.lay_out(both_right_of_a)[1] == 1


def test_overlaps_are_found_up_to_shift_and_contrast():
    field = draw_field(np.random.default_rng(5), 200, 200)
    other = draw_field(np.random.default_rng(6), 200, 200)
    images = {
        "a": field[:128, :128],
        "b": field[40:168, 20:148],
        "c": (field[:128, :128] * 0.6 + 20).astype(np.uint8),
        "d": other[:128, :128],
        "dark": np.zeros((128, 128, 3), np.uint8),
        "flat": np.full((128, 128, 3), 9, np.uint8),
    }
    assert seams.find_overlaps(images) == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("fields", [[0, 0, 1, 2], [0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [0] * 5])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_expected_leak_equals_the_mean_over_all_splits(fields, share):
    ids = range(len(fields))
    leaks = []
    for validation in itertools.combinations(ids, round(share * len(fields))):
        training = {fields[i] for i in ids if i not in validation}
        leaks.append(np.mean([fields[i] in training for i in validation]))
    assert fields_of_view.expected_leak(fields, share) == pytest.approx(np.mean(leaks))


def test_compare_counts_pairs():
    ours = {"a": 0, "b": 0, "c": 0, "d": 1, "e": 2, "f": 2}  # ab ac bc ef
    theirs = {"a": 5, "b": 5, "c": 3, "d": 3, "e": 1, "f": 1}  # ab cd ef
    result = fields_of_view.compare(ours, theirs)
    assert (result["pairs_in_both"], result["pairs_only_here"], result["pairs_only_there"]) == (
        2,
        2,
        1,
    )
    assert result["differing_image_ids"] == ["a", "b", "c", "d"]
    assert (
        fields_of_view.compare(ours, {k: -v for k, v in ours.items()})["adjusted_rand_index"] == 1
    )
    with pytest.raises(ValueError, match="1 in one alone: \\['f'\\]"):
        fields_of_view.compare(ours, {k: v for k, v in theirs.items() if k != "f"})


@pytest.fixture
def source(tmp_path):
    """Lay down a 2 x 2 field, three tiles of it for training, and two lone images."""
    tiles = cut(draw_field(np.random.default_rng(7), 256, 256), 2, 2)
    tiles += [draw_field(np.random.default_rng(8 + i), 128, 128) for i in range(2)]
    for number, tile in enumerate(tiles):
        split = "test" if number in (0, 5) else "train"
        folder = tmp_path / "source" / f"stage1_{split}" / f"{number:064x}" / "images"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"{number:064x}.png"), tile)
    return tmp_path / "source"


def test_command_writes_table_report_and_figure(source, tmp_path, capsys):
    table, report, figure = (tmp_path / name for name in ("new/t.csv", "r.json", "f.png"))
    command = ["--source", str(source), "--table", str(table), "--report", str(report)]
    fields_of_view.main([*command, "--figure", str(figure)])
    assert "fields 3" in capsys.readouterr().out
    expected = ["0,test,0", "5,test,2", "1,train,0", "2,train,0", "3,train,0", "4,train,1"]
    rows = ["0" * 63 + row for row in expected]
    assert table.read_bytes().decode() == "\n".join(["image_id,split,field_of_view", *rows, ""])
    counts = json.loads(report.read_text())
    assert counts["test_images_in_fields_of_train"] == [f"{0:064x}"]
    assert (counts["fields"], counts["largest_field"], counts["seams"]["squares"]) == (3, 4, 1)
    assert counts["null"]["accepted"] == 0
    assert cv2.imread(str(figure)).std() > 0

    table.write_text("precious")
    with pytest.raises(SystemExit, match="2"):
        fields_of_view.main(command)
    assert table.read_text() == "precious"
    assert "--overwrite" in capsys.readouterr().err
    fields_of_view.main([*command, "--overwrite"])
    assert table.read_text().startswith("image_id")
    fields_of_view.main([*command, "--overwrite", "--compare", str(table)])
    assert json.loads(report.read_text())["comparison"]["adjusted_rand_index"] == 1


def test_a_missing_or_damaged_source_is_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"stage1_train\.zip.*--source"):
        fields_of_view.read_split(tmp_path, "train")
    damaged = next((source / "stage1_test").rglob("*.png"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(ValueError, match=damaged.name):
        fields_of_view.read_split(source, "test")


def test_shipped_table_is_well_formed():
    text = fields_of_view.TABLE.read_bytes().decode("ascii")
    assert "\r" not in text
    rows = list(csv.DictReader(text.splitlines()))
    ids = [row["image_id"] for row in rows]
    assert len(set(ids)) == len(rows) == 735
    assert all(re.fullmatch("[0-9a-f]{64}", name) for name in ids)
    splits = [row["split"] for row in rows]
    assert (splits.count("train"), splits.count("test")) == (670, 65)
    assert rows == sorted(rows, key=lambda row: (row["split"], row["image_id"]))
    by_id = sorted(rows, key=lambda row: row["image_id"])
    first_seen = list(dict.fromkeys(int(row["field_of_view"]) for row in by_id))
    assert first_seen == list(range(len(first_seen)))


def test_shipped_report_tells_of_the_shipped_table():
    with fields_of_view.TABLE.open(newline="") as file:
        splits = {row["image_id"]: row["split"] for row in csv.DictReader(file)}
    fields = fields_of_view.read_table(fields_of_view.TABLE)
    counts = fields_of_view.count_fields(splits, fields)
    report = json.loads(fields_of_view.REPORT.read_text())
    assert {key: report[key] for key in counts} == counts
    assert report["null"]["accepted"] == report["seams"]["contradictions"] == 0
    # The mean leak of random splits, drawn one by one with scikit-learn's splitter.
    train = np.array(
        [
            n
            for k, n in fields_of_view.read_table(fields_of_view.TABLE).items()
            if splits[k] == "train"
        ]
    )
    drawn = [
        np.isin(train[validation], train[training]).mean()
        for training, validation in ShuffleSplit(1000, test_size=134, random_state=0).split(train)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert counts["leak_of_random_20_percent_validation"] == pytest.approx(
        np.mean(drawn), abs=5 * error
    )


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="set DSB2018_DIR to the folder of the zip files")
def test_real_images_give_the_shipped_table(tmp_path):
    table, report = tmp_path / "table.csv", tmp_path / "report.json"
    fields_of_view.main(
        ["--source", str(REAL_DATA), "--table", str(table), "--report", str(report)]
    )
    assert table.read_bytes() == fields_of_view.TABLE.read_bytes()
    shipped = json.loads(fields_of_view.REPORT.read_text())
    measured = json.loads(report.read_text())
    assert {k: measured[k] for k in ("seams", "null", "overlaps")} == {
        k: shipped[k] for k in ("seams", "null", "overlaps")
    }
