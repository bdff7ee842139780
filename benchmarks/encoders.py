"""Write the table that `keras_nuclei.list_encoders` reads: what each encoder has when it is built.

    python -m benchmarks.encoders

Builds every encoder of the zoo with random weights, which takes some minutes.
"""

import csv
from pathlib import Path

import keras
from tqdm import tqdm

import keras_nuclei
from keras_nuclei.encoders import ENCODERS

TABLE = Path(keras_nuclei.__file__).parent / "encoders.csv"


def describe(encoder: keras.Model) -> dict[str, str]:
    """The entries of an encoder's row, by column, but for its name."""
    strides = [2 ** int(level[1:]) for level in encoder.output]
    channels = [features.shape[-1] for features in encoder.output.values()]
    return {
        "parameters": str(encoder.count_params()),
        "strides": " ".join(map(str, strides)),
        "channels": " ".join(map(str, channels)),
    }


def main() -> None:
    """Build every encoder and write the table."""
    rows = []
    for name in tqdm(ENCODERS, desc="encoders"):
        encoder = keras_nuclei.encoders.get_encoder(name, weights=None)
        rows.append({"name": name, **describe(encoder)})
        keras.backend.clear_session()
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} encoders in {TABLE}")


if __name__ == "__main__":
    main()
