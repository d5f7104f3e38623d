"""Familiarity: how much a photo looks like the ones the network learned from.

A second output of the graph, so that every runner has it, int8 too: the features,
scaled to length 1, go through one dense layer whose columns are prototypes (k-means
centres of the training features, label by label, or those features themselves where
they are few), and the largest value is the output. That is the cosine to the nearest
prototype, stretched so that the threshold is at 0.5 and the most familiar photo near 1:
the steps of an int8 file are then finest where they decide. A softmax is confident
about photos unlike any it has seen (Hendrycks and Gimpel 2017, arXiv:1610.02136); the
distance to the nearest training features separates them (Sun et al. 2022,
"Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv:2204.06507).
tests/benchmarks/familiarity.py compares the candidates.

The threshold keeps 95 % of known photos: the validation photos and, where these are
few, training photos scored against prototypes made without them. Negatives tilt the
prototypes by a logistic regression; they do not move the threshold's rule.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from edge.errors import EdgegraftError
from edge.files import write_atomic
from finetune.run import Run

OUTPUT = "familiarity"
PASS = 0.95  # of the known photos get a label, the rest is answered unknown
LIMIT = 0.5  # where the stretched values put the threshold
PROTOTYPES = 128  # over all labels: AUROC grew up to there, and 1280 x 128 is cheap
LEAST_PROTOTYPES = 2  # of a label, where there are many labels
MOST_PHOTOS = 4096  # of the training part that k-means looks at
ENOUGH = 100  # known photos that pin a 5 % quantile down to about 2 points
FOLDS = 5
_LIGHTLY = 10.0  # the cosine enters the regression this large: hardly penalised
_FILE = "model/familiarity.npz"

Floats = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Familiarity:
    """The layer on features of length 1: kernel [D, P], bias [P].

    known: what it gives the validation photos, float32 [N], in the split's order.
    """

    kernel: Floats
    bias: Floats
    known: Floats

    def of(self, features: Floats) -> Floats:
        """Familiarity float32 [N] of features [N, D], as the graph computes it."""
        scores = unit(features) @ self.kernel + self.bias
        return np.asarray(np.maximum(scores, 0).max(axis=1), np.float32)

    def limit_of_file(self, found: Floats) -> float:
        """The threshold of a file that gives `found` [N] to the validation photos.

        Each file rounds in its own way, so its threshold is its own: the value that
        95 % of these photos reach, or, where they are too few to tell, 0.5 moved by
        how much the file differs from the network.
        """
        if len(found) >= ENOUGH:
            return quantile(found)
        return LIMIT + float(np.median(found - self.known))


def unit(features: Floats) -> Floats:
    """Rows of [N, D] scaled to length 1; a row of zeros stays."""
    length = np.sqrt(np.maximum((features**2).sum(axis=1, keepdims=True), 1e-12))
    return np.asarray(features / length, np.float32)


def quantile(scores: Floats) -> float:
    """The largest value that at least 95 % of the scores reach."""
    return float(np.quantile(scores, 1 - PASS, method="lower"))


def prototypes(features: Floats, truth: Truth, seed: int) -> Floats:
    """Prototypes [P, D] of length 1 of features [N, D], label by label."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    directions, labels = unit(features), np.unique(truth)
    each = max(LEAST_PROTOTYPES, PROTOTYPES // len(labels))
    made = []
    for label in labels:
        own = directions[truth == label]
        if len(own) > each:
            # a fraction of a second on one core; several wait for each other longer
            with threadpool_limits(1):
                found = KMeans(each, n_init=1, random_state=seed).fit(own)
            own = found.cluster_centers_
        made.append(own)
    return unit(np.concatenate(made))


def fit(
    features: Floats,
    truth: Truth,
    val_features: Floats,
    *,
    negatives: Floats | None = None,
    seed: int = 0,
) -> Familiarity:
    """From training features [N, D] with labels [N], and those of validation photos.

    negatives: features [M, D] of photos that show none of the labels.
    """
    if len(features) > MOST_PHOTOS:
        chosen = np.random.default_rng(seed).permutation(len(features))[:MOST_PHOTOS]
        features, truth = features[chosen], truth[chosen]
    centres = prototypes(features, truth, seed)
    kernel, bias = centres.T, np.zeros(len(centres), np.float32)
    held_out = features[:0]
    known = _nearest(val_features, centres)
    if len(val_features) < ENOUGH:
        held_out, scores = _held_out(features, truth, seed)
        known = np.concatenate([known, scores])
    if negatives is not None and len(negatives):
        tilt, offset = _tilt(features, centres, negatives)
        kernel, bias = kernel + tilt[:, None], bias + offset
        known += unit(np.concatenate([val_features, held_out])) @ tilt + offset
    limit, top = quantile(known), float(known.max())
    stretch = (1 - LIMIT) / max(top - limit, 1e-3)
    kernel = np.asarray(kernel * stretch, np.float32)
    bias = np.asarray((bias - limit) * stretch + LIMIT, np.float32)
    found = Familiarity(kernel, bias, np.zeros(0, np.float32))
    return Familiarity(kernel, bias, found.of(val_features))


def _nearest(features: Floats, centres: Floats) -> Floats:
    return np.asarray((unit(features) @ centres.T).max(axis=1), np.float32)


def _held_out(features: Floats, truth: Truth, seed: int) -> tuple[Floats, Floats]:
    """Training photos scored without themselves: (features, cosines), in folds."""
    folds = np.random.default_rng(seed).permutation(len(features)) % FOLDS
    rows, scores = [], []
    for fold in range(FOLDS):
        out = folds == fold
        if out.any() and not out.all():
            centres = prototypes(features[~out], truth[~out], seed)
            rows.append(features[out])
            scores.append(_nearest(features[out], centres))
    if not rows:
        return features[:0], np.zeros(0, np.float32)
    return np.concatenate(rows), np.concatenate(scores)


def _tilt(
    features: Floats, centres: Floats, negatives: Floats
) -> tuple[Floats, np.float32]:
    """What to add to every prototype, [D], and to its bias.

    A logistic regression of known photos against negatives on the cosine and the
    direction of the features: its line, in units of the cosine.
    """
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([features, negatives])
    table = np.hstack([_LIGHTLY * _nearest(both, centres)[:, None], unit(both)])
    known = np.arange(len(both)) < len(features)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(table, known)
    weights = model.coef_[0].astype(np.float32)
    slope = weights[0] * _LIGHTLY
    if slope <= 0:
        raise EdgegraftError(
            "expected --negatives that look unlike the training photos, got photos "
            "that look more like them than they like each other; remove those that "
            "show a label"
        )
    return weights[1:] / slope, np.float32(model.intercept_[0] / slope)


def attach(model: Any, found: Familiarity) -> Any:
    """`model` with two named outputs: probabilities [N, L] and familiarity [N, 1]."""
    layers, tf = keras().layers, tensorflow()
    features = model.get_layer(network.LOGITS).input
    dense = layers.Dense(found.kernel.shape[1], activation="relu", name="prototypes")
    unit = layers.Lambda(lambda f: tf.math.l2_normalize(f, axis=-1), name="unit")
    nearest = layers.Lambda(
        lambda s: tf.reduce_max(s, axis=-1, keepdims=True), name="nearest"
    )
    x = nearest(dense(unit(features)))
    outputs = {network.OUTPUT: model.output, OUTPUT: x}
    both = keras().Model(model.input, outputs, name="classifier_with_familiarity")
    dense.set_weights([found.kernel, found.bias])
    return both


def save(run: Run, found: Familiarity) -> None:
    """Write it into the run, beside the network."""
    content = io.BytesIO()
    np.savez(content, kernel=found.kernel, bias=found.bias, known=found.known)
    write_atomic(run.folder / _FILE, content.getvalue())


def load(run: Run) -> Familiarity | None:
    """The run's, or None when it was trained without."""
    path = run.folder / _FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Familiarity(stored["kernel"], stored["bias"], stored["known"])
    except (OSError, ValueError, KeyError) as error:
        raise EdgegraftError(
            f"expected what finetune left at {path}, got a damaged file ({error}); "
            "train again, or delete it to export without the output familiarity"
        ) from error
