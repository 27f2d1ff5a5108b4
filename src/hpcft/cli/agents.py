"""`hpcft sweep FILE --agents N`: W&B's own agents as an array of Slurm, where nodes reach its server."""

from __future__ import annotations

import os
from pathlib import Path

from hpcft.cli.job_options import resolve
from hpcft.cli.output import as_json, say, table
from hpcft.errors import ConfigError, UsageError
from hpcft.runs.create import discard, make_run_directory, new_run_id
from hpcft.runs.files import explained, make_private
from hpcft.runs.paths import RunPaths
from hpcft.runs.submission import Journal, submissions
from hpcft.spec.identifiers import identifier_fault
from hpcft.spec.layers import Layer


def start_agents(
    layers: list[Layer],
    cluster: str | None,
    agents: int,
    sweep_id: str | None,
    count: int | None,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Submit agents of a sweep that W&B's server knows.

    Args:
        layers: of the job, whose resources each agent asks for.
        agents: their number. count: trials of each; None: as long as the server has some.
        sweep_id: `entity/project/id`, as `wandb sweep FILE` prints it.

    Raises:
        UsageError: no sweep is named. ConfigError: the nodes reach no server, or Slurm refuses.
    """
    from hpcft.cli.trials import profile_place
    from hpcft.cluster.render import render_agents
    from hpcft.cluster.submit import record_intent, submit_script

    if not sweep_id or len(parts := sweep_id.split("/")) > 3 or any(map(identifier_fault, parts)):
        hint = "`wandb sweep FILE` makes the sweep and tells it; without --agents no server is needed"
        raise UsageError("agents need the sweep's ENTITY/PROJECT/ID", where="--sweep-id", hint=hint)
    resolved, profile, reason = resolve(layers, cluster)
    say(reason)
    if profile.scheduler != "slurm":
        raise ConfigError("agents are jobs of Slurm", where=profile.name, hint=f"here: wandb agent {sweep_id}")
    if not profile.internet and "WANDB_BASE_URL" not in os.environ:
        hint = "without --agents trials need no server; internet: true in the profile where that is wrong"
        raise ConfigError("its nodes reach no server of W&B", where=f"profile {profile.name}", hint=hint)
    job, place = resolved.job, profile_place(layers, cluster, profile.name)

    def script(paths: RunPaths, key: str) -> str:
        return render_agents(job, profile, paths, key, agents, sweep_id, count, place)

    name = f"agents-{parts[-1]}"
    if dry_run:
        root = RunPaths((Path(job.results) / name).absolute())
        text = script(root, "agents-id")
        if json:
            as_json({"script": text, "directory": str(root.root)})
        else:
            print(text, end="")
        return
    paths = make_run_directory(Path(job.results), name, name)
    try:
        with explained(paths.root, "make the folder of the logs"):
            make_private(paths.root / "logs")
        with Journal(paths) as journal:
            key = record_intent(journal, job, profile, paths, new_run_id(), sweep=sweep_id, agents=agents)
            job_id = submit_script(script(paths, key), key, journal, say)
    finally:
        if not any(s.was_sent for s in submissions(paths)):
            discard(paths)
    facts = {"agents": agents, "sweep": sweep_id, "job_id": job_id, "logs": str(paths.root / "logs")}
    if json:
        as_json(facts)
    else:
        table("submitted", [(key.replace("_", " "), str(value)) for key, value in facts.items()])
