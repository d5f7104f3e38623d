"""The model files of a run: converted, verified, described, scored, kept or rejected.

Each file is measured as a file, through the runner that ships, on the validation
part. An int8 file that loses more than `max_drop` against the run's own float32 file
climbs the ladder; a file that still does is kept aside as
``<variant>.rejected.tflite``. One photo is always allowed to change (unless `max_drop`
is 0): on 40 photos it is 2.5 points, and says nothing.

It does not know: the test part (compare), or how a step is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import batches
from data.split import Row
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.files import write_atomic
from finetune.console import Console
from finetune.run import Run
from quantize import recipes
from quantize.conversion import calibration, scoring
from quantize.conversion.builder import PLAIN, Candidate, Made, Maker, covering
from quantize.recovery import ladder, layer_report
from quantize.recovery.layer_report import LayerReport
from quantize.tflite import flatbuffer, metadata, old_runtime, targets
from quantize.tflite.verify import Facts

MAX_DROP = 0.01  # of accuracy on the validation part
EXIT_REJECTED = 3
RECORD = "exports.json"
CALIBRATION = "calibration.csv"
LAYERED = "int8"  # the variant whose layers are reported
_ROUNDING = 1e-9  # a drop of exactly `max_drop` passes


@dataclass(frozen=True)
class ExportResult:
    """One file: where it is, what it is, and what it reached on validation.

    `drop` is the accuracy lost against the float32 file (negative: gained). `rung` is
    the way it was made, `rungs` what the ladder tried (nothing, when it had not to).
    """

    variant: str
    path: Path
    size: int
    facts: Facts
    validation: Evaluation
    drop: float
    rejected: bool
    judged_on: str = "validation"  # or what else that part is (`Run.judged_on`)
    rung: str = PLAIN
    rungs: tuple[ladder.Rung, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "variant": self.variant,
            "path": str(self.path),
            "size_bytes": self.size,
            "rejected": self.rejected,
            "drop": self.drop,
            "rung": self.rung,
            "ladder": [rung.to_dict() for rung in self.rungs],
            "judged_on": self.judged_on,
            "validation": self.validation.to_dict(),
            "facts": self.facts.to_dict(),
        }


def export(
    run: Run,
    variants: Sequence[str] | str = ("float32", "int8"),
    *,
    calibration_count: int = calibration.COUNT,
    max_drop: float = MAX_DROP,
    target: str = targets.GENERIC,
    overwrite: bool = False,
    climb: bool = True,
    with_layers: bool = False,
    old_python: Path | None = None,
    model: Any = None,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> dict[str, ExportResult]:
    """Write ``exports/<variant>.tflite`` for each variant; results by name.

    `max_drop` is a fraction (0.01 is one point). A file that `target` refuses is
    rejected; when it refuses all of them, that is an EdgegraftError. `climb`: an int8
    file that loses too much is made in other ways (ladder). `with_layers` writes the
    layer report of the int8 file into the run. `old_python`: a Python with
    tflite-runtime, where the files are run, too. `model` and `pixels` save loading and
    decoding what the caller has already. EdgegraftError for a run without a model,
    unknown variants, exports that exist (without `overwrite`), photos that have
    changed, or a network that cannot be converted; nothing is written then.
    """
    wanted = recipes.variants(variants)
    targets.target(target)
    old = old_runtime.find(old_python)
    if not 0 <= max_drop <= 1:
        raise EdgegraftError(
            f"expected --max-drop from 0 to 100 points, got {100 * max_drop:g}"
        )
    if with_layers and not any(variant.name == LAYERED for variant in wanted):
        raise EdgegraftError(
            f"expected {LAYERED} among --variants for a layer report, got "
            f"{', '.join(variant.name for variant in wanted)}"
        )
    _refuse_existing(run, wanted, overwrite)
    console = console or scoring.Silent()
    model = run.model() if model is None else model
    pool: tuple[Row, ...] = ()
    if any(variant.calibrated for variant in wanted):
        pool = calibration.pool(run.split(), calibration_count, seed=run.settings.seed)
    judged = scoring.rows_of(run, "val")
    with ExitStack() as stack:
        if pixels is None:
            pixels = scoring.decode(run, [*pool, *judged], console)
            stack.enter_context(closing(pixels))
        kept, refused = _sifted(run, pool, pixels, console)
        chosen = covering(model, pixels, kept, calibration_count, console)
        maker = Maker(run, model, pixels, chosen, judged, console, old)
        gate = _Gate(max_drop, target, climb)
        results, layers = _make_all(maker, wanted, gate, with_layers=with_layers)
    if layers is not None:
        layers.write(run.folder)
    if chosen:
        path = run.folder / CALIBRATION
        calibration.write_csv(path, chosen, run.photos_root, refused)
    _tell_kept(run, wanted, target, console)
    run.update(target=target)
    run.write_json(
        f"exports/{RECORD}",
        {name: result.to_dict() for name, result in results.items()},
    )
    return results


def _sifted(
    run: Run, pool: Sequence[Row], pixels: batches.Pixels, console: Console
) -> tuple[tuple[Row, ...], tuple[calibration.Refused, ...]]:
    """The photos of the pool that can calibrate, and the others, told to the user."""
    if not pool:
        return (), ()
    places = scoring.places_of(pixels, pool)
    kept, refused = calibration.sift(pool, [pixels.array[place] for place in places])
    refused = (*calibration.copies(run.split(), pool), *refused)
    if refused:
        first = refused[0]
        console.say(
            f"  refused for calibration: {calibration.summary(refused)}, such as "
            f"{first.row.photo.path.name}, {first.reason}; listed in {CALIBRATION}"
        )
    return kept, refused


@dataclass(frozen=True)
class _Gate:
    """What a file has to keep to, and what is done when it doesn't."""

    max_drop: float
    target: str
    ladder: bool

    def allowed(self, made: Made) -> float:
        return allowed_drop(self.max_drop, made.validation.photos)

    def lost(self, variant: recipes.Variant, drop: float, made: Made) -> bool:
        return variant.name != recipes.REFERENCE and drop > self.allowed(made)


def _make_all(
    maker: Maker, wanted: Sequence[recipes.Variant], gate: _Gate, *, with_layers: bool
) -> tuple[dict[str, ExportResult], LayerReport | None]:
    """Files are written once all of them are made, so that an error leaves none."""
    made = {variant.name: maker.make(variant) for variant in wanted}
    _refuse_unmet(gate.target, {name: one.facts for name, one in made.items()})
    reference = made.get(recipes.REFERENCE)
    if reference is None:  # not asked for, but the drop is against it
        reference = maker.make(recipes.variant(recipes.REFERENCE))
    layers = None
    if with_layers:
        layers = _layers(maker, made[LAYERED], reference)
    climbs = {}
    if gate.ladder:
        climbs = _climb(maker, wanted, made, reference, gate)
        made |= {name: climb.made for name, climb in climbs.items()}
    results = {}
    for variant in wanted:
        one, climb = made[variant.name], climbs.get(variant.name)
        drop = reference.validation.accuracy - one.validation.accuracy
        lost = gate.lost(variant, drop, one)
        rejected = lost or gate.target in one.facts.refused_by
        path = _place(maker.run, variant.name, rejected)
        _write(path, one.model)
        _place(maker.run, variant.name, not rejected).unlink(missing_ok=True)
        result = ExportResult(
            variant.name,
            path,
            len(one.model),
            one.facts,
            one.validation,
            drop,
            rejected,
            maker.run.judged_on,
            climb.candidate.rung if climb else PLAIN,
            climb.rungs if climb else (),
        )
        results[variant.name] = result
        _tell(maker.console, result, gate.allowed(one), gate.target)
    return results, layers


def _layers(maker: Maker, int8: Made, reference: Made) -> LayerReport:
    """The report of the plain int8 file."""
    found = layer_report.report(
        maker,
        Candidate(PLAIN, maker.conversion.calibrated),
        reference.validation,
        int8.validation,
    )
    layer_report.tell(maker.console, found)
    return found


def _climb(
    maker: Maker,
    wanted: Sequence[recipes.Variant],
    made: dict[str, Made],
    reference: Made,
    gate: _Gate,
) -> dict[str, ladder.Climb]:
    """A way for each int8 file that lost too much; the second takes the first's."""
    climbs: dict[str, ladder.Climb] = {}
    for variant in wanted:
        one = made[variant.name]
        drop = reference.validation.accuracy - one.validation.accuracy
        int8 = variant.calibrated and variant.activations == "INT8"
        if not int8 or not gate.lost(variant, drop, one):
            continue
        if climbs:
            first = next(iter(climbs.values()))
            again = maker.make(variant, first.candidate)
            climbs[variant.name] = replace(first, made=again)
        else:
            climbs[variant.name] = ladder.climb(
                maker, variant, one, reference, gate.allowed(one), target=gate.target
            )
    return climbs


def _refuse_unmet(target: str, made: dict[str, Facts]) -> None:
    """EdgegraftError when the target takes none of the files."""
    refused = {name: facts.refused_by.get(target, ()) for name, facts in made.items()}
    if all(refused.values()):
        told = "; ".join(f"{name}: {why[0]}" for name, why in refused.items())
        raise EdgegraftError(
            f"expected a file that {target} takes, got none ({told}); choose another "
            "of --variants or --target"
        )


def allowed_drop(max_drop: float, photos: int) -> float:
    """The accuracy a file may lose on so many photos: one photo at least, or none."""
    return (max(max_drop, 1 / photos) if max_drop else 0.0) + _ROUNDING


def _tell(console: Console, result: ExportResult, allowed: float, target: str) -> None:
    judged = result.validation
    low, high = judged.interval
    told = f"{result.judged_on} {judged.accuracy:.1%} ({low:.1%} to {high:.1%})"
    if result.judged_on != "validation":  # its interval would promise something
        told = (
            f"{judged.accuracy:.1%} of {judged.photos} {result.judged_on}: tells what "
            "a file loses, not how good it is"
        )
    console.stage(f"{result.variant}: {result.size / 1e6:.2f} MB, {told}")
    if len(result.facts.ran_on) > 1:
        oldest = result.facts.oldest_runtime or "the newest"
        console.say(
            f"  ran on {' and '.join(result.facts.ran_on)}; by its operators "
            f"TensorFlow Lite {oldest} is enough"
        )
    reasons = result.facts.refused_by.get(target)
    if reasons:
        console.say(
            f"  rejected: {target} refuses it: {'; '.join(reasons)}; "
            f"kept aside as {result.path}"
        )
    elif result.rejected:
        console.say(
            f"  rejected: it loses {100 * result.drop:.1f} points against float32, "
            f"allowed are {100 * allowed:.3g} (--max-drop); kept aside as {result.path}"
        )


def _tell_kept(
    run: Run, wanted: Sequence[recipes.Variant], target: str, console: Console
) -> None:
    """Which older files stay beside those just made, and what the target takes not."""
    names = {variant.name for variant in wanted}
    told = []
    for path in sorted(run.exports.glob("*.tflite")):
        if path.name.split(".")[0] in names:
            continue
        flat, _ = metadata.split(path.read_bytes())
        refused = targets.refusals(flatbuffer.parse(flat), len(flat), target)
        told.append(path.name + (f" ({target} refuses it)" if refused else ""))
    if told:
        console.say(
            f"  kept from before: {', '.join(told)}; compare measures them, too, so "
            "remove what you don't want"
        )


def _place(run: Run, variant: str, rejected: bool) -> Path:
    return run.exports / f"{variant}{'.rejected' if rejected else ''}.tflite"


def _refuse_existing(
    run: Run, wanted: Sequence[recipes.Variant], overwrite: bool
) -> None:
    if overwrite:
        return
    for variant in wanted:
        for rejected in (False, True):
            path = _place(run, variant.name, rejected)
            if path.exists():
                raise EdgegraftError(
                    f"expected a run without {variant.name} exports, got {path}; "
                    "replace it with --overwrite"
                )


def _write(path: Path, model: bytes) -> None:
    write_atomic(path, model)
