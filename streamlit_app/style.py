"""The style sheet, and the pieces of HTML that pages share.

Text from files and visitors is escaped here: `text` for HTML, `literal` for Markdown.
Pictures are embedded, so that an answer arrives in one message.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterable, Sequence
from html import escape

import streamlit as st

from edge.classifier import Prediction, tenths
from edge.text import printable

ACCENT, AMBER, GREY = "#0d9488", "#d97706", "#8a9693"
SERIES = ("#0d9488", "#d97706", "#6366f1", "#db2777", "#65a30d", "#0284c7", "#8a9693")
SMALLEST = 0.0005  # a smaller fraction is shown as <0.1 %
# An int8 or uint8 softmax has steps of 1/256 (TFLite's quantization specification):
# its 0 means anything below one step, its largest value is 255/256.
STEP = 1 / 256
# The beginning of an address: "http:", "www", or the character before an "@"
_ADDRESS = re.compile(r"https?:|www(?=\.)|\S(?=@)", re.IGNORECASE)
_MARKDOWN = str.maketrans({sign: "\\" + sign for sign in string.punctuation})

_STYLE = """<style>
.block-container {padding-top: 4.2rem; padding-bottom: 3rem; max-width: 1120px}
.eg {--line: color-mix(in srgb, currentColor 14%, transparent);
  --soft: color-mix(in srgb, currentColor 62%, transparent); line-height: 1.4}
.eg-soft {color: var(--soft); font-size: .86rem}
.eg h2 {font-size: 2rem; font-weight: 650; margin: 0; padding: 0; line-height: 1.15;
  overflow-wrap: anywhere}
.eg h3 {font-size: 1.05rem; font-weight: 600; margin: 0; padding: 0;
  overflow-wrap: anywhere}
.eg h2 b, .eg h3 b {font-weight: 400; color: var(--soft);
  font-variant-numeric: tabular-nums}
.eg ul.eg-bars {display: grid; gap: .45rem .7rem; list-style: none;
  grid-template-columns: fit-content(45%) 1fr max-content; align-items: center;
  margin: .9rem 0 .6rem !important; padding: 0 !important; font-size: .92rem}
.eg .eg-bars li {display: contents}
.eg-bars span:first-child {overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap}
.eg-track {height: .55rem; border-radius: .3rem; background: var(--line);
  overflow: hidden}
.eg-track i {display: block; height: 100%; border-radius: .3rem; background: #8a9693}
.eg-bars li:first-child .eg-track i {background: #0d9488}
.eg-bars.uncertain li:first-child .eg-track i {background: #d97706}
.eg-bars em {font-style: normal; text-align: right; font-variant-numeric: tabular-nums}
.eg-frame {border: 1px solid var(--line); border-radius: .7rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 4%, transparent); display: flex;
  align-items: center; justify-content: center; height: min(52vh, 430px)}
.eg-frame img {max-width: 100%; max-height: 100%; object-fit: contain; display: block}
.eg-frame.input img {height: 100%; image-rendering: auto}
.eg-card img {width: 100%; height: 168px; object-fit: cover; border-radius: .5rem;
  display: block; margin-bottom: .5rem}
.eg-card ul.eg-bars {font-size: .84rem; gap: .25rem .6rem;
  margin: .5rem 0 .2rem !important}
.eg-badge {display: inline-block; font-size: .78rem; padding: .08rem .5rem;
  border-radius: 1rem; border: 1px solid currentColor; margin-left: .5rem;
  vertical-align: middle; color: #b45309;
  font-weight: 500; line-height: 1.3; letter-spacing: 0}
@media (max-width: 640px) {.eg-frame {height: 250px}
  .eg .eg-row {grid-template-columns: repeat(4, 1fr)}
  [data-testid="stColumn"]:has([class*="st-key-tile-"]) {min-width: 28%; flex: 1 1 28%}
}
@media (prefers-color-scheme: dark) {.eg-badge {color: #fbbf24}
  [data-testid="stBaseButton-primary"]:enabled,
  [data-testid="stMultiSelect"] span[title] {color: #0f1514}}
.eg-burst video {display: block; width: 100%; max-width: 480px; aspect-ratio: 4/3;
  border-radius: .6rem; background: #0f1514; margin-bottom: .6rem}
.eg-burst :is(button, select) {font: inherit; color: inherit; background: transparent;
  border: 1px solid var(--soft); border-radius: .6rem; padding: .3rem .8rem;
  margin-right: .6rem}
.eg-burst option {color: #0f1514} .eg-burst p {font-size: 1.4rem; min-height: 2rem}
[class*="st-key-tile-"] {gap: 0}
[class*="st-key-tile-"] img {cursor: pointer; height: auto; aspect-ratio: 1}
[class*="st-key-tile-"]:has(input:checked) img {outline: 3px solid #0d9488;
  outline-offset: -3px}
.eg-facts {display: grid; grid-template-columns: auto 1fr; gap: .3rem .9rem;
  font-size: .88rem; margin: .3rem 0 !important; padding: 0 !important}
.eg-facts dt {color: var(--soft); margin: 0} .eg-facts dd {margin: 0;
  overflow-wrap: anywhere}
.eg-shots {display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr));
  gap: .7rem} .eg-shots figure {margin: 0} .eg-shots img {width: 100%; height: 110px;
  object-fit: cover; border-radius: .4rem} .eg-shots figcaption {font-size: .78rem;
  color: var(--soft); overflow: hidden; text-overflow: ellipsis}
.eg-row {grid-template-columns: repeat(8, 1fr)}
.eg .eg-row img {height: auto; aspect-ratio: 1; display: block}
.eg-hidden {position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%)}
</style>"""


def style(title: str) -> None:
    """The style sheet, and the page's title for screen readers."""
    st.html(_STYLE)
    html(f'<h1 class="eg-hidden">edgegraft: {text(title)}</h1>')


def html(body: str, kind: str = "") -> None:
    """Show HTML whose parts are escaped already."""
    st.html(f'<div class="eg {kind}">{body}</div>')


def text(value: str) -> str:
    """`value` as text inside HTML, in an element or a quoted attribute."""
    return escape(printable(value))


def literal(value: str) -> str:
    """`value` as text inside Markdown, without markup, links, pictures and icons.

    Addresses get a word joiner (invisible, no width): Streamlit's Markdown turns them
    into links after it has removed the backslashes.
    """
    unlinked = _ADDRESS.sub("\\g<0>\u2060", printable(value))
    return unlinked.translate(_MARKDOWN)


def percent(fraction: float) -> str:
    """0.982 -> 98.2 %."""
    return "<0.1 %" if 0 < fraction < SMALLEST else f"{fraction * 100:.1f} %"


def probability(value: float) -> str:
    """Like `percent`, but 0 is shown as less than one step of an integer output."""
    return f"<{percent(STEP)}" if value == 0 else percent(value)


def data_url(picture: bytes) -> str:
    """A JPEG or PNG as a data: address."""
    kind = "png" if picture[:4] == b"\x89PNG" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def image(picture: bytes, alt: str) -> str:
    return f'<img src="{data_url(picture)}" alt="{text(alt)}">'


def frame(picture: bytes, alt: str, kind: str = "") -> None:
    """One picture in a frame of constant size, so that nothing moves."""
    html(f'<div class="eg-frame {kind}">{image(picture, alt)}</div>')


def bars(ranking: Sequence[tuple[str, float]], uncertain: bool = False) -> str:
    """The best labels as bars; a screen reader reads label and percent."""
    rounded = tenths([value for _, value in ranking])
    rows = "".join(
        f'<li role="listitem"><span title="{text(label)}">{text(label)}</span>'
        f'<span class="eg-track" aria-hidden="true">'
        f'<i style="width:{min(max(value, 0), 1) * 100:.1f}%"></i></span>'
        f"<em>{escape(probability(value if value < SMALLEST else shown))}</em></li>"
        for (label, value), shown in zip(ranking, rounded, strict=True)
    )
    kind = "eg-bars uncertain" if uncertain else "eg-bars"
    return f'<ul role="list" class="{kind}">{rows}</ul>'


def headline(prediction: Prediction, threshold: float, level: int = 2) -> str:
    """The answer as a heading, with a badge when it is uncertain or rejected."""
    badge = '<span class="eg-badge">{}</span>'
    if not prediction.known:
        return f"<h{level}>unknown{badge.format('rejected')}</h{level}>"
    uncertain = prediction.probability < threshold
    note = badge.format("uncertain") if uncertain else ""
    label, value = prediction.ranking[0]
    return f"<h{level}>{text(label)} <b>{percent(value)}</b>{note}</h{level}>"


def warning(
    prediction: Prediction, threshold: float, limit: float | None
) -> str | None:
    """A sentence why the answer may be wrong; None without a reason. `limit` is the
    familiarity threshold of the card."""
    label, value = prediction.ranking[0]
    if prediction.known:
        if prediction.probability < threshold:
            return f"{percent(value)} is below the threshold of {percent(threshold)}."
        return None
    if prediction.familiarity is None:
        return (
            f"{percent(value)} is below the score threshold of the model file. Closest "
            f"label: {label}."
        )
    below = "" if limit is None else f" < {limit:.2g}"
    return (
        f"Not like the training photos (familiarity {prediction.familiarity:.2g}"
        f"{below}). Closest label: {label}."
    )


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, side by side."""
    body = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in rows)
    html(f'<dl class="eg-facts">{body}</dl>')


def gallery(pictures: Iterable[tuple[bytes, str]], *, captions: bool = True) -> None:
    """Small pictures, each with a line of text below it. Without captions the text is
    for screen readers only, and eight pictures share a row (four on a phone)."""
    body = "".join(
        f"<figure>{image(picture, line)}"
        + (f"<figcaption>{text(line)}</figcaption>" if captions else "")
        + "</figure>"
        for picture, line in pictures
    )
    html(f'<div class="eg-shots{"" if captions else " eg-row"}">{body}</div>')
