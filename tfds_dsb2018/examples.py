"""From readers of images to examples that TFDS writes, on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from tfds_dsb2018 import contents, masks
from tfds_dsb2018.modality import modality_of

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

GET_AGAIN = "the file is damaged or was edited. Get it again."


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """Maps in as many threads as there are cores, in order, a few items ahead.

    Decoding and encoding release Python's lock, so threads suffice, and memory stays small.

    Args:
        function: What to apply.
        items: To what.

    Yields:
        The results, in the order of the items.

    Example:
        >>> list(map_in_threads(abs, [-1, -2]))
        [1, 2]
    """
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def generate(
    readers: Mapping[str, Callable[[], tuple[np.ndarray, np.ndarray]]],
    facts: Mapping[str, contents.ImageFacts],
    digests: dict[str, str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Generates the examples of a split and checks each against the facts.

    Args:
        readers: By image id, a function that returns an RGB image and its label map.
            Ids that are not in `facts` are left out.
        facts: What the split must hold.
        digests: Is filled with the content digest of every image.

    Yields:
        Pairs of image id and example; images are PNG bytes.

    Raises:
        ValueError: An image is missing, damaged, or not as published.
    """
    missing = sorted(set(facts) - set(readers))
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(facts)} images or their annotations are missing in the "
            f"source, the first is {missing[0]}: it is incomplete. Get it again."
        )

    def make(image_id: str) -> tuple[str, dict[str, Any], str]:
        return image_id, *make_example(image_id, *readers[image_id](), facts[image_id])

    for image_id, example, digest in map_in_threads(make, sorted(facts)):
        digests[image_id] = digest
        yield image_id, example


def make_example(
    image_id: str, image: np.ndarray, instances: np.ndarray, facts: contents.ImageFacts
) -> tuple[dict[str, Any], str]:
    """Makes one example.

    Args:
        image_id: Its id.
        image: RGB, uint8 of shape `(H, W, 3)`.
        instances: Label map, uint16 of shape `(H, W)`.
        facts: What is known of the image.

    Returns:
        The example, images as PNG bytes, and its content digest.

    Raises:
        ValueError: The pixels are not the published ones.

    Example:
        >>> facts = contents.ImageFacts(num_instances=1, field_of_view=7)
        >>> image, instances = np.zeros((2, 2, 3), np.uint8), np.eye(2, dtype=np.uint16)
        >>> make_example("a", image, instances, facts)[0]["modality"]
        'fluorescence'
    """
    count = int(instances.max())
    if facts.num_instances not in (None, count):
        raise ValueError(
            f"Image {image_id} has {count} annotated nuclei, {facts.num_instances} were published: "
            + GET_AGAIN
        )
    image = masks.squeeze_gray(image)
    digest = masks.content_digest(image, instances)
    if facts.digest not in (None, digest):
        raise ValueError(
            f"Image {image_id} or its annotation differs from what was published (digest {digest}, "
            f"expected {facts.digest}): " + GET_AGAIN
        )
    example = {
        "image": masks.encode_png(image),
        "segmentation_mask": masks.encode_png((instances > 0).view(np.uint8), shrink=True),
        "instances": masks.encode_png(instances, shrink=True),
        "image_id": image_id,
        "num_instances": count,
        "modality": modality_of(image),
        "field_of_view": facts.field_of_view,
    }
    return example, digest
