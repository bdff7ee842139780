"""Measures what segmenting images costs, from files on disk to label maps on disk.

    python -m benchmarks.inference [--output benchmarks/results/inference.json]

The official test images are written as PNG files, segmented by each preset as
`keras_nuclei.segment` does, and their label maps written as TIFF files; each step is timed. Beside
it stands the floor: what the network takes for as many pixels in a tight loop of forward passes.
Times depend on the machine, so look at the shares and ratios: what is compared is timed in turns,
and of the rounds the shortest counts, which other work on the machine has disturbed least.

Where ONNX Runtime or OpenVINO are installed, their forward passes are timed next to Keras's. What
all but the network costs by pixels and by nuclei is timed on drawn nuclei, with a model that costs
nothing. About ten minutes on two cores.
"""

import argparse
import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import matplotlib
import numpy as np

import keras_nuclei
from benchmarks import nuclei
from benchmarks.data import peak_kilobytes, timed
from benchmarks.runs import environment, segment_settings, write_json
from keras_nuclei import export, images, runtimes
from keras_nuclei.tiling import TILE_SIZE

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIZES = (256, 512, 1024, 2048)
STEPS = ("reading", "network", "separation", "writing")
SPACING = 40
"""Pixels from one drawn nucleus to the next, of 28 across."""
BY_PIXELS = [(size, SPACING) for size in (512, 1024, 2048, 4096, 8192)]
BY_NUCLEI = [(2048, spacing) for spacing in (160, 80, 56, SPACING, 32)]
"""Size of a drawn image, and spacing of its nuclei."""


def main(argv: list[str] | None = None) -> None:
    """Measure as the command line says, print, and write the result and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--output", type=Path, help="JSON file to write, and a PNG beside it")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default 5)")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.memory_of:  # the child process whose memory is measured
        name, file = args.memory_of
        keras_nuclei.segment(images.read_image(file), name)
        print(peak_kilobytes())
        return
    if args.output and args.output.exists() and not args.overwrite:
        parser.error(f"{args.output} exists; name another file or pass --overwrite")

    official = nuclei.load("dsb2018", "test", args.data_dir)
    weights = {name: preset.sha256 for name, preset in keras_nuclei.PRESETS.items()}
    settings = {"weights": weights, **segment_settings()}
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(official, Path(folder))
        presets = measure_presets(files, args.rounds)
    print(json.dumps(presets, indent=1))
    separation = measure_separation([*BY_PIXELS, *BY_NUCLEI], args.rounds)
    result = {
        "presets": presets,
        "environment": environment(),
        **settings,
        "separation": {
            "by_pixels": [separation[each] for each in BY_PIXELS],
            "by_nuclei": [separation[each] for each in BY_NUCLEI],
        },
    }
    if args.output:
        write_json(args.output, result)
        draw(result, args.output.with_suffix(".png"))


def write_images(rows: list[nuclei.NucleiImage], folder: Path) -> dict[str, list[Path]]:
    """Write the official test images, and mosaics of them in squares, as PNG files."""
    files = defaultdict(list)
    for row in rows:
        path = folder / f"{row.image_id[:12]}.png"
        cv2.imwrite(str(path), cv2.cvtColor(row.image, cv2.COLOR_RGB2BGR))
        files["official test"].append(path)
    tiles = [row.image for row in rows if row.image.shape[:2] == (256, 256)]
    for size in SIZES:
        count = size // 256
        order = np.arange(count**2).reshape(count, count) % len(tiles)
        mosaic = np.block([[[tiles[index]] for index in line] for line in order])
        path = folder / f"mosaic{size}.png"
        cv2.imwrite(str(path), cv2.cvtColor(mosaic, cv2.COLOR_RGB2BGR))
        files[str(size)].append(path)
    return files


def in_turns(measure: Callable[..., dict[str, float]], cases: dict, rounds: int) -> dict:
    """What is measured of each case, one after the other and round by round; the shortest time."""
    times = defaultdict(list)
    for _ in range(rounds):
        for name, case in cases.items():
            times[name].append(measure(case))
    return {
        name: {key: min(each[key] for each in found) for key in found[0]}
        for name, found in times.items()
    }


def measure_presets(files: dict[str, list[Path]], rounds: int) -> dict[str, dict[str, dict]]:
    """Times of each preset by group of files."""
    fastest = {name: runtimes.fastest(name) for name in keras_nuclei.PRESETS}
    models = {name: as_function(model) for name, model in fastest.items()}
    result: dict[str, dict[str, dict]] = {name: {} for name in models}
    for group, paths in files.items():
        # Keras compiles every size once, when it is first seen: that is not what is measured.
        for path, model in itertools.product(paths, models.values()):
            steps(path, model, path.with_suffix(".tif"))
        pixels = {path: images.read_image(path)[..., 0].size for path in paths}
        for name, times in in_turns(functools.partial(time_group, paths), models, rounds).items():
            total = sum(times[step] for step in STEPS)
            result[name][group] = {
                "runtime": "Keras" if isinstance(fastest[name], keras.Model) else "ONNX Runtime",
                "images": len(paths),
                "pixels": sum(pixels.values()),
                "images_per_second": len(paths) / total,
                "seconds": times,
                "network_share": times["network"] / total,
                "network_over_floor": times["network"] / times["floor"],
                "peak_memory_megabytes": memory(name, max(paths, key=pixels.__getitem__)),
                "forward_pass": compare_runtimes(name, paths[-1]) if group == "512" else None,
            }
    return result


def as_function(model: keras.Model | Callable) -> Callable:
    """The model as a function of a batch."""
    return model.predict_on_batch if isinstance(model, keras.Model) else model


def time_group(paths: list[Path], model: Callable) -> dict[str, float]:
    """Seconds of each step, summed over files, and of the floor."""
    totals: dict[str, float] = defaultdict(float)
    tile_seconds: dict[tuple[int, ...], float] = {}
    for path in paths:
        for step, seconds in steps(path, model, path.with_suffix(".tif")).items():
            totals[step] += seconds
        image = images.normalize(images.read_image(path))
        tile = image[None, :TILE_SIZE, :TILE_SIZE]
        if tile.shape not in tile_seconds:
            tile_seconds[tile.shape] = forward_pass(tile, model)
        totals["floor"] += tile_seconds[tile.shape] * image.size / tile.size
    return totals


class Stopwatch:
    """A model that notes how long it is at work."""

    def __init__(self, model: Callable):
        self.model = model
        self.seconds = 0.0

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        maps = self.model(batch)
        self.seconds += time.perf_counter() - start
        return maps


def steps(path: Path, model: Callable, output: Path) -> dict[str, float]:
    """Segment a file and write its label map; seconds of each step.

    The network is its forward passes alone. Separation is all else that `segment` does: contrast,
    tiles, blending, watershed.
    """
    watch = Stopwatch(model)
    clock = [time.perf_counter()]
    image = images.read_image(path)
    clock.append(time.perf_counter())
    label_map = keras_nuclei.segment(image, watch)
    clock.append(time.perf_counter())
    export.write_labels(output, label_map)
    clock.append(time.perf_counter())
    reading, segmenting, writing = np.diff(clock).tolist()
    return {
        "reading": reading,
        "network": watch.seconds,
        "separation": segmenting - watch.seconds,
        "writing": writing,
    }


def forward_pass(batch: np.ndarray, model: Callable, calls: int = 10) -> float:
    """Seconds that the network alone takes for a batch, the median of calls in a tight loop."""
    model(batch)
    return statistics.median(timed(lambda: model(batch)) for _ in range(calls))


def compare_runtimes(name: str, path: Path) -> dict[str, dict[str, float]]:
    """Seconds of a forward pass by Keras and by other runtimes, and how far those differ."""
    batch = images.read_image(path)[None].astype("float32")
    model = keras_nuclei.from_preset(name)
    expected = model.predict_on_batch(batch)
    runs = {"keras": lambda: model.predict_on_batch(batch)}
    with contextlib.suppress(ImportError), tempfile.TemporaryDirectory() as folder:
        import openvino

        model.export(folder, format="tf_saved_model", verbose=False)
        compiled = openvino.Core().compile_model(
            openvino.convert_model(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        runs["openvino"] = lambda: {
            output.get_any_name(): values for output, values in compiled(batch).items()
        }
    with contextlib.suppress(ImportError):
        by_onnx = runtimes.onnx_runner(name)
        runs["onnxruntime"] = lambda: by_onnx(batch)
    found = {runtime: run() for runtime, run in runs.items()}
    times = in_turns(lambda run: {"seconds": timed(run)}, runs, rounds=5)
    return {
        runtime: {
            **seconds,
            "largest_difference": max(
                float(np.abs(found[runtime][head] - values).max())
                for head, values in expected.items()
            ),
        }
        for runtime, seconds in times.items()
    }


def memory(name: str, path: Path) -> float:
    """Peak memory of a process of its own that segments a file, in megabytes."""
    command = [sys.executable, "-m", "benchmarks.inference", "--memory-of", name, path]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(int(child.stdout.split()[-1]) * 1024 / 1e6)


def measure_separation(
    drawn: list[tuple[int, int]], rounds: int
) -> dict[tuple[int, int], dict[str, float]]:
    """Seconds that all of `segment` but the network takes for square images of drawn nuclei.

    Args:
        drawn: Size of each image and spacing of its nuclei, in pixels.
        rounds: Number of measurements of each.
    """

    def measure(image: np.ndarray) -> dict[str, float]:
        start = time.perf_counter()
        label_map = keras_nuclei.segment(image, read_off, scale=1)
        seconds = time.perf_counter() - start
        return {"size": len(image), "nuclei": int(label_map.max()), "seconds": seconds}

    return in_turns(measure, {each: draw_nuclei(*each) for each in drawn}, rounds)


def draw_nuclei(size: int, spacing: int) -> np.ndarray:
    """Draw round nuclei in rows and columns, brightest in the middle: uint8 `(size, size)`."""
    down, right = np.ogrid[:size, :size]
    apart = np.hypot(down % spacing - spacing // 2, right % spacing - spacing // 2)
    return np.rint(255 * np.clip(1 - apart / 14, 0, 1)).astype("uint8")


def read_off(batch: np.ndarray) -> dict[str, np.ndarray]:
    """A model of images that show their own distance map."""
    distance = batch[..., :1] / 255
    return {"foreground": (distance > 0).astype("float32"), "distance": distance}


def draw(result: dict, path: Path) -> None:
    """Draw the time over the pixels, of all and of all but the network, and over the nuclei."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for name, groups in result["presets"].items():
        points = [groups[str(size)] for size in SIZES]
        pixels = [point["pixels"] / 1e6 for point in points]
        seconds = [1 / point["images_per_second"] for point in points]
        axes[0].loglog(pixels, seconds, "o-", label=name)
        floor = [point["seconds"]["floor"] for point in points]
        colour = axes[0].lines[-1].get_color()
        axes[0].loglog(pixels, floor, "x:", color=colour, label=f"{name}, floor")
    axes[0].set(xlabel="megapixels", ylabel="seconds", title="From file to label map")
    points = result["separation"]["by_pixels"]
    pixels = [point["size"] ** 2 / 1e6 for point in points]
    axes[1].loglog(pixels, [point["seconds"] for point in points], "o-", label="measured")
    title = f"Without the network, {points[-1]['nuclei']:,} nuclei at most"
    axes[1].set(xlabel="megapixels", ylabel="seconds", title=title)
    for axis in axes[:2]:
        draw_slope(axis)
    points = result["separation"]["by_nuclei"]
    counts, seconds = ([point[key] for point in points] for key in ("nuclei", "seconds"))
    axes[2].plot(counts, seconds, "o", label="measured")
    line = np.polynomial.Polynomial.fit(counts, seconds, 1)
    axes[2].plot(*line.linspace(2, [0, max(counts)]), "--", color="grey", label="best line")
    size = points[0]["size"]
    axes[2].set(xlabel="nuclei", ylabel="seconds", title=f"Without the network, {size}x{size}")
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_slope(axis) -> None:
    """Draw how time grows that is proportional, from where the first line begins."""
    x, y = axis.lines[0].get_data()
    axis.loglog(
        [x[0], x[-1]], [y[0], y[0] * x[-1] / x[0]], "--", color="grey", label="proportional"
    )


if __name__ == "__main__":
    main()
