"""`hpcft drill`: does a job survive here? Tried on a small one, and read from the cluster's settings."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import clusters
from hpcft.cli.job_options import Request, plan
from hpcft.cli.output import as_json, grid, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError

if TYPE_CHECKING:
    from hpcft.cli.twins import Check
    from hpcft.cluster.survival import Meaning

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft drill --cluster local",
            "hpcft drill --cluster slurm --partition debug",
            "hpcft drill --cluster slurm --dry-run",
        ],
        {0: "jobs survive", 1: "they do not, or not everything could be tried", 2: "", 69: "", 77: "", 78: "", 130: ""},
    )
)
def drill(
    cluster: str | None = typer.Option(
        None, "--cluster", metavar="NAME", help="Cluster profile, as for hpcft submit.", autocompletion=clusters
    ),
    partition: str | None = typer.Option(None, "--partition", metavar="VALUE", help="Slurm's partition."),
    account: str | None = typer.Option(None, "--account", metavar="VALUE", help="Account that is charged."),
    qos: str | None = typer.Option(None, "--qos", metavar="VALUE", help="Slurm's quality of service."),
    limit: int = typer.Option(2, "--limit", min=1, max=60, help="Minutes of the job that is to run out of time."),
    minutes: float = typer.Option(30, "--minutes", min=1, help="Minutes to wait for everything, the queue included."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    keep: bool = typer.Option(False, "--keep", help="Keep the drill's run directories."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Read the cluster's settings only; submit nothing."),
    json: bool = typer.Option(False, "--json", help="Print the verdict as JSON."),
) -> None:
    """Signal, requeue and time out a small job, compare it with an undisturbed twin, and say whether jobs survive."""
    given = {"resources.partition": partition, "resources.account": account, "resources.qos": qos}
    base = Request(options={key: (v, "hpcft drill") for key, v in given.items() if v is not None}, cluster=cluster)
    planned = plan(base)
    say(planned.reason)
    began = time.monotonic()
    on_slurm, resources = planned.profile.scheduler == "slurm", planned.resolved.job.resources
    if dry_run and not on_slurm:
        raise UsageError("there are no settings to read: this cluster has no Slurm", where="--dry-run")
    if on_slurm:
        from hpcft.cluster.survival import findings, read_settings

        # Before any job: a partition that is not there is told at once.
        settings = read_settings(resources.partition, resources.qos)
    rehearsal, folder = None, results.absolute() / time.strftime("drill_%Y%m%d_%H%M%S")
    if not dry_run:
        from hpcft.cli import twins

        say("making a small model")
        twins.make_model(folder / "model")
        rehearsal = (
            twins.rehearse_slurm(base, folder, minutes, limit) if on_slurm else twins.rehearse_local(base, folder)
        )
    needed_s = rehearsal.step_s + rehearsal.save_s if rehearsal else None
    found = findings(settings, needed_s, resources.signal_seconds) if on_slurm else []
    survives = (rehearsal is None or rehearsal.survives) and all(finding.level != "bad" for finding in found)
    if survives and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        say(f"kept: {folder}")
    document = {
        "cluster": planned.profile.name,
        "survives": survives,
        "tried": rehearsal is not None,
        "checks": [asdict(check) for check in rehearsal.checks] if rehearsal else [],
        "settings": [asdict(finding) for finding in found],
        "step_s": rehearsal.step_s if rehearsal else None,
        "save_s": rehearsal.save_s if rehearsal else None,
        "requeue_s": rehearsal.requeue_s if rehearsal else None,
        "seconds": round(time.monotonic() - began, 1),
        "directory": str(folder) if folder.is_dir() else None,
    }
    if json:
        as_json(document)
    else:
        _show(rehearsal.checks if rehearsal else [], found)
        print(_verdict(document, on_slurm=on_slurm))
    if not survives:
        raise typer.Exit(1)


def _show(checks: list[Check], found: list[Meaning]) -> None:
    marks = {True: "ok", False: "NO", None: "not tried"}
    if checks:
        grid(["tried", "", ""], [[check.name, marks[check.ok], check.words] for check in checks])
        print()
    if found:
        grid(["setting", "", "value", "what it means"], [[f.setting, f.level, f.value, f.words] for f in found])
        print()
    if changes := [finding.change for finding in found if finding.change]:
        print("to change:", *(f"  {change}" for change in changes), "", sep="\n")


def _verdict(document: dict[str, Any], *, on_slurm: bool) -> str:
    settings = document["settings"]
    if not document["survives"]:
        reasons = [f"{c['name']}: {c['words']}" for c in document["checks"] if not c["ok"]]
        reasons += [f"{f['setting']}={f['value']}: {f['words']}" for f in settings if f["level"] == "bad"]
        return f"Jobs do not survive everything here; the first reason: {reasons[0]}"
    if not on_slurm:
        return (
            "A job that is stopped or killed here goes on where it was. Nothing starts it again by itself: hpcft resume"
        )
    minded = ", ".join(f["setting"] for f in settings if f["level"] == "mind")
    but = f", with what is said of {minded}" if minded else ""
    if not document["tried"]:
        return f"By its settings this cluster lets jobs survive preemption and the time limit{but}. Not tried on a job."
    return f"Jobs survive preemption and the time limit here{but}. ({document['seconds']:.0f} s)"
