"""Outputs of a decoder: heads by name, those of deep supervision, and others in their place."""

import re
from dataclasses import dataclass
from numbers import Integral

import keras

from keras_nuclei.blocks import CropLike, Head

_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")
_AUXILIARY = re.compile(r"(.+)(_stride\d+)")


@dataclass(frozen=True)
class Tap:
    """Where heads are put on a decoder.

    Attributes:
        features: Symbolic feature map.
        stride: How many times smaller than the image it is.
        upsampling: As in `keras_nuclei.blocks.Head`.
        crop: Whether the output may be larger than the image. Every halving of an encoder rounds
            up, so it is never smaller.
        suffix: Of the names of the outputs: "" for those that the model is for.

    Example:
        >>> import keras
        >>> from keras_nuclei.heads import Tap
        >>> Tap(keras.Input((8, 8, 16)), stride=4, suffix="_stride4").crop
        True
    """

    features: keras.KerasTensor
    stride: int
    upsampling: str = "pixel_shuffle"
    crop: bool = True
    suffix: str = ""


def supervise(coarser: dict[int, keras.KerasTensor], deep_supervision: int) -> list[Tap]:
    """Choose the levels that get heads of deep supervision.

    Args:
        coarser: Feature maps of the decoder's levels, without the finest, by level.
        deep_supervision: How many, the finest of them first.

    Returns:
        A tap for each.

    Raises:
        ValueError: If there are fewer levels than that.

    Example:
        >>> import keras
        >>> from keras_nuclei.heads import supervise
        >>> coarser = {2: keras.Input((8, 8, 64)), 1: keras.Input((16, 16, 32))}
        >>> [tap.suffix for tap in supervise(coarser, 2)]
        ['_stride2', '_stride4']
    """
    if not 0 <= deep_supervision <= len(coarser):
        raise ValueError(
            "deep_supervision must be the number of coarser levels of the decoder that get a "
            f"head, 0..{len(coarser)} in this one; got {deep_supervision}."
        )
    levels = sorted(coarser)[:deep_supervision]
    return [Tap(coarser[k], 2**k, "bilinear", suffix=f"_stride{2**k}") for k in levels]


def with_heads(
    inputs: keras.KerasTensor,
    taps: list[Tap],
    *,
    num_classes: int,
    classifier_activation: str | dict[str, str | None] | None,
    heads: dict[str, int] | None,
    name: str,
) -> keras.Model:
    """Put heads on a decoder and make a model of both.

    Args:
        inputs: Symbolic images, whose size the outputs take.
        taps: Where; the one that the model is for first.
        num_classes: As in `keras_nuclei.unet`, as are the next two; `require_heads` has let them
            pass.
        classifier_activation: Of all outputs, or of each head.
        heads: Names and numbers of channels.
        name: Name of the model.

    Returns:
        A model with one output, or with a dict of them where `heads` is given or there are
        several taps.

    Raises:
        ValueError: If a head is named as a layer below it is.

    Example:
        >>> import keras
        >>> from keras_nuclei.heads import Tap, with_heads
        >>> image = keras.Input((31, 32, 3))
        >>> model = with_heads(
        ...     image,
        ...     [Tap(keras.layers.Conv2D(8, 2, strides=2, padding="same")(image), stride=2)],
        ...     num_classes=5,
        ...     classifier_activation="softmax",
        ...     heads=None,
        ...     name="tiny",
        ... )
        >>> model.output_shape
        (None, 31, 32, 5)
    """
    channels = heads or {"head": num_classes}
    activations = _activations(classifier_activation, list(channels))
    body = keras.Model(inputs, [tap.features for tap in taps])
    taken = {layer.name for layer in body.layers}
    outputs = {}
    for tap in taps:
        for head, count in channels.items():
            output = f"{head}{tap.suffix}"
            crop = f"crop_{output}"
            if clashes := sorted(taken & {output, crop}):
                raise ValueError(
                    f"A head can't be named {head!r}, since the model has a layer {clashes[0]!r} "
                    "already. Choose another name."
                )
            taken |= {output, crop}
            x = Head(
                count,
                stride=tap.stride,
                activation=activations[head],
                upsampling=tap.upsampling,
                name=output,
            )(tap.features)
            if tap.crop:
                x = CropLike(dtype="float32", name=crop)(x, inputs)
            outputs[output] = x
    alone = heads is None and len(taps) == 1
    return keras.Model(inputs, outputs["head"] if alone else outputs, name=name)


def require_heads(
    heads: dict[str, int] | None,
    num_classes: int,
    classifier_activation: str | dict[str, str | None] | None,
) -> None:
    """Raise unless names, numbers of channels and activations of outputs will do.

    Args:
        heads: As in `keras_nuclei.unet`.
        num_classes: As in `keras_nuclei.unet`.
        classifier_activation: As in `keras_nuclei.unet`.

    Raises:
        ValueError: If they won't.

    Example:
        >>> from keras_nuclei.heads import require_heads
        >>> require_heads({"foreground": 1, "distance": 1}, 1, classifier_activation="sigmoid")
    """
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number, at least 1; got {num_classes!r}.")
    if heads is not None:
        _require_names(heads)
        if num_classes != 1:
            raise ValueError(
                f"Pass either heads or num_classes; got heads={heads} and "
                f"num_classes={num_classes}."
            )
    channels = heads or {"head": num_classes}
    if isinstance(classifier_activation, dict) and classifier_activation.keys() != channels.keys():
        raise ValueError(
            "As a dict, classifier_activation must have one activation for each of the heads, "
            f"{list(channels)}; got {classifier_activation}."
        )
    for head, activation in _activations(classifier_activation, list(channels)).items():
        try:
            function = keras.activations.get(activation)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "classifier_activation must be the name of a Keras activation, such as 'sigmoid' "
                f"or 'softmax', or None for logits; got {activation!r}."
            ) from error
        if function is keras.activations.softmax and channels[head] == 1:
            raise ValueError(
                "The softmax of one channel is 1 everywhere. Pass classifier_activation='sigmoid', "
                f"or more channels, background included, for {head!r}."
            )


def _require_names(heads: dict[str, int]) -> None:
    numbers = heads.values() if isinstance(heads, dict) else ()
    if not numbers or any(not isinstance(count, Integral) or count < 1 for count in numbers):
        raise ValueError(
            "heads must be a dict of names and numbers of channels, at least 1 each, such as "
            f"{{'foreground': 1, 'distance': 1}}; got {heads!r}."
        )
    if unfit := [name for name in heads if not isinstance(name, str) or not _NAME.fullmatch(name)]:
        raise ValueError(
            "Heads are layers, whose names TensorFlow allows letters without accents, digits, '_', "
            f"'-' and '.' in, the first a letter, digit or '.'; got {unfit}."
        )
    if reserved := [name for name in heads if _AUXILIARY.fullmatch(name)]:
        raise ValueError(
            "Names of heads that end in _stride and a number are those of deep supervision; got "
            f"{reserved}."
        )


def _activations(
    classifier_activation: str | dict[str, str | None] | None, heads: list[str]
) -> dict[str, str | None]:
    if isinstance(classifier_activation, dict):
        return classifier_activation
    return dict.fromkeys(heads, classifier_activation)


def replace_head(
    model: keras.Model,
    *,
    num_classes: int = 1,
    classifier_activation: str | dict[str, str | None] | None = "sigmoid",
    heads: dict[str, int] | None = None,
) -> keras.Model:
    """Put another head on a trained body.

    The new model has the layers of the old one, not copies of them: training either trains the
    body of both. Only the heads are new, with random weights. Heads of deep supervision are
    replaced as well; `without_deep_supervision` drops them.

    Args:
        model: Built by `keras_nuclei.unet`, `unetplusplus`, `fpn` or `from_preset`, or loaded from
            a file of one. It is left as it is.
        num_classes: As in `keras_nuclei.unet`.
        classifier_activation: As in `keras_nuclei.unet`.
        heads: As in `keras_nuclei.unet`: names of several outputs and the number of channels of
            each, in place of `num_classes`.

    Returns:
        A functional model of the same input, not compiled, with what is frozen still frozen.

    Raises:
        TypeError: If `model` is no functional model.
        ValueError: If it has no `keras_nuclei.blocks.Head`, or an argument is out of its range.

    Example:
        >>> import keras_nuclei
        >>> from keras_nuclei.heads import replace_head
        >>> trained = keras_nuclei.from_preset("nuclei_small")
        >>> model = replace_head(trained, num_classes=3, classifier_activation="softmax")
        >>> model.output_shape
        (None, None, None, 3)
    """
    _require_functional(model)
    require_heads(heads, num_classes, classifier_activation)
    names = {layer.name for layer in model.layers}
    taps = {}
    for head in (layer for layer in model.layers if isinstance(layer, Head)):
        auxiliary = _AUXILIARY.fullmatch(head.name)
        suffix = auxiliary.group(2) if auxiliary else ""
        crop = f"crop_{head.name}" in names
        taps[suffix] = Tap(head.input, head.stride, head.upsampling, crop, suffix)
    if not taps:
        raise ValueError(
            f"The model {model.name!r} has no layer of the class keras_nuclei.blocks.Head to "
            "replace. Pass one built by keras_nuclei.unet, unetplusplus or fpn."
        )
    return with_heads(
        model.inputs[0],
        sorted(taps.values(), key=lambda tap: (tap.suffix != "", tap.stride)),
        num_classes=num_classes,
        classifier_activation=classifier_activation,
        heads=heads,
        name=model.name,
    )


def without_deep_supervision(model: keras.Model) -> keras.Model:
    """Leave out the heads of deep supervision, which serve in training only.

    Args:
        model: Built with `deep_supervision`, or loaded from a file of one. It is left as it is.

    Returns:
        A functional model with the same layers, not copies of them, and the same weights as the
        one that the same arguments with `deep_supervision=0` build: an array for one output
        named `"head"`, otherwise a dict. Not compiled. A model without such heads is returned
        itself.

    Raises:
        TypeError: If `model` is no functional model.

    Example:
        >>> import keras_nuclei
        >>> from keras_nuclei.heads import without_deep_supervision
        >>> encoder = keras_nuclei.encoders.plain(filters=(4, 8, 8))
        >>> model = keras_nuclei.unet(encoder, decoder_filters=(8, 4), deep_supervision=1)
        >>> sorted(model.output)
        ['head', 'head_stride2']
        >>> without_deep_supervision(model).output_shape
        (None, None, None, 1)
    """
    _require_functional(model)
    outputs = model.output
    if not isinstance(outputs, dict) or not any(map(_AUXILIARY.fullmatch, outputs)):
        return model
    kept = {name: output for name, output in outputs.items() if not _AUXILIARY.fullmatch(name)}
    return keras.Model(
        model.input, kept["head"] if list(kept) == ["head"] else kept, name=model.name
    )


def _require_functional(model: keras.Model) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise TypeError(
            "model must be a functional keras.Model, as keras_nuclei.unet builds it; got "
            f"{type(model).__name__}."
        )
