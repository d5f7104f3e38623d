"""A card goes through JSON and a model file unchanged; a wrong one is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edge.card import ModelCard, check_digest, read_card, read_labels
from edge.errors import ModelError
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
    model = with_files(network(), card_json=full_card().to_json())
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    assert read_card(model) == read_card(path) == read_card(str(path)) == full_card()


def test_files_without_a_card() -> None:
    assert read_card(network()) is None
    assert read_labels(network()) is None
    other = with_files(network(), labels_txt="red\ngreen\nblue\n")
    assert read_card(other) is None
    assert read_labels(other) == LABELS
    assert read_labels(with_files(network(), labels_txt="rot\r\ngrün\r\n")) == (
        "rot",
        "grün",
    )


def test_unknown_keys_are_left_out() -> None:
    record = json.loads(full_card().to_json())
    record["later_addition"] = 1
    assert ModelCard.from_json(json.dumps(record)) == full_card()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "expected schema 1 to 1, got 2.*update"),
        ({"schema": "1"}, "expected schema"),
        ({"schema": True}, "expected schema"),
        ({"labels": None}, "labels to be a list"),
        ({"labels": [1, 2]}, "labels to be a list"),
        ({"labels": ["one"]}, "two or more different labels"),
        ({"labels": ["one", "one"]}, "two or more different labels"),
        ({"input": None}, "expected an object with width and height"),
        ({"input": {"width": 3, "height": 0}}, "width and height from 1"),
        ({"outputs": {"familiarity": "f"}}, "name probabilities"),
        ({"outputs": []}, "expected outputs to be an object"),
        ({"temperature": "hot"}, "temperature to be a number"),
        ({"temperature": None}, "temperature to be a number"),
        ({"familiarity_threshold": [1]}, "familiarity_threshold to be a number"),
    ],
)
def test_wrong_cards_are_refused(change: dict[str, object], message: str) -> None:
    record = json.loads(full_card().to_json()) | change
    with pytest.raises(ModelError, match=message) as caught:
        ModelCard.from_json(json.dumps(record))
    assert str(caught.value).startswith("model card: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe\x00"])
def test_what_is_no_card_is_refused(text: str | bytes) -> None:
    with pytest.raises(ModelError, match="model card: expected"):
        ModelCard.from_json(text)


def test_a_damaged_zip_is_told() -> None:
    model = bytearray(with_card(network()))
    model[model.index(b'"labels"')] ^= 0xFF
    with pytest.raises(ModelError, match=r"damaged card\.json.*again"):
        read_card(bytes(model))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read_card(tmp_path / "none.tflite")


def test_the_digest_is_of_the_part_before_the_zip() -> None:
    flat = network()
    digest = hashlib.sha256(flat).hexdigest()
    model = with_card(flat, model_sha256=digest)
    check_digest(model, card(model_sha256=digest), "m")
    check_digest(flat, card(), "m")  # a card without a digest promises nothing
    flipped = bytes([*model[:100], model[100] ^ 1, *model[101:]])
    with pytest.raises(ModelError, match=r"m: damaged model, its digest is .*again"):
        check_digest(flipped, card(model_sha256=digest), "m")
