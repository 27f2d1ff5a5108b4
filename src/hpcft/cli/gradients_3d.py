"""`hpcft gradients-3d`: a run's gradient norms over layers and steps, in three dimensions."""

from __future__ import annotations

from pathlib import Path

import typer

from hpcft.cli.complete import runs
from hpcft.cli.texts import ending
from hpcft.errors import UsageError
from hpcft.runs.files import explained, make_private
from hpcft.runs.gradients import has_tables, load_gradient_log_from_csv, tables_at
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import find_run
from hpcft.spec.identifiers import user_path
from hpcft.viz.gradients_3d import KINDS, MODULES, plot_gradients_3d
from hpcft.viz.texts import LANGUAGES, known_language

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_ALL = "all"
_TYPES = (*KINDS, _ALL)


def _types(incomplete: str) -> list[str]:
    return [name for name in _TYPES if name.startswith(incomplete)]


def _modules(incomplete: str) -> list[str]:
    return [name for name in MODULES if name.startswith(incomplete)]


@app.command(
    epilog=ending(
        [
            "hpcft gradients-3d --input first --output pictures",
            "hpcft gradients-3d --input results/first/gradient_analysis --output pictures --type bars --module mlp",
        ],
        {0: "drawn", 2: "no such run, or several", 65: "no such tables, or fewer than two steps in them", 77: ""},
    )
)
def gradients_3d(
    base: str = typer.Option(
        ...,
        "--input",
        metavar="BASE",
        help="results/RUN/gradient_analysis, or the run: its directory, name, run id, job id.",
        autocompletion=runs,
    ),
    output: Path = typer.Option(..., "--output", metavar="DIR", help="Folder of the pictures; is made."),
    kind: str = typer.Option(_ALL, "--type", metavar="|".join(_TYPES), help="Which picture.", autocompletion=_types),
    module: str = typer.Option(
        "stacked",
        "--module",
        metavar="|".join(MODULES),
        help="attention or mlp alone; combined: the sum of both norms; stacked: one on top of the other.",
        autocompletion=_modules,
    ),
    lang: str = typer.Option("en", "--lang", metavar="|".join(LANGUAGES), help="Language of the pictures."),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    no_interactive: bool = typer.Option(
        False, "--no-interactive", help="As without it: pictures are files, and no window is opened."
    ),
) -> None:
    """Draw a run's gradient norms over layers and steps as a surface, a wireframe or bars."""
    for given, known, option in ((kind, _TYPES, "--type"), (module, MODULES, "--module")):
        if given not in known:
            raise UsageError(f"'{given[:40]}' is not one of {', '.join(known)}", where=option)
    chosen = known_language(lang, "--lang")
    found = _found(base, results)
    gradients = load_gradient_log_from_csv(found)
    folder = user_path(str(output))
    with explained(folder, "make the folder"):
        make_private(folder)
    drawn = plot_gradients_3d(
        gradients, folder, KINDS if kind == _ALL else [kind], module, name=_name(found), lang=chosen
    )
    for path in drawn:
        print(path)


def _found(text: str, results: Path) -> Path:
    """Where the tables are that a user means by a base path or by a run.

    Raises:
        UsageError: neither is there; or several runs fit.
    """
    path = user_path(text)
    if has_tables(path):
        return path
    try:
        return find_run(text, results).paths.root
    except UsageError:
        # What is plainly a path is told what it lacks as such.
        if path.is_dir() or path.name.startswith(RunPaths(path).gradients.name):
            return path
        raise


def _name(found: Path) -> str:
    """What the tables are of: the run, or where they have a name of their own, that."""
    base = tables_at(found.absolute())
    return base.parent.name if base.name == RunPaths(base).gradients.name else base.name
