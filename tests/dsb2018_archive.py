"""Draws a small data set in the published layout, with all that a copy may look like.

    python -m tests.dsb2018_archive FOLDER

It writes stage1_train.zip, stage1_test.zip, stage1_solution.csv, annotation_fixes.zip and the two
tables of facts that the builder checks copies against. Everything is written by PIL and the
standard library, with none of the project's code, so that it can serve as an oracle.
"""

import csv
import dataclasses
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# Two of the real ids that the corrected annotation drops; the others are made up.
REMOVED = (
    "12aeefb1b522b283819b12e4cfaf6b13c1264c0aadac3412b4edd2ace304cb40",
    "c304a1fdf3bca2f4b4580d2cac59942e2224a7678001bf5ed9d9852f57708932",
)
# (height, width, modality), odd sizes among them.
TRAIN = (
    (32, 32, "fluorescence"),
    (33, 41, "fluorescence"),
    (27, 48, "histology"),
    (48, 36, "brightfield"),
    (31, 29, "fluorescence"),
    (32, 40, "histology"),
    (40, 40, "fluorescence"),
)
TEST = ((39, 24, "fluorescence"), (52, 35, "histology"), (30, 30, "fluorescence"))


@dataclasses.dataclass
class Drawn:
    """One drawn image: RGB, the masks of its nuclei by file name, and what follows from them."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: dict[str, np.ndarray]  # (H, W) bool each
    modality: str
    field_of_view: int

    @property
    def instances(self):
        """The label map that the documentation promises: sorted names, the later mask wins."""
        labels = np.zeros(self.image.shape[:2], np.uint16)
        for number, name in enumerate(sorted(self.masks), start=1):
            labels[self.masks[name]] = number
        return labels


@dataclasses.dataclass
class Archive:
    """The whole data set: by image id, as drawn; `corrected` replaces entries of `train`."""

    train: dict[str, Drawn]
    test: dict[str, Drawn]
    corrected: dict[str, Drawn]

    def config(self, name):
        """By split, what a config must hold."""
        if name == "stage1":
            return {"train": self.train, "test": self.test}
        kept = {i: self.corrected.get(i, d) for i, d in self.train.items() if i not in REMOVED}
        return {"train": kept, "test": self.test}


def draw_archive():
    """Draws the data set; always the same one."""
    rng = np.random.default_rng(7)
    ids = [*REMOVED, *(hashlib.sha256(bytes([i])).hexdigest() for i in range(5))]
    train = {
        i: draw(rng, *plan, field) for field, (i, plan) in enumerate(zip(ids, TRAIN, strict=True))
    }
    test = {
        hashlib.sha256(f"test {i}".encode()).hexdigest(): draw(rng, *plan, 100 + i)
        for i, plan in enumerate(TEST)
    }
    first, second = ids[2], ids[4]
    corrected = {}
    for image_id in (first, second):
        drawn = train[image_id]
        masks = dict(sorted(drawn.masks.items())[1:])  # one nucleus fewer
        corrected[image_id] = dataclasses.replace(drawn, masks=masks)
    # As in the real correction, some pixels lie in two masks: grow the first one by a pixel.
    masks = corrected[first].masks
    name, grown = min(masks), masks[min(masks)].copy()
    grown[1:] |= masks[name][:-1]
    grown[:, 1:] |= masks[name][:, :-1]
    corrected[first].masks[name] = grown
    return Archive(train, test, corrected)


def draw(rng, height, width, modality, field_of_view):
    """Draws discs on a grid, some of which touch, none overlap."""
    rows, columns = np.indices((height, width))
    masks = {}
    for top in range(6, height - 5, 11):
        for left in range(6, width - 5, 11):
            radius = rng.integers(3, 6)
            mask = (rows - top) ** 2 + (columns - left) ** 2 <= radius**2
            masks[f"{hashlib.sha256(rng.bytes(8)).hexdigest()}.png"] = mask
    nuclei = np.any(list(masks.values()), axis=0)[..., None]
    dark, bright, purple, pink = [20] * 3, [180] * 3, [110, 60, 140], [230, 190, 210]
    inside, outside = {
        "fluorescence": (bright, dark),
        "histology": (purple, pink),
        "brightfield": (dark, bright),
    }[modality]
    noise = rng.integers(-9, 10, (height, width, 1))  # the same in all channels: grey stays grey
    image = (np.where(nuclei, inside, outside) + noise).astype(np.uint8)
    return Drawn(image, masks, modality, field_of_view)


def png(array, mode=None):
    """Encodes an array as PNG, as the published files are: images RGBA, masks 0 and 255."""
    if array.ndim == 3:
        alpha = np.full((*array.shape[:2], 1), 255, np.uint8)
        array = np.concatenate([array, alpha], axis=2)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def run_lengths(mask):
    """Run lengths of a mask, pixel by pixel down the columns, counted from 1."""
    height, width = mask.shape
    inside = [i for i in range(height * width) if mask[i % height, i // height]]
    runs = []
    for pixel in inside:
        if runs and runs[-1][0] + runs[-1][1] == pixel:
            runs[-1][1] += 1
        else:
            runs.append([pixel, 1])
    return " ".join(f"{start + 1} {length}" for start, length in runs)


def image_entries(images, with_images=True, with_masks=True):
    """Entry name -> bytes, as in the published zip files."""
    entries = {}
    for image_id, drawn in images.items():
        if with_images:
            entries[f"{image_id}/images/{image_id}.png"] = png(drawn.image)
        if with_masks:
            for name, mask in drawn.masks.items():
                entries[f"{image_id}/masks/{name}"] = png(mask)
    return entries


def solution(images):
    """The text of stage1_solution.csv; nuclei come in the order of their names."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["ImageId", "EncodedPixels", "Height", "Width", "Usage"])
    for image_id, drawn in images.items():
        for name in sorted(drawn.masks):
            size = drawn.image.shape[:2]
            writer.writerow([image_id, run_lengths(drawn.masks[name]), *size, "Public"])
    return file.getvalue()


def zip_bytes(entries):
    """Packs entries into a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def published_files(archive):
    """File name -> bytes, as published; the fixes as a part of their repository."""
    return {
        "stage1_train.zip": zip_bytes(image_entries(archive.train)),
        "stage1_test.zip": zip_bytes(image_entries(archive.test, with_masks=False)),
        "stage1_solution.csv": solution(archive.test).encode(),
        "annotation_fixes.zip": zip_bytes(image_entries(archive.corrected, with_images=False)),
    }


def write_folder(folder, entries):
    """Writes entries as files."""
    for name, data in entries.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def digest(drawn):
    """The content digest, by its documented formula."""
    image = drawn.image
    if (image == image[..., :1]).all():
        image = image[..., 0]
    labels = drawn.instances
    text = f"{labels.shape[0]}x{labels.shape[1]}".encode()
    data = text + image.tobytes() + labels.astype("<u2").tobytes()
    return hashlib.sha256(data).hexdigest()[:32]


def write_tables(folder, archive):
    """Writes digests.csv and fields_of_view.csv."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    groups = (("original", archive.train | archive.test), ("corrected", archive.corrected))
    with (folder / "digests.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["annotation", "image_id", "num_instances", "digest"])
        for annotation, images in groups:
            for image_id, drawn in images.items():
                writer.writerow([annotation, image_id, len(drawn.masks), digest(drawn)])
    with (folder / "fields_of_view.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "split", "field_of_view"])
        for split in ("train", "test"):
            for image_id, drawn in getattr(archive, split).items():
                writer.writerow([image_id, split, drawn.field_of_view])


if __name__ == "__main__":
    write_folder(sys.argv[1], published_files(draw_archive()))
    write_tables(Path(sys.argv[1]) / "tables", draw_archive())
