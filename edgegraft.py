"""The command `edgegraft VERB`: composes the rooms, imports one only when asked for.

    edgegraft build PHOTOS      photos in, a verified int8 .tflite out
    edgegraft data              audit, split, or draw the sample photos
    edgegraft backbones         the networks to choose from
    edgegraft finetune PHOTOS   the training run alone
    edgegraft quantize RUN      a run's TFLite files
    edgegraft compare RUN       accuracy and latency of these files
    edgegraft edge              classify, info, doctor, bench, evaluate: as on a device
    edgegraft app               the page: drop photos, see answers

Exit codes: 0 done, 2 bad input, 3 int8 lost more accuracy than --max-drop allows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

__version__ = "0.1.0"

# verb -> (module with the command's main, name of that function)
VERBS = {
    "build": ("quantize.build", "main"),
    "data": ("data.cli", "main"),
    "backbones": ("backbones.cli", "main"),
    "finetune": ("finetune.cli", "main"),
    "quantize": ("quantize.cli", "main"),
    "compare": ("quantize.cli", "compare_main"),
    "edge": ("edge.cli", "main"),
    "app": ("streamlit_app.cli", "main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"edgegraft {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(
            f"edgegraft: error: expected a verb out of {', '.join(VERBS)}, "
            f"got {verb!r} (see edgegraft --help)",
            file=sys.stderr,
        )
        return 2
    module, function = VERBS[verb]
    code: int = getattr(import_module(module), function)(rest, f"edgegraft {verb}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
