"""A folder of results that an interrupted run can go on with, and that no other run spoils.

A hidden folder in it, `.keras_nuclei`, holds the settings of the run, for each image a record (what
was read, what was written) and its tables, and the SHA-256 of the tables of all images, by which
one that somebody has edited is told from our own. A folder belongs to one setting.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import filelock

from keras_nuclei.export import atomic_path
from keras_nuclei.jobs import Job, output_names, sha256, without_page
from keras_nuclei.tables import JoinedTable
from keras_nuclei.typing import FilePath

TABLES = {"nuclei": "images", "images": "pages"}
"""What there is a table of, and where in the hidden folder each image's part of it is kept.

`nuclei.csv` has a row for each nucleus, `images.csv` for each page of an image.
"""

_STATE = ".keras_nuclei"
_RECORDED = {"source", "size", "modified_ns", "outputs", "complete"}
_REMEDY = "Choose another folder, or allow to replace it with --overwrite."
_ALL_REMEDY = "Choose another folder, or pass --overwrite, which deletes all those results."


class ResultFolder:
    r"""The folder that results are written to.

    Args:
        path: The folder; made by `open`.
        settings: All that results depend on but the images, as JSON can hold it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     source = Path(path, "a.png")
        ...     _ = source.write_text("an image")
        ...     job, folder = Job(source, "a"), ResultFolder(path, {"model": "nuclei_base"})
        ...     _ = folder.open([job], overwrite=False)
        ...     folder.start(job, outputs=[])
        ...     tables = {"nuclei": "image,label\na,1\n", "images": "image,nuclei\na,1\n"}
        ...     folder.finish(job, outputs=[], tables=tables)
        ...     folder.close()
        ...     folder.is_complete(job)
        True
    """

    def __init__(self, path: FilePath, settings: dict):
        self.path = Path(path)
        self.settings = settings
        self._lock = filelock.FileLock(self._state / "lock")

    def names(self) -> dict[Path, str]:
        """The names of the images that the folder holds results of, by file."""
        return {Path(record["source"]): name for name, record in self._records().items()}

    def outputs(self) -> set[Path]:
        """The files that the folder's records list as results, as absolute paths."""
        folder = self.path.resolve()
        return {folder / name for record in self._records().values() for name in record["outputs"]}

    def others(self, jobs: Iterable[Job]) -> list[str]:
        """The names of the images that the folder holds results of beside those of `jobs`."""
        return _complete_beside(self._records(), jobs)

    def check(self, jobs: Iterable[Job], *, overwrite: bool) -> None:
        """Refuse what `open` refuses, and change nothing.

        Args:
            jobs: What is to be segmented.
            overwrite: Whether results that are there may be replaced.

        Raises:
            ValueError: If a result would replace one of the images; or if without `overwrite` the
                folder holds results of other settings, or files of unknown origin under a name
                that is needed.
        """
        jobs = list(jobs)
        # Of a drive that is not there, nothing is: `open` tells of that.
        there = next((path for path in (self.path, *self.path.parents) if path.exists()), None)
        if there is not None and not there.is_dir():
            raise ValueError(f"{there} is a file, and a folder is wanted for the results.")
        pages = self._overlays_of_pages()
        self._refuse_to_lose_sources(jobs, pages, self._outdated(jobs) if overwrite else {})
        if not overwrite:
            self._refuse_other_settings()
            for job in jobs:
                self._refuse_other_files(job, pages.get(job.name, []))

    def open(self, jobs: Iterable[Job], *, overwrite: bool) -> list[str]:
        """Take possession of the folder, until `close`, or refuse to before anything is lost.

        With `overwrite`, what the folder's records list is deleted: of these images, or, where
        the settings are others, of all images. A table of all images may be replaced then, even
        if it has been edited.

        Args:
            jobs: As for `check`.
            overwrite: As for `check`.

        Returns:
            The names of the images beside `jobs` whose results were deleted.

        Raises:
            ValueError: As `check`, if the folder can't be made, or if another run holds it.
        """
        jobs = list(jobs)
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"The folder {self.path} for the results can't be made or written to "
                f"({error.strerror}). Choose another one."
            ) from error
        self._hold()
        try:
            return self._begin(jobs, overwrite)
        except BaseException:
            self.close()
            raise

    def _begin(self, jobs: list[Job], overwrite: bool) -> list[str]:
        """What `open` does of a folder that no other run writes to."""
        self.check(jobs, overwrite=overwrite)  # as who held it before has left it
        for table in TABLES:
            self._joined_table(table).recognize(self._parts(table))
        outdated = self._outdated(jobs) if overwrite else {}
        if overwrite:
            self._delete(outdated)
            self._give_up_tables()
        _write_json(self._settings_file, self.settings)
        if overwrite:
            # So that to go on, should it be interrupted, needs no `overwrite` again.
            for job in jobs:
                self.start(job, outputs=[])
        return _complete_beside(outdated, jobs)

    def close(self) -> None:
        """Let other runs have the folder."""
        self._lock.release()

    def _hold(self) -> None:
        """Keep other runs out of the folder until it is closed, or this process is gone."""
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise ValueError(
                f"Another run is writing to {self.path}. Wait until it is done, or choose another "
                "folder."
            ) from None
        except (NotImplementedError, OSError):  # some network drives know no locks
            return

    def is_complete(self, job: Job) -> bool:
        """Whether all results of an image are there, of the image as it is now."""
        record = self._record(job.name) or {}
        return (
            record.get("complete", False)
            and _is_of(record, job)
            and all((self.path / name).exists() for name in record["outputs"])
            and all(self._table_file(job.name, table).exists() for table in TABLES)
        )

    def refuse_changed(self, job: Job) -> None:
        """Refuse to replace results that were edited, or of an image that is another now.

        Args:
            job: The image. What counts is what it holds, not its time or its folder.

        Raises:
            ValueError: If the folder has the results of an image of this name that held something
                else; or if one of them is not as it was written.
        """
        record = self._record(job.name) or {}
        if not record.get("complete"):
            return
        if _is_of(record, job):
            self._refuse_edited(record)
            return
        if record.get("source") == job.identity()["source"]:
            raise ValueError(
                f"it has changed since its results were written to {self.path}, and they stay as "
                "they are. To replace them, pass this image alone and --overwrite."
            )
        raise ValueError(
            f"{self.path} holds the results of another image of this name, {record.get('source')}. "
            "Choose another folder for this one, or replace them: pass it alone and --overwrite."
        )

    def _refuse_edited(self, record: dict) -> None:
        for name, digest in record.get("digests", {}).items():
            path = self.path / Path(name).name
            if path.exists() and sha256(path) != digest:
                raise ValueError(
                    f"{path} is not as it was written, and stays as it is, while others of its "
                    "results are missing. Move it elsewhere and run the same command once more, or "
                    "pass this image alone and --overwrite."
                )

    def start(self, job: Job, outputs: list[str]) -> None:
        """Note which files are of this image from now on.

        Args:
            job: The image.
            outputs: Names of the files in the folder that will be written. What else was written of
                it before, as of pages that it no longer has, is deleted.
        """
        record = self._record(job.name) or {}
        for name in set(record.get("outputs", ())) - set(outputs):
            (self.path / Path(name).name).unlink(missing_ok=True)
        self._write_record(job, outputs, complete=False)

    def finish(self, job: Job, outputs: list[str], tables: dict[str, str]) -> None:
        """Note that all results of an image are there.

        Args:
            job: The image.
            outputs: Names of the files in the folder that were written.
            tables: CSV with a header, by what it is a table of: see `TABLES`.
        """
        for table in TABLES:
            path = self._table_file(job.name, table)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_text(tables[table], encoding="utf-8")
        self._write_record(job, outputs, complete=True)

    def write_table(self, table: str) -> Path | None:
        """Join the tables of all complete images, in the order of names, to one file.

        A column that one image's table lacks, as of a third channel, is left empty there. A file
        that holds all this already is not touched.

        Args:
            table: Of `TABLES`; the file is named after it.

        Returns:
            The path of the file; None where no image is complete, and there is no file.

        Raises:
            ValueError: If the file that is there holds neither this nor what was written before,
                as one that has been edited. It stays as it is.
        """
        return self._joined_table(table).write(self._parts(table))

    def _joined_table(self, table: str) -> JoinedTable:
        return JoinedTable(self.path / f"{table}.csv", self._state)

    def _parts(self, table: str) -> list[Path]:
        """The tables of the complete images, in the order of names."""
        records = self._records().items()
        parts = [self._table_file(name, table) for name, record in records if record["complete"]]
        return [path for path in parts if path.exists()]

    def _give_up_tables(self) -> None:
        """Delete the tables of other settings, and allow `write_table` to replace all others.

        Where there will be no table to take its place, one that has been edited stays.
        """
        earlier = _read_json(self._settings_file) or self.settings
        outdated = earlier != self.settings and "csv" in earlier.get("formats", ())
        replaced = "csv" in self.settings.get("formats", ())
        for joined in map(self._joined_table, TABLES):
            if not joined.path.is_file():
                continue
            if outdated and (replaced or joined.is_as_written()):
                joined.path.unlink()
            elif replaced:
                joined.allow_replacing()

    @property
    def _state(self) -> Path:
        return self.path / _STATE

    @property
    def _settings_file(self) -> Path:
        return self._state / "settings.json"

    def _record_file(self, name: str) -> Path:
        return self._state / "images" / f"{name}.json"

    def _table_file(self, name: str, table: str) -> Path:
        return self._state / TABLES[table] / f"{name}.csv"

    def _write_record(self, job: Job, outputs: list[str], complete: bool) -> None:
        record = {**job.identity(), "outputs": outputs, "complete": complete}
        if complete:
            record["sha256"] = job.digest()
            record["digests"] = {name: sha256(self.path / name) for name in outputs}
        _write_json(self._record_file(job.name), record)

    def _record(self, name: str) -> dict | None:
        """What is noted of an image; None where nothing is, or not all that has to be."""
        record = _read_json(self._record_file(name)) or {}
        whole = record.keys() >= _RECORDED and isinstance(record["outputs"], list)
        return record if whole else None

    def _records(self) -> dict[str, dict]:
        """What is noted of each image, by name and in the order of names."""
        names = sorted(file.stem for file in self._state.glob("images/*.json"))
        records = {name: self._record(name) for name in names}
        return {name: record for name, record in records.items() if record is not None}

    def _holds_results(self) -> bool:
        records = self._records().values()
        return any(record["complete"] or record["outputs"] for record in records)

    def _outdated(self, jobs: list[Job]) -> dict[str, dict]:
        """The records of what has to go when `jobs` are segmented anew."""
        records = self._records()
        if _read_json(self._settings_file) != self.settings:
            return records
        return {job.name: records[job.name] for job in jobs if job.name in records}

    def _delete(self, records: dict[str, dict]) -> None:
        for name, record in records.items():
            for output in record["outputs"]:
                # Its name alone: whatever a record says, nothing outside the folder is deleted.
                (self.path / Path(output).name).unlink(missing_ok=True)
            for table in TABLES:
                self._table_file(name, table).unlink(missing_ok=True)
            self._record_file(name).unlink()

    def _overlays_of_pages(self) -> dict[str | None, list[Path]]:
        """The files that look like overlays of pages, by the name of the image."""
        found: dict[str | None, list[Path]] = {}
        for path in self.path.glob("*_page*_overlay.png"):
            name = without_page(path.name.removesuffix("_overlay.png"))
            found.setdefault(name, []).append(path)
        return found

    def _refuse_other_settings(self) -> None:
        earlier = _read_json(self._settings_file)
        if earlier is not None and earlier != self.settings and self._holds_results():
            different = [
                f"{key}: {_shown(earlier.get(key))}, now {_shown(self.settings.get(key))}"
                for key in sorted(earlier.keys() | self.settings.keys())
                if earlier.get(key) != self.settings.get(key)
            ]
            raise ValueError(
                f"The folder {self.path} holds results of other settings ({'; '.join(different)}). "
                f"{_ALL_REMEDY}"
            )
        written = (earlier or {}).get("formats", ())
        for path in (self._joined_table(table).path for table in TABLES):
            if path.exists() and "csv" in self.settings.get("formats", ()) and "csv" not in written:
                raise ValueError(f"{path} is there already. {_REMEDY}")

    def _refuse_other_files(self, job: Job, pages: list[Path]) -> None:
        if self._record(job.name) is not None:
            return
        wanted = self.settings.get("formats", ())
        for path in self._files(job, wanted) + (pages if "png" in wanted else []):
            if path.exists():
                raise ValueError(f"{path} is there already. {_REMEDY}")

    def _refuse_to_lose_sources(self, jobs: list[Job], pages: dict, outdated: dict) -> None:
        lost = [path for job in jobs for path in (*self._files(job), *pages.get(job.name, ()))]
        lost += [self.path / name for record in outdated.values() for name in record["outputs"]]
        sources = {job.source.resolve() for job in jobs}
        for path in lost:
            if path.resolve() in sources:
                raise ValueError(
                    f"A result would replace the image {path.name}. Choose another folder for the "
                    "results."
                )

    def _files(self, job: Job, formats: Collection[str] | None = None) -> list[Path]:
        """The files of an image, in some formats or in all."""
        names = output_names(job.name)
        return [
            self.path / name
            for key in names
            if formats is None or key in formats
            for name in names[key]
        ]


def _complete_beside(records: dict[str, dict], jobs: Iterable[Job]) -> list[str]:
    """The names of complete images in records but those of some jobs."""
    named = {job.name for job in jobs}
    return [name for name, record in records.items() if record["complete"] and name not in named]


def _is_of(record: dict, job: Job) -> bool:
    """Whether a record is of what an image holds now: read only if a glance doesn't tell."""
    now = job.identity()
    if {key: record.get(key) for key in now} == now:
        return True
    return record.get("size") == now["size"] and record.get("sha256") == job.digest()


def _shown(setting: Any) -> Any:
    return "not given" if setting is None else setting


def _read_json(path: Path) -> dict | None:
    """What a file of ours holds; None of one that is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
