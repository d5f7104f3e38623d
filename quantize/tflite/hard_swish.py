"""Hard-swish in the operators it stands for, where the fused one has no kernel.

    HARD_SWISH(x)  =  x * relu6(x + 3) * 1/6

(Howard et al. 2019, arXiv:1905.02244, section 5.2). TFLite computes the fused operator
in float and in 8 bits, not in 16.

It does not know: quantization.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quantize.tflite import flatbuffer

FUSED = "HARD_SWISH"
_SHIFT, _SCALE = 3.0, 1 / 6


def _named(tree: Any, operator: Any) -> str:
    return flatbuffer.op_name(tree.operatorCodes[operator.opcodeIndex])


def has(model: bytes) -> bool:
    """Is there a fused hard-swish in the flatbuffer?"""
    tree = flatbuffer.parse(model)
    return any(
        _named(tree, operator) == FUSED
        for graph in tree.subgraphs
        for operator in graph.operators
    )


def unfused(model: bytes) -> bytes:
    """The same float graph with ADD (RELU6), MUL and MUL for each hard-swish."""
    tree = flatbuffer.parse(model)
    maker = _Maker(tree)
    for graph in tree.subgraphs:
        operators = []
        for operator in graph.operators:
            if operator.opcodeIndex == maker.fused:
                operators += maker.plain(graph, operator)
            else:
                operators.append(operator)
        graph.operators = operators
    return flatbuffer.pack(tree)


class _Maker:
    def __init__(self, tree: Any) -> None:
        self._types, self._tree = flatbuffer.schema(), tree
        codes, ops = tree.operatorCodes, self._types.BuiltinOperator
        # in place of the fused operator, so that no file names what it doesn't use
        self._mul = self.fused = [flatbuffer.op_name(code) for code in codes].index(
            FUSED
        )
        self._add = len(codes)
        tree.operatorCodes = [*codes, self._types.OperatorCodeT()]
        for place, builtin in ((self._mul, ops.MUL), (self._add, ops.ADD)):
            code = tree.operatorCodes[place]
            code.builtinCode = code.deprecatedBuiltinCode = builtin
            code.version = 1

    def _tensor(self, graph: Any, like: Any, name: str, value: float | None) -> int:
        tensor = self._types.TensorT()
        tensor.name = (flatbuffer.text(like.name) or FUSED) + name
        tensor.type, tensor.buffer = like.type, 0
        tensor.shape, tensor.shapeSignature = like.shape, like.shapeSignature
        if value is not None:
            buffer = self._types.BufferT()
            buffer.data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
            self._tree.buffers = [*self._tree.buffers, buffer]
            tensor.buffer = len(self._tree.buffers) - 1
            tensor.shape, tensor.shapeSignature = [], None
        graph.tensors = [*graph.tensors, tensor]
        return len(graph.tensors) - 1

    def _operator(self, code: int, inputs: list[int], output: int) -> Any:
        operator = self._types.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
        kind = "Add" if code == self._add else "Mul"
        name = f"{kind}Options"
        operator.builtinOptionsType = getattr(self._types.BuiltinOptions, name)
        operator.builtinOptions = getattr(self._types, f"{name}T")()
        return operator

    def plain(self, graph: Any, fused: Any) -> list[Any]:
        """The three operators that do what `fused` does."""
        (source,), (target,) = list(fused.inputs), list(fused.outputs)
        like = graph.tensors[target]
        shift = self._tensor(graph, like, "/shift", _SHIFT)
        scale = self._tensor(graph, like, "/scale", _SCALE)
        gate = self._tensor(graph, like, "/gate", None)
        gated = self._tensor(graph, like, "/gated", None)
        add = self._operator(self._add, [source, shift], gate)
        add.builtinOptions.fusedActivationFunction = (
            self._types.ActivationFunctionType.RELU6
        )
        multiply = self._operator(self._mul, [source, gate], gated)
        return [add, multiply, self._operator(self._mul, [gated, scale], target)]
