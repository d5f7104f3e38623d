"""Multiply-adds: worked out by hand for a small network, published for a large one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from quantize.conversion.convert import Conversion
from quantize.tflite import flatbuffer
from tests.quantize_room import SIZE, colour_network, pixels

pytest.importorskip("tensorflow", reason="needs the extra 'train'")

BY_HAND = {
    "CONV_2D": SIZE * SIZE * 8 * (3 * 3 * 3),
    "DEPTHWISE_CONV_2D": SIZE * SIZE * 8 * (3 * 3),
    "FULLY_CONNECTED": 2 * 8,
}


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_each_operator_is_counted_as_by_hand(variant):
    calibration = pixels(8) if variant == "int8" else None
    tree = flatbuffer.parse(
        Conversion(colour_network(), calibration=calibration).make(variant)
    )
    found = {
        name: count
        for name, count in flatbuffer.multiply_adds_by_operator(tree)
        if count
    }
    assert found == BY_HAND
    assert flatbuffer.multiply_adds(tree) == sum(BY_HAND.values())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenet_v2_1.0_224_quant", 300e6),  # Sandler et al. 2018, table 4
        ("mobilenet_v1_0.25_128_quant", 14e6),  # Howard et al. 2017, the smallest
    ],
)
def test_a_published_network_has_its_published_count(assets, name, published):
    model = (assets / "reference_tflite" / f"{name}.tflite").read_bytes()
    found = flatbuffer.multiply_adds(flatbuffer.parse(model))
    assert found == pytest.approx(published, abs=1e6)  # published in whole millions


def graph(name, inputs, output):
    """A tree of one operator, as far as counting looks at it."""
    number = getattr(flatbuffer.schema().BuiltinOperator, name)
    code = SimpleNamespace(
        builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=1
    )
    tensors = [SimpleNamespace(shape=shape) for shape in (*inputs, output)]
    operator = SimpleNamespace(
        opcodeIndex=0, inputs=list(range(len(inputs))), outputs=[len(inputs)]
    )
    one = SimpleNamespace(tensors=tensors, operators=[operator])
    return SimpleNamespace(operatorCodes=[code], subgraphs=[one])


@pytest.mark.parametrize(
    ("name", "inputs", "output", "count"),
    [
        # two groups: each output channel sees 4 of 8 input channels
        ("CONV_2D", [[1, 9, 9, 8], [6, 3, 3, 4], [6]], [1, 7, 7, 6], 7 * 7 * 6 * 36),
        ("TRANSPOSE_CONV", [[4], [5, 2, 2, 3], [1, 4, 4, 3]], [1, 8, 8, 5], 960),
        ("BATCH_MATMUL", [[2, 3, 4], [2, 4, 5]], [2, 3, 5], 2 * 3 * 4 * 5),
        ("ADD", [[1, 9, 9, 8], [1, 9, 9, 8]], [1, 9, 9, 8], 0),
        ("CONV_2D", [[-1, 9, 9, 3], [6, 3, 3, 3], None], [-1, 7, 7, 6], 0),
    ],
)
def test_other_operators(name, inputs, output, count):
    assert flatbuffer.multiply_adds(graph(name, inputs, output)) == count
