"""Whether what a job writes has a place: folders, space, quota, locks, and a clock that agrees."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from pathlib import Path

from hpcft.cluster.findings import Finding, green, grey, red, yellow
from hpcft.cluster.slurm import call
from hpcft.spec.identifiers import user_path

GB = 1024**3
_SKEW_S = 5.0
_QUOTA_TIMEOUT_S = 3.0
_SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "panfs", "wekafs")


def existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = user_path(str(path)).absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def writable(check: str, path: Path, mend: str) -> Finding:
    """Whether files can be made in a folder, or the folder itself."""
    place = existing(path)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return red(check, f"{place} cannot be written to: {error.strerror}", mend, str(path))
    return green(check, f"{path} can be written to ({file_system(place)[1]})")


def space(path: Path, needed: float | None, least: float, mend: str) -> Finding:
    """Free space of the file system against what is to come.

    Args:
        needed: bytes of all that a job may write; None where it is not known.
        least: bytes without which it cannot go on.
    """
    place = existing(path)
    found = os.statvfs(place)
    free, files = found.f_bavail * found.f_frsize, found.f_favail
    shown = f"{_amount(free)} free at {place}"
    if found.f_files and files < 1000:
        return red("space", f"{shown}, and only {files} files more can be made", "remove files that nobody needs")
    if needed is None:
        return green("space", shown) if free > GB else yellow("space", shown, mend, str(path))
    wanted = f"the job's checkpoints take up to {_amount(needed)}"
    if free < least:
        return red("space", f"{shown}; {wanted}", mend, str(path))
    return (
        yellow("space", f"{shown}; {wanted}", mend, str(path))
        if free < needed
        else green("space", f"{shown}; {wanted}")
    )


def _amount(size: float) -> str:
    return f"{size / GB:.1f} GB" if abs(size) >= GB else f"{size / 1024**2:.0f} MB"


def quota(path: Path, needed: float | None, mend: str) -> Finding:
    """What the user's quota leaves, as far as `lfs quota` or `quota` say it."""
    place = existing(path)
    mount, kind = file_system(place)
    uid = str(os.getuid())
    if kind == "lustre":
        answer = call(["lfs", "quota", "-q", "-u", uid, str(mount)], timeout_s=_QUOTA_TIMEOUT_S)
        rows = read_quota(answer.out)
    else:
        command = ["quota", "--raw-grace", "--no-wrap", "--show-mntpoint", "--hide-device"]
        answer = call(command, timeout_s=_QUOTA_TIMEOUT_S)
        rows = read_quota(answer.out)
    room = rows.get(str(mount))
    if room is None:
        cause = f"quota: {' '.join(answer.err.split())}" if answer.code is None and answer.err else "no quota is told"
        return grey("quota", f"{cause} for {mount}")
    shown = f"your quota at {mount} leaves {_amount(room)}"
    if room <= 0 or (needed is not None and room < needed):
        more = f"; the job's checkpoints take up to {_amount(needed)}" if needed else ""
        return red("quota", shown + more, mend, str(path))
    return green("quota", shown)


def read_quota(text: str) -> dict[str, float]:
    """Rows of `quota` and `lfs quota`: mount → bytes that are left below the soft limit, else the hard one.

    Numbers are kilobytes, one that is exceeded has a star, and 0 means no limit.

    >>> read_quota("/home 900* 800 1000 0 5 0 0 0")
    {'/home': -102400.0}
    """
    found = {}
    for line in text.splitlines():
        if row := re.match(r"\s*(/\S*)\s+(\d+)\*?\s+(\d+)\s+(\d+)\s", line + " "):
            used, soft, hard = (int(n) * 1024.0 for n in row.groups()[1:])
            if limit := soft or hard:
                found[row[1]] = limit - used
    return found


def file_system(path: Path) -> tuple[Path, str]:
    """Where the file system of a folder is mounted, and its kind; `unknown` outside Linux."""
    path = path.resolve()
    best, kind = Path("/"), "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return best, kind
    for line in lines:
        mount = Path(line.split()[1].replace("\\040", " "))
        if path.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, line.split()[2]
    return best, kind


def locks(path: Path) -> Finding:
    """Whether files in a folder can be locked: caches rely on it when several ranks fill them."""
    place = existing(path)
    kind = file_system(place)[1]
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        mend = "set HF_HOME in the profile's env to a folder on another file system, and hpcft fetch into it"
        return yellow("locks", f"files in {place} ({kind}) cannot be locked: {error.strerror}", mend, str(path))
    return green("locks", f"files in {place} can be locked ({kind})")


def clock(path: Path) -> Finding:
    """This machine's clock against that of the file server."""
    place = existing(path)
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            before = time.time()
            file.write(b"x")
            file.flush()
            skew = Path(file.name).stat().st_mtime - before
    except OSError as error:
        return grey("clock", f"{place} cannot be written to: {error.strerror}")
    if abs(skew) > _SKEW_S:
        message = f"the clock of the file system at {place} is {skew:+.0f} s from this machine's"
        return yellow(
            "clock", f"{message}; heartbeats look older or newer than they are", "tell the site's administrators"
        )
    return green("clock", f"file system and machine agree within {_SKEW_S:.0f} s")


def umask() -> Finding:
    """What the shell's own files are readable for; hpcft writes its own with 077."""
    try:
        text = Path(f"/proc/{os.getppid()}/status").read_text(encoding="ascii")
        found = re.search(r"^Umask:\s*([0-7]+)", text, re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        return grey("umask", "the shell's is not told here; hpcft writes with 077")
    if int(found[1], 8) & 0o002:
        return green("umask", f"the shell's is {found[1]}; hpcft writes with 077")
    return yellow("umask", f"the shell's is {found[1]}: others may write to the files that you make", "umask 077")


def on_the_nodes(path: Path, what: str, mend: str) -> Finding:
    """Whether the nodes can see a folder, told from its file system."""
    mount, kind = file_system(existing(path))
    if kind == "tmpfs" or path.is_relative_to("/tmp"):  # noqa: S108 (looked at, not written to)
        return yellow("python", f"{what} is at {path}, which other nodes hardly see ({mount}, {kind})", mend, str(path))
    if kind in _SHARED:
        return green("python", f"{what} is on a shared file system ({mount}, {kind})")
    return grey("python", f"{what} is at {path} ({mount}, {kind}); whether the nodes see it cannot be told from here")
