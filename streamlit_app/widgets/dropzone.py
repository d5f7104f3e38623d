"""Where photos come in: dropped, chosen, pasted, taken, or a drawing to try.

What was dropped on one page stays loaded on the next, until it is cleared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from edge.text import plural
from streamlit_app.style import literal
from streamlit_app.uploads import (
    ENDINGS,
    MAX_ZIP_BYTES,
    MEGABYTE,
    Drop,
    Dropped,
    Photo,
    unpacked,
)

DRAWN = Path(__file__).resolve().parents[1] / "drawn"  # two pictures of the sample set

# Streamlit's drop zone ignores a paste: this puts pasted pictures into its file input.
_PASTE = """<script>
(() => {
  const old = window.edgegraftPaste;
  if (old) document.removeEventListener("paste", old);
  window.edgegraftPaste = (event) => {
    const files = [...(event.clipboardData?.files || [])]
      .filter((file) => file.type.startsWith("image/"));
    const input = document.querySelector(
      '[data-testid="stFileUploaderDropzoneInput"]');
    if (!files.length || !input) return;
    event.preventDefault();
    const carrier = new DataTransfer();
    files.forEach((file) => carrier.items.add(file));
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  };
  document.addEventListener("paste", window.edgegraftPaste);
})();
</script>"""


def photos(
    key: str = "photos", *, camera: bool = True, labels: Collection[str] = ()
) -> Drop:
    """The visitor's photos, in the order they came; until then it offers the drawings
    of these labels."""
    source = "Photos"
    if camera:
        source = st.segmented_control(
            "Source",
            ["Photos", "Camera"],
            default="Photos",
            required=True,
            label_visibility="collapsed",
            key=f"{key} from",
        )
    if source == "Camera":
        taken = st.camera_input("Take a photo", key=f"{key} camera")
        return unpacked([taken] if taken else [])
    uploader("Drop photos or a ZIP, or paste one", key, on_change=_keep, args=(key,))
    st.html(_PASTE, unsafe_allow_javascript=True)
    files: Sequence[Dropped] = st.session_state.get("dropped", ())
    if files and not st.session_state.get(key):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{len(files):,} still loaded", width="content")
            st.button("Clear", on_click=clear, type="tertiary", key=f"{key} clear")
    drop = unpacked(files)
    if not files:
        drop.photos += _examples(key, labels)
    return drop


def uploader(label: str, key: str, *types: str, **options: Any) -> list[Dropped]:
    """A drop zone for photos, ZIP files and more `types`."""
    files: list[Dropped] = st.file_uploader(
        label,
        type=[*ENDINGS, "zip", *types],
        accept_multiple_files=True,
        max_upload_size=MAX_ZIP_BYTES // MEGABYTE,
        key=key,
        **options,
    )
    return files


def clear() -> None:
    st.session_state["dropped"] = []
    st.session_state["example"] = []


def refusals(drop: Drop) -> None:
    """The refused files, one line each, and the number of ignored ones."""
    for name, reason in drop.refused:
        unreadable(name, reason)
    if drop.others:
        st.caption(f"Ignored {plural(drop.others, 'file')} in the ZIP: not photos.")


def unreadable(name: str, reason: str) -> None:
    """One line in place of a photo; the others are classified."""
    st.error(f"**{literal(name)}**: {literal(reason)}", icon=":material/error:")


def _keep(key: str) -> None:
    """Load what was dropped, also for the other pages."""
    st.session_state["dropped"] = list(st.session_state[key])
    st.session_state["example"] = []


def _examples(key: str, labels: Collection[str]) -> list[Photo]:
    """The drawn pictures, offered until something is dropped."""
    names = sorted(path.name for path in DRAWN.glob("*.jpg") if path.stem in labels)
    if not names:
        return []
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Or try a drawing:", width="content")
        for name in names:
            st.button(
                name.removesuffix(".jpg"),
                key=f"{key} {name}",
                on_click=st.session_state.update,
                args=({"example": [name]},),
                type="tertiary",
                icon=":material/draw:",
            )
    chosen = [name for name in st.session_state.get("example", ()) if name in names]
    return [Photo(name, f"drawn/{name}", (DRAWN / name).read_bytes) for name in chosen]
