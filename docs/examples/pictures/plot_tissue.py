"""
Two stains
==========

Tissue that comes with scikit-image: nuclei are blue, and a protein is stained brown. Where another
stain is in the way, show the model the nuclei's own: here haematoxylin, unmixed by
``skimage.color.rgb2hed``. In the brown glands, whose nuclei hardly show, neither sees much.
"""

import matplotlib.pyplot as plt
import skimage

import keras_nuclei

image = skimage.data.immunohistochemistry()[170:470, 200:512]
haematoxylin = skimage.color.rgb2hed(image)[..., 0]
found = {
    "all colours": keras_nuclei.segment(image, diameter=16),
    "haematoxylin": keras_nuclei.segment(haematoxylin, diameter=16),
}

figure, axes = plt.subplots(1, 3, figsize=(12, 4.1), layout="constrained")
axes[0].imshow(image)
axes[0].set_title("image")
for axis, (title, label_map) in zip(axes[1:], found.items(), strict=True):
    axis.imshow(keras_nuclei.overlay(image, label_map))
    axis.set_title(f"{title}: {label_map.max()} nuclei")
for axis in axes:
    axis.axis("off")
