"""The search of a sweep, with Optuna as it is: what is proposed, what survives a restart, which trials end early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import sweep_folder

from hpcft.cluster.search import Search
from hpcft.runs.sweep import SweepFolder
from hpcft.spec.sweep import EarlyEnd, Metric, Parameter, Sweep, short_sweep

RATE = Parameter("training.learning_rate", "t", "log_uniform_values", numbers=(("min", 1e-5), ("max", 1e-2)))
RANK = Parameter("lora.r", "t", "int_uniform", numbers=(("min", 2.0), ("max", 64.0)))
DROPOUT = Parameter("lora.lora_dropout", "t", "q_uniform", numbers=(("min", 0.0), ("max", 0.25), ("q", 0.1)))
WARMUP = Parameter("training.warmup_steps", "t", "categorical", ("0", "5"))
ALL = (RATE, RANK, DROPOUT, WARMUP)


def search_folder(results: Path, trials: int, *parameters: Parameter, goal: str = "minimize", **others: Any) -> Any:
    sweep = Sweep("mine", "bayes", parameters or ALL, Metric("validation/loss", goal), **others)
    return sweep_folder(results, trials, sweep)


def drive(folder: SweepFolder, count: int, score: Any) -> list[dict[str, Any]]:
    """Ask for trials one by one, and tell each one's score."""
    search, found = Search(folder), []
    for _ in range(count):
        for trial in search.propose(1):
            search.end(trial.number, score(trial.overrides), pruned=False)
            found.append(trial.overrides)
    return found


def test_proposals_lie_within_the_bounds_and_are_of_the_kind_that_the_key_takes(tmp_path: Path) -> None:
    found = drive(search_folder(tmp_path, 30), 30, lambda values: values["lora.r"])
    assert len(found) == 30
    assert all(1e-5 <= v["training.learning_rate"] <= 1e-2 for v in found)
    assert all(isinstance(v["lora.r"], int) and 2 <= v["lora.r"] <= 64 for v in found)
    assert {round(v["lora.lora_dropout"], 9) for v in found} <= {0.0, 0.1, 0.2}
    assert {v["training.warmup_steps"] for v in found} == {"0", "5"}


def test_the_search_learns_from_what_it_is_told(tmp_path: Path) -> None:
    def score(values: dict[str, Any]) -> float:
        return abs(math.log10(values["training.learning_rate"]) + 3)

    scores = [score(v) for v in drive(search_folder(tmp_path, 40, RATE), 40, score)]
    assert sum(scores[-15:]) / 15 < 0.5, "by chance it is 0.83"


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_goal_is_the_file_s(tmp_path: Path, goal: str) -> None:
    def score(values: dict[str, Any]) -> float:
        return float(values["lora.r"])

    ranks = [v["lora.r"] for v in drive(search_folder(tmp_path, 40, RANK, goal=goal), 40, score)]
    late = sum(ranks[-15:]) / 15
    assert late < 25 if goal == "minimize" else late > 41, "by chance it is 33"


def test_the_manifest_has_every_proposal_before_it_can_be_submitted(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 5)
    proposed = Search(folder).propose(3)
    assert folder.trials() == proposed
    assert [t.number for t in proposed] == [0, 1, 2]


def test_after_a_restart_nothing_is_proposed_again_and_what_was_open_still_is(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 12)
    first = Search(folder)
    first.propose(4)
    first.end(1, 0.5, pruned=False)
    later = Search(folder)
    assert later.open == [0, 2, 3]
    later.propose(4)
    Search(folder).propose(4)
    found = [tuple(t.overrides.values()) for t in folder.trials()]
    assert len(set(found)) == len(found) == 12


def test_no_more_is_proposed_than_the_sweep_was_to_try(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 3)
    search = Search(folder)
    assert len(search.propose(2)) == 2
    assert len(search.propose(5)) == 1
    assert search.propose(1) == []
    assert Search(folder).propose(1) == []


def test_proposals_that_a_killed_controller_did_not_write_down_come_into_the_manifest(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 8)
    Search(folder).propose(2)

    def killed(self: SweepFolder, trials: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SweepFolder, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            Search(folder).propose(3)
    assert len(folder.trials()) == 2
    search = Search(folder)
    search.recover()
    assert [t.number for t in folder.trials()] == [0, 1, 2, 3, 4] == search.open
    assert all(set(t.overrides) == {p.key for p in ALL} for t in folder.trials())
    search.recover()
    assert len(folder.trials()) == 5


def test_a_line_that_a_killed_controller_left_half_spoils_neither_itself_nor_the_next(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 4)
    Search(folder).propose(2)
    with folder.paths.manifest.open("r+b") as file:
        file.truncate(folder.paths.manifest.stat().st_size - 9)
    assert [t.number for t in folder.trials()] == [0]
    search = Search(folder)
    search.recover()
    search.propose(1)
    assert [t.number for t in folder.trials()] == [0, 1, 2]


def halving(folder: SweepFolder, losses: dict[int, float], rungs: int) -> dict[int, int]:
    """Let trials of constant losses report side by side; the validations that each one was let do."""
    search = Search(folder)
    search.propose(len(losses))
    lived = dict.fromkeys(losses, 0)
    going = list(losses)
    for step in range(1, rungs + 1):
        for number in list(going):
            lived[number] = step
            values = [(n, losses[number]) for n in range(1, step + 1)]
            if not search.is_worth(number, values):
                going.remove(number)
                search.end(number, losses[number], pruned=True)
    for number in going:
        search.end(number, losses[number], pruned=False)
    return lived


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_successive_halving_ends_the_worse_trials_and_lets_the_best_go_to_its_end(tmp_path: Path, goal: str) -> None:
    folder = search_folder(tmp_path, 8, RATE, goal=goal, early_end=EarlyEnd(1, 2))
    sign = 1 if goal == "minimize" else -1
    lived = halving(folder, {n: 5.0 + sign * n for n in range(8)}, 8)
    assert lived[0] == 8, "the best"
    assert lived[7] < 8, "the worst"
    assert sum(lived.values()) < 8 * 8 / 2


def test_without_early_termination_every_trial_goes_to_its_end(tmp_path: Path) -> None:
    lived = halving(search_folder(tmp_path, 4, RATE), {n: float(n) for n in range(4)}, 6)
    assert set(lived.values()) == {6}


def test_a_grid_that_ends_trials_early_keeps_its_order_and_its_numbers(tmp_path: Path) -> None:
    grid = short_sweep(["lora.r=1,2"], None, 42)
    sweep = Sweep("mine", "grid", grid.parameters, Metric("validation/loss"), early_end=EarlyEnd(1, 2))
    folder = sweep_folder(tmp_path, 5, sweep)
    before = folder.paths.manifest.read_bytes()
    assert Search(folder).propose(2) == folder.trials()[:2]
    assert Search(folder).propose(9) == folder.trials()[2:]
    assert folder.paths.manifest.read_bytes() == before


def test_a_failed_trial_is_told_and_does_not_stop_the_search(tmp_path: Path) -> None:
    folder = search_folder(tmp_path, 6)
    search = Search(folder)
    first, second = search.propose(2)
    search.end(first.number, None, pruned=False)
    search.end(first.number, None, pruned=False)
    assert search.open == [second.number]
    assert len(search.propose(4)) == 4
