"""A distilled run in the HTML report: laziness, topics and samples, as text whatever the models wrote."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from hpcft.display.tally import Sample
from hpcft.report.contents import document, gather
from hpcft.report.page import report_html
from hpcft.runs.events import encode
from hpcft.runs.run import Run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def distilled(folder: Path, name: str, count: int = 20, variant: str = "distill", rows: str = "training") -> Run:
    root = folder / name
    root.mkdir()
    (root / "config.yaml").write_text(
        yaml.safe_dump({"kind": "train", "variant": variant, "distill": {"sample_set": rows}})
    )
    (root / "metrics.json").write_text('{"train/final_loss": 1.0}')
    run = Run(root)
    run.paths.attempt(1).mkdir(parents=True)
    lines = []
    for i in range(count):
        made = Sample(
            epoch=1 + (i >= count // 2),
            batch=i,
            topic="互联网" if i % 2 else "General",
            teacher=f"teacher {i}",
            student=HOSTILE if i == 0 else f"student {i}",
            similarity=0.5,
            kl=0.1,
            laziness=80.0 - 2 * i,
            loss=float("nan") if i == 3 else 1.25,
            comment="💪 Good!",
        )
        event = {"seq": i, "t": 0.0, "kind": "distill_sample", "step": i * 5, "metrics": made.figures(), **made.facts()}
        event["metrics"]["distill/sample_loss"] = str(made.loss) if i == 3 else made.loss
        lines.append(encode(event))
    lines.append(encode({"seq": 99, "t": 0.0, "kind": "distill_sample", "step": 1, "metrics": {}}))
    run.paths.events(1).write_bytes(b"".join(lines))
    return run


def section(page: str) -> str:
    return page.partition('<section id="distillation">')[2].partition("</section>")[0]


def test_d33_laziness_topics_and_samples_are_in_the_report(tmp_path: Path) -> None:
    report = gather([distilled(tmp_path, "small")], "x")
    told = section(report_html([report.runs["small"]], "x"))
    for text in ("71.00 → 51.00", "Improvement", "20.00", "General: 10, 互联网: 10", "💪 Good!", "teacher 19"):
        assert re.search(rf">[^<]*{re.escape(text)}", told), text
    assert "<figcaption>distill/sample_laziness" in told
    assert told.index("sample_laziness") < told.index("sample_kl")
    # The first and the last sample, and some of those between.
    assert 4 < told.count("teacher ") < 20
    assert document(report)["distillation"]["small"]["total_samples"] == 20


def test_the_report_says_of_which_rows_the_samples_and_their_losses_are(tmp_path: Path) -> None:
    runs = [distilled(tmp_path, name, rows=name) for name in ("training", "validation")]
    told = section(report_html(runs, "x"))
    assert "<figcaption>distill/sample_loss (training: of the batch; validation: of the row alone)" in told
    assert "Loss (training: of the batch; validation: of the row alone)" in told
    one = section(report_html([distilled(tmp_path, "small", rows="validation")], "x"))
    assert "Loss (validation: of the row alone)" in one
    assert re.search(r">[^<]*validation\s*</td>", one)
    assert "training:" not in one
    report = gather(runs, "x")
    assert {n: d["sample_set"] for n, d in document(report)["distillation"].items()} == {
        "training": "training",
        "validation": "validation",
    }


def test_s5_what_a_model_writes_is_text(tmp_path: Path) -> None:
    page = report_html([distilled(tmp_path, "small")], "x")
    assert "<img" not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in section(page)


def test_other_runs_have_no_such_section(tmp_path: Path) -> None:
    page = report_html([distilled(tmp_path, "plain", variant="lora")], "x")
    assert 'id="distillation"' not in page
    # What they logged is still among the curves.
    assert "distill/sample_laziness" in page
