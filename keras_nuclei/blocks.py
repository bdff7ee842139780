"""Layers that a U-Net is built of: convolutions, 2x upsampling, cropping to a skip connection."""

import keras
from keras import layers, ops

UPSAMPLING_MODES = ("bilinear", "nearest", "transpose", "pixel_shuffle")
"""What `UpsampleBlock` accepts as `mode`."""


@keras.saving.register_keras_serializable(package="keras_nuclei")
class ConvBlock(layers.Layer):
    """Convolution, batch normalization, ReLU; `depth` times in a row.

    The height and width stay as they are ("same" padding). The convolution has no bias, since
    the normalization that follows it brings its own.

    Args:
        filters: Number of output channels, at least 1.
        kernel_size: Side of the square kernel in pixels, at least 1.
        depth: Number of convolutions, at least 1. The original U-Net has 2 on each level
            (Ronneberger et al. 2015, https://doi.org/10.1007/978-3-319-24574-4_28).
        batch_norm_momentum: Weight of the old value in the moving mean and variance, in 0..1.
            Small data sets take few steps per epoch, so the default moves ten times faster
            than the 0.99 of Keras.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, filters)`, values of at least 0

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> block = keras_nuclei.blocks.ConvBlock(8, depth=2)
        >>> tuple(block(np.zeros((1, 7, 5, 3), "float32")).shape)
        (1, 7, 5, 8)
    """

    def __init__(
        self,
        filters: int,
        *,
        kernel_size: int = 3,
        depth: int = 1,
        batch_norm_momentum: float = 0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _require_at_least_one(filters=filters, kernel_size=kernel_size, depth=depth)
        _require_momentum(batch_norm_momentum)
        self.filters = filters
        self.kernel_size = kernel_size
        self.depth = depth
        self.batch_norm_momentum = batch_norm_momentum
        self.convolutions = [
            layers.Conv2D(
                filters,
                kernel_size,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"convolution_{index}",
            )
            for index in range(depth)
        ]
        self.normalizations = [
            layers.BatchNormalization(
                momentum=batch_norm_momentum,
                dtype=self.dtype_policy,
                name=f"normalization_{index}",
            )
            for index in range(depth)
        ]

    def build(self, input_shape):
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            convolution.build(input_shape)
            input_shape = convolution.compute_output_shape(input_shape)
            normalization.build(input_shape)

    def call(self, inputs, training=None):
        x = inputs
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            x = ops.relu(normalization(convolution(x), training=training))
        return x

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "depth": self.depth,
            "batch_norm_momentum": self.batch_norm_momentum,
        }


@keras.saving.register_keras_serializable(package="keras_nuclei")
class UpsampleBlock(layers.Layer):
    """Twice the height and width, then batch normalization and ReLU.

    | `mode` | what it does |
    | --- | --- |
    | `"bilinear"` | bilinear interpolation, then a 3x3 convolution |
    | `"nearest"` | each pixel four times, then a 3x3 convolution |
    | `"transpose"` | transposed convolution, stride 2, kernel 4 |
    | `"pixel_shuffle"` | 3x3 convolution to `4 * filters`, whose channels become 2x2 pixels |

    A transposed convolution whose kernel is no multiple of its stride writes to some pixels
    more often than to others, which shows as a checkerboard (Odena et al. 2016,
    https://doi.org/10.23915/distill.00003). Kernel 4 with stride 2 writes to each pixel four
    times.

    Args:
        filters: Number of output channels, at least 1.
        mode: One of the four above.
        batch_norm_momentum: As in `ConvBlock`.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, 2 * height, 2 * width, filters)`, values of at least 0

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> block = keras_nuclei.blocks.UpsampleBlock(4, mode="pixel_shuffle")
        >>> tuple(block(np.zeros((1, 3, 5, 8), "float32")).shape)
        (1, 6, 10, 4)
    """

    def __init__(
        self,
        filters: int,
        *,
        mode: str = "bilinear",
        batch_norm_momentum: float = 0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if mode not in UPSAMPLING_MODES:
            raise ValueError(
                f"UpsampleBlock got mode={mode!r}. Expected one of {', '.join(UPSAMPLING_MODES)}."
            )
        _require_at_least_one(filters=filters)
        _require_momentum(batch_norm_momentum)
        self.filters = filters
        self.mode = mode
        self.batch_norm_momentum = batch_norm_momentum
        options = {
            "padding": "same",
            "use_bias": False,
            "kernel_initializer": "he_normal",
            "data_format": "channels_last",
            "dtype": self.dtype_policy,
            "name": "convolution",
        }
        if mode == "transpose":
            self.convolution = layers.Conv2DTranspose(filters, 4, strides=2, **options)
        elif mode == "pixel_shuffle":
            self.convolution = layers.Conv2D(4 * filters, 3, **options)
        else:
            self.convolution = layers.Conv2D(filters, 3, **options)
        self.normalization = layers.BatchNormalization(
            momentum=batch_norm_momentum, dtype=self.dtype_policy, name="normalization"
        )

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.normalization.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        if self.mode == "transpose":
            x = self.convolution(inputs)
        elif self.mode == "pixel_shuffle":
            x = ops.depth_to_space(self.convolution(inputs), 2, data_format="channels_last")
        elif self.mode == "nearest":
            x = self.convolution(ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2))
        else:
            x = self.convolution(_interpolate(inputs))
        return ops.relu(self.normalization(x, training=training))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, _twice(height), _twice(width), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "mode": self.mode,
            "batch_norm_momentum": self.batch_norm_momentum,
        }


@keras.saving.register_keras_serializable(package="keras_nuclei")
class CropLike(layers.Layer):
    """Crop a feature map at the bottom and right to the height and width of another.

    An encoder halves 101 pixels to 51, and twice 51 is 102. Cropping that one pixel, rather
    than demanding sizes that 32 divides, is what lets a U-Net take an image of any size. The
    rows and columns that stay keep their place, which resizing would not do.

    Call it with the feature map and the one whose size it is to take.

    Args:
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)` and `(batch, height', width', channels')` with
        `height' <= height` and `width' <= width`

    Output shape:
        `(batch, height', width', channels)`

    Raises:
        ValueError: If the other feature map is known to be larger.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> upsampled, skip = np.zeros((1, 102, 64, 8)), np.zeros((1, 101, 64, 24))
        >>> tuple(keras_nuclei.blocks.CropLike()(upsampled, skip).shape)
        (1, 101, 64, 8)
    """

    def call(self, inputs, reference):
        _require_not_larger(reference.shape, inputs.shape)
        height, width = ops.shape(reference)[1:3]
        return inputs[:, :height, :width, :]

    def compute_output_shape(self, inputs_shape, reference_shape):
        _require_not_larger(reference_shape, inputs_shape)
        return (inputs_shape[0], reference_shape[1], reference_shape[2], inputs_shape[3])


@keras.saving.register_keras_serializable(package="keras_nuclei")
class Head(layers.Layer):
    """Feature map to output: a convolution and an activation, always in float32.

    float32, so that probabilities near 0 and 1 and their logarithms survive mixed precision.
    Where the feature map is smaller than the image, the convolution makes `stride ** 2` pixels of
    each of its pixels (sub-pixel convolution, Shi et al. 2016,
    https://doi.org/10.1109/CVPR.2016.207), and looks at its neighbours, too.

    Args:
        channels: Number of output channels, at least 1.
        stride: How many times higher and wider the output is than the feature map, at least 1.
        activation: Name of an activation, None for logits.
        **kwargs: `name`, `trainable`, as for every Keras layer.

    Input shape:
        `(batch, height, width, features)`

    Output shape:
        `(batch, stride * height, stride * width, channels)`

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> head = keras_nuclei.blocks.Head(1, stride=2, activation="sigmoid")
        >>> tuple(head(np.zeros((1, 5, 7, 16), "float32")).shape)
        (1, 10, 14, 1)
    """

    def __init__(self, channels: int, *, stride: int = 1, activation: str | None = None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        _require_at_least_one(channels=channels, stride=stride)
        self.channels = channels
        self.stride = stride
        self.activation = keras.activations.get(activation)
        self.convolution = layers.Conv2D(
            channels * stride**2,
            1 if stride == 1 else 3,
            padding="same",
            data_format="channels_last",
            dtype="float32",
            name="convolution",
        )

    def build(self, input_shape):
        self.convolution.build(input_shape)

    def call(self, inputs):
        x = self.convolution(inputs)
        if self.stride > 1:
            x = ops.depth_to_space(x, self.stride, data_format="channels_last")
        return self.activation(x)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, *(size and self.stride * size for size in (height, width)), self.channels)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "stride": self.stride,
            "activation": keras.activations.serialize(self.activation),
        }


def _interpolate(x):
    """Twice the height and width by bilinear interpolation, edges repeated.

    Each new pixel lies a quarter of a pixel from its old one: 3/4 of that and 1/4 of the next on
    its side. `UpSampling2D` does the same, but where the height and width are not known
    beforehand, its bilinear mode fails under TensorFlow with Keras 3.15
    (https://github.com/keras-team/keras/pull/22079).
    """
    batch, height, width, channels = ops.shape(x)
    above = ops.concatenate([x[:, :1], x[:, :-1]], axis=1)
    below = ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
    x = ops.stack([0.75 * x + 0.25 * above, 0.75 * x + 0.25 * below], axis=2)
    x = ops.reshape(x, (batch, 2 * height, width, channels))
    left = ops.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)
    right = ops.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2)
    x = ops.stack([0.75 * x + 0.25 * left, 0.75 * x + 0.25 * right], axis=3)
    return ops.reshape(x, (batch, 2 * height, 2 * width, channels))


def _require_at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")


def _require_momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"batch_norm_momentum must be in 0..1; got {momentum}.")


def _require_not_larger(reference_shape: tuple, shape: tuple) -> None:
    for reference, size in zip(reference_shape[1:3], shape[1:3], strict=True):
        if None not in (reference, size) and reference > size:
            raise ValueError(
                f"CropLike crops {tuple(shape)} to the height and width of a smaller feature map; "
                f"got {tuple(reference_shape)}. Does the encoder halve by rounding up?"
            )


def _twice(size: int | None) -> int | None:
    return None if size is None else 2 * size
