"""What the heads of a network learn to draw, from a label map."""

import numpy as np
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
    if "boundary" in names:
        maps["boundary"] = boundary(label_map)
    if {"centre", "flow"} & set(names):
        offsets = to_centroid(label_map)
        maps |= {"centre": centre(label_map, *offsets), "flow": flow(label_map, *offsets[:2])}
    return {name: maps[name].astype(np.float32, copy=False) for name in names}


def boundary(label_map: np.ndarray) -> np.ndarray:
    """1 on the pixels of nuclei that have something else above, below, left or right."""
    return find_boundaries(label_map, connectivity=1, mode="inner")[..., None]


def centre(
    label_map: np.ndarray, down: np.ndarray, right: np.ndarray, diameter: np.ndarray
) -> np.ndarray:
    """A bell around each nucleus's centroid, a fifth of its diameter wide."""
    bell = np.exp(-(down**2 + right**2) / (2 * (0.2 * diameter) ** 2))
    return (bell * (label_map > 0))[..., None]


def flow(label_map: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Direction to the nucleus's centroid, (down, right), from 0 over 0.5 (none) to 1."""
    length = np.maximum(np.hypot(down, right), 1)
    flow = np.stack([down / length, right / length], axis=-1)
    return 0.5 + 0.5 * flow * (label_map > 0)[..., None]


def to_centroid(label_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From each pixel to its nucleus's centroid, down and right; and the nucleus's diameter.

    The background counts as one more nucleus. The numbers are 0..n without gaps.
    """
    numbers = label_map.ravel()
    # Of an image that is covered whole, the background has none.
    area = np.maximum(np.bincount(numbers), 1)
    down, right = (
        (np.bincount(numbers, places.ravel()) / area)[label_map] - places
        for places in np.indices(label_map.shape)
    )
    return down, right, 2 * np.sqrt(area / np.pi)[label_map]
