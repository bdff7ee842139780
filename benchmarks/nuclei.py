"""Images at their own size with their label maps, and which of them a preset may learn from."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

import tfds_dsb2018  # noqa: F401  registers the data set
from benchmarks import pipeline
from keras_nuclei import images
from keras_nuclei.diameters import typical_diameter

SPLITS = ("all", "random", "grouped", "stardist", "stardist_unseen")
"""What a preset may be trained on; see `training_ids`."""

# The 50 test images of StarDist's subset of DSB2018, by the first digits of their ids; as listed in
# github.com/zhangye-zoe/FCIS, preprocessing/processing.ipynb.
STARDIST_TEST = """
    0bda515e 0bf4b144 1b6044e4 1c2f9e12 1db1cddf 1f9e429c 2817299f 2cfa857e 33618678 3477024f
    3582166e 3bfd6bb1 43cf6b2e 4d40de30 4dbbb275 547ef286 57b49733 5953af50 5ddbfba2 5f9d29d6
    602f2674 608ff81c 6bd18a21 79dfcbc9 7d40ea6e 84e642d7 89be66f8 8fdc3450 9520aff4 9ebcfaf2
    a5e695fc a6e81120 afa272dc b560dba9 b61d3fb0 b6edad73 bde3727f bf7691b0 c304a1fd c9f305be
    d8607b21 e321cfa9 e5a7b8a9 e66f25e1 ec486143 ee927e82 eeb14234 f26f4c2c feffce59 ff599c73
""".split()  # noqa: SIM905  a list would take a line for each


@dataclasses.dataclass(frozen=True)
class NucleiImage:
    """An image of the data set.

    Attributes:
        image_id: Its name as published.
        image: uint8 `(H, W, 3)`, 0..255, as `keras_nuclei.images.normalize` makes it but for
            rounding; or as the data set has it, if `load` is asked for that.
        label_map: int32 `(H, W)`.
        modality: `"fluorescence"`, `"histology"` or `"brightfield"`.
        field_of_view: Number that tiles of one field share.
        diameter: Of its typical nucleus in pixels, as `keras_nuclei.segment` would estimate it at
            best (`keras_nuclei.diameters.typical_diameter`); 20 where there is none.
    """

    image_id: str
    image: np.ndarray
    label_map: np.ndarray
    modality: str
    field_of_view: int
    diameter: float


def load(
    name: str, split: str, data_dir: str | None = None, *, normalized: bool = True
) -> list[NucleiImage]:
    """Load a split, preparing the data set first where it isn't yet.

    Args:
        name: `"dsb2018"` or `"dsb2018/<config>"`.
        split: `"train"` or `"test"`.
        data_dir: Where prepared data sets are; None for TFDS's own place.
        normalized: Whether the images are as crops are cut from, their contrast stretched and
            rounded, or as the data set has them, to be segmented as a user's are.

    Returns:
        The images, sorted by their id.
    """
    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    modalities = builder.info.features["modality"].names
    examples = builder.as_data_source(split)
    rows = [as_nuclei_image(example, modalities, normalized) for example in examples]
    return sorted(rows, key=lambda row: row.image_id)


def as_nuclei_image(example: dict, modalities: list[str], normalized: bool) -> NucleiImage:
    """Make of an example of the data set what a preset learns from, or is judged by."""
    image = example["image"]
    if normalized:
        image = np.round(images.normalize(image)).astype(np.uint8)
    label_map = example["instances"][..., 0].astype(np.int32)
    areas = np.bincount(label_map.ravel())[1:]
    diameter = typical_diameter(areas) if len(areas) else 20.0
    return NucleiImage(
        image_id=example["image_id"].decode(),
        image=image,
        label_map=label_map,
        modality=modalities[example["modality"]],
        field_of_view=int(example["field_of_view"]),
        diameter=diameter,
    )


def training_ids(train: list[NucleiImage], split: str, seed: int = 0) -> set[str]:
    """Ids of the images that a preset may learn from.

    Args:
        train: All of stage1_train.
        split: `"all"`; `"random"` or `"grouped"`, the training part of
            `benchmarks.pipeline.split_indices`; `"stardist"`, the fluorescence images without
            StarDist's 50 test images; `"stardist_unseen"`, without those of their fields either.
        seed: Of the split.

    Returns:
        The ids.
    """
    if split == "all":
        return {row.image_id for row in train}
    if split in ("random", "grouped"):
        fields = np.array([row.field_of_view for row in train])
        indices = pipeline.split_indices(fields, split, seed)["train"]
        return {train[index].image_id for index in indices}
    held_out = {row.field_of_view for row in train if is_stardist_test(row)}
    return {
        row.image_id
        for row in train
        if row.modality == "fluorescence"
        and not is_stardist_test(row)
        and not (split == "stardist_unseen" and row.field_of_view in held_out)
    }


def validation_rows(train: list[NucleiImage], split: str, seed: int = 0) -> list[NucleiImage]:
    """Images on which settings are chosen: the validation part, without StarDist's test images.

    Args:
        train: All of stage1_train.
        split: `"random"` or `"grouped"`.
        seed: Of the split.
    """
    fields = np.array([row.field_of_view for row in train])
    indices = pipeline.split_indices(fields, split, seed)["validation"]
    return [train[index] for index in indices if not is_stardist_test(train[index])]


def validation_rows_of(training: dict, data_dir: str | None) -> list[NucleiImage]:
    """`validation_rows` of the data and the split that a run was trained on."""
    train = load(pipeline.DATA_SETS[training["data"]], "train", data_dir)
    return validation_rows(train, training["split"])


def is_stardist_test(row: NucleiImage) -> bool:
    """Whether an image is one of StarDist's 50 test images."""
    return row.image_id.startswith(tuple(STARDIST_TEST))
