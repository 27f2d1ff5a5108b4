"""`hpcft query`: figures and settings of runs, one by one or by group with their spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hpcft.cli.filters import takes_filters
from hpcft.cli.listing import Filters, figure_text, standings
from hpcft.cli.output import as_json, grid, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SHOWN = ("f1", "eval_loss", "train_runtime")
FORMATS = (".csv", ".json", ".parquet")


@app.command(
    epilog=ending(
        [
            "hpcft query --keys",
            "hpcft query --show f1 --show train_runtime --sort f1",
            "hpcft query --by variant --by lora.r --show f1 --out seeds.csv",
        ],
        {0: "shown, also when there is none", 2: "nothing is called so", 77: ""},
    )
)
@takes_filters
def query(
    filters: Filters,
    show: list[str] = typer.Option(
        [], "--show", metavar="KEY", help=f"A setting, metric or column; may be repeated. [{', '.join(_SHOWN)}]"
    ),
    by: list[str] = typer.Option(
        [], "--by", metavar="KEY", help="One line for each value: mean, spread and number of its runs; may be repeated."
    ),
    sort: str = typer.Option("created", "--sort", "--sort-by", metavar="KEY", help="Order by it."),
    descending: bool = typer.Option(True, "--desc/--asc", help="Largest or smallest first."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="So many runs at most."),
    keys: bool = typer.Option(False, "--keys", help="List what can be asked for."),
    out: Path = typer.Option(None, "--out", metavar="FILE", help="Write the table: .csv, .json or .parquet."),
    json: bool = typer.Option(False, "--json", help="Print the table as JSON."),
) -> None:
    """Ask for any settings and metrics of runs; by group, their mean and spread."""
    from hpcft.runs.index.query import COLUMNS, Index, Query, grouped

    with Index(filters.results) as index:
        if keys:
            as_json([*COLUMNS, *index.keys()]) if json else print("\n".join([*COLUMNS, *index.keys()]))
            return
        wanted = tuple(dict.fromkeys([*by, *(show or [k for k in _SHOWN if index.has(k)])]))
        found = Query(sort=sort, descending=descending, limit=limit, show=tuple(k for k in wanted if k not in COLUMNS))
        rows = table_of(index, filters, found, wanted)
    if by:
        rows = list(grouped(rows, by, [key for key in wanted if key not in by]))
    if out is not None:
        write_table(out, rows)
        say(f"written: {out}, {len(rows):,} rows")
    if json:
        as_json(rows)
    elif out is None:
        _print(rows, filters.results)


def table_of(index: Any, filters: Filters, asked: Any, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """Each run with its name, state and what is wanted of it."""
    from hpcft.cluster.poll import Poll

    found, rows, _ = standings(index, filters, asked, Poll())
    told = []
    for standing in found:
        row = rows[str(standing.record.root)]
        told.append({"run": row["run"], "state": str(standing.state)} | {k: row[k] for k in wanted if k != "state"})
    return told


def _print(rows: list[dict[str, Any]], results: Path) -> None:
    if not rows:
        say(f"no such run in {results}")
        return
    grid(list(rows[0]), [[_text(value) for value in row.values()] for row in rows])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        spread = f" ± {value['std']:.2g}" if value["n"] > 1 else ""
        return f"{value['mean']:.5g}{spread} (n {value['n']})"
    return figure_text(value)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, JSON or Parquet; figures of groups become columns of their own.

    Raises:
        UsageError: another ending. NotAllowedError: it cannot be written.
    """
    from hpcft.runs.files import explained, write_atomic, write_json

    ending_of = path.suffix.lower()
    if ending_of not in FORMATS:
        raise UsageError(f"ends in '{path.suffix}'; one of {', '.join(FORMATS)}", where="--out")
    if ending_of == ".json":
        write_json(path, rows)
        return
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    if ending_of == ".csv":
        import csv
        import io

        file = io.StringIO()
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(flat)
        write_atomic(path, file.getvalue())
        return
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({key: _column([row.get(key) for row in flat]) for key in columns})
    with explained(path, "write"):
        pyarrow.parquet.write_table(table, path)
        path.chmod(0o600)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        found |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _column(values: list[Any]) -> list[Any]:
    """Of one kind, as a Parquet column has to be."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]
