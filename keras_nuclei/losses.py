"""Losses of binary masks: Dice, and Dice with cross-entropy. Safe where a mask is empty."""

import keras
from keras import ops

from keras_nuclei.validation import (
    check_logits,
    check_probabilities,
    check_soft_masks,
    match_shapes,
)


def dice_loss(y_true, y_pred, *, smooth: float = 1.0, from_logits: bool = False):
    """Soft Dice loss of each image.

    With the true mask g, the probabilities p and sums over the pixels and channels of an image:

        1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)

    Milletari et al. 2016 (https://doi.org/10.1109/3DV.2016.79) without the squares. `smooth`
    makes the loss 0, and its gradient finite, where both are empty; false positives in an image
    without nuclei cost as they should.

    Args:
        y_true: Masks `(batch, ...)` of 0 and 1, of any dtype; values between are allowed, as
            mixing or smoothing makes them.
        y_pred: Probabilities in 0..1, or logits with `from_logits=True`, of the same shape.
        smooth: Above 0, in pixels.
        from_logits: Whether the sigmoid is still to be applied.

    Returns:
        float32 tensor `(batch,)`, values in 0..1. NaN where compiled code, which can't raise,
        meets values that are an error elsewhere.

    Raises:
        ValueError: If the shapes differ, a mask or a probability is outside 0..1, a prediction
            is NaN, or `smooth` is not above 0.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.dice_loss([[1, 1, 0, 0]], [[1.0, 0.0, 0.0, 0.0]])
        >>> float(loss[0])  # 1 - (2 * 1 + 1) / (1 + 2 + 1)
        0.25
    """
    _require_positive(smooth)
    y_true, y_pred = match_shapes(y_true, y_pred)
    invalid = check_soft_masks(y_true)
    invalid += check_logits(y_pred) if from_logits else check_probabilities(y_pred)
    # float32 also under mixed precision: a float16 sum overflows at 256x256 pixels.
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    if from_logits:
        y_pred = ops.sigmoid(y_pred)
    axes = tuple(range(1, len(y_pred.shape)))
    overlap = ops.sum(y_true * y_pred, axis=axes)  # (batch,)
    total = ops.sum(y_true, axis=axes) + ops.sum(y_pred, axis=axes)  # (batch,)
    loss = 1 - (2 * overlap + smooth) / (total + smooth)
    return ops.where(invalid > 0, float("nan"), loss)


def binary_crossentropy_dice_loss(
    y_true,
    y_pred,
    *,
    crossentropy_weight: float = 0.5,
    smooth: float = 1.0,
    from_logits: bool = False,
):
    """Weighted sum of binary cross-entropy and soft Dice loss, of each image.

        w * mean(BCE) + (1 - w) * dice_loss

    with the mean over the pixels of an image and w = `crossentropy_weight`. Cross-entropy gives
    each pixel a gradient from the first step; Dice keeps few nuclei from drowning in background.

    Args:
        y_true: As in `dice_loss`.
        y_pred: As in `dice_loss`.
        crossentropy_weight: In 0..1.
        smooth: As in `dice_loss`.
        from_logits: As in `dice_loss`.

    Returns:
        float32 tensor `(batch,)`, values of at least 0; NaN as in `dice_loss`.

    Raises:
        ValueError: As in `dice_loss`, or if the weight is outside 0..1.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.binary_crossentropy_dice_loss([[0, 0]], [[0.0, 0.0]])
        >>> round(float(loss[0]), 6)
        0.0
    """
    _require_weight(crossentropy_weight)
    dice = dice_loss(y_true, y_pred, smooth=smooth, from_logits=from_logits)
    y_true, y_pred = match_shapes(y_true, y_pred)
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    crossentropy = ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits)
    crossentropy = ops.mean(crossentropy, axis=tuple(range(1, len(y_pred.shape))))
    return crossentropy_weight * crossentropy + (1 - crossentropy_weight) * dice


class _LossPerImage(keras.losses.Loss):
    """A loss of one number for each image."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Reduce the losses of the images, each times its weight.

        Raises:
            ValueError: If a weight is not one number for each image. One for each pixel would be
                broadcast against the images, and give a wrong number without a word.
        """
        shape = () if sample_weight is None else ops.shape(sample_weight)
        if any(size != 1 for size in shape[1:]):
            raise ValueError(
                f"{type(self).__name__} has one loss for each image, so sample_weight must have "
                f"the shape (batch,); got {tuple(shape)}. To weight pixels, use "
                "keras.losses.BinaryCrossentropy."
            )
        if len(shape) > 1:
            sample_weight = ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, sample_weight=sample_weight)


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class Dice(_LossPerImage):
    """Soft Dice loss, the mean over the images of a batch; see `dice_loss`.

    Args:
        smooth: Above 0, in pixels.
        from_logits: Whether predictions are logits.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If `smooth` is not above 0. See also `dice_loss`.

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
        from_logits: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str = "dice",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _require_positive(smooth)
        self.smooth = smooth
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """The loss of each image, `(batch,)`."""
        return dice_loss(y_true, y_pred, smooth=self.smooth, from_logits=self.from_logits)

    def get_config(self):
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "smooth": self.smooth,
            "from_logits": self.from_logits,
        }


@keras.saving.register_keras_serializable(package="keras_nuclei.losses")
class BinaryCrossentropyDice(_LossPerImage):
    """Binary cross-entropy and soft Dice loss, the mean over the images of a batch.

    See `binary_crossentropy_dice_loss`.

    Args:
        crossentropy_weight: Share of the cross-entropy, in 0..1.
        smooth: Above 0, in pixels.
        from_logits: Whether predictions are logits.
        reduction: As in every Keras loss.
        name: Name of the loss.
        dtype: As in every Keras loss.

    Raises:
        ValueError: If an argument is out of its range. See also `dice_loss`.

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
        reduction: str = "sum_over_batch_size",
        name: str = "binary_crossentropy_dice",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _require_positive(smooth)
        _require_weight(crossentropy_weight)
        self.crossentropy_weight = crossentropy_weight
        self.smooth = smooth
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """The loss of each image, `(batch,)`."""
        return binary_crossentropy_dice_loss(
            y_true,
            y_pred,
            crossentropy_weight=self.crossentropy_weight,
            smooth=self.smooth,
            from_logits=self.from_logits,
        )

    def get_config(self):
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "crossentropy_weight": self.crossentropy_weight,
            "smooth": self.smooth,
            "from_logits": self.from_logits,
        }


def _require_positive(smooth: float) -> None:
    if not smooth > 0:
        raise ValueError(
            f"smooth must be above 0, or an empty image would divide 0 by 0; got {smooth}."
        )


def _require_weight(weight: float) -> None:
    if not 0 <= weight <= 1:
        raise ValueError(f"crossentropy_weight must be in 0..1; got {weight}.")
