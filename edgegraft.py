"""edgegraft: your photos in, a measured model file (.tflite) for a Raspberry Pi out.

To begin:
    edgegraft build                       try it on drawn cats and dogs
    edgegraft build PHOTOS --run first    with your photos: a folder for each label
    edgegraft edge classify FILE PHOTO    classify a photo with a model file
    edgegraft app                         the same in the browser

All commands (edgegraft COMMAND -h lists the options of one):
    edgegraft build PHOTOS      everything in one go: check the photos, train, write the
                                model files, measure them, recommend one
    edgegraft data              photos: find bad ones (audit), split, capture, draw some
    edgegraft backbones         the pretrained networks to start from
    edgegraft finetune PHOTOS   the training alone; writes a run, a folder in artifacts/
    edgegraft quantize RUN      the model files of a run alone: float32 and int8, which
                                is a quarter of the size and faster on small processors
    edgegraft compare RUN...    accuracy, speed and size of files; which one to ship
    edgegraft search PHOTOS     the best network for your photos within a budget of
                                milliseconds and megabytes
    edgegraft robustness RUN    accuracy on blurred, dark, noisy and turned photos
    edgegraft edge              on the device: classify, camera, info, doctor, bench,
                                evaluate, serve, pack
    edgegraft app               the page: drop photos, see labels

Exit codes: 0 done; 1 an audit found too few photos to train on; 2 bad input, or
a photo that cannot be read (one line on stderr says what and where, --debug shows the
traceback); 3 a file misses its accuracy target, --target refuses it, or none fits the
budget; 70 an error of edgegraft itself; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.audit.audit import Audit
    from edge.classifier import Classifier, Prediction
    from edge.errors import EdgegraftError
    from finetune.console import Console
    from finetune.job import Job
    from finetune.run import Run
    from quantize.comparison.records import Comparison
    from quantize.export import ExportResult
    from quantize.search.records import SearchResult

__version__ = "0.2.0"
__all__ = [
    "Classifier",
    "EdgegraftError",
    "Prediction",
    "Run",
    "audit",
    "build",
    "compare",
    "finetune",
    "load",
    "main",
    "quantize",
    "search",
]

BUILD = "Photos in, a verified int8 .tflite out: every step in one command."
SAMPLE_COUNT = 250  # drawn photos of each label, when no photos are given
SAMPLE_RUN = "quickstart"
ARTIFACTS = Path("artifacts")
# verb -> (module with the command's main, name of that function)
VERBS = {
    "build": (__name__, "build_main"),
    "data": ("data.cli", "main"),
    "backbones": ("backbones.cli", "main"),
    "finetune": ("finetune.cli", "main"),
    "quantize": ("quantize.cli", "main"),
    "compare": ("quantize.cli", "compare_main"),
    "search": ("quantize.cli", "search_main"),
    "robustness": ("finetune.robustness", "main"),
    "edge": (__name__, "edge_main"),
    "app": ("streamlit_app.cli", "main"),
}
# The commands below a verb, to suggest when the verb was left out
BELOW = {
    "edge": (
        "classify",
        "camera",
        "info",
        "doctor",
        "bench",
        "evaluate",
        "serve",
        "pack",
    ),
    "data": ("audit", "split", "sample", "capture"),
}
# What other tools call these
OTHER_NAMES = {"train": "finetune", "predict": "edge classify", "serve": "app"}
ROOMS = ("edge", "data", "backbones", "finetune", "quantize", "streamlit_app")
_CLASSES = {
    "Classifier": "edge.classifier",
    "Prediction": "edge.classifier",
    "EdgegraftError": "edge.errors",
    "Run": "finetune.run",
}


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module 'edgegraft' has no attribute {name!r}")
    _refuse_hidden_rooms()
    return getattr(import_module(_CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# --- Python API -----------------------------------------------------------------------
def build(
    photos: str | os.PathLike[str] | None = None,
    *,
    run: str | None = None,
    artifacts: str | os.PathLike[str] = ARTIFACTS,
    variants: Sequence[str] = ("float32", "int8"),
    unknown: str | os.PathLike[str] | None = None,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Check photos, train, export, measure: what `edgegraft build` does.

    photos: a folder with one folder per label, a list or an archive; None draws the
    sample set. run: the name of the run in `artifacts`. unknown: a folder of photos
    that show none of the labels. budget_ms, budget_mb: highest median latency in
    milliseconds and size in MB of the file to ship. options: those of the command, such
    as backbone="mobilenet_v2_1.0", size=160 (pixels), unfreeze="none", epochs=4,
    time_limit=10 (minutes), layout="labels", rename={"kat": "cat"}, target="edgetpu".
    quiet: print nothing.

    Returns the `Run`: `.best` (the file to ship), `.files`, `.metrics`. Raises
    EdgegraftError for bad input, in one line.
    """
    _refuse_hidden_rooms()
    from finetune.console import Console
    from quantize.build import build as run_build
    from quantize.comparison.compare import CompareOptions
    from quantize.comparison.records import Budget
    from quantize.export import refuse_bad
    from quantize.reporting import text

    console = Console(quiet=quiet, verbose=False)
    budget = Budget(budget_ms, budget_mb)
    export = _export_options(variants, options)
    refuse_bad(**export)  # before the sample set is drawn
    if photos is None and not options.get("resume"):
        run = run or SAMPLE_RUN
        if "backbone" not in options and not options.get("small"):
            options["backbone"] = _sample_backbone(console)
        # refuses bad options before the set is drawn; a folder stands in for it
        _job(Path(), run, artifacts, overwrite, options, Console(quiet=True))
        photos = _draw_sample(Path(artifacts), run, console)[0]
    built = run_build(
        _job(photos, run, artifacts, overwrite, options, console),
        export,
        CompareOptions(budget=budget, unknown=_path("unknown", unknown)),
        console,
    )
    if built.comparison is not None:
        for line in ("", *text.summary(built.comparison)):
            console.say(line)
    return built.run


def audit(
    photos: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Audit:
    """What is wrong with photos: unreadable ones, copies, blur, few of a label.

    out: a folder for the report (audit.html, audit.csv, audit.json). Returns an
    `Audit`: print it for the report; `.obstacles` (why these photos cannot be trained
    on, empty where they can), `.warnings`, `.findings` (kind, path, reason of each
    photo). Raises EdgegraftError where there are no photos.
    """
    _refuse_hidden_rooms()
    from data.audit.audit import audit as audit_folder
    from data.audit.facts import FactCache
    from data.audit.report import refuse, write
    from data.source import choose
    from data.store import cache_folder
    from edge.terminal import Progress

    source, report_folder = _photos_path(photos), _path("out", out)
    if report_folder is not None:
        refuse(report_folder, overwrite)  # before minutes of reading
    folder = choose(source, None, allow_few=True).folder
    with (
        Progress(title="reading photos", live=False if quiet else None) as bar,
        FactCache(cache_folder() / "audits.sqlite") as fact_cache,
    ):
        result = audit_folder(folder, fact_cache=fact_cache, progress=bar.update)
    if report_folder is not None:
        write(result, report_folder, overwrite=overwrite)
    return result


def finetune(
    photos: str | os.PathLike[str],
    *,
    run: str | None = None,
    artifacts: str | os.PathLike[str] = ARTIFACTS,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train only; `quantize` makes the files. Arguments as for `build`."""
    _refuse_hidden_rooms()
    from finetune.console import Console
    from finetune.job import run_job

    console = Console(quiet=quiet)
    trained = run_job(
        _job(photos, run, artifacts, overwrite, options, console), console
    )
    trained.prepared.pixels.close()
    return trained.run


def quantize(
    run: Run | str | os.PathLike[str],
    *,
    variants: Sequence[str] = ("float32", "int8"),
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, ExportResult]:
    """Convert a run's network to TFLite files; results by variant.

    A file that misses its accuracy target has `.rejected` set and another name.
    """
    _refuse_hidden_rooms()
    from finetune.console import Console
    from finetune.run import Run
    from quantize.export import export

    opened = run if isinstance(run, Run) else Run.open(_needed("run", run))
    return export(opened, variants, overwrite=overwrite, console=Console(quiet=quiet))


def compare(
    things: Iterable[Run | str | os.PathLike[str]] | Run | str | os.PathLike[str],
    *,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    quiet: bool = False,
    **options: Any,
) -> Comparison:
    """Measure runs and `.tflite` files on the first run's test photos; choose one.

    options: photos (a folder, list, archive or run that judges instead), unknown (a
    folder of photos that show none of the labels), out (the folder to write to),
    devices (files of `edge bench --json`), runtime, margin (a fraction), any_variant.

    Returns a `Comparison`: `.best` (the path to ship, None where none fits the budget),
    `.choice.why`, `.files` (each with `.evaluation` and `.timings`), `.to_dict()` (what
    comparison.json holds). Raises EdgegraftError for bad input.
    """
    _refuse_hidden_rooms()
    from finetune.console import Console
    from finetune.run import Run
    from quantize.comparison import compare as comparison
    from quantize.comparison.records import Budget
    from quantize.reporting import text

    names = {field.name for field in dataclasses.fields(comparison.CompareOptions)}
    _refuse_unknown(options, names - {"budget"}, "compare")
    for name in ("photos", "unknown", "out"):
        options[name] = _path(name, options.get(name))
    devices = _several(options.get("devices", ()))
    options["devices"] = tuple(_needed("devices", path) for path in devices)
    console = Console(quiet=quiet)
    compared = comparison.compare(
        [
            thing if isinstance(thing, Run) else _needed("a run or file", thing)
            for thing in _several(things)
        ],
        comparison.CompareOptions(budget=Budget(budget_ms, budget_mb), **options),
        console=console,
    )
    for line in ("", *text.summary(compared)):
        console.say(line)
    return compared


def search(
    photos: str | os.PathLike[str],
    *,
    budget_ms: float | None = None,
    budget_mb: float | None = None,
    run: str | None = None,
    artifacts: str | os.PathLike[str] = ARTIFACTS,
    backbones: Sequence[str] = (),
    time_limit: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> SearchResult:
    """Find the best network for these photos within a budget; train and export it.

    backbones: names to search among; () for every one whose weights are here. run: the
    name of the search's folder in `artifacts`. time_limit: about how long, in minutes.
    options: device (a file of `edge bench --json`), runtime, seed, resume, and those
    that say how photos are read (layout, columns, rename, follow_links).
    EdgegraftError for bad input, and where no network is within the budget.
    """
    _refuse_hidden_rooms()
    from data.source import PhotoOptions
    from finetune.console import Console
    from quantize.comparison.records import Budget
    from quantize.search.records import SearchOptions
    from quantize.search.search import search as find_best

    _refuse_unknown(
        options, {"device", "runtime", "seed", "resume", *_READING}, "search"
    )
    reading = {name: options.pop(name) for name in _READING if name in options}
    options["device"] = _path("device", options.get("device"))
    source, folder = _photos_path(photos), _path("artifacts", artifacts)
    names = backbones.split(",") if isinstance(backbones, str) else backbones
    return find_best(
        SearchOptions(
            photos=source,
            folder=SearchOptions.folder_for(source, folder or ARTIFACTS, run),
            budget=Budget(budget_ms, budget_mb),
            backbones=tuple(names),
            time_limit=time_limit,
            overwrite=overwrite,
            photo_options=PhotoOptions(**reading),
            **options,
        ),
        Console(quiet=quiet),
    )


def load(model: Run | str | os.PathLike[str] | bytes, **options: Any) -> Classifier:
    """A classifier of a `.tflite` file, its bytes, or a run (its recommended file).

    options: threads=2, runtime="litert", labels=[...] (for a file that has none, or in
    place of its own), xnnpack=False, delegate="libedgetpu.so.1". Raises EdgegraftError
    for what is no model.
    """
    _refuse_hidden_rooms()
    from edge.classifier import Classifier
    from edge.errors import EdgegraftError
    from edge.run_folder import find_model
    from edge.terminal import without_chatter

    if not isinstance(model, bytes):
        if model is None:
            raise EdgegraftError(
                "expected a .tflite file or a run, got None: where no file is within "
                "the budget of the last comparison, run.best is None; run.files has all"
            )
        path: Any = getattr(model, "folder", model)
        model = find_model(str(_needed("model", path)))[0]
    with without_chatter():
        return Classifier(model, **options)


_READING = ("layout", "columns", "rename", "follow_links")
_EXPORT_OPTIONS = {  # name in the command: argument of `quantize.export.export`
    "calibration": "calibration_count",
    "max_drop": "max_drop",
    "target": "target",
    "ladder": "repair",
}


def _job(
    photos: str | os.PathLike[str] | None,
    run: str | None,
    artifacts: str | os.PathLike[str],
    overwrite: bool,
    options: Mapping[str, Any],
    console: Console,
) -> Job:
    """The job that `options` describe; EdgegraftError for an unknown option."""
    from backbones import custom_cnn, registry
    from data.source import PhotoOptions, refuse_missing
    from edge.errors import EdgegraftError
    from finetune.cli import run_folder
    from finetune.job import Job
    from finetune.settings import Settings

    job_fields = {
        field.name for field in dataclasses.fields(Job) if "option" in field.metadata
    }
    setting_fields = {field.name for field in dataclasses.fields(Settings)} - {"white"}
    _refuse_unknown(
        options, {*job_fields, *setting_fields, *_READING, "small"}, "build"
    )
    job_options, setting_options, reading = (
        {name: value for name, value in options.items() if name in names}
        for names in (job_fields, setting_fields, _READING)
    )
    for name in ("exclude_from", "add"):
        job_options[name] = _path(name, options.get(name))
    if options.get("small"):
        setting_options.setdefault("backbone", registry.SMALL)
    if isinstance(options.get("cnn"), str | os.PathLike):
        setting_options["cnn"] = custom_cnn.read_config(options["cnn"]).to_dict()
    resume, folder = options.get("resume"), _path("artifacts", artifacts)
    source = None if resume and photos is None else _photos_path(photos)
    if source is not None:
        refuse_missing(source)
    if resume:
        if run is None:
            raise EdgegraftError("expected run='NAME' with resume=True, got none")
        if setting_options:
            raise EdgegraftError(
                "expected resume=True without settings (a run keeps its own), got "
                f"{next(iter(setting_options))}"
            )
        settings = Settings()
    else:
        settings = Settings.for_network(console.say, **setting_options)
    return Job(
        source,
        settings,
        run_folder(folder or ARTIFACTS, run, source, settings),
        overwrite=overwrite,
        photo_options=PhotoOptions(**reading),
        **job_options,
    )


def _export_options(
    variants: Sequence[str] | str, options: dict[str, Any]
) -> dict[str, Any]:
    """Moves the arguments of `quantize.export.export` out of `options`; EdgegraftError
    for a non-number."""
    from edge.errors import EdgegraftError

    arguments = {
        argument: options.pop(option)
        for option, argument in _EXPORT_OPTIONS.items()
        if option in options
    }
    for name in ("max_drop", "calibration"):
        value = arguments.get(_EXPORT_OPTIONS[name], 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise EdgegraftError(f"expected a number for {name}, got {value!r}")
    if "max_drop" in arguments:
        arguments["max_drop"] /= 100
    names = variants if isinstance(variants, str) else tuple(_several(variants))
    return {"variants": names, **arguments}


def _refuse_unknown(options: Mapping[str, Any], known: set[str], verb: str) -> None:
    """EdgegraftError for the first name that is not `known`."""
    from edge.errors import EdgegraftError

    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            known_names = f"it takes {', '.join(sorted(known))}"
            advice = f"did you mean {close[0]}?" if close else known_names
            raise EdgegraftError(f"edgegraft.{verb} has no option {name!r}; {advice}")


def _path(name: str, value: str | os.PathLike[str] | None) -> Path | None:
    """EdgegraftError for what is no path."""
    from edge.errors import EdgegraftError

    try:
        return None if value is None else Path(value)
    except TypeError:
        raise EdgegraftError(f"{name}: expected a path, got {value!r:.80}") from None


def _needed(name: str, value: str | os.PathLike[str] | None) -> Path:
    path = _path(name, value)
    if path is None:
        from edge.errors import EdgegraftError

        raise EdgegraftError(f"{name}: expected a path, got None")
    return path


def _several(values: Any) -> list[Any]:
    """What is given as several or as one."""
    one = isinstance(values, str | os.PathLike) or not isinstance(values, Iterable)
    return [values] if one else list(values)


def _photos_path(photos: str | os.PathLike[str] | None) -> Path:
    if photos is None:
        from edge.errors import EdgegraftError

        raise EdgegraftError("photos: expected a folder, list or archive, got none")
    return _needed("photos", photos)


# --- the sample set ------------------------------------------------------------------
def _draw_sample(
    artifacts: Path, run: str, console: Console
) -> tuple[Path, list[Path]]:
    """(photos, two test pictures) of the sample set, drawn beside the run's folder."""
    from data.sample.sample_set import write_sample

    console.stage("no photos given: drawing the sample set of cats and dogs")
    name = "sample" if run != "sample" else "sample-photos"
    sample = write_sample(artifacts / name, count=SAMPLE_COUNT)
    return _from_here(sample.photos), [_from_here(picture) for picture in sample.tests]


def _sample_backbone(console: Console) -> str:
    """Pretrained where weights are on this machine, else the CNN from scratch."""
    from backbones import registry
    from edge.errors import EdgegraftError

    try:
        registry.choose_pretrained()
    except EdgegraftError as error:
        console.say(f"  training a CNN from scratch: {error}")
        return "custom_cnn"
    return registry.AUTO


def _from_here(path: Path) -> Path:
    """The path relative to the working folder, where it lies in there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


# --- the command ----------------------------------------------------------------------
def _add_build(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import add_options
    from quantize.cli import add_compare_options, add_export_options

    parser.add_argument(
        "photos",
        type=Path,
        nargs="?",
        metavar="PHOTOS",
        help="a folder with one folder per label, a list (.csv, .jsonl: path, label, "
        "and split, group if wanted) or an archive (.zip, .tar, .tar.gz); without it "
        "a sample set of cats and dogs is drawn and used",
    )
    add_options(parser)
    add_export_options(parser)
    add_compare_options(parser)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print each step and all tables (the run folder always has them)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _run_build(args: argparse.Namespace) -> int:
    """`edgegraft build`: the exit code."""
    from finetune.cli import job_from
    from finetune.console import Console
    from quantize.build import build as run_build
    from quantize.cli import compare_options
    from quantize.export import EXIT_REJECTED, refuse_bad
    from quantize.reporting import text

    console = Console(json=args.json, verbose=args.verbose)
    export = _export_options(
        args.variants, {name: getattr(args, name) for name in _EXPORT_OPTIONS}
    )
    refuse_bad(**export)  # before the sample set is drawn and a network is named
    comparing = compare_options(args)
    pictures: list[Path] = []
    if args.photos is None and not args.resume:
        args.run = args.run or SAMPLE_RUN
        if not args.small:
            args.backbone = args.backbone or _sample_backbone(console)
        args.photos = Path()  # stands in, so that bad options are refused first
        job_from(args, Console(quiet=True))
        args.photos, pictures = _draw_sample(args.artifacts, args.run, console)
    built = run_build(job_from(args, console), export, comparing, console)
    if built.comparison is None:
        return 0
    if args.json:
        document = {"run": str(built.run.folder), **built.comparison.to_dict()}
        json.dump(document, sys.stdout)
        print()
    else:
        lines = text.details(built.comparison) if args.verbose else []
        for line in (*lines, "", *text.summary(built.comparison)):
            console.say(line)
    best = built.comparison.best
    if best is not None and pictures:
        classifier = load(best)
        for picture in pictures:
            prediction = classifier.classify(picture)
            probability = prediction.probability
            console.say(f"{prediction.label:8} {probability:6.1%}  {picture}")
    rejected = any(result.rejected for result in built.results.values())
    return EXIT_REJECTED if rejected else 0


def build_main(argv: Sequence[str] | None, prog: str) -> int:
    """`edgegraft build`; 3 when a file was rejected (all else is written then, too)."""
    from edge.command import run_command

    return run_command(_add_build, _run_build, argv, prog, BUILD)


def edge_main(argv: Sequence[str], prog: str) -> int:
    """`edgegraft edge`: the device's command, whose `evaluate` also reads runs and all
    that `build` reads."""
    from edge.cli import main

    if argv[:1] != ["evaluate"]:
        return main(argv, prog)
    from data.source import LabelledReader

    return main(argv, prog, LabelledReader())


def _unknown(verb: str) -> str:
    """The one line for a verb that does not exist."""
    commands = {name: name for name in VERBS} | OTHER_NAMES
    commands |= {
        name: f"{parent} {name}" for parent, names in BELOW.items() for name in names
    }
    close = difflib.get_close_matches(verb, commands, n=1)
    guess = f"; did you mean: edgegraft {commands[close[0]]}?" if close else ""
    return (
        f"edgegraft: error: unknown command {verb!r}{guess}; commands: "
        f"{', '.join(VERBS)} (see edgegraft --help)"
    )


def _refuse_hidden_rooms() -> None:
    """ImportError if another package with the name of one of ours comes first on the
    import path."""
    home = Path(__file__).resolve().parent
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        if spec is None:
            continue
        path = Path(spec.origin) if spec.origin else None
        if path is None or path.resolve().parents[1] != home:
            where = path or next(iter(spec.submodule_search_locations or ()), "?")
            raise ImportError(
                f"expected the package {room} of edgegraft in {home}, got another one "
                f"of that name at {where}; start Python in another folder, or rename it"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return 0 if words else 2
    verb, *arguments = words
    if verb == "--version":
        print(f"edgegraft {__version__}")
        return 0
    if verb not in VERBS:
        print(_unknown(verb), file=sys.stderr)
        return 2
    try:
        _refuse_hidden_rooms()
    except ImportError as error:
        print(f"edgegraft: error: {error}", file=sys.stderr)
        return 2
    module, function = VERBS[verb]
    run: Callable[[list[str], str], int] = getattr(import_module(module), function)
    return run(arguments, f"edgegraft {verb}")


if __name__ == "__main__":
    raise SystemExit(main())
