"""Options that have no effect where fine-tuning is left out: a person is told.

A value that is the default has none either, but nobody who typed it is deceived.

Does not know: why it is left out, what a person typed.
"""

from __future__ import annotations

from backbones import registry
from finetune.defaults import defaults
from finetune.settings import Settings

# Of the epochs alone; the probe has a penalty of its own and learns no soft answers
OF_EPOCHS = (
    "augment",
    "epochs",
    "batch",
    "rate",
    "rate_decay",
    "average",
    "label_smoothing",
    "patience",
    "teacher_temperature",
    "teacher_share",
    "teacher_hints",
)


def without_epochs(settings: Settings, *, time_limit: bool = False) -> list[str]:
    """Options, as they are typed, that differ from the default and do nothing."""
    own = defaults(registry.get(settings.backbone), scratch=False)
    default, varied = Settings(**own), settings.teacher_views > 1
    found = [
        f"--{name.replace('_', '-')} {getattr(settings, name)}"
        for name in OF_EPOCHS
        if getattr(settings, name) != getattr(default, name)
        and not (name == "augment" and varied)  # the teacher's views are made by it
    ]
    if settings.balance == "sampling":
        found.append("--balance sampling")
    if settings.teacher and not varied and settings.unlabelled is None:
        found.append("--teacher")
    return found + ["--time-limit"] * time_limit
