"""What goes wrong with sources, disks and processes: a clear error or success, never half a copy.

Real files, disks and processes; nothing is mocked.
"""

import io
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_dsb2018
from tests import dsb2018_archive as drawing
from tfds_dsb2018 import __main__ as cli
from tfds_dsb2018 import archives, contents, records, sources

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = drawing.draw_archive()
FILES = drawing.published_files(ARCHIVE)
AN_ID = next(iter(ARCHIVE.train))
TEST_ID = next(iter(ARCHIVE.test))


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    drawing.write_tables(tmp_path / "tables", ARCHIVE)
    monkeypatch.setattr(contents, "TABLES", tmp_path / "tables")
    monkeypatch.delenv(sources.ENVIRONMENT_VARIABLE, raising=False)
    return tmp_path / "tables"


@pytest.fixture
def source(tmp_path):
    drawing.write_folder(tmp_path / "source", FILES)
    return tmp_path / "source"


def prepare(data_dir, source, config="stage1", **kwargs):
    builder = tfds_dsb2018.Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=source, **kwargs)
    )
    return builder


def assert_nothing_left(data_dir):
    """No copy that would load, and no rest of one."""
    assert not tfds_dsb2018.Builder(data_dir=data_dir).is_prepared()
    assert not list(Path(data_dir).rglob("dsb2018-*"))
    assert not list(Path(data_dir).rglob("incomplete*"))


# ---- damaged sources ---------------------------------------------------------------------------


def repack(source, name, change):
    """Changes the entries (name -> bytes) of a zip file."""
    path = source / name
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    change(entries)
    path.write_bytes(drawing.zip_bytes(entries))


def image_name(image_id):
    return f"{image_id}/images/{image_id}.png"


def a_mask(entries, image_id=AN_ID):
    return next(name for name in entries if name.startswith(f"{image_id}/masks/"))


def flip_bytes_within(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.infolist()[5]
    # 30 bytes of head and the name precede the compressed data.
    start = entry.header_offset + 30 + len(entry.filename)
    data[start + 5 : start + 25] = bytes(20)
    path.write_bytes(data)


def edit_solution(source, old, new):
    path = source / "stage1_solution.csv"
    path.write_text(path.read_text().replace(old, new, 1))


def first_row():
    return FILES["stage1_solution.csv"].decode().splitlines()[1].split(",")


def replaced(key, value):
    """A change of entries: `key(entries)` gets the value."""
    return lambda entries: entries.__setitem__(key(entries), value)


WRONG_SIZE = drawing.png(np.ones((5, 7), bool))
CUT = drawing.png(ARCHIVE.train[AN_ID].image)[:-40]

DAMAGES = {
    "no zip file": (
        lambda source: (source / "stage1_train.zip").write_bytes(b"<html>"),
        r"stage1_train\.zip is not a whole zip file .* get it again",
    ),
    "empty file": (
        lambda source: (source / "stage1_test.zip").write_bytes(b""),
        r"stage1_test\.zip is not a whole zip file",
    ),
    "truncated zip file": (
        lambda source: os.truncate(source / "stage1_train.zip", 3000),
        r"stage1_train\.zip is not a whole zip file",
    ),
    "flipped bytes in a zip file": (
        lambda source: flip_bytes_within(source / "stage1_train.zip"),
        r"\.png in .*stage1_train\.zip is damaged",
    ),
    "an entry that points outside": (
        lambda s: repack(s, "stage1_train.zip", lambda e: e.__setitem__("../../evil.png", b"x")),
        r"points outside of it, '\.\./\.\./evil\.png'",
    ),
    "an absolute entry": (
        lambda s: repack(s, "stage1_test.zip", lambda e: e.__setitem__("/evil.png", b"x")),
        r"points outside of it, '/evil\.png'",
    ),
    "a mask of another size": (
        lambda s: repack(s, "stage1_train.zip", replaced(a_mask, WRONG_SIZE)),
        r"masks/.*\.png in .* is a mask of shape \(5, 7\) for an image of shape \(32, 32\)",
    ),
    "an unreadable mask": (
        lambda s: repack(s, "stage1_train.zip", replaced(a_mask, b"\x89PNG no more")),
        r"masks/.*\.png in .* is not a readable PNG file",
    ),
    "an empty mask": (
        lambda s: repack(
            s, "stage1_train.zip", replaced(a_mask, drawing.png(np.zeros((32, 32), bool)))
        ),
        r"masks/.*\.png in .* marks no nucleus",
    ),
    "a cut image": (
        lambda s: repack(s, "stage1_train.zip", replaced(lambda _: image_name(AN_ID), CUT)),
        r"images/.*\.png in .* is not a readable PNG file",
    ),
    "a missing mask": (
        lambda s: repack(s, "stage1_train.zip", lambda e: e.pop(a_mask(e))),
        rf"(?s)Image {AN_ID} has \d+ annotated nuclei, \d+ were .* read from .*stage1_train\.zip",
    ),
    "a missing image": (
        lambda s: repack(s, "stage1_train.zip", lambda e: e.pop(image_name(AN_ID))),
        rf"1 of 7 images or their annotations are missing .* {AN_ID}",
    ),
    "one changed pixel": (
        lambda s: repack(
            s,
            "stage1_train.zip",
            replaced(lambda _: image_name(AN_ID), drawing.png(ARCHIVE.train[AN_ID].image ^ 1)),
        ),
        rf"(?s)Image {AN_ID} or its annotation differs from .* read from .*stage1_train\.zip",
    ),
    "run lengths past the end": (
        lambda s: edit_solution(s, first_row()[1], f"{first_row()[1]} 930 99"),
        rf"nucleus 1 of image {TEST_ID} in .*solution\.csv run to pixel 1028, .* 936 pixels",
    ),
    "run lengths of another image": (
        lambda s: edit_solution(s, ",39,24,", ",24,39,"),
        r"is drawn on 24 x 39 pixels .* has 39 x 24",
    ),
    "a solution with other columns": (
        lambda s: edit_solution(s, "EncodedPixels", "Pixels"),
        r"stage1_solution\.csv must have the columns",
    ),
    "a truncated solution": (
        lambda s: os.truncate(s / "stage1_solution.csv", 900),
        r"missing in the source|annotated nuclei|pairs of start|is drawn on",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_source_is_named_and_nothing_is_left(tmp_path, source, damage, capsys):
    do, message = DAMAGES[damage]
    do(source)
    data_dir = tmp_path / "data"
    with pytest.raises((tfds_dsb2018.SourceError, ValueError), match=message):
        prepare(data_dir, source)
    assert_nothing_left(data_dir)
    assert cli.main(["prepare", "--source", str(source), "--data_dir", str(data_dir)]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_wrong_environment_variable_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(sources.ENVIRONMENT_VARIABLE, "/nonexistent/folder")
    with pytest.raises(tfds_dsb2018.SourceError, match=r"DSB2018_DIR=/nonexistent/folder"):
        prepare(tmp_path / "data", None)


def test_an_unreadable_folder_entry_is_named(tmp_path):
    folder = tmp_path / "stage1_train"
    drawing.write_folder(folder, drawing.image_entries(ARCHIVE.train))
    (folder / AN_ID / "images" / f"{AN_ID}.png").unlink()
    (folder / AN_ID / "images" / f"{AN_ID}.png").symlink_to("nowhere.png")
    readers = sources.train_readers(archives.open_archive(folder))
    with pytest.raises(tfds_dsb2018.SourceError, match=rf"{AN_ID}\.png cannot be read"):
        readers[AN_ID]()


def test_an_encrypted_zip_file_is_named(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(drawing.zip_bytes({"a.png": b"x"}))
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1  # the flag for encryption
    path.write_bytes(data)
    with pytest.raises(tfds_dsb2018.SourceError, match=r"a\.png in .*x\.zip is damaged"):
        archives.open_archive(path).read("a.png")


# ---- disks -------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path):
    """Mounts a small file system; its options are the argument."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True)

    def attach(options):
        result = run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        if result.returncode:
            pytest.skip(f"mounting a file system needs privileges: {result.stderr.strip()}")
        return folder

    yield attach
    run("umount", "--lazy", str(folder))


def test_a_full_disk_is_refused_before_any_work(mount, source):
    disk = mount("size=1m")
    with pytest.raises(OSError, match=r"cannot be written to .*disk: Not enough disk space"):
        prepare(disk, source)
    assert_nothing_left(disk)


@pytest.mark.parametrize("size", ["16k", "48k", "80k", "144k", "176k"])
def test_a_disk_that_fills_up_while_writing(mount, source, size, monkeypatch):
    from tfds_dsb2018 import dsb2018_dataset_builder

    # Let the look at the free space pass, as if another program had taken the rest since.
    monkeypatch.setattr(dsb2018_dataset_builder, "_BYTES_PER_IMAGE", 1)
    disk = mount(f"size={size}")  # a whole copy takes some 200 kB in four files
    with pytest.raises(OSError, match=r"cannot be written to .*disk.*No space left on device"):
        prepare(disk, source)
    assert_nothing_left(disk)


def test_a_full_disk_fails_array_record(mount):
    disk = mount("size=64k")
    with pytest.raises(OSError, match="No space left on device"):
        records.write_array_record(disk / "x", [bytes(200_000)])


def test_a_read_only_disk(mount, source):
    disk = mount("ro,size=10m")
    with pytest.raises(OSError, match=r"cannot be written to .*disk: .*Read-only file system"):
        prepare(disk, source)


def test_a_file_where_a_folder_should_be(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written to .*data: .*Not a directory"):
        prepare(tmp_path / "file" / "data", source)


# ---- processes ---------------------------------------------------------------------------------


def start(tables, source, data_dir, prologue=""):
    """Starts `prepare` in a process of its own, with the drawn facts."""
    code = (
        "import sys; from pathlib import Path\n"
        "from tfds_dsb2018 import contents, examples, __main__ as cli\n"
        f"contents.TABLES = Path({str(tables)!r})\n"
        f"{prologue}\n"
        f"sys.exit(cli.main(['prepare', '--source', {str(source)!r}, "
        f"'--data_dir', {str(data_dir)!r}]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_at_once_both_succeed(tmp_path, tables, source):
    # Each waits before its last example until the other one is there, so that both do all the work.
    prologue = (
        "import os, time\n"
        "original = examples.generate\n"
        "def together(*args):\n"
        "    results = list(original(*args))\n"
        f"    Path({str(tmp_path)!r}, f'ready{{os.getpid()}}').touch()\n"
        f"    while len(list(Path({str(tmp_path)!r}).glob('ready*'))) < 2: time.sleep(0.01)\n"
        "    yield from results\n"
        "examples.generate = together"
    )
    processes = [start(tables, source, tmp_path / "data", prologue) for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0, output
        assert "All is well" in output
    assert not list(tmp_path.rglob("incomplete*"))


@pytest.mark.parametrize("moment", ["at an example", "while writing", "before the end"])
def test_killed_at_any_moment(tmp_path, tables, source, moment):
    kill = "import os, signal; die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    prologue = (
        kill
        + {
            "at an example": "examples.contents.split_digest = die",
            "while writing": "from tfds_dsb2018 import records; records.write_array_record = die",
            "before the end": "Path.rename = die; os.rename = die; os.replace = die",
        }[moment]
    )
    data_dir = tmp_path / "data"
    process = start(tables, source, data_dir, prologue)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL, output
    assert list(data_dir.rglob("incomplete*"))
    assert not tfds_dsb2018.Builder(data_dir=data_dir).is_prepared()
    with pytest.raises((tfds.core.DatasetNotFoundError, AssertionError)):
        tfds.load("dsb2018", data_dir=data_dir, split="train", download=False)
    assert cli.main(["prepare", "--source", str(source), "--data_dir", str(data_dir)]) == 0


def test_killed_at_random_moments(tmp_path, tables, source):
    rng = np.random.default_rng(0)
    for attempt in range(5):
        data_dir = tmp_path / f"data{attempt}"
        process = start(tables, source, data_dir)
        time.sleep(rng.uniform(0.5, 2.5))
        process.kill()
        process.communicate()
        if tfds_dsb2018.Builder(data_dir=data_dir).is_prepared():
            assert cli.main(["check", "--data_dir", str(data_dir)]) == 0
        assert cli.main(["prepare", "--source", str(source), "--data_dir", str(data_dir)]) == 0


def test_interrupting_leaves_nothing(tmp_path, tables, source):
    prologue = (
        "import os, signal\n"
        # A shell's background jobs ignore the signal, and their children with them.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "examples.contents.split_digest = lambda _: os.kill(os.getpid(), signal.SIGINT)"
    )
    process = start(tables, source, tmp_path / "data", prologue)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Interrupted" in output
    assert_nothing_left(tmp_path / "data")


# ---- damaged copies ----------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, source):
    """The folder of a prepared copy."""
    return Path(prepare(tmp_path / "data", source).data_dir)


def check(copy, capsys):
    code = cli.main(["check", "--data_dir", str(copy.parents[2])])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tfrecord", "array_record"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("index", [0, 4, -1])
def test_check_finds_flipped_bytes(copy, capsys, suffix, split, index):
    (path,) = copy.glob(f"dsb2018-{split}.{suffix}-*")
    data = bytearray(path.read_bytes())
    # Within one of the stored PNG files: ArrayRecord pads its blocks with bytes that do not count.
    starts = [match.start() for match in re.finditer(b"IDAT", data)]
    data[starts[index] + 9] ^= 0x10
    path.write_bytes(data)
    code, error = check(copy, capsys)
    assert code == 1
    assert f"Split '{split}'" in error
    assert f"Delete the folder {copy}" in error


def flip(name):
    def damage(copy):
        path = copy / name
        path.write_text(path.read_text().replace('"', "'", 1))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda copy: next(copy.glob("*train.tfrecord*")).unlink(),
        lambda copy: next(copy.glob("*test.array_record*")).unlink(),
        lambda copy: os.truncate(next(copy.glob("*train.tfrecord*")), 1000),
        lambda copy: os.truncate(next(copy.glob("*train.tfrecord*")), 0),
        lambda copy: os.truncate(next(copy.glob("*train.array_record*")), 1000),
        lambda copy: (copy / "metadata.json").unlink(),
        lambda copy: (copy / "features.json").unlink(),
        flip("dataset_info.json"),
        flip("features.json"),
        flip("metadata.json"),
    ],
)
def test_check_finds_missing_and_cut_files(copy, capsys, damage):
    damage(copy)
    code, error = check(copy, capsys)
    assert code == 1
    assert str(copy) in error


def rewrite(copy, change):
    """Rewrites the records of the training split, checksums and all, in both formats."""
    (path,) = copy.glob("*train.tfrecord*")
    proto = tfds.core.example_parser.tf_example_pb2.Example
    parsed = [proto.FromString(record) for record in records.read_tfrecord(path)]
    change(parsed)
    serialized = [example.SerializeToString() for example in parsed]
    records.write_tfrecord(path, serialized)
    records.write_array_record(str(path).replace("tfrecord", "array_record"), serialized)


def set_value(name, value):
    def change(parsed):
        parsed[2].features.feature[name].int64_list.value[0] = value

    return change


def swap(name):
    def change(parsed):
        first, second = (parsed[i].features.feature[name].bytes_list.value for i in (0, 1))
        first[0], second[0] = second[0], first[0]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("num_instances", 3), "num_instances"),
        (set_value("modality", 2), "modality"),
        (set_value("field_of_view", 77), "field_of_view"),
        (swap("image"), "wrong value of .*image"),
        (swap("segmentation_mask"), "wrong value of .*segmentation_mask"),
        (lambda parsed: parsed.pop(), "there are 6 images, 7 are declared"),
        (lambda parsed: parsed.__setitem__(0, parsed[1]), "twice"),
    ],
)
def test_check_finds_wrong_values_in_sound_files(copy, capsys, change, message):
    rewrite(copy, change)
    code, error = check(copy, capsys)
    assert code == 1
    assert re.search(message, error), error


def test_check_compares_both_formats(copy, capsys):
    (path,) = copy.glob("*train.tfrecord*")
    records.write_tfrecord(path, reversed(list(records.read_tfrecord(path))))
    code, error = check(copy, capsys)
    assert code == 1
    assert "different records" in error


def test_check_tells_a_part_from_the_whole(tmp_path, source, capsys):
    builder = prepare(tmp_path / "data", source, max_examples_per_split=2)
    assert builder.is_prepared()  # TFDS's way: it loads
    code, error = check(Path(builder.data_dir), capsys)
    assert code == 1
    assert "there are 2 images, 2 are declared, 7 were published" in error


def test_check_of_synthetic_images_finds_another_drawing(tmp_path, capsys):
    builder = prepare(tmp_path / "data", None, "synthetic")
    path = Path(builder.data_dir) / "metadata.json"
    path.write_text(path.read_text().replace("a", "b"))
    code = cli.main(["check", "--config", "synthetic", "--data_dir", str(tmp_path / "data")])
    assert code == 1
    assert "was noted when it was prepared" in capsys.readouterr().err


def test_a_record_file_reads_back(tmp_path):
    written = [b"", b"x", os.urandom(70_000)]
    records.write_tfrecord(tmp_path / "x", written)
    records.write_array_record(tmp_path / "y", written)
    assert list(records.read_tfrecord(tmp_path / "x")) == written
    assert records.read_array_record(tmp_path / "y") == written


def test_tensorflow_reads_our_record_file(tmp_path):
    import tensorflow as tf

    written = [b"", b"x", os.urandom(70_000)]
    records.write_tfrecord(tmp_path / "x", written)
    read = list(tf.data.TFRecordDataset(str(tmp_path / "x")).as_numpy_iterator())
    assert read == written


def test_the_zip_reader_leaves_nothing_behind(tmp_path, source):
    """Nothing is extracted: preparing writes below its data folder only."""
    before = {path for path in tmp_path.rglob("*") if "data" not in path.parts}
    prepare(tmp_path / "data", source)
    after = {path for path in tmp_path.rglob("*") if tmp_path / "data" not in (path, *path.parents)}
    assert before == after
    assert (
        io.BytesIO(FILES["stage1_train.zip"]).read() == (source / "stage1_train.zip").read_bytes()
    )
