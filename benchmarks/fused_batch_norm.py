"""Batch normalization by TensorFlow's fused kernel: the same numbers, sooner.

Keras builds it of some twenty operations, forwards and backwards, each of which reads and writes
the whole feature map. On CPUs that is a large part of a training step.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras
import tensorflow as tf


@contextlib.contextmanager
def fused_batch_norm() -> Iterator[None]:
    """Let Keras's batch normalization train with the fused kernel, on the TensorFlow backend.

    What is traced inside, by `fit` above all, keeps it. Layers, weights and saved models are
    Keras's own as ever. On other backends nothing changes.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    layer = keras.layers.BatchNormalization
    with mock.patch.object(layer, "call", _fused(layer.call)):
        yield


def _fused(keras_call):
    def call(self, inputs, training=None, mask=None):
        fits = inputs.dtype == "float32" and len(inputs.shape) == 4 and self.axis in (-1, 3)
        plain = self.scale and self.center and mask is None and not getattr(self, "renorm", False)
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
