"""`hpcft fit` as it is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.tiny_models import config

from hpcft.errors import UsageError
from hpcft.spec import assets
from hpcft.spec.build import build
from hpcft.spec.layers import mapping_layer, yaml_layer

PROFILE = "scheduler: slurm\nresources: {gpu_type: h100, mem_gb: 64}\n"
LARGE = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}


@pytest.fixture
def large(project: Path) -> list[str]:
    """A model of 8 billion parameters that is nothing but its configuration, and a site with GPUs."""
    (project / "hpc").mkdir()
    (project / "hpc" / "site.yaml").write_text(PROFILE)
    config("llama", vocab_size=128256, num_key_value_heads=8, **LARGE).save_pretrained(project / "large")
    return ["--cluster", "site", "--model", "large", "--dataset", "quickstart", "--set", "data.max_length=1024"]


def test_a_job_that_does_not_fit_ends_with_what_would(hpcft: Callable[..., Any], large: list[str]) -> None:
    found = hpcft("fit", *large, "--variant", "full", "--json")
    assert found.code == 1, found.err
    told = json.loads(found.out)
    assert told["verdict"] == "does not fit"
    assert told["gpu"]["gb"] == 79
    parts = {part["name"]: part for part in told["per_rank"]["parts"]}
    assert parts["optimizer states"]["low_gb"] == pytest.approx(2 * parts["weights"]["low_gb"])
    assert sum(p["high_gb"] for p in parts.values()) == pytest.approx(told["per_rank"]["high_gb"])

    change = [word for key, value in told["change"].items() for word in ("--set", f"{key}={value}")]
    again = hpcft("fit", *large[:-2], "--set", "data.max_length=1024", *change)
    assert again.code == 0, again.err + again.out
    assert "so          fits" in again.out
    assert "prediction" in again.err


def test_without_a_known_gpu_the_verdict_is_unknown(
    hpcft: Callable[..., Any], small_quickstart: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    found = hpcft("fit", "--cluster", "slurm", "--preset", "quickstart", "--json")
    assert found.code == 0
    told = json.loads(found.out)
    assert told["verdict"] == "unknown"
    assert told["calibration"] is None
    assert "gpu_memory_gb" in told["gpu"]["how"]


def test_finished_runs_of_the_same_family_calibrate_it(
    hpcft: Callable[..., Any], small_quickstart: Path, monkeypatch: Any, project: Path
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(small_quickstart))
    words = ["--cluster", "local", "--preset", "quickstart", "--variant", "full", "--json"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = json.loads(hpcft("fit", *words).out)
    middle = (before["per_rank"]["low_gb"] + before["per_rank"]["high_gb"]) / 2
    preset = yaml_layer(assets.find("jobs", "quickstart", what="preset", option="--preset"))
    job = build([preset, mapping_layer({"variant": "full"}, "test")]).job
    for name, factor in (("one", 1.2), ("two", 1.4)):
        run = project / "results" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json")))
        (run / "metrics.json").write_text(json.dumps({"train/peak_rss_gb": factor * middle}))
        (run / "done.json").write_text("{}")
    after = json.loads(hpcft("fit", *words).out)
    assert sorted(after["calibration"]["runs"]) == ["one", "two"]
    assert after["calibration"]["low"] == pytest.approx(1.2, rel=0.01)
    assert after["per_rank"]["low_gb"] == pytest.approx(1.2 * 0.97 * middle, rel=0.01)
    assert after["per_rank"]["high_gb"] == pytest.approx(1.4 * 1.03 * middle, rel=0.01)


def test_a_quickstart_model_that_is_not_made_is_told(
    hpcft: Callable[..., Any], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPCFT_CACHE", str(tmp_path / "empty"))
    found = hpcft("fit", "--cluster", "local", "--preset", "quickstart")
    assert found.code == 78
    assert "hpcft fetch" in found.err


@pytest.mark.parametrize("verb", ["fit", "doctor"])
@pytest.mark.parametrize("words", [["--variant", "ptq"], ["--set", "variant=ptq"], ["variant=ptq"]])
def test_ptq_is_asked_of_its_training_however_it_is_typed(
    hpcft: Callable[..., Any], project: Path, verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def stop(planned: Any, **_: Any) -> None:
        seen.append(planned.resolved.job.variant)
        raise UsageError("enough")

    monkeypatch.setattr(f"hpcft.cli.{verb}.{'answer' if verb == 'fit' else 'examine'}", stop)
    assert "enough" in hpcft(verb, "--preset", "quickstart", "--cluster", "local", *words).err
    assert seen == ["lora"]
