"""exports.json of a run: how close each exported file comes to float32, and by what.

`quantize.export` writes it, a comparison shows it. A record holds for the file that it
was written for, known by its digest.
"""

from __future__ import annotations

from typing import Any

from edge.records import EXPORTS, Record, read_record
from finetune.run import Run

RECORD = "exports.json"


def read(run: Run) -> dict[str, Record]:
    """The records by variant, none before the export; EdgegraftError for a damaged
    file."""
    try:
        records = read_record(run.exports / RECORD, EXPORTS, inside=run.folder)
    except FileNotFoundError:
        return {}
    return {variant: record for variant, record in records.items() if record}


def figures(record: Record) -> dict[str, Any]:
    """Target, what was reached, by which repair, and its cost, as plain values.

    `repair` is None for files that are not repaired. Its seconds are those of all
    repairs that were tried.
    """
    fidelity, tried = record.get("fidelity") or {}, record.get("ladder") or ()
    verdict = "reached" if record.get("target_reached") else "missed"
    return {
        "target_agreement": record.get("target_agreement"),
        "verdict": "rejected" if record.get("rejected") else verdict,
        "new_agreement": fidelity.get("agreement"),
        "new_shift": fidelity.get("shift"),
        "repair": record.get("rung") if tried else None,
        "repair_seconds": sum(rung.get("seconds") or 0 for rung in tried)
        if tried
        else None,
        "float_layers": len(record.get("kept_float") or ()) or None,
    }
