"""The fixture `fake_slurm`: Slurm's commands from slurm_bin, first in PATH, and a handle on what they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent


class FakeSlurm:
    """What a test sees of the fake, and does to it.

    Args:
        folder: FAKE_SLURM_DIR, which need not exist yet.
        monkeypatch: for `run_jobs`.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that were accepted, oldest first; `fake_slurm.store` says what is in one."""
        files = sorted((self.folder / "jobs").glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text()) for path in files]

    def job(self, job_id: int | str) -> dict[str, Any]:
        """One job, with its script under `script`."""
        path = self.folder / f"jobs/{job_id}.json"
        job: dict[str, Any] = json.loads(path.read_text())
        return job | {"script": path.with_suffix(".sh").read_text()}

    def calls(self, command: str) -> list[list[str]]:
        """The arguments of every call of a command so far."""
        path = self.folder / "calls.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [words for name, *words in lines if name == command]

    @property
    def submissions(self) -> int:
        """How often sbatch was asked to submit, with whatever answer; --test-only does not count."""
        return sum("--test-only" not in words for words in self.calls("sbatch"))

    def fault(self, **faults: str | float | None) -> None:
        """Let commands fail from now on: `sbatch`, `controller`, `accounting`, `hang_s`; None mends.

        fake_slurm.py says which values there are.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "faults.json"
        there = json.loads(path.read_text()) if path.exists() else {}
        kept = {name: value for name, value in (there | faults).items() if value is not None}
        path.write_text(json.dumps(kept))

    def set_state(self, job_id: int | str, state: str, **fields: object) -> None:
        """Change a job's state (`COMPLETED`, `CANCELLED by 0`, …) and other fields (`exit_code="75:0"`)."""
        self._command("update", str(job_id), json.dumps({"state": state, **fields}))

    def run_jobs(self) -> None:
        """From now on run what is submitted."""
        self._monkeypatch.setenv("FAKE_SLURM_RUN", "1")

    def wait(self, job_id: int | str, timeout_s: float = 10) -> dict[str, Any]:
        """Wait until a job has ended, and give it."""
        end = time.monotonic() + timeout_s
        while (job := self.job(job_id))["state"] in ("PENDING", "RUNNING"):
            if time.monotonic() > end:
                raise TimeoutError(f"job {job_id} is still {job['state']} after {timeout_s:.0f} s")
            time.sleep(0.02)
        return job

    def close(self) -> None:
        """End what still runs."""
        for job in self.jobs():
            if job["state"] in ("PENDING", "RUNNING"):
                self.set_state(job["id"], "CANCELLED by 0")
        end = time.monotonic() + 5
        while any(_alive(job["runner"]) for job in self.jobs() if "runner" in job) and time.monotonic() < end:
            time.sleep(0.02)

    def _command(self, *words: str) -> None:
        fake = [sys.executable, "-E", "-S", str(FAKES / "fake_slurm.py")]
        subprocess.run([*fake, *words], env=os.environ | {"FAKE_SLURM_DIR": str(self.folder)}, check=True)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected by its parent does not."""
    answer = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(answer.stdout.strip()) and not answer.stdout.startswith("Z")


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    """A Slurm without jobs, whose commands are the first in PATH; its files are in `tmp_path / "slurm"`."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(FAKES / "slurm_bin"), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_SLURM_DIR", str(tmp_path / "slurm"))
    monkeypatch.setenv("FAKE_SLURM_PYTHON", sys.executable)
    fake = FakeSlurm(tmp_path / "slurm", monkeypatch)
    yield fake
    fake.close()
