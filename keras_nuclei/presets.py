"""Trained models that come with the package: no download, and no code in their files."""

import dataclasses
import hashlib
import io
from importlib import resources

import keras
import numpy as np

from keras_nuclei.unet import unet


@dataclasses.dataclass(frozen=True)
class Preset:
    """A trained model.

    Attributes:
        description: What it is for, in a line.
        architecture: Keyword arguments of `keras_nuclei.unet`.
        file: Name of the file of weights in `keras_nuclei/weights`.
        sha256: Of that file, 64 hexadecimal digits.
        graph: Name of the ONNX file beside it: the same model without weights, which
            `keras_nuclei.runtimes` runs.
        graph_sha256: Of that file.
        card: Name of the file beside it that says what it was trained on, how, and how well it
            does.
    """

    description: str
    architecture: dict
    file: str
    sha256: str
    graph: str
    graph_sha256: str
    card: str


PRESETS = {
    "nuclei_small": Preset(
        description="A sixth of the size of nuclei_base, and sooner done.",
        architecture={
            "encoder": "efficientnet_lite0",
            "heads": {"foreground": 1, "distance": 1},
            "encoder_depth": 4,
            "decoder_filters": (64, 32, 24),
            "decoder_stride": 2,
            "upsampling": "nearest",
        },
        file="nuclei_small.npz",
        sha256="4c22aff576fb32ca174c926d25946110fd812780497727aca0d3c8dd361191fa",
        graph="nuclei_small.onnx",
        graph_sha256="06c0ff83ba36950b0d4466dc8b7e9801bc0005f7d663f020f02d01eaeab77d50",
        card="nuclei_small.md",
    ),
    "nuclei_base": Preset(
        description="Fluorescence, stained tissue and brightfield; images of any size.",
        architecture={
            "encoder": "efficientnet_lite2",
            "heads": {"foreground": 1, "distance": 1},
            "encoder_depth": 5,
            "decoder_filters": (128, 64, 48, 32),
            "decoder_stride": 2,
            "upsampling": "nearest",
        },
        file="nuclei_base.npz",
        sha256="1d939c9d436ecaaa5770023b59cb4895ffe35d1ef76d75685abd940e2888b596",
        graph="nuclei_base.onnx",
        graph_sha256="cd2e77b07c4e4bb8812adb1ae71b7df426babd9730bd4e7fbbcae8c2a922278f",
        card="nuclei_base.md",
    ),
}
"""Trained models by name."""


def from_preset(name: str) -> keras.Model:
    """Build a trained model.

    Args:
        name: A name in `keras_nuclei.PRESETS`.

    Returns:
        A functional model from images `(batch, height, width, 3)` of any size, values 0..255, to a
        dict of its heads, each `(batch, height, width, 1)`, float32, 0..1: `"foreground"`, the
        probability that a pixel lies in a nucleus, and `"distance"`, how deep it lies there, from 0
        at the rim to 1 in the middle. `keras_nuclei.segment` makes nuclei of them.

    Raises:
        ValueError: If there is no preset of that name, or its file is damaged.

    Example:
        >>> import numpy as np
        >>> import keras_nuclei
        >>> model = keras_nuclei.from_preset("nuclei_base")
        >>> outputs = model(np.zeros((1, 61, 40, 3), "uint8"))
        >>> {head: tuple(values.shape) for head, values in sorted(outputs.items())}
        {'distance': (1, 61, 40, 1), 'foreground': (1, 61, 40, 1)}
    """
    preset = find_preset(name)
    model = unet(**preset.architecture, encoder_weights=None, name=name)
    assign_weights(model, read_arrays(preset))
    return model


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ValueError: If there is none.

    Example:
        >>> find_preset("nuclei_small").file
        'nuclei_small.npz'
    """
    if name not in PRESETS:
        raise ValueError(
            f"There is no preset {name!r}. There are: {', '.join(PRESETS)}. A model in a file is "
            "loaded first: keras.saving.load_model(path)."
        )
    return PRESETS[name]


def read_checked(file: str, sha256: str) -> bytes:
    """Read a file of the package, and refuse a damaged one.

    Args:
        file: Its name in `keras_nuclei/weights`.
        sha256: What its SHA-256 must be, 64 hexadecimal digits.

    Raises:
        ValueError: If it is another.

    Example:
        >>> preset = PRESETS["nuclei_small"]
        >>> len(read_checked(preset.file, preset.sha256)) < 2e6
        True
    """
    data = resources.files("keras_nuclei").joinpath("weights", file).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"The file {file} of the installed package is damaged: its SHA-256 is {digest}, not "
            f"{sha256}. Install keras-nuclei again."
        )
    return data


def read_arrays(preset: Preset) -> dict[str, np.ndarray]:
    """Read the weights of a preset; running no code, whatever is in the file.

    Returns:
        An array for each variable under its path, convolution kernels in half precision.

    Raises:
        ValueError: If the file is damaged.

    Example:
        >>> arrays = read_arrays(PRESETS["nuclei_small"])
        >>> arrays["foreground/convolution/kernel"].dtype
        dtype('float16')
    """
    data = read_checked(preset.file, preset.sha256)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def assign_weights(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Give a model the weights that `read_arrays` has read.

    Args:
        model: Of the architecture that was saved.
        arrays: An array for each variable under its path.

    Raises:
        ValueError: If an array is missing, left over or of another shape.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> inputs = keras.Input((2,))
        >>> model = keras.Model(inputs, keras.layers.Dense(1, name="sum")(inputs))
        >>> assign_weights(model, {"sum/kernel": np.ones((2, 1)), "sum/bias": np.zeros(1)})
        >>> model.predict(np.array([[3, 4]]), verbose=0).tolist()
        [[7.0]]
    """
    variables = {variable.path: variable for variable in model.variables}
    unknown, missing = arrays.keys() - variables.keys(), variables.keys() - arrays.keys()
    if unknown or missing:
        raise ValueError(
            f"The weights do not fit the model {model.name!r}: {sorted(missing)} are missing, "
            f"{sorted(unknown)} are left over."
        )
    for path, variable in variables.items():
        variable.assign(arrays[path].astype("float32"))
