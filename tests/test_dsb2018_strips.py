"""The reader of mask files, against PIL and against libpng's way with the same bytes."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, PngImagePlugin

from tests import dsb2018_archive
from tfds_dsb2018 import masks, strips

MASK = np.zeros((9, 7), np.uint8)
MASK[3:6, 2:5] = 255
MASK[5, 6] = 255
SHAPE = MASK.shape
FILTERS = (
    cv2.IMWRITE_PNG_FILTER_NONE,
    cv2.IMWRITE_PNG_FILTER_SUB,
    cv2.IMWRITE_PNG_FILTER_UP,
    cv2.IMWRITE_PNG_FILTER_AVG,
    cv2.IMWRITE_PNG_FILTER_PAETH,
    cv2.IMWRITE_PNG_ALL_FILTERS,
)


def whole(strip, shape=SHAPE):
    """The mask that a strip stands for."""
    top, rows = strip
    mask = np.zeros(shape, np.uint8)
    mask[top : top + len(rows)] = rows
    return mask


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*pixels, header=(7, 9, 8, 0, 0, 0, 0), rest=b""):
    """A PNG file, spelled out: each of `pixels` becomes a chunk."""
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), rest]
    parts += [chunk(b"IDAT", part) for part in pixels]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def filtered(mask=MASK, kind=0):
    """The rows, each after its filter type."""
    return np.insert(mask, 0, kind, axis=1).tobytes()


@settings(max_examples=50)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(FILTERS),
)
def test_every_filter_is_undone(nucleus, margin, png_filter):
    mask = np.pad(nucleus, (margin, (2, 1)))
    data = cv2.imencode(".png", mask, (cv2.IMWRITE_PNG_FILTER, png_filter))[1].tobytes()
    strip = strips.decode_strip(data, "m.png", mask.shape)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(whole(strip, mask.shape), expected)
    np.testing.assert_array_equal(expected, mask)


def test_empty_rows_are_left_out():
    top, rows = strips.decode_strip(png(zlib.compress(filtered())), "m.png", SHAPE)
    assert top == 3
    np.testing.assert_array_equal(rows, MASK[3:6])


def test_an_empty_mask_keeps_one_row():
    data = png(zlib.compress(filtered(0 * MASK)))
    top, rows = strips.decode_strip(data, "m.png", SHAPE)
    assert (top, rows.tolist()) == (0, [[0] * 7])


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16"])
def test_masks_of_every_mode_are_read(mode):
    deep = Image.fromarray(MASK.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(MASK).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    strip = strips.decode_strip(buffer.getvalue(), "m.png", SHAPE)
    np.testing.assert_array_equal(whole(strip) > 0, MASK > 0)


def test_further_chunks_are_read():
    compressed = zlib.compress(filtered())
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "nobody")
    buffer = io.BytesIO()
    Image.fromarray(MASK).save(buffer, "PNG", pnginfo=info)
    for data in (buffer.getvalue(), png(compressed[:9], compressed[9:])):
        np.testing.assert_array_equal(whole(strips.decode_strip(data, "m.png", SHAPE)), MASK)


def test_a_mask_of_another_size_is_refused():
    message = r"m\.png is a mask of shape \(9, 7\) for an image of shape \(7, 9\)"
    with pytest.raises(ValueError, match=message):
        strips.decode_strip(png(zlib.compress(filtered())), "m.png", (7, 9))


def outcome(function):
    """What a decoder makes of a file: pixels or the error's text."""
    try:
        return function().tolist()
    except ValueError as error:
        return str(error)


def assert_as_libpng_does(data):
    def by_libpng():
        return masks.decode_png(data, "m.png", cv2.IMREAD_GRAYSCALE)

    expected = outcome(by_libpng)
    if isinstance(expected, list) and np.shape(expected) != SHAPE:
        with pytest.raises(ValueError, match="is a mask of shape"):
            strips.decode_strip(data, "m.png", SHAPE)
    else:
        assert outcome(lambda: whole(strips.decode_strip(data, "m.png", SHAPE))) == expected


def test_a_flipped_bit_is_never_read_otherwise_than_libpng_does():
    data = dsb2018_archive.png(MASK)
    assert_as_libpng_does(data)
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 1 << index % 8
        assert_as_libpng_does(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        png(zlib.compress(filtered()))[:-1],
        png(zlib.compress(filtered())) + b"more",
        png(zlib.compress(filtered()), rest=chunk(b"gAMA", struct.pack(">I", 45455))),
        png(),
        png(b""),
        png(b"no stream"),
        png(zlib.compress(filtered())[:-4]),  # without the checksum of the pixels
        png(zlib.compress(filtered())[:-4] + b"oops"),
        png(zlib.compress(filtered()[:-8])),  # without the last row
        png(zlib.compress(filtered() + bytes(8))),  # with one more
        png(zlib.compress(filtered(kind=5))),  # of no such filter
        png(zlib.compress(filtered()), header=(7, 9, 8, 0, 0, 0, 1)),  # interlaced, it says
        png(zlib.compress(filtered()), header=(7, 9, 7, 0, 0, 0, 0)),
        png(zlib.compress(filtered()), header=(7, 2**31 - 1, 8, 0, 0, 0, 0)),
    ],
)
def test_odd_files_are_read_or_refused_as_libpng_does(data):
    assert_as_libpng_does(data)
