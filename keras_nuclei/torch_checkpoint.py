"""Read the state dict in a legacy PyTorch checkpoint, without PyTorch.

Before version 1.6, and still on request, `torch.save` wrote a run of pickles (magic number, format
version, facts about the machine, the object, the storages' keys) and after them the raw values of
each storage. A pickle is a program: loading one from a stranger may run anything. The unpickler
here knows a fixed handful of names, each bound to a plain constructor of ours, and refuses every
other name, so nothing is ever imported or called on the file's behalf.
"""

import io
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_FORMAT_VERSION = 1001
_INT64_MAX = 2**63 - 1

# Values are little-endian in the file whatever the machine; the header is checked for it. The
# dtypes are strings because the pickle gets hold of them, and a string cannot be tampered with.
_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
}


class _Storage(NamedTuple):
    """A run of `length` values in the file, found by its `key`."""

    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    """How a tensor lies in its storage; offset and strides count values, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateDict(dict):
    """Stands in for the OrderedDict of a state dict and drops the attributes stored with it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        # Only `_metadata`, the version numbers of the modules, which NumPy arrays do not need.
        pass


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names that a state dict needs and no other."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)

        # Made anew for each file: a pickle may set attributes on a function, and what it sets must
        # not outlive it. Whether gradients and hooks were wanted (`_rest`) is of no use here.
        def rebuild_tensor(
            storage: object, offset: object, shape: object, strides: object, *_rest: object
        ) -> _Tensor:
            return _checked_tensor(storage, offset, shape, strides)

        self._known: dict[tuple[str, str], Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): _StateDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Callable[..., Any] | str:
        """Look a name up in the fixed table instead of importing it."""
        if (module, name) not in self._known:
            known = ", ".join(".".join(pair) for pair in self._known)
            raise pickle.UnpicklingError(
                f"it refers to {module}.{name}, which is refused because loading it could run "
                f"foreign code; a state dict of dense tensors needs only {known}"
            )
        return self._known[module, name]

    def persistent_load(self, pid: object) -> _Storage:
        """Turn a reference to a storage into its record; the values come later in the file."""
        match pid:
            case ("storage", str(dtype), str(key), _, int(length), None) if (
                dtype in _STORAGE_DTYPES.values() and 0 <= length <= _INT64_MAX
            ):
                return _Storage(key, dtype, length)
        raise pickle.UnpicklingError(
            f"its reference to a storage is {pid!r}; expected ('storage', type, key, device, "
            "number of values, None)"
        )


def read_state_dict(content: bytes) -> dict[str, np.ndarray]:
    """Read the tensors from the bytes of a legacy PyTorch checkpoint.

    Runs no code from the file. It does not defend against files made to exhaust memory: compare a
    checksum first where the file may have been exchanged.

    Args:
        content: The whole file, as written by
            `torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)` or by any
            `torch.save` before PyTorch 1.6.

    Returns:
        One array per tensor, by name, in the file's order. Shapes and axis order are PyTorch's,
        the dtype is the tensor's. The arrays own their values and share none.

    Raises:
        ValueError: If the content is no such checkpoint: another format, truncated, followed by
            further bytes, not a flat state dict of dense tensors, a name outside the handful that
            a state dict needs, or a tensor that reaches outside its storage.

    Example:
        >>> from keras_nuclei.torch_checkpoint import read_state_dict
        >>> read_state_dict(b"PK.. and the rest of a newer file")
        Traceback (most recent call last):
            ...
        ValueError: Expected a PyTorch checkpoint in the legacy format, got a zip archive (the \
format since PyTorch 1.6). Save it again with `_use_new_zipfile_serialization=False`.
    """
    if content.startswith(b"PK"):
        raise ValueError(
            "Expected a PyTorch checkpoint in the legacy format, got a zip archive (the format "
            "since PyTorch 1.6). Save it again with `_use_new_zipfile_serialization=False`."
        )
    stream = io.BytesIO(content)
    _check_header(stream)
    tensors = _unpickle(stream, "the state dict")
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected the checkpoint to hold a dict, got {type(tensors).__name__}.")
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, _Tensor)):
            raise ValueError(
                "Expected a flat state dict, from names to tensors, got the entry "
                f"{name!r:.40}: {tensor!r:.40}. Save `model.state_dict()` alone."
            )
    keys = _unpickle(stream, "the list of storages")
    storages = _read_storages(content, stream.tell(), keys, {t.storage for t in tensors.values()})
    return {
        name: _copy_values(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()
    }


def _unpickle(stream: io.BytesIO, what: str) -> Any:
    try:
        return _RestrictedUnpickler(stream).load()
    # A damaged pickle fails in whatever way its bytes happen to spell, so no list would do.
    except Exception as error:
        raise ValueError(
            f"Could not read {what} from the PyTorch checkpoint: {error or type(error).__name__}. "
            "If it should be sound, it may be truncated or corrupt: fetch it again."
        ) from error


def _check_header(stream: io.BytesIO) -> None:
    magic_number = _unpickle(stream, "the magic number")
    if magic_number != _MAGIC_NUMBER:
        raise ValueError(
            "Expected a PyTorch checkpoint in the legacy format, which begins with the magic "
            f"number {_MAGIC_NUMBER:#x}; this file does not."
        )
    version = _unpickle(stream, "the format version")
    if version != _FORMAT_VERSION:
        raise ValueError(
            f"Expected version {_FORMAT_VERSION} of the checkpoint format, got {version!r}."
        )
    machine = _unpickle(stream, "the facts about the machine")
    if not (isinstance(machine, dict) and machine.get("little_endian") is True):
        raise ValueError(
            f"Expected a checkpoint from a little-endian machine, got {machine!r}. Save it again "
            "on such a machine."
        )


def _checked_tensor(storage: object, offset: Any, shape: object, strides: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError(f"a tensor's storage is {storage!r}, not a storage reference")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)):
        raise pickle.UnpicklingError(
            f"a tensor has shape {shape!r} and strides {strides!r}; expected two tuples of one "
            "length"
        )
    if not all(type(n) is int and 0 <= n <= _INT64_MAX for n in (offset, *shape, *strides)):
        raise pickle.UnpicklingError(
            f"a tensor has offset {offset!r}, shape {shape!r} and strides {strides!r}; expected "
            "whole numbers from 0 on"
        )
    tensor = _Tensor(storage, offset, shape, strides)
    # An expanded tensor repeats values; a few bytes could then stand for terabytes. No state dict
    # has one, so a tensor may hold no more values than its storage.
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if size and (last >= storage.length or size > storage.length):
        raise pickle.UnpicklingError(
            f"a tensor with offset {offset}, shape {shape} and strides {strides} does not fit "
            f"into its storage of {storage.length} values"
        )
    return tensor


def _read_storages(
    content: bytes, position: int, keys: object, expected: set[_Storage]
) -> dict[str, np.ndarray]:
    """Map each storage's key to a flat, read-only view of its values in `content`."""
    by_key = {storage.key: storage for storage in expected}
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(s.key for s in expected):
        raise ValueError(
            f"The checkpoint's tensors refer to {len(expected)} storages and its list of storages "
            "does not name each of them once: the file is corrupt, fetch it again."
        )
    views = {}
    for key in keys:
        storage = by_key[key]
        start = position + 8  # Each storage is led by its number of values, 8 bytes.
        position = start + storage.length * np.dtype(storage.dtype).itemsize
        if position > len(content):
            raise ValueError(
                f"The checkpoint is truncated: it ends after {len(content)} bytes, but storage "
                f"{key!r} reaches to byte {position}. Fetch it again."
            )
        (length,) = struct.unpack_from("<q", content, start - 8)
        if length != storage.length:
            raise ValueError(
                f"Storage {key!r} has {length} values where {storage.length} were announced: the "
                "file is corrupt, fetch it again."
            )
        views[key] = np.frombuffer(content, storage.dtype, storage.length, offset=start)
    if position != len(content):
        raise ValueError(
            f"The checkpoint goes on for {len(content) - position} bytes after its last storage: "
            "expected one object per file."
        )
    return views


def _copy_values(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        return np.empty(tensor.shape, values.dtype)
    steps = [step * values.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, steps, writeable=False
    )
    return view.copy()
