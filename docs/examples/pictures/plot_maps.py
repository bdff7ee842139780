"""
From maps to nuclei
===================

What a model draws, and what is made of it: where nuclei are, how deep inside one a pixel lies, and
one number for each nucleus, grown by a watershed from where it is deepest.
"""

import matplotlib.pyplot as plt
import numpy as np

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

image, _ = draw_field(0, 200, 200)
model = keras_nuclei.from_preset("nuclei_base")
maps = keras_nuclei.maps.predict_maps(keras_nuclei.images.normalize(image), model)
label_map = keras_nuclei.maps.label_maps(maps)

colours = np.vstack([[0, 0, 0], np.random.default_rng(0).uniform(0.3, 1, (label_map.max(), 3))])
pictures = {
    "image": image,
    "foreground": maps["foreground"],
    "distance": maps["distance"],
    "nuclei": colours[label_map],
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, vmin=0, vmax=1)
    axis.set_title(title)
    axis.axis("off")
