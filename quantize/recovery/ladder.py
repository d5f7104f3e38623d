"""Repairs for an int8 file that misses the gate, cheapest first.

    plain       observed min-max ranges
    corrected   ranges, weights and biases that make up for rounding
    equalized   channels scaled to similar ranges where possible, then corrected
    kept-float  the worst layers stay float, found by TensorFlow's QuantizationDebugger

A rung is a file, converted, verified and scored like any other. `corrected` is always
tried, as it takes seconds and helps nearly always. `equalized` (which calibrates again)
follows while the best file misses the target and loses accuracy beyond chance, or is
rejected; `kept-float` (slower on the device) only while it is rejected, and never for
targets that take integers only. The first that reaches the target is taken, else the
one closest to float32 that is not rejected. As several files are scored on the same
photos, the figure of one that just passes is slightly biased; the comparison on test
photos is not.

Quantization-aware training is no rung: after `corrected` it brought no network nearer,
in minutes (docs/benchmarks.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.classifier import PROBABILITIES
from edge.errors import EdgegraftError
from edge.text import listed
from quantize.conversion.builder import PLAIN, Builder, BuiltModel, Candidate
from quantize.conversion.convert import calibrate
from quantize.gate import Fidelity, Gate, fidelity
from quantize.recipes import Variant
from quantize.recovery import repairs
from quantize.recovery.graph import Graph
from quantize.recovery.layer_noise import measure_noise, worst_layers
from quantize.tflite import targets

CORRECTED, EQUALIZED, KEPT = "corrected", "equalized", "kept-float"
KEPT_LAYERS = (1, 2, 4, 8)  # numbers of layers to keep float, tried in turn
OBSERVED = 64  # photos for the statistics of ranges and layers
INTEGERS_ONLY = (targets.EDGE_TPU, targets.MICROCONTROLLER)


@dataclass(frozen=True)
class Rung:
    """A file that was tried, or the reason why not (then `fidelity` is None).

    `seconds`: to repair, build and score it.
    """

    name: str
    fidelity: Fidelity | None = None
    reached: bool = False
    seconds: float = 0.0
    kept_float: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rung": self.name,
            **(self.fidelity.to_dict() if self.fidelity else {}),
            "reached": self.reached,
            "seconds": round(self.seconds, 1),
            "kept_float": list(self.kept_float),
            "note": self.note,
        }


@dataclass(frozen=True)
class Climb:
    """All rungs in order, the chosen candidate, and its file."""

    rungs: tuple[Rung, ...]
    candidate: Candidate
    built: BuiltModel


def fidelity_to(reference: BuiltModel, file: BuiltModel) -> Fidelity:
    """Compare a file with the float32 file."""
    validation = file.validation
    return fidelity(
        reference.probabilities,
        file.probabilities,
        file.truth,
        validation.photos,
        validation.labels,
    )


class _Ladder:
    """The state of a climb: the best candidate so far."""

    def __init__(
        self, builder: Builder, plain: BuiltModel, reference: BuiltModel, gate: Gate
    ) -> None:
        assert builder.photos is not None
        self.builder, self.photos, self.gate = builder, builder.photos, gate
        self.reference = reference
        candidate = Candidate(PLAIN, builder.conversion.calibrated)
        self.calibrated = candidate.calibrated  # the graph for the next rung
        self.best = candidate, plain
        self._fidelity = fidelity_to(reference, plain)  # of the best

    def _rank(self, result: Fidelity) -> tuple[bool, float]:
        """Files that pass the gate first, then the closest to float32."""
        return bool(self.gate.why_rejected(result)), result.shift

    def needs(self, name: str) -> bool:
        """Whether the best file so far is bad enough for this repair."""
        if name == CORRECTED or self.gate.why_rejected(self._fidelity):
            return True
        return name == EQUALIZED and self._fidelity.drop_low > 0

    def rung(self, candidate: Candidate, built: BuiltModel, seconds: float) -> Rung:
        """Compare a file with float32, and keep it if it is the best."""
        result = fidelity_to(self.reference, built)
        if self._rank(result) < self._rank(self._fidelity):
            self._fidelity, self.best = result, (candidate, built)
        reached = self.gate.reached(result)
        return Rung(candidate.rung, result, reached, seconds, candidate.kept_float)


def climb(
    builder: Builder,
    variant: Variant,
    plain: BuiltModel,
    reference: BuiltModel,
    gate: Gate,
    *,
    target: str = targets.GENERIC,
    rungs: Sequence[str] | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> Climb:
    """The first rung whose file reaches the target of `gate`, else the closest to
    float32.

    Where the `plain` file reaches it, only the cheapest repair is tried, and taken if
    it is closer. `rungs`: try only these (for tests and measurements). `is_late`: once
    it is true, no repair is begun but the first.
    """
    ladder = _Ladder(builder, plain, reference, gate)
    console = builder.console
    tried = [ladder.rung(ladder.best[0], plain, 0.0)]
    names = tuple(_RUNGS) if rungs is None else tuple(rungs)
    if tried[0].reached:
        names = names[:1]
    else:
        figures = _figures(tried[0])
        console.say(f"  {variant.name} {figures}: trying repairs", detail=True)
    for name in names:
        if rungs is None and not ladder.needs(name):
            continue
        started = time.perf_counter()
        try:
            if len(tried) > 1 and is_late():
                raise EdgegraftError("no time is left (--time-limit)")
            if name == KEPT and target in INTEGERS_ONLY:
                raise EdgegraftError(f"{target} takes integer files only")
            for candidate in _RUNGS[name](ladder):
                built = builder.build(variant, candidate)
                seconds = time.perf_counter() - started
                rung = ladder.rung(candidate, built, seconds)
                tried.append(rung)
                if not tried[0].reached:
                    _report(builder, rung)
                    if rung.reached:
                        return Climb(tuple(tried), candidate, built)
                started = time.perf_counter()
        except EdgegraftError as reason:
            tried.append(Rung(name, note=str(reason)))
            if not tried[0].reached:
                console.say(f"  {name}: skipped: {reason}", detail=True)
    return Climb(tuple(tried), *ladder.best)


def _figures(rung: Rung) -> str:
    result = rung.fidelity
    if result is None:
        return rung.note
    text = f"agrees with float32 on {result.agreement:.1%} of photos"
    if result.drop > 0:
        text += f", loses {100 * result.drop:.1f} points on validation"
    if result.lost_labels:
        text += f", loses the label {listed(result.lost_labels)}"
    return text


def _report(builder: Builder, rung: Rung) -> None:
    layers = f" with {len(rung.kept_float)} layers float" if rung.kept_float else ""
    line = f"  {rung.name}{layers}: {_figures(rung)}"
    if not builder.run.in_sample:
        line += ": target reached" if rung.reached else ": target missed"
    builder.console.say(line, detail=True)


# -- the rungs -----------------------------------------------------------------------


def _equalized(ladder: _Ladder) -> Iterator[Candidate]:
    graph = Graph(ladder.builder.conversion.base)
    if not repairs.equalize(graph, ladder.photos[:OBSERVED]):
        raise EdgegraftError("no two layers with a plain or ReLU tensor between them")
    with ladder.builder.console.bar("calibrating") as bar:
        calibrated = calibrate(graph.model(), ladder.photos, progress=bar)
    before = ladder.calibrated
    ladder.calibrated = _clipped(calibrated, ladder)
    yield Candidate(EQUALIZED, _repaired(ladder))
    if ladder.best[0].rung != EQUALIZED:  # later rungs build on the better ranges
        ladder.calibrated = before


def _clipped(calibrated: bytes, ladder: _Ladder) -> bytes:
    graph = Graph(calibrated)
    repairs.clip_ranges(graph, ladder.photos[:OBSERVED], PROBABILITIES)
    return graph.model()


def _corrected(ladder: _Ladder) -> Iterator[Candidate]:
    ladder.calibrated = _clipped(ladder.calibrated, ladder)
    yield Candidate(CORRECTED, _repaired(ladder))


def _kept_float(ladder: _Ladder) -> Iterator[Candidate]:
    layers = measure_noise(ladder.calibrated, ladder.photos)
    for count in KEPT_LAYERS:
        if count < len(layers):
            kept = tuple(layer.tensor for layer in worst_layers(layers, count))
            yield Candidate(KEPT, _repaired(ladder, kept), kept)


def _repaired(ladder: _Ladder, kept_float: tuple[str, ...] = ()) -> bytes:
    graph = Graph(ladder.calibrated)
    repairs.correct(graph, ladder.photos[:OBSERVED], kept_float=kept_float)
    return graph.model()


_RUNGS: dict[str, Callable[[_Ladder], Iterator[Candidate]]] = {
    CORRECTED: _corrected,
    EQUALIZED: _equalized,
    KEPT: _kept_float,
}
