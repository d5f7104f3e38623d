"""`edgegraft finetune PHOTOS`: its options, and what it prints.

The options come from the fields of `Settings` and `Job`; the defaults depend on the
network (`Settings.for_network`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.command import add_megapixels
from edge.errors import EdgegraftError
from edge.run_folder import ARTIFACTS

if TYPE_CHECKING:
    from finetune.console import Console
    from finetune.job import Job, Trained
    from finetune.run import Run
    from finetune.settings import Settings

FINETUNE = (
    "Train a network on labelled photos: the training alone. It leaves a run, a folder "
    "in artifacts/, from which edgegraft quantize makes the model files."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a training run; `build` has them too."""
    from data.source import PhotoOptions
    from finetune.job import Job
    from finetune.settings import Settings

    add = parser.add_argument
    add_folder(parser, "made from PHOTOS")
    add(
        "--small",
        action="store_true",
        help="for slow devices: --backbone auto at an input of 128 pixels",
    )
    add("--cnn", metavar="TOML", help="options of custom_cnn from a TOML file")
    add("--set", action="append", metavar="NAME=VALUE", help="one custom_cnn option")
    for record in (Settings, Job):
        for field in dataclasses.fields(record):
            if "option" in field.metadata:
                _add_option(parser, field)
    PhotoOptions.add_to(parser)
    add_megapixels(parser)


def add_folder(parser: argparse.ArgumentParser, default: str) -> None:
    """Where the results go; `default` describes the folder's name without --run."""
    parser.add_argument(
        "--run", metavar="NAME", help=f"run folder's name (default: {default})"
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path(ARTIFACTS),
        metavar="DIR",
        help=f"folder of all runs (default: {ARTIFACTS})",
    )


def _add_option(parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    option = field.metadata["option"]
    name = "--" + field.name.replace("_", "-")
    if field.default is False:
        parser.add_argument(name, action="store_true", help=option.help)
        return
    types = {"int": int, "float": float, "float | None": float, "Path | None": Path}
    parser.add_argument(
        name,
        type=types.get(str(field.type), str),
        choices=option.choices or None,
        metavar=option.metavar,
        help=option.help.replace("%", "%%"),
    )


def job_from(args: argparse.Namespace, console: Console) -> Job:
    """The job that the options describe; EdgegraftError for bad ones.

    Says which network --backbone auto chose.
    """
    from data.source import PhotoOptions, refuse_missing
    from finetune.job import Job
    from finetune.settings import Settings

    if args.photos is not None:
        refuse_missing(args.photos)
    names = [f.name for f in dataclasses.fields(Job) if "option" in f.metadata]
    options = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if args.resume and args.run is None:
        raise EdgegraftError("expected --run NAME with --resume")
    if args.resume:
        _refuse_settings(args)
    settings = Settings() if args.resume else _settings(args, console)
    folder = run_folder(args.artifacts, args.run, args.photos, settings)
    reading = PhotoOptions.from_args(args)
    return Job(args.photos, settings, folder, photo_options=reading, **options)


def _settings(args: argparse.Namespace, console: Console) -> Settings:
    from backbones import custom_cnn, registry
    from finetune.settings import Settings

    values = {
        name: getattr(args, name)
        for name in Settings.__dataclass_fields__
        if name != "cnn" and getattr(args, name, None) is not None
    }
    if args.small:
        if values.get("backbone", registry.AUTO) != registry.AUTO:
            raise EdgegraftError(
                f"expected --small or --backbone {values['backbone']}, got both"
            )
        values["backbone"] = registry.SMALL
    backbone = registry.full_name(values.get("backbone", registry.AUTO))
    if backbone == "custom_cnn":
        config = custom_cnn.read_config(args.cnn, args.set or ())
        values["cnn"] = config.to_dict()
    elif args.cnn or args.set:
        raise EdgegraftError(
            f"expected --cnn and --set with --backbone custom_cnn, got {backbone}"
        )
    return Settings.for_network(console.say, **values)


def run_folder(
    artifacts: Path, name: str | None, photos: Path | None, settings: Settings
) -> Path:
    """artifacts/NAME; without a name, one made from photos and network."""
    from backbones import registry
    from finetune.run import name_of, plain_name

    if name is None:
        if photos is None:
            raise EdgegraftError("expected --run NAME where no photos are given")
        network = f"{registry.short_name(settings.backbone)}-{settings.size}"
        name = f"{name_of(photos)}-{network}"
    return artifacts / plain_name(name)


def _refuse_settings(args: argparse.Namespace) -> None:
    """EdgegraftError for settings given with --resume."""
    from finetune.settings import Settings

    names = [*Settings.__dataclass_fields__, "set", "small", "exclude_from", "add"]
    for name in names:
        if getattr(args, name, None) not in (None, False):
            raise EdgegraftError(
                f"expected --resume without settings (a run keeps its own), got "
                f"--{name.replace('_', '-')}"
            )


def add_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos",
        type=Path,
        nargs="?",
        metavar="PHOTOS",
        help="a folder per label, a list (.csv, .jsonl) or an archive (.zip, .tar)",
    )
    add_options(parser)
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="train with N seeds, a run each; metrics.json of the first has the mean "
        "and its interval (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """`edgegraft finetune` of these arguments; the exit code."""
    from backbones.keras import require_packages
    from finetune.console import Console
    from finetune.distributed import VARIABLE

    require_packages("finetune")
    console = Console(json=args.json)
    if args.repeats > 1 and os.environ.get(VARIABLE):
        raise EdgegraftError(
            f"expected --repeats 1 with {VARIABLE}, got {args.repeats}; start the "
            "workers once for each --seed"
        )
    if args.repeats < 1 or (args.repeats > 1 and args.resume):
        raise EdgegraftError(
            f"expected --repeats to be 1 or more, and 1 with --resume, got "
            f"{args.repeats}"
        )
    from finetune.job import resumable

    job = job_from(args, console)
    with resumable(job, "finetune"):
        return _run(job, args.repeats, console, as_json=args.json)


def _run(job: Job, repeats: int, console: Console, *, as_json: bool) -> int:
    from finetune.evaluate import summarize_seeds

    later = _later_jobs(job, repeats)
    trained = _train(job, console)
    if trained.network is None:
        return 0  # one of several workers: the chief has the run
    run, summary = trained.run, None
    if later:
        runs = [run]
        for repeat, later_job in enumerate(later, 2):
            seed = later_job.settings.seed
            console.stage(f"repeat {repeat} of {repeats}: seed {seed}")
            runs.append(_train(later_job, console).run)
        summary = summarize_seeds(runs)
    if as_json:
        record = {"run": str(run.folder), **run.config, "metrics": run.metrics}
        json.dump(record, sys.stdout)
        print()
        return 0
    for line in _summary(run, run.metrics, summary):
        console.say(line)
    return 0


def _later_jobs(first: Job, repeats: int) -> list[Job]:
    """The jobs of --repeats after the first, a seed each.

    EdgegraftError now, not after the first has been trained, when a folder is taken.
    """
    from finetune.run import Run

    jobs = []
    for seed in range(first.settings.seed + 1, first.settings.seed + repeats):
        folder = first.folder.with_name(f"{first.folder.name}-seed{seed}")
        Run.refuse_taken(folder, overwrite=first.overwrite)
        settings = replace(first.settings, seed=seed)
        jobs.append(replace(first, settings=settings, folder=folder))
    return jobs


def _train(job: Job, console: Console) -> Trained:
    from finetune.job import run_job

    trained = run_job(job, console)
    trained.prepared.pixels.close()
    return trained


def _summary(
    run: Run, metrics: dict[str, Any], seeds: dict[str, Any] | None
) -> list[str]:
    """The final lines of output."""
    # the accuracy on photos that it learned from would mislead
    validation = "cross_validated" if metrics["cross_validated"] else "validation"
    lines = []
    for part in (validation, "test"):
        result = metrics[part]
        low, high = result["interval"]
        lines.append(
            f"{part.replace('_', '-')}: {result['accuracy']:.1%} of {result['photos']} "
            f"photos right (95 % interval {low:.1%} to {high:.1%}), Keras before export"
        )
    if seeds is not None:
        low, high = seeds["accuracy"]["interval"]
        lines.append(
            f"test, {len(seeds['runs'])} seeds: mean {seeds['accuracy']['mean']:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})"
        )
    return [
        *lines,
        f"run folder: {run.folder}",
        f"next: edgegraft quantize {run.folder}",
    ]


def main(argv: Sequence[str] | None = None, prog: str = "edgegraft finetune") -> int:
    """`edgegraft finetune`; returns the exit code."""
    from edge.command import run_command

    return run_command(add_parser, run, argv, prog, FINETUNE)
