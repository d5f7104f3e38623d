"""Read the tensors of a PyTorch checkpoint (`.pth`) without running anything from it.

A checkpoint is a pickle, and unpickling may call any installed function. So there is no
unpickler: this module interprets the two dozen opcodes that `torch.save` writes for a
state dict, supports tensors, storages and ordered dicts, and refuses all others. Both
formats are read: the legacy one (five pickles, then an int64 count and raw numbers for
each storage) and the zip that PyTorch 1.6 and later write
(pytorch.org/docs/stable/notes/serialization.html).

Quantized, sparse and bfloat16 tensors are refused; so are checkpoints of whole modules.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError

LARGEST = 2**30  # bytes; EfficientNet-Lite4 has 52 MB
_MAX_OPCODES = 10**6  # of a pickle; EfficientNet-Lite4 has 25,000
_MAGIC = 0x1950A86A20F9469CFC6C  # the legacy format's first pickle
_PROTOCOL = 1001  # its second
_ZIP = b"PK\x03\x04"
_MAX_RANK = 8
_STATE_DICT = "state_dict"  # of a training checkpoint

_DTYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "<i1",
    "torch ByteStorage": "<u1",
    "torch BoolStorage": "<?",
}
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_GLOBALS = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_DTYPES}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

Array = npt.NDArray[np.generic]


class _Refused(ValueError):
    """Not what torch.save writes for a state dict."""


@dataclass(frozen=True)
class _Global:
    name: str  # module, a space, name


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements, not bytes


_MARK = object()


def _expect(ok: bool, what: str) -> None:
    if not ok:
        raise _Refused(what)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _counts(value: object) -> tuple[int, ...]:
    _expect(isinstance(value, tuple) and all(map(_is_count, value)), "a bad shape")
    assert isinstance(value, tuple)
    _expect(len(value) <= _MAX_RANK, f"a tensor of rank {len(value)}")
    return value


def _storage(persistent_id: object) -> _Storage:
    _expect(
        isinstance(persistent_id, tuple) and len(persistent_id) in (5, 6),
        "a bad persistent id",
    )
    assert isinstance(persistent_id, tuple)
    kind, dtype, key, _, count, *view = persistent_id
    _expect(kind == "storage" and view in ([], [None]), "a bad persistent id")
    _expect(isinstance(dtype, _Global) and dtype.name in _DTYPES, "a bad storage")
    _expect(isinstance(key, str) and _is_count(count), "a bad storage")
    return _Storage(key, _DTYPES[dtype.name], count)


def _tensor(storage: object, offset: object, shape: object, strides: object) -> _Tensor:
    if not (isinstance(storage, _Storage) and _is_count(offset)):
        raise _Refused("a tensor without numbers")
    assert isinstance(offset, int)
    tensor = _Tensor(storage, offset, _counts(shape), _counts(strides))
    _expect(len(tensor.shape) == len(tensor.strides), "a bad shape")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    # the second condition: no element of the storage is repeated to fill memory
    fits = (
        0 in tensor.shape
        or offset + sum((size - 1) * stride for size, stride in steps) < storage.count
    ) and math.prod(tensor.shape) <= storage.count
    _expect(fits, f"a tensor {tensor.shape} of {storage.count} numbers")
    return tensor


def _call(function: object, arguments: object) -> Any:
    """The result of REDUCE for the supported functions."""
    _expect(isinstance(function, _Global), "a call of no function")
    _expect(isinstance(arguments, tuple), "a call without arguments")
    assert isinstance(function, _Global) and isinstance(arguments, tuple)
    if function.name == _ORDERED_DICT and not arguments:
        return {}
    if function.name == _TENSOR and len(arguments) in (6, 7):
        return _tensor(*arguments[:4])
    if function.name == _PARAMETER and len(arguments) == 3:
        _expect(isinstance(arguments[0], _Tensor), "a parameter without a tensor")
        return arguments[0]
    raise _Refused(f"a call of {function.name.replace(' ', '.')}")


def _set_items(target: object, items: list[Any]) -> None:
    _expect(isinstance(target, dict) and len(items) % 2 == 0, "a bad dict")
    assert isinstance(target, dict)
    keys = items[::2]
    _expect(all(type(key) in (str, int) for key in keys), "a key that is no text")
    target.update(zip(keys, items[1::2], strict=True))


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (top := stack.pop()) is not _MARK:
        items.append(top)
    return items[::-1]


def _interpret(stream: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """The value of the pickle at the stream's position; nothing is called for it.

    storages: filled with those in the pickle.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for index, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        _expect(index < _MAX_OPCODES, "a pickle that is too long")
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            _expect(argument in _GLOBALS, f"the name {argument!r:.60}")
            stack.append(_Global(argument))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(items[::-1]))
        elif name == "TUPLE":
            stack.append(tuple(_pop_to_mark(stack)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _pop_to_mark(stack)
            _expect(isinstance(stack[-1], list), "a bad list")
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                items = [key, value]
            else:
                items = _pop_to_mark(stack)
            _set_items(stack[-1], items)
        elif name == "BINPERSID":
            storage = _storage(stack.pop())
            stack.append(storage)
            if storages is not None:
                first = storages.setdefault(storage.key, storage)
                _expect(first == storage, "a storage of two kinds")
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":  # attributes of an ordered dict: ignored
            stack.pop()
            _expect(isinstance(stack[-1], dict), "attributes of no dict")
        elif name == "STOP":
            return stack.pop()
        else:
            _expect(name == "PROTO", f"the pickle opcode {name}")
    raise _Refused("a pickle without an end")


def _tensors(state: object) -> dict[str, _Tensor]:
    """The tensors by name; of a training checkpoint, those of its state dict."""
    if isinstance(state, dict) and isinstance(state.get(_STATE_DICT), dict):
        state = state[_STATE_DICT]
    _expect(isinstance(state, dict), "no state dict")
    assert isinstance(state, dict)
    tensors = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, _Tensor)
    }
    _expect(bool(tensors), "a state dict without tensors")
    return tensors


def _legacy(data: bytes) -> dict[str, Array]:
    stream = io.BytesIO(data)
    _expect(_interpret(stream) == _MAGIC, "no magic number of PyTorch")
    _expect(_interpret(stream) == _PROTOCOL, "another version of the format")
    system = _interpret(stream)
    little = isinstance(system, dict) and system.get("little_endian") is True
    _expect(little, "big-endian numbers")
    storages: dict[str, _Storage] = {}
    tensors = _tensors(_interpret(stream, storages))
    keys = _interpret(stream)
    _expect(
        isinstance(keys, list) and all(isinstance(key, str) for key in keys),
        "bad storage keys",
    )
    arrays: dict[str, Array] = {}
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack_from("<q", data, position)
        _expect(count == storage.count, "a storage of another length")
        position += 8
        arrays[key] = np.frombuffer(data, storage.dtype, count, position)
        position += arrays[key].nbytes
    return {name: _view(tensor, arrays) for name, tensor in tensors.items()}


def _zip(data: bytes) -> dict[str, Array]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        _expect(len(pickles) == 1, "no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            member = members[folder + name]
            stored = member.compress_type == zipfile.ZIP_STORED
            _expect(stored, "compressed members, which torch.save doesn't write")
            return archive.read(member)

        if folder + "byteorder" in members:
            _expect(content("byteorder") == b"little", "big-endian numbers")
        tensors = _tensors(_interpret(io.BytesIO(content("data.pkl")), {}))
        arrays: dict[str, Array] = {}
        for storage in {tensor.storage for tensor in tensors.values()}:
            array = np.frombuffer(content(f"data/{storage.key}"), storage.dtype)
            _expect(len(array) == storage.count, "a storage of another length")
            arrays[storage.key] = array
    return {name: _view(tensor, arrays) for name, tensor in tensors.items()}


def _view(tensor: _Tensor, arrays: dict[str, Array]) -> Array:
    array = arrays[tensor.storage.key]
    return np.lib.stride_tricks.as_strided(
        array[tensor.offset :] if 0 not in tensor.shape else array[:0],
        tensor.shape,
        tuple(stride * array.itemsize for stride in tensor.strides),
        writeable=False,
    )


def read(path: Path) -> dict[str, Array]:
    """The tensors of a checkpoint by their names, in the order of the file; read-only.

    EdgegraftError for a damaged file or one that is no checkpoint of plain tensors.
    """
    try:
        size = path.stat().st_size
        _expect(size <= LARGEST, f"{size:,} bytes, more than {LARGEST:,}")
        data = path.read_bytes()
        return _zip(data) if data.startswith(_ZIP) else _legacy(data)
    except OSError as error:
        reason = error.strerror or str(error)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        reason = f"a damaged zip archive ({error})"
    except _Refused as error:
        reason = str(error)
    # what pickletools, struct and numpy raise for meaningless bytes
    except (ValueError, LookupError, TypeError, OverflowError, struct.error, EOFError):
        reason = "a damaged file, or one of another format"
    raise EdgegraftError(
        f"expected a PyTorch checkpoint of plain tensors in {path}, got "
        f"{' '.join(reason.split())[:160]}"
    )
