"""`hpcft ls`: which runs it shows, in which order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def runs(make_run: Call, fake_slurm: Any) -> None:
    """Finished, failed and unknown ones, two of them in a sweep."""
    make_run("old", age_s=9 * 86400, done=True, steps=3, status={"state": "finished", "step": 3, "total_steps": 3})
    make_run("bad", job_id="11", status={"state": "failed", "message": "no such file", "time": 1.0})
    make_run("gone", job_id="12", variant="qlora", model="org/Big", age_s=7200)
    make_run("sweep/0000", done=True, age_s=600, status={"state": "finished", "step": 9, "total_steps": 9, "loss": 0.5})
    make_run("sweep/0001", done=True, age_s=500, job_kind="evaluate", dataset="other.csv")


def names(result: Any) -> list[str]:
    return [row["name"] for row in json.loads(result.out)]


def test_all_runs_are_listed_newest_first_those_of_groups_too(hpcft: Call, runs: None) -> None:
    assert names(hpcft("ls", "--json")) == ["sweep/0001", "sweep/0000", "bad", "gone", "old"]
    table = hpcft("ls").out.splitlines()
    assert table[0].split()[:4] == ["run", "state", "kind", "variant"]
    assert [line.split()[0] for line in table[1:]] == ["sweep/0001", "sweep/0000", "bad", "gone", "old"]


def test_g2_a_plain_list_is_made_without_typer_and_is_the_same(hpcft: Call, runs: None) -> None:
    program = "import sys; sys.argv = ['hpcft', 'ls']; from hpcft.cli.main import main; main(); "
    program += "sys.exit(sorted({'typer', 'rich'} & set(sys.modules)) or 0)"
    plain = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == hpcft("ls", "--limit", "50").out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--state", "success"), ["sweep/0001", "sweep/0000", "old"]),
        (("--state", "failure", "--state", "unknown"), ["bad", "gone"]),
        (("--variant", "qlora"), ["gone"]),
        (("--kind", "evaluate"), ["sweep/0001"]),
        (("--model", "big"), ["gone"]),
        (("--dataset", "other"), ["sweep/0001"]),
        (("--group", "sweep"), ["sweep/0001", "sweep/0000"]),
        (("--sweep", "sweep", "--name", "*1"), ["sweep/0001"]),
        (("--since", "1d"), ["sweep/0001", "sweep/0000", "bad", "gone"]),
        (("--name", "sweep/*"), ["sweep/0001", "sweep/0000"]),
        (("--limit", "2"), ["sweep/0001", "sweep/0000"]),
        (("--sort", "name"), ["bad", "gone", "old", "sweep/0000", "sweep/0001"]),
        (("--sort", "step", "--limit", "1"), ["sweep/0000"]),
    ],
)
def test_filters(hpcft: Call, runs: None, words: tuple[str, ...], expected: list[str]) -> None:
    assert names(hpcft("ls", "--json", *words)) == expected


def test_groups_are_counted_and_trials_that_have_not_started_too(hpcft: Call, runs: None, project: Path) -> None:
    (project / "results/sweep/manifest.jsonl").write_text("{}\n{}\n{}\n")
    shown = json.loads(hpcft("ls", "--groups", "--json").out)
    assert [(row["group"], row["runs"], row["states"]) for row in shown] == [("sweep", 3, {"SUCCESS": 2})]
    assert "2 SUCCESS" in hpcft("ls", "--groups").out


def test_what_was_left_out_is_said(hpcft: Call, runs: None) -> None:
    assert "--limit 0 shows all" in hpcft("ls", "--limit", "2").err
    assert "--limit 0" not in hpcft("ls", "--limit", "0").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--state", "running"), "started"),
        (("--since", "yesterday"), "2h"),
        (("--sort", "luck"), "time"),
        (("--group", "nosuch"), "hpcft ls --groups"),
    ],
)
def test_a_filter_that_means_nothing_is_told_with_what_does(
    hpcft: Call, runs: None, words: tuple[str, ...], told: str
) -> None:
    result = hpcft("ls", *words)
    assert result.code == 2
    assert told in result.err


def test_nothing_there_is_no_error(hpcft: Call) -> None:
    result = hpcft("ls")
    assert (result.code, result.out) == (0, "")
    assert json.loads(hpcft("ls", "--json").out) == []


def test_runs_that_say_nothing_of_themselves_in_the_journal_are_read_from_their_job(
    hpcft: Call, make_run: Call, project: Path
) -> None:
    paths = make_run("before", variant="full", done=True)
    paths.client.unlink()
    assert json.loads(hpcft("ls", "--variant", "full", "--json").out)[0]["model"] == "org/tiny"


def test_a_damaged_run_spoils_no_list(hpcft: Call, runs: None, project: Path) -> None:
    (project / "results/bad/status.json").write_text("{")
    (project / "results/old/config.yaml").write_text("a: [")
    assert len(names(hpcft("ls", "--json"))) == 5


def test_one_question_to_slurm_answers_for_all_runs_and_all_calls(hpcft: Call, runs: None, fake_slurm: Any) -> None:
    for _ in range(5):
        hpcft("ls")
    assert len(fake_slurm.calls("squeue")) == 1
    assert len(fake_slurm.calls("sacct")) == 1
