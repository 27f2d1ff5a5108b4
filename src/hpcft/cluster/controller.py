"""The controller of a sweep: keeps some trials going, tells the search how they fare, ends those not worth it.

    python -m hpcft.cluster.controller SWEEP

It may be killed at any time and started again: what it knows stands in the sweep's folder, and a trial goes on
without it. A grid or a random search on a cluster of Slurm needs none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hpcft.cluster.array import in_queue, submit_trials
from hpcft.cluster.profile import Profile, load_profile
from hpcft.cluster.queue import ask_local, start_time
from hpcft.cluster.repair import open_submissions, repair
from hpcft.cluster.search import Search
from hpcft.cluster.submit import record_intent, submit_local
from hpcft.cluster.trial import find_trial, make_trial
from hpcft.errors import HpcftError, TryAgainError, UnavailableError, UsageError
from hpcft.runs.create import new_run_id
from hpcft.runs.files import FILE_MODE, explained, write_atomic
from hpcft.runs.run import Run, RunState
from hpcft.runs.submission import Journal, submissions, try_lock
from hpcft.runs.sweep import PRUNED, SweepFolder, final_value, reported, trial_state
from hpcft.spec.build import build
from hpcft.spec.layers import yaml_layer

# Seconds between two looks at the trials' folders, and at the queue for those that say nothing.
_LOOK_S = {"local": 1.0, "slurm": 5.0}
_QUEUE_S = 60.0
# A task of an array that has ended is in the queue no more; its last words may be on their way between two machines.
_LAST_WORDS_S = 10.0
# One that was told to end first does what it is at, which may be an sbatch without an answer.
_ENDS_WITHIN_S = 180.0
_ENDED = (RunState.SUCCESS, PRUNED, RunState.FAILURE)


class Controller:
    """One sweep's controller.

    Args:
        sweep: its folder.
        profile: of the cluster that its trials run on.
    """

    def __init__(self, sweep: SweepFolder, profile: Profile) -> None:
        self.sweep = sweep
        self.profile = profile
        self.job = build([yaml_layer(sweep.paths.job)]).job
        self.search = Search(sweep) if sweep.settings.spec else None
        # Trials to be started, those that have ended for good, and those that were given up.
        self._waiting: list[int] = []
        self._final: set[int] = set()
        self._lost: set[int] = set()
        self._next_look = 0.0
        self._full_until = 0.0
        self._missing: dict[int, float] = {}
        self._told_to_end = False
        self._pausing = False
        # On this machine trials run one after the other, unless more are asked for.
        self.concurrency = sweep.settings.concurrency or (1 if profile.scheduler == "local" else 4)

    def run(self) -> None:
        """Go on until every trial has ended, or it is told to end; where the cluster does not answer, wait until it
        does.

        Raises:
            ConfigError: it refused a trial.
        """
        if self.search is not None:
            self.search.recover()
        over, sure = False, False
        while not over:
            try:
                if not sure:
                    self._settle()
                    self._waiting = self._left_behind()
                    sure = True
                over = self.step()
                self._pause(_LOOK_S[self.profile.scheduler])
            except FileNotFoundError:
                # Somebody has removed the sweep.
                raise
            except (UnavailableError, TryAgainError, OSError) as error:
                # Slurm is away, or has not said whether it took an array: it is asked, and nothing is repeated. Or the
                # file server is away.
                _say(f"hpcft: {error}")
                sure = False
                self._pause(_QUEUE_S)
        _say(f"all trials of {self.sweep.name} have ended")

    def end(self, *_: object) -> None:
        """End it, as a handler of signals: at once while it pauses, else at its next pause, since a submission that is
        cut off leaves it open whether there is a job.
        """
        self._told_to_end = True
        if self._pausing:
            raise SystemExit(0)

    def _pause(self, seconds: float) -> None:
        self._pausing = True
        try:
            if self._told_to_end:
                raise SystemExit(0)
            time.sleep(seconds)
        finally:
            self._pausing = False

    def step(self) -> bool:
        """Look at the trials once, and start what there is room for.

        Returns:
            Whether all have ended.
        """
        known = self._final | self._lost | set(self._waiting)
        states = {n: self._state(n) for n in self._begun() if n not in known}
        ended = {n for n, state in states.items() if state in _ENDED}
        gone = self._gone([n for n, state in states.items() if n not in ended or state == RunState.FAILURE])
        # A failure that Slurm has queued again is none yet.
        final = {n for n in ended if states[n] != RunState.FAILURE or n in gone}
        # One that has ended since its state was read is looked at next time.
        lost = {n for n in (gone & set(states)) - ended if self._state(n) not in _ENDED}
        for number in sorted(lost):
            self._give_up(number)
        going = set(states) - final - lost
        self._tell(states, final, going)
        self._final |= final
        if not self._waiting:
            self._waiting = self._next(self.concurrency - len(going))
        free = max(0, self.concurrency - len(going))
        now, later = self._waiting[:free], self._waiting[free:]
        self._waiting = self._start(now) + later
        return not going and not now and not self._waiting

    def _begun(self) -> list[int]:
        """Numbers of the trials that were submitted."""
        if self.profile.scheduler == "slurm":
            return sorted({number for chunk in self.sweep.chunks() for number in chunk.numbers})
        return [t.number for t in self.sweep.trials() if submissions(self.sweep.paths.trial(t.number))]

    def _next(self, count: int) -> list[int]:
        """Numbers of trials that were not begun yet, new ones from the search where there are too few."""
        if count <= 0:
            return []
        begun = set(self._begun())
        if self.search is None:
            return [t.number for t in self.sweep.trials() if t.number not in begun][:count]
        proposed = [number for number in self.search.open if number not in begun]
        return [*proposed, *(t.number for t in self.search.propose(count - len(proposed)))][:count]

    def _left_behind(self) -> list[int]:
        """Numbers of the trials that were begun, have not ended, and have no job any more: they go on in another."""
        open_trials = set(self._begun()) if self.search is None else set(self.search.open) & set(self._begun())
        unfinished = [n for n in sorted(open_trials - self._lost) if self._state(n) not in _ENDED]
        if self.profile.scheduler == "local":
            return [n for n in unfinished if n in self._gone([n])]
        active = in_queue(self.sweep, unfinished)
        return [n for n in unfinished if n not in active]

    def _state(self, number: int) -> str:
        paths = self.sweep.paths.trial(number)
        return trial_state(Run(paths.root)) if paths.config.is_file() else str(RunState.PENDING)

    def _gone(self, numbers: list[int]) -> set[int]:
        """Of some trials those without a job that waits or runs."""
        if self.profile.scheduler == "local":
            found = {n: submissions(self.sweep.paths.trial(n)) for n in numbers}
            return {n for n, s in found.items() if not (s and s[-1].job_id and not ask_local(s[-1].job_id).is_final)}
        if not numbers or time.monotonic() < self._next_look:
            return {number for number, since in self._missing.items() if time.monotonic() - since >= _LAST_WORDS_S}
        try:
            missing = set(numbers) - in_queue(self.sweep, numbers)
        except UnavailableError:
            # The controller of the cluster is away for a while: nothing is known, and nothing is done.
            return set()
        now = time.monotonic()
        self._missing = {number: self._missing.get(number, now) for number in missing}
        self._next_look = now + (_LAST_WORDS_S if missing else _QUEUE_S)
        return {number for number, since in self._missing.items() if now - since >= _LAST_WORDS_S}

    def _tell(self, states: dict[int, str], final: set[int], going: set[int]) -> None:
        """Tell the search what is new, and end the trials that it finds not worth their time."""
        if self.search is None:
            return
        metric, open_trials = self.sweep.settings.metric, set(self.search.open)
        for number in sorted(open_trials & final):
            run = Run(self.sweep.paths.trial(number).root)
            self.search.is_worth(number, list(reported(run, metric)))
            failed = states[number] == RunState.FAILURE
            value = None if failed else final_value(run, metric)
            self.search.end(number, value, pruned=states[number] == PRUNED)
            _say(f"trial {number}: {states[number]}" + (f", {metric} {value:.6g}" if value is not None else ""))
        for number in sorted(open_trials & going):
            paths = self.sweep.paths.trial(number)
            if not paths.config.is_file() or paths.end_early.exists():
                continue
            if not self.search.is_worth(number, list(reported(Run(paths.root), metric))):
                write_atomic(paths.end_early, "The sweep's controller: others do better at this point.\n")
                _say(f"trial {number}: ends early")

    def _give_up(self, number: int) -> None:
        paths = self.sweep.paths.trial(number)
        _say(f"trial {number}: its job has ended without finishing it; {paths.root}")
        self._lost.add(number)
        if self.search is not None:
            self.search.end(number, None, pruned=False)

    def _start(self, numbers: list[int]) -> list[int]:
        """Start trials, and give those that the cluster's limits leave no room for now."""
        if not numbers or time.monotonic() < self._full_until:
            return numbers
        if self.profile.scheduler == "slurm":
            queued = submit_trials(self.sweep, self.job, self.profile, sorted(numbers), _say)
            if queued.left:
                _say(f"{len(queued.left)} trials wait outside the queue: {queued.reason}")
                self._full_until = time.monotonic() + _QUEUE_S
            self._missing.clear()
            return queued.left
        for number in numbers:
            job, paths = make_trial(self.sweep, find_trial(self.sweep, number))
            paths.batch_log.unlink(missing_ok=True)
            with Journal(paths) as journal:
                run_id = Run(paths.root).id or new_run_id()
                record_intent(journal, job, self.profile, paths, run_id, sweep=self.sweep.name, trial=number)
                submit_local(job, self.profile, paths, journal)
            _say(f"trial {number}: started")
        return []

    def _settle(self) -> None:
        """Settle what a killed controller left, or an sbatch without an answer.

        Raises:
            TryAgainError: it is not known yet what became of it.
        """
        if self.profile.scheduler == "slurm":
            repair_sweep(self.sweep)
        else:
            repair(self.sweep.paths.root, _say)


def repair_sweep(sweep: SweepFolder) -> None:
    """Find out what became of a submission that was cut off.

    Raises:
        TryAgainError: that is not known yet.
    """
    results, root = sweep.paths.root.parent, sweep.paths.root
    if root in [paths.root for paths, _ in open_submissions(results)]:
        said = [r for r in repair(results, _say) if r.run == root]
        if said and said[-1].outcome == "left":
            raise TryAgainError(said[-1].message, where=str(root))


def start_controller(sweep: SweepFolder, folder: Path) -> int:
    """Start a sweep's controller in a session of its own, so that it outlives the terminal, and return its pid.

    Args:
        folder: the user's project, where cluster profiles are found.

    Raises:
        HpcftError: it ended at once; with its last words.
    """
    command = [sys.executable, "-P", "-m", "hpcft.cluster.controller", str(sweep.paths.root)]
    with explained(sweep.paths.controller_log, "write the log"), sweep.paths.controller_log.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    while controller_of(sweep) is None and process.poll() is None:
        time.sleep(0.05)
    if process.returncode:
        words = sweep.paths.controller_log.read_text(encoding="utf-8", errors="replace").strip()
        last = words.rpartition("\n")[2]
        raise HpcftError(f"the controller ended at once: {last}", where=str(sweep.paths.controller_log))
    return process.pid


def controller_of(sweep: SweepFolder) -> str | None:
    """`host pid-starttime` of the controller that runs now, or None."""
    try:
        host, _, job_id = sweep.paths.controller_lock.read_text(encoding="utf-8").strip().partition(" ")
    except FileNotFoundError:
        return None
    if host == os.uname().nodename and ask_local(job_id).is_final:
        return None
    return f"{host} {job_id}" if job_id else None


def stop_controller(sweep: SweepFolder) -> str:
    """End the controller; the trials that run go on.

    Returns:
        What was done, in words.
    """
    holder = controller_of(sweep)
    if holder is None:
        return "no controller runs"
    host, _, job_id = holder.partition(" ")
    if host != os.uname().nodename:
        return f"the controller runs on {host}; stop it there"
    os.kill(int(job_id.partition("-")[0]), signal.SIGTERM)
    return "the controller was told to end; trials that run go on"


def end_controller(sweep: SweepFolder) -> bool:
    """End the controller and wait until it has ended, so that no trial starts any more.

    Returns:
        Whether one ran.

    Raises:
        UsageError: it runs on another machine.
        TryAgainError: it has not ended within some minutes.
    """
    holder = controller_of(sweep)
    if holder is None:
        return False
    host = holder.partition(" ")[0]
    if host != os.uname().nodename:
        raise UsageError(
            f"its controller runs on {host} and would start other trials",
            where=str(sweep.paths.root),
            hint=f"nothing was cancelled; on {host}: hpcft cancel {sweep.name}",
        )
    stop_controller(sweep)
    end = time.monotonic() + _ENDS_WITHIN_S
    while controller_of(sweep) is not None:
        if time.monotonic() > end:
            raise TryAgainError("its controller has not ended yet; nothing was cancelled", where=str(sweep.paths.root))
        time.sleep(0.1)
    return True


def main() -> int:
    """Control one sweep, as its only controller."""
    os.umask(0o077)
    sweep = SweepFolder(Path(sys.argv[1]))
    fd = os.open(sweep.paths.controller_lock, os.O_RDWR | os.O_CREAT, FILE_MODE)
    locked = try_lock(fd)
    # On a file system without locks all that is known is what the file says.
    if locked is False or (locked is None and controller_of(sweep) is not None):
        _say("another controller of this sweep runs")
        return TryAgainError.exit_code
    me = f"{os.uname().nodename} {os.getpid()}-{start_time(os.getpid()) or '0'}\n"
    os.ftruncate(fd, 0)
    os.write(fd, me.encode())
    try:
        # So that the lock's file says nothing any more, which is all that another machine can look at.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        own = Controller(sweep, load_profile(sweep.settings.cluster, str(sweep.paths.settings)))
        signal.signal(signal.SIGTERM, own.end)
        own.run()
    except HpcftError as error:
        _say(f"hpcft: {error}")
        return error.exit_code
    except SystemExit:
        _say("told to end; trials that run go on")
        raise
    finally:
        os.ftruncate(fd, 0)
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
