"""
Fluorescence, stained tissue, brightfield
=========================================

Drawn fields of view of the three kinds of image in the Data Science Bowl 2018, and what the two
trained models find in them. Nothing tells the models which kind it is.
"""

import matplotlib.pyplot as plt

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

kinds = {"fluorescence": 6, "histology": 13, "brightfield": 8}
figure, axes = plt.subplots(3, 3, figsize=(10, 10), layout="constrained")
for row, (kind, number) in zip(axes, kinds.items(), strict=True):
    image, truth = draw_field(number, 240, 240)
    row[0].imshow(image)
    row[0].set_title(f"{kind}: {len(set(truth.flat)) - 1} nuclei")
    for axis, preset in zip(row[1:], keras_nuclei.PRESETS, strict=True):
        found = keras_nuclei.segment(image, preset)
        axis.imshow(keras_nuclei.overlay(image, found))
        axis.set_title(f"{preset}: {found.max()}")
for axis in axes.flat:
    axis.axis("off")
