"""How presets are trained: crops, looks, targets against slow twins, and a run on drawn images."""

import dataclasses
import json
import re
import time

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import keras_nuclei
from benchmarks import (
    augmentation,
    diameters,
    evaluate_presets,
    inference,
    model_cards,
    nuclei,
    package,
    pipeline,
    presets,
    recipes,
    report,
    runs,
    separation,
    sizes,
    targets,
    tile_sizes,
)
from keras_nuclei import images, instances, matching, runtimes
from keras_nuclei.diameters import LARGEST_DIAMETER, model_scale
from keras_nuclei.maps import predict_maps, resize, scaled_size
from keras_nuclei.presets import PRESETS
from tests.test_instances import draw

TWO_TOUCHING, _, _ = draw([(20, 20, 9), (20, 36, 9), (50, 60, 6)])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 12), width=st.integers(1, 12))
def test_what_is_drawn_of_an_image_is_the_part_with_most_nuclei(seed, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    window = mask[evaluate_presets.crowded_window(mask, 4)]
    assert window.shape == (min(height, 4), min(width, 4))
    tops, lefts = range(max(1, height - 3)), range(max(1, width - 3))
    most = max(mask[top : top + 4, left : left + 4].sum() for top in tops for left in lefts)
    assert window.sum() == most


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([16, 64, 100]))
def test_a_crop_depends_on_its_seed_alone_and_keeps_image_and_labels_together(seed, size):
    # An image that shows its label map: whatever is done to one must be done to the other.
    image = np.repeat((TWO_TOUCHING[..., None] * 80).astype("uint8"), 3, axis=-1)
    first, second = (
        augmentation.random_crop(image, TWO_TOUCHING, 18, size, np.random.default_rng(seed))
        for _ in range(2)
    )
    for crop, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(crop, again)
    crop, labels = first
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.float32
    numbers = np.unique(labels[labels > 0])
    pieces = [ndimage.label(labels == number, np.ones((3, 3)))[1] for number in numbers]
    assert pieces == [1] * len(numbers), "a nucleus and its reflection are two"
    # Away from the nuclei's rims, where one is interpolated and the other is not, and from the
    # crop's, beyond which nobody sees.
    inside = ndimage.grey_erosion(labels, 7) == ndimage.grey_dilation(labels, 7)
    inside[:4] = inside[-4:] = inside[:, :4] = inside[:, -4:] = False
    for number in np.unique(labels[inside]):
        values = crop[inside & (labels == number)][:, 0]
        assert np.ptp(values) <= 1
        assert min(abs(values[0] - 80 * each) for each in ((0,) if number == 0 else (1, 2, 3))) <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_crowding_lays_just_the_nuclei_that_hide_little(seed):
    generator = np.random.default_rng(seed)
    below, above = (
        draw([(*generator.integers(4, 60, 2), generator.integers(3, 12)) for _ in range(6)])[0]
        for _ in range(2)
    )
    dark, bright = np.full((*below.shape, 3), 50, "float32"), np.full((*below.shape, 3), 250, "f")
    image, labels = augmentation.crowd(dark, below, bright, above)

    laid = np.zeros(below.shape, bool)
    for number in np.unique(above[above > 0]):
        member = above == number
        others = [below == other for other in np.unique(below[below > 0])]
        if all(max(member[other].mean(), other[member].mean()) < 0.3 for other in others):
            laid |= member
    np.testing.assert_array_equal(labels > 0, laid | (below > 0))
    # In the middle of nuclei, where the opacity's soft rim does not reach.
    assert (image[ndimage.binary_erosion(laid, iterations=5)] > 249).all()
    assert (image[~ndimage.binary_dilation(laid, iterations=5)] < 51).all()
    for number in np.unique(labels[labels > 0]):
        piece = labels == number
        assert ndimage.label(piece, np.ones((3, 3)))[1] == 1
        assert len(np.unique(above[piece] * laid[piece])) == 1, "no piece above and below at once"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), coloured=st.booleans())
def test_a_look_is_an_image_of_the_same_size_and_range(seed, coloured):
    generator = np.random.default_rng(seed)
    image = generator.uniform(0, 255, (20, 30, 3 if coloured else 1)).astype("float32")
    image = np.broadcast_to(image, (20, 30, 3)).astype("float32")
    look = augmentation.random_look(image, generator)
    assert look.shape == image.shape
    assert look.dtype == np.float32
    assert look.min() >= 0
    assert look.max() <= 255


def test_targets_equal_their_definition_pixel_by_pixel():
    maps = targets.draw(TWO_TOUCHING * 7, tuple(targets.CHANNELS))
    padded = np.pad(TWO_TOUCHING, 1, mode="edge")
    for number in (1, 2, 3):
        member = number == TWO_TOUCHING
        rows, columns = np.nonzero(member)
        centroid = rows.mean(), columns.mean()
        rim = {
            (row, column)
            for row, column in zip(rows, columns, strict=True)
            if {
                padded[row, column + 1],
                padded[row + 2, column + 1],
                padded[row + 1, column],
                padded[row + 1, column + 2],
            }
            != {number}
        }
        depths = {
            (row, column): 1 + min(np.hypot(row - r, column - c) for r, c in rim)
            for row, column in zip(rows, columns, strict=True)
        }
        for (row, column), depth in depths.items():
            assert maps["foreground"][row, column] == 1
            assert maps["boundary"][row, column] == ((row, column) in rim)
            # OpenCV's distance, a chamfer of 5x5, is off by up to 3 %.
            expected = depth / max(depths.values())
            assert maps["distance"][row, column, 0] == pytest.approx(expected, abs=0.04)
            offset = np.array(centroid) - (row, column)
            direction = offset / max(1, np.hypot(*offset))
            np.testing.assert_allclose(maps["flow"][row, column], 0.5 + direction / 2, atol=1e-6)
            diameter = 2 * np.sqrt(len(rows) / np.pi)
            bell = np.exp(-0.5 * (offset @ offset) / (0.2 * diameter) ** 2)
            assert maps["centre"][row, column, 0] == pytest.approx(bell, abs=1e-6)
    background = TWO_TOUCHING == 0
    for name in ("foreground", "boundary", "distance", "centre"):
        assert not maps[name][background].any()
    assert (maps["flow"][background] == 0.5).all()


def test_targets_of_an_image_without_nuclei():
    maps = targets.draw(np.zeros((4, 6), int), tuple(targets.CHANNELS))
    assert {name: values.shape for name, values in maps.items()} == {
        name: (4, 6, channels) for name, channels in targets.CHANNELS.items()
    }
    assert maps["distance"].max() == 0


@pytest.mark.parametrize("method", separation.METHODS)
def test_every_method_separates_perfect_maps(method):
    apart, _, _ = draw([(20, 20, 9), (20, 50, 9), (50, 60, 7)])
    label_map = apart if method == "foreground alone" else TWO_TOUCHING
    maps = targets.draw(label_map, separation.METHODS[method].heads)  # and needs no others
    first = {name: values[0] for name, values in separation.METHODS[method].settings.items()}
    found = separation.label(maps, 1.0, method, **first)
    match = matching.match(label_map, found)
    assert len(match.predicted_numbers) == 3
    assert sorted(match.iou)[-3] > 0.8


def test_the_steps_of_a_file_add_up_and_its_label_map_is_written(tmp_path):
    image = np.where(TWO_TOUCHING > 0, 200, 20).astype("uint8")
    PIL.Image.fromarray(image).save(tmp_path / "image.png")
    model = inference.as_function(runtimes.fastest("nuclei_base"))
    started = time.perf_counter()
    seconds = inference.steps(tmp_path / "image.png", model, tmp_path / "labels.tif")
    elapsed = time.perf_counter() - started
    assert set(seconds) == {*inference.STEPS}
    assert min(seconds.values()) > 0
    assert sum(seconds.values()) < elapsed
    assert inference.time_group([tmp_path / "image.png"] * 2, model)["floor"] > 0
    expected = keras_nuclei.segment(image, model)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), expected)


def test_what_is_compared_is_timed_in_turns_and_the_shortest_round_counts():
    times, order = {"a": [3.0, 1.0, 2.0], "b": [5.0, 7.0, 6.0]}, []

    def measure(name):
        order.append(name)
        return {"seconds": times[name][order.count(name) - 1], "size": 9}

    found = inference.in_turns(measure, {name: name for name in times}, rounds=3)
    assert found == {"a": {"seconds": 1.0, "size": 9}, "b": {"seconds": 5.0, "size": 9}}
    assert order == ["a", "b"] * 3


def test_the_cost_of_separation_is_of_as_many_nuclei_as_are_drawn(tmp_path):
    by_pixels, by_nuclei = (
        list(inference.measure_separation(drawn, rounds=1).values())
        for drawn in ([(120, 40), (240, 40)], [(240, 60), (240, 40)])
    )
    assert [each["nuclei"] for each in by_pixels] == [3**2, 6**2]
    assert [each["nuclei"] for each in by_nuclei] == [4**2, 6**2]
    group = {"images_per_second": 2.0, "pixels": 9, "seconds": {"floor": 0.1}}
    groups = {str(size): group for size in inference.SIZES}
    separation = {"by_pixels": by_pixels, "by_nuclei": by_nuclei}
    inference.draw({"presets": {"one": groups}, "separation": separation}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_magnified_images_keep_their_nuclei(monkeypatch):
    image = np.repeat((TWO_TOUCHING[..., None] > 0).astype("uint8") * 200, 3, axis=-1)
    whole = nuclei.NucleiImage("a" * 64, image, TWO_TOUCHING, "fluorescence", 0, 18.0)
    once = diameters.magnify(whole, 1)
    np.testing.assert_array_equal(once.image, image)
    np.testing.assert_array_equal(once.label_map, TWO_TOUCHING)
    for factor in (0.5, 2, 4):
        view = diameters.magnify(whole, factor)
        assert view.image.shape == (factor * image.shape[0], factor * image.shape[1], 3)
        assert view.diameter == factor * once.diameter
        assert np.mean(view.image > 100) == pytest.approx(np.mean(image > 100), abs=0.02)
        # Labels lie where the nuclei do, and stay apart.
        assert np.mean((view.label_map > 0) != (view.image[..., 0] > 100)) < 0.02
        assert set(np.unique(view.label_map)) == set(np.unique(TWO_TOUCHING))
    monkeypatch.setattr(diameters, "LARGEST", 40)
    assert diameters.magnify(whole, 2).image.shape == (40, 40, 3)
    empty = dataclasses.replace(whole, label_map=np.zeros_like(TWO_TOUCHING))
    assert diameters.magnify(empty, 2).diameter == 0


@pytest.mark.parametrize(
    ("diameter", "expected"),
    [
        (100.0, {0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7}),  # 30 / 100 and so on
        (16.0, {1.25, 1.625, 2.0}),  # 20 / 16, 26 / 16, 32 / 16
        (5.0, {2.0}),  # nothing is gained by more
        (30.0, {1.0, 1.066667}),  # 32 / 30
    ],
)
def test_nuclei_are_shown_at_each_of_the_sizes(diameter, expected, monkeypatch):
    seen = []

    def watch(image, model, *, scale):
        seen.append(round(scale, 6))
        return predict_maps(image, model, scale=scale)

    def model(batch):
        true = (batch[..., :1] > 100).astype("float32")
        return {"foreground": true, "distance": true}

    monkeypatch.setattr(sizes, "predict_maps", watch)
    label_map = np.zeros((128, 128), int)
    label_map[32:96, 32:96] = 1
    image = np.repeat(label_map[..., None] * 200.0, 3, axis=-1)
    found = sizes.compare(diameters.View(image, label_map, diameter), model)
    assert len(found) == len(sizes.LIMITS)
    assert len(seen) == len(expected)  # once each
    assert set(seen) == expected
    assert all(match.iou.max() > 0.85 for match in found.values())


def row(number, modality, field, size=64):
    return nuclei.NucleiImage(
        f"{number:064x}", np.zeros((size, size, 3), "uint8"), np.zeros((size, size), int),
        modality, field, 20.0,
    )  # fmt: skip


@pytest.mark.parametrize("reach", [1, 300])
def test_tiles_differ_from_the_whole_as_far_as_a_model_sees_beyond_them(reach, rng, monkeypatch):
    def model(batch):  # the brightness around a pixel, up to a distance
        mean = ndimage.uniform_filter1d(batch[..., :1], reach, axis=2, mode="constant")
        return {"foreground": (mean > 0.05).astype("float32"), "distance": mean}

    monkeypatch.setattr(tile_sizes, "TILES", ((128, 32), (512, 64)))
    image = (rng.random((100, 500, 1)) > 0.9).astype("float32") * np.ones(3, "float32")
    small, large = tile_sizes.compare({"tissue": [image]}, model)
    assert (small["different"]["tissue"] > 0) == (reach > 1)
    assert large["different"]["tissue"] == 0  # one tile
    # Five tiles of 128x128 by hand, for 100x500 pixels; one of 128x512.
    assert (small["pixels_seen"], large["pixels_seen"]) == (5 * 128**2 / 5e4, 128 * 512 / 5e4)


def test_chances_give_each_modality_its_share_and_large_and_rare_images_more():
    rows = [row(0, "fluorescence", 0), row(1, "fluorescence", 1, 128), row(2, "histology", 2)]
    shares = {"fluorescence": 0.6, "histology": 0.3, "brightfield": 0.1}
    # By hand: 0.6 is shared 64 to 128, and 0.9 is all there is.
    expected = [0.2 / 0.9, 0.4 / 0.9, 0.3 / 0.9]
    np.testing.assert_allclose(presets.chances(rows, shares, rarity=0.4), expected)
    # Four images of the first kind: with 1/2 each weighs 64 / 2, with 1 all of them one image's 64.
    rows += [row(number, "fluorescence", number) for number in (3, 4, 5)]
    for rarity, weight in ((0, 64), (0.5, 32), (1, 16)):
        chances = presets.chances(rows, shares, rarity)
        assert chances[0] / chances[1] == pytest.approx(weight / 128)
        assert chances[2] == pytest.approx(0.3 / 0.9)


def test_pink_tissue_is_a_kind_of_its_own():
    purple, pink = (
        dataclasses.replace(row(0, "histology", 0), image=np.full((64, 64, 3), colour, "uint8"))
        for colour in ((200, 170, 245), (226, 121, 215))
    )
    assert presets.kind(purple) != presets.kind(pink)
    assert presets.kind(purple) == presets.kind(dataclasses.replace(purple, field_of_view=7))
    assert presets.kind(purple) != presets.kind(row(0, "histology", 0, size=32))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 70), width=st.integers(1, 70))
def test_a_counterstain_only_absorbs(seed, height, width):
    density, again = (
        augmentation.counterstain((height, width), np.random.default_rng(seed)) for _ in range(2)
    )
    np.testing.assert_array_equal(density, again)
    assert density.shape == (height, width, 3)
    assert density.dtype == np.float32
    assert density.min() >= 0
    # One dye: the three colours are absorbed in the same proportions everywhere.
    proportions = density.reshape(-1, 3) / density.sum(axis=-1).reshape(-1, 1)
    np.testing.assert_allclose(proportions, proportions[:1].repeat(len(proportions), 0), atol=1e-4)


def test_the_second_dye_is_pink():
    dyes = [
        augmentation.counterstain((4, 4), np.random.default_rng(seed)).mean(axis=(0, 1))
        for seed in range(200)
    ]
    # What absorbs green most is pink.
    assert np.mean(np.argmax(dyes, axis=-1) == 1) > 0.95


def test_a_counterstain_has_patches():
    densities = [
        augmentation.counterstain((64, 64), np.random.default_rng(seed)).mean(axis=-1)
        for seed in range(20)
    ]
    contrasts = [density.std() / density.mean() for density in densities]
    assert np.median(contrasts) > 0.1
    assert np.ptp([density.mean() for density in densities]) > 0.05


def test_uneven_brightness_changes_each_nucleus_by_a_factor_of_its_own():
    image = np.full((*TWO_TOUCHING.shape, 3), 20, "float32")
    image[TWO_TOUCHING > 0] = 120
    factors = []
    for seed in range(40):
        uneven = augmentation.vary_brightness(image, TWO_TOUCHING, np.random.default_rng(seed))
        far = ~ndimage.binary_dilation(TWO_TOUCHING > 0, iterations=5)
        np.testing.assert_allclose(uneven[far], 20, atol=1e-3)
        for number in (1, 2, 3):
            # In the middle, where no neighbour's factor is blurred in.
            middle = ndimage.binary_erosion(number == TWO_TOUCHING, iterations=4)
            assert np.ptp(uneven[middle]) < 2
            factors.append((uneven[middle].mean() - 20) / 100)
    assert 0.25 <= min(factors) < 0.35
    assert 1.05 < max(factors) <= 1.2
    empty = np.zeros_like(TWO_TOUCHING)
    np.testing.assert_array_equal(
        augmentation.vary_brightness(image, empty, np.random.default_rng(0)), image
    )
    full = np.ones_like(TWO_TOUCHING)
    np.testing.assert_array_equal(
        augmentation.vary_brightness(image, full, np.random.default_rng(0)), image
    )


def test_most_crops_show_nuclei_about_as_large_as_segment_does():
    # By `augmentation.SHOWN` 13 pixels across are shown twice as large, 100 at 0.6 of their size.
    for diameter, shown in ((13, 2), (40, 1), (100, 0.6)):
        generator = np.random.default_rng(0)
        scales = np.array([augmentation._scale(diameter, generator) for _ in range(2000)])
        near = (scales > 0.69 * shown) & (scales < 1.46 * shown)
        assert 0.6 < near.mean() < 0.95
        # One in four shows nuclei of 10 to 70 pixels, evenly by the logarithm: half below 26.
        assert np.mean(scales * diameter < 0.6 * shown * diameter) > 0.01
        assert scales.min() >= 0.25
        assert scales.max() <= 4


def orientations(image):
    """The image in all turns by quarters, and mirrored."""
    turned = [np.rot90(image, turns) for turns in range(4)]
    return turned + [image[:, ::-1] for image in turned]


def test_crops_show_small_nuclei_as_segment_does_and_large_ones_no_smaller():
    assert [augmentation.shown_scale(each) for each in (5, 20, 50, 60, 120)] == [2, 1.3, 1, 1, 0.5]
    for diameter in (5, 13, 26, 50):
        assert augmentation.shown_scale(diameter) == model_scale(diameter)
    assert augmentation.SHOWN[1] >= LARGEST_DIAMETER  # one view, or the middle size


@pytest.mark.parametrize("diameter", [13, 40, 140])
def test_a_plain_crop_is_a_part_of_the_image_as_it_is_resized_to_be_shown(diameter, monkeypatch):
    # Both are resized as `segment` does it, by a scale that is known here.
    scale = augmentation.shown_scale(diameter)
    monkeypatch.setattr(augmentation, "shown_scale", lambda wanted: scale)
    image = np.random.default_rng(1).integers(0, 256, (48, 60, 3)).astype("uint8")
    shown = resize(image, scaled_size(image.shape[:2], scale))
    windows = np.lib.stride_tricks.sliding_window_view(shown, (16, 16), axis=(0, 1))
    windows = np.moveaxis(windows, 2, -1)
    seen = set()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        crop, _ = augmentation.plain_crop(image, image[..., 0] // 200, diameter, 16, generator)
        assert crop.dtype == np.float32
        differences = [np.abs(windows - each).max((2, 3, 4)).min() for each in orientations(crop)]
        assert min(differences) == 0
        seen.add(int(np.argmin(differences)))
    assert len(seen) >= 6, "nearly all of the eight turns and mirrorings are drawn"


@pytest.mark.parametrize("diameter", [13, 40, 140])
def test_labels_of_a_plain_crop_lie_on_its_nuclei(diameter):
    # Where a disc's label ends its resized image is about half as bright as in the middle.
    rows, columns = np.mgrid[:240, :300]
    label_map = np.zeros(rows.shape, "int32")
    for number, (y, x) in enumerate([(60, 70), (60, 190), (170, 110), (180, 230)], start=1):
        label_map[(rows - y) ** 2 + (columns - x) ** 2 < 30**2] = number
    image = np.repeat((label_map[..., None] > 0) * np.uint8(200), 3, -1)
    for seed in range(8):
        generator = np.random.default_rng(seed)
        crop, labels = augmentation.plain_crop(image, label_map, diameter, 64, generator)
        assert labels.any()
        assert np.mean((labels > 0) != (crop[..., 0] > 100)) < 0.02
        centres = (ndimage.center_of_mass(each > 0) for each in (labels, crop[..., 0] > 100))
        np.testing.assert_allclose(*centres, atol=0.3)


def test_a_plain_crop_takes_the_estimate_for_a_tenth_off(monkeypatch):
    asked = []
    monkeypatch.setattr(augmentation, "shown_scale", lambda diameter: asked.append(diameter) or 1.0)
    image = np.zeros((32, 32, 3), "uint8")
    for seed in range(300):
        generator = np.random.default_rng(seed)
        augmentation.plain_crop(image, image[..., 0].astype(int), 50, 16, generator)
    logarithms = np.log(np.divide(asked, 50))
    assert abs(logarithms.mean()) < 0.02
    assert 0.09 < logarithms.std() < 0.11


def test_an_image_that_is_too_small_is_reflected():
    image = np.arange(30, dtype="uint8").reshape(5, 6, 1).repeat(3, -1)
    labels = np.pad(np.ones((3, 4), int), 1)
    crop, drawn = augmentation.plain_crop(image, labels, 40, 12, np.random.default_rng(0))
    assert crop.shape == (12, 12, 3)
    assert set(np.unique(crop)) == set(range(30))
    assert drawn.max() > 1, "a nucleus and its reflection are two"


@pytest.mark.parametrize("scale", [0.3, 0.5, 1.5])
def test_a_scaled_image_stays_on_its_labels(scale, monkeypatch):
    monkeypatch.setattr(augmentation, "_scale", lambda diameter, generator: scale)
    rows, columns = np.mgrid[:401, :401]
    label_map = ((rows - 200) ** 2 + (columns - 200) ** 2 < (25 / scale) ** 2).astype(int)
    image = np.repeat((label_map[..., None] * 200).astype("uint8"), 3, -1)
    monkeypatch.setattr(augmentation, "_centre", lambda *_: np.array([200.0, 200.0]))
    for seed in range(8):
        generator = np.random.default_rng(seed)
        crop, labels = augmentation.random_crop(image, label_map, 20, 100, generator)
        centres = (ndimage.center_of_mass(each) for each in (labels > 0, crop[..., 0]))
        np.testing.assert_allclose(*centres, atol=0.1)


def test_plain_crops_look_as_the_image_does():
    image = np.where(TWO_TOUCHING[..., None] > 0, 200, 30).astype("uint8").repeat(3, -1)
    row = nuclei.NucleiImage("0", image, TWO_TOUCHING, "fluorescence", 0, 40.0)

    def plain(share):
        recipe = presets.Recipe(
            epochs=1, crop_size=32, steps_per_epoch=20, plain=share, plain_at_first=share
        )
        crops = presets.Crops([row], np.ones(1), recipe, epoch=0, seed=0)
        images = [crops[index][0] for index in range(len(crops))]
        return np.mean([np.isin(each, (30, 200)).all() for each in np.concatenate(images)])

    assert plain(1.0) == 1
    assert 0.35 < plain(0.5) < 0.65
    assert plain(0.0) < 0.1


def test_splits_keep_what_they_hold_back():
    rows = [row(number, "fluorescence", number // 4) for number in range(200)]
    tested = dataclasses.replace(rows[7], image_id=nuclei.STARDIST_TEST[0] + "f" * 56)
    rows[7] = tested
    rows[100] = dataclasses.replace(rows[100], modality="histology")
    assert len(nuclei.STARDIST_TEST) == 50
    assert len(nuclei.training_ids(rows, "all")) == 200
    assert len(nuclei.training_ids(rows, "random")) == 144
    fields = {each.image_id: each.field_of_view for each in rows}
    chosen = nuclei.training_ids(rows, "grouped")
    assert not {fields[each] for each in chosen} & {
        field for each, field in fields.items() if each not in chosen
    }
    for split in ("random", "grouped"):
        chosen_on = {each.image_id for each in nuclei.validation_rows(rows, split)}
        assert 30 < len(chosen_on) < 60
        assert not chosen_on & (nuclei.training_ids(rows, split) | {tested.image_id})
    expected = {each.image_id for each in rows} - {tested.image_id, rows[100].image_id}
    assert nuclei.training_ids(rows, "stardist") == expected
    unseen = expected - {rows[number].image_id for number in (4, 5, 6)}
    assert nuclei.training_ids(rows, "stardist_unseen") == unseen


def test_plain_crops_become_more_from_epoch_to_epoch():
    recipe = presets.Recipe(epochs=5, plain_at_first=0.2, plain=0.6)
    assert [recipe.plain_in(epoch) for epoch in range(5)] == pytest.approx(
        [0.2, 0.3, 0.4, 0.5, 0.6]
    )
    assert presets.Recipe(epochs=1, plain_at_first=0.2, plain=0.6).plain_in(0) == 0.2


def test_a_split_of_fluorescence_alone_takes_its_share_of_the_epochs():
    whole = presets.recipe_of("nuclei_base", "random")
    assert whole == presets.RECIPES["nuclei_base"]
    part = presets.recipe_of("nuclei_base", "stardist")
    assert part == dataclasses.replace(whole, epochs=46)  # 0.58 of 80
    further = presets.recipe_of("nuclei_base", "stardist", further=True)
    assert (further.epochs, further.learning_rate) == (26, 1e-3)  # 0.58 of 45


@pytest.mark.parametrize("preset", PRESETS)
def test_other_heads_than_the_presets_help_to_learn_at_first(preset):
    assert presets.recipe_of(preset, "random").heads == tuple(targets.CHANNELS)
    further = presets.recipe_of(preset, "random", further=True)
    assert further.heads == tuple(PRESETS[preset].architecture["heads"])


# Of 64 pixels that are 0.5 where no nucleus is, by hand: the cross-entropy is log 2; the Dice loss,
# smoothed by one pixel, is 1 - 1 / (32 + 1), and the recipe says how much of each is taken.
@pytest.mark.parametrize(
    ("share", "expected"),
    [(1, np.log(2)), (0.5, (np.log(2) + 32 / 33) / 2), (0.75, (3 * np.log(2) + 32 / 33) / 4)],
)
def test_the_foreground_is_learned_by_what_the_recipe_says(share, expected):
    recipe = presets.Recipe(epochs=1, crossentropy_weight=share, foreground_weight=3.0)
    model = presets.build(PRESETS["nuclei_base"].architecture, recipe)
    outputs = {name: np.full((1, 8, 8, n), 0.5, "f") for name, n in targets.CHANNELS.items()}
    true = {**outputs, "foreground": np.zeros((1, 8, 8, 1), "f")}
    # Of the four other heads, the cross-entropy of 0.5 is log 2 whatever is true.
    loss = model.compute_loss(y=true, y_pred=outputs)
    assert float(loss) == pytest.approx(4 * np.log(2) + 3 * expected, rel=1e-5)


@pytest.fixture
def tiny(monkeypatch):
    recipe = presets.Recipe(epochs=2, crop_size=32, batch_size=2, steps_per_epoch=2)
    monkeypatch.setitem(presets.RECIPES, "nuclei_base", recipe)
    monkeypatch.setitem(presets.FURTHER_EPOCHS, "nuclei_base", 2)


def train(output, *more):
    command = ["--preset", "nuclei_base", "--data", "synthetic", "--output", str(output), *more]
    return presets.main(command)


def check_that_the_threshold_is_chosen_on_validation_images(run, monkeypatch):
    def predict(row, model):  # right by 0.65 on validation images, by 0.4 on all others
        inside, around = (0.9, 0.62) if row.image_id in chosen_on else (0.5, 0.1)
        maps = targets.draw(row.label_map, ("foreground", "distance"))
        maps["foreground"] = np.where(maps["foreground"] > 0, inside, around)
        return evaluate_presets.Predicted(1.0, {12: maps, 1: maps})

    settings = json.loads((run / "train.json").read_text())
    chosen_on = {row.image_id for row in evaluate_presets.held_back(settings, None)["validation"]}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_presets, "predict", predict)
        result = json.loads(evaluate_presets.main([str(run)]).read_text())
    assert result["threshold"] == 0.65
    assert [trial["accuracy"] == 1 for trial in result["threshold_trials"]] == [
        trial["threshold"] > 0.62 for trial in result["threshold_trials"]
    ]
    validation, test = (result["scores"][part]["all"] for part in ("validation", "test"))
    assert validation["accuracy"] == 1
    assert test["accuracy"] == test["accuracy_of_nothing"] < 1
    # By 0.55, all of each validation image is nucleus.
    for name in ("scores_by_default_threshold", "scores_of_one_view"):
        by_default = result[name]["validation"]["all"]
        assert by_default["accuracy"] == pytest.approx(1 - validation["accuracy_of_nothing"])


def test_of_thresholds_that_are_equally_right_the_nearest_to_segments_is_taken():
    trials = [
        {"threshold": threshold, "accuracy": accuracy}
        for threshold, accuracy in ((0.4, 0.9), (0.6, 0.9), (0.65, 0.9), (0.7, 0.8))
    ]
    assert evaluate_presets.best_threshold(trials) == 0.6


def test_a_run_is_resumed_scored_and_packaged(tiny, tmp_path, monkeypatch, capsys):
    run = train(tmp_path / "whole")

    class PowerCutError(Exception):
        pass

    real = runs.checkpoint

    def cut(folder, model, history):
        real(folder, model, history)
        if len(history) == 1:
            raise PowerCutError

    monkeypatch.setattr(runs, "checkpoint", cut)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut")
    resumed = train(tmp_path / "cut")
    histories = [
        json.loads((each / "train.json").read_text())["history"] for each in (run, resumed)
    ]
    assert [len(history) for history in histories] == [2, 2]
    losses = [[each["loss"] for each in history] for history in histories]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert "is trained already" not in capsys.readouterr().out
    train(tmp_path / "cut")
    assert "is trained already" in capsys.readouterr().out

    result = json.loads(evaluate_presets.main([str(run)]).read_text())
    assert result["scores"]["official_test"]["all"]["images"] == 16
    assert (run / "masks.png").stat().st_size > 10_000

    def find(row, predicted, augmentations, threshold):  # by twelve views all, by one nothing
        assert threshold == instances.THRESHOLD, "no validation images to choose another by"
        label_map = row.label_map * (augmentations == 12)
        match = matching.match(row.label_map, label_map)
        return evaluate_presets.Found((label_map > 0).astype("float32"), label_map, match)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_presets, "find", find)
        result = json.loads(evaluate_presets.main([str(run)]).read_text())
    by_views = [result[views]["official_test"]["all"] for views in ("scores", "scores_of_one_view")]
    assert [each["dice"] for each in by_views] == [1, 0]
    assert [each["dsb_per_image"] for each in by_views] == [1, 0]
    settings = json.loads((run / "train.json").read_text())
    assert settings["command"].endswith("--split all")
    (run / "train.json").write_text(json.dumps({**settings, "split": "random"}))
    check_that_the_threshold_is_chosen_on_validation_images(run, monkeypatch)
    trials = json.loads(diameters.main([str(run)]).read_text())["trials"]
    tried = [(trial["margin"], trial["larger"]) for trial in trials]
    assert tried == [(m, each) for m in diameters.MARGINS for each in diameters.LARGER]
    assert all(0 <= trial["right"]["all"] <= 1 for trial in trials)
    trials = json.loads(sizes.main([str(run)]).read_text())["trials"]
    assert len(trials) == len(sizes.LIMITS)
    rows = nuclei.validation_rows_of({**settings, "split": "random"}, None)
    counts = {"all": len(rows), "magnified": len(diameters.one_of_each_field(rows))}
    for trial in trials:
        assert {group: trial["scores"][group]["images"] for group in counts} == counts
    (run / "train.json").write_text(json.dumps(settings))

    monkeypatch.setattr(package, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(SystemExit):
        package.main([str(run)])
    assert "not a run on all of DSB2018" in capsys.readouterr().err
    (run / "train.json").write_text(json.dumps({**settings, "data": "dsb2018"}))
    packed = package.main([str(run)])
    with pytest.raises(SystemExit):
        package.main([str(run)])
    assert "pass --overwrite" in capsys.readouterr().err
    assert packed == tmp_path / "weights" / PRESETS["nuclei_base"].file
    trained = keras.models.load_model(run / "model.keras", compile=False)
    with np.load(packed) as arrays:
        kernel = arrays["foreground/convolution/kernel"]
        assert kernel.dtype == np.float16
        np.testing.assert_array_equal(
            kernel, trained.get_layer("foreground").convolution.kernel.numpy().astype("float16")
        )
        assert not [name for name in arrays.files if name.startswith("flow")]


def watch_adoption(monkeypatch):
    """A dict that gets the weights that a training begins with, by path."""
    adopt, started = presets.adopt, {}

    def watch(model, trained):
        adopt(model, trained)
        started.update({variable.path: variable.numpy() for variable in model.variables})

    monkeypatch.setattr(presets, "adopt", watch)
    return started


def test_packaged_weights_are_trained_on(tiny, tmp_path, monkeypatch):
    packaged = keras_nuclei.from_preset("nuclei_base")
    started = watch_adoption(monkeypatch)
    run = train(tmp_path, "--from_package")
    for variable in packaged.variables:
        np.testing.assert_array_equal(started[variable.path], variable.numpy())
    settings = json.loads((run / "train.json").read_text())
    assert settings["continues"]["sha256"] == PRESETS["nuclei_base"].sha256
    stages = runs.training_stages(settings)
    published = presets.packaged_training("nuclei_base")["history"]
    assert [len(stage["history"]) for stage in stages][-2:] == [len(published), 2]
    with pytest.raises(SystemExit, match=r"--split random holds back"):
        train(tmp_path, "--from_package", "--split", "random")


def test_a_run_is_trained_on_by_one_of_the_same_split_alone(tiny, tmp_path, monkeypatch, capsys):
    first = train(tmp_path / "first", "--split", "random")
    started, crops, drawn = watch_adoption(monkeypatch), presets.Crops, []
    monkeypatch.setattr(presets, "Crops", lambda *scene: drawn.append(scene[-1]) or crops(*scene))
    run = train(tmp_path, "--split", "random", "--from_run", str(first))
    trained = keras.models.load_model(first / "model.keras", compile=False)
    # Nothing that the preset has begins anew; what only helped to learn it is gone.
    assert set(started) < {variable.path for variable in trained.variables}
    for variable in trained.variables:
        if variable.path in started:
            np.testing.assert_array_equal(started[variable.path], variable.numpy())
    model = keras.models.load_model(run / "model.keras", compile=False)
    assert set(model.output) == set(PRESETS["nuclei_base"].architecture["heads"])
    settings = json.loads((run / "train.json").read_text())
    assert settings["recipe"]["learning_rate"] == presets.FURTHER_LEARNING_RATE
    assert settings["command"].endswith("--from_run runs/first/nuclei_base-random-synthetic")
    history = json.loads((first / "train.json").read_text())["history"]
    assert settings["continues"]["history"] == history
    # Nor does it draw the crops anew that the run has seen.
    assert drawn == [1, 1]  # by both epochs
    assert (json.loads((first / "train.json").read_text())["seed"], settings["seed"]) == (0, 1)
    later = model_cards.later(runs.training_stages(settings))
    assert "From the start: 25% of the crops were crowded" in later
    assert "From the start: 0% at first and 80% at last of the crops were not changed" in later
    assert "After 4 steps: of the crops, 40% at first and 80% at last were not changed." in later
    assert "After 4 steps: what was learned were the heads `foreground`, `distance`." in later
    assert "After 4 steps: the learning rate was up to 0.001." in later

    for arguments, message in (
        (["--split", "grouped", "--from_run", first], r"can't be .* grouped: it may know images"),
        (["--split", "random", "--from_run", tmp_path], "holds no finished run"),
        (["--split", "all", "--from_run", first], "pass --from_package"),
        (["--split", "random", "--from_run", run, "--overwrite"], "another folder as --output"),
        (
            ["--split", "random", "--from_run", first, "--encoder", "efficientnet_lite1"],
            r"as the network .*lite2.* trained on as .*lite1.* the --encoder that it was trained",
        ),
    ):
        with pytest.raises(SystemExit, match=message):
            train(tmp_path, *map(str, arguments))
    assert (run / "model.keras").exists()
    with pytest.raises(SystemExit):
        separation.main([str(run), "--methods", "distance", "flow"])
    assert "has no heads ['flow']. Pass a run from ImageNet weights, or " in (
        error := capsys.readouterr().err
    )
    assert error.endswith("--methods of: 'foreground alone', 'distance'\n")


def test_another_encoder_and_length_are_tried_and_not_packaged(tiny, tmp_path, capsys):
    trial = ("--split", "all", "--encoder", "efficientnet_lite1", "--epochs", "1")
    run = train(tmp_path, *trial)
    settings = json.loads((run / "train.json").read_text())
    assert settings["command"].endswith(" ".join(trial))
    assert settings["architecture"]["encoder"] == "efficientnet_lite1"
    assert (len(settings["history"]), settings["recipe"]["epochs"]) == (1, 1)
    architecture = json.loads(json.dumps(PRESETS["nuclei_base"].architecture))
    for more, part in (({}, "architecture"), ({"architecture": architecture}, "recipe")):
        (run / "train.json").write_text(json.dumps({**settings, "data": "dsb2018", **more}))
        with pytest.raises(SystemExit):
            package.main([str(run)])
        assert f"is a trial: its {part} is" in capsys.readouterr().err
    # It lies beside a run of the preset, which it must not be taken for.
    assert run.name == "nuclei_base-all_efficientnet_lite1_1_epochs-synthetic"

    for arguments, message in (
        (["--epochs", "0"], "--epochs must be at least 1; got 0"),
        (["--encoder", "plain"], "argument --encoder: invalid choice: 'plain'"),
        (["--from_package", "--encoder", "efficientnet_lite1"], "are of one encoder"),
    ):
        with pytest.raises(SystemExit):
            train(tmp_path, *arguments)
        assert message in capsys.readouterr().err


def test_the_trial_of_recipes_learns_nothing_of_what_it_is_judged_by(tiny, tmp_path, monkeypatch):
    learn, learned = presets.learn, []

    def watch(run, rows, architecture, recipe):
        learned.append((rows, recipe))
        return learn(run, rows, architecture, recipe)

    def held_back(row):
        return row.modality == "histology" and row.field_of_view % 2 == 0

    monkeypatch.setattr(presets, "learn", watch)
    monkeypatch.setattr(recipes, "on_clear_ground", held_back)
    command = ["--data", "synthetic", "--epochs", "1", "--output", str(tmp_path)]
    result = json.loads(recipes.main(command).read_text())
    assert list(result["variants"]) == list(recipes.VARIANTS)
    rows = nuclei.load(pipeline.DATA_SETS["synthetic"], "train")
    ids = nuclei.training_ids(rows, "grouped")
    unknown = [row.image_id for row in rows if row.image_id in ids and held_back(row)]
    assert unknown
    for (known, recipe), (name, told) in zip(learned, result["variants"].items(), strict=True):
        assert {row.image_id for row in known} == ids - set(unknown)
        assert recipe.crossentropy_weight == recipes.VARIANTS[name]["crossentropy_weight"]
        assert told["recipe"]["crossentropy_weight"] == recipe.crossentropy_weight
        assert len(told["history"]) == recipe.epochs == 1
        counts = {
            part: {scores["all"]["images"] for scores in by_threshold.values()}
            for part, by_threshold in told["scores"].items()
        }
        assert counts == {
            "validation": {len(nuclei.validation_rows(rows, "grouped"))},
            "unknown stain": {len(unknown)},
        }
    # Begun again, it goes on, which here is to do nothing.
    monkeypatch.setattr(presets, "learn", None)
    assert json.loads(recipes.main(command).read_text()) == result


def test_images_are_scored_as_users_have_them():
    held_back = evaluate_presets.held_back({"data": "synthetic", "split": "random"}, None)
    builder = tfds.builder(pipeline.DATA_SETS["synthetic"])
    stored = {each["image_id"].decode(): each["image"] for each in builder.as_data_source("train")}
    for row in held_back["test"]:
        np.testing.assert_array_equal(row.image, stored[row.image_id])
    # Of so few levels, rounding the stretched contrast would show.
    faint = dataclasses.replace(held_back["test"][0], image=held_back["test"][0].image // 8 + 30)
    model = runtimes.fastest("nuclei_small")
    predicted = evaluate_presets.predict(faint, model, views=(1,))
    expected = predict_maps(images.normalize(faint.image), model, scale=predicted.scale)
    np.testing.assert_array_equal(predicted.maps[1]["foreground"], expected["foreground"])
    found = evaluate_presets.find(faint, predicted, 1, instances.THRESHOLD)
    np.testing.assert_array_equal(found.label_map, keras_nuclei.segment(faint.image, model))
    assert found.label_map.max() > 0


@pytest.mark.parametrize(
    ("ground", "modality", "is_clear"),
    [
        ((235, 233, 239), "histology", True),
        ((210, 182, 251), "histology", False),  # lilac
        ((238, 159, 227), "histology", False),  # pink
        ((200, 200, 200), "brightfield", False),
    ],
)
def test_a_clear_ground_is_hardly_more_blue_than_green(ground, modality, is_clear):
    image = np.full((20, 20, 3), ground, "uint8")
    image[:10] = (90, 40, 150)  # nuclei on half of it
    shown = dataclasses.replace(row(0, modality, 0), image=image)
    assert recipes.on_clear_ground(shown) == is_clear


def test_a_card_tells_what_came_when_and_how_to_do_it_again():
    # Some settings at once, others one after the other, in another order than the texts.
    def stage(**recipe):
        common = {"epochs": 2, "steps_per_epoch": 5, "heads": ["foreground"], "learning_rate": 1}
        return {"command": "train", "recipe": {**common, **recipe}}

    stages = [stage(), stage(rarity=0.4, uneven=0.3), stage(rarity=0.4, uneven=0.3, crowded=0.2)]
    lines = [line for line in model_cards.later(stages).splitlines() if line.startswith("-")]
    assert [line.split(":")[0] for line in lines] == ["- After 10 steps", "- After 20 steps"]
    assert lines[1].startswith("- After 20 steps: 20% of the crops were crowded")
    assert model_cards.later(stages[:1]) == ""
    assert model_cards.dropped(stages, {"foreground": 1}) == ""
    others = model_cards.dropped([*stages, stage(heads=["flow", "foreground"])], {"foreground": 1})
    assert others == "The heads `flow` were learned beside and left behind.\n"

    # Weights are loaded, and their scores are published, before they are trained on.
    lines = model_cards.commands("runs/a", stages[:2])
    commands = [re.sub(r"python -m benchmarks\.(\w+) .*", r"\1", line) for line in lines]
    published = ["evaluate_presets", "evaluate_presets", "report"]
    assert commands[:2] == ["train", "package"]
    assert commands[2].startswith("# write the SHA-256")
    assert commands[3:] == [*published, "train --overwrite", "package"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_card_tells_how_its_preset_is_trained(name):
    card = (package.WEIGHTS / PRESETS[name].card).read_text()
    (lines,) = re.findall(r"^```bash\n(.*?)^```$", card, flags=re.M | re.S)
    assert lines.splitlines() == [
        f"python -m benchmarks.presets --preset {name} --split all",
        f"python -m benchmarks.package runs/{name}-all --overwrite",
    ]


def test_trainings_are_marked_by_the_recipe_that_they_are_of():
    def training(recipe, **more):
        return {"preset": "nuclei_base", "split": "random", "recipe": recipe, **more}

    def as_json(**changes):
        further = bool(changes.pop("further", False))
        recipe = presets.recipe_of("nuclei_base", "random", further=further)
        return json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(recipe, **changes))))

    today, before = as_json(), as_json(crossentropy_weight=1.0)
    earliest = {key: value for key, value in before.items() if key != "crossentropy_weight"}
    assert report.recipe_mark(training(today)) == ""
    assert report.recipe_mark(training(before)) == "*"
    assert report.recipe_mark(training(as_json(rarity=0.3))) == "*"
    assert report.recipe_mark(training(earliest)) == "*"
    network = PRESETS["nuclei_base"].architecture
    for other, mark in (({}, ""), ({"encoder": "efficientnet_lite1"}, "*")):
        architecture = runs.as_json({**network, **other})
        assert report.recipe_mark(training(today, architecture=architecture)) == mark
    # So it was told before there was a number.
    for name, mark in (("binary_crossentropy", "*"), ("binary_crossentropy_dice", "")):
        assert report.recipe_mark(training({**earliest, "foreground_loss": name})) == mark
    further = as_json(further=True)
    for first, mark in ((today, ""), (before, "†")):
        assert report.recipe_mark(training(further, continues=training(first))) == mark


@pytest.mark.parametrize("mark", ["", *report.MARKS])
def test_the_table_of_presets_explains_the_marks_in_it(mark, monkeypatch):
    monkeypatch.setattr(report, "recipe_mark", lambda result: mark)
    table = report.presets_table()
    explained = [each for each, meaning in report.MARKS.items() if meaning in table]
    assert explained == ([mark] if mark else [])


@pytest.mark.parametrize("is_packed", [False, True])
def test_scores_and_picture_of_what_ships_are_published(is_packed, tmp_path, monkeypatch):
    results, run = tmp_path / "results", tmp_path / "run"
    monkeypatch.setattr(report, "RESULTS", results)
    for folder in (results, run):
        folder.mkdir()
    for suffix in ("", "-packed")[: 1 + is_packed]:
        (run / f"evaluation{suffix}.json").write_text(json.dumps({"data": "dsb2018", "of": suffix}))
        (run / f"masks{suffix}.png").write_text(suffix)
    report.publish(run, overwrite=False)
    published = json.loads((results / "run.json").read_text())
    assert published["of"] == (results / "run.png").read_text() == "-packed" * is_packed
    assert (results / "run-single.json").exists() == is_packed


def test_weights_of_another_model_are_not_adopted():
    plain = keras_nuclei.encoders.plain
    model = keras_nuclei.unet(plain(filters=(2, 2)), decoder_filters=(2,))
    trained = keras_nuclei.unet(plain(filters=(2, 2, 2)), decoder_filters=(2, 2))
    with pytest.raises(ValueError, match=r"has layers that .* lacks"):
        presets.adopt(model, trained)
