"""Stands before the worker's command line in a profile's `container`, and breaks one thing in the rank it starts.

    python faulty_worker.py FAULT python -P -m hpcft.worker RUN

Everything else is the real worker: it logs, records and ends as it does in any job.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


def port(run: Path) -> None:
    """Somebody else listens where the ranks want to meet."""
    if os.environ["SLURM_PROCID"] == "0":
        taken = socket.create_server(("", int(os.environ["MASTER_PORT"])))
        _KEPT.append(taken)


def data(run: Path) -> None:
    """The file is overwritten after the submission has looked at it."""
    if os.environ["SLURM_PROCID"] == "0":
        config = yaml.safe_load((run / "config.yaml").read_text())
        Path(config["data"]["dataset"]).write_text('source,target\nred,rouge\n"blue,bleu\n')


def offline(run: Path) -> None:
    """The hub's client is told that there is no internet, which spares the test its attempts."""
    os.environ["HF_HUB_OFFLINE"] = "1"


_KEPT: list[socket.socket] = []
BEFORE: dict[str, Callable[[Path], None]] = {"port": port, "data": data, "offline": offline}


def memory(context: Any) -> None:
    """More than any machine has."""
    import torch

    torch.empty(2**46)


def gloo(context: Any) -> None:
    """A rank that does not come to where the others wait."""
    import torch
    import torch.distributed as dist

    group = dist.new_group(timeout=timedelta(seconds=3), backend="gloo")
    if context.rank.rank == 1:
        time.sleep(20)
    dist.all_reduce(torch.zeros(1), group=group)


def kill(context: Any) -> None:
    """Somebody ends a rank from outside."""
    import torch.distributed as dist

    if context.rank.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def deaf(context: Any) -> None:
    """It works on and on, and does not hear that it is to stop."""
    from hpcft.train.resume import require_gain

    require_gain(context, 0)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


INSTEAD: dict[str, Callable[[Any], None]] = {"memory": memory, "gloo": gloo, "kill": kill, "deaf": deaf}


def main() -> int:
    """Break it, and be the worker."""
    fault, command = sys.argv[1], sys.argv[2:]
    if "hpcft.worker" not in command:
        # The batch script's question after a failure.
        os.execvp(command[0], command)  # noqa: S606
    sys.path.pop(0)
    from hpcft import worker

    run = Path(command[-1])
    if fault in BEFORE:
        BEFORE[fault](run)
    else:
        broken = ModuleType("broken")
        broken.train = INSTEAD[fault]  # type: ignore[attr-defined]
        sys.modules["broken"] = broken
        worker.KINDS["train"] = "broken"
    return worker.main([str(run)])


if __name__ == "__main__":
    sys.exit(main())
