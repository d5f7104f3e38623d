"""The audit as one HTML page that needs nothing beside it: thumbnails are inside.

The findings of an audit, the gravest kind first, `SHOWN` of each.
"""

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template

from data.audit.audit import ROWS, Audit, inside
from data.audit.findings import Finding, Kind
from edge.errors import EdgegraftError
from edge.preprocess import open_photo
from edge.text import plural, printable

SHOWN = 48  # findings of a kind
NAMED = 200  # the same where there is no picture
MISLEADING = ("leak", "near-leak", "two-labels", "near-two-labels")
HEIGHT = 132  # pixels of a thumbnail
WIDEST = 264

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Photo audit: $name</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6b7c; --ground: #f4f6f8;
  --card: #fff; --line: #dde3ea; --good: #1a7f4b; --bad: #b3362b; --bar: #4a7dbd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf1; --soft: #9aa7b6;
  --ground: #14181d; --card: #1e242b; --line: #323b46; --good: #5cc98f;
  --bad: #f0857b; --bar: #6d9fdd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h2 b { font-variant-numeric: tabular-nums; }
p.lead { color: var(--soft); margin: 4px 0 24px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 18px; min-width: 130px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span, figcaption, .more, .facts { color: var(--soft); font-size: 13px; }
.verdict { border-left: 4px solid var(--good); background: var(--card);
  padding: 10px 16px; margin: 20px 0; border-radius: 0 8px 8px 0; }
.verdict.bad { border-color: var(--bad); }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin: 20px 0; }
nav a { text-decoration: none; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 99px; padding: 3px 12px;
  font-size: 13px; }
nav a b { color: var(--bad); }
table { border-collapse: collapse; width: 100%; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
td, th { padding: 6px 14px; text-align: right; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere; }
td.bar { width: 40%; } td.bar i { display: block; height: 10px; border-radius: 5px;
  background: var(--bar); min-width: 2px; }
summary { color: var(--soft); font-size: 13px; padding: 8px 14px; cursor: pointer; }
.grid { display: grid; gap: 14px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(248px, 1fr)); }
.grid.pairs { grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); }
ul.names { columns: 2 420px; column-gap: 28px; margin: 0; padding: 14px 18px;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  list-style: none; font-size: 13px; color: var(--soft); }
ul.names li { break-inside: avoid; padding: 3px 0; overflow-wrap: anywhere; }
ul.names b { color: var(--ink); font-weight: 600; margin-right: 6px; }
code { background: var(--card); border: 1px solid var(--line); border-radius: 5px;
  padding: 1px 6px; font-size: 13px; overflow-wrap: anywhere; }
p.next { color: var(--soft); margin: 12px 0 0; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 10px; height: 100%; }
figure .pair { display: flex; gap: 8px; }
figure .pair > * { height: ${height}px; border-radius: 5px; display: block;
  min-width: 0; flex: 0 1 auto; object-fit: contain; }
figure .none { height: 40px; width: 150px; display: grid; place-items: center;
  color: var(--bad); border: 1px dashed var(--line); font-size: 13px; }
figcaption { overflow-wrap: anywhere; margin-top: 6px; }
figcaption b { color: var(--ink); font-weight: 600; display: block; }
</style></head><body><main>
<h1>$name</h1>
<p class="lead">Photo audit by edgegraft. No photo was changed or deleted.</p>
$verdict
<div class="tiles">$tiles</div>
<nav>$links</nav>
<h2>Labels</h2>
$labels
<p class="facts">$facts</p>
$sections
</main></body></html>
""")


def page(audit: Audit) -> str:
    """The whole page as text."""
    folder = audit.folder
    tiles = (
        (len(folder.photos), "photos"),
        (len(audit.usable(folder.photos)), "usable"),
        (len(folder.labels), "labels"),
        (len({finding.path for finding in audit.findings}), "worth a look"),
    )
    kinds = [(kind, audit.of_kind(kind.name)) for kind in audit.kinds]
    return _PAGE.substitute(
        name=_text(folder.root.resolve().name or folder.root),
        height=HEIGHT,
        tiles="".join(
            f'<div class="tile"><b>{count:,}</b><span>{name}</span></div>'
            for count, name in tiles
        ),
        verdict="".join(_verdict(audit)),
        links="".join(
            f'<a href="#{kind.name}"><b>{len(findings):,}</b> {kind.name}</a>'
            for kind, findings in kinds
        ),
        labels=_labels(audit),
        facts="<br>".join(map(_text, [*facts(audit), *folder.notes()])),
        sections="".join(_section(*item, folder.root) for item in kinds),
    )


def facts(audit: Audit) -> list[str]:
    """What is good to know: formats, modes, turns, sizes."""
    fact_store = list(audit.fact_store.values())
    if not fact_store:
        return []
    formats = Counter(facts.format or "other" for facts in fact_store)
    lines = [", ".join(f"{n:,} {name}" for name, n in formats.most_common())]
    modes = Counter(facts.mode for facts in fact_store if facts.mode != "RGB")
    if modes:
        names = ", ".join(f"{n:,} {name}" for name, n in modes.most_common())
        lines.append(f"not stored as RGB: {names}")
    turned = sum(facts.turn != 1 for facts in fact_store)
    if turned:
        lines.append(f"{turned:,} turned upright by their EXIF tag")
    areas = sorted(
        (facts.width * facts.height, facts.width, facts.height) for facts in fact_store
    )
    spread = [f"{w} x {h}" for _, w, h in (areas[0], areas[len(areas) // 2], areas[-1])]
    lines.append(f"smallest, middle and largest: {', '.join(spread)} pixels")
    return lines


def _verdict(audit: Audit) -> Iterator[str]:
    """Whether the photos can be trained on, and what to do next."""
    for line in audit.obstacles:
        yield f'<div class="verdict bad">Cannot train: {_text(line)}</div>'
    for line in audit.warnings:
        yield f'<div class="verdict bad">{_text(line[0].upper() + line[1:])}.</div>'
    if audit.obstacles:
        return
    if not audit.findings:
        yield '<div class="verdict">Nothing damaged, no photo twice: train on.</div>'
        return
    grave = [kind for kind in audit.kinds if kind.name in MISLEADING]
    verdict = "These photos can be trained on."
    if grave:
        verdict += " First look at those that " + ", and those that ".join(
            _text(kind.plural.partition(":")[0].partition(";")[0]) for kind in grave
        )
        verdict += ": they mislead training or its measurement."
    next_step = ""
    if audit.excluded:
        next_step = (
            '<p class="next">To leave out what audit.csv marks (edit it as you like): '
            "<code>edgegraft build PHOTOS --exclude-from audit.csv</code></p>"
        )
    bad = " bad" if grave else ""
    yield f'<div class="verdict{bad}">{verdict}{next_step}</div>'


def _labels(audit: Audit) -> str:
    """The table of labels; of many labels the rarest, the others folded away."""
    usable = audit.counts["usable"]
    maximum = max(usable.values(), default=1) or 1
    rows = {}
    for label, count in usable.items():
        cells = "".join(
            f"<td>{column[label]:,}</td>" for column in audit.counts.values()
        )
        bar = f'<i style="width:{100 * count / maximum:.1f}%"></i>'
        rows[label] = (
            f'<tr><td>{_text(label)}</td>{cells}<td class="bar">{bar}</td></tr>'
        )
    names = "".join(f"<th>{name}</th>" for name in audit.counts)
    header = f"<tr><th>label</th>{names}<th></th></tr>"

    def table(labels: Iterable[str]) -> str:
        return f"<table>{header}{''.join(rows[label] for label in labels)}</table>"

    if len(rows) <= ROWS:
        return table(rows)
    rare = sorted(rows, key=usable.__getitem__)
    more = f"and {plural(len(rare) - ROWS, 'label')} with as many photos or more"
    return (
        f"{table(rare[:ROWS])}<details><summary>{more}</summary>"
        f"{table(rare[ROWS:])}</details>"
    )


def _section(kind: Kind, findings: list[Finding], root: Path) -> str:
    if kind.name == "unreadable":  # there is no picture to show
        limit = NAMED
        items = "".join(
            f"<li><b>{_text(inside(f.path, root))}</b> {_text(f.reason)}</li>"
            for f in findings[:limit]
        )
        body = f'<ul class="names">{items}</ul>'
    else:
        limit = SHOWN
        pairs = " pairs" if any(finding.others for finding in findings) else ""
        cards = "".join(_card(finding, root) for finding in findings[:limit])
        body = f'<div class="grid{pairs}">{cards}</div>'
    more = len(findings) - limit
    note = f'<p class="more">and {more:,} more, in audit.csv</p>' if more > 0 else ""
    return (
        f'<section id="{kind.name}"><h2><b>{len(findings):,}</b> '
        f"{_text(kind.sentence(len(findings)))}</h2>{body}{note}</section>"
    )


def _card(finding: Finding, root: Path) -> str:
    pictures = "".join(_thumbnail(path) for path in (finding.path, *finding.others[:1]))
    others = ", ".join(inside(other, root) for other in finding.others)
    return (
        f'<figure><div class="pair">{pictures}</div><figcaption>'
        f"<b>{_text(inside(finding.path, root))}</b>{_text(finding.reason)} "
        f"{_text(others)}</figcaption></figure>"
    )


def _thumbnail(path: Path) -> str:
    try:
        image = open_photo(path, min_size=(2 * HEIGHT, 2 * HEIGHT))
    except EdgegraftError:
        return '<div class="none">no picture</div>'
    scale = min(HEIGHT / image.height, WIDEST / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=72)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
