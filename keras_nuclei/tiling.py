"""Predict images of any size with any model, tile by tile and without seams.

The image is read a tile at a time and the result written a band of rows at a time, so that a whole
slide passes through the memory that a few tiles and one row of them take.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
from tqdm import tqdm

from keras_nuclei.tiles import Tiles, check_overlap, image_shape
from keras_nuclei.typing import Sliceable, Tensor
from keras_nuclei.validation import require_at_least_one, require_finite

GRID = 32
"""Tiles start on the grid that the five halvings of most encoders make. Off it, the same pixels
would be pooled in other groups, and predicted otherwise than in the whole image."""

TILE_SIZE = 1024
"""Height and width of a tile, at most, in pixels. Most images are one, and show no seam."""

OVERLAP = 128
"""Pixels that neighbouring tiles share where they are large enough for it. Half as many let seams
show in stained tissue."""

# A batch holds about as many pixels: what is in memory at once is the same for tiles of any size.
_BATCH_PIXELS = TILE_SIZE**2

# Number of augmentations -> (quarter turns, mirrored before): nothing, flips, flips and turns.
_SYMMETRIES = {
    1: ((0, False),),
    4: tuple(itertools.product((0, 2), (False, True))),
    8: tuple(itertools.product((0, 1, 2, 3), (False, True))),
}


def predict_tiled(
    image: Sliceable,
    model: keras.Model | Callable,
    *,
    tile_size: int = TILE_SIZE,
    overlap: int | None = None,
    batch_size: int | None = None,
    augmentations: int = 1,
    progress: bool = False,
    out: np.ndarray | dict[str, np.ndarray] | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Predict an image of any size in overlapping tiles, blended so that no seam shows.

    A pixel is the weighted mean of the tiles that hold it. Along each axis, the weight of a tile
    is 0 on the `overlap // 4` pixels next to its border, where the model misses what lies beyond,
    then rises to 1 as a raised cosine (sin² of 0..90°), and is divided by the tiles' sum. It does
    not fall at the border of the image.

    The result is that of predicting the whole image at once, but for rounding, if no output pixel
    depends on input pixels more than `overlap // 4` away and the model's total stride divides 32
    and `tile_size`. Deep models see farther, but mostly weakly.

    The image is extended by reflection, below and on the right, to multiples of 32 (or of the
    largest power of two in `tile_size`, if that is less); a small image is one tile of that size.
    All batches of an image have one shape, so that a backend which compiles does so once.

    Args:
        image: `(H, W, C)`, any real dtype, from 1x1 up. Whatever has a `shape` and can be sliced
            will do (NumPy array, memmap, zarr, HDF5); it is never read whole.
        model: Keras model on any backend, or function, from float32 batches
            `(n, height, width, C)` to `(n, height, width, classes)` or a dict of such, one for
            each head. A model that takes one size only decides the size of the tiles.
        tile_size: Height and width of a tile, in pixels, at most: tiles are no larger than so many
            need to be.
        overlap: Pixels that neighbouring tiles share, at least. By default 128; along an axis where
            tiles have less than 256 pixels half of them, or less where they would not begin at
            multiples of 32 (or of that power of two).
        batch_size: Tiles predicted at once, at most. By default as many as have a million pixels
            together, and one of larger ones.
        augmentations: 1 for none, 4 for the mean over the flips and the half turn, 8 for the mean
            over all flips and quarter turns. It takes that many times as long.
        progress: Whether to show a progress bar on stderr.
        out: Array `(H, W, classes)` of floats to write to, such as a memmap, or a dict of them;
            None makes one. Each of its pixels is written once, and none is read.

    Returns:
        float32 `(H, W, classes)`, or a dict of such; `out` where that is given.

    Raises:
        TypeError: If the image or the output of the model is none of the above.
        ValueError: If an argument is out of its range, the shapes don't fit each other, or image
            or prediction hold NaN or infinity.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.unet(input_shape=(None, None, 3), decoder_filters=(8,) * 4)
        >>> image = np.zeros((100, 75, 3), "uint8")
        >>> keras_nuclei.tiling.predict_tiled(image, model, tile_size=64, overlap=16).shape
        (100, 75, 1)
    """
    height, width, channels = image_shape(image)
    if not callable(model):
        raise TypeError(
            f"model must be a Keras model or a function; got {model!r}. "
            "keras_nuclei.from_preset(name) makes a model of a preset's name."
        )
    fixed_height, fixed_width = _model_size(model, channels)
    if augmentations not in _SYMMETRIES:
        raise ValueError(f"augmentations must be 1, 4 or 8; got {augmentations!r}.")
    if batch_size is not None:
        require_at_least_one(batch_size=batch_size)
    rows = _cover_on_grid(height, fixed_height, tile_size, overlap)
    columns = _cover_on_grid(width, fixed_width, tile_size, overlap)
    batch_size = batch_size or max(1, _BATCH_PIXELS // (rows.tile * columns.tile))
    predictions = _predictions(
        image, model, rows, columns, batch_size, _SYMMETRIES[augmentations], progress
    )
    if len(rows.starts) == len(columns.starts) == 1:  # nothing to blend
        ((_, heads),) = predictions
        outputs = _outputs(out, heads, (height, width))
        for name, output in outputs.items():
            output[:] = heads[name][0, :height, :width]
        return outputs.get(None, outputs)
    row_weights, column_weights = rows.weights(), columns.weights()
    blends: dict[str | None, _Blend] = {}
    for tiles, heads in predictions:
        if not blends:
            outputs = _outputs(out, heads, (height, width))
            blends = {name: _Blend(outputs[name], rows, columns) for name in heads}
        # Heads may hold more: what filled up the last batch.
        for position, (row, column) in enumerate(tiles):
            weights = np.outer(row_weights[row], column_weights[column])[..., None]
            for name, blend in blends.items():
                blend.add(row, column, heads[name][position] * weights)
    for blend in blends.values():
        blend.finish()
    return outputs.get(None, outputs)


def _predictions(
    image: Sliceable,
    model: keras.Model | Callable,
    rows: Tiles,
    columns: Tiles,
    batch_size: int,
    symmetries: tuple[tuple[int, bool], ...],
    progress: bool,
) -> Iterator[tuple[list[tuple[int, int]], dict[str | None, np.ndarray]]]:
    """Yield the `(row, column)` of the tiles of a batch, and their prediction of each head."""
    tiles = list(itertools.product(range(len(rows.starts)), range(len(columns.starts))))
    # Batches as even as can be. The last one is filled up: another shape would be compiled anew.
    count = math.ceil(len(tiles) / math.ceil(len(tiles) / batch_size))
    with tqdm(total=len(tiles), unit="tile", disable=not progress) as bar:
        for first in range(0, len(tiles), count):
            batch_tiles = tiles[first : first + count]
            batch = np.zeros((count, rows.tile, columns.tile, image.shape[-1]), "float32")
            for position, (row, column) in enumerate(batch_tiles):
                batch[position] = _read(image, rows, row, columns, column)
            yield batch_tiles, _predict(model, batch, symmetries)
            bar.update(len(batch_tiles))


def _cover_on_grid(length: int, fixed: int | None, tile_size: int, overlap: int | None) -> Tiles:
    """Tiles of the size that the model is fixed to; else as small as that many of them can be."""
    tile = fixed or tile_size
    grid = math.gcd(tile, GRID)
    if overlap is None:  # no more than lets the next tile get ahead
        overlap = max(0, min(OVERLAP, tile // 2, tile - grid))
    check_overlap(tile, overlap, grid)
    cover = Tiles.cover if fixed else Tiles.cover_evenly
    return cover(length, tile, overlap, grid)


class _Blend:
    """Adds up weighted tiles of one head, row of tiles by row, and writes what is complete."""

    def __init__(self, out: np.ndarray, rows: Tiles, columns: Tiles):
        self.out = out
        self.rows, self.columns = rows, columns
        self.row = 0
        self.band = np.zeros((rows.tile, columns.end, out.shape[-1]), "float32")

    def add(self, row: int, column: int, weighted: np.ndarray) -> None:
        """Take in the weighted prediction of a tile, `(h, w, classes)`, in reading order."""
        if row > self.row:
            self._write(self.rows.starts[row])
            self.row = row
        left = self.columns.starts[column]
        self.band[:, left : left + self.columns.tile] += weighted

    def finish(self) -> None:
        """Write the last rows."""
        self._write(self.rows.length)

    def _write(self, stop: int) -> None:
        start = self.rows.starts[self.row]
        done = stop - start
        self.out[start:stop] = self.band[:done, : self.columns.length]
        self.band[:-done] = self.band[done:]
        self.band[-done:] = 0


def _read(image: Sliceable, rows: Tiles, row: int, columns: Tiles, column: int) -> np.ndarray:
    """One tile of the image, `(rows.tile, columns.tile, C)`, reflected where the image ends."""
    window = rows.pixels(row), columns.pixels(column)
    tile = np.asarray(image[window])
    if tile.dtype.kind not in "buif":
        raise TypeError(f"The image must hold real numbers; its dtype is {tile.dtype}.")
    require_finite(tile, window[0].start, window[1].start)
    missing = rows.tile - tile.shape[0], columns.tile - tile.shape[1]
    return np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")


def _predict(
    model: keras.Model | Callable, batch: np.ndarray, symmetries: tuple[tuple[int, bool], ...]
) -> dict[str | None, np.ndarray]:
    """Mean prediction over the symmetries of each head, `(n, h, w, classes)`; one head is None."""
    sums: dict[str | None, np.ndarray] = {}
    for turns, mirrored in symmetries:
        turned = np.rot90(batch[:, :, ::-1] if mirrored else batch, turns, axes=(1, 2))
        for name, head in _predict_heads(model, np.ascontiguousarray(turned)).items():
            head = np.rot90(head, -turns, axes=(1, 2))
            head = head[:, :, ::-1] if mirrored else head
            part = head / len(symmetries)
            sums[name] = sums[name] + part if name in sums else part
    return sums


def _predict_heads(
    model: keras.Model | Callable, batch: np.ndarray
) -> dict[str | None, np.ndarray]:
    # Compiled once for a shape and without gradients; calling the model is neither.
    predict = model.predict_on_batch if isinstance(model, keras.Model) else model
    output = predict(batch)
    heads = output if isinstance(output, dict) else {None: output}
    return {name: _check_head(name, head, batch.shape) for name, head in heads.items()}


def _check_head(name: str | None, head: Tensor, batch_shape: tuple[int, ...]) -> np.ndarray:
    subject = "The model's output" if name is None else f"The model's output {name!r}"
    if not hasattr(head, "shape"):
        raise TypeError(
            f"{subject} must be an array; got {type(head).__name__}. A model with several outputs "
            "must return a dict: keras.Model(inputs, {'mask': mask, 'distance': distance})."
        )
    if len(head.shape) != 4 or tuple(head.shape[:3]) != batch_shape[:3]:
        raise ValueError(
            f"{subject} must have the height and width of its input and a channel axis. For "
            f"{batch_shape} it must be {(*batch_shape[:3], 'classes')}; got {tuple(head.shape)}."
        )
    if not isinstance(head, np.ndarray):
        head = keras.ops.convert_to_numpy(head)
    head = head.astype("float32", copy=False)
    if not np.isfinite(head).all():
        raise ValueError(
            f"{subject} holds NaN or infinity for an image that holds none. Has it diverged?"
        )
    return head


def input_shape(model: keras.Model | Callable) -> tuple[int | None, int | None, int | None]:
    """Height, width and channels of the images that a model takes.

    Args:
        model: As in `predict_tiled`.

    Returns:
        None for each that is not fixed; and for all of a function, or of a model that does not
        know its input.

    Example:
        >>> import keras_nuclei
        >>> input_shape(keras_nuclei.unet(input_shape=(None, None, 1)))
        (None, None, 1)
    """
    shape = getattr(model, "input_shape", None) if isinstance(model, keras.Model) else None
    if not isinstance(shape, tuple) or len(shape) != 4:
        return None, None, None
    return shape[1:]


def _model_size(model: keras.Model | Callable, channels: int) -> tuple[int | None, int | None]:
    """Height and width that a model is fixed to, after a look at its channels."""
    height, width, taken = input_shape(model)
    if taken not in (None, channels):
        raise ValueError(
            f"The model takes images of {taken} channels; the image has {channels}. Drop an "
            "alpha channel with image[..., :3]; repeat a grey one with numpy.repeat(image, 3, -1)."
        )
    return height, width


def _outputs(
    out: np.ndarray | dict[str, np.ndarray] | None, heads: dict, size: tuple[int, int]
) -> dict:
    """The arrays to write to, by head."""
    shapes = {name: (*size, head.shape[-1]) for name, head in heads.items()}
    if out is None:
        return {name: np.empty(shape, "float32") for name, shape in shapes.items()}
    outputs = out if isinstance(out, dict) else {None: out}
    given = {name: tuple(array.shape) for name, array in outputs.items()}
    if given != shapes:
        raise ValueError(
            "out must be as the prediction: an array, or a dict of them where the model returns "
            f"one (here None stands for the only output). Expected {shapes}; got {given}."
        )
    for array in outputs.values():
        if np.dtype(array.dtype).kind != "f":
            raise TypeError(f"out must hold floats, such as float32; got {array.dtype}.")
    return outputs
