"""
Export
======

Get a model out of Python: SavedModel, ONNX, LiteRT and OpenVINO, each compared to Keras.
"""

# %%
# ``pip install '.[export]'`` in a clone brings what Keras exports with, and the runtimes that read
# it. A small model, to be quick; whatever ``keras_nuclei`` builds is exported in the same way. What
# was tried with which encoder is a table of its own: :doc:`/results/exports`.

import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())
model = keras_nuclei.unet(keras_nuclei.encoders.plain(filters=(8, 16, 32)))
images = np.stack([draw_field(0, 96, 128)[0]]).astype("float32")
expected = model.predict(images, verbose=0)


def compare(name, outputs, expected=expected):
    """Tell how far the outputs of another runtime are from those of Keras."""
    print(f"{name}: {outputs.shape}, largest difference {np.abs(outputs - expected).max():.0e}")
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


# %%
# Keras
# -----
# One file with everything, for all backends.

model.save(folder / "model.keras")
again = keras.models.load_model(folder / "model.keras")
compare("Keras", again.predict(images, verbose=0))

# %%
# SavedModel
# ----------
# For TensorFlow Serving and TensorFlow without Keras.

import tensorflow as tf

model.export(folder / "saved_model", format="tf_saved_model", verbose=False)
served = tf.saved_model.load(folder / "saved_model")
compare("SavedModel", served.serve(images).numpy())

# %%
# ONNX
# ----
# For ONNX Runtime, in many languages. Height and width stay free. Keras writes ONNX only of a model
# that has been called, as this one was above. Before you export a fresh or a loaded one, call
# ``model(images)`` or ``model.predict(images)``, or it says "The model provided has never called".

import onnxruntime

model.export(folder / "model.onnx", format="onnx", verbose=False)
session = onnxruntime.InferenceSession(folder / "model.onnx")
(image,) = session.get_inputs()
compare("ONNX Runtime", session.run(None, {image.name: images})[0])

# %%
# LiteRT
# ------
# For telephones and small devices, once called TensorFlow Lite. Its interpreter is told the size
# before it runs.

from ai_edge_litert.interpreter import Interpreter

model.export(folder / "model.tflite", format="litert", verbose=False)
interpreter = Interpreter(str(folder / "model.tflite"))
(image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.resize_tensor_input(image["index"], images.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(image["index"], images)
interpreter.invoke()
compare("LiteRT", interpreter.get_tensor(output["index"]))

# %%
# OpenVINO
# --------
# For Intel's processors. On those that calculate in bfloat16 it does so unless told otherwise, and
# probabilities differ in the third digit.

import openvino

model.export(str(folder / "model.xml"), format="openvino", verbose=False)
compiled = openvino.compile_model(folder / "model.xml", config={"INFERENCE_PRECISION_HINT": "f32"})
compare("OpenVINO", compiled(images)[0])

# %%
# How large they are
# ------------------

sizes = {}
for path in sorted(folder.iterdir()):
    files = path.rglob("*") if path.is_dir() else [path]
    sizes[path.name] = sum(file.stat().st_size for file in files) / 1024

figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.barh(list(sizes), list(sizes.values()))
axis.axvline(model.count_params() * 4 / 1024, color="tab:orange", label="weights alone, in float32")
axis.set(xlabel="KiB")
axis.legend()

# %%
# Several heads
# -------------
# Outputs keep their names. ONNX Runtime lists them beside the arrays:

model = keras_nuclei.unet(
    keras_nuclei.encoders.plain(filters=(8, 16)), heads={"foreground": 1, "distance": 1}
)
maps = model.predict(images, verbose=0)
model.export(folder / "heads.onnx", format="onnx", verbose=False)
session = onnxruntime.InferenceSession(folder / "heads.onnx")
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(None, {"image": images}), strict=True))
for name in maps:
    compare(f"ONNX Runtime, {name}", found[name], maps[name])

# %%
# In LiteRT the tensors have other names, and the signature has these. Its runner takes images of
# any size, and tells the interpreter by itself:

model.export(folder / "heads.tflite", format="litert", verbose=False)
interpreter = Interpreter(str(folder / "heads.tflite"))
print([output["name"] for output in interpreter.get_output_details()])
found = interpreter.get_signature_runner()(image=images)
for name in maps:
    compare(f"LiteRT, {name}", found[name], maps[name])

# %%
# In ``segment``
# --------------
# ``segment`` takes any function from a batch to a dict of maps. For the trained models that is what
# it makes by itself where ONNX Runtime is installed and there is no GPU; a model of your own it can
# be given in the same way.

image, _ = draw_field(0, 256, 256)
run = keras_nuclei.runtimes.onnx_runner("nuclei_small")
print(keras_nuclei.segment(image, run).max(), "nuclei")
preset = keras_nuclei.from_preset("nuclei_small")
print(keras_nuclei.segment(image, preset).max(), "nuclei by Keras")
