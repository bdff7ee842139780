"""The encoder contract, for every encoder; MobileNetV2 against keras.applications."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_nuclei import encoders
from keras_nuclei.encoders import ENCODERS, check_pyramid, get_encoder

EVERY = pytest.mark.parametrize("name", ENCODERS)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@EVERY
@pytest.mark.parametrize("size", [(64, 96), (101, 75), (1, 33)])
def test_contract_on_real_images(name, size):
    encoder = get_encoder(name, weights=None)
    check_pyramid(encoder)
    pyramid = encoder(np.zeros((1, *size, 3), "float32"))
    assert list(pyramid) == sorted(pyramid)
    for level, features in pyramid.items():
        expected = tuple(math.ceil(side / 2 ** int(level[1:])) for side in size)
        assert tuple(features.shape[1:3]) == expected


@EVERY
def test_one_and_five_channels_from_random_weights(name):
    for channels in (1, 5):
        encoder = get_encoder(name, input_shape=(None, None, channels), weights=None)
        assert encoder.inputs[0].shape[-1] == channels


@EVERY
def test_batch_norm_momentum_reaches_every_layer(name):
    encoder = get_encoder(name, weights=None, batch_norm_momentum=0.7)
    found = [
        layer.momentum
        for layer in encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert found
    assert set(found) == {0.7}


@EVERY
def test_unknown_weights_are_refused(name):
    with pytest.raises(ValueError, match=r"cifar"):
        get_encoder(name, weights="cifar")


def test_mobilenet_v2_is_that_of_keras_applications(rng):
    """Same weights and the preprocessing of keras.applications: the same features.

    64 and 96 pixels stay even through all halvings, so that its own padding is right for them.
    """
    encoder = encoders.mobilenet_v2(weights=None)
    original = keras.applications.MobileNetV2(
        input_shape=(64, 96, 3), include_top=False, weights=None
    )
    names = {
        "P1": "block_1_expand_relu",
        "P2": "block_3_expand_relu",
        "P3": "block_6_expand_relu",
        "P4": "block_13_expand_relu",
        "P5": "block_16_project_BN",
    }
    taps = keras.Model(
        original.input, {level: original.get_layer(name).output for level, name in names.items()}
    )
    for weight in encoder.weights:
        low = 0.5 if "variance" in weight.name else -0.2
        weight.assign(rng.uniform(low, 1, weight.shape))
    taps.set_weights(encoder.get_weights())
    images = rng.integers(0, 256, (2, 64, 96, 3)).astype("float32")
    scaled = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    expected = taps.predict(scaled, verbose=0)
    for level, features in encoder.predict(images, verbose=0).items():
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(features / scale, expected[level] / scale, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_keras_applications_alone_break_the_contract_for_odd_sizes():
    """The reason for the adaptation: remove it when this fails."""
    original = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), include_top=False, weights=None
    )
    tap = keras.Model(original.input, {"P2": original.get_layer("block_3_expand_relu").output})
    with pytest.raises(ValueError, match=r"P2 has the size \(26, 19\).*it is \(25, 19\)"):
        check_pyramid(tap)


def test_dark_images_are_scaled_like_all_others():
    # Rivals scale by 255 only where an image's maximum is above 1, so that a dark tile differs.
    encoder = encoders.plain(filters=(4,))
    rescaling = keras.Model(encoder.input, encoder.get_layer("rescaling").output)
    dark = np.array([0, 1, 0, 1], "float32").reshape(1, 2, 2, 1).repeat(3, -1)
    np.testing.assert_allclose(numpy(rescaling(dark)), dark / 255)


def test_weights_that_cannot_be_downloaded_say_how_to_go_on(tmp_path):
    # A port where nobody listens stands for a machine without internet.
    code = (
        "import keras_nuclei\n"
        "try: keras_nuclei.unet('mobilenet_v2')\n"
        "except RuntimeError as error: print(error)"
    )
    environment = {
        **os.environ,
        "KERAS_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "",
        "NO_PROXY": "",
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    for remedy in ("~/.keras/models", "encoder_weights=None", "efficientnet_lite0", "path"):
        assert remedy in result.stdout


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_a_weights_file_is_read(tmp_path):
    source = keras.applications.MobileNetV2((None, None, 3), include_top=False, weights=None)
    path = tmp_path / "mobilenet.weights.h5"
    source.save_weights(path)
    encoder = encoders.mobilenet_v2(weights=str(path))
    kernel = encoder.get_layer("block_5_depthwise").get_weights()[0]
    np.testing.assert_array_equal(kernel, source.get_layer("block_5_depthwise").get_weights()[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "resnet1"}, ValueError, "'resnet1'.*plain, mobilenet_v2, efficientnet_lite0"),
        ({"encoder": 5}, TypeError, "keras.Model or None; got int"),
        ({"encoder": None, "weights": "imagenet"}, ValueError, "no pretrained weights"),
        (
            {"encoder": "mobilenet_v2", "input_shape": (None, None, 1)},
            ValueError,
            "3 channels.*encoder_weights=None",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        get_encoder(**arguments)


def model_of(make_output, shape=(None, None, 3)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, make_output(inputs))


def halve(padding):
    return keras.layers.Conv2D(4, 3, strides=2, padding=padding)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: model_of(halve("same")), "output is a dict"),
        (lambda: model_of(lambda x: {"skip": halve("same")(x)}), r"keys \['skip'\]"),
        (lambda: model_of(lambda x: {"P1": halve("valid")(x)}), r"P1.*\(51, 38\).*\(50, 37\)"),
        (lambda: model_of(lambda x: {"P1": x}), r"\(51, 38\).*\(101, 75\)"),
        (lambda: model_of(lambda x: {"P0": x}, (8,)), "one input"),
    ],
)
def test_a_model_that_breaks_the_contract_is_told_how(model, message):
    with pytest.raises(ValueError, match=message):
        get_encoder(model())


def test_a_model_brings_its_own_weights():
    model = model_of(lambda x: {"P1": halve("same")(x)})
    assert get_encoder(model) is model
    with pytest.raises(ValueError, match="weights of its own"):
        get_encoder(model, weights="imagenet")
