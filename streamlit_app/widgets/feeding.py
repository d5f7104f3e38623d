"""Sidebar fields of a model file without a card: how its photos are made, its labels.

What is left empty is as the file's TFLite Metadata says, else the default for published
classifiers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import streamlit as st

from edge.command import numbers, width_and_height
from edge.errors import EdgegraftError
from edge.foreign import CENTRAL_FRACTION, FILTER, RESIZE, ForeignOptions
from edge.preprocess import FILTERS, RESIZES
from streamlit_app.model_pool import ClassifierPool, Feeding
from streamlit_app.style import literal


def of(path: Path) -> Feeding:
    """What this visitor said of a file."""
    said: Feeding = st.session_state.get(f"feeding {path}", Feeding())
    return said


def fields(path: Path, pool: ClassifierPool | None) -> None:
    """The form; open where the file cannot run without it (`pool` is None)."""
    force: dict[str, Any] = {}
    if pool is not None and pool.facts.foreign_input is not None:
        force = pool.facts.foreign_input.describe()
    scaling = {name: _listed(force.get(name)) for name in ("mean", "std")}

    def key(name: str) -> str:
        return f"{name} of {path}"

    with (
        st.expander("How photos are fed", expanded=pool is None),
        st.form(key("form"), border=False),
    ):
        resize = st.selectbox(
            "Resize",
            RESIZES,
            index=None,
            placeholder=force.get("resize", RESIZE),
            key=key("resize"),
        )
        crop = st.number_input(
            "Crop: the middle share of the photo",
            0.05,
            1.0,
            value=None,
            placeholder=f"{force.get('crop', CENTRAL_FRACTION):g}",
            key=key("crop"),
        )
        kind = st.selectbox(
            "Filter",
            FILTERS,
            index=None,
            placeholder=force.get("filter", FILTER),
            key=key("filter"),
        )
        texts = {
            name: st.text_input(title, placeholder=hint, help=more, key=key(name))
            for name, title, hint, more in (
                (
                    "mean",
                    "Mean",
                    scaling["mean"],
                    "Pixels become (pixel - mean) / std: one number, or R,G,B.",
                ),
                ("std", "Standard deviation", scaling["std"], None),
                ("size", "Input size, where it is open", "224x224", None),
                ("output", "Name of the output with the scores", "", None),
            )
        }
        labels = st.text_area("Labels, one on each line", key=key("labels"))
        if not st.form_submit_button("Apply"):
            return
    try:
        options = ForeignOptions(
            size=width_and_height(texts["size"]) if texts["size"] else None,
            resize=resize,
            crop=crop,
            filter=kind,
            mean=numbers(texts["mean"]) if texts["mean"] else None,
            std=numbers(texts["std"]) if texts["std"] else None,
            output=texts["output"] or None,
        )
    except (argparse.ArgumentTypeError, EdgegraftError) as error:
        st.error(literal(str(error).replace("--", "")), icon=":material/error:")
        return
    names = tuple(line.strip() for line in labels.splitlines() if line.strip())
    st.session_state[f"feeding {path}"] = Feeding(names, options)
    st.rerun()


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values or ())
