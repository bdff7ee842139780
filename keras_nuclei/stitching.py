"""Label the nuclei of images of any size, tile by tile, with none cut or counted twice."""

import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from keras_nuclei.tiles import Tiles, check_overlap, image_shape
from keras_nuclei.typing import ArrayLike, Sliceable

_UNSEEN = -1


def label_tiled(
    image: Sliceable,
    label: Callable[[np.ndarray], np.ndarray],
    *,
    tile_size: int = 2048,
    overlap: int = 128,
    grid: int = 1,
    progress: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Label the nuclei of an image of any size tile by tile, with none cut or counted twice.

    The lines halfway through the overlaps part the image into cores, one for each tile. A nucleus
    is taken, whole, from the tile in whose core the centre of its bounding box lies. No side of
    that box being longer than `overlap`, it reaches at most half of it beyond the core, where the
    tile still sees it; and what another tile sees of it, cut by that tile's border, has its centre
    outside of that tile's core, for it begins in the overlap and ends at the border.

    So for nuclei of at most `overlap` pixels across, the result is that of labelling the whole
    image, but for the numbers, if `label` judges each by its own pixels. If it looks farther, as a
    watershed and a model do, add twice that distance to `overlap`. Where two tiles disagree, the
    earlier keeps its pixels, and a nucleus is the continuation of another if more than half of
    either, in the area that both tiles see, is shared. A larger nucleus is taken from every tile
    that sees more of it than `overlap` pixels across, and put together in the same way.

    Args:
        image: `(H, W)` or `(H, W, C)`, as in `predict_tiled`: an image, a mask, probabilities.
        label: Function from a tile `(height, width)` or `(height, width, C)` to its label map, of
            any integer dtype: `(height, width)`, 0 for background.
        tile_size: Height and width of a tile, in pixels, at most: tiles are as small as their
            number allows.
        overlap: Pixels that neighbouring tiles share, at least; not less than the largest nucleus.
        grid: Tiles begin at multiples of it. A network that halves what it sees five times sees
            most nearly what it would of the whole image where that is 32.
        progress: Whether to show a progress bar on stderr.
        out: Array `(H, W)` of int32 or int64 to write to, such as a memmap; None makes one.

    Returns:
        int32 label map `(H, W)`, numbered 1..n without gaps; `out` where that is given.

    Raises:
        TypeError: If the image can't be sliced, or labels or `out` are not integers.
        ValueError: If an argument is out of its range or the shapes don't fit each other.

    Example:
        >>> import numpy as np
        >>> import skimage.measure
        >>> import keras_nuclei
        >>> mask = np.array([[1, 1, 0, 0, 1, 1, 1, 0, 1, 1]])
        >>> label = skimage.measure.label
        >>> keras_nuclei.stitching.label_tiled(mask, label, tile_size=6, overlap=3)
        array([[1, 1, 0, 0, 2, 2, 2, 0, 3, 3]], dtype=int32)
    """
    height, width = image_shape(image, grey=True)[:2]
    if not isinstance(grid, int | np.integer) or grid < 1:
        raise ValueError(f"grid must be a whole number of pixels, at least 1; got {grid}.")
    check_overlap(tile_size, overlap, grid)
    largest = tile_size - tile_size % grid
    check_overlap(largest, overlap, grid)
    rows = Tiles.cover_evenly(height, largest, overlap, grid)
    columns = Tiles.cover_evenly(width, largest, overlap, grid)
    if out is None:
        out = np.zeros((height, width), "int32")
    else:
        check_out(out, (height, width))
    stitcher = _Stitcher(rows, columns)
    tiles = list(itertools.product(range(len(rows.starts)), range(len(columns.starts))))
    for row, column in tqdm(tiles, unit="tile", disable=not progress):
        window = rows.pixels(row), columns.pixels(column)
        canvas = np.array(out[window])
        canvas[rows.seen(row) :, columns.seen(column) :] = _UNSEEN
        stitcher.draw(canvas, _label_tile(label, image[window]), (row, column))
        out[window] = np.maximum(canvas, 0)
    numbers = stitcher.final_numbers().astype(out.dtype)
    for top, left in itertools.product(range(0, height, rows.tile), range(0, width, columns.tile)):
        window = slice(top, top + rows.tile), slice(left, left + columns.tile)
        out[window] = numbers[out[window]]
    return out


class _Stitcher:
    """Draws the nuclei of one tile after the other, and remembers which numbers are the same."""

    def __init__(self, rows: Tiles, columns: Tiles):
        self.rows, self.columns = rows, columns
        self.count = 0
        self.links: list[tuple[int, int]] = []  # pairs of numbers of one nucleus

    def draw(self, canvas: np.ndarray, labels: np.ndarray, place: tuple[int, int]) -> None:
        """Draw on `canvas` what the tile has to add to the nuclei that are there already.

        Args:
            canvas: The tile's part of the result `(h, w)`, changed in place: the numbers drawn so
                far, 0 for background, `_UNSEEN` where no tile has been.
            labels: Label map of the tile, `(h, w)`.
            place: Row and column of the tile.
        """
        areas = dict(_counts(canvas[canvas > 0]))
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            if box is None:
                continue
            nucleus = labels[box] == number
            beneath = canvas[box][nucleus]
            taken = beneath[beneath > 0]
            if not self._is_due(box, place, mostly_free=2 * taken.size < beneath.size):
                continue
            seen = int(np.count_nonzero(beneath != _UNSEEN))
            known = [n for n, shared in _counts(taken) if 2 * shared > min(seen, areas[n])]
            if not known:
                if taken.size == beneath.size:
                    continue  # no pixel left to draw
                self.count += 1
                known = [self.count]
            self.links.extend((known[0], other) for other in known[1:])
            canvas[box][nucleus & (canvas[box] <= 0)] = known[0]

    def _is_due(self, box: tuple[slice, slice], place: tuple[int, int], mostly_free: bool) -> bool:
        """Whether a nucleus is this tile's to draw."""
        axes = zip(box, (self.rows, self.columns), strict=True)
        if any(side.stop - side.start > tiles.overlap for side, tiles in axes):
            return True
        owner = self.rows.owner(place[0], box[0]), self.columns.owner(place[1], box[1])
        # Where tiles differ by a pixel, each may take the other for the owner of a nucleus on the
        # line. The later of the two sees that nothing was drawn.
        return owner == place or (owner < place and mostly_free)

    def final_numbers(self) -> np.ndarray:
        """The final number of each that was drawn, without gaps; `(count + 1,)`, 0 remains 0."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.array(self.links, int).reshape(-1, 2).T
        graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(self.count + 1,) * 2)
        return connected_components(graph, directed=False)[1]


def _counts(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Each number with how often it occurs."""
    if not numbers.size:  # mostly so, and to sort none takes long, too
        return []
    values, counts = np.unique(numbers, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _label_tile(label: Callable, tile: ArrayLike) -> np.ndarray:
    tile = np.asarray(tile)
    labels = np.asarray(label(tile))
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"label must return integers, one for each nucleus; got {labels.dtype}. Number the "
            "nuclei of a mask with skimage.measure.label."
        )
    if labels.shape != tile.shape[:2] or labels.min() < 0:
        raise ValueError(
            f"For a tile {tile.shape}, label must return a label map {tile.shape[:2]} of 0 and "
            f"above; got {labels.shape}, lowest number {labels.min(initial=0)}."
        )
    if labels.max() > labels.size:  # find_objects makes a list as long as the highest number
        labels = np.unique(labels, return_inverse=True)[1] + (labels.min() > 0)
    return labels


def check_out(out: np.ndarray, size: tuple[int, ...]) -> None:
    """Check that a label map of an image can be written to an array.

    Raises:
        TypeError: If it is no array, or not of int32 or int64.
        ValueError: If it has another height or width.

    Example:
        >>> check_out(np.zeros((3, 4), "int32"), size=(3, 4))
    """
    if not (hasattr(out, "shape") and hasattr(out, "dtype")):
        raise TypeError(f"out must be an array, such as a memory map; got {out!r}.")
    if tuple(out.shape) != tuple(size):
        raise ValueError(
            f"out must have the height and width of the image, {tuple(size)}; got "
            f"{tuple(out.shape)}."
        )
    if np.dtype(out.dtype) not in (np.int32, np.int64):
        raise TypeError(f"out must be of dtype int32 or int64; got {out.dtype}.")
