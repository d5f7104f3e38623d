"""A batch as files to take away: CSV, JSON, photos sorted into label folders.

CSV and JSON hold what `edgegraft edge classify --csv` and `--json` would, in the same
columns and keys, to the digit.

It does not know: Streamlit.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from edge.classifier import Prediction
from streamlit_app.answer import Row
from streamlit_app.model_pool import Pool
from streamlit_app.uploads import MEGABYTE, Photo

Done = Sequence[tuple[Photo, Row]]
MOST_SORTED_BYTES = 1024 * MEGABYTE  # of a ZIP that is made in memory


def as_csv(done: Done, top_k: int) -> str:
    """A header and a row for each photo."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    header = ["photo", "label", "probability", "known", "familiarity"]
    header += ["decode_ms", "inference_ms"]
    for rank in range(2, top_k + 1):
        header += [f"label_{rank}", f"probability_{rank}"]
    rows.writerow(header)
    for photo, row in done:
        told = row.prediction
        familiar = "" if told.familiarity is None else f"{told.familiarity:.6g}"
        line = [photo.name, told.label, f"{told.probability:.6f}"]
        line += [str(told.known).lower(), familiar]
        line += [f"{row.decode_ms:.3f}", f"{row.inference_ms:.3f}"]
        for label, chance in told.ranking[1:top_k]:
            line += [label, f"{chance:.6f}"]
        rows.writerow(line)
    return out.getvalue()


def as_json(
    pool: Pool, model: str, done: Done, failures: Sequence[tuple[str, str]], top_k: int
) -> str:
    """One document."""
    card, runtime = pool.facts.card, pool.facts.runtime
    return json.dumps(
        {
            "model": model,
            "name": card.name if card else None,
            "variant": card.variant if card else None,
            "runtime": runtime.name,
            "runtime_version": runtime.version,
            "photos": [
                {
                    "photo": photo.name,
                    **_record(row.prediction, top_k),
                    "decode_ms": round(row.decode_ms, 3),
                    "inference_ms": round(row.inference_ms, 3),
                }
                for photo, row in done
            ],
            "failures": [{"photo": name, "reason": why} for name, why in failures],
        },
        indent=1,
    )


def _record(told: Prediction, top_k: int) -> dict[str, object]:
    return {
        "label": told.label,
        "probability": told.probability,
        "known": told.known,
        "familiarity": told.familiarity,
        "ranking": [
            {"label": label, "probability": chance}
            for label, chance in told.ranking[:top_k]
        ],
    }


def as_zip(done: Done) -> bytes:
    """The photos, unchanged, in a folder for each answer; unknown ones in `unknown`.

    Stops at `MOST_SORTED_BYTES` and then holds a file that says what is missing.
    """
    out = io.BytesIO()
    taken: set[str] = set()
    left: list[str] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for photo, row in done:
            content = photo.read()
            if out.tell() + len(content) > MOST_SORTED_BYTES:
                left.append(photo.name)
                continue
            folder = re.sub(r"[^\w .,()-]+", "_", row.prediction.label).strip(". ")
            path = _free(f"{folder or 'label'}/{_file_name(photo.name)}", taken)
            archive.writestr(path, content)
        if left:
            archive.writestr("LEFT_OUT.txt", "\n".join(left) + "\n")
    return out.getvalue()


def _file_name(name: str) -> str:
    """The last part of a name, with nothing in it that means something to a disk."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return re.sub(r"[\x00-\x1f:*?\"<>|]+", "_", last).lstrip(".") or "photo"


def _free(path: str, taken: set[str]) -> str:
    """The path, numbered when there is such a file already."""
    stem, dot, ending = path.rpartition(".")
    number, free = 2, path
    while free.casefold() in taken:
        free = f"{stem}-{number}{dot}{ending}"
        number += 1
    taken.add(free.casefold())
    return free
