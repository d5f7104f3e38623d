"""Classify: a photo, its answer, and why."""

from __future__ import annotations

import io
from html import escape

import streamlit as st
from PIL import Image

from edge.errors import EdgegraftError, PhotoError
from edge.preprocess import load_pixels
from streamlit_app import answer as ask
from streamlit_app import consent, occlusion, session, style
from streamlit_app.answer import Answer
from streamlit_app.model_pool import Pool
from streamlit_app.uploads import Photo
from streamlit_app.widgets import dropzone

ON_A_PAGE = 12  # photos; only these are decoded
PHOTO, SEEN, WHY = "Photo", "As the model saw it", "Why?"
MOVES = "it moves; only its first picture was looked at"
LITTLE = 0.01  # a fall of a point or less: no single part mattered


def page() -> None:
    pool = session.pool()
    drop = dropzone.photos()
    if pool is None:
        return
    if len(drop.photos) == 1:
        one(pool, drop.photos[0])
    elif drop.photos:
        many(pool, drop.photos)
    dropzone.refusals(drop)
    consent.notice()


def answered(pool: Pool, photo: Photo) -> Answer | None:
    """The answer of a photo, remembered; None after saying what is wrong with it."""
    try:
        return session.remembered(
            (photo.key, pool.digest), lambda: ask.answer(pool, photo.read())
        )
    except PhotoError as error:
        dropzone.unreadable(photo.name, error.reason)
    except (OSError, EdgegraftError) as error:
        dropzone.unreadable(photo.name, str(error))
    return None


def one(pool: Pool, photo: Photo) -> None:
    """A photo with room: three views of it on one side, the answer on the other."""
    answer = answered(pool, photo)
    if answer is None:
        return
    left, right = st.columns([6, 5], gap="large")
    with right:
        explain(pool, photo, answer)
    with left:
        views(pool, photo, answer)
    consent.offer(pool, photo, answer.prediction)


def explain(pool: Pool, photo: Photo, answer: Answer) -> None:
    """The answer in words and bars, what it took, and a way to say it is wrong."""
    told, sure_from = answer.prediction, session.threshold()
    limit = pool.facts.card.familiarity_threshold if pool.facts.card else None
    reason = style.doubt(told, sure_from, limit)
    unsure = reason is not None
    style.html(
        style.headline(told, sure_from)
        + style.bars(told.ranking[: session.top_k()], unsure)
        + (f'<p class="eg-soft">{escape(reason)}</p>' if reason else "")
        + f'<p class="eg-soft"><span>{escape(photo.name)}</span><br>decoded in '
        f"{answer.decode_ms:.1f} ms, answered in {answer.inference_ms:.1f} ms"
        + (f"<br>{MOVES}" if answer.animated else "")
        + f'<span data-server-ms="{session.so_far_ms():.1f}"></span></p>'
    )
    consent.wrong(pool, photo, told)


def views(pool: Pool, photo: Photo, answer: Answer) -> None:
    """The photo, the model's pixels, the heat map: one frame of one size."""
    frame = st.container()
    view = st.segmented_control(
        "View",
        [PHOTO, SEEN, WHY],
        default=PHOTO,
        required=True,
        label_visibility="collapsed",
        key="view",
    )
    told = answer.prediction
    if view == PHOTO:
        with frame:
            style.frame(answer.view, f"{photo.name}, upright")
    elif view == SEEN:
        recipe = pool.facts.recipe
        with frame:
            style.frame(
                ask.seen(load_pixels(photo.read(), recipe)),
                f"{photo.name} as the model saw it",
                "seen",
            )
        st.caption(
            f"{recipe.width} × {recipe.height} pixels, {recipe.resize}, "
            f"{recipe.filter}: exactly what went into the network."
        )
    else:
        with frame, st.spinner("Asking the model with parts covered"):
            picture, text = session.remembered(
                ("why", photo.key, pool.digest), lambda: why(pool, photo)
            )
            style.frame(picture, f"What mattered for {told.ranking[0][0]}", "seen")
        st.caption(text)


def why(pool: Pool, photo: Photo) -> tuple[bytes, str]:
    """(PNG, sentence) of the heat map."""
    seen = load_pixels(photo.read(), pool.facts.recipe)
    found = occlusion.falls(pool, seen)
    file = io.BytesIO()
    Image.fromarray(occlusion.overlay(seen, found)).save(file, "PNG")
    label = style.plain(found.label)
    lowest = max(found.probability - found.greatest, 0.0)
    if found.greatest < LITTLE:
        text = (
            f"No single part decides: whichever was covered, {label} stayed at "
            f"{style.percent(lowest)} or more."
        )
    else:
        text = (
            f"Orange matters most: covered there, {label} falls from "
            f"{style.percent(found.probability)} to "
            f"{style.plain(style.chance(lowest))}."
        )
    return file.getvalue(), (
        f"{text} {found.places} patches, each asked of this very file, in "
        f"{found.seconds:.1f} s."
    )


def many(pool: Pool, photos: list[Photo]) -> None:
    """Cards in columns, a page at a time; each opens into the large view."""
    pages = -(-len(photos) // ON_A_PAGE)
    number = 1
    if pages > 1:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            number = int(st.number_input(f"Page (of {pages})", 1, pages, 1, width=160))
            st.caption(f"{len(photos):,} photos. The Batch page does them all at once.")
    shown = photos[(number - 1) * ON_A_PAGE :][:ON_A_PAGE]
    columns = st.columns(min(len(shown), 3))
    counts: dict[str, int] = {}
    for place, photo in enumerate(shown):
        with columns[place % len(columns)]:
            answer = answered(pool, photo)
            if answer is None:
                counts["could not be read"] = counts.get("could not be read", 0) + 1
                continue
            told = answer.prediction
            counts[told.label] = counts.get(told.label, 0) + 1
            card(pool, photo, answer)
            consent.offer(pool, photo, told)
    told_counts = ", ".join(f"{n} {style.plain(label)}" for label, n in counts.items())
    st.caption(f"{len(shown)} photos on this page: {told_counts}")


def card(pool: Pool, photo: Photo, answer: Answer) -> None:
    told, sure_from = answer.prediction, session.threshold()
    with st.container(border=True):
        style.html(
            style.image(answer.view, photo.name)
            + style.headline(told, sure_from, 3)
            + style.bars(
                told.ranking[: min(session.top_k(), 3)],
                not told.known or told.probability < sure_from,
            )
            + (f'<p class="eg-soft">{MOVES}</p>' if answer.animated else ""),
            "eg-card",
        )
        with st.container(
            horizontal=True,
            horizontal_alignment="distribute",
            vertical_alignment="center",
        ):
            st.caption(style.plain(photo.name))
            if st.button(
                "Open",
                key=f"open {photo.key}",
                type="tertiary",
                help=f"{photo.name}: larger, and why",
            ):
                larger(pool, photo)


@st.dialog("Photo", width="large")
def larger(pool: Pool, photo: Photo) -> None:
    answer = answered(pool, photo)
    if answer is not None:
        views(pool, photo, answer)
        explain(pool, photo, answer)


if __name__ == "__main__":
    page()
