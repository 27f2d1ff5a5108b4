"""What runs inside a job, once a rank: spec in, run directory out.

    python -m hpcft.worker RUN_DIRECTORY

Exit codes: 0 finished (also when an earlier attempt had finished), 75 stopped on request with everything saved,
78 the job cannot be run as it is, 65 bad data, 69 something it needs does not answer, 77 no access
or no room, 1 anything else.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hpcft.errors import HpcftError, NotAllowedError, SecondAttemptError, TryAgainError
from hpcft.runs.attempt import Attempt
from hpcft.runs.files import write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.runs.scratch import keep_compiled_parts
from hpcft.runs.submission import withdrawn
from hpcft.spec.build import build
from hpcft.spec.job import Job
from hpcft.spec.layers import yaml_layer

if TYPE_CHECKING:
    from hpcft.tracking.wandb import Tracker
    from hpcft.train.recorder import Recorder

log = logging.getLogger("hpcft.worker")
# Where the function of a kind of job stands; it has the kind's name.
KINDS = {
    "train": "hpcft.train.run",
    "evaluate": "hpcft.stages.evaluate",
    "merge": "hpcft.stages.merge",
    "quantize": "hpcft.stages.quantize",
    "bench": "hpcft.stages.bench",
    "report": "hpcft.stages.report",
    "lab": "hpcft.stages.lab",
}
_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"


def main(argv: list[str] | None = None) -> int:
    """Run one rank of the job in a run directory, and return its exit code."""
    os.umask(0o077)
    root = Path((argv or sys.argv[1:])[0])
    paths = Run(root).paths
    if paths.done.is_file():
        print(f"{paths.root.name} has finished before; nothing to do", file=sys.stderr)
        return 0
    if withdrawn(paths, os.environ.get("SLURM_JOB_NAME", "")):
        print("this job's submission was given up, since Slurm did not know it; nothing to do", file=sys.stderr)
        return 0
    keep_compiled_parts(os.environ)
    from hpcft.train.stop import Stopped, StopRequest

    stop = StopRequest()
    stop.listen()
    _log_to(logging.StreamHandler(sys.stderr))
    recorder: Recorder | None = None
    held: Attempt | None = None
    try:
        # Before the heavy imports, so that a mistake in the environment is told at once.
        from hpcft.train.device import choose_device
        from hpcft.train.ranks import from_first, join, read_rank

        job = build([yaml_layer(paths.config)]).job
        intent = next((r for r in Run(root).journal() if r["kind"] == "intent"), {})
        rank = read_rank(os.environ)
        device = choose_device(job.resources.accelerator, str(intent.get("scheduler", "local")), rank)
        join(rank, device, deepspeed=job.zero_stage is not None)
        refusal = ""
        if rank.is_first:
            held, refusal = _begin(paths)
        attempt, refusal, finished = from_first((held.number if held else 0, refusal, paths.done.is_file()))
        if refusal:
            raise SecondAttemptError(refusal)
        if finished:
            # By an attempt that was still at it when this one started.
            return 0
        _log_to(logging.FileHandler(paths.rank_log(attempt, rank.rank), encoding="utf-8"))
        if rank.is_first:
            from hpcft.train.recorder import Recorder

            _log_to(logging.FileHandler(paths.logs, encoding="utf-8"))
            recorder = Recorder(paths, attempt, job.tracking.log_every)
            recorder.status("starting", message=f"attempt {attempt} on {device}, {rank.world_size} rank(s)")
            log.info("attempt %d: %s on %s, %d rank(s)", attempt, paths.root.name, device, rank.world_size)
            recorder.follow_loading()
            recorder.tracker = _start_tracking(job, paths, intent, rank.world_size)

        from hpcft.train.context import Context

        work = import_module(KINDS[job.kind])
        getattr(work, job.kind)(Context(job, paths, rank, device, attempt, recorder, stop))
        _stop_tracking(recorder, paths, job, exit_code=0)
        if recorder is not None:
            recorder.status("finished", message="finished")
        _leave_group()
        return 0
    except Stopped as stopped:
        log.warning("%s (%s)", stopped, stop.reason)
        if recorder is not None:
            recorder.event("stopped", step=stopped.step, reason=stop.reason)
            recorder.status("stopped", message=str(stopped))
            _stop_tracking(recorder, paths, None, exit_code=TryAgainError.exit_code)
        return TryAgainError.exit_code
    except SecondAttemptError as error:
        # The record is another attempt's: nothing is written into it, and wandb's run is not ended.
        log.error("%s", error)
        return error.exit_code
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = error.exit_code if isinstance(error, HpcftError) else NotAllowedError.exit_code if full else 1
        reason = str(error) if isinstance(error, HpcftError) else f"{type(error).__name__}: {error}"
        log.error("failed with exit code %d: %s", code, reason)
        if not isinstance(error, HpcftError):
            traceback.print_exc()
        # A full disk takes no last words; then the exit code alone says why.
        with suppress(HpcftError, OSError):
            if recorder is not None:
                recorder.event("failed", code=code, reason=reason, traceback=traceback.format_exc())
                recorder.status("failed", message=reason)
                _stop_tracking(recorder, paths, None, exit_code=code)
            elif _first_rank_guess():
                # Failed before the attempt had a folder: the heartbeat alone can still say why.
                write_json(paths.status, {"state": "failed", "attempt": 0, "message": reason, "time": time.time()})
        with suppress(HpcftError, OSError):
            if recorder is not None:
                recorder.close()
        recorder = None
        return code
    finally:
        if recorder is not None:
            recorder.close()
        if held is not None:
            held.end()


def _begin(paths: RunPaths) -> tuple[Attempt | None, str]:
    """Begin an attempt; or why not. As a text, since all ranks are to hear it."""
    try:
        return Attempt(paths), ""
    except SecondAttemptError as error:
        return None, str(error)


def _first_rank_guess() -> bool:
    return all(os.environ.get(k, "0") == "0" for k in ("RANK", "SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID"))


def _leave_group() -> None:
    """Leave the process group in good order; at a failure the others learn of it by the closed connection."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger("hpcft")
    root.setLevel(logging.INFO)
    # Some library configures the root logger too, and each line would stand twice.
    root.propagate = False
    root.addHandler(handler)


def _start_tracking(job: Job, paths: RunPaths, intent: dict[str, object], world_size: int) -> Tracker:
    from hpcft.tracking.config import wandb_settings
    from hpcft.tracking.credentials import adopted_run_id, resolve_mode
    from hpcft.tracking.wandb import Tracker

    settings = wandb_settings(job, adopted_run_id() or str(intent.get("run_id", paths.root.name)), world_size)
    return Tracker(paths.wandb, resolve_mode(job.tracking.mode, bool(intent.get("internet", True))), settings, log)


def _stop_tracking(recorder: Recorder | None, paths: RunPaths, job: Job | None, *, exit_code: int) -> None:
    """End wandb's run, with the model as an artifact when the job is given. It may take ten seconds at most."""
    if recorder is None or recorder.tracker is None:
        return
    if job is not None and job.tracking.log_model and paths.final_model.is_dir():
        from hpcft.tracking.config import model_metadata

        recorder.tracker.artifact(paths.final_model, *model_metadata(job, paths.root.name))
    report = recorder.tracker.finish(timeout_s=10.0, exit_code=exit_code)
    recorder.event("tracking", **vars(report))
    lacks = report.mode == "offline" or (report.mode == "online" and not report.finished)
    if lacks and exit_code != TryAgainError.exit_code:
        log.info("wandb has not all of it; from a machine that reaches its server: hpcft sync %s", paths.root)


if __name__ == "__main__":
    sys.exit(main())
