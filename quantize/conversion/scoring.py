"""A run's photos through a model file: decoded once, scored through the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data import batches
from data.split import Row
from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, score
from edge.foreign import ForeignOptions
from edge.model_file import ModelFile
from edge.preprocess import InputRecipe
from edge.quiet import without_chatter
from edge.text import listed
from finetune.console import Console
from finetune.run import Run

Advance = Callable[[int, int], None]
CHUNK = 20  # photos between two steps of the progress bar


@dataclass(frozen=True)
class Scored:
    """A file's figures on one part, and the runtime they were measured with."""

    evaluation: Evaluation
    runtime: str
    recipe: InputRecipe
    familiarity: Any = None  # float32 [N], for a file with that output

    def first(self, count: int) -> Scored:
        """The figures on the first `count` photos alone."""
        rows = self.evaluation
        return replace(
            self,
            evaluation=score(
                rows.probabilities[:count], rows.truth[:count], rows.labels
            ),
            familiarity=None if self.familiarity is None else self.familiarity[:count],
        )

    def to_card(self) -> dict[str, Any]:
        """The short form that goes into a model card."""
        return {
            "accuracy": self.evaluation.accuracy,
            "interval": list(self.evaluation.interval),
            "balanced_accuracy": self.evaluation.balanced_accuracy,
            "weakest_label": self.evaluation.weakest["label"],
            "weakest_recall": self.evaluation.weakest["recall"],
            "photos": self.evaluation.photos,
            "calibration_error": self.evaluation.calibration_error,
            "runtime": self.runtime,
        }


@dataclass(frozen=True)
class Foreign:
    """What the user says of the files that have no card: see `ForeignOptions`."""

    labels: str | None = None  # a file of names
    options: ForeignOptions | None = None


def recipe_of(
    model: ModelFile,
    runtime: str,
    labels: Sequence[str] | None,
    foreign: Foreign | None = None,
) -> tuple[tuple[str, ...], InputRecipe]:
    """A file's labels, and how it wants its photos; EdgegraftError, naming it, when it
    cannot be run or has other labels than these."""
    if model.card is not None:
        names, recipe = model.card.labels, model.card.input
    else:
        classifier = open_file(model, runtime, foreign)
        names, recipe = classifier.labels, classifier.recipe
    if labels is not None and tuple(names) != tuple(labels):
        raise EdgegraftError(
            f"{model.where}: expected a file with the labels {listed(labels)}, "
            f"got one with {listed(names)}"
        )
    return tuple(names), recipe


def open_file(
    model: ModelFile, runtime: str, foreign: Foreign | None = None
) -> Classifier:
    """The classifier of a file; `foreign` counts for one without a card."""
    given = (foreign or Foreign()) if model.card is None else Foreign()
    with without_chatter():
        return Classifier(
            model, runtime=runtime, labels=given.labels, foreign=given.options
        )


def decode(
    run: Run,
    rows: Sequence[Row],
    console: Console,
    recipe: InputRecipe | None = None,
) -> batches.Pixels:
    """The pixels of these photos of a run, by its own recipe or another.

    EdgegraftError when one cannot be read or is no longer the photo that the run was
    made with (its sha256 is in split.csv): figures on other photos would be mixed up
    with the run's.
    """
    with console.bar("decoding photos") as bar:
        pixels = batches.load_through_cache(
            [row.photo for row in rows],
            recipe or run.recipe,
            measuring=False,
            progress=bar,
        )
    try:
        if pixels.failures:
            run.refuse_unreadable(*pixels.failures[0])
        run.refuse_changed(rows, pixels.digests)
    except EdgegraftError:
        pixels.close()
        raise
    return pixels


def score_file(
    model: ModelFile | bytes,
    rows: Sequence[Row],
    pixels: batches.Pixels,
    labels: Sequence[str],
    *,
    progress: Advance,
    runtime: str = "auto",
    foreign: Foreign | None = None,
) -> Scored:
    """Run the photos through a model file, on all cores, and count."""
    numbers = {label: number for number, label in enumerate(labels)}
    classifier = open_file(ModelFile.read(model), runtime, foreign)
    if tuple(classifier.labels) != tuple(labels):
        raise EdgegraftError(
            f"expected a file with the labels {listed(labels)}, "
            f"got one with {listed(classifier.labels)}"
        )
    found = run(classifier, pixels.array, places_of(pixels, rows), progress)
    return Scored(
        score(
            found["probabilities"],
            [numbers[row.photo.label] for row in rows],
            labels,
        ),
        str(classifier.runtime),
        classifier.recipe,
        found.get("familiarity"),
    )


def run(
    classifier: Classifier,
    photos: npt.NDArray[np.uint8],
    places: Sequence[int] | None = None,
    progress: Advance | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Outputs [N, ...] by role for photos uint8 [M, H, W, 3], or those at `places`."""
    places = range(len(photos)) if places is None else places
    found: dict[str, list[Any]] = {}
    for start in range(0, len(places), CHUNK):
        some = places[start : start + CHUNK]
        for role, values in classifier.run(photos[np.asarray(some)]).items():
            found.setdefault(role, []).append(values)
        if progress is not None:
            progress(start + len(some), len(places))
    return {role: np.concatenate(values) for role, values in found.items()}


def take(pixels: batches.Pixels, rows: Sequence[Row]) -> npt.NDArray[np.uint8]:
    """A copy of these photos' pixels, uint8 [len(rows), H, W, 3]."""
    return pixels.array[places_of(pixels, rows)]


def places_of(pixels: batches.Pixels, rows: Sequence[Row]) -> list[int]:
    """Where each photo lies in the array.

    Found by content: pixels decoded by an earlier step may know a photo under another
    form of its path.
    """
    known = {digest: pixels.rows[path] for path, digest in pixels.digests.items()}
    missing = [row.photo.path for row in rows if row.sha256 not in known]
    if missing:
        raise EdgegraftError(
            f"expected the decoded photos of this run, got none of {missing[0]} "
            f"({len(missing)} missing)"
        )
    return [known[row.sha256] for row in rows]


def rows_of(run: Run, part: str) -> tuple[Row, ...]:
    """The rows of one part of split.csv; EdgegraftError when it has none."""
    rows = tuple(row for row in run.split().rows if row.part == part)
    if not rows:
        raise EdgegraftError(
            f"expected photos in the {part} part of {run.folder / 'split.csv'}, "
            "got none"
        )
    return rows
