"""What a job runs in, the same for every kind of job."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from hpcft.runs.paths import RunPaths
from hpcft.spec.job import Job
from hpcft.train.ranks import Rank
from hpcft.train.recorder import Recorder
from hpcft.train.stop import Stopped, StopRequest

log = logging.getLogger(__name__)


@dataclass
class Context:
    """What a job runs in.

    Attributes:
        recorder: on rank 0; None elsewhere.
    """

    job: Job
    paths: RunPaths
    rank: Rank
    device: torch.device
    attempt: int
    recorder: Recorder | None
    stop: StopRequest

    def say(self, state: str, message: str) -> None:
        """Tell what is being done."""
        if self.recorder is not None:
            log.info(message)
            self.recorder.status(state, message=message)

    def go_on(self) -> None:
        """Leave here when somebody ended the job. The time limit's signal alone is no reason: what is not training
        has nothing to save, and may still end in time.

        Raises:
            Stopped: a signal has come to end this process, which is the only rank.
        """
        if self.rank.world_size == 1 and self.stop.reason in ("SIGTERM", "SIGINT"):
            raise Stopped(0)
