"""Random crops of nuclei images, as other microscopes might have taken them.

Images are float32 `(H, W, 3)`, values 0..255; label maps are `(H, W)` integers. Every function
takes the generator that decides, so that a crop depends on its seed alone.
"""

import cv2
import numpy as np
from skimage import measure

from keras_nuclei.diameters import model_scale
from keras_nuclei.maps import resize, scaled_size

SMALLEST_DIAMETER, LARGEST_DIAMETER = 10, 70
"""Of the nuclei of a crop whose scale is drawn anew, in pixels."""

SHOWN = 26, 60
"""Diameters of the nuclei that most other crops show, about, in pixels. `keras_nuclei.segment`
shows none above 50 in a single view, but estimates how large they are, and may be wrong."""

EOSIN = (0.2, 1.0, 0.45)
"""About how much red, green and blue the pink dye of stained tissue absorbs, next to green."""


def random_crop(
    image: np.ndarray,
    label_map: np.ndarray,
    diameter: float,
    size: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A square of an image, scaled, rotated and perhaps mirrored, and of its label map.

    Most crops show nuclei of about the size of `SHOWN`, some are near the image's own scale, and
    the others get nuclei of any size: a model must know them to tell which is which.

    Args:
        image: uint8 `(H, W, 3)`.
        label_map: Of the same height and width.
        diameter: Of a typical nucleus of the image, in pixels.
        size: Height and width of the crop, in pixels.
        generator: Decides.

    Returns:
        The crop, float32 `(size, size, 3)`, 0..255, and its label map, int32 `(size, size)`.
    """
    scale = _scale(diameter, generator)
    stretch = np.exp(generator.uniform(-0.3, 0.3))
    angle = generator.uniform(0, 2 * np.pi)
    mirror = generator.choice([-1, 1])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # From the crop's pixels to the image's, about the centre of the crop.
    matrix = rotation @ np.diag([mirror / (scale * stretch), stretch / scale])
    centre = _centre(label_map, size / scale / 2, generator)
    offset = centre - matrix @ [size / 2, size / 2]
    transform = np.column_stack([matrix, offset])
    if scale < 0.6:  # a pixel becomes the mean of those it covers, not the nearest of them
        # A box of an even number of pixels would move the image by half a pixel.
        image = cv2.GaussianBlur(image, (0, 0), 0.3 / scale)
    flags = cv2.WARP_INVERSE_MAP
    border = {"borderMode": cv2.BORDER_REFLECT_101}
    crop = cv2.warpAffine(image, transform, (size, size), flags=flags | cv2.INTER_LINEAR, **border)
    labels = cv2.warpAffine(
        label_map.astype(np.uint16),
        transform,
        (size, size),
        flags=flags | cv2.INTER_NEAREST,
        **border,
    )
    # Where the image is reflected, a nucleus and its mirror image share a number, but are two.
    return crop.astype(np.float32), measure.label(labels, connectivity=2).astype(np.int32)


def plain_crop(
    image: np.ndarray,
    label_map: np.ndarray,
    diameter: float,
    size: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A square of an image, about as `keras_nuclei.segment` shows it, and of its label map.

    The image is resized as there, to what fits nuclei into `SHOWN` if the estimate of their size is
    a little off (at scale 1 it stays as it is), and the square is turned by quarters and perhaps
    mirrored, as `segment` does where augmentations are asked for. An image that is too small is
    reflected.

    Args:
        image: As in `random_crop`.
        label_map: As in `random_crop`.
        diameter: As in `random_crop`.
        size: As in `random_crop`.
        generator: Decides.

    Returns:
        As `random_crop`.
    """
    scale = shown_scale(diameter * np.exp(generator.normal(0, 0.1)))
    shape = scaled_size(image.shape[:2], scale)
    image = resize(image, shape)
    # Not INTER_NEAREST, which measures from the corners of pixels, where the image has centres.
    nearest = cv2.INTER_NEAREST_EXACT
    labels = cv2.resize(label_map.astype(np.uint16), shape[::-1], interpolation=nearest)
    missing = [(0, max(0, size - length)) for length in shape]
    image = np.pad(image, [*missing, (0, 0)], mode="symmetric")
    labels = np.pad(labels, missing, mode="symmetric")
    centre = _centre(labels, size / 2, generator)
    left, top = np.round(centre - size / 2).astype(int)
    window = slice(top, top + size), slice(left, left + size)
    turns, mirrored = generator.integers(4), generator.integers(2)
    image, labels = (np.rot90(each[window], turns) for each in (image, labels))
    if mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    # As in `random_crop`.
    return image.astype(np.float32), measure.label(labels, connectivity=2).astype(np.int32)


def shown_scale(diameter: float) -> float:
    """How many times larger an image is shown, so that nuclei of a diameter fit into `SHOWN`."""
    return model_scale(diameter, SHOWN)


def _scale(diameter: float, generator: np.random.Generator) -> float:
    """How many times larger a crop shows the image."""
    chance = generator.random()
    if chance < 0.6:
        scale = shown_scale(diameter) * np.exp(generator.uniform(np.log(0.7), np.log(1.45)))
    elif chance < 0.75:
        scale = np.exp(generator.uniform(np.log(0.65), np.log(1.6)))
    else:
        wanted = np.exp(generator.uniform(np.log(SMALLEST_DIAMETER), np.log(LARGEST_DIAMETER)))
        scale = wanted / diameter
    return np.clip(scale, 0.25, 4)


def _centre(label_map: np.ndarray, reach: float, generator: np.random.Generator) -> np.ndarray:
    """Of three random places, (x, y), the one with most nuclei within reach."""
    height, width = label_map.shape
    low = np.minimum(reach, np.array([width, height]) / 2)
    places = generator.uniform(low, [width, height] - low, (3, 2))
    shares = []
    for x, y in places:
        window = label_map[max(0, int(y - reach)) : int(y + reach) + 1][
            :, max(0, int(x - reach)) : int(x + reach) + 1
        ]
        shares.append(np.mean(window[::4, ::4] > 0))
    return places[int(np.argmax(shares))]


def crowd(
    image: np.ndarray, label_map: np.ndarray, other: np.ndarray, other_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the nuclei of another crop over an image, so that more of them touch and overlap.

    A nucleus is laid if it has less than 30 % of its area in common with each one below, and hides
    less than 30 % of each.

    Args:
        image: float32 `(H, W, 3)`.
        label_map: int32 `(H, W)`.
        other: Of the same shape, another crop of the same image, so that light and stain agree.
        other_labels: Its label map.

    Returns:
        The image and its label map, in which a nucleus above hides what it covers.
    """
    size = int(other_labels.max()) + 1
    pairs, counts = np.unique(label_map.astype(np.int64) * size + other_labels, return_counts=True)
    below, above = np.divmod(pairs, size)
    overlap = np.where(below > 0, counts, 0)
    covered = overlap / np.bincount(label_map.ravel())[below]
    covering = overlap / np.bincount(other_labels.ravel())[above]
    fits = np.ones(size, bool)
    fits[0] = False
    fits[above[np.maximum(covered, covering) >= 0.3]] = False
    laid = fits[other_labels]
    opacity = cv2.GaussianBlur(laid.astype(np.float32), (0, 0), 1)[..., None]
    labels = np.where(laid, other_labels + label_map.max(), label_map)
    crowded = image + opacity * (other - image)
    return crowded, measure.label(labels, connectivity=2).astype(np.int32)


def vary_brightness(
    image: np.ndarray, label_map: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Make each nucleus of a fluorescence image brighter or, mostly, dimmer than it is.

    Args:
        image: float32 `(H, W, 3)`, bright nuclei on dark.
        label_map: int32 `(H, W)`.
        generator: Decides.

    Returns:
        The image, in which a nucleus has 0.25 to 1.2 times its contrast to the background.
    """
    background = label_map == 0
    if background.all() or not background.any():
        return image
    factors = np.exp(generator.uniform(np.log(0.25), np.log(1.2), label_map.max() + 1))
    factors[0] = 1
    factor = cv2.GaussianBlur(factors[label_map].astype(np.float32), (0, 0), 1)[..., None]
    dark = np.median(image[background], axis=0)
    return np.clip(dark + factor * (image - dark), 0, 255)


def random_look(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The same scene with other colours, contrast, sharpness and noise.

    Args:
        image: float32 `(H, W, 3)`, 0..255.
        generator: Decides.

    Returns:
        float32 of the same shape, 0..255.
    """
    image = image / 255
    red, green, blue = np.moveaxis(image, -1, 0)
    is_gray = max(np.abs(red - green).max(), np.abs(green - blue).max()) < 0.02
    image = _tint(image, generator) if is_gray else _restain(image, generator)
    if generator.random() < 0.15:
        image = 1 - image
    image = _light(image, generator)
    if generator.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), generator.uniform(0.4, 2))
    if generator.random() < 0.3:
        image = image + generator.normal(0, generator.uniform(0.01, 0.08), image.shape)
    image = np.clip(image * 255, 0, 255).astype(np.float32)
    return _compress(image, generator) if generator.random() < 0.1 else image


def _compress(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """As JPEG leaves it."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(30, 95))]
    _, file = cv2.imencode(".jpg", image.astype(np.uint8), quality)
    return cv2.imdecode(file, cv2.IMREAD_COLOR).astype(np.float32)


def _tint(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A grey image as it is, in the colour of a stain on black, or as stain on white."""
    chance = generator.random()
    if chance < 0.7:
        return image
    if chance < 0.85:  # a fluorophore: blue above all
        colour = generator.dirichlet([0.3, 0.3, 0.9])
        return image * (colour / colour.max()).astype(np.float32)
    absorbed = generator.uniform([0.5, 0.8, 0.1], [1.6, 2, 0.9]).astype(np.float32)
    density = image * absorbed
    if generator.random() < 0.6:
        density = density + counterstain(image.shape[:2], generator)
    return np.exp(-density)


def _restain(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A stained image with its dyes stronger, weaker and of other hue, or without colour."""
    if generator.random() < 0.12:
        gray = image @ generator.dirichlet([4, 4, 4])
        return np.repeat(gray[..., None], 3, axis=-1).astype(np.float32)
    # Dyes absorb: what they take away adds up in the logarithm (the law of Beer and Lambert).
    density = -np.log(np.clip(image, 0.02, 1))
    mixing = np.eye(3) + generator.normal(0, generator.uniform(0, 0.25), (3, 3))
    strength = np.exp(generator.uniform(-0.4, 0.4))
    density = np.clip(strength * density @ mixing, 0, None)
    if generator.random() < 0.35:
        density = density + counterstain(image.shape[:2], generator)
    return np.exp(-density).astype(np.float32)


def counterstain(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """What a second dye absorbs, as eosin does: it lies over everything and tells of no nuclei.

    Tissue takes it up in patches and fibres of all sizes: noise of several wavelengths, drawn out
    to one side.

    Args:
        size: Height and width, in pixels.
        generator: Decides.

    Returns:
        Optical density, float32 `(*size, 3)`, at least 0.
    """
    side = 2 * max(size)  # that what is turned still covers the crop
    texture = np.zeros((side, side), np.float32)
    fibres = np.exp(generator.uniform(0, 1.5))  # so many times as long as wide
    for wavelength in (4, 10, 25, 60):
        shape = [max(2, round(side / wavelength / factor)) for factor in (1, fibres)]
        noise = generator.normal(0, generator.uniform(0.2, 1), shape).astype(np.float32)
        texture += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    height, width = size
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), generator.uniform(0, 360), 1)
    turn[:, 2] += [(width - side) / 2, (height - side) / 2]
    texture = cv2.warpAffine(texture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    uptake = 1 / (1 + np.exp(-generator.uniform(0.5, 4) * (texture - generator.uniform(-1, 1))))
    dye = generator.uniform(0.05, 0.9) * np.array(EOSIN) * np.exp(generator.normal(0, 0.25, 3))
    return (uptake[..., None] * dye).astype(np.float32)


def _light(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Another gamma, contrast and brightness, and perhaps light that falls off to one side."""
    if generator.random() < 0.6:
        image = np.clip(image, 0, 1) ** np.exp(generator.uniform(-0.6, 0.6))
    if generator.random() < 0.6:
        image = image * generator.uniform(0.6, 1.15) + generator.uniform(-0.05, 0.15)
    if generator.random() < 0.15:
        height, width = image.shape[:2]
        rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        slope = generator.uniform(-0.25, 0.25, 2)
        image = image * (1 + slope[0] * rows + slope[1] * columns)[..., None]
    return image.astype(np.float32)
