"""`hpcft cluster`: the profiles that are there, one of them whole, and one made by asking the cluster."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from hpcft.cli.complete import clusters
from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import ending
from hpcft.errors import ConfigError, UsageError

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    epilog=ending(["hpcft cluster ls", "hpcft cluster probe --name mysite"], {0: "ok", 2: ""}),
)


@app.callback()
def _cluster() -> None:
    """Cluster profiles: list them, show one, or make one by asking Slurm."""


@app.command(epilog=ending(["hpcft cluster ls", "hpcft cluster ls --json"], {0: "listed", 2: ""}))
def ls(json: bool = typer.Option(False, "--json", help="As JSON.")) -> None:
    """List the profiles that --cluster knows, and which one a job would take."""
    from hpcft.cluster.profile import choose_cluster, load_profile
    from hpcft.spec import assets

    rows: list[dict[str, str]] = []
    for name in assets.names("hpc"):
        path = assets.find("hpc", name, what="cluster profile", option="--cluster")
        try:
            profile = load_profile(name)
            rows.append({"name": name, "scheduler": profile.scheduler, "about": profile.description, "file": str(path)})
        except ConfigError as error:
            rows.append({"name": name, "scheduler": "broken", "about": str(error).splitlines()[0], "file": str(path)})
    try:
        chosen, reason = choose_cluster(None, _configured())
        say(f"{reason}; a job without --cluster takes {chosen.name}")
    except ConfigError as error:
        say(str(error))
    if json:
        as_json(rows)
        return
    table("profiles", [(r["name"], f"{r['scheduler']:<7} {r['about']} ({r['file']})") for r in rows])


def _configured() -> tuple[str, str] | None:
    from hpcft.cli.job_options import Request, configured_cluster

    return configured_cluster(Request())


@app.command(epilog=ending(["hpcft cluster show local", "hpcft cluster show slurm --json"], {0: "shown", 78: ""}))
def show(
    name: str = typer.Argument(..., help="A profile's name, or a path that ends in .yaml.", autocompletion=clusters),
    json: bool = typer.Option(False, "--json", help="As JSON."),
) -> None:
    """Show one profile, every key of it."""
    from hpcft.cluster.profile import load_profile

    profile = load_profile(name, "NAME")
    values = profile.model_dump(mode="json")
    if json:
        as_json(values)
        return
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += [(f"{key}.{inner}", str(text)) for inner, text in value.items()]
        elif isinstance(value, list):
            rows += [(key, str(text)) for text in value]
        else:
            rows.append((key, "" if value is None else str(value)))
    table(f"profile {profile.name}", rows)


@app.command(
    epilog=ending(
        ["hpcft cluster probe", "hpcft cluster probe --name mysite --force", "hpcft cluster probe --json"],
        {0: "written, or printed", 2: "", 69: "no Slurm that answers", 77: "", 78: "the file is there already"},
    )
)
def probe(
    name: str | None = typer.Option(None, "--name", metavar="NAME", help="Name of the profile; the cluster's own."),
    output: Path | None = typer.Option(
        None, "--output", metavar="FILE", help="File to write; hpc/NAME.yaml in the current folder. - prints it."
    ),
    force: bool = typer.Option(False, "--force", help="Write over a file that is there."),
    json: bool = typer.Option(False, "--json", help="Print what was found as JSON, and write nothing."),
) -> None:
    """Ask the cluster for its partitions, GPUs, limits, accounts and preemption, and write a profile from it."""
    from hpcft.cluster.probe import probe as ask
    from hpcft.cluster.probe import profile_text
    from hpcft.spec.identifiers import identifier_fault, slug

    facts = ask()
    if json:
        as_json(asdict(facts))
        return
    text = profile_text(facts)
    if str(output) == "-":
        print(text, end="")
        return
    if name is not None and (fault := identifier_fault(name)):
        raise UsageError(f"'{name[:60]}' {fault}", where="--name")
    path = output or Path("hpc") / f"{name or slug(facts.cluster)}.yaml"
    if path.exists() and not force:
        raise ConfigError(
            "is there already, and is not written over", where=str(path), hint="--force, or another --name"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path), hint="choose --output") from error
    say(f"written: {path}; read it, then:")
    chosen = path.stem if output is None else str(path)
    say(f"  hpcft submit --cluster {chosen} --preset quickstart --variant lora --dry-run")
    print(path)
