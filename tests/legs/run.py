"""The isolated legs: one model file, in environments of their own.

1. edge: with numpy, Pillow and LiteRT alone (and pytest), `edge` passes its tests.
2. tflite-runtime 2.14.0 (Python 3.11, numpy 1): the probabilities of LiteRT without
   XNNPACK, on most processors to the last bit; the same best label as LiteRT as it
   comes, but for 0.5 % of the photos.
3. MediaPipe's ImageClassifier takes the same file by its path alone, knows our
   labels, and agrees with `edge classify` on 98.5 % of the photos handed over at the
   input's size, and on 97.5 % of those at full size (MediaPipe then resizes by itself,
   without smoothing).
4. The same in a browser: MediaPipe's tasks-vision (npm) in a headless Chromium, with
   no request to another machine. Both clients find the second output, familiarity, too.
5. A Ray cluster of two workers gives the answers and the errors of one machine.
6. Google's own quantized classifiers, files without our card, say what they are
   published to say, and the default recipe for such files is the best one.
7. The page, in a headless Chromium: 60 real photos of 3 labels as a ZIP become a
   model, through a reload and a restart of the server; the folder for a device,
   unpacked in a bare environment, answers as the page does.

The file is built by `edgegraft build`: on real photos with pretrained weights where
EDGEGRAFT_ASSETS is set, else on the drawn sample set. A network trained from scratch
on a few hundred drawings is unsure of many: for it, answers that go through XNNPACK's
own rounding or another resize are reported, not judged.

A leg that cannot run here says why and counts as skipped. Run by `make legs`;
environments and the model are kept in .legs/ between calls.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edge.classify.sources import walk  # noqa: E402
from edge.files import new_folder  # noqa: E402
from tests import npm  # noqa: E402
from tests.legs import foreign  # noqa: E402

LEGS = ROOT / ".legs"
REQUIREMENTS = ROOT / "requirements"
TASKS_VISION = "1.1.0"  # of npm's @mediapipe/tasks-vision
TASKS_VISION_SHA512 = (
    "ZJqh0wMKOINorfSffvDAxzyO1//c+FiG3IkzOdNDnLqvBB3DbMfj0bB/tys2SNf9S914sgoIbIpF4HTOi33"
    "6cg=="
)
MAX_MOVED = 0.01  # mean difference of probabilities between two sets of kernels
CLOSE = 0.1  # lead of the best label, below which either kernel may be right
MAX_OTHER = 0.005  # of photos may get another best label with XNNPACK's kernels
BROWSER_PHOTOS = "100"  # of the test photos, spread
HALVES = 2  # processes that share the tests of the first leg
SLOW_PHOTOS = 200  # of the test photos at most, spread: without XNNPACK int8 is slow
TRAINED, ASKED = 200, 100  # real photos of each label
MEDIAPIPE_LIBRARIES = "libegl1 libgles2 libgl1 libglib2.0-0"


# Photo to its ranking, best first: (label, probability); then familiarity, if any.
Answer = list[tuple[str, float]]
Answers = dict[str, Answer]


class Skipped(Exception):
    """A leg that cannot run here, and why."""


class Failed(Exception):
    """A leg that ran and did not hold, and how."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uv", default="uv", help="the uv to make environments with")
    parser.add_argument("--model", type=Path, help="a .tflite file instead of a build")
    parser.add_argument("--photos", type=Path, help="photos instead of the test part")
    parser.add_argument("leg", nargs="*", help=f"of {', '.join(LEG)} (default: all)")
    args = parser.parse_args()
    unknown = [name for name in args.leg if name not in LEG]
    if unknown or (args.model is None) != (args.photos is None):
        parser.error(f"expected legs of {', '.join(LEG)}, --model with --photos")
    bench = Bench(args.uv, args.model, args.photos)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name in args.leg or LEG:
        start = time.monotonic()
        try:
            told, outcome = LEG[name](bench), "passed"
        except Skipped as reason:
            told, outcome = str(reason), "skipped"
        except Failed as reason:
            told, outcome = str(reason), "failed"
        counts[outcome] += 1
        print(f"leg {name}: {outcome} ({time.monotonic() - start:.0f} s): {told}")
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["failed"] else 0


class Bench:
    """What the legs share: environments, the model file, its photos, answers."""

    def __init__(self, uv: str, model: Path | None, photos: Path | None) -> None:
        self.uv = uv
        self._given = (model, photos)
        self._built: tuple[Path, Path] | None = None
        self._litert: Answers | None = None

    def environment(self, name: str, requirements: str, python: str) -> Path:
        """The python of `.legs/<name>`, made where its requirements changed."""
        folder, wanted = LEGS / name, REQUIREMENTS / requirements
        interpreter, stamp = folder / "bin" / "python", folder / "requirements.txt"
        if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
            return interpreter
        made = _run([self.uv, "venv", "--quiet", "--clear", "--python", python, folder])
        if made.returncode:
            raise Skipped(f"no Python {python} here: {_last_line(made.stderr)}")
        pip = [self.uv, "pip", "install", "--quiet", "--compile-bytecode"]
        pip += ["--python", interpreter]
        installed = _run([*pip, "--require-hashes", "-r", wanted])
        if installed.returncode:
            raise Failed(f"cannot install {requirements}: {installed.stderr.strip()}")
        shutil.copyfile(wanted, stamp)
        return interpreter

    def model(self) -> tuple[Path, Path]:
        """An int8 file and a folder of photos that it never saw."""
        if self._built is None:
            model, photos = self._given
            self._built = (model, photos) if model and photos else build()
        return self._built

    def device(self) -> Path:
        """The python of leg 1: with a device's packages alone."""
        return self.environment("edge", "device-test.txt", sys.executable)

    def litert(self) -> Answers:
        """What LiteRT answers there."""
        if self._litert is None:
            self._litert = _answers(self.device(), "litert", *self.model())
        return self._litert

    @property
    def judged(self) -> bool:
        """Is this a model that is sure enough of its photos to be judged by all?"""
        return self._given[0] is not None or bool(os.environ.get("EDGEGRAFT_ASSETS"))


def leg_edge(bench: Bench) -> str:
    python = bench.device()
    names = sorted(str(test) for test in (ROOT / "tests").glob("test_edge_*.py"))
    if not names:
        raise Failed("expected tests/test_edge_*.py, found none")
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    with ThreadPoolExecutor(HALVES) as pool:  # two cores
        shares = [names[number::HALVES] for number in range(HALVES)]
        halves = list(pool.map(lambda share: _run([*pytest, *share]), shares))
    for done in halves:
        print(done.stdout.rstrip())
    for done in halves:
        if done.returncode:
            raise Failed(_last_line(done.stdout) or _last_line(done.stderr))
    listed = _run([bench.uv, "pip", "list", "--quiet", "--python", python]).stdout
    strangers = {"tensorflow", "tf-keras", "keras", "scipy", "matplotlib", "streamlit"}
    found = strangers & {line.split()[0] for line in listed.splitlines() if line}
    if found:
        raise Failed(f"expected a device's packages, found {', '.join(sorted(found))}")
    return "; ".join(_last_line(done.stdout).strip("= ") for done in halves)


def leg_tflite_runtime(bench: Bench) -> str:
    python = bench.environment("tflite-runtime", "tflite-runtime.txt", "3.11")
    model, folder = bench.model()
    every = list(walk(str(folder)))
    photos = every[:: max(1, len(every) // SLOW_PHOTOS)][:SLOW_PHOTOS]
    theirs = _answers(python, "tflite-runtime", model, *photos)
    plain = _answers(bench.device(), "litert", model, *photos, "--no-xnnpack")
    if not plain or theirs.keys() != plain.keys():
        raise Failed(f"expected {len(plain)} photos answered, got {len(theirs)}")
    bits = [photo for photo in plain if theirs[photo] != plain[photo]]
    apart = max(_apart(theirs[photo], plain[photo]) for photo in plain)
    alike = "the same bits as LiteRT without XNNPACK on all"
    if bits:
        # its QUANTIZE rounds dark pixels one level down on some processors
        moved = sum(_apart(theirs[p], plain[p]) for p in plain) / len(plain)
        alike = f"{moved:.4f} from LiteRT without XNNPACK ({apart:.4f} at most) on"
        if moved > MAX_MOVED and bench.judged:
            raise Failed(f"expected {MAX_MOVED} at most, got probabilities {alike}")
    ours = {photo: row for photo, row in bench.litert().items() if photo in plain}
    turned = [photo for photo in ours if theirs[photo][0][0] != ours[photo][0][0]]
    same = f"the same best label as LiteRT on {len(ours) - len(turned)} of {len(ours)}"
    # XNNPACK rounds otherwise than the reference kernels, on each processor in its way,
    # so a few labels may change, most of them where two are nearly even
    other = [photo for photo in turned if _lead(theirs[photo]) >= CLOSE]
    if len(turned) > len(other):
        same += f" ({len(turned) - len(other)} close calls)"
    if len(other) > MAX_OTHER * len(ours) and bench.judged:
        raise Failed(f"expected {same.split(' on ')[0]}, {_named(other)} differ")
    return f"{alike} {len(plain)} photos, {same}"


def _lead(answer: Answer) -> float:
    """How far the best label's probability is above the second one's."""
    (_, best), (_, second) = answer[:2]
    return best - second


def _apart(one: Answer, other: Answer) -> float:
    """The largest difference of a label's probability."""
    labels, others = dict(one), dict(other)
    names = (labels.keys() | others.keys()) - {foreign.FAMILIARITY}
    return max(abs(labels.get(name, 0) - others.get(name, 0)) for name in names)


def leg_mediapipe(bench: Bench) -> str:
    python = bench.environment("mediapipe", "mediapipe.txt", sys.executable)
    model, photos = bench.model()
    script = Path(__file__).with_name("mediapipe_answers.py")
    done = _run([python, script, model, photos])
    if done.returncode:
        raise Failed(
            f"{_last_line(done.stderr)} (MediaPipe needs, on Debian: "
            f"apt install {MEDIAPIPE_LIBRARIES})"
        )
    return _judged(bench, json.loads(done.stdout))


def leg_browser(bench: Bench) -> str:
    from tests import browser

    if reason := browser.why_not():
        raise Skipped(reason)
    model, photos = bench.model()
    script = Path(__file__).with_name("browser_answers.py")
    done = _run(
        [sys.executable, script, _tasks_vision(), model, photos, BROWSER_PHOTOS]
    )
    if done.returncode:
        raise Failed(_last_line(done.stderr))
    return _judged(bench, json.loads(done.stdout))


def _judged(bench: Bench, theirs: dict[str, Any]) -> str:
    """How a foreign client's answers compare with ours on the same photos."""
    ours = {p: r for p, r in bench.litert().items() if p in theirs["input"]}
    try:
        return foreign.judge(ours, theirs, sure=bench.judged)
    except foreign.Disagreement as told:
        raise Failed(str(told)) from None


def _tasks_vision() -> Path:
    """The unpacked npm package, checked against the digest it had when pinned."""
    name = f"@mediapipe/tasks-vision@{TASKS_VISION}"
    try:
        return npm.package(name, TASKS_VISION_SHA512, LEGS / "tasks-vision")
    except npm.Unavailable as reason:
        raise Skipped(str(reason)) from None
    except ValueError as reason:
        raise Failed(str(reason)) from None


def leg_ray(bench: Bench) -> str:
    python = bench.environment("ray", "ray.txt", sys.executable)
    model, photos = bench.model()
    script = Path(__file__).with_name("ray_cluster.py")
    missing = photos / "not-there.jpg"
    done = _run([python, script, model, photos, missing], {**os.environ, **HERE})
    if done.returncode:
        raise Failed(_last_line(done.stderr))
    answers: dict[str, Any] = json.loads(_last_line(done.stdout))
    here, there = answers["here"], answers["there"]
    if not here["rows"] or here["code"] != 2 or str(missing) not in here["errors"][0]:
        raise Failed(f"expected answers and one error, got {here['errors']}")
    if here != there:
        raise Failed(
            f"expected the answers of one machine ({len(here['rows'])} rows, "
            f"{here['errors']}), got {len(there['rows'])} rows, {there['errors']}"
        )
    return (
        f"two workers of a Ray cluster give the rows of one machine for "
        f"{len(here['rows'])} photos, and the same error for one that is missing"
    )


def leg_published(bench: Bench) -> str:
    """Google's quantized classifiers, by the pictures and figures of tests/legs."""
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    if not assets or not Path(assets, "reference_tflite").is_dir():
        raise Skipped("EDGEGRAFT_ASSETS names no folder with reference_tflite")
    done = _run([sys.executable, "-m", "tests.legs.published", assets])
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        raise Failed(f"{done.stdout}{_last_line(done.stderr)}")
    met = sum(line.startswith("met") for line in lines)
    return f"{met} expectations met; {lines[-1]}"


def leg_page(bench: Bench) -> str:
    """From a ZIP dropped on the page to the same answer in a bare environment."""
    from tests import browser

    reason = browser.why_not()
    if not os.environ.get("EDGEGRAFT_ASSETS"):
        reason = "EDGEGRAFT_ASSETS names no folder with real photos and weights"
    if reason:
        raise Skipped(reason)
    done = _run([sys.executable, "-m", "tests.legs.page", bench.uv])
    if done.returncode:
        raise Failed(_last_line(done.stderr))
    return _last_line(done.stdout)


LEG: dict[str, Callable[[Bench], str]] = {
    "edge": leg_edge,
    "tflite-runtime": leg_tflite_runtime,
    "mediapipe": leg_mediapipe,
    "browser": leg_browser,
    "ray": leg_ray,
    "published": leg_published,
    "page": leg_page,
}
HERE = {"PYTHONPATH": str(ROOT)}


def _answers(
    python: Path, runtime: str, model: Path, *photos_and_options: str | Path
) -> Answers:
    """What `edge classify --json` says of each photo; Failed where it refuses one."""
    command = [python, "-m", "edge", "classify", model, *photos_and_options, "--json"]
    done = _run([*command, "--runtime", runtime])
    if done.returncode:
        raise Failed(f"{runtime}: {_last_line(done.stderr)}")
    document = json.loads(done.stdout)
    if document["runtime"] != runtime:
        raise Failed(f"expected the runtime {runtime}, got {document['runtime']}")
    # The ranking, not the label: it is there also where a photo is refused as unknown.
    return {
        answer["photo"]: [
            *((r["label"], r["probability"]) for r in answer["ranking"]),
            *(
                [(foreign.FAMILIARITY, answer["familiarity"])]
                if answer.get("familiarity") is not None
                else []
            ),
        ]
        for answer in document["photos"]
    }


def _named(photos: Sequence[str]) -> str:
    names = ", ".join(Path(photo).name for photo in photos[:5])
    return f"{len(photos)} ({names})"


def build() -> tuple[Path, Path]:
    """The int8 file and its test photos; built once, in .legs/model."""
    assets = os.environ.get("EDGEGRAFT_ASSETS")
    environment = dict(os.environ)
    if assets:
        environment["KERAS_HOME"] = str(Path(assets) / "keras_home")
        name, source = "photos", LEGS / "photos"
        options = ["--backbone", "mobilenet_v2_0.35", "--size", "224"]
        options += ["--unfreeze", "none"]
        photos = source / "test"
        if not source.exists():
            _some(Path(assets) / "photos" / "cats_dogs", source)
    else:
        name, sample = "drawn", LEGS / "sample"
        source, photos = sample / "photos", LEGS / "fresh" / "photos"
        options = ["--backbone", "custom_cnn"]
        for folder, count, seed in ((sample, 120, 0), (photos.parent, 100, 1)):
            if not (folder / "photos").exists():
                _sample(folder, count, seed)
    model = LEGS / "runs" / name / "exports" / "int8.tflite"
    if not model.exists():
        build = [sys.executable, "-m", "edgegraft", "build", source, "--overwrite"]
        where = ["--artifacts", LEGS / "runs", "--run", name]
        options += ["--variants", "int8"]  # what the legs take
        done = _run([*build, *where, *options], environment)
        if done.returncode or not model.exists():
            raise Failed(f"edgegraft build: {_last_line(done.stderr)}")
    return model, photos


def _some(photos: Path, folder: Path) -> None:
    """Copies of the first TRAINED and ASKED of each label, below train/ and test/."""
    with new_folder(folder) as stage:
        for part, count in (("train", TRAINED), ("test", ASKED)):
            for label in sorted(path for path in (photos / part).iterdir()):
                place = stage / part / label.name
                place.mkdir(parents=True)
                for photo in sorted(label.iterdir())[:count]:
                    shutil.copy(photo, place)


def _sample(folder: Path, count: int, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    draw = [sys.executable, "-m", "edgegraft", "data", "sample", folder]
    done = _run([*draw, "--count", str(count), "--seed", str(seed)])
    if done.returncode:
        raise Failed(f"edgegraft data sample: {_last_line(done.stderr)}")


def _run(
    command: Sequence[str | Path], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


if __name__ == "__main__":
    sys.exit(main())
