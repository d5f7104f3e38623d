"""Charts of runs, drawn with Altair: accuracy over latency, searches, training,
confusion, reliability. Nothing is loaded from a server; text and lines follow the
page's theme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

# Altair looks for pandas in sys.modules, where it would find a half-imported module
# while another visitor's thread imports it.
import pandas  # type: ignore[import-untyped] # noqa: F401
import streamlit as st

from edge.evaluate import pareto_front
from edge.records import Record
from edge.text import printable
from streamlit_app.runs import Run
from streamlit_app.style import ACCENT, AMBER, GREY, SERIES

MARGIN = 1.15  # the latency axis extends to this multiple, to leave room for names
MAX_CONFUSED = 30  # labels; a larger confusion matrix is not drawn
PROBE, FINAL = "cross-validated probe", "int8 file on test photos"
_DASHED = alt.MarkDef(type="line", color=GREY, strokeDash=[4, 4])


def accuracy_latency(timed: Sequence[tuple[Run, list[Record]]]) -> list[str]:
    """Every measured file as a point with its interval; a dashed line is the front.

    Returns the names of the files on the front, fastest first. A front of one file has
    no line, and without a timed file nothing is drawn.
    """
    points = [
        _point(run, record)
        for run, records in timed
        for record in records
        if record["p50_ms"] > 0  # a logarithmic axis cannot show a damaged record's 0
    ]
    if not points:
        return []
    front = [
        points[k] for k in pareto_front([(p["ms"], p["accuracy"]) for p in points])
    ]
    ticks = time_ticks([point["ms"] for point in points])
    ms, accuracy = _axes(ticks, "median", "accuracy on test photos")
    colour = alt.Color(
        "run:N",
        scale=alt.Scale(range=list(SERIES)),
        legend=alt.Legend(title=None, orient="top", symbolOpacity=1),
    )
    base = _chart(points).encode(x=ms)
    tooltip = [
        "file:N",
        *_figure_tooltips("accuracy"),
        "MB:Q",
        alt.Tooltip("photos:Q", title="test photos"),
    ]
    text = alt.MarkDef(type="text", dx=9, dy=-8, align="left", fontSize=11, color=GREY)
    _draw(
        380,
        _chart(front, _DASHED).encode(x=ms, y=accuracy),
        _intervals(base, colour),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            y=accuracy, color=colour, tooltip=tooltip
        ),
        _chart(points, text).encode(x=ms, y=accuracy, text="variant:N"),
    )
    return [str(point["file"]) for point in front]


def _point(run: Run, record: Record) -> dict[str, Any]:
    run_name, variant = printable(run.name), printable(str(record.get("variant", "?")))
    return {
        "file": f"{run_name} / {variant}",
        "run": run_name,
        "variant": variant,
        "ms": record["p50_ms"],
        "accuracy": record["accuracy"],
        "low": record.get("accuracy_low", record["accuracy"]),
        "high": record.get("accuracy_high", record["accuracy"]),
        "MB": round(record["size_bytes"] / 1e6, 2),
        "photos": record.get("photos"),
    }


def time_ticks(times: Sequence[float]) -> list[float]:
    """Round milliseconds from below the fastest to above the slowest, for a log axis:
    1, 2 and 5 times powers of ten, more of them within a factor of five."""
    low, high = min(times) / MARGIN, max(times) * MARGIN
    steps = (1.0, 2.0, 5.0) if high > 5 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{step * 10.0**power:.1e}") for power in powers for step in steps]
    first = max(k for k, tick in enumerate(ticks) if tick <= low)
    last = min(k for k, tick in enumerate(ticks) if tick >= high)
    return ticks[first : last + 1]


def _axes(ticks: Sequence[float], timing: str, accuracy: str) -> tuple[alt.X, alt.Y]:
    """Milliseconds on a logarithmic scale, and accuracy; `timing` is for the title."""
    return (
        alt.X(
            "ms:Q",
            title=f"ms per photo ({timing}, log scale)",
            scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False),
            axis=alt.Axis(values=ticks, format="~g", grid=False),
        ),
        alt.Y(
            "accuracy:Q",
            title=accuracy,
            scale=alt.Scale(zero=False, nice=True),
            axis=alt.Axis(format="~%"),
        ),
    )


def _intervals(base: alt.Chart, colour: alt.Color) -> alt.Chart:
    """The 95 % intervals of points, as vertical lines."""
    rules: alt.Chart = base.mark_rule(opacity=0.35, strokeWidth=2)
    return rules.encode(y=alt.Y("low:Q"), y2="high:Q", color=colour)


def _figure_tooltips(title: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("accuracy:Q", format=".1%", title=title),
        alt.Tooltip("low:Q", format=".1%", title="95 % from"),
        alt.Tooltip("high:Q", format=".1%", title="95 % to"),
        alt.Tooltip("ms:Q", format=".2f"),
    ]


def search(candidates: Sequence[Record], budget_ms: float | None) -> None:
    """Balanced accuracy over latency: circles are cross-validated probes, diamonds the
    int8 files of the finalists on test photos; a dashed line is the budget."""
    points = [
        {
            "network": printable(str(entry.get("name"))),
            "backbone": printable(str(entry.get("backbone"))),
            "ms": entry["timing"]["p50_ms"],
            "measured": measured,
            "accuracy": figures["balanced_accuracy"],
            "low": figures.get("balanced_low") or figures["balanced_accuracy"],
            "high": figures.get("balanced_high") or figures["balanced_accuracy"],
            "photos": figures.get("photos"),
        }
        for entry in candidates
        for key, measured in (("probe", PROBE), ("final", FINAL))
        if (figures := entry.get(key)) and figures.get("balanced_accuracy") is not None
    ]
    if not points:
        return
    ticks = time_ticks([point["ms"] for point in points])
    ms, accuracy = _axes(ticks, "median of the untrained graph", "balanced accuracy")
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, columns=4)
    colour = alt.Color("backbone:N", scale=alt.Scale(range=list(SERIES)), legend=legend)
    shape = alt.Shape(
        "measured:N",
        scale=alt.Scale(domain=[PROBE, FINAL], range=["circle", "diamond"]),
        legend=legend,
    )
    base = _chart(points).encode(x=ms)
    tooltips = _figure_tooltips("balanced accuracy")
    layers = [
        _intervals(base, colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            y=accuracy,
            color=colour,
            shape=shape,
            tooltip=["network:N", "measured:N", *tooltips, "photos:Q"],
        ),
    ]
    if budget_ms and ticks[0] < budget_ms < ticks[-1]:
        line = alt.MarkDef(type="rule", color=GREY, strokeDash=[4, 4])
        layers.append(_chart([{"ms": budget_ms}], line).encode(x=ms))
    _draw(380, *layers)


def training(history: Sequence[Mapping[str, float]]) -> None:
    """Accuracy over the epochs, training and validation."""
    parts = {"train_accuracy": "training", "val_accuracy": "validation"}
    values = [
        {"epoch": row["epoch"], "accuracy": row[key], "part": part}
        for row in history
        for key, part in parts.items()
        if key in row
    ]
    chart = _chart(values, alt.MarkDef(type="line", point=True)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y(
            "accuracy:Q",
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format="~%", title=None),
        ),
        color=alt.Color(
            "part:N",
            scale=alt.Scale(domain=list(parts.values()), range=[GREY, ACCENT]),
            legend=alt.Legend(title=None, orient="top"),
        ),
        tooltip=["part:N", "epoch:Q", alt.Tooltip("accuracy:Q", format=".1%")],
    )
    _draw(260, chart)


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
    """A confusion matrix: rows are the true labels, columns the answers, cells the
    numbers of photos, shaded by their share of the row. Nothing for many labels."""
    if not 0 < len(labels) <= MAX_CONFUSED:
        return
    names = [printable(label) for label in labels]
    values = [
        {"truth": truth, "answer": answer, "photos": n, "share": n / max(sum(row), 1)}
        for truth, row in zip(names, matrix, strict=False)
        for answer, n in zip(names, row, strict=False)
    ]
    angle = 0 if len(names) < 8 else -50
    base = _chart(values).encode(
        x=alt.X("answer:N", sort=None, axis=alt.Axis(orient="top", labelAngle=angle)),
        y=alt.Y("truth:N", sort=None),
    )
    shade = alt.Scale(range=["#e6efed", ACCENT], domain=[0, 1])
    white = alt.when(alt.datum.share > 0.55).then(alt.value("white"))
    tooltip = ["truth:N", "answer:N", "photos:Q", alt.Tooltip("share:Q", format=".1%")]
    _draw(
        90 + 54 * min(len(labels), 10),
        base.mark_rect(cornerRadius=4).encode(
            color=alt.Color("share:Q", scale=shade, legend=None), tooltip=tooltip
        ),
        base.mark_text(fontSize=13).encode(
            text="photos:Q", color=white.otherwise(alt.value("#14312d"))
        ),
    )


def reliability(bins: Sequence[Mapping[str, float]]) -> None:
    """A reliability diagram: accuracy over confidence; the diagonal is ideal."""
    values = [dict(entry) for entry in bins if entry.get("photos")]
    ticks = [0, 0.25, 0.5, 0.75, 1]
    diagonal = [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]
    x = alt.X("confidence:Q", axis=alt.Axis(format="~%", values=ticks, grid=False))
    y = alt.Y("accuracy:Q", axis=alt.Axis(format="~%", values=ticks))
    point = alt.MarkDef(type="point", filled=True, color=AMBER, opacity=1, clip=False)
    _draw(
        260,
        _chart(diagonal, _DASHED).encode(x=x, y=y),
        _chart(values, point).encode(
            x=x,
            y=y,
            size=alt.Size("photos:Q", legend=None, scale=alt.Scale(range=[40, 400])),
            tooltip=[
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                "photos:Q",
            ],
        ),
    )


def _chart(values: Sequence[Any], mark: Any = alt.Undefined) -> alt.Chart:
    """A chart of records, without pandas."""
    data: Any = alt.InlineData(values=list(values))
    return alt.Chart(data, mark=mark)


def _draw(height: int, *layers: alt.Chart) -> None:
    chart = alt.layer(*layers).properties(height=height)
    st.altair_chart(chart.configure_view(stroke=None), width="stretch")
