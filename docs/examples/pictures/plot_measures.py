"""
Measures on the image
=====================

Any column of the table, put back where its nucleus lies: here area and roundness.
"""

import matplotlib.pyplot as plt
import numpy as np

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

image, _ = draw_field(20, 256, 256)
label_map = keras_nuclei.segment(image)
table = keras_nuclei.measure(label_map, image, pixel_size=0.5)

figure, axes = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
axes[0].imshow(image)
columns = {"area_um2": "area, µm²", "circularity": "circularity"}
for axis, (column, title) in zip(axes[1:], columns.items(), strict=True):
    values = np.full(label_map.max() + 1, np.nan)
    values[table.index] = table[column]
    figure.colorbar(axis.imshow(values[label_map]), ax=axis, label=title, shrink=0.8)
for axis in axes:
    axis.axis("off")
