"""Looking at a shell script: whether bash can read it, and what shellcheck says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))


def lint(text: str, tmp_path: Path) -> None:
    """Refuse a script that bash cannot read, or that shellcheck finds fault with."""
    file = tmp_path / "job.sh"
    file.write_text(text)
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True).stderr == ""
    done = subprocess.run([SHELLCHECK, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
