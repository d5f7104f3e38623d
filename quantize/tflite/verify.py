"""Reads a converted file back and checks that it keeps the model-file contract.

Both its declarations (tensor types, scales, shapes, names, operator versions, from the
flatbuffer), and that it runs (one grey photo through the runtime that ships must give
probabilities).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edge.errors import ModelError
from edge.preprocess import InputRecipe
from quantize.recipes import Variant
from quantize.recipes import variant as find_variant
from quantize.tflite import flatbuffer, operators, targets
from quantize.tflite.metadata import split
from quantize.tflite.old_runtime import OldRuntime

PROBABILITIES, FAMILIARITY = "probabilities", "familiarity"
GREY = 128
INT8_BLACK = 128  # pixel 0 is -128 in an int8 tensor
# Probabilities of a uint8 output have steps of 1/256: each may be off by half a step,
# so a sum over L labels by L/2 steps
_UINT8_STEP = 1 / 256
_FLOAT_TOLERANCE = 1e-3  # of the sum

_DEFAULT_OUTPUTS: Mapping[str, str] = MappingProxyType({PROBABILITIES: PROBABILITIES})


@dataclass(frozen=True)
class Facts:
    """Properties of a file. Types are TFLite's names; `ops` is (name, version, count).

    `size_bytes`: of the flatbuffer without the zip. `refused_by`: target -> the reasons
    why it cannot run the file, for those that cannot. `oldest_runtime`: the first
    TensorFlow Lite release with all its operators. `ran_on`: the runtimes that ran it,
    with their versions.
    """

    variant: str
    size_bytes: int
    input_shape: tuple[int, ...]
    input_type: str
    input_scale: float | None
    input_zero_point: int | None
    output_types: Mapping[str, str]
    tensor_types: Mapping[str, int]
    ops: tuple[tuple[str, int, int], ...]
    ran_on: tuple[str, ...]
    refused_by: Mapping[str, tuple[str, ...]]
    oldest_runtime: str | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "variant": self.variant,
            "size_bytes": self.size_bytes,
            "input": {
                "shape": list(self.input_shape),
                "type": self.input_type,
                "scale": self.input_scale,
                "zero_point": self.input_zero_point,
            },
            "outputs": dict(self.output_types),
            "tensor_types": dict(self.tensor_types),
            "ops": [
                {"name": name, "version": version, "count": count}
                for name, version, count in self.ops
            ],
            "ran_on": list(self.ran_on),
            "oldest_runtime": self.oldest_runtime,
            "refused_by": {k: list(v) for k, v in self.refused_by.items()},
        }


def verify(
    model: bytes,
    variant: str,
    recipe: InputRecipe,
    labels: Sequence[str],
    *,
    outputs: Mapping[str, str] = _DEFAULT_OUTPUTS,
    kept_float: Sequence[str] = (),
    old_runtime: OldRuntime | None = None,
) -> Facts:
    """The facts of a file; ModelError, with the reason, when it breaks the contract.

    `outputs` maps roles to signature names; ``probabilities`` must be among them.
    `kept_float`: names of the tensors whose operators were to stay float.
    `old_runtime`: runs the file, too; a failure goes into `refused_by`.
    """
    flat, _ = split(model)
    record = find_variant(variant)
    tree = flatbuffer.parse(flat)
    if len(tree.subgraphs) != 1:
        raise _broken(record, f"expected one graph, got {len(tree.subgraphs)}")
    graph = tree.subgraphs[0]
    image = _check_input(record, tree, graph, recipe)
    output_types = _check_outputs(record, tree, graph, outputs, len(labels))
    try:
        operators.check(record, tree, kept_float)
    except ModelError as error:
        raise _broken(record, str(error)) from None
    versions = Counter(flatbuffer.op(tree, operator) for operator in graph.operators)
    scale, zero_point = _quantization(image)
    ran_on = [_run_once(record, flat, len(labels), outputs[PROBABILITIES])]
    refusals = {
        name: targets.refusals(tree, len(flat), name) for name in targets.TARGETS
    }
    if old_runtime is not None:
        reason = old_runtime.refusal(flat)
        if reason is None:
            ran_on.append(str(old_runtime))
        else:  # although it has all its operators
            refusals[targets.TFLITE_RUNTIME] += (
                f"{old_runtime} does not run it: {reason}",
            )
    return Facts(
        variant=record.name,
        size_bytes=len(flat),
        input_shape=tuple(int(side) for side in image.shape),
        input_type=flatbuffer.type_name(image.type),
        input_scale=scale,
        input_zero_point=zero_point,
        output_types=output_types,
        tensor_types=dict(
            Counter(flatbuffer.type_name(tensor.type) for tensor in graph.tensors)
        ),
        ops=tuple((*op, count) for op, count in sorted(versions.items())),
        ran_on=tuple(ran_on),
        refused_by={name: why for name, why in refusals.items() if why},
        oldest_runtime=targets.oldest_runtime(tree),
    )


def _broken(record: Variant, reason: str) -> ModelError:
    return ModelError(
        f"the {record.name} file breaks the model-file contract: {reason}"
    )


def _quantization(tensor: Any) -> tuple[float | None, int | None]:
    """(scale, zero point)."""
    params = tensor.quantization
    if params is None or params.scale is None or len(params.scale) == 0:
        return None, None
    zero = params.zeroPoint
    return float(params.scale[0]), int(zero[0]) if zero is not None else 0


def _check_input(record: Variant, tree: Any, graph: Any, recipe: InputRecipe) -> Any:
    if len(graph.inputs) != 1:
        raise _broken(record, f"expected one input, got {len(graph.inputs)}")
    image = graph.tensors[graph.inputs[0]]
    expected = [1, recipe.height, recipe.width, 3]
    shape = [int(side) for side in image.shape]
    if shape != expected:
        raise _broken(record, f"expected an input of shape {expected}, got {shape}")
    kind = flatbuffer.type_name(image.type)
    if kind != record.input_type:
        raise _broken(record, f"expected input {record.input_type}, got {kind}")
    scale, zero_point = _quantization(image)
    if kind == "FLOAT32" and record.input_scale is not None:
        scale, zero_point = _quantization(operators.behind_input(tree))
        zero_point = None if zero_point is None else zero_point + INT8_BLACK
    required = record.input_scale
    if required is not None and (scale, zero_point) != (required, 0):
        raise _broken(
            record,
            f"expected input scale {required} and zero point 0, got {scale} and "
            f"{zero_point}",
        )
    return image


def _check_outputs(
    record: Variant, tree: Any, graph: Any, outputs: Mapping[str, str], labels: int
) -> dict[str, str]:
    """Signature output name -> type."""
    if not tree.signatureDefs:
        raise _broken(record, "expected a signature that names the outputs, got none")
    index_of = {
        flatbuffer.text(entry.name): entry.tensorIndex
        for entry in tree.signatureDefs[0].outputs
    }
    missing = sorted(set(outputs.values()) - set(index_of))
    if missing:
        raise _broken(
            record, f"expected outputs named {missing}, got {sorted(index_of)}"
        )
    tensor = graph.tensors[index_of[outputs[PROBABILITIES]]]
    shape = [int(side) for side in tensor.shape]
    if shape != [1, labels]:
        raise _broken(
            record, f"expected probabilities of shape {[1, labels]}, got {shape}"
        )
    kind = flatbuffer.type_name(tensor.type)
    if kind != record.output_type:
        raise _broken(record, f"expected output {record.output_type}, got {kind}")
    if graph.outputs[0] != index_of[outputs[PROBABILITIES]]:
        raise _broken(record, "expected the probabilities as the first output")
    if FAMILIARITY in outputs:
        tensor = graph.tensors[index_of[outputs[FAMILIARITY]]]
        shape = [int(side) for side in tensor.shape]
        if shape != [1, 1]:
            raise _broken(record, f"expected familiarity of shape [1, 1], got {shape}")
    return {
        name: flatbuffer.type_name(graph.tensors[index].type)
        for name, index in index_of.items()
    }


def _run_once(record: Variant, flat: bytes, labels: int, output: str) -> str:
    """Run a grey photo; returns the runtime's name and version."""
    from edge.runtime import open_interpreter

    runtime, interpreter = open_interpreter(flat, threads=1)
    entry = interpreter.get_input_details()[0]
    grey = np.full(entry["shape"], GREY).astype(entry["dtype"])
    interpreter.set_tensor(entry["index"], grey)
    interpreter.invoke()
    details = interpreter.get_signature_runner().get_output_details()[output]
    values = interpreter.get_tensor(details["index"]).astype(np.float64).reshape(-1)
    scale, zero_point = details["quantization"]
    values = (values - zero_point) * scale if scale else values
    tolerance = _FLOAT_TOLERANCE
    if record.calibrated:
        tolerance += labels * _UINT8_STEP / 2
    if not np.isfinite(values).all() or abs(values.sum() - 1) > tolerance:
        raise _broken(
            record,
            f"expected probabilities that sum to 1 for a grey photo, "
            f"got {np.round(values, 4).tolist()!s:.80}",
        )
    return str(runtime)
