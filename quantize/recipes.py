"""The variants of a model file, as records: a new one is a new line in `VARIANTS`.

The input is uint8 RGB ``[1, H, W, 3]``, as the model-file contract says, except that of
int8-float-io, for clients that feed floats only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import EdgegraftError

FLOAT_TENSORS = frozenset({"FLOAT16", "FLOAT32", "FLOAT64"})


@dataclass(frozen=True)
class Variant:
    """One kind of file. Types are the names of the TFLite schema, `TensorType`.

    `calibrated`: photos set the ranges of its activations. `input_scale`: the required
    scale of the pixels (zero point at black), None where they are not quantized.
    `activations`, `weights`: types of the inputs and of the stored weights of
    convolutions and dense layers. `float_ops`: the only operators that may have a float
    tensor, None for all.
    """

    name: str
    summary: str
    input_type: str
    output_type: str
    activations: str
    weights: str
    calibrated: bool = False
    input_scale: float | None = None
    float_ops: frozenset[str] | None = None


_VARIANTS = (
    Variant(
        "float32",
        "32-bit floats throughout, the reference for the others",
        input_type="UINT8",
        output_type="FLOAT32",
        activations="FLOAT32",
        weights="FLOAT32",
    ),
    Variant(
        "float16",
        "weights stored in 16 bits, computed in 32: half the size, no loss",
        input_type="UINT8",
        output_type="FLOAT32",
        activations="FLOAT32",
        weights="FLOAT16",
    ),
    Variant(
        "dynamic",
        "weights in 8 bits, activations float: a quarter of the size, no calibration",
        input_type="UINT8",
        output_type="FLOAT32",
        activations="FLOAT32",
        weights="INT8",
    ),
    Variant(
        "int8",
        "integers throughout: smallest, fastest, for every device",
        input_type="UINT8",
        output_type="UINT8",
        activations="INT8",
        weights="INT8",
        calibrated=True,
        input_scale=1.0,
        float_ops=frozenset(),
    ),
    Variant(
        "int8-float-io",
        "int8 inside, float32 pixels (0 to 255) in and probabilities out",
        input_type="FLOAT32",
        output_type="FLOAT32",
        activations="INT8",
        weights="INT8",
        calibrated=True,
        input_scale=1.0,
        float_ops=frozenset({"QUANTIZE", "DEQUANTIZE"}),
    ),
    Variant(
        "int16x8",
        "16-bit activations, 8-bit weights: for networks that int8 hurts; slow",
        input_type="UINT8",
        output_type="FLOAT32",
        activations="INT16",
        weights="INT8",
        calibrated=True,
        # L2_NORMALIZATION, before the familiarity, and HARD_SWISH have no 16-bit kernel
        float_ops=frozenset(
            {"CAST", "QUANTIZE", "DEQUANTIZE", "L2_NORMALIZATION", "HARD_SWISH"}
        ),
    ),
)
VARIANTS = {variant.name: variant for variant in _VARIANTS}
REFERENCE = "float32"  # the variant that the others are compared with


def variant(name: str) -> Variant:
    """The variant of this name; EdgegraftError, listing all names, for another one."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise EdgegraftError(
            f"expected a variant out of {', '.join(VARIANTS)}, got {name!r}"
        ) from None


def variants(names: Sequence[str] | str) -> tuple[Variant, ...]:
    """The variants of several names; `names` may be ``"float32,int8"``."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    records = tuple(variant(name) for name in dict.fromkeys(names))
    if not records:
        raise EdgegraftError(
            f"expected at least one variant out of {', '.join(VARIANTS)}, got none"
        )
    return records
