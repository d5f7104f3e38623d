"""A model in a process of its own: a file that crashes does not end the page.

A file that ran on two pictures (`edge.subprocess_run`) may still crash, hang or ask for
all memory on a visitor's photo. The child that runs it here is bounded in memory, given
up after `ANSWER_S`, and started anew for the next photo; the visitor sees one line. A
photo costs 0.3 ms more than in this process.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import EdgegraftError, ModelError
from edge.model_file import ModelFile
from edge.runtime import Runtime, find, open_interpreter
from edge.subprocess_run import bound_memory, memory_for

START_S = 120.0  # for Python, the interpreter and the file to load, on any machine
ANSWER_S = 30.0  # for one photo: the slowest networks on a Pi take a second or two
_MOST_ANSWER = 64 << 20  # bytes of all outputs of one photo
_DONE, _FAILED = b"\0", b"\1"  # begin an answer


class ProcessModelFile(ModelFile):
    """A model file whose interpreters run in processes of their own."""

    def _interpreter(self, **options: Any) -> tuple[Runtime, Any]:
        """With an interpreter for `Classifier` alone."""
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
        about = self._start()
        self.runtime = Runtime(*about["runtime"])
        self._inputs, self._details = about["inputs"], about["outputs"]
        self._signature: dict[str, dict[str, Any]] = about["signature"]

    def get_input_details(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._inputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """Of the first signature too, by name (see `get_signature_runner`)."""
        return [dict(entry) for entry in self._details]

    def get_signature_list(self) -> dict[str, Any]:
        return {"first": {}} if self._signature else {}

    def get_signature_runner(self, _: str) -> _Signature:
        return _Signature(self._signature)

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
            raise RuntimeError(f"{reason}; it starts anew for the next photo")
        if answer[:1] == _FAILED:
            raise RuntimeError(answer[1:].decode("utf-8", "replace"))
        file = io.BytesIO(answer[1:])
        self._outputs = {
            entry["index"]: np.lib.format.read_array(file, allow_pickle=False)
            for entry in self._details
        }

    def _start(self) -> dict[str, Any]:
        """A new child, and what the file is; ModelError when it cannot be opened."""
        child = _Child()
        weakref.finalize(self, child.end)
        child.send(json.dumps(self._options).encode())
        answer = child.ask(self._model, START_S)
        where = self._options["where"]
        if answer is None:
            raise ModelError(f"{where}: {child.reason}")
        if answer[:1] == _FAILED:
            child.end()
            raise ModelError(answer[1:].decode("utf-8", "replace"))
        self._child = child
        about: dict[str, Any] = json.loads(answer[1:])
        return about


class _Signature:
    """The outputs of a signature by name."""

    def __init__(self, details: dict[str, dict[str, Any]]) -> None:
        self._details = details

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        return self._details


class _Child:
    """A process that runs `_serve`, and the connection to it."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        parent = str(Path(__file__).resolve().parents[1])
        search = os.pathsep.join(filter(None, [parent, os.environ.get("PYTHONPATH")]))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": search},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.reason = ""

    def send(self, content: bytes) -> bool:
        try:
            self._connection.send_bytes(content)
        except OSError:
            return False
        return True

    def ask(self, content: bytes, seconds: float) -> bytes | None:
        """The answer; None, with `reason`, when the child had to be ended."""
        try:
            if self.send(content) and not self._connection.poll(seconds):
                self.reason = f"it did not answer within {seconds:.0f} s"
            else:
                return self._connection.recv_bytes(_MOST_ANSWER)
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
        answer = json.dumps(_about(runtime, interpreter)).encode()
    except EdgegraftError as error:
        connection.send_bytes(_FAILED + str(error).encode())
        return
    connection.send_bytes(_DONE + answer)
    (entry, *_), outputs = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    while True:
        pixels = np.frombuffer(connection.recv_bytes(), entry["dtype"])
        try:
            interpreter.set_tensor(entry["index"], pixels.reshape(entry["shape"]))
            interpreter.invoke()
        except (RuntimeError, ValueError, MemoryError) as error:
            connection.send_bytes(_FAILED + str(error).encode())
            continue
        file = io.BytesIO(_DONE)
        file.seek(0, io.SEEK_END)
        for output in outputs:
            value = np.asarray(interpreter.get_tensor(output["index"]))
            np.lib.format.write_array(file, value, allow_pickle=False)
        connection.send_bytes(file.getvalue())


def _about(runtime: Runtime, interpreter: Any) -> dict[str, Any]:
    signatures = interpreter.get_signature_list()
    named: dict[str, Any] = {}
    if signatures:
        first = interpreter.get_signature_runner(next(iter(signatures)))
        named = first.get_output_details()
    return {
        "runtime": [runtime.name, runtime.version],
        "inputs": [_entry(entry) for entry in interpreter.get_input_details()],
        "outputs": [_entry(entry) for entry in interpreter.get_output_details()],
        "signature": {name: _entry(entry) for name, entry in named.items()},
    }


def _entry(details: dict[str, Any]) -> dict[str, Any]:
    """What `Classifier` reads of a tensor's details, for JSON."""
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
