"""comparison.html: a comparison in one file that opens offline.

Style, script and pictures are embedded (html.css, html.js); the page's content security
policy forbids it to fetch anything or to run other scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from edge.files import write_atomic
from edge.text import percent, plural
from finetune.run import Run
from quantize.reporting import plot, sections
from quantize.reporting import text as words

if TYPE_CHECKING:
    from quantize.comparison.records import Comparison, MeasuredFile

LABELS_NAMED = 6  # in the line under the title

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
        ("files", "Accuracy", "How good each file is", sections.quality(comparison)),
        (
            "export",
            "Export",
            "How close each file is to float32, and by what",
            sections.exports(comparison),
        ),
        ("cost", "Times", "How fast each file is", sections.times(comparison)),
        ("runs", "Targets", "Where each file runs", sections.files(comparison)),
        ("labels", "Labels", "Label by label", sections.labels(comparison)),
        (
            "confusion",
            "Confusion",
            "Which labels are confused",
            sections.confusions(files),
        ),
        (
            "mistakes",
            "Mistakes",
            "Right in float32, wrong in the file",
            sections.mistakes(files),
        ),
        ("layers", "Layers", "Layer by layer", sections.layers(run) if run else ""),
        ("cards", "Cards", "Cards inside the files", sections.cards(files)),
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
