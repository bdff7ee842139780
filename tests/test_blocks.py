"""The blocks against NumPy twins (tests/reference.py), and Keras's own contract for layers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_nuclei.blocks import UPSAMPLING_MODES, ConvBlock, CropLike, Head, UpsampleBlock
from tests import reference

MAKERS = {
    "ConvBlock": lambda: ConvBlock(4, kernel_size=5, depth=2, batch_norm_momentum=0.8),
    "Head": lambda: Head(2, activation="sigmoid"),
    "Head of stride 2": lambda: Head(2, stride=2),
    **{mode: lambda mode=mode: UpsampleBlock(4, mode=mode) for mode in UPSAMPLING_MODES},
}


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def normalize(features, layer):
    """Batch normalization in inference, by its definition."""
    gamma, beta, mean, variance = (numpy(weight) for weight in layer.weights)
    return gamma * (features - mean) / np.sqrt(variance + layer.epsilon) + beta


def randomize(layer, rng):
    """Give every weight a value that a wrong order or a skipped layer would show."""
    for weight in layer.weights:
        low = 0.5 if "variance" in weight.name else -1
        weight.assign(rng.uniform(low, 1, weight.shape).astype("float32"))


def test_conv_block_equals_numpy(rng):
    block = ConvBlock(3, depth=2)
    image = rng.normal(size=(1, 5, 7, 2)).astype("float32")
    block(image)
    randomize(block, rng)
    expected = image[0]
    for convolution, normalization in zip(block.convolutions, block.normalizations, strict=True):
        expected = reference.convolve_same(expected, numpy(convolution.kernel))
        expected = np.maximum(normalize(expected, normalization), 0)
    np.testing.assert_allclose(numpy(block(image))[0], expected, atol=1e-4)


def test_head_equals_numpy(rng):
    head = Head(2, stride=2, activation="sigmoid")
    features = rng.normal(size=(1, 5, 3, 4)).astype("float32")
    head(features)
    randomize(head, rng)
    kernel, bias = (numpy(weight) for weight in head.convolution.weights)
    logits = reference.shuffle_pixels(reference.convolve_same(features[0], kernel) + bias)
    np.testing.assert_allclose(numpy(head(features))[0], 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("mode", UPSAMPLING_MODES)
def test_upsample_block_equals_numpy(mode, rng):
    block = UpsampleBlock(3, mode=mode)
    image = rng.normal(size=(1, 5, 3, 2)).astype("float32")
    block(image)
    randomize(block, rng)
    kernel = numpy(block.convolution.kernel)
    if mode == "transpose":
        expected = reference.transposed_convolution(image[0], kernel)
    elif mode == "pixel_shuffle":
        expected = reference.shuffle_pixels(reference.convolve_same(image[0], kernel))
    else:
        upsample = {
            "nearest": reference.upsample_nearest,
            "bilinear": reference.upsample_bilinear,
        }[mode]
        expected = reference.convolve_same(upsample(image[0]), kernel)
    expected = np.maximum(normalize(expected, block.normalization), 0)
    np.testing.assert_allclose(numpy(block(image))[0], expected, atol=1e-4)


def test_transposed_convolution_writes_no_checkerboard():
    # Ones everywhere: each pixel inside gets its four kernel entries, so all are the same. With
    # kernel 3 and stride 2, the trap of several rivals, they would be 1, 2 and 4.
    block = UpsampleBlock(1, mode="transpose")
    block.build((1, 6, 6, 1))
    block.convolution.kernel.assign(np.ones((4, 4, 1, 1)))
    inside = numpy(block.convolution(np.ones((1, 6, 6, 1), "float32")))[0, 1:-1, 1:-1, 0]
    np.testing.assert_array_equal(inside, 4)


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(UPSAMPLING_MODES))
def test_upsampling_doubles_any_size(height, width, mode):
    block = UpsampleBlock(2, mode=mode)
    image = np.zeros((1, height, width, 3), "float32")
    assert tuple(block(image).shape) == (1, 2 * height, 2 * width, 2)
    assert block.compute_output_shape((None, height, None, 3)) == (None, 2 * height, None, 2)


def test_crop_keeps_the_top_left(rng):
    features = rng.normal(size=(2, 6, 8, 3)).astype("float32")
    cropped = CropLike()(features, np.zeros((2, 5, 8, 1), "float32"))
    np.testing.assert_array_equal(numpy(cropped), features[:, :5])


@pytest.mark.parametrize("name", MAKERS)
def test_layer_contract(name, rng):
    """Config and back, the same weights and output; gradients; symbolic and real shapes agree."""
    layer = MAKERS[name]()
    image = rng.normal(size=(2, 4, 6, 3)).astype("float32")
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    output = model.predict(image, verbose=0)
    np.testing.assert_array_equal(copy.predict(image, verbose=0), output)
    assert layer.compute_output_shape(image.shape) == output.shape
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()

    before = [weight.copy() for weight in layer.get_weights()]
    model.compile("sgd", "mse")
    model.fit(image, output + 1, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True)]
    assert all(changed), "a weight that one training step leaves alone is not in use"


# A head is float32 whatever the policy: tests/test_unet.py.
@pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith("Head")])
def test_layer_keeps_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = MAKERS[name]()
    finally:
        keras.config.set_dtype_policy("float32")
    output = layer(np.zeros((1, 4, 4, 3), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UpsampleBlock(4, mode="bicubic"), "'bicubic'.*bilinear, nearest, transpose"),
        (lambda: UpsampleBlock(0), "filters must be at least 1; got 0"),
        (lambda: ConvBlock(4, depth=0), "depth must be at least 1; got 0"),
        (lambda: ConvBlock(4, batch_norm_momentum=7), "0..1; got 7"),
        (lambda: UpsampleBlock(4, batch_norm_momentum=-1), "0..1; got -1"),
        (lambda: CropLike()(np.zeros((1, 4, 4, 1)), np.zeros((1, 9, 4, 1))), "smaller feature map"),
        (lambda: ConvBlock(4, kernel_size=0), "kernel_size must be at least 1; got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
