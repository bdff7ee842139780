"""
Train on your own images
========================

A folder of images, a folder of masks, a model that learns to draw the masks.
"""

# %%
# Images and masks
# ----------------
# Here they are drawn, so that this page runs anywhere; put your own files in their place. An image
# and its mask have the same name, and may be of any size.

import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())
for name in ("images", "masks"):
    (folder / name).mkdir()
for number in range(16):
    image, label_map = draw_field(number, 128, 160)
    Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
    Image.fromarray((label_map > 0).astype("uint8") * 255).save(
        folder / "masks" / f"{number:02d}.png"
    )

# %%
# Reading them
# ------------
# Two conventions: images have three dimensions and values 0..255, and nobody has to scale them;
# masks are 0 and 1. Files often hold 0 and 255, so compare with 0: a Dice of them would be wrong.
#
# Losses and metrics refuse such values. Called on arrays, they raise. ``fit`` can't on TensorFlow
# and JAX, since it runs compiled code: there loss and metrics become NaN, without a message. Where
# you see that, call the loss once on a batch, ``loss(masks, model.predict(images))``, or compile
# with ``run_eagerly=True``, and read what it says.


def read_pair(name):
    """Read an image and its mask."""
    image = np.array(Image.open(folder / "images" / name).convert("RGB"))
    mask = np.array(Image.open(folder / "masks" / name)) > 0
    return image, mask[..., None].astype("uint8")


names = sorted(path.name for path in (folder / "images").iterdir())
train_names, validation_names = names[:12], names[12:]

# %%
# Batches need one size, so the model learns from crops, each mirrored and turned at random. A
# ``keras.utils.PyDataset`` works on every backend; a ``tf.data.Dataset`` or a ``DataLoader`` does,
# too.


class Crops(keras.utils.PyDataset):
    """Random crops of the images, in batches."""

    def __init__(self, names, batches, batch_size=8, size=96):
        super().__init__()
        self.pairs = [read_pair(name) for name in names]
        self.batches, self.batch_size, self.size = batches, batch_size, size
        self.generator = np.random.default_rng(0)

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        crops = [
            self.crop(*self.pairs[i])
            for i in self.generator.choice(len(self.pairs), self.batch_size)
        ]
        images, masks = zip(*crops, strict=True)
        return np.stack(images), np.stack(masks)

    def crop(self, image, mask):
        """Cut the same square out of both."""
        top, left = self.generator.integers(0, np.array(mask.shape[:2]) - self.size + 1)
        turns, mirrored = self.generator.integers(4), self.generator.random() < 0.5
        square = np.s_[top : top + self.size, left : left + self.size]
        both = (np.rot90(array[square], turns) for array in (image, mask))
        return [array[:, ::-1] if mirrored else array for array in both]


# %%
# The model
# ---------
# An encoder that was trained on ImageNet learns in minutes what one with random weights takes hours
# for. Cross-entropy and Dice together keep few nuclei from drowning in background.

model = keras_nuclei.unet(
    "efficientnet_lite0",
    encoder_weights="imagenet",
    encoder_depth=4,
    decoder_filters=(64, 48, 32, 16),
)
model.compile(
    keras.optimizers.Adam(1e-3),
    keras_nuclei.losses.BinaryCrossentropyDice(),
    metrics=[keras_nuclei.metrics.Dice(), keras_nuclei.metrics.IoU()],
)

# %%
# Validation looks at whole images: the model takes any height and width.

validation = tuple(map(np.stack, zip(*map(read_pair, validation_names), strict=True)))
history = model.fit(
    Crops(train_names, batches=10), epochs=6, validation_data=validation, verbose=2
).history

# %%
# What it has learned
# -------------------

# sphinx_gallery_thumbnail_number = 2
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
epochs = np.arange(1, len(history["dice"]) + 1)
axis.plot(epochs, history["dice"], label="training crops")
axis.plot(epochs, history["val_dice"], label="validation images")
axis.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1))
axis.legend(loc="lower right")

# %%
# The prediction beside the truth, for images that were not trained on:

images, masks = validation
probabilities = model.predict(images, verbose=0)
figure, axes = plt.subplots(3, 3, figsize=(8, 6.6), layout="constrained")
for row, image, mask, probability in zip(axes, images, masks, probabilities, strict=False):
    row[0].imshow(image)
    row[1].imshow(mask, cmap="gray")
    row[2].imshow(probability, cmap="gray", vmin=0, vmax=1)
for axis, title in zip(axes[0], ("image", "true mask", "predicted probability"), strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.axis("off")

# %%
# Saved and loaded
# ----------------
# Weights, architecture, loss, metrics and optimizer go into one file, and come back without
# ``custom_objects``.

model.save(folder / "nuclei.keras")
again = keras.models.load_model(folder / "nuclei.keras")
print(again.evaluate(*validation, verbose=0, return_dict=True))
