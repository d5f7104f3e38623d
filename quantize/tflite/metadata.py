"""The card and the labels go into a model file, and come out again.

A finished file is the flatbuffer, with TFLite Metadata in it (describe), and right
behind it a zip that holds ``labels.txt`` and ``card.json``. Interpreters read from
the front and never see the zip; `zipfile` and MediaPipe read from the end.

The zip is stored, not compressed, as MediaPipe's reader wants it, and carries no
clock time: one model and one card always give the same bytes.

It does not know: what a card says, or how it is read (edge/card.py).
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from typing import Any

from edge.card import CARD_NAME, LABELS_NAME, ModelCard
from edge.errors import ModelError
from quantize.tflite import describe, flatbuffer

_LOCAL_HEADER = b"PK\x03\x04"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16


def embed(model: bytes, card: ModelCard) -> bytes:
    """The model with `card` inside, in place of a card that is there.

    The card's `model_sha256` is set to the digest of the flatbuffer part.
    ModelError when the labels or outputs of the card don't fit the model.
    """
    tree = flatbuffer.parse(split(model)[0])
    names = _output_names(tree)
    labelled = card.outputs["probabilities"]
    if labelled not in names:
        raise ModelError(
            f"expected the model to have an output named {labelled!r}, as its card "
            f"says, got {names}"
        )
    _check_labels(tree, names.index(labelled), card.labels)
    flatbuffer.set_metadata(
        tree,
        describe.NAME,
        describe.describe(
            card.name,
            f"Tells {', '.join(card.labels)} apart ({card.variant}, by edgegraft)",
            image=(card.input.width, card.input.height),
            outputs=names,
            labelled=labelled,
            labels_file=LABELS_NAME,
        ),
    )
    flat = flatbuffer.pack(tree)
    card = replace(card, model_sha256=hashlib.sha256(flat).hexdigest())
    file = io.BytesIO(flat)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as attached:
        _attach(attached, LABELS_NAME, "\n".join(card.labels) + "\n")
        _attach(attached, CARD_NAME, card.to_json())
    return file.getvalue()


def strip(model: bytes) -> bytes:
    """The bare flatbuffer: no zip, no TFLite Metadata."""
    tree = flatbuffer.parse(split(model)[0])
    flatbuffer.set_metadata(tree, describe.NAME, None)
    return flatbuffer.pack(tree)


def split(model: bytes) -> tuple[bytes, bytes]:
    """(flatbuffer, zip); the zip is empty when none is behind the flatbuffer."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as attached:
            starts = [entry.header_offset for entry in attached.infolist()]
    except zipfile.BadZipFile:
        return model, b""
    start = min(starts, default=0)
    if model[start : start + len(_LOCAL_HEADER)] != _LOCAL_HEADER or start == 0:
        return model, b""
    return model[:start], model[start:]


def _attach(attached: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
    entry.create_system = 3  # the same bytes from every system
    entry.external_attr = _READABLE
    attached.writestr(entry, text.encode("utf-8"))


def _output_names(tree: Any) -> list[str]:
    """The signature's name of each output, in the order of the graph."""
    graph = tree.subgraphs[0]
    named = {}
    for signature in tree.signatureDefs or []:
        for entry in signature.outputs:
            named[entry.tensorIndex] = flatbuffer.text(entry.name)
    return [
        named.get(place, flatbuffer.text(graph.tensors[place].name))
        for place in graph.outputs
    ]


def _check_labels(tree: Any, output: int, labels: tuple[str, ...]) -> None:
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise ModelError(
                f"expected labels of one line each (labels.txt holds one on each "
                f"line), got {label!r:.80}; rename that folder"
            )
    graph = tree.subgraphs[0]
    shape = [int(side) for side in graph.tensors[graph.outputs[output]].shape]
    if shape[-1:] != [len(labels)]:
        raise ModelError(
            f"expected {shape[-1] if shape else 'some'} labels, as the model's output "
            f"has, got {len(labels)}"
        )
