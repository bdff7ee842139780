"""The callback in a real `fit`: its scores, and the callbacks that monitor them."""

import keras
import numpy as np
import pytest
from skimage.draw import disk
from skimage.measure import label

from keras_nuclei.callbacks import InstanceScores
from keras_nuclei.matching import match
from keras_nuclei.scores import dsb_score, summarize

SIZES = [(32, 32), (24, 40), (32, 32), (24, 40), (32, 32), (17, 30)]


def draw_discs(rng, height, width):
    """A noisy image of bright discs, uint8 `(H, W, 1)`, and its label map."""
    mask = np.zeros((height, width), "uint8")
    for _ in range(4):
        center = rng.integers(3, height - 3), rng.integers(3, width - 3)
        mask[disk(center, 3, shape=mask.shape)] = 1
    image = np.where(mask, 150, 60) + rng.normal(0, 10, mask.shape)
    return image[..., None].astype("uint8"), label(mask, connectivity=1)


def to_labels(probabilities):
    return label(probabilities[..., 0] > 0.5, connectivity=1)


@pytest.fixture
def validation(rng):
    images, label_maps = zip(*(draw_discs(rng, *size) for size in SIZES), strict=True)
    return list(images), list(label_maps)


@pytest.fixture
def training(rng):
    images, label_maps = zip(*(draw_discs(rng, 32, 32) for _ in range(16)), strict=True)
    return np.stack(images), (np.stack(label_maps)[..., None] > 0).astype("float32")


def small_model(learning_rate=0.3, outputs=1):
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    # From ones, bright is nucleus from the start; from random ones, that depends on the backend.
    heads = {
        name: keras.layers.Dense(1, "sigmoid", kernel_initializer="ones", name=name)(x)
        for name in ("nucleus", "contour")[:outputs]
    }
    model = keras.Model(inputs, heads["nucleus"] if outputs == 1 else heads)
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model


def fit(model, training, callbacks, epochs=3, **arguments):
    return model.fit(
        *training, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **arguments
    ).history


def predict_and_match(model, images, label_maps):
    outputs = [
        keras.ops.convert_to_numpy(model(image[None].astype("float32"), training=False))[0]
        for image in images
    ]
    return [match(labels, to_labels(p)) for labels, p in zip(label_maps, outputs, strict=True)]


def test_scores_are_those_of_the_trained_model(training, validation):
    model = small_model()
    callback = InstanceScores(*validation, to_labels, batch_size=2)
    history = fit(model, training, [callback])
    expected = summarize(predict_and_match(model, *validation))
    assert callback.summary == pytest.approx(expected)
    assert expected["dsb_per_image"] > 0
    for name in ("dsb", "ap50", "ap75", "f1", "pq"):
        assert len(history[f"val_{name}"]) == 3
        assert history[f"val_{name}"][-1] == pytest.approx(expected[f"{name}_per_image"])


def test_training_is_the_same_with_and_without(training, validation):
    histories, weights = [], []
    for callbacks in ([], [InstanceScores(*validation, to_labels)]):
        keras.utils.set_random_seed(1)
        model = small_model()
        histories.append(fit(model, training, callbacks)["loss"])
        weights.append(model.get_weights())
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_checkpoint_keeps_the_model_of_the_best_score(training, validation, tmp_path):
    path = tmp_path / "best.keras"
    # A learning rate that overshoots: the last epoch is not the best.
    model = small_model(learning_rate=1.0)
    callbacks = [
        InstanceScores(*validation, to_labels),
        keras.callbacks.ModelCheckpoint(path, monitor="val_dsb", mode="max", save_best_only=True),
    ]
    scores = fit(model, training, callbacks, epochs=6)["val_dsb"]
    assert min(scores) < max(scores)
    best = keras.models.load_model(path)
    assert dsb_score(predict_and_match(best, *validation)) == pytest.approx(max(scores))


def test_early_stopping_sees_the_score(training, validation):
    callbacks = [
        # One nucleus, whatever the model says: the score stays what it is in the first epoch.
        InstanceScores(*validation, lambda outputs: np.ones(outputs.shape[:2], int)),
        keras.callbacks.EarlyStopping(monitor="val_dsb", mode="max", patience=2),
    ]
    assert len(fit(small_model(), training, callbacks, epochs=20)["val_dsb"]) == 3


@pytest.mark.parametrize(
    ("frequency", "epochs", "initial_epoch", "scored"),
    [(1, 3, 0, 3), (2, 5, 0, 3), (2, 4, 0, 3), (3, 6, 1, 3), (10, 4, 0, 2), (10, 1, 0, 1)],
)
def test_frequency(training, validation, frequency, epochs, initial_epoch, scored):
    calls = []

    def counting(probabilities):
        calls.append(probabilities.shape)
        return to_labels(probabilities)

    images, label_maps = validation
    callback = InstanceScores(images[:1], label_maps[:1], counting, frequency=frequency)
    arguments = {"epochs": epochs, "initial_epoch": initial_epoch}
    history = fit(small_model(), training, [callback], **arguments)
    assert calls == [(32, 32, 1)] * scored
    # Unscored epochs repeat the last scores, so that each column of the history has all epochs.
    assert len(history["val_dsb"]) == len(history["loss"]) == epochs - initial_epoch
    if frequency > epochs > 1:
        assert history["val_dsb"][1:-1] == history["val_dsb"][:1] * (epochs - 2)


def test_a_second_fit_starts_afresh(training, validation):
    model = small_model()
    callback = InstanceScores(*validation, to_labels, frequency=10)
    for _ in range(2):
        history = fit(model, training, [callback], epochs=1)
        expected = dsb_score(predict_and_match(model, *validation))
        assert history["val_dsb"] == [pytest.approx(expected)]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_does_not_matter_and_batches_have_one_size(validation, batch_size):
    shapes = []

    class Recording(keras.Model):
        def predict_on_batch(self, x):
            shapes.append(x.shape)
            return np.zeros((*x.shape[:3], 1)) + (x > 105)

    callback = InstanceScores(*validation, to_labels, batch_size=batch_size)
    callback.set_model(Recording())
    callback.set_params({"epochs": 1})
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs["loss"] == 1.0
    assert logs["val_ap50"] > 0.5
    counts = {1: [1] * 6, 2: [2, 1, 2, 1], 100: [3, 2, 1]}[batch_size]
    assert [shape[0] for shape in shapes] == counts
    assert sum(shape[0] for shape in shapes if shape[1:3] == (32, 32)) == 3


def test_several_outputs_an_array_of_images_and_a_prefix(training, rng):
    images, label_maps = zip(*(draw_discs(rng, 32, 32) for _ in range(3)), strict=True)

    def of_dict(outputs):
        assert sorted(outputs) == ["contour", "nucleus"]
        assert all(output.shape == (32, 32, 1) for output in outputs.values())
        return to_labels(outputs["nucleus"])

    model = small_model(outputs=2)
    callback = InstanceScores(np.stack(images), np.stack(label_maps), of_dict, prefix="held_out_")
    targets = {"nucleus": training[1], "contour": training[1]}
    history = fit(model, (training[0], targets), [callback], epochs=1)
    assert {"held_out_dsb", "held_out_ap50"} <= set(history)


def test_it_is_quiet(training, validation, capfd):
    capfd.readouterr()
    fit(small_model(), training, [InstanceScores(*validation, to_labels)], epochs=2)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("argument", ["frequency", "batch_size"])
def test_numbers_below_one_are_refused(validation, argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1; got 0"):
        InstanceScores(*validation, to_labels, **{argument: 0})


def test_images_and_label_maps_that_do_not_fit_are_refused(validation):
    images, label_maps = validation
    with pytest.raises(ValueError, match="6 images and 5 label maps"):
        InstanceScores(images, label_maps[:-1], to_labels)
    with pytest.raises(ValueError, match="0 images"):
        InstanceScores([], [], to_labels)
    with pytest.raises(ValueError, match=r"Number 0 has .*\(32, 32, 1\).*\(24, 40\)"):
        InstanceScores(images, label_maps[1:] + label_maps[:1], to_labels)
    with pytest.raises(ValueError, match=r"image of \(32, 32\).*image\[\.\.\., None\]"):
        InstanceScores([images[0][..., 0]], label_maps[:1], to_labels)
    with pytest.raises(TypeError, match="integers"):
        InstanceScores(images[:1], [label_maps[0] > 0], to_labels)


def test_label_maps_of_another_shape_say_so(training, validation):
    callback = InstanceScores(*validation, lambda outputs: to_labels(outputs)[:16])
    with pytest.raises(ValueError, match=r"true \(32, 32\) and predicted \(16, 32\)"):
        fit(small_model(), training, [callback], epochs=1)
