"""Evaluation: metrics.json of the trained network, and the pictures of an evaluation.

metrics.json is of the network before export; the figures of the exported files, which
run on the device, are in comparison.json. Training evaluates the test part here and
nowhere else. The pictures (confusion.png, calibration.png, mistakes.png, uncertain.png)
show an evaluation of the trained network or of an exported file.

calibration.png is the reliability diagram (Niculescu-Mizil and Caruana 2005): photos
are binned by the probability of the best label; a bar is the accuracy of a bin. On the
diagonal the network is calibrated. The expected calibration error is the mean distance
from it (`edge.evaluate.calibration_error`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from backbones import network
from edge.evaluate import Evaluation, calibration_error, wilson
from edge.text import plural
from finetune import familiarity
from finetune.familiarity import Familiarity
from finetune.figures import (
    GRID,
    INK,
    MUTED,
    NAME,
    TRAIN,
    VAL,
    draw_sheet,
    new_figure,
    plain,
    save,
    shortened,
)
from finetune.head import probe
from finetune.head.cross_fit import CrossValidated
from finetune.loop.examples import Floats, Ints
from finetune.model import compute_outputs
from finetune.run import Run
from finetune.trained import TrainedNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED_FIGURES = ("accuracy", "calibration_error")
BINS = 10  # of confidence, of equal width, from 0 to 1
FEW = 60  # photos; fewer get half as many bins
LISTED = 24  # mistakes, and uncertain predictions
MAX_LABELS = 30  # a confusion matrix with more is drawn without numbers


@dataclass(frozen=True)
class Evaluated:
    """Evaluations of validation and test part, and the probabilities of each before
    calibration, float32 [N, L]."""

    val: Evaluation
    test: Evaluation
    uncalibrated: dict[str, Floats]


def evaluate(trained: TrainedNetwork, temperature: float) -> Evaluated:
    """Evaluate the calibrated network on validation and test photos.

    temperature: the divisor of its logits.
    """
    scale = np.float32(temperature)
    return Evaluated(
        trained.evaluation("val"),
        trained.evaluation("test"),
        {p: probe.softmax(trained.logits(p) * scale) for p in ("val", "test")},
    )


def fit_familiarity(run: Run, trained: TrainedNetwork) -> Familiarity | None:
    """Fit the second output and write it into the run; None where it is off."""
    settings = run.settings
    if settings.familiarity == "none":
        return None
    negative_features = None
    if settings.negatives is not None:
        familiarity.write_negatives(run, settings.negatives)
        pixels = familiarity.load_negatives(
            settings.negatives, settings.recipe, trained.console
        )
        extractor = network.feature_model(trained.model)
        negative_features = compute_outputs(extractor, pixels, range(len(pixels)))
    fitted = familiarity.fit(
        trained.features("train"),
        trained.parts["train"].truth,
        trained.features("val"),
        negatives=negative_features,
        seed=settings.seed,
    )
    familiarity.save(run, fitted)
    return fitted


def metrics(
    run: Run,
    trained: TrainedNetwork,
    evaluated: Evaluated,
    fitted: Familiarity | None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    val, test = evaluated.val, evaluated.test
    photos = [photo.path for photo in run.part("test")]
    cross_validated = CrossValidated.from_record(run.config)
    calibration = run.config["calibration"]
    return {
        "measured_on": "the trained network in Keras, before export; the figures "
        "of the exported files are in comparison.json",
        "validation": val.to_dict(),
        "validation_answered_by": "networks that did not see the photo, out of fold"
        if run.cross_fitted
        else "the network, which did not learn from these photos",
        "cross_validated": None
        if cross_validated is None
        else cross_validated.to_dict(),
        "test": test.to_dict(),
        "calibration": {
            "temperature": float(np.float32(calibration["temperature"])),
            **{
                name: calibration_record(
                    evaluated.uncalibrated[part],
                    evaluation.probabilities,
                    evaluation.truth,
                )
                for name, part, evaluation in (
                    ("validation", "val", val),
                    ("test", "test", test),
                )
            },
        },
        "familiarity": _familiarity_record(run, trained, fitted),
        "learning_curve": run.config.get("learning_curve"),
        "mistakes": photo_records(mistakes(test), test, photos, run.photos_root),
        "uncertain": photo_records(least_certain(test), test, photos, run.photos_root),
    }


def _familiarity_record(
    run: Run, trained: TrainedNetwork, fitted: Familiarity | None
) -> dict[str, Any] | None:
    """How many of the known photos are not called unknown, with 95 % intervals."""
    if fitted is None:
        return None
    record: dict[str, Any] = {
        "prototypes": fitted.kernel.shape[1],
        "threshold": familiarity.LIMIT,
        "negatives": run.settings.negatives,
    }
    for name, part in (("validation", "val"), ("test", "test")):
        scores = fitted.scores(trained.features(part))
        passed = int((scores >= familiarity.LIMIT - 1e-6).sum())
        record[name] = {
            "photos": len(scores),
            "passed": passed,
            "share": passed / len(scores),
            "interval": wilson(passed, len(scores)),
        }
    return record


# -- calibration, mistakes -------------------------------------------------------------
@dataclass(frozen=True)
class Bin:
    """Photos whose best probability lies in low..high; `interval` of the accuracy."""

    low: float
    high: float
    photos: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def confidence_bins(probabilities: Floats, truth: Ints) -> tuple[Bin, ...]:
    """The bins that hold photos, of probabilities [N, L] and truth [N]."""
    count = BINS if len(truth) >= FEW else BINS // 2
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * count).astype(int), count - 1)
    return tuple(
        Bin(
            index / count,
            (index + 1) / count,
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(right[inside].mean()),
            wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for index in range(count)
        if (inside := bin_of == index).any()
    )


def calibration_record(before: Floats, after: Floats, truth: Ints) -> dict[str, Any]:
    """For JSON: the error before and after, and the bins of both."""
    return {
        "photos": len(truth),
        "error_before": calibration_error(before, truth),
        "error_after": calibration_error(after, truth),
        "bins_before": list(map(asdict, confidence_bins(before, truth))),
        "bins_after": list(map(asdict, confidence_bins(after, truth))),
    }


def mistakes(evaluation: Evaluation) -> Ints:
    """Rows with a wrong prediction, the most confident first."""
    wrong = np.flatnonzero(~evaluation.right)
    confidence = evaluation.probabilities.max(axis=1)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:LISTED]


def least_certain(evaluation: Evaluation) -> Ints:
    """Rows by the margin between the best two labels, the smallest first."""
    ordered = np.sort(evaluation.probabilities, axis=1)
    return np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:LISTED]


def photo_records(
    rows: Ints, evaluation: Evaluation, paths: Sequence[Path], root: Path
) -> list[dict[str, Any]]:
    """For JSON: path (below `root`), truth, answer and its probability."""
    predicted = evaluation.probabilities.argmax(axis=1)
    return [
        {
            "photo": paths[row].relative_to(root).as_posix(),
            "truth": evaluation.labels[evaluation.truth[row]],
            "answer": evaluation.labels[predicted[row]],
            "probability": float(evaluation.probabilities[row].max()),
        }
        for row in rows
    ]


# -- pictures --------------------------------------------------------------------------
def draw_evaluation(
    folder: Path,
    evaluation: Evaluation,
    photos: Sequence[Path],
    pixels: Callable[[int], npt.NDArray[np.uint8]],
    where: str,
    panels: Sequence[tuple[str, npt.NDArray[np.float32]]],
    note: str = "",
) -> None:
    """Write confusion.png, calibration.png, mistakes.png and uncertain.png.

    photos: the path of each evaluated photo; pixels: its index -> uint8 [H, W, 3].
    where: of which photos and which file, as in "test part, int8.tflite". panels: one
    or two of (title, probabilities [N, L]) for calibration.png; note: a line above.
    """
    draw_confusion(folder / "confusion.png", evaluation, where)
    part = where.partition(",")[0]  # the panels name the files
    note = f"{plural(len(evaluation.truth), 'photo')} of the {part}. {note}"
    draw_calibration(folder / "calibration.png", panels, evaluation.truth, note)
    for name, rows, heading in (
        ("mistakes", mistakes(evaluation), "Most confident mistakes"),
        ("uncertain", least_certain(evaluation), "Least certain predictions"),
    ):
        draw_photos(
            folder / f"{name}.png",
            rows,
            evaluation,
            photos,
            [pixels(int(row)) for row in rows],
            f"{heading}, {where}",
        )


def draw_confusion(path: Path, evaluation: Evaluation, where: str) -> None:
    """Rows are true labels, columns predictions, cells photos."""
    labels = evaluation.labels
    counts = np.asarray(evaluation.confusion)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(12.0, max(3.6, 1.6 + 0.55 * len(labels)))
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="GnBu", vmin=0, vmax=1)
    axes.set_title(
        f"{evaluation.accuracy:.1%} of {evaluation.photos} photos right\n{where}",
        loc="left",
        fontsize=10,
        color=INK,
        weight="bold",
    )
    axes.set_xlabel("prediction", fontsize=9, color=MUTED)
    axes.set_ylabel("true label", fontsize=9, color=MUTED)
    ticks = range(len(labels))
    short = [shortened(label, 18) for label in labels]
    size = min(8, 600 / len(labels))  # points: never taller than a row
    axes.set_yticks(ticks, short, fontsize=size)
    axes.set_xticks(ticks, short, fontsize=size)
    if max(map(len, short)) * len(labels) > 40:  # too long to stand side by side
        turned = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(ticks, short, fontsize=size, **turned)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if len(labels) <= MAX_LABELS:
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=11 if len(labels) <= 6 else 7,
                color="white" if fractions[row, column] > 0.6 else INK,
            )
    save(figure, path)


def draw_calibration(
    path: Path,
    panels: Sequence[tuple[str, Floats]],
    truth: Ints,
    note: str,
) -> None:
    """calibration.png: accuracy over confidence, and how many photos, in each panel.

    panels: (title, probabilities [N, L]), one or two. note: a line above them.
    """
    figure = new_figure(4.5 * len(panels), 5)
    grid = figure.subplots(
        2,
        len(panels),
        sharex=True,
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": (4, 1)},
    )
    colours = (TRAIN, VAL)[-len(panels) :]
    lowest = 1.0
    for (upper, lower), (title, probabilities), colour in zip(
        grid.T, panels, colours, strict=True
    ):
        error = calibration_error(probabilities, truth)
        points = (
            f"error {100 * error:.1f} points" if error else "no error beyond chance"
        )
        plain(upper, f"{title}: {points}")
        rows = confidence_bins(probabilities, truth)
        lowest = min(lowest, *(row.low for row in rows))
        _draw_bins(upper, rows, colour)
        _draw_counts(lower, rows)
    for axes in grid.ravel():  # with two labels, confidence starts at 1/2
        axes.set_xlim(lowest, 1)
    for upper in grid[0]:
        upper.set_ylim(0, 1.02)
    grid[0, 0].set_ylabel("accuracy", fontsize=8, color=MUTED)
    grid[1, 0].set_ylabel("photos", fontsize=8, color=MUTED)
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=8, color=MUTED)
    save(figure, path)


def _draw_bins(axes: Axes, rows: Sequence[Bin], colour: str) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="--")
    accuracy = [row.accuracy for row in rows]
    middles = [(row.low + row.high) / 2 for row in rows]
    widths = [0.9 * (row.high - row.low) for row in rows]
    axes.bar(middles, accuracy, widths, color=colour, alpha=0.4)
    errors = np.abs([np.subtract(row.interval, row.accuracy) for row in rows])
    axes.errorbar(
        [row.confidence for row in rows],
        accuracy,
        yerr=errors.T,
        color=colour,
        marker="o",
        markersize=5,
        linestyle="none",
        elinewidth=1,
        clip_on=False,
    )


def _draw_counts(axes: Axes, rows: Sequence[Bin]) -> None:
    plain(axes, "")
    axes.grid(visible=False)
    middles = [(row.low + row.high) / 2 for row in rows]
    widths = [0.9 * (row.high - row.low) for row in rows]
    axes.bar(middles, [row.photos for row in rows], widths, color=GRID)
    axes.margins(y=0.45)  # room for the numbers over the bars
    for middle, row in zip(middles, rows, strict=True):
        axes.annotate(
            f"{row.photos}",
            (middle, row.photos),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.set_xlabel(
        "confidence: probability of the best label", fontsize=8, color=MUTED
    )


def draw_photos(
    path: Path,
    rows: Ints,
    evaluation: Evaluation,
    paths: Sequence[Path],
    pixels: Sequence[npt.NDArray[np.uint8]],
    heading: str,
) -> None:
    """A sheet of these rows' photos, uint8 [H, W, 3] each, as the network saw them."""
    captions = []
    for row in rows:
        predicted = int(evaluation.probabilities[row].argmax())
        confidence = evaluation.probabilities[row, predicted]
        label, truth = evaluation.labels[predicted], evaluation.truth[row]
        verdict = "right" if predicted == truth else f"is {evaluation.labels[truth]}"
        name = shortened(paths[row].name, NAME)
        captions.append(f"{label} {confidence:.0%}, {verdict}\n{name}")
    note = "as the network sees them; the paths are in metrics.json"
    if not len(rows):
        heading += ": none"
        note = f"all {len(evaluation.truth):,} photos are right"
    draw_sheet(path, pixels, captions, heading, note)


# -- several seeds --------------------------------------------------------------------
def summarize_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """The spread of the same training with several seeds.

    A seed sets the split (unless the photos come in parts), the order of the photos,
    augmentation and dropout. Each figure of the test part: run by run, mean, and
    Student's 95 % interval of the mean, clipped to 0..1. Written into metrics.json of
    the first run.
    """
    from scipy.stats import t

    records = [run.metrics for run in runs]
    summary: dict[str, Any] = {
        "runs": [run.name for run in runs],
        "seeds": [run.settings.seed for run in runs],
        "of": "the test part, Keras before export",
    }
    for name in SEED_FIGURES:
        values = np.array([record["test"][name] for record in records])
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        summary[name] = {
            "each": values.tolist(),
            "mean": mean,
            "deviation": deviation,
            "interval": [max(0.0, mean - half), min(1.0, mean + half)],
        }
    runs[0].write_json("metrics.json", {**records[0], "repeats": summary})
    return summary
