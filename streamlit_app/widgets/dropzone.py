"""Where photos come in: dropped, chosen, pasted, taken, or the drawn ones to try.

What was dropped on one page is there on the next, too, until it is cleared.

It does not know: what becomes of the photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from streamlit_app import style
from streamlit_app.uploads import (
    ENDINGS,
    MEGABYTE,
    MOST_ZIP_BYTES,
    Drop,
    Dropped,
    Photo,
    unpacked,
)

DRAWN = Path(__file__).resolve().parents[1] / "drawn"  # two pictures of the sample set

# Streamlit's drop zone takes no paste. The pasted files are put into its own input,
# as if they had been chosen there, so they take the usual way.
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


def photos(key: str = "photos", *, camera: bool = True, drawn: bool = True) -> Drop:
    """The visitor's photos, in the order they came; empty where there are none."""
    source = "Photos"
    if camera:
        source = st.segmented_control(
            "Where from",
            ["Photos", "Camera"],
            default="Photos",
            required=True,
            label_visibility="collapsed",
            key=f"{key} from",
        )
    if source == "Camera":
        taken = st.camera_input("Take a photo", key=f"{key} camera")
        return unpacked([taken] if taken else [])
    st.file_uploader(
        "Drop photos or a ZIP, or paste one",
        type=[*ENDINGS, "zip"],
        accept_multiple_files=True,
        max_upload_size=MOST_ZIP_BYTES // MEGABYTE,
        key=key,
        on_change=_keep,
        args=(key,),
    )
    st.html(_PASTE, unsafe_allow_javascript=True)
    files: Sequence[Dropped] = st.session_state.get("dropped", ())
    if files and not st.session_state.get(key):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{len(files):,} from before", width="content")
            st.button("Clear", on_click=clear, type="tertiary", key=f"{key} clear")
    drop = unpacked(files)
    if not files and drawn:
        drop.photos += _tried(key)
    return drop


def clear() -> None:
    st.session_state["dropped"] = []
    st.session_state["tried"] = []


def refusals(drop: Drop) -> None:
    """What was turned away, file by file, and what was passed over."""
    for name, reason in drop.refused:
        unreadable(name, reason)
    if drop.others:
        st.caption(f"{drop.others:,} files in the ZIP are no photos; passed over.")


def unreadable(name: str, reason: str) -> None:
    """One line in place of a photo; the other photos go on."""
    if "got HEIC" in reason:
        reason = (
            "HEIC needs an extra here. Save it as JPEG (on an iPhone: Settings, "
            "Camera, Formats, Most Compatible), or install: "
            "pip install pillow-heif"
        )
    st.error(f"**{style.plain(name)}**: {style.plain(reason)}", icon=":material/error:")


def _keep(key: str) -> None:
    st.session_state["dropped"] = list(st.session_state[key])
    st.session_state["tried"] = []


def _tried(key: str) -> list[Photo]:
    """The drawn pictures, offered while nothing was dropped."""
    names = sorted(path.name for path in DRAWN.glob("*.jpg"))

    def take(name: str) -> None:
        st.session_state["tried"] = [name]

    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Nothing at hand? Try a drawn one:", width="content")
        for name in names:
            st.button(
                name.removesuffix(".jpg"),
                key=f"{key} {name}",
                on_click=take,
                args=(name,),
                type="tertiary",
                icon=":material/draw:",
            )
    wanted = [name for name in st.session_state.get("tried", ()) if name in names]
    return [Photo(name, f"drawn/{name}", (DRAWN / name).read_bytes) for name in wanted]
