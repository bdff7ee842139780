"""Put the weights of a trained run into the package, as the preset that it is named after.

    python -m benchmarks.package runs/nuclei_base-all

writes `keras_nuclei/weights/nuclei_base.npz` and prints the SHA-256 to note in
`keras_nuclei/presets.py`. Heads that the preset has not, which helped to learn the others, stay
behind.
"""

import argparse
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import keras
import numpy as np

import keras_nuclei
from benchmarks.presets import recipe_of
from benchmarks.runs import as_json
from keras_nuclei.presets import PRESETS

WEIGHTS = Path(keras_nuclei.__file__).parent / "weights"


def main(argv: list[str] | None = None) -> Path:
    """Package as the command line says and return the path of the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that benchmarks.presets has written")
    parser.add_argument("--overwrite", action="store_true", help="replace packaged weights")
    args = parser.parse_args(argv)
    training = json.loads((args.run / "train.json").read_text())
    name = training["preset"]
    if (training["data"], training["split"]) != ("dsb2018", "all"):
        parser.error(f"{args.run} is not a run on all of DSB2018, which a preset is trained on")
    recipe = recipe_of(name, "all", further=bool(training.get("continues")))
    preset = {"architecture": PRESETS[name].architecture, "recipe": dataclasses.asdict(recipe)}
    for part, wanted in as_json(preset).items():
        # By layers alone, the larger of two encoders would pass for the smaller.
        found = training.get(part)  # runs from before it was written down have no architecture
        if found != wanted:
            parser.error(
                f"{args.run} is a trial: its {part} is {found}, that of {name} {wanted}. "
                "Where it is to be the preset's, note it in the code first"
            )
    trained = keras.models.load_model(args.run / "model.keras", compile=False)
    path = WEIGHTS / PRESETS[name].file
    if path.exists() and not args.overwrite:
        parser.error(f"{path} exists; pass --overwrite to replace it")
    path.parent.mkdir(exist_ok=True)
    data = pack(trained, keras_nuclei.unet(**PRESETS[name].architecture, encoder_weights=None))
    path.write_bytes(data)
    print(f"{path}: {len(data) / 1e6:.2f} MB, SHA-256 {hashlib.sha256(data).hexdigest()}")
    return path


def pack(trained: keras.Model, wanted: keras.Model) -> bytes:
    """The weights that a model wants of a trained one, as `keras_nuclei.presets` reads them.

    Convolution kernels, nearly all of the bytes, are stored in half precision; what normalizes
    them, which would suffer, in single precision.

    Raises:
        ValueError: If the models differ in more than their heads.
    """
    have = {variable.path: variable for variable in trained.variables}
    missing = [variable.path for variable in wanted.variables if variable.path not in have]
    if missing:
        raise ValueError(f"The trained model lacks {missing}: it is of another architecture.")
    arrays = {}
    for variable in wanted.variables:
        array = keras.ops.convert_to_numpy(have[variable.path])
        if array.shape != tuple(variable.shape):
            raise ValueError(
                f"{variable.path} has the shape {array.shape}; the preset's is {variable.shape}."
            )
        arrays[variable.path] = array.astype("float16" if array.ndim == 4 else "float32")
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


if __name__ == "__main__":
    main()
