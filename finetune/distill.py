"""Distillation: a small network learns from the soft predictions of a bigger one.

The teacher predicts every training photo once, through its own input recipe. With its
probabilities p = softmax(z) and a temperature T, q = softmax(z / T), the student's
target is

    weight * q + (1 - weight) * one-hot label

so its cross-entropy is weight * KL(q, student) + (1 - weight) * CE(label, student), up
to a constant (Hinton et al. 2015, arXiv:1503.02531, with the student at temperature 1:
its own is fitted afterwards, `finetune.head.probe`). A photo without a label has
weight 1. z need not be known: q is p ** (1 / T), normalised.

With `teacher_views` the teacher predicts several fixed augmented views of each photo,
which the student learns as well: on photos that the teacher has memorised, its
predictions say no more than the label. Copies of validation or test photos among the
unlabelled ones are left out; whether an unlabelled photo shows any of the labels is not
checked.

Hints: the features of a teacher that is a run are learned, too. Soft predictions of a
few labels carry little more than the labels; the features differ between photos of one
label, and a pretrained teacher has learned them from a million other pictures. So the
student's features, through a linear map that is trained with it and dropped afterwards,
are matched to the teacher's (FitNets: Romero et al. 2015, arXiv:1412.6550, here for the
last features, along with the predictions):

    loss + weight * mean(1 - cosine(map(student's features), hint))

A hint is the first `MAX_COMPONENTS` whitened principal components of the teacher's
features over the training photos, normalised to length 1. The gain of a network from
scratch is measured by tests/benchmarks/distillation.py; a pretrained one gained nothing
(the same with --set teacher_hints=2), so for these it is off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backbones import network
from backbones.keras import keras, tensorflow
from data import batches
from data.augment import Augmentation, augment, preset
from data.photos import Photo
from data.split import Split
from edge.classifier import Classifier
from edge.classify import sources
from edge.errors import EdgegraftError
from edge.preprocess import InputRecipe
from edge.terminal import without_chatter
from edge.text import listed, plural
from finetune.console import Console
from finetune.head.probe import softmax
from finetune.loop.examples import Examples, Floats, Ints, class_weights
from finetune.model import load
from finetune.run import Run
from finetune.settings import Settings

MAX_COMPONENTS = 64  # principal components; a small network can't match further ones
_FILE = "exports/float32.tflite"  # of a teacher that is a run
_MIN_PROBABILITY = 1e-7  # int8 files give 0 for probabilities below 1/512
_MAX_BYTES = 3 << 30  # of pixels with all their views in memory
_BATCH = 64  # of views; random numbers depend on it, so it is fixed
_VIEW_SEED_STEP = 1_000_003  # between the seeds of two views

Pixels = npt.NDArray[np.uint8]
WithFeatures = Callable[[Pixels], tuple[Floats, Floats]]


# -- the teacher -----------------------------------------------------------------------
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
    predict: Callable[[Pixels], Floats]
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

    def with_features(pixels: Pixels) -> tuple[Floats, Floats]:
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


# -- hints -----------------------------------------------------------------------------
class HintComponents:
    """Principal components of a teacher's features, float32 [N, D] of N photos."""

    def __init__(self, features: Floats, seed: int) -> None:
        from sklearn.decomposition import PCA

        count = min(MAX_COMPONENTS, features.shape[1], len(features) - 1)
        self._pca = PCA(count, whiten=True, random_state=seed).fit(features)

    def hints(self, features: Floats) -> Floats:
        """float32 [n, D] -> float32 [n, <= MAX_COMPONENTS], each row of length 1."""
        components = self._pca.transform(features)
        length = np.linalg.norm(components, axis=1, keepdims=True)
        return np.asarray(components / np.maximum(length, 1e-12), np.float32)


class HintRegressor:
    """The linear map from the features of `model` [D] to hints [width].

    weight: of the hints' loss beside that of the predictions. `variables` are trained
    with the model's.
    """

    def __init__(self, model: Any, width: int, weight: float) -> None:
        self._weight = weight
        self.map = keras().layers.Dense(width, name="hints", dtype="float32")
        self.map.build((None, model.get_layer(network.LOGITS).input.shape[-1]))
        self.variables = self.map.trainable_variables

    def losses(self, features: Any, hints: Any) -> Any:
        """The loss of each photo: features [n, D], hints [n, width] -> float32 [n].

        Hints need not be of length 1 (mixup and CutMix mix them).
        """
        tf = tensorflow()
        mapped = tf.math.l2_normalize(self.map(tf.cast(features, tf.float32)), axis=1)
        targets = tf.math.l2_normalize(hints, axis=1)
        return self._weight * (1.0 - tf.reduce_sum(mapped * targets, axis=1))


# -- the lesson ------------------------------------------------------------------------
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
