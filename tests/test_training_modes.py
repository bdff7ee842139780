"""Training in half precision, compiled, and on several devices, with every decoder."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_nuclei
from keras_nuclei.losses import BinaryCrossentropyDice
from keras_nuclei.metrics import Dice

DECODERS = {
    "unet": (keras_nuclei.unet, {"decoder_filters": (4,)}),
    "unetplusplus": (keras_nuclei.unetplusplus, {"decoder_filters": (4,)}),
    "fpn": (
        keras_nuclei.fpn,
        {"pyramid_filters": 4, "segmentation_filters": 4, "decoder_stride": 1},
    ),
}


def build(decoder):
    """A small model of a decoder."""
    make, arguments = DECODERS[decoder]
    return make(keras_nuclei.encoders.plain(filters=(4, 8)), **arguments)


def images_and_masks(rng):
    """A batch of an odd size."""
    images = rng.integers(0, 256, (2, 13, 18, 3), dtype="uint8")
    return images, rng.integers(0, 2, (2, 13, 18, 1), dtype="uint8")


def step(model, batch, **compiling):
    """Train for one step; the loss and the kernels before and after."""
    model.compile(
        keras.optimizers.Adam(1e-2), BinaryCrossentropyDice(), metrics=[Dice()], **compiling
    )
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    logs = model.fit(*batch, epochs=1, verbose=0).history
    after = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    return logs, before, after


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_step_in_half_precision(decoder, policy, rng):
    """Under float16 Keras scales the loss, by 2**15, and skips a step that overflows."""
    keras.config.set_dtype_policy(policy)
    try:
        model = build(decoder)
        logs, before, after = step(model, images_and_masks(rng))
        output = model(images_and_masks(rng)[0])
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert {weight.dtype for weight in model.weights if "seed" not in weight.path} == {"float32"}
    assert np.isfinite(logs["loss"][0])
    assert 0 <= logs["dice"][0] <= 1
    # Not skipped: every weight has gone on, and to numbers.
    for old, new in zip(before, after, strict=True):
        assert np.isfinite(new).all()
        assert (old != new).any()


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch.compile needs a compiler of C++"
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_compiled_step_is_the_step(decoder, rng):
    """XLA, as TensorFlow uses it when asked: the loss is that of the layers called one by one."""
    images, masks = images_and_masks(rng)
    model = build(decoder)
    expected = float(BinaryCrossentropyDice()(masks, model(images, training=True)))
    logs, before, after = step(model, (images, masks), jit_compile=True)
    assert logs["loss"][0] == pytest.approx(expected, abs=1e-5)
    assert 0 <= logs["dice"][0] <= 1
    for old, new in zip(before, after, strict=True):
        assert np.isfinite(new).all()
        assert (old != new).any()


# One model on two devices and on one: evaluation and a step of training have the same loss, exactly
# the same Dice, which is a ratio of counts, and leave the same weights.
DISTRIBUTED = """
import keras, numpy as np, tensorflow as tf
import keras_nuclei
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (7, 13, 18, 3), dtype="uint8")
masks = rng.integers(0, 2, (7, 13, 18, 1), dtype="uint8")

def make():
    keras.utils.set_random_seed(0)
    encoder = keras_nuclei.encoders.plain(filters=(4, 8))
    # In training, statistics of batches would be those of each replica's own images: none here.
    model = keras_nuclei.unet(
        encoder, decoder_filters=(4,), normalization="group", encoder_trainable=False
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        keras_nuclei.losses.BinaryCrossentropyDice(),
        metrics=[keras_nuclei.metrics.Dice()],
    )
    return model

with strategy.scope():
    mirrored = make()
single = make()
assert all(np.array_equal(*pair) for pair in zip(mirrored.get_weights(), single.get_weights()))
for name, run in {
    # Batches of 4 and 3: replicas of 2 and 2, of 2 and 1 images.
    "evaluate": lambda model: model.evaluate(
        images, masks, batch_size=4, verbose=0, return_dict=True),
    "fit": lambda model: {
        key: values[0] for key, values in model.fit(
            images[:4], masks[:4], batch_size=4, verbose=0, shuffle=False).history.items()},
}.items():
    print(name, found := run(mirrored), expected := run(single))
    assert found["dice"] == expected["dice"], name
    assert abs(found["loss"] - expected["loss"]) < 1e-5, name
for old, new in zip(single.get_weights(), mirrored.get_weights()):
    np.testing.assert_allclose(new, old, atol=1e-5)
print("equal")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_two_devices_train_as_one_does():
    result = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.endswith("equal\n"), result.stdout + result.stderr
