"""How many unknown photos, which show none of the labels, a file refuses.

A photo is refused where the file's familiarity is below the threshold in its card. A
file without that output refuses nothing. A comparison without unknown photos uses the
figures of an earlier one, from the card of the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from data import batches
from data.photos import Photo
from data.split import Row
from edge.classifier import FAMILIARITY, UNKNOWN
from edge.classify.sources import photos
from edge.errors import EdgegraftError
from edge.evaluate import Refusal, count_refusals
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from finetune import negatives
from finetune.console import Console
from quantize.conversion import scoring
from quantize.conversion.scoring import Scored


def recorded_refusal(model: ModelFile, scored: Scored) -> Refusal | None:
    """The figures of an earlier comparison in the file's card; None without any."""
    card = model.card
    figures = card.measured.get("unknown") if card else None
    if card is None or not figures:
        return None
    total, known = int(figures["unknown_photos"]), scored.evaluation.photos
    return Refusal(
        total,
        round(total * figures["unknown_refused"]),
        known,
        round(known * figures["known_refused"]),
        figures.get("auroc"),
        card.familiarity_threshold,
    )


def unknown_photos(
    folder: Path, own: Mapping[str, Path], trained_negatives: Collection[str]
) -> list[Photo]:
    """The unknown photos of a folder, not decoded.

    own: the run's photos by sha256; trained_negatives: sha256 of the negatives it was
    trained with. EdgegraftError for no folder, no photos, or one of these.
    """
    if not folder.is_dir():
        raise EdgegraftError(
            "--unknown: expected a folder of photos that show none of the labels, "
            f"got {folder}"
        )
    found = [Photo(Path(path), UNKNOWN) for path in photos([str(folder)])]
    digests = negatives.digests(folder)
    for sha256, path in digests.items():
        if sha256 in own:
            raise EdgegraftError(
                f"--unknown: expected photos that are not the run's, got "
                f"{path}, which is its {own[sha256]}; take it out"
            )
    negatives.refuse_seen(digests, trained_negatives, "the run")
    return found


class UnknownPhotos:
    """The unknown photos of a folder, decoded once for each recipe.

    EdgegraftError as `unknown_photos`, with the run's own `rows`, and for a photo that
    cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Row],
        console: Console,
        trained_negatives: frozenset[str] = frozenset(),
    ) -> None:
        self._folder, self._console = folder, console
        own = {row.sha256: row.photo.path for row in rows}
        self._photos = unknown_photos(folder, own, trained_negatives)
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

    def refusal(self, model: ModelFile, scored: Scored, runtime: str) -> Refusal:
        """The photos that a file refuses; `scored`: the file on the test photos."""
        card = model.card
        pixels = self._pixels(card.input if card else scored.recipe)
        threshold = card.familiarity_threshold if card else None
        total = len(pixels.array)
        if threshold is None or scored.familiarity is None:
            return Refusal(total, 0, scored.evaluation.photos, 0)
        classifier = scoring.open_file(model, runtime)
        with self._console.bar("unknown photos") as bar:
            outputs = scoring.run(classifier, pixels.array, progress=bar)
        return count_refusals(scored.familiarity, outputs[FAMILIARITY], threshold)

    def close(self) -> None:
        for pixels in self._decoded.values():
            pixels.close()
