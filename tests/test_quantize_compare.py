"""Files against each other: several runs, other devices, refusals, the card."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from edge import files
from edge.errors import EdgegraftError
from edge.evaluate import Refusal
from edge.foreign import ForeignOptions
from edge.model_file import ModelFile
from finetune.loop import folds
from finetune.run import Run
from quantize.cli import compare_main
from quantize.comparison import timing
from quantize.comparison.compare import (
    CompareOptions,
    compare,
    not_cross_validated,
)
from quantize.comparison.inputs import candidates
from quantize.comparison.records import Budget
from quantize.conversion import scoring
from quantize.export import export
from quantize.reporting import columns, model_card, text
from quantize.tflite import metadata
from tests.quantize_room import (
    QUICK,
    colour_network,
    copied,
    white_diagrams,
    write_exported,
    write_photos,
    write_run,
)

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")

pytestmark = pytest.mark.slow  # networks are trained or converted


# -- real files ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="module")
def second(first):
    """The same photos and split, a network whose int8 file gets some photos wrong."""
    folder = first.folder.parent
    run = write_run(
        folder / "two", folder / "photos", colour_network(common=-500.0, to_blue=5.054)
    )
    export(run, calibration_count=8, max_drop=1.0, repair=False)
    return run


@pytest.fixture(scope="module")
def together(first, second):
    """Two runs, a file of a third that was trained on the test photos, and a file
    without a run."""
    cheat = shutil.copytree(second.folder, first.folder.parent / "cheat")
    split = cheat / "split.csv"
    split.write_text(split.read_text().replace(",test,", ",train,"))
    foreign = first.folder.parent / "elsewhere.tflite"
    card = ModelFile.read(first.exports / "int8.tflite").card
    foreign.write_bytes((first.exports / "int8.tflite").read_bytes())
    assert card is not None
    before = foreign.read_bytes()
    effort = replace(QUICK.effort, threads=(1, 2))
    options = replace(QUICK, budget=Budget(ms=1e4), effort=effort)
    things = [first, second.folder, str(foreign), cheat / "exports" / "int8.tflite"]
    found = compare(things, options)
    assert foreign.read_bytes() == before  # only the run's own files get figures
    return found


def test_several_runs_and_a_file_made_elsewhere(together, first):
    titles = [file.title for file in together.files]
    assert titles == [
        *("one/float32", "one/int8", "two/float32", "two/int8", "elsewhere", "int8")
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
    assert record["files"][1]["multiply_adds"] == record["files"][0]["multiply_adds"]
    assert record["ship"]["file"] in titles and "10000 ms" in record["ship"]["why"]
    assert record["run"] == "one, two, elsewhere.tflite, int8.tflite"
    assert not (first.folder / "README.md").exists()  # of a run alone


def test_files_of_one_name_are_told_apart(first, second):
    files = [run.exports / "int8.tflite" for run in (first, second)]
    titles = [candidate.title for candidate in candidates(files)]
    assert titles == ["one/int8", "two/int8"]


def test_each_file_is_compared_with_the_float32_of_its_run(together):
    one, _, two, worse, foreign, _ = together.files
    assert one.paired is None and two.paired is None
    wrong = two.evaluation.right & ~worse.evaluation.right
    assert worse.paired.lost == wrong.sum() == len(worse.flips)
    assert {flip.truth for flip in worse.flips} <= set(together.labels)
    assert (foreign.run, foreign.paired.lost) == ("", 0)  # against the first run's
    page = (together.folder / "comparison.html").read_text()
    assert f"two/int8: {worse.paired.lost} photo" in page
    assert page.count('<figure class="photo">') == sum(
        len(f.flips) for f in together.files
    )


def test_columns_stand_once(together):
    """Terminal, JSON, HTML and model card name and write the same figures alike."""
    record = json.loads((together.folder / "comparison.json").read_text())
    shown = [columns.Column(**one) for one in record["columns"]]
    assert [column.head for column in shown][:3] == [
        *("file", "balanced accuracy", "95 % interval")
    ]
    lines = "\n".join(text.details(together))
    page = (together.folder / "comparison.html").read_text()
    for file in record["files"]:
        for figures in ({**file, **times} for times in file["timings"]):
            for column in shown:
                cell = column.text(figures)
                empty = cell == columns.NOTHING
                assert empty or f">{cell}<" in page, column
                said = column.head in ("device", "runtime", "threads")
                assert empty or said or cell in lines, column


def test_the_summary_leads_with_the_file_and_has_25_lines_at_most(together):
    lines = text.summary(together)
    chosen = together.choice.file
    assert lines[0] == f"ship      {chosen.path}"
    heads = [line.split()[0] for line in lines if line[:1].strip()]
    assert heads[1:5] == ["accuracy", "weakest", "speed", "why"]
    assert heads[-2:] == ["next", "report"] and len(lines) <= 25
    assert chosen.evaluation.accuracy == 1
    line = next(line for line in lines if line.startswith("weakest"))
    assert line.endswith("none: all test photos of every label found")
    other = min(together.files, key=lambda file: file.evaluation.accuracy)
    weakest = other.evaluation.weakest
    found = f"{weakest['label']}: {weakest['right']} of {weakest['photos']}"
    assert weakest["right"] < weakest["photos"] and found in text.weakest(other)
    many = replace(together, files=together.files * 8)
    assert len(text.summary(many)) <= 25
    assert "and 40 files more" in text.summary(many)
    none = replace(together, choice=replace(together.choice, file=None, why="none"))
    assert text.summary(none)[0] == "ship      none: none"
    assert "ship" in repr(together) and "none fits" in repr(none)


def test_every_time_names_its_device_runtime_and_threads(together):
    for file in together.files:
        (one, two) = file.timings
        assert (one.setting.threads, two.setting.threads) == (1, 2)
        assert one.setting.host == two.setting.host == together.host["board"]
        assert one.setting.runtime.startswith("litert ")
        for each in (one, two):
            assert 0 < each.p50_ms <= each.p95_ms <= each.p99_ms
            assert each.load_ms > 0 and each.first_ms > 0
            # without a pause the same work is done, give or take a busy machine
            assert 0 < each.photos_per_second < 5e5
    with (together.folder / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["title"], row["threads"]) for row in rows] == [
        (file.title, threads) for file in together.files for threads in ("1", "2")
    ]
    assert all(row["host"] and row["runtime"] and float(row["p50_ms"]) for row in rows)
    lines = text.details(together)
    assert sum(line.endswith(("1 thread", "2 threads")) for line in lines) == 2


def test_a_file_that_learned_from_the_photos_that_judge_it(together, first):
    """Its run is found beside it, and says so."""
    count = len(first.part("test"))
    warned = f"cheat was trained on {count} of the {count} photos that judge it here"
    assert [w for w in together.warnings if "trained on" in w] == [
        f"{warned}: its accuracy may be too high"
    ]


# -- other devices --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pi(first):
    """What `edge bench --json` prints on a slower device."""
    records = []
    for name in ("float32", "int8"):
        record = timing.bench_in_subprocess(first.exports / f"{name}.tflite", runs=2)
        for threads in (1, 4):
            record |= {"host": "Raspberry Pi 4", "threads": threads}
            for key in ("load_ms", "first_ms", "p50_ms", "p95_ms", "p99_ms"):
                record[key] *= 10.0 * threads
            records.append(dict(record))
    return {"models": records, "warnings": []}


@pytest.fixture(scope="module")
def few(first, pi, tmp_path_factory):
    """(run, comparison): cross-validated, timed on another device too."""
    folder = tmp_path_factory.mktemp("few")
    run = Run.open(shutil.copytree(first.folder, folder / "few"))
    rows = [
        {"label": label, "photos": photos, "right": right}
        for label, photos, right in zip(run.labels, (20, 10), (20, 7), strict=True)
    ]
    folds = {"right": 27, "by_label": rows}
    calibration = {"temperature": 1.0, "photos": 30, "cross_fit": folds}
    run.update(calibration=calibration)
    (folder / "pi.json").write_text(json.dumps(pi))
    options = replace(QUICK, devices=(folder / "pi.json",), out=folder / "out")
    with white_diagrams():
        return run, compare(run, options)


def test_times_of_another_device_merge_and_decide(few, pi):
    _, found = few
    assert str(found.deciding_setting).startswith("Raspberry Pi 4, litert ")
    assert found.deciding_setting.threads == 1  # as here
    settings = [(one.host, one.threads) for one in found.settings]
    assert settings[:2] == [("Raspberry Pi 4", 1), ("Raspberry Pi 4", 4)]
    assert [threads for _, threads in settings[2:]] == [1]
    for file, record in zip(found.files, pi["models"][::2], strict=True):
        there = file.timing_in(found.deciding_setting)
        assert there is not None and there.p50_ms == record["p50_ms"]
    assert "on Raspberry Pi 4" in " ".join(" ".join(text.summary(found)).split())
    page = (found.folder / "comparison.html").read_text()
    assert page.count('<td class=word data-v="Raspberry Pi 4">') == 4


def test_few_photos_lead_with_the_cross_validated_figure(few):
    run, found = few
    assert (found.headline.source, found.headline.photos) == ("cross-validated", 30)
    summary = " ".join(" ".join(text.summary(found)).split())
    assert "accuracy 90.0% (74.4 to 96.5) cross-validated before export on the 30" in (
        summary
    )
    assert "100.0% of 10 test photos" in summary
    weakest = f"{run.labels[1]}: 7 of 10 photos found, cross-validated (70.0%); 5 of 5"
    assert f"weakest {weakest} test photos" in summary
    card = (run.folder / "README.md").read_text()
    assert "Accuracy 90.0% (74.4 to 96.5) cross-validated" in card
    assert weakest in card
    record = json.loads((found.folder / "comparison.json").read_text())
    assert record["headline"]["accuracy"] == 0.9
    assert record["headline"]["weakest"]["right"] == 7
    assert "7 of 10 found" in (found.folder / "comparison.html").read_text()


def test_files_are_known_by_their_digest_not_their_name(first, pi, tmp_path):
    renamed = [dict(record, model="model.tflite") for record in pi["models"]]
    path = tmp_path / "pi.json"
    path.write_text(json.dumps({"models": renamed}))
    read = timing.read_devices(path)
    digests = {
        ModelFile.read(first.exports / f"{n}.tflite").card.model_sha256
        for n in ("float32", "int8")
    }
    assert set(read) == digests


def test_a_wrong_document_is_one_line(first, pi, tmp_path, capsys):
    record = pi["models"][0]
    path = tmp_path / "pi.json"
    for content, words in (
        ("", "expected what edge bench --json prints, got"),
        ("[]", "expected what edge bench"),
        ('{"models": []}', "no models in it"),
        ('{"models": [3]}', "a model that is 3"),
        (json.dumps({"models": [{**record, "p50_ms": "fast"}]}), "p50_ms is 'fast'"),
        (json.dumps({"models": [{**record, "p50_ms": -1}]}), "p50_ms is -1"),
        (json.dumps({"models": [{**record, "threads": None}]}), "threads is None"),
        (json.dumps({"models": [{**record, "model_sha256": None}]}), "an older edge"),
        (json.dumps({"models": [{**record, "model_sha256": "0"}]}), "has none of them"),
    ):
        path.write_text(content)
        assert compare_main([str(first.folder), "--with", str(path)]) == 2
        told = capsys.readouterr().err
        assert words in told and "pi.json" in told and told.count("\n") == 1, told
    assert compare_main([str(first.folder), "--with", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


# -- the model card and bad input ------------------------------------------------------


@pytest.fixture(scope="module")
def alone(first, tmp_path_factory, quick_timing):
    """(run, comparison, the model files that were opened) of a run of an odd name."""
    folder = tmp_path_factory.mktemp("alone") / "<b>&"
    run = Run.open(shutil.copytree(first.folder, folder))
    opened, read = [], files.read_regular

    def counted(path, *args, **options):
        if str(path).endswith(".tflite"):
            opened.append(Path(path).name)
        return read(path, *args, **options)

    with pytest.MonkeyPatch.context() as patch, quick_timing():
        patch.setattr(files, "read_regular", counted)
        patch.setattr(Path, "read_bytes", counted)
        return run, compare(run, QUICK), opened


def test_each_file_is_read_from_disk_once(alone):
    """Apart from the processes that time it."""
    assert sorted(alone[2]) == ["float32.tflite", "int8.tflite"]


def test_names_are_escaped_in_the_page(alone):
    text = (alone[0].folder / "comparison.html").read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text


def test_the_model_card_for_people(alone):
    run, comparison, _ = alone
    text = (run.folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    entries = dict(line.split(": ", 1) for line in front.splitlines())
    assert entries["pipeline_tag"] == "image-classification"
    (model,) = json.loads(entries["model-index"])
    metrics = model["results"][0]["metrics"]
    assert [metric["value"] for metric in metrics] == [
        round(file.evaluation.accuracy, 4) for file in comparison.files
    ]
    for title in (
        *("## Model details", "## Uses", "## Bias, risks and limitations"),
        *("## How to get started", "## Training details", "### Training data"),
        *("### Training procedure", "## Evaluation", "### Results"),
    ):
        assert f"\n{title}\n" in body
    for file in comparison.files:
        for each in file.timings:
            setting = f"{each.setting.runtime} | {each.setting.threads} | "
            assert f"{setting}{each.load_ms:.1f} | {each.first_ms:.1f}" in body
    assert "| train | 20 | 10 | 10 |" in body
    assert f"edge classify exports/{comparison.choice.file.path.name}" in body
    assert f"\nShip `exports/{comparison.choice.file.path.name}`: 100.0% of 10" in body
    assert "\n- Weakest label: " in body
    none = replace(comparison.choice, file=None, why="no file fits 0.1 ms")
    model_card.write(replace(comparison, choice=none), run)
    body = (run.folder / "README.md").read_text("utf-8")
    assert "\nNo file to ship: no file fits 0.1 ms.\n" in body
    assert "\nShip " not in body


def test_bad_input_is_one_line(first, tmp_path, capsys, monkeypatch):
    other = write_photos(tmp_path / "photos", per_label=12)
    stranger = write_run(tmp_path / "stranger", other, colour_network())
    shutil.copytree(first.exports, stranger.exports)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes((first.exports / "int8.tflite").read_bytes()[:500])
    model = first.exports / "float32.tflite"
    card = ModelFile.read(model).card
    renamed = tmp_path / "renamed.tflite"
    renamed.write_bytes(
        metadata.embed(
            model.read_bytes(), type(card)(("a", "b"), card.input, "float32")
        )
    )
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(metadata.strip(model.read_bytes()))

    def measures(*_, **__):
        pytest.fail("a file was measured before all of them were read")

    monkeypatch.setattr(scoring, "score_file", measures)
    for others, words in (
        ([stranger.folder], "expected runs on the same photos and split"),
        ([cut], "damaged or truncated"),
        ([renamed], "got one with a, b"),
        ([bare], "bare.tflite: no labels inside"),
        ([model], "float32.tflite twice"),
        ([tmp_path / "nothing"], "expected a run folder"),
    ):
        assert compare_main([str(first.folder), *map(str, others)]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told
    assert compare_main([str(first.folder), "--rename", "a=b"]) == 2
    assert "expected --photos with rename, got none" in capsys.readouterr().err
    assert compare_main([str(model)]) == 2
    assert "expected a run folder, whose test photos" in capsys.readouterr().err
    names = tmp_path / "names.txt"
    names.write_text("\n".join(first.labels))
    foreign = scoring.Foreign(str(names), ForeignOptions(resize="pad", crop=1.0))
    _, recipe = scoring.recipe_of(ModelFile.read(bare), "auto", first.labels, foreign)
    assert (recipe.resize, recipe.central_fraction) == ("pad", 1.0)
    with pytest.raises(EdgegraftError, match="--margin above 0"):
        CompareOptions(margin=0.0)


@white_diagrams()
def test_other_photos_judge_files_without_a_run(first, tmp_path, capsys):
    """Without those the run was trained on; nothing of the run changes."""
    given = tmp_path / "given"
    write_photos(given, per_label=4, seed=9)
    learned = first.part("train")[0]
    shutil.copy(learned.path, given / learned.label / "copy.png")
    (given / "blue" / "broken.png").write_text("no photo")
    shutil.make_archive(str(given), "zip", given)
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    model = tmp_path / "m.tflite"
    shutil.copy(first.exports / "int8.tflite", model)
    quick = ["--threads=1", "--rounds=1", "--runs=2", "--seconds=0.02", "--json"]
    photos = ["--photos", str(tmp_path / "given.zip")]
    assert compare_main([str(first.folder), str(model), *photos, *quick]) == 0
    out, err = capsys.readouterr()
    assert {file["photos"] for file in json.loads(out)["files"]} == {8}
    assert "1 photo left out: one was trained on them" in err
    assert "broken.png: expected a photo" in err
    assert {p: p.read_bytes() for p in before} == before
    assert compare_main([str(model), "--photos", str(first.folder), *quick]) == 0
    record = json.loads(capsys.readouterr().out)
    tests = first.part("test")
    assert [file["photos"] for file in record["files"]] == [len(tests)]
    assert f"the {len(tests)} test photos of {first.folder}" in record["method"]
    assert (tmp_path / "comparison" / "comparison.html").is_file()
    loose = [str(first.exports / f"{name}.tflite") for name in ("float32", "int8")]
    assert compare_main([*loose, *photos, "--out", str(tmp_path / "o"), *quick]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert "1 photo left out: one was trained on them" in err  # they are of that run
    assert record["ship"]["file"] == "int8"  # it passed the gate: it stands for the run
    labels = ["--photos", str(given), "--rename", "red=pink"]
    assert compare_main([str(model), *labels]) == 2
    assert "label 'pink' is not one of the files'" in capsys.readouterr().err


# -- what is shown is what ships -------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(second, tmp_path_factory):
    """(run, comparison): float32 is right of all, the int8 that ships is not."""
    run = copied(second, tmp_path_factory.mktemp("shipped"))
    keras = {"measured_on": "Keras", "test": {"accuracy": 0.5}, "validation": {}}
    run.write_json("metrics.json", keras)
    return run, compare(run, QUICK)


def test_metrics_and_pictures_are_of_the_file_that_ships(shipped):
    run, comparison = shipped
    chosen = comparison.choice.file
    assert chosen.variant == "int8" and chosen.paired.lost > 0
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["measured_on"].startswith("exports/int8.tflite, the file to ship")
    assert metrics["test"]["confusion"] == chosen.evaluation.confusion
    assert metrics["test"]["balanced_accuracy"] == chosen.evaluation.balanced_accuracy
    assert metrics["keras"]["test"] == {"accuracy": 0.5}
    wrong = int((~chosen.evaluation.right).sum())
    assert len(metrics["mistakes"]) == wrong
    assert (
        sum(one["photos"] for one in metrics["calibration"]["test"]["bins_after"]) == 10
    )
    for name in ("confusion", "mistakes", "uncertain", "calibration"):
        with Image.open(run.folder / f"{name}.png") as picture:
            assert picture.format == "PNG" and picture.width > 300


def test_comparing_again_keeps_the_figures_of_keras(shipped, tmp_path):
    run = copied(shipped[0], tmp_path)
    with white_diagrams():
        compare(run, QUICK)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["keras"]["measured_on"] == "Keras"
    assert metrics["keras"]["test"] == {"accuracy": 0.5}


def test_few_photos_without_cross_validation_say_why(shipped):
    run, found = shipped
    assert found.headline.source == "test photos"
    assert "trained from scratch cannot be cross-validated" in found.headline.note
    summary = " ".join(" ".join(text.summary(found)).split())
    assert found.headline.note in summary
    assert found.headline.note[1:] in (run.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"best": {"epoch": 2}}, "and the fine-tuning was not cross-validated"),
        ({"best": {"epoch": 2}, "most": 9}, "on more than 9 photos is not cross-"),
        ({"probe": {}, "best": {"epoch": 0}}, "a label has too few photos to be"),
        ({"unlabelled": "more"}, "a teacher's labels cannot be"),
    ],
)
def test_the_reason_is_that_of_the_network_that_was_kept(
    shipped, config, why, monkeypatch
):
    run, _ = shipped
    if "most" in config:
        monkeypatch.setattr(folds, "MAX_PHOTOS", config["most"])
    taught = {"teacher": "run", "unlabelled": config.get("unlabelled")}
    config = {"probe": {}, "best": {"epoch": 0}, **config}
    config["settings"] = {**run.config["settings"], **taught}
    assert why in not_cross_validated(Run(run.folder, {**run.config, **config}))


def test_what_unknown_photos_are_answered_is_in_the_summary(shipped):
    file = shipped[1].choice.file
    judged = replace(file, refusal=Refusal(40, 38, 20, 1))
    choice = replace(shipped[1].choice, file=judged)
    summary = "\n".join(text.summary(replace(shipped[1], choice=choice)))
    assert "unknown   95.0% of 40 photos of other things answered unknown" in summary
    assert "and 5.0% of the test photos" in " ".join(summary.split())
    assert "answered unknown" not in "\n".join(text.summary(shipped[1]))
