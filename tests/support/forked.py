"""The worker in processes that are forked from the test: they need not import again, and a test can reach into them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from hpcft.runs.run import Run


def warm_up() -> None:
    """Import once what every fork then has."""
    import torch
    import transformers.trainer  # noqa: F401

    import hpcft.train.run  # noqa: F401

    torch.set_num_threads(1)


def start(run: Run, ranks: int = 1, before: Callable[[int], None] | None = None) -> list[Any]:
    """Start a job's ranks.

    Args:
        before: called in each rank with its number, before the worker: to change what it will meet.
    """
    warm_up()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(run, rank, ranks, port, before)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def work(run: Run, ranks: int = 1, before: Callable[[int], None] | None = None, timeout_s: float = 240) -> int:
    """Do a run's job; the highest exit code of its ranks, as srun gives it: 128 + N for one that signal N ended."""
    processes = start(run, ranks, before)
    codes = []
    for process in processes:
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"a rank hangs\n{run.paths.batch_log.read_text()[-3000:]}")
        codes.append(process.exitcode if process.exitcode >= 0 else 128 - process.exitcode)
        if process.exitcode < 0:
            # As srun --wait does, sooner.
            for other in processes:
                other.kill()
    return max(codes)


def _rank(run: Run, rank: int, ranks: int, port: int, before: Callable[[int], None] | None) -> None:
    log = os.open(run.paths.batch_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if before is not None:
        before(rank)
    from hpcft.worker import main

    code = main([str(run.paths.root)])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def at_micro_batch(number: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Do something when a rank begins its n-th micro-batch."""

    def before(_: int) -> None:
        from hpcft.train.trainer import FineTuner

        whole, count = FineTuner.training_step, 0

        def training_step(self: FineTuner, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                act()
            return whole(self, *args, **kwargs)

        FineTuner.training_step = training_step  # type: ignore[method-assign]

    return before


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
