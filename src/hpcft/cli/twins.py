"""Two small runs that are the same but for what is done to one of them, and what became of the difference."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hpcft.cli import launch
from hpcft.cli.job_options import Request, plan
from hpcft.cli.output import say
from hpcft.cluster.queue import ask
from hpcft.cluster.slurm import call
from hpcft.cluster.submit import Submitted, local_environment
from hpcft.errors import HpcftError
from hpcft.runs.events import read_log
from hpcft.runs.files import explained
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run, RunState

# On a cluster a job trains on while it is looked for in the queue, and its files are seen late.
_STEPS = 300
_STEPS_HERE = 60
# More than any time limit of a drill lets it do.
_ENDLESS = 1_000_000
# Steps that an attempt does before it is disturbed.
_BEFORE = 10
_LOOK_S = 0.1
_ASK_S = 5.0
# Seconds that a job which Slurm has ended has to say its last words.
_SILENCE_S = 15.0


_MAKE = """\
import pathlib, sys
from hpcft.models.quickstart import build_model
build_model(pathlib.Path(sys.argv[1]), steps=0, hidden=64, layers=2, vocab=512)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was tried. `ok` None: it could not be."""

    name: str
    ok: bool | None
    words: str


@dataclass
class Rehearsal:
    """What came out.

    Attributes:
        save_s, step_s: the longest save, the usual step. requeue_s: from saved to going on, waiting included.
    """

    checks: list[Check] = field(default_factory=list)
    save_s: float = 0.0
    step_s: float = 0.0
    requeue_s: float | None = None

    @property
    def survives(self) -> bool:
        """Everything that was tried went well."""
        return all(check.ok for check in self.checks)


class Attempts:
    """What a run's attempts say, read anew at each question."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def records(self, number: int, kind: str) -> list[dict[str, Any]]:
        """Records of one attempt."""
        return [r for r in read_log(self.run.paths.events(number)).records if r["kind"] == kind]

    def steps(self, number: int) -> int:
        """The last step of an attempt, 0 before the first."""
        found = self.records(number, "step")
        return int(found[-1]["step"]) if found else 0

    def start(self, number: int) -> dict[str, Any] | None:
        """The record that training has begun."""
        found = self.records(number, "start")
        return found[0] if found else None

    def stopped(self, number: int) -> dict[str, Any] | None:
        """The record that everything is saved."""
        found = self.records(number, "stopped")
        return found[0] if found else None


def make_model(folder: Path) -> None:
    """A random model of a few hundred thousand parameters.

    Made by a process of its own, whose libraries say a lot.

    Raises:
        HpcftError: it cannot be made. NotAllowedError: nor its folder.
    """
    with explained(folder, "make the folder"):
        folder.mkdir(mode=0o700, parents=True)
    command = [sys.executable, "-P", "-c", _MAKE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise HpcftError(f"the small model cannot be made: {said}", where=str(folder))


def _request(base: Request, folder: Path, name: str, **values: object) -> Request:
    fixed: dict[str, object] = {
        "name": name,
        "results": folder,
        "variant": "lora",
        "model.name": folder / "model",
        "data.dataset": "quickstart",
        "data.train_samples": 64,
        "data.max_length": 128,
        "lora.lora_dropout": 0.1,
        "training.max_steps": _STEPS,
        "training.lr_scheduler_type": "constant",
        "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 1,
        "training.save_minutes": 0.05,
        "evaluation.enabled": "false",
        "tracking.mode": "disabled",
        "resources.nodes": 1,
        "resources.gpus_per_node": 1,
        **values,
    }
    own = {key: (str(value), "hpcft drill") for key, value in fixed.items()}
    return Request(options={**base.options, **own}, cluster=base.cluster)


class _Waiting:
    """Waits for what runs say, and gives up when the job is gone or the time is over.

    Attributes:
        meanwhile: called now and then.
    """

    def __init__(self, deadline: float, meanwhile: Callable[[], None]) -> None:
        self._deadline = deadline
        self.meanwhile = meanwhile
        self._asked = 0.0
        self._gone: dict[str, float] = {}

    def until(self, what: str, happened: Callable[[], bool], runs: list[Run]) -> None:
        """Wait.

        Raises:
            HpcftError: it did not happen.
        """
        while not happened():
            now = time.monotonic()
            if now > self._deadline:
                raise HpcftError(f"waited too long for {what}", hint="give it more: --minutes")
            if now - self._asked >= _ASK_S:
                self._asked = now
                self.meanwhile()
                self._look_after(what, runs, now)
            time.sleep(_LOOK_S)

    def _look_after(self, what: str, runs: list[Run], now: float) -> None:
        jobs = {str(run.job_id): run for run in runs if run.job_id}
        for job_id, info in ask(list(jobs)).items():
            run = jobs[job_id]
            if not info.is_final or run.state is RunState.SUCCESS:
                self._gone.pop(job_id, None)
            elif now - self._gone.setdefault(job_id, now) >= _SILENCE_S:
                words = f"{run.name} ended as {info.state.value} before {what}: {_last_words(run)}"
                raise HpcftError(words, where=str(run.paths.batch_log))


def _last_words(run: Run) -> str:
    status = run.status
    if status is None:
        return "it left no word"
    if status.state != "stopped":
        return status.message
    log = run.paths.batch_log.read_text(encoding="utf-8", errors="replace").splitlines()
    refused = [line for line in log if "requeue" in line.lower()]
    return "it had saved, and was not queued again" + (f": {refused[-1].strip()}" if refused else "")


def rehearse_slurm(base: Request, folder: Path, minutes: float, limit: int) -> Rehearsal:
    """Disturb a job as preemption, an administrator and the time limit would, beside an undisturbed twin.

    Args:
        base: cluster and resources. folder: of the runs.
        minutes: to wait for everything, the queue included. limit: minutes of the job that is to run out of time.

    Raises:
        HpcftError: a job cannot be submitted.
    """
    result = Rehearsal()
    limited_by = {"resources.time": limit, "resources.signal_seconds": 30 * limit, "training.max_steps": _ENDLESS}
    runs: list[Run] = []
    with _cancelled_at_the_end(runs):
        for name, values in (("calm", {}), ("shaken", {}), ("limited", limited_by)):
            say(f"submitting {name}")
            runs.append(launch.launch(plan(_request(base, folder, name, **values))).run)
        calm, shaken, limited = runs
        waiting = _Waiting(time.monotonic() + 60 * minutes, _Once(limited).cancel)
        try:
            _shake(shaken, waiting, result)
            waiting.until("both twins to finish", lambda: _all_done([calm, shaken]), [calm, shaken])
            result.checks += compare(calm, shaken)
        except HpcftError as error:
            result.checks.append(Check("a disturbed job ends like its undisturbed twin", False, _words(error)))
        try:
            result.checks.append(_run_out_of_time(limited, waiting, limit))
        except HpcftError as error:
            began = Attempts(limited).start(1) is not None
            words = _words(error) if began else f"it had not begun to train within {limit} min; give it more: --limit"
            result.checks.append(Check("the time limit", False if began else None, words))
    measure(shaken, result)
    return result


def _words(error: HpcftError) -> str:
    return f"{error.message} (see {error.where})" if error.where else error.message


class _Once:
    """The job that is to run out of time goes on for ever: once is enough."""

    def __init__(self, run: Run) -> None:
        self._seen, self._job_id, self._done = Attempts(run), str(run.job_id), False

    def cancel(self) -> None:
        """End it when it has gone on."""
        if not self._done and self._seen.start(2) is not None:
            self._done = call(["scancel", self._job_id]).ok


def _all_done(runs: list[Run]) -> bool:
    return all(run.state is RunState.SUCCESS for run in runs)


@contextlib.contextmanager
def _cancelled_at_the_end(runs: list[Run]) -> Iterator[None]:
    try:
        yield
    finally:
        left = [str(run.job_id) for run in runs if run.job_id and run.state is not RunState.SUCCESS]
        if left:
            call(["scancel", *left])


def _shake(run: Run, waiting: _Waiting, result: Rehearsal) -> None:
    seen, job_id = Attempts(run), str(run.job_id)
    waiting.until("the first steps", lambda: seen.steps(1) >= _BEFORE, [run])
    say("signalling shaken, as preemption and the time limit do")
    call(["scancel", "--signal=USR2", job_id])
    waiting.until("the second attempt", lambda: seen.start(2) is not None, [run])
    stopped = seen.stopped(1)
    result.checks.append(
        Check(
            "the signal reaches the ranks",
            stopped is not None,
            "the signal was not noticed" if stopped is None else f"saved at step {stopped['step']}",
        )
    )
    start = seen.start(2) or {}
    result.requeue_s = round(float(start["t"]) - float((stopped or start)["t"]), 1)
    result.checks.append(_went_on("the job is queued again and goes on", seen, 1, f"{result.requeue_s:.0f} s later"))
    waiting.until("steps of the second attempt", lambda: seen.steps(2) >= int(start["resume_step"]) + _BEFORE, [run])
    say("requeueing shaken from outside, without a signal of its own")
    answer = call(["scontrol", "requeue", job_id])
    name = "scontrol requeue from outside"
    if not answer.ok:
        result.checks.append(Check(name, False, f"Slurm refuses it: {answer.err.strip()}"))
        return
    waiting.until("the third attempt", lambda: seen.start(3) is not None or run.state is RunState.SUCCESS, [run])
    if seen.start(3) is None:
        result.checks.append(Check(name, None, "the job had finished before"))
        return
    how = seen.stopped(2)
    saved = "saved within KillWait" if how is not None else "killed without time to save"
    result.checks.append(_went_on(name, seen, 2, saved, exact=how is not None))


def _went_on(name: str, seen: Attempts, attempt: int, words: str, *, exact: bool = True) -> Check:
    begins = int((seen.start(attempt + 1) or {}).get("resume_step", 0))
    again = seen.steps(attempt) - begins
    loss = "nothing was done twice" if again == 0 else f"{again} steps were done again"
    return Check(name, begins > 0 and (again == 0 or not exact), f"at step {begins}, {words}; {loss}")


def _run_out_of_time(run: Run, waiting: _Waiting, limit: int) -> Check:
    seen = Attempts(run)
    if seen.start(2) is None:
        say(f"waiting for limited to reach its time limit of {limit} min")
    waiting.until("its start after the time limit", lambda: seen.start(2) is not None, [run])
    stopped = seen.stopped(1)
    if stopped is None:
        return Check("the time limit", False, "the job was ended before it had saved")
    how = "its signal came" if stopped["reason"] != "time limit" else "no signal came, the clock was watched"
    return _went_on("the time limit", seen, 1, how)


def rehearse_local(base: Request, folder: Path) -> Rehearsal:
    """Signal and kill a job of this machine, and start it again, beside an undisturbed twin.

    Raises:
        HpcftError: a job cannot be started, or fails.
    """
    result, runs = Rehearsal(), []
    for name in ("calm", "shaken"):
        planned = plan(_request(base, folder, name, **{"training.max_steps": _STEPS_HERE}))
        run = launch.launch(planned, lambda *_: Submitted("", folder / "job.log")).run
        environment = local_environment(planned.resolved.job, planned.profile)
        runs.append((run, environment | {"PYTHONPATH": str(run.paths.code)}))
    (calm, _), (shaken, environment) = runs
    say("running calm")
    _work(calm, environment)
    seen = Attempts(shaken)
    for attempt, (number, words) in enumerate(((signal.SIGUSR2, "signalling"), (signal.SIGKILL, "killing")), 1):
        say(f"{words} shaken")
        _work(shaken, environment, number, partial(_is_under_way, seen, attempt))
    say("running shaken to its end")
    _work(shaken, environment)
    result.checks.append(_went_on("a signal", seen, 1, "saved before the process ended"))
    result.checks.append(_went_on("a kill without warning", seen, 2, "from the last rolling checkpoint", exact=False))
    result.checks += compare(calm, shaken)
    measure(shaken, result)
    return result


def _is_under_way(seen: Attempts, attempt: int) -> bool:
    resumed = int((seen.start(attempt) or {}).get("resume_step", 0))
    return seen.steps(attempt) >= resumed + _BEFORE


def _work(
    run: Run, environment: dict[str, str], number: signal.Signals | None = None, when: Callable[[], bool] = bool
) -> None:
    with run.paths.batch_log.open("ab") as log:
        command = [sys.executable, "-P", "-m", "hpcft.worker", str(run.paths.root)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, stdin=subprocess.DEVNULL)
        try:
            while number is not None and process.poll() is None:
                if when():
                    process.send_signal(number)
                    break
                time.sleep(_LOOK_S / 10)
            code = process.wait()
        finally:
            process.kill()
    wanted = {None: 0, signal.SIGUSR2: 75, signal.SIGKILL: -signal.SIGKILL}[number]
    if code not in (wanted, 0):
        said = run.status.message if run.status is not None else ""
        raise HpcftError(f"{run.name} ended with {code}: {said}", where=str(run.paths.batch_log))


def compare(calm: Run, shaken: Run) -> list[Check]:
    """Steps and losses of the twins, and their weights: bit for bit on the CPU."""
    one, other = ([(int(e["step"]), float(e["loss"])) for e in r.events("step")] for r in (calm, shaken))
    steps = [step for step, _ in other] == [step for step, _ in one]
    checks = [Check("each step is done and recorded once", steps, f"{len(one)} steps")]
    worst = max((abs(a - b) / max(abs(a), 1e-9) for (_, a), (_, b) in zip(one, other, strict=False)), default=0.0)
    on_cpu = all(e["device"] == "cpu" for e in shaken.events("start"))
    # On a GPU sums are not taken in the same order each time.
    words = "the same to the last bit" if worst == 0 else f"they differ by {worst:.1e} at most"
    checks.append(Check("the losses are those of the twin", worst == 0 if on_cpu else worst < 0.01, words))
    if on_cpu:
        kept = _weights(calm.paths)
        same = bool(kept) and kept == _weights(shaken.paths)
        words = "bit for bit" if same else "they differ" if kept else "there are none"
        checks.append(Check("the weights are those of the twin", same, words))
    return checks


def _weights(paths: RunPaths) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in paths.final_model.glob("*.safetensors")}


def measure(run: Run, result: Rehearsal) -> None:
    """The longest save and the usual step."""
    saves = [float(e["seconds"]) for e in run.events("checkpoint")]
    steps = sorted(float(e["seconds"]) for e in run.events("step"))
    result.save_s = max(saves, default=0.0)
    result.step_s = steps[len(steps) // 2] if steps else 0.0
