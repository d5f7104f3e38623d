"""An audit on disk: audit.json for programs, audit.csv for people with a spreadsheet,
audit.html to look at; and audit.csv read back, to leave photos out.

audit.csv has a line for each photo. Its column `exclude` says yes for copies that can
go without loss, and `reasons` why; edit it as you like, then pass it to
--exclude-from. audit.html shows the findings, the gravest kind first, `SHOWN` of each.
"""

import base64
import csv
import html
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from data.audit.audit import ROWS, Audit, inside
from data.audit.findings import BOTH_WRONG, Finding, Kind
from data.photos import PhotoFolder
from edge.errors import EdgegraftError, reason_of
from edge.files import sha256, write_atomic, write_csv
from edge.preprocess import open_photo
from edge.text import plural, printable

NAMES = ("audit.json", "audit.csv", "audit.html")
COLUMNS = (
    *("path", "label", "part", "sha256", "exclude", "findings", "reasons", "format"),
    *("mode", "width", "height", "turn", "blur", "low", "high", "deviation"),
)
FACTS = COLUMNS[COLUMNS.index("format") :]
SHOWN = 48  # findings of a kind on the page
LISTED = 200  # the same where there is no picture
MISLEADING = ("leak", "near-leak", "two-labels", "near-two-labels")
THUMB_HEIGHT = 132  # pixels of a thumbnail
THUMB_WIDTH = 264

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


@dataclass(frozen=True)
class Exclusion:
    """What audit.csv leaves out: paths, and the digests all photos had then."""

    source: str  # the file's name
    sha256: str  # of the file
    paths: frozenset[Path]
    digests: Mapping[Path, str]
    content: bytes  # of the file, for a run to keep

    def apply(self, folder: PhotoFolder) -> PhotoFolder:
        """`folder` without these photos."""
        photos = tuple(p for p in folder.photos if p.path not in self.paths)
        return replace(folder, photos=photos)

    def changed(self, digests: Mapping[Path, str]) -> list[Path]:
        """Photos whose bytes differ from those that were audited."""
        audited = self.digests
        return [path for path, d in digests.items() if audited.get(path, d) != d]

    def to_dict(self) -> dict[str, Any]:
        """For a run's record."""
        return {"file": self.source, "sha256": self.sha256, "photos": len(self.paths)}


def write(audit: Audit, folder: Path, *, overwrite: bool = False) -> Path:
    """Write the three files into `folder`, each whole or not at all; the page's path.

    EdgegraftError when one is there already and `overwrite` is not asked for, or when
    they cannot be written.
    """
    refuse(folder, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = json.dumps(audit.to_dict(), indent=1, ensure_ascii=False)
        write_atomic(folder / "audit.json", _encoded(record + "\n"))
        _write_csv(audit, folder / "audit.csv")
        write_atomic(folder / "audit.html", _encoded(html_page(audit)))
    except OSError as error:
        raise EdgegraftError(
            f"{printable(folder)}: expected a place to write the audit to, got: "
            f"{error.strerror}"
        ) from None
    return folder / "audit.html"


def refuse(folder: Path, overwrite: bool) -> None:
    """EdgegraftError when an audit lies in `folder` and may not be replaced."""
    existing = [name for name in NAMES if os.path.lexists(folder / name)]
    if existing and not overwrite:
        raise EdgegraftError(
            f"{printable(folder)}: expected a folder without an audit, got one with "
            f"{existing[0]}; choose another or add --overwrite"
        )


def read_exclusion(path: str | os.PathLike[str], folder: PhotoFolder) -> Exclusion:
    """Read audit.csv: which photos of `folder` to leave out.

    EdgegraftError, with the line, when it is missing, no such file, or about photos
    of another folder.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig", "surrogateescape")
        rows = list(csv.DictReader(text.splitlines(keepends=True)))
    except (OSError, csv.Error) as error:
        raise EdgegraftError(
            f"{printable(path)}: expected audit.csv, got: {reason_of(error)}"
        ) from None
    required = ("path", "sha256", "exclude")
    if not rows or not set(required) <= rows[0].keys():
        got = ", ".join(str(name) for name in (rows[0] if rows else ())) or "nothing"
        raise EdgegraftError(
            f"{printable(path)}: expected the columns {', '.join(required)}, got "
            f"{got!r:.80}"
        )
    paths, digests = set(), {}
    for line, row in enumerate(rows, 2):
        exclude = (row["exclude"] or "").strip().lower()
        if exclude not in ("yes", "no", ""):
            raise EdgegraftError(
                f"{printable(path)}, line {line}: expected yes, no or nothing in the "
                f"column exclude, got {exclude!r:.40}"
            )
        photo = folder.root / (row["path"] or "")
        if exclude == "yes":
            paths.add(photo)
        if row["sha256"]:
            digests[photo] = row["sha256"]
    in_folder = frozenset(photo.path for photo in folder.photos if photo.path in paths)
    if paths and not in_folder:
        raise EdgegraftError(
            f"{printable(path)}: expected photos of {printable(folder.root)}, got none "
            f"of them (first: {printable(min(paths))}); audit this folder again"
        )
    return Exclusion(path.name, sha256(data), in_folder, digests, data)


def _write_csv(audit: Audit, path: Path) -> None:
    root = audit.folder.root
    reasons: dict[Path, list[tuple[str, str]]] = {}  # with the finding's kind
    for finding in audit.findings:
        for photo_path, reason in _reasons(finding, root):
            reasons.setdefault(photo_path, []).append((finding.kind, reason))
    rows = []
    for photo in audit.folder.photos:
        facts = audit.fact_store.get(photo.path)
        photo_reasons = reasons.get(photo.path, [])
        row = {
            "path": photo.path.relative_to(root).as_posix(),
            "label": photo.label,
            "part": photo.part or "",
            "sha256": audit.digests.get(photo.path, ""),
            "exclude": "yes" if photo.path in audit.excluded else "no",
            "findings": " ".join(dict.fromkeys(kind for kind, _ in photo_reasons)),
            "reasons": "; ".join(reason for _, reason in photo_reasons),
        }
        if facts is not None:
            row |= {name: getattr(facts, name) for name in FACTS}
        rows.append(row)
    write_csv(path, COLUMNS, ([row.get(name, "") for name in COLUMNS] for row in rows))


def _reasons(finding: Finding, root: Path) -> Iterator[tuple[Path, str]]:
    """Each photo that the finding is about, and the reason for that photo."""

    def relative(path: Path) -> str:
        return path.relative_to(root).as_posix()

    others = ", ".join(map(relative, finding.others))
    yield finding.path, f"{finding.reason} {others}".rstrip()
    if finding.kind in BOTH_WRONG:
        for other in finding.others:
            if other != finding.path:  # a list may name one file under two labels
                yield other, f"{relative(finding.path)}: {finding.reason} this one"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def html_page(audit: Audit) -> str:
    """The page as text; thumbnails are inside, so it needs nothing beside it."""
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
        height=THUMB_HEIGHT,
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
        facts="<br>".join(map(_text, [*_facts(audit), *folder.notes()])),
        sections="".join(_section(*item, folder.root) for item in kinds),
    )


def _facts(audit: Audit) -> list[str]:
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
        limit = LISTED
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
        image = open_photo(path, min_size=(2 * THUMB_HEIGHT, 2 * THUMB_HEIGHT))
    except EdgegraftError:
        return '<div class="none">no picture</div>'
    scale = min(THUMB_HEIGHT / image.height, THUMB_WIDTH / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size).save(buffer, "JPEG", quality=72)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
