"""The variants of a model file, as records: a new one is a new line in `VARIANTS`.

Every variant takes what the model-file contract says: uint8 RGB, ``[1, H, W, 3]``.

It does not know: how a variant is made (convert) or checked (verify).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import EdgegraftError

FLOAT_TENSORS = frozenset({"FLOAT16", "FLOAT32", "FLOAT64"})


@dataclass(frozen=True)
class Variant:
    """One kind of file. Types are the names of the TFLite schema, `TensorType`.

    `calibrated`: made with photos that set the ranges of the activations.
    `input_scale`: the scale that the input must have (zero point 0), None where
    the input is not quantized. `forbidden`: types no tensor of the file may have.
    """

    name: str
    summary: str
    input_type: str
    output_type: str
    calibrated: bool = False
    input_scale: float | None = None
    forbidden: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.input_type in self.forbidden or self.output_type in self.forbidden:
            raise EdgegraftError(
                f"variant {self.name}: its input or output has a forbidden type"
            )


def _table(*variants: Variant) -> dict[str, Variant]:
    table = {variant.name: variant for variant in variants}
    if len(table) != len(variants):
        raise EdgegraftError("two variants have one name")
    return table


VARIANTS = _table(
    Variant(
        "float32",
        "32-bit floats throughout, the reference for the others",
        input_type="UINT8",
        output_type="FLOAT32",
    ),
    Variant(
        "int8",
        "integers throughout: smallest, fastest, for every device",
        input_type="UINT8",
        output_type="UINT8",
        calibrated=True,
        input_scale=1.0,
        forbidden=FLOAT_TENSORS,
    ),
)
REFERENCE = "float32"  # what the others are measured against


def variant(name: str) -> Variant:
    """The record of a name; EdgegraftError, listing the known, for another."""
    try:
        return VARIANTS[name]
    except KeyError:
        known = ", ".join(VARIANTS)
        raise EdgegraftError(
            f"expected a variant out of {known}, got {name!r}"
        ) from None


def variants(names: Sequence[str] | str) -> tuple[Variant, ...]:
    """Several, each once, in the order given; `names` may be ``"float32,int8"``."""
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    found = tuple(variant(name) for name in dict.fromkeys(names))
    if not found:
        raise EdgegraftError(
            f"expected at least one variant out of {', '.join(VARIANTS)}, got none"
        )
    return found
