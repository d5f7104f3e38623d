"""Classify: a photo, its answer, and why."""

from __future__ import annotations

import math
from collections import Counter

import streamlit as st

from edge.errors import EdgegraftError, reason_of
from edge.preprocess import load_pixels
from streamlit_app import answer as answers
from streamlit_app import consent, dropzone, session, style
from streamlit_app.answer import Answer
from streamlit_app.dropzone import Photo
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.style import literal

ON_A_PAGE = 12  # photos; only these are decoded
PHOTO, INPUT, WHY = "Photo", "Model input", "Why?"
ANIMATED = "animated: only the first frame was classified"
SMALLEST_DROP = 0.01  # below it, no single part matters


def page() -> None:
    pool = session.pool()
    drop = dropzone.photos(labels=pool.facts.labels if pool else ())
    if pool is None:
        return
    if len(drop.photos) == 1:
        show_photo(pool, drop.photos[0])
    elif drop.photos:
        show_photos(pool, drop.photos)
    dropzone.show_refused(drop)
    consent.notice()


def classify(pool: ClassifierPool, photo: Photo) -> Answer | None:
    """A photo's answer, cached; None after an error was shown."""
    try:
        return session.cached(
            (photo.key, pool.digest), lambda: answers.answer(pool, photo.read())
        )
    except (OSError, EdgegraftError) as error:
        dropzone.unreadable(photo.name, reason_of(error))
        return None


def show_photo(pool: ClassifierPool, photo: Photo) -> None:
    """One photo: three views of it on one side, the answer on the other."""
    answer = classify(pool, photo)
    if answer is None:
        return
    left, right = st.columns([6, 5], gap="large")
    with right:
        explain(pool, photo, answer)
    with left:
        views(pool, photo, answer)
    consent.save_if_uncertain(photo, answer.prediction)


def explain(pool: ClassifierPool, photo: Photo, answer: Answer) -> None:
    """The answer as a heading and bars, its times, and a button for wrong answers."""
    prediction, threshold = answer.prediction, session.threshold()
    limit = pool.facts.card.familiarity_threshold if pool.facts.card else None
    reason = style.warning(prediction, threshold, limit)
    style.html(
        style.headline(prediction, threshold)
        + style.bars(prediction.ranking[: session.top_k()], reason is not None)
        + (f'<p class="eg-soft">{style.text(reason)}</p>' if reason else "")
        + f'<p class="eg-soft"><span>{style.text(photo.name)}</span><br>'
        f"decoded in {answer.decode_ms:.1f} ms, classified in "
        f"{answer.inference_ms:.1f} ms"
        + (f"<br>{ANIMATED}" if answer.animated else "")
        + f'<span data-server-ms="{session.elapsed_ms():.1f}"></span></p>'
    )
    consent.mark_wrong(pool, photo, prediction)


def views(pool: ClassifierPool, photo: Photo, answer: Answer) -> None:
    """The photo, the model's input, or the heat map, in a frame of constant size."""
    frame = st.container()
    view = st.segmented_control(
        "View",
        [PHOTO, INPUT, WHY],
        default=PHOTO,
        required=True,
        label_visibility="collapsed",
        key="view",
    )
    if view == PHOTO:
        with frame:
            style.frame(answer.view, f"{photo.name}, upright")
    elif view == INPUT:
        recipe = pool.facts.recipe
        with frame:
            style.frame(
                answers.png(load_pixels(photo.read(), recipe)),
                f"{photo.name} as the model gets it",
                "input",
            )
        st.caption(
            f"{recipe.width} × {recipe.height} pixels, {recipe.resize}, "
            f"{recipe.filter}: exactly what the network gets."
        )
    else:
        with frame, st.spinner("Running the model with parts covered"):
            try:
                picture, text = session.cached(
                    ("why", photo.key, pool.digest), lambda: why(pool, photo)
                )
            except (OSError, EdgegraftError) as error:
                dropzone.unreadable(photo.name, str(error))
                return
            style.frame(
                picture, f"What matters for {answer.prediction.ranking[0][0]}", "input"
            )
        st.caption(text)


def why(pool: ClassifierPool, photo: Photo) -> tuple[bytes, str]:
    """(PNG, sentence) of the heat map."""
    pixels = load_pixels(photo.read(), pool.facts.recipe)
    drops = answers.occlude(pool, pixels)
    picture = answers.png(answers.overlay(pixels, drops))
    label = literal(drops.label)
    lowest = max(drops.probability - drops.max_drop, 0.0)
    if drops.max_drop < SMALLEST_DROP:
        text = (
            f"No single part decides: with any part covered, {label} stays at "
            f"{style.percent(lowest)} or more."
        )
    else:
        text = (
            f"Orange matters most: with it covered, {label} drops from "
            f"{style.percent(drops.probability)} to "
            f"{literal(style.probability(lowest))}."
        )
    return picture, (
        f"{text} {drops.patches} patches, each run through this file, in "
        f"{drops.seconds:.1f} s."
    )


def show_photos(pool: ClassifierPool, photos: list[Photo]) -> None:
    """Cards in columns, a page at a time; each opens the large view."""
    pages = math.ceil(len(photos) / ON_A_PAGE)
    page = 1
    if pages > 1:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            page = int(st.number_input(f"Page (of {pages})", 1, pages, 1, width=160))
            st.caption(f"{len(photos):,} photos. Batch classifies them all.")
    shown = photos[(page - 1) * ON_A_PAGE :][:ON_A_PAGE]
    columns = st.columns(min(len(shown), 3))
    counts: Counter[str] = Counter()
    for index, photo in enumerate(shown):
        with columns[index % len(columns)]:
            answer = classify(pool, photo)
            if answer is None:
                counts["could not be read"] += 1
                continue
            counts[answer.prediction.label] += 1
            card(pool, photo, answer)
            consent.save_if_uncertain(photo, answer.prediction)
    summary = ", ".join(f"{n} {literal(label)}" for label, n in counts.items())
    st.caption(f"{len(shown)} photos on this page: {summary}")


def card(pool: ClassifierPool, photo: Photo, answer: Answer) -> None:
    prediction, threshold = answer.prediction, session.threshold()
    with st.container(border=True):
        style.html(
            style.image(answer.view, photo.name)
            + style.headline(prediction, threshold, 3)
            + style.bars(
                prediction.ranking[: min(session.top_k(), 3)],
                not prediction.known or prediction.probability < threshold,
            )
            + (f'<p class="eg-soft">{ANIMATED}</p>' if answer.animated else ""),
            "eg-card",
        )
        with st.container(
            horizontal=True,
            horizontal_alignment="distribute",
            vertical_alignment="center",
        ):
            st.caption(literal(photo.name))
            if st.button(
                "Open",
                key=f"open {photo.key}",
                type="tertiary",
                help=f"{literal(photo.name)}: larger, and why",
            ):
                larger(pool, photo)


@st.dialog("Photo", width="large")
def larger(pool: ClassifierPool, photo: Photo) -> None:
    answer = classify(pool, photo)
    if answer is not None:
        views(pool, photo, answer)
        explain(pool, photo, answer)


if __name__ == "__main__":
    page()
