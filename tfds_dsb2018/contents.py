"""What the published data set holds: the facts that every copy is checked against.

Two tables beside this module say, for every image, how many nuclei it has, what its pixels
digest to (`masks.content_digest`) and which field of view it was cut from. A copy whose zip files
were packed again, or that was extracted, passes; a copy with one changed pixel does not.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

TABLES = Path(__file__).parent  # holds digests.csv and fields_of_view.csv

# Six training images whose annotation the community found beyond repair.
REMOVED_BY_CORRECTION = frozenset(
    {
        "12aeefb1b522b283819b12e4cfaf6b13c1264c0aadac3412b4edd2ace304cb40",
        "19f0653c33982a416feed56e5d1ce6849fd83314fd19dfa1c5b23c6b66e9868a",
        "74a7785530687a11ecd073e772f90912d9967d02407a192bfab282c35f55ab94",
        "7b38c9173ebe69b4c6ba7e703c0c27f39305d9b2910f46405993d2ea7a963b80",
        "adc315bd40d699fd4e4effbcce81cd7162851007f485d754ad3b0472f73a86df",
        "c304a1fdf3bca2f4b4580d2cac59942e2224a7678001bf5ed9d9852f57708932",
    }
)


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What is known of one image.

    Attributes:
        num_instances: Number of annotated nuclei, or None if it is not known beforehand.
        field_of_view: Number that tiles of one field of view share.
        digest: Digest of its pixels and label map, or None likewise.
    """

    num_instances: int | None
    field_of_view: int
    digest: str | None = None


def published(config: str) -> dict[str, dict[str, ImageFacts]]:
    """Reads what a config holds, as published.

    Args:
        config: `"stage1"` or `"stage1_fixed"`.

    Returns:
        For each split, the facts by image id.

    Raises:
        KeyError: An image of the digest table is absent from the table of fields of view.

    Example:
        >>> {split: len(images) for split, images in published("stage1_fixed").items()}
        {'train': 664, 'test': 65}
    """
    fields = {row["image_id"]: row for row in _rows("fields_of_view.csv")}
    splits: dict[str, dict[str, ImageFacts]] = {"train": {}, "test": {}}
    for row in _rows("digests.csv"):
        image_id = row["image_id"]
        if row["annotation"] == "corrected" and config != "stage1_fixed":
            continue
        if config == "stage1_fixed" and image_id in REMOVED_BY_CORRECTION:
            continue
        # Rows of the corrected annotation follow the original ones and replace them.
        field = fields[image_id]
        splits[field["split"]][image_id] = ImageFacts(
            int(row["num_instances"]), int(field["field_of_view"]), row["digest"]
        )
    return splits


def split_digest(digests: Iterable[tuple[str, str]]) -> str:
    """Digests a whole split, whatever the order of its examples.

    Args:
        digests: Pairs of image id and the image's content digest.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> split_digest([("a", "1"), ("b", "2")]) == split_digest([("b", "2"), ("a", "1")])
        True
    """
    lines = "".join(f"{image_id} {digest}\n" for image_id, digest in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()[:32]


def _rows(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
