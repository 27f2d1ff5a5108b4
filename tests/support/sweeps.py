"""Sweeps' folders as they are before anything was submitted, and trials as a worker leaves them."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcft.cli.job_options import Plan
from hpcft.cli.trials import SweepPlan, make_sweep
from hpcft.cluster.profile import Profile
from hpcft.cluster.trial import find_trial, make_trial
from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.sweep import SweepFolder, Trial
from hpcft.spec.build import build
from hpcft.spec.layers import mapping_layer
from hpcft.spec.sweep import Sweep, short_sweep

PROFILE = Profile.model_validate({"name": "site", "resources": {"accelerator": "cpu"}})


def sweep_folder(
    results: Path,
    trials: int,
    sweep: Sweep | None = None,
    scheduler: str = "slurm",
    job: dict[str, Any] | None = None,
    **others: Any,
) -> SweepFolder:
    """A sweep of so many trials that differ in their rank.

    Args:
        job: keys of the job besides.
        others: of the plan: `concurrency`, `seed`.
    """
    wanted = {"results": str(results), "name": "mine", "model.name": "quickstart", "data.dataset": "quickstart"}
    resolved = build([mapping_layer(wanted | (job or {}), "test")])
    profile = Profile.model_validate({"name": scheduler, "scheduler": scheduler})
    known = [
        Trial(n, {"lora.r": 1 + n % 4096}) for n in range(trials if sweep is None or sweep.method != "bayes" else 0)
    ]
    plan = SweepPlan(
        sweep or short_sweep(["lora.r=1,2"], None, 42),
        Plan(resolved, profile, "", "mine"),
        known,
        trials,
        others.get("seed", 0),
        others.get("concurrency"),
        scheduler,
    )
    return make_sweep(plan)


def play(sweep: SweepFolder, number: int, losses: Sequence[float], state: str = "training", total: int = 10) -> None:
    """Leave a trial's run directory as its worker would after so many validations, one at each step.

    Args:
        state: `training`, `done`, or another of a status.
    """
    _, paths = make_trial(sweep, find_trial(sweep, number))
    paths.attempt(1).mkdir(parents=True, exist_ok=True)
    paths.events(1).unlink(missing_ok=True)
    with EventLog(paths.events(1), sync_seconds=0) as log:
        log.append("start", resume_step=0)
        for step, loss in enumerate(losses, 1):
            log.append("validation", step=step, metrics={"validation/loss": loss})
    said = "finishing" if state == "done" else state
    facts = {"attempt": 1, "step": len(losses), "total_steps": total, "time": time.time()}
    write_json(paths.status, {"state": said, **facts})
    if state == "done":
        write_json(paths.metrics, {"final/validation_loss": losses[-1]})
        write_json(paths.done, {"step": len(losses)})


def stub_worker(sweep: SweepFolder) -> None:
    """Let the worker in the sweep's snapshot of the package be the one of `stub_worker.py`."""
    old = sweep.paths.archive.with_suffix(".old")
    sweep.paths.archive.rename(old)
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(sweep.paths.archive, "w") as archive:
        for name in before.namelist():
            if name != "hpcft/worker.py":
                archive.writestr(name, before.read(name))
        archive.write(Path(__file__).with_name("stub_worker.py"), "hpcft/worker.py")
    old.unlink()
