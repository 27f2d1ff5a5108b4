"""What is done again after a failure, how often, and why: a table. A deterministic error is never run again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcft.cluster.explain.verdict import Cause
from hpcft.runs.events import read_log
from hpcft.runs.paths import RunPaths


@dataclass(frozen=True)
class Policy:
    """What follows from a cause.

    Attributes:
        times: starts that may fail so in a row without a step gained and be followed by another one; 0: never.
        excludes: the node is left out from then on.
        why: the reason, said to the user.
    """

    times: int
    why: str
    excludes: bool = False


_DETERMINISTIC = "it would fail in the same way again"

POLICIES: dict[Cause, Policy] = {
    # More than three nodes that fail one after another are no matter of nodes.
    Cause.NODE_FAILURE: Policy(3, "other nodes may do it", excludes=True),
    # A rank that is late once may be in time later; a switch that is down stays so for longer than four starts.
    Cause.COLLECTIVE_TIMEOUT: Policy(3, "networks and busy nodes recover"),
    # The next start takes another port.
    Cause.PORT_IN_USE: Policy(2, "the next start takes another port"),
    # By hand, or by the system of a node short of memory: once is chance.
    Cause.KILLED: Policy(1, "what ended it may be gone"),
    Cause.HOST_OOM: Policy(0, "the same memory would run out again"),
    Cause.GPU_OOM: Policy(0, "the same memory would run out again"),
    Cause.NO_STEP: Policy(0, "the next attempt would gain nothing either"),
    Cause.PREEMPTED: Policy(0, "the next attempt would gain nothing either"),
    Cause.TIME_LIMIT: Policy(0, "the limit came before anything could be saved, and would again"),
    Cause.DISK_FULL: Policy(0, "somebody has to free space first"),
    Cause.NO_ACCESS: Policy(0, "somebody has to open the folder first"),
    Cause.OFFLINE_DOWNLOAD: Policy(0, "the nodes have no internet then either"),
    Cause.IMPORT_ERROR: Policy(0, _DETERMINISTIC),
    Cause.BAD_CONFIG: Policy(0, _DETERMINISTIC),
    Cause.BAD_DATA: Policy(0, _DETERMINISTIC),
    Cause.NAN_LOSS: Policy(0, _DETERMINISTIC),
    Cause.SECOND_ATTEMPT: Policy(0, "the other one goes on"),
    Cause.CANCELLED: Policy(0, "what was cancelled stays cancelled"),
    Cause.STOPPED: Policy(0, "it waits for hpcft resume"),
    Cause.NEVER_STARTED: Policy(0, "it waits for hpcft resume"),
    Cause.UNKNOWN: Policy(0, "what is not understood is not repeated"),
}


def policy_words(cause: Cause) -> str:
    """What is done after a cause, in a sentence; "" where there is nothing to repeat."""
    policy = POLICIES.get(cause)
    if policy is None:
        return ""
    if not policy.times:
        return f"no: {policy.why}"
    often = "once" if policy.times == 1 else f"up to {policy.times} times"
    without = ", without the node" if policy.excludes else ""
    return f"by itself, {often} in a row without a step gained{without}: {policy.why}"


def decisions(paths: RunPaths) -> list[dict[str, Any]]:
    """What was decided after the failed starts of a run, oldest first."""
    return [r for r in read_log(paths.retries).records if r.get("kind") == "decision"]


def may_run_again(paths: RunPaths, cause: Cause, step: int) -> tuple[bool, str]:
    """Whether a start that failed so is followed by another one, and why.

    Args:
        step: that the next start would go on from. Failures before it was reached do not count: a run that gains
            steps ends by finishing.
    """
    policy = POLICIES.get(cause, POLICIES[Cause.UNKNOWN])
    if not policy.times:
        return False, policy.why
    alike = [d for d in decisions(paths) if d.get("again") and d.get("cause") == cause and d.get("step") == step]
    if len(alike) >= policy.times:
        return False, f"{len(alike) + 1} starts in a row failed so and gained no step"
    return True, f"{policy.why} (repeat {len(alike) + 1} of {policy.times} at most)"


def newest_step(paths: RunPaths) -> int:
    """Step of the newest checkpoint that any attempt recorded; 0 before the first."""
    records = (r for n in paths.attempt_numbers() for r in read_log(paths.events(n)).records)
    return max((int(r.get("step", 0)) for r in records if r.get("kind") == "checkpoint"), default=0)
