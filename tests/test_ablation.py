"""The ablation: small networks on drawn images, end to end; its page against hand values."""

import json

import numpy as np
import pytest

from benchmarks import ablation, ablation_page, pipeline

SMALL = {
    "base": ablation.Variant(
        "-",
        "the first network",
        encoder="mobilenet_v3_small",
        arguments={"encoder_weights": None, "encoder_depth": 1},
    ),
    "nearest": ablation.Variant(
        "upsampling",
        "nearest",
        encoder="mobilenet_v3_small",
        arguments={"encoder_weights": None, "encoder_depth": 1, "upsampling": "nearest"},
    ),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Do what a command line says, on a few small drawn images."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 16, 16, 3), "uint8")
    examples = pipeline.Examples(
        images=images,
        masks=(images[..., :1] > 200).astype("uint8"),
        image_ids=np.arange(40).astype(str),
        fields_of_view=np.arange(40),
    )
    monkeypatch.setattr(pipeline, "load", lambda *arguments: examples)
    monkeypatch.setattr(ablation, "VARIANTS", SMALL)
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()

    def call(*arguments):
        output = ["--output", str(tmp_path / "run")]
        once = ["--seeds", "3", "4", "--epochs", "1", "--rounds", "1"]
        ablation.main([*output, "--only", *SMALL, *once, *arguments])
        return tmp_path

    return call


def test_from_images_to_the_published_page(run, monkeypatch):
    folder = run()
    monkeypatch.setattr(ablation, "train", lambda *arguments: pytest.fail("trained twice"))
    run()  # resumes: nothing is left to train
    run("--publish")
    result = json.loads((folder / "results" / "ablation.json").read_text())
    assert set(result["variants"]) == set(SMALL)
    assert result["images"] == {"train": 28, "validation": 8}
    for variant in result["variants"].values():
        assert [run["seed"] for run in variant["runs"]] == [3, 4]
        assert all(0 <= run["iou"] <= run["dice"] <= 1 for run in variant["runs"])
        assert variant["seconds_per_image"] > 0
    with pytest.raises(SystemExit, match="--overwrite"):
        run("--publish")
    assert "| upsampling | nearest |" in ablation_page.page(result)


def test_nothing_but_all_variants_on_dsb2018_is_published(run):
    folder = run("--data", "synthetic")
    with pytest.raises(SystemExit, match="all variants on dsb2018"):
        run("--data", "synthetic", "--publish")
    assert not list((folder / "results").iterdir())


def test_a_row_by_hand():
    variant = {
        "changes": "decoder",
        "label": "FPN",
        "runs": [
            {"iou": 0.81249, "dice": 0.8966, "accuracy": 0.97126},
            {"iou": 0.7925, "dice": 0.8966, "accuracy": 0.97126},
        ],
        "parameters": 4_449_999,
        "seconds_per_image": 0.03,
    }
    # 0.03 seconds are 1.5 times 0.02; the mean of the IoU is 0.802495.
    expected = (
        "| decoder | FPN | 0.802 (0.792-0.812) | 0.897 (0.897-0.897) | 0.9713 (0.9713-0.9713) "
        "| 4.4 | 1.50 |"
    )
    assert ablation_page.row(variant, 0.02) == expected
