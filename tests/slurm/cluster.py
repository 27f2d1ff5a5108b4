"""A real Slurm cluster with accounting on one machine, for tests and for trying `hpcft` by hand.

    eval "$(python tests/slurm/cluster.py start)"
    sinfo
    python tests/slurm/cluster.py stop

Two nodes, `node1` and `node2`, of four CPUs, 16000 MB and four pretended `gpu:h100` each; partitions `debug`
(default), `gpu` and the preemptible `low`; account `acme`, QOS `short`. As root each node has its own hostname;
without privilege both carry the machine's, and only the user who starts the cluster can run jobs.
Needs the packages that `install.sh` names. Only the standard library, so that any Python 3.11 can run it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import getpass
import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NODES = {"node1": "127.0.77.1", "node2": "127.0.77.2"}
GPUS_PER_NODE = 4
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr", "sinfo")
# Daemons by the name of their pid and log files, in the order of starting, with their name in /proc.
DAEMONS = {"munged": "munged", "mariadbd": "mariadbd", "slurmdbd": "slurmdbd", "slurmctld": "slurmctld"} | {
    node: "slurmd" for node in NODES
}
# A UNIX socket's path may have 108 bytes; Slurm's longest below the root needs some 45 of them.
LONGEST_ROOT = 50


class ClusterError(Exception):
    """The cluster cannot be started or stopped; the message says which log to read."""


class SlurmCluster:
    """A two-node cluster below one folder.

    Args:
        root: the folder of everything the cluster writes; made by `start`, removed by `stop`. Its parents must
            let other users pass (o+x), since munge and slurmd insist on it, and its path must be short.
        port: first of four TCP ports on this machine; None takes the recorded ones of a cluster that exists
            below `root`, else free ones.
    """

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root.absolute()
        self._record = self.root / "cluster.json"
        if port is None and self._record.exists():
            port = json.loads(self._record.read_text())["port"]
        self.port = port or free_ports(4)

    def env(self) -> dict[str, str]:
        """The variables that make Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.root / "etc/slurm.conf"), "PATH": search_path()}

    def start(self) -> None:
        """Start what does not run yet, and return when both nodes take jobs.

        Raises:
            ClusterError: a program is missing, the folder will not do, or a daemon does not start.
        """
        if missing := missing_programs():
            raise ClusterError(f"not found: {', '.join(missing)}; run tests/slurm/install.sh as root")
        self._make_root()
        with self._locked():
            self._write_configuration()
            edit_hosts(add=self.root)
            self._start_munge_and_database()
            self._ensure("slurmdbd", ["slurmdbd", "-D"], lambda: "root" in self._sacctmgr("show", "account"))
            self._add_account()
            self._ensure("slurmctld", ["slurmctld", "-D"], lambda: self._call(["scontrol", "ping"]).returncode == 0)
            self._add_qos()
            for node in NODES:
                self._ensure(node, [*own_hostname(node), "slurmd", "-D", "-N", node], lambda: True)
            self._wait(self._nodes_up, "both nodes to take jobs", "node1", timeout_s=60)

    def stop(self) -> None:
        """Cancel all jobs, end the daemons and what is left of the jobs, and remove the folder."""
        if not self.root.exists():
            edit_hosts()
            return
        self._refuse_foreign_root()
        with self._locked():
            if self._pid("slurmctld"):
                self._cancel_jobs()
            for daemon in reversed(DAEMONS):
                self._end(daemon)
            for pid in self._leftovers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.root)
            edit_hosts()

    def running(self) -> bool:
        """Whether every daemon runs."""
        return all(self._pid(daemon) for daemon in DAEMONS)

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Wait until no job is in the queue and both nodes are idle."""

        def idle() -> bool:
            jobs, states = self._call(["squeue", "-h"]), self._node_states()
            return jobs.returncode == 0 and not jobs.stdout.strip() and states == ["idle"] * len(NODES)

        self._wait(idle, "an idle cluster", "slurmctld", timeout_s)

    # The folder and its files

    def _make_root(self) -> None:
        if len(str(self.root)) > LONGEST_ROOT:
            raise ClusterError(f"{self.root}: longer than {LONGEST_ROOT} characters; choose a shorter --root")
        self.root.mkdir(mode=0o755, exist_ok=True)
        if any(self.root.iterdir()):
            self._refuse_foreign_root()
        for folder in self.root.parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise ClusterError(f"{folder}: not open to other users (o+x), as Slurm's daemons need it")
        for name, mode in {"etc": 0o755, "log": 0o755, "munge": 0o755, "spool": 0o755, "dev": 0o755} | {
            "pid": 0o700, "state": 0o700, "db": 0o700
        }.items():
            folder = self.root / name
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        self.root.chmod(0o755)
        self._record.write_text(json.dumps({"port": self.port}))

    def _refuse_foreign_root(self) -> None:
        """Never use or remove a folder that is not a cluster's, nor one that another user laid out for us."""
        if self.root.is_symlink() or self.root.stat().st_uid != os.getuid() or not self._record.is_file():
            raise ClusterError(f"{self.root}: exists and is not a folder that this command made for you")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        version = slurm_version()
        hostname = "{0}" if own_hostname("") else host
        values = {
            "root": str(self.root),
            "host": host,
            "user": getpass.getuser(),
            "slurmdbd_port": str(self.port),
            "slurmctld_port": str(self.port + 1),
            "nodes": "\n".join(
                f"NodeName={node} NodeHostname={hostname.format(node)} NodeAddr={address} Port={self.port + 2 + i}"
                for i, (node, address) in enumerate(NODES.items())
            ),
            "preempt_signal": "PreemptParameters=send_user_signal"
            if version >= (24, 5)
            else "SlurmctldParameters=preempt_send_user_signal",
            "cgroup_plugin": "disabled" if version >= (23, 5) else "cgroup/v1",
        }
        for template in Path(__file__).with_name("etc").glob("*.conf.in"):
            target = self.root / "etc" / template.stem
            target.write_text(string.Template(template.read_text()).substitute(values))
            target.chmod(0o600 if target.name == "slurmdbd.conf" else 0o644)
        for i in range(GPUS_PER_NODE):
            device = self.root / f"dev/nvidia{i}"
            if not device.is_symlink():
                device.symlink_to("/dev/null")

    # Daemons

    def _start_munge_and_database(self) -> None:
        key, munge = self.root / "munge/key", self.root / "munge/socket"
        if not key.exists():
            with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(128))
        self._ensure(
            "munged",
            ["munged", "--foreground", f"--key-file={key}", f"--socket={munge}"]
            + [f"--{name}-file={self.root}/munge/{name}" for name in ("pid", "seed")],
            lambda: self._call(["munge", "-n", "-S", str(munge)]).returncode == 0,
        )
        db = self.root / "db"
        user = ["--user=root"] if os.getuid() == 0 else []
        if not (db / "mysql").exists():
            made = self._call(
                ["mariadb-install-db", "--no-defaults", *user, f"--datadir={db}", "--skip-test-db"]
                + ["--auth-root-authentication-method=normal"],
                timeout_s=120,
            )
            if made.returncode:
                raise ClusterError(f"mariadb-install-db failed:\n{made.stdout}{made.stderr}")
        self._ensure(
            "mariadbd",
            ["mariadbd", "--no-defaults", *user, f"--datadir={db}", f"--socket={db}/socket", "--skip-networking"]
            + [f"--pid-file={db}/pid", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
            + ["--innodb-lock-wait-timeout=900"],
            (db / "socket").is_socket,
        )

    def _ensure(self, daemon: str, command: list[str], ready: Callable[[], bool]) -> None:
        """Start a daemon in the foreground of its own session, unless it runs, and wait until it answers."""
        if not self._pid(daemon):
            environment = clean_environment() | self.env() | {"MYSQL_UNIX_PORT": f"{self.root}/db/socket"}
            with (self.root / f"log/{daemon}.out").open("ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.root,
                    start_new_session=True, umask=0o022,
                )  # fmt: skip
            self._pid_file(daemon).write_text(str(process.pid))
        self._wait(lambda: bool(self._pid(daemon)) and ready(), f"{daemon} to answer", daemon, timeout_s=60)

    def _pid_file(self, daemon: str) -> Path:
        return self.root / f"pid/{daemon}"

    def _pid(self, daemon: str) -> int | None:
        """The process of a daemon that this cluster started, None when it is gone."""
        try:
            pid = int(self._pid_file(daemon).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_name(pid) == DAEMONS[daemon] else None

    def _end(self, daemon: str, patience_s: float = 15) -> None:
        pid = self._pid(daemon)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + patience_s
            while self._pid(daemon) and time.monotonic() < end:
                time.sleep(0.02)
        if self._pid(daemon):
            raise ClusterError(f"{daemon} (process {pid}) does not end")

    def _wait(self, ready: Callable[[], bool], what: str, daemon: str, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > end:
                raise ClusterError(f"waited {timeout_s:.0f} s for {what}\n{self._last_words(daemon)}")
            if self._died(daemon):
                raise ClusterError(f"{daemon} ended at its start\n{self._last_words(daemon)}")
            time.sleep(0.05)

    def _died(self, daemon: str) -> bool:
        """Whether the process of the pid file is gone, under whatever name (it may not have got its own yet)."""
        pid = self._pid_file(daemon)
        return not pid.exists() or process_name(int(pid.read_text())) is None

    def _last_words(self, daemon: str, lines: int = 8) -> str:
        logs = [log for log in sorted((self.root / "log").glob(f"{daemon}.*")) if log.stat().st_size]
        return "\n".join(
            f"{log}:\n" + "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])
            for log in logs
        )

    # Slurm's own commands

    def _call(self, command: list[str], timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
        environment = clean_environment() | self.env()
        try:
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer in {timeout_s:.0f} s")

    def _sacctmgr(self, *words: str) -> str:
        """Run sacctmgr; its exit code says little (1 for 'nothing new', 0 without a connection)."""
        answer = self._call(["sacctmgr", "-i", "-n", "-P", *words])
        with (self.root / "log/sacctmgr.out").open("a") as log:
            log.write(f"$ sacctmgr {shlex.join(words)}\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def _add_account(self) -> None:
        if "acme" not in self._sacctmgr("show", "account", "acme"):
            user = getpass.getuser()
            self._sacctmgr("add", "cluster", "hpcft")
            self._sacctmgr("add", "account", "acme", "Description=acme", "Organization=acme")
            self._sacctmgr("add", "user", user, "account=acme")
            self._sacctmgr("modify", "user", user, "set", "defaultaccount=acme", "adminlevel=admin")
            if "acme" not in self._sacctmgr("show", "associations", "account=acme"):
                raise ClusterError(f"the account acme could not be made\n{self._last_words('sacctmgr')}")

    def _add_qos(self) -> None:
        """Only now: before slurmctld has run once, accounting knows no GPUs that could be limited."""
        if "short" not in self._sacctmgr("show", "qos", "short"):
            limits = ["MaxWall=00:05:00", "MaxSubmitJobsPerUser=4", "MaxTRESPerUser=gres/gpu=2"]
            self._sacctmgr("add", "qos", "short", "set", *limits, "Flags=DenyOnLimit")
            self._sacctmgr("modify", "account", "where", "name=acme", "set", "qos=normal,short")

    def _node_states(self) -> list[str]:
        return self._call(["sinfo", "-h", "-N", "-p", "debug", "-o", "%T"]).stdout.split()

    def _nodes_up(self) -> bool:
        states = self._node_states()
        return len(states) == len(NODES) and set(states) <= {"idle", "mixed", "allocated", "completing"}

    def _cancel_jobs(self) -> None:
        if jobs := self._call(["squeue", "-h", "-a", "-o", "%A"]).stdout.split():
            self._call(["scancel", *jobs])
            self._call(["scancel", "--full", "--signal=KILL", *jobs])
            with contextlib.suppress(ClusterError):  # what is left is killed below, by process
                self.wait_idle(timeout_s=10)

    def _leftovers(self) -> list[int]:
        """Processes of this cluster's jobs, and the step daemons that were to watch over them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                files = [os.readlink(file) for file in (process / "fd").iterdir()]
            except OSError:  # ended meanwhile, or another user's
                continue
            ours = f"SLURM_CONF={self.env()['SLURM_CONF']}".encode() in environment
            of_a_job = any(value.startswith(b"SLURMD_NODENAME=") for value in environment)
            step = process_name(int(process.name)) == "slurmstepd"
            if (ours and of_a_job) or (step and any(file.startswith(f"{self.root}/") for file in files)):
                found.append(int(process.name))
        return found


def search_path() -> str:
    """PATH with the folders of system daemons, which a user's may lack."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folders + [folder for folder in ("/usr/sbin", "/sbin") if folder not in folders])


def missing_programs() -> list[str]:
    """What a cluster needs and this machine lacks."""
    return [program for program in PROGRAMS if not shutil.which(program, path=search_path())]


def clean_environment() -> dict[str, str]:
    """The environment without what an outer Slurm job or a user's habits would change Slurm's commands by."""
    outer = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCANCEL|SCONTROL)_")
    return {name: value for name, value in os.environ.items() if not outer.match(name)}


def slurm_version() -> tuple[int, int]:
    """Year and month of the installed Slurm, (22, 5) for 22.05.8."""
    words = subprocess.run(["slurmd", "-V"], env={"PATH": search_path()}, capture_output=True, text=True, check=True)
    major, minor = re.search(r"(\d+)\.(\d+)", words.stdout).groups()  # type: ignore[union-attr]
    return int(major), int(minor)


def own_hostname(node: str) -> list[str]:
    """The command words that give a daemon a hostname of its own; none without privilege."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', node] if os.getuid() == 0 else []


def process_name(pid: int) -> str | None:
    """The name of a living process; None when it is gone or only waits to be collected."""
    try:
        # "pid (name) state …"; the name itself may hold brackets and blanks.
        name, state = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(") ", 1)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state.startswith(("Z", "X")) else name


def edit_hosts(add: Path | None = None) -> None:
    """Let the nodes' names resolve while a cluster runs: add its lines, drop those of clusters that are gone.

    Each line ends in the folder of its cluster. The file is rewritten in place, since a container's /etc/hosts is
    a mount that cannot be replaced. Without the right to write it, nothing happens.
    """
    mark = "  # slurm test cluster "
    path = Path("/etc/hosts")
    if not os.access(path, os.W_OK):
        return
    with path.open("r+") as hosts:
        fcntl.flock(hosts, fcntl.LOCK_EX)
        before = hosts.read()
        lines = [
            line
            for line in before.splitlines()
            if mark not in line or (Path(line.split(mark)[1]).is_dir() and line.split(mark)[1] != str(add))
        ]
        if add:
            lines += [f"{address} {node}{mark}{add}" for node, address in NODES.items()]
        if (after := "".join(f"{line}\n" for line in lines)) != before:
            hosts.seek(0)
            hosts.truncate()
            hosts.write(after)


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
    raise ClusterError("no free ports between 21000 and 32000")


def temporary_folder() -> Path:
    """The temp dir, or /tmp where that is closed to other users or too long for the sockets of a cluster."""
    folder = Path(tempfile.gettempdir()).absolute()
    open_to_all = all(f.stat().st_mode & stat.S_IXOTH for f in (folder, *folder.parents))
    return folder if open_to_all and len(str(folder)) <= LONGEST_ROOT - 20 else Path("/tmp")


def main() -> int:
    """Start, stop or look at the cluster of this user."""
    default = temporary_folder() / f"hpcft-slurm-{os.getuid()}"
    parser = argparse.ArgumentParser(description="A two-node Slurm cluster on this machine.")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("--root", type=Path, default=default, help="folder of the cluster (default: %(default)s)")
    arguments = parser.parse_args()
    cluster = SlurmCluster(arguments.root)
    try:
        if arguments.verb == "start":
            cluster.start()
        elif arguments.verb == "stop":
            cluster.stop()
            return 0
    except (ClusterError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1
    if not cluster.running():
        print(f"no cluster runs in {cluster.root}", file=sys.stderr)
        return 3
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in cluster.env().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
