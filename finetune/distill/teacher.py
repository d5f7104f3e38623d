"""A teacher: a run or a `.tflite` file whose predictions a smaller network learns."""

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
from edge.terminal import without_chatter
from edge.text import listed
from finetune.head.probe import softmax
from finetune.loop.examples import Floats
from finetune.model import load
from finetune.run import Run

_FILE = "exports/float32.tflite"

WithFeatures = Callable[[npt.NDArray[np.uint8]], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Teacher:
    """`predict(pixels)` gives probabilities [n, L] in the order of `labels`, for uint8
    pixels [n, H, W, 3] of `recipe`. `with_features(pixels)` gives these and the
    features [n, D]; None for a file, which has probabilities only.

    `trained_on`: sha256 of its training photos, None where they are not recorded.
    `fitted_to`: of its validation photos, where its head was fitted to them as well
    (`finetune.head.cross_fit`).
    """

    name: str
    labels: tuple[str, ...]
    recipe: InputRecipe
    predict: Callable[[npt.NDArray[np.uint8]], Floats]
    trained_on: frozenset[str] | None = None
    fitted_to: frozenset[str] = frozenset()
    with_features: WithFeatures | None = None


def open_teacher(
    path: Path, labels: Sequence[str], *, features: bool = False
) -> Teacher:
    """A run folder or a `.tflite` file with exactly these labels.

    A run predicts through its float32 file, or through its network where it has no file
    or, with `features`, where the network is still there. EdgegraftError for anything
    else, or other labels.
    """
    if not path.exists():
        raise EdgegraftError(
            f"expected --teacher to be a run's folder or a .tflite file, got {path}, "
            "which is not there"
        )
    if path.is_dir():
        run, file = Run.open(path), path / _FILE
        use_file = file.is_file() and not (features and run.has_network)
        teacher = replace(
            _of_file(file) if use_file else _of_network(run, load(run)),
            name=str(path),
            trained_on=_digests(run.split(), "train"),
            fitted_to=_digests(run.split(), "val") if run.cross_fitted else frozenset(),
        )
    else:
        teacher = _of_file(path)
    if set(teacher.labels) != set(labels):
        raise EdgegraftError(
            f"expected a teacher with the labels {listed(sorted(labels))}, got "
            f"{path} with {listed(sorted(teacher.labels))}; rename the folders of "
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

    def with_features(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        features, logits = forward(tf.constant(pixels))
        return softmax(logits.numpy()), tf.cast(features, tf.float32).numpy()

    return Teacher(
        run.name,
        run.labels,
        run.recipe,
        lambda pixels: with_features(pixels)[0],
        with_features=with_features,
    )


def _digests(split: Split, part: str) -> frozenset[str]:
    return frozenset(row.sha256 for row in split.rows if row.part == part)


def refuse_leaks(teacher: Teacher, split: Split) -> None:
    """EdgegraftError when the teacher was trained on the student's held-out photos.

    They would leak into the student and inflate its accuracy. A head that was fitted to
    validation photos spoils a test part, but not the choice of an epoch: the student
    never learns its predictions for these. Photos that the student trains on as well,
    as copies, are no leak of the teacher.
    """
    if teacher.trained_on is None:
        return
    learned = {
        "test": teacher.trained_on | teacher.fitted_to,
        "val": teacher.trained_on,
    }
    train = _digests(split, "train")
    for part, photos in learned.items():
        leaked = (_digests(split, part) & photos) - train
        if leaked:
            raise EdgegraftError(
                f"expected a teacher that never saw the {part} part, got "
                f"{teacher.name}, trained on {len(leaked):,} of its photos; train both "
                "with the same photos and --seed, so that they share a split"
            )
