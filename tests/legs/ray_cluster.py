"""A Ray cluster of two workers on this machine, and `edge classify` over it.

    python tests/legs/ray_cluster.py MODEL PHOTO...

In the environment of the leg `ray`: a head without cores and two nodes of one core
each, so that both have to work. Prints JSON: the CSV rows of one machine and of the
cluster (times left out), their errors and exit codes. It does not know: whether
they should be equal.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys

from ray.cluster_utils import Cluster

TIMES = ("decode_ms", "inference_ms")


def told(arguments: list[str], environment: dict[str, str]) -> dict[str, object]:
    """What one run of the command said."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "classify", *arguments, "--csv"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    kept = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    # Ray has lines of its own
    errors = [line for line in done.stderr.splitlines() if "edgegraft" in line]
    return {"rows": kept, "errors": errors, "code": done.returncode}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    try:
        here = told([*sys.argv[1:], "--workers", "1"], dict(os.environ))
        there = told([*sys.argv[1:], "--engine", "ray"], environment)
    finally:
        cluster.shutdown()
    print(json.dumps({"here": here, "there": there}))


if __name__ == "__main__":
    main()
