"""From an image to its nuclei, in one call."""

import functools
import itertools
import math
import os
from collections.abc import Callable

import keras
import numpy as np

from keras_nuclei.diameters import LARGEST_SCALE, check_size, estimate, model_scale
from keras_nuclei.images import contrast_limits, contrast_sample, normalize
from keras_nuclei.instances import THRESHOLD
from keras_nuclei.maps import (
    as_model_takes,
    check_augmentations,
    check_model,
    label_maps,
    predict_maps,
)
from keras_nuclei.runtimes import fastest
from keras_nuclei.stitching import check_out, label_tiled
from keras_nuclei.tiles import image_shape
from keras_nuclei.tiling import GRID, TILE_SIZE
from keras_nuclei.typing import Sliceable
from keras_nuclei.validation import require_finite, require_number, require_unmasked

LARGEST_WHOLE = 2048
"""Images of more pixels than this squared are labelled in tiles of this height and width. Where the
model sees an image enlarged more than `LARGEST_SCALE` times, it is as much less."""

# Of a wider one, little of a tile would be left between the overlaps.
_WIDEST_GRID = LARGEST_WHOLE // 8


def segment(
    image: Sliceable,
    model: keras.Model | Callable | str = "nuclei_base",
    *,
    diameter: float | None = None,
    scale: float | None = None,
    threshold: float = THRESHOLD,
    augmentations: int = 1,
    tile_size: int = TILE_SIZE,
    progress: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Find the nuclei of an image and number them.

    The contrast is stretched (`keras_nuclei.images.normalize`), the model draws its maps tile by
    tile (`keras_nuclei.tiling.predict_tiled`), and a watershed makes separate nuclei of them
    (`keras_nuclei.instances.label_nuclei`). Of images larger than 2048x2048 pixels (where a `scale`
    above 2 is asked for: so many of the model's, 4096x4096) no more than a tile of that size is in
    memory at once, but for the label map itself (see `out`).

    Args:
        image: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`: grey, RGB or RGBA, of any real
            dtype and range, bright nuclei on dark or dark ones on bright. Anything that can be
            sliced will do, a memory map too.
        model: A name in `keras_nuclei.PRESETS`, which is run by whatever is fastest here
            (`keras_nuclei.runtimes.fastest`); or a model whose output is a dict with the heads
            `"foreground"` and `"distance"`, as that of a preset, and which takes images of three
            channels, or, where they are grey, of one (if it tells by its `input_shape`); or a
            function from float32 batches `(n, height, width, 3)`, 0..255, to such a dict.
        diameter: Of a typical nucleus, in pixels of the image. Nuclei much larger or smaller than
            those that the models know (see `keras_nuclei.diameters.model_scale`) are brought to
            that size on the way.
        scale: In place of `diameter`: how many times larger the model sees the image, 1/64 to 8.
            Where neither is given, the diameter is estimated (see `estimate_diameter`).
        threshold: The probability above which a pixel belongs to a nucleus, above 0 and below 1.
            Lower it where nuclei are drawn too narrow, raise it where they are drawn too wide. The
            default suits the presets. The size is estimated by the default, whatever is given.
        augmentations: Number of copies of the image that the model sees, and whose maps are
            averaged: 1, 4 or 8 flips and turns, 3 sizes, or 12, which is 4 flips in 3 sizes.
            More take about that many times as long and are a little better.
        tile_size: Height and width of what the model sees at once, in pixels; a multiple of 32,
            at least 128. Smaller ones take less memory, and nuclei at their seams may be taken for
            others than they are in the whole image.
        progress: Whether to show a progress bar on stderr.
        out: Array `(H, W)` of int32 or int64 to write to, such as a memory map; None makes one.

    Returns:
        int32 `(H, W)`: 0 background, 1..n one number per nucleus.

    Raises:
        TypeError: If the values of the image, or an argument, are not real numbers.
        ValueError: If the image has another shape, NaN, or masked pixels; if an argument is out of
            its range; if the model lacks a head, or takes grey images and this one is none.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> rows, columns = np.mgrid[:64, :96]
        >>> discs = [(rows - 30) ** 2 + (columns - x) ** 2 < 81 for x in (25, 65)]
        >>> image = np.where(np.any(discs, axis=0), 900, 100).astype("uint16")
        >>> int(keras_nuclei.segment(image, "nuclei_base").max())
        2
    """
    image = _as_image(image)
    if isinstance(model, str):
        model = _preset(model)
    check_model(model)
    check_size(diameter, scale)
    _require_threshold(threshold)
    _require_tile_size(tile_size)
    check_augmentations(augmentations)
    if out is not None:
        check_out(out, image.shape[:2])
    _require_finite(image)
    limits = _limits(image, model)
    if scale is None:
        seen = None
        if diameter is None:
            diameter, seen = estimate(image, model, limits, tile_size)
        scale = model_scale(diameter)
        if not _is_whole(image, scale, out):
            scale = _on_pixels(scale)
        as_estimated = scale == augmentations == 1 and threshold == THRESHOLD and out is None
        if seen is not None and as_estimated:
            return seen  # the estimate has labelled it all

    def label(tile: np.ndarray, progress: bool = False) -> np.ndarray:
        maps = predict_maps(
            normalize(tile, limits=limits),
            model,
            scale=scale,
            augmentations=augmentations,
            tile_size=tile_size,
            progress=progress,
        )
        return label_maps(maps, scale=scale, threshold=threshold)

    if _is_whole(image, scale, out):
        return label(np.asarray(image), progress)
    whole = largest_whole(scale)
    # Of as many pixels of the model's at least, as of the image's.
    overlap = min(whole // 2, round(256 * whole / LARGEST_WHOLE / min(scale, 1)))
    return label_tiled(
        image,
        label,
        tile_size=whole,
        overlap=overlap,
        grid=_grid(scale),
        progress=progress,
        out=out,
    )


def _is_whole(image: Sliceable, scale: float, out: np.ndarray | None) -> bool:
    """Whether an image is labelled at once, not in tiles."""
    return out is None and image.shape[0] * image.shape[1] <= largest_whole(scale) ** 2


def _on_pixels(scale: float) -> float:
    """A scale at which the model's halvings begin on pixels: of 1 and less, within 2 % of it."""
    pixels = round(GRID / scale)
    return GRID / pixels if scale <= 1 and pixels <= _WIDEST_GRID else scale


def _grid(scale: float) -> int:
    """Pixels of the image between places where the model's halvings begin, if those are pixels."""
    pixels = round(GRID / scale)
    return pixels if pixels <= _WIDEST_GRID and math.isclose(pixels * scale, GRID) else 1


def largest_whole(scale: float | None = None) -> int:
    """Height and width of the largest square that `segment` labels as a whole, not in tiles.

    Args:
        scale: As in `segment`.

    Example:
        >>> largest_whole(), largest_whole(scale=8)
        (2048, 512)
    """
    return round(LARGEST_WHOLE * LARGEST_SCALE / max(scale or 1, LARGEST_SCALE))


def estimate_diameter(
    image: Sliceable,
    model: keras.Model | Callable | str = "nuclei_base",
    *,
    tile_size: int = TILE_SIZE,
) -> float:
    """Estimate how large the nuclei of an image are, by looking at it from two distances.

    The model sees the part of the image where most is going on (at most 1024x1024 pixels; where it
    finds no clear nuclei there, one or two other parts too, and the clearest of them counts), as it
    is and at a quarter of the size, and what it draws more clearly counts. Clear is what is surely
    foreground and has a distinct middle: the product of the mean foreground and of the mean, over
    the pixels, of the highest distance in their nucleus. From afar a clump can pass for a large
    nucleus. So what is clearer from there has to stay so where either view is looked at again, at
    the scale at which `segment` would show nuclei of its size; and, where the other view shows
    nuclei too, none of more than 240 pixels are believed, or of more than 7 times their diameter
    (unless they cover less than a twentieth of the area, as specks do): it is mostly clumps that
    measure so much (for how often all that is right, see `benchmarks/diameters.py`).

    Args:
        image: As in `segment`.
        model: As in `segment`.
        tile_size: As in `segment`.

    Returns:
        Diameter in pixels of circles of the area of a typical nucleus, by the median over the
        area, in which debris weighs little. Of an image without nuclei, the smallest diameter that
        is not scaled.

    Raises:
        TypeError: As `segment`.
        ValueError: As `segment`; of NaN, where it is looked at.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> rows, columns = np.mgrid[:256, :256]
        >>> disc = (rows - 120) ** 2 + (columns - 130) ** 2 < 40**2
        >>> 60 < keras_nuclei.segmentation.estimate_diameter(disc, "nuclei_base") < 100
        True
    """
    image = _as_image(image)
    if isinstance(model, str):
        model = _preset(model)
    check_model(model)
    _require_tile_size(tile_size)
    return estimate(image, model, _limits(image, model), tile_size)[0]


@functools.lru_cache(maxsize=2)
def _preset(name: str) -> keras.Model | Callable:
    return fastest(name)


def _as_image(image: Sliceable) -> Sliceable:
    """The image, of whatever kind, if it has the shape of one."""
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"image must be an array; got {image!r}. If that is a path, read it first: "
            "keras_nuclei.images.read_image(path). The image comes before the model."
        )
    require_unmasked(image)
    if not hasattr(image, "shape") or hasattr(image, "iloc"):  # which slices rows and columns
        image = np.asarray(image)
    image_shape(image, grey=True)
    return image


def _require_finite(image: Sliceable) -> None:
    """Refuse NaN in an image of many tiles before the first, and say where it is.

    A smaller one is looked at as a whole, where its contrast is stretched.
    """
    corner = np.asarray(image[:1, :1])
    if corner.dtype.kind != "f" or image.shape[0] * image.shape[1] <= LARGEST_WHOLE**2:
        return
    starts = (range(0, length, LARGEST_WHOLE) for length in image.shape[:2])
    for top, left in itertools.product(*starts):
        window = slice(top, top + LARGEST_WHOLE), slice(left, left + LARGEST_WHOLE)
        require_finite(np.asarray(image[window]), top, left)


def _limits(image: Sliceable, model: keras.Model | Callable) -> tuple[float, float]:
    """`contrast_limits` of an image that may be larger than memory, by the pixels that decide them.

    By the same pixels, colour is refused where the model takes grey images, before the first tile.
    """
    sample = contrast_sample(image)
    limits = contrast_limits(sample)
    if sample.ndim == 3:
        as_model_takes(sample[..., :3], model)  # without alpha
    return limits


def _require_tile_size(tile_size: int) -> None:
    if isinstance(tile_size, bool) or not isinstance(tile_size, int | np.integer):
        raise TypeError(f"tile_size must be a whole number of pixels; got {tile_size!r}.")
    if tile_size < 128 or tile_size % GRID:
        raise ValueError(f"tile_size must be a multiple of {GRID}, at least 128; got {tile_size}.")


def _require_threshold(threshold: float) -> None:
    require_number(threshold=threshold)
    if not 0 < threshold < 1:  # nor is NaN
        raise ValueError(f"threshold must be above 0 and below 1; got {threshold}.")
