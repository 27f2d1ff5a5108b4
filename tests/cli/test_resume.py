"""`hpcft resume`: the same run by a new job, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.steering import STOPPED, TRAINING, Call, begin

from hpcft.cluster.queue import start_time
from hpcft.runs.events import read_log
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import submissions
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("CANCELLED by 0", {**TRAINING, "state": "stopped"}),
        ("FAILED", {**TRAINING, "state": "failed", "message": "no such file"}),
        ("TIMEOUT", STOPPED),
    ],
)
def test_a_run_that_is_over_goes_on_as_the_same_run_by_a_new_job(
    hpcft: Call, submit: Call, fake_slurm: Any, state: str, status: dict[str, Any]
) -> None:
    paths = submit()
    job = build([yaml_layer(paths.config)]).job
    before = [job.variant, job.data.model_dump(mode="json"), job.model.model_dump(mode="json")]
    paths.attempt(1).mkdir(parents=True)
    begin(paths, fake_slurm, **status)
    fake_slurm.set_state(1, state, exit_code="1:0")
    done = hpcft("resume", "mine", "--set", "resources.time=08:00:00", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["run"], told["job_id"], told["directory"]) == ("mine", "2", str(paths.root))
    first, second = submissions(paths)
    assert (first.job_id, second.job_id) == ("1", "2")
    assert second.key == f"{told['run_id']}-2"
    assert fake_slurm.job(2)["time"] == "08:00:00"
    intent = [r for r in read_log(paths.client).records if r["kind"] == "intent"][-1]
    assert (intent["after_attempt"], intent["run_id"]) == (1, told["run_id"])
    assert list(intent["changed"]) == ["resources.time"]
    after = yaml.safe_load(paths.config.read_text())
    assert [after[key] for key in ("variant", "data", "model")] == before
    # The old heartbeat is not the new job's.
    assert hpcft("status", "mine").out.startswith("mine: PENDING")


def test_a_second_resume_submits_nothing(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    assert hpcft("resume", "mine").code == 0
    done = hpcft("resume", "mine")
    assert done.code == 2
    assert "mine is waiting" in done.err
    assert "hpcft requeue mine" in done.err
    assert fake_slurm.submissions == 2


def test_two_resumes_at_once_submit_one_job(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    command = [str(Path(sys.executable).with_name("hpcft")), "resume", "mine"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0, said
    assert codes[1] in (2, 75), said
    assert fake_slurm.submissions == 2
    assert not any("Traceback" in err for _, err in said)


def test_an_sbatch_without_an_answer_is_not_repeated_by_a_second_resume(
    hpcft: Call, submit: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcft.cluster.submit._LOOKS_S", (0.0,))
    submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    fake_slurm.fault(sbatch="timeout_before_accept")
    assert hpcft("resume", "mine").code == 69
    fake_slurm.fault(sbatch=None)
    done = hpcft("resume", "mine")
    assert done.code == 75, done.err
    assert "hpcft doctor --repair" in done.err
    assert fake_slurm.submissions == 2


def test_a_refused_resume_leaves_the_run_as_it_was(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    paths = submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    before = paths.config.read_text()
    fake_slurm.fault(sbatch="refuse_time")
    done = hpcft("resume", "mine", "--set", "resources.time=99-00:00:00")
    assert done.code == 78
    assert "resources.time" in done.err
    assert paths.config.read_text() == before
    fake_slurm.fault(sbatch=None)
    assert hpcft("resume", "mine").code == 0


def test_a_resume_where_there_is_no_slurm_leaves_the_run_as_it_was(
    hpcft: Call, submit: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    before = paths.config.read_text()

    def no_srun(*_: object) -> None:
        raise RuntimeError("Could not detect srun")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcft.cluster.executor.ScriptExecutor.__init__", no_srun)
        for _ in range(2):
            done = hpcft("resume", "mine", "--set", "resources.time=08:00:00")
            assert (done.code, "there is no Slurm here" in done.err) == (69, True)
    assert paths.config.read_text() == before
    assert hpcft("resume", "mine").code == 0


def test_what_is_not_over_or_not_known_is_not_submitted_again(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    done = hpcft("resume", "mine")
    assert (done.code, "mine is running" in done.err) == (2, True)
    write_json(paths.status, {"attempt": 1, **TRAINING, "time": time.time() - 7200})
    fake_slurm.fault(controller="down", accounting="down")
    done = hpcft("resume", "mine")
    assert (done.code, "cannot be known now" in done.err) == (69, True)
    fake_slurm.fault(controller=None, accounting=None)
    fake_slurm.set_state(1, "COMPLETED")
    write_json(paths.done, {"step": 9})
    done = hpcft("resume", "mine")
    assert (done.code, "mine has finished" in done.err) == (2, True)
    assert fake_slurm.submissions == 1


def test_a_job_in_a_state_whose_word_is_new_is_not_submitted_again(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    paths = submit()
    begin(paths, fake_slurm, time=time.time() - 7200)
    fake_slurm.set_state(1, "TELEPORTING")
    done = hpcft("resume", "mine")
    assert (done.code, "cannot be known now" in done.err) == (69, True)
    assert fake_slurm.submissions == 1


def test_only_resources_can_be_changed_and_not_the_number_of_ranks_of_a_checkpoint(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    fake_slurm.set_state(1, "CANCELLED by 0")
    done = hpcft("resume", "mine", "--set", "lora.r=4")
    assert (done.code, "only resources can be changed" in done.err) == (78, True)
    done = hpcft("resume", "mine", "--set", "resources.tim=4")
    assert (done.code, "resources.time" in done.err) == (78, True)
    (paths.checkpoints / "checkpoint-5").mkdir(parents=True)
    done = hpcft("resume", "mine", "--set", "resources.gpus_per_node=4")
    assert (done.code, "cannot be divided anew" in done.err) == (78, True)
    assert fake_slurm.submissions == 1


def test_a_run_whose_subject_has_not_finished_is_not_resumed(
    hpcft: Call, submit: Call, make_run: Call, fake_slurm: Any
) -> None:
    subject = make_run("subject", job_id="9", status=STOPPED)
    paths = submit()
    config = yaml.safe_load(paths.config.read_text())
    paths.config.write_text(yaml.safe_dump(config | {"kind": "evaluate", "of": str(subject.root)}))
    fake_slurm.set_state(1, "CANCELLED by 0")
    done = hpcft("resume", "mine")
    assert (done.code, "subject, which has not finished" in done.err) == (2, True)
    assert fake_slurm.submissions == 1


@pytest.mark.parametrize("verb", ["resume", "requeue"])
def test_a_local_run_goes_on_as_a_new_process(
    hpcft: Call, make_run: Call, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    paths = make_run("here", job_id=f"{sleeper.pid}-{start_time(sleeper.pid)}", scheduler="local", status=STOPPED)
    started: list[Path] = []

    def start(paths: RunPaths, *_: Any, **__: Any) -> str:
        started.append(paths.root)
        return f"{os.getpid()}-{start_time(os.getpid())}"

    monkeypatch.setattr("hpcft.cluster.submit.start_ranks", start)
    if verb == "resume":
        assert hpcft("resume", "here").code == 2
        assert started == []
        sleeper.terminate()
        sleeper.wait()
    done = hpcft(verb, "here")
    assert done.code == 0, done.err
    assert started == [paths.root]
    assert sleeper.wait(10) == -signal.SIGTERM
    assert [s.number for s in submissions(paths)] == [1, 2]
