"""The local cluster: ranks on this machine, in a session of their own, with one log."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcft.cluster.profile import Profile
from hpcft.cluster.queue import JobState, ask_local, start_time
from hpcft.cluster.steer import stop_process
from hpcft.cluster.submit import Submitted, submit_local
from hpcft.errors import HpcftError
from hpcft.runs.create import make_run_directory
from hpcft.runs.paths import RunPaths
from hpcft.runs.record import read_record
from hpcft.runs.submission import Journal
from hpcft.spec.build import build
from hpcft.spec.layers import pairs_layer

LOCAL = Profile.model_validate({"name": "local", "scheduler": "local"})
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
root = Path(sys.argv[1])
rank = os.environ["SUBMITIT_LOCAL_GLOBALID"]
got = []
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda n, _: got.append(signal.Signals(n).name))
print(f"rank {rank} speaks", flush=True)
facts = {"session": os.getsid(0), "pid": os.getpid(), "environment": dict(os.environ), "path": sys.path}
(root / f"rank{rank}.tmp").write_text(json.dumps(facts))
(root / f"rank{rank}.tmp").rename(root / f"rank{rank}.json")
end = time.monotonic() + (30 if (root / "wait").exists() else 0)
while time.monotonic() < end and not got:
    time.sleep(0.02)
(root / f"signals{rank}").write_text(" ".join(got))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run whose snapshot of the package is a worker of ten lines."""
    paths = make_run_directory(tmp_path / "my results", "mine", "mine")
    package = paths.code / "hpcft"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "worker.py").write_text(WORKER)
    return paths


def start(run: RunPaths, *pairs: str, profile: Profile = LOCAL) -> Submitted:
    job = build([pairs_layer(pairs, "--set")]).job
    with Journal(run) as journal:
        return submit_local(job, profile, run, journal)


def until(condition: Callable[[], Any], timeout_s: float = 15) -> Any:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)
    return value


def facts(run: RunPaths, rank: int) -> dict[str, Any]:
    path = run.root / f"rank{rank}.json"
    until(path.is_file)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def ended(job_id: str) -> bool:
    return ask_local(job_id).state is not JobState.RUNNING


def test_ranks_find_each_other_and_the_snapshot(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    submitted = start(run, "resources.gpus_per_node=2")
    environments = [facts(run, rank)["environment"] for rank in (0, 1)]
    assert [e["SUBMITIT_LOCAL_LOCALID"] for e in environments] == ["0", "1"]
    assert {e["SUBMITIT_LOCAL_NTASKS"] for e in environments} == {"2"}
    assert {e["MASTER_ADDR"] for e in environments} == {"127.0.0.1"}
    assert len({e["MASTER_PORT"] for e in environments}) == 1
    assert {e["PYTHONPATH"] for e in environments} == {str(run.code)}
    assert not any(name.startswith("SLURM_") for name in environments[0])
    until(lambda: ended(submitted.job_id))


def test_a_module_in_the_current_folder_is_not_the_library(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    submitted = start(run)
    assert str(tmp_path) not in facts(run, 0)["path"]
    until(lambda: ended(submitted.job_id))


def test_the_job_has_a_session_of_its_own_and_one_log(run: RunPaths) -> None:
    submitted = start(run)
    assert facts(run, 0)["session"] != os.getsid(0)
    until(lambda: ended(submitted.job_id))
    assert submitted.log == run.batch_log
    assert "rank 0 speaks" in run.batch_log.read_text()
    assert sorted(p.name for p in (run.root / "local").iterdir()) == [f"{submitted.job_id.partition('-')[0]}_0_log.out"]


@pytest.mark.parametrize("visible", ["1,3", None])
def test_ranks_see_the_gpus_that_the_user_sees(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    submitted = start(run)
    assert facts(run, 0)["environment"].get("CUDA_VISIBLE_DEVICES") == visible
    until(lambda: ended(submitted.job_id))


def test_a_stop_reaches_every_rank(run: RunPaths) -> None:
    (run.root / "wait").touch()
    submitted = start(run, "resources.gpus_per_node=2")
    facts(run, 0), facts(run, 1)
    assert ask_local(submitted.job_id).state is JobState.RUNNING
    stop_process(read_record(run.root))
    for rank in (0, 1):
        until((run.root / f"signals{rank}").is_file)
    until(lambda: ended(submitted.job_id))
    assert (run.root / "signals1").read_text().startswith("SIGTERM")


def test_a_job_that_is_ended_at_once_leaves_no_rank_behind(run: RunPaths) -> None:
    (run.root / "wait").touch()
    submitted = start(run, "resources.gpus_per_node=2")
    pids = [facts(run, rank)["pid"] for rank in (0, 1)]
    stop_process(read_record(run.root), now=True)
    until(lambda: ended(submitted.job_id) and not any(start_time(pid) for pid in pids))
    assert not (run.root / "signals0").exists()


def test_a_short_job_gets_its_warning_too(run: RunPaths) -> None:
    (run.root / "wait").touch()
    # 120 s of warning, in a job of 4 s.
    submitted = start(run, "resources.time=0:04", "resources.signal_seconds=120")
    until((run.root / "signals0").is_file)
    assert (run.root / "signals0").read_text() == "SIGUSR2"
    until(lambda: ended(submitted.job_id))


def test_the_profiles_python_runs_the_ranks(run: RunPaths, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nMARK=mine exec {sys.executable} "$@"\n')
    python.chmod(0o700)
    profile = Profile.model_validate({"name": "local", "scheduler": "local", "python": str(python)})
    submitted = start(run, profile=profile)
    assert facts(run, 0)["environment"]["MARK"] == "mine"
    until(lambda: ended(submitted.job_id))


def test_a_program_with_threads_such_as_a_notebook_can_start_one(run: RunPaths) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        submitted = start(run)
        until(lambda: ended(submitted.job_id))
    finally:
        stop.set()
        thread.join()


def test_a_start_that_fails_says_why(run: RunPaths) -> None:
    (run.root / "local").write_text("in the way")
    with pytest.raises(HpcftError, match="File exists"):
        start(run)
