"""Drawn nuclei: a stand-in for the real images where there are none.

Every image is a tile of a drawn field of view, four tiles to a field or one, in the three
modalities of the real data set. The drawing comes from a seeded generator: with the same versions
of NumPy and OpenCV it is the same everywhere, up to the rounding of a grey value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np

from tfds_dsb2018.contents import ImageFacts
from tfds_dsb2018.modality import MODALITIES

# Fields of view of each split, as (number of fields, tiles per field).
_FIELDS = {"train": ((8, 4), (32, 1)), "test": ((2, 4), (8, 1))}
# (height, width) of a tile; odd ones are meant.
# Seven sizes and six modalities: each modality comes in each size.
_SIZES = ((128, 128), (160, 128), (129, 161), (192, 256), (256, 256), (203, 131), (144, 176))
_MODALITY_CYCLE = (*MODALITIES, "fluorescence", "histology", "fluorescence")
_SEED = 2018

Reader = Callable[[], tuple[np.ndarray, np.ndarray]]


def draw_split(split: str) -> tuple[dict[str, Reader], dict[str, ImageFacts]]:
    """Lists the images of a split.

    Args:
        split: `"train"` or `"test"`.

    Returns:
        By image id, a function that draws image (uint8 RGB, `(H, W, 3)`) and label map (uint16,
        `(H, W)`); and by image id, what is known of it beforehand: its field of view.

    Example:
        >>> readers, facts = draw_split("test")
        >>> image, instances = readers["test-00-0"]()
        >>> image.shape, instances.dtype.name, facts["test-00-0"].field_of_view
        ((203, 131, 3), 'uint16', 40)
    """
    readers: dict[str, Reader] = {}
    facts = {}
    index = 0
    first_number = 0 if split == "train" else sum(n for n, _ in _FIELDS["train"])
    for count, tiles in _FIELDS[split]:
        for _ in range(count):
            number = first_number + index
            for tile in range(tiles):
                image_id = f"{split}-{index:02d}-{tile}"
                readers[image_id] = functools.partial(_draw_tile, number, tile, tiles)
                facts[image_id] = ImageFacts(num_instances=None, field_of_view=number)
            index += 1
    return readers, facts


def _draw_tile(number: int, tile: int, tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts one tile out of a field, nuclei numbered anew."""
    height, width = _SIZES[number % len(_SIZES)]
    grid = 2 if tiles == 4 else 1
    image, labels = draw_field(number, grid * height, grid * width)
    top, left = tile // grid * height, tile % grid * width
    area = np.s_[top : top + height, left : left + width]
    numbers, instances = np.unique(labels[area], return_inverse=True)
    # `np.unique` numbers the values from 0; without background 0 would be a nucleus.
    offset = 0 if numbers[0] == 0 else 1
    instances = instances.reshape(height, width) + offset
    return np.ascontiguousarray(image[area]), instances.astype(np.uint16)


@functools.lru_cache(maxsize=4)  # the tiles of one field are drawn one after the other
def draw_field(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a field of view.

    Args:
        number: Number of the field; seeds the drawing and chooses the modality.
        height: Pixels.
        width: Pixels.

    Returns:
        Image, uint8 RGB `(height, width, 3)`, and labels, int32 `(height, width)`.

    Example:
        >>> image, labels = draw_field(0, 64, 64)
        >>> bool(labels.max() > 0)
        True
    """
    rng = np.random.default_rng([_SEED, number])
    labels = _draw_labels(rng, height, width)
    modality = _MODALITY_CYCLE[number % len(_MODALITY_CYCLE)]
    return _RENDERERS[modality](rng, labels), labels


def _draw_labels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Scatters ellipses, some touching, none overlapping."""
    labels = np.zeros((height, width), np.int32)
    radius = rng.uniform(6, 13)
    # Enough tries to cover about a fifth of the field.
    centers: list[tuple[float, float]] = []
    for _ in range(int(0.25 * height * width / (np.pi * radius**2))):
        if centers and rng.random() < 0.35:  # beside an earlier one, so that they touch
            x, y = centers[rng.integers(len(centers))]
            angle = rng.uniform(0, 2 * np.pi)
            x, y = x + 1.7 * radius * np.cos(angle), y + 1.7 * radius * np.sin(angle)
        else:
            x, y = rng.uniform(0, width), rng.uniform(0, height)
        axes = radius * rng.uniform(0.7, 1.25, size=2)
        canvas = np.zeros((height, width), np.uint8)
        center = (round(x), round(y))
        cv2.ellipse(
            canvas, center, np.rint(axes).astype(int).tolist(), rng.uniform(0, 180), 0, 360, 1, -1
        )
        free = (canvas == 1) & (labels == 0)
        # A nucleus that would lie mostly under another one is not drawn.
        if free.sum() > 0.75 * max(canvas.sum(), 20):
            labels[free] = len(centers) + 1
            centers.append((x, y))
    return labels


def _blur(array: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(array.astype(np.float32), (0, 0), sigma)


def _texture(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, float32."""
    noise = _blur(rng.standard_normal(shape), sigma)
    return noise / noise.std()


def _per_nucleus(rng: np.random.Generator, labels: np.ndarray, low: float) -> np.ndarray:
    """A brightness from `low` to 1 for every nucleus, 0 on the background."""
    values = rng.uniform(low, 1, labels.max() + 1)
    values[0] = 0
    return values[labels]


def _to_image(array: np.ndarray) -> np.ndarray:
    """Clips to uint8 and makes RGB of grey."""
    array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def _fluorescence(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Bright nuclei on a dark ground."""
    stain = _per_nucleus(rng, labels, 0.35) * (1 + 0.12 * _texture(rng, labels.shape, 2))
    glow = 0.9 * _blur(stain, 1) + 0.1 * _blur(stain, 8)
    noise = rng.normal(0, 3, labels.shape)
    return _to_image(rng.uniform(6, 16) + rng.uniform(110, 200) * glow + noise)


def _histology(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Purple nuclei in pink tissue."""
    tissue = np.array([228, 190, 216]) + _texture(rng, labels.shape, 6)[..., None] * [8, 18, 9]
    purple = np.array([112, 72, 150]) + _texture(rng, labels.shape, 2)[..., None] * [14, 12, 10]
    share = _blur(_per_nucleus(rng, labels, 0.7), 0.8)[..., None]
    return _to_image((1 - share) * tissue + share * purple + rng.normal(0, 4, tissue.shape))


def _brightfield(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Dark nuclei on bright, unevenly lit ground."""
    ramp = np.linspace(-12, 12, labels.shape[1])
    ground = rng.uniform(205, 225) + ramp + 4 * _texture(rng, labels.shape, 10)
    shade = _blur(_per_nucleus(rng, labels, 0.6), 1.2)
    shade *= 1 + 0.15 * _texture(rng, labels.shape, 2)
    return _to_image(ground - 120 * shade + rng.normal(0, 4, labels.shape))


_RENDERERS = {
    "fluorescence": _fluorescence,
    "histology": _histology,
    "brightfield": _brightfield,
}
