"""`hpcft ls`: all runs, with filters; only those that are shown are read."""

from __future__ import annotations

import typer

from hpcft.cli.filters import takes_filters
from hpcft.cli.listing import SHOWN, Filters, listing
from hpcft.cli.texts import ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        [
            "hpcft ls",
            "hpcft ls --state started --state pending --since 2d",
            "hpcft ls --variant qlora --where 'lora.r>=8' --sort f1 --show f1 --show lora.r",
            "hpcft ls --groups",
        ],
        {0: "listed, also when there is none", 2: ""},
    )
)
@takes_filters
def ls(
    filters: Filters,
    sort: str = typer.Option(
        "time", "--sort", "--sort-by", help="time (newest first), name, state, step, loss, or any setting or metric."
    ),
    descending: bool | None = typer.Option(None, "--desc/--asc", help="Largest or smallest first."),
    show: list[str] = typer.Option([], "--show", metavar="KEY", help="A column more; may be repeated."),
    limit: int | None = typer.Option(
        None, "--limit", min=0, help=f"So many at most, 0 for all. [{SHOWN}; with --json all]", show_default=False
    ),
    by_group: bool = typer.Option(False, "--groups", help="One line for each pipeline and sweep."),
    json: bool = typer.Option(False, "--json", help="Print the runs as JSON."),
) -> None:
    """List the runs."""
    listing(filters, sort=sort, descending=descending, show=show, limit=limit, by_group=by_group, json=json)
