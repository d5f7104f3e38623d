"""The rooms stand as docs/design.md says: who may import whom, and what never happens.

Everything is read from the syntax trees, so a lazy import inside a function counts
like one at the top.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.edge_models import tiny

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "edge": set(),
    "data": {"edge"},
    "backbones": {"edge"},
    "finetune": {"edge", "data", "backbones"},
    "quantize": {"edge", "data", "backbones", "finetune"},
    "streamlit_app": {"edge"},
    "edgegraft": {"edge", "data", "backbones", "finetune", "quantize", "streamlit_app"},
}
EDGE_PACKAGES = {"numpy", "PIL"}
EDGE_CAMERAS = {"cv2", "picamera2", "paho"}
EDGE_EXTRAS = {"pillow_heif", "ray"}
INTERPRETERS = {"ai_edge_litert", "tflite_runtime"}
SCHEMA_READERS = (
    "quantize/tflite/flatbuffer.py",
)  # of LiteRT the file format, no kernels
RUNTIME_PACKAGES = INTERPRETERS | {"tensorflow"}
KERAS = {"keras", "tf_keras"}
HEAVY = {"tensorflow", "keras", "tf_keras", "sklearn", "scipy", "matplotlib"}
HEAVY |= {"pandas", "streamlit", "cv2", "tensorflow_hub"}
ROOMS = set(MAY_IMPORT)
# The parts of the page that show nothing; `edgegraft app --help` starts at once.
WITHOUT_STREAMLIT = {"cli", "model_pool", "answer", "feedback", "runs"}
SMALL_FILE = 40  # lines; a smaller file has a second importer, or joins another
# The vocabulary of docs/design.md: words that say nothing to an engineer of this field
FORBIDDEN = re.compile(
    r"\b(told|tells|teller|telling|nevertheless|by so much|asked of|not surely|"
    r"somebody|whoever|made less sure|does not know:|doubts|doubted|doubtful|unwanted|"
    r"unsure|refit|refitted|crossed|strangers|chances|certainty|trials?|survives?|"
    r"elsewhere|steady|maker|shelf)\b",
    re.IGNORECASE,
)
OLD_NAMES = {"finetune/run.py"}  # reads runs of the first edition
AT_IMPORT = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)


def sources(room: str) -> list[Path]:
    if room == "edgegraft":
        return [ROOT / "edgegraft.py"]
    return sorted((ROOT / room).rglob("*.py"))


@functools.cache
def all_sources() -> list[Path]:
    return [path for room in MAY_IMPORT for path in sources(room)]


@functools.cache  # a dozen tests look at each file
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """(top-level package, line) of every import in a file, lazy ones too."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield path.relative_to(ROOT).parts[0].removesuffix(".py"), node.lineno
            elif node.module:
                yield node.module.split(".")[0], node.lineno
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, (ast.Name, ast.Attribute))
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value).split(".")[0], node.lineno


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_one_way(room: str) -> None:
    files = sources(room)
    assert files, f"no source in {room}"
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[room] - {room}
    wrong = [
        f"{name_of(path)}:{line} imports {package}"
        for path in files
        for package, line in imports(path)
        if package in forbidden
    ]
    assert not wrong


def test_the_order_of_rooms_has_no_cycle() -> None:
    for room, below in MAY_IMPORT.items():
        for other in below:
            assert room not in MAY_IMPORT[other]


def test_edge_imports_only_a_devices_packages() -> None:
    allowed = set(sys.stdlib_module_names) | EDGE_PACKAGES | EDGE_CAMERAS | EDGE_EXTRAS
    allowed |= {"edge"}
    wrong = [
        f"{name_of(path)}:{line} imports {package}"
        for path in sources("edge")
        for package, line in imports(path)
        if package not in allowed
        and not (name_of(path) == "edge/runtime.py" and package in RUNTIME_PACKAGES)
    ]
    assert not wrong


def test_one_file_names_an_interpreter() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {package}"
        for path in all_sources()
        for package, line in imports(path)
        if package in INTERPRETERS
        and name_of(path) not in ("edge/runtime.py", *SCHEMA_READERS)
    ]
    assert not wrong
    makes = [
        name_of(path)
        for path in all_sources()
        for node in nodes(path)
        if (isinstance(node, ast.Attribute) and node.attr == "Interpreter")
        or (
            isinstance(node, ast.ImportFrom)
            and any(alias.name == "Interpreter" for alias in node.names)
        )
    ]
    assert set(makes) <= {"edge/runtime.py"}


def test_one_file_names_keras() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {package}"
        for path in all_sources()
        for package, line in imports(path)
        if package in KERAS and name_of(path) != "backbones/keras.py"
    ]
    assert not wrong


def test_a_modules_top_level_defines() -> None:
    """No loops, calls or prints there; only `__main__` files and guards run things."""
    wrong = [
        f"{name_of(path)}:{node.lineno} runs {ast.unparse(node):.60}"
        for path in all_sources()
        if path.name != "__main__.py"
        for node in tree(path).body
        if not (isinstance(node, AT_IMPORT) or _is_docstring(node) or _is_guard(node))
    ]
    assert not wrong


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    text = ast.unparse(node.test)
    return text in ("__name__ == '__main__'", "TYPE_CHECKING") or text.startswith(
        "sys.version_info"
    )


def test_importing_everything_works_nothing_off(tmp_path: Path) -> None:
    """In a process of its own: no output, no files written, no heavy package."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in all_sources()
        if path.name not in ("__main__.py", "__init__.py")
        and ("streamlit_app" not in path.parts or path.stem in WITHOUT_STREAMLIT)
    ]
    script = tmp_path / "look.py"
    script.write_text(_IMPORT_ALL.format(modules=modules, heavy=HEAVY), "utf-8")
    done = _run([str(script)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote [], pulled in []\n"


_IMPORT_ALL = """
import importlib, os, sys
wrote = []
def hook(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        wrote.append(args[0])
    elif event in ("subprocess.Popen", "socket.connect", "os.mkdir", "os.remove"):
        wrote.append(event)
sys.dont_write_bytecode = True
sys.addaudithook(hook)
for module in {modules!r}:
    importlib.import_module(module)
print(f"wrote {{wrote}}, pulled in {{sorted({heavy!r} & set(sys.modules))}}")
"""


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", all_sources(), ids=name_of)
def test_files_say_what_they_are(path: Path) -> None:
    assert path.name == "__main__.py" or ast.get_docstring(tree(path))


def test_edge_never_pulls_tensorflow_in(tmp_path: Path) -> None:
    """In a process of its own: importing all of edge, then a real `classify`."""
    script = tmp_path / "look.py"
    script.write_text(_CLASSIFY.format(heavy=HEAVY | ROOMS - {"edge"}), "utf-8")
    done = _run([str(script), *_classify_arguments(tmp_path)], tmp_path)
    assert done.returncode == 0, done.stderr
    answer, pulled_in = done.stdout.splitlines()
    assert answer.split()[0] == "red"
    assert pulled_in == "pulled in []"


_CLASSIFY = """
import sys, importlib, pkgutil
import edge, edge.cli
for found in pkgutil.walk_packages(edge.__path__, "edge."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
code = edge.cli.main(sys.argv[1:])
print(f"pulled in {{sorted({heavy!r} & set(sys.modules))}}")
sys.exit(code)
"""


def _classify_arguments(folder: Path) -> list[str]:
    """A photo and a model, so that classify does all of its work."""
    photo = folder / "photo.jpg"
    Image.new("RGB", (320, 240), (200, 0, 0)).save(photo)
    return ["classify", tiny(folder), str(photo), "--runtime", "litert"]


def module_of(path: Path) -> str:
    """Its dotted name; of a package's `__init__` that of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules_at_import(path: Path, known: frozenset[str]) -> frozenset[str]:
    """The modules of ours that a file imports, lazily or under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return frozenset(found & known - {module_of(path)})


def test_no_file_imports_itself_through_others() -> None:
    paths = {module_of(path): path for path in all_sources()}
    graph = {
        name: modules_at_import(path, frozenset(paths)) for name, path in paths.items()
    }
    done: set[str] = set()
    cycles: list[list[str]] = []

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            cycles.append([*way[way.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    assert not cycles


def test_a_small_file_has_two_importers() -> None:
    paths = {module_of(path): path for path in all_sources()}
    importers: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for other in modules_at_import(path, frozenset(paths)):
            importers[other].add(name)
    small = {
        name: len(importers[name])
        for name, path in paths.items()
        if path.name not in ("__init__.py", "__main__.py")
        and len(path.read_text("utf-8").splitlines()) < SMALL_FILE
    }
    assert not {name for name, count in small.items() if count < 2}


@pytest.mark.parametrize("path", all_sources(), ids=name_of)
def test_words_are_the_fields_own(path: Path) -> None:
    """docs/design.md has the vocabulary: what to say instead."""
    if name_of(path) not in OLD_NAMES:
        assert not FORBIDDEN.findall(path.read_text("utf-8"))
