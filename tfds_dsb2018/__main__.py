"""Commands: `python -m tfds_dsb2018 prepare` and `python -m tfds_dsb2018 check`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_dsb2018 import verification
from tfds_dsb2018.dsb2018_dataset_builder import Builder


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; None means those of the process.

    Returns:
        Exit code: 0 success, 1 failure or damage. Wrong usage exits with 2.
    """
    arguments = _parse(argv)
    try:
        if arguments.command == "prepare":
            _prepare(arguments)
        _report(arguments)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was left behind. Start again at will.", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tfds_dsb2018",
        description="Prepares and checks the Data Science Bowl 2018 nuclei for TFDS.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="write the data set unless it is there")
    check = commands.add_parser("check", help="verify every byte and value of a prepared copy")
    for command in (prepare, check):
        command.add_argument("--config", choices=list(Builder.builder_configs), default="stage1")
        command.add_argument("--data_dir", help="TFDS's data folder (default: TFDS's own)")
    prepare.add_argument("--source", help="folder with the zip files, or with them extracted")
    arguments = parser.parse_args(argv)
    if arguments.command == "prepare" and arguments.source:
        source = Path(arguments.source).expanduser()
        if not source.is_dir():
            prepare.error(f"--source {source} is not a folder")
        arguments.source = str(source)
    return arguments


def _prepare(arguments: argparse.Namespace) -> None:
    builder = Builder(config=arguments.config, data_dir=arguments.data_dir)
    download_config = tfds.download.DownloadConfig(manual_dir=arguments.source or None)
    builder.download_and_prepare(download_config=download_config)
    print(f"{builder.info.full_name} is in {builder.data_dir}")


def _report(arguments: argparse.Namespace) -> None:
    """Verifies the copy and prints what it holds."""
    _print_table(verification.verify(arguments.config, arguments.data_dir))
    place = f", data_dir={str(arguments.data_dir)!r}" if arguments.data_dir else ""
    print(f'All is well. Read it: tfds.load("dsb2018/{arguments.config}"{place})')


def _print_table(reports: Iterable[verification.SplitReport]) -> None:
    print("split  images  nuclei  fields  digest                            modalities")
    for report in reports:
        modalities = ", ".join(f"{count} {name}" for name, count in report.modalities.items())
        print(
            f"{report.split:5} {report.num_images:7} {report.num_instances:7} "
            f"{report.num_fields:7}  {report.digest}  {modalities}"
        )


if __name__ == "__main__":
    sys.exit(main())
