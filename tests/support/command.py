"""The command line, called in the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcft.cli import preflight as cli_preflight
from hpcft.cli.main import main
from hpcft.cluster import preflight as cluster_preflight


@dataclass
class Result:
    """What a call printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def hpcft(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call `hpcft …` in an empty project folder."""

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["hpcft", *arguments])
        # What a process asks once, and says once.
        cluster_preflight._ask.cache_clear()
        cli_preflight._warn.cache_clear()
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(bool(error.code))
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call
