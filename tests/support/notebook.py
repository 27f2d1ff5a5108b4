"""Notebooks as tests see them: their cells, and a run of these in the test's own process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import forked

from hpcft.cluster.queue import start_time
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run

_SHELL = "%%bash\n"


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def commands(notebook: Path) -> list[list[str]]:
    """The words of every `hpcft` command of a notebook, behind `hpcft`."""
    lines = [line for cell in code_cells(notebook) if cell.startswith(_SHELL) for line in cell.splitlines()[1:]]
    return [shlex.split(line)[1:] for line in lines if line.startswith("hpcft ")]


def run_cells(notebook: Path, call: Callable[..., Any]) -> dict[str, Any]:
    """Run a notebook's cells in this process, from the current folder.

    Args:
        call: runs the words behind `hpcft`, and returns an answer with `code`, `out` and `err`.

    Returns:
        The notebook's variables.
    """
    space: dict[str, Any] = {}
    for cell in code_cells(notebook):
        if not cell.startswith(_SHELL):
            exec(compile(cell, str(notebook), "exec"), space)  # noqa: S102
            continue
        for line in cell.splitlines()[1:]:
            if line.startswith("hpcft "):
                answer = call(*shlex.split(os.path.expandvars(line))[1:])
                assert answer.code == 0, f"{line}\n{answer.out}{answer.err}"
            else:
                subprocess.run(["bash", "-euc", line], check=True, capture_output=True)
    return space


@pytest.fixture
def forked_jobs(small_quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small jobs of this machine, which start as forks of a process that has imported everything."""

    def start(paths: RunPaths, environment: dict[str, str], **_: Any) -> str:
        (process,) = forked.start(Run(paths.root), pictures=True)
        assert process.pid is not None
        return f"{process.pid}-{start_time(process.pid) or '0'}"

    monkeypatch.setattr("hpcft.cluster.submit.start_ranks", start)
    for name, value in {**SMALL, "HPCFT_CACHE": str(small_quickstart)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))


# What makes a lab's jobs small: variables are stronger than the lab's preset.
SMALL = {
    "HPCFT_CLUSTER": "local",
    "HPCFT_TRAINING__MAX_STEPS": "4",
    "HPCFT_TRAINING__PER_DEVICE_TRAIN_BATCH_SIZE": "4",
    "HPCFT_DATA__TRAIN_SAMPLES": "32",
    "HPCFT_DATA__EVAL_SAMPLES": "4",
    "HPCFT_EVALUATION__MAX_NEW_TOKENS": "8",
    "HPCFT_EVALUATION__BOOTSTRAP": "20",
    "HPCFT_BENCH__QUERIES": "3",
    "HPCFT_BENCH__WARMUP": "1",
    "HPCFT_BENCH__REPEATS": "2",
    "HPCFT_TRACKING__MODE": "disabled",
}
