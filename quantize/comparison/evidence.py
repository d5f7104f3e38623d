"""What lies behind the figures in comparison.html: confusions, photos, layers, cards.

It does not know: how anything was measured.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edge.card import read_card
from edge.text import plural
from finetune.run import Run
from quantize.reporting.tables import number, table, text

if TYPE_CHECKING:
    from quantize.comparison.records import Flip, Measured

_NUMBERED = 12  # labels; a larger matrix shows colours, numbers on hovering
_MOST_LABELS = 60  # beyond, only the most frequent mix-ups
_MIX_UPS = 20
_STRONG = 0.55  # of full colour: numbers on it are light
_FAINTEST = 0.1


def confusions(files: Sequence[Measured]) -> str:
    """A matrix for each file: rows are the truth, columns what the file said."""
    shown = "".join(
        f'<div class="panel wide"><h3>{escape(file.title)}</h3>{_matrix(file)}</div>'
        for file in files
    )
    return (
        f'<div class="row">{shown}</div><p class="note">Rows: what the photo shows. '
        "Columns: what the file says. Colours are shares of a row: blue is right, "
        "orange is wrong.</p>"
    )


def _matrix(file: Measured) -> str:
    labels, counts = file.evaluation.labels, file.evaluation.confusion
    if len(labels) > _MOST_LABELS:
        return _mix_ups(file)
    numbered = len(labels) <= _NUMBERED
    rows = []
    for line, (label, row) in enumerate(zip(labels, counts, strict=True)):
        total = sum(row)
        cells = []
        for column, count in enumerate(row):
            share = count / total if total else 0.0
            kind = "hit" if line == column else "miss"
            kind += " strong" if share > _STRONG else ""
            heat = max(share, _FAINTEST) if count else 0.0
            told = f"{label} called {labels[column]}: {count:,} ({share:.1%})"
            cells.append(
                f'<td class="{kind}" style="--h:{heat:.2f}" title="{escape(told)}">'
                f"{f'{count:,}' if numbered else ''}</td>"
            )
        name = escape(label)
        rows.append(f"<tr><th scope=row>{name}</th>{''.join(cells)}</tr>")
    head = "".join(
        f'<th title="{escape(label)}">{escape(label) if numbered else ""}</th>'
        for label in labels
    )
    dense = "" if numbered else " dense"
    return (
        f'<table class="matrix{dense}"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _mix_ups(file: Measured) -> str:
    """The most frequent confusions, where a matrix would be too large to read."""
    labels = file.evaluation.labels
    pairs = [
        (count, labels[line], labels[column])
        for line, row in enumerate(file.evaluation.confusion)
        for column, count in enumerate(row)
        if count and line != column
    ]
    rows = "".join(
        f"<tr><td>{count:,}</td><td class=word>{escape(truth)} called "
        f"{escape(said)}</td></tr>"
        for count, truth, said in sorted(pairs, reverse=True)[:_MIX_UPS]
    )
    return f"<table><tbody>{rows}</tbody></table>"


def mistakes(files: Sequence[Measured]) -> str:
    """The photos that float32 got right and a file wrong, as the network saw them."""
    parts = []
    for file in files:
        if not file.flips:
            continue
        lost = file.paired.lost if file.paired else len(file.flips)
        photos = plural(lost, "photo")
        if lost > len(file.flips):
            photos += f", the first {len(file.flips)}"
        shown = "".join(_flip(flip) for flip in file.flips)
        parts.append(
            f'<div class="panel"><h3>{escape(file.title)}: {photos}</h3>'
            f'<div class="photos">{shown}</div></div>'
        )
    return "".join(parts) or (
        '<p class="note">None: no file got a photo wrong that float32 got right.</p>'
        if len(files) > 1
        else ""
    )


def _flip(flip: Flip) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(flip.photo).save(stream, "JPEG", quality=85)
    data = _embedded("image/jpeg", stream.getvalue())
    return (
        f'<figure class="photo"><img src="{data}" '
        f'alt="{escape(flip.path)}"><figcaption>is {escape(flip.truth)}, said '
        f"<b>{escape(flip.said)}</b> {flip.sure:.0%}<span>{escape(flip.path)}</span>"
        "</figcaption></figure>"
    )


def layers(run: Run) -> str:
    """The layer report of the run (layers.png, layers.json), where one was made."""
    picture, record = run.folder / "layers.png", run.folder / "layers.json"
    parts = []
    if picture.is_file():
        data = _embedded("image/png", picture.read_bytes())
        parts.append(
            f'<div class="panel"><img class="picture" src="{data}" '
            'alt="Quantization error of each layer"></div>'
        )
    if record.is_file():
        try:
            parts.append(_layer_table(json.loads(record.read_text("utf-8"))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            told = escape(f"{type(error).__name__}: {error}")
            parts.append(f'<p class="note">layers.json cannot be read ({told}).</p>')
    return "".join(parts)


def _layer_table(record: dict[str, Any]) -> str:
    """Each layer's noise, and what the worst cost in validation accuracy."""
    heads = [
        ("layer", "from the photo to the answer"),
        ("operator", "of TensorFlow Lite"),
        ("name", "of the layer"),
        ("signal to noise, dB", "of quantization: higher is better"),
        ("moves the answer", "probability that changes sides when it alone is int8"),
        ("it alone int8", "validation accuracy"),
        ("it alone float", "validation accuracy"),
    ]
    rows = []
    for layer in record["layers"]:
        cost = layer["cost"] or {}
        cells = [
            number(layer["number"], "d"),
            text(layer["operator"]),
            text(layer["name"]),
            number(layer["sqnr_db"], ".1f"),
            number(layer["answer_shift"], ".3%"),
            number(cost.get("alone_int8"), ".1%"),
            number(cost.get("kept_float"), ".1%"),
        ]
        rows.append(("", cells))
    return (
        f"{table(heads, rows)}<p class=note>Of {record['validation_photos']:,} "
        f"validation photos float32 has {record['float32_accuracy']:.1%} right, int8 "
        f"{record['int8_accuracy']:.1%}; noise on {record['noise_photos']:,} "
        "photos.</p>"
    )


def cards(files: Sequence[Measured]) -> str:
    """What each file says about itself, as it stands in the file."""
    parts = []
    for file in files:
        card = read_card(file.path)
        told = card.to_json() if card else "no card: the file was made elsewhere"
        parts.append(
            f'<details class="panel"><summary>{escape(file.title)}</summary>'
            f"<pre>{escape(told)}</pre></details>"
        )
    return "".join(parts)


def _embedded(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
