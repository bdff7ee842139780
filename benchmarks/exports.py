"""Takes each encoder's U-Net out of Keras in each format, and compares what its runtime says.

    python -m benchmarks.exports [--only mobilenet_v2 ...] [--largest 12]

For every encoder there is (and for decoders, their options and presets) a model of random weights
is built for images of any size, exported, loaded by the runtime of the format, and run on images
of two odd sizes and two numbers of images. Where that fails, the same is tried for one fixed size.
Each entry of `benchmarks/results/exports.json` is written when it is known, so that a run that was
ended goes on where it was; `--only` and `--overwrite` measure again. Encoders of more parameters
than `--largest` millions are left out, and the table calls them not tried. What can't be exported
may take the process with it: each model has one of its own, with a time limit for each format.
About a minute for each model.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

import keras_nuclei
from benchmarks.export_formats import FORMATS, TOLERANCE, largest_difference, run_keras
from benchmarks.report import RESULTS, ROOT
from benchmarks.runs import environment, write_json
from tfds_dsb2018.synthetic import draw_field

SHAPES = ((1, 97, 75), (2, 65, 131))
"""Numbers, heights and widths of the images: no multiples of anything."""

LEAST_SPREAD = 0.1
"""Standard deviation that the probabilities must have, for a wrong result to show."""

MOMENTUM = 0.5
"""Of batch normalization, so that `settle` moves statistics half way to those of a batch.

All the way there, some channels of a random network hardly vary, are divided by that, and carry
rounding to the output: Keras's own graph then differs from its layers, called one after the other,
by 6e-4 (MobileNetV3-Small; 4e-6 with a half).
"""

DECODERS = {
    "unet": keras_nuclei.unet,
    "unetplusplus": keras_nuclei.unetplusplus,
    "fpn": keras_nuclei.fpn,
}
ENCODERS_OF_DECODERS = ("mobilenet_v3_small", "efficientnet_lite0", "mobilenet_v2")

OPTIONS = {
    "nearest, group, gate": {
        "upsampling": "nearest",
        "normalization": "group",
        "attention": "gate",
    },
    "transpose, instance, scse, dropout": {
        "upsampling": "transpose",
        "normalization": "instance",
        "attention": "scse",
        "dropout": 0.5,
    },
    "pixel shuffle, layer, residual, deep supervision": {
        "upsampling": "pixel_shuffle",
        "normalization": "layer",
        "residual": True,
        "deep_supervision": 1,
    },
    "no normalization, two heads, stride 2": {
        "normalization": None,
        "heads": {"foreground": 1, "distance": 2},
        "decoder_stride": 2,
    },
}
"""Options of decoders, each value once, tried with every decoder and a small plain encoder."""


def main(argv: list[str] | None = None) -> None:
    """Try what the command line says and has not been tried yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="names of `--list`")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--largest", type=float, default=12, help="encoder, in 1e6 parameters")
    parser.add_argument("--limit", type=int, default=600, help="processor seconds for a format")
    parser.add_argument("--output", type=Path, default=RESULTS / "exports.json")
    parser.add_argument("--overwrite", action="store_true", help="try again what was tried")
    parser.add_argument("--list", action="store_true", help="print the names of the models")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:  # the process that a model has of its own
        name, lines = args.child
        try_formats(name, args.formats, Path(lines), args.limit)
        return
    models = list(builders(args.largest))
    if args.list:
        print("\n".join(models))
        return
    unknown = sorted(set(args.only or ()) - set(builders()))
    if unknown:
        parser.error(f"there are no models {', '.join(unknown)}; see --list")
    result = begin(args.output)
    for name in args.only or models:
        entry = result["models"].setdefault(name, {"formats": {}})
        if args.overwrite:
            entry["formats"] = {}
        pending = [each for each in args.formats if each not in entry["formats"]]
        while pending:
            for line in run_child(name, pending, args.limit):
                entry |= {key: line[key] for key in ("parameters", "spread") if key in line}
                entry["formats"][line["format"]] = line["result"]
                write_json(args.output, result)
                print(f"{name} {line['format']}: {line['result']}", flush=True)
            pending = [each for each in pending if each not in entry["formats"]]


def begin(path: Path) -> dict:
    """Read the result so far, or begin one. Exits where it was begun with other versions."""
    packages = {package for each in FORMATS.values() for package in each.packages}
    versions = environment() | {"runtimes": {each: metadata.version(each) for each in packages}}
    versions = {key: versions[key] for key in ("python", "backend", "packages", "runtimes")}
    versions["packages"] = {key: versions["packages"][key] for key in ("keras", "numpy")}
    versions["runtimes"] = dict(sorted(versions["runtimes"].items()))
    fresh = {"tolerance": TOLERANCE, "shapes": SHAPES, "environment": versions, "models": {}}
    if not path.exists():
        return fresh
    result = json.loads(path.read_text())
    if result["environment"] != versions:
        sys.exit(f"{path} was begun with other versions. Remove it, or name another --output.")
    return result


def run_child(name: str, formats: list[str], limit: int) -> Iterator[dict]:
    """Try formats in a process of its own; what kills it counts for the format that it was at.

    Yields:
        What `try_formats` writes, as it comes. Fewer lines than formats where the process died.
    """
    command = [sys.executable, "-m", "benchmarks.exports", "--child", name]
    with tempfile.TemporaryDirectory() as folder:
        lines, errors = Path(folder) / "lines", Path(folder) / "errors"
        lines.touch()
        command += [str(lines), "--limit", str(limit), "--formats", *formats]
        with errors.open("w") as stderr, lines.open() as file:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            seen, code = 0, None
            while code is None:
                time.sleep(0.5)
                code = child.poll()
                for line in file.read().splitlines():
                    seen += 1
                    yield json.loads(line)
        if code > 0:  # an exception outside of any export: a mistake here
            sys.exit(f"{name} can't be tried: {errors.read_text()}")
    if seen < len(formats):
        error = f"killed its process with signal {-code}"
        if code == -signal.SIGPROF:
            error = f"not done after {limit} s of processor time"
        yield {"format": formats[seen], "result": {"errors": {"any": error}}}


def try_formats(name: str, formats: list[str], lines: Path, limit: int) -> None:
    """Try formats one after the other, and append a line of JSON for each."""
    # Without a handler this signal ends the process, also where it is not Python that is at work.
    # Of the processor's time, so that it does not matter what else the machine has to do.
    signal.setitimer(signal.ITIMER_PROF, limit)
    build = builders()[name]
    model = build(None, None)
    is_trained = name.startswith("preset ")
    draw = nuclei if is_trained else noise
    images = [draw(*shape, model.input.shape[-1]) for shape in SHAPES]
    if not is_trained:
        settle(model, images[0])
    expected = [run_keras(model, each) for each in images]
    spread = min(float(values.std()) for each in expected for values in each.values())
    if spread < LEAST_SPREAD:
        raise ValueError(f"The outputs of {name} vary by {spread:.3f} only: errors would not show.")
    for each in formats:
        signal.setitimer(signal.ITIMER_PROF, limit)
        line = {"format": each, "result": try_format(each, build, model, images, expected)}
        line |= {"parameters": model.count_params(), "spread": round(spread, 3)}
        with lines.open("a") as file:
            file.write(json.dumps(line) + "\n")


def try_format(
    name: str,
    build: Callable[[int | None, int | None], keras.Model],
    model: keras.Model,
    images: list[np.ndarray],
    expected: list[dict[str, np.ndarray]],
) -> dict:
    """Export a model of any size, or of a fixed one where that fails, and compare.

    Returns:
        `sizes`, which are "any" or "fixed"; `difference`, the largest of all outputs; `bytes` on
        disk. Without those where neither works; `errors` says what went wrong with either.
    """
    errors = {}
    try:
        return export_and_compare(name, model, images, expected) | {"sizes": "any"}
    except Exception as error:  # of any runtime, which is what is measured
        errors["any"] = clean(f"{type(error).__name__}: {error}")
    try:
        _, height, width, _ = images[0].shape
        fixed = build(height, width)
        fixed.set_weights(model.get_weights())
        fixed(images[0])
        found = export_and_compare(name, fixed, images[:1], expected[:1])
        return found | {"sizes": "fixed", "errors": errors}
    except Exception as error:
        errors["fixed"] = clean(f"{type(error).__name__}: {error}")
    return {"errors": errors}


def export_and_compare(
    name: str,
    model: keras.Model,
    images: list[np.ndarray],
    expected: list[dict[str, np.ndarray]],
) -> dict:
    """Export a model, run it elsewhere, and return `difference` and `bytes`."""
    folder = Path(tempfile.mkdtemp())
    try:
        FORMATS[name].export(model, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        run = FORMATS[name].load(folder)
        differences = [
            largest_difference(values, run(each))
            for values, each in zip(expected, images, strict=True)
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if max(differences) > TOLERANCE:
        raise ValueError(f"Outputs differ by {max(differences):.1e}.")
    return {"difference": float(f"{max(differences):.2g}"), "bytes": size}


def noise(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Images of random values 0..255."""
    shape = (number, height, width, channels)
    return np.random.default_rng(height).integers(0, 256, shape).astype("float32")


def nuclei(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Images of drawn nuclei, which are what trained models answer to; of 3 channels."""
    fields = [draw_field(index, height, width)[0] for index in range(number)]
    return np.stack(fields).astype("float32")[..., :channels]


def settle(model: keras.Model, images: np.ndarray) -> None:
    """Give a fresh model weights and statistics with which every layer does something.

    Fresh scales are 1 and shifts 0 (1e-6 and 0 in ConvNeXt), fresh statistics those of nothing:
    what applied them wrongly would go unseen. Heads are scaled until probabilities fill 0..1.

    Args:
        model: Built with `batch_norm_momentum=MOMENTUM`.
        images: A batch that fits it.
    """
    rng = np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.split("/")[-1]
        if kind == "gamma":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    model(images, training=True)
    for name, probabilities in run_keras(model, images).items():
        probabilities = np.clip(probabilities.astype("float64"), 1e-6, 1 - 1e-6)
        logits = np.log(probabilities / (1 - probabilities))
        gain = 2 / logits.std()
        kernel, bias = model.get_layer(name).weights
        kernel.assign(kernel * gain)
        bias.assign((bias - logits.mean()) * gain)


def builders(largest: float | None = None) -> dict[str, Callable]:
    """Functions of a height and a width, or None for any, that build a model, by its name.

    Args:
        largest: Leaves out encoders of more parameters than so many millions.
    """

    def builder(decoder: str, encoder: str | None = None, channels: int = 3, **options) -> Callable:
        def build(height: int | None, width: int | None) -> keras.Model:
            keras.utils.set_random_seed(0)
            shape = (height, width, channels)
            arguments = {"encoder": encoder, "encoder_weights": None, "input_shape": shape}
            if encoder is None:
                plain = keras_nuclei.encoders.plain(
                    shape, filters=(4, 8, 8), batch_norm_momentum=MOMENTUM
                )
                arguments = {"encoder": plain, "decoder_stride": 1}
            arguments |= {"batch_norm_momentum": MOMENTUM, **options}
            return DECODERS[decoder](**arguments)

        return build

    table = keras_nuclei.list_encoders().sort_values("parameters")
    if largest is not None:
        table = table[table.parameters <= largest * 1e6]
    found = {encoder: builder("unet", encoder) for encoder in table.name}
    for encoder in ENCODERS_OF_DECODERS:
        found |= {f"{each} {encoder}": builder(each, encoder) for each in ("unetplusplus", "fpn")}
    found["unet one channel"] = builder("unet", "mobilenet_v3_small", channels=1)
    for preset in keras_nuclei.PRESETS:
        found[f"preset {preset}"] = lambda height, width, preset=preset: keras_nuclei.from_preset(
            preset
        )
    for title, options in OPTIONS.items():
        found |= {f"{decoder} {title}": builder(decoder, **options) for decoder in DECODERS}
    return found


def clean(text: str) -> str:
    """The first lines of a message, in one, without what depends on the machine or leads away."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"https?://\S+", "", text)
    text = re.sub(r"(/[\w.+-]+){2,}/?", "...", text)
    text = re.sub(r"0x[0-9a-f]+", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= 300 else text[:297] + "..."


if __name__ == "__main__":
    main()
