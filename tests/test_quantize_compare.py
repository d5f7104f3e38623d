"""Files against each other: the paired test, the choice, several runs, the page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from edge.card import read_card
from edge.errors import EdgegraftError
from edge.evaluate import score
from finetune.run import Run
from quantize import decide, metadata, report
from quantize.cli import compare_main
from quantize.compare import compare
from quantize.export import export
from tests.quantize_room import LABELS, colour_network, write_photos, write_run

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")


def judged(right: int, wrong: int, *, turned: int = 0):
    """An evaluation with its first photos right; `turned` of these are wrong here."""
    guess = np.array([0] * right + [1] * wrong)
    guess[:turned] = 1
    return score(np.eye(2, dtype=np.float32)[guess], np.zeros(right + wrong), LABELS)


# -- the paired test ------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    # exact two-sided binomial tails, worked out by hand
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 1, 20 / 512)],
)
def test_mcnemar_is_the_exact_tail(lost, gained, p):
    before, after = np.zeros(30, int), np.zeros(30, int)
    after[:lost] = 1
    before[lost : lost + gained] = 1
    table = np.eye(2, dtype=np.float32)
    pair = decide.paired(
        score(table[before], np.zeros(30), LABELS),
        score(table[after], np.zeros(30), LABELS),
    )
    assert (pair.lost, pair.gained) == (lost, gained)
    assert pair.p == pytest.approx(p)


def test_many_flips_do_not_overflow():
    pair = decide.paired(judged(4000, 0), judged(4000, 0, turned=4000))
    assert pair.p == 0.0


def test_files_on_other_photos_are_not_paired():
    with pytest.raises(EdgegraftError, match="same photos"):
        decide.paired(judged(3, 1), judged(3, 2))


# -- which file to ship -------------------------------------------------------------


def measured(title, evaluation, ms, mb, *, rejected=False):
    return SimpleNamespace(
        title=title,
        evaluation=evaluation,
        p50_ms=ms,
        size_bytes=int(mb * 1e6),
        rejected=rejected,
    )


FLOAT = measured("float32", judged(95, 5), 14.0, 9.0)
INT8 = measured("int8", judged(95, 5, turned=2), 3.0, 2.7)
BAD = measured("tiny", judged(95, 5, turned=20), 1.0, 0.5)


def test_the_fastest_that_is_not_surely_worse_ships():
    choice = decide.choose([FLOAT, INT8, BAD])
    assert choice.file is INT8
    assert "not surely worse than float32" in choice.why and "p = 0.50" in choice.why


def test_a_budget_leaves_out_what_does_not_fit():
    assert decide.choose([FLOAT, INT8, BAD], ms=2).file is BAD
    assert decide.choose([FLOAT, INT8, BAD], mb=1).file is BAD
    none = decide.choose([FLOAT, INT8], ms=2, mb=1)
    assert none.file is None and "no files that fit 2 ms and 1 MB" in none.why
    assert "int8: 3.00 ms, 2.70 MB" in none.why
    with pytest.raises(EdgegraftError, match="--budget-ms above 0, got -1"):
        decide.choose([INT8], ms=-1)


def test_a_rejected_file_never_ships():
    aside = measured("int8", judged(95, 5), 1.0, 1.0, rejected=True)
    assert decide.choose([FLOAT, aside]).file is FLOAT


def test_the_front_has_no_file_that_another_beats():
    slow = measured("slow", judged(90, 10), 20.0, 9.0)
    assert report.front([slow, FLOAT, BAD, INT8]) == [BAD, INT8, FLOAT]


# -- real files ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    photos = write_photos(folder / "photos")
    run = write_run(folder / "one", photos, colour_network())
    export(run, calibration_count=8, max_drop=1.0)
    return run


@pytest.fixture(scope="module")
def second(first):
    """The same photos and split, a network whose int8 file gets some photos wrong."""
    folder = first.folder.parent
    run = write_run(folder / "two", folder / "photos", colour_network(common=-20_000.0))
    export(run, calibration_count=8, max_drop=1.0)
    return run


@pytest.fixture(scope="module")
def together(first, second):
    foreign = first.folder.parent / "elsewhere.tflite"
    card = read_card(first.exports / "int8.tflite")
    foreign.write_bytes((first.exports / "int8.tflite").read_bytes())
    assert card is not None
    before = foreign.read_bytes()
    found = compare(first, second, foreign, rounds=1, runs=2, budget_ms=1e4)
    assert foreign.read_bytes() == before  # only the run's own files get figures
    return found


def test_several_runs_and_a_file_made_elsewhere(together, first):
    titles = [file.title for file in together.files]
    assert titles == [
        *("one/float32", "one/int8", "two/float32", "two/int8", "elsewhere")
    ]
    assert together.folder == first.folder.parent / "comparison"
    assert {path.name for path in together.folder.iterdir()} == {
        f"comparison.{kind}" for kind in ("json", "csv", "png", "html")
    }
    record = json.loads((together.folder / "comparison.json").read_text())
    worse = record["files"][3]
    assert worse["lost"] > 0 and worse["drop"] > 0 and 0 < worse["mcnemar_p"] <= 1
    assert len(worse["float_right_this_wrong"]) == worse["lost"]
    assert record["files"][1]["lost"] == 0 and record["files"][1]["mcnemar_p"] == 1
    assert record["files"][1]["oldest_runtime"] == "1.14"
    assert all(f["p50_ms"] <= f["p95_ms"] <= f["p99_ms"] for f in record["files"])
    assert record["ship"]["file"] in titles and "10000 ms" in record["ship"]["why"]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_page_holds_all_it_shows(together):
    text = (together.folder / "comparison.html").read_text()
    page = _Links()
    page.feed(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert all(source.startswith("data:image/") for source in page.sources)
    lost = together.files[3].paired.lost
    plot_and_confusions = 1 + len(together.files)
    assert page.tags.count("img") == plot_and_confusions + lost
    assert f"wrong in two/int8: {lost} photos" in text
    assert not re.search(r"url\(|@import|https?://", text.split("<body>")[0])


def test_names_are_escaped_in_the_page(first, tmp_path):
    target = tmp_path / "<b>&"
    shutil.copytree(first.folder, target)
    compare(Run.open(target), rounds=1, runs=1)
    text = (target / "comparison.html").read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text


def test_the_model_card_for_people(first):
    comparison = compare(first, rounds=1, runs=2)
    text = (first.folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    entries = dict(line.split(": ", 1) for line in front.splitlines())
    assert entries["pipeline_tag"] == "image-classification"
    (model,) = json.loads(entries["model-index"])
    metrics = model["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [
        round(file.evaluation.accuracy, 4) for file in comparison.files
    ]
    for title in ("Data", "Training", "Metrics", "Limits", "How to run it"):
        assert f"\n## {title}\n" in body
    assert "| train | 20 | 10 | 10 |" in body
    assert f"edge classify exports/{comparison.choice.file.path.name}" in body


def test_bad_input_is_one_line(first, tmp_path, capsys):
    other = write_photos(tmp_path / "photos", per_label=12)
    stranger = write_run(tmp_path / "stranger", other, colour_network())
    export(stranger, ["float32"])
    cut = tmp_path / "cut.tflite"
    cut.write_bytes((first.exports / "int8.tflite").read_bytes()[:500])
    model = first.exports / "float32.tflite"
    card = read_card(model)
    renamed = tmp_path / "renamed.tflite"
    renamed.write_bytes(
        metadata.embed(
            model.read_bytes(), type(card)(("a", "b"), card.input, "float32")
        )
    )
    for others, words in (
        ([stranger.folder], "expected runs on the same photos and split"),
        ([cut], "damaged or truncated"),
        ([renamed], "got one with a, b"),
        ([model], "one of them twice"),
        ([tmp_path / "nothing"], "expected a run folder"),
    ):
        assert compare_main([str(first.folder), *map(str, others)]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told
    assert compare_main([str(model)]) == 2
    assert "expected a run folder first" in capsys.readouterr().err
