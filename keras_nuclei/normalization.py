"""The normalizations of the blocks, by name."""

from keras import layers

from keras_nuclei.typing import DType
from keras_nuclei.validation import require_one_of

NORMALIZATIONS = ("batch", "group", "instance", "layer", None)
"""What the blocks and decoders accept as `normalization`."""

MOST_GROUPS = 32
LEAST_CHANNELS_PER_GROUP = 4


def make_normalization(
    normalization: str | None, channels: int, *, momentum: float, dtype: DType, name: str
) -> layers.Layer:
    """Make a normalization of feature maps `(batch, height, width, channels)`.

    | `normalization` | mean and variance are taken over |
    | --- | --- |
    | `"batch"` | all pixels of the batch, each channel alone; moving averages in inference |
    | `"group"` | all pixels of an image and a group of channels |
    | `"instance"` | all pixels of an image, each channel alone |
    | `"layer"` | the channels of a pixel |
    | `None` | none: the feature maps stay as they are |

    Batch: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167. Group: Wu and He 2018,
    https://arxiv.org/abs/1803.08494. Instance: Ulyanov et al. 2016,
    https://arxiv.org/abs/1607.08022. Layer: Ba et al. 2016, https://arxiv.org/abs/1607.06450, over
    the channels, as in ConvNeXt (https://arxiv.org/abs/2201.03545).

    Args:
        normalization: One of the above.
        channels: Number of channels, at least 1.
        momentum: Of the moving averages of `"batch"`.
        dtype: Dtype policy of the layer.
        name: Name of the layer.

    Returns:
        A layer, with Keras's default of 0.001 added to the variance.

    Raises:
        ValueError: If `normalization` is none of the above.

    Example:
        >>> from keras_nuclei.normalization import make_normalization
        >>> make_normalization("group", 48, momentum=0.9, dtype="float32", name="norm").groups
        12
    """
    require_one_of(NORMALIZATIONS, normalization=normalization)
    if normalization == "batch":
        return layers.BatchNormalization(momentum=momentum, dtype=dtype, name=name)
    if normalization == "group":
        return layers.GroupNormalization(count_groups(channels), dtype=dtype, name=name)
    if normalization == "instance":
        return layers.GroupNormalization(-1, dtype=dtype, name=name)
    if normalization == "layer":
        return layers.LayerNormalization(dtype=dtype, name=name)
    return layers.Identity(dtype=dtype, name=name)


def count_groups(channels: int) -> int:
    """Number of groups of group normalization: the largest that divides the channels.

    At most 32, as in its paper, and so few that a group has 4 channels or more: with one channel
    a group, group normalization would be instance normalization.

    Args:
        channels: Number of channels, at least 1.

    Returns:
        Number of groups, 1..32.

    Example:
        >>> from keras_nuclei.normalization import count_groups
        >>> [count_groups(channels) for channels in (3, 16, 48, 128, 1024)]
        [1, 4, 12, 32, 32]
    """
    most = min(MOST_GROUPS, max(1, channels // LEAST_CHANNELS_PER_GROUP))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)
