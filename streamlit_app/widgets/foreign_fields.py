"""Sidebar fields of a model file without a card: its preprocessing and its labels.

Empty fields take the value of the file's TFLite Metadata, else the default for
published classifiers.
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
from streamlit_app.model_pool import ClassifierPool, ForeignSettings
from streamlit_app.style import literal


def settings_of(path: Path) -> ForeignSettings:
    """This visitor's settings for a file."""
    settings: ForeignSettings = st.session_state.get(
        f"feeding {path}", ForeignSettings()
    )
    return settings


def fields(path: Path, pool: ClassifierPool | None) -> None:
    """The form; open where the file cannot run without it (`pool` is None)."""
    current: dict[str, Any] = {}
    if pool is not None and pool.facts.foreign_input is not None:
        current = pool.facts.foreign_input.describe()
    mean, std = (
        ", ".join(f"{value:g}" for value in current.get(name) or ())
        for name in ("mean", "std")
    )

    def key(name: str) -> str:
        return f"{name} of {path}"

    with (
        st.expander("How photos are read", expanded=pool is None),
        st.form(key("form"), border=False),
    ):
        resize = st.selectbox(
            "Resize",
            RESIZES,
            index=None,
            placeholder=current.get("resize", RESIZE),
            key=key("resize"),
        )
        crop = st.number_input(
            "Crop: the middle share of the photo",
            0.05,
            1.0,
            value=None,
            placeholder=f"{current.get('crop', CENTRAL_FRACTION):g}",
            key=key("crop"),
        )
        resampling = st.selectbox(
            "Filter",
            FILTERS,
            index=None,
            placeholder=current.get("filter", FILTER),
            key=key("filter"),
        )
        new_mean = st.text_input(
            "Mean",
            placeholder=mean,
            help="Pixels become (pixel - mean) / std: one number, or R,G,B.",
            key=key("mean"),
        )
        new_std = st.text_input("Standard deviation", placeholder=std, key=key("std"))
        size = st.text_input(
            "Input size, where it is open", placeholder="224x224", key=key("size")
        )
        output = st.text_input("Name of the output with the scores", key=key("output"))
        labels = st.text_area("Labels, one on each line", key=key("labels"))
        if not st.form_submit_button("Apply"):
            return
    try:
        options = ForeignOptions(
            size=width_and_height(size) if size else None,
            resize=resize,
            crop=crop,
            filter=resampling,
            mean=numbers(new_mean) if new_mean else None,
            std=numbers(new_std) if new_std else None,
            output=output or None,
        )
    except (argparse.ArgumentTypeError, EdgegraftError) as error:
        st.error(literal(str(error).replace("--", "")), icon=":material/error:")
        return
    names = tuple(line.strip() for line in labels.splitlines() if line.strip())
    st.session_state[f"feeding {path}"] = ForeignSettings(names, options)
    st.rerun()
