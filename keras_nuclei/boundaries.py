"""The boundary F1 score: do the outlines agree, within a few pixels?"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_nuclei.counting import CountMetric, ratio_or_one, sum_pixels
from keras_nuclei.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="keras_nuclei.metrics")
class BoundaryF1(CountMetric):
    """F1 score of boundary pixels: of outlines that agree within a tolerance.

    With precision P the share of predicted boundary pixels that lie within `tolerance` of a true
    one, and recall R the share of true boundary pixels that lie so near to a predicted one:

        2 P R / (P + R)

    Csurka et al. 2013 (https://doi.org/10.5244/C.27.32); F of Perazzi et al. 2016
    (https://doi.org/10.1109/CVPR.2016.85). As theirs it is the mean over images by default.

    The boundary of a mask are its pixels with a pixel of background above, below, left or right of
    them. What lies outside the image is background, so that only an empty mask has no boundary.
    The tolerance is a disc: the Euclidean distance of two pixels, so that 1 reaches 4 neighbours
    and 1.5 reaches 8. Where both boundaries are empty the score is 1, where one is, 0.

    In pixels to ignore the truth is taken to be what was predicted, so that the edge of such a
    region is no outline, and boundary pixels inside it are not counted.

    Args:
        tolerance: At least 0, in pixels.
        num_classes: As in `IoU`. Each class has its own boundaries.
        threshold: As in `IoU`.
        from_logits: As in `IoU`.
        average: As in `IoU`. "macro" and "micro" sum the counts of all images, unless
            `per_image` is true.
        per_image: As in `IoU`.
        target_class_ids: As in `IoU`.
        ignore_class: As in `IoU`.
        name: Name of the metric; None for "boundary_f1".
        dtype: As in every Keras metric. The counts are integers whatever it is.

    Raises:
        ValueError: If an argument is out of its range. See also `update_state`.

    Example:
        >>> import keras_nuclei
        >>> metric = keras_nuclei.metrics.BoundaryF1(tolerance=1)
        >>> metric.update_state([[[1, 1, 0, 0, 0]]], [[[0.1, 0.9, 0.8, 0.7, 0.6]]])
        >>> float(metric.result())  # 2 of 4 are near a true one, 2 of 2 near a predicted one
        0.6666666865348816
    """

    default_name = "boundary_f1"

    def __init__(
        self,
        *,
        tolerance: float = 2.0,
        num_classes: int = 1,
        threshold: float = 0.5,
        from_logits: bool = False,
        average: str | None = "per_image",
        per_image: bool = False,
        target_class_ids: Sequence[int] | None = None,
        ignore_class: int | None = None,
        name: str | None = None,
        dtype: DType = None,
    ):
        super().__init__(
            num_counts=4,
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
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, in pixels; got {tolerance}.")
        self.tolerance = tolerance

    def count(self, true: Tensor, pred: Tensor, counted: Tensor) -> tuple[Tensor, ...]:
        """Predicted boundary pixels near a true one, all of them; true ones, all of them."""
        if len(true.shape) not in (4, 5):
            raise ValueError(
                "Boundaries need masks (batch, height, width) or (batch, height, width, channels); "
                f"without the axis of classes these have the shape {tuple(true.shape[:-1])}."
            )
        true = ops.where(counted, true, pred)
        true_boundary, pred_boundary = _boundary(true), _boundary(pred)
        true_counted = ops.logical_and(true_boundary, counted)
        pred_counted = ops.logical_and(pred_boundary, counted)
        near_true = _dilate(true_boundary, self.tolerance)
        near_pred = _dilate(pred_boundary, self.tolerance)
        return (
            sum_pixels(ops.logical_and(pred_counted, near_true)),
            sum_pixels(pred_counted),
            sum_pixels(ops.logical_and(true_counted, near_pred)),
            sum_pixels(true_counted),
        )

    def score(
        self, near_true: Tensor, predicted: Tensor, near_predicted: Tensor, true: Tensor
    ) -> Tensor:
        """F1 of the counts."""
        precision = ratio_or_one(near_true, predicted)
        recall = ratio_or_one(near_predicted, true)
        # Both are 0 at once only where the product is.
        return 2 * precision * recall / ops.maximum(precision + recall, 1e-7)

    def get_config(self) -> Config:
        """The arguments of the constructor."""
        return {**super().get_config(), "tolerance": self.tolerance}


def _boundary(mask: Tensor) -> Tensor:
    """Pixels of boolean masks `(batch, height, width, ...)` with background beside them."""
    others = [[0, 0]] * (len(mask.shape) - 3)
    padded = ops.pad(ops.cast(mask, "int32"), [[0, 0], [1, 1], [1, 1], *others])
    beside = padded[:, :-2, 1:-1] * padded[:, 2:, 1:-1] * padded[:, 1:-1, :-2] * padded[:, 1:-1, 2:]
    return ops.logical_and(mask, ops.equal(beside, 0))


def _dilate(mask: Tensor, radius: float) -> Tensor:
    """Pixels within a disc of `radius` around those of boolean masks `(batch, h, w, ...)`."""
    reach = int(radius)
    offsets = np.arange(-reach, reach + 1)
    disc = offsets[:, None] ** 2 + offsets**2 <= radius**2
    batch, height, width = ops.shape(mask)[:3]
    maps = int(np.prod(mask.shape[3:]))
    # One map of one channel each: a count of the true pixels in the disc around every pixel.
    images = ops.reshape(ops.cast(mask, "float32"), (batch, height, width, maps))
    images = ops.reshape(ops.transpose(images, (0, 3, 1, 2)), (-1, height, width, 1))
    kernel = ops.convert_to_tensor(disc[..., None, None].astype("float32"))
    found = ops.conv(images, kernel, padding="same", data_format="channels_last") > 0.5
    found = ops.transpose(ops.reshape(found, (batch, maps, height, width)), (0, 2, 3, 1))
    return ops.reshape(found, ops.shape(mask))
