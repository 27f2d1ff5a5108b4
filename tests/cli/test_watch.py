"""`hpcft watch`: once, as lines, and as the table that a terminal gets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcft.runs.files import write_json

Call = Callable[..., Any]


@pytest.fixture
def going(make_run: Call, fake_slurm: Any) -> Any:
    """One that trains, one that has finished."""
    make_run("over", done=True)
    return make_run(
        "going",
        job_id="1",
        steps=8,
        status={"state": "training", "step": 8, "total_steps": 20, "loss": 0.25, "peak_vram_gb": 11.5},
    )


def test_once_shows_what_waits_or_runs_with_rate_time_left_and_gpu_memory(hpcft: Call, going: Any) -> None:
    head, row = hpcft("watch", "--once").out.splitlines()
    assert head.split() == ["run", "state", "what", "step", "loss", "rate", "left", "ends", "by", "GPU", "memory"]
    assert row.split("  ")[0] == "going"
    for text in ("STARTED", "training", "8/20", "0.2500", "2 steps/s, 200 tokens/s", "6 s", "11.5 GB"):
        assert text in row
    shown = json.loads(hpcft("watch", "--once", "--json").out)
    assert [(row["name"], row["peak_vram_gb"]) for row in shown] == [("going", 11.5)]


def test_a_figure_that_does_not_exist_is_absent(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    make_run("young", job_id="1", status={"state": "starting", "message": "loading the model"})
    row = json.loads(hpcft("watch", "--once", "--json").out)[0]
    assert {row[key] for key in ("peak_vram_gb", "step", "loss", "steps_per_s", "left_s")} == {None}


def test_the_ones_that_are_named_are_shown_whatever_their_state(hpcft: Call, going: Any) -> None:
    assert "SUCCESS" in hpcft("watch", "--once", "over").out
    assert hpcft("watch", "over").out == "over: SUCCESS, finished\n"


def test_elsewhere_than_on_a_terminal_each_change_is_a_line_and_the_end_ends_it(hpcft: Call, going: Any) -> None:
    def finish() -> None:
        time.sleep(0.5)
        going.done.write_text("{}")

    writer = threading.Thread(target=finish)
    writer.start()
    lines = hpcft("watch", "--interval", "0.5").out.splitlines()
    writer.join()
    assert [line.split(",")[0] for line in lines] == ["going: STARTED", "going: SUCCESS"]


def test_on_a_terminal_columns_that_nobody_fills_are_left_out(going: Any, project: Path) -> None:
    from rich.console import Console

    from hpcft.cli.watch import _drawn, _Watched
    from hpcft.cluster.poll import Poll

    poll, results = Poll(), Path("results")
    table = _drawn(_Watched([], results).look(poll), poll, results)
    titles = [str(column.header) for column in table.columns]
    assert "GPU memory" in titles
    assert "ends by" not in titles
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    assert "2 steps/s" in console.export_text()


def test_nothing_to_watch_is_said(hpcft: Call, make_run: Call) -> None:
    make_run("over", done=True)
    result = hpcft("watch", "--once")
    assert (result.code, result.out) == (0, "")
    assert "nothing waits or runs" in result.err


def test_a_run_that_is_lost_ends_the_watching(
    hpcft: Call, make_run: Call, fake_slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("lost", job_id="77", steps=5, status={"state": "training", "step": 5, "total_steps": 9, "time": 1.0})
    monkeypatch.setattr("hpcft.cli.follow._LOST_S", 0.3)
    result = hpcft("watch", "lost", "--interval", "0.5")
    assert result.code == 0
    assert [line.split(",")[0] for line in result.out.splitlines()] == ["lost: UNKNOWN"]


@pytest.mark.parametrize("named", [[], ["again", "going"]])
def test_a_run_that_is_resumed_while_it_is_watched_is_shown_again(
    hpcft: Call, going: Any, make_run: Call, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcft.cli.watch._RESCAN_S", 0.2)
    paths = make_run("again", job_id="2", status={"state": "failed", "message": "out of memory"})

    def resume() -> None:
        time.sleep(1.0)
        write_json(paths.status, {"attempt": 2, "time": time.time(), "state": "training", "step": 1, "total_steps": 2})
        time.sleep(1.5)
        for run in (paths, going):
            run.done.write_text("{}")

    writer = threading.Thread(target=resume)
    writer.start()
    lines = hpcft("watch", *named, "--interval", "0.5").out.splitlines()
    writer.join()
    states = [line.split(",")[0] for line in lines if line.startswith("again")]
    assert states == [*(["again: FAILURE"] if named else []), "again: STARTED", "again: SUCCESS"]
