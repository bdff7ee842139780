"""
Predict
=======

From an image to separate nuclei, their measures and files for other programs; and images of any
size with any model.
"""

# %%
# Segment, measure, look
# ----------------------
# ``segment`` takes grey or colour images of any size and range, bright nuclei on dark or dark ones
# on bright, and needs no settings as a rule.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage

import keras_nuclei
from tfds_dsb2018.synthetic import draw_field

image, _ = draw_field(8, 300, 420)  # or keras_nuclei.images.read_image("image.tif")
label_map = keras_nuclei.segment(image)
print(label_map.shape, label_map.dtype, label_map.max(), "nuclei")

# %%
# A row for each nucleus, in pixels, and with ``pixel_size`` in micrometres, too:

table = keras_nuclei.measure(label_map, image, pixel_size=0.5)
table[["area_um2", "centroid_y", "centroid_x", "circularity", "intensity_mean_0"]].head().round(2)

# %%
# The picture shows what was found; ``numbers=True`` writes the labels of the table.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].imshow(image)
axes[1].imshow(keras_nuclei.overlay(image, label_map, numbers=True))
for axis in axes:
    axis.axis("off")

# %%
# For ImageJ, QuPath and others:

folder = Path(tempfile.mkdtemp())
keras_nuclei.export.write_labels(folder / "labels.tif", label_map)
keras_nuclei.export.write_geojson(folder / "nuclei.geojson", label_map)
keras_nuclei.export.write_rois(folder / "rois.zip", label_map)
for path in sorted(folder.iterdir()):
    print(path.name, path.stat().st_size, "bytes")

# %%
# Nuclei of unusual size
# ----------------------
# The size of the nuclei is estimated, and the image brought to a scale that the model knows. Where
# you know it better, say so: as ``diameter``, in pixels of the image, or as ``scale``. Here nuclei
# are six times as large as they were drawn.

small = draw_field(0, 300, 420)[0][:120, :160]
large = skimage.transform.resize(small, (720, 960), preserve_range=True, order=3)
estimated = keras_nuclei.segmentation.estimate_diameter(large)
print(
    f"estimated diameter {estimated:.0f} pixels; so the model sees the image "
    f"{keras_nuclei.diameters.model_scale(estimated):.2f} times as large"
)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for axis, scale in zip(axes, (1, None), strict=True):
    found = keras_nuclei.segment(large, scale=scale)
    axis.imshow(keras_nuclei.overlay(large, found, thickness=4))
    axis.set_title(f"scale={scale}: {found.max()} found")
    axis.axis("off")

# %%
# Large images
# ------------
# ``segment`` works tile by tile by itself. With a model of your own, whatever it predicts,
# ``predict_tiled`` does so: overlapping tiles are blended, so that no seam shows. Only a few tiles
# are in memory at once; the image and ``out`` may be memory maps.

model = keras_nuclei.from_preset("nuclei_small")
slide, _ = draw_field(5, 900, 1400)
foreground = np.memmap(folder / "foreground", "float32", "w+", shape=(900, 1400, 1))
distance = np.memmap(folder / "distance", "float32", "w+", shape=(900, 1400, 1))
keras_nuclei.predict_tiled(
    slide, model, tile_size=512, overlap=64, out={"foreground": foreground, "distance": distance}
)

figure, axes = plt.subplots(1, 3, figsize=(12, 2.9), layout="constrained")
for axis, picture, title in zip(
    axes, (slide, foreground, distance), ("image", "foreground", "distance"), strict=True
):
    axis.imshow(picture, cmap="gray")
    axis.set_title(title)
    axis.axis("off")

# %%
# Maps become nuclei by a watershed. ``label_tiled`` numbers the nuclei of images that don't fit
# into memory as label maps either.

labels = keras_nuclei.maps.label_maps({"foreground": foreground, "distance": distance})
print(labels.max(), "nuclei")
