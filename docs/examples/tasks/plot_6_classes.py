"""
Several classes
===============

Pixels of more than two kinds: masks of class numbers, a softmax, a score for each class.
"""

# %%
# Masks of class numbers
# ----------------------
# Each pixel has one class. Here 0 is background, 1 the inside of a nucleus, and 2 its border, to
# the background or to the next nucleus. A mask holds these numbers, ``(height, width)``.
#
# A number that is no class, such as 255, marks pixels that nobody has annotated, which shall not
# count. Here that is a rectangle of each image.

import keras
import matplotlib.pyplot as plt
import numpy as np
import skimage
from matplotlib.colors import ListedColormap

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

CLASSES = ("background", "inside", "border")
NOT_ANNOTATED = 255


def draw(number):
    """Draw an image and its mask of classes."""
    image, label_map = draw_field(number, 96, 128)
    mask = (label_map > 0).astype("uint8")
    mask[skimage.segmentation.find_boundaries(label_map)] = 2
    top, left = np.random.default_rng(number).integers((0, 0), (64, 88))
    mask[top : top + 32, left : left + 40] = NOT_ANNOTATED
    return image, mask


keras.utils.set_random_seed(0)
numbers = [number for number in range(96) if number % 6 in (0, 3, 5)]  # the fluorescence ones
images, masks = map(np.stack, zip(*map(draw, numbers), strict=True))
validation_images, validation_masks = images[:6], masks[:6]
for number, pixels in zip(*np.unique(masks, return_counts=True), strict=True):
    print(f"{number:3} {pixels / masks.size:4.0%} of the pixels")

# %%
# The model
# ---------
# It has one output channel for each class, and a softmax, so that they sum to 1. The loss adds
# cross-entropy and the mean of the classes' Dice losses, in which the thin border counts as much as
# the wide background.
#
# Loss and metrics are told what to ignore. A metric is one number, the mean over the classes; with
# ``average=None`` it is one for each class, of which the log of ``fit`` prints the mean; and
# ``target_class_ids`` chooses the classes that count, here the hardest one alone, so that callbacks
# can watch it as ``"val_iou_border"``.

settings = {"num_classes": len(CLASSES), "ignore_class": NOT_ANNOTATED}
loss = keras_nuclei.losses.CategoricalCrossentropyDice(ignore_class=NOT_ANNOTATED)
model = keras_nuclei.unet(
    "efficientnet_lite0",
    num_classes=len(CLASSES),
    classifier_activation="softmax",
    encoder_weights="imagenet",
    encoder_depth=3,
    decoder_filters=(48, 32, 24),
)
model.compile(
    keras.optimizers.Adam(2e-3),
    loss,
    metrics=[
        keras_nuclei.metrics.IoU(**settings),
        keras_nuclei.metrics.IoU(**settings, target_class_ids=[2], name="iou_border"),
        keras_nuclei.metrics.IoU(**settings, average=None, name="iou_of_each"),
    ],
)

# %%
# On TensorFlow and JAX, ``fit`` runs compiled code, which can't raise: a number that is no class
# makes loss and metrics NaN there. Called on arrays, the loss says what is wrong. So call it once
# on a batch before a long training. Here it is, and one that was not told of 255:

probabilities = model.predict(images[:2], verbose=0)
print("loss of a batch:", float(loss(masks[:2], probabilities)))
try:
    keras_nuclei.losses.CategoricalCrossentropyDice()(masks[:2], probabilities)
except ValueError as error:
    print(error)

# %%
# A few seconds of training:

history = model.fit(
    images[6:],
    masks[6:],
    batch_size=4,
    epochs=8,
    validation_data=(validation_images, validation_masks),
    verbose=2,
).history

# %%
# What it has learned
# -------------------
# The mean hides that the classes are not equally hard:

# sphinx_gallery_thumbnail_number = 2
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, scores in zip(CLASSES, np.transpose(history["val_iou_of_each"]), strict=True):
    axis.plot(np.arange(1, len(scores) + 1), scores, label=name)
axis.set(xlabel="epoch", ylabel="IoU of validation images", ylim=(0, 1.02))
axis.legend(loc="lower right")

# %%
# The class of a pixel is the one with the highest probability. What is grey in the truth was
# annotated by nobody, and is predicted like the rest. Where nuclei of one brightness touch, the
# border is learned last, and takes a longer training than this.

probabilities = model.predict(validation_images, verbose=0)
predicted = probabilities.argmax(axis=-1)
colours = ListedColormap(["#1c1c3c", "#3fa7d6", "#f7b32b", "#8a8a8a"])
figure, axes = plt.subplots(3, 3, figsize=(9, 7), layout="constrained")
for row, image, mask, found in zip(
    axes, validation_images, validation_masks, predicted, strict=False
):
    row[0].imshow(image)
    row[1].imshow(np.where(mask == NOT_ANNOTATED, 3, mask), cmap=colours, vmin=0, vmax=3)
    row[2].imshow(found, cmap=colours, vmin=0, vmax=3)
for axis, title in zip(axes[0], ("image", "truth", "prediction"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.axis("off")

# %%
# One-hot masks
# -------------
# Masks with a channel of 0 and 1 for each class, ``(height, width, classes)``, are taken as they
# are, by the same loss and metrics. A pixel that shall not count can't be written in them, since
# one of its channels must be 1: turn them into numbers, then, and mark it there.

annotated = validation_masks != NOT_ANNOTATED
one_hot = keras.utils.to_categorical(validation_masks * annotated, len(CLASSES))
print(one_hot.shape, "all pixels:", float(loss(one_hot, probabilities)))

labels = np.where(annotated, one_hot.argmax(axis=-1), NOT_ANNOTATED)
print(labels.shape, "the annotated ones:", float(loss(labels, probabilities)))

# %%
# Classes that overlap
# --------------------
# Where a pixel may have several classes at once, each class is a mask of its own, of 0 and 1. Take
# a sigmoid, as many channels as classes, and the losses and metrics of binary masks, without
# ``num_classes``. They count the pixels of all channels together.

overlapping = np.stack([validation_masks > 0, validation_masks == 2], axis=-1).astype("uint8")
overlapping[~annotated] = NOT_ANNOTATED

model = keras_nuclei.unet(keras_nuclei.encoders.plain(filters=(8, 16)), num_classes=2)
model.compile(
    "adam",
    keras_nuclei.losses.BinaryCrossentropyDice(ignore_class=NOT_ANNOTATED),
    metrics=[keras_nuclei.metrics.IoU(ignore_class=NOT_ANNOTATED)],
)
model.fit(validation_images, overlapping, verbose=2)

# %%
# For a score of each, give each class an output of its own, by name:

targets = {"nucleus": overlapping[..., :1], "border": overlapping[..., 1:]}
settings = {"ignore_class": NOT_ANNOTATED}
model = keras_nuclei.unet(
    keras_nuclei.encoders.plain(filters=(8, 16)), heads={"nucleus": 1, "border": 1}
)
model.compile(
    "adam",
    {name: keras_nuclei.losses.BinaryCrossentropyDice(**settings) for name in targets},
    metrics={name: keras_nuclei.metrics.IoU(**settings) for name in targets},
)
model.fit(validation_images, targets, verbose=2)
