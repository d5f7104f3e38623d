"""Photos to train with, and trainings: `edgegraft build` in a process of its own.

    FOLDER/uploads/photos/<label>/<digest>.jpg    what a visitor uploaded
    FOLDER/uploads/audit/                         what the audit says of it
    FOLDER/jobs/<time>/                           job.json, state, progress, log
    FOLDER/runs/<name>/                           the run that a job made

A job outlives the page's server. One job trains at a time, the others wait for its
lock; which job is alive is known by a lock of its own, so a killed one is noticed.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge.errors import EdgegraftError
from edge.files import sha256, write_atomic, write_csv
from edge.preprocess import open_photo
from streamlit_app.feedback import (
    folder_name,
    photo_ending,
    private_folder,
    write_private,
)

MOST_BYTES = 8 << 30  # of one visitor's uploads
LEAST_LABELS, LEAST_PHOTOS = 2, 8  # below, `build` has nothing to measure with
PROGRESS = "EDGEGRAFT_PROGRESS"  # names the file that `build` appends its progress to
WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, CANCELLED, STOPPED = "failed", "cancelled", "stopped"
ENDED = (DONE, FAILED, CANCELLED, STOPPED)
REJECTED_FILE = 3  # exit code of `build`: done, but one file lost too much accuracy
STOP_S = 20.0  # a cancelled training may take that long to tidy up
# What is offered where the list cannot be had
_CUSTOM_CNN = {"name": "custom_cnn", "parameters": 164_264, "multiply_adds": 69_672_960}
NICE = 10  # answers of the page go before training


class Uploads:
    """A visitor's photos by label."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.audit_folder = folder / "audit"

    def add(self, label: str, content: bytes) -> bool:
        """Keep a photo; False when it is there already.

        PhotoError when it cannot be read; EdgegraftError for a label that cannot name
        a folder, too many photos, or a full disk.
        """
        name = folder_name(label.strip())
        open_photo(content, least=(128, 128))
        path = self.photos / name / f"{sha256(content)[:24]}{photo_ending(content)}"
        if path.exists():
            return False
        if self.size() + len(content) > MOST_BYTES:
            raise EdgegraftError(
                f"expected at most {MOST_BYTES >> 30} GB of photos; delete some first"
            )
        try:
            private_folder(path.parent)
        except OSError as error:
            raise EdgegraftError(f"{path.parent}: {error.strerror or error}") from None
        write_private(path, content)
        return True

    def labels(self) -> dict[str, list[Path]]:
        """Label to its photos, both sorted."""
        if not self.photos.is_dir():
            return {}
        folders = sorted(path for path in self.photos.iterdir() if path.is_dir())
        found = {folder.name: sorted(folder.iterdir()) for folder in folders}
        return {label: photos for label, photos in found.items() if photos}

    def size(self) -> int:
        """Bytes of all photos."""
        files = (path for photos in self.labels().values() for path in photos)
        return sum(path.stat().st_size for path in files)

    def delete(self, label: str | None = None) -> None:
        """Delete the photos of a label, or everything."""
        target = self.folder if label is None else self.photos / folder_name(label)
        shutil.rmtree(target, ignore_errors=True)

    def obstacle(self) -> str | None:
        """Why these photos cannot be trained with yet; None when they can."""
        labels = self.labels()
        if len(labels) < LEAST_LABELS:
            return f"at least {LEAST_LABELS} labels are needed, there are {len(labels)}"
        fewest = min(labels, key=lambda label: len(labels[label]))
        if len(labels[fewest]) < LEAST_PHOTOS:
            return (
                f"at least {LEAST_PHOTOS} photos per label are needed, {fewest} has "
                f"{len(labels[fewest])}"
            )
        return None

    def audit(self) -> list[dict[str, str]]:
        """Check the photos: the rows of audit.csv. EdgegraftError when that fails."""
        command = [sys.executable, "-m", "edgegraft", "data", "audit"]
        command += [str(self.photos), "-o", str(self.audit_folder), "--overwrite"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not self.findings() and done.returncode > 1:
            lines = done.stderr.strip().splitlines()
            raise EdgegraftError(lines[-1] if lines else "the audit failed")
        return self.findings()

    def findings(self) -> list[dict[str, str]]:
        """The rows of the last audit."""
        try:
            with open(self.audit_folder / "audit.csv", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except OSError:
            return []

    def exclude(self, paths: Sequence[str]) -> Path | None:
        """A list of audited photos to leave out, as `--exclude-from` takes it."""
        rows = [row for row in self.findings() if row["path"] in set(paths)]
        if not rows:
            return None
        path = self.audit_folder / "excluded.csv"
        header = ("path", "sha256", "exclude")
        write_csv(path, header, [(row["path"], row["sha256"], "yes") for row in rows])
        return path


@dataclass(frozen=True)
class Job:
    """One training: its folder, its command, and the run folder it makes."""

    folder: Path
    command: tuple[str, ...]
    run: Path
    photos: str

    @property
    def shown_command(self) -> str:
        """The command as a person would type it."""
        return shlex.join(["edgegraft", *self.command])

    def state(self) -> str:
        """WAITING, RUNNING, or one of ENDED."""
        try:
            state = (self.folder / "state").read_text("utf-8").split("\n")[0]
        except OSError:
            state = WAITING
        if state not in ENDED and not _is_locked(self.folder / "lock"):
            age = time.time() - self.folder.stat().st_mtime
            return STOPPED if state == RUNNING or age > STOP_S else WAITING
        return state

    def reason(self) -> str:
        """The error of a failed job."""
        with suppress(OSError):
            lines = (self.folder / "log.txt").read_text("utf-8", "replace")
            errors = [x for x in lines.splitlines() if x.startswith("edgegraft: error")]
            return (errors or lines.splitlines() or [""])[-1]
        return ""

    def events(self) -> list[dict[str, Any]]:
        """What `build` noted so far: stages, epochs, steps of bars."""
        events = []
        with suppress(OSError):
            text = (self.folder / "progress.jsonl").read_text("utf-8", "replace")
            for line in text.splitlines():
                with suppress(ValueError):
                    events.append(json.loads(line))
        return events

    def cancel(self) -> None:
        """Stop the training; it deletes what it wrote."""
        with suppress(OSError, ValueError):
            number = int((self.folder / "pid").read_text())
            if _is_locked(self.folder / "lock"):
                os.killpg(number, signal.SIGINT)

    def delete(self) -> None:
        """Forget an ended job; the run stays."""
        shutil.rmtree(self.folder, ignore_errors=True)


def start(
    own: Path, queue: Path, photos: str, options: Sequence[str], name: str
) -> Job:
    """Begin a training, or queue it: `build PHOTOS --run NAME` with more options.

    `own` is the visitor's folder, `queue` the file whose lock lets one job train at a
    time. EdgegraftError when the process cannot be started.
    """
    if os.name != "posix":
        raise EdgegraftError("training on the page needs Linux or macOS")
    folder = own / "jobs" / f"{time.time():.3f}"
    run = own / "runs" / folder_name(name)
    if run.exists():
        raise EdgegraftError(f"the name {name} is taken by another run; choose another")
    command = ["build", photos, "--artifacts", str(run.parent), "--run", name, *options]
    try:
        private_folder(folder)
        private_folder(run.parent)
        record = {"command": command, "run": str(run), "photos": photos}
        write_private(folder / "job.json", json.dumps(record).encode())
        here = Path(__file__).resolve().parents[1]
        search = os.pathsep.join(filter(None, [str(here), os.getenv("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit_app.training", str(folder), str(queue)],
            env={**os.environ, "PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        write_private(folder / "pid", str(process.pid).encode())
    except OSError as error:
        raise EdgegraftError(f"{folder}: {error.strerror or error}") from None
    return Job(folder, tuple(command), run, photos)


def backbones() -> list[dict[str, Any]]:
    """The networks that can be trained without a download, as `edgegraft backbones
    --json` lists them."""
    command = [sys.executable, "-m", "edgegraft", "backbones", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        records = json.loads(done.stdout)["backbones"]
    except (ValueError, KeyError):
        return [dict(_CUSTOM_CNN)]
    ready = [r for r in records if r["weights_here"] or r["name"] == "custom_cnn"]
    return sorted(ready, key=lambda record: int(record["multiply_adds"]))


def jobs(own: Path) -> list[Job]:
    """A visitor's jobs, newest first; damaged ones are left out."""
    found = []
    for path in sorted((own / "jobs").glob("*/job.json"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text("utf-8"))
            command = tuple(str(part) for part in record["command"])
            job = Job(path.parent, command, Path(record["run"]), str(record["photos"]))
            found.append(job)
    return found


def _lock(path: Path) -> IO[str]:
    """The file, open and locked; waits for others."""
    import fcntl

    private_folder(path.parent)
    file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "w")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_locked(path: Path) -> bool:
    """Whether another process holds the lock of this file."""
    import fcntl

    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def main(folder: Path, queue: Path) -> int:
    """The process of one job: wait for its turn, build, note how it ended."""
    # a server that a script started in the background hands down an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = json.loads((folder / "job.json").read_text("utf-8"))
    process: subprocess.Popen[bytes] | None = None
    held: list[IO[str]] = []
    try:  # from the lock on, `cancel` may interrupt
        held.append(_lock(folder / "lock"))
        turn = _lock(queue)
        write_atomic(folder / "state", RUNNING)
        os.nice(NICE)
        with open(folder / "log.txt", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgegraft", *record["command"]],
                env={**os.environ, PROGRESS: str(folder / "progress.jsonl")},
                stdout=log,
                stderr=log,
                pass_fds=[turn.fileno()],  # its turn lasts as long as the training
            )
            code = process.wait()
        state = DONE if code in (0, REJECTED_FILE) else FAILED
    except KeyboardInterrupt:
        state = CANCELLED
        if process is not None:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
    if state != DONE:
        shutil.rmtree(record["run"], ignore_errors=True)
    write_atomic(folder / "state", state)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
