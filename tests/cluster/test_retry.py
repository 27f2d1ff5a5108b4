"""What is run again after a failure: the batch script's question, and its answer in the log, the record and Slurm."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.failed_runs import FailedRun, said

from hpcft.cluster.explain import Cause, verdict_of
from hpcft.cluster.explain.policy import POLICIES, decisions
from hpcft.cluster.retry import main
from hpcft.runs.events import read_log

SAMPLES = Path(__file__).parent.parent / "data" / "failures"
NEVER = ("gpu_oom_torch", "host_oom_slurm", "import_module", "offline_hub", "disk_quota", "time_limit", "bad_labels")


@pytest.fixture
def failed(tmp_path: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch) -> FailedRun:
    """A run whose job on node1 is about to end."""
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n")
    done = subprocess.run(
        ["sbatch", "--parsable", "--job-name=r.r", str(script)], capture_output=True, text=True, check=True
    )
    job_id = done.stdout.strip()
    fake_slurm.set_state(job_id, "RUNNING")
    # It would be deaf to TERM from then on, and so would be what later tests start.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("SLURM_JOB_ID", job_id)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node1")
    return FailedRun(tmp_path / "runs" / "r", job_id=job_id)


def ask(case: FailedRun, code: int = 1) -> int:
    return main([str(case.paths.root), str(code)])


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NEVER)
def test_a_deterministic_error_is_never_run_again(
    failed: FailedRun, fake_slurm: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed.log(sample(name))
    assert ask(failed) == 1
    (decision,) = decisions(failed.paths)
    assert decision["again"] is False
    assert not POLICIES[Cause(decision["cause"])].times
    assert "not queued again" in capsys.readouterr().err
    assert ["requeue", failed.run.job_id] not in fake_slurm.calls("scontrol")


def test_inside_a_job_no_other_run_is_read_for_commands_that_nobody_sees(
    failed: FailedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: object) -> float:
        raise AssertionError("the results folder is read")

    monkeypatch.setattr("hpcft.cluster.explain.mend.measured_peak_gb", read)
    assert ask(failed.log(sample("host_oom_slurm"))) == 1
    assert decisions(failed.paths)[0]["cause"] == "host_oom"


def test_a_start_that_had_saved_when_it_was_ended_goes_on(
    failed: FailedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    failed.events({"kind": "start", "resume_step": 0}, {"kind": "checkpoint", "step": 9})
    failed.status("stopped", step=9).log("srun: error: node1: task 0: Terminated")
    assert ask(failed, 143) == 0
    assert "everything had been saved" in capsys.readouterr().err
    # The word of the attempt before says nothing of one that saved nothing.
    failed.events({"kind": "start", "resume_step": 9}, attempt=2)
    assert ask(failed, 143) == 1


def test_starts_that_die_before_they_have_an_attempt_do_not_go_on_for_ever(failed: FailedRun) -> None:
    failed.events({"kind": "start", "resume_step": 0}, {"kind": "checkpoint", "step": 9}).status("stopped", step=9)
    failed.log("hpcft: start 0 of job 1 on node1", said("INFO", "attempt 1: r on cpu, 2 rank(s)"))
    assert ask(failed, 143) == 0
    codes = []
    for start in range(1, 5):
        failed.log(f"hpcft: start {start} of job 1 on node1", sample("port_in_use"))
        codes.append(ask(failed))
    assert codes == [0, 0, 1, 1]
    assert len(decisions(failed.paths)) == 4


@pytest.mark.parametrize(
    ("name", "times"), [("nccl_timeout", 3), ("gloo_closed", 3), ("port_in_use", 2), ("killed", 1)]
)
def test_a_passing_trouble_is_run_again_so_often_and_no_more(failed: FailedRun, name: str, times: int) -> None:
    failed.log(sample(name))
    assert [ask(failed) for _ in range(times + 2)] == [0] * times + [1, 1]
    assert "gained no step" in decisions(failed.paths)[-1]["reason"]


def test_steps_that_were_gained_begin_the_count_anew(failed: FailedRun) -> None:
    failed.log(sample("gloo_timeout"))
    assert [ask(failed) for _ in range(4)] == [0, 0, 0, 1]
    failed.events({"kind": "checkpoint", "step": 40, "folder": "checkpoint-40"})
    assert ask(failed) == 0


def test_a_fault_of_a_node_queues_the_job_again_without_it(failed: FailedRun, fake_slurm: Any) -> None:
    failed.log(sample("node_ecc"))
    # 1: there is nothing left for the batch script to do.
    assert ask(failed) == 1
    job = fake_slurm.job(failed.run.job_id)
    assert (job["state"], job["exc_nodes"], job["restarts"]) == ("PENDING", "node1", 1)
    (decision,) = decisions(failed.paths)
    assert (decision["again"], decision["node"]) == (True, "node1")
    assert verdict_of(failed.run).notes[-1].startswith("queued again: other nodes may do it")


def test_the_nodes_that_were_left_out_before_stay_out(failed: FailedRun, fake_slurm: Any) -> None:
    fake_slurm.set_state(failed.run.job_id, "RUNNING", exc_nodes="node7")
    failed.log(sample("node_xid"))
    ask(failed)
    assert fake_slurm.job(failed.run.job_id)["exc_nodes"] == "node7,node1"


def test_only_the_node_of_the_rank_that_failed_is_left_out(
    failed: FailedRun, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    (failed.paths.config).write_text("variant: lora\nresources: {nodes: 2, gpus_per_node: 2}\n")
    words = "failed with exit code 1: RuntimeError: CUDA error: uncorrectable ECC error encountered"
    failed.log(said("INFO", "attempt 1: r on cuda:0, 4 rank(s)")).rank_log(2, said("ERROR", words, 5))
    ask(failed)
    assert fake_slurm.job(failed.run.job_id)["exc_nodes"] == "node2"


def test_where_slurm_refuses_the_exclusion_the_job_is_queued_again_all_the_same(
    failed: FailedRun, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcft.cluster import retry
    from hpcft.cluster.slurm import Answer

    original = retry.call
    refusal = Answer(1, "", "Access/permission denied")
    monkeypatch.setattr(retry, "call", lambda c, **k: refusal if c[1] == "update" else original(c, **k))
    monkeypatch.setattr(retry, "_EXCLUDE_TRIES_S", (0.0,))
    failed.log(sample("node_ecc"))
    assert ask(failed) == 1
    assert fake_slurm.job(failed.run.job_id)["restarts"] == 1
    assert "Access/permission denied" in read_log(failed.paths.retries).records[-1]["words"]


def test_what_was_cancelled_is_not_run_again(failed: FailedRun, fake_slurm: Any) -> None:
    fake_slurm.set_state(failed.run.job_id, "CANCELLED by 0")
    assert ask(failed.log(sample("gloo_closed")), 1) == 1
    assert decisions(failed.paths)[0]["cause"] == "cancelled"


def test_what_is_not_understood_is_not_run_again(failed: FailedRun) -> None:
    assert ask(failed.log("some words"), 1) == 1
    assert decisions(failed.paths)[0]["cause"] == "unknown"


def test_a_run_that_has_its_end_marker_is_done(failed: FailedRun) -> None:
    assert ask(failed.log(sample("gloo_timeout")).done()) == 1
    assert decisions(failed.paths) == []


def test_a_refusal_by_exit_code_alone_is_not_run_again(failed: FailedRun) -> None:
    assert ask(failed.log("nothing that anybody knows"), 78) == 1
    assert decisions(failed.paths)[0]["cause"] == "bad_config"


def test_without_a_record_nothing_is_run_again_since_nothing_is_counted(
    failed: FailedRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpcft.cluster import retry
    from hpcft.errors import NotAllowedError

    def full(*_: object, **__: object) -> None:
        raise NotAllowedError("cannot write the log: no space left on the file system")

    monkeypatch.setattr(retry, "EventLog", full)
    assert ask(failed.log(sample("port_in_use"))) == 1
    assert "could not be written down" in capsys.readouterr().err


def test_it_loads_nothing_heavy() -> None:
    """A batch script waits for it in the last seconds of its time."""
    heavy = ("torch", "transformers", "datasets", "wandb", "optuna", "submitit", "jinja2")
    code = f"import sys, hpcft.cluster.retry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
