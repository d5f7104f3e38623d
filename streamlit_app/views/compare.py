"""Compare: models side by side on a photo, and all runs by what was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from html import escape

import streamlit as st

from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import load_pixels
from streamlit_app import answer as ask
from streamlit_app import charts, session, style
from streamlit_app.model_pool import Pool
from streamlit_app.models import ModelFile
from streamlit_app.runs import Record, Run, disagreements, find_runs
from streamlit_app.uploads import Photo
from streamlit_app.widgets import dropzone

MOST_MODELS = 4  # side by side
ON_A_PAGE = 4  # photos
TIMED = 15  # inferences the median is taken of
SHOTS = 12  # photos of a disagreement


def page() -> None:
    photo_tab, runs_tab = st.tabs(["On your photos", "All runs"])
    with photo_tab:
        side_by_side()
    with runs_tab:
        all_runs()


def side_by_side() -> None:
    """The chosen models' answers to the same photos, timed on this host."""
    models = session.house().models()
    names = {entry.name: entry for entry in models}
    wanted = st.multiselect(
        "Models",
        list(names),
        default=_first_two(models),
        max_selections=MOST_MODELS,
        key="side by side",
    )
    drop = dropzone.photos("compare photos", camera=False)
    pools: list[tuple[str, Pool]] = []
    for name in wanted:
        found = session.pool(names[name])
        if found is not None:
            pools.append((name, found))
    differ = {tuple(sorted(pool.facts.labels)) for _, pool in pools}
    if len(differ) > 1:
        told = "; ".join(
            f"**{style.plain(name)}** knows {style.plain(_some(pool.facts.labels))}"
            for name, pool in pools
        )
        st.warning(
            f"These models have different labels, so their answers cannot agree. {told}"
        )
    if pools and drop.photos:
        for photo in drop.photos[:ON_A_PAGE]:
            row(pools, photo, same_labels=len(differ) == 1)
        if len(drop.photos) > ON_A_PAGE:
            st.caption(
                f"The first {ON_A_PAGE} of {len(drop.photos):,} photos. For many: "
                "edgegraft compare."
            )
    elif not pools:
        st.caption("Choose two or more models.")
    dropzone.refusals(drop)


def row(pools: Sequence[tuple[str, Pool]], photo: Photo, *, same_labels: bool) -> None:
    """One photo, a column for each model."""
    try:
        content = photo.read()
        answers = [
            session.remembered(
                ("compare", photo.key, pool.digest),
                lambda pool=pool: (  # type: ignore[misc]
                    ask.answer(pool, content),
                    median_ms(pool, content),
                ),
            )
            for _, pool in pools
        ]
    except PhotoError as error:
        dropzone.unreadable(photo.name, error.reason)
        return
    except (OSError, EdgegraftError) as error:
        dropzone.unreadable(photo.name, str(error))
        return
    said = {answer.prediction.label for answer, _ in answers}
    with st.container(border=True):
        columns = st.columns([2] + [3] * len(pools), gap="medium")
        with columns[0]:
            verdict = ""
            if len(pools) > 1 and same_labels:
                verdict = "they agree" if len(said) == 1 else "they disagree"
            style.html(
                style.image(answers[0][0].view, photo.name)
                + f'<p class="eg-soft">{escape(photo.name)}<br>{verdict}</p>',
                "eg-card",
            )
        for column, (name, _), (answer, latency) in zip(
            columns[1:], pools, answers, strict=True
        ):
            told = answer.prediction
            with column:
                style.html(
                    f'<p class="eg-soft">{escape(name)}</p>'
                    + style.headline(told, session.threshold(), 3)
                    + style.bars(
                        told.ranking[:3], told.probability < session.threshold()
                    )
                    + f'<p class="eg-soft">{latency:.2f} ms, median of {TIMED} on this '
                    "host</p>",
                    "eg-card",
                )


def median_ms(pool: Pool, content: bytes) -> float:
    """Milliseconds of an inference, one thread, the median of `TIMED`."""
    pixels = load_pixels(content, pool.facts.recipe)[None]
    times = []
    with pool.borrow() as classifier:
        for _ in range(TIMED):
            start = time.perf_counter()
            classifier.run(pixels)
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def all_runs() -> None:
    """The plot, the table, and the photos on which a file differs from float."""
    runs = find_runs(session.house().artifacts)
    for run in runs:
        for problem in run.problems:
            st.info(
                f"**{style.plain(run.name)}**: {style.plain(problem)}",
                icon=":material/pending:",
            )
    measured = [run for run in runs if run.files]
    if not measured:
        st.caption("No run was measured yet. This measures one:")
        st.code("edgegraft compare artifacts/RUN", language="bash")
        return
    if len({run.labels for run in measured}) > 1:
        st.warning(
            "These runs have different labels: their accuracies were measured on "
            "different questions and are not to be compared with one another."
        )
    settings = list(dict.fromkeys(told for run in measured for told in run.settings))
    where = settings[0]
    if len(settings) > 1:
        where = st.selectbox("Timed on", settings, key="timed on")
    timed = [(run, run.timed(where)) for run in measured]
    front = charts.accuracy_latency(timed)
    told = "Bars are 95 % intervals."
    if not front:
        told = "No time was measured in this setting."
    elif len(front) > 1:
        told = (
            "The dashed line is the front: no other file is both faster and more "
            f"accurate. {told}"
        )
    elif sum(len(records) for _, records in timed) > 1:
        told = (
            f"**{style.plain(front[0])}** is the fastest, and no other is more "
            f"accurate. {told}"
        )
    st.caption(f"{told} Timed on {style.plain(where)}.")
    table(timed)
    for run in measured:
        ship = run.comparison.get("ship")
        if isinstance(ship, dict) and ship.get("file"):
            st.caption(
                f"**{style.plain(run.name)}**: ship {style.plain(str(ship['file']))}, "
                f"{style.plain(str(ship.get('why', '')))}"
            )
    flips(measured)


def table(timed: Sequence[tuple[Run, list[Record]]]) -> None:
    rows = []
    for run, records in timed:
        for record in records:
            rows.append(
                {
                    "run": run.name,
                    "file": str(record.get("variant", "?")),
                    "accuracy": _points(record["accuracy"]),
                    "from": _points(record.get("accuracy_low")),
                    "to": _points(record.get("accuracy_high")),
                    "drop": _points(record.get("drop")),
                    "p": record.get("mcnemar_p"),
                    "agree": _points(record.get("agreement")),
                    "MB": record["size_bytes"] / 1e6,
                    "ms": record["p50_ms"],
                    "MiB": record.get("peak_memory_mb"),
                }
            )
    number = st.column_config.NumberColumn
    share = number(format="%.1f %%")
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "accuracy": share,
            "from": number("95 % from", format="%.1f %%"),
            "to": share,
            "agree": number(format="%.1f %%", help="Same answer as float32"),
            "drop": number(format="%.1f", help="Points lost against float32"),
            "p": number(format="%.2f", help="McNemar's paired test of the drop"),
            "MB": number(format="%.2f"),
            "ms": number(format="%.2f"),
            "MiB": number("memory, MiB", format="%.0f"),
        },
    )


def _points(share: float | None) -> float | None:
    return None if share is None else share * 100


def flips(runs: Sequence[Run]) -> None:
    """Photos that float32 got right and a smaller file wrong."""
    choices = {
        f"{run.name} / {record.get('variant', '?')}": (run, record)
        for run in runs
        for record in run.files
        if record.get("float_right_this_wrong")
    }
    if not choices:
        st.caption("On no test photo was float32 right and another file wrong.")
        return
    name = st.selectbox("Right in float32, wrong in", list(choices), key="flips")
    run, record = choices[name]
    told = disagreements(run, record)
    pictures = []
    for file, truth, answer, path in told[:SHOTS]:
        text = f"{truth}, answered {answer}" if truth else file
        if path is None:
            st.caption(f"{style.plain(file)}: {style.plain(text)} (photo not here)")
            continue
        try:
            pictures.append((ask.thumbnail(path), text))
        except PhotoError as error:
            st.caption(f"{style.plain(file)}: {style.plain(error.reason)}")
    style.shots(pictures)
    if len(told) > SHOTS:
        st.caption(f"{len(told) - SHOTS:,} more in comparison.json.")


def _first_two(models: Sequence[ModelFile]) -> list[str]:
    """The chosen file, and its float32 (or whatever comes next)."""
    first = session.entry()
    same = [m for m in models if m.run == first.run and m.name != first.name]
    same.sort(key=lambda entry: entry.variant != "float32")
    others = same or [m for m in models if m.name != first.name]
    return [first.name, *(entry.name for entry in others[:1])]


def _some(labels: Sequence[str], most: int = 5) -> str:
    return ", ".join(labels[:most]) + (", …" if len(labels) > most else "")


if __name__ == "__main__":
    page()
