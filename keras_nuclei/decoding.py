"""What all decoders share: an encoder opened up, and the steps from one level to the next finer.

Level `k` is `2**k` times smaller than the image. Every halving of an encoder rounds up, so twice
a level's size is that of the next finer one or a pixel more; the steps crop to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers

from keras_nuclei.attention import SCSE, AttentionGate
from keras_nuclei.blocks import UPSAMPLING_MODES, ConvBlock, CropLike, UpsampleBlock
from keras_nuclei.encoders import get_encoder
from keras_nuclei.normalization import NORMALIZATIONS
from keras_nuclei.typing import FilePath
from keras_nuclei.validation import require_one_of

DECODER_FILTERS = (256, 128, 64, 32, 16)
"""Channels of the decoder's levels, the smallest feature map first."""

ATTENTIONS = (None, "gate", "scse")
"""What the decoders accept as `attention`."""


@dataclass(frozen=True)
class Pyramid:
    """Feature maps of an encoder, at work on a model's images.

    Attributes:
        inputs: The model's input, symbolic.
        maps: Symbolic feature maps by level, the finest first; levels may be missing.

    Example:
        >>> import keras
        >>> from keras_nuclei.decoding import Pyramid
        >>> image = keras.Input((8, 8, 3))
        >>> Pyramid(image, {0: image, 1: image[:, ::2, ::2]}).deepest
        1
    """

    inputs: keras.KerasTensor
    maps: dict[int, keras.KerasTensor]

    @property
    def deepest(self) -> int:
        """The level of the smallest feature map."""
        return max(self.maps)


def open_encoder(
    encoder: str | keras.Model | None,
    *,
    input_shape: tuple[int | None, int | None, int],
    weights: FilePath | None,
    trainable: bool,
    depth: int | None,
    batch_norm_momentum: float,
) -> Pyramid:
    """Build or take an encoder and call it on a new input.

    Args:
        encoder: As in `keras_nuclei.unet`, as are the others, without their `encoder_`.
        input_shape: `(height, width, channels)`.
        weights: `encoder_weights`.
        trainable: `encoder_trainable`.
        depth: `encoder_depth`.
        batch_norm_momentum: Of an encoder built by name.

    Returns:
        Its feature maps and the input they are of.

    Raises:
        ValueError: If the encoder can't be had, or does not have that depth.

    Example:
        >>> from keras_nuclei.decoding import open_encoder
        >>> pyramid = open_encoder(
        ...     "plain",
        ...     input_shape=(64, 64, 3),
        ...     weights=None,
        ...     trainable=True,
        ...     depth=2,
        ...     batch_norm_momentum=0.9,
        ... )
        >>> {level: tuple(features.shape) for level, features in pyramid.maps.items()}
        {0: (None, 64, 64, 32), 1: (None, 32, 32, 64), 2: (None, 16, 16, 128)}
    """
    model = get_encoder(
        encoder,
        input_shape=input_shape,
        weights=weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    if depth is not None:
        model = _truncate(model, depth)
    if not trainable:
        model.trainable = False
    inputs = keras.Input(model.inputs[0].shape[1:], name="image")
    maps = {int(level[1:]): features for level, features in model(inputs).items()}
    return Pyramid(inputs, dict(sorted(maps.items())))


def _truncate(encoder: keras.Model, depth: int) -> keras.Model:
    """The encoder up to a level, without the layers that only deeper ones need."""
    levels = sorted(encoder.output, key=lambda level: int(level[1:]))
    deepest = int(levels[-1][1:])
    if not 1 <= depth <= deepest or f"P{depth}" not in levels:
        raise ValueError(
            f"encoder_depth must be the number of a level of the encoder {encoder.name!r}, which "
            f"has {', '.join(levels)}; got {depth}."
        )
    kept = {level: encoder.output[level] for level in levels if int(level[1:]) <= depth}
    return keras.Model(encoder.inputs, kept, name=encoder.name)


def last_level(stride: int, deepest: int) -> int:
    """The level that a decoder ends at.

    Args:
        stride: `decoder_stride`: how many times smaller than the image that level is.
        deepest: The encoder's deepest level.

    Returns:
        The level, 0 for a stride of 1.

    Raises:
        ValueError: If the stride is no power of two, or not finer than the deepest level.

    Example:
        >>> from keras_nuclei.decoding import last_level
        >>> last_level(4, deepest=5)
        2
    """
    level = stride.bit_length() - 1
    if stride < 1 or stride != 2**level or level >= deepest:
        raise ValueError(
            f"decoder_stride must be a power of two below {2**deepest}, the stride of the "
            f"encoder's deepest level; got {stride}."
        )
    return level


def level_filters(filters: Sequence[int] | None, deepest: int, last: int) -> dict[int, int]:
    """Number of channels of each level of a decoder.

    Args:
        filters: `decoder_filters`.
        deepest: The encoder's deepest level.
        last: The level that the decoder ends at.

    Returns:
        Numbers of channels by level, the coarsest level first.

    Raises:
        ValueError: If there is not one for each level from the one above `deepest` to `last`.

    Example:
        >>> from keras_nuclei.decoding import level_filters
        >>> level_filters(None, 5, 2)
        {4: 256, 3: 128, 2: 64}
    """
    levels = range(deepest - 1, last - 1, -1)
    if filters is None:
        if deepest > len(DECODER_FILTERS):
            raise ValueError(
                f"The encoder halves its input {deepest} times; decoder_filters has defaults for "
                f"at most {len(DECODER_FILTERS)}. Pass {len(levels)} numbers."
            )
        return {level: DECODER_FILTERS[-1 - level] for level in levels}
    if isinstance(filters, int) or len(filters) != len(levels):
        raise ValueError(
            "decoder_filters must have one number for each time that the decoder doubles its "
            f"input, from the encoder's level P{deepest} to P{last}: {len(levels)}; got "
            f"{filters}."
        )
    return dict(zip(levels, filters, strict=True))


@dataclass(frozen=True)
class Steps:
    """The steps of a decoder. Each adds layers, named after the `place` it is given.

    Attributes:
        depth: Number of convolutions at each place; 0 for none.
        upsampling: `mode` of `keras_nuclei.blocks.UpsampleBlock`.
        normalization: As in `keras_nuclei.blocks.ConvBlock`, as are the next two.
        residual: Of the convolutions.
        batch_norm_momentum: Of the normalization.
        attention: One of `ATTENTIONS`.
        dropout: Rate of spatial dropout.

    Example:
        >>> import keras
        >>> from keras_nuclei.decoding import Steps
        >>> steps = Steps(
        ...     depth=1,
        ...     upsampling="nearest",
        ...     normalization="group",
        ...     residual=False,
        ...     batch_norm_momentum=0.9,
        ...     attention="gate",
        ...     dropout=0.1,
        ... )
        >>> coarse, skip = keras.Input((8, 8, 32)), keras.Input((15, 16, 8))
        >>> tuple(steps.up(coarse, [skip], 16, "0").shape)
        (None, 15, 16, 16)
    """

    depth: int
    upsampling: str
    normalization: str | None
    residual: bool
    batch_norm_momentum: float
    attention: str | None
    dropout: float

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"decoder_depth must be at least 0; got {self.depth}.")
        if self.residual and self.depth == 0:
            raise ValueError(
                "residual=True needs convolutions to go round: pass decoder_depth of at least 1."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"dropout, a share, must be at least 0 and less than 1; got {self.dropout}."
            )
        require_one_of(UPSAMPLING_MODES, upsampling=self.upsampling)
        require_one_of(NORMALIZATIONS, normalization=self.normalization)
        require_one_of(ATTENTIONS, attention=self.attention)

    def upsample(self, x: keras.KerasTensor, filters: int, place: str) -> keras.KerasTensor:
        """Twice the height and width, with weights."""
        return UpsampleBlock(
            filters,
            mode=self.upsampling,
            normalization=self.normalization,
            batch_norm_momentum=self.batch_norm_momentum,
            name=f"upsample_{place}",
        )(x)

    def join(self, x: keras.KerasTensor, skips: list, place: str) -> keras.KerasTensor:
        """Crop to the skips' size and append their channels. No skips: nothing to do."""
        if not skips:
            return x
        x = CropLike(name=f"crop_{place}")(x, skips[0])
        if self.attention == "gate":
            skip = skips[0]
            if len(skips) > 1:
                skip = layers.Concatenate(name=f"skips_{place}")(skips)
            skips = [self.gate(skip, x, place)]
        x = layers.Concatenate(name=f"join_{place}")([x, *skips])
        return self.squeeze_and_excite(x, f"join_{place}")

    def gate(self, skip: keras.KerasTensor, x: keras.KerasTensor, place: str) -> keras.KerasTensor:
        """The skip, its pixels weighed by what the decoder has, where `attention` is "gate"."""
        if self.attention != "gate":
            return skip
        return AttentionGate(max(1, skip.shape[-1] // 2), name=f"gate_{place}")(skip, x)

    def squeeze_and_excite(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Weigh channels and pixels, where `attention` is "scse"."""
        if self.attention != "scse":
            return x
        return SCSE(name=f"scse_{name}")(x)

    def convolve(self, x: keras.KerasTensor, filters: int, place: str) -> keras.KerasTensor:
        """`depth` convolutions, then attention."""
        if self.depth == 0:
            return x
        x = ConvBlock(
            filters,
            depth=self.depth,
            normalization=self.normalization,
            residual=self.residual,
            batch_norm_momentum=self.batch_norm_momentum,
            name=f"decoder_{place}",
        )(x)
        return self.squeeze_and_excite(x, f"decoder_{place}")

    def drop(self, x: keras.KerasTensor, place: str) -> keras.KerasTensor:
        """Whole channels left out in training, where `dropout` is more than 0."""
        if self.dropout == 0:
            return x
        return layers.SpatialDropout2D(
            self.dropout, data_format="channels_last", name=f"dropout_{place}"
        )(x)

    def up(self, x: keras.KerasTensor, skips: list, filters: int, place: str) -> keras.KerasTensor:
        """All of it, in the order of the U-Net: one level finer."""
        x = self.upsample(x, filters, place)
        x = self.join(x, skips, place)
        x = self.convolve(x, filters, place)
        return self.drop(x, place)
