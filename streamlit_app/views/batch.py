"""Batch: hundreds of photos over all cores, then a table to sort, filter and take."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import streamlit as st

from edge.classifier import UNKNOWN
from edge.classify.workers import in_order
from edge.errors import EdgegraftError, PhotoError
from streamlit_app import answer, consent, exports, session, style
from streamlit_app.answer import MOST_LABELS, Row
from streamlit_app.model_pool import Pool
from streamlit_app.uploads import Photo
from streamlit_app.widgets import dropzone

EVERY = 0.2  # seconds between two steps of the progress bar
REFUSED_SHOWN = 20


@dataclass
class Job:
    """What was answered so far of one set of photos; a rerun goes on with it."""

    rows: dict[str, Row] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def page() -> None:
    pool = session.pool()
    drop = dropzone.photos(camera=False, drawn=False)
    if pool is None:
        return
    if not drop.photos and not drop.refused:
        style.html(
            '<p class="eg-soft">Drop some hundred photos, or one ZIP of them. They '
            "are answered on all cores; the table can be sorted, filtered and taken "
            "away as CSV, JSON, or a ZIP with a folder for each label.</p>"
        )
        consent.notice()
        return
    job = _job(pool, drop.photos)
    _go_on(pool, drop.photos, job)
    if job.rows:
        results(pool, drop.photos, job)
    names = {photo.key: photo.name for photo in drop.photos}
    failed = [(names[key], reason) for key, reason in job.failures.items()]
    for name, reason in failed[:REFUSED_SHOWN]:
        dropzone.unreadable(name, reason)
    if len(failed) > REFUSED_SHOWN:
        st.caption(f"{len(failed) - REFUSED_SHOWN:,} more; the JSON names them all.")
    dropzone.refusals(drop)
    consent.notice()


def _job(pool: Pool, photos: list[Photo]) -> Job:
    """The one of these photos and this model; an older one is forgotten."""
    sign = (pool.digest, tuple(photo.key for photo in photos))
    if st.session_state.get("job of") != sign:
        st.session_state["job of"] = sign
        st.session_state["job"] = Job()
    job: Job = st.session_state["job"]
    return job


def _go_on(pool: Pool, photos: list[Photo], job: Job) -> None:
    """Answer what is left, in order, with a bar that tells the time left."""
    left = [p for p in photos if p.key not in job.rows and p.key not in job.failures]
    if not left:
        return
    top_k = min(MOST_LABELS, len(pool.facts.labels))

    def work(_: int, photo: Photo) -> tuple[Photo, Row | str]:
        try:
            return photo, answer.row(pool, photo.read(), top_k)
        except PhotoError as error:
            return photo, error.reason
        except (OSError, EdgegraftError) as error:
            return photo, str(error)

    bar = st.progress(0.0, text=f"{len(left):,} photos")
    start = told = time.monotonic()
    before = job.seconds
    for number, (photo, found) in enumerate(
        in_order(left, work, range(pool.size)), start=1
    ):
        if isinstance(found, str):
            job.failures[photo.key] = found
        else:
            job.rows[photo.key] = found
            consent.offer(pool, photo, found.prediction)
        now = time.monotonic()
        job.seconds = before + now - start
        if now - told >= EVERY:
            told = now
            speed = number / (now - start)
            rest = (len(left) - number) / speed
            bar.progress(
                number / len(left),
                text=f"{number:,} of {len(left):,}, {speed:.0f} a second, "
                f"{int(rest) // 60}:{int(rest) % 60:02d} left",
            )
    bar.empty()


def results(pool: Pool, photos: list[Photo], job: Job) -> None:
    """Counts, filter, table, downloads."""
    done = [(photo, job.rows[photo.key]) for photo in photos if photo.key in job.rows]
    sure_from = session.threshold()
    counts = Counter(row.prediction.label for _, row in done)
    unsure = sum(_unsure(row, sure_from) for _, row in done)
    style.html(
        f"<h2>{len(done):,} photos <b>in {job.seconds:.1f} s, "
        f"{len(done) / max(job.seconds, 1e-3):.0f} a second</b></h2>"
        + style.bars(
            [(label, n / len(done)) for label, n in counts.most_common(MOST_LABELS)],
            False,
        )
    )
    names = {f"{label} {count:,}": label for label, count in counts.most_common()}
    doubtful = f"unsure {unsure:,}"
    chosen = st.pills(
        "Show only",
        [*names, *([doubtful] if unsure else [])],
        selection_mode="multi",
        key="only",
    )
    shown = [
        (photo, row)
        for photo, row in done
        if not chosen
        or row.prediction.label in {names.get(choice) for choice in chosen}
        or (doubtful in chosen and _unsure(row, sure_from))
    ]
    table(shown)
    downloads(pool, done, photos, job)


def table(shown: list[tuple[Photo, Row]]) -> None:
    """Sortable by a click on a column; the loupe in its corner searches."""
    rows = [
        {
            "": style.data_url(row.thumbnail),
            "photo": photo.name,
            "label": row.prediction.label,
            "probability": 100 * row.prediction.probability,
            "next": " ".join(
                f"{label} {style.chance(chance)}"
                for label, chance in row.prediction.ranking[1:2]
            ),
            "ms": row.inference_ms,
        }
        for photo, row in shown
    ]
    st.dataframe(
        rows,
        hide_index=True,
        height=440,
        row_height=52,
        column_config={
            "": st.column_config.ImageColumn(width=64),
            "photo": st.column_config.TextColumn(width="medium"),
            "probability": st.column_config.ProgressColumn(
                format="%.1f %%", min_value=0.0, max_value=100.0
            ),
            "ms": st.column_config.NumberColumn(format="%.1f", width="small"),
        },
    )


def downloads(
    pool: Pool, done: list[tuple[Photo, Row]], photos: list[Photo], job: Job
) -> None:
    """Each is made when it is asked for."""
    top_k = min(MOST_LABELS, len(pool.facts.labels))
    names = {photo.key: photo.name for photo in photos}
    failures = [(names[key], reason) for key, reason in job.failures.items()]
    model = str(session.entry().path)
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            lambda: exports.as_csv(done, top_k),
            "answers.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "JSON",
            lambda: exports.as_json(pool, model, done, failures, top_k),
            "answers.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Sorted photos",
            lambda: exports.as_zip(done),
            "sorted.zip",
            "application/zip",
            icon=":material/folder_zip:",
            on_click="ignore",
            help="The photos, unchanged, in a folder for each label",
        )


def _unsure(row: Row, sure_from: float) -> bool:
    told = row.prediction
    return told.label == UNKNOWN or told.probability < sure_from


if __name__ == "__main__":
    page()
