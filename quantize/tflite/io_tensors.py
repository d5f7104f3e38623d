"""The inputs and outputs of a converted graph: a uint8 input, and readable names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantize.tflite import flatbuffer

IMAGE = "image"  # signature input
SIGNATURE = "serving_default"  # as TensorFlow calls the only one
PROBABILITIES = "probabilities"  # signature output of a model with one output


def uint8_input(base: bytes) -> bytes:
    """The same graph behind a CAST from uint8, its first operator."""
    types = flatbuffer.schema()
    tree = flatbuffer.parse(base)
    graph = tree.subgraphs[0]
    float_index = graph.inputs[0]
    float_image = graph.tensors[float_index]

    image = types.TensorT()
    image.name = float_image.name
    image.shape = float_image.shape
    image.type = types.TensorType.UINT8
    image.buffer = 0  # the empty buffer: not a constant
    float_image.name = IMAGE + "_float"
    graph.tensors = [*graph.tensors, image]
    image_index = len(graph.tensors) - 1

    code = types.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = types.BuiltinOperator.CAST
    code.version = 1
    tree.operatorCodes = [*tree.operatorCodes, code]

    cast = types.OperatorT()
    cast.opcodeIndex = len(tree.operatorCodes) - 1
    cast.inputs, cast.outputs = [image_index], [float_index]
    cast.builtinOptionsType = types.BuiltinOptions.CastOptions
    cast.builtinOptions = types.CastOptionsT()
    cast.builtinOptions.inDataType = types.TensorType.UINT8
    cast.builtinOptions.outDataType = types.TensorType.FLOAT32
    graph.operators = [cast, *graph.operators]

    graph.inputs = [image_index]
    for entry in tree.signatureDefs[0].inputs:
        entry.tensorIndex = image_index
    return flatbuffer.pack(tree)


def sign(tree: Any, outputs: Sequence[str]) -> None:
    """Add a signature: the input is the image, the outputs have these names, in their
    order. The tensors are named and ordered as in `named_by_signature`."""
    types = flatbuffer.schema()
    graph = tree.subgraphs[0]

    def entry(name: str, index: int) -> Any:
        mapping = types.TensorMapT()
        mapping.name, mapping.tensorIndex = name, int(index)
        return mapping

    signature = types.SignatureDefT()
    signature.signatureKey = SIGNATURE
    signature.inputs = [entry(IMAGE, graph.inputs[0])]
    signature.outputs = [
        entry(name, index) for name, index in zip(outputs, graph.outputs, strict=True)
    ]
    tree.signatureDefs = [signature]
    _name_by_signature(tree)


def named_by_signature(model: bytes) -> bytes:
    """Name inputs and outputs as in the signature, with the probabilities first.

    The converter calls them ``serving_default_image:0`` and
    ``StatefulPartitionedCall:0`` and gives several outputs any order, while many
    clients only read the first.
    """
    tree = flatbuffer.parse(model)
    _name_by_signature(tree)
    return flatbuffer.pack(tree)


def _name_by_signature(tree: Any) -> None:
    tensors = tree.subgraphs[0].tensors
    signature = tree.signatureDefs[0]
    for entry in [*signature.inputs, *signature.outputs]:
        tensors[entry.tensorIndex].name = flatbuffer.text(entry.name)
    first = [
        entry.tensorIndex
        for entry in signature.outputs
        if flatbuffer.text(entry.name) == PROBABILITIES
    ]
    others = [index for index in tree.subgraphs[0].outputs if index not in first]
    tree.subgraphs[0].outputs = [*first, *others]
