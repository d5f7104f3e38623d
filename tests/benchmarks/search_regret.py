"""Does `edgegraft search` choose what building every network in full would choose?

Peer: every network within the largest budget is fine-tuned and exported by the
defaults. Then `search` runs once for each budget, from nothing but the latencies, and
its choice is looked up among the built ones. Regret: balanced accuracy (int8 file, test
photos) of the best built network inside the budget, minus that of the chosen one; with
few test photos the best is partly the luckiest, so the 95 % interval of their
difference (bootstrap over the same photos) stands beside it. Times are CPU seconds:
`cpu_share` of building those inside the budget, `cpu_share_of_all` of building all.

    EDGEGRAFT_ASSETS=DIR KERAS_HOME=DIR/keras_home \\
        python tests/benchmarks/search_regret.py --device device.json --table FOLDER

DIR holds photos/trashnet. `--device`: times of the untrained graphs, from `edgegraft
search DIR/photos/trashnet --pack-probe probe`, then `edge bench probe/*.tflite --json`
on a quiet machine; without it they are taken here. The built networks are kept in
`--table`, so that an interrupted benchmark goes on. Ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.source import choose  # noqa: E402
from finetune.console import Console  # noqa: E402
from finetune.job import Job, run_job  # noqa: E402
from quantize.comparison.records import Budget  # noqa: E402
from quantize.conversion import scoring  # noqa: E402
from quantize.export import export  # noqa: E402
from quantize.search import candidates as networks  # noqa: E402
from quantize.search.records import SearchOptions  # noqa: E402
from quantize.search.search import search  # noqa: E402
from tests.bench_room import assets  # noqa: E402

DRAWS = 2000  # of the bootstrap
SILENT = Console(quiet=True)


def built(candidate: networks.Candidate, photos: Path, kept: Path) -> dict[str, Any]:
    """The truth, prediction and CPU seconds of the full build; read where kept."""
    path = kept / f"{candidate.name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    started = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        trained = run_job(Job(photos, candidate.settings(), Path(work) / "run"), SILENT)
        run, pixels = trained.run, trained.prepared.pixels
        with pixels:
            made = export(
                run,
                "float32,int8",
                overwrite=True,
                model=trained.network,
                pixels=pixels,
                console=SILENT,
            )
            seconds = time.process_time() - started
            test = scoring.rows_of(run, "test")
            content = made["int8"].path.read_bytes()
            with SILENT.bar("") as bar:
                scored = scoring.score_file(
                    content, test, pixels, run.labels, progress=bar
                )
    record = {
        "network": candidate.title,
        "bytes": len(content),
        "cpu_seconds": round(seconds, 1),
        "truth": scored.evaluation.truth.tolist(),
        "probabilities": scored.evaluation.probabilities.tolist(),
        "labels": list(run.labels),
    }
    path.write_text(json.dumps(record))
    return record


def balanced(record: dict[str, Any], places: Any = None) -> float:
    """Balanced accuracy, of all photos or of those at `places`."""
    truth = np.array(record["truth"])
    right = np.array(record["probabilities"]).argmax(1) == truth
    places = np.arange(len(truth)) if places is None else places
    found = [right[places][truth[places] == label] for label in np.unique(truth)]
    return float(np.mean([one.mean() for one in found if len(one)]))


def interval(best: dict[str, Any], chosen: dict[str, Any]) -> tuple[float, float]:
    """95 % of the difference in points, drawn anew from the photos of each label."""
    truth, rng = np.array(best["truth"]), np.random.default_rng(0)
    by_label = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    found = []
    for _ in range(DRAWS):
        places = np.concatenate([rng.choice(one, len(one)) for one in by_label])
        found.append(100 * (balanced(best, places) - balanced(chosen, places)))
    low, high = np.percentile(found, [2.5, 97.5])
    return round(float(low), 2), round(float(high), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--photos", default="trashnet", help="in DIR/photos (default: trashnet)")
    add(
        "--backbones",
        default="",
        help="names with commas (default: all that are ready)",
    )
    add("--budgets", type=float, nargs="+", default=[2, 5, 10], metavar="MS")
    add("--device", type=Path, help="times of `edge bench --json`")
    add("--table", type=Path, required=True, help="folder for the built networks")
    args = parser.parse_args()
    place = assets("search_regret")
    if place is None:
        return 0
    photos = place / "photos" / args.photos
    names = tuple(filter(None, args.backbones.split(",")))
    args.table.mkdir(parents=True, exist_ok=True)
    every = [one for one in networks.ready(names) if one.pretrained]
    files = networks.graphs(every, len(choose(photos).folder.labels), SILENT)
    if args.device is not None:
        times = networks.time_there(files, args.device)
    else:
        with tempfile.TemporaryDirectory() as work:
            times = networks.time_here(files, Path(work), "auto", SILENT)
    ms = {one: timing.p50_ms for one, timing in times.items()}
    table = {}
    within = [one for one in ms if ms[one] <= max(args.budgets)]
    for one in sorted(within, key=ms.__getitem__):
        table[one.title] = {**built(one, photos, args.table), "ms": ms[one]}
        figure = f"{balanced(table[one.title]):.4f}, {ms[one]:.2f} ms"
        print(f"{one.title}: {figure}", file=sys.stderr, flush=True)
    everything = sum(row["cpu_seconds"] for row in table.values())
    searches = []
    for budget in args.budgets:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as work:
            options = SearchOptions(
                photos,
                Path(work) / "search",
                Budget(budget),
                device=args.device,
                backbones=names,
            )
            result = search(options, SILENT)
        seconds = time.process_time() - started
        inside = [row for row in table.values() if row["ms"] <= budget]
        best = max(inside, key=balanced)
        chosen = table[result.chosen.candidate.title] if result.chosen else best
        whole = sum(row["cpu_seconds"] for row in inside)
        searches.append(
            {
                "budget_ms": budget,
                "networks": len(inside),
                "chosen": chosen["network"],
                "best": best["network"],
                "regret_points": round(100 * (balanced(best) - balanced(chosen)), 2),
                "interval": interval(best, chosen),
                "cpu_share": round(seconds / whole, 3),
                "cpu_share_of_all": round(seconds / everything, 3),
            }
        )
        print(searches[-1], file=sys.stderr, flush=True)
    summary = {
        "benchmark": "search_regret",
        "photos": args.photos,
        "host": platform.machine(),
        "peer": "every network built in full",
        "mean_regret_points": round(
            float(np.mean([one["regret_points"] for one in searches])), 2
        ),
        "searches": searches,
        "networks": {
            name: {
                "balanced_accuracy": round(balanced(row), 4),
                "ms": round(row["ms"], 2),
                "mb": round(row["bytes"] / 1e6, 2),
                "cpu_seconds": row["cpu_seconds"],
            }
            for name, row in table.items()
        },
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
