"""`hpcft pareto` over run directories: the front, who is left out and why, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Call = Callable[..., Any]
F1, LATENCY = "final/validation_f1_score", "inference/avg_latency_ms_per_sample"
PUBLISHED = {"base": ("full", 393.1, 29.9), "adapter": ("lora", 636.2, 28.6), "small": ("qlora", 238.0, 27.4)}


def write_run(
    name: str, variant: str, metrics: dict[str, Any] | None, *, hardware: str = "h100", dataset: str = "e2e.csv"
) -> Path:
    folder = Path("results") / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"variant": variant, "data": {"dataset": dataset}}))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "benchmark.json").write_text(json.dumps({"fingerprint": {"id": hardware}}))
    return folder


@pytest.fixture
def published(project: Path) -> None:
    for name, (variant, latency, f1) in PUBLISHED.items():
        write_run(name, variant, {F1: f1, LATENCY: latency})


def shown(hpcft: Call, *arguments: str) -> dict[str, Any]:
    result = hpcft("pareto", *arguments, "--json")
    assert result.code == 0, result.err
    document: dict[str, Any] = json.loads(result.out)
    return document


@pytest.mark.usefixtures("published")
def test_te1_base_and_qlora_are_the_front(hpcft: Call) -> None:
    result = hpcft("pareto")
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert rows["run"].split("  ")[0] == "run"
    assert rows["small"].endswith("front")
    assert rows["base"].endswith("front")
    assert rows["adapter"].endswith("dominated by base")
    assert "Full LoRA" in rows["adapter"]
    document = shown(hpcft)
    assert [(p["name"], p["front"], p["dominated_by"]) for p in document["points"]] == [
        ("base", True, None),
        ("small", True, None),
        ("adapter", False, "base"),
    ]
    assert document["measures"] == [{"key": F1, "better": "more"}, {"key": LATENCY, "better": "less"}]


@pytest.mark.usefixtures("published")
def test_runs_that_are_named_are_compared_alone_and_once(hpcft: Call) -> None:
    document = shown(hpcft, "adapter", "small", "results/adapter")
    assert {p["name"] for p in document["points"]} == {"adapter", "small"}
    assert hpcft("pareto", "nothing").code == 2


@pytest.mark.usefixtures("published")
def test_u7_runs_that_are_left_out_are_named_with_the_reason(hpcft: Call) -> None:
    write_run("waiting", "lora", None)
    write_run("no-bench", "lora", {F1: 0.3})
    write_run("diverged", "lora", {F1: "nan", LATENCY: 3.0})
    write_run("broken", "lora", {F1: 0.3}).joinpath("metrics.json").write_text("{")
    result = hpcft("pareto")
    assert "no metrics yet: waiting" in result.err
    assert f"no {LATENCY}: no-bench" in result.err
    assert f"{F1} is nan: diverged" in result.err
    assert "not readable as JSON" in result.err
    assert set(shown(hpcft)["left_out"]) == {"waiting", "no-bench", "diverged", "broken"}


def test_no_run_is_nothing_to_show_and_no_failure(hpcft: Call, project: Path) -> None:
    result = hpcft("pareto", "--out", "picture")
    assert result.code == 0
    assert (result.out, F1 in result.err) == ("", True)
    assert not Path("picture").exists()


@pytest.mark.usefixtures("published")
def test_te13_means_over_seeds_take_scores_and_costs_from_different_runs(hpcft: Call) -> None:
    write_run("small-2", "qlora", {F1: 29.4})
    document = shown(hpcft, "--by-variant", "--baseline", "full")
    (qlora,) = [p for p in document["points"] if p["name"] == "QLoRA"]
    assert qlora["values"] == {F1: pytest.approx(28.4), LATENCY: 238.0}
    assert qlora["n"] == {F1: 2, LATENCY: 1}
    assert list(qlora["std"]) == [F1]
    assert qlora["runs"] == ["small", "small-2"]
    assert document["baseline"] == "Full FT"
    assert qlora["ratio_to_baseline"] == {F1: pytest.approx(28.4 / 29.9), LATENCY: pytest.approx(393.1 / 238)}


@pytest.mark.usefixtures("published")
def test_e27_retention_and_gain_stand_in_the_table(hpcft: Call) -> None:
    lines = hpcft("pareto", "--baseline", "base").out.splitlines()
    assert "f1 retention" in lines[0]
    assert "latency gain" in lines[0]
    (small,) = [line for line in lines if line.startswith("small")]
    assert "91.6 %" in small
    assert "1.65x" in small


@pytest.mark.usefixtures("published")
def test_a_baseline_is_one_of_the_compared(hpcft: Call) -> None:
    write_run("no-bench", "lora", {F1: 0.3})
    write_run("adapter-2", "lora", {F1: 1.0, LATENCY: 1.0})
    assert shown(hpcft, "--baseline", "qlora")["baseline"] == "small"
    for name, told in {"nobody": "none of the", "no-bench": f"no {LATENCY}", "lora": "fits 2 runs"}.items():
        result = hpcft("pareto", "--baseline", name)
        assert result.code == 2
        assert told in result.err


@pytest.mark.usefixtures("published")
def test_mixed_hardware_and_data_are_refused_and_can_be_allowed(hpcft: Call) -> None:
    write_run("elsewhere", "lora", {F1: 1.0, LATENCY: 1.0}, hardware="a100")
    result = hpcft("pareto")
    assert result.code == 2
    assert "a100 (elsewhere), h100" in result.err
    assert "--mix-hardware" in result.err
    assert hpcft("pareto", "--mix-hardware").code == 0
    write_run("other-data", "lora", {F1: 1.0, LATENCY: 1.0}, dataset="samsum.csv")
    result = hpcft("pareto", "--mix-hardware")
    assert result.code == 2
    assert "e2e" in result.err
    assert "samsum (other-data)" in result.err
    assert hpcft("pareto", "--mix-hardware", "--mix-datasets").code == 0


@pytest.mark.usefixtures("published")
def test_a_run_that_is_left_out_anyway_does_not_refuse_the_others(hpcft: Call) -> None:
    write_run("no-bench", "lora", {F1: 1.0}, dataset="samsum.csv")
    assert hpcft("pareto").code == 0


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("measures", "told"),
    [(["f1"], "2 to 6"), (["f1", "f1"], "stands twice"), (["f1", "latncy"], "did you mean latency?")],
)
def test_a_wrong_choice_of_measures_says_what_would_be_right(hpcft: Call, measures: list[str], told: str) -> None:
    result = hpcft("pareto", *(word for m in measures for word in ("--measure", m)))
    assert result.code == 2
    assert told in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("published")
def test_u7_page_picture_and_json_show_the_same_points(hpcft: Call) -> None:
    result = hpcft("pareto", "--out", "picture", "--json")
    document = json.loads(result.out)
    assert json.loads(Path("picture/pareto.json").read_text()) == document
    page = Path("picture/pareto.html").read_text()
    for point in document["points"]:
        assert f'<th scope="row">{point["name"]}</th>' in page
    assert Path("picture/pareto.png").read_bytes().startswith(b"\x89PNG")
    assert Path("picture/pareto.html").stat().st_mode & 0o077 == 0
    assert Path("picture/pareto.png").stat().st_mode & 0o077 == 0


def test_s5_a_hostile_name_of_a_run_is_text_in_page_and_terminal(hpcft: Call, project: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\x1b[31m"
    write_run(name, "lora", {F1: 1.0, LATENCY: 1.0})
    result = hpcft("pareto", "--out", "picture")
    assert "\x1b" not in result.out
    page = Path("picture/pareto.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;" in page
    assert json.loads(hpcft("pareto", "--json").out)["points"][0]["name"] == name


@pytest.mark.usefixtures("published")
def test_the_hypervolume_is_that_of_the_front_s_steps(hpcft: Call) -> None:
    """Two rectangles: what base covers, and what small adds in front of it."""
    words = ["--reference", "f1=20", "--reference", "latency=500"]
    expected = (29.9 - 20) * (500 - 393.1) + (27.4 - 20) * (393.1 - 238.0)
    assert shown(hpcft, *words)["hypervolume"] == pytest.approx(expected)
    assert shown(hpcft)["hypervolume"] is None
    for wrong in (["--reference", "f1=20"], ["--reference", "f1=x", "--reference", "latency=5"]):
        assert hpcft("pareto", *wrong).code == 2
