"""A newcomer's path: a clean account, the README's commands and nothing else, up to the first finished run."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
# How this machine reaches the package index. What else is in a developer's shell, a newcomer does not have.
_WAY_OUT = re.compile(r"(PIP|UV|SSL)_[A-Z_]+|(https?|all|no)_proxy|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.IGNORECASE)

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass
class Newcomer:
    """A fresh account.

    Attributes:
        name: of the account. home: its home folder.
        upstream: a repository that it can clone, with the files of this working tree.
    """

    name: str
    home: Path
    upstream: Path

    def types(self, commands: list[str]) -> subprocess.CompletedProcess[str]:
        """Type commands into one login shell, which stops at the first that fails."""
        way_out = {key: value for key, value in os.environ.items() if _WAY_OUT.fullmatch(key)}
        account = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "PATH": _PATH, "LANG": "C.UTF-8"}
        return subprocess.run(
            ["bash", "--login", "-e", "-c", "\n".join(commands)],
            user=self.name,
            group=self.name,
            extra_groups=[],
            umask=0o022,
            cwd=self.home,
            env=way_out | account,
            capture_output=True,
            text=True,
            timeout=1500,
        )

    def files_elsewhere(self) -> list[Path]:
        """Everything that is owned by the account outside its home and the repository that it cloned."""
        places = [p for p in ("/", "/tmp", "/var/tmp", "/dev/shm", "/run") if Path(p).is_dir()]
        found = subprocess.run(
            ["find", *places, "-xdev", "-user", self.name, "-print0"], capture_output=True, text=True
        ).stdout.split("\0")
        return sorted({Path(p) for p in found if p and not Path(p).is_relative_to(self.home)} - self._of_upstream())

    def _of_upstream(self) -> set[Path]:
        return {self.upstream, *self.upstream.rglob("*")}


def _publish(folder: Path) -> None:
    """Put the tracked and new files of this working tree into a repository of their own."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-C", str(folder), "-c", "user.name=maintainer", "-c", "user.email=maintainer@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "the tree as it stands"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    if os.geteuid() != 0 or any(shutil.which(tool) is None for tool in ("useradd", "make", "git")):
        pytest.skip("a clean account needs root, useradd, make and git")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    with tempfile.TemporaryDirectory(prefix="hpcft-index-") as probe:
        pip = [shutil.which("python3", path=_PATH) or "python3", "-m", "pip"]
        reached = subprocess.run([*pip, "download", "-q", "--no-deps", "-d", probe, "uv"], capture_output=True)
    if reached.returncode != 0:
        pytest.skip("the installation needs a package index, and none is reached")
    name = f"hpcft-new-{os.getpid()}"
    home = Path("/srv") / name
    subprocess.run(["useradd", "-m", "-d", str(home), "-s", "/bin/bash", name], check=True)
    upstream = Path(tempfile.mkdtemp(prefix="hpcft-upstream-"))
    user = Newcomer(name, home, upstream)
    try:
        _publish(upstream)
        # git clones from no one else's folder.
        subprocess.run(["chown", "-R", f"{name}:", str(upstream)], check=True)
        yield user
    finally:
        uid = pwd.getpwnam(name).pw_uid
        for process in psutil.process_iter(["uids"]):
            if process.info["uids"] and process.info["uids"].real == uid:
                process.kill()
        shutil.rmtree(upstream)
        for path in user.files_elsewhere():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        subprocess.run(["userdel", "-r", name], check=True, capture_output=True)


def first_commands(upstream: Path) -> list[str]:
    """The README's commands up to the first finished run, with the address of the clone filled in."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    commands = [line for line in lines if line]
    upto = next(i for i, line in enumerate(commands) if line.startswith("make demo"))
    return [line.replace("ADDRESS", str(upstream)) for line in commands[: upto + 1]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_u1_a_clean_account_finishes_its_first_run_in_three_commands(newcomer: Newcomer) -> None:
    commands = first_commands(newcomer.upstream)
    assert len(commands) <= 3
    began = time.monotonic()
    done = newcomer.types(commands)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(f"clone, installation and first run: {seconds:.0f} s on {os.cpu_count()} cores")

    clone = newcomer.home / "hpcft"
    (run,) = (clone / "results").iterdir()
    assert json.loads((run / "done.json").read_text())
    assert (run / "final_model" / "adapter_model.safetensors").is_file()
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    # No file was edited.
    changed = newcomer.types([f"git -C {clone} status --porcelain"])
    assert changed.stdout == ""
    # Beside its home there are folders that only it can read, and the installer's empty lock files.
    for path in newcomer.files_elsewhere():
        inside_own = any(stat.S_IMODE(p.stat().st_mode) == 0o700 and p.owner() == newcomer.name for p in path.parents)
        private = inside_own or stat.S_IMODE(path.lstat().st_mode) == 0o700
        lock = path.name.startswith("uv-") and path.suffix == ".lock" and path.stat().st_size == 0
        assert private or lock, f"{path} {oct(path.lstat().st_mode)}"


def test_the_readme_takes_three_commands_to_the_first_run() -> None:
    assert len(first_commands(Path("/upstream"))) <= 3
