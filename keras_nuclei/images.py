"""Read microscopy images of any kind, and bring them to the values that the models were trained on.

`read_image` and `read_pages` keep what is in the file: its bit depth, its channels.
`normalize` makes of any of it the float32 `(H, W, 3)` with values 0..255 that a model takes.
"""

import contextlib
import itertools
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keras_nuclei.typing import ArrayLike, FilePath, Sliceable
from keras_nuclei.validation import require_finite, require_unmasked

if TYPE_CHECKING:
    import PIL.Image

# The first four bytes of TIFF and BigTIFF, little- and big-endian. Names of files lie too often.
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Slide scanners put the label and a photo of the glass into the same file, after the slide.
_SLIDE_KINDS = ("avs", "bif", "eer", "ndpi", "philips", "qpi", "scn", "svs")
# Colours of printing and of perception, which TIFF allows. Taken for RGB they would mislead.
_OTHER_COLOURS = ("SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "LOGLUV")
# Percentiles come from a grid of the pixels, no closer than it takes to have no more than so many.
_MOST_SAMPLED = 2**22
_PILLOW_SETTINGS = threading.Lock()
# PLANARCONFIG.SEPARATE of tifffile, and of TIFF: red, green and blue lie one after another.
_PLANAR = 2
_logger = logging.getLogger(__name__)


def read_image(path: FilePath) -> np.ndarray:
    """Read a file that holds one image.

    Args:
        path: TIFF, BigTIFF, OME-TIFF, PNG, JPEG, BMP, or whatever else Pillow reads.

    Returns:
        `(H, W)` or `(H, W, C)` in the dtype of the file: 1 bit becomes bool, 16 bits stay 16.
        Palettes are resolved to colours, an alpha channel is dropped, the orientation that a
        camera noted is applied (not in TIFF, nor in colour PNG of 16 bits), grey TIFF whose 0 is
        white (MINISWHITE) is turned to what is shown, black 0 (not of ImageJ, which keeps so what
        was measured), and channels come last wherever the file has them.

    Raises:
        OSError: If the file can't be opened.
        ValueError: If it can't be decoded, or holds several pages: see `read_pages`.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "nuclei.png")
        ...     Image.fromarray(np.array([[0, 65535]], "uint16")).save(path)
        ...     read_image(path)
        array([[    0, 65535]], dtype=uint16)
    """
    pages = read_pages(path)
    if len(pages) != 1:
        raise ValueError(
            f"{path} holds {len(pages)} pages, expected one. Read them all with "
            "keras_nuclei.images.read_pages(path)."
        )
    return pages[0]


def read_pages(path: FilePath) -> list[np.ndarray]:
    """Read all images of a file: the pages of a TIFF stack, the frames of a GIF, or the only one.

    A TIFF file says which of its axes are channels: of ImageJ, OME and planar colour files
    `(C, H, W)` becomes `(H, W, C)`. Every other axis (depth, time, position, one without a name)
    counts pages, the last axis fastest. Of slide scanners' files only the slide is read. Images may
    be as large as memory is: Pillow's limit, against bombs from strangers, does not hold here.

    A stack of three or four pages that was saved as planar RGB, as tifffile does unless told
    otherwise, can't be told from an image in colour: it is read as one, and a warning is logged.
    So it is where the metadata tell of three channels, which may be colours or stains, and where
    very narrow pages may be the rows of an image whose channels come last.

    Args:
        path: As for `read_image`.

    Returns:
        At least one array, each as `read_image` returns it.

    Raises:
        OSError: If the file can't be opened.
        ValueError: If it can't be decoded, or is a TIFF of colours other than grey and RGB, such as
            CMYK. Names the file and what to do.
        MemoryError: If it is larger than memory.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, tifffile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "stack.tif")
        ...     tifffile.imwrite(path, np.zeros((5, 32, 48), "uint16"))
        ...     [page.shape for page in read_pages(path)]
        [(32, 48), (32, 48), (32, 48), (32, 48), (32, 48)]
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(32)
        file.seek(0)
        try:
            if not head:
                raise ValueError("it is empty")
            if head.startswith(_TIFF_SIGNATURES):
                pages = _read_tiff(file)
            elif head.startswith(_PNG_SIGNATURE) and head[24] == 16 and head[25] > 0:
                pages = [_read_deep_png(file)]
            else:
                pages = _read_with_pillow(file)
        except MemoryError:
            raise  # nothing is wrong with the file
        # Decoders meet broken files with whatever goes wrong first: struct.error, KeyError, ...
        except Exception as error:
            raise ValueError(
                f"{path} can't be read as an image ({type(error).__name__}: {error}). Does it open "
                "elsewhere? Then save it as TIFF or PNG; else copy or export it again."
            ) from error
    return [page.astype(page.dtype.newbyteorder("="), copy=False) for page in pages]


def contrast_limits(
    image: ArrayLike, *, low: float = 1.0, high: float = 99.8
) -> tuple[float, float]:
    """The intensities that `normalize` makes 0 and 255: two percentiles of all values of an image.

    The p-th percentile is the smallest value that at least p percent of the values don't exceed,
    over all channels together, so that colours keep their hue. Of four million pixels or more, a
    regular grid of one to two million is looked at. Where both percentiles are one value, as
    of a clean image with a few small nuclei, the limits are minimum and maximum.

    Args:
        image: As for `normalize`.
        low: Percentile that becomes 0; from 0 to below `high`.
        high: Percentile that becomes 255; up to 100.

    Returns:
        The two intensities, in the units of the image; equal only if the image, or what
        `contrast_sample` takes of it, is constant.

    Raises:
        TypeError: As `normalize`.
        ValueError: As `normalize`, or if the percentiles are not in order.

    Example:
        >>> import numpy as np
        >>> contrast_limits(np.arange(1001).reshape(7, 143))
        (10.0, 998.0)
    """
    if not 0 <= low < high <= 100:
        raise ValueError(
            f"Percentiles must be 0 <= low < high <= 100; got low={low} and high={high}."
        )
    return _limits(_checked(image), low, high)


def contrast_sample(image: Sliceable) -> np.ndarray:
    """The pixels whose intensities decide how the contrast of an image is stretched.

    Args:
        image: `(H, W)` or `(H, W, C)`; larger than memory, if need be.

    Returns:
        The image, or, of more than 4 million pixels, those of every second, third ... row and
        column: as few of them as it takes to be no more. The `contrast_limits` of it are those of
        the image.

    Example:
        >>> import numpy as np
        >>> contrast_sample(np.zeros((5000, 4000), "uint8")).shape
        (1667, 1334)
    """
    height, width = image.shape[:2]
    step = next(
        step
        for step in itertools.count(1)
        if math.ceil(height / step) * math.ceil(width / step) <= _MOST_SAMPLED
    )
    return np.asarray(image[::step, ::step] if step > 1 else image)


def normalize(
    image: ArrayLike,
    *,
    low: float = 1.0,
    high: float = 99.8,
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Stretch the contrast of any image to what the models of this package were trained on.

        255 * clip((value - low) / (high - low), 0, 1)

    with the limits of `contrast_limits`, the same for all channels. Dark nuclei on bright ground
    stay dark: the models know both. A constant image becomes 0.

    Args:
        image: `(H, W)`, `(H, W, 1)`, `(H, W, 3)`, or `(H, W, 4)` whose fourth channel is alpha.
            bool, integers or floats in any range. Alpha is dropped, transparent pixels keep the
            colour that is stored below: white on a scanned section, black in fluorescence, which
            nothing but the picture itself can tell.
        low: Percentile that becomes 0.
        high: Percentile that becomes 255.
        limits: Intensities that become 0 and 255, in place of the percentiles: for tiles of one
            slide, `contrast_limits(slide)`.

    Returns:
        float32 `(H, W, 3)`, values 0..255. A grey image has three equal channels.

    Raises:
        TypeError: If the values are not real numbers.
        ValueError: If the shape is none of those above, there are no pixels, a value is NaN,
            infinite or masked, or percentiles or limits are not in order.

    Example:
        >>> import numpy as np
        >>> image = np.array([[1000, 1100], [1200, 1500]], "uint16")
        >>> normalize(image)[..., 0]
        array([[  0.,  51.],
               [102., 255.]], dtype=float32)
        >>> normalize(image, limits=(1000, 2000))[1, 1]
        array([127.5, 127.5, 127.5], dtype=float32)
    """
    image = _checked(image)
    if limits is None:
        limits = contrast_limits(image, low=low, high=high)
    start, stop = (float(limit) for limit in limits)
    if not (math.isfinite(stop - start) and start <= stop):
        raise ValueError(
            f"limits must be two finite numbers, the lower one first; got {tuple(limits)}. "
            "keras_nuclei.images.contrast_limits(image) computes them."
        )
    if image.dtype in (np.uint8, np.uint16):
        # A table of all values: several times as fast as arithmetic on every pixel.
        stretched = _stretch(np.arange(np.iinfo(image.dtype).max + 1), start, stop).take(image)
    else:
        stretched = _stretch(image, start, stop)
    if stretched.ndim == 2:
        stretched = np.repeat(stretched[..., None], 3, axis=-1)
    return stretched


def _stretch(values: np.ndarray, start: float, stop: float) -> np.ndarray:
    if start == stop:
        return np.zeros(values.shape, "float32")
    # float64, so that a small range far from 0 keeps its digits.
    stretched = np.clip(values.astype("float64"), start, stop)
    stretched -= start
    stretched /= stop - start
    stretched *= 255
    return stretched.astype("float32")


def _limits(image: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Percentiles by rank, which are the same of a grey image and of three copies of it."""
    values = contrast_sample(image).ravel()
    # Rounded, since 0.998 * 1000 is a little more than 998.
    ranks = [max(1, math.ceil(round(values.size * p / 100, 6))) for p in (low, high)]
    if image.dtype in (np.uint8, np.uint16):
        start, stop = np.searchsorted(np.cumsum(np.bincount(values)), ranks)
    else:
        indices = [rank - 1 for rank in ranks]
        start, stop = np.partition(values, indices)[indices]
    if start == stop:
        start, stop = values.min(), values.max()
    return float(start), float(stop)


def _checked(image: ArrayLike) -> np.ndarray:
    """`(H, W)` or `(H, W, 3)` of finite real numbers; bool as uint8, float16 as float32."""
    require_unmasked(image)
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        raise TypeError(
            f"An image must hold bool, integers or floats; got dtype {image.dtype} of shape "
            f"{image.shape}. Of complex values pass np.abs(image)."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            "An image must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), which is "
            f"RGB and alpha; got {image.shape}. {_advice(image.shape)}"
        )
    if image.size == 0:
        raise ValueError(f"An image must have pixels; got the shape {image.shape}.")
    require_finite(image)
    if image.dtype == np.float16:
        image = image.astype("float32")
    if image.ndim == 3:
        image = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
    return image.view("uint8") if image.dtype == bool else image


def _advice(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return "Pass one image at a time."
    if shape[0] <= 4 < shape[-1]:
        return (
            "If the channels come first, pass np.moveaxis(image, 0, -1); if these are the pages of "
            "a stack, pass one at a time: image[page]."
        )
    return (
        "Of several stains pass the one that shows the nuclei: image[..., channel]. Of grey and "
        "alpha pass image[..., 0]. Of a stack pass one page at a time: image[page]."
    )


def _read_tiff(file: BinaryIO) -> list[np.ndarray]:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series: list[Any] = list(tiff.series)
        if not series:
            raise ValueError("the file holds no image")
        if series[0].kind in _SLIDE_KINDS:
            series = series[:1]
        # What is marked as a smaller copy of another page is no page of its own.
        series = [one for one in series if not one.keyframe.is_reduced] or series
        if all(one.kind == "generic" for one in series):  # grouped by shape: back in their order
            pages = sorted(
                (page for one in series for page in one.pages), key=lambda page: page.index
            )
            planes = [(page.asarray(), page.axes, page) for page in pages]
        else:
            planes = [plane for one in series for plane in _planes(one, tiff)]
        images = [image for plane in planes for image in _read_planes(*plane, tiff.is_imagej)]
        if not tiff.is_ome:  # whose metadata tell pages from samples
            _warn_of_stacks(file.name, planes)
        _warn_of_stains(file.name, planes, images)
        _refuse_last_channels(images)
        return images


def _refuse_last_channels(images: list[np.ndarray]) -> None:
    """Refuse many very narrow pages: they are the rows of an image whose channels come last."""
    height, width = images[0].shape[:2]
    if width < 8 < min(height, len(images)) and {image.shape for image in images} == {
        (height, width)
    }:
        raise ValueError(
            f"its {len(images)} pages of {height}x{width} pixels must be the rows of one image of "
            f"{width} channels: save it anew, channels first, with tifffile.imwrite(path, "
            'np.moveaxis(image, -1, 0), photometric="minisblack", metadata={"axes": "CYX"})'
        )


def _warn_of_stains(
    name: str, planes: list[tuple[np.ndarray, str, Any]], images: list[np.ndarray]
) -> None:
    """Log once, for all planes of a file, that three channels may be stains."""
    may_be_stains = any(
        "C" in axes and "S" not in axes and page.photometric.name != "RGB"
        for _, axes, page in planes
    )
    if may_be_stains and any(image.shape[2:] == (3,) for image in images):
        _logger.warning(
            "%s is read in colour: its three channels are taken for red, green and blue. If they "
            "are stains, pass the one that shows the nuclei: image[..., channel], or --channel of "
            "the command, counted from 0.",
            name,
        )


def _warn_of_stacks(name: str, planes: list[tuple[np.ndarray, str, Any]]) -> None:
    """Log once, for all planes of a file, that colours may be what was meant to be pages."""
    pages = [page for _, axes, page in planes if _is_like_a_stack(axes, page)]
    if pages:
        _logger.warning(
            "%s is read in colour: it holds planes of red, green and blue%s. If these are the "
            "pages of a stack, save it anew: tifffile.imwrite(path, stack, "
            'photometric="minisblack").',
            name,
            ", and one of alpha, which is left out" if pages[0].extrasamples else "",
        )


def _is_like_a_stack(axes: str, page: Any) -> bool:
    """Whether colours are stored as tifffile, unless told otherwise, stores 3 or 4 grey pages."""
    samples = (page.samplesperpixel, *page.extrasamples)
    return (
        "S" in axes  # else its metadata tell what the planes are
        and (page.photometric.name, page.planarconfig) == ("RGB", _PLANAR)
        and samples in ((3,), (4, 1), (4, 2))  # 1 and 2 are the two kinds of alpha
    )


def _planes(series: Any, tiff: Any) -> list[tuple[np.ndarray, str, Any]]:
    """Pixels, axes and page of a series; of one that is not all in this file, of what is there.

    OME's metadata name planes in other files, and those that an acquisition was to have. Read as a
    whole, what is missing would be black.
    """
    pages = list(series.pages) if series.kind == "ome" else []
    own = [page for page in pages if page is not None and page.parent is tiff]
    if len(own) == len(pages):
        return [(series.asarray(), series.axes, series.keyframe)]
    if None in pages and dict(zip(series.axes, series.shape, strict=True)).get("C", 1) > 1:
        raise ValueError(
            f"its metadata tell of {len(pages)} planes in several channels, and it holds "
            f"{len(own)}: save it anew, each channel whole"
        )
    return [(page.asarray(), page.keyframe.axes, page.keyframe) for page in own]


def _read_planes(array: np.ndarray, axes: str, page: Any, is_imagej: bool) -> list[np.ndarray]:
    photometric = page.photometric.name
    # Only where JPEG compresses them does tifffile make RGB of them.
    if photometric in _OTHER_COLOURS or (
        photometric == "YCBCR" and "JP" not in page.compression.name
    ):
        raise ValueError(f"its colours are {photometric}, and RGB or grey is expected: convert it")
    # To ImageJ it is how to show what was measured, as a palette is.
    if photometric == "MINISWHITE" and array.dtype.kind in "bu" and not is_imagej:
        # Of 12 bits in 16, say, those count that the file says are used.
        array = ~array if array.dtype == bool else (1 << page.bitspersample) - 1 - array
    if page.extrasamples and "S" in axes:
        samples = _without_alpha(array.shape[axes.index("S")], page.extrasamples)
        array = array.take(samples, axes.index("S"))
    # ImageJ's palette is how to show intensities; elsewhere it says which colours are meant.
    if page.colormap is not None and not is_imagej:
        if "S" in axes:  # the colour's number comes first
            array, axes = array.take(0, axes.index("S")), axes.replace("S", "")
        array, axes = np.moveaxis(page.colormap[:, array], 0, -1), axes + "S"
    channel = next((axis for axis in "SC" if axis in axes), "")
    order = [axes.index(axis) for axis in "YX" + channel]
    pages = [i for i in range(len(axes)) if i not in order]
    array = array.transpose(pages + order)
    array = array.reshape(-1, *array.shape[len(pages) :])
    return [image[..., 0] if image.shape[2:] == (1,) else image for image in array]


def _without_alpha(num_samples: int, extra_samples: Sequence[int]) -> list[int]:
    """Indices of the samples that are not alpha. TIFF lists the meaning of the last ones only."""
    first = num_samples - len(extra_samples)
    # 0 is a sample of unknown meaning, as of a fourth stain; 1 and 2 are the two kinds of alpha.
    return [i for i in range(num_samples) if i < first or extra_samples[i - first] == 0]


def _read_deep_png(file: BinaryIO) -> np.ndarray:
    """A PNG of 16 bits per sample and several samples, of which Pillow would keep 8 bits."""
    import imagecodecs

    image = imagecodecs.png_decode(file.read())
    return image[..., 0] if image.shape[-1] == 2 else image[..., :3]


def _read_with_pillow(file: BinaryIO) -> list[np.ndarray]:
    from PIL import Image, ImageOps, ImageSequence

    with _any_size_and_whole(), Image.open(file) as image:
        # GIF, WebP and PNG may hold several frames, MPO a preview.
        frames = ImageSequence.Iterator(image) if image.format != "MPO" else [image]
        return [_as_array(ImageOps.exif_transpose(frame)) for frame in frames]


def _as_array(image: "PIL.Image.Image") -> np.ndarray:
    """Of a Pillow image, in grey or RGB."""
    if image.mode == "LA":
        image = image.convert("L")
    elif image.mode not in ("1", "L", "RGB", "F") and not image.mode.startswith("I"):
        # By way of RGBA, since a palette may have transparent entries.
        image = image.convert("RGBA").convert("RGB")
    return np.array(image)


@contextlib.contextmanager
def _any_size_and_whole() -> Iterator[None]:
    """Have Pillow read images of any size, and none that is cut short, for a moment.

    Both are settings of the whole process, and TFDS, once imported, allows the latter.
    """
    from PIL import Image, ImageFile

    with _PILLOW_SETTINGS:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before
