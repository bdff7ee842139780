"""The real images, all of them, against a plain reader of the archives (PIL and zipfile).

Needs stage1_train.zip, stage1_test.zip, stage1_solution.csv and annotation_fixes.zip in the
folder that DSB2018_DIR names, or in ../shared/dsb2018.
"""

import collections
import csv
import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import tfds_dsb2018
from tests import dsb2018_archive as drawing
from tfds_dsb2018 import archives, contents, sources, verification
from tfds_dsb2018.modality import MODALITIES

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("DSB2018_DIR") or ROOT.parent / "shared" / "dsb2018")
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (REAL_DATA / "stage1_train.zip").exists(), reason="the real images are not there"
    ),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    builder = tfds_dsb2018.Builder(data_dir=folder)
    config = tfds.download.DownloadConfig(manual_dir=REAL_DATA)
    builder.download_and_prepare(download_config=config)
    return folder


def entries_by_image(archive):
    groups = collections.defaultdict(list)
    for name in sorted(archive.namelist()):
        groups[name.split("/")[0]].append(name)
    return groups


def read_png(archive, name, mode=None):
    image = Image.open(io.BytesIO(archive.read(name)))
    return np.asarray(image.convert(mode) if mode else image)


def examples(data_dir, split):
    source = tfds.data_source("dsb2018", split=split, data_dir=data_dir)
    return {example["image_id"].decode(): example for example in source}


def test_every_pixel_of_train(data_dir):
    prepared = examples(data_dir, "train")
    with zipfile.ZipFile(REAL_DATA / "stage1_train.zip") as archive:
        groups = entries_by_image(archive)

        def compare(image_id):
            """Returns the number of masks, each of which must be one number's pixels."""
            example = prepared[image_id]
            labels = example["instances"][..., 0]
            image, *mask_names = groups[image_id]  # "images/" sorts before "masks/"
            np.testing.assert_array_equal(example["image"], read_png(archive, image, "RGB"))
            for number, name in enumerate(mask_names, start=1):
                expected = np.where(labels == number, np.uint8(255), np.uint8(0))
                assert np.array_equal(read_png(archive, name), expected), name
            # So far: every mask is one number's pixels, all 255. Now: there is nothing else.
            assert example["num_instances"] == len(mask_names) == labels.max()
            np.testing.assert_array_equal(example["segmentation_mask"][..., 0], labels > 0)
            return len(mask_names)

        assert set(prepared) == set(groups)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = list(pool.map(compare, groups))
    assert (len(counts), sum(counts)) == (670, 29461)


def test_every_pixel_of_test(data_dir):
    prepared = examples(data_dir, "test")
    with (REAL_DATA / "stage1_solution.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = collections.Counter()
    expected = {}
    for row in rows:
        image_id, height = row["ImageId"], int(row["Height"])
        numbers[image_id] += 1
        labels = expected.setdefault(image_id, np.zeros((height, int(row["Width"])), int))
        runs = [int(text) for text in row["EncodedPixels"].split()]
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            for pixel in range(start - 1, start - 1 + length):
                labels[pixel % height, pixel // height] = numbers[image_id]
    assert set(prepared) == set(expected)
    assert (len(expected), sum(numbers.values())) == (65, 4152)
    with zipfile.ZipFile(REAL_DATA / "stage1_test.zip") as archive:
        for image_id, labels in expected.items():
            example = prepared[image_id]
            np.testing.assert_array_equal(example["instances"][..., 0], labels)
            np.testing.assert_array_equal(example["segmentation_mask"][..., 0], labels > 0)
            assert example["num_instances"] == numbers[image_id]
            name = f"{image_id}/images/{image_id}.png"
            np.testing.assert_array_equal(example["image"], read_png(archive, name, "RGB"))


def test_modalities_and_fields_of_view(data_dir):
    # Counts by source as in the challenge's own analysis: 16 brightfield images, 108 coloured.
    expected = {
        "train": {"fluorescence": 546, "histology": 108, "brightfield": 16},
        "test": {"fluorescence": 53, "histology": 12},
    }
    with (ROOT / "tfds_dsb2018" / "fields_of_view.csv").open(newline="") as file:
        fields = {row["image_id"]: row for row in csv.DictReader(file)}
    for split, counts in expected.items():
        prepared = examples(data_dir, split)
        found = collections.Counter(MODALITIES[e["modality"]] for e in prepared.values())
        assert found == counts
        for image_id, example in prepared.items():
            assert fields[image_id]["split"] == split
            assert example["field_of_view"] == int(fields[image_id]["field_of_view"])


def test_both_readers_agree(data_dir):
    dataset = tfds.load("dsb2018", split="train", data_dir=data_dir)
    source = tfds.data_source("dsb2018", split="train", data_dir=data_dir)
    assert len(source) == dataset.cardinality() == 670
    for one, other in zip(dataset.take(60).as_numpy_iterator(), source, strict=False):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_the_whole_copy_verifies(data_dir):
    train, test = verification.verify("stage1", data_dir)
    assert (train.num_images, train.num_instances) == (670, 29461)
    assert (test.num_images, test.num_instances) == (65, 4152)


def test_the_corrected_annotation():
    facts = contents.published("stage1_fixed")["train"]
    assert len(facts) == 664
    assert sum(known.num_instances for known in facts.values()) == 28986
    archive = archives.open_archive(REAL_DATA / "stage1_train.zip")
    fixes = archives.open_archive(REAL_DATA / "annotation_fixes.zip")
    readers = sources.train_readers(archive, fixes)
    overlaps = []
    with zipfile.ZipFile(REAL_DATA / "annotation_fixes.zip") as plain:
        groups = entries_by_image(plain)
        assert len(groups) == 109
        for image_id, names in groups.items():
            masks = [read_png(plain, name) > 0 for name in names]
            expected = np.zeros(masks[0].shape, np.uint16)
            times = np.zeros(masks[0].shape, np.uint8)  # how many masks a pixel lies in
            for number, mask in enumerate(masks, start=1):
                expected[mask] = number
                times += mask
            image, labels = readers[image_id]()
            np.testing.assert_array_equal(labels, expected)
            overlaps.append(np.count_nonzero(times > 1))
            drawn = drawing.Drawn(image, dict(zip(names, masks, strict=True)), "", 0)
            assert facts[image_id].digest == drawing.digest(drawn)
    assert (sum(overlaps), sum(count > 0 for count in overlaps)) == (9, 6)
