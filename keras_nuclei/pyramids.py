"""Feature pyramids: any functional model as an encoder, for images of any height and width.

Classifiers halve their input as it suits them: some round up, some down, some eat a border. Here
the image is padded to a multiple of the network's largest stride, so that every halving is exact,
and each feature map is cropped to `ceil(size / 2**n)`, which is what the decoder expects.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from keras_nuclei.channels import OnesChannel
from keras_nuclei.typing import Config, Shape, Tensor
from keras_nuclei.validation import require_at_least_one

PROBE_SIZE = 2**10
"""Height and width at which the sizes of a network's feature maps are looked at, in pixels."""


@keras.saving.register_keras_serializable(package="keras_nuclei")
class PadToMultiple(layers.Layer):
    """Repeat the last row and column until the height and width are multiples of a number.

    Repeating, rather than filling with zeros, draws no edge that is not in the image.

    Args:
        multiple: At least 1, in pixels.
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Input shape:
        `(batch, height, width, channels)`

    Output shape:
        The same with the height and width rounded up to multiples.

    Raises:
        ValueError: If `multiple` is below 1.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.pyramids import PadToMultiple
        >>> tuple(PadToMultiple(32)(np.zeros((1, 101, 64, 3), "float32")).shape)
        (1, 128, 64, 3)
    """

    def __init__(self, multiple: int, **kwargs: Any):
        super().__init__(**kwargs)
        require_at_least_one(multiple=multiple)
        self.multiple = multiple

    def call(self, inputs: Tensor) -> Tensor:
        x = inputs
        for axis in (1, 2):
            x = self._pad(x, axis)
        return x

    def _pad(self, x: Tensor, axis: int) -> Tensor:
        known = x.shape[axis]
        # A slice of the most that may be needed, rather than padding by a tensor, which only
        # TensorFlow can.
        spare = self.multiple - 1 if known is None else -known % self.multiple
        if spare == 0:
            return x
        last = x[:, -1:] if axis == 1 else x[:, :, -1:]
        x = ops.concatenate([x, ops.repeat(last, spare, axis=axis)], axis=axis)
        if known is not None:
            return x
        size = ops.shape(x)[axis] // self.multiple * self.multiple
        return x[:, :size] if axis == 1 else x[:, :, :size]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        padded = (size and -(-size // self.multiple) * self.multiple for size in (height, width))
        return (batch, *padded, channels)

    def get_config(self) -> Config:
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="keras_nuclei")
class CropToLevel(layers.Layer):
    """Crop the feature map of a padded image to what the image itself covers.

    Call it with the feature map and the image.

    Args:
        level: n, where the feature map is `2**n` times smaller than the padded image; at least 0.
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Input shape:
        `(batch, height', width', features)` and `(batch, height, width, channels)`

    Output shape:
        `(batch, ceil(height / 2**n), ceil(width / 2**n), features)`

    Raises:
        ValueError: If `level` is below 0.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.pyramids import CropToLevel
        >>> features, image = np.zeros((1, 32, 16, 24)), np.zeros((1, 101, 64, 3))
        >>> tuple(CropToLevel(2)(features, image).shape)
        (1, 26, 16, 24)
    """

    def __init__(self, level: int, **kwargs: Any):
        super().__init__(**kwargs)
        if level < 0:
            raise ValueError(f"level must be at least 0; got {level}.")
        self.level = level

    def call(self, inputs: Tensor, image: Tensor) -> Tensor:
        stride = 2**self.level
        height, width = ((size + stride - 1) // stride for size in ops.shape(image)[1:3])
        return inputs[:, :height, :width, :]

    def compute_output_shape(self, inputs_shape: Shape, image_shape: Shape) -> Shape:
        stride = 2**self.level
        cropped = (size and -(-size // stride) for size in image_shape[1:3])
        return (inputs_shape[0], *cropped, inputs_shape[3])

    def get_config(self) -> Config:
        return {**super().get_config(), "level": self.level}


PIXELWISE = (
    PadToMultiple,
    OnesChannel,
    layers.Rescaling,
    layers.Normalization,
    layers.ZeroPadding2D,
    layers.Identity,
)
"""Layers that make no features of an image's pixels."""

_FIXED = (
    "{name!r} can't be run on images of other sizes than its own ({error}). Pass the part of it "
    "that can, as in keras.Model(model.input, model.get_layer(...).output)."
)


def feature_pyramid(
    model: keras.Model,
    *,
    taps: dict[str, keras.KerasTensor] | None = None,
    preprocessing: Callable[[keras.KerasTensor], keras.KerasTensor] | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Make an encoder of any functional model, for images of any height and width.

    The model's layers are used, not copied, and what only its own output needs is left out. Its
    feature maps are found by their size: of those that are smaller than the image by one power of
    two, the last one that all the rest is computed from, which leaves out the branches inside a
    block. Where there is none, as in NASNet, whose cells look at two cells before them, it is the
    last of those with the most channels.

    Args:
        model: A functional model with one input `(batch, height, width, channels)`, such as those
            of `keras.applications` without their top, and feature maps `(batch, height, width,
            channels)` inside.
        taps: Feature maps inside `model` by level, as in `{"P2": model.get_layer("conv2").output}`,
            where that of `Pn` is `2**n` times smaller than the input. None finds them; a model
            with `pyramid_outputs`, as KerasHub's backbones, tells.
        preprocessing: A layer or function that maps images of values 0..255 to what `model`
            expects, as `keras.layers.Rescaling(1 / 127.5, offset=-1)`. None for a model that
            takes 0..255.
        input_shape: `(height, width, channels)` of the encoder; `None` for any height or width.
            Without one, any height and width, and the channels of `model`.
        name: Name of the encoder; None takes the model's.

    Returns:
        A model that keeps the contract of `keras_nuclei.encoders`.

    Warns:
        UserWarning: If a model among the layers halves the image more than once: the feature maps
            inside it are not looked for.

    Raises:
        TypeError: If `model` is not a functional model.
        ValueError: If it has another input, no feature map is smaller than it by a power of two,
            or the layer that makes one is called more than once.

    Example:
        >>> import keras
        >>> import keras_nuclei
        >>> classifier = keras.applications.MobileNetV2(
        ...     (64, 64, 3), include_top=False, weights=None, alpha=0.35
        ... )
        >>> encoder = keras_nuclei.encoders.feature_pyramid(
        ...     classifier, preprocessing=keras.layers.Rescaling(1 / 127.5, offset=-1)
        ... )
        >>> {level: features.shape[-1] for level, features in encoder.output.items()}
        {'P1': 48, 'P2': 48, 'P3': 96, 'P4': 192, 'P5': 1280}
    """
    model = _functional(model)
    taps = taps or getattr(model, "pyramid_outputs", None)
    makers = _makers(model, taps) if taps else find_taps(model)
    deepest = max(int(level[1:]) for level in makers)
    if input_shape is None:
        input_shape = (None, None, model.inputs[0].shape[-1])

    image = keras.Input(input_shape, name="image")
    x = PadToMultiple(2**deepest, name="pyramid_pad")(image)
    if preprocessing is not None:
        x = preprocessing(x)
    steps, error = _trace_what_fits(model, x)
    called = {id(step.operation) for step in steps}
    if error and any(id(maker) not in called for maker in makers.values()):
        raise ValueError(_FIXED.format(name=model.name, error=error))
    _require_called_once(makers, steps, model.name)
    outputs = {id(step.operation): step.output for step in steps}
    pyramid = {level: outputs[id(makers[level])] for level in sorted(makers)}
    return keras.Model(image, crop_pyramid(pyramid, image), name=name or model.name)


def crop_pyramid(pyramid: dict[str, keras.KerasTensor], image: keras.KerasTensor) -> dict:
    """Crop the feature maps of a padded image, by level, to what the image itself covers.

    Args:
        pyramid: Symbolic feature maps by level.
        image: The symbolic image, without its padding.

    Returns:
        The cropped ones, by the same levels.

    Example:
        >>> import keras
        >>> from keras_nuclei.pyramids import crop_pyramid
        >>> cropped = crop_pyramid({"P1": keras.Input((64, 64, 8))}, keras.Input((101, 75, 3)))
        >>> tuple(cropped["P1"].shape)
        (None, 51, 38, 8)
    """
    return {
        level: CropToLevel(int(level[1:]), name=f"pyramid_{level}")(features, image)
        for level, features in pyramid.items()
    }


class Step(NamedTuple):
    """One call in a network: of a layer or of another Keras operation.

    Attributes:
        operation: What was called.
        inputs: The tensors that it was called with.
        output: What it returned: a tensor, or a structure of some.

    Example:
        >>> import keras
        >>> from keras_nuclei.pyramids import trace
        >>> image = keras.Input((8, 8, 3))
        >>> model = keras.Model(image, keras.layers.ReLU(name="activate")(image))
        >>> trace(model, keras.Input((4, 4, 3)))[0].operation.name
        'activate'
    """

    operation: keras.Operation
    inputs: list[keras.KerasTensor]
    output: Any


def trace(
    model: keras.Model,
    x: keras.KerasTensor,
    clone_function: Callable[[layers.Layer], layers.Layer] = lambda layer: layer,
) -> list[Step]:
    """Run a model's layers on another input, as if they had been written there.

    Calling the model would put it into the new one whole; flat, its deeper layers can be left out
    and its layers be found by name.

    Args:
        model: Functional model with one input.
        x: What to run it on.
        clone_function: What to call in place of each layer; without one, the layer itself.

    Returns:
        Every call, each after those that it needs; the last one's output is the model's, where it
        has one.

    Example:
        >>> import keras
        >>> from keras_nuclei.pyramids import trace
        >>> image = keras.Input((8, 8, 3))
        >>> model = keras.Model(image, keras.layers.MaxPooling2D(2)(image))
        >>> [tuple(step.output.shape) for step in trace(model, keras.Input((4, 6, 3)))]
        [(None, 2, 3, 3)]
    """
    steps: list[Step] = []
    _run(model, x, clone_function, steps)
    return steps


def _run(
    model: keras.Model,
    x: keras.KerasTensor,
    clone_function: Callable[[layers.Layer], layers.Layer],
    steps: list[Step],
) -> None:
    """Call a model's layers as `trace` does, and append each call to `steps`."""

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Tensor:
        output = operation(*args, **kwargs)
        tensors = [
            tensor
            for tensor in keras.tree.flatten((args, kwargs))
            if isinstance(tensor, keras.KerasTensor)
        ]
        steps.append(Step(operation, tensors, output))
        return output

    # What clone_model returns is a copy of the graph that begins at x, without what comes before.
    keras.models.clone_model(
        model,
        input_tensors=keras.tree.map_structure(lambda _: x, model.input),
        clone_function=clone_function,
        call_function=call,
    )


def _trace_what_fits(model: keras.Model, x: keras.KerasTensor) -> tuple[list[Step], str]:
    """The calls of `trace`, up to one that does not fit `x`, and why it does not."""
    steps: list[Step] = []
    try:
        _run(model, x, lambda layer: layer, steps)
    except ValueError as error:  # a dense layer behind a flattened map, for one
        return steps, str(error)
    return steps, ""


def find_taps(model: keras.Model) -> dict[str, keras.Operation]:
    """Find what makes the feature map at each stride that is a power of two.

    Which one that is, `feature_pyramid` says.

    Args:
        model: A functional model with one input.

    Returns:
        The layers, or other operations, by level, the largest map first. `P0` is among them where
        the model computes features at the full size.

    Raises:
        ValueError: If there are none.

    Example:
        >>> import keras
        >>> from keras_nuclei.pyramids import find_taps
        >>> image = keras.Input((None, None, 3))
        >>> x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="halve")(image)
        >>> x = keras.layers.ReLU(name="activate")(x)
        >>> {level: layer.name for level, layer in find_taps(keras.Model(image, x)).items()}
        {'P1': 'activate'}
    """
    steps, error = _trace_what_fits(model, _probe(model))
    if error and not any(_is_map(step.output) for step in steps):
        raise ValueError(_FIXED.format(name=model.name, error=error))
    _warn_of_models_within(steps)
    levels = _levels(steps)
    on_every_path = _on_every_path(steps)
    taps = {}
    for level in sorted({found for found in levels if found is not None}):
        here = [index for index, found in enumerate(levels) if found == level]
        chosen = [i for i in here if on_every_path[i]] or _widest(steps, here)
        taps[f"P{level}"] = steps[chosen[-1]].operation
    if not any(level != "P0" for level in taps):
        raise ValueError(
            f"{model.name!r} has no feature map that is a power of two smaller than its input. "
            'Name them: feature_pyramid(model, taps={"P1": ..., "P2": ...}).'
        )
    return taps


def find_strides(model: keras.Model) -> dict[str, int]:
    """Find how many times smaller than the image the output of each layer is.

    Args:
        model: A functional model with one input `(batch, height, width, channels)`.

    Returns:
        The strides by the names of the layers. A layer whose output is no map, such as those of
        squeeze-and-excitation, has the stride of what it was computed from.

    Example:
        >>> import keras
        >>> from keras_nuclei.pyramids import find_strides
        >>> image = keras.Input((None, None, 3))
        >>> x = keras.layers.MaxPooling2D(2, padding="same", name="pool")(image)
        >>> find_strides(keras.Model(image, x))
        {'pool': 2}
    """
    of_tensor: dict[int, int] = {}
    strides = {}
    for step in trace(model, _probe(model)):
        before = max(of_tensor.get(id(tensor), 1) for tensor in step.inputs)
        # Rounded, since some maps have a border that was added for the next layer.
        stride = round(PROBE_SIZE / step.output.shape[1]) if _is_map(step.output) else before
        strides[step.operation.name] = stride
        for tensor in keras.tree.flatten(step.output):
            of_tensor[id(tensor)] = stride
    return strides


def _functional(model: keras.Model) -> keras.Model:
    """The model itself, or a sequential one's graph, if it can be looked into."""
    if isinstance(model, keras.Sequential) and model.inputs:
        model = keras.Model(model.inputs, model.outputs, name=model.name)
    if not hasattr(model, "operations") or not getattr(model, "inputs", None):
        raise TypeError(
            "An encoder must be a functional keras.Model, whose layers can be looked at; "
            f"got {type(model).__name__} {getattr(model, 'name', '')!r}. Build it with "
            "keras.Model(inputs, outputs)."
        )
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            "An encoder has one input (batch, height, width, channels). "
            f"{model.name!r} has the inputs {shapes}."
        )
    return model


def _makers(model: keras.Model, taps: dict[str, keras.KerasTensor]) -> dict[str, keras.Operation]:
    """What made the tensors that were named."""
    makers = {
        id(tensor): operation
        for operation in model.operations
        for tensor in keras.tree.flatten(operation.output)
    }
    foreign = [level for level, tensor in taps.items() if id(tensor) not in makers]
    if foreign:
        raise ValueError(
            f"The taps {', '.join(foreign)} are not outputs of layers of {model.name!r}. Take them "
            "from it, as in model.get_layer(name).output."
        )
    return {level: makers[id(tensor)] for level, tensor in taps.items()}


def _require_called_once(makers: dict[str, keras.Operation], steps: list[Step], name: str) -> None:
    """Raise where a feature map is made by a layer that makes others, too."""
    for level, maker in makers.items():
        calls = sum(step.operation is maker for step in steps)
        if calls > 1:
            raise ValueError(
                f"The feature map {level} of {name!r} is made by the layer {maker.name!r}, which "
                f"is called {calls} times there. Name taps whose layers are called once, or give "
                "each call a layer of its own."
            )


def _probe(model: keras.Model) -> keras.KerasTensor:
    """An input for a model, of a size whose halvings are all exact."""
    return keras.Input(batch_shape=(1, PROBE_SIZE, PROBE_SIZE, model.inputs[0].shape[-1]))


def _warn_of_models_within(steps: list[Step]) -> None:
    """Say where maps are not looked for: inside a model that is called as a layer."""
    for step in steps:
        is_model = isinstance(step.operation, keras.Model)
        # A sequential one is a block, such as the patches that ConvNeXt begins with.
        if not is_model or isinstance(step.operation, keras.Sequential) or not _is_map(step.output):
            continue
        before = max(tensor.shape[1] for tensor in step.inputs)
        if before > 2 * step.output.shape[1]:
            name = step.operation.name
            warnings.warn(
                f"The model {name!r} is one layer of the encoder, and the feature maps inside it "
                "are not looked for: a decoder gets no skips from there. Pass that model itself: "
                f"keras_nuclei.encoders.feature_pyramid({name}, preprocessing=...).",
                stacklevel=4,
            )


def _is_map(output: Tensor) -> bool:
    # One pixel is no map but a mean over all of one, as squeeze-and-excitation has it.
    shape: Shape = getattr(output, "shape", ())
    return len(shape) == 4 and shape[1] > 1


def _widest(steps: list[Step], indices: list[int]) -> list[int]:
    widths = {index: steps[index].output.shape[-1] for index in indices}
    return [index for index in indices if widths[index] == max(widths.values())]


def _levels(steps: list[Step]) -> list[int | None]:
    """Of each step, the n of `Pn`; None where its output is no feature map of that kind."""
    levels: list[int | None] = []
    # Until something has been computed from them, pixels are no features.
    pixels = {id(tensor) for tensor in steps[0].inputs}
    for step in steps:
        if isinstance(step.operation, PIXELWISE) and id(step.inputs[0]) in pixels:
            pixels.add(id(step.output))
            levels.append(None)
        elif _is_map(step.output):
            level = math.log2(PROBE_SIZE / step.output.shape[1])
            levels.append(int(level) if level.is_integer() and level >= 0 else None)
        else:
            levels.append(None)
    return levels


def _on_every_path(steps: list[Step]) -> list[bool]:
    """Whether every path from the input to the output leads through a step.

    In an order in which each follows what it needs, that is so if no edge jumps over it.
    """
    made_by = {
        id(tensor): index
        for index, step in enumerate(steps)
        for tensor in keras.tree.flatten(step.output)
    }
    # Of each step the last one that needs it; at -1, that of the input.
    last_use = {index: index for index in range(-1, len(steps))}
    for index, step in enumerate(steps):
        for tensor in step.inputs:
            last_use[made_by.get(id(tensor), -1)] = index
    answers = []
    jumped = last_use[-1]
    for index in range(len(steps)):
        answers.append(jumped <= index)
        jumped = max(jumped, last_use[index])
    return answers
