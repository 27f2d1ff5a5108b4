"""`hpcft data`: check, clean and analyze data sets, keep versions of them, compare two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import datasets as known_sets
from hpcft.cli.data_view import check_title, show_analysis, show_checks, show_diff
from hpcft.cli.job_options import Request, takes_data, typed_layers
from hpcft.cli.output import as_json, grid, say, table
from hpcft.cli.texts import ending
from hpcft.errors import DataError, UsageError

if TYPE_CHECKING:
    from hpcft.data.care.diff import Side
    from hpcft.spec.build import Resolved
    from hpcft.spec.job import DataSection, Job

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    epilog=ending(["hpcft data validate quickstart", "hpcft data analyze quickstart --json"], {0: "ok", 2: "", 65: ""}),
)
JSON = typer.Option(False, "--json", help="Print the result as JSON.")
ROWS = typer.Option(None, "--rows", min=1, metavar="N", help="Look at so many rows of each set at most.")
REPORT = typer.Option(None, "--report", metavar="FILE.html", help="Write a page too.")
OUT = typer.Option(None, "--out", metavar="FILE", help="Write the JSON into a file too.")
RESULTS = typer.Option(Path("results"), "--results", help="Folder of the run directories; the versions are in it.")


@app.callback()
def _data() -> None:
    """Know the data before it is trained on."""


@app.command(
    epilog=ending(
        ["hpcft data validate quickstart", "hpcft data validate quickstart checks.max_text_length=300 --json"],
        {0: "nothing of high priority was found", 2: "", 65: "something was, or the data cannot be read", 69: ""},
    )
)
@takes_data
def validate(
    request: Request,
    rows: int = ROWS,
    report: Path = REPORT,
    out: Path = OUT,
    json: bool = JSON,
) -> None:
    """Look for empty, cut, wrongly decoded, repeated and contradictory rows, and for validation rows that are trained
    on too; say what to do about each."""
    jobs = [resolved.job for resolved in _jobs(request)]
    from hpcft.data.care.check import check

    reports: list[dict[str, Any]] = []
    for job in jobs:
        say(f"checking {', '.join(path for path in _sets(job.data))}")
        reports += check(job.data, job.checks, lang=job.lang, limit=rows)
    _give(reports, report, out, json, jobs[0].lang, show_checks)
    if not all(each["is_clean"] for each in reports):
        raise typer.Exit(DataError.exit_code)


@app.command(
    epilog=ending(
        ["hpcft data analyze quickstart", "hpcft data analyze quickstart quickstart-notices --json"],
        {0: "analyzed", 2: "", 65: "", 69: ""},
    )
)
@takes_data
def analyze(
    request: Request,
    rows: int = ROWS,
    report: Path = REPORT,
    out: Path = OUT,
    json: bool = JSON,
) -> None:
    """Count classes and lengths; with --model tokens, and what data.max_length cuts. Several sets are compared."""
    reports: list[dict[str, Any]] = []
    resolved = _jobs(request)
    from hpcft.data.care.check import check

    for each in resolved:
        say(f"analyzing {', '.join(_sets(each.job.data))}")
        tokenizer, model = _tokenizer(each)
        # Rows that are nearly the same are a check's business, and take the most time.
        rules = each.job.checks.model_copy(update={"near_rows": 0})
        reports += check(each.job.data, rules, lang=each.job.lang, limit=rows, tokenizer=tokenizer, model=model)
    _give(
        [_analysis(each) for each in reports] if json or out else reports,
        report,
        out,
        json,
        "en",
        show_analysis,
        reports,
    )


@app.command(
    epilog=ending(
        ["hpcft data clean quickstart --out clean.jsonl"], {0: "cleaned", 2: "", 65: "nothing would be left", 77: ""}
    )
)
@takes_data
def clean(
    request: Request,
    out: Path = typer.Option(None, "--out", metavar="FILE", help="File to make; else NAME_clean beside the set."),
    json: bool = JSON,
) -> None:
    """Write the set without tags, broken, empty, too long or short and repeated rows; the checks.* keys say what is.
    What is written is checked again, and recorded as a version with what was done."""
    from hpcft.data.care.check import check, reader
    from hpcft.data.care.clean import clean as run
    from hpcft.data.care.versions import record

    job = _one(request)
    name = job.data.dataset
    target = out or _beside(name)
    done = run(reader(name, job.data), name, job.data, job.checks, target)
    after = job.data.model_copy(update={"dataset": str(target), "mix": [], "validation": None})
    rules = job.checks.model_copy(update={"near_rows": 0})
    report = check(after, rules, lang=job.lang)[0]
    source = {**_source(after), "cleaned_from": name}
    version, _ = record(Path(job.results), report, source, cleaning=done.facts)
    if json:
        as_json({"file": str(target), "version": version.version, **done.facts, "report": report})
        return
    rows = [("rows read", f"{done.rows:,}"), ("kept", f"{done.kept:,}"), ("of them changed", f"{done.changed:,}")]
    rows += [(f"removed: {check_title(kind)}", f"{n:,}") for kind, n in done.removed.most_common()]
    table(str(target), [*rows, ("version", f"{version.dataset}@{version.version}")])
    for finding in report["recommendations"]:
        say(f"{finding['priority']}: {finding['text']}")


@app.command(
    epilog=ending(
        ['hpcft data version quickstart --name first --description "as it came"'],
        {0: "recorded, or known already", 2: "the name is taken", 65: "", 77: ""},
    )
)
@takes_data
def version(
    request: Request,
    name: str = typer.Option(None, "--name", metavar="NAME", help="What to call this version."),
    dataset: str = typer.Option(None, "--as", metavar="SET", help="The set that it is a version of; else by its file."),
    description: str = typer.Option("", "--description", help="A note about it."),
    keep: bool = typer.Option(False, "--keep", help="Keep a copy of the rows, so that it can be compared later."),
    json: bool = JSON,
) -> None:
    """Record what a set holds now. The same rows are the same version; jobs do this by themselves."""
    from hpcft.data.care.check import check
    from hpcft.data.care.versions import as_facts, record

    job = _one(request)
    rules = job.checks.model_copy(update={"near_rows": 0})
    report = check(job.data.model_copy(update={"validation": None, "mix": []}), rules, lang=job.lang)[0]
    source = _source(job.data)
    if keep and "path" not in source:
        raise UsageError("only a file's rows can be kept", where="--keep")
    copy = Path(source["path"]) if keep else None
    found, new = record(
        Path(job.results), report, source, dataset=dataset, name=name, description=description, keep=copy
    )
    if json:
        as_json({**as_facts(found), "is_new": new})
        return
    print(f"{found.dataset}@{found.version}")
    say(f"{'recorded' if new else 'known already'}: {found.name}, {found.num_samples:,} rows")


@app.command(
    epilog=ending(["hpcft data versions", "hpcft data versions quickstart --json"], {0: "listed", 2: "no such set"})
)
def versions(
    dataset: str = typer.Argument(None, metavar="[SET]", help="Of this set alone.", autocompletion=known_sets),
    results: Path = RESULTS,
    json: bool = JSON,
) -> None:
    """List the versions of data sets, and which one was used last."""
    from hpcft.cluster.state import moment
    from hpcft.data.care.versions import as_facts, current
    from hpcft.data.care.versions import versions as read

    found = read(results, dataset)
    if dataset is not None and not found:
        known = sorted({v.dataset for v in read(results)})
        hint = f"known: {', '.join(known)}" if known else "a job or hpcft data version records them"
        raise UsageError(f"no version of '{dataset[:60]}'", where=str(results), hint=hint)
    sets = {v.dataset for v in found}
    last = {name: current([v for v in found if v.dataset == name]) for name in sets}
    if json:
        as_json([{**as_facts(v), "is_current": v is last[v.dataset]} for v in found])
        return
    if not found:
        say(f"no version in {results} yet")
        return
    lines = []
    for v in found:
        state = "current" if v is last[v.dataset] else ""
        cleaned = f"from {v.source['cleaned_from']}" if v.cleaning else ""
        lines.append([f"{v.dataset}@{v.version}", v.name, f"{v.num_samples:,}", moment(v.created_at), state])
        lines[-1] += ["kept" if v.kept else "", cleaned or v.description[:60]]
    grid(["version", "name", "rows", "recorded", "", "", "about"], lines)


@app.command(
    epilog=ending(
        ["hpcft data diff quickstart quickstart", "hpcft data diff quickstart quickstart-notices --json"],
        {0: "the same rows", 1: "they differ", 2: "", 65: ""},
    )
)
@takes_data
def diff(request: Request, json: bool = JSON) -> None:
    """Compare two sets, files or versions (SET@VERSION): rows that came and went, answers that changed."""
    from hpcft.data.care.diff import diff as compare

    named = _datasets(request)
    if len(named) != 2:
        raise UsageError(f"two are compared, and {len(named)} are named", hint="hpcft data diff OLD NEW")
    job = _resolved(request, None).job
    found = compare(*(_side(text, job) for text in named))
    if json:
        as_json(found)
    else:
        show_diff(found)
    if not found["same_rows"]:
        raise typer.Exit(1)


# The words of the command line.


def _datasets(request: Request) -> list[str]:
    """The bare words that are neither a job file nor key=value."""
    return [w for w in request.words if (os.path.isfile(w) and not _is_spec(w)) or not (_is_spec(w) or "=" in w)]  # noqa: PTH113


def _is_spec(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def _resolved(request: Request, dataset: str | None) -> Resolved:
    from dataclasses import replace

    from hpcft.spec.build import build
    from hpcft.spec.layers import mapping_layer

    named = _datasets(request)
    layers = typed_layers(replace(request, words=[w for w in request.words if w not in named]))
    if dataset is not None:
        layers.append(mapping_layer({"data.dataset": dataset, "data.mix": []}, "DATASET"))
    return build(layers)


def _jobs(request: Request) -> list[Resolved]:
    """A job for each set that is named; without a name the job's own."""
    named: list[str | None] = [*_datasets(request)]
    return [_resolved(request, name) for name in named or [None]]


def _one(request: Request) -> Job:
    named = _datasets(request)
    if len(named) > 1:
        raise UsageError(f"one set at a time, and {len(named)} are named", hint="name one")
    return _resolved(request, named[0] if named else None).job


def _sets(data: DataSection) -> list[str]:
    from hpcft.data.split import named_sets

    return [path for _, path in named_sets(data)] + ([data.validation] if data.validation is not None else [])


def _source(data: DataSection) -> dict[str, Any]:
    from hpcft.data.care.before import source_of

    return source_of(data.dataset, data)


def _beside(name: str) -> Path:
    from hpcft.data.care.clean import FORMATS
    from hpcft.data.care.versions import set_name

    path = Path(name)
    if path.suffix.lower() in FORMATS:
        return path.with_name(f"{path.stem}_clean{path.suffix}")
    return Path(f"{set_name(name)}_clean.jsonl")


def _tokenizer(resolved: Resolved) -> tuple[Any, str]:
    from hpcft.spec.build import DEFAULT

    if resolved.origin("model.name") == DEFAULT:
        return None, ""
    from hpcft.models.load import load_tokenizer

    return load_tokenizer(resolved.job.model), resolved.job.model.name


def _side(text: str, job: Job) -> Side:
    from hpcft.data.care.check import reader
    from hpcft.data.care.diff import Side
    from hpcft.data.care.survey import survey
    from hpcft.data.care.versions import find_version, kept_rows

    results = Path(job.results)
    version = None if Path(text).is_file() else find_version(text, results)
    name = text
    if version is not None:
        rows = kept_rows(version, results)
        name = str(rows) if rows is not None else str(version.source.get("dataset", ""))
    read = reader(name, job.data)
    found = survey(read, name, job.data, job.checks)
    if version is not None and found.sha256 != version.sha256:
        raise DataError(
            f"its rows are not there any more: {name} holds others now",
            where=text,
            hint="hpcft data version --keep keeps a copy beside the next one",
        )
    return Side(text, found, read)


# What is given back.


def _give(
    reports: list[dict[str, Any]],
    page: Path | None,
    out: Path | None,
    json: bool,
    lang: str,
    show: Any,
    whole: list[dict[str, Any]] | None = None,
) -> None:
    """Print, and write what was asked for."""
    from hpcft.runs.files import write_atomic, write_json

    document: Any = reports[0] if len(reports) == 1 else reports
    if out is not None:
        write_json(out, document)
    if page is not None:
        from hpcft.report.data_page import data_html

        write_atomic(page, data_html(whole or reports, lang))
    if json:
        as_json(document)
    else:
        show(whole or reports)
    for path in filter(None, (out, page)):
        say(f"written: {path}")


def _analysis(report: dict[str, Any]) -> dict[str, Any]:
    """The distribution at its top, as the earlier analyzer wrote it, and what was counted besides."""
    first = report["distribution"] or {"total_samples": report["total_samples"]}
    rest = ("dataset", "role", "part", "task", "columns", "statistics", "tokens", "overlap", "sha256", "partial")
    return {**first, **{key: report[key] for key in rest}, "analysis_timestamp": report["analysis_timestamp"]}
