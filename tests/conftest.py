"""Fixtures that several rooms share: real assets where they are, small drawn photos."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with the most slow tests first, so that no worker is left with one."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept from run to run goes to a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def colours() -> Iterator[None]:
    """Runs of quantize_room name a backbone of the tests; no list of names has it."""
    from backbones import registry
    from tests import quantize_room

    known = registry.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            registry,
            "get",
            lambda name: (
                quantize_room.colour_backbone()
                if name == quantize_room.COLOURS
                else known(name)
            ),
        )
        yield


def bench_here(model: Any, *, extra_args: Any = (), **options: Any) -> Any:
    """The record of `edge bench --json`, as of bench_in_subprocess, in this process.

    Peak memory is that of all the tests.
    """
    from edge.cli import main
    from edge.errors import ModelError

    given = (f"--{name}={value}" for name, value in options.items())
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["bench", os.fspath(model), "--json", *given, *extra_args])
    if code:
        last = err.getvalue().strip().splitlines()[-1]
        raise ModelError(last.removeprefix("edgegraft: error: "))
    return json.loads(out.getvalue())["models"][0]


@pytest.fixture(scope="session", autouse=True)
def quick_timing() -> Iterator[Any]:
    """Files are timed briefly and here: a full timing starts three processes for each.

    In a `with` of what this gives, each file is timed in a process of its own.
    """
    try:
        from quantize.comparison import timing
    except ImportError:  # with what a device has alone
        yield None
        return
    time_all, apart = timing.time_all, timing.bench_in_subprocess

    def quick(paths: Any, runtime: str, effort: Any, *more: Any, **named: Any) -> Any:
        seconds = min(effort.seconds, 0.02)
        effort = replace(effort, rounds=1, runs=min(effort.runs, 3), seconds=seconds)
        return time_all(paths, runtime, effort, *more, **named)

    @contextmanager
    def timed_apart() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timing, "bench_in_subprocess", apart)
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time_all", quick)
        patch.setattr(timing, "bench_in_subprocess", bench_here)
        yield timed_apart


@pytest.fixture(scope="session")
def assets() -> Path:
    """Real photos and weights; the test is skipped where they are not."""
    folder = os.environ.get("EDGEGRAFT_ASSETS")
    if not folder or not Path(folder, "photos").is_dir():
        pytest.skip("EDGEGRAFT_ASSETS names no folder with real photos and weights")
    return Path(folder)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn sample set: photos/{cat,dog}, unknown/, test_cat.jpg, ...

    One for all the workers; a test that changes photos copies them.
    """
    from data.sample.sample_set import write_sample

    folder = tmp_path_factory.getbasetemp() / "drawn" / "sample"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parents[2] / "drawn" / "sample"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes first draws it
        if not folder.exists():
            write_sample(folder, count=24, seed=3, unknown=4)
    return folder


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Playwright's Browser, Debian's Chromium; its camera films a drawn cat.

    Skipped with the reason where there is none, except where CI says there must be.
    """
    from data.sample.picture import picture_file
    from tests import browser as chromium

    reason = chromium.why_not()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    film = tmp_path_factory.mktemp("camera") / "cat.mjpeg"
    cat = Image.open(io.BytesIO(picture_file("cat", seed=0, stream=100, index=0)[1]))
    frame = io.BytesIO()
    cat.convert("RGB").resize((640, 480)).save(frame, "JPEG", subsampling=2)
    film.write_bytes(frame.getvalue() * 30)
    with sync_playwright() as playwright:
        found = chromium.launch(playwright, film)
        yield found
        found.close()
