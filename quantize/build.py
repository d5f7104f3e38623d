"""Photos in, a verified file out: train, export, compare, in one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backbones.keras import require_packages
from edge import runtime
from finetune import negatives
from finetune.console import Console
from finetune.job import Job, resumable, run_job
from finetune.run import Run, locked
from quantize.comparison import unknown
from quantize.comparison.compare import CompareOptions, compare
from quantize.comparison.records import Comparison
from quantize.export import ExportResult, export, refuse_bad


@dataclass(frozen=True)
class ExportOptions:
    """The variants to export; `more`: other arguments of `quantize.export.export`."""

    variants: tuple[str, ...] = ("float32", "int8")
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildOptions:
    """The options of `build`: train, export, compare."""

    job: Job
    export: ExportOptions
    compare: CompareOptions


@dataclass(frozen=True)
class Built:
    """The results of `build`; `comparison` is None on workers but the chief."""

    run: Run
    results: Mapping[str, ExportResult]
    comparison: Comparison | None


def build(plan: BuildOptions, console: Console) -> Built:
    """Photos are decoded once; the network stays in memory from step to step.

    Ctrl-C prints the command that resumes the run.
    """
    require_packages("build")
    refuse_bad(plan.export.variants, **plan.export.more)  # before any work
    if plan.compare.runtime != "auto":
        runtime.find(plan.compare.runtime)
    if plan.compare.unknown is not None:  # refused before training, not after
        folder = plan.job.settings.negatives
        negatives.refuse_missing(folder)
        trained_with = negatives.digests(folder) if folder else ()
        unknown.unknown_photos(plan.compare.unknown, {}, trained_with)
    with resumable(plan.job, "build"):
        trained = run_job(plan.job, console)
        run = trained.run
        if trained.network is None:
            trained.prepared.pixels.close()
            return Built(run, {}, None)  # one of several workers: the chief has the run
        with locked(run.folder), trained.prepared.pixels as pixels:
            results = export(
                run,
                plan.export.variants,
                **plan.export.more,
                overwrite=True,  # the run itself is new, or --overwrite was given
                model=trained.network,
                pixels=pixels,
                console=console,
            )
            comparison = compare(run, plan.compare, pixels=pixels, console=console)
    return Built(run, results, comparison)
