"""Feature maps made larger by interpolation."""

from typing import Any

import keras
from keras import layers, ops

from keras_nuclei.typing import Config, Shape, Tensor
from keras_nuclei.validation import require_at_least_one, require_one_of


@keras.saving.register_keras_serializable(package="keras_nuclei")
class Enlarge(layers.Layer):
    """`factor` times the height and width by interpolation, with no weights.

    `keras.layers.UpSampling2D` does the same, but where the height and width are not known
    beforehand, its bilinear mode fails under TensorFlow with Keras 3.15
    (https://github.com/keras-team/keras/pull/22079).

    Args:
        factor: How many times higher and wider the output is, at least 1.
        mode: `"bilinear"` (pixel centres at half-integers, edges repeated) or `"nearest"`.
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, factor * height, factor * width, channels)`

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.resizing import Enlarge
        >>> row = np.array([0, 4], "float32").reshape(1, 1, 2, 1)
        >>> np.asarray(Enlarge(2)(row))[0, 0, :, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
    """

    def __init__(self, factor: int = 2, *, mode: str = "bilinear", **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least_one(factor=factor)
        require_one_of(("bilinear", "nearest"), mode=mode)
        self.factor = factor
        self.mode = mode

    def call(self, inputs: Tensor) -> Tensor:
        return enlarge(inputs, self.factor, self.mode)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return enlarged_shape(input_shape, self.factor)

    def get_config(self) -> Config:
        return {**super().get_config(), "factor": self.factor, "mode": self.mode}


def enlarge(x: Tensor, factor: int, mode: str) -> Tensor:
    """`factor` times the height and width, as `Enlarge` does it.

    Args:
        x: Tensor `(batch, height, width, channels)`.
        factor: How many times, at least 1.
        mode: `"bilinear"` or `"nearest"`.

    Returns:
        Tensor `(batch, factor * height, factor * width, channels)`.

    Example:
        >>> import numpy as np
        >>> tuple(enlarge(np.ones((1, 2, 3, 4), "float32"), 4, "nearest").shape)
        (1, 8, 12, 4)
    """
    # By reshaping, since of what ops.repeat makes LiteRT does not know the channels.
    batch, height, width, channels = ops.shape(x)
    x = ops.stack(_between(x, factor, 1, mode), axis=2)
    x = ops.reshape(x, (batch, factor * height, width, channels))
    x = ops.stack(_between(x, factor, 2, mode), axis=3)
    return ops.reshape(x, (batch, factor * height, factor * width, channels))


def _between(x: Tensor, factor: int, axis: int, mode: str) -> list:
    """For each of the `factor` new pixels on an old one, their values between it and the next.

    By nearest pixels, all are the old one. Bilinear: the centre of new pixel `k` lies
    `(k + 1/2) / factor - 1/2` old pixels from the old one's; for a factor of 2, a quarter to either
    side, so 3/4 of the old pixel and 1/4 of its neighbour.
    """
    if mode == "nearest":
        return [x] * factor
    start = (slice(None),) * axis
    first, last = x[(*start, slice(1))], x[(*start, slice(-1, None))]
    # Sliced afterwards, since of one row nothing would be left to join, which ONNX Runtime refuses.
    before = ops.concatenate([first, x], axis=axis)[(*start, slice(-1))]
    after = ops.concatenate([x, last], axis=axis)[(*start, slice(1, None))]
    values = []
    for index in range(factor):
        offset = (index + 0.5) / factor - 0.5
        neighbour = before if offset < 0 else after
        values.append((1 - abs(offset)) * x + abs(offset) * neighbour)
    return values


def enlarged_shape(shape: tuple, factor: int) -> tuple:
    """Shape of what `enlarge` returns; None where a size is not known.

    Args:
        shape: `(batch, height, width, channels)`.
        factor: How many times.

    Returns:
        The same with both sizes times `factor`.

    Example:
        >>> enlarged_shape((None, 5, None, 3), 2)
        (None, 10, None, 3)
    """
    batch, height, width, channels = shape
    return (batch, *(size and factor * size for size in (height, width)), channels)
