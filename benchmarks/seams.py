"""Find which images continue each other at their borders, or overlap.

How a seam is judged. The last line of pixels of one tile and the first line of another are taken
to a logarithmic scale, on which the faint background counts as much as bright nuclei, and smoothed
along the seam. The mean absolute difference of the two is their *gap*.

- *step* = gap / mean gap between the two outermost lines inside either tile: near 1 where the
  picture simply goes on across the seam.
- *margin* = gap / the smallest gap that either border has with any other tile, or with any tile
  flipped end to end: near 1 where the seam fits no better than the next one. Flat and dark
  borders fit everywhere, their own mirror image included, so they never stand out.

Two tiles are neighbours when each is the other's one best fit and the seam's cost,
`margin * max(1, step)`, is at most `MAX_COST`; or when the seam is one side of a closed square of
four tiles, every side a mutual best fit and their mean cost at most `MAX_SQUARE_COST`: chance
hardly ever closes a square.

The null test turns the roles around: flipped borders are matched and straight ones are the rivals,
so every match is false. `benchmarks/results/fields_of_view.json` has its counts. A second check is
geometry, which the rule for single seams never looks at: laid out on a grid, do seams contradict
each other?

Known limits: tiles of one field with a strip between them missing, joined through empty background
alone, or stored with different contrast, look like tiles of two fields; they stay apart.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist
from tqdm import tqdm

MAX_COST = 0.8  # of flipped seams in the Data Science Bowl 2018, the lowest is 0.93
MAX_SQUARE_COST = 0.95
MAX_STEP = 2.0  # for the sides of a square
SMOOTHING = 2.0  # pixels along the seam: takes out noise, leaves nuclei
DARK = 2.0  # grey levels added before the logarithm
QUANTUM = 0.0125  # added to each gap, so that 0 against 0 is no evidence
THUMBNAIL = 128  # pixels
MIN_OVERLAP = 0.25  # of an image
MIN_CORRELATION = 0.94  # that data holds 6 pairs above 0.96 and none from 0.92 to 0.96

Images = Mapping[str, NDArray[np.uint8]]


class Seam(NamedTuple):
    """Two tiles side by side: `second` is right of `first`, or below it."""

    first: str
    second: str
    direction: str  # "right" or "down"
    cost: float
    step: float


def _borders(images: Images, ids: list[str], side: str) -> NDArray[np.float32]:
    """The outermost and the next line of pixels of each tile, smoothed: (tiles, 2, length, 3)."""
    lines = {
        "left": lambda image: image[:, :2].swapaxes(0, 1),
        "right": lambda image: image[:, :-3:-1].swapaxes(0, 1),
        "top": lambda image: image[:2],
        "bottom": lambda image: image[:-3:-1],
    }[side]
    stack = np.stack([lines(images[name]) for name in ids]).astype(np.float32)
    return gaussian_filter1d(np.log(stack + DARK), SMOOTHING, axis=2)


def _gaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean absolute difference of each line of `first` to each of `second`; never to its own."""
    rows, columns = first.reshape(len(first), -1), second.reshape(len(second), -1)
    gaps = cdist(rows, columns, "cityblock") / rows.shape[1] + QUANTUM
    np.fill_diagonal(gaps, np.inf)
    return gaps


def _two_smallest(table: NDArray[np.float64], axis: int) -> tuple[NDArray, NDArray]:
    smallest = np.sort(table, axis=axis).take([0, 1], axis=axis)
    return smallest.take(0, axis=axis), smallest.take(1, axis=axis)


def mutual_best_seams(images: Images, *, flipped: bool = False) -> list[Seam]:
    """List the seams at which two tiles are each other's one best fit.

    Args:
        images: image id to uint8 (H, W, 3). Only borders of equal length are compared.
        flipped: match each border to the others turned end to end: the null test.
    """
    seams = []
    for direction, sides, axis in (
        ("right", ("right", "left"), 0),
        ("down", ("bottom", "top"), 1),
    ):
        lengths = sorted({image.shape[axis] for image in images.values()})
        for length in tqdm(lengths, desc=f"match {direction}", unit="size"):
            ids = [name for name in sorted(images) if images[name].shape[axis] == length]
            if len(ids) < 2:
                continue
            ends, starts = (_borders(images, ids, side) for side in sides)
            gaps = _gaps(ends[:, 0], starts[:, 0])
            rivals = _gaps(ends[:, 0], starts[:, 0, ::-1])
            if flipped:
                gaps, rivals = rivals, gaps
            inner = [np.abs(x[:, 0] - x[:, 1]).mean(axis=(1, 2)) for x in (ends, starts)]
            usual = (inner[0][:, None] + inner[1][None, :]) / 2 + QUANTUM
            (row_best, row_next), (col_best, col_next) = (_two_smallest(gaps, a) for a in (1, 0))
            for i, j in np.argwhere((gaps == row_best[:, None]) & (gaps == col_best[None, :])):
                if gaps[i, j] >= min(row_next[i], col_next[j]):
                    continue  # a tie: two borders fit equally well
                rival = min(row_next[i], col_next[j], rivals[i].min(), rivals[:, j].min())
                step = float(gaps[i, j] / usual[i, j])
                cost = float(gaps[i, j] / rival) * max(1.0, step)
                seams.append(Seam(ids[i], ids[j], direction, cost, step))
    return seams


def find_squares(seams: Iterable[Seam]) -> list[tuple[Seam, Seam, Seam, Seam]]:
    """List the closed squares: right then down leads to the same tile as down then right."""
    right: dict[str, Seam] = {}
    down: dict[str, Seam] = {}
    for seam in seams:
        table = right if seam.direction == "right" else down
        if seam.step <= MAX_STEP:
            table[seam.first] = seam
    squares = []
    for top in right.values():
        near, far = down.get(top.first), down.get(top.second)
        bottom = right.get(near.second) if near else None
        if not (near and far and bottom and bottom.second == far.second):
            continue
        if len({top.first, top.second, bottom.first, bottom.second}) == 4:
            squares.append((top, bottom, near, far))
    return squares


def accept(seams: Collection[Seam]) -> list[Seam]:
    """Keep the seams that stand by their own cost or as a side of a square of four."""
    accepted = {seam for seam in seams if seam.cost <= MAX_COST}
    for square in find_squares(seams):
        if np.mean([side.cost for side in square]) <= MAX_SQUARE_COST:
            accepted.update(square)
    return sorted(accepted)


def find_overlaps(images: Images) -> list[tuple[str, str]]:
    """List the pairs of images of one size that show the same scene, shifted or not.

    Phase correlation of thumbnails proposes one shift for each pair; the pair counts when the parts
    that overlap there are at least `MIN_OVERLAP` of the image and correlate by `MIN_CORRELATION`,
    whatever their contrast.

    Args:
        images: image id to uint8 (H, W, 3).
    """
    pairs = []
    for shape in tqdm(sorted({image.shape for image in images.values()}), desc="find overlaps"):
        ids = [name for name in sorted(images) if images[name].shape == shape]
        thumbnails = np.stack([_thumbnail(images[name]) for name in ids])
        height, width = thumbnails.shape[1:]
        window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
        spectra = fft.rfft2((thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)) * window)
        size = np.abs(spectra)
        spectra /= size + 0.1 * size.mean(axis=(1, 2), keepdims=True) + 1e-6
        for i in range(len(ids) - 1):
            peaks = fft.irfft2(spectra[i] * spectra[i + 1 :].conj(), s=(height, width))
            for j, peak in enumerate(peaks.reshape(len(peaks), -1).argmax(axis=1), start=i + 1):
                y, x = divmod(
                    int(peak), width
                )  # modulo height and width: four shifts come down to it
                shifts = itertools.product((y, y - height), (x, x - width))
                alike = (_correlate_at(thumbnails[i], thumbnails[j], *shift) for shift in shifts)
                if max(alike) >= MIN_CORRELATION:
                    pairs.append((ids[i], ids[j]))
    return pairs


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean of the channels, the longer side at most `THUMBNAIL` pixels: float32 (h, w)."""
    shrink = min(1.0, THUMBNAIL / max(image.shape[:2]))
    size = [max(2, round(shrink * length)) for length in image.shape[1::-1]]
    return cv2.resize(image.mean(axis=2, dtype=np.float32), size, interpolation=cv2.INTER_AREA)


def _correlate_at(first: NDArray, second: NDArray, down: int, right: int) -> float:
    """Correlate what two images share when the second lies (down, right) in the first."""
    height, width = first.shape
    a = first[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    b = second[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    if a.size < MIN_OVERLAP * first.size:
        return -1.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-6))


def lay_out(seams: Iterable[Seam]) -> tuple[dict[str, tuple[int, int]], int]:
    """Give each tile of each group its (row, column) and count the seams that contradict them."""
    steps: dict[str, list[tuple[str, int, int]]] = {}
    for seam in seams:
        row, column = (0, 1) if seam.direction == "right" else (1, 0)
        steps.setdefault(seam.first, []).append((seam.second, row, column))
        steps.setdefault(seam.second, []).append((seam.first, -row, -column))
    places: dict[str, tuple[int, int]] = {}
    contradictions = 0
    for start in sorted(steps):
        if start in places:
            continue
        places[start] = (0, 0)
        group = [start]
        for name in group:  # grows while it is walked
            for other, row, column in steps[name]:
                place = (places[name][0] + row, places[name][1] + column)
                if other not in places:
                    places[other] = place
                    group.append(other)
                contradictions += places[other] != place
        contradictions += len(group) - len({places[name] for name in group})
    return places, contradictions
