"""The data set builder on a small drawn archive: every source, both readers, the commands."""

import functools
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import tfds_dsb2018
from tests import dsb2018_archive as drawing
from tfds_dsb2018 import __main__ as cli
from tfds_dsb2018 import contents, records, sources, synthetic, verification
from tfds_dsb2018.modality import MODALITIES, modality_of

ROOT = Path(__file__).resolve().parents[1]
ARCHIVE = drawing.draw_archive()
FILES = drawing.published_files(ARCHIVE)
CONFIGS = ("stage1", "stage1_fixed")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    drawing.write_tables(folder, ARCHIVE)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tables):
    """The drawn facts instead of the published ones; no source but those of the test."""
    monkeypatch.setattr(contents, "TABLES", tables)
    monkeypatch.delenv(sources.ENVIRONMENT_VARIABLE, raising=False)

    def refuse(url, **_):
        raise sources.requests.ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(sources.requests, "head", refuse)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    drawing.write_folder(folder, FILES)
    return folder


def prepare(data_dir, source=None, config="stage1", **kwargs):
    builder = tfds_dsb2018.Builder(data_dir=data_dir, config=config)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=source, **kwargs)
    )
    return builder


def read(builder, split):
    return {example["image_id"].decode(): example for example in builder.as_data_source(split)}


def assert_as_drawn(examples, images):
    """Compares every value with what was drawn."""
    assert set(examples) == set(images)
    for image_id, drawn in images.items():
        example = examples[image_id]
        labels = drawn.instances
        np.testing.assert_array_equal(example["image"], drawn.image)
        np.testing.assert_array_equal(example["instances"], labels[..., None])
        np.testing.assert_array_equal(example["segmentation_mask"], (labels > 0)[..., None])
        assert example["segmentation_mask"].dtype == np.uint8
        assert example["instances"].dtype == np.uint16
        assert example["num_instances"] == len(drawn.masks)
        assert MODALITIES[example["modality"]] == drawn.modality
        assert example["field_of_view"] == drawn.field_of_view


# ---- every source ------------------------------------------------------------------------------


def unzip(name):
    with zipfile.ZipFile(io.BytesIO(FILES[name])) as archive:
        return {entry: archive.read(entry) for entry in archive.namelist()}


def below(folder, entries):
    return {f"{folder}/{name}": data for name, data in entries.items()}


EXTRACTED = {
    **below("stage1_train", unzip("stage1_train.zip")),
    **below("stage1_test", unzip("stage1_test.zip")),
    "stage1_solution.csv": FILES["stage1_solution.csv"],
    **below("annotation_fixes", unzip("annotation_fixes.zip")),
}
CORRECTION = "kaggle-dsbowl-2018-dataset-fixes"
LAYOUTS = {
    "zip files": FILES,
    "folders": EXTRACTED,
    "zip files with a top folder": {
        **FILES,
        "stage1_train.zip": drawing.zip_bytes(
            below("stage1_train", unzip("stage1_train.zip"))
            | {"__MACOSX/stage1_train/._x.png": b"x", "stage1_train/.DS_Store": b"x"}
        ),
    },
    "folders within folders": below("stage1_train", EXTRACTED) | EXTRACTED,
    "Kaggle's zip file": {
        "data-science-bowl-2018.zip": drawing.zip_bytes(
            {
                "stage1_train.zip": FILES["stage1_train.zip"],
                "stage1_test.zip": FILES["stage1_test.zip"],
                "stage1_solution.csv": FILES["stage1_solution.csv"],
            }
        ),
        f"{CORRECTION}-master.zip": drawing.zip_bytes(
            below(f"{CORRECTION}-master/stage1_train", unzip("annotation_fixes.zip"))
        ),
    },
    "Kaggle's folder": {
        "data-science-bowl-2018/stage1_train.zip": FILES["stage1_train.zip"],
        "data-science-bowl-2018/stage1_test.zip": FILES["stage1_test.zip"],
        "data-science-bowl-2018/stage1_solution.csv.zip": drawing.zip_bytes(
            {"stage1_solution.csv": FILES["stage1_solution.csv"]}
        ),
        **below(f"{CORRECTION}/stage1_train", unzip("annotation_fixes.zip")),
    },
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folders within folders"])
def test_every_layout_gives_what_was_drawn(tmp_path, layout, config):
    drawing.write_folder(tmp_path / "source", LAYOUTS[layout])
    builder = prepare(tmp_path / "data", tmp_path / "source", config)
    for split, images in ARCHIVE.config(config).items():
        assert builder.info.splits[split].num_examples == len(images)
        assert_as_drawn(read(builder, split), images)


def test_the_environment_variable_names_a_source(tmp_path, source, monkeypatch):
    monkeypatch.setenv(sources.ENVIRONMENT_VARIABLE, str(source))
    assert_as_drawn(read(prepare(tmp_path / "data"), "train"), ARCHIVE.train)


def test_the_manual_folder_beats_the_environment_variable(tmp_path, source, monkeypatch):
    drawing.write_folder(tmp_path / "bad", {"stage1_train.zip": b"no zip file"})
    monkeypatch.setenv(sources.ENVIRONMENT_VARIABLE, str(tmp_path / "bad"))
    assert_as_drawn(read(prepare(tmp_path / "data", source), "test"), ARCHIVE.test)


def test_tfds_own_manual_folder_is_found(tmp_path, source):
    shutil.copytree(source, tmp_path / "data" / "downloads" / "manual")
    assert_as_drawn(read(prepare(tmp_path / "data"), "train"), ARCHIVE.train)


# ---- downloads ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local HTTP server with the published files; the package's addresses point to it."""
    folder = tmp_path / "served"
    drawing.write_folder(folder, FILES)
    (folder / "annotation_fixes.zip").rename(folder / "master.zip")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.undo()  # the network is allowed again; the tables are set anew below
        monkeypatch.delenv(sources.ENVIRONMENT_VARIABLE, raising=False)
        for name in ("TRAIN", "TEST", "SOLUTION", "FIXES"):
            part = getattr(sources, name)
            # A port of its own per test: TFDS remembers what it knows of a URL.
            url = f"http://127.0.0.1:{running.server_port}/{part.url.rsplit('/', 1)[1]}"
            monkeypatch.setattr(sources, name, sources.Part(part.names, url))
        yield folder
        running.shutdown()


@pytest.fixture
def served(server, monkeypatch, tables):
    monkeypatch.setattr(contents, "TABLES", tables)
    return server


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_missing_is_downloaded(tmp_path, served, config):
    builder = prepare(tmp_path / "data", config=config)
    for split, images in ARCHIVE.config(config).items():
        assert_as_drawn(read(builder, split), images)
    sizes = [len(data) for name, data in FILES.items() if name != "annotation_fixes.zip"]
    if config == "stage1":
        assert builder.info.download_size == sum(sizes)


def test_a_download_is_not_repeated(tmp_path, served):
    prepare(tmp_path / "data")
    for path in served.iterdir():
        path.write_bytes(b"gone")
    assert prepare(tmp_path / "data", config="stage1").is_prepared()
    shutil.rmtree(tmp_path / "data" / "dsb2018")
    assert_as_drawn(read(prepare(tmp_path / "data"), "train"), ARCHIVE.train)


def test_an_earlier_download_serves_without_network(tmp_path, served, monkeypatch):
    prepare(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "dsb2018")

    def refuse(url, **_):
        raise sources.requests.ConnectionError(url)

    monkeypatch.setattr(sources.requests, "head", refuse)
    assert_as_drawn(read(prepare(tmp_path / "data"), "train"), ARCHIVE.train)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "stage1_train.zip cannot be reached .404"),
        (lambda path: path.write_bytes(b"<html>sorry</html>"), "is not a whole zip file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), "is not a whole zip file"),
    ],
)
def test_a_bad_download_is_refused(tmp_path, served, damage, message):
    damage(served / "stage1_train.zip")
    with pytest.raises(tfds_dsb2018.SourceError, match=message):
        prepare(tmp_path / "data")
    assert not tfds_dsb2018.Builder(data_dir=tmp_path / "data").is_prepared()


def test_a_server_that_refuses_connections_fails_at_once(tmp_path, monkeypatch, tables):
    monkeypatch.undo()
    monkeypatch.delenv(sources.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(contents, "TABLES", tables)
    part = sources.Part(sources.TRAIN.names, "http://127.0.0.1:9/stage1_train.zip")
    monkeypatch.setattr(sources, "TRAIN", part)
    with pytest.raises(tfds_dsb2018.SourceError, match="cannot be reached") as caught:
        prepare(tmp_path / "data")
    for route in ("--source FOLDER", "manual_dir", "DSB2018_DIR", "dsb2018/synthetic"):
        assert route in str(caught.value)


# ---- reading -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with all three configs; tests must not write to it."""
    folder = tmp_path_factory.mktemp("prepared")
    drawing.write_folder(folder / "source", FILES)
    drawing.write_tables(folder / "tables", ARCHIVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "TABLES", folder / "tables")
        for config in (*CONFIGS, "synthetic"):
            prepare(folder / "data", folder / "source", config)
    return folder / "data"


def test_both_readers_serve_from_one_copy_in_any_order(prepared):
    for _ in range(2):
        dataset = tfds.load("dsb2018", split="train", data_dir=prepared)
        examples = {e["image_id"].decode(): e for e in dataset.as_numpy_iterator()}
        assert_as_drawn(examples, ARCHIVE.train)
        source = tfds.data_source("dsb2018", split="train", data_dir=prepared)
        assert_as_drawn({e["image_id"].decode(): e for e in source}, ARCHIVE.train)
    builder = tfds.builder("dsb2018", data_dir=prepared)
    assert len(builder.as_data_source("test")) == builder.as_dataset(split="test").cardinality()


def test_as_supervised_gives_image_and_mask(prepared):
    dataset = tfds.load("dsb2018", split="test", data_dir=prepared, as_supervised=True)
    for image, mask in dataset.as_numpy_iterator():
        assert image.shape == (*mask.shape[:2], 3)
        assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("file_format", [None, "tfrecord", "array_record"])
def test_the_file_format_is_both_whatever_is_asked_for(tmp_path, source, file_format):
    builder = tfds.builder("dsb2018", data_dir=tmp_path / "data", file_format=file_format)
    builder.download_and_prepare(
        file_format=file_format,
        download_config=tfds.download.DownloadConfig(manual_dir=source),
    )
    suffixes = {path.name.split("-")[1] for path in Path(builder.data_dir).glob("dsb2018-*")}
    assert suffixes == {
        "train.tfrecord",
        "train.array_record",
        "test.tfrecord",
        "test.array_record",
    }


@pytest.mark.parametrize("file_format", ["parquet", "riegeli"])
def test_formats_that_lose_data_are_refused(tmp_path, file_format):
    with pytest.raises(ValueError, match="written as tfrecord and array_record at once"):
        tfds.builder("dsb2018", data_dir=tmp_path, file_format=file_format)
    with pytest.raises(ValueError, match="written as tfrecord and array_record at once"):
        tfds_dsb2018.Builder(data_dir=tmp_path).download_and_prepare(file_format=file_format)


def test_reading_before_preparing_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no data set"):
        tfds_dsb2018.Builder(data_dir=tmp_path).as_data_source("train")


def test_without_array_record_tfrecord_alone_is_written(tmp_path, source, monkeypatch):
    monkeypatch.setattr(records, "HAS_ARRAY_RECORD", False)
    builder = prepare(tmp_path / "data", source)
    assert builder.as_dataset(split="train").cardinality() == len(ARCHIVE.train)
    with pytest.raises(FileNotFoundError, match=r"tfds\.data_source needs array_record"):
        builder.as_data_source("train")
    assert cli.main(["check", "--data_dir", str(tmp_path / "data")]) == 0


def test_a_builder_can_be_pickled(prepared):
    builder = pickle.loads(pickle.dumps(tfds_dsb2018.Builder(data_dir=prepared)))
    assert_as_drawn(read(builder, "test"), ARCHIVE.test)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def test_once_prepared_the_import_is_not_needed(prepared):
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"data = tfds.load('dsb2018', split='train', data_dir={str(prepared)!r})\n"
        f"source = tfds.data_source('dsb2018', split='train', data_dir={str(prepared)!r})\n"
        "assert 'tfds_dsb2018' not in sys.modules\n"
        "print(data.cardinality().numpy(), len(source), source[0]['image'].shape[-1])"
    )
    result = run_python(code)
    assert result.stdout.split() == [str(len(ARCHIVE.train))] * 2 + ["3"], result.stderr


def test_preparing_and_data_source_work_without_tensorflow(tmp_path):
    """In a process that finds no TensorFlow, as where it is not installed."""
    code = (
        "import importlib.machinery, sys\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "def find_no_tensorflow(name, *args):\n"
        "    return None if name.split('.')[0] == 'tensorflow' else find(name, *args)\n"
        "importlib.machinery.PathFinder.find_spec = find_no_tensorflow\n"
        "import tensorflow_datasets as tfds, tfds_dsb2018\n"
        f"data_dir = {str(tmp_path)!r}\n"
        "source = tfds.data_source('dsb2018/synthetic', split='train', data_dir=data_dir)\n"
        "print(len(source), source[3]['instances'].dtype)\n"
        "try: import tensorflow\n"
        "except ModuleNotFoundError: print('absent')"
    )
    result = run_python(code)
    assert result.stdout.split()[-3:] == ["64", "uint16", "absent"], result.stderr


def test_data_source_uses_the_default_folder(tmp_path):
    code = (
        "import tensorflow_datasets as tfds, tfds_dsb2018\n"
        "print(len(tfds.data_source('dsb2018/synthetic', split='test')))\n"
        "print(tfds.load('dsb2018/synthetic', split='test').cardinality().numpy())\n"
    )
    result = run_python(code, TFDS_DATA_DIR=str(tmp_path))
    assert result.stdout.split()[-2:] == ["16", "16"], result.stderr


def test_importing_does_not_import_tensorflow():
    result = run_python("import sys, tfds_dsb2018; print('tensorflow' in sys.modules)")
    assert result.stdout.strip() == "False", result.stderr


def test_the_info_is_documented():
    info = tfds_dsb2018.Builder(data_dir="/nonexistent").info
    assert info.supervised_keys == ("image", "segmentation_mask")
    assert "Data Science Bowl" in info.description
    assert "10.1038/s41592-019-0612-7" in info.citation
    for name, feature in info.features.items():
        assert feature.doc.desc, name
    assert info.features["segmentation_mask"].names == ["background", "nucleus"]


def test_pictures_and_tables_can_be_shown(prepared):
    import matplotlib

    matplotlib.use("agg")
    dataset, info = tfds.load("dsb2018", split="train", data_dir=prepared, with_info=True)
    figure = tfds.show_examples(dataset, info, image_key="image", rows=2, cols=2)
    assert len(figure.axes) >= 4
    html = tfds.as_dataframe(dataset.take(2), info)._repr_html_()
    assert html.count("<img") == 2 * 3  # image, mask and instances


# ---- commands ----------------------------------------------------------------------------------


def test_prepare_and_check(tmp_path, source, capsys):
    data_dir = str(tmp_path / "data")
    assert cli.main(["prepare", "--source", str(source), "--data_dir", data_dir]) == 0
    assert cli.main(["check", "--data_dir", data_dir]) == 0
    lines = capsys.readouterr().out.splitlines()
    nuclei = sum(len(drawn.masks) for drawn in ARCHIVE.train.values())
    rows = [line.split() for line in lines if line.startswith("train")]
    assert [row[:4] for row in rows] == [["train", "7", str(nuclei), "7"]] * 2
    line = f'All is well. Read it: tfds.load("dsb2018/stage1", data_dir={data_dir!r})'
    assert lines[-1] == line


@pytest.mark.parametrize(
    "arguments",
    [[], ["check", "--config", "stage3"], ["prepare", "--source", "/nonexistent"], ["tidy"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_check_of_nothing_names_the_remedy(tmp_path, capsys):
    assert cli.main(["check", "--data_dir", str(tmp_path)]) == 1
    assert "prepare --config stage1" in capsys.readouterr().err


def test_the_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", "tfds_dsb2018", "prepare", "--config", "synthetic"]
    result = subprocess.run(
        [*command, "--data_dir", tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert "64" in result.stdout
    assert "All is well" in result.stdout


# ---- the synthetic config ----------------------------------------------------------------------


def test_synthetic_images_are_what_they_say(prepared):
    builder = tfds_dsb2018.Builder(config="synthetic", data_dir=prepared)
    modalities, odd, touching = set(), 0, 0
    for split, count in (("train", 64), ("test", 16)):
        source = builder.as_data_source(split)
        assert len(source) == count
        for example in source:
            labels = example["instances"][..., 0].astype(int)
            assert MODALITIES[example["modality"]] == modality_of(example["image"])
            assert set(np.unique(labels)) == set(range(example["num_instances"] + 1))
            modalities.add(example["modality"])
            odd += labels.shape[0] % 2
            pairs = (labels[1:] != labels[:-1]) & (labels[1:] > 0) & (labels[:-1] > 0)
            touching += pairs.any()
    assert modalities == {0, 1, 2}
    assert odd >= 10
    assert touching >= 40


def test_synthetic_tiles_of_a_field_continue_each_other():
    readers, facts = synthetic.draw_split("train")
    numbers = [known.field_of_view for known in facts.values()]
    assert sorted({numbers.count(number) for number in numbers}) == [1, 4]
    height, width = readers["train-00-0"]()[0].shape[:2]
    field, _ = synthetic.draw_field(0, 2 * height, 2 * width)
    top = np.hstack([readers["train-00-0"]()[0], readers["train-00-1"]()[0]])
    bottom = np.hstack([readers["train-00-2"]()[0], readers["train-00-3"]()[0]])
    np.testing.assert_array_equal(np.vstack([top, bottom]), field)


def test_synthetic_splits_share_no_field():
    fields = [
        {known.field_of_view for known in synthetic.draw_split(split)[1].values()}
        for split in ("train", "test")
    ]
    assert not fields[0] & fields[1]


def test_synthetic_images_are_the_same_every_time():
    draw = synthetic.draw_split("test")[0]["test-02-0"]
    first = draw()
    synthetic.draw_field.cache_clear()
    np.testing.assert_array_equal(first[0], draw()[0])
    np.testing.assert_array_equal(first[1], draw()[1])


# ---- TFDS's own test ---------------------------------------------------------------------------


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks; they need a folder with the source and set it as the manual folder."""

    DATASET_CLASS = tfds_dsb2018.Builder
    BUILDER_CONFIG_NAMES_TO_TEST = ("stage1",)
    SPLITS: ClassVar = {"train": 7, "test": 3}

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = cls._folder.name
        drawing.write_folder(cls.EXAMPLE_DIR, FILES)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._folder.cleanup()


class FixedBuilderTest(BuilderTest):
    BUILDER_CONFIG_NAMES_TO_TEST = ("stage1_fixed",)
    SPLITS: ClassVar = {"train": 5, "test": 3}


def test_pil_sees_the_stored_mask_as_zeros_and_ones(prepared):
    """A mask of one bit per pixel would be read as 0 and 255 by TensorFlow."""
    folder = prepared / "dsb2018" / "stage1" / "1.0.0"
    for record in records.read_tfrecord(next(folder.glob("*train.tfrecord*"))):
        example = tfds.core.example_parser.tf_example_pb2.Example.FromString(record)
        feature = example.features.feature
        mask = Image.open(io.BytesIO(feature["segmentation_mask"].bytes_list.value[0]))
        assert (mask.mode, set(np.unique(mask))) == ("L", {0, 1})
        labels = Image.open(io.BytesIO(feature["instances"].bytes_list.value[0]))
        assert labels.mode == "I;16"


def test_check_verifies_all_three_configs(prepared):
    for config in (*CONFIGS, "synthetic"):
        reports = list(verification.verify(config, prepared))
        assert [report.split for report in reports] == ["train", "test"]
