"""Time from a prepared data set to a validation accuracy of 0.96: `fast` against `reference`.

    python -m benchmarks.speedrun --seeds 0 1 2

Both train in turn, each in a process of its own, on the same split of the same images at the same
size. A time holds loading, building, tracing, training and validation, up to the end of the first
epoch whose validation accuracy is high enough; not Python's imports, and not saving.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import pipeline
from benchmarks.configs import TrainConfig
from benchmarks.runs import environment, write_json

ACCURACY = 0.96
CONFIGS = ("reference", "fast")


def main(argv: list[str] | None = None) -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    parser.add_argument("--data_dir", help="where TFDS keeps prepared data sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/speedrun.json"))
    parser.add_argument("--overwrite", action="store_true")
    args = parser.parse_args(argv)
    if args.output.exists() and not args.overwrite:
        sys.exit(f"{args.output} is there already. Pass --overwrite to replace it.")

    # So that no run pays for preparing the data set, nor for reading it from a cold disk.
    pipeline.load(pipeline.DATA_SETS[args.data], "train", TrainConfig.image_size, args.data_dir)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            # Each goes first in turn.
            for config in CONFIGS if seed % 2 == 0 else reversed(CONFIGS):
                runs.append(time_run(config, seed, args.data, args.data_dir, Path(folder)))
                print(json.dumps(runs[-1]), flush=True)
    seconds = {
        config: [run["seconds"] for run in runs if run["config"] == config] for config in CONFIGS
    }
    medians = {config: statistics.median(times) for config, times in seconds.items()}
    write_json(
        args.output,
        {
            "command": "python -m benchmarks.speedrun --seeds " + " ".join(map(str, args.seeds)),
            "data": args.data,
            "accuracy": ACCURACY,
            "runs": runs,
            "median_seconds": medians,
            "ratio": medians["reference"] / medians["fast"],
            "environment": environment(),
        },
    )
    print(f"{medians} s, ratio {medians['reference'] / medians['fast']:.1f}. Wrote {args.output}")


def time_run(config: str, seed: int, data: str, data_dir: str | None, folder: Path) -> dict:
    """Train one config until the accuracy is reached and say how long it took."""
    command = [sys.executable, "-m", "benchmarks.train", "--config", config, "--seed", str(seed)]
    command += ["--data", data, "--output", str(folder), "--until-accuracy", str(ACCURACY)]
    if data_dir is not None:
        command += ["--data_dir", data_dir]
    # A fresh process, so that nothing that the other config has compiled or cached helps.
    subprocess.run(command, check=True)
    (path,) = folder.glob(f"{config}-random-seed{seed}*/train.json")
    training = json.loads(path.read_text())
    last = training["history"][-1]
    if last["val_accuracy"] < ACCURACY:
        sys.exit(f"{config}, seed {seed}, stopped at {last['val_accuracy']:.4f}, below {ACCURACY}.")
    return {
        "config": config,
        "seed": seed,
        "seconds": last["seconds"],
        "seconds_data": training["seconds_data"],
        "epochs": training["epochs_trained"],
        "validation_accuracy": last["val_accuracy"],
    }


if __name__ == "__main__":
    main()
