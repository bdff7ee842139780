"""Segment cell nuclei with Keras: trained models, and the parts to build and train your own.

From pixels to nuclei:

    label_map = keras_nuclei.segment(image)             # one number per nucleus
    table = keras_nuclei.measure(label_map, image)      # a row per nucleus
    picture = keras_nuclei.overlay(image, label_map)    # to look at

Conventions, everywhere in this package:

- Images are channels-last, `(height, width, channels)`; models take batches of them with values
  0..255, uint8 or float, and scale inside themselves.
- A mask is 0 for background and 1 for nucleus. Anything else, 255 above all, is an error.
- A label map is an integer array `(height, width)`: 0 background, 1..n one number per nucleus.
- Scores count pixels: they do not depend on the batch size. Two empty masks agree: the score is 1.
- A saved model loads after `import keras_nuclei`, without `custom_objects`.
"""

from keras_nuclei import (
    attention,
    blocks,
    callbacks,
    diameters,
    encoders,
    export,
    heads,
    images,
    instances,
    losses,
    maps,
    matching,
    metrics,
    normalization,
    pyramids,
    runtimes,
    scores,
    segmentation,
    stitching,
    tiling,
    typing,
)
from keras_nuclei.encoders import ENCODERS, list_encoders
from keras_nuclei.fpn import fpn
from keras_nuclei.fused_batch_norm import fused_batch_norm
from keras_nuclei.heads import replace_head, without_deep_supervision
from keras_nuclei.measure import measure, overlay
from keras_nuclei.presets import PRESETS, from_preset
from keras_nuclei.segmentation import segment
from keras_nuclei.stitching import label_tiled
from keras_nuclei.tiling import predict_tiled
from keras_nuclei.unet import unet
from keras_nuclei.unetplusplus import unetplusplus

__version__ = "0.1.0"

__all__ = [
    "ENCODERS",
    "PRESETS",
    "attention",
    "blocks",
    "callbacks",
    "diameters",
    "encoders",
    "export",
    "fpn",
    "from_preset",
    "fused_batch_norm",
    "heads",
    "images",
    "instances",
    "label_tiled",
    "list_encoders",
    "losses",
    "maps",
    "matching",
    "measure",
    "metrics",
    "normalization",
    "overlay",
    "predict_tiled",
    "pyramids",
    "replace_head",
    "runtimes",
    "scores",
    "segment",
    "segmentation",
    "stitching",
    "tiling",
    "typing",
    "unet",
    "unetplusplus",
    "without_deep_supervision",
]
