"""Card and labels inside a model file, and the TFLite Metadata that MediaPipe reads.

A finished file is the flatbuffer, with TFLite Metadata in it (identifier ``M001``: the
input and its value range, the outputs, the name of the labels file), followed by a zip
with ``labels.txt`` and ``card.json``. Interpreters read from the front and ignore the
zip; `zipfile` and MediaPipe read from the end.

The zip is not compressed, as MediaPipe's reader requires, and has a fixed time stamp:
the same model and card always give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge.card import CARD_NAME, LABELS_NAME, ModelCard
from edge.errors import ModelError
from quantize.tflite import flatbuffer

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the first that knows every field used here
_LOCAL_HEADER = b"PK\x03\x04"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16


def embed(model: bytes, card: ModelCard) -> bytes:
    """The model with `card` inside, in place of an earlier one.

    The card's `model_sha256` is set to the digest of the flatbuffer part.
    ModelError when the labels or outputs of the card don't fit the model.
    """
    tree = flatbuffer.parse(split(model)[0])
    names = _output_names(tree)
    probabilities = card.outputs["probabilities"]
    if probabilities not in names:
        raise ModelError(
            f"expected the model to have an output named {probabilities!r}, as its "
            f"card says, got {names}"
        )
    _check_labels(tree, names.index(probabilities), card.labels)
    flatbuffer.set_metadata(
        tree,
        NAME,
        _describe(
            card.name,
            f"Image classifier: {', '.join(card.labels)} "
            f"({card.variant}, by edgegraft)",
            image=(card.input.width, card.input.height),
            outputs=names,
            labelled=probabilities,
            labels_file=LABELS_NAME,
        ),
    )
    return _attached(flatbuffer.pack(tree), card)


def replace_card(model: bytes, card: ModelCard) -> bytes:
    """The model with another card; the flatbuffer is not parsed.

    Only figures may differ; labels, outputs and input must be the same.
    """
    return _attached(split(model)[0], card)


def _attached(flat: bytes, card: ModelCard) -> bytes:
    """The flatbuffer followed by the zip of labels and card."""
    card = replace(card, model_sha256=hashlib.sha256(flat).hexdigest())
    file = io.BytesIO(flat)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as attached:
        _attach(attached, LABELS_NAME, "\n".join(card.labels) + "\n")
        _attach(attached, CARD_NAME, card.to_json())
    return file.getvalue()


def strip(model: bytes) -> bytes:
    """The bare flatbuffer: no zip, no TFLite Metadata."""
    tree = flatbuffer.parse(split(model)[0])
    flatbuffer.set_metadata(tree, NAME, None)
    return flatbuffer.pack(tree)


def split(model: bytes) -> tuple[bytes, bytes]:
    """(flatbuffer, zip); an empty zip if the file has none."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as attached:
            starts = [entry.header_offset for entry in attached.infolist()]
    except zipfile.BadZipFile:
        return model, b""
    start = min(starts, default=0)
    if model[start : start + len(_LOCAL_HEADER)] != _LOCAL_HEADER or start == 0:
        return model, b""
    return model[:start], model[start:]


def _attach(attached: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
    entry.create_system = 3  # the same bytes from every system
    entry.external_attr = _READABLE
    attached.writestr(entry, text.encode("utf-8"))


def _output_names(tree: Any) -> list[str]:
    """The signature's name of each output, in the order of the graph."""
    graph = tree.subgraphs[0]
    names = {
        entry.tensorIndex: flatbuffer.text(entry.name)
        for signature in tree.signatureDefs or []
        for entry in signature.outputs
    }
    return [
        names.get(index, flatbuffer.text(graph.tensors[index].name))
        for index in graph.outputs
    ]


def _check_labels(tree: Any, output: int, labels: tuple[str, ...]) -> None:
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise ModelError(
                f"expected labels of one line each (labels.txt holds one on each "
                f"line), got {label!r:.80}; rename that folder"
            )
    graph = tree.subgraphs[0]
    shape = [int(side) for side in graph.tensors[graph.outputs[output]].shape]
    if shape[-1:] != [len(labels)]:
        raise ModelError(
            f"expected {shape[-1] if shape else 'some'} labels, as the model's output "
            f"has, got {len(labels)}"
        )


# -- TFLite Metadata -----------------------------------------------------------------

# Enum and union values of the schema, metadata_schema.fbs of TensorFlow Lite Support;
# the slot numbers below are the order of its fields.
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_RGB = 1  # ColorSpaceType
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions

_BYTE_MAX = 255.0


def _describe(
    name: str,
    description: str,
    *,
    image: tuple[int, int],
    outputs: Sequence[str],
    labelled: str,
    labels_file: str,
) -> bytes:
    """The TFLite Metadata of an image classifier, a flatbuffer (``ModelMetadata``).

    `image` is (width, height). `outputs` are the names of the model's outputs, in
    the order of its graph; the one called `labelled` has the labels of
    `labels_file`, one line for each of its elements.
    """
    from flatbuffers import Builder

    writer = _Writer(Builder(1024))
    input_tensor = _input(writer, image)
    output_tensors = [
        _output(writer, output, labels_file if output == labelled else None)
        for output in outputs
    ]
    graph = writer.table(
        10,
        (2, writer.tables([input_tensor])),
        (3, writer.tables(output_tensors)),
    )
    root = writer.table(
        8,
        (0, writer.text(name)),
        (1, writer.text(description)),
        (2, writer.text("1")),
        (3, writer.tables([graph])),
        (7, writer.text(PARSER_VERSION)),
    )
    writer.builder.Finish(root, IDENTIFIER)
    return bytes(writer.builder.Output())


def _input(writer: _Writer, image: tuple[int, int]) -> int:
    width, height = image
    size = writer.table(2, uint32=((0, width), (1, height)))
    properties = writer.table(2, (1, size), int8=((0, _RGB),))
    content = writer.table(3, (1, properties), uint8=((0, _IMAGE),))
    # Pixels go in as they are: mean 0, deviation 1.
    scaling = writer.table(2, (0, writer.floats(0.0)), (1, writer.floats(1.0)))
    unit = writer.table(2, (1, scaling), uint8=((0, _NORMALIZATION),))
    stats = writer.table(2, (0, writer.floats(_BYTE_MAX)), (1, writer.floats(0.0)))
    return writer.table(
        7,
        (0, writer.text("image")),
        (1, writer.text("RGB photo, upright, values 0 to 255")),
        (3, content),
        (4, writer.tables([unit])),
        (5, stats),
    )


def _output(writer: _Writer, name: str, labels_file: str | None) -> int:
    content = writer.table(3, (1, writer.table(0)), uint8=((0, _FEATURE),))
    stats = writer.table(2, (0, writer.floats(1.0)), (1, writer.floats(0.0)))
    fields = [(0, writer.text(name)), (3, content), (5, stats)]
    if labels_file is not None:
        file = writer.table(
            5,
            (0, writer.text(labels_file)),
            (1, writer.text("one label on each line")),
            int8=((2, _TENSOR_AXIS_LABELS),),
        )
        fields.append((6, writer.tables([file])))
    return writer.table(7, *fields)


Numbers = Sequence[tuple[int, int]]


class _Writer:
    """Writes tables as lists of (slot, value), children before their parent; returns
    offsets."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def floats(self, *values: float) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def tables(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def table(
        self,
        slots: int,
        *children: tuple[int, int],
        int8: Numbers = (),
        uint8: Numbers = (),
        uint32: Numbers = (),
    ) -> int:
        self.builder.StartObject(slots)
        for slot, offset in children:
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, value in uint32:
            self.builder.PrependUint32Slot(slot, value, 0)
        for slot, value in int8:
            self.builder.PrependInt8Slot(slot, value, 0)
        for slot, value in uint8:
            self.builder.PrependUint8Slot(slot, value, 0)
        return int(self.builder.EndObject())
