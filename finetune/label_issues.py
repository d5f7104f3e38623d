"""Photos whose label may be wrong: label_issues.csv and label_issues.png in the run.

With a pretrained backbone every photo of train and validation is predicted by a probe
that was not fitted to it (cross-validation on the frozen features). The features of a
network from scratch have learned the labels, wrong ones included, so there only the
validation photos are checked, with its own predictions. The test part is not checked:
photos that a network helped to select give a biased test.

label_issues.csv can be passed to --exclude-from once a person has written yes into its
column `exclude`; the run leaves it empty, since a poor network lists many right labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data.audit.label_issues import FOLDS, LabelIssues, cross_validated, find
from data.batches import Pixels
from data.photos import Photo
from edge.files import write_csv
from edge.text import plural
from finetune.console import Console
from finetune.figures.contact_sheet import draw_sheet
from finetune.figures.mistakes import NAME
from finetune.figures.style import shortened
from finetune.head.cross_fit import copy_groups
from finetune.loop.examples import Floats, Ints
from finetune.run import Run

COLUMNS = (
    "path",
    "label",
    "part",
    "suggested",
    "score",
    "issue",
    "exclude",
    "sha256",
)
SHEET = 24  # photos on the contact sheet
TABLE, PICTURE = "label_issues.csv", "label_issues.png"


def by_cross_validation(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    features: Floats,
    near_duplicates: Sequence[tuple[Path, Path]],
    console: Console,
) -> None:
    """Check labels by `features` [N, D] of `photos` [N]; near-copies share a fold."""
    truth = _truth(run, photos)
    if np.bincount(truth, minlength=len(run.labels)).min() < FOLDS:
        console.stage(f"labels not checked: one has fewer than {FOLDS} photos")
        return
    groups = copy_groups(photos, pixels.digests, near_duplicates)
    with console.bar("checking labels", unit="fold") as bar:
        probabilities = cross_validated(
            features, truth, groups=groups, seed=run.settings.seed, progress=bar
        )
    issues = find(probabilities, truth)
    _write(run, pixels, photos, issues, "cross-validated probe", console)


def by_validation(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    probabilities: Floats,
    console: Console,
) -> None:
    """Check the labels of the validation `photos` by predictions [N, L]."""
    issues = find(probabilities, _truth(run, photos))
    _write(run, pixels, photos, issues, "network, validation part only", console)


def _truth(run: Run, photos: Sequence[Photo]) -> Ints:
    class_index = {label: index for index, label in enumerate(run.labels)}
    return np.array([class_index[photo.label] for photo in photos], np.int64)


def _write(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    issues: LabelIssues,
    method: str,
    console: Console,
) -> None:
    count = int(issues.flagged.sum())
    parts = {row.photo.path: row.part for row in run.split().rows}
    _write_csv(run, pixels.digests, photos, issues, parts)
    order = [int(row) for row in issues.order if issues.flagged[row]][:SHEET]
    first = f", the first {len(order)}" if count > len(order) else ""
    empty = "No likely label issue" if issues.enough else "Too few to find label issues"
    empty += f" among {plural(len(photos), 'photo')}"
    draw_sheet(
        run.folder / PICTURE,
        [pixels.array[pixels.rows[photos[row].path]] for row in order],
        [_caption(run, photos[row], issues, row) for row in order],
        f"{plural(count, 'possible label issue')}{first}" if count else empty,
        f"found by: {method}; look before you act",
    )
    run.update(
        label_issues={
            "by": method,
            "photos": len(photos),
            "issues": count,
            "enough": issues.enough,
        }
    )
    if not issues.enough:
        console.stage(
            f"labels not checked: {plural(len(photos), 'photo')} are too few to find "
            "wrong ones"
        )
    elif count:
        console.stage(
            f"{plural(count, 'possible label issue')} in {len(photos):,} photos: see "
            f"{run.folder / PICTURE}"
        )


def _caption(run: Run, photo: Photo, issues: LabelIssues, row: int) -> str:
    name = shortened(photo.path.name, NAME)
    other = run.labels[int(issues.suggested[row])]
    return f"{photo.label}, or {other}?\n{name}"


def _resolved(photo: Photo) -> Path:
    """Its path with the folder's links resolved, as in the run's root; the link of a
    photo itself is not followed."""
    return Path(os.path.realpath(photo.path.parent), photo.path.name)


def _write_csv(
    run: Run,
    digests: Mapping[Path, str],
    photos: Sequence[Photo],
    issues: LabelIssues,
    parts: Mapping[Path, str],
) -> None:
    rows = (
        (
            _resolved(photos[row]).relative_to(run.photos_root).as_posix(),
            photos[row].label,
            parts[_resolved(photos[row])],
            run.labels[int(issues.suggested[row])],
            f"{issues.score[row]:.3f}",
            "yes" if issues.flagged[row] else "no",
            "",  # exclude: a person decides
            digests[photos[row].path],
        )
        for row in issues.order
    )
    write_csv(run.folder / TABLE, COLUMNS, rows)
