"""From the maps that a network draws to a label map: nuclei that touch become separate.

And from a label map to the maps that a network is to learn to draw.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from keras_nuclei.typing import ArrayLike
from keras_nuclei.validation import as_label_map, require_number

THRESHOLD, SEED_THRESHOLDS, SMOOTHING = 0.55, (0.5,), 1.5
"""How nuclei are made of maps if nobody says otherwise; chosen for the presets by
`benchmarks/separation.py`."""


def label_nuclei(
    foreground: np.ndarray,
    distance: np.ndarray,
    *,
    threshold: float = THRESHOLD,
    seed_thresholds: Sequence[float] = SEED_THRESHOLDS,
    smoothing: float = SMOOTHING,
    min_seed_area: int = 8,
    sure: float = 0.8,
    min_area: int = 12,
) -> np.ndarray:
    """Number the nuclei, one by one, by a watershed that starts in their middles.

    The middle of a nucleus, its seed, is where `distance` is high; touching nuclei have a valley
    between them. Some valleys are shallow: a seed that a higher threshold breaks into several is
    so many seeds. From the seeds the numbers flood the foreground, the highest distance first
    (`skimage.segmentation.watershed`), and meet in the valleys. A piece of foreground without a
    seed is one nucleus if the network is sure of it, else it is dropped.

    The defaults are those of `keras_nuclei.segment`. Of maps that a model drew at another scale,
    `keras_nuclei.maps.label_maps` makes nuclei, which counts in the model's pixels.

    Args:
        foreground: Probability that a pixel lies in a nucleus, `(H, W)` or `(H, W, 1)`, 0..1.
        distance: How deep a pixel lies in its nucleus, of the same shape: 0 at the rim, 1 in the
            middle.
        threshold: Pixels with a higher probability are foreground; 0..1.
        seed_thresholds: Pixels with a distance above the lowest are seeds, neighbours the same
            one, but for those that pixels above a higher threshold break up.
        smoothing: Standard deviation in pixels of the Gaussian that `distance` is smoothed with
            first, so that a nucleus has one middle; 0 for none.
        min_seed_area: Seeds of fewer pixels are noise.
        sure: Least mean probability of a piece of foreground that is kept without a seed, of those
            of its pixels that are nucleus rather than not: the rest, which a low threshold lets in,
            does not speak against it.
        min_area: Nuclei of fewer pixels are dropped.

    Returns:
        int32 `(H, W)`: 0 background, 1..n the nuclei.

    Raises:
        TypeError: If `threshold` or `smoothing` is no number, or `seed_thresholds` no list of them.
        ValueError: If the maps are not of one shape `(H, W)`, or not in 0..1; if a threshold is not
            in 0..1, there is none for seeds, or `smoothing` is below 0 or not finite.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> distance = np.float32([[0.4, 1, 0.6, 0.3, 0.6, 1, 0.4]] * 8)
        >>> label_map = keras_nuclei.instances.label_nuclei(
        ...     np.ones((8, 7)), distance, smoothing=0
        ... )
        >>> label_map[0].tolist()
        [1, 1, 1, 1, 2, 2, 2]
    """
    foreground, distance = _as_map(foreground, "foreground"), _as_map(distance, "distance")
    if foreground.shape != distance.shape:
        raise ValueError(
            "foreground and distance must have one shape; got "
            f"{foreground.shape} and {distance.shape}."
        )
    _require_settings(threshold, seed_thresholds, smoothing)
    inside = foreground > threshold
    if smoothing:
        distance = _smooth(distance, smoothing)
    highest, *others = sorted(seed_thresholds, reverse=True)
    seeds = _drop_small((distance > highest) & inside, min_seed_area)
    for level in others:
        pieces = _drop_small((distance > level) & inside, min_seed_area)
        seeds = _add_where_none(seeds, pieces, np.ones(pieces.max() + 1, bool))
    pieces, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    seeds = _seed_sure_pieces(seeds, pieces, foreground, sure)
    return _renumber(_flood(seeds, pieces, distance), min_area)


def draw_maps(label_map: ArrayLike) -> dict[str, np.ndarray]:
    """Draw the maps that `label_nuclei` makes nuclei of: what a model learns to draw.

    The foreground is 1 in nuclei. The distance of a pixel x in a nucleus N is

        (1 + d(x)) / (1 + max of d over N)

    with d the Euclidean distance, in pixels, to the nearest pixel at the rim of a nucleus: one
    that has something else above, below, left or right of it, if only another nucleus. So it is 1
    in the middle of a nucleus of any size (of one in several pieces, of the thickest alone), and
    there is a valley between two that touch. Where the
    image ends no rim is: the rest of the nucleus lies beyond. (d is OpenCV's 5x5 chamfer distance,
    exact to 3 %.)

    `unet(heads={"foreground": 1, "distance": 1})` draws such maps, by sigmoids, and learns both by
    `"binary_crossentropy"`; then `keras_nuclei.segment` takes it. What it should learn from are
    images as `segment` shows them: of the contrast of `keras_nuclei.images.normalize` (for a model
    of grey images, one of its three equal channels), with nuclei of 26 to 50 pixels across.

    Args:
        label_map: Integers `(H, W)`, 0 background, one number per nucleus; numbers may be missing.
            A mask is none, be it of integers: number its nuclei with `skimage.measure.label`.

    Returns:
        `"foreground"` and `"distance"`, each float32 `(H, W, 1)`, 0..1; 0 in the background.

    Raises:
        TypeError: If `label_map` does not hold integers.
        ValueError: If it is not `(H, W)`, has no pixels, or negative numbers.

    Example:
        >>> import keras_nuclei
        >>> label_map = [[1, 1, 1, 1, 0, 7]] * 6
        >>> maps = keras_nuclei.instances.draw_maps(label_map)
        >>> maps["distance"][3, :, 0].round(2).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0, 1.0]
        >>> keras_nuclei.instances.label_nuclei(**maps, smoothing=0, min_area=1)[3].tolist()
        [1, 1, 1, 1, 0, 2]
    """
    from skimage.segmentation import find_boundaries, relabel_sequential  # as in `label_nuclei`

    labels = as_label_map(label_map)
    foreground = labels > 0
    if not labels.size:
        raise ValueError(f"label_map must have pixels; got the shape {labels.shape}.")
    if labels.max() > labels.size:  # below is a table of as many rows
        labels = relabel_sequential(labels)[0]
    inner = foreground & ~find_boundaries(labels, connectivity=1, mode="inner")
    depth = cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5) + 1
    deepest = np.ones(int(labels.max()) + 1, depth.dtype)  # of uint8, 255 + 1 would be 0
    # Of one type, they are compared without a copy of each; ndimage.maximum sorts all pixels.
    np.maximum.at(deepest, labels.ravel(), depth.ravel())
    maps = {"foreground": foreground, "distance": depth * foreground / deepest[labels]}
    return {name: values[..., None].astype(np.float32) for name, values in maps.items()}


def _require_settings(threshold: float, seed_thresholds: Sequence[float], smoothing: float) -> None:
    levels = np.asarray(seed_thresholds)
    if levels.ndim == 1 and not levels.size:
        raise ValueError("seed_thresholds must hold one number or more; got none.")
    if levels.ndim != 1 or levels.dtype.kind not in "iuf":
        raise TypeError(f"seed_thresholds must be a list of numbers; got {seed_thresholds!r}.")
    require_number(threshold=threshold, smoothing=smoothing)
    for name, values in (("threshold", threshold), ("seed_thresholds", levels)):
        if not (np.min(values) >= 0 and np.max(values) <= 1):  # nor is NaN
            raise ValueError(f"{name} must be in 0..1, as the maps are; got {values}.")
    if not (np.isfinite(smoothing) and smoothing >= 0):
        raise ValueError(f"smoothing must be a number of pixels, 0 or above; got {smoothing}.")


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """As `scipy.ndimage.gaussian_filter`, in a fraction of its time."""
    side = 2 * round(4 * sigma) + 1  # SciPy, too, leaves out what lies beyond four deviations
    return cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REFLECT)


def _flood(seeds: np.ndarray, pieces: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Flood each piece of the foreground with the numbers of its seeds, the deepest pixels first.

    The watershed keeps the pixels whose turn is to come in one queue, which is slow where it is
    long, and where pixels follow each other that are far apart in memory. So the inside of a seed,
    from which nothing floods, is left out and filled in at the end; and one piece comes after the
    other, which changes nothing but the time, since no flood leaves its piece.

    Args:
        seeds: int32 `(H, W)`, 0 where none is; all within pieces.
        pieces: int32 `(H, W)`: the foreground, numbered where pixels touch, if only at corners.
        distance: float32 `(H, W)`, 0..1.

    Returns:
        int32 `(H, W)`, 0 where no seed's flood comes.
    """
    from skimage.segmentation import watershed  # takes a second to import

    within = cv2.erode((seeds > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    # A thousandth of a nucleus's depth is enough: a piece has its turn within fewer than 2000.
    # Floats, as the watershed makes of them in any case: int32 would not hold them of all pieces.
    order = 2000.0 * pieces - np.round(distance * 1000)
    label_map = watershed(order, seeds, connectivity=2, mask=(pieces > 0) & ~within)
    return np.where(within, seeds, label_map)


def _seed_sure_pieces(
    seeds: np.ndarray, pieces: np.ndarray, foreground: np.ndarray, sure: float
) -> np.ndarray:
    """Make seeds of the pieces of the foreground that hold none and are probable."""
    rather = foreground > 0.5
    numbers = pieces[rather]
    areas = np.bincount(numbers, minlength=pieces.max() + 1)
    sums = np.bincount(numbers, foreground[rather], len(areas))
    return _add_where_none(seeds, pieces, sums > sure * areas)


def _add_where_none(seeds: np.ndarray, pieces: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Add to the seeds, under numbers of their own, those wanted pieces that hold none."""
    added = wanted.copy()
    added[0] = False
    added[pieces[seeds > 0]] = False
    if not added.any():  # mostly so, and to look up every pixel takes long
        return seeds
    return np.where(added[pieces], pieces + seeds.max(), seeds)


def _drop_small(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Number the connected pieces of a mask, but for those of fewer pixels."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return _renumber(pieces, min_area)


def _renumber(label_map: np.ndarray, min_area: int) -> np.ndarray:
    """Drop what has fewer pixels, and close the gaps in the numbers."""
    inside = label_map > 0  # most pixels are not, and to look up every pixel takes long
    numbers = label_map[inside]
    kept = np.bincount(numbers, minlength=1) >= min_area
    if kept[1:].all():
        return label_map.astype(np.int32, copy=False)
    kept[0] = False
    renumbered = np.zeros(label_map.shape, np.int32)
    renumbered[inside] = np.where(kept, np.cumsum(kept), 0)[numbers]
    return renumbered


def _as_map(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, "float32")
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name} must have the shape (H, W) or (H, W, 1); got {values.shape}.")
    # Averages of probabilities, as of tiles, may leave 0..1 by rounding.
    if not (values.min() >= -1e-3 and values.max() <= 1 + 1e-3):
        raise ValueError(
            f"{name} must have values in 0..1, and no NaN; got {values.min()}..{values.max()}. "
            "Does the model return logits? Pass them through a sigmoid."
        )
    return values
