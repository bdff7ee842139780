"""Losses of masks and of classes, one number for each image; safe where a mask is empty.

Binary masks, from a sigmoid: `Dice`, `Jaccard`, `Tversky`, `BinaryCrossentropyDice`,
`LovaszHinge`. Many classes, from a softmax: `Dice`, `Jaccard` and `Tversky` with `num_classes`,
and `CategoricalCrossentropyDice`. Each is a thin class over a pure function of the same name.

A mask of 0 and 255, a label that is no class, or logits that were not announced raise an error that
says so, where a loss is called on arrays. Compiled code, as `fit` runs it on TensorFlow and JAX,
can't raise: there the loss is NaN. Call it once on a batch, or compile with `run_eagerly=True`, and
read the message.

Two that Keras has are used as they are:

- Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002): `keras.losses.
  BinaryFocalCrossentropy(apply_class_balancing=True)` and `CategoricalFocalCrossentropy`. They
  equal the paper's formula for logits within -10..10. Beyond 16, on JAX and Torch, the loss of a
  wrong pixel grows no more and has no gradient, since it is taken from rounded probabilities.
- Border-weighted cross-entropy: `keras.losses.BinaryCrossentropy`, with the maps of
  `border_weights` as `sample_weight`.
"""

from collections.abc import Callable

import keras
from keras import ops

from keras_nuclei.loss_functions import (
    binary_crossentropy_dice_loss,
    categorical_crossentropy_dice_loss,
    check_settings,
    dice_loss,
    jaccard_loss,
    lovasz_hinge_loss,
    tversky_loss,
)
from keras_nuclei.typing import Config, DType, Tensor
from keras_nuclei.weight_maps import border_weights

__all__ = [
    "BinaryCrossentropyDice",
    "CategoricalCrossentropyDice",
    "Dice",
    "Jaccard",
    "LovaszHinge",
    "Tversky",
    "binary_crossentropy_dice_loss",
    "border_weights",
    "categorical_crossentropy_dice_loss",
    "dice_loss",
    "jaccard_loss",
    "lovasz_hinge_loss",
    "tversky_loss",
]


class _LossPerImage(keras.losses.Loss):
    """A loss of one number for each image: a pure function and its settings."""

    def __init__(self, function: Callable, settings: dict, reduction: str, name: str, dtype: DType):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_settings(**settings)
        self._function = function
        self._settings = settings
        for setting, value in settings.items():
            setattr(self, setting, value)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Tensor:
        """Reduce the losses of the images, each times its weight.

        Raises:
            ValueError: If a weight is not one number for each image. One for each pixel would be
                broadcast against the images, and give a wrong number without a word.
        """
        shape = () if sample_weight is None else ops.convert_to_tensor(sample_weight).shape
        if any(size != 1 for size in shape[1:]):
            raise ValueError(
                f"{type(self).__name__} has one loss for each image, so sample_weight must have "
                f"the shape (batch,); got {tuple(shape)}. To weight pixels, use "
                "keras.losses.BinaryCrossentropy."
            )
        if len(shape) > 1:
            sample_weight = ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each image, `(batch,)`."""
        return self._function(y_true, y_pred, **self._settings)

    def get_config(self) -> Config:
        """The arguments of the constructor."""
        return {**super().get_config(), **self._settings, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class Dice(_LossPerImage):
    """Soft Dice loss, the mean over the images of a batch; see `dice_loss`.

    Args:
        smooth: Above 0, in pixels.
        num_classes: 1 for binary masks, else the number of classes; the loss is their mean.
        from_logits: Whether predictions are logits.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `dice_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.Dice()
        >>> float(loss([[1, 1, 0, 0], [0, 0, 0, 0]], [[1.0, 0, 0, 0], [0.0, 0, 0, 0]]))
        0.125
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        num_classes: int = 1,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "dice",
        dtype: DType = None,
    ):
        settings = {
            "smooth": smooth,
            "num_classes": num_classes,
            "from_logits": from_logits,
            "ignore_class": ignore_class,
        }
        super().__init__(dice_loss, settings, reduction, name, dtype)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class Jaccard(_LossPerImage):
    """Soft Jaccard (IoU) loss, the mean over the images of a batch; see `jaccard_loss`.

    Args:
        smooth: Above 0, in pixels.
        num_classes: 1 for binary masks, else the number of classes; the loss is their mean.
        from_logits: Whether predictions are logits.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `jaccard_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.Jaccard()
        >>> float(loss([[1, 1, 1, 0], [0, 0, 0, 0]], [[1.0, 0, 0, 0], [0.0, 0, 0, 0]]))
        0.25
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        num_classes: int = 1,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "jaccard",
        dtype: DType = None,
    ):
        settings = {
            "smooth": smooth,
            "num_classes": num_classes,
            "from_logits": from_logits,
            "ignore_class": ignore_class,
        }
        super().__init__(jaccard_loss, settings, reduction, name, dtype)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class Tversky(_LossPerImage):
    """Soft Tversky loss, the mean over the images of a batch; see `tversky_loss`.

    Args:
        alpha: Cost of a false positive, at least 0.
        beta: Cost of a false negative, at least 0.
        smooth: Above 0, in pixels.
        num_classes: 1 for binary masks, else the number of classes; the loss is their mean.
        from_logits: Whether predictions are logits.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `tversky_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.Tversky(alpha=0.0, beta=1.0)  # what is missed, and no more
        >>> float(loss([[1, 0, 0]], [[1.0, 1.0, 1.0]])), float(loss([[1, 1, 1]], [[1.0, 1.0, 0.0]]))
        (0.0, 0.25)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        num_classes: int = 1,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "tversky",
        dtype: DType = None,
    ):
        settings = {
            "alpha": alpha,
            "beta": beta,
            "smooth": smooth,
            "num_classes": num_classes,
            "from_logits": from_logits,
            "ignore_class": ignore_class,
        }
        super().__init__(tversky_loss, settings, reduction, name, dtype)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class BinaryCrossentropyDice(_LossPerImage):
    """Binary cross-entropy and soft Dice loss, the mean over the images of a batch.

    See `binary_crossentropy_dice_loss`.

    Args:
        crossentropy_weight: Share of the cross-entropy, in 0..1.
        smooth: Above 0, in pixels.
        from_logits: Whether predictions are logits.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `dice_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.BinaryCrossentropyDice(crossentropy_weight=0.0)
        >>> float(loss([[1, 1, 0, 0]], [[1.0, 0.0, 0.0, 0.0]]))
        0.25
    """

    def __init__(
        self,
        *,
        crossentropy_weight: float = 0.5,
        smooth: float = 1.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "binary_crossentropy_dice",
        dtype: DType = None,
    ):
        settings = {
            "crossentropy_weight": crossentropy_weight,
            "smooth": smooth,
            "from_logits": from_logits,
            "ignore_class": ignore_class,
        }
        super().__init__(binary_crossentropy_dice_loss, settings, reduction, name, dtype)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class CategoricalCrossentropyDice(_LossPerImage):
    """Cross-entropy and soft Dice loss of many classes, the mean over the images of a batch.

    Labels may be numbers of classes or one-hot. See `categorical_crossentropy_dice_loss`.

    Args:
        crossentropy_weight: Share of the cross-entropy, in 0..1.
        smooth: Above 0, in pixels.
        num_classes: Number of classes, at least 2; None takes it from the predictions.
        from_logits: Whether predictions are logits, to which the softmax is still to be applied.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `categorical_crossentropy_dice_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.CategoricalCrossentropyDice(crossentropy_weight=0.0)
        >>> probabilities = [[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]
        >>> value = loss([[0, 1]], probabilities)
        >>> round(float(value), 4)  # (1 - 3/4 of class 0) + (1 - 1/2 of 1) + (1 - 1/1 of 2), by 3
        0.25
    """

    def __init__(
        self,
        *,
        crossentropy_weight: float = 0.5,
        smooth: float = 1.0,
        num_classes: int | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "categorical_crossentropy_dice",
        dtype: DType = None,
    ):
        settings = {
            "crossentropy_weight": crossentropy_weight,
            "smooth": smooth,
            "num_classes": num_classes,
            "from_logits": from_logits,
            "ignore_class": ignore_class,
        }
        if num_classes == 1:
            raise ValueError(
                "num_classes must be at least 2, background included; got 1. For binary masks take "
                "BinaryCrossentropyDice."
            )
        super().__init__(categorical_crossentropy_dice_loss, settings, reduction, name, dtype)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class LovaszHinge(_LossPerImage):
    """Lovász hinge of the IoU, the mean over the images of a batch; see `lovasz_hinge_loss`.

    Args:
        from_logits: Whether predictions are logits.
        ignore_class: Label of the pixels that do not count, such as 255.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range, and as `lovasz_hinge_loss`,
            but for `fit` on TensorFlow and JAX: there the loss is NaN.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.LovaszHinge(from_logits=True)
        >>> float(loss([[1, 1, 0]], [[2.0, 0.5, -3.0]]))
        0.25
    """

    def __init__(
        self,
        *,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str = "lovasz_hinge",
        dtype: DType = None,
    ):
        settings = {"from_logits": from_logits, "ignore_class": ignore_class}
        super().__init__(lovasz_hinge_loss, settings, reduction, name, dtype)
