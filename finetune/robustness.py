"""Accuracy of an exported file on corrupted test photos.

Each test photo is corrupted at full size, before it is resized, as a bad lens, a dim
room or a messenger would, and goes through the runner that ships. Kinds and severities:
Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", arXiv:1903.12261; sizes here are relative to the photo's
shorter side, so that photos of every size are corrupted alike. Corruptions that come
together are not measured.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from data.split import Row
from edge.classifier import Classifier
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation, score
from edge.preprocess import Source, load_pixels, open_photo
from edge.quiet import without_chatter
from edge.text import listed
from finetune.console import Console
from finetune.figures.style import INK, MUTED, VAL, new_figure, percent, plain, save
from finetune.run import Run

PHOTOS = 200  # of the test part, as many of each label as can be
Corrupt = Callable[[Image.Image, float, int], Image.Image]


def _side(photo: Image.Image) -> int:
    return min(photo.size)


def _blur(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(amount / 100 * _side(photo)))


def _noise(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    values = np.asarray(photo, np.float32)
    values = values + random.normal(0, amount, values.shape).astype(np.float32)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _dark(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    return ImageEnhance.Brightness(photo).enhance(amount / 100)


def _jpeg(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    packed = io.BytesIO()
    photo.save(packed, "JPEG", quality=int(amount))
    packed.seek(0)
    return Image.open(packed).convert("RGB")


def _turned(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    way = 1 if seed % 2 else -1
    grey = tuple(int(value) for value in np.asarray(photo).mean(axis=(0, 1)))
    return photo.rotate(way * amount, Image.Resampling.BILINEAR, fillcolor=grey)


def _small(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    share = min(1.0, amount / _side(photo))
    size = (max(1, round(photo.width * share)), max(1, round(photo.height * share)))
    return photo.resize(size, Image.Resampling.BOX)


@dataclass(frozen=True)
class Corruption:
    """One way to corrupt a photo; `amounts` in `unit`, from mild to severe.

    mark: what stands over a photo corrupted so, with a place for the amount.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    apply: Corrupt
    mark: str


CORRUPTIONS = (
    Corruption("blur", "% of the shorter side", (0.5, 1, 2), _blur, "blur {:g} %"),
    Corruption(
        "noise", "of 255, standard deviation", (10, 25, 50), _noise, "noise {:g}"
    ),
    Corruption("dark", "% of the brightness left", (60, 35, 15), _dark, "light {:g} %"),
    Corruption("jpeg", "JPEG quality", (30, 15, 7), _jpeg, "JPEG quality {:g}"),
    Corruption("rotation", "degrees", (10, 20, 40), _turned, "turned by {:g}°"),
    Corruption("small", "pixels of the shorter side", (96, 64, 32), _small, "{:g} px"),
)


def measure(
    run: Run, model: Path, console: Console, *, count: int = PHOTOS
) -> dict[str, Any]:
    """Accuracy of a file of `run` on corrupted test photos, for JSON.

    Each entry: accuracy, its 95 % interval, and how many were called unknown. The
    first, ``clean``, is of the same photos as they are. EdgegraftError before any
    work when one of them is missing or no longer the run's.
    """
    with without_chatter():
        classifier = Classifier(model)
    if tuple(classifier.labels) != run.labels:
        raise EdgegraftError(
            f"expected a file with the labels {listed(run.labels)}, got "
            f"{model} with {listed(classifier.labels)}"
        )
    rows_chosen = _choose(run, count)
    run.check_photos(rows_chosen)
    numbers = {label: number for number, label in enumerate(run.labels)}
    chosen = [(row.photo.path, numbers[row.photo.label]) for row in rows_chosen]
    rows: list[dict[str, Any]] = []
    cases = [(c, a) for c in CORRUPTIONS for a in c.amounts]
    found: list[list[Any]] = [[] for _ in range(len(cases) + 1)]
    unknown = [0] * len(found)
    with console.bar("corrupting photos") as bar:
        for number, (path, _) in enumerate(chosen):
            photo = open_photo(path)
            for place in range(len(found)):
                source: Source = path
                if place:
                    corruption, amount = cases[place - 1]
                    corrupted = np.asarray(corruption.apply(photo, amount, number))
                    source = Image.fromarray(corrupted)  # upright: without its EXIF
                out = classifier.run(load_pixels(source, classifier.recipe)[None])
                familiar = out.get("familiarity", [None])[0]
                answer = classifier.prediction(out["probabilities"][0], familiar)
                unknown[place] += not answer.known
                found[place].append(out["probabilities"][0])
            bar(number + 1, len(chosen))
    truth = [number for _, number in chosen]
    for place, table in enumerate(found):
        result = score(np.stack(table), truth, run.labels)
        row: dict[str, Any] = {"corruption": "clean", "amount": None, "unit": None}
        if place:
            corruption, amount = cases[place - 1]
            row = {
                "corruption": corruption.name,
                "amount": amount,
                "unit": corruption.unit,
            }
        rows.append({**row, **_figures(result, unknown[place])})
    return {
        "model": model.name,
        "runtime": str(classifier.runtime),
        "photos": len(chosen),
        "of": "the test part",
        "results": rows,
    }


def _figures(result: Evaluation, unknown: int) -> dict[str, Any]:
    return {
        "accuracy": result.accuracy,
        "interval": list(result.interval),
        "called_unknown": unknown / result.photos,
    }


def _choose(run: Run, count: int) -> list[Row]:
    """Rows of the test part, label by label in turn."""
    test = [row for row in run.split().rows if row.part == "test"]
    queues = [[row for row in test if row.photo.label == label] for label in run.labels]
    turns = [
        queue[place]
        for place in range(max(map(len, queues)))
        for queue in queues
        if place < len(queue)
    ]
    return turns[:count]


def lines(found: dict[str, Any]) -> list[str]:
    """A table for people: a row a corruption, its strengths from mild to severe."""
    clean, *rest = found["results"]
    table = [
        f"{found['model']} on {found['photos']} test photos: "
        f"{clean['accuracy']:.1%} as they are"
    ]
    for corruption in CORRUPTIONS:
        rows = [row for row in rest if row["corruption"] == corruption.name]
        cells = "  ".join(f"{r['amount']:>4g}: {r['accuracy']:6.1%}" for r in rows)
        table.append(f"  {corruption.name:9} {cells}  ({corruption.unit})")
    return table


def draw(path: Path, found: dict[str, Any], photos: Sequence[Path]) -> None:
    """robustness.png: accuracy over strength, with what the strengths look like.

    photos: one to corrupt is enough; the first is shown at the severest strengths.
    """
    clean, *rest = found["results"]
    figure = new_figure(11, 6.4)
    grid = figure.subplots(
        3, len(CORRUPTIONS), gridspec_kw={"height_ratios": (0.85, 0.85, 1.2)}
    )
    photo = open_photo(photos[0])
    for column, corruption in enumerate(CORRUPTIONS):
        mild, severe, axes = grid[:, column]
        for axis, amount in (
            (mild, corruption.amounts[0]),
            (severe, corruption.amounts[-1]),
        ):
            axis.imshow(_square(corruption.apply(photo, amount, 1)))
            axis.set_title(corruption.mark.format(amount), fontsize=8, color=MUTED)
            axis.axis("off")
        rows = [row for row in rest if row["corruption"] == corruption.name]
        y = [row["accuracy"] for row in [clean, *rows]]
        spread = [
            [row["accuracy"] - row["interval"][0] for row in [clean, *rows]],
            [row["interval"][1] - row["accuracy"] for row in [clean, *rows]],
        ]
        plain(axes, corruption.name)
        places = range(len(y))
        whole: dict[str, Any] = {"marker": "o", "markersize": 4, "clip_on": False}
        axes.errorbar(places, y, yerr=np.abs(spread), color=VAL, **whole)
        marks = ["clean", *(f"{amount:g}" for amount in corruption.amounts)]
        axes.set_xticks(places, marks, fontsize=7)
        axes.set_xlabel(corruption.unit, fontsize=7, color=MUTED)
        lowest = min(row["interval"][0] for row in found["results"])
        axes.set_ylim(max(0.0, lowest - 0.03), 1.005)
        percent(axes)
        if column:
            axes.set_yticklabels([])
    figure.suptitle(
        f"{found['model']}: accuracy on {found['photos']} corrupted test photos, with "
        "95 % intervals",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    save(figure, path)


def _square(photo: Image.Image) -> Image.Image:
    """The photo as the network's input would have it, large enough to look at."""
    return photo.resize((224, 224), Image.Resampling.BILINEAR)
