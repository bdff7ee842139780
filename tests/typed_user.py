"""What a type checker makes of a user's calls. Checked by mypy, never run.

Each `type: ignore` is a mistake that has to be found: mypy reports one that ignores nothing.
"""

from pathlib import Path
from typing import assert_type

import numpy as np

import keras_nuclei


def right_calls(path: Path, image: np.ndarray, slide: np.memmap) -> None:
    """Calls as the documentation has them, and what they return."""
    model = keras_nuclei.unet("plain", heads={"foreground": 1, "distance": 1})
    assert_type(keras_nuclei.segment(image, model, diameter=12), np.ndarray)
    keras_nuclei.segment(slide, "nuclei_base", out=np.memmap(path, "int32", shape=slide.shape))
    assert_type(keras_nuclei.images.read_image(path), np.ndarray)
    assert_type(keras_nuclei.images.read_pages(str(path)), list[np.ndarray])
    assert_type(keras_nuclei.images.normalize([[0, 1], [2, 3]]), np.ndarray)
    found = keras_nuclei.matching.match([[1, 0]], image)
    assert_type(keras_nuclei.scores.dsb_score([found]), float)
    keras_nuclei.measure(image, image, pixel_size=(0.5, 0.5))
    keras_nuclei.losses.Dice(num_classes=3, dtype="float32")
    keras_nuclei.metrics.IoU(average=None, target_class_ids=[1, 2])
    keras_nuclei.unet("mobilenet", encoder_weights=path, decoder_filters=[64, 32, 16, 8, 8])
    keras_nuclei.unet(
        heads={"a": 1, "b": 3}, classifier_activation={"a": "sigmoid", "b": "softmax"}
    )


def wrong_calls(path: Path, image: np.ndarray) -> None:
    """Calls with a mistake each."""
    keras_nuclei.unet(num_classes="two")  # type: ignore[arg-type]
    keras_nuclei.unet(num_clases=2)  # type: ignore[call-arg]
    keras_nuclei.segment(5)  # type: ignore[arg-type]
    keras_nuclei.segment(image, diametre=12)  # type: ignore[call-arg]
    keras_nuclei.images.read_image(image)  # type: ignore[arg-type]
    keras_nuclei.measure(path)  # type: ignore[arg-type]
    keras_nuclei.scores.dsb_score([image])  # type: ignore[list-item]
    keras_nuclei.losses.Dice(0.5)  # type: ignore[call-arg]
    keras_nuclei.metrics.IoU(threshold="half")  # type: ignore[arg-type]
