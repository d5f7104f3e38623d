"""`edgegraft search`: which network, within a budget; with small CNNs in place of
pretrained networks (their random features tell red from blue)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgegraft
from edge.errors import EdgegraftError
from edge.evaluate import score
from finetune import model
from finetune.console import Console
from finetune.settings import Settings
from quantize.comparison import timing
from quantize.comparison.compare import CompareOptions
from quantize.comparison.records import Budget, Setting, Timing
from quantize.comparison.timing import Effort
from quantize.export import export
from quantize.search import candidates as networks
from quantize.search import ranking, report
from quantize.search import search as steps
from quantize.search.candidates import Candidate
from quantize.search.records import Entry, SearchOptions, SearchResult
from quantize.search.search import search
from tests.quantize_room import white_diagrams, write_photos

pytestmark = pytest.mark.slow  # networks are trained or converted

SIZES = (16, 24, 32)
CNN = ("custom_cnn",)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """CNNs of three small sizes, taken for pretrained, trained for an epoch."""

    def settings(candidate: Candidate, seed: int = 0) -> Settings:
        return Settings.for_network(
            backbone="custom_cnn",
            size=candidate.size,
            seed=seed,
            epochs=1,
            cnn={"filters": [8, 16]},
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CNN_SIZES", SIZES)
        patch.setattr(Candidate, "pretrained", True)
        patch.setattr(Candidate, "settings", settings)
        quick = partial(CompareOptions, effort=Effort(rounds=1, runs=2, seconds=0.02))
        patch.setattr("quantize.search.search.CompareOptions", quick)
        patch.setattr("quantize.search.search.export", partial(export, repair=False))
        patch.setattr(networks, "EFFORT", Effort(rounds=1, runs=2, seconds=0.02))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    write_photos(folder / "photos", 24)
    return folder


def options(place: Path, **more: object) -> SearchOptions:
    given = {"backbones": CNN, **more}
    folder = place / "artifacts" / "found"
    return SearchOptions(place / "photos", folder, **given)  # type: ignore[arg-type]


def limit_with(left: float, console: Console | None = None) -> steps._Limit:
    """A time limit of one minute of which so many seconds are left."""
    minutes = None if left == math.inf else 1.0
    limit = steps._Limit(minutes, console or Console(quiet=True))
    limit.left = lambda: left
    return limit


@pytest.fixture(scope="module")
def found(place: Path) -> SearchResult:
    with white_diagrams():
        return search(options(place), Console(quiet=True))


@pytest.mark.slow
def test_the_best_is_trained_and_shipped(found: SearchResult, tmp_path: Path) -> None:
    assert [entry.candidate.size for entry in found.within_budget] != []
    assert len(found.entries) == len(SIZES)
    assert all(entry.score and entry.score.photos == 40 for entry in found.entries)
    order = sorted(found.entries, key=lambda entry: entry.score.log_loss)  # type: ignore[union-attr]
    trained = {entry.candidate.name for entry in found.entries if entry.run}
    assert {entry.candidate.name for entry in order[:2]} <= trained
    assert found.best is not None and found.best.is_file()
    assert found.chosen is not None
    assert found.chosen.run == found.best.parents[1]
    assert "ship" in repr(found)
    record = json.loads((found.folder / "search.json").read_text())
    assert record["status"] == "done"
    assert record["ship"]["path"] == str(found.best)
    finals = [one["final"] for one in record["candidates"] if one["final"]]
    assert len(finals) == len(trained)
    assert (found.folder / report.PLOT).is_file()
    report.draw(found, tmp_path / report.PLOT)
    with Image.open(tmp_path / report.PLOT) as picture:
        assert picture.format == "PNG" and picture.width > 300
    lines = report.answer(found)
    assert len(lines) <= 25 and lines[0].startswith("ship")
    assert str(found.best) in lines[0] + lines[1]  # a long path has a line of its own
    assert any(line.startswith(f"{found.chosen.candidate.title} *") for line in lines)


@pytest.mark.slow
def test_where_a_busy_machine_leaves_no_file_within_the_budget(
    found: SearchResult,
) -> None:
    none = replace(
        found.comparison, choice=replace(found.comparison.choice, file=None),
        budget=Budget(5, 4),
    )  # fmt: skip
    words = " ".join(" ".join(report.answer(replace(found, comparison=none))).split())
    run = next(entry.run for entry in found.entries if entry.run)
    assert "edgegraft compare" in words and str(run) in words
    assert "--budget-ms=5 --budget-mb=4" in words
    assert "edgegraft search" not in words


@pytest.mark.slow
def test_a_budget_that_no_network_meets(found: SearchResult, place: Path) -> None:
    small = replace(options(place, overwrite=True), folder=place / "artifacts" / "no")
    with pytest.raises(EdgegraftError, match=" is the fastest ") as wrong:
        search(replace(small, budget=Budget(1e-6)), Console(quiet=True))
    assert " ms, " in str(wrong.value) and "smallest" in str(wrong.value)


@pytest.mark.slow
@white_diagrams()
def test_a_finished_search_is_resumed_without_work(
    found: SearchResult, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("what is known is worked out again")

    monkeypatch.setattr(networks, "time_here", never)
    monkeypatch.setattr(ranking, "probe_score", never)
    monkeypatch.setattr("quantize.search.search.run_job", never)
    times = {file.path: file.timings for file in found.comparison.files}
    # the files are timed anew, and of equals the fastest is the best: the same times
    monkeypatch.setattr(
        timing, "time_all", lambda paths, *_, **__: {p: times[p] for p in paths}
    )
    again = search(options(place, resume=True), Console(quiet=True))
    assert again.best == found.best
    assert again.seconds > found.seconds  # those of both processes
    with pytest.raises(EdgegraftError, match="expected a new search, got"):
        search(options(place), Console(quiet=True))


def test_a_budget_that_nothing_meets(place: Path) -> None:
    hopeless = SearchOptions(
        place / "photos",
        place / "artifacts" / "hopeless",
        Budget(None, 0.001),
        backbones=CNN,
    )
    with pytest.raises(EdgegraftError, match=r"got 0.001 MB; of 3 networks custom_cnn"):
        search(hopeless, Console(quiet=True))


def test_times_of_a_device(place: Path, tmp_path: Path) -> None:
    every = networks.ready(CNN)
    files = networks.graphs(every, 2, Console(quiet=True))
    networks.write_pack(files, tmp_path / "pack")
    packed = sorted(path.name for path in (tmp_path / "pack").iterdir())
    assert packed == ["README.txt", *(f"custom_cnn-{size}.tflite" for size in SIZES)]
    with pytest.raises(EdgegraftError, match="expected a new folder, got"):
        networks.refuse_pack(tmp_path / "pack")
    from edge.model_file import ModelFile

    def record(content: bytes, ms: float, threads: int) -> dict[str, object]:
        names = ("load_ms", "first_ms", "p50_ms", "p95_ms", "p99_ms", "peak_memory_mb")
        return {
            **dict.fromkeys(names, ms),
            "model": "x.tflite",
            "model_sha256": ModelFile(content).digest,
            "runtime": "litert",
            "runtime_version": "2",
            "host": "Pi 5",
            "threads": threads,
        }

    document = tmp_path / "device.json"
    models = [record(files[every[0]], 7.0, 1), record(files[every[0]], 3.0, 4)]
    document.write_text(json.dumps({"models": models}))
    times = networks.time_there(files, document)
    assert {one.name: t.p50_ms for one, t in times.items()} == {"custom_cnn-16": 7.0}
    document.write_text(json.dumps({"models": [record(b"other", 7.0, 1)]}))
    with pytest.raises(EdgegraftError, match="--device: expected times of this search"):
        networks.time_there(files, document)
    document.write_text(json.dumps({"models": [record(files[every[0]], 7.0, 1)]}))
    with pytest.raises(EdgegraftError, match=r"of tf\.lite, got .*with litert 2"):
        networks.time_there(files, document, "tf.lite")
    document.write_text(document.read_text().replace('"litert"', '"onnxruntime"'))
    with pytest.raises(EdgegraftError, match="measured with onnxruntime 2"):
        networks.time_there(files, document)
    with pytest.raises(EdgegraftError, match=r"^--device: expected a file that edge"):
        networks.time_there(files, tmp_path)


def test_photos_for_the_first_round() -> None:
    truth = np.array([0] * 900 + [1] * 20)
    everything = ranking.Photos(
        np.zeros((920, 4, 4, 3), np.uint8),
        np.arange(920),
        truth,
        np.arange(920),
        ("many", "few"),
    )
    part = everything.sample(400, seed=0)
    assert np.bincount(part.truth).tolist() == [392, 9]
    assert len(set(part.rows.tolist())) == len(part.rows)
    assert everything.sample(1000, seed=0) is everything


def test_a_label_too_small_for_the_folds() -> None:
    candidate = networks.ready(CNN)[0]
    photos = ranking.Photos(
        np.zeros((12, 16, 16, 3), np.uint8),
        np.arange(12),
        np.array([0] * 9 + [1] * 3),
        np.arange(12),
        ("many", "few"),
    )
    with pytest.raises(EdgegraftError, match="of each label or more, got 3 of few"):
        ranking.probe_score(candidate, photos, 0)


def test_a_label_too_small_for_the_folds_is_refused_before_anything_is_timed(
    tmp_path: Path,
) -> None:
    write_photos(tmp_path / "photos", 12)
    for path in sorted((tmp_path / "photos" / "blue").iterdir())[3:]:
        path.unlink()
    with pytest.raises(EdgegraftError, match="of each label or more, got 3 of blue"):
        search(options(tmp_path), Console(quiet=True))
    assert not (tmp_path / "artifacts").exists()


def test_copies_count_once_for_the_folds() -> None:
    candidate = networks.ready(CNN)[0]
    photos = ranking.Photos(
        np.zeros((12, 16, 16, 3), np.uint8),
        np.arange(12),
        np.array([0] * 6 + [1] * 6),
        np.array([0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 7, 8]),
        ("many", "copied"),
    )
    with pytest.raises(EdgegraftError, match="got 3 of copied"):
        ranking.probe_score(candidate, photos, 0)


def test_features_of_the_first_round_serve_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = networks.ready(CNN)[0]
    rng = np.random.default_rng(0)
    photos = ranking.Photos(
        rng.integers(0, 256, (70, 48, 48, 3)).astype(np.uint8),
        np.arange(70)[::-1].copy(),
        np.array([0, 1] * 35),
        np.arange(70),
        ("even", "odd"),
    )
    asked: list[int] = []

    def some_pixels(network: Any, pixels: Any, rows: Any) -> Any:
        asked.append(len(rows))
        return pixels[rows].reshape(len(rows), -1)[:, :9].astype(np.float32)

    monkeypatch.setattr(model, "compute_outputs", some_pixels)
    known: dict[int, Any] = {}
    ranking.probe_score(candidate, photos.sample(40, 0), 0, known)
    once = ranking.probe_score(candidate, photos, 0, known)
    again = ranking.probe_score(candidate, photos, 0)
    assert asked == [40, 30, 70] and len(known) == 70
    np.testing.assert_array_equal(once.losses, again.losses)


def test_unknown_networks_and_limits() -> None:
    with pytest.raises(EdgegraftError, match="expected a known backbone"):
        networks.ready(("mobilnet",))
    with pytest.raises(EdgegraftError, match="--time-limit in minutes above 0"):
        SearchOptions(Path("p"), Path("f"), time_limit=0)
    with pytest.raises(EdgegraftError, match="plain folder name"):
        SearchOptions.folder_for(Path("p"), Path("a"), "../x")
    assert SearchOptions.folder_for(Path("a/p.zip"), Path("x"), None).name == "search-p"


def test_the_command_that_resumes_keeps_every_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a person types, parsed, is the same search again."""
    import shlex

    import quantize.search.search as module
    from quantize import cli

    words = (
        "p --budget-ms 5 --budget-mb 2 --backbones custom_cnn --time-limit 9 --seed 3 "
        "--run r --artifacts a --device d.json --layout labels --rename x=y "
        "--columns path=f,label=l --follow-links --runtime litert"
    )
    given: list[SearchOptions] = []

    def refused(options: SearchOptions, console: Console) -> None:
        given.append(options)
        raise EdgegraftError("seen")

    monkeypatch.setattr(module, "search", refused)
    assert cli.search_main(words.split()) == 2
    again = replace(given[0], resume=True)
    assert cli.search_main(shlex.split(again.command)[2:]) == 2
    assert given[1] == again
    with pytest.raises(EdgegraftError, match="seen"):
        edgegraft.search(
            "p",
            budget_ms=5,
            budget_mb=2,
            backbones="custom_cnn",
            time_limit=9,
            run="r",
            artifacts="a",
            seed=3,
            device="d.json",
            layout="labels",
            rename={"x": "y"},
            columns={"path": "f", "label": "l"},
            follow_links=True,
            runtime="litert",
        )
    assert given[2] == given[0]
    with pytest.raises(EdgegraftError, match="search has no option 'sede'; did you m"):
        edgegraft.search("p", sede=3)
    with pytest.raises(EdgegraftError, match="photos: expected a folder, list or arch"):
        edgegraft.search(None)  # type: ignore[arg-type]


def test_finalists_are_the_best_and_one_that_is_close() -> None:
    every = networks.ready(CNN)
    noise = np.random.default_rng(0).normal(0, 0.1, 200).astype(np.float32)

    def score(loss: float) -> ranking.Score:
        return ranking.Score(None, noise + np.float32(loss))  # type: ignore[arg-type]

    far = dict(zip(every, (score(0.3), score(0.1), score(0.2)), strict=True))
    assert [one.size for one in ranking.finalists(far)] == [24, 32]
    wide = np.random.default_rng(1).normal(0.1, 1, 200).astype(np.float32)
    close = {**far, every[0]: ranking.Score(None, wide)}  # type: ignore[arg-type]
    assert len(ranking.finalists(close)) in (2, 3)


def test_an_entry_within_a_budget() -> None:
    setting = Setting("here", "litert 2", 1)
    timing = Timing(setting, 1, 1, 4.0, 5, 6, None, 50, 1)
    entry = Entry(networks.ready(CNN)[0], timing, 900_000)
    assert entry.fits(Budget(None, None)) and entry.fits(Budget(4.0, 0.9))
    assert not entry.fits(Budget(3.9, None)) and not entry.fits(Budget(None, 0.8))


def test_the_time_limit_counts_from_the_start(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    order: list[object] = []

    def time_all(*_: object) -> None:
        order.append("timing")
        raise EdgegraftError("enough")

    def countdown(seconds: float) -> object:
        order.append(seconds)
        return lambda: seconds

    monkeypatch.setattr(steps, "countdown", countdown)
    monkeypatch.setattr(steps, "_time_all", time_all)
    limited = replace(options(place, time_limit=2), folder=tmp_path / "limited")
    with pytest.raises(EdgegraftError, match="enough"):
        search(limited, Console(quiet=True))
    assert order == [120, "timing"]


@pytest.mark.parametrize(("late", "looked_at"), [(False, 3), (True, 2)])
def test_a_search_that_is_late_ranks_two_networks(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: Path,
    *,
    late: bool,
    looked_at: int,
) -> None:
    limit = limit_with(-1.0 if late else 1.0, Console())
    right = score(np.eye(2, dtype=np.float32), np.arange(2), ("a", "b"))
    probed = ranking.Score(right, np.zeros(2, np.float32))
    monkeypatch.setattr(ranking, "probe_score", lambda *_: probed)
    scores = steps._round(
        0,
        [SimpleNamespace(candidate=c, scores={}) for c in networks.ready(CNN)],
        SimpleNamespace(rows=range(2)),  # type: ignore[arg-type]
        options(place),
        SimpleNamespace(score=lambda *_: None, add_score=lambda *_: None),  # type: ignore[arg-type]
        {},
        limit,
        0.0,
        Console(),
    )
    assert len(scores) == looked_at
    missing = "1 network not in: cross-validating on 2 photos"
    assert limit.left_out == [missing] * late
    assert (f"time limit: {missing}" in capsys.readouterr().out) == late


def test_the_second_round_begins_with_the_best(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """So that the time limit leaves out the others."""
    losses, order = {16: 0.1, 24: 0.3, 32: 0.2}, []
    right = score(np.eye(2, dtype=np.float32), np.arange(2), ("a", "b"))

    def probe_score(candidate: Candidate, photos: Any, *_: object) -> ranking.Score:
        order.append((len(photos.rows), candidate.size))
        return ranking.Score(right, np.full(2, losses[candidate.size], np.float32))

    rows = np.arange(2 * ranking.PART)
    pixels = np.zeros((len(rows), 1, 1, 3), np.uint8)
    photos = ranking.Photos(pixels, rows, rows % 2, rows, ("a", "b"))
    prepared = SimpleNamespace(
        pixels=nullcontext(), split=SimpleNamespace(fingerprint="")
    )
    monkeypatch.setattr(ranking, "probe_score", probe_score)
    monkeypatch.setattr(steps, "prepare", lambda *_: prepared)
    monkeypatch.setattr(steps, "_photos", lambda _: photos)
    nothing = lambda *_: None  # noqa: E731
    finalists = steps._rank(
        [
            SimpleNamespace(candidate=c, ms=c.size, scores={})
            for c in networks.ready(CNN)
        ],
        SimpleNamespace(),  # type: ignore[arg-type]
        options(place),
        SimpleNamespace(score=nothing, add_score=nothing, refuse_changed=nothing),  # type: ignore[arg-type]
        limit_with(math.inf),
        Console(quiet=True),
    )
    part, whole = ranking.PART, len(rows)
    assert order[:3] == [(part, 32), (part, 24), (part, 16)]
    assert order[3:] == [(whole, 16), (whole, 32), (whole, 24)]
    assert [entry.candidate.size for entry in finalists] == [16, 32]


def test_the_time_limit_ends_the_timing(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    """The ends of each network come first; what is not timed is named, and timed by a
    search that is resumed without a limit."""
    limited = replace(options(place, time_limit=1), folder=tmp_path / "limited")
    state, limit = steps._State(limited, ("a", "b")), limit_with(0.0)
    every = networks.ready(CNN)
    monkeypatch.setattr(timing, "bench_in_subprocess", _bench)
    limited.folder.mkdir()
    one = steps._time_all(every, limited, state, limit, Console(quiet=True))
    assert [entry.candidate.size for entry in one] == [SIZES[0]]
    large, middle = (f"custom_cnn at {size}" for size in (SIZES[2], SIZES[1]))
    assert limit.left_out == [f"{large}, {middle} not timed"]
    resumed = replace(limited, time_limit=None, resume=True)
    state = steps._State(resumed, ("a", "b"))
    unlimited = limit_with(math.inf)
    more = steps._time_all(every, resumed, state, unlimited, Console(quiet=True))
    assert sorted(entry.candidate.size for entry in more) == list(SIZES)
    assert not unlimited.left_out


def _bench(path: Path, **_: object) -> dict[str, object]:
    names = ("load_ms", "first_ms", "p50_ms", "p95_ms", "p99_ms", "peak_memory_mb")
    setting = {"runtime": "litert", "runtime_version": "2", "host": "h", "threads": 1}
    return {**dict.fromkeys(names, 1.0), **setting}


def test_an_interrupt_keeps_the_rounds_that_are_timed(
    monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path
) -> None:
    stopped = replace(options(place), folder=tmp_path / "stopped")
    rounds: list[int] = []

    def time_all(paths: Any, *_: object, after_round: Any, **__: object) -> None:
        if rounds:
            after_round({path: (timing._timing([_bench(path)]),) for path in paths})
        rounds.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "time_all", time_all)
    for hint in ("nothing is timed yet; start again with", "resume with.*--resume"):
        with pytest.raises(KeyboardInterrupt, match=hint):
            search(stopped, Console(quiet=True))
    record = json.loads((stopped.folder / "search.json").read_text())
    assert [c["timing"]["rounds"] for c in record["candidates"]] == [1, 1, 1]
    resumed = replace(stopped, resume=True)
    entries = steps._State(resumed, ("blue", "red")).entries(networks.ready(CNN))
    assert len(entries) == len(SIZES)


def test_a_search_with_a_devices_times_is_resumed_with_them(
    place: Path, tmp_path: Path
) -> None:
    there = replace(
        options(place), folder=tmp_path / "there", device=tmp_path / "pi.json"
    )
    there.folder.mkdir()
    steps._State(there, ("a", "b")).save([])
    with pytest.raises(EdgegraftError, match="expected --device, with which the"):
        steps._State(replace(there, device=None, resume=True), ("a", "b"))


def test_a_finalist_without_time_is_left_out(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """The best is always trained; the files are then timed in one round."""
    given: list[CompareOptions] = []

    def train_one(entry: Any, *_: object) -> Any:
        return SimpleNamespace(folder=Path(entry.candidate.name))

    def compare(_: object, options: CompareOptions, **__: object) -> Any:
        given.append(options)
        return SimpleNamespace(files=())

    monkeypatch.setattr(steps, "_train_one", train_one)
    monkeypatch.setattr(steps, "_epoch_seconds", lambda _: 0.0)
    monkeypatch.setattr(steps, "compare", compare)
    every, limit = networks.ready(CNN), limit_with(1.0)
    entries = [SimpleNamespace(candidate=c, ms=1.0, run=None) for c in every[:2]]
    limited = replace(options(place, time_limit=1), folder=place / "none")
    steps._train(entries, limited, limit, Console(quiet=True))  # type: ignore[arg-type]
    assert [entry.run is not None for entry in entries] == [True, False]
    title = every[1].title
    assert limit.left_out == [f"{title} not trained", "the files timed in one round"]
    assert given[0].effort == steps.BRIEF
    unlimited = limit_with(math.inf)
    steps._train(entries, options(place), unlimited, Console(quiet=True))  # type: ignore[arg-type]
    assert all(entry.run is not None for entry in entries)
