"""The card inside a model file: written, read, replaced, taken out."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from edge.card import ModelCard
from edge.classifier import Classifier
from edge.errors import ModelError
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from quantize.tflite import flatbuffer, metadata
from tests import edge_models
from tests.quantize_room import pixels

LABELS = edge_models.LABELS
RECIPE = InputRecipe(edge_models.SIDE, edge_models.SIDE)
CARD = ModelCard(
    LABELS,
    RECIPE,
    "int8",
    name="Farbe",
    measured={"validation": {"accuracy": 0.5, "interval": [0.4, 0.6], "photos": 90}},
)


@pytest.fixture(scope="module")
def bare() -> bytes:
    """A model that TensorFlow never saw: its operators' options must survive too."""
    return edge_models.network()


def test_embedded_card_is_read_back(bare):
    model = metadata.embed(bare, CARD)
    flat, attached = metadata.split(model)
    card = ModelFile.read(model).card
    assert card == replace(CARD, model_sha256=hashlib.sha256(flat).hexdigest())
    assert ModelFile.read(model).labels == LABELS
    assert flat + attached == model and attached.startswith(b"PK")


def test_python_opens_it_as_a_zip_and_entries_are_stored(bare, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(metadata.embed(bare, CARD))
    with zipfile.ZipFile(path) as attached:
        assert attached.testzip() is None
        entries = {entry.filename: entry for entry in attached.infolist()}
        assert attached.read("labels.txt").decode() == "".join(f"{x}\n" for x in LABELS)
    assert set(entries) == {"labels.txt", "card.json"}
    # MediaPipe's reader knows no compression; a clock time would change the bytes.
    assert all(e.compress_type == zipfile.ZIP_STORED for e in entries.values())
    assert all(e.date_time == (1980, 1, 1, 0, 0, 0) for e in entries.values())


def test_embedding_again_changes_nothing_or_replaces(bare):
    once = metadata.embed(bare, CARD)
    assert metadata.embed(once, CARD) == once
    other = replace(CARD, name="Colour", variant="float32")
    assert metadata.embed(once, other) == metadata.embed(bare, other)
    assert once.count(b"card.json") == 2  # local header and directory, one entry


def test_strip_gives_a_model_without_a_trace(bare):
    model = metadata.embed(bare, CARD)
    stripped = metadata.strip(model)
    file = ModelFile(stripped)
    assert file.card is None and file.labels is None
    assert metadata.NAME.encode() not in stripped
    assert metadata.strip(stripped) == stripped == metadata.strip(bare)
    assert metadata.embed(stripped, CARD) == model


def test_the_network_computes_the_same_before_and_after(bare):
    """The output's integers; `Classifier` makes those of a card add up to 1."""
    photos = pixels(12, seed=2)[:, : RECIPE.height, : RECIPE.width].copy()
    before, after = (
        integers(model, photos) for model in (bare, metadata.embed(bare, CARD))
    )
    assert before.dtype == np.uint8 and len(np.unique(before, axis=0)) > 1
    assert np.array_equal(before, after)


def integers(model, photos):
    """What the network answers to uint8 photos [N, H, W, 3], [N, L] as it is."""
    _, interpreter = ModelFile.read(model).open()
    (image,) = interpreter.get_input_details()
    (output,) = interpreter.get_output_details()
    assert image["dtype"] == np.uint8
    answers = []
    for photo in photos:
        interpreter.set_tensor(image["index"], photo[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(output["index"])[0].copy())
    return np.stack(answers)


def test_weights_begin_at_multiples_of_sixteen(bare):
    """The schema's force_align, which the generated Python code forgets."""
    model = metadata.embed(bare, CARD)
    types = flatbuffer.schema()
    root = types.Model.GetRootAs(model, 0)
    starts = []
    for number in range(root.BuffersLength()):
        table = root.Buffers(number)._tab
        field = table.Offset(4)
        if field:
            starts.append(table.Vector(field) % 16)
    assert starts and set(starts) == {0}


@pytest.mark.parametrize("label", ["two\nlines", " ", "", "form\x0cfeed"])
def test_labels_that_do_not_fit_a_line_are_refused(bare, label):
    card = replace(CARD, labels=(label, *LABELS[1:]))
    with pytest.raises(ModelError, match="labels of one line each"):
        metadata.embed(bare, card)


def test_card_that_does_not_fit_the_model(bare):
    with pytest.raises(ModelError, match="expected 3 labels"):
        metadata.embed(bare, replace(CARD, labels=("a", "b")))
    with pytest.raises(ModelError, match="output named 'scores'"):
        metadata.embed(bare, replace(CARD, outputs={"probabilities": "scores"}))


@pytest.mark.parametrize("cut", [0, 7, 100])
def test_damaged_models_are_refused(bare, cut):
    with pytest.raises(ModelError):
        metadata.embed(bare[:cut], CARD)


def test_bytes_that_look_like_the_end_of_a_zip_are_left_alone(bare):
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0, 0, 0, 0, 0)
    model = bare + end
    assert metadata.split(model) == (model, b"")


def test_unicode_labels(bare):
    labels = ("Kätzchen", "собака", "犬")
    model = metadata.embed(bare, replace(CARD, labels=labels))
    assert Classifier(model).labels == labels == ModelFile.read(model).labels


# -- what TFLite Metadata says, read slot by slot as the public schema has it ----


def table_at(data: bytes, place: int):
    from flatbuffers.table import Table

    return Table(data, place)


def follow(table, slot: int):
    offset = table.Offset(4 + 2 * slot)
    assert offset, f"slot {slot} is empty"
    return table.Indirect(table.Pos + offset)


def string(table, slot: int) -> str:
    offset = table.Offset(4 + 2 * slot)
    return table.String(table.Pos + offset).decode()


def items(table, slot: int):
    offset = table.Offset(4 + 2 * slot)
    start, count = table.Vector(offset), table.VectorLen(offset)
    return [
        table_at(table.Bytes, table.Indirect(start + 4 * number))
        for number in range(count)
    ]


def numbers(table, slot: int) -> list[float]:
    offset = table.Offset(4 + 2 * slot)
    start, count = table.Vector(offset), table.VectorLen(offset)
    return list(struct.unpack_from(f"<{count}f", table.Bytes, start))


def test_the_standard_metadata_names_input_labels_and_ranges(bare):
    tree = flatbuffer.parse(metadata.embed(bare, CARD))
    (entry,) = (e for e in tree.metadata if flatbuffer.text(e.name) == metadata.NAME)
    data = bytes(tree.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    root = table_at(data, struct.unpack_from("<I", data)[0])
    assert string(root, 0) == "Farbe"
    assert string(root, 7) == "1.0.0"
    (graph,) = items(root, 3)

    (image,) = items(graph, 2)
    assert string(image, 0) == "image"
    content = table_at(data, follow(image, 3))
    properties = table_at(data, follow(content, 1))
    rgb = properties.Get(properties_flags().Int8Flags, properties.Pos + 4)
    assert properties.Offset(4) and rgb is not None
    (unit,) = items(image, 4)
    scaling = table_at(data, follow(unit, 1))
    assert (numbers(scaling, 0), numbers(scaling, 1)) == ([0.0], [1.0])
    stats = table_at(data, follow(image, 5))
    assert (numbers(stats, 0), numbers(stats, 1)) == ([255.0], [0.0])

    (output,) = items(graph, 3)
    assert string(output, 0) == "probabilities"
    (labels,) = items(output, 6)
    assert string(labels, 0) == "labels.txt"
    axis_labels = 2
    kind = labels.Get(properties_flags().Int8Flags, labels.Pos + labels.Offset(8))
    assert kind == axis_labels


def properties_flags():
    from flatbuffers import number_types

    return number_types


def test_zip_is_found_by_its_end_like_any_archive(bare):
    model = metadata.embed(bare, CARD)
    with zipfile.ZipFile(io.BytesIO(model)) as attached:
        first = min(entry.header_offset for entry in attached.infolist())
    assert model[first : first + 4] == b"PK\x03\x04"
    assert first == len(metadata.split(model)[0])


def test_equal_numbers_are_written_once():
    """Zero points of an int8 file are 8 bytes a channel, all of them 0."""
    tree = flatbuffer.parse(edge_models.network())
    types = flatbuffer.schema()
    channels, tensors = 1000, tree.subgraphs[0].tensors
    for tensor in tensors:
        numbers = tensor.quantization = types.QuantizationParametersT()
        numbers.scale = np.linspace(0.1, 1, channels, dtype=np.float32)
        numbers.zeroPoint = np.zeros(channels, np.int64)
    packed = flatbuffer.pack(tree)
    assert packed.count(bytes(8 * channels)) == 1
    assert len(packed) < 12 * channels + len(edge_models.network()) + 100 * len(tensors)
    for tensor in flatbuffer.parse(packed).subgraphs[0].tensors:
        assert len(tensor.quantization.zeroPoint) == channels
        assert tensor.quantization.scale[-1] == 1
