"""Masks, run lengths and PNG files, against hand values, PIL and slow readers."""

import doctest
import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests import dsb2018_archive
from tfds_dsb2018 import masks
from tfds_dsb2018.modality import modality_of

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


def test_run_lengths_of_the_competition_go_down_the_columns():
    # The competition's own example: "1 3 10 5" is pixels 1, 2, 3 and 10 to 14.
    mask = masks.decode_rle("1 3 10 5", (4, 4))
    assert np.flatnonzero(mask.T.ravel()).tolist() == [0, 1, 2, 9, 10, 11, 12, 13]
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0]]


@given(hnp.arrays(bool, SHAPES))
def test_run_lengths_agree_with_a_pixel_by_pixel_writer(mask):
    text = dsb2018_archive.run_lengths(mask)
    assert masks.encode_rle(mask) == text
    if text:
        np.testing.assert_array_equal(masks.decode_rle(text, mask.shape), mask)


def test_adjacent_runs_are_accepted():
    assert masks.decode_rle("1 2 3 1", (4, 1)).ravel().tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15 3", "run to pixel 17, but an image of shape .4, 4. has 16"),
        ("30 1 2 1", "run to pixel 30"),
        ("1 2 3", "pairs of start and length, got 3"),
        ("", "pairs of start and length, got 0"),
        ("1 x", "whole numbers"),
        ("1 2.5", "whole numbers"),
        ("99999999999999999999 1", "whole numbers"),
        ("0 2", "ascending"),
        ("3 0", "ascending"),
        ("3 -1", "ascending"),
        ("5 2 1 2", "ascending"),
        ("1 3 2 1", "ascending"),
    ],
)
def test_malformed_run_lengths_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        masks.decode_rle(text, (4, 4))


@given(st.text(alphabet="0123456789 -x", max_size=12))
def test_any_text_is_decoded_or_refused(text):
    try:
        mask = masks.decode_rle(text, (3, 4))
    except ValueError:
        return
    # What is accepted covers as many pixels as its lengths say.
    assert mask.sum() == sum(map(int, text.split()[1::2]))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(2, 7), st.integers(2, 7))))
def test_merging_agrees_with_painting_whole_masks(stack):
    expected = np.zeros(stack.shape[1:], int)
    for number, mask in enumerate(stack, start=1):
        for index in np.ndindex(mask.shape):
            if mask[index]:
                expected[index] = number
    # Leave out the empty rows above the nucleus of every other mask.
    tops = [int(mask.any(axis=1).argmax()) * (i % 2) for i, mask in enumerate(stack)]
    named = [
        (f"mask {i}", top, mask[top:])
        for i, (top, mask) in enumerate(zip(tops, stack, strict=True))
    ]
    if set(range(1, len(stack) + 1)) <= set(expected.ravel()):
        merged = masks.merge_masks(named, stack.shape[1:])
        assert merged.dtype == np.uint16
        np.testing.assert_array_equal(merged, expected)
    else:
        with pytest.raises(ValueError, match=r"marks no nucleus|wholly covered"):
            masks.merge_masks(named, stack.shape[1:])


def test_more_than_255_nuclei_keep_their_numbers():
    rows = np.eye(300, dtype=np.uint8)
    merged = masks.merge_masks(((str(i), 0, row[None]) for i, row in enumerate(rows)), (1, 300))
    assert merged[0].tolist() == list(range(1, 301))


@pytest.mark.parametrize(("top", "shape"), [(0, (2, 3)), (0, (4, 2)), (1, (3, 2)), (3, (1, 2))])
def test_rows_that_do_not_fit_are_refused(top, shape):
    message = rf"m.png has rows {top} to {top + shape[0]} of {shape[1]} pixels, .* shape \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        masks.merge_masks([("m.png", top, np.ones(shape, np.uint8))], (3, 2))


def test_no_masks_are_an_empty_label_map():
    assert not masks.merge_masks([], (2, 3)).any()


ARRAYS = st.one_of(
    hnp.arrays(np.uint8, SHAPES),
    hnp.arrays(np.uint16, SHAPES),
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(3))),
)


@given(ARRAYS, st.booleans())
def test_pil_reads_what_we_encode(array, shrink):
    decoded = np.asarray(Image.open(io.BytesIO(masks.encode_png(array, shrink))))
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L", "1"])
def test_images_of_every_mode_are_decoded_as_pil_does(mode):
    drawn = dsb2018_archive.draw_archive().train[dsb2018_archive.REMOVED[0]]
    data = dsb2018_archive.png(drawn.image, mode)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(masks.decode_png(data, "x.png"), expected)


@pytest.mark.parametrize("mode", ["L", "1", "RGBA"])
def test_masks_of_every_mode_are_decoded(mode):
    mask = np.eye(5, dtype=bool)
    data = dsb2018_archive.png(mask, mode)
    decoded = masks.decode_png(data, "m.png", cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decoded > 0, mask)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-9], lambda data: data[: len(data) // 2], lambda _: b"", str.encode],
)
def test_a_cut_or_alien_png_is_refused(damage):
    data = dsb2018_archive.png(np.arange(600, dtype=np.uint8).reshape(20, 30))
    data = damage("<html>") if damage is str.encode else damage(data)
    with pytest.raises(ValueError, match=r"x\.png is not a readable PNG file"):
        masks.decode_png(data, "x.png")


def test_the_digest_is_that_of_the_documented_formula():
    archive = dsb2018_archive.draw_archive()
    for drawn in (archive.train | archive.test).values():
        expected = dsb2018_archive.digest(drawn)
        assert masks.content_digest(drawn.image, drawn.instances) == expected


@given(hnp.arrays(np.uint8, (3, 4, 3)), st.integers(0, 2), st.integers(0, 3))
def test_the_digest_notices_one_changed_value(image, row, column):
    instances = np.zeros((3, 4), np.uint16)
    before = masks.content_digest(image, instances)
    instances[row, column] = 300
    assert masks.content_digest(image, instances) != before
    image[row, column, 0] += 1
    assert masks.content_digest(image, np.zeros_like(instances)) != before


@pytest.mark.parametrize(
    ("image", "modality"),
    [
        (np.zeros((4, 4, 3)), "fluorescence"),
        (np.full((4, 4), 255), "brightfield"),
        # Half of the pixels bright is not yet a bright ground.
        (np.repeat([[0, 255]], 3, axis=0), "fluorescence"),
        (np.repeat([[0, 255, 128]], 3, axis=0), "brightfield"),
        (np.eye(3)[None], "histology"),
    ],
)
def test_modality(image, modality):
    assert modality_of(image.astype(np.uint8)) == modality


@pytest.mark.parametrize(
    "name",
    [
        "archives",
        "contents",
        "dsb2018_dataset_builder",
        "examples",
        "masks",
        "modality",
        "records",
        "strips",
        "synthetic",
    ],
)
def test_examples_in_docstrings(name):
    module = __import__(f"tfds_dsb2018.{name}", fromlist=[name])
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
