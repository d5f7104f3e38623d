"""Tiny `.tflite` classifiers for the tests of edge/, written byte by byte.

No TensorFlow and no flatbuffer package is needed, so these tests run on a device.
The network answers with the strongest of the three colour channels: average pool,
reshape, softmax; and, if wanted, the strongest mean channel as `familiarity`.
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from edge.card import ModelCard
from edge.preprocess import InputRecipe

# A card's outputs: role to name
BOTH = {"probabilities": "probabilities", "familiarity": "familiarity"}
LABELS = ("red", "green", "blue")
SIDE = 8
BETA = 0.05  # softmax of 0.05 x the mean colour: 60 steps apart are 95 %
FLOAT32, INT32, UINT8, INT8 = 0, 2, 3, 9
POOL, RESHAPE, SOFTMAX, REDUCE_MAX = 1, 22, 25, 82
POOL_OPTIONS, SOFTMAX_OPTIONS, RESHAPE_OPTIONS, REDUCER_OPTIONS = 5, 9, 17, 27


@dataclass(frozen=True)
class Table:
    """A flatbuffer table: field number to ("b"|"i"|"f", number) or a child."""

    fields: dict[int, Any]


@dataclass(frozen=True)
class Longs:
    """A vector of 64-bit integers."""

    values: tuple[int, ...]


@dataclass
class Writer:
    """Writes parents before children, so that every offset points forward."""

    data: bytearray = field(default_factory=lambda: bytearray(b"\0\0\0\0TFL3"))

    def align(self, width: int, ahead: int = 0) -> None:
        self.data += bytes(-(len(self.data) + ahead) % width)

    def write(self, value: Any) -> int:
        if isinstance(value, Table):
            return self.table(value)
        if isinstance(value, Longs):
            content = struct.pack(f"<{len(value.values)}q", *value.values)
            return self.vector(content, len(value.values), 8)
        if isinstance(value, str):
            return self.vector(value.encode() + b"\0", len(value), 1)
        if isinstance(value, bytes):
            return self.vector(value, len(value), 16)
        if value and isinstance(value[0], Table):
            return self.tables(value)
        kind = "f" if value and isinstance(value[0], float) else "i"
        return self.vector(struct.pack(f"<{len(value)}{kind}", *value), len(value), 4)

    def vector(self, content: bytes, count: int, align: int) -> int:
        self.align(max(align, 4), ahead=4)
        at = len(self.data)
        self.data += struct.pack("<I", count) + content
        return at

    def tables(self, values: list[Table]) -> int:
        at = self.vector(bytes(4 * len(values)), len(values), 4)
        for place, value in enumerate(values):
            self.point(at + 4 + 4 * place, self.write(value))
        return at

    def point(self, at: int, target: int) -> None:
        struct.pack_into("<I", self.data, at, target - at)

    def table(self, value: Table) -> int:
        count = max(value.fields, default=-1) + 1
        offsets = [0] * count
        for place, number in enumerate(value.fields):
            offsets[number] = 4 + 4 * place
        room = 4 + 4 * len(value.fields)
        self.align(4)
        vtable = len(self.data)
        self.data += struct.pack(f"<{2 + count}H", 4 + 2 * count, room, *offsets)
        self.align(4)
        at = len(self.data)
        self.data += struct.pack("<i", at - vtable) + bytes(room - 4)
        for number, child in value.fields.items():
            place = at + offsets[number]
            if isinstance(child, tuple):
                struct.pack_into(f"<{child[0]}", self.data, place, child[1])
            else:
                self.point(place, self.write(child))
        return at


def network(
    kind: int = UINT8,
    *,
    familiarity: bool = False,
    softmax: bool = True,
    side: int = SIDE,
    signature: bool = True,
    metadata: bytes = b"",
    open_size: bool = False,
) -> bytes:
    """The flatbuffer: input [1, side, side, 3] and outputs of one tensor type.

    `open_size`: the input's height and width are said to be open.
    """
    zero = -128 if kind == INT8 else 0
    scale = 0.0 if kind == FLOAT32 else 1.0

    def tensor(
        name: str, shape: list[int], step: float, type_: int, buffer: int = 0
    ) -> Table:
        numbers: dict[int, Any] = {0: shape, 1: ("b", type_), 2: ("I", buffer), 3: name}
        if step:
            numbers[4] = Table({2: [step], 3: Longs((zero,))})
        return Table(numbers)

    tensors = [
        tensor("in", [1, side, side, 3], scale, kind),
        tensor("pooled", [1, 1, 1, 3], scale, kind),
        tensor("shape", [2], 0, INT32, 1),
        tensor("flat", [1, 3], scale, kind),
        tensor("out", [1, 3], scale and 1 / 256, kind),
        tensor("axis", [1], 0, INT32, 2),
        tensor("seen", [1], scale, kind),
    ]
    if open_size:
        tensors[0].fields[7] = [1, -1, -1, 3]
    pool = Table(
        {0: ("b", 1), 1: ("i", 1), 2: ("i", 1), 3: ("i", side), 4: ("i", side)}
    )
    operators = [
        operator(0, [0], [1], POOL_OPTIONS, pool),
        operator(1, [1, 2], [3], RESHAPE_OPTIONS, Table({0: [1, 3]})),
    ]
    if softmax:
        options = Table({0: ("f", BETA)})
        operators.append(operator(2, [3], [4], SOFTMAX_OPTIONS, options))
    if familiarity:
        options = Table({0: ("b", 0)})
        operators.append(operator(3, [3, 5], [6], REDUCER_OPTIONS, options))
    answer = 4 if softmax else 3
    # the converter likes to reorder outputs, so familiarity comes first here
    outputs = ([6] if familiarity else []) + [answer]
    names = {answer: "probabilities", 6: "familiarity"}
    model: dict[int, Any] = {
        0: ("I", 3),
        1: [
            Table({0: ("b", code), 2: ("i", 1), 3: ("i", code)})
            for code in (POOL, RESHAPE, SOFTMAX, REDUCE_MAX)
        ],
        2: [Table({0: tensors, 1: [0], 2: outputs, 3: operators, 4: "main"})],
        3: "tiny",
        4: [Table({}), buffer_of(1, 3), buffer_of(1)],
    }
    if metadata:
        model[4].append(Table({0: metadata}))
        model[6] = [Table({0: "TFLITE_METADATA", 1: ("I", 3)})]
    if signature:
        model[7] = [
            Table(
                {
                    0: [Table({0: "image", 1: ("I", 0)})],
                    1: [Table({0: names[i], 1: ("I", i)}) for i in outputs],
                    2: "serving_default",
                    4: ("I", 0),
                }
            )
        ]
    writer = Writer()
    struct.pack_into("<I", writer.data, 0, writer.table(Table(model)))
    return bytes(writer.data)


def tflite_metadata(
    label_files: list[tuple[str, int, str]],
    mean: list[float] | None = None,
    std: list[float] | None = None,
    threshold: float | None = None,
) -> bytes:
    """TFLite Metadata: label files (name, kind, locale) and score threshold of the
    only output, and NormalizationOptions of the input."""
    image: dict[int, Any] = {0: "image"}
    if mean and std:
        image[4] = [Table({0: ("B", 1), 1: Table({0: mean, 1: std})})]
    files = [
        Table({0: name, 2: ("b", kind), **({3: locale} if locale else {})})
        for name, kind, locale in label_files
    ]
    output = Table({0: "probability", **({6: files} if files else {})})
    if threshold is not None:
        options = Table({0: ("f", threshold)})
        output.fields[4] = [Table({0: ("B", 3), 1: options})]
    graph = Table({0: "main", 2: [Table(image)], 3: [output]})
    writer = Writer(bytearray(b"\0\0\0\0M001"))
    root = writer.table(Table({0: "colours", 3: [graph]}))
    struct.pack_into("<I", writer.data, 0, root)
    return bytes(writer.data)


def operator(
    code: int, inputs: list[int], outputs: list[int], kind: int, options: Table
) -> Table:
    return Table({0: ("I", code), 1: inputs, 2: outputs, 3: ("B", kind), 4: options})


def buffer_of(*numbers: int) -> Table:
    return Table({0: struct.pack(f"<{len(numbers)}i", *numbers)})


def card(**changes: Any) -> ModelCard:
    """A card that fits `network`."""
    plain = ModelCard(labels=LABELS, input=InputRecipe(SIDE, SIDE), variant="int8")
    return replace(plain, **changes)


def with_files(model: bytes, **files: str) -> bytes:
    """The model with a zip behind it, as TFLite Metadata does it (name_txt=...)."""
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a") as attached:
        for name, text in files.items():
            attached.writestr(name.replace("_", "."), text)
    return file.getvalue()


def with_card(model: bytes, **changes: Any) -> bytes:
    return with_files(model, card_json=card(**changes).to_json())


def save(path: Path, model: bytes) -> str:
    path.write_bytes(model)
    return str(path)


def photo(path: Path, colour: tuple[int, int, int], size: int = 20) -> str:
    Image.new("RGB", (size, size), colour).save(path)
    return str(path)


def tiny(folder: Path) -> str:
    """A model with a card, written into `folder`; its path."""
    return save(folder / "m.tflite", with_card(network(), name="tiny"))


def photo_folder(tmp_path: Path) -> Path:
    """photos/{red,green/deep}: two photos, a text file and a hidden photo."""
    (tmp_path / "photos" / "green" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "red").mkdir()
    photo(tmp_path / "photos" / "red" / "a.png", (200, 0, 0))
    photo(tmp_path / "photos" / "green" / "deep" / "b.JPG", (0, 200, 0))
    photo(tmp_path / "photos" / "red" / ".hidden.png", (0, 0, 200))
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"
