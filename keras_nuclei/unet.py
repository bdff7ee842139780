"""The U-Net: an encoder, a decoder that upsamples to the size of each skip, a head."""

import keras
from keras import layers

from keras_nuclei.blocks import ConvBlock, CropLike, UpsampleBlock
from keras_nuclei.encoders import get_encoder

DECODER_FILTERS = (256, 128, 64, 32, 16)
"""Channels of the decoder's levels, the smallest feature map first."""


def unet(
    encoder: str | keras.Model | None = None,
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    classifier_activation: str | None = "sigmoid",
    encoder_weights: str | None = "default",
    encoder_trainable: bool = True,
    decoder_filters: tuple[int, ...] | None = None,
    decoder_depth: int = 1,
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
        encoder_weights: `"default"` takes the ImageNet weights of an encoder that has some, or
            says why it can't; None takes random ones; a path takes a file where the encoder
            can read one.
        encoder_trainable: False freezes the encoder, the statistics of its batch normalization
            included. True leaves it as it is: what you have frozen in a model of yours stays
            frozen. A model that is passed is used itself, not a copy of it.
        decoder_filters: Channels of the decoder's levels, the smallest feature map first; one
            number for each halving of the encoder. None takes the last ones of
            `DECODER_FILTERS`.
        decoder_depth: Number of convolutions on each level after the skip is joined; 0 for none,
            as in TensorFlow's segmentation tutorial.
        upsampling: `mode` of `keras_nuclei.blocks.UpsampleBlock`.
        batch_norm_momentum: As in `keras_nuclei.blocks.ConvBlock`, for the decoder and for an
            encoder built by name.
        name: Name of the model.

    Returns:
        A functional model from images `(batch, height, width, channels)`, values 0..255 of any
        dtype, to `(batch, height, width, num_classes)`, float32 also under mixed precision. The
        encoder is its layer of the encoder's name.

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
    encoder = get_encoder(
        encoder,
        input_shape=input_shape,
        weights=encoder_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    if not encoder_trainable:
        encoder.trainable = False
    inputs = keras.Input(encoder.inputs[0].shape[1:], name="image")
    pyramid = encoder(inputs)

    deepest = max(int(level[1:]) for level in pyramid)
    filters = _decoder_filters(decoder_filters, deepest)
    x = pyramid[f"P{deepest}"]
    for level, level_filters in zip(reversed(range(deepest)), filters, strict=True):
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
    if "P0" not in pyramid:
        x = CropLike(name="crop_to_image")(x, inputs)
    # float32, so that probabilities near 0 and 1 and their logarithms survive mixed precision.
    outputs = layers.Conv2D(
        num_classes,
        1,
        activation=classifier_activation,
        data_format="channels_last",
        dtype="float32",
        name="head",
    )(x)
    return keras.Model(inputs, outputs, name=name)


def _decoder_filters(filters: tuple[int, ...] | None, halvings: int) -> tuple[int, ...]:
    if filters is None:
        if halvings > len(DECODER_FILTERS):
            raise ValueError(
                f"The encoder halves its input {halvings} times; decoder_filters has defaults for "
                f"at most {len(DECODER_FILTERS)}. Pass {halvings} numbers."
            )
        return DECODER_FILTERS[len(DECODER_FILTERS) - halvings :]
    if isinstance(filters, int) or len(filters) != halvings:
        raise ValueError(
            f"decoder_filters must have one number for each of the encoder's {halvings} "
            f"halvings; got {filters}."
        )
    return tuple(filters)
