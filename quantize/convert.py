"""A trained Keras model becomes the bytes of a `.tflite` file.

The steps are kept apart so that variants share them: the graph is traced and
turned into a float flatbuffer once (seconds), calibrated once (it runs every
calibration photo), and each variant is made out of one of the two (milliseconds).

The input is uint8 RGB in every variant. The float graph gets a CAST in front. The
integer graph gets it from the range of its input, which is set to 0..255 whatever the
calibration photos spanned (ranges): over eight bits that is scale 1, zero point 0.

It does not know: files, runs, labels, how good the result is, or whether it kept
to the contract (verify).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError
from quantize import flatbuffer, ranges
from quantize.recipes import variant as find_variant

Pixels = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

PROBABILITIES = "probabilities"  # signature output of a model with one output
IMAGE = "image"  # signature input


class Conversion:
    """The conversions of one model, sharing what they have in common.

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
        if record.calibrated:
            return _quantize(self.calibrated)
        return _uint8_input(self.base)

    @cached_property
    def base(self) -> bytes:
        """The float flatbuffer, float32 input; every variant begins with it."""
        from backbones.keras import tensorflow

        tf = tensorflow()
        height, width, _ = self._shape
        spec = tf.TensorSpec((1, height, width, 3), tf.float32, name=IMAGE)

        def serve(image: Any) -> Any:
            out = self._model(image, training=False)
            return out if isinstance(out, dict) else {PROBABILITIES: out}

        # A module that holds the variables alone: with the Keras model itself the
        # converter also saves and loads every layer, which takes five times as long.
        holder = tf.Module()
        holder.variables_used = list(self._model.variables)
        with quiet(), _one_line("convert the model"):
            function = tf.function(serve).get_concrete_function(spec)
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [function], holder
            )
            return _named_by_signature(bytes(converter.convert()))

    @cached_property
    def calibrated(self) -> bytes:
        """The float flatbuffer with the range of each activation written in."""
        if self._calibration is None:
            raise EdgegraftError(
                "an int8 file needs calibration photos, got none; "
                "give uint8 pixels [N, H, W, 3] of training photos"
            )
        base, photos, progress = self.base, self._calibration, self._progress
        from tensorflow.lite.python.optimize.calibrator import Calibrator

        def feed() -> Iterator[list[npt.NDArray[np.float32]]]:
            for done, photo in enumerate(photos):
                if progress is not None:
                    progress(done, len(photos))
                yield [photo[None].astype(np.float32)]

        with _one_line("calibrate the model"):
            with quiet():
                calibrator = Calibrator(base)
            observed = bytes(calibrator.calibrate(feed))
        if progress is not None:
            progress(len(photos), len(photos))
        return ranges.span_input(observed)


def convert(
    model: Any,
    variant: str,
    *,
    calibration: Pixels | None = None,
    progress: Progress | None = None,
) -> bytes:
    """One variant of a model; `Conversion` makes several and shares their work."""
    conversion = Conversion(model, calibration=calibration, progress=progress)
    return conversion.make(variant)


def _quantize(calibrated: bytes) -> bytes:
    """The full-integer flatbuffer, uint8 in and out, of a calibrated one."""
    from backbones.keras import tensorflow

    tf = tensorflow()
    from tensorflow.lite.python.convert import mlir_quantize

    with quiet(), _one_line("quantize the model"):
        made = mlir_quantize(
            calibrated,
            input_data_type=tf.uint8,
            output_data_type=tf.uint8,
            # One scale per output of a dense layer becomes FULLY_CONNECTED version
            # 12, which tflite-runtime 2.14 refuses.
            disable_per_channel_for_dense_layers=True,
        )
    return _named_by_signature(bytes(made))


def _uint8_input(base: bytes) -> bytes:
    """The same graph behind a CAST from uint8, its first operator."""
    types = flatbuffer.schema()
    tree = flatbuffer.parse(base)
    graph = tree.subgraphs[0]
    inner = graph.inputs[0]

    image = types.TensorT()
    image.name = graph.tensors[inner].name
    image.shape = graph.tensors[inner].shape
    image.type = types.TensorType.UINT8
    image.buffer = 0  # the empty buffer: not a constant
    graph.tensors[inner].name = IMAGE + "_float"
    graph.tensors = [*graph.tensors, image]
    outer = len(graph.tensors) - 1

    code = types.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = types.BuiltinOperator.CAST
    code.version = 1
    tree.operatorCodes = [*tree.operatorCodes, code]

    cast = types.OperatorT()
    cast.opcodeIndex = len(tree.operatorCodes) - 1
    cast.inputs, cast.outputs = [outer], [inner]
    cast.builtinOptionsType = types.BuiltinOptions.CastOptions
    cast.builtinOptions = types.CastOptionsT()
    cast.builtinOptions.inDataType = types.TensorType.UINT8
    cast.builtinOptions.outDataType = types.TensorType.FLOAT32
    graph.operators = [cast, *graph.operators]

    graph.inputs = [outer]
    for entry in tree.signatureDefs[0].inputs:
        entry.tensorIndex = outer
    return flatbuffer.pack(tree)


def _named_by_signature(model: bytes) -> bytes:
    """Inputs and outputs get their signature's names.

    The converter calls them ``serving_default_image:0`` and
    ``StatefulPartitionedCall:0``, which helps nobody who opens the file elsewhere.
    """
    tree = flatbuffer.parse(model)
    tensors = tree.subgraphs[0].tensors
    signature = tree.signatureDefs[0]
    for entry in [*signature.inputs, *signature.outputs]:
        tensors[entry.tensorIndex].name = flatbuffer.text(entry.name)
    return flatbuffer.pack(tree)


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


@contextlib.contextmanager
def _one_line(task: str) -> Iterator[None]:
    """What the converter raises, many lines long, as one that names the operators."""
    try:
        yield
    except EdgegraftError:
        raise
    except Exception as error:
        text = str(error)
        ops = sorted(set(re.findall(r"\btf\.([A-Z]\w+)\(", text)))
        if ops:
            reason = (
                f"TFLite has no operator for {', '.join(ops)}; "
                "build the model without the layer that needs it"
            )
        else:
            lines = (line.strip() for line in text.splitlines())
            reason = next((line for line in lines if line), type(error).__name__)
        raise EdgegraftError(f"cannot {task}: {reason:.300}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what is written to file descriptors 1 and 2 nowhere, for a while.

    The converter's native code reports there line by line. Errors are raised, not
    written, and come through.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        kept = [os.dup(1), os.dup(2)]
    except OSError:  # a service without them has nothing to keep quiet
        yield
        return
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
