"""The formats that a model can leave Keras in: how each is written, and what runs it.

Every runtime is asked in the same way: images in, a dict of NumPy arrays out. Imports of runtimes
are inside the functions, so that one that is missing takes nothing else with it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

TOLERANCE = 1e-4
"""The largest difference of two probabilities that are called equal.

Runtimes sum the same float32 products in another order. What that changes grows with the depth of
a network and stays, as measured, near 1e-5; a layer that is converted wrongly, or calculates in
half precision, is off by 1e-3 and more. This lies between, and is far below 1/255, one step of a
probability map that is stored in 8 bits.
"""

Outputs = dict[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]


class Format(NamedTuple):
    """A format, and the runtime that checks what was written.

    Attributes:
        title: What tables call it.
        packages: What its export and its runtime need, besides Keras.
        export: Function of a model and a folder that writes it there.
        load: Function of that folder that returns what maps images to outputs.
    """

    title: str
    packages: tuple[str, ...]
    export: Callable[[keras.Model, Path], None]
    load: Callable[[Path], Run]


def run_keras(model: keras.Model, images: np.ndarray) -> Outputs:
    """What Keras itself makes of images; a single output is named "head"."""
    outputs = model(images, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"head": outputs}
    return {name: keras.ops.convert_to_numpy(output) for name, output in outputs.items()}


def largest_difference(expected: Outputs, found: Outputs) -> float:
    """The largest absolute difference of two sets of outputs.

    Args:
        expected: Of Keras.
        found: Of another runtime. Where there is one output, it may have any name and the first
            counts: OpenVINO adds others, of sizes that the graph calculates.

    Raises:
        ValueError: If outputs are missing, or of other shapes, or are no numbers.
    """
    if len(expected) == 1:
        found = {next(iter(expected)): next(iter(found.values()))}
    missing = sorted(set(expected) - set(found))
    if missing:
        raise ValueError(f"It has no outputs {missing}, but {sorted(found)}.")
    differences = []
    for name, values in expected.items():
        if found[name].shape != values.shape:
            raise ValueError(f"{name} has the shape {found[name].shape}, not {values.shape}.")
        differences.append(np.abs(found[name].astype("float64") - values).max())
    difference = float(np.max(differences))  # which, unlike max, keeps a NaN
    if not np.isfinite(difference):
        raise ValueError("Its outputs are not all finite.")
    return difference


def _export_keras(model: keras.Model, folder: Path) -> None:
    model.save(folder / "model.keras")


def _load_keras(folder: Path) -> Run:
    model = keras.models.load_model(folder / "model.keras")
    return lambda images: run_keras(model, images)


def _export_saved_model(model: keras.Model, folder: Path) -> None:
    model.export(folder / "model", format="tf_saved_model", verbose=False)


def _load_saved_model(folder: Path) -> Run:
    import tensorflow as tf

    served = tf.saved_model.load(folder / "model")

    def run(images: np.ndarray) -> Outputs:
        outputs = served.serve(images)
        outputs = outputs if isinstance(outputs, dict) else {"head": outputs}
        return {name: output.numpy() for name, output in outputs.items()}

    return run


def _export_onnx(model: keras.Model, folder: Path) -> None:
    model.export(folder / "model.onnx", format="onnx", verbose=False)


def _load_onnx(folder: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (image,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {image.name: images}), strict=True))


def _export_litert(model: keras.Model, folder: Path) -> None:
    model.export(folder / "model.tflite", format="litert", verbose=False)


def _load_litert(folder: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"))
    # It tells the interpreter the size before each run.
    signature = interpreter.get_signature_runner()
    (image,) = signature.get_input_details()

    def run(images: np.ndarray) -> Outputs:
        # The arrays are the interpreter's own memory, until its next run.
        outputs = signature(**{image: images})
        return {name: np.array(outputs[name]) for name in sorted(outputs)}

    run.interpreter = interpreter  # which must live as long as what it runs
    return run


def _export_openvino(model: keras.Model, folder: Path) -> None:
    model.export(str(folder / "model.xml"), format="openvino", verbose=False)


def _load_openvino(folder: Path) -> Run:
    import openvino

    # Where a processor has bfloat16, it calculates in that unless told otherwise.
    compiled = openvino.compile_model(
        folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(images: np.ndarray) -> Outputs:
        results = compiled(images)
        return {port.get_any_name(): np.array(results[port]) for port in compiled.outputs}

    return run


FORMATS = {
    "keras": Format("`.keras`", (), _export_keras, _load_keras),
    "saved_model": Format("SavedModel", ("tensorflow",), _export_saved_model, _load_saved_model),
    "onnx": Format("ONNX", ("onnx", "onnxruntime", "tf2onnx"), _export_onnx, _load_onnx),
    "litert": Format("LiteRT", ("ai-edge-litert",), _export_litert, _load_litert),
    "openvino": Format("OpenVINO", ("openvino",), _export_openvino, _load_openvino),
}
"""By the names that results are kept under."""
