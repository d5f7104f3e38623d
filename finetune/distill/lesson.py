"""Distillation: a small network learns from the soft predictions of a bigger one.

The teacher predicts every training photo once, through its own input recipe. With its
probabilities p = softmax(z) and a temperature T, q = softmax(z / T), the student's
target is

    weight * q + (1 - weight) * one-hot label

so its cross-entropy is weight * KL(q, student) + (1 - weight) * CE(label, student), up
to a constant (Hinton et al. 2015, arXiv:1503.02531, with the student at temperature 1:
its own is fitted afterwards, `finetune.head.temperature`). A photo without a label has
weight 1. z need not be known: q is p ** (1 / T), normalised.

With `teacher_views` the teacher predicts several fixed augmented views of each photo,
which the student learns as well: on photos that the teacher has memorised, its
predictions say no more than the label. The features of a teacher that is a run are
learned, too (`finetune.distill.hints`). Copies of validation or test photos among the
unlabelled ones are left out; whether an unlabelled photo shows any of the labels is not
checked.
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
from finetune.distill.hints import HintComponents
from finetune.distill.teacher import Teacher, open_teacher, refuse_leaks
from finetune.head.probe import softmax
from finetune.loop.examples import Examples, Floats, Ints, class_weights
from finetune.settings import Settings

_MIN_PROBABILITY = 1e-7  # int8 files give 0 for probabilities below 1/512
_MAX_BYTES = 3 << 30  # of pixels with all their views in memory
_BATCH = 64  # of views; random numbers depend on it, so it is fixed
_VIEW_SEED_STEP = 1_000_003  # between the seeds of two views

Pixels = npt.NDArray[np.uint8]


def unlabelled_photos(folder: Path) -> tuple[Photo, ...]:
    """Every photo below a folder; EdgegraftError when there is none."""
    if not folder.is_dir():
        raise EdgegraftError(f"expected a folder of photos, got {folder}")
    paths = sources.photos([str(folder)])
    return tuple(Photo(Path(path), "") for path in paths)


def soften(probabilities: Floats, temperature: float) -> Floats:
    """softmax(z / T) of softmax(z): float32 [n, L] -> float32 [n, L]."""
    clipped = np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY)
    logits: Any = np.log(clipped) / temperature
    return np.asarray(softmax(logits), np.float32)


@dataclass(frozen=True)
class Lesson:
    """A teacher and the unlabelled photos it predicts as well."""

    teacher: Teacher
    unlabelled: tuple[Photo, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings, labels: Sequence[str]) -> Lesson | None:
        """The lesson of these settings; None without a teacher. EdgegraftError as
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
        """(the student's examples, a record for run.json).

        `train` are the examples of the split's training part, in its order, and come
        first in the result; then readable unlabelled photos, with the teacher's
        prediction as their class; then the views of all, in the same order. `pixels`
        are those of the settings' recipe.
        """
        refuse_leaks(self.teacher, split)
        unlabelled = _without_copies(self.unlabelled, split, pixels, console)
        photos = [*split.part("train"), *unlabelled]
        rows = np.array([pixels.rows[photo.path] for photo in photos], np.int64)
        self._refuse_views(pixels.array, len(photos), settings)
        probabilities, hints = self._predictions(
            photos, pixels, len(train), settings, console
        )
        columns = [self.teacher.labels.index(label) for label in split.labels]
        probabilities = probabilities[:, columns]
        predicted = probabilities[: len(photos)].argmax(axis=1)
        truth = np.concatenate([train.truth, predicted[len(train) :]])
        agreement = float((predicted[: len(train)] == train.truth).mean())
        also = ""
        if self.unlabelled:
            also = f", predicts {len(unlabelled):,} unlabelled photos"
        if hints is None and settings.teacher_hints:
            console.say("  the teacher is a file, so it has no features to match")
        console.stage(
            f"teacher {self.teacher.name}: agrees with {agreement:.1%} of "
            f"{len(train):,} labels{also}"
        )
        record = {
            "teacher": self.teacher.name,
            "temperature": settings.teacher_temperature,
            "share": settings.teacher_share,
            "views": settings.teacher_views,
            "hints": 0.0 if hints is None else settings.teacher_hints,
            "labelled": len(train),
            "unlabelled": len(unlabelled),
            "agrees_with_labels": agreement,
        }
        soft = _targets(probabilities, truth, len(train), settings)
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
        if size > _MAX_BYTES:
            raise EdgegraftError(
                f"expected --teacher-views to need at most {_MAX_BYTES >> 30} GB of "
                f"memory, got {size / 2**30:.1f} for {settings.teacher_views} of "
                f"{count:,} photos; take fewer"
            )

    def _predictions(
        self,
        photos: Sequence[Photo],
        pixels: batches.Pixels,
        labelled: int,
        settings: Settings,
        console: Console,
    ) -> tuple[Floats, Floats | None]:
        """The teacher's probabilities, float32 [views * n, L], and its hints, float32
        [views * n, width], or None; through its recipe. The principal components are
        those of the first `labelled` photos."""
        decoded = pixels
        if self.teacher.recipe != settings.recipe:
            with console.bar("decoding photos for the teacher") as bar:
                decoded = batches.load_through_cache(
                    photos, self.teacher.recipe, with_facts=False, progress=bar
                )
        try:
            missing = [photo for photo in photos if photo.path not in decoded.rows]
            if missing:
                raise EdgegraftError(
                    f"expected photos that can still be read, got {missing[0].path}, "
                    "which changed meanwhile; start again"
                )
            rows = np.array([decoded.rows[photo.path] for photo in photos], np.int64)
            with console.bar("predictions of the teacher") as bar:
                return self._predict(decoded.array, rows, labelled, settings, bar)
        finally:
            if decoded is not pixels:
                decoded.close()

    def _predict(
        self,
        array: Pixels,
        rows: Ints,
        labelled: int,
        settings: Settings,
        progress: Callable[[int, int], None],
    ) -> tuple[Floats, Floats | None]:
        predict_both = self.teacher.with_features if settings.teacher_hints else None
        probabilities: list[Floats] = []
        hints: list[Floats] = []
        directions: HintComponents | None = None
        done, total = 0, len(rows) * settings.teacher_views
        for view in range(settings.teacher_views):
            features: list[Floats] = []
            for batch in _view(array, rows, settings, view):
                if predict_both is None:
                    probabilities.append(self.teacher.predict(batch))
                else:
                    predicted, batch_features = predict_both(batch)
                    probabilities.append(predicted)
                    features.append(batch_features)
                done += len(batch)
                progress(done, total)
            if features:
                view_features = np.concatenate(features)
                if directions is None:
                    directions = HintComponents(view_features[:labelled], settings.seed)
                hints.append(directions.hints(view_features))
        return np.concatenate(probabilities), np.concatenate(hints) if hints else None


def _targets(
    probabilities: Floats, truth: Ints, labelled: int, settings: Settings
) -> Floats:
    """Probabilities [views * n, L] and classes [n] -> targets [views * n, L]."""
    weight = np.full((len(truth), 1), settings.teacher_share, np.float32)
    weight[labelled:] = 1.0  # these have no label
    hard = np.eye(probabilities.shape[1], dtype=np.float32)[truth]
    repeats = (settings.teacher_views, 1)
    soft = soften(probabilities, settings.teacher_temperature)
    return np.tile(weight, repeats) * soft + np.tile((1 - weight) * hard, repeats)


def _view(array: Pixels, rows: Ints, settings: Settings, view: int) -> Iterator[Pixels]:
    augmentation = preset(settings.augment)
    return view_batches(array, rows, augmentation, settings.seed, view)


def _with_views(array: Pixels, rows: Ints, settings: Settings) -> tuple[Pixels, Ints]:
    """(the array followed by its augmented views, the rows of all views)."""
    augmented = [
        batch
        for view in range(1, settings.teacher_views)
        for batch in _view(array, rows, settings, view)
    ]
    if not augmented:
        return array, rows
    extended = np.concatenate([array, *augmented])
    return extended, np.concatenate([rows, np.arange(len(array), len(extended))])


def _without_copies(
    unlabelled: Sequence[Photo], split: Split, pixels: batches.Pixels, console: Console
) -> list[Photo]:
    """The unlabelled photos that are copies neither of the split's photos nor of each
    other; prints how many are left out."""
    part_of = {row.sha256: row.part for row in split.rows}
    unique: list[Photo] = []
    held_out = copies = 0
    for photo in unlabelled:
        digest = pixels.digests.get(photo.path)
        if digest is None:  # unreadable: the audit has named it
            continue
        part = part_of.get(digest)
        if part is None:
            unique.append(photo)
            part_of[digest] = "unlabelled"
        elif part in ("val", "test"):
            held_out += 1
        else:
            copies += 1
    for count, originals in (
        (held_out, "validation or test photos"),
        (copies, "others"),
    ):
        if count:
            photos = plural(count, "unlabelled photo")
            console.say(f"  {photos} left out: copies of {originals}")
    return unique


def view_batches(
    array: Pixels, rows: Ints, augmentation: Augmentation, seed: int, view: int
) -> Iterator[Pixels]:
    """One view of each row of uint8 [N, S, S, 3], in order, uint8 [n, S, S, 3].

    View 0 is the photo itself. The random numbers of a view depend on (seed, view,
    position in the list), not on the size, so a teacher at 224 and a student at 96
    pixels see the same crop, rotation and light. Photos are not mixed.
    """
    tf = tensorflow()
    unmixed = replace(augmentation, mixup=0.0, cutmix=0.0)
    augmented = tf.function(
        lambda images, seeds: augment(tf.cast(images, tf.float32), unmixed, seeds),
        reduce_retracing=True,
    )
    for start in range(0, len(rows), _BATCH):
        batch = array[rows[start : start + _BATCH]]
        if view:
            seeds = tf.constant([seed, view * _VIEW_SEED_STEP + start], tf.int32)
            batch = np.rint(augmented(tf.constant(batch), seeds).numpy())
        yield batch.astype(np.uint8, copy=False)
