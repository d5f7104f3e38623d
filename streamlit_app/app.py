"""The page itself: `edgegraft app`, or `streamlit run streamlit_app/app.py`.

Does not know: how answers are made (models) or shown (views).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import streamlit as st

from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import PHOTO_SUFFIXES
from streamlit_app import views
from streamlit_app.models import Model, ModelFile, find_models

ON_A_PAGE = 12  # photos; only these are decoded
MOST_LABELS = 10


@st.cache_resource(show_spinner="Opening the model", max_entries=4)
def opened(path: Path, stamp: tuple[int, int]) -> Model:
    """One classifier for all visitors, until its file changes."""
    return Model(path)


def page(artifacts: Path, given: list[Path]) -> None:
    st.set_page_config(page_title="edgegraft", page_icon="🐾", layout="wide")
    views.title()
    models = find_models(artifacts, given)
    if not models:
        views.no_models(str(artifacts))
        return
    with st.sidebar:
        entry = st.selectbox("Model", models, format_func=lambda found: found.name)
    try:
        model = opened(entry.path, entry.stamp)
    except EdgegraftError as error:
        views.broken_model(entry, error)
        return
    labels = len(model.classifier.labels)
    with st.sidebar:
        top_k = (
            labels
            if labels < 3
            else st.slider(
                "Labels to show", 1, min(labels, MOST_LABELS), min(labels, 3)
            )
        )
        views.model_facts(entry, model.classifier)
    photos(entry, model, top_k)


def photos(entry: ModelFile, model: Model, top_k: int) -> None:
    """The drop zone and a card for each photo of this page."""
    dropped = st.file_uploader(
        "Drop photos here",
        type=sorted(suffix.removeprefix(".") for suffix in PHOTO_SUFFIXES),
        accept_multiple_files=True,
        key="photos",
    )
    if not dropped:
        return
    pages = -(-len(dropped) // ON_A_PAGE)
    number = 1
    if pages > 1:
        number = int(st.number_input(f"Page (of {pages})", 1, pages, 1))
    columns = st.columns(min(len(dropped), 3))
    labels: list[str] = []
    failed = 0
    for place, file in enumerate(dropped[(number - 1) * ON_A_PAGE :][:ON_A_PAGE]):
        with columns[place % len(columns)]:
            try:
                told = model.answer(file.getvalue(), top_k)
            except PhotoError as error:
                failed += 1
                views.unreadable(file.name, error)
            except EdgegraftError as error:
                views.broken_model(entry, error)
                return
            else:
                labels.append(told.prediction.label)
                views.answer(file.name, told)
    views.summary(labels, failed)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    args = parser.parse_args(argv)
    page(args.artifacts, args.models)


if __name__ == "__main__":
    main(sys.argv[1:])
