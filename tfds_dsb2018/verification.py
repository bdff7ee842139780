"""Verifies a prepared copy: every byte, every value, and that it is what was published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tfds_dsb2018 import contents, dsb2018_dataset_builder, masks, records
from tfds_dsb2018.examples import map_in_threads
from tfds_dsb2018.modality import MODALITIES, modality_of

REMEDY = "Delete the folder {folder} and prepare it again."


class DamagedCopyError(ValueError):
    """A prepared copy is not what it should be; the message says where and the remedy."""


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """What was found in one split of a whole copy.

    Attributes:
        split: Its name.
        num_images: Number of images.
        num_instances: Number of nuclei.
        modalities: Number of images by modality.
        num_fields: Number of fields of view.
        digest: Digest of all images and label maps.
    """

    split: str
    num_images: int
    num_instances: int
    modalities: dict[str, int]
    num_fields: int
    digest: str


def verify(config: str, data_dir: str | None = None) -> Iterator[SplitReport]:
    """Verifies a prepared copy, split by split.

    Args:
        config: Name of a config.
        data_dir: TFDS's data folder; None is TFDS's default.

    Yields:
        A report for each split that is whole.

    Raises:
        FileNotFoundError: There is no prepared copy.
        DamagedCopyError: It is damaged or incomplete.
    """
    # The folder alone is needed here; a damaged dataset_info.json must not stop us yet.
    name = dsb2018_dataset_builder.Builder.name
    version = str(dsb2018_dataset_builder.Builder.VERSION)
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder = root / name / config / version
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist. Prepare it: python -m tfds_dsb2018 prepare --config {config}"
        )
    try:
        builder = tfds.builder_from_directory(folder)
        described = set(builder.info.features)
    except Exception as error:  # the files are arbitrary bytes, and so are TFDS's exceptions
        raise DamagedCopyError(
            f"{folder} cannot be opened ({error}). " + REMEDY.format(folder=folder)
        ) from error
    for split, facts in dsb2018_dataset_builder.expected(config).items():
        try:
            yield _verify_split(builder, split, facts, described)
        except (records.DamagedRecordError, OSError, KeyError, ValueError) as error:
            message = f"Split {split!r} of {folder} is damaged: {error} "
            raise DamagedCopyError(message + REMEDY.format(folder=folder)) from error


def _verify_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    facts: dict[str, contents.ImageFacts],
    described: set[str],
) -> SplitReport:
    serialized = _read_records(builder, split)
    declared = builder.info.splits[split].num_examples
    if not len(serialized) == declared == len(facts):
        raise DamagedCopyError(
            f"there are {len(serialized)} images, {declared} are declared, {len(facts)} were "
            "published."
        )

    def examine(record: bytes) -> tuple[str, str, int, str]:
        example = builder.info.features.deserialize_example_np(record)
        return _examine(example, facts, described)

    rows = list(map_in_threads(examine, serialized))
    ids = [row[0] for row in rows]
    if len(set(ids)) != len(facts):
        raise DamagedCopyError("an image is there twice and another one is missing.")
    digest = contents.split_digest((image_id, content) for image_id, content, _, _ in rows)
    noted = (builder.info.metadata or {}).get(split)
    if digest != noted:
        raise DamagedCopyError(f"its digest is {digest}, {noted} was noted when it was prepared.")
    modalities = [row[3] for row in rows]
    return SplitReport(
        split=split,
        num_images=len(rows),
        num_instances=sum(row[2] for row in rows),
        modalities={name: modalities.count(name) for name in MODALITIES},
        num_fields=len({facts[image_id].field_of_view for image_id in ids}),
        digest=digest,
    )


def _read_records(builder: tfds.core.DatasetBuilder, split: str) -> list[bytes]:
    """Reads a split's records in every format that the copy declares, and compares them."""
    found: dict[str, list[bytes]] = {}
    template = builder.info.splits[split].filename_template
    formats = dsb2018_dataset_builder.available_formats(builder.data_dir)
    for name in formats:
        twin = template.replace(filetype_suffix=name)
        paths = twin.sharded_filepaths(len(builder.info.splits[split].shard_lengths))
        read = records.read_tfrecord if name == "tfrecord" else records.read_array_record
        found[name] = [record for path in paths for record in read(path)]
    first, *others = found.values()
    if any(first != other for other in others):
        raise DamagedCopyError(f"its files in the formats {formats} hold different records.")
    return first


def _examine(
    example: dict[str, Any], facts: dict[str, contents.ImageFacts], described: set[str]
) -> tuple[str, str, int, str]:
    """Verifies one example; returns its id, digest, number of nuclei and modality."""
    image_id = example["image_id"].decode()
    if image_id not in facts:
        raise DamagedCopyError(f"image {image_id} does not belong there.")
    known = facts[image_id]
    image, instances = example["image"], example["instances"][..., 0]
    count = int(example["num_instances"])
    digest = masks.content_digest(image, instances)
    modality = MODALITIES[example["modality"]]
    wrong = [
        name
        for name, is_right in (
            ("features", described == set(example)),
            ("image or instances", known.digest in (None, digest)),
            (
                "segmentation_mask",
                np.array_equal(example["segmentation_mask"][..., 0], instances > 0),
            ),
            ("num_instances", known.num_instances in (None, count)),
            # 0 too is a value of a label map, if the nuclei leave any background.
            ("instances", set(np.unique(instances).tolist()) | {0} == set(range(count + 1))),
            ("modality", modality == modality_of(image)),
            ("field_of_view", known.field_of_view == int(example["field_of_view"])),
        )
        if not is_right
    ]
    if wrong:
        raise DamagedCopyError(f"image {image_id} has a wrong value of {', '.join(wrong)}.")
    return image_id, digest, count, modality
