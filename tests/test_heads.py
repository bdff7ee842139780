"""Heads replaced and left out: the body stays the same layers, with the same weights."""

import keras
import numpy as np
import pytest

import keras_nuclei
from keras_nuclei.heads import replace_head, without_deep_supervision
from tests.test_decoders import DECODERS, SHAPE, build, outputs_of, random_images


def is_of_a_head(weight):
    return "head" in weight.path or "foreground" in weight.path


def body_of(model):
    """Weights but those of heads, by path."""
    return {weight.path: weight for weight in model.weights if not is_of_a_head(weight)}


@pytest.mark.parametrize("options", [{}, {"decoder_stride": 2}])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_another_number_of_classes_on_the_same_body(decoder, loaded, options, tmp_path, rng):
    model = build(decoder, **options)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    images = random_images(rng)
    before = outputs_of(model, images)["head"]
    other = replace_head(model, num_classes=3, classifier_activation="softmax")
    output = outputs_of(other, images)["head"]
    assert output.shape == (*SHAPE[:3], 3)
    np.testing.assert_allclose(output.sum(-1), 1, atol=1e-5)
    assert other.name == model.name
    body = body_of(other)
    assert body.keys() == body_of(model).keys()
    assert all(body[path] is weight for path, weight in body_of(model).items())
    np.testing.assert_array_equal(outputs_of(model, images)["head"], before)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_same_head_gives_the_same_output(decoder, rng):
    """With the old head's weights in the new one, nothing has changed."""
    model = build(decoder)
    other = replace_head(model)
    assert other.get_layer("head") is not model.get_layer("head")
    other.get_layer("head").set_weights(model.get_layer("head").get_weights())
    images = random_images(rng)
    np.testing.assert_array_equal(
        outputs_of(other, images)["head"], outputs_of(model, images)["head"]
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_output_becomes_several_and_one_again(decoder, tmp_path, rng):
    images = random_images(rng)
    several = replace_head(build(decoder), heads={"foreground": 1, "flow": 2})
    assert {name: output.shape for name, output in outputs_of(several, images).items()} == {
        "foreground": (*SHAPE[:3], 1),
        "flow": (*SHAPE[:3], 2),
    }
    several.save(tmp_path / "model.keras")
    one = replace_head(keras.models.load_model(tmp_path / "model.keras"))
    assert not isinstance(one.output, dict)
    assert outputs_of(one, images)["head"].shape == (*SHAPE[:3], 1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_heads_of_deep_supervision_are_replaced_too(decoder, rng):
    model = replace_head(build(decoder, deep_supervision=1), num_classes=2)
    outputs = outputs_of(model, random_images(rng))
    assert {name: output.shape for name, output in outputs.items()} == {
        "head": (*SHAPE[:3], 2),
        "head_stride2": (*SHAPE[:3], 2),
    }


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("heads", [None, {"foreground": 1, "flow": 2}])
@pytest.mark.parametrize("decoder", DECODERS)
def test_heads_of_deep_supervision_are_left_out(decoder, heads, loaded, tmp_path, rng):
    model = build(decoder, deep_supervision=1, heads=heads)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    used = without_deep_supervision(model)
    images = random_images(rng)
    outputs, before = outputs_of(used, images), outputs_of(model, images)
    assert set(outputs) == set(heads or {"head": 1})
    assert isinstance(used.output, dict) == (heads is not None)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output, before[name])
    plain = build(decoder, heads=heads)
    assert [weight.path for weight in used.weights] == [weight.path for weight in plain.weights]
    assert without_deep_supervision(used) is used


def test_what_is_frozen_stays_frozen():
    model = build("unet", encoder_trainable=False)
    other = replace_head(model)
    assert not other.get_layer("plain").trainable_variables


def test_a_new_head_learns_on_a_frozen_body(rng):
    """Only the head, its kernel and its bias, is trained."""
    model = replace_head(build("unet"), num_classes=2)
    for layer in model.layers:
        layer.trainable = layer.name == "head"
    before = {path: keras.ops.convert_to_numpy(w).copy() for path, w in body_of(model).items()}
    head = model.get_layer("head").get_weights()
    model.compile("sgd", "binary_crossentropy")
    model.fit(random_images(rng), rng.integers(0, 2, (*SHAPE[:3], 2)), verbose=0)
    for path, weight in body_of(model).items():
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), before[path])
    for old, new in zip(head, model.get_layer("head").get_weights(), strict=True):
        assert not np.array_equal(old, new)


def test_a_preset_takes_another_head():
    model = replace_head(keras_nuclei.from_preset("nuclei_small"), heads={"membrane": 1})
    outputs = model(np.zeros((1, 33, 47, 3), "float32"))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "membrane": (1, 33, 47, 1)
    }


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"must be a functional keras\.Model.*got str"):
        replace_head("unet")
    with pytest.raises(TypeError, match="functional"):
        without_deep_supervision(keras.Model())
    inputs = keras.Input((4,))
    foreign = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match=r"no layer of the class keras_nuclei\.blocks\.Head"):
        replace_head(foreign)
    with pytest.raises(ValueError, match=r"num_classes must be .*, at least 1; got 0"):
        replace_head(build("unet"), num_classes=0)
    with pytest.raises(ValueError, match="either heads or num_classes"):
        replace_head(build("unet"), num_classes=2, heads={"foreground": 1})


@pytest.mark.parametrize(
    ("name", "taken"),
    [("image", "image"), ("plain", "plain"), ("join_1", "join_1"), ("crop_foreground",) * 2],
)
def test_a_head_named_as_another_layer_is_refused(name, taken):
    heads = {"foreground": 1, name: 1}
    with pytest.raises(ValueError, match=f"can't be named '.+'.* has a layer '{taken}' already"):
        build("unet", decoder_stride=2, heads=heads)


@pytest.mark.parametrize("decoder", DECODERS)
def test_each_head_may_have_its_own_activation(decoder, tmp_path, rng):
    activations = {"foreground": "sigmoid", "kind": "softmax", "size": None}
    heads = {"foreground": 1, "kind": 3, "size": 1}
    model = build(decoder, heads=heads, classifier_activation=activations, deep_supervision=1)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    outputs = outputs_of(model, random_images(rng))
    for suffix in ("", "_stride2"):
        kinds = outputs[f"kind{suffix}"]
        np.testing.assert_allclose(kinds.sum(-1), 1, atol=1e-5)
        assert kinds.shape == (*SHAPE[:3], 3)
        found = {name: model.get_layer(f"{name}{suffix}").activation.__name__ for name in heads}
        assert found == {"foreground": "sigmoid", "kind": "softmax", "size": "linear"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": "3"}, "whole number, at least 1; got '3'"),
        ({"heads": {"a/b": 1}}, "names TensorFlow allows.*; got \\['a/b'\\]"),
        ({"heads": {"ä b": 1}}, "names TensorFlow allows.*; got \\['ä b'\\]"),
        ({"heads": {5: 1}}, "names TensorFlow allows.*; got \\[5\\]"),
        ({"heads": {"a": 1.5}}, "dict of names and numbers of channels.*got {'a': 1.5}"),
        ({"classifier_activation": "sigmod"}, "name of a Keras activation.*got 'sigmod'"),
        ({"classifier_activation": "softmax"}, "softmax of one channel is 1.*for 'head'"),
        (
            {"heads": {"a": 1, "b": 2}, "classifier_activation": {"a": "sigmoid"}},
            "one activation for each of the heads, \\['a', 'b'\\]; got {'a': 'sigmoid'}",
        ),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_what_no_head_can_be_is_an_error(decoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(decoder, **arguments)
    with pytest.raises(ValueError, match=message):
        replace_head(build(decoder), **arguments)
