"""Run the trained models by whatever is fastest here: ONNX Runtime on processors, else Keras."""

import importlib.util
from collections.abc import Callable

import keras
import numpy as np

from keras_nuclei.presets import find_preset, from_preset, read_arrays, read_checked


def runner(name: str) -> keras.Model | Callable[[np.ndarray], dict[str, np.ndarray]]:
    """What runs a trained model fastest on this machine, for `keras_nuclei.segment`.

    ONNX Runtime where it is installed (`pip install onnxruntime`) and Keras has no GPU or TPU, else
    Keras. Both draw the same maps, but for rounding (a few millionths). ONNX Runtime needs no
    compiling for each new size of an image, either.

    Args:
        name: A name in `keras_nuclei.PRESETS`.

    Returns:
        As `onnx_runner`, or as `keras_nuclei.from_preset`.

    Raises:
        ValueError: If there is no preset of that name, or its files are damaged.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> run = keras_nuclei.runtimes.runner("nuclei_small")
        >>> sorted(run(np.zeros((1, 64, 96, 3), "float32")))
        ['distance', 'foreground']
    """
    find_preset(name)
    if importlib.util.find_spec("onnxruntime") and not _has_accelerator():
        return onnx_runner(name)
    return from_preset(name)


def onnx_runner(name: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Make a function of a trained model that ONNX Runtime runs, on all cores.

    The package has the graph of each preset as an ONNX file without weights, and gives it those
    that `keras_nuclei.from_preset` loads: there is one file of weights for both.

    Args:
        name: A name in `keras_nuclei.PRESETS`.

    Returns:
        A function from float32 images `(batch, height, width, 3)` of any size, values 0..255, to
        a dict of what the model draws, as that of `keras_nuclei.from_preset`.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        ValueError: If there is no preset of that name, or its files are damaged.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> run = keras_nuclei.runtimes.onnx_runner("nuclei_small")
        >>> run(np.zeros((1, 61, 40, 3), "float32"))["distance"].shape
        (1, 61, 40, 1)
    """
    preset = find_preset(name)
    try:
        import onnxruntime  # optional
    except ImportError as error:
        raise ImportError("onnxruntime is not installed: pip install onnxruntime") from error
    graph = read_checked(preset.graph, preset.graph_sha256)
    arrays = {
        path: np.ascontiguousarray(array, "float32") for path, array in read_arrays(preset).items()
    }
    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(arrays), [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in arrays.values()]
    )
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    heads = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        batch = np.asarray(images, "float32")
        return dict(zip(heads, session.run(heads, {"images": batch}), strict=True))

    return run


def _has_accelerator() -> bool:
    """Whether Keras computes on something else than processors: where it puts a new tensor."""
    return "cpu" not in str(keras.ops.ones(()).device).lower()
