"""The study of attention and MLP on a real cluster whose nodes have no internet: data fetched on the login node, four
jobs, their comparison.

`HPCFT_TEST_E2E` and `HPCFT_TEST_DIALOGUES` name CSV files of real rows, with `mr,ref` and `dialogue,summary`; made rows
take their place without them.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes.fake_hub import FakeHub
from PIL import Image

from hpcft.data.e2e import make_rows, write_csv
from hpcft.data.sources import HUB_NAMES
from hpcft.runs.gradients import load_gradient_log_from_csv
from hpcft.runs.run import Run, RunState

HPCFT = str(Path(sys.executable).with_name("hpcft"))
LAB = """\
scheduler: slurm
internet: false
resources: {accelerator: cpu, time: "00:15:00", cpus_per_task: 1, mem_gb: 3, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
NAMES = [f"{data}_{group}_only" for data in ("e2e", "samsum") for group in ("attention", "mlp")]


def dialogues(path: Path) -> None:
    """Rows with the columns of SAMSum."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file)
        write.writerow(["id", "dialogue", "summary"])
        for n, row in enumerate(make_rows(80, 5)):
            name, _, rest = row.mr.partition(",")
            write.writerow([n, f"Ann: Where do we eat?\nBo: {name}. It is{rest}.", row.ref])


@pytest.fixture
def site(slurm_cluster: Any, slurm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login node with both sets in its cache."""
    (slurm_home / "lab.yaml").write_text(LAB)
    for name, value in {"HPCFT_CLUSTER": "lab.yaml", "HF_HOME": str(slurm_home / "hf")}.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        for name, make in (("e2e_nlg", None), ("samsum", dialogues)):
            folder = slurm_home / "sets" / name
            folder.mkdir(parents=True)
            file = folder / "train.csv"
            if real := os.environ.get("HPCFT_TEST_DIALOGUES" if make else "HPCFT_TEST_E2E"):
                shutil.copy(real, file)
            elif make:
                make(file)
            else:
                write_csv(file, make_rows(80, 3))
            hub = stack.enter_context(FakeHub(HUB_NAMES[name], folder, kind="datasets").running())
            words = ("--model", "quickstart", "--variant", "lora", "--dataset", name)
            done = hpcft(slurm_home, "fetch", *words, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
            assert done.returncode == 0, done.stdout + done.stderr
    return slurm_home


def hpcft(site: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [HPCFT, *words], cwd=site, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.timeout(1800)
def test_b3_b4_the_four_presets_run_as_a_batch_and_end_with_their_comparison(site: Path) -> None:
    small = ("--num-samples", "64", "--max-steps", "12", "--eval-samples", "8", "--max-new-tokens", "16")
    done = hpcft(site, "sensitivity", "--batch", "--wait", "--model", "quickstart", *small, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["runs"]) == NAMES
    for name in NAMES:
        run = Run(site / "results" / name)
        assert run.state is RunState.SUCCESS
        log = load_gradient_log_from_csv(run.paths.gradients)
        assert log.steps == list(range(1, 13))
        trained, still = ("attention", "mlp") if "attention" in name else ("mlp", "attention")
        stats = json.loads((run.paths.root / "gradient_analysis.summary.json").read_text())
        assert stats[trained]["min"] > 0
        assert stats[still]["max"] == 0
    report = site / "results" / "comparison_report"
    summary = json.loads((report / "experiment_summary.json").read_text())
    assert sorted(summary["experiments"]) == NAMES
    again = hpcft(site, "sensitivity", "--compare", *(f"results/{name}" for name in NAMES), "--json")
    assert again.returncode == 0, again.stderr
    for picture in report.glob("*.png"):
        with Image.open(picture) as image:
            assert image.width > 500
    assert (report / "comparison_gradient_norms.png").is_file()
