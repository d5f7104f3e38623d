"""Hard-swish taken apart computes the same, and has what 16 bits need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backbones.keras import keras
from edge.runtime import open_interpreter
from quantize.conversion.convert import Conversion
from quantize.tflite import flatbuffer, hard_swish

SIZE = 8


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    """Two hard-swishes, written as MobileNetV3 of Keras writes them."""
    layers = keras().layers
    image = keras().Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(image)
    for number in range(2):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv_{number}")(x)
        x = layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras().Model(image, layers.Dense(3, activation="softmax")(x))
    photos = np.random.default_rng(0).integers(0, 255, (8, SIZE, SIZE, 3), np.uint8)
    return Conversion(model, calibration=photos)


def operators(model: bytes) -> list[str]:
    tree = flatbuffer.parse(model)
    return [flatbuffer.op(tree, op)[0] for op in tree.subgraphs[0].operators]


def _more(one: bytes, other: bytes, operator: str) -> int:
    return operators(one).count(operator) - operators(other).count(operator)


def answer(model: bytes, photo: Any) -> Any:
    _, interpreter = open_interpreter(model)
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], photo.astype(entry["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_the_same_answers_without_the_fused_operator(conversion: Conversion) -> None:
    fused = conversion.base
    plain = hard_swish.unfused(fused)
    assert hard_swish.has(fused) and not hard_swish.has(plain)
    assert operators(fused).count("HARD_SWISH") == 2
    assert _more(plain, fused, "ADD") == 2 and _more(plain, fused, "MUL") == 4
    for seed in range(4):
        photo = np.random.default_rng(seed).uniform(0, 255, (1, SIZE, SIZE, 3))
        got, wanted = answer(plain, photo), answer(fused, photo)
        # the same float32 operations in another order
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_sixteen_bits_have_no_hard_swish_left(conversion: Conversion) -> None:
    made = conversion.make("int16x8")
    assert "HARD_SWISH" not in operators(made)
    photo = np.random.default_rng(9).integers(0, 255, (1, SIZE, SIZE, 3), np.uint8)
    wanted = answer(conversion.make("float32"), photo)
    np.testing.assert_allclose(answer(made, photo), wanted, atol=0.02)


def test_a_graph_without_hard_swish_is_left_alone(conversion: Conversion) -> None:
    plain = hard_swish.unfused(conversion.base)
    assert not hard_swish.has(plain)
