"""How large nuclei are: by hand, and on drawn images with the shipped weights."""

import numpy as np
import pytest
from scipy import ndimage

import keras_nuclei
from keras_nuclei import diameters, segmentation
from keras_nuclei.diameters import FAR, Look, choose, model_scale, typical_diameter
from tests.test_segmentation import discs


@pytest.fixture(scope="module")
def model():
    return keras_nuclei.from_preset("nuclei_base")


def test_large_nuclei_are_found_by_their_diameter_and_without_it(model):
    picture, count = discs()
    large = np.kron(picture, np.ones((6, 6)))  # 144 pixels across
    assert keras_nuclei.segment(large, model, diameter=144).max() == count
    assert keras_nuclei.segment(large, model, scale=1 / 4).max() == count
    assert keras_nuclei.segment(large, model).max() == count
    assert 144 / 1.5 < segmentation.estimate_diameter(large, model) < 144 * 1.5


@pytest.mark.parametrize("name", keras_nuclei.PRESETS)
@pytest.mark.parametrize("radius", [50, 80])
def test_large_nuclei_of_even_brightness_stay_in_one_piece(name, radius, rng):
    rows, columns = np.mgrid[:480, :700]
    true = np.zeros(rows.shape, int)
    for number, (y, x) in enumerate([(120, 130), (120, 400), (350, 270), (350, 560)], start=1):
        true[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    image = np.where(true > 0, 160, 20) + rng.normal(0, 6, true.shape)
    match = keras_nuclei.matching.match(true, keras_nuclei.segment(image, name))
    assert keras_nuclei.scores.average_precision([match], 0.5) == 1


def test_glare_does_not_decide_how_large_nuclei_are(model):
    image = np.full((1500, 1500), 20.0)
    rows, columns = np.mgrid[:400, :1500]
    image[-400:] += 120 * ((rows % 200 - 100) ** 2 + (columns % 200 - 100) ** 2 < 60**2)
    assert 90 < segmentation.estimate_diameter(image, model) < 150
    # Dirt: large, brighter than nuclei, and none.
    image[100:600, 200:900] = np.random.default_rng(0).choice([20, 400], (500, 700))
    assert 90 < segmentation.estimate_diameter(image, model) < 150


def test_without_nuclei_there_are_three_looks_and_a_note(model, monkeypatch, caplog):
    seen = []

    def look(image, *_, scale, **__):
        seen.append((image.shape[:2], scale))
        return Look(0.0, 26.0, np.zeros(image.shape[:2], int))

    monkeypatch.setattr(diameters, "look", look)
    caplog.set_level("INFO", "keras_nuclei")
    image = np.random.default_rng(0).integers(0, 255, (2500, 1100))
    assert segmentation.estimate_diameter(image, model) == 26
    assert seen == [((1024, 1024), 1), ((1024, 1024), 0.25)] * 3
    assert "No nuclei to estimate a diameter from" in caplog.text


@pytest.mark.parametrize(
    ("near", "far", "near_again", "far_again", "chosen"),
    [
        ((0.8, 30), (0.9, 150), 0.7, 0.8, 150),  # clearer from afar, and so again
        ((0.8, 30), (0.9, 150), 0.9, 0.8, 30),  # not so again: a clump
        ((0.8, 30), (0.8, 150), None, None, 30),  # as clear from near: nobody looks again
        ((0.8, 40), (0.9, 250), None, None, 40),  # larger than what is expected
        ((0.8, 20), (0.9, 150), None, None, 20),  # more than 7 times as large: a clump
        ((0.8, 20), (0.9, 139), 0.7, 0.8, 139),
        ((0.0, 26), (0.9, 250), 0.0, 0.9, 250),  # but where there is nothing else
        ((0.0, 26), (0.0, 26), None, None, 26),
    ],
)
def test_what_is_seen_from_afar_has_to_stay_clear(near, far, near_again, far_again, chosen):
    looks = [Look(*each, np.full((2, 2), each[0] > 0, int)) for each in (near, far)]
    again = dict(zip((near[1], far[1]), (near_again, far_again), strict=True))

    def look_again(look):
        assert again[look.diameter] is not None
        return look._replace(clarity=again[look.diameter])

    assert choose(*looks, look_again).diameter == chosen


@pytest.mark.parametrize(("specks", "chosen"), [(4, 180), (6, 5)])
def test_specks_are_not_what_a_clump_is_made_of(specks, chosen):
    # From afar 100 pixels of 400 are nucleus; specks cover more or less than a twentieth of that.
    far = Look(0.9, 180, np.repeat([1, 0, 0, 0], 100).reshape(20, 20))
    near = Look(0.7, 5, np.repeat([1, 0], [specks, 400 - specks]).reshape(20, 20))
    assert choose(near, far, lambda look: look).diameter == chosen


def test_no_scale_is_looked_at_twice(monkeypatch):
    seen = []

    def look(image, *_, scale, **__):
        seen.append(scale)
        clarity, diameter = (0.9, 100.0) if scale == FAR else (0.8, 30.0)
        return Look(clarity, diameter, np.zeros(image.shape[:2], int))

    monkeypatch.setattr(diameters, "look", look)
    assert segmentation.estimate_diameter(np.zeros((50, 60)), lambda batch: {}) == 30
    # Nuclei of 30 pixels are shown as they are, which has been seen; those of 100 at 50 pixels.
    assert seen == [1, FAR, 0.5]


def test_a_look_finds_size_and_place_at_any_scale(model):
    picture, count = discs(radius=14)
    image = np.repeat(255 * picture[..., None], 3, axis=-1)
    areas = np.bincount(ndimage.label(picture > 0.5)[0].ravel())[1:]
    for scale in (0.5, 1, 2):
        look = diameters.look(image, model, scale=scale)
        assert look.label_map.max() == count
        assert look.diameter == pytest.approx(2 * np.sqrt(areas.mean() / np.pi), rel=0.15)
        assert 0.8 < look.clarity <= 1
    # From so far that a nucleus is a pixel there is nothing clear to be seen.
    assert diameters.look(image, model, scale=1 / 28).clarity < 0.8


@pytest.mark.parametrize(
    ("areas", "diameter"),
    # By hand: the area at which half of the sum is reached, made a circle.
    [([9], 3.385), ([1, 1, 1, 1, 1, 100], 11.284), ([30, 20, 10], 5.046)],
)
def test_the_typical_diameter_by_hand(areas, diameter):
    assert typical_diameter(np.array(areas)) == pytest.approx(diameter, abs=1e-3)


@pytest.mark.parametrize(
    ("diameter", "scale"), [(5, 2.0), (10, 2.0), (20, 1.3), (26, 1.0), (50, 1.0), (100, 0.5)]
)
def test_model_scale_by_hand(diameter, scale):
    assert model_scale(diameter) == scale
