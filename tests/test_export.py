"""What is written comes back: by tifffile, by filling polygons, by reading ROIs."""

import json
import stat

import numpy as np
import pytest
import roifile
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Outline

from keras_nuclei.export import (
    atomic_path,
    trace_polygons,
    write_geojson,
    write_labels,
    write_rois,
)

# Every way that pixels of three labels can meet occurs in maps as small as these.
LABEL_MAPS = hnp.arrays(
    "int32",
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    elements=st.sampled_from([0, 1, 1, 2, 70000]),
)
RING = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]])  # and a second piece


def fill(rings, shape):
    """Pixels whose centre lies in an odd number of the rings."""
    y, x = np.indices(shape)
    centres = np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5
    inside = [Outline(np.asarray(ring)).contains_points(centres) for ring in rings]
    return (np.sum(inside, axis=0) % 2 == 1).reshape(shape)


def twice_the_area(ring):
    x, y = np.asarray(ring).T
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


@given(label_map=LABEL_MAPS)
@settings(max_examples=50, deadline=None)
def test_polygons_filled_again_are_the_label_map(label_map):
    polygons = trace_polygons(label_map)
    assert set(polygons) == set(np.unique(label_map)) - {0}
    filled = np.zeros_like(label_map)
    for label, of_label in polygons.items():
        for polygon in of_label:
            pixels = fill(polygon, label_map.shape)
            assert not filled[pixels].any()  # no pixel twice
            filled[pixels] = label
    np.testing.assert_array_equal(filled, label_map)


@given(label_map=LABEL_MAPS)
@settings(max_examples=50, deadline=None)
def test_rings_are_simple_and_have_corners_only(label_map):
    for label, polygons in trace_polygons(label_map).items():
        area = 0
        for outer, *holes in polygons:
            assert twice_the_area(outer) > 0
            assert all(twice_the_area(hole) < 0 for hole in holes)
            area += sum(twice_the_area(ring) for ring in (outer, *holes)) / 2
            for ring in (outer, *holes):
                assert len(np.unique(ring, axis=0)) == len(ring)
                steps = np.diff(ring, axis=0, append=ring[:1])
                assert (np.count_nonzero(steps, axis=1) == 1).all()
                vertical = steps[:, 0] == 0
                assert (vertical != np.roll(vertical, 1)).all()
        assert area == np.count_nonzero(label_map == label)


def test_hand_traced():
    (outer, hole), (piece,) = trace_polygons(RING)[1]
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert sorted(hole.tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert piece.tolist() == [[3, 3], [4, 3], [4, 4], [3, 4]]


def test_a_hole_that_meets_the_outside_at_a_corner_is_a_hole():
    label_map = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]])
    ((outer, hole),) = trace_polygons(label_map)[1]
    assert len(outer) == 6
    assert len(hole) == 4


def test_nothing_to_trace():
    assert trace_polygons(np.zeros((3, 4), int)) == {}


# Files


def test_geojson(tmp_path):
    label_map = RING.copy()
    label_map[0, 3] = 9
    write_geojson(tmp_path / "a.geojson", label_map, classification="Kern")
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    by_name = {feature["properties"]["name"]: feature for feature in document["features"]}
    assert set(by_name) == {"1", "9"}
    for feature in by_name.values():
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "detection"
        assert feature["properties"]["classification"] == {"name": "Kern"}
        assert "plane" not in feature["geometry"]
    assert by_name["9"]["geometry"]["type"] == "Polygon"
    geometry = by_name["1"]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    rings = [ring for polygon in geometry["coordinates"] for ring in polygon]
    assert all(ring[0] == ring[-1] for ring in rings)
    np.testing.assert_array_equal(fill(rings, label_map.shape), label_map == 1)


def test_geojson_of_pages_names_the_plane(tmp_path):
    write_geojson(tmp_path / "a.geojson", np.stack([RING, RING]))
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [feature["geometry"]["plane"]["z"] for feature in features] == [0, 1]


@given(label_map=LABEL_MAPS)
@settings(max_examples=20, deadline=None)
def test_rois(label_map, tmp_path_factory):
    path = tmp_path_factory.mktemp("rois") / "a.zip"
    write_rois(path, label_map)
    rois = roifile.roiread(path) if label_map.any() else []
    filled = np.zeros_like(label_map)
    for roi in rois:
        rings = roi.coordinates(multi=True) if roi.composite else [roi.coordinates()]
        assert roi.position == 0
        y, x = np.nonzero(label_map == int(roi.name))
        bounds = (y.min(), x.min(), y.max() + 1, x.max() + 1)
        assert (roi.top, roi.left, roi.bottom, roi.right) == bounds
        filled[fill(rings, label_map.shape)] = int(roi.name)
    np.testing.assert_array_equal(filled, label_map)


def test_kinds_and_positions_of_rois(tmp_path):
    write_rois(tmp_path / "a.zip", [RING, np.eye(1, dtype=int)])
    composite, traced = roifile.roiread(tmp_path / "a.zip")
    assert composite.composite
    assert traced.roitype == roifile.ROI_TYPE.TRACED
    assert (composite.name, composite.position) == ("1-1", 1)
    assert (traced.name, traced.position) == ("2-1", 2)


def test_rois_beyond_the_integers_of_imagej(tmp_path):
    label_map = np.zeros((1, 70_000), "uint8")
    label_map[0, 69_990:] = 1
    write_rois(tmp_path / "a.zip", label_map)
    (roi,) = roifile.roiread(tmp_path / "a.zip")
    assert roi.coordinates().tolist() == [[69990, 0], [70000, 0], [70000, 1], [69990, 1]]


@pytest.mark.parametrize(("highest", "dtype"), [(65535, "uint16"), (65536, "uint32")])
@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (4, 4, 6)], ids=str)
def test_labels(highest, dtype, shape, tmp_path):
    label_map = np.arange(np.prod(shape)).reshape(shape)
    label_map.flat[-1] = highest
    write_labels(tmp_path / "a.tif", label_map)
    read = tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, label_map.astype(dtype), strict=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
        assert len(tiff.pages) == (shape[0] if len(shape) == 3 else 1)


def test_labels_of_pages_of_several_sizes(tmp_path):
    pages = [RING, np.ones((2, 7), int)]
    write_labels(tmp_path / "a.tif", pages)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        for page, expected in zip(tiff.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), expected)


@pytest.mark.parametrize("write", [write_labels, write_geojson, write_rois])
def test_wrong_label_maps_write_nothing(write, tmp_path):
    for label_map, error in [
        (np.zeros((4, 4)), TypeError),
        (np.zeros(4, int), ValueError),
        (np.full((1, 1), -1), ValueError),
        ([], ValueError),
    ]:
        with pytest.raises(error):
            write(tmp_path / "a", label_map)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_labels, write_geojson, write_rois])
def test_a_channel_axis_is_not_taken_for_pages(write, tmp_path):
    with pytest.raises(ValueError, match=r"\(5, 7, 1\).*label_map\[\.\.\., 0\]"):
        write(tmp_path / "a", np.ones((5, 7, 1), int))
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a", list(np.ones((5, 7, 1), int)))  # five pages, each one pixel wide


def test_labels_too_large(tmp_path):
    with pytest.raises(ValueError, match="relabel_sequential"):
        write_labels(tmp_path / "a.tif", np.array([[2**32]]))


# Whole or not at all


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_what_was_there(error, tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    write_labels(tmp_path / "a.tif", RING)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_long_name(tmp_path):
    write_labels(tmp_path / ("n" * 250 + ".tif"), RING)
