"""A real Slurm cluster for tests; `slurm_cluster` starts it once a session.

HPCFT_TEST_SLURM=existing uses the cluster that answers, for instance one of `cluster.py start`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcft.cluster.lookup import look_up

# Tests are no packages, and cluster.py is a command as well.
sys.path.insert(0, str(Path(__file__).parent.parent / "slurm"))

from cluster import LONGEST_ROOT, PROGRAMS, SlurmCluster
from machine import clean_environment, missing, temporary_folder

HOW_TO_GET_ONE = (
    "no Slurm here: run tests/slurm/install.sh as root (Debian, Ubuntu), "
    "or set HPCFT_TEST_SLURM=existing where sinfo answers"
)


def find_by_name(job_name: str) -> str | None:
    """The id of the job of that name, as far as Slurm knows one; the key after the last dot decides."""
    key = job_name.rpartition(".")[2]
    return look_up([key], time.time() - 86400).jobs.get(key)


class ForeignCluster:
    """A cluster that is not ours to start or stop; `SlurmCluster`'s methods as far as they make sense there."""

    def env(self) -> dict[str, str]:
        """Nothing needs to be set."""
        return {}

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Do not wait: others use it too."""


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster | ForeignCluster]:
    """A running cluster, with SLURM_CONF and PATH set; skips, or fails where CI=true, when there can be none."""
    if os.environ.get("HPCFT_TEST_SLURM") == "existing":
        answer = subprocess.run(["sinfo"], capture_output=True, text=True, check=False)
        if answer.returncode:
            pytest.fail(f"HPCFT_TEST_SLURM=existing, and sinfo says: {answer.stderr.strip()}")
        root = Path(os.environ.get("SLURM_CONF", "/")).parent.parent
        yield SlurmCluster(root) if (root / "cluster.json").exists() else ForeignCluster()
        return
    if missing(PROGRAMS):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(HOW_TO_GET_ONE)
    parent = temporary_folder(LONGEST_ROOT - 20)
    cluster = SlurmCluster(Path(tempfile.mkdtemp(prefix="hpcft-", dir=parent)))
    cluster.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ.keys() - clean_environment().keys():
                patch.delenv(name)
            for name, value in cluster.env().items():
                patch.setenv(name, value)
            yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _healthy(request: pytest.FixtureRequest) -> None:
    """A test on the cluster finds both nodes in service, whatever the test before has done to them."""
    if "slurm_cluster" in request.fixturenames:
        cluster = request.getfixturevalue("slurm_cluster")
        if isinstance(cluster, SlurmCluster):
            cluster.heal()


@pytest.fixture
def slurm_home(slurm_cluster: SlurmCluster | ForeignCluster, tmp_path: Path) -> Path:
    """A fresh private folder that every node sees.

    On a foreign cluster it is pytest's: give `--basetemp` a shared folder where /tmp is not one.
    """
    if isinstance(slurm_cluster, ForeignCluster):
        return tmp_path
    return Path(tempfile.mkdtemp(prefix="home-", dir=slurm_cluster.root))
