"""submitit's executors, running our script and our worker instead of a pickled function."""

from __future__ import annotations

import os
import re
import shlex
import threading
from typing import Any

from submitit import LocalExecutor, SlurmExecutor

from hpcft.cluster.queue import start_time
from hpcft.cluster.slurm import call
from hpcft.errors import HpcftError
from hpcft.runs.files import write_atomic
from hpcft.runs.paths import RunPaths


class Refused(Exception):
    """sbatch said no: nothing was queued. The text is Slurm's."""


class Doubt(Exception):
    """sbatch did not say whether the job was queued."""


# Errors after which the job may have been queued all the same: the request had been sent. A connect failure is none.
_DOUBTFUL = re.compile(
    r"timed out|timeout|connection (reset|closed)|broken pipe|zero bytes|unexpected message|insane message"
    r"|(send|receive|shutdown) failure",
    re.IGNORECASE,
)
_SBATCH_TIMEOUT_S = 60.0


class ScriptExecutor(SlurmExecutor):
    """Submits one rendered script by one sbatch call.

    Of submitit's executor it keeps what a batch submission is and how its answer is read; the text is ours, no
    pickle is written, the call has a time limit, and the only file is the run directory's `job.sh`.
    """

    def __init__(self, paths: RunPaths, script: str) -> None:
        super().__init__(folder=paths.root)
        self._paths = paths
        self._script = script

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._script

    def queue(self) -> str:
        """Write the script, submit it, and return the job's id.

        Raises:
            Refused: Slurm said no. Doubt: it is not known whether the job was queued.
        """
        write_atomic(self._paths.script, self._make_submission_file_text("", ""))
        answer = call(self._make_submission_command(self._paths.script), timeout_s=_SBATCH_TIMEOUT_S)
        if answer.code is None and "not found" in answer.err:
            raise Refused(answer.err)
        if answer.code is None or (answer.code != 0 and _DOUBTFUL.search(answer.err)):
            raise Doubt(answer.err.strip())
        if answer.code < 0 or (answer.code != 0 and not answer.err.strip()):
            # Killed, or gone without a word: a refusal has words.
            raise Doubt(f"sbatch ended with {answer.code} and no reason")
        if answer.code != 0:
            raise Refused(answer.err.strip())
        try:
            return str(self._get_job_id_from_submission_command(answer.out))
        except RuntimeError as error:
            raise Doubt(f"sbatch answered '{answer.out.strip()[:200]}'") from error


class ProcessExecutor(LocalExecutor):
    """Runs the ranks of a job on this machine, in a session of their own that outlives the terminal.

    Args:
        environment: what the ranks get; nothing else of this process's environment.
        python: interpreter of the ranks.
    """

    def __init__(
        self, paths: RunPaths, environment: dict[str, str], python: str, ranks: int, minutes: float, grace_s: int
    ) -> None:
        super().__init__(folder=paths.root / "local")
        self._paths = paths
        self._interpreter = python
        self._environment = environment
        self.update_parameters(tasks_per_node=ranks, timeout_min=minutes, signal_delay_s=grace_s, stderr_to_stdout=True)

    @property
    def _submitit_command_str(self) -> str:
        # submitit numbers the GPUs itself; the ranks are to see those that the user sees.
        visible = self._environment.get("CUDA_VISIBLE_DEVICES")
        gpus = ["-u", "CUDA_VISIBLE_DEVICES"] if visible is None else [f"CUDA_VISIBLE_DEVICES={visible}"]
        # -P: a datasets.py in the current folder is not the library.
        return shlex.join(["env", *gpus, self._interpreter, "-P", "-m", "hpcft.worker", str(self._paths.root)])

    def start(self) -> str:
        """Start the ranks and return the job's id, `pid-starttime` of the process that watches them.

        The start is made in a forked child with a session of its own, so that neither Ctrl-C nor a closed terminal
        reaches the job. Forking is safe here: the command line has no other thread yet.

        Raises:
            HpcftError: there are other threads, or the ranks cannot be started.
        """
        if threading.active_count() > 1:
            raise HpcftError(
                "a local job can only be started from a program with one thread", hint="use the hpcft command"
            )
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.close(reader)
                null = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(null, stream)
                os.environ.clear()
                os.environ.update(self._environment)
                job: Any = self._submit_command(self._submitit_command_str)
                os.write(writer, job.job_id.encode())
            except Exception as error:
                # Whatever it is: this process has no terminal and ends here, so the parent has to tell it.
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            pid = pipe.read().decode()
        os.waitpid(child, 0)
        if not pid.isdecimal():
            raise HpcftError(f"the local job could not be started: {pid}", where=str(self._paths.root))
        self._paths.batch_log.symlink_to(f"local/{pid}_0_log.out")
        return f"{pid}-{start_time(int(pid)) or '0'}"
