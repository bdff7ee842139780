"""The folder of a run: its settings, its checkpoints, its JSON, and what it ran on."""

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

import keras
import psutil

from keras_nuclei import instances
from keras_nuclei.diameters import LARGEST_DIAMETER, SMALLEST_DIAMETER
from keras_nuclei.presets import PRESETS

NOT_DSB2018 = "*** SYNTHETIC IMAGES, NOT DSB2018: these numbers say nothing about real nuclei. ***"


GLIBC_KEEPS = {-4: 0, -1: 2**31 - 1, -8: 1}
"""Options of glibc's `mallopt` (malloc.h) and their values: `M_MMAP_MAX`, `M_TRIM_THRESHOLD` and
`M_ARENA_MAX`."""


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, where the C library is glibc.

    By itself glibc gives the tensors of a training step, of some ten megabytes each, back to the
    system, which clears every page of the next step's anew: a quarter of the processor's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for option, value in GLIBC_KEEPS.items():
            mallopt(option, value)


def prepare_folder(run: Path, settings: dict) -> None:
    """Make a run's folder, or refuse one that other settings have begun."""
    path = run / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        sys.exit(
            f"{run} was begun with other settings (see {path}). Pass --overwrite to drop it, or "
            "--output for another folder."
        )
    run.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def checkpoint(run: Path, model: keras.Model, history: list[dict], best: int | None = None) -> None:
    """Keep the model of the last epoch, and of the best one, and drop the others.

    Each checkpoint is a folder that gets its name when it is whole, so that a kill at any moment
    leaves the last whole one. Keras's `BackupAndRestore` would resume the weights, but not the
    history, by which a run decides when to stop and which epoch to keep.

    Args:
        run: The run's folder.
        model: As the last epoch left it.
        history: A row for each epoch so far.
        best: Number of the best epoch, from 1; None where only the last one counts.
    """
    checkpoints = run / "checkpoints"
    partial = checkpoints / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save(partial / "model.keras")
    write_json(partial / "history.json", history)
    partial.rename(checkpoint_path(run, len(history)))
    keep = {checkpoint_path(run, epoch) for epoch in (len(history), best) if epoch}
    for folder in set(checkpoints.iterdir()) - keep:
        shutil.rmtree(folder)


def checkpoint_path(run: Path, epoch: int) -> Path:
    """Folder of the checkpoint of an epoch, counted from 1."""
    return run / "checkpoints" / f"{epoch:04d}"


def resume(run: Path) -> tuple[list[dict], keras.Model | None]:
    """History and model of the last whole checkpoint; none of them where there is none."""
    folders = sorted((run / "checkpoints").glob("[0-9]*"))
    if not folders:
        return [], None
    history = json.loads((folders[-1] / "history.json").read_text())
    return history, keras.models.load_model(folders[-1] / "model.keras")


def environment() -> dict:
    """What a time depends on, besides the code."""
    packages = ("keras", "tensorflow", "numpy", "tensorflow-datasets", "opencv-python-headless")
    if importlib.util.find_spec("onnxruntime"):
        packages += ("onnxruntime",)
    return {
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "platform": platform.platform(),
        "cpus": psutil.cpu_count(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "packages": {package: metadata.version(package) for package in packages},
    }


def trial_arguments(description: str) -> argparse.ArgumentParser:
    """The command line of a trial on the validation images of a run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, help="folder of a run on a random or grouped split")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    return parser


def load(run: Path, *, all_heads: bool = False) -> tuple[dict, keras.Model]:
    """How a preset was trained in a finished run, and the model.

    Args:
        run: The run's folder.
        all_heads: Whether the model keeps the heads that the preset has not, and that were learned
            to help the others.
    """
    training = json.loads((run / "train.json").read_text())
    model = keras.models.load_model(run / "model.keras", compile=False)
    if not all_heads:
        heads = PRESETS[training["preset"]].architecture["heads"]
        model = keras.Model(model.input, {name: model.output[name] for name in heads})
    return training, model


def training_stages(training: dict) -> list[dict]:
    """The training that led to some weights: the last, before it the one that it continued."""
    earlier = training.get("continues")
    return [*(training_stages(earlier) if earlier else []), training]


def segment_settings() -> dict:
    """How `keras_nuclei.segment` shows images and makes nuclei of maps, as JSON reads it again."""
    return {
        "diameters": [SMALLEST_DIAMETER, LARGEST_DIAMETER],
        "threshold": instances.THRESHOLD,
        "seed_thresholds": [*instances.SEED_THRESHOLDS],
        "smoothing": instances.SMOOTHING,
    }


def is_by_segment_settings(result: dict) -> bool:
    """Whether a result was measured with the settings that `keras_nuclei.segment` has now."""
    now = segment_settings()
    return {key: result.get(key) for key in now} == now


def write_json(path: Path, content: dict | list) -> None:
    """Write JSON that is whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)


def as_json(content: dict | list) -> dict | list:
    """Content as JSON reads it again, lists for tuples: to be compared with what a file holds."""
    return json.loads(json.dumps(content))


def mean(runs: list[dict], key: str) -> float:
    """Mean of a score over runs."""
    return sum(run[key] for run in runs) / len(runs)


def spread(runs: list[dict], key: str, digits: int) -> str:
    """Mean of a score, and its lowest and highest where there are several runs."""
    values = [run[key] for run in runs]
    text = f"{mean(runs, key):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f}-{max(values):.{digits}f})"
    return text
