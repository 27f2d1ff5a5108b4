"""The documentation: every command runs as it stands, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Pages that run jobs, half a minute each. The others and the README's tour are in every round.
LONG = (
    *(
        "comparing",
        "configuration",
        "distillation",
        "finding-runs",
        "getting-started",
        "offline-nodes",
        "sensitivity",
        "sweeps",
    ),
    *("tracking", "why-a-job-failed"),
)
_BLOCK = re.compile(r"^```bash([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(mark, commands) of a page's shell blocks."""
    return [(mark.strip(), text) for mark, text in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def page_of(path: Path) -> Any:
    return pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else [])


@pytest.mark.parametrize("page", [page_of(p) for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_u11_every_command_of_a_page_runs_as_it_stands(page: Path, tmp_path: Path, small_quickstart: Path) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "HPCFT_CACHE": str(small_quickstart),
        "HPCFT_CLUSTER": "local",
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "home").mkdir()
    # `source .venv/bin/activate` is for a checkout; here the programs are in PATH already.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for mark, commands in blocks(page):
        if mark.startswith("no-run:"):
            continue
        assert mark == "", f"{page.name}: a block's mark is empty or `no-run: reason`, not '{mark}'"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{page.name}:\n{commands}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"


def test_few_blocks_cannot_be_run_here() -> None:
    marks = [(page.name, mark) for page in PAGES for mark, _ in blocks(page) if mark]
    assert len(marks) <= 8, marks


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
