"""What a model draws: of several views, and at other sizes."""

import numpy as np
import pytest
import skimage.transform
from scipy import ndimage

import keras_nuclei
from keras_nuclei.maps import VIEWS, label_maps, predict_maps, resize
from tests.test_segmentation import discs


@pytest.fixture(scope="module")
def model():
    return keras_nuclei.from_preset("nuclei_base")


@pytest.mark.parametrize(
    ("augmentations", "symmetries", "sizes"),
    [(1, 1, [1]), (3, 1, [0.8, 1, 1.25]), (4, 4, [1]), (8, 8, [1]), (12, 4, [0.8, 1, 1.25])],
)
def test_maps_are_the_mean_over_flips_and_sizes(model, augmentations, symmetries, sizes):
    assert augmentations in VIEWS
    image = np.repeat(255 * discs()[0][..., None], 3, axis=-1).astype("float32")
    height, width = image.shape[:2]
    found = predict_maps(image, model, scale=1.5, augmentations=augmentations)
    by_scale = []
    for scale in np.multiply(1.5, sizes):
        seen = resize(image, (round(scale * height), round(scale * width)))
        maps = keras_nuclei.predict_tiled(seen, model, augmentations=symmetries)
        by_scale.append({name: resize(maps[name], (height, width)) for name in maps})
    for name, values in found.items():
        expected = np.mean([maps[name] for maps in by_scale], axis=0)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        if len(sizes) > 1:
            assert np.abs(values - by_scale[1][name]).max() > 0.01, "sizes don't agree to that"


@pytest.mark.parametrize("size", [(60, 90), (31, 45), (1, 1), (20, 30)])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_what_the_model_sees_is_resized_as_scikit_image_does(rng, size, channels):
    values = ndimage.gaussian_filter(rng.random((30, 45, channels)), (3, 3, 0))
    resized = resize(values, size)
    assert resized.shape == (*size, channels)
    assert resized.dtype == np.float32
    expected = skimage.transform.resize(values, size, order=1, anti_aliasing=size[0] < 30)
    # The two differ in how they average before shrinking, and beyond the outermost pixels.
    np.testing.assert_allclose(resized, expected, atol=0.02)


@pytest.mark.parametrize(
    ("scale", "smallest"),
    # By hand: 12 pixels that the model saw are 48 of an image at half its size; of an enlarged one
    # those of the image count.
    [(0.5, 48), (1, 12), (2, 12)],
)
def test_the_smallest_nucleus_is_of_the_pixels_that_the_model_saw(scale, smallest):
    nuclei = np.zeros((40, 200, 1), "float32")
    for number, area in enumerate((smallest - 1, smallest, smallest + 1)):
        whole, rest = divmod(area, 4)
        left = 20 + 60 * number
        nuclei[10 : 10 + whole, left : left + 4] = nuclei[10 + whole, left : left + rest] = 1
    maps = {"foreground": nuclei, "distance": np.zeros_like(nuclei)}  # no seeds: sure pieces
    found = label_maps(maps, scale=scale)
    assert np.bincount(found.ravel())[1:].tolist() == [smallest, smallest + 1]


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_smoothing_is_of_the_pixels_that_the_model_saw(scale):
    down, right = np.indices((120, 160))
    apart = np.minimum(np.hypot(down - 60, right - 60), np.hypot(down - 60, right - 96))
    distance = np.clip(1 - apart / 30, 0, 1).astype("float32")[..., None]
    maps = {"foreground": (distance > 0).astype("float32"), "distance": distance}
    found = label_maps(maps, scale=scale, smoothing=3)
    # By SciPy, of the image's pixels.
    smooth = ndimage.gaussian_filter(distance[..., 0], 3 / scale)
    seeds = ndimage.label(smooth > 0.5)[1]
    assert found.max() == seeds == (1 if scale == 0.5 else 2)
