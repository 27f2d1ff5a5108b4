"""What a run was made with: versions, the user's git commit and change, and a snapshot of this package."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hpcft
from hpcft.runs.files import explained, write_atomic, write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import this_user
from hpcft.spec.secrets import without_secrets

_PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "deepspeed",
    "hpcft",
    "peft",
    "submitit",
    "torch",
    "transformers",
    "wandb",
)
_GIT_TIMEOUT_S = 5


def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", "replace")


def record_provenance(paths: RunPaths, project: Path, origins: dict[str, str]) -> None:
    """Write `provenance.json`, and `project.diff` where the user's project has uncommitted changes.

    Args:
        paths: the run directory.
        project: folder that the user submitted from.
        origins: key → where its value came from.
    """
    commit = _git(project, "rev-parse", "HEAD")
    record: dict[str, Any] = {
        "submitted": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": socket.gethostname(),
        "user": this_user(),
        "project": str(project),
        "git_commit": commit.strip() if commit else None,
        "versions": versions(),
        "origins": origins,
    }
    if commit and (diff := _git(project, "diff", "--no-ext-diff", "HEAD")):
        write_atomic(paths.root / "project.diff", without_secrets(diff))
    write_json(paths.provenance, record)


def archive_code(path: Path) -> None:
    """Copy this package into one zip file, which Python imports from: a sweep's trials share it."""
    package = Path(hpcft.__file__).parent
    # Not compressed: that took most of the time of a submission.
    with explained(path, "copy the package"), zipfile.ZipFile(path, "w") as archive:
        for file in sorted(package.rglob("*")):
            parts = file.relative_to(package).parts
            if file.is_file() and not {"__pycache__", "_assets"} & set(parts):
                archive.write(file, "/".join(("hpcft", *parts)))


def snapshot_code(paths: RunPaths) -> None:
    """Copy this package into the run directory: an attempt months later runs what was submitted."""
    package = Path(hpcft.__file__).parent
    with explained(paths.code, "copy the package"):
        shutil.copytree(
            package, paths.code / "hpcft", ignore=shutil.ignore_patterns("__pycache__", "_assets"), symlinks=False
        )
