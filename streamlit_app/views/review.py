"""Review: the queue of photos worth labelling, one at a time, by click or key."""

from __future__ import annotations

import streamlit as st

from edge.errors import EdgegraftError, PhotoError
from streamlit_app import answer, session, style
from streamlit_app import consent as keeping
from streamlit_app.feedback import DEVICE, Feedback, Waiting
from streamlit_app.model_pool import Pool
from streamlit_app.uploads import ENDINGS, MEGABYTE, MOST_ZIP_BYTES, unpacked
from streamlit_app.widgets import dropzone

KEYS = "123456789"  # labels by number
MOST_BUTTONS = 12  # more labels than that are chosen from a list


def page() -> None:
    pool = session.pool()
    feedback = session.house().feedback
    consent(feedback)
    if pool is None:
        return
    if not keeping.agreed() and not feedback.waiting():
        return
    waiting = feedback.waiting()
    if waiting:
        one(feedback, pool, waiting)
    else:
        style.html(
            "<h3>Nothing waits</h3>"
            '<p class="eg-soft">Classify some photos: those answered unsurely come '
            "here, and those you mark as wrong.</p>"
        )
        undo_button(feedback)
    if keeping.agreed():
        st.divider()
        frames(feedback, pool)
    told(feedback)


def consent(feedback: Feedback) -> None:
    """The one switch that lets anything be written."""
    if keeping.AGREED + " switch" not in st.session_state:
        st.session_state[keeping.AGREED + " switch"] = keeping.agreed()
    on = st.toggle("Keep photos for review", key=keeping.AGREED + " switch")
    st.session_state[keeping.AGREED] = on
    where = style.plain(str(feedback.folder))
    if on:
        st.caption(
            f"From now on, photos answered below {session.threshold():.0%} or as "
            f"unknown, and those you mark as wrong, are copied to {where}, as they "
            "are, with their EXIF data. Nothing leaves this machine."
        )
    else:
        st.caption(
            "Off: nothing is written. Turn it on, and photos the model is unsure of "
            f"are copied to {where}, to be labelled here and trained with."
        )


def one(feedback: Feedback, pool: Pool, waiting: list[Waiting]) -> None:
    """The first photo of the queue, what was answered, and the labels to choose."""
    skipped: set[str] = st.session_state.setdefault("skipped", set())
    queue = [w for w in waiting if w.digest not in skipped] or waiting
    if len(queue) == len(waiting):
        skipped.clear()
    photo = queue[0]
    left, right = st.columns([6, 5], gap="large")
    with left:
        try:
            picture = session.remembered(
                ("waiting", photo.digest),
                lambda: answer.thumbnail(feedback.path(photo), answer.VIEW_SIDE),
            )
            style.frame(picture, f"{photo.name}, to be labelled")
        except PhotoError as error:
            dropzone.unreadable(photo.name, error.reason)
    with right:
        st.caption(
            f"{len(waiting):,} waiting · {style.plain(photo.name)} · "
            f"{style.plain(photo.why)} · {style.plain(photo.model)}"
        )
        style.html(
            "<h3>What is it?</h3>" + style.bars(photo.ranking[:3], unsure=True),
        )
        choose(feedback, pool, photo)


def choose(feedback: Feedback, pool: Pool, photo: Waiting) -> None:
    """A button for each label, the suggested one first to the eye."""
    labels = pool.facts.labels
    if len(labels) <= MOST_BUTTONS:
        for number, label in enumerate(labels):
            st.button(
                style.plain(label),
                key=f"label {number}",
                type="primary" if label == photo.suggested else "secondary",
                shortcut=KEYS[number] if number < len(KEYS) else None,
                width="stretch",
                on_click=_label,
                args=(feedback, photo, label),
            )
    else:
        place = labels.index(photo.suggested) if photo.suggested in labels else None
        chosen = st.selectbox("Label", labels, index=place, key=f"of {photo.digest}")
        st.button(
            "Save",
            type="primary",
            shortcut="enter",
            disabled=chosen is None,
            on_click=_label,
            args=(feedback, photo, chosen),
        )
    with st.container(horizontal=True):
        st.button(
            "Skip", key="skip", shortcut="s", on_click=_skip, args=(photo.digest,)
        )
        st.button(
            "Remove",
            key="remove",
            shortcut="x",
            on_click=feedback.discard,
            args=(photo,),
            help="Deletes the copy in the queue",
        )
        undo_button(feedback)


def undo_button(feedback: Feedback) -> None:
    if st.session_state.get("last label"):
        st.button("Undo", key="undo", shortcut="u", on_click=_undo, args=(feedback,))
    if problem := st.session_state.pop("label problem", None):
        st.error(style.plain(problem), icon=":material/error:")


def _label(feedback: Feedback, photo: Waiting, label: str) -> None:
    try:
        feedback.label(photo, label)
        st.session_state["last label"] = (photo, label)
    except EdgegraftError as error:
        st.session_state["label problem"] = str(error)


def _undo(feedback: Feedback) -> None:
    photo, label = st.session_state.pop("last label")
    try:
        feedback.undo(photo, label)
    except EdgegraftError as error:
        st.session_state["label problem"] = str(error)


def _skip(digest: str) -> None:
    st.session_state["skipped"].add(digest)


def frames(feedback: Feedback, pool: Pool) -> None:
    """Photos from elsewhere into the same queue, such as a device's unsure frames."""
    files = st.file_uploader(
        "Add photos to the queue, such as frames a device kept with --save-unsure",
        type=[*ENDINGS, "zip"],
        accept_multiple_files=True,
        max_upload_size=MOST_ZIP_BYTES // MEGABYTE,
        key="frames",
    )
    seen: set[str] = st.session_state.setdefault("queued", set())
    drop = unpacked(files or ())
    new = [photo for photo in drop.photos if photo.key not in seen]
    added = 0
    for photo in new:
        seen.add(photo.key)
        try:
            content = photo.read()
            prediction = answer.row(pool, content, answer.MOST_LABELS).prediction
            name = session.entry().name
            added += bool(feedback.add(content, photo.name, DEVICE, name, prediction))
        except PhotoError as error:
            dropzone.unreadable(photo.name, error.reason)
        except (OSError, EdgegraftError) as error:
            dropzone.unreadable(photo.name, str(error))
    dropzone.refusals(drop)
    if added:
        st.toast(f"{added:,} photos wait to be labelled", icon=":material/check:")
        if len(new) == added:
            st.rerun()


def told(feedback: Feedback) -> None:
    """What was labelled so far, and the command that trains with it."""
    counts = feedback.labelled()
    if not counts:
        return
    st.markdown("**Labelled so far**")
    total = sum(counts.values())
    style.html(style.bars([(k, n / total) for k, n in counts.items()], False))
    listed = ", ".join(f"{n:,} {style.plain(label)}" for label, n in counts.items())
    st.caption(f"{listed}. To train with them, and to see whether they help:")
    st.code(
        f"edgegraft finetune PHOTOS --add {feedback.folder}\n"
        "edgegraft compare artifacts/OLD artifacts/NEW",
        language="bash",
    )


if __name__ == "__main__":
    page()
