"""A model in a process of its own: a file that crashes does not end the page.

A file that ran on two pictures (`edge.subprocess_run`) may still crash, hang or ask for
all memory on a visitor's photo. The child that runs it here is bounded in memory,
killed after `ANSWER_S`, and restarted for the next photo; the visitor sees one line. A
photo takes 0.3 ms longer than in this process.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection, Pipe
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, ModelError
from edge.model_file import ModelFile
from edge.runtime import Runtime, find, open_interpreter
from edge.subprocess_run import bound_memory, child_environment, memory_for

START_S = 120.0  # for Python, the interpreter and the file to load, on any machine
ANSWER_S = 30.0  # for one photo: the slowest networks on a Pi take a second or two
_MAX_ANSWER_BYTES = 64 << 20  # all outputs of one photo
_DONE, _FAILED = b"\0", b"\1"  # the first byte of an answer


class ProcessModelFile(ModelFile):
    """A model file whose interpreters run in processes of their own."""

    def _interpreter(self, **options: Any) -> tuple[Runtime, Any]:
        """Has only the methods that `Classifier` uses."""
        interpreter = ProcessInterpreter(self.flatbuffer, options)
        return interpreter.runtime, interpreter


class ProcessInterpreter:
    """The methods of a TFLite interpreter that `Classifier` uses, run by a child.

    `options` are those of `edge.runtime.open_interpreter`. One input; outputs are read
    after `invoke`, which raises RuntimeError when the child crashes or does not answer.
    """

    def __init__(self, model: bytes, options: dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._input = b""
        self._outputs: dict[int, npt.NDArray[Any]] = {}
        self._child: _Child | None = None
        self._details = self._start()
        self.runtime = Runtime(*self._details["runtime"])

    def get_input_details(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._details["inputs"]]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._details["outputs"]]

    def get_signature_list(self) -> dict[str, Any]:
        return {"first": {}} if self._details["signature"] else {}

    def get_signature_runner(self, _: str) -> SimpleNamespace:
        """Has `get_output_details` alone, which returns a dict by name."""
        return SimpleNamespace(get_output_details=lambda: self._details["signature"])

    def set_tensor(self, _: int, value: npt.NDArray[Any]) -> None:
        self._input = np.ascontiguousarray(value).tobytes()

    def get_tensor(self, index: int) -> npt.NDArray[Any]:
        return self._outputs[index]

    def invoke(self) -> None:
        if self._child is None:
            self._start()
        assert self._child is not None
        answer = self._child.ask(self._input, ANSWER_S)
        if answer is None:
            reason = self._child.reason
            self._child = None
            raise RuntimeError(f"{reason}; it starts again for the next photo")
        if answer[:1] == _FAILED:
            raise RuntimeError(answer[1:].decode("utf-8", "replace"))
        file = io.BytesIO(answer[1:])
        self._outputs = {
            entry["index"]: np.lib.format.read_array(file, allow_pickle=False)
            for entry in self._details["outputs"]
        }

    def _start(self) -> dict[str, Any]:
        """Start a child; the details of the file (see `_details_of`). ModelError when
        the file cannot be opened."""
        child = _Child()
        weakref.finalize(self, child.end)
        child.send(json.dumps(self._options).encode())
        answer = child.ask(self._model, START_S)
        if answer is None:
            raise ModelError(f"{self._options['where']}: {child.reason}")
        if answer[:1] == _FAILED:
            child.end()
            raise ModelError(answer[1:].decode("utf-8", "replace"))
        self._child = child
        details: dict[str, Any] = json.loads(answer[1:])
        return details


class _Child:
    """A process that runs `_serve`, and the connection to it."""

    def __init__(self) -> None:
        self._connection, child_end = Pipe()
        with child_end:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(child_end.fileno())],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[child_end.fileno()],
            )
        self.reason = ""

    def send(self, content: bytes) -> bool:
        try:
            self._connection.send_bytes(content)
        except OSError:
            return False
        return True

    def ask(self, content: bytes, seconds: float) -> bytes | None:
        """The answer; None when the child failed and was ended: see `reason`."""
        try:
            if self.send(content) and not self._connection.poll(seconds):
                self.reason = f"it did not answer within {seconds:.0f} s"
            else:
                return self._connection.recv_bytes(_MAX_ANSWER_BYTES)
        except (OSError, EOFError):
            self.reason = "the interpreter crashes on it, or runs out of memory"
        self.end()
        return None

    def end(self) -> None:
        self._connection.close()
        self.process.kill()
        self.process.wait()


def _serve(connection: Connection) -> None:
    """The child: open the model that is sent, run it on each input that is sent."""
    options = json.loads(connection.recv_bytes())
    model = connection.recv_bytes()
    try:
        find(options["runtime"])
        bound_memory(memory_for(model))
        runtime, interpreter = open_interpreter(model, **options)
        answer = json.dumps(_details_of(runtime, interpreter)).encode()
    except EdgegraftError as error:
        connection.send_bytes(_FAILED + str(error).encode())
        return
    connection.send_bytes(_DONE + answer)
    input_details = interpreter.get_input_details()[0]
    output_details = interpreter.get_output_details()
    while True:
        pixels = np.frombuffer(connection.recv_bytes(), input_details["dtype"])
        try:
            pixels = pixels.reshape(input_details["shape"])
            interpreter.set_tensor(input_details["index"], pixels)
            interpreter.invoke()
        except (RuntimeError, ValueError, MemoryError) as error:
            connection.send_bytes(_FAILED + str(error).encode())
            continue
        file = io.BytesIO()
        file.write(_DONE)
        for output in output_details:
            value = np.asarray(interpreter.get_tensor(output["index"]))
            np.lib.format.write_array(file, value, allow_pickle=False)
        connection.send_bytes(file.getvalue())


def _details_of(runtime: Runtime, interpreter: Any) -> dict[str, Any]:
    """The details of a runtime, tensors, and the first signature's outputs by name."""
    outputs: dict[str, Any] = {}
    if signatures := interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        outputs = runner.get_output_details()
    return {
        "runtime": [runtime.name, runtime.version],
        "inputs": [_entry(entry) for entry in interpreter.get_input_details()],
        "outputs": [_entry(entry) for entry in interpreter.get_output_details()],
        "signature": {name: _entry(entry) for name, entry in outputs.items()},
    }


def _entry(details: dict[str, Any]) -> dict[str, Any]:
    """The details of a tensor that `Classifier` reads, for JSON."""
    scale, zero = details["quantization"]
    return {
        "name": details["name"],
        "index": int(details["index"]),
        "shape": [int(side) for side in details["shape"]],
        "dtype": np.dtype(details["dtype"]).name,
        "quantization": (float(scale), int(zero)),
    }


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):
        sys.exit()  # the page has closed the model, or ended
