"""`edgegraft robustness RUN`: accuracy of an exported file on corrupted test photos.

Writes robustness.json and robustness.png into the run, and `robustness` into its
metrics.json.

Each test photo is corrupted at full size, before it is resized, and goes through the
runner that ships. Kinds and severities: Hendrycks and Dietterich 2019, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", arXiv:1903.12261;
sizes here are relative to the photo's shorter side. Combinations of corruptions are not
measured.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from backbones.keras import require_packages
from data.split import Row, interleaved
from edge.classifier import Classifier
from edge.command import run_command
from edge.errors import EdgegraftError
from edge.evaluate import score
from edge.preprocess import Source, load_pixels, open_photo
from edge.terminal import without_chatter
from edge.text import listed
from finetune.console import Console
from finetune.figures import INK, MUTED, VAL, new_figure, percent, plain, save
from finetune.run import Run

ROBUSTNESS = (
    "Measure a run's file on corrupted test photos: blur, noise, darkness, JPEG, "
    "rotation and small size, each at three strengths, through the runner that "
    "ships. Writes robustness.json and robustness.png into the run."
)
PHOTOS = 200  # of the test part, balanced over the labels where possible
Corrupt = Callable[[Image.Image, float, int], Image.Image]


def _blur(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(amount / 100 * min(photo.size)))


def _noise(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    values = np.asarray(photo, np.float32)
    values = values + random.normal(0, amount, values.shape).astype(np.float32)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _dark(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    return ImageEnhance.Brightness(photo).enhance(amount / 100)


def _jpeg(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG", quality=int(amount))
    return Image.open(encoded).convert("RGB")


def _rotate(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    degrees = amount if seed % 2 else -amount
    mean_colour = tuple(int(value) for value in np.asarray(photo).mean(axis=(0, 1)))
    return photo.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=mean_colour)


def _shrink(photo: Image.Image, amount: float, seed: int) -> Image.Image:
    scale = min(1.0, amount / min(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.BOX)


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption; `amounts` in `unit`, from mild to severe.

    caption: a format string for the amount.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    apply: Corrupt
    caption: str


CORRUPTIONS = (
    Corruption("blur", "% of the shorter side", (0.5, 1, 2), _blur, "blur {:g} %"),
    Corruption(
        "noise", "of 255, standard deviation", (10, 25, 50), _noise, "noise {:g}"
    ),
    Corruption("dark", "% of the brightness left", (60, 35, 15), _dark, "light {:g} %"),
    Corruption("jpeg", "JPEG quality", (30, 15, 7), _jpeg, "JPEG quality {:g}"),
    Corruption("rotation", "degrees", (10, 20, 40), _rotate, "turned by {:g}°"),
    Corruption("small", "pixels of the shorter side", (96, 64, 32), _shrink, "{:g} px"),
)


def measure(
    run: Run, model: Path, console: Console, *, count: int = PHOTOS
) -> dict[str, Any]:
    """Accuracy of a file of `run` on corrupted test photos, for JSON.

    Each entry: accuracy, its 95 % interval, and the fraction called unknown. The first,
    ``clean``, is of the uncorrupted photos. EdgegraftError before any work when a photo
    is missing or has changed.
    """
    with without_chatter():
        classifier = Classifier(model)
    if tuple(classifier.labels) != run.labels:
        raise EdgegraftError(
            f"expected a file with the labels {listed(run.labels)}, got "
            f"{model} with {listed(classifier.labels)}"
        )
    rows = _choose(run, count)
    run.check_photos(rows)
    cases: list[tuple[Corruption | None, float | None]] = [(None, None)]
    cases += [(c, amount) for c in CORRUPTIONS for amount in c.amounts]
    probabilities: list[list[Any]] = [[] for _ in cases]
    unknown = [0] * len(cases)
    with console.bar("corrupting photos") as bar:
        for seed, row in enumerate(rows):
            photo = open_photo(row.photo.path)
            for case, (corruption, amount) in enumerate(cases):
                source: Source = row.photo.path
                if corruption is not None and amount is not None:
                    corrupted = np.asarray(corruption.apply(photo, amount, seed))
                    source = Image.fromarray(corrupted)  # upright: without its EXIF
                outputs = classifier.run(load_pixels(source, classifier.recipe)[None])
                scores = outputs["probabilities"][0]
                familiarity = outputs.get("familiarity", [None])[0]
                unknown[case] += not classifier.prediction(scores, familiarity).known
                probabilities[case].append(scores)
            bar(seed + 1, len(rows))
    truth = [run.labels.index(row.photo.label) for row in rows]
    results = []
    for case, (corruption, amount) in enumerate(cases):
        result = score(np.stack(probabilities[case]), truth, run.labels)
        results.append(
            {
                "corruption": corruption.name if corruption else "clean",
                "amount": amount,
                "unit": corruption.unit if corruption else None,
                "accuracy": result.accuracy,
                "interval": list(result.interval),
                "called_unknown": unknown[case] / result.photos,
            }
        )
    return {
        "model": model.name,
        "runtime": str(classifier.runtime),
        "photos": len(rows),
        "of": "the test part",
        "results": results,
    }


def _choose(run: Run, count: int) -> list[Row]:
    """`count` rows of the test part, label by label in turn."""
    test = [row for row in run.split().rows if row.part == "test"]
    queues = [[row for row in test if row.photo.label == label] for label in run.labels]
    return interleaved(queues, count)


def lines(record: dict[str, Any]) -> list[str]:
    """A table: a row for each corruption, its amounts from mild to severe."""
    clean, *corrupted = record["results"]
    table = [
        f"{record['model']} on {record['photos']} test photos: "
        f"{clean['accuracy']:.1%} as they are"
    ]
    for corruption in CORRUPTIONS:
        rows = [row for row in corrupted if row["corruption"] == corruption.name]
        cells = "  ".join(f"{r['amount']:>4g}: {r['accuracy']:6.1%}" for r in rows)
        table.append(f"  {corruption.name:9} {cells}  ({corruption.unit})")
    return table


def draw(path: Path, record: dict[str, Any], example: Path) -> None:
    """robustness.png: accuracy over amount, with an example photo at both ends."""
    clean, *corrupted = record["results"]
    lowest = min(row["interval"][0] for row in record["results"])
    figure = new_figure(11, 6.4)
    grid = figure.subplots(
        3, len(CORRUPTIONS), gridspec_kw={"height_ratios": (0.85, 0.85, 1.2)}
    )
    photo = open_photo(example)
    for column, corruption in enumerate(CORRUPTIONS):
        mild, severe, axes = grid[:, column]
        for axis, amount in (
            (mild, corruption.amounts[0]),
            (severe, corruption.amounts[-1]),
        ):
            shown = corruption.apply(photo, amount, 1)
            axis.imshow(shown.resize((224, 224), Image.Resampling.BILINEAR))
            axis.set_title(corruption.caption.format(amount), fontsize=8, color=MUTED)
            axis.axis("off")
        rows = [row for row in corrupted if row["corruption"] == corruption.name]
        rows.insert(0, clean)
        y = [row["accuracy"] for row in rows]
        errors = np.abs([np.subtract(row["interval"], row["accuracy"]) for row in rows])
        plain(axes, corruption.name)
        x = range(len(y))
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "clip_on": False}
        axes.errorbar(x, y, yerr=errors.T, color=VAL, **style)
        ticks = ["clean", *(f"{amount:g}" for amount in corruption.amounts)]
        axes.set_xticks(x, ticks, fontsize=7)
        axes.set_xlabel(corruption.unit, fontsize=7, color=MUTED)
        axes.set_ylim(max(0.0, lowest - 0.03), 1.005)
        percent(axes)
        if column:
            axes.set_yticklabels([])
    figure.suptitle(
        f"{record['model']}: accuracy on {record['photos']} corrupted test photos, "
        "with 95 % intervals",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    save(figure, path)


# -- the command -----------------------------------------------------------------------
def add_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run folder with exported files")
    add("--variant", default="int8", metavar="NAME", help="which file (default: int8)")
    add(
        "--photos",
        type=int,
        default=PHOTOS,
        metavar="N",
        help=f"test photos to corrupt (default: {PHOTOS})",
    )
    add("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    if args.photos < 1:
        raise EdgegraftError(f"expected --photos to be 1 or more, got {args.photos}")
    require_packages("robustness")
    opened = Run.open(args.run)
    if not opened.trained:
        raise opened.unfinished()
    model = opened.exports / f"{args.variant}.tflite"
    if not model.is_file():
        files = ", ".join(sorted(path.stem for path in opened.exports.glob("*.tflite")))
        raise EdgegraftError(
            f"expected --variant to be one of the files in {opened.exports} "
            f"({files or 'none yet'}), got {args.variant!r}; make others with: "
            f"edgegraft quantize {opened.folder} --variants NAME,... (its -h lists "
            "the names)"
        )
    console = Console(json=args.json)
    record = measure(opened, model, console, count=args.photos)
    opened.write_json("robustness.json", record)
    if metrics := opened.metrics:
        opened.write_json("metrics.json", {**metrics, "robustness": record})
    picture = opened.folder / "robustness.png"
    draw(picture, record, opened.part("test")[0].path)
    if args.json:
        json.dump({"run": str(opened.folder), **record}, sys.stdout)
        print()
        return 0
    for line in lines(record):
        console.say(line)
    console.say(f"picture: {picture}")
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft robustness") -> int:
    """`edgegraft robustness`; returns the exit code."""
    return run_command(add_parser, run, argv, prog, ROBUSTNESS)
