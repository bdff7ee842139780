"""Keras parts to segment cell nuclei: a U-Net with any encoder, metrics and losses that are right.

Conventions, everywhere in this package:

- Images are `(batch, height, width, channels)` with values 0..255, uint8 or float. Each model
  scales inside itself.
- A mask is 0 for background and 1 for nucleus. Anything else, 255 above all, is an error.
- Scores count pixels: they do not depend on the batch size. Two empty masks agree: the score is 1.
- A saved model loads after `import keras_nuclei`, without `custom_objects`.
"""

from keras_nuclei import blocks, encoders, losses, metrics
from keras_nuclei.encoders import ENCODERS
from keras_nuclei.unet import unet

__version__ = "0.1.0"

__all__ = ["ENCODERS", "blocks", "encoders", "losses", "metrics", "unet"]
