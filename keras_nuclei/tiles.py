"""Where the tiles of an image start, what they share, how they are weighed; along one axis."""

import bisect
import itertools
import math
from dataclasses import dataclass

import numpy as np

from keras_nuclei.typing import Sliceable


@dataclass(frozen=True)
class Tiles:
    """Tiles of one size along one axis, in order; neighbours share some pixels.

    Example:
        >>> tiles = Tiles.cover(length=100, tile=48, overlap=8, grid=16)
        >>> tiles.starts  # and so they end at 48, 80 and 112, past the image
        (0, 32, 64)
        >>> tiles.pixels(2)
        slice(64, 100, None)
    """

    length: int
    """Pixels of the image."""
    tile: int
    """Pixels of a tile."""
    overlap: int
    """Pixels that neighbours share, at least."""
    starts: tuple[int, ...]
    """First pixel of each tile. The last tile ends at the end of the image, or past it."""

    @classmethod
    def cover(cls, length: int, tile: int, overlap: int, grid: int = 1) -> "Tiles":
        """Evenly spaced tiles that share at least `overlap`, each start a multiple of `grid`."""
        steps = max(math.ceil((length - tile) / grid), 0)  # of the grid, up to the last start
        gaps = math.ceil(steps / ((tile - overlap) // grid)) if steps else 0
        starts = (grid * (steps * index // max(gaps, 1)) for index in range(gaps + 1))
        return cls(length, tile, overlap, tuple(starts))

    @classmethod
    def cover_evenly(cls, length: int, largest: int, overlap: int, grid: int = 1) -> "Tiles":
        """As few tiles as those of the largest size, and no larger than it takes so many.

        Sizes and starts are multiples of `grid`.

        Example:
            >>> Tiles.cover_evenly(length=100, largest=60, overlap=10)
            Tiles(length=100, tile=55, overlap=10, starts=(0, 45))
        """
        count = len(cls.cover(length, largest, overlap, grid).starts)
        least = math.ceil((length + (count - 1) * overlap) / count / grid) * grid
        sizes = range(least, largest + 1, grid)
        covers = (cls.cover(length, size, overlap, grid) for size in sizes)
        return next(cover for cover in covers if len(cover.starts) == count)

    @property
    def end(self) -> int:
        """First pixel after the last tile."""
        return self.starts[-1] + self.tile

    def pixels(self, index: int) -> slice:
        """The pixels of the image that a tile holds."""
        start = self.starts[index]
        return slice(start, min(start + self.tile, self.length))

    def seen(self, index: int) -> int:
        """How many pixels of a tile, from its start on, the tile before it also holds."""
        return self.starts[index - 1] + self.tile - self.starts[index] if index else 0

    def owner(self, index: int, side: slice) -> int:
        """In whose core the middle of `side`, counted from the start of tile `index`, lies.

        The middles of the overlaps part the axis into cores, one for each tile.
        """
        # Twice the pixel, so that halves stay whole numbers.
        middle = 2 * self.starts[index] + side.start + side.stop
        edges = [start + self.tile + after for start, after in itertools.pairwise(self.starts)]
        return bisect.bisect_right(edges, middle)

    def weights(self) -> list[np.ndarray]:
        """The weight of each tile, float32 `(tile,)`. On each pixel they sum to 1.

        From a border inside the image on, 0 for `overlap // 4` pixels, where a model misses what
        lies beyond; then a raised cosine up to where the overlap has as many pixels left.
        """
        margin = self.overlap // 4
        rise = (np.arange(self.tile) + 0.5 - margin) / max(self.overlap - 2 * margin, 1)
        rise = np.sin(np.pi / 2 * rise.clip(0, 1)) ** 2
        weights = [np.ones(self.tile) for _ in self.starts]
        for weight in weights[1:]:
            weight *= rise
        for weight in weights[:-1]:
            weight *= rise[::-1]
        total = np.zeros(self.end)
        for start, weight in zip(self.starts, weights, strict=True):
            total[start : start + self.tile] += weight
        return [
            (weight / total[start : start + self.tile]).astype("float32")
            for start, weight in zip(self.starts, weights, strict=True)
        ]


def image_shape(image: Sliceable, *, grey: bool = False) -> tuple[int, ...]:
    """The shape of anything that has one and can be sliced.

    Args:
        image: `(H, W, C)`, of any kind.
        grey: Whether `(H, W)` will do.

    Returns:
        The shape as a tuple.

    Raises:
        TypeError: If the image has no shape or can't be sliced.
        ValueError: If it has another number of axes, or no pixels.

    Example:
        >>> image_shape(np.zeros((2, 3, 1)))
        (2, 3, 1)
    """
    if not hasattr(image, "shape") or not hasattr(image, "__getitem__"):
        raise TypeError(
            f"The image must be an array; got {type(image).__name__}. Pass numpy.asarray(image), "
            "or what keras_nuclei.images.read_image or numpy.memmap return for a file."
        )
    shape = tuple(image.shape)
    if len(shape) not in ((2, 3) if grey else (3,)) or 0 in shape:
        raise ValueError(
            f"The image must have the shape {'(H, W) or ' if grey else ''}(H, W, C), and at least "
            f"one pixel; got {shape}. Give a grey image channels with image[..., None]; pass a "
            "batch image by image."
        )
    return shape


def check_overlap(tile: int, overlap: int, grid: int = 1) -> None:
    """Check that tiles which share `overlap` pixels get ahead, on the grid.

    Raises:
        ValueError: If they don't. Says what is allowed.

    Example:
        >>> check_overlap(tile=512, overlap=64, grid=32)
    """
    if tile < 1:
        raise ValueError(f"tile_size must be at least 1; got {tile}.")
    if not 0 <= overlap <= tile - grid:
        steps = f", and tiles begin at multiples of {grid}" if grid > 1 else ""
        raise ValueError(
            f"overlap must be in 0..{tile - grid}, less than tile_size={tile}{steps}; got "
            f"overlap={overlap}. Pass larger tiles or a smaller overlap."
        )
