"""Jobs that are broken on purpose, run for real on Slurm, and what `hpcft explain` says of each.

HPCFT_TEST_WRITE_TABLE names the page whose table is to be written anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import faulty_worker
from support.failed_runs import FailedRun

from hpcft.cluster.explain import Cause, verdict_of
from hpcft.cluster.explain.policy import decisions
from hpcft.models.quickstart import build_model
from hpcft.runs.run import Run

HPCFT = str(Path(sys.executable).with_name("hpcft"))
SAMPLES = Path(__file__).parent.parent / "data" / "failures"
FAULTY = faulty_worker.__file__
SMALL = ["--epochs", "1", "--num-samples", "24", "--batch-size", "4", "--grad-accum", "1", "--lora-r", "4"]
SMALL += ["--set", "evaluation.enabled=false"]
PROFILE: dict[str, Any] = {
    "scheduler": "slurm",
    "resources": {"accelerator": "cpu", "time": "00:10:00", "cpus_per_task": 2, "mem_gb": 3, "account": "acme"},
    "env": {"OMP_NUM_THREADS": "1"},
}
TIMEOUT_S = 900


@dataclass
class Broken:
    """A job that is broken.

    Attributes:
        what: in words, for the table.
        cause: what explain has to say.
        words: of the command line. profile: what its cluster profile has besides.
        fault: of `faulty_worker`.
        told: has to stand in the verdict's words.
        mend: has to stand in the first command that mends it.
        act: done to the job after its submission, given its id and its run.
    """

    what: str
    cause: Cause
    words: list[str] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    told: str = ""
    mend: str = ""
    act: str = ""


REAL: dict[str, Broken] = {
    "nan": Broken(
        "a learning rate of 10 without clipping",
        Cause.NAN_LOSS,
        ["--lr", "10", "--warmup-steps", "0", "--set", "training.max_grad_norm=0"],
        mend="training.learning_rate=",
    ),
    "modules": Broken(
        "an adapter for modules that the model has not",
        Cause.BAD_CONFIG,
        ["--set", "lora.target_modules=[no_such_module]"],
        told="no_such_module",
        mend="lora.target_modules=null",
    ),
    "data": Broken("the data file damaged after the submission", Cause.BAD_DATA, fault="data", told="data.csv"),
    "offline": Broken(
        "a model of the hub, on a node without internet",
        Cause.OFFLINE_DOWNLOAD,
        ["--model", "hpcft-tests/no-such-model"],
        {"internet": True},
        "offline",
        mend="hpcft fetch",
    ),
    "package": Broken(
        "a Python without the packages",
        Cause.IMPORT_ERROR,
        profile={"python": "/usr/bin/python3"},
        told="No module named",
        mend="uv pip install --python /usr/bin/python3",
    ),
    "python": Broken(
        "a Python that is not on the node", Cause.IMPORT_ERROR, profile={"python": "/no/such/python"}, told="/no/such"
    ),
    "disk": Broken(
        "files may have 20 KB, and a checkpoint has more",
        Cause.DISK_FULL,
        profile={"container": ["prlimit", "--fsize=20000"]},
        mend="du -sh",
    ),
    "memory": Broken("more memory than the machine has", Cause.HOST_OOM, fault="memory", mend="resources.mem_gb=5"),
    "port": Broken("the ranks' port is taken", Cause.PORT_IN_USE, ["--gpus-per-node", "2"], fault="port"),
    "gloo": Broken(
        "a rank that keeps the others waiting", Cause.COLLECTIVE_TIMEOUT, ["--nodes", "2"], fault="gloo", told="rank 0"
    ),
    "kill": Broken("kill -9 of one of two ranks", Cause.KILLED, ["--nodes", "2"], fault="kill", told="node2"),
    "cancel": Broken("scancel while it runs", Cause.CANCELLED, fault="deaf", act="cancel", told="with scancel"),
    "limit": Broken(
        "the time limit, and no rank that stops for it",
        Cause.TIME_LIMIT,
        ["--time", "1", "--set", "resources.signal_seconds=10"],
        fault="deaf",
        mend="resources.time=",
    ),
    "loop": Broken(
        "put back into the queue three times before its first step",
        Cause.NO_STEP,
        fault="deaf",
        act="requeue",
        told="no step was gained",
    ),
    "waits": Broken(
        "waits for a run that failed",
        Cause.DEPENDENCY,
        profile={"sbatch": {"dependency": "afterok:PARENT"}},
        told="python: Python or a package",
    ),
    "removed": Broken(
        "waits for a run that failed, and is removed by Slurm",
        Cause.DEPENDENCY,
        profile={"sbatch": {"dependency": "afterok:PARENT", "kill-on-invalid-dep": "yes"}},
        told="python: Python or a package",
    ),
}
# What this machine cannot do to a job: the words of others' clusters stand in for it.
RECORDED = {
    "gpu_oom_torch": ("the GPU's memory ran out on rank 3 of 4", Cause.GPU_OOM),
    "gpu_oom_bitsandbytes": ("the GPU's memory ran out in bitsandbytes", Cause.GPU_OOM),
    "nccl_timeout": ("NCCL's watchdog ended the ranks", Cause.COLLECTIVE_TIMEOUT),
    "host_oom_slurm": ("killed for memory by the kernel, exit code 0", Cause.HOST_OOM),
    "node_ecc": ("an uncorrectable memory error of a GPU", Cause.NODE_FAILURE),
    "disk_quota": ("the quota is used up", Cause.DISK_FULL),
    "preempted": ("preempted and not queued again", Cause.PREEMPTED),
}


class Site:
    """A project folder, and what is done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model").mkdir()
        build_model(folder / "model", steps=0, hidden=64, layers=2, vocab=512)

    def run(self, name: str) -> Run:
        return Run(self.folder / "results" / name)

    def submit(self, name: str, broken: Broken) -> None:
        profile = PROFILE | broken.profile
        if "sbatch" in profile:
            parent = str(self.run("python").job_id)
            profile["sbatch"] = {k: v.replace("PARENT", parent) for k, v in profile["sbatch"].items()}
        if broken.fault:
            profile["container"] = [sys.executable, FAULTY, broken.fault]
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(profile))
        rows = "".join(f"row {i},answer {i}\n" for i in range(40))
        (self.folder / f"{name}-data.csv").write_text("source,target\n" + rows)
        words = ["submit", "--name", name, "--variant", "lora", "--dataset", f"{name}-data.csv", *SMALL]
        words += [] if "--model" in broken.words else ["--model", "model"]
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")}
        environment |= {"HPCFT_CLUSTER": f"{name}.yaml", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [HPCFT, *words, *broken.words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def act(self, name: str, what: str, until: float) -> None:
        run = self.run(name)
        for turn in range(1, 4 if what == "requeue" else 2):
            while len(run.paths.attempt_numbers()) < turn or run.status is None or run.status.attempt < turn:
                assert time.monotonic() < until, f"{name} does not start: {run.paths.batch_log.read_text()}"
                time.sleep(0.2)
            # The rank turns deaf a moment after its attempt has begun.
            time.sleep(2)
            command = ["scancel"] if what == "cancel" else ["scontrol", "requeue"]
            subprocess.run([*command, str(run.job_id)], check=True)

    def explain(self, name: str) -> dict[str, Any]:
        done = subprocess.run(
            [HPCFT, "explain", name, "--json"], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def verdict(self, name: str, until: float) -> dict[str, Any]:
        """What explain says when the job is over."""
        while time.monotonic() < until:
            found = self.explain(name)
            going_on = found["verdict"] in ("waiting", "running", "unknown") or "the job still runs" in str(
                found["notes"]
            )
            if not going_on:
                break
            time.sleep(1)
        return found

    def close(self) -> None:
        """Leave no job behind."""
        ids = [str(Run(f.parent).job_id) for f in self.folder.glob("results/*/config.yaml")]
        subprocess.run(["scancel", *ids], check=False)


@pytest.fixture
def site(slurm_cluster: Any, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def check(name: str, broken: Broken, found: dict[str, Any]) -> None:
    assert found["verdict"] == broken.cause, f"{name}: {json.dumps(found, indent=1)}"
    assert found["failed"]
    assert found["evidence"]["text"]
    assert broken.told in found["summary"] + str(found["evidence"])
    commands = [mend["command"] for mend in found["mends"]]
    assert commands if broken.cause is not Cause.DEPENDENCY else True
    assert broken.mend in (commands or [""])[0]


@pytest.mark.parametrize("name", ["python", "cancel"])
def test_two_of_them_quickly(site: Site, name: str) -> None:
    broken = REAL[name]
    until = time.monotonic() + 120
    site.submit(name, broken)
    if broken.act:
        site.act(name, broken.act, until)
    check(name, broken, site.verdict(name, until))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_broken_jobs_of_ten_kinds(site: Site, tmp_path: Path) -> None:
    until = time.monotonic() + TIMEOUT_S
    names = sorted(REAL, key=lambda name: ("sbatch" in REAL[name].profile, not REAL[name].act, name != "limit"))
    for name in names:
        site.submit(name, REAL[name])
    for name in names:
        if REAL[name].act:
            site.act(name, REAL[name].act, until)
    rows = []
    for name in names:
        found = site.verdict(name, until)
        rows.append((REAL[name].what, "run", REAL[name].cause, found))
    for sample, (what, cause) in RECORDED.items():
        case = FailedRun(tmp_path / "recorded" / sample).log((SAMPLES / f"{sample}.txt").read_text())
        rows.append((what, "recorded", cause, verdict_of(case.run).document()))
    text = table(rows)
    print(text)
    if path := os.environ.get("HPCFT_TEST_WRITE_TABLE"):
        write(Path(path), text)
    for name in names:
        check(name, REAL[name], next(f for what, _, _, f in rows if what == REAL[name].what))
    assert all(found["verdict"] == cause for _, _, cause, found in rows)
    assert len(rows) >= 20
    assert len({cause for _, _, cause, _ in rows}) >= 10
    # What passes by itself was tried again and then given up; nothing else was.
    tried = {name: sum(d["again"] for d in decisions(site.run(name).paths)) for name in names}
    assert {name: n for name, n in tried.items() if n} == {"port": 2, "gloo": 3, "kill": 1}


def table(rows: list[tuple[str, str, Cause, dict[str, Any]]]) -> str:
    """The rows as a page shows them."""
    lines = ["| broken on purpose | | expected | given | the line it rests on |", "|---|---|---|---|---|"]
    for what, how, cause, found in rows:
        evidence = found["evidence"] or {"text": "", "file": "", "line": None}
        text = re.sub(r"/\S*/(?=[\w.-]+)", "…/", evidence["text"])
        text = re.sub(r"^\S+ \S+ - ERROR - ", "", text).replace("|", "\\|")
        place = evidence["file"] if evidence["line"] is None else f"{evidence['file']}:{evidence['line']}"
        place = re.sub(r"=\d+", "=ID", place)
        mark = "✓" if found["verdict"] == cause else "✗"
        short = text if len(text) <= 90 else text[:87] + "…"
        lines.append(f"| {what} | {how} | `{cause}` | `{found['verdict']}` {mark} | {short} ({place}) |")
    return "\n".join(lines) + "\n"


def write(page: Path, text: str) -> None:
    """Put the table between its marks in a page."""
    before, begin, rest = page.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end -->")
    assert end, f"{page} has no marks for the table"
    page.write_text(before + begin + text + end + after)
