"""A sample of what `python -m tests.crashes` does in full."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.smoke
def test_a_crash_loses_nothing_changes_nothing_and_leaves_nothing() -> None:
    """At some points of every kind, and at random moments of a real chain."""
    command = [sys.executable, "-m", "tests.crashes", "--points", "12", "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(int(line.split()[-1]) for line in done.stdout.splitlines() if "chain:" in line) == 24
