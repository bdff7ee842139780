"""AP, F1, PQ and the DSB score, against hand counts, slow twins and published implementations."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from skimage.draw import disk

from keras_nuclei.matching import match
from keras_nuclei.scores import (
    DSB_THRESHOLDS,
    average_precision,
    count,
    dsb_score,
    f1_score,
    panoptic_quality,
    summarize,
)
from tests import reference
from tests.test_matching import row, two_label_maps

SCORES = (average_precision, f1_score, panoptic_quality)
EMPTY = np.zeros((4, 4), int)
FULL = np.ones((4, 4), int)
RADIUS = 20


def five_discs(shifts=(0, 0, 0, 0, 0)):
    labels = np.zeros((50, 380), "int32")
    for number, shift in enumerate(shifts, start=1):
        labels[disk((25, 70 * number - 40 + shift), RADIUS)] = number
    return labels


def iou_of_discs(shift):
    """Of two circles of one radius: the lens that they share, by plane geometry."""
    lens = 2 * RADIUS**2 * np.arccos(shift / (2 * RADIUS))
    lens -= shift / 2 * np.sqrt(4 * RADIUS**2 - shift**2)
    return lens / (2 * np.pi * RADIUS**2 - lens)


def test_five_shifted_discs():
    shifts = (0, 3, 6, 12, 24)
    found = match(five_discs(), five_discs(shifts))
    iou = [iou_of_discs(shift) for shift in shifts]  # 1.00, 0.83, 0.68, 0.45, 0.16
    np.testing.assert_allclose(found.iou, iou, atol=0.01)
    for threshold, tp in ((0.1, 5), (0.3, 4), (0.5, 3), (0.75, 2), (0.9, 1)):
        assert count(found, threshold)[:3] == (tp, 5 - tp, 5 - tp)
        assert average_precision([found], threshold) == tp / (10 - tp)
        assert f1_score([found], threshold) == tp / 5
        assert panoptic_quality([found], threshold) == pytest.approx(sum(iou[:tp]) / 5, abs=0.01)
    # TP at 0.50 ... 0.65 is 3, at 0.70 ... 0.80 2, at 0.85 ... 0.95 1.
    assert dsb_score([found]) == pytest.approx((4 * 3 / 7 + 3 * 2 / 8 + 3 * 1 / 9) / 10)


def test_discs_missed_and_extra():
    true, predicted = five_discs(), five_discs()
    true[true == 2] = 0
    predicted[(predicted == 4) | (predicted == 5)] = 0
    found = match(true, predicted)
    assert count(found, 0.5) == (2, 1, 2, 2.0)
    assert average_precision([found], 0.95) == 2 / 5
    assert f1_score([found], 0.95) == 4 / 7
    assert panoptic_quality([found], 0.95) == 2 / 3.5


@pytest.mark.parametrize("pixels", range(10, 21))
def test_each_threshold_is_exact_and_exclusive(pixels):
    # A nucleus of 20 pixels of which k are found has the IoU k / 20, each threshold in turn.
    true, predicted = np.ones((1, 20), int), np.zeros((1, 20), int)
    predicted[0, :pixels] = 1
    assert len(DSB_THRESHOLDS) == 10
    assert dsb_score([match(true, predicted)]) == pytest.approx((pixels - 10) / 10)


@pytest.mark.parametrize("score", [*SCORES, dsb_score])
@pytest.mark.parametrize("per_image", [True, False])
def test_both_empty_is_perfect_and_one_empty_is_not(score, per_image):
    assert score([match(EMPTY, EMPTY)], per_image=per_image) == 1
    assert score([match(EMPTY, FULL)], per_image=per_image) == 0
    assert score([match(FULL, EMPTY)], per_image=per_image) == 0


def test_mean_over_images_and_pooled_counts_differ():
    one_of_two = match(row(1, 0, 2), row(1, 0, 0))
    images = [one_of_two, match(EMPTY, EMPTY), match(row(1, 2, 3, 4), row(1, 2, 3, 4))]
    assert average_precision(images) == pytest.approx((1 / 2 + 1 + 4 / 4) / 3)
    assert average_precision(images, per_image=False) == 5 / 6
    assert f1_score(images) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert f1_score(images, per_image=False) == 10 / 11
    assert panoptic_quality(images, per_image=False) == 5 / 5.5


@given(pair=two_label_maps(), threshold=st.sampled_from([0.1, 0.25, 0.5, 0.75]))
def test_equals_the_slow_twin(pair, threshold):
    iou = reference.iou_matrix(*pair)
    tp, iou_sum = reference.best_matching(iou, threshold)
    fn, fp = iou.shape[0] - tp, iou.shape[1] - tp
    assume(sum(iou.shape))
    images = [match(*pair)]
    assert average_precision(images, threshold) == pytest.approx(tp / (tp + fp + fn))
    assert f1_score(images, threshold) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    expected = iou_sum / (tp + fp / 2 + fn / 2)
    assert panoptic_quality(images, threshold) == pytest.approx(expected)


@given(pair=two_label_maps(), threshold=st.sampled_from([0, 0.3, 0.5, 0.7]))
def test_swapping_truth_and_prediction_changes_no_score(pair, threshold):
    one, other = [match(*pair)], [match(*pair[::-1])]
    for score in SCORES:
        assert score(one, threshold) == pytest.approx(score(other, threshold))


@given(pair=two_label_maps(), numbers=st.permutations([3, 8, 1, 40, 5, 2**31 - 1]))
def test_the_numbers_of_the_nuclei_do_not_matter(pair, numbers):
    renumbered = np.array([0, *numbers[1:]])[pair[1]]
    assert summarize([match(*pair)]) == summarize([match(pair[0], renumbered)])


@given(pair=two_label_maps())
def test_identical_label_maps_are_perfect(pair):
    summary = summarize([match(pair[0], pair[0])])
    assert all(summary[name] == 1 for name in summary if name.endswith(("_per_image", "_pooled")))
    assert [summary[name] for name in ("missed", "extra", "split", "merged")] == [0, 0, 0, 0]


@given(
    pairs=st.lists(two_label_maps(), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_images_does_not_matter(pairs, order):
    matches = [match(*pair) for pair in pairs]
    shuffled = order.sample(matches, len(matches))
    assert summarize(shuffled) == pytest.approx(summarize(matches))


@given(pair=two_label_maps())
def test_a_higher_threshold_never_finds_more(pair):
    found = match(*pair)
    tp = [count(found, threshold / 20).true_positives for threshold in range(20)]
    assert tp == sorted(tp, reverse=True)


def test_summary():
    images = [
        match(row(1, 1, 1, 1, 0, 2, 0), row(1, 1, 2, 2, 0, 0, 3)),  # split, missed, extra
        match(row(1, 1, 1, 0, 2, 2, 2), row(1, 1, 1, 0, 2, 2, 0)),  # IoU 1 and 2 / 3
        match(row(1, 1, 2, 2), row(1, 1, 1, 1)),  # merged
    ]
    summary = summarize(images)
    assert summary == pytest.approx(
        {
            "images": 3,
            "true_nuclei": 6,
            "predicted_nuclei": 6,
            "missed": 1,
            "extra": 1,
            "split": 1,
            "merged": 1,
            # IoU 2 / 3 is above 4 of 10 thresholds: AP 1 there, 1 / 3 at the others. Pooled, TP is
            # 2 or 1 of 6 and 6 nuclei.
            "dsb_per_image": (4 * 1 + 6 / 3) / 10 / 3,
            "dsb_pooled": (4 * 2 / 10 + 6 * 1 / 11) / 10,
            "ap50_per_image": 1 / 3,
            "ap50_pooled": 2 / 10,
            "ap75_per_image": 1 / 9,
            "ap75_pooled": 1 / 11,
            "f1_per_image": 1 / 3,
            "f1_pooled": 4 / 12,
            "pq_per_image": (1 + 2 / 3) / 2 / 3,
            "pq_pooled": (1 + 2 / 3) / 6,
        }
    )
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("score", [*SCORES, dsb_score, summarize])
def test_what_is_no_list_of_matches_is_refused(score):
    found = match(FULL, FULL)
    with pytest.raises(TypeError, match=r"got Match\. Of one image, pass \[match"):
        score(found)
    with pytest.raises(TypeError, match="got a list of Match, tuple"):
        score([found, (FULL, FULL)])
    with pytest.raises(ValueError, match="empty"):
        score([])


def test_thresholds_that_are_no_iou_are_refused():
    with pytest.raises(ValueError, match="divided by 100"):
        average_precision([match(FULL, FULL)], 50)


# Published implementations. Two of them count IoU >= t where this package counts IoU > t. No IoU
# of these small label maps lies within 1e-6 above a threshold, so t + 1e-6 is t, exclusively.
JUST_ABOVE = 1e-6
AT_EACH_THRESHOLD = given(
    pair=two_label_maps(), threshold=st.sampled_from([0.1, 0.25, 0.4, *DSB_THRESHOLDS])
)


@AT_EACH_THRESHOLD
def test_equals_stardist(pair, threshold):
    stardist = pytest.importorskip("stardist.matching")
    expected = stardist.matching(*pair, thresh=threshold + JUST_ABOVE)
    assume(expected.n_true or expected.n_pred)  # it scores two empty images 0
    images = [match(*pair)]
    assert count(images[0], threshold)[:3] == (expected.tp, expected.fp, expected.fn)
    assert average_precision(images, threshold) == pytest.approx(expected.accuracy)
    assert f1_score(images, threshold) == pytest.approx(expected.f1)
    if threshold >= 0.5:
        # Below, where matches have to be chosen, StarDist lets the pairs that are too weak to match
        # have a say in the choice; Cellpose and this package count matches alike nevertheless.
        assert panoptic_quality(images, threshold) == pytest.approx(expected.panoptic_quality)


def test_stardist_differs_at_the_threshold_itself():
    stardist = pytest.importorskip("stardist.matching")
    half = row(1, 1), row(1, 0)
    assert stardist.matching(*half, thresh=0.5).tp == 1
    assert count(match(*half), 0.5).true_positives == 0


@AT_EACH_THRESHOLD
def test_equals_cellpose(pair, threshold):
    cellpose = pytest.importorskip("cellpose.metrics")
    # It takes consecutive numbers, some nuclei, and background first.
    true, predicted = (
        np.searchsorted(np.unique(np.append(0, labels)), np.pad(labels, 1)) for labels in pair
    )
    assume(true.any() and predicted.any())
    ap, tp, fp, fn = cellpose.average_precision(true, predicted, [threshold + JUST_ABOVE])
    found = match(true, predicted)
    assert count(found, threshold)[:3] == (tp[0], fp[0], fn[0])
    assert average_precision([found], threshold) == pytest.approx(float(ap[0]))


@AT_EACH_THRESHOLD
def test_equals_cellseg_metrics(pair, threshold):
    cellseg_metrics = pytest.importorskip("cellseg_metrics")
    assume(pair[0].any() and pair[1].any())  # it scores two empty images 0
    expected = cellseg_metrics.panoptic_quality(*pair, thresh=threshold)
    images = [match(*pair)]
    assert f1_score(images, threshold) == pytest.approx(expected["dq"], abs=1e-6)
    assert panoptic_quality(images, threshold) == pytest.approx(expected["pq"], abs=1e-6)
