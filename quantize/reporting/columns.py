"""The columns of a comparison: one list for terminal, JSON, CSV, HTML and model card.

A column takes its values from `MeasuredFile.figures()` or `Timing.to_dict()`. The page
reads the same list out of comparison.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTHING = "-"  # a cell without a figure


@dataclass(frozen=True)
class Column:
    """A heading, its meaning, and the format of the values of `keys`.

    `form` is a format string with one field for each key; numbers are multiplied by
    `scale` first. The first key is the sort key.
    """

    head: str
    help: str
    keys: tuple[str, ...]
    form: str = "{}"
    scale: float = 1.0

    def text(self, figures: Mapping[str, Any]) -> str:
        """The cell; `NOTHING` where a value is missing."""
        values = [figures.get(key) for key in self.keys]
        if any(value is None or value == "" for value in values):
            return NOTHING
        if self.scale != 1.0:
            values = [self.scale * value for value in values]  # type: ignore[operator]
        return self.form.format(*values)

    def value(self, figures: Mapping[str, Any]) -> Any:
        """The value to sort by; None where there is none."""
        return figures.get(self.keys[0])

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `Column(**record)` gives the column back."""
        return {**vars(self), "keys": list(self.keys)}


FILE = Column("file", "variant, or name of another file", ("title",))
BALANCED = Column(
    "balanced accuracy",
    "mean recall of the labels on the test photos, through the file itself",
    ("balanced_accuracy",),
    "{:.1%}",
)
BALANCED_INTERVAL = Column(
    "95 % interval",
    "of the balanced accuracy (Wilson, MOVER)",
    ("balanced_low", "balanced_high"),
    "{:.1f} to {:.1f}",
    100,
)
ACCURACY = Column(
    "accuracy", "test photos with the right label", ("accuracy",), "{:.1%}"
)
WEAKEST = Column(
    "weakest label",
    "the label with the lowest recall: its recall and test photos",
    ("weakest_label", "weakest_recall", "weakest_photos"),
    "{} {:.1%} of {}",
)
SIZE = Column("MB", "size, labels and card included", ("size_bytes",), "{:.2f}", 1e-6)
MEDIAN = Column("p50 ms", "median time of one photo", ("p50_ms",), "{:.2f}")

QUALITY = (
    FILE,
    BALANCED,
    BALANCED_INTERVAL,
    ACCURACY,
    WEAKEST,
    Column(
        "drop", "points of accuracy lost against float32", ("drop",), "{:+.1f}", 100
    ),
    Column(
        "lost / gained",
        "photos that only float32 / only this file got right",
        ("lost", "gained"),
        "{} / {}",
    ),
    Column("p", "McNemar's exact test of the drop", ("mcnemar_p",), "{:.2f}"),
    Column(
        "agreement",
        "photos with the same label as float32",
        ("agreement",),
        "{:.1%}",
    ),
    Column(
        "calibration error",
        "expected calibration error less what chance adds, in points",
        ("calibration_error",),
        "{:.1f}",
        100,
    ),
    Column(
        "refuses unknown",
        "unknown photos that are answered unknown",
        ("unknown_refused",),
        "{:.1%}",
    ),
    Column(
        "refuses known",
        "test photos answered unknown by mistake",
        ("known_refused",),
        "{:.1%}",
    ),
)
EXPORT = (
    FILE,
    Column(
        "target",
        "share of photos with the label of float32 that the file should reach",
        ("target_agreement",),
        "{:.0%}",
    ),
    Column(
        "reached",
        "that share on validation photos and crops of them, at export",
        ("new_agreement",),
        "{:.1%}",
    ),
    Column(
        "verdict",
        "reached, missed, in-sample (the photos were trained on), or the file rejected",
        ("verdict",),
    ),
    Column(
        "shift",
        "of its probabilities from those of float32, in points",
        ("new_shift",),
        "{:.1f}",
        100,
    ),
    Column(
        "repair",
        "the repair that was kept; plain: none came closer to float32",
        ("repair",),
    ),
    Column("repairs s", "time of all repairs tried", ("repair_seconds",), "{:.0f}"),
    Column("float layers", "layers that the repair left float", ("float_layers",)),
)
FILES = (
    FILE,
    SIZE,
    Column(
        "M multiply-adds",
        "millions of multiply-adds for one photo",
        ("multiply_adds",),
        "{:.1f}",
        1e-6,
    ),
    Column(
        "needs TFLite",
        "the oldest TensorFlow Lite with its operators; - the newest",
        ("oldest_runtime",),
    ),
    Column("refused by", "targets that do not run it", ("refused_by",)),
)
TIMES = (
    FILE,
    Column("device", "where it was measured", ("host",)),
    Column("runtime", "the interpreter", ("runtime",)),
    Column("threads", "for one photo", ("threads",)),
    Column("load ms", "from the file to a ready interpreter", ("load_ms",), "{:.1f}"),
    Column("first ms", "the first photo", ("first_ms",), "{:.1f}"),
    MEDIAN,
    Column("p95 ms", "95 % of the photos are faster", ("p95_ms",), "{:.2f}"),
    Column("p99 ms", "99 % of the photos are faster", ("p99_ms",), "{:.2f}"),
    Column("photos/s", "in continuous inference", ("photos_per_second",), "{:,.0f}"),
    Column(
        "memory MiB",
        "largest peak of the whole process",
        ("peak_memory_mb",),
        "{:.0f}",
    ),
)
LABELS = (
    Column("label", "", ("label",)),
    Column("photos", "of this label in the test part", ("photos",), "{:,}"),
    Column(
        "precision",
        "right ones of the photos with this answer",
        ("precision",),
        "{:.1%}",
    ),
    Column("recall", "photos of this label that it finds", ("recall",), "{:.1%}"),
    Column("F1", "harmonic mean of precision and recall", ("f1",), "{:.1%}"),
)
SUMMARY = (FILE, BALANCED, BALANCED_INTERVAL, WEAKEST, SIZE, MEDIAN)


def filled(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> tuple[Column, ...]:
    """Without the columns in which no row has a value."""
    return tuple(
        column
        for column in columns
        if any(column.text(figures) != NOTHING for figures in rows)
    )
