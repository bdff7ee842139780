"""Measures what preparing the data set costs, and what reading the prepared copy saves.

    python -m benchmarks.data --source FOLDER [--output benchmarks/results/data.json]

FOLDER holds stage1_train.zip, stage1_test.zip and stage1_solution.csv. About four minutes on two
cores and 2 GB of temporary files. Times depend on the machine, so look at the ratios: both sides of
each are measured in turn, in one run, and the medians are compared.

* prepare / decode: writing the whole data set, against `cv2.imdecode` of every PNG file of both
  zip files with as many threads and nothing else.
* read / raw: images a second through `tfds.load`, all features decoded, against reading each
  image and its mask files from the extracted folder with `cv2.imread` and merging them.
* cached / raw: the same after `.cache()`, from the second epoch on.
* memory: peak resident size of a process of its own that prepares, without TensorFlow.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

import tfds_dsb2018

TARGETS = {
    "prepare_over_decode": ("at most", 1.2),
    "read_over_raw": ("at least", 20),
    "cached_over_raw": ("at least", 100),
    "peak_memory_megabytes": ("at most", 500),
}
RAW_SAMPLE = 5  # every fifth image of the raw folder is enough for a rate
PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "zlib-ng",
    "tensorflow",
    "tensorflow-datasets",
    "array_record",
)


def main() -> None:
    """Measures, prints and writes the result."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.source, Path(folder), arguments.rounds)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    for name, (relation, bound) in TARGETS.items():
        print(f"{name}: {result['ratios'][name]} ({relation} {bound} is wanted)")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text)


def parse() -> argparse.Namespace:
    """Parses the command line and refuses to overwrite a result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="folder with the zip files")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default 5)")
    parser.add_argument("--prepare-only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare_only:  # the child process whose memory is measured
        prepare(arguments.source, arguments.prepare_only)
        print(peak_kilobytes(), "tensorflow" in sys.modules)
        sys.exit()
    if arguments.output and arguments.output.exists() and not arguments.overwrite:
        parser.error(f"{arguments.output} exists; name another file or pass --overwrite")
    return arguments


def measure(source: Path, folder: Path, rounds: int) -> dict:
    """Runs all measurements; returns what becomes the JSON file."""
    times = defaultdict(list)
    for index in range(rounds):
        times["decode_seconds"].append(timed(lambda: decode_all(source)))
        data_dir = folder / f"data{index}"
        times["prepare_seconds"].append(timed(lambda to=data_dir: prepare(source, to)))
    peak_kilobytes, with_tensorflow = measure_memory(source, folder / "memory")

    raw = folder / "raw"
    with zipfile.ZipFile(source / "stage1_train.zip") as archive:
        archive.extractall(raw)
    train = load(folder / "data0")
    cached = load(folder / "data0").cache()
    data_source = tfds.data_source("dsb2018", split="train", data_dir=folder / "data0")
    for epoch in (train, cached):  # TensorFlow's first epoch builds the graph, the cache fills
        rate(epoch)
    for _ in range(rounds):
        times["raw_images_per_second"].append(rate(read_raw(raw)))
        times["read_images_per_second"].append(rate(train))
        times["cached_images_per_second"].append(rate(cached))
        times["data_source_images_per_second"].append(rate(data_source))
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    raw_rate = medians["raw_images_per_second"]
    return {
        "targets": TARGETS,
        "ratios": {
            "prepare_over_decode": round(medians["prepare_seconds"] / medians["decode_seconds"], 2),
            "read_over_raw": round(medians["read_images_per_second"] / raw_rate, 1),
            "cached_over_raw": round(medians["cached_images_per_second"] / raw_rate, 1),
            "data_source_over_raw": round(medians["data_source_images_per_second"] / raw_rate, 1),
            "peak_memory_megabytes": round(peak_kilobytes * 1024 / 1e6),
        },
        "medians": medians,
        "rounds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        "tensorflow_loaded_by_prepare": with_tensorflow,
        "prepared_megabytes": round(size_of(folder / "data0") / 1e6, 1),
        "machine": machine(),
    }


def timed(function: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rate(examples: Iterable) -> float:
    """Returns how many examples a second an iteration yields."""
    start = time.perf_counter()
    count = sum(1 for _ in examples)
    return count / (time.perf_counter() - start)


def decode_all(source: Path) -> None:
    """Decodes every PNG file of both zip files in as many threads as there are cores."""
    for name in ("stage1_train.zip", "stage1_test.zip"):
        with zipfile.ZipFile(source / name) as archive:
            groups = defaultdict(list)  # a job per image and its masks: the least overhead
            for entry in archive.namelist():
                groups[entry.split("/")[0]].append(entry)

            def decode(entries: list[str], archive: zipfile.ZipFile = archive) -> None:
                for entry in entries:
                    data = np.frombuffer(archive.read(entry), np.uint8)
                    cv2.imdecode(data, cv2.IMREAD_UNCHANGED)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(decode, groups.values()):
                    pass


def prepare(source: Path, data_dir: Path) -> None:
    """Prepares the data set from the zip files."""
    builder = tfds_dsb2018.Builder(data_dir=data_dir)
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints where the copy is
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=source)
        )


def measure_memory(source: Path, data_dir: Path) -> tuple[int, bool]:
    """Prepares in a process of its own; returns its peak in kilobytes and if it loaded TF."""
    command = [sys.executable, "-m", "benchmarks.data", "--source", source]
    child = subprocess.run(
        [*command, "--prepare-only", data_dir], capture_output=True, text=True, check=True
    )
    peak, with_tensorflow = child.stdout.split()[-2:]
    return int(peak), with_tensorflow == "True"


def peak_kilobytes() -> int:
    """Returns the peak memory of this process; what `getrusage` says begins with its parent's."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])


def load(data_dir: Path) -> Iterable:
    """Loads the prepared training split as a tf.data.Dataset; TFDS's own caching is off."""
    return tfds.load(
        "dsb2018",
        split="train",
        data_dir=data_dir,
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def read_raw(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads images from the extracted folder, one after the other, as tutorials do."""
    for image_folder in sorted(folder.iterdir())[::RAW_SAMPLE]:
        image = cv2.imread(str(next((image_folder / "images").iterdir())))
        merged = np.zeros(image.shape[:2], np.uint8)
        for mask in (image_folder / "masks").iterdir():
            np.maximum(merged, cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), out=merged)
        yield image, merged


def size_of(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> dict:
    """Describes where the numbers come from."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    main()
