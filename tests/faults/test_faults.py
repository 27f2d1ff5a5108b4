"""A short round of the fault lab; `make faults` plays the long one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import faults.writers
import pytest
from faults import exactly_once, report
from faults.kills import faults_in
from faults.lab import Lab, Outcome
from faults.play import plan, play_all
from faults.writers import BAD

from hpcft.runs.events import Log, read_log

TESTS = Path(__file__).parents[1]
SHORT = ("disk full, step", "damaged checkpoint, requeue")


@pytest.fixture
def lab(slurm_cluster: Any) -> Lab:
    """The lab, on a cluster that is ours to hurt."""
    if not hasattr(slurm_cluster, "pid"):
        pytest.skip("this needs a cluster that is ours to hurt")
    slurm_cluster.wait_idle()
    return Lab(slurm_cluster, Path(tempfile.mkdtemp(prefix="lab-", dir=slurm_cluster.root)))


@pytest.mark.slurm
def test_r1_what_befalls_a_job_leaves_it_equal_to_an_undisturbed_one_or_stopped_with_the_right_reason(lab: Lab) -> None:
    cases = [case for case in plan([1], SHORT) if case[2] == 1]
    outcomes = play_all(lab, cases, lanes=2)
    assert [outcome for outcome in outcomes if not outcome.right] == []
    assert {o.fault: o.result for o in outcomes} == {
        "disk full": "stopped: disk_full",
        "damaged checkpoint": "finished, equal",
    }


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.timeout(3600)
def test_r1_every_fault_once(lab: Lab) -> None:
    cases = list({case[0].name: case for case in plan([1])}.values())
    assert [outcome for outcome in play_all(lab, cases, lanes=2) if not outcome.right] == []


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("count", "rounds"), [(12, 2), pytest.param(500, 6, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_r2_failing_sbatch_and_killed_clients_lose_no_job_and_make_none_twice(
    slurm_cluster: Any, count: int, rounds: int
) -> None:
    result = exactly_once.drill(count, rate=0.5, seed=count, rounds=rounds)
    assert result.is_clean, exactly_once.document(result)
    assert result.jobs == count
    assert result.kills
    assert result.faults


@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_r3_r4_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, kills: int) -> None:
    # In a process of its own: what it forks should be small.
    out = tmp_path / "kills.json"
    words = ["--log-kills", str(kills), "--save-kills", str(kills // 2), "--damages", str(kills), "--json", str(out)]
    done = subprocess.run([sys.executable, "-m", "faults.kills", *words], cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(out.read_text())["result"]["counts"]
    assert not faults_in(counts)
    assert counts["event log"]["acknowledged"] > kills
    assert counts["save"]["cut off"]
    assert counts["damage"]["noticed"] == kills


@pytest.mark.parametrize(
    ("writers", "seconds"), [(16, 3), pytest.param(128, 120, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_r9_many_writers_of_one_results_folder_lose_nothing_and_tear_nothing(
    tmp_path: Path, writers: int, seconds: int
) -> None:
    out = tmp_path / "writers.json"
    words = ["--writers", str(writers), "--seconds", str(seconds), "--folder", str(tmp_path), "--json", str(out)]
    done = subprocess.run([sys.executable, "-m", "faults.writers", *words], cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(out.read_text())["result"]["counts"]
    assert {name: counts[name] for name in BAD} == dict.fromkeys(BAD, 0)
    assert counts["records"] > 3 * writers
    assert counts["marks"] >= writers
    assert counts["heartbeats read"]


@pytest.mark.parametrize("damage", ["lost", "torn", "twice"])
def test_what_many_writers_would_lose_is_seen(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(path: Path, offset: int = 0) -> Log:
        log = read_log(path, offset)
        if path.name == "events.jsonl":
            if damage == "torn":
                log.damaged.append(1)
            log.records = log.records[1:] if damage == "lost" else log.records
            log.records += log.records[:1] if damage == "twice" else []
        return log

    monkeypatch.setattr("faults.writers.read_log", spoiled)
    result = faults.writers.play([tmp_path], writers=2, seconds=0.2, seed=1)
    assert faults.writers.faults_in(result) == {damage: 2}


# The report


def outcome(result: str, right: bool, **other: Any) -> dict[str, Any]:
    return vars(Outcome("kill -9 of the step", "step", 1, other.pop("seed", 1), result, right, **other))


def written(page: Path, *outcomes: dict[str, Any]) -> tuple[int, str]:
    page.write_text("before\n<!-- faults -->\nold\n<!-- end -->\nafter\n")
    result = page.with_suffix(".json")
    report.save(result, "faults", list(outcomes))
    words = [sys.executable, "-m", "faults.report", "--page", str(page), str(result)]
    return subprocess.run(words, cwd=TESTS, check=False).returncode, page.read_text()


def test_the_report_stands_between_its_marks(tmp_path: Path) -> None:
    good = outcome("finished, equal", True, starts=2, lost_steps=3, seconds=20)
    code, text = written(tmp_path / "page.md", good, {**good, "seed": 2, "starts": 3})
    assert code == 0
    assert text.startswith("before\n<!-- faults -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "2 of 2 cases right, 0 not played." in text
    assert "| kill -9 of the step | step | 1 | 1, 2 | ✓ finished, equal (2) | 2 to 3 | 3 | 20 |" in text


def test_the_report_fails_when_a_case_was_wrong_and_does_not_count_what_was_not_played(tmp_path: Path) -> None:
    not_played = outcome("not played", True, seed=2, detail="no mount")
    code, text = written(tmp_path / "page.md", outcome("HANGING", False), not_played)
    assert code == 1
    assert "0 of 1 cases right, 1 not played." in text
    assert "✗ HANGING; not played: no mount" in text


def test_of_a_case_that_was_played_again_the_last_outcome_counts(tmp_path: Path) -> None:
    code, text = written(tmp_path / "page.md", outcome("HANGING", False), outcome("finished, equal", True))
    assert code == 0
    assert "1 of 1 cases right" in text


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="no marks"):
        report.put(page, "faults", "text")
