"""Checks of what users pass: masks and predictions, in and out of compiled code; label maps."""

import numpy as np
from keras import ops


def match_shapes(y_true, y_pred):
    """Return both as tensors of one shape; `(B, H, W)` and `(B, H, W, 1)` are taken as equal.

    Left to broadcasting, these two would become `(B, H, W, W)` without a word.

    Raises:
        ValueError: If the shapes differ otherwise. Shows both.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    elif len(y_pred.shape) == len(y_true.shape) - 1 and y_true.shape[-1] == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    known = zip(y_true.shape, y_pred.shape, strict=False)
    if len(y_true.shape) != len(y_pred.shape) or any(
        None not in (true, pred) and true != pred for true, pred in known
    ):
        raise ValueError(
            "y_true and y_pred must have the same shape (batch, height, width, channels). "
            f"Got y_true {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}."
        )
    return y_true, y_pred


def check_or_flag(valid, message: str):
    """Raise where a backend can, and say so in a number where it can't.

    Args:
        valid: Boolean scalar tensor.
        message: Text of the error.

    Returns:
        int32 scalar tensor: 0 where `valid`, else 1. Only compiled code ever sees the 1.

    Raises:
        ValueError: If `valid` is false and its value is known now.
    """
    try:
        known = bool(ops.convert_to_numpy(valid))
    except (TypeError, ValueError, NotImplementedError):
        # A symbol of a TensorFlow graph or a JAX trace has no value to look at.
        known = True
    if not known:
        raise ValueError(message)
    return ops.cast(ops.logical_not(valid), "int32")


def check_masks(y_true):
    """`check_or_flag` whether a mask holds nothing but 0 and 1."""
    valid = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    return check_or_flag(
        valid,
        "A mask must hold nothing but 0 (background) and 1 (nucleus). This one holds other "
        "values. If they are 0 and 255, as in PNG masks, divide by 255 or pass `mask > 0`.",
    )


def check_soft_masks(y_true):
    """`check_or_flag` whether a target lies in 0..1, as mixed or smoothed masks also do."""
    y_true = ops.cast(y_true, "float32")
    valid = ops.all(ops.logical_and(y_true >= 0, y_true <= 1))
    return check_or_flag(
        valid,
        "A loss takes masks of values in 0..1 (0 background, 1 nucleus). This one holds others. "
        "If they are 0 and 255, as in PNG masks, divide by 255 or pass `mask > 0`.",
    )


def check_probabilities(y_pred):
    """`check_or_flag` whether predictions are numbers in 0..1, but for rounding."""
    y_pred = ops.cast(y_pred, "float32")
    tolerance = 1e-3
    valid = ops.all(ops.logical_and(y_pred >= -tolerance, y_pred <= 1 + tolerance))
    return check_or_flag(
        valid,
        "Predictions must be probabilities in 0..1. These hold NaN or values outside. If they "
        "are logits, pass from_logits=True.",
    )


def check_logits(y_pred):
    """`check_or_flag` whether predictions hold no NaN."""
    valid = ops.logical_not(ops.any(ops.isnan(ops.cast(y_pred, "float32"))))
    return check_or_flag(valid, "Predictions hold NaN. The model has diverged or its input has.")


def as_label_map(label_map, name: str = "label_map") -> np.ndarray:
    """Check that an array is a label map, and return it as an array.

    Args:
        label_map: Integers `(H, W)`, none of them negative.
        name: What the user calls it.

    Returns:
        The same, unchanged.

    Raises:
        TypeError: If it does not hold integers. A mask of bool is not a label map: touching
            nuclei are one in it.
        ValueError: If it has another number of axes or a negative label.

    Example:
        >>> as_label_map([[0, 1], [2, 2]])
        array([[0, 1],
               [2, 2]])
    """
    label_map = np.asarray(label_map)
    if label_map.dtype.kind not in "iu":
        advice = (
            "Number the nuclei of a mask first, with skimage.measure.label."
            if label_map.dtype == bool
            else "Cast whole numbers with astype('int32'). Probabilities are no label map: "
            "threshold them, then number the nuclei, with skimage.measure.label."
        )
        raise TypeError(
            f"The label map {name} must hold integers, 0 for background and one number for each "
            f"nucleus; got {label_map.dtype}. {advice}"
        )
    if label_map.ndim != 2:
        raise ValueError(
            f"The label map {name} must have the shape (H, W); got {label_map.shape}. Pass one "
            "image's at a time, and label_map[..., 0] of one with a channel axis."
        )
    if label_map.size and label_map.min() < 0:
        raise ValueError(
            f"The label map {name} holds the negative number {label_map.min()}. Background is 0, "
            "each nucleus a number above it."
        )
    return label_map


def require_at_least_one(**values: int) -> None:
    """Raise ValueError unless each number is at least 1. Names it and shows its value."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")


def require_one_of(choices: tuple, **values) -> None:
    """Raise ValueError unless each value is one of the choices. Names it and shows them."""
    for name, value in values.items():
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"{name} must be one of {expected}; got {value!r}.")
