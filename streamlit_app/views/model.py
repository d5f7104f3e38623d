"""Model: the card for people, and the folder to take to a device."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from streamlit_app import app, charts, session, style
from streamlit_app.model_pool import Pool
from streamlit_app.models import ModelFile
from streamlit_app.runs import Record, Run, read_run
from streamlit_app.views import device

PICTURES = (
    ("mistakes.png", "Surest mistakes", "Test photos answered wrongly, surest first"),
    ("unsure.png", "Least sure answers", "The test photos the network doubts most"),
    ("robustness.png", "Robustness", "Accuracy on spoilt photos"),
    ("learning.png", "Learning curve", "Accuracy against training photos"),
)
MOST_PICTURE_BYTES = 8 << 20


def page() -> None:
    entry = session.entry()
    pool = session.pool()
    if pool is None:
        return
    run = read_run(entry.folder) if entry.folder else None
    style.html(f"<h2>{escape(entry.name)}</h2>")
    for problem in run.problems if run else ():
        st.info(style.plain(problem), icon=":material/pending:")
    numbers(pool, run, entry)
    left, right = st.columns([5, 4], gap="large")
    with left:
        about(pool, run)
    with right:
        device.take(entry, pool)
    if run is not None:
        whole_run(run, entry)


def numbers(pool: Pool, run: Run | None, entry: ModelFile) -> None:
    """Accuracy, size and latency of this very file."""
    record = _measured(run, entry)
    told = dict(app.measured(pool.facts.card))
    accuracy = record.get("accuracy")
    with st.container(horizontal=True):
        if accuracy is not None:
            st.metric("Accuracy, test photos", style.percent(accuracy))
        elif told:
            part, text = next(iter(told.items()))
            st.metric(f"Accuracy, {part}", text.split(" (")[0])
        if record.get("p50_ms") is not None:
            st.metric("Time a photo", f"{record['p50_ms']:.2f} ms")
        st.metric("Size", f"{pool.bytes / 1e6:.2f} MB")
        if record.get("drop") is not None:
            st.metric("Lost against float", f"{record['drop'] * 100:.1f} points")
    if accuracy is not None and record.get("accuracy_low") is not None:
        host = (run.comparison.get("host") or {}) if run else {}
        st.caption(
            f"95 % interval {style.percent(record['accuracy_low'])} to "
            f"{style.percent(record['accuracy_high'])} on "
            f"{record.get('photos', '?')} photos; "
            f"{style.plain(str(record.get('runtime', '')))}, "
            f"{record.get('threads', 1)} thread, "
            f"{style.plain(str(host.get('board', 'this host')))}."
        )


def about(pool: Pool, run: Run | None) -> None:
    """Labels, photos, network, how photos become input."""
    rows = app.facts(pool)
    card = pool.facts.card
    if card is not None and card.familiarity_threshold is not None:
        rows.append(("Unknown", f"refused under {card.familiarity_threshold:.3g}"))
    if card is not None and card.temperature != 1.0:
        rows.append(("Temperature", f"{card.temperature:.3g}, folded into the file"))
    if run is not None:
        settings = run.config.get("settings") or {}
        parts = (run.config.get("data") or {}).get("parts") or {}
        for name, value in (
            ("Network", settings.get("backbone")),
            ("Weights", settings.get("weights")),
            ("Fine-tuned", settings.get("unfreeze")),
            ("Trained", str(run.config.get("created", ""))[:10]),
            ("Photos", ", ".join(f"{n:,} {part}" for part, n in parts.items())),
        ):
            if value:
                rows.append((name, str(value)))
    style.facts(rows)


def whole_run(run: Run, entry: ModelFile) -> None:
    """What was measured of the run: confusion, classes, curves, mistakes."""
    evaluation = _evaluation(run, entry)
    if evaluation:
        left, right = st.columns([5, 4], gap="large")
        with left:
            st.markdown("**Confusion**, test photos")
            labels = evaluation.get("labels") or []
            if 0 < len(labels) <= charts.MOST_CONFUSED:
                charts.confusion(labels, evaluation.get("confusion") or [])
            else:
                st.caption(f"{len(labels)} labels are too many to draw.")
        with right:
            st.markdown("**Each label**")
            classes(run, evaluation)
            calibration(run, evaluation)
    pictures = list(PICTURES)
    if len(run.history) > 1:
        st.markdown("**Training**")
        charts.training(run.history)
    else:  # only the probe was fitted: its penalties are in the run's own picture
        pictures.insert(0, ("training.png", "Training", "Accuracy and loss"))
    for name, title, alt in pictures:
        picture = _picture(run.folder / name)
        if picture:
            st.markdown(f"**{title}**")
            st.image(picture, alt=f"{alt}, run {run.name}")


def classes(run: Run, evaluation: Record) -> None:
    percent = st.column_config.NumberColumn(format="%.1f %%")
    rows = []
    for found in evaluation.get("per_class") or []:
        if isinstance(found, dict):
            parts = run.counts.get(str(found.get("label")), {})
            rows.append(
                {
                    "label": found.get("label"),
                    "precision": 100 * float(found.get("precision") or 0),
                    "recall": 100 * float(found.get("recall") or 0),
                    "train": parts.get("train"),
                    "test": found.get("photos"),
                }
            )
    st.dataframe(
        rows,
        hide_index=True,
        column_config={"precision": percent, "recall": percent},
    )


def calibration(run: Run, evaluation: Record) -> None:
    """Do the probabilities mean what they say, and what is refused?"""
    error = evaluation.get("calibration_error")
    if isinstance(error, (int, float)):
        st.caption(
            f"Expected calibration error {style.percent(error)}: by so much a told "
            "probability is off, on average."
        )
    bins = _within(run.metrics, "calibration", "test").get("bins_after")
    if isinstance(bins, list) and bins and isinstance(bins[0], dict):
        st.markdown("**Reliability**, before export")
        charts.reliability(bins)
    known = _within(run.metrics, "familiarity")
    share = _within(known, "test").get("share", known.get("test_passed"))
    if isinstance(share, (int, float)):
        st.caption(
            f"{style.percent(share)} of the test photos are known to the model; the "
            "others would be answered as unknown."
        )


def _within(record: Record, *keys: str) -> Record:
    """The object at these keys; an empty one where there is none."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _measured(run: Run | None, entry: ModelFile) -> Record:
    """What comparison.json says of this file."""
    for record in run.files if run else []:
        if record.get("file") == entry.path.name:
            return record
    return {}


def _evaluation(run: Run, entry: ModelFile) -> Record:
    """Of this very file if it was measured; else the network's before export."""
    inner: Any = _measured(run, entry).get("evaluation")
    record = inner if isinstance(inner, dict) else {}
    whole: Any = run.metrics.get("test")
    return {**(whole if isinstance(whole, dict) and not record else {}), **record}


def _picture(path: Path) -> bytes | None:
    try:
        if 0 < path.stat().st_size <= MOST_PICTURE_BYTES:
            return path.read_bytes()
    except OSError:
        pass
    return None


if __name__ == "__main__":
    page()
