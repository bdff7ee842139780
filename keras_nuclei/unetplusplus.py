"""The U-Net++: a U-Net whose skips pass through nodes of their own."""

from collections.abc import Sequence

import keras

from keras_nuclei.decoding import Pyramid, Steps, last_level, level_filters, open_encoder
from keras_nuclei.heads import Tap, require_heads, supervise, with_heads
from keras_nuclei.typing import FilePath


def unetplusplus(
    encoder: str | keras.Model | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    classifier_activation: str | dict[str, str | None] | None = "sigmoid",
    heads: dict[str, int] | None = None,
    encoder_weights: FilePath | None = "default",
    encoder_trainable: bool = True,
    encoder_depth: int | None = None,
    decoder_filters: Sequence[int] | None = None,
    decoder_depth: int = 1,
    decoder_stride: int = 1,
    upsampling: str = "nearest",
    normalization: str | None = "batch",
    dropout: float = 0.0,
    attention: str | None = None,
    residual: bool = False,
    deep_supervision: int = 0,
    batch_norm_momentum: float = 0.9,
    name: str = "unetplusplus",
) -> keras.Model:
    """Build a U-Net++ for images of any height and width.

    Follows Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image
    Segmentation", https://arxiv.org/abs/1807.10165, with any encoder. Node `X(i, j)` on level `i`
    is made of all nodes before it on its level and of the node `X(i + 1, j - 1)` below, upsampled;
    `X(i, 0)` are the encoder's feature maps. Each node is what a level of `keras_nuclei.unet`
    is. Where the encoder has no feature map on a level nor on a finer one, there is nothing to
    pass through nodes, and that level has the last node only.

    It takes the arguments of `keras_nuclei.unet`, with the same defaults. Where they mean more:

    Args:
        encoder: As in `keras_nuclei.unet`, as is what is not explained here.
        input_shape: `(height, width, channels)`; `None` for any height or width.
        num_classes: Number of output channels, at least 1.
        classifier_activation: Activation of the output, None for logits.
        heads: Names of several outputs and the number of channels of each.
        encoder_weights: `"default"`, None for random ones, or a path.
        encoder_trainable: False freezes the encoder.
        encoder_depth: Number of the encoder's halvings to use. None uses all.
        decoder_filters: Channels of the nodes of each level, the smallest feature map first.
        decoder_depth: Number of convolutions in each node after the joining; 0 for none.
        decoder_stride: 1, or a power of two: how many times smaller than the image the level is
            that the decoder ends at.
        upsampling: `mode` of `keras_nuclei.blocks.UpsampleBlock`.
        normalization: Of the decoder.
        dropout: Share of the channels that training leaves out at the end of each node.
        attention: `"gate"` puts one gate on all nodes that a node joins; `"scse"` as in
            `keras_nuclei.unet`; None for neither.
        residual: True adds the input of each node's convolutions to their output.
        deep_supervision: Number of coarser levels that get heads of their own, on their last
            nodes, named as in `keras_nuclei.unet`. The paper puts them on the nodes `X(0, j)` of
            the finest level instead, which most pretrained encoders do not have.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`.
        name: Name of the model.

    Returns:
        A functional model from images `(batch, height, width, channels)`, values 0..255 of any
        dtype, to `(batch, height, width, num_classes)`, or a dict of such by the names of the
        outputs; float32 also under mixed precision.

    Raises:
        ValueError: If an argument is out of its range, or `decoder_filters` has another length
            than the encoder has halvings.
        RuntimeError: If pretrained weights can't be downloaded, or their file is damaged.
        ImportError: If the package that holds the weights is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.unetplusplus import unetplusplus
        >>> model = unetplusplus(encoder_depth=2, decoder_filters=(16, 8))
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 31, 25, 3), dtype="uint8")
        >>> model.predict(images, verbose=0).shape
        (2, 31, 25, 1)
    """
    steps = Steps(
        depth=decoder_depth,
        upsampling=upsampling,
        normalization=normalization,
        residual=residual,
        batch_norm_momentum=batch_norm_momentum,
        attention=attention,
        dropout=dropout,
    )
    require_heads(heads, num_classes, classifier_activation)
    pyramid = open_encoder(
        encoder,
        input_shape=input_shape,
        weights=encoder_weights,
        trainable=encoder_trainable,
        depth=encoder_depth,
        batch_norm_momentum=batch_norm_momentum,
    )
    last = last_level(decoder_stride, pyramid.deepest)
    decoded = _nest(pyramid, level_filters(decoder_filters, pyramid.deepest, last), steps)

    finest = Tap(decoded.pop(last), decoder_stride, crop=last > 0 or 0 not in pyramid.maps)
    return with_heads(
        pyramid.inputs,
        [finest, *supervise(decoded, deep_supervision)],
        num_classes=num_classes,
        classifier_activation=classifier_activation,
        heads=heads,
        name=name,
    )


def _nest(pyramid: Pyramid, filters: dict[int, int], steps: Steps) -> dict[int, keras.KerasTensor]:
    """The last node of each level."""
    last = min(filters)
    # The nodes of a level by their column j.
    below = {0: pyramid.maps[pyramid.deepest]}
    ends = {}
    for level, channels in filters.items():
        if not any(last <= finer <= level for finer in pyramid.maps):
            below = {max(below): below[max(below)]}
        skip = pyramid.maps.get(level)
        nodes = {} if skip is None else {0: skip}
        for column, features in below.items():
            # Without a feature map of its own, a level passes each of the nodes below on.
            skips = [] if skip is None else list(nodes.values())
            place = f"{level}_{column + 1}"
            nodes[column + 1] = steps.up(features, skips, channels, place)
        below = nodes
        ends[level] = nodes[max(nodes)]
    return ends
