"""Reads a converted file back and checks that it keeps the model-file contract.

Both its declarations (tensor types, scales, shapes, names, operator versions, from the
flatbuffer), and that it runs: one grey photo through the runtime that ships must give
probabilities. Where the last tflite-runtime is installed, it runs the file, too.

The converter silently keeps an operator float if it has no integer form, and a weight
that it cannot quantize: both are found.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edge.classifier import FAMILIARITY, PROBABILITIES
from edge.errors import EdgegraftError, ModelError
from edge.preprocess import InputRecipe
from edge.runtime import Runtime
from edge.subprocess_run import run_in_subprocess
from quantize.recipes import FLOAT_TENSORS, Variant
from quantize.recipes import variant as find_variant
from quantize.tflite import flatbuffer, targets
from quantize.tflite.metadata import split

OLD_RUNTIME = "tflite-runtime"
GREY = 128
INT8_BLACK = 128  # pixel 0 is -128 in an int8 tensor
# Probabilities of a uint8 output have steps of 1/256: each may be off by half a step,
# so a sum over L labels by L/2 steps
_UINT8_STEP = 1 / 256
_FLOAT_TOLERANCE = 1e-3  # of the sum
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# The converter keeps smaller weights float in `dynamic` files
_SMALLEST_SHRUNK = 1024  # elements
_CONVERTERS = ("QUANTIZE", "DEQUANTIZE")  # around layers that stay float
_PRINT_VERSION = f"import importlib.metadata as m; print(m.version('{OLD_RUNTIME}'))"
_TIMEOUT = 60.0  # seconds, for a Python to print a version

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
        check_types(record, tree, kept_float)
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
        scale, zero_point = _quantization(behind_input(tree))
        zero_point = None if zero_point is None else zero_point + INT8_BLACK
    required = record.input_scale
    if required is not None and (scale, zero_point) != (required, 0):
        raise _broken(
            record,
            f"expected input scale {required} and zero point 0, got {scale} and "
            f"{zero_point}",
        )
    return image


def behind_input(tree: Any) -> Any:
    """The output of the first operator on the input: the quantized pixels."""
    graph = tree.subgraphs[0]
    for operator in graph.operators:
        if graph.inputs[0] in list(operator.inputs):
            return graph.tensors[operator.outputs[0]]
    raise ModelError("expected an operator on the input, got none")


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


# -- tensor types ---------------------------------------------------------------------


def check_types(record: Variant, tree: Any, kept_float: Collection[str] = ()) -> None:
    """ModelError, naming operator and tensor, where a type is not the variant's.

    `kept_float`: names of the tensors whose operators were to stay float.
    """
    graph = tree.subgraphs[0]
    producers = {index: op for op in graph.operators for index in op.outputs}
    for operator in graph.operators:
        name, _ = flatbuffer.op(tree, operator)
        output = flatbuffer.text(graph.tensors[operator.outputs[0]].name)
        if output in kept_float or (kept_float and name in _CONVERTERS):
            continue
        _check_floats(record, graph, operator, name)
        if name in _WEIGHTED:
            _check_weighted(record, tree, operator, name, producers)


def _check_floats(record: Variant, graph: Any, operator: Any, name: str) -> None:
    if record.float_ops is None or name in record.float_ops:
        return
    for index in [*operator.outputs, *operator.inputs]:
        if index < 0:  # an omitted optional input
            continue
        tensor = graph.tensors[index]
        kind = flatbuffer.type_name(tensor.type)
        if kind in FLOAT_TENSORS:
            raise ModelError(
                f"operator {name} works on {kind} (tensor "
                f"{flatbuffer.text(tensor.name)!r:.80}); no integer form of it was made"
            )


def _check_weighted(
    record: Variant, tree: Any, operator: Any, name: str, producers: dict[int, Any]
) -> None:
    graph = tree.subgraphs[0]
    weights = operator.inputs[1]
    activation = operator.inputs[2 if name == "TRANSPOSE_CONV" else 0]
    output = graph.tensors[operator.outputs[0]]
    for tensor in (graph.tensors[activation], output):
        kind = flatbuffer.type_name(tensor.type)
        if kind != record.activations:
            raise ModelError(
                f"expected {name} on {record.activations}, got {kind} "
                f"(tensor {flatbuffer.text(output.name)!r:.80})"
            )
    producer = producers.get(weights)
    if producer is not None and flatbuffer.op(tree, producer)[0] == "DEQUANTIZE":
        weights = producer.inputs[0]
    tensor = graph.tensors[weights]
    kind = flatbuffer.type_name(tensor.type)
    size = prod(int(side) for side in tensor.shape)
    small = record.weights == "INT8" and not record.calibrated
    if kind != record.weights and not (small and size < _SMALLEST_SHRUNK):
        raise ModelError(
            f"expected the weights of {name} as {record.weights}, got {kind} "
            f"(tensor {flatbuffer.text(tensor.name)!r:.80})"
        )


# -- the last tflite-runtime ----------------------------------------------------------


@dataclass(frozen=True)
class OldRuntime:
    """A Python and its tflite-runtime.

    That wheel needs numpy 1 and Python 3.11 or older, so it is mostly installed in an
    environment of its own, whose Python is the argument of `--tflite-runtime`; the
    default is this Python, if it has the package.
    """

    python: str
    runtime: Runtime

    def __str__(self) -> str:
        return str(self.runtime)

    def refusal(self, model: bytes) -> str | None:
        """Why a file does not run there; None if it does."""
        try:
            run_in_subprocess(
                model, runtime=OLD_RUNTIME, python=self.python, where="the file"
            )
        except ModelError as error:
            return str(error)
        return None


def find_old_runtime(python: Path | None) -> OldRuntime | None:
    """The runtime of `python`, by default of this Python, None if it has none.

    EdgegraftError when `python` does not have it.
    """
    if python is None:
        if importlib.util.find_spec("tflite_runtime") is None:
            return None
        python = Path(sys.executable)
    try:
        done = subprocess.run(
            [str(python), "-c", _PRINT_VERSION],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        output = (done.stdout if not done.returncode else done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        done, output = None, str(error)
    if done is None or done.returncode or not output:
        reason = output.splitlines()[-1] if output else "no output"
        raise EdgegraftError(
            f"--tflite-runtime: expected a Python with {OLD_RUNTIME}, got {python} "
            f"({reason:.120}); make one with: uv venv --python 3.11 old, then uv pip "
            f"install --python old {OLD_RUNTIME} 'numpy<2'"
        )
    return OldRuntime(str(python), Runtime(OLD_RUNTIME, output))
