"""`hpcft compare RUN RUN…`: runs side by side on the same inputs, and how sure their differences are."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from hpcft.cli.complete import runs as complete_runs
from hpcft.cli.output import as_json, grid, printable, say, table
from hpcft.cli.texts import ending
from hpcft.errors import UsageError
from hpcft.report.compare import Comparison, Figure
from hpcft.report.compare import compare as compare_runs
from hpcft.report.compare_files import answers_markdown, csv_text, document, headings
from hpcft.runs.files import explained, make_private, write_atomic, write_json
from hpcft.runs.run import Run, RunState, find_runs, group_folder

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_ANSWERS_IN_FILE = 10


@app.command(
    epilog=ending(
        [
            "hpcft compare first second",
            "hpcft compare first second --answers 10 --out comparison",
            "hpcft compare first second --answer-format '.*[.!?]'",
        ],
        {0: "shown", 2: "no such run, or runs that cannot be compared", 65: "", 77: ""},
    )
)
def compare(
    run: list[str] = typer.Argument(
        ...,
        metavar="RUN RUN...",
        help="Directory, name, run id, job id, or a unique beginning; finished, with scored answers.",
        autocompletion=complete_runs,
    ),
    baseline: str = typer.Option(
        None,
        "--baseline",
        metavar="RUN",
        help="Run that the others are compared with; the first one when absent.",
        autocompletion=complete_runs,
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    shared_inputs: bool = typer.Option(
        False, "--shared-inputs", help="Compare on the inputs that all runs answered, where they differ."
    ),
    answers: int = typer.Option(
        0, "--answers", min=0, help="Show so many inputs that the baseline answers right, and so many wrong."
    ),
    answer_format: str = typer.Option(
        None,
        "--answer-format",
        metavar="REGEX",
        help="What a whole answer should look like; the share of answers that do is one more score.",
    ),
    out: Path = typer.Option(None, "--out", help="Folder for comparison.json, comparison.csv and answers.md."),
    json: bool = typer.Option(False, "--json", help="Print the comparison as JSON."),
) -> None:
    """Compare runs on the same inputs: scores with intervals, paired tests, costs, answers."""
    chosen = _distinct([baseline, *run] if baseline else run, results)
    found = compare_runs(chosen, shared_inputs=shared_inputs, answer_format=_pattern(answer_format))
    if out is not None:
        _write(found, out, answers)
    if json:
        as_json(document(found, answers))
        return
    _show(found)
    if answers:
        _show_answers(found, answers)
    for note in found.notes:
        say(printable(note))


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text, re.DOTALL) if text is not None else None
    except re.error as error:
        raise UsageError(f"is no regular expression: {error}", where="--answer-format") from None


def _distinct(texts: list[str], results: Path) -> list[Run]:
    found: dict[Path, Run] = {}
    for text in texts:
        # A sweep's runs that have not finished, or failed, do not hinder the comparison of the others.
        whole = group_folder(text, results) is not None
        runs = [r for r in find_runs([text], results) if not whole or r.state is RunState.SUCCESS]
        found |= {run.paths.root.resolve(): run for run in runs}
    return list(found.values())


def _show(found: Comparison) -> None:
    rows = [[score, *(_value(figures[name]) for name in found.names)] for score, figures in found.scores.items()]
    rows += [[key, *(_cost(values[name]) for name in found.names)] for key, values in found.costs.items()]
    rows.append(["words an answer", *(f"{found.words[name]:.1f}" for name in found.names)])
    grid([f"{found.inputs} inputs", *found.names], rows)
    print()
    several = len(found.names) > 2
    head = ["score", "run", f"difference to {found.baseline}", "p", *(["p (Holm)"] if several else [])]
    grid(
        head,
        [
            [score, name, f"{figure.difference:+.4f}", _p(figure.p), *([_p(figure.p_holm)] if several else [])]
            for score, figures in found.scores.items()
            for name, figure in figures.items()
            if figure.difference is not None
        ],
    )


def _value(figure: Figure) -> str:
    if figure.interval is None:
        return f"{figure.value:.4f}"
    return f"{figure.value:.4f} [{figure.interval[0]:.4f}, {figure.interval[1]:.4f}]"


def _cost(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _show_answers(found: Comparison, count: int) -> None:
    chosen = found.answers(count)
    for title, right in zip(headings(found), (True, False), strict=True):
        print()
        those = [a for a in chosen if a.right is right]
        print(printable(f"{title}: {len(those)}"))
        for a in those:
            said = [("references", " / ".join(a.references)), *a.predictions.items()]
            table(_line(f"{a.context} {a.input}"), [(printable(name), _line(text)) for name, text in said])


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _write(found: Comparison, folder: Path, answers: int) -> None:
    with explained(folder, "make the folder"):
        make_private(folder)
    count = answers or _ANSWERS_IN_FILE
    written = ["comparison.json", "comparison.csv"]
    write_json(folder / "comparison.json", document(found, count if found.judged_by else 0))
    write_atomic(folder / "comparison.csv", csv_text(found))
    if found.judged_by or answers:
        write_atomic(folder / "answers.md", answers_markdown(found, count))
        written.append("answers.md")
    say(f"written: {', '.join(str(folder / name) for name in written)}")
