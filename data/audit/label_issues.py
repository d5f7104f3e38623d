"""Label issues: photos whose label is likely wrong, by out-of-sample probabilities.

`probabilities` must come from models that did not see the photo: `cross_validated`
fits a logistic regression on the features of a backbone, fold by fold, with photos
that belong together in one fold. A photo is listed when its label is likely wrong,
given the share of wrong labels that explains the probabilities best; so the list is
empty where photos are too few to tell. Photos are ordered by the normalized margin: the
probability of the given label less that of the best other one (Northcutt et al. 2021,
"Confident Learning"). tests/benchmarks/advice.py measures how many listed are wrong.

Photos that belong to no label at all are not found, and a listed photo is a reason to
look, not a verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.audit.findings import Finding
from data.photos import Photo
from edge.errors import EdgegraftError

FOLDS = 5
LIKELY = 0.8  # probability of being wrong from which a label is listed
EVIDENCE = 4.2  # gain of log likelihood (chance of 0.4 %) that a share of wrong needs
LEAST = 15  # photos of a label on average; fewer make too poor a classifier
USUAL = 0.05  # share of wrong labels that has to be noticed where photos are enough
TEMPERATURES = np.geomspace(0.02, 5, 40)
SHARES = np.geomspace(0.002, 0.15, 25)

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class LabelIssues:
    """For each of N photos, in the order given.

    score: -1 (surely another label) to 1 (surely the given one). suggested: the number
    of the likelier other label. flagged: whether another label is likely.
    """

    score: Floats
    suggested: Ints
    flagged: npt.NDArray[np.bool_]
    enough: bool = True

    @property
    def order(self) -> Ints:
        """Photos from the likeliest to the least likely issue."""
        return np.argsort(self.score, kind="stable")


def find(probabilities: Floats, truth: Ints) -> LabelIssues:
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
    rest = probabilities.copy()
    rest[rows, truth] = -1
    suggested = rest.argmax(1)
    other = rest[rows, suggested]
    wrong, enough = _wrong(probabilities, truth)
    flagged = (wrong >= LIKELY) & (other > own)
    return LabelIssues(own - other, suggested, flagged, enough or bool(flagged.any()))


def _wrong(probabilities: Floats, truth: Ints) -> tuple[Floats, bool]:
    """How likely each given label is wrong, 0..1, zeros where nothing says that any is;
    and whether a share of `USUAL` would be noticed.

    A share of the labels is taken to be replaced by another one, all others being as
    likely. That share and a temperature are those under which the given labels are
    likeliest, and have to explain them better than no wrong label does. A share would
    be noticed if, were it there, the log likelihood would gain as much on average.
    """
    count, labels = probabilities.shape
    if count < LEAST * labels:
        return np.zeros(count), False
    logits = np.log(np.maximum(probabilities, 1e-9))
    logits -= logits.max(1, keepdims=True)
    rows, shares = np.arange(count), SHARES[:, None]
    clean, fit = -np.inf, -np.inf
    for temperature in TEMPERATURES:
        scaled = np.exp(logits / temperature)
        scaled /= scaled.sum(1, keepdims=True)
        own = scaled[rows, truth]
        without = float(np.log(np.maximum(own, 1e-12)).sum())
        if without > clean:
            clean, expected = without, scaled
        replaced = shares * (1 - own) / (labels - 1)
        given = (1 - shares) * own + replaced
        fits = np.log(given).sum(1)
        best = int(fits.argmax())
        if fits[best] > fit:
            fit, wrong = float(fits[best]), replaced[best] / given[best]
    mixed = (1 - USUAL) * expected + USUAL * (1 - expected) / (labels - 1)
    gain = mixed * np.log(mixed / np.maximum(expected, 1e-12))
    enough = float(gain.sum()) >= EVIDENCE
    return (wrong if fit - clean >= EVIDENCE else np.zeros(count)), enough


def cross_validated(
    features: Floats,
    truth: Ints,
    *,
    groups: Sequence[object] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    strength: float = 0.003,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Out-of-sample probabilities [N, L] of `truth` [N] from `features` [N, D].

    `groups` [N] keeps photos in one fold, such as the chains of `data.split`: a copy in
    training would vouch for the label of its twin. `strength` is the C of scikit-learn,
    for features scaled to one variance; a weak fit learns fewer wrong labels by heart.
    EdgegraftError where a label has too few photos for so many folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.asarray(truth)
    labels, counts = np.unique(truth, return_counts=True)
    if len(labels) < 2 or counts.min() < folds:
        raise EdgegraftError(
            f"label issues: expected two labels or more with {folds} photos each, "
            f"got {len(labels)} with {counts.min()} at least"
        )
    alone = np.arange(len(truth)) if groups is None else np.asarray(groups)
    out = np.full((len(truth), int(labels.max()) + 1), 0.0)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (known, asked) in enumerate(split.split(features, truth, alone)):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=1000)
        )
        model.fit(features[known], truth[known])
        out[np.ix_(asked, model.classes_)] = model.predict_proba(features[asked])
        if progress is not None:
            progress(fold + 1, folds)
    return out


def findings(
    issues: LabelIssues, photos: Sequence[Photo], labels: Sequence[str]
) -> list[Finding]:
    """The flagged photos as findings of an audit, the likeliest first."""
    found = []
    for row in issues.order:
        if issues.flagged[row]:
            photo, other = photos[row], labels[int(issues.suggested[row])]
            margin = -float(issues.score[row])
            reason = f"given {photo.label}, looks like {other} (margin {margin:.2f})"
            found.append(Finding("label-issue", photo.path, reason))
    return found
