"""
Train a model that tells nuclei apart
=====================================

Images and label maps of your own, a model with two heads, and ``segment`` with that model.
"""

# %%
# Images and label maps
# ---------------------
# A mask does not say where one nucleus ends and the next begins; a label map does, with a number
# for each nucleus. Here both are drawn. Of your own, read the files with
# ``keras_nuclei.images.read_image``; of a mask whose nuclei are apart, ``skimage.measure.label``
# makes a label map.

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

keras.utils.set_random_seed(0)
fields = [draw_field(number, 128, 160) for number in range(32)]
images = [image for image, _ in fields]
label_maps = [label_map for _, label_map in fields]

# %%
# What is learned
# ---------------
# The model draws two maps: ``foreground``, where nuclei are, and ``distance``, how deep inside one
# a pixel lies, as a share of the deepest of the same nucleus. Where two nuclei touch, the
# foreground is one, and the distance has a valley. ``draw_maps`` draws both from a label map.
#
# ``segment`` stretches the contrast of an image before a model sees it. So learn from images that
# are ``normalize``-d, too. That makes three channels; a model of grey images,
# ``unet(input_shape=(None, None, 1), ...)``, learns from one of them, ``[..., :1]``, and is shown
# one by ``segment``.

inputs = np.stack([keras_nuclei.images.normalize(image) for image in images])
drawn = [keras_nuclei.instances.draw_maps(label_map) for label_map in label_maps]
targets = {name: np.stack([maps[name] for maps in drawn]) for name in drawn[0]}

figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
pictures = {"image": images[0]} | {name: targets[name][0] for name in targets}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255 if title == "image" else 1)
    axis.set_title(title)
    axis.axis("off")

# %%
# The model
# ---------
# A U-Net with a head for each map, both through a sigmoid; both learn by cross-entropy, which is
# least where a soft target is met, too. ``InstanceScores`` makes nuclei of the maps after every
# fourth epoch, and scores them on images that were kept back.

model = keras_nuclei.unet(
    "efficientnet_lite0",
    encoder_weights="imagenet",
    heads={"foreground": 1, "distance": 1},
    encoder_depth=4,
    decoder_filters=(64, 48, 32),
    decoder_stride=2,
    batch_norm_momentum=0.9,  # for so short a training
)
model.compile(keras.optimizers.Adam(1e-3), dict.fromkeys(targets, "binary_crossentropy"))
scores = keras_nuclei.callbacks.InstanceScores(
    inputs[24:], label_maps[24:], keras_nuclei.maps.label_maps, frequency=4
)
history = model.fit(
    inputs[:24],
    {name: maps[:24] for name, maps in targets.items()},
    batch_size=4,
    epochs=16,
    callbacks=[scores],
    verbose=2,
).history

# %%
# The DSB score is TP / (TP + FP + FN), of nuclei matched where their IoU is above a threshold: the
# mean over ten such thresholds, and over the images. Errors are counted one by one, too:

print(
    {name: scores.summary[name] for name in ("true_nuclei", "missed", "extra", "merged", "split")}
)

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(np.arange(1, len(history["val_dsb"]) + 1), history["val_dsb"], drawstyle="steps-post")
axis.set(xlabel="epoch", ylabel="DSB score", ylim=(0, 1))

# %%
# Nuclei
# ------
# ``segment`` takes the model in place of a preset's name. This one knows nuclei of the size that
# they have here, so say ``scale=1``: without, the size is estimated, and the image resized where
# its nuclei are not 26 to 50 pixels across, which is what the presets have learned. A model that is
# to be used so has to learn from images resized so: ``keras_nuclei.diameters.model_scale`` says
# by how much. A ``threshold`` of 0.55, above which a pixel is nucleus, was chosen for the presets;
# choose your own on images that were kept back.

# sphinx_gallery_thumbnail_number = 3
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
for column, number in zip(axes.T, (24, 25, 26), strict=True):
    found = keras_nuclei.segment(images[number], model, scale=1)
    for axis, nuclei in zip(column, (label_maps[number], found), strict=True):
        axis.imshow(keras_nuclei.overlay(images[number], nuclei))
        axis.axis("off")
    column[0].set_title(f"{label_maps[number].max()} drawn")
    column[1].set_title(f"{found.max()} found")

# %%
# The command takes it as well, from a file that ``model.save("nuclei.keras")`` writes:
# ``keras-nuclei segment IMAGES... --model nuclei.keras --scale 1 --output nuclei``.
