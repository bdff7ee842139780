"""From an image to its nuclei, in one call."""

import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np
from scipy.ndimage import uniform_filter

from keras_nuclei.images import contrast_limits, normalize
from keras_nuclei.instances import SEED_THRESHOLDS, SMOOTHING, THRESHOLD, label_nuclei
from keras_nuclei.runtimes import fastest
from keras_nuclei.stitching import check_out, label_tiled
from keras_nuclei.tiles import image_shape
from keras_nuclei.tiling import input_shape, predict_tiled
from keras_nuclei.typing import Sliceable
from keras_nuclei.validation import require_number

_logger = logging.getLogger(__name__)

LARGEST_WHOLE = 2048
"""Images of more pixels than this squared are labelled in tiles of this height and width; smaller
ones where the model sees them enlarged more than `LARGEST_SCALE` times."""

SMALLEST_DIAMETER, LARGEST_DIAMETER = 26, 50
"""Of the nuclei that a model is shown, in pixels. Smaller and larger ones are brought there, before
the sizes of `VIEWS`; what others are worth is measured by `benchmarks/sizes.py`."""

LARGEST_SCALE = 2
"""Nothing is gained by showing an image larger than that."""

SMALLEST_SCALE, LARGEST_ASKED_SCALE = 1 / 64, 8
"""What may be asked for as `scale`. Beyond, the model would be shown nothing, or nothing new."""

FAR = 0.25
"""The scale at which large nuclei are looked for."""

CLUMP = 60
"""What measures more pixels at that scale is a clump, where nuclei are seen at scale 1, too."""

FAR_MARGIN = 1.0
"""How many times clearer nuclei must show there to be taken for large ones."""

CLEAR = 0.6
"""Where nuclei show less clearly, other parts of the image are looked at, too. Of the views of
validation images that `benchmarks/diameters.py` makes all are clearer; specks of noise are not."""

VIEWS = {
    1: (1, (1.0,)),
    3: (1, (0.8, 1.0, 1.25)),
    4: (4, (1.0,)),
    8: (8, (1.0,)),
    12: (4, (0.8, 1.0, 1.25)),
}
"""What each number of augmentations means. First, how many flips and turns of an image a model sees
(as in `keras_nuclei.tiling.predict_tiled`); then, by what factors of the scale each is shown."""

SAMPLED_PIXELS = 2**21
"""About how many pixels of an image, or fewer, decide how its contrast is stretched."""


def segment(
    image: Sliceable,
    model: keras.Model | Callable | str = "nuclei_base",
    *,
    diameter: float | None = None,
    scale: float | None = None,
    threshold: float = THRESHOLD,
    augmentations: int = 1,
    tile_size: int = 512,
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
            those that the models know (see `model_scale`) are brought to that size on the way.
        scale: In place of `diameter`: how many times larger the model sees the image, 1/64 to 8.
            Where neither is given, the diameter is estimated (see `estimate_diameter`).
        threshold: The probability above which a pixel belongs to a nucleus, above 0 and below 1.
            Lower it where nuclei are drawn too narrow, raise it where they are drawn too wide. The
            default suits the presets. The size is estimated by the default, whatever is given.
        augmentations: Number of copies of the image that the model sees, and whose maps are
            averaged: 1, 4 or 8 flips and turns, 3 sizes, or 12, which is 4 flips in 3 sizes.
            More take about that many times as long and are a little better.
        tile_size: Height and width of what the model sees at once, in pixels; a multiple of 32,
            at least 128.
        progress: Whether to show a progress bar on stderr.
        out: Array `(H, W)` of int32 or int64 to write to, such as a memory map; None makes one.

    Returns:
        int32 `(H, W)`: 0 background, 1..n one number per nucleus.

    Raises:
        TypeError: If the values of the image, or an argument, are not real numbers.
        ValueError: If the image has another shape, or NaN; if an argument is out of its range; if
            the model lacks a head, or takes grey images and this one is none.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> rows, columns = np.mgrid[:64, :96]
        >>> discs = [(rows - 30) ** 2 + (columns - x) ** 2 < 81 for x in (25, 65)]
        >>> image = np.where(np.any(discs, axis=0), 900, 100).astype("uint16")
        >>> int(keras_nuclei.segment(image, "nuclei_base").max())
        2
    """
    if isinstance(model, str):
        model = _preset(model)
    check_model(model)
    image = _as_image(image)
    check_size(diameter, scale)
    _require_threshold(threshold)
    _require_tile_size(tile_size)
    _require_augmentations(augmentations)
    if out is not None:
        check_out(out, image.shape[:2])
    _require_finite(image)
    limits = _limits(image, model)
    if scale is None:
        seen = None
        if diameter is None:
            diameter, seen = _estimate(image, model, limits, tile_size)
        scale = model_scale(diameter)
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

    whole = round(LARGEST_WHOLE * LARGEST_SCALE / max(scale, LARGEST_SCALE))
    if image.shape[0] * image.shape[1] <= whole**2 and out is None:
        return label(np.asarray(image), progress)
    overlap = min(whole // 2, round(256 / min(scale, 1)))
    return label_tiled(image, label, tile_size=whole, overlap=overlap, progress=progress, out=out)


def model_scale(
    diameter: float,
    shown: tuple[float, float] = (SMALLEST_DIAMETER, LARGEST_DIAMETER),
) -> float:
    """How many times larger a model should see an image whose nuclei are of a diameter.

    The presets know nuclei of 10 to 70 pixels, and are shown those of 26 to 50.

    Args:
        diameter: Of a typical nucleus, in pixels of the image.
        shown: The smallest and the largest diameter that the model should see, in pixels.

    Returns:
        A factor of at most 2; 1 for nuclei whose diameter is in `shown`.

    Raises:
        TypeError: If the diameter is no number.
        ValueError: If it is not positive, or too large.

    Example:
        >>> model_scale(30), model_scale(100), model_scale(20)
        (1.0, 0.5, 1.3)
    """
    check_size(diameter=diameter)
    smallest, largest = shown
    seen = min(max(diameter, smallest), largest)
    return float(min(seen / diameter, LARGEST_SCALE))


def estimate_diameter(
    image: Sliceable,
    model: keras.Model | Callable | str = "nuclei_base",
    *,
    tile_size: int = 512,
) -> float:
    """Estimate how large the nuclei of an image are, by looking at it from two distances.

    The model sees the part of the image where most is going on (at most 1024x1024 pixels; where it
    finds no clear nuclei there, one or two other parts too, and the clearest of them counts), as it
    is and at a quarter of the size, and what it draws more clearly counts. Clear is what is surely
    foreground and has a distinct middle: the product of the mean foreground and of the mean, over
    the pixels, of the highest distance in their nucleus. From afar a clump can pass for a large
    nucleus. So what is clearer from there has to stay so where either view is looked at again, at
    the scale at which `segment` would show nuclei of its size; and, where the other view shows
    nuclei too, none of more than 240 pixels are believed: 60 from afar, where it is mostly clumps
    that measure so much (for how often all that is right, see `benchmarks/diameters.py`).

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
        ValueError: As `segment`.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> rows, columns = np.mgrid[:256, :256]
        >>> disc = (rows - 120) ** 2 + (columns - 130) ** 2 < 40**2
        >>> 60 < keras_nuclei.segmentation.estimate_diameter(disc, "nuclei_base") < 100
        True
    """
    if isinstance(model, str):
        model = _preset(model)
    check_model(model)
    image = _as_image(image)
    _require_tile_size(tile_size)
    return _estimate(image, model, _limits(image, model), tile_size)[0]


def _as_image(image: Sliceable) -> Sliceable:
    """The image, of whatever kind, if it has the shape of one."""
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"image must be an array; got the path {image!r}. Read it first: "
            "keras_nuclei.images.read_image(path)."
        )
    if not hasattr(image, "shape"):
        image = np.asarray(image)
    image_shape(image, grey=True)
    return image


def _require_finite(image: Sliceable, rows: int = 256) -> None:
    """Refuse NaN in an image of many tiles before the first, and say where it is.

    A smaller one is looked at as a whole, where its contrast is stretched.
    """
    corner = np.asarray(image[:1, :1])
    if corner.dtype.kind != "f" or image.shape[0] * image.shape[1] <= LARGEST_WHOLE**2:
        return
    for top in range(0, image.shape[0], rows):
        finite = np.isfinite(np.asarray(image[top : top + rows]))
        if not finite.all():
            row, column, *_ = np.argwhere(~finite)[0]
            raise ValueError(
                f"The image holds NaN or infinity, first seen in row {top + row}, column {column}. "
                "Replace it first, for instance with np.nan_to_num(image, posinf=..., neginf=...)."
            )


def _limits(image: Sliceable, model: keras.Model | Callable) -> tuple[float, float]:
    """`contrast_limits` of an image that may be larger than memory: of a grid of its pixels.

    By the same grid, colour is refused where the model takes grey images, before the first tile.
    """
    step = max(1, math.isqrt(math.prod(image.shape[:2]) // SAMPLED_PIXELS))
    sample = np.asarray(image[::step, ::step] if step > 1 else image)
    limits = contrast_limits(sample)
    if sample.ndim == 3:
        _as_model_takes(sample[..., :3], model)  # without alpha
    return limits


def _estimate(
    image: Sliceable, model: keras.Model | Callable, limits: tuple[float, float], tile_size: int
) -> tuple[float, np.ndarray | None]:
    """The diameter, and the label map at scale 1 where it is of the whole image."""
    clearest = 0.0
    for window in _busiest_windows(image, limits):
        pixels = normalize(np.asarray(image[window]), limits=limits)
        # A second look is often at a scale that has been looked at.
        look_at = functools.cache(functools.partial(look, pixels, model, tile_size=tile_size))
        near, far = look_at(scale=1), look_at(scale=FAR)
        clarity = max(near.clarity, far.clarity)
        if not clearest or clarity > clearest:
            clearest, best = clarity, (near, far, look_at)
        if clearest >= CLEAR:
            break
    near, far, look_at = best
    if not clearest:
        _logger.info("No nuclei to estimate a diameter from: took %s.", near.diameter)
    chosen = choose(near, far, lambda view: look_at(scale=model_scale(view.diameter)))
    whole = near.label_map.shape == tuple(image.shape[:2])
    return chosen.diameter, near.label_map if whole else None


class Look(NamedTuple):
    """What a model makes of an image at a scale.

    Attributes:
        clarity: How clearly nuclei show, 0..1.
        diameter: Of a typical one, in pixels of the image at scale 1.
        label_map: At this scale.

    Example:
        >>> Look(clarity=0.8, diameter=12.0, label_map=np.zeros((2, 3), int)).label_map.shape
        (2, 3)
    """

    clarity: float
    diameter: float
    label_map: np.ndarray


def look(
    image: np.ndarray, model: keras.Model | Callable, *, scale: float, tile_size: int = 512
) -> Look:
    """Look for nuclei in an image at a scale.

    Args:
        image: `(H, W, 3)`, values 0..255.
        model: As in `segment`.
        scale: As in `segment`.
        tile_size: As in `segment`.

    Returns:
        How clear the nuclei are (see `estimate_diameter`), how large, and where. Without nuclei the
        clarity is 0, and the diameter the smallest that is not scaled.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.from_preset("nuclei_base")
        >>> look(np.zeros((50, 40, 3)), model, scale=0.5)[:2]
        (0.0, 26.0)
    """
    image = resize(image, scaled_size(image.shape[:2], scale))
    maps = predict_maps(image, model, tile_size=tile_size)
    label_map = label_maps(maps)
    areas = np.bincount(label_map.ravel())[1:]
    if not len(areas):
        return Look(0.0, float(SMALLEST_DIAMETER), label_map)
    certainty = maps["foreground"][label_map > 0].mean()
    middles = np.zeros(len(areas) + 1, "float32")
    np.maximum.at(middles, label_map.ravel(), maps["distance"].ravel())
    clarity = certainty * np.average(middles[1:], weights=areas)
    return Look(float(clarity), typical_diameter(areas) / scale, label_map)


def choose(
    near: Look, far: Look, look_again: Callable[[Look], Look], margin: float = FAR_MARGIN
) -> Look:
    """Of the looks at scale 1 and from afar, the one that shows the nuclei as they are.

    Args:
        near: At scale 1.
        far: At the scale `FAR`.
        look_again: Looks at the scale that fits the diameter of a look. It is called only where the
            nuclei may be large.
        margin: How many times clearer they must show from afar, and again, to be so.

    Example:
        >>> near, far = Look(0.80, 12.0, None), Look(0.82, 150.0, None)
        >>> choose(near, far, lambda look: look).diameter
        150.0
        >>> again = {12.0: Look(0.9, 13.0, None), 150.0: Look(0.7, 90.0, None)}
        >>> choose(near, far, lambda look: again[look.diameter]).diameter
        12.0
        >>> choose(near, Look(0.95, 400.0, None), lambda look: look).diameter  # a clump
        12.0
    """
    too_large = far.diameter > CLUMP / FAR and near.clarity > 0
    if too_large or far.clarity <= margin * near.clarity:
        return near
    return far if look_again(far).clarity > margin * look_again(near).clarity else near


def typical_diameter(areas: np.ndarray) -> float:
    """Diameter of a circle of the area of a typical nucleus: half of all area lies in smaller ones.

    Example:
        >>> round(typical_diameter(np.array([3, 1, 314, 2])), 1)  # debris weighs little
        20.0
    """
    areas = np.sort(areas)
    typical = areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)]
    return float(2 * np.sqrt(typical / np.pi))


def _busiest_windows(
    image: Sliceable, limits: tuple[float, float], size: int = 1024, count: int = 3
) -> Iterator[tuple[slice, slice]]:
    """The squares of at most `size` pixels whose values differ most, by a coarse look.

    Values are clipped to the limits of contrast: glare is no busier than nuclei.
    """
    height, width = image.shape[:2]
    if max(height, width) <= size:
        yield slice(0, height), slice(0, width)
        return
    step = max(1, max(height, width) // 512)
    coarse = np.clip(np.asarray(image[::step, ::step], "float64"), *limits)
    coarse = coarse.reshape(*coarse.shape[:2], -1).mean(axis=-1)
    reach = max(1, size // step)
    variance = uniform_filter(coarse**2, reach) - uniform_filter(coarse, reach) ** 2
    for _ in range(count):
        centre = np.unravel_index(np.argmax(variance), variance.shape)
        top, left = (
            min(max(0, int(middle) * step - size // 2), max(0, length - size))
            for middle, length in zip(centre, (height, width), strict=True)
        )
        yield slice(top, top + size), slice(left, left + size)
        # The next one is to have little in common with this one.
        near = 3 * reach // 4
        variance[tuple(slice(max(0, at - near), at + near + 1) for at in centre)] = -1
        if variance.max() < 0:
            return


def _require_tile_size(tile_size: int) -> None:
    if isinstance(tile_size, bool) or not isinstance(tile_size, int | np.integer):
        raise TypeError(f"tile_size must be a whole number of pixels; got {tile_size!r}.")
    if tile_size < 128 or tile_size % 32:
        raise ValueError(f"tile_size must be a multiple of 32, at least 128; got {tile_size}.")


def check_size(diameter: float | None = None, scale: float | None = None) -> None:
    """Refuse what `segment` can't take as the size of nuclei.

    Args:
        diameter: As in `segment`.
        scale: As in `segment`.

    Raises:
        TypeError: If one is no number.
        ValueError: If both are given, or one is out of its range.

    Example:
        >>> check_size(scale=100)
        Traceback (most recent call last):
        ...
        ValueError: scale must be in 1/64..8; got 100. It says how many times larger the model
        sees the image; the size of the nuclei in pixels is diameter.
    """
    if diameter is not None and scale is not None:
        raise ValueError(f"Pass either diameter or scale; got {diameter} and {scale}.")
    for name, value in (("diameter", diameter), ("scale", scale)):
        if value is None:
            continue
        require_number(**{name: value})
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number; got {value}.")
    if scale is not None and not SMALLEST_SCALE <= scale <= LARGEST_ASKED_SCALE:
        raise ValueError(
            f"scale must be in 1/64..{LARGEST_ASKED_SCALE}; got {scale}. It says how many times "
            "larger the model sees the image; the size of the nuclei in pixels is diameter."
        )
    if diameter is not None and diameter > LARGEST_DIAMETER / SMALLEST_SCALE:
        raise ValueError(
            f"diameter must be at most {LARGEST_DIAMETER / SMALLEST_SCALE:.0f} pixels; got "
            f"{diameter}. Make the image smaller first."
        )


def check_model(model: keras.Model | Callable) -> None:
    """Refuse a model that can't draw what nuclei are made of, as far as it tells beforehand.

    Args:
        model: As in `segment`, but no name.

    Raises:
        TypeError: If it is neither a model nor a function.
        ValueError: If it is a Keras model that lacks a head, has one of several channels, has
            several inputs, or takes images of another number of channels than one or three.

    Example:
        >>> import keras_nuclei
        >>> check_model(keras_nuclei.unet(heads={"foreground": 1, "distance": 1}))
    """
    if not callable(model):
        raise TypeError(
            "model must be a name in keras_nuclei.PRESETS, a Keras model or a function; got "
            f"{model!r}. A model in a file is loaded first: keras.saving.load_model(path)."
        )
    if not isinstance(model, keras.Model):
        return  # a function does not tell
    output, inputs = getattr(model, "output", None), getattr(model, "inputs", None)
    # Of what is made of layers; of other models Keras makes a list of the outputs, or nothing.
    if output is not None and not isinstance(output, list):
        _require_heads(output)
    if inputs is not None and len(inputs) != 1:
        raise ValueError(f"The model must have one input, the image; it has {len(inputs)}.")
    *_, channels = input_shape(model)
    if channels not in (None, 1, 3):
        raise ValueError(
            f"The model takes images of {channels} channels; segment can show it grey ones, of 1, "
            "or RGB, of 3. For others, call predict_tiled, and make nuclei of the maps with "
            "keras_nuclei.segmentation.label_maps."
        )


def _as_model_takes(image: np.ndarray, model: keras.Model | Callable) -> np.ndarray:
    """The image, of one channel where the model takes grey ones."""
    if input_shape(model)[-1] != 1:
        return image
    if (image != image[..., :1]).any():
        raise ValueError(
            "The model takes grey images, of 1 channel; this one is in colour. Choose the "
            "channel that shows the nuclei: image[..., channel], or --channel of the command."
        )
    return image[..., :1]


def _require_threshold(threshold: float) -> None:
    require_number(threshold=threshold)
    if not 0 < threshold < 1:  # nor is NaN
        raise ValueError(f"threshold must be above 0 and below 1; got {threshold}.")


def _require_augmentations(augmentations: int) -> None:
    require_number(augmentations=augmentations)
    if augmentations not in VIEWS:
        *most, last = VIEWS
        expected = f"{', '.join(map(str, most))} or {last}"
        raise ValueError(f"augmentations must be {expected}; got {augmentations!r}.")


def _require_heads(maps: Any) -> dict[str, Any]:
    """The maps, or what stands for them in a model, if they are those that nuclei are made of."""
    if isinstance(maps, dict) and {"foreground", "distance"} <= maps.keys():
        for name in ("foreground", "distance"):
            channels = maps[name].shape[-1]
            if channels not in (None, 1):
                raise ValueError(
                    f"The model's head {name!r} must have 1 channel; it has {channels}."
                )
        return maps
    found = sorted(maps) if isinstance(maps, dict) else "outputs without names"
    raise ValueError(
        "The model must return a dict with the heads 'foreground' and 'distance', as "
        "keras_nuclei.unet(heads={'foreground': 1, 'distance': 1}) does; it returns "
        f"{found}. For other heads, call predict_tiled and separate the nuclei yourself."
    )


@functools.lru_cache(maxsize=2)
def _preset(name: str) -> keras.Model | Callable:
    return fastest(name)


def predict_maps(
    image: np.ndarray,
    model: keras.Model | Callable,
    *,
    scale: float = 1.0,
    augmentations: int = 1,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Let a model draw its maps of an image that it sees larger or smaller than it is.

    Args:
        image: `(H, W, 3)`, values 0..255.
        model: As in `segment`.
        scale: As in `segment`.
        augmentations: As in `segment`; what each number means is `VIEWS`.
        **options: Of `keras_nuclei.tiling.predict_tiled`.

    Returns:
        The model's heads by name, float32 `(H, W, channels)` of the size of the image.

    Raises:
        ValueError: If the model lacks a head that `segment` needs, or takes grey images and this
            one is none; or if `augmentations` is a number that `VIEWS` lacks.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.from_preset("nuclei_base")
        >>> maps = keras_nuclei.segmentation.predict_maps(np.zeros((50, 40, 3)), model, scale=0.5)
        >>> maps["foreground"].shape
        (50, 40, 1)
    """
    _require_augmentations(augmentations)
    symmetries, zooms = VIEWS[augmentations]
    size = image.shape[:2]
    image = _as_model_takes(image, model)
    drawn = []
    for zoom in zooms:
        seen = resize(image, scaled_size(size, scale * zoom))
        # Of a function one knows no sooner what it returns.
        maps = _require_heads(predict_tiled(seen, model, augmentations=symmetries, **options))
        drawn.append({name: resize(values, size) for name, values in maps.items()})
    if len(drawn) == 1:
        return drawn[0]
    return {name: np.mean([maps[name] for maps in drawn], axis=0) for name in drawn[0]}


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image that a model sees so many times larger, at least 1 each.

    Args:
        size: Height and width, in pixels.
        scale: As in `segment`.

    Returns:
        Height and width, in pixels.

    Example:
        >>> scaled_size((256, 321), 0.5)
        (128, 160)
    """
    height, width = (max(1, round(length * scale)) for length in size)
    return height, width


def resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to what a model sees, or a model's map to the size of the image.

    Smaller, a pixel becomes the mean of those it covers; larger, it lies between its neighbours.

    Args:
        values: Of any real dtype, `(H, W, C)`.
        size: Height and width that are wanted.

    Returns:
        float32 `(*size, C)`; the values themselves where they have that size.

    Example:
        >>> resize(np.array([[[0.0], [4.0]]]), (1, 1))
        array([[[2.]]], dtype=float32)
    """
    if values.shape[:2] == size:
        return values
    smaller = math.prod(size) < math.prod(values.shape[:2])
    resized = cv2.resize(
        np.asarray(values, "float32"),
        size[::-1],
        interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
    )
    return resized.reshape(*size, -1)


def label_maps(
    maps: dict[str, np.ndarray],
    *,
    scale: float = 1.0,
    threshold: float = THRESHOLD,
    seed_thresholds: Sequence[float] = SEED_THRESHOLDS,
    smoothing: float = SMOOTHING,
) -> np.ndarray:
    """Make nuclei of the maps that a model drew at a scale, as `segment` does.

    The model's pixels count: by so many is smoothed, a seed has at least 8, a nucleus at least 12.
    Where the model saw the image enlarged, the areas are those of the image.

    Args:
        maps: As `predict_maps` returns them.
        scale: As in `predict_maps`.
        threshold: As in `keras_nuclei.instances.label_nuclei`.
        seed_thresholds: As in `keras_nuclei.instances.label_nuclei`.
        smoothing: As in `keras_nuclei.instances.label_nuclei`, in pixels that the model saw.

    Returns:
        int32 `(H, W)`: 0 background, 1..n one number per nucleus.

    Raises:
        ValueError: As `keras_nuclei.instances.label_nuclei`.

    Example:
        >>> import numpy as np
        >>> ones = np.ones((5, 5, 1))
        >>> int(label_maps({"foreground": ones, "distance": ones}).max())
        1
    """
    pixels = min(scale, 1) ** -2  # of the image, in one that the model saw
    return label_nuclei(
        maps["foreground"],
        maps["distance"],
        threshold=threshold,
        seed_thresholds=seed_thresholds,
        smoothing=smoothing / scale,
        min_seed_area=round(8 * pixels),
        min_area=round(12 * pixels),
    )
