"""Dice and IoU of binary masks: thresholded, counted, and one ratio at the end.

With TP, FP and FN the numbers of pixels that are nucleus in both masks, only in the predicted
one, and only in the true one:

    Dice = 2 TP / (2 TP + FP + FN)        IoU = TP / (TP + FP + FN)

Where both masks are empty, both are 1. Nothing is smoothed.
"""

import keras
from keras import ops

from keras_nuclei.validation import check_logits, check_masks, check_probabilities, match_shapes

# Counts are kept as digits of this base, in int32: float32 loses ones past 2**24, JAX has no
# int64 by default, and int32 alone overflows at 2**31 pixels, which a few slides reach.
_BASE = 2**20


class _OverlapMetric(keras.metrics.Metric):
    """Counts of TP and FP + FN, and the ratio that a subclass makes of them."""

    def __init__(self, threshold: float, from_logits: bool, per_image: bool, name: str, dtype):
        super().__init__(name=name, dtype=dtype)
        if not 0 < threshold < 1:
            raise ValueError(
                f"threshold is a probability between 0 and 1; got {threshold}. With "
                "from_logits=True it still is: 0.5 is the logit 0."
            )
        self.threshold = threshold
        self.from_logits = from_logits
        self.per_image = per_image
        self._invalid = self.add_variable((), "zeros", dtype="int32", name="invalid")
        if per_image:
            self._score_sum = self.add_variable((), "zeros", dtype="float32", name="score_sum")
            self._images = self.add_variable((), "zeros", dtype="float32", name="images")
        else:
            # Rows: true positives, errors. Columns: digits, the highest first.
            self._counts = self.add_variable((2, 3), "zeros", dtype="int32", name="counts")

    def _ratio(self, true_positives, errors):
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count the pixels of a batch.

        Args:
            y_true: Masks of 0 and 1, `(batch, ...)`, of any dtype.
            y_pred: Probabilities in 0..1, or logits with `from_logits=True`, of the same shape.
            sample_weight: None. Pixels are counted, so a weight has no meaning here.

        Raises:
            ValueError: If the shapes differ, `y_true` holds anything but 0 and 1, `y_pred` is
                not what was announced, or a weight is passed. Compiled code can't raise: there
                the result becomes NaN.
        """
        if sample_weight is not None:
            raise ValueError(
                f"{type(self).__name__} counts pixels and takes no sample_weight. Pass the metric "
                "to compile(metrics=...), not to weighted_metrics."
            )
        y_true, y_pred = match_shapes(y_true, y_pred)
        invalid = check_masks(y_true)
        if self.from_logits:
            invalid = invalid + check_logits(y_pred)
            y_pred = ops.sigmoid(ops.cast(y_pred, "float32"))
        else:
            invalid = invalid + check_probabilities(y_pred)
        self._invalid.assign(ops.maximum(self._invalid, invalid))

        true = ops.equal(y_true, 1)
        pred = ops.cast(y_pred, "float32") > self.threshold
        axes = tuple(range(1, len(true.shape)))
        true_positives = _count(ops.logical_and(true, pred), axes)  # (batch,)
        errors = _count(ops.not_equal(true, pred), axes)  # (batch,)
        if self.per_image:
            scores = self._ratio(ops.cast(true_positives, "float32"), ops.cast(errors, "float32"))
            self._score_sum.assign(self._score_sum + ops.sum(scores))
            self._images.assign(self._images + ops.sum(ops.ones_like(scores)))
        else:
            counts = ops.stack([true_positives, errors])  # (2, batch)
            digits = ops.stack([ops.zeros_like(counts), counts // _BASE, counts % _BASE], axis=-1)
            self._counts.assign(_carry(self._counts + ops.sum(digits, axis=1)))

    def result(self):
        """The score of everything counted, a float32 scalar in 0..1; NaN after invalid input."""
        if self.per_image:
            # Of no image at all: 1, as of an empty mask.
            score = ops.where(
                self._images > 0, self._score_sum / ops.maximum(self._images, 1.0), 1.0
            )
        else:
            place_values = ops.convert_to_tensor([_BASE**2, _BASE, 1], dtype="float32")
            sums = ops.sum(ops.cast(self._counts, "float32") * place_values, axis=-1)
            score = self._ratio(sums[0], sums[1])
        return ops.where(self._invalid > 0, float("nan"), score)

    def get_config(self):
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "from_logits": self.from_logits,
            "per_image": self.per_image,
        }


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class Dice(_OverlapMetric):
    """Dice coefficient of the nucleus class, `2 TP / (2 TP + FP + FN)`.

    The F1 score of the pixels (Dice 1945, https://doi.org/10.2307/1932409). 1 where both masks
    are empty.

    Several channels are several masks, whose pixels are counted together.

    Args:
        threshold: Between 0 and 1; a pixel whose probability is above it is predicted to be
            nucleus.
        from_logits: Whether predictions are logits, to which the sigmoid is still to be applied.
        per_image: False counts the pixels of all images and takes one ratio. True takes the
            ratio of each image (each entry of the first axis) and their mean, so that a small
            image weighs as much as a large one. Neither depends on the batch size.
        name: Name of the metric.
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If `threshold` is not between 0 and 1. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.Dice()
        >>> metric.update_state([[1, 1, 0, 0]], [[0.9, 0.2, 0.8, 0.1]])
        >>> float(metric.result())  # 1 true positive, 1 false positive, 1 false negative
        0.5
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        from_logits: bool = False,
        per_image: bool = False,
        name: str = "dice",
        dtype=None,
    ):
        super().__init__(threshold, from_logits, per_image, name, dtype)

    def _ratio(self, true_positives, errors):
        return _ratio_or_one(2 * true_positives, 2 * true_positives + errors)


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class IoU(_OverlapMetric):
    """Intersection over union of the nucleus class, `TP / (TP + FP + FN)`.

    Also called the Jaccard index (Jaccard 1912,
    https://doi.org/10.1111/j.1469-8137.1912.tb05611.x). 1 where both masks are empty.

    Several channels are several masks, whose pixels are counted together.

    Args:
        threshold: Between 0 and 1; a pixel whose probability is above it is predicted to be
            nucleus.
        from_logits: Whether predictions are logits, to which the sigmoid is still to be applied.
        per_image: False counts the pixels of all images and takes one ratio. True takes the
            ratio of each image (each entry of the first axis) and their mean, so that a small
            image weighs as much as a large one. Neither depends on the batch size.
        name: Name of the metric.
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If `threshold` is not between 0 and 1. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.IoU()
        >>> metric.update_state([[1, 1, 0, 0]], [[0.9, 0.8, 0.7, 0.6]])
        >>> float(metric.result())  # 2 true positives, 2 false positives
        0.5
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        from_logits: bool = False,
        per_image: bool = False,
        name: str = "iou",
        dtype=None,
    ):
        super().__init__(threshold, from_logits, per_image, name, dtype)

    def _ratio(self, true_positives, errors):
        return _ratio_or_one(true_positives, true_positives + errors)


def _count(condition, axes):
    return ops.sum(ops.cast(condition, "int32"), axis=axes)


def _carry(digits):
    """Bring the digits of shape `(2, 3)`, the highest first, back below the base."""
    high, middle, low = digits[:, 0], digits[:, 1], digits[:, 2]
    middle = middle + low // _BASE
    high = high + middle // _BASE
    return ops.stack([high, middle % _BASE, low % _BASE], axis=-1)


def _ratio_or_one(numerator, denominator):
    return ops.where(denominator > 0, numerator / ops.maximum(denominator, 1.0), 1.0)
