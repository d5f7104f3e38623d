"""A real browser for the tests: Debian's Chromium, headless, driven by Playwright.

Playwright's own browsers are never downloaded. `find` looks on the PATH; `why_not`
says what is missing on this machine.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--renderer-process-limit=1",  # none in reserve: each costs a second
)


def find() -> str | None:
    """The path of an installed Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def why_not() -> str | None:
    """Why no browser can be started here, and what mends it; None when one can."""
    if find_spec("playwright") is None:
        return "no playwright here; run: pip install playwright"
    if find() is None:
        return "no Chromium here; on Debian: apt install chromium"
    return None


def launch(playwright: Any, film: Path | None = None) -> Any:
    """A Browser. `film` (.mjpeg or .y4m) is what its camera sees; no one is asked."""
    camera = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    return playwright.chromium.launch(
        executable_path=find(), args=[*QUIET, *(camera if film else ())]
    )
