"""Keeping photos for Review: only when the visitor agreed, and told on every page.

It does not know: how the queue is stored (feedback) or labelled (review).
"""

from __future__ import annotations

import streamlit as st

from edge.classifier import Prediction
from edge.errors import EdgegraftError
from streamlit_app import session, style
from streamlit_app.feedback import WRONG, reason
from streamlit_app.model_pool import Pool
from streamlit_app.uploads import Photo

AGREED = "agreed"  # in the session: photos may be kept


def agreed() -> bool:
    """Did this visitor agree that photos are kept?"""
    return bool(st.session_state.get(AGREED, False))


def notice() -> None:
    """Where photos go, in a line."""
    if agreed():
        folder = style.plain(str(session.house().feedback.folder))
        st.caption(
            f"Review is on: unsure answers are kept in {folder}. "
            "Everything else stays in memory."
        )
    else:
        st.caption("Photos stay in this machine's memory; nothing is written to disk.")


def offer(pool: Pool, photo: Photo, told: Prediction) -> None:
    """Keep a photo whose answer is unsure, if the visitor agreed."""
    why = reason(told, session.threshold())
    if why and agreed():
        _keep(photo, why, told, None)


def wrong(pool: Pool, photo: Photo, told: Prediction) -> None:
    """A way to say that an answer is wrong; the photo goes to the queue."""
    if not agreed():
        st.caption("Wrong? Turn on **Review** to keep such photos and learn from them.")
        return
    marked: set[str] = st.session_state.setdefault("marked", set())
    if photo.key in marked:
        st.caption(":material/check: Kept for Review.")
        return
    with st.popover("This is wrong", icon=":material/flag:"):
        right = st.selectbox(
            "What is it?",
            [label for label in pool.facts.labels if label != told.label],
            index=None,
            placeholder="the right label, if you know",
            key=f"right {photo.key}",
        )
        if st.button("Keep for Review", key=f"wrong {photo.key}", type="primary"):
            _keep(photo, WRONG, told, right)
            marked.add(photo.key)
            st.rerun()


def _keep(photo: Photo, why: str, told: Prediction, right: str | None) -> None:
    kept: set[str] = st.session_state.setdefault("kept photos", set())
    if photo.key in kept and why != WRONG:
        return
    try:
        session.house().feedback.add(
            photo.read(), photo.name, why, session.entry().name, told, right
        )
    except (OSError, EdgegraftError) as error:
        st.warning(f"Not kept. {style.plain(str(error))}")
        return
    kept.add(photo.key)
