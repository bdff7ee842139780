"""What a label map says in numbers, a row per nucleus, and in a picture."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_nuclei.images import contrast_limits, normalize
from keras_nuclei.typing import ArrayLike
from keras_nuclei.validation import as_label_map, require_unmasked

if TYPE_CHECKING:
    import pandas

# What can be measured of a shape, with its name in scikit-image. Lengths are in pixels.
_SHAPE_PROPERTIES = {
    "perimeter": "perimeter_crofton",
    "equivalent_diameter": "equivalent_diameter_area",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
    "eccentricity": "eccentricity",
    "orientation": "orientation",
    "circularity": "perimeter_crofton",
    "solidity": "solidity",
}
SHAPE_PROPERTIES = tuple(_SHAPE_PROPERTIES)
# Solidity takes a convex hull, a third of the time of everything together.
_DEFAULT_PROPERTIES = tuple(name for name in SHAPE_PROPERTIES if name != "solidity")
_PLACE = {
    "area": "area_px",
    "centroid-0": "centroid_y",
    "centroid-1": "centroid_x",
    "bbox-0": "y0",
    "bbox-1": "x0",
    "bbox-2": "y1",
    "bbox-3": "x1",
}
BAND = 1024
"""Rows of an image that a picture is made of at once, so that slides fit into memory."""
_INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max")


def measure(
    label_map: ArrayLike,
    image: ArrayLike | None = None,
    *,
    pixel_size: float | tuple[float, float] | None = None,
    properties: Sequence[str] = _DEFAULT_PROPERTIES,
) -> "pandas.DataFrame":
    """Measure every nucleus of a label map.

    The shape is measured by `skimage.measure.regionprops_table`, whose documentation gives the
    formulas. The perimeter is its `perimeter_crofton`: of discs anywhere between the pixels right
    on the average, with a standard deviation of 0.1 % at a radius of 80 pixels, 0.6 % at 10 and
    2.3 % at 3.

    Args:
        label_map: Integers `(H, W)`: 0 background, each other number one nucleus, in one piece or
            several. Numbers may be missing.
        image: `(H, W)` or `(H, W, C)`, any real dtype; None leaves the intensities out. Pass the
            image as read, not as normalized, to compare intensities between images.
        pixel_size: Height of a pixel in micrometres, or `(height, width)`; None leaves
            `area_um2` out.
        properties: Which measures of the shape to take, of those below from `"perimeter"` on. All
            of them but `"solidity"` by default, which takes half as long again.

    Returns:
        A `pandas.DataFrame`, a row per nucleus in the order of labels, the index `label` (int64).
        Columns, float64 if not said otherwise:

        - `area_px` (int64), pixels; `area_um2`, square micrometres.
        - `centroid_y`, `centroid_x`: mean of the pixels' indices, row and column.
        - `y0`, `x0`, `y1`, `x1` (int64): the box `label_map[y0:y1, x0:x1]` just holds the nucleus.
        - `intensity_mean`, `intensity_min`, `intensity_max`, `intensity_sum` of a grey image; of
          an image with channels `intensity_mean_0`, `intensity_mean_1`, ...
        - `perimeter`, `equivalent_diameter` (of the circle of equal area), `major_axis` and
          `minor_axis` (of the ellipse of equal second moments): pixels.
        - `eccentricity` of that ellipse, 0..1; `orientation` of its major axis against the
          vertical, counter-clockwise, -pi/2..pi/2.
        - `circularity`: `4 pi area / perimeter**2`, clipped to 1.
        - `solidity`: share of the convex hull that is nucleus, 0..1.

        Without nuclei the frame is empty and has the same columns and dtypes.

    Raises:
        TypeError: If the label map does not hold integers, or the image no real numbers, or
            `properties` is a string.
        ValueError: If shapes don't fit, a label is negative or above int64, there are no pixels,
            pixels of the image are masked, `pixel_size` is not above 0, or a property is unknown.

    Example:
        >>> import numpy as np
        >>> label_map = np.zeros((4, 6), "int32")
        >>> label_map[1:3, 1:4] = 7
        >>> image = np.arange(24.0).reshape(4, 6)
        >>> frame = measure(label_map, image, pixel_size=0.5)
        >>> frame[["area_px", "area_um2", "centroid_y", "centroid_x", "intensity_mean"]]
               area_px  area_um2  centroid_y  centroid_x  intensity_mean
        label
        7            6       1.5         1.5         2.0            11.0
    """
    import pandas as pd
    from skimage.measure import regionprops_table

    label_map = as_label_map(label_map)
    if isinstance(properties, str):
        raise TypeError(
            f"properties must be a list of names; got {properties!r}. Pass [{properties!r}]."
        )
    unknown = [name for name in properties if name not in _SHAPE_PROPERTIES]
    if unknown:
        raise ValueError(f"Unknown properties {unknown}; there are {list(SHAPE_PROPERTIES)}.")
    if label_map.size == 0:
        raise ValueError(f"A label map must have pixels; got the shape {label_map.shape}.")
    if image is not None:
        image = _checked_image(image, label_map)
    labels, compact = _compact(label_map)
    wanted = ["area", "centroid", "bbox", *(_SHAPE_PROPERTIES[name] for name in properties)]
    wanted += [] if image is None else _INTENSITIES
    table = regionprops_table(compact, image, properties=list(dict.fromkeys(wanted)))

    area = np.asarray(table["area"], "float64")
    columns = {name: table[key] for key, name in _PLACE.items()}
    if pixel_size is not None:
        columns["area_um2"] = area * _pixel_area(pixel_size)
    if image is not None:
        columns |= _intensity_columns(table, area, image.shape[2:])
    for name in properties:
        columns[name] = table[_SHAPE_PROPERTIES[name]]
    if "circularity" in properties:
        roundness = 4 * math.pi * area / table["perimeter_crofton"] ** 2
        columns["circularity"] = np.minimum(roundness, 1)
    whole = {"area_px", "y0", "x0", "y1", "x1"}
    return pd.DataFrame(
        {
            name: np.asarray(values, "int64" if name in whole else "float64")
            for name, values in columns.items()
        },
        index=pd.Index(labels, dtype="int64", name="label"),
    )


def overlay(
    image: ArrayLike, label_map: ArrayLike, *, thickness: int = 1, numbers: bool = False
) -> np.ndarray:
    """Draw the outlines of the nuclei over the image, in colours that tell neighbours apart.

    The outline is drawn on the nucleus's own pixels, so that touching nuclei keep one each.

    Args:
        image: Any image that `keras_nuclei.images.normalize` takes, which stretches its contrast.
        label_map: Integers of the same height and width, 0 background.
        thickness: Width of the outline in pixels, at least 1.
        numbers: Whether to write each nucleus's label at its centroid.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        TypeError: If the label map does not hold integers, or the image no real numbers.
        ValueError: If shapes don't fit, a label is negative or `thickness` is no whole number
            above 0.

    Example:
        >>> import numpy as np
        >>> label_map = np.zeros((5, 5), "int32")
        >>> label_map[1:4, 1:4] = 1
        >>> picture = overlay(np.zeros((5, 5)), label_map)
        >>> picture.any(axis=-1).astype(int)  # an outline of 8 pixels around one that is inside
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 1, 0, 1, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    if not (float(thickness).is_integer() and thickness >= 1):
        raise ValueError(
            f"thickness must be a whole number of pixels, at least 1; got {thickness}."
        )
    thickness = int(thickness)
    label_map = as_label_map(label_map)
    image = _checked_image(image, label_map)
    limits = contrast_limits(image)
    picture = np.empty((*label_map.shape, 3), "uint8")
    bands = [slice(top, top + BAND) for top in range(0, len(picture), BAND)]
    for band in bands:
        picture[band] = np.rint(normalize(image[band], limits=limits))
    on_bright = np.median(picture[:: max(1, len(picture) // 1024)]) > 127
    for band in bands:
        # With what lies above and below it, as far as an outline looks.
        top = max(0, band.start - thickness)
        outline = _outline(label_map[top : band.stop + thickness], thickness)
        outline = outline[band.start - top :][:BAND]
        picture[band][outline] = _colours(label_map[band][outline], on_bright=on_bright)
    if numbers:
        _write_numbers(picture, label_map)
    return picture


def _checked_image(image: ArrayLike, label_map: np.ndarray) -> np.ndarray:
    require_unmasked(image)
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        raise TypeError(f"An image must hold bool, integers or floats; got dtype {image.dtype}.")
    if image.ndim not in (2, 3) or image.shape[:2] != label_map.shape:
        raise ValueError(
            "The image must have the shape (H, W) or (H, W, C) with the height and width of the "
            f"label map; got {image.shape} and the label map {label_map.shape}."
        )
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    # Too coarse to count with.
    coarse = {"bool": "uint8", "float16": "float32"}
    return image.astype(coarse.get(image.dtype.name, image.dtype), copy=False)


def _compact(label_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, and the map with 1..n in their place, on which tables are short."""
    if label_map.size == 0 or label_map.max() <= label_map.size:
        counts = np.bincount(label_map.ravel(), minlength=1)
        labels = np.flatnonzero(counts[1:]) + 1
        numbers = np.zeros(len(counts), "int32")
        numbers[labels] = np.arange(1, len(labels) + 1)
        return labels, numbers[label_map]
    if label_map.max() > np.iinfo("int64").max:
        raise ValueError(
            f"The table holds labels to {np.iinfo('int64').max}; got {label_map.max()}. Renumber "
            "them with skimage.segmentation.relabel_sequential."
        )
    values, inverse = np.unique(label_map, return_inverse=True)
    has_background = values[0] == 0
    inverse = inverse.reshape(label_map.shape) + (not has_background)
    return values[int(has_background) :], inverse


def _pixel_area(pixel_size: float | tuple[float, float]) -> float:
    sizes = np.atleast_1d(np.asarray(pixel_size, "float64"))
    if sizes.shape not in ((1,), (2,)) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(
            "pixel_size must be one number above 0, in micrometres, or two (height, width); got "
            f"{pixel_size}."
        )
    return float(sizes[0] * sizes[-1])


def _intensity_columns(
    table: dict[str, np.ndarray], area: np.ndarray, channels: tuple[int, ...]
) -> dict[str, np.ndarray]:
    # scikit-image numbers the channels "-0", "-1", ...; a grey image's columns have no number.
    keys = [f"-{channel}" for channel in range(*channels)] if channels else [""]
    columns = {}
    for key in keys:
        suffix = key.replace("-", "_")
        for name in _INTENSITIES:
            columns[name + suffix] = table[name + key]
        columns["intensity_sum" + suffix] = table["intensity_mean" + key] * area
    return columns


def _outline(label_map: np.ndarray, thickness: int) -> np.ndarray:
    """Pixels of nuclei less than `thickness` steps from one that is not of the same nucleus."""
    from scipy import ndimage
    from skimage.segmentation import find_boundaries

    rim = find_boundaries(label_map, mode="inner")
    if thickness > 1:
        rim = ndimage.binary_dilation(rim, iterations=thickness - 1, mask=label_map > 0)
    return rim


def _colours(labels: np.ndarray, on_bright: bool) -> np.ndarray:
    """A colour per label, uint8 `(n, 3)`: steps of the golden ratio around the circle of hues.

    Any few numbers in a row, which neighbours mostly are, lie far apart on it.
    """
    from skimage.color import hsv2rgb

    hue = labels * ((math.sqrt(5) - 1) / 2) % 1.0
    # Stained sections are bright around the nuclei, and the nuclei blue to purple: deeper colours
    # there, from red to cyan only.
    hue, value = (0.5 * hue, 0.85) if on_bright else (hue, 1.0)
    # Every second one paler, which tells hues apart that happen to be near.
    saturation = np.where(labels % 2, 1.0, 0.65)
    colours = hsv2rgb(np.stack([hue, saturation, np.full(hue.shape, value)], axis=-1))
    return np.rint(255 * colours).astype("uint8")


def _write_numbers(picture: np.ndarray, label_map: np.ndarray) -> None:
    from PIL import Image, ImageDraw
    from scipy import ndimage

    labels = np.unique(label_map[label_map > 0])
    centroids = ndimage.center_of_mass(label_map > 0, label_map, labels)
    drawing = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawing)
    for label, (y, x) in zip(labels, centroids, strict=True):
        place, text = (x + 0.5, y + 0.5), str(label)
        draw.text(place, text, "white", anchor="mm", stroke_width=1, stroke_fill="black")
    picture[:] = np.asarray(drawing)
