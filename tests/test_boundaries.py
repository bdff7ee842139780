"""Boundary F1 against a slow twin and by hand."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.segmentation import find_boundaries

from keras_nuclei.losses import Dice
from keras_nuclei.metrics import BoundaryF1
from tests import reference

MASKS = hnp.arrays("uint8", (2, 7, 9), elements=st.integers(0, 1))


def score(metric, y_true, y_pred):
    metric.update_state(y_true, y_pred)
    return keras.ops.convert_to_numpy(metric.result()).tolist()


def disc(shape, center, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2).astype("uint8")


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 20])
@given(y_true=MASKS, y_pred=MASKS)
def test_equals_its_twin(tolerance, y_true, y_pred):
    counts = [
        reference.boundary_counts(*masks, tolerance) for masks in zip(y_true, y_pred, strict=True)
    ]
    per_image = np.mean([reference.f1_of_boundary(*each) for each in counts])
    found = score(BoundaryF1(tolerance=tolerance), y_true, y_pred)
    assert found == pytest.approx(per_image, abs=1e-6)
    of_sums = reference.f1_of_boundary(*np.sum(counts, axis=0))
    found = score(BoundaryF1(tolerance=tolerance, average="micro"), y_true, y_pred)
    assert found == pytest.approx(of_sums, abs=1e-6)


@given(y_true=MASKS, y_pred=MASKS, ignored=MASKS)
def test_with_pixels_to_ignore_it_equals_its_twin(y_true, y_pred, ignored):
    labels = np.where(ignored, 255, y_true).astype("uint8")
    expected = np.mean(
        [
            reference.f1_of_boundary(*reference.boundary_counts(true, pred, 1, ignore == 0))
            for true, pred, ignore in zip(y_true, y_pred, ignored, strict=True)
        ]
    )
    found = score(BoundaryF1(tolerance=1, ignore_class=255), labels, y_pred)
    assert found == pytest.approx(expected, abs=1e-6)


@given(
    y_true=hnp.arrays("uint8", (2, 7, 9), elements=st.integers(0, 2)),
    y_pred=hnp.arrays("uint8", (2, 7, 9), elements=st.integers(0, 2)),
)
def test_each_class_has_its_own_boundaries(y_true, y_pred):
    each = [
        np.mean(
            [
                reference.f1_of_boundary(
                    *reference.boundary_counts(true == number, pred == number, 1)
                )
                for true, pred in zip(y_true, y_pred, strict=True)
            ]
        )
        for number in range(3)
    ]
    arguments = {"tolerance": 1, "num_classes": 3}
    one_hot = np.eye(3)[y_pred]
    found = score(BoundaryF1(average=None, per_image=True, **arguments), y_true, one_hot)
    assert found == pytest.approx(each, abs=1e-6)
    assert score(BoundaryF1(**arguments), y_true, one_hot) == pytest.approx(np.mean(each), abs=1e-6)


@given(y_true=MASKS)
def test_the_boundary_is_that_of_scikit_image(y_true):
    # With the outside as background, which scikit-image does not look at.
    for mask in y_true:
        expected = find_boundaries(np.pad(mask, 1), connectivity=1, mode="inner")[1:-1, 1:-1]
        assert reference.boundary(mask) == [tuple(point) for point in np.argwhere(expected)]


def test_a_shift_within_the_tolerance_is_forgiven():
    true = disc((24, 24), (12, 12), 6)[None]
    moved = disc((24, 24), (12, 14), 6)[None]
    assert score(BoundaryF1(tolerance=2), true, moved) == 1
    assert 0 < score(BoundaryF1(tolerance=1), true, moved) < 1
    far = disc((24, 24), (3, 3), 2)[None]
    assert score(BoundaryF1(tolerance=1), true, far) == 0


def test_the_tolerance_is_a_disc():
    true, pred = np.zeros((1, 5, 5)), np.zeros((1, 5, 5))
    true[0, 2, 2] = pred[0, 3, 3] = 1
    # Diagonal neighbours are sqrt(2) apart.
    assert score(BoundaryF1(tolerance=1), true, pred) == 0
    assert score(BoundaryF1(tolerance=1.5), true, pred) == 1


def test_empty_boundaries():
    empty, full = np.zeros((1, 5, 5)), np.ones((1, 5, 5))
    assert score(BoundaryF1(), empty, empty) == 1
    # The edge of the image bounds a mask that fills it: it is not taken for an empty one.
    assert score(BoundaryF1(), empty, full) == 0
    assert score(BoundaryF1(), full, empty) == 0
    assert score(BoundaryF1(), full, full) == 1


def test_images_of_any_size_in_a_compiled_model(rng):
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(loss=Dice(), metrics=[BoundaryF1(tolerance=1)])
    for shape in ((2, 7, 9), (1, 8, 6)):
        y_true, y_pred = rng.integers(0, 2, shape), rng.random((*shape, 1))
        found = model.evaluate(y_pred, y_true, verbose=0, return_dict=True)
        assert found["boundary_f1"] == score(BoundaryF1(tolerance=1), y_true, y_pred)


def test_bad_arguments():
    with pytest.raises(ValueError, match="tolerance must be at least 0, in pixels; got -1"):
        BoundaryF1(tolerance=-1)
    with pytest.raises(ValueError, match=r"Boundaries need masks .*\(1, 4\)"):
        BoundaryF1().update_state([[0, 1, 1, 0]], [[0, 1, 1, 0]])
