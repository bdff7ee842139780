"""Maps to label maps: drawn discs whose numbers are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.segmentation import watershed

from keras_nuclei import instances, matching
from keras_nuclei.instances import label_nuclei
from keras_nuclei.maps import label_maps


def draw(discs, shape=(64, 80)):
    """Label map of discs (row, column, radius), and the maps that a perfect network would draw."""
    rows, columns = np.indices(shape)
    label_map = np.zeros(shape, int)
    for number, (row, column, radius) in enumerate(discs, start=1):
        label_map[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = number
    distance = np.zeros(shape)
    for number in range(1, len(discs) + 1):
        depth = distance_transform_edt(label_map == number)
        distance = np.maximum(distance, depth / max(1, depth.max()))
    return label_map, (label_map > 0).astype("float32"), distance.astype("float32")


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    largest=st.integers(1, 4),
    first=st.sampled_from([1, 250, 2**40]),
    seed=st.integers(0, 2**32 - 1),
)
def test_maps_are_drawn_by_their_definition(size, largest, first, seed):
    label_map = np.random.default_rng(seed).integers(0, largest, size)
    # Their definition, pixel by pixel, by SciPy's exact distance; the numbers do not matter.
    padded = np.pad(label_map, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    rim = (label_map > 0) & np.any([each != label_map for each in beside], axis=0)
    depth = 1 + (distance_transform_edt(~rim) if rim.any() else np.zeros(size))
    expected = np.zeros(size)
    for number in range(1, largest):
        member = label_map == number
        expected[member] = depth[member] / depth[member].max(initial=1)
    maps = instances.draw_maps(np.where(label_map > 0, label_map + first, 0))
    for values in maps.values():
        assert values.dtype == np.float32
        assert values.shape == (*size, 1)
    np.testing.assert_array_equal(maps["foreground"][..., 0], label_map > 0)
    np.testing.assert_allclose(maps["distance"][..., 0], expected, atol=0.04)


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.5, 0.6, 0.8])
def test_a_lower_threshold_loses_no_nucleus(threshold):
    # One without a seed: surely a nucleus, 0.95, with a wide rim that is hardly one, 0.4.
    core, _, _ = draw([(30, 40, 8)])
    wide, _, _ = draw([(30, 40, 20)])
    foreground = np.maximum(0.95 * core, 0.4 * wide)
    found = label_nuclei(foreground, np.zeros(core.shape), threshold=threshold)
    np.testing.assert_array_equal(found, wide if threshold < 0.4 else core)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint64, np.int64])
def test_a_label_may_be_the_largest_of_its_type(dtype):
    label_map, _, _ = draw([(20, 20, 9), (20, 36, 9), (50, 60, 7)], shape=(260, 300))
    largest = np.where(label_map == 3, np.iinfo(dtype).max, label_map.astype(dtype)).astype(dtype)
    for name, values in instances.draw_maps(largest).items():
        np.testing.assert_array_equal(values, instances.draw_maps(label_map)[name])


def test_nuclei_that_touch_come_back_from_the_maps_drawn_of_them():
    label_map, _, _ = draw([(20, 20, 9), (20, 36, 9), (50, 60, 7)])
    found = label_nuclei(**instances.draw_maps(label_map * 3))
    match = matching.match(label_map, found)
    assert len(match.pairs) == found.max() == 3
    # Where two touch, the pixels in the valley may go to either.
    assert match.iou.min() > 0.95


@pytest.mark.parametrize(
    ("label_map", "error", "message"),
    [
        (np.zeros((0, 3), int), ValueError, r"must have pixels; got the shape \(0, 3\)"),
        (np.zeros((2, 2, 1), int), ValueError, r"\(2, 2, 1\)"),
        ([[-1, 1]], ValueError, "-1"),
        (np.ones((2, 2), bool), TypeError, "got bool.*skimage.measure.label"),
    ],
)
def test_maps_are_drawn_of_label_maps_alone(label_map, error, message):
    with pytest.raises(error, match=message):
        instances.draw_maps(label_map)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    sigma=st.floats(0.1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_maps_are_smoothed_as_scipy_does(height, width, sigma, seed):
    values = np.random.default_rng(seed).uniform(0, 1, (height, width)).astype("float32")
    expected = gaussian_filter(values, sigma, radius=round(4 * sigma))
    np.testing.assert_allclose(instances._smooth(values, sigma), expected, atol=1e-5)


def test_touching_discs_become_separate():
    label_map, foreground, distance = draw([(30, 25, 12), (30, 48, 12), (10, 70, 6)])
    found = label_nuclei(foreground, distance)
    assert found.dtype == np.int32
    assert found.shape == label_map.shape
    assert set(np.unique(found)) == {0, 1, 2, 3}
    iou = matching.match(label_map, found).iou
    assert len(matching.match(label_map, found).pairs) == 3, "no nucleus reaches into another"
    assert iou.min() == 1


@settings(max_examples=25, deadline=None)
@given(
    radii=st.lists(st.integers(4, 7), min_size=12, max_size=12),
    there=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_separate_discs_are_found_wherever_they_are(radii, there):
    places = [(row, column) for row in (8, 24, 40) for column in (8, 28, 48, 68)]
    discs = [
        (*place, radius)
        for place, radius, is_there in zip(places, radii, there, strict=True)
        if is_there
    ]
    label_map, foreground, distance = draw(discs)
    found = label_nuclei(foreground, distance)
    assert found.max() == len(discs)
    np.testing.assert_array_equal(found > 0, label_map > 0)
    if discs:
        np.testing.assert_array_equal(matching.match(label_map, found).iou, 1)


def test_numbers_have_no_gaps_where_small_nuclei_are_dropped():
    _, foreground, distance = draw([(10, 10, 3), (30, 30, 8), (50, 60, 8)])
    assert label_nuclei(foreground, distance).max() == 3
    assert sorted(np.unique(label_nuclei(foreground, distance, min_area=50))) == [0, 1, 2]


def test_foreground_without_a_seed_is_kept_where_it_is_sure():
    _, foreground, distance = draw([(20, 20, 8), (40, 60, 8)])
    distance[:, 40:] *= 0.3
    assert label_nuclei(foreground, distance).max() == 2
    assert label_nuclei(foreground * 0.7, distance).max() == 1
    assert label_nuclei(foreground * 0.7, distance, sure=0.6).max() == 2
    assert label_nuclei(foreground * 0.7, distance, seed_thresholds=[0.2]).max() == 2


def test_a_shallow_valley_parts_two_middles_of_which_both_are_high():
    _, foreground, distance = draw([(30, 25, 12), (30, 45, 12), (10, 70, 6)])
    distance = np.where(foreground > 0, np.maximum(distance, 0.6), 0)  # a valley 0.6 deep
    assert label_nuclei(foreground, distance, seed_thresholds=[0.5]).max() == 2
    for thresholds in ([0.5, 0.7], [0.7, 0.5], [0.5, 0.6, 0.7, 0.9]):
        assert label_nuclei(foreground, distance, seed_thresholds=thresholds).max() == 3
    # Only one of them is high: what is left of the other belongs to it.
    distance[:, 36:60] = np.minimum(distance[:, 36:60], 0.65)
    assert label_nuclei(foreground, distance).max() == 2


def test_smoothing_makes_one_middle_of_two():
    # A nucleus whose drawn depth has a crack: two peaks with a thin valley of noise between them.
    _, foreground, distance = draw([(30, 40, 12)])
    distance[:, 40] *= 0.2
    assert label_nuclei(foreground, distance, smoothing=0).max() == 2
    assert label_nuclei(foreground, distance, smoothing=1.5).max() == 1


def test_a_channel_axis_may_be_there():
    _, foreground, distance = draw([(20, 20, 8)])
    np.testing.assert_array_equal(
        label_nuclei(foreground[..., None], distance[..., None]),
        label_nuclei(foreground, distance),
    )


def test_what_touches_at_a_corner_is_flooded_too():
    foreground = np.zeros((40, 40), "float32")
    foreground[2:20, 2:20] = foreground[20:38, 20:38] = 1
    distance = np.zeros_like(foreground)
    distance[8:14, 8:14] = 1
    np.testing.assert_array_equal(label_nuclei(foreground, distance) > 0, foreground > 0)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 25),
    width=st.integers(1, 40),
    covered=st.floats(0.3, 1),
    share=st.floats(0.05, 0.7),
    seed=st.integers(0, 99),
)
def test_flooded_as_by_one_watershed_of_all(height, width, covered, share, seed):
    # No two pixels are equally deep: scikit-image's watershed then has but one answer.
    generator = np.random.default_rng(seed)
    distance = generator.permutation(1000)[: height * width].reshape(height, width)
    distance = (distance / 1000).astype("float32")
    inside = gaussian_filter(generator.random((height, width)), 1)
    inside = inside <= np.quantile(inside, covered)
    seeds, _ = label((distance > 1 - share) & inside, np.ones((3, 3)))
    expected = watershed(-distance, seeds, connectivity=2, mask=inside)
    found = label_nuclei(
        np.where(inside, 0.6, 0.1),  # what has no seed is not sure enough to become one
        distance,
        seed_thresholds=[1 - share],
        smoothing=0,
        min_seed_area=1,
        min_area=1,
    )
    np.testing.assert_array_equal(found, expected)


def test_a_seed_floods_across_corners_from_within():
    # Of the first seed, the pixel with all four neighbours in the seed is the deepest: it floods
    # the pixel between the seeds, which it touches at a corner, before the second seed does.
    distance = np.float32(
        [
            [0.6, 0.6, 0.6, 0.0],
            [0.6, 1.0, 0.6, 0.0],
            [0.6, 0.6, 0.3, 0.0],
            [0.0, 0.0, 0.0, 0.9],
        ]
    )
    found = label_nuclei(distance > 0, distance, smoothing=0, min_seed_area=1, min_area=1)
    assert found[2, 2] == found[1, 1] != found[3, 3] > 0


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "bool"])
def test_any_real_dtype(dtype):
    _, foreground, _ = draw([(20, 20, 8), (40, 60, 8)])
    maps = foreground.astype(dtype)
    np.testing.assert_array_equal(label_nuclei(maps, maps), label_nuclei(foreground, foreground))


def test_one_pixel():
    assert label_nuclei(np.ones((1, 1)), np.ones((1, 1)), min_seed_area=1, min_area=1) == [[1]]
    assert label_nuclei(np.zeros((1, 1)), np.zeros((1, 1))) == [[0]]


@pytest.mark.parametrize(
    ("foreground", "distance", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"one shape; got \(2, 3\) and \(3, 2\)"),
        (np.zeros((2, 3, 2)), np.zeros((2, 3)), r"\(H, W, 1\); got \(2, 3, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"got \(0, 3\)"),
        (np.full((2, 3), 4.0), np.zeros((2, 3)), "foreground must have values in 0..1.*sigmoid"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), "distance must have values in 0..1"),
    ],
)
def test_bad_maps(foreground, distance, message):
    with pytest.raises(ValueError, match=message):
        label_nuclei(foreground, distance)


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"threshold": 5}, ValueError, r"threshold must be in 0..1.*got 5"),
        ({"threshold": np.nan}, ValueError, r"threshold must be in 0..1.*got nan"),
        ({"threshold": "0.5"}, TypeError, r"threshold must be a number; got '0.5'"),
        ({"smoothing": -1}, ValueError, r"smoothing must be .* 0 or above; got -1"),
        ({"smoothing": np.nan}, ValueError, r"smoothing must be .* 0 or above; got nan"),
        ({"smoothing": np.inf}, ValueError, r"smoothing must be .* 0 or above; got inf"),
        ({"seed_thresholds": 0.5}, TypeError, r"must be a list of numbers; got 0.5"),
        ({"seed_thresholds": ["a"]}, TypeError, r"must be a list of numbers; got \['a'\]"),
        ({"seed_thresholds": ()}, ValueError, r"must hold one number or more; got none"),
        ({"seed_thresholds": (0.5, 7)}, ValueError, r"seed_thresholds must be in 0..1"),
    ],
)
def test_bad_settings(setting, error, message):
    with pytest.raises(error, match=message):
        label_nuclei(np.ones((9, 9)), np.ones((9, 9)), **setting)


def test_nuclei_of_maps_are_those_of_segment():
    _, foreground, distance = draw([(30, 25, 12), (30, 45, 12), (10, 70, 6)])
    maps = {"foreground": foreground[..., None] * 0.54, "distance": distance[..., None]}
    np.testing.assert_array_equal(label_nuclei(**maps), label_maps(maps))
    maps["foreground"] = maps["foreground"] / 0.54
    np.testing.assert_array_equal(label_nuclei(**maps), label_maps(maps))
    assert label_nuclei(**maps).max() == 3
