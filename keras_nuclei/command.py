"""The command `keras-nuclei`: segment files and folders of images, without a line of code."""

import argparse
import contextlib
import functools
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import keras
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from keras_nuclei import __version__, export
from keras_nuclei.arguments import find_images, make_parser
from keras_nuclei.diameters import check_size
from keras_nuclei.images import read_pages
from keras_nuclei.jobs import Job, name_jobs, output_names
from keras_nuclei.maps import check_model
from keras_nuclei.measure import measure, overlay
from keras_nuclei.presets import PRESETS
from keras_nuclei.results import TABLES, ResultFolder
from keras_nuclei.runtimes import fastest
from keras_nuclei.segmentation import largest_whole, segment

if TYPE_CHECKING:
    import pandas

# Arguments that say where to work, not how.
_NO_SETTINGS = ("command", "refuse", "images", "output", "overwrite")
# Nuclei of one image differ as much, but not their median from what was looked for.
_DOUBTFUL_RATIO = 2.5


def main(argv: Sequence[str] | None = None, *, load_segmenter: Callable | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; None means those of the process.
        load_segmenter: Called once with the parsed arguments; returns a function from an image to
            a label map. None loads the model that the arguments name.

    Returns:
        Exit code: 0 all good, 1 something failed and the rest is done (an image, a table, or one
            of several arguments, which named no image), 130 interrupted.

    Raises:
        SystemExit: With code 2, where the arguments are wrong, there is no image at all, or results
            would be lost.

    Example:
        >>> main(["models"])  # doctest: +ELLIPSIS
        nuclei_...
        0
    """
    arguments = make_parser().parse_args(argv)
    if arguments.command == "models":
        return _list_models()
    # What the library logs is to be seen, and to leave the progress bar in one piece.
    with logging_redirect_tqdm([logging.getLogger("keras_nuclei")]):
        return _run(arguments, load_segmenter or _load_segmenter)


def _run(arguments: argparse.Namespace, load_segmenter: Callable) -> int:
    """What `main` does for `segment`."""
    try:
        jobs, waiting, folder, segmenter, failures = _prepare(arguments, load_segmenter)
    except (ValueError, OSError) as error:
        arguments.refuse(str(error))
    except KeyboardInterrupt:
        _say("Interrupted before this run's first image.", sys.stderr)
        return 130
    try:
        return _segment_all(jobs, waiting, folder, segmenter, failures, arguments)
    except KeyboardInterrupt:
        command = "same command without --overwrite" if arguments.overwrite else "same command"
        _say(f"Interrupted. The {command} goes on where this one stopped.", sys.stderr)
        return 130
    finally:
        folder.close()


def _check_model(model: str) -> None:
    if model not in PRESETS and not (model.endswith(".keras") and Path(model).is_file()):
        raise ValueError(
            f"--model {model} is neither one of {', '.join(PRESETS)} nor a .keras file that exists."
        )


def _settings(arguments: argparse.Namespace) -> dict:
    settings = {key: value for key, value in vars(arguments).items() if key not in _NO_SETTINGS}
    if arguments.model in PRESETS:
        settings["sha256"] = PRESETS[arguments.model].sha256
    if arguments.model.endswith(".keras"):
        status = Path(arguments.model).stat()
        settings["model"] = str(Path(arguments.model).resolve())
        settings["model_file"] = [status.st_size, status.st_mtime_ns]
    return {**settings, "version": __version__}


def _prepare(
    arguments: argparse.Namespace, load_segmenter: Callable
) -> tuple[list[Job], list[Job], ResultFolder, Callable | None, list[str]]:
    """Find out all that can be wrong before the folder is touched; open it last.

    Returns:
        All images, those that are still to be segmented, the folder, what segments, and what is
        wrong with arguments that name no image.
    """
    _check_model(arguments.model)
    check_size(arguments.diameter, arguments.scale)
    folder = ResultFolder(arguments.output, _settings(arguments))
    images, failures = find_images(
        arguments.images, lambda path: ResultFolder(path, settings={}).outputs()
    )
    jobs = name_jobs(images, folder.names())
    overwrite = arguments.overwrite
    folder.check(jobs, overwrite=overwrite)
    waiting = [job for job in jobs if overwrite or not _is_complete(job, folder)]
    segmenter = load_segmenter(arguments) if waiting else None
    if deleted := folder.open(jobs, overwrite=overwrite):
        _say(f"Deleted the results of {len(deleted)} not named now, which were of other settings.")
    return jobs, waiting, folder, segmenter, failures


def _is_complete(job: Job, folder: ResultFolder) -> bool:
    try:
        return folder.is_complete(job)
    except OSError:  # the image can't be read: it is to fail among the others, by its name
        return False


def _load_segmenter(arguments: argparse.Namespace) -> Callable:
    try:
        if arguments.model.endswith(".keras"):
            model = keras.saving.load_model(arguments.model, compile=False)
        else:
            model = fastest(arguments.model)
    # A damaged file fails with whatever goes wrong first: BadZipFile, KeyError, ...
    except Exception as error:
        raise ValueError(
            f"The model {arguments.model} can't be loaded ({type(error).__name__}: {error}). "
            "Choose another one with --model, or restore its file."
        ) from error
    try:
        check_model(model)
    except ValueError as error:
        raise ValueError(f"--model {arguments.model} is of no use here. {error}") from error
    names = ("diameter", "scale", "threshold", "tile_size", "augmentations")
    options = {name: getattr(arguments, name) for name in names}

    def segment_one(image: np.ndarray) -> np.ndarray:
        # A bar of its own for what takes minutes.
        in_tiles = image.shape[0] * image.shape[1] > largest_whole(arguments.scale) ** 2
        progress = in_tiles and sys.stderr.isatty()
        return segment(image, model, progress=progress, **options)

    return segment_one


def _segment_all(
    jobs: list[Job],
    waiting: list[Job],
    folder: ResultFolder,
    segmenter: Callable | None,
    other_failures: list[str],
    arguments: argparse.Namespace,
) -> int:
    if len(waiting) < len(jobs):
        _say(f"{len(jobs) - len(waiting)} of {len(jobs)} images are complete already.")
    failures = []
    # None: no bar where stderr is a file.
    for job in tqdm(waiting, unit="image", disable=None):
        try:
            folder.refuse_changed(job)
            # There is a segmenter where any job is waiting.
            _say(_segment_one(job, folder, arguments, segmenter))  # type: ignore[arg-type]
        # Whatever is wrong with one image, the others are still to be done.
        except Exception as error:
            text = _explain(error)
            named = text.startswith(str(job.source)) or getattr(error, "filename", None)
            failures.append(text if named else f"{job.source}: {text}")
    for table in TABLES if "csv" in arguments.formats else ():
        try:
            if path := folder.write_table(table):
                _say(f"The table of all {table} is {path}")
        except ValueError as error:  # it has been edited
            other_failures.append(str(error))
        except OSError as error:  # as where a spreadsheet holds the old one open
            other_failures.append(f"{table}.csv: {_explain(error)} Run the same command once more.")
    if others := folder.others(jobs):
        some = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        tables = ", and so do its tables" if "csv" in arguments.formats else ""
        _say(
            f"{folder.path} also holds the results of {len(others)} not named now ({some})"
            f"{tables}. To be without them, choose another folder."
        )
    _say_failures(f"Of {len(jobs)} images, these failed:", failures)
    _say_failures("Apart from images, these failed:", other_failures)
    return 1 if failures or other_failures else 0


def _say_failures(title: str, failures: list[str]) -> None:
    if failures:
        _say("\n  ".join([title, *failures]), sys.stderr)


def _explain(error: Exception) -> str:
    """Its text, and before it the type where the text alone may say little or nothing."""
    if isinstance(error, (ValueError, OSError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _segment_one(
    job: Job, folder: ResultFolder, arguments: argparse.Namespace, segmenter: Callable
) -> str:
    """Segment one file, write its results, and return a line that sums them up."""
    import pandas as pd

    _require_utf8(job.source)
    before = job.identity()
    pages = read_pages(job.source)
    views = _by_page(lambda page: _nuclear_channel(page, arguments.channel), pages)
    label_maps = _by_page(lambda view: np.asarray(segmenter(view)), views)
    if all(page.ndim == 2 or _is_grey_in_colour(page) for page in pages):
        pages = [page if page.ndim == 2 else page[..., 0] for page in pages]
    measure_page = functools.partial(measure, pixel_size=arguments.pixel_size)
    tables, counts = [], []
    for number, table in enumerate(_by_page(measure_page, label_maps, pages), start=1):
        place = {"image": job.name, "page": number}
        read = {"file": str(job.source.resolve())}
        counts.append(place | _summary(table, label_maps[number - 1].size) | read)
        table = table.reset_index()
        for column, (name, value) in enumerate(place.items()):
            table.insert(column, name, value)
        tables.append(table)
    # Of pages without nuclei the dtypes would be lost: they have columns only.
    table = pd.concat([one for one in tables if len(one)] or tables[:1])
    names = output_names(job.name, len(pages))
    names = {key: files for key, files in names.items() if key in arguments.formats}
    outputs = [name for files in names.values() for name in files]
    if job.identity() != before:
        raise ValueError("it changed while it was segmented: run the same command once more")
    folder.start(job, outputs)
    _write(folder.path, names, views, label_maps, tables)
    rows = {"nuclei": table, "images": pd.DataFrame(counts)}
    folder.finish(
        job,
        outputs,
        {name: each.to_csv(index=False, lineterminator="\n") for name, each in rows.items()},
    )
    line = f"{job.source}: {len(table)} {'nucleus' if len(table) == 1 else 'nuclei'}"
    if len(pages) > 1:
        line += f" on {len(pages)} pages"
    if len(table):
        doubt = _doubt(table.equivalent_diameter.median(), arguments.diameter)
        return f"{line}, median area {table.area_px.median():g} pixels{doubt}"
    if all(page.min() == page.max() for page in views):
        return f"{line}: all its pixels are equal"
    return f"{line}; if you see some, {_advice(arguments, any(page.ndim == 3 for page in pages))}"


def _require_utf8(path: Path) -> None:
    """Refuse a name that no table could hold before an image is segmented in vain."""
    try:
        f"{path} {path.resolve()}".encode()  # where one is a link, the other may be text alone
    except UnicodeEncodeError:
        raise ValueError(
            "its name, or that of a folder that it is in, is not encoded as UTF-8: rename it"
        ) from None


def _doubt(found: float, diameter: float | None) -> str:
    """That nuclei measure something else than was said, if so: numbers are easily mistyped."""
    if diameter is None or max(found / diameter, diameter / found) < _DOUBTFUL_RATIO:
        return ""
    return f"; these are about {found:.0f} pixels across, and --diameter is {diameter:g}"


def _advice(arguments: argparse.Namespace, has_channels: bool) -> str:
    """What may help where nothing was found, of what was not said."""
    unsaid = []
    if arguments.diameter is None and arguments.scale is None:
        unsaid.append("how large they are (--diameter)")
    if arguments.channel is None and has_channels:
        unsaid.append("which channel shows them (--channel)")
    if unsaid:
        return f"say {' or '.join(unsaid)}"
    size = "--scale" if arguments.diameter is None else "--diameter"
    return f"try another {size}, or a lower --threshold"


def _by_page(function: Callable, *lists: list) -> list:
    """What a function makes of each page; of several, an error names the one that it is about."""
    results = []
    for number, values in enumerate(zip(*lists, strict=True), start=1):
        try:
            results.append(function(*values))
        except Exception as error:
            if len(lists[0]) == 1:
                raise
            text = f"page {number} of {len(lists[0])}: {_explain(error)}"
            raise ValueError(text) from error
    return results


def _summary(table: "pandas.DataFrame", num_pixels: int) -> dict:
    """What `images.csv` says of a page, by the table of its nuclei: zero is a count, too."""
    areas = [name for name in ("area_px", "area_um2") if name in table]
    return {
        "nuclei": len(table),
        "covered": table["area_px"].sum() / max(1, num_pixels),
        **{f"median_{name}": table[name].median() for name in areas},
    }


def _is_grey_in_colour(page: np.ndarray) -> bool:
    """Whether all pixels are grey, though they are stored as RGB: one intensity is measured."""
    return page.shape[2:] == (3,) and bool((page == page[..., :1]).all())


def _nuclear_channel(page: np.ndarray, channel: int | None) -> np.ndarray:
    num_channels = 1 if page.ndim == 2 else page.shape[-1]
    if channel is None:
        if num_channels not in (1, 3):
            raise ValueError(
                f"it has {num_channels} channels; say which one shows the nuclei, with --channel 0 "
                f"to {num_channels - 1}"
            )
        return page
    if channel and num_channels == 1:
        raise ValueError(f"it is grey: it has no channel {channel}, so --channel takes 0 alone")
    if channel >= num_channels:
        raise ValueError(
            f"it has no channel {channel}: there are {num_channels}, counted from 0, so --channel "
            f"takes 0 to {num_channels - 1}"
        )
    return page if page.ndim == 2 else page[..., channel]


def _write(
    folder: Path,
    names: dict[str, list[str]],
    views: list[np.ndarray],
    label_maps: list[np.ndarray],
    tables: "list[pandas.DataFrame]",
) -> None:
    """Write the files of an image, named by format."""
    writers = {
        "tiff": export.write_labels,
        "geojson": export.write_geojson,
        "roi": export.write_rois,
    }
    for key, writer in writers.items():
        for name in names.get(key, ()):
            writer(folder / name, label_maps)
    if "png" in names:
        pages = zip(names["png"], views, label_maps, tables, strict=True)
        for name, view, label_map, table in pages:
            picture = overlay(view, label_map, thickness=_thickness(table))
            _write_png(folder / name, picture)


def _thickness(table: "pandas.DataFrame") -> int:
    """Of outlines, in pixels: large nuclei are looked at from afar, where thin ones vanish."""
    return max(1, round(math.sqrt(table["area_px"].median()) / 40)) if len(table) else 1


def _write_png(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    with export.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="png")


def _list_models() -> int:
    width = max(map(len, PRESETS), default=0)
    for name, preset in PRESETS.items():
        _say(f"{name:{width}}  {preset.description}")
    return 0


def _say(text: str, file: TextIO | None = None) -> None:
    file = file or sys.stdout
    encoding = file.encoding or "utf-8"  # on Windows not UTF-8, where it is redirected
    # The results are still to be written where nobody reads on, as after `| head`.
    with contextlib.suppress(BrokenPipeError):
        # Keeps the progress bar in one piece, which print would not.
        tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=file)
