"""Photos in, a verified file out: train, export, compare, in one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backbones.keras import require_packages
from edge import runtime
from finetune.console import Console
from finetune.familiarity import photo_digests, refuse_missing_negatives
from finetune.job import Job, resumable, run_job
from finetune.run import Run, locked
from quantize.comparison.compare import CompareOptions, compare
from quantize.comparison.inputs import unknown_photos
from quantize.comparison.records import Comparison
from quantize.export import ExportResult, export, refuse_bad


@dataclass(frozen=True)
class Built:
    """The results of `build`; `comparison` is None on workers but the chief."""

    run: Run
    results: Mapping[str, ExportResult]
    comparison: Comparison | None


def build(
    job: Job,
    export_options: Mapping[str, Any],
    compare_options: CompareOptions,
    console: Console,
) -> Built:
    """Photos are decoded once; the network stays in memory from step to step.

    export_options: arguments of `quantize.export.export`, such as variants and target.
    Ctrl-C prints the command that resumes the run.
    """
    require_packages("build")
    refuse_bad(**export_options)  # before any work
    if compare_options.runtime != "auto":
        runtime.find(compare_options.runtime)
    if compare_options.unknown is not None:  # refused before training, not after
        folder = job.settings.negatives
        refuse_missing_negatives(folder)
        trained_with = photo_digests(folder) if folder else ()
        unknown_photos(compare_options.unknown, {}, trained_with)
    with resumable(job, "build"):
        trained = run_job(job, console)
        run = trained.run
        if trained.network is None:
            trained.prepared.pixels.close()
            return Built(run, {}, None)  # one of several workers: the chief has the run
        with locked(run.folder), trained.prepared.pixels as pixels:
            results = export(
                run,
                **export_options,
                overwrite=True,  # the run itself is new, or --overwrite was given
                model=trained.network,
                pixels=pixels,
                console=console,
            )
            comparison = compare(run, compare_options, pixels=pixels, console=console)
    return Built(run, results, comparison)
