"""A newcomer's path in a clean account: the README's commands alone, nothing edited, to a first finished run."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAME = "hpcftnew"


@pytest.fixture
def newcomer() -> Iterator[Path]:
    """A user with a home elsewhere than in /home; removed afterwards."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("making a user needs root")
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs a Python that other users can run")
    home = Path("/srv/hpcft-newcomer")
    subprocess.run(["useradd", "--create-home", "--home-dir", str(home), "--shell", "/bin/bash", NAME], check=True)
    try:
        yield home
    finally:
        subprocess.run(["userdel", "--remove", NAME], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_u1_the_first_finished_run_takes_a_clone_and_one_command(newcomer: Path, tmp_path: Path) -> None:
    bundle = newcomer / "hpcft.bundle"
    subprocess.run(["git", "-C", str(ROOT), "bundle", "create", str(bundle), "HEAD"], check=True, capture_output=True)
    bundle.chmod(0o644)
    first = re.search(r"```bash\n(make demo)\b", (ROOT / "README.md").read_text())
    assert first is not None, "the README's first command"
    environment = {k: v for k, v in os.environ.items() if k.startswith(("UV_", "PIP_", "SSL_"))}
    environment |= {"HOME": str(newcomer), "USER": NAME, "LOGNAME": NAME, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    entry = pwd.getpwnam(NAME)
    for command in (f"git clone -q {bundle} tool", f"cd tool && {first[1]}"):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=newcomer,
            env=environment | {"LANG": "C.UTF-8"},
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    runs = list((newcomer / "tool" / "results").glob("*/done.json"))
    assert len(runs) == 1
    changed = subprocess.run(
        ["git", "-c", f"safe.directory={newcomer}/tool", "-C", str(newcomer / "tool"), "status", "--porcelain"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert changed == "", "nothing was edited"
