"""Makes `tfds_dsb2018/digests.csv`, the table that every copy of the data set is checked against.

    python -m benchmarks.digests --source FOLDER --output digests.csv

The folder holds stage1_train.zip, stage1_test.zip, stage1_solution.csv and annotation_fixes.zip.
Their content is then taken as the truth. It takes about half a minute on two cores.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from tqdm import tqdm

from tfds_dsb2018 import archives, contents, masks, sources
from tfds_dsb2018.examples import map_in_threads


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    def opened(name: str) -> archives.Archive:
        return archives.open_archive(arguments.source / name)

    train, fixes = opened("stage1_train.zip"), opened("annotation_fixes.zip")
    original = sources.train_readers(train)
    corrected_ids = {name.split("/")[0] for name in fixes.names} - contents.REMOVED_BY_CORRECTION
    corrected = {
        image_id: reader
        for image_id, reader in sources.train_readers(train, fixes).items()
        if image_id in corrected_ids
    }
    test = sources.test_readers(opened("stage1_test.zip"), opened("stage1_solution.csv"))
    jobs = [
        (annotation, image_id, readers[image_id])
        for annotation, readers in (("original", original | test), ("corrected", corrected))
        for image_id in sorted(readers)
    ]

    def digest(job: tuple[str, str, sources.Reader]) -> tuple[str, str, int, str]:
        annotation, image_id, reader = job
        image, instances = reader()
        return annotation, image_id, instances.max(), masks.content_digest(image, instances)

    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["annotation", "image_id", "num_instances", "digest"])
        writer.writerows(tqdm(map_in_threads(digest, jobs), total=len(jobs)))


if __name__ == "__main__":
    main()
