"""Tables of all images: replaced where they are as they were written, and left alone elsewhere."""

from pathlib import Path

import pytest

from keras_nuclei.jobs import Job
from keras_nuclei.results import TABLES, ResultFolder
from keras_nuclei.tables import JoinedTable

SETTINGS = {"formats": ["csv"]}
EDITED = "image,label,mine\na,1,a note\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def add(folder, *names, settings=SETTINGS, overwrite=False, finish=True):
    """Do what a run does: open the folder, and write the results of images with a row each."""
    jobs = [Job(folder.parent / f"{name}.tif", name) for name in names]
    for job in jobs:
        job.source.write_text(job.name)
    opened = ResultFolder(folder, settings)
    opened.open(jobs, overwrite=overwrite)
    for job in jobs if finish else ():
        opened.start(job, [])
        opened.finish(job, [], dict.fromkeys(TABLES, f"image,label\n{job.name},1\n"))
    opened.close()
    return opened


def write(folder, *names, **options):
    return add(folder, *names, **options).write_table("nuclei")


def content(*names):
    return "image,label\n" + "".join(f"{name},1\n" for name in names)


def refuse(opened, table="nuclei"):
    message = rf"{table}\.csv is not as it was written.* Rename or move it and run .* --overwrite"
    with pytest.raises(ValueError, match=message):
        opened.write_table(table)


def test_a_table_that_was_edited_stays(folder):
    path = write(folder, "a")
    path.write_text(EDITED)
    opened = add(folder, "b")
    for _ in range(2):
        refuse(opened)
    assert path.read_text() == EDITED
    # The other table is not concerned.
    assert opened.write_table("images").read_text() == content("a", "b")
    path.rename(folder / "mine.csv")
    assert opened.write_table("nuclei").read_text() == content("a", "b")
    assert write(folder, "c").read_text() == content("a", "b", "c")


def test_each_table_is_guarded(folder):
    opened = add(folder, "a")
    for table in TABLES:
        opened.write_table(table).write_text(EDITED)
    for table in TABLES:
        refuse(opened, table)


def test_an_edit_that_is_undone_is_forgotten(folder):
    path = write(folder, "a")
    path.write_text(EDITED)
    opened = add(folder, "b")
    refuse(opened)
    path.write_text(content("a"))
    assert opened.write_table("nuclei").read_text() == content("a", "b")


def test_an_older_table_that_was_brought_back_stays(folder):
    path = write(folder, "a")
    for name in "bc":
        write(folder, name)
    path.write_text(content("a"))
    refuse(add(folder, "d"))


def test_an_equal_table_is_not_written(folder, monkeypatch):
    path = write(folder, "a")
    before = path.stat()
    monkeypatch.setattr(JoinedTable, "_note", None)  # there is nothing to note either
    assert ResultFolder(folder, SETTINGS).write_table("nuclei") == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_table_that_was_deleted_is_written_anew(folder):
    write(folder, "a").unlink()
    assert write(folder, "b").read_text() == content("a", "b")


@pytest.mark.parametrize("moment", ["before the note", "after the note", "after the table"])
@pytest.mark.parametrize("edited", [False, True])
def test_interrupted_while_a_table_is_written(moment, edited, folder, monkeypatch):
    path = write(folder, "a")
    opened = add(folder, "b")
    note, replace = JoinedTable._note, Path.replace

    def note_and_interrupt(table, new):
        if moment == "after the note":
            note(table, new)
        raise KeyboardInterrupt

    def replace_and_interrupt(source, target):
        replace(source, target)
        if target == path:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "after the table":
            patch.setattr(Path, "replace", replace_and_interrupt)
        else:
            patch.setattr(JoinedTable, "_note", note_and_interrupt)
        opened.write_table("nuclei")
    assert path.read_text() == content(*("ab" if moment == "after the table" else "a"))
    if edited:
        path.write_text(EDITED)
        refuse(add(folder, "c"))
        assert path.read_text() == EDITED
    else:
        assert write(folder, "c").read_text() == content("a", "b", "c")
    assert not list((folder / ".keras_nuclei").glob("*.csv"))


@pytest.mark.parametrize("note", [None, "", "abc", "\xff"])
def test_a_note_that_is_lost_or_damaged(note, folder):
    def damage():
        path = folder / ".keras_nuclei" / "nuclei.sha256"
        path.unlink()
        if note is not None:
            path.write_text(note, encoding="latin-1")

    path = write(folder, "a")
    damage()
    # It is what it should be: nobody has edited it.
    assert write(folder, "b").read_text() == content("a", "b")
    path.write_text(EDITED)
    damage()
    refuse(add(folder, "c"))
    assert path.read_text() == EDITED


def test_without_any_image_a_table_goes_unless_it_was_edited(folder):
    path = write(folder, "a")
    record = folder / ".keras_nuclei" / "images" / "a.json"
    record.write_text("damaged")
    assert ResultFolder(folder, SETTINGS).write_table("nuclei") is None
    assert not path.exists()
    path.write_text(EDITED)
    refuse(ResultFolder(folder, SETTINGS))
    assert path.read_text() == EDITED


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, {**SETTINGS, "scale": 2}])
def test_with_overwrite_an_edited_table_is_replaced(settings, interrupted, folder):
    path = write(folder, "a")
    path.write_text(EDITED)
    if interrupted:  # to go on needs no `overwrite` again
        add(folder, "a", settings=settings, overwrite=True, finish=False)
    path = write(folder, "a", settings=settings, overwrite=not interrupted)
    assert path.read_text() == content("a")


@pytest.mark.parametrize("note", ["there", "lost"])
@pytest.mark.parametrize("edited", [False, True])
def test_where_other_settings_want_no_table_an_edited_one_stays(edited, note, folder):
    path = write(folder, "a")
    if edited:
        path.write_text(EDITED)
    if note == "lost":
        (folder / ".keras_nuclei" / "nuclei.sha256").unlink()
    add(folder, "a", settings={"formats": ["tiff"]}, overwrite=True)
    assert path.exists() == edited


def test_notes_are_of_the_last_table_and_of_the_one_before(folder):
    for name in "abcd":
        write(folder, name)
    notes = (folder / ".keras_nuclei" / "nuclei.sha256").read_text()
    assert len(notes.split()) == 2
