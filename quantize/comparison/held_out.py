"""The test photos of a comparison: a run's test part, or other photos.

Of other photos, those that the run of a file was trained or tuned on are left out; the
training photos of files without a run are not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data import batches
from data.source import PhotoOptions, labelled
from data.split import Row
from edge.errors import EdgegraftError
from edge.preprocess import FULL, InputRecipe
from edge.text import listed, plural, printable
from finetune.console import Console
from finetune.run import Run
from quantize.conversion import scoring

TEST = "test"


@dataclass(frozen=True)
class HeldOut:
    """`rows` are the photos, of `labels`; paths are shown relative to `root`. `run`:
    whose test part they are, None for other photos. `what`: their description."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    root: Path
    what: str
    run: Run | None = None
    white: int = FULL  # for files without a card

    @classmethod
    def from_run(cls, run: Run) -> HeldOut:
        """Its test part; EdgegraftError where that is empty."""
        rows = scoring.rows_of(run, TEST)
        return cls(run.labels, rows, run.photos_root, "test part", run)

    @classmethod
    def from_photos(
        cls,
        photos: Path,
        options: PhotoOptions,
        labels: tuple[str, ...],
        recipe: InputRecipe,
        runs: Sequence[Run],
        console: Console,
    ) -> tuple[HeldOut, batches.Pixels]:
        """Whatever `data.source.labelled` reads, and its pixels by `recipe`.

        EdgegraftError for a label that is not one of `labels`, and where no photo is
        left to measure on.
        """
        test_set = labelled(photos, options)
        for photo in test_set.photos:
            if photo.label not in labels:
                raise EdgegraftError(
                    f"{printable(photo.path)}: label {photo.label!r} is not one of the "
                    f"files': {listed(labels)}; if it has another name "
                    f"there: --rename {photo.label}=LABEL"
                )
        with console.bar("decoding photos") as bar:
            pixels = batches.load_through_cache(
                test_set.photos, recipe, with_facts=False, progress=bar
            )
        for note in test_set.notes:
            console.say(f"  {note}")
        for path, reason in pixels.failures:
            console.say(f"  left out: {printable(path)}: {reason}")
        rows = [
            Row(photo, TEST, pixels.digests[photo.path])
            for photo in test_set.photos
            if photo.path in pixels.digests
        ]
        for run in runs:
            unseen = _unseen(run, rows)
            if len(unseen) < len(rows):
                count = plural(len(rows) - len(unseen), "photo")
                console.say(f"  {count} left out: {run.name} was trained on them")
            rows = unseen
        if not rows:
            pixels.close()
            raise EdgegraftError(
                f"--photos {printable(photos)}: expected photos that can be read and "
                "that no run here was trained on, got none"
            )
        root, what, white = test_set.root, test_set.what, test_set.white
        return cls(labels, tuple(rows), root, what, white=white), pixels

    def trained_on_by(self, run: Run) -> int:
        """How many of these photos the run was trained or tuned on."""
        return len(self.rows) - len(_unseen(run, self.rows))

    def decode(self, recipe: InputRecipe, console: Console) -> batches.Pixels:
        """Their pixels by a recipe; EdgegraftError where a photo of a run has changed
        or cannot be read."""
        if self.run is not None:
            return scoring.decode(self.run, self.rows, console, recipe)
        with console.bar("decoding photos") as bar:
            photos = [row.photo for row in self.rows]
            return batches.load_through_cache(
                photos, recipe, with_facts=False, progress=bar
            )


def _unseen(run: Run, rows: Sequence[Row]) -> list[Row]:
    """Those that the run was neither trained nor tuned on."""
    trained = {row.sha256 for row in run.split().rows if row.part != TEST}
    return [row for row in rows if row.sha256 not in trained]
