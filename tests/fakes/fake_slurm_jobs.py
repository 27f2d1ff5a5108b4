"""The jobs of the fake Slurm: their files, and their life when they are really run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Job = dict[str, Any]

FOLDER = Path(os.environ.get("FAKE_SLURM_DIR", "/nonexistent"))
ACTIVE = {"PENDING": "PD", "RUNNING": "R", "COMPLETING": "CG"}


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One command at a time changes files."""
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load(job_id: int) -> Job:
    """A job as its file says."""
    job: Job = json.loads((FOLDER / f"jobs/{job_id}.json").read_text())
    return job


def update(job_id: int, *, only_if: str | None = None, **changes: Any) -> Job:
    """Change a job's file, if it is in the state `only_if`; a job that starts or ends gets the time of it.

    Returns:
        the job as it is afterwards.
    """
    with locked():
        path = FOLDER / f"jobs/{job_id}.json"
        job = load(job_id) if path.exists() else {}
        if only_if and job["state"] != only_if:
            return job
        job |= changes
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        if job["state"] == "RUNNING":
            job |= {"start": job["start"] or now, "node_list": job["node_list"] or nodes_text(job["nodes"])}
        elif job["state"] not in ACTIVE:
            job["end"] = job["end"] or now
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(job, indent=1))
        aside.replace(path)
        return job


def requeue(job_id: int) -> None:
    """Put a job back into the queue and keep the record of the attempt."""
    job = load(job_id)
    attempt = {key: job[key] for key in ("exit_code", "start", "end", "node_list")} | {"state": "REQUEUED"}
    fresh = {
        "state": "PENDING",
        "reason": "BeginTime",
        "exit_code": "0:0",
        "start": "",
        "end": "",
        "node_list": "",
    }
    update(job_id, **fresh, restarts=job["restarts"] + 1, attempts=[*job["attempts"], attempt])
    if job["state"] not in ACTIVE and "runner" in job:  # else its runner sees it and starts over
        start_runner(job_id)


def jobs() -> list[Job]:
    """All jobs, oldest first."""
    files = sorted((FOLDER / "jobs").glob("*.json"), key=lambda path: int(path.stem))
    return [load(int(path.stem)) for path in files]


def nodes_text(count: int) -> str:
    """The names of so many nodes, the way Slurm shortens them."""
    return "node1" if count == 1 else f"node[1-{count}]"


def start_runner(job_id: int) -> None:
    """Run a job in a process of its own."""
    command = [sys.executable, "-E", "-S", str(Path(__file__).with_name("fake_slurm.py")), "run-job", str(job_id)]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def run_job(job_id: int) -> None:
    """Run a job's script until it ends for good; the life of a batch job without its time limit."""
    while True:
        job = update(job_id, only_if="PENDING", state="RUNNING", reason="None", runner=os.getpid())
        if job["state"] != "RUNNING":
            return
        try:
            process = start_script(job)
        except OSError:  # the log's folder is missing: Slurm's job fails in the same way, without a word
            update(job_id, only_if="RUNNING", state="FAILED", exit_code="0:53")
            return
        (FOLDER / f"jobs/{job_id}.batch").write_text(str(process.pid))
        while process.poll() is None and load(job_id)["state"] == "RUNNING":
            time.sleep(0.02)
        if process.returncode is not None:
            code = process.returncode
            exit_code = f"{code}:0" if code >= 0 else f"0:{-code}"
            update(job_id, only_if="RUNNING", state="FAILED" if code else "COMPLETED", exit_code=exit_code)
        for number in (signal.SIGTERM, signal.SIGKILL):  # also what the script left in the background
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)


def start_script(job: Job) -> subprocess.Popen[bytes]:
    """Start a job's batch script, its output in the files that it asked for."""
    mode = "ab" if job["open_mode"].startswith("a") else "wb"
    with contextlib.ExitStack() as files:
        out = files.enter_context(Path(job["workdir"], file_name(job, job["output"])).open(mode))
        err = out
        if job["error"]:
            err = files.enter_context(Path(job["workdir"], file_name(job, job["error"])).open(mode))
        return subprocess.Popen(
            [str(FOLDER / f"jobs/{job['id']}.sh")],
            cwd=job["workdir"],
            env=environment(job),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def file_name(job: Job, pattern: str) -> str:
    """The log that a pattern such as `%x-%j.out` names."""
    values = {"j": job["id"], "A": job["id"], "x": job["name"], "u": job["user"], "N": "node1", "n": 0, "%": "%"}
    return re.sub(r"%(\w|%)", lambda match: str(values[match[1]]), pattern)


def environment(job: Job) -> dict[str, str]:
    """What a batch script finds in its environment: what --export lets through, and Slurm's own."""
    words = job["export"].split(",")
    names = {"PATH", "HOME", "USER", *words} | {name for name in os.environ if name.startswith("FAKE_SLURM_")}
    values = {name: value for name, value in os.environ.items() if words[0] == "ALL" or name in names}
    values |= dict(word.split("=", 1) for word in words if "=" in word)
    own = dict.fromkeys(("SLURM_JOB_ID", "SLURM_JOBID"), job["id"])
    own |= dict.fromkeys(("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), job["nodes"])
    own |= dict.fromkeys(("SLURM_JOB_NODELIST", "SLURM_NODELIST"), job["node_list"])
    own |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), 0)
    own |= {"SLURM_NTASKS": job["ntasks"], "SLURMD_NODENAME": "node1", "SLURM_SUBMIT_DIR": job["workdir"]}
    own |= {f"SLURM_JOB_{key.upper()}": job[key] for key in ("name", "partition", "account", "qos")}
    own |= {"SLURM_JOB_END_TIME": int(time.time()) + 3600}
    own |= {"SLURM_RESTART_COUNT": job["restarts"]} if job["restarts"] else {}
    return values | {name: str(value) for name, value in own.items()}


def send(job: Job, name: str, *, batch: bool, steps: bool) -> None:
    """Signal the batch script or the tasks of its steps, or both."""
    number = int(name) if name.isdigit() else signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]
    for kind, wanted in {"batch": batch, "steps": steps}.items():
        file = FOLDER / f"jobs/{job['id']}.{kind}"
        for pid in file.read_text().split() if wanted and file.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)
