"""Asked by the batch script when a start has failed: is it worth another one?

    python -P -m hpcft.cluster.retry RUN_DIRECTORY EXIT_CODE

Exit codes: 0 the script is to queue the job again, 1 it is to end. What was decided, and why, stands in the job's log
and in `retries.jsonl`. After a fault of a node this program queues the job again by itself, and says 1: Slurm takes a
node off a job only while it waits, so the exclusion has to follow the requeue at once.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hpcft.cluster.explain.evidence import last_attempt
from hpcft.cluster.explain.judge import failed_start
from hpcft.cluster.explain.policy import POLICIES, may_run_again, newest_step
from hpcft.cluster.explain.scheduler import Facts, host_names
from hpcft.cluster.explain.verdict import TITLES, Verdict
from hpcft.cluster.queue import JobState, QueueInfo, parse_state
from hpcft.cluster.slurm import call
from hpcft.errors import HpcftError
from hpcft.runs.attempt import this_job
from hpcft.runs.events import EventLog
from hpcft.runs.run import Run

# A requeued job is not at once one that waits.
_EXCLUDE_TRIES_S = (0.0, 0.2, 0.5, 1.0, 2.0)


def main(arguments: list[str] | None = None) -> int:
    """Decide, write it down, and return the exit code."""
    # The requeue ends every process of the job with TERM, and this one still has the exclusion to write.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0o077)
    root, code = (sys.argv[1:] if arguments is None else arguments)[:2]
    run = Run(Path(root))
    if run.paths.done.is_file():
        return 1
    if _has_saved(run):
        # It was ended on its way out; the script asks whether it was cancelled.
        _say("everything had been saved before it was ended; queued again")
        return 0
    job_id = this_job()
    verdict = failed_start(run, ending_job(job_id, int(code)))
    step = newest_step(run.paths)
    again, reason = may_run_again(run.paths, verdict.cause, step)
    node = _node(verdict) if again and POLICIES[verdict.cause].excludes else ""
    evidence = None if verdict.evidence is None else vars(verdict.evidence)
    told = {"cause": verdict.cause.value, "summary": verdict.summary, "evidence": evidence, "attempt": verdict.attempt}
    told |= {"job_id": job_id, "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")), "step": step, "node": node}
    if not _note(run, "decision", code=int(code), again=again, reason=reason, **told):
        # Repeats that are not counted would never end.
        again, reason = False, "the decision could not be written down"
    words = "queued again" if again else "not queued again"
    _say(f"{TITLES[verdict.cause]}: {verdict.summary}; {words}: {reason}")
    requeued = False
    if again and node:
        requeued, words = _requeue_without(job_id, node)
        _note(run, "exclusion", node=node, words=words)
        _say(words)
    return 0 if again and not requeued else 1


def _has_saved(run: Run) -> bool:
    """Whether this start stopped on request, with everything saved, whatever became of its processes then. The word of
    the start before says nothing of one that died before it had an attempt of its own."""
    status = run.status
    return status is not None and status.state == "stopped" and status.attempt == last_attempt(run)


def ending_job(job_id: str, code: int) -> Facts:
    """What is known of a job whose batch script is about to end with a code."""
    answer = call(["scontrol", "show", "job", job_id], timeout_s=10) if job_id else None
    shown = dict(re.findall(r"(\w+)=(\S+)", answer.out)) if answer is not None and answer.ok else {}
    state, reason = JobState.FAILED, shown.get("Reason", "None")
    word = shown.get("JobState", "")
    if parse_state(word) in (JobState.CANCELLED, JobState.COMPLETING) and reason == "None":
        # A job that Slurm ends while its script still runs: cancelled, unless it says something else.
        state = JobState.PREEMPTED if shown.get("PreemptTime", "None")[:1] == "2" else JobState.CANCELLED
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    said = f"State={state.value} ExitCode={code}:0 Reason={reason}"
    return Facts(QueueInfo(job_id, state, reason, nodes, f"{code}:0"), "the batch script", said, host_names(nodes))


def _node(verdict: Verdict) -> str:
    """The node that failed; of a job on one node, that one."""
    if verdict.evidence is not None and verdict.evidence.node:
        return verdict.evidence.node
    nodes = host_names(os.environ.get("SLURM_JOB_NODELIST", ""))
    return nodes[0] if len(nodes) == 1 else ""


def _requeue_without(job_id: str, node: str) -> tuple[bool, str]:
    """Queue the job again and leave the node out from now on.

    Returns:
        Whether it is queued again, and what became of the exclusion. A job that is queued again without it may meet
        the same node, which the limit of repeats ends.
    """
    shown = call(["scontrol", "show", "job", job_id], timeout_s=10)
    found = re.search(r"\bExcNodeList=(\S+)", shown.out)
    before = [] if found is None or found[1] == "(null)" else [found[1]]
    answer = call(["scontrol", "requeue", job_id], timeout_s=10)
    if not answer.ok:
        return False, f"node {node} is not left out, since Slurm said: {answer.err.strip()}"
    for pause in _EXCLUDE_TRIES_S:
        time.sleep(pause)
        answer = call(
            ["scontrol", "update", f"JobId={job_id}", "ExcNodeList=" + ",".join([*before, node])], timeout_s=10
        )
        if answer.ok:
            return True, f"without node {node}"
    return True, f"node {node} is not left out, since Slurm said: {answer.err.strip()}"


def _note(run: Run, kind: str, **facts: Any) -> bool:
    """Add a record, and tell whether that was possible: a full disk may be the very reason of the failure."""
    try:
        with EventLog(run.paths.retries, sync_seconds=0) as log:
            log.append(kind, **facts)
    except HpcftError as error:
        _say(str(error))
        return False
    return True


def _say(text: str) -> None:
    print(f"hpcft: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
