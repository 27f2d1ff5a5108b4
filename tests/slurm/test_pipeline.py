"""Pipelines on a real Slurm: the stages wait for each other, and no controller stays alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcft.data.e2e import make_rows, write_csv
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run

HPCFT = str(Path(sys.executable).with_name("hpcft"))
PROFILE = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:15:00", cpus_per_task: 1, mem_gb: 6, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
STAGES = """\
base:
  model: {name: model}
  data: {dataset: e2e.csv, max_length: 256, eval_samples: 4}
  training: {max_steps: 4, per_device_train_batch_size: 4, gradient_accumulation_steps: 1, learning_rate: 5e-3}
  evaluation: {max_new_tokens: 8}
  bench: {queries: 4, warmup: 1, repeats: 2, prompt_tokens: 16}
stages:
  lora: {variant: lora, resources: {gpus_per_node: 2}}
  merged: {kind: merge, of: lora}
  int4: {kind: quantize, of: merged}
  scores: {kind: evaluate, of: int4}
  bench: {kind: bench, of: scores}
  report: {kind: report, of: bench}
"""


@pytest.fixture
def site(slurm_cluster: Any, tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text(PROFILE)
    (tmp_path / "mine.yaml").write_text(STAGES)
    (tmp_path / "model").mkdir()
    build_model(tmp_path / "model", steps=0, hidden=64, layers=2, vocab=512)
    write_csv(tmp_path / "e2e.csv", make_rows(40, 3))
    return tmp_path


def call(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [HPCFT, *words], cwd=site, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


def test_train_merge_quantise_evaluate_bench_is_one_command(site: Path) -> None:
    done = call(site, "pipeline", "mine.yaml", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    bench = Run(site / "results" / "mine" / "bench")
    assert bench.metrics["inference/avg_latency_ms_per_sample"] > 0
    assert bench.metrics["final/validation_f1_score"] >= 0
    assert bench.metrics["train/world_size"] == 2
    assert "bench" in (site / "results" / "mine" / "report" / "report.html").read_text()
    again = json.loads(call(site, "pipeline", "mine.yaml", "--json").stdout)
    assert {stage["state"] for stage in again["stages"]} == {"done"}


# That each stage carries --kill-on-invalid-dep, cli/test_pipeline shows each time.
@pytest.mark.slow
def test_a_failed_stage_s_children_are_cancelled_and_not_left_waiting(site: Path) -> None:
    (site / "mine.yaml").write_text(STAGES.replace("of: lora}", "of: lora, merge: {max_kl: 1e-30, dtype: float16}}"))
    done = call(site, "pipeline", "mine.yaml", "--wait")
    assert done.returncode == 1
    assert "not finished: merged, int4, scores, bench, report" in done.stderr
    assert not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout.strip()
    (site / "mine.yaml").write_text(STAGES)
    left = json.loads(call(site, "pipeline", "mine.yaml", "--dry-run", "--json").stdout)
    assert [stage["stage"] for stage in left["stages"] if stage["state"] == "done"] == ["lora"]


def test_a_refused_stage_says_what_is_queued_already(site: Path) -> None:
    (site / "mine.yaml").write_text(STAGES.replace("of: lora}", "of: lora, resources: {partition: nowhere}}"))
    done = call(site, "pipeline", "mine.yaml")
    assert done.returncode == 78
    assert "in the queue already, and kept when the same command is run again: lora " in done.stderr
    assert "resources.partition" in done.stderr
    assert "debug" in done.stderr, "the partitions that there are"
    subprocess.run(["scancel", f"--user={os.environ.get('USER', 'root')}"], check=False)
