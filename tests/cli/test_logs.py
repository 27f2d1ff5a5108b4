"""`hpcft logs`: all of it, one rank, all ranks, a past attempt, and what comes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def paths(make_run: Call, fake_slurm: Any) -> Any:
    """A run with two attempts, the second of two ranks."""
    made = make_run("mine", job_id="1", status={"state": "training", "attempt": 2})
    for attempt, rank, second, text in ((1, 0, 0, "first"), (2, 0, 1, "zero"), (2, 1, 0, "one")):
        made.attempt(attempt).mkdir(parents=True, exist_ok=True)
        made.rank_log(attempt, rank).write_text(f"2026-01-01 10:00:0{second},000 - INFO - {text}\n  more\n")
    made.batch_log.write_text("".join(f"line {n}\n" for n in range(5000)))
    return made


def test_the_end_of_what_the_job_printed(hpcft: Call, paths: Any) -> None:
    assert hpcft("logs", "mine").out.splitlines() == [f"line {n}" for n in range(4900, 5000)]
    assert hpcft("logs", "mine", "-n", "2").out == "line 4998\nline 4999\n"
    assert len(hpcft("logs", "mine", "-n", "0").out.splitlines()) == 5000


def test_c29_without_a_name_the_newest_run_is_meant(hpcft: Call, paths: Any, make_run: Call) -> None:
    newest = make_run("newest", age_s=10)
    newest.batch_log.write_text("the newest words\n")
    answer = hpcft("logs")
    assert (answer.code, answer.out) == (0, "the newest words\n")
    assert "the newest run: newest" in answer.err


def test_no_run_at_all_is_told(hpcft: Call) -> None:
    answer = hpcft("logs")
    assert answer.code == 2
    assert "there is no run in results yet" in answer.err


def test_it_is_said_on_stderr_that_lines_are_left_out(hpcft: Call, paths: Any) -> None:
    said = "earlier lines are left out; all of them: -n 0\n"
    assert said in hpcft("logs", "mine").err
    assert said in hpcft("logs", "mine", "-n", "4999").err
    assert said in hpcft("logs", "mine", "--all-ranks", "-n", "1").err
    assert "left out" not in hpcft("logs", "mine", "-n", "0").err
    assert "left out" not in hpcft("logs", "mine", "-n", "5000").err
    paths.batch_log.write_text("".join(f"line {n} {'x' * 90}\n" for n in range(5000)))
    assert said in hpcft("logs", "mine").err, "of blocks that are not shown too"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "| ?? #-   |\n"), ("utf-8", "│ 汉 █░ 🎓│\n")])
def test_a_terminal_without_utf8_shows_a_distillations_boxes_all_the_same(
    paths: Any, encoding: str, shown: str
) -> None:
    paths.batch_log.write_text("│ 汉 █░ 🎓│\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hpcft.cli.main", "logs", str(paths.root)],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode(encoding) == shown


def test_one_rank_a_past_attempt_and_all_ranks_in_the_order_of_their_times(hpcft: Call, paths: Any) -> None:
    assert "one" in hpcft("logs", "mine", "--rank", "1").out
    assert "first" in hpcft("logs", "mine", "--attempt", "1").out
    lines = hpcft("logs", "mine", "--all-ranks").out.splitlines()
    assert [line.partition("]")[0] for line in lines] == ["[rank 1", "[rank 1", "[rank 0", "[rank 0"]
    assert lines[1].endswith("  more")


def test_what_is_not_there_is_told_with_what_is(hpcft: Call, paths: Any) -> None:
    assert "attempts: 1, 2" in hpcft("logs", "mine", "--attempt", "7").err
    assert "ranks: 0, 1" in hpcft("logs", "mine", "--rank", "7").err
    assert hpcft("logs", "mine", "--rank", "1", "--all-ranks").code == 2


def test_a_past_attempt_is_not_followed(hpcft: Call, paths: Any) -> None:
    answer = hpcft("logs", "mine", "-f", "--attempt", "1")
    assert answer.code == 2
    assert "-f and --attempt exclude each other" in answer.err


def test_no_output_yet_is_said_with_the_reason(hpcft: Call, make_run: Call, fake_slurm: Any) -> None:
    make_run("young", job_id="9", age_s=5)
    result = hpcft("logs", "young")
    assert (result.code, result.out) == (0, "")
    assert "PENDING" in result.err


def test_following_ends_with_the_run_and_prints_its_last_words(hpcft: Call, paths: Any) -> None:
    def go_on() -> None:
        time.sleep(0.3)
        with paths.batch_log.open("a") as log:
            log.write("new line\nlast words")
        time.sleep(0.2)
        paths.done.write_text("{}")

    writer = threading.Thread(target=go_on)
    writer.start()
    result = hpcft("logs", "mine", "-f", "-n", "1")
    writer.join()
    assert result.out == "line 4999\nnew line\nlast words\n"
    assert "SUCCESS" in result.err


def test_a_terminal_is_not_obeyed_what_a_log_says(hpcft: Call, paths: Any) -> None:
    paths.batch_log.write_text("a\x1b[31mb\n10%\r20%\r\n")
    assert hpcft("logs", "mine").out == "a?[31mb\n20%\n"


def test_a_progress_bar_of_hours_is_read_in_a_time_that_grows_as_its_length(hpcft: Call, paths: Any) -> None:
    paths.batch_log.write_bytes(b"before\n" + b"a step of the bar\r" * 3_000_000 + b"100%\n")
    begin = time.process_time()
    assert hpcft("logs", "mine", "-n", "1").out == "100%\n"
    # With a copy and a count of all that was read for each block it took ten times as long.
    assert time.process_time() - begin < 4


def test_following_a_run_that_is_lost_ends(hpcft: Call, make_run: Call, fake_slurm: Any, monkeypatch: Any) -> None:
    make_run("lost", job_id="77", steps=5, status={"state": "training", "step": 5, "total_steps": 9, "time": 1.0})
    monkeypatch.setattr("hpcft.cli.follow._LOST_S", 0.3)
    assert "lost: UNKNOWN" in hpcft("logs", "lost", "-f").err
