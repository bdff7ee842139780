"""What every decoder keeps, with each of its options. A new decoder is one more entry."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_nuclei
from keras_nuclei.blocks import UPSAMPLING_MODES
from keras_nuclei.fpn import fpn
from keras_nuclei.losses import BinaryCrossentropyDice
from keras_nuclei.unet import unet
from keras_nuclei.unetplusplus import unetplusplus


def narrow(levels):
    return {"decoder_filters": (8, 6, 5, 4, 4)[-levels:]}


# Each with arguments that make it small, for an encoder that halves so many times.
DECODERS = {
    "unet": (unet, narrow),
    "unetplusplus": (unetplusplus, narrow),
    "fpn": (
        fpn,
        lambda levels: {"pyramid_filters": 8, "segmentation_filters": 6, "decoder_stride": 1},
    ),
}

# Each value of each option once, with others: a model for each alone would take too long.
OPTIONS = {
    "defaults": {},
    "nearest, group, gate, depth": {
        "upsampling": "nearest",
        "normalization": "group",
        "attention": "gate",
        "decoder_depth": 2,
    },
    "transpose, instance, scse, dropout": {
        "upsampling": "transpose",
        "normalization": "instance",
        "attention": "scse",
        "dropout": 0.5,
    },
    "pixel shuffle, layer, residual, supervision": {
        "upsampling": "pixel_shuffle",
        "normalization": "layer",
        "residual": True,
        "deep_supervision": 1,
    },
    "no normalization, heads, stride, all but dropout": {
        "normalization": None,
        "heads": {"foreground": 1, "distance": 2},
        "decoder_stride": 2,
        "attention": "gate",
        "residual": True,
    },
}
EVERY = pytest.mark.parametrize(
    ("decoder", "options"), [(decoder, options) for decoder in DECODERS for options in OPTIONS]
)

SHAPE = (2, 13, 18, 3)
# JAX compiles each operation anew for each size.
ANY_SIZES = 1 if keras.backend.backend() == "jax" else 4


def build(decoder, encoder=None, **arguments):
    """A small model of a decoder, of three levels unless an encoder is given."""
    make, widths = DECODERS[decoder]
    encoder = encoder or keras_nuclei.encoders.plain(filters=(4, 8, 8))
    levels = max(int(level[1:]) for level in encoder.output)
    levels -= arguments.get("decoder_stride", 1).bit_length() - 1
    return make(encoder, **{**widths(levels), **arguments})


def outputs_of(model, images):
    """Outputs by name, as NumPy arrays; a single one is "head"."""
    outputs = model(images)
    outputs = outputs if isinstance(outputs, dict) else {"head": outputs}
    return {name: keras.ops.convert_to_numpy(output) for name, output in outputs.items()}


def random_images(rng, shape=SHAPE):
    return rng.integers(0, 256, shape).astype("float32")


def channels_of(options):
    """Names of the outputs and their numbers of channels that the options ask for."""
    heads = options.get("heads", {"head": 1})
    first = options.get("decoder_stride", 1)
    strides = [first * 2**i for i in range(1, options.get("deep_supervision", 0) + 1)]
    suffixes = ["", *(f"_stride{stride}" for stride in strides)]
    return {f"{head}{suffix}": heads[head] for head in heads for suffix in suffixes}


@EVERY
def test_outputs_are_as_large_as_the_image(decoder, options, rng):
    model = build(decoder, **OPTIONS[options])
    outputs = outputs_of(model, random_images(rng))
    assert {name: output.shape for name, output in outputs.items()} == {
        name: (*SHAPE[:3], channels) for name, channels in channels_of(OPTIONS[options]).items()
    }
    single = not OPTIONS[options].get("heads") and not OPTIONS[options].get("deep_supervision")
    assert isinstance(model.output, dict) != single
    for output in outputs.values():
        assert output.min() >= 0
        assert output.max() <= 1
        assert output.std() > 0


@pytest.mark.parametrize("decoder", DECODERS)
@settings(max_examples=ANY_SIZES)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_size(decoder, height, width):
    options = {"decoder_stride": 2, "deep_supervision": 1, "attention": "scse", "dropout": 0.1}
    encoder = keras_nuclei.encoders.plain(filters=(4, 4, 8, 8))
    model = build(decoder, encoder, **options)
    outputs = outputs_of(model, np.zeros((1, height, width, 3), "float32"))
    assert set(outputs) == {"head", "head_stride4"}
    assert {output.shape for output in outputs.values()} == {(1, height, width, 1)}


@EVERY
def test_a_training_step_changes_every_weight(decoder, options, rng):
    """A weight that a step leaves alone is not in use."""
    model = build(decoder, **OPTIONS[options])
    channels = channels_of(OPTIONS[options])
    targets = {
        name: rng.integers(0, 2, (*SHAPE[:3], count)).astype("float32")
        for name, count in channels.items()
    }
    single = not isinstance(model.output, dict)
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(1.0),
        BinaryCrossentropyDice()
        if single
        else {name: BinaryCrossentropyDice() for name in targets},
        loss_weights=None if single else {name: 1 / (1 + i) for i, name in enumerate(targets)},
        # TensorFlow's graphs, which take seconds to build, have a test of their own below.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    history = model.fit(
        random_images(rng), targets["head"] if single else targets, verbose=0
    ).history
    assert np.isfinite(history["loss"][0])
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(weight), old)
    ]
    assert not unchanged


@EVERY
def test_comes_back_from_a_file(decoder, options, tmp_path, rng):
    model = build(decoder, **OPTIONS[options])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = random_images(rng)
    before, after = outputs_of(model, images), outputs_of(loaded, images)
    assert before.keys() == after.keys()
    for name, output in before.items():
        np.testing.assert_array_equal(after[name], output)


# Half precision overflows in means over an image, if anywhere: by normalization or scSE.
@pytest.mark.parametrize(
    ("policy", "decoder", "options"),
    [
        *(("mixed_bfloat16", decoder, options) for decoder in DECODERS for options in OPTIONS),
        *(("mixed_float16", decoder, "transpose, instance, scse, dropout") for decoder in DECODERS),
    ],
)
def test_heads_are_float32_under_mixed_precision(decoder, options, policy, rng):
    keras.config.set_dtype_policy(policy)
    try:
        model = build(decoder, **OPTIONS[options])
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = outputs_of(model, random_images(rng))
    assert {output.dtype for output in outputs.values()} == {np.dtype("float32")}
    assert all(np.isfinite(output).all() for output in outputs.values())
    body = [layer for layer in model.layers if layer.name.startswith(("upsample", "decoder"))]
    dtypes = {layer.compute_dtype for layer in body}
    assert dtypes == {policy.removeprefix("mixed_")}


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_are_what_the_sigmoid_takes(decoder, rng):
    options = {"heads": {"foreground": 1, "flow": 2}, "deep_supervision": 1}
    logits = build(decoder, classifier_activation=None, **options)
    probabilities = build(decoder, **options)
    probabilities.set_weights(logits.get_weights())
    images = random_images(rng)
    for name, output in outputs_of(logits, images).items():
        if not name.endswith("_stride2"):
            expected = 1 / (1 + np.exp(-output))
            np.testing.assert_allclose(outputs_of(probabilities, images)[name], expected, atol=1e-5)


def encoder_with_gains():
    """An encoder each of whose levels can be silenced."""
    encoder = keras_nuclei.encoders.plain(filters=(4, 8, 8))
    pyramid = {
        level: keras.layers.DepthwiseConv2D(
            1, depthwise_initializer="ones", use_bias=False, name=f"gain_{level}"
        )(features)
        for level, features in encoder.output.items()
    }
    return keras.Model(encoder.input, pyramid, name="with_gains")


@EVERY
def test_every_skip_is_used(decoder, options, rng):
    """Silence one level of the encoder, and the output changes."""
    encoder = encoder_with_gains()
    model = build(decoder, encoder, **OPTIONS[options])
    # Half the size of the image is where a decoder of stride 2 ends: it has no use for P0.
    used = set(encoder.output) - ({"P0"} if OPTIONS[options].get("decoder_stride") else set())
    images = random_images(rng)
    before = next(iter(outputs_of(model, images).values()))
    for level in used:
        gain = encoder.get_layer(f"gain_{level}").kernel
        value = keras.ops.convert_to_numpy(gain).copy()
        gain.assign(0 * value)
        after = next(iter(outputs_of(model, images).values()))
        gain.assign(value)
        assert np.abs(after - before).max() > 1e-4, level


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("levels", [("P2", "P3"), ("P0", "P2"), ("P1", "P3")])
def test_levels_may_be_missing(decoder, levels, rng):
    """As in KerasHub's ResNet pyramids, which begin at P2."""
    whole = keras_nuclei.encoders.plain(filters=(4, 4, 8, 8))
    encoder = keras.Model(whole.input, {level: whole.output[level] for level in levels})
    model = build(decoder, encoder, attention="gate")
    outputs = outputs_of(model, random_images(rng))
    assert outputs["head"].shape == (*SHAPE[:3], 1)


@pytest.mark.parametrize("upsampling", UPSAMPLING_MODES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_constant_image_gives_a_constant_map(decoder, upsampling):
    """Before any training, away from the border, at odd places as at even ones."""
    model = build(decoder, upsampling=upsampling, decoder_stride=1, classifier_activation=None)
    output = outputs_of(model, np.full((1, 80, 80, 3), 200, "float32"))["head"][0, :, :, 0]
    inside = output[36:44, 36:44]
    assert np.ptp(output) > 1e-3, "the border shows, so the map is not just constant"
    np.testing.assert_allclose(inside, inside[0, 0], atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_supervision_leaves_the_model_that_is_used_as_it_is(decoder, rng):
    """The same arguments without it build a model that takes the same weights."""
    supervised = build(decoder, deep_supervision=1)
    plain = build(decoder)
    values = {weight.path: keras.ops.convert_to_numpy(weight) for weight in supervised.weights}
    for weight in plain.weights:
        weight.assign(values[weight.path])
    images = random_images(rng)
    np.testing.assert_array_equal(
        outputs_of(supervised, images)["head"], outputs_of(plain, images)["head"]
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
@EVERY
def test_one_graph_takes_all_sizes(decoder, options, rng):
    """What is exported is one graph, in which the batch and the size are not known."""
    import tensorflow as tf

    model = build(decoder, **OPTIONS[options])
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3), "float32")])
    for shape in [SHAPE, (1, 7, 11, 3)]:
        images = random_images(rng, shape)
        outputs = graph(images)
        outputs = outputs if isinstance(outputs, dict) else {"head": outputs}
        for name, expected in outputs_of(model, images).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upsampling": "cubic"}, "upsampling must be one of 'bilinear'.*got 'cubic'"),
        ({"normalization": "sync"}, "normalization must be one of .*None; got 'sync'"),
        ({"attention": "self"}, "attention must be one of None, 'gate', 'scse'; got 'self'"),
        ({"dropout": 1.0}, "dropout, a share, .* less than 1; got 1.0"),
        ({"dropout": -0.1}, "got -0.1"),
        ({"deep_supervision": -1}, r"deep_supervision must be .* 0\.\..*; got -1"),
        ({"deep_supervision": 9}, r"deep_supervision must be .* 0\.\..*; got 9"),
        ({"decoder_stride": 8}, "power of two below 4.*got 8"),
        ({"num_classes": 0}, "num_classes must be .*, at least 1; got 0"),
        ({"heads": {"a_stride2": 1}}, r"those of deep supervision; got \['a_stride2'\]"),
    ],
)
def test_bad_arguments(decoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(decoder, **arguments)


def test_residual_needs_convolutions():
    with pytest.raises(ValueError, match="pass decoder_depth of at least 1"):
        build("unet", residual=True, decoder_depth=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge": "max"}, "merge must be one of 'add', 'concatenate'; got 'max'"),
        ({"pyramid_filters": 0}, "pyramid_filters must be at least 1; got 0"),
        ({"segmentation_filters": 0}, "segmentation_filters must be at least 1; got 0"),
        ({"decoder_depth": 0}, "decoder_depth must be at least 1; got 0"),
    ],
)
def test_bad_arguments_of_the_pyramid(arguments, message):
    with pytest.raises(ValueError, match=message):
        build("fpn", **arguments)


def test_nodes_of_a_nested_unet_are_those_of_the_paper():
    """Zhou et al. 2018, figure 1a: on level i of a depth of 4, nodes X(i, 1) to X(i, 4 - i)."""
    encoder = keras_nuclei.encoders.plain(filters=(4, 4, 4, 4, 4))
    model = build("unetplusplus", encoder)
    nodes = {layer.name for layer in model.layers if layer.name.startswith("decoder_")}
    assert nodes == {f"decoder_{i}_{j}" for i in range(4) for j in range(1, 5 - i)}
    # X(1, 3) joins X(1, 0) of 4 channels, X(1, 1), X(1, 2) and the upsampled X(2, 2), of 4 each.
    assert model.get_layer("join_1_3").output.shape[-1] == 4 + 4 + 4 + 4
    # Without P0 there is nothing to pass through nodes on the finest level.
    model = build(
        "unetplusplus", keras.Model(encoder.input, dict(list(encoder.output.items())[1:]))
    )
    nodes = {layer.name for layer in model.layers if layer.name.startswith("decoder_0")}
    assert nodes == {"decoder_0_4"}


def test_the_pyramid_merges_by_sum_or_side_by_side():
    """Three branches of 6 channels."""
    for merge, channels in {"add": 6, "concatenate": 18}.items():
        assert build("fpn", merge=merge).get_layer("merge").output.shape[-1] == channels
