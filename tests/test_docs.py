"""What README and docs tell people to type is there: commands parse, links exist.

`edgegraft build` is run for real in test_command.py, `make quickstart` and `make test`
by .ci/run.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import edge.cli
import edgegraft
from finetune.distributed import VARIABLE, _cluster
from tests import cli_docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
README_BYTES = 7000
NOT_OURS = (
    "source .venv/bin/activate",
    "python3 -m venv venv",
    "venv/bin/pip install",
    "pip install",
)


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return [
        block
        for text in TEXTS.values()
        for block in re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    ]


def commands() -> set[str]:
    lines = {line for block in blocks("sh") for line in block.splitlines()}
    for text in TEXTS.values():
        inline = re.findall(r"`((?:edgegraft|python -m|make) [^`]*)`", text)
        # In running text a command may be cut short by "..." or name a placeholder
        lines |= {line for line in inline if "..." not in line and "VERB" not in line}
    return {line for line in lines if line.strip()}


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the verb parse its arguments, and stop it before it does anything."""
    parsed = []

    def guard(*_: object, **__: object) -> int:
        parsed.append(True)
        return 0

    for module, _ in edgegraft.VERBS.values():
        module = import_module(module)
        if hasattr(module, "guard") and module is not edge.cli:
            monkeypatch.setattr(module, "guard", guard)
    monkeypatch.setattr("edge.command.guard", guard)
    # edge parses inside its guard: its verbs are replaced instead
    verb = SimpleNamespace(run=guard)
    monkeypatch.setattr(edge.cli, "import_module", lambda _: verb)
    try:
        edgegraft.main(words)
    except SystemExit as stop:
        pytest.fail(f"edgegraft {shlex.join(words)} does not parse ({stop.code})")
    assert parsed, f"nothing took the command edgegraft {shlex.join(words)}"


@pytest.mark.parametrize("line", sorted(commands()))
def test_command_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line.split(" | ")[0])  # what we pipe into is not ours
    if words[0] == "edgegraft":
        parse(words[1:], monkeypatch)
    elif words[:2] == ["python", "-m"]:
        parse(words[2:], monkeypatch)
    elif words[0].endswith("python") and words[1] == "edge.pyz":  # as one file
        parse(["edge", *words[2:]], monkeypatch)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[0] == "export":
        name, _, value = words[1].partition("=")
        assert name == VARIABLE and len(_cluster(value)[0]) == 2
    else:
        assert line.startswith(NOT_OURS), f"no test checks {line!r}"


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_name_what_is_there(code: str) -> None:
    names = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "edgegraft"
    }
    assert names <= set(edgegraft.__all__)


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="argparse wraps otherwise in other Pythons"
)
def test_cli_page_is_what_help_prints() -> None:
    page = cli_docs.page()
    assert "edgegraft edge classify" in page
    assert TEXTS["docs/cli.md"] == page, "run: make docs"


def test_every_verb_is_explained() -> None:
    everything = "".join(TEXTS.values())
    for verb in edgegraft.VERBS:
        assert f"edgegraft {verb}" in everything


@pytest.mark.parametrize("page", TEXTS)
def test_files_and_pictures_exist(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        path, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
                for title in titles
            }, link


def test_folders_and_files_that_are_named_exist() -> None:
    for text in (TEXTS["README.md"], TEXTS["docs/design.md"]):
        for folder in re.findall(r"^(\w+)/ ", text, re.MULTILINE):
            assert (ROOT / folder).is_dir(), folder
    for path in re.findall(r"`([\w/]+/\w+\.py)`", "".join(TEXTS.values())):
        assert (ROOT / path).is_file(), path


def test_the_readme_is_one_page() -> None:
    assert len(TEXTS["README.md"].encode()) <= README_BYTES


def test_the_cnn_example_is_the_default(tmp_path: Path) -> None:
    from backbones.custom_cnn import CnnConfig, read_config

    (text,) = blocks("toml")
    path = tmp_path / "cnn.toml"
    path.write_text(text, encoding="utf-8")
    assert read_config(path) == CnnConfig()
    for field in dataclasses.fields(CnnConfig):
        assert f"\n{field.name} = " in text
