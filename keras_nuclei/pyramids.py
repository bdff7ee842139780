"""Feature pyramids: any functional model as an encoder, for images of any height and width.

Classifiers halve their input as it suits them: some round up, some down, some eat a border. Here
the image is padded to a multiple of the network's largest stride, so that every halving is exact,
and each feature map is cropped to `ceil(size / 2**n)`, which is what the decoder expects.
"""

import math
from collections.abc import Callable

import keras
from keras import layers, ops


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

    def __init__(self, multiple: int, **kwargs):
        super().__init__(**kwargs)
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1; got {multiple}.")
        self.multiple = multiple

    def call(self, inputs):
        x = inputs
        for axis in (1, 2):
            x = self._pad(x, axis)
        return x

    def _pad(self, x, axis: int):
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

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        padded = (size and -(-size // self.multiple) * self.multiple for size in (height, width))
        return (batch, *padded, channels)

    def get_config(self):
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

    def __init__(self, level: int, **kwargs):
        super().__init__(**kwargs)
        if level < 0:
            raise ValueError(f"level must be at least 0; got {level}.")
        self.level = level

    def call(self, inputs, image):
        stride = 2**self.level
        height, width = ((size + stride - 1) // stride for size in ops.shape(image)[1:3])
        return inputs[:, :height, :width, :]

    def compute_output_shape(self, inputs_shape, image_shape):
        stride = 2**self.level
        cropped = (size and -(-size // stride) for size in image_shape[1:3])
        return (inputs_shape[0], *cropped, inputs_shape[3])

    def get_config(self):
        return {**super().get_config(), "level": self.level}


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

    Raises:
        TypeError: If `model` is not a functional model.
        ValueError: If it has another input, or no feature map is smaller than it by a power of two.

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
    _require_functional(model)
    if taps is None:
        taps = getattr(model, "pyramid_outputs", None) or find_taps(model)
    taps = {level: taps[level] for level in sorted(taps)}
    deepest = max(int(level[1:]) for level in taps)
    if input_shape is None:
        input_shape = (None, None, model.inputs[0].shape[-1])

    image = keras.Input(input_shape, name="image")
    x = PadToMultiple(2**deepest, name="pad")(image)
    if preprocessing is not None:
        x = preprocessing(x)
    pyramid = call_flat(model, x, taps)
    cropped = {
        level: CropToLevel(int(level[1:]), name=f"crop_{level}")(features, image)
        for level, features in pyramid.items()
    }
    return keras.Model(image, cropped, name=name or model.name)


def call_flat(model: keras.Model, x: keras.KerasTensor, outputs: dict) -> dict:
    """Run a model's own layers on another input, as if they had been written there.

    Calling the model would put it into the new one whole; flat, its deeper layers can be left out
    and its layers be found by name.

    Args:
        model: Functional model with one input.
        x: What to run it on.
        outputs: Outputs of layers of `model`, by any keys.

    Returns:
        The same outputs for `x`, by the same keys.
    """
    part = keras.Model(model.inputs, outputs)
    results = {}

    def call(operation, *args, **kwargs):
        results[id(operation)] = operation(*args, **kwargs)
        return results[id(operation)]

    # clone_model itself returns a copy of the graph that begins at x; what comes before x is in the
    # results alone.
    keras.models.clone_model(
        part,
        input_tensors=keras.tree.map_structure(lambda _: x, part.input),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    makers = {
        id(tensor): id(operation)
        for operation in part.operations
        for tensor in keras.tree.flatten(operation.output)
    }
    return {key: results[makers[id(tensor)]] for key, tensor in outputs.items()}


def find_taps(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Find the feature map at each stride that is a power of two; see `feature_pyramid`.

    Args:
        model: A functional model with one input.

    Returns:
        Feature maps by level, `P1` first. `P0` is among them where the model computes features
        at the full size.

    Raises:
        ValueError: If there are none.
    """
    operations = _path_to_output(model)
    levels = _levels(model, operations)
    on_every_path = _on_every_path(operations)
    taps = {}
    for level in sorted(set(levels) - {None}):
        here = [index for index, found in enumerate(levels) if found == level]
        chosen = [i for i in here if on_every_path[i]] or _widest(operations, here)
        taps[f"P{level}"] = operations[chosen[-1]].output
    if not any(level != "P0" for level in taps):
        raise ValueError(
            f"{model.name!r} has no feature map that is a power of two smaller than its input. "
            'Name them: feature_pyramid(model, taps={"P1": ..., "P2": ...}).'
        )
    return taps


def _require_functional(model: keras.Model) -> None:
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


def _path_to_output(model: keras.Model) -> list:
    """The operations between a model's input and its output, each after those that it needs."""
    return [
        operation
        for operation in keras.Model(model.inputs, model.outputs).operations
        if not isinstance(operation, layers.InputLayer)
    ]


def _inputs(operation) -> list:
    return keras.tree.flatten(operation.input)


def _widest(operations: list, indices: list[int]) -> list[int]:
    widths = {index: operations[index].output.shape[-1] for index in indices}
    return [index for index in indices if widths[index] == max(widths.values())]


def _levels(model: keras.Model, operations: list) -> list[int | None]:
    """Of each operation, the n of `Pn`; None where its output is no feature map of that kind."""
    size = 2**10
    channels = model.inputs[0].shape[-1]
    shapes = _shapes_at(model, operations, (1, size, size, channels))
    levels = []
    # Until something has been computed from them, pixels are no features.
    still_pixels = {id(model.inputs[0])}
    for operation, shape in zip(operations, shapes, strict=True):
        # One pixel is no map but a mean over all of one, as squeeze-and-excitation has it.
        if len(shape) != 4 or shape[1] != shape[2] or not shape[1] or shape[1] == 1:
            levels.append(None)
            continue
        level = math.log2(size / shape[1])
        is_pixels = _is_pixelwise(operation) and id(_inputs(operation)[0]) in still_pixels
        if is_pixels:
            still_pixels.add(id(operation.output))
        levels.append(int(level) if level.is_integer() and level >= 0 and not is_pixels else None)
    return levels


def _is_pixelwise(operation) -> bool:
    return isinstance(
        operation, layers.Rescaling | layers.Normalization | layers.ZeroPadding2D | layers.Identity
    )


def find_strides(model: keras.Model) -> dict[str, float]:
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
        {'pool': 2.0}
    """
    operations = _path_to_output(model)
    size = 2**10
    shapes = _shapes_at(model, operations, (1, size, size, model.inputs[0].shape[-1]))
    of_tensor = {id(model.inputs[0]): 1.0}
    strides = {}
    for operation, shape in zip(operations, shapes, strict=True):
        before = max(of_tensor.get(id(tensor), 1.0) for tensor in _inputs(operation))
        is_map = len(shape) == 4 and shape[1] not in (None, 1)
        strides[operation.name] = size / shape[1] if is_map else before
        for tensor in keras.tree.flatten(operation.output):
            of_tensor[id(tensor)] = strides[operation.name]
    return strides


def _shapes_at(model: keras.Model, operations: list, shape: tuple) -> list[tuple]:
    """Shape of each operation's output for an input of a given shape."""
    outputs = {str(index): operation.output for index, operation in enumerate(operations)}
    # An Input of its own: the model's may be of a fixed size.
    probe = keras.Input(batch_shape=shape)
    probed = call_flat(model, probe, outputs)
    return [tuple(getattr(probed[str(index)], "shape", ())) for index in range(len(operations))]


def _on_every_path(operations: list) -> list[bool]:
    """Whether every path from the input to the output leads through an operation.

    In an order in which each follows what it needs, that is so if no edge jumps over it.
    """
    made_by = {
        id(tensor): index
        for index, operation in enumerate(operations)
        for tensor in keras.tree.flatten(operation.output)
    }
    # Of each operation the last one that needs it; at -1, that of the input.
    last_use = {index: index for index in range(-1, len(operations))}
    for index, operation in enumerate(operations):
        for tensor in _inputs(operation):
            last_use[made_by.get(id(tensor), -1)] = index
    answers = []
    jumped = last_use[-1]
    for index in range(len(operations)):
        answers.append(jumped <= index)
        jumped = max(jumped, last_use[index])
    return answers
