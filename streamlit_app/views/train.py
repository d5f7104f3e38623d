"""Train: photos by label, what the audit says of them, then `edgegraft build`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from edge.card import digest
from edge.errors import EdgegraftError, PhotoError, reason_of
from edge.files import sha256
from edge.records import COMPARISON, Record, read_record
from edge.run_folder import find_model
from edge.text import plural, printable
from streamlit_app import answer, app, dropzone, session, style, training
from streamlit_app.dropzone import unpacked
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.runs import ListedModel, read_run
from streamlit_app.style import literal
from streamlit_app.training import Job, Photos, Uploads

THUMBNAILS = 8  # of each label, a row of `style.gallery`
FINDINGS_SHOWN = 24
LABELS_IN_NAME = 4  # of the name that is suggested for a model
# The networks to suggest, best first, where their weights are on this machine
SUGGESTED = ("mobilenet_v2_0.35", "efficientnet_lite0", "mobilenet_v2_1.0")
MINUTES = 10  # the default time limit
SIGNIFICANT = 0.05  # the level of McNemar's test
_FIRST_STEP: dict[str, Any] = {"done": 0, "total": 1, "bar": "starting"}


def page() -> None:
    jobs = training.jobs(own_folder())
    active = [job for job in jobs if job.state() not in training.ENDED]
    for job in reversed(active):
        progress(job.folder.name)
    if active:
        return
    if jobs:
        ended(jobs[0])
    photos = collect(Uploads(own_folder() / "uploads"))
    if show(photos):
        audit(photos)
        begin(photos)


def own_folder() -> Path:
    return session.config().own_folder()


def collect(uploads: Uploads) -> Photos:
    """Take uploads (photos of one label, or a ZIP with label folders or a list), or a
    folder on this machine."""
    st.markdown("**1. Photos**")
    label = st.text_input(
        "Label of the photos (a ZIP with a folder per label or a list needs none)",
        key="train label",
        placeholder="such as: cup",
    )
    upload_count = st.session_state.setdefault("train drop", 0)
    files = dropzone.uploader(
        "Drop photos, a ZIP, or a list (.csv: path, label) and its photos",
        f"train {upload_count}",
        "csv",
    )
    with st.expander("Take photos with the camera", icon=":material/photo_camera:"):
        dropzone.camera_burst()
    photos = local_photos(uploads) if session.is_local() else uploads
    drop = unpacked(files)
    if not drop.photos and not drop.refused:
        return photos
    problems = list(drop.refused)
    added = unlabelled = 0
    bar = st.progress(0.0, text="Saving photos")
    for count, photo in enumerate(drop.photos, start=1):
        photo_label = drop.label(photo) or label.strip()
        bar.progress(count / len(drop.photos), text="Saving photos")
        if not photo_label:
            unlabelled += 1
            continue
        try:
            added += uploads.add(photo_label, photo.read())
        except (OSError, EdgegraftError) as error:
            problems.append((photo.name, reason_of(error)))
    bar.empty()
    if unlabelled:
        st.warning(f"Enter a label for {plural(unlabelled, 'photo')}.")
        return photos
    st.session_state["train problems"] = problems
    st.session_state["train drop"] = upload_count + 1  # a new key: an empty drop zone
    st.toast(f"Added {plural(added, 'photo')}", icon=":material/check:")
    st.rerun()


def local_photos(uploads: Uploads) -> Photos:
    """The folder or list on this machine that the visitor named, else `uploads`."""
    with st.expander("Use photos on this machine", icon=":material/folder_open:"):
        text = st.text_input(
            "A folder with a folder per label, or a list (.csv)", key="train folder"
        ).strip()
        if text:
            st.caption("They stay where they are. Clear the field to use uploads.")
    if not text:
        return uploads
    path = Path(text).expanduser().absolute()
    photos = Photos(path, own_folder() / "audits" / sha256(str(path).encode())[:16])
    if not photos.findings():
        check(photos)
    return photos


def show(photos: Photos) -> bool:
    """Counts and thumbnails of each label; whether there are photos."""
    refused: dict[str, list[str]] = {}  # by reason: a full disk refuses many photos
    for name, reason in st.session_state.get("train problems", ()):
        refused.setdefault(reason, []).append(name)
    for reason, names in refused.items():
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        dropzone.unreadable(names[0] + more, reason)
    labels = photos.labels()
    uploads = photos if isinstance(photos, Uploads) else None
    if not labels:
        if uploads:
            st.caption(
                "Two labels or more, 20 photos of each are a good start. Photos are "
                f"saved in {literal(str(uploads.folder))} until you delete them."
            )
        return False
    for label, paths in labels.items():
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{literal(label)}** {plural(len(paths), 'photo')}")
                if uploads:
                    st.button(
                        "Delete",
                        key=f"delete {label}",
                        type="tertiary",
                        on_click=_delete,
                        args=(uploads, label),
                        help=f"Delete the photos of {literal(label)}",
                    )
            pictures = (
                session.cached(("train", path), partial(_thumbnail, path))
                for path in paths[:THUMBNAILS]
            )
            style.gallery([(p, label) for p in pictures if p], captions=False)
    if uploads:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"Saved in {literal(str(uploads.folder))}.", width="content")
            st.button("Delete all", on_click=_delete, args=(uploads,), type="tertiary")
    return True


def _delete(uploads: Uploads, label: str | None = None) -> None:
    """Delete the photos of a label, or all, and the problems of the last upload."""
    uploads.delete(label)
    st.session_state.pop("train problems", None)


def check(photos: Photos) -> None:
    with st.spinner("Looking for damaged, blurred and copied photos"):
        try:
            photos.audit()
        except EdgegraftError as error:
            reason = str(error).removeprefix("edgegraft: error: ")
            st.error(literal(reason), icon=":material/error:")


def audit(photos: Photos) -> None:
    """Findings as cards, each with a switch that leaves the photo out."""
    st.markdown("**2. Check the photos**")
    if st.button("Check", icon=":material/fact_check:"):
        check(photos)
    rows = [row for row in photos.findings() if row.get("findings")]
    rows = [row for row in rows if (photos.root / row["path"]).is_file()]
    if not rows:
        if photos.findings():
            st.caption("Nothing found.")
        return
    columns = st.columns(4)
    for index, row in enumerate(rows[:FINDINGS_SHOWN]):
        with columns[index % 4], st.container(border=True):
            if picture := _thumbnail(photos.root / row["path"]):
                style.html(style.image(picture, row["path"]), "eg-card")
            st.caption(literal(f"{row.get('label', '')}: {row['findings']}"))
            st.toggle(
                "Leave out",
                value=row.get("exclude") == "yes",
                key=f"leave out {row['path']}",
            )
    if len(rows) > FINDINGS_SHOWN:
        st.caption(f"{len(rows) - FINDINGS_SHOWN:,} more in audit.html.")


def begin(photos: Photos) -> None:
    """Options and the button."""
    st.markdown("**3. Train**")
    words = list(photos.labels())
    if len(words) > LABELS_IN_NAME:
        words = [words[0], "and more"]
    default = re.sub(r"[^\w-]+", "-", "-".join(words))[:40].strip("-") or "model"
    name = st.text_input("Name of the model", default, key=f"train name {default}")
    with st.expander("Options"):
        descriptions = backbones()
        networks = list(descriptions)
        suggested = next((name for name in SUGGESTED if name in networks), networks[0])
        backbone = st.selectbox(
            "Network",
            networks,
            index=networks.index(suggested),
            format_func=descriptions.__getitem__,
        )
        minutes = st.number_input("Time limit of training, minutes", 1, 600, MINUTES)
        region = choose_region(photos)
        unknown = st.text_input(
            "Folder of photos that show none of the labels (optional)",
            disabled=not session.is_local(),
            help="On this machine; measures how many the model rejects as unknown.",
        )
    obstacle = photos.obstacle()
    if obstacle:
        st.caption(f"Not yet: {literal(obstacle)}.")
    if not st.button("Train", type="primary", disabled=bool(obstacle)):
        return
    paths = [row["path"] for row in photos.findings()]
    options = ["--backbone", backbone, "--time-limit", str(minutes)]
    try:
        excluded = photos.exclude(
            [path for path in paths if st.session_state.get(f"leave out {path}")]
        )
        if excluded:
            options += ["--exclude-from", str(excluded)]
        if region:
            options += ["--region", region]
        if unknown:
            options += ["--unknown", unknown]
        training.start(
            own_folder(),
            session.config().train_queue,
            str(photos.photos),
            options,
            name,
        )
    except EdgegraftError as error:
        st.error(literal(str(error)), icon=":material/error:")
        return
    st.rerun()


def choose_region(photos: Photos) -> str | None:
    """The region to train on as "x,y,width,height" in fractions of a photo, drawn on
    the first one; None for the whole photo."""
    st.caption("The part of each photo to look at:")
    across, down = st.columns(2)
    left, right = across.slider("From left to right, %", 0, 100, (0, 100))
    top, bottom = down.slider("From top to bottom, %", 0, 100, (0, 100))
    if (left, top, right, bottom) == (0, 0, 100, 100):
        return None
    if left == right or top == bottom:
        st.warning("The part of the photo to look at is empty; the whole is used.")
        return None
    box = (left / 100, top / 100, right / 100, bottom / 100)
    paths = next(iter(photos.labels().values()), [])
    if paths and (picture := _thumbnail(paths[0])):
        st.image(answer.with_box(picture, box), "Only this part is looked at.")
    x, y = box[:2]
    return f"{x:g},{y:g},{(right - left) / 100:g},{(bottom - top) / 100:g}"


@st.cache_data(ttl=600, show_spinner="Looking which networks are ready")
def backbones() -> dict[str, str]:
    """Name to description of each network whose weights are on this machine."""
    return {
        record["name"]: f"{record['name']}: {record['parameters'] / 1e6:.1f} M "
        f"parameters, {record['multiply_adds'] / 1e6:.0f} M multiply-adds"
        + (f", ImageNet {top1} %" if (top1 := record.get("imagenet_top1")) else "")
        for record in training.backbones()
    }


def seconds_left(steps: Sequence[Mapping[str, Any]]) -> float:
    """Of the bar in the last of these events; epochs share one bar."""
    last = steps[-1]
    bar = str(last["bar"]).split("/")[0].rstrip("0123456789")
    first = next(step for step in steps if str(step["bar"]).startswith(bar))
    done = last["done"] / last["total"]
    return float((last["time"] - first["time"]) * (1 - done) / done)


@st.fragment(run_every=1.0)
def progress(name: str) -> None:
    """The progress of a training; the page reruns when it ends."""
    job = next((j for j in training.jobs(own_folder()) if j.folder.name == name), None)
    if job is None or (state := job.state()) in training.ENDED:
        st.rerun()
    events = job.events()
    stages = [str(event["stage"]) for event in events if "stage" in event]
    epochs = [event for event in events if "epoch" in event]
    steps = [event for event in events if event.get("total")]
    style.html(f"<h2>{'Training' if state == training.RUNNING else 'Waiting'}</h2>")
    if state == training.WAITING:
        ahead = job.ahead()
        st.caption(
            f"Place {ahead + 1} in the queue: {plural(ahead, 'training')} of this "
            "server will end before yours begins."
        )
    else:
        step = steps[-1] if steps else _FIRST_STEP
        fraction = min(step["done"] / step["total"], 1.0)
        title = str(step["bar"])
        text = literal(title)
        if len(steps) > 1 and 0 < fraction < 1:
            text += f", about {seconds_left(steps):.0f} s left of this step"
        if fraction == 1 and "stage" in events[-1]:
            text, fraction = "next step", 0.0  # the bar belongs to an earlier step
        st.progress(fraction, text=text)
        if stages:
            st.caption(literal(stages[-1]))
    if len(epochs) > 1:
        from streamlit_app import charts  # loads Altair: only where a curve is drawn

        charts.training(epochs)
    st.caption("You can close this page: training continues.")
    st.button(
        "Cancel", icon=":material/cancel:", on_click=job.cancel, key=f"cancel {name}"
    )
    with st.expander("Details"):
        st.code(job.shown_commands, language=None, wrap_lines=True)
        st.code("\n".join(map(printable, stages[-20:])) or "-", wrap_lines=True)


def ended(job: Job) -> None:
    """The last training's result, or why it has none."""
    state = job.state()
    if state == training.DONE:
        result(job)
    elif state == training.CANCELLED:
        st.info("Training was cancelled; nothing of it was kept.")
    elif state == training.STOPPED:
        st.error(
            "Training stopped: its process was killed, or this machine restarted. "
            "Resume goes on after the last epoch; Close deletes what there is of it."
        )
    else:
        reason = job.reason().removeprefix("edgegraft: error: ")
        st.error("Training failed.", icon=":material/error:")
        st.code(printable(reason), wrap_lines=True)
    with st.container(horizontal=True):
        if state == training.STOPPED and st.button("Resume", type="primary"):
            try:
                training.resume(own_folder(), session.config().train_queue, job)
            except EdgegraftError as error:
                st.error(literal(str(error)), icon=":material/error:")
            else:
                st.rerun()
        st.button("Close", on_click=job.delete, key="close job")
    with st.expander("Commands"):
        st.code(job.shown_commands, language=None, wrap_lines=True)
    st.divider()


def result(job: Job) -> None:
    """The file to ship, its figures and the next steps."""
    try:
        path, why = find_model(str(job.run))
    except EdgegraftError as error:
        st.error(literal(str(error)))
        return
    models = session.config().models()
    entry = next((m for m in models if str(m.path) == path), None)
    pool = session.pool(entry) if entry else None
    if entry is None or pool is None:
        st.error(f"The file {literal(path)} is missing.")
        return
    style.html(f"<h2>{style.text(entry.name)} is ready</h2>")
    st.caption(literal(why))
    if job.before:
        compare(job, job.before, path)
    figures(job, entry, pool)
    with st.container(horizontal=True):
        if st.button(
            "Try it",
            type="primary",
            icon=":material/image_search:",
            on_click=app.select,
            args=(entry,),
        ):
            st.switch_page("views/classify.py")
        app.download_for_device(entry)


def compare(job: Job, before: str, after: str) -> None:
    """Whether the file `after` is better than `before`, by McNemar's test."""
    try:
        record = read_record(job.comparison, COMPARISON)
    except FileNotFoundError:
        st.warning(f"Not compared with the model before: {literal(job.reason())}")
        return
    except EdgegraftError as error:
        st.warning(f"Not compared with the model before: {literal(str(error))}")
        return
    titles = {file["model_sha256"]: file["title"] for file in record["files"]}
    before_title, after_title = (
        titles.get(digest(Path(file).read_bytes()), "") for file in (before, after)
    )
    st.markdown(literal(verdict(record, before_title, after_title)))


def verdict(record: Record, before: str, after: str) -> str:
    """A sentence or two about two files of a comparison, named by their titles."""
    ship = record.get("ship") or {}
    differences = ship.get("differences") or {}
    other = after if after in differences else before
    difference = differences.get(other)
    photos = next((f["photos"] for f in record["files"] if f["title"] == after), 0)
    if not difference or "p" not in difference:
        return f"Compared on {plural(photos, 'test photo')}: {ship.get('why') or ''}."
    gained, lost = difference["gained"], difference["lost"]
    if other == before:
        gained, lost = lost, gained
    text = (
        f"On the same {plural(photos, 'test photo')} the new model gets {gained:,} "
        f"right that the one before got wrong, and {lost:,} wrong that it got right "
        f"(McNemar's test: p = {difference['p']:.2g}). "
    )
    if difference["p"] >= SIGNIFICANT:
        return text + "That does not show which of the two is better."
    if gained > lost:
        return text + "The new model is more accurate: use it."
    return text + "The new model is less accurate: keep the one before."


def figures(job: Job, entry: ListedModel, pool: ClassifierPool) -> None:
    """Accuracy with its interval, the weakest label, size and time."""
    run = read_run(job.run)
    record = run.measured(entry.path.name)
    evaluation = record.get("evaluation") or {}
    with st.container(horizontal=True):
        name, value, interval = app.headline(run, record)
        if value:
            st.metric(name, value)
            st.metric("Time per photo", f"{record['p50_ms']:.2f} ms")
        st.metric("Size", f"{pool.bytes / 1e6:.2f} MB")
    if interval:
        st.caption(f"{interval}.")
    if weakest := app.weakest(run, record):
        st.caption(weakest)
    if evaluation.get("confusion"):
        from streamlit_app import charts

        charts.confusion(evaluation.get("labels") or [], evaluation["confusion"])


def _thumbnail(path: Path) -> bytes | None:
    try:
        return answer.thumbnail(path)
    except PhotoError:
        return None


if __name__ == "__main__":
    page()
