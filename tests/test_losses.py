"""Losses against hand values, Keras's cross-entropy and their own metric; empty masks."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_nuclei import losses
from keras_nuclei.metrics import Dice as DiceMetric

CLASSES = (losses.Dice, losses.BinaryCrossentropyDice)
IMAGES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_hand_values():
    y_true = [[1, 1, 0, 0], [0, 0, 0, 0]]
    y_pred = [[0.5, 1.0, 0.5, 0.0], [1.0, 1.0, 0.0, 0.0]]
    # 1 - (2 * 1.5 + 1) / (2 + 2 + 1) and 1 - (0 + 1) / (0 + 2 + 1)
    np.testing.assert_allclose(numpy(losses.dice_loss(y_true, y_pred)), [1 / 5, 2 / 3], rtol=1e-6)
    # 1 - (2 * 1.5 + 2) / (2 + 2 + 2) and 1 - 2 / 4
    smoother = losses.dice_loss(y_true, y_pred, smooth=2.0)
    np.testing.assert_allclose(numpy(smoother), [1 / 6, 1 / 2], rtol=1e-6)


@given(
    data=IMAGES.flatmap(
        lambda shape: st.tuples(
            hnp.arrays("uint8", shape, elements=st.integers(0, 1)),
            hnp.arrays("uint8", shape, elements=st.integers(0, 1)),
        )
    )
)
def test_of_hard_masks_it_is_one_minus_the_metric(data):
    metric = DiceMetric(per_image=True)
    metric.update_state(*data)
    loss = losses.Dice(smooth=1e-6)(*data)
    assert float(loss) == pytest.approx(1 - float(metric.result()), abs=1e-5)


@given(
    y_pred=IMAGES.flatmap(
        lambda shape: hnp.arrays("float32", shape, elements=st.floats(2**-7, 1 - 2**-7, width=32))
    ),
    weight=st.floats(0, 1),
)
def test_the_sum_is_what_keras_and_dice_say(y_pred, weight):
    y_true = (y_pred > 0.3).astype("float32")
    crossentropy = float(keras.losses.BinaryCrossentropy()(y_true, y_pred))
    dice = float(losses.Dice()(y_true, y_pred))
    both = losses.BinaryCrossentropyDice(crossentropy_weight=weight)(y_true, y_pred)
    assert float(both) == pytest.approx(weight * crossentropy + (1 - weight) * dice, abs=1e-5)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_logits_are_probabilities_before_the_sigmoid(loss_class, rng):
    logits = rng.normal(size=(3, 4, 4, 1)).astype("float32")
    y_true = rng.integers(0, 2, (3, 4, 4, 1))
    by_probability = float(loss_class()(y_true, 1 / (1 + np.exp(-logits))))
    assert float(loss_class(from_logits=True)(y_true, logits)) == pytest.approx(
        by_probability, abs=1e-5
    )


@pytest.mark.parametrize("loss_class", CLASSES)
def test_empty_masks(loss_class):
    empty, full = np.zeros((1, 4, 4, 1)), np.ones((1, 4, 4, 1))
    assert float(loss_class()(empty, empty)) == pytest.approx(0, abs=1e-6)
    # keras.losses.Dice gives its highest value here, and some rivals 0 to any false positive.
    some = full * 0.25
    assert 0 < float(loss_class()(empty, some)) < float(loss_class()(empty, full))


@pytest.mark.parametrize("loss_class", CLASSES)
@pytest.mark.parametrize("start", [-4.0, 4.0])
def test_training_on_empty_masks_learns_to_predict_nothing(loss_class, start):
    inputs = keras.Input((2, 2, 1))
    bias = keras.layers.Dense(1, kernel_initializer="zeros", activation="sigmoid")
    model = keras.Model(inputs, bias(inputs))
    bias.bias.assign([start])
    model.compile(keras.optimizers.SGD(1.0), loss_class())
    images, masks = np.zeros((4, 2, 2, 1)), np.zeros((4, 2, 2, 1))
    losses_seen = model.fit(images, masks, epochs=5, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses_seen))
    assert losses_seen[-1] < losses_seen[0]
    assert float(numpy(bias.bias)[0]) < start


@pytest.mark.parametrize("loss_class", CLASSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_images(loss_class, rng):
    # keras.losses.Dice sums over the batch by default, so that its value depends on the batch.
    y_true, y_pred = rng.integers(0, 2, (5, 3, 3, 1)), rng.random((5, 3, 3, 1))
    each = [float(loss_class()(y_true[i : i + 1], y_pred[i : i + 1])) for i in range(5)]
    assert float(loss_class()(y_true, y_pred)) == pytest.approx(np.mean(each), abs=1e-6)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_sample_weights(loss_class, rng):
    y_true, y_pred = rng.integers(0, 2, (2, 3, 3, 1)), rng.random((2, 3, 3, 1))
    first = float(loss_class()(y_true[:1], y_pred[:1]))
    weighted = loss_class(reduction="sum")(y_true, y_pred, sample_weight=np.array([2.0, 0.0]))
    assert float(weighted) == pytest.approx(2 * first, abs=1e-5)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_a_weight_for_each_pixel_is_refused(loss_class, rng):
    y_true, y_pred = rng.integers(0, 2, (2, 3, 3, 1)), rng.random((2, 3, 3, 1))
    with pytest.raises(ValueError, match=r"\(batch,\); got \(2, 3, 3, 1\).*BinaryCrossentropy"):
        loss_class()(y_true, y_pred, sample_weight=np.ones((2, 3, 3, 1)))
    weights = np.array([2.0, 0.5])
    assert float(loss_class()(y_true, y_pred, sample_weight=weights[:, None])) == pytest.approx(
        float(loss_class()(y_true, y_pred, sample_weight=weights))
    )


@pytest.mark.parametrize("loss_class", CLASSES)
def test_logits_that_were_not_announced_are_refused(loss_class):
    with pytest.raises(ValueError, match="from_logits=True"):
        loss_class()([[1, 0]], [[-8.0, 3.0]])
    with pytest.raises(ValueError, match="NaN"):
        loss_class(from_logits=True)([[1, 0]], [[-8.0, np.nan]])


def test_a_missing_channel_axis_is_no_broadcast(rng):
    y_true, y_pred = rng.integers(0, 2, (3, 5, 4)), rng.random((3, 5, 4, 1))
    assert float(losses.Dice()(y_true[..., None], y_pred)) == pytest.approx(
        float(np.mean(numpy(losses.dice_loss(y_true, y_pred))))
    )


@pytest.mark.parametrize("loss_class", CLASSES)
def test_float16_sums_do_not_overflow(loss_class):
    # 512 * 512 pixels sum to four times the largest float16.
    y_true = np.ones((1, 512, 512, 1), "uint8")
    assert float(loss_class()(y_true, y_true.astype("float16"))) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("loss_class", CLASSES)
def test_masks_of_255_are_refused(loss_class):
    with pytest.raises(ValueError, match="255"):
        loss_class()(np.array([[0, 255]], "uint8"), [[0.0, 1.0]])


def test_soft_masks_are_fine():
    assert float(losses.dice_loss([[0.5]], [[0.5]])[0]) == pytest.approx(1 - 1.5 / 2)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs eagerly: it raises")
def test_inside_a_compiled_step_masks_of_255_make_nan():
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.Activation("sigmoid")(inputs))
    model.compile(loss=losses.BinaryCrossentropyDice())
    masks = np.full((1, 2, 2, 1), 255)
    assert np.isnan(model.evaluate(np.zeros((1, 2, 2, 1)), masks, verbose=0))


@pytest.mark.parametrize("loss_class", CLASSES)
def test_config(loss_class):
    loss = loss_class(smooth=2.0, from_logits=True, reduction="sum", name="mine")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    assert (copy.smooth, copy.from_logits, copy.reduction, copy.name) == (2.0, True, "sum", "mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Dice(smooth=0), "smooth must be above 0"),
        (lambda: losses.BinaryCrossentropyDice(smooth=-1), "smooth must be above 0"),
        (lambda: losses.BinaryCrossentropyDice(crossentropy_weight=1.5), "0..1; got 1.5"),
        (lambda: losses.dice_loss([[1]], [[1]], smooth=0), "smooth must be above 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
