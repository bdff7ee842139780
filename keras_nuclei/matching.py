"""Compare two label maps: which nuclei overlap, which match, which are missed, split or merged.

A label map is an integer array `(H, W)`: 0 is background, every other number is one nucleus. The
numbers need not be consecutive.

A true and a predicted nucleus match at the threshold t if their intersection over union is above
it, IoU > t. StarDist and Cellpose take IoU >= t, which differs only where the IoU is t itself.

`keras_nuclei.scores` makes scores of the comparisons.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_nuclei.typing import ArrayLike
from keras_nuclei.validation import as_label_map


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """Areas of the nuclei in two label maps, and of their overlaps. Made by `match`.

    Attributes:
        true_numbers: Numbers of the true nuclei in their label map, ascending, `(T,)`.
        predicted_numbers: Those of the predicted nuclei, ascending, `(P,)`.
        true_areas: Areas of the true nuclei in pixels, int64 `(T,)`.
        predicted_areas: Areas of the predicted nuclei in pixels, int64 `(P,)`.
        pairs: Pairs of nuclei that share a pixel, int64 `(N, 2)`: the position of the true nucleus
            in `true_numbers`, that of the predicted one in `predicted_numbers`.
        overlaps: Areas that these pairs share, in pixels, int64 `(N,)`.

    Example:
        >>> from keras_nuclei.matching import match
        >>> found = match([[3, 3, 3, 0]], [[0, 7, 7, 7]])
        >>> found.pairs.tolist(), found.overlaps.tolist(), found.iou.tolist()
        ([[0, 0]], [2], [0.5])
    """

    true_numbers: np.ndarray
    predicted_numbers: np.ndarray
    true_areas: np.ndarray
    predicted_areas: np.ndarray
    pairs: np.ndarray
    overlaps: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair, float64 `(N,)`, in 0..1, above 0."""
        true, predicted = self.pairs.T
        return self.overlaps / (
            self.true_areas[true] + self.predicted_areas[predicted] - self.overlaps
        )


class Errors(NamedTuple):
    """Numbers of nuclei that were segmented wrongly, by kind. Made by `errors`.

    Attributes:
        missed: True nuclei that nothing was found of.
        extra: Predicted nuclei where there is none.
        split: True nuclei that were cut in several.
        merged: Predicted nuclei that unite several true ones.

    Example:
        >>> from keras_nuclei.matching import Errors
        >>> Errors(missed=1, extra=0, split=2, merged=0).split
        2
    """

    missed: int
    extra: int
    split: int
    merged: int


def match(true: ArrayLike, predicted: ArrayLike) -> Match:
    """Compare two label maps.

    Neither memory nor time depends on the number of nuclei squared.

    Args:
        true: True label map, integers `(H, W)`, 0 for background. Numbers need not be consecutive.
        predicted: Predicted label map of the same shape.

    Returns:
        The areas of all nuclei and of all overlaps.

    Raises:
        ValueError: If a label map is not `(H, W)`, holds negative numbers or no pixel, or if the
            shapes differ.
        TypeError: If a label map does not hold integers.

    Example:
        >>> from keras_nuclei.matching import match
        >>> found = match([[1, 1, 0, 9]], [[5, 5, 5, 0]])
        >>> found.true_areas.tolist(), found.predicted_areas.tolist(), found.overlaps.tolist()
        ([2, 1], [3], [2])
    """
    from scipy.sparse import coo_array

    true, predicted = as_label_map(true, "true"), as_label_map(predicted, "predicted")
    if not true.size:
        raise ValueError(f"Label maps must have at least one pixel; got the shape {true.shape}.")
    if true.shape != predicted.shape:
        raise ValueError(
            "Both label maps must have the same shape (H, W). Got true "
            f"{true.shape} and predicted {predicted.shape}. Resize label maps by nearest neighbour "
            "(order=0), which makes no new numbers."
        )
    true, predicted, areas = _runs(true.ravel(), predicted.ravel())
    true_numbers, rows = _number(true)
    predicted_numbers, columns = _number(predicted)
    # Row 0 and column 0 are background. Entries of one place add up.
    shape = (len(true_numbers), len(predicted_numbers))
    table = coo_array((areas, (rows, columns)), shape=shape).tocsr()
    shared = table[1:, 1:].tocoo()
    return Match(
        true_numbers=true_numbers[1:],
        predicted_numbers=predicted_numbers[1:],
        true_areas=table.sum(axis=1)[1:],
        predicted_areas=table.sum(axis=0)[1:],
        pairs=np.stack([shared.row, shared.col], axis=1).astype("int64"),
        overlaps=shared.data,
    )


def matched_pairs(match: Match, threshold: float = 0.5) -> np.ndarray:
    """Positions in `match.pairs` of the pairs whose nuclei match.

    Each nucleus is in one of them at most. Two IoU above 0.5 cannot share a nucleus, so from that
    threshold on there is no choice. Below it, the most pairs that can be had are taken, and among
    those choices the one with the largest sum of IoU.

    Args:
        match: Comparison of two label maps.
        threshold: Above it must the IoU be; at least 0, below 1.

    Returns:
        int64 `(TP,)`, ascending.

    Raises:
        ValueError: If `threshold` is outside its range.

    Example:
        >>> from keras_nuclei.matching import match, matched_pairs
        >>> found = match([[1, 1, 1, 2, 2]], [[8, 8, 8, 8, 9]])  # IoU 0.75, 0.2, 0.5
        >>> matched_pairs(found, 0.5).tolist(), matched_pairs(found, 0.4).tolist()
        ([0], [0, 2])
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is an IoU of at least 0 and below 1, got {threshold}. Percentages must be "
            "divided by 100."
        )
    above = np.flatnonzero(match.iou > threshold)
    if threshold >= 0.5 or len(above) == 0:
        return above
    return above[_assign(match.pairs[above], match.iou[above])]


def errors(match: Match) -> Errors:
    """Count missed, extra, split and merged nuclei of one image.

    These kinds of errors are told apart by Caicedo et al. 2019
    (https://doi.org/10.1002/cyto.a.23863), there by IoU. Here areas decide. A nucleus *lies in*
    another one if more than half of its area does, so that it lies in one at most.

    - A true nucleus is *split* if two or more predicted ones lie in it.
    - A predicted nucleus is *merged* if two or more true ones lie in it.
    - A true nucleus is *missed* if it lies in no predicted one, and none lies in it.
    - A predicted nucleus is *extra* if it lies in no true one, and none lies in it.

    Swapping the two label maps swaps split and merged, missed and extra. A nucleus that is none of
    these can still be too small or too large to match at a given IoU.

    Args:
        match: Comparison of two label maps.

    Returns:
        The number of nuclei of each kind.

    Example:
        >>> from keras_nuclei.matching import errors, match
        >>> errors(match([[1, 1, 1, 1, 0, 2, 0]], [[1, 1, 2, 2, 0, 0, 3]]))
        Errors(missed=1, extra=1, split=1, merged=0)
    """
    true, predicted = match.pairs.T
    num_true, num_predicted = len(match.true_numbers), len(match.predicted_numbers)
    true_lies_in = 2 * match.overlaps > match.true_areas[true]
    predicted_lies_in = 2 * match.overlaps > match.predicted_areas[predicted]
    related = true_lies_in | predicted_lies_in
    parts = np.bincount(true[predicted_lies_in], minlength=num_true)
    members = np.bincount(predicted[true_lies_in], minlength=num_predicted)
    return Errors(
        missed=num_true - len(np.unique(true[related])),
        extra=num_predicted - len(np.unique(predicted[related])),
        split=int(np.count_nonzero(parts >= 2)),
        merged=int(np.count_nonzero(members >= 2)),
    )


def _assign(pairs: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Which of these pairs to take, boolean `(N,)`: as many as possible, then the largest IoU."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows = np.unique(pairs[:, 0], return_inverse=True)[1]
    columns = np.unique(pairs[:, 1], return_inverse=True)[1]
    num_rows, num_columns = rows.max() + 1, columns.max() + 1
    # SciPy matches every row. One that stays unmatched goes to a column of its own. A pair gains
    # more than any sum of IoU, which num_rows bounds.
    own = np.arange(num_rows)
    weights = np.concatenate([2 + iou / (num_rows + 1), np.ones(num_rows)])
    # Numbers of 32 bits, since SciPy 1.13 takes no others.
    starts = np.concatenate([rows, own]).astype(np.int32)
    ends = np.concatenate([columns, num_columns + own]).astype(np.int32)
    graph = coo_array((weights, (starts, ends)), shape=(num_rows, num_columns + num_rows)).tocsr()
    _, partners = min_weight_full_bipartite_matching(graph, maximize=True)
    return partners[rows] == columns


def _runs(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both numbers and the length of each run of equal pixels in two flat label maps.

    Runs are some thirty times fewer than pixels, and all that comes after has to sort.
    """
    changes = (true[1:] != true[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return true[starts], predicted[starts], np.diff(starts, append=true.size)


def _number(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers in `labels`, ascending, 0 always the first; and the position of each label."""
    numbers, positions = np.unique(
        np.concatenate([np.zeros(1, labels.dtype), labels]), return_inverse=True
    )
    return numbers, positions[1:]
