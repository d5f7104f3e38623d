"""What is tried of each kind: a batch makes its inputs, runs commands on them and
returns what was counted and what was wrong."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import inputs
from tests.fuzz.command import MODEL_MIB, PHOTO_MIB, Ended, run, tree

RUN_FILES = ("run.json", "metrics.json", "comparison.json")
COMPARED = 10  # one model in so many goes through `compare`, which takes seconds
PHOTOS_BATCH = 100
AUDIT = (0, 1, 2)  # 1: the audit has findings


@dataclass
class Tally:
    """`counts`: of inputs and commands; `faults`: a line each."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_mib: float = 0.0
    slowest_s: float = 0.0

    def add(
        self,
        ended: Ended,
        codes: Sequence[int] = (0, 2),
        most_mib: float = PHOTO_MIB,
    ) -> Ended:
        self.counts["commands"] += 1
        self.counts[f"exit {ended.code}"] += 1
        self.peak_mib = max(self.peak_mib, ended.peak_mib)
        self.slowest_s = max(self.slowest_s, ended.seconds)
        for fault in ended.faults(codes, most_mib):
            self.faults.append(f"{fault} | edgegraft {' '.join(ended.command)}")
        return ended

    def merge(self, other: Tally) -> None:
        self.counts += other.counts
        self.faults += other.faults
        self.peak_mib = max(self.peak_mib, other.peak_mib)
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(frozen=True)
class Base:
    """A finished run, whose files are changed in copies, one photo, and the photos
    that a build takes."""

    run: Path
    photo: Path
    photos: Path

    @property
    def models(self) -> list[Path]:
        return sorted((self.run / "exports").glob("*.tflite"))


class _Room:
    """A folder of a batch: `inputs` may not change, `empty` must stay empty."""

    most_mib: float = PHOTO_MIB  # of a command

    def __init__(self, folder: Path, tally: Tally) -> None:
        self.inputs, self.out = folder / "inputs", folder / "out"
        self.empty = folder / "empty"
        for path in (self.inputs, self.out, self.empty):
            path.mkdir()
        self._tally = tally
        self._before: dict[str, str] = {}

    def run(self, *command: str | Path, codes: Sequence[int] = (0, 2)) -> Ended:
        return self._tally.add(run(*command, cwd=self.empty), codes, self.most_mib)

    def seal(self) -> None:
        self._before = tree(self.inputs)

    def check(self) -> None:
        if tree(self.inputs) != self._before:
            self._tally.faults.append(f"files changed | {self.inputs}")
        if any(self.empty.iterdir()):
            self._tally.faults.append(f"files written beside | {self.inputs}")


@dataclass(frozen=True)
class _Batch:
    """`work` in a folder of its own; processes can be given it."""

    work: Callable[[_Room, Random, int, Base], None]

    def __call__(self, base: Base, seed: int, count: int, keep: Path | None) -> Tally:
        tally = Tally()
        kind = self.work.__name__.strip("_")
        folder = Path(tempfile.mkdtemp(prefix="edgegraft-fuzz-"))
        try:
            self.work(_Room(folder, tally), Random(seed), count, base)
            if tally.faults and keep is not None:
                name = f"{kind}-{seed}"
                shutil.copytree(folder / "inputs", keep / name, symlinks=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        tally.counts[kind] += count
        return tally


def _photos(room: _Room, rng: Random, count: int, base: Base) -> None:
    """Damaged photos in folders: each gets an answer or a reason."""
    folder = room.inputs / "photos"
    whole = [inputs.photos(rng) for _ in range(4)]
    for number in range(count):
        suffix = rng.choice(list(inputs.FORMATS))
        other = rng.choice(list(rng.choice(whole).values()))
        content = inputs.damaged(rng.choice(whole)[suffix], rng, other)
        if number % PHOTOS_BATCH == 0:
            suffix, content = inputs.costly_photo(rng)
        path = folder / ("cat", "dog")[number % 2] / f"{number:05}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    room.seal()
    table = room.out / "answers.csv"
    ended = room.run(
        "edge", "classify", base.models[-1], folder, "--workers", "1", "-o", table
    )
    with open(table, encoding="utf-8", newline="") as file:
        answered = sum(1 for _ in csv.reader(file)) - 1
    refused = ended.err.count("edgegraft: error: ")
    if answered + refused != count:
        room._tally.faults.append(
            f"lost photos: {answered} answered, {refused} refused of {count}"
        )
    room.run("data", "audit", folder, codes=AUDIT)
    room.check()


def _models(room: _Room, rng: Random, count: int, base: Base) -> None:
    """Changed networks through five commands. What a network takes is bounded by the
    machine and the file, not by what a photo may take."""
    room.most_mib = MODEL_MIB
    labels = room.inputs / "labels.txt"
    labels.write_text("a\nb\n")
    photos = room.inputs / "photos"
    for label in ("a", "b"):
        (photos / label).mkdir(parents=True)
        shutil.copy(base.photo, photos / label)
    shutil.copytree(base.run, room.out / "run")
    for number in range(count):
        model = room.inputs / f"{number}.tflite"
        model.write_bytes(
            inputs.hostile_model(rng.choice(base.models).read_bytes(), rng)
        )
        room.seal()
        room.run("edge", "info", model, "--json")
        room.run("edge", "classify", model, base.photo, "--labels", labels)
        room.run("edge", "evaluate", model, photos, "--labels", labels)
        room.run("edge", "bench", model, "--runs", "2")
        if number % COMPARED == 0:
            room.run("compare", room.out / "run", model, "--out", room.out / "compared",
                     "--labels", labels, "--rounds", "1", "--runs", "1",
                     "--seconds", "0.01")  # fmt: skip
        room.check()
        model.unlink()


def _cards(room: _Room, rng: Random, count: int, base: Base) -> None:
    """Whole networks with hostile cards."""
    for number in range(count):
        model = room.inputs / f"{number}.tflite"
        whole = rng.choice(base.models).read_bytes()
        model.write_bytes(inputs.hostile_card(whole, rng))
        room.seal()
        room.run("edge", "info", model)
        room.run("edge", "info", model, "--json")
        table = room.out / f"{number}.csv"
        room.run("edge", "classify", model, base.photo)
        room.run("edge", "classify", model, base.photo, "-o", table)
        room.run("edge", "pack", model, "-o", room.out / f"{number}")
        room.check()
        model.unlink()


def _runs(room: _Room, rng: Random, count: int, base: Base) -> None:
    """Runs with hostile records: commands that read them, and the page's reader."""
    from edge.errors import EdgegraftError
    from finetune.run import Run
    from streamlit_app.runs import find_runs

    for number in range(count):
        folder = hostile_run(base, room.inputs / f"run-{number}", rng)
        room.seal()
        room.run("edge", "pack", folder, "-o", room.out / f"{number}")
        room.run("robustness", folder, "--variant", "none")
        room.run("edge", "evaluate", base.models[0], folder)
        try:
            opened = Run.open(folder)
            _ = opened.metrics, opened.files, opened.best, repr(opened)
        except EdgegraftError:
            room._tally.counts["refused"] += 1
        room.check()
        try:
            for listed in find_runs([room.inputs]):
                _ = listed.files, listed.settings, listed.labels, listed.problems
        except Exception as error:  # it would end the page's list of runs
            room._tally.faults.append(f"page: {error!r} | {folder}")
        shutil.rmtree(folder)


def hostile_run(base: Base, folder: Path, rng: Random, host: str = "h:9") -> Path:
    """A copy of the run, one of its records, tables or pictures changed."""
    shutil.copytree(base.run, folder)
    name = rng.choice((*RUN_FILES, *RUN_FILES, "split.csv", "history.csv"))
    path = folder / name
    if path.suffix == ".json":
        path.write_bytes(inputs.hostile_json(json.loads(path.read_text()), rng, host))
    else:
        path.write_bytes(inputs.damaged(path.read_bytes(), rng))
    return folder


def _archives(room: _Room, rng: Random, count: int, base: Base) -> None:
    """Archives given as photos: a second audit says the same as the first."""
    for number in range(count):
        suffix, content = inputs.archive(base.photo.read_bytes(), rng)
        path = room.inputs / f"{number}{suffix}"
        path.write_bytes(content)
        room.seal()
        first = room.run("data", "audit", path, codes=AUDIT)
        second = room.run("data", "audit", path, codes=AUDIT)
        if (first.code, first.err) != (second.code, second.err):
            room._tally.faults.append(f"a second audit says otherwise | {path}")
        room.check()
        path.unlink()


def load() -> None:
    """Import what commands need, once for all forks."""
    import edge.classifier
    import edge.cli
    import edge.runtime

    edge.runtime.find()


photos, models, cards, runs, archives = map(
    _Batch, (_photos, _models, _cards, _runs, _archives)
)
