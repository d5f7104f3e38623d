"""Distillation: a small network learns from the soft predictions of a bigger one.

The teacher predicts every training photo once, through its own input recipe. With its
probabilities p = softmax(z) and a temperature T, q = softmax(z / T), the student's
target is

    weight * q + (1 - weight) * one-hot label

so its cross-entropy is weight * KL(q, student) + (1 - weight) * CE(label, student), up
to a constant (Hinton et al. 2015, arXiv:1503.02531, with the student at temperature 1:
its own is fitted afterwards, `finetune.head.temperature`). A photo without a label has
weight 1. z need not be known: q is p ** (1 / T), normalised.

`teacher_views` shows the teacher each photo in several fixed augmented views, which the
student learns as well: a photo that the teacher has learned by heart teaches nothing
but its label. The features of a teacher that is a run are learned, too
(`finetune.distill.hints`). A copy of a validation or test photo among the unlabelled
ones is left out; whether an unlabelled photo shows any of the labels is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones.keras import tensorflow
from data import batches
from data.augment import Augmentation, augment, preset
from data.photos import Photo
from data.split import Split
from edge.classify import sources
from edge.errors import EdgegraftError
from edge.text import plural
from finetune.console import Console
from finetune.distill.hints import Directions
from finetune.distill.teacher import Teacher, open_teacher, refuse_leaks
from finetune.loop.examples import Examples, Floats, Ints, class_weights
from finetune.settings import Settings

_LEAST = 1e-7  # a probability; int8 files answer 0 for what is below 1/512
_MOST_BYTES = 3 << 30  # of pixels with all their variations in memory
_BATCH = 64  # of views; a part of what is drawn, so the same at every size
_VIEW_APART = 1_000_003  # between the seeds of two views

Pixels = npt.NDArray[np.uint8]


def unlabelled_photos(folder: Path) -> tuple[Photo, ...]:
    """Every photo below a folder, whatever its folders are called.

    EdgegraftError when it is no folder or holds none.
    """
    if not folder.is_dir():
        raise EdgegraftError(f"expected a folder of photos, got {folder}")
    paths = sources.photos([str(folder)])
    return tuple(Photo(Path(path), "") for path in paths)


def soften(probabilities: Floats, temperature: float) -> Floats:
    """softmax(z / T) of softmax(z): float32 [n, L] -> float32 [n, L]."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), _LEAST)) / temperature
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Lesson:
    """A teacher and the unlabelled photos it predicts as well."""

    teacher: Teacher
    unlabelled: tuple[Photo, ...] = ()

    @classmethod
    def of(cls, settings: Settings, labels: Sequence[str]) -> Lesson | None:
        """What the settings ask for; None without a teacher. EdgegraftError as
        `open_teacher` and `unlabelled_photos`."""
        if settings.teacher is None:
            return None
        hints = settings.teacher_hints > 0
        teacher = open_teacher(Path(settings.teacher), labels, features=hints)
        if settings.unlabelled is None:
            return cls(teacher)
        return cls(teacher, unlabelled_photos(Path(settings.unlabelled)))

    def teach(
        self,
        train: Examples,
        split: Split,
        pixels: batches.Pixels,
        settings: Settings,
        console: Console,
    ) -> tuple[Examples, dict[str, Any]]:
        """(what the student learns, a record for run.json).

        `train` are the examples of the split's training part, in its order, and come
        first in the result; unlabelled photos that could be read come behind them,
        their class being the teacher's prediction; then the views of all, in the
        same order. `pixels`, made by the settings' recipe, holds the photos.
        """
        refuse_leaks(self.teacher, split)
        more = _apart(self.unlabelled, split, pixels, console)
        photos = [*split.part("train"), *more]
        rows = np.array([pixels.rows[photo.path] for photo in photos], np.int64)
        self._refuse_views(pixels.array, len(photos), settings)
        answers, hints = self._answers(photos, pixels, len(train), settings, console)
        answers = answers[:, [self.teacher.labels.index(x) for x in split.labels]]
        best = answers[: len(photos)].argmax(axis=1)
        truth = np.concatenate([train.truth, best[len(train) :]])
        agrees = float((best[: len(train)] == train.truth).mean())
        also = f", predicts {len(more):,} unlabelled photos" if self.unlabelled else ""
        if hints is None and settings.teacher_hints:
            console.say("  the teacher is a file, so it has no features to match")
        console.stage(
            f"teacher {self.teacher.name}: agrees with {agrees:.1%} of "
            f"{len(train):,} labels{also}"
        )
        record = {
            "teacher": self.teacher.name,
            "temperature": settings.teacher_temperature,
            "share": settings.teacher_share,
            "views": settings.teacher_views,
            "hints": 0.0 if hints is None else settings.teacher_hints,
            "labelled": len(train),
            "unlabelled": len(more),
            "agrees_with_labels": agrees,
        }
        soft = _targets(answers, truth, len(train), settings)
        truth = np.tile(truth, settings.teacher_views)
        weights = None
        if train.weights is not None:
            weights = class_weights(truth, len(split.labels))[truth]
        array, rows = _with_views(pixels.array, rows, settings)
        return Examples(array, rows, truth, soft, weights, hints), record

    def _refuse_views(self, array: Pixels, count: int, settings: Settings) -> None:
        if settings.teacher_views == 1:
            return
        if self.teacher.recipe.resize != settings.resize:
            raise EdgegraftError(
                f"expected --resize {self.teacher.recipe.resize}, the teacher's, so "
                f"that both see the same variations, got {settings.resize}; or take "
                "--teacher-views 1"
            )
        size = array.nbytes + (settings.teacher_views - 1) * count * array[0].nbytes
        if size > _MOST_BYTES:
            raise EdgegraftError(
                f"expected --teacher-views to need at most {_MOST_BYTES >> 30} GB of "
                f"memory, got {size / 2**30:.1f} for {settings.teacher_views} of "
                f"{count:,} photos; take fewer"
            )

    def _answers(
        self,
        photos: Sequence[Photo],
        pixels: batches.Pixels,
        labelled: int,
        settings: Settings,
        console: Console,
    ) -> tuple[Floats, Floats | None]:
        """The teacher's probabilities, float32 [views * n, L], and its hints, float32
        [views * n, width], or None; through its recipe. The first `labelled` photos
        say which directions are wide."""
        own = pixels
        if self.teacher.recipe != settings.recipe:
            with console.bar("decoding photos for the teacher") as bar:
                own = batches.load_through_cache(
                    photos, self.teacher.recipe, measuring=False, progress=bar
                )
        try:
            lost = [photo for photo in photos if photo.path not in own.rows]
            if lost:
                raise EdgegraftError(
                    f"expected photos that can still be read, got {lost[0].path}, "
                    "which changed meanwhile; start again"
                )
            rows = np.array([own.rows[photo.path] for photo in photos], np.int64)
            with console.bar("predictions of the teacher") as bar:
                return self._predict(own.array, rows, labelled, settings, bar)
        finally:
            if own is not pixels:
                own.close()

    def _predict(
        self,
        array: Pixels,
        rows: Ints,
        labelled: int,
        settings: Settings,
        progress: Callable[[int, int], None],
    ) -> tuple[Floats, Floats | None]:
        both = self.teacher.with_features if settings.teacher_hints else None
        answers: list[Floats] = []
        hints: list[Floats] = []
        directions: Directions | None = None
        done, total = 0, len(rows) * settings.teacher_views
        for view in range(settings.teacher_views):
            features: list[Floats] = []
            for some in _view(array, rows, settings, view):
                if both is None:
                    answers.append(self.teacher.predict(some))
                else:
                    answer, feature = both(some)
                    answers.append(answer)
                    features.append(feature)
                done += len(some)
                progress(done, total)
            if features:
                whole = np.concatenate(features)
                if directions is None:
                    directions = Directions(whole[:labelled], settings.seed)
                hints.append(directions.hints(whole))
        return np.concatenate(answers), np.concatenate(hints) if hints else None


def _targets(answers: Floats, truth: Ints, labelled: int, settings: Settings) -> Floats:
    """Answers [views * n, L] and classes [n] -> targets [views * n, L]."""
    weight = np.full((len(truth), 1), settings.teacher_share, np.float32)
    weight[labelled:] = 1.0  # these have no label
    hard = np.eye(answers.shape[1], dtype=np.float32)[truth]
    times = (settings.teacher_views, 1)
    soft = soften(answers, settings.teacher_temperature)
    return np.tile(weight, times) * soft + np.tile((1 - weight) * hard, times)


def _view(array: Pixels, rows: Ints, settings: Settings, view: int) -> Iterator[Pixels]:
    how = preset(settings.augment)
    return view_batches(array, rows, how, settings.seed, view)


def _with_views(array: Pixels, rows: Ints, settings: Settings) -> tuple[Pixels, Ints]:
    """(the array with the variations behind it, the rows of all views)."""
    varied = [
        some
        for view in range(1, settings.teacher_views)
        for some in _view(array, rows, settings, view)
    ]
    if not varied:
        return array, rows
    whole = np.concatenate([array, *varied])
    return whole, np.concatenate([rows, np.arange(len(array), len(whole))])


def _apart(
    unlabelled: Sequence[Photo], split: Split, pixels: batches.Pixels, console: Console
) -> list[Photo]:
    """The unlabelled photos that are no copy of a photo of the split, nor each other's.

    Prints how many are left out.
    """
    known = {row.sha256: row.part for row in split.rows}
    kept, judged, copies = [], 0, 0
    for photo in unlabelled:
        digest = pixels.digests.get(photo.path)
        if digest is None:  # unreadable: the audit has named it
            continue
        part = known.get(digest)
        if part is None:
            kept.append(photo)
            known[digest] = "unlabelled"
        elif part in ("val", "test"):
            judged += 1
        else:
            copies += 1
    if judged:
        console.say(
            f"  {plural(judged, 'unlabelled photo')} left out: copies of validation "
            "or test photos"
        )
    if copies:
        console.say(
            f"  {plural(copies, 'unlabelled photo')} left out: copies of others"
        )
    return kept


def view_batches(
    array: Pixels, rows: Ints, how: Augmentation, seed: int, view: int
) -> Iterator[Pixels]:
    """One variation of each row of uint8 [N, S, S, 3], in order, uint8 [n, S, S, 3].

    View 0 is the photo itself. Every random number of a view is drawn from (seed, view,
    place in the list) and none from the size, so a teacher at 224 and a student at 96
    pixels see the same crop, turn and light. Photos are not mixed with one another.
    """
    tf = tensorflow()
    single = replace(how, mixup=0.0, cutmix=0.0)
    varied = tf.function(
        lambda images, drawn: augment(tf.cast(images, tf.float32), single, drawn),
        reduce_retracing=True,
    )
    for first in range(0, len(rows), _BATCH):
        some = array[rows[first : first + _BATCH]]
        if view:
            drawn = tf.constant([seed, view * _VIEW_APART + first], tf.int32)
            some = np.rint(varied(tf.constant(some), drawn).numpy()).astype(np.uint8)
        yield some
