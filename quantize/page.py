"""comparison.html: everything about a comparison in one file that opens offline.

Pictures are inside, there is no script, and nothing is fetched.

It does not know: how anything was measured.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.card import read_card
from finetune.report import draw_confusion
from finetune.run import Run, write_atomic
from quantize import report

if TYPE_CHECKING:
    from quantize.measured import Comparison, Flip, Measured

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#212529;max-width:1100px;margin:2em auto;
padding:0 1em}
h1{font-size:1.6em;margin-bottom:0}h2{font-size:1.2em;margin:2em 0 .5em}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.3em .7em;text-align:right;border-bottom:1px solid #dee2e6}
th:first-child,td:first-child{text-align:left}
.wide{overflow-x:auto}.rejected td{color:#c92a2a}.ship td{background:#ebfbee}
.say{background:#ebfbee;padding:.6em 1em;border-left:4px solid #2b8a3e}
img{max-width:100%}figure{display:inline-block;margin:0 1em 1em 0;font-size:12px}
figcaption{max-width:170px;overflow-wrap:anywhere}
figure.photo img{width:160px;image-rendering:auto}
pre{background:#f8f9fa;padding:1em;overflow-x:auto;font-size:12px}
.muted{color:#495057;font-size:13px}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_HEAD = (
    *("file", "accuracy", "95 % interval", "drop", "lost / gained", "p", "agree"),
    *("calibration error", "MB", "load ms", "first ms", "p50", "p95", "p99"),
    *("memory MiB", "runs on TFLite from", "refused by"),
)


def write(comparison: Comparison, run: Run) -> None:
    """comparison.html into the comparison's folder (its pictures are there)."""
    text = _page(comparison, run)
    path = comparison.folder / "comparison.html"
    write_atomic(path, lambda to: to.write_text(text, encoding="utf-8"))


def _page(comparison: Comparison, run: Run) -> str:
    files = comparison.files
    plot = (comparison.folder / "comparison.png").read_bytes()
    parts = [
        f"<h1>{escape(comparison.run)}</h1>",
        f"<p class=muted>{escape(report.host_line(comparison))}; "
        f"{escape(files[0].runtime)}, {files[0].threads} thread(s); "
        f"{files[0].evaluation.photos:,} test photos</p>",
        f"<p class=say><b>Ship {escape(_chosen(comparison))}</b>: "
        f"{escape(comparison.choice.why)}</p>",
        _picture("image/png", plot, "accuracy against latency"),
        "<h2>Files</h2><div class=wide>",
        _table(_HEAD, ((_row_class(comparison, f), _cells(f)) for f in files)),
        f"</div><p class=muted>{escape(comparison.method)}</p>",
        "<h2>Per class</h2>",
        _per_class(files),
        "<h2>Confusion</h2>",
        *(_confusion(file) for file in files),
        *(_flips(file) for file in files if file.flips),
        "<h2>Card</h2>",
        *(_card(file) for file in files),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(comparison.run)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _chosen(comparison: Comparison) -> str:
    return comparison.choice.file.title if comparison.choice.file else "none"


def _row_class(comparison: Comparison, file: Measured) -> str:
    if file.rejected:
        return "rejected"
    return "ship" if file.title == _chosen(comparison) else ""


def _cells(file: Measured) -> list[str]:
    low, high = file.evaluation.interval
    pair = file.paired
    return [
        file.title,
        f"{file.evaluation.accuracy:.2%}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        "-" if file.drop is None else f"{100 * file.drop:+.2f}",
        "-" if pair is None else f"{pair.lost} / {pair.gained}",
        "-" if pair is None else f"{pair.p:.3f}",
        "-" if file.agreement is None else f"{file.agreement:.2%}",
        f"{file.calibration_error:.3f}",
        f"{file.size_bytes / 1e6:.2f}",
        f"{file.load_ms:.1f}",
        f"{file.first_ms:.1f}",
        f"{file.p50_ms:.2f}",
        f"{file.p95_ms:.2f}",
        f"{file.p99_ms:.2f}",
        f"{file.peak_memory_mb:.0f}",
        file.oldest_runtime or "newest",
        ", ".join(file.refused_by) or "-",
    ]


def _table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [
        f"<tr class={kind or 'plain'}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for kind, row in rows
    ]
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"


def _per_class(files: Sequence[Measured]) -> str:
    rows = [
        (
            "",
            [
                file.title,
                str(entry["label"]),
                str(entry["photos"]),
                *(f"{entry[name]:.1%}" for name in ("precision", "recall", "f1")),
            ],
        )
        for file in files
        for entry in file.evaluation.per_class
    ]
    return _table(("file", "label", "photos", "precision", "recall", "F1"), rows)


def _confusion(file: Measured) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "confusion.png"
        draw_confusion(path, file.evaluation, file.title)
        data = path.read_bytes()
    return f"<figure>{_picture('image/png', data, file.title, 320)}</figure>"


def _flips(file: Measured) -> str:
    shown = "".join(_flip(flip) for flip in file.flips)
    lost = file.paired.lost if file.paired else len(file.flips)
    title = f"Right in float32, wrong in {escape(file.title)}: {lost} photos"
    return f"<h2>{title}</h2>{shown}"


def _flip(flip: Flip) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(flip.photo).save(stream, "JPEG", quality=85)
    picture = _picture("image/jpeg", stream.getvalue(), flip.path)
    return (
        f"<figure class=photo>{picture}<figcaption>{escape(flip.path)}<br>is "
        f"{escape(flip.truth)}, said {escape(flip.said)} {flip.sure:.0%}</figcaption>"
        "</figure>"
    )


def _card(file: Measured) -> str:
    card: Any = read_card(file.path)
    text = card.to_json() if card else "no card: the file was made elsewhere"
    return (
        f"<details><summary>{escape(file.title)}</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _picture(kind: str, data: bytes, name: str, width: int = 0) -> str:
    size = f" width={width}" if width else ""
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:{kind};base64,{encoded}" alt="{escape(name)}"{size}>'
