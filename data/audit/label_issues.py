"""Label issues: photos whose label is likely wrong, by out-of-sample probabilities.

`probabilities` must come from models that did not see the photo: `cross_validated`
fits a logistic regression on the features of a backbone, fold by fold, with photos
that belong together in one fold. A photo is listed when its label is likely wrong,
given the rate of wrong labels that explains the probabilities best; so the list is
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

from edge.errors import EdgegraftError

FOLDS = 5
LIKELY = 0.8  # probability of being wrong from which a label is listed
EVIDENCE = 4.2  # gain of log likelihood (chance of 0.4 %) that an error rate needs
MIN_PHOTOS = 15  # of a label on average; fewer make too poor a classifier
USUAL_RATE = 0.05  # of wrong labels, that has to be noticed where photos are enough
TEMPERATURES = np.geomspace(0.02, 5, 40)
RATES = np.geomspace(0.002, 0.15, 25)

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class LabelIssues:
    """For each of N photos, in the order given.

    score: -1 (surely another label) to 1 (surely the given one). suggested: the index
    of the likeliest other label. flagged: whether another label is likely.
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
    others = probabilities.copy()
    others[rows, truth] = -1
    suggested = others.argmax(1)
    other = others[rows, suggested]
    wrong, enough = _wrong(probabilities, truth)
    flagged = (wrong >= LIKELY) & (other > own)
    return LabelIssues(own - other, suggested, flagged, enough or bool(flagged.any()))


def _wrong(probabilities: Floats, truth: Ints) -> tuple[Floats, bool]:
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
