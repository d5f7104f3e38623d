"""A run's files: exported, judged, compared, through the commands that people use."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.model_file import ModelFile
from finetune.console import Console
from finetune.run import Run
from quantize.cli import compare_main, main
from quantize.comparison.compare import compare
from quantize.comparison.inputs import exported
from quantize.export import EXIT_REJECTED, export
from quantize.gate import Gate, fidelity, views
from quantize.reporting import text
from tests.quantize_room import (
    LABELS,
    QUICK,
    colour_network,
    copied,
    white_diagrams,
    write_photos,
    write_run,
)

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")

pytestmark = pytest.mark.slow  # networks are trained or converted


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A run before its export."""
    folder = tmp_path_factory.mktemp("trained") / "colours"
    return write_run(folder, photos, colour_network())


@pytest.fixture(scope="module")
def done(tmp_path_factory, trained, quick_timing):
    """(run, results, comparison): exported and compared, each file timed apart."""
    run = copied(trained, tmp_path_factory.mktemp("done"))
    results = export(run, calibration_count=20, repair=False)
    with quick_timing():
        return run, results, compare(run, QUICK)


# -- export ---------------------------------------------------------------------


def test_both_files_are_there_and_describe_themselves(done):
    run, results, _ = done
    assert {path.name for path in run.exports.iterdir()} == {
        "float32.tflite",
        "int8.tflite",
        "exports.json",
    }
    for name, result in results.items():
        assert not result.rejected and result.path == run.exports / f"{name}.tflite"
        card = ModelFile.read(result.path).card
        assert card is not None
        assert (card.variant, card.labels, card.input) == (name, LABELS, run.recipe)
        assert card.temperature == 1.25
        assert card.provenance["data_fingerprint"] == run.split().fingerprint
        assert card.measured["validation"]["photos"] == 10
        assert card.measured["validation"]["accuracy"] == result.validation.accuracy
        assert "litert" in card.measured["validation"]["runtime"]


def test_the_written_file_scores_what_was_told(done, photos):
    run, results, _ = done
    rows = [row for row in run.split().rows if row.part == "val"]
    classifier = Classifier(results["int8"].path)
    right = [classifier.classify(r.photo.path).label == r.photo.label for r in rows]
    assert np.mean(right) == results["int8"].validation.accuracy == 1.0


def test_calibration_photos_are_from_train_only(done):
    run, _, _ = done
    with (run.folder / "calibration.csv").open(newline="") as file:
        used = {row["sha256"] for row in csv.DictReader(file)}
    parts = {row.sha256: row.part for row in run.split().rows}
    assert len(used) == 20 and {parts[digest] for digest in used} == {"train"}


def test_exports_are_not_overwritten_unasked(done):
    run, results, _ = done
    before = results["int8"].path.read_bytes()
    with pytest.raises(EdgegraftError, match="--overwrite"):
        export(run, ["int8"])
    assert results["int8"].path.read_bytes() == before


def test_each_label_has_a_calibration_photo_however_few_are_asked_for(
    trained, tmp_path, capsys
):
    """With more labels than photos asked for, too: 200 unless one says otherwise."""
    run = copied(trained, tmp_path)
    made = export(run, "int8", calibration_count=1, repair=False, console=Console())
    path = made["int8"].path
    labels = len(run.labels)
    said = f"calibrating with {labels} photos, one of each label, not with 1"
    assert said in capsys.readouterr().out
    assert ModelFile.read(path).card.provenance["calibration_photos"] == labels


def test_exporting_again_gives_the_same_bytes(trained, tmp_path):
    run = copied(trained, tmp_path)
    first = export(run, ["int8"], calibration_count=8)["int8"].path.read_bytes()
    second = export(run, ["int8"], calibration_count=8, overwrite=True)
    assert second["int8"].path.read_bytes() == first
    assert not (run.exports / "float32.tflite").exists()  # measured, not asked for


@pytest.fixture(scope="module")
def fragile(tmp_path_factory, photos):
    """A run whose int8 file cannot hold what float32 can: the gate must catch it.

    Both logits share a large part that the softmax cancels; with eight bits over
    their range, one step is more than the difference that decides.
    """
    folder = tmp_path_factory.mktemp("fragile") / "colours"
    return write_run(folder, photos, colour_network(common=-20_000.0))


def test_an_int8_file_that_loses_too_much_is_rejected(fragile, capsys):
    (fragile.exports).mkdir()
    (fragile.exports / "int8.tflite").write_bytes(b"an older export")
    command = [str(fragile.folder), "--overwrite", "--no-ladder"]
    code = main(command, "edgegraft quantize")
    output = capsys.readouterr().out
    assert code == EXIT_REJECTED == 3
    assert "rejected: " in output and "int8.rejected.tflite" in output
    assert {path.name for path in fragile.exports.iterdir()} == {
        "float32.tflite",
        "int8.rejected.tflite",
        "exports.json",
    }
    record = json.loads((fragile.exports / "exports.json").read_text())
    assert record["int8"]["rejected"] and record["int8"]["drop"] > 0.1
    assert not record["float32"]["rejected"]
    paths = exported(fragile)
    assert [path.name for path in paths] == ["float32.tflite", "int8.rejected.tflite"]


def _answers(confidence, labels):
    table = np.zeros((len(labels), 3), np.float32)
    table[np.arange(len(labels)), labels] = confidence
    table[np.arange(len(labels)), (np.array(labels) + 1) % 3] += 1 - np.array(
        confidence
    )
    return table


def test_views_count_for_agreement_and_training_photos_for_labels_only():
    """Ten validation photos, ninety training photos, thirty views."""
    confidence = np.full(130, 0.52)
    labels = np.zeros(130, np.int64)
    float32 = _answers(confidence, labels)
    file = float32.copy()
    changed = [0, 1, 100, 101]  # two photos of validation, two views
    file[changed] = _answers([0.48] * 4, [0] * 4)
    file[50] = _answers([0.1], [0])[0]  # one training photo
    found = fidelity(float32, file, labels[:100], 10, ("a", "b", "c"))
    assert found.agreement == pytest.approx(1 - 4 / 40) and found.photos == 40
    assert found.drop == pytest.approx(4 / 40) and found.lost_labels == ()
    assert found.shift == pytest.approx(0.04 * 4 / 40, abs=1e-6)
    file[50:60] = _answers([0.1] * 10, [0] * 10)
    assert fidelity(float32, file, labels[:100], 10, "abc").lost_labels == ("a",)


def test_a_drop_rejects_once_it_is_shown_to_be_over_what_is_allowed():
    """40 photos with 4 views each; a photo that changes does so in all its views."""
    labels = np.zeros(200, np.int64)
    float32 = _answers(np.full(200, 0.9), labels)
    changed = np.flatnonzero(np.isin(np.arange(200) % 40, [3, 7]))
    file = float32.copy()
    file[changed] = _answers([0.1] * len(changed), [0] * len(changed))
    two = fidelity(float32, file, labels[:40], 40, ("a", "b", "c"))
    assert two.drop == pytest.approx(2 / 40)
    error = np.std([1] * 2 + [0] * 38, ddof=1) / 40**0.5
    assert two.drop_low == pytest.approx(2 / 40 - 1.645 * error)
    assert two.drop_low < 0 and not Gate(max_drop=0.0).why_rejected(two)
    again = np.flatnonzero(np.arange(200) % 40 < 10)
    file[again] = _answers([0.1] * len(again), [0] * len(again))
    ten = fidelity(float32, file, labels[:40], 40, ("a", "b", "c"))
    ten = replace(ten, lost_labels=())
    assert "loses 25.0 points" in Gate(max_drop=0.1).why_rejected(ten)
    assert not Gate(max_drop=0.2).why_rejected(ten)


def test_views_are_crops_of_the_photos_in_turn_some_mirrored():
    dark, wide = np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)
    wide[:, 6:] = 255
    found = views(np.stack([dark, wide]), 20, seed=1)
    assert found.shape == (20, 8, 12, 3) and not found[::2].any()
    bright_left = found[1::2, :, :6].mean(axis=(1, 2, 3)) > 127
    assert 0 < bright_left.sum() < 10
    np.testing.assert_array_equal(found, views(np.stack([dark, wide]), 20, seed=1))


@pytest.mark.parametrize(("changed", "lost"), [(3, ()), (8, ("b",))])
def test_a_label_is_lost_when_chance_does_not_explain_it(changed, lost):
    truth = np.repeat([0, 1, 2], [400, 20, 400])
    float32 = _answers(np.full(820, 0.9), truth)
    file = float32.copy()
    file[400 : 400 + changed] = _answers([0.9] * changed, [2] * changed)
    found = fidelity(float32, file, truth, 820, ("a", "b", "c"))
    assert found.lost_labels == lost and found.drop < 0.01
    assert bool(Gate().why_rejected(found)) == bool(lost)
    assert Gate().reached(found) == (not lost)


@pytest.mark.parametrize(("right", "lost"), [(2, ()), (3, ("rare",))])
def test_a_rare_label_is_lost_with_its_last_photo_however_many_others_there_are(
    right, lost
):
    """Three photos of a label of fifty: no test of them could be significant."""
    truth = np.r_[np.repeat(np.arange(49), 20), [49] * 3]
    labels = (*map(str, range(49)), "rare")
    float32 = np.eye(50, dtype=np.float32)[truth]
    float32[980 : 983 - right] = np.eye(50, dtype=np.float32)[0]
    file = float32.copy()
    file[-3:] = np.eye(50, dtype=np.float32)[0]
    found = fidelity(float32, file, truth, len(truth), labels)
    assert found.lost_labels == lost and found.agreement > 0.99
    assert bool(Gate().why_rejected(found)) == bool(lost)


def test_pixels_decoded_earlier_are_found_by_content(trained, photos, tmp_path):
    """`build` has them under the paths that the user typed, the run under others."""
    from data import batches
    from data.source import scan

    link = tmp_path / "same"
    link.symlink_to(photos)
    run = copied(trained, tmp_path)
    with batches.load(scan(link).photos, run.recipe) as pixels:
        results = export(run, calibration_count=8, repair=False, pixels=pixels)
    assert results["float32"].validation.accuracy == 1.0


def test_changed_and_missing_photos_are_named(trained, photos, tmp_path):
    own = tmp_path / "photos"
    shutil.copytree(photos, own)
    run = write_run(tmp_path / "run", own, colour_network())
    victim = next(r.photo.path for r in run.split().rows if r.part == "val")
    Image.new("RGB", (24, 24), "white").save(victim)
    with pytest.raises(EdgegraftError, match="sha256 differs"):
        export(run)
    victim.unlink()
    with pytest.raises(EdgegraftError, match=victim.name):
        export(run)
    assert not run.exports.exists()


def test_copies_and_blank_photos_do_not_calibrate(tmp_path, capsys):
    own = write_photos(tmp_path / "photos")
    for label in LABELS:  # twice the same bytes, the same pixels, and nothing at all
        for photo in sorted((own / label).glob("*.png"))[:8]:
            shutil.copy(photo, own / label / f"again-{photo.name}")
            Image.open(photo).save(own / label / f"saved-{photo.stem}.bmp")
        shade = 40 if label == "red" else 90
        for number in range(4):
            colour = (shade + number,) * 3
            Image.new("RGB", (24, 24), colour).save(own / label / f"plain{number}.png")
    run = write_run(tmp_path / "run", own, colour_network())
    assert main([str(run.folder), "--no-ladder"], "edgegraft quantize") == 0
    output = capsys.readouterr().out
    assert (
        "refused for calibration: " in output and "listed in calibration.csv" in output
    )
    with (run.folder / "calibration.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    used = [row for row in rows if not row["refused"]]
    assert len({row["sha256"] for row in used}) == len(used) > 10
    assert not any("plain" in row["path"] for row in used)
    train = [row for row in run.split().rows if row.part == "train"]
    assert len(rows) == len(train)  # each is listed: with 200 wanted all are looked at
    reasons = {row["path"]: row["refused"] for row in rows if row["refused"]}
    assert {why for path, why in reasons.items() if "plain" in path} == {
        "of one colour"
    }
    for end in ("byte for byte", "pixel for pixel"):
        assert any(why.endswith(end) for why in reasons.values()), end
    card = ModelFile.read(run.exports / "int8.tflite").card
    assert card is not None and card.provenance["calibration_photos"] == len(used)


def test_blank_photos_calibrate_nothing(tmp_path, capsys):
    for number in range(10):
        for label in LABELS:
            path = tmp_path / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 10 * number + (5 if label == "red" else 0)
            Image.new("RGB", (24, 24), (shade, shade, shade)).save(path)
    run = write_run(tmp_path / "run", tmp_path / "photos", colour_network())
    assert main([str(run.folder)], "edgegraft quantize") == 2
    output = capsys.readouterr().err
    assert "of one colour)" in output and output.count("\n") == 1
    assert not run.exports.exists()


# -- compare --------------------------------------------------------------------


def test_comparison_is_written_whole(done):
    run, _, comparison = done
    record = json.loads((run.folder / "comparison.json").read_text())
    assert [file["variant"] for file in record["files"]] == ["float32", "int8"]
    assert record["host"]["cores"] >= 1 and "interleaved" in record["method"]
    for file in record["files"]:
        assert file["photos"] == 10
        assert file["accuracy_low"] < file["accuracy"] <= file["accuracy_high"] == 1
        (timing,) = file["timings"]
        assert 0 < timing["p50_ms"] <= timing["p95_ms"]
        assert timing["load_ms"] > 0 and timing["first_ms"] > 0
        assert 10 < timing["peak_memory_mb"] < 500
        assert timing["threads"] == 1 and timing["runtime"].startswith("litert ")
        assert timing["host"] == record["host"]["board"]
        assert file["size_bytes"] == (run.exports / file["file"]).stat().st_size
    assert (record["files"][0]["agreement"], record["files"][0]["drop"]) == (None, None)
    assert (record["files"][1]["agreement"], record["files"][1]["drop"]) == (1.0, 0.0)
    with (run.folder / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["float32", "int8"]
    assert float(rows[1]["accuracy"]) == comparison.files[1].evaluation.accuracy
    with Image.open(run.folder / "comparison.png") as picture:
        assert picture.format == "PNG" and picture.width > 800


def test_test_figures_go_into_the_cards(done):
    comparison = done[2]
    for measured in comparison.files:
        card = ModelFile.read(measured.path).card
        assert card is not None
        assert card.measured["test"]["accuracy"] == measured.evaluation.accuracy
        assert card.measured["test"]["photos"] == 10
        assert "validation" in card.measured  # still there
        Classifier(measured.path)


def test_the_tables_have_a_line_for_each_file(done):
    lines = text.details(done[2])
    assert lines[0].startswith("file     balanced accuracy")
    assert lines[2].startswith("float32 ") and lines[3].startswith("int8 ")
    assert "10 test photos on litert" in lines[4]
    assert lines[6].split()[:3] == ["file", "target", "reached"]
    assert lines[8].split()[:4] == ["int8", "99%", "100.0%", "reached"]
    assert "on validation photos" in lines[9]
    assert lines[11].split()[:2] == ["file", "MB"]
    assert lines[16].split()[:4] == ["file", "load", "ms", "first"]
    assert lines[18].startswith("float32 ") and lines[19].startswith("int8 ")
    assert lines[20].startswith("on ") and lines[20].endswith("1 thread")


@white_diagrams()
def test_compare_command_prints_one_json_document(done, tmp_path, capsys):
    run = copied(done[0], tmp_path)
    code = compare_main([str(run.folder), "--json", "--rounds", "1", "--runs", "2"])
    record = json.loads(capsys.readouterr().out)
    assert code == 0 and len(record["files"]) == 2


@white_diagrams()
def test_files_that_stay_from_before_are_named(trained, tmp_path, capsys):
    run = copied(trained, tmp_path)
    quick = [str(run.folder), "--calibration", "8", "--no-ladder"]
    assert main([*quick, "--variants", "float32,dynamic"]) == 0
    capsys.readouterr()
    again = [*quick, "--variants", "int8", "--max-drop", "100", "--overwrite"]
    assert main([*again, "--target", "edgetpu"]) == 0
    output = capsys.readouterr().out
    refused = "(edgetpu refuses it)"
    assert (
        f"older exports kept: dynamic.tflite {refused}, float32.tflite {refused}"
        in output
    )
    assert (run.exports / "dynamic.tflite").exists()
    record = json.loads((run.exports / "exports.json").read_text())
    assert set(record) == {"float32", "dynamic", "int8"}  # of every file still there
    found = compare(Run.open(run.folder), QUICK)
    assert {f.title for f in found.files if f.rejected} == {"dynamic", "float32"}
    assert {f.title for f in found.files if f.export} == {"dynamic", "int8"}
    assert found.choice.file.title == "int8"


@white_diagrams()
def test_the_report_says_what_each_file_reached_and_by_which_repair(trained, tmp_path):
    run = copied(trained, tmp_path)
    result = export(run, calibration_count=8)["int8"]
    seconds = sum(rung.seconds for rung in result.rungs)
    comparison = compare(Run.open(run.folder), QUICK)
    float32, int8 = comparison.files
    assert float32.export == {}  # the others are compared with it
    assert int8.export["target_agreement"] == 0.99
    assert int8.export["new_agreement"] == result.fidelity.agreement
    assert (int8.export["verdict"], int8.export["repair"]) == ("reached", result.rung)
    assert int8.export["repair_seconds"] == pytest.approx(seconds, abs=0.2)
    agreement = f"{result.fidelity.agreement:.1%}"
    page = (run.folder / "comparison.html").read_text()
    card = (run.folder / "README.md").read_text()
    lines = "\n".join(text.details(comparison))
    for shown in (page, card, lines):
        assert "99%" in shown and agreement in shown and result.rung in shown
    written = json.loads((run.folder / "comparison.json").read_text())
    assert written["files"][1]["repair"] == result.rung
    # of another file, or damaged
    records = json.loads((run.exports / "exports.json").read_text())
    records["int8"]["model_sha256"] = "0" * 64
    run.write_json("exports/exports.json", records)
    assert not any(f.export for f in compare(Run.open(run.folder), QUICK).files)
    run.write_json("exports/exports.json", {"int8": {"fidelity": {"shift": "much"}}})
    damaged = compare(Run.open(run.folder), QUICK)
    assert not any(f.export for f in damaged.files)
    assert "exports.json: int8: fidelity: shift: expected a share" in "\n".join(
        damaged.warnings
    )


def test_comparing_needs_no_tensorflow():
    """It runs on files: a machine that only compares should not wait for training."""
    code = (
        "import sys, quantize.comparison.compare, quantize.reporting.text, "
        "quantize.cli;"
        "sys.exit('tensorflow' in sys.modules or 'tf_keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0
