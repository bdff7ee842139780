"""The reader of legacy PyTorch checkpoints, against PyTorch and against files put together by hand.

The files by hand follow `torch.serialization._legacy_save`: they name PyTorch's functions without
PyTorch being there, and they can say what PyTorch would never write.
"""

import io
import math
import pickle
import pickletools
import struct
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_nuclei.torch_checkpoint import read_state_dict

TORCH_DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
]


def literal(value: object) -> bytes:
    """The opcodes that push a plain value: its pickle without the frame around it."""
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor_opcodes(
    shape: object,
    strides: object,
    offset: object = 0,
    *,
    length: int = 6,
    key: str = "a",
    storage: bytes = b"ctorch\nFloatStorage\n",
) -> bytes:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())` as opcodes."""
    reference = b"(" + literal("storage") + storage + literal(key) + literal("cpu")
    reference += literal(length) + b"NtQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = reference + literal(offset) + literal(shape) + literal(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def checkpoint(
    entries: bytes = literal("weight") + tensor_opcodes((2, 3), (3, 1)),
    *,
    storages: dict[str, bytes] | None = None,
    keys: list[str] | None = None,
    magic_number: int = 0x1950A86A20F9469CFC6C,
    version: int = 1001,
    little_endian: bool = True,
) -> bytes:
    """A whole file. `entries` are the opcodes of the names and values of the state dict."""
    if storages is None:
        storages = {"a": storage_bytes(np.arange(6, dtype="<f4"))}
    header = [magic_number, version, {"little_endian": little_endian}]
    state = b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."
    parts = [pickle.dumps(value, protocol=2) for value in header]
    parts += [state, pickle.dumps(list(storages) if keys is None else keys, protocol=2)]
    return b"".join(parts + list(storages.values()))


def storage_bytes(values: np.ndarray) -> bytes:
    return struct.pack("<q", values.size) + values.tobytes()


def saved_by_torch(state: object) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_values_of_a_file_made_by_hand():
    state = read_state_dict(checkpoint())

    assert list(state) == ["weight"]
    assert state["weight"].dtype == np.float32
    np.testing.assert_array_equal(state["weight"], [[0, 1, 2], [3, 4, 5]])


def test_several_tensors_in_one_storage_get_values_of_their_own():
    entries = literal("rows") + tensor_opcodes((2, 3), (3, 1))
    entries += literal("columns") + tensor_opcodes((3, 2), (1, 3))
    state = read_state_dict(checkpoint(entries))

    state["rows"][:] = -1
    np.testing.assert_array_equal(state["columns"], [[0, 3], [1, 4], [2, 5]])


def test_attributes_of_the_state_dict_are_dropped():
    # PyTorch hangs the modules' version numbers onto the OrderedDict, by the opcode BUILD ("b").
    entries = literal("weight") + tensor_opcodes((6,), (1,)) + b"u" + literal({"_metadata": {}})
    content = checkpoint(entries + b"b(")

    assert list(read_state_dict(content)) == ["weight"]


def slow_read(
    shape: list[int], strides: list[int], offset: int, values: list[float]
) -> np.ndarray | None:
    """Fetch a tensor's values one by one; `None` if one lies outside or values are repeated."""
    count = math.prod(shape)
    places = [
        offset + sum(i * step for i, step in zip(index, strides, strict=True))
        for index in product(*(range(n) for n in shape))
    ]
    if count > len(values) or any(not 0 <= place < len(values) for place in places):
        return None
    return np.array([values[place] for place in places], np.float32).reshape(shape)


@settings(deadline=None)
@given(
    shape_and_strides=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=4),
    offset=st.integers(0, 12),
    length=st.integers(0, 40),
)
def test_any_layout_is_read_as_value_by_value_or_refused(shape_and_strides, offset, length):
    shape = tuple(n for n, _ in shape_and_strides)
    strides = tuple(step for _, step in shape_and_strides)
    values = np.arange(length, dtype="<f4")
    entries = literal("x") + tensor_opcodes(shape, strides, offset, length=length)
    content = checkpoint(entries, storages={"a": storage_bytes(values)})
    expected = slow_read(shape, strides, offset, values.tolist())

    if expected is None:
        with pytest.raises(ValueError, match="does not fit into its storage"):
            read_state_dict(content)
    else:
        np.testing.assert_array_equal(read_state_dict(content)["x"], expected)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 3), (3,), 0),
        ((2, 3), [3, 1], 0),
        ((-1, 3), (3, 1), 0),
        ((2, 3), (-3, 1), 5),
        ((6,), (1,), -1),
        ((6.0,), (1,), 0),
        ((0, 2**64), (1, 1), 0),
        ("ab", (1, 1), 0),
        ((2**40, 2**40), (0, 0), 0),
    ],
)
def test_impossible_layouts_are_refused(shape, strides, offset):
    with pytest.raises(ValueError, match="a tensor"):
        read_state_dict(checkpoint(literal("x") + tensor_opcodes(shape, strides, offset)))


@pytest.mark.parametrize(
    ("name", "opcodes"),
    [
        ("os.system", b"cos\nsystem\n(" + literal("touch {path}") + b"tR"),
        ("builtins.exec", b"cbuiltins\nexec\n(" + literal("open({path!r}, 'w')") + b"tR"),
        ("builtins.getattr", b"cbuiltins\ngetattr\n(NNtR"),
        # By the opcodes of protocol 4, which take the name from the stack, dots and all.
        (
            "collections.OrderedDict.fromkeys",
            b"\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93",
        ),
        ("torch.load", b"ctorch\nload\n"),
        ("torch.BFloat16Storage", b"ctorch\nBFloat16Storage\n"),
        ("torch._utils._rebuild_parameter", b"ctorch._utils\n_rebuild_parameter\n"),
    ],
)
def test_foreign_names_are_refused_and_not_run(name, opcodes, tmp_path):
    path = tmp_path / "ran"
    payload = opcodes.replace(literal("touch {path}"), literal(f"touch {path}"))
    payload = payload.replace(literal("open({path!r}, 'w')"), literal(f"open({str(path)!r}, 'w')"))

    with pytest.raises(ValueError, match=rf"refers to {name}, which is refused") as caught:
        read_state_dict(checkpoint(literal("x") + payload))
    assert not path.exists()
    assert "OrderedDict, torch._utils._rebuild_tensor_v2" in str(caught.value)


def test_the_payload_of_the_refusal_test_would_run_in_a_plain_unpickler(tmp_path):
    # Else the test above might pass because its payload is broken.
    path = tmp_path / "ran"
    source = literal(f"open({str(path)!r}, 'w').close()")
    pickle.loads(b"\x80\x02cbuiltins\nexec\n(" + source + b"tR.")

    assert path.exists()


def test_foreign_names_are_refused_in_every_pickle_of_the_file():
    content = checkpoint()
    attack = b"\x80\x02cos\ngetcwd\n)R."
    starts = [0]
    stream = io.BytesIO(content)
    for _ in range(4):
        for _opcode in pickletools.genops(stream):
            pass
        starts.append(stream.tell())

    for start in starts:
        with pytest.raises(ValueError, match=r"os\.getcwd, which is refused"):
            read_state_dict(content[:start] + attack + content[start:])


def test_what_a_pickle_sets_on_the_names_it_knows_does_not_outlive_it():
    # BUILD with a pair sets attributes on whatever lies on the stack, here on the constructor.
    tampered = b"ctorch._utils\n_rebuild_tensor_v2\n" + literal((None, {"__defaults__": (1, 2, 3)}))
    with pytest.raises(ValueError, match="flat state dict"):
        read_state_dict(checkpoint(literal("x") + tampered + b"b"))

    for name in [b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"]:
        with pytest.raises(ValueError, match="Could not read the state dict"):
            read_state_dict(checkpoint(literal("x") + name + literal((None, {"y": 1})) + b"b"))
    np.testing.assert_array_equal(read_state_dict(checkpoint())["weight"].ravel(), np.arange(6))


def test_every_truncation_is_refused():
    content = checkpoint()
    for length in range(len(content)):
        with pytest.raises(ValueError, match="truncated"):
            read_state_dict(content[:length])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "got a zip archive .*_use_new_zipfile_serialization=False"),
        (b"\x89PNG\r\n\x1a\n", "Could not read the magic number"),
        (checkpoint(magic_number=7), "begins with the magic number 0x1950a86a20f9469cfc6c"),
        (checkpoint(version=1000), "Expected version 1001 .* got 1000"),
        (checkpoint(little_endian=False), "little-endian machine, got {'little_endian': False}"),
        (checkpoint() + b"\0", "goes on for 1 bytes"),
        (checkpoint(literal("epoch") + literal(3)), "got the entry 'epoch': 3"),
        (checkpoint(literal(3) + tensor_opcodes((6,), (1,))), "got the entry 3: _Tensor"),
        (checkpoint(keys=["b"]), "does not name each of them once"),
        (checkpoint(keys=["a", "a"]), "does not name each of them once"),
        (checkpoint(keys=[]), "does not name each of them once"),
        (
            checkpoint(storages={"a": struct.pack("<q", 5) + bytes(24)}),
            "Storage 'a' has 5 values where 6 were announced",
        ),
        (
            checkpoint(literal("x") + tensor_opcodes((6,), (1,), storage=literal("<f16"))),
            "its reference to a storage is",
        ),
        (
            checkpoint(literal("x") + tensor_opcodes((1,), (1,), length=-1)),
            "its reference to a storage is",
        ),
        (
            checkpoint(
                literal("x")
                + tensor_opcodes((6,), (1,))
                + literal("y")
                + tensor_opcodes((5,), (1,), length=5)
            ),
            "does not name each of them once",
        ),
    ],
)
def test_other_files_are_refused_with_the_reason(content, message):
    with pytest.raises(ValueError, match=message):
        read_state_dict(content)


def test_a_checkpoint_must_hold_a_dict():
    # The state dict of the file is replaced by a list, the rest stays.
    content = checkpoint().replace(b"ccollections\nOrderedDict\n)R(", b"](", 1)
    head, tail = content.split(b"](", 1)
    with pytest.raises(ValueError, match="Expected the checkpoint to hold a dict, got list"):
        read_state_dict(head + b"](" + tail.replace(b"u.", b"e.", 1))


@settings(deadline=None)  # The first example pays for importing PyTorch.
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(TORCH_DTYPES),
    permute=st.booleans(),
    step=st.integers(1, 2),
)
def test_round_trip_from_torch(shape, dtype, permute, step):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(math.prod(shape)).reshape(shape).to(getattr(torch, dtype))
    if permute:
        tensor = tensor.permute(tuple(reversed(range(len(shape)))))
    if shape:
        tensor = tensor[::step]
    array = read_state_dict(saved_by_torch({"x": tensor}))["x"]

    assert array.dtype == dtype
    assert array.flags.owndata
    assert array.flags.writeable
    np.testing.assert_array_equal(array, tensor.numpy())


def test_round_trip_of_a_module_from_torch():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4))
    state = read_state_dict(saved_by_torch(module.state_dict()))

    assert list(state) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(state[name], tensor.numpy(), strict=True)


def test_a_module_saved_whole_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="refused"):
        read_state_dict(saved_by_torch(torch.nn.Linear(2, 2)))


def test_a_tensor_expanded_by_torch_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="does not fit into its storage of 1 values"):
        read_state_dict(saved_by_torch({"x": torch.zeros(1).expand(1000)}))
