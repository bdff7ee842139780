"""The main job: prepare the data set, train the reference, score it, draw it.

    python -m benchmarks                    # DSB2018, the reference recipe
    python -m benchmarks --data synthetic   # drawn nuclei, no download, two minutes

Takes the arguments of `benchmarks.train`.
"""

import sys

from benchmarks import evaluate, runs, train
from tfds_dsb2018 import SourceError


def main(argv: list[str] | None = None) -> None:
    """Train and evaluate as the command line says."""
    argv = sys.argv[1:] if argv is None else argv
    args = train.parse_arguments(argv)
    try:
        run = train.main(argv)
    except SourceError as error:
        sys.exit(
            f"{error}\n\nTo see the same job run on drawn nuclei, without any download:\n"
            "    python -m benchmarks --data synthetic"
        )
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on after the last epoch that was whole.")
    evaluate.main([str(run), *(["--data_dir", args.data_dir] if args.data_dir else [])])


if __name__ == "__main__":
    runs.keep_freed_memory()
    main()
