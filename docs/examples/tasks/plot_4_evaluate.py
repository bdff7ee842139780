"""
Evaluate right
==============

Which number says whether a segmentation is good? Not the one that is printed most.
"""

# %%
# Pixel accuracy flatters
# -----------------------
# Most pixels are background. Who predicts nothing is right about all of those.

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import keras_nuclei
from keras_nuclei import matching, metrics, scores
from tfds_dsb2018.synthetic import draw_field

truths = [draw_field(number, 160, 160)[1] for number in range(6)]
masks = np.stack(truths)[..., None] > 0
nothing = np.zeros(masks.shape)
print(f"accuracy of predicting nothing: {np.mean(masks == nothing):.3f}")

# %%
# So print it beside every pixel accuracy, or take Dice or IoU of the nuclei, which are 0 here.


def score(metric, masks, predictions):
    """Score all images at once."""
    metric.update_state(masks, predictions)
    return float(metric.result())


print("Dice:", score(metrics.Dice(), masks, nothing), "IoU:", score(metrics.IoU(), masks, nothing))

# %%
# Pooled or per image
# -------------------
# Two questions, two numbers. Pooled: of all pixels, how many are right? Per image: how well does an
# image do, on average? They part where images hold different amounts of nuclei. Here a model finds
# the nuclei of four images, all but their rims, and nothing in the last two, which hold only one.

masks[4:] = False
masks[4:, 40:52, 40:52] = True
predictions = np.stack([ndimage.binary_erosion(mask[..., 0]) for mask in masks])[..., None] * 1.0
predictions[4:] = 0
print(f"pooled Dice    {score(metrics.Dice(), masks, predictions):.3f}")
print(f"per-image Dice {score(metrics.Dice(per_image=True), masks, predictions):.3f}")

# %%
# The mean over batches answers neither
# -------------------------------------
# A Dice that is computed in each batch and averaged over the batches, as a function passed to
# ``compile(metrics=...)`` is, depends on how the images fall into batches. The same images and the
# same predictions, in 200 orders:


def dice_of_batch(mask, prediction):
    """Dice of the pixels of a batch."""
    return 2 * np.sum(mask * prediction) / (np.sum(mask) + np.sum(prediction))


orders = [np.random.default_rng(seed).permutation(6) for seed in range(200)]
means = {
    size: [
        np.mean(
            [
                dice_of_batch(masks[o[i : i + size]], predictions[o[i : i + size]])
                for i in range(0, 6, size)
            ]
        )
        for o in orders
    ]
    for size in (1, 2, 4, 6)
}
# sphinx_gallery_thumbnail_number = 2
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.boxplot(means.values(), tick_labels=means, whis=(0, 100))
axis.axhline(score(metrics.Dice(), masks, predictions), color="tab:green")
axis.text(
    0.52, 0.93, "pooled", color="tab:green", va="bottom", transform=axis.get_yaxis_transform()
)
axis.set(xlabel="batch size", ylabel="mean Dice of the batches", ylim=(0.4, 1))

# %%
# The metrics of this package add up counts and divide once, at the end: any batch size and any
# order give the same number, in ``model.evaluate``, too.

metric = metrics.Dice()
for index in np.random.default_rng(1).permutation(6):
    metric.update_state(masks[index : index + 1], predictions[index : index + 1])
print(f"image by image {float(metric.result()):.6f}")
print(f"all at once    {score(metrics.Dice(), masks, predictions):.6f}")

# %%
# Inside ``compile``, they are Keras metrics like any other:

model = keras_nuclei.unet(keras_nuclei.encoders.plain(filters=(8, 16)))
model.compile(
    loss=keras.losses.BinaryCrossentropy(),
    metrics=[metrics.Dice(), metrics.Dice(per_image=True, name="per_image_dice"), metrics.IoU()],
)

# %%
# Pixels are not nuclei
# ---------------------
# Count the nuclei, and pixels no longer tell: joining touching nuclei costs few pixels. Compared
# nucleus by nucleus, it shows. Three ways to be wrong:

true = draw_field(6, 160, 160)[1]
merged = ndimage.label(true > 0)[0]
shrunk = np.where(ndimage.grey_erosion(true, 3) == ndimage.grey_dilation(true, 3), true, 0)
missed = np.where(true % 4 == 0, 0, true)

figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), layout="constrained")
for axis, (title, found) in zip(
    axes, {"truth": true, "merged": merged, "shrunk": shrunk, "missed": missed}.items(), strict=True
):
    match = matching.match(true, found)
    dice = score(metrics.Dice(), true[None] > 0, 1.0 * (found[None] > 0))
    axis.imshow(keras_nuclei.overlay(np.zeros(true.shape), found))
    axis.set_title(
        f"{title}\nDice {dice:.2f}, AP@0.5 {scores.average_precision([match]):.2f}\n"
        f"DSB score {scores.dsb_score([match]):.2f}"
    )
    axis.axis("off")

# %%
# AP at an IoU threshold is TP / (TP + FP + FN) of matched nuclei; the DSB score, of the Data
# Science Bowl 2018, is its mean over the thresholds 0.5, 0.55 ... 0.95, so it sees the rims, too.
# ``summarize`` tells all of it, and what kinds of errors there are:

for name, value in scores.summarize([matching.match(true, merged)]).items():
    print(f"{name:20} {value:.3g}")

# %%
# Split by what you will meet
# ---------------------------
# The last trap is none of the metric: tiles of one field of view, on both sides of a random split,
# make any score look better than new images will. :doc:`The scores <../results/scores>` of this
# package are given for both kinds of split.
