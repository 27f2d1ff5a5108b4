"""W&B's own sweeps: the real `wandb sweep` takes our files as they are, and the real `wandb agent` runs our jobs.

No server of W&B has been tried; the one here hands out the trials of a grid.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.wandb_server import KEY, FakeWandb

from hpcft.runs.run import list_runs
from hpcft.spec import assets
from hpcft.spec.sweep_file import read_sweep

SHIPPED = sorted(assets.packaged_folder("sweeps").glob("*.yaml"))


def call(folder: Path, server: FakeWandb, *words: str, timeout_s: float = 120, **variables: str) -> str:
    """Run a program of wandb's with a login at the server; what it printed."""
    (folder / ".netrc").write_text(f"machine {server.url.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    (folder / ".netrc").chmod(0o600)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HPCFT_"))}
    environment |= {"HOME": str(folder), "WANDB_BASE_URL": server.url, "OMP_NUM_THREADS": "1", **variables}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", *words],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_wandb_sweep_takes_our_files_as_they_are(path: Path, tmp_path: Path, server: FakeWandb) -> None:
    said = call(tmp_path, server, "sweep", "--entity", "lab", "--project", "study", str(path))
    assert "wandb agent lab/study/sweep1" in said
    assert server.unknown == []
    sent = server.sweeps["sweep1"].config
    assert sent["program"] == "hpcft"
    assert sent["command"][-1] == "${args_no_hyphens}"
    ours = read_sweep(path)
    assert set(sent["parameters"]) == {p.key for p in ours.parameters}
    assert (sent["metric"]["name"], sent["metric"]["goal"]) == (ours.metric.name, ours.metric.goal)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_numbers_in_our_files_are_numbers_to_every_reader_of_yaml(path: Path) -> None:
    def check(value: Any) -> None:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner)
        if isinstance(value, str):
            # `1e-5` is a text in YAML 1.1, which W&B reads.
            with pytest.raises(ValueError, match="could not convert"):
                float(value)

    check(yaml.safe_load(path.read_text()))


@pytest.mark.slow
def test_a_trial_of_wandb_s_agent_is_our_run_with_the_agent_s_id(
    tmp_path: Path, server: FakeWandb, small_quickstart: Path
) -> None:
    rank = next(path for path in SHIPPED if path.stem == "rank")
    call(tmp_path, server, "sweep", "--entity", "lab", "--project", "study", str(rank))
    variables = {"HPCFT_CACHE": str(small_quickstart), "WANDB_MODE": "online", "HPCFT_TRAINING__MAX_STEPS": "2"}
    said = call(tmp_path, server, "agent", "--count", "1", "lab/study/sweep1", timeout_s=600, **variables)
    (run,) = list_runs(tmp_path / "results")
    assert run.end is not None, said
    assert (run.config["lora"]["r"], run.config["training"]["seed"]) == (4, 1)
    assert list(server.sweeps["sweep1"].given) == ["sweep1-trial1"]
    remote = server.runs["sweep1-trial1"]
    assert remote.fields["sweep"] == "sweep1"
    assert remote.summary["final/validation_loss"] == run.metrics["final/validation_loss"]
    assert remote.exit_code == 0
