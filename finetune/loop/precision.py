"""In which numbers a network is trained: bfloat16 where the hardware gains from it.

Mixed precision (Micikevicius et al. 2018, arXiv:1710.03740): weights and losses in
float32, the layers between in bfloat16, whose range needs no scaling of the loss. It
pays on GPUs with bfloat16 units (NVIDIA's compute capability 8 and later). On CPUs it
is off unless asked for: a step of MobileNetV2 took up to three times as long on an
AMD EPYC with avx512_bf16. What is kept is a float32 network with the same weights.

Does not know: the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from backbones.keras import keras, tensorflow

PRECISIONS = ("auto", "float32", "bfloat16")
BFLOAT16_FROM = 8, 0  # compute capability


def _gains() -> bool:
    config = tensorflow().config
    gpus = config.list_physical_devices("GPU")
    details = [config.experimental.get_device_details(gpu) for gpu in gpus]
    return bool(gpus) and all(
        tuple(found.get("compute_capability", (0, 0))) >= BFLOAT16_FROM
        for found in details
    )


def policy_for(precision: str) -> str:
    """The Keras policy: float32 or mixed_bfloat16. "auto" looks at the hardware."""
    mixed = precision == "bfloat16" or (precision == "auto" and _gains())
    return "mixed_bfloat16" if mixed else "float32"


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Layers made inside compute as this policy says."""
    mixed = keras().mixed_precision
    before = mixed.global_policy()
    mixed.set_global_policy(name)
    try:
        yield
    finally:
        mixed.set_global_policy(before)
