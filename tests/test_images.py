"""Files of every kind that microscopes and editors write, and the contrast that models see."""

import struct
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from keras_nuclei import images
from keras_nuclei.images import contrast_limits, contrast_sample, normalize, read_image, read_pages

GREY8 = np.arange(48, dtype="uint8").reshape(6, 8) * 5
RGB8 = np.stack([GREY8, 255 - GREY8, GREY8 // 2], axis=-1)
GREY16 = np.arange(48, dtype="uint16").reshape(6, 8) * 1300
RGB16 = np.stack([GREY16, 65535 - GREY16, GREY16 // 2], axis=-1)
ALPHA8 = np.full((6, 8, 1), 128, "uint8")
ALPHA16 = np.full((6, 8, 1), 30000, "uint16")


def same(read, expected):
    assert read.dtype == expected.dtype
    np.testing.assert_array_equal(read, expected, strict=True)


# Reading: PNG, JPEG, BMP


@pytest.mark.parametrize("image", [GREY8, GREY16, RGB8, GREY8 > 99], ids=["8", "16", "rgb", "1"])
def test_png_that_pillow_writes(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.png")
    same(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (RGB16, RGB16),
        (np.concatenate([RGB16, ALPHA16], -1), RGB16),
        (np.concatenate([GREY16[..., None], ALPHA16], -1), GREY16),
        (np.concatenate([RGB8, ALPHA8], -1), RGB8),
        (np.concatenate([GREY8[..., None], ALPHA8], -1), GREY8),
    ],
    ids=["rgb16", "rgba16", "grey-alpha16", "rgba8", "grey-alpha8"],
)
def test_png_keeps_its_depth_and_loses_alpha(samples, expected, tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
    same(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palettes_become_colours(suffix, transparency, tmp_path):
    if suffix == "bmp" or (suffix == "gif" and isinstance(transparency, bytes)):
        transparency = None
    colours = np.array([[255, 0, 0], [0, 10, 0], [1, 2, 3]], "uint8")
    indices = np.array([[0, 1, 2], [2, 1, 0]], "uint8")
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    extra = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / f"a.{suffix}", **extra)
    same(read_image(tmp_path / f"a.{suffix}"), colours[indices])


def test_the_orientation_that_a_camera_noted_is_applied(tmp_path):
    upright = np.zeros((32, 48, 3), "uint8")
    upright[:16, :16] = 255  # one bright corner, top left
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    lying = np.rot90(upright)
    Image.fromarray(lying).save(tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == (32, 48, 3)
    np.testing.assert_allclose(read.astype(int), upright, atol=3)


@pytest.mark.parametrize("image", [GREY8, RGB8], ids=["grey", "rgb"])
def test_bmp(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.bmp")
    same(read_image(tmp_path / "a.bmp"), image)


def test_jpeg_in_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    same(read_image(tmp_path / "a.jpg"), np.full((8, 8, 3), 255, "uint8"))


# GREY8 has 48 pixels. Pillow would warn above a limit of 30, and refuse above twice that of 20.
@pytest.mark.parametrize("limit", [30, 20])
@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
def test_size_has_no_limit(suffix, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    Image.fromarray(GREY8).save(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}").shape[:2] == GREY8.shape
    assert limit == Image.MAX_IMAGE_PIXELS
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="can't be read"):
        read_image(tmp_path / "b.png")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_too_little_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def fail(file):
        raise MemoryError

    monkeypatch.setattr(images, "_read_with_pillow", fail)
    Image.fromarray(GREY8).save(tmp_path / "a.png")
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")


# Reading: TIFF


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
def test_tiff_keeps_its_dtype(dtype, options, tmp_path):
    image = (GREY8 - 40).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **options)
    same(read_image(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "jpeg"])
def test_compressed_tiff(compression, tmp_path):
    image = np.full((32, 32, 3), 77, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression=compression)
    same(read_image(tmp_path / "a.tif"), image)


def test_the_content_decides_not_the_name(tmp_path):
    tifffile.imwrite(tmp_path / "tiff.png", GREY16)
    Image.fromarray(GREY8).save(tmp_path / "bitmap", format="bmp")
    same(read_image(tmp_path / "tiff.png"), GREY16)
    same(read_image(tmp_path / "bitmap"), GREY8)


FIRST = np.moveaxis(RGB16, -1, 0)  # (3, 6, 8)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (RGB16, {"photometric": "rgb"}),
        (FIRST, {"photometric": "rgb", "planarconfig": "separate"}),
        (FIRST, {"imagej": True, "metadata": {"axes": "CYX"}}),
        (FIRST, {"ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack"}),
        (np.concatenate([RGB16, ALPHA16], -1), {"photometric": "rgb", "extrasamples": [2]}),
        (np.concatenate([RGB16, ALPHA16], -1), {"photometric": "rgb", "extrasamples": [1]}),
    ],
    ids=["contiguous", "planar", "imagej", "ome", "alpha", "premultiplied"],
)
def test_channels_of_a_tiff_come_last(array, options, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    same(read_image(tmp_path / "a.tif"), RGB16)


def test_three_channels_that_may_be_stains_are_logged_once(tmp_path, caplog):
    frames = np.stack([FIRST, FIRST])
    for axes, options in (("TCYX", {"imagej": True}), ("TCYX", {"ome": True})):
        path = tmp_path / f"{'-'.join(options)}.ome.tif"
        tifffile.imwrite(path, frames, metadata={"axes": axes}, photometric="minisblack", **options)
        assert [page.shape for page in read_pages(path)] == [RGB16.shape] * 2
        (record,) = caplog.records
        message = f"{path} is read in colour: its three channels are taken for red, green and blue."
        assert record.getMessage().startswith(message)
        caplog.clear()
    # Two or four are never taken for colours, and of colours the file says so.
    tifffile.imwrite(tmp_path / "two.tif", FIRST[:2], imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "rgb.tif", RGB8, imagej=True)
    for name in ("two.tif", "rgb.tif"):
        read_image(tmp_path / name)
    assert not caplog.records


def test_channels_that_come_last_in_a_tiff_are_no_pages(tmp_path):
    image = np.zeros((20, 30, 2), "uint16")
    image[..., 1] = 7
    tifffile.imwrite(tmp_path / "a.tif", image)
    with pytest.raises(ValueError, match=r"its 20 pages of 30x2 pixels .* image of 2 channels"):
        read_pages(tmp_path / "a.tif")
    # What it advises is heeded.
    options = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(image, -1, 0), **options)
    same(read_image(tmp_path / "b.tif"), image)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((20, 30, 40), "uint16"))
    assert len(read_pages(tmp_path / "c.tif")) == 20


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
def test_where_0_is_white_what_is_shown_is_read(dtype, tmp_path):
    image = GREY8 > 100 if dtype == "bool" else GREY8.astype(dtype)
    stored = ~image  # of unsigned integers, the largest of the type less the value
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    same(read_image(tmp_path / "a.tif"), image)
    if dtype != "uint16":  # Pillow shows it so
        with Image.open(tmp_path / "a.tif") as shown:
            assert (np.array(shown) == image).all()


def test_what_imagej_shows_inverted_is_read_as_measured(tmp_path):
    # ImageJ's TiffEncoder writes pixels as they are and `photoInterp = fi.whiteIsZero ? 0 : 1`.
    tifffile.imwrite(tmp_path / "a.tif", GREY16, imagej=True, photometric="miniswhite")
    same(read_image(tmp_path / "a.tif"), GREY16)


def test_where_0_is_white_the_bits_that_are_used_count(tmp_path):
    stored = np.arange(4096, dtype="uint16").reshape(64, 64)
    first, second = stored[:, ::2], stored[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    # By hand, since tifffile needs a recent imagecodecs to write 12 bits: tags of TIFF 6.0, one
    # number each.
    offset, length = 8 + 2 + 9 * 12 + 4, packed.size
    tags = {256: 64, 257: 64, 258: 12, 259: 1, 262: 0, 273: offset, 277: 1, 278: 64, 279: length}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + packed.astype("uint8").tobytes())
    same(read_image(tmp_path / "a.tif"), 4095 - stored)


@pytest.mark.parametrize("num_channels", [2, 4, 5])
def test_stains_are_all_kept(num_channels, tmp_path):
    stains = np.stack([GREY16 + i for i in range(num_channels)])
    axes = {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stains, imagej=True, **axes)
    same(read_image(tmp_path / "a.tif"), np.moveaxis(stains, 0, -1))
    # Four samples per pixel, of which the file does not say that one is alpha.
    samples = np.ascontiguousarray(np.moveaxis(stains, 0, -1))
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    options["extrasamples"] = [0] * (num_channels - 1)
    tifffile.imwrite(tmp_path / "b.tif", samples, **options)
    same(read_image(tmp_path / "b.tif"), samples)


def test_pages(tmp_path):
    stack = np.stack([GREY16 + i for i in range(3)])
    tifffile.imwrite(tmp_path / "plain.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "depth.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    for name in ("plain.tif", "depth.tif"):
        pages = read_pages(tmp_path / name)
        assert len(pages) == 3
        for page, expected in zip(pages, stack, strict=True):
            same(page, expected)
        with pytest.raises(ValueError, match=r"holds 3 pages.*read_pages"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("num_planes", [3, 4])
@pytest.mark.parametrize("shape", [(), (2,)], ids=["one", "several"])
def test_planes_of_colour_that_may_be_pages_are_logged_once(shape, num_planes, tmp_path, caplog):
    # As tifffile stores such an array by default, for now.
    planar = {"photometric": "rgb", "planarconfig": "separate"}
    stack = np.zeros((*shape, num_planes, 6, 8), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", stack, **planar)
    assert {page.shape for page in read_pages(tmp_path / "a.tif")} == {(6, 8, 3)}
    assert len(caplog.records) == 1
    record = caplog.records[0]
    assert (record.name, record.levelname) == ("keras_nuclei.images", "WARNING")
    message = record.getMessage()
    assert message.startswith(f"{tmp_path / 'a.tif'} is read in colour")
    assert ("and one of alpha, which is left out" in message) == (num_planes == 4)
    # What it advises is heeded.
    options = '(path, stack, photometric="minisblack").'
    assert message.endswith(f"tifffile.imwrite{options}")
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    pages = read_pages(tmp_path / "a.tif")
    assert [page.shape for page in pages] == [(6, 8)] * (stack.size // 48)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (FIRST, {"photometric": "rgb", "metadata": {"axes": "CYX"}}),
        (FIRST, {"photometric": "rgb", "metadata": {"axes": "ZYX"}}),
        (FIRST, {"photometric": "rgb", "planarconfig": "separate", "ome": True}),
        (np.zeros((5, 6, 8), "uint8"), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.zeros((4, 6, 8), "uint8"), {"photometric": "rgb", "extrasamples": [0]}),
        (FIRST, {"photometric": "minisblack", "planarconfig": "separate"}),
        (RGB16, {"photometric": "rgb"}),
        (np.concatenate([RGB16, ALPHA16], -1), {"photometric": "rgb"}),
    ],
    ids=[
        "channels",
        "depth",
        "ome",
        "five",
        "four stains",
        "grey",
        "contiguous",
        "contiguous and alpha",
    ],
)
def test_what_is_colour_or_channels_beyond_doubt_is_not_logged(array, options, tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    read_pages(tmp_path / "a.tif")
    assert not caplog.records


def test_pages_with_channels(tmp_path):
    stack = np.arange(2 * 5 * 3 * 6 * 8, dtype="uint16").reshape(2, 5, 3, 6, 8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TZCYX"})
    pages = read_pages(tmp_path / "a.tif")
    assert len(pages) == 10
    for index, page in enumerate(pages):  # depth is the faster of the two
        same(page, np.moveaxis(stack[index // 5, index % 5], 0, -1))


def test_pages_of_several_sizes_and_kinds(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY8, photometric="minisblack")
        writer.write(RGB16[:4], photometric="rgb")
    pages = read_pages(tmp_path / "a.tif")
    assert len(pages) == 2
    same(pages[0], GREY8)
    same(pages[1], RGB16[:4])


def test_a_pyramid_is_one_image(tmp_path):
    image = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(image, subifds=1, tile=(32, 32))
        writer.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
    same(read_image(tmp_path / "a.ome.tif"), image)


def test_smaller_copies_are_no_pages(tmp_path):
    slide, small = np.zeros((64, 96), "uint8"), np.ones((16, 24), "uint8")
    for name, software in (("marked.tif", None), ("qptiff.tif", "PerkinElmer-QPI")):
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            if software is None:  # the copy comes first, and says what it is
                tiff.write(small, subfiletype=1, metadata=None)
            tiff.write(slide, software=software, metadata=None)
            if software is not None:
                tiff.write(np.repeat(small[..., None], 3, -1), software=software, metadata=None)
        assert [page.shape for page in read_pages(tmp_path / name)] == [(64, 96)]
    tifffile.imwrite(tmp_path / "copy.tif", small, subfiletype=1, metadata=None)
    assert read_image(tmp_path / "copy.tif").shape == (16, 24)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_frames_are_pages(suffix, tmp_path):
    frames = [np.full((8, 9), value, "uint8") for value in (0, 90, 200)]
    first, *others = map(Image.fromarray, frames)
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"frames.{suffix}"
    first.save(path, save_all=True, append_images=others, duration=100, **options)
    pages = read_pages(path)
    assert [int(page.max()) for page in pages] == [0, 90, 200]
    assert {page.shape[:2] for page in pages} == {(8, 9)}


@pytest.mark.parametrize(("photometric", "samples"), [("separated", 4), ("cielab", 3)])
def test_tiff_in_the_colours_of_printing_is_refused(photometric, samples, tmp_path):
    path = tmp_path / "colours.tif"
    image = np.zeros((5, 6, samples), "uint8")
    tifffile.imwrite(path, image, photometric=photometric, metadata=None)
    with pytest.raises(ValueError, match=f"its colours are {photometric.upper()}.*convert it"):
        read_image(path)


def test_palette_of_a_tiff(tmp_path):
    colormap = np.zeros((3, 256), "uint16")
    colormap[:, 1] = [65535, 0, 300]
    indices = np.array([[0, 1], [1, 0]], "uint8")
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colormap)
    expected = np.zeros((2, 2, 3), "uint16")
    expected[0, 1] = expected[1, 0] = [65535, 0, 300]
    same(read_image(tmp_path / "a.tif"), expected)


def test_alpha_beside_a_palette_in_a_tiff_is_left_out(tmp_path):
    picture = Image.new("P", (3, 2), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    picture.convert("PA").save(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif")
    assert read.shape == (2, 3, 3)
    np.testing.assert_array_equal(read[0, 0] >> 8, [200, 100, 50])  # palettes of TIFF have 16 bits


# Reading: what is broken


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.tif"):
        read_image(tmp_path / "absent.tif")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"II*\0", b"II*\0\x08\0\0\0\xff\xff", b"\x89PNG"]
)
def test_a_file_that_is_no_image(content, tmp_path):
    (tmp_path / "bad.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.tif can't be read.*save it as TIFF") as error:
        read_image(tmp_path / "bad.tif")
    assert ("it is empty" in str(error.value)) == (content == b"")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("allowed", [False, True])
def test_half_a_file(suffix, depth, allowed, tmp_path, monkeypatch):
    # TFDS, for one, lets Pillow fill what is missing with grey, for the whole process.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(f"uint{depth}")
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, noise, photometric="rgb", compression="zlib" if depth == 8 else None)
    elif suffix == "png":
        path.write_bytes(imagecodecs.png_encode(noise))
    else:
        Image.fromarray(noise.astype("uint8")).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="can't be read"):
        read_image(path)


# Contrast

VALUES = st.one_of(
    hnp.arrays("uint8", st.tuples(st.integers(1, 12), st.integers(1, 12))),
    hnp.arrays("int32", st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))),
    hnp.arrays(
        "float32",
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
)
few = settings(max_examples=60, deadline=None)


@given(image=VALUES)
@few
def test_any_image_becomes_finite_float32_in_range(image):
    result = normalize(image)
    assert result.dtype == np.float32
    assert result.shape == (*image.shape[:2], 3)
    assert result.min() >= 0
    assert result.max() <= 255
    constant = image.min() == image.max()
    assert result.min() == 0
    assert result.max() == (0 if constant else 255)


@given(image=VALUES)
@few
def test_limits_are_the_percentiles_of_numpy(image):
    low, high = np.percentile(image, [10, 90], method="inverted_cdf")
    if low == high:
        low, high = image.min(), image.max()
    assert contrast_limits(image, low=10, high=90) == (low, high)


@given(image=VALUES)
@few
def test_grey_equals_three_equal_channels_and_alpha_changes_nothing(image):
    grey = image if image.ndim == 2 else image[..., 0]
    expected = normalize(grey)
    np.testing.assert_array_equal(normalize(grey[..., None]), expected)
    np.testing.assert_array_equal(normalize(np.stack([grey] * 3, -1)), expected)
    with_alpha = np.stack([*[grey] * 3, np.zeros_like(grey)], -1)
    np.testing.assert_array_equal(normalize(with_alpha), expected)


@given(
    image=hnp.arrays("uint8", (9, 7, 3)),
    dtype=st.sampled_from(["uint16", "int16", "uint32", "int64", "float32", "float64"]),
    gain=st.integers(1, 100),
    offset=st.integers(0, 1000),
)
@few
def test_gain_offset_and_dtype_do_not_matter(image, dtype, gain, offset):
    changed = (image.astype("int64") * gain + offset).astype(dtype)
    np.testing.assert_allclose(normalize(changed), normalize(image), atol=1e-3)


def test_hand_values():
    # 1000 values: the 10th smallest is 9, the 998th is 997.
    image = np.arange(1000, dtype="uint16").reshape(25, 40)
    assert contrast_limits(image) == (9, 997)
    stretched = normalize(image)[..., 1].ravel()
    np.testing.assert_allclose(stretched[:10], 0)
    np.testing.assert_allclose(stretched[997:], 255)
    assert stretched[503] == pytest.approx(255 * (503 - 9) / (997 - 9))


def test_the_stretch_is_joint_over_channels():
    image = np.zeros((1, 3, 3), "uint8")
    image[0, 1] = [100, 50, 0]
    image[0, 2] = [200, 100, 0]
    expected = image * (255 / 200)
    np.testing.assert_allclose(normalize(image), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "float16", "float64"])
def test_a_constant_image_is_black_without_a_warning(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (0, 1):
            result = normalize(np.full((5, 4), value, dtype))
            np.testing.assert_array_equal(result, np.zeros((5, 4, 3), "float32"), strict=True)


def test_one_small_nucleus_on_clean_ground_is_seen():
    image = np.zeros((100, 100), bool)
    image[3, 4:6] = True
    assert contrast_limits(image) == (0, 1)
    np.testing.assert_array_equal(normalize(image)[..., 2], image * 255.0)


def test_float16_reaches_its_ends():
    image = np.array([[-65504, 0, 65504]], "float16")
    np.testing.assert_allclose(normalize(image)[0, :, 0], [0, 127.5, 255])


def test_large_numbers_keep_their_differences():
    image = np.array([[2**40, 2**40 + 1, 2**40 + 2]])
    np.testing.assert_allclose(normalize(image)[0, :, 0], [0, 127.5, 255])


def test_tiles_with_common_limits_are_tiles_of_the_whole():
    image = np.random.default_rng(0).normal(size=(40, 50)).astype("float32")
    limits = contrast_limits(image)
    whole = normalize(image)
    np.testing.assert_array_equal(normalize(image[7:20, 30:], limits=limits), whole[7:20, 30:])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_of_a_huge_image_a_grid_is_enough(dtype):
    image = (np.random.default_rng(0).random((3000, 2900)) * 255).astype(dtype)
    expected = np.percentile(image, [1, 99.8])
    np.testing.assert_allclose(contrast_limits(image), expected, atol=1)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 3000), st.floats(0, 1))
def test_the_pixels_that_decide_have_the_limits_of_all(height, width, most, share):
    picture = np.random.default_rng(0).random((height, width))
    picture[picture > share] = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_MOST_SAMPLED", most)
        sample = contrast_sample(picture)
        assert 1 <= sample.size <= most
        assert sample.size == picture.size or picture.size > most
        assert contrast_limits(sample) == contrast_limits(picture)


def test_input_is_left_alone():
    image = np.random.default_rng(0).random((6, 6, 4))
    before = image.copy()
    normalize(image)
    np.testing.assert_array_equal(image, before)
    flags = normalize(GREY8).flags
    assert flags.writeable
    assert flags.c_contiguous


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), complex), np.array([["a"]]), np.array([[None]]), np.zeros((2, 2), "M8[s]")],
    ids=["complex", "string", "object", "time"],
)
def test_values_that_are_no_intensities(image):
    with pytest.raises(TypeError, match=f"dtype {image.dtype}".replace("[", r"\[")):
        normalize(image)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((4, 4, 2), "image\\[..., channel\\]"),
        ((8, 8, 5), "image\\[..., channel\\]"),
        ((3, 8, 8), "np.moveaxis"),
        ((4, 8, 8), "pages of a stack, pass one at a time"),
        ((7, 8, 8), "Of a stack pass one page at a time"),
        ((1, 8, 8, 3), "one image at a time"),
        ((8,), "one image at a time"),
        ((), "one image at a time"),
        ((0, 8), "must have pixels"),
    ],
    ids=str,
)
def test_shapes_that_are_no_image(shape, advice):
    with pytest.raises(ValueError, match=advice) as error:
        normalize(np.zeros(shape, "uint8"))
    assert str(shape) in str(error.value)


def test_values_that_are_not_finite_are_found():
    image = np.zeros((4, 5))
    image[1, 1], image[2, :2] = -np.inf, np.nan
    with pytest.raises(ValueError, match=r"first seen in row 1, column 1\..*nan_to_num"):
        normalize(image)


def test_of_a_masked_image_what_is_masked_has_to_be_said():
    image = np.ma.masked_equal([[1, 2], [3, 900]], 900)
    with pytest.raises(ValueError, match=r"image\.filled"):
        normalize(image)
    np.testing.assert_allclose(normalize(image.filled(1))[..., 0], [[0, 127.5], [255, 0]])


@pytest.mark.parametrize("percentiles", [(5, 5), (50, 10), (-1, 50), (1, 101), (np.nan, 50)])
def test_percentiles_out_of_order(percentiles):
    low, high = percentiles
    with pytest.raises(ValueError, match="0 <= low < high <= 100"):
        normalize(GREY8, low=low, high=high)


@pytest.mark.parametrize("limits", [(2, 1), (0, np.inf), (np.nan, 1), (-1e308, 1e308)])
def test_limits_out_of_order(limits):
    with pytest.raises(ValueError, match="lower one first"):
        normalize(GREY8, limits=limits)


def test_an_ome_tiff_of_several_files_is_read_as_the_planes_of_its_own(tmp_path):
    pages = [np.full((4, 5), value, "uint8") for value in (10, 20)]
    names = ["t0.ome.tif", "t1.ome.tif"]
    planes = "".join(
        f'<TiffData FirstT="{number}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{number}'
        "</UUID></TiffData>"
        for number, name in enumerate(names)
    )
    for number, name in enumerate(names):
        write_ome(tmp_path / name, [pages[number]], 2, planes, uuid=number)
    for name, page in zip(names, pages, strict=True):
        np.testing.assert_array_equal(read_image(tmp_path / name), page)
    (tmp_path / "t0.ome.tif").unlink()  # nor is what is gone read as black
    np.testing.assert_array_equal(read_image(tmp_path / "t1.ome.tif"), pages[1])


def test_planes_that_an_acquisition_did_not_come_to_are_no_pages(tmp_path):
    pages = [np.full((4, 5), value, "uint8") for value in (10, 20)]
    write_ome(tmp_path / "a.ome.tif", pages, 5, '<TiffData IFD="0" PlaneCount="2"/>')
    np.testing.assert_array_equal(read_pages(tmp_path / "a.ome.tif"), pages)
    write_ome(tmp_path / "c.ome.tif", pages, 1, '<TiffData IFD="0" PlaneCount="2"/>', channels=3)
    with pytest.raises(ValueError, match=r"3 planes in several channels, and it holds 2"):
        read_pages(tmp_path / "c.ome.tif")


def write_ome(path, pages, times, planes, channels=1, uuid=0):
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="urn:uuid:{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint8" '
        f'DimensionOrder="XYCZT" SizeX="5" SizeY="4" SizeZ="1" SizeC="{channels}" '
        f'SizeT="{times}">{planes}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as tiff:
        for number, page in enumerate(pages):
            description = ome if number == 0 else None
            tiff.write(page, description=description, metadata=None, contiguous=False)


def test_pages_of_several_shapes_keep_their_order(tmp_path):
    pages = [np.full((4, width), width, "uint8") for width in (5, 7, 5, 6)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in pages:
            tiff.write(page, metadata=None)
    for found, page in zip(read_pages(tmp_path / "a.tif"), pages, strict=True):
        np.testing.assert_array_equal(found, page)


def test_brightness_and_colour_differences_are_taken_for_rgb_nowhere(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 0, 0))
    red.convert("YCbCr").save(tmp_path / "plain.tif")
    with pytest.raises(ValueError, match=r"its colours are YCBCR"):
        read_image(tmp_path / "plain.tif")
    red.save(tmp_path / "jpeg.tif", compression="jpeg")
    assert np.abs(read_image(tmp_path / "jpeg.tif")[0, 0] - [200.0, 0, 0]).max() < 5
