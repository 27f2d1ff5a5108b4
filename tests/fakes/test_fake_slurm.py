"""The fake Slurm answers in the form of the real one, whose answers are in tests/data/slurm."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "data/slurm"
INDEX = json.loads((SAMPLES / "index.json").read_text())["samples"]


def call(command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shlex.split(command), cwd=cwd, capture_output=True, text=True, check=False)


def submit(folder: Path, script: str, options: str = "") -> str:
    (folder / "job.sh").write_text(f"#!/bin/sh\n{script}\n")
    return call(f"sbatch --parsable --output=out --open-mode=append {options} job.sh", folder).stdout.strip()


def wait_for(condition: Callable[[], object], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


@pytest.fixture
def recorded_jobs(fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jobs that the samples were recorded with; gives the folder of their script."""
    monkeypatch.setenv("LOGNAME", "root")
    options = [f"--job-name=train-{i} --comment=key-{i}" for i in range(1, 6)]
    options[3] += " -p gpu -N2 --exclusive"
    for words in [*options, "-J sweep", "-J train-1 --comment=key-1 --hold", "--hold"]:
        submit(tmp_path, "sleep 300", words)
    ended = {"start": "2026-11-20T20:34:53", "end": "2026-11-20T20:34:53", "node_list": "node1"}
    fake_slurm.set_state(1, "COMPLETED", **ended)
    fake_slurm.set_state(2, "FAILED", exit_code="75:0", **ended)
    fake_slurm.set_state(3, "CANCELLED by 0", **ended)
    fake_slurm.set_state(4, "RUNNING")
    fake_slurm.set_state(5, "PENDING", reason="Resources")
    return tmp_path


def form(text: str) -> list[str]:
    """An answer without what differs each time: times, the order of held jobs, the array of the samples."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "<time>", text)
    text = re.sub(r"(PENDING\|.*)\|(?:<time>|N/A)", r"\1|<start>", text)  # the real one knows when they will start
    text = re.sub(r" 0:\d\d ", " <run> ", text).replace("allocated", "idle").replace(" alloc ", "  idle ")
    return sorted(line for line in text.splitlines() if "sweep" not in line)


def test_answers_have_the_form_of_the_real_ones(recorded_jobs: Path) -> None:
    tables = re.compile("(squeue|sacct|sinfo|version)(?!.*(no_controller|timed_out|accounting))")
    samples = [name for name in INDEX if tables.match(name)]
    samples += [f"scontrol_{what}" for what in ("ping", "show_hostnames", "show_config")]
    samples += [f"{what}_unknown" for what in ("scontrol_requeue", "scontrol_show_job")]
    samples += ["scancel_unknown_job", "sbatch_refused_file", "sbatch_refused_script", "sbatch_refused_option"]
    samples += ["sbatch_test_only"]
    for sample in samples:
        answer = call(shlex.join(INDEX[sample]["command"].replace("/srv/slurm", str(recorded_jobs)).split(" ")))
        assert answer.returncode == INDEX[sample]["exit_code"], sample
        said = {"stdout": answer.stdout, "stderr": answer.stderr}[INDEX[sample]["stream"]]
        assert form(said) == form((SAMPLES / f"{sample}.txt").read_text()), sample
    assert len(samples) == 28


def test_sbatch_reads_directives_and_the_command_line_wins(fake_slurm: Any, tmp_path: Path) -> None:
    lines = "#SBATCH --job-name=a --nodes=2\n#SBATCH --comment='a key' # of this job\n\ntrue\n#SBATCH --partition=late"
    assert submit(tmp_path, lines, "--job-name=b") == "1"
    job = fake_slurm.job(1)
    assert (job["name"], job["nodes"], job["comment"], job["partition"]) == ("b", 2, "a key", "debug")
    assert job["state"] == "PENDING"
    assert lines in job["script"]
    assert call("sbatch --wrap true", tmp_path).stdout == "Submitted batch job 2\n"
    assert fake_slurm.submissions == 2


def test_test_only_submits_nothing(fake_slurm: Any, tmp_path: Path) -> None:
    assert call("sbatch --test-only --wrap true", tmp_path).returncode == 0
    assert (fake_slurm.jobs(), fake_slurm.submissions) == ([], 0)


@pytest.mark.parametrize(
    ("fault", "sample", "accepted"),
    [("timeout_after_accept", "sbatch_timed_out", 1), ("timeout_before_accept", "sbatch_timed_out", 0)]
    + [
        (f"refuse_{what}", f"sbatch_refused_{what}", 0)
        for what in ("partition", "account", "qos", "nodes", "gres", "time", "limit")
    ],
)
def test_a_submission_fails_as_it_was_told_to(fake_slurm: Any, fault: str, sample: str, accepted: int) -> None:
    fake_slurm.fault(sbatch=fault)
    answer = call("sbatch --wrap true")
    assert (answer.returncode, answer.stderr) == (1, (SAMPLES / f"{sample}.txt").read_text())
    assert len(fake_slurm.jobs()) == accepted
    fake_slurm.fault(sbatch=None)
    assert call("sbatch --wrap true").returncode == 0
    assert fake_slurm.submissions == 2


@pytest.mark.parametrize("fault", ["down", "timed_out"])
def test_without_a_controller_every_command_fails_in_its_own_words(fake_slurm: Any, fault: str) -> None:
    fake_slurm.fault(controller=fault)
    samples = [name for name in INDEX if name.endswith("no_controller" if fault == "down" else "timed_out")]
    assert len(samples) == 9
    for sample in samples:
        answer = call(INDEX[sample]["command"])
        assert answer.returncode == INDEX[sample]["exit_code"], sample
        assert answer.stdout + answer.stderr == (SAMPLES / f"{sample}.txt").read_text()
    assert fake_slurm.jobs() == []
    assert call("sacct -j 1").returncode == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [("down", "Connection refused"), ("disabled", "Slurm accounting storage is disabled")],
)
def test_without_accounting_only_sacct_fails(fake_slurm: Any, fault: str, words: str) -> None:
    fake_slurm.fault(accounting=fault)
    answer = call("sacct -X -n -P -o JobID,State")
    assert answer.returncode == 1
    assert words in answer.stderr
    assert call("squeue").returncode == 0


def test_commands_can_hang(fake_slurm: Any) -> None:
    fake_slurm.fault(hang_s=0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["squeue"], timeout=0.3, capture_output=True, check=False)


def test_a_job_runs_to_its_end_and_leaves_a_log(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.run_jobs()
    job = submit(
        tmp_path, "srun --label sh -c 'echo $SLURM_PROCID of $SLURM_NTASKS'; exit 3", "-N2 --ntasks-per-node=2"
    )
    ended = fake_slurm.wait(job)
    assert (ended["state"], ended["exit_code"], ended["node_list"]) == ("FAILED", "3:0", "node[1-2]")
    assert (tmp_path / "out").read_text() == "".join(f"{i}: {i} of 4\n" for i in range(4))


def test_a_job_that_requeues_itself_runs_again(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.run_jobs()
    script = 'echo "${SLURM_RESTART_COUNT:-first}"; [ -n "$SLURM_RESTART_COUNT" ] || scontrol requeue "$SLURM_JOB_ID"'
    job = submit(tmp_path, script + "\n" + '[ -n "$SLURM_RESTART_COUNT" ] || sleep 60')
    assert fake_slurm.wait(job)["state"] == "COMPLETED"
    assert (tmp_path / "out").read_text() == "first\n1\n"
    assert call(f"sacct -X -D -n -P -j {job} -o State").stdout.split() == ["REQUEUED", "COMPLETED"]


def test_scancel_signals_the_steps_or_the_script_or_ends_the_job(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.run_jobs()
    step = """srun sh -c 'trap "echo step" USR2; echo up; while :; do sleep 0.05; done' & """
    job = submit(tmp_path, f"trap 'echo script' USR2; {step}\nwhile :; do wait; done")
    said = (tmp_path / "out").read_text
    wait_for(lambda: (tmp_path / "out").exists() and said() == "up\n")
    wait_for(lambda: (tmp_path / f"slurm/jobs/{job}.steps").exists())
    call(f"scancel --signal=USR2 {job}")
    wait_for(lambda: said() == "up\nstep\n")
    call(f"scancel --signal=USR2 --batch {job}")
    wait_for(lambda: said() == "up\nstep\nscript\n")
    call(f"scancel {job}")
    assert fake_slurm.wait(job)["state"].startswith("CANCELLED by ")


def test_a_missing_log_folder_fails_the_job_without_a_word(fake_slurm: Any, tmp_path: Path) -> None:
    fake_slurm.run_jobs()
    job = submit(tmp_path, "true", "--output=nowhere/%j.out")
    ended = fake_slurm.wait(job)
    assert (ended["state"], ended["exit_code"]) == ("FAILED", "0:53")


def test_what_the_fake_does_not_play_is_an_error(fake_slurm: Any) -> None:
    call("sbatch --wrap true")
    fake_slurm.run_jobs()
    assert call("sbatch --array=0-3 --wrap true").returncode != 0
    assert "knows no field" in call("squeue -o %B").stderr
    assert "knows no" in call("scontrol reboot").stderr
