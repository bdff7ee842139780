"""Tiled prediction against prediction of the whole image; its memory; what it refuses."""

import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import keras_nuclei
from keras_nuclei.tiles import Tiles
from keras_nuclei.tiling import predict_tiled


class Drawn:
    """An image that exists only where it is read: pixel (y, x) is (y + x) % 256."""

    dtype = np.dtype("uint8")

    def __init__(self, height, width):
        self.shape = (height, width, 1)

    def __getitem__(self, window):
        y, x = (np.arange(*side.indices(n)) for side, n in zip(window, self.shape, strict=False))
        return ((y[:, None, None] + x[:, None]) % 256).astype("uint8")


class Shredder:
    """An output of any size that keeps nothing but the sum of what is written to it."""

    dtype = np.dtype("float32")

    def __init__(self, height, width):
        self.shape = (height, width, 1)
        self.sum = 0.0

    def __setitem__(self, window, band):
        self.sum += float(band.sum(dtype="float64"))


def convolutions(*, halvings=0):
    """A small network that sees (`halvings`: 0) 3 or (1) 6 pixels far."""
    inputs = keras.Input((None, None, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh", bias_initializer="normal")(
        inputs
    )
    if halvings:
        x = keras.layers.MaxPooling2D()(x)
        x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
        x = keras.layers.UpSampling2D()(x)
    x = keras.layers.Conv2D(3, 5, padding="same", bias_initializer="normal")(x)
    return keras.Model(inputs, x)


def whole(image, model):
    """Prediction of the whole image, extended by reflection to multiples of 32."""
    height, width, _ = image.shape
    padded = np.pad(image, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="reflect")
    return model.predict_on_batch(padded[None].astype("float32"))[0, :height, :width]


def identity(batch):
    return batch


@pytest.mark.parametrize("halvings", [0, 1])
def test_no_seam_where_the_model_sees_at_most_a_quarter_of_the_overlap(halvings, rng):
    model = convolutions(halvings=halvings)
    for size in ((160, 224), (150, 97), (33, 31), (1, 1)):
        image = rng.random((*size, 2))
        tiled = predict_tiled(image, model, tile_size=96, overlap=32 if halvings else 12)
        assert tiled.dtype == np.float32
        np.testing.assert_allclose(tiled, whole(image, model), atol=1e-5)


def test_where_it_sees_farther_the_blend_is_smooth_and_close(rng):
    # The mean over 21 pixels sees 10 far; a quarter of the overlap is 4.
    def blur(batch):
        return ndimage.uniform_filter(batch, (0, 21, 21, 0), mode="constant")

    image = rng.random((128, 320, 1)).astype("float32")
    expected = blur(image[None])[0]
    tiled = predict_tiled(image, blur, tile_size=64, overlap=16)
    cut = predict_tiled(image, blur, tile_size=64, overlap=0)
    assert np.abs(tiled - expected).max() < 0.5 * np.abs(cut - expected).max()


@settings(max_examples=40)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile_size=st.integers(7, 70),
    overlap=st.none() | st.integers(0, 35),
    batch_size=st.integers(1, 7),
    augmentations=st.sampled_from([1, 4, 8]),
)
def test_a_model_that_does_nothing_returns_the_image(
    height, width, tile_size, overlap, batch_size, augmentations
):
    # Not more than half a tile: one step a pixel would make thousands of tiles.
    if overlap is not None:
        overlap = min(overlap, tile_size - np.gcd(tile_size, 32), tile_size // 2)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 2), dtype="uint8")
    shapes = []

    def record(batch):
        shapes.append(batch.shape)
        return batch

    tiled = predict_tiled(
        image,
        record,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        augmentations=augmentations,
    )
    np.testing.assert_allclose(tiled, image, rtol=3e-6)
    # One shape, and that turned; never more tiles than asked for.
    assert len({(n, *sorted(sides)) for n, *sides, _ in shapes}) == 1
    assert all(n <= batch_size and max(h, w) <= tile_size for n, h, w, _ in shapes)


@given(
    length=st.integers(1, 500),
    units=st.integers(1, 8),
    grid=st.sampled_from([1, 4, 32]),
    data=st.data(),
)
def test_tiles_cover_and_overlap_and_their_weights_sum_to_one(length, units, grid, data):
    tile = units * grid
    overlap = data.draw(st.integers(0, tile - grid))
    tiles = Tiles.cover(length, tile, overlap, grid)
    assert tiles.starts[0] == 0
    assert length <= tiles.end < max(length, tile - grid + 1) + grid
    assert all(start % grid == 0 for start in tiles.starts)
    assert all(0 < step <= tile - overlap for step in np.diff(tiles.starts))
    total, margin = np.zeros(tiles.end), overlap // 4
    for index, (start, weights) in enumerate(zip(tiles.starts, tiles.weights(), strict=True)):
        total[start : start + tile] += weights
        assert index == 0 or np.all(weights[:margin] == 0)
        assert np.all(weights >= 0)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(length=st.integers(1, 500), largest=st.integers(2, 90), data=st.data())
def test_even_tiles_are_as_few_as_can_be_and_no_larger_than_that_takes(length, largest, data):
    overlap = data.draw(st.integers(0, largest - 1))
    tiles = Tiles.cover_evenly(length, largest, overlap)
    assert tiles.tile <= min(largest, length)
    assert tiles.starts[0] == 0
    assert tiles.end >= length
    assert all(0 < step <= tiles.tile - overlap for step in np.diff(tiles.starts))
    assert len(tiles.starts) == len(Tiles.cover(length, min(largest, length), overlap).starts)
    if tiles.tile - 1 > overlap:
        assert len(Tiles.cover(length, tiles.tile - 1, overlap).starts) > len(tiles.starts)


@given(
    length=st.integers(1, 700),
    tile=st.integers(1, 8).map(lambda steps: 32 * steps),
    overlap=st.integers(0, 100),
)
def test_tiles_are_as_few_as_can_be_and_then_as_small(length, tile, overlap):
    overlap = min(overlap, tile - 32)
    batches = []

    def model(batch):
        batches.append(batch.shape)
        return batch

    image = np.zeros((length, 1, 1), "uint8")
    keras_nuclei.predict_tiled(image, model, tile_size=tile, overlap=overlap, batch_size=10**6)
    ((count, height, *_),) = batches
    # By trying: the number of tiles that each size on the grid needs.
    numbers = {
        size: len(Tiles.cover(length, size, overlap, 32).starts)
        for size in range(32, tile + 1, 32)
        if size >= min(overlap + 32, length)
    }
    assert count == numbers[tile]
    assert height == min(size for size, number in numbers.items() if number == count)


def test_hand_weights():
    # 8 shared pixels: 2 of weight 0, then sin² at 1/8, 3/8, 5/8, 7/8 of 90 degrees.
    first, last = Tiles.cover(length=24, tile=16, overlap=8).weights()
    rise = [0, 0, 0.0380602, 0.3086583, 0.6913417, 0.9619398, 1, 1]
    np.testing.assert_allclose(last, [*rise, *[1] * 8], atol=1e-6)
    np.testing.assert_allclose(first, last[::-1], atol=1e-6)


@pytest.mark.parametrize(("augmentations", "distinct"), [(1, 1), (4, 4), (8, 8)])
def test_augmentations_are_the_symmetries_of_the_square(augmentations, distinct, rng):
    image = rng.random((32, 32, 1)).astype("float32")
    seen = []

    def shift(batch):  # not symmetric: each pixel takes its right neighbour's value
        seen.append(batch[0, :, :, 0].copy())
        return np.roll(batch, -1, axis=2)

    tiled = predict_tiled(image, shift, augmentations=augmentations)
    assert len({turned.tobytes() for turned in seen}) == distinct
    # Flips mirror the direction of the shift; quarter turns turn it.
    shifts = {1: [(-1, 1)], 4: [(-1, 1), (1, 1)], 8: [(-1, 1), (1, 1), (-1, 0), (1, 0)]}
    expected = np.mean([np.roll(image, *shift) for shift in shifts[augmentations]], axis=0)
    np.testing.assert_allclose(tiled, expected, atol=1e-6)


def test_several_heads_memmaps_and_half_precision(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 1), dtype="uint8")
    out = {
        "mask": np.memmap(tmp_path / "mask", "float32", "w+", shape=(70, 50, 1)),
        "distance": np.memmap(tmp_path / "distance", "float16", "w+", shape=(70, 50, 2)),
    }

    def two_heads(batch):
        return {"mask": batch, "distance": np.concatenate([batch, -batch], axis=-1)}

    returned = predict_tiled(image, two_heads, tile_size=32, overlap=0, out=out)
    assert returned is out
    out["mask"].flush()
    on_disk = np.memmap(tmp_path / "mask", "float32", "r", shape=(70, 50, 1))
    np.testing.assert_allclose(on_disk, image, atol=1e-4)
    np.testing.assert_array_equal(out["distance"][..., 1], -image[..., 0].astype("float16"))
    # A functional model with a dict of outputs, too.
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, {"a": inputs * 2, "b": inputs + 1})
    heads = predict_tiled(image, model, tile_size=64, overlap=16)
    np.testing.assert_allclose(heads["a"], image * 2.0, atol=1e-4)
    np.testing.assert_allclose(heads["b"], image + 1.0, atol=1e-4)


@pytest.mark.parametrize("tile", [(48, 40), (64, 64), (32, 32), (256, 32)])
def test_a_model_of_one_size_decides_the_tiles(tile, rng):
    model = keras.Sequential([keras.Input((*tile, 1)), keras.layers.Rescaling(2.0)])
    for size in ((100, 90), tile, (7, 3)):
        image = rng.random((*size, 1))
        np.testing.assert_allclose(predict_tiled(image, model), 2 * image, rtol=1e-5)


@pytest.mark.parametrize(("tile", "overlap"), [(512, 128), (96, 48), (64, 32), (48, 24), (32, 0)])
def test_tiles_overlap_by_128_pixels_or_half_a_tile_where_the_grid_lets_them(tile, overlap, rng):
    image = rng.random((700, 40, 1))

    def blur(batch):  # farther than the margin of a tile that counts for nothing: its end shows
        return ndimage.uniform_filter(batch, (0, 129, 1, 0))

    usual = predict_tiled(image, blur, tile_size=tile)
    np.testing.assert_array_equal(
        usual, predict_tiled(image, blur, tile_size=tile, overlap=overlap)
    )
    apart = predict_tiled(image, blur, tile_size=tile, overlap=0)
    assert (np.abs(usual - apart).max() > 0.001) == (overlap > 0)


@pytest.mark.parametrize("tile", [2048, 1024, 512, 256, 128])
def test_a_batch_has_about_a_million_pixels_however_small_its_tiles(tile):
    sizes = []

    def model(batch):
        sizes.append(batch.size)
        return batch

    predict_tiled(np.zeros((2000, 2000, 1)), model, tile_size=tile)
    assert 2**19 < sizes[0] <= max(2**20, tile**2)


def test_a_model_of_narrow_tiles_overlaps_as_usual_along_its_long_side(rng):
    blur = keras.layers.AveragePooling2D((33, 1), strides=1, padding="same")
    model = keras.Sequential([keras.Input((256, 32, 1)), blur])
    image = rng.random((700, 32, 1)).astype("float32")
    # It sees 16 pixels far, the margin that counts for nothing: there is no seam. The last rows
    # differ since the last tile sees the image reflected below them.
    whole = keras.ops.convert_to_numpy(blur(image[None]))[0]
    np.testing.assert_allclose(predict_tiled(image, model)[:680], whole[:680], atol=1e-6)


def test_a_u_net_of_any_encoder(rng):
    model = keras_nuclei.unet(decoder_filters=(4, 4, 4, 4))
    image = rng.integers(0, 256, (70, 130, 3), dtype="uint8")
    probabilities = predict_tiled(image, model, tile_size=64, overlap=32)
    assert probabilities.shape == (70, 130, 1)
    assert np.all((probabilities > 0) & (probabilities < 1))


def peak_memory(height, width):
    image, out = Drawn(height, width), Shredder(height, width)
    tracemalloc.start()
    predict_tiled(image, identity, tile_size=256, overlap=32, batch_size=4, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    y, x = np.ogrid[:height, :width]
    assert out.sum == pytest.approx(int(((y + x) % 256).sum()), rel=1e-6)
    return peak


def test_memory_does_not_grow_with_the_height_of_the_image():
    small, tall, wide = peak_memory(1000, 1000), peak_memory(3000, 1000), peak_memory(3000, 3000)
    assert tall < 1.05 * small
    # Three copies of a row of tiles at most: 256 rows of 4 bytes and 2000 columns more.
    assert wide - small < 3 * 256 * 4 * 2000
    assert wide < 3000 * 3000 * 4 / 4


def test_progress_goes_to_stderr(capsys):
    predict_tiled(np.zeros((70, 70, 1)), identity, tile_size=32, overlap=0, progress=True)
    captured = capsys.readouterr()
    assert "9/9" in captured.err
    assert captured.out == ""
    predict_tiled(np.zeros((70, 70, 1)), identity)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([[0]], TypeError, "numpy.asarray"),
        (np.zeros((4, 4)), ValueError, r"image\[\.\.\., None\]"),
        (np.zeros((1, 4, 4, 1)), ValueError, "image by image"),
        (np.zeros((0, 4, 1)), ValueError, "at least one pixel"),
        (
            np.full((40, 40, 1), np.nan),
            ValueError,
            "NaN or infinity, first seen in row 0, column 0",
        ),
        (np.zeros((4, 4, 1), complex), TypeError, "real numbers; its dtype is complex128"),
    ],
)
def test_images_that_are_refused(image, error, message):
    with pytest.raises(error, match=message):
        predict_tiled(image, identity)


def test_the_place_of_a_nan_is_told():
    image = np.zeros((100, 100, 1))
    image[70, 90] = np.inf
    with pytest.raises(ValueError, match="row 70, column 90"):
        predict_tiled(image, identity, tile_size=64, overlap=16)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            lambda batch: batch[:, ::2],
            ValueError,
            r"\(1, 32, 32, 'classes'\); got \(1, 16, 32, 1\)",
        ),
        (lambda batch: batch[..., 0], ValueError, "channel axis"),
        (lambda batch: [batch, batch], TypeError, "got list.*must return a dict"),
        (lambda batch: {"a": batch, "b": batch[:, :1]}, ValueError, "output 'b'"),
        (lambda batch: batch * np.nan, ValueError, "diverged"),
        ("nuclei_small", TypeError, "got 'nuclei_small'.*from_preset"),
        (
            keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(1)]),
            ValueError,
            r"3 channels; the image has 1",
        ),
    ],
)
def test_models_that_are_refused(model, error, message):
    with pytest.raises(error, match=message):
        predict_tiled(np.zeros((32, 32, 1)), model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tile_size": 0}, ValueError, "tile_size must be at least 1"),
        (
            {"tile_size": 64, "overlap": 33},
            ValueError,
            r"overlap must be in 0\.\.32, less than tile_size=64, .* of 32; got overlap=33",
        ),
        ({"overlap": -1}, ValueError, "got overlap=-1"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"augmentations": 2}, ValueError, "1, 4 or 8; got 2"),
        ({"out": np.zeros((4, 4, 2))}, ValueError, r"Expected.*\(4, 4, 1\).*got.*\(4, 4, 2\)"),
        ({"out": {"mask": np.zeros((4, 4, 1))}}, ValueError, "'mask'"),
        ({"out": np.zeros((4, 4, 1), "uint8")}, TypeError, "got uint8"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        predict_tiled(np.zeros((4, 4, 1)), identity, **arguments)
