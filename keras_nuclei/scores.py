"""How well predicted nuclei agree with true ones: average precision, F1, panoptic quality.

Scores are made of the comparisons of label maps that `keras_nuclei.matching.match` returns, one
for each image. With TP, FP and FN the numbers of matched pairs, of predicted nuclei left over, and
of true nuclei left over:

    AP = TP / (TP + FP + FN)
    F1 = 2 TP / (2 TP + FP + FN)
    PQ = sum of the IoU of the matched pairs / (TP + FP / 2 + FN / 2)

Each lies in 0..1, and is 1 where both label maps are empty. A score is the mean of those of the
images, or with `per_image=False` that of the counts of all images together.
"""

from typing import NamedTuple

import numpy as np

from keras_nuclei.matching import Errors, Match, errors, matched_pairs

DSB_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""IoU thresholds of the Data Science Bowl 2018; `numpy.arange` would be off in the last digit."""


class Counts(NamedTuple):
    """What matches and what does not, at one IoU threshold. Made by `count`.

    Attributes:
        true_positives: Number of matched pairs.
        false_positives: Number of predicted nuclei without a match.
        false_negatives: Number of true nuclei without a match.
        iou_sum: Sum of the IoU of the matched pairs.

    Example:
        >>> from keras_nuclei.scores import Counts
        >>> Counts(true_positives=2, false_positives=1, false_negatives=0, iou_sum=1.7).iou_sum
        1.7
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float


def count(match: Match, threshold: float = 0.5) -> Counts:
    """Count matched and unmatched nuclei of one image.

    Args:
        match: Comparison of two label maps.
        threshold: Above it must the IoU of matched nuclei be; at least 0, below 1.

    Returns:
        The counts.

    Raises:
        ValueError: If `threshold` is outside its range.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import count
        >>> count(match([[1, 1, 0, 2]], [[5, 5, 5, 0]]), 0.6)  # IoU 2 / 3
        Counts(true_positives=1, false_positives=0, false_negatives=1, iou_sum=0.6666666666666666)
    """
    matched = matched_pairs(match, threshold)
    return Counts(
        true_positives=len(matched),
        false_positives=len(match.predicted_numbers) - len(matched),
        false_negatives=len(match.true_numbers) - len(matched),
        iou_sum=float(match.iou[matched].sum()),
    )


def average_precision(
    matches: list[Match], threshold: float = 0.5, *, per_image: bool = True
) -> float:
    """AP at one threshold, TP / (TP + FP + FN).

    The precision of the Data Science Bowl 2018 (Caicedo et al. 2019,
    https://doi.org/10.1038/s41592-019-0612-7), elsewhere called accuracy, critical success index or
    threat score. It is not the area under a curve that object detection calls by that name.

    Args:
        matches: One comparison for each image, at least one.
        threshold: Above it must the IoU of matched nuclei be; at least 0, below 1.
        per_image: Whether to take the mean over the images, or to pool their counts.

    Returns:
        Value in 0..1; an image without true and predicted nuclei has 1.

    Raises:
        ValueError: If `threshold` is outside its range, or `matches` is empty.
        TypeError: If `matches` holds anything but what `match` returns.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import average_precision
        >>> found = match([[1, 1, 0, 2]], [[1, 1, 0, 0]])
        >>> perfect = match([[1, 2, 3, 0]], [[1, 2, 3, 0]])
        >>> average_precision([found, perfect])  # mean of 1 / 2 and 3 / 3
        0.75
        >>> average_precision([found, perfect], per_image=False)  # 4 / 5
        0.8
    """
    tp, fp, fn, _ = _counts(matches, threshold, per_image)
    return _mean_ratio(tp, tp + fp + fn)


def f1_score(matches: list[Match], threshold: float = 0.5, *, per_image: bool = True) -> float:
    """F1 at one threshold, 2 TP / (2 TP + FP + FN): how many nuclei were found, each once.

    Arguments, result and errors are those of `average_precision`.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import f1_score
        >>> f1_score([match([[1, 0, 2, 3]], [[1, 0, 0, 0]])])  # TP 1, FN 2
        0.5
    """
    tp, fp, fn, _ = _counts(matches, threshold, per_image)
    return _mean_ratio(2 * tp, 2 * tp + fp + fn)


def panoptic_quality(
    matches: list[Match], threshold: float = 0.5, *, per_image: bool = True
) -> float:
    """PQ at one threshold: sum of the IoU of matched pairs / (TP + FP / 2 + FN / 2).

    F1 times the mean IoU of the matched nuclei: how many were found, and how well they are drawn
    (Kirillov et al. 2019, https://doi.org/10.1109/CVPR.2019.00963, who take 0.5 and the counts of
    all images together).

    Arguments, result and errors are those of `average_precision`.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import panoptic_quality
        >>> panoptic_quality([match([[1, 1, 1, 1, 0, 2]], [[1, 1, 1, 0, 0, 0]])])  # 0.75 / 1.5
        0.5
    """
    tp, fp, fn, iou_sum = _counts(matches, threshold, per_image)
    return _mean_ratio(iou_sum, tp + fp / 2 + fn / 2)


def dsb_score(matches: list[Match], *, per_image: bool = True) -> float:
    """Mean of AP over the IoU thresholds 0.50 to 0.95, in steps of 0.05.

    The score that ranked the entries of the Data Science Bowl 2018 (Caicedo et al. 2019,
    https://doi.org/10.1038/s41592-019-0612-7).

    Arguments, result and errors are those of `average_precision`.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import dsb_score
        >>> dsb_score([match([[1, 1, 1, 1]], [[1, 1, 1, 0]])])  # 0.75 is above 5 of 10 thresholds
        0.5
    """
    return float(
        np.mean([average_precision(matches, t, per_image=per_image) for t in DSB_THRESHOLDS])
    )


def summarize(matches: list[Match]) -> dict[str, int | float]:
    """Every score and count of a list of images, by name.

    | name | what |
    | --- | --- |
    | `images`, `true_nuclei`, `predicted_nuclei` | how many there are |
    | `missed`, `extra`, `split`, `merged` | sums of `errors` |
    | `dsb_...` | `dsb_score` |
    | `ap50_...`, `ap75_...` | `average_precision` at 0.5 and 0.75 |
    | `f1_...`, `pq_...` | `f1_score` and `panoptic_quality` at 0.5 |

    Scores come twice: `..._per_image` is the mean over the images, `..._pooled` is made of the
    counts of all images together.

    Args:
        matches: As in `average_precision`.

    Returns:
        Plain numbers, ready for JSON.

    Raises:
        ValueError: If `matches` is empty.
        TypeError: As in `average_precision`.

    Example:
        >>> from keras_nuclei.matching import match
        >>> from keras_nuclei.scores import summarize
        >>> summary = summarize([match([[1, 1, 0, 2]], [[1, 1, 0, 0]])])
        >>> summary["true_nuclei"], summary["missed"], summary["ap50_per_image"]
        (2, 1, 0.5)
    """
    _require_matches(matches)
    kinds = [errors(match) for match in matches]
    summary = {
        "images": len(matches),
        "true_nuclei": sum(len(match.true_numbers) for match in matches),
        "predicted_nuclei": sum(len(match.predicted_numbers) for match in matches),
        **{kind: sum(getattr(found, kind) for found in kinds) for kind in Errors._fields},
    }
    for suffix, per_image in (("per_image", True), ("pooled", False)):
        summary |= {
            f"dsb_{suffix}": dsb_score(matches, per_image=per_image),
            f"ap50_{suffix}": average_precision(matches, 0.5, per_image=per_image),
            f"ap75_{suffix}": average_precision(matches, 0.75, per_image=per_image),
            f"f1_{suffix}": f1_score(matches, 0.5, per_image=per_image),
            f"pq_{suffix}": panoptic_quality(matches, 0.5, per_image=per_image),
        }
    return summary


def _counts(matches: list[Match], threshold: float, per_image: bool) -> np.ndarray:
    """The fields of `Counts`, each an array with one entry per image, or with one for all."""
    _require_matches(matches)
    counts = np.array([count(match, threshold) for match in matches], "float64")
    return counts.T if per_image else counts.sum(axis=0, keepdims=True).T


def _mean_ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Mean of the ratios, of which 0 / 0 is 1."""
    ratios = np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator > 0)
    return float(ratios.mean())


def _require_matches(matches: list[Match]) -> None:
    listed = isinstance(matches, list | tuple)
    if not listed or not all(isinstance(match, Match) for match in matches):
        got = sorted({type(value).__name__ for value in (matches if listed else [matches])})
        raise TypeError(
            "matches must be a list of what `match` returns, one for each image; got "
            f"{'a list of ' if listed else ''}{', '.join(got)}. Of one image, pass "
            "[match(true, predicted)]."
        )
    if not matches:
        raise ValueError("matches is empty, and the score of no image is not defined.")
