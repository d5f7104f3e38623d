"""The input size of `--backbone auto`: what larger photos gain and cost.

Test photos play no part. Of each set, --photos training photos train linear probes on
the frozen features of EfficientNet-Lite0 at each size, cross-validated as in `edgegraft
search`; the int8 files of these networks are timed in turns, with MobileNetV2 0.35 at
224 as the peer of the small sizes.

The rule, made before the first run: `auto` takes the smallest size whose log loss is
within one standard error (of the paired difference) of the best size's on every set;
`--small` takes the best size that is no slower than MobileNetV2 0.35 at 224 by more
than a quarter.

    EDGEGRAFT_ASSETS=DIR python tests/benchmarks/input_size.py

DIR holds photos/trashnet, photos/cats_dogs and keras_home. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from backbones import registry  # noqa: E402
from data import batches  # noqa: E402
from data.source import scan  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.paired import within_one_standard_error  # noqa: E402
from quantize.search import candidates, ranking  # noqa: E402
from quantize.search.candidates import Candidate  # noqa: E402
from tests.bench_room import assets, circumstances  # noqa: E402

SETS = ("trashnet", "cats_dogs")
SIZES = (96, 128, 160, 192, 224)
PHOTOS = 600
SLOWER = 1.25  # than the small peer: more is not for slow devices
SMALL_PEER = "mobilenet_v2_0.35"


def scores_of(
    folder: Path, count: int, networks: Sequence[Candidate], console: Console
) -> dict[Candidate, ranking.Score]:
    """Each candidate's probe on `count` photos, decoded at its own size."""
    source = scan(folder)
    order = np.random.default_rng(0).permutation(len(source.photos))[:count]
    photos = [source.photos[number] for number in order]
    truth = np.array([source.labels.index(photo.label) for photo in photos])
    rows, found = np.arange(len(photos)), {}
    for one in networks:
        with batches.load_through_cache(photos, one.settings().recipe) as pixels:
            array = pixels.of(photos)
        part = ranking.Photos(array, rows, truth, rows, source.labels)
        found[one] = ranking.probe_score(one, part, seed=0)
        console.stage(f"{folder.parent.name}, {one.title}: {found[one].log_loss:.4f}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=PHOTOS, help="of each set")
    args = parser.parse_args()
    if (real := assets("input_size")) is None:
        return 0
    console = Console(json=True)
    lite0 = [Candidate(registry.get("efficientnet_lite0"), size) for size in SIZES]
    scores = {
        name: scores_of(real / "photos" / name / "train", args.photos, lite0, console)
        for name in SETS
    }
    peer = registry.get(SMALL_PEER)
    small_peer = Candidate(peer, peer.default_size)
    files = {one: candidates.graph(one, labels=6) for one in (*lite0, small_peer)}
    with tempfile.TemporaryDirectory() as folder:
        times = candidates.time_here(files, Path(folder), "auto", console)
    fitting = lite0
    for found in scores.values():
        best = min((found[one] for one in lite0), key=lambda score: score.log_loss)
        fitting = [
            one
            for one in fitting
            if within_one_standard_error(found[one].losses, best.losses)
        ]
    most_ms = SLOWER * times[small_peer].p50_ms
    small = [one for one in lite0 if times[one].p50_ms <= most_ms]

    def mean_loss(candidate: Candidate) -> float:
        return sum(found[candidate].log_loss for found in scores.values())

    rows: list[dict[str, Any]] = [
        {
            "network": one.title,
            "int8_ms": round(times[one].p50_ms, 2),
            "int8_mb": round(len(files[one]) / 1e6, 2),
            **{
                name: {
                    key: round(value, 4) for key, value in found[one].to_dict().items()
                }
                for name, found in scores.items()
            },
        }
        for one in lite0
    ]
    chosen = min((one.size for one in fitting), default=SIZES[-1])
    best_small = min(small, key=mean_loss, default=None)
    record = {
        "benchmark": "input_size",
        "peer": small_peer.title,
        "peer_int8_ms": round(times[small_peer].p50_ms, 2),
        "auto": chosen,
        "small": best_small and best_small.size,
        "within_one_standard_error": [one.size for one in fitting],
        "networks": rows,
        **circumstances(),
    }
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
