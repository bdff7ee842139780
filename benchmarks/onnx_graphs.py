"""Write the ONNX graphs of the presets, without weights, which ONNX Runtime runs.

    python -m benchmarks.onnx_graphs

writes `keras_nuclei/weights/<preset>.onnx` and prints the SHA-256 to note in
`keras_nuclei/presets.py`. A graph depends on a preset's architecture, not on its weights: trained
anew, a preset keeps its graph. Needs the extra `export`, and TensorFlow as Keras's backend.
"""

import argparse
import hashlib
import math

import keras

import keras_nuclei
from benchmarks.package import WEIGHTS
from keras_nuclei.presets import PRESETS, find_preset

OPSET = 18


def main(argv: list[str] | None = None) -> None:
    """Write the graphs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", help=f"of {', '.join(PRESETS)}; default: all")
    args = parser.parse_args(argv)
    if keras.backend.backend() != "tensorflow":
        parser.error("tf2onnx converts what TensorFlow traces: set KERAS_BACKEND=tensorflow")
    for name in args.presets or PRESETS:
        preset = find_preset(name)
        model = keras_nuclei.unet(**preset.architecture, encoder_weights=None, name=name)
        data = graph(model)
        (WEIGHTS / preset.graph).write_bytes(data)
        print(f"{preset.graph}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


def graph(model: keras.Model) -> bytes:
    """The ONNX graph of a model, whose weights are to be given when it is loaded.

    Keras's own export makes constants of the weights and folds some into others. Here the model is
    converted as a function of its images and its weights, and what stood for a weight then becomes
    an initializer with the path of the variable, its values kept elsewhere ("external data").

    Args:
        model: With one input of any height and width, and a dict of outputs.

    Returns:
        The ONNX file: an input `images`, float32 `(batch, height, width, channels)`.

    Raises:
        RuntimeError: If a weight did not come through under its name.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    count = len(model.trainable_variables)
    variables = [*model.trainable_variables, *model.non_trainable_variables]

    @tf.function
    def draw(images, *weights):
        maps, _ = model.stateless_call(weights[:count], weights[count:], images, training=False)
        return maps

    # TensorFlow has no slashes in names of arguments.
    names = {f"weight{number}": variable for number, variable in enumerate(variables)}
    signature = [tf.TensorSpec(model.input_shape, "float32", name="images")]
    signature += [tf.TensorSpec(each.shape, "float32", name=name) for name, each in names.items()]
    converted, _ = tf2onnx.convert.from_function(draw, input_signature=signature, opset=OPSET)

    inputs = list(converted.graph.input)
    if {each.name for each in inputs} != {"images", *names}:
        raise RuntimeError(f"tf2onnx made other inputs of it: {[each.name for each in inputs]}.")
    del converted.graph.input[:]
    converted.graph.input.extend(each for each in inputs if each.name == "images")
    for node in converted.graph.node:
        node.input[:] = [names[each].path if each in names else each for each in node.input]
    for variable in variables:
        initializer = onnx.TensorProto(
            name=variable.path,
            data_type=onnx.TensorProto.FLOAT,
            dims=variable.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        place = {"location": "weights", "length": str(4 * math.prod(variable.shape))}
        for key, value in place.items():
            initializer.external_data.add(key=key, value=value)
        converted.graph.initializer.append(initializer)
    return converted.SerializeToString(deterministic=True)


if __name__ == "__main__":
    main()
