"""The candidates of a search: networks at input sizes, and their latency.

Latency does not depend on training: the int8 graph with random weights is as fast as
the trained one. It is built once, cached, and timed here or, packed with `write_pack`,
on another device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones import custom_cnn, network, registry, weights
from backbones.keras import seed_everything, tensorflow
from backbones.record import Backbone
from data.store import cache_folder
from edge.card import ModelCard
from edge.command import RUNTIMES
from edge.errors import EdgegraftError
from edge.files import new_folder, sha256, write_atomic
from edge.model_file import ModelFile
from edge.text import plural
from finetune.console import Console
from finetune.settings import Settings
from quantize.comparison import timing
from quantize.comparison.records import Timing
from quantize.conversion.convert import Conversion
from quantize.tflite import metadata

SMALLEST = 96  # pixels: no MobileNet has published weights for less
SIZES = (96, 128, 160, 192, 224)
CNN_SIZES = (64, 96, 128)
GRAPH = 1  # version of the cached graphs; a change rebuilds them
_CALIBRATION = 4  # photos of noise: the ranges do not affect the latency
EFFORT = timing.Effort(seconds=0.1)
COMMAND = "python -m edge bench *.tflite --json > device.json"


@dataclass(frozen=True)
class Candidate:
    """A network at one input size in pixels."""

    backbone: Backbone
    size: int

    @property
    def name(self) -> str:
        return f"{self.backbone.name}-{self.size}"

    @property
    def title(self) -> str:
        return f"{self.backbone.name} at {self.size}"

    @property
    def pretrained(self) -> bool:
        return self.backbone.options is None

    def settings(self, seed: int = 0) -> Settings:
        """The settings of its training run."""
        return Settings.for_network(
            backbone=self.backbone.name, size=self.size, seed=seed
        )


def ready(names: Sequence[str] = ()) -> list[Candidate]:
    """Every backbone whose ImageNet weights are on this machine, at sizes from 96 to
    its default, and the custom CNN at three sizes; only `names` where there are any.

    EdgegraftError for an unknown name, and for one without weights here.
    """
    candidates: list[Candidate] = []
    for name in names or registry.names():
        backbone = registry.get(name)
        if backbone.options is not None:
            candidates += [Candidate(backbone, size) for size in CNN_SIZES]
            continue
        sizes = _sizes(backbone)
        if names and not sizes:  # requested by name: download its weights, or refuse it
            weights.find(backbone, backbone.default_size, "imagenet")
            sizes = [backbone.default_size]
        candidates += [Candidate(backbone, size) for size in sizes]
    return candidates


def _sizes(backbone: Backbone) -> list[int]:
    """The sizes at which its weights are on this machine."""
    imagenet, largest = backbone.imagenet, backbone.default_size
    if backbone.own_weights:
        return [largest]
    if imagenet is None:
        return []
    smallest = max(SMALLEST, backbone.min_size)
    published = SIZES if imagenet.any_size else imagenet.sizes
    sizes = sorted({s for s in published if smallest <= s < largest} | {largest})
    return [size for size in sizes if weights.locate(backbone, size) is not None]


def graph(candidate: Candidate, labels: int) -> bytes:
    """The int8 file of a candidate with random weights, for a number of labels; from
    the cache, if possible."""
    key = {
        "graph": GRAPH,
        "name": candidate.name,
        "labels": labels,
        "tensorflow": tensorflow().__version__,
    }
    digest = sha256(json.dumps(key).encode())[:16]
    path = cache_folder() / "latency" / f"{digest}.tflite"
    try:
        content = path.read_bytes()
    except OSError:
        content = _build(candidate, labels)
        write_atomic(path, content)
    ModelFile(content).trust()  # built by this program
    return content


def _build(candidate: Candidate, labels: int) -> bytes:
    seed_everything(0)
    backbone, size = candidate.backbone, candidate.size
    options = None if backbone.options is None else custom_cnn.CnnConfig()
    model = network.assemble(backbone, size, labels, options)
    noise = np.random.default_rng(0)
    width = model.get_layer(network.LOGITS).input.shape[-1]
    kernel = noise.normal(0, 0.1, (width, labels)).astype(np.float32)
    network.set_head(model, kernel, np.zeros(labels, np.float32))
    photos = noise.integers(0, 256, (_CALIBRATION, size, size, 3)).astype(np.uint8)
    flat = Conversion(model, calibration=photos).make("int8")
    names = tuple(f"label {index}" for index in range(labels))
    card = ModelCard(
        names, candidate.settings().recipe, "int8", name=f"{candidate.name}, untrained"
    )
    return metadata.embed(flat, card)


def ends_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The smallest and the largest size of every network first, then those between:
    what a time limit leaves out lies between others."""
    sizes: dict[str, list[int]] = {}
    for candidate in candidates:
        sizes.setdefault(candidate.backbone.name, []).append(candidate.size)

    def rank(candidate: Candidate) -> tuple[int, int]:
        ordered = sorted(sizes[candidate.backbone.name])
        index = ordered.index(candidate.size)
        from_end = len(ordered) - 1 - index
        return min(2 * index, 2 * from_end + 1), candidate.size

    return sorted(candidates, key=rank)


def graphs(
    candidates: Sequence[Candidate],
    labels: int,
    console: Console,
    is_late: Callable[[], bool] = lambda: False,
) -> dict[Candidate, bytes]:
    """The graph of each candidate, with a progress bar; at least one, no more once
    `is_late`."""
    files: dict[Candidate, bytes] = {}
    with console.bar("building int8 graphs", unit="network") as bar:
        for done, candidate in enumerate(candidates, 1):
            if files and is_late():
                break
            files[candidate] = graph(candidate, labels)
            bar(done, len(candidates))
    return files


def time_here(
    files: Mapping[Candidate, bytes],
    folder: Path,
    runtime: str,
    console: Console,
    is_late: Callable[[dict[Candidate, Timing]], bool] = lambda _: False,
    keep: Callable[[dict[Candidate, Timing]], None] = lambda _: None,
) -> dict[Candidate, Timing]:
    """Each graph's timing on this machine, with one thread; `folder` is temporary.

    Once `is_late`, graphs not timed by then are left out. It gets the timings so far,
    and so does `keep` after each round.
    """
    paths = {folder / f"{candidate.name}.tflite": candidate for candidate in files}
    for path, candidate in paths.items():
        path.write_bytes(files[candidate])

    def by_candidate(timings: timing.Timings) -> dict[Candidate, Timing]:
        return {paths[path]: times[0] for path, times in timings.items()}

    timings = timing.time_all(
        list(paths),
        runtime,
        EFFORT,
        console,
        is_late=lambda timings: is_late(by_candidate(timings)),
        after_round=lambda timings: keep(by_candidate(timings)),
    )
    return by_candidate(timings)


def time_there(
    files: Mapping[Candidate, bytes], device: Path, runtime: str = "auto"
) -> dict[Candidate, Timing]:
    """Each graph's timing in a document of `edge bench --json`, with the fewest threads
    there. EdgegraftError for a document of other files, of several devices, or of
    another runtime than `runtime` (auto: any that edgegraft uses)."""
    digests = {ModelFile(content).digest: c for c, content in files.items()}
    times = {
        digests[digest]: min(timings, key=lambda t: t.setting.threads)
        for digest, timings in timing.read_devices(device, "--device").items()
        if digest in digests
    }
    settings = {t.setting for t in times.values()}
    if not settings:
        raise EdgegraftError(
            f"--device: expected times of this search's files, got {device}, which has "
            "none of them; write the files with --pack-probe DIR, run there: "
            f"{COMMAND}"
        )
    if len(settings) > 1:
        raise EdgegraftError(
            f"--device: expected times of one device and runtime, got {device} with "
            f"{'; '.join(sorted(map(str, settings)))}"
        )
    measured = next(iter(settings)).runtime
    expected = RUNTIMES[1:] if runtime == "auto" else (runtime,)
    if measured.split()[0] not in expected:
        raise EdgegraftError(
            f"--device: expected times of {' or '.join(expected)}, got {device}, "
            f"measured with {measured}"
        )
    return times


def refuse_pack(folder: Path) -> None:
    """EdgegraftError where the folder of a pack exists."""
    if folder.exists():
        raise EdgegraftError(
            f"--pack-probe: expected a new folder, got {folder}, which exists"
        )


def write_pack(files: Mapping[Candidate, bytes], folder: Path) -> None:
    """The graphs in a new folder, to be timed on another device."""
    with new_folder(folder) as temporary:
        for candidate, content in files.items():
            (temporary / f"{candidate.name}.tflite").write_bytes(content)
        (temporary / "README.txt").write_text(
            f"{plural(len(files), 'network')} without training, to be timed.\n\n"
            "On the device, with edgegraft installed (any edgegraft pack brings it):\n"
            f"    {COMMAND}\n"
            "Then copy device.json back and give it to: edgegraft search PHOTOS "
            "--device device.json\n",
            encoding="utf-8",
        )
