"""R2: whatever sbatch does and wherever a client dies, no submission is lost and none has two jobs.

A state machine plays clients, faults, kills, repairs and a scheduler that is a dictionary, in any order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpcft.cluster import executor, lookup, repair
from hpcft.cluster import submit as submission
from hpcft.cluster.profile import Profile
from hpcft.cluster.render import job_name
from hpcft.cluster.slurm import Answer
from hpcft.cluster.submit import record_intent, submit_script
from hpcft.errors import HpcftError, TryAgainError
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import Journal, submissions, withdrawn
from hpcft.spec.job import Job

BIN = Path(__file__).parent.parent / "fakes" / "slurm_bin"
SITE = Profile.model_validate({"name": "site"})
RUNS = ("a", "b", "c")
TIMED_OUT = Answer(1, "", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
REFUSED = Answer(1, "", "sbatch: error: Batch job submission failed: Invalid qos specification")
# What becomes of a request (taken, not, later), and what the client hears of it.
FAULTS: dict[str, tuple[str, Answer | str]] = {
    "well": ("taken", "id"),
    "accepts, then times out": ("taken", TIMED_OUT),
    "accepts, then dies": ("taken", Answer(-9, "", "")),
    "accepts, then says nothing": ("taken", Answer(1, "", "")),
    "accepts, then is interrupted": ("taken", "interrupt"),
    "accepts, then the client is killed": ("taken", "kill"),
    "times out before it accepts": ("not", TIMED_OUT),
    "times out and accepts later": ("later", TIMED_OUT),
    "does not answer and accepts later": ("later", Answer(None, "", "sbatch did not answer within 60 s")),
    "is interrupted before": ("not", "interrupt"),
    "is killed before, with its client": ("not", "kill"),
    "outlives its client": ("later", "kill"),
    "refuses": ("not", REFUSED),
    "talks nonsense": ("taken", Answer(0, "the site's wrapper says hello", "")),
}


class Killed(BaseException):
    """SIGKILL: nothing is caught, nothing is written, only the kernel closes what was open."""


class Slurm:
    """A scheduler without time."""

    def __init__(self) -> None:
        self.jobs: dict[int, str] = {}
        self.ended: set[int] = set()
        self.later: list[str] = []
        self.fault = "well"
        self.controller = True
        self.accounting = "answers"
        self.while_sending: Any = None

    def take(self, name: str) -> int:
        self.jobs[number := len(self.jobs) + 1] = name
        return number

    def call(self, command: list[str], timeout_s: float = 0, keep_open: Sequence[int] = ()) -> Answer:
        if command[0] == "sbatch":
            return self.sbatch(Path(command[-1]).read_text().partition("--job-name=")[2].strip())
        if command[0] == "squeue":
            live = [f"{n}|{name}|(null)" for n, name in self.jobs.items() if n not in self.ended]
            return Answer(0, "\n".join(live), "") if self.controller else Answer(1, "", "Unable to contact")
        if self.accounting != "answers":
            words = "Slurm accounting storage is disabled" if self.accounting == "absent" else "Connection refused"
            return Answer(1, "", words)
        return Answer(0, "\n".join(f"{n}|{name}|" for n, name in self.jobs.items()), "")

    def sbatch(self, name: str) -> Answer:
        if self.while_sending is not None:
            self.while_sending()
        outcome, heard = FAULTS[self.fault]
        number = self.take(name) if outcome == "taken" else 0
        if outcome == "later":
            self.later.append(name)
        if heard == "kill":
            raise Killed
        if heard == "interrupt":
            raise KeyboardInterrupt
        return heard if isinstance(heard, Answer) else Answer(0, f"Submitted batch job {number}", "")


class Clients(RuleBasedStateMachine):
    """Clients, a scheduler and a repairer."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.slurm = Slurm()
        self.patch = pytest.MonkeyPatch()
        self.patch.setenv("PATH", str(BIN), prepend=os.pathsep)
        self.patch.setattr(executor, "call", self.slurm.call)
        self.patch.setattr(lookup, "call", self.slurm.call)
        self.patch.setattr(submission, "_LOOKS_S", (0.0,))
        self.ahead_s = 0.0
        self.clock = SimpleNamespace(time=lambda: time.time() + self.ahead_s, sleep=lambda seconds: None)
        self.patch.setattr(repair, "time", self.clock)
        for name in RUNS:
            (self.folder / name).mkdir()

    def paths(self, run: str) -> RunPaths:
        return RunPaths(self.folder / run)

    def client(self, run: str, die_at: str = "", after_writing: bool = False) -> None:
        """Submit a run as the command line does, or be killed as a record is written."""
        paths, journal = self.paths(run), Journal(self.paths(run))
        append = journal.append

        def dying(kind: str, **fields: Any) -> dict[str, Any]:
            if kind == die_at and not after_writing:
                raise Killed
            record = append(kind, **fields)
            if kind == die_at:
                raise Killed
            return record

        journal.append = dying  # type: ignore[method-assign]
        try:
            key = record_intent(journal, Job(), SITE, paths, run)
            submit_script(f"#!/bin/sh\n#SBATCH --job-name={job_name(paths, key)}\n", key, journal, lambda _: None)
        except (Killed, KeyboardInterrupt, HpcftError):
            pass
        finally:
            journal.close()

    def free(self, run: str) -> bool:
        """Whether a user would submit it: for the first time, or again after its job has ended."""
        known = submissions(self.paths(run))
        return not known or known[-1].job_id is None or int(known[-1].job_id) in self.slurm.ended

    @rule(run=st.sampled_from(RUNS), fault=st.sampled_from(list(FAULTS)))
    def submit(self, run: str, fault: str) -> None:
        if self.free(run):
            self.slurm.fault = fault
            self.client(run)

    @rule(
        run=st.sampled_from(RUNS), kind=st.sampled_from(["intent", "sending", "submitted"]), after_writing=st.booleans()
    )
    def submit_and_be_killed(self, run: str, kind: str, after_writing: bool) -> None:
        if self.free(run):
            self.slurm.fault = "well"
            self.client(run, kind, after_writing)

    @rule(run=st.sampled_from(RUNS), fault=st.sampled_from(list(FAULTS)))
    def submit_twice_at_once_and_repair_meanwhile(self, run: str, fault: str) -> None:
        def meanwhile() -> None:
            self.slurm.while_sending = None
            jobs = len(self.slurm.jobs)
            with Journal(self.paths(run)) as journal, pytest.raises(TryAgainError):
                journal.open_submission(run)
            self.ahead_s += 10_000
            assert {r.outcome for r in repair.repair(self.folder, lambda _: None) if r.run.name == run} == {"left"}
            assert len(self.slurm.jobs) == jobs

        if self.free(run):
            self.slurm.fault, self.slurm.while_sending = fault, meanwhile
            self.client(run)
            self.slurm.while_sending = None

    @rule(controller=st.booleans(), accounting=st.sampled_from(["answers", "absent", "silent"]))
    def services(self, controller: bool, accounting: str) -> None:
        self.slurm.controller, self.slurm.accounting = controller, accounting

    @precondition(lambda self: self.slurm.later)
    @rule()
    def a_late_request_is_taken(self) -> None:
        self.slurm.take(self.slurm.later.pop(0))

    @rule(seconds=st.sampled_from([0, 30, 1000]))
    def repair(self, seconds: int) -> None:
        self.ahead_s += seconds
        for found in repair.repair(self.folder, lambda _: None):
            if found.job_id is not None:
                assert int(found.job_id) in self.slurm.jobs
            if found.outcome == "withdrawn":
                key = submissions(RunPaths(found.run))[-1].key
                live = [name for number, name in self.slurm.jobs.items() if number not in self.slurm.ended]
                assert key == "" or not [name for name in live if name.endswith(f".{key}")]

    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        if live := sorted(self.slurm.jobs.keys() - self.slurm.ended):
            self.slurm.ended.add(data.draw(st.sampled_from(live)))

    def working(self) -> list[tuple[int, str]]:
        """Jobs that do something: one of a withdrawn submission ends as it starts."""
        return [(n, name) for n, name in self.slurm.jobs.items() if not withdrawn(self.paths(name[0]), name)]

    @invariant()
    def no_submission_has_two_jobs(self) -> None:
        names = [name for _, name in self.working()]
        assert len(names) == len(set(names))

    @invariant()
    def no_run_has_two_jobs_at_once(self) -> None:
        runs = [name[0] for number, name in self.working() if number not in self.slurm.ended]
        assert len(runs) == len(set(runs))

    def teardown(self) -> None:
        """When all is well again and time has passed, each job is known to its run, and no run is open."""
        try:
            while self.slurm.later:
                self.slurm.take(self.slurm.later.pop())
            self.services(True, "answers")
            self.ahead_s += 10_000
            repair.repair(self.folder, lambda _: None)
            assert repair.open_submissions(self.folder) == []
            known = {s.job_id for run in RUNS for s in submissions(self.paths(run)) if s.kind == "submitted"}
            assert known == {str(number) for number, _ in self.working()}
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)


TestClients = Clients.TestCase
TestClients.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
