"""The Data Science Bowl 2018 nuclei as a TFDS data set.

Importing this package registers `dsb2018`, so that `tfds.load("dsb2018")` prepares and reads it:

    import tensorflow_datasets as tfds
    import tfds_dsb2018

    train = tfds.load("dsb2018", split="train")

It does not import TensorFlow. `python -m tfds_dsb2018 --help` shows the commands.
"""

from tfds_dsb2018.archives import SourceError
from tfds_dsb2018.dsb2018_dataset_builder import Builder

__all__ = ["Builder", "SourceError"]
