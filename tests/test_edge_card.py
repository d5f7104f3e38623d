"""A card goes through JSON and a model file unchanged; a wrong one is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.card import ModelCard
from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from tests.edge_models import LABELS, card, network, with_card, with_files


def full_card() -> ModelCard:
    return ModelCard(
        labels=("cat", "dog", "Ärger, mit Komma"),
        input=InputRecipe(160, 120, "crop", "lanczos"),
        variant="int8",
        outputs={"probabilities": "p", "familiarity": "f"},
        name="pets",
        temperature=1.25,
        familiarity_threshold=0.5,
        provenance={"run": "a", "seed": 3, "versions": {"numpy": "2"}},
        measured={"test": {"accuracy": 0.9, "interval": [0.8, 0.95], "photos": 100}},
        model_sha256="00ff",
    )


def test_json_round_trip() -> None:
    assert ModelCard.from_json(full_card().to_json()) == full_card()


def test_a_card_is_read_from_path_and_bytes(tmp_path: Path) -> None:
    digest = hashlib.sha256(network()).hexdigest()
    whole = replace(full_card(), model_sha256=digest)
    model = with_files(network(), card_json=whole.to_json())
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    for source in (model, path, str(path)):
        assert ModelFile.read(source).card == whole


def test_files_without_a_card() -> None:
    assert ModelFile.read(network()).card is None
    assert ModelFile.read(network()).labels is None
    other = with_files(network(), labels_txt="red\ngreen\nblue\n")
    assert ModelFile.read(other).card is None
    assert ModelFile.read(other).labels == LABELS
    windows = with_files(network(), labels_txt="rot\r\ngrün\r\n")
    assert ModelFile.read(windows).labels == ("rot", "grün")


def test_unknown_keys_are_left_out() -> None:
    record = json.loads(full_card().to_json())
    record["later_addition"] = 1
    assert ModelCard.from_json(json.dumps(record)) == full_card()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "expected schema 1 to 2, got 3.*update"),
        ({"schema": "1"}, "expected schema"),
        ({"schema": True}, "expected schema"),
        ({"labels": None}, "labels: expected a list"),
        ({"labels": [1, 2]}, r"labels\[0\]: expected text, got 1"),
        ({"labels": ["cat", "\ud800"]}, "labels: expected Unicode text"),
        ({"labels": ["one"]}, "two or more different labels"),
        ({"labels": ["one", "one"]}, "two or more different labels"),
        ({"input": None}, "expected an object with width and height"),
        ({"input": {"width": 3, "height": 0}}, "width and height from 1"),
        ({"outputs": {"familiarity": "f"}}, "name probabilities"),
        ({"outputs": []}, "outputs: expected an object"),
        ({"outputs": {"probabilities": {}}}, "outputs: probabilities: expected text"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"temperature": 10**400}, "temperature: expected a number"),
        ({"familiarity_threshold": [1]}, "familiarity_threshold: expected a number"),
        (
            {"measured": {"test": {"accuracy": 0.5, "interval": [0.1]}}},
            "measured: test: interval: expected two shares",
        ),
    ],
)
def test_wrong_cards_are_refused(change: dict[str, object], message: str) -> None:
    record = json.loads(full_card().to_json()) | change
    with pytest.raises(ModelError, match=message) as caught:
        ModelCard.from_json(json.dumps(record))
    assert str(caught.value).startswith("model card: ")


def test_null_counts_as_absent() -> None:
    record = json.loads(full_card().to_json())
    figures = {"accuracy": None, "photos": 9}
    record |= {"temperature": None, "measured": {"test": figures, "val": None}}
    card = ModelCard.from_json(json.dumps(record))
    assert card.measured == {"test": {"photos": 9}}
    assert card.temperature == 1.0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe\x00"])
def test_what_is_no_card_is_refused(text: str | bytes) -> None:
    with pytest.raises(ModelError, match="model card: expected"):
        ModelCard.from_json(text)


def test_a_damaged_zip_is_told() -> None:
    model = bytearray(with_card(network()))
    model[model.index(b'"labels"')] ^= 0xFF
    with pytest.raises(ModelError, match=r"damaged card\.json.*again"):
        _ = ModelFile.read(bytes(model)).card


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        ModelFile.read(tmp_path / "none.tflite")


def test_the_digest_is_of_the_part_before_the_zip() -> None:
    flat = network()
    digest = hashlib.sha256(flat).hexdigest()
    model = with_card(flat, model_sha256=digest)
    file = ModelFile(model, "m")
    assert file.flatbuffer == flat and file.digest == digest
    assert file.card == card(model_sha256=digest)
    assert ModelFile(with_card(flat)).card == card()  # promises nothing
    flipped = bytes([*model[:100], model[100] ^ 1, *model[101:]])
    with pytest.raises(ModelError, match=r"m: the network is not the one .*again"):
        _ = ModelFile(flipped, "m").card
