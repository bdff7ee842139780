"""The U-Net: an encoder, a decoder that upsamples to the size of each skip, a head."""

import keras
from keras import layers

from keras_nuclei.blocks import ConvBlock, CropLike, Head, UpsampleBlock
from keras_nuclei.encoders import get_encoder

DECODER_FILTERS = (256, 128, 64, 32, 16)
"""Channels of the decoder's levels, the smallest feature map first."""


def unet(
    encoder: str | keras.Model | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    classifier_activation: str | None = "sigmoid",
    heads: dict[str, int] | None = None,
    encoder_weights: str | None = "default",
    encoder_trainable: bool = True,
    encoder_depth: int | None = None,
    decoder_filters: tuple[int, ...] | None = None,
    decoder_depth: int = 1,
    decoder_stride: int = 1,
    upsampling: str = "bilinear",
    batch_norm_momentum: float = 0.9,
    name: str = "unet",
) -> keras.Model:
    """Build a U-Net for images of any height and width.

    Follows Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
    Segmentation", https://doi.org/10.1007/978-3-319-24574-4_28, with any encoder as the downward
    half. Each level of the decoder is an `UpsampleBlock`, cropped to the size of the encoder's
    feature map (the skip), concatenated with it, and a `ConvBlock`.

    Args:
        encoder: A name in `keras_nuclei.ENCODERS`, None for the plain one of the original
            U-Net, or a functional `keras.Model` that keeps the contract of
            `keras_nuclei.encoders`.
        input_shape: `(height, width, channels)`; `None` for any height or width. Where `encoder`
            is a model, that model's input shape counts.
        num_classes: Number of output channels, at least 1.
        classifier_activation: Activation of the output, None for logits. Take `"sigmoid"` for
            one class or for classes that may overlap, `"softmax"` for classes of which each
            pixel has one.
        heads: Names of several outputs and the number of channels of each, as in
            `{"foreground": 1, "distance": 1}`. The model then returns a dict of them, and
            `num_classes` must stay 1. All have the `classifier_activation`.
        encoder_weights: `"default"` takes the ImageNet weights of an encoder that has some, or
            says why it can't; None takes random ones; a path takes a file where the encoder
            can read one.
        encoder_trainable: False freezes the encoder, the statistics of its batch normalization
            included. True leaves it as it is: what you have frozen in a model of yours stays
            frozen. A model that is passed is used itself, not a copy of it.
        encoder_depth: Number of the encoder's halvings to use; what only deeper levels need is
            left out of the model. None uses all.
        decoder_filters: Channels of the decoder's levels, the smallest feature map first; one
            number for each time that it doubles its input. None takes the last ones of
            `DECODER_FILTERS`, but for those that `decoder_stride` leaves out.
        decoder_depth: Number of convolutions on each level after the skip is joined; 0 for none,
            as in TensorFlow's segmentation tutorial.
        decoder_stride: 1, or a power of two: where it is 2, the decoder ends at half the height
            and width of the image, and the head gives each of its pixels four of the output.
            That saves the level that costs most and keeps the output as large as the image.
        upsampling: `mode` of `keras_nuclei.blocks.UpsampleBlock`.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`, for the decoder and for an
            encoder built by name.
        name: Name of the model.

    Returns:
        A functional model from images `(batch, height, width, channels)`, values 0..255 of any
        dtype, to `(batch, height, width, num_classes)`, or a dict of such by the names of the
        heads; float32 also under mixed precision. The encoder is its layer of the encoder's name.

    Raises:
        ValueError: If an argument is out of its range, or `decoder_filters` has another length
            than the encoder has halvings. The message says how many those are.
        RuntimeError: If pretrained weights can't be downloaded, or their file is damaged. The
            message says how to go on.
        ImportError: If the package that holds the weights is not installed. The message names it.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.unet("mobilenet_v2", encoder_weights=None)
        >>> images = np.random.default_rng(0).integers(0, 256, (2, 101, 75, 3), dtype="uint8")
        >>> model.predict(images, verbose=0).shape
        (2, 101, 75, 1)
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}.")
    if decoder_depth < 0:
        raise ValueError(f"decoder_depth must be at least 0; got {decoder_depth}.")
    _require_heads(heads, num_classes)
    encoder = get_encoder(
        encoder,
        input_shape=input_shape,
        weights=encoder_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    if encoder_depth is not None:
        encoder = _truncate(encoder, encoder_depth)
    if not encoder_trainable:
        encoder.trainable = False
    inputs = keras.Input(encoder.inputs[0].shape[1:], name="image")
    pyramid = encoder(inputs)

    deepest = max(int(level[1:]) for level in pyramid)
    last = _last_level(decoder_stride, deepest)
    filters = _decoder_filters(decoder_filters, deepest, last)
    x = pyramid[f"P{deepest}"]
    for level, level_filters in zip(reversed(range(last, deepest)), filters, strict=True):
        x = UpsampleBlock(
            level_filters,
            mode=upsampling,
            batch_norm_momentum=batch_norm_momentum,
            name=f"upsample_{level}",
        )(x)
        skip = pyramid.get(f"P{level}")
        if skip is not None:
            x = CropLike(name=f"crop_{level}")(x, skip)
            x = layers.Concatenate(name=f"join_{level}")([x, skip])
        if decoder_depth > 0:
            x = ConvBlock(
                level_filters,
                depth=decoder_depth,
                batch_norm_momentum=batch_norm_momentum,
                name=f"decoder_{level}",
            )(x)

    def head(channels: int, head_name: str):
        activation = classifier_activation
        y = Head(channels, stride=decoder_stride, activation=activation, name=head_name)(x)
        if last == 0 and "P0" in pyramid:
            return y
        # Every halving rounds up, so the output may be larger than the image, never smaller.
        return CropLike(dtype="float32", name=f"crop_{head_name}")(y, inputs)

    if heads is None:
        outputs = head(num_classes, "head")
    else:
        outputs = {head_name: head(channels, head_name) for head_name, channels in heads.items()}
    return keras.Model(inputs, outputs, name=name)


def _require_heads(heads: dict[str, int] | None, num_classes: int) -> None:
    if heads is None:
        return
    if num_classes != 1:
        raise ValueError(
            f"Pass either heads or num_classes; got heads={heads} and num_classes={num_classes}."
        )
    if not isinstance(heads, dict) or not heads or any(count < 1 for count in heads.values()):
        raise ValueError(
            "heads must be a dict of names and numbers of channels, at least 1 each, such as "
            f"{{'foreground': 1, 'distance': 1}}; got {heads!r}."
        )


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


def _last_level(stride: int, deepest: int) -> int:
    """The level, as in `P1`, whose stride the decoder ends at."""
    level = stride.bit_length() - 1
    if stride < 1 or stride != 2**level or level >= deepest:
        raise ValueError(
            f"decoder_stride must be a power of two below {2**deepest}, the stride of the "
            f"encoder's deepest level; got {stride}."
        )
    return level


def _decoder_filters(filters: tuple[int, ...] | None, deepest: int, last: int) -> tuple[int, ...]:
    if filters is None:
        if deepest > len(DECODER_FILTERS):
            raise ValueError(
                f"The encoder halves its input {deepest} times; decoder_filters has defaults for "
                f"at most {len(DECODER_FILTERS)}. Pass {deepest - last} numbers."
            )
        unused = len(DECODER_FILTERS) - deepest
        return DECODER_FILTERS[unused : len(DECODER_FILTERS) - last]
    if isinstance(filters, int) or len(filters) != deepest - last:
        raise ValueError(
            "decoder_filters must have one number for each time that the decoder doubles its "
            f"input, from the encoder's level P{deepest} to P{last}: {deepest - last}; got "
            f"{filters}."
        )
    return tuple(filters)
