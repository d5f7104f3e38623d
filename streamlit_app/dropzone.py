"""Where photos come in: dropped, chosen, pasted, taken, or a drawing to try; single
photos, and ZIP files of photos, read in memory only.

What was dropped on one page stays loaded on the next, until it is cleared. Nothing is
unpacked to disk. A photo's content is checked when it is decoded; files that are too
large, not allowed in a ZIP, or not photos by name and content are refused or ignored
here, one by one.
"""

from __future__ import annotations

import csv
import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import streamlit as st

from edge.errors import EdgegraftError
from edge.files import LABEL_COLUMNS, PATH_COLUMNS
from edge.photo_kinds import HEAD_BYTES, PHOTO_SUFFIXES, begins_like_a_photo
from edge.text import plural
from streamlit_app.style import literal

MEBIBYTE = 1 << 20
MAX_PHOTO_BYTES = 64 * MEBIBYTE  # a 100-megapixel photo has about 50
MAX_ZIP_BYTES = 1024 * MEBIBYTE
MAX_UNPACKED = 4096 * MEBIBYTE
MAX_ENTRIES = 5000  # of a ZIP
MAX_NAMED = 20  # refused entries of one ZIP that are listed by name
MAX_LIST_BYTES = 16 * MEBIBYTE
ENDINGS = sorted(suffix.removeprefix(".") for suffix in PHOTO_SUFFIXES)
DRAWN = Path(__file__).with_name("drawn")  # two pictures of the sample set
BURST_COUNTDOWN_S, BURST_EVERY_MS = 3, 300
BURST_SIZES = [10, 1, 30]  # photos of one click, the default first

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

# Streamlit removes scripts that contain markup, so this one creates its elements
_BURST = """<div class="eg eg-burst"></div><script>
(() => {
  const root = document.querySelector(".eg-burst");
  if (!root || root.childElementCount) return;
  const add = (to, name, settings) =>
    to.appendChild(Object.assign(document.createElement(name), settings));
  const video = add(root, "video", {muted: true, playsInline: true});
  video.setAttribute("aria-label", "What the camera sees");
  const label = add(root, "label", {textContent: "Photos "});
  const select = add(label, "select", {});
  for (const count of OPTIONS) add(select, "option", {textContent: count});
  const button = add(root, "button",
    {type: "button", textContent: "Start the camera"});
  const status = add(root, "p", {role: "status"});
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const photo = async (index) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return new File([blob], `camera-${Date.now()}-${index}.jpg`, {type: blob.type});
  };
  const burst = async () => {
    for (let left = COUNTDOWN; left; left--) {
      status.textContent = `${left} …`;
      await wait(1000);
    }
    const carrier = new DataTransfer();
    const total = Number(select.value);
    for (let index = 1; index <= total; index++) {
      carrier.items.add(await photo(index));
      status.textContent = `${index} of ${total}`;
      await wait(EVERY);
    }
    status.textContent = "";
    const input = document.querySelector(
      '[data-testid="stFileUploaderDropzoneInput"]');
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  };
  button.onclick = async () => {
    button.disabled = true;
    try {
      if (button.textContent !== "Take photos") {
        video.srcObject ??= await navigator.mediaDevices.getUserMedia({video: true});
        await video.play();
        button.textContent = "Take photos";
        status.textContent = "";
      } else {
        await burst();
      }
    } catch (error) {
      status.textContent = navigator.mediaDevices
        ? `No camera: ${error.message}`
        : "No camera: browsers allow it on https and on localhost only.";
    }
    button.disabled = false;
  };
  new MutationObserver((_, watcher) => {
    if (root.isConnected) return;
    video.srcObject?.getTracks().forEach((track) => track.stop());
    watcher.disconnect();
  }).observe(document.body, {childList: true, subtree: true});
})();
</script>"""


class Dropped(Protocol):
    """What Streamlit's uploader returns."""

    name: str
    file_id: str

    def getvalue(self) -> bytes: ...


@dataclass(frozen=True)
class Photo:
    """An undecoded photo: `read` returns its bytes, `key` is the same on a rerun."""

    name: str
    key: str
    read: Callable[[], bytes]


@dataclass
class Drop:
    """The photos of an upload, and (name, reason) of each refused file."""

    photos: list[Photo] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    others: int = 0  # files in ZIPs that are not photos, such as text
    listed: dict[str, str] = field(default_factory=dict)  # of lists: path to label

    def label(self, photo: Photo) -> str:
        """The label of a photo: from a list, by its path or name, or without a list its
        folder's name; "" for none."""
        path = PurePosixPath(photo.name.replace("\\", "/"))
        for start in range(len(path.parts)):
            label = self.listed.get("/".join(path.parts[start:]))
            if label:
                return label
        return "" if self.listed else path.parent.name


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
            st.button("Clear", on_click=_clear, type="tertiary", key=f"{key} clear")
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
        max_upload_size=MAX_ZIP_BYTES // MEBIBYTE,
        key=key,
        **options,
    )
    return files


def camera_burst() -> None:
    """The camera's picture, how many photos, and the button: one or many after a
    countdown. The browser puts them as JPEG files into the page's drop zone, as if they
    had been chosen there."""
    script = _BURST.replace("COUNTDOWN", str(BURST_COUNTDOWN_S))
    script = script.replace("OPTIONS", str(BURST_SIZES))
    script = script.replace("EVERY", str(BURST_EVERY_MS))
    st.html(script, unsafe_allow_javascript=True)


def _clear() -> None:
    st.session_state["dropped"] = []
    st.session_state["example"] = []


def show_refused(drop: Drop) -> None:
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


def unpacked(files: Iterable[Dropped]) -> Drop:
    """The photos of single files and of ZIP files, in order."""
    drop = Drop()
    for file in files:
        content = file.getvalue()
        if content[:4] in (b"PK\x03\x04", b"PK\x05\x06") or _is_zip(file.name):
            _from_zip(file, content, drop)
        elif _is_list(file.name):
            if not _read_list(content, drop):
                reason = "expected a list in UTF-8 with the columns path and label"
                drop.refused.append((file.name, reason))
        elif len(content) > MAX_PHOTO_BYTES:
            reason = _too_large(len(content), MAX_PHOTO_BYTES)
            drop.refused.append((file.name, reason))
        else:
            drop.photos.append(Photo(file.name, file.file_id, file.getvalue))
    return drop


def _open_zip(content: bytes) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A ZIP and its files, unread; EdgegraftError when it is damaged or too large."""
    if len(content) > MAX_ZIP_BYTES:
        raise EdgegraftError(_too_large(len(content), MAX_ZIP_BYTES))
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EdgegraftError(f"damaged ZIP file: {reason}") from None
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAX_ENTRIES:
        raise EdgegraftError(
            f"expected at most {MAX_ENTRIES:,} files in a ZIP, got "
            f"{len(entries):,}; split it, or run: edgegraft edge classify"
        )
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise EdgegraftError(
            f"expected at most {MAX_UNPACKED // MEBIBYTE:,} MB unpacked, got more"
        )
    return archive, entries


def _from_zip(file: Dropped, content: bytes, drop: Drop) -> None:
    try:
        archive, entries = _open_zip(content)
    except EdgegraftError as error:
        drop.refused.append((file.name, str(error)))
        return
    photos_before = len(drop.photos)
    refused: list[tuple[str, str]] = []
    for index, entry in enumerate(entries):
        name, hidden = entry.filename, _is_hidden(entry.filename)
        is_photo = not hidden and _is_photo(archive, entry)
        read = partial(_read_entry, archive, entry)
        refusal = _refusal(entry, is_photo)
        if refusal:
            refused.append((f"{file.name}: {name}", refusal))
        elif _is_list(name) and not hidden and entry.file_size < MAX_LIST_BYTES:
            drop.others += not _read_list(read(), drop)
        elif is_photo:
            drop.photos.append(Photo(name, f"{file.file_id}/{index}", read))
        else:
            drop.others += not hidden
    drop.refused += refused[:MAX_NAMED]
    if len(refused) > MAX_NAMED:
        reason = f"{len(refused) - MAX_NAMED:,} more files were refused"
        drop.refused.append((file.name, reason))
    if len(drop.photos) == photos_before and not refused:
        drop.refused.append((file.name, "expected photos in the ZIP, got none"))


def _read_list(content: bytes, drop: Drop) -> bool:
    """Add the labels of a CSV list; False for other texts.

    The page imports `edge` alone, so this reads only UTF-8 and the usual columns;
    `edgegraft build` reads other lists (`data/manifest.py`).
    """
    try:
        text = content.decode("utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=separator))
    except (UnicodeDecodeError, csv.Error):
        return False
    columns = {
        str(column).strip().lower(): column for column in (rows[0] if rows else ())
    }
    path, label = (
        next((columns[name] for name in names if name in columns), None)
        for names in (PATH_COLUMNS, LABEL_COLUMNS)
    )
    if path is None or label is None:
        return False
    for row in rows:
        if row[path] and row[label]:
            drop.listed[row[path].strip().replace("\\", "/")] = row[label].strip()
    return True


def _refusal(entry: zipfile.ZipInfo, is_photo: bool) -> str | None:
    """Why an entry of a ZIP is not opened; None when it may be, or is no photo."""
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or ":" in (parts or ("",))[0]:
        return "its path leads outside the ZIP"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "expected a file, got a link or a device"
    if _is_zip(name):
        return "a ZIP inside a ZIP; unpack it first"
    if is_photo and entry.flag_bits & 0x1:
        return "protected by a password; unpack the ZIP first"
    if is_photo and entry.file_size > MAX_PHOTO_BYTES:
        return _too_large(entry.file_size, MAX_PHOTO_BYTES)
    return None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(entry) as file:
            return file.read(MAX_PHOTO_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise OSError(f"damaged in the ZIP: {error}") from error


def _too_large(size: int, limit: int) -> str:
    return f"expected at most {limit // MEBIBYTE:,} MB, got {size // MEBIBYTE:,} MB"


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_list(name: str) -> bool:
    return name.lower().endswith(".csv")


def _is_photo(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry has a photo's suffix, or begins like a photo."""
    if PurePosixPath(entry.filename).suffix.lower() in PHOTO_SUFFIXES:
        return True
    if _is_zip(entry.filename) or _is_list(entry.filename):
        return False
    try:
        with archive.open(entry) as file:
            return begins_like_a_photo(file.read(HEAD_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError):
        return False


def _is_hidden(name: str) -> bool:
    return any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)
