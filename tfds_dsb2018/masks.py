"""Between annotation files and arrays: PNG bytes, run lengths, label maps.

Arrays are `(H, W)`, or `(H, W, 3)` in RGB order. A *label map* is `uint16`: 0 is background,
1..n number the nuclei in the order in which they are given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import cv2
import numpy as np

_PNG_END = b"IEND\xaeB`\x82"

# Photographs are stored as they are: deflating them saves 60 % of 150 kB, but makes preparing and
# reading an image four times as slow. Masks shrink to a hundredth, and with these settings of
# zlib and libpng they are read faster than with any other.
_STORED = (cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
_SHRUNK = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_FIXED,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)


def decode_png(data: bytes, name: str, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Decodes one PNG file.

    Args:
        data: The file's bytes.
        name: What to call the file in an error.
        flags: `cv2.IMREAD_COLOR_RGB` for an RGB image (alpha is dropped),
            `cv2.IMREAD_GRAYSCALE` for a mask.

    Returns:
        uint8 of shape `(H, W, 3)` or, for a mask, `(H, W)`.

    Raises:
        ValueError: The bytes are no PNG file, or not a whole one.

    Example:
        >>> decode_png(encode_png(np.zeros((2, 3), np.uint8)), "black.png").shape
        (2, 3, 3)
    """
    # libpng fills the missing rest of a cut file with zeros and only warns, so look at its end.
    array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if _PNG_END in data[-64:] else None
    if array is None:
        raise ValueError(f"{name} is not a readable PNG file ({len(data)} bytes): get it again.")
    return array


def encode_png(array: np.ndarray, shrink: bool = False) -> bytes:
    """Encodes an array as PNG, losslessly, with the bit depth of its dtype.

    Args:
        array: uint8 or uint16 of shape `(H, W)`, or uint8 RGB of shape `(H, W, 3)`.
        shrink: Whether to compress it, as is worthwhile for masks.

    Returns:
        The file's bytes.

    Example:
        >>> encode_png(np.zeros((2, 3), np.uint8))[1:4]
        b'PNG'
    """
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", array, _SHRUNK if shrink else _STORED)[1].tobytes()


def squeeze_gray(image: np.ndarray) -> np.ndarray:
    """Drops the colour axis of an image whose three channels are equal.

    Readers expand a grey PNG again, so an image stored this way loses nothing.

    Args:
        image: uint8 of shape `(H, W, 3)`.

    Returns:
        uint8 of shape `(H, W)` for a grey image, else `image` itself.

    Example:
        >>> squeeze_gray(np.full((2, 3, 3), 7, np.uint8)).shape
        (2, 3)
    """
    first, second, third = cv2.split(image)
    is_gray = np.array_equal(first, second) and np.array_equal(first, third)
    return first if is_gray else image


def merge_masks(
    named_masks: Iterable[tuple[str, int, np.ndarray]], shape: tuple[int, int]
) -> np.ndarray:
    """Merges the masks of single nuclei into one label map.

    The k-th mask becomes the number k. Where masks overlap, the later one wins.

    Args:
        named_masks: Triples of a name for errors, a row number and the mask's rows from this
            number on, uint8 of shape `(h, W)`; every value but 0 belongs to the nucleus. Other
            rows are empty: a whole mask has number 0 and `H` rows.
        shape: `(H, W)` of the image.

    Returns:
        uint16 of shape `(H, W)`, values 0..n.

    Raises:
        ValueError: The rows do not fit into the image, or a mask marks no pixel at all, or is
            wholly covered by later ones.

    Example:
        >>> left, right = np.uint8([[255, 0, 0]]), np.uint8([[0, 0, 255]])
        >>> merge_masks([("left", 0, left), ("right", 1, right)], (2, 3)).tolist()
        [[1, 0, 0], [0, 0, 2]]
    """
    instances = np.zeros(shape, np.uint16)
    names = []
    painted = 0
    for number, (name, top, rows) in enumerate(named_masks, start=1):
        region = instances[top : top + len(rows)]
        if region.shape != rows.shape:
            raise ValueError(
                f"{name} has rows {top} to {top + len(rows)} of {rows.shape[1]} pixels, but the "
                f"image has the shape {shape}: pass rows that lie inside of it."
            )
        # A nucleus fills a small part of the image: find its box, then work inside.
        x, y, width, height = cv2.boundingRect(rows)
        box = np.s_[y : y + height, x : x + width]
        inside = rows[box] != 0
        count = int(np.count_nonzero(inside))
        if not count:
            raise ValueError(f"{name} marks no nucleus: all its pixels are 0. Get it again.")
        region[box][inside] = number
        painted += count
        names.append(name)
    if painted != cv2.countNonZero(instances):
        _refuse_hidden(instances, names)
    return instances


def _refuse_hidden(instances: np.ndarray, names: list[str]) -> None:
    """Raises if a nucleus has no pixel left in a label map of overlapping masks."""
    visible = set(np.unique(instances).tolist())
    for number, name in enumerate(names, start=1):
        if number not in visible:
            raise ValueError(f"{name} is wholly covered by later masks: one of them is wrong.")


def decode_rle(text: str, shape: tuple[int, int], name: str = "the run lengths") -> np.ndarray:
    """Decodes the run lengths of the Data Science Bowl.

    Args:
        text: Pairs "start length start length ..." over the pixels numbered from 1 at the top
            left, down the columns. Starts ascend and runs do not overlap.
        shape: `(H, W)` of the image.
        name: What to call the text in an error.

    Returns:
        uint8 of shape `(H, W)`: 1 inside the runs, 0 elsewhere.

    Raises:
        ValueError: The text is malformed, or a run leaves the image.

    Example:
        >>> decode_rle("2 3", (2, 3)).tolist()
        [[0, 1, 0], [1, 1, 0]]
    """
    try:
        numbers = np.array(text.split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be whole numbers, got {text[:60]!r}.") from error
    if not numbers.size or numbers.size % 2:
        raise ValueError(
            f"{name} must be pairs of start and length, got {numbers.size} numbers: {text[:60]!r}."
        )
    starts = numbers[::2] - 1
    ends = starts + numbers[1::2]
    size = shape[0] * shape[1]
    if ends[-1] > size or ends.max() > size:
        raise ValueError(
            f"{name} run to pixel {ends.max()}, but an image of shape {shape} has {size} pixels: "
            "they belong to another image, or the file is damaged. Get it again."
        )
    if starts[0] < 0 or (ends <= starts).any() or (starts[1:] < ends[:-1]).any():
        raise ValueError(
            f"{name} must have starts from 1 in ascending order and lengths from 1, without "
            f"overlap, got {text[:60]!r}."
        )
    lengths = ends - starts
    # Pixel k of a run that starts at s lies at s + k; `before` pixels lie in earlier runs.
    before = np.cumsum(lengths) - lengths
    pixels = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    mask = np.zeros(shape, np.uint8)
    mask[pixels % shape[0], pixels // shape[0]] = 1
    return mask


def encode_rle(mask: np.ndarray) -> str:
    """Encodes a mask as the Data Science Bowl wants it; the inverse of `decode_rle`.

    Args:
        mask: Array of shape `(H, W)`; every value but 0 is inside.

    Returns:
        "start length start length ...", empty for an empty mask.

    Example:
        >>> encode_rle(np.array([[0, 1, 0], [1, 1, 0]]))
        '2 3'
    """
    flat = np.concatenate([[False], np.asarray(mask).ravel(order="F") != 0, [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])  # start, end, start, end, ...
    pairs = np.stack([borders[::2] + 1, borders[1::2] - borders[::2]], axis=1)
    return " ".join(map(str, pairs.ravel().tolist()))


def content_digest(image: np.ndarray, instances: np.ndarray) -> str:
    """Digests what the pixels of one example say, however they are stored.

    Args:
        image: uint8 of shape `(H, W, 3)`, RGB, or `(H, W)` if grey.
        instances: uint16 label map of shape `(H, W)`.

    Returns:
        32 hexadecimal digits: the first half of the SHA-256 of the text "HxW", the image's
        bytes (one channel if it is grey, else RGB) and the little-endian bytes of the
        label map, rows first.

    Example:
        >>> gray = np.zeros((2, 3), np.uint8)
        >>> content_digest(gray, np.zeros((2, 3), np.uint16))[:8]
        '8127219d'
    """
    if image.ndim == 3:
        image = squeeze_gray(image)
    height, width = instances.shape
    digest = hashlib.sha256(f"{height}x{width}".encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(instances, "<u2").data)
    return digest.hexdigest()[:32]
