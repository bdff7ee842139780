"""Labelling tile by tile against labelling the whole image."""

import tracemalloc

import numpy as np
import pytest
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import disk

from keras_nuclei.stitching import label_tiled

label = skimage.measure.label


def assert_same_up_to_numbers(actual, expected):
    """Both label maps part the pixels in the same way, and `actual` is numbered without gaps."""
    assert actual.dtype == np.int32
    pairs = {*zip(actual.ravel().tolist(), expected.ravel().tolist(), strict=True)} | {(0, 0)}
    numbers, others = zip(*pairs, strict=True)
    assert sorted(numbers) == list(range(len(pairs)))
    assert sorted(others) == list(range(len(pairs)))


def draw_discs(height, width, diameter, seed):
    """Separate discs at most `diameter` pixels across, and their label map."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(height * width // diameter**2 + 1):
        centre = rng.uniform(0, (height, width))
        pixels = disk(centre, rng.uniform(0.5, diameter / 2), shape=mask.shape)
        near = disk(centre, diameter / 2 + 2, shape=mask.shape)
        if not mask[near].any():
            mask[pixels] = True
    return mask, label(mask)


@settings(max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    diameter=st.integers(1, 12),
    spare=st.integers(0, 9),
    step=st.integers(7, 60),
    grid=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_separate_discs_smaller_than_the_overlap(height, width, diameter, spare, step, grid, seed):
    mask, expected = draw_discs(height, width, diameter, seed)
    overlap = diameter + spare
    # A multiple of the grid, and so many pixels more, which are to be left unused.
    size = -(-(overlap + step) // grid) * grid + grid
    actual = label_tiled(mask, label, tile_size=size + step % grid, overlap=overlap, grid=grid)
    assert_same_up_to_numbers(actual, expected)


@pytest.mark.parametrize(("tile", "overlap", "grid"), [(40, 8, 8), (45, 8, 8), (45, 12, 1)])
def test_tiles_begin_at_multiples_of_the_grid(tile, overlap, grid):
    places, starts = np.indices((100, 73)), set()

    def note(part):
        starts.add((int(part[0, 0, 0]), int(part[0, 0, 1])))
        return np.zeros(part.shape[:2], int)

    label_tiled(np.moveaxis(places, 0, -1), note, tile_size=tile, overlap=overlap, grid=grid)
    assert len(starts) > 4
    assert all(start % grid == 0 for place in starts for start in place)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    density=st.floats(0.05, 0.4),
    overlap=st.integers(1, 12),
    step=st.integers(6, 40),
)
def test_pieces_of_any_shape_smaller_than_the_overlap(seed, density, overlap, step):
    # Bent and ringed pieces, whose centre need not lie in them.
    labels = label(np.random.default_rng(seed).random((50, 60)) < density)
    for region in skimage.measure.regionprops(labels):
        top, left, bottom, right = region.bbox
        if max(bottom - top, right - left) > overlap:
            labels[labels == region.label] = 0
    expected = label(labels > 0)
    actual = label_tiled(labels > 0, label, tile_size=overlap + step, overlap=overlap)
    assert_same_up_to_numbers(actual, expected)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    radius=st.integers(10, 60),
    overlap=st.integers(2, 10),
    step=st.integers(12, 30),
)
def test_convex_nuclei_larger_than_the_overlap_are_put_together(seed, radius, overlap, step):
    mask, expected = draw_discs(120, 130, 2 * radius, seed)
    actual = label_tiled(mask, label, tile_size=overlap + step, overlap=overlap)
    assert_same_up_to_numbers(actual, expected)


@given(seed=st.integers(0, 999), density=st.floats(0.3, 0.9), overlap=st.integers(0, 10))
def test_of_shapes_without_end_every_pixel_is_numbered_and_none_joined(seed, density, overlap):
    mask = np.random.default_rng(seed).random((60, 70)) < density
    expected = label(mask)
    actual = label_tiled(mask, label, tile_size=31, overlap=overlap)
    np.testing.assert_array_equal(actual > 0, mask)
    # Never two shapes under one number.
    assert len({*zip(actual[mask], expected[mask], strict=True)}) == actual.max()


def test_a_nucleus_is_taken_whole_from_the_tile_that_holds_its_middle():
    # Each tile numbers 10 columns by 10, counted from its own start, so that neither its pieces
    # nor its numbers are those of the next tile. Tiles: 0..40 and 24..64; cores meet at 32.
    def stripes(tile):
        return np.broadcast_to(7 + 3 * (np.arange(tile.shape[1]) // 10), tile.shape)

    actual = label_tiled(np.zeros((2, 64)), stripes, tile_size=40, overlap=16)
    # Of the first tile, 0..10, 10..20 and 20..30 have their middle left of 32; of the second,
    # 34..44 and so on. Its 24..34 is the first tile's business, and that has 20..30 there.
    # 30..40, of middle 35, is left to the second tile, which knows of no such nucleus.
    expected = np.repeat([1, 2, 3, 0, 4, 5, 6], [10, 10, 10, 4, 10, 10, 10])
    np.testing.assert_array_equal(actual, [expected] * 2)


def test_where_tiles_disagree_about_the_middle_the_nucleus_is_not_lost():
    # Tiles 0..12 and 8..20, cores meet at 10. The first sees 9..12, middle 10.5; the second 8..11,
    # middle 9.5: each would leave it to the other.
    def disagree(tile):
        labels = np.zeros(tile.shape, int)
        first = tile[0, 0] == 0
        labels[:, slice(9, 12) if first else slice(0, 3)] = 1
        return labels

    image = np.arange(20)[None]
    actual = label_tiled(image, disagree, tile_size=12, overlap=4)
    np.testing.assert_array_equal(actual[0], [0] * 8 + [1] * 3 + [0] * 9)


def test_pieces_that_more_than_half_agree_are_one_nucleus():
    # Rows of 20 pixels in tiles 0..12 and 8..20; longer than the overlap of 4, so both are drawn.
    def long_nucleus(left_end, right_start):
        def of_tile(tile):
            labels = np.zeros(tile.shape, int)
            first = tile[0, 0] == 0
            labels[:, slice(2, left_end) if first else slice(right_start - 8, 10)] = 1
            return labels

        return label_tiled(np.arange(20)[None], of_tile, tile_size=12, overlap=4)[0]

    agreed = long_nucleus(12, 9)  # they share 9..12, 3 of 4 pixels
    np.testing.assert_array_equal(agreed, [0] * 2 + [1] * 16 + [0] * 2)
    apart = long_nucleus(9, 9)  # 2..9 and 9..18 touch, but share nothing
    np.testing.assert_array_equal(apart, [0] * 2 + [1] * 7 + [2] * 9 + [0] * 2)


def test_a_memmap_is_filled_whatever_it_held(tmp_path):
    mask, expected = draw_discs(90, 100, 9, seed=1)
    out = np.memmap(tmp_path / "labels", "int32", "w+", shape=mask.shape)
    out[:] = 77
    assert label_tiled(mask, label, tile_size=30, overlap=10, out=out) is out
    out.flush()
    on_disk = np.fromfile(tmp_path / "labels", "int32").reshape(mask.shape)
    assert_same_up_to_numbers(on_disk, expected)


class Squares:
    """An image that exists only where it is read: squares of 20 pixels, 80 apart."""

    dtype = np.dtype(bool)

    def __init__(self, height, width):
        self.shape = (height, width)

    def __getitem__(self, window):
        y, x = (np.arange(*side.indices(n)) for side, n in zip(window, self.shape, strict=True))
        return (y[:, None] % 80 < 20) & (x % 80 < 20)


def test_memory_does_not_grow_with_the_image(tmp_path):
    def peak(side):
        out = np.memmap(tmp_path / str(side), "int32", "w+", shape=(side, side))
        tracemalloc.start()
        label_tiled(Squares(side, side), label, tile_size=320, overlap=32, out=out)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert out.max() == (side // 80) ** 2
        return memory

    peak(800)  # imports
    # 4 bytes a pixel of a row of tiles, while it is renumbered, and some for each nucleus.
    assert peak(2400) - peak(800) < 2 * 320 * 1600 * 4


def test_channels_go_to_the_function_and_numbers_may_be_high():
    image = np.zeros((20, 20, 2), "uint8")
    image[3:6, 8:12] = 1

    def label_high(tile):
        assert tile.shape[-1] == 2
        return label(tile[..., 0]).astype("int64") * 10**12

    actual = label_tiled(image, label_high, tile_size=10, overlap=5)
    np.testing.assert_array_equal(actual, image[..., 0])


def test_an_image_without_nuclei():
    assert not label_tiled(np.zeros((50, 3)), label, tile_size=10, overlap=5).any()


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda tile: tile > 0, TypeError, "bool.*skimage.measure.label"),
        (lambda tile: tile[1:].astype(int), ValueError, r"\(5, 5\) of 0 and above; got \(4, 5\)"),
        (lambda tile: tile.astype(int) - 1, ValueError, "lowest number -1"),
    ],
)
def test_functions_that_are_refused(returned, error, message):
    with pytest.raises(error, match=message):
        label_tiled(np.zeros((9, 9)), returned, tile_size=5, overlap=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": np.zeros(9)}, ValueError, r"\(H, W\) or \(H, W, C\)"),
        ({"tile_size": 8, "overlap": 8}, ValueError, r"0\.\.7, .*got overlap=8"),
        ({"tile_size": 8, "overlap": 5, "grid": 4}, ValueError, r"0\.\.4, .* multiples of 4"),
        ({"tile_size": 11, "overlap": 5, "grid": 4}, ValueError, r"0\.\.4, less than tile_size=8"),
        ({"grid": 0}, ValueError, "grid must be a whole number of pixels, at least 1; got 0"),
        ({"grid": 2.5}, ValueError, "grid must be a whole number of pixels, at least 1; got 2.5"),
        ({"out": np.zeros((9, 8), "int32")}, ValueError, r"\(9, 9\); got \(9, 8\)"),
        ({"out": np.zeros((9, 9), "uint16")}, TypeError, "got uint16"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        label_tiled(**{"image": np.zeros((9, 9)), "label": label, **arguments})
