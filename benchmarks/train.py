"""Train a config on DSB2018: weights, learning curves and JSON, resumable at every epoch.

    python -m benchmarks.train --config reference --seed 0

writes into `runs/reference-random-seed0/`. Started again, it goes on where it stopped.
"""

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np

import keras_nuclei
from benchmarks import pipeline, runs
from benchmarks.configs import CONFIGS, TrainConfig

SYNTHETIC_EPOCHS = 12  # enough to see that it learns, in under two minutes


def main(argv: list[str] | None = None) -> Path:
    """Train as the command line says and return the run's folder."""
    args = parse_arguments(argv)
    started = time.perf_counter()
    config = CONFIGS[args.config]
    if args.data == "synthetic":
        config = dataclasses.replace(config, epochs=min(config.epochs, SYNTHETIC_EPOCHS))
    run = args.output / run_name(args.config, args.split, args.seed, args.data)
    settings = {
        "command": f"python -m benchmarks --config {args.config} --split {args.split} "
        f"--seed {args.seed}",
        "config_name": args.config,
        "config": dataclasses.asdict(config),
        "data": args.data,
        "split": args.split,
        "seed": args.seed,
        "until_accuracy": args.until_accuracy,
    }
    settings = runs.as_json(settings)  # what is compared on resuming

    # -- A folder that belongs to this run ----------------------------------------------------
    if args.data == "synthetic":
        print(runs.NOT_DSB2018)
    if args.overwrite:
        shutil.rmtree(run, ignore_errors=True)
    runs.prepare_folder(run, settings)
    if (run / "train.json").exists():
        print(f"{run} is trained already. Pass --overwrite to train it anew.")
        return run

    # -- Data ---------------------------------------------------------------------------------
    name = pipeline.DATA_SETS[args.data]
    examples = pipeline.load(name, "train", config.image_size, args.data_dir)
    parts = pipeline.split(examples, args.split, args.seed)
    sizes = {part: len(parts[part].images) for part in parts}
    seconds_data = time.perf_counter() - started
    print(f"{run}: {sizes} images, loaded in {seconds_data:.1f} s")

    # -- Model: new, or as the last finished epoch left it --------------------------------------
    keras.utils.set_random_seed(args.seed)  # after loading: preparing a data set draws, too
    history, model = runs.resume(run)
    if model is None:
        model = build(config, steps_per_epoch=-(-sizes["train"] // config.batch_size))
    else:
        print(f"Resuming after epoch {len(history)}.")
    # Loading, building and epochs count, each once: not saving, and not what resuming repeats.
    seconds = history[-1]["seconds"] if history else time.perf_counter() - started

    # -- Epochs -------------------------------------------------------------------------------
    validation = pipeline.batches(parts["validation"], config.batch_size)
    while not finished(history, config, args.until_accuracy):
        epoch = len(history)
        train = pipeline.batches(parts["train"], config.batch_size, shuffle_seed=(args.seed, epoch))
        epoch_started = time.perf_counter()
        logs = model.fit(
            train,
            validation_data=validation,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,  # the batches are shuffled, by a seed of the epoch
        ).history
        seconds += time.perf_counter() - epoch_started
        row = {key: values[-1] for key, values in logs.items()}
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            sys.exit(f"A loss of epoch {epoch + 1} is not finite: {row}. Lower the learning rate.")
        history.append({**row, "seconds": seconds})
        runs.checkpoint(run, model, history, best_epoch(history) + 1)

    # -- What stays ---------------------------------------------------------------------------
    best = best_epoch(history)
    shutil.copyfile(runs.checkpoint_path(run, best + 1) / "model.keras", run / "model.keras")
    runs.write_json(
        run / "train.json",
        {
            **settings,
            "images": sizes,
            "parameters": model.count_params(),
            "epochs_trained": len(history),
            "best_epoch": best + 1,
            "seconds_data": seconds_data,
            "seconds": history[-1]["seconds"],
            "history": history,
            "environment": runs.environment(),
        },
    )
    shutil.rmtree(run / "checkpoints")
    print(f"Kept epoch {best + 1} of {len(history)}: {run / 'model.keras'}")
    return run


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=CONFIGS, default="reference")
    parser.add_argument("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    parser.add_argument("--split", choices=("random", "grouped"), default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument("--overwrite", action="store_true", help="train anew, drop what is there")
    parser.add_argument(
        "--until-accuracy", type=float, metavar="A", help="stop at this validation accuracy"
    )
    return parser.parse_args(argv)


def run_name(config: str, split: str, seed: int, data: str) -> str:
    """Name of a run's folder."""
    return f"{config}-{split}-seed{seed}" + ("-synthetic" if data == "synthetic" else "")


def build(config: TrainConfig, steps_per_epoch: int) -> keras.Model:
    """Build and compile the model of a config."""
    model = keras_nuclei.unet(
        config.encoder,
        input_shape=(config.image_size, config.image_size, 3),
        encoder_weights=config.encoder_weights,
        encoder_trainable=config.encoder_trainable,
        decoder_filters=config.decoder_filters,
        decoder_depth=config.decoder_depth,
        upsampling=config.upsampling,
    )
    learning_rate = config.learning_rate
    if config.cycle_epochs is not None:
        steps = config.cycle_epochs * steps_per_epoch
        learning_rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=config.learning_rate / 10,
            warmup_target=config.learning_rate,
            warmup_steps=steps // 4,
            decay_steps=steps - steps // 4,
            alpha=0.1,
        )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=config.loss,
        metrics=[
            keras.metrics.BinaryAccuracy(name="accuracy"),
            keras_nuclei.metrics.IoU(),
            keras_nuclei.metrics.Dice(),
        ],
    )
    return model


def finished(history: list[dict], config: TrainConfig, until_accuracy: float | None) -> bool:
    """Whether training is over: all epochs done, no progress, or the accuracy reached."""
    if not history:
        return False
    if until_accuracy is not None and history[-1]["val_accuracy"] >= until_accuracy:
        return True
    without_progress = len(history) - 1 - best_epoch(history)
    return len(history) >= config.epochs or without_progress >= config.patience


def best_epoch(history: list[dict]) -> int:
    """Index of the epoch with the lowest validation loss."""
    return min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"])


if __name__ == "__main__":
    runs.keep_freed_memory()
    main()
