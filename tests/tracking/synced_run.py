"""Runs that record offline, a server, and syncs of them as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from fakes.wandb_graphql import RemoteRun
from fakes.wandb_server import KEY, FakeWandb

from hpcft.cluster.queue import start_time
from hpcft.runs.create import begin_attempt, make_run_directory
from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.run import Run
from hpcft.tracking.projection import Projection, plain, project

JOB = Path(__file__).with_name("recorded.py")
HPCFT = Path(sys.executable).with_name("hpcft")


@dataclass
class Site:
    """A login node with a folder of results, and a server.

    Attributes:
        login: whether a key is stored.
        said: what the last command printed.
    """

    root: Path
    server: FakeWandb = field(default_factory=FakeWandb)
    login: bool = True
    said: subprocess.CompletedProcess[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """With a login in the home's netrc file, if anywhere."""
        home = self.root / "home"
        home.mkdir(parents=True, exist_ok=True)
        netrc = home / ".netrc"
        netrc.touch(mode=0o600)
        host = self.server.url.removeprefix("http://")
        netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n" if self.login else "")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HPCFT_", "SLURM_"))}
        return {**kept, "WANDB_BASE_URL": self.server.url, "HOME": str(home), "OMP_NUM_THREADS": "1"}

    def make(self, name: str = "first", **tracking: Any) -> Run:
        """A run directory, as submitted."""
        paths = make_run_directory(self.root / "results", name, name)
        told = {"project": "study", "entity": "lab", "tags": ["night"], "notes": "a note", "log_every": 1, **tracking}
        job = {"variant": "qlora", "data": {"dataset": "pairs.csv"}, "tracking": told}
        paths.config.write_text(yaml.safe_dump(job))
        with EventLog(paths.client) as journal:
            journal.append("intent", run_id=f"id{name}", cluster="local", scheduler="local", internet=False)
        return Run(paths.root)

    def start(self, run: Run, **options: Any) -> subprocess.Popen[str]:
        """Start an attempt, as a job of this machine."""
        command = [sys.executable, str(JOB), str(run.paths.root), json.dumps(options)]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        with EventLog(run.paths.client) as journal:
            journal.append("submitted", job_id=f"{process.pid}-{start_time(process.pid)}")
        return process

    def written(self, name: str = "first", last: int = 20, **tracking: Any) -> Run:
        """A finished run whose wandb was killed before it wrote a line."""
        run = self.make(name, **tracking)
        with EventLog(run.paths.client) as journal:
            journal.append("submitted", job_id="1-1")
        with EventLog(run.paths.events(begin_attempt(run.paths))) as log:
            log.append("start", attempt=1, resume_step=0, world_size=1)
            for step in range(1, last + 1):
                log.append("step", step=step, loss=1 / step, learning_rate=1e-3, epoch=step / 10)
            log.append("summary", metrics={"final/validation_f1_score": 0.5})
        run.paths.final_model.mkdir()
        (run.paths.final_model / "adapter_model.safetensors").write_bytes(b"weights" * 100)
        write_json(run.paths.done, {"attempt": 1})
        return run

    def attempt(self, run: Run, **options: Any) -> int:
        """An attempt, to its end: the last step that it acknowledged."""
        out, _ = self.start(run, **options).communicate(timeout=60)
        return max((int(line) for line in out.split()), default=0)

    def wait_for_clients(self) -> None:
        """Wait until no client of an ended attempt is left, which could still try again."""
        home = str(self.root / "home")
        deadline = time.monotonic() + 60
        while [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("HOME") == home]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def start_sync(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `hpcft sync`."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [str(HPCFT), "sync", *arguments]
        return subprocess.Popen(command, env=self.environment, cwd=self.root, **pipes)

    def sync(self, *arguments: str) -> int:
        """Call `hpcft sync`, and return its exit code."""
        command = [str(HPCFT), "sync", *arguments]
        self.said = subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in self.said.stderr, self.said.stderr
        return self.said.returncode

    def synced(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """Call it with `--json`: what became of each run, by its name."""
        code = self.sync(*arguments, "--json")
        assert self.said is not None
        assert code == 0, self.said.stderr
        return {row["run"]: row for row in json.loads(self.said.stdout)["runs"]}

    def remote(self, run: Run) -> RemoteRun:
        """The run as the server has it."""
        return self.server.runs[run.id or ""]


def recorded(run: Run) -> Projection:
    """What wandb should have of a run that has ended."""
    return project(run, ended=True)


def wrong(run: Run, remote: RemoteRun) -> list[str]:
    """In what the server's run differs from the record: in history, configuration, final values or state."""
    right = recorded(run)
    differences = []
    if [plain(p) for p in remote.points()] != [plain(p) for p in right.points]:
        steps = [p["step"] for p in remote.points()]
        differences.append(f"history: {steps} instead of {[p['step'] for p in right.points]}")
    config = {k: v["value"] for k, v in remote.config.items()}
    if plain(config) != plain(right.settings["config"]):
        differences.append("config")
    if plain(remote.summary) != plain(right.summary):
        differences.append(f"summary: {plain(remote.summary)} instead of {plain(right.summary)}")
    if remote.exit_code != right.exit_code:
        differences.append(f"exit code {remote.exit_code}")
    return differences
