"""Which labels the first training doubts: doubts.csv and doubts.png in the run.

With a pretrained backbone every photo of train and val is asked about by a probe that
did not see it (cross-validation on the features that the run's own probe was fitted
to). A network from scratch has no features that did not learn the labels, wrong ones
included, so there only the validation photos are asked about, with its own answers.
The test part stays out: what is measured on photos that a network has helped to choose
would be another measurement.

doubts.csv can be passed to --exclude-from once a person has written yes into its column
`exclude`; the run leaves it empty, since most doubts of a poor network are wrong.

Does not know: how doubt is measured (`data.audit.label_issues`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.audit.label_issues import FOLDS, Doubts, cross_validated, find
from data.batches import Pixels
from data.photos import Photo
from data.split import chained
from edge.files import write_csv
from edge.text import plural
from finetune.console import Console
from finetune.figures.contact_sheet import draw_sheet
from finetune.run import Run

COLUMNS = (
    "path",
    "label",
    "part",
    "suggested",
    "score",
    "doubted",
    "exclude",
    "sha256",
)
SHEET = 24  # photos on the contact sheet

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def by_cross_validation(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    features: Floats,
    together: Sequence[tuple[Path, Path]],
    console: Console,
) -> None:
    """Doubt labels by `features` [N, D] of `photos` [N]; near-copies share a fold."""
    truth = _truth(run, photos)
    if np.bincount(truth, minlength=len(run.labels)).min() < FOLDS:
        console.stage(f"labels not doubted: one has fewer than {FOLDS} photos")
        return
    chains = chained(photos, pixels.digests, together)
    chain = {photo.path: k for k, unit in enumerate(chains) for photo in unit}
    groups = [chain[photo.path] for photo in photos]
    with console.bar("doubting labels", unit="fold") as bar:
        found = cross_validated(
            features, truth, groups=groups, seed=run.settings.seed, progress=bar
        )
    _write(run, pixels, photos, find(found, truth), "cross-validated probe", console)


def by_validation(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    probabilities: Floats,
    console: Console,
) -> None:
    """Doubt the labels of the validation `photos` by the network's answers [N, L]."""
    doubts = find(probabilities, _truth(run, photos))
    _write(run, pixels, photos, doubts, "network, validation part only", console)


def _truth(run: Run, photos: Sequence[Photo]) -> Ints:
    numbers = {label: number for number, label in enumerate(run.labels)}
    return np.array([numbers[photo.label] for photo in photos], np.int64)


def _write(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    doubts: Doubts,
    how: str,
    console: Console,
) -> None:
    count = int(doubts.doubted.sum())
    parts = {row.photo.path: row.part for row in run.split().rows}
    _write_csv(run, pixels.digests, photos, doubts, parts)
    order = [int(row) for row in doubts.order if doubts.doubted[row]][:SHEET]
    few = f", the {len(order)} most doubtful" if count > len(order) else ""
    none = f"No label of {len(photos):,} photos is doubted"
    draw_sheet(
        run.folder / "doubts.png",
        [pixels.array[pixels.rows[photos[row].path]] for row in order],
        [_caption(run, photos[row], doubts, row) for row in order],
        f"{plural(count, 'label')} doubted{few}" if count else none,
        f"asked: {how}; a doubt is a reason to look, not a verdict",
    )
    run.update(doubts={"asked": how, "photos": len(photos), "doubted": count})
    if count:
        console.stage(
            f"{count} of {len(photos):,} labels {'is' if count == 1 else 'are'} "
            f"doubted: look at {run.folder / 'doubts.png'}"
        )


def _caption(run: Run, photo: Photo, doubts: Doubts, row: int) -> str:
    name = photo.path.name
    name = name if len(name) <= 22 else f"{name[:10]}...{name[-9:]}"
    other = run.labels[int(doubts.suggested[row])]
    return f"{photo.label}? rather {other}\n{name}"


def _placed(photo: Photo) -> Path:
    """Where it lies, as the run's absolute root has it; a linked file is not followed,
    and linked folders are not entered."""
    return Path(os.path.realpath(photo.path.parent), photo.path.name)


def _write_csv(
    run: Run,
    digests: Mapping[Path, str],
    photos: Sequence[Photo],
    doubts: Doubts,
    parts: Mapping[Path, str],
) -> None:
    rows = (
        (
            _placed(photos[row]).relative_to(run.photos_root).as_posix(),
            photos[row].label,
            parts[_placed(photos[row])],
            run.labels[int(doubts.suggested[row])],
            f"{doubts.score[row]:.3f}",
            "yes" if doubts.doubted[row] else "no",
            "",  # exclude: for a person to say
            digests[photos[row].path],
        )
        for row in doubts.order
    )
    write_csv(run.folder / "doubts.csv", COLUMNS, rows)
