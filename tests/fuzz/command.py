"""One command in a fork of this process, and what became of it.

A fork takes milliseconds where a new Python takes half a second, so thousands of
commands fit into minutes. The fork is watched: its exit, time, memory, and every
connection it opens to another host.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.subprocess_run import MEMORY

HANG_S = 10.0  # of processor time: a command that takes more hangs
COMPARE_S = 11.0  # more for `compare`: what two whole files take on a busy machine
KILLED_S = 60.0  # a command that waits for something is killed then
PHOTO_MIB = 400  # what one photo may take above what the process had before
# What a strange network may take: its bound, its copies, and the reading of the photo
MODEL_MIB = (MEMORY >> 20) + 200
# What a terminal acts on: control characters but tab and line feed, bidi marks
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ended:
    """`code` is negative for a signal, `seconds` of the processor, `peak_mib` above
    the fork's start."""

    command: tuple[str, ...]
    code: int
    seconds: float
    peak_mib: float
    out: str
    err: str
    requests: int

    def faults(
        self, codes: Sequence[int] = (0, 2), most_mib: float = PHOTO_MIB
    ) -> Iterator[str]:
        """What is wrong with how it ended: kind, then what is known of it."""
        if self.code < 0:
            yield f"signal {-self.code}"
        elif self.code not in codes:  # 70: an error that nobody expected
            yield f"exit {self.code}: {self.err[-200:]!r}"
        elif self.code == 2 and not self._says_why:
            yield f"no reason: {self.err[-200:]!r}"
        if "Traceback (most recent call last)" in self.out + self.err:
            yield f"traceback: {self.err.strip().splitlines()[-1]:.300}"
        if self.seconds > HANG_S + COMPARE_S * (self.command[0] == "compare"):
            yield f"hang: {self.seconds:.0f} s"
        if self.peak_mib > most_mib:
            yield f"memory: {self.peak_mib:.0f} MiB"
        if self.requests:
            yield f"requests: {self.requests}"
        if acts := _ACTS.search(self.out + self.err):
            yield f"unescaped {acts.group()!r}"

    @property
    def _says_why(self) -> bool:
        lines = self.err.splitlines()
        return any(line.startswith("edgegraft: error: ") for line in lines)


def run(*command: str | Path, cwd: Path | None = None) -> Ended:
    """`edgegraft COMMAND...` in a fork; call it in a process of one thread."""
    words = tuple(map(str, command))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        asked, asking = os.pipe()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.monotonic()
        child = os.fork()
        if not child:
            os.close(asked)
            _become(words, out.fileno(), err.fileno(), asking, cwd)
        os.close(asking)
        status, used = _wait(child, begin)
        seconds = used.ru_utime + used.ru_stime
        with os.fdopen(asked, "rb") as pipe:
            requests = len(pipe.read()) if select.select([pipe], [], [], 0)[0] else 0
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return Ended(
        words,
        os.waitstatus_to_exitcode(status),
        seconds,
        max(used.ru_maxrss - before, 0) / 1024,
        texts[0],
        texts[1],
        requests,
    )


def _wait(child: int, begin: float) -> tuple[int, resource.struct_rusage]:
    """The status; a child that goes on too long is killed with its own children."""
    pause = 0.001
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            return status, used
        if time.monotonic() - begin > KILLED_S:
            os.killpg(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def _become(
    words: tuple[str, ...], out: int, err: int, asking: int, cwd: Path | None
) -> None:
    """The fork: run the command as a process of its own would, and end."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
        if cwd is not None:
            os.chdir(cwd)

        def watch(event: str, details: tuple[object, ...]) -> None:
            if event == "socket.connect" and isinstance(details[1], tuple):
                os.write(asking, b".")

        sys.addaudithook(watch)
        import edgegraft

        code = edgegraft.main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def tree(folder: Path) -> dict[str, str]:
    """Each entry below a folder: its kind and digest, for what may not change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).hex()
        if path.is_symlink():
            found[name] = f"link {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = str(path.lstat().st_mode)
    return found
