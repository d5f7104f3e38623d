"""Review: the queue of photos to label, one by one or in a grid, by click or key."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import streamlit as st

from edge.errors import EdgegraftError, PhotoError, reason_of
from edge.text import plural
from streamlit_app import answer, consent, dropzone, session, style, training
from streamlit_app.dropzone import unpacked
from streamlit_app.feedback import DEVICE, NONE, Feedback, Waiting
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.runs import Run, read_run
from streamlit_app.style import literal

KEYS = "123456789"  # labels by number
ONE, GRID = "One by one", "Grid"
GRID_SIZES, GRID_COLUMNS = (12, 24, 60), 6
MAX_BUTTONS = 12  # more labels than that are chosen from a list
# Settings of a run that a training with more photos repeats, with their defaults
REPEATED = {
    "backbone": None,
    "size": None,
    "resize": None,
    "region": None,
    "unfreeze": "auto",
    "balance": "none",
}

# A tile is a container with the key "tile ..." that holds one checkbox. The script only
# clicks the checkboxes, so Streamlit sees changes of checkboxes alone.
_TILE_SELECTION = """<script>
(() => {
  const old = window.edgegraftSelecting;
  if (old) for (const name of ["click", "keydown"])
    document.removeEventListener(name, old[name], true);
  const TILE = '[class*="st-key-tile-"]';
  const tileOf = (event) => event.target.closest?.(TILE);
  const boxOf = (tile) => tile.querySelector("input[type=checkbox]");
  const boxes = () => [...document.querySelectorAll(TILE)]
    .map(boxOf).filter(Boolean);
  const set = (box, on) => { if (box.checked !== on) box.click(); };
  let last = null;
  const click = (event) => {
    const tile = tileOf(event);
    if (!tile || !event.isTrusted || event.target.matches("input")) return;
    const box = boxOf(tile);
    if (!box || !event.target.closest("img, label")) return;
    if (event.shiftKey && last?.isConnected && last !== box) {
      event.preventDefault();
      const all = boxes();
      const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
      all.slice(from, to + 1).forEach((other) => set(other, last.checked));
    } else if (event.target.closest("img")) {
      box.click();
    }
    last = box;
    box.focus();
  };
  const keydown = (event) => {
    const tile = tileOf(event);
    if (!tile || !event.target.matches("input[type=checkbox]")) return;
    const all = boxes();
    const top = (box) => box.closest(TILE).getBoundingClientRect().top;
    const columns = all.filter((box) => top(box) - top(all[0]) < 20).length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns};
    const next = all[all.indexOf(event.target) + step[event.key]];
    if (!next) return;
    event.preventDefault();
    if (event.shiftKey) {
      set(event.target, true);
      set(next, true);
    }
    last = next;
    next.focus();
  };
  window.edgegraftSelecting = {click, keydown};
  document.addEventListener("click", click, true);
  document.addEventListener("keydown", keydown, true);
})();
</script>"""


def page() -> None:
    pool = session.pool()
    feedback = session.config().feedback
    switch(feedback)
    if pool is None:
        return
    waiting = feedback.waiting()
    if not consent.agreed() and not waiting:
        return
    if waiting:
        layout = st.segmented_control(
            "Layout",
            [ONE, GRID],
            default=ONE,
            required=True,
            label_visibility="collapsed",
            key="review layout",
        )
        show = grid if layout == GRID else single
        show(feedback, pool, waiting)
    else:
        style.html(
            "<h3>The queue is empty</h3>"
            '<p class="eg-soft">Classify some photos: those with uncertain answers '
            "come here, and those you mark as wrong.</p>"
        )
        undo_button(feedback)
    if consent.agreed():
        st.divider()
        frames(feedback, pool)
    labelled(feedback)


def switch(feedback: Feedback) -> None:
    """The one switch that allows photos to be saved."""
    key = consent.AGREED + " switch"
    st.session_state.setdefault(key, consent.agreed())
    on = st.toggle("Keep photos for review", key=key)
    st.session_state[consent.AGREED] = on
    folder = literal(str(feedback.folder))
    if on:
        st.caption(
            f"Photos with an answer below {100 * session.threshold():.0f} % or "
            f"unknown, and those you mark as wrong, are copied to {folder}, with their "
            "EXIF data. Nothing leaves this machine."
        )
    else:
        st.caption(
            "Off: nothing is saved. Turn it on to copy photos with uncertain answers "
            f"to {folder}, label them here and train with them."
        )


def single(feedback: Feedback, pool: ClassifierPool, waiting: list[Waiting]) -> None:
    """The first photo of the queue, its answer, and the labels to choose from."""
    skipped: set[str] = st.session_state.setdefault("skipped", set())
    queue = [photo for photo in waiting if photo.digest not in skipped] or waiting
    if len(queue) == len(waiting):
        skipped.clear()
    photo = queue[0]
    left, right = st.columns([6, 5], gap="large")
    with left:
        try:
            picture = session.cached(
                ("waiting", photo.digest),
                lambda: answer.thumbnail(feedback.path(photo), answer.VIEW_SIDE),
            )
            style.frame(picture, f"{photo.name}, to be labelled")
        except PhotoError as error:
            dropzone.unreadable(photo.name, error.reason)
    with right:
        st.caption(
            f"{len(waiting):,} waiting · {literal(photo.name)} · "
            f"{literal(photo.why)} · {literal(photo.model)}"
        )
        bars = style.bars(photo.ranking[:3], uncertain=True)
        style.html("<h3>What is it?</h3>" + bars)
        choose(feedback, pool, photo)


def grid(feedback: Feedback, pool: ClassifierPool, waiting: list[Waiting]) -> None:
    """Many photos at once: select some, then one label for all of them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        size = st.selectbox("Photos on the page", GRID_SIZES, 1, width=160)
        shown = waiting[:size]
        for title, on, key in (("Select all", True, "a"), ("Select none", False, "n")):
            st.button(
                title, shortcut=key, on_click=_select, args=(shown, on), type="tertiary"
            )
    selected = [p for p in shown if st.session_state.get(f"select {p.digest}")]
    st.caption(
        f"{len(waiting):,} waiting · {plural(len(selected), 'photo')} selected: click, "
        "Shift and click, or arrows and Space. Label for all of them:"
    )
    with st.container(horizontal=True):
        label_buttons(feedback, selected, pool.facts.labels, "label all")
        none_of_these(feedback, selected)
        st.button(
            "Leave out",
            key="leave out all",
            shortcut="x",
            disabled=not selected,
            on_click=feedback.discard,
            args=selected,
            help="Deletes the copies in the queue",
        )
    undo_button(feedback)
    tile_selection()
    for start in range(0, size, GRID_COLUMNS):  # row by row, so that Tab follows rows
        row = shown[start : start + GRID_COLUMNS]
        for column, photo in zip(st.columns(GRID_COLUMNS), row, strict=False):
            with column, st.container(key=f"tile {photo.digest}"):
                make = partial(answer.thumbnail, feedback.path(photo))
                try:
                    picture = session.cached(("grid", photo.digest), make)
                    style.html(style.image(picture, photo.name), "eg-card")
                except PhotoError as error:
                    dropzone.unreadable(photo.name, error.reason)
                title = literal(photo.suggested or "?")
                st.checkbox(title, key=f"select {photo.digest}")


def tile_selection() -> None:
    """Click a picture or its checkbox, Shift and click for a range, arrows to move,
    Space to select, Shift and arrows to extend."""
    st.html(_TILE_SELECTION, unsafe_allow_javascript=True)


def _select(photos: list[Waiting], on: bool) -> None:
    for photo in photos:
        st.session_state[f"select {photo.digest}"] = on


def label_buttons(
    feedback: Feedback,
    photos: list[Waiting],
    labels: Sequence[str],
    key: str,
    suggested: str | None = None,
    **options: Any,
) -> None:
    """A button for each label, also by number key; the suggested one is highlighted."""
    for index, label in enumerate(labels[:MAX_BUTTONS]):
        st.button(
            literal(label),
            key=f"{key} {index}",
            type="primary" if label == suggested else "secondary",
            shortcut=KEYS[index] if index < len(KEYS) else None,
            disabled=not photos,
            on_click=_label,
            args=(feedback, photos, label),
            **options,
        )


def none_of_these(feedback: Feedback, photos: list[Waiting]) -> None:
    st.button(
        "None of these",
        key="none",
        shortcut="0",
        disabled=not photos,
        on_click=_label,
        args=(feedback, photos, NONE),
        help="Shows none of the labels: the next model learns to answer unknown",
    )


def choose(feedback: Feedback, pool: ClassifierPool, photo: Waiting) -> None:
    """Buttons for the labels, or a list of many labels; and what else to do."""
    photos, labels, suggested = [photo], pool.facts.labels, photo.suggested
    if len(labels) <= MAX_BUTTONS:
        label_buttons(feedback, photos, labels, "label", suggested, width="stretch")
    else:
        index = labels.index(suggested) if suggested in labels else None
        choice = st.selectbox("Label", labels, index, key=f"of {photo.digest}")
        st.button(
            "Save",
            type="primary",
            shortcut="enter",
            disabled=choice is None,
            on_click=_label,
            args=(feedback, photos, choice),
        )
    with st.container(horizontal=True):
        none_of_these(feedback, photos)
        skip = st.session_state["skipped"].add
        st.button("Skip", key="skip", shortcut="s", on_click=skip, args=(photo.digest,))
        st.button(
            "Remove",
            key="remove",
            shortcut="x",
            on_click=feedback.discard,
            args=photos,
            help="Deletes the copy in the queue",
        )
        undo_button(feedback)


def undo_button(feedback: Feedback) -> None:
    if st.session_state.get("last label"):
        st.button("Undo", key="undo", shortcut="u", on_click=_undo, args=(feedback,))
    if problem := st.session_state.pop("label problem", None):
        st.error(literal(problem), icon=":material/error:")


def _label(feedback: Feedback, photos: list[Waiting], label: str) -> None:
    st.session_state["last label"] = []
    for photo in photos:
        try:
            feedback.label(photo, label)
            st.session_state["last label"].append((photo, label))
        except EdgegraftError as error:
            st.session_state["label problem"] = str(error)


def _undo(feedback: Feedback) -> None:
    for photo, label in st.session_state.pop("last label"):
        try:
            feedback.undo(photo, label)
        except EdgegraftError as error:
            st.session_state["label problem"] = str(error)


def frames(feedback: Feedback, pool: ClassifierPool) -> None:
    """Add photos to the queue, such as the uncertain frames of a device."""
    files = dropzone.uploader(
        "Add photos to the queue, such as frames that a device saved", "frames"
    )
    queued: set[str] = st.session_state.setdefault("queued", set())
    drop = unpacked(files)
    model = session.entry().name
    added = failed = 0
    for photo in drop.photos:
        if photo.key in queued:
            continue
        queued.add(photo.key)
        try:
            content = photo.read()
            prediction = answer.row(pool, content, answer.MAX_LABELS).prediction
            added += bool(feedback.add(content, photo.name, DEVICE, model, prediction))
        except (OSError, EdgegraftError) as error:
            failed += 1
            dropzone.unreadable(photo.name, reason_of(error))
    dropzone.show_refused(drop)
    if added:
        st.toast(f"Added {plural(added, 'photo')}", icon=":material/check:")
        if not failed:  # a rerun would remove the errors
            st.rerun()


def labelled(feedback: Feedback) -> None:
    """The photos labelled so far, and a training with them."""
    counts, negatives = feedback.labelled(), feedback.negatives()
    if not counts and not negatives:
        return
    st.markdown("**Labelled so far**")
    rows = list(counts.items())
    if negatives:
        rows.append(("none of the labels", negatives))
    total = sum(n for _, n in rows)
    style.html(style.bars([(label, n / total) for label, n in rows]))
    st.caption(f"{', '.join(f'{n:,} {literal(label)}' for label, n in rows)}.")
    entry = session.entry()
    run = read_run(entry.folder) if entry.folder else None
    photos = str(run.config.get("photos") or "") if run else ""
    if run is None or not photos:
        st.caption("Choose a model of a run to train again with these photos.")
        return
    own = session.config().own_folder()
    runs = own / "runs"
    candidates = (f"{run.folder.name}-{number}" for number in count(2))
    name = next(name for name in candidates if not (runs / name).exists())
    options = build_options(run, feedback, bool(counts), bool(negatives))
    before = str(entry.path)
    if st.button("Train again with these", icon=":material/model_training:"):
        queue = session.config().train_queue
        try:
            training.start(own, queue, photos, options, name, before)
        except EdgegraftError as error:
            st.error(literal(str(error)), icon=":material/error:")
        else:
            st.switch_page("views/train.py")
    build = ["edgegraft", "build", photos, "--artifacts", str(runs), "--run", name]
    after = str(runs / name / "exports" / entry.path.name)
    compare = ["edgegraft", "compare", before, after, "--photos", str(run.folder)]
    st.caption("The same on the command line, and whether it helped:")
    st.code(
        f"{shlex.join([*build, *options])}\n{shlex.join(compare)}",
        language=None,
        wrap_lines=True,
    )


def build_options(
    run: Run, feedback: Feedback, labels: bool, negatives: bool
) -> list[str]:
    """Options of `build` that repeat the run's training with the labelled photos."""
    options = ["--add", str(feedback.folder)] if labels else []
    if negatives:
        options += ["--negatives", str(feedback.folder / NONE)]
    settings = run.config.get("settings") or {}
    for name, default in REPEATED.items():
        value = settings.get(name)
        if isinstance(value, int | str) and value != default:
            options += [f"--{name}", str(value)]
    excluded = run.folder / "excluded.csv"
    return options + (["--exclude-from", str(excluded)] if excluded.is_file() else [])


if __name__ == "__main__":
    page()
