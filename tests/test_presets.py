"""The shipped weights: whole, of the stated size, read without running code."""

import hashlib
import io
import pathlib
import zipfile

import numpy as np
import pytest

import keras_nuclei
from keras_nuclei import presets

WEIGHTS = pathlib.Path(keras_nuclei.__file__).parent / "weights"
LARGEST_MEGABYTES = {"nuclei_small": 2, "nuclei_base": 20}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_weights_are_what_the_table_says(name):
    data = (WEIGHTS / presets.PRESETS[name].file).read_bytes()
    assert hashlib.sha256(data).hexdigest() == presets.PRESETS[name].sha256
    graph = (WEIGHTS / presets.PRESETS[name].graph).read_bytes()
    assert hashlib.sha256(graph).hexdigest() == presets.PRESETS[name].graph_sha256
    assert len(data) + len(graph) <= LARGEST_MEGABYTES[name] * 1e6


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_has_its_model_card(name):
    card = (WEIGHTS / presets.PRESETS[name].card).read_text()
    assert presets.PRESETS[name].sha256 in card
    assert "License" in card


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_the_same_model_every_time(name, rng):
    images = rng.integers(0, 256, (1, 33, 47, 3), dtype="uint8")
    first, second = (keras_nuclei.from_preset(name).predict(images, verbose=0) for _ in range(2))
    assert set(first) == {"foreground", "distance"}
    for head, values in first.items():
        assert values.shape == (1, 33, 47, 1)
        assert values.min() >= 0
        assert values.max() <= 1
        np.testing.assert_array_equal(values, second[head])


def test_an_unknown_preset():
    with pytest.raises(
        ValueError, match=r"no preset 'nuclei'. There are: nuclei_small, nuclei_base"
    ):
        keras_nuclei.from_preset("nuclei")


def test_damaged_weights_are_refused(monkeypatch):
    damaged = presets.Preset(**{**vars(presets.PRESETS["nuclei_base"]), "sha256": "0" * 64})
    monkeypatch.setitem(presets.PRESETS, "nuclei_base", damaged)
    with pytest.raises(ValueError, match=r"damaged: its SHA-256 is .* Install keras-nuclei"):
        keras_nuclei.from_preset("nuclei_base")


def test_weights_that_do_not_fit_name_what_is_missing_and_what_is_left_over():
    model = keras_nuclei.unet(keras_nuclei.encoders.plain(filters=(2, 2)), decoder_filters=(2,))
    with pytest.raises(ValueError, match=r"head/convolution/bias.*missing.*\['other'\] are left"):
        presets.assign_weights(model, {"other": np.zeros(3)})


def test_loading_runs_no_code_from_the_file(monkeypatch):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("code from the file was run",))

    model = keras_nuclei.unet(keras_nuclei.encoders.plain(filters=(2, 2)), decoder_filters=(2,))
    arrays = {variable.path: np.array([Trap()]) for variable in model.variables}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path, array in arrays.items():
            with archive.open(f"{path}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=True)
    monkeypatch.setattr(presets, "read_checked", lambda name, sha256: file.getvalue())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        presets.read_arrays(presets.PRESETS["nuclei_base"])
