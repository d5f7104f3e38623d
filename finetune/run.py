"""The run folder: everything one training run leaves, written whole or not at all.

    artifacts/<run>/
        run.json       settings, labels, versions, data fingerprint, status
        split.csv      which photo went where, with sha256
        history.csv    one row an epoch         training.png  the same as a picture
        metrics.json   accuracy, per class, calibration
        confusion.png  mistakes.png  unsure.png  calibration.png  learning.png
        excluded.csv   the audit.csv that left photos out, if one did
        negatives.csv  photos it was taught not to want, if any
        doubts.csv     photos whose label the network doubts     doubts.png
        confusion.png  mistakes.png  augmentation.png
        logs/          the history for TensorBoard
        checkpoint/    the state after the last epoch, for --resume
        model/         the trained network (tf-keras), and its familiarity
        exports/       <variant>.tflite

Does not know: how any of it is made.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.photos import Photo
from data.split import Split
from edge import run_folder
from edge.errors import EdgegraftError
from edge.files import write_atomic
from edge.preprocess import InputRecipe
from finetune.settings import Settings

RUN_FILE = "run.json"
# Made by a run; --overwrite removes exactly these and nothing else.
_OURS = (
    RUN_FILE,
    "split.csv",
    "history.csv",
    "training.png",
    "augmentation.png",
    "metrics.json",
    "confusion.png",
    "mistakes.png",
    "unsure.png",
    "calibration.png",
    "learning.png",
    "robustness.json",
    "robustness.png",
    "unreadable.csv",
    "excluded.csv",
    "negatives.csv",
    "doubts.csv",
    "doubts.png",
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
)


def _meant(path: Path) -> Path | None:
    """The run that was meant by a path without one: its name alone, or nearly it."""
    folder = path.parent if path.parent != Path() else Path(run_folder.ARTIFACTS)
    names = [found.parent.name for found in folder.glob(f"*/{RUN_FILE}")]
    close = difflib.get_close_matches(path.name, names, n=1)
    return folder / close[0] if close else None


class Run:
    """One run folder. `config` is what run.json says."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config

    @staticmethod
    def refuse_taken(folder: Path, *, overwrite: bool) -> None:
        """EdgegraftError when a new run may not be written into `folder`."""
        if not folder.exists():
            return
        if not folder.is_dir() or (
            any(folder.iterdir()) and not (folder / RUN_FILE).is_file()
        ):
            raise EdgegraftError(
                f"expected an empty folder or a run at {folder}, got something else "
                "there; choose another --run name"
            )
        if (folder / RUN_FILE).is_file() and not overwrite:
            raise EdgegraftError(
                f"expected a new run, got {folder}, which exists; choose another "
                "--run name, go on with --resume, or replace it with --overwrite"
            )

    @classmethod
    def create(cls, folder: Path, config: dict[str, Any], *, overwrite: bool) -> Run:
        """Start a run; with `overwrite` the files of an old one are removed first."""
        cls.refuse_taken(folder, overwrite=overwrite)
        for name in _OURS:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        run = cls(folder, config)
        run.save()
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Read a run; EdgegraftError if there is none or run.json is damaged."""
        path = Path(folder)
        try:
            config = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
            labels, settings = config["labels"], config["settings"]
            assert isinstance(labels, list) and isinstance(settings, dict)
        except FileNotFoundError:
            meant = _meant(path)
            raise EdgegraftError(
                f"expected a run folder with {RUN_FILE}, got {path}, which has none; "
                + (
                    f"did you mean {meant}?"
                    if meant
                    else "make one with: edgegraft finetune PHOTOS"
                )
            ) from None
        except OSError as error:
            raise EdgegraftError(
                f"expected a run folder, got {path}: {error.strerror}"
            ) from error
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise EdgegraftError(
                f"expected {path / RUN_FILE} to be the record of a run, "
                f"got a damaged file ({error})"
            ) from error
        return cls(path, config)

    # -- what everybody asks -------------------------------------------------
    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["labels"])

    @property
    def settings(self) -> Settings:
        return Settings.from_dict(self.config["settings"])

    @property
    def recipe(self) -> InputRecipe:
        return self.settings.recipe

    @property
    def photos_root(self) -> Path:
        return Path(self.config["photos"])

    @property
    def source(self) -> Path:
        """What the run was pointed at: a folder, a list or an archive."""
        return Path(self.config.get("source", self.config["photos"]))

    @property
    def excluded(self) -> Path | None:
        """The audit.csv that left photos out of this run, as it was then."""
        path = self.folder / "excluded.csv"
        return path if path.is_file() else None

    @property
    def added(self) -> Path | None:
        """The folder of photos that were added to its train part."""
        record = (self.config.get("data") or {}).get("added")
        return Path(record["from"]) if record else None

    @property
    def refitted(self) -> bool:
        """Whether the head is cross-fit on validation photos (`head.cross_fit`)."""
        return bool((self.config.get("calibration") or {}).get("refit"))

    @property
    def judged_on(self) -> str:
        """What the validation part is called where the head has learnt from it."""
        return "photos it learnt from" if self.refitted else "validation"

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def trained(self) -> bool:
        return self.config.get("status") == "trained"

    def going_on(self, verb: str) -> str:
        """The command that goes on with this run; `verb` is finetune or build."""
        return run_folder.going_on(str(self.folder), verb)

    def split(self) -> Split:
        """Which photo is train, val or test."""
        return Split.read(self.folder / "split.csv", self.photos_root)

    def part(self, name: str) -> list[Photo]:
        """The photos of one part, in the order of split.csv."""
        return list(self.split().part(name))

    @property
    def network_file(self) -> Path:
        return self.folder / "model" / "model.keras"

    def unfinished(self) -> EdgegraftError:
        """What is told of a run whose training was interrupted, and how to go on."""
        return EdgegraftError(
            f"expected a finished run, got {self.folder}, whose training did not end; "
            f"go on with: {self.going_on('finetune')}"
        )

    def model(self) -> Any:
        """The trained tf-keras model; EdgegraftError if the run did not finish."""
        from backbones import network

        path = self.network_file
        if self.trained and not path.is_file():
            raise EdgegraftError(
                f"expected a run with its network, got {self.folder} without "
                f"{path.relative_to(self.folder).as_posix()}; train it again with: "
                f"edgegraft finetune PHOTOS --run {self.name} --overwrite"
            )
        if not self.trained:
            raise self.unfinished()
        try:
            return network.read(path, self.settings.backbone)
        except EdgegraftError:
            raise
        except Exception as error:  # Keras raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:160]
            raise EdgegraftError(
                f"expected a tf-keras model at {path}, got: {reason}"
            ) from error

    # -- writing ---------------------------------------------------------------
    def save(self) -> None:
        self.write_json(RUN_FILE, self.config)

    def update(self, **values: Any) -> None:
        """Set entries of run.json and write it."""
        self.config.update(values)
        self.save()

    def write_json(self, name: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=False)
        write_atomic(self.folder / name, text + "\n")

    def write_bytes(self, name: str, content: bytes) -> None:
        write_atomic(self.folder / name, content)

    def save_model(self, model: Any) -> None:
        path = self.network_file
        write_atomic(path, lambda to: model.save(str(to), save_format="keras_v3"))
