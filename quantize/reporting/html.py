"""comparison.html: everything about a comparison in one file that opens offline.

Style, script and pictures are inside (html.css, html.js); the page's own policy
forbids it to fetch anything or to run another script.

It does not know: how anything was measured.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from edge.files import write_atomic
from edge.text import plural
from finetune.run import Run
from quantize.comparison import evidence
from quantize.reporting import svg, tables
from quantize.reporting import text as report

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, Measured

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
<footer>$footer</footer>
</main><div id="tip" hidden></div>
<script>$script</script></body></html>
""")


def write(comparison: Comparison, run: Run) -> None:
    """comparison.html into the comparison's folder."""
    text = _page(comparison, run)
    path = comparison.folder / "comparison.html"
    write_atomic(path, text)


def _page(comparison: Comparison, run: Run) -> str:
    files = comparison.files
    sections = [
        ("plot", "Plot", "Accuracy against latency", _plots(comparison)),
        ("files", "Accuracy", "What each file gives", tables.gives(comparison)),
        ("cost", "Times", "What each file costs", tables.costs(comparison)),
        ("runs", "Targets", "Where each file runs", tables.runs(comparison)),
        ("classes", "Labels", "Label by label", tables.per_class(files)),
        (
            "confusion",
            "Confusion",
            "What is taken for what",
            evidence.confusions(files),
        ),
        (
            "mistakes",
            "Mistakes",
            "Right in float32, wrong here",
            evidence.mistakes(files),
        ),
        ("layers", "Layers", "Layer by layer", evidence.layers(run)),
        ("cards", "Cards", "Cards inside the files", evidence.cards(files)),
    ]
    shown = [section for section in sections if section[3]]
    labels = ", ".join(comparison.labels[:6])
    more = len(comparison.labels) - 6
    labels += f" and {more} more" if more > 0 else ""
    photos = f"{files[0].evaluation.photos:,} test photos"
    host = report.host_line(comparison)
    lead = " · ".join((labels, plural(len(files), "file"), photos, host))
    script = _asset("html.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _PAGE.substitute(
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        title=escape(comparison.run),
        style=_asset("html.css"),
        script=script,
        lead=escape(lead),
        verdict=_verdict(comparison),
        links="".join(f'<a href="#{name}">{link}</a>' for name, link, _, _ in shown),
        sections="".join(
            f'<section id="{name}"><h2>{title}</h2>{body}</section>'
            for name, _, title, body in shown
        ),
        footer=f"How it was measured. {escape(comparison.method)}.",
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _verdict(comparison: Comparison) -> str:
    choice = comparison.choice
    file = choice.file
    if file is None:
        return (
            '<section class="panel verdict none"><p class="eyebrow">Ship</p>'
            f'<strong>None</strong><p class="why">{escape(choice.why)}</p></section>'
        )
    return (
        '<section class="panel verdict"><p class="eyebrow">Ship</p>'
        f"<strong>{escape(file.title)}{_ending(file)}</strong>"
        f'<p class="why">{escape(choice.why)}.</p>'
        f'<dl class="tiles">{_tiles(comparison, file)}</dl></section>'
    )


def _ending(file: Measured) -> str:
    """What makes a title the file's name, where it is its beginning."""
    name = file.title.rpartition("/")[2]
    return file.path.name.removeprefix(name) if file.path.name.startswith(name) else ""


def _tiles(comparison: Comparison, file: Measured) -> str:
    """The chosen file's figures, each beside those of its reference."""
    low, high = file.evaluation.interval
    timing = file.at(comparison.judged)
    assert timing is not None
    tiles = [
        (
            "test accuracy",
            f"{file.evaluation.accuracy:.1%}",
            f"95 %: {100 * low:.1f} to {100 * high:.1f}",
        ),
        ("latency, median", f"{timing.p50_ms:.2f} ms", timing.setting.how),
        ("file", f"{file.size_bytes / 1e6:.2f} MB", "labels and card inside"),
        ("memory, peak", f"{timing.peak_memory_mb:.0f} MiB", "of the whole process"),
    ]
    if timing.photos_per_second is not None:
        rate = f"{timing.photos_per_second:,.0f} / s"
        tiles.append(("without a pause", rate, "photos"))
    if file.refusal:
        tiles.append(
            (
                "refuses unknown",
                f"{file.refusal.share:.1%}",
                f"and {file.refusal.known_share:.1%} of the known",
            )
        )
    reference = _reference(comparison, file)
    before = reference.at(comparison.judged) if reference else None
    if reference and before and file.paired and file.drop is not None:
        pair = file.paired
        tiles[0] = (
            *tiles[0][:2],
            f"{tiles[0][2]}; {_points(-file.drop)} (p = {pair.p:.2f})",
        )
        times = before.p50_ms / timing.p50_ms
        told = f"{times:.1f} times as fast" if times >= 1 else f"{times:.2f} as fast"
        tiles[1] = (*tiles[1][:2], f"{told} as float32; {timing.setting.how}")
        share = file.size_bytes / reference.size_bytes
        tiles[2] = (*tiles[2][:2], f"{share:.0%} of float32")
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )


def _points(share: float) -> str:
    points = round(100 * share, 1)
    return f"{points:+.1f} points" if points else "no point lost"


def _reference(comparison: Comparison, file: Measured) -> Measured | None:
    """The float32 file beside `file`, if there is another one."""
    run = file.title.rpartition("/")[0]
    for other in comparison.files:
        if other.variant == "float32" and other.title.rpartition("/")[0] == run:
            return None if other is file or other.title == file.title else other
    return None


def _plots(comparison: Comparison) -> str:
    tabs, panels = [], []
    # the setting judged by comes first and is shown
    order = sorted(comparison.settings, key=lambda one: one != comparison.judged)
    for number, setting in enumerate(order):
        tabs.append(
            f'<button role="tab" data-panel="plot-{number}">{escape(str(setting))}'
            "</button>"
        )
        panels.append(
            f'<div id="plot-{number}"><p class="note">{escape(str(setting))}</p>'
            f'<div class="broad">{svg.draw(comparison, setting, svg.WIDE)}</div>'
            f'<div class="narrow">{svg.draw(comparison, setting, svg.NARROW)}'
            "</div></div>"
        )
    return (
        f'<div class="panel"><div class="tabs" role="tablist" hidden>{"".join(tabs)}'
        f"</div>{''.join(panels)}</div>"
        '<p class="note">A bubble&#8217;s area is the file&#8217;s size, the bar '
        "through it the 95 % interval of its accuracy. Dashed: from file to file of "
        "the Pareto front, those that no other beats in time and accuracy (no line "
        "where one file beats all). The ringed file is the one to ship.</p>"
    )
