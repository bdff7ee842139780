"""What the heads of a network learn to draw, from a label map."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.segmentation import find_boundaries

from keras_nuclei import instances

CHANNELS = {"foreground": 1, "boundary": 1, "distance": 1, "centre": 1, "flow": 2}
"""Maps that can be learned, and the channels of each. All values are in 0..1."""


def draw(label_map: np.ndarray, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Draw the maps of a label map.

    Args:
        label_map: int `(H, W)`.
        names: Of `CHANNELS`.

    Returns:
        float32 `(H, W, channels)` by name.
    """
    present = np.bincount(label_map.ravel(), minlength=1) > 0
    present[0] = False
    label_map = np.cumsum(present)[label_map] * (label_map > 0)  # 0..n without gaps
    maps = {}
    if {"foreground", "distance"} & set(names):
        maps |= instances.draw_maps(label_map)
    drawers = {"boundary": boundary, "centre": centre, "flow": flow}
    maps |= {name: drawers[name](label_map).astype(np.float32) for name in names if name in drawers}
    return {name: maps[name] for name in names}


def boundary(label_map: np.ndarray) -> np.ndarray:
    """1 on the pixels of nuclei that have something else above, below, left or right."""
    return find_boundaries(label_map, connectivity=1, mode="inner")[..., None]


def centre(label_map: np.ndarray) -> np.ndarray:
    """A bell around each nucleus's centroid, a fifth of its diameter wide."""
    down, right, diameter = to_centroid(label_map)
    bell = np.exp(-(down**2 + right**2) / (2 * (0.2 * diameter) ** 2))
    return (bell * (label_map > 0))[..., None]


def flow(label_map: np.ndarray) -> np.ndarray:
    """Direction to the nucleus's centroid, (down, right), from 0 over 0.5 (none) to 1."""
    down, right, _ = to_centroid(label_map)
    length = np.maximum(np.hypot(down, right), 1)
    flow = np.stack([down / length, right / length], axis=-1)
    return 0.5 + 0.5 * flow * (label_map > 0)[..., None]


def to_centroid(label_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From each pixel to its nucleus's centroid, down and right; and the nucleus's diameter."""
    rows, columns = np.indices(label_map.shape)
    area = per_nucleus(ndimage.sum_labels, np.ones(label_map.shape), label_map)
    down = per_nucleus(ndimage.mean, rows, label_map) - rows
    right = per_nucleus(ndimage.mean, columns, label_map) - columns
    return down, right, 2 * np.sqrt(area / np.pi)


def per_nucleus(statistic: Callable, values: np.ndarray, label_map: np.ndarray) -> np.ndarray:
    """A statistic of each nucleus, by a function of `scipy.ndimage`, at its pixels; 1 outside.

    The nuclei are numbered 1..n without gaps.
    """
    numbers = np.arange(1, label_map.max() + 1)
    table = np.ones(len(numbers) + 1)
    if len(numbers):
        table[1:] = statistic(values, label_map, numbers)
    return table[label_map]
