"""Side by side: the same arrays for all, scores, resuming, failures, the table."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from benchmarks import pipeline, rivals, rivals_runner, rivals_table
from benchmarks.rivals_catalog import ENVIRONMENTS, RIVALS, Rival

OURS = Rival(
    "keras_nuclei",
    "plain",
    {"encoder_weights": None, "encoder_depth": 1, "decoder_filters": [4]}
    | {"input_shape": [32, 32, 3]},
    options={"batch_norm_momentum": 0.5},
)
# Not among the dependencies of the tests, so that its import fails.
MISSING = Rival("segmentation-models-pytorch", "resnet34")
INSTALL = rivals.install  # the tests of jobs replace it


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tensorflow_datasets"))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Two rivals, small images, and this interpreter in place of new environments."""
    config = dataclasses.replace(rivals.CONFIGS["reference"], image_size=32, batch_size=8)
    monkeypatch.setitem(rivals.CONFIGS, "reference", config)
    monkeypatch.setattr(rivals, "RIVALS", {"ours": OURS, "missing": MISSING})
    monkeypatch.setattr(rivals, "install", lambda *_: Path(sys.executable))


@pytest.fixture
def arguments(data_dir, tmp_path):
    return [
        *("--data", "synthetic", "--data_dir", data_dir, "--output", str(tmp_path / "out")),
        *("--rounds", "1", "--speed-seconds", "0", "--threads", "1"),
        *("--epochs", "2", "--seconds", "0", "--limit", "1000"),
    ]


def no_run(*_, **__):
    raise AssertionError("Nothing was to be run.")


# -- Runner ---------------------------------------------------------------------------------------


def test_scores_equal_scikit_learn(rng):
    masks = rng.integers(0, 2, (5, 8, 8, 1), dtype="uint8")
    probabilities = rng.random((5, 8, 8, 1)).astype("float32")
    scores = rivals_runner.score(masks, probabilities)
    true, pred = masks.ravel(), probabilities.ravel() > 0.5
    assert scores["iou"] == pytest.approx(jaccard_score(true, pred))
    assert scores["dice"] == pytest.approx(f1_score(true, pred))
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, pred))
    assert scores["accuracy_of_nothing"] == pytest.approx(accuracy_score(true, 0 * true))


def test_scores_of_nothing():
    empty = np.zeros((2, 4, 4, 1))
    assert rivals_runner.score(empty, empty)["iou"] == 1
    assert rivals_runner.score(empty, empty)["dice"] == 1
    assert rivals_runner.score(empty, empty + 0.9)["dice"] == 0
    with pytest.raises(ValueError, match=r"\(2, 4, 4, 1\).*\(2, 4, 4\)"):
        rivals_runner.score(empty, empty[..., 0])


class Recorder:
    """A model that keeps what it is shown and predicts what it is told."""

    def __init__(self, probability=0.9, loss=0.5):
        self.shown, self.scored, self.probability, self.loss = [], 0, probability, loss

    def model(self):
        return rivals_runner.Model(1, lambda images: images, self.train, self.predict)

    def train(self, images, masks):
        assert images.dtype == "uint8"
        assert masks.dtype == "float32"
        self.shown.append(images[:, 0, 0, 0])
        return self.loss

    def predict(self, images):
        assert len(images) == 4  # of one shape, so that nothing is compiled again
        self.scored += 1
        return np.full((len(images), 2, 2, 1), self.probability)


@pytest.fixture
def arrays():
    images = np.zeros((10, 2, 2, 3), "uint8") + np.arange(10, dtype="uint8")[:, None, None, None]
    masks = np.ones((10, 2, 2, 1), "uint8")
    # Of 6 validation images, 3 are all nucleus: IoU of "everywhere" is 3/6, Dice 2 * 3 / (6 + 3).
    validation = np.repeat([1, 0], 3).astype("uint8")[:, None, None, None] * masks[:6]
    return {
        "train_images": images,
        "train_masks": masks,
        "validation_images": images[:6],
        "validation_masks": validation,
    }


JOB = {"batch_size": 4, "seed": 7, "epochs": 3, "seconds": 0, "limit": 1000}


def test_training_order_is_that_of_the_pipeline(arrays):
    recorder = Recorder()
    marks = rivals_runner.measure_training(JOB, recorder.model(), arrays)
    examples = pipeline.Examples(
        arrays["train_images"], arrays["train_masks"], np.arange(10), np.arange(10)
    )
    assert len(recorder.shown) == 6  # 10 images make 2 whole batches, 3 times
    for epoch in range(3):
        batches = pipeline.batches(examples, 4, shuffle_seed=(7, epoch)).as_numpy_iterator()
        for index in range(2):
            expected, _ = next(batches)
            np.testing.assert_array_equal(recorder.shown[2 * epoch + index], expected[:, 0, 0, 0])
    assert marks["equal_epochs"]["epochs"] == 3
    assert marks["equal_epochs"]["cut"] is False
    assert marks["equal_epochs"]["iou"] == pytest.approx(3 / 6)
    assert marks["equal_epochs"]["dice"] == pytest.approx(6 / 9)
    assert marks["equal_time"]["steps"] == 1  # 0 s are over after the first


def test_training_time_counts_steps_after_the_warm_up(arrays, monkeypatch):
    seconds = iter(range(1000))  # each look at the clock is a second later: a step takes one
    monkeypatch.setattr(rivals_runner.time, "perf_counter", lambda: next(seconds))
    recorder = Recorder()
    job = {**JOB, "epochs": 100, "seconds": 3, "limit": 5}
    marks = rivals_runner.measure_training(job, recorder.model(), arrays)
    assert marks["equal_time"]["steps"] == 3 + rivals_runner.WARM_UP
    assert marks["equal_time"]["seconds"] == 3
    assert marks["equal_epochs"]["steps"] == 5 + rivals_runner.WARM_UP
    assert marks["equal_epochs"]["cut"] is True
    assert recorder.scored == 4  # twice the 2 batches of the validation images


def test_training_stops_at_a_loss_that_is_not_finite(arrays):
    with pytest.raises(FloatingPointError, match="step 1 is nan"):
        rivals_runner.measure_training(JOB, Recorder(loss=np.nan).model(), arrays)


def test_rate_leaves_the_warm_up_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rivals_runner.time, "perf_counter", lambda: now[0])

    def step(index):
        now[0] += 100 if index == 0 else 2

    rate, first = rivals_runner.rate_of(step, {"batch_size": 16, "speed_seconds": 9})
    assert first == 100
    assert rate == 16 / 2  # 5 steps of 2 s pass the 9 s


# -- Catalog --------------------------------------------------------------------------------------


def test_every_rival_has_an_environment_and_a_builder():
    assert {rival.library for rival in RIVALS.values()} == set(ENVIRONMENTS)
    assert set(ENVIRONMENTS) == set(rivals_runner.BUILDERS)
    # Whatever is installed is pinned, but for what lies in this clone.
    for requirements in ENVIRONMENTS.values():
        assert all("==" in each or each in ("--editable", ".[imagenet]") for each in requirements)


# -- Jobs -----------------------------------------------------------------------------------------


def test_ours_and_a_failing_rival_from_end_to_end(arguments, tmp_path, monkeypatch):
    rivals.main(arguments)
    output = tmp_path / "out"
    result = json.loads((output / "rivals.json").read_text())

    ours = result["rivals"]["ours"]
    assert "errors" not in ours
    assert ours["parameters"] > 1000
    assert ours["median"]["train_images_per_second"] > 0
    assert ours["median"]["peak_memory_megabytes"] > 50
    assert ours["equal_epochs"]["epochs"] == 2
    assert 0 <= ours["equal_epochs"]["dice"] <= 1

    missing = result["rivals"]["missing"]
    error = "ModuleNotFoundError: No module named 'segmentation_models_pytorch'"
    assert missing["errors"] == {"speed-0": error, "training": error}
    assert "median" not in missing

    # The same arrays for all: those of the pipeline's split.
    with np.load(output / "arrays.npz") as arrays:
        parts = pipeline.split(
            pipeline.load("dsb2018/synthetic", "train", 32, arguments[3]), "random", 0
        )
        for part in ("train", "validation"):
            np.testing.assert_array_equal(arrays[f"{part}_images"], parts[part].images)
            np.testing.assert_array_equal(arrays[f"{part}_masks"], parts[part].masks)
    assert result["images"] == {"train": 45, "validation": 12}

    # What is done, well or not, is not done again; another setting is refused.
    monkeypatch.setattr(rivals, "run", no_run)
    rivals.main(arguments)
    with pytest.raises(SystemExit, match="begun with other settings"):
        rivals.main([*arguments, "--epochs", "3"])
    changed = dataclasses.replace(OURS, model="mobilenet_v2")
    monkeypatch.setitem(rivals.RIVALS, "ours", changed)
    with pytest.raises(SystemExit, match="--only ours --overwrite"):
        rivals.main(arguments)

    # Its table, and what is not published.
    table = rivals_table.table(result)
    assert "| **ours** | `plain` |" in table
    assert f"1. failed: {error}" in table
    with pytest.raises(SystemExit, match="Only DSB2018"):
        rivals.publish(output, overwrite=False)


def test_a_job_that_takes_too_long_has_failed(arguments, tmp_path, monkeypatch):
    def too_long(*_, **__):
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(rivals, "run", too_long)
    rivals.main([*arguments, "--only", "ours", "--job-minutes", "2"])
    result = json.loads((tmp_path / "out" / "rivals.json").read_text())
    assert result["rivals"]["ours"]["errors"]["training"] == "Not done after 2 minutes."


def test_when_the_minutes_are_over_nothing_is_begun_or_recorded(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(rivals, "run", no_run)
    rivals.main([*arguments, "--minutes", "0"])
    assert "The same command goes on" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "rivals.json").read_text())
    assert result["rivals"] == {}


def test_an_installation_that_fails_is_recorded(arguments, tmp_path, monkeypatch):
    def fail(*_):
        raise subprocess.CalledProcessError(1, "pip", stderr="a\nERROR: No matching version\n\n")

    monkeypatch.setattr(rivals, "install", fail)
    rivals.main([*arguments, "--only", "missing"])
    result = json.loads((tmp_path / "out" / "rivals.json").read_text())
    assert result["rivals"]["missing"]["errors"]["speed-0"] == "ERROR: No matching version"


def test_an_environment_is_made_once_with_what_is_pinned(tmp_path, monkeypatch):
    commands = []
    listed = [
        {"name": "segmodels_keras", "version": "0.1.0.dev13"},
        {"name": "Keras", "version": "3.15.1"},
        {"name": "certifi", "version": "1"},
    ]

    def run(command, **_):
        commands.append(command)
        return json.dumps(listed)

    def make_venv(command, **_):
        command[-1].mkdir(parents=True)

    monkeypatch.setattr(rivals, "run", run)
    monkeypatch.setattr(subprocess, "run", make_venv)
    python = INSTALL("segmodels-keras", tmp_path, 60)
    assert python == tmp_path / "segmodels-keras" / "bin" / "python"
    assert commands[0][-len(ENVIRONMENTS["segmodels-keras"]) :] == [
        *ENVIRONMENTS["segmodels-keras"]
    ]
    done = json.loads((tmp_path / "segmodels-keras" / "installed.json").read_text())
    assert done["versions"] == {"keras": "3.15.1", "segmodels-keras": "0.1.0.dev13"}

    monkeypatch.setattr(rivals, "run", no_run)
    assert INSTALL("segmodels-keras", tmp_path, 60) == python


def test_rounds_go_back_and_forth():
    assert rivals.jobs(["a", "b"], 3) == [
        ("speed-0", "a"),
        ("speed-0", "b"),
        ("training", "a"),
        ("training", "b"),
        ("speed-1", "b"),
        ("speed-1", "a"),
        ("speed-2", "a"),
        ("speed-2", "b"),
    ]


def test_medians_are_of_the_rounds_that_were_whole(tmp_path):
    for index, rate in enumerate((3.0, 1.0, 2.0)):
        speed = {"parameters": 5, "train_images_per_second": rate}
        (tmp_path / f"speed-{index}.json").write_text(json.dumps({"result": speed}))
    (tmp_path / "speed-3.json").write_text(json.dumps({"error": "killed"}))
    result = rivals.summary(tmp_path, OURS)
    assert result["median"] == {"train_images_per_second": 2}
    assert result["errors"] == {"speed-3": "killed"}
    assert rivals.summary(tmp_path / "nothing", OURS) is None


def test_errors_name_no_place_of_this_machine(tmp_path):
    text = f"Traceback\nOSError: https://example.org/x and {tmp_path}/venv/a.py are gone\n"
    assert rivals.last_line(text, tmp_path) == "OSError: URL and OUTPUT/venv/a.py are gone"
    assert rivals.last_line("", tmp_path) == "It ended without a word."


def test_limit_below_the_equal_time_is_refused(capsys):
    with pytest.raises(SystemExit):
        rivals.parse(["--seconds", "10", "--limit", "5"])
    assert "--limit 5.0 must not be below --seconds 10.0" in capsys.readouterr().err


def test_publish_only_what_is_whole_and_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "RESULTS", tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(SystemExit, match="is missing"):
        rivals.publish(output, overwrite=False)
    result = {"settings": {"data": "dsb2018"}, "rivals": {"missing": {"errors": {"speed-0": "x"}}}}
    (output / "rivals.json").write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="ours are missing"):
        rivals.publish(output, overwrite=False)
    result["rivals"]["ours"] = {"median": {}, "equal_time": {}}
    (output / "rivals.json").write_text(json.dumps(result))
    rivals.publish(output, overwrite=False)
    assert json.loads((tmp_path / "rivals.json").read_text()) == result
    with pytest.raises(SystemExit, match="--overwrite"):
        rivals.publish(output, overwrite=False)
    rivals.publish(output, overwrite=True)


# -- Table ----------------------------------------------------------------------------------------


def test_table_row_says_what_was_cut():
    remarks = ["another"]
    scores = {"epochs": 1.26, "iou": 0.7, "dice": 0.8235, "accuracy": 0.95}
    rival = {
        **dataclasses.asdict(RIVALS["textbook"]),
        "parameters": 31_000_000,
        "median": {
            "train_images_per_second": 2.04,
            "inference_images_per_second": 6.66,
            "peak_memory_megabytes": 3000.4,
        },
        "equal_epochs": {**scores, "cut": True},
        "equal_time": {**scores, "epochs": 0.5},
    }
    assert rivals_table.row(rival, remarks) == (
        "| textbook U-Net, in Keras | `64 to 1024 channels` (2) | 31.0 | 2.0 | 6.7 | 3000"
        " | 0.700 (3) | 0.824 (3) | 0.5 | 0.700 | 0.824 | 0.9500 |"
    )
    assert remarks[1:] == [RIVALS["textbook"].note, "cut after 1.3 epochs"]
