"""The one reader of JSON files that may come from another person.

A model's card and a run's run.json, metrics.json and comparison.json are read within
limits (bytes, values, depth) and validated against a schema; an error names the field.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edge.errors import EdgegraftError
from edge.files import read_regular

# A name of `_KINDS`; a list of one schema: a list of such; a dict: an object whose
# fields fit where it has them (null counts as absent), "*" for all others.
Schema = str | list[Any] | dict[str, Any]
Record = dict[str, Any]

MAX_BYTES = 64 << 20  # 1,000 labels by 1,000 in each of several files' evaluations
MAX_VALUES = 6_000_000  # of lists and objects, about 50 bytes of memory each
MAX_DEPTH = 32  # ours have 8
LARGEST = 1e15  # a magnitude that no figure of a run has
_SHOWN = 40  # characters of a wrong value


def read_record(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    inside: str | os.PathLike[str] | None = None,
) -> Record:
    """The JSON object in a regular file; with `inside`, no folder on the way may lead
    out of that one.

    FileNotFoundError where there is none; EdgegraftError, naming file and field.
    """
    where = os.fspath(path)
    try:
        if os.lstat(path).st_size > MAX_BYTES:
            raise _error(where, f"expected {MAX_BYTES >> 20} MiB at most")
        content = read_regular(path, inside=inside)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _error(where, f"cannot be read: {error.strerror or error}") from None
    return parse_record(content, schema, where)


def parse_record(
    content: bytes, schema: Schema, where: str, max_bytes: int = MAX_BYTES
) -> Record:
    """The JSON object in `content`, UTF-8 (file names may have other bytes).

    EdgegraftError, which begins with `where` and names the field."""
    import json

    if len(content) > max_bytes:
        raise _error(
            where,
            f"expected {max_bytes >> 10:,} KiB at most, got {len(content):,} bytes",
        )
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise _error(where, f"expected {MAX_VALUES:,} values at most")
    try:
        record = json.loads(content.decode("utf-8", "surrogateescape"))
        depth = _depth(record)
    except RecursionError:
        depth = MAX_DEPTH + 1
    except ValueError as error:  # also whole numbers of thousands of digits
        raise _error(
            where, f"expected JSON, got a damaged or half-written file ({error!s:.120})"
        ) from None
    if depth > MAX_DEPTH:
        raise _error(where, f"expected a depth of {MAX_DEPTH} at most")
    check(record, schema, where)
    return dict(record)


def check(value: Any, schema: Schema, where: str) -> None:
    """EdgegraftError, naming the field, where `value` does not fit `schema`."""
    if isinstance(schema, dict):
        _expect(isinstance(value, dict), where, "an object", value)
        for key, inner in value.items():
            inner_schema = schema.get(key, schema.get("*"))
            if inner_schema is not None and inner is not None:
                check(inner, inner_schema, f"{where}: {key:.{_SHOWN}}")
    elif isinstance(schema, list):
        _expect(isinstance(value, list), where, "a list", value)
        for index, entry in enumerate(value):
            check(entry, schema[0], f"{where}[{index}]")
    else:
        _expect(_KINDS[schema](value), where, schema, value)


def _depth(value: Any) -> int:
    """How deep lists and objects are nested."""
    level, depth = [value], 0
    while level := [node for node in level if isinstance(node, (dict, list)) and node]:
        depth += 1
        if depth > MAX_DEPTH:
            break
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return depth


def _expect(fits: bool, where: str, kind: str, value: Any) -> None:
    if not fits:
        raise _error(where, f"expected {kind}, got {value!r:.{_SHOWN}}")


def _error(where: str, reason: str) -> EdgegraftError:
    """With a message that is safe for a terminal, whatever the file holds."""
    from edge.text import printable

    return EdgegraftError(printable(f"{where}: {reason}"))


def is_number(value: Any) -> bool:
    """A finite number, no true or false; NaN fails both comparisons."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


# Kinds of values, as error messages name them
TEXT, NUMBER, COUNT = "text", "a number", "a whole number"
SHARE, SIZE = "a share from 0 to 1", "a number of 0 or more"
_PAIR, _ANYTHING = "two shares from 0 to 1", "anything"
_OBJECT, _FLAG = "an object", "true or false"
_KINDS: dict[str, Callable[[Any], bool]] = {
    # may hold the bytes of a file name that is no UTF-8
    TEXT: lambda value: isinstance(value, str),
    NUMBER: is_number,
    SIZE: lambda value: is_number(value) and value >= 0,
    SHARE: _is_share,
    COUNT: lambda value: type(value) is int and 0 <= value < LARGEST,
    _PAIR: lambda value: (
        isinstance(value, list) and len(value) == 2 and all(map(_is_share, value))
    ),
    _FLAG: lambda value: isinstance(value, bool),
    _OBJECT: lambda value: isinstance(value, dict),
    _ANYTHING: lambda _: True,
}

# --- what our files hold --------------------------------------------------------------
CARD: Schema = {
    "labels": [TEXT],
    "name": TEXT,
    "variant": TEXT,
    "model_sha256": TEXT,
    "temperature": SIZE,
    "familiarity_threshold": NUMBER,
    "familiarity_threshold_unsmoothed": NUMBER,
    "outputs": {"*": TEXT},
    "measured": {
        "*": {
            "accuracy": SHARE,
            "interval": _PAIR,
            "photos": COUNT,
            "weakest_label": TEXT,
            "weakest_recall": SHARE,
            "unknown_refused": SHARE,
            "unknown_photos": COUNT,
            "known_refused": SHARE,
            "auroc": SHARE,
        }
    },
    "provenance": _OBJECT,
}
RUN: Schema = {
    "labels": [TEXT],
    "settings": {"backbone": TEXT},
    "photos": TEXT,
    "source": TEXT,
    "status": TEXT,
    "created": TEXT,
    "data": {
        "parts": {"train": COUNT, "val": COUNT, "test": COUNT},
        "added": {"from": TEXT},
    },
    "reading": _OBJECT,
    "versions": _OBJECT,
    "host": _OBJECT,
    "calibration": {
        "temperature": NUMBER,
        "photos": COUNT,
        "cross_fit": {
            "right": COUNT,
            "by_label": [{"label": TEXT, "photos": COUNT, "right": COUNT}],
        },
    },
    "best": _OBJECT,
    "probe": _OBJECT,
    "weights": _OBJECT,
    "learning_curve": _OBJECT,
    "label_issues": _OBJECT,
    "distillation": _OBJECT,
    "unfrozen": TEXT,
    "trained_in": TEXT,
}
_EVALUATION: Schema = {
    "labels": [TEXT],
    "photos": COUNT,
    "accuracy": SHARE,
    "calibration_error": SHARE,
    "confusion": [[COUNT]],
    "per_class": [
        {"label": TEXT, "precision": SHARE, "recall": SHARE, "photos": COUNT}
    ],
}
EXPORTS: Schema = {  # exports.json, by variant
    "*": {
        "model_sha256": TEXT,
        "target_agreement": SHARE,
        "target_reached": _FLAG,
        "in_sample": _FLAG,
        "rejected": _FLAG,
        "rung": TEXT,
        "kept_float": [TEXT],
        "fidelity": {"agreement": SHARE, "shift": SHARE},
        "ladder": [{"seconds": SIZE}],
    }
}
METRICS: Schema = {
    "test": _EVALUATION,
    "calibration": {
        "test": {
            "bins_after": [{"confidence": SHARE, "accuracy": SHARE, "photos": COUNT}]
        }
    },
    "familiarity": {"test": {"share": SHARE}, "test_passed": SHARE},
}
_TIMING: dict[str, Schema] = {
    "host": TEXT,
    "runtime": TEXT,
    "threads": COUNT,
    "p50_ms": SIZE,
    "peak_memory_mb": SIZE,
}
COMPARISON: Schema = {
    "run": TEXT,
    "labels": [TEXT],
    "host": {"board": TEXT},
    "ship": {
        "file": TEXT,
        "why": TEXT,
        "differences": {
            "*": {
                **dict.fromkeys(("value", "low", "high"), NUMBER),
                **dict.fromkeys(("lost", "gained"), COUNT),
                "p": SHARE,
            }
        },
    },
    "headline": {
        "accuracy": SHARE,
        "interval": [SHARE],
        "photos": COUNT,
        "source": TEXT,
        "note": TEXT,
        "weakest": {"label": TEXT, "photos": COUNT, "right": COUNT},
    },
    "by_budget": [{"ms": SIZE, "mb": SIZE, "file": TEXT}],
    "files": [
        {
            **_TIMING,
            "title": TEXT,
            "variant": TEXT,
            "file": TEXT,
            "model_sha256": TEXT,
            "accuracy": SHARE,
            "accuracy_low": SHARE,
            "accuracy_high": SHARE,
            "photos": COUNT,
            "size_bytes": SIZE,
            "drop": NUMBER,
            "agreement": SHARE,
            "mcnemar_p": SHARE,
            "timings": [_TIMING],
            "evaluation": _EVALUATION,
            "float_right_this_wrong": [_ANYTHING],
        }
    ],
}
_BALANCED: dict[str, Schema] = {
    "photos": COUNT,
    **dict.fromkeys(("balanced_accuracy", "balanced_low", "balanced_high"), SHARE),
}
SEARCH: Schema = {
    "status": TEXT,
    "budget_ms": SIZE,
    "budget_mb": SIZE,
    "measured_on": TEXT,
    "ship": {"file": TEXT, "path": TEXT, "why": TEXT},
    "left_out": [TEXT],
    "candidates": [
        {
            "name": TEXT,
            "backbone": TEXT,
            "size": COUNT,
            "size_bytes": SIZE,
            "timing": _TIMING,
            "probe": _BALANCED,
            "final": {**_BALANCED, "title": TEXT},
        }
    ],
}
