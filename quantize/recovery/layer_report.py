"""The quantization error of each layer: layers.json and layers.png.

Every int8 layer is listed with its signal to quantization noise ratio (noise). For the
worst few, two files are built and scored on the validation photos: with this layer
alone int8, and with it alone float. Noise does not always cost accuracy, since later
layers may ignore it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.evaluate import Evaluation
from edge.files import write_atomic
from edge.text import percent
from finetune.console import Console
from finetune.figures.style import INK, MARK, MUTED, new_figure, plain, save
from quantize.conversion.builder import Builder, Candidate
from quantize.recovery import noise

WORST = 5  # layers whose cost in accuracy is measured, with two files each
RECORD, PICTURE = "layers.json", "layers.png"


@dataclass(frozen=True)
class Cost:
    """Validation accuracy when a layer alone is int8, and when it alone is float."""

    alone_int8: float
    kept_float: float


@dataclass(frozen=True)
class LayerReport:
    """The layers of a candidate. `costs`: by the number of the layer."""

    rung: str
    layers: tuple[noise.LayerNoise, ...]
    costs: dict[int, Cost]
    float32: float
    int8: float
    noise_photos: int
    photos: int

    def worst(self) -> tuple[noise.LayerNoise, ...]:
        """The layers that change the probabilities most, worst first."""
        return noise.worst(self.layers, WORST)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Accuracies are fractions of the validation photos, on the file."""
        return {
            "what": "sqnr_db: signal to quantization noise ratio of the layer's own "
            "noise; answer_shift: mean total variation distance of the probabilities "
            "when it alone is int8 (0..1); cost, of the worst layers: validation "
            "accuracy when it alone is int8, and when it alone stays float",
            "rung": self.rung,
            "noise_photos": self.noise_photos,
            "validation_photos": self.photos,
            "float32_accuracy": self.float32,
            "int8_accuracy": self.int8,
            "layers": [self._row(layer) for layer in self.layers],
        }

    def _row(self, layer: noise.LayerNoise) -> dict[str, Any]:
        cost = self.costs.get(layer.number)
        return {
            "number": layer.number,
            "operator": layer.operator,
            "name": layer.name,
            "tensor": layer.tensor,
            "shape": list(layer.shape),
            "range": [layer.low, layer.high],
            "sqnr_db": round(layer.sqnr_db, 2),
            "answer_shift": layer.answer_shift,
            "cost": cost
            and {"alone_int8": cost.alone_int8, "kept_float": cost.kept_float},
        }

    def write(self, folder: Path) -> None:
        """layers.json and layers.png into a run's folder."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_atomic(folder / RECORD, text)
        draw(folder / PICTURE, self)


def report(
    builder: Builder,
    candidate: Candidate,
    float32: Evaluation,
    int8: Evaluation,
) -> LayerReport:
    """Measure the layers of a candidate, whose own figures are `int8`."""
    assert builder.photos is not None
    console = builder.console
    layers = noise.measure(candidate.calibrated, builder.photos)
    layer_report = LayerReport(
        candidate.rung,
        layers,
        {},
        float32.accuracy,
        int8.accuracy,
        min(noise.PHOTOS, len(builder.photos)),
        int8.photos,
    )
    names = [layer.tensor for layer in layers]
    with console.bar("layers", unit="file") as bar:
        for done, layer in enumerate(layer_report.worst()):
            others = tuple(name for name in names if name != layer.tensor)
            alone = replace(candidate, kept_float=others)
            kept = (*candidate.kept_float, layer.tensor)
            layer_report.costs[layer.number] = Cost(
                builder.evaluate(alone).accuracy,
                builder.evaluate(replace(candidate, kept_float=kept)).accuracy,
            )
            bar(2 * done + 2, 2 * min(WORST, len(layers)))
    return layer_report


def print_worst(console: Console, layers: LayerReport) -> None:
    """The worst layers, a line each."""
    console.say(
        f"  worst layers (accuracy on {layers.photos:,} validation photos: float32 "
        f"{layers.float32:.1%}, int8 {layers.int8:.1%}); shift: change of the "
        "probabilities when this layer alone is int8, in points; SQNR: signal to "
        "quantization noise ratio (higher is better); the last two: validation "
        "accuracy with this layer alone int8, alone float"
    )
    console.say("    shift  SQNR dB  only int8  only float  layer")
    for layer in layers.worst():
        cost = layers.costs.get(layer.number)
        alone = percent(cost.alone_int8 if cost else None)
        kept = percent(cost.kept_float if cost else None)
        console.say(
            f"    {100 * (layer.answer_shift or 0):5.2f}  {layer.sqnr_db:7.1f}  "
            f"{alone:>9}  {kept:>10}  {layer.operator} {layer.name}"
        )


def draw(path: Path, layers: LayerReport) -> None:
    """layers.png: the ratio of every layer, and the accuracy with one of the worst
    changed."""
    figure = new_figure(9, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    worst = layers.worst()
    _draw_ratios(left, layers.layers, {layer.number for layer in worst})
    _draw_costs(right, layers, worst)
    plain(left, "Signal to quantization noise of each int8 layer")
    plain(right, "Accuracy with one layer changed", "x")
    save(figure, path)


def _draw_ratios(
    axes: Any, layers: Sequence[noise.LayerNoise], marked: set[int]
) -> None:
    shown = [layer for layer in layers if layer.sqnr_db < noise.SILENT_DB]
    numbers = [layer.number for layer in shown]
    ratios = [layer.sqnr_db for layer in shown]
    colours = [MARK if number in marked else MUTED for number in numbers]
    axes.vlines(numbers, 0, ratios, color=colours, linewidth=1.2, alpha=0.5)
    axes.scatter(numbers, ratios, color=colours, s=16, zorder=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(
        "layer, from input to output\norange: the worst",
        fontsize=8,
        color=MUTED,
    )
    axes.set_ylabel("dB (higher is better)", fontsize=8, color=MUTED)


def _draw_costs(
    axes: Any, layers: LayerReport, worst: Sequence[noise.LayerNoise]
) -> None:
    shown = [layer for layer in worst if layer.number in layers.costs]
    rows = range(len(shown))
    alone = [100 * layers.costs[layer.number].alone_int8 for layer in shown]
    kept = [100 * layers.costs[layer.number].kept_float for layer in shown]
    axes.axvline(100 * layers.float32, color=INK, linewidth=1, label="all float")
    axes.axvline(
        100 * layers.int8, color=MARK, linewidth=1, linestyle="--", label="all int8"
    )
    axes.scatter(alone, rows, color=MARK, s=26, label="this layer alone int8", zorder=3)
    axes.scatter(
        kept,
        rows,
        facecolors="white",
        edgecolors=INK,
        s=40,
        label="this layer alone float",
        zorder=2,
    )
    names = [f"{it.number}  {'/'.join(it.name.split('/')[-2:])}" for it in shown]
    axes.set_yticks(list(rows), names)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlabel(
        f"accuracy on {layers.photos:,} validation photos, %", fontsize=8, color=MUTED
    )
    axes.legend(
        fontsize=7,
        frameon=False,
        labelcolor=INK,
        ncols=2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
    )
