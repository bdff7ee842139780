"""From the prepared data set to arrays of one size, split into training, validation and test."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

import tfds_dsb2018  # noqa: F401  registers the data set

DATA_SETS = {"dsb2018": "dsb2018", "synthetic": "dsb2018/synthetic"}
"""What `--data` accepts, and its name in TFDS."""

TEST_SEED = 2018
TEST_SHARE = 0.1
VALIDATION_SHARE = 0.2


class Examples(NamedTuple):
    """Images of one size, with their masks.

    Attributes:
        images: uint8 `(n, size, size, 3)`, 0..255.
        masks: uint8 `(n, size, size, 1)`, 0 and 1.
        image_ids: n strings.
        fields_of_view: int `(n,)`; tiles of one field share a number.
    """

    images: np.ndarray
    masks: np.ndarray
    image_ids: np.ndarray
    fields_of_view: np.ndarray

    def take(self, indices: np.ndarray) -> "Examples":
        """The examples at `indices`, in that order."""
        return Examples(*(array[indices] for array in self))


def load(name: str, split: str, image_size: int, data_dir: str | None = None) -> Examples:
    """Load a split whole, resized, preparing the data set first where it isn't yet.

    Images are averaged over the pixels that become one, masks take the nearest pixel.

    Args:
        name: `"dsb2018"` or `"dsb2018/<config>"`.
        split: `"train"` or `"test"`.
        image_size: Height and width in pixels.
        data_dir: Where prepared data sets are; None for TFDS's own place.

    Returns:
        The examples, sorted by their id.
    """

    def resize(example):
        size = (image_size, image_size)
        image = tf.image.resize(example["image"], size, method="area")
        mask = tf.image.resize(example["segmentation_mask"], size, method="nearest")
        return {
            "image": tf.cast(tf.round(image), tf.uint8),
            "mask": mask,
            "image_id": example["image_id"],
            "field_of_view": example["field_of_view"],
        }

    decoders = {"instances": tfds.decode.SkipDecoding()}
    dataset = tfds.load(name, split=split, data_dir=data_dir, decoders=decoders)
    rows = list(tfds.as_numpy(dataset.map(resize, num_parallel_calls=tf.data.AUTOTUNE)))
    rows.sort(key=lambda row: row["image_id"])
    return Examples(
        images=np.stack([row["image"] for row in rows]),
        masks=np.stack([row["mask"] for row in rows]),
        image_ids=np.array([row["image_id"].decode() for row in rows]),
        fields_of_view=np.array([row["field_of_view"] for row in rows]),
    )


def split(examples: Examples, method: str, seed: int) -> dict[str, Examples]:
    """Split into training, validation and test examples, as `split_indices` says.

    Args:
        examples: All of them.
        method: As in `split_indices`.
        seed: As in `split_indices`.

    Returns:
        The examples by `"train"`, `"validation"` and `"test"`.

    Raises:
        ValueError: If the method is unknown.
    """
    parts = split_indices(examples.fields_of_view, method, seed)
    return {part: examples.take(indices) for part, indices in parts.items()}


def split_indices(fields_of_view: np.ndarray, method: str, seed: int) -> dict[str, np.ndarray]:
    """Split the examples of stage1_train, sorted by their id, into three parts.

    The test set, a tenth, is drawn first and is the same for every seed; the rest is split 80:20.

    Args:
        fields_of_view: Of each example.
        method: `"random"`, or `"grouped"`, which keeps the tiles of a field of view together: the
            shares are then shares of the fields.
        seed: Of the split into training and validation.

    Returns:
        Ascending indices by `"train"`, `"validation"` and `"test"`.

    Raises:
        ValueError: If the method is unknown.
    """
    splitters = {"random": ShuffleSplit, "grouped": GroupShuffleSplit}
    if method not in splitters:
        raise ValueError(f"Unknown split {method!r}. Expected one of: {', '.join(splitters)}.")

    def divide(part: np.ndarray, share: float, random_state: int) -> list[np.ndarray]:
        splitter = splitters[method](1, test_size=share, random_state=random_state)
        groups = fields_of_view[part] if method == "grouped" else None
        (indices,) = splitter.split(part, groups=groups)
        return [part[np.sort(index)] for index in indices]

    rest, test = divide(np.arange(len(fields_of_view)), TEST_SHARE, TEST_SEED)
    train, validation = divide(rest, VALIDATION_SHARE, seed)
    return {"train": train, "validation": validation, "test": test}


def batches(examples: Examples, batch_size: int, *, shuffle_seed: tuple[int, int] | None = None):
    """A `tf.data.Dataset` of `(images, masks)`, in an order that depends on the seed alone.

    Args:
        examples: The examples.
        batch_size: Images in a batch; the last batch may have fewer.
        shuffle_seed: Seed of the run and number of the epoch; None keeps the order.
    """
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(len(examples.images))
        examples = examples.take(order)
    dataset = tf.data.Dataset.from_tensor_slices((examples.images, examples.masks))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
