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
import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import stat
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from machine import (
    clean_environment,
    edit_hosts,
    free_ports,
    missing,
    process_name,
    search_path,
    slurm_version,
    temporary_folder,
    with_hostname,
)

NODES = {"node1": "127.0.77.1", "node2": "127.0.77.2"}
GPUS_PER_NODE = 4
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr", "sinfo")
# Daemons by the name of their pid and log files, in the order of starting, with their name in /proc.
DAEMONS = {name: name for name in ("munged", "mariadbd", "slurmdbd", "slurmctld")} | dict.fromkeys(NODES, "slurmd")
USER = pwd.getpwuid(os.getuid()).pw_name
AS_ROOT = os.getuid() == 0
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
        accounting: whether it has slurmdbd and its database; some sites have none.
    """

    def __init__(self, root: Path, port: int | None = None, *, accounting: bool = True) -> None:
        self.root = root.absolute()
        self.accounting = accounting
        self._record = self.root / "cluster.json"
        if port is None and self._record.exists():
            port = json.loads(self._record.read_text())["port"]
        self.port = port or free_ports(4)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def env(self) -> dict[str, str]:
        """The variables that make Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.root / "etc/slurm.conf"), "PATH": search_path()}

    def start(self) -> None:
        """Start what does not run yet, and return when both nodes take jobs.

        Raises:
            ClusterError: a program is missing, the folder will not do, or a daemon does not start. Nothing runs
                then, and the folder stays for its logs to be read; `stop` removes it.
        """
        if lacking := missing(PROGRAMS):
            raise ClusterError(f"not found: {', '.join(lacking)}; run tests/slurm/install.sh as root")
        self._make_root()
        with self._locked():
            try:
                self._write_configuration()
                edit_hosts(NODES, self.root, present=True)
                self._start_daemons()
            except BaseException:
                self._end_daemons()
                edit_hosts(NODES, self.root, present=False)
                raise

    def stop(self) -> None:
        """Cancel all jobs, end the daemons and what is left of the jobs, and remove the folder.

        Raises:
            ClusterError: the folder is not a cluster's, or a daemon does not end.
        """
        if self.root.exists():
            self._refuse_foreign_root()
            with self._locked():
                for daemon in DAEMONS:  # a test may have left one halted
                    self._signal(daemon, signal.SIGCONT)
                if self.pid("slurmctld"):
                    self._cancel_jobs()
                self._end_daemons()
                shutil.rmtree(self.root)
        edit_hosts(NODES, self.root, present=False)

    def running(self) -> bool:
        """Whether every daemon runs."""
        return all(self.pid(daemon) for daemon in DAEMONS if self.accounting or daemon not in ("mariadbd", "slurmdbd"))

    def pid(self, daemon: str) -> int | None:
        """The process of a daemon that this cluster started (a name in `DAEMONS`), None when it is gone."""
        try:
            pid = int(self._pid_file(daemon).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if process_name(pid) == DAEMONS[daemon] else None

    def heal(self) -> None:
        """Start what does not run any more, and take nodes that are out of service into it, saying why they were.

        Raises:
            ClusterError: they do not come back.
        """
        if self.running() and self._nodes_up():
            return
        print(self._call(["sinfo", "--list-reasons", "--long"]).stdout, file=sys.stderr)
        for node in NODES:
            # Refused of a node that is in service.
            self._call(["scontrol", "update", f"nodename={node}", "state=resume"])
        self.start()

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Wait until no job is in the queue and both nodes are idle."""

        def idle() -> bool:
            jobs, states = self._call(["squeue", "-h"]), self._node_states()
            return jobs.returncode == 0 and not jobs.stdout.strip() and states == ["idle"] * len(NODES)

        self._wait(idle, "an idle cluster", "slurmctld", timeout_s=timeout_s)

    # The folder and its files

    def _make_root(self) -> None:
        if len(str(self.root)) > LONGEST_ROOT:
            raise ClusterError(f"{self.root}: longer than {LONGEST_ROOT} characters; choose a shorter --root")
        self.root.mkdir(mode=0o755, exist_ok=True)
        self._refuse_foreign_root()
        for folder in self.root.parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise ClusterError(f"{folder}: not open to other users (o+x), as Slurm's daemons need it")
        self._record.write_text(json.dumps({"port": self.port}))
        self.root.chmod(0o755)
        for mode, names in {
            0o755: ("etc", "log", "munge", "spool", "dev"),
            0o700: ("pid", "state", "db", "db-tmp"),
        }.items():
            for name in names:
                (self.root / name).mkdir(exist_ok=True)
                (self.root / name).chmod(mode)

    def _refuse_foreign_root(self) -> None:
        """Never use or remove a folder of other things, nor one that another user laid out for us."""
        mine = not self.root.is_symlink() and self.root.stat().st_uid == os.getuid()
        if not mine or (any(self.root.iterdir()) and not self._record.is_file()):
            raise ClusterError(f"{self.root}: exists and is not a folder that this command made for you")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        version = slurm_version()
        nodes = [
            f"NodeName={node} NodeHostname={node if AS_ROOT else host} NodeAddr={address} Port={self.port + 2 + i}"
            for i, (node, address) in enumerate(NODES.items())
        ]
        values = {
            "root": str(self.root),
            "host": host,
            "user": USER,
            "slurmdbd_port": str(self.port),
            "slurmctld_port": str(self.port + 1),
            "nodes": "\n".join(nodes),
            "accounting": self._accounting_lines(),
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

    def _accounting_lines(self) -> str:
        if not self.accounting:
            return "AccountingStorageType=accounting_storage/none"
        values = {
            "Type": "accounting_storage/slurmdbd",
            "Host": "127.0.0.1",
            "Port": self.port,
            "Pass": f"{self.root}/munge/socket",
            "TRES": "gres/gpu",
            "Enforce": "associations,limits,qos",
        }
        return "\n".join(f"AccountingStorage{name}={value}" for name, value in values.items())

    # Daemons

    def _start_daemons(self) -> None:
        self._start_munge()
        if self.accounting:
            self._start_database()
            self._ensure("slurmdbd", ["slurmdbd", "-D"], lambda: "root" in self._sacctmgr("show", "account"))
            self._add_account()
        self._ensure("slurmctld", ["slurmctld", "-D"], lambda: self._call(["scontrol", "ping"]).returncode == 0)
        if self.accounting:
            self._add_qos()
        for node in NODES:
            slurmd = ["slurmd", "-D", "-N", node]
            self._ensure(node, with_hostname(node, slurmd) if AS_ROOT else slurmd, lambda: True)
        self._wait(self._nodes_up, "both nodes to take jobs", *NODES)

    def _start_munge(self) -> None:
        key, munge = self.root / "munge/key", self.root / "munge/socket"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
        files = [f"--{name}-file={self.root}/munge/{name}" for name in ("key", "pid", "seed")]
        self._ensure(
            "munged",
            ["munged", "--foreground", f"--socket={munge}", *files],
            lambda: self._call(["munge", "-n", "-S", str(munge)]).returncode == 0,
        )

    def _start_database(self) -> None:
        db = self.root / "db"
        # A server that starts clears the folder for temporary tables: in a common one, of its neighbour's too.
        options = ["--no-defaults", f"--datadir={db}", f"--tmpdir={self.root}/db-tmp", "--innodb-log-file-size=16M"]
        options += ["--user=root"] if AS_ROOT else []
        if not (db / "mysql").exists():
            anyone = ["--skip-test-db", "--auth-root-authentication-method=normal"]  # who can reach the socket
            made = self._call(["mariadb-install-db", *options, *anyone], timeout_s=120)
            if made.returncode:
                raise ClusterError(f"mariadb-install-db failed:\n{made.stdout}{made.stderr}")
        options += [f"--socket={db}/socket", "--skip-networking", f"--pid-file={db}/pid"]
        # Slurm wants the time-out; what a power cut would leave of the tables does not matter here.
        options += [
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
        ]
        self._ensure("mariadbd", ["mariadbd", *options], (db / "socket").is_socket)

    def _ensure(self, daemon: str, command: list[str], ready: Callable[[], bool]) -> None:
        """Start a daemon in the foreground of its own session, unless it runs, and wait until it answers."""
        if not self.pid(daemon):
            environment = clean_environment() | self.env() | {"MYSQL_UNIX_PORT": f"{self.root}/db/socket"}
            with (self.root / f"log/{daemon}.log").open("ab") as log:
                self._children[daemon] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.root,
                    start_new_session=True, umask=0o022,
                )  # fmt: skip
            self._pid_file(daemon).write_text(str(self._children[daemon].pid))
        self._wait(lambda: bool(self.pid(daemon)) and ready(), f"{daemon} to answer", daemon)

    def _pid_file(self, daemon: str) -> Path:
        return self.root / f"pid/{daemon}"

    def _signal(self, daemon: str, number: signal.Signals) -> None:
        if pid := self.pid(daemon):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end_daemons(self, patience_s: float = 15) -> None:
        for daemon in reversed(DAEMONS):
            for number in (signal.SIGTERM, signal.SIGKILL):
                self._signal(daemon, number)
                end = time.monotonic() + patience_s
                while self.pid(daemon) and time.monotonic() < end:
                    time.sleep(0.02)
            if pid := self.pid(daemon):
                raise ClusterError(f"{daemon} (process {pid}) does not end")
            if child := self._children.pop(daemon, None):
                child.wait()
        for pid in self._leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _wait(self, ready: Callable[[], bool], what: str, *daemons: str, timeout_s: float = 60) -> None:
        """Wait for something that daemons do; their end or the time-out is an error."""
        end = time.monotonic() + timeout_s
        while not ready():
            for daemon in daemons:
                if (child := self._children.get(daemon)) and child.poll() is not None:
                    raise ClusterError(f"{daemon} ended with code {child.returncode}\n{self._last_words(daemon)}")
            if time.monotonic() > end:
                words = "\n".join(self._last_words(daemon) for daemon in daemons)
                raise ClusterError(f"waited {timeout_s:.0f} s for {what}\n{words}")
            time.sleep(0.05)

    def _last_words(self, log: str, lines: int = 10) -> str:
        path = self.root / f"log/{log}.log"
        return f"{path} ends with:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

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
        with (self.root / "log/sacctmgr.log").open("a") as log:
            log.write(f"$ sacctmgr {shlex.join(words)}\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def _add_account(self) -> None:
        # Now and then a busy slurmdbd fails to add its first cluster, with an unspecified error, and can at once.
        for _ in range(5):
            if "acme" in self._sacctmgr("show", "associations", "account=acme"):
                return
            self._sacctmgr("add", "cluster", "hpcft")
            self._sacctmgr("add", "account", "acme", "Description=acme", "Organization=acme")
            self._sacctmgr("add", "user", USER, "account=acme")
            self._sacctmgr("modify", "user", USER, "set", "defaultaccount=acme", "adminlevel=admin")
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
            self._call(["scancel", "--full", "--signal=KILL", *jobs])  # first: cancelled jobs get KillWait seconds
            self._call(["scancel", *jobs])
            with contextlib.suppress(ClusterError):  # what is left is killed below, by process
                self.wait_idle(timeout_s=10)

    def _leftovers(self) -> list[int]:
        """Processes of this cluster's jobs, and the step daemons that were to watch over them."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile, or another user's
                continue
            of_a_job = any(value.startswith(b"SLURMD_NODENAME=") for value in environment)
            if f"SLURM_CONF={self.env()['SLURM_CONF']}".encode() in environment and (
                of_a_job or process_name(int(process.name)) == "slurmstepd"
            ):
                found.append(int(process.name))
        return found


def main() -> int:
    """Start, stop or look at the cluster of this user."""
    default = temporary_folder(LONGEST_ROOT - 20) / f"hpcft-slurm-{os.getuid()}"
    parser = argparse.ArgumentParser(description="A two-node Slurm cluster on this machine.")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("--root", type=Path, default=default, help="folder of the cluster (default: %(default)s)")
    arguments = parser.parse_args()
    cluster = SlurmCluster(arguments.root)
    try:
        if arguments.verb == "start":
            cluster.start()
            if not os.access("/etc/hosts", os.W_OK):
                print("node1 and node2 do not resolve: /etc/hosts is not ours to write", file=sys.stderr)
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
