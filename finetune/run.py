"""The run folder: everything a training run leaves, written whole or not at all.

    artifacts/<run>/
        run.json       settings, labels, versions, data fingerprint, status
        split.csv      which photo is in which part, with sha256
        history.csv    one row an epoch         training.png  the same as a picture
        metrics.json   accuracy, per label, calibration
        confusion.png  mistakes.png  uncertain.png  calibration.png  learning.png
        augmentation.png
        excluded.csv   the audit.csv that left photos out, if one did
        negatives.csv  photos of `--negatives`, if any
        label_issues.csv   photos whose label may be wrong     label_issues.png
        logs/          the history for TensorBoard
        checkpoint/    the state after the last epoch, for --resume
        model/         weights of the trained network and of its familiarity
        exports/       <variant>.tflite
        run.lock       while a process writes into the run

run.json has the schema version `edgegraft_run`; records of version 1 are read as well.
What it says is checked when it is read, since a run may come from another person.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.photos import Photo
from data.source import PhotoOptions
from data.split import Row, Split
from edge import run_folder
from edge.errors import EdgegraftError
from edge.files import sha256, write_atomic
from edge.preprocess import InputRecipe
from edge.records import METRICS, RUN, check, read_record
from edge.run_folder import RUN_FILE
from finetune.settings import Settings

SCHEMA = 2
OLD_NETWORK = "model/model.keras"  # of runs of schema 1
LOCK = "run.lock"
# Written by a run; --overwrite removes exactly these
_FILES = (
    RUN_FILE,
    "split.csv",
    "history.csv",
    "training.png",
    "augmentation.png",
    "metrics.json",
    "confusion.png",
    "mistakes.png",
    "uncertain.png",
    "calibration.png",
    "learning.png",
    "robustness.json",
    "robustness.png",
    "unreadable.csv",
    "excluded.csv",
    "negatives.csv",
    "label_issues.csv",
    "label_issues.png",
    "calibration.csv",
    "layers.json",
    "layers.png",
    "comparison.json",
    "comparison.csv",
    "comparison.png",
    "comparison.html",
    "README.md",
    "logs",
    "checkpoint",
    "model",
    "exports",
    # of schema 1
    "unsure.png",
    "doubts.csv",
    "doubts.png",
)


def name_of(photos: Path) -> str:
    """The name of a folder of photos, or of a file without its endings."""
    name = photos.resolve().name
    return name if photos.is_dir() else name.split(".")[0]


def plain_name(name: str) -> str:
    """`name`; EdgegraftError unless it is a single path component."""
    is_text = isinstance(name, str)
    if not is_text or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise EdgegraftError(f"expected --run to be a plain folder name, got {name!r}")
    return name


def _similar(path: Path) -> Path | None:
    """An existing run with a name close to that of `path`."""
    folder = path.parent if path.parent != Path() else Path(run_folder.ARTIFACTS)
    names = [record.parent.name for record in folder.glob(f"*/{RUN_FILE}")]
    matches = difflib.get_close_matches(path.name, names, n=1)
    return folder / matches[0] if matches else None


class Run:
    """One run folder: `best` (the file to ship), `files`, `labels`, `metrics`.

    `config` is what run.json says.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config

    @staticmethod
    def refuse_taken(folder: Path, *, overwrite: bool) -> None:
        """EdgegraftError when a new run may not be written into `folder`."""
        if not folder.exists():
            return
        is_run = (folder / RUN_FILE).is_file()
        files = folder.is_dir() and {path.name for path in folder.iterdir()} - {LOCK}
        if not folder.is_dir() or (files and not is_run):
            raise EdgegraftError(
                f"expected an empty folder or a run at {folder}, got something else "
                "there; choose another --run name"
            )
        if is_run and not overwrite:
            raise EdgegraftError(
                f"expected a new run, got {folder}, which exists; choose another "
                "--run name, resume it with --resume, or replace it with --overwrite"
            )

    @classmethod
    def create(cls, folder: Path, config: dict[str, Any], *, overwrite: bool) -> Run:
        """Start a run; with `overwrite` the files of an old one are removed first."""
        cls.refuse_taken(folder, overwrite=overwrite)
        for name in _FILES:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        run = cls(folder, config)
        run.update()
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Read a run; EdgegraftError if there is none or run.json is damaged."""
        path = Path(folder)
        try:
            config = _read(path / RUN_FILE)
        except FileNotFoundError:
            similar = _similar(path)
            raise EdgegraftError(
                f"expected a run folder with {RUN_FILE}, got {path}, which has none; "
                + (
                    f"did you mean {similar}?"
                    if similar
                    else "make one with: edgegraft build PHOTOS"
                )
            ) from None
        except NotADirectoryError:
            message = f"expected a run folder, got the file {path}"
            raise EdgegraftError(message) from None
        return cls(path, config)

    def __repr__(self) -> str:
        best = self.best
        if best is not None:
            state = f"best={best.name!r}{self._accuracy()}"
        elif run_folder.recommends_none(str(self.folder)):
            state = "no file within the budget"
        else:
            state = "not measured yet"
        return f"Run({str(self.folder)!r}, labels={list(self.labels)}, {state})"

    def _accuracy(self) -> str:
        """The headline of metrics.json, for a person."""
        try:
            record = self.metrics.get("headline") or {}
            low, high = record["interval"]
            return f", accuracy {record['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        except (KeyError, TypeError, ValueError, EdgegraftError):
            return ""

    # -- files -----------------------------------------------------------------
    @property
    def files(self) -> dict[str, Path]:
        """The exported files by variant, without rejected ones."""
        paths = sorted(self.exports.glob("*.tflite"))
        return {path.stem: path for path in paths if "." not in path.stem}

    @property
    def best(self) -> Path | None:
        """The file that the comparison recommends; None before there is one."""
        variant = run_folder.recommended(str(self.folder))
        return None if variant is None else self.exports / f"{variant}.tflite"

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; empty before the run is trained."""
        try:
            return read_record(self.folder / "metrics.json", METRICS)
        except FileNotFoundError:
            return {}

    # -- run.json --------------------------------------------------------------
    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the network's outputs."""
        return tuple(self.config["labels"])

    @property
    def settings(self) -> Settings:
        """The settings it was trained with."""
        return Settings.from_dict(self.config["settings"])

    @property
    def recipe(self) -> InputRecipe:
        """How a photo becomes the network's input."""
        return self.settings.recipe

    @property
    def photos_root(self) -> Path:
        """The folder that the paths of split.csv are relative to."""
        return Path(self.config["photos"])

    @property
    def source(self) -> Path:
        """The photos as the user gave them: a folder, a list or an archive."""
        return Path(self.config.get("source", self.config["photos"]))

    @property
    def photo_options(self) -> PhotoOptions:
        """The options that the photos were read with."""
        return PhotoOptions.from_dict(self.config.get("reading") or {})

    @property
    def excluded(self) -> Path | None:
        """The run's copy of the audit.csv that excluded photos, if any."""
        path = self.folder / "excluded.csv"
        return path if path.is_file() else None

    @property
    def added(self) -> Path | None:
        """The folder of photos that `--add` put into the train part."""
        record = (self.config.get("data") or {}).get("added")
        return Path(record["from"]) if record else None

    @property
    def cross_fitted(self) -> bool:
        """Whether it also learned from validation photos (`head.cross_fit`)."""
        return bool((self.config.get("calibration") or {}).get("cross_fit"))

    @property
    def in_sample(self) -> bool:
        """Whether the network itself was trained on validation photos (`loop.folds`):
        they do not show then how it answers new ones."""
        best = self.config.get("best") or {}
        return self.cross_fitted and bool(best.get("epoch"))

    @property
    def judged_on(self) -> str:
        """The name of the validation photos in reports."""
        return "photos it learned from" if self.cross_fitted else "validation"

    @property
    def exports(self) -> Path:
        """The folder of its `.tflite` files."""
        return self.folder / "exports"

    @property
    def trained(self) -> bool:
        """Whether its training has ended."""
        return self.config.get("status") == "trained"

    def split(self) -> Split:
        """The split into train, val and test."""
        return Split.read(self.folder / "split.csv", self.photos_root)

    def part(self, name: str) -> list[Photo]:
        """The photos of one part, in the order of split.csv."""
        return list(self.split().part(name))

    @property
    def network_file(self) -> Path:
        """The trained weights (`finetune.model`)."""
        return self.folder / "model" / "weights.npz"

    @property
    def has_network(self) -> bool:
        return self.network_file.is_file() or (self.folder / OLD_NETWORK).is_file()

    def unfinished(self) -> EdgegraftError:
        """The error for a run whose training was interrupted: how to resume it."""
        return EdgegraftError(
            f"expected a finished run, got {self.folder}, whose training did not end; "
            f"resume it with: {run_folder.resume_command(str(self.folder))}"
        )

    # -- photos ----------------------------------------------------------------
    def refuse_unreadable(self, path: Path, reason: str) -> None:
        """Raise EdgegraftError: this photo of the run cannot be read."""
        raise EdgegraftError(
            f"expected the photos of {self.folder / 'split.csv'}, got {path}: "
            f"{reason}; put it back, or train again"
        )

    def refuse_changed(self, rows: Sequence[Row], digests: Mapping[Path, str]) -> None:
        """EdgegraftError for the first photo that changed since the split.

        digests: sha256 of the files as they are now, for each photo of `rows`.
        """
        for photo, _, digest in rows:
            if digests[photo.path] != digest:
                raise EdgegraftError(
                    f"expected the photos of {self.folder / 'split.csv'}, got another "
                    f"file at {photo.path} (sha256 differs); put the old one back, or "
                    "train again"
                )

    def check_photos(self, rows: Sequence[Row]) -> None:
        """Read the files of `rows`: EdgegraftError when one is missing or changed."""
        digests = {}
        for photo, *_ in rows:
            try:
                content = photo.path.read_bytes()
            except FileNotFoundError:
                self.refuse_unreadable(photo.path, "no such file")
            except OSError as error:
                self.refuse_unreadable(photo.path, error.strerror or str(error))
            digests[photo.path] = sha256(content)
        self.refuse_changed(rows, digests)

    # -- writing ---------------------------------------------------------------
    def update(self, **values: Any) -> None:
        """Set entries of run.json and write it."""
        self.config.update(values)
        self.write_json(RUN_FILE, self.config)

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a file of the run, whole or not at all."""
        text = json.dumps(record, indent=2, ensure_ascii=False)
        write_atomic(self.folder / name, text + "\n")


# -- run.json --------------------------------------------------------------------------
def _read(path: Path) -> dict[str, Any]:
    """run.json, validated and upgraded to the current schema.

    FileNotFoundError where there is none; EdgegraftError says what is wrong.
    """
    config = read_record(path, {})
    version = config.get("edgegraft_run", 1)
    if type(version) is not int or version > SCHEMA:
        raise EdgegraftError(
            f"{path}: expected schema version 1 to {SCHEMA}, got {version!r:.20}; "
            "update edgegraft"
        )
    config = _upgraded(config)
    check(config, RUN, str(path))
    for name in ("labels", "settings", "photos"):
        if config.get(name) is None:
            raise EdgegraftError(f"{path}: expected the field {name}, got none")
    try:
        Settings.from_dict(config["settings"])
    except EdgegraftError as error:
        raise EdgegraftError(f"{path}: settings: {error}") from None
    return config


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 1 with the current names."""
    config = _renamed(config, {"doubts": "label_issues"})
    config["calibration"] = _renamed(config.get("calibration"), {"refit": "cross_fit"})
    best = _renamed(
        config.get("best"),
        {"share": "alpha", "way": "wise_ft", "way_loss": "wise_ft_loss"},
    )
    if isinstance(best, dict) and isinstance(best.get("wise_ft"), list):
        points = [_renamed(point, {"share": "alpha"}) for point in best["wise_ft"]]
        best["wise_ft"] = points
    config["best"] = best
    return {name: value for name, value in config.items() if value is not None}


def _renamed(record: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(record, dict):
        return record
    return {names.get(name, name): value for name, value in record.items()}


# -- one writer at a time --------------------------------------------------------------
@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder: EdgegraftError while another process writes into it.

    It is an flock on run.lock, so the system releases it when the process dies; the
    file holds the process id and the start time. The lock is reentrant in a process.
    Without flock (Windows) nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgegraftError(
            f"{folder}: cannot be made: {error.strerror or error}"
        ) from None
    path = folder / LOCK
    file = None
    while file is None:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(200).split()
            file.close()
            if holder[:1] == [str(os.getpid())]:
                yield
                return
            raise EdgegraftError(
                f"expected a run that no other process writes to, got {folder}, which "
                f"process {' since '.join(holder[:2]) or '(unknown)'} writes to; wait "
                "for it, or choose another --run name"
            ) from None
        try:
            current = path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            current = False
        if not current:  # the previous holder removed it before we got the lock
            file.close()
            file = None
    try:
        file.truncate(0)
        file.write(f"{os.getpid()} {time.strftime('%Y-%m-%dT%H:%M:%S')}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        for parent in created:  # leave no empty folder after a refusal
            with contextlib.suppress(OSError):
                parent.rmdir()
