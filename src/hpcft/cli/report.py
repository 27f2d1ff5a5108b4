"""`hpcft report`: one HTML file about a run, a comparison or a sweep, that opens without network."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import runs as complete_runs
from hpcft.cli.output import as_json, printable, say
from hpcft.cli.texts import ending
from hpcft.errors import UsageError
from hpcft.runs.files import explained, make_private, write_atomic
from hpcft.runs.run import Run, find_runs, list_runs

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft report", "hpcft report first second --out comparison.html --png"],
        {0: "written", 2: "no such run, or none at all", 77: ""},
    )
)
def report(
    run: list[str] = typer.Argument(
        None,
        metavar="[RUN]...",
        help="Directory, name, run id, job id, or a unique beginning; all runs when absent.",
        autocompletion=complete_runs,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    out: Path = typer.Option(
        None,
        "--out",
        metavar="FILE",
        help="File to write; by default report.html in the results folder, or in the directory of a single run.",
    ),
    title: str = typer.Option(None, "--title", help="At the top of the page; by default the name of what it is about."),
    baseline: str = typer.Option(
        None, "--baseline", metavar="RUN", help="Run, or variant of one run, that the others' figures are divided by."
    ),
    png: bool = typer.Option(False, "--png", help="Write the pictures as PNG beside it too."),
    json: bool = typer.Option(False, "--json", help="Print the report's figures as JSON."),
) -> None:
    """Write one HTML file about runs: comparison, Pareto front, curves, latency, costs, differences, environment."""
    from hpcft.report.contents import document, gather
    from hpcft.report.page import html_of

    chosen = find_runs(run, results) if run else list_runs(results)
    if not chosen:
        raise UsageError("there is no run to report", where=str(results), hint="name some, or another --results")
    found = gather(chosen, title or _title(chosen, results), baseline)
    page = out or (chosen[0].paths.root if len(chosen) == 1 else results) / "report.html"
    if page.is_dir():
        raise UsageError("is a folder", where=f"--out {page}", hint=f"--out {page / 'report.html'}")
    with explained(page.parent, "make the folder"):
        make_private(page.parent)
    write_atomic(page, html_of(found))
    written = [page]
    if png:
        from hpcft.report.pictures import draw_pictures

        written += draw_pictures(found, page.parent, page.stem)
    for note in found.notes:
        say(printable(note))
    say(f"written: {', '.join(map(str, written))}")
    if json:
        as_json(document(found))


def _title(runs: list[Run], results: Path) -> str:
    return runs[0].name if len(runs) == 1 else results.resolve().name
