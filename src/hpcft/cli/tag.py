"""`hpcft tag`: tags and notes of runs, kept in their directories."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import as_json, table
from hpcft.cli.texts import ending
from hpcft.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_LONGEST_NOTE = 65_536


@app.command(
    epilog=ending(
        ["hpcft tag first --add paper --note 'the one of table 2'", "hpcft tag first --remove paper"],
        {0: "marked, or shown", 2: "no such run, or no tag", 77: ""},
    )
)
def tag(
    run: list[str] = typer.Argument(
        ..., metavar="RUN...", help="Runs, pipelines or sweeps, as with hpcft show.", autocompletion=runs
    ),
    add: list[str] = typer.Option([], "--add", metavar="TAG", help="Add this one; may be repeated."),
    remove: list[str] = typer.Option([], "--remove", metavar="TAG", help="Take this one away; may be repeated."),
    note: str | None = typer.Option(None, "--note", help="The note, in place of the one that is there."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print tags and notes as JSON."),
) -> None:
    """Give runs tags and a note, take tags away, or show them. `hpcft ls --tag` finds them."""
    from hpcft.runs.marks import mark, marks_of
    from hpcft.runs.run import find_runs, label

    if note is not None and len(note) > _LONGEST_NOTE:
        raise UsageError(f"has {len(note):,} characters, at most {_LONGEST_NOTE:,} can be kept", where="--note")
    found = find_runs(run, results)
    if add or remove or note is not None:
        for each in found:
            mark(each.paths, added=add, removed=remove, notes=note)
    told = [(label(each.paths.root, results), *marks_of(each)) for each in found]
    if json:
        as_json([{"name": name, "tags": tags, "notes": notes} for name, tags, notes in told])
        return
    table("tags and notes", [(name, ", ".join(tags) + (f"  {notes}" if notes else "")) for name, tags, notes in told])
