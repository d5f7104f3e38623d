"""The model files of a run: converted, verified, described, scored, kept or rejected.

Each file is measured as a file, through the runner that ships, on the validation
part. A file that loses more than `max_drop` against the run's own float32 file
is kept aside as ``<variant>.rejected.tflite``. One photo is always allowed to change
(unless `max_drop` is 0): on 40 photos it is 2.5 points, and says nothing.

It does not know: the test part (compare), or how a step is done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data import batches
from data.split import Row
from edge.card import ModelCard
from edge.errors import EdgegraftError
from edge.evaluate import Evaluation
from edge.quiet import without_chatter
from finetune import familiarity
from finetune.console import Console
from finetune.run import Run, write_atomic
from quantize import calibration, metadata, recipes, scoring, targets
from quantize.convert import Conversion
from quantize.verify import PROBABILITIES, Facts, verify

MAX_DROP = 0.01  # of accuracy on the validation part
EXIT_REJECTED = 3
RECORD = "exports.json"
_ROUNDING = 1e-9  # a drop of exactly `max_drop` passes


@dataclass(frozen=True)
class ExportResult:
    """One file: where it is, what it is, and what it reached on validation.

    `drop` is the accuracy lost against the float32 file (negative: gained).
    """

    variant: str
    path: Path
    size: int
    facts: Facts
    validation: Evaluation
    drop: float
    rejected: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "variant": self.variant,
            "path": str(self.path),
            "size_bytes": self.size,
            "rejected": self.rejected,
            "drop": self.drop,
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
    model: Any = None,
    pixels: batches.Pixels | None = None,
    console: Console | None = None,
) -> dict[str, ExportResult]:
    """Write ``exports/<variant>.tflite`` for each variant; results by name.

    `max_drop` is a fraction (0.01 is one point). A file that `target` refuses is
    rejected; when it refuses all of them, that is an EdgegraftError. `model` and
    `pixels` save loading and decoding what the caller has already. EdgegraftError
    for a run without a model, unknown variants, exports that exist (without
    `overwrite`), photos that have changed, or a network that cannot be converted;
    nothing is written then.
    """
    wanted = recipes.variants(variants)
    targets.target(target)
    if not 0 <= max_drop <= 1:
        raise EdgegraftError(
            f"expected --max-drop from 0 to 100 points, got {100 * max_drop:g}"
        )
    _refuse_existing(run, wanted, overwrite)
    console = console or scoring.Silent()
    chosen: tuple[Row, ...] = ()
    if any(variant.calibrated for variant in wanted):
        chosen = calibration.choose(
            run.split(), calibration_count, seed=run.settings.seed
        )
    judged = scoring.rows_of(run, "val")
    with ExitStack() as stack:
        if pixels is None:
            pixels = scoring.decode(run, [*chosen, *judged], console)
            stack.enter_context(closing(pixels))
        maker = _Maker(run, model, pixels, chosen, judged, console)
        results = _make_all(maker, wanted, max_drop, target)
    if chosen:
        calibration.write_csv(run.folder / "calibration.csv", chosen, run.photos_root)
    run.write_json(
        f"exports/{RECORD}",
        {name: result.to_dict() for name, result in results.items()},
    )
    return results


def _make_all(
    maker: _Maker, wanted: Sequence[recipes.Variant], max_drop: float, target: str
) -> dict[str, ExportResult]:
    """Files are written once all of them are made, so that an error leaves none."""
    made = {variant.name: maker.make(variant) for variant in wanted}
    _refuse_unmet(target, {name: facts for name, (_, facts, _) in made.items()})
    reference = made.get(recipes.REFERENCE)
    if reference is None:  # not asked for, but the drop is against it
        reference = maker.make(recipes.variant(recipes.REFERENCE))
    results = {}
    for variant in wanted:
        model, facts, validation = made[variant.name]
        drop = reference[2].accuracy - validation.accuracy
        allowed = allowed_drop(max_drop, validation.photos)
        lost = variant.name != recipes.REFERENCE and drop > allowed
        rejected = lost or target in facts.refused_by
        path = _place(maker.run, variant.name, rejected)
        _write(path, model)
        _place(maker.run, variant.name, not rejected).unlink(missing_ok=True)
        results[variant.name] = ExportResult(
            variant.name, path, len(model), facts, validation, drop, rejected
        )
        _tell(maker.console, results[variant.name], allowed, target)
    return results


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


class _Maker:
    """Makes and scores the files of one run, sharing conversion and photos."""

    def __init__(
        self,
        run: Run,
        model: Any,
        pixels: batches.Pixels,
        chosen: Sequence[Row],
        judged: Sequence[Row],
        console: Console,
    ) -> None:
        self.run, self.console, self._pixels = run, console, pixels
        self._judged = judged
        self._fingerprint = run.split().fingerprint
        self._calibration = len(chosen)
        photos = None
        if chosen:
            photos = scoring.take(pixels, chosen)
            calibration.refuse_blank(photos)
        network = run.model() if model is None else model
        self._familiarity = familiarity.load(run)
        self._outputs = {PROBABILITIES: PROBABILITIES}
        if self._familiarity is not None:
            network = familiarity.attach(network, self._familiarity)
            self._outputs[familiarity.OUTPUT] = familiarity.OUTPUT
        self._conversion = Conversion(
            network,
            calibration=photos,
            progress=self._calibrating,
        )
        self._bar: Any = None

    def make(self, variant: recipes.Variant) -> tuple[bytes, Facts, Evaluation]:
        """(the finished file, what was read back, its figures on validation)."""
        started = time.perf_counter()
        if variant.calibrated:
            with self.console.bar("calibrating") as self._bar:
                flat = self._conversion.make(variant.name)
        else:
            flat = self._conversion.make(variant.name)
        run = self.run
        with without_chatter():
            facts = verify(
                flat, variant.name, run.recipe, run.labels, outputs=self._outputs
            )
        self.console.stage(
            f"{variant.name}: converted and verified in "
            f"{time.perf_counter() - started:.1f} s"
        )
        card = self._card(variant, facts)
        with self.console.bar(f"scoring {variant.name}") as bar:
            scored = scoring.score_file(
                metadata.embed(flat, card),
                self._judged,
                self._pixels,
                run.labels,
                progress=bar,
            )
        card = replace(card, measured={"validation": scored.to_card()})
        if self._familiarity is not None:
            limit = self._familiarity.limit_of_file(scored.familiarity)
            card = replace(card, familiarity_threshold=limit)
        return metadata.embed(flat, card), facts, scored.evaluation

    def _calibrating(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar(done, total)

    def _card(self, variant: recipes.Variant, facts: Facts) -> ModelCard:
        config = self.run.config
        settings = config["settings"]
        found = {
            "run": self.run.name,
            "backbone": settings.get("backbone"),
            "weights": config.get("weights"),
            "seed": settings.get("seed"),
            "created": config.get("created"),
            "versions": config.get("versions"),
            "data_fingerprint": self._fingerprint,
            "calibration_photos": self._calibration if variant.calibrated else None,
            "oldest_runtime": facts.oldest_runtime,
            "refused_by": {k: list(v) for k, v in facts.refused_by.items()},
        }
        temperature = (config.get("calibration") or {}).get("temperature", 1.0)
        return ModelCard(
            labels=self.run.labels,
            input=self.run.recipe,
            variant=variant.name,
            outputs=self._outputs,
            name=self.run.name,
            temperature=float(temperature),
            provenance={k: v for k, v in found.items() if v is not None},
        )


def _tell(console: Console, result: ExportResult, allowed: float, target: str) -> None:
    low, high = result.validation.interval
    console.stage(
        f"{result.variant}: {result.size / 1e6:.2f} MB, validation "
        f"{result.validation.accuracy:.1%} ({low:.1%} to {high:.1%})"
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
    write_atomic(path, lambda to: to.write_bytes(model))
