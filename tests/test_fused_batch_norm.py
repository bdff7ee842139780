"""The fused batch normalization against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_nuclei.fused_batch_norm import fused_batch_norm

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own")


def trained(images, layer, compute):
    """Output, gradients and moving averages of a training step."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = compute(layer, images)
        loss = tf.reduce_sum(outputs**3)
    gradients = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
    return [outputs, *gradients, layer.moving_mean, layer.moving_variance]


@pytest.mark.parametrize("momentum", [0.9, 0.98])
def test_a_step_equals_keras_to_rounding(momentum):
    generator = np.random.default_rng(0)
    images = tf.constant(generator.normal(3, 2, (4, 5, 7, 6)), tf.float32)
    keras_layer, fused_layer = (
        keras.layers.BatchNormalization(
            momentum=momentum,
            gamma_initializer=keras.initializers.RandomUniform(0.5, 2, seed=1),
            beta_initializer=keras.initializers.RandomUniform(-1, 1, seed=2),
        )
        for _ in range(2)
    )
    keras_layer.build(images.shape)
    fused_layer.build(images.shape)
    expected = trained(images, keras_layer, lambda layer, x: layer(x, training=True))
    with fused_batch_norm():
        compiled = tf.function(lambda layer, x: layer(x, training=True))
        found = trained(images, fused_layer, compiled)
        operations = {
            op.type
            for op in compiled.get_concrete_function(fused_layer, images).graph.get_operations()
        }
    assert "FusedBatchNormV3" in operations
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(keras_layer(images), keras_layer(images, training=False))


@pytest.mark.parametrize(
    ("shape", "options"),
    [((4, 6), {}), ((2, 3, 3, 6), {"scale": False}), ((2, 6, 3, 3), {"axis": 1})],
)
def test_what_the_kernel_can_not_do_stays_with_keras(shape, options):
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    one, other = (keras.layers.BatchNormalization(**options) for _ in range(2))
    expected = one(images, training=True)
    with fused_batch_norm():
        np.testing.assert_array_equal(other(images, training=True), expected)


def test_keras_is_left_as_it_was():
    before = keras.layers.BatchNormalization.call
    with pytest.raises(KeyError), fused_batch_norm():
        assert keras.layers.BatchNormalization.call is not before
        raise KeyError
    assert keras.layers.BatchNormalization.call is before
