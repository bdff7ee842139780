"""Checks of what users pass: masks, labels and predictions, compiled or not; images; label maps."""

from typing import Any

import numpy as np
from keras import ops

from keras_nuclei.typing import ArrayLike, Tensor


def match_shapes(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
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
        text = (
            "y_true and y_pred must have the same shape (batch, height, width, channels). "
            f"Got y_true {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}."
        )
        if y_true.shape[-1] == 1 and y_pred.shape[-1] not in (None, 1):
            text += (
                f" If y_true holds numbers of classes, pass num_classes={y_pred.shape[-1]} to each "
                "metric, and take a loss of classes, such as CategoricalCrossentropyDice."
            )
        raise ValueError(text)
    return y_true, y_pred


def prepare_targets(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    num_classes: int = 1,
    ignore_class: int | None = None,
    soft: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Bring masks or labels into one form with the predictions, and check them.

    Args:
        y_true: With one class, masks as `match_shapes` takes them. With more, labels
            `(batch, ...)` or `(batch, ..., 1)`, or one-hot `(batch, ..., num_classes)`.
        y_pred: With one class, of the shape of the masks. With more, `(batch, ..., num_classes)`.
        num_classes: 1 for binary masks, else the number of classes.
        ignore_class: Label of the pixels that do not count, or None.
        soft: Whether values between 0 and 1 are allowed, as mixing and smoothing make them.

    Returns:
        The truth `(batch, ..., classes)` as float32, all 0 in pixels that do not count; the
        predictions in the same shape; 1.0 for each pixel that counts and 0.0 for the others,
        `(batch, ..., 1)`, or None where all count; and the flag of `check_or_flag`.

    Raises:
        ValueError: If shapes do not fit or `y_true` holds what it must not.
    """
    if num_classes == 1:
        y_true, y_pred = match_shapes(y_true, y_pred)
        true, y_pred = ops.expand_dims(ops.cast(y_true, "float32"), -1), ops.expand_dims(y_pred, -1)
        counted = _counted(true, ignore_class)
        if counted is not None:
            # Not a product, which would make NaN of a NaN, and 0 of an infinity.
            true = ops.where(counted > 0, true, 0.0)
        return true, y_pred, counted, check_soft_masks(true) if soft else check_masks(true)
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(ops.convert_to_tensor(y_true), "float32")
    if _is_one_hot(y_true, y_pred, num_classes):
        labels, true = ops.cast(ops.argmax(y_true, axis=-1), "float32"), y_true
        invalid = check_one_hot(true, soft)
    else:
        labels = y_true[..., 0] if len(y_true.shape) == len(y_pred.shape) else y_true
        true = ops.cast(ops.equal(labels[..., None], _range(num_classes)), "float32")
        invalid = check_labels(labels, num_classes, ignore_class)
    counted = _counted(labels[..., None], ignore_class)
    return true if counted is None else true * counted, y_pred, counted, invalid


def predicted_classes(y_pred: Tensor, num_classes: int) -> Tensor:
    """`(batch, ..., num_classes)` of booleans: true for the class with the highest value."""
    return ops.equal(
        ops.cast(ops.argmax(y_pred, axis=-1), "float32")[..., None], _range(num_classes)
    )


def _range(num_classes: int) -> Tensor:
    return ops.arange(num_classes, dtype="float32")


def _counted(labels: Tensor, ignore_class: int | None) -> Tensor | None:
    if ignore_class is None:
        return None
    return ops.cast(ops.not_equal(labels, float(ignore_class)), "float32")


def _is_one_hot(y_true: Tensor, y_pred: Tensor, num_classes: int) -> bool:
    """Whether the truth is one-hot; else it is labels, with or without an axis of size 1."""
    true_shape, pred_shape = tuple(y_true.shape), tuple(y_pred.shape)
    same_rank = len(true_shape) == len(pred_shape)
    pixels = true_shape[:-1] if same_rank else true_shape
    fits = len(pixels) == len(pred_shape) - 1 and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(pixels, pred_shape, strict=False)
    )
    if (
        not fits
        or pred_shape[-1] != num_classes
        or (same_rank and true_shape[-1] not in (1, num_classes))
    ):
        raise ValueError(
            f"With num_classes={num_classes}, y_pred must have the shape (batch, ..., "
            f"{num_classes}) and y_true hold labels (batch, ...) or (batch, ..., 1), or be one-hot "
            f"(batch, ..., {num_classes}). Got y_true {true_shape} and y_pred {pred_shape}."
        )
    return same_rank and true_shape[-1] == num_classes


def check_classes(num_classes: int, ignore_class: int | None) -> None:
    """Raise a ValueError where the two can't be what losses and metrics take them for."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            "num_classes must be 1 for binary masks, or the number of classes, background "
            f"included; got {num_classes!r}."
        )
    if num_classes == 1 and ignore_class in (0, 1):
        raise ValueError(
            "Of a binary mask neither 0 nor 1 can be ignored: nothing would be left to tell "
            f"apart. Mark pixels to ignore by another label, such as 255; got {ignore_class!r}."
        )


def check_or_flag(valid: Tensor, message: str) -> Tensor:
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


def check_masks(y_true: Tensor) -> Tensor:
    """`check_or_flag` whether a mask holds nothing but 0 and 1."""
    valid = ops.all(ops.logical_or(ops.equal(y_true, 0), ops.equal(y_true, 1)))
    return check_or_flag(
        valid,
        "A mask must hold nothing but 0 (background) and 1 (nucleus). This one holds other "
        "values. If they are 0 and 255, as in PNG masks, divide by 255 or pass `mask > 0`.",
    )


def check_soft_masks(y_true: Tensor) -> Tensor:
    """`check_or_flag` whether a target lies in 0..1, as mixed or smoothed masks also do."""
    y_true = ops.cast(y_true, "float32")
    valid = ops.all(ops.logical_and(y_true >= 0, y_true <= 1))
    return check_or_flag(
        valid,
        "A loss takes masks of values in 0..1 (0 background, 1 nucleus). This one holds others. "
        "If they are 0 and 255, as in PNG masks, divide by 255 or pass `mask > 0`.",
    )


def check_labels(labels: Tensor, num_classes: int, ignore_class: int | None) -> Tensor:
    """`check_or_flag` whether labels are whole numbers of classes, or the one to ignore."""
    valid = ops.logical_and(
        ops.equal(labels, ops.floor(labels)),
        ops.logical_and(labels >= 0, labels < num_classes),
    )
    if ignore_class is not None:
        valid = ops.logical_or(valid, ops.equal(labels, float(ignore_class)))
    allowed = f"0..{num_classes - 1}" + ("" if ignore_class is None else f" and {ignore_class}")
    return check_or_flag(
        ops.all(valid),
        f"With num_classes={num_classes}, labels must be whole numbers, {allowed}. These hold "
        "others. If 255 marks pixels that shall not count, pass ignore_class=255.",
    )


def check_one_hot(one_hot: Tensor, soft: bool) -> Tensor:
    """`check_or_flag` whether each pixel has a 1 for one class, or shares that sum to 1."""
    if soft:
        values = ops.logical_and(one_hot >= 0, one_hot <= 1)
    else:
        values = ops.logical_or(ops.equal(one_hot, 0), ops.equal(one_hot, 1))
    sums = ops.abs(ops.sum(one_hot, axis=-1) - 1) < 1e-3
    return check_or_flag(
        ops.logical_and(ops.all(values), ops.all(sums)),
        "One-hot labels must be 1 for the class of the pixel and 0 for the others. These are not. "
        "For pixels that shall not count, pass labels (batch, height, width) and ignore_class.",
    )


def check_probabilities(y_pred: Tensor) -> Tensor:
    """`check_or_flag` whether predictions are numbers in 0..1, but for rounding."""
    y_pred = ops.cast(y_pred, "float32")
    tolerance = 1e-3
    valid = ops.all(ops.logical_and(y_pred >= -tolerance, y_pred <= 1 + tolerance))
    return check_or_flag(
        valid,
        "Predictions must be probabilities in 0..1. These hold NaN or values outside. If they "
        "are logits, pass from_logits=True.",
    )


def check_logits(y_pred: Tensor) -> Tensor:
    """`check_or_flag` whether predictions hold no NaN."""
    valid = ops.logical_not(ops.any(ops.isnan(ops.cast(y_pred, "float32"))))
    return check_or_flag(valid, "Predictions hold NaN. The model has diverged or its input has.")


def require_finite(image: np.ndarray, top: int = 0, left: int = 0) -> None:
    """Refuse NaN and infinity in an image, or in a part of one.

    Args:
        image: `(H, W)` or `(H, W, C)`, real numbers.
        top: Row of the whole image where the part begins.
        left: Column where it begins.

    Raises:
        ValueError: If there are some. Says where the first is.

    Example:
        >>> require_finite(np.array([[0, 1], [np.nan, 3]]), top=100)
        Traceback (most recent call last):
        ...
        ValueError: The image holds NaN or infinity, first seen in row 101, column 0. Replace it
        first, for instance with np.nan_to_num(image, posinf=..., neginf=...).
    """
    if image.dtype.kind != "f" or (finite := np.isfinite(image)).all():
        return
    row, column, *_ = np.argwhere(~finite)[0]
    raise ValueError(
        f"The image holds NaN or infinity, first seen in row {top + row}, column {left + column}. "
        "Replace it first, for instance with np.nan_to_num(image, posinf=..., neginf=...)."
    )


def require_unmasked(image: ArrayLike) -> None:
    """Refuse a masked array some of whose pixels are masked: as an array they'd be as the others.

    Args:
        image: Of any kind.

    Raises:
        ValueError: If it is one.

    Example:
        >>> require_unmasked(np.ma.masked_greater([[1, 2]], 5))  # none is masked
    """
    if np.ma.is_masked(image):
        raise ValueError(
            "The image is a masked array, and all pixels count here, those behind the mask too. "
            "Say what to see in their place: pass image.filled(value)."
        )


def as_label_map(label_map: ArrayLike, name: str = "label_map") -> np.ndarray:
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


def require_number(**values: Any) -> None:
    """Raise TypeError unless each value is one real number. Names it and shows it."""
    for name, value in values.items():
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "iuf":
            raise TypeError(f"{name} must be a number; got {value!r}.")


def require_at_least_one(**values: int) -> None:
    """Raise ValueError unless each number is at least 1. Names it and shows its value."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")


def require_one_of(choices: tuple, **values: Any) -> None:
    """Raise ValueError unless each value is one of the choices. Names it and shows them."""
    for name, value in values.items():
        if value not in choices:
            expected = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"{name} must be one of {expected}; got {value!r}.")


def check_input_shape(input_shape: tuple[int | None, int | None, int]) -> None:
    """Raise a ValueError unless a shape is `(height, width, channels)`, channels known."""
    if (
        not isinstance(input_shape, tuple | list)
        or len(input_shape) != 3
        or input_shape[-1] is None
        or any(size is not None and size < 1 for size in input_shape)
    ):
        raise ValueError(
            "input_shape must be (height, width, channels), where only height and width may be "
            f"None, for any; got {input_shape!r}. For RGB images of any size pass (None, None, 3)."
        )
    height, width, channels = input_shape
    if height in (1, 3, 4) and width is not None and min(width, channels) >= 32:
        raise ValueError(
            f"input_shape must be (height, width, channels), with the channels last; got "
            f"{input_shape!r}, an image {height} pixels high. Pass {(width, channels, height)}."
        )
