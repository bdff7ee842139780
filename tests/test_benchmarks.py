"""The benchmarks end to end on drawn images: split, train, interrupt, resume, score, report."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from benchmarks import configs, evaluate, pipeline, report, runs, train

TINY = configs.TrainConfig(
    encoder="plain",
    encoder_weights=None,
    decoder_filters=(8, 8, 8, 8),
    image_size=32,
    epochs=3,
    batch_size=32,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tensorflow_datasets"))


@pytest.fixture(scope="module")
def examples(data_dir):
    return pipeline.load("dsb2018/synthetic", "train", 32, data_dir)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(train.CONFIGS, "reference", TINY)


@pytest.fixture
def arguments(data_dir, tmp_path):
    return ["--data", "synthetic", "--data_dir", data_dir, "--output", str(tmp_path)]


def test_load(examples):
    assert examples.images.shape == (64, 32, 32, 3)
    assert examples.masks.shape == (64, 32, 32, 1)
    assert examples.images.dtype == examples.masks.dtype == np.uint8
    assert set(np.unique(examples.masks)) == {0, 1}
    assert list(examples.image_ids) == sorted(set(examples.image_ids))


@pytest.mark.parametrize("method", ["random", "grouped"])
def test_split(examples, method):
    parts = pipeline.split(examples, method, seed=0)
    ids = [set(part.image_ids) for part in parts.values()]
    assert set.union(*ids) == set(examples.image_ids)
    assert sum(map(len, ids)) == len(examples.image_ids)
    other = pipeline.split(examples, method, seed=1)
    assert list(other["test"].image_ids) == list(parts["test"].image_ids)
    assert list(other["train"].image_ids) != list(parts["train"].image_ids)
    if method == "random":
        assert [len(part.images) for part in parts.values()] == [45, 12, 7]
    else:
        fields = [set(part.fields_of_view) for part in parts.values()]
        assert sum(map(len, fields)) == len(set(examples.fields_of_view))


def test_split_names_the_methods(examples):
    with pytest.raises(ValueError, match=r"'k-fold'.*random, grouped"):
        pipeline.split(examples, "k-fold", seed=0)


def test_batches_come_in_an_order_of_their_own_each_epoch(examples):
    def first(seed):
        return next(iter(pipeline.batches(examples, 64, shuffle_seed=seed).as_numpy_iterator()))

    images, masks = first((0, 0))
    np.testing.assert_array_equal(first((0, 0))[0], images)
    assert not np.array_equal(first((0, 1))[0], images)

    # Images keep their masks: sorted by content, both are those of the data set.
    def pairs(images, masks):
        return sorted(i.tobytes() + m.tobytes() for i, m in zip(images, masks, strict=True))

    assert pairs(images, masks) == pairs(examples.images, examples.masks)


def test_interrupted_and_resumed_is_uninterrupted(arguments, monkeypatch, tmp_path):
    run = train.main(arguments)
    whole = keras.models.load_model(run / "model.keras").get_weights()
    whole_json = json.loads((run / "train.json").read_text())
    shutil.rmtree(run)

    save = runs.checkpoint

    def save_and_stop(run, *state):
        save(run, *state)
        # What a kill while the next checkpoint is being written leaves behind.
        (run / "checkpoints" / "partial").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(arguments)
    monkeypatch.undo()
    monkeypatch.setitem(train.CONFIGS, "reference", TINY)
    assert not (run / "train.json").exists()
    train.main(arguments)
    resumed_json = json.loads((run / "train.json").read_text())
    assert resumed_json["epochs_trained"] == whole_json["epochs_trained"] == 3
    for expected, row in zip(whole_json["history"], resumed_json["history"], strict=True):
        assert row["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
    resumed = keras.models.load_model(run / "model.keras").get_weights()
    for expected, weight in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-4)


def test_the_whole_job_on_synthetic_images_says_so(arguments, capsys):
    run = train.main(arguments)
    path = evaluate.main([str(run), *arguments[2:4]])
    assert capsys.readouterr().out.count(runs.NOT_DSB2018) == 2
    result = json.loads(path.read_text())
    assert result["config"]["image_size"] == 32
    assert result["seed"] == 0
    assert set(result["environment"]["packages"]) >= {"keras", "tensorflow"}
    assert set(result["scores"]) >= {"train", "validation", "test", "official_test"}
    for name in ("masks.png", "curves.png"):
        assert (run / name).stat().st_size > 10_000
    with pytest.raises(SystemExit, match=r"Only DSB2018 is published"):
        report.publish(run, overwrite=False)


def test_a_trained_run_is_never_overwritten_silently(arguments, monkeypatch, capsys):
    run = train.main(arguments)
    before = (run / "train.json").read_text()
    train.main(arguments)
    assert (run / "train.json").read_text() == before
    assert "trained already" in capsys.readouterr().out
    monkeypatch.setitem(train.CONFIGS, "reference", dataclasses.replace(TINY, batch_size=8))
    with pytest.raises(SystemExit, match="begun with other settings"):
        train.main(arguments)


def test_without_any_data_the_job_offers_synthetic_images(tmp_path):
    # A port where nobody listens stands for a machine without internet.
    proxy = "http://127.0.0.1:9"
    environment = {**os.environ, "HTTPS_PROXY": proxy, "https_proxy": proxy}
    environment |= {"NO_PROXY": "", "no_proxy": "", "DSB2018_DIR": ""}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--data_dir", tmp_path, "--output", tmp_path / "runs"],
        env=environment,
        cwd=report.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "python -m benchmarks --data synthetic" in result.stderr
    assert "DSB2018_DIR" in result.stderr
    assert "Traceback" not in result.stderr


COUNT_PAGES = """
import resource
import numpy as np
from benchmarks import runs

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)  # 64 MiB, which are freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usually = cleared()
runs.keep_freed_memory()
cleared()  # by which the memory is taken that is kept
print(usually, cleared())
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="only glibc can be told to")
def test_freed_memory_is_kept():
    # The system's own count: a page that is cleared is a minor fault.
    result = subprocess.run(
        [sys.executable, "-c", COUNT_PAGES],
        cwd=report.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    usually, kept = map(int, result.stdout.split())
    assert kept < usually / 5


def test_stopping():
    config = dataclasses.replace(TINY, epochs=10, patience=2)

    def history(*losses):
        return [{"val_loss": loss, "val_accuracy": 1 - loss} for loss in losses]

    assert not train.finished([], config, None)
    assert not train.finished(history(0.5, 0.4, 0.45), config, None)
    assert train.finished(history(0.5, 0.4, 0.45, 0.41), config, None)
    assert train.best_epoch(history(0.5, 0.4, 0.45, 0.41)) == 1
    assert train.finished(history(*np.linspace(1, 0.5, 10)), config, None)
    assert train.finished(history(0.5, 0.1), config, 0.9)
    assert not train.finished(history(0.5, 0.2), config, 0.9)


def test_scores_equal_scikit_learn(rng):
    masks = rng.integers(0, 2, (5, 8, 8, 1), dtype="uint8")
    probabilities = rng.random((5, 8, 8, 1)).astype("float32")
    scores = evaluate.score(masks, probabilities)
    true, pred = masks.ravel(), probabilities.ravel() > 0.5
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, pred))
    assert scores["accuracy_of_nothing"] == pytest.approx(accuracy_score(true, 0 * true))
    assert scores["dice"] == pytest.approx(f1_score(true, pred), abs=1e-6)
    assert scores["iou"] == pytest.approx(jaccard_score(true, pred), abs=1e-6)
    per_image = [
        f1_score(mask.ravel(), pred.ravel() > 0.5)
        for mask, pred in zip(masks, probabilities, strict=True)
    ]
    assert scores["per_image_dice"] == pytest.approx(np.mean(per_image), abs=1e-6)


def test_fill_replaces_what_stands_in_the_place():
    text = "a\n<!-- report:x -->\nold\n<!-- end -->\nb"
    filled = report.fill(text, {"x": r"new \1"})
    assert filled == "a\n<!-- report:x -->\nnew \\1\n<!-- end -->\nb"
    assert report.fill(filled, {"x": r"new \1"}) == filled
    with pytest.raises(ValueError, match="report:y"):
        report.fill(text, {"y": "new"})


@pytest.mark.parametrize("page", report.BLOCKS)
def test_check_sees_a_number_that_was_changed(page, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    for each in report.BLOCKS:
        shutil.copyfile(report.ROOT / each, tmp_path / each)
    shutil.copytree(report.WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "WEIGHTS", tmp_path / "weights")
    report.main(["--check"])
    text = (tmp_path / page).read_text()
    assert "| 0.9" in text
    (tmp_path / page).write_text(text.replace("| 0.9", "| 0.8", 1))
    with pytest.raises(SystemExit, match="differ"):
        report.main(["--check"])
