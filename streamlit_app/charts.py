"""Vega-Lite pictures of runs: accuracy against latency, curves, confusion, reliability.

Plain specifications, drawn by the Vega that Streamlit brings along: nothing is loaded
from elsewhere, and colours of text and lines follow the page's theme.

It does not know: where the numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from streamlit_app.runs import Record, Run, front
from streamlit_app.style import ACCENT, AMBER, GREY, SERIES

Values = list[dict[str, Any]]
ROOM = 1.15  # times a file's latency that the axis goes on beyond it, for its name
MOST_CONFUSED = 30  # labels; a matrix with more is told by its table only


def accuracy_latency(timed: Sequence[tuple[Run, list[Record]]]) -> list[str]:
    """Every measured file: hover tells all, the line is the front.

    The names of the files on the front, the fastest first: of one alone no line is
    drawn, and without any there is no picture.
    """
    points: Values = []
    for run, records in timed:
        for record in records:
            if not record["p50_ms"] > 0:  # damaged: no logarithm
                continue
            points.append(
                {
                    "file": f"{run.name} / {record.get('variant', '?')}",
                    "run": run.name,
                    "variant": str(record.get("variant", "?")),
                    "ms": record["p50_ms"],
                    "accuracy": record["accuracy"],
                    "low": record.get("accuracy_low", record["accuracy"]),
                    "high": record.get("accuracy_high", record["accuracy"]),
                    "MB": round(record["size_bytes"] / 1e6, 2),
                    "photos": record.get("photos"),
                }
            )
    if not points:
        return []
    best = [points[k] for k in front([(p["ms"], p["accuracy"]) for p in points])]
    accuracy = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"zero": False, "nice": True},
        "axis": {"format": "~%", "title": "accuracy on test photos"},
    }
    ticks = time_ticks([point["ms"] for point in points])
    latency = {
        "field": "ms",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "domain": [ticks[0], ticks[-1]]},
        "axis": {
            "title": "milliseconds a photo (median, log)",
            "grid": False,
            "values": ticks,
            "format": "~g",
        },
    }
    tooltip = [
        {"field": "file", "title": "file"},
        {"field": "accuracy", "format": ".1%"},
        {"field": "low", "format": ".1%", "title": "95 % from"},
        {"field": "high", "format": ".1%", "title": "95 % to"},
        {"field": "ms", "format": ".2f"},
        {"field": "MB"},
        {"field": "photos", "title": "test photos"},
    ]
    colour = {
        "field": "run",
        "scale": {"range": list(SERIES)},
        "legend": {"title": None, "orient": "top", "symbolOpacity": 1},
    }
    _draw(
        [
            {
                "data": {"values": best},
                "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4]},
                "encoding": {"x": latency, "y": accuracy},
            },
            {
                "data": {"values": points},
                "mark": {"type": "rule", "opacity": 0.35, "strokeWidth": 2},
                "encoding": {
                    "x": latency,
                    "y": {**accuracy, "field": "low"},
                    "y2": {"field": "high"},
                    "color": colour,
                },
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                "encoding": {
                    "x": latency,
                    "y": accuracy,
                    "color": colour,
                    "tooltip": tooltip,
                },
            },
            {
                "data": {"values": points},
                "mark": {"type": "text", "dx": 9, "dy": -8, "align": "left",
                         "fontSize": 11},
                "encoding": {
                    "x": latency,
                    "y": accuracy,
                    "text": {"field": "variant"},
                    "color": {"value": GREY},
                },
            },
        ],
        380,
    )  # fmt: skip
    return [point["file"] for point in best]


def time_ticks(times: Sequence[float]) -> list[float]:
    """Round milliseconds from below the fastest to above the slowest, for a log axis:
    1, 2 and 5 of each power of ten; within a factor of five closer ones."""
    low, high = min(times) / ROOM, max(times) * ROOM
    steps = (1.0, 2.0, 5.0) if high > 5 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    round_ones = [
        float(f"{step * 10.0**power:.1e}") for power in powers for step in steps
    ]
    first = max(k for k, tick in enumerate(round_ones) if tick <= low)
    last = min(k for k, tick in enumerate(round_ones) if tick >= high)
    return round_ones[first : last + 1]


def training(history: Sequence[Mapping[str, float]]) -> None:
    """Accuracy over the epochs, training and validation."""
    values = [
        {"epoch": row["epoch"], "accuracy": row[key], "part": name}
        for row in history
        for key, name in (
            ("train_accuracy", "training"),
            ("val_accuracy", "validation"),
        )
        if key in row
    ]
    encoding = {
        "x": {"field": "epoch", "type": "quantitative",
              "axis": {"tickMinStep": 1, "grid": False}},
        "y": {"field": "accuracy", "type": "quantitative",
              "scale": {"zero": False}, "axis": {"format": "~%", "title": None}},
        "color": {"field": "part", "scale": {"domain": ["training", "validation"],
                  "range": [GREY, ACCENT]}, "legend": {"title": None, "orient": "top"}},
        "tooltip": [{"field": "part"}, {"field": "epoch"},
                    {"field": "accuracy", "format": ".1%"}],
    }  # fmt: skip
    _draw(
        [
            {
                "data": {"values": values},
                "mark": {"type": "line", "point": True},
                "encoding": encoding,
            }
        ],
        260,
    )


def confusion(labels: Sequence[str], table: Sequence[Sequence[int]]) -> None:
    """Rows are the truth, columns the answers; the shade is the share of a row."""
    values = [
        {"truth": truth, "answer": answer, "photos": count,
         "share": count / max(sum(row), 1)}
        for truth, row in zip(labels, table, strict=False)
        for answer, count in zip(labels, row, strict=False)
    ]  # fmt: skip
    side = {"type": "nominal", "sort": None}
    base = {
        "x": {**side, "field": "answer", "axis": {"orient": "top", "labelAngle": 0 if
              len(labels) < 8 else -50}},
        "y": {**side, "field": "truth"},
    }  # fmt: skip
    tooltip = [{"field": "truth"}, {"field": "answer"}, {"field": "photos"},
               {"field": "share", "format": ".1%"}]  # fmt: skip
    _draw(
        [
            {
                "data": {"values": values},
                "mark": {"type": "rect", "cornerRadius": 4},
                "encoding": {
                    **base,
                    "color": {"field": "share", "type": "quantitative",
                              "scale": {"range": ["#e6efed", ACCENT], "domain": [0, 1]},
                              "legend": None},
                    "tooltip": tooltip,
                },
            },
            {
                "data": {"values": values},
                "mark": {"type": "text", "fontSize": 13},
                "encoding": {
                    **base,
                    "text": {"field": "photos"},
                    "color": {"condition": {"test": "datum.share > 0.55",
                              "value": "white"}, "value": "#14312d"},
                },
            },
        ],
        90 + 54 * min(len(labels), 10),
    )  # fmt: skip


def reliability(bins: Sequence[Mapping[str, float]]) -> None:
    """How often answers of a confidence were right; the diagonal is ideal."""
    values = [dict(found) for found in bins if found.get("photos")]
    axis = {"format": "~%", "values": [0, 0.25, 0.5, 0.75, 1]}
    _draw(
        [
            {
                "data": {"values": [{"c": 0, "a": 0}, {"c": 1, "a": 1}]},
                "mark": {"type": "line", "color": GREY, "strokeDash": [4, 4]},
                "encoding": {
                    "x": {"field": "c", "type": "quantitative"},
                    "y": {"field": "a", "type": "quantitative"},
                },
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "color": AMBER,
                         "opacity": 1, "clip": False},
                "encoding": {
                    "x": {"field": "confidence", "type": "quantitative",
                          "axis": {**axis, "title": "told probability", "grid": False}},
                    "y": {"field": "accuracy", "type": "quantitative",
                          "axis": {**axis, "title": "found right"}},
                    "size": {"field": "photos", "type": "quantitative",
                             "legend": None, "scale": {"range": [40, 400]}},
                    "tooltip": [{"field": "confidence", "format": ".1%"},
                                {"field": "accuracy", "format": ".1%"},
                                {"field": "photos"}],
                },
            },
        ],
        260,
    )  # fmt: skip


def _draw(layer: list[dict[str, Any]], height: int) -> None:
    st.vega_lite_chart(
        {"layer": layer, "height": height, "config": {"view": {"stroke": None}}},
        width="stretch",
    )
