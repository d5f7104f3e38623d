"""Compare: models side by side on a photo, all runs by their measured figures, and
searches."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Mapping, Sequence

import streamlit as st

from edge.errors import EdgegraftError, PhotoError, reason_of
from edge.preprocess import load_pixels
from edge.records import Record
from edge.text import plural, printable
from streamlit_app import answer as answers
from streamlit_app import charts, dropzone, session, style
from streamlit_app.dropzone import Photo
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.runs import (
    ListedModel,
    Run,
    Search,
    disagreements,
    find_runs,
    find_searches,
    read_comparison,
)
from streamlit_app.style import literal

MAX_MODELS = 4  # side by side
ON_A_PAGE = 4  # photos
TIMED_RUNS = 15  # inferences whose median is shown
MISTAKES_SHOWN = 12
LABELS_LISTED = 5
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
    entries = {entry.name: entry for entry in models}
    chosen = st.multiselect(
        "Models",
        list(entries),
        default=_default_models(models),
        max_selections=MAX_MODELS,
        key="side by side",
        format_func=printable,
    )
    drop = dropzone.photos("compare photos", camera=False)
    pools = {name: pool for name in chosen if (pool := session.pool(entries[name]))}
    label_sets = {tuple(sorted(pool.facts.labels)) for pool in pools.values()}
    if len(label_sets) > 1:
        lists = "; ".join(
            f"**{literal(name)}**: {literal(_listed(pool.facts.labels))}"
            for name, pool in pools.items()
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
    dropzone.show_refused(drop)


def row(
    pools: Mapping[str, ClassifierPool], photo: Photo, *, same_labels: bool
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
            for pool in pools.values()
        ]
    except (OSError, EdgegraftError) as error:
        dropzone.unreadable(photo.name, reason_of(error))
        return
    with st.container(border=True):
        first, *columns = st.columns([2] + [3] * len(pools), gap="medium")
        with first:
            verdict = ""
            if len(pools) > 1 and same_labels:
                labels = {answer.prediction.label for answer, _ in results}
                verdict = "same answer" if len(labels) == 1 else "different answers"
            style.html(
                style.image(results[0][0].view, photo.name)
                + f'<p class="eg-soft">{style.text(photo.name)}<br>{verdict}</p>',
                "eg-card",
            )
        threshold = session.threshold()
        for column, name, (answer, latency) in zip(
            columns, pools, results, strict=True
        ):
            prediction = answer.prediction
            uncertain = prediction.probability < threshold
            with column:
                style.html(
                    f'<p class="eg-soft">{style.text(name)}</p>'
                    + style.headline(prediction, threshold, 3)
                    + style.bars(prediction.ranking[:3], uncertain)
                    + f'<p class="eg-soft">{latency:.2f} ms, median of {TIMED_RUNS} '
                    "on this host</p>",
                    "eg-card",
                )


def median_ms(pool: ClassifierPool, content: bytes) -> float:
    """Milliseconds of an inference with one thread, the median of `TIMED_RUNS`."""
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
        name = f"**{literal(run.name)}**"
        for problem in map(literal, run.problems):
            if run.readable:
                st.info(f"{name}: {problem}", icon=":material/pending:")
            else:
                st.warning(f"{name} is unreadable: {problem}", icon=":material/error:")
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
    setting = settings[0]
    if len(settings) > 1:
        setting = st.selectbox("Timed on", settings, key="timed on")
    timed = [(run, run.timed(setting)) for run in measured]
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
    st.caption(f"{text} Timed on {literal(setting)}.")
    table(timed)
    st.markdown("**Recommended file**")
    for run in measured:
        recommended(run.name, str(run.folder), run.comparison)
    overall(measured)
    quantization_mistakes(measured)


def show_search(searches: Sequence[Search]) -> None:
    """Every candidate of a search of `edgegraft search`, and the file to ship."""
    by_name = {search.folder.name: search for search in searches}
    name = st.selectbox("Search", list(by_name), format_func=printable)
    search = by_name[name]
    if search.problem:
        st.warning(f"**{literal(name)}** is unreadable: {literal(search.problem)}")
        return
    record, candidates = search.record, search.candidates
    ship = record.get("ship") or {}
    why = literal(ship.get("why") or "")
    if ship.get("file"):
        st.markdown(f"Recommended file: **{literal(ship['file'])}**, {why}")
    elif record.get("status") == "done":
        st.markdown(f"No file: {why}")
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
    if left_out := record.get("left_out"):
        st.caption(f"Left out by the time limit: {literal('; '.join(left_out))}.")
    rows = []
    for entry in candidates:
        probe, final = (entry.get(key) or {} for key in ("probe", "final"))
        size = entry.get("size_bytes")
        rows.append(
            {
                "network": printable(str(entry.get("name"))),
                "ms": entry["timing"]["p50_ms"],
                "MB": None if size is None else size / 1e6,
                "probe": _percent(probe.get("balanced_accuracy")),
                "test": _percent(final.get("balanced_accuracy")),
                "from": _percent(final.get("balanced_low")),
                "to": _percent(final.get("balanced_high")),
            }
        )
    rows.sort(key=lambda row: (-(row["test"] or 0), -(row["probe"] or 0), row["ms"]))
    column = st.column_config.NumberColumn
    columns = {
        "probe": column(format="%.1f %%", help="Balanced accuracy, cross-validated"),
        "test": column("int8 on test photos", format="%.1f %%"),
    }
    _show_table(rows, columns)


def overall(runs: Sequence[Run]) -> None:
    """The recommended file of all runs, by their last common comparison."""
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
    """The file that `edgegraft compare` recommends, also within a chosen budget."""
    ship = comparison.get("ship") or {}
    file, why = ship.get("file"), ship.get("why") or ""
    table = comparison.get("by_budget") or []
    limits = [sorted({row[key] for row in table if row.get(key)}) for key in _LIMITS]
    if all(len(values) > 1 for values in limits):
        budget = [
            column.select_slider(
                f"Budget of {literal(name)}, {unit}",
                [*values, None],
                None,
                format_func=lambda limit: "any" if limit is None else f"{limit:.2f}",
                key=f"budget {limit} {key}",
            )
            for column, values, (limit, unit) in zip(
                st.columns(2), limits, _LIMITS.items(), strict=True
            )
        ]
        if budget != [None, None]:
            file = next(
                row.get("file") for row in table if [row["ms"], row["mb"]] == budget
            )
            why = "within this budget"
    if file:
        st.markdown(f"{literal(name)}: **{literal(file)}**, {literal(why)}")
    else:
        st.markdown(f"{literal(name)}: no file, {literal(why)}")


def per_label(record: Record) -> dict[str, float]:
    """Recall of each label in percent, as columns of the table."""
    rows = (record.get("evaluation") or {}).get("per_class") or []
    return {
        printable(str(row["label"])): 100 * row["recall"]
        for row in rows[:LABEL_COLUMNS]
        if row.get("label") and row.get("photos") and row.get("recall") is not None
    }


def table(timed: Sequence[tuple[Run, list[Record]]]) -> None:
    column = st.column_config.NumberColumn
    columns = {
        "accuracy": column(format="%.1f %%"),
        "agree": column(format="%.1f %%", help="Same answer as float32"),
        "drop": column(format="%.1f", help="Points lost against float32"),
        "p": column(format="%.2f", help="p-value of McNemar's test of the drop"),
        "MiB": column("memory, MiB", format="%.0f"),
    }
    rows = []
    recall = column(format="%.0f %%", help="Recall: photos recognized")
    for run, records in timed:
        for record in records:
            recalls = per_label(record)
            columns |= dict.fromkeys(recalls, recall)
            rows.append(
                {
                    "run": printable(run.name),
                    "file": printable(str(record.get("variant", "?"))),
                    "accuracy": _percent(record["accuracy"]),
                    "from": _percent(record.get("accuracy_low")),
                    "to": _percent(record.get("accuracy_high")),
                    "drop": _percent(record.get("drop")),
                    "p": record.get("mcnemar_p"),
                    "agree": _percent(record.get("agreement")),
                    "MB": record["size_bytes"] / 1e6,
                    "ms": record["p50_ms"],
                    "MiB": record.get("peak_memory_mb"),
                    **recalls,
                }
            )
    _show_table(rows, columns)


def _show_table(rows: Sequence[Record], columns: Record) -> None:
    """A table with an interval, MB, ms, and more `columns`."""
    column = st.column_config.NumberColumn
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        placeholder="",
        column_config={
            "from": column("95 % from", format="%.1f %%"),
            "to": column(format="%.1f %%"),
            "MB": column(format="%.2f"),
            "ms": column(format="%.2f"),
            **columns,
        },
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100


def quantization_mistakes(runs: Sequence[Run]) -> None:
    """Photos that float32 got right and a smaller file wrong."""
    files = {
        f"{run.name} / {record.get('variant', '?')}": (run, record)
        for run in runs
        for record in run.files
        if record.get("float_right_this_wrong")
    }
    if not files:
        st.caption("No test photo was right in float32 and wrong in another file.")
        return
    name = st.selectbox(
        "Right in float32, wrong in", list(files), key="flips", format_func=printable
    )
    photos = disagreements(*files[name], MISTAKES_SHOWN)
    pictures = []
    for photo, truth, answer, content in photos[:MISTAKES_SHOWN]:
        text = f"{truth}, answered {answer}" if truth else photo
        if content is None:
            st.caption(f"{literal(photo)}: {literal(text)} (photo not available)")
            continue
        try:
            pictures.append((answers.thumbnail(content), text))
        except PhotoError as error:
            st.caption(f"{literal(photo)}: {literal(error.reason)}")
    style.gallery(pictures)
    if len(photos) > MISTAKES_SHOWN:
        st.caption(f"{len(photos) - MISTAKES_SHOWN:,} more in comparison.json.")


def _default_models(models: Sequence[ListedModel]) -> list[str]:
    """The selected file, and the float32 file of its run (or whatever comes next)."""
    first = session.entry()
    others = [entry for entry in models if entry.name != first.name]
    same_run = [entry for entry in others if entry.run == first.run]
    same_run.sort(key=lambda entry: entry.variant != "float32")
    return [first.name, *(entry.name for entry in (same_run or others)[:1])]


def _listed(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > LABELS_LISTED else ""
    return ", ".join(labels[:LABELS_LISTED]) + more


if __name__ == "__main__":
    page()
