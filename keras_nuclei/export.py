"""Write label maps for other programs: TIFF for all, GeoJSON for QuPath, ROIs for ImageJ.

Outlines follow the edges of pixels, so that nothing is lost: filled again, they are the label map.
Every file appears under its name whole or not at all.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_nuclei.typing import ArrayLike, FilePath
from keras_nuclei.validation import as_label_map

if TYPE_CHECKING:
    import roifile

# x and y of a step to the right, down, left, up. A turn to the right adds 1, modulo 4.
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


def write_labels(path: FilePath, label_map: np.ndarray | Sequence[np.ndarray]) -> None:
    """Write label maps as TIFF, which ImageJ, QuPath, napari and scikit-image read.

    Args:
        path: File to write; replaced if it exists.
        label_map: Integers `(H, W)`; or several of such, as an array `(N, H, W)` or a sequence, a
            page each; `(N, H, 1)` as a sequence only, since `(H, W, 1)` looks the same. Written as
            uint16 if no label is above 65,535, else as uint32; zlib.

    Raises:
        TypeError: If it does not hold integers.
        ValueError: If its shape is another, or a label is negative or above 4,294,967,295.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, tifffile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels.tif")
        ...     write_labels(path, np.array([[0, 1], [2, 2]]))
        ...     tifffile.imread(path)
        array([[0, 1],
               [2, 2]], dtype=uint16)
    """
    import tifffile

    pages = _as_pages(label_map)
    highest = max(int(page.max(initial=0)) for page in pages)
    if highest > np.iinfo("uint32").max:
        raise ValueError(
            f"TIFF holds labels to {np.iinfo('uint32').max}; got {highest}. Renumber them with "
            "skimage.segmentation.relabel_sequential."
        )
    dtype = "uint16" if highest <= np.iinfo("uint16").max else "uint32"
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as writer:
        for page in pages:
            writer.write(
                page.astype(dtype), photometric="minisblack", compression="zlib", metadata=None
            )


def write_geojson(
    path: FilePath, label_map: np.ndarray | Sequence[np.ndarray], *, classification: str = "Nucleus"
) -> None:
    """Write outlines as GeoJSON, which QuPath opens as detections.

    A feature per nucleus, named by its label, with a Polygon, or a MultiPolygon where it is in
    several pieces; holes are kept. Coordinates are corners of pixels, x before y, 0 at the top
    left. Of several pages, the geometry of each names its `plane`, as QuPath does.

    Args:
        path: File to write; replaced if it exists.
        label_map: As for `write_labels`.
        classification: Name of the class that QuPath shows.

    Raises:
        TypeError: If it does not hold integers.
        ValueError: If its shape is another, or a label is negative.

    Example:
        >>> import json, pathlib, tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "nuclei.geojson")
        ...     write_geojson(path, np.array([[0, 5, 5]]))
        ...     json.loads(path.read_text())["features"][0]["geometry"]
        {'type': 'Polygon', 'coordinates': [[[1, 0], [3, 0], [3, 1], [1, 1], [1, 0]]]}
    """
    pages = _as_pages(label_map)
    features = []
    for index, page in enumerate(pages):
        for label, polygons in trace_polygons(page).items():
            geometry = _geometry(polygons)
            if len(pages) > 1:
                geometry["plane"] = {"c": -1, "z": index, "t": 0}
            properties = {
                "objectType": "detection",
                "name": str(label),
                "classification": {"name": classification},
            }
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rois(path: FilePath, label_map: np.ndarray | Sequence[np.ndarray]) -> None:
    """Write outlines as a zip file of ImageJ ROIs, which its ROI manager opens.

    A ROI per nucleus, named by its label: a traced one, or, with holes or in several pieces, a
    composite one. Of several pages, each ROI has the position of its page in the stack.

    Args:
        path: File to write; replaced if it exists.
        label_map: As for `write_labels`.

    Raises:
        TypeError: If it does not hold integers.
        ValueError: If its shape is another, or a label is negative.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, roifile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "rois.zip")
        ...     write_rois(path, np.array([[0, 5, 5], [1, 0, 0]]))
        ...     [roi.name for roi in roifile.roiread(path)]
        ['5', '1']
    """
    import roifile

    pages = _as_pages(label_map)
    rois = []
    for index, page in enumerate(pages):
        for label, polygons in trace_polygons(page).items():
            stacked = len(pages) > 1
            roi = _roi([ring for polygon in polygons for ring in polygon])
            roi.name = f"{index + 1}-{label}" if stacked else str(label)
            roi.position = index + 1 if stacked else 0
            rois.append(roi)
    with atomic_path(path) as temporary:
        roifile.roiwrite(temporary, rois, mode="w")


def trace_polygons(label_map: ArrayLike) -> dict[int, list[list[np.ndarray]]]:
    """Trace the outlines of all nuclei along the edges of their pixels.

    Polygons are valid as GeoJSON and OGC define it: no ring crosses or touches itself. A polygon
    is one piece of pixels that share edges; pieces that meet at a corner are two.

    Args:
        label_map: Integers `(H, W)`, 0 background.

    Returns:
        For each label its polygons; of a polygon its rings, the outer one first, then the holes;
        of a ring its corners `(x, y)`, int64 `(n, 2)`, without the first one repeated. The outer
        ring goes clockwise on the screen, holes go the other way.

    Raises:
        TypeError: If it does not hold integers.
        ValueError: If its shape is another, or a label is negative.

    Example:
        >>> import numpy as np
        >>> trace_polygons(np.array([[0, 7, 7]]))[7][0][0].tolist()
        [[1, 0], [3, 0], [3, 1], [1, 1]]
    """
    from skimage.measure import label

    label_map = as_label_map(label_map)
    if not label_map.any():
        return {}
    pieces = label(label_map, background=0, connectivity=1)
    label_of_piece = np.zeros(pieces.max() + 1, label_map.dtype)
    label_of_piece[pieces] = label_map

    starts, directions, piece_of_edge = _edges(pieces)
    following = _follow(starts, directions, piece_of_edge, pieces.shape[1])
    rings: dict[int, list[np.ndarray]] = {}
    for ring in _walk(following.tolist(), directions.tolist()):
        # In reading order a piece's first edge lies on its outer ring.
        rings.setdefault(int(piece_of_edge[ring[0]]), []).append(starts[ring])
    polygons: dict[int, list[list[np.ndarray]]] = {}
    for piece, of_piece in rings.items():
        polygons.setdefault(int(label_of_piece[piece]), []).append(of_piece)
    return polygons


@contextlib.contextmanager
def atomic_path(path: FilePath) -> Iterator[Path]:
    """Offer a path to write to that becomes `path` if all goes well, and vanishes if not.

    Args:
        path: The file that is to appear, or to be replaced, at once.

    Yields:
        A path in the same folder.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(pathlib.Path(folder, "a.txt")) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [file.name for file in pathlib.Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_pages(label_map: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
    if isinstance(label_map, np.ndarray) and label_map.ndim == 3 and label_map.shape[-1] == 1:
        raise ValueError(
            "Label maps must have the shape (H, W), or (N, H, W) of several pages; got "
            f"{label_map.shape}. Pass label_map[..., 0] of one with a channel axis, or "
            "list(label_maps) of pages that are one pixel wide."
        )
    if isinstance(label_map, np.ndarray) and label_map.ndim != 3:
        label_map = [label_map]
    if len(label_map) == 0:
        raise ValueError("Got no label map to write, expected at least one of shape (H, W).")
    return [as_label_map(page) for page in label_map]


def _edges(pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges between each piece and anything else, with the piece to the right of each.

    Returns:
        Starts `(x, y)`, int64 `(n, 2)`; directions, 0..3 as in `_STEPS`; and pieces, both `(n,)`.
        In reading order of the starts.
    """
    padded = np.pad(pieces, 1)
    inner = padded[1:-1, 1:-1]
    # What lies beyond the top, right, bottom and left edge, and where each starts, clockwise.
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    found: tuple[list[np.ndarray], ...] = ([], [], [])
    for direction, (other, corner) in enumerate(zip(beyond, corners, strict=True)):
        y, x = np.nonzero((inner != other) & (inner > 0))
        found[0].append(np.stack([x, y], axis=-1) + corner)
        found[1].append(np.full(len(x), direction))
        found[2].append(inner[y, x])
    starts, directions, owners = map(np.concatenate, found)
    order = np.argsort(_keys(starts, directions, pieces.shape[1]))
    return starts[order], directions[order], owners[order]


def _keys(starts: np.ndarray, directions: np.ndarray, width: int) -> np.ndarray:
    """A number for each edge, rising in reading order. There is one edge at most per number."""
    return (starts[:, 1] * (width + 1) + starts[:, 0]) * 4 + directions


def _follow(
    starts: np.ndarray, directions: np.ndarray, owners: np.ndarray, width: int
) -> np.ndarray:
    """The index of the edge that each edge leads to.

    Where pixels of one piece meet at a corner only, two edges lead on. To turn left is to keep to
    the same pixel on the other side. The two pixels there are parted by the piece, so each ring
    is the border with one part of what is outside, and passes no corner twice.
    """
    keys = _keys(starts, directions, width)
    ends = starts + _STEPS[directions]
    following = np.full(len(keys), -1)
    for turn in (1, 0, -1):  # the later ones overrule the earlier ones
        turned = (directions + turn) % 4
        wanted = _keys(ends, turned, width)
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = (keys[found] == wanted) & (owners[found] == owners)
        following[hit] = found[hit]
    return following


def _walk(following: list[int], directions: list[int]) -> Iterator[list[int]]:
    """Yield the rings in reading order, each as the edges that follow a turn."""
    seen = bytearray(len(following))
    for first in range(len(following)):
        ring, edge = [], first
        while not seen[edge]:
            seen[edge] = True
            after = following[edge]
            if directions[after] != directions[edge]:
                ring.append(after)
            edge = after
        if ring:
            # The first edge of all starts at a corner, and was met last.
            yield ring[-1:] + ring[:-1]


def _geometry(polygons: list[list[np.ndarray]]) -> dict:
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _roi(rings: list[np.ndarray]) -> "roifile.ImagejRoi":
    import roifile

    # Sets the bounds, and floats beside the integers where those of ImageJ end.
    roi = roifile.ImagejRoi.frompoints(np.concatenate(rings))
    roi.right, roi.bottom = roi.right - 1, roi.bottom - 1  # corners of pixels, not pixels
    if len(rings) == 1:
        roi.roitype = roifile.ROI_TYPE.TRACED
        return roi
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.integer_coordinates = roi.subpixel_coordinates = None
    roi.n_coordinates = 0
    path = []
    for ring in rings:
        path += [0, *ring[0]]  # move to
        for corner in ring[1:]:
            path += [1, *corner]  # line to
        path += [4]  # close
    roi.multi_coordinates = np.array(path, "float32")
    roi.shape_roi_size = len(path)
    return roi
