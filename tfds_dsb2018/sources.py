"""Finds the published files, as folders, zip files or downloads, and reads images from them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import requests
import tensorflow_datasets as tfds

from tfds_dsb2018 import masks, strips
from tfds_dsb2018.archives import Archive, SourceError, open_archive, open_zip

_LOGGER = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "DSB2018_DIR"
_COMPETITION = "data-science-bowl-2018"
_CORRECTION = "kaggle-dsbowl-2018-dataset-fixes"
_PROBE_SECONDS = 8

# <image id>/images/<image id>.png and <image id>/masks/<any name>.png, below any folder.
_ENTRY = re.compile(r"(?:^|/)([0-9a-f]{64})/(images|masks)/[^./][^/]*\.png$")

# Reads one image: RGB uint8 (H, W, 3) and label map uint16 (H, W).
Reader = Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the data set.

    Attributes:
        names: File or folder names under which users have it, in order of preference.
        url: Where it is published.
    """

    names: tuple[str, ...]
    url: str


_BBBC = "https://data.broadinstitute.org/bbbc/BBBC038"
TRAIN = Part(("stage1_train", "stage1_train.zip"), f"{_BBBC}/stage1_train.zip")
TEST = Part(("stage1_test", "stage1_test.zip"), f"{_BBBC}/stage1_test.zip")
SOLUTION = Part(("stage1_solution.csv", "stage1_solution.csv.zip"), f"{_BBBC}/stage1_solution.csv")
FIXES = Part(
    (
        "annotation_fixes",
        "annotation_fixes.zip",
        _CORRECTION,
        f"{_CORRECTION}-master",
        f"{_CORRECTION}-master.zip",
    ),
    f"https://github.com/lopuhin/{_CORRECTION}/archive/refs/heads/master.zip",
)

ROUTES = f"""\
Any one of these routes provides the files:
  1. Put stage1_train.zip, stage1_test.zip and stage1_solution.csv (from {_BBBC}/,
     or Kaggle's {_COMPETITION}.zip, or these extracted) into a folder and pass it:
     `python -m tfds_dsb2018 prepare --source FOLDER`, or TFDS's `manual_dir`,
     by default <data_dir>/downloads/manual.
  2. Name that folder in the environment variable {ENVIRONMENT_VARIABLE}.
  3. Go online: what is missing is downloaded from {_BBBC}/.
The config stage1_fixed also needs {_CORRECTION}-master.zip (from
{FIXES.url})
or a checkout of that repository.
Without any files, the config `dsb2018/synthetic` works."""


def find(part: Part, dl_manager: tfds.download.DownloadManager) -> Archive:
    """Finds a part: the manual folder first, then the environment variable, then a download.

    Args:
        part: What to find.
        dl_manager: TFDS's download manager; it knows the manual folder and downloads.

    Returns:
        The part, opened.

    Raises:
        SourceError: It is nowhere to be had, or damaged.
    """
    for folder in _local_folders(dl_manager):
        archive = _find_in(folder, part)
        if archive:
            _LOGGER.info("Reading %s", archive.label)
            return archive
    return open_archive(_download(part.url, dl_manager))


def _local_folders(dl_manager: tfds.download.DownloadManager) -> list[Path]:
    folders = []
    # The errors are TFDS's way to say that there is no such folder, or nothing in it.
    with contextlib.suppress(AssertionError, ValueError):
        folders.append(Path(os.fspath(dl_manager.manual_dir)))
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise SourceError(
                f"{ENVIRONMENT_VARIABLE}={named} is not a folder: correct it or unset it.\n{ROUTES}"
            )
        folders.append(folder)
    return folders


def _find_in(folder: Path, part: Part) -> Archive | None:
    """Looks for a part in a folder, in BBBC038's or Kaggle's layout."""
    for place in (folder, folder / _COMPETITION):
        for name in part.names:
            if (place / name).exists():
                return open_archive(place / name)
    competition = folder / f"{_COMPETITION}.zip"
    if competition.exists():
        outer = open_archive(competition)
        for name in part.names:
            if name in outer.names:
                label = f"{name} in {outer.label}"
                data = outer.read(name)
                if name.endswith(".zip"):
                    return open_zip(io.BytesIO(data), label)
                return Archive(label, (name,), lambda _, data=data: data)  # type: ignore[misc]  # mypy misses the default
    return None


def _download(url: str, dl_manager: tfds.download.DownloadManager) -> Path:
    """Downloads a file through TFDS, which caches it and checks recorded checksums."""
    # TFDS tries for minutes before it gives up: ask first whether the server answers.
    try:
        response = requests.head(url, timeout=_PROBE_SECONDS, allow_redirects=True)
        # Some servers forbid HEAD; then the download itself will tell.
        if response.status_code not in (403, 405, 501):
            response.raise_for_status()
    except requests.RequestException as error:
        cached = _cached_download(url, dl_manager)
        if cached:
            return cached
        raise SourceError(f"{url} cannot be reached ({error}).\n{ROUTES}") from error
    try:
        return Path(os.fspath(dl_manager.download(url)))
    except (
        OSError,  # requests' exceptions are of this kind
        tfds.download.DownloadError,
        tfds.download.NonMatchingChecksumError,
    ) as error:
        raise SourceError(f"Downloading {url} failed: {error}\n{ROUTES}") from error


def _cached_download(url: str, dl_manager: tfds.download.DownloadManager) -> Path | None:
    """Finds an earlier download, by the notes that TFDS keeps beside its downloads."""
    for note in Path(os.fspath(dl_manager.download_dir)).rglob("*.INFO"):
        file = note.with_suffix("")
        # A note that a kill left half written says nothing.
        with contextlib.suppress(ValueError, OSError):
            if url in json.loads(note.read_text()).get("urls", ()) and file.exists():
                return file
    return None


def train_readers(archive: Archive, fixes: Archive | None = None) -> dict[str, Reader]:
    """Finds the annotated images of an archive with one PNG file per nucleus.

    Nuclei are numbered by the sorted names of their mask files.

    Args:
        archive: Entries `<image id>/images/*.png` and `<image id>/masks/*.png`, below any folder.
        fixes: The same; where it has masks of an image, they replace all those of `archive`.

    Returns:
        By image id, a function that reads image and label map, and raises ValueError or
        SourceError if a file is damaged.
    """
    images, annotations = _index(archive)
    chosen = {image_id: (archive, names) for image_id, names in annotations.items()}
    if fixes:
        chosen |= {image_id: (fixes, names) for image_id, names in _index(fixes)[1].items()}
    return {
        image_id: functools.partial(_read_masks, archive, name, *chosen[image_id])
        for image_id, name in images.items()
        if image_id in chosen
    }


def test_readers(archive: Archive, solution: Archive) -> dict[str, Reader]:
    """Finds the images of an archive that a table of run lengths annotates.

    Nuclei are numbered in the order of their rows.

    Args:
        archive: Entries `<image id>/images/*.png`, below any folder.
        solution: Holds `stage1_solution.csv` with the columns ImageId, EncodedPixels, Height
            and Width.

    Returns:
        As `train_readers`.

    Raises:
        SourceError: The table is not what it should be.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    name = next((name for name in solution.names if name.endswith("stage1_solution.csv")), None)
    # A downloaded file has a name of TFDS's making, but is alone in its archive.
    text = solution.read(name or solution.names[0]).decode("utf-8-sig", errors="replace")
    table = csv.DictReader(io.StringIO(text))
    needed = {"ImageId", "EncodedPixels", "Height", "Width"}
    if not needed <= set(table.fieldnames or ()):
        raise SourceError(
            f"{solution.label} must have the columns {sorted(needed)}, got {table.fieldnames}. "
            "Get it again."
        )
    for row in table:
        rows.setdefault(row["ImageId"], []).append(row)
    return {
        image_id: functools.partial(_read_rows, archive, name, solution.label, rows[image_id])
        for image_id, name in _index(archive)[0].items()
        if image_id in rows
    }


def _index(archive: Archive) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sorts an archive's entries into the image and the mask files of each image id."""
    images: dict[str, str] = {}
    annotations: dict[str, list[str]] = {}
    for name in sorted(archive.names):
        match = _ENTRY.search(name)
        if not match or name.startswith("__MACOSX/"):
            continue
        if match[2] == "images":
            images[match[1]] = name
        else:
            annotations.setdefault(match[1], []).append(name)
    return images, annotations


def _read_masks(
    archive: Archive, name: str, mask_archive: Archive, mask_names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    image = masks.decode_png(archive.read(name), f"{name} in {archive.label}")
    shape = image.shape[:2]

    def decode(mask_name: str) -> tuple[str, int, np.ndarray]:
        where = f"{mask_name} in {mask_archive.label}"
        return where, *strips.decode_strip(mask_archive.read(mask_name), where, shape)

    return image, masks.merge_masks(map(decode, mask_names), shape)


def _read_rows(
    archive: Archive, name: str, table: str, rows: list[dict[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    image = masks.decode_png(archive.read(name), f"{name} in {archive.label}")
    shape = image.shape[:2]

    def decode(numbered: tuple[int, dict[str, str]]) -> tuple[str, int, np.ndarray]:
        number, row = numbered
        where = f"nucleus {number} of image {row['ImageId']} in {table}"
        if (row["Height"], row["Width"]) != (str(shape[0]), str(shape[1])):
            raise ValueError(
                f"{where} is drawn on {row['Height']} x {row['Width']} pixels (height x width), "
                f"but {name} in {archive.label} has {shape[0]} x {shape[1]}: get both again."
            )
        return where, 0, masks.decode_rle(row["EncodedPixels"] or "", shape, where)

    return image, masks.merge_masks(map(decode, enumerate(rows, start=1)), shape)
