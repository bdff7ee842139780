"""What each choice in a U-Net is worth: encoder, upsampling, normalization, width, decoder.

    python -m benchmarks.ablation               # resumes where it stopped
    python -m benchmarks.ablation --publish     # copy the result to benchmarks/results

One network and its variants, each of which changes one thing. All train on the same batches of the
reference's random split of DSB2018, resized to 128x128, for the same number of epochs, Adam's
learning rate falling to zero along a cosine, and are scored on its validation part; nobody looks at
the test part. Each is trained from several seeds, one after the other, which say how much of a
difference is chance. The time of a forward pass is measured at the end, of all in turns, so that a
slow spell of the machine hits no one alone.
"""

import argparse
import itertools
import json
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

import keras_nuclei
from benchmarks import pipeline, runs
from benchmarks.report import RESULTS

BUILDERS = {
    "unet": keras_nuclei.unet,
    "unetplusplus": keras_nuclei.unetplusplus,
    "fpn": keras_nuclei.fpn,
}
SPLIT, SPLIT_SEED = "random", 0
FIRST = {"encoder_weights": "imagenet", "upsampling": "bilinear"}
"""Arguments of the network that the others change."""
IMAGE_SIZE, BATCH_SIZE, LEARNING_RATE = 128, 16, 2e-3


@dataclass(frozen=True)
class Variant:
    """One network of the table.

    Attributes:
        changes: What of the first network it changes.
        label: The change, as the table words it.
        decoder: A key of `BUILDERS`.
        encoder: As in `keras_nuclei.unet`.
        arguments: Further arguments of the builder.
    """

    changes: str
    label: str
    decoder: str = "unet"
    encoder: str = "efficientnet_lite0"
    arguments: dict = field(default_factory=lambda: {**FIRST})


def _with(changes: str, label: str, **arguments) -> Variant:
    return Variant(changes, label, arguments={**FIRST, **arguments})


VARIANTS = {
    "base": Variant("-", "the first network"),
    # -- Encoder ------------------------------------------------------------------------------
    "random": _with("encoder", "EfficientNet-Lite0, random weights", encoder_weights=None),
    "mobilenet_v2": Variant(
        "encoder",
        "MobileNetV2, random weights",
        encoder="mobilenet_v2",
        arguments={**FIRST, "encoder_weights": None},
    ),
    "lite1": Variant("encoder", "EfficientNet-Lite1", encoder="efficientnet_lite1"),
    "lite2": Variant("encoder", "EfficientNet-Lite2", encoder="efficientnet_lite2"),
    # -- Upsampling ---------------------------------------------------------------------------
    "nearest": _with("upsampling", "nearest", upsampling="nearest"),
    "transpose": _with("upsampling", "transpose", upsampling="transpose"),
    "pixel_shuffle": _with("upsampling", "pixel_shuffle", upsampling="pixel_shuffle"),
    # -- Normalization ------------------------------------------------------------------------
    "group": _with("normalization", "group", normalization="group"),
    "instance": _with("normalization", "instance", normalization="instance"),
    "layer": _with("normalization", "layer", normalization="layer"),
    "none": _with("normalization", "none", normalization=None),
    # -- Width of the decoder -----------------------------------------------------------------
    "half": _with("decoder width", "half", decoder_filters=(128, 64, 32, 16, 8)),
    "double": _with("decoder width", "double", decoder_filters=(512, 256, 128, 64, 32)),
    # -- Decoder ------------------------------------------------------------------------------
    "gate": _with("decoder", "attention gates", attention="gate"),
    "scse": _with("decoder", "scSE", attention="scse"),
    "residual": _with("decoder", "residual", residual=True),
    "unetplusplus": Variant("decoder", "U-Net++", decoder="unetplusplus"),
    "fpn": Variant("decoder", "FPN", decoder="fpn"),
}
"""The rows, in the order of the table; the first is what the others change."""


def main(argv: list[str] | None = None) -> None:
    """Train and time the variants, or publish what was found."""
    args = parse(argv)
    if args.publish:
        publish(args.output, args.overwrite)
        return
    if args.overwrite:
        shutil.rmtree(args.output, ignore_errors=True)
    settings = {"data": args.data, "split": SPLIT, "split_seed": SPLIT_SEED, "epochs": args.epochs}
    runs.prepare_folder(args.output, settings)
    examples = pipeline.load(pipeline.DATA_SETS[args.data], "train", IMAGE_SIZE, args.data_dir)
    parts = pipeline.split(examples, SPLIT, SPLIT_SEED)
    for seed, name in tqdm(list(itertools.product(args.seeds, args.only)), desc="trainings"):
        path = run_path(args.output, name, seed)
        if not path.exists():
            runs.write_json(path, train(VARIANTS[name], parts, args.epochs, seed))
            keras.backend.clear_session()
    models = {name: build(VARIANTS[name]) for name in args.only}
    times = forward_times(models, parts["validation"].images[:BATCH_SIZE], args.rounds)
    parameters = {name: model.count_params() for name, model in models.items()}
    write_result(args, settings, parts, times, parameters)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    add("--data_dir", help="where TFDS keeps prepared data sets")
    add("--output", type=Path, default=Path("runs/ablation"), help="default: runs/ablation")
    add("--only", nargs="+", choices=VARIANTS, default=[*VARIANTS], metavar="NAME")
    add("--seeds", nargs="+", type=int, default=[0, 1], help="of the trainings (default 0 1)")
    add("--epochs", type=int, default=3, help="of each variant (default 3)")
    add("--rounds", type=int, default=5, help="forward passes that are timed (default 5)")
    add("--overwrite", action="store_true", help="train (or publish) anew what is there")
    add("--publish", action="store_true", help="copy the result, measure nothing")
    return parser.parse_args(argv)


def run_path(output: Path, name: str, seed: int) -> Path:
    """Where the scores of a variant, trained from a seed, are kept."""
    return output / f"{name}-seed{seed}.json"


def build(variant: Variant) -> keras.Model:
    """Build the network of a variant, for any size of image."""
    return BUILDERS[variant.decoder](variant.encoder, **variant.arguments)


def train(variant: Variant, parts: dict[str, pipeline.Examples], epochs: int, seed: int) -> dict:
    """Train a variant from a seed and score it on the validation part."""
    keras.utils.set_random_seed(seed)
    model = build(variant)
    steps = epochs * -(-len(parts["train"].images) // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)),
        keras.losses.BinaryCrossentropy(),
    )
    started = time.perf_counter()
    with keras_nuclei.fused_batch_norm():
        for epoch in range(epochs):
            batches = pipeline.batches(parts["train"], BATCH_SIZE, shuffle_seed=(seed, epoch))
            model.fit(batches, shuffle=False, verbose=0)
    seconds = time.perf_counter() - started
    model.compile(
        metrics=[
            keras.metrics.BinaryAccuracy(name="accuracy"),
            keras_nuclei.metrics.IoU(),
            keras_nuclei.metrics.Dice(),
        ],
        loss=keras.losses.BinaryCrossentropy(),
    )
    validation = pipeline.batches(parts["validation"], BATCH_SIZE)
    scores = model.evaluate(validation, verbose=0, return_dict=True)
    return {"seed": seed, "training_seconds": seconds, **scores}


def forward_times(
    models: dict[str, keras.Model], images: np.ndarray, rounds: int
) -> dict[str, float]:
    """Seconds per image of a forward pass of each model: the median of passes in turns."""
    for model in models.values():
        model.predict_on_batch(images)  # traces it
    seconds = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            model.predict_on_batch(images)
            seconds[name].append((time.perf_counter() - started) / len(images))
    return {name: statistics.median(values) for name, values in seconds.items()}


def write_result(
    args: argparse.Namespace, settings: dict, parts: dict, times: dict, parameters: dict
) -> None:
    """Join what the variants scored in one JSON file."""
    rows = {}
    for name in args.only:
        variant = VARIANTS[name]
        paths = [run_path(args.output, name, seed) for seed in args.seeds]
        rows[name] = {
            "changes": variant.changes,
            "label": variant.label,
            "decoder": variant.decoder,
            "encoder": variant.encoder,
            "arguments": variant.arguments,
            "parameters": parameters[name],
            "seconds_per_image": times[name],
            "runs": [json.loads(path.read_text()) for path in paths],
        }
    masks = parts["validation"].masks
    runs.write_json(
        args.output / "ablation.json",
        {
            "command": "python -m benchmarks.ablation",
            **settings,
            "seeds": args.seeds,
            "image_size": IMAGE_SIZE,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "images": {part: len(parts[part].images) for part in ("train", "validation")},
            "accuracy_of_nothing": float(1 - masks.mean()),
            "variants": rows,
            "environment": runs.environment(),
        },
    )
    print(f"Wrote {args.output / 'ablation.json'}")


def publish(output: Path, overwrite: bool) -> None:
    """Copy the result of all variants on DSB2018 to the results."""
    result = json.loads((output / "ablation.json").read_text())
    target = RESULTS / "ablation.json"
    if result["data"] != "dsb2018" or set(result["variants"]) != set(VARIANTS):
        raise SystemExit(f"{output} does not hold all variants on dsb2018. Nothing was copied.")
    if target.exists() and not overwrite:
        raise SystemExit(f"{target} exists. Pass --overwrite to replace it.")
    runs.write_json(target, result)
    print(f"Wrote {target}")


if __name__ == "__main__":
    main()
