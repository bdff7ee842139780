"""The losses of `keras_nuclei.losses` as pure functions: one number for each image."""

from keras import ops

from keras_nuclei.typing import Tensor
from keras_nuclei.validation import (
    check_classes,
    check_logits,
    check_probabilities,
    prepare_targets,
)


def tversky_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    num_classes: int = 1,
    from_logits: bool = False,
    ignore_class: int | None = None,
) -> Tensor:
    """Soft Tversky loss of each image: false positives and false negatives cost differently.

    With the truth g, the probabilities p and sums over the pixels of an image, TP = sum(p g),
    FP = sum(p (1 - g)) and FN = sum((1 - p) g):

        1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)

    Salehi et al. 2017 (https://arxiv.org/abs/1706.05721): `alpha` weighs the false positives,
    `beta` the false negatives. `keras.losses.Tversky` has them the other way round in some
    releases (3.15 among them). alpha = beta = 0.5 is the Dice loss, 1 the Jaccard loss.

    With many classes it is the loss of each class (one against the rest), and their mean. A
    class that is absent from an image costs nothing where it is not predicted either, and costs
    as a false positive where it is.

    Args:
        y_true: With one class, masks `(batch, ...)` of 0 and 1, of any dtype; values between are
            allowed, as mixing or smoothing makes them. With many, labels `(batch, height, width)`
            or `(batch, height, width, 1)`, or one-hot `(batch, height, width, num_classes)`.
        y_pred: Probabilities in 0..1, or logits with `from_logits=True`: of the shape of the
            masks, or `(batch, height, width, num_classes)`.
        alpha: Cost of a false positive, at least 0. The default is the paper's best.
        beta: Cost of a false negative, at least 0; not both of them 0.
        smooth: Above 0, in pixels. It makes the loss 0, and its gradient finite, where the truth
            and the prediction are empty.
        num_classes: 1 for binary masks, whose channels, if several, are counted together. More
            for classes that exclude each other, background included.
        from_logits: Whether the sigmoid (one class) or softmax (many) is still to be applied.
        ignore_class: Label of the pixels that do not count, such as 255. Where it is one of the
            classes, that class is also left out of the mean.

    Returns:
        float32 tensor `(batch,)`, values in 0..1. NaN where compiled code, which can't raise,
        meets values that are an error elsewhere.

    Raises:
        ValueError: If the shapes do not fit, a mask, label or probability is out of its range, a
            prediction is NaN, or an argument is out of its range.

    Example:
        >>> import keras_nuclei
        >>> missed, invented = keras_nuclei.losses.tversky_loss(
        ...     [[1, 1, 0], [1, 0, 0]], [[1.0, 0, 0], [1.0, 1.0, 0]]
        ... )
        >>> round(float(missed), 3)  # 1 - (1 + 1) / (1 + 0.7 * 1 + 1)
        0.259
        >>> round(float(invented), 3)  # 1 - (1 + 1) / (1 + 0.3 * 1 + 1)
        0.13
    """
    check_settings(
        alpha=alpha, beta=beta, smooth=smooth, num_classes=num_classes, ignore_class=ignore_class
    )
    true, pred, counted, invalid = _prepare(y_true, y_pred, num_classes, from_logits, ignore_class)
    probabilities = _activate(pred, from_logits)
    loss = _tversky(true, probabilities, counted, alpha, beta, smooth, ignore_class)
    return ops.where(invalid > 0, float("nan"), loss)


def dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    smooth: float = 1.0,
    num_classes: int = 1,
    from_logits: bool = False,
    ignore_class: int | None = None,
) -> Tensor:
    """Soft Dice loss of each image.

    With the true mask g, the probabilities p and sums over the pixels and channels of an image:

        1 - (2 sum(p g) + smooth) / (sum(p) + sum(g) + smooth)

    Milletari et al. 2016 (https://doi.org/10.1109/3DV.2016.79) without the squares. `smooth`
    makes the loss 0, and its gradient finite, where both are empty; false positives in an image
    without nuclei cost as they should. With many classes as in `tversky_loss`.

    Args:
        y_true: As in `tversky_loss`.
        y_pred: As in `tversky_loss`.
        smooth: Above 0, in pixels.
        num_classes: As in `tversky_loss`.
        from_logits: As in `tversky_loss`.
        ignore_class: As in `tversky_loss`.

    Returns:
        float32 tensor `(batch,)`, values in 0..1; NaN as in `tversky_loss`.

    Raises:
        ValueError: As in `tversky_loss`.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.dice_loss([[1, 1, 0, 0]], [[1.0, 0.0, 0.0, 0.0]])
        >>> float(loss[0])  # 1 - (2 * 1 + 1) / (1 + 2 + 1)
        0.25
    """
    check_settings(smooth=smooth)
    return tversky_loss(
        y_true,
        y_pred,
        alpha=0.5,
        beta=0.5,
        # Of half of numerator and denominator.
        smooth=smooth / 2,
        num_classes=num_classes,
        from_logits=from_logits,
        ignore_class=ignore_class,
    )


def jaccard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    smooth: float = 1.0,
    num_classes: int = 1,
    from_logits: bool = False,
    ignore_class: int | None = None,
) -> Tensor:
    """Soft Jaccard (IoU) loss of each image.

    With the true mask g, the probabilities p and sums over the pixels and channels of an image:

        1 - (sum(p g) + smooth) / (sum(p) + sum(g) - sum(p g) + smooth)

    Rahman and Wang 2016 (https://doi.org/10.1007/978-3-319-50835-1_22), smoothed. With many
    classes as in `tversky_loss`.

    Args:
        y_true: As in `tversky_loss`.
        y_pred: As in `tversky_loss`.
        smooth: Above 0, in pixels.
        num_classes: As in `tversky_loss`.
        from_logits: As in `tversky_loss`.
        ignore_class: As in `tversky_loss`.

    Returns:
        float32 tensor `(batch,)`, values in 0..1; NaN as in `tversky_loss`.

    Raises:
        ValueError: As in `tversky_loss`.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.jaccard_loss([[1, 1, 1, 0]], [[1.0, 0.0, 0.0, 0.0]])
        >>> float(loss[0])  # 1 - (1 + 1) / (1 + 3 - 1 + 1)
        0.5
    """
    return tversky_loss(
        y_true,
        y_pred,
        alpha=1.0,
        beta=1.0,
        smooth=smooth,
        num_classes=num_classes,
        from_logits=from_logits,
        ignore_class=ignore_class,
    )


def binary_crossentropy_dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    crossentropy_weight: float = 0.5,
    smooth: float = 1.0,
    from_logits: bool = False,
    ignore_class: int | None = None,
) -> Tensor:
    """Weighted sum of binary cross-entropy and soft Dice loss, of each image.

        w * mean(BCE) + (1 - w) * dice_loss

    with the mean over the pixels of an image and w = `crossentropy_weight`. Cross-entropy gives
    each pixel a gradient from the first step; Dice keeps few nuclei from drowning in background.

    Args:
        y_true: Masks, as in `tversky_loss`.
        y_pred: As in `tversky_loss`.
        crossentropy_weight: In 0..1.
        smooth: As in `dice_loss`.
        from_logits: As in `tversky_loss`.
        ignore_class: As in `tversky_loss`.

    Returns:
        float32 tensor `(batch,)`, values of at least 0; NaN as in `tversky_loss`.

    Raises:
        ValueError: As in `tversky_loss`, or if the weight is outside 0..1.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.binary_crossentropy_dice_loss([[0, 0]], [[0.0, 0.0]])
        >>> round(float(loss[0]), 6)
        0.0
    """
    check_settings(
        crossentropy_weight=crossentropy_weight, smooth=smooth, ignore_class=ignore_class
    )
    true, pred, counted, invalid = _prepare(y_true, y_pred, 1, from_logits, ignore_class)
    crossentropy = ops.binary_crossentropy(true, pred, from_logits=from_logits)
    crossentropy = _mean_over_pixels(crossentropy, counted)
    probabilities = _activate(pred, from_logits)
    dice = _tversky(true, probabilities, counted, 0.5, 0.5, smooth / 2, ignore_class)
    loss = crossentropy_weight * crossentropy + (1 - crossentropy_weight) * dice
    return ops.where(invalid > 0, float("nan"), loss)


def categorical_crossentropy_dice_loss(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    crossentropy_weight: float = 0.5,
    smooth: float = 1.0,
    num_classes: int | None = None,
    from_logits: bool = False,
    ignore_class: int | None = None,
) -> Tensor:
    """Weighted sum of cross-entropy and soft Dice loss of many classes, of each image.

        w * mean(CE) + (1 - w) * dice_loss

    with the mean over the pixels that count (0 where none does), the Dice loss of `dice_loss`
    with many classes, and w = `crossentropy_weight`.

    Args:
        y_true: Labels `(batch, height, width)` or `(batch, height, width, 1)`, or one-hot
            `(batch, height, width, classes)`.
        y_pred: Probabilities of each class, `(batch, height, width, classes)`, or logits.
        crossentropy_weight: In 0..1.
        smooth: As in `dice_loss`.
        num_classes: Number of classes, at least 2; None takes the size of the last axis of
            `y_pred`.
        from_logits: Whether the softmax is still to be applied.
        ignore_class: As in `tversky_loss`.

    Returns:
        float32 tensor `(batch,)`, values of at least 0; NaN as in `tversky_loss`.

    Raises:
        ValueError: As in `tversky_loss`, or if the weight is outside 0..1.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.categorical_crossentropy_dice_loss(
        ...     [[2, 255]], [[[0.0, 0.0, 1.0], [0.3, 0.3, 0.4]]], ignore_class=255
        ... )
        >>> round(float(loss[0]), 6)
        0.0
    """
    if num_classes is None:
        num_classes = ops.convert_to_tensor(y_pred).shape[-1]
    if num_classes is None or num_classes < 2:
        raise ValueError(
            "The last axis of y_pred must hold one probability for each of at least 2 classes; "
            f"got {num_classes}. For binary masks use binary_crossentropy_dice_loss."
        )
    check_settings(
        crossentropy_weight=crossentropy_weight,
        smooth=smooth,
        num_classes=num_classes,
        ignore_class=ignore_class,
    )
    true, pred, counted, invalid = _prepare(y_true, y_pred, num_classes, from_logits, ignore_class)
    crossentropy = ops.categorical_crossentropy(true, pred, from_logits=from_logits)
    crossentropy = _mean_over_pixels(crossentropy[..., None], counted)
    probabilities = _activate(pred, from_logits)
    dice = _tversky(true, probabilities, counted, 0.5, 0.5, smooth / 2, ignore_class)
    loss = crossentropy_weight * crossentropy + (1 - crossentropy_weight) * dice
    return ops.where(invalid > 0, float("nan"), loss)


def lovasz_hinge_loss(
    y_true: Tensor, y_pred: Tensor, *, from_logits: bool = False, ignore_class: int | None = None
) -> Tensor:
    """Lovász hinge of each image: a convex stand-in for the Jaccard (IoU) loss.

    Each pixel has the hinge error max(0, 1 - s F), with its logit F and s = +1 in nuclei and -1
    in background. With the errors sorted, m_1 the largest, and J_i the Jaccard loss of an image
    in which just the first i pixels are wrong:

        sum over i of m_i (J_i - J_(i - 1)),   J_0 = 0

    the Lovász extension of the Jaccard loss. Berman et al. 2018, "The Lovász-Softmax loss"
    (https://arxiv.org/abs/1705.08790). The paper takes it to finish a training that began
    with cross-entropy: it looks at whole images and has no gradient where all margins are kept.

    Args:
        y_true: Masks `(batch, ...)` of 0 and 1, of any dtype.
        y_pred: Logits with `from_logits=True`, or probabilities, whose logits are taken (of
            probabilities closer than 1e-7 to 0 or 1: of 1e-7 and 1 - 1e-7); of the same shape.
        from_logits: Whether predictions are logits.
        ignore_class: As in `tversky_loss`.

    Returns:
        float32 tensor `(batch,)`, values of at least 0; 0 where every logit is on the right side
        by at least 1. NaN as in `tversky_loss`.

    Raises:
        ValueError: If the shapes differ, a mask holds anything but 0, 1 and `ignore_class`, or a
            prediction is not what was announced.

    Example:
        >>> import keras_nuclei
        >>> loss = keras_nuclei.losses.lovasz_hinge_loss(
        ...     [[1, 1, 0]], [[2.0, 0.5, -3.0]], from_logits=True
        ... )
        >>> float(loss[0])  # one error, 1 - 0.5; without that pixel the Jaccard loss is 1 / 2
        0.25
    """
    check_settings(ignore_class=ignore_class)
    true, logits, counted, invalid = _prepare(
        y_true, y_pred, 1, from_logits, ignore_class, soft=False
    )
    if not from_logits:
        probabilities = ops.clip(logits, 1e-7, 1 - 1e-7)
        logits = ops.log(probabilities) - ops.log1p(-probabilities)
    errors = ops.relu(1 - logits * (2 * true - 1))
    if counted is not None:
        # Errors of 0 come last and change nothing; their pixels count as background below.
        errors = errors * counted
    batch = ops.shape(errors)[0]
    errors, true = ops.reshape(errors, (batch, -1)), ops.reshape(true, (batch, -1))
    order = ops.argsort(-errors, axis=-1)  # (batch, pixels)
    errors = ops.take_along_axis(errors, order, axis=-1)
    true = ops.take_along_axis(true, order, axis=-1)
    nuclei = ops.sum(true, axis=-1, keepdims=True)
    # With the first i pixels wrong: what is still right, and the union with what is wrong.
    intersection = nuclei - ops.cumsum(true, axis=-1)
    union = nuclei + ops.cumsum(1 - true, axis=-1)
    jaccard = 1 - intersection / union  # at least one pixel is wrong: the union is never 0
    steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    return ops.where(invalid > 0, float("nan"), ops.sum(errors * steps, axis=-1))


def check_settings(
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    smooth: float = 1.0,
    crossentropy_weight: float = 0.5,
    num_classes: int | None = 1,
    ignore_class: int | None = None,
    from_logits: bool = False,
) -> None:
    """Check the arguments of a loss, when it is made and when it is computed.

    Args:
        alpha: As in `tversky_loss`.
        beta: As in `tversky_loss`.
        smooth: As in `tversky_loss`.
        crossentropy_weight: As in `binary_crossentropy_dice_loss`.
        num_classes: As in `tversky_loss`; None for many.
        ignore_class: As in `tversky_loss`.
        from_logits: Either is fine.

    Raises:
        ValueError: If one of them is out of its range.

    Example:
        >>> check_settings(crossentropy_weight=2.0)
        Traceback (most recent call last):
        ValueError: crossentropy_weight must be in 0..1; got 2.0.
    """
    if not (alpha >= 0 and beta >= 0 and alpha + beta > 0):
        raise ValueError(
            "alpha (cost of false positives) and beta (cost of false negatives) must be at least "
            f"0, and one of them above; got alpha={alpha} and beta={beta}."
        )
    if not smooth > 0:
        raise ValueError(
            f"smooth must be above 0, or an empty image would divide 0 by 0; got {smooth}."
        )
    if not 0 <= crossentropy_weight <= 1:
        raise ValueError(f"crossentropy_weight must be in 0..1; got {crossentropy_weight}.")
    check_classes(2 if num_classes is None else num_classes, ignore_class)


def _prepare(
    y_true: Tensor,
    y_pred: Tensor,
    num_classes: int,
    from_logits: bool,
    ignore_class: int | None,
    soft: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Truth and predictions as float32 `(batch, ..., classes)`, what counts, and the flag."""
    true, pred, counted, invalid = prepare_targets(
        y_true, y_pred, num_classes=num_classes, ignore_class=ignore_class, soft=soft
    )
    invalid += check_logits(pred) if from_logits else check_probabilities(pred)
    # float32 also under mixed precision: a float16 sum overflows at 256x256 pixels.
    return true, ops.cast(pred, "float32"), counted, invalid


def _activate(pred: Tensor, from_logits: bool) -> Tensor:
    if not from_logits:
        return pred
    return ops.sigmoid(pred) if pred.shape[-1] == 1 else ops.softmax(pred, axis=-1)


def _tversky(
    true: Tensor,
    probabilities: Tensor,
    counted: Tensor | None,
    alpha: float,
    beta: float,
    smooth: float,
    ignore_class: int | None,
) -> Tensor:
    """Tversky loss of each image `(batch,)`, the mean over the classes."""
    if counted is not None:
        probabilities = probabilities * counted
    axes = tuple(range(1, len(probabilities.shape) - 1))
    true_positives = ops.sum(true * probabilities, axis=axes)  # (batch, classes)
    false_positives = ops.sum((1 - true) * probabilities, axis=axes)
    # The truth is 0 where a pixel does not count, whatever its probability.
    false_negatives = ops.sum(true * (1 - probabilities), axis=axes)
    # 1 - (TP + smooth) / (TP + errors + smooth), without the difference of nearly equal numbers.
    errors = alpha * false_positives + beta * false_negatives
    losses = errors / (true_positives + errors + smooth)
    classes = [index for index in range(losses.shape[-1]) if index != ignore_class]
    if 1 < losses.shape[-1] > len(classes):
        losses = ops.take(losses, ops.convert_to_tensor(classes, dtype="int32"), axis=-1)
    return ops.mean(losses, axis=-1)


def _mean_over_pixels(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of `(batch, ..., 1)` over the pixels that count, `(batch,)`; 0 where none does."""
    axes = tuple(range(1, len(values.shape)))
    if counted is None:
        return ops.mean(values, axis=axes)
    return ops.sum(values * counted, axis=axes) / ops.maximum(ops.sum(counted, axis=axes), 1.0)
