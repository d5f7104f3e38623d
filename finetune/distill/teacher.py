"""A teacher: a run or a `.tflite` file that answers photos for a smaller network.

Does not know: what is done with its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import tensorflow
from data.split import Split
from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from edge.quiet import without_chatter
from finetune.head.probe import softmax
from finetune.loop.examples import Floats
from finetune.run import Run

_FILE = "exports/float32.tflite"

See = Callable[[npt.NDArray[np.uint8]], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Teacher:
    """Who answers. `answer(pixels)` gives probabilities [n, L] in the order of
    `labels`, for uint8 pixels [n, H, W, 3] made by `recipe`. `see(pixels)` gives these
    and the features [n, D] they come from; None for a file, which shows answers only.

    `trained_on`: sha256 of its training photos, None where nobody wrote them down.
    `fitted_to`: of its validation photos, where its head learnt from them at the end
    (`finetune.head.cross_fit`).
    """

    name: str
    labels: tuple[str, ...]
    recipe: InputRecipe
    answer: Callable[[npt.NDArray[np.uint8]], Floats]
    trained_on: frozenset[str] | None = None
    fitted_to: frozenset[str] = frozenset()
    see: See | None = None


def open_teacher(path: Path, labels: Sequence[str], *, seeing: bool = False) -> Teacher:
    """A run folder or a `.tflite` file that knows exactly these labels.

    A run answers through its float32 file, or through its network where it has no file
    or is to show its features, too (`seeing`, where the network is still there).
    EdgegraftError for another thing, or other labels.
    """
    if not path.exists():
        raise EdgegraftError(
            f"expected --teacher to be a run's folder or a .tflite file, got {path}, "
            "which is not there"
        )
    if path.is_dir():
        run, file = Run.open(path), path / _FILE
        by_file = file.is_file() and not (seeing and run.network_file.is_file())
        found = _of_file(file) if by_file else _of_network(run, run.model())
        teacher = replace(
            found,
            name=str(path),
            trained_on=_digests(run.split(), "train"),
            fitted_to=_digests(run.split(), "val") if run.refitted else frozenset(),
        )
    else:
        teacher = _of_file(path)
    if set(teacher.labels) != set(labels):
        raise EdgegraftError(
            f"expected a teacher with the labels {', '.join(sorted(labels))}, got "
            f"{path} with {', '.join(sorted(teacher.labels))}; rename the folders of "
            "photos or train a teacher on these"
        )
    return teacher


def _of_file(path: Path) -> Teacher:
    with without_chatter():
        classifier = Classifier(path)
    return Teacher(
        str(path), classifier.labels, classifier.recipe, classifier.probabilities
    )


def _of_network(run: Run, model: Any) -> Teacher:
    tf = tensorflow()
    both = network.feature_and_logit_model(model)
    forward = tf.function(
        lambda images: both(tf.cast(images, tf.float32), training=False),
        reduce_retracing=True,
    )

    def see(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        features, logits = forward(tf.constant(pixels))
        return softmax(logits.numpy()), tf.cast(features, tf.float32).numpy()

    return Teacher(
        run.name, run.labels, run.recipe, lambda pixels: see(pixels)[0], see=see
    )


def _digests(split: Split, part: str) -> frozenset[str]:
    return frozenset(row.sha256 for row in split.rows if row.part == part)


def refuse_leaks(teacher: Teacher, split: Split) -> None:
    """EdgegraftError when the teacher has learnt photos the student is judged on.

    What it remembers of them would be measured as the student's skill. A head that was
    fitted to validation photos spoils a test part, but not the choice of an epoch: the
    student is never shown its answers to these.
    """
    if teacher.trained_on is None:
        return
    seen = {"test": teacher.trained_on | teacher.fitted_to, "val": teacher.trained_on}
    for part, photos in seen.items():
        known = _digests(split, part) & photos
        if known:
            raise EdgegraftError(
                f"expected a teacher that never saw the {part} part, got "
                f"{teacher.name}, trained on {len(known):,} of its photos; train both "
                "with the same photos and --seed, so that they share a split"
            )
