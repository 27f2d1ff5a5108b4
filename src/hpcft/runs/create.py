"""Making a run directory: private, never shared by two runs, gone again when the submission is refused."""

from __future__ import annotations

import secrets
import shutil
import string
import time
from pathlib import Path

from hpcft.runs.files import DIR_MODE, explained, make_private
from hpcft.runs.paths import RunPaths


def new_run_id() -> str:
    """A run's id: 10 letters and digits, the same in the job's name, in wandb and here."""
    alphabet = string.ascii_lowercase + string.digits
    return secrets.choice(string.ascii_lowercase) + "".join(secrets.choice(alphabet) for _ in range(9))


def make_run_directory(results: Path, name: str | None, stem: str, now: float | None = None) -> RunPaths:
    """Make `results/<name>/` if a name is given and free, else `<name or stem>_<YYYYmmdd_HHMMSS>[_k]`.

    The folder is taken by an exclusive mkdir: two submissions in one second get two folders.

    Raises:
        NotAllowedError: the folder cannot be made (permission, space, quota, a file in the way).
    """
    stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(now))
    base = f"{name or stem}_{stamp}"
    with explained(results, "make the results folder"):
        make_private(results)
    candidates = ([name] if name else []) + [base]
    suffix = 1
    while True:
        root = results / candidates.pop(0) if candidates else results / f"{base}_{suffix}"
        suffix += not candidates
        with explained(root, "make the run directory"):
            try:
                root.mkdir(mode=DIR_MODE)
            except FileExistsError:
                continue
        return RunPaths(root.absolute())


def discard(paths: RunPaths) -> None:
    """Remove a run directory that never became a run."""
    shutil.rmtree(paths.root, ignore_errors=True)


def begin_attempt(paths: RunPaths) -> int:
    """Take the next attempt's number by an exclusive mkdir, and return it."""
    with explained(paths.attempts, "make the attempt's folder"):
        make_private(paths.attempts)
        number = max(paths.attempt_numbers(), default=0) + 1
        while True:
            try:
                paths.attempt(number).mkdir(mode=DIR_MODE)
            except FileExistsError:
                number += 1
                continue
            return number
