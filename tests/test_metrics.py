"""Dice and IoU against scikit-learn, hand counts, and the traps that other metrics fall into."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score

from keras_nuclei.metrics import Dice, IoU
from tests import reference

BOTH = pytest.mark.parametrize("metric_class", [Dice, IoU])
SKLEARN = {Dice: f1_score, IoU: jaccard_score}


def score(metric, *batches):
    for y_true, y_pred in batches:
        metric.update_state(y_true, y_pred)
    return float(metric.result())


def binary(shape):
    return hnp.arrays("uint8", shape, elements=st.integers(0, 1))


@st.composite
def masks_and_probabilities(draw):
    shape = (*draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)), 1)
    probabilities = hnp.arrays("float32", shape, elements=st.floats(0, 1, width=32))
    return draw(binary(shape)), draw(probabilities)


@BOTH
@given(data=masks_and_probabilities())
def test_equals_scikit_learn(metric_class, data):
    y_true, y_pred = data
    # zero_division=1 is scikit-learn's name for "both empty is perfect agreement".
    expected = SKLEARN[metric_class](y_true.ravel(), y_pred.ravel() > 0.5, zero_division=1.0)
    assert score(metric_class(), (y_true, y_pred)) == pytest.approx(expected, abs=1e-6)


@BOTH
@given(data=masks_and_probabilities())
def test_per_image_equals_the_mean_of_scikit_learn(metric_class, data):
    y_true, y_pred = data
    expected = np.mean(
        [
            SKLEARN[metric_class](true.ravel(), pred.ravel() > 0.5, zero_division=1.0)
            for true, pred in zip(y_true, y_pred, strict=True)
        ]
    )
    assert score(metric_class(per_image=True), data) == pytest.approx(expected, abs=1e-5)


@BOTH
@pytest.mark.parametrize("per_image", [False, True])
@given(
    data=masks_and_probabilities(),
    cuts=st.lists(st.integers(0, 6), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_batch_size_and_order_do_not_matter(metric_class, per_image, data, cuts, order):
    whole = score(metric_class(per_image=per_image), data)
    batches = [
        batch
        for batch in zip(*(np.split(array, sorted(cuts)) for array in data), strict=True)
        if len(batch[0])
    ]
    order.shuffle(batches)
    assert score(metric_class(per_image=per_image), *batches) == pytest.approx(whole, abs=1e-6)


@given(data=masks_and_probabilities())
def test_iou_follows_from_dice(data):
    dice, iou = score(Dice(), data), score(IoU(), data)
    assert iou == pytest.approx(dice / (2 - dice), abs=1e-6)


def test_hand_counts():
    y_true = np.array([[1, 1, 1, 0, 0, 0]])
    y_pred = np.array([[0.9, 0.8, 0.1, 0.7, 0.2, 0.3]])
    assert reference.overlap_counts(y_true, y_pred > 0.5) == (2, 1, 1)
    assert score(Dice(), (y_true, y_pred)) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert score(IoU(), (y_true, y_pred)) == pytest.approx(2 / (2 + 1 + 1))


@BOTH
def test_both_empty_is_perfect_and_false_positives_are_not(metric_class):
    empty, full = np.zeros((1, 4, 4, 1)), np.ones((1, 4, 4, 1))
    assert score(metric_class(), (empty, empty)) == 1
    assert score(metric_class(), (empty, full)) == 0
    assert score(metric_class(), (full, empty)) == 0
    # An empty image first, and false positives in it count against what follows.
    mixed = score(metric_class(), (empty, full), (full, full))
    assert mixed == pytest.approx({Dice: 2 * 16 / (2 * 16 + 16), IoU: 16 / 32}[metric_class])
    assert score(metric_class(per_image=True), (empty, full), (full, full)) == pytest.approx(0.5)


@BOTH
def test_before_any_update_the_score_is_that_of_empty_masks(metric_class):
    assert float(metric_class().result()) == 1
    assert float(metric_class(per_image=True).result()) == 1


@BOTH
def test_confidence_does_not_count_only_the_side_of_the_threshold(metric_class):
    y_true = np.array([[1, 0, 1, 0]], "uint8")
    assert score(metric_class(), (y_true, [[0.9, 0.1, 0.6, 0.4]])) == 1
    assert score(metric_class(threshold=0.7), (y_true, [[0.9, 0.1, 0.8, 0.6]])) == 1


def test_threshold_is_exclusive():
    assert score(Dice(), ([[1, 0]], [[0.5, 0.5]])) == 0


def test_background_does_not_inflate():
    # 1 of 100 pixels is a nucleus, and 1 more is predicted: accuracy 0.99, IoU 1 / 2.
    y_true, y_pred = np.zeros((1, 10, 10)), np.zeros((1, 10, 10))
    y_true[0, 0, 0] = y_pred[0, 0, :2] = 1
    assert score(IoU(), (y_true, y_pred)) == 0.5


@BOTH
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32"])
def test_any_dtype(metric_class, dtype):
    y_true = np.array([[1, 1, 0, 0]]).astype(dtype)
    y_pred = np.array([[1, 0, 1, 0]]).astype(dtype)
    assert score(metric_class(), (y_true, y_pred)) == pytest.approx(
        {Dice: 0.5, IoU: 1 / 3}[metric_class]
    )


@BOTH
def test_logits(metric_class):
    logits = np.array([[-3.0, 2.0, 0.1, -0.1]])
    y_true = np.array([[0, 1, 0, 1]])
    by_probability = score(metric_class(), (y_true, 1 / (1 + np.exp(-logits))))
    assert score(metric_class(from_logits=True), (y_true, logits)) == by_probability
    # sigmoid(0.1) = 0.525 is nucleus at 0.5 and background at 0.6.
    stricter = metric_class(from_logits=True, threshold=0.6)
    assert score(stricter, ([[0, 1]], [[0.1, 2.0]])) == 1


@pytest.mark.parametrize("per_image", [False, True])
def test_a_missing_channel_axis_is_no_broadcast(per_image, rng):
    y_true = rng.integers(0, 2, (3, 5, 4))
    y_pred = rng.random((3, 5, 4, 1))
    expected = score(Dice(per_image=per_image), (y_true[..., None], y_pred))
    assert score(Dice(per_image=per_image), (y_true, y_pred)) == expected
    assert score(Dice(per_image=per_image), (y_true[..., None], y_pred[..., 0])) == expected


def counted(metric):
    """The numbers that the digits of a metric stand for: TP, FP, FN of its classes."""
    digits = keras.ops.convert_to_numpy(metric._counts).astype("int64")
    return (digits @ 1024 ** np.arange(6)).tolist()


def test_counts_are_exact_where_float32_and_int32_are_not():
    # 2**25 pixels right, then one wrong pixel at a time: float32 counts would stay at 2**25.
    metric = IoU()
    block = np.ones((2**13, 2**12), "uint8")
    metric.update_state(block, block)
    for _ in range(5):
        metric.update_state([[1]], [[0]])
    assert counted(metric) == [[2**25], [0], [5]]
    # 256 times as many, 2**33 pixels, need more than an int32.
    metric._counts.assign(keras.ops.convert_to_numpy(metric._counts) * 256)
    metric.update_state([[1]], [[1]])
    assert counted(metric) == [[2**33 + 1], [0], [5 * 256]]
    assert float(metric.result()) == pytest.approx(2**33 / (2**33 + 5 * 256), rel=1e-6)


@BOTH
def test_masks_of_255_are_refused(metric_class):
    with pytest.raises(ValueError, match=r"255.*divide by 255"):
        metric_class().update_state(np.array([[0, 255]], "uint8"), [[0.0, 1.0]])


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match="nothing but 0"):
        Dice().update_state([[0.0, value]], [[0.0, 1.0]])


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.2, 255])
def test_predictions_that_are_no_probabilities_are_refused(value):
    with pytest.raises(ValueError, match="from_logits=True"):
        Dice().update_state([[0, 1]], [[0.0, value]])


def test_nan_logits_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        Dice(from_logits=True).update_state([[0, 1]], [[0.0, np.nan]])


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 4, 4), (1, 4, 4, 2), (4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"same shape.*\(1, 4, 4\)"):
        Dice().update_state(np.zeros((1, 4, 4)), np.zeros(shape))


@BOTH
def test_sample_weights_are_refused(metric_class):
    with pytest.raises(ValueError, match="weighted_metrics"):
        metric_class().update_state([[0, 1]], [[0, 1]], sample_weight=[1])


@pytest.mark.parametrize("threshold", [0, 1, 127])
def test_thresholds_that_are_no_probability_are_refused(threshold):
    with pytest.raises(ValueError, match=f"got {threshold}"):
        Dice(threshold=threshold)


@BOTH
def test_reset_and_config(metric_class):
    metric = metric_class(threshold=0.3, from_logits=True, per_image=True, name="mine")
    metric.update_state([[1, 0]], [[-1.0, 3.0]])
    metric.reset_state()
    assert float(metric.result()) == 1
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert copy.get_config() == metric.get_config()
    assert (copy.threshold, copy.from_logits, copy.per_image, copy.name) == (
        0.3,
        True,
        True,
        "mine",
    )


def one_pixel_model():
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(loss="mse", metrics=[Dice(), IoU(per_image=True)])
    return model


def test_inside_a_compiled_model_scores_are_the_same(rng):
    y_true, y_pred = rng.integers(0, 2, (7, 4, 4, 1)), rng.random((7, 4, 4, 1))
    results = one_pixel_model().evaluate(y_pred, y_true, batch_size=3, verbose=0, return_dict=True)
    assert results["dice"] == pytest.approx(score(Dice(), (y_true, y_pred)), abs=1e-6)
    assert results["iou"] == pytest.approx(score(IoU(per_image=True), (y_true, y_pred)), abs=1e-6)


@pytest.mark.parametrize("broken", ["mask of 255", "prediction NaN"])
def test_inside_a_compiled_model_bad_input_never_scores(broken):
    y_true, y_pred = np.ones((4, 4, 4, 1)), np.ones((4, 4, 4, 1))
    if broken == "mask of 255":
        y_true[1] = 255
    else:
        y_pred[1] = np.nan
    if keras.backend.backend() == "torch":  # runs eagerly, so it can raise
        with pytest.raises(ValueError, match=r"255|from_logits"):
            one_pixel_model().evaluate(y_pred, y_true, batch_size=1, verbose=0)
    else:
        results = one_pixel_model().evaluate(
            y_pred, y_true, batch_size=1, verbose=0, return_dict=True
        )
        assert np.isnan(results["dice"])
        assert np.isnan(results["iou"])
