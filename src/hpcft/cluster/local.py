"""submitit's local executor, running our worker: the ranks of a job on this machine, detached from the terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from hpcft.cluster.queue import start_time
from hpcft.errors import HpcftError
from hpcft.runs.paths import RunPaths


def start_ranks(
    paths: RunPaths, environment: dict[str, str], *, python: str, ranks: int, minutes: float, grace_s: int
) -> str:
    """Start the ranks of a job.

    A process in a session of its own does it, so that neither Ctrl-C nor a closed terminal reaches the job; it ends
    as soon as submitit's controller, which watches the ranks, is running.

    Args:
        environment: what the ranks get; nothing else of this process's environment.
        python: interpreter of the ranks.
        minutes: time limit. grace_s: the warning comes this long before it.

    Returns:
        The job's id, `pid-starttime` of the controller.

    Raises:
        HpcftError: the ranks cannot be started.
    """
    # -P: a datasets.py in the current folder is not the library.
    command = [sys.executable, "-P", "-m", "hpcft.cluster.local"]
    command += [str(paths.root), python, str(ranks), str(minutes), str(grace_s)]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
    )
    answer = done.stdout.decode("utf-8", "replace").strip()
    if not answer.isdecimal():
        reason = answer or done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise HpcftError(f"the local job could not be started: {reason}", where=str(paths.root))
    # Of a run that goes on it is the log of the job before, which stays in its folder.
    paths.batch_log.unlink(missing_ok=True)
    paths.batch_log.symlink_to(f"local/{answer}_0_log.out")
    return f"{answer}-{start_time(int(answer)) or '0'}"


def _start(paths: RunPaths, python: str, ranks: int, minutes: float, grace_s: int) -> str:
    """Start submitit's controller from this process, and return its pid."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=paths.root / "local")
    executor.update_parameters(tasks_per_node=ranks, timeout_min=minutes, signal_delay_s=grace_s, stderr_to_stdout=True)
    # submitit numbers the GPUs itself; the ranks are to see those that the user sees.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = ["-u", "CUDA_VISIBLE_DEVICES"] if visible is None else [f"CUDA_VISIBLE_DEVICES={visible}"]
    # The snapshot is for the ranks alone: this process runs the package as it is now.
    command = ["env", *gpus, f"PYTHONPATH={paths.code}", python, "-P", "-m", "hpcft.worker", str(paths.root)]
    return str(executor._submit_command(shlex.join(command)).job_id)


def main() -> None:
    """Start the controller and print its pid, or why it could not be started."""
    root, python, ranks, minutes, grace_s = sys.argv[1:]
    # The controller inherits the standard streams and would hold the reader's pipe open for the job's whole life.
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.umask(0o077)
    try:
        said = _start(RunPaths(Path(root)), python, int(ranks), float(minutes), int(grace_s))
    except Exception as error:
        # Whatever it is: this process has no terminal and ends here, so its parent has to tell it.
        said = f"{type(error).__name__}: {error}"
    os.write(answer, said.encode())


if __name__ == "__main__":
    main()
