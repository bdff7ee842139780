"""The TFDS builder of the Data Science Bowl 2018 nuclei."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters, splits

from tfds_dsb2018 import archives, contents, examples, records, sources, synthetic
from tfds_dsb2018.modality import MODALITIES

# Bytes of both record files, rounded up: lets TFDS refuse a full disk before any work.
_BYTES_PER_IMAGE = 400_000


class Builder(tfds.core.GeneratorBasedBuilder):
    """Images of cell nuclei with a mask and a number for every nucleus.

    One preparation serves `tfds.load` and `tfds.data_source`. See the README beside this module.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012, TFDS's way to declare it
    MANUAL_DOWNLOAD_INSTRUCTIONS = sources.ROUTES
    DEFAULT_BUILDER_CONFIG_NAME = "stage1"
    BUILDER_CONFIGS = [  # noqa: RUF012, TFDS's way to declare it
        tfds.core.BuilderConfig(
            name="stage1",
            description="The 670 training and 65 test images of stage 1, as published.",
        ),
        tfds.core.BuilderConfig(
            name="stage1_fixed",
            description=(
                "Training annotation as corrected by the community: 109 images differ, 6 are "
                "dropped, 664 remain. The test split is that of stage1."
            ),
        ),
        tfds.core.BuilderConfig(
            name="synthetic",
            description="64 + 16 drawn images for trials without any download. Not DSB2018.",
        ),
    ]

    def __init__(self, *, file_format: str | None = None, **kwargs: Any) -> None:
        """Makes a builder; arguments as of any TFDS builder.

        Args:
            file_format: None, "tfrecord" or "array_record": all mean the same, since
                preparing writes both.
            **kwargs: `data_dir`, `config`, `version`.

        Raises:
            ValueError: Another format.
        """
        _check_file_format(file_format)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 3),
                        encoding_format="png",
                        doc="The image, RGB; the three channels of a grey one are equal.",
                    ),
                    "segmentation_mask": tfds.features.LabeledImage(
                        labels=["background", "nucleus"],
                        shape=(None, None, 1),
                        encoding_format="png",
                        doc="1 where there is any nucleus, else 0.",
                    ),
                    "instances": tfds.features.Image(
                        shape=(None, None, 1),
                        dtype=np.uint16,
                        encoding_format="png",
                        use_colormap=True,
                        doc="0 on the background, 1..num_instances inside each nucleus.",
                    ),
                    "image_id": tfds.features.Text(doc="The image's name as published."),
                    "num_instances": tfds.features.Scalar(np.int32, doc="Number of nuclei."),
                    "modality": tfds.features.ClassLabel(
                        names=MODALITIES,
                        doc="How the image was taken, by a rule on its pixels.",
                    ),
                    "field_of_view": tfds.features.Scalar(
                        np.int32,
                        doc="Number shared by tiles of one field of view: split by it.",
                    ),
                }
            ),
            supervised_keys=("image", "segmentation_mask"),
            homepage="https://bbbc.broadinstitute.org/BBBC038",
            license="CC0-1.0",
            alternative_file_formats=[records.ARRAY_RECORD] if records.HAS_ARRAY_RECORD else None,
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, *, file_format: str | None = None, **kwargs: Any) -> None:
        """Prepares the data set unless it is prepared.

        Args:
            file_format: As in `__init__`.
            **kwargs: `download_dir`, `download_config` and more, as of any TFDS builder.

        Raises:
            SourceError: A source is missing, unreachable or damaged.
            ValueError: A source's content is not what was published.
            OSError: The data set cannot be written.
        """
        _check_file_format(file_format)
        if not self.is_prepared():
            self._announce_splits()
        try:
            super().download_and_prepare(**kwargs)
        except archives.SourceError:
            raise
        except OSError as error:
            if self.is_prepared():  # another process was faster; its copy is as good
                self.info.read_from_directory(self.data_dir)
                return
            raise OSError(
                f"The data set cannot be written to {self.data_dir_root}: {error}. Free some "
                "space or mend the permissions there, or choose another folder (data_dir=..., "
                "--data_dir, or the environment variable TFDS_DATA_DIR)."
            ) from error

    def _announce_splits(self) -> None:
        """Tells TFDS the size beforehand, for its progress bars and its look at the disk."""
        announced = [
            splits.SplitInfo(
                name=split,
                shard_lengths=[len(facts)],
                num_bytes=len(facts) * _BYTES_PER_IMAGE,
                filename_template=None,
            )
            for split, facts in expected(self.builder_config.name).items()
        ]
        self.info.set_splits(splits.SplitDict(announced))

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        config = self.builder_config.name
        if config == "synthetic":
            readers = {split: synthetic.draw_split(split)[0] for split in ("train", "test")}
            origins = dict.fromkeys(readers, "the generator of drawn images")
        else:
            fixes = sources.find(sources.FIXES, dl_manager) if config == "stage1_fixed" else None
            train = sources.find(sources.TRAIN, dl_manager)
            test = sources.find(sources.TEST, dl_manager)
            solution = sources.find(sources.SOLUTION, dl_manager)
            readers = {
                "train": sources.train_readers(train, fixes),
                "test": sources.test_readers(test, solution),
            }
            origins = {
                "train": f"{train.label} and {fixes.label}" if fixes else train.label,
                "test": f"{test.label} and {solution.label}",
            }
        facts = expected(config)
        return {
            split: self._generate_examples(split, readers[split], facts[split], origins[split])
            for split in ("train", "test")
        }

    def _generate_examples(
        self,
        split: str,
        readers: dict[str, sources.Reader],
        facts: dict[str, contents.ImageFacts],
        origin: str,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        digests: dict[str, str] = {}
        try:
            yield from examples.generate(readers, facts, digests)
        except ValueError as error:
            raise ValueError(f"{error} It was read from {origin}.") from error
        # Stored beside the records, so that a later check can tell damage to them.
        self.info.metadata[split] = contents.split_digest(digests.items())

    def _example_writer(self) -> records.DualWriter:
        return records.DualWriter()

    def as_data_source(self, *args: Any, **kwargs: Any) -> Any:
        """Reads the ArrayRecord files; arguments and result as of any TFDS builder.

        Raises:
            FileNotFoundError: The data set is not prepared, or was prepared on a machine
                without the package array_record.
        """
        formats = self._prepared_formats()
        if records.ARRAY_RECORD.value not in formats:
            raise FileNotFoundError(
                f"{self.data_dir} holds {formats or 'no data set'}, but tfds.data_source needs "
                "array_record: install the package array_record (Linux), delete that folder and "
                "prepare again."
            )
        # TFDS would switch this builder's format in place, and `as_dataset` would fail after it.
        twin = tfds.builder_from_directory(self.data_dir)
        return twin.as_data_source(*args, **kwargs)

    def _prepared_formats(self) -> list[str]:
        if not self.is_prepared():
            return []
        return available_formats(self.data_dir)


def expected(config: str) -> dict[str, dict[str, contents.ImageFacts]]:
    """States what a config must hold.

    Args:
        config: Name of a config.

    Returns:
        For each split, the facts by image id.

    Example:
        >>> len(expected("synthetic")["train"])
        64
    """
    if config == "synthetic":
        return {split: synthetic.draw_split(split)[1] for split in ("train", "test")}
    return contents.published(config)


def available_formats(data_dir: str) -> list[str]:
    """Lists the record formats that a prepared copy declares."""
    proto = tfds.core.dataset_info.read_proto_from_builder_dir(data_dir)
    return [proto.file_format, *proto.alternative_file_formats]


def _check_file_format(file_format: str | file_adapters.FileFormat | None) -> None:
    """Refuses formats that this data set is not written in."""
    if file_format is None:
        return
    if file_adapters.FileFormat.from_value(file_format) not in (
        records.TFRECORD,
        records.ARRAY_RECORD,
    ):
        raise ValueError(
            f"file_format={file_format!r} is not supported: this data set is written as tfrecord "
            "and array_record at once (TFDS's parquet writer drops examples, its riegeli writer "
            "needs a package that is not to be had). Leave file_format out."
        )
