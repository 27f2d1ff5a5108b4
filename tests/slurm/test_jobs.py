"""The main job on a real two-node Slurm with accounting, through the command line alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpcft.data.e2e import make_rows, write_csv
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run, RunState
from hpcft.tracking.offline import find_offline_runs, merge, read_offline

HPCFT = str(Path(sys.executable).with_name("hpcft"))
PROFILE = """\
scheduler: slurm
resources: {accelerator: cpu, time: "00:15:00", cpus_per_task: 1, mem_gb: 8, account: acme}
env: {OMP_NUM_THREADS: "1"}
"""
SMALL = [
    "--set",
    "data.max_length=256",
    "--set",
    "data.eval_samples=4",
    "--set",
    "evaluation.max_new_tokens=8",
    "--num-samples",
    "48",
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--grad-accum",
    "1",
    "--lr",
    "5e-3",
    "--warmup-steps",
    "0",
    "--lora-r",
    "4",
    "--target",
    "both",
    "--set",
    "tracking.log_every=5",
]


@pytest.fixture(scope="module")
def site(slurm_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a profile for CPU ranks, a tiny model and E2E-style data."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "lab.yaml").write_text(PROFILE)
    (folder / "model").mkdir()
    build_model(folder / "model", steps=0, hidden=64, layers=2, vocab=512)
    write_csv(folder / "e2e.csv", make_rows(80, 3))
    return folder


def hpcft(site: Path, *words: str, code: int = 0) -> str:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([HPCFT, *words], cwd=site, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def job(site: Path, name: str, variant: str, *words: str, wait: bool = True) -> Run:
    follow = ["--wait"] if wait else []
    model = ["--model", "model", "--dataset", "e2e.csv"]
    hpcft(site, "submit", "--variant", variant, "--name", name, *model, *SMALL, *words, *follow)
    return Run(site / "results" / name)


def losses(run: Run) -> list[float]:
    return [float(e["loss"]) for e in run.events("step")]


def weights(run: Run) -> dict[str, torch.Tensor]:
    (file,) = run.paths.final_model.glob("*.safetensors")
    return load_file(file)


def check(run: Run, ranks: int) -> None:
    """What every finished run has."""
    assert run.state is RunState.SUCCESS
    steps = [e["step"] for e in run.events("step")]
    assert steps == list(range(1, steps[-1] + 1))
    found = losses(run)
    assert sum(found[-3:]) < sum(found[:3])
    assert run.metrics["train/world_size"] == ranks
    files = find_offline_runs(run.paths.wandb)
    recorded = merge([read_offline(path) for path in files[str(run.id)]])
    points = {row["step"]: row["train/loss"] for row in recorded.history if "train/loss" in row}
    expected = {e["step"]: e["loss"] for e in run.events("step") if e["step"] % 5 == 0 or e["step"] == steps[-1]}
    assert points == pytest.approx(expected)
    for key, value in run.metrics.items():
        assert recorded.summary[key] == pytest.approx(value), key
    assert recorded.config["variant"] == run.config["variant"]


SECRET = "planted-secret-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def qlora(site: Path) -> Run:
    """Four ranks on two nodes, submitted from an environment that is full of secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, SECRET)
        return four_ranks(site, "qlora", 2)


def four_ranks(site: Path, variant: str, zero: int) -> Run:
    return job(site, f"{variant}{zero}", variant, "--nodes", "2", "--gpus-per-node", "2", "--zero", str(zero))


MATRIX = [(v, z) for v in ("full", "lora", "qlora") for z in (0, 1, 2, 3) if (v, z) != ("qlora", 2)]


def test_four_ranks_on_two_nodes_train_and_are_tracked(qlora: Run) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    check(qlora, 4)
    model = AutoPeftModelForCausalLM.from_pretrained(qlora.paths.final_model)
    ids = AutoTokenizer.from_pretrained(qlora.paths.final_model)("name[The Ivy Mill]", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]


def test_s3_planted_secrets_are_found_nowhere(qlora: Run) -> None:
    hits = [p for p in qlora.paths.root.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert hits == []
    shown = subprocess.run(["scontrol", "show", "job", str(qlora.job_id)], capture_output=True, text=True).stdout
    recorded = subprocess.run(["sacct", "-j", str(qlora.job_id), "--format=ALL", "-P"], capture_output=True, text=True)
    assert SECRET not in shown + recorded.stdout
    assert json.loads(qlora.paths.provenance.read_text())["versions"]["torch"]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "zero"), MATRIX)
def test_every_variant_trains_at_every_zero_stage(site: Path, variant: str, zero: int) -> None:
    check(four_ranks(site, variant, zero), 4)


# That a preempted job goes on, test_survival shows each time.
@pytest.mark.slow
def test_a_signalled_job_is_requeued_and_ends_with_an_undisturbed_ones_weights(site: Path) -> None:
    size = ("--gpus-per-node", "2", "--num-samples", "0", "--set", "evaluation.enabled=false")
    calm = job(site, "calm", "qlora", *size)
    shaken = job(site, "shaken", "qlora", *size, wait=False)
    deadline = time.monotonic() + 120
    while sum(1 for _ in shaken.events("step")) < 5:
        assert time.monotonic() < deadline, shaken.paths.batch_log.read_text()
        time.sleep(0.02)
    subprocess.run(["scancel", "--signal=USR2", str(shaken.job_id)], check=True)
    while shaken.state is not RunState.SUCCESS:
        assert time.monotonic() < deadline, shaken.paths.batch_log.read_text()
        time.sleep(0.2)
    assert shaken.paths.attempt_numbers() == [1, 2]
    assert losses(shaken) == losses(calm)
    expected, found = weights(calm), weights(shaken)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    files = find_offline_runs(shaken.paths.wandb)
    assert list(files) == [shaken.id]


def test_a_rendered_script_passes_test_only_and_runs_under_plain_sbatch(site: Path) -> None:
    words = ("--variant", "lora", "--name", "plain", "--model", "model", "--dataset", "e2e.csv", *SMALL)
    path = hpcft(site, "render", *words).strip()
    tested = subprocess.run(["sbatch", "--test-only", path], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    subprocess.run(["sbatch", path], check=True, capture_output=True, timeout=60)
    run = Run(site / "results" / "plain")
    deadline = time.monotonic() + 120
    while run.state is not RunState.SUCCESS:
        assert time.monotonic() < deadline, run.paths.batch_log.read_text()
        time.sleep(0.2)


def test_c2_run_inside_salloc_uses_the_whole_allocation(site: Path) -> None:
    words = [HPCFT, "run", "--variant", "lora", "--name", "inside", "--model", "model", "--dataset", "e2e.csv", *SMALL]
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    allocation = ["salloc", "--account=acme", "--nodes=2", "--ntasks-per-node=1", "--mem=4000", "--time=10"]
    done = subprocess.run([*allocation, *words], cwd=site, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run(site / "results" / "inside")
    assert run.metrics["train/world_size"] == 2
    assert run.state is RunState.SUCCESS


@pytest.mark.parametrize(
    ("name", "times", "code"), [("once", 1, 75), pytest.param("twice", 2, 130, marks=pytest.mark.slow)]
)
def test_ctrl_c_inside_salloc_saves_first_and_a_second_one_leaves_no_rank(
    site: Path, name: str, times: int, code: int
) -> None:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml", "OMP_NUM_THREADS": "1"}
    allocation = ["salloc", "--account=acme", "--nodes=2", "--ntasks-per-node=1", "--mem=4000", "--time=10"]
    words = [HPCFT, "run", "--variant", "lora", "--name", name, "--model", "model", "--dataset", "e2e.csv", *SMALL]
    process = subprocess.Popen(
        [*allocation, *words, "--epochs", "500"],
        cwd=site,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    root = site / "results" / name
    deadline = time.monotonic() + 240
    while not ((root / "config.yaml").exists() and (beat := Run(root).status) and beat.state == "training"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # A terminal gives it to the command alone: salloc lets it stand in the foreground for itself.
    command = subprocess.run(["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True).stdout
    for _ in range(times):
        os.kill(int(command), signal.SIGINT)
        time.sleep(0.5 * (times - 1))
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    saved = list(Run(root).paths.checkpoints.glob("checkpoint-*/manifest.json"))
    assert bool(saved) is (times == 1)
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", f"hpcft.worker {root}$"], check=False, capture_output=True).stdout:
        assert time.monotonic() < deadline, "a rank is left"
        time.sleep(0.1)


def test_a_partition_or_an_account_that_there_is_not_is_told_and_leaves_nothing(site: Path) -> None:
    environment = os.environ | {"HPCFT_CLUSTER": "lab.yaml"}
    words = [HPCFT, "submit", "--model", "model", "--dataset", "e2e.csv", "--name", "refused"]
    # A partition that there is not is seen before sbatch is called, an account by Slurm alone.
    told = {"--partition": "there is no partition 'nope'\n  --partition debug", "--account": "valid here: acme"}
    for option, text in told.items():
        done = subprocess.run(
            [*words, option, "nope"], cwd=site, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 78
        assert text in done.stderr
        assert not (site / "results" / "refused").exists()


def test_a_classifier_s_loss_does_not_grow_with_the_ranks(site: Path) -> None:
    """Two classes that are guessed give ln 2, on any number of ranks."""
    rows = [f"venue {i} is {'a pub' if i % 2 else 'an inn'},{i % 2}" for i in range(64)]
    (site / "classes.csv").write_text("sentence,label\n" + "\n".join(rows) + "\n")
    words = ["--dataset", "classes.csv", "--nodes", "2", "--lr", "1e-6", "--epochs", "1"]
    run = job(site, "classes", "full", *words)
    assert run.metrics["train/world_size"] == 2
    assert run.metrics["train/first_loss"] == pytest.approx(0.693, abs=0.15)
    assert run.metrics["final/validation_loss"] == pytest.approx(0.693, abs=0.15)
