"""The state of a run, joined: what is told as an end has ended, whatever the scheduler answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcft.cluster.queue import JobState, QueueInfo
from hpcft.cluster.state import GRACE_S, judge
from hpcft.runs.record import Record
from hpcft.runs.run import RunState, Status

NOW = 1_000_000.0
KEY = "k3f9x2m1qa"


def record(status: Status | None = None, *, done: bool = False, **journal: Any) -> Record:
    """A run that was submitted to Slurm an hour ago, as job 7."""
    at = journal.pop("submitted", NOW - 3600)
    intent = {"t": at, "kind": "intent", "run_id": KEY, "scheduler": "slurm", "job_name": f"mine.{KEY}"} | journal
    records: list[dict[str, Any]] = [intent, {"t": at, "kind": "submitted", "job_id": "7"}]
    return Record(Path("mine"), records, done, status)


def beat(state: str, age_s: float, attempt: int = 1, **fields: Any) -> Status:
    return Status(state, attempt, time=NOW - age_s, **fields)


def job(state: JobState, **fields: Any) -> QueueInfo:
    return QueueInfo("7", state, name=f"mine.{KEY}", **({"as_of": NOW} | fields))


def state(found: Record, queue: QueueInfo | None) -> RunState:
    return judge(found, queue, NOW).state


def test_the_end_marker_is_success_whatever_the_scheduler_says() -> None:
    for word in JobState:
        assert state(record(done=True), job(word)) is RunState.SUCCESS
    assert state(record(done=True), None) is RunState.SUCCESS


def test_a_job_in_the_queue_is_pending_or_started_whatever_the_heartbeat_says() -> None:
    for word in ("training", "stopped", "failed"):
        assert state(record(beat(word, 5)), job(JobState.PENDING)) is RunState.PENDING
        assert state(record(beat(word, 5)), job(JobState.RUNNING)) is RunState.STARTED


def test_why_it_waits_and_from_where_it_goes_on_is_told() -> None:
    found = judge(record(beat("stopped", 50, step=12)), job(JobState.PENDING, reason="Priority"), NOW)
    assert found.words == "to go on from step 12, Priority"


def test_r8_exit_0_without_the_marker_is_no_success_and_its_last_words_are_awaited() -> None:
    just, long_ago = NOW - 5, NOW - 2 * GRACE_S
    training = record(beat("training", 90))
    assert state(training, job(JobState.COMPLETED, end=just, seen_final=just)) is RunState.STARTED
    assert state(training, job(JobState.COMPLETED, end=long_ago, seen_final=just)) is RunState.FAILURE
    assert state(training, job(JobState.OUT_OF_MEMORY, end=long_ago)) is RunState.FAILURE


def test_an_end_without_its_time_counts_from_when_it_was_first_seen() -> None:
    training = record(beat("training", 500))
    assert state(training, job(JobState.NODE_FAIL, seen_final=NOW - 5)) is RunState.STARTED
    assert state(training, job(JobState.NODE_FAIL, seen_final=NOW - 2 * GRACE_S)) is RunState.FAILURE


def test_a_failure_that_the_run_tells_needs_no_waiting() -> None:
    found = judge(record(beat("failed", 2, message="no such file\n  look")), job(JobState.FAILED, end=NOW), NOW)
    assert (found.state, found.words) == (RunState.FAILURE, "no such file; look")


def test_cancelled_and_stopped_are_no_failures() -> None:
    assert state(record(beat("stopped", 5)), job(JobState.CANCELLED, end=NOW)) is RunState.CANCELLED
    assert state(record(beat("stopped", 5)), job(JobState.FAILED, end=NOW)) is RunState.STOPPED
    assert "user 1000" in judge(record(), job(JobState.CANCELLED, cancelled_by="1000"), NOW).words


def test_an_attempt_that_died_without_a_word_is_not_told_by_the_stop_of_the_one_before() -> None:
    stopped = record(beat("stopped", 900, step=12))
    assert state(stopped, job(JobState.NODE_FAIL, start=NOW - 2000, end=NOW - 800)) is RunState.STOPPED
    assert state(stopped, job(JobState.NODE_FAIL, start=NOW - 500, end=NOW - 400)) is RunState.FAILURE


def test_an_attempt_that_died_without_a_word_is_not_told_by_the_failure_of_the_one_before() -> None:
    failed = record(beat("failed", 900, message="the port is taken"))
    assert judge(failed, job(JobState.TIMEOUT, start=NOW - 2000, end=NOW - 800), NOW).words == "the port is taken"
    assert "time limit" in judge(failed, job(JobState.TIMEOUT, start=NOW - 700, end=NOW - 400), NOW).words


def test_what_was_cancelled_after_a_failure_while_it_waited_again_is_cancelled() -> None:
    failed = beat("failed", 900)
    assert state(record(failed), job(JobState.CANCELLED, end=NOW - 800)) is RunState.CANCELLED
    assert state(record(failed), job(JobState.CANCELLED, end=NOW - 950)) is RunState.FAILURE
    gone = QueueInfo("7", JobState.UNKNOWN, as_of=NOW)
    for at, expected in ((NOW - 800, RunState.CANCELLED), (NOW - 1000, RunState.FAILURE)):
        noted = record(failed)
        noted.journal.append({"t": at, "kind": "cancelled", "by": "ada"})
        assert state(noted, gone) is expected
        assert state(noted, None) is expected
        assert state(noted, job(JobState.FAILED, end=NOW - 790)) is expected


def test_trap_without_accounting_a_job_that_has_left_the_queue_is_unknown_not_failed() -> None:
    gone = QueueInfo("7", JobState.UNKNOWN, as_of=NOW)
    assert state(record(beat("training", 900)), gone) is RunState.UNKNOWN
    assert state(record(), gone) is RunState.UNKNOWN
    assert state(record(beat("failed", 900)), gone) is RunState.FAILURE
    assert state(record(beat("stopped", 900)), gone) is RunState.STOPPED


def test_trap_while_the_controller_does_not_answer_the_heartbeat_decides() -> None:
    silent = QueueInfo("7", JobState.UNKNOWN, "connect failure", answered=False, as_of=NOW - 900)
    assert state(record(beat("training", 5)), silent) is RunState.STARTED
    assert state(record(beat("training", 900)), silent) is RunState.UNKNOWN
    # It may have been queued again meanwhile.
    assert not state(record(beat("failed", 900)), silent).is_over
    assert not state(record(beat("stopped", 900)), silent).is_over
    assert "connect failure" in judge(record(), silent, NOW).words


def test_trap_a_reused_job_id_says_nothing_about_the_run() -> None:
    other = replace(job(JobState.FAILED, end=NOW - 900), name="other.zzzzzzzzzz")
    assert state(record(beat("training", 5)), other) is RunState.STARTED
    assert state(record(beat("training", 900)), other) is RunState.UNKNOWN
    # Slurm has forgotten the run's job when it gives its number to a new one.
    later = replace(other, submit=NOW - 900)
    assert state(record(beat("failed", 3000)), later) is RunState.FAILURE
    assert state(record(beat("failed", 3000)), other) is RunState.UNKNOWN
    old = replace(job(JobState.FAILED, end=NOW - 9e6), name="", submit=NOW - 9e6)
    assert state(record(beat("training", 900)), old) is RunState.UNKNOWN


def test_a_fresh_submission_is_pending_before_any_answer_has_it() -> None:
    fresh = record(submitted=NOW - 5)
    assert state(fresh, QueueInfo("7", JobState.UNKNOWN, as_of=NOW - 8)) is RunState.PENDING
    assert state(fresh, None) is RunState.PENDING


def test_the_words_of_an_earlier_submission_are_not_those_of_this_one() -> None:
    resumed = record(beat("failed", 900, attempt=2), after_attempt=2)
    assert state(resumed, job(JobState.PENDING)) is RunState.PENDING
    assert state(resumed, QueueInfo("7", JobState.UNKNOWN, as_of=NOW)) is RunState.UNKNOWN
    assert resumed.heartbeat is None
    assert record(beat("training", 5, attempt=3), after_attempt=2).heartbeat is not None


def test_a_process_that_is_gone_without_the_marker_has_failed() -> None:
    local = record(beat("training", 5), scheduler="local")
    assert state(local, QueueInfo("7", JobState.COMPLETED)) is RunState.FAILURE
    assert state(local, None) is RunState.STARTED
    assert state(record(beat("training", 900), scheduler="local"), None) is RunState.UNKNOWN


# One life of a run, second by second, and what a reader may see of it.


@dataclass
class Life:
    """What is true at each second: the job's state and what its run directory holds.

    Attributes:
        job: (second, state) of the job, ascending. beats: (second, heartbeat). done: when the marker was written.
        over: when nothing happens any more.
    """

    job: list[tuple[float, JobState]] = field(default_factory=list)
    beats: list[tuple[float, Status]] = field(default_factory=list)
    done: float | None = None
    over: float = 0.0
    end: RunState = RunState.SUCCESS

    def job_at(self, second: float) -> tuple[float, JobState] | None:
        return next((entry for entry in reversed(self.job) if entry[0] <= second), None)

    def started_by(self, second: float) -> float | None:
        return next((at for at, word in reversed(self.job) if at <= second and word is JobState.RUNNING), None)

    def record_at(self, second: float) -> Record:
        status = next((s for at, s in reversed(self.beats) if at <= second), None)
        return record(status, done=self.done is not None and self.done <= second, submitted=NOW)


ENDS = (JobState.FAILED, JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.NODE_FAIL, JobState.PREEMPTED)


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """Attempts that are preempted, fail and are tried again, or die without a word, and an end."""
    life, now = Life(job=[(NOW, JobState.PENDING)]), NOW
    attempts = draw(st.integers(1, 4))
    for number in range(1, attempts + 1):
        now += draw(st.floats(1, 4000))
        life.job.append((now, JobState.RUNNING))
        for _ in range(draw(st.integers(0, 3))):
            now += draw(st.floats(1, 2000))
            life.beats.append((now, Status("training", number, 3, 9, time=now)))
        now += draw(st.floats(1, 100))
        last = number == attempts
        word = draw(st.sampled_from(["finished", "failed", "silent"] if last else ["stopped", "failed", "silent"]))
        if word in ("failed", "stopped"):
            life.beats.append((now, Status(word, number, 3, 9, time=now)))
        elif word == "finished":
            life.done = now
        now += draw(st.floats(0, 30))
        if not last:
            # A requeue shows as waiting, after a moment of an end at worst.
            life.job.append((now, JobState.PENDING))
            continue
        exit_state = JobState.COMPLETED if word == "finished" else draw(st.sampled_from(ENDS))
        life.job.append((now, exit_state))
        life.over = now
        life.end = RunState.SUCCESS if word == "finished" else RunState.FAILURE
    return life


@settings(max_examples=300, deadline=None)
@given(lives(), st.data())
def test_r8_no_state_is_wrong_in_a_final_way(life: Life, data: st.DataObject) -> None:
    second = data.draw(st.floats(NOW + 1, life.over + 7200), label="looked at")
    # The scheduler's answer is late, missing, silent, about another job of the number, or without a name.
    late = data.draw(st.floats(0, 300), label="answer's age")
    kind = data.draw(st.sampled_from(["answer", "missing", "silent", "other's", "nameless", "none"]), label="answer")
    at = life.job_at(second - late)
    queue: QueueInfo | None
    if kind == "none":
        queue = None
    elif kind == "silent" or at is None:
        queue = QueueInfo("7", JobState.UNKNOWN, answered=False, as_of=second - late)
    elif kind == "missing":
        # Squeue has every job that waits or runs; what it has not has ended.
        answered = at[1] not in (JobState.PENDING, JobState.RUNNING)
        queue = QueueInfo("7", JobState.UNKNOWN, answered=answered, as_of=second - late)
    elif kind == "other's":
        word = data.draw(st.sampled_from(list(JobState)))
        queue = QueueInfo("7", word, name="other.zzzzzzzzzz", end=NOW - 5000, as_of=second - late)
    else:
        is_final = at[1] not in (JobState.PENDING, JobState.RUNNING)
        known_end = data.draw(st.booleans(), label="end is told")
        queue = QueueInfo(
            "7",
            at[1],
            name="" if kind == "nameless" else f"mine.{KEY}",
            submit=NOW,
            start=life.started_by(second - late),
            end=at[0] if is_final and known_end else None,
            as_of=second - late,
            seen_final=second - late if is_final else None,
        )
    # What a file server holds back for up to a minute is seen late.
    held_back = data.draw(st.floats(0, 55), label="files' age")
    found = judge(life.record_at(second - held_back), queue, second).state
    if found is RunState.SUCCESS:
        assert life.end is RunState.SUCCESS
    elif found.is_over and queue is not None:
        assert second >= life.over
        # How a job left the queue squeue does not tell: then the run's own last word stands, and nothing came after it.
        last_word = life.beats[-1][1].state if life.beats else ""
        own_word = kind == "missing" and last_word == "stopped" and found is RunState.STOPPED
        assert found is life.end or own_word
