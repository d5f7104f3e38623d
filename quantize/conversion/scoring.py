"""Scores a model file on photos of a run, through the runner that ships."""

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
from edge.terminal import without_chatter
from edge.text import listed
from finetune.console import Console
from finetune.run import Run

Advance = Callable[[int, int], None]
CHUNK = 20  # photos between two steps of the progress bar


@dataclass(frozen=True)
class Scored:
    """The evaluation of a file, and the runtime that it was measured with."""

    evaluation: Evaluation
    runtime: str
    recipe: InputRecipe
    familiarity: Any = None  # float32 [N], for a file with that output

    def first(self, count: int) -> Scored:
        """The figures on the first `count` photos alone."""
        every = self.evaluation
        return replace(
            self,
            evaluation=score(
                every.probabilities[:count], every.truth[:count], every.labels
            ),
            familiarity=None if self.familiarity is None else self.familiarity[:count],
        )

    def to_card(self) -> dict[str, Any]:
        """The short form for the model card."""
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
    """The user's description of files that have no card: see `ForeignOptions`."""

    labels: str | None = None  # a file of names
    options: ForeignOptions | None = None


def recipe_of(
    model: ModelFile,
    runtime: str,
    labels: Sequence[str] | None,
    foreign: Foreign | None = None,
) -> tuple[tuple[str, ...], InputRecipe]:
    """A file's labels and input recipe; EdgegraftError, naming it, when it cannot be
    run or has other labels than these."""
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
    """The classifier of a file; `foreign` applies to files without a card."""
    if foreign is None or model.card is not None:
        foreign = Foreign()
    with without_chatter():
        return Classifier(
            model, runtime=runtime, labels=foreign.labels, foreign=foreign.options
        )


def decode(
    run: Run,
    rows: Sequence[Row],
    console: Console,
    recipe: InputRecipe | None = None,
) -> batches.Pixels:
    """The pixels of these photos of a run, by its own recipe or another.

    EdgegraftError when one cannot be read or has changed since the run was made (its
    sha256 is in split.csv).
    """
    with console.bar("decoding photos") as bar:
        pixels = batches.load_through_cache(
            [row.photo for row in rows],
            recipe or run.recipe,
            with_facts=False,
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
    """Evaluate a model file on these photos, on all cores; EdgegraftError for other
    labels."""
    class_index = {label: index for index, label in enumerate(labels)}
    classifier = open_file(ModelFile.read(model), runtime, foreign)
    if tuple(classifier.labels) != tuple(labels):
        raise EdgegraftError(
            f"expected a file with the labels {listed(labels)}, "
            f"got one with {listed(classifier.labels)}"
        )
    outputs = run(classifier, pixels.array, row_indices(pixels, rows), progress)
    truth = [class_index[row.photo.label] for row in rows]
    return Scored(
        score(outputs["probabilities"], truth, labels),
        str(classifier.runtime),
        classifier.recipe,
        outputs.get("familiarity"),
    )


def run(
    classifier: Classifier,
    photos: npt.NDArray[np.uint8],
    indices: Sequence[int] | None = None,
    progress: Advance | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Outputs [N, ...] by role for photos uint8 [M, H, W, 3], or those of `indices`."""
    indices = range(len(photos)) if indices is None else indices
    outputs: dict[str, list[Any]] = {}
    for start in range(0, len(indices), CHUNK):
        chunk = indices[start : start + CHUNK]
        for role, values in classifier.run(photos[np.asarray(chunk)]).items():
            outputs.setdefault(role, []).append(values)
        if progress is not None:
            progress(start + len(chunk), len(indices))
    return {role: np.concatenate(values) for role, values in outputs.items()}


def take(pixels: batches.Pixels, rows: Sequence[Row]) -> npt.NDArray[np.uint8]:
    """A copy of these photos' pixels, uint8 [len(rows), H, W, 3]."""
    return pixels.array[row_indices(pixels, rows)]


def row_indices(pixels: batches.Pixels, rows: Sequence[Row]) -> list[int]:
    """The index of each photo in the array; EdgegraftError for a missing one.

    Looked up by content, since an earlier step may have decoded a photo under another
    form of its path.
    """
    index_of = {digest: pixels.rows[path] for path, digest in pixels.digests.items()}
    missing = [row.photo.path for row in rows if row.sha256 not in index_of]
    if missing:
        raise EdgegraftError(
            f"expected the decoded photos of this run, got none of {missing[0]} "
            f"({len(missing)} missing)"
        )
    return [index_of[row.sha256] for row in rows]


def rows_of(run: Run, part: str) -> tuple[Row, ...]:
    """The rows of one part of split.csv; EdgegraftError when it has none."""
    rows = tuple(row for row in run.split().rows if row.part == part)
    if not rows:
        raise EdgegraftError(
            f"expected photos in the {part} part of {run.folder / 'split.csv'}, "
            "got none"
        )
    return rows
