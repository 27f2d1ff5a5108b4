"""The machine below a test cluster: its PATH, processes, host names, ports and temp dir."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path


def search_path() -> str:
    """PATH with the folders of system daemons, which a user's may lack."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folders + [folder for folder in ("/usr/sbin", "/sbin") if folder not in folders])


def missing(programs: Iterable[str]) -> list[str]:
    """Those of some programs that this machine lacks."""
    return [program for program in programs if not shutil.which(program, path=search_path())]


def clean_environment() -> dict[str, str]:
    """The environment without what an outer Slurm job or a user's habits would change Slurm's commands by."""
    outer = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCANCEL|SCONTROL)_")
    return {name: value for name, value in os.environ.items() if not outer.match(name)}


def slurm_version() -> tuple[int, int]:
    """Year and month of the installed Slurm, (22, 5) for 22.05.8."""
    words = subprocess.run(["slurmd", "-V"], env={"PATH": search_path()}, capture_output=True, text=True, check=True)
    major, minor = re.search(r"(\d+)\.(\d+)", words.stdout).groups()  # type: ignore[union-attr]
    return int(major), int(minor)


def with_hostname(name: str, command: list[str]) -> list[str]:
    """A command that runs another one under a hostname of its own; needs root."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]


def process_name(pid: int) -> str | None:
    """The name of a living process; None when it is gone or only waits to be collected."""
    try:
        # "pid (name) state …"; the name itself may hold brackets and blanks.
        name, state = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(") ", 1)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state.startswith(("Z", "X")) else name


def edit_hosts(names: dict[str, str], owner: Path, *, present: bool) -> None:
    """Add names to /etc/hosts for as long as a folder owns them, or remove them.

    Each line ends in its owner, so that several can have lines, and those of owners that are gone are dropped. The
    file is rewritten in place, since a container's is a mount that cannot be replaced. Without the right to write
    it, nothing happens.

    Args:
        names: addresses by host name.
        owner: the folder whose life the lines share.
        present: whether the names shall be there.
    """
    mark = "  # slurm test cluster "
    path = Path("/etc/hosts")
    if not os.access(path, os.W_OK):
        return
    with path.open("r+") as hosts:
        fcntl.flock(hosts, fcntl.LOCK_EX)
        before = hosts.read()
        lines = []
        for line in before.splitlines():
            _, marked, folder = line.partition(mark)
            if not marked or (folder != str(owner) and Path(folder).is_dir()):
                lines.append(line)
        if present:
            lines += [f"{address} {name}{mark}{owner}" for name, address in names.items()]
        if (after := "".join(f"{line}\n" for line in lines)) != before:
            hosts.seek(0)
            hosts.write(after)  # before truncating: nobody shall find it empty
            hosts.truncate()


def free_ports(count: int) -> int:
    """The first of some consecutive TCP ports that nothing listens on, below those of outgoing connections."""
    for first in range(21000 + os.getpid() % 1000 * 8, 32000, count):
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    sockets.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    raise OSError("no free ports between 21000 and 32000")


def temporary_folder(longest: int) -> Path:
    """The temp dir, or /tmp where that is closed to other users or its path has more characters than `longest`."""
    folder = Path(tempfile.gettempdir()).absolute()
    open_to_all = all(f.stat().st_mode & stat.S_IXOTH for f in (folder, *folder.parents))
    return folder if open_to_all and len(str(folder)) <= longest else Path("/tmp")
