"""What the Model page gives to take to a device, and the lines that run it there.

It does not know: what is in the folder (that is `edge.pack`), or which device it is.
"""

from __future__ import annotations

import shlex

import streamlit as st

from edge.pack import MODEL, PROGRAM, REQUIREMENTS, zipped
from edge.run_folder import USUAL, recommended
from streamlit_app import session, style
from streamlit_app.model_pool import Pool
from streamlit_app.models import ModelFile

FOLDER = "device"  # in the ZIP, which is named after it
STEPS = f"""python3 -m zipfile -e {FOLDER}.zip . && cd {FOLDER}
python3 -m venv venv
venv/bin/pip install -r {REQUIREMENTS}
venv/bin/python {PROGRAM} classify {MODEL} photo.jpg"""


def take(entry: ModelFile, pool: Pool) -> None:
    """The folder for a device, the lines that run it there, and the files alone."""
    st.markdown("**On a device**")
    path = entry.path
    best = recommended(str(entry.folder)) if entry.folder else None
    if best is not None and best != entry.variant:
        st.caption(f"The comparison of this run recommends **{style.plain(best)}**.")
    if pool.named:
        st.download_button(
            f"Folder for a device, with {style.plain(path.name)}",
            lambda: zipped(path, FOLDER),
            f"{FOLDER}.zip",
            "application/zip",
            icon=":material/folder_zip:",
            type="primary",
            on_click="ignore",
        )
        st.code(STEPS, language="bash", wrap_lines=True)
        command = f"edgegraft edge pack {shlex.quote(str(entry.folder or path))}"
        command += f" -o {FOLDER}"
        if entry.folder and entry.variant != (best or USUAL[0]):
            command += f" --variant {shlex.quote(entry.variant)}"
        st.caption(f"`{command}` writes the same folder.")
    else:
        labels = session.house().labels
        names = shlex.quote(labels.name if labels else "labels.txt")
        st.code(
            "python3 -m venv venv\n"
            "venv/bin/pip install .  # in a checkout of edgegraft\n"
            f"venv/bin/edgegraft edge classify {shlex.quote(path.name)} photo.jpg "
            f"--labels {names}",
            language="bash",
            wrap_lines=True,
        )
        st.caption("No labels are inside this file: copy it and its label file.")
    st.caption("The files alone:")
    others = [
        other
        for other in session.house().models()
        if other.folder == entry.folder and other.path != path and entry.folder
    ]
    for one in (entry, *others):
        st.download_button(
            f"{style.plain(one.path.name)}, {one.stamp[1] / 1e6:.2f} MB",
            lambda one=one: one.path.read_bytes(),  # type: ignore[misc]
            one.path.name,
            "application/octet-stream",
            key=f"take {one.path}",
            type="tertiary",
            icon=":material/download:",
            on_click="ignore",
        )
