"""Scores of separate nuclei while a model trains, for callbacks that stop it or keep the best."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_nuclei.matching import Match, match
from keras_nuclei.scores import summarize
from keras_nuclei.validation import require_at_least_one

_SCORES = ("dsb", "ap50", "ap75", "f1", "pq")


class InstanceScores(keras.callbacks.Callback):
    """Segment validation images into nuclei at the end of an epoch, and score them.

    Pixel metrics do not see whether touching nuclei were told apart; these scores do. They are
    added to the logs of the epoch, so that the progress bar, the history and all callbacks *after*
    this one in the list find them:

    | name | what, as the mean over the images |
    | --- | --- |
    | `val_dsb` | `scores.dsb_score` |
    | `val_ap50`, `val_ap75` | `scores.average_precision` at 0.5 and 0.75 |
    | `val_f1`, `val_pq` | `scores.f1_score` and `scores.panoptic_quality` at 0.5 |

    The logs of an epoch that is not scored repeat the last scores: a callback that monitors them
    finds them in every epoch, and sees no improvement.

    The backend compiles the model once for each shape of a batch, so that many sizes of images
    take their time in the first epoch.

    Args:
        images: Validation images, each `(H, W, C)` with values as the model takes them; a list,
            whose heights and widths may differ, or one array `(N, H, W, C)`.
        label_maps: Their true label maps, integers `(H, W)`, 0 for background, in the same order.
        to_labels: Turns what the model returns for one image into a label map. It gets NumPy
            arrays without the batch axis, `(H, W, K)` for one output, in a dict or list where the
            model returns one.
        frequency: The number of epochs from one scoring to the next, at least 1. The first and the
            last of all planned epochs are always scored.
        batch_size: Largest number of images, all of one size, to predict at once; at least 1.
        prefix: What the names in the logs begin with.

    Attributes:
        summary: What `scores.summarize` says of the last scoring; empty before the first.

    Raises:
        ValueError: If there is no image, a number is below 1, or images and label maps differ in
            number or in height and width.
        TypeError: If a label map does not hold integers.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from skimage.measure import label
        >>> from keras_nuclei.callbacks import InstanceScores
        >>> images = np.zeros((2, 8, 8, 1))
        >>> images[:, 2:5, 2:5] = 255.0
        >>> masks = (images > 0).astype("uint8")
        >>> scores = InstanceScores(
        ...     images, [label(mask[..., 0]) for mask in masks], lambda p: label(p[..., 0] > 0.5)
        ... )
        >>> inputs = keras.Input((None, None, 1))
        >>> dense = keras.layers.Dense(1, "sigmoid", kernel_initializer="ones")
        >>> model = keras.Model(inputs, dense(inputs))
        >>> model.compile(loss="binary_crossentropy")
        >>> history = model.fit(images, masks, epochs=1, verbose=0, callbacks=[scores])
        >>> history.history["val_dsb"]
        [1.0]

        To keep the best model, list after it what monitors one of the names; Keras can't tell by
        itself that more of it is better:

        >>> best = keras.callbacks.ModelCheckpoint(
        ...     "best.keras", monitor="val_dsb", mode="max", save_best_only=True
        ... )
        >>> callbacks = [scores, best]
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        label_maps: Sequence[np.ndarray],
        to_labels: Callable[[np.ndarray | dict | list], np.ndarray],
        *,
        frequency: int = 1,
        batch_size: int = 8,
        prefix: str = "val_",
    ):
        super().__init__()
        require_at_least_one(frequency=frequency, batch_size=batch_size)
        _require_pairs(images, label_maps)
        self.images = images
        self.label_maps = label_maps
        self.to_labels = to_labels
        self.frequency = frequency
        self.batch_size = batch_size
        self.prefix = prefix
        self.summary: dict[str, int | float] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.summary = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        is_last = epoch + 1 == self.params.get("epochs")
        if not self.summary or epoch % self.frequency == 0 or is_last:
            self.summary = summarize(self._match_all())
        if logs is not None:
            logs |= {self.prefix + name: self.summary[f"{name}_per_image"] for name in _SCORES}

    def _match_all(self) -> list[Match]:
        """Compare the nuclei found in each image with the true ones, in no particular order."""
        matches = []
        for indices in _batches_of_one_shape(self.images, self.batch_size):
            # Compiled as in `predict`, but without its progress bar and its callbacks.
            outputs = self.model.predict_on_batch(np.stack([self.images[i] for i in indices]))
            for position, index in enumerate(indices):
                output = keras.tree.map_structure(lambda batch, i=position: batch[i], outputs)
                matches.append(match(self.label_maps[index], self.to_labels(output)))
        return matches


def _batches_of_one_shape(images: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    """Indices of images, in lists of at most `batch_size`, of one shape each."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        by_shape.setdefault(tuple(image.shape), []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_shape.values()
        for start in range(0, len(indices), batch_size)
    ]


def _require_pairs(images: Sequence[np.ndarray], label_maps: Sequence[np.ndarray]) -> None:
    """Raise now what would otherwise raise at the end of an epoch."""
    if len(images) != len(label_maps) or len(images) == 0:
        raise ValueError(
            "Pass one label map for each image, and at least one image; got "
            f"{len(images)} images and {len(label_maps)} label maps."
        )
    for index, (image, label_map) in enumerate(zip(images, label_maps, strict=True)):
        if len(image.shape) != 3 or tuple(image.shape[:2]) != tuple(label_map.shape):
            raise ValueError(
                "Images must have the shape (H, W, C) and label maps (H, W). Number "
                f"{index} has an image of {tuple(image.shape)} and a label map of "
                f"{tuple(label_map.shape)}. Add a channel axis with image[..., None]; take that "
                "of a label map away with labels[..., 0]."
            )
        match(label_map, label_map)  # raises where it is no label map
