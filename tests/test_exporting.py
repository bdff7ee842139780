"""Models leave Keras in each format, and its runtime says what Keras says."""

import keras
import numpy as np
import pytest

import keras_nuclei
from benchmarks import exports_table
from benchmarks.export_formats import FORMATS, TOLERANCE, largest_difference, run_keras
from benchmarks.exports import MOMENTUM, clean, settle

PLAIN = {"filters": (4, 8, 8), "batch_norm_momentum": MOMENTUM}
SETTLED = {"encoder_weights": None, "batch_norm_momentum": MOMENTUM}
MODELS = {
    "unet": lambda shape: keras_nuclei.unet(
        keras_nuclei.encoders.plain(shape, **PLAIN), batch_norm_momentum=MOMENTUM
    ),
    "unetplusplus": lambda shape: keras_nuclei.unetplusplus(
        keras_nuclei.encoders.plain(shape, **PLAIN),
        deep_supervision=1,
        batch_norm_momentum=MOMENTUM,
    ),
    "fpn": lambda shape: keras_nuclei.fpn(
        keras_nuclei.encoders.plain(shape, **PLAIN),
        heads={"foreground": 1, "distance": 2},
        decoder_stride=2,
        batch_norm_momentum=MOMENTUM,
    ),
    # Its first levels: the whole would take a minute to convert.
    "mobilenet_v3_small": lambda shape: keras_nuclei.unet(
        "mobilenet_v3_small",
        input_shape=shape,
        encoder_depth=2,
        decoder_filters=(8, 4),
        **SETTLED,
    ),
}
SHAPES = [(1, 13, 18, 3), (2, 21, 9, 3)]

# Of the packages by which Keras exports and by which the result runs, the one that is imported.
IMPORTED = {
    "keras": "keras",
    "saved_model": "tensorflow",
    "onnx": "onnxruntime",
    "litert": "ai_edge_litert",
    "openvino": "openvino",
}
# In its ONNX export, under NumPy 2, Keras looks for an old name.
pytestmark = pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")


@pytest.fixture(scope="module")
def models():
    """Models by name, with images and what Keras makes of them; built once."""
    built = {}

    def get(name):
        if name not in built:
            keras.utils.set_random_seed(0)
            model = MODELS[name]((None, None, 3))
            rng = np.random.default_rng(0)
            images = [rng.integers(0, 256, shape).astype("float32") for shape in SHAPES]
            settle(model, images[0])
            built[name] = model, images, [run_keras(model, each) for each in images]
        return built[name]

    return get


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", FORMATS)
def test_runtimes_agree_with_keras_at_any_size(models, name, format, tmp_path):
    if format != "keras" and keras.backend.backend() != "tensorflow":
        pytest.skip("exports are checked from TensorFlow, from which alone Keras can do them all")
    pytest.importorskip(IMPORTED[format])
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    model, images, expected = models(name)
    FORMATS[format].export(model, tmp_path)
    run = FORMATS[format].load(tmp_path)
    for each, outputs in zip(images, expected, strict=True):
        # Where probabilities are all alike, a wrong graph could be right.
        assert min(values.std() for values in outputs.values()) > 0.1
        assert largest_difference(outputs, run(each)) < TOLERANCE


def test_another_weight_is_seen(models):
    """What the comparison is for: 1 % in one kernel is above the tolerance."""
    model, images, expected = models("unet")
    kernel = next(weight for weight in model.weights if weight.path.endswith("kernel"))
    value = keras.ops.convert_to_numpy(kernel)
    kernel.assign(value * np.linspace(0.99, 1.01, value.shape[-1]))
    changed = run_keras(model, images[0])
    kernel.assign(value)
    assert largest_difference(expected[0], changed) > TOLERANCE


def test_the_difference_is_the_largest_of_all_outputs():
    expected = {"a": np.zeros((1, 2)), "b": np.ones((1, 2))}
    found = {"b": np.array([[1, 0.5]]), "a": np.array([[0.25, 0]]), "more": np.zeros(9)}
    assert largest_difference(expected, found) == 0.5
    # A single output has whatever name the format gives it.
    assert largest_difference({"head": np.zeros(2)}, {"Identity:0": np.array([0, 0.125])}) == 0.125


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": np.zeros(2)}, r"no outputs \['b'\]"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, r"b has the shape \(3,\), not \(2,\)"),
        ({"a": np.zeros(2), "b": np.array([0, np.nan])}, "not all finite"),
    ],
)
def test_outputs_that_cannot_be_compared(found, message):
    with pytest.raises(ValueError, match=message):
        largest_difference({"a": np.zeros(2), "b": np.zeros(2)}, found)


def test_messages_lose_what_is_of_one_machine():
    text = "In /usr/lib/some/file.py at 0x7fff12:\n  bad \x1b[31mop\x1b[0m, see https://a.org/b?c"
    assert clean(text) == "In ... at : bad op, see"
    assert len(clean("word " * 100)) == 300


def test_the_page_says_what_was_tried():
    error = {"errors": {"any": "No op."}}
    result = {
        "tolerance": TOLERANCE,
        "shapes": [[1, 97, 75], [2, 65, 131]],
        "environment": {"python": "3.11", "packages": {"keras": "3.15"}, "runtimes": {}},
        "models": {
            "small": {
                "parameters": 2_000_000,
                "formats": {
                    "keras": {"sizes": "any", "difference": 0.0, "bytes": 8_800_000},
                    "onnx": {"sizes": "fixed", "difference": 2e-6, "bytes": 1, **error},
                    "litert": error,
                },
            },
            "fpn small": {"parameters": 3_000_000, "formats": {}},
        },
    }
    page = exports_table.page(result, {"large": 70_000_000, "small": 1_500_000})
    nothing = " | ".join(["not tried"] * 5)
    small = "yes, 0e+00 | not tried | fixed, 2e-06 (1) | **fails** (1) | not tried"
    assert f"| `small` | 1.5 | {small} |\n| `large` | 70.0 | {nothing} |\n" in page
    assert f"| `fpn small` | 3.0 | {nothing} |" in page
    assert "\n1. No op.\n" in page
    # 8.8 MB for 2 M numbers of 4 bytes.
    assert "`.keras` 1.10" in page
    assert "1 of 97x75 and 2 of 65x131 pixels" in page
