"""Errors that a user can mend, and the exit code that each ends the program with.

Every message says what is wrong, `where` it stands (file and line, option, key) and, as `hint`, what to do
next. The command line prints them without a traceback; `--debug` shows it.
"""

from __future__ import annotations


class HpcftError(Exception):
    """Base of all errors that are shown to the user as text.

    Args:
        message: what is wrong, one sentence.
        where: the place: `jobs/a.yaml:12`, `--lr`, `HPCFT_TRAINING__SEED`, `events.jsonl:7`.
        hint: what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(HpcftError):
    """A command line that cannot be understood."""

    exit_code = 2


class DataError(HpcftError):
    """A data file or a record that cannot be used as it is."""

    exit_code = 65


class UnavailableError(HpcftError):
    """Slurm, wandb or a model hub does not answer, or refuses."""

    exit_code = 69


class TryAgainError(HpcftError):
    """Stopped on request with everything saved: the same job can go on."""

    exit_code = 75


class NotAllowedError(HpcftError):
    """A file or folder that this user may not read or write, or no space left in it."""

    exit_code = 77


class ConfigError(HpcftError):
    """A job, profile or configuration with a wrong value."""

    exit_code = 78


class FutileError(HpcftError):
    """Trying the same again would end the same: the loss is NaN, or no attempt gained a step."""

    exit_code = 78


class SecondAttemptError(HpcftError):
    """Another attempt of the same run is alive, or newer than this one."""

    exit_code = 78
