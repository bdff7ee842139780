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
        card: Name of the file beside it that says what it was trained on, how, and how well it
            does.
    """

    description: str
    architecture: dict
    file: str
    sha256: str
    card: str


PRESETS = {
    "nuclei_small": Preset(
        description="For where memory and time are short; a quarter of the size of nuclei_base.",
        architecture={
            "encoder": "efficientnet_lite0",
            "heads": {"foreground": 1, "distance": 1},
            "encoder_depth": 4,
            "decoder_filters": (64, 32, 24),
            "decoder_stride": 2,
            "upsampling": "nearest",
        },
        file="nuclei_small.npz",
        sha256="20bf43da3f6b8b7a2b3316ab62efa73d91919cf2081b822edb1eb1e38519c125",
        card="nuclei_small.md",
    ),
    "nuclei_base": Preset(
        description="Fluorescence, stained tissue and brightfield; images of any size.",
        architecture={
            "encoder": "efficientnet_lite0",
            "heads": {"foreground": 1, "distance": 1},
            "encoder_depth": 5,
            "decoder_filters": (128, 64, 48, 32),
            "decoder_stride": 2,
            "upsampling": "nearest",
        },
        file="nuclei_base.npz",
        sha256="13442b77a148c107ef1200ed2f4d0e3825a0f0aa1f4fc3188dee9218d6d9a17e",
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
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    model = unet(**preset.architecture, encoder_weights=None, name=name)
    load_weights(model, _read(preset))
    return model


def _read(preset: Preset) -> bytes:
    data = resources.files("keras_nuclei").joinpath("weights", preset.file).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != preset.sha256:
        raise ValueError(
            f"The weights {preset.file} of the installed package are damaged: their SHA-256 is "
            f"{digest}, not {preset.sha256}. Install keras-nuclei again."
        )
    return data


def load_weights(model: keras.Model, data: bytes) -> None:
    """Give a model the weights of a file that `benchmarks.package` has written.

    Args:
        model: Of the architecture that was saved.
        data: The file's bytes: NumPy's npz, an array for each variable under its path, convolution
            kernels in half precision.

    Raises:
        ValueError: If an array is missing, left over or of another shape.

    Example:
        >>> import io
        >>> import keras
        >>> import numpy as np
        >>> inputs = keras.Input((2,))
        >>> model = keras.Model(inputs, keras.layers.Dense(1, name="sum")(inputs))
        >>> file = io.BytesIO()
        >>> np.savez(file, **{"sum/kernel": np.ones((2, 1)), "sum/bias": np.zeros(1)})
        >>> load_weights(model, file.getvalue())
        >>> model.predict(np.array([[3, 4]]), verbose=0).tolist()
        [[7.0]]
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        variables = {variable.path: variable for variable in model.variables}
        unknown, missing = set(arrays.files) - set(variables), set(variables) - set(arrays.files)
        if unknown or missing:
            raise ValueError(
                f"The weights do not fit the model {model.name!r}: {sorted(missing)} are missing, "
                f"{sorted(unknown)} are left over."
            )
        for path, variable in variables.items():
            variable.assign(arrays[path].astype("float32"))
