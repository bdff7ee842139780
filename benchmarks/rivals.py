"""Our U-Nets beside those of other libraries: speed, memory and quality on the same images.

    python -m benchmarks.rivals                # everything; resumes where it stopped
    python -m benchmarks.rivals --minutes 60   # an hour of it; the same command goes on
    python -m benchmarks.rivals --only textbook ours-plain
    python -m benchmarks.rivals --publish      # copy the result to benchmarks/results

Each library gets a virtual environment of its own, with pinned versions, and each measurement a
process of its own, one after the other. All get the same arrays: stage1_train of DSB2018 resized
to 128x128, and of it the training and validation part of the reference's random split. All begin
with random weights, but for one row of ours that says so, and train with the same batches in the
same order, binary cross-entropy and Adam.

* Speed: training steps and forward passes for some seconds after a warm-up, in several rounds
  whose order alternates; the medians count.
* Quality: one training of each, scored on the validation part after so many epochs (or at the time
  limit, which the slowest hit) and after so many seconds of training steps.

A library that can't be installed, or a model that fails, is in the result with its error.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import pipeline
from benchmarks.configs import CONFIGS
from benchmarks.report import RESULTS, ROOT
from benchmarks.rivals_catalog import ENVIRONMENTS, RIVALS, Rival
from benchmarks.runs import environment, prepare_folder, write_json

RUNNER = Path(__file__).with_name("rivals_runner.py")
SPLIT, SEED = "random", 0


class OutOfTimeError(Exception):
    """The minutes that the command line allows are over."""


def main(argv: list[str] | None = None) -> None:
    """Measure, or publish, as the command line says."""
    args = parse(argv)
    if args.publish:
        publish(args.output, args.overwrite)
        return
    deadline = time.monotonic() + args.minutes * 60
    if args.overwrite:
        for name in args.only:
            shutil.rmtree(args.output / "jobs" / name, ignore_errors=True)
        if set(args.only) == set(RIVALS):
            (args.output / "settings.json").unlink(missing_ok=True)
    settings = settings_of(args)
    prepare_folder(args.output, settings)
    arrays = write_arrays(args)
    try:
        for kind, name in jobs(args.only, args.rounds):
            measure(args, settings, kind, name, arrays, deadline)
            merge(args.output, settings, arrays)
    except OutOfTimeError:
        print(f"The {args.minutes:g} minutes are over. The same command goes on.")
    merge(args.output, settings, arrays)
    print(f"Wrote {args.output / 'rivals.json'}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", choices=pipeline.DATA_SETS, default="dsb2018")
    add("--data_dir", help="where TFDS keeps prepared data sets")
    add("--output", type=Path, default=Path("runs/rivals"), help="default: runs/rivals")
    add("--only", nargs="+", choices=RIVALS, default=[*RIVALS], metavar="NAME", help="rows to do")
    add("--rounds", type=int, default=3, help="measurements of the speed (default 3)")
    add("--speed-seconds", type=float, default=10, help="of each of its two phases (default 10)")
    add("--epochs", type=int, default=3, help="equal epochs (default 3)")
    add("--seconds", type=float, default=120, help="equal time of training steps (default 120)")
    add("--limit", type=float, default=240, help="seconds that cut the epochs (default 240)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    add("--minutes", type=float, default=24 * 60, help="after which it stops, to be resumed")
    add("--job-minutes", type=float, default=20, help="after which a job counts as failed")
    add("--overwrite", action="store_true", help="measure (or publish) anew what is there")
    add("--publish", action="store_true", help="copy the result, measure nothing")
    args = parser.parse_args(argv)
    if args.limit < args.seconds:
        parser.error(f"--limit {args.limit} must not be below --seconds {args.seconds}")
    return args


def settings_of(args: argparse.Namespace) -> dict:
    """What all measurements in a folder share."""
    config = CONFIGS["reference"]
    return {
        "data": args.data,
        "split": SPLIT,
        "seed": SEED,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "speed_seconds": args.speed_seconds,
        "epochs": args.epochs,
        "seconds": args.seconds,
        "limit": args.limit,
        "threads": args.threads,
    }


def write_arrays(args: argparse.Namespace) -> Path:
    """Write the images and masks that every rival reads, once."""
    path = args.output / "arrays.npz"
    if not path.exists():
        size = CONFIGS["reference"].image_size
        examples = pipeline.load(pipeline.DATA_SETS[args.data], "train", size, args.data_dir)
        parts = pipeline.split(examples, SPLIT, SEED)
        partial = path.with_name("partial.npz")
        np.savez(
            partial,
            train_images=parts["train"].images,
            train_masks=parts["train"].masks,
            validation_images=parts["validation"].images,
            validation_masks=parts["validation"].masks,
        )
        partial.replace(path)
    return path


def jobs(names: list[str], rounds: int) -> list[tuple[str, str]]:
    """Kinds of jobs and names of rivals, in the order in which they are done.

    The first round of speed and the training come first, so that an early end leaves a whole
    table; further rounds go back and forth, so that a slow spell of the machine hits no one alone.
    """
    order = [("speed-0", name) for name in names] + [("training", name) for name in names]
    for index in range(1, rounds):
        order += [(f"speed-{index}", name) for name in (names[::-1] if index % 2 else names)]
    return order


def measure(
    args: argparse.Namespace, settings: dict, kind: str, name: str, arrays: Path, deadline: float
) -> None:
    """Do a job, or leave it where it is done, and record its result or its error.

    Raises:
        OutOfTimeError: If the deadline comes first. The job is then as if it had not begun.
    """
    rival, path = RIVALS[name], args.output / "jobs" / name / f"{kind}.json"
    job = {**settings, **dataclasses.asdict(rival), "kind": kind.split("-")[0]}
    if path.exists():
        if json.loads(path.read_text())["job"] != job:
            sys.exit(
                f"{path} was measured with other arguments than {name} has now. Measure it anew: "
                f"python -m benchmarks.rivals --only {name} --overwrite"
            )
        return
    if time.monotonic() >= deadline:
        raise OutOfTimeError
    print(f"{kind} of {name}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".job"), job)
    seconds = min(args.job_minutes * 60, deadline - time.monotonic())
    try:
        python = install(rival.library, args.output / "environments", seconds)
        run(
            [python, "-P", RUNNER, path.with_suffix(".job"), arrays, path],
            log=path.with_suffix(".log"),
            environment=child_environment(args.threads),
            timeout=min(args.job_minutes * 60, deadline - time.monotonic()),
        )
    except subprocess.TimeoutExpired as error:
        if time.monotonic() >= deadline:
            raise OutOfTimeError from error
        write_json(path, {"job": job, "error": f"Not done after {args.job_minutes:g} minutes."})
    except subprocess.CalledProcessError as error:
        message = last_line(error.stderr, args.output)
        print(f"  failed: {message}")
        write_json(path, {"job": job, "error": message})


def install(library: str, folder: Path, timeout: float) -> Path:
    """Make the environment of a library where it isn't yet, and name its Python.

    Raises:
        subprocess.CalledProcessError: If `pip` fails.
        subprocess.TimeoutExpired: If it takes longer than `timeout` seconds.
    """
    home = folder / library
    python, done = home / "bin" / "python", home / "installed.json"
    requirements = list(ENVIRONMENTS[library])
    if done.exists() and json.loads(done.read_text())["requirements"] == requirements:
        return python
    print(f"Installing {library}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    log = folder / f"{library}.log"
    run([python, "-m", "pip", "install", "--quiet", *requirements], log=log, timeout=timeout)
    listed = run([python, "-m", "pip", "list", "--format", "json"], log=log)
    versions = {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed)}
    # What was asked for, and what carries it; not the hundred packages that these bring.
    wanted = {re.split("[=[]", each)[0].lower() for each in requirements}
    wanted |= {"keras-nuclei", "timm"}
    write_json(
        done,
        {
            "requirements": requirements,
            "versions": {key: versions[key] for key in sorted(wanted & set(versions))},
        },
    )
    return python


def run(
    command: list, *, log: Path, environment: dict | None = None, timeout: float | None = None
) -> str:
    """Run a command in the root of this project; keep what it says, and return its output.

    Raises:
        subprocess.CalledProcessError: If it fails.
        subprocess.TimeoutExpired: If it takes longer than `timeout` seconds.
    """
    child = subprocess.run(
        [str(each.absolute()) if isinstance(each, Path) else each for each in command],
        cwd=ROOT,
        env=environment,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    log.write_text(child.stdout + child.stderr)
    child.check_returncode()
    return child.stdout


def child_environment(threads: int) -> dict[str, str]:
    """This environment, with so many threads for every numerical library, and on TensorFlow."""
    libraries = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    counts = {f"{library}_THREADS": str(threads) for library in libraries}
    fixed = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": ""}
    return {**os.environ, **counts, **fixed}


def last_line(text: str, output: Path) -> str:
    """The last line of an error, which names its kind, without places on this machine."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    line = lines[-1] if lines else "It ended without a word."
    for folder, name in ((output.absolute(), "OUTPUT"), (ROOT, "ROOT"), (Path.home(), "~")):
        line = line.replace(str(folder), name)
    return re.sub(r"\w+://\S+", "URL", line)[:300]


def merge(output: Path, settings: dict, arrays: Path) -> dict:
    """Join all that is measured so far in one JSON file."""
    rivals = {name: summary(output / "jobs" / name, rival) for name, rival in RIVALS.items()}
    with np.load(arrays) as parts:
        sizes = {part: len(parts[f"{part}_images"]) for part in ("train", "validation")}
        digest = hashlib.sha256(b"".join(parts[key].tobytes() for key in sorted(parts))).hexdigest()
    result = {
        "command": "python -m benchmarks.rivals",
        "settings": settings,
        "images": sizes,
        "arrays_sha256": digest,
        "rivals": {name: each for name, each in rivals.items() if each is not None},
        "environments": {
            path.parent.name: json.loads(path.read_text())
            for path in sorted((output / "environments").glob("*/installed.json"))
        },
        "environment": environment(),
    }
    write_json(output / "rivals.json", result)
    return result


def summary(folder: Path, rival: Rival) -> dict | None:
    """What the jobs of a rival found; None where none is done."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not found:
        return None
    result = dataclasses.asdict(rival)
    errors = {kind: each["error"] for kind, each in found.items() if "error" in each}
    if errors:
        result["errors"] = errors
    rounds = [
        each["result"] for kind, each in found.items() if kind[:5] == "speed" and "result" in each
    ]
    if rounds:
        result["parameters"] = rounds[0]["parameters"]
        result["median"] = {
            key: statistics.median(each[key] for each in rounds)
            for key in rounds[0]
            if key != "parameters"
        }
        result["rounds"] = rounds
    if "result" in found.get("training", {}):
        training = found["training"]["result"]
        result["equal_epochs"] = training["equal_epochs"]
        result["equal_time"] = training["equal_time"]
    return result


def publish(output: Path, overwrite: bool) -> None:
    """Copy the result, if it is whole and of DSB2018, to the results."""
    path, target = output / "rivals.json", RESULTS / "rivals.json"
    if not path.exists():
        sys.exit(f"{path} is missing. Run: python -m benchmarks.rivals --output {output}")
    result = json.loads(path.read_text())
    if result["settings"]["data"] != "dsb2018":
        sys.exit(f"{path} is of {result['settings']['data']} images. Only DSB2018 is published.")
    undone = [
        name
        for name in RIVALS
        if not {"median", "equal_time"} <= set(result["rivals"].get(name, ()))
        and "errors" not in result["rivals"].get(name, ())
    ]
    if undone:
        sys.exit(f"{path} is not whole; {', '.join(undone)} are missing. The same command goes on.")
    if target.exists() and not overwrite:
        sys.exit(f"{target} exists already. Pass --overwrite to replace it.")
    shutil.copyfile(path, target)


if __name__ == "__main__":
    main()
