"""A slice of the fuzz campaign (`make fuzz`): every kind but the page and kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
    assert record["photos"]["photos"] == 60
