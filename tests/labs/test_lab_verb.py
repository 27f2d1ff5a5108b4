"""`hpcft lab METHOD`: its jobs, its pictures, and what it says of deployment."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.errors import ConfigError
from hpcft.models.adapter import adapter_config
from hpcft.models.merge import check_mergeable
from hpcft.report.figures import history
from hpcft.spec.job import Job
from hpcft.spec.labs import LABS, find_lab, lab_pipeline

Call = Callable[..., Any]
MERGES = ["lora", "ia3"]


def stages(answer: Any) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in json.loads(answer.out)["stages"]}


@pytest.fixture
def cached(small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("method", LABS)
def test_a32_to_a35_a_lab_trains_scores_measures_and_merges_what_merges(hpcft: Call, method: str) -> None:
    found = stages(hpcft("lab", method, "--cluster", "local", "--dry-run", "--json"))
    kinds = {name: stage["kind"] for name, stage in found.items()}
    assert list(found)[-1] == "pictures"
    assert (kinds["base"], kinds["train"], kinds["scores"]) == ("bench", "train", "evaluate")
    assert (kinds["bench"], kinds["pictures"]) == ("bench", "lab")
    assert ("merged" in kinds) is (method in MERGES)
    assert ("second" in kinds) is (method == "adapter")
    assert ("lora" in kinds) is (method == "ia3")
    assert set(found["pictures"]["of"]) == set(found) - {"pictures"}


@pytest.mark.usefixtures("cached")
def test_on_slurm_all_jobs_are_queued_at_once_and_the_pictures_wait_for_all(hpcft: Call, fake_slurm: Any) -> None:
    answer = hpcft("lab", "adapter", "--cluster", "slurm", "--json", "--second-task", "quickstart", "--max-steps", "3")
    assert answer.code == 0, answer.err
    found = stages(answer)
    script = fake_slurm.job(found["pictures"]["job_id"])["script"]
    (line,) = [line for line in script.splitlines() if "--dependency" in line]
    waits_for = set(line.partition("afterok:")[2].split(":"))
    assert waits_for == {stage["job_id"] for name, stage in found.items() if name != "pictures"}
    job = yaml.safe_load((Path(found["second"]["directory"]) / "config.yaml").read_text())
    assert (job["data"]["dataset"], job["training"]["max_steps"]) == ("quickstart", 3)
    assert "cannot be merged" in answer.err


@pytest.mark.usefixtures("cached")
def test_ones_own_data_is_the_first_task_s_and_not_the_second_s(hpcft: Call, project: Path, fake_slurm: Any) -> None:
    (project / "pairs.csv").write_text("source,target\n" + "".join(f"q{n},a{n}\n" for n in range(9)))
    answer = hpcft("lab", "adapter", "--cluster", "slurm", "--json", "--dataset", "pairs.csv")
    assert answer.code == 0, answer.err
    sets = {
        name: yaml.safe_load((Path(stage["directory"]) / "config.yaml").read_text())["data"]["dataset"]
        for name, stage in stages(answer).items()
    }
    own = str(project / "pairs.csv")
    assert (sets["base"], sets["train"], sets["scores"], sets["second"]) == (own, own, own, "quickstart-notices")


def test_the_list_of_labs(hpcft: Call) -> None:
    shown = hpcft("lab", "--list").out
    assert all(f"{lab.number:02d} {lab.title}" in shown for lab in LABS.values())
    rows = json.loads(hpcft("lab", "--list", "--json").out)
    assert [row["method"] for row in rows] == list(LABS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lorra"], "did you mean 'lora'?"),
        ([], "no method is named"),
        (["ia3", "--second-task", "x.csv"], "hpcft lab adapter"),
    ],
)
def test_a_wrong_method_is_told_with_those_there_are(hpcft: Call, words: list[str], said: str) -> None:
    answer = hpcft("lab", *words, "--cluster", "local", "--dry-run")
    assert answer.code in (2, 78)
    assert said in answer.err


def test_what_the_labs_say_of_merging_is_what_merge_does(tiny_model: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny_model)
    for lab in LABS.values():
        job = Job.model_validate({"variant": lab.method, "model": {"name": str(tiny_model)}})
        kind = adapter_config(job, config).peft_type
        kind = str(getattr(kind, "value", kind))
        if lab.merges or lab.method == "bitfit":
            check_mergeable(kind)
        else:
            assert "cannot be merged" in lab.deploy
            with pytest.raises(ConfigError):
                check_mergeable(kind)


def test_find_lab_and_its_pipeline_are_one_table() -> None:
    for lab in LABS.values():
        assert find_lab(lab.method) is lab
        assert [stage.name for stage in lab_pipeline(lab).stages][:2] == ["base", "train"]


@pytest.mark.usefixtures("forked_jobs")
def test_a34_a39_the_lab_of_ia3_draws_its_pictures_and_compares_it_with_lora(hpcft: Call, project: Path) -> None:
    answer = hpcft("lab", "ia3", "--lang", "zh-TW")
    assert answer.code == 0, answer.out + answer.err
    folder = project / "results" / "lab-ia3" / "pictures"
    told = json.loads((folder / "lab.json").read_text())
    assert told["pictures"] == [
        "inference_benchmark.png",
        "model_size_comparison.png",
        "parameter_distribution.png",
        "parameter_efficiency.png",
        "peft_comparison.png",
        "training_curves.png",
    ]
    assert list(told["inference"]) == ["Base Model", "IA3 Fine-tuned", "Merged Model"]
    assert all(figures["latency_ms"] > 0 for figures in told["inference"].values())
    ia3, lora = told["comparison"]
    assert (ia3["method"], lora["method"]) == ("IA3", "LoRA")
    assert 0 < ia3["trainable_params_%"] < lora["trainable_params_%"]
    assert 0 < told["sizes_gb"]["adapter"] < told["sizes_gb"]["merged"]
    assert told["sizes_gb"]["merged"] == pytest.approx(told["sizes_gb"]["base"], rel=0.01)
    said = (folder / "job.log").read_text()
    for line in ("訓練過程視覺化", "✅ 訓練曲線已生成", "✅ 參數分佈圖已生成", "✅ 推理性能對比圖已生成"):
        assert line in said
    assert "✅ IA3 Adapter: " in said
    page = (folder / "report.html").read_text()
    assert LABS["ia3"].deploy.replace("'", "&#39;") in page
    assert LABS["ia3"].deploy in answer.err
    # Losses and the trend of the perplexity stand on the curves, and the page needs no other file.
    assert {"train_loss", "eval_loss", "eval_perplexity"} <= set(history(project / "results" / "lab-ia3" / "train"))
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    # The second call has nothing left to do.
    again = hpcft("lab", "ia3", "--lang", "zh-TW", "--json")
    assert {stage["state"] for stage in stages(again).values()} == {"done"}


@pytest.mark.usefixtures("forked_jobs")
def test_a33_the_lab_of_adapters_compares_two_tasks_and_draws_the_structure(hpcft: Call, project: Path) -> None:
    answer = hpcft("lab", "adapter", "--set", "peft.drop_layers=1")
    assert answer.code == 0, answer.out + answer.err
    folder = project / "results" / "lab-adapter" / "pictures"
    told = json.loads((folder / "lab.json").read_text())
    assert {"adapter_structure.png", "task_comparison.png"} <= set(told["pictures"])
    assert "model_size_comparison.png" not in told["pictures"]
    first, second = told["tasks"]
    assert (first["task"], first["metric"]) == ("quickstart", "ROUGE-L F1")
    assert (second["task"], second["metric"]) == ("quickstart-notices", "ROUGE-L F1")
    assert all(isinstance(row[key], float) for row in (first, second) for key in ("base", "tuned"))
    assert "cannot be merged" in (folder / "report.html").read_text()
