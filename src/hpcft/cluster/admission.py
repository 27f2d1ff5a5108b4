"""Whether Slurm takes a job from this user: account, QoS, limits, and its own word on the whole script."""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcft.cluster.findings import Finding, green, grey, red, yellow
from hpcft.cluster.limits import limits
from hpcft.cluster.probe import parse_config
from hpcft.cluster.slurm import Answer, call
from hpcft.cluster.submit import refusal
from hpcft.runs.submission import this_user
from hpcft.spec.job import Job, ResourcesSection
from hpcft.spec.types import parse_time

# The doctor may take some seconds; what does not answer within these is grey.
_TIMEOUT_S = 8.0
_FIELDS = "account,partition,qos,defaultqos,maxwall,maxtres"
_QOS_FIELDS = "name,maxwall,maxtres,maxtresperuser,flags"
_START = re.compile(r"to start at (\S+) using (\d+) processors on (?:nodes )?(\S+)")


def admission_findings(job: Job) -> list[Finding]:
    """Account, QoS and their limits, against what the job asks."""
    show = ["sacctmgr", "--noheader", "--parsable2", "show"]
    commands = [
        ["scontrol", "show", "config"],
        [*show, "associations", f"user={this_user()}", f"format={_FIELDS}"],
        [*show, "qos", f"format={_QOS_FIELDS}"],
    ]
    with ThreadPoolExecutor(len(commands)) as pool:
        config, own, qos = pool.map(lambda command: call(command, timeout_s=_TIMEOUT_S), commands)
    return [*read_admission(job.resources, job.world_size, config, own, qos), _room(job)]


def read_admission(asked: ResourcesSection, ranks: int, config: Answer, own: Answer, qos: Answer) -> list[Finding]:
    """The findings in the answers to the three questions of `admission_findings`."""
    if not config.ok:
        return [grey("account", f"Slurm does not say: {' '.join(config.err.split()) or 'no answer'}")]
    enforced = parse_config(config.out).get("AccountingStorageEnforce", "none")
    if not own.ok:
        return [grey("account", f"accounting does not say: {' '.join(own.err.split()) or 'no answer'}")]
    rows = [dict(zip(_FIELDS.split(","), line.split("|"), strict=True)) for line in _lines(own, _FIELDS)]
    known = {
        row["name"]: row
        for row in (
            dict(zip(_QOS_FIELDS.split(","), line.split("|"), strict=True)) for line in _lines(qos, _QOS_FIELDS)
        )
    }
    found: list[Finding] = []
    accounts = sorted({row["account"] for row in rows})
    bad = red if "associations" in enforced or "limits" in enforced or "qos" in enforced else _unenforced
    if not rows:
        found.append(bad("account", f"accounting knows no account of {this_user()}", "ask the site for one"))
    elif asked.account and asked.account not in accounts:
        message = f"'{asked.account}' is no account of {this_user()}"
        found.append(
            bad("account", message, f"--account {accounts[0]}    # of {', '.join(accounts)}", "resources.account")
        )
    else:
        found.append(green("account", asked.account or f"the default one of {', '.join(accounts)}"))
    mine = [row for row in rows if asked.account in (None, row["account"])]
    open_to = sorted({name for row in mine for name in row["qos"].split(",") if name})
    if asked.qos and asked.qos not in known and known:
        message = f"there is no QoS '{asked.qos}'"
        found.append(
            red(
                "qos",
                message,
                f"--qos {next(iter(open_to or known))}    # of {', '.join(open_to or known)}",
                "resources.qos",
            )
        )
    elif asked.qos and open_to and asked.qos not in open_to:
        message = f"QoS '{asked.qos}' is not open to you"
        found.append(bad("qos", message, f"--qos {open_to[0]}    # of {', '.join(open_to)}", "resources.qos"))
    elif mine:
        found.append(green("qos", asked.qos or f"the default one of {', '.join(open_to) or 'the account'}"))
    defaults = {row["defaultqos"] or "normal" for row in mine}
    chosen = asked.qos or (defaults.pop() if len(defaults) == 1 else None)
    for name, row in [("account", mine[0] if len(mine) == 1 else {}), ("qos", known.get(chosen or "", {}))]:
        found += _limit_findings(name, row, asked, ranks)
    return found


def _lines(answer: Answer, fields: str) -> list[str]:
    return [line for line in answer.out.splitlines() if line.count("|") == fields.count(",")] if answer.ok else []


def _unenforced(check: str, message: str, mend: str, where: str = "") -> Finding:
    return yellow(check, f"{message}; this cluster does not enforce it", mend, where)


def _limit_findings(name: str, row: dict[str, str], asked: ResourcesSection, ranks: int) -> list[Finding]:
    """Time and GPUs against the limits of an association or a QoS."""
    found: list[Finding] = []
    what = f"{name} {row.get('account') or row.get('name') or ''}".strip()
    # With DenyOnLimit sbatch says no; without, the job waits for ever.
    if (wall := row.get("maxwall")) and parse_time(asked.time) > parse_time(wall):
        message = f"{asked.time} is more than {what} allows ({wall})"
        found.append(red("time", message, f"--time {wall}    # or another --{name}", "resources.time"))
    for key in ("maxtres", "maxtresperuser"):
        limit = re.search(r"gres/gpu=(\d+)", row.get(key, ""))
        if asked.accelerator != "cpu" and limit and ranks > int(limit[1]):
            message = f"{ranks} GPUs are more than {what} allows ({limit[1]})"
            found.append(red("GPUs", message, f"--nodes 1 --gpus-per-node {limit[1]}", "resources.gpus_per_node"))
            break
    return found


def _room(job: Job) -> Finding:
    known = limits(job)
    if known.room is None:
        return green("submissions", "no limit on how many jobs may wait is told")
    if known.room < 1:
        return red(
            "submissions",
            f"no further job may be submitted now ({known.reason})",
            "hpcft ls    # wait, or hpcft cancel some",
        )
    return green("submissions", f"{known.room} more jobs may be submitted ({known.reason})")


def ask_sbatch(script: str) -> Finding:
    """What `sbatch --test-only` says of a whole script: taken, with its estimate of the start, or refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.sh"
        path.write_text(script, encoding="utf-8")
        answer = call(["sbatch", "--test-only", str(path)], timeout_s=_TIMEOUT_S)
    words = " ".join(answer.err.split())
    if answer.code is None:
        return grey("sbatch", f"--test-only: {words}")
    if answer.ok:
        start = _START.search(words)
        told = f"would start at {start[1]} on {start[3]}, as it looks now" if start else words
        return green("sbatch", f"takes the script; {told}")
    error = refusal(answer.err)
    if error.exit_code != 78:
        return grey("sbatch", error.message)
    return red("sbatch", error.message, error.hint or "see hpcft cluster probe for what there is", error.where or "")
