"""
Not only nuclei
===============

Bright roundish things on dark are enough alike: Greek coins from Pompeii, of which
scikit-image has a photograph, counted and sorted by size with the model that learned from nuclei.
"""

import matplotlib.pyplot as plt
import skimage

import keras_nuclei

image = skimage.data.coins()
label_map = keras_nuclei.segment(image, diameter=40)
table = keras_nuclei.measure(label_map, image)

figure, axes = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained", gridspec_kw={"width_ratios": (3, 2)}
)
axes[0].imshow(keras_nuclei.overlay(image, label_map, thickness=2))
axes[0].axis("off")
axes[1].hist(table["equivalent_diameter"], bins=20)
axes[1].set(xlabel="diameter, pixels", ylabel="coins")
