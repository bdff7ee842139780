"""Run the trained models by whatever is fastest here: ONNX Runtime on processors, else Keras."""

import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_nuclei.presets import find_preset, from_preset, read_arrays, read_checked

_logger = logging.getLogger(__name__)

Runner: TypeAlias = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From images `(batch, height, width, 3)` to maps `(batch, height, width, channels)` by name."""


def fastest(name: str) -> keras.Model | Runner:
    """What runs a trained model fastest on this machine, for `keras_nuclei.segment`.

    ONNX Runtime where it is installed (`pip install onnxruntime`) and Keras now puts its tensors on
    a processor, else Keras: on a GPU or TPU. Both draw the same maps but for rounding (a few
    millionths). Keras compiles a model anew for each size of image, ONNX Runtime does not.

    Args:
        name: A name in `keras_nuclei.PRESETS`.

    Returns:
        As `onnx_runner`, or as `keras_nuclei.from_preset`. Where ONNX Runtime is there but fails, a
        warning is logged and Keras is taken.

    Raises:
        ValueError: If there is no preset of that name, or its files are damaged.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> run = keras_nuclei.runtimes.fastest("nuclei_small")
        >>> sorted(run(np.zeros((1, 64, 96, 3), "float32")))
        ['distance', 'foreground']
    """
    # A new tensor tells where: what the backends call their devices has this much in common.
    device = str(getattr(keras.ops.ones(()), "device", "cpu"))
    if "cpu" in device.lower():
        try:
            return onnx_runner(name)
        except (ImportError, RuntimeError) as error:
            if _is_installed("onnxruntime"):
                _logger.warning("Keras runs %s, not ONNX Runtime: %s", name, error)
    return from_preset(name)


def onnx_runner(name: str) -> Runner:
    """Make a function of a trained model that ONNX Runtime runs.

    The package has the graph of each preset as an ONNX file without weights, and gives it those
    that `keras_nuclei.from_preset` loads: there is one file of weights for both. As many threads
    compute as the process may use processors.

    Args:
        name: A name in `keras_nuclei.PRESETS`.

    Returns:
        A function from images `(batch, height, width, 3)` of any size, values 0..255, to a dict of
        what the model draws, as that of `keras_nuclei.from_preset`. It raises `ValueError` for
        images of another shape.

    Raises:
        ImportError: If ONNX Runtime is not installed, can't be imported or is too old.
        RuntimeError: If it can't load the graph.
        ValueError: If there is no preset of that name, or its files are damaged.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> run = keras_nuclei.runtimes.onnx_runner("nuclei_small")
        >>> run(np.zeros((1, 61, 40, 3), "float32"))["distance"].shape
        (1, 61, 40, 1)
    """
    preset = find_preset(name)
    onnxruntime = _import_onnxruntime()
    graph = read_checked(preset.graph, preset.graph_sha256)
    weights = {
        path: onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, "float32", order="C"))
        for path, array in read_arrays(preset).items()
    }
    return _OnnxModel(onnxruntime, graph, weights)


class _OnnxModel:
    """A graph with its weights.

    Attributes:
        weights: Kept as long as the session: ONNX Runtime does not promise to copy them.
        session: What runs the graph.
        heads: Names of its outputs.
    """

    def __init__(self, onnxruntime: Any, graph: bytes, weights: dict[str, Any]):
        self.weights = weights
        options = onnxruntime.SessionOptions()
        # With a number of its own choice it pins its threads, to processors too that a scheduler
        # has given to others.
        options.intra_op_num_threads = _processors()
        options.add_external_initializers(list(weights), list(weights.values()))
        try:
            self.session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        # Its errors have no other class in common.
        except Exception as error:
            raise RuntimeError(
                f"ONNX Runtime can't load the model ({type(error).__name__}: {error}). Install "
                "another version of it, or uninstall it."
            ) from error
        self.heads = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        batch = np.asarray(images, "float32")
        if batch.ndim != 4 or batch.shape[-1] != 3:
            raise ValueError(
                "images must have the shape (batch, height, width, 3); got "
                f"{batch.shape}. Repeat a grey channel with numpy.repeat(images, 3, -1)."
            )
        return dict(zip(self.heads, self.session.run(self.heads, {"images": batch}), strict=True))


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime  # optional
    except ImportError as error:
        advice = (
            f"It is installed, but fails with: {error}. Install it again, or uninstall it."
            if _is_installed("onnxruntime")
            else "Install it: pip install onnxruntime"
        )
        raise ImportError(f"onnxruntime can't be imported. {advice}") from error
    if not hasattr(onnxruntime.SessionOptions, "add_external_initializers"):
        raise ImportError(
            f"onnxruntime {onnxruntime.__version__} is too old. Upgrade it: pip install --upgrade "
            "onnxruntime"
        )
    return onnxruntime


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
