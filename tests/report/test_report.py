"""A report is one file: complete, safe to open, and true to what the runs logged (TE11, E26 to E29)."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.errors import UsageError
from hpcft.report.contents import document, gather
from hpcft.report.curves import thin
from hpcft.report.page import report_html
from hpcft.runs.events import encode
from hpcft.runs.run import Run

Make = Callable[..., Run]
F1, LATENCY, SIZE = (
    "final/validation_f1_score",
    "inference/avg_latency_ms_per_sample",
    "inference/model_size_gb",
)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ data }}"


class Page(HTMLParser):
    """The elements of a page, the texts between them, and the rows of its tables by section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.code: dict[str, str] = {}
        self.section = self.inside = ""
        self.cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.inside = tag
        if tag == "section":
            self.section = attributes["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        if tag in ("td", "th") and self.cell is not None:
            self.rows[self.section][-1].append(" ".join(self.cell))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.inside in ("script", "style"):
            self.code[self.inside] = self.code.get(self.inside, "") + data
        elif data.strip():
            self.texts.append(data.strip())
            if self.cell is not None:
                self.cell.append(data.strip())

    def row(self, section: str, name: str) -> list[str]:
        (found,) = [row for row in self.rows[section] if row and row[0].split(" with ")[0] == name]
        return found


@pytest.fixture
def trained(make_run: Make) -> Callable[..., Run]:
    """A finished training with a log, scores and a benchmark."""

    def make(
        name: str,
        f1: float = 0.5,
        latency: float = 100.0,
        *,
        variant: str = "lora",
        losses: list[Any] | None = None,
        config: dict[str, Any] | None = None,
        machine: str = "h200",
    ) -> Run:
        run = make_run(
            name,
            {"kind": "train", "variant": variant, "data": {"dataset": "e2e.csv"}, **(config or {})},
            metrics={F1: f1, LATENCY: latency, SIZE: 2.0, "train/peak_vram_gb": 7.5, "train/steps": 60},
            evaluation_results={"rougeL": f1, "intervals": {"rougeL": [f1 - 0.1, f1 + 0.1]}},
            benchmark={
                "fingerprint": {"id": machine, "gpu": "NVIDIA H200", "versions": {"torch": "2.15.0"}},
                "settings": {"dtype": "bfloat16"},
                "real": {
                    "latency_ms": {
                        "n": 3,
                        "mean": latency,
                        "p50": 99.0,
                        "p95": 120.5,
                        "p99": 130.25,
                        "ci95": [90, 110],
                    },
                    "queries": [{"latency_ms": latency + i} for i in (-5, 0, 5)],
                },
                "synthetic": [{"batch": 8, "prompt_tokens_each": 128, "latency_ms": {"p50": 300.0}}],
                "troubles": ["other processes on the GPU"],
            },
            provenance={
                "submitted": "2026-01-02T03:04:05+0000",
                "git_commit": "a" * 40,
                "versions": {"torch": "2.15.0"},
            },
            done={},
        )
        log(run, losses or [3.0, 2.0, 1.0])
        return run

    return make


def log(run: Run, losses: list[Any]) -> None:
    lines = [
        encode({"seq": i, "t": 0.0, "kind": "step", "step": i, "loss": v, "epoch": 0.1}) for i, v in enumerate(losses)
    ]
    lines.append(encode({"seq": 9, "t": 0.0, "kind": "validation", "step": 2, "metrics": {"validation/loss": 0.75}}))
    folder = run.paths.attempt(1)
    folder.mkdir(parents=True)
    run.paths.events(1).write_bytes(b"".join(lines))


def heights(path: str) -> list[int]:
    """The y of each corner of a path of relative lines."""
    start, _, rest = path.removeprefix("M").partition("l")
    numbers = [int(n) for n in re.findall(r"-?\d+", start + " " + rest)]
    found = [numbers[1]]
    for down in numbers[3::2]:
        found.append(found[-1] + down)
    return found


def test_e27_the_table_is_grouped_with_means_retention_and_gain(trained: Make) -> None:
    runs = [trained("base", 0.5, 100.0, variant="full"), trained("a", 0.4, 50.0), trained("b", 0.2, 40.0)]
    page = Page(report_html(runs, "Three", baseline="base"))
    head = page.rows["comparison"][0]
    assert head[:3] == ["Model", "F1 score more is better", "Latency (ms a sample) less is better"]
    assert page.row("comparison", "a")[1:3] == ["0.4 0.3 to 0.5 80.0 % kept", "50 2.00× gain"]
    group = page.row("comparison", "Full LoRA")
    assert group[1].startswith("0.3 ± 0.14 (n 2)")
    assert [row[0] for row in page.rows["comparison"][1:]] == ["Full FT", "base", "Full LoRA", "a", "b"]


def test_te1_the_published_front_stands_in_a_sentence_and_in_the_table(trained: Make) -> None:
    published = {"full": (29.9, 393.1), "lora": (28.6, 636.2), "qlora": (27.4, 238.0)}
    runs = [trained(f"the-{name}", f1, latency, variant=name) for name, (f1, latency) in published.items()]
    page = Page(report_html(runs, "Study"))
    sentence = (
        "On the front of F1 score and Latency (ms a sample): the-full, the-qlora. Dominated: the-lora (by the-full)."
    )
    assert sentence in page.texts
    assert page.row("comparison", "the-lora")[-1] == "dominated by the-full"
    assert page.row("comparison", "the-qlora")[-1] == "on the front"
    marks = [
        attributes
        for tag, attributes in page.elements
        if tag == "polygon" and "point" in (attributes.get("class") or "")
    ]
    assert [m["class"] for m in marks[:3]] == ["point", "point", "point hollow"]


def test_figures_of_different_machines_make_no_front_and_it_is_said(trained: Make) -> None:
    page = Page(report_html([trained("a"), trained("b", machine="a100")], "x"))
    assert "pareto" not in page.rows
    assert any("measured on different hardware" in text for text in page.texts)


def test_te11_the_page_asks_no_network_for_anything(trained: Make) -> None:
    text = report_html([trained("a"), trained("b", 0.6)], "x")
    page = Page(text)
    links = [a.get("src") or a.get("href") for _, a in page.elements if "src" in a or "href" in a]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert {str(link)[1:] for link in links} <= ids
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", text)
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "img", "object", "embed", "base", "form"})
    assert not [a for _, a in page.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_s5_only_our_script_and_style_may_run(trained: Make) -> None:
    page = Page(report_html([trained("a")], "x"))
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for kind, code in page.code.items():
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_s5_a_hostile_word_is_text_wherever_it_stands(trained: Make, make_run: Make) -> None:
    config = {
        "tracking": {"tags": [HOSTILE], "notes": HOSTILE},
        "data": {"dataset": HOSTILE},
        HOSTILE: {HOSTILE: HOSTILE},
    }
    runs = [trained("b"), trained("<img src=x onerror=alert(2)>", config=config)]
    text = report_html([*runs, make_run(HOSTILE.replace("/", "|"), {"variant": HOSTILE})], HOSTILE)
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert "img" not in tags
    assert tags.count("script") == 1
    assert page.texts.count(HOSTILE) >= 3
    assert HOSTILE.replace("/", "|") in page.texts


def test_every_run_is_named_and_cjk_stays(trained: Make, make_run: Make) -> None:
    runs = [trained("各方法的比較"), trained("미세조정", 0.6), make_run("待機中", {"kind": "train", "variant": "lora"})]
    text = report_html(runs, "報告", lang="zh-TW")
    page = Page(text)
    assert {"各方法的比較", "미세조정", "待機中", "報告"} <= set(page.texts)
    assert "no figures yet: 待機中" in page.texts
    assert any(a.get("lang") == "zh-TW" for tag, a in page.elements if tag == "bdi")
    assert "Noto Sans CJK" in page.code["style"]


def test_secrets_are_not_in_it(trained: Make) -> None:
    config = {
        "tracking": {"notes": "WANDB_API_KEY=0123secret", "tags": ["password: hunter2"]},
        "data": {"dataset": "https://me:hunter3@host/set.csv"},
        "api_key": "hunter4",
        "evaluation": {"max_new_tokens": 64},
    }
    text = report_html([trained("a", config=config)], "x")
    assert not re.search(r"0123secret|hunter\d", text)
    assert Page(text).row("configs", "evaluation.max_new_tokens") == ["evaluation.max_new_tokens", "64"]


def test_only_keys_that_differ_are_told(trained: Make) -> None:
    runs = [
        trained(name, config={"name": name, "training": {"seed": 1, "learning_rate": rate}})
        for name, rate in (("a", 1e-3), ("b", 2e-3))
    ]
    rows = Page(report_html(runs, "x")).rows["configs"]
    assert rows == [["Key", "a", "b"], ["train: training.learning_rate", "0.001", "0.002"]]


def test_of_a_single_run_the_whole_configuration_is_told(trained: Make) -> None:
    page = Page(report_html([trained("a", config={"lora": {"r": 16}})], "x"))
    assert page.row("configs", "lora.r") == ["lora.r", "16"]
    assert "pareto" not in page.rows


def test_latency_and_environment_are_told(trained: Make) -> None:
    page = Page(report_html([trained("a"), trained("b")], "x"))
    rows = [row for row in page.rows["latency"] if row[0] == "a"]
    assert rows[0] == ["a", "3", "100", "90 to 110", "99", "120.5", "130.25", "–"]
    assert rows[1] == ["a", "8", "128", "300", "–"]
    assert page.row("environment", "measured on: gpu")[1] == "NVIDIA H200"
    assert page.row("environment", "git commit")[1] == "a" * 40
    assert page.row("costs", "peak GPU memory, a rank")[1:] == ["7.50 GB", "7.50 GB"]
    assert "a: other processes on the GPU" in page.texts


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_ends_extremes_and_order(values: list[float], most: int) -> None:
    points = [(float(i), v) for i, v in enumerate(values)]
    kept = thin(points, most)
    assert len(kept) <= max(most, 4)
    assert kept == sorted(kept)
    assert {points[0], points[-1]} <= set(kept) <= set(points)
    assert min(v for _, v in kept) == min(values)
    assert max(v for _, v in kept) == max(values)


def test_e29_curves_are_complete_spikes_and_all(trained: Make) -> None:
    losses: list[Any] = [1.0 + math.sin(i) / 10 for i in range(5000)]
    losses[3333], losses[1234], losses[77] = 9.0, -4.0, "nan"
    page = Page(report_html([trained("a", losses=losses), trained("b")], "x"))
    (row,) = [row for row in page.rows["curves"] if row[0] == "a" and "5,000" in row[-1]]
    assert row == ["a", "1", "-4", "9", f"{losses[-1]:.5g}", "4999", "5,000, 1 of them not finite"]
    drawn = [str(a["d"]) for tag, a in page.elements if tag == "path" and "data-line" in a]
    ys = heights(drawn[0])
    assert len(ys) <= 500
    # The axis has 5 % of room at both ends.
    assert (min(ys), max(ys)) == (round(1000 * 0.05 / 1.1), round(1000 * 1.05 / 1.1))


def test_every_logged_metric_has_its_figure(trained: Make) -> None:
    page = Page(report_html([trained("a")], "x"))
    assert {"train/loss", "validation/loss"} <= set(page.texts)
    assert "train/epoch" not in page.texts


def test_fifty_runs_of_ten_thousand_steps_stay_small(trained: Make, make_run: Make) -> None:
    first = trained("run-0")
    record = {"loss": 1.5, "learning_rate": 1e-4, "grad_norm": 0.5, "seconds": 0.1, "tokens": 4096}
    lines = []
    for i in range(10_000):
        moved = {key: value * (1 + math.sin(i * 7.7 + len(key))) for key, value in record.items()}
        lines.append(encode({"seq": i, "t": 0.0, "kind": "step", "step": i, **moved}))
    log_bytes = b"".join(lines)
    first.paths.events(1).write_bytes(log_bytes)
    runs = [first]
    for number in range(1, 50):
        run = make_run(f"run-{number}", {"kind": "train", "variant": "lora"}, metrics={F1: number, LATENCY: number})
        run.paths.attempt(1).mkdir(parents=True)
        run.paths.events(1).hardlink_to(first.paths.events(1))
        runs.append(run)
    text = report_html(runs, "sweep")
    assert len(text.encode()) < 1_500_000
    assert text.count('data-line="49"') >= 2


def test_a_damaged_run_is_named_and_hides_no_other(trained: Make) -> None:
    good, bad, worse = trained("good"), trained("bad"), trained("worse")
    bad.paths.metrics.write_text("{")
    worse.paths.provenance.write_text("{")
    page = Page(report_html([good, bad, worse], "x"))
    assert page.row("comparison", "good")
    assert sum(text.startswith(("left out: bad", "left out: worse")) for text in page.texts) == 2


def test_a_baseline_is_one_of_the_rows(trained: Make) -> None:
    runs = [trained("a"), trained("b", variant="full")]
    assert gather(runs, "x", "full").baseline == gather(runs, "x", "b").baseline
    for name in ("nobody", "qlora"):
        with pytest.raises(UsageError, match="none of the rows"):
            gather(runs, "x", name)


def test_the_report_as_data_is_json(trained: Make) -> None:
    found = document(gather([trained("a"), trained("b", float("nan"))], "x"))
    assert json.loads(json.dumps(found, allow_nan=False))["models"][1]["values"][F1] == "nan"
    assert found["curves"]["train/loss"]["a"]["highest"] == [0.0, 3.0]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_javascript(trained: Make, tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text(Page(report_html([trained("a")], "x")).code["script"])
    subprocess.run(["node", "--check", str(tmp_path / "page.js")], check=True, timeout=30)
