"""Repairs for an int8 file that loses too much, cheapest first, judged on the file.

    plain       one range for each tensor, as observed
    equalized   channels scaled to similar ranges where that is free (equalize)
    clipped     ranges of least rounding error instead of min-max (activations)
    corrected   biases take back the mean error of each channel (bias_correction)
    kept-float  the worst layers stay float, found by TensorFlow's QuantizationDebugger
    qat         quantization-aware training with the float network as teacher

A rung is one file, converted, verified and scored on the validation photos like any
other. The first that loses no more than is allowed is taken. A rung builds on those
before it that moved the probabilities nearer to float32's; with `kept-float` the biases
are corrected, too (after `qat` that was measured to do harm). `kept-float` costs
time on the device and is skipped for targets that take integers only. Up to eight
files are tried on the same photos, so the one that just passes is a little luckier
than its figure says; the comparison on test photos is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import EdgegraftError
from quantize.conversion import calibration, scoring
from quantize.conversion.builder import PLAIN, Builder, BuiltModel, Candidate
from quantize.conversion.convert import calibrate
from quantize.recipes import Variant
from quantize.recovery import activations, bias_correction, equalize, noise, qat
from quantize.recovery.graph import Graph
from quantize.tflite import targets
from quantize.tflite.io_tensors import PROBABILITIES

EQUALIZED, CLIPPED, CORRECTED = "equalized", "clipped", "corrected"
KEPT, QAT = "kept-float", "qat"
_RANGES = (EQUALIZED, CLIPPED)  # the rungs that later ones build on
KEPT_LAYERS = (1, 2, 4, 8)  # how many of the worst layers stay float, tried in turn
OBSERVED = 32  # photos for channels and clipping: their figures settle by then
QAT_PHOTOS = 1000  # training photos that quantization-aware training draws from
INTEGERS_ONLY = (targets.EDGE_TPU, targets.MICROCONTROLLER)


@dataclass(frozen=True)
class Rung:
    """One file that was tried, or why it was not (then `accuracy` is None).

    `drop`: accuracy lost against float32 on validation. `seconds`: to build and score
    it.
    """

    name: str
    accuracy: float | None = None
    drop: float | None = None
    passed: bool = False
    seconds: float = 0.0
    kept_float: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rung": self.name,
            "accuracy": self.accuracy,
            "drop": self.drop,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "kept_float": list(self.kept_float),
            "note": self.note,
        }


@dataclass(frozen=True)
class Climb:
    """All rungs in order, the candidate that was taken, and its file."""

    rungs: tuple[Rung, ...]
    candidate: Candidate
    built: BuiltModel


class _Ladder:
    """One climb: what was tried and the best so far."""

    def __init__(
        self, builder: Builder, plain: BuiltModel, reference: BuiltModel
    ) -> None:
        assert builder.photos is not None
        self.builder, self.photos = builder, builder.photos
        self.float32 = reference.validation
        plainly = Candidate(PLAIN, builder.conversion.calibrated)
        self.best = plainly, plain  # by accuracy
        self._nearest = self.distance(plain)
        self.calibrated = plainly.calibrated  # what the next rung builds on

    def distance(self, built: BuiltModel) -> float:
        """Mean total variation distance of a file's probabilities from float32's, times
        two. Finer than accuracy, where one photo is a step."""
        expected = self.float32.probabilities
        return float(
            np.abs(built.validation.probabilities - expected).sum(axis=1).mean()
        )

    def note(self, candidate: Candidate, built: BuiltModel) -> None:
        """Remember a candidate when it is better than those before."""
        if built.validation.accuracy > self.best[1].validation.accuracy:
            self.best = candidate, built
        if candidate.rung in _RANGES and self.distance(built) < self._nearest:
            self._nearest = self.distance(built)
            self.calibrated = candidate.calibrated


def climb(
    builder: Builder,
    variant: Variant,
    plain: BuiltModel,
    reference: BuiltModel,
    allowed: float,
    *,
    target: str = targets.GENERIC,
    rungs: Sequence[str] | None = None,
) -> Climb:
    """The first rung whose file loses at most `allowed` against `reference`.

    `plain` is the file that lost more. When none passes, the most accurate is taken.
    `rungs` leaves some out (for tests and measurements).
    """
    ladder = _Ladder(builder, plain, reference)
    console = builder.console
    tried = [_judged(PLAIN, plain, ladder.float32.accuracy, allowed, 0.0, ())]
    console.say(
        f"  {variant.name} loses {_points(tried[0].drop or 0)} on validation, at most "
        f"{_points(allowed)} allowed (--max-drop): trying repairs"
    )
    for name in _RUNGS if rungs is None else rungs:
        started = time.perf_counter()
        try:
            if name == KEPT and target in INTEGERS_ONLY:
                raise EdgegraftError(f"{target} takes integer files only")
            for candidate in _RUNGS[name](ladder):
                built = builder.build(variant, candidate)
                seconds = time.perf_counter() - started
                rung = _judged(
                    name,
                    built,
                    ladder.float32.accuracy,
                    allowed,
                    seconds,
                    candidate.kept_float,
                )
                tried.append(rung)
                _report(builder, rung)
                if rung.passed:
                    return Climb(tuple(tried), candidate, built)
                ladder.note(candidate, built)
                started = time.perf_counter()
        except EdgegraftError as reason:
            tried.append(Rung(name, note=str(reason)))
            console.say(f"  {name}: skipped: {reason}")
    return Climb(tuple(tried), *ladder.best)


def _judged(
    name: str,
    built: BuiltModel,
    float32: float,
    allowed: float,
    seconds: float,
    kept_float: tuple[str, ...],
) -> Rung:
    drop = float32 - built.validation.accuracy
    return Rung(
        name,
        built.validation.accuracy,
        drop,
        drop <= allowed,
        seconds,
        kept_float,
    )


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f} points"


def _report(builder: Builder, rung: Rung) -> None:
    kept = f" with {len(rung.kept_float)} layers float" if rung.kept_float else ""
    verdict = "passed" if rung.passed else "not enough"
    builder.console.say(
        f"  {rung.name}{kept}: {rung.accuracy:.1%}, loses {_points(rung.drop or 0)}: "
        f"{verdict}"
    )


# -- the rungs -----------------------------------------------------------------------


def _equalized(ladder: _Ladder) -> Iterator[Candidate]:
    graph = Graph(ladder.builder.conversion.base)
    if not equalize.equalize(graph, ladder.photos[:OBSERVED]):
        raise EdgegraftError("no two layers with a plain or ReLU tensor between them")
    with ladder.builder.console.bar("calibrating") as bar:
        calibrated = calibrate(graph.model(), ladder.photos, progress=bar)
    yield Candidate(EQUALIZED, calibrated)


def _clipped(ladder: _Ladder) -> Iterator[Candidate]:
    graph = Graph(ladder.calibrated)
    if not activations.clip(graph, ladder.photos[:OBSERVED]):
        raise EdgegraftError("every range is best as it was observed")
    yield Candidate(CLIPPED, graph.model())


def _corrected(ladder: _Ladder) -> Iterator[Candidate]:
    yield Candidate(CORRECTED, _corrected_graph(ladder))


def _kept_float(ladder: _Ladder) -> Iterator[Candidate]:
    layers = noise.measure(ladder.calibrated, ladder.photos)
    for count in KEPT_LAYERS:
        if count < len(layers):
            kept = tuple(layer.tensor for layer in noise.worst(layers, count))
            yield Candidate(KEPT, _corrected_graph(ladder, kept), kept)


def _qat(ladder: _Ladder) -> Iterator[Candidate]:
    builder = ladder.builder
    graph = Graph(ladder.calibrated)
    run = builder.run
    rows = calibration.choose(run.split(), QAT_PHOTOS, seed=run.settings.seed)
    with (
        closing(scoring.decode(run, rows, builder.console)) as pixels,
        builder.console.bar("training", unit="step") as bar,
    ):
        qat.train(
            graph,
            pixels.array,
            np.arange(len(rows)),
            PROBABILITIES,
            seed=run.settings.seed,
            progress=bar,
        )
    yield Candidate(QAT, graph.model())


def _corrected_graph(ladder: _Ladder, kept_float: tuple[str, ...] = ()) -> bytes:
    graph = Graph(ladder.calibrated)
    bias_correction.correct(graph, ladder.photos[:OBSERVED], kept_float=kept_float)
    return graph.model()


_RUNGS: dict[str, Callable[[_Ladder], Iterator[Candidate]]] = {
    EQUALIZED: _equalized,
    CLIPPED: _clipped,
    CORRECTED: _corrected,
    KEPT: _kept_float,
    QAT: _qat,
}
