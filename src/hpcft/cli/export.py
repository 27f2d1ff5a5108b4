"""`hpcft export`: everything that is known of runs, as one table for other programs."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.filters import takes_filters
from hpcft.cli.listing import Filters, standings
from hpcft.cli.output import say
from hpcft.cli.query import write_table
from hpcft.cli.texts import ending

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft export --out runs.csv", "hpcft export --state success --out runs.parquet"],
        {0: "written", 2: "another ending than .csv, .json, .parquet", 77: ""},
    )
)
@takes_filters
def export(
    filters: Filters,
    out: Path = typer.Option(..., "--out", metavar="FILE", help="File to write: .csv, .json or .parquet."),
) -> None:
    """Write a table of runs with every setting that differs from its default, and every metric."""
    from hpcft.cluster.poll import Poll
    from hpcft.runs.index.query import COLUMNS, Index, Query

    rows = []
    with Index(filters.results) as index:
        found, known, _ = standings(index, filters, Query(), Poll())
        for standing in found:
            row = known[str(standing.record.root)]
            rows.append({name: row[name] for name in COLUMNS} | {"state": str(standing.state)} | index.facts(row["id"]))
    write_table(out, rows)
    say(f"written: {out}, {len(rows):,} runs")
