"""Overlaps, matches and kinds of errors, against hand counts and slow twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import contingency_table

from keras_nuclei.matching import Errors, errors, match, matched_pairs
from tests import reference


def label_maps(shape, dtype="int32"):
    return hnp.arrays(dtype, shape, elements=st.integers(0, 5))


@st.composite
def two_label_maps(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    return draw(label_maps(shape)), draw(label_maps(shape))


def row(*numbers):
    return np.array([numbers])


def iou_matrix(found):
    matrix = np.zeros((len(found.true_numbers), len(found.predicted_numbers)))
    matrix[tuple(found.pairs.T)] = found.iou
    return matrix


@given(pair=two_label_maps())
def test_equals_masks_compared_one_by_one(pair):
    found = match(*pair)
    np.testing.assert_array_equal(iou_matrix(found), reference.iou_matrix(*pair))
    for labels, numbers, areas in (
        (pair[0], found.true_numbers, found.true_areas),
        (pair[1], found.predicted_numbers, found.predicted_areas),
    ):
        expected = np.unique(labels[labels > 0], return_counts=True)
        np.testing.assert_array_equal((numbers, areas), expected)


def test_equals_scikit_image_on_an_image_of_many_nuclei(rng):
    true = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((9, 9), int))
    true[rng.random(true.shape) < 0.3] = 0
    predicted = np.roll(true, (2, -3), axis=(0, 1))
    found = match(true, predicted)
    table = np.zeros((401, 401))
    table[1:, 1:][tuple(found.pairs.T)] = found.overlaps
    expected = contingency_table(true, predicted).toarray()
    np.testing.assert_array_equal(table[1:, 1:], expected[1:, 1:])
    assert len(found.pairs) == np.count_nonzero(expected[1:, 1:])


@given(pair=two_label_maps(), threshold=st.sampled_from([0, 0.1, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.8]))
def test_matches_are_the_best_there_are(pair, threshold):
    found = match(*pair)
    matched = matched_pairs(found, threshold)
    num_pairs, iou_sum = reference.best_matching(iou_matrix(found), threshold)
    assert len(matched) == num_pairs
    assert found.iou[matched].sum() == pytest.approx(iou_sum, abs=1e-9)
    assert (found.iou[matched] > threshold).all()
    for side in found.pairs[matched].T:
        assert len(set(side.tolist())) == num_pairs  # each nucleus at most once


def test_below_one_half_two_weak_matches_beat_a_strong_one():
    # The strong pair alone, of IoU 3 / 5, would leave true 2 and predicted 2 without a partner.
    true = row(1, 1, 1, 1, 2, 0)
    predicted = row(1, 1, 1, 2, 1, 0)
    found = match(true, predicted)
    np.testing.assert_allclose(iou_matrix(found), [[3 / 5, 1 / 4], [1 / 4, 0]])
    assert found.pairs[matched_pairs(found, 0.5)].tolist() == [[0, 0]]
    assert found.pairs[matched_pairs(found, 0.2)].tolist() == [[0, 1], [1, 0]]


def test_the_threshold_is_exclusive():
    found = match(row(1, 1, 1, 1), row(1, 1, 2, 2))  # two pairs of IoU 1 / 2, one true nucleus
    assert matched_pairs(found, 0.5).tolist() == []
    assert len(matched_pairs(found, 0.49)) == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64", "uint64"])
def test_any_integers_any_numbers(dtype):
    largest = np.iinfo(dtype).max
    found = match(
        np.array([[largest, largest, 0, 7]], dtype), np.array([[3, 0, 0, largest]], dtype)
    )
    assert found.true_numbers.tolist() == [7, largest]
    assert found.predicted_numbers.tolist() == [3, largest]
    np.testing.assert_array_equal(iou_matrix(found), [[0, 1], [1 / 2, 0]])


def test_views_and_different_integer_types(rng):
    true = rng.integers(0, 4, (6, 8)).astype("uint16")
    np.testing.assert_array_equal(
        iou_matrix(match(true.T[::2], true.astype("int64").T[::2])), np.eye(3)
    )


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        (row(1, 1, 0, 2), row(5, 5, 0, 9), Errors(0, 0, 0, 0)),
        (row(1, 1, 0, 0), row(0, 0, 0, 9), Errors(missed=1, extra=1, split=0, merged=0)),
        (row(1, 1, 1, 1), row(1, 1, 2, 2), Errors(missed=0, extra=0, split=1, merged=0)),
        (row(1, 1, 2, 2), row(1, 1, 1, 1), Errors(missed=0, extra=0, split=0, merged=1)),
        # Half of each nucleus shared is not most of it.
        (row(1, 1, 0), row(0, 1, 1), Errors(missed=1, extra=1, split=0, merged=0)),
        # Found, though far too small: a match at no usual threshold, but not missed.
        (row(1, 1, 1, 1), row(0, 1, 0, 0), Errors(0, 0, 0, 0)),
        # Merged counts the predicted nucleus, whether of two or of three; split, the true one.
        (row(1, 2, 3, 0), row(4, 4, 4, 4), Errors(missed=0, extra=0, split=0, merged=1)),
        (row(0, 0), row(0, 0), Errors(0, 0, 0, 0)),
    ],
)
def test_kinds_of_errors_by_hand(true, predicted, expected):
    assert errors(match(true, predicted)) == expected
    swapped = errors(match(predicted, true))
    assert swapped == (expected.extra, expected.missed, expected.merged, expected.split)


@given(pair=two_label_maps())
def test_kinds_of_errors_equal_the_slow_twin(pair):
    assert errors(match(*pair)) == reference.segmentation_errors(*pair)


@given(pair=two_label_maps())
def test_a_matched_nucleus_is_neither_missed_nor_extra(pair):
    found = match(*pair)
    num_matched = len(matched_pairs(found, 0.5))
    assert errors(found).missed <= len(found.true_numbers) - num_matched
    assert errors(found).extra <= len(found.predicted_numbers) - num_matched


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((4, 4), bool), TypeError, r"predicted.*bool.*skimage\.measure\.label"),
        (np.zeros((4, 4), "float32"), TypeError, r"predicted.*float32.*astype\('int32'\)"),
        (np.zeros((4, 4, 1), int), ValueError, r"\(4, 4, 1\).*label_map\[\.\.\., 0\]"),
        (np.full((4, 4), -1), ValueError, "negative number -1"),
        (np.zeros((4, 5), int), ValueError, r"\(4, 4\) and predicted \(4, 5\).*order=0"),
    ],
)
def test_what_is_no_label_map_is_refused(labels, error, message):
    with pytest.raises(error, match=message):
        match(np.zeros((4, 4), int), labels)


def test_label_maps_without_pixels_are_refused():
    with pytest.raises(ValueError, match=r"at least one pixel; got the shape \(0, 4\)"):
        match(np.zeros((0, 4), int), np.zeros((0, 4), int))


@pytest.mark.parametrize("threshold", [-0.1, 1, 50, float("nan")])
def test_thresholds_that_are_no_iou_are_refused(threshold):
    with pytest.raises(ValueError, match=r"at least 0 and below 1.*divided by 100"):
        matched_pairs(match(row(1), row(1)), threshold)
