"""What a killed client left is settled by looking, and by nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcft.cluster import lookup, repair
from hpcft.cluster.lookup import look_up
from hpcft.cluster.repair import Repaired
from hpcft.cluster.slurm import Answer
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import Journal, submissions


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour has passed."""
    clock = SimpleNamespace(time=lambda: time.time() + 3600, sleep=lambda seconds: None)
    monkeypatch.setattr(repair, "time", clock)


def left(folder: Path, name: str, *records: str, scheduler: str = "slurm", host: str | None = None) -> RunPaths:
    paths = RunPaths(folder / name)
    paths.root.mkdir(parents=True)
    with Journal(paths) as journal:
        journal.open_submission(name)
        for kind in records:
            where = os.uname().nodename if host is None else host
            journal.note(kind, **({"run_id": name, "scheduler": scheduler, "host": where} if kind == "intent" else {}))
    return paths


def queue(name: str) -> None:
    script = f"#!/bin/sh\n#SBATCH --job-name=run.{name}\n#SBATCH --comment=hpcft:{name}\n"
    subprocess.run(["sbatch"], input=script, text=True, check=True, capture_output=True)


def repaired(folder: Path) -> dict[str, tuple[str, str | None]]:
    return {r.run.name: (r.outcome, r.job_id) for r in repair.repair(folder, lambda _: None)}


def test_each_open_submission_is_settled(fake_slurm: Any, tmp_path: Path, later: None) -> None:
    for name, records in {
        "claimed": (),
        "intended": ("intent",),
        "sent": ("intent", "sending"),
        "gone": ("intent", "sending"),
        "unsure": ("intent", "sending", "unsure"),
        "fine": ("intent", "sending", "submitted"),
        "sweep/0001": ("intent", "sending"),
    }.items():
        left(tmp_path, name, *records)
    queue("sent")
    queue("unsure")
    queue("sweep/0001")
    calls = len(fake_slurm.calls("squeue")), fake_slurm.submissions
    assert repaired(tmp_path) == {
        "claimed": ("withdrawn", None),
        "intended": ("withdrawn", None),
        "sent": ("submitted", "1"),
        "gone": ("withdrawn", None),
        "unsure": ("submitted", "2"),
        "0001": ("submitted", "3"),
    }
    # All in one question, and once more for the one that is given up; never an sbatch.
    assert (len(fake_slurm.calls("squeue")), fake_slurm.submissions) == (calls[0] + 2, calls[1])
    assert repaired(tmp_path) == {}
    assert submissions(RunPaths(tmp_path / "sent"))[-1].job_id == "1"


def test_a_young_one_is_left(fake_slurm: Any, tmp_path: Path) -> None:
    left(tmp_path, "young", "intent", "sending")
    said: list[str] = []
    assert [r.outcome for r in repair.repair(tmp_path, said.append)] == ["left"]
    assert "try again in" in said[0]


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ({"controller": "down"}, "left", "the controller does not answer"),
        ({"controller": "timed_out"}, "left", "the controller does not answer"),
        ({"accounting": "down"}, "left", "accounting does not answer"),
        ({"accounting": "disabled"}, "withdrawn", "no job of it"),
    ],
)
def test_silence_is_not_taken_for_a_no(
    fake_slurm: Any, tmp_path: Path, later: None, fault: dict[str, str], outcome: str, words: str
) -> None:
    left(tmp_path, "a", "intent", "sending")
    fake_slurm.fault(**fault)
    (found,) = repair.repair(tmp_path, lambda _: None)
    assert (found.outcome, words in found.message) == (outcome, True)


def test_a_job_that_only_accounting_knows_is_found(fake_slurm: Any, tmp_path: Path, later: None) -> None:
    left(tmp_path, "a", "intent", "sending")
    queue("a")
    fake_slurm.set_state(1, "COMPLETED")
    assert repaired(tmp_path) == {"a": ("submitted", "1")}


def test_an_attempt_that_has_started_is_proof_without_asking(
    tmp_path: Path, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "call", lambda command: pytest.fail("asked"))
    paths = left(tmp_path, "a", "intent", "sending")
    paths.attempt(1).mkdir(parents=True)
    write_json(paths.holder(1), {"host": "n1", "processes": "", "pid": 1, "began": 0.0, "job_id": "77"})
    assert repaired(tmp_path) == {"a": ("submitted", "77")}


def test_a_client_on_another_machine_gets_longer(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + 300, sleep=lambda seconds: None)
    monkeypatch.setattr(repair, "time", clock)
    left(tmp_path, "here", "intent", "sending")
    left(tmp_path, "there", "intent", "sending", host="login2")
    assert repaired(tmp_path) == {"here": ("withdrawn", None), "there": ("left", None)}


def test_an_sbatch_that_outlives_its_client_is_waited_for(fake_slurm: Any, tmp_path: Path, later: None) -> None:
    code = (
        "import subprocess, sys, os, signal; from pathlib import Path\n"
        "from hpcft.runs.paths import RunPaths; from hpcft.runs.submission import Journal\n"
        "journal = Journal(RunPaths(Path(sys.argv[1]))); journal.open_submission('a')\n"
        "journal.note('intent', run_id='a', host=os.uname().nodename); journal.note('sending')\n"
        "child = subprocess.Popen(['sleep', '30'], pass_fds=journal.locks, stdout=-3)\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "a").mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, check=False)
    assert repaired(tmp_path) == {"a": ("left", None)}
    os.kill(int(done.stdout), signal.SIGKILL)
    end = time.monotonic() + 5
    while (settled := repaired(tmp_path)) != {"a": ("withdrawn", None)}:
        assert time.monotonic() < end, settled


def test_local_jobs_are_looked_for_among_the_processes(tmp_path: Path, later: None) -> None:
    here = left(tmp_path, "here", "intent", "sending", scheduler="local")
    left(tmp_path, "ended", "intent", "sending", scheduler="local")
    left(tmp_path, "elsewhere", "intent", "sending", scheduler="local", host="login2")
    command = [sys.executable, "-c", "import time; time.sleep(30)", "submitit.local._local", str(here.root / "local")]
    with subprocess.Popen(command) as process:
        found = repaired(tmp_path)
        process.kill()
    outcome, job_id = found.pop("here")
    assert (outcome, (job_id or "").partition("-")[0]) == ("submitted", str(process.pid))
    assert found == {"ended": ("withdrawn", None), "elsewhere": ("left", None)}


def test_keys_are_found_in_names_and_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"squeue": Answer(0, "9|mine.a|(null)\n7|mine.a|(null)\n8|renamed|hpcft:b-2\n", "")}
    answers["sacct"] = Answer(0, "5_3|gr??e.c|\n6|other|\n", "")
    monkeypatch.setattr(lookup, "call", lambda command: answers[command[0]])
    found = look_up(["a", "b-2", "c", "d"], 0.0)
    # Of two the older: the other was submitted again by hand.
    assert found.jobs == {"a": "7", "b-2": "8", "c": "5"}
    assert found.is_sure


def test_what_was_repaired_is_told(fake_slurm: Any, tmp_path: Path, later: None) -> None:
    left(tmp_path, "a", "intent")
    said: list[str] = []
    (found,) = repair.repair(tmp_path, said.append)
    assert found == Repaired((tmp_path / "a").absolute(), "withdrawn", None, found.message)
    assert said == [f"a: withdrawn; {found.message}"]
