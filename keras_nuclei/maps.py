"""What a model draws of an image that it sees at some scale, and the nuclei of that."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import keras
import numpy as np

from keras_nuclei.instances import SEED_THRESHOLDS, SMOOTHING, THRESHOLD, label_nuclei
from keras_nuclei.tiling import input_shape, predict_tiled
from keras_nuclei.validation import require_number

VIEWS = {
    1: (1, (1.0,)),
    3: (1, (0.8, 1.0, 1.25)),
    4: (4, (1.0,)),
    8: (8, (1.0,)),
    12: (4, (0.8, 1.0, 1.25)),
}
"""What each number of augmentations means. First, how many flips and turns of an image a model sees
(as in `keras_nuclei.tiling.predict_tiled`); then, by what factors of the scale each is shown."""


def check_model(model: keras.Model | Callable) -> None:
    """Refuse a model that can't draw what nuclei are made of, as far as it tells beforehand.

    Args:
        model: As in `keras_nuclei.segment`, but no name.

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
            "keras_nuclei.maps.label_maps."
        )


def check_augmentations(augmentations: int) -> None:
    """Refuse a number of views that `VIEWS` lacks.

    Args:
        augmentations: As in `keras_nuclei.segment`.

    Raises:
        TypeError: If it is no number.
        ValueError: If `VIEWS` lacks it.

    Example:
        >>> check_augmentations(2)
        Traceback (most recent call last):
        ...
        ValueError: augmentations must be 1, 3, 4, 8 or 12; got 2.
    """
    require_number(augmentations=augmentations)
    if augmentations not in VIEWS:
        *most, last = VIEWS
        expected = f"{', '.join(map(str, most))} or {last}"
        raise ValueError(f"augmentations must be {expected}; got {augmentations!r}.")


def as_model_takes(image: np.ndarray, model: keras.Model | Callable) -> np.ndarray:
    """The image, of one channel where the model takes grey ones.

    Args:
        image: `(H, W, 3)`.
        model: As in `keras_nuclei.segment`.

    Returns:
        The image, `(H, W, 3)` or `(H, W, 1)`.

    Raises:
        ValueError: If the model takes grey images, and this one is in colour.

    Example:
        >>> import keras_nuclei
        >>> of_grey = keras_nuclei.unet(input_shape=(None, None, 1))
        >>> as_model_takes(np.zeros((2, 5, 3)), of_grey).shape
        (2, 5, 1)
    """
    if input_shape(model)[-1] != 1:
        return image
    if (image != image[..., :1]).any():
        raise ValueError(
            "The model takes grey images, of 1 channel; this one is in colour. Choose the "
            "channel that shows the nuclei: image[..., channel], or --channel of the command."
        )
    return image[..., :1]


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
        model: As in `keras_nuclei.segment`.
        scale: As in `keras_nuclei.segment`.
        augmentations: As in `keras_nuclei.segment`; what each number means is `VIEWS`.
        **options: Of `keras_nuclei.tiling.predict_tiled`.

    Returns:
        The model's heads by name, float32 `(H, W, channels)` of the size of the image.

    Raises:
        TypeError: If `augmentations` is no number.
        ValueError: If the model lacks one of the heads `"foreground"` and `"distance"`, or takes
            grey images and this one is none; or if `VIEWS` lacks the number `augmentations`.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.from_preset("nuclei_base")
        >>> maps = keras_nuclei.maps.predict_maps(np.zeros((50, 40, 3)), model, scale=0.5)
        >>> maps["foreground"].shape
        (50, 40, 1)
    """
    check_augmentations(augmentations)
    symmetries, zooms = VIEWS[augmentations]
    size = image.shape[:2]
    image = as_model_takes(image, model)
    drawn = []
    for zoom in zooms:
        seen = resize(image, scaled_size(size, scale * zoom))
        # Of a function one knows no sooner what it returns.
        maps = _require_heads(predict_tiled(seen, model, augmentations=symmetries, **options))
        drawn.append({name: resize(values, size) for name, values in maps.items()})
    if len(drawn) == 1:
        return drawn[0]
    return {name: np.mean([maps[name] for maps in drawn], axis=0) for name in drawn[0]}


def label_maps(
    maps: dict[str, np.ndarray],
    *,
    scale: float = 1.0,
    threshold: float = THRESHOLD,
    seed_thresholds: Sequence[float] = SEED_THRESHOLDS,
    smoothing: float = SMOOTHING,
) -> np.ndarray:
    """Make nuclei of the maps that a model drew at a scale, as `keras_nuclei.segment` does.

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
        TypeError: As `keras_nuclei.instances.label_nuclei`.
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


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image that a model sees so many times larger, at least 1 each.

    Args:
        size: Height and width, in pixels.
        scale: As in `keras_nuclei.segment`.

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
    if values.shape[-1] > 4:  # more than OpenCV averages
        groups = (values[..., first : first + 4] for first in range(0, values.shape[-1], 4))
        return np.concatenate([resize(group, size) for group in groups], axis=-1)
    smaller = math.prod(size) < math.prod(values.shape[:2])
    resized = cv2.resize(
        np.asarray(values, "float32"),
        size[::-1],
        interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
    )
    return resized.reshape(*size, -1)


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
