"""How large nuclei are, and how large a model should see them."""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from scipy.ndimage import uniform_filter

from keras_nuclei.images import normalize
from keras_nuclei.maps import label_maps, predict_maps, resize, scaled_size
from keras_nuclei.tiling import TILE_SIZE
from keras_nuclei.typing import Sliceable
from keras_nuclei.validation import require_number

_logger = logging.getLogger(__name__)

SMALLEST_DIAMETER, LARGEST_DIAMETER = 26, 50
"""Of the nuclei that a model is shown, in pixels. Smaller and larger ones are brought there, before
the sizes of `keras_nuclei.maps.VIEWS`; what others are worth is measured by `benchmarks/sizes.py`.
"""

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

FAR_LARGER = 7.0
"""What measures more than so many times what it does at scale 1 is a clump of the nuclei there. Of
the validation images, true large nuclei measure less, and small ones that pass for large mostly
more."""

FEW = 0.05
"""What covers less, at scale 1, of the area of what is seen from afar are specks, beside which
large nuclei are no clump by `FAR_LARGER`."""

CLEAR = 0.6
"""Where nuclei show less clearly, other parts of the image are looked at, too. Of the views of
validation images that `benchmarks/diameters.py` makes all are clearer; specks of noise are not."""


def check_size(diameter: float | None = None, scale: float | None = None) -> None:
    """Refuse what `keras_nuclei.segment` can't take as the size of nuclei.

    Args:
        diameter: As in `keras_nuclei.segment`.
        scale: As in `keras_nuclei.segment`.

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


def estimate(
    image: Sliceable, model: keras.Model | Callable, limits: tuple[float, float], tile_size: int
) -> tuple[float, np.ndarray | None]:
    """Estimate how large nuclei are, as `keras_nuclei.segmentation.estimate_diameter` tells.

    Args:
        image: As in `keras_nuclei.segment`.
        model: As in `keras_nuclei.segment`, but no name.
        limits: Of its contrast: see `keras_nuclei.images.contrast_limits`.
        tile_size: As in `keras_nuclei.segment`.

    Returns:
        The diameter, in pixels, and the label map that was made at scale 1, where that is of the
        whole image, else None.

    Example:
        >>> import keras_nuclei
        >>> model = keras_nuclei.from_preset("nuclei_small")
        >>> diameter, label_map = estimate(np.zeros((50, 40)), model, (0, 1), tile_size=512)
        >>> diameter, int(label_map.max())
        (26.0, 0)
    """
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
    image: np.ndarray, model: keras.Model | Callable, *, scale: float, tile_size: int = TILE_SIZE
) -> Look:
    """Look for nuclei in an image at a scale.

    Args:
        image: `(H, W, 3)`, values 0..255.
        model: As in `keras_nuclei.segment`.
        scale: As in `keras_nuclei.segment`.
        tile_size: As in `keras_nuclei.segment`.

    Returns:
        How clear the nuclei are (see `keras_nuclei.segmentation.estimate_diameter`), how large, and
        where. Without nuclei the clarity is 0, and the diameter the smallest that is not scaled.

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
    inside = label_map > 0
    numbers = label_map[inside]
    if not numbers.size:
        return Look(0.0, float(SMALLEST_DIAMETER), label_map)
    areas = np.bincount(numbers)[1:]
    certainty = maps["foreground"][inside].mean()
    middles = np.zeros(len(areas) + 1, "float32")
    np.maximum.at(middles, numbers, maps["distance"][inside, 0])
    clarity = certainty * np.average(middles[1:], weights=areas)
    return Look(float(clarity), typical_diameter(areas) / scale, label_map)


def choose(
    near: Look,
    far: Look,
    look_again: Callable[[Look], Look],
    margin: float = FAR_MARGIN,
    larger: float = FAR_LARGER,
) -> Look:
    """Of the looks at scale 1 and from afar, the one that shows the nuclei as they are.

    Args:
        near: At scale 1.
        far: At the scale `FAR`.
        look_again: Looks at the scale that fits the diameter of a look. It is called only where the
            nuclei may be large.
        margin: How many times clearer they must show from afar, and again, to be so.
        larger: How many times larger they may measure there, at most, unless those at scale 1
            cover less than `FEW` of their area.

    Example:
        >>> seen = np.ones((2, 2), int)
        >>> near, far = Look(0.80, 32.0, seen), Look(0.82, 150.0, seen)
        >>> choose(near, far, lambda look: look).diameter
        150.0
        >>> again = {32.0: Look(0.9, 33.0, seen), 150.0: Look(0.7, 90.0, seen)}
        >>> choose(near, far, lambda look: again[look.diameter]).diameter
        32.0
        >>> choose(Look(0.80, 12.0, seen), far, lambda look: look).diameter  # far is a clump
        12.0
        >>> choose(near, Look(0.95, 400.0, seen), lambda look: look).diameter  # and here
        32.0
    """
    if far.clarity <= margin * near.clarity or _is_clump(near, far, larger):
        return near
    return far if look_again(far).clarity > margin * look_again(near).clarity else near


def _is_clump(near: Look, far: Look, larger: float) -> bool:
    """Whether what is seen from afar are many small nuclei, taken for one."""
    if not near.clarity:
        return False
    if far.diameter > CLUMP / FAR:
        return True
    if far.diameter <= larger * near.diameter:
        return False
    near_share, far_share = (np.mean(each.label_map > 0) for each in (near, far))
    return bool(near_share > FEW * far_share)


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
