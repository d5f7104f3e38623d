"""Photos whose label may be wrong: label_issues.csv and label_issues.png in the run.

With a pretrained backbone every photo of train and validation is predicted by a probe
that was not fitted to it (cross-validation on the frozen features). The features of a
network from scratch have learned the labels, wrong ones included, so there only the
validation photos are checked, with its own predictions. The test part is not checked:
photos that a network helped to select give a biased test.

A photo is listed when its label is likely wrong, given the rate of wrong labels that
explains the out-of-sample probabilities best; so the list is empty where photos are too
few to tell. Photos are ordered by the normalized margin: the probability of the given
label less that of the best other one (Northcutt et al. 2021, "Confident Learning").
tests/benchmarks/advice.py measures how many listed are wrong. Photos that belong to no
label at all are not found, and a listed photo is a reason to look, not a verdict.

label_issues.csv can be passed to --exclude-from once a person has written yes into its
column `exclude`; the run leaves it empty, since a poor network lists many right labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.batches import Pixels
from data.photos import Photo
from edge.errors import EdgegraftError
from edge.files import write_csv
from edge.text import plural
from finetune.console import Console
from finetune.figures import NAME, draw_sheet, shortened
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
FOLDS = 5
LIKELY = 0.8  # probability of being wrong from which a label is listed
EVIDENCE = 4.2  # gain of log likelihood (chance of 0.4 %) that an error rate needs
MIN_PHOTOS = 15  # of a label on average; fewer make too poor a classifier
USUAL_RATE = 0.05  # of wrong labels, that has to be noticed where photos are enough
TEMPERATURES = np.geomspace(0.02, 5, 40)
RATES = np.geomspace(0.002, 0.15, 25)

Numbers = npt.NDArray[np.floating]
Indices = npt.NDArray[np.integer]


# -- the method ------------------------------------------------------------------------
@dataclass(frozen=True)
class LabelIssues:
    """For each of N photos, in the order given.

    score: -1 (surely another label) to 1 (surely the given one). suggested: the index
    of the likeliest other label. flagged: whether another label is likely.
    """

    score: Numbers
    suggested: Indices
    flagged: npt.NDArray[np.bool_]
    enough: bool = True

    @property
    def order(self) -> Indices:
        """Photos from the likeliest to the least likely issue."""
        return np.argsort(self.score, kind="stable")


def find_issues(probabilities: Numbers, truth: Indices) -> LabelIssues:
    """From out-of-sample `probabilities` [N, L] and given labels [N], 0..L-1.

    EdgegraftError when the shapes do not fit or a row is no distribution.
    """
    probabilities = np.asarray(probabilities, np.float64)
    truth = np.asarray(truth)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise EdgegraftError(
            "label issues: expected probabilities [N, L] and labels [N], got "
            f"{list(probabilities.shape)} and {list(truth.shape)}"
        )
    if not len(truth) or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise EdgegraftError("label issues: expected rows that sum to 1")
    count, labels = probabilities.shape
    if labels < 2 or truth.min() < 0 or truth.max() >= labels:
        raise EdgegraftError(
            f"label issues: expected two labels or more, numbered below {labels}, got "
            f"{truth.min()} to {truth.max()}"
        )
    rows = np.arange(count)
    own = probabilities[rows, truth]
    others = probabilities.copy()
    others[rows, truth] = -1
    suggested = others.argmax(1)
    other = others[rows, suggested]
    wrong, enough = _wrong_labels(probabilities, truth)
    flagged = (wrong >= LIKELY) & (other > own)
    return LabelIssues(own - other, suggested, flagged, enough or bool(flagged.any()))


def _wrong_labels(probabilities: Numbers, truth: Indices) -> tuple[Numbers, bool]:
    """The probability that each given label is wrong, zeros without evidence that any
    is; and whether a rate of `USUAL_RATE` would be noticed.

    Model: a fraction of the labels, the error rate, is replaced by one of the others,
    all equally likely. The rate and a temperature are fitted by maximum likelihood, and
    have to explain the given labels better than a rate of 0. A rate would be noticed
    if, under it, the expected gain of log likelihood is as large.
    """
    count, labels = probabilities.shape
    if count < MIN_PHOTOS * labels:
        return np.zeros(count), False
    logits = np.log(np.maximum(probabilities, 1e-9))
    logits -= logits.max(1, keepdims=True)
    rows, rates = np.arange(count), RATES[:, None]
    clean_fit, best_fit = -np.inf, -np.inf
    for temperature in TEMPERATURES:
        scaled = np.exp(logits / temperature)
        scaled /= scaled.sum(1, keepdims=True)
        own = scaled[rows, truth]
        fit = float(np.log(np.maximum(own, 1e-12)).sum())
        if fit > clean_fit:
            clean_fit, expected = fit, scaled
        replaced = rates * (1 - own) / (labels - 1)
        likelihoods = (1 - rates) * own + replaced
        fits = np.log(likelihoods).sum(1)
        best = int(fits.argmax())
        if fits[best] > best_fit:
            best_fit, wrong = float(fits[best]), replaced[best] / likelihoods[best]
    mixed = (1 - USUAL_RATE) * expected + USUAL_RATE * (1 - expected) / (labels - 1)
    gain = mixed * np.log(mixed / np.maximum(expected, 1e-12))
    enough = float(gain.sum()) >= EVIDENCE
    return (wrong if best_fit - clean_fit >= EVIDENCE else np.zeros(count)), enough


def cross_validated(
    features: Numbers,
    truth: Indices,
    *,
    groups: Sequence[object] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    strength: float = 0.003,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Out-of-sample probabilities [N, L] of `truth` [N] from `features` [N, D].

    `groups` [N] keeps photos in one fold, such as the chains of `data.split`: a copy in
    training would confirm the label of its twin. `strength` is the C of scikit-learn,
    for features scaled to one variance; a weak fit memorises fewer wrong labels.
    EdgegraftError where a label has fewer photos than `folds`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    truth = np.asarray(truth)
    labels, counts = np.unique(truth, return_counts=True)
    if len(labels) < 2 or counts.min() < folds:
        raise EdgegraftError(
            f"label issues: expected two labels or more with {folds} photos each, "
            f"got {len(labels)} with {counts.min()} at least"
        )
    group_ids = np.arange(len(truth)) if groups is None else np.asarray(groups)
    probabilities = np.zeros((len(truth), int(labels.max()) + 1))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (train, test) in enumerate(split.split(features, truth, group_ids), 1):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=1000)
        )
        with threadpool_limits(1):  # problems this small are slower on several
            model.fit(features[train], truth[train])
        predicted = model.predict_proba(features[test])
        probabilities[np.ix_(test, model.classes_)] = predicted
        if progress is not None:
            progress(fold, folds)
    return probabilities


# -- of a run --------------------------------------------------------------------------
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
    issues = find_issues(probabilities, truth)
    _write(run, pixels, photos, issues, "cross-validated probe", console)


def by_validation(
    run: Run,
    pixels: Pixels,
    photos: Sequence[Photo],
    probabilities: Floats,
    console: Console,
) -> None:
    """Check the labels of the validation `photos` by predictions [N, L]."""
    issues = find_issues(probabilities, _truth(run, photos))
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
