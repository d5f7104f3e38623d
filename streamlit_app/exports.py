"""Downloads of a batch: CSV, JSON, and a ZIP of the photos sorted into label folders.

CSV and JSON are those of `edgegraft edge classify --csv` and `--json`: the same
columns, keys and digits.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from edge.text import csv_cell
from streamlit_app.answer import Row
from streamlit_app.model_pool import ClassifierPool
from streamlit_app.uploads import MEGABYTE, Photo

Results = Sequence[tuple[Photo, Row]]
MOST_SORTED_BYTES = 1024 * MEGABYTE  # of a ZIP, which is built in memory


def as_csv(results: Results, top_k: int) -> str:
    """A header and a row for each photo."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = ["photo", "label", "probability", "known", "familiarity"]
    header += ["decode_ms", "inference_ms"]
    for rank in range(2, top_k + 1):
        header += [f"label_{rank}", f"probability_{rank}"]
    writer.writerow(header)
    for photo, row in results:
        prediction = row.prediction
        known, familiarity = str(prediction.known).lower(), prediction.familiarity
        cells = [csv_cell(photo.name), csv_cell(prediction.label)]
        cells += [f"{prediction.probability:.6f}"]
        cells += [known, "" if familiarity is None else f"{familiarity:.6g}"]
        cells += [f"{row.decode_ms:.3f}", f"{row.inference_ms:.3f}"]
        for label, probability in prediction.ranking[1:top_k]:
            cells += [csv_cell(label), f"{probability:.6f}"]
        writer.writerow(cells)
    return file.getvalue()


def as_json(
    pool: ClassifierPool,
    model: str,
    results: Results,
    failures: Sequence[tuple[str, str]],
    top_k: int,
) -> str:
    """One JSON document: the model, its runtime, all photos and failures."""
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
                    "label": row.prediction.label,
                    "probability": row.prediction.probability,
                    "known": row.prediction.known,
                    "familiarity": row.prediction.familiarity,
                    "ranking": [
                        {"label": label, "probability": probability}
                        for label, probability in row.prediction.ranking[:top_k]
                    ],
                    "decode_ms": round(row.decode_ms, 3),
                    "inference_ms": round(row.inference_ms, 3),
                }
                for photo, row in results
            ],
            "failures": [{"photo": name, "reason": why} for name, why in failures],
        },
        indent=1,
    )


def as_zip(results: Results) -> bytes:
    """The photos, unchanged, in a folder for each answer; unknown ones in `unknown`.

    Photos beyond `MOST_SORTED_BYTES` are left out and listed in LEFT_OUT.txt.
    """
    file = io.BytesIO()
    paths: set[str] = set()
    left_out: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo, row in results:
            content = photo.read()
            if file.tell() + len(content) > MOST_SORTED_BYTES:
                left_out.append(photo.name)
                continue
            folder = re.sub(r"[^\w .,()-]+", "_", row.prediction.label).strip(". ")
            path = _unique(f"{folder or 'label'}/{_file_name(photo.name)}", paths)
            archive.writestr(path, content)
        if left_out:
            archive.writestr("LEFT_OUT.txt", "\n".join(left_out) + "\n")
    return file.getvalue()


def _file_name(name: str) -> str:
    """The last part of a name, safe as a file's name on any system."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return re.sub(r"[\x00-\x1f:*?\"<>|]+", "_", last).lstrip(".") or "photo"


def _unique(path: str, paths: set[str]) -> str:
    """The path, with a number if it is in `paths` already; adds it there."""
    stem, dot, suffix = path.rpartition(".")
    number, unique = 2, path
    while unique.casefold() in paths:
        unique = f"{stem}-{number}{dot}{suffix}"
        number += 1
    paths.add(unique.casefold())
    return unique
