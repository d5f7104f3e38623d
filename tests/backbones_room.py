"""What tests of networks share: counted multiply-adds, checkpoints as PyTorch writes.

One multiply-add is one weight times one number, added to a sum; convolutions and
dense layers are counted, as the papers of the networks do (arXiv:1801.04381, table 4),
the rest (batch norm, which folds away; activations; additions) is not.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import math
import pickle
import struct
import sys
import unittest.mock
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import keras
from backbones.record import INT8, Backbone, Published

STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}


def multiply_adds(model: Any) -> int:
    """Multiply-adds of a tf-keras model for one photo of its fixed input size."""
    return sum(_layer(layer) for layer in model.layers)


def _layer(layer: Any) -> int:
    kind = type(layer).__name__
    if hasattr(layer, "layers"):
        return multiply_adds(layer)
    if kind == "Dense":
        return math.prod(layer.kernel.shape)
    if kind == "SeparableConv2D":
        places = math.prod(layer.output_shape[1:3])
        kernels = layer.depthwise_kernel, layer.pointwise_kernel
        return places * sum(math.prod(kernel.shape) for kernel in kernels)
    if kind == "DepthwiseConv2D":
        return math.prod(layer.output_shape[1:3]) * math.prod(
            layer.depthwise_kernel.shape
        )
    if kind == "Conv2D":
        return math.prod(layer.output_shape[1:3]) * math.prod(layer.kernel.shape)
    return 0


class _Tensor:
    """Pickled as PyTorch pickles a tensor: a call on a storage that is stored apart."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.array
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = _Storage(_numbers(array))
        arguments = (storage, 0, array.shape, strides, False, OrderedDict())
        return _torch("_utils")._rebuild_tensor_v2, arguments


@dataclass(frozen=True, eq=False)
class _Storage:
    numbers: npt.NDArray[Any]


def _numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """All numbers of an array, in the order they lie in memory."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return array.transpose(axes).ravel()


def _torch(name: str = "") -> Any:
    return sys.modules["torch" + ("." + name if name else "")]


def _stand_ins() -> dict[str, ModuleType]:
    """Modules of the names that PyTorch's pickles hold; pickling looks these up."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    return {"torch": torch, "torch._utils": utils}


def write_checkpoint(
    path: Path, arrays: Mapping[str, Any], *, zipped: bool = False, **more: Any
) -> Path:
    """What `torch.save` writes for a state dict; `more` makes it a training checkpoint.

    Values that are no arrays are pickled as they are.
    """
    state: Any = OrderedDict()
    for name, value in arrays.items():
        state[name] = _Tensor(value) if isinstance(value, np.ndarray) else value
    if more:
        state = {"state_dict": state, **more}
    storages: dict[str, npt.NDArray[Any]] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, _Storage):
                return None
            key = str(len(storages))
            storages[key] = value.numbers
            kind = getattr(_torch(), STORAGES[value.numbers.dtype.str[1:]])
            tail = () if zipped else (None,)
            return ("storage", kind, key, "cpu", len(value.numbers), *tail)

    stream = io.BytesIO()
    with unittest.mock.patch.dict(sys.modules, _stand_ins()):
        Pickler(stream, 2).dump(state)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", stream.getvalue())
            archive.writestr("archive/byteorder", "little")
            for key, numbers in storages.items():
                archive.writestr(f"archive/data/{key}", numbers.tobytes())
        return path
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    parts = [pickle.dumps(value, 2) for value in head]
    parts += [stream.getvalue(), pickle.dumps(list(storages), 2)]
    for numbers in storages.values():
        parts += [struct.pack("<q", len(numbers)), numbers.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


# -- a record and Keras ----------------------------------------------------------------
def keras_own(record: Backbone) -> tuple[Any, Any]:
    """(Keras's module of a record's network, its function for that very network)."""
    keras()
    family, _, rest = record.name.rpartition("_")
    options: dict[str, Any] = {}
    if record.family.startswith("efficientnet"):
        function = family.replace("efficientnet", "EfficientNet").replace("_v", "V")
        module, function = record.family, function + rest.upper()
    elif record.family == "nasnet":
        module, function = "nasnet", "NASNetMobile"
    elif record.family == "mobilenet_v3":
        module = record.family
        function = "MobileNetV3" + ("Small" if "small" in record.name else "Large")
        minimalistic = rest == "minimalistic"
        options = {"minimalistic": minimalistic}
        options |= {} if minimalistic else {"alpha": float(rest)}
    else:
        module = {"mobilenet_v1": "mobilenet"}.get(record.family, record.family)
        function = {"mobilenet": "MobileNet"}.get(module, "MobileNetV2")
        options = {"alpha": float(rest)}
    found = importlib.import_module(f"tf_keras.src.applications.{module}")
    return found, functools.partial(getattr(found, function), **options)


def wrong_facts(record: Backbone, extractor: Any) -> list[str]:
    """What a record says wrongly of its extractor."""
    names = [layer.name for layer in extractor.layers]
    kinds = [type(layer).__name__ for layer in extractor.layers]
    size = extractor.input_shape[1]
    facts = {
        "input shape": extractor.input_shape == (None, size, size, 3),
        "output shape": len(extractor.output_shape) == 2,
        "parameters": extractor.count_params() == record.parameters,
        "int8": bool(record.int8_reason) and record.int8 in INT8,
        "scaling": not {"Rescaling", "Normalization"} & set(kinds),  # it would be twice
        "top": not record.accuracy or record.top in names[len(names) // 2 :],
    }
    return [name for name, true in facts.items() if not true]


def wrong_downloads(record: Backbone, smallest: int) -> list[str]:
    """Files of ImageNet weights that Keras would download under other names or from
    other addresses than the record says: it is asked for them, and stopped."""
    published = record.imagenet
    if not isinstance(published, Published):
        return []
    asked: list[tuple[str, str]] = []

    class Stop(Exception):
        pass

    def get_file(name: str, address: str, **_: Any) -> str:
        asked.append((name, address))
        raise Stop

    module, make = keras_own(record)
    sizes = (smallest,) if published.any_size else published.sizes
    wrong = []
    with unittest.mock.patch.object(module.data_utils, "get_file", get_file):
        for size in sorted({sizes[0], sizes[-1]}):
            with contextlib.suppress(Stop):
                make(input_shape=(size, size, 3), include_top=False, weights="imagenet")
            wanted = published.file_for(size), published.address_for(size)
            if asked.pop() != wanted:
                wrong.append(f"{wanted[0]} at {wanted[1]}")
    return wrong
