"""The lines that may say why a run failed: of its last start alone, with rank, node and time where they are known."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpcft.cluster.explain.rules import Kind, Rule, match
from hpcft.cluster.explain.scheduler import Facts, host_names, node_of
from hpcft.cluster.explain.verdict import Evidence
from hpcft.runs.events import read_log
from hpcft.runs.run import Run

# So much of a log's end is read: hundreds of ranks that dump their stacks stay below it.
_TAIL_BYTES = 16 * 2**20
_RANK_TAIL_BYTES = 2**16
_LONGEST_TEXT = 500

_START = re.compile(r"^hpcft: start \d+ of job (?P<job>\S+) on (?P<nodes>\S*)")
_ATTEMPT = re.compile(r" - INFO - attempt (\d+)\b")
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:,(\d{3}))? - \w+ - ")
_CANCELLED_AT = re.compile(r"CANCELLED AT (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
_WORKER = re.compile(r"^\d{4}-\S+ \S+ - ERROR - ")
_PROGRESS = re.compile(r" - (?:PROGRESS|INFO|WARNING) - ")
_EXCEPTION = re.compile(r"^(?:\[rank\d+\]:\s*)?[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Timeout)(?:: .*)?$")
_NATIVE = re.compile(
    r"^\s*(?:\[rank\d+\]:)?\[[EF]\d*[ \d:.]*[\w/]+\.c(?:pp|c|u)?:\d+\]|^terminate called|^\s+what\(\):|NVRM:"
    r"|^Fatal Python error|Error out of memory at line|NCCL WARN|Assertion .* failed|insufficient shared memory"
    r"|^FATAL: |kill(?:ed)? process \d+|out of shared memory|Memory cgroup out of memory"
)
_SLURM = re.compile(
    r"^(?:slurmstepd|slurmd|srun|scontrol|sbatch)\b|^\S*(?:slurm_script|job\.sh): line \d+: |^bash: |^Lmod "
    r"|^ERROR: Unable to locate"
)
_EXITED = re.compile(r"^srun: error: \S+: tasks? ([\d,-]{1,9}): Exited with exit code")
_RANK = re.compile(r"\[[Rr]ank ?(\d+)\]|\b[Rr]ank (\d+)\b|^srun: error: \S+: tasks? (\d+)")
_NODE = re.compile(
    r"^srun: error: (?!Node\b|Unable\b|Timed\b)([\w.-]+): tasks? \d|\bON ([\w.-]+) CANCELLED|^slurmstepd-([\w.-]+):"
    r"|[Nn]ode failure on ([\w.-]+)|asked for a GPU and ([\w.-]+) shows none"
)


@dataclass(frozen=True)
class Line:
    """One line that somebody wrote in the last start of a run.

    Attributes:
        more: what follows and belongs to it; looked at, and not shown.
        when: seconds since the epoch, its own or of the line before it; 0 when none has a time.
    """

    file: str
    number: int | None
    text: str
    kind: Kind
    more: str = ""
    when: float = 0.0
    rank: int | None = None
    node: str | None = None

    def evidence(self) -> Evidence:
        """For a verdict."""
        return Evidence(self.file, self.number, self.text.strip()[:_LONGEST_TEXT], self.rank, self.node)


@dataclass(frozen=True)
class Start:
    """The last start of a run, in its logs.

    Attributes:
        attempt: number of its attempt; None when it ended before it had one.
        nodes: its nodes, where the log names them.
        lines: what may say why it failed, oldest first.
        tail: the last lines of the log, whatever they say.
    """

    attempt: int | None
    nodes: tuple[str, ...]
    lines: tuple[Line, ...]
    tail: tuple[str, ...]

    def first_cause(self) -> tuple[Line, Rule] | None:
        """The line that the rest came from, and its rule."""
        found = [(line, rule) for line in self.lines if (rule := match(line.text + line.more, line.kind))]
        return min(found, key=_rank_of, default=None)


# Of lines that were written in the same moment, the worker's own says most.
_BEST = (Kind.WORKER, Kind.EXCEPTION, Kind.NATIVE, Kind.SLURM, Kind.FACTS)


def _rank_of(found: tuple[Line, Rule]) -> tuple[float, float, int]:
    """What comes first is the cause. A traceback may have been caught, so the worker's own last words go before it."""
    line, rule = found
    return rule.tier + 0.5 * (line.kind is Kind.EXCEPTION), line.when, _BEST.index(line.kind)


def last_start(run: Run, facts: Facts) -> Start:
    """Read what is left of a run's last start."""
    numbered, marked = _last_section(run.paths.batch_log)
    mark = _START.match(numbered[0][1]) if marked else None
    attempt = _attempt(run, numbered, marked)
    nodes = facts.nodes or (host_names(mark["nodes"]) if mark else ())
    per_node = _ranks_per_node(run)
    own = [replace(line, node=line.node or node_of(line.rank, nodes, per_node)) for line in _rank_lines(run, attempt)]
    told = {line.text for line in own}
    lines = list(own)
    alone = nodes[0] if len(nodes) == 1 else None
    gone = _failed_rank(run, numbered)
    for line in _telling(run.paths.batch_log.name, numbered):
        if line.text in told:
            continue
        by_rank = line.kind in (Kind.WORKER, Kind.EXCEPTION)
        rank = gone if line.rank is None and by_rank else line.rank
        lines.append(replace(line, rank=rank, node=line.node or node_of(rank, nodes, per_node) or alone))
    if not any(line.kind is Kind.WORKER for line in lines):
        lines += _last_words(run, attempt)
    if facts.said:
        lines.append(Line(facts.source, None, facts.said, Kind.FACTS, when=facts.queue.end or time.time()))
    tail = tuple(text.rstrip() for _, text in numbered if text.strip())[-5:]
    return Start(attempt, nodes, tuple(sorted(lines, key=lambda line: line.when)), tail)


def last_attempt(run: Run) -> int | None:
    """Number of the attempt that a run's last start took; None when it ended before it had one."""
    return _attempt(run, *_last_section(run.paths.batch_log))


def _attempt(run: Run, numbered: list[tuple[int, str]], marked: bool) -> int | None:
    attempts = [int(m[1]) for _, text in numbered if (m := _ATTEMPT.search(text))]
    if attempts or marked:
        return attempts[-1] if attempts else None
    # A log that does not tell its starts apart.
    return max(run.paths.attempt_numbers(), default=None)


def _last_section(log: Path) -> tuple[list[tuple[int, str]], bool]:
    """Numbered lines of the last start in a log, and whether its first one names the start."""
    numbered = list(_numbered(log, _TAIL_BYTES))
    for index in range(len(numbered) - 1, -1, -1):
        if _START.match(numbered[index][1]):
            return numbered[index:], True
    return numbered, False


def _numbered(path: Path, tail_bytes: int) -> Iterator[tuple[int, str]]:
    """Lines of the end of a file, with their numbers in the whole of it; none when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            skipped = max(0, size - tail_bytes)
            file.seek(0)
            before, left = 0, skipped
            while left > 0 and (chunk := file.read(min(left, 2**20))):
                before += chunk.count(b"\n")
                left -= len(chunk)
            content = file.read(tail_bytes)
    except OSError:
        return
    for number, raw in enumerate(content.split(b"\n"), before + 1):
        yield number, raw.decode("utf-8", "replace").rstrip("\r")


def _telling(file: str, numbered: list[tuple[int, str]]) -> Iterator[Line]:
    """Lines of a log that are somebody's last words. Anything else may hold any text, such as a row of the data."""
    # An exception that the ranks went on after was caught; the last two lines of progress may be of other ranks.
    progress = [index for index, (_, text) in enumerate(numbered) if _PROGRESS.search(text)]
    caught = progress[-3] if len(progress) > 2 else -1
    when = 0.0
    for index, (number, text) in enumerate(numbered):
        own = _time_of(text)
        when = own or when
        kind = _kind(text)
        if kind is None or (kind is Kind.EXCEPTION and index < caught):
            continue
        more = "" if kind is Kind.SLURM else _continued(text for _, text in numbered[index + 1 : index + 3])
        yield Line(file, number, text, kind, more, when, *_whose(text))


def _continued(following: Iterable[str]) -> str:
    """The next lines, as far as they belong to the one before."""
    found = []
    for text in following:
        if _kind(text) is not None or _TIME.match(text) or text.startswith("Traceback"):
            break
        found.append(text)
    return "\n" + "\n".join(found) if found else ""


def _kind(text: str) -> Kind | None:
    if _WORKER.search(text):
        return Kind.WORKER
    if _SLURM.search(text):
        return Kind.SLURM
    if _NATIVE.search(text):
        return Kind.NATIVE
    return Kind.EXCEPTION if _EXCEPTION.match(text) else None


def _time_of(text: str) -> float:
    """The time that a line begins with or names, in seconds since the epoch; 0 when it has none."""
    if found := _TIME.match(text):
        stamp, milliseconds = f"{found[1]}T{found[2]}", int(found[3] or 0)
    elif found := _CANCELLED_AT.search(text):
        stamp, milliseconds = found[1], 0
    else:
        return 0.0
    try:
        return time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S")) + milliseconds / 1000
    except (ValueError, OverflowError):
        return 0.0


def _whose(text: str) -> tuple[int | None, str | None]:
    """The rank and the node that a line names."""
    rank, node = _RANK.search(text), _NODE.search(text)
    number = next((g for g in rank.groups() if g is not None), "") if rank else ""
    return int(number) if 0 < len(number) < 8 else None, next((g for g in node.groups() if g), None) if node else None


def _rank_lines(run: Run, attempt: int | None) -> Iterator[Line]:
    """Last words in the logs that each rank writes itself."""
    if attempt is None:
        return
    folder = run.paths.attempt(attempt)
    for path in folder.glob("rank*.log"):
        digits = path.stem.removeprefix("rank")
        if not digits.isdecimal():
            continue
        numbered = list(_numbered(path, _RANK_TAIL_BYTES))
        for line in _telling(str(path.relative_to(run.paths.root)), numbered):
            yield replace(line, rank=int(digits))


def _last_words(run: Run, attempt: int | None) -> list[Line]:
    """What rank 0 recorded, for when the logs are gone or do not say it."""
    if attempt is not None:
        path = run.paths.events(attempt)
        file = str(path.relative_to(run.paths.root))
        for record in reversed(read_log(path).records):
            if record.get("kind") == "failed":
                said = f"failed with exit code {record.get('code', 1)}: {record.get('reason', '')}"
                when = float(record.get("t", 0.0))
                return [Line(file, record.get("seq"), said.splitlines()[0], Kind.WORKER, said, when, 0)]
    status = run.status
    if status is not None and status.state == "failed" and status.message and status.attempt in (0, attempt):
        words = status.message.splitlines()
        return [Line("status.json", None, words[0], Kind.WORKER, status.message, float(status.time), 0)]
    return []


def _failed_rank(run: Run, numbered: list[tuple[int, str]]) -> int | None:
    """The one rank whose failure srun tells: a line without a rank is that one's."""
    if _ranks_per_node(run) * _nodes(run) == 1:
        return 0
    found = [m[1] for _, text in numbered if (m := _EXITED.match(text))]
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() else None


def _ranks_per_node(run: Run) -> int:
    resources = run.config.get("resources")
    value = resources.get("gpus_per_node", 1) if isinstance(resources, dict) else 1
    return value if isinstance(value, int) else 1


def _nodes(run: Run) -> int:
    resources = run.config.get("resources")
    value = resources.get("nodes", 1) if isinstance(resources, dict) else 1
    return value if isinstance(value, int) else 1
