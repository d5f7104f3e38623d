"""How good a network is for these photos, before it is fine-tuned.

A linear probe on its frozen features, cross-validated on training and validation
photos (`finetune.head.cross_fit`): first on a part of the photos for every candidate,
then on all for the better half (successive halving, Jamieson and Talwalkar 2016,
arXiv:1502.07943). Ranked by log loss, which needs fewer photos than accuracy to tell
two networks apart. Fine-tuning may change the order of networks that are close, so the
last few are trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backbones import network, weights
from backbones.keras import keras
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, score
from finetune import model
from finetune.head import cross_fit, features, probe
from finetune.loop.examples import Floats, Ints
from finetune.paired import within_one_error
from quantize.search.candidates import Candidate

PART = 400  # photos of the first round
LEAST_KEPT = 4  # candidates that the second round has at least
FINALISTS = 2  # are trained; a third where it is within one standard error
# Of `probe.STRENGTHS`, what EfficientNet-Lite0 and two MobileNetV2 took on 600 photos
# of trashnet and Lite0 on 2,000 of cats and dogs (run.json: probe, calibration), and
# the next weaker
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Score:
    """Of a cross-validated probe: `losses` float32 [N] in nats, photo by photo."""

    evaluation: Evaluation
    losses: Floats

    @property
    def photos(self) -> int:
        return len(self.losses)

    @property
    def log_loss(self) -> float:
        return float(self.losses.mean())

    def to_dict(self) -> dict[str, Any]:
        low, high = self.evaluation.balanced_interval
        return {
            "photos": self.photos,
            "log_loss": self.log_loss,
            "balanced_accuracy": self.evaluation.balanced_accuracy,
            "balanced_low": low,
            "balanced_high": high,
        }


@dataclass(frozen=True)
class Photos:
    """The photos to rank on: `array` uint8 [M, S, S, 3] at the largest size, `rows`
    [N] of it, `truth` [N] label numbers, `groups` [N]: copies have the same number."""

    array: npt.NDArray[np.uint8]
    rows: Ints
    truth: Ints
    groups: Ints
    labels: tuple[str, ...]

    def part(self, most: int, seed: int) -> Photos:
        """At most about `most` of them, of each label its share, at least enough for
        the folds."""
        if len(self.rows) <= most:
            return self
        rng = np.random.default_rng(seed)
        share, chosen = most / len(self.rows), []
        for label in range(len(self.labels)):
            places = rng.permutation(np.flatnonzero(self.truth == label))
            count = max(math.ceil(share * len(places)), 2 * cross_fit.FOLDS)
            chosen.append(places[:count])
        places = np.sort(np.concatenate(chosen))
        return Photos(
            self.array,
            self.rows[places],
            self.truth[places],
            self.groups[places],
            self.labels,
        )

    def at(self, size: int, places: Sequence[int]) -> npt.NDArray[np.uint8]:
        """The pixels of some: uint8 [len(places), size, size, 3]."""
        rows = self.rows[places]
        if self.array.shape[1] == size:
            return np.asarray(self.array[rows])
        found = np.empty((len(rows), size, size, 3), np.uint8)
        for place, row in enumerate(rows):
            image = Image.fromarray(self.array[row])
            found[place] = np.asarray(
                image.resize((size, size), Image.Resampling.BILINEAR)
            )
        return found


def probe_score(
    candidate: Candidate,
    photos: Photos,
    seed: int,
    known: dict[int, Floats] | None = None,
) -> Score:
    """The cross-validated probe of a pretrained candidate.

    `known`: features [D] by row, of an earlier round; they are not computed again, and
    those that are computed join them. EdgegraftError where a label has too few photos
    for the folds.
    """
    known = {} if known is None else known
    new = [place for place, row in enumerate(photos.rows) if int(row) not in known]
    if new:
        settings = candidate.settings(seed)
        origin = weights.find(candidate.backbone, candidate.size, settings.weights)
        keras().backend.clear_session()
        built = model.build(settings, len(photos.labels), origin)
        pixels = photos.at(candidate.size, new)
        found = features.compute(
            network.feature_model(built), pixels, np.arange(len(pixels))
        )
        known.update(zip(map(int, photos.rows[new]), found, strict=True))
    fitted = cross_fit.fit(
        np.stack([known[int(row)] for row in photos.rows]),
        photos.truth,
        len(photos.labels),
        groups=photos.groups.tolist(),
        seed=seed,
        strengths=STRENGTHS,
    )
    if fitted is None:
        counts = np.bincount(photos.truth, minlength=len(photos.labels))
        least = int(counts.argmin())
        raise EdgegraftError(
            f"search: expected {cross_fit.FOLDS} different training photos of each "
            f"label or more, got {int(counts[least])} of {photos.labels[least]}; add "
            "photos, or train one network with: edgegraft build"
        )
    scaled = fitted.logits / np.float32(fitted.temperature)
    return Score(
        score(probe.softmax(scaled), photos.truth, photos.labels),
        probe.log_losses(scaled, photos.truth),
    )


def ranked(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """The lowest log loss first."""
    return sorted(scores, key=lambda candidate: scores[candidate].log_loss)


def kept(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """Those that go on to the second round: the better half, at least `LEAST_KEPT`."""
    order = ranked(scores)
    return order[: max(LEAST_KEPT, math.ceil(len(order) / 2))]


def finalists(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """Those to be trained, best first."""
    order: Sequence[Candidate] = ranked(scores)
    best = scores[order[0]].losses
    close = [
        one for one in order[FINALISTS:] if within_one_error(scores[one].losses, best)
    ]
    return [*order[:FINALISTS], *close[:1]]
