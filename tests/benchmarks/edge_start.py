"""One photo, whole process: `edge classify` against a script through tf.lite.

The script is what most tutorials hand out: import TensorFlow, open the file with
tf.lite.Interpreter, decode and resize with Pillow, print the best label. Both run in
fresh processes, in turn, so that a slow moment of the machine hits both alike; the
first pair fills the disk cache and is not counted. A bare `import numpy, PIL.Image`
runs beside them: the start is judged against it (0.45 s where it takes 0.2 s). What
`edge classify` imports is listed, slowest first (`python -X importtime`). Memory is
the process's own peak resident size, as the kernel counts it. Ends in one JSON line;
exits 1 where a goal is missed (with --report only says so).

    python tests/benchmarks/edge_start.py [--model FILE --photo FILE] [--runs 9]

Without --model a small int8 MobileNetV2 (random weights, 224 pixels) is made: the
time does not depend on what the weights are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench_room import circumstances, make_model  # noqa: E402

MAX_SHARE = 1 / 10
MAX_OF_IMPORTS = 0.45 / 0.2
MAX_MIB = 100
TOLD_IMPORTS = 12

THROUGH_TF = """
import sys
import numpy as np
import tensorflow as tf
from PIL import Image

interpreter = tf.lite.Interpreter(model_path=sys.argv[1])
interpreter.allocate_tensors()
entry = interpreter.get_input_details()[0]
height, width = entry["shape"][1:3]
photo = Image.open(sys.argv[2]).convert("RGB").resize((width, height))
interpreter.set_tensor(entry["index"], np.asarray(photo, np.uint8)[None])
interpreter.invoke()
answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
print(["cat", "dog"][int(answer.argmax())], answer.max() / 256)
"""

# A JPEG of 12 megapixels, as phones take them. In a process of its own, because the
# kernel counts a child's peak from the memory of the parent that starts it.
DRAW_PHOTO = """
import sys
from PIL import Image

side = Image.radial_gradient("L")
bands = [side.rotate(90 * turn) for turn in range(3)]
Image.merge("RGB", bands).resize((4032, 3024)).save(sys.argv[1], quality=90)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="int8 file with labels cat, dog")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--runs", type=int, default=9, help="counted pairs (9)")
    parser.add_argument("--report", action="store_true", help="exit 0 whatever comes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, photo = args.model, args.photo
        if model is None:
            model = make_model(Path(scratch))
        if photo is None:
            photo = Path(scratch, "photo.jpg")
            _python(["-c", DRAW_PHOTO, str(photo)])
        script = Path(scratch, "through_tf.py")
        script.write_text(THROUGH_TF, encoding="utf-8")
        ways = {
            "edge": ["-m", "edge", "classify", str(model), str(photo)],
            "tensorflow": [str(script), str(model), str(photo)],
            "imports": ["-c", "import numpy, PIL.Image"],
        }
        imported = imports(ways["edge"])
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        peak_mib = dict.fromkeys(ways, 0.0)
        for turn in range(args.runs + 1):
            for name, command in ways.items():
                took, memory = _python(command)
                if turn:
                    seconds[name].append(took)
                    peak_mib[name] = max(peak_mib[name], memory)
    middle = {name: median(times) for name, times in seconds.items()}
    share = middle["edge"] / middle["tensorflow"]
    of_imports = middle["edge"] / middle["imports"]
    held = (
        share <= MAX_SHARE
        and of_imports <= MAX_OF_IMPORTS
        and peak_mib["edge"] <= MAX_MIB
    )
    for name in ways:
        print(f"{name:10}  {middle[name]:7.3f} s  {peak_mib[name]:6.0f} MiB")
    print(
        f"edge takes {share:.3f} of TensorFlow's time (goal {MAX_SHARE}), "
        f"{of_imports:.2f} of the bare imports' (goal {MAX_OF_IMPORTS:.2f}), "
        f"{peak_mib['edge']:.0f} MiB (goal {MAX_MIB}), held: {held}"
    )
    print(f"{len(imported)} modules; the slowest, with what they import in turn, ms:")
    slowest = sorted(imported.items(), key=lambda entry: -entry[1])[:TOLD_IMPORTS]
    print("  ".join(f"{name} {ms:.0f}" for name, ms in slowest))
    result = {
        "benchmark": "edge_start",
        "edge_s": round(middle["edge"], 4),
        "tensorflow_s": round(middle["tensorflow"], 4),
        "share": round(share, 4),
        "imports_s": round(middle["imports"], 4),
        "of_imports": round(of_imports, 3),
        "modules": len(imported),
        "slowest_imports_ms": {name: round(ms, 1) for name, ms in slowest},
        "edge_peak_mib": round(peak_mib["edge"], 1),
        "tensorflow_peak_mib": round(peak_mib["tensorflow"], 1),
        "runs": args.runs,
        "held": held,
        **circumstances(),
    }
    print(json.dumps(result))
    return 0 if held or args.report else 1


def imports(command: list[str]) -> dict[str, float]:
    """Every module that a command imports: its own and its imports' milliseconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line[12:].split("|") for line in done.stderr.splitlines() if "|" in line]
    times = [row for row in rows if row[1].strip().isdigit()]
    return {row[2].strip(): int(row[1]) / 1e3 for row in times}


def _python(arguments: list[str]) -> tuple[float, float]:
    """Run Python anew: (seconds, peak resident MiB); RuntimeError when it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read().decode(errors="replace"))
    scale = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return took, usage.ru_maxrss / scale


if __name__ == "__main__":
    sys.exit(main())
