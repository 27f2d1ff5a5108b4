"""`hpcft config show`: the job that would run, whole, and where each value comes from."""

from __future__ import annotations

import typer

from hpcft.cli.job_options import Request, plan, takes_job
from hpcft.cli.output import as_json, say
from hpcft.cli.texts import ending
from hpcft.spec.build import flat

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    epilog=ending(["hpcft config show --origin", "hpcft config show --preset quickstart --json"], {0: "shown", 2: ""}),
)


@app.callback()
def _config() -> None:
    """Show a job's configuration and where each value comes from."""


@app.command(
    epilog=ending(
        ["hpcft config show --preset quickstart --origin", "hpcft config show --lr 1e-4 lora.r=16 --json"],
        {0: "shown", 2: "", 78: ""},
    )
)
@takes_job
def show(
    request: Request,
    origin: bool = typer.Option(False, "--origin", help="Say where each value comes from."),
    json: bool = typer.Option(False, "--json", help="As JSON: key → value, or → {value, origin}."),
) -> None:
    """Show every key of the job that these options give."""
    planned = plan(request)
    say(planned.reason)
    values = flat(planned.resolved.job)
    origins = {key: planned.resolved.origin(key) for key in values}
    if json:
        as_json({k: {"value": v, "origin": origins[k]} for k, v in values.items()} if origin else values)
        return
    width = max(len(key) for key in values)
    shown = {key: "null" if value is None else str(value) for key, value in values.items()}
    longest = min(48, max(len(text) for text in shown.values()))
    for key, text in shown.items():
        print(f"{key:<{width}}  {text:<{longest}}  {origins[key]}" if origin else f"{key:<{width}}  {text}")
