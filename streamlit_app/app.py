"""The page's frame: `edgegraft app`, or `streamlit run streamlit_app/app.py`.

Which model answers is chosen here, in the sidebar, and stands in the address
(`?run=...&variant=...`), so that a link leads others to the same file.

Does not know: what the pages show.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from edge.card import ModelCard
from edge.errors import EdgegraftError
from edge.run_folder import recommended
from streamlit_app import session, style
from streamlit_app.answer import MOST_LABELS
from streamlit_app.model_pool import Pool
from streamlit_app.models import ModelFile, chosen

# Without one of our own, the page's symbol would be asked of a server elsewhere.
ICON = Path(__file__).with_name("drawn") / "icon.png"
PAGES = (
    ("views/classify.py", "Classify", "image_search"),
    ("views/batch.py", "Batch", "photo_library"),
    ("views/compare.py", "Compare", "compare_arrows"),
    ("views/model.py", "Model", "description"),
    ("views/review.py", "Review", "rate_review"),
)


def main() -> None:
    session.begin()
    st.set_page_config(page_title="edgegraft", page_icon=ICON, layout="wide")
    page = st.navigation(
        [
            st.Page(
                file,
                title=title,
                icon=f":material/{icon}:",
                default=place == 0,
                url_path=None if place == 0 else title.lower(),
            )
            for place, (file, title, icon) in enumerate(PAGES)
        ],
        position="top",
    )
    style.style(page.title)
    home = session.house()
    models = home.models()
    if not models:
        welcome(str(home.artifacts))
        return
    with st.sidebar:
        st.session_state["entry"] = choose(models)
        settings(st.session_state["entry"])
    page.run()


def choose(models: list[ModelFile]) -> ModelFile:
    """Run and variant; what the link asked for, then what the visitor takes."""
    if "run" not in st.session_state:
        asked = st.query_params
        first = chosen(models, asked.get("run"), asked.get("variant"))
        if asked.get("run") not in (None, first.run):
            st.warning(f"There is no run **{style.plain(str(asked['run']))}** here.")
        st.session_state["run"] = first.run
        st.session_state[f"variant {first.run}"] = first.variant
    runs = list(dict.fromkeys(entry.run for entry in models))
    if st.session_state["run"] not in runs:  # deleted meanwhile
        st.session_state["run"] = runs[0]
    run = st.selectbox("Model", runs, key="run")
    variants = [entry.variant for entry in models if entry.run == run]
    variant = variants[0]
    if len(variants) > 1:
        key = f"variant {run}"
        if st.session_state.get(key) not in variants:
            st.session_state[key] = variants[0]
        folder = chosen(models, run, None).folder
        best = recommended(str(folder)) if folder else None

        def named(name: str) -> str:
            return f"{name} (recommended)" if name == best else name

        pills = st.pills("Variant", variants, key=key, required=True, format_func=named)
        variant = pills or variants[0]
    found = chosen(models, run, variant)
    if st.query_params.to_dict() != {"run": found.run, "variant": found.variant}:
        st.query_params.from_dict({"run": found.run, "variant": found.variant})
    return found


def settings(entry: ModelFile) -> None:
    """How sure is sure, how many labels, and the chosen file's facts."""
    try:
        pool = session.shelf().pool(entry.path, entry.stamp)
    except EdgegraftError:
        return  # the page says what is wrong with it
    labels = len(pool.facts.labels)
    if "threshold" not in st.session_state:
        st.session_state["threshold"] = 60
    st.slider(
        "Sure from",
        0,
        100,
        key="threshold",
        format="%d %%",
        help="An answer below this probability is marked as unsure.",
    )
    if labels > 2:
        most = min(labels, MOST_LABELS)
        wanted = st.session_state.get("top_k", 3)
        st.session_state["top_k"] = min(max(int(wanted), 1), most)
        st.slider("Labels to show", 1, most, key="top_k")
    style.facts(facts(pool))


def facts(pool: Pool) -> list[tuple[str, str]]:
    """The file in a few lines."""
    classifier = pool.facts
    recipe, card = classifier.recipe, classifier.card
    kind = card.variant if card else str(classifier.input_dtype)
    rows = [
        ("Labels", listed(classifier.labels)),
        ("Input", f"{recipe.width} × {recipe.height}, {recipe.resize}"),
        ("File", f"{pool.bytes / 1e6:.2f} MB, {kind}"),
        ("Runtime", str(classifier.runtime)),
    ]
    rows += [(part.capitalize(), told) for part, told in measured(card)]
    if card is None:
        rows.append(("Card", "none: not made by edgegraft"))
    return rows


def listed(labels: tuple[str, ...], most: int = 6) -> str:
    told = ", ".join(labels[:most])
    return f"{told} and {len(labels) - most:,} more" if len(labels) > most else told


def measured(card: ModelCard | None) -> list[tuple[str, str]]:
    """(part, text) of the accuracies a card carries, the test part's first."""
    told = []
    parts = sorted(card.measured.items(), key=lambda x: x[0] != "test") if card else ()
    for part, figures in parts:
        if not isinstance(figures, dict) or "accuracy" not in figures:
            continue
        text = style.percent(figures["accuracy"])
        if interval := figures.get("interval"):
            text += f" ({style.percent(interval[0])} to {style.percent(interval[1])})"
        if figures.get("photos"):
            text += f", {figures['photos']:,} photos"
        told.append((part.removeprefix("photos it "), text))
    return told


def welcome(artifacts: str) -> None:
    """The empty state: the one command that makes a run."""
    style.html(
        "<h2>No model yet</h2>"
        '<p class="eg-soft">A run with its exported files will be listed here as soon '
        "as there is one.</p>"
    )
    st.markdown(f"With a folder of photos for each label, into `{artifacts}/`:")
    st.code("edgegraft build PHOTOS", language="bash")
    st.markdown("Without photos, on a sample of cats and dogs that is drawn for you:")
    st.code("edgegraft build", language="bash")
    st.button("Look again", icon=":material/refresh:")


if __name__ == "__main__":
    main()
