"""Whether what training takes is installed: asked first, before a photo is decoded.

A device has only what `edge` needs; the packages of the extra `train` are looked for
here without importing any of them.

Does not know: their versions (pyproject.toml has them), whether they load.
"""

from __future__ import annotations

import importlib.util

from backbones.keras import INSTALL
from edge.errors import EdgegraftError

# The extra's modules by the names they are imported under
MODULES = (
    "tensorflow",
    "tf_keras",
    "flatbuffers",
    "matplotlib",
    "scipy",
    "sklearn",
    "threadpoolctl",
)


def refuse_missing(verb: str) -> None:
    """EdgegraftError, naming all that is missing, unless `verb` can do its work."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgegraftError(
            f"expected what {verb} needs to be installed, got no "
            f"{', '.join(missing)}; {INSTALL}"
        )
