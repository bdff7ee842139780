"""Attention in a decoder: on what a skip connection brings, or on channels and places."""

from typing import Any

import keras
from keras import layers, ops

from keras_nuclei.freezing import freeze_within
from keras_nuclei.typing import Config, Shape, Tensor
from keras_nuclei.validation import require_at_least_one

LEAST_SQUEEZED = 8
"""Channels that `SCSE` leaves at least, where there are so many."""


@keras.saving.register_keras_serializable(package="keras_nuclei")
class AttentionGate(layers.Layer):
    """Let the decoder weigh the pixels of a skip connection.

    Of a skip `x` and the decoder's features `g`, which say what to look for, a weight in 0..1 for
    each pixel, and the skip times that:

    `x * sigmoid(c · relu(A x + B g + b) + d)`

    with 1x1 convolutions `A`, `B`, `c` (Oktay et al. 2018, https://arxiv.org/abs/1804.03999,
    equations 1 and 2). There, `g` is a level coarser than `x` and the weights are upsampled; here,
    `g` has been upsampled already, by the decoder's own block.

    Call it with the skip and the decoder's features.

    Args:
        filters: Channels between `A`, `B` and `c`, at least 1. Half of the skip's is usual.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)` and `(batch, height, width, channels')`

    Output shape:
        `(batch, height, width, channels)`

    Raises:
        ValueError: If `filters` is less than 1.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.attention import AttentionGate
        >>> skip, features = np.ones((1, 5, 7, 8), "float32"), np.ones((1, 5, 7, 16), "float32")
        >>> tuple(AttentionGate(4)(skip, features).shape)
        (1, 5, 7, 8)
    """

    def __init__(self, filters: int, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least_one(filters=filters)
        self.filters = filters
        options = {"data_format": "channels_last", "dtype": self.dtype_policy}
        self.skip_projection = layers.Conv2D(
            filters, 1, use_bias=False, name="skip_projection", **options
        )
        self.gate_projection = layers.Conv2D(filters, 1, name="gate_projection", **options)
        self.attention = layers.Conv2D(1, 1, activation="sigmoid", name="attention", **options)

    def build(self, inputs_shape: Shape, gate_shape: Shape) -> None:
        self.skip_projection.build(inputs_shape)
        self.gate_projection.build(gate_shape)
        self.attention.build((*inputs_shape[:-1], self.filters))
        freeze_within(self)

    def call(self, inputs: Tensor, gate: Tensor) -> Tensor:
        joined = self.skip_projection(inputs) + self.gate_projection(gate)
        return inputs * self.attention(ops.relu(joined))

    def compute_output_shape(self, inputs_shape: Shape, gate_shape: Shape) -> Shape:
        return inputs_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_nuclei")
class SCSE(layers.Layer):
    """Weigh channels by the whole image, and pixels by their channels; the sum of both.

    `x * sigmoid(B relu(A mean(x) + a) + b) + x * sigmoid(c · x + d)`

    "Concurrent spatial and channel squeeze and excitation", Roy et al. 2018,
    https://arxiv.org/abs/1803.02579. The mean is over all pixels of an image: what a tile of it
    gives is not just a tile of what the whole gives.

    Args:
        ratio: How many times fewer channels there are between `A` and `B`, at least 1. The paper
            has 2, segmentation_models.pytorch 16. But 8 are left, or as many as there are: of one
            or two, all may be silenced by the ReLU from the start, and never learn.
        **kwargs: `name`, `dtype`, `trainable`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        The same

    Raises:
        ValueError: If `ratio` is less than 1.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.attention import SCSE
        >>> tuple(SCSE()(np.ones((1, 5, 7, 32), "float32")).shape)
        (1, 5, 7, 32)
    """

    def __init__(self, ratio: int = 16, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least_one(ratio=ratio)
        self.ratio = ratio
        self.pixel_attention = layers.Conv2D(
            1,
            1,
            activation="sigmoid",
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="pixel_attention",
        )

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        squeezed = max(min(channels, LEAST_SQUEEZED), channels // self.ratio)
        self.squeeze = layers.Dense(
            squeezed, activation="relu", dtype=self.dtype_policy, name="squeeze"
        )
        self.excite = layers.Dense(
            channels, activation="sigmoid", dtype=self.dtype_policy, name="excite"
        )
        self.squeeze.build((None, 1, 1, channels))
        self.excite.build((None, 1, 1, squeezed))
        self.pixel_attention.build(input_shape)
        freeze_within(self)

    def call(self, inputs: Tensor) -> Tensor:
        # In float32, since a sum over a large image overflows half precision.
        means = ops.mean(ops.cast(inputs, "float32"), axis=(1, 2), keepdims=True)
        channel_weights = self.excite(self.squeeze(ops.cast(means, self.compute_dtype)))
        return inputs * channel_weights + inputs * self.pixel_attention(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "ratio": self.ratio}
