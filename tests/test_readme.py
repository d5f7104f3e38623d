"""What the README tells people to type is there: every command parses, every file is.

The main one, `edgegraft build`, is run for real in test_command.py, and
`make quickstart` and `make test` by .ci/run.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import edgegraft
from finetune.distributed import VARIABLE, _cluster

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`((?:edgegraft|python -m|make) [^`]*)`", README)
COMMANDS = [line for block in SHELL for line in block.splitlines() if line.strip()]
# In running text and tables a command may be cut short by "..." or name a placeholder
COMMANDS += [line for line in INLINE if "..." not in line and "VERB" not in line]


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the verb parse its arguments, and stop it before it does anything."""
    parsed = []

    def guard(*_: object, **__: object) -> int:
        parsed.append(True)
        return 0

    for module, _ in edgegraft.VERBS.values():
        module = import_module(module)
        if hasattr(module, "guard"):
            monkeypatch.setattr(module, "guard", guard)
    monkeypatch.setattr("edge.command.guard", guard)
    try:
        edgegraft.main(words)
    except SystemExit as stop:
        pytest.fail(f"edgegraft {shlex.join(words)} does not parse ({stop.code})")
    assert parsed, f"nothing took the command edgegraft {shlex.join(words)}"


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
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
        known = ("source .venv/bin/activate", "python3 -m venv venv")
        known += ("venv/bin/pip install -r requirements.txt",)
        assert line.startswith(known), f"nobody checks {line!r}"


def test_every_verb_is_explained() -> None:
    for verb in edgegraft.VERBS:
        assert f"edgegraft {verb}" in README


def test_files_and_pictures_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
    for folder in re.findall(r"^(\w+)/ ", README, re.MULTILINE):
        assert folder == "photos" or (ROOT / folder).is_dir(), folder


def test_the_cnn_example_is_the_default(tmp_path: Path) -> None:
    from backbones.custom_cnn import CnnConfig, read_config

    (text,) = re.findall(r"^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    path = tmp_path / "cnn.toml"
    path.write_text(text, encoding="utf-8")
    assert read_config(path) == CnnConfig()
    for field in dataclasses.fields(CnnConfig):
        assert f"\n{field.name} = " in text


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"^@\w+@$", README, re.MULTILINE)
