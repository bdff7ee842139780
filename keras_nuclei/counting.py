"""What the metrics of masks and classes share: exact counts, and the ways to average.

Counts are kept as digits in int32: float32 loses ones past 2**24, JAX has no int64 by default, and
int32 alone overflows at 2**31 pixels, which a few slides reach. The scores of single images are
summed as whole multiples of 2**-24. So neither the batch size nor the order changes a score, and
replicas are summed exactly.
"""

import operator
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_nuclei.typing import Config, DType, Tensor
from keras_nuclei.validation import (
    check_classes,
    check_logits,
    check_probabilities,
    predicted_classes,
    prepare_targets,
)

# Small, so that a batch may hold 2**21 images before a sum of digits overflows; six digits of it
# hold 2**60.
_BASE = 2**10
_DIGITS = 6
_SCORE_UNITS = 2**24

_AVERAGES = ("macro", "micro", "per_image", None)


class CountMetric(keras.metrics.Metric):
    """A ratio of counts of pixels, over all images or the mean of each image's.

    A subclass says what to count (`count`) and which ratio to take of the counts (`score`).

    Args:
        num_counts: How many numbers `count` returns for each image and class.
        num_classes: 1 for binary masks, from a sigmoid; else the number of classes that exclude
            each other, background included, from a softmax.
        threshold: Between 0 and 1; with one class, a pixel whose probability is above it is
            predicted to be nucleus.
        from_logits: Whether predictions are logits.
        average: How the scores of many classes become one; see `keras_nuclei.metrics`.
        per_image: Whether to take the mean of the images' scores, not one of the summed counts.
        target_class_ids: Classes to score, of many; None for all but `ignore_class`.
        ignore_class: Label of the pixels that do not count, such as 255, or None.
        name: Name of the metric; None for the class's own.
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is not what is said above.

    Example:
        >>> class Area(CountMetric):
        ...     "Share of the pixels that are predicted to be nucleus."
        ...     def __init__(self, **arguments):
        ...         super().__init__(num_counts=2, **arguments)
        ...     def count(self, true, pred, counted):
        ...         return sum_pixels(pred), sum_pixels(counted)
        ...     def score(self, nucleus, pixels):
        ...         return ratio_or_one(nucleus, pixels)
        >>> float(Area()([[0, 0, 0, 1]], [[0.9, 0.2, 0.3, 0.4]]))
        0.25
    """

    default_name: str | None = None

    def __init__(
        self,
        *,
        num_counts: int = 3,
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
        super().__init__(name=name or self.default_name, dtype=dtype)
        check_classes(num_classes, ignore_class)
        if not 0 < threshold < 1:
            raise ValueError(
                f"threshold is a probability between 0 and 1; got {threshold}. With "
                "from_logits=True it still is: 0.5 is the logit 0."
            )
        if average not in _AVERAGES:
            raise ValueError(f"average must be one of {_AVERAGES}; got {average!r}.")
        self.num_classes = num_classes
        self.threshold = threshold
        self.from_logits = from_logits
        self.average = average
        self.per_image = per_image
        self.target_class_ids = None
        if target_class_ids is not None:
            if not isinstance(target_class_ids, Iterable):
                raise ValueError(
                    f"target_class_ids must be several class numbers; got {target_class_ids}. For "
                    f"one class pass [{target_class_ids}]."
                )
            self.target_class_ids = [operator.index(number) for number in target_class_ids]
        self.ignore_class = ignore_class
        self._classes = self._scored_classes()
        self._invalid = self.add_variable((), "zeros", dtype="int32", name="invalid")
        if self._by_image:
            scores = len(self._classes) if average is None else 1
            self._score_sums = self._add_counter((scores,), "score_sums")
            self._images = self._add_counter((1,), "images")
        else:
            self._counts = self._add_counter((num_counts, len(self._classes)), "counts")

    @property
    def _by_image(self) -> bool:
        return self.per_image or self.average == "per_image"

    def _scored_classes(self) -> list[int]:
        if self.target_class_ids is None:
            return [number for number in range(self.num_classes) if number != self.ignore_class]
        known = set(range(self.num_classes)) - {self.ignore_class}
        but = f" but {self.ignore_class}" if self.ignore_class in range(self.num_classes) else ""
        if not self.target_class_ids or not known.issuperset(self.target_class_ids):
            raise ValueError(
                f"target_class_ids must be some of the classes 0..{self.num_classes - 1}{but}; got "
                f"{self.target_class_ids}."
            )
        return self.target_class_ids

    def _add_counter(self, shape: tuple[int, ...], name: str) -> keras.Variable:
        return self.add_variable((*shape, _DIGITS), "zeros", dtype="int32", name=name)

    def count(self, true: Tensor, pred: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
        """Count the pixels of each image and class; a subclass says which.

        Args:
            true: Boolean `(batch, ..., classes)`, false where a pixel does not count.
            pred: Boolean, of the same shape, false where a pixel does not count.
            counted: Boolean `(batch, ..., 1)`: whether a pixel counts.

        Returns:
            `num_counts` int32 tensors `(batch, classes)`.
        """
        raise NotImplementedError

    def score(self, *counts: Tensor) -> Tensor:
        """The score in 0..1 of counts, float32 tensors of any one shape; a subclass says which."""
        raise NotImplementedError

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        """Count the pixels of a batch.

        Args:
            y_true: With one class, masks of 0 and 1, `(batch, ...)`, of any dtype. With many,
                labels `(batch, height, width)` or `(batch, height, width, 1)`, or one-hot
                `(batch, height, width, num_classes)`.
            y_pred: Probabilities in 0..1, or logits with `from_logits=True`: of the shape of the
                masks, or `(batch, height, width, num_classes)`, of which the highest counts.
            sample_weight: None. Pixels are counted, so a weight has no meaning here.

        Raises:
            ValueError: If the shapes do not fit, `y_true` holds anything but masks or labels,
                `y_pred` is not what was announced, or a weight is passed. Compiled code can't
                raise: there the result becomes NaN.
        """
        if sample_weight is not None:
            raise ValueError(
                f"{type(self).__name__} counts pixels and takes no sample_weight. Pass the metric "
                "to compile(metrics=...), not to weighted_metrics."
            )
        true, pred, counted = self._masks(y_true, y_pred)
        counts = [self._select(each) for each in self.count(true, pred, counted)]
        if self._by_image:
            scores = self._average([ops.cast(each, "float32") for each in counts])
            units = ops.cast(ops.round(scores * _SCORE_UNITS), "int32")  # (batch, scores)
            _add(self._score_sums, units)
            _add(self._images, ops.ones_like(units[:, :1]))
        else:
            _add(self._counts, ops.stack(counts, axis=1))  # (batch, counts, classes)

    def _masks(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        true, pred, counted, invalid = prepare_targets(
            y_true, y_pred, num_classes=self.num_classes, ignore_class=self.ignore_class
        )
        invalid += check_logits(pred) if self.from_logits else check_probabilities(pred)
        self._invalid.assign(ops.maximum(self._invalid, invalid))
        if self.num_classes > 1:
            pred = predicted_classes(pred, self.num_classes)
        else:
            pred = ops.cast(pred, "float32")
            pred = (ops.sigmoid(pred) if self.from_logits else pred) > self.threshold
        if counted is None:
            counted = ops.ones_like(true[..., :1])
        return true > 0, pred, counted > 0

    def _select(self, counts: Tensor) -> Tensor:
        """Of `(batch, classes)` the classes to score."""
        if len(self._classes) == self.num_classes:
            return counts
        return ops.take(counts, ops.convert_to_tensor(self._classes, dtype="int32"), axis=-1)

    def _average(self, counts: list[Tensor]) -> Tensor:
        """Scores of counts `(..., classes)`: `(..., 1)`, or one per class without an average."""
        if self.average == "micro":
            counts = [ops.sum(each, axis=-1, keepdims=True) for each in counts]
        scores = self.score(*counts)
        return scores if self.average is None else ops.mean(scores, axis=-1, keepdims=True)

    def result(self) -> Tensor:
        """The score of everything counted, float32 in 0..1; NaN after invalid input.

        A scalar, or without an average the scores of the scored classes `(classes,)`.
        """
        if self._by_image:
            images = _value(self._images)
            scores = _value(self._score_sums) / _SCORE_UNITS / ops.maximum(images, 1.0)
            # Of no image at all: 1, as of an empty mask.
            scores = ops.where(images > 0, scores, 1.0)
        else:
            scores = self._average(list(ops.unstack(_value(self._counts), axis=0)))
        scores = scores if self.average is None else scores[0]
        return ops.where(self._invalid > 0, float("nan"), scores)

    def get_config(self) -> Config:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "threshold": self.threshold,
            "from_logits": self.from_logits,
            "average": self.average,
            "per_image": self.per_image,
            "target_class_ids": self.target_class_ids,
            "ignore_class": self.ignore_class,
        }


def sum_pixels(condition: Tensor) -> Tensor:
    """Number of pixels of each image and class: boolean `(batch, ..., classes)` to int32.

    Args:
        condition: Boolean `(batch, ..., classes)`.

    Returns:
        int32 `(batch, classes)`.

    Example:
        >>> import numpy as np
        >>> print(np.asarray(sum_pixels(np.ones((1, 3, 5, 1), bool))))
        [[15]]
    """
    condition = ops.convert_to_tensor(condition)
    return ops.sum(ops.cast(condition, "int32"), axis=tuple(range(1, len(condition.shape) - 1)))


def ratio_or_one(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio of counts, and 1 where both are 0: nothing was there to get wrong.

    Args:
        numerator: Float tensor, at most the denominator.
        denominator: Float tensor of whole numbers.

    Returns:
        Tensor of the same shape.

    Example:
        >>> float(ratio_or_one(0.0, 0.0)), float(ratio_or_one(1.0, 2.0))
        (1.0, 0.5)
    """
    denominator = ops.convert_to_tensor(denominator)
    return ops.where(denominator > 0, numerator / ops.maximum(denominator, 1.0), 1.0)


def _add(counter: keras.Variable, counts: Tensor) -> None:
    """Add int32 counts `(batch, ...)`, summed over the batch, to the digits of a counter."""
    digits = ops.stack([counts // _BASE**place % _BASE for place in range(4)], axis=-1)
    zeros = ops.zeros_like(digits[..., : _DIGITS - 4])  # int32 has no more than four digits
    sums = ops.sum(ops.concatenate([digits, zeros], axis=-1), axis=0)
    # Carry: bring every digit back below the base, the lowest first.
    carried, rest = [], 0
    for digit in ops.unstack(counter + sums, axis=-1):
        carried.append((digit + rest) % _BASE)
        rest = (digit + rest) // _BASE
    counter.assign(ops.stack(carried, axis=-1))


def _value(counter: keras.Variable) -> Tensor:
    """Float32 number that digits `(..., digits)` stand for; also of digits summed by replicas."""
    places = ops.convert_to_tensor([float(_BASE**place) for place in range(_DIGITS)], "float32")
    return ops.sum(ops.cast(counter, "float32") * places, axis=-1)
