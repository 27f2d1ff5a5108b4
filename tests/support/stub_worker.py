"""A worker without a model, which stands in for `hpcft.worker` in a sweep's snapshot: its loss is the trial's rank.

It keeps the record as the real one does, saves when it is asked to stop, and goes on from there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hpcft.runs.create import begin_attempt
from hpcft.runs.events import EventLog
from hpcft.runs.files import write_json
from hpcft.runs.run import Run

STEP_S = 0.05


def main(root: Path) -> int:
    """Do the steps that are left, and return the exit code."""
    run, stopping = Run(root), []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda n, _: stopping.append(signal.Signals(n).name))
    if run.paths.done.exists():
        return 0
    saved, steps, loss = root / "saved", run.config["training"]["max_steps"], run.config["lora"]["r"]
    first = int(saved.read_text()) if saved.exists() else 0
    attempt = begin_attempt(run.paths)

    def status(state: str, step: int) -> None:
        facts = {"attempt": attempt, "step": step, "total_steps": steps, "time": time.time()}
        write_json(run.paths.status, {"state": state, **facts})

    with EventLog(run.paths.events(attempt)) as log:
        log.append("start", resume_step=first, job_id=os.environ.get("SLURM_JOB_ID"))
        for step in range(first + 1, steps + 1):
            time.sleep(STEP_S)
            log.append("step", step=step, loss=loss)
            status("training", step)
            if stopping and step < steps:
                saved.write_text(str(step))
                log.append("stopped", step=step, reason=stopping[0])
                status("stopped", step)
                return 75
    write_json(run.paths.metrics, {"final/validation_loss": loss})
    write_json(run.paths.done, {"step": steps})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
