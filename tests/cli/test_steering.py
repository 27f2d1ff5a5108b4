"""`hpcft cancel`, `requeue` and `resume`: which run is meant, what is done, what is written down, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.cluster import steer
from hpcft.cluster.queue import ask_local, start_time
from hpcft.runs.create import new_run_id
from hpcft.runs.events import EventLog, read_log
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import submissions
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer

Call = Callable[..., Any]
TRAINING = {"state": "training", "step": 3, "total_steps": 9, "loss": 0.5}
STOPPED = {"state": "stopped", "step": 5, "total_steps": 9, "message": "saved at step 5"}


@pytest.fixture
def submit(make_run: Call, fake_slurm: Any, tmp_path: Path) -> Callable[..., RunPaths]:
    """A run whose job waits in the fake cluster's queue."""

    def call(name: str = "mine") -> RunPaths:
        run_id, script = new_run_id(), tmp_path / "job.sh"
        script.write_text(f"#!/bin/sh\n#SBATCH --job-name={Path(name).name}.{run_id}\n")
        done = subprocess.run(["sbatch", "--parsable", str(script)], check=True, capture_output=True, text=True)
        return make_run(name, run_id=run_id, job_id=done.stdout.strip(), age_s=0)  # type: ignore[no-any-return]

    return call


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stops when it is asked to, as a local job does."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def begin(paths: RunPaths, fake_slurm: Any, job_id: int = 1, **status: Any) -> None:
    """Let the job of a run run, with a heartbeat."""
    fake_slurm.set_state(job_id, "RUNNING")
    write_json(paths.status, {"attempt": 1, "time": time.time(), **TRAINING, **status})


def until(condition: Callable[[], Any], timeout_s: float = 15) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def noted(paths: RunPaths) -> list[str]:
    """What its journal says was done."""
    return [r["kind"] for r in read_log(paths.client).records if r["kind"] in ("cancelled", "requeued", "submitted")]


# Which run is meant


@pytest.mark.parametrize("text", ["mine", "k3f9x2m1qa", "k3f9", "4711", "results/mine", "min"])
def test_a_run_is_named_by_its_name_run_id_job_id_path_or_a_unique_beginning(
    hpcft: Call, make_run: Call, fake_slurm: Any, text: str
) -> None:
    make_run("mine", run_id="k3f9x2m1qa", job_id="4711", done=True)
    make_run("other", run_id="z3f9x2m1qa", job_id="4811", done=True)
    assert hpcft("cancel", text).out == "mine: left alone: finished\n"


@pytest.mark.parametrize("verb", ["cancel", "requeue", "resume"])
def test_a_beginning_that_fits_two_runs_is_told_and_nothing_is_done(
    hpcft: Call, submit: Call, fake_slurm: Any, verb: str
) -> None:
    submit("study-a"), submit("study-b")
    done = hpcft(verb, "study")
    assert done.code == 2
    assert "'study' fits 2 runs: study-a, study-b" in done.err
    assert [job["state"] for job in fake_slurm.jobs()] == ["PENDING", "PENDING"]
    assert fake_slurm.submissions == 2


def test_one_name_that_is_wrong_among_several_cancels_none(hpcft: Call, submit: Call, fake_slurm: Any) -> None:
    submit()
    done = hpcft("cancel", "mine", "nosuch")
    assert done.code == 2
    assert fake_slurm.job(1)["state"] == "PENDING"


# Cancel


def test_a_cancelled_job_is_gone_and_who_did_it_stands_in_the_journal(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    done = hpcft("cancel", "mine", "--json")
    assert done.code == 0
    assert json.loads(done.out) == [{"name": "mine", "done": True, "words": "cancelled job 1"}]
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")
    record = read_log(paths.client).records[-1]
    assert (record["kind"], record["job_id"]) == ("cancelled", "1")
    assert record["by"]
    assert hpcft("status", "mine").out == f"mine: CANCELLED, cancelled by {record['by']}\n"


def test_a_pipeline_or_sweep_is_cancelled_by_its_name_with_one_call_and_what_is_over_is_left(
    hpcft: Call, make_run: Call, submit: Call, fake_slurm: Any
) -> None:
    submit("group/job1"), submit("group/job2")
    make_run("group/job3", job_id="77", done=True)
    submit("apart")
    done = hpcft("cancel", "group")
    assert done.code == 0
    assert sorted(done.out.splitlines()) == [
        "group/job1: cancelled job 1",
        "group/job2: cancelled job 2",
        "group/job3: left alone: finished",
    ]
    assert fake_slurm.calls("scancel") == [["1", "2"]]
    assert fake_slurm.job(3)["state"] == "PENDING"


def test_of_a_sweep_its_arrays_end_with_the_trials_that_have_not_started(
    hpcft: Call, make_run: Call, fake_slurm: Any, tmp_path: Path
) -> None:
    script = tmp_path / "array.sh"
    script.write_text("#!/bin/sh\n#SBATCH --array=0-3\n")
    subprocess.run(["sbatch", str(script)], check=True, capture_output=True)
    make_run("sweep/0000", job_id="1_0", status=TRAINING)
    sweep = RunPaths(Path("results/sweep").absolute())
    with EventLog(sweep.client) as journal:
        journal.append("intent", submission=1, run_id="s3f9x2m1qa", scheduler="slurm")
        journal.append("submitted", submission=1, job_id="1")
    (sweep.root / "manifest.jsonl").touch()
    done = hpcft("cancel", "sweep")
    assert done.code == 0, done.err
    assert "sweep: cancelled array 1" in done.out
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")
    assert noted(sweep) == ["submitted", "cancelled"]


@pytest.mark.parametrize("over", [{"done": True}, {"status": {"state": "failed", "message": "no such file"}}])
def test_a_run_that_is_over_is_left_alone_and_that_is_no_error(
    hpcft: Call, make_run: Call, fake_slurm: Any, over: dict[str, Any]
) -> None:
    paths = make_run("mine", job_id="1", **over)
    done = hpcft("cancel", "mine")
    assert (done.code, "left alone" in done.out) == (0, True)
    assert fake_slurm.calls("scancel") == []
    assert noted(paths) == ["submitted"]


@pytest.mark.parametrize("controller", ["down", "timed_out"])
@pytest.mark.parametrize("words", [["cancel", "mine"], ["requeue", "mine"], ["requeue", "mine", "--now"]])
def test_a_controller_that_does_not_answer_is_an_error_and_nothing_is_told_as_done(
    hpcft: Call, submit: Call, fake_slurm: Any, words: list[str], controller: str
) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    fake_slurm.fault(controller=controller)
    done = hpcft(*words)
    assert done.code == 69
    assert "Slurm d" in done.err
    assert "try again" in done.err
    assert done.out == ""
    assert noted(paths) == ["submitted"]
    fake_slurm.fault(controller=None)
    assert fake_slurm.job(1)["state"] == "RUNNING"
    assert hpcft("cancel", "mine").code == 0
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")


def test_what_was_cancelled_before_slurm_fell_silent_is_noted(
    hpcft: Call, submit: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit("group/job1"), submit("group/job2")
    monkeypatch.setattr("hpcft.cluster.queue._AT_ONCE", 1)
    cancelling = steer.scancel

    def once(ids: list[str]) -> None:
        if fake_slurm.calls("scancel"):
            fake_slurm.fault(controller="down")
        cancelling(ids)

    monkeypatch.setattr(steer, "scancel", once)
    assert hpcft("cancel", "group").code == 69
    assert (noted(first), noted(second)) == (["submitted", "cancelled"], ["submitted"])


def test_a_job_that_sbatch_never_confirmed_is_found_and_cancelled(
    hpcft: Call, submit: Call, make_run: Call, fake_slurm: Any
) -> None:
    paths = submit()
    paths.client.write_bytes(paths.client.read_bytes().splitlines(keepends=True)[0])
    assert [s.kind for s in submissions(paths)] == ["intent"]
    assert hpcft("cancel", "mine").out == "mine: cancelled job 1\n"
    assert fake_slurm.job(1)["state"].startswith("CANCELLED")


def test_a_local_run_is_asked_to_stop_and_is_not_taken_for_a_failure(
    hpcft: Call, make_run: Call, sleeper: subprocess.Popen[bytes]
) -> None:
    job_id = f"{sleeper.pid}-{start_time(sleeper.pid)}"
    make_run("here", job_id=job_id, scheduler="local", status=TRAINING)
    assert hpcft("cancel", "here").out == "here: stops as soon as it has saved\n"
    assert sleeper.wait(10) == -signal.SIGTERM
    status = hpcft("status", "here").out
    assert status.startswith("here: CANCELLED")
    assert "cancelled by" in status
    assert "left alone" in hpcft("cancel", "here").out


def test_a_local_run_of_another_machine_is_named_with_it(
    hpcft: Call, make_run: Call, sleeper: subprocess.Popen[bytes]
) -> None:
    job_id = f"{sleeper.pid}-{start_time(sleeper.pid)}"
    paths = make_run("there", job_id=job_id, scheduler="local", status=TRAINING)
    paths.client.write_bytes(b"")
    with EventLog(paths.client) as journal:
        journal.append("intent", submission=1, run_id="k3f9x2m1qa", scheduler="local", cluster="local", host="login7")
        journal.append("submitted", submission=1, job_id=job_id)
    assert "it was started on login7; cancel it there" in hpcft("cancel", "there").out
    assert sleeper.poll() is None


# Ctrl-C in an allocation

SRUN = """#!/bin/sh
# Like srun it is what the ranks can be reached by.
trap 'echo USR2 >> "$SIGNALS"; exit 75' USR2
trap 'echo QUIT >> "$SIGNALS"; exit 137' QUIT
touch "$SIGNALS"
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(("times", "got"), [(1, "USR2"), (2, "QUIT")])
def test_ctrl_c_in_an_allocation_reaches_the_ranks_and_a_second_one_ends_them(
    hpcft: Call, fake_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, got: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN if times == 1 else SRUN.replace("; exit 75", ""))
    (tmp_path / "bin" / "srun").chmod(0o700)
    signals = tmp_path / "signals"
    allocation = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node1"}
    for name, value in {"SIGNALS": str(signals), **allocation}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    waits: list[str] = []

    def wait(launched: Any) -> None:
        waits.append(launched.submitted.job_id)
        until(lambda: signals.exists() and (len(waits) == 1 or signals.read_text()))
        if len(waits) <= times:
            raise KeyboardInterrupt

    monkeypatch.setattr("hpcft.cli.launch.wait", wait)
    done = hpcft("run", "--preset", "quickstart", "--name", "inside", "--cluster", "slurm")
    assert (done.code, "Ctrl-C again ends it at once" in done.err) == (0 if times == 1 else 130, True)
    until(lambda: ask_local(waits[0]).is_final)
    assert signals.read_text().split()[-1] == got


# Requeue


def test_a_job_that_trains_saves_first_and_one_that_hangs_is_queued_again_at_once(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    paths = submit()
    begin(paths, fake_slurm)
    done = hpcft("requeue", "mine")
    assert done.code == 0, done.err
    assert "job 1 saves and is queued again" in done.out
    assert fake_slurm.calls("scancel") == [["--signal=USR2", "1"]]
    assert fake_slurm.job(1)["restarts"] == 0
    done = hpcft("requeue", "mine", "--now")
    assert done.out == "mine: job 1 is queued again, from its newest checkpoint\n"
    assert (fake_slurm.job(1)["restarts"], fake_slurm.job(1)["state"]) == (1, "PENDING")
    assert [r["saves_first"] for r in read_log(paths.client).records if r["kind"] == "requeued"] == [True, False]
    assert fake_slurm.submissions == 1


def test_what_cannot_be_queued_again_says_why_and_what_to_do_instead(
    hpcft: Call, make_run: Call, submit: Call, fake_slurm: Any
) -> None:
    make_run("finished", job_id="8", done=True)
    make_run("forgotten", job_id="9", status=STOPPED)
    submit("waits")
    for name, words in {
        "finished": "finished has finished; there is nothing left to do",
        "forgotten": "hpcft resume forgotten",
        "waits": "job 1 of waits is in the queue already",
    }.items():
        done = hpcft("requeue", name)
        assert done.code == 2
        assert words in done.err
    assert fake_slurm.job(1)["restarts"] == 0


def test_a_cancelled_job_that_is_queued_again_is_not_cancelled_any_more(
    hpcft: Call, submit: Call, fake_slurm: Any
) -> None:
    submit()
    hpcft("cancel", "mine")
    assert hpcft("requeue", "mine").code == 0
    assert hpcft("status", "mine").out.startswith("mine: PENDING")


# Resume


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
