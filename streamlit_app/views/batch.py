"""Batch: hundreds of photos on all cores, then a table to sort, filter and download.

Photos in label folders of a ZIP are scored: accuracy and confusion matrix. Downloads
are CSV and JSON, those of `edgegraft edge classify --csv` and `--json` (the same
columns, keys and digits), and a ZIP of the photos sorted into label folders.
"""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from edge.classifier import UNKNOWN, Classifier
from edge.classify.output import CsvWriter, model_record, photo_record
from edge.classify.workers import in_order
from edge.errors import EdgegraftError, reason_of
from edge.evaluate import wilson
from edge.text import plural, printable
from streamlit_app import answer, consent, dropzone, session, style
from streamlit_app.answer import MAX_LABELS, Row
from streamlit_app.dropzone import MEBIBYTE, Photo
from streamlit_app.feedback import SENT, WRONG
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.style import literal, percent

REFRESH_S = 0.2  # between two steps of the progress bar
FAILURES_SHOWN = 20
ROW_HEIGHT, TABLE_HEIGHT = 52, 440  # pixels
MAX_SORTED_BYTES = 1024 * MEBIBYTE  # of a ZIP, which is built in memory
Results = list[tuple[Photo, Row]]


@dataclass
class Job:
    """The answers so far to one set of photos, by `Photo.key`; a rerun continues it.

    `failures` are (name, reason).
    """

    rows: dict[str, Row] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0


def page() -> None:
    pool = session.pool()
    drop = dropzone.photos(camera=False)
    if pool is None:
        return
    if not drop.photos and not drop.refused:
        style.html(
            '<p class="eg-soft">Drop photos, or one ZIP of them. All cores classify '
            "them; sort, filter and download the table as CSV, JSON, or a ZIP with a "
            "folder per label. A ZIP with a folder per label also gets its accuracy "
            "and confusion matrix.</p>"
        )
        consent.notice()
        return
    placeholder = st.empty()
    job = _job(pool, drop.photos)
    # The bar's container replaces the results of the previous photos
    with placeholder.container():
        classify(pool, drop.photos, job)
    with placeholder.container():
        if job.rows:
            show(pool, drop.photos, job)
    failures = list(job.failures.values())
    for name, reason in failures[:FAILURES_SHOWN]:
        dropzone.unreadable(name, reason)
    if len(failures) > FAILURES_SHOWN:
        st.caption(f"{len(failures) - FAILURES_SHOWN:,} more; the JSON lists them all.")
    dropzone.show_refused(drop)
    consent.notice()


def _job(pool: ClassifierPool, photos: list[Photo]) -> Job:
    """The job of these photos and this model; it replaces the previous one."""
    key = (pool.digest, tuple(photo.key for photo in photos))
    if st.session_state.get("job of") != key:
        st.session_state["job of"] = key
        st.session_state["job"] = Job()
    job: Job = st.session_state["job"]
    return job


def classify(pool: ClassifierPool, photos: list[Photo], job: Job) -> None:
    """Classify the remaining photos, in order, with a bar that shows the time left."""
    finished = job.rows.keys() | job.failures.keys()
    remaining = [photo for photo in photos if photo.key not in finished]
    if not remaining:
        return
    top_k = min(MAX_LABELS, len(pool.facts.labels))

    def work(_: int, photo: Photo) -> tuple[Photo, Row | str]:
        try:
            return photo, answer.row(pool, photo.read(), top_k)
        except (OSError, EdgegraftError) as error:
            return photo, reason_of(error)

    # The classifiers run in processes: one thread more decodes while these work
    workers = range(pool.size + 1)
    total = len(remaining)
    bar = st.progress(0.0, text=plural(total, "photo"))
    start = refreshed = time.monotonic()
    before = job.seconds
    for done, (photo, result) in enumerate(in_order(remaining, work, workers), 1):
        if isinstance(result, str):
            job.failures[photo.key] = (photo.name, result)
        else:
            job.rows[photo.key] = result
            consent.save_if_uncertain(photo, result.prediction)
        now = time.monotonic()
        job.seconds = before + now - start
        if now - refreshed >= REFRESH_S:
            refreshed = now
            speed = done / (now - start)
            minutes, seconds = divmod(int((total - done) / speed), 60)
            bar.progress(
                done / total,
                text=f"{done:,} of {total:,}, {speed:.0f} per second, "
                f"{minutes}:{seconds:02d} left",
            )
    bar.empty()


def show(pool: ClassifierPool, photos: list[Photo], job: Job) -> None:
    """Counts, scores, filter, table, downloads."""
    results = [
        (photo, job.rows[photo.key]) for photo in photos if photo.key in job.rows
    ]
    total = len(results)
    counts = Counter(row.prediction.label for _, row in results)
    fractions = [(label, n / total) for label, n in counts.most_common(MAX_LABELS)]
    style.html(
        f"<h2>{plural(total, 'photo')} <b>in {job.seconds:.1f} s, "
        f"{total / max(job.seconds, 1e-3):.0f} per second</b></h2>"
        + style.bars(fractions)
    )
    score(pool, results)
    shown = choose(results, counts)
    scored = any(true_label(photo, pool) for photo, _ in results)
    review(shown, table(shown, scored, pool), pool)
    downloads(pool, results, list(job.failures.values()))


def true_label(photo: Photo, pool: ClassifierPool) -> str | None:
    """The label whose folder the photo is in; None where its folder is no label."""
    folder = PurePosixPath(photo.name.replace("\\", "/")).parent.name
    return folder if folder in pool.facts.labels else None


def score(pool: ClassifierPool, results: Results) -> None:
    """Accuracy and confusion matrix of the photos in label folders. As in `edgegraft
    edge evaluate`, the best label counts, whether rejected or not."""
    scored = [
        (truth, row.prediction)
        for photo, row in results
        if (truth := true_label(photo, pool))
    ]
    if not scored:
        return
    pairs = [(truth, prediction.ranking[0][0]) for truth, prediction in scored]
    right = sum(truth == label for truth, label in pairs)
    low, high = wilson(right, len(pairs))
    st.markdown(
        f"**Accuracy {percent(right / len(pairs))}** (95 % interval {percent(low)} to "
        f"{percent(high)}): {right:,} of {plural(len(pairs), 'photo')} in label folders"
    )
    rejected = sum(not prediction.known for _, prediction in scored)
    if rejected:
        st.caption(f"{plural(rejected, 'photo')} of these rejected as unknown.")
    if len(pairs) < len(results):
        others = plural(len(results) - len(pairs), "photo")
        st.caption(f"Not scored: {others} in no folder named after a label.")
    from streamlit_app import charts  # loads Altair: only where a matrix is drawn

    counts = Counter(pairs)
    present = set(chain.from_iterable(pairs))
    labels = [label for label in pool.facts.labels if label in present]
    matrix = [[counts[truth, label] for label in labels] for truth in labels]
    charts.confusion(labels, matrix)


def choose(results: Results, counts: Counter[str]) -> Results:
    """The rows that pass the visitor's filter."""
    threshold = session.threshold()
    uncertain = sum(is_uncertain(row, threshold) for _, row in results)
    options = {f"{literal(label)} {n:,}": label for label, n in counts.most_common()}
    uncertain_title = f"uncertain {uncertain:,}"
    selected = st.pills(
        "Show only",
        [*options, *([uncertain_title] if uncertain else [])],
        selection_mode="multi",
        key="only",
    )
    labels = {options.get(title) for title in selected}
    return [
        (photo, row)
        for photo, row in results
        if not selected
        or row.prediction.label in labels
        or (uncertain_title in selected and is_uncertain(row, threshold))
    ]


def table(shown: Results, scored: bool, pool: ClassifierPool) -> Results:
    """Sortable by a click on a column; its toolbar searches. The selected rows."""
    rows = []
    for photo, row in shown:
        prediction = row.prediction
        truth = {"true label": true_label(photo, pool)} if scored else {}
        rows.append(
            {
                "": style.data_url(row.thumbnail),
                "photo": printable(photo.name),
                "label": prediction.label,
                **truth,
                "probability": 100 * prediction.probability,
                "second": " ".join(
                    f"{label} {style.probability(value)}"
                    for label, value in prediction.ranking[1:2]
                ),
                "ms": row.inference_ms,
            }
        )
    state: Any = st.dataframe(
        rows,
        key=f"table {hash(tuple(photo.key for photo, _ in shown))}",
        on_select="rerun" if consent.agreed() else "ignore",
        selection_mode="multi-row",
        hide_index=True,
        height=min(TABLE_HEIGHT, ROW_HEIGHT * len(rows) + 38),
        row_height=ROW_HEIGHT,
        column_config={
            "": st.column_config.ImageColumn(width=64),
            "photo": st.column_config.TextColumn(width="medium"),
            "probability": st.column_config.ProgressColumn(
                format="%.1f %%", min_value=0.0, max_value=100.0
            ),
            "ms": st.column_config.NumberColumn(format="%.1f", width="small"),
        },
    )
    if not consent.agreed():
        return []
    return [shown[index] for index in state["selection"]["rows"] if index < len(shown)]


def review(
    shown: Results,
    selected: Results,
    pool: ClassifierPool,
) -> None:
    """Mark the selected answers as wrong, or send all of the table to Review."""
    if not consent.agreed():
        st.caption(
            "Wrong answers? Turn on **Review** to mark them here and train with them."
        )
        return
    right_label = None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if selected:
            right_label = st.selectbox(
                f"{plural(len(selected), 'selected photo')} show",
                pool.facts.labels,
                index=None,
                placeholder="the right label, if you know it",
                key="right label",
                width=280,
            )
        mark_wrong = st.button(
            "Mark as wrong",
            disabled=not selected,
            icon=":material/flag:",
            help="Select rows of the table first",
        )
        send_all = st.button(
            f"Send {plural(len(shown), 'photo')} to Review",
            icon=":material/rate_review:",
        )
    if mark_wrong:
        consent.save_all(selected, WRONG, right_label)
    if send_all:
        consent.save_all(shown, SENT)


def downloads(
    pool: ClassifierPool,
    results: Results,
    failures: list[tuple[str, str]],
) -> None:
    """Download buttons; a file is written when its button is clicked."""
    top_k = min(MAX_LABELS, len(pool.facts.labels))
    model = str(session.entry().path)
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            lambda: answers_csv(pool.facts, results, top_k),
            "answers.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "JSON",
            lambda: answers_json(pool.facts, model, results, failures),
            "answers.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Sorted photos",
            lambda: sorted_zip(results),
            "sorted.zip",
            "application/zip",
            icon=":material/folder_zip:",
            on_click="ignore",
            help="The original photos, in a folder per label",
        )


def answers_csv(classifier: Classifier, results: Results, top_k: int) -> str:
    """A header and a row for each photo."""
    file = io.StringIO()
    writer = CsvWriter(file, classifier, top_k)
    writer.begin()
    for photo, row in results:
        writer.photo(photo.name, row.prediction, row.decode_ms, row.inference_ms)
    return file.getvalue()


def answers_json(
    classifier: Classifier,
    model: str,
    results: Results,
    failures: Sequence[tuple[str, str]],
) -> str:
    """One JSON document: the model, its runtime, all photos and failures."""
    return json.dumps(
        {
            **model_record(model, classifier),
            "photos": [
                photo_record(
                    photo.name, row.prediction, row.decode_ms, row.inference_ms
                )
                for photo, row in results
            ],
            "failures": [{"photo": name, "reason": why} for name, why in failures],
        },
        indent=1,
    )


def sorted_zip(results: Results) -> bytes:
    """The photos, unchanged, in a folder for each answer; unknown ones in `unknown`.

    Photos beyond `MAX_SORTED_BYTES` are left out and listed in LEFT_OUT.txt.
    """
    file = io.BytesIO()
    paths: set[str] = set()
    left_out: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo, row in results:
            content = photo.read()
            if file.tell() + len(content) > MAX_SORTED_BYTES:
                left_out.append(photo.name)
                continue
            folder = re.sub(r"[^\w .,()-]+", "_", row.prediction.label).strip(". ")
            path = _unique_path(
                f"{folder or 'label'}/{_safe_file_name(photo.name)}", paths
            )
            archive.writestr(path, content)
        if left_out:
            archive.writestr("LEFT_OUT.txt", "\n".join(left_out) + "\n")
    return file.getvalue()


def _safe_file_name(name: str) -> str:
    """The last part of a name, safe as a file's name on any system."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return re.sub(r"[\x00-\x1f:*?\"<>|]+", "_", last).lstrip(".") or "photo"


def _unique_path(path: str, paths: set[str]) -> str:
    """The path, with a number if it is in `paths` already; adds it there."""
    stem, dot, suffix = path.rpartition(".")
    number, unique = 2, path
    while unique.casefold() in paths:
        unique = f"{stem}-{number}{dot}{suffix}"
        number += 1
    paths.add(unique.casefold())
    return unique


def is_uncertain(row: Row, threshold: float) -> bool:
    prediction = row.prediction
    return prediction.label == UNKNOWN or prediction.probability < threshold


if __name__ == "__main__":
    page()
