"""What to segment and what the results are called: no two images write to one file."""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_PAGE = re.compile(r"(.+)_page[1-9][0-9]*")


@dataclasses.dataclass(frozen=True)
class Job:
    """One image to segment.

    Attributes:
        source: The file to read.
        name: What the names of its results begin with; unique in the folder.

    Example:
        >>> Job(Path("day1/a.tif"), "a").name
        'a'
    """

    source: Path
    name: str

    def identity(self) -> dict:
        """What tells at a glance that the file is the one that was read before."""
        status = self.source.stat()
        return {
            "source": str(self.source.resolve()),
            "size": status.st_size,
            "modified_ns": status.st_mtime_ns,
        }

    def digest(self) -> str:
        """The SHA-256 of what the file holds, wherever it lies and whenever it was written."""
        return sha256(self.source)


def sha256(path: Path) -> str:
    """The SHA-256 of what a file holds, in hexadecimal digits.

    Args:
        path: The file.

    Returns:
        64 digits.

    Raises:
        OSError: If it can't be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv")
        ...     _ = path.write_text("image")
        ...     sha256(path)[:8]
        '6105d6cc'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_jobs(sources: Iterable[Path], earlier: Mapping[Path, str] | None = None) -> list[Job]:
    """Name each image by its file's stem, or by folder, stem and suffix where stems clash.

    Equal stems clash, and one with another and a page after it: the overlay of page 1 of `b.tif`
    and that of `b_page1.png` would be the same file. Where the folders are of one name, too, those
    that they lie in come before them.

    Args:
        sources: Files. One that is named twice counts once.
        earlier: Names that images have in the folder of results: see `ResultFolder.names`. They
            keep them, whatever images come along later. The name of an image that is gone may be
            taken: it may be the same one, moved.

    Returns:
        Jobs in the same order, no two of a name, upper and lower case taken as the same.

    Raises:
        ValueError: If names clash all the same, as those of files that differ in upper and lower
            case alone.

    Example:
        >>> [job.name for job in name_jobs([Path("day1/a.tif"), Path("day2/a.tif"), Path("b.png")])]
        ['day1_a_tif', 'day2_a_tif', 'b']
    """
    sources = list({source.resolve(): source for source in sources}.values())
    stems = collections.Counter(source.stem.casefold() for source in sources)
    earlier = earlier or {}
    known = {name.casefold() for name in earlier.values()}
    paged = {without_page(name) for name in known}
    present = {name.casefold() for source, name in earlier.items() if source.exists()}
    others = known.union(stems)
    names, clashing = {}, []
    for source in sources:
        stem = source.stem.casefold()
        if source.resolve() in earlier:
            names[source] = earlier[source.resolve()]
        elif stems[stem] > 1 or stem in present or stem in paged or without_page(stem) in others:
            clashing.append(source)
        else:
            names[source] = source.stem
    names |= _long_names(clashing, present.union(map(str.casefold, names.values())))
    jobs = [Job(source, names[source]) for source in sources]
    _refuse_equal_names(jobs)
    return jobs


def _long_names(sources: list[Path], taken: set[str]) -> dict[Path, str]:
    """Folder, stem and suffix of each; more folders where that is another's name or taken."""
    places = {source: source.resolve() for source in sources}
    depths = dict.fromkeys(sources, 1)
    while True:
        names = {
            source: "_".join([*place.parts[1:-1][-depths[source] :], place.stem, place.suffix[1:]])
            for source, place in places.items()
        }
        counts = collections.Counter(name.casefold() for name in names.values())
        unclear = [
            source
            for source, name in names.items()
            if (counts[name.casefold()] > 1 or name.casefold() in taken)
            and depths[source] < len(places[source].parts)
        ]
        if not unclear:
            return names
        for source in unclear:
            depths[source] += 1


def _refuse_equal_names(jobs: list[Job]) -> None:
    named: dict[str, Job] = {}
    for job in jobs:
        other = named.setdefault(job.name.casefold(), job)
        if other is not job:
            raise ValueError(
                f"The results of {other.source} and {job.source} would have the same name. Rename "
                "one, or segment them into two folders."
            )


def without_page(name: str) -> str | None:
    """What comes before `_page` and a number; None where a name does not end like that."""
    match = _PAGE.fullmatch(name)
    return match and match[1]


def output_names(name: str, num_pages: int = 1) -> dict[str, list[str]]:
    """The files of each format for an image.

    Args:
        name: Of the job.
        num_pages: Of several pages, each has an overlay.

    Returns:
        Names of files by format.

    Example:
        >>> output_names("a")["tiff"]
        ['a_labels.tif']
        >>> output_names("a", num_pages=2)["png"]
        ['a_page1_overlay.png', 'a_page2_overlay.png']
    """
    overlays = [f"{name}_overlay.png"]
    if num_pages > 1:
        overlays = [f"{name}_page{page}_overlay.png" for page in range(1, num_pages + 1)]
    return {
        "tiff": [f"{name}_labels.tif"],
        "png": overlays,
        "geojson": [f"{name}.geojson"],
        "roi": [f"{name}_rois.zip"],
    }
