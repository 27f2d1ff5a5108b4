"""`hpcft tools`: what needs an environment of its own, installed and listed."""

from __future__ import annotations

import typer

from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import ending

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    epilog=ending(["hpcft tools list", "hpcft tools install gptq --dry-run"], {0: "ok", 2: ""}),
)


@app.callback()
def _tools() -> None:
    """Programs that need an environment of their own: list them, install one."""


def _names(incomplete: str) -> list[str]:
    from hpcft.models.tools import TOOLS

    return [name for name in TOOLS if name.startswith(incomplete)]


@app.command("list", epilog=ending(["hpcft tools list", "hpcft tools list --json"], {0: "listed", 2: ""}))
def listed(json: bool = typer.Option(False, "--json", help="As JSON.")) -> None:
    """List the tools: what each is for, whether it is installed, and where."""
    from hpcft.models import tools

    rows = [
        {
            "name": tool.name,
            "state": str(tools.state(tool)),
            "about": tool.about,
            "requirements": list(tool.requirements),
            "size_gb": tool.size_gb,
            "folder": str(tools.environment_of(tool)),
            "versions": (tools.installed(tool) or {}).get("versions", {}),
        }
        for tool in tools.TOOLS.values()
    ]
    if json:
        as_json(rows)
        return
    table("tools", [(str(r["name"]), f"{r['state']}: {r['about']} ({r['folder']}, {r['size_gb']} GB)") for r in rows])


@app.command(
    epilog=ending(
        ["hpcft tools install gptq --dry-run", "hpcft tools install gptq"],
        {0: "installed", 1: "what was installed does not work", 2: "", 69: "no network, or the package index refuses"}
        | {77: ""},
    )
)
def install(
    name: str = typer.Argument(..., metavar="TOOL", help="Which one; see hpcft tools list.", autocompletion=_names),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print what would be installed, and where."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Install a tool for all your jobs, into a folder of yours (HPCFT_TOOLS). Needs internet: run it on a login node.
    An installation that was interrupted is made anew; one that is there is kept."""
    from hpcft.models import tools

    tool = tools.find_tool(name)
    folder = tools.environment_of(tool)
    if not dry_run:
        tools.install(tool, say)
    facts = {
        "tool": tool.name,
        "state": str(tools.state(tool)),
        "folder": str(folder),
        "requirements": list(tool.requirements),
        "size_gb": tool.size_gb,
    }
    if json:
        as_json(facts)
        return
    shown = {**facts, "requirements": ", ".join(tool.requirements), "size_gb": f"{tool.size_gb:g} GB"}
    table(tool.name, [(key.removesuffix("_gb"), str(value)) for key, value in shown.items() if key != "tool"])
