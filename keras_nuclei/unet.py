"""The U-Net: an encoder, a decoder that upsamples to the size of each skip, a head."""

from collections.abc import Sequence

import keras

from keras_nuclei.decoding import Steps, last_level, level_filters, open_encoder
from keras_nuclei.heads import Tap, require_heads, supervise, with_heads
from keras_nuclei.typing import FilePath


def unet(
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
    name: str = "unet",
) -> keras.Model:
    """Build a U-Net for images of any height and width.

    Follows Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image
    Segmentation", https://doi.org/10.1007/978-3-319-24574-4_28, with any encoder as the downward
    half. Each level of the decoder is an `UpsampleBlock`, cropped to the size of the encoder's
    feature map (the skip), concatenated with it, and a `ConvBlock`.

    Args:
        encoder: A name in `keras_nuclei.ENCODERS`, None for the plain one of the original
            U-Net, or a functional `keras.Model` that takes values 0..255: one that keeps the
            contract of `keras_nuclei.encoders`, or any other, whose feature maps are found. For one
            that wants other values, see `keras_nuclei.encoders.feature_pyramid`.
        input_shape: `(height, width, channels)`; `None` for any height or width. Where `encoder`
            is a model, that model's input shape counts, and asking for another is an error.
        num_classes: Number of output channels, at least 1.
        classifier_activation: Activation of the output, None for logits. Take `"sigmoid"` for
            one class or for classes that may overlap, `"softmax"` for classes of which each
            pixel has one, background included. With `heads`, a dict gives each its own.
        heads: Names of several outputs and the number of channels of each, as in
            `{"foreground": 1, "distance": 1}`. The model then returns a dict of them, and
            `num_classes` must stay 1.
        encoder_weights: `"default"` takes the ImageNet weights of an encoder that has some, or
            says why it can't; None takes random ones; a path takes a file where the encoder
            can read one.
        encoder_trainable: False freezes the encoder, the statistics of its batch normalization
            included. True leaves it as it is: what you have frozen in a model of yours stays
            frozen. A model that is passed is used itself, not a copy of it.
        encoder_depth: Number of the encoder's halvings to use; what only deeper levels need is
            left out of the model. None uses all.
        decoder_filters: Channels of the decoder's levels, the smallest feature map first; one
            number for each time that it doubles its input. None takes the last ones of 256, 128,
            64, 32, 16, but for those that `decoder_stride` leaves out.
        decoder_depth: Number of convolutions on each level after the skip is joined; 0 for none,
            as in TensorFlow's segmentation tutorial.
        decoder_stride: 1, or a power of two: where it is 2, the decoder ends at half the height
            and width of the image, and the head gives each of its pixels four of the output.
            That saves the level that costs most and keeps the output as large as the image.
        upsampling: `mode` of `keras_nuclei.blocks.UpsampleBlock`. On nuclei `"nearest"` scores as
            `"bilinear"` does, and trains sooner.
        normalization: Of the decoder: `"batch"`, `"group"`, `"instance"`, `"layer"` or None, as in
            `keras_nuclei.normalization.make_normalization`. The encoder keeps its own. Group and
            instance normalization look at the whole image: what they make of a tile is not just
            a tile of what they make of the whole.
        dropout: Share of the channels, at least 0 and less than 1, that training leaves out at
            the end of each level (spatial dropout, Tompson et al. 2015,
            https://arxiv.org/abs/1411.4280).
        attention: `"gate"` puts a `keras_nuclei.attention.AttentionGate` on each skip;
            `"scse"` a `keras_nuclei.attention.SCSE` after each joining of a skip and after each
            level's convolutions, as segmentation_models.pytorch does. None for neither.
        residual: True adds the input of each level's convolutions to their output; see
            `keras_nuclei.blocks.ConvBlock`.
        deep_supervision: Number of coarser levels of the decoder that get heads of their own,
            the finest of them first (Lee et al. 2015, https://arxiv.org/abs/1409.5185). The model
            then returns a dict, with one more output for each head and level, as large as the
            image: `"head"`, `"head_stride2"`, `"head_stride4"`, or as the `heads` are named. They
            help in training; `keras_nuclei.heads.without_deep_supervision` leaves them out
            afterwards.
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

        Deep supervision, each level's loss half of that of the next finer one (nnU-Net, Isensee
        et al. 2021, https://doi.org/10.1038/s41592-020-01008-z):

        >>> encoder = keras_nuclei.encoders.plain(filters=(4, 8, 8, 8))
        >>> model = keras_nuclei.unet(encoder, decoder_filters=(8, 8, 4), deep_supervision=2)
        >>> outputs = ["head", "head_stride2", "head_stride4"]
        >>> model.compile(
        ...     "adam",
        ...     loss={output: keras_nuclei.losses.BinaryCrossentropyDice() for output in outputs},
        ...     loss_weights={output: 1 / 2**i for i, output in enumerate(outputs)},
        ... )
        >>> masks = np.zeros((2, 101, 75, 1), "uint8")
        >>> history = model.fit(images, {output: masks for output in outputs}, verbose=0)
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
    filters = level_filters(decoder_filters, pyramid.deepest, last)
    x = pyramid.maps[pyramid.deepest]
    decoded = {}
    for level, channels in filters.items():
        skips = [pyramid.maps[level]] if level in pyramid.maps else []
        x = decoded[level] = steps.up(x, skips, channels, f"{level}")

    finest = Tap(decoded.pop(last), decoder_stride, crop=last > 0 or 0 not in pyramid.maps)
    return with_heads(
        pyramid.inputs,
        [finest, *supervise(decoded, deep_supervision)],
        num_classes=num_classes,
        classifier_activation=classifier_activation,
        heads=heads,
        name=name,
    )
