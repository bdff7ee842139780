"""The feature pyramid network: what the deepest level has seen, handed down to all, and joined."""

import keras
from keras import layers

from keras_nuclei.blocks import CropLike
from keras_nuclei.decoding import Pyramid, Steps, last_level, open_encoder
from keras_nuclei.heads import Tap, require_heads, supervise, with_heads
from keras_nuclei.resizing import Enlarge
from keras_nuclei.typing import FilePath
from keras_nuclei.validation import require_at_least_one, require_one_of

MERGES = ("add", "concatenate")
"""What `fpn` accepts as `merge`."""


def fpn(
    encoder: str | keras.Model | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    classifier_activation: str | dict[str, str | None] | None = "sigmoid",
    heads: dict[str, int] | None = None,
    encoder_weights: FilePath | None = "default",
    encoder_trainable: bool = True,
    encoder_depth: int | None = None,
    pyramid_filters: int = 256,
    segmentation_filters: int = 128,
    merge: str = "add",
    decoder_depth: int = 1,
    decoder_stride: int = 4,
    upsampling: str = "nearest",
    normalization: str | None = "batch",
    dropout: float = 0.0,
    attention: str | None = None,
    residual: bool = False,
    deep_supervision: int = 0,
    batch_norm_momentum: float = 0.9,
    name: str = "fpn",
) -> keras.Model:
    """Build a feature pyramid network for images of any height and width.

    Follows Lin et al. 2017, "Feature Pyramid Networks for Object Detection",
    https://arxiv.org/abs/1612.03144, made to segment as in Kirillov et al. 2019, "Panoptic Feature
    Pyramid Networks", https://arxiv.org/abs/1901.02446, and in segmentation_models:

    1. Each of the encoder's feature maps goes through a 1x1 convolution to `pyramid_filters`
       channels, and the sum of all coarser ones, each pixel four times, is added to it.
    2. From each, a branch of convolutions and upsamplings leads to the level that
       `decoder_stride` names.
    3. The branches' ends are merged, and a head's 1x1 convolution and bilinear interpolation give
       the output.

    It takes the arguments of `keras_nuclei.unet` with the same defaults, but for `decoder_stride`
    and the widths. Where they mean more:

    Args:
        encoder: As in `keras_nuclei.unet`, as is what is not explained here.
        input_shape: `(height, width, channels)`; `None` for any height or width.
        num_classes: Number of output channels, at least 1.
        classifier_activation: Activation of the output, None for logits.
        heads: Names of several outputs and the number of channels of each.
        encoder_weights: `"default"`, None for random ones, or a path.
        encoder_trainable: False freezes the encoder.
        encoder_depth: Number of the encoder's halvings to use. None uses all.
        pyramid_filters: Channels of the pyramid's levels, at least 1.
        segmentation_filters: Channels of the branches, at least 1.
        merge: `"add"`, or `"concatenate"` to keep the branches' channels apart.
        decoder_depth: Number of convolutions before each upsampling of a branch, at least 1.
        decoder_stride: A power of two: how many times smaller than the image the level is where
            the branches end. Finer feature maps of the encoder are not used.
        upsampling: Of the branches: `"bilinear"` and `"nearest"` without weights, `"transpose"`
            and `"pixel_shuffle"` with those of `keras_nuclei.blocks.UpsampleBlock`.
        normalization: Of the branches.
        dropout: Share of the channels that training leaves out after the merging.
        attention: `"gate"` puts a `keras_nuclei.attention.AttentionGate` on the encoder's feature
            maps where the coarser ones are added to them; `"scse"` a
            `keras_nuclei.attention.SCSE` on the branches' convolutions and after the merging;
            None for neither.
        residual: True adds the input of a branch's convolutions to their output.
        deep_supervision: Number of coarser levels that get heads of their own, on their branches'
            first convolutions, named as in `keras_nuclei.unet`. Levels that the encoder lacks
            have no branch and don't count.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`.
        name: Name of the model.

    Returns:
        A functional model from images `(batch, height, width, channels)`, values 0..255 of any
        dtype, to `(batch, height, width, num_classes)`, or a dict of such by the names of the
        outputs; float32 also under mixed precision.

    Raises:
        ValueError: If an argument is out of its range.
        RuntimeError: If pretrained weights can't be downloaded, or their file is damaged.
        ImportError: If the package that holds the weights is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.fpn import fpn
        >>> model = fpn(encoder_depth=3, pyramid_filters=16, segmentation_filters=8)
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 31, 25, 3), dtype="uint8")
        >>> model.predict(images, verbose=0).shape
        (2, 31, 25, 1)
    """
    require_at_least_one(
        pyramid_filters=pyramid_filters,
        segmentation_filters=segmentation_filters,
        decoder_depth=decoder_depth,
    )
    require_one_of(MERGES, merge=merge)
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
    levels = _top_down(pyramid, last, pyramid_filters, steps)
    starts, ends = {}, []
    for level, features in levels.items():
        starts[level] = steps.convolve(features, segmentation_filters, f"{level}_{level}")
        ends.append(_branch(pyramid, starts[level], level, last, segmentation_filters, steps))
    merged = _merge(ends, merge, steps)

    starts.pop(last, None)
    finest = Tap(merged, decoder_stride, "bilinear", crop=last > 0 or 0 not in pyramid.maps)
    return with_heads(
        pyramid.inputs,
        [finest, *supervise(starts, deep_supervision)],
        num_classes=num_classes,
        classifier_activation=classifier_activation,
        heads=heads,
        name=name,
    )


def _top_down(
    pyramid: Pyramid, last: int, filters: int, steps: Steps
) -> dict[int, keras.KerasTensor]:
    """Each of the encoder's levels, with what the coarser ones know added to it."""
    levels = {}
    x = None
    for level in range(pyramid.deepest, last - 1, -1):
        if x is not None:
            x = Enlarge(2, mode="nearest", name=f"enlarge_{level}")(x)
        if level not in pyramid.maps:
            continue
        skip = pyramid.maps[level]
        if x is not None:
            x = CropLike(name=f"crop_{level}")(x, skip)
            skip = steps.gate(skip, x, f"{level}")
        lateral = layers.Conv2D(filters, 1, data_format="channels_last", name=f"lateral_{level}")(
            skip
        )
        x = levels[level] = lateral if x is None else layers.Add(name=f"add_{level}")([x, lateral])
    return levels


def _branch(
    pyramid: Pyramid, x: keras.KerasTensor, level: int, last: int, filters: int, steps: Steps
) -> keras.KerasTensor:
    """From a level, by convolutions and upsamplings in turn, to the last level."""
    for finer in range(level - 1, last - 1, -1):
        place = f"{level}_{finer}"
        if steps.upsampling in ("bilinear", "nearest"):
            x = Enlarge(2, mode=steps.upsampling, name=f"upsample_{place}")(x)
        else:
            x = steps.upsample(x, filters, place)
        if finer in pyramid.maps:
            x = CropLike(name=f"crop_{place}")(x, pyramid.maps[finer])
        if finer > last:
            x = steps.convolve(x, filters, place)
    return x


def _merge(ends: list, merge: str, steps: Steps) -> keras.KerasTensor:
    x = ends[0]
    if len(ends) > 1:
        join = layers.Add if merge == "add" else layers.Concatenate
        x = join(name="merge")(ends)
    x = steps.squeeze_and_excite(x, "merge")
    return steps.drop(x, "merge")
