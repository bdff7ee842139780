"""The blocks against NumPy twins (tests/reference.py), and Keras's own contract for layers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_nuclei.attention import SCSE, AttentionGate
from keras_nuclei.blocks import UPSAMPLING_MODES, ConvBlock, CropLike, Head, UpsampleBlock
from keras_nuclei.initializers import ICNR, EvenTranspose
from keras_nuclei.normalization import NORMALIZATIONS, count_groups, make_normalization
from keras_nuclei.resizing import Enlarge
from tests import reference

MAKERS = {
    "ConvBlock": lambda: ConvBlock(4, kernel_size=5, depth=2, batch_norm_momentum=0.8),
    "Head": lambda: Head(2, activation="sigmoid"),
    "Head of stride 2": lambda: Head(2, stride=2),
    "bilinear Head": lambda: Head(2, stride=3, upsampling="bilinear"),
    "SCSE": lambda: SCSE(ratio=2),
    "residual": lambda: ConvBlock(4, depth=2, residual=True, normalization="layer"),
    "residual, no projection": lambda: ConvBlock(3, residual=True),
    **{
        f"{name} ConvBlock": lambda name=name: ConvBlock(4, normalization=name)
        for name in NORMALIZATIONS
    },
    "UpsampleBlock without normalization": lambda: UpsampleBlock(4, normalization=None),
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


@pytest.mark.parametrize("channels", [2, 3])
def test_residual_block_equals_numpy(channels, rng):
    """The input itself where it has as many channels as the output, else through a projection."""
    block = ConvBlock(3, depth=2, residual=True)
    image = rng.normal(size=(1, 5, 7, channels)).astype("float32")
    block(image)
    randomize(block, rng)
    x = image[0]
    for convolution, normalization in zip(block.convolutions, block.normalizations, strict=True):
        if convolution is block.convolutions[1]:
            x = np.maximum(x, 0)
        x = normalize(reference.convolve_same(x, numpy(convolution.kernel)), normalization)
    shortcut = image[0]
    if channels == 2:
        shortcut = shortcut @ numpy(block.projection.kernel)[0, 0]
        shortcut = normalize(shortcut, block.projection_normalization)
    np.testing.assert_allclose(numpy(block(image))[0], np.maximum(x + shortcut, 0), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "axes"),
    # Of images (batch, height, width, group, channel of the group): 8 channels are 2 groups.
    [("group", (1, 2, 4)), ("instance", (1, 2)), ("layer", (3, 4))],
)
def test_normalizations_take_mean_and_variance_where_they_say(name, axes, rng):
    image = rng.normal(3, 2, size=(2, 5, 7, 8)).astype("float32")
    layer = make_normalization(name, 8, momentum=0.9, dtype="float32", name="normalization")
    layer(image)
    randomize(layer, rng)
    gamma, beta = numpy(layer.gamma), numpy(layer.beta)
    grouped = image.reshape(2, 5, 7, 2, 4).astype("float64")
    mean, variance = grouped.mean(axes, keepdims=True), grouped.var(axes, keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-3)).reshape(image.shape)
    np.testing.assert_allclose(numpy(layer(image)), gamma * expected + beta, atol=1e-4)


@given(st.integers(1, 600))
def test_groups_divide_the_channels(channels):
    groups = count_groups(channels)
    assert channels % groups == 0
    assert 1 <= groups <= 32
    assert groups == 1 or channels // groups >= 4


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_bias_only_where_no_normalization_brings_one(normalization):
    for make in (ConvBlock, UpsampleBlock):
        block = make(4, normalization=normalization)
        block.build((1, 4, 4, 3))
        names = [weight.path.split("/")[-1] for weight in block.weights]
        assert ("bias" in names) == (block.normalization_name is None)
        assert names.count("beta") == (block.normalization_name is not None)


def test_attention_gate_equals_numpy(rng):
    gate = AttentionGate(3)
    skip = rng.normal(size=(2, 4, 5, 6)).astype("float32")
    features = rng.normal(size=(2, 4, 5, 7)).astype("float32")
    gate(skip, features)
    randomize(gate, rng)
    of_skip = numpy(gate.skip_projection.kernel)[0, 0]
    of_gate, bias = numpy(gate.gate_projection.kernel)[0, 0], numpy(gate.gate_projection.bias)
    last, last_bias = numpy(gate.attention.kernel)[0, 0], numpy(gate.attention.bias)
    hidden = np.maximum(skip @ of_skip + features @ of_gate + bias, 0)
    weights = 1 / (1 + np.exp(-(hidden @ last + last_bias)))
    assert weights.shape == (2, 4, 5, 1)
    np.testing.assert_allclose(numpy(gate(skip, features)), skip * weights, atol=1e-5)
    assert gate.compute_output_shape(skip.shape, features.shape) == skip.shape


def test_attention_gate_is_a_layer_that_keras_can_keep(rng):
    skip, features = keras.Input((None, None, 3)), keras.Input((None, None, 5))
    model = keras.Model([skip, features], AttentionGate(2)(skip, features))
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    arrays = [rng.normal(size=(2, 4, 6, channels)).astype("float32") for channels in (3, 5)]
    np.testing.assert_array_equal(numpy(copy(arrays)), numpy(model(arrays)))


def test_scse_equals_numpy(rng):
    layer = SCSE(ratio=2)
    image = rng.normal(size=(2, 4, 5, 20)).astype("float32")
    layer(image)
    randomize(layer, rng)
    means = image.mean((1, 2))
    hidden = np.maximum(means @ numpy(layer.squeeze.kernel) + numpy(layer.squeeze.bias), 0)
    assert hidden.shape == (2, 10)
    logits = hidden @ numpy(layer.excite.kernel) + numpy(layer.excite.bias)
    channels = 1 / (1 + np.exp(-logits))[:, None, None, :]
    kernel, bias = numpy(layer.pixel_attention.kernel)[0, 0], numpy(layer.pixel_attention.bias)
    pixels = 1 / (1 + np.exp(-(image @ kernel + bias)))
    expected = image * channels + image * pixels
    np.testing.assert_allclose(numpy(layer(image)), expected, atol=1e-5)


@pytest.mark.parametrize(("channels", "squeezed"), [(3, 3), (8, 8), (64, 8), (256, 16)])
def test_scse_leaves_a_sixteenth_but_eight(channels, squeezed):
    layer = SCSE()
    layer.build((None, None, None, channels))
    assert layer.squeeze.kernel.shape == (channels, squeezed)


@pytest.mark.parametrize(("factor", "mode"), [(2, "bilinear"), (3, "bilinear"), (3, "nearest")])
def test_enlarge_equals_numpy(factor, mode, rng):
    """Linear interpolation along each axis in turn is bilinear interpolation."""
    image = rng.normal(size=(2, 4, 5, 3)).astype("float32")
    expected = image
    for axis in (1, 2):
        size = image.shape[axis]
        places = (np.arange(factor * size) + 0.5) / factor - 0.5
        if mode == "nearest":
            places = np.round(places)
        expected = np.apply_along_axis(
            lambda values, places=places: np.interp(places, np.arange(len(values)), values),
            axis,
            expected,
        )
    np.testing.assert_allclose(numpy(Enlarge(factor, mode=mode)(image)), expected, atol=1e-5)


def test_icnr_is_nearest_upsampling_of_what_the_one_kernel_gives(rng):
    """Aitken et al. 2017, section 2.3: convolve to a channel each, then each pixel nine times."""
    kernel = numpy(ICNR(3)((3, 3, 2, 9 * 4)))
    assert np.ptp(kernel[..., :4]) > 0
    layer = keras.layers.Conv2D(9 * 4, 3, padding="same", use_bias=False)
    layer.build((None, 5, 6, 2))
    layer.kernel.assign(kernel)
    image = rng.normal(size=(1, 5, 6, 2)).astype("float32")
    shuffled = keras.ops.depth_to_space(layer(image), 3)
    small = reference.convolve_same(image[0], kernel[..., :4])
    np.testing.assert_allclose(numpy(shuffled)[0], np.kron(small, np.ones((3, 3, 1))), atol=1e-5)


@pytest.mark.parametrize("initializer", [ICNR(3, "glorot_uniform"), EvenTranspose("ones")])
def test_initializers_come_back_from_their_config(initializer):
    config = keras.initializers.serialize(initializer)
    copy = keras.initializers.deserialize(config)
    assert type(copy) is type(initializer)
    assert copy.get_config() == initializer.get_config()


def test_initial_kernels_are_as_wide_as_he():
    """He et al. 2015: variance 2 / inputs, so 2 / (4 * 500) and 2 / (9 * 100)."""
    assert numpy(EvenTranspose()((4, 4, 40, 500))).var() == pytest.approx(2 / 2000, rel=0.05)
    assert numpy(ICNR()((3, 3, 100, 400))).var() == pytest.approx(2 / 900, rel=0.05)


@pytest.mark.parametrize("mode", UPSAMPLING_MODES)
@pytest.mark.parametrize("normalization", ["batch", "layer", None])
def test_upsampling_keeps_a_constant_constant_at_first(mode, normalization, rng):
    block = UpsampleBlock(3, mode=mode, normalization=normalization)
    image = np.tile(rng.normal(size=(1, 1, 1, 8)), (1, 6, 6, 1)).astype("float32")
    output = numpy(block(image))[0]
    inside = output[3:-3, 3:-3]
    assert np.ptp(output) > 1e-2, "the border shows"
    np.testing.assert_allclose(inside, np.broadcast_to(inside[0, 0], inside.shape), atol=1e-5)


@pytest.mark.parametrize("upsampling", ["pixel_shuffle", "bilinear"])
def test_a_head_keeps_a_constant_constant_at_first(upsampling, rng):
    head = Head(2, stride=4, upsampling=upsampling)
    image = np.tile(rng.normal(size=(1, 1, 1, 8)), (1, 4, 4, 1)).astype("float32")
    inside = numpy(head(image))[0, 4:-4, 4:-4]
    assert np.ptp(inside[0, 0]) > 0
    np.testing.assert_allclose(inside, np.broadcast_to(inside[0, 0], inside.shape), atol=1e-5)


def test_a_saved_block_from_before_the_options_loads():
    for layer in (ConvBlock(4), UpsampleBlock(4, mode="nearest"), Head(1, stride=2)):
        config = layer.get_config()
        known = {
            key: value
            for key, value in config.items()
            if key not in ("normalization", "residual", "upsampling")
        }
        assert len(known) < len(config)
        assert type(layer).from_config(known).get_config() == config


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
@pytest.mark.parametrize("name", [name for name in MAKERS if "Head" not in name])
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
        (
            lambda: UpsampleBlock(4, mode="bicubic"),
            "mode must be one of 'bilinear', .* got 'bicubic'",
        ),
        (lambda: UpsampleBlock(0), "filters must be at least 1; got 0"),
        (lambda: ConvBlock(4, depth=0), "depth must be at least 1; got 0"),
        (lambda: ConvBlock(4, batch_norm_momentum=7), "0..1; got 7"),
        (lambda: UpsampleBlock(4, batch_norm_momentum=-1), "0..1; got -1"),
        (lambda: CropLike()(np.zeros((1, 4, 4, 1)), np.zeros((1, 9, 4, 1))), "smaller feature map"),
        (lambda: ConvBlock(4, normalization="sync"), "normalization must be one of .*got 'sync'"),
        (lambda: UpsampleBlock(4, normalization="sync"), "normalization must be .*got 'sync'"),
        (lambda: Head(1, upsampling="nearest"), "'pixel_shuffle', 'bilinear'; got 'nearest'"),
        (lambda: Enlarge(0), "factor must be at least 1; got 0"),
        (lambda: Enlarge(2, mode="cubic"), "'bilinear', 'nearest'; got 'cubic'"),
        (lambda: AttentionGate(0), "filters must be at least 1; got 0"),
        (lambda: SCSE(0), "ratio must be at least 1; got 0"),
        (lambda: ICNR(2)((3, 3, 2, 6)), r"output channels 4 divides; got .*6\)"),
        (lambda: EvenTranspose()((3, 3, 2, 2)), r"got the shape \(3, 3, 2, 2\)"),
        (lambda: ConvBlock(4, kernel_size=0), "kernel_size must be at least 1; got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
