"""Compare: models side by side on a photo, all runs by their measured figures, and
searches."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Sequence
from typing import Any

import streamlit as st

from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import load_pixels
from edge.records import Record
from edge.text import plural, printable
from streamlit_app import answer as answers
from streamlit_app import charts, session, style
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.models import ListedModel
from streamlit_app.runs import (
    Run,
    Search,
    disagreements,
    find_runs,
    find_searches,
    read_comparison,
)
from streamlit_app.style import literal
from streamlit_app.uploads import Photo
from streamlit_app.widgets import dropzone

MOST_MODELS = 4  # side by side
ON_A_PAGE = 4  # photos
TIMED_RUNS = 15  # inferences whose median is shown
MISTAKES_SHOWN = 12
LABEL_COLUMNS = 12  # of recall, in the table of runs
_LIMITS = {"ms": "ms per photo", "mb": "MB"}


def page() -> None:
    searches = find_searches(session.config().run_folders())
    titles = ["On your photos", "All runs", *(["Searches"] if searches else [])]
    photo_tab, runs_tab, *search_tab = st.tabs(titles)
    with photo_tab:
        side_by_side()
    with runs_tab:
        all_runs()
    for tab in search_tab:
        with tab:
            show_search(searches)


def side_by_side() -> None:
    """The chosen models' answers to the same photos, timed on this host."""
    models = session.config().models()
    names = {entry.name: entry for entry in models}
    chosen = st.multiselect(
        "Models",
        list(names),
        default=_first_two(models),
        max_selections=MOST_MODELS,
        key="side by side",
        format_func=printable,
    )
    drop = dropzone.photos("compare photos", camera=False)
    pools: list[tuple[str, ClassifierPool]] = []
    for name in chosen:
        pool = session.pool(names[name])
        if pool is not None:
            pools.append((name, pool))
    label_sets = {tuple(sorted(pool.facts.labels)) for _, pool in pools}
    if len(label_sets) > 1:
        lists = "; ".join(
            f"**{literal(name)}**: {literal(_some(pool.facts.labels))}"
            for name, pool in pools
        )
        st.warning(
            f"These models have different labels, so their answers differ. {lists}"
        )
    if pools and drop.photos:
        for photo in drop.photos[:ON_A_PAGE]:
            row(pools, photo, same_labels=len(label_sets) == 1)
        if len(drop.photos) > ON_A_PAGE:
            st.caption(f"The first {ON_A_PAGE} of {len(drop.photos):,} photos.")
    elif not pools:
        st.caption("Choose two or more models.")
    dropzone.refusals(drop)


def row(
    pools: Sequence[tuple[str, ClassifierPool]], photo: Photo, *, same_labels: bool
) -> None:
    """One photo, a column for each model."""
    try:
        content = photo.read()
        results = [
            session.cached(
                ("compare", photo.key, pool.digest),
                lambda pool=pool: (  # type: ignore[misc]
                    answers.answer(pool, content),
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
    labels = {answer.prediction.label for answer, _ in results}
    with st.container(border=True):
        columns = st.columns([2] + [3] * len(pools), gap="medium")
        with columns[0]:
            verdict = ""
            if len(pools) > 1 and same_labels:
                verdict = "same answer" if len(labels) == 1 else "different answers"
            style.html(
                style.image(results[0][0].view, photo.name)
                + f'<p class="eg-soft">{style.text(photo.name)}<br>{verdict}</p>',
                "eg-card",
            )
        for column, (name, _), (answer, latency) in zip(
            columns[1:], pools, results, strict=True
        ):
            prediction, threshold = answer.prediction, session.threshold()
            with column:
                style.html(
                    f'<p class="eg-soft">{style.text(name)}</p>'
                    + style.headline(prediction, threshold, 3)
                    + style.bars(
                        prediction.ranking[:3], prediction.probability < threshold
                    )
                    + f'<p class="eg-soft">{latency:.2f} ms, median of {TIMED_RUNS} '
                    "on this host</p>",
                    "eg-card",
                )


def median_ms(pool: ClassifierPool, content: bytes) -> float:
    """Milliseconds of an inference, one thread, the median of `TIMED`."""
    pixels = load_pixels(content, pool.facts.recipe)[None]
    times = []
    with pool.borrow() as classifier:
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            classifier.run(pixels)
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def all_runs() -> None:
    """The plot, the table, and the photos that quantization got wrong."""
    runs = find_runs(session.config().run_folders())
    for run in runs:
        for problem in run.problems:
            if run.readable:
                show, state, icon = st.info, "", "pending"
            else:
                show, state, icon = st.warning, " is unreadable", "error"
            show(
                f"**{literal(run.name)}**{state}: {literal(problem)}",
                icon=f":material/{icon}:",
            )
    measured = [run for run in runs if run.files]
    if not measured:
        st.caption("No run has been measured. To measure one:")
        folder = runs[0].folder if runs else session.config().artifacts / "RUN"
        st.code(f"edgegraft compare {shlex.quote(str(folder))}", language=None)
        return
    if len({run.labels for run in measured}) > 1:
        st.warning(
            "These runs have different labels: do not compare their accuracies with "
            "each other."
        )
    settings = list(dict.fromkeys(line for run in measured for line in run.settings))
    where = settings[0]
    if len(settings) > 1:
        where = st.selectbox("Timed on", settings, key="timed on")
    timed = [(run, run.timed(where)) for run in measured]
    front = charts.accuracy_latency(timed)
    text = "Bars are 95 % intervals."
    if not front:
        text = "No time was measured in this setting."
    elif len(front) > 1:
        text = (
            "The dashed line is the Pareto front: no other file is both faster and "
            f"more accurate. {text}"
        )
    elif sum(len(records) for _, records in timed) > 1:
        text = f"**{literal(front[0])}** is fastest, and none is more accurate. {text}"
    st.caption(f"{text} Timed on {literal(where)}.")
    table(timed)
    st.markdown("**Recommended file**")
    for run in measured:
        recommended(run.name, str(run.folder), run.comparison)
    overall(measured)
    quantization_mistakes(measured)


def show_search(searches: Sequence[Search]) -> None:
    """Every candidate of a search of `edgegraft search`, and the file to ship."""
    names = {search.folder.name: search for search in searches}
    chosen = st.selectbox("Search", list(names), format_func=printable)
    search = names[chosen]
    if search.problem:
        st.warning(f"**{literal(chosen)}** is unreadable: {literal(search.problem)}")
        return
    record, candidates = search.record, search.candidates
    ship = record.get("ship") or {}
    if ship.get("file"):
        st.markdown(
            f"Recommended file: **{literal(ship['file'])}**, "
            f"{literal(str(ship.get('why') or ''))}"
        )
    elif record.get("status") == "done":
        st.markdown(f"No file: {literal(str(ship.get('why') or ''))}")
    else:
        st.info("The search has not finished; edgegraft search --resume goes on.")
    charts.search(candidates, record.get("budget_ms"))
    limits = [
        f"{record[key]:g} {unit}"
        for key, unit in (("budget_ms", "ms"), ("budget_mb", "MB"))
        if record.get(key)
    ]
    st.caption(
        f"{plural(len(candidates), 'network')}"
        + (f", budget {' and '.join(limits)}" if limits else ", no budget")
        + f". Times on {literal(str(record.get('measured_on') or 'this host'))}. Bars "
        "are 95 % intervals."
    )
    rows = []
    for entry in candidates:
        probe, final = (entry.get(key) or {} for key in ("probe", "final"))
        size = entry.get("size_bytes")
        rows.append(
            {
                "network": printable(str(entry.get("name"))),
                "ms": entry["timing"]["p50_ms"],
                "MB": None if size is None else size / 1e6,
                "probe": _points(probe.get("balanced_accuracy")),
                "test": _points(final.get("balanced_accuracy")),
                "from": _points(final.get("balanced_low")),
                "to": _points(final.get("balanced_high")),
            }
        )
    rows.sort(key=lambda row: (-(row["test"] or 0), -(row["probe"] or 0), row["ms"]))
    number = st.column_config.NumberColumn
    _figures(
        rows,
        probe=number(format="%.1f %%", help="Balanced accuracy, cross-validated"),
        test=number("int8 on test photos", format="%.1f %%"),
    )


def overall(runs: Sequence[Run]) -> None:
    """The winner of all runs, as `edgegraft compare RUN RUN` found it."""
    for folder in session.config().run_folders():
        comparison = read_comparison(folder / "comparison")
        if comparison.get("ship"):
            name = f"All of {comparison.get('run') or 'them'}"
            recommended(name, str(folder), comparison)
            return
    if len(runs) > 1 and len({run.labels for run in runs}) == 1:
        st.caption("The best of all runs, on the same test photos:")
        command = ["edgegraft", "compare", *(str(run.folder) for run in runs)]
        st.code(shlex.join(command), language=None, wrap_lines=True)


def recommended(name: str, key: str, comparison: Record) -> None:
    """The file that `edgegraft compare` ships; for a budget, as its table says."""
    ship = comparison.get("ship") or {}
    chosen, why = ship.get("file"), str(ship.get("why") or "")
    table = comparison.get("by_budget") or []
    limits = [sorted({row[key] for row in table if row.get(key)}) for key in _LIMITS]
    if all(len(values) > 1 for values in limits):
        picked = []
        for column, values, (limit, unit) in zip(
            st.columns(2), limits, _LIMITS.items(), strict=True
        ):
            with column:
                picked.append(
                    st.select_slider(
                        f"Budget of {literal(name)}, {unit}",
                        [*values, None],
                        None,
                        format_func=lambda x: "any" if x is None else f"{x:.2f}",
                        key=f"budget {limit} {key}",
                    )
                )
        if picked != [None, None]:
            chosen = next(
                row.get("file") for row in table if [row["ms"], row["mb"]] == picked
            )
            why = "within this budget"
    if chosen:
        st.markdown(f"{literal(name)}: **{literal(str(chosen))}**, {literal(why)}")
    else:
        st.markdown(f"{literal(name)}: no file, {literal(why)}")


def per_label(run: Run, record: Record) -> dict[str, float]:
    """Recall of each label in percent, as columns of the table."""
    rows = (record.get("evaluation") or {}).get("per_class") or []
    return {
        printable(str(row["label"])): 100 * row["recall"]
        for row in rows[:LABEL_COLUMNS]
        if row.get("label") and row.get("photos") and row.get("recall") is not None
    }


def table(timed: Sequence[tuple[Run, list[Record]]]) -> None:
    rows = []
    for run, records in timed:
        for record in records:
            rows.append(
                {
                    "run": printable(run.name),
                    "file": printable(str(record.get("variant", "?"))),
                    "accuracy": _points(record["accuracy"]),
                    "from": _points(record.get("accuracy_low")),
                    "to": _points(record.get("accuracy_high")),
                    "drop": _points(record.get("drop")),
                    "p": record.get("mcnemar_p"),
                    "agree": _points(record.get("agreement")),
                    "MB": record["size_bytes"] / 1e6,
                    "ms": record["p50_ms"],
                    "MiB": record.get("peak_memory_mb"),
                    **per_label(run, record),
                }
            )
    number = st.column_config.NumberColumn
    recalls = {
        label: number(format="%.0f %%", help="Recall: photos recognized")
        for run, records in timed
        for record in records
        for label in per_label(run, record)
    }
    columns = {
        "accuracy": number(format="%.1f %%"),
        "agree": number(format="%.1f %%", help="Same answer as float32"),
        "drop": number(format="%.1f", help="Points lost against float32"),
        "p": number(format="%.2f", help="p-value of McNemar's test of the drop"),
        "MiB": number("memory, MiB", format="%.0f"),
    }
    _figures(rows, **columns, **recalls)


def _figures(rows: Sequence[Record], **columns: Any) -> None:
    """A table with an interval, MB and ms; `columns` are those of its own."""
    number = st.column_config.NumberColumn
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        placeholder="",
        column_config={
            "from": number("95 % from", format="%.1f %%"),
            "to": number(format="%.1f %%"),
            "MB": number(format="%.2f"),
            "ms": number(format="%.2f"),
            **columns,
        },
    )


def _points(share: float | None) -> float | None:
    return None if share is None else share * 100


def quantization_mistakes(runs: Sequence[Run]) -> None:
    """Photos that float32 got right and a smaller file wrong."""
    choices = {
        f"{run.name} / {record.get('variant', '?')}": (run, record)
        for run in runs
        for record in run.files
        if record.get("float_right_this_wrong")
    }
    if not choices:
        st.caption("No test photo was right in float32 and wrong in another file.")
        return
    name = st.selectbox(
        "Right in float32, wrong in",
        list(choices),
        key="flips",
        format_func=printable,
    )
    run, record = choices[name]
    photos = disagreements(run, record, MISTAKES_SHOWN)
    pictures = []
    for file, truth, answer, content in photos[:MISTAKES_SHOWN]:
        text = f"{truth}, answered {answer}" if truth else file
        if content is None:
            st.caption(f"{literal(file)}: {literal(text)} (photo not available)")
            continue
        try:
            pictures.append((answers.thumbnail(content), text))
        except PhotoError as error:
            st.caption(f"{literal(file)}: {literal(error.reason)}")
    style.gallery(pictures)
    if len(photos) > MISTAKES_SHOWN:
        st.caption(f"{len(photos) - MISTAKES_SHOWN:,} more in comparison.json.")


def _first_two(models: Sequence[ListedModel]) -> list[str]:
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
