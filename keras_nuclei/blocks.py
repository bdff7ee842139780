"""Layers that a decoder is built of: convolutions, upsampling, cropping to a skip, heads.

Attention is in `keras_nuclei.attention`, the normalizations in `keras_nuclei.normalization`.
"""

from typing import Any

import keras
from keras import layers, ops

from keras_nuclei.freezing import freeze_within
from keras_nuclei.initializers import ICNR, EvenTranspose
from keras_nuclei.normalization import NORMALIZATIONS, make_normalization
from keras_nuclei.resizing import enlarge, enlarged_shape
from keras_nuclei.typing import Config, Shape, Tensor
from keras_nuclei.validation import require_at_least_one, require_one_of

UPSAMPLING_MODES = ("bilinear", "nearest", "transpose", "pixel_shuffle")
"""What `UpsampleBlock` accepts as `mode`."""


@keras.saving.register_keras_serializable(package="keras_nuclei")
class ConvBlock(layers.Layer):
    """Convolution, normalization, ReLU; `depth` times in a row.

    The height and width stay as they are ("same" padding). The convolution has a bias only where
    no normalization follows it, which would bring one of its own.

    Args:
        filters: Number of output channels, at least 1.
        kernel_size: Side of the square kernel in pixels, at least 1.
        depth: Number of convolutions, at least 1. The original U-Net has 2 on each level
            (Ronneberger et al. 2015, https://doi.org/10.1007/978-3-319-24574-4_28).
        normalization: `"batch"`, `"group"`, `"instance"`, `"layer"` or None; see
            `keras_nuclei.normalization.make_normalization`.
        residual: True adds the input before the last ReLU (He et al. 2016,
            https://arxiv.org/abs/1512.03385), through a 1x1 convolution and a normalization
            where it has another number of channels than the output.
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
        normalization: str | None = "batch",
        residual: bool = False,
        batch_norm_momentum: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_at_least_one(filters=filters, kernel_size=kernel_size, depth=depth)
        require_one_of(NORMALIZATIONS, normalization=normalization)
        _require_momentum(batch_norm_momentum)
        self.filters = filters
        self.kernel_size = kernel_size
        self.depth = depth
        self.normalization_name = normalization
        self.residual = residual
        self.batch_norm_momentum = batch_norm_momentum
        self.convolutions = [
            self._convolution(kernel_size, f"convolution_{index}") for index in range(depth)
        ]
        self.normalizations = [
            self._normalization(f"normalization_{index}") for index in range(depth)
        ]

    def _convolution(self, kernel_size: int, name: str) -> layers.Layer:
        return layers.Conv2D(
            self.filters,
            kernel_size,
            padding="same",
            use_bias=self.normalization_name is None,
            kernel_initializer="he_normal",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def _normalization(self, name: str) -> layers.Layer:
        return make_normalization(
            self.normalization_name,
            self.filters,
            momentum=self.batch_norm_momentum,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Shape) -> None:
        output_shape = self.compute_output_shape(input_shape)
        # Only now is it known whether the input can be added as it is.
        self.projection = None
        if self.residual and input_shape[-1] != self.filters:
            self.projection = self._convolution(1, "projection")
            self.projection_normalization = self._normalization("projection_normalization")
            self.projection.build(input_shape)
            self.projection_normalization.build(output_shape)
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            convolution.build(input_shape)
            normalization.build(output_shape)
            input_shape = output_shape
        freeze_within(self)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # Keras hands `training` on to the layers within.
        x = inputs
        last = self.depth - 1
        for index, convolution in enumerate(self.convolutions):
            x = self.normalizations[index](convolution(x))
            if self.residual and index == last:
                x = x + self._shortcut(inputs)
            x = ops.relu(x)
        return x

    def _shortcut(self, inputs: Tensor) -> Tensor:
        if self.projection is None:
            return inputs
        return self.projection_normalization(self.projection(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "depth": self.depth,
            "normalization": self.normalization_name,
            "residual": self.residual,
            "batch_norm_momentum": self.batch_norm_momentum,
        }


@keras.saving.register_keras_serializable(package="keras_nuclei")
class UpsampleBlock(layers.Layer):
    """Twice the height and width, then normalization and ReLU.

    | `mode` | what it does |
    | --- | --- |
    | `"bilinear"` | bilinear interpolation, then a 3x3 convolution |
    | `"nearest"` | each pixel four times, then a 3x3 convolution |
    | `"transpose"` | transposed convolution, stride 2, kernel 4 |
    | `"pixel_shuffle"` | 3x3 convolution to `4 * filters`, whose channels become 2x2 pixels |

    A transposed convolution whose kernel is no multiple of its stride writes to some pixels
    more often than to others, which shows as a checkerboard (Odena et al. 2016,
    https://doi.org/10.23915/distill.00003). Kernel 4 with stride 2 writes to each pixel four
    times. It and the pixel shuffle still have kernels of their own for each pixel of a 2x2 square;
    these start out equal (`keras_nuclei.initializers`), so that in every mode a constant input
    gives a constant output, but for the border.

    Args:
        filters: Number of output channels, at least 1.
        mode: One of the four above.
        normalization: As in `ConvBlock`.
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
        mode: str = "nearest",
        normalization: str | None = "batch",
        batch_norm_momentum: float = 0.9,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_one_of(UPSAMPLING_MODES, mode=mode)
        require_at_least_one(filters=filters)
        require_one_of(NORMALIZATIONS, normalization=normalization)
        _require_momentum(batch_norm_momentum)
        self.filters = filters
        self.mode = mode
        self.normalization_name = normalization
        self.batch_norm_momentum = batch_norm_momentum
        options = {
            "padding": "same",
            "use_bias": normalization is None,
            "data_format": "channels_last",
            "dtype": self.dtype_policy,
            "name": "convolution",
        }
        if mode == "transpose":
            self.convolution = layers.Conv2DTranspose(
                filters, 4, strides=2, kernel_initializer=EvenTranspose(), **options
            )
        elif mode == "pixel_shuffle":
            self.convolution = layers.Conv2D(4 * filters, 3, kernel_initializer=ICNR(2), **options)
        else:
            self.convolution = layers.Conv2D(filters, 3, kernel_initializer="he_normal", **options)
        self.normalization = make_normalization(
            normalization,
            filters,
            momentum=batch_norm_momentum,
            dtype=self.dtype_policy,
            name="normalization",
        )

    def build(self, input_shape: Shape) -> None:
        self.convolution.build(input_shape)
        self.normalization.build(self.compute_output_shape(input_shape))
        freeze_within(self)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # Keras hands `training` on to the layers within.
        if self.mode == "transpose":
            x = self.convolution(inputs)
        elif self.mode == "pixel_shuffle":
            x = ops.depth_to_space(self.convolution(inputs), 2, data_format="channels_last")
        else:
            x = self.convolution(enlarge(inputs, 2, self.mode))
        return ops.relu(self.normalization(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*enlarged_shape(input_shape, 2)[:-1], self.filters)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "mode": self.mode,
            "normalization": self.normalization_name,
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

    def call(self, inputs: Tensor, reference: Tensor) -> Tensor:
        _require_not_larger(reference.shape, inputs.shape)
        height, width = ops.shape(reference)[1:3]
        return inputs[:, :height, :width, :]

    def compute_output_shape(self, inputs_shape: Shape, reference_shape: Shape) -> Shape:
        _require_not_larger(reference_shape, inputs_shape)
        return (inputs_shape[0], reference_shape[1], reference_shape[2], inputs_shape[3])


@keras.saving.register_keras_serializable(package="keras_nuclei")
class Head(layers.Layer):
    """Feature map to output: a convolution and an activation, always in float32.

    float32, so that probabilities near 0 and 1 and their logarithms survive mixed precision.
    Where the feature map is smaller than the image, there are two ways to the image's size:

    - `"pixel_shuffle"`: a 3x3 convolution makes `stride ** 2` pixels of each pixel and its
      neighbours (sub-pixel convolution, Shi et al. 2016,
      https://doi.org/10.1109/CVPR.2016.207). They start out equal
      (`keras_nuclei.initializers.ICNR`).
    - `"bilinear"`: a 1x1 convolution, then bilinear interpolation, then the activation.

    Args:
        channels: Number of output channels, at least 1.
        stride: How many times higher and wider the output is than the feature map, at least 1.
        activation: Name of an activation, None for logits.
        upsampling: One of the two above. All the same where `stride` is 1.
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

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        activation: str | None = None,
        upsampling: str = "pixel_shuffle",
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        require_at_least_one(channels=channels, stride=stride)
        require_one_of(("pixel_shuffle", "bilinear"), upsampling=upsampling)
        self.channels = channels
        self.stride = stride
        self.upsampling = upsampling
        self.activation = keras.activations.get(activation)
        shuffles = stride > 1 and upsampling == "pixel_shuffle"
        self.convolution = layers.Conv2D(
            channels * stride**2 if shuffles else channels,
            3 if shuffles else 1,
            padding="same",
            kernel_initializer=ICNR(stride, "glorot_uniform") if shuffles else "glorot_uniform",
            data_format="channels_last",
            dtype="float32",
            name="convolution",
        )

    def build(self, input_shape: Shape) -> None:
        self.convolution.build(input_shape)
        freeze_within(self)

    def call(self, inputs: Tensor) -> Tensor:
        x = self.convolution(inputs)
        if self.stride > 1 and self.upsampling == "pixel_shuffle":
            x = ops.depth_to_space(x, self.stride, data_format="channels_last")
        elif self.stride > 1:
            x = enlarge(x, self.stride, "bilinear")
        return self.activation(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*enlarged_shape(input_shape, self.stride)[:-1], self.channels)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "channels": self.channels,
            "stride": self.stride,
            "activation": keras.activations.serialize(self.activation),
            "upsampling": self.upsampling,
        }


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
