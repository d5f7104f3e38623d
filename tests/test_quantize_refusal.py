"""Photos that show none of the labels: counted, kept, and never those it was taught."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import edgegraft
from edge.evaluate import Refusal, score
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from finetune.console import Console
from finetune.familiarity import write_negatives
from finetune.run import Run
from quantize.cli import compare_main
from quantize.comparison.compare import compare
from quantize.comparison.inputs import UnknownPhotos
from quantize.comparison.records import refusal_figures
from quantize.conversion import scoring
from quantize.reporting import text
from quantize.tflite import metadata
from tests import edge_models
from tests.quantize_room import LABELS, QUICK, white_diagrams, write_exported

pytest.importorskip("tensorflow", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'train'")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return write_exported(tmp_path_factory.mktemp("compared"))


def test_refusals_are_counted_by_the_files_threshold(first, tmp_path):
    """A network that is familiar with white, not with black."""
    folder = tmp_path / "unknown"
    folder.mkdir()
    for name, shade in (("white.png", 255), ("black.png", 0), ("dark.png", 9)):
        Image.new("RGB", (24, 24), (shade, shade, shade)).save(folder / name)
    unknown_photos = UnknownPhotos(folder, (), Console(quiet=True))
    outputs = {"probabilities": "probabilities", "familiarity": "familiarity"}
    model = edge_models.with_card(
        edge_models.network(familiarity=True),  # the brightest channel's mean
        outputs=outputs,
        familiarity_threshold=100.0,
    )
    answers = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    evaluation = score(answers, np.zeros(4), LABELS)
    familiarity = np.array([190, 40, 180, 10], np.float32)
    scored = scoring.Scored(evaluation, "litert", InputRecipe(24, 24), familiarity)
    found = unknown_photos.refusal(ModelFile(model), scored, "auto")
    # white looks more familiar than all four, black and dark than none: 8 of 12 pairs
    assert found == Refusal(3, 2, known=4, known_refused=2, auroc=8 / 12, threshold=100)
    assert (found.share, found.known_share) == (2 / 3, 1 / 2)
    plain = scoring.Scored(evaluation, "litert", InputRecipe(24, 24))
    int8 = ModelFile.read(first.exports / "int8.tflite")
    never = unknown_photos.refusal(int8, plain, "auto")
    assert (never.refused, never.known_refused) == (0, 0)  # it cannot refuse
    unknown_photos.close()


def test_unknown_photos_are_not_the_runs(first, tmp_path, capsys):
    photo = next(iter(first.split().rows)).photo.path
    (tmp_path / "unknown").mkdir()
    shutil.copy(photo, tmp_path / "unknown" / "copy.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no photo")
    for folder, words in (
        ("unknown", "expected photos that are not the run's"),
        ("empty", "empty"),
        ("broken", "a.jpg"),
        ("nowhere", "expected a folder of photos that show none"),
    ):
        code = compare_main(
            [str(first.folder), "--unknown", str(tmp_path / folder), "--rounds", "1"]
        )
        told = capsys.readouterr().err
        assert code == 2 and words in told and told.count("\n") == 1, told


def test_photos_it_was_taught_with_measure_nothing(first, tmp_path, capsys):
    for name, shade in (("a.png", 3), ("b.png", 90)):
        (tmp_path / name[0]).mkdir()
        Image.new("RGB", (24, 24), (shade, 0, 9)).save(tmp_path / name[0] / name)
    taught = Run.open(shutil.copytree(first.folder, tmp_path / "taught"))
    write_negatives(taught, str(tmp_path / "a"))
    shutil.copy(tmp_path / "a" / "a.png", tmp_path / "b" / "same.png")
    words = ["--unknown", str(tmp_path / "b"), "--rounds", "1"]
    assert compare_main([str(taught.folder), *words]) == 2
    told = capsys.readouterr().err
    assert "same.png, which is among its --negatives (1 of 2 are)" in told, told
    assert told.count("\n") == 1
    # as the second of several runs, too
    assert compare_main([str(first.folder), str(taught.folder), *words]) == 2
    assert "same.png" in capsys.readouterr().err
    assert not (taught.folder / "comparison.json").exists()
    # and before any training
    options = ["--negatives", str(tmp_path / "a"), "--artifacts", str(tmp_path / "no")]
    photos = str(first.photos_root)
    assert edgegraft.main(["build", photos, *options, *words[:2]]) == 2
    assert "among its --negatives" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_wrong_unknown_folder_is_told_before_any_training(first, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    for name in ("nowhere", "empty", "file"):
        told = ["--unknown", str(tmp_path / name), "--artifacts", str(tmp_path / "no")]
        assert edgegraft.main(["build", str(first.photos_root), *told]) == 2
        err = capsys.readouterr().err
        assert name in err and err.count("\n") == 1, err
    assert not (tmp_path / "no").exists()


@white_diagrams()
def test_a_later_comparison_keeps_what_was_found_of_unknown_photos(first, tmp_path):
    run = Run.open(shutil.copytree(first.folder, tmp_path / "run"))
    found = compare(run, QUICK)
    assert all(file.refusal is None for file in found.files)
    path = run.exports / "int8.tflite"
    flat, card = metadata.split(path.read_bytes())[0], ModelFile.read(path).card
    assert card is not None
    measured = refusal_figures(Refusal(60, 59, known=10, known_refused=1, auroc=0.97))
    card = replace(
        card,
        familiarity_threshold=0.5,
        measured={**card.measured, "unknown": measured},
    )
    path.write_bytes(metadata.embed(flat, card))
    found = compare(run, QUICK)
    before, after = found.files
    assert before.refusal is None and after.refusal is not None
    assert (after.refusal.photos, after.refusal.refused) == (60, 59)
    assert after.refusal.known_refused == 1 and after.refusal.auroc == 0.97
    assert ModelFile.read(path).card.measured["unknown"] == measured
    assert "98.3%" in (run.folder / "README.md").read_text()
    lines = text.details(found)
    assert "refuses unknown" in lines[0] and "98.3%" in lines[3]
