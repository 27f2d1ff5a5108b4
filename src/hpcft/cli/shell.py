"""`hpcft shell`: an interactive shell on a node, with a job's resources and environment."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

import typer

from hpcft.cli.job_options import Request, plan, takes_job
from hpcft.cli.output import say
from hpcft.cli.texts import ending
from hpcft.errors import ConfigError, UnavailableError
from hpcft.runs.files import explained, make_private

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft shell --cluster slurm --time 01:00:00 --dry-run",
            "hpcft shell --cluster slurm --gpus-per-node 2 --set resources.mem_gb=32 --dry-run",
        ],
        {0: "left with exit; other codes are the shell's own", 2: "", 69: "no Slurm here", 77: "", 78: ""},
    )
)
@takes_job
def shell(
    request: Request,
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the command and what the shell reads first."),
) -> None:
    """Wait for an allocation and open a shell on its first node; `hpcft run` inside takes the whole of it."""
    from hpcft.cluster.interactive import salloc_command, shell_text
    from hpcft.cluster.slurm import environment

    planned = plan(request)
    say(planned.reason)
    if planned.profile.scheduler == "local":
        raise ConfigError(
            f"the cluster '{planned.profile.name}' is this machine, where you have a shell already",
            where="--cluster",
            hint="name a Slurm cluster: hpcft cluster ls",
        )
    text = shell_text(planned.profile)
    if dry_run:
        command = salloc_command(planned.resolved.job, planned.profile, Path("RCFILE"))
        print(shlex.join(command))
        print(f"\n# RCFILE\n{text}", end="")
        return
    if shutil.which("salloc") is None:
        raise UnavailableError("there is no Slurm here: salloc is not found", hint="is its module loaded?")
    # In the home, which the nodes see; /tmp is each node's own.
    folder = Path.home() / ".cache" / "hpcft"
    with explained(folder, "make the folder"):
        make_private(folder)
    handle, name = tempfile.mkstemp(prefix="shell-", suffix=".sh", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        # The shell has read it when it runs this line.
        file.write(f"{text}\nrm -f {shlex.quote(name)}\n")
    command = salloc_command(planned.resolved.job, planned.profile, Path(name))
    os.execvpe(command[0], command, environment())  # noqa: S606 (no shell in between)
