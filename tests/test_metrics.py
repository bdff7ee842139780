"""Metrics: one contract for all of them; equality with scikit-learn; the traps of other metrics."""

import inspect
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from keras_nuclei import losses, metrics
from keras_nuclei.metrics import BoundaryF1, Dice, IoU
from tests import reference

# Few shapes: JAX compiles each operation anew for each of them.
SHAPE = (3, 4, 5)
CLASSES = 3

# A metric under contract: its class and its arguments, with one class and with many. The images
# are so small that everything is near a boundary unless the tolerance is 0.
CONTRACT = [
    (metrics.Dice, {}),
    (metrics.IoU, {}),
    (metrics.Precision, {}),
    (metrics.Recall, {}),
    (metrics.BoundaryF1, {"tolerance": 0}),
]
EACH = pytest.mark.parametrize(
    ("metric_class", "num_classes", "make"),
    [
        pytest.param(
            metric_class,
            num_classes,
            partial(metric_class, num_classes=num_classes, **arguments),
            id=f"{metric_class.__name__}-{num_classes}",
        )
        for metric_class, arguments in CONTRACT
        for num_classes in (1, CLASSES)
    ],
)
ALL = pytest.mark.parametrize("metric_class", [row[0] for row in CONTRACT])
BOTH = pytest.mark.parametrize("metric_class", [Dice, IoU])
SKLEARN = {
    metrics.Dice: f1_score,
    metrics.IoU: jaccard_score,
    metrics.Precision: precision_score,
    metrics.Recall: recall_score,
}
LIKE_SKLEARN = pytest.mark.parametrize("metric_class", list(SKLEARN))
AVERAGES = pytest.mark.parametrize("average", ["macro", "micro", "per_image", None])


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def score(metric, *batches):
    """A number, or a list of them without an average."""
    for y_true, y_pred in batches:
        metric.update_state(y_true, y_pred)
    return numpy(metric.result()).tolist()


def draw(rng, num_classes, images=SHAPE[0]):
    """Labels `(images, 4, 5)` and probabilities `(images, 4, 5, num_classes)`."""
    shape = (images, *SHAPE[1:])
    labels = rng.integers(0, max(num_classes, 2), shape).astype("uint8")
    probabilities = rng.random((*shape, num_classes)).astype("float32")
    return labels, probabilities if num_classes == 1 else normalized(probabilities)


def normalized(probabilities):
    return probabilities / probabilities.sum(axis=-1, keepdims=True)


def perfect(labels, num_classes):
    if num_classes == 1:
        return labels[..., None].astype("float32")
    return np.eye(num_classes, dtype="float32")[labels]


def arrays_of_labels(num_labels):
    return hnp.arrays("uint8", SHAPE, elements=st.integers(0, num_labels - 1))


PROBABILITIES = hnp.arrays("float32", (*SHAPE, 1), elements=st.floats(0, 1, width=32))


# The contract.


def test_every_metric_is_under_contract():
    assert {getattr(metrics, name) for name in metrics.__all__} == {row[0] for row in CONTRACT}


@EACH
@AVERAGES
def test_in_range_and_perfect_is_one(metric_class, num_classes, make, average, rng):
    labels, y_pred = draw(rng, num_classes)
    metric = make(average=average)
    found = np.array(score(metric, (labels, y_pred)))
    assert found.shape == ((num_classes,) if average is None else ())
    assert np.all((found > 0) & (found < 1))
    metric.reset_state()
    assert np.all(np.array(score(metric, (labels, perfect(labels, num_classes)))) == 1)


@EACH
@pytest.mark.parametrize(
    ("average", "per_image"),
    [("macro", False), ("micro", False), ("per_image", False), (None, True)],
)
def test_batches_and_order_change_not_a_bit(
    metric_class, num_classes, make, average, per_image, rng
):
    labels, y_pred = draw(rng, num_classes, images=6)
    labels[:2] = 0
    make = partial(make, average=average, per_image=per_image, from_logits=True)
    whole = score(make(), (labels, y_pred))
    order = rng.permutation(6).reshape(2, 3)
    assert score(make(), *((labels[some], y_pred[some]) for some in order)) == whole
    one_by_one = [(labels[i : i + 1], y_pred[i : i + 1]) for i in range(6)]
    assert score(make(), *one_by_one) == whole


@EACH
def test_logits_are_what_the_activation_takes(metric_class, num_classes, make, rng):
    labels, y_pred = draw(rng, num_classes)
    logits = np.log(y_pred / (1 - y_pred)) if num_classes == 1 else np.log(y_pred) + 3
    for threshold in (0.5, 0.7):
        by_probability = make(threshold=threshold)
        by_logit = make(threshold=threshold, from_logits=True)
        assert score(by_logit, (labels, logits)) == score(by_probability, (labels, y_pred))


@EACH
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32"])
def test_labels_and_predictions_of_any_dtype(metric_class, num_classes, make, dtype, rng):
    labels, y_pred = draw(rng, num_classes)
    labels = np.minimum(labels, 1)
    hard = perfect((y_pred[..., -1] > 0.3).astype(int), num_classes)
    expected = score(make(), (labels, hard))
    found = score(make(), (labels.astype(dtype), hard.astype(dtype)))
    assert found == expected


@EACH
def test_an_axis_of_one_and_one_hot_labels_are_the_same(metric_class, num_classes, make, rng):
    labels, y_pred = draw(rng, num_classes)
    expected = score(make(), (labels, y_pred))
    assert score(make(), (labels[..., None], y_pred)) == expected
    assert score(make(), (perfect(labels, num_classes), y_pred)) == expected


@EACH
@AVERAGES
def test_ignored_pixels_do_not_count(metric_class, num_classes, make, average, rng):
    labels, y_pred = draw(rng, num_classes)
    labels[:, 1:3, 2:] = 255
    make = partial(make, average=average)
    found = score(make(ignore_class=255), (labels, y_pred))
    assert found != score(make(), (np.where(labels == 255, 1, labels), y_pred))
    # What is predicted there does not matter, but to boundaries that go on outside.
    if metric_class is not BoundaryF1:
        y_pred[:, 1:3, 2:] = y_pred[:, 1:3, 2:][:, ::-1]
        assert score(make(ignore_class=255), (labels, y_pred)) == found
    # Nothing counts at all, as if both were empty.
    assert np.all(np.array(score(make(ignore_class=255), (np.full_like(labels, 255), y_pred))) == 1)


@EACH
@AVERAGES
def test_before_any_update_the_score_is_that_of_empty_masks(
    metric_class, num_classes, make, average
):
    metric = make(average=average)
    assert np.all(np.array(score(metric)) == 1)


@EACH
def test_broken_input_is_refused(metric_class, num_classes, make, rng):
    labels, y_pred = draw(rng, num_classes)
    with pytest.raises(ValueError, match="255"):
        make().update_state(labels * 255, y_pred)
    for value in (0.5, -1, np.nan, 7):
        broken = labels.astype("float32")
        broken[0, 0, 0] = value
        with pytest.raises(ValueError, match=r"nothing but 0|whole numbers"):
            make().update_state(broken, y_pred)
    for value in (np.nan, 1.5, -0.2, 255):
        y_pred[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="from_logits=True"):
            make().update_state(labels, y_pred)
    y_pred[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make(from_logits=True).update_state(labels, y_pred)
    with pytest.raises(ValueError, match="weighted_metrics"):
        make().update_state(labels, labels, sample_weight=[1])
    with pytest.raises(ValueError, match=r"\(3, 4, 4"):
        make().update_state(labels[..., :4], perfect(labels, num_classes))


@EACH
def test_reset_and_config(metric_class, num_classes, make, rng):
    metric = make(
        threshold=0.3,
        from_logits=True,
        per_image=True,
        average="micro",
        target_class_ids=(0,),
        ignore_class=255,
        name="mine",
    )
    labels, y_pred = draw(rng, num_classes)
    # The logit of 0.3 is -0.85.
    assert score(metric, (labels, y_pred - 1.3)) < 1
    metric.reset_state()
    assert float(metric.result()) == 1
    config = metric.get_config()
    arguments = set(inspect.signature(metric_class.__init__).parameters)
    assert set(config) == arguments - {"self"}
    copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert copy.get_config() == config
    assert (copy.threshold, copy.per_image, copy.average, copy.name) == (0.3, True, "micro", "mine")
    assert metric_class().name == metric_class.default_name


def one_pixel_model(num_classes, compiled, **arguments):
    inputs = keras.Input((*SHAPE[1:], num_classes))
    model = keras.Model(inputs, keras.layers.Activation("linear", **arguments)(inputs))
    model.compile(loss=losses.Dice(num_classes=num_classes, ignore_class=255), metrics=compiled)
    return model


@EACH
def test_a_compiled_model_scores_saves_and_loads_it(metric_class, num_classes, make, rng, tmp_path):
    labels, y_pred = draw(rng, num_classes, images=7)
    labels[0, :2] = 255
    compiled = [make(ignore_class=255), make(average=None, ignore_class=255, name="each")]
    model = one_pixel_model(num_classes, compiled)
    # Batches of 3, 3 and 1.
    found = model.evaluate(y_pred, labels, batch_size=3, verbose=0, return_dict=True)
    assert found[metric_class.default_name] == score(make(ignore_class=255), (labels, y_pred))
    each = score(make(average=None, ignore_class=255), (labels, y_pred))
    np.testing.assert_array_equal(np.ravel(found["each"]), each)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(y_pred, labels, batch_size=4, verbose=0, return_dict=True)
    assert again[metric_class.default_name] == found[metric_class.default_name]


def all_metrics(num_classes):
    """One of each metric under contract, for one model: compiling is what takes time."""
    return [make(num_classes=num_classes, **arguments) for make, arguments in CONTRACT]


@pytest.mark.parametrize("num_classes", [1, CLASSES])
def test_under_mixed_precision_scores_are_of_the_rounded_predictions(num_classes, rng):
    labels, y_pred = draw(rng, num_classes)
    model = one_pixel_model(num_classes, all_metrics(num_classes), dtype="mixed_float16")
    found = model.evaluate(y_pred, labels, verbose=0, return_dict=True)
    for metric in all_metrics(num_classes):
        expected = score(metric, (labels, y_pred.astype("float16")))
        assert found[metric.name] == expected, metric.name


@pytest.mark.parametrize("num_classes", [1, CLASSES])
@pytest.mark.parametrize("broken", ["mask of 255", "prediction NaN"])
def test_inside_a_compiled_model_bad_input_never_scores(num_classes, broken, rng):
    labels, y_pred = draw(rng, num_classes)
    if broken == "mask of 255":
        labels[1] = 255
    else:
        y_pred[1] = np.nan
    model = one_pixel_model(num_classes, all_metrics(num_classes))
    if keras.backend.backend() == "torch":  # runs eagerly, so it can raise
        with pytest.raises(ValueError, match=r"255|from_logits"):
            model.evaluate(y_pred, labels, batch_size=1, verbose=0)
    else:
        results = model.evaluate(y_pred, labels, batch_size=1, verbose=0, return_dict=True)
        for metric in all_metrics(num_classes):
            assert np.isnan(results[metric.name]), metric.name


def test_configs_of_earlier_releases_load():
    # As version 0.1.0 wrote it, without the arguments that came later.
    config = {
        "name": "iou",
        "dtype": "float32",
        "threshold": 0.4,
        "from_logits": False,
        "per_image": True,
    }
    metric = keras.saving.deserialize_keras_object(
        {
            "module": "keras_nuclei.metrics",
            "class_name": "IoU",
            "config": config,
            "registered_name": "keras_nuclei.metrics>IoU",
        }
    )
    assert (metric.threshold, metric.per_image, metric.num_classes) == (0.4, True, 1)


def test_several_heads_have_metrics_of_their_own(rng):
    masks, nucleus = draw(rng, 1)
    labels, kinds = draw(rng, CLASSES)
    inputs = {
        "nucleus": keras.Input((*SHAPE[1:], 1), name="nucleus"),
        "kind": keras.Input((*SHAPE[1:], CLASSES), name="kind"),
    }
    model = keras.Model(
        inputs,
        {
            name: keras.layers.Activation("linear", name=f"{name}_head")(tensor)
            for name, tensor in inputs.items()
        },
    )
    compiled = {"nucleus": [Dice(), BoundaryF1()], "kind": [IoU(num_classes=CLASSES)]}
    model.compile(loss={"nucleus": "mse", "kind": None}, metrics=compiled)
    found = model.evaluate(
        {"nucleus": nucleus, "kind": kinds},
        {"nucleus": masks[..., None].astype("float32"), "kind": labels},
        batch_size=2,
        verbose=0,
        return_dict=True,
    )
    assert found["nucleus_dice"] == score(Dice(), (masks, nucleus))
    assert found["nucleus_boundary_f1"] == score(BoundaryF1(), (masks, nucleus))
    assert found["kind_iou"] == score(IoU(num_classes=CLASSES), (labels, kinds))


DISTRIBUTED = """
import keras, numpy as np, tensorflow as tf
from keras_nuclei import losses, metrics
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
labels = rng.integers(0, 3, (7, 4, 5)).astype("uint8")
y_pred = rng.random((7, 4, 5, 3)).astype("float32")

def make():
    return [
        metric_class(num_classes=3, average=average, name=f"{metric_class.__name__}_{average}")
        for metric_class in (metrics.IoU, metrics.Recall, metrics.BoundaryF1)
        for average in ("micro", "per_image")
    ]

with strategy.scope():
    inputs = keras.Input((4, 5, 3))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(loss=losses.Dice(num_classes=3), metrics=make())
# Batches of 4 and 3: replicas of 2 and 2, of 2 and 1 images. Twice: the state is reset between.
for _ in range(2):
    found = model.evaluate(y_pred, labels, batch_size=4, verbose=0, return_dict=True)
for metric in make():
    metric.update_state(labels, y_pred)
    assert found[metric.name] == float(metric.result()), (metric.name, found)
print("equal")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_replicas_sum_their_counts():
    result = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.endswith("equal\n"), result.stderr


# Equality with scikit-learn; zero_division=1 is its name for "0 / 0 is 1".


@LIKE_SKLEARN
@given(y_true=arrays_of_labels(2), y_pred=PROBABILITIES)
def test_binary_equals_scikit_learn(metric_class, y_true, y_pred):
    expected = SKLEARN[metric_class](y_true.ravel(), y_pred.ravel() > 0.5, zero_division=1.0)
    assert score(metric_class(), (y_true, y_pred)) == pytest.approx(expected, abs=1e-6)


@LIKE_SKLEARN
@given(y_true=arrays_of_labels(2), y_pred=PROBABILITIES)
def test_per_image_equals_the_mean_of_scikit_learn(metric_class, y_true, y_pred):
    expected = np.mean(
        [
            SKLEARN[metric_class](true.ravel(), pred.ravel() > 0.5, zero_division=1.0)
            for true, pred in zip(y_true, y_pred, strict=True)
        ]
    )
    for arguments in ({"per_image": True}, {"average": "per_image"}):
        found = score(metric_class(**arguments), (y_true, y_pred))
        assert found == pytest.approx(expected, abs=1e-6)


def of_scikit_learn(metric_class, true, pred, labels, average):
    return SKLEARN[metric_class](true, pred, labels=labels, average=average, zero_division=1.0)


@LIKE_SKLEARN
@pytest.mark.parametrize("ignore_class", [None, 255, 1])
@settings(max_examples=10)
@given(y_true=arrays_of_labels(CLASSES + 1), y_pred=arrays_of_labels(CLASSES))
def test_of_many_classes_equals_scikit_learn(metric_class, ignore_class, y_true, y_pred):
    y_true = np.where(y_true == CLASSES, 0 if ignore_class is None else ignore_class, y_true)
    counted = y_true != ignore_class
    assume(counted.any())  # scikit-learn takes no empty arrays
    labels = [number for number in range(CLASSES) if number != ignore_class]
    for average in ("macro", "micro", None):
        expected = of_scikit_learn(metric_class, y_true[counted], y_pred[counted], labels, average)
        metric = metric_class(num_classes=CLASSES, average=average, ignore_class=ignore_class)
        found = score(metric, (y_true, perfect(y_pred, CLASSES)))
        assert found == pytest.approx(expected, abs=1e-6)


@LIKE_SKLEARN
@settings(max_examples=10)
@given(y_true=arrays_of_labels(CLASSES), y_pred=arrays_of_labels(CLASSES))
def test_of_many_classes_and_each_image_equals_scikit_learn(metric_class, y_true, y_pred):
    for average in ("macro", "micro", None):
        of_images = [
            of_scikit_learn(metric_class, true.ravel(), pred.ravel(), [1, 2], average)
            for true, pred in zip(y_true, y_pred, strict=True)
        ]
        metric = metric_class(
            num_classes=CLASSES, average=average, per_image=True, target_class_ids=(1, 2)
        )
        found = score(metric, (y_true, perfect(y_pred, CLASSES)))
        assert found == pytest.approx(np.mean(of_images, axis=0), abs=1e-6)


@given(y_true=arrays_of_labels(2), y_pred=PROBABILITIES)
def test_iou_follows_from_dice(y_true, y_pred):
    dice, iou = score(Dice(), (y_true, y_pred)), score(IoU(), (y_true, y_pred))
    assert iou == pytest.approx(dice / (2 - dice), abs=1e-6)


# By hand, and where others go wrong.


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


def test_of_nothing_predicted_precision_is_one_and_of_nothing_there_recall_is():
    empty, full = np.zeros((1, 4)), np.ones((1, 4))
    assert score(metrics.Precision(), (full, empty)) == 1
    assert score(metrics.Recall(), (full, empty)) == 0
    assert score(metrics.Precision(), (empty, full)) == 0
    assert score(metrics.Recall(), (empty, full)) == 1


def test_an_absent_class_scores_one_and_one_wrong_pixel_of_it_zero():
    labels, right, wrong = np.zeros((1, 4), int), [[0, 0, 0, 0]], [[0, 0, 0, 2]]
    each = {"num_classes": 3, "average": None}
    assert score(IoU(**each), (labels, np.eye(3)[right])) == [1, 1, 1]
    assert score(IoU(**each), (labels, np.eye(3)[wrong])) == [0.75, 1, 0]
    found = score(IoU(num_classes=3), (labels, np.eye(3)[wrong]))
    assert found == pytest.approx((0.75 + 1 + 0) / 3)


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


def test_several_channels_of_masks_are_counted_together(rng):
    y_true, y_pred = rng.integers(0, 2, (3, 4, 5, 2)), rng.random((3, 4, 5, 2))
    expected = jaccard_score(y_true.ravel(), y_pred.ravel() > 0.5)
    assert score(IoU(), (y_true, y_pred)) == pytest.approx(expected)
    halves = [
        reference.boundary_counts(y_true[0, ..., k], y_pred[0, ..., k] > 0.5, 1) for k in (0, 1)
    ]
    expected = reference.f1_of_boundary(*np.sum(halves, axis=0))
    found = score(BoundaryF1(tolerance=1), (y_true[:1], y_pred[:1]))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_a_missing_channel_axis_is_no_broadcast(per_image, rng):
    y_true = rng.integers(0, 2, (3, 5, 4))
    y_pred = rng.random((3, 5, 4, 1))
    expected = score(Dice(per_image=per_image), (y_true[..., None], y_pred))
    assert score(Dice(per_image=per_image), (y_true, y_pred)) == expected
    assert score(Dice(per_image=per_image), (y_true[..., None], y_pred[..., 0])) == expected


def counted(metric):
    """The numbers that the digits of a metric stand for: TP, FP, FN of its classes."""
    digits = numpy(metric._counts).astype("int64")
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
    metric._counts.assign(numpy(metric._counts) * 256)
    metric.update_state([[1]], [[1]])
    assert counted(metric) == [[2**33 + 1], [0], [5 * 256]]
    assert float(metric.result()) == pytest.approx(2**33 / (2**33 + 5 * 256), rel=1e-6)


def test_many_images_are_counted_as_exactly():
    # 2**24 images with the score 1 so far: float32 would not count one more.
    metric = Dice(per_image=True)
    metric._images.assign([[0, 0, 16, 0, 0, 0]])
    metric._score_sums.assign([[0, 0, 0, 0, 256, 0]])
    for _ in range(3):
        metric.update_state([[1]], [[0]])
    assert numpy(metric._images).tolist() == [[3, 0, 16, 0, 0, 0]]
    assert float(metric.result()) == pytest.approx(2**24 / (2**24 + 3), rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 4, 4), (1, 4, 4, 2), (4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"same shape.*\(1, 4, 4\)"):
        Dice().update_state(np.zeros((1, 4, 4)), np.zeros(shape))


def test_numbers_of_classes_without_num_classes_get_advice():
    labels = np.zeros((1, 4, 4, 1), "uint8")
    with pytest.raises(ValueError, match=r"pass num_classes=3 to each metric, and take a loss of"):
        Dice().update_state(labels, np.full((1, 4, 4, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"same shape[^:]*\.$"):
        Dice().update_state(labels, np.zeros((1, 4, 5, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0}, "got 0"),
        ({"threshold": 1}, "got 1"),
        ({"threshold": 127}, "got 127"),
        ({"average": "weighted"}, "'macro', 'micro', 'per_image', None.; got 'weighted'"),
        ({"num_classes": 0}, "got 0"),
        ({"num_classes": True}, "got True"),
        ({"ignore_class": 1}, "neither 0 nor 1"),
        ({"target_class_ids": (1,)}, r"classes 0\.\.0; got \[1\]"),
        (
            {"num_classes": 3, "ignore_class": 0, "target_class_ids": (0, 1)},
            r"classes 0\.\.2 but 0; got \[0, 1\]",
        ),
        ({"num_classes": 3, "target_class_ids": 1}, r"For one class pass \[1\]"),
        ({"num_classes": 3, "target_class_ids": ()}, r"classes 0\.\.2; got \[\]"),
    ],
)
@ALL
def test_bad_arguments(metric_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric_class(**arguments)
