"""Familiarity: the second output, from features to the answer `unknown` of a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.classifier import UNKNOWN, Classifier
from edge.errors import EdgegraftError
from edge.evaluate import auroc
from edge.model_file import ModelFile
from finetune import familiarity
from finetune.console import Console
from finetune.run import Run
from finetune.settings import Settings
from quantize.conversion import scoring
from quantize.export import export
from quantize.recipes import VARIANTS
from quantize.reporting import model_card
from quantize.tflite import flatbuffer, metadata
from tests import quantize_room as room
from tests.finetune_helpers import finetune

pytestmark = pytest.mark.slow  # networks are trained or converted

DIMENSIONS = 32


def features(count: int, seed: int, *, around: int = 0) -> np.ndarray:
    """float32 [count, D] round one of two directions; `around` 1 is elsewhere."""
    random = np.random.default_rng(seed)
    middles = np.random.default_rng([5, around]).random((2, DIMENSIONS))
    found = middles[np.arange(count) % 2] + random.normal(0, 0.25, (count, DIMENSIONS))
    return (np.maximum(found, 0) * random.uniform(1, 20, (count, 1))).astype(np.float32)


def fitted(count: int, val: int, **more: object) -> familiarity.Familiarity:
    truth = np.arange(count) % 2
    return familiarity.fit(features(count, 0), truth, features(val, 1), **more)


def test_the_threshold_passes_95_percent_and_others_are_refused():
    found = fitted(600, 200)
    passed = (found.val_scores >= familiarity.LIMIT - 1e-5).mean()
    assert passed == pytest.approx(0.95, abs=0.0051)  # one photo
    fresh, strange = (
        found.scores(features(1000, 2)),
        found.scores(features(1000, 3, around=1)),
    )
    assert (fresh >= familiarity.LIMIT).mean() == pytest.approx(0.95, abs=0.03)
    assert (strange < familiarity.LIMIT).mean() > 0.95
    assert auroc(fresh, strange) > 0.98
    assert fresh.max() == pytest.approx(1.0, abs=0.1) and strange.min() == 0


def test_length_of_features_does_not_matter():
    found = fitted(100, 40)
    some = features(20, 4)
    np.testing.assert_allclose(found.scores(some), found.scores(some * 7), atol=1e-5)


def test_few_photos_are_their_own_prototypes_and_still_pass():
    found = fitted(20, 4)  # four validation photos alone cannot say what 5 % is
    assert found.kernel.shape == (DIMENSIONS, 20)
    fresh = found.scores(features(1000, 2))
    assert (fresh >= familiarity.LIMIT).mean() > 0.85


def test_every_label_has_prototypes_however_rare_it_is():
    truth = np.array([0] * 500 + [1] * 3)
    found = familiarity.prototypes(features(503, 0), truth, seed=0)
    assert len(found) == 64 + 3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_negatives_teach_what_is_not_wanted():
    near = features(300, 0) + 0.2 * features(300, 6, around=1)  # hard to tell
    plain, taught = fitted(600, 200), fitted(600, 200, negatives=near[:150])
    known, unlike = features(1000, 2), near[150:]  # neither was seen
    before = auroc(plain.scores(known), plain.scores(unlike))
    after = auroc(taught.scores(known), taught.scores(unlike))
    assert before < 0.9 and after > before + 0.1
    assert (taught.scores(known) >= familiarity.LIMIT).mean() > 0.9


def test_negatives_that_show_the_labels_are_refused():
    with pytest.raises(EdgegraftError, match="remove those that show a label"):
        wide = features(600, 0)
        familiarity.fit(
            wide, np.arange(600) % 2, features(200, 1), negatives=wide[:5] * 3
        )


def test_a_file_that_rounds_has_a_threshold_of_its_own():
    found = fitted(600, 200)
    coarse = np.floor(found.val_scores * 10) / 10
    assert (coarse >= found.threshold_for(coarse)).mean() >= 0.95
    few = fitted(600, 40)
    moved = few.val_scores + np.float32(0.03)
    assert few.threshold_for(moved) == pytest.approx(0.53, abs=1e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Run:
    """A run with familiarity, in every variant."""
    folder = tmp_path_factory.mktemp("familiar")
    photos = room.write_photos(folder / "photos", 40)
    network = room.colour_network()
    run = room.write_run(folder / "run", photos, network)
    from backbones.network import feature_model
    from finetune.model import compute_outputs

    seen = {}
    for part in ("train", "val"):
        with scoring.decode(
            run, scoring.rows_of(run, part), Console(quiet=True)
        ) as pixels:
            array = pixels.of(run.part(part))
        seen[part] = compute_outputs(feature_model(network), array, range(len(array)))
    truth = [run.labels.index(photo.label) for photo in run.part("train")]
    familiarity.save(run, familiarity.fit(seen["train"], np.array(truth), seen["val"]))
    export(run, tuple(VARIANTS))
    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_it_and_refuses_what_it_was_not_shown(exported, variant):
    model = (exported.exports / f"{variant}.tflite").read_bytes()
    classifier = Classifier(model)
    known = classifier.run(room.pixels(60, seed=9))
    strange = np.full((1, room.SIZE, room.SIZE, 3), (0, 255, 0), np.uint8)
    assert classifier.predict(strange[0]).label == UNKNOWN
    # the toy's eight features hardly differ, which is hard on eight bits
    assert auroc(known["familiarity"], classifier.run(strange)["familiarity"]) > 0.9
    limit = ModelFile.read(model).card.familiarity_threshold
    assert limit == pytest.approx(0.5, abs=0.3)
    assert (known["familiarity"] >= limit).mean() > 0.75
    card = ModelFile.read(model).card
    assert card.familiarity_threshold_unsmoothed == pytest.approx(limit, abs=0.2)
    labels = [classifier.labels[row.argmax()] for row in known["probabilities"]]
    assert labels == ["blue", "red"] * 30


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_the_probabilities_are_the_first_output_others_meet(exported, variant):
    model = (exported.exports / f"{variant}.tflite").read_bytes()
    tree = flatbuffer.parse(metadata.split(model)[0])
    graph = tree.subgraphs[0]
    names = [flatbuffer.text(graph.tensors[place].name) for place in graph.outputs]
    assert names == ["probabilities", "familiarity"]
    assert ModelFile.read(model).card.outputs == {name: name for name in names}


def photos_of(folder: Path, colours: dict[str, tuple[int, int, int]]) -> Path:
    random = np.random.default_rng(0)
    for label, colour in colours.items():
        (folder / label).mkdir(parents=True)
        for number in range(12):
            photo = random.integers(0, 170, (20, 20, 3)) + np.array(colour)
            path = folder / label / f"{number}.png"
            Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(path)
    return folder


TINY = Settings(
    backbone="custom_cnn",
    size=16,
    weights="none",
    cnn={"filters": [4, 8], "dropout": 0.0},
    epochs=1,
    batch=8,
)


def test_finetune_leaves_it_by_default_and_not_with_none(tmp_path):
    from dataclasses import replace

    photos = photos_of(tmp_path / "photos", {"a": (60, 0, 0), "b": (0, 0, 60)})
    aside = photos_of(tmp_path / "aside", {"x": (0, 85, 0)})
    console, said = Console(json=True), []
    console.stage = lambda line, **_: said.append(line)
    taught = replace(TINY, negatives=str(aside))
    run, prepared, model = finetune(photos, taught, tmp_path / "with", console)
    count = len(list(aside.rglob("*.png")))
    assert f"negatives: {count} photos of {aside}" in said
    assert f"- negatives: {count} photos" in model_card._training(run)
    prepared.pixels.close()
    assert familiarity.load(run).kernel.shape[0] == 8
    assert json.loads((run.folder / "run.json").read_text())["settings"][
        "negatives"
    ] == str(aside)
    assert (
        familiarity.negatives_of(run) == set(familiarity.photo_digests(aside)) != set()
    )
    none = replace(TINY, familiarity="none")
    run, prepared, model = finetune(photos, none, tmp_path / "without", console)
    with prepared.pixels as pixels:
        results = export(run, ("float32",), model=model, pixels=pixels)
    assert familiarity.load(run) is None
    card = ModelFile.read(results["float32"].path).card
    assert card.familiarity_threshold is None and "familiarity" not in card.outputs


def test_bad_input(tmp_path, exported):
    with pytest.raises(EdgegraftError, match="a folder of photos, got"):
        familiarity.refuse_missing_negatives(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgegraftError, match="photo"):
        familiarity.load_negatives(
            str(tmp_path / "empty"), TINY.recipe, Console(json=True)
        )
    with pytest.raises(EdgegraftError, match="no --negatives with --familiarity none"):
        Settings(familiarity="none", negatives="x")
    run = Run(tmp_path, {})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "familiarity.npz").write_bytes(b"no")
    with pytest.raises(EdgegraftError, match="damaged file"):
        familiarity.load(run)
