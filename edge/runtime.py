"""Which TFLite interpreter runs the model: the only file that imports one.

Tried in order: LiteRT (``ai-edge-litert``), tflite-runtime, tf.lite. All switch the
XNNPACK kernels on by themselves where they have them (tflite-runtime 2.14 has none
for int8). An interpreter serves one thread at a time; open one for each thread.

XNNPACK's weight cache is not used: none of the three interpreters takes one (LiteRT
2.3 has it in its CompiledModel alone), and loading MobileNetV2 1.0 int8 without takes
5 ms of the 220 ms that one photo's process lives.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from edge.errors import ModelError, RuntimeMissing, one_line

NAMES = ("litert", "tflite-runtime", "tf.lite")
# MobileNetV2 1.0 at 224, int8, on two idle cores: 3.3 ms with one thread, 1.8 ms
# with two. Beyond four, networks of this size gain little.
MAX_THREADS = 4
# More are refused: an interpreter asked for tens of thousands ends the process
THREADS_LIMIT = 256

_EDGE_TPU = "edgetpu-custom-op"
_FLEX = "Flex"  # begins the names of TensorFlow Select's operators
_UNRESOLVED = ("custom op", "select tensorflow", "flex delegate", "regular tensorflow")
_DELEGATE_SYMBOL = "tflite_plugin_create_delegate"
_NUMPY_2 = "tflite-runtime was built for numpy 1 and numpy 2 is installed"

_PACKAGES = {
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime",
    "tf.lite": "tensorflow",
}
_MODULES = {name: package.replace("-", "_") for name, package in _PACKAGES.items()}


@dataclass(frozen=True)
class Runtime:
    """The interpreter in use: one of `NAMES`, and its version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def cores() -> int:
    """The cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def default_threads() -> int:
    """All cores this process may use, at most `MAX_THREADS`."""
    return min(cores(), MAX_THREADS)


def thread_warning(threads: int) -> str | None:
    """A warning for more threads than cores; None for no more."""
    if threads <= cores():
        return None
    from edge.text import plural

    return (
        f"--threads {threads} on {plural(cores(), 'core')}: more threads than cores "
        f"wait for each other; try --threads {default_threads()}"
    )


def find(name: str = "auto") -> tuple[Runtime, Any]:
    """The first interpreter that works (or the named one) and its class."""
    if name != "auto" and name not in NAMES:
        raise RuntimeMissing(
            f"unknown runtime {name!r}: expected auto, {', '.join(NAMES)}"
        )
    problems: dict[str, str] = {}
    for candidate in NAMES if name == "auto" else (name,):
        try:
            return _load(candidate)
        except ImportError as error:
            problems[candidate] = f"{one_line(error):.200}"
    for candidate, problem in problems.items():
        if name != "auto" or _installed(candidate):
            advice = _advice(candidate, problem)
            raise RuntimeMissing(f"{candidate}: {problem}; {advice}")
    raise RuntimeMissing(f"no TFLite interpreter is installed: {_install_line()}")


def diagnose() -> list[tuple[str, str | None, str | None, str | None]]:
    """For each of `NAMES`: (name, version, problem, advice), None where nothing."""
    rows: list[tuple[str, str | None, str | None, str | None]] = []
    for name in NAMES:
        if not _installed(name):
            advice = None if rows and rows[0][2] is None else _install_line()
            rows.append((name, None, "not installed", advice))
            continue
        try:
            runtime, _ = _load(name)
        except ImportError as error:
            problem = f"{one_line(error):.200}"
            rows.append((name, _version(name), problem, _advice(name, problem)))
        else:
            rows.append((name, runtime.version, None, None))
    return rows


def open_interpreter(
    model: bytes,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    xnnpack: bool = True,
    delegate: str | None = None,
    size: tuple[int, int] | None = None,
    where: str = "model",
) -> tuple[Runtime, Any]:
    """An interpreter for a model's bytes, tensors allocated; `ModelFile.open` for a
    file that is not known to be sound.

    Without `xnnpack`, TensorFlow Lite's own kernels run: several times slower, and
    to the last bit the same in LiteRT as in tflite-runtime 2.14, which uses them for
    int8 in any case. XNNPACK rounds otherwise (a step of an output here and there).
    `delegate` is the path of a delegate's library (an Edge TPU's, a GPU's), with its
    options after it: ``libedgetpu.so.1,device=usb``.
    `size`: width and height for an input that leaves them open. `where` names the
    model in messages. ModelError for a file that this runtime refuses; RuntimeMissing
    when there is no interpreter.
    """
    if threads is not None and not 1 <= threads <= THREADS_LIMIT:
        raise ModelError(f"expected threads from 1 to {THREADS_LIMIT}, got {threads}")
    version, interpreter_class = find(runtime)
    options: dict[str, Any] = {}
    module = sys.modules[interpreter_class.__module__]
    if not xnnpack:
        resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options["experimental_op_resolver_type"] = resolver
    if delegate is not None:
        options["experimental_delegates"] = [_delegate(module, delegate)]
    try:
        interpreter = interpreter_class(
            model_content=model, num_threads=threads or default_threads(), **options
        )
        if size is not None:
            _resize(interpreter, size)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError, TypeError) as error:
        reason = one_line(error)
        if not delegate:
            reason = _missing_operator(model, reason, where)
        raise ModelError(f"{where}: {version} cannot run it: {reason:.300}") from error
    return version, interpreter


def _resize(interpreter: Any, size: tuple[int, int]) -> None:
    """Set a dynamic height and width, channels first or last."""
    entry = interpreter.get_input_details()[0]
    shape = [int(side) for side in entry["shape_signature"]]
    dynamic = [axis for axis, side in enumerate(shape) if axis and side == -1]
    if len(shape) != 4 or len(dynamic) != 2:
        raise ValueError(f"--size cannot be applied to an input {shape}")
    shape[0] = 1
    shape[dynamic[0]], shape[dynamic[1]] = size[1], size[0]
    interpreter.resize_tensor_input(entry["index"], shape)


def _missing_operator(model: bytes, reason: str, where: str) -> str:
    """The reason, or instead the operators that the runtime lacks."""
    if not any(word in reason.lower() for word in _UNRESOLVED):
        return reason
    from edge.tflite import check, custom_operators

    names = custom_operators(check(model, where))
    if _EDGE_TPU in (*names, reason.split()[-1].rstrip(".")):
        return "it is compiled for an Edge TPU; give --delegate libedgetpu.so.1"
    flex = [name.removeprefix(_FLEX) for name in names if name.startswith(_FLEX)]
    if flex:
        return (
            f"it needs {', '.join(flex)} of TensorFlow Select; convert it with "
            "TFLITE_BUILTINS alone, or run it with --runtime tf.lite"
        )
    return f"it needs the custom operator {', '.join(names)}" if names else reason


def _delegate(module: Any, text: str) -> Any:
    """The delegate of ``LIBRARY[,KEY=VALUE...]``; ModelError when it cannot be had."""
    library, *pairs = text.split(",")
    settings = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not (key and sign):
            raise ModelError(
                f"--delegate: expected LIBRARY,KEY=VALUE,... got {pair!r} in {text!r}"
            )
        settings[key] = value
    import ctypes

    try:
        # Asked for here first: LiteRT's loader ends a failure with a traceback
        if not hasattr(ctypes.CDLL(library), _DELEGATE_SYMBOL):
            raise ValueError(f"it has no {_DELEGATE_SYMBOL}")
        return module.load_delegate(library, settings)
    except (OSError, ValueError, RuntimeError) as error:
        hint = ""
        if "edgetpu" in library:
            hint = "; is the accelerator plugged in, is libedgetpu1-std installed?"
        raise ModelError(
            f"--delegate {library}: cannot be loaded ({one_line(error):.200}){hint}"
        ) from None


def _load(name: str) -> tuple[Runtime, Any]:
    """Import one interpreter; ImportError with any reason it does not load."""
    if not _installed(name):
        raise ImportError(f"{_PACKAGES[name]} is not installed")
    try:
        if name == "litert":
            from ai_edge_litert.interpreter import Interpreter
        elif name == "tflite-runtime":
            import numpy

            if int(numpy.__version__.split(".")[0]) >= 2:  # it would print a page
                raise ImportError(_NUMPY_2)
            from tflite_runtime.interpreter import Interpreter
        else:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
            import warnings

            import tensorflow

            message = r"\s*Warning: tf\.lite\.Interpreter is deprecated"
            warnings.filterwarnings("ignore", message)  # we prefer LiteRT already
            Interpreter = tensorflow.lite.Interpreter
    except ImportError:
        raise
    except Exception as error:  # a broken native library raises many kinds
        raise ImportError(f"{type(error).__name__}: {error}") from error
    return Runtime(name, _version(name) or "unknown"), Interpreter


def _installed(name: str) -> bool:
    if sys.modules.get(_MODULES[name]) is not None:
        return True
    from importlib.util import find_spec

    return find_spec(_MODULES[name]) is not None


def _version(name: str) -> str | None:
    module = sys.modules.get(_MODULES[name])
    version = getattr(module, "__version__", None)
    if version is None:
        from importlib import metadata

        try:
            version = metadata.version(_PACKAGES[name])
        except metadata.PackageNotFoundError:
            return None
    return str(version)


def _advice(name: str, problem: str) -> str:
    """The command that fixes a problem, in one line."""
    if problem == _NUMPY_2:
        return f'run: pip install "numpy<2", or: {_install("litert")}'
    if not _installed(name):
        return f"run: {_install(name)}"
    if "GLIBC" in problem or "manylinux" in problem:
        return "this system is too old for it, install another runtime"
    return f"run: {_install(name)} --force-reinstall"


def _install(name: str) -> str:
    return f"pip install {_PACKAGES[name]}"


def _install_line() -> str:
    """What to install on this machine."""
    import platform

    if platform.machine() in ("armv6l", "armv7l") or sys.maxsize < 2**32:
        return 'run: pip install tflite-runtime "numpy<2" (Python 3.11 or older)'
    return f"run: {_install('litert')}"
