"""A Slurm that is only files: sbatch, squeue, sacct, sacctmgr, scancel, scontrol, sinfo and srun on a laptop.

All of it lives below $FAKE_SLURM_DIR: `jobs/<id>.json`, `calls.jsonl` (every command line) and `faults.json`. A
job stays PENDING until somebody changes its file; with FAKE_SLURM_RUN=1 its script is run at once, in the
background, and can be cancelled, signalled and requeued. What real Slurm said is printed word for word, from
tests/data/slurm.

Left out: time limits, waiting for resources; an array is queued and never run. `sacct` keeps no comments, as at most
sites, unless FAKE_SLURM_STORE_COMMENTS=1. An option or a field that is not known here is an error, never silently
ignored.

faults.json, each key optional:
    "sbatch": "timeout_after_accept", "timeout_before_accept", or "refuse_" with partition, account, qos, nodes,
        gres, time or limit
    "controller": "down" or "timed_out"
    "accounting": "down" or "disabled"
    "hang_s": seconds before any answer
    "max_submit": MaxSubmitJobs of the user's association
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from fake_slurm_jobs import ACTIVE, FOLDER, Job, load, locked, requeue, run_job, send, start_runner, update
from fake_slurm_tables import chosen, sacct, sinfo, squeue
from fake_slurm_words import SAMPLES, Parser, replay, stop

OPTIONS = (
    "-J/--job-name --comment -p/--partition -A/--account -q/--qos -N/--nodes -n/--ntasks --ntasks-per-node "
    "--gpus-per-node --gpus-per-task --gres -c/--cpus-per-task --mem --mem-per-cpu --mem-per-gpu -t/--time "
    "-o/--output -e/--error --open-mode --signal -D/--chdir --export -C/--constraint -d/--dependency "
    "-w/--nodelist -x/--exclude --mail-type --mail-user --wrap --cpu-bind --gpu-bind --kill-on-bad-exit --mpi "
    "-a/--array --kill-on-invalid-dep"
)
FLAGS = (
    "--parsable --test-only --requeue --no-requeue -H/--hold --exclusive -Q/--quiet -l/--label -u/--unbuffered "
    "-K --overlap --exact"
)


def sbatch(words: list[str], fault: str | None) -> None:
    """Take a job, or refuse it, or do as if one did not."""
    parser = Parser("sbatch", OPTIONS, FLAGS)
    parser.add_argument("script", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    if given.wrap is not None:
        text = f"#!/bin/sh\n{given.wrap}\n"
    elif given.script and not Path(given.script[0]).is_file():
        replay("sbatch_refused_file", **{"/no/such/file": given.script[0]})
    else:
        text = Path(given.script[0]).read_text() if given.script else sys.stdin.read()
    if not text.startswith("#!"):
        replay("sbatch_refused_script")
    o = parser.parse_args([*directives(text), *words])
    if o.array and os.environ.get("FAKE_SLURM_RUN") == "1":
        stop("sbatch: error: this fake runs no job arrays\n", 1)
    if fault and fault.startswith("refuse_"):
        replay(f"sbatch_refused_{fault.removeprefix('refuse_')}", nope=o.partition or "nope")
    if o.test_only:
        replay("sbatch_test_only")
    if fault == "timeout_before_accept":
        replay("sbatch_timed_out")
    job = store(o, text)
    if os.environ.get("FAKE_SLURM_RUN") == "1" and not o.hold:
        start_runner(job["id"])
    if fault == "timeout_after_accept":
        replay("sbatch_timed_out")
    print(job["id"] if o.parsable else f"Submitted batch job {job['id']}")


def directives(script: str) -> list[str]:
    """The words of the #SBATCH lines, which end at the first command."""
    found: list[str] = []
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            found += shlex.split(line.removeprefix("#SBATCH"), comments=True)
    return found


def store(o: argparse.Namespace, script: str) -> Job:
    """Keep a job that was accepted, under the next free number."""
    with locked():
        numbers = [int(path.stem) for path in (FOLDER / "jobs").glob("*.sh")]
        job_id = max(numbers, default=0) + 1
        path = FOLDER / f"jobs/{job_id}.sh"
        path.write_text(script)
        path.chmod(0o700)
    nodes = int((o.nodes or "1").split("-")[0])
    ntasks = int(o.ntasks or nodes * int(o.ntasks_per_node or 1))
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    job: Job = {"id": job_id, "name": o.job_name or (Path(o.script[0]).name if o.script else "wrap")}
    job |= {"comment": o.comment or "", "partition": o.partition or "debug", "account": o.account or "acme"}
    job |= {"qos": o.qos or "normal", "nodes": nodes, "ntasks": ntasks, "time": o.time or "10:00"}
    job |= {"array": (o.array or "").partition("%")[0]}
    job |= {"output": o.output or "slurm-%j.out", "error": o.error or "", "open_mode": o.open_mode or "truncate"}
    job |= {
        "export": o.export or "ALL",
        "user": getpass.getuser(),
        "workdir": str(Path(o.chdir or ".").absolute()),
    }
    job |= {"state": "PENDING", "reason": "JobHeldUser" if o.hold else "None", "exit_code": "0:0", "submit": now}
    return update(job_id, **job, start="", end="", node_list="", restarts=0, attempts=[])


def srun(words: list[str]) -> None:
    """Run a command once for each task, all of them here."""
    parser = Parser("srun", OPTIONS, FLAGS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    o = parser.parse_args(words)
    nodes = int(o.nodes or os.environ.get("SLURM_NNODES", "1"))
    per_node = int(o.ntasks_per_node or 0)
    ntasks = int(o.ntasks or (nodes * per_node if per_node else os.environ.get("SLURM_NTASKS", nodes)))
    local = -(-ntasks // nodes)
    tasks = []
    for rank in range(ntasks):
        node = rank // local
        own: dict[str, object] = {
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank % local,
            "SLURM_NODEID": node,
            "SLURM_NTASKS": ntasks,
        }
        own |= {"SLURMD_NODENAME": f"node{node + 1}"}
        values = os.environ | {name: str(value) for name, value in own.items()}
        stdout = subprocess.PIPE if o.label else None
        tasks.append(subprocess.Popen(o.command, env=values, stdout=stdout, text=True))
    if job_id := os.environ.get("SLURM_JOB_ID"):
        with (FOLDER / f"jobs/{job_id}.steps").open("a") as steps:
            steps.writelines(f"{task.pid}\n" for task in tasks)
    for rank, task in enumerate(tasks):
        for line in task.stdout or ():
            print(f"{rank}: {line}", end="", flush=True)
    sys.exit(max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks)))


def scancel(words: list[str]) -> None:
    """Cancel jobs, or signal them; unknown ids are no error, as with Slurm."""
    parser = Parser("scancel", "-n/--name -u/--user -s/--signal", "--me -b/--batch -f/--full -Q/--quiet")
    parser.add_argument("ids", nargs="*")
    o = parser.parse_args(words)
    o.jobs, o.user = ",".join(o.ids), getpass.getuser() if o.me else o.user
    if not (o.jobs or o.name or o.user):
        stop("scancel: error: No job identification provided\n", 1)
    for job in chosen(o):
        if o.signal:
            send(job, o.signal, batch=o.batch or o.full, steps=not o.batch)
        elif job["state"] in ACTIVE:
            update(job["id"], state=f"CANCELLED by {os.getuid()}")


def scontrol(words: list[str]) -> None:
    """ping; show config, hostnames, job; requeue; update of the nodes to leave out."""
    match words:
        case ["ping"]:
            replay("scontrol_ping")
        case ["show", "config"]:
            replay("scontrol_show_config")
        case ["show", "partition", "--oneliner"]:
            print((SAMPLES / "scontrol_show_partition.txt").read_text(), end="")
        case ["show", "hostnames", *names]:
            for text in names or [os.environ.get("SLURM_JOB_NODELIST", "")]:
                print(*host_names(text), sep="\n")
        case ["requeue", number] if (FOLDER / f"jobs/{number}.json").exists():
            requeue(int(number))
        case ["requeue", number]:
            replay("scontrol_requeue_unknown", **{"999999": number})
        case ["show", "job", number] if (FOLDER / f"jobs/{number}.json").exists():
            job = load(int(number))
            print(f"JobId={number} JobName={job['name']}\n   JobState={job['state']} Reason={job['reason']}")
            print(f"   Restarts={job['restarts']} ExitCode={job['exit_code']}\n   Comment={job['comment']} ")
            print(f"   ReqNodeList=(null) ExcNodeList={job.get('exc_nodes') or '(null)'}")
        case ["update", job_id, nodes] if job_id.startswith("JobId=") and nodes.startswith("ExcNodeList="):
            number = int(job_id.partition("=")[2])
            if load(number)["state"] != "PENDING":
                stop(f"Job is no longer pending execution for job {number}\n", 1)
            update(number, exc_nodes=nodes.partition("=")[2])
        case ["show", "job", _]:
            replay("scontrol_show_job_unknown")
        case _:
            stop(f"this fake knows no: scontrol {' '.join(words)}\n", 1)


def sacctmgr(words: list[str], fault: str | None, max_submit: str) -> None:
    """Print this user's association, or the QoS; a field that has no limit is empty."""
    if fault:
        replay("sacct_no_accounting" if fault == "down" else "sacct_accounting_disabled")
    known = {"account": "acme", "qos": "normal,short", "defaultqos": "normal", "defaultaccount": "acme"}
    known |= {"maxsubmitjobs": max_submit}
    fields = next((w.partition("=")[2].split(",") for w in words if w.startswith("format=")), ["account"])
    rows = [{"name": "normal"}, {"name": "short", "maxwall": "00:05:00"}] if "qos" in words else [known]
    for row in rows:
        print("|".join(row.get(field.lower(), "") for field in fields))


def host_names(text: str) -> list[str]:
    """The names in `login,node[1-3,07]`."""
    names: list[str] = []
    for prefix, inside in re.findall(r"([^,\[]+)(?:\[([^\]]*)\])?", text):
        for part in inside.split(",") if inside else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if part else []
            names += [f"{prefix}{number:0{len(first)}d}" for number in numbers] if part else [prefix]
    return names


def main(command: str, words: list[str]) -> None:
    """Note the call, meet the faults that were asked for, answer."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    (FOLDER / "jobs").mkdir(exist_ok=True)
    if command == "run-job":
        run_job(int(words[0]))
        return
    if command == "update":
        update(int(words[0]), **json.loads(words[1]))
        return
    with locked(), (FOLDER / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([command, *words]) + "\n")
    path = FOLDER / "faults.json"
    faults = json.loads(path.read_text()) if path.exists() else {}
    time.sleep(faults.get("hang_s", 0))
    if controller := faults.get("controller"):
        # No sample: this command does not ask the controller (sacct, show hostnames).
        asked = "_".join([command, *words[: 2 if words[:1] == ["show"] else 1]]) if command == "scontrol" else command
        # Recorded for one of the tables alone; they all say the same then.
        asked = asked.replace("show_partition", "show_config")
        sample = f"{asked}_{'no_controller' if controller == 'down' else 'timed_out'}"
        if (SAMPLES / f"{sample}.txt").exists():
            replay(sample)
    if command == "sbatch":
        sbatch(words, faults.get("sbatch"))
    elif command == "sacct":
        sacct(words, faults.get("accounting"))
    elif command == "sacctmgr":
        sacctmgr(words, faults.get("accounting"), str(faults.get("max_submit", "")))
    else:
        commands = {"squeue": squeue, "scancel": scancel, "scontrol": scontrol, "sinfo": sinfo, "srun": srun}
        commands[command](words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
