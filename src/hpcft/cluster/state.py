"""The state of a run, joined from what it says of itself and what the scheduler says of its job.

The end marker comes first, the heartbeat second, the scheduler third. Nothing that may still change is told as an
end: a job that has ended without a word is given time for its last words, which a file server may hold back, and what
nobody tells is UNKNOWN.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpcft.cluster.poll import Poll
from hpcft.cluster.queue import JobState, QueueInfo, ask, ask_local
from hpcft.runs.record import Record, read_record
from hpcft.runs.run import RunState
from hpcft.runs.submission import this_host

# A job's last words may be seen this much later than its end: file servers hold names back for up to a minute.
GRACE_S = 60.0
# A heartbeat that is younger is life, whoever says what. Saving and validating take longer without one, so an older
# one is no death.
FRESH_S = 60.0
# A job whose submission is younger need not be in the scheduler's answer.
_NEW_S = 30.0
# Clocks of two machines may differ so much.
_CLOCKS_S = 300.0

# After one of these the scheduler tells soon how it goes on.
_LAST_WORDS = ("failed", "stopped")

_ENDS = {
    JobState.COMPLETED: "the job ended without finishing the run",
    JobState.FAILED: "the job failed without a word of the run",
    JobState.TIMEOUT: "the job reached its time limit",
    JobState.OUT_OF_MEMORY: "the job used more memory than it had asked for",
    JobState.NODE_FAIL: "a node of the job failed",
    JobState.PREEMPTED: "the job was preempted and not queued again",
}


@dataclass(frozen=True)
class Standing:
    """The state of a run, and why.

    Attributes:
        state: the state.
        words: a sentence about it, without the run's name.
        record: what the run says.
        queue: what the scheduler says; None when it was not asked, since the run tells enough.
    """

    state: RunState
    words: str
    record: Record
    queue: QueueInfo | None = None


def judge(record: Record, queue: QueueInfo | None, now: float) -> Standing:
    """Join what is known of a run.

    Args:
        record: what the run directory says, read after the scheduler was asked.
        queue: what the scheduler says of the job of the last submission; None when it was not asked.
        now: seconds since the epoch.
    """
    info = None if queue is None or not _is_ours(record, queue) else queue
    if record.done:
        return Standing(RunState.SUCCESS, "finished", record, info)
    if info is not None and info.is_active:
        state = RunState.PENDING if info.state is JobState.PENDING else RunState.STARTED
        words = _waiting(record, info) if state is RunState.PENDING else _working(record, now)
        return Standing(state, words, record, info)
    if info is not None and info.is_final and not _outlived(record, info):
        return _ended(record, info, now)
    return _untold(record, queue, info, now)


def _is_ours(record: Record, queue: QueueInfo) -> bool:
    """Whether the scheduler's words are about the run's job: numbers of jobs are used again."""
    if queue.name and record.key:
        return queue.name.endswith("." + record.key)
    asked = record.intent.get("t")
    # Submitted anew when it is queued again: never before it was asked for.
    return queue.submit is None or asked is None or queue.submit >= float(asked) - _CLOCKS_S


def _outlived(record: Record, info: QueueInfo) -> bool:
    """Whether the run has given a sign of life long after the end that the scheduler tells: it is of an earlier
    start."""
    end, alive = info.end or info.seen_final, record.alive_at
    return end is not None and alive is not None and alive > end + _CLOCKS_S


def _ended(record: Record, info: QueueInfo, now: float) -> Standing:
    """The scheduler says that the job has ended, and there is no end marker."""
    heartbeat = record.heartbeat
    # Unless it was queued again after that word, and started, and died before it could say anything.
    said = heartbeat if heartbeat is not None and (info.start is None or info.start <= heartbeat.time) else None
    if said is not None and said.state == "failed" and not _cancelled_since(record, info, said.time):
        return Standing(RunState.FAILURE, _reason(said.message), record, info)
    if info.state is JobState.CANCELLED or record.cancelled:
        return Standing(RunState.CANCELLED, _cancelled(record, info), record, info)
    if said is not None and said.state == "stopped":
        return Standing(RunState.STOPPED, said.message or "stopped with everything saved", record, info)
    if not _is_certain(record, info, now):
        words = f"the job has ended ({info.state}); its last words are awaited"
        return Standing(RunState.UNKNOWN if heartbeat is None else RunState.STARTED, words, record, info)
    code = f" (exit code {info.exit_code})" if info.exit_code not in ("", "0:0") else ""
    return Standing(RunState.FAILURE, _ENDS[info.state] + code, record, info)


def _cancelled_since(record: Record, info: QueueInfo | None, moment: float) -> bool:
    """Whether it was cancelled after a moment: then it had been queued again, and waited."""
    ended = (info.end or info.seen_final) if info is not None and info.state is JobState.CANCELLED else None
    noted = float(record.cancelled["t"]) if record.cancelled else None
    return any(time is not None and time > moment for time in (ended, noted))


def _is_certain(record: Record, info: QueueInfo, now: float) -> bool:
    """Whether the end is old enough for its last words to have come. That a process of this machine is gone is
    certain, and its files are there."""
    if record.is_process:
        return True
    known = [t for t in (info.end, info.seen_final) if t is not None]
    alive = record.alive_at
    return bool(known) and now - min(known) >= GRACE_S and (alive is None or now - alive >= GRACE_S)


def _untold(record: Record, queue: QueueInfo | None, info: QueueInfo | None, now: float) -> Standing:
    """The scheduler does not tell: it was not asked, does not answer, or knows the job no more."""
    heartbeat, submission = record.heartbeat, record.submission
    left = queue is not None and queue.answered and _has_left(record, queue) and not _is_new(record, queue)
    # Where nobody can be asked, there is nobody either who would queue the job again.
    alone = queue is None and heartbeat is not None and now - heartbeat.time >= GRACE_S
    if heartbeat is not None and heartbeat.state == "failed" and (left or alone):
        if _cancelled_since(record, info, heartbeat.time):
            return Standing(RunState.CANCELLED, _cancelled(record, info), record, info)
        return Standing(RunState.FAILURE, _reason(heartbeat.message), record, info)
    if record.cancelled and (left or record.is_process):
        return Standing(RunState.CANCELLED, _cancelled(record, info), record, info)
    if heartbeat is not None and heartbeat.state == "stopped":
        if left:
            return Standing(RunState.STOPPED, heartbeat.message or "stopped with everything saved", record, info)
        return Standing(RunState.PENDING, heartbeat.message or "stopped, to go on", record, info)
    alive = record.alive_at
    if alive is not None and now - alive < FRESH_S:
        return Standing(RunState.STARTED, _working(record, now), record, info)
    if submission is not None and submission.kind == "refused":
        return Standing(RunState.FAILURE, "the scheduler refused the job", record, info)
    if submission is not None and submission.kind == "withdrawn":
        return Standing(RunState.CANCELLED, "its submission was given up; there is no job", record, info)
    if submission is not None and submission.kind == "rendered" and heartbeat is None:
        return Standing(RunState.PENDING, "its script is written and not submitted", record, info)
    if heartbeat is None and submission is not None and (now - submission.time < _NEW_S or _is_new(record, queue)):
        return Standing(RunState.PENDING, "submitted", record, info)
    return Standing(RunState.UNKNOWN, _nobody_tells(record, queue, now), record, info)


def _has_left(record: Record, queue: QueueInfo) -> bool:
    """Whether the answer says that the job is not in the queue: squeue has every job that waits or runs, and a number
    is given to another job only when the first one is forgotten."""
    # With a name it is there, in a state whose word is new to us.
    if queue.state is JobState.UNKNOWN and not queue.name:
        return True
    submission = record.submission
    given_anew = queue.submit is not None and submission is not None and queue.submit > submission.time + _CLOCKS_S
    return given_anew and not _is_ours(record, queue)


def _is_new(record: Record, queue: QueueInfo | None) -> bool:
    """Whether the answer is older than the submission, or hardly younger."""
    submission = record.submission
    if submission is None or queue is None:
        return False
    return queue.as_of is not None and queue.as_of < submission.time + _NEW_S


def _waiting(record: Record, info: QueueInfo) -> str:
    heartbeat = record.heartbeat
    again = f"to go on from step {heartbeat.step}" if heartbeat is not None and heartbeat.step else ""
    words = [w for w in (again, info.reason) if w]
    if info.start is not None:
        words.append(f"expected start {moment(info.start)}")
    if info.reason.startswith("DependencyNeverSatisfied"):
        words.append("it will never start")
    return ", ".join(words) or "waiting"


def _working(record: Record, now: float) -> str:
    heartbeat = record.heartbeat
    if heartbeat is None:
        return "starting"
    attempt = f" (attempt {heartbeat.attempt})" if heartbeat.attempt > 1 else ""
    if heartbeat.state == "failed":
        return f"the attempt failed, the job still runs: {_reason(heartbeat.message)}"
    words = heartbeat.message if heartbeat.state == "starting" and heartbeat.message else heartbeat.state
    if record.cancelled:
        words += f", asked to stop by {record.cancelled['by']}"
    alive = record.alive_at
    silent = now - alive if alive is not None else 0.0
    return words + attempt + (f", no sign of life for {duration(silent)}" if silent >= 2 * FRESH_S else "")


def _nobody_tells(record: Record, queue: QueueInfo | None, now: float) -> str:
    if queue is None and not record.is_process:
        words = "there is no scheduler here to ask"
    elif queue is not None and not queue.answered:
        words = f"the scheduler does not answer{': ' + queue.reason if queue.reason else ''}"
    elif record.job_id is None:
        words = "it is not known whether the job was queued; hpcft doctor --repair finds out"
    elif record.is_process:
        words = f"it was started on {record.intent.get('host') or 'another machine'}, and cannot be seen from here"
    else:
        words = f"job {record.job_id} has left the queue, and how is not known"
    alive = record.alive_at
    return words + (f"; last sign of life {duration(now - alive)} ago" if alive is not None else "")


def _cancelled(record: Record, info: QueueInfo | None) -> str:
    by = str(record.cancelled["by"]) if record.cancelled else ""
    if not by and info is not None and info.cancelled_by:
        by = f"user {info.cancelled_by}"
    heartbeat = record.heartbeat
    at = f" at step {heartbeat.step}" if heartbeat is not None and heartbeat.step else ""
    return "cancelled" + (f" by {by}" if by else "") + at


def _reason(message: str) -> str:
    return "; ".join(line.strip() for line in message.splitlines() if line.strip()) or "failed"


def moment(at: float) -> str:
    """A time of day, with its date unless it is today's."""
    form = "%H:%M" if time.localtime(at)[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(at))


def duration(seconds: float) -> str:
    """Seconds in the unit that shows them best.

    >>> duration(42), duration(330), duration(7260), duration(200_000)
    ('42 s', '5 min', '2 h 1 min', '2 d 7 h')
    """
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def stand(records: Sequence[Record], poll: Poll | None = None) -> list[Standing]:
    """The states of runs, the scheduler asked once for all of them, and only about those that do not tell themselves.

    Args:
        records: the runs.
        poll: the shared answer, asked rarely; without it Slurm is asked now, for acting on what it says.
    """
    open_ones = [r for r in records if not r.done and r.job_id is not None and not r.is_process]
    ids = [r.job_id or "" for r in open_ones]
    now = time.time()
    if poll is None:
        answers = ask(ids)
    else:
        poll.look(ids, urgent=any(r.heartbeat is not None and r.heartbeat.state in _LAST_WORDS for r in open_ones))
        answers = {}
    return [_one(record, poll, answers, now) for record in records]


def _one(record: Record, poll: Poll | None, answers: dict[str, QueueInfo], now: float) -> Standing:
    queue: QueueInfo | None = None
    if record.done or record.submission is None or not (record.is_process or shutil.which("squeue")):
        queue = None
    elif record.is_process:
        queue = _process(record)
    elif record.job_id is not None:
        queue = poll.of(record.job_id, record.key) if poll is not None else answers.get(record.job_id)
    elif poll is not None and record.key:
        queue = poll.by_key(record.key)
    found = judge(record, queue, now)
    if found.state.is_over and not record.done:
        # Its last words may have come while the scheduler was asked.
        return judge(read_record(record.root), queue, now)
    return found


def _process(record: Record) -> QueueInfo | None:
    """The job as a process of this machine; None when it is one of another machine."""
    host = record.intent.get("host")
    if record.job_id is None or (host and host != this_host()):
        return None
    return ask_local(record.job_id)
