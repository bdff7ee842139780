"""What the command `keras-nuclei` is asked for: its arguments, and the images that they name."""

import argparse
import fnmatch
import functools
import glob
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from keras_nuclei import __version__
from keras_nuclei.instances import THRESHOLD
from keras_nuclei.maps import VIEWS
from keras_nuclei.tiling import GRID, TILE_SIZE

FORMATS = ("tiff", "png", "geojson", "roi", "csv")
"""What `--formats` may name."""

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
"""What is taken of a folder; a file that is named is read whatever its suffix."""

Number = TypeVar("Number", int, float)


def find_images(
    patterns: Sequence[str], results_in: Callable[[Path], set[Path]]
) -> tuple[list[Path], list[str]]:
    """Find the images that patterns name, but for the results of earlier runs among them.

    Hidden files, and those in hidden folders, are left out where neither is named.

    Args:
        patterns: Files, folders, and patterns that the shell has left as they are.
        results_in: Called once with each folder of images; returns the absolute paths of the
            results of earlier runs in it.

    Returns:
        The images, and of each pattern that names none what is wrong with it.

    Raises:
        ValueError: If there is no image at all.

    Example:
        >>> find_images(["no/such.tif"], lambda folder: set())
        Traceback (most recent call last):
        ...
        ValueError: Nothing to segment: no/such.tif is neither a file, nor a folder that holds
        images (.tif, .tiff, .png, .jpg, .jpeg, .bmp, .gif, .webp), nor a pattern that any match.
    """
    results_in = functools.cache(results_in)
    found, failures = [], []
    for pattern in patterns:
        if not pattern:  # as of a variable that is not set; Path takes it for the folder one is in
            failures.append("'' is the name of no file and no folder.")
            continue
        try:
            path = _at(pattern)
            if images := [path] if path.is_file() else _images_in(path):
                places = zip(images, map(Path.resolve, images), strict=True)
                found += [image for image, at in places if at not in results_in(at.parent)]
            elif path.is_dir() and any(each.is_dir() for each in path.iterdir()):
                inside = Path(glob.escape(str(path))) / "**" / "*"
                failures.append(
                    f"{pattern} is a folder that holds no images itself ({', '.join(SUFFIXES)}). "
                    f"For those in the folders inside it, pass '{inside}'."
                )
            else:
                failures.append(
                    f"{pattern} is neither a file, nor a folder that holds images "
                    f"({', '.join(SUFFIXES)}), nor a pattern that any match."
                )
        # As of a folder that may not be read, of a pattern that is none, such as a**b, or of a home
        # of nobody, such as ~nosuchuser.
        except (ValueError, OSError, RuntimeError) as error:
            failures.append(f"{pattern}: {error}")
    if not found:
        reasons = failures or ["all files named are results of earlier runs."]
        raise ValueError(f"Nothing to segment: {' '.join(reasons)}")
    return found, failures


def _at(name: str) -> Path:
    """What a name leads to: the shell has left ~ as it is in a pattern, and after an =."""
    path = Path(name)
    return path if path.exists() else path.expanduser()


def _images_in(path: Path) -> list[Path]:
    """The images in a folder, or those that match a pattern."""
    candidates = path.iterdir() if path.is_dir() else _expand(path)
    return [
        candidate
        for candidate in sorted(candidates)
        if candidate.suffix.lower() in SUFFIXES
        and candidate.is_file()
        and not _is_hidden(candidate, path)
    ]


def _is_hidden(candidate: Path, pattern: Path) -> bool:
    """Whether a file or a folder around it is hidden, and was not asked for by its dot."""
    asked = [part for part in pattern.parts if part.startswith(".")]
    hidden = [part for part in candidate.parts if part.startswith(".")]
    return not all(
        part in asked or any(fnmatch.fnmatch(part, each) for each in asked) for part in hidden
    )


def _expand(pattern: Path) -> Iterable[Path]:
    """What matches a pattern that the shell has left as it is, as that of Windows does."""
    return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line.

    Returns:
        For `segment`, the parsed arguments hold a function `refuse`, which tells of an error and
        ends the process with code 2.

    Example:
        >>> make_parser().parse_args(["segment", "a.tif", "--output", "out"]).formats
        ['tiff', 'png', 'geojson', 'roi', 'csv']
    """
    parser = argparse.ArgumentParser(
        prog="keras-nuclei", description="Finds the nuclei in microscopy images."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models", help="list the trained models that come with the package")
    segment = commands.add_parser(
        "segment",
        help="segment images",
        description="Writes label images, outlines, a table of all nuclei and one of all images. "
        "Run again, it goes on where it stopped.",
    )
    segment.set_defaults(refuse=segment.error)
    add = segment.add_argument
    add(
        "images",
        nargs="+",
        help="files, folders (without those inside them) or patterns such as 'day1/*.tif', or "
        "'day1/**/*' for the folders inside, too",
    )
    add("--output", type=_folder, required=True, metavar="FOLDER", help="for the results")
    add(
        "--model",
        type=_model,
        default="nuclei_base",
        help="name or .keras file (default: %(default)s)",
    )
    size = segment.add_mutually_exclusive_group()
    size.add_argument(
        "--diameter", type=_positive, help="of a typical nucleus, in pixels (default: estimated)"
    )
    size.add_argument("--scale", type=_positive, help="times larger that the model sees the image")
    add(
        "--threshold",
        type=_probability,
        default=THRESHOLD,
        help="the probability above which a pixel is nucleus: lower for wider nuclei, higher for "
        "narrower ones (default: %(default)s)",
    )
    add(
        "--channel",
        type=_index,
        help="the nuclear stain of several channels, counted from 0; a TIFF stack of three or four "
        "pages has channels, not pages, where it was saved as RGB",
    )
    add("--pixel-size", type=_positive, help="in micrometres, for areas in square micrometres")
    add(
        "--formats",
        type=_formats,
        default=",".join(FORMATS),
        help="what to write, joined by commas (default: %(default)s)",
    )
    add(
        "--augmentations",
        type=int,
        choices=VIEWS,
        default=1,
        help="views whose maps are averaged: 1, 4 or 8 flips and turns, 3 sizes, or 12, which is 4 "
        "flips in 3 sizes (default: %(default)s)",
    )
    add(
        "--tile-size",
        type=_tile_size,
        default=TILE_SIZE,
        help="of what the model sees at once, in pixels: smaller takes less memory, and nuclei at "
        "the seams may differ from those of the whole image (default: %(default)s)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="start anew; deletes the results of other settings that the folder holds, and "
        "replaces tables that were edited",
    )
    return parser


def _number(text: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"must be {wanted}; got {text!r}") from None


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a folder; got ''")
    return _at_home(text)


def _model(text: str) -> str:
    return str(_at_home(text)) if text.endswith(".keras") else text


def _at_home(text: str) -> Path:
    try:
        return _at(text)
    except RuntimeError as error:  # there is no such home
        raise argparse.ArgumentTypeError(f"{error} Got {text!r}.") from None


def _positive(text: str) -> float:
    number = _number(text, float)
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {text}")
    return number


def _probability(text: str) -> float:
    number = _number(text, float)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and below 1; got {text}")
    return number


def _index(text: str) -> int:
    number = _number(text, int)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above; got {text}")
    return number


def _tile_size(text: str) -> int:
    number = _number(text, int)
    # Of smaller ones little would be left between the overlaps, which lie on the grid.
    if number < 128 or number % GRID:
        raise argparse.ArgumentTypeError(f"must be a multiple of {GRID}, 128 or above; got {text}")
    return number


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"must be some of {','.join(FORMATS)}, joined by commas; got {text!r}"
        )
    return [name for name in FORMATS if name in names]
