"""TFLite Metadata: the description that MediaPipe, ML Kit and Android Studio read.

A flatbuffer of its own (``ModelMetadata``, identifier ``M001``), stored in the model
under the name ``TFLITE_METADATA``. It names the input and its value range, the
outputs, and the file that holds the labels.

Source: the public schema, metadata_schema.fbs of TensorFlow Lite Support; the slot
numbers below are the order of its fields. It does not know: the card, or where in
the model file this ends up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the first that knows every field used here

# enum and union values of the schema
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_RGB = 1  # ColorSpaceType
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions

_BYTE_MAX = 255.0


def describe(
    name: str,
    description: str,
    *,
    image: tuple[int, int],
    outputs: Sequence[str],
    labelled: str,
    labels_file: str,
) -> bytes:
    """The metadata flatbuffer of an image classifier.

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
    """Tables as lists of (slot, value): children are written before their parent."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def floats(self, *values: float) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())

    def tables(self, places: Sequence[int]) -> int:
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
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
        for slot, place in children:
            self.builder.PrependUOffsetTRelativeSlot(slot, place, 0)
        for slot, value in uint32:
            self.builder.PrependUint32Slot(slot, value, 0)
        for slot, value in int8:
            self.builder.PrependInt8Slot(slot, value, 0)
        for slot, value in uint8:
            self.builder.PrependUint8Slot(slot, value, 0)
        return int(self.builder.EndObject())
