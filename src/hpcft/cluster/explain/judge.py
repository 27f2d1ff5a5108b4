"""From what is known of a run to one verdict."""

from __future__ import annotations

import re
import shlex
import time
from dataclasses import replace
from pathlib import Path

from hpcft.cluster.explain.evidence import Line, Start, last_start
from hpcft.cluster.explain.mend import Case, mends, progress, run_word
from hpcft.cluster.explain.policy import decisions, policy_words
from hpcft.cluster.explain.rules import Kind
from hpcft.cluster.explain.scheduler import Facts, facts_of
from hpcft.cluster.explain.verdict import Cause, Evidence, Mend, Verdict
from hpcft.cluster.queue import JobState, QueueInfo
from hpcft.cluster.state import Standing, duration, stand
from hpcft.errors import DataError, NotAllowedError
from hpcft.runs.events import read_log
from hpcft.runs.record import Record, read_record
from hpcft.runs.run import Run, RunState

# While training, silence that is longer than this and than three steps is a hang.
_HANG_S = 30.0
_HANG_STEPS = 3
# Loading a model, validating and saving give no sign of life; the ranks' own time-out is as long.
_QUIET_S = 1800.0
# A chain of runs that wait for each other is no longer than this.
_DEPTH = 20


def verdict_of(run: Run, queue: QueueInfo | None = None) -> Verdict:
    """Why a run is where it is.

    Args:
        queue: what the scheduler says of its job, where it has just been asked.
    """
    return _verdict(run, queue, _DEPTH)


def failed_start(run: Run, facts: Facts) -> Verdict:
    """Why the start of a run failed that has just ended, told inside the job, before Slurm knows of its end; without
    the commands that mend it."""
    return _after(run, facts, last_start(run, facts), to_mend=False)


def _verdict(run: Run, queue: QueueInfo | None, depth: int) -> Verdict:
    record = read_record(run.paths.root)
    if record.done:
        return Verdict(Cause.FINISHED, f"at step {(run.end or {}).get('step', '?')}, see hpcft show {run_word(run)}")
    standing = stand([record])[0] if queue is None else Standing(run.state, "", record, queue)
    facts = facts_of(standing.queue, record.key)
    found = _waiting(run, standing, facts, depth) or _running(run, standing, facts)
    if found is None:
        found = _never_started(run, facts, depth) or _after(run, facts, last_start(run, facts))
        if found.cause is Cause.CANCELLED:
            found = replace(found, summary=_canceller(record, facts))
    return replace(found, decisions=tuple(decisions(run.paths)))


def _waiting(run: Run, standing: Standing, facts: Facts, depth: int) -> Verdict | None:
    waits = facts.queue.state is JobState.PENDING or (standing.state is RunState.PENDING and not facts.silent)
    if not waits or facts.queue.is_final:
        return None
    reason = facts.queue.reason
    if reason.startswith("DependencyNeverSatisfied"):
        return _dependency(run, facts, depth)
    summary = standing.words or reason or "in the queue"
    if words := _REASONS.get(reason.partition("_")[0].partition(",")[0]):
        summary += f": {words}"
    found = Verdict(Cause.WAITING, summary, _said(facts))
    if last := decisions(run.paths)[-1:]:
        found = found.noting(f"queued again: {last[0].get('reason', '')}")
    return found


# Slurm's reasons that want explaining, in what follows from them.
_REASONS = {
    "Priority": "other jobs go before it",
    "Resources": "it is next, and waits for nodes to become free",
    "Dependency": "it starts when the runs that it works on have finished",
    "BeginTime": "Slurm holds a job back for a moment after it was queued again",
    "JobHeldUser": "it is held; release it with scontrol release",
    "JobHeldAdmin": "an administrator holds it",
    "ReqNodeNotAvail": "a node that it needs is down, reserved or drained",
    "PartitionTimeLimit": "it asks for more time than its partition gives, and will never start: lower resources.time",
    "AssocGrpGRES": "your account uses all the GPUs that it may at once",
    "QOSMaxGRESPerUser": "you use all the GPUs that you may at once",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as you may at once",
    "job": "Slurm has put it back into the queue and holds it; release it with scontrol release",
    "launch": "Slurm could not start it and holds it; release it with scontrol release",
}


def _running(run: Run, standing: Standing, facts: Facts) -> Verdict | None:
    record = standing.record
    runs = facts.queue.state in (JobState.RUNNING, JobState.COMPLETING) or standing.state is RunState.STARTED
    if not runs or facts.queue.is_final:
        return None
    start = last_start(run, facts)
    first = start.first_cause()
    if first is not None and first[0].kind is Kind.WORKER:
        # One rank has said its last words, and the others still wait for it.
        return _after(run, facts, start).noting("the job still runs: the other ranks wait for the one that failed")
    heartbeat, alive = record.heartbeat, record.alive_at
    if heartbeat is None or alive is None:
        return Verdict(Cause.RUNNING, "starting", _said(facts))
    step, total, seconds = progress(run)
    silent = time.time() - heartbeat.time
    allowed = max(_HANG_S, _HANG_STEPS * seconds) if heartbeat.state == "training" and seconds else _QUIET_S
    at = f"step {step} of {total}" if total else heartbeat.message or heartbeat.state
    if silent > allowed:
        line = Line(
            "status.json", None, f"{heartbeat.state}, {at}, written {duration(silent)} ago", Kind.WORKER, rank=0
        )
        case = Case(run, facts, start, line)
        summary = f"{at}, no sign of life for {duration(silent)}"
        return _made(Cause.HANG, summary, case, heartbeat.attempt)
    return Verdict(
        Cause.RUNNING, at, Evidence("status.json", None, f"{heartbeat.state}, {at}", 0), attempt=heartbeat.attempt
    )


def _never_started(run: Run, facts: Facts, depth: int) -> Verdict | None:
    """A job that Slurm cancelled since the one that it waited for had failed, or that Slurm has forgotten."""
    if run.paths.batch_log.exists() or run.paths.attempt_numbers():
        return None
    if facts.queue.state is JobState.CANCELLED and _failed_parent(run, depth):
        return _dependency(run, facts, depth)
    return _forgotten(run, facts)


def _forgotten(run: Run, facts: Facts) -> Verdict | None:
    """A controller that dies may forget what it has just accepted."""
    queue = facts.queue
    known = queue.state is not JobState.UNKNOWN or facts.silent or not queue.answered
    if known or not re.fullmatch(r"\d+(?:_\d+)?", queue.job_id) or read_record(run.paths.root).cancelled:
        return None
    said = Line("squeue and sacct", None, f"nothing of job {queue.job_id}", Kind.FACTS)
    case = Case(run, facts, Start(None, (), (), ()), said)
    return _made(Cause.NEVER_STARTED, f"job {queue.job_id} was accepted and then forgotten, or removed", case, None)


def _dependency(run: Run, facts: Facts, depth: int) -> Verdict:
    parent = _failed_parent(run, depth)
    if parent is None:
        return Verdict(Cause.DEPENDENCY, "and will never start", _said(facts))
    name, verdict = parent
    word = run_word(run)
    then = [Mend(f"hpcft resume {shlex.quote(word)}", f"when {name} has finished")]
    if facts.queue.is_active:
        then.insert(0, Mend(f"hpcft cancel {shlex.quote(word)}", "it waits for a job that is gone"))
    return Verdict(
        Cause.DEPENDENCY,
        f"{name}: {verdict.line()}",
        _said(facts),
        (*verdict.mends[:1], *then),
        because=parent,
    )


def _failed_parent(run: Run, depth: int) -> tuple[str, Verdict] | None:
    """The run that this one waits for and that failed, with its own verdict."""
    try:
        script = run.paths.script.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^#SBATCH --dependency=\"?after\w+:([\d:]+)", script, re.MULTILINE)
    if found is None or depth == 0:
        return None
    ids = set(found[1].split(":"))
    for root in _siblings(run.paths.root):
        try:
            other = Run(root)
            if other.job_id in ids and not other.paths.done.is_file():
                verdict = _verdict(other, None, depth - 1)
                if verdict.cause.is_failure or verdict.cause is Cause.UNKNOWN:
                    return other.name, verdict
        except (DataError, NotAllowedError):
            # Somebody else's folder beside it, or a damaged one.
            continue
    return None


def _siblings(root: Path) -> list[Path]:
    return [f for f in sorted(root.parent.iterdir()) if f != root and (f / "config.yaml").is_file()]


def _after(run: Run, facts: Facts, start: Start, *, to_mend: bool = True) -> Verdict:
    """The verdict on a start that has ended, or is ending."""
    first = start.first_cause()
    record = read_record(run.paths.root)
    if first is None or (first[1].tier == 3 and first[0].kind is Kind.FACTS):
        return _without_words(Case(run, facts, start, first[0] if first else None, to_mend), record)
    line, rule = first
    case = Case(run, facts, start, line, to_mend)
    cause, summary, notes = rule.cause, _summary(rule.cause, line, run.paths.root), []
    if cause is Cause.NO_STEP and _mostly_preempted(run, facts):
        cause = Cause.PREEMPTED
    if cause is Cause.CANCELLED:
        summary = _canceller(record, facts)
    if cause is Cause.NAN_LOSS and (step := _first_nan(run, start)):
        notes.append(f"the first one is at step {step[0]} ({step[1]})")
    if cause is Cause.TIME_LIMIT:
        done, total, _ = progress(run)
        summary = f"{run.config.get('resources', {}).get('time', '')} at step {done} of {total or '?'}".strip()
    if cause is Cause.COLLECTIVE_TIMEOUT and rule.tier == 3:
        notes.append("nothing says why the other rank went away: hpcft logs shows all ranks")
    others = {(other.rank, other.text) for other in start.lines if other is not line and other.kind is Kind.WORKER}
    if others:
        notes.append(f"{len(others)} other rank(s) failed after it")
    return _made(cause, summary, case, start.attempt).noting(*notes)


def _without_words(case: Case, record: Record) -> Verdict:
    """No line says why: what the exit code, the heartbeat and the steps tell."""
    run, facts, start, line = case.run, case.facts, case.start, case.line
    if step := _first_nan(run, start):
        number, place = step
        file, _, at = place.rpartition(":")
        shown = Line(file, int(at), f"step {number}: the loss is no number", Kind.WORKER, rank=0)
        return _made(Cause.NAN_LOSS, f"at step {number}", replace(case, line=shown), start.attempt)
    heartbeat = record.heartbeat
    if record.cancelled or facts.queue.state is JobState.CANCELLED:
        return _made(Cause.CANCELLED, _canceller(record, facts), case, start.attempt)
    peak, asked = facts.peak_gb, facts.asked_gb
    ranks = run.config.get("resources", {}).get("gpus_per_node", 1)
    if line is not None and peak and asked and peak * ranks > 0.9 * asked:
        said = replace(line, text=f"{line.text} MaxRSS={peak:.3g}G of {asked:.3g}G a node")
        summary = f"killed while a task used {peak:.3g} GB"
        return _made(Cause.HOST_OOM, summary, replace(case, line=said), start.attempt)
    if heartbeat is not None and heartbeat.state == "stopped" and heartbeat.attempt == start.attempt:
        said = Line("status.json", None, heartbeat.message, Kind.WORKER, when=heartbeat.time, rank=0)
        return _made(Cause.STOPPED, heartbeat.message, replace(case, line=line or said), start.attempt)
    if line is not None and (rule := Start(None, (), (line,), ()).first_cause()) is not None:
        return _made(rule[1].cause, f"exit code {facts.queue.exit_code}", case, start.attempt)
    return _unknown(case)


def _unknown(case: Case) -> Verdict:
    run, facts, start = case.run, case.facts, case.start
    if facts.silent:
        summary = f"Slurm does not answer ({facts.silent}), and the run's own files do not tell"
    elif facts.queue.state is JobState.COMPLETED:
        summary = "the job ended with exit code 0 and without the end marker"
    elif facts.said:
        summary = f"no line says why; the job ended as {facts.queue.state.value}"
    else:
        summary = "no line says why, and the scheduler does not know the job"
    notes = [f"| {text[:200]}" for text in start.tail]
    where = [_relative(run, run.paths.batch_log)] if run.paths.batch_log.exists() else []
    if start.attempt is not None:
        where.append(f"{_relative(run, run.paths.attempt(start.attempt))}/rank*.log")
    notes.append(f"look at {' and '.join(where)}" if where else "it wrote no log")
    return Verdict(
        Cause.UNKNOWN,
        summary,
        _said(facts),
        attempt=start.attempt,
        notes=tuple(notes),
        again=policy_words(Cause.UNKNOWN),
    )


def _relative(run: Run, path: Path) -> str:
    return f"{run_word(run)}/{path.relative_to(run.paths.root)}"


def _made(cause: Cause, summary: str, case: Case, attempt: int | None) -> Verdict:
    evidence = case.line.evidence() if case.line is not None else None
    return Verdict(cause, summary, evidence, mends(cause, case), attempt, policy_words(cause))


def _summary(cause: Cause, line: Line, root: Path) -> str:
    """What the line itself adds: the message without time stamp and exit code."""
    text = re.sub(r"^.* - ERROR - (?:failed(?: with exit code \d+)?: )?", "", line.text)
    text = re.sub(r"^(?:\[rank\d+\]:\s*)?", "", text).replace(f"{root}: ", "")
    whose = " on ".join(w for w in ("" if line.rank is None else f"rank {line.rank}", line.node or "") if w)
    if cause in (Cause.HOST_OOM, Cause.NODE_FAILURE, Cause.KILLED):
        return whose or text[:120]
    short = text if len(text) <= 120 else text[:117] + "..."
    return f"{short} ({whose})" if whose else short


def _canceller(record: Record, facts: Facts) -> str:
    if record.cancelled:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(record.cancelled["t"])))
        return f"by {record.cancelled.get('by', 'its owner')} with hpcft cancel, {when}"
    return f"by {facts.cancelled_by} with scancel" if facts.cancelled_by else "by whom is not known"


def _mostly_preempted(run: Run, facts: Facts) -> bool:
    """Whether most starts of the job were ended by preemption, as accounting or the log tell."""
    earlier = [word for word in facts.starts if word in ("PREEMPTED", "REQUEUED", "TIMEOUT", "NODE_FAIL")]
    if earlier:
        return earlier.count("PREEMPTED") * 2 > len(earlier)
    try:
        log = run.paths.batch_log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    preempted, requeued = log.count("DUE TO PREEMPTION"), log.count("DUE TO JOB REQUEUE")
    return preempted > 0 and preempted >= requeued


def _first_nan(run: Run, start: Start) -> tuple[int, str] | None:
    """The first step of the last attempt whose loss is no number, and its place."""
    if start.attempt is None:
        return None
    path = run.paths.events(start.attempt)
    for number, record in enumerate(read_log(path).records, 1):
        if record.get("kind") == "step" and record.get("loss") in ("nan", "inf", "-inf"):
            return int(record.get("step", 0)), f"{path.relative_to(run.paths.root)}:{number}"
    return None


def _said(facts: Facts) -> Evidence | None:
    return Evidence(facts.source, None, facts.said) if facts.said else None
