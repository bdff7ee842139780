"""Tables against counting pixels one at a time and against geometry; pictures by their pixels."""

import importlib
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_nuclei.measure import SHAPE_PROPERTIES, measure, overlay
from keras_nuclei.validation import as_label_map

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LABEL_MAPS = hnp.arrays("int32", SHAPES, elements=st.sampled_from([0, 0, 1, 2, 7]))


def ellipse(height, width, centre, radii, turn=0.0):
    y, x = np.mgrid[:height, :width] - np.array(centre)[:, None, None]
    along = y * math.cos(turn) + x * math.sin(turn)
    across = -y * math.sin(turn) + x * math.cos(turn)
    return ((along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1).astype("int32")


@given(label_map=LABEL_MAPS, num_channels=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_place_and_intensity_equal_counting_pixels(label_map, num_channels, seed):
    image = np.random.default_rng(seed).integers(-50, 50, (*label_map.shape, num_channels))
    frame = measure(label_map, image, properties=())
    assert list(frame.index) == sorted(set(label_map.ravel().tolist()) - {0})
    for label, row in frame.iterrows():
        pixels = [(y, x) for y, x in np.ndindex(label_map.shape) if label_map[y, x] == label]
        ys, xs = zip(*pixels, strict=True)
        assert row.area_px == len(pixels)
        assert (row.centroid_y, row.centroid_x) == pytest.approx((np.mean(ys), np.mean(xs)))
        assert (row.y0, row.x0, row.y1, row.x1) == (min(ys), min(xs), max(ys) + 1, max(xs) + 1)
        for channel in range(num_channels):
            values = [image[y, x, channel] for y, x in pixels]
            suffix = f"_{channel}" if num_channels > 1 else ""
            assert row[f"intensity_mean{suffix}"] == pytest.approx(np.mean(values))
            assert row[f"intensity_min{suffix}"] == min(values)
            assert row[f"intensity_max{suffix}"] == max(values)
            assert row[f"intensity_sum{suffix}"] == pytest.approx(sum(values))


@given(label_map=LABEL_MAPS)
@settings(max_examples=15, deadline=None)
def test_every_shape_is_measured_without_a_warning_and_in_range(label_map):
    frame = measure(label_map, properties=SHAPE_PROPERTIES)
    assert np.isfinite(frame).all(axis=None)
    for name in ("circularity", "eccentricity", "solidity"):
        assert frame[name].between(0, 1).all()
    assert (frame.equivalent_diameter**2 * math.pi / 4).to_numpy() == pytest.approx(frame.area_px)


def test_an_ellipse_has_the_numbers_of_geometry():
    label_map = ellipse(200, 200, (100, 90), (80, 40))
    row = measure(label_map, pixel_size=0.5, properties=SHAPE_PROPERTIES).loc[1]
    assert row.area_px == pytest.approx(math.pi * 80 * 40, rel=0.01)
    assert row.area_um2 == row.area_px / 4
    assert (row.centroid_y, row.centroid_x) == pytest.approx((100, 90))
    assert row.major_axis == pytest.approx(160, rel=0.01)
    assert row.minor_axis == pytest.approx(80, rel=0.01)
    assert row.eccentricity == pytest.approx(math.sqrt(1 - 0.25), abs=0.01)
    assert row.orientation == pytest.approx(0, abs=1e-6)
    assert row.equivalent_diameter == pytest.approx(2 * math.sqrt(80 * 40), rel=0.01)
    # Ramanujan's perimeter of an ellipse.
    around = math.pi * (3 * 120 - math.sqrt((3 * 80 + 40) * (80 + 3 * 40)))
    assert row.perimeter == pytest.approx(around, rel=0.01)
    assert row.circularity == pytest.approx(4 * math.pi**2 * 80 * 40 / around**2, rel=0.02)
    assert row.solidity == pytest.approx(1, abs=0.02)


def test_orientation_is_counter_clockwise_from_the_vertical():
    # Towards the top left: from straight up, 30 degrees counter-clockwise on the screen.
    label_map = ellipse(200, 200, (100, 100), (80, 30), turn=math.radians(30))
    assert measure(label_map).orientation.loc[1] == pytest.approx(math.radians(30), abs=0.01)


def test_solidity_of_an_l():
    label_map = np.zeros((40, 40), int)
    label_map[:, :20] = label_map[20:] = 1
    # Three of four squares; the hull adds half of the fourth.
    frame = measure(label_map, properties=["solidity"])
    assert frame.solidity.loc[1] == pytest.approx(3 / 3.5, abs=0.02)


def test_pixels_that_are_not_square():
    label_map = np.ones((2, 3), int)
    assert measure(label_map, pixel_size=(0.5, 2)).area_um2.loc[1] == 6 * 0.5 * 2
    assert "area_um2" not in measure(label_map)


@pytest.mark.parametrize("image", [None, np.zeros((4, 5), "uint16"), np.zeros((4, 5, 3))])
def test_no_nuclei_same_columns(image):
    empty = np.zeros((4, 5), "int32")
    full = empty.copy()
    full[1:3, 2:4] = 1
    for properties in ((), SHAPE_PROPERTIES):
        options = {"pixel_size": 1, "properties": properties}
        without, with_one = measure(empty, image, **options), measure(full, image, **options)
        assert len(without) == 0
        pd.testing.assert_series_equal(without.dtypes, with_one.dtypes)
        assert without.index.dtype == with_one.index.dtype == "int64"
        assert without.index.name == "label"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int64", "uint64"])
def test_labels_of_any_integers_with_gaps(dtype):
    label_map = np.array([[5, 5, 0], [0, 0, 100]], dtype)
    frame = measure(label_map)
    assert frame.area_px.to_dict() == {5: 2, 100: 1}


def test_labels_that_the_table_cannot_hold():
    with pytest.raises(ValueError, match=r"to 9223372036854775807; got 9223372036854775813\. Ren"):
        measure(np.array([[2**63 + 5]], "uint64"))
    assert measure(np.array([[2**63 - 1]], "uint64")).index.tolist() == [2**63 - 1]


def test_masked_pixels_have_no_intensity():
    image = np.ma.masked_equal([[1.0, 2.0]], 2)
    with pytest.raises(ValueError, match=r"image\.filled"):
        measure([[1, 1]], image)


def test_huge_labels_take_no_memory():
    label_map = np.array([[2**40, 0], [3, 3]])
    assert measure(label_map).area_px.to_dict() == {3: 2, 2**40: 1}
    assert measure(np.array([[2**40, 3]])).area_px.to_dict() == {3: 1, 2**40: 1}


def test_of_float16_sums_are_exact():
    # Their mean is 1000.2; float16 knows 1000 and 1000.5.
    image = np.full((50, 50), 1000, "float16")
    image[:10] = 1001
    table = measure(np.ones((50, 50), int), image)
    assert table.intensity_sum.item() == pytest.approx(2000 * 1000 + 500 * 1001)
    assert table.intensity_mean.item() == pytest.approx(1000.2)


def test_images_of_any_dtype():
    label_map = np.array([[1, 1, 0]])
    for image in (np.array([[True, False, True]]), np.array([[1, 0, 9]], "uint16")):
        assert measure(label_map, image).intensity_mean.loc[1] == 0.5
    assert measure(label_map, np.ones((1, 3, 1))).intensity_sum.loc[1] == 2


@pytest.mark.parametrize(
    ("label_map", "error", "message"),
    [
        (np.zeros((4, 4)), TypeError, "float64.*astype"),
        (np.zeros((4, 4), bool), TypeError, "skimage.measure.label"),
        (np.zeros((2, 4, 4), int), ValueError, r"\(2, 4, 4\)"),
        (np.array([[0, -3]]), ValueError, "-3"),
    ],
)
def test_what_is_no_label_map(label_map, error, message):
    for function in (measure, as_label_map, lambda wrong: overlay(np.zeros((4, 4)), wrong)):
        with pytest.raises(error, match=message):
            function(label_map)


def test_other_wrong_arguments():
    label_map = np.ones((4, 5), int)
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(4, 5\)"):
        measure(label_map, np.zeros((5, 4)))
    with pytest.raises(TypeError, match="complex"):
        measure(label_map, np.zeros((4, 5), complex))
    for pixel_size in (0, -1, float("nan"), (1, 2, 3), (1, 0)):
        with pytest.raises(ValueError, match="pixel_size"):
            measure(label_map, pixel_size=pixel_size)
    with pytest.raises(ValueError, match=r"roundness.*circularity"):
        measure(label_map, properties=["roundness"])
    with pytest.raises(ValueError, match="thickness"):
        overlay(np.zeros((4, 5)), label_map, thickness=0)
    with pytest.raises(ValueError, match=r"a whole number of pixels, at least 1; got 1\.5"):
        overlay(np.zeros((4, 5)), label_map, thickness=1.5)
    with pytest.raises(TypeError, match="a list of names; got 'solidity'"):
        measure(label_map, properties="solidity")
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(4, 5\)"):
        overlay(np.zeros((5, 4)), label_map)


def test_touching_nuclei_have_an_outline_each():
    label_map = np.zeros((10, 12), int)
    label_map[2:8, 1:6], label_map[2:8, 6:11] = 1, 2
    picture = overlay(np.zeros((10, 12)), label_map)
    left, right = picture[4, 5].astype(int), picture[4, 6].astype(int)
    assert left.any()
    assert right.any()
    assert abs(left - right).max() > 100  # and two colours
    assert not picture[3:7, 2:5].any()  # the inside is free
    assert not picture[label_map == 0].any()


@pytest.mark.parametrize("on_bright", [False, True])
def test_ten_labels_in_a_row_differ_in_colour(on_bright):
    label_map = np.arange(1, 11)[None]
    ground = np.full((40, 10), 255 if on_bright else 0, "uint8")
    ground[0, 0] = 255 - ground[0, 0]
    picture = overlay(ground, np.pad(label_map, ((20, 19), (0, 0))))[20].astype(int)
    distances = np.abs(picture[:, None] - picture[None]).max(axis=-1)
    assert distances[~np.eye(10, dtype=bool)].min() > 20


def test_thickness():
    label_map = np.pad(np.ones((9, 9), int), 3)
    for thickness in (1, 2, 3):
        inside = 9 - 2 * thickness
        drawn = overlay(np.zeros((15, 15)), label_map, thickness=thickness).any(axis=-1)
        assert drawn.sum() == 81 - inside**2
        assert not drawn[label_map == 0].any()


@pytest.mark.parametrize("thickness", [1, 2, 4])
def test_a_picture_made_in_bands_is_the_same(thickness, monkeypatch):
    generator = np.random.default_rng(0)
    label_map = np.repeat(np.repeat(generator.integers(0, 4, (9, 8)), 5, axis=0), 4, axis=1)
    image = generator.integers(0, 2**16, (*label_map.shape, 3)).astype("uint16")
    whole = overlay(image, label_map, thickness=thickness)
    monkeypatch.setattr(importlib.import_module("keras_nuclei.measure"), "BAND", 7)
    np.testing.assert_array_equal(overlay(image, label_map, thickness=thickness), whole)


def test_numbers_are_written_inside_and_the_image_is_stretched():
    image = np.linspace(1000, 2000, 60 * 60).reshape(60, 60).astype("uint16")
    label_map = ellipse(60, 60, (30, 30), (20, 20)) * 123
    plain, numbered = overlay(image, label_map), overlay(image, label_map, numbers=True)
    assert plain.dtype == numbered.dtype == np.uint8
    assert plain[0, 0].tolist() == [0, 0, 0]
    assert plain[-1, -1].tolist() == [255, 255, 255]
    changed = np.argwhere((plain != numbered).any(axis=-1))
    assert len(changed) > 20
    assert changed.mean(axis=0) == pytest.approx([30, 30], abs=2)
    bare = overlay(image, np.zeros_like(label_map), numbers=True)
    np.testing.assert_array_equal(bare, overlay(image, np.zeros_like(label_map)))
