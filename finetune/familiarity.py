"""Familiarity: how like the training photos, and unlike negatives, a photo is.

A second output of the graph, so that every runner has it, int8 too: the features,
scaled to length 1, go through one dense layer whose columns are prototypes (k-means
centres of the training features, label by label, or those features themselves where
they are few), and the largest value is the output. That is the cosine to the nearest
prototype, stretched so that the threshold is at 0.5 and the most familiar photo near 1,
which gives int8 files the finest steps around the threshold. A softmax is confident
about out-of-distribution photos (Hendrycks and Gimpel 2017, arXiv:1610.02136); the
distance to the nearest training features separates them (Sun et al. 2022,
"Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv:2204.06507).
tests/benchmarks/familiarity.py compares the candidates.

The threshold accepts 95 % of known photos: the validation photos and, where these are
few, training photos scored against prototypes of the other folds.

Negatives are the user's examples of what should be answered unknown: photos that show
none of the labels, in a folder of their own (`--negatives`) and any subfolders. They
tilt the prototypes by a logistic regression; the rule for the threshold stays the same.
The run records the sha256 of each, so that the refusal rate is never measured on photos
it was trained with.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from edge.classify.sources import photos
from edge.errors import EdgegraftError, PhotoError
from edge.files import read_regular, sha256, write_atomic, write_csv
from edge.preprocess import InputRecipe, load_pixels
from edge.text import plural
from finetune.console import Console
from finetune.loop.examples import Floats, Ints
from finetune.run import Run

OUTPUT = "familiarity"
PASS = 0.95  # of the known photos get a label, the others are answered unknown
LIMIT = 0.5  # the threshold after stretching
PROTOTYPES = 128  # over all labels: AUROC grew up to there, and 1280 x 128 is cheap
MIN_PROTOTYPES = 2  # of a label, where there are many labels
MAX_PHOTOS = 4096  # of the training part that k-means looks at
ENOUGH = 100  # known photos that estimate a 5 % quantile within about 2 points
FOLDS = 5
_COSINE_SCALE = 10.0  # of the cosine in the regression, so that it is hardly penalised
NEGATIVES = "negatives.csv"  # in the run
_FILE = "model/familiarity.npz"


@dataclass(frozen=True)
class Familiarity:
    """The layer on features of length 1: kernel [D, P], bias [P].

    val_scores: its output for the validation photos, float32 [N], in the split's order.
    """

    kernel: Floats
    bias: Floats
    val_scores: Floats

    def scores(self, features: Floats) -> Floats:
        """Familiarity float32 [N] of features [N, D], as the graph computes it."""
        scores = unit(features) @ self.kernel + self.bias
        return np.asarray(np.maximum(scores, 0).max(axis=1), np.float32)

    def threshold_for(self, scores: Floats) -> float:
        """The threshold of a file with these `scores` [N] of the validation photos.

        Files round differently, so each has its own threshold: the value that 95 % of
        these photos reach, or, where they are too few, 0.5 plus the median difference
        between file and network.
        """
        if len(scores) >= ENOUGH:
            return quantile(scores)
        return LIMIT + float(np.median(scores - self.val_scores))


def unit(features: Floats) -> Floats:
    """Rows of [N, D] scaled to length 1; a row of zeros stays."""
    length = np.sqrt(np.maximum((features**2).sum(axis=1, keepdims=True), 1e-12))
    return np.asarray(features / length, np.float32)


def quantile(scores: Floats) -> float:
    """The largest value that at least 95 % of the scores reach."""
    return float(np.quantile(scores, 1 - PASS, method="lower"))


def prototypes(features: Floats, truth: Ints, seed: int) -> Floats:
    """Prototypes [P, D] of length 1 of features [N, D], label by label."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    directions, labels = unit(features), np.unique(truth)
    per_label = max(MIN_PROTOTYPES, PROTOTYPES // len(labels))
    centres = []
    for label in labels:
        members = directions[truth == label]
        if len(members) > per_label:
            with threadpool_limits(1):  # problems this small are slower on several
                kmeans = KMeans(per_label, n_init=1, random_state=seed).fit(members)
            members = kmeans.cluster_centers_
        centres.append(members)
    return unit(np.concatenate(centres))


def fit(
    features: Floats,
    truth: Ints,
    val_features: Floats,
    *,
    negatives: Floats | None = None,
    seed: int = 0,
) -> Familiarity:
    """From training features [N, D] with labels [N], and those of validation photos.

    negatives: features [M, D] of photos that show none of the labels.
    """
    if len(features) > MAX_PHOTOS:
        chosen = np.random.default_rng(seed).permutation(len(features))[:MAX_PHOTOS]
        features, truth = features[chosen], truth[chosen]
    centres = prototypes(features, truth, seed)
    kernel, bias = centres.T, np.zeros(len(centres), np.float32)
    held_out = features[:0]
    scores = _cosine_to_nearest(val_features, centres)
    if len(val_features) < ENOUGH:
        held_out, held_out_scores = _held_out(features, truth, seed)
        scores = np.concatenate([scores, held_out_scores])
    if negatives is not None and len(negatives):
        tilt, offset = _tilt(features, centres, negatives)
        kernel, bias = kernel + tilt[:, None], bias + offset
        scores += unit(np.concatenate([val_features, held_out])) @ tilt + offset
    limit, top = quantile(scores), float(scores.max())
    stretch = (1 - LIMIT) / max(top - limit, 1e-3)
    kernel = np.asarray(kernel * stretch, np.float32)
    bias = np.asarray((bias - limit) * stretch + LIMIT, np.float32)
    fitted = Familiarity(kernel, bias, np.zeros(0, np.float32))
    return replace(fitted, val_scores=fitted.scores(val_features))


def _cosine_to_nearest(features: Floats, centres: Floats) -> Floats:
    return np.asarray((unit(features) @ centres.T).max(axis=1), np.float32)


def _held_out(features: Floats, truth: Ints, seed: int) -> tuple[Floats, Floats]:
    """Training photos scored by prototypes of the other folds: (features, cosines)."""
    folds = np.random.default_rng(seed).permutation(len(features)) % FOLDS
    rows, scores = [features[:0]], [np.zeros(0, np.float32)]
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any() and not held_out.all():
            centres = prototypes(features[~held_out], truth[~held_out], seed)
            rows.append(features[held_out])
            scores.append(_cosine_to_nearest(features[held_out], centres))
    return np.concatenate(rows), np.concatenate(scores)


def _tilt(
    features: Floats, centres: Floats, negatives: Floats
) -> tuple[Floats, np.float32]:
    """The offsets to add to every prototype, [D], and to its bias.

    A logistic regression of known photos against negatives on the cosine and the
    direction of the features: its decision boundary, in units of the cosine.
    """
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([features, negatives])
    cosines = _COSINE_SCALE * _cosine_to_nearest(both, centres)
    table = np.hstack([cosines[:, None], unit(both)])
    is_known = np.arange(len(both)) < len(features)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(table, is_known)
    weights = model.coef_[0].astype(np.float32)
    slope = weights[0] * _COSINE_SCALE
    if slope <= 0:
        raise EdgegraftError(
            "expected --negatives that look unlike the training photos, got photos "
            "that look more like them than they like each other; remove those that "
            "show a label"
        )
    return weights[1:] / slope, np.float32(model.intercept_[0] / slope)


def attach(model: Any, fitted: Familiarity) -> Any:
    """`model` with two named outputs: probabilities [N, L] and familiarity [N, 1]."""
    layers, tf = keras().layers, tensorflow()
    features = model.get_layer(network.LOGITS).input
    dense = layers.Dense(fitted.kernel.shape[1], activation="relu", name="prototypes")
    unit = layers.Lambda(lambda f: tf.math.l2_normalize(f, axis=-1), name="unit")
    nearest = layers.Lambda(
        lambda s: tf.reduce_max(s, axis=-1, keepdims=True), name="nearest"
    )
    outputs = {
        network.OUTPUT: model.output,
        OUTPUT: nearest(dense(unit(features))),
    }
    both = keras().Model(model.input, outputs, name="classifier_with_familiarity")
    dense.set_weights([fitted.kernel, fitted.bias])
    return both


def save(run: Run, fitted: Familiarity) -> None:
    """Write it into the run, beside the network."""
    arrays: dict[str, Any] = {"kernel": fitted.kernel, "bias": fitted.bias}
    arrays["known"] = fitted.val_scores
    write_atomic(run.folder / _FILE, lambda to: np.savez(to, **arrays))


def load(run: Run) -> Familiarity | None:
    """The run's familiarity, None when it was trained without."""
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


# -- negatives -------------------------------------------------------------------------
def refuse_missing_negatives(folder: str | None) -> None:
    """EdgegraftError when the folder is missing, before any training."""
    if folder is not None and not os.path.isdir(folder):
        raise EdgegraftError(
            f"expected --negatives to be a folder of photos, got {folder}"
        )


def load_negatives(
    folder: str, recipe: InputRecipe, console: Console
) -> npt.NDArray[np.uint8]:
    """The pixels of a folder's photos, uint8 [N, H, W, 3].

    Unreadable photos are named and left out. EdgegraftError when there is no such
    folder, or no photo in it can be read.
    """
    pixels, unreadable = [], 0
    paths = list(photos([folder]))
    with console.bar("decoding negatives") as bar:
        for done, path in enumerate(paths, 1):
            try:
                pixels.append(load_pixels(path, recipe))
            except PhotoError as error:
                unreadable += 1
                console.say(f"  left out: {path}: {error.reason}")
            bar(done, len(paths))
    if not pixels:
        raise EdgegraftError(
            f"expected photos in {folder}, got none that can be read "
            f"({unreadable} unreadable)"
        )
    console.stage(f"negatives: {plural(len(pixels), 'photo')} of {folder}")
    return np.stack(pixels)


def photo_digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The path of each photo of a folder by the sha256 of its file."""
    paths = {}
    for path in photos([os.fspath(folder)]):
        with contextlib.suppress(OSError):  # `load_negatives` reports it
            paths[sha256(Path(path).read_bytes())] = str(path)
    return paths


def write_negatives(run: Run, folder: str) -> None:
    """Write the run's record of the negatives it was trained with."""
    rows = ((path, sha) for sha, path in photo_digests(folder).items())
    write_csv(run.folder / NEGATIVES, ("path", "sha256"), rows)


def negatives_of(run: Run) -> frozenset[str]:
    """sha256 of the negatives a run was trained with: those of its record; without one
    (an older run) those in their folder now. EdgegraftError for a damaged record."""
    path, folder = run.folder / NEGATIVES, run.settings.negatives
    if path.is_file():
        try:
            text = read_regular(path, inside=run.folder).decode()
            rows = csv.DictReader(io.StringIO(text, newline=""))
            return frozenset(row["sha256"] for row in rows)
        except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
            raise EdgegraftError(
                f"{path}: expected a CSV with the column sha256, got "
                f"{type(error).__name__}; train again, or remove it"
            ) from None
    if folder is None or not os.path.isdir(folder):
        return frozenset()
    return frozenset(photo_digests(folder))


def refuse_trained(unknown: dict[str, str], seen: Iterable[str], where: str) -> None:
    """EdgegraftError when photos to be measured (path by sha256) were trained with."""
    trained = sorted(unknown[sha256] for sha256 in unknown.keys() & set(seen))
    if trained:
        raise EdgegraftError(
            f"--unknown: expected photos that {where} was not trained with, got "
            f"{trained[0]}, which is among its --negatives ({len(trained):,} of "
            f"{len(unknown):,} are); measure with other photos"
        )
