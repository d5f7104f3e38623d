"""The model files of a run: converted, verified, described, scored, passed or rejected.

Each file is scored through the runner that ships, on validation photos, views of them
and training photos. An int8 file that misses the target of the gate is repaired
(ladder); one that still loses a label, or more accuracy than `max_drop`, is saved as
``<variant>.rejected.tflite``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import batches
from data.split import Row
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.files import write_atomic
from edge.model_file import ModelFile
from finetune.console import Console
from finetune.model import load as load_network
from finetune.run import Run
from quantize import recipes
from quantize.conversion import calibration, scoring
from quantize.conversion.builder import (
    PLAIN,
    Builder,
    BuiltModel,
    Candidate,
    diverse_photos,
)
from quantize.gate import (
    AGREEMENT,
    EXPORTS_FILE,
    MAX_DROP,
    TRAINING,
    Fidelity,
    Gate,
    read_exports,
)
from quantize.recovery import ladder
from quantize.recovery.layer_noise import (
    LayerReport,
    print_worst_layers,
    report_layers,
)
from quantize.tflite import flatbuffer, metadata, targets
from quantize.tflite.verify import Facts, find_old_runtime

EXIT_REJECTED = 3
CALIBRATION = "calibration.csv"
LAYERED = "int8"  # the variant whose layers are reported


@dataclass(frozen=True)
class ExportResult:
    """One file: its path, size in bytes, digest, facts, and validation figures.

    `fidelity` compares it with the float32 file, as `gate` asks. `rung` is its repair,
    `kept_float` the layers that it left float, `rungs` all that the ladder tried (empty
    if none).
    """

    variant: str
    path: Path
    size: int
    digest: str
    facts: Facts
    validation: Evaluation
    fidelity: Fidelity
    gate: Gate
    rejected: bool
    judged_on: str = "validation"  # or another name for that part (`Run.judged_on`)
    rung: str = PLAIN
    kept_float: tuple[str, ...] = ()
    rungs: tuple[ladder.Rung, ...] = ()

    @property
    def drop(self) -> float:
        """Accuracy lost against the float32 file, on validation photos and views
        (negative: gained)."""
        return self.fidelity.drop

    @property
    def reached(self) -> bool:
        """Whether the file meets its target."""
        return self.gate.reached(self.fidelity)

    @property
    def fidelity_line(self) -> str:
        """Agreement and target, the repair, and its cost."""
        fidelity, target = self.fidelity, self.gate.agreement
        verdict = "reached" if self.reached else "missed"
        of = f"photos (target {target:.0%} {verdict})"
        if self.gate.in_sample:
            of = (
                f"photos it was trained on (the target of {target:.0%} is for new ones)"
            )
        line = (
            f"agrees with float32 on {fidelity.agreement:.1%} of {of}, probabilities "
            f"shift by {100 * fidelity.shift:.1f} points"
        )
        if not self.rungs:
            return line
        seconds = sum(rung.seconds for rung in self.rungs)
        return f"{line}; by {self.rung}, {seconds:.0f} s of repairs"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "variant": self.variant,
            "path": str(self.path),
            "size_bytes": self.size,
            "model_sha256": self.digest,
            "rejected": self.rejected,
            "drop": self.drop,
            "target_agreement": self.gate.agreement,
            "target_reached": self.reached,
            "in_sample": self.gate.in_sample,
            "fidelity": self.fidelity.to_dict(),
            "rung": self.rung,
            "kept_float": list(self.kept_float),
            "ladder": [rung.to_dict() for rung in self.rungs],
            "judged_on": self.judged_on,
            "validation": self.validation.to_dict(),
            "facts": self.facts.to_dict(),
        }


def refuse_bad(
    variants: Sequence[str] | str = ("float32", "int8"),
    target: str = targets.GENERIC,
    max_drop: float = MAX_DROP,
    calibration_count: int = calibration.COUNT,
    **_: object,
) -> tuple[recipes.Variant, ...]:
    """The variants; EdgegraftError for options that `export` refuses for any run, so
    that they are refused before training. `_`: its other options."""
    records = recipes.variants(variants)
    targets.target(target)
    if not 0 <= max_drop <= 1:
        raise EdgegraftError(
            f"expected --max-drop from 0 to 100 points, got {100 * max_drop:g}"
        )
    if calibration_count < 1:
        raise EdgegraftError(
            f"expected --calibration to be 1 or more, got {calibration_count}"
        )
    return records


def export(
    run: Run,
    variants: Sequence[str] | str = ("float32", "int8"),
    *,
    calibration_count: int = calibration.COUNT,
    agreement: float = AGREEMENT,
    max_drop: float = MAX_DROP,
    target: str = targets.GENERIC,
    overwrite: bool = False,
    repair: bool = True,
    with_layers: bool = False,
    old_python: Path | None = None,
    model: Any = None,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
    is_late: Callable[[], bool] = lambda: False,
) -> dict[str, ExportResult]:
    """Write ``exports/<variant>.tflite`` for each variant; results by name.

    The ranges, weights and biases of an int8 file are corrected; if it is rejected
    then, it is repaired further (ladder; `repair` off: no repairs). `agreement` is the
    target, of new photos with the label of float32. One that loses a label, or
    more than `max_drop` of accuracy (0.01 is one point), is rejected, and so is one
    that `target` refuses; EdgegraftError when it refuses all of them. `with_layers`
    writes the layer report of the int8 file into the run. `old_python`: a Python with
    tflite-runtime, where the files are run as well. `model` and `pixels`: the network
    and the decoded photos, if the caller has them. Without `console` nothing is
    printed. Once `is_late`, no repair is begun but the first. At least one calibration
    photo of each label is used. EdgegraftError, with
    nothing written, for a run without a model, options that `refuse_bad` refuses,
    exports that exist (without `overwrite`), photos that have changed, or a network
    that cannot be converted.
    """
    records = refuse_bad(variants, target, max_drop, calibration_count)
    names = [variant.name for variant in records]
    old = find_old_runtime(old_python)
    if with_layers and LAYERED not in names:
        raise EdgegraftError(
            f"expected {LAYERED} among --variants for a layer report, got "
            f"{', '.join(names)}"
        )
    if not overwrite:
        _refuse_existing(run, names)
    console = console or Console(quiet=True)
    model = load_network(run) if model is None else model
    pool: tuple[Row, ...] = ()
    if any(variant.calibrated for variant in records):
        if calibration_count < len(run.labels):
            console.say(
                f"  calibrating with {len(run.labels)} photos, one of each label, not "
                f"with {calibration_count}"
            )
            calibration_count = len(run.labels)
        pool = calibration.pool(run.split(), calibration_count, seed=run.settings.seed)
    val = scoring.rows_of(run, "val")
    train: tuple[Row, ...] = ()
    if len(run.labels) <= TRAINING:
        train = calibration.choose(run.split(), TRAINING, seed=run.settings.seed)
    gate = Gate(agreement, max_drop, run.in_sample)
    with ExitStack() as stack:
        if pixels is None:
            rows = {row.sha256: row for row in (*pool, *val, *train)}
            pixels = scoring.decode(run, tuple(rows.values()), console)
            stack.enter_context(closing(pixels))
        usable, refused = _usable(run, pool, pixels, console)
        chosen = diverse_photos(model, pixels, usable, calibration_count, console)
        builder = Builder(run, model, pixels, chosen, val, console, old, train)
        results, layers = _build_all(
            builder,
            records,
            gate,
            target,
            repair=repair,
            with_layers=with_layers,
            is_late=is_late,
        )
    if layers is not None:
        layers.write(run.folder)
    if chosen:
        path = run.folder / CALIBRATION
        calibration.write_csv(path, chosen, run.photos_root, refused)
    _report_older(run, names, target, console)
    run.update(target=target)
    run.write_json(
        f"exports/{EXPORTS_FILE}",
        _older_records(run) | {name: r.to_dict() for name, r in results.items()},
    )
    return results


def _usable(
    run: Run, pool: Sequence[Row], pixels: batches.Pixels, console: Console
) -> tuple[tuple[Row, ...], tuple[calibration.Refused, ...]]:
    """(photos of the pool to calibrate with, refused ones); prints the latter."""
    if not pool:
        return (), ()
    indices = scoring.row_indices(pixels, pool)
    usable, refused = calibration.sift(pool, [pixels.array[i] for i in indices])
    refused = (*calibration.copies(run.split(), pool), *refused)
    if refused:
        first = refused[0]
        console.say(
            f"  refused for calibration: {calibration.summary(refused)}, such as "
            f"{first.row.photo.path.name}, {first.reason}; listed in {CALIBRATION}"
        )
    return usable, refused


def _build_all(
    builder: Builder,
    variants: Sequence[recipes.Variant],
    gate: Gate,
    target: str,
    *,
    repair: bool,
    with_layers: bool,
    is_late: Callable[[], bool],
) -> tuple[dict[str, ExportResult], LayerReport | None]:
    """Files are written once all of them are built, so that an error leaves none."""
    built = {variant.name: builder.build(variant) for variant in variants}
    _refuse_unmet(target, {name: file.facts for name, file in built.items()})
    reference = built.get(recipes.REFERENCE)
    if reference is None:  # not requested, but the others are compared with it
        reference = builder.build(recipes.variant(recipes.REFERENCE))
    layers = None
    if with_layers:
        layers = report_layers(
            builder,
            Candidate(PLAIN, builder.conversion.calibrated),
            reference.validation,
            built[LAYERED].validation,
        )
        print_worst_layers(builder.console, layers)
    climbs = {}
    if repair:
        climbs = _climb(
            builder,
            variants,
            built,
            reference,
            gate,
            target,
            is_late=is_late,
        )
        built |= {name: climb.built for name, climb in climbs.items()}
    results = {}
    for variant in variants:
        file, climb = built[variant.name], climbs.get(variant.name)
        fidelity = ladder.fidelity_to(reference, file)
        why = gate.why_rejected(fidelity)
        rejected = bool(why) or target in file.facts.refused_by
        path = _path(builder.run, variant.name, rejected)
        write_atomic(path, file.model)
        _path(builder.run, variant.name, not rejected).unlink(missing_ok=True)
        result = ExportResult(
            variant.name,
            path,
            len(file.model),
            ModelFile(file.model).digest,
            file.facts,
            file.validation,
            fidelity,
            gate,
            rejected,
            builder.run.judged_on,
            climb.candidate.rung if climb else PLAIN,
            climb.candidate.kept_float if climb else (),
            climb.rungs if climb else (),
        )
        results[variant.name] = result
        _report(builder.console, result, why, target)
    return results, layers


def _climb(
    builder: Builder,
    variants: Sequence[recipes.Variant],
    built: dict[str, BuiltModel],
    reference: BuiltModel,
    gate: Gate,
    target: str,
    *,
    is_late: Callable[[], bool],
) -> dict[str, ladder.Climb]:
    """Repair each int8 file; the second takes the candidate of the first."""
    climbs: dict[str, ladder.Climb] = {}
    for variant in variants:
        if not (variant.calibrated and variant.activations == "INT8"):
            continue
        if climbs:
            first = next(iter(climbs.values()))
            file = builder.build(variant, first.candidate)
            climbs[variant.name] = replace(first, built=file)
        else:
            climbs[variant.name] = ladder.climb(
                builder,
                variant,
                built[variant.name],
                reference,
                gate,
                target=target,
                is_late=is_late,
            )
    return climbs


def _refuse_unmet(target: str, files: dict[str, Facts]) -> None:
    """EdgegraftError when the target refuses all files."""
    refused = {name: facts.refused_by.get(target, ()) for name, facts in files.items()}
    if all(refused.values()):
        reasons = "; ".join(f"{name}: {why[0]}" for name, why in refused.items())
        raise EdgegraftError(
            f"expected a file that {target} takes, got none ({reasons}); choose other "
            "--variants or another --target"
        )


def _report(console: Console, result: ExportResult, why: str, target: str) -> None:
    validation = result.validation
    low, high = validation.interval
    accuracy = f"{result.judged_on} {validation.accuracy:.1%} ({low:.1%} to {high:.1%})"
    if result.judged_on != "validation":  # an interval would be misleading
        accuracy = (
            f"{validation.accuracy:.1%} of {validation.photos} {result.judged_on}: "
            "shows what a file loses, not how good it is"
        )
    size = f"{result.size / 1e6:.2f} MB"
    console.stage(f"{result.variant}: {size}, {accuracy}", detail=True)
    if result.variant != recipes.REFERENCE:
        console.say(f"  {result.fidelity_line}", detail=True)
    if len(result.facts.ran_on) > 1:
        oldest = result.facts.oldest_runtime or "the newest release"
        console.say(
            f"  ran on {' and '.join(result.facts.ran_on)}; its operators need "
            f"TensorFlow Lite {oldest}",
            detail=True,
        )
    reasons = result.facts.refused_by.get(target)
    if reasons:
        console.say(
            f"  rejected: {target} refuses it: {'; '.join(reasons)}; "
            f"kept aside as {result.path}"
        )
    elif result.rejected:
        console.say(f"  rejected: {why}; kept aside as {result.path}")


def _report_older(
    run: Run, names: Sequence[str], target: str, console: Console
) -> None:
    """Print the older files of other variants, and which of them `target` refuses."""
    older = []
    for path in sorted(run.exports.glob("*.tflite")):
        if path.name.split(".")[0] in names:
            continue
        flat, _ = metadata.split(path.read_bytes())
        refused = targets.refusals(flatbuffer.parse(flat), len(flat), target)
        older.append(path.name + (f" ({target} refuses it)" if refused else ""))
    if older:
        console.say(
            f"  older exports kept: {', '.join(older)}; compare measures them, too: "
            "delete those you no longer need"
        )


def _older_records(run: Run) -> dict[str, Any]:
    """What exports.json says of files that are still there; {} where it is damaged."""
    try:
        records = read_exports(run)
    except EdgegraftError:
        return {}
    return {
        variant: record
        for variant, record in records.items()
        if variant in recipes.VARIANTS
        and any(_path(run, variant, rejected).exists() for rejected in (False, True))
    }


def _path(run: Run, variant: str, rejected: bool) -> Path:
    return run.exports / f"{variant}{'.rejected' if rejected else ''}.tflite"


def _refuse_existing(run: Run, names: Sequence[str]) -> None:
    for name, rejected in itertools.product(names, (False, True)):
        path = _path(run, name, rejected)
        if path.exists():
            raise EdgegraftError(
                f"expected a run without {name} exports, got {path}; replace it with "
                "--overwrite"
            )
