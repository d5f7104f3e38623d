"""Downloads of a batch: CSV, JSON, and a ZIP of the photos sorted into label folders.

CSV and JSON are those of `edgegraft edge classify --csv` and `--json`: the same
columns, keys and digits.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from edge.classifier import Classifier
from edge.classify.formats import CsvWriter, describe, record
from streamlit_app.answer import Row
from streamlit_app.uploads import MEGABYTE, Photo

Results = Sequence[tuple[Photo, Row]]
MAX_SORTED_BYTES = 1024 * MEGABYTE  # of a ZIP, which is built in memory


def as_csv(classifier: Classifier, results: Results, top_k: int) -> str:
    """A header and a row for each photo."""
    file = io.StringIO()
    writer = CsvWriter(file, classifier, top_k)
    writer.begin()
    for photo, row in results:
        writer.photo(photo.name, row.prediction, row.decode_ms, row.inference_ms)
    return file.getvalue()


def as_json(
    classifier: Classifier,
    model: str,
    results: Results,
    failures: Sequence[tuple[str, str]],
) -> str:
    """One JSON document: the model, its runtime, all photos and failures."""
    return json.dumps(
        {
            **describe(model, classifier),
            "photos": [
                record(photo.name, row.prediction, row.decode_ms, row.inference_ms)
                for photo, row in results
            ],
            "failures": [{"photo": name, "reason": why} for name, why in failures],
        },
        indent=1,
    )


def as_zip(results: Results) -> bytes:
    """The photos, unchanged, in a folder for each answer; unknown ones in `unknown`.

    Photos beyond `MAX_SORTED_BYTES` are left out and listed in LEFT_OUT.txt.
    """
    file = io.BytesIO()
    paths: set[str] = set()
    left_out: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo, row in results:
            content = photo.read()
            if file.tell() + len(content) > MAX_SORTED_BYTES:
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
