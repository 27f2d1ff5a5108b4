"""The worker in processes that need not import again, and that a test can reach into.

They are forked from a server that has imported everything and done nothing: one forked from the test's own process
would have what other tests did there, and torch refuses to differentiate in a fork of a process that has done so.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import cloudpickle

from hpcft.runs.run import Run


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    ours = ["hpcft.worker", "hpcft.train.run", "hpcft.train.finish", "hpcft.measure.flops", "hpcft.viz.training"]
    theirs = ["torch", "torch._refs", "deepspeed", "transformers.trainer", "wandb", "matplotlib.pyplot"]
    scores = ["sacrebleu", "nltk", "rouge_score.rouge_scorer"]
    context.set_forkserver_preload([*theirs, *scores, *ours])
    return context


def start(
    run: Run, ranks: int = 1, before: Callable[[int], None] | None = None, *, pictures: bool = False
) -> list[Any]:
    """Start a job's ranks.

    Args:
        before: called in each rank with its number, before the worker: to change what it will meet.
        pictures: draw what a run ends with, which takes half the time of a small job.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if before is not None:
        _send_by_value(before)
    rest = (run.paths.root, ranks, port, pictures, dict(os.environ), cloudpickle.dumps(before))
    processes = [_server().Process(target=_rank, args=(rank, *rest)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def _send_by_value(function: Callable[..., None]) -> None:
    """Send what a function of a test calls along with it: the server cannot import a test's module."""
    if function.__module__ != __name__ and function.__module__ in sys.modules:
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])


def work(
    run: Run,
    ranks: int = 1,
    before: Callable[[int], None] | None = None,
    timeout_s: float = 240,
    *,
    pictures: bool = False,
) -> int:
    """Do a run's job; the highest exit code of its ranks, as srun gives it: 128 + N for one that signal N ended."""
    processes = start(run, ranks, before, pictures=pictures)
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


def _rank(
    rank: int, root: Path, ranks: int, port: int, pictures: bool, environment: dict[str, str], act: bytes
) -> None:
    # The server's own is as old as the server.
    os.environ.clear()
    os.environ |= environment
    run = Run(root)
    log = os.open(run.paths.batch_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from hpcft.train import finish
    from hpcft.worker import main

    torch.set_num_threads(1)
    if not pictures:
        finish.draw = lambda *_: None
    before: Callable[[int], None] | None = cloudpickle.loads(act)
    if before is not None:
        before(rank)
    code = main([str(run.paths.root)])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def at_micro_batch(number: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Do something when a rank begins its n-th micro-batch."""
    _send_by_value(act)

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


def at_the_end(act: Callable[[], None]) -> Callable[[int], None]:
    """Do something when everything is trained and the results are to be written."""
    _send_by_value(act)

    def before(_: int) -> None:
        from hpcft.train import finish

        finish.write_results = lambda *_: act()  # type: ignore[assignment]

    return before


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
