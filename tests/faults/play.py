"""Play faults against jobs on a cluster of our own, and write what became of them.

    PYTHONPATH=tests:src python -m faults.play [--seeds 1 2 3] [--only WORDS ...] [--lanes 2] [--json FILE]

Each fault is played in each of its phases with each seed. Those that hit one node are played two at a time, one a node;
those that hit the whole cluster one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from faults.kinds import FAULTS, Fault, nothing
from faults.lab import Lab, Outcome, Skipped, own_cluster
from faults.report import save

NODES = ("node1", "node2")


def plan(seeds: Iterable[int], only: Iterable[str] = ("",), part: str = "all") -> list[tuple[Fault, str, int, int]]:
    """(fault, phase, ranks, seed) of every case: each fault in one phase, then each in another; of them those whose
    `fault, phase` has one of some words in it."""
    cases = [
        (turn, fault.whole, (fault, fault.phases[(turn + seed) % len(fault.phases)], ranks, seed))
        for seed in seeds
        for fault in FAULTS
        for turn in range(len(fault.phases))
        for ranks in fault.ranks
        if part in ("all", "cluster" if fault.whole else "node")
    ]
    chosen = [case for *_, case in sorted(cases, key=lambda case: case[:2])]
    return [case for case in chosen if any(words in f"{case[0].name}, {case[1]}" for words in only)]


def play(lab: Lab, fault: Fault, phase: str, ranks: int, seed: int, node: str, keep: Path | None = None) -> Outcome:
    """One case, from its submission to its judgement.

    Args:
        keep: where the run directories go of cases that did not finish.
    """
    name = f"{''.join(c if c.isalnum() else '-' for c in fault.name)}-{phase}-{ranks}-{seed}"
    case = lab.case(name, ranks=ranks, spec=dict(fault.spec), profile=dict(fault.profile), node=node, seed=seed)
    outcome = Outcome(fault.name, phase, ranks, seed, "", False)
    began = time.monotonic()
    with contextlib.ExitStack() as after:
        try:
            # The oracle tracks nothing: wandb's troubles must not reach the weights.
            oracle = lab.oracle(lab.case(name, ranks=ranks, node=node))
            began = time.monotonic()
            if fault.prepare is not None:
                after.callback(fault.prepare(case))
            code = case.submit(fault.submit)
            after.callback(case.cancel)
            if code and not fault.submit:
                raise RuntimeError((lab.folder / f"{name}.out").read_text())
            if fault.submit:
                fault.inject(case)
            elif fault.inject is not nothing:
                case.wait_for(phase)
                fault.inject(case)
            ended = case.wait_end()
            outcome.result, outcome.right, outcome.detail = case.judge(oracle, fault.allowed)
            if not ended:
                outcome.result, outcome.right = "HANGING", False
            outcome.starts = max(len(case.paths.attempt_numbers()), 1)
            outcome.lost_steps = case.repeated_steps()
        except Skipped as skipped:
            outcome.result, outcome.right, outcome.detail = "not played", True, str(skipped)
        except Exception as error:
            outcome.result, outcome.detail = f"the lab failed: {error}", traceback.format_exc()[-600:]
        if keep is not None and outcome.result != "finished, equal" and case.paths.root.exists():
            # What still runs may remove a file under the copier's hands.
            with contextlib.suppress(OSError):
                shutil.copytree(case.paths.root, keep / name, dirs_exist_ok=True)
    outcome.seconds = time.monotonic() - began
    return outcome


def play_all(
    lab: Lab,
    cases: list[tuple[Fault, str, int, int]],
    lanes: int,
    minutes: float = float("inf"),
    keep: Path | None = None,
    note: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """All cases, as far as the time goes; a line to stderr for each.

    Args:
        note: is given all outcomes so far after each case.
    """
    nodes, lock, outcomes = list(NODES[:lanes]), threading.Lock(), list[Outcome]()
    end = time.monotonic() + minutes * 60

    def one(case: tuple[Fault, str, int, int]) -> None:
        if time.monotonic() > end:
            return
        with lock:
            node = nodes.pop()
        outcome = play(lab, *case, node=node, keep=keep)
        with lock:
            nodes.append(node)
            outcomes.append(outcome)
            note(outcomes)
        mark = "ok " if outcome.right else "BAD"
        print(f"{mark} {outcome.seconds:5.0f} s  {outcome.fault}, {outcome.phase}, {outcome.ranks} rank(s), seed "
              f"{outcome.seed}: {outcome.result} {outcome.detail}", file=sys.stderr, flush=True)  # fmt: skip

    for whole, group in groupby(cases, key=lambda case: case[0].whole):
        with ThreadPoolExecutor(1 if whole else lanes) as pool:
            list(pool.map(one, group))
    return outcomes


def main() -> int:
    """Play, and fail when anything was wrong."""
    parser = argparse.ArgumentParser(description="Faults against jobs, on a Slurm of our own.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose `fault, phase` has one of these in it")
    parser.add_argument("--part", choices=["all", "node", "cluster"], default="all", help="what the faults hit")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after this")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the run directories of cases that did not finish")
    parser.add_argument("--json", type=Path, help="written anew after each case")
    given = parser.parse_args()

    def note(outcomes: list[Outcome]) -> None:
        if given.json:
            save(given.json, "faults", [vars(outcome) for outcome in outcomes])

    with own_cluster() as cluster:
        cases = plan(given.seeds, given.only, given.part)
        lab = Lab(cluster, cluster.root / "lab")
        outcomes = play_all(lab, cases, given.lanes, given.minutes, given.keep, note)
    return 0 if all(outcome.right for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
