"""`edgegraft finetune PHOTOS`: its options, and what it prints.

Options that are not given take the value that suits the kind of network: a pretrained
backbone is fine-tuned gently for a few epochs, a network from scratch is trained for
many. The values in force are printed into run.json.

Does not know: how training works.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.errors import EdgegraftError
from finetune.defaults import defaults
from finetune.distributed import VARIABLE
from finetune.options import add_options
from finetune.settings import Settings

FINETUNE = (
    "Train a network on labelled photos: the training alone. It leaves a run, a folder "
    "in artifacts/, from which edgegraft quantize makes the model files."
)


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings that the options ask for."""
    from backbones import custom_cnn, registry

    names = Settings.__dataclass_fields__
    given = {
        name: value
        for name, value in vars(args).items()
        if name in names and name != "cnn" and value is not None
    }
    cnn: dict[str, Any] = {}
    backbone = registry.full_name(given.get("backbone", Settings.backbone))
    if backbone == "custom_cnn":
        config = custom_cnn.read_config(args.cnn, args.set or ())
        cnn = {"cnn": config.to_dict()}
    elif args.cnn or args.set:
        raise EdgegraftError(
            f"expected --cnn and --set with --backbone custom_cnn, got {backbone}"
        )
    scratch = backbone == "custom_cnn" or given.get("weights") == "none"
    unsaid = defaults(registry.get(backbone), scratch=scratch)
    given["backbone"] = backbone
    for name in (
        "teacher",
        "unlabelled",
        "negatives",
    ):  # found from any folder, for --resume
        if name in given:
            given[name] = str(Path(given[name]).resolve())
    return Settings(**{**unsaid, **cnn, **given})


def run_folder(args: argparse.Namespace, settings: Settings) -> Path:
    """artifacts/<run>: the name that was given, or one made from photos and network."""
    from backbones import registry

    name: str | None = args.run
    if name is None:
        if args.photos is None:
            raise EdgegraftError("expected --run NAME where no photos are given")
        photos = args.photos.resolve()
        first = photos.name.split(".")[0] if photos.is_file() else photos.name
        name = f"{first}-{registry.short_name(settings.backbone)}-{settings.size}"
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise EdgegraftError(f"expected --run to be a plain folder name, got {name!r}")
    folder: Path = args.artifacts / name
    return folder


def _refuse_settings(args: argparse.Namespace) -> None:
    """--resume goes on with the run's own settings; others would be a lie."""
    names = [*Settings.__dataclass_fields__, "set", "exclude_from", "add"]
    for name in names:
        if getattr(args, name, None) is not None:
            raise EdgegraftError(
                f"expected --resume without settings (a run keeps its own), got "
                f"--{name.replace('_', '-')}"
            )


def train(args: argparse.Namespace, console: Any) -> Any:
    """Run the job that the options ask for: (run, prepared photos, network).

    The network is None on a worker that only helps the chief (`finetune.distributed`).
    """
    from finetune.job import finetune

    if args.resume:
        if args.run is None:
            raise EdgegraftError("expected --run NAME with --resume")
        _refuse_settings(args)
        settings = Settings()
    else:
        settings = settings_from(args)
    if not 0 < args.memory_limit < 10_000:
        raise EdgegraftError(
            f"expected --memory-limit in GB above 0, got {args.memory_limit}"
        )
    if args.time_limit is not None and not 0 < args.time_limit < 1e6:
        raise EdgegraftError(
            f"expected --time-limit in minutes above 0, got {args.time_limit}"
        )
    return finetune(
        args.photos,
        settings,
        run_folder(args, settings),
        console,
        overwrite=args.overwrite,
        resume=args.resume,
        memory_limit=int(args.memory_limit * 2**30),
        exclude_from=args.exclude_from,
        add=args.add,
        time_limit=args.time_limit and args.time_limit * 60,
    )


@contextmanager
def going_on(args: argparse.Namespace, verb: str) -> Iterator[None]:
    """Ctrl-C within says how to go on with the run of the options, if one was begun.

    verb: finetune or build.
    """
    from finetune.run import RUN_FILE, Run

    def written() -> tuple[Path, int] | None:
        try:
            path = run_folder(args, Settings() if args.resume else settings_from(args))
            return path, (path / RUN_FILE).stat().st_mtime_ns
        except (EdgegraftError, OSError):
            return None

    before = None if args.resume else written()
    try:
        yield
    except KeyboardInterrupt:
        now = written()
        if now is None or now == before:  # nothing yet, or an older run only
            raise
        run = Run.open(now[0])
        if verb == "finetune" and run.trained:
            raise
        raise KeyboardInterrupt(f"go on with: {run.going_on(verb)}") from None


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


def _later_runs(args: argparse.Namespace) -> list[tuple[int, str]]:
    """(seed, name) of each run of --repeats but the first; none may be taken.

    EdgegraftError now, not after the first has been trained.
    """
    from finetune.run import Run

    settings = settings_from(args)
    first = run_folder(args, settings)
    seeds = range(settings.seed + 1, settings.seed + args.repeats)
    found = [(seed, f"{first.name}-seed{seed}") for seed in seeds]
    for _, name in found:
        Run.refuse_taken(first.with_name(name), overwrite=args.overwrite)
    return found


def _repeat(
    args: argparse.Namespace, first: Any, later: list[tuple[int, str]], console: Any
) -> dict[str, Any]:
    """Train the later runs, too; the summary of all."""
    from finetune import repeats

    runs = [first]
    for number, (seed, name) in enumerate(later, 2):
        console.stage(f"repeat {number} of {args.repeats}: seed {seed}")
        args.seed, args.run = seed, name
        run, prepared, _ = train(args, console)
        prepared.pixels.close()
        runs.append(run)
    return repeats.write(runs)


def run(args: argparse.Namespace) -> int:
    from backbones.keras import require_packages
    from finetune.console import Console

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
    with going_on(args, "finetune"):
        return _run(args, console)


def _run(args: argparse.Namespace, console: Any) -> int:
    later = _later_runs(args) if args.repeats > 1 else []
    run, prepared, model = train(args, console)
    prepared.pixels.close()
    if model is None:
        return 0  # one of several workers: the chief has the run
    repeated = _repeat(args, run, later, console) if later else None
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    if args.json:
        json.dump(
            {"run": str(run.folder), **run.config, "metrics": metrics}, sys.stdout
        )
        print()
        return 0
    # Of a head that learnt from the validation photos, too, they tell nothing
    judged = "cross_validated" if metrics["cross_validated"] else "validation"
    for part in (judged, "test"):
        found = metrics[part]
        low, high = found["interval"]
        console.say(
            f"{part.replace('_', '-')}: {found['accuracy']:.1%} of {found['photos']} "
            f"photos right (95 % interval {low:.1%} to {high:.1%}), Keras before export"
        )
    if repeated is not None:
        found = repeated["accuracy"]
        low, high = found["interval"]
        console.say(
            f"test, {args.repeats} seeds: mean {found['mean']:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})"
        )
    console.say(f"run folder: {run.folder}")
    console.say(f"next: edgegraft quantize {run.folder}")
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m finetune") -> int:
    """`edgegraft finetune`; returns the exit code."""
    from edge.command import run_command

    return run_command(add_parser, run, argv, prog, FINETUNE)
