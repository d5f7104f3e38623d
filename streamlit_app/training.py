"""Photos to train with, and trainings: `edgegraft build` in a process of its own.

    FOLDER/uploads/photos/<label>/<digest>.jpg    a visitor's uploads
    FOLDER/uploads/audit/                         their audit
    FOLDER/jobs/<time>/                           job.json, state, progress, log
    FOLDER/runs/<name>/                           the run of a job
    artifacts/.training/<ticket>                  the queue of all visitors

A job outlives the page's server. Its process keeps its ticket locked until it ends, so
a killed job is noticed. It waits for the locks of all earlier tickets, so one job
trains at a time, in the order of their start.
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
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any

from edge.errors import EdgegraftError, reason_of
from edge.files import sha256, write_atomic, write_csv
from edge.preprocess import open_photo
from edge.records import TEXT, Schema, read_record
from edge.run_folder import find_model
from edge.subprocess_run import child_environment
from streamlit_app.feedback import (
    folder_name,
    photo_ending,
    private_folder,
    write_private,
)

MAX_BYTES = 8 << 30  # of one visitor's uploads
MIN_LABELS, MIN_PHOTOS = 2, 8  # below, `build` has nothing to measure with
PROGRESS = "EDGEGRAFT_PROGRESS"  # names the file that `build` appends its progress to
TICKET = "EDGEGRAFT_TICKET"  # the open file that holds a job's place in the queue
COMPARED = "compared.json"  # of a job: the command that compared its file
WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, CANCELLED, STOPPED = "failed", "cancelled", "stopped"
ENDED = (DONE, FAILED, CANCELLED, STOPPED)
REJECTED_FILE = 3  # exit code of `build`: done, but one file lost too much accuracy
STOP_S = 20.0  # for a cancelled training to tidy up
_RECORD: Schema = {
    **dict.fromkeys(("run", "ticket", "photos", "before"), TEXT),
    "command": [TEXT],
}
# The only network on offer where `edgegraft backbones` fails
_CUSTOM_CNN = {"name": "custom_cnn", "parameters": 164_264, "multiply_adds": 69_672_960}
NICE = 10  # training yields the processor to the page


class Photos:
    """Photos on this machine, as `build` takes them, with the labels that the audit
    read."""

    def __init__(self, photos: Path, audit_folder: Path) -> None:
        self.photos = photos
        self.audit_folder = audit_folder

    @property
    def root(self) -> Path:
        """The folder that the audit's paths are relative to."""
        return self.photos if self.photos.is_dir() else self.photos.parent

    def labels(self) -> dict[str, list[Path]]:
        """Label to its photos, both sorted."""
        paths: dict[str, list[Path]] = {}
        for row in sorted(self.findings(), key=lambda row: row["path"]):
            if label := row.get("label"):
                paths.setdefault(label, []).append(self.root / row["path"])
        return dict(sorted(paths.items()))

    def obstacle(self) -> str | None:
        """Why these photos cannot be trained with yet; None when they can."""
        labels = self.labels()
        if len(labels) < MIN_LABELS:
            got = f"all are of {next(iter(labels))}" if labels else "there are none"
            return f"photos of at least {MIN_LABELS} labels are needed, {got}"
        too_few = [label for label in labels if len(labels[label]) < MIN_PHOTOS]
        if too_few:
            counts = ", ".join(f"{label} has {len(labels[label])}" for label in too_few)
            return f"each label needs at least {MIN_PHOTOS} photos, {counts}"
        return None

    def audit(self) -> list[dict[str, str]]:
        """Check the photos: the rows of audit.csv. EdgegraftError when that fails."""
        private_folder(self.audit_folder.parent)
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
        rows = [row for row in self.findings() if row["path"] in paths]
        if not rows:
            return None
        path = self.audit_folder / "excluded.csv"
        header = ("path", "sha256", "exclude")
        write_csv(path, header, [(row["path"], row["sha256"], "yes") for row in rows])
        return path


class Uploads(Photos):
    """A visitor's own photos by label, saved in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "photos", folder / "audit")
        self.folder = folder

    def add(self, label: str, content: bytes) -> bool:
        """Save a photo; False when it is there already.

        PhotoError when it cannot be read; EdgegraftError for a label that cannot name
        a folder, too many photos, or a full disk.
        """
        name = folder_name(label.strip())
        open_photo(content, min_size=(128, 128))
        path = self.photos / name / f"{sha256(content)[:24]}{photo_ending(content)}"
        if path.exists():
            return False
        if self.size() + len(content) > MAX_BYTES:
            raise EdgegraftError(
                f"expected at most {MAX_BYTES >> 30} GB of photos; delete some first"
            )
        try:
            private_folder(path.parent)
            write_private(path, content)
        except (OSError, EdgegraftError) as error:
            with suppress(OSError):
                path.parent.rmdir()  # where nothing else is in it
            # Name the folder, not the file: one message for all photos of a full disk
            reason = reason_of(error).removeprefix(f"{path}: ")
            raise EdgegraftError(f"{self.folder}: {reason}") from None
        return True

    def labels(self) -> dict[str, list[Path]]:
        """Label to its photos, both sorted."""
        folders = sorted(path for path in self.photos.glob("*") if path.is_dir())
        photos = {folder.name: sorted(folder.iterdir()) for folder in folders}
        return {label: paths for label, paths in photos.items() if paths}

    def size(self) -> int:
        """Bytes of all photos."""
        paths = chain.from_iterable(self.labels().values())
        return sum(path.stat().st_size for path in paths)

    def delete(self, label: str | None = None) -> None:
        """Delete the photos of a label, or everything."""
        target = self.folder if label is None else self.photos / folder_name(label)
        shutil.rmtree(target, ignore_errors=True)


@dataclass(frozen=True)
class Job:
    """One training: its folder, its command, and the run folder that it writes.

    `before`: the model file to compare the new one with, if any.
    """

    folder: Path
    command: tuple[str, ...]
    run: Path
    photos: str
    ticket: Path
    before: str | None = None

    @property
    def shown_commands(self) -> str:
        """The commands of the job, as a person would type them."""
        commands = [self.command]
        with suppress(OSError, ValueError):
            commands.append(json.loads((self.folder / COMPARED).read_text("utf-8")))
        return "\n".join(shlex.join(["edgegraft", *command]) for command in commands)

    @property
    def comparison(self) -> Path:
        """comparison.json of the new file and the one before."""
        return self.folder / "comparison" / "comparison.json"

    def state(self) -> str:
        """WAITING, RUNNING, or one of ENDED."""
        alive = _is_locked(self.ticket)  # first: the state is written before it ends
        try:
            state = (self.folder / "state").read_text("utf-8").split("\n")[0]
        except OSError:
            state = WAITING
        if alive or state in ENDED:
            return state
        return CANCELLED if (self.folder / "cancel").exists() else STOPPED

    def ahead(self) -> int:
        """How many trainings are to end before this one begins."""
        return sum(map(_is_locked, _earlier(self.ticket)))

    def reason(self) -> str:
        """The error of a failed job."""
        with suppress(OSError):
            text = (self.folder / "log.txt").read_text("utf-8", "replace")
            lines = text.splitlines()
            errors = [line for line in lines if line.startswith("edgegraft: error")]
            return (errors or lines or [""])[-1]
        return ""

    def events(self) -> list[dict[str, Any]]:
        """The progress of `build` so far: stages, epochs, steps of bars."""
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
            (self.folder / "cancel").touch()
            pid = int((self.folder / "pid").read_text())
            if _is_locked(self.ticket):
                os.killpg(pid, signal.SIGINT)

    def delete(self) -> None:
        """Delete an ended job, and the unfinished run of a stopped one."""
        if self.state() == STOPPED:
            shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def resumed(self) -> list[str]:
        """The command that resumes a stopped training."""
        if not (self.run / "run.json").is_file():
            return list(self.command)
        command = ["build", "--artifacts", str(self.run.parent)]
        command += ["--run", self.run.name, "--resume"]
        for option, value in pairwise(self.command):
            if option in ("--time-limit", "--unknown"):
                command += [option, value]
        return command


def start(
    own: Path,
    queue: Path,
    photos: str,
    options: Sequence[str],
    name: str,
    before: str | None = None,
) -> Job:
    """Begin a training, or queue it: `build PHOTOS --run NAME` with more options, then
    a comparison with the model file `before`.

    `own` is the visitor's folder, `queue` that of all tickets. EdgegraftError when the
    process cannot be started.
    """
    run = own / "runs" / folder_name(name)
    for job in jobs(own):  # the page has shown those that ended
        if job.state() in ENDED:
            job.delete()
        elif job.run == run:
            raise EdgegraftError(
                f"a training named {name} is going on; choose another name"
            )
    if run.exists():
        raise EdgegraftError(f"the name {name} is taken by another run; choose another")
    command = ["build", photos, "--artifacts", str(run.parent), "--run", name, *options]
    return _start(own, queue, command, run, photos, before)


def resume(own: Path, queue: Path, job: Job) -> Job:
    """Resume a stopped training as a new job."""
    new = _start(own, queue, job.resumed(), job.run, job.photos, job.before)
    shutil.rmtree(job.folder, ignore_errors=True)
    return new


def _start(
    own: Path,
    queue: Path,
    command: Sequence[str],
    run: Path,
    photos: str,
    before: str | None,
) -> Job:
    if os.name != "posix":
        raise EdgegraftError("training on the page needs Linux or macOS")
    folder = own / "jobs" / f"{time.time():.3f}"
    ticket = queue / f"{folder.name}-{own.name}"
    job = Job(folder, tuple(command), run, photos, ticket, before)
    try:
        private_folder(folder)
        private_folder(run.parent)
        record = {**asdict(job), "folder": None}
        write_private(folder / "job.json", json.dumps(record, default=str).encode())
        with _new_ticket(ticket) as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "streamlit_app.training", str(folder)],
                env={**child_environment(), TICKET: str(file.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[file.fileno()],  # keeps the ticket locked
            )
        write_private(folder / "pid", str(process.pid).encode())
    except (OSError, EdgegraftError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EdgegraftError(f"the training cannot begin: {reason_of(error)}") from None
    return job


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
    jobs = []
    for path in sorted((own / "jobs").glob("*/job.json"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError, EdgegraftError):
            jobs.append(_read(path))
    return jobs


def _read(path: Path) -> Job:
    record = read_record(path, _RECORD)
    command = tuple(record["command"])
    run, ticket = Path(record["run"]), Path(record["ticket"])
    return Job(
        path.parent, command, run, record["photos"], ticket, record.get("before")
    )


def _new_ticket(path: Path) -> IO[str]:
    """A new ticket, open and locked; it appears in the queue only once it is locked."""
    import fcntl

    private_folder(path.parent)
    hidden = path.with_name(f".{path.name}")
    file = open(os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    os.replace(hidden, path)
    return file


def _earlier(ticket: Path) -> list[Path]:
    """The tickets before this one, oldest first."""
    tickets = sorted(ticket.parent.glob("[!.]*"))
    return [path for path in tickets if path.name < ticket.name]


def _wait_for_turn(ticket: Path) -> None:
    """Wait until the processes of all earlier tickets have ended."""
    import fcntl

    for other in _earlier(ticket):
        with suppress(FileNotFoundError), open(other) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            other.unlink(missing_ok=True)


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


def main(folder: Path) -> int:
    """The process of one job: wait for its turn, build, compare, write its state."""
    # A server started in the background of a script passes on an ignored SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = _read(folder / "job.json")
    process: subprocess.Popen[bytes] | None = None

    def run(command: Sequence[str]) -> int:
        nonlocal process
        with open(folder / "log.txt", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgegraft", *command],
                env={**os.environ, PROGRESS: str(folder / "progress.jsonl")},
                stdout=log,
                stderr=log,
                pass_fds=[int(os.environ[TICKET])],  # keeps the ticket locked
            )
            return process.wait()

    owns_run = "--resume" in job.command
    try:
        if (folder / "cancel").exists():
            raise KeyboardInterrupt
        _wait_for_turn(job.ticket)
        owns_run = owns_run or not job.run.exists()
        write_atomic(folder / "state", RUNNING)
        os.nice(NICE)
        code = run(job.command)
        state = DONE if code in (0, REJECTED_FILE) else FAILED
        if code < 0:  # killed, such as when memory ran out: it can be resumed
            state = STOPPED
        if state == DONE and job.before:
            with suppress(OSError, EdgegraftError):  # the page says that it is missing
                command = ["compare", job.before, find_model(str(job.run))[0]]
                command += ["--photos", str(Path(job.before).parents[1])]
                command += ["--out", str(job.comparison.parent)]
                write_private(folder / COMPARED, json.dumps(command).encode())
                run(command)
    except KeyboardInterrupt:
        state = CANCELLED
        if process is not None:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
    if state in (FAILED, CANCELLED) and owns_run:
        shutil.rmtree(job.run, ignore_errors=True)
    write_atomic(folder / "state", state)
    job.ticket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
