"""The page's frame: `edgegraft app`, or `streamlit run streamlit_app/app.py`.

The sidebar chooses the model and, for a file without a card, its preprocessing and its
labels. Run and variant stand in the address (`?run=...&variant=...`), so a link leads
others to the same file.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any, TypeGuard

import streamlit as st

from edge.card import ModelCard
from edge.command import numbers, width_and_height
from edge.errors import EdgegraftError
from edge.foreign import CENTRAL_FRACTION, FILTER, RESIZE, ForeignOptions
from edge.model_file import ModelFile
from edge.pack import zipped
from edge.preprocess import FILTERS, RESIZES
from edge.records import Record
from edge.run_folder import recommended
from edge.text import plural, printable
from streamlit_app import session, style
from streamlit_app.answer import MAX_LABELS
from streamlit_app.cli import server_is_full
from streamlit_app.feedback import private_folder, write_private
from streamlit_app.model_pool import ClassifierPool, ForeignSettings
from streamlit_app.runs import ListedModel, Run, pick_model
from streamlit_app.style import literal, percent

# Streamlit's default icon comes from an external server
ICON = Path(__file__).with_name("drawn") / "icon.png"
PAGES = (
    ("views/classify.py", "Classify", "image_search"),
    ("views/batch.py", "Batch", "photo_library"),
    ("views/compare.py", "Compare", "compare_arrows"),
    ("views/model.py", "Model", "description"),
    ("views/review.py", "Review", "rate_review"),
    ("views/train.py", "Train", "model_training"),
)
# Parts of a card whose accuracy is shown; that on training photos says nothing.
MEASURED_ON = ("cross-validated before export", "test", "validation")
DEVICE_FOLDER = "device"  # in the ZIP, which is named after it
MAX_MODEL_MB = 256  # of a model file that is dropped
LABELS_LISTED = 6  # in the sidebar


def main() -> None:
    session.begin()
    st.set_page_config(page_title="edgegraft", page_icon=ICON, layout="wide")
    page = st.navigation(
        [
            st.Page(
                file,
                title=title,
                icon=f":material/{icon}:",
                default=title == "Classify",
                url_path=None if title == "Classify" else title.lower(),
            )
            for file, title, icon in PAGES
        ],
        position="top",
    )
    style.style(page.title)
    if server_is_full():
        st.warning("The server is busy. Please reload this page in a minute.")
        return
    session.remember_visitor()
    config = session.config()
    models = config.models()
    if not models:
        if page.title == "Train":
            page.run()
        else:
            welcome(config.artifacts)
        return
    with st.sidebar:
        st.session_state["entry"] = choose_model(models)
        settings(st.session_state["entry"])
    page.run()


def select(entry: ListedModel) -> None:
    """Select a model in the sidebar; call it before the sidebar is drawn."""
    st.session_state["run"] = entry.run
    st.session_state[f"variant {entry.run}"] = entry.variant


def choose_model(models: list[ListedModel]) -> ListedModel:
    """The file of the link at first, then the one that the visitor selects."""
    if "run" not in st.session_state:
        link = st.query_params
        first = pick_model(models, link.get("run"), link.get("variant"))
        if link.get("run") not in (None, first.run):
            st.warning(f"No run **{literal(str(link['run']))}** here.")
        select(first)
    runs = list(dict.fromkeys(entry.run for entry in models))
    if st.session_state["run"] not in runs:  # deleted meanwhile
        st.session_state["run"] = runs[0]
    run = st.selectbox("Model", runs, key="run", format_func=printable)
    variants = [entry.variant for entry in models if entry.run == run]
    variant = variants[0]
    if len(variants) > 1:
        key = f"variant {run}"
        if st.session_state.get(key) not in variants:
            st.session_state[key] = variant
        folder = pick_model(models, run, None).folder
        best = recommended(str(folder)) if folder else None

        def title(name: str) -> str:
            return literal(name) + (" (recommended)" if name == best else "")

        pills = st.pills("Variant", variants, key=key, required=True, format_func=title)
        variant = pills or variant
    entry = pick_model(models, run, variant)
    if st.query_params.to_dict() != {"run": entry.run, "variant": entry.variant}:
        st.query_params.from_dict({"run": entry.run, "variant": entry.variant})
    return entry


def settings(entry: ListedModel) -> None:
    """The confidence threshold, the number of labels, the file's facts, and for a file
    without a card its preprocessing."""
    try:
        pool = session.opened(entry)
    except EdgegraftError:  # the page shows the error
        if entry.folder is None:
            foreign_fields(entry.path, None)
        return
    st.session_state.setdefault("threshold", session.THRESHOLD)
    st.slider(
        "Confidence threshold",
        0,
        100,
        key="threshold",
        format="%d %%",
        help="Answers below this probability are marked as uncertain.",
    )
    maximum = min(len(pool.facts.labels), MAX_LABELS)
    if maximum > 2:
        st.session_state["top_k"] = min(max(session.top_k(), 1), maximum)
        st.slider("Labels to show", 1, maximum, key="top_k")
    style.facts(facts(pool))
    if pool.facts.card is None:
        foreign_fields(entry.path, pool)


def foreign_fields(path: Path, pool: ClassifierPool | None) -> None:
    """The form of how photos are read, and of the labels; open where the file cannot
    run without it (`pool` is None).

    Empty fields take the value of the file's TFLite Metadata, else the default for
    published classifiers.
    """
    current: dict[str, Any] = {}
    if pool is not None and pool.facts.foreign_input is not None:
        current = pool.facts.foreign_input.describe()
    mean, std = (
        ", ".join(f"{value:g}" for value in current.get(name) or ())
        for name in ("mean", "std")
    )

    def key(name: str) -> str:
        return f"{name} of {path}"

    with (
        st.expander("How photos are read", expanded=pool is None),
        st.form(key("form"), border=False),
    ):
        resize = st.selectbox(
            "Resize",
            RESIZES,
            index=None,
            placeholder=current.get("resize", RESIZE),
            key=key("resize"),
        )
        crop = st.number_input(
            "Crop: the middle share of the photo",
            0.05,
            1.0,
            value=None,
            placeholder=f"{current.get('crop', CENTRAL_FRACTION):g}",
            key=key("crop"),
        )
        resampling = st.selectbox(
            "Filter",
            FILTERS,
            index=None,
            placeholder=current.get("filter", FILTER),
            key=key("filter"),
        )
        new_mean = st.text_input(
            "Mean",
            placeholder=mean,
            help="Pixels become (pixel - mean) / std: one number, or R,G,B.",
            key=key("mean"),
        )
        new_std = st.text_input("Standard deviation", placeholder=std, key=key("std"))
        size = st.text_input(
            "Input size, where it is open", placeholder="224x224", key=key("size")
        )
        output = st.text_input("Name of the output with the scores", key=key("output"))
        labels = st.text_area("Labels, one on each line", key=key("labels"))
        if not st.form_submit_button("Apply"):
            return
    try:
        options = ForeignOptions(
            size=width_and_height(size) if size else None,
            resize=resize,
            crop=crop,
            filter=resampling,
            mean=numbers(new_mean) if new_mean else None,
            std=numbers(new_std) if new_std else None,
            output=output or None,
        )
    except (argparse.ArgumentTypeError, EdgegraftError) as error:
        st.error(literal(str(error).replace("--", "")), icon=":material/error:")
        return
    names = tuple(line.strip() for line in labels.splitlines() if line.strip())
    session.keep_foreign_settings(path, ForeignSettings(names, options))
    st.rerun()


def facts(pool: ClassifierPool) -> list[tuple[str, str]]:
    """(name, value) rows that describe the file."""
    classifier = pool.facts
    recipe, card = classifier.recipe, classifier.card
    kind = card.variant if card else str(classifier.input_dtype)
    labels = ", ".join(classifier.labels[:LABELS_LISTED])
    if len(classifier.labels) > LABELS_LISTED:
        labels += f" and {len(classifier.labels) - LABELS_LISTED:,} more"
    rows = [
        ("Labels", labels),
        ("Input", f"{recipe.width} × {recipe.height}, {recipe.resize}"),
        ("File", f"{pool.bytes / 1e6:.2f} MB, {kind}"),
        ("Runtime", str(classifier.runtime)),
    ]
    rows += [(f"Accuracy, {part}", text) for part, text in measured(card)]
    if card is None:
        rows.append(("Card", "none: not exported by edgegraft"))
    return rows


def measured(card: ModelCard | None) -> list[tuple[str, str]]:
    """(part, text) of the accuracies in a card, those on training photos left out."""
    rows = []
    for part in MEASURED_ON:
        figures = card.measured.get(part) if card else None
        accuracy = figures.get("accuracy") if isinstance(figures, dict) else None
        if not isinstance(figures, dict) or not _is_share(accuracy):
            continue
        text = percent(accuracy)
        interval = figures.get("interval")
        if isinstance(interval, list | tuple) and all(map(_is_share, interval)):
            text += f" ({' to '.join(percent(end) for end in interval)})"
        if isinstance(figures.get("photos"), int):
            text += f", {figures['photos']:,} photos"
        rows.append((part, text))
    return rows


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value <= 1


def download_for_device(entry: ListedModel) -> None:
    """A button: the folder for a device as a ZIP, as `edge pack` writes it."""
    settings = session.foreign_settings(entry.path)
    st.download_button(
        f"Device folder with {literal(entry.path.name)}",
        lambda: zipped(
            entry.path,
            DEVICE_FOLDER,
            labels=settings.labels or None,
            foreign=settings.options,
        ),
        f"{DEVICE_FOLDER}.zip",
        "application/zip",
        icon=":material/folder_zip:",
        type="primary",
        on_click="ignore",
    )


def open_model() -> None:
    """Save the dropped model file, so that it is listed, or the reason why not."""
    file = st.session_state["model file"]
    if file is None:
        return
    name = re.sub(r"[^\w.-]+", "_", file.name).lstrip(".") or "model.tflite"
    path = session.config().dropped_models() / name
    try:
        ModelFile(file.getvalue(), file.name).checked()
        private_folder(path.parent)
        write_private(path, file.getvalue())
    except (OSError, EdgegraftError) as error:
        st.session_state["model problem"] = str(error)


def welcome(artifacts: Path) -> None:
    """The empty state: the commands that build a run."""
    style.html(
        "<h2>No model yet</h2>"
        '<p class="eg-soft">Runs appear here as soon as they have exported files.</p>'
    )
    if st.button("Train one here", type="primary", icon=":material/model_training:"):
        st.switch_page("views/train.py")
    st.file_uploader(
        "Or open a model file (.tflite)",
        type="tflite",
        key="model file",
        max_upload_size=MAX_MODEL_MB,
        on_change=open_model,
    )
    if problem := st.session_state.pop("model problem", None):
        st.error(literal(problem), icon=":material/error:")
    option = f"--artifacts {shlex.quote(str(artifacts))}"
    st.markdown("Or on the command line, with a folder of photos per label:")
    st.code(f"edgegraft build PHOTOS {option}", language=None)
    st.markdown("Without photos, on a drawn sample of cats and dogs:")
    st.code(f"edgegraft build {option}", language=None)
    st.button("Refresh", icon=":material/refresh:")


def headline(run: Run, record: Record) -> tuple[str, str, str]:
    """Name, value and interval of a file's accuracy; for the file to ship, the figure
    that the command and the model card lead with. Empty where it has none.
    """
    accuracy, low = record.get("accuracy"), record.get("accuracy_low")
    high, photos = record.get("accuracy_high"), record.get("photos", "?")
    source, note = "test photos", ""
    if lead := _lead(run, record):
        accuracy, photos = lead.get("accuracy"), lead.get("photos", "?")
        low, high = (lead.get("interval") or [None, None])[:2]
        source, note = lead.get("source") or source, lead.get("note") or ""
    if accuracy is None:
        return ("", "", "")
    interval = ""
    if low is not None and high is not None:
        interval = f"95 % interval {percent(low)} to {percent(high)} on {photos} photos"
        interval += f" ({note})" if note else ""
    return (f"Accuracy, {source}", percent(accuracy), interval)


def weakest(run: Run, record: Record) -> str:
    """The label with the lowest recall of a file, of the same photos as `headline`."""
    lead = _lead(run, record)
    row = lead.get("weakest") or {}
    if not row.get("photos"):
        tested = (record.get("evaluation") or {}).get("per_class") or []
        rows = [row for row in tested if row.get("photos")]
        row = min(rows, key=lambda row: row.get("recall") or 0, default={})
    if not row:
        return ""
    return (
        f"Weakest label: {literal(row['label'])}, {row.get('right') or 0:,} of "
        f"{plural(row['photos'], 'photo')} found."
    )


def _lead(run: Run, record: Record) -> Record:
    """The comparison's headline, if it is that of this file."""
    title = (run.comparison.get("ship") or {}).get("file")
    same = title and record.get("title") == title
    return (run.comparison.get("headline") or {}) if same else {}


if __name__ == "__main__":
    main()
