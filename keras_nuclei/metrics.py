"""Dice, IoU, precision, recall and boundary F1 of masks and classes: counted, and one ratio.

With TP, FP and FN the numbers of pixels that are of a class in both maps, only in the predicted
one, and only in the true one:

    Dice = 2 TP / (2 TP + FP + FN)        IoU = TP / (TP + FP + FN)
    precision = TP / (TP + FP)            recall = TP / (TP + FN)

Nothing is smoothed. 0 / 0 is 1: nothing was there to get wrong. So two empty masks agree, an empty
prediction has precision 1 (and recall 0 unless the truth is empty too), and a class that is absent
from both maps scores 1.

Many classes (`num_classes` above 1, background included) come from a softmax, and the class with
the highest value is the predicted one. `average` says how they become one number:

- "macro", the default: the score of each class from the counts of all images, and their mean.
- "micro": the counts summed over the classes, and one ratio. With all classes and none ignored,
  Dice, precision and recall are then the share of right pixels.
- "per_image": for each image the mean over its classes, and the mean over the images.
- None: the score of each class, an array.

With one class the first two and the last are the same. `per_image=True` takes the mean over images
also of "micro" and None. A class that is absent counts with its 1 in every mean; where that
flatters, as in images with few of many classes, choose "micro" or None. Background usually is much
the largest and easiest class: leave it out with `target_class_ids`.

None of the scores depends on the batch size or the order, and counts are exact whatever their size.

A mask of 0 and 255, a label that is no class, or logits that were not announced raise an error that
says so, where a metric is called on arrays. Compiled code, as `fit` runs it on TensorFlow and JAX,
can't raise: there the score is NaN. Call it once on a batch, or compile with `run_eagerly=True`,
and read the message.
"""

from collections.abc import Sequence

import keras
from keras import ops

from keras_nuclei.boundaries import BoundaryF1
from keras_nuclei.counting import CountMetric, ratio_or_one, sum_pixels
from keras_nuclei.typing import DType, Tensor

__all__ = ["BoundaryF1", "Dice", "IoU", "Precision", "Recall"]


class _OverlapMetric(CountMetric):
    """Counts of true positives, false positives and false negatives."""

    def __init__(
        self,
        *,
        num_classes: int = 1,
        threshold: float = 0.5,
        from_logits: bool = False,
        average: str | None = "macro",
        per_image: bool = False,
        target_class_ids: Sequence[int] | None = None,
        ignore_class: int | None = None,
        name: str | None = None,
        dtype: DType = None,
    ):
        super().__init__(
            num_counts=3,
            num_classes=num_classes,
            threshold=threshold,
            from_logits=from_logits,
            average=average,
            per_image=per_image,
            target_class_ids=target_class_ids,
            ignore_class=ignore_class,
            name=name,
            dtype=dtype,
        )

    def count(self, true: Tensor, pred: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
        """TP, FP and FN."""
        pred = ops.logical_and(pred, counted)
        true_positives = sum_pixels(ops.logical_and(true, pred))
        return true_positives, sum_pixels(pred) - true_positives, sum_pixels(true) - true_positives


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class Dice(_OverlapMetric):
    """Dice coefficient, `2 TP / (2 TP + FP + FN)`.

    The F1 score of the pixels (Dice 1945, https://doi.org/10.2307/1932409). 1 where both masks
    are empty. With one class, several channels are several masks, whose pixels are counted
    together.

    Args:
        num_classes: 1 for binary masks, from a sigmoid; else the number of classes that exclude
            each other, background included, from a softmax.
        threshold: Between 0 and 1; with one class, a pixel whose probability is above it is
            predicted to be nucleus.
        from_logits: Whether predictions are logits.
        average: How many classes become one number: "macro", "micro", "per_image" or None, see
            `keras_nuclei.metrics`.
        per_image: False counts the pixels of all images and takes one ratio. True takes the
            ratio of each image (each entry of the first axis) and their mean, so that a small
            image weighs as much as a large one.
        target_class_ids: Classes to score, of many; None for all but `ignore_class`.
        ignore_class: Label of the pixels that do not count, such as 255.
        name: Name of the metric; None for "dice".
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is out of its range. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.Dice()
        >>> metric.update_state([[1, 1, 0, 0]], [[0.9, 0.2, 0.8, 0.1]])
        >>> float(metric.result())  # 1 true positive, 1 false positive, 1 false negative
        0.5
    """

    default_name = "dice"

    def score(
        self, true_positives: Tensor, false_positives: Tensor, false_negatives: Tensor
    ) -> Tensor:
        """Dice of the counts."""
        twice = 2 * true_positives
        return ratio_or_one(twice, twice + false_positives + false_negatives)


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class IoU(_OverlapMetric):
    """Intersection over union, `TP / (TP + FP + FN)`.

    Also called the Jaccard index (Jaccard 1912,
    https://doi.org/10.1111/j.1469-8137.1912.tb05611.x). 1 where both masks are empty. With one
    class, several channels are several masks, whose pixels are counted together.

    Args:
        num_classes: 1 for binary masks, from a sigmoid; else the number of classes that exclude
            each other, background included, from a softmax.
        threshold: Between 0 and 1; with one class, a pixel whose probability is above it is
            predicted to be nucleus.
        from_logits: Whether predictions are logits.
        average: How many classes become one number: "macro", "micro", "per_image" or None, see
            `keras_nuclei.metrics`.
        per_image: False counts the pixels of all images and takes one ratio. True takes the
            ratio of each image (each entry of the first axis) and their mean, so that a small
            image weighs as much as a large one.
        target_class_ids: Classes to score, of many; None for all but `ignore_class`.
        ignore_class: Label of the pixels that do not count, such as 255.
        name: Name of the metric; None for "iou".
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is out of its range. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.IoU()
        >>> metric.update_state([[1, 1, 0, 0]], [[0.9, 0.8, 0.7, 0.6]])
        >>> float(metric.result())  # 2 true positives, 2 false positives
        0.5

        Of three classes, without pixels labelled 255:

        >>> metric = keras_nuclei.metrics.IoU(num_classes=3, average=None, ignore_class=255)
        >>> metric.update_state(
        ...     [[0, 0, 1, 255]], [[[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0, 1.0, 0], [0, 0, 1.0]]]
        ... )
        >>> print(metric.result().numpy())  # class 2 is in neither
        [0.5 0.5 1. ]
    """

    default_name = "iou"

    def score(
        self, true_positives: Tensor, false_positives: Tensor, false_negatives: Tensor
    ) -> Tensor:
        """IoU of the counts."""
        return ratio_or_one(true_positives, true_positives + false_positives + false_negatives)


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class Precision(_OverlapMetric):
    """Precision of the pixels, `TP / (TP + FP)`: how much of what is predicted is right.

    1 where nothing is predicted: no prediction is wrong. Look at it beside `Recall`.

    Args:
        num_classes: As in `IoU`.
        threshold: As in `IoU`.
        from_logits: As in `IoU`.
        average: As in `IoU`.
        per_image: As in `IoU`.
        target_class_ids: As in `IoU`.
        ignore_class: As in `IoU`.
        name: Name of the metric; None for "precision".
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is out of its range. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.Precision(threshold=0.7)
        >>> metric.update_state([[1, 1, 0, 0]], [[0.9, 0.6, 0.8, 0.1]])
        >>> float(metric.result())  # 1 true positive, 1 false positive
        0.5
    """

    default_name = "precision"

    def score(
        self, true_positives: Tensor, false_positives: Tensor, false_negatives: Tensor
    ) -> Tensor:
        """Precision of the counts."""
        return ratio_or_one(true_positives, true_positives + false_positives)


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class Recall(_OverlapMetric):
    """Recall (sensitivity) of the pixels, `TP / (TP + FN)`: how much of what is there is found.

    1 where the truth is empty: there is nothing to miss. Look at it beside `Precision`.

    Args:
        num_classes: As in `IoU`.
        threshold: As in `IoU`.
        from_logits: As in `IoU`.
        average: As in `IoU`.
        per_image: As in `IoU`.
        target_class_ids: As in `IoU`.
        ignore_class: As in `IoU`.
        name: Name of the metric; None for "recall".
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is out of its range. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.Recall()
        >>> metric.update_state([[1, 1, 1, 1, 0]], [[0.9, 0.2, 0.3, 0.1, 0.8]])
        >>> float(metric.result())  # 1 true positive, 3 false negatives
        0.25
    """

    default_name = "recall"

    def score(
        self, true_positives: Tensor, false_positives: Tensor, false_negatives: Tensor
    ) -> Tensor:
        """Recall of the counts."""
        return ratio_or_one(true_positives, true_positives + false_negatives)
