"""Model: the file's card for people, and the folder to copy to a device."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st

from edge.files import read_regular
from edge.pack import MODEL, PROGRAM, REQUIREMENTS
from edge.records import Record
from edge.run_folder import USUAL, recommended
from edge.text import printable
from streamlit_app import app, charts, session, style
from streamlit_app.answer import is_png
from streamlit_app.app import DEVICE_FOLDER
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.runs import ListedModel, Run, read_run
from streamlit_app.style import literal, percent

PICTURES = (
    ("mistakes.png", "Most confident mistakes", "Wrongly classified test photos"),
    ("uncertain.png", "Most uncertain answers", "Test photos with low confidence"),
    ("robustness.png", "Robustness", "Accuracy on degraded photos"),
    ("learning.png", "Learning curve", "Accuracy against training photos"),
)
MAX_PICTURE_BYTES = 8 << 20
DEVICE_COMMANDS = f"""python3 -m zipfile -e {DEVICE_FOLDER}.zip . && cd {DEVICE_FOLDER}
python3 -m venv venv
venv/bin/pip install -r {REQUIREMENTS}
venv/bin/python {PROGRAM} classify {MODEL} photo.jpg"""


def page() -> None:
    entry = session.entry()
    pool = session.pool()
    if pool is None:
        return
    run = read_run(entry.folder) if entry.folder else None
    style.html(f"<h2>{style.text(entry.name)}</h2>")
    for problem in run.problems if run else ():
        st.info(literal(problem), icon=":material/pending:")
    numbers(pool, run, entry)
    left, right = st.columns([5, 4], gap="large")
    with left:
        about(pool, run)
    with right:
        device(entry, pool)
    if run is not None:
        figures(run, entry)


def numbers(pool: ClassifierPool, run: Run | None, entry: ListedModel) -> None:
    """Accuracy, size and latency of this file."""
    record = run.measured(entry.path.name) if run else {}
    name, value, interval = app.headline(run, record) if run else ("", "", "")
    with st.container(horizontal=True):
        if value:
            st.metric(name, value)
        elif card := app.measured(pool.facts.card):
            part, text = card[0]
            st.metric(f"Accuracy, {part} photos", text.split(" (")[0])
        if record.get("p50_ms") is not None:
            st.metric("Time per photo", f"{record['p50_ms']:.2f} ms")
        st.metric("Size", f"{pool.bytes / 1e6:.2f} MB")
        if record.get("drop") is not None:
            st.metric("Loss against float32", f"{record['drop'] * 100:.1f} points")
    if interval and run:
        host = run.comparison.get("host") or {}
        st.caption(
            f"{interval}; "
            f"{literal(str(record.get('runtime', '')))}, "
            f"{record.get('threads', 1)} thread, "
            f"{literal(str(host.get('board', 'this host')))}. "
            f"{app.weakest(run, record)}"
        )


def about(pool: ClassifierPool, run: Run | None) -> None:
    """Labels, input, network, photos."""
    rows = app.facts(pool)
    card = pool.facts.card
    if card is not None and card.familiarity_threshold is not None:
        rows.append(("Unknown", f"familiarity under {card.familiarity_threshold:.3g}"))
    if card is not None and card.temperature != 1.0:
        rows.append(("Temperature", f"{card.temperature:.3g}, part of the graph"))
    if run is not None:
        settings = run.config.get("settings") or {}
        parts = (run.config.get("data") or {}).get("parts") or {}
        for name, value in (
            ("Network", settings.get("backbone")),
            ("Weights", settings.get("weights")),
            ("Fine-tuned", _fine_tuned(run)),
            ("Trained", str(run.config.get("created", ""))[:10]),
            # A part that the schema does not know may hold anything
            (
                "Photos",
                ", ".join(f"{n:,} {p}" for p, n in parts.items() if type(n) is int),
            ),
        ):
            if value:
                rows.append((name, str(value)))
    style.facts(rows)


def _fine_tuned(run: Run) -> str:
    """The layers whose weights were trained; the setting may be `auto`."""
    layers = run.config.get("unfrozen")
    probe, best = run.config.get("probe"), run.config.get("best") or {}
    kept_probe = probe and best.get("epoch") == 0
    return "no, a linear probe" if layers == "none" or kept_probe else layers or ""


def device(entry: ListedModel, pool: ClassifierPool) -> None:
    """The folder for a device, the commands to run it, and the single files."""
    st.markdown("**On a device**")
    path = entry.path
    best = recommended(str(entry.folder)) if entry.folder else None
    if best is not None and best != entry.variant:
        st.caption(f"Recommended file of this run: **{literal(best)}**.")
    if pool.labelled:
        app.download_for_device(entry)
        st.code(DEVICE_COMMANDS, language=None, wrap_lines=True)
        command = f"edgegraft edge pack {shlex.quote(str(entry.folder or path))}"
        command += f" -o {DEVICE_FOLDER}"
        if entry.folder and entry.variant != (best or USUAL[0]):
            command += f" --variant {shlex.quote(entry.variant)}"
        options = pool.foreign.options.arguments()
        if pool.foreign.labels:
            options.append("--labels=labels.txt")
        command += "".join(f" {shlex.quote(option)}" for option in options)
        st.caption("The same folder on the command line:")
        st.code(command, language=None, wrap_lines=True)
    else:
        labels = session.config().labels
        names = shlex.quote(labels.name if labels else "labels.txt")
        st.code(
            "python3 -m venv venv\n"
            "venv/bin/pip install .  # in a checkout of edgegraft\n"
            f"venv/bin/edgegraft edge classify {shlex.quote(path.name)} photo.jpg "
            f"--labels {names}",
            language=None,
            wrap_lines=True,
        )
        st.caption("This file contains no labels: copy it together with a label file.")
    st.caption("Single files:")
    others = [
        other
        for other in session.config().models()
        if entry.folder and other.folder == entry.folder and other.path != path
    ]
    for file in (entry, *others):
        st.download_button(
            f"{literal(file.path.name)}, {file.stamp[1] / 1e6:.2f} MB",
            lambda file=file: _content(file),  # type: ignore[misc]
            file.path.name,
            "application/octet-stream",
            key=f"download {file.path}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )


def figures(run: Run, entry: ListedModel) -> None:
    """The run's figures and pictures: confusion, labels, curves, mistakes."""
    # Of this file if it was measured, else of the network before export
    record = run.measured(entry.path.name)
    evaluation = _nested(record, "evaluation") or _nested(run.metrics, "test")
    if evaluation:
        left, right = st.columns([5, 4], gap="large")
        with left:
            st.markdown("**Confusion matrix**, test photos")
            labels = evaluation.get("labels") or []
            if 0 < len(labels) <= charts.MAX_CONFUSED:
                charts.confusion(labels, evaluation.get("confusion") or [])
            else:
                st.caption(f"{len(labels)} labels are too many to draw.")
        with right:
            st.markdown("**Each label**")
            per_label(run, evaluation)
            calibration(run, evaluation)
    pictures = list(PICTURES)
    if len(run.history) > 1:
        st.markdown("**Training**")
        charts.training(run.history)
    else:  # a linear probe alone: the run's own picture shows its penalties
        pictures.insert(0, ("training.png", "Training", "Accuracy and loss"))
    for name, title, alt in pictures:
        picture = _picture(run.folder / name)
        if picture:
            st.markdown(f"**{title}**")
            st.image(picture, alt=f"{alt}, run {run.name}")


def per_label(run: Run, evaluation: Record) -> None:
    percent_column = st.column_config.NumberColumn(format="%.1f %%")
    rows = []
    for record in evaluation.get("per_class") or []:
        if isinstance(record, dict):
            label = str(record.get("label"))
            measured = record.get("photos") != 0
            rows.append(
                {
                    "label": printable(label),
                    **{
                        name: 100 * float(record.get(name) or 0) if measured else None
                        for name in ("precision", "recall")
                    },
                    "train": run.counts.get(label, {}).get("train"),
                    "test": record.get("photos"),
                }
            )
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        column_config={"precision": percent_column, "recall": percent_column},
    )


def calibration(run: Run, evaluation: Record) -> None:
    """Calibration error, reliability diagram, and the share of photos known."""
    error = evaluation.get("calibration_error")
    if isinstance(error, (int, float)):
        st.caption(
            f"Expected calibration error {percent(error)}: the mean gap between "
            "confidence and accuracy."
        )
    bins = _nested(run.metrics, "calibration", "test").get("bins_after")
    if isinstance(bins, list) and bins and isinstance(bins[0], dict):
        st.markdown("**Reliability**, before export")
        charts.reliability(bins)
    familiarity = _nested(run.metrics, "familiarity")
    known = _nested(familiarity, "test").get("share", familiarity.get("test_passed"))
    if isinstance(known, (int, float)):
        st.caption(
            f"Accepted as known: {percent(known)} of the test photos; the others are "
            "answered as unknown."
        )


def _nested(record: Record, *keys: str) -> Record:
    """The object at these keys; an empty one where there is none."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _content(file: ListedModel) -> bytes:
    if file.folder is None:  # given on the command line: links are allowed
        return file.path.read_bytes()
    return read_regular(file.path, inside=file.folder)


def _picture(path: Path) -> bytes | None:
    """A PNG of the run; None where there is none that can be decoded."""
    with suppress(OSError):
        if 0 < path.lstat().st_size <= MAX_PICTURE_BYTES:
            content = read_regular(path, inside=path.parent)
            return content if is_png(content) else None
    return None


if __name__ == "__main__":
    page()
