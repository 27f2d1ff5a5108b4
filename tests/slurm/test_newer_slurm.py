"""The same cluster with Slurm 24.11, in a chroot of a later Debian."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="a chroot needs root")
def test_every_test_of_the_cluster_passes_with_slurm_24_11() -> None:
    """Left out are the slow ones, of which this is one."""
    there = [str(HERE / "newer.sh"), "--"]
    version = subprocess.run([*there, "slurmctld", "-V"], capture_output=True, text=True, check=False)
    assert version.stdout.startswith("slurm-wlm 24.11"), version.stderr
    tests = [".venv/bin/pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "tests/slurm"]
    done = subprocess.run(
        [*there, *tests], capture_output=True, text=True, check=False, env=os.environ | {"CI": "true"}
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
