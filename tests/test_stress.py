"""A share of `make stress`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_stress_share():
    done = subprocess.run(
        [sys.executable, "-m", "tests.stress", "--quick", "--seed", "1"],  # reproducible
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    for tried in (
        "kill -9 of v1",
        "SIGTERM to all",
        "SIGINT twice",
        "mutated",
        "disk",
        "malicious checkpoints",
        "a damaged best.ckpt",
    ):
        assert tried in done.stdout
