"""What a model draws: of several views, and at other sizes."""

import numpy as np
import pytest
import skimage.transform
from scipy import ndimage

import keras_nuclei
from keras_nuclei.maps import VIEWS, predict_maps, resize
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
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_the_model_sees_is_resized_as_scikit_image_does(rng, size, channels):
    values = ndimage.gaussian_filter(rng.random((30, 45, channels)), (3, 3, 0))
    resized = resize(values, size)
    assert resized.shape == (*size, channels)
    assert resized.dtype == np.float32
    expected = skimage.transform.resize(values, size, order=1, anti_aliasing=size[0] < 30)
    # The two differ in how they average before shrinking, and beyond the outermost pixels.
    np.testing.assert_allclose(resized, expected, atol=0.02)
