"""Hostile texts, and whether a script that one has reached is harmless."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("HPCFT_TEST_HOSTILE", "150"))
PIECES = [
    "$(touch CANARY)",
    "`touch CANARY`",
    "; touch CANARY #",
    "\ntouch CANARY\n",
    "\r\n#SBATCH --wrap=touch",
    "' || touch CANARY '",
    '" && touch CANARY "',
    "\0",
    "\x1b[31m",
    "\u2028",
    "\u202e",
    "\\",
    "%j",
    "../../",
    "~root",
    "--wrap=ls",
    "-",
    "=",
    "#SBATCH",
    "é",
    "漢字",
    "a b",
    "\t",
    "${HOME}",
    "\ud800",
]
hostile = st.one_of(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=4).map("".join),
    st.text(max_size=40),
    st.sampled_from(PIECES).map(lambda piece: piece * 500),
)
few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def directives(script: str) -> list[str]:
    """Names of the #SBATCH options of a script, in order."""
    return re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for what a script calls, in which nothing may appear."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "bin").mkdir()
    for name in ("srun", "scontrol", "module", "sleep"):
        (folder / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def harmless(script: str, stage: Path, plain: str) -> None:
    """The script has the directives of a plain one, is valid, and running it does nothing besides."""
    extra = set(directives(script)) - {"partition", "account", "qos", "constraint", "mem", "cpus-per-task"}
    assert extra == set(directives(plain))
    environment = {"PATH": f"{stage / 'bin'}:/usr/bin:/bin", "HOME": str(stage), "SLURM_JOB_ID": "1"}
    environment |= {"SLURM_JOB_NODELIST": "n1"}
    done = subprocess.run(
        ["bash"], input=script, cwd=stage, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in stage.iterdir()) == ["bin"], "the script made something"
