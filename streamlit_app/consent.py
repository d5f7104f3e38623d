"""Saving photos for Review: only after the visitor agreed, as every page says."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from edge.classifier import Prediction
from edge.errors import EdgegraftError
from edge.text import plural
from streamlit_app import session
from streamlit_app.answer import Row
from streamlit_app.dropzone import Photo
from streamlit_app.feedback import WRONG, reason
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.style import literal

AGREED = "agreed"  # in the session: photos may be saved


def agreed() -> bool:
    """Whether this visitor agreed that photos are saved."""
    return bool(st.session_state.get(AGREED, False))


def notice() -> None:
    """One line: where photos go."""
    if agreed():
        folder = literal(str(session.config().feedback.folder))
        st.caption(
            f"Review is on: photos with uncertain answers are saved in {folder}. All "
            "others stay in memory."
        )
    else:
        st.caption("Photos stay in this machine's memory; nothing is saved.")


def save_if_uncertain(photo: Photo, prediction: Prediction) -> None:
    """Save a photo whose answer is uncertain, if the visitor agreed."""
    why = reason(prediction, session.threshold())
    if why and agreed():
        _save(photo, why, prediction)


def mark_wrong(pool: ClassifierPool, photo: Photo, prediction: Prediction) -> None:
    """A button that marks an answer as wrong; the photo goes to the queue."""
    if not agreed():
        st.caption("Wrong? Turn on **Review** to keep such photos and train with them.")
        return
    marked: set[str] = st.session_state.setdefault("marked", set())
    if photo.key in marked:
        st.caption(":material/check: Saved for Review.")
        return
    with st.popover("This is wrong", icon=":material/flag:"):
        right_label = st.selectbox(
            "What is it?",
            [label for label in pool.facts.labels if label != prediction.label],
            index=None,
            placeholder="the right label, if you know it",
            key=f"right {photo.key}",
        )
        if st.button("Save for Review", key=f"wrong {photo.key}", type="primary"):
            _save(photo, WRONG, prediction, right_label)
            marked.add(photo.key)
            st.rerun()


def save_all(
    results: Sequence[tuple[Photo, Row]], why: str, right_label: str | None = None
) -> None:
    """Send photos to Review, each once; shows how many, or why not."""
    saved = [_save(photo, why, row.prediction, right_label) for photo, row in results]
    if any(saved):
        st.toast(f"{plural(len(saved), 'photo')} in Review", icon=":material/check:")


def _save(
    photo: Photo, why: str, prediction: Prediction, right_label: str | None = None
) -> bool:
    """Whether the photo is in the queue."""
    saved: set[str] = st.session_state.setdefault("kept photos", set())
    if photo.key in saved and why != WRONG:
        return True
    try:
        session.config().feedback.add(
            photo.read(), photo.name, why, session.entry().name, prediction, right_label
        )
    except (OSError, EdgegraftError) as error:
        st.warning(f"Not saved: {literal(str(error))}")
        return False
    saved.add(photo.key)
    return True
