"""Weights of pixels: the narrow background between nuclei counts more."""

import numpy as np
from scipy import ndimage

from keras_nuclei.typing import ArrayLike
from keras_nuclei.validation import as_label_map

# Where the border term has fallen to this share of its height it is taken as 0, so that each
# nucleus is looked at in its surroundings only.
_NEGLIGIBLE = 1e-6


def border_weights(
    label_map: ArrayLike,
    *,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    class_weights: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Weight map of the U-Net paper: pixels between close nuclei weigh more.

        w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2 sigma^2))

    with d_1 and d_2 the distances of pixel x to the nearest and to the second nearest nucleus (0
    in a nucleus) and w_c the weight of the pixel's class. Ronneberger et al. 2015
    (https://arxiv.org/abs/1505.04597). A model that is trained so learns to keep touching nuclei
    apart. With fewer than two nuclei, w = w_c.

    To train with it, pass the maps as weights of the pixels to Keras's own cross-entropy:

        weights = np.stack([border_weights(label_map) for label_map in label_maps])
        model.compile("adam", loss=keras.losses.BinaryCrossentropy())
        model.fit(images, masks, sample_weight=weights)

    The loss is then the mean over all pixels of weight times cross-entropy. A `tf.data.Dataset`
    or `keras.utils.PyDataset` yields `(images, masks, weights)` instead; with several heads the
    weights are a dict, as the masks are. Losses of whole images, such as Dice, can't weigh pixels
    and refuse such weights.

    Args:
        label_map: Integers `(H, W)`, 0 background, one number per nucleus.
        border_weight: w_0, at least 0: the most that is added, between nuclei that touch.
        sigma: Above 0, in pixels: how far apart nuclei may be to be told apart with more care.
        class_weights: Weights of background and of nuclei. To balance them as in the paper, pass
            `(0.5 / (1 - s), 0.5 / s)` with s the share of nucleus pixels in the training set.

    Returns:
        float32 `(H, W)`. Border terms below 1e-6 of `border_weight` are left out.

    Raises:
        TypeError: If `label_map` does not hold integers.
        ValueError: If it is not `(H, W)` or an argument is out of its range.

    Example:
        >>> import keras_nuclei
        >>> weights = keras_nuclei.losses.border_weights([[1, 0, 2, 0, 0, 0, 0]])
        >>> print(weights[0].round(2))  # of the fourth: 1 + 10 exp(-(1 + 3)^2 / 50)
        [10.23 10.23 10.23  8.26  5.87  3.78  2.35]
    """
    label_map = as_label_map(label_map)
    if not border_weight >= 0:
        raise ValueError(f"border_weight must be at least 0; got {border_weight}.")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, in pixels; got {sigma}.")
    if len(class_weights) != 2 or min(class_weights) < 0:
        raise ValueError(
            "class_weights must be the weights of background and of nuclei, two numbers of at "
            f"least 0; got {class_weights}."
        )
    reach = sigma * np.sqrt(2 * np.log(1 / _NEGLIGIBLE))
    nearest, second = _two_distances(label_map, reach)
    border = border_weight * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    background, nuclei = class_weights
    return (np.where(label_map > 0, nuclei, background) + border).astype(np.float32)


def _two_distances(label_map: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest nucleus `(H, W)`; infinite beyond `reach`."""
    nearest = np.full(label_map.shape, np.inf)
    second = nearest.copy()
    # Numbers without gaps, whatever the user's are: one box is looked up for each of them.
    numbers, indices = np.unique(label_map, return_inverse=True)
    indices = indices.reshape(label_map.shape) + int(numbers.size > 0 and numbers[0] > 0)
    margin = int(np.ceil(reach))
    for number, box in enumerate(ndimage.find_objects(indices), start=1):
        around = tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in box)
        distance = ndimage.distance_transform_edt(indices[around] != number)
        distance[distance > reach] = np.inf
        first = nearest[around]
        second[around] = np.minimum(second[around], np.maximum(first, distance))
        nearest[around] = np.minimum(first, distance)
    return nearest, second
