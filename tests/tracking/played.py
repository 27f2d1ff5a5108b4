"""Jobs in processes of their own, with secrets planted in them, and what became of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.wandb_server import KEY, FakeWandb

from hpcft.tracking.offline import OfflineRun, find_offline_runs, merge, read_offline

JOB = Path(__file__).with_name("job.py")
SECRETS = (KEY, "hf_" + "s" * 34, "argument-secret-0123456789")


@dataclass
class Played:
    """A job that has been played: what it printed, what it left in `root`, when it was over."""

    root: Path
    server: FakeWandb
    code: int
    said: str
    result: dict[str, Any]
    over: float

    @property
    def report(self) -> dict[str, Any]:
        """The tracker's report."""
        report: dict[str, Any] = self.result["report"]
        return report

    def recorded(self) -> OfflineRun:
        """What wandb has written on disk, all attempts."""
        (paths,) = find_offline_runs(self.root / "wandb").values()
        return merge([read_offline(path) for path in paths])

    def files(self) -> list[Path]:
        """Everything that wandb has written."""
        return [p for p in (self.root / "wandb").rglob("*") if not p.is_symlink()]

    def exposed(self) -> list[str]:
        """Those of them that others than the owner may read."""
        return [str(p) for p in self.files() if stat.S_IMODE(p.stat().st_mode) & 0o077]

    def leaks(self) -> list[str]:
        """Places where a planted secret stands."""
        texts = {str(p): p.read_bytes() for p in self.files() if p.is_file()}
        texts |= {"what it printed": self.said.encode(), "sent bodies": bytes(self.server.bodies)}
        return [place for place, text in texts.items() if any(secret.encode() in text for secret in SECRETS)]


def start_job(
    root: Path, url: str, mode: str, variables: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start `job.py` with the planted secrets in its environment and its arguments, and a home without a login."""
    (root / "home").mkdir(parents=True, exist_ok=True)
    model = root / "final_model"
    (model / "tokenizer").mkdir(parents=True, exist_ok=True)
    (model / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    (model / "tokenizer" / "vocab.json").write_text("{}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HPCFT_"))}
    environment |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": SECRETS[0], "HF_TOKEN": SECRETS[1]}
    environment |= {"HOME": str(root / "home"), "OMP_NUM_THREADS": "1", **(variables or {})}
    call = json.dumps({"folder": str(root / "wandb"), "mode": mode, "model": str(model), **options})
    command = [sys.executable, str(JOB), call, SECRETS[2]]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=root, **pipes)


def end_job(root: Path, server: FakeWandb, process: subprocess.Popen[str]) -> Played:
    """Wait for a job's end."""
    said, _ = process.communicate(timeout=60)
    over = time.time()
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"report"')]
    return Played(root, server, process.returncode, said, lines[-1] if lines else {}, over)
