"""Names for what signatures take and return.

Keras comes without types, so that its models, layers and tensors are `Any` to a type checker. The
names here tell a reader what they are all the same.
"""

import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import keras

FilePath: TypeAlias = str | os.PathLike[str]
"""The name of a file."""

Tensor: TypeAlias = Any
"""A tensor of the backend, symbolic or not, or a NumPy array or list that Keras makes one of."""

Shape: TypeAlias = tuple[int | Any, ...]
"""Of a tensor, the batch first. A size is None where it is not known, which only some may be."""

Config: TypeAlias = dict[str, Any]
"""Arguments by name, as `get_config` returns them."""

DType: TypeAlias = str | keras.DTypePolicy | None
"""What Keras takes as `dtype`; None for its default."""


class Sliceable(Protocol):
    """An image that may be larger than memory: it has a shape, and slices of it can be had.

    NumPy arrays and memory maps are, and so are the arrays of zarr and HDF5.

    Example:
        >>> import numpy as np
        >>> from keras_nuclei.typing import Sliceable
        >>> def corner(image: Sliceable) -> np.ndarray:
        ...     return np.asarray(image[:2, :2])
        >>> corner(np.eye(5)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and, where it has them, channels."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...


ArrayLike: TypeAlias = Sliceable | Sequence[Any]
"""What `numpy.asarray` makes an array of: an array of any kind, or lists of numbers."""
