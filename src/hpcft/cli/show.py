"""`hpcft show RUN`: one run's state, attempts, scores, costs and files, from its directory and the scheduler."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.complete import runs
from hpcft.cli.output import as_json, say, table
from hpcft.cli.texts import ending
from hpcft.report.summary import file_rows, result_rows
from hpcft.runs.files import read_json
from hpcft.runs.run import Run, RunState, find_run

if TYPE_CHECKING:
    from hpcft.cluster.state import Standing

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(
    epilog=ending(
        ["hpcft show first", "hpcft show results/first --json"], {0: "shown", 2: "no such run, or several", 65: ""}
    )
)
def show(
    run: str = typer.Argument(
        ..., metavar="RUN", help="Directory, name, run id, job id, or a unique beginning of one.", autocompletion=runs
    ),
    results: Path = typer.Option(Path("results"), "--results", help="Folder of the run directories."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Show one run: state, attempts, scores, costs, files."""
    from hpcft.cli.view import asked_text, look
    from hpcft.cluster.poll import Poll

    found, poll = find_run(run, results), Poll()
    standing = look([found], poll)[0]
    if json:
        as_json(document(found, standing, results))
        return
    table(found.name, _state_rows(found, standing))
    table("attempts", attempt_rows(found, standing))
    table("scores and costs", result_rows(found))
    table("files", file_rows(found))
    if asked := asked_text([standing], poll):
        say(asked)


def document(run: Run, standing: Standing, results: Path) -> dict[str, Any]:
    """Everything about a run as data. Times are seconds since the epoch."""
    from hpcft.cli.view import facts, progress_facts, progress_of
    from hpcft.runs.progress import read_attempts

    status = run.status
    return {
        **facts(standing, results),
        **progress_facts(progress_of(standing)),
        "status": None if status is None else vars(status),
        "attempts": run.paths.attempt_numbers(),
        "attempt_details": [vars(a) for a in read_attempts(run.paths.root)],
        "data": {report["dataset"]: report["version"] for report in read_json(run.paths.data_report) or []},
        "metrics": run.metrics,
        "end": run.end,
    }


def _state_rows(run: Run, standing: Standing) -> list[tuple[str, str]]:
    from hpcft.cli.view import age_text, limit_text, loss_text, progress_of, step_text
    from hpcft.cluster.state import duration

    record, queue, going = standing.record, standing.queue, progress_of(standing)
    rows = [("state", str(standing.state))]
    if standing.state is not RunState.SUCCESS:
        rows.append(("reason" if standing.state.is_over else "doing", standing.words))
    rows += _verdict(run, standing)
    if record.alive_at is not None and not standing.state.is_over:
        rows.append(("sign of life", f"{duration(time.time() - record.alive_at)} ago"))
    rows += [("step", step_text(standing)), ("training loss", loss_text(standing))]
    if going.steps_per_s and going.left_s is not None:
        rows.append(("rate", f"{going.steps_per_s:.3g} steps/s, {duration(going.left_s)} left"))
    about = record.about
    made_of = (about.get("variant"), about.get("model"), about.get("dataset"))
    rows += _data_rows(run)
    rows += [
        ("job", f"{about.get('job_kind', 'train')}: {', '.join(str(v) for v in made_of if v)}"),
        ("run id", record.run_id or "unknown"),
        ("job id", f"{record.job_id or 'none'} on {record.cluster or 'unknown'}"),
        ("nodes", queue.nodes if queue is not None else ""),
        ("has to end by", limit_text(standing)),
        ("submitted", f"{age_text(standing)} ago"),
        ("directory", str(run.paths.root)),
    ]
    return [(what, text) for what, text in rows if text]


def _data_rows(run: Run) -> list[tuple[str, str]]:
    """The version of each data set that the run used, and how much of what was found in it matters."""
    reports = read_json(run.paths.data_report) or []
    rows = []
    for report in reports:
        told = [found for found in report["recommendations"] if found["priority"] != "low"]
        faults = f", {len(told)} to decide: {told[0]['text']}" if told else ""
        rows.append(("data", f"{report['dataset']}@{report['version']}, {report['total_samples']:,} rows{faults}"))
    return rows


def _verdict(run: Run, standing: Standing) -> list[tuple[str, str]]:
    """What `hpcft explain` says in a line of a run that failed."""
    if standing.state is not RunState.FAILURE:
        return []
    from hpcft.cluster.explain import verdict_of

    return [("verdict", verdict_of(run, standing.queue).line()), ("", f"hpcft explain {run.name}")]


def attempt_rows(run: Run, standing: Standing) -> list[tuple[str, str]]:
    """A line for each attempt: when, from which step to which, and how it ended."""
    from hpcft.cluster.state import duration, moment
    from hpcft.runs.progress import read_attempts

    rows = []
    attempts = read_attempts(run.paths.root)
    for attempt in attempts:
        words = [] if attempt.start is None else [moment(attempt.start)]
        if attempt.start is not None and attempt.last is not None:
            words.append(f"for {duration(attempt.last - attempt.start)}")
        if attempt.step is not None:
            words.append(f"steps {attempt.resume_step} to {attempt.step}")
        running = attempt is attempts[-1] and not standing.state.is_over
        ended = {"end": "finished", "": "runs" if running else "ended without a word"}
        reason = f" ({attempt.reason.splitlines()[0][:80]})" if attempt.reason else ""
        words.append(ended.get(attempt.ending, attempt.ending) + reason)
        rows.append((str(attempt.number), ", ".join(words)))
    return rows
