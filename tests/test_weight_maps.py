"""Border weights against a slow twin and by hand; their way into training."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_nuclei.losses import border_weights
from tests import reference


@given(
    hnp.arrays("uint8", (7, 9), elements=st.sampled_from([0, 0, 0, 1, 2, 5])),
    st.floats(0, 20),
    st.floats(0.5, 8),
)
def test_equals_the_formula(label_map, border_weight, sigma):
    found = border_weights(label_map, border_weight=border_weight, sigma=sigma)
    expected = reference.border_weights(label_map, border_weight, sigma)
    assert found.dtype == np.float32
    # What is left out where the border term is negligible.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6 * border_weight)


def test_by_hand():
    # Between two nuclei 3 pixels apart: d1 = 1, d2 = 2; and with weights of the classes.
    label_map = np.array([[0, 3, 0, 0, 8, 0]])
    weights = border_weights(label_map, class_weights=(0.5, 2.0))
    assert weights[0, 2] == pytest.approx(0.5 + 10 * np.exp(-(3**2) / 50))
    assert weights[0, 1] == pytest.approx(2.0 + 10 * np.exp(-(3**2) / 50))
    assert weights[0, 0] == pytest.approx(0.5 + 10 * np.exp(-((1 + 4) ** 2) / 50))


@pytest.mark.parametrize("number", [0, 1, 40000])
def test_fewer_than_two_nuclei_have_no_border(number):
    label_map = np.zeros((4, 5), "int64")
    label_map[1, 1] = number
    assert border_weights(label_map).tolist() == np.ones((4, 5)).tolist()


def test_an_image_without_background():
    assert border_weights(np.array([[1, 2]])) == pytest.approx(1 + 10 * np.exp(-1 / 50))


def test_far_nuclei_do_not_matter_and_near_ones_do():
    label_map = np.zeros((1, 200), int)
    label_map[0, 0], label_map[0, 199] = 1, 2
    assert border_weights(label_map).max() == 1
    assert border_weights(label_map, sigma=100.0).max() > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"border_weight": -1}, "border_weight must be at least 0; got -1"),
        ({"sigma": 0}, "sigma must be above 0"),
        ({"class_weights": (1.0, -1.0)}, "background and of nuclei"),
        ({"class_weights": (1.0, 1.0, 1.0)}, "background and of nuclei"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        border_weights(np.zeros((2, 2), int), **arguments)


def test_a_mask_is_no_label_map():
    with pytest.raises(TypeError, match=r"measure\.label"):
        border_weights(np.zeros((2, 2), bool))


@pytest.mark.parametrize("channel_axis", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_training_takes_them_as_weights_of_pixels(channel_axis, from_logits, rng):
    # Not square, and as many images as columns: a wrong broadcast would not go unseen.
    label_maps = rng.integers(0, 3, (5, 4, 5))
    masks = (label_maps > 0).astype("float32")[..., None]
    weights = np.stack([border_weights(label_map) for label_map in label_maps])
    logits = rng.normal(size=(5, 4, 5, 1)).astype("float32")
    probabilities = 1 / (1 + np.exp(-logits.astype("float64")))
    pixels = -np.log(np.where(masks > 0, probabilities, 1 - probabilities))[..., 0]
    expected = (weights * pixels).sum() / pixels.size

    inputs = keras.Input((None, None, 1))
    activation = "linear" if from_logits else "sigmoid"
    model = keras.Model(inputs, keras.layers.Activation(activation)(inputs))
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=from_logits))
    given_weights = weights[..., None] if channel_axis else weights
    # One batch, so that the mean is that of all pixels.
    for found in (
        model.evaluate(logits, masks, sample_weight=given_weights, batch_size=5, verbose=0),
        model.test_on_batch(logits, masks, sample_weight=given_weights),
    ):
        assert float(found) == pytest.approx(expected, rel=1e-4)
