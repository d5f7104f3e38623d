"""What a run does where the user says nothing: it depends on the network.

The peak rates were cross-validated on 2,000 photos of cats and dogs, by the log loss of
held-out ones (tests/benchmarks/finetune_gain.py --set rate=RATE): of 5e-5 and 2e-4
MobileNetV2 0.35 does better with the larger, MobileNetV2 1.0 with the smaller. That
wider networks want smaller rates of Adam is what theory says (Yang et al. 2022,
arXiv:2203.03466); where between the two the line runs was not measured.

Does not know: the command line, photos.
"""

from __future__ import annotations

from typing import Any

from backbones.record import Backbone

SMALL = 1_000_000  # parameters; below them a network takes, and needs, longer steps
SMALL_RATE, LARGE_RATE = 2e-4, 5e-5

FROM_SCRATCH: dict[str, Any] = {
    "weights": "none",
    "augment": "standard",
    "unfreeze": "all",
    "epochs": 24,
    "batch": 16,
    "rate": 3e-3,
    "label_smoothing": 0.0,
    "patience": 12,
    "teacher_hints": 2.0,
}


def defaults(backbone: Backbone, *, scratch: bool) -> dict[str, Any]:
    """Fields of `Settings` for this network. scratch: its weights begin at random."""
    size = {"size": backbone.default_size}
    if scratch:
        return {**FROM_SCRATCH, **size}
    small = backbone.parameters is not None and backbone.parameters < SMALL
    return {"rate": SMALL_RATE if small else LARGE_RATE, **size}
