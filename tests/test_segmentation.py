"""Images of every kind, from pixels to numbered nuclei, with the shipped weights."""

import pathlib

import keras
import numpy as np
import pytest
import skimage.transform
from scipy import ndimage

import keras_nuclei
from keras_nuclei import segmentation

SPACING = 48


@pytest.fixture(scope="module")
def model():
    return keras_nuclei.from_preset("nuclei_base")


def discs(rows=3, columns=4, radius=12, blur=1.5):
    """A grid of bright, slightly blurred discs, 0..1, and how many there are."""

    down, right = np.indices((rows * SPACING, columns * SPACING))
    centre = SPACING / 2
    apart = np.hypot(down % SPACING - centre, right % SPACING - centre)
    return ndimage.gaussian_filter((apart < radius).astype(float), blur), rows * columns


def kinds():
    picture, _ = discs()
    grey = np.round(40 + 150 * picture)
    colour = np.stack([20 + 0 * grey, 20 + 0 * grey, grey], axis=-1)
    return {
        "uint8": grey.astype("uint8"),
        "uint16": (grey * 200).astype("uint16"),
        "12 bits in 16": (grey * 16).astype("uint16"),
        "float": picture,
        "negative float": picture * 1e-3 - 5,
        "int32": grey.astype("int32"),
        "one channel": grey[..., None].astype("uint8"),
        "RGB": np.repeat(grey[..., None], 3, axis=-1).astype("uint8"),
        "RGBA": np.dstack([grey, grey, grey, np.full_like(grey, 255)]).astype("uint8"),
        "blue": colour.astype("uint8"),
        "inverted": (255 - grey).astype("uint8"),
        "stained": (255 - picture[..., None] * [90, 160, 60]).astype("uint8"),
    }


@pytest.mark.parametrize("kind", kinds())
def test_the_nuclei_of_any_kind_of_image_are_counted(model, kind):
    label_map = keras_nuclei.segment(kinds()[kind], model)
    assert label_map.dtype == np.int32
    assert label_map.shape == discs()[0].shape
    assert label_map.max() == discs()[1]


@pytest.mark.parametrize("name", keras_nuclei.PRESETS)
@pytest.mark.parametrize("kind", ["uint16", "inverted", "stained"])
def test_every_preset_counts_nuclei(name, kind):
    assert keras_nuclei.segment(kinds()[kind], name).max() == discs()[1]


def test_the_discs_found_are_the_discs_drawn(model):
    picture, count = discs()
    found = keras_nuclei.segment(picture, model, augmentations=4)
    drawn, _ = ndimage.label(picture > 0.5)
    match = keras_nuclei.matching.match(drawn, found)
    assert len(match.pairs) == count
    assert match.iou.min() > 0.75


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_what_is_above_the_threshold_is_nucleus(threshold):
    # A ramp of probability down a square: at a threshold t its rows above t are left.
    def model(batch):
        inside = np.zeros((*np.shape(batch)[:3], 1), "float32")
        inside[:, 100:200, 100:200] = np.linspace(1, 0.01, 100)[:, None, None]
        return {"foreground": inside, "distance": np.minimum(1, 2 * inside)}

    label_map = keras_nuclei.segment(
        np.zeros((256, 256)), model, scale=1, threshold=threshold, tile_size=256
    )
    rows = np.flatnonzero((label_map == 1).any(axis=1))
    expected = np.flatnonzero(np.linspace(1, 0.01, 100) > threshold) + 100
    assert label_map.max() == 1
    np.testing.assert_array_equal(rows, expected)


def test_a_threshold_of_ones_own_leaves_the_estimate_of_the_size_alone(model):
    picture, _ = discs()
    scale = segmentation.model_scale(segmentation.estimate_diameter(picture, model))
    narrow = keras_nuclei.segment(picture, model, threshold=0.9)
    np.testing.assert_array_equal(
        narrow, keras_nuclei.segment(picture, model, scale=scale, threshold=0.9)
    )
    assert (narrow > 0).sum() < (keras_nuclei.segment(picture, model) > 0).sum()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 3), (33, 65)])
@pytest.mark.parametrize("value", [0, 255])
def test_tiny_and_constant_images_hold_no_nuclei(model, size, value):
    label_map = keras_nuclei.segment(np.full(size, value, "uint8"), model)
    assert label_map.shape == size
    assert label_map.max() == 0


@pytest.mark.parametrize(
    ("augmentations", "symmetries", "sizes"),
    [(1, 1, [1]), (3, 1, [0.8, 1, 1.25]), (4, 4, [1]), (8, 8, [1]), (12, 4, [0.8, 1, 1.25])],
)
def test_maps_are_the_mean_over_flips_and_sizes(model, augmentations, symmetries, sizes):
    assert augmentations in segmentation.VIEWS
    image = np.repeat(255 * discs()[0][..., None], 3, axis=-1).astype("float32")
    height, width = image.shape[:2]
    found = segmentation.predict_maps(image, model, scale=1.5, augmentations=augmentations)
    by_scale = []
    for scale in np.multiply(1.5, sizes):
        seen = segmentation.resize(image, (round(scale * height), round(scale * width)))
        maps = keras_nuclei.predict_tiled(seen, model, augmentations=symmetries)
        by_scale.append({name: segmentation.resize(maps[name], (height, width)) for name in maps})
    for name, values in found.items():
        expected = np.mean([maps[name] for maps in by_scale], axis=0)
        np.testing.assert_allclose(values, expected, atol=1e-5)
        if len(sizes) > 1:
            assert np.abs(values - by_scale[1][name]).max() > 0.01, "sizes don't agree to that"


def test_large_nuclei_are_found_by_their_diameter_and_without_it(model):
    picture, count = discs()
    large = np.kron(picture, np.ones((6, 6)))  # 144 pixels across
    assert keras_nuclei.segment(large, model, diameter=144).max() == count
    assert keras_nuclei.segment(large, model, scale=1 / 4).max() == count
    assert keras_nuclei.segment(large, model).max() == count
    assert 100 < segmentation.estimate_diameter(large, model) < 200


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
        return segmentation.Look(0.0, 26.0, np.zeros(image.shape[:2], int))

    monkeypatch.setattr(segmentation, "look", look)
    caplog.set_level("INFO", "keras_nuclei")
    image = np.random.default_rng(0).integers(0, 255, (2500, 1100))
    assert segmentation.estimate_diameter(image, model) == 26
    assert seen == [((1024, 1024), 1), ((1024, 1024), 0.25)] * 3
    assert "No nuclei to estimate a diameter from" in caplog.text


@pytest.mark.parametrize(
    ("near", "far", "near_again", "far_again", "chosen"),
    [
        ((0.8, 20), (0.9, 150), 0.7, 0.8, 150),  # clearer from afar, and so again
        ((0.8, 20), (0.9, 150), 0.9, 0.8, 20),  # not so again: a clump
        ((0.8, 20), (0.8, 150), None, None, 20),  # as clear from near: nobody looks again
        ((0.8, 20), (0.9, 250), None, None, 20),  # larger than what is expected
        ((0.0, 26), (0.9, 250), 0.0, 0.9, 250),  # but where there is nothing else
        ((0.0, 26), (0.0, 26), None, None, 26),
    ],
)
def test_what_is_seen_from_afar_has_to_stay_clear(near, far, near_again, far_again, chosen):
    looks = [segmentation.Look(*each, np.zeros((1, 1), int)) for each in (near, far)]
    again = dict(zip((near[1], far[1]), (near_again, far_again), strict=True))

    def look_again(look):
        assert again[look.diameter] is not None
        return look._replace(clarity=again[look.diameter])

    assert segmentation.choose(*looks, look_again).diameter == chosen


def test_no_scale_is_looked_at_twice(monkeypatch):
    seen = []

    def look(image, *_, scale, **__):
        seen.append(scale)
        clarity, diameter = (0.9, 100.0) if scale == segmentation.FAR else (0.8, 30.0)
        return segmentation.Look(clarity, diameter, np.zeros(image.shape[:2], int))

    monkeypatch.setattr(segmentation, "look", look)
    assert segmentation.estimate_diameter(np.zeros((50, 60)), lambda batch: {}) == 30
    # Nuclei of 30 pixels are shown as they are, which has been seen; those of 100 at 50 pixels.
    assert seen == [1, segmentation.FAR, 0.5]


@pytest.mark.parametrize("image", ["nuclei.png", pathlib.Path("nuclei.png")])
def test_a_path_is_no_image(model, image):
    with pytest.raises(TypeError, match=r"read_image\(path\)"):
        keras_nuclei.segment(image, model)


def test_a_look_finds_size_and_place_at_any_scale(model):
    picture, count = discs(radius=14)
    image = np.repeat(255 * picture[..., None], 3, axis=-1)
    areas = np.bincount(ndimage.label(picture > 0.5)[0].ravel())[1:]
    for scale in (0.5, 1, 2):
        look = segmentation.look(image, model, scale=scale)
        assert look.label_map.max() == count
        assert look.diameter == pytest.approx(2 * np.sqrt(areas.mean() / np.pi), rel=0.15)
        assert 0.8 < look.clarity <= 1
    # From so far that a nucleus is a pixel there is nothing clear to be seen.
    assert segmentation.look(image, model, scale=1 / 28).clarity < 0.8


@pytest.mark.parametrize(
    ("areas", "diameter"),
    # By hand: the area at which half of the sum is reached, made a circle.
    [([9], 3.385), ([1, 1, 1, 1, 1, 100], 11.284), ([30, 20, 10], 5.046)],
)
def test_the_typical_diameter_by_hand(areas, diameter):
    assert segmentation.typical_diameter(np.array(areas)) == pytest.approx(diameter, abs=1e-3)


def test_an_image_in_tiles_gives_the_nuclei_of_the_whole(model, monkeypatch):
    picture, count = discs(8, 9)
    whole = keras_nuclei.segment(picture, model)
    monkeypatch.setattr(segmentation, "LARGEST_WHOLE", 256)
    tiled = keras_nuclei.segment(picture, model, tile_size=128)
    assert whole.max() == tiled.max() == count
    iou = keras_nuclei.matching.match(whole, tiled).iou
    assert len(iou) == count
    assert iou.min() > 0.9


@pytest.mark.parametrize(("scale", "largest"), [(0.5, 256), (2, 256), (4, 128), (8, 64)])
def test_no_more_is_seen_at_once_where_the_model_sees_it_enlarged(monkeypatch, scale, largest):
    sizes = []

    def predict_maps(image, *args, **options):
        sizes.append(image.shape[:2])
        empty = np.zeros((*image.shape[:2], 1), "float32")
        return {"foreground": empty, "distance": empty}

    monkeypatch.setattr(segmentation, "LARGEST_WHOLE", 256)
    monkeypatch.setattr(segmentation, "predict_maps", predict_maps)
    keras_nuclei.segment(np.zeros((300, 300)), own_model(3), scale=scale)
    assert max(sizes) == (largest, largest)
    assert max(sizes)[0] * scale <= 2 * 256


def test_nan_in_a_large_image_is_found_before_the_first_tile_and_said_where(monkeypatch):
    monkeypatch.setattr(segmentation, "LARGEST_WHOLE", 256)

    def model(batch):
        raise AssertionError("the model was asked")

    image = np.zeros((700, 300, 3), "float32")
    image[612, 7, 1] = np.inf
    with pytest.raises(ValueError, match="first seen in row 612, column 7"):
        keras_nuclei.segment(image, model, scale=1)


def test_the_result_can_go_to_an_array_on_disk(model, tmp_path):
    picture, count = discs()
    out = np.memmap(tmp_path / "labels", "int32", "w+", shape=picture.shape)
    assert keras_nuclei.segment(picture, model, out=out) is out
    assert out.max() == count


@pytest.mark.parametrize(
    ("diameter", "scale"), [(5, 2.0), (10, 2.0), (20, 1.3), (26, 1.0), (50, 1.0), (100, 0.5)]
)
def test_model_scale_by_hand(diameter, scale):
    assert segmentation.model_scale(diameter) == scale


@pytest.mark.parametrize(
    ("image", "arguments", "message"),
    [
        (np.zeros((4, 4)), {"diameter": 20, "scale": 1}, "either diameter or scale"),
        (np.zeros((4, 4)), {"diameter": 0}, "diameter must be a positive number; got 0"),
        (np.zeros((4, 4)), {"scale": float("nan")}, "scale must be a positive number; got nan"),
        (np.zeros((4, 4)), {"scale": 60}, "in 1/64..8; got 60.*in pixels is diameter"),
        (np.zeros((4, 4)), {"scale": 1e-6}, "in 1/64..8; got 1e-06"),
        (np.zeros((4, 4)), {"diameter": 1e6}, "at most 3200 pixels"),
        (np.zeros((4, 4)), {"out": np.zeros((4, 3), "int32")}, r"\(4, 4\); got \(4, 3\)"),
        (np.full((4, 4), np.nan), {}, "NaN"),
        (np.zeros((4, 4, 7)), {}, r"got \(4, 4, 7\)"),
        (np.zeros((0, 4)), {}, r"at least one pixel; got \(0, 4\)"),
        (np.zeros(5_000_000), {}, r"\(H, W\) or \(H, W, C\).*got \(5000000,\)"),
        (np.zeros((4, 4)), {"threshold": 1}, "threshold must be above 0 and below 1; got 1"),
        (np.zeros((4, 4)), {"threshold": float("nan")}, "threshold .* got nan"),
        (np.zeros((4, 4)), {"augmentations": 2}, "augmentations must be 1, 3, 4, 8 or 12; got 2"),
        (np.zeros((4, 4)), {"tile_size": 64}, "multiple of 32, at least 128; got 64"),
    ],
)
def test_bad_arguments(model, image, arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_nuclei.segment(image, model, **arguments)


@pytest.mark.parametrize("size", [(60, 90), (31, 45), (1, 1), (20, 30)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_the_model_sees_is_resized_as_scikit_image_does(rng, size, channels):
    values = ndimage.gaussian_filter(rng.random((30, 45, channels)), (3, 3, 0))
    resized = segmentation.resize(values, size)
    assert resized.shape == (*size, channels)
    assert resized.dtype == np.float32
    expected = skimage.transform.resize(values, size, order=1, anti_aliasing=size[0] < 30)
    # The two differ in how they average before shrinking, and beyond the outermost pixels.
    np.testing.assert_allclose(resized, expected, atol=0.02)


@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5)])
def test_numbers_may_be_those_of_numpy(model, number):
    assert keras_nuclei.segment(np.zeros((4, 4)), model, scale=number, threshold=number).max() == 0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("diameter", "12", "a number; got '12'"),
        ("scale", "large", "a number; got 'large'"),
        ("threshold", "0.5", "a number; got '0.5'"),
        ("augmentations", [1], r"a number; got \[1\]"),
        ("tile_size", 512.0, "a whole number of pixels; got 512.0"),
        ("tile_size", "512", "a whole number of pixels; got '512'"),
        ("out", [1], r"an array, such as a memory map; got \[1\]"),
    ],
)
def test_arguments_are_of_their_types(model, name, value, expected):
    with pytest.raises(TypeError, match=f"{name} must be {expected}"):
        keras_nuclei.segment(np.zeros((4, 4)), model, **{name: value})


def own_model(channels):
    """A model that takes bright for nucleus."""
    inputs = keras.Input((None, None, channels))
    bright = keras.ops.mean(inputs, axis=-1, keepdims=True) / 255
    return keras.Model(inputs, {"foreground": bright, "distance": bright})


def test_a_model_of_grey_images_is_shown_grey_ones():
    picture, count = discs()
    of_colour, of_grey = (
        keras_nuclei.segment(picture, own_model(channels), scale=1) for channels in (3, 1)
    )
    assert of_grey.max() == count
    np.testing.assert_array_equal(of_grey, of_colour)
    stored_in_colour = np.repeat(picture[..., None], 3, axis=-1)
    np.testing.assert_array_equal(
        keras_nuclei.segment(stored_in_colour, own_model(1), scale=1), of_grey
    )
    assert segmentation.estimate_diameter(picture, own_model(1)) > 0
    blue = np.stack([0 * picture, 0 * picture, picture], axis=-1)
    with pytest.raises(
        ValueError, match=r"takes grey images.*image\[\.\.\., channel\], or --channel"
    ):
        keras_nuclei.segment(blue, own_model(1), scale=1)


def test_what_can_be_told_of_a_model_beforehand_is_of_keras_models_alone():
    class Function:
        input_shape, output = (1, 3, 64, 64), "a layer of that name"

        def __call__(self, batch):
            return own_model(3).predict_on_batch(batch)

    class Subclass(keras.Model):
        def call(self, batch):
            return own_model(3)(batch)

    called = Subclass()
    called(keras.Input((None, None, 3)))  # now Keras knows of outputs, but not of their names
    picture, count = discs()
    for model in (Function(), called, Subclass()):
        assert keras_nuclei.segment(picture, model, scale=1).max() == count


def test_a_model_of_several_inputs_is_refused_before_it_is_run():
    inputs = [keras.Input((None, None, 3), name=name) for name in ("image", "other")]
    both = keras.ops.mean(keras.ops.add(*inputs), axis=-1, keepdims=True)
    model = keras.Model(inputs, {"foreground": both, "distance": both})
    with pytest.raises(ValueError, match="must have one input, the image; it has 2"):
        keras_nuclei.segment(np.zeros((4, 4)), model)


@pytest.mark.parametrize("model", [pathlib.Path("own.keras"), None])
def test_what_is_no_model(model):
    with pytest.raises(TypeError, match=r"got .*load_model\(path\)"):
        keras_nuclei.segment(np.zeros((4, 4)), model)


def test_a_head_of_several_channels_is_refused_before_it_is_run():
    model = keras_nuclei.unet(heads={"foreground": 2, "distance": 1}, encoder_depth=2)
    with pytest.raises(ValueError, match="head 'foreground' must have 1 channel; it has 2"):
        keras_nuclei.segment(np.zeros((4, 4)), model)


def test_a_model_of_other_images_is_refused_before_it_is_run():
    with pytest.raises(ValueError, match=r"takes images of 2 channels.*predict_tiled"):
        keras_nuclei.segment(np.zeros((4, 4)), own_model(2))


def test_a_preset_that_does_not_exist():
    with pytest.raises(ValueError, match=r"no preset 'nuclei_huge'.*nuclei_base"):
        keras_nuclei.segment(np.zeros((4, 4)), "nuclei_huge")


def test_a_model_with_other_outputs_says_which_are_needed():
    inputs = keras.Input((None, None, 3))
    mask = keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs)
    for outputs, found in ((mask, "outputs without names"), ({"mask": mask}, r"\['mask'\]")):
        with pytest.raises(ValueError, match=f"heads 'foreground' and 'distance'.*{found}"):
            keras_nuclei.segment(np.zeros((4, 4)), keras.Model(inputs, outputs))
