"""Run directories, and jobs that wait in the fake cluster's queue."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.runs.create import new_run_id
from hpcft.runs.events import EventLog, encode
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import this_host


@pytest.fixture
def make_run(project: Path) -> Callable[..., RunPaths]:
    """Make a run directory in results/, as the client and rank 0 leave it."""

    def make(
        name: str,
        *,
        run_id: str = "",
        job_id: str | None = None,
        scheduler: str = "slurm",
        age_s: float = 3600.0,
        status: dict[str, Any] | None = None,
        steps: int = 0,
        done: bool = False,
        **about: str,
    ) -> RunPaths:
        paths = RunPaths((project / "results" / name).absolute())
        paths.root.mkdir(parents=True)
        facts = {"job_kind": "train", "variant": "lora", "model": "org/tiny", "dataset": "pairs.csv"} | about
        data, model = {"dataset": facts["dataset"]}, {"name": facts["model"]}
        config = {"kind": facts["job_kind"], "variant": facts["variant"], "model": model, "data": data}
        paths.config.write_text(yaml.safe_dump(config))
        run_id = run_id or new_run_id()
        at = time.time() - age_s
        intent = {"run_id": run_id, "submission": 1, "cluster": scheduler, "scheduler": scheduler, "ranks": 1}
        intent |= {"job_name": f"{paths.root.name}.{run_id}", "host": this_host()}
        records: list[dict[str, Any]] = [{"seq": 1, "t": at, "kind": "intent", **intent, **facts}]
        if job_id is not None:
            records.append({"seq": 2, "t": at, "kind": "submitted", "submission": 1, "job_id": job_id})
        paths.client.write_bytes(b"".join(encode(record) for record in records))
        os.utime(paths.config, (at, at))
        if steps:
            paths.attempt(1).mkdir(parents=True)
            with EventLog(paths.events(1)) as log:
                log.append("start", attempt=1, resume_step=0, world_size=1)
                for step in range(1, steps + 1):
                    log.append("step", step=step, loss=1.0 / step, seconds=0.5, tokens=100)
        if status is not None:
            write_json(paths.status, {"attempt": 1, "time": time.time(), **status})
        if done:
            write_json(paths.done, {"step": steps})
        return paths

    return make


@pytest.fixture
def submit(make_run: Callable[..., RunPaths], fake_slurm: Any, tmp_path: Path) -> Callable[..., RunPaths]:
    """A run whose job waits in the fake cluster's queue."""

    def call(name: str = "mine") -> RunPaths:
        run_id, script = new_run_id(), tmp_path / "job.sh"
        script.write_text(f"#!/bin/sh\n#SBATCH --job-name={Path(name).name}.{run_id}\n")
        done = subprocess.run(["sbatch", "--parsable", str(script)], check=True, capture_output=True, text=True)
        return make_run(name, run_id=run_id, job_id=done.stdout.strip(), age_s=0)  # type: ignore[no-any-return]

    return call
