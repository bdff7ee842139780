"""What runs the trained models: ONNX Runtime and Keras draw the same."""

import gc
import os
import pathlib
import sys
import types

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_nuclei
from keras_nuclei import presets, runtimes, segmentation


@pytest.fixture(scope="module", params=presets.PRESETS)
def both(request):
    return runtimes.onnx_runner(request.param), keras_nuclei.from_preset(request.param)


@pytest.fixture
def forget_presets():
    segmentation._preset.cache_clear()
    yield
    segmentation._preset.cache_clear()


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


def test_weights_live_as_long_as_what_runs_them(rng):
    images = rng.uniform(0, 255, (1, 64, 64, 3))
    run = runtimes.onnx_runner("nuclei_small")
    first = run(images)["distance"]
    gc.collect()
    rng.uniform(size=10**7)  # what was freed is written over
    np.testing.assert_array_equal(run(images)["distance"], first)


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 8, 1), (1, 8, 8)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, height, width, 3\); got \("):
        runtimes.onnx_runner("nuclei_small")(np.zeros(shape))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such thing on this system")
def test_threads_stay_on_the_processors_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        run = runtimes.onnx_runner("nuclei_small")
        assert run.session.get_session_options().intra_op_num_threads == 1
    finally:
        os.sched_setaffinity(0, allowed)
    before = {path.name for path in pathlib.Path("/proc/self/task").iterdir()}
    run = runtimes.onnx_runner("nuclei_small")
    assert run.session.get_session_options().intra_op_num_threads == len(allowed)
    threads = {path.name for path in pathlib.Path("/proc/self/task").iterdir()} - before
    assert all(os.sched_getaffinity(int(thread)) == allowed for thread in threads)


def test_a_damaged_graph_is_refused(monkeypatch):
    damaged = {**vars(presets.PRESETS["nuclei_base"]), "graph_sha256": "0" * 64}
    monkeypatch.setitem(presets.PRESETS, "nuclei_base", presets.Preset(**damaged))
    for make in (runtimes.onnx_runner, runtimes.fastest):
        with pytest.raises(ValueError, match=r"nuclei_base.onnx .*is damaged.* Install keras-nucl"):
            make("nuclei_base")


def test_on_a_processor_it_is_onnx_runtime():
    with keras.device("cpu"):
        run = runtimes.fastest("nuclei_small")
    assert not isinstance(run, keras.Model)


@pytest.mark.parametrize(
    ("device", "is_processor"),
    [
        ("/job:localhost/replica:0/task:0/device:CPU:0", True),  # TensorFlow
        ("/job:localhost/replica:0/task:0/device:GPU:0", False),
        ("TFRT_CPU_0", True),  # JAX
        ("cuda:0", False),  # JAX, Torch
        ("mps:0", False),
        ("cpu", True),
    ],
)
def test_elsewhere_it_is_keras(monkeypatch, device, is_processor):
    monkeypatch.setattr(keras.ops, "ones", lambda shape: types.SimpleNamespace(device=device))
    monkeypatch.setattr(runtimes, "onnx_runner", lambda name: "by ONNX Runtime")
    monkeypatch.setattr(runtimes, "from_preset", lambda name: "by Keras")
    expected = "by ONNX Runtime" if is_processor else "by Keras"
    assert runtimes.fastest("nuclei_small") == expected


def test_without_onnx_runtime_it_is_keras(monkeypatch, caplog, forget_presets):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    assert isinstance(runtimes.fastest("nuclei_small"), keras.Model)
    rows, columns = np.mgrid[:64, :64]
    image = (rows - 32) ** 2 + (columns - 32) ** 2 < 150
    assert keras_nuclei.segment(image, "nuclei_small").max() == 1
    assert not [record for record in caplog.records if record.name.startswith("keras_nuclei")]
    with pytest.raises(ImportError, match="Install it: pip install onnxruntime"):
        runtimes.onnx_runner("nuclei_small")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ImportError('built for another NumPy')", "built for another NumPy. Install it ag"),
        ("__version__ = '1.2'\nclass SessionOptions: pass", "onnxruntime 1.2 is too old. Upgrade"),
    ],
)
def test_an_onnx_runtime_that_fails_is_passed_over(monkeypatch, caplog, tmp_path, source, message):
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=message):
        runtimes.onnx_runner("nuclei_small")
    assert isinstance(runtimes.fastest("nuclei_small"), keras.Model)
    assert message[:20] in caplog.text
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)


def test_an_onnx_runtime_that_cannot_load_the_graph_is_passed_over(monkeypatch, caplog):
    onnxruntime = pytest.importorskip("onnxruntime")
    # A version of the format that no ONNX Runtime knows yet: field 1 of the file, ir_version.
    monkeypatch.setattr(runtimes, "read_checked", lambda *_: b"\x08\x7f")
    with pytest.raises(RuntimeError, match="ONNX Runtime can't load the model") as error:
        runtimes.onnx_runner("nuclei_small")
    assert type(error.value.__cause__).__module__.startswith(onnxruntime.__name__)
    monkeypatch.setattr(runtimes, "from_preset", lambda name: f"Keras's {name}")
    assert runtimes.fastest("nuclei_small") == "Keras's nuclei_small"
    assert (
        "Keras runs nuclei_small, not ONNX Runtime: ONNX Runtime can't load the model"
        in caplog.text
    )


@pytest.mark.parametrize("make", [runtimes.fastest, runtimes.onnx_runner])
def test_an_unknown_preset(make):
    with pytest.raises(ValueError, match="no preset 'nuclei'"):
        make("nuclei")


def test_segment_takes_what_is_fastest(monkeypatch, forget_presets):
    asked = []

    def fastest(name):
        asked.append(name)
        return lambda batch: dict.fromkeys(
            ("foreground", "distance"), np.zeros((*batch.shape[:3], 1), "float32")
        )

    monkeypatch.setattr(segmentation, "fastest", fastest)
    assert keras_nuclei.segment(np.zeros((20, 30)), "nuclei_small").max() == 0
    assert asked == ["nuclei_small"]


def test_the_graph_of_a_model_takes_its_weights(rng):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf2onnx converts what TensorFlow traces")
    from benchmarks import onnx_graphs

    encoder = keras_nuclei.encoders.plain(filters=(4, 4, 4))
    model = keras_nuclei.unet(encoder, decoder_filters=(8, 4), heads={"a": 1, "b": 2})
    for variable in model.variables:  # other statistics and biases than new ones
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    weights = {
        variable.path: onnxruntime.OrtValue.ortvalue_from_numpy(
            keras.ops.convert_to_numpy(variable)
        )
        for variable in model.variables
    }
    run = runtimes._OnnxModel(onnxruntime, onnx_graphs.graph(model), weights)
    images = rng.uniform(0, 255, (2, 33, 21, 3)).astype("float32")
    expected = model.predict_on_batch(images)
    found = run(images)
    assert set(found) == {"a", "b"}
    for head, values in expected.items():
        np.testing.assert_allclose(found[head], values, atol=2e-5)
