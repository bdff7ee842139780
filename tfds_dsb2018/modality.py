"""How an image was taken, told from its pixels."""

from __future__ import annotations

import numpy as np

MODALITIES = ("fluorescence", "histology", "brightfield")


def modality_of(image: np.ndarray) -> str:
    """Tells the modality of an image by a rule on its pixels.

    An image with any pixel whose three channels differ is stained tissue ("histology").
    A grey image is "brightfield" if its median is in the upper half of the range (dark
    nuclei on a bright ground), else "fluorescence" (bright nuclei on a dark ground).

    Args:
        image: uint8 of shape `(H, W, 3)`, or `(H, W)` if it is grey.

    Returns:
        One of `MODALITIES`.

    Example:
        >>> modality_of(np.zeros((4, 4, 3), np.uint8))
        'fluorescence'
        >>> modality_of(np.full((4, 4), 200, np.uint8))
        'brightfield'
    """
    if image.ndim == 3 and (image != image[..., :1]).any():
        return "histology"
    gray = image if image.ndim == 2 else image[..., 0]
    # The median is above 127 if and only if more than half of the pixels are.
    return "brightfield" if 2 * np.count_nonzero(gray > 127) > gray.size else "fluorescence"
