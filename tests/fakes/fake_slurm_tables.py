"""The tables that the fake squeue, sacct and sinfo print."""

from __future__ import annotations

import argparse
import getpass
import os

from fake_slurm_jobs import ACTIVE, FOLDER, Job, jobs, nodes_text
from fake_slurm_words import Parser, fill, replay

# Letters of squeue --format, with their headings and their names in --Format.
QUEUE_FIELDS = {
    "i": ("JOBID", "jobarrayid"), "A": ("JOBID", "jobid"), "T": ("STATE", "state"), "t": ("ST", "statecompact"),
    "j": ("NAME", "name"), "r": ("REASON", "reason"), "R": ("NODELIST(REASON)", "reasonlist"),
    "P": ("PARTITION", "partition"), "S": ("START_TIME", "starttime"), "e": ("END_TIME", "endtime"),
    "u": ("USER", "username"), "D": ("NODES", "numnodes"), "N": ("NODELIST", "nodelist"),
    "M": ("TIME", "timeused"), "l": ("TIME_LIMIT", "timelimit"), "k": ("COMMENT", "comment"),
    "a": ("ACCOUNT", "account"), "q": ("QOS", "qos"), "V": ("SUBMIT_TIME", "submittime"),
    "Z": ("WORK_DIR", "workdir"), "F": ("ARRAY_JOB_ID", "arrayjobid"),
}  # fmt: skip
# Widths of sacct's columns; a negative one is to the left.
ACCOUNTING_WIDTHS = {
    "jobid": -12, "jobidraw": -12, "jobname": 10, "state": 10, "exitcode": 8, "nodelist": 15, "start": 19,
    "end": 19, "submit": 19, "comment": 14, "partition": 10, "user": 9, "account": 10, "alloccpus": 10,
    "maxrss": 10, "alloctres": 10,
}  # fmt: skip
NODES = ("node1", "node2")
PARTITIONS = ("debug*", "gpu", "low")


def chosen(arguments: argparse.Namespace) -> list[Job]:
    """The jobs that --jobs, --name and --user ask for."""
    found = jobs()
    if arguments.jobs:
        ids = {int(job_id.partition("_")[0]) for job_id in arguments.jobs.split(",")}
        found = [job for job in found if job["id"] in ids]
    if arguments.name:
        found = [job for job in found if job["name"] in arguments.name.split(",")]
    if arguments.user:
        found = [job for job in found if job["user"] in arguments.user.split(",")]
    return found


def squeue(words: list[str]) -> None:
    """Print the jobs that wait or run."""
    values = "-j/--jobs -n/--name -u/--user -t/--states -o/--format -O/--Format"
    o = Parser("squeue", values, "-h/--noheader --me -a/--all -r/--array").parse_args(words)
    o.user = getpass.getuser() if o.me else o.user
    if o.jobs and o.jobs.isdigit() and not (FOLDER / f"jobs/{o.jobs}.json").exists():
        replay("squeue_unknown_job")
    states = {state.upper() for state in (o.states or ",".join(ACTIVE)).split(",")}
    rows = [job for job in chosen(o) if states & {"ALL", job["state"], ACTIVE.get(job["state"])}]
    rows.sort(key=lambda job: (job["partition"], job["state"] != "PENDING", job["id"]))
    template = o.format or "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
    if o.Format:
        pairs = [(*field.split(":"), "20")[:2] for field in o.Format.split(",")]
        letters = {name: letter for letter, (_, name) in QUEUE_FIELDS.items()}
        template = "".join(f"%{width}{letters.get(name.lower(), name)}" for name, width in pairs)
    heads = {letter: head for letter, (head, _) in QUEUE_FIELDS.items()}
    lines = [queue_row(job) | {"i": task} for job in rows for task in task_ids(job, each=o.array)]
    for row in ([] if o.noheader else [heads]) + lines:
        print(fill(template, row))


def task_ids(job: Job, *, each: bool) -> list[str]:
    """A job's id; of an array that waits its tasks', `7_[0-3,9]`, or each of them."""
    text = job.get("array", "")
    if not text:
        return [str(job["id"])]
    spans = [(part.partition("-")[0], part.rpartition("-")[2]) for part in text.split(",")]
    tasks = [task for first, last in spans for task in range(int(first), int(last) + 1)]
    return [f"{job['id']}_{task}" for task in tasks] if each else [f"{job['id']}_[{text}]"]


def queue_row(job: Job) -> dict[str, str]:
    """A job by the letters of squeue's --format."""
    where = f"({job['reason']})" if job["state"] == "PENDING" else job["node_list"]
    values = (
        job["id"], job["id"], job["state"], ACTIVE.get(job["state"], "CD"), job["name"], job["reason"], where,
        job["partition"], job["start"] or "N/A", job["end"] or "N/A", job["user"], job["nodes"], job["node_list"],
        "0:00", job["time"], job["comment"] or "(null)", job["account"], job["qos"], job["submit"], job["workdir"],
        job["id"],
    )  # fmt: skip
    return {letter: str(value) for letter, value in zip(QUEUE_FIELDS, values, strict=True)}


def sacct(words: list[str], fault: str | None) -> None:
    """Print what accounting knows of jobs, ended ones too."""
    if fault:
        replay("sacct_no_accounting" if fault == "down" else "sacct_accounting_disabled")
    values = "-j/--jobs --name -u/--user -o/--format -S/--starttime -E/--endtime"
    flags = "-X/--allocations -n/--noheader -P/--parsable2 -D/--duplicates -a/--allusers"
    o = Parser("sacct", values, flags).parse_args(words)
    fields = (o.format or "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode").split(",")
    names, widths = [], []
    for name, _, width in (field.partition("%") for field in fields):
        if name.lower() not in ACCOUNTING_WIDTHS:
            replay("sacct_unknown_field", Restarts2=name)
        names.append(name)
        widths.append(int(width or ACCOUNTING_WIDTHS[name.lower()]))
    records = [r for job in chosen(o) for r in accounting_rows(job, attempts=o.duplicates, steps=not o.allocations)]
    lines = [[record[name.lower()] for name in names] for record in records]
    if not o.noheader:
        lines = [names, *([] if o.parsable2 else [["-" * abs(width) for width in widths]]), *lines]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("|".join(line) if o.parsable2 else "".join(f"{column(text, width)} " for text, width in cells))


def column(text: str, width: int) -> str:
    """A column of sacct: a negative width is to the left, a plus stands for what was cut off."""
    size = abs(width)
    text = text if len(text) <= size else text[: size - 1] + "+"
    return text.ljust(size) if width < 0 else text.rjust(size)


def accounting_rows(job: Job, *, attempts: bool, steps: bool) -> list[dict[str, str]]:
    """The records of a job: its attempts, the last only or all of them, each with its batch step if wanted."""
    comment = job["comment"] if os.environ.get("FAKE_SLURM_STORE_COMMENTS") == "1" else ""
    rows = []
    for attempt in [*(job["attempts"] if attempts else []), job]:
        times = {
            "start": attempt["start"] or "Unknown",
            "end": attempt["end"] or "Unknown",
            "submit": job["submit"],
        }
        base = times | {
            "jobid": str(job["id"]),
            "jobidraw": str(job["id"]),
            "jobname": job["name"],
            "user": job["user"],
        }
        base |= {"state": attempt["state"], "exitcode": attempt["exit_code"], "comment": comment}
        base |= {"partition": job["partition"], "account": job["account"], "alloccpus": str(job["ntasks"])}
        # A job's file may be given both: `update(max_rss="2048K", tres="mem=4G,node=1")`.
        base |= {"maxrss": "", "alloctres": job.get("tres", "")}
        rows.append(base | {"nodelist": attempt["node_list"] or "None assigned"})
        if steps and attempt["start"]:
            step = {"jobid": f"{job['id']}.batch", "jobname": "batch", "partition": "", "user": ""}
            step |= {"maxrss": job.get("max_rss", "")}
            rows.append(base | step | {"state": attempt["state"].split()[0], "nodelist": "node1"})
    return rows


def sinfo(words: list[str]) -> None:
    """Print the partitions of a cluster that is never busy."""
    o = Parser("sinfo", "-o/--format -p/--partition", "-h/--noheader -N/--Node -V/--version").parse_args(words)
    if o.version:
        replay("version")
    heads = {"P": "PARTITION", "a": "AVAIL", "l": "TIMELIMIT", "D": "NODES", "T": "STATE", "t": "STATE"}
    heads |= {"N": "NODELIST", "G": "GRES", "c": "CPUS", "m": "MEMORY"}
    same = {"a": "up", "l": "1-00:00:00", "T": "idle", "t": "idle", "G": "gpu:h100:4", "c": "4", "m": "16000"}
    places = [("1", node) for node in NODES] if o.Node else [("2", nodes_text(2))]
    names = [name for name in PARTITIONS if o.partition in (None, name.rstrip("*"))]
    rows = [same | {"P": name, "D": count, "N": node} for count, node in places for name in names]
    for row in ([] if o.noheader else [heads]) + rows:
        print(fill(o.format or "%9P %.5a %.10l %.6D %.6t %N", row))
