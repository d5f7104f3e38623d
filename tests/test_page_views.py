"""Batch, Compare, Model and Review: what they show of runs and photos."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("streamlit", reason="the page needs streamlit")

from starlette.formparsers import MultiPartParser

from edge.card import digest
from streamlit_app.dropzone import MAX_ZIP_BYTES
from streamlit_app.feedback import Feedback
from tests.page_helpers import (
    drop,
    page,
    photo,
    shown,
    unescaped,
    write_foreign,
    write_run,
    zipped,
)

pytestmark = pytest.mark.slow  # whole pages, seconds each

COLOURS = {"r.png": photo("red"), "g.png": photo("lime"), "b.png": photo("blue")}
DIM = photo((100, 100, 104))  # about a third for each label


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    write_run(tmp_path / "artifacts")
    return tmp_path / "artifacts"


def test_a_batch_is_counted_listed_and_filtered(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts, at="views/batch.py")
    assert "Drop photos, or one ZIP" in shown(app)
    names = [f"{n}.png" for n in range(20)]
    files = {name.replace(".", "__"): COLOURS["r.png"] for name in names}
    drop(
        app,
        ("many.zip", zipped(**files)),
        *COLOURS.items(),
        ("dim.png", DIM),
        ("bad.png", b"no"),
    )
    assert not app.exception
    assert "24 photos" in shown(app)
    table = app.dataframe[0].value
    assert list(table["photo"][:2]) == ["0.png", "1.png"]
    assert list(table["label"]).count("red") == 21
    # one way to write percent: 95.7 %, not 95.7% here and 4.3 % in the column beside
    config = json.loads(app.dataframe[0].proto.columns)["probability"]["type_config"]
    assert (config["format"], config["max_value"]) == ("%.1f %%", 100)
    assert 50 < table["probability"][0] <= 100
    assert re.fullmatch(r"\w+ <?\d+\.\d %", table["second"][0])
    assert any("bad.png" in unescaped(error.value) for error in app.error)
    options = app.button_group(key="only").options
    choice = next(option for option in options if "uncertain" in str(option))
    app.button_group(key="only").set_value([choice]).run()
    assert list(app.dataframe[0].value["photo"]) == ["dim.png"]
    assert len(app.get("download_button")) == 3


def test_a_zip_of_too_many_files_is_refused_and_the_photo_beside_it_answered(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    many = zipped(**{f"{n}__png": b"" for n in range(10_000)})
    app = page(monkeypatch, "--artifacts", artifacts, at="views/batch.py")
    drop(app, ("many.zip", many), ("r.png", COLOURS["r.png"]))
    assert "expected at most 5,000 files in a ZIP, got 10,000" in unescaped(
        app.error[0].value
    )
    assert list(app.dataframe[0].value["label"]) == ["red"]


def test_models_side_by_side_and_runs_by_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    assert app.multiselect[0].value == ["pets / int8", "pets / float32"]
    drop(app, ("r.png", COLOURS["r.png"]), key="compare photos")
    assert not app.exception
    text = shown(app)
    assert text.count("median of 15 on this host") == 2
    assert "same answer" in text
    table = app.dataframe[0].value
    assert list(table["file"]) == ["float32", "int8"]
    assert table["drop"][1] == pytest.approx(100 / 9)
    assert len(app.get("vega_lite_chart")) == 1
    assert list(table["ms"]) == [2.0, 1.0]
    app.selectbox(key="timed on").set_value("a Pi, litert 2.3.0, 1 thread").run()
    assert list(app.dataframe[0].value["ms"]) == [9.0, 5.0]
    assert "red, answered blue" in text
    assert (
        "secret" in text and "photo not available" in text
    )  # never outside the photos


@pytest.mark.parametrize(
    ("accuracies", "times", "message"),
    [
        ((0.9, 0.8), (2.0, 0.23), "The dashed line is the Pareto front"),
        (
            (0.9, 0.9),
            (2.0, 0.23),
            "**pets / int8** is fastest, and none is more accurate",
        ),
        ((0.9, 0.9), (2.0, 0.0), "Bars are 95 % intervals. Timed on"),
        ((0.9, 0.9), (0.0, 0.0), "No time was measured in this setting."),
    ],
)
def test_a_front_is_mentioned_where_one_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    accuracies: tuple[float, float],
    times: tuple[float, float],
    message: str,
) -> None:
    path = artifacts / "pets" / "comparison.json"
    record = json.loads(path.read_text())
    for entry, accuracy, ms in zip(record["files"], accuracies, times, strict=True):
        entry["accuracy"], entry["timings"][0]["p50_ms"] = accuracy, ms
    path.write_text(json.dumps(record))
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    assert not app.exception
    text = shown(app)
    assert message in text
    assert ("dashed" in text) == ("dashed" in message)
    charts = app.get("vega_lite_chart")
    assert len(charts) == (sum(times) > 0)
    for chart in charts:
        layers = json.loads(chart.proto.spec)["layer"]
        axis = layers[0]["encoding"]["x"]
        ticks = axis["axis"]["values"]
        assert ticks[0] < min(t for t in times if t) <= max(times) < ticks[-1]
        assert axis["scale"]["domain"] == [ticks[0], ticks[-1]]


def test_runs_that_differ_or_are_half_written_are_named_and_others_shown(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    write_run(artifacts, "fish", labels=("perch", "pike", "tench"))
    half = artifacts / "half"
    half.mkdir()
    (half / "run.json").write_text('{"status": "training", "labels": ["a", "b"]}')
    cut = artifacts / "cut"
    cut.mkdir()
    (cut / "run.json").write_text('{"status": "tra')
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    app.multiselect[0].set_value(["pets / int8", "fish / int8"]).run()
    drop(app, ("r.png", COLOURS["r.png"]), key="compare photos")
    assert not app.exception
    warned = unescaped(" ".join(warning.value for warning in app.warning))
    assert "have different labels" in warned
    assert "red, green, blue" in warned and "perch, pike, tench" in warned
    assert shown(app).count("median of 15") == 2
    problems = [unescaped(info.value) for info in app.info]
    assert any("half" in p and "--resume" in p for p in problems)
    assert "**cut** is unreadable: run.json: expected JSON, got a damaged" in warned
    assert set(app.dataframe[0].value["run"]) == {"pets", "fish"}


def test_the_model_page_is_the_card_for_people(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--artifacts", artifacts, at="views/model.py")
    assert not app.exception
    text = shown(app)
    assert "pets / int8" in text
    assert {m.label: m.value for m in app.metric} == {
        "Accuracy, test photos": "88.9 %",
        "Time per photo": "1.00 ms",
        "Size": app.metric[2].value,
        "Loss against float32": "11.1 points",
    }
    assert "edge.pyz classify model.tflite photo.jpg" in text
    assert app.code[1].value == f"edgegraft edge pack {artifacts / 'pets'} -o device"
    assert "calibration error 4.0 %" in text
    assert app.dataframe[0].value["train"][0] == 3  # of split.csv
    assert list(app.dataframe[0].value["recall"]) == [100.0] * 3
    assert len(app.get("vega_lite_chart")) == 3  # confusion, reliability, training
    assert "Accepted as known: 88.9 % of the test photos" in text


def test_the_recommended_file_is_marked(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    path = artifacts / "pets" / "comparison.json"
    record = json.loads(path.read_text())
    for entry in record["files"]:
        entry["title"] = entry["variant"]
        content = (artifacts / "pets" / "exports" / entry["file"]).read_bytes()
        entry["model_sha256"] = digest(content)
    record["ship"] = {"file": "float32", "why": "the most accurate"}
    path.write_text(json.dumps(record))
    app = page(monkeypatch, "--artifacts", artifacts, at="views/model.py")
    assert not app.exception
    options = app.button_group(key="variant pets").options
    assert options == ["int8", "float32 (recommended)"]
    text = shown(app)
    assert "Recommended file of this run: **float32**" in text
    assert app.code[1].value.endswith("-o device --variant int8")
    app.button_group(key="variant pets").set_value("float32").run()
    assert "Recommended file" not in shown(app) and "--variant" not in shown(app)


def test_the_command_packs_the_file_that_is_shown(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    """Nothing is recommended here: `edge pack` would take int8 by itself."""
    app = page(monkeypatch, "--artifacts", artifacts, at="views/model.py")
    app.button_group(key="variant pets").set_value("float32").run()
    assert app.code[1].value.endswith("-o device --variant float32")


def test_a_file_without_labels_is_not_packed(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, tmp_path: Path
) -> None:
    foreign, labels = write_foreign(tmp_path)
    app = page(monkeypatch, foreign, "--labels", labels, at="views/model.py")
    assert not app.exception
    text = shown(app)
    assert "edge.pyz" not in text and "edge pack" not in text
    assert "classify foreign.tflite photo.jpg --labels 'my labels.txt'" in text
    assert [unescaped(b.proto.label) for b in app.get("download_button")] == [
        f"foreign.tflite, {foreign.stat().st_size / 1e6:.2f} MB"
    ]


def test_a_file_without_a_run_or_with_a_damaged_one_still_has_its_page(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    (artifacts / "pets" / "comparison.json").write_text("{")
    (artifacts / "pets" / "metrics.json").write_bytes(b"\xff\xfe")
    app = page(monkeypatch, "--artifacts", artifacts, at="views/model.py")
    assert not app.exception
    assert [m.value for m in app.metric][:1] == ["90.0 %"]  # of the file's own card
    assert sum("half\\-written" in info.value for info in app.info) == 2


def consent(app: Any) -> Any:
    return app.switch_page("views/review.py").run().toggle[0].set_value(True).run()


def test_nothing_is_saved_without_consent_and_uncertain_photos_with_it(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--shared", "--artifacts", artifacts)
    drop(app, ("dim.png", DIM))
    assert "nothing is saved" in shown(app)
    assert MultiPartParser.spool_max_size >= MAX_ZIP_BYTES  # nor while it arrives
    assert not (artifacts / "feedback").exists()
    consent(app)
    app.switch_page("views/classify.py").run()
    kept = Feedback(artifacts / "feedback").waiting()
    assert [(photo.name, photo.why) for photo in kept] == [("dim.png", "uncertain")]
    assert Feedback(artifacts / "feedback").path(kept[0]).read_bytes() == DIM


def test_a_wrong_answer_is_marked_labelled_and_taken_back(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = consent(page(monkeypatch, "--shared", "--artifacts", artifacts))
    app.switch_page("views/classify.py").run()
    drop(app, ("r.png", COLOURS["r.png"]))
    next(s for s in app.selectbox if s.label == "What is it?").set_value("blue").run()
    next(b for b in app.button if b.label == "Save for Review").click().run()
    assert not app.exception
    assert "Saved for Review" in shown(app)
    app.switch_page("views/review.py").run()
    assert "1 waiting" in shown(app) and "marked wrong" in shown(app)
    app.button(key="label 2").click().run()  # blue
    assert "The queue is empty" in shown(app)
    labelled = list((artifacts / "feedback" / "blue").iterdir())
    assert [path.read_bytes() for path in labelled] == [COLOURS["r.png"]]
    assert f"--add {artifacts / 'feedback'}" in shown(app)
    app.button(key="undo").click().run()
    assert "1 waiting" in shown(app)
    assert not list((artifacts / "feedback" / "blue").iterdir())
    app.button(key="remove").click().run()
    assert not Feedback(artifacts / "feedback").waiting()


def test_frames_of_a_device_join_the_queue_once(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = consent(page(monkeypatch, "--shared", "--artifacts", artifacts))
    frames = [("frame-1.jpg", photo("red", kind="JPEG")), ("bad.jpg", b"no")]
    drop(app, *frames, *frames[:1], key="frames")
    assert not app.exception
    waiting = Feedback(artifacts / "feedback").waiting()
    assert [(one.name, one.suggested) for one in waiting] == [("frame-1.jpg", "red")]


def test_a_folder_that_cannot_be_written_is_named_and_the_answer_stays(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = consent(page(monkeypatch, "--shared", "--artifacts", artifacts))
    (artifacts / "feedback").write_text("in the way")
    app.switch_page("views/classify.py").run()
    drop(app, ("dim.png", DIM))
    assert not app.exception
    assert "Not saved" in app.warning[0].value
    assert "dim.png" in shown(app)
    os.unlink(artifacts / "feedback")


def test_many_photos_get_one_label_in_the_grid(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = consent(page(monkeypatch, "--shared", "--artifacts", artifacts))
    record = artifacts / "pets" / "run.json"
    config = json.loads(record.read_text())
    config["settings"] |= {"region": "0,0,0.5,1", "unfreeze": "auto"}
    record.write_text(json.dumps(config))
    frames = [(f"{n}.jpg", photo((200, n, n), kind="JPEG")) for n in (10, 20, 30)]
    drop(app, *frames, key="frames")
    app.button_group(key="review layout").set_value("Grid").run()
    assert not app.exception and "0 photos selected" in shown(app)
    queue = Feedback(artifacts / "feedback")
    for photo_ in queue.waiting()[:2]:
        app.checkbox(key=f"select {photo_.digest}").check()
    app.run()
    app.button(key="label all 2").click().run()
    assert not app.exception
    assert queue.labelled() == {"blue": 2} and len(queue.waiting()) == 1
    add, compare = shown(app).split("edgegraft build ")[1].splitlines()[:2]
    assert f"--run pets-2 --add {artifacts / 'feedback'}" in add
    assert add.endswith("--backbone custom_cnn --region 0,0,0.5,1")
    before, file = artifacts / "pets", Path("exports", "int8.tflite")
    assert compare == (
        f"edgegraft compare {before / file} {artifacts / 'runs' / 'pets-2' / file} "
        f"--photos {before}"
    )


def test_the_best_of_all_runs_is_that_of_their_comparison(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    second = write_run(artifacts, "pets-2")
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    commands = [f"edgegraft compare {artifacts / 'pets'} {second}",
                f"edgegraft compare {second} {artifacts / 'pets'}"]  # fmt: skip
    assert {code.value for code in app.code} & set(commands)
    budgets = [
        {"ms": ms, "mb": mb, "file": "pets-2/int8" if ms == 1 else "pets/int8"}
        for ms in (1.0, 2.0, None)
        for mb in (1.0, 2.0, None)
    ]
    ship = {"file": "pets/int8", "why": "most accurate of 2 files"}
    record = {"run": "pets, pets-2", "ship": ship, "by_budget": budgets}
    (artifacts / "comparison").mkdir()
    (artifacts / "comparison" / "comparison.json").write_text(json.dumps(record))
    app.run()
    assert "All of pets, pets-2: **pets/int8**, most accurate" in shown(app)
    app.select_slider(key=f"budget ms {artifacts}").set_value(1.0).run()
    assert not app.exception
    assert "All of pets, pets-2: **pets-2/int8**, within this budget" in shown(app)


def test_photos_that_show_none_of_the_labels_become_negatives(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = consent(page(monkeypatch, "--shared", "--artifacts", artifacts))
    drop(app, *COLOURS.items(), key="frames")
    app.button_group(key="review layout").set_value("Grid").run()
    next(b for b in app.button if b.label == "Select all").click().run()
    assert "3 photos selected" in shown(app)
    app.button(key="none").click().run()
    queue = Feedback(artifacts / "feedback")
    assert (queue.negatives(), queue.labelled(), queue.waiting()) == (3, {}, [])
    text = shown(app)
    assert f"--negatives {artifacts / 'feedback' / '.none'}" in text
    assert "--add" not in text  # there is nothing to add
    app.button(key="undo").click().run()  # all three
    assert len(queue.waiting()) == 3 and not queue.negatives()


def test_batch_answers_are_marked_wrong_in_place_and_all_go_to_review(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    app = page(monkeypatch, "--shared", "--artifacts", artifacts, at="views/batch.py")
    drop(app, *COLOURS.items())
    assert "Turn on **Review** to mark them here" in shown(app)
    consent(app).switch_page("views/batch.py").run()
    names = list(app.dataframe[0].value["photo"])
    selected = {"selection": {"rows": [names.index("b.png")], "columns": []}}
    app.session_state[app.dataframe[0].key] = selected
    app.run()
    app.selectbox(key="right label").set_value("green").run()
    press(app, "Mark as wrong")
    queue = Feedback(artifacts / "feedback")
    assert [(w.name, w.why, w.suggested) for w in queue.waiting()] == [
        ("b.png", "marked wrong", "green")
    ]
    press(app, "Send 3 photos to Review")
    assert not app.exception
    assert sorted(waiting.name for waiting in queue.waiting()) == sorted(COLOURS)
    assert queue.waiting()[0].why == "marked wrong"  # not replaced


def press(app: Any, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()


def test_a_search_shows_every_candidate_and_its_finalists_are_models(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    folder = artifacts / "search-colours"
    folder.mkdir()
    write_run(folder, "tiny-32")
    probe = {"balanced_accuracy": 0.8, "balanced_low": 0.7, "balanced_high": 0.9}
    candidates: list[dict[str, Any]] = [
        {"name": name, "backbone": "tiny", "size": 32, "size_bytes": 9000,
         "timing": {"p50_ms": ms}, "probe": figures, "final": None}
        for name, ms, figures in (("tiny-64", 3.0, None), ("tiny-32", 1.0, probe))
    ]  # fmt: skip
    candidates[1]["final"] = {**probe, "balanced_accuracy": 0.85, "photos": 9}
    ship = {"file": "tiny-32/int8", "why": "the only file within 2 ms"}
    record = {"edgegraft_search": 1, "status": "done", "ship": ship}
    record |= {"budget_ms": 2.0, "budget_mb": None, "candidates": candidates}
    record["left_out"] = ["tiny-64 not trained", "the files timed in one round"]
    (folder / "search.json").write_text(json.dumps(record))
    (artifacts / "damaged").mkdir()
    (artifacts / "damaged" / "search.json").write_text('{"candidates": [{"size": "x"}]')
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    assert not app.exception
    searches = next(box for box in app.selectbox if box.label == "Search")
    assert set(searches.options) == {"search-colours", "damaged"}
    searches.set_value("search-colours").run()
    assert "**tiny-32/int8**, the only file within 2 ms" in shown(app)
    table = next(t.value for t in app.dataframe if "network" in t.value)
    assert list(table["network"]) == ["tiny-32", "tiny-64"]  # the best one first
    assert table["test"][0] == 85
    assert "limit: tiny-64 not trained; the files timed in one round." in shown(app)
    assert len(app.get("vega_lite_chart")) == 2
    searches.set_value("damaged").run()
    assert "**damaged** is unreadable" in shown(app)
    assert "search-colours/tiny-32" in app.selectbox(key="run").options


def test_a_zip_with_label_folders_is_scored(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    files = {"x/red/1__png": COLOURS["r.png"], "x/blue/2__png": COLOURS["b.png"]}
    files |= {"x/blue/3__png": COLOURS["r.png"], "x/other/4__png": COLOURS["r.png"]}
    app = page(monkeypatch, "--artifacts", artifacts, at="views/batch.py")
    drop(app, ("all.zip", zipped(**files)))
    assert not app.exception
    text = shown(app)
    assert "**Accuracy 66.7 %**" in text and "2 of 3 photos in label folders" in text
    assert "Not scored: 1 photo" in text
    truths = list(app.dataframe[0].value["true label"])
    assert truths[:3] == ["red", "blue", "blue"] and truths[3] not in ("red", "blue")
    assert len(app.get("vega_lite_chart")) == 1


def test_kept_photos_belong_to_the_browser_that_kept_them(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    first = consent(page(monkeypatch, "--artifacts", artifacts))
    first.switch_page("views/classify.py").run()
    drop(first, ("dim.png", DIM))
    first.switch_page("views/review.py").run()
    assert "1 waiting" in shown(first)
    other = consent(page(monkeypatch, "--artifacts", artifacts))
    assert "The queue is empty" in shown(other) and "dim.png" not in shown(other)
    (folder,) = (artifacts / "visitors").iterdir()
    for path in (artifacts / "visitors", *artifacts.glob("visitors/**/*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert any(path.read_bytes() == DIM for path in folder.rglob("*.png"))


def test_hostile_runs_are_listed_and_the_good_one_is_shown(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    """Wrong types, deep JSON, links and pipes; none stops the page or is followed."""
    good = artifacts / "pets"
    record = json.loads((good / "comparison.json").read_text())
    deep = "[" * 100_000 + "]" * 100_000
    changes: dict[str, Any] = {
        "accuracy": 1e400, "p50_ms": "x", "size_bytes": -1,
        "timings": [{"threads": {}}], "variant": {},
        "evaluation": {"confusion": "x"}, "mcnemar_p": [1],
    }  # fmt: skip
    texts = {
        key: json.dumps({**record, "files": [{**record["files"][0], key: value}]})
        for key, value in changes.items()
    }
    for name, text in {**texts, "deep": deep}.items():
        shutil.copytree(good, artifacts / name)
        (artifacts / name / "comparison.json").write_text(text)
    for number, split in enumerate(
        ("sha256\n1\n", "path,label\na", "\0", "a\n1,2,3\n")
    ):
        shutil.copytree(good, artifacts / f"split{number}")
        (artifacts / f"split{number}" / "split.csv").write_text(split)
    shutil.copytree(good, artifacts / "linked")
    secret = artifacts.parent / "secret.tflite"
    secret.write_bytes((good / "exports" / "int8.tflite").read_bytes())
    (artifacts / "linked" / "exports" / "secret.tflite").symlink_to(secret)
    (artifacts / "linked" / "metrics.json").unlink()
    os.mkfifo(artifacts / "linked" / "metrics.json")
    os.mkfifo(artifacts / "linked" / "exports" / "pipe.tflite")
    app = page(monkeypatch, "--artifacts", artifacts, at="views/compare.py")
    assert not app.exception
    warnings = [unescaped(warning.value) for warning in app.warning]
    for name in (*changes, "deep", "linked"):
        assert any(f"**{name}** is unreadable" in text for text in warnings), name
    assert "pets" in set(app.dataframe[0].value["run"])
    for variant in ("secret", "pipe"):
        app = page(monkeypatch, "--artifacts", artifacts, run="linked", variant=variant)
        assert not app.exception and "Cannot open" in app.error[0].value


def test_the_page_answers_as_the_command_does_to_the_digit(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edge import cli
    from streamlit_app import answer
    from streamlit_app.dropzone import Photo
    from streamlit_app.model_pool import ModelPool
    from streamlit_app.views import batch

    colours = [(200, 30, 60), (90, 91, 92), (10, 120, 119), (255, 254, 0)]
    paths = []
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(photo(colour, (301, 203), "JPEG"))
        paths.append(path)
    for variant in ("int8", "float32"):
        model = artifacts / "pets" / "exports" / f"{variant}.tflite"
        assert cli.main(["classify", str(model), *map(str, paths), "--json"]) == 0
        want = json.loads(capsys.readouterr().out)
        pool = ModelPool().open(model, (1, 1))
        done = [
            (Photo(str(p), str(p), p.read_bytes), answer.row(pool, p.read_bytes(), 3))
            for p in paths
        ]
        got = json.loads(batch.answers_json(pool.facts, str(model), done, []))
        for record in (*want["photos"], *got["photos"]):
            assert record.pop("decode_ms") > 0
            assert record.pop("inference_ms") > 0
        want.pop("load_ms")
        assert got == want
        csv = batch.answers_csv(pool.facts, done, 3)
        assert cli.main(["classify", str(model), *map(str, paths), "--csv"]) == 0
        header = capsys.readouterr().out.splitlines()[0]
        assert csv.splitlines()[0] == header
