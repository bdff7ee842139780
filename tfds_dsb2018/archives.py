"""Reads folders and zip files alike.

Nothing is ever extracted: zip files are read where they lie, so no entry can land elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# A root, a drive or ".." in the name of a zip entry.
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|$)")


class SourceError(OSError):
    """A source is missing, unreachable or damaged; the message names it and the remedy."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A folder, a zip file or a single file, opened for reading.

    Attributes:
        label: What to call it in messages.
        names: Its entries, as relative paths with "/".
        read: Returns the bytes of an entry; SourceError if it is damaged. Threads may share it.
    """

    label: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]


def open_archive(path: Path) -> Archive:
    """Opens a folder, a zip file or a plain file.

    Args:
        path: An existing path.

    Returns:
        The archive. A plain file is an archive with one entry.

    Raises:
        SourceError: The path cannot be read, or it is no whole zip file.

    Example:
        >>> open_archive(Path(__file__).parent).read("TAGS.txt")[:7]
        b'content'
    """
    if path.is_dir():
        names = (
            (Path(parent) / name).relative_to(path).as_posix()
            for parent, _, files in os.walk(path)
            for name in files
        )
        return Archive(str(path), tuple(names), lambda name: _read_file(path / name))
    if path.suffix == ".zip":
        return open_zip(path, str(path))
    return Archive(str(path), (path.name,), lambda name: _read_file(path))


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): make it readable.") from error


def open_zip(file: Path | BinaryIO, label: str) -> Archive:
    """Opens a zip file.

    Args:
        file: Its path, or the file opened for reading.
        label: What to call it in messages.

    Returns:
        The archive.

    Raises:
        SourceError: It is no whole zip file, or has an entry that points outside of it.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{label} is not a whole zip file ({error}). If it was cut short or is a web page, "
            "delete it and get it again."
        ) from error
    names = tuple(name for name in archive.namelist() if not name.endswith("/"))
    for name in names:
        if _OUTSIDE.match(name):
            raise SourceError(
                f"{label} has an entry that points outside of it, {name!r}: this is not the "
                "published file. Delete it and get it again."
            )

    def read(name: str) -> bytes:
        try:
            return archive.read(name)  # checks the entry's CRC-32
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise SourceError(
                f"{name} in {label} is damaged ({error}). Delete the zip file and get it again."
            ) from error

    return Archive(label, names, read)
