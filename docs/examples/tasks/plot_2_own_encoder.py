"""
Use your own encoder
====================

An encoder is any functional Keras model that returns feature maps at several sizes.
"""

# %%
# By name
# -------
# The table of :doc:`encoders <../results/encoders>` lists the names. ``encoder_weights`` chooses
# between pretrained weights and random ones.

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

keras.utils.set_random_seed(0)
model = keras_nuclei.unet("mobilenet_v2", encoder_weights=None)
print(f"{model.count_params():,} parameters")

# %%
# The contract
# ------------
# One input, images with values 0..255; as the output a dict of feature maps, ``"P1"`` half the
# size of the image, ``"P2"`` a quarter, ``Pn`` the image's height and width divided by ``2**n`` and
# rounded up. ``"P0"`` may be there, and levels may be missing. Whatever the encoder needs, a
# scaling of the values, say, is a layer inside it.
#
# This one takes images of one channel:

image = keras.Input((None, None, 1))
x = keras.layers.Rescaling(1 / 255)(image)
pyramid = {}
for level, filters in enumerate((16, 32, 64), start=1):
    x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    pyramid[f"P{level}"] = x
encoder = keras.Model(image, pyramid, name="three_convolutions")

model = keras_nuclei.unet(encoder)
print(model.input.shape, "->", model.output.shape)

# %%
# "Rounded up" is what ``padding="same"`` does. With other padding, the feature maps of an odd size
# would not lie where the decoder expects them, so the contract is checked, and the message tells
# which level is wrong:

x = keras.layers.Conv2D(16, 3, strides=2, padding="valid")(image)
try:
    keras_nuclei.unet(keras.Model(image, {"P1": x}, name="unpadded"))
except ValueError as error:
    print(error)

# %%
# A network that you have
# -----------------------
# Tap it where the size is about to be halved: make a model from its input to those tensors. Here
# a small residual network stands for yours; pretrained weights stay what they are.


def block(x, filters, strides):
    """Two convolutions and a shortcut."""
    shortcut = keras.layers.Conv2D(filters, 1, strides=strides, padding="same")(x)
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    return keras.layers.Activation("relu")(keras.layers.Add()([x, shortcut]))


image = keras.Input((None, None, 3))
x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(x)
for filters, strides in ((32, 2), (32, 1), (64, 2)):
    x = block(x, filters, strides)
scores = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
classifier = keras.Model(image, scores, name="classifier")

sums = [layer.output for layer in classifier.layers if isinstance(layer, keras.layers.Activation)]
taps = {
    "P1": classifier.get_layer("stem").output,
    "P2": sums[1],
    "P3": sums[2],
}  # the last tensor of each size
encoder = keras.Model(classifier.input, taps, name="tapped_classifier")

# %%
# It learns as any other:

model = keras_nuclei.unet(encoder, decoder_filters=(32, 24, 16))
model.compile(keras.optimizers.Adam(3e-3), keras_nuclei.losses.BinaryCrossentropyDice())
fields = [draw_field(number, 128, 128) for number in range(0, 32, 4)]
images = np.stack([field for field, _ in fields])
masks = np.stack([labels > 0 for _, labels in fields])[..., None].astype("uint8")
losses = model.fit(images, masks, batch_size=4, epochs=15, verbose=0).history["loss"]
print(f"loss from {losses[0]:.2f} to {losses[-1]:.2f}")

# %%
# And tells at each level what it sees:

features = encoder.predict(images[:1], verbose=0)
probability = model.predict(images[:1], verbose=0)[0]
figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(images[0])
axes[0].set_title("image")
for axis, (level, maps) in zip(axes[1:4], sorted(features.items()), strict=True):
    axis.imshow(maps[0].mean(axis=-1))
    axis.set_title(f"{level}: {maps.shape[1]}x{maps.shape[2]}, {maps.shape[3]} channels")
axes[4].imshow(probability, cmap="gray", vmin=0, vmax=1)
axes[4].set_title("probability")
for axis in axes:
    axis.axis("off")

# %%
# Trained in part
# ---------------
# ``encoder_trainable=False`` freezes the encoder, the statistics of its batch normalization
# included, so that only the decoder learns.

model = keras_nuclei.unet("mobilenet_v2", encoder_weights=None, encoder_trainable=False)
print(sum(int(np.prod(variable.shape)) for variable in model.trainable_variables), "to train")
