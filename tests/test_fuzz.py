"""A slice of the fuzz campaign (`make fuzz`): every kind but the page and kills."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import batches
from tests.fuzz.__main__ import KINDS

ROOT = Path(__file__).resolve().parents[1]


def test_every_kind_can_be_given_to_a_process() -> None:
    """The slice below works in one process, the campaign in several."""
    for job in (batches.load, *(kind.work for kind in KINDS.values())):
        assert pickle.loads(pickle.dumps(job)) == job
    assert batches.load.__module__ == "tests.fuzz.batches"  # __main__ is not imported


@pytest.mark.slow
def test_a_slice_of_the_campaign_finds_no_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--slice", "--keep", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["faults"] == 0
    assert record["models"]["exit 0"] > 0 and record["models"]["exit 2"] > 0
    assert record["photos"]["photos"] == 30
