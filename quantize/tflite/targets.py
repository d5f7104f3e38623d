"""Which targets accept a file, and the reasons of those that refuse it.

A target is a set of operators, of tensor types, and a size. Sources:

- tflite-runtime-2.14: measured on the wheel (x86-64), with one model for each operator
  and version; the table has those that its resolver found.
- edgetpu: after the operator table of the Edge TPU compiler's documentation (coral.ai,
  "TensorFlow models on the Edge TPU"), written from memory. Neither compiler nor device
  was tested: a pass is a hint, the compiler decides.
- microcontroller: operators of TensorFlow Lite Micro's all-ops resolver that image
  classifiers use, not tested either; integers only, and no more than the flash of a
  common board.
- generic: any current interpreter; it refuses only operators outside TFLite.

`oldest_runtime` uses the release that introduced each operator version, as TensorFlow's
converter writes it into its files.

A runtime that accepts an operator may still compute it wrongly: only running the file
shows that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgegraftError
from quantize.tflite import flatbuffer

GENERIC = "generic"
TFLITE_RUNTIME = "tflite-runtime-2.14"
EDGE_TPU = "edgetpu"
MICROCONTROLLER = "microcontroller"


@dataclass(frozen=True)
class Target:
    """The limits of a device. `types`: None for all; `largest`: bytes, None for any."""

    name: str
    summary: str
    types: frozenset[str] | None = None
    largest: int | None = None


TARGETS = {
    target.name: target
    for target in (
        Target(GENERIC, "any current LiteRT or TensorFlow Lite"),
        Target(
            EDGE_TPU,
            "Coral's accelerator, whose compiler takes integer files",
            types=frozenset({"UINT8", "INT8", "INT32"}),
        ),
        Target(
            MICROCONTROLLER,
            "TensorFlow Lite Micro on a board with 1 MiB of flash",
            types=frozenset({"UINT8", "INT8", "INT16", "INT32", "INT64"}),
            largest=1 << 20,
        ),
        Target(TFLITE_RUNTIME, "the last tflite-runtime wheel, Python 3.11 or older"),
    )
}

_EDGE_TPU = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
L2_NORMALIZATION LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU
QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE
SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV
"""
_MICROCONTROLLER = """
ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CAST CEIL CONCATENATION
CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EXP EXPAND_DIMS FULLY_CONNECTED HARD_SWISH
L2_NORMALIZATION LEAKY_RELU LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
MIRROR_PAD MUL PACK PAD PADV2 PRELU QUANTIZE REDUCE_MAX RELU RELU6 RESHAPE
RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_BATCH_ND
SPACE_TO_DEPTH SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH
TRANSPOSE TRANSPOSE_CONV UNPACK
"""
# operator -> the TensorFlow release that brought version 1, 2, 3 ... of it
_RELEASES = """
ADD 1.5 1.14 2.4 2.6 2.13
AVERAGE_POOL_2D 1.5 1.14 2.3
CAST 1.5 2.7 2.8 2.9 2.12 2.15 2.17 2.21
CONCATENATION 1.5 1.14 2.3 2.14 2.21
CONV_2D 1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15
DEPTHWISE_CONV_2D 1.5 1.12 1.14 2.2 2.3 2.3 2.11
DEQUANTIZE 1.13 1.14 1.15 2.2 2.7 2.18 2.21 2.22
DIV 1.6 2.3
ELU 1.14
EXP 1.7 2.12
EXPAND_DIMS 1.10
FULLY_CONNECTED 1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18 2.21
GELU 2.9 2.9
HARD_SWISH 1.15
L2_NORMALIZATION 1.5 1.14
LEAKY_RELU 1.13 2.3
LOGISTIC 1.14 1.14 2.3
MAXIMUM 1.14 1.14 2.3 2.3
MAX_POOL_2D 1.5 1.14 2.3
MEAN 1.6 1.14 2.4
MINIMUM 1.14 1.14 2.3 2.3
MUL 1.5 1.14 1.15 2.3 2.6 2.11 2.13
PACK 1.11 1.14 2.3 2.13
PAD 1.5 1.14 2.4 2.6 2.20
PADV2 1.9 1.14 2.4 2.6 2.20
PRELU 1.8
QUANTIZE 1.14 1.15 2.7 2.21 2.21 2.21
REDUCE_MAX 1.11 1.14 2.5
RELU 1.5 2.1 2.5
RELU6 1.5 1.14 2.5
RESHAPE 1.5
RESIZE_BILINEAR 1.7 1.14 2.2 2.5
RESIZE_NEAREST_NEIGHBOR 1.13 1.14 2.3 2.4
RSQRT 1.10 2.5 2.15
SHAPE 1.10
SLICE 1.14 1.14 1.14 2.4 2.5 2.14 2.21
SOFTMAX 1.5 1.14 2.3
SPLIT 1.5 1.14 1.14 2.3
SQUARED_DIFFERENCE 1.13 2.5
SQUEEZE 1.6 2.5
STRIDED_SLICE 1.6 1.14 2.1 2.2 2.5 2.6 2.14 2.14
SUB 1.6 1.14 2.3 2.4 2.4
SUM 1.10 1.15
TANH 1.14 1.14 2.3
TRANSPOSE 1.6 1.14 1.15 2.3 2.4 2.12
TRANSPOSE_CONV 1.9 2.2 2.3 2.13 2.15
"""
_TFLITE_RUNTIME_2_14 = """
ABS:5 ADD:5 ADD_N:1 ARG_MAX:3 ARG_MIN:3 ASSIGN_VARIABLE:1 ATAN2:1 AVERAGE_POOL_2D:3
BATCH_MATMUL:4 BATCH_TO_SPACE_ND:4 BIDIRECTIONAL_SEQUENCE_LSTM:3
BIDIRECTIONAL_SEQUENCE_RNN:3 BITCAST:1 BITWISE_XOR:1 BROADCAST_ARGS:1 BROADCAST_TO:3
BUCKETIZE:1 CALL_ONCE:1 CAST:5 CEIL:1 COMPLEX_ABS:1 CONCATENATION:4 CONV_2D:7
CONV_3D:1 CONV_3D_TRANSPOSE:1 COS:1 CUMSUM:1 DENSIFY:1 DEPTHWISE_CONV_2D:7
DEPTH_TO_SPACE:2 DEQUANTIZE:5 DIV:2 DYNAMIC_UPDATE_SLICE:1 ELU:1 EMBEDDING_LOOKUP:3
EMBEDDING_LOOKUP_SPARSE:1 EQUAL:4 EXP:2 EXPAND_DIMS:1 FAKE_QUANT:2 FILL:4 FLOOR:1
FLOOR_DIV:3 FLOOR_MOD:2 FULLY_CONNECTED:10 GATHER:6 GATHER_ND:4 GELU:2 GREATER:2
GREATER_EQUAL:3 HARD_SWISH:1 HASHTABLE:1 HASHTABLE_FIND:1 HASHTABLE_IMPORT:1
HASHTABLE_LOOKUP:1 HASHTABLE_SIZE:1 IF:1 IMAG:1 L2_NORMALIZATION:2 L2_POOL_2D:1
LEAKY_RELU:2 LESS:3 LESS_EQUAL:2 LOCAL_RESPONSE_NORMALIZATION:1 LOG:1 LOGICAL_AND:1
LOGICAL_NOT:1 LOGICAL_OR:1 LOGISTIC:3 LOG_SOFTMAX:2 LSH_PROJECTION:1 LSTM:4
MATRIX_DIAG:1 MATRIX_SET_DIAG:1 MAXIMUM:4 MAX_POOL_2D:3 MEAN:3 MINIMUM:4 MIRROR_PAD:3
MUL:7 MULTINOMIAL:1 NEG:1 NON_MAX_SUPPRESSION_V4:1 NON_MAX_SUPPRESSION_V5:1
NOT_EQUAL:3 ONE_HOT:1 PACK:4 PAD:4 PADV2:4 POW:1 PRELU:1 QUANTIZE:3
RANDOM_STANDARD_NORMAL:1 RANDOM_UNIFORM:1 RANGE:2 RANK:1 READ_VARIABLE:1 REAL:1
REDUCE_ALL:1 REDUCE_ANY:1 REDUCE_MAX:3 REDUCE_MIN:3 REDUCE_PROD:2 RELU:3 RELU6:3
RELU_0_TO_1:1 RELU_N1_TO_1:1 RESHAPE:1 RESIZE_BILINEAR:4 RESIZE_NEAREST_NEIGHBOR:4
REVERSE_SEQUENCE:1 REVERSE_V2:3 RFFT2D:1 RIGHT_SHIFT:1 RNN:3 ROUND:1 RSQRT:2
SCATTER_ND:1 SEGMENT_SUM:1 SELECT:4 SELECT_V2:2 SHAPE:1 SIGN:2 SIN:1 SKIP_GRAM:1
SLICE:6 SOFTMAX:3 SPACE_TO_BATCH_ND:4 SPACE_TO_DEPTH:2 SPARSE_TO_DENSE:3 SPLIT:4
SPLIT_V:2 SQRT:1 SQUARE:1 SQUARED_DIFFERENCE:2 SQUEEZE:2 STRIDED_SLICE:8 SUB:5 SUM:2
SVDF:4 TANH:3 TILE:3 TOPK_V2:3 TRANSPOSE:6 TRANSPOSE_CONV:4
UNIDIRECTIONAL_SEQUENCE_LSTM:4 UNIDIRECTIONAL_SEQUENCE_RNN:3 UNIQUE:1 UNPACK:4
UNSORTED_SEGMENT_MAX:1 UNSORTED_SEGMENT_MIN:1 UNSORTED_SEGMENT_PROD:1
UNSORTED_SEGMENT_SUM:1 VAR_HANDLE:1 WHERE:2 WHILE:1 ZEROS_LIKE:1
"""


_INT16_KERNELS = (2, 4)  # of convolution, ADD and MEAN

Ops = Iterable[tuple[str, int]]


def target(name: str) -> Target:
    """The target of this name; EdgegraftError, listing all names, for another one."""
    try:
        return TARGETS[name]
    except KeyError:
        raise EdgegraftError(
            f"expected a target out of {', '.join(TARGETS)}, got {name!r}"
        ) from None


@functools.cache
def operators(name: str = TFLITE_RUNTIME) -> Mapping[str, int | None]:
    """Operator -> highest version accepted by the target (None: any)."""
    if name == TFLITE_RUNTIME:
        pairs = (entry.split(":") for entry in _TFLITE_RUNTIME_2_14.split())
        return {operator: int(version) for operator, version in pairs}
    tables = {EDGE_TPU: _EDGE_TPU, MICROCONTROLLER: _MICROCONTROLLER}
    return dict.fromkeys(tables[name].split())


def refused(ops: Ops, name: str = TFLITE_RUNTIME) -> tuple[str, ...]:
    """Why operators are refused: a phrase for each such (name, version)."""
    reasons = []
    for operator, version in sorted(set(ops)):
        if name == GENERIC:
            if operator.startswith(("Flex", "TFLite_", "operator ")):
                reasons.append(f"{operator} is not an operator of TFLite's own")
            continue
        table = operators(name)
        highest = table.get(operator)
        if operator not in table:
            reasons.append(f"{operator} is unknown to it")
        elif highest is not None and version > highest:
            reasons.append(f"{operator} version {version}, it knows up to {highest}")
    return tuple(reasons)


def check(model: bytes, name: str) -> tuple[str, ...]:
    """Why a target refuses a flatbuffer: operators, tensor types, size; () if not."""
    return refusals(flatbuffer.parse(model), len(model), name)


def refusals(tree: Any, size: int, name: str) -> tuple[str, ...]:
    """`check` for a tree that is parsed already, of a file of `size` bytes."""
    record = target(name)
    ops = [flatbuffer.op(tree, operator) for operator in _operators(tree)]
    reasons = list(refused(ops, name))
    if record.types is not None:
        reasons += _foreign_types(tree, record.types)
    if record.largest is not None and size > record.largest:
        reasons.append(
            f"{size:,} bytes, it takes up to {record.largest:,}: a smaller backbone "
            "or input size is needed"
        )
    return tuple(reasons)


def _foreign_types(tree: Any, types: frozenset[str]) -> list[str]:
    """One phrase for each type that is not accepted, with the first operator on it."""
    first_operator: dict[str, str] = {}
    for graph in tree.subgraphs:
        for operator in graph.operators:
            for index in [*operator.inputs, *operator.outputs]:
                if index < 0:  # an omitted optional input
                    continue
                kind = flatbuffer.type_name(graph.tensors[index].type)
                if kind not in types:
                    first_operator.setdefault(kind, flatbuffer.op(tree, operator)[0])
    return [
        f"{operator} works on {kind}, it takes {', '.join(sorted(types))}"
        for kind, operator in sorted(first_operator.items())
    ]


@functools.cache
def _releases() -> dict[str, tuple[str, ...]]:
    lines = (line.split() for line in _RELEASES.split("\n") if line)
    return {words[0]: tuple(words[1:]) for words in lines}


def oldest_runtime(tree: Any) -> str | None:
    """The first TensorFlow Lite release that runs a file, such as ``2.3``.

    The converter gives 16-bit operators the versions of 8-bit ones, so they are
    recognised by their tensors. None when an operator is newer than the table.
    """
    releases = [release(flatbuffer.op(tree, op)) for op in _operators(tree)]
    types = {flatbuffer.type_name(t.type) for g in tree.subgraphs for t in g.tensors}
    if "INT16" in types:
        releases.append(_INT16_KERNELS)
    known = [version for version in releases if version is not None]
    if not known or None in releases:
        return None
    major, minor = max(known)
    return f"{major}.{minor}"


def release(op: tuple[str, int]) -> tuple[int, int] | None:
    """The release (major, minor) that introduced an operator's version, if known."""
    name, version = op
    releases = _releases().get(name, ())
    if not 1 <= version <= len(releases):
        return None
    major, minor = releases[version - 1].split(".")
    return int(major), int(minor)


def _operators(tree: Any) -> list[Any]:
    return [operator for graph in tree.subgraphs for operator in graph.operators]
