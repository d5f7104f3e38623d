"""What the page shows: the model's facts, an answer, the empty state.

It does not know: where models come from, or how a photo is classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from edge.card import ModelCard
from edge.classifier import Classifier
from edge.errors import EdgegraftError, PhotoError
from streamlit_app.models import Answer, ModelFile

BUILD_COMMAND = "edgegraft build PHOTOS"
PHOTO_WIDTH, SEEN_WIDTH = 116, 88  # pixels; both fit into a third of the page


def title() -> None:
    st.title("edgegraft")
    st.caption("The model file that runs on the device, answering here.")


def no_models(artifacts: str) -> None:
    """The empty state: the one command that makes a run."""
    st.info(f"There is no model in `{artifacts}/` yet. This command makes one:")
    st.code(BUILD_COMMAND, language="bash")
    st.caption(
        "PHOTOS is a folder with one folder of photos per label. Without it, a sample "
        "set of cats and dogs is drawn and a model is built on that."
    )


def broken_model(entry: ModelFile, error: EdgegraftError) -> None:
    st.error(f"**{entry.name}** cannot be used. {error}", icon=":material/error:")


def model_facts(entry: ModelFile, classifier: Classifier) -> None:
    """Labels, input, size, runtime and the figures measured on this very file."""
    recipe, card = classifier.recipe, classifier.card
    rows = [
        ("Labels", _listed(classifier.labels)),
        ("Input", f"{recipe.width} x {recipe.height}, {recipe.resize}"),
        ("File", f"{entry.stamp[1] / 1e6:.2f} MB, {_kind(classifier)}"),
        ("Runtime", str(classifier.runtime)),
    ]
    rows += [(f"{part.capitalize()} accuracy", told) for part, told in _measured(card)]
    for name, value in rows:
        st.markdown(f"**{name}**  \n{value}")
    if card is None:
        st.caption("This file has no card: it was not made by edgegraft.")


def answer(name: str, answer: Answer) -> None:
    """One photo's card: the answer, its runners-up, the photo as the model saw it."""
    told = answer.prediction
    with st.container(border=True):
        if told.known:
            st.subheader(f"{_plain(told.label)}, {told.probability:.1%}", anchor=False)
        else:
            st.subheader("Unknown", anchor=False)
            st.caption(f"Looks like none of the labels ({told.familiarity:.2g}).")
        with st.container(horizontal=True):
            st.image(answer.photo, width=PHOTO_WIDTH)
            st.image(answer.seen, caption="as the model saw it", width=SEEN_WIDTH)
        for label, chance in told.ranking:
            share = min(max(chance, 0.0), 1.0)
            st.progress(share, text=f"{_plain(label)} {chance:.1%}")
        st.caption(
            f"{_plain(name)} · decoded in {answer.decode_ms:.1f} ms, "
            f"answered in {answer.inference_ms:.1f} ms"
        )


def unreadable(name: str, error: PhotoError) -> None:
    """One line in place of a photo's card; the other photos go on."""
    st.error(f"**{_plain(name)}**: {_plain(error.reason)}", icon=":material/error:")


def summary(labels: Sequence[str], failed: int) -> None:
    """How many of each label: only where there is more than one photo."""
    if len(labels) + failed < 2:
        return
    counts = {label: labels.count(label) for label in sorted(set(labels))}
    told = [f"{count} {_plain(label)}" for label, count in counts.items()]
    told += [f"{failed} could not be read"] if failed else []
    st.caption(f"{len(labels) + failed} photos on this page: {', '.join(told)}")


def _kind(classifier: Classifier) -> str:
    return classifier.card.variant if classifier.card else str(classifier.input_dtype)


def _listed(labels: Sequence[str], most: int = 8) -> str:
    told = ", ".join(_plain(label) for label in labels[:most])
    return f"{told} and {len(labels) - most:,} more" if len(labels) > most else told


def _measured(card: ModelCard | None) -> list[tuple[str, str]]:
    """(part, text) of the accuracies a card carries, with their intervals."""
    told = []
    for part, figures in (card.measured if card else {}).items():
        if not isinstance(figures, dict) or "accuracy" not in figures:
            continue
        text = f"{figures['accuracy']:.1%}"
        interval: Any = figures.get("interval")
        if interval:
            text += f" ({interval[0]:.1%} to {interval[1]:.1%})"
        if figures.get("photos"):
            text += f", {figures['photos']:,} photos"
        told.append((part, text))
    return told


def _plain(text: str) -> str:
    """A label or file name as it is, whatever Markdown would make of it."""
    return "".join(
        "\\" + sign if sign in r"\`*_{}[]()#+!|<>~:$" else sign for sign in text
    )
