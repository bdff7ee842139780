"""What runs the trained models: ONNX Runtime and Keras draw the same."""

import importlib.util
import sys
import types

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_nuclei
from keras_nuclei import presets, runtimes


@pytest.fixture(scope="module", params=presets.PRESETS)
def both(request):
    return runtimes.onnx_runner(request.param), keras_nuclei.from_preset(request.param)


@settings(max_examples=6, deadline=None)
@given(
    count=st.integers(1, 3),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    seed=st.integers(0, 2**32 - 1),
)
def test_onnx_runtime_draws_what_keras_draws_at_any_size(both, count, height, width, seed):
    run, model = both
    images = np.random.default_rng(seed).uniform(0, 255, (count, height, width, 3))
    images = images.astype("float32")
    found, expected = run(images), model(images)
    assert set(found) == set(expected)
    for head, values in found.items():
        assert values.shape == (count, height, width, 1)
        assert values.dtype == np.float32
        np.testing.assert_allclose(
            values, keras.ops.convert_to_numpy(expected[head]), atol=2e-5, rtol=0
        )


def test_nuclei_are_the_same_by_both(both):
    run, model = both
    rows, columns = np.mgrid[:150, :200]
    image = np.where((rows % 50 - 25) ** 2 + (columns % 50 - 25) ** 2 < 150, 900, 100)
    found, expected = (keras_nuclei.segment(image, each) for each in (run, model))
    assert found.max() == 12
    assert np.mean(found == expected) > 0.999


def test_a_damaged_graph_is_refused(monkeypatch):
    damaged = {**vars(presets.PRESETS["nuclei_base"]), "graph_sha256": "0" * 64}
    monkeypatch.setitem(presets.PRESETS, "nuclei_base", presets.Preset(**damaged))
    with pytest.raises(ValueError, match=r"nuclei_base.onnx .*is damaged.* Install keras-nuclei"):
        runtimes.onnx_runner("nuclei_base")


def test_here_keras_has_no_accelerator():
    # The machines that run these tests have none; what each backend calls a processor differs.
    assert not runtimes._has_accelerator()


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [
        ("/job:localhost/replica:0/task:0/device:CPU:0", True, "onnxruntime"),  # TensorFlow
        ("/job:localhost/replica:0/task:0/device:GPU:0", True, "keras"),
        ("TFRT_CPU_0", True, "onnxruntime"),  # JAX
        ("cuda:0", True, "keras"),  # JAX, Torch
        ("mps:0", True, "keras"),
        ("cpu", True, "onnxruntime"),
        ("cpu", False, "keras"),
    ],
)
def test_the_fastest_is_taken(monkeypatch, device, installed, expected):
    monkeypatch.setattr(keras.ops, "ones", lambda shape: types.SimpleNamespace(device=device))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(runtimes, "onnx_runner", lambda name: "onnxruntime")
    monkeypatch.setattr(runtimes, "from_preset", lambda name: "keras")
    assert runtimes.runner("nuclei_small") == expected


@pytest.mark.parametrize("make", [runtimes.runner, runtimes.onnx_runner])
def test_an_unknown_preset(make):
    with pytest.raises(ValueError, match="no preset 'nuclei'"):
        make("nuclei")


def test_without_onnx_runtime_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        runtimes.onnx_runner("nuclei_small")


def test_segment_takes_the_runner_of_a_name(monkeypatch):
    asked = []

    def runner(name):
        asked.append(name)
        return lambda batch: dict.fromkeys(
            ("foreground", "distance"), np.zeros((*batch.shape[:3], 1), "float32")
        )

    monkeypatch.setattr(keras_nuclei.segmentation, "runner", runner)
    keras_nuclei.segmentation._preset.cache_clear()
    assert keras_nuclei.segment(np.zeros((20, 30)), "nuclei_small").max() == 0
    assert asked == ["nuclei_small"]
    keras_nuclei.segmentation._preset.cache_clear()
