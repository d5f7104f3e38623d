"""Ranks networks for these photos, without fine-tuning.

By the log loss of a linear probe on frozen features, cross-validated on training and
validation photos (`finetune.head.cross_fit`): first on a part of the photos for every
candidate, then on all for the better half (successive halving, Jamieson and Talwalkar
2016, arXiv:1502.07943). Log loss needs fewer photos than accuracy to separate two
networks. Fine-tuning may change the order of similar networks, so the best few are
trained.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from backbones import network, weights
from backbones.keras import keras
from data.photos import Photo
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, score
from edge.text import printable
from finetune import model
from finetune.head import cross_fit, probe
from finetune.loop.examples import Floats, Ints
from finetune.paired import within_one_standard_error
from quantize.search.candidates import Candidate

PART = 400  # photos of the first round
MIN_KEPT = 4  # candidates of the second round, at least
FINALISTS = 2  # to train; a third if it is within one standard error
# Of `probe.STRENGTHS`, those chosen for EfficientNet-Lite0 and two MobileNetV2 on 600
# photos of trashnet and for Lite0 on 2,000 of cats and dogs (run.json: probe,
# calibration), and the next weaker
STRENGTHS = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Score:
    """Score of a cross-validated probe: `losses` float32 [N] in nats, of each photo."""

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
    [N] of it, `truth` [N] class indices, `groups` [N]: the same for copies."""

    array: npt.NDArray[np.uint8]
    rows: Ints
    truth: Ints
    groups: Ints
    labels: tuple[str, ...]

    def sample(self, maximum: int, seed: int) -> Photos:
        """A stratified sample of about `maximum` photos, of each label at least enough
        for the folds."""
        if len(self.rows) <= maximum:
            return self
        random = np.random.default_rng(seed)
        fraction, chosen = maximum / len(self.rows), []
        for label in range(len(self.labels)):
            members = random.permutation(np.flatnonzero(self.truth == label))
            count = max(math.ceil(fraction * len(members)), 2 * cross_fit.FOLDS)
            chosen.append(members[:count])
        indices = np.sort(np.concatenate(chosen))
        return replace(
            self,
            rows=self.rows[indices],
            truth=self.truth[indices],
            groups=self.groups[indices],
        )

    def pixels(self, size: int, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """The pixels of these photos, uint8 [len(indices), size, size, 3]."""
        rows = self.rows[indices]
        if self.array.shape[1] == size:
            return np.asarray(self.array[rows])
        resized = np.empty((len(rows), size, size, 3), np.uint8)
        for index, row in enumerate(rows):
            image = Image.fromarray(self.array[row])
            image = image.resize((size, size), Image.Resampling.BILINEAR)
            resized[index] = np.asarray(image)
        return resized


def probe_score(
    candidate: Candidate,
    photos: Photos,
    seed: int,
    known: dict[int, Floats] | None = None,
) -> Score:
    """The cross-validated probe of a pretrained candidate.

    `known`: features [D] by row, of an earlier round; new ones are added to it.
    EdgegraftError where a label has too few photos for the folds.
    """
    known = {} if known is None else known
    new = [index for index, row in enumerate(photos.rows) if int(row) not in known]
    if new:
        settings = candidate.settings(seed)
        origin = weights.find(candidate.backbone, candidate.size, settings.weights)
        keras().backend.clear_session()
        built = model.build(settings, len(photos.labels), origin)
        pixels = photos.pixels(candidate.size, new)
        computed = model.compute_outputs(
            network.feature_model(built), pixels, np.arange(len(pixels))
        )
        known.update(zip(map(int, photos.rows[new]), computed, strict=True))
    fitted = cross_fit.fit(
        np.stack([known[int(row)] for row in photos.rows]),
        photos.truth,
        len(photos.labels),
        groups=photos.groups.tolist(),
        seed=seed,
        strengths=STRENGTHS,
    )
    if fitted is None:
        different = {
            label: len(np.unique(photos.groups[photos.truth == index]))
            for index, label in enumerate(photos.labels)
        }
        raise _too_few(different)
    calibrated = fitted.logits / np.float32(fitted.temperature)
    return Score(
        score(probe.softmax(calibrated), photos.truth, photos.labels),
        probe.log_losses(calibrated, photos.truth),
    )


def refuse_few(labels: Sequence[str], photos: Iterable[Photo]) -> None:
    """EdgegraftError where a label has fewer photos than there are folds."""
    counts = Counter(photo.label for photo in photos)
    if min(counts[label] for label in labels) < cross_fit.FOLDS:
        raise _too_few({label: counts[label] for label in labels})


def _too_few(counts: Mapping[str, int]) -> EdgegraftError:
    rarest = min(counts, key=counts.__getitem__)
    return EdgegraftError(
        f"search: expected {cross_fit.FOLDS} different training photos of each label "
        f"or more, got {counts[rarest]} of {printable(rarest)}; add photos, or train "
        "one network with: edgegraft build"
    )


def ranked(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """The lowest log loss first."""
    return sorted(scores, key=lambda candidate: scores[candidate].log_loss)


def better_half(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """The candidates of the second round: the better half, at least `MIN_KEPT`."""
    order = ranked(scores)
    return order[: max(MIN_KEPT, math.ceil(len(order) / 2))]


def finalists(scores: Mapping[Candidate, Score]) -> list[Candidate]:
    """The candidates to train, best first."""
    order: Sequence[Candidate] = ranked(scores)
    best = scores[order[0]].losses
    close = [
        candidate
        for candidate in order[FINALISTS:]
        if within_one_standard_error(scores[candidate].losses, best)
    ]
    return [*order[:FINALISTS], *close[:1]]
