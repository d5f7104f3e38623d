"""What a comparison measures: model files, on test photos and on unknown photos.

The files are those that runs exported, and other `.tflite` files. The test photos are a
run's test part, or other photos; of these, those that the run of a file was trained or
tuned on are left out (the training photos of files without a run are not known).
Unknown photos show none of the labels: how many does a file refuse?
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import batches
from data.photos import Photo
from data.source import PhotoOptions, labelled
from data.split import Row, Split
from edge.classifier import FAMILIARITY, UNKNOWN
from edge.classify.sources import photos as photos_in
from edge.errors import EdgegraftError
from edge.evaluate import Refusal, count_refusals
from edge.model_file import ModelFile
from edge.preprocess import FULL, InputRecipe
from edge.run_folder import RUN_FILE
from edge.text import listed, plural, printable
from finetune.console import Console
from finetune.familiarity import photo_digests, refuse_trained
from finetune.run import Run
from quantize import recipes
from quantize.conversion import scoring
from quantize.conversion.scoring import Scored

TRAIN, TEST = "train", "test"
EXPORTS = "exports"  # of a run: the folder of its files
RunOrFile = Run | str | os.PathLike[str]


# -- files -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A file to measure, read once; `run`: the one that exported it, None for a file
    outside of runs."""

    path: Path
    title: str
    run: Run | None
    model: ModelFile


def opened(things: Sequence[RunOrFile], *, runless: bool = False) -> list[Run | Path]:
    """Run folders as runs, model files as paths; EdgegraftError for anything else,
    and where there is no run, unless `runless`."""
    sources = [item if isinstance(item, Run) else _open(Path(item)) for item in things]
    if not sources or not (runless or any(isinstance(item, Run) for item in sources)):
        first = sources[0] if sources else "nothing"
        raise EdgegraftError(
            f"expected a run folder, whose test photos the files are measured on, got "
            f"{first}; say which photos with: --photos PHOTOS"
        )
    return sources


def _open(path: Path) -> Run | Path:
    return path if path.is_file() else Run.open(path)


def candidates(
    things: Sequence[Run | Path], *, same_photos: bool = True
) -> tuple[Candidate, ...]:
    """Every file of `things` in their order.

    EdgegraftError for a run without files, with `same_photos` for one with other photos
    than the first, and for a file that is listed twice or cannot be read.
    """
    runs = [thing for thing in things if isinstance(thing, Run)]
    found: list[tuple[Path, str, Run | None]] = []
    owners: dict[Path, Run | None] = {}  # folder -> run, of single files
    for thing in things:
        if isinstance(thing, Run):
            if same_photos and thing is not runs[0]:
                _refuse_other_photos(runs[0], thing)
            prefix = "" if len(things) == 1 else f"{thing.name}/"
            found += [(p, prefix + _title(p), thing) for p in exported(thing)]
        else:
            folder = thing.resolve().parent
            if folder not in owners:
                owners[folder] = _owner(folder)
            found.append((thing, thing.stem, owners[folder]))
    paths = Counter(path.resolve() for path, _, _ in found)
    titles = Counter(title for _, title, _ in found)
    for path, count in paths.items():
        if count > 1:
            raise EdgegraftError(f"expected each file once, got {path} twice")
    return tuple(
        Candidate(
            path,
            _title_with_folder(path) if titles[title] > 1 else title,
            owner,
            ModelFile.read(path).checked(),
        )
        for path, title, owner in found
    )


def _owner(folder: Path) -> Run | None:
    """The run with these exports; None where `folder` is no run's."""
    if folder.name != EXPORTS or not (folder.parent / RUN_FILE).is_file():
        return None
    try:
        return Run.open(folder.parent)
    except EdgegraftError:  # then its card has to do
        return None


def _title_with_folder(path: Path) -> str:
    """A title for files of the same name: with the name of the run or folder."""
    folder = path.resolve().parent
    return f"{(folder.parent if folder.name == EXPORTS else folder).name}/{path.stem}"


def _refuse_other_photos(run: Run, other: Run) -> None:
    if not _same_held_out(run.split(), other.split()):
        raise EdgegraftError(
            f"expected runs on the same photos and split (those of --add may come on "
            f"top), got {other.folder} with other data than {run.folder}: it may have "
            "trained on the test photos; compare its files alone"
        )


def _same_held_out(first: Split, second: Split) -> bool:
    """Whether both have the same held-out photos, whatever they were trained on."""
    if first.fingerprint == second.fingerprint:
        return True
    held_out = [
        {(row.part, row.sha256, row.photo.label) for row in s.rows if row.part != TRAIN}
        for s in (first, second)
    ]
    trained = {row.sha256 for row in second.rows if row.part == TRAIN}
    same = held_out[0] == held_out[1]
    return same and trained.isdisjoint(sha256 for _, sha256, _ in held_out[0])


def _title(path: Path) -> str:
    variant = path.name.split(".")[0]
    return f"{variant} (rejected)" if rejected(path) else variant


def exported(run: Run) -> tuple[Path, ...]:
    """The run's files in the order of the variants table, rejected ones last."""
    order = list(recipes.VARIANTS)

    def rank(path: Path) -> tuple[bool, int, str]:
        variant = path.name.split(".")[0]
        index = order.index(variant) if variant in order else len(order)
        return rejected(path), index, path.name

    files = tuple(sorted(run.exports.glob("*.tflite"), key=rank))
    if not files and not run.trained:
        raise run.unfinished()
    if not files:
        raise EdgegraftError(
            f"expected exported files in {run.exports}, got none; make them with: "
            f"edgegraft quantize {run.folder}"
        )
    return files


def rejected(path: Path) -> bool:
    """Whether the gate or the target rejected an exported file."""
    return path.name.endswith(".rejected.tflite")


# -- test photos -----------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """The test photos: `rows`, of `labels`; paths are shown relative to `root`. `run`:
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


# -- unknown photos --------------------------------------------------------------------


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
    found = [Photo(Path(path), UNKNOWN) for path in photos_in([str(folder)])]
    digests = photo_digests(folder)
    for sha256, path in digests.items():
        if sha256 in own:
            raise EdgegraftError(
                f"--unknown: expected photos that are not the run's, got "
                f"{path}, which is its {own[sha256]}; take it out"
            )
    refuse_trained(digests, trained_negatives, "the run")
    return found


class UnknownPhotos:
    """The unknown photos of a folder, decoded once for each recipe.

    A photo is refused where the file's familiarity is below the threshold in its card.
    A file without that output refuses nothing.

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


def recorded_refusal(model: ModelFile, scored: Scored) -> Refusal | None:
    """The figures of an earlier comparison, from the file's card, for a comparison
    without unknown photos; None where the card has none."""
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
