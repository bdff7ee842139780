"""Record files in two formats from one preparation, without TensorFlow.

`tfds.load` reads TFRecord, `tfds.data_source` reads ArrayRecord. TFDS writes either the one or the
other, and needs TensorFlow for the first: five seconds and 600 MB for a format of four fields.
"""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c
from tensorflow_datasets.core import file_adapters, writer

TFRECORD = file_adapters.FileFormat.TFRECORD
ARRAY_RECORD = file_adapters.FileFormat.ARRAY_RECORD

# TFDS depends on array_record on Linux only: elsewhere there may be no wheel of it.
HAS_ARRAY_RECORD = importlib.util.find_spec("array_record") is not None


class DamagedRecordError(ValueError):
    """A record file does not hold what was written."""


class DualWriter(writer.ExampleWriter):
    """Writes every shard as TFRecord and, where the package is installed, as ArrayRecord.

    Example:
        >>> DualWriter().file_format.value
        'tfrecord'
    """

    def __init__(self) -> None:
        super().__init__(TFRECORD)

    def write(self, path: os.PathLike | str, examples: Iterable[tuple[object, bytes]]) -> None:
        """Writes one shard.

        Args:
            path: The shard's TFRecord file; the ArrayRecord file goes beside it.
            examples: Pairs of key and serialized example.
        """
        records = [record for _, record in examples]
        write_tfrecord(path, records)
        if HAS_ARRAY_RECORD:
            twin = file_adapters.convert_path_to_file_format(path, ARRAY_RECORD)
            write_array_record(twin, records)


def write_tfrecord(path: os.PathLike | str, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file.

    Each record is its length (8 bytes, little-endian), the masked CRC-32C of these bytes, its
    data, and the masked CRC-32C of the data.

    Args:
        path: The file to write.
        records: The records' bytes.
    """
    with Path(path).open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + _masked_crc(length))
            file.write(record)
            file.write(_masked_crc(record))


def read_tfrecord(path: os.PathLike | str) -> Iterator[bytes]:
    """Reads a TFRecord file and checks every byte of it.

    Args:
        path: The file to read.

    Yields:
        The records' bytes.

    Raises:
        DamagedRecordError: A checksum does not match, or the file ends within a record.
    """
    with Path(path).open("rb") as file:
        index = 0
        while header := file.read(12):
            if header[8:] != _masked_crc(header[:8]):
                raise DamagedRecordError(f"{path}: the head of record {index} is damaged.")
            (length,) = struct.unpack("<Q", header[:8])
            body = file.read(length + 4)
            record = body[:length]
            if len(body) != length + 4 or body[length:] != _masked_crc(record):
                raise DamagedRecordError(f"{path}: record {index} is damaged.")
            yield record
            index += 1


def _masked_crc(data: bytes) -> bytes:
    # The mask keeps a checksum of data that holds checksums from degenerating.
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def write_array_record(path: os.PathLike | str, records: Iterable[bytes]) -> None:
    """Writes an ArrayRecord file, uncompressed, as TFRecord is, since that is faster both ways.

    Args:
        path: The file to write.
        records: The records' bytes.

    Raises:
        OSError: The disk is full or fails.
    """
    from array_record.python import array_record_module  # absent on some platforms

    try:
        array_writer = array_record_module.ArrayRecordWriter(
            os.fspath(path), "group_size:1,uncompressed"
        )
        for record in records:
            array_writer.write(record)
        array_writer.close()
    except RuntimeError as error:  # what its C++ code makes of every failure
        raise OSError(str(error)) from error


def read_array_record(path: os.PathLike | str) -> list[bytes]:
    """Reads an ArrayRecord file.

    Args:
        path: The file to read.

    Returns:
        The records' bytes.

    Raises:
        DamagedRecordError: The file cannot be read as a whole.
    """
    from array_record.python import array_record_module  # absent on some platforms

    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        records = reader.read_all()
        reader.close()
    except (IndexError, RuntimeError, ValueError) as error:
        raise DamagedRecordError(f"{path} is damaged: {error}") from error
    return records
