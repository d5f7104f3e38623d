"""docs/cli.md, made from `--help`; `make docs` runs this."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
WIDTH = "88"
INTRODUCTION = """# Commands

Made from `--help` by `make docs`. Each command takes `-h`; those that report take \
`--json`. A folder is a command too: `python -m edge VERB` is `edgegraft edge VERB`.
"""


def help_of(words: list[str]) -> str:
    """What `edgegraft WORDS --help` prints."""
    import edgegraft

    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            edgegraft.main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return text.getvalue().rstrip()


def page() -> str:
    """The text of docs/cli.md."""
    import edgegraft

    parts = [INTRODUCTION, f"```text\n{help_of([])}\n```\n"]
    for verb in edgegraft.VERBS:
        below = edgegraft.BELOW.get(verb, ())
        for words in [[verb], *([verb, name] for name in below)]:
            title = " ".join(["edgegraft", *words])
            parts.append(f"## {title}\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
