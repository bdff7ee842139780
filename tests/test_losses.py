"""Losses: one contract for all of them; formulas against slow twins, hand values and Keras."""

import inspect

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_nuclei import losses
from keras_nuclei.metrics import Dice as DiceMetric
from keras_nuclei.metrics import IoU as IoUMetric
from tests import reference

# Few shapes: JAX compiles each operation anew for each of them.
SHAPE = (2, 3, 4)
CLASSES = 3

# A loss under contract: its class, its arguments, the number of classes, the highest value.
MANY = {"num_classes": CLASSES}
CONTRACT = [
    (losses.Dice, {}, 1, 1),
    (losses.Jaccard, {}, 1, 1),
    (losses.Tversky, {}, 1, 1),
    (losses.BinaryCrossentropyDice, {}, 1, np.inf),
    (losses.LovaszHinge, {}, 1, np.inf),
    (losses.Dice, MANY, CLASSES, 1),
    (losses.Jaccard, MANY, CLASSES, 1),
    (losses.Tversky, MANY, CLASSES, 1),
    (losses.CategoricalCrossentropyDice, {}, CLASSES, np.inf),
]
EACH = pytest.mark.parametrize(
    ("loss_class", "arguments", "num_classes", "highest"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[2]}") for row in CONTRACT],
)
BINARY = pytest.mark.parametrize("loss_class", [row[0] for row in CONTRACT if row[2] == 1])
SOFT = pytest.mark.parametrize(
    "loss_class", [row[0] for row in CONTRACT if row[2] == 1 and row[0] != losses.LovaszHinge]
)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def activate(logits):
    """Sigmoid of one channel, softmax of more, in float64."""
    logits = logits.astype("float64")
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def draw(rng, num_classes, images=SHAPE[0]):
    """Labels `(images, 3, 4)` and logits `(images, 3, 4, num_classes)`."""
    shape = (images, *SHAPE[1:])
    labels = rng.integers(0, max(num_classes, 2), shape).astype("uint8")
    return labels, rng.normal(size=(*shape, num_classes)).astype("float32")


def perfect(labels, num_classes):
    """The probabilities that are right and sure."""
    if num_classes == 1:
        return labels[..., None].astype("float32")
    return np.eye(num_classes, dtype="float32")[labels]


def gradient(loss, y_true, y_pred):
    """Gradient of a loss by its predictions, as each backend takes it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        y_pred = tf.convert_to_tensor(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return numpy(tape.gradient(value, y_pred))
    if keras.backend.backend() == "jax":
        import jax

        return numpy(jax.grad(lambda y_pred: loss(y_true, y_pred))(y_pred))
    import torch

    y_pred = torch.tensor(y_pred, requires_grad=True)
    loss(y_true, y_pred).backward()
    return y_pred.grad.numpy()


# The contract.


def test_every_loss_is_under_contract():
    public = {getattr(losses, name) for name in losses.__all__}
    classes = {member for member in public if inspect.isclass(member)}
    assert classes == {row[0] for row in CONTRACT}


@EACH
def test_finite_and_in_range(loss_class, arguments, num_classes, highest, rng):
    labels, logits = draw(rng, num_classes)
    value = float(loss_class(**arguments)(labels, activate(logits)))
    assert 0 < value <= highest
    assert np.isfinite(value)


@EACH
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_most(
    loss_class, arguments, num_classes, highest, rng
):
    labels, logits = draw(rng, num_classes)
    loss = loss_class(**arguments)
    assert float(loss(labels, perfect(labels, num_classes))) == pytest.approx(0, abs=1e-6)
    wrong = 1 - labels if num_classes == 1 else (labels + 1) % num_classes
    value = float(loss(labels, perfect(wrong, num_classes)))
    assert value > float(loss(labels, activate(logits)))
    assert value <= highest


@EACH
def test_logits_are_what_the_activation_takes(loss_class, arguments, num_classes, highest, rng):
    labels, logits = draw(rng, num_classes)
    by_probability = float(loss_class(**arguments)(labels, activate(logits).astype("float32")))
    by_logit = float(loss_class(**arguments, from_logits=True)(labels, logits))
    assert by_logit == pytest.approx(by_probability, abs=1e-5)


@EACH
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("case", ["probabilities of 0 and 1", "drawn logits", "huge logits"])
def test_gradients_are_finite(loss_class, arguments, num_classes, highest, empty, case, rng):
    labels, logits = draw(rng, num_classes)
    if empty:
        labels[:] = 0
    if case == "probabilities of 0 and 1":
        others = rng.integers(0, max(num_classes, 2), labels.shape)
        loss, y_pred = loss_class(**arguments), perfect(others, num_classes)
    else:
        loss = loss_class(**arguments, from_logits=True)
        y_pred = logits * np.float32(1e4 if case == "huge logits" else 1)
    assert np.isfinite(float(loss(labels, y_pred)))
    slope = gradient(loss, labels, y_pred)
    assert np.all(np.isfinite(slope))
    if case == "drawn logits":
        assert np.any(slope != 0)


@EACH
def test_the_loss_of_a_batch_is_the_mean_of_its_images(
    loss_class, arguments, num_classes, highest, rng
):
    # keras.losses.Dice sums over the batch by default, so that its value depends on the batch.
    labels, logits = draw(rng, num_classes, images=5)
    loss, y_pred = loss_class(**arguments), activate(logits)
    each = [float(loss(labels[i : i + 1], y_pred[i : i + 1])) for i in range(5)]
    assert float(loss(labels, y_pred)) == pytest.approx(np.mean(each), abs=1e-6)
    per_image = loss_class(**arguments, reduction=None)(labels, y_pred)
    np.testing.assert_allclose(numpy(per_image), each, atol=1e-6)


@EACH
def test_weights_are_of_images(loss_class, arguments, num_classes, highest, rng):
    labels, logits = draw(rng, num_classes)
    y_pred = activate(logits)
    first = float(loss_class(**arguments)(labels[:1], y_pred[:1]))
    total = loss_class(**arguments, reduction="sum")
    for weights in (np.array([2.0, 0.0]), np.array([[2.0], [0.0]])):
        weighted = total(labels, y_pred, sample_weight=weights)
        assert float(weighted) == pytest.approx(2 * first, abs=1e-5)
    with pytest.raises(ValueError, match=r"\(batch,\); got \(2, 3, 4, 1\).*BinaryCrossentropy"):
        total(labels, y_pred, sample_weight=np.ones((2, 3, 4, 1)))


@EACH
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32"])
def test_labels_of_any_dtype_and_predictions_of_half_precision(
    loss_class, arguments, num_classes, highest, dtype, rng
):
    labels, logits = draw(rng, num_classes)
    labels = np.minimum(labels, 1)
    loss, y_pred = loss_class(**arguments), activate(logits).astype("float16")
    expected = float(loss(labels, y_pred.astype("float32")))
    assert float(loss(labels.astype(dtype), y_pred)) == pytest.approx(expected, abs=1e-5)


@EACH
def test_an_axis_of_one_and_one_hot_labels_are_the_same(
    loss_class, arguments, num_classes, highest, rng
):
    labels, logits = draw(rng, num_classes)
    loss, y_pred = loss_class(**arguments), activate(logits)
    expected = float(loss(labels, y_pred))
    assert float(loss(labels[..., None], y_pred)) == expected
    assert float(loss(perfect(labels, num_classes), y_pred)) == expected


@EACH
def test_ignored_pixels_cost_nothing(loss_class, arguments, num_classes, highest, rng):
    labels, logits = draw(rng, num_classes)
    labels[:, :, 2:] = 255
    loss, y_pred = loss_class(**arguments, ignore_class=255), activate(logits)
    kept = float(loss(labels, y_pred))
    without = loss_class(**arguments)(labels[:, :, :2], y_pred[:, :, :2])
    assert kept == pytest.approx(float(without), abs=1e-6)
    y_pred[:, :, 2:] = y_pred[:, :, 2:][:, ::-1]
    assert float(loss(labels, y_pred)) == kept
    # Nothing counts at all.
    assert float(loss(np.full_like(labels, 255), y_pred)) == 0


@EACH
def test_masks_of_255_and_unannounced_logits_are_refused(
    loss_class, arguments, num_classes, highest, rng
):
    labels, logits = draw(rng, num_classes)
    loss = loss_class(**arguments)
    with pytest.raises(ValueError, match="255"):
        loss(labels * 255, activate(logits))
    with pytest.raises(ValueError, match="from_logits=True"):
        loss(labels, logits * 4)
    logits[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        loss_class(**arguments, from_logits=True)(labels, logits)


def one_layer(num_classes, **arguments):
    inputs = keras.Input((*SHAPE[1:], 2))
    activation = "sigmoid" if num_classes == 1 else "softmax"
    return keras.Model(
        inputs,
        keras.layers.Dense(num_classes, activation=activation, dtype="float32")(
            keras.layers.Dense(3, **arguments)(inputs)
        ),
    )


@EACH
def test_a_compiled_model_trains_saves_and_loads_it(
    loss_class, arguments, num_classes, highest, rng, tmp_path
):
    labels, _ = draw(rng, num_classes, images=3)
    images = rng.normal(size=(*labels.shape, 2))
    model = one_layer(num_classes, dtype="mixed_bfloat16")
    model.compile("sgd", loss_class(**arguments, ignore_class=255))
    labels[0, 0, 0] = 255
    # Batches of 2 and 1.
    seen = model.fit(images, labels, batch_size=2, epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(seen))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.loss) is loss_class
    assert loaded.loss.get_config() == model.loss.get_config()
    expected = model.evaluate(images, labels, verbose=0)
    assert loaded.evaluate(images, labels, verbose=0) == pytest.approx(expected, abs=1e-6)


@EACH
def test_config(loss_class, arguments, num_classes, highest):
    loss = loss_class(
        **arguments, from_logits=True, ignore_class=7, reduction="sum", name="mine", dtype="float32"
    )
    config = loss.get_config()
    assert set(config) == set(inspect.signature(loss_class.__init__).parameters) - {"self"}
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == config
    assert (copy.from_logits, copy.ignore_class, copy.reduction) == (True, 7, "sum")


def test_configs_of_earlier_releases_load():
    # As version 0.1.0 wrote it, without the arguments that came later.
    config = {"name": "dice", "reduction": "sum", "smooth": 2.0, "from_logits": True}
    loss = keras.saving.deserialize_keras_object(
        {
            "module": "keras_nuclei.losses",
            "class_name": "Dice",
            "config": config,
            "registered_name": "keras_nuclei.losses>Dice",
        }
    )
    assert (loss.smooth, loss.from_logits, loss.num_classes) == (2.0, True, 1)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="runs eagerly: it raises")
@EACH
def test_inside_a_compiled_step_masks_of_255_make_nan(
    loss_class, arguments, num_classes, highest, rng
):
    model = one_layer(num_classes)
    model.compile(loss=loss_class(**arguments))
    masks = np.full(SHAPE, 255)
    assert np.isnan(model.evaluate(np.zeros((*SHAPE, 2)), masks, verbose=0))


# The formulas.


def test_dice_by_hand():
    y_true = [[1, 1, 0, 0], [0, 0, 0, 0]]
    y_pred = [[0.5, 1.0, 0.5, 0.0], [1.0, 1.0, 0.0, 0.0]]
    # 1 - (2 * 1.5 + 1) / (2 + 2 + 1) and 1 - (0 + 1) / (0 + 2 + 1)
    np.testing.assert_allclose(numpy(losses.dice_loss(y_true, y_pred)), [1 / 5, 2 / 3], rtol=1e-6)
    # 1 - (2 * 1.5 + 2) / (2 + 2 + 2) and 1 - 2 / 4
    smoother = losses.dice_loss(y_true, y_pred, smooth=2.0)
    np.testing.assert_allclose(numpy(smoother), [1 / 6, 1 / 2], rtol=1e-6)
    # 1 - (1.5 + 1) / (2 + 2 - 1.5 + 1) and 1 - (0 + 1) / (0 + 2 + 1)
    jaccard = losses.jaccard_loss(y_true, y_pred)
    np.testing.assert_allclose(numpy(jaccard), [1 - 2.5 / 3.5, 2 / 3], rtol=1e-6)


MASKS = hnp.arrays("uint8", SHAPE, elements=st.integers(0, 1))
PROBABILITIES = hnp.arrays("float32", SHAPE, elements=st.floats(0, 1, width=32))


@given(
    MASKS,
    PROBABILITIES,
    st.floats(0, 2),
    st.floats(0.1, 2),
    st.floats(0.1, 5),
)
def test_tversky_equals_its_twin(y_true, y_pred, alpha, beta, smooth):
    found = losses.tversky_loss(y_true, y_pred, alpha=alpha, beta=beta, smooth=smooth)
    expected = [
        reference.tversky_loss(*image, alpha, beta, smooth)
        for image in zip(y_true, y_pred, strict=True)
    ]
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)


def test_alpha_weighs_false_positives_and_beta_false_negatives():
    # 3 right, 2 missed; and 3 right, 2 invented. smooth 1.
    missed = ([[1, 1, 1, 1, 1]], [[1.0, 1.0, 1.0, 0.0, 0.0]])
    invented = ([[1, 1, 1, 0, 0]], [[1.0, 1.0, 1.0, 1.0, 1.0]])
    loss = losses.Tversky(alpha=0.2, beta=0.8)
    assert float(loss(*missed)) == pytest.approx(1 - 4 / (4 + 0.8 * 2))
    assert float(loss(*invented)) == pytest.approx(1 - 4 / (4 + 0.2 * 2))


@given(MASKS, MASKS)
def test_of_hard_masks_they_are_one_minus_the_metrics(y_true, y_pred):
    for loss, metric in (
        (losses.Dice(smooth=1e-6), DiceMetric(per_image=True)),
        (losses.Jaccard(smooth=1e-6), IoUMetric(per_image=True)),
    ):
        expected = 1 - float(metric(y_true, y_pred))
        assert float(loss(y_true, y_pred)) == pytest.approx(expected, abs=1e-5)


@given(
    y_pred=hnp.arrays("float32", SHAPE, elements=st.floats(2**-7, 1 - 2**-7, width=32)),
    weight=st.floats(0, 1),
)
def test_the_sum_is_what_keras_and_dice_say(y_pred, weight):
    y_true = (y_pred > 0.3).astype("float32")
    crossentropy = float(keras.losses.BinaryCrossentropy()(y_true, y_pred))
    dice = float(losses.Dice()(y_true, y_pred))
    both = losses.BinaryCrossentropyDice(crossentropy_weight=weight)(y_true, y_pred)
    assert float(both) == pytest.approx(weight * crossentropy + (1 - weight) * dice, abs=1e-5)


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_sum_of_many_classes_is_what_keras_and_dice_say(from_logits, rng):
    labels, logits = draw(rng, CLASSES)
    y_pred = logits if from_logits else activate(logits)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    crossentropy = float(keras_loss(labels, y_pred))
    dice = float(losses.Dice(num_classes=CLASSES, from_logits=from_logits)(labels, y_pred))
    both = losses.CategoricalCrossentropyDice(crossentropy_weight=0.3, from_logits=from_logits)
    expected = 0.3 * crossentropy + 0.7 * dice
    assert float(both(labels, y_pred)) == pytest.approx(expected, abs=1e-5)


def test_the_number_of_classes_may_be_said_or_left_to_the_predictions(rng):
    labels, logits = draw(rng, CLASSES)
    said = losses.CategoricalCrossentropyDice(num_classes=CLASSES, from_logits=True)
    left = losses.CategoricalCrossentropyDice(from_logits=True)
    assert float(said(labels, logits)) == float(left(labels, logits))
    with pytest.raises(ValueError, match=f"{CLASSES + 1}"):
        losses.CategoricalCrossentropyDice(num_classes=CLASSES + 1)(labels, activate(logits))
    with pytest.raises(ValueError, match=r"at least 2.*got 1"):
        losses.CategoricalCrossentropyDice(num_classes=1)


def test_of_many_classes_it_is_the_mean_of_one_against_the_rest(rng):
    labels, logits = draw(rng, CLASSES)
    probabilities = activate(logits)
    of_classes = [
        [
            reference.tversky_loss(labels[i] == number, probabilities[i, ..., number], 0.3, 0.7, 1)
            for number in range(CLASSES)
        ]
        for i in range(len(labels))
    ]
    found = losses.tversky_loss(labels, probabilities, num_classes=CLASSES)
    np.testing.assert_allclose(numpy(found), np.mean(of_classes, axis=1), atol=1e-6)
    # A class to ignore is no class of the mean.
    counted = labels != 1
    expected = [
        np.mean(
            [
                reference.tversky_loss(
                    (labels[i] == number)[counted[i]],
                    probabilities[i, ..., number][counted[i]],
                    0.3,
                    0.7,
                    1,
                )
                for number in (0, 2)
            ]
        )
        for i in range(len(labels))
    ]
    found = losses.tversky_loss(labels, probabilities, num_classes=CLASSES, ignore_class=1)
    np.testing.assert_allclose(numpy(found), expected, atol=1e-6)


def test_a_class_that_is_absent_costs_only_where_it_is_predicted():
    labels = np.zeros((1, 4), int)
    right, wrong = np.eye(3)[[[0, 0, 0, 0]]], np.eye(3)[[[0, 0, 0, 2]]]
    assert float(losses.Dice(num_classes=3)(labels, right)) == 0
    # Class 0: 1 - (2 * 3 + 1) / (4 + 3 + 1); class 1: 0; class 2: 1 - (0 + 1) / (0 + 1 + 1).
    expected = (1 / 8 + 0 + 1 / 2) / 3
    assert float(losses.Dice(num_classes=3)(labels, wrong)) == pytest.approx(expected)


@given(MASKS, hnp.arrays("float32", SHAPE, elements=st.floats(-4, 4, width=16)))
def test_lovasz_hinge_equals_its_twin(y_true, logits):
    expected = [reference.lovasz_hinge(*image) for image in zip(y_true, logits, strict=True)]
    found = losses.lovasz_hinge_loss(y_true, logits, from_logits=True)
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)


@given(MASKS, MASKS)
def test_at_whole_errors_lovasz_hinge_is_twice_the_jaccard_loss(y_true, y_pred):
    # Where it extends the Jaccard loss: logits of -1 and 1 make hinge errors of 0 and 2.
    found = losses.lovasz_hinge_loss(y_true, 2.0 * y_pred - 1, from_logits=True)
    iou = IoUMetric(per_image=True)
    assert float(np.mean(numpy(found))) == pytest.approx(
        2 * (1 - float(iou(y_true, y_pred))), abs=1e-5
    )


@BINARY
def test_empty_masks(loss_class):
    empty, full = np.zeros((1, 4, 4, 1)), np.ones((1, 4, 4, 1))
    assert float(loss_class()(empty, empty)) == pytest.approx(0, abs=1e-6)
    # keras.losses.Dice gives its highest value here, and some rivals 0 to any false positive.
    # 0.3 has the logit -0.85, within the margin of the hinge.
    some = full * 0.3
    assert 0 < float(loss_class()(empty, some)) < float(loss_class()(empty, full))


@SOFT
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


@BINARY
def test_float16_sums_do_not_overflow(loss_class):
    # 512 * 512 pixels sum to four times the largest float16.
    y_true = np.ones((1, 512, 512, 1), "uint8")
    assert float(loss_class()(y_true, y_true.astype("float16"))) == pytest.approx(0, abs=1e-3)


def test_soft_masks_are_fine_where_the_formula_is():
    assert float(losses.dice_loss([[0.5]], [[0.5]])[0]) == pytest.approx(1 - 1.5 / 2)
    mixed = losses.dice_loss([[[0.5, 0.5]]], [[[0.5, 0.5]]], num_classes=2)
    assert float(mixed[0]) == pytest.approx(1 - 1.5 / 2)
    with pytest.raises(ValueError, match="nothing but 0"):
        losses.lovasz_hinge_loss([[0.5]], [[0.5]])


def focal_loss(true, probability, alpha, gamma):
    """-alpha_t (1 - p_t)^gamma log(p_t), equation 5 of Lin et al. 2017."""
    p_t = np.where(true, probability, 1 - probability)
    alpha_t = np.where(true, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * np.log(p_t)


def test_keras_focal_losses_are_those_of_the_paper():
    logits = np.linspace(-10, 10, 24, dtype="float32").reshape(SHAPE)[..., None]
    y_true = np.arange(24).reshape(logits.shape) % 2
    expected = focal_loss(y_true, activate(logits), 0.25, 2.0).mean()
    arguments = {"apply_class_balancing": True, "alpha": 0.25, "gamma": 2.0}
    from_logits = keras.losses.BinaryFocalCrossentropy(from_logits=True, **arguments)
    assert float(from_logits(y_true, logits)) == pytest.approx(expected, rel=1e-3)
    softmax = activate(np.random.default_rng(0).normal(size=(*SHAPE, CLASSES)))
    one_hot = np.eye(CLASSES)[np.arange(24).reshape(SHAPE) % CLASSES]
    expected = focal_loss(True, (softmax * one_hot).sum(axis=-1), 0.25, 2.0).mean()
    found = keras.losses.CategoricalFocalCrossentropy(alpha=0.25, gamma=2.0)(one_hot, softmax)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Dice(smooth=0), "smooth must be above 0"),
        (lambda: losses.BinaryCrossentropyDice(smooth=-1), "smooth must be above 0"),
        (lambda: losses.BinaryCrossentropyDice(crossentropy_weight=1.5), "0..1; got 1.5"),
        (lambda: losses.dice_loss([[1]], [[1]], smooth=0), "smooth must be above 0"),
        (lambda: losses.Tversky(alpha=-0.1), "got alpha=-0.1"),
        (lambda: losses.Tversky(alpha=0, beta=0), "one of them above"),
        (lambda: losses.Dice(num_classes=0), "got 0"),
        (lambda: losses.Dice(num_classes=2.0), "got 2.0"),
        (lambda: losses.LovaszHinge(ignore_class=0), "neither 0 nor 1"),
        (
            lambda: losses.dice_loss(np.zeros((1, 4, 5)), np.zeros((1, 4, 4, 3)), num_classes=3),
            r"y_true \(1, 4, 5\) and y_pred \(1, 4, 4, 3\)",
        ),
        (
            lambda: losses.dice_loss(np.zeros((1, 4, 4)), np.zeros((1, 4, 4, 2)), num_classes=3),
            r"y_pred must have the shape \(batch, ..., 3\)",
        ),
        (
            lambda: losses.categorical_crossentropy_dice_loss([[[0]]], [[[0.5]]]),
            "use binary_crossentropy_dice_loss",
        ),
        (
            lambda: losses.dice_loss([[3]], [[[1.0, 0, 0]]], num_classes=3),
            r"whole numbers, 0\.\.2",
        ),
        (
            lambda: losses.dice_loss([[0.5]], [[[1.0, 0, 0]]], num_classes=3),
            "whole numbers",
        ),
        (
            lambda: losses.dice_loss([[[1, 1, 0]]], [[[1.0, 0, 0]]], num_classes=3),
            "One-hot labels must be 1",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
