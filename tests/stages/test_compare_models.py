"""`compare_models`: several models scored in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import hpcft.lab
from hpcft.errors import ConfigError, DataError, UsageError
from hpcft.stages.compare_models import compare_models, print_comparison_table

B28 = ["bleu", "rouge1", "rouge2", "rougeL", "meteor", "num_samples"]
SHORT = {"evaluation.max_new_tokens": 8, "data.max_length": 256, "evaluation.bootstrap": 50}


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Path:
    return tiny_model


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = LoraConfig(r=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def test_b30_each_model_is_scored_and_written(base: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "comparison"
    results = hpcft.lab.compare_models(
        model_paths={"base": base, "tuned": str(adapter)},
        base_model_id=str(base),
        dataset_type="quickstart",
        num_samples=4,
        output_dir=out,
        settings=SHORT,
    )
    assert list(results) == ["base", "tuned"]
    assert sorted(f.name for f in out.iterdir()) == ["base_eval.json", "comparison_summary.json", "tuned_eval.json"]
    for name, found in results.items():
        assert [k for k in found if k in B28] == B28
        assert found["num_samples"] == 4
        written = json.loads((out / f"{name}_eval.json").read_text())
        assert {k: written[k] for k in B28} == {k: found[k] for k in B28}
        assert set(found["intervals"]) == {"bleu", "rouge1", "rouge2", "rougeL", "meteor"}
    assert results["base"]["data"] == results["tuned"]["data"]
    assert results["base"]["perplexity"] != results["tuned"]["perplexity"]
    summary = json.loads((out / "comparison_summary.json").read_text())
    assert summary["models"]["tuned"] == {k: results["tuned"][k] for k in [*B28, "perplexity"]}
    assert summary["dataset"] == "quickstart"


def test_b30_the_table_has_a_line_a_model_and_a_column_a_score(capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "base": {"bleu": 0.25, "num_samples": 1000.0, "intervals": {}, "confidence": 0.95},
        "a-longer-name": {"bleu": 0.5, "num_samples": 1000.0, "perplexity": 1.5},
    }
    print_comparison_table(results)
    assert capsys.readouterr().out.splitlines() == [
        "model            bleu  num_samples  perplexity",
        "base           0.2500        1,000           -",
        "a-longer-name  0.5000        1,000      1.5000",
    ]


def test_an_adapter_for_another_base_is_refused_before_a_model_is_loaded(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="not for 'other/base'"):
        compare_models({"tuned": adapter}, "other/base", "quickstart", 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [[], ["../outside"], ["a/b"], [""]])
def test_no_model_or_a_name_that_is_no_file_name_is_refused(base: Path, tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match="model_paths"):
        compare_models(dict.fromkeys(names, base), None, "quickstart", 2, tmp_path)


def test_a_data_set_that_is_not_there_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set or file 'nothing'"):
        compare_models({"base": base}, None, "nothing", 2, tmp_path, settings=SHORT)


def test_a_folder_of_a_run_is_held_as_it_was_trained(base: Path, adapter: Path, tmp_path: Path) -> None:
    """QLoRA's base on 4 bits answers otherwise than on 16."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("variant: qlora\n")
    (run / "final_model").symlink_to(adapter)
    results = compare_models(
        {"plain": adapter, "held": run / "final_model"}, str(base), "quickstart", 2, tmp_path / "out", settings=SHORT
    )
    assert results["held"]["model"]["quantization"] == "nf4"
    assert results["plain"]["model"]["quantization"] == "none"
    assert results["held"]["perplexity"] != results["plain"]["perplexity"]
