"""`hpcft drill` on this machine: a job that is signalled and killed ends like its undisturbed twin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcft.cli.twins import Attempts, compare
from hpcft.runs.events import EventLog
from hpcft.runs.run import Run

Call = Callable[..., Any]


@pytest.mark.slow
def test_a_local_job_survives_a_signal_and_a_kill(hpcft: Call) -> None:
    done = hpcft("drill", "--cluster", "local", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [(check["name"], check["ok"]) for check in told["checks"]] == [
        ("a signal", True),
        ("a kill without warning", True),
        ("each step is done and recorded once", True),
        ("the losses are those of the twin", True),
        ("the weights are those of the twin", True),
    ]
    assert told["survives"] is True
    assert told["settings"] == []
    # Nothing of it is left.
    assert list(Path("results").iterdir()) == []


def test_without_slurm_there_are_no_settings_to_read(hpcft: Call) -> None:
    done = hpcft("drill", "--cluster", "local", "--dry-run")
    assert done.code == 2
    assert "this cluster has no Slurm" in done.err
    assert not Path("results").exists()


def test_a_controller_that_does_not_answer_or_a_partition_that_is_not_there_starts_nothing(
    hpcft: Call, fake_slurm: Any
) -> None:
    done = hpcft("drill", "--cluster", "slurm", "--partition", "nope")
    assert done.code == 78
    assert "--partition: debug, gpu, low" in done.err
    fake_slurm.fault(controller="down")
    done = hpcft("drill", "--cluster", "slurm")
    assert done.code == 69
    assert fake_slurm.submissions == 0
    assert not Path("results").exists()


def test_the_settings_alone_are_read_in_a_moment_and_nothing_is_submitted(hpcft: Call, fake_slurm: Any) -> None:
    told = json.loads(hpcft("drill", "--cluster", "slurm", "--partition", "low", "--dry-run", "--json").out)
    assert (told["survives"], told["tried"], told["checks"]) == (True, False, [])
    assert {finding["level"] for finding in told["settings"]} == {"good"}
    assert fake_slurm.submissions == 0


@pytest.mark.parametrize(
    ("disturbed", "expected"),
    [
        ({1: 1.0, 2: 0.5, 3: 0.25}, (True, True)),
        ({1: 1.0, 2: 0.5}, (False, True)),
        ({1: 1.0, 2: 0.5, 3: 0.26}, (True, False)),
    ],
)
def test_a_step_that_is_missing_and_a_loss_that_differs_are_seen(
    make_run: Call, disturbed: dict[int, float], expected: tuple[bool, bool]
) -> None:
    runs = []
    for name, losses in {"calm": {1: 1.0, 2: 0.5, 3: 0.25}, "shaken": disturbed}.items():
        paths = make_run(name)
        paths.attempt(1).mkdir(parents=True)
        with EventLog(paths.events(1)) as log:
            log.append("start", resume_step=0, device="cpu")
            for step, loss in losses.items():
                log.append("step", step=step, loss=loss, seconds=0.1)
        runs.append(Run(paths.root))
    steps, losses_alike, weights = compare(*runs)
    assert (steps.ok, losses_alike.ok) == expected
    assert (weights.ok, weights.words) == (False, "there are none")
    assert Attempts(runs[1]).steps(1) == max(disturbed)
