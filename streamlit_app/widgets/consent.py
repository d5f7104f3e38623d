"""Keeping photos for Review: only after the visitor agreed, as every page says."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from edge.classifier import Prediction
from edge.errors import EdgegraftError
from edge.text import plural
from streamlit_app import session
from streamlit_app.feedback import WRONG, reason
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.style import literal
from streamlit_app.uploads import Photo

AGREED = "agreed"  # in the session: photos may be kept


def agreed() -> bool:
    """Did this visitor agree that photos are kept?"""
    return bool(st.session_state.get(AGREED, False))


def notice() -> None:
    """Where photos go, in a line."""
    if agreed():
        folder = literal(str(session.config().feedback.folder))
        st.caption(
            f"Review is on: photos with uncertain answers are saved in {folder}. All "
            "others stay in memory."
        )
    else:
        st.caption("Photos stay in this machine's memory; nothing is saved.")


def offer(photo: Photo, prediction: Prediction) -> None:
    """Keep a photo whose answer is uncertain, if the visitor agreed."""
    why = reason(prediction, session.threshold())
    if why and agreed():
        _keep(photo, why, prediction, None)


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
        right = st.selectbox(
            "What is it?",
            [label for label in pool.facts.labels if label != prediction.label],
            index=None,
            placeholder="the right label, if you know it",
            key=f"right {photo.key}",
        )
        if st.button("Save for Review", key=f"wrong {photo.key}", type="primary"):
            _keep(photo, WRONG, prediction, right)
            marked.add(photo.key)
            st.rerun()


def keep_all(
    answers: Iterable[tuple[Photo, Prediction]], why: str, right: str | None = None
) -> None:
    """Send photos to Review, each once; says how many, or why not."""
    answers = list(answers)
    if sum(_keep(photo, why, answer, right) for photo, answer in answers):
        st.toast(f"{plural(len(answers), 'photo')} in Review", icon=":material/check:")


def _keep(photo: Photo, why: str, prediction: Prediction, right: str | None) -> bool:
    """Whether the photo is in the queue."""
    kept: set[str] = st.session_state.setdefault("kept photos", set())
    if photo.key in kept and why != WRONG:
        return True
    try:
        session.config().feedback.add(
            photo.read(), photo.name, why, session.entry().name, prediction, right
        )
    except (OSError, EdgegraftError) as error:
        st.warning(f"Not saved: {literal(str(error))}")
        return False
    kept.add(photo.key)
    return True
