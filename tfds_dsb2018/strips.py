"""Reads mask files of single nuclei, whose rows are nearly all empty.

Together the 29,461 masks of stage 1 are 13 MB of PNG files and 7.4 GB of pixels. libpng has zlib
inflate them, and that is where the time of `cv2.imdecode` goes: zlib-ng inflates such runs of zeros
twenty times as fast. Undoing the rows' filters is left to libpng, which is handed the rows that
are not empty as a small PNG file of their own.

The layout of the files is that of https://www.w3.org/TR/png-3/: chunks, section 5; filters, 9.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from zlib_ng import zlib_ng

from tfds_dsb2018 import masks

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_GRAY = bytes([8, 0, 0, 0, 0])  # bits, colour type, compression, filter method, interlacing
_END = b"\0\0\0\0IEND\xaeB`\x82"
# `_START`, width, height, `_GRAY`, its checksum; length and type of the second chunk.
_HEAD = struct.Struct(">16sII5s4sI4s")


def decode_strip(data: bytes, name: str, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
    """Decodes a mask, without the empty rows above and below its nucleus.

    Args:
        data: The PNG file's bytes.
        name: What to call the file in an error.
        shape: `(H, W)` that the mask must have.

    Returns:
        The number of the first row that is kept, and the rows: uint8 of shape `(h, W)`, at
        least one. All other rows are 0.

    Raises:
        ValueError: The bytes are no PNG file, not a whole one, or the mask has another shape.

    Example:
        >>> mask = np.zeros((9, 3), np.uint8)
        >>> mask[4:6, 1] = 255
        >>> top, rows = decode_strip(masks.encode_png(mask), "mask.png", (9, 3))
        >>> top, rows.tolist()
        (4, [[0, 255, 0], [0, 255, 0]])
    """
    filtered = _inflate(data, shape)
    if filtered is not None:
        # An empty row is all zeros, and so is its filter type (0, "none"). What a filter takes for
        # the row above the first one is zeros, too: so a strip decodes as it would in its place.
        _, top, _, height = cv2.boundingRect(filtered)
        strip = _as_png(filtered[top : top + max(height, 1)])
        rows = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_GRAYSCALE)
        if rows is not None:
            return top, rows
    return 0, _decode_whole(data, name, shape)


def _inflate(data: bytes, shape: tuple[int, int]) -> np.ndarray | None:
    """Returns filter types and filtered rows, `(H, 1 + W)`, of a sound PNG file of the usual kind.

    That is: of 8-bit grey, not interlaced, of the given shape, in one chunk of pixels and no
    others. None for any other bytes: libpng shall read those, or refuse them.
    """
    if len(data) < _HEAD.size:
        return None
    start, width, height, kind, checksum, length, chunk = _HEAD.unpack_from(data)
    if (start, kind, chunk, (height, width)) != (_START, _GRAY, b"IDAT", shape):
        return None
    end = _HEAD.size + length
    if checksum != _checksum(data[12:29]):
        return None
    if data[end:] != _checksum(data[_HEAD.size - 4 : end]) + _END:
        return None
    size = height * (1 + width)
    try:
        pixels = zlib_ng.decompress(data[_HEAD.size : end], bufsize=size)
    except zlib_ng.error:  # type: ignore[misc]  # its types have an instance in place of the class
        return None
    if len(pixels) != size:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, 1 + width)


def _as_png(filtered: np.ndarray) -> bytes:
    """Makes a PNG file of filtered rows, stored without compression."""
    height, width = filtered.shape
    header = b"IHDR" + struct.pack(">II", width - 1, height) + _GRAY
    pixels = b"IDAT" + zlib_ng.compress(filtered, 0)
    length = (len(pixels) - 4).to_bytes(4, "big")
    checksums = _checksum(header), _checksum(pixels)
    return b"".join((_START[:-4], header, checksums[0], length, pixels, checksums[1], _END))


def _checksum(chunk: bytes) -> bytes:
    return zlib_ng.crc32(chunk).to_bytes(4, "big")


def _decode_whole(data: bytes, name: str, shape: tuple[int, int]) -> np.ndarray:
    mask = masks.decode_png(data, name, cv2.IMREAD_GRAYSCALE)
    if mask.shape != shape:
        raise ValueError(
            f"{name} is a mask of shape {mask.shape} for an image of shape {shape}; "
            "they must be equal: get both files again."
        )
    return mask
