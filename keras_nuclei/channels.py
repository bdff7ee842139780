"""Weights that were trained on RGB images, for images of one channel or of many.

A network's first convolution sees, of channel c, `scale[c] * value + offset[c]`. The features
of a grey image, given as one channel, are to be those of the same image given as three equal
ones; so its kernel is the sum of the three, each times its own scale. Where the offsets differ by
channel, a part of the convolution does not depend on the image; it is not the same everywhere,
since at the border the network pads with zeros. A channel of ones, seen by a kernel of its own and
padded like the image, is that part exactly.

For n channels, 2 or more than 3, the three kernels take turns and are scaled by 3 / n, as in the
library timm, so that features stay as large as they were; each channel keeps the scale and offset
of the kernel it meets.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_nuclei.typing import Shape, Tensor


class ChannelScaling(NamedTuple):
    """How images of values 0..255 are scaled, for each input of a network.

    Attributes:
        channels: The channel of the image that it takes: (2, 1, 0) for a network that was trained
            on blue, green, red.
        scale: Factor, for a value 0..255.
        offset: Added after that.

    Example:
        >>> from keras_nuclei.channels import ChannelScaling
        >>> ChannelScaling((0,), (1 / 255,), (0.0,)).offset
        (0.0,)
    """

    channels: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]


@keras.saving.register_keras_serializable(package="keras_nuclei")
class OnesChannel(layers.Layer):
    """Append a channel of ones; see `keras_nuclei.channels`.

    Args:
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        `(batch, height, width, channels + 1)`

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.channels import OnesChannel
        >>> tuple(OnesChannel()(np.zeros((1, 5, 7, 1), "float32")).shape)
        (1, 5, 7, 2)
    """

    def call(self, inputs: Tensor) -> Tensor:
        return ops.concatenate([inputs, ops.ones_like(inputs[..., :1])], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], input_shape[-1] + 1)


def adapt_to_channels(
    kernel: np.ndarray, scaling: ChannelScaling, channels: int
) -> tuple[np.ndarray, ChannelScaling]:
    """Adapt the kernel of a first convolution to another number of channels.

    Args:
        kernel: `(height, width, 3, filters)`, trained on images scaled by `scaling`.
        scaling: Of its three inputs.
        channels: Number of channels of the images to come, at least 1.

    Returns:
        The kernel `(height, width, channels, filters)`, and how those images are to be scaled,
        each of their channels in its place. For 1 channel the kernel may have a second input, for
        a channel of ones.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.channels import ChannelScaling, adapt_to_channels
        >>> scaling = ChannelScaling((0, 1, 2), (2.0, 2.0, 4.0), (0.0, 0.0, 0.0))
        >>> kernel = np.ones((1, 1, 3, 1))
        >>> grey, scaling = adapt_to_channels(kernel, scaling, 1)
        >>> float(scaling.scale[0] * grey[0, 0, 0, 0])  # 2 + 2 + 4
        8.0
    """
    # From the network's order to the image's, so that nothing is left to reorder.
    order = np.argsort(scaling.channels)
    kernel = kernel[:, :, order]
    scale = np.array(scaling.scale)[order]
    offset = np.array(scaling.offset)[order]
    if channels == 1:
        return _sum_of_channels(kernel, scale, offset)
    taken = np.arange(channels) % 3
    own = ChannelScaling(
        tuple(range(channels)), tuple(scale[taken].tolist()), tuple(offset[taken].tolist())
    )
    return kernel[:, :, taken] * (3 / channels), own


def _sum_of_channels(
    kernel: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, ChannelScaling]:
    own = ChannelScaling((0,), (float(scale.mean()),), (float(offset.mean()),))
    # scale[c] * value + offset[c] = share[c] * (own scale * value + own offset) + rest[c]
    share = scale / own.scale[0]
    rest = offset - share * own.offset[0]
    summed = np.einsum("hwcf,c->hwf", kernel, share)
    if np.allclose(rest, 0, atol=1e-6):
        return summed[:, :, None], own
    of_ones = np.einsum("hwcf,c->hwf", kernel, rest)
    return np.stack([summed, of_ones], axis=2), own
