"""`hpcft cluster probe` on a real cluster: the profile that it writes submits without edits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run

HPCFT = str(Path(sys.executable).with_name("hpcft"))


def hpcft(folder: Path, *words: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([HPCFT, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submits(folder: Path) -> None:
    """The probed profile's job is taken by Slurm as it is; the cluster's GPUs are pretended, so it runs on CPUs."""
    hpcft(folder, "cluster", "probe", "--name", "found")
    build_model(folder / "model", steps=0, hidden=64, layers=2, vocab=512)
    words = ["--cluster", "found", "--model", "model", "--dataset", "quickstart", "--variant", "lora"]
    asked = json.loads(hpcft(folder, "submit", *words, "--name", "gpu", "--json"))
    subprocess.run(["scancel", asked["job_id"]], check=True)
    short = ["--num-samples", "16", "--max-steps", "2", "--no-eval", "--set", "resources.accelerator=cpu"]
    hpcft(folder, "submit", *words, *short, "--name", "cpu", "--wait")
    assert Run(folder / "results" / "cpu").end is not None


def test_the_probed_profile_submits_without_edits(slurm_cluster: Any, tmp_path: Path) -> None:
    submits(tmp_path)
    text = (tmp_path / "hpc" / "found.yaml").read_text()
    assert "account: acme" in text
    assert "# - accounting answers" in text


@pytest.mark.slow
def test_the_probed_profile_submits_without_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    from cluster import SlurmCluster

    cluster = SlurmCluster(Path(tempfile.mkdtemp(prefix="hpcft-na-")), accounting=False)
    cluster.start()
    try:
        for name, value in cluster.env().items():
            monkeypatch.setenv(name, value)
        submits(tmp_path)
        assert "# - no accounting" in (tmp_path / "hpc" / "found.yaml").read_text()
    finally:
        cluster.stop()
