"""A table that is joined of several, and that is left alone where somebody has edited it."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_nuclei.export import atomic_path
from keras_nuclei.jobs import sha256
from keras_nuclei.typing import FilePath


class JoinedTable:
    r"""A CSV file of ours, and a note of what it held when it was written.

    Args:
        path: Of the file.
        state: The folder for the note and the parts; made if it is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     part, other = Path(folder, "1.csv"), Path(folder, "2.csv")
        ...     _ = part.write_text("image,label\na,1\n"), other.write_text("image\nb\n")
        ...     table = JoinedTable(Path(folder, "all.csv"), folder)
        ...     print(table.write([part, other]).read_text())
        image,label
        a,1
        b,
        <BLANKLINE>
    """

    def __init__(self, path: FilePath, state: FilePath):
        self.path = Path(path)
        self._draft_file = Path(state, f"{self.path.stem}_draft.csv")
        self._note_file = Path(state, f"{self.path.stem}.sha256")

    def write(self, parts: Sequence[Path]) -> Path | None:
        """Join tables to one file, under all columns that any of them has.

        A column that one of them lacks, as of a third channel, is left empty there. A file that
        holds all this already is not touched.

        Args:
            parts: CSV files with headers, in the order of their rows in the file.

        Returns:
            The path of the file; None where there are no parts, and there is no file.

        Raises:
            ValueError: If the file that is there holds neither this nor what was written before,
                as one that has been edited. It stays as it is.
        """
        with self._draft(parts) as draft:
            if draft is None:
                self._refuse_edited()
                self.path.unlink(missing_ok=True)
                return None
            new = sha256(draft)
            if not self.path.exists() or sha256(self.path) != new:
                self._refuse_edited()
                self._note(new)
                draft.replace(self.path)
        return self.path

    def is_as_written(self) -> bool:
        """Whether the file, which is there, is as it was written; no, if the note is damaged."""
        try:
            noted = self._note_file.read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return False
        return sha256(self.path) in noted

    def recognize(self, parts: Sequence[Path]) -> None:
        """Note a file that holds what it should, where the note of it is lost or damaged.

        Args:
            parts: As for `write`.
        """
        if self.path.is_file() and not self.is_as_written():
            with self._draft(parts) as draft:
                if draft is not None and sha256(draft) == sha256(self.path):
                    self.allow_replacing()

    def allow_replacing(self) -> None:
        """Let `write` replace the file, which is there, whatever it holds.

        A note outlives an interruption: to go on needs no leave again.
        """
        self._note(sha256(self.path))

    @contextlib.contextmanager
    def _draft(self, parts: Sequence[Path]) -> Iterator[Path | None]:
        """Offer a file that holds what the table should hold; None where there are no parts."""
        try:
            if parts:
                _join(parts, self._draft_file)
            yield self._draft_file if parts else None
        finally:
            self._draft_file.unlink(missing_ok=True)

    def _note(self, new: str) -> None:
        """Note what the file is going to hold, beside what it holds and may be replaced.

        Both, since an interruption leaves the one or the other there. What it held once is
        forgotten: whoever brings it back may want to keep it.
        """
        noted = {new, sha256(self.path)} if self.path.exists() else {new}
        self._note_file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._note_file) as temporary:
            temporary.write_text("\n".join(sorted(noted)), encoding="ascii")

    def _refuse_edited(self) -> None:
        if self.path.exists() and not self.is_as_written():
            raise ValueError(
                f"{self.path} is not as it was written, and stays as it is: it may hold what you "
                "have added. Rename or move it and run the same command once more, or pass "
                "--overwrite, which replaces it and segments the images anew."
            )


def _join(parts: Sequence[Path], joined_file: Path) -> None:
    columns: dict[str, None] = {}
    for path in parts:
        with path.open(newline="", encoding="utf-8") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    with joined_file.open("w", newline="", encoding="utf-8") as joined:
        writer = csv.DictWriter(joined, list(columns), lineterminator="\n")
        writer.writeheader()
        for path in parts:
            with path.open(newline="", encoding="utf-8") as file:
                writer.writerows(csv.DictReader(file))
