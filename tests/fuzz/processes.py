"""The page under many visitors, and a build that is killed and resumed: what needs
processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.fuzz.batches import Base, Tally, hostile_run
from tests.fuzz.command import tree
from tests.page_server import ROOT, page, serve

FEW_FILES = 256  # ulimit -n of the server
PAGES = ("", "batch", "compare", "model", "review", "train")
HOSTILE_RUNS = 12
SPARE = 60  # file descriptors that the server may have above its start at the end
WHOLE = ("exports/float32.tflite", "comparison.json", "README.md")  # of a build
BUILD_S = 1800.0  # until a resumed build counts as a hang, on a busy machine
BUILT = (0, 3)  # 3: a file failed its gate, all else is there
VISIT_S = 30.0  # until a visit without an answer counts as a hang


def visits(base: Base, seed: int, count: int, keep: Path | None) -> Tally:
    """Visitors one after another, each to some page with some run, hostile or not."""
    tally, rng = Tally(), Random(seed)
    with tempfile.TemporaryDirectory(prefix="edgegraft-fuzz-") as scratch:
        folder = Path(scratch)
        artifacts = folder / "artifacts"
        shutil.copytree(base.run, artifacts / "good")
        for number in range(HOSTILE_RUNS):
            hostile_run(base, artifacts / f"bad-{number}", rng)
        command = ["sh", "-c", f'ulimit -n {FEW_FILES}; exec "$@"', "sh"]
        command += page("--artifacts", artifacts)
        with serve(command, folder / "log") as served:
            descriptors = Path(f"/proc/{served.process.pid}/fd")
            _visit(served.address, "", "good")
            before = len(os.listdir(descriptors))
            for _ in range(count):
                where, run = rng.choice(PAGES), rng.choice(os.listdir(artifacts))
                begin = time.monotonic()
                try:
                    problem = _visit(served.address, where, run)
                except Exception as error:  # whatever the connection ends with
                    problem = f"{type(error).__name__}: {error}"
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - begin)
                tally.counts["visits"] += 1
                if problem is not None:
                    tally.faults.append(f"visit | {where}?run={run}: {problem:.300}")
                    if keep is not None:
                        kept = keep / f"visits-{seed}-{run}"
                        shutil.copytree(artifacts / run, kept, dirs_exist_ok=True)
                if len(tally.faults) > 20 or served.process.poll() is not None:
                    break
            after = _settled(descriptors, before + SPARE)
            if after > before + SPARE:
                tally.faults.append(f"descriptors: {before} before, {after} after")
            with urlopen(f"{served.address}/_stcore/health", timeout=VISIT_S) as answer:
                if answer.status != 200:
                    tally.faults.append(f"health {answer.status}")
        log = (folder / "log").read_text(errors="replace")
        if "Traceback" in log:
            tally.faults.append(f"traceback in the server's log: {log[-300:]!r}")
    return tally


def _settled(descriptors: Path, limit: int) -> int:
    """How many files are open, once they are few enough, or after a while."""
    for _ in range(30):
        if len(os.listdir(descriptors)) <= limit:
            break
        time.sleep(1)
    return len(os.listdir(descriptors))


def _visit(address: str, where: str, run: str) -> str | None:
    """Open a page as a browser does, and leave; what went wrong, or None."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    with connect(
        address.replace("http", "ws", 1) + "/_stcore/stream",
        subprotocols=["streamlit"],  # type: ignore[list-item]
        origin=address,  # type: ignore[arg-type]
        max_size=None,
        open_timeout=VISIT_S,
    ) as socket:
        wish = BackMsg()
        wish.rerun_script.query_string = urlencode({"run": run})
        wish.rerun_script.page_name = where
        socket.send(wish.SerializeToString())
        problem = None
        while True:
            message = ForwardMsg()
            message.ParseFromString(socket.recv(timeout=VISIT_S))  # type: ignore[arg-type]
            kind = message.WhichOneof("type")
            if kind == "script_finished":
                return problem
            if kind == "delta":
                element = message.delta.new_element
                if element.WhichOneof("type") == "exception":
                    problem = f"{element.exception.type}: {element.exception.message}"


# --- kills ----------------------------------------------------------------------------
def kills(base: Base, seed: int, count: int, keep: Path | None) -> Tally:
    """One build, killed at `count` random moments, each time resumed, then whole."""
    tally, rng = Tally(), Random(seed)
    with tempfile.TemporaryDirectory(prefix="edgegraft-fuzz-") as scratch:
        folder = Path(scratch)
        photos = folder / "photos"
        shutil.copytree(base.photos, photos)
        before = tree(photos)
        command = [
            sys.executable, "-m", "edgegraft", "build", "--no-ladder", "--run", "it",
            "--artifacts", folder / "artifacts",
        ]  # fmt: skip
        anew = [photos, "--backbone", "custom_cnn", "--size", "32", "--epochs", "30"]
        run = folder / "artifacts" / "it"
        for _ in range(count):
            process = _started(command, anew, run)
            while process.poll() is None and not (run / "run.json").is_file():
                time.sleep(0.05)  # until there is something to resume
            time.sleep(rng.uniform(0.5, 12))
            if process.poll() is None:
                process.kill()
            out = process.communicate()[0].decode(errors="replace")
            tally.counts["kills"] += process.returncode == -9
            tally.faults += _faults(process.returncode, out, (*BUILT, -9))
            tally.faults += _torn(run)
            if process.returncode in BUILT:  # whole before the next moment came: anew
                shutil.rmtree(run)
        process = _started(command, anew, run)
        try:
            out = process.communicate(timeout=BUILD_S)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            out = process.communicate()[0].decode(errors="replace")
        tally.faults += _faults(process.returncode, out, BUILT)
        if not all((run / name).is_file() for name in WHOLE):
            tally.faults.append(f"the resumed build is not whole | {out[-300:]!r}")
        if tree(photos) != before:
            tally.faults.append("photos changed | kills")
    return tally


def _started(
    command: Sequence[str | Path], anew: Sequence[str | Path], run: Path
) -> subprocess.Popen[bytes]:
    """A run keeps its own settings: they are given to the first build alone."""
    more = ["--resume"] if (run / "run.json").is_file() else anew
    return subprocess.Popen(
        [*map(str, command), *map(str, more)],
        cwd=run.parents[1],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _faults(code: int, out: str, codes: Sequence[int]) -> list[str]:
    faults = [] if code in codes else [f"exit {code} | build: {out[-300:]!r}"]
    if "Traceback" in out:
        faults.append(f"traceback | build: {out[-300:]!r}")
    return faults


def _torn(run: Path) -> list[str]:
    """Records of a killed run that are no whole JSON."""
    faults = []
    for path in run.glob("*.json"):
        try:
            json.loads(path.read_text("utf-8"))
        except ValueError as error:
            faults.append(f"torn {path.name} | {error}")
    return faults
