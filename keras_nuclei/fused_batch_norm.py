"""Batch normalization by TensorFlow's fused kernel: the same numbers, sooner.

Keras builds it of some twenty operations, forwards and backwards, each of which reads and writes
the whole feature map. On CPUs that is a large part of a training step.
"""

import contextlib
from collections.abc import Callable, Iterator

import keras

from keras_nuclei.typing import Tensor


@contextlib.contextmanager
def fused_batch_norm() -> Iterator[None]:
    """Let Keras's batch normalization train with the fused kernel, on the TensorFlow backend.

    For training on CPUs. Put it around `fit`: what is traced inside keeps it. Layers, weights and
    saved models are Keras's own as ever. Layers that the kernel can't do, of another axis or data
    type, are left to Keras, and on other backends nothing changes.

    Yields:
        None.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> encoder = keras_nuclei.encoders.plain(filters=(4, 8))
        >>> model = keras_nuclei.unet(encoder, decoder_filters=(4,))
        >>> model.compile("adam", "binary_crossentropy")
        >>> images, masks = np.zeros((2, 8, 8, 3), "uint8"), np.zeros((2, 8, 8, 1), "uint8")
        >>> with keras_nuclei.fused_batch_norm():
        ...     history = model.fit(images, masks, verbose=0)
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    layer = keras.layers.BatchNormalization
    keras_call = layer.call
    layer.call = _fused(keras_call)
    try:
        yield
    finally:
        layer.call = keras_call


def _fused(keras_call: Callable) -> Callable:
    # The one place in the package that knows a backend: what it calls is no part of Keras. Only
    # where the backend is TensorFlow is it come to, so that nothing is imported anew.
    import tensorflow as tf  # noqa: TID251

    def call(
        self: keras.layers.BatchNormalization,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        fits = inputs.dtype == "float32" and len(inputs.shape) == 4 and self.axis in (-1, 3)
        plain = self.scale and self.center and mask is None and not self.synchronized
        if not (training and self.trainable and fits and plain):
            return keras_call(self, inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # The kernel divides by n - 1 what is to be averaged, Keras by n.
        pixels = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance *= (pixels - 1) / pixels
        momentum = self.momentum
        self.moving_mean.assign(self.moving_mean * momentum + mean * (1 - momentum))
        self.moving_variance.assign(self.moving_variance * momentum + variance * (1 - momentum))
        return outputs

    return call
