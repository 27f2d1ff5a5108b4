"""Sweeps as arrays: every trial in one of them, whatever sbatch says, and never more than the limits allow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shell import lint
from support.sweeps import PROFILE, sweep_folder

from hpcft.cluster import controller, repair
from hpcft.cluster import submit as submission
from hpcft.cluster.array import array_script, in_queue, submit_trials
from hpcft.cluster.limits import Limits, chunks, limits, read_limits
from hpcft.cluster.profile import Profile
from hpcft.cluster.slurm import Answer
from hpcft.errors import ConfigError, UnavailableError
from hpcft.runs.submission import submissions
from hpcft.runs.sweep import SweepFolder, number_text, parse_numbers
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import yaml_layer

CONFIG = Answer(0, "MaxArraySize            = 1001\nMaxJobCount             = 10000\n", "")
EMPTY = Answer(0, "", "")


class Killed(BaseException):
    """SIGKILL: nothing is caught, and nothing is written."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_LOOKS_S", (0.0, 0.05))
    monkeypatch.setattr(repair, "_AGAIN_S", 0.0)


def job_of(sweep: SweepFolder) -> Job:
    return build([yaml_layer(sweep.paths.job)]).job


def send(sweep: SweepFolder, numbers: list[int] | None = None) -> Any:
    wanted = [t.number for t in sweep.trials()] if numbers is None else numbers
    return submit_trials(sweep, job_of(sweep), PROFILE, wanted, lambda _: None)


def tasks(fake_slurm: Any) -> list[int]:
    """The numbers of all trials in the queue, as the scripts compute them."""
    found = []
    for job in fake_slurm.jobs():
        script = fake_slurm.job(job["id"])["script"]
        offset = int(script.partition("number=$((")[2].partition(" ")[0])
        found += [offset + task for task in parse_numbers(job["array"])]
    return found


def inodes(folder: Path) -> int:
    return 1 + sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


@given(st.sets(st.integers(0, 300)), st.integers(1, 40), st.integers(1, 40))
def test_every_trial_is_in_one_chunk_that_an_array_can_hold(numbers: set[int], size: int, most: int) -> None:
    found = chunks(sorted(numbers), size, min(size, most))
    assert sorted(n for chunk in found for n in chunk) == sorted(numbers)
    assert all(len(chunk) <= most and chunk[-1] - chunk[0] < size for chunk in found)
    assert all(parse_numbers(number_text(chunk)) == chunk for chunk in found)


def test_g3_a_thousand_trials_are_one_array_and_few_files(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path, 1000)
    send(sweep)
    assert fake_slurm.submissions == 1
    assert tasks(fake_slurm) == list(range(1000))
    assert inodes(sweep.paths.root) <= 30
    assert [json.loads(line)["number"] for line in sweep.paths.manifest.read_text().splitlines()] == list(range(1000))


def test_g4_ten_thousand_trials_are_as_many_arrays_as_the_cluster_s_size_makes(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path, 10_000)
    queued = send(sweep)
    assert fake_slurm.submissions == -(-10_000 // 1001) == 10
    assert tasks(fake_slurm) == list(range(10_000))
    assert queued.left == []
    assert inodes(sweep.paths.root) <= 30


def test_the_intent_of_all_trials_is_on_disk_before_sbatch(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcft.cluster import executor

    seen: list[tuple[int, str]] = []
    original = executor.call

    def spy(command: list[str], **others: Any) -> Any:
        seen.append((len(sweep.trials()), submissions(sweep.paths.as_run)[-1].kind))
        return original(command, **others)

    monkeypatch.setattr(executor, "call", spy)
    sweep = sweep_folder(tmp_path, 3)
    send(sweep)
    assert seen == [(3, "sending")]


def test_r2_a_time_out_after_acceptance_is_settled_by_looking(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.fault(sbatch="timeout_after_accept")
    sweep = sweep_folder(tmp_path, 5)
    assert len(send(sweep).job_ids) == 1
    assert fake_slurm.submissions == 1
    assert in_queue(sweep) == {0, 1, 2, 3, 4}


def test_a_client_killed_between_manifest_and_sbatch_loses_and_repeats_nothing(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "_SETTLED_S", 0.0)
    sweep = sweep_folder(tmp_path, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcft.cluster.array.submit_script", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            send(sweep)
    assert fake_slurm.submissions == 0
    assert submissions(sweep.paths.as_run)[-1].is_open
    controller.repair_sweep(sweep)
    send(sweep, sorted(set(range(4)) - in_queue(sweep)))
    assert tasks(fake_slurm) == [0, 1, 2, 3]


def test_a_client_killed_after_sbatch_finds_its_array_again(
    fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_folder(tmp_path, 4)
    fake_slurm.fault(sbatch="timeout_after_accept")
    monkeypatch.setattr(submission, "_LOOKS_S", ())
    with pytest.raises(UnavailableError):
        send(sweep)
    fake_slurm.fault(sbatch=None)
    controller.repair_sweep(sweep)
    assert in_queue(sweep) == {0, 1, 2, 3}
    assert fake_slurm.submissions == 1


def test_a_limit_of_jobs_leaves_the_rest_for_later(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.fault(max_submit="3")
    sweep = sweep_folder(tmp_path, 5)
    queued = send(sweep)
    assert queued.left == [3, 4]
    assert "MaxSubmitJobs=3" in queued.reason
    assert tasks(fake_slurm) == [0, 1, 2]
    assert send(sweep, queued.left).left == [3, 4], "the queue is full"
    for job in fake_slurm.jobs():
        fake_slurm.set_state(job["id"], "COMPLETED")
    assert send(sweep, queued.left).left == []
    assert tasks(fake_slurm) == [0, 1, 2, 3, 4]


def test_a_limit_of_trials_at_a_time_holds_over_all_arrays(fake_slurm: Any, tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path, 1500, concurrency=8)
    first, second = send(sweep).job_ids
    assert "#SBATCH --array=0-1000%8\n" in fake_slurm.job(first)["script"]
    script = fake_slurm.job(second)["script"]
    assert "#SBATCH --array=0-498%8\n" in script
    assert f"#SBATCH --dependency=afterany:{first}\n" in script


def test_a_refusal_is_told_in_slurm_s_words(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.fault(sbatch="refuse_partition")
    sweep = sweep_folder(tmp_path, 2)
    with pytest.raises(ConfigError, match="invalid partition"):
        send(sweep)


def test_limits_are_those_of_the_account_and_the_qos_that_the_job_has() -> None:
    ended = "me|COMPLETED|acme|normal\n"
    queue = Answer(0, f"me|PENDING|acme|normal\nme|RUNNING|acme|short\nyou|RUNNING|acme|short\n{ended}", "")
    associations = Answer(0, "acme|normal|50|\nother|normal|1|\n", "")
    qos = Answer(0, "normal|||\nshort|4||100\n", "")

    def read(account: str | None, wanted: str | None) -> Limits:
        return read_limits(CONFIG, queue, associations, qos, "me", account, wanted)

    assert read("acme", None).room == 48
    assert read("acme", "short").room == 3
    assert "MaxSubmitJobsPerUser=4 of the QOS short" in read("acme", "short").reason
    assert read(None, None).room == 1


def test_the_cluster_s_own_limit_counts_everybody_s_jobs_and_those_that_have_just_ended() -> None:
    config = Answer(0, "MaxArraySize            = 1001\nMaxJobCount             = 10\n", "")
    queue = Answer(0, "you|RUNNING|acme|normal\n" * 4 + "me|CANCELLED|acme|normal\n" * 3, "")
    found = read_limits(config, queue, EMPTY, EMPTY, "me", None, None)
    assert (found.room, found.reason) == (3, "MaxJobCount=10 of the cluster, and 7 are in the queue")


def test_a_cluster_that_does_not_say_has_slurm_s_default() -> None:
    silent = Answer(None, "", "no answer")
    assert read_limits(silent, silent, silent, silent, "me", None, None) == Limits()


def test_a_scheduler_s_own_limit_of_tasks_makes_smaller_arrays() -> None:
    config = Answer(0, CONFIG.out + "SchedulerParameters     = bf_interval=2,max_array_tasks=100\n", "")
    assert read_limits(config, EMPTY, EMPTY, EMPTY, "me", None, None).array_tasks == 100


def test_limits_are_asked_of_the_cluster_that_answers(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.fault(max_submit="7")
    assert limits(job_of(sweep_folder(tmp_path, 1))).room == 7


def test_the_script_is_a_job_s_with_a_trial_before_it(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path, 3)
    script = array_script(sweep.paths, job_of(sweep), PROFILE, "k3f9x2m1qa", [4, 5, 9], 2)
    assert "#SBATCH --array=0-1,5%2\n" in script
    assert "number=$((4 + SLURM_ARRAY_TASK_ID))" in script
    assert 'hpcft.cluster.trial "$sweep" "$number"' in script
    assert 'hpcft.worker "$run"' in script
    assert "scontrol requeue" in script
    assert f"PYTHONPATH={sweep.paths.archive}" in script


@pytest.mark.parametrize("behind", [[], ["41", "42"]])
def test_the_script_is_shellcheck_clean_with_whatever_a_site_adds(tmp_path: Path, behind: list[str]) -> None:
    sweep = sweep_folder(tmp_path / "my results", 3)
    facts = {
        "name": "site",
        "python": "/opt/venv/bin/python",
        "modules": ["cuda/12.4"],
        "container": ["apptainer", "exec", "--nv", "/shared/my image.sif"],
        "srun": ["--mpi=pmix"],
        "env": {"HF_HOME": "/scratch/hugging face"},
    }
    lint(
        array_script(sweep.paths, job_of(sweep), Profile.model_validate(facts), "k3f9x2m1qa", [0, 1, 2], 2, behind),
        tmp_path,
    )


def test_what_a_task_asks_of_slurm_it_asks_for_itself_alone(tmp_path: Path) -> None:
    sweep = sweep_folder(tmp_path, 3)
    script = array_script(sweep.paths, job_of(sweep), PROFILE, "k3f9x2m1qa", [0, 1, 2], None)
    task = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    # To Slurm the bare number of an array's last task is that of the whole array.
    assert f'scontrol requeue "{task}"' in script
    assert f'scontrol show job "{task}"' in script
    assert f'squeue --noheader --jobs="{task}"' in script
