"""Converts a trained Keras model to a `.tflite` file.

Variants share the steps: the graph is traced and frozen once, converted to a float
flatbuffer once (seconds), calibrated once (it runs every calibration photo), and the
integer variants are quantized from that (milliseconds). float16 and dynamic go through
the converter again, from the same frozen graph.

The input is uint8 RGB in every variant but int8-float-io. A float graph gets a CAST in
front, and so does int16x8, whose kernels have no 8-bit input. In the integer graph the
range of the input is set to 0..255, whatever that of the calibration photos: with eight
bits that is scale 1, zero point 0. Inputs and outputs are named by the signature.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from edge.classifier import PROBABILITIES
from edge.errors import EdgegraftError
from edge.terminal import silenced
from quantize.recipes import variant as find_variant
from quantize.tflite import flatbuffer

Layers = Callable[[str], Sequence[str]]
Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
Span = tuple[float, float]

IMAGE = "image"  # signature input
SIGNATURE = "serving_default"  # as TensorFlow calls the only one
BLACK, WHITE = 0.0, 255.0
_BRANCHES = ("IF", "WHILE", "CALL_ONCE")  # operators with subgraphs
_MAX_LAYERS = 3  # named in an error message


class Conversion:
    """The conversions of one model, which share their common steps.

    `model`: a Keras model from one float32 image batch ``[N, H, W, 3]`` with
    values 0..255 to probabilities ``[N, L]`` (or to a dict of named outputs).
    `calibration`: uint8 ``[N, H, W, 3]``, needed by the integer variants.
    """

    def __init__(
        self,
        model: Any,
        *,
        calibration: Pixels | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._model = model
        self._shape = _input_shape(model)
        if calibration is not None:
            _check_pixels(calibration, self._shape)
        self._calibration = calibration
        self._progress = progress

    def make(self, variant: str) -> bytes:
        """The flatbuffer of a variant.

        EdgegraftError for an unknown variant, missing calibration photos, or an
        operator that TFLite doesn't have.
        """
        record = find_variant(variant)
        if record.name == "int8":
            return quantize(self.calibrated)
        if record.name == "int8-float-io":
            return quantize(self.calibrated, float_io=True)
        if record.name == "int16x8":
            return _uint8_input(self._int16x8())
        if record.name == "float32":
            return _uint8_input(self.base)
        return _uint8_input(self._small_weights(record.name))

    @cached_property
    def _traced(self) -> Any:
        """The graph as a concrete function."""
        tf = tensorflow()
        height, width, _ = self._shape
        spec = tf.TensorSpec((1, height, width, 3), tf.float32, name=IMAGE)

        def serve(image: Any) -> Any:
            out = self._model(image, training=False)
            return out if isinstance(out, dict) else {PROBABILITIES: out}

        with silenced(), one_line("convert the model"):
            return tf.function(serve).get_concrete_function(spec)

    @cached_property
    def _frozen(self) -> Any:
        """The same function with its variables as constants and calls inlined."""
        tensorflow()
        from tensorflow.python.framework import convert_to_constants

        with silenced(), one_line("convert the model"):
            freeze = convert_to_constants.convert_variables_to_constants_v2
            return freeze(self._traced, lower_control_flow=False)

    def _converter(self) -> Any:
        """A converter of the frozen function alone. Given the object that holds the
        variables, as TensorFlow recommends, it would save and load a SavedModel, which
        takes five times as long (10 s against 2 s for EfficientNet B0) and gives the
        same operators."""
        lite = tensorflow().lite
        with silenced():
            return lite.TFLiteConverter.from_concrete_functions([self._frozen])

    @cached_property
    def base(self) -> bytes:
        """The float flatbuffer, float32 input; the integer variants start from it."""
        return self._converted(self._converter())

    def _converted(self, converter: Any) -> bytes:
        with silenced(), one_line("convert the model", self._layers_with):
            converted = bytes(converter.convert())
        tree = flatbuffer.parse(converted)
        _refuse_branches(tree)
        # TensorFlow flattens a dict of outputs by the order of its keys
        _sign(tree, sorted(self._traced.structured_outputs))
        return flatbuffer.pack(tree)

    def _layers_with(self, op: str) -> list[str]:
        """The layers of the traced graph and its functions that use a TensorFlow
        operator."""
        graph = self._traced.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        layers = {node.name.rpartition("/")[0] for node in nodes if node.op == op}
        return sorted(layers - {""})

    def _small_weights(self, variant: str) -> bytes:
        """The float graph with its weights as float16, or as int8 (``dynamic``)."""
        tf = tensorflow()
        converter = self._converter()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if variant == "float16":
            converter.target_spec.supported_types = [tf.float16]
        # as in `quantize`: tflite-runtime 2.14 refuses the other form
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        return self._converted(converter)

    @cached_property
    def calibrated(self) -> bytes:
        """The float flatbuffer with the range of each activation written in."""
        return _span_input(self._observed[1])

    @cached_property
    def _observed(self) -> tuple[Any, bytes]:
        """(the calibrator after all photos, the flatbuffer with its ranges)."""
        if self._calibration is None:
            raise EdgegraftError(
                "an integer file needs calibration photos, got none; "
                "give uint8 pixels [N, H, W, 3] of training photos"
            )
        return _observe(self.base, self._calibration, self._progress)

    def _int16x8(self) -> bytes:
        """16-bit activations, 8-bit weights, float32 in and out.

        TensorFlow has this in its older quantizer only, which takes the ranges from
        the calibrator itself: a black and a white image are added to span the input.
        With 16 bits the wider ranges of other tensors cost no accuracy.
        """
        tf = tensorflow()
        calibrator, _ = self._observed

        def images() -> Iterator[list[npt.NDArray[np.float32]]]:
            for value in (BLACK, WHITE):
                yield [np.full((1, *self._shape), value, np.float32)]

        with silenced(), one_line("quantize the model"):
            quantized = calibrator.calibrate_and_quantize(
                images,
                tf.float32,
                tf.float32,
                allow_float=True,  # `verify` checks which operators stay float
                activations_type=tf.int16,
                bias_type=tf.int64,
                disable_per_channel_quantization_for_dense_layers=True,
            )
        return _named_by_signature(bytes(quantized))


def calibrate(
    base: bytes, photos: Pixels, *, progress: Progress | None = None
) -> bytes:
    """A float flatbuffer with the ranges of its activations on photos."""
    return _span_input(_observe(base, photos, progress)[1])


def _observe(
    base: bytes, photos: Pixels, progress: Progress | None
) -> tuple[Any, bytes]:
    """(the calibrator after all photos, the flatbuffer with its ranges)."""
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    def feed() -> Iterator[list[npt.NDArray[np.float32]]]:
        for done, photo in enumerate(photos):
            if progress is not None:
                progress(done, len(photos))
            yield [photo[None].astype(np.float32)]

    with one_line("calibrate the model"):
        with silenced():
            calibrator = Calibrator(base)
        observed = bytes(calibrator.calibrate(feed))
    if progress is not None:
        progress(len(photos), len(photos))
    return calibrator, observed


def quantize(
    calibrated: bytes,
    *,
    float_io: bool = False,
    kept_float: Sequence[str] = (),
) -> bytes:
    """The integer flatbuffer of a calibrated one, uint8 in and out.

    `float_io`: float32 in and out, integers between. `kept_float`: names of
    tensors (in the calibrated graph) whose operators stay float.
    """
    tf = tensorflow()
    from tensorflow.lite.python.convert import mlir_quantize

    io_type = tf.float32 if float_io else tf.uint8
    with silenced(), one_line("quantize the model"):
        quantized = mlir_quantize(
            calibrated,
            input_data_type=io_type,
            output_data_type=io_type,
            denylisted_nodes=list(kept_float) or None,
            # One scale per output of a dense layer becomes FULLY_CONNECTED version
            # 12, which tflite-runtime 2.14 refuses.
            disable_per_channel_for_dense_layers=True,
        )
    return _named_by_signature(bytes(quantized))


# -- checks and errors ----------------------------------------------------------------


def _input_shape(model: Any) -> tuple[int, int, int]:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) == 1 and len(shapes[0]) == 4:
        height, width, channels = shapes[0][1:]
        if height and width and channels == 3:
            return int(height), int(width), 3
    raise EdgegraftError(
        f"expected a model with one image input [N, H, W, 3] of fixed size, "
        f"got {shapes}; build it for one size"
    )


def _check_pixels(pixels: Pixels, shape: tuple[int, int, int]) -> None:
    fits = pixels.ndim == 4 and pixels.shape[1:] == shape and len(pixels) > 0
    if not fits or pixels.dtype != np.uint8:
        height, width, _ = shape
        raise EdgegraftError(
            f"expected calibration photos as uint8 [N, {height}, {width}, 3], N > 0, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )


def _refuse_branches(tree: Any) -> None:
    """EdgegraftError, naming operator and tensor, for a graph with subgraphs.

    Branches and loops have no integer form. A `tf.cond` on a constant, such as whether
    a TF-Hub module is in training, has been folded before.
    """
    if len(tree.subgraphs) == 1:
        return
    graph = tree.subgraphs[0]
    branches = [
        f"{name} ({flatbuffer.text(graph.tensors[index].name)})"
        for op in graph.operators
        if (name := flatbuffer.op(tree, op)[0]) in _BRANCHES
        for index in op.outputs[:1]
    ]
    raise EdgegraftError(
        "expected a network without branches, loops and variables inside, got "
        f"{', '.join(branches) or 'some'}; build it without tf.cond, tf.while_loop and "
        "tf.Variable in a Lambda layer, or save the module with the branch it needs"
    )


@contextlib.contextmanager
def one_line(task: str, layers: Layers | None = None) -> Iterator[None]:
    """Turn the converter's long error into one line that names the operators.

    `layers`: operator -> names of the layers that need it.
    """
    try:
        yield
    except EdgegraftError:
        raise
    except Exception as error:
        text = str(error)
        ops = sorted(set(re.findall(r"\btf\.([A-Z]\w+)\(", text)))
        if ops:
            named = ", ".join(_named(op, layers(op) if layers else ()) for op in ops)
            reason = (
                f"TFLite has no operator for {named}; "
                "build the model without what needs it"
            )
        else:
            lines = (line.strip() for line in text.splitlines())
            reason = next((line for line in lines if line), type(error).__name__)
        raise EdgegraftError(f"cannot {task}: {reason:.300}") from error


def _named(op: str, layers: Sequence[str]) -> str:
    """An operator and the first layers that need it."""
    if not layers:
        return op
    names = ", ".join(map(repr, layers[:_MAX_LAYERS]))
    more = len(layers) - _MAX_LAYERS
    return f"{op} (layer {names}{f' and {more} more' if more > 0 else ''})"


# -- ranges of the input, and names of inputs and outputs -----------------------------


def _span_input(calibrated: bytes) -> bytes:
    """The calibrated flatbuffer with the ranges that are known without photos.

    It has the smallest and the largest value of each activation on the calibration
    photos. For the input they are known, 0 and 255, and so are those after its scaling
    (a multiplication, addition, subtraction or division by a constant). With these,
    dark calibration photos do not clip bright ones, and the input's scale is exactly 1
    with zero point 0. The other ranges can only be observed.
    """
    tree = flatbuffer.parse(calibrated)
    graph = tree.subgraphs[0]
    index, span = graph.inputs[0], (BLACK, WHITE)
    while True:
        tensor = graph.tensors[index]
        if tensor.quantization is None:
            tensor.quantization = flatbuffer.schema().QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [span[0]], [span[1]]
        readers = [op for op in graph.operators if index in list(op.inputs)]
        scaled = None
        if len(readers) == 1:
            scaled = _scaled(tree, graph, readers[0], index, span)
        if scaled is None:
            return flatbuffer.pack(tree)
        index, span = readers[0].outputs[0], scaled


def _scaled(tree: Any, graph: Any, op: Any, index: int, span: Span) -> Span | None:
    """The range of the output of a scaling operator; None for any other operator."""
    name = flatbuffer.op_name(tree.operatorCodes[op.opcodeIndex])
    inputs = list(op.inputs)
    if name not in ("MUL", "ADD", "SUB", "DIV") or len(inputs) != 2:
        return None
    if name in ("SUB", "DIV") and inputs[0] != index:
        return None  # a constant minus the photo
    constant = _constant(tree, graph.tensors[inputs[1 - inputs.index(index)]])
    if constant is None or op.builtinOptions.fusedActivationFunction:
        return None
    if name == "DIV" and not constant.all():
        return None
    apply = {"MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "DIV": np.divide}
    ends = np.concatenate([apply[name](np.float32(end), constant) for end in span])
    return float(ends.min()), float(ends.max())


def _constant(tree: Any, tensor: Any) -> npt.NDArray[np.float32] | None:
    """The float32 values of a constant, flat; None for other tensors."""
    data = tree.buffers[tensor.buffer].data
    if data is None or flatbuffer.type_name(tensor.type) != "FLOAT32":
        return None
    return np.frombuffer(bytes(data), np.float32)


def _uint8_input(base: bytes) -> bytes:
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


def _sign(tree: Any, outputs: Sequence[str]) -> None:
    """Add a signature: the input is the image, the outputs have these names, in their
    order. The tensors are named and ordered as in `_named_by_signature`."""
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


def _named_by_signature(model: bytes) -> bytes:
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
