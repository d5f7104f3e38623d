"""comparison.html: a comparison in one file that opens offline.

The file to ship, then sections: plots, tables, confusions, photos, layers, cards.
Style, script and pictures are embedded (html.css, html.js); the page's content security
policy forbids it to fetch anything or to run other scripts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from edge.files import write_atomic
from edge.text import percent, plural
from finetune.run import Run
from quantize.reporting import columns, plot
from quantize.reporting import text as words
from quantize.reporting.columns import Column

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Flip, MeasuredFile

LABELS_NAMED = 6  # in the line under the title
TALL = 40  # rows; longer tables scroll in their own box
NUMBERED = 12  # labels; a larger matrix has its numbers in tooltips
MAX_LABELS = 60  # with more, only the most frequent confusions are listed
CONFUSIONS = 20
DARK = 0.55  # of full colour: from here numbers are light
FAINTEST = 0.1
NO_CARD = "no card: another tool made the file"
LAYER_COLUMNS = (
    Column("layer", "from the photo to the answer", ("number",)),
    Column("operator", "of TensorFlow Lite", ("operator",)),
    Column("name", "of the layer", ("name",)),
    Column(
        "signal to noise, dB",
        "of quantization: higher is better",
        ("sqnr_db",),
        "{:.1f}",
    ),
    Column(
        "changes the answer",
        "probability that moves to other labels when it alone is int8",
        ("answer_shift",),
        "{:.3%}",
    ),
    Column("it alone int8", "validation accuracy", ("alone_int8",), "{:.1%}"),
    Column("it alone float", "validation accuracy", ("kept_float",), "{:.1%}"),
)
Row = tuple[str, Mapping[str, Any]]  # attributes of the row, its values
Decorate = Callable[[Column, Mapping[str, Any], str], str]

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title: which file to ship</title>
<style>$style</style></head><body><main>
<p class="eyebrow">edgegraft comparison</p>
<h1>$title</h1>
<p class="lead">$lead</p>
$verdict
<nav>$links</nav>
$sections
<footer>How it was measured. $method.</footer>
</main><div id="tip" hidden></div>
<script type="application/json" id="tips">$tips</script>
<script>$script</script></body></html>
""")


def write(comparison: Comparison, run: Run | None) -> None:
    """Write comparison.html; `run`: of a comparison of a single run."""
    write_atomic(comparison.folder / "comparison.html", _page(comparison, run))


def _page(comparison: Comparison, run: Run | None) -> str:
    files = comparison.files
    every = [
        ("plot", "Plot", "Accuracy against latency", _plots(comparison)),
        ("files", "Accuracy", "How good each file is", _quality(comparison)),
        (
            "export",
            "Export",
            "How close each file is to float32, and by what",
            _exports(comparison),
        ),
        ("cost", "Times", "How fast each file is", _times(comparison)),
        ("runs", "Targets", "Where each file runs", _files(comparison)),
        ("labels", "Labels", "Label by label", _labels(comparison)),
        (
            "confusion",
            "Confusion",
            "Which labels are confused",
            _confusions(files),
        ),
        (
            "mistakes",
            "Mistakes",
            "Right in float32, wrong in the file",
            _mistakes(files),
        ),
        ("layers", "Layers", "Layer by layer", _layers(run) if run else ""),
        ("cards", "Cards", "Cards inside the files", _cards(files)),
    ]
    shown = [(name, link, title, body) for name, link, title, body in every if body]
    labels = ", ".join(comparison.labels[:LABELS_NAMED])
    more = len(comparison.labels) - LABELS_NAMED
    labels += f" and {more} more" if more > 0 else ""
    photos = plural(files[0].evaluation.photos, "test photo")
    host = words.host_line(comparison)
    script = _asset("html.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _PAGE.substitute(
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        title=escape(comparison.run),
        style=_asset("html.css"),
        script=script,
        tips=json.dumps(_tips(comparison)).replace("<", "\\u003c"),
        lead=escape(" · ".join((labels, plural(len(files), "file"), photos, host))),
        verdict=_verdict(comparison),
        links="".join(f'<a href="#{name}">{link}</a>' for name, link, _, _ in shown),
        sections="".join(
            f'<section id="{name}"><h2>{title}</h2>{body}</section>'
            for name, _, title, body in shown
        ),
        method=escape(comparison.method),
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _verdict(comparison: Comparison) -> str:
    file = comparison.choice.file
    why = escape(comparison.choice.why)
    if file is None:
        return (
            '<section class="panel verdict none"><p class="eyebrow">Ship</p>'
            f'<strong>None</strong><p class="why">{why}.</p></section>'
        )
    cautions = "".join(
        f'<p class="why">Warning: {escape(line)}.</p>' for line in words.cautions(file)
    )
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(note)}</small></dd></div>"
        for name, value, note in _tiles(comparison, file)
    )
    owner = f"{file.run}/" if file.title != file.variant and file.run else ""
    return (
        '<section class="panel verdict"><p class="eyebrow">Ship</p>'
        f"<strong>{escape(owner + file.path.name)}</strong>"
        f'<p class="why">{why}.</p>{cautions}<dl class="tiles">{tiles}</dl></section>'
    )


def _tiles(comparison: Comparison, file: MeasuredFile) -> list[tuple[str, str, str]]:
    """The chosen file's figures: (name, value, note)."""
    evaluation, headline = file.evaluation, comparison.headline
    timing = file.timing_in(comparison.deciding_setting)
    assert timing is not None and headline is not None
    low, high = headline.interval
    balanced_low, balanced_high = evaluation.balanced_interval
    weakest = headline.weakest or evaluation.weakest
    tiles = [
        (
            f"accuracy, {headline.source}",
            percent(headline.accuracy),
            f"{100 * low:.1f} to {100 * high:.1f} (95 %), "
            f"{plural(headline.photos, 'photo')}"
            + (f"; {headline.note}" if headline.note else ""),
        ),
        (
            "balanced test accuracy",
            percent(evaluation.balanced_accuracy),
            f"{100 * balanced_low:.1f} to {100 * balanced_high:.1f} (95 %)",
        ),
        (
            "weakest label",
            f"{weakest['right'] / weakest['photos']:.1%}",
            f"{weakest['label']}: {weakest['right']:,} of {weakest['photos']:,} found",
        ),
        ("latency, median", f"{timing.p50_ms:.2f} ms", timing.setting.how),
        ("file", f"{file.size_bytes / 1e6:.2f} MB", "labels and card included"),
        ("memory, peak", f"{timing.peak_memory_mb:.0f} MiB", "of the whole process"),
    ]
    if file.refusal:
        tiles.append(
            (
                "refuses unknown",
                percent(file.refusal.share),
                f"and {percent(file.refusal.known_share)} of the known",
            )
        )
    against = words.against_float(file)
    if against:
        tiles.append(
            ("float32", percent(evaluation.accuracy + (file.drop or 0)), against)
        )
    return tiles


def _tips(comparison: Comparison) -> list[list[str]]:
    """The tooltip of each file's bubble, as lines."""
    tips = []
    for file in comparison.files:
        timing = file.timing_in(comparison.deciding_setting) or file.timings[0]
        low, high = file.evaluation.balanced_interval
        tips.append(
            [
                file.title,
                f"balanced accuracy {percent(file.evaluation.balanced_accuracy)} "
                f"({100 * low:.1f} to {100 * high:.1f})",
                f"weakest label {words.weakest(file)}",
                f"{timing.p50_ms:.2f} ms, p99 {timing.p99_ms:.2f} ms",
                f"{file.size_bytes / 1e6:.2f} MB, {timing.peak_memory_mb:.0f} MiB "
                "memory",
                str(timing.setting),
            ]
        )
    return tips


def _plots(comparison: Comparison) -> str:
    """A plot for each setting, the one that decides first."""
    tabs, panels = [], []
    settings = sorted(
        comparison.settings, key=lambda s: s != comparison.deciding_setting
    )
    for index, setting in enumerate(settings):
        name = escape(str(setting))
        tabs.append(f'<button role="tab" data-panel="plot-{index}">{name}</button>')
        panels.append(
            f'<div id="plot-{index}"><p class="note">{name}</p>'
            f'<div class="broad">{plot.svg(comparison, setting, plot.WIDE)}</div>'
            f'<div class="narrow">{plot.svg(comparison, setting, plot.NARROW)}'
            "</div></div>"
        )
    return (
        f'<div class="panel"><div class="tabs" role="tablist" hidden>{"".join(tabs)}'
        f"</div>{''.join(panels)}</div>"
        '<p class="note">Bubble: its area is the file&#8217;s size. Bar: 95 % interval '
        "of the balanced accuracy. Dashed: the Pareto front, files that no other "
        "beats in both time and accuracy. Ring: the file to ship. Hollow: rejected."
        "</p>"
    )


# -- the sections ---------------------------------------------------------------------


def _table(
    all_columns: Sequence[Column],
    rows: Sequence[Row],
    decorate: Decorate | None = None,
) -> str:
    """A sortable table; `decorate` adds to a cell's text."""
    shown = columns.filled(all_columns, [figures for _, figures in rows])
    text_columns = {
        column.head
        for column in shown
        if any(isinstance(column.value(figures), str) for _, figures in rows)
    }
    body = []
    for attributes, figures in rows:
        cells = []
        for column in shown:
            value, cell = column.value(figures), escape(column.text(figures))
            if decorate is not None:
                cell = decorate(column, figures, cell)
            kind = " class=word" if column.head in text_columns else ""
            sort_key = "" if value is None else escape(str(value))
            cells.append(f'<td{kind} data-v="{sort_key}">{cell}</td>')
        body.append(f"<tr{attributes}>{''.join(cells)}</tr>")
    head = "".join(
        f"<th{' class=word' if column.head in text_columns else ''} "
        f'title="{escape(column.help)}"><button>{escape(column.head)}</button></th>'
        for column in shown
    )
    tall = " tall" if len(rows) > TALL else ""
    return (
        f'<div class="panel wide{tall}"><table class="sortable"><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _quality(comparison: Comparison) -> str:
    """Accuracy and related figures of each file."""
    files = comparison.files
    runtimes = ", ".join(dict.fromkeys(file.accuracy_runtime for file in files))
    rows = [_row(comparison, file, file.figures()) for file in files]
    return (
        f"{_table(columns.QUALITY, rows, _decorator(comparison))}<p class=note>"
        f"{plural(files[0].evaluation.photos, 'test photo')}, used for nothing else, "
        f"each through the file on {escape(runtimes)}. Drop, p and agreement are "
        "against the float32 file of the same run. A click on a head sorts.</p>"
    )


def _exports(comparison: Comparison) -> str:
    """What each file reached when it was exported, by which repair; "" if unknown."""
    files = [file for file in comparison.files if words.exported([file.figures()])]
    if not files:
        return ""
    rows = [_row(comparison, file, file.figures()) for file in files]
    return (
        f"{_table(columns.EXPORT, rows, _decorator(comparison))}<p class=note>On "
        "validation photos and crops of them, before the test photos were used. "
        "exports.json has every repair that was tried.</p>"
    )


def _times(comparison: Comparison) -> str:
    """Times and memory, one row for each file and setting."""
    rows = [
        _row(comparison, file, figures)
        for setting in comparison.settings
        for file in comparison.files
        for figures in words.times([file], setting)
    ]
    warnings = "".join(
        f"<p class=note>Warning: {escape(line)}.</p>" for line in comparison.warnings
    )
    return _table(columns.TIMES, rows, _decorator(comparison)) + warnings


def _files(comparison: Comparison) -> str:
    """Size, multiply-adds, runtimes and targets of each file."""
    rows = [_row(comparison, file, file.figures()) for file in comparison.files]
    return _table(columns.FILES, rows, _decorator(comparison))


def _labels(comparison: Comparison) -> str:
    """Precision, recall and F1 of each label in each file."""
    rows = [
        _row(comparison, file, {**file.figures(), **file.evaluation.rows[label_index]})
        for label_index in range(len(comparison.labels))
        for file in comparison.files
    ]
    label, *others = columns.LABELS
    return _table((label, columns.FILE, *others), rows, _decorator(comparison))


def _row(comparison: Comparison, file: MeasuredFile, figures: Mapping[str, Any]) -> Row:
    index = comparison.files.index(file)
    ship = file is comparison.choice.file
    return f' data-file="{index}"{" class=ship" if ship else ""}', figures


def _decorator(comparison: Comparison) -> Decorate:
    """Colours and tags of the files, and bars of precision and recall."""
    by_title = {file.title: file for file in comparison.files}

    def decorate(column: Column, figures: Mapping[str, Any], cell: str) -> str:
        file = by_title[figures["title"]]
        colour = f"c{plot.hue(comparison, file)}"
        if column is columns.FILE:
            tag = ""
            if file is comparison.choice.file:
                tag = '<span class="tag">ship</span>'
            return f'<span class="dot {colour}"></span>{cell}{tag}'
        if column.head in ("precision", "recall"):
            width = percent(column.value(figures))
            return (
                f'{cell}<span class="bar {colour}"><i style="width:{width}"></i></span>'
            )
        return cell

    return decorate


def _confusions(files: Sequence[MeasuredFile]) -> str:
    """A matrix for each file: rows are the truth, columns the answers."""
    matrices = "".join(
        f'<div class="panel wide"><h3>{escape(file.title)}</h3>{_matrix(file)}</div>'
        for file in files
    )
    return (
        f'<div class="row">{matrices}</div><p class="note">Rows: the label of the '
        "photo. Columns: the answer. Colours are shares of a row: blue is right, "
        "orange is wrong.</p>"
    )


def _matrix(file: MeasuredFile) -> str:
    names, counts = file.evaluation.labels, file.evaluation.confusion
    if len(names) > MAX_LABELS:
        return _most_frequent(file)
    numbered = len(names) <= NUMBERED
    rows = []
    for truth, (label, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row)
        cells = []
        for predicted, count in enumerate(row):
            fraction = count / total if total else 0.0
            kind = "hit" if truth == predicted else "miss"
            kind += " strong" if fraction > DARK else ""
            heat = max(fraction, FAINTEST) if count else 0.0
            answer, shown = names[predicted], percent(fraction)
            tip = f"{label} answered {answer}: {count:,} ({shown})"
            cells.append(
                f'<td class="{kind}" style="--h:{heat:.2f}" title="{escape(tip)}">'
                f"{f'{count:,}' if numbered else ''}</td>"
            )
        rows.append(f"<tr><th scope=row>{escape(label)}</th>{''.join(cells)}</tr>")
    head = "".join(
        f'<th title="{escape(label)}">{escape(label) if numbered else ""}</th>'
        for label in names
    )
    dense = "" if numbered else " dense"
    return (
        f'<table class="matrix{dense}"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _most_frequent(file: MeasuredFile) -> str:
    """The most frequent confusions, where a matrix would be too large to read."""
    names = file.evaluation.labels
    pairs = [
        (count, names[truth], names[predicted])
        for truth, row in enumerate(file.evaluation.confusion)
        for predicted, count in enumerate(row)
        if count and truth != predicted
    ]
    rows = "".join(
        f"<tr><td>{count:,}</td><td class=word>{escape(truth)} answered "
        f"{escape(answer)}</td></tr>"
        for count, truth, answer in sorted(pairs, reverse=True)[:CONFUSIONS]
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _mistakes(files: Sequence[MeasuredFile]) -> str:
    """The photos that only float32 got right, as the file saw them."""
    parts = []
    for file in files:
        if not file.flips:
            continue
        shown = [flip for flip in file.flips if flip.photo is not None]
        count = plural(len(file.flips), "photo")
        if len(shown) < len(file.flips):
            count += f", the {len(shown)} most confident mistakes"
        pictures = "".join(_flip(flip) for flip in shown)
        parts.append(
            f'<div class="panel"><h3>{escape(file.title)}: {count}</h3>'
            f'<div class="photos">{pictures}</div></div>'
        )
    if parts:
        return "".join(parts)
    if not any(file.paired for file in files):
        return ""
    return (
        '<p class="note">None: every photo right in float32 is right in its files.</p>'
    )


def _flip(flip: Flip) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(flip.photo).save(stream, "JPEG", quality=85)
    data = _embedded("image/jpeg", stream.getvalue())
    return (
        f'<figure class="photo"><img src="{data}" alt="{escape(flip.path)}">'
        f"<figcaption>{escape(flip.truth)}, answered <b>{escape(flip.answer)}</b> "
        f"{flip.confidence:.0%}<span>{escape(flip.path)}</span></figcaption></figure>"
    )


def _layers(run: Run) -> str:
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
            reason = escape(f"{type(error).__name__}: {error}")
            parts.append(f'<p class="note">layers.json cannot be read ({reason}).</p>')
    return "".join(parts)


def _layer_table(record: dict[str, Any]) -> str:
    """Each layer's noise, and what the worst cost in validation accuracy."""
    rows = [("", {**layer, **(layer["cost"] or {})}) for layer in record["layers"]]
    return (
        f"{_table(LAYER_COLUMNS, rows)}<p class=note>"
        f"{plural(record['validation_photos'], 'validation photo')}: float32 has "
        f"{record['float32_accuracy']:.1%} right, int8 {record['int8_accuracy']:.1%}; "
        f"noise on {plural(record['noise_photos'], 'photo')}.</p>"
    )


def _cards(files: Sequence[MeasuredFile]) -> str:
    """The card inside each file."""
    return "".join(
        f'<details class="panel"><summary>{escape(file.title)}</summary>'
        f"<pre>{escape(file.card.to_json() if file.card else NO_CARD)}</pre>"
        "</details>"
        for file in files
    )


def _embedded(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
