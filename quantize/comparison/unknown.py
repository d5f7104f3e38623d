"""Does a file refuse what it was not trained on, and only that?

Photos that show none of the labels, through the runner: refused where the file's
familiarity is below the threshold in its card. A file without that output refuses
nothing, and is counted so.

A comparison without such photos keeps what an earlier one found: it is in the card of
the file, and a file made anew has a new card.

It does not know: how a threshold is chosen (finetune), or what the photos show.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import batches
from data.photos import Photo
from data.split import Row
from edge.card import read_card
from edge.classifier import FAMILIARITY, UNKNOWN, Classifier
from edge.classify.sources import photos
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from edge.quiet import without_chatter
from edge.unknown import Refusal, count
from finetune import negatives
from finetune.console import Console
from quantize.conversion.scoring import Scored

CHUNK = 20  # photos between two steps of the progress bar


def figures(found: Refusal) -> dict[str, Any]:
    """For a row of a comparison: plain values only."""
    low, high = found.interval
    return {
        "unknown_photos": found.photos,
        "unknown_refused": found.share,
        "unknown_refused_low": low,
        "unknown_refused_high": high,
        "known_refused": found.known_share,
        "auroc": found.auroc,
    }


def earlier(model: bytes, scored: Scored) -> Refusal | None:
    """What an earlier comparison wrote into the file's card; None where none did."""
    card = read_card(model)
    found = card.measured.get("unknown") if card else None
    if card is None or not found:
        return None
    total, known = int(found["unknown_photos"]), scored.evaluation.photos
    return Refusal(
        total,
        round(total * found["unknown_refused"]),
        known,
        round(known * found["known_refused"]),
        found.get("auroc"),
        card.familiarity_threshold,
    )


def find(folder: Path, own: Mapping[str, Path], taught: Collection[str]) -> list[Photo]:
    """The photos of a folder that show none of the labels; none is decoded.

    own: the run's photos by sha256; taught: sha256 of those it was taught not to want.
    EdgegraftError where it is no folder, has no photos, or one of these.
    """
    if not folder.is_dir():
        raise EdgegraftError(
            "--unknown: expected a folder of photos that show none of the labels, "
            f"got {folder}"
        )
    listed = [Photo(Path(path), UNKNOWN) for path in photos([str(folder)])]
    found = negatives.digests(folder)
    for sha256, path in found.items():
        if sha256 in own:
            raise EdgegraftError(
                f"--unknown: expected photos that are not the run's, got "
                f"{path}, which is its {own[sha256]}; take it out"
            )
    negatives.refuse_taught(found, taught, "the run")
    return listed


class Strangers:
    """The photos of a folder that show none of the labels, decoded once a recipe.

    EdgegraftError as `find`, with the run's own `rows`, and for a photo that cannot be
    read.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Row],
        console: Console,
        taught: frozenset[str] = frozenset(),
    ) -> None:
        self._folder, self._console = folder, console
        self._photos = find(folder, {r.sha256: r.photo.path for r in rows}, taught)
        self._decoded: dict[InputRecipe, batches.Pixels] = {}

    def _pixels(self, recipe: InputRecipe) -> batches.Pixels:
        if recipe not in self._decoded:
            with self._console.bar("decoding unknown photos") as bar:
                pixels = batches.load(self._photos, recipe, progress=bar)
            self._decoded[recipe] = pixels
            if pixels.failures:
                path, reason = pixels.failures[0]
                raise EdgegraftError(f"--unknown: {path}: {reason}; take it out")
        return self._decoded[recipe]

    def judge(self, model: bytes, scored: Scored, runtime: str) -> Refusal:
        """How a file takes them; `scored`: the same file on the test photos."""
        with without_chatter():
            classifier = Classifier(model, runtime=runtime)
        pixels = self._pixels(classifier.recipe)
        card = read_card(model)
        threshold = card.familiarity_threshold if card else None
        total = len(pixels.array)
        if threshold is None or scored.familiarity is None:
            return Refusal(total, 0, scored.evaluation.photos, 0)
        values: list[Any] = []
        with self._console.bar("unknown photos") as bar:
            for start in range(0, total, CHUNK):
                some: Mapping[str, Any] = classifier.run(
                    pixels.array[start : start + CHUNK]
                )
                values.append(some[FAMILIARITY])
                bar(min(start + CHUNK, total), total)
        return count(scored.familiarity, np.concatenate(values), threshold)

    def close(self) -> None:
        for pixels in self._decoded.values():
            pixels.close()
