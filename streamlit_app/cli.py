"""`edgegraft app [MODEL...]`: the page, served on this machine.

It does not know: what the page shows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edge.command import Parser, guard
from edge.errors import EdgegraftError, ModelError
from edge.labels import read_label_file
from edge.run_folder import ARTIFACTS, file_inside
from streamlit_app.port import refuse_taken

HERE = Path(__file__).resolve().parent
# Streamlit's own settings. The same stand in .streamlit/config.toml, which an
# installed package does not have beside it.
SETTINGS = {
    "browser.gatherUsageStats": "false",
    "server.maxUploadSize": "1024",
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": "false",
    "client.toolbarMode": "minimal",
    "theme.baseRadius": "0.6rem",
    "theme.light.primaryColor": "#0f766e",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f7f6",
    "theme.light.textColor": "#17211f",
    "theme.dark.primaryColor": "#14b8a6",
    "theme.dark.backgroundColor": "#0f1514",
    "theme.dark.secondaryBackgroundColor": "#182220",
    "theme.dark.textColor": "#e8efed",
}


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft app") -> int:
    """Serve the page until Ctrl-C; the exit code."""
    parser = Parser(prog=prog, description="The page for photos.")
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL", help=".tflite files to list"
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="DIR",
        help=f"list the models of the runs in here, too (default: {ARTIFACTS})",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="one label on each line, for a MODEL that holds none",
    )
    parser.add_argument("--port", type=int, default=8501, help="default: 8501")
    parser.add_argument(
        "--host",
        default="localhost",
        help="default: localhost; 0.0.0.0 lets other machines of your network in",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="do not open a browser window"
    )
    parser.add_argument("--debug", action="store_true", help="show where errors arise")
    args = parser.parse_args(argv)
    return guard(lambda: _serve(args), debug=args.debug)


def command(args: argparse.Namespace) -> list[str]:
    """The command line that serves the page."""
    settings = {
        **SETTINGS,
        "server.port": str(args.port),
        "server.address": args.host,
        "server.headless": str(args.no_browser).lower(),
    }
    return [
        *(sys.executable, "-m", "streamlit", "run", str(HERE / "app.py")),
        *(f"--{name}={value}" for name, value in settings.items()),
        *("--", "--artifacts", str(args.artifacts or ARTIFACTS)),
        *(("--labels", str(args.labels)) if args.labels else ()),
        *(str(model) for model in args.models),
    ]


def _refuse_artifacts(folder: Path | None) -> None:
    """A folder that was named must be there; the default one comes with a first run."""
    if folder is not None and not folder.is_dir():
        got = "a file" if folder.exists() else "none"
        raise EdgegraftError(
            f"--artifacts {folder}: expected a folder of runs, got {got} (edgegraft "
            "build PHOTOS --artifacts DIR makes one)"
        )


def _serve(args: argparse.Namespace) -> int:
    for model in args.models:
        if not model.is_file():
            got = "there is none"
            if model.is_dir():
                got = f"got a folder{file_inside(str(model))}"
            raise ModelError(f"{model}: expected a .tflite file, {got}")
    if args.labels is not None:
        read_label_file(args.labels)
    _refuse_artifacts(args.artifacts)
    if not 1 <= args.port <= 65535:
        raise EdgegraftError(f"expected --port from 1 to 65535, got {args.port}")
    if find_spec("streamlit") is None:
        raise EdgegraftError(
            "the page needs streamlit; run in the checkout: pip install '.[app]' "
            "(or: make app, which installs it, too)"
        )
    refuse_taken(args.host, args.port)
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
    if os.name == "posix":  # the page takes this process's place: signals reach it
        os.execve(sys.executable, command(args), environment)
    return subprocess.call(command(args), env=environment)
