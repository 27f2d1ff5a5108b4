"""Why a run failed: the words of torch, NCCL, gloo, Slurm and the hub, the first cause of several, and the mend."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.failed_runs import FailedRun, said

from hpcft.cluster.explain import TITLES, Cause, verdict_of
from hpcft.cluster.explain.policy import POLICIES

SAMPLES = Path(__file__).parent.parent / "data" / "failures"
# Beginning of a sample's name → what it is.
KINDS = {
    "gpu_oom": Cause.GPU_OOM,
    "host_oom": Cause.HOST_OOM,
    "nccl": Cause.COLLECTIVE_TIMEOUT,
    "gloo": Cause.COLLECTIVE_TIMEOUT,
    "store": Cause.COLLECTIVE_TIMEOUT,
    "port": Cause.PORT_IN_USE,
    "disk": Cause.DISK_FULL,
    "offline": Cause.OFFLINE_DOWNLOAD,
    "import": Cause.IMPORT_ERROR,
    "node": Cause.NODE_FAILURE,
    "time_limit": Cause.TIME_LIMIT,
    "preempted": Cause.PREEMPTED,
    "cancelled": Cause.CANCELLED,
    "config": Cause.BAD_CONFIG,
    "killed": Cause.KILLED,
    "crashed": Cause.KILLED,
    "bad_labels": Cause.BAD_DATA,
    "read_only": Cause.NO_ACCESS,
}
NAMES = sorted(path.stem for path in SAMPLES.glob("*.txt"))


def expected(sample: str) -> Cause:
    return next(cause for start, cause in KINDS.items() if sample.startswith(start))


@pytest.mark.parametrize("sample", NAMES)
def test_the_words_of_each_version_are_understood(sample: str, tmp_path: Path) -> None:
    text = (SAMPLES / f"{sample}.txt").read_text()
    verdict = verdict_of(FailedRun(tmp_path / sample).log(text).run)
    assert verdict.cause is expected(sample), verdict.lines()
    assert verdict.evidence is not None
    assert verdict.evidence.file == "job.log"
    assert verdict.evidence.text in text
    assert text.splitlines()[(verdict.evidence.line or 0) - 1].strip() == verdict.evidence.text


def test_every_cause_has_a_title_and_every_failure_a_policy() -> None:
    assert set(TITLES) == set(Cause)
    assert {c for c in Cause if c.is_failure} - set(POLICIES) <= {Cause.DEPENDENCY, Cause.HANG}


class TestTheFirstCauseCounts:
    def test_the_rank_that_ran_out_of_memory_and_not_those_that_lost_it(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", resources={"nodes": 2, "gpus_per_node": 2})
        case.log("hpcft: start 0 of job 7 on node1", said("INFO", "attempt 1: r on cuda:0, 4 rank(s)"))
        oom = said(
            "ERROR", "failed with exit code 1: OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB", 200
        )
        lost = said(
            "ERROR", "failed with exit code 1: RuntimeError: [pair.cc:534] Connection closed by peer [::1]:9", 260
        )
        # The lines of several ranks come in any order.
        case.log(lost, oom, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB")
        case.rank_log(0, lost).rank_log(3, oom)
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.GPU_OOM
        assert verdict.evidence is not None
        assert (verdict.evidence.file, verdict.evidence.line, verdict.evidence.rank) == ("attempts/1/rank3.log", 1, 3)
        assert "1 other rank(s) failed after it" in verdict.notes

    def test_the_rank_that_was_killed_for_memory_is_told_after_the_others_and_counts(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", resources={"gpus_per_node": 2})
        case.log(
            said("INFO", "attempt 1: r on cpu, 2 rank(s)"),
            said("ERROR", "failed with exit code 1: RuntimeError: Connection closed by peer", 5),
            "slurmstepd: error: Detected 1 oom_kill event in StepId=9.0. Some of the step tasks have been OOM Killed.",
        )
        assert verdict_of(case.run).cause is Cause.HOST_OOM

    def test_an_error_of_one_rank_counts_and_not_the_time_out_of_the_others(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", resources={"gpus_per_node": 2})
        case.log(
            said("ERROR", "failed with exit code 65: pairs.csv:7: has 3 fields; the header has 2", 5),
            "[rank0]:[E321 02:07:08.4 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout",
        )
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.BAD_DATA
        assert "pairs.csv:7" in verdict.summary

    def test_what_the_user_cancelled_is_not_told_as_the_errors_that_came_of_it(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", resources={"gpus_per_node": 2})
        case.log(
            "slurmstepd: error: *** JOB 9 ON node1 CANCELLED AT 2026-11-21T07:31:05 ***",
            said("ERROR", "failed with exit code 1: RuntimeError: DataLoader worker (pid 5) exited: [Errno 28]", 900),
            "srun: error: node1: task 1: Terminated",
        )
        assert verdict_of(case.run).cause is Cause.CANCELLED

    def test_only_the_last_start_counts(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r")
        case.log(
            "hpcft: start 0 of job 9 on node1",
            said("ERROR", "failed with exit code 1: RuntimeError: Timed out waiting 9ms for recv operation"),
            "hpcft: start 1 of job 9 on node2",
            "ModuleNotFoundError: No module named 'torch'",
        )
        case.rank_log(0, said("ERROR", "failed with exit code 1: RuntimeError: Timed out waiting 9ms"))
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.IMPORT_ERROR
        assert verdict.evidence is not None
        assert (verdict.evidence.line, verdict.evidence.node) == (4, "node2")

    def test_an_exception_that_was_caught_is_not_the_cause(self, tmp_path: Path) -> None:
        steps = [said("PROGRESS", f"Step {n}: loss=1", n) for n in range(1, 6)]
        case = FailedRun(tmp_path / "r").log("OSError: [Errno 28] No space left on device", *steps)
        case.log("slurmstepd: error: *** JOB 9 ON node1 CANCELLED AT 2026-11-21T07:41:05 DUE TO TIME LIMIT ***")
        assert verdict_of(case.run).cause is Cause.TIME_LIMIT


class TestWhatIsNoFailure:
    def test_a_late_out_of_memory_event_after_the_end_marker(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log((SAMPLES / "host_oom_slurm.txt").read_text()).done()
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.FINISHED
        assert not verdict.cause.is_failure

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        lines=st.lists(
            st.sampled_from([line for n in NAMES for line in (SAMPLES / f"{n}.txt").read_text().splitlines()])
        )
    )
    def test_any_words_in_the_logs_of_a_finished_run(self, lines: list[str], tmp_path_factory: Any) -> None:
        case = FailedRun(tmp_path_factory.mktemp("p") / "r").log(*lines).rank_log(0, *lines).done()
        assert verdict_of(case.run).cause is Cause.FINISHED

    def test_words_of_the_data_and_of_warnings_in_a_run_without_a_verdict(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log(
            said("INFO", "attempt 1: r on cpu, 1 rank(s)"),
            "  source: RuntimeError: CUDA out of memory, what shall I do?",
            said("WARNING", "wandb: No space left on device, points are kept"),
            "/opt/lib/x.py:3: UserWarning: CUDA error: uncorrectable ECC error is simulated",
            "[W socket.cpp:426] [c10d] The server socket has failed to bind (errno: 98 - Address already in use).",
        )
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.UNKNOWN
        assert verdict.notes[-1].startswith("look at ")
        assert verdict.again.startswith("no:")

    def test_a_run_that_works(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", job_id=_own_job())
        case.events({"kind": "start", "resume_step": 0}, {"kind": "step", "step": 3, "loss": 1.0, "seconds": 0.5})
        case.status("training", step=3, total_steps=20)
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.RUNNING
        assert verdict.summary == "step 3 of 20"

    def test_a_run_that_works_and_says_nothing_any_more_hangs(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", job_id=_own_job())
        case.events({"kind": "step", "step": 3, "loss": 1.0, "seconds": 0.5})
        case.status("training", step=3, total_steps=20, time=time.time() - 40)
        assert verdict_of(case.run).cause is Cause.HANG
        # A step that takes long is no hang, nor is loading.
        case.events({"kind": "step", "step": 4, "loss": 1.0, "seconds": 60.0})
        assert verdict_of(case.run).cause is Cause.RUNNING
        case.status("starting", time=time.time() - 900)
        assert verdict_of(case.run).cause is Cause.RUNNING


def _own_job() -> str:
    import os

    from hpcft.cluster.queue import start_time

    return f"{os.getpid()}-{start_time(os.getpid())}"


class TestTheMendIsComputed:
    def commands(self, case: FailedRun) -> list[list[str]]:
        return [shlex.split(mend.command) for mend in verdict_of(case.run).mends]

    def test_gpu_memory_half_the_rows_and_the_same_step(self, tmp_path: Path) -> None:
        training = {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}
        case = FailedRun(tmp_path / "r", training=training).log("torch.OutOfMemoryError: CUDA out of memory.")
        first, second, third = self.commands(case)
        assert first[:2] == ["hpcft", "submit"]
        assert first[-4:] == [
            "--set", "training.per_device_train_batch_size=3", "--set", "training.gradient_accumulation_steps=4",
        ]  # fmt: skip
        assert second[-1] == "training.gradient_checkpointing=true"
        assert third[-1] == "variant=qlora"

    def test_gpu_memory_with_one_row_already(self, tmp_path: Path) -> None:
        training = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
        case = FailedRun(tmp_path / "r", training=training, variant="qlora", data={"max_length": 2048})
        (only,) = self.commands(case.log("torch.OutOfMemoryError: CUDA out of memory."))
        assert only[-1] == "data.max_length=1024"

    def test_gpu_memory_while_validating(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log(said("INFO", "attempt 1: r on cuda:0, 1 rank(s)"))
        case.log("torch.OutOfMemoryError: CUDA out of memory.")
        trace = 'File "trainer.py", line 4312, in evaluation_loop'
        case.events({"kind": "failed", "code": 1, "reason": "OutOfMemoryError: CUDA out of memory", "traceback": trace})
        (only,) = self.commands(case)
        assert only[-1] == "training.per_device_eval_batch_size=4"

    def test_host_memory_from_what_it_had(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", resources={"mem_gb": 32.0}).log("MemoryError: ")
        (only,) = self.commands(case)
        assert only[:2] == ["hpcft", "resume"]
        assert only[-1] == "resources.mem_gb=48"

    def test_host_memory_from_what_a_like_run_was_measured_to_need(self, tmp_path: Path) -> None:
        like = FailedRun(tmp_path / "like").done()
        like.paths.metrics.write_text(json.dumps({"train/peak_rss_gb": 20.0}))
        other = FailedRun(tmp_path / "other", variant="full").done()
        other.paths.metrics.write_text(json.dumps({"train/peak_rss_gb": 200.0}))
        case = FailedRun(tmp_path / "r", resources={"gpus_per_node": 2, "mem_gb": 8}).log("MemoryError: ")
        (only,) = self.commands(case)
        assert only[-1] == "resources.mem_gb=52"

    def test_the_time_limit_from_the_steps_that_are_left(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log(said("INFO", "attempt 1: r on cpu, 1 rank(s)"))
        case.log((SAMPLES / "time_limit.txt").read_text())
        case.events(*({"kind": "step", "step": n, "loss": 1.0, "seconds": 10.0} for n in range(1, 101)))
        case.status("training", step=100, total_steps=1100)
        verdict = verdict_of(case.run)
        assert verdict.summary == "01:00:00 at step 100 of 1100"
        assert verdict.mends[0].command.endswith("--set resources.time=03:50:00")
        assert "1000 of 1100 steps are left, at 10 s a step" in verdict.mends[0].why

    def test_a_loss_that_is_no_number_is_found_in_the_steps(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", training={"learning_rate": 0.02, "max_grad_norm": 0})
        case.log(said("INFO", "attempt 1: r on cpu, 1 rank(s)"))
        case.events({"kind": "step", "step": 1, "loss": 2.0}, {"kind": "step", "step": 2, "loss": float("nan")})
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.NAN_LOSS
        assert verdict.evidence is not None
        assert (verdict.evidence.file, verdict.evidence.line) == ("attempts/1/events.jsonl", 2)
        assert verdict.mends[0].command.endswith("--set training.learning_rate=0.0002 --set training.max_grad_norm=1.0")

    def test_target_modules_that_the_model_has_not(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r", lora={"target_modules": ["qkv"], "target_module_group": "both"})
        case.log(said("ERROR", "failed with exit code 78: lora.target_modules: no adapter could be put on the model"))
        verdict = verdict_of(case.run)
        assert verdict.cause is Cause.BAD_CONFIG
        assert verdict.mends[0].command.endswith("--set lora.target_modules=null")
        assert verdict.mends[0].why.endswith("both")

    def test_a_package_that_the_profile_s_python_lacks(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log("ModuleNotFoundError: No module named 'peft.tuners'")
        case.paths.script.write_text('srun --nodes=1 \\\n    /opt/env/bin/python -P -m hpcft.worker "$run"\n')
        assert self.commands(case)[0] == ["uv", "pip", "install", "--python", "/opt/env/bin/python", "peft"]

    @pytest.mark.parametrize(("module", "package"), [("cv2", "opencv-python-headless"), ("PIL.Image", "pillow")])
    def test_a_package_whose_module_has_another_name(self, tmp_path: Path, module: str, package: str) -> None:
        case = FailedRun(tmp_path / "r").log(f"ModuleNotFoundError: No module named '{module}'")
        assert self.commands(case)[0][-1] == package

    def test_a_module_that_is_anybody_s_gives_no_command_to_install_it(self, tmp_path: Path) -> None:
        case = FailedRun(tmp_path / "r").log("ModuleNotFoundError: No module named 'helpers'")
        assert [command[:2] for command in self.commands(case)] == [["hpcft", "resume"]]
        assert "helpers" in verdict_of(case.run).mends[0].why


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_text_in_the_logs_makes_explain_crash(data: st.DataObject) -> None:
    import tempfile

    anything = st.text(max_size=80) | st.binary(max_size=60).map(lambda b: b.decode("latin-1"))
    pieces = st.sampled_from([*(r.strip("^") for r in _stems()), *_sample_lines()])
    lines = data.draw(st.lists(anything | pieces | st.tuples(pieces, anything).map("".join), max_size=12))
    with tempfile.TemporaryDirectory() as folder:
        case = FailedRun(Path(folder) / "r")
        case.paths.batch_log.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        case.rank_log(0)
        case.paths.rank_log(1, 0).write_text("\n".join(reversed(lines)), encoding="utf-8", errors="surrogatepass")
        case.paths.events(1).write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        verdict = verdict_of(case.run)
        json.dumps(verdict.document(), allow_nan=False)
        assert all(isinstance(line, str) for line in verdict.lines())


def _stems() -> list[str]:
    return [
        "2026-11-21 07:31:06,123 - ERROR - failed with exit code ", "2026-99-99 99:99:99,999 - ERROR - ",
        "hpcft: start 0 of job ", "slurmstepd: error: *** JOB 1 ON n CANCELLED AT 9999-99-99T99:99:99 ",
        "2026-11-21 07:31:06,123 - INFO - attempt 99", "srun: error: n: task ", "[rank", "RuntimeError: ",
    ]  # fmt: skip


def _sample_lines() -> list[str]:
    return [line for name in NAMES for line in (SAMPLES / f"{name}.txt").read_text().splitlines()]


def test_the_json_is_stable(tmp_path: Path) -> None:
    case = FailedRun(tmp_path / "r").log("torch.OutOfMemoryError: CUDA out of memory")
    document = verdict_of(case.run).document()
    assert list(document) == [
        "verdict", "failed", "summary", "attempt", "evidence", "mends", "again", "decisions", "because", "notes",
    ]  # fmt: skip
    assert document["verdict"] == "gpu_oom"
    assert document["evidence"] == {
        "file": "job.log", "line": 1, "text": "torch.OutOfMemoryError: CUDA out of memory", "rank": 0, "node": None,
    }  # fmt: skip


def test_the_batch_script_s_question_is_light() -> None:
    """It runs on a node after a crash."""
    heavy = ("torch", "transformers", "datasets", "wandb", "matplotlib", "submitit", "jinja2", "pydantic")
    program = f"import sys, hpcft.cluster.retry; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['pydantic']")
