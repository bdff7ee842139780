"""The command on real files: what it writes, resumes and refuses, with a threshold for a model.

At the end, with models.
"""

import dataclasses
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
from PIL import Image
from skimage.filters import threshold_otsu
from skimage.measure import label

import keras_nuclei
from keras_nuclei import command
from keras_nuclei.jobs import Job, name_jobs

OUTPUTS = [
    "a.geojson",
    "a_labels.tif",
    "a_overlay.png",
    "a_rois.zip",
    "images.csv",
    "nuclei.csv",
]


def load_threshold(arguments):
    def segment(image):
        grey = image if image.ndim == 2 else image.mean(axis=-1)
        if grey.min() == grey.max():
            return np.zeros(grey.shape, "int32")
        return label(grey > threshold_otsu(grey)).astype("int32")

    return segment


def squares(count, dtype="uint16"):
    """`count` squares of 4x4 pixels, 100 on 10."""
    image = np.full((12, 10 * count + 2), 10, dtype)
    for index in range(count):
        image[4:8, 10 * index + 3 : 10 * index + 7] = 100
    return image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    return tmp_path


def run(*arguments, load_segmenter=load_threshold):
    arguments = [str(argument) for argument in arguments]
    return command.main(["segment", *arguments], load_segmenter=load_segmenter)


def refuse(capsys, *arguments, **options):
    with pytest.raises(SystemExit) as error:
        run(*arguments, **options)
    assert error.value.code == 2
    return capsys.readouterr().err


def not_called(arguments):
    raise AssertionError("nothing is left to segment")


def visible(path):
    return sorted(file.name for file in Path(path).iterdir() if not file.name.startswith("."))


def rows_by_image(table="out/nuclei.csv"):
    return pd.read_csv(table).groupby("image").size().to_dict()


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


def test_all_formats(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(3))
    assert run("images/a.tif", "--output", "out", "--pixel-size", 0.5) == 0
    assert visible(folder / "out") == OUTPUTS
    expected = label(squares(3) > 50)
    labels = tifffile.imread("out/a_labels.tif")
    np.testing.assert_array_equal(labels, expected.astype("uint16"), strict=True)
    assert np.asarray(Image.open("out/a_overlay.png")).shape == (12, 32, 3)
    assert len(json.loads(Path("out/a.geojson").read_text())["features"]) == 3
    assert [roi.name for roi in roifile.roiread("out/a_rois.zip")] == ["1", "2", "3"]
    table = pd.read_csv("out/nuclei.csv")
    assert table.columns[:3].tolist() == ["image", "page", "label"]
    assert table.image.tolist() == ["a"] * 3
    assert table.label.tolist() == [1, 2, 3]
    assert table.area_px.tolist() == [16] * 3
    assert table.area_um2.tolist() == [4] * 3
    assert table.intensity_mean.tolist() == [100] * 3
    assert "a.tif: 3 nuclei, median area 16 pixels" in capsys.readouterr().out


def test_outlines_of_large_nuclei_are_thicker(folder):
    image = np.full((300, 300), 10, "uint8")
    image[50:250, 50:250] = 100  # 200 / 40 is 5
    tifffile.imwrite("images/large.tif", image)
    tifffile.imwrite("images/small.tif", squares(1))
    assert run("images", "--output", "out", "--formats", "png") == 0
    for name, row, columns in (("large", 150, range(50, 55)), ("small", 5, [3])):
        with Image.open(f"out/{name}_overlay.png") as picture:
            pixels = np.asarray(picture)[row, : picture.size[0] // 2]
        coloured = np.flatnonzero(np.ptp(pixels, axis=-1))
        assert coloured.tolist() == list(columns)


def test_formats_can_be_chosen(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out", "--formats", "roi, tiff") == 0
    assert visible(folder / "out") == ["a_labels.tif", "a_rois.zip"]


def test_folders_patterns_and_kinds(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    Image.fromarray(squares(2, "uint8")).save("images/b.PNG")
    Image.fromarray(np.stack([squares(3, "uint8") // part for part in (1, 2, 3)], -1)).save("c.bmp")
    Path("images/notes.txt").write_text("no image")
    absolute = folder / "imag*" / "[ab].*"
    assert run("images", "*.bmp", "images/a.tif", absolute, "--output", "out") == 0
    table = pd.read_csv("out/nuclei.csv")
    assert table.groupby("image").size().to_dict() == {"a": 1, "b": 2, "c": 3}
    # Grey images have one intensity, colour ones three; what is not there is empty.
    assert table.intensity_mean.notna().tolist() == [True] * 3 + [False] * 3
    assert table.intensity_mean_2.notna().tolist() == [False] * 3 + [True] * 3


def test_a_grey_image_in_colour_is_grey(folder, capsys):
    Image.fromarray(np.stack([squares(1, "uint8")] * 3, -1)).save("images/a.png")
    assert run("images", "--output", "out") == 0
    table = pd.read_csv("out/nuclei.csv")
    assert table.intensity_mean.tolist() == [100]
    assert "intensity_mean_0" not in table
    assert "a.png: 1 nucleus, " in capsys.readouterr().out


def test_a_stack_with_a_colour_is_in_colour_on_all_pages(folder):
    grey = np.stack([squares(1, "uint8")] * 3, -1)
    coloured = grey // np.array([1, 2, 3], "uint8")
    tifffile.imwrite("images/a.tif", np.stack([grey, coloured]), photometric="rgb")
    assert run("images", "--output", "out") == 0
    table = pd.read_csv("out/nuclei.csv")
    assert "intensity_mean" not in table
    assert table.intensity_mean_1.tolist() == [100, 50]


def test_a_stack_is_grey_whichever_of_its_pages_are_stored_in_colour(folder):
    grey = squares(1, "uint8")
    with tifffile.TiffWriter("images/a.tif") as writer:
        writer.write(grey)
        writer.write(np.stack([grey] * 3, -1), photometric="rgb")
    assert run("images", "--output", "out") == 0
    table = pd.read_csv("out/nuclei.csv")
    assert "intensity_mean_0" not in table
    assert table.intensity_mean.tolist() == [100, 100]


def test_planes_of_colour_that_may_be_pages_are_spoken_of(folder, capsys):
    stack = np.stack([squares(2)] * 4)
    tifffile.imwrite("images/planes.tif", stack, photometric="rgb", planarconfig="separate")
    tifffile.imwrite("images/stack.tif", stack, photometric="minisblack")
    assert run("images", "--output", "out") == 0
    printed = capsys.readouterr()
    assert printed.err.count("is read in colour: it holds planes of red, green and blue") == 1
    line = next(line for line in printed.err.splitlines() if "is read in colour" in line)
    assert line.startswith(f"{Path('images/planes.tif')} is read in colour")
    assert "planes.tif: 2 nuclei, " in printed.out
    assert "stack.tif: 8 nuclei on 4 pages, " in printed.out
    assert not logging.getLogger("keras_nuclei").handlers


def test_warnings_are_said_from_the_loading_of_the_model_on(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2))

    def load(arguments):
        logging.getLogger("keras_nuclei.runtimes").warning("%s is slow", "a model")
        logging.getLogger("keras_nuclei.segmentation").info("a diameter")
        return load_threshold(arguments)

    assert run("images", "--output", "out", load_segmenter=load) == 0
    errors = capsys.readouterr().err
    assert errors.count("a model is slow\n") == 1
    assert "a diameter" not in errors


def test_images_without_nuclei_count_too(folder):
    stack = np.stack([squares(2), squares(2) * 0 + 7])
    tifffile.imwrite("images/a.tif", stack, photometric="minisblack")
    tifffile.imwrite("images/b.tif", squares(3))
    assert run("images", "--output", "out", "--pixel-size", 0.5) == 0
    table = pd.read_csv("out/images.csv")
    assert table[["image", "page", "nuclei"]].values.tolist() == [
        ["a", 1, 2],
        ["a", 2, 0],
        ["b", 1, 3],
    ]
    # Squares of 4x4 pixels, in 12 rows of 22 and of 32.
    np.testing.assert_allclose(table.covered, [32 / 264, 0, 48 / 384])
    np.testing.assert_array_equal(table.median_area_px, [16, np.nan, 16])
    np.testing.assert_array_equal(table.median_area_um2, [4, np.nan, 4])


def test_the_table_of_images_grows_with_the_folder(folder):
    tifffile.imwrite("images/a.tif", squares(2))
    assert run("images", "--output", "out") == 0
    tifffile.imwrite("images/b.tif", squares(1) * 0)
    Path("images/c.tif").write_bytes(b"no image")
    assert run("images", "--output", "out") == 1
    table = pd.read_csv("out/images.csv")
    columns = ["image", "page", "nuclei", "covered", "median_area_px", "file"]
    assert table.columns.tolist() == columns
    assert table.file.tolist() == [str(folder / "images" / name) for name in ("a.tif", "b.tif")]
    assert table[["image", "nuclei"]].values.tolist() == [["a", 2], ["b", 0]]


def test_pages(folder, capsys):
    stack = np.stack([squares(2), squares(2) * 0 + 7, squares(2) * 2])
    tifffile.imwrite("images/a.tif", stack, photometric="minisblack")
    assert run("images/a.tif", "--output", "out") == 0
    table = pd.read_csv("out/nuclei.csv")
    assert list(zip(table.page, table.label, strict=True)) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert table.intensity_max.tolist() == [100, 100, 200, 200]
    labels = tifffile.imread("out/a_labels.tif")
    assert [page.max() for page in labels] == [2, 0, 2]
    pictures = [f"a_page{number}_overlay.png" for number in (1, 2, 3)]
    assert [name for name in visible(folder / "out") if name.endswith("png")] == pictures
    assert [roi.position for roi in roifile.roiread("out/a_rois.zip")] == [1, 1, 3, 3]
    assert "4 nuclei on 3 pages" in capsys.readouterr().out


def test_no_nuclei(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2) * 0)
    assert run("images/a.tif", "--output", "out") == 0
    assert visible(folder / "out") == OUTPUTS
    table = pd.read_csv("out/nuclei.csv")
    assert len(table) == 0
    assert "area_px" in table.columns
    printed = capsys.readouterr().out
    assert "a.tif: 0 nuclei: all its pixels are equal\n" in printed


@pytest.mark.parametrize(
    ("channels", "given", "advice"),
    [
        (1, ["--scale", "1"], "try another --scale, or a lower --threshold"),
        (1, ["--diameter", "9"], "try another --diameter, or a lower --threshold"),
        (3, ["--diameter", "9"], "say which channel shows them (--channel)"),
        (3, ["--channel", "1"], "say how large they are (--diameter)"),
        (3, [], "say how large they are (--diameter) or which channel shows them (--channel)"),
    ],
)
def test_where_nothing_is_found_what_was_said_is_not_asked_for(
    channels, given, advice, folder, capsys
):
    empty = np.full((12, 22, channels), [3, 2, 1][:channels], "uint8").squeeze()
    empty[0, 0] = 9
    photometric = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite("images/a.tif", empty, photometric=photometric)

    def find_nothing(image):
        return np.zeros(image.shape[:2], "int32")

    options = ["--output", "out", *given]
    assert run("images/a.tif", *options, load_segmenter=lambda arguments: find_nothing) == 0
    assert f"a.tif: 0 nuclei; if you see some, {advice}\n" in capsys.readouterr().out


def test_another_size_than_was_said_is_spoken_of(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2))
    assert run("images/a.tif", "--output", "out") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "2 nuclei" in line)
    across = 2 * np.sqrt(float(line.split()[-2]) / np.pi)  # of a disc with the median area
    for factor in (0.3, 0.5, 2, 3):
        run("images/a.tif", "--output", "out", "--overwrite", "--diameter", str(factor * across))
        said = f"these are about {across:.0f} pixels across, and --diameter is "
        assert (said in capsys.readouterr().out) == (factor in (0.3, 3))


@pytest.mark.parametrize("where", ["file/results", "file/more/results"])
def test_a_file_where_a_folder_has_to_be_is_named(where, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2))
    Path("file").write_text("mine")
    with pytest.raises(SystemExit):
        run("images/a.tif", "--output", where)
    assert "file is a file, and a folder is wanted for the results" in capsys.readouterr().err
    assert Path("file").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(folder, capsys, monkeypatch):
    tifffile.imwrite("images/a.tif", squares(2))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SystemExit):
        run("images/a.tif", "--output", "out")
    error = capsys.readouterr().err
    assert "The folder out for the results can't be made or written to (Permission denied)" in error


def test_three_stains_are_spoken_of(folder, capsys):
    stains = np.stack([squares(2), squares(2)[::-1], squares(2) * 0])
    tifffile.imwrite("images/a.tif", stains, imagej=True, metadata={"axes": "CYX"})
    assert run("images", "--output", "out") == 0
    assert "a.tif is read in colour: its three channels are taken for" in capsys.readouterr().err


def test_channels(folder, capsys):
    stains = np.stack([squares(1), squares(3)[:, :12] * 0 + 5, squares(1) * 3, squares(1) * 4])
    tifffile.imwrite("images/a.tif", stains, imagej=True, metadata={"axes": "CYX"})
    assert run("images/a.tif", "--output", "out") == 1
    assert "4 channels; say which one shows the nuclei, with --channel 0" in capsys.readouterr().err
    assert run("images/a.tif", "--output", "out4", "--channel", 4) == 1
    assert "no channel 4" in capsys.readouterr().err
    tifffile.imwrite("images/grey.tif", squares(1))
    assert run("images/grey.tif", "--output", "out5", "--channel", 1) == 1
    assert "it is grey: it has no channel 1, so --channel takes 0" in capsys.readouterr().err
    assert run("images/a.tif", "--output", "out2", "--channel", 2) == 0
    table = pd.read_csv("out2/nuclei.csv")
    assert [table[f"intensity_mean_{i}"].tolist() for i in range(4)] == [[100], [5], [300], [400]]


# Resuming


def test_what_is_complete_is_not_done_again(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    before = Path("out/nuclei.csv").read_text()
    modified = Path("out/a_labels.tif").stat().st_mtime_ns
    assert run("images", "--output", "out", load_segmenter=not_called) == 0
    assert "1 of 1 images are complete already" in capsys.readouterr().out
    assert Path("out/nuclei.csv").read_text() == before
    assert Path("out/a_labels.tif").stat().st_mtime_ns == modified
    tifffile.imwrite("images/b.tif", squares(2))
    assert run("images", "--output", "out") == 0
    assert pd.read_csv("out/nuclei.csv").image.tolist() == ["a", "b", "b"]


def test_a_result_that_was_deleted_is_made_again(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    run("images", "--output", "out")
    Path("out/a_labels.tif").unlink()
    assert run("images", "--output", "out") == 0
    assert visible(folder / "out") == OUTPUTS


@pytest.mark.parametrize("stage", ["segment", "write_geojson"])
def test_interrupted_and_resumed(stage, folder, capsys, monkeypatch):
    for name in "abc":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    calls = []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    if stage == "segment":
        original = load_threshold(None)
        assert run("images", "--output", "out", load_segmenter=lambda _: interrupt) == 130
    else:
        original = command.export.write_geojson
        with monkeypatch.context() as patch:
            patch.setattr(command.export, "write_geojson", interrupt)
            assert run("images", "--output", "out") == 130
    assert "Interrupted" in capsys.readouterr().err
    assert Path("out/a.geojson").exists()
    assert not Path("out/b.geojson").exists()
    assert run("images", "--output", "out") == 0
    assert "1 of 3 images are complete" in capsys.readouterr().out
    assert pd.read_csv("out/nuclei.csv").image.tolist() == ["a", "b", "c"]
    assert not [file for file in Path("out").rglob("*.tmp")]


def test_interrupted_while_results_are_replaced(folder, capsys):
    for name in "ab":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    Path("out").mkdir()
    Path("out/b.geojson").write_text("of unknown origin")

    def interrupt(image):
        raise KeyboardInterrupt

    assert (
        run("images", "--output", "out", "--overwrite", load_segmenter=lambda _: interrupt) == 130
    )
    assert "The same command without --overwrite goes on" in capsys.readouterr().err
    assert run("images", "--output", "out") == 0
    assert rows_by_image() == {"a": 1, "b": 1}


def test_interrupted_while_the_model_is_loaded(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))

    def interrupt(arguments):
        raise KeyboardInterrupt

    assert run("images", "--output", "out", load_segmenter=interrupt) == 130
    assert "before this run's first image" in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_image_keeps_its_name_when_one_of_that_name_comes(folder):
    tifffile.imwrite("images/a.tif", squares(3))
    assert run("images", "--output", "out") == 0
    Image.fromarray(squares(1)).save("images/a.png")
    assert run("images", "--output", "out") == 0
    assert rows_by_image() == {"a": 3, "images_a_png": 1}
    assert run("images/a.png", "--output", "out", load_segmenter=not_called) == 0
    assert rows_by_image() == {"a": 3, "images_a_png": 1}


@pytest.mark.parametrize(
    "order", [["b.tif", "b_page1.png"], ["b_page1.png", "b.tif"], ["."]], ids=str
)
def test_a_page_and_an_image_of_its_name(order, folder):
    monochrome = {"photometric": "minisblack"}
    tifffile.imwrite("images/b.tif", np.stack([squares(2)] * 2), **monochrome)
    Image.fromarray(squares(1)).save("images/b_page1.png")
    for name in order:
        assert run(f"images/{name}", "--output", "out") == 0
    pictures = [name for name in visible("out") if name.endswith(".png")]
    assert len(pictures) == 3
    widths = [picture_size(f"out/{name}")[0] for name in pictures]
    assert sorted(widths) == [12, 22, 22]
    assert sorted(rows_by_image().values()) == [1, 4]


def test_a_name_that_only_looks_like_a_page(folder):
    Image.fromarray(squares(1)).save("images/b_page_of_notes.png")
    assert run("images", "--output", "out") == 0
    Image.fromarray(squares(1)).save("images/b.png")
    assert run("images", "--output", "out") == 0
    assert rows_by_image() == {"b": 1, "b_page_of_notes": 1}


def test_a_bad_file_does_not_stop_the_rest(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("images/b.tif").write_bytes(b"no image")
    tifffile.imwrite("images/c.tif", np.full((4, 4), np.nan, "float32"))
    tifffile.imwrite("images/d.tif", squares(2))

    def load(arguments):
        from keras_nuclei.images import normalize

        return lambda image: load_threshold(arguments)(normalize(image))

    assert run("images", "--output", "out", load_segmenter=load) == 1
    errors = capsys.readouterr().err
    assert "Of 4 images, these failed:" in errors
    assert "b.tif can't be read" in errors
    assert "b.tif: images" not in errors  # its path once
    assert "The image holds NaN or infinity, first seen in row 0, column 0" in errors
    assert pd.read_csv("out/nuclei.csv").image.tolist() == ["a", "d", "d"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "a.tif: MemoryError\n"),
        (ValueError(), "a.tif: ValueError\n"),
        (KeyError("x"), "a.tif: KeyError: 'x'\n"),
        (ValueError("no pixels"), "a.tif: no pixels\n"),
    ],
    ids=repr,
)
def test_failures_say_what_they_are(error, text, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))

    def fail(image):
        raise error

    assert run("images", "--output", "out", load_segmenter=lambda _: fail) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "options", "message"),
    [
        (np.full((12, 22), np.nan, "float32"), [], "page 4 of 5: The image holds NaN"),
        (np.zeros((12, 22, 2), "uint8"), [], "page 4 of 5: it has 2 channels; say which one"),
        (squares(2), ["--channel", 1], "page 1 of 5: it is grey: it has no channel 1"),
    ],
    ids=["NaN", "channels", "channel"],
)
def test_a_bad_page_is_named(bad, options, message, folder, capsys):
    with tifffile.TiffWriter("images/a.tif") as writer:
        for page in [squares(2)] * 3 + [bad] + [squares(2)]:
            kind = {"planarconfig": "contig", "extrasamples": [0]} if page.ndim == 3 else {}
            writer.write(page, photometric="minisblack", metadata=None, **kind)
    tifffile.imwrite("images/b.tif", squares(1))

    def load(arguments):
        from keras_nuclei.images import normalize

        return lambda image: load_threshold(arguments)(normalize(image))

    assert run("images/a.tif", "--output", "out", *options, load_segmenter=load) == 1
    assert f"{Path('images/a.tif')}: {message}" in capsys.readouterr().err
    assert visible("out") == []


def test_a_page_that_fails_with_little_text_is_named_all_the_same(folder, capsys):
    tifffile.imwrite("images/a.tif", np.stack([squares(2)] * 2), photometric="minisblack")

    def fail(image):
        raise MemoryError

    assert run("images", "--output", "out", load_segmenter=lambda _: fail) == 1
    assert "a.tif: page 1 of 2: MemoryError\n" in capsys.readouterr().err


def test_images_in_the_folders_inside_a_folder_are_hinted_at(folder, capsys):
    Path("images [1]/day1").mkdir(parents=True)
    tifffile.imwrite("images [1]/day1/a.tif", squares(1))
    error = refuse(capsys, "images [1]", "--output", "out")
    (pattern,) = re.findall(r"folders inside it, pass '(.*)'\.", error)
    assert run(pattern, "--output", "out") == 0
    assert rows_by_image() == {"a": 1}


def test_arguments_that_name_no_image_do_not_stop_the_rest(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("empty").mkdir()
    wrong = ["absent.tif", "empty", "*.nd2", "~nosuchuser/a.tif"]
    assert run(*wrong, "images", "--output", "out") == 1
    errors = capsys.readouterr().err
    _, failures = errors.split("Apart from images, these failed:\n")
    lines = failures.splitlines()
    for name, line in zip(wrong[:3], lines[:3], strict=True):
        assert line.startswith(f"  {name} is neither a file, nor a folder that holds images (.tif")
    assert lines[3].startswith("  ~nosuchuser/a.tif: Could not determine home")
    assert "Of 1 images" not in errors
    assert rows_by_image() == {"a": 1}
    # What is complete is not done again, and what is wrong is said again.
    assert run("images", "absent.tif", "--output", "out", load_segmenter=not_called) == 1
    assert "absent.tif is neither a file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out/a_labels.tif", "out/*.tif", "out"])
def test_results_of_earlier_runs_are_no_images_and_no_failures(name, folder):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out", "--formats", "tiff,csv") == 0
    assert run("images", name, "--output", "out", "--formats", "tiff,csv") == 0


def test_an_edited_result_stays_where_another_is_missing(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2))
    tifffile.imwrite("images/b.tif", squares(1))
    assert run("images", "--output", "out") == 0
    labels = Path("out/a_labels.tif")
    tifffile.imwrite(labels, np.ones((12, 22), "uint16"))
    edited = labels.read_bytes()
    for missing in ("out/a_overlay.png", "out/b_overlay.png"):
        Path(missing).unlink()
    for _ in range(2):
        assert run("images", "--output", "out") == 1
        assert "a_labels.tif is not as it was written" in capsys.readouterr().err
        assert labels.read_bytes() == edited
    assert Path("out/b_overlay.png").exists()
    labels.rename("mine.tif")
    assert run("images", "--output", "out") == 0
    assert tifffile.imread(labels).max() == 2
    labels.write_bytes(edited)
    assert run("images/a.tif", "--output", "out", "--overwrite") == 0
    assert tifffile.imread(labels).max() == 2


def test_an_image_that_can_no_longer_be_read_does_not_stop_the_rest(folder, monkeypatch, capsys):
    for name in "ab":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out") == 0
    Path("out/b_overlay.png").unlink()
    os.utime("images/a.tif", (1, 1))  # so that a glance doesn't tell whether it has changed

    def digest(job, real=Job.digest):
        if job.name == "a":
            raise PermissionError(13, "Permission denied", str(job.source))
        return real(job)

    monkeypatch.setattr(Job, "digest", digest)
    assert run("images", "--output", "out") == 1
    errors = capsys.readouterr().err
    assert "Of 2 images, these failed:\n  [Errno 13] Permission denied" in errors
    assert Path("out/b_overlay.png").exists()


def test_failures_of_both_kinds(folder, capsys):
    Path("images/a.tif").write_bytes(b"no image")
    assert run("images", "absent.tif", "--output", "out") == 1
    errors = capsys.readouterr().err
    assert "Of 1 images, these failed:\n  images" in errors
    assert "Apart from images, these failed:\n  absent.tif is" in errors


def test_a_folder_that_cant_be_read_does_not_stop_the_rest(folder, capsys, monkeypatch):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("locked").mkdir()
    iterdir = Path.iterdir

    def refuse_locked(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse_locked)
    assert run("locked", "images", "--output", "out") == 1
    assert "  locked: [Errno 13] Permission denied" in capsys.readouterr().err
    assert Path("out/nuclei.csv").exists()


def test_without_any_result_there_is_no_table(folder, capsys):
    Path("images/a.tif").write_bytes(b"no image")
    assert run("images", "--output", "out") == 1
    assert visible("out") == []
    assert "table" not in capsys.readouterr().out


def test_a_file_that_vanishes_is_named_once(folder, capsys):
    for name in ("a", "b"):
        tifffile.imwrite(f"images/{name}.tif", squares(1))

    def load(arguments):
        Path("images/b.tif").unlink()
        return load_threshold(arguments)

    assert run("images", "--output", "out", load_segmenter=load) == 1
    assert capsys.readouterr().err.count("b.tif") == 1


# Replacing


def test_nothing_of_other_settings_is_left(folder, capsys):
    for name in "ab":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out") == 0
    Path("out/notes.txt").write_text("precious")
    options = ["--output", "out", "--scale", 2, "--formats", "tiff"]
    assert run("images/a.tif", *options, "--overwrite") == 0
    assert visible("out") == ["a_labels.tif", "notes.txt"]
    deleted = "Deleted the results of 1 not named now, which were of other settings.\n"
    assert deleted in capsys.readouterr().out
    assert run("images", *options) == 0
    assert visible("out") == ["a_labels.tif", "b_labels.tif", "notes.txt"]


def test_results_of_the_others_stay_where_settings_are_the_same(folder):
    for name in "ab":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out") == 0
    before = visible("out")
    assert run("images/a.tif", "--output", "out", "--overwrite") == 0
    assert visible("out") == before
    assert rows_by_image() == {"a": 1, "b": 1}


def test_overlays_of_pages_that_are_no_more(folder):
    for num_pages in (3, 2):
        stack = np.stack([squares(1)] * num_pages)
        tifffile.imwrite("images/a.tif", stack, photometric="minisblack")
        assert run("images", "--output", "out", "--formats", "png", "--overwrite") == 0
    assert visible("out") == ["a_page1_overlay.png", "a_page2_overlay.png"]


# Refusing


def test_other_settings_need_overwrite(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    run("images", "--output", "out")
    message = refuse(capsys, "images", "--output", "out", "--diameter", 9)
    assert "diameter: not given, now 9.0" in message
    assert "--overwrite" in message
    assert run("images", "--output", "out", "--diameter", 9, "--overwrite") == 0


def test_a_second_run_at_once_is_refused(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))

    def start_another(arguments):
        def segment(image):
            error = refuse(capsys, "images", "--output", "out", "--overwrite")
            assert "Another run is writing to out. Wait until it is done" in error
            return load_threshold(arguments)(image)

        return segment

    assert run("images", "--output", "out", load_segmenter=start_another) == 0
    assert visible("out") == OUTPUTS
    assert run("images", "--output", "out", "--overwrite") == 0


def test_where_files_cannot_be_locked_there_is_no_lock(folder, monkeypatch):
    tifffile.imwrite("images/a.tif", squares(1))

    def cannot(lock):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "_acquire", cannot)
    assert run("images", "--output", "out") == 0
    assert visible("out") == OUTPUTS


def test_settings_without_any_result_are_forgotten(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out", "--channel", 2) == 1
    assert run("images", "--output", "out", "--formats", "csv") == 0
    assert rows_by_image() == {"a": 1}


def test_results_that_are_but_a_row_are_kept_from_other_settings(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out", "--formats", "csv") == 0
    message = refuse(capsys, "images", "--output", "out", "--formats", "csv", "--diameter", 9)
    assert "deletes all those results" in message


def test_a_changed_image_needs_overwrite_and_does_not_stop_the_rest(folder, capsys):
    for name in "ab":
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out") == 0
    tifffile.imwrite("images/a.tif", squares(2))
    tifffile.imwrite("images/c.tif", squares(3))
    assert run("images", "--output", "out") == 1
    assert f"{Path('images/a.tif')}: it has changed since its results" in capsys.readouterr().err
    assert rows_by_image() == {"a": 1, "b": 1, "c": 3}
    assert run("images/a.tif", "--output", "out", "--overwrite") == 0
    assert rows_by_image() == {"a": 2, "b": 1, "c": 3}
    assert run("images", "--output", "out", load_segmenter=not_called) == 0


def test_another_image_of_a_name_is_no_change_of_it(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    Path("images/a.tif").rename("a.tif")
    # The same, at another place and time.
    os.utime("a.tif", (1, 1))
    assert run("a.tif", "--output", "out", load_segmenter=not_called) == 0
    tifffile.imwrite("a.tif", squares(2))
    assert run("a.tif", "--output", "out") == 1
    assert "the results of another image of this name, " in capsys.readouterr().err
    assert rows_by_image() == {"a": 1}


@pytest.mark.parametrize("name", [*OUTPUTS, "a_page2_overlay.png"])
def test_files_of_others_need_overwrite(name, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("out").mkdir()
    Path("out", name).write_text("precious")
    assert f"{name} is there already" in refuse(capsys, "images", "--output", "out")
    assert Path("out", name).read_text() == "precious"
    assert visible(Path("out")) == [name]
    assert run("images", "--output", "out", "--overwrite") == 0


def test_results_never_replace_images(folder, capsys):
    for name in ("a.tif", "a_labels.tif"):
        tifffile.imwrite(f"images/{name}", squares(1))
    paths = ["images/a.tif", "images/a_labels.tif"]
    message = refuse(capsys, *paths, "--output", "images", "--overwrite")
    assert "would replace the image a_labels.tif" in message


def test_pages_never_replace_images(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Image.fromarray(squares(1)).save("images/a_page2_overlay.png")
    paths = ["images/a.tif", "images/a_page2_overlay.png"]
    message = refuse(capsys, *paths, "--output", "images", "--overwrite")
    assert "would replace the image a_page2_overlay.png" in message


def test_results_that_are_segmented_are_not_deleted(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    arguments = ["out/a_labels.tif", "--output", "out", "--scale", 2, "--overwrite"]
    assert "all files named are results of earlier runs" in refuse(capsys, *arguments)
    assert visible("out") == OUTPUTS


def test_what_the_shell_makes_of_a_pattern_beside_the_results(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    tifffile.imwrite("images/b_labels.tif", squares(2))  # not a result, for all its name
    for _ in range(2):
        assert run(*sorted(Path("images").glob("*.tif")), "--output", "images") == 0
    assert rows_by_image("images/nuclei.csv") == {"a": 1, "b_labels": 2}


@pytest.mark.parametrize(
    "damage",
    ["no table", "no counts", "a list", "half a record", "an empty record", "no list of files"],
)
def test_a_damaged_record_is_made_anew(damage, folder):
    for name in ("a", "b"):
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out", "--formats", "csv") == 0
    record = Path("out/.keras_nuclei/images/a.json")
    if damage == "no table":
        record.with_suffix(".csv").unlink()
    elif damage == "no counts":
        Path("out/.keras_nuclei/pages/a.csv").unlink()
    else:
        whole = record.read_text()
        damaged = {
            "a list": "[]",
            "half a record": whole[:20],
            "an empty record": "{}",
            "no list of files": whole.replace("[]", "null"),
        }
        record.write_text(damaged[damage])
    table = "out/images.csv" if damage == "no counts" else "out/nuclei.csv"
    assert run("images/b.tif", "--output", "out", "--formats", "csv") == 0
    assert rows_by_image(table) == {"b": 1}
    assert run("images", "--output", "out", "--formats", "csv") == 0
    assert rows_by_image(table) == {"a": 1, "b": 1}


@pytest.mark.parametrize("table", ["nuclei.csv", "images.csv"])
def test_a_table_that_cant_be_replaced_is_a_failure(table, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    Path("out", table).unlink()
    Path("out", table).mkdir()
    assert run("images", "--output", "out") == 1
    assert f"{table}: " in capsys.readouterr().err


@pytest.mark.parametrize("table", ["nuclei.csv", "images.csv"])
def test_a_table_that_was_edited_is_a_failure(table, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    table = Path("out", table)
    edited = table.read_text().replace("\n", ",mine\n")
    table.write_text(edited)
    # Even where nothing is new: the table is not the one that the command promises.
    assert run("images", "--output", "out", load_segmenter=not_called) == 1
    tifffile.imwrite("images/b.tif", squares(2))
    capsys.readouterr()
    assert run("images", "--output", "out") == 1
    printed = capsys.readouterr()
    assert f"Apart from images, these failed:\n  {table} is not as it was written" in printed.err
    assert f"is {table}\n" not in printed.out
    assert table.read_text() == edited
    table.rename("mine.csv")
    assert run("images", "--output", "out", load_segmenter=not_called) == 0
    assert list(pd.read_csv(table).image.unique()) == ["a", "b"]
    table.write_text(edited)
    assert run("images", "--output", "out", "--overwrite") == 0
    assert "mine" not in table.read_text()


def test_tables_are_not_written_again_for_nothing(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    tables = [Path("out/nuclei.csv"), Path("out/images.csv")]
    for options in ([], [], ["--overwrite"]):
        assert run("images", "--output", "out", *options) == 0
        for table in tables:
            os.utime(table, (1, 1))
    assert run("images", "--output", "out") == 0
    assert [table.stat().st_mtime for table in tables] == [1, 1]


def test_a_table_of_others_stays(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("images/images.csv").write_text("mine")
    assert "images.csv is there already" in refuse(capsys, "images", "--output", "images")
    assert run("images", "--output", "images", "--formats", "tiff") == 0
    assert Path("images/images.csv").read_text() == "mine"


def test_the_output_is_a_folder(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("out").write_text("a file")
    message = refuse(capsys, "images", "--output", "out")
    assert "out is a file, and a folder is wanted" in message


def test_other_weights_of_a_preset_are_other_settings(folder, capsys, monkeypatch):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "out") == 0
    preset = dataclasses.replace(keras_nuclei.PRESETS["nuclei_base"], sha256="0" * 64)
    monkeypatch.setitem(keras_nuclei.PRESETS, "nuclei_base", preset)
    assert "holds results of other settings (sha256: " in refuse(
        capsys, "images", "--output", "out"
    )


@pytest.mark.parametrize("model", ["damaged.keras", "nuclei_base"])
def test_a_model_that_cant_be_loaded_changes_nothing(model, folder, capsys, monkeypatch):
    def damaged(name):
        raise ValueError(f"{name} is damaged")

    monkeypatch.setattr(command, "fastest", damaged)
    Path("damaged.keras").write_bytes(b"no archive")
    tifffile.imwrite("images/a.tif", squares(1))
    arguments = ["images", "--output", "out", "--model", model]
    assert f"{model} can't be loaded (" in refuse(capsys, *arguments, load_segmenter=None)
    assert not Path("out").exists()
    assert run("images", "--output", "out") == 0
    refuse(capsys, *arguments, "--scale", 2, "--overwrite", load_segmenter=None)
    assert visible("out") == OUTPUTS


def test_a_model_without_the_heads_is_refused_before_the_first_image(folder, capsys):
    keras_nuclei.unet(encoder_depth=2, decoder_filters=(8, 8)).save("own.keras")
    tifffile.imwrite("images/a.tif", squares(1))
    arguments = ["images", "--output", "out", "--model", "own.keras"]
    error = refuse(capsys, *arguments, load_segmenter=None)
    assert "--model own.keras is of no use here. The model must return a dict" in error
    assert not Path("out").exists()


@pytest.mark.parametrize("named", ["images", "images/a_labels.tif", "images/*"])
def test_results_of_another_run_are_no_images(named, folder):
    tifffile.imwrite("images/a.tif", squares(1))
    assert run("images", "--output", "images") == 0
    assert run("images/a.tif", named, "--output", "out", "--scale", 2) == 0
    assert visible("out") == OUTPUTS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("images/**/*", {"b": 1}),
        ("images/.trash/*", {"a": 1}),
        ("images/.t*/*", {"a": 1}),
        ("images/*/.*", {"_c": 1}),
    ],
)
def test_what_is_hidden_has_to_be_named(pattern, expected, folder):
    for name in ("images/.trash/a.tif", "images/day1/b.tif", "images/day1/.c.tif"):
        Path(name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(name, squares(1))
    assert run(pattern, "--output", "out") == 0
    assert {name.replace(".", "_"): n for name, n in rows_by_image().items()} == expected


@pytest.mark.parametrize("hidden", [".data", ".[old]"])
def test_a_folder_within_a_hidden_one_is_as_any(hidden, folder):
    Path(hidden).mkdir()
    tifffile.imwrite(Path(hidden, "a.tif"), squares(1))
    assert run(folder / hidden, "--output", "out") == 0
    assert rows_by_image() == {"a": 1}


def test_a_name_may_begin_as_that_of_a_home(folder):
    tifffile.imwrite("~a.tif", squares(1))
    assert run("~a.tif", "--output", "out") == 0
    assert rows_by_image() == {"~a": 1}


def test_images_that_are_not_named_now_are_spoken_of(folder, capsys):
    for name in ("a", "b"):
        tifffile.imwrite(f"images/{name}.tif", squares(1))
    assert run("images", "--output", "out") == 0
    assert "also holds" not in capsys.readouterr().out
    Path("images/a.tif").rename("images/c.tif")
    assert run("images", "--output", "out") == 0
    assert "out also holds the results of 1 not named now (a)" in capsys.readouterr().out
    assert rows_by_image() == {"a": 1, "b": 1, "c": 1}


def test_nobody_has_to_read_on(folder, monkeypatch):
    tifffile.imwrite("images/a.tif", squares(1))

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert run("images", "--output", "out") == 0
    assert visible("out") == OUTPUTS


@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere names are always Unicode.")
@pytest.mark.parametrize("where", ["name", "folder", "link"])
def test_a_name_that_is_no_text_fails_before_it_is_segmented(folder, capsys, monkeypatch, where):
    bad = os.fsdecode(b"n\xff")
    path = Path(bad, "n.tif") if where == "folder" else Path("images", f"{bad}.tif")
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, squares(1))
    if where == "link":
        path.rename("n.tif")
        path.symlink_to(Path("n.tif").resolve())
    monkeypatch.chdir(path.parent)
    assert run("*.tif", "--output", "out", load_segmenter=lambda arguments: not_called) == 1
    assert "is not encoded as UTF-8: rename it" in capsys.readouterr().err


def test_files_in_formats_that_are_not_asked_for_are_in_nobodys_way(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    Path("images/a.geojson").write_text("precious")
    assert run("images", "--output", "images", "--formats", "csv") == 0
    assert Path("images/a.geojson").read_text() == "precious"


def test_results_beside_the_images_are_not_segmented(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    for _ in range(2):
        assert run("images", "--output", "images") == 0
    assert visible(Path("images")) == sorted([*OUTPUTS, "a.tif"])


def test_equal_stems(folder):
    Path("other").mkdir()
    for name in ("images/a.tif", "other/a.tif", "images/b.tif"):
        tifffile.imwrite(name, squares(1))
    Image.fromarray(squares(1)).save("images/a.png")
    assert run("images", "other", "--output", "out", "--formats", "csv") == 0
    expected = ["b", "images_a_png", "images_a_tif", "other_a_tif"]
    assert pd.read_csv("out/nuclei.csv").image.tolist() == expected


def test_equal_names_in_folders_of_equal_names(folder):
    places = ["images/A/dapi/1.tif", "images/B/dapi/1.tif", "images/B/dapi/2.tif"]
    for place in places:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place, squares(1))
    assert run("images/**/*", "--output", "out", "--formats", "csv") == 0
    assert list(rows_by_image()) == ["2", "A_dapi_1_tif", "B_dapi_1_tif"]
    # What comes later takes no name that another image has.
    for place in ("images/C/dapi/2.tif", "more/C/dapi/2.tif"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(place, squares(2))
        assert run(place, "--output", "out", "--formats", "csv") == 0
    expected = {"2": 1, "A_dapi_1_tif": 1, "B_dapi_1_tif": 1, "C_dapi_2_tif": 2, "dapi_2_tif": 2}
    assert rows_by_image() == expected
    assert run("images/**/*", "more/**/*", "--output", "out", "--formats", "csv") == 0
    assert rows_by_image() == expected


def test_names_that_clash_all_the_same():
    with pytest.raises(ValueError, match="the same name"):
        name_jobs([Path("x/day/A.tif"), Path("x/day/a.tif")])
    assert len(name_jobs([Path("a.tif"), Path("./a.tif")])) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.tif"], "Nothing to segment: absent.tif is neither a file"),
        (["absent.tif", "empty"], "match. empty is neither a file"),
        (["*.nd2"], "nor a pattern that any match"),
        ([""], "Nothing to segment: '' is the name of no file"),
        (["images/a.tif", "--output", ""], "must be the name of a folder; got ''"),
        (["images/a.tif", "--diameter", "0"], "above 0"),
        (["images/a.tif", "--diameter", "nan"], "above 0"),
        (["images/a.tif", "--diameter", "5000"], "at most 3200 pixels; got 5000"),
        (["images/a.tif", "--scale", "100"], "in 1/64..8; got 100"),
        (["images/a.tif", "--threshold", "1"], "a number above 0 and below 1; got 1"),
        (["images/a.tif", "--threshold", "nan"], "a number above 0 and below 1; got nan"),
        (["images/a.tif", "--diameter", "5", "--scale", "2"], "not allowed with"),
        (["images/a.tif", "--formats", "tiff,xml"], "tiff,png,geojson,roi,csv"),
        (
            ["images/a.tif", "--augmentations", "2"],
            "invalid choice: 2 (choose from 1, 3, 4, 8, 12)",
        ),
        (["images/a.tif", "--channel", "-1"], "0 or above"),
        (["images/a.tif", "--tile-size", "96"], "multiple of 32, 128 or above"),
        (["images/a.tif", "--tile-size", "144"], "multiple of 32, 128 or above"),
        (["images/a.tif", "--model", "huge"], "neither one of nuclei_small, nuclei_base"),
        (["images/a.tif", "--model", "absent.keras"], "a .keras file that exists"),
        (["images/a.tif", "--output", "images/a.tif"], "a.tif"),
    ],
)
def test_wrong_usage(arguments, message, folder, capsys):
    tifffile.imwrite("images/a.tif", squares(1))
    error = refuse(capsys, "--output", "out", *arguments)
    assert message in error
    assert error.startswith("usage: keras-nuclei segment ")
    assert not Path("out").exists()


def test_options_reach_the_segmenter(folder):
    tifffile.imwrite("images/a.tif", squares(1))
    seen = []

    def load(arguments):
        names = ("scale", "threshold", "augmentations", "tile_size")
        seen.append(tuple(getattr(arguments, name) for name in names))
        return load_threshold(arguments)

    options = ["--scale", "1.5", "--threshold", "0.4", "--augmentations", "4", "--tile-size", "160"]
    assert run("images", "--output", "out", *options, load_segmenter=load) == 0
    assert seen == [(1.5, 0.4, 4, 160)]


def test_a_table_of_the_users_own_stays(folder, capsys):
    Path("out").mkdir()
    Path("out/nuclei.csv").write_text("mine")
    Path("images/a.tif").write_bytes(b"no image")
    # What led to no result leaves settings, but no right to the name of a table.
    assert run("images/a.tif", "--output", "out", "--formats", "tiff") == 1
    tifffile.imwrite("images/a.tif", squares(2))
    assert "nuclei.csv is there already" in refuse(capsys, "images/a.tif", "--output", "out")
    assert Path("out/nuclei.csv").read_text() == "mine"


def test_overlays_of_pages_that_are_gone_go_too(folder):
    tifffile.imwrite("images/a.tif", np.stack([squares(2)] * 3), photometric="minisblack")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.ResultFolder, "finish", interrupt)
        assert run("images/a.tif", "--output", "out") == 130
    assert len(list(Path("out").glob("*_page*_overlay.png"))) == 3
    tifffile.imwrite("images/a.tif", squares(2))
    assert run("images/a.tif", "--output", "out") == 0
    assert visible("out") == OUTPUTS


def test_an_image_that_changes_while_it_is_segmented_fails(folder, capsys):
    tifffile.imwrite("images/a.tif", squares(2))

    def load(arguments):
        segment = load_threshold(arguments)

        def change(image):
            tifffile.imwrite("images/a.tif", squares(4))
            return segment(image)

        return change

    assert run("images/a.tif", "--output", "out", load_segmenter=load) == 1
    assert "it changed while it was segmented" in capsys.readouterr().err
    assert run("images/a.tif", "--output", "out") == 0
    assert rows_by_image() == {"a": 4}


def test_what_the_terminal_cannot_write_is_spelled_out(folder, monkeypatch):
    tifffile.imwrite("images/\u7d30.tif", squares(2))
    with (folder / "printed.txt").open("w", encoding="cp1252") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        assert run("images", "--output", "\u51fa") == 0
    text = (folder / "printed.txt").read_text(encoding="cp1252")
    assert "\\u7d30.tif: 2 nuclei" in text
    assert Path("\u51fa/images.csv").exists()


def test_home_is_found_in_the_names_of_the_output_and_the_model(folder, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    tifffile.imwrite("images/a.tif", squares(2))
    Path("own.keras").touch()
    assert run("images/a.tif", "--output=~/out", "--model=~/own.keras") == 0
    assert visible("out") == OUTPUTS
    error = refuse(capsys, "images/a.tif", "--output=out", "--model=~nosuchuser/own.keras")
    assert "--model: Could not determine home" in error


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out == f"keras-nuclei {keras_nuclei.__version__}\n"


def test_models(capsys):
    from keras_nuclei.presets import PRESETS

    assert command.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line, preset in zip(lines, PRESETS.values(), strict=True):
        assert line.endswith(preset.description)


def test_as_a_module():
    root = Path(__file__).parent.parent
    arguments = [sys.executable, "-m", "keras_nuclei", "segment"]
    result = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage: keras-nuclei segment" in result.stderr


# With models


def test_with_the_model_that_comes_with_the_package(folder):
    rows, columns = np.mgrid[:150, :200]
    centres = [(35, 40), (35, 110), (100, 60), (105, 150)]
    discs = [(rows - y) ** 2 + (columns - x) ** 2 < 15**2 for y, x in centres]
    Image.fromarray(np.where(np.any(discs, axis=0), 180, 20).astype("uint8")).save("images/a.png")
    options = ["--tile-size", 128, "--diameter", 30]
    assert run("images", "--output", "out", *options, load_segmenter=None) == 0
    assert visible("out") == OUTPUTS
    labels = tifffile.imread("out/a_labels.tif")
    assert sorted(labels[y, x] for y, x in centres) == [1, 2, 3, 4]
    assert labels.max() == 4
    areas = pd.read_csv("out/nuclei.csv").area_px
    np.testing.assert_allclose(areas, np.pi * 15**2, rtol=0.25)


def test_with_a_model_of_your_own(folder):
    heads = {"foreground": 1, "distance": 1}
    model = keras_nuclei.unet(heads=heads, encoder_depth=2, decoder_filters=(8, 8))
    model.save("own.keras")
    tifffile.imwrite("images/a.tif", squares(3))
    options = ["--model", "own.keras", "--tile-size", 128, "--scale", 1, "--threshold", 0.45]
    assert run("images", "--output", "out", *options, load_segmenter=None) == 0
    assert visible("out") == OUTPUTS
    expected = keras_nuclei.segment(squares(3), model, scale=1, threshold=0.45)
    np.testing.assert_array_equal(tifffile.imread("out/a_labels.tif"), expected)
