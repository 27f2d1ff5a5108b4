"""Why a run failed, by what Slurm says of its job: state, exit code, accounting, and who cancelled it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.failed_runs import FailedRun, said

from hpcft.cluster.explain import Cause, verdict_of
from hpcft.cluster.explain.scheduler import parse_accounting

SAMPLES = Path(__file__).parent.parent / "data" / "failures"


class TestWhatSlurmSays:
    def test_out_of_memory_with_exit_code_0_and_no_end_marker_is_a_failure(
        self, tmp_path: Path, fake_slurm: Any
    ) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "OUT_OF_MEMORY", "0:0")
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.HOST_OOM
        assert verdict.evidence is not None
        assert verdict.evidence.file.startswith("sacct")

    def test_it_completed_with_exit_code_0_and_the_log_tells_of_a_killed_task(
        self, tmp_path: Path, fake_slurm: Any
    ) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "COMPLETED", "0:0").log((SAMPLES / "host_oom_slurm.txt").read_text())
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.HOST_OOM
        assert verdict.evidence is not None
        assert (verdict.evidence.node, verdict.evidence.line) == (None, 2)

    @pytest.mark.parametrize(
        ("state", "code", "cause"),
        [
            ("TIMEOUT", "0:0", Cause.TIME_LIMIT),
            ("NODE_FAIL", "1:0", Cause.NODE_FAILURE),
            ("PREEMPTED", "0:15", Cause.PREEMPTED),
            ("FAILED", "0:53", Cause.NO_ACCESS),
            ("FAILED", "75:0", Cause.STOPPED),
            ("FAILED", "78:0", Cause.BAD_CONFIG),
            ("FAILED", "77:0", Cause.DISK_FULL),
            ("FAILED", "120:0", Cause.DISK_FULL),
            ("FAILED", "0:9", Cause.KILLED),
            ("FAILED", "1:0", Cause.UNKNOWN),
            ("COMPLETED", "0:0", Cause.UNKNOWN),
        ],
    )
    def test_its_state_alone(self, tmp_path: Path, fake_slurm: Any, state: str, code: str, cause: Cause) -> None:
        assert verdict_of(_slurm_run(tmp_path, fake_slurm, state, code).run).cause is cause

    def test_the_stop_of_an_earlier_start_is_not_that_of_one_that_died_at_once(
        self, tmp_path: Path, fake_slurm: Any
    ) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "FAILED", "1:0").status("stopped", step=9)
        case.log("hpcft: start 0 of job 1 on node1", said("INFO", "attempt 1: r on cpu, 1 rank(s)"))
        assert verdict_of(case.run).cause is Cause.STOPPED
        case.log("hpcft: start 1 of job 1 on node1", "some words")
        assert verdict_of(case.run).cause is Cause.UNKNOWN

    def test_who_cancelled_it(self, tmp_path: Path, fake_slurm: Any) -> None:
        verdict = verdict_of(_slurm_run(tmp_path, fake_slurm, "CANCELLED by 0", "0:0").run)
        assert verdict.cause is Cause.CANCELLED
        assert verdict.summary == "by root with scancel"

    def test_our_own_journal_knows_better_who_cancelled_it(self, tmp_path: Path, fake_slurm: Any) -> None:
        from hpcft.runs.events import EventLog

        case = _slurm_run(tmp_path, fake_slurm, "CANCELLED by 0", "0:0")
        with EventLog(case.paths.client) as journal:
            journal.append("cancelled", by="ada")
        assert verdict_of(case.run).summary.startswith("by ada with hpcft cancel")

    def test_why_it_waits(self, tmp_path: Path, fake_slurm: Any) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "PENDING", "0:0", reason="Priority")
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.WAITING
        assert "other jobs go before it" in verdict.summary

    def test_a_job_that_it_has_forgotten_before_it_started(
        self, tmp_path: Path, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = FailedRun(tmp_path / "lost", job_id="4711")
        assert verdict_of(case.run).cause is Cause.WAITING, "so new a job may not be listed yet"
        monkeypatch.setattr("hpcft.cluster.state._NEW_S", -1.0)
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.NEVER_STARTED
        assert "job 4711" in verdict.summary
        assert verdict.mends[0].command.startswith("hpcft resume")
        fake_slurm.fault(controller="down", accounting="down")
        assert verdict_of(case.run).cause is Cause.UNKNOWN

    def test_a_controller_that_does_not_answer_is_said_and_not_guessed(self, tmp_path: Path, fake_slurm: Any) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "FAILED", "1:0")
        fake_slurm.fault(controller="down", accounting="down")
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.UNKNOWN
        assert "Slurm does not answer" in verdict.summary

    def test_a_controller_that_does_not_answer_hides_no_words_of_the_run(self, tmp_path: Path, fake_slurm: Any) -> None:
        case = _slurm_run(tmp_path, fake_slurm, "FAILED", "1:0").log("torch.OutOfMemoryError: CUDA out of memory")
        case.status("failed", message="OutOfMemoryError: CUDA out of memory", time=time.time() - 100)
        fake_slurm.fault(controller="down", accounting="down")
        assert verdict_of(case.run).cause is Cause.GPU_OOM

    def test_a_dependency_that_is_never_satisfied_names_the_parent_and_its_verdict(
        self, tmp_path: Path, fake_slurm: Any
    ) -> None:
        parent = _slurm_run(tmp_path, fake_slurm, "FAILED", "1:0", name="parent")
        parent.log("torch.OutOfMemoryError: CUDA out of memory")
        child = _slurm_run(tmp_path, fake_slurm, "PENDING", "0:0", name="child", reason="DependencyNeverSatisfied")
        child.paths.script.write_text(f"#!/bin/bash\n#SBATCH --dependency=afterok:{parent.run.job_id}\n")
        verdict = verdict_of(child.run)
        assert verdict.cause is Cause.DEPENDENCY
        assert verdict.because is not None
        assert verdict.because[0] == "parent"
        assert verdict.because[1].cause is Cause.GPU_OOM
        # Where Slurm removes such a job it is cancelled before it has started.
        fake_slurm.set_state(child.run.job_id, "CANCELLED by 0", reason="None")
        assert verdict_of(child.run).cause is Cause.DEPENDENCY

    def test_accounting_tells_an_older_job_of_the_same_number_from_ours_by_its_name(self) -> None:
        lines = [
            "7|TIMEOUT|0:0|node9|2024-01-01T00:00:00||cpu=1,mem=1G,node=1|old.aaaaaaaaaa",
            "7|PREEMPTED|0:0|node1|2026-01-01T00:00:00||cpu=1,mem=8G,node=2|new.bbbbbbbbbb",
            "7.0|CANCELLED|0:9|node1|2026-01-01T00:00:00|1500K||python",
            "7|FAILED|1:0|node[1-2]|2026-01-01T00:00:00||cpu=1,mem=8G,node=2|new.bbbbbbbbbb",
            "7.0|FAILED|1:0|node1|2026-01-01T00:00:00|3145728K||python",
        ]
        facts = parse_accounting("\n".join(lines), "7", "bbbbbbbbbb")
        assert facts is not None
        assert (facts.starts, facts.peak_gb, facts.asked_gb) == (("PREEMPTED", "FAILED"), 3.0, 4.0)


def _slurm_run(
    tmp_path: Path, fake_slurm: Any, state: str, code: str, *, name: str = "r", reason: str = "None"
) -> FailedRun:
    """A run whose job the fake Slurm knows in that state."""
    script = tmp_path / f"{name}.sh"
    script.write_text("#!/bin/sh\n")
    done = subprocess.run(
        ["sbatch", "--parsable", f"--job-name={name}.{name}", str(script)], capture_output=True, text=True, check=True
    )
    job_id = done.stdout.strip()
    case = FailedRun(tmp_path / "runs" / name, job_id=job_id)
    fake_slurm.set_state(job_id, state, exit_code=code, reason=reason)
    return case
