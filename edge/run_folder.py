"""Which model file of a run's folder to use.

The folder is written by training, export and comparison: ``run.json``,
``exports/VARIANT.tflite``, ``comparison.json`` with the file to ship.
"""

from __future__ import annotations

import os
import shlex

from edge.card import digest
from edge.errors import EdgegraftError
from edge.files import read_regular
from edge.records import COMPARISON, RUN, Record, Schema, read_record

RUN_FILE = "run.json"
ARTIFACTS = "artifacts"  # where runs lie unless --artifacts says otherwise
USUAL = ("int8", "float32")  # taken where no comparison says which, in this order


def file_inside(folder: str) -> str:
    """What to give instead of a run's folder; empty where it is no run's."""
    for name in (recommended(folder), *USUAL):
        file = _export(folder, name or "")
        if os.path.isfile(file):
            return f"; this run's file is {file}"
    if os.path.isfile(os.path.join(folder, RUN_FILE)):
        return f", a run without files yet; make them: {_export_command(folder)}"
    return ""


def find_model(run: str, variant: str | None = None) -> tuple[str, str]:
    """The model file of a run folder, and a sentence that says why this one.

    Without `variant` it is the file that the run's comparison recommends, else int8.
    A path that is no folder is the file itself. EdgegraftError where there is none.
    """
    if not os.path.exists(run):
        raise EdgegraftError(
            f"expected a run's folder or a .tflite file, got {run}, which is not "
            f"there{_runs_beside(run)}"
        )
    if not os.path.isdir(run):
        return run, ""
    if variant is None:
        try:
            read_record(os.path.join(run, "comparison.json"), COMPARISON)
        except FileNotFoundError:
            pass
        except EdgegraftError as error:  # damaged
            raise EdgegraftError(
                f"{error}; compare again, or name a file of the run (--variant int8)"
            ) from None
    best = recommended(run)
    name = variant or best or USUAL[0]
    model = _export(run, name)
    if not os.path.isfile(model):
        exports = os.path.join(run, "exports")
        names = sorted(os.listdir(exports)) if os.path.isdir(exports) else []
        if not names and not os.path.isfile(os.path.join(run, RUN_FILE)):
            raise EdgegraftError(
                f"expected a run's folder (with run.json) or a .tflite file, got the "
                f"folder {run}{_runs_beside(os.path.join(run, 'x'))}"
            )
        variants = [n.removesuffix(".tflite") for n in names if n.endswith(".tflite")]
        raise EdgegraftError(
            f"{run}: expected exports/{name}.tflite in this run, got "
            f"{', '.join(variants) or 'none'}; run: {_export_command(run)}"
        )
    if name == best:
        reason = "the one that the run's comparison recommends"
    elif best is not None:
        reason = f"the run's comparison recommends {best}"
    elif recommends_none(run):
        reason = "the run's comparison recommends no file"
    else:
        reason = f"which to ship was not measured: edgegraft compare {shlex.quote(run)}"
    return model, f"{name}.tflite: {reason}"


def _runs_beside(path: str) -> str:
    """The runs in the folder that `path` would lie in, for a message."""
    parent = os.path.dirname(path) or os.curdir
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return ""
    runs = [
        name for name in names if os.path.isfile(os.path.join(parent, name, RUN_FILE))
    ]
    text = ", ".join(runs[:5]) + (", ..." if len(runs) > 5 else "")
    return f"; the runs in {parent}: {text}" if runs else ""


def recommends_none(run: str) -> bool:
    """Whether the last comparison had no file to recommend, as for a small budget."""
    try:
        record = read_record(os.path.join(run, "comparison.json"), COMPARISON)
    except (FileNotFoundError, EdgegraftError):
        return False
    return (record.get("ship") or {}).get("file") is None


def recommended(run: str) -> str | None:
    """The variant that the run's comparison says to ship.

    None without a comparison, and where that file is not there any more, or is not
    the one that was measured.
    """
    record = _record(run, "comparison.json", COMPARISON)
    try:
        title = record["ship"]["file"]
        (entry,) = [file for file in record["files"] if file["title"] == title]
        name = str(entry["file"]).removesuffix(".tflite")
        content = read_regular(_export(run, name), inside=run)
        return name if digest(content) == entry["model_sha256"] else None
    except (KeyError, TypeError, ValueError, OSError, EdgegraftError):
        return None


def trained_with(model: str) -> frozenset[str]:
    """sha256 of the photos that the run of an exported file was trained or tuned on;
    none where the file lies in no run's exports, or the run's split cannot be read."""
    import csv
    import io

    exports, _ = os.path.split(os.path.abspath(model))
    run, name = os.path.split(exports)
    if name != "exports":
        return frozenset()
    try:
        split = read_regular(os.path.join(run, "split.csv"), inside=run).decode()
        rows = list(csv.DictReader(io.StringIO(split, newline="")))
        return frozenset(row["sha256"] for row in rows if row["split"] != "test")
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return frozenset()


def resume_command(run: str, verb: str = "finetune") -> str:
    """The command that goes on with an interrupted run; `verb` is finetune or build."""
    name, parent = os.path.basename(os.path.abspath(run)), os.path.join(run, os.pardir)
    option = ""
    if os.path.abspath(parent) != os.path.abspath(ARTIFACTS):
        option = f" --artifacts {shlex.quote(os.path.normpath(parent))}"
    return f"edgegraft {verb} --run {shlex.quote(name)}{option} --resume"


def _export_command(run: str) -> str:
    """The command that exports the files that a run lacks."""
    quantize = f"edgegraft quantize {shlex.quote(run)}"
    if _record(run, RUN_FILE, RUN).get("status") in (None, "trained"):
        return quantize
    return f"{resume_command(run)} (its training was interrupted), then {quantize}"


def _export(run: str, variant: str) -> str:
    return os.path.join(run, "exports", f"{variant}.tflite")


def _record(run: str, name: str, schema: Schema) -> Record:
    """A JSON object of the folder; empty where there is none that can be read."""
    try:
        return read_record(os.path.join(run, name), schema)
    except (OSError, EdgegraftError):
        return {}
