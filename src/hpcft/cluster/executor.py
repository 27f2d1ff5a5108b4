"""submitit's Slurm executor, submitting our script instead of a pickled function."""

from __future__ import annotations

import re
from collections.abc import Sequence

from submitit import SlurmExecutor

from hpcft.cluster.slurm import call
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

    def queue(self, keep_open: Sequence[int] = ()) -> str:
        """Write the script, submit it, and return the job's id.

        Args:
            keep_open: descriptors that sbatch inherits: a lock on one is held until it has ended too.

        Raises:
            Refused: Slurm said no. Doubt: it is not known whether the job was queued.
        """
        write_atomic(self._paths.script, self._make_submission_file_text("", ""))
        command = self._make_submission_command(self._paths.script)
        answer = call(command, timeout_s=_SBATCH_TIMEOUT_S, keep_open=keep_open)
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
