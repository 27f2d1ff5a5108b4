"""`hpcft sensitivity`: jobs whose gradient norms are measured, the four of the attention-or-MLP study, and their
comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job, typed_layers
from hpcft.cli.output import as_json, grid, printable, say, table
from hpcft.cli.start import DRY_RUN, JSON, WAIT, of_training, previewed, submit_plan
from hpcft.cli.texts import SUBMIT_CODES, ending
from hpcft.errors import HpcftError, UsageError
from hpcft.report.sensitivity import Experiment, experiment_of, generate_summary_report
from hpcft.runs.create import make_run_directory
from hpcft.runs.gradients import load_gradient_log_from_csv
from hpcft.runs.run import Run, find_run, group_folder, run_folders
from hpcft.spec.identifiers import user_path
from hpcft.spec.types import Lang
from hpcft.viz.texts import known_language

if TYPE_CHECKING:
    from hpcft.cli.launch import Launched

app = typer.Typer(rich_markup_mode=None, add_completion=False)

BATCH = ("e2e_attention", "e2e_mlp", "samsum_attention", "samsum_mlp")
_VERB = "hpcft sensitivity"
_STRATEGY = "lora.phase_strategy"
_ATTENTION_FIRST = "attn->mlp->both"


@app.command(
    epilog=ending(
        [
            "hpcft sensitivity --model quickstart --dataset quickstart --target both --max_length 256 --max_steps 8 "
            "--name first --wait",
            "hpcft sensitivity --preset e2e_attention --model quickstart --dataset quickstart --batch_size 2 --dry-run",
            "hpcft sensitivity --batch --model quickstart --dataset quickstart --max_length 256 --max_steps 50 "
            "--dry-run",
            "hpcft sensitivity --compare results/first results/second",
        ],
        SUBMIT_CODES | {0: "submitted, or compared; with --wait: finished"},
    )
)
@takes_job
def sensitivity(
    request: Request,
    batch: bool = typer.Option(False, "--batch", help=f"Submit each of {', '.join(BATCH)}, with what else was typed."),
    compare: bool = typer.Option(
        False, "--compare", help="Compare finished runs: two or more of them, or a sweep, are typed behind it."
    ),
    dynamic_lora: bool = typer.Option(
        False, "--dynamic-lora", help=f"Train in phases: {_ATTENTION_FIRST} where --phase-strategy names no other."
    ),
    wait: bool = WAIT,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Submit a job whose gradient norms are measured, of attention, MLP and each layer; or compare such jobs."""
    if batch and compare:
        raise UsageError("--batch and --compare exclude each other", where="--compare")
    if compare:
        _compare(request, [flag for flag, on in (("--wait", wait), ("--dry-run", dry_run)) if on], json)
        return
    if dynamic_lora:
        request = _with_phases(request)
    if batch:
        try:
            _batch(request, wait=wait, dry_run=dry_run, json=json)
        except KeyboardInterrupt:
            say("\nno longer followed; jobs that were submitted go on: hpcft ls")
            raise typer.Exit(130) from None
        return
    submit_plan(measured_plan(request), wait=wait, dry_run=dry_run, json=json)


def measured_plan(request: Request, allocation: dict[str, str] | None = None) -> Plan:
    """The plan of a job whose gradients are measured; the arguments are those of `plan`.

    Raises:
        SpecError, ConfigError, UsageError: with everything that is wrong; or it was typed not to measure them.
    """
    means = {"gradients.enabled": True, **request.means}
    planned = plan(replace(of_training(request), means=means, verb=_VERB), allocation)
    job = planned.resolved.job
    if not job.gradients.enabled:
        raise UsageError(
            "is what this verb is for",
            where=planned.resolved.origin("gradients.enabled"),
            hint="hpcft submit runs a job without it",
        )
    if request.preset is None:
        lora, rate = job.lora, job.training.learning_rate
        data = Path(job.data.dataset).stem
        planned.stem = _identifier(f"{data[:12]}_{lora.target_module_group}_r{lora.r}_lr{rate:g}")
    return planned


def _identifier(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).lstrip(".-")[:44]


def _with_phases(request: Request) -> Request:
    from hpcft.spec.build import merge

    if merge(typed_layers(request))[0].get(_STRATEGY, (None, ""))[0] is not None:
        return request
    return replace(request, means={_STRATEGY: _ATTENTION_FIRST, "lora.target_module_group": "both"})


def _batch(request: Request, *, wait: bool, dry_run: bool, json: bool) -> None:
    """All four presets with the same options; where they are waited for, their comparison too."""
    if request.preset is not None:
        raise UsageError(
            "is one of four with --batch", where="--preset", hint=f"hpcft sensitivity --preset {request.preset}"
        )
    if "name" in request.options:
        raise UsageError(
            "would be of four runs", where=request.options["name"][1], hint="they have their presets' names"
        )
    plans = [measured_plan(replace(request, preset=preset)) for preset in BATCH]
    say(plans[0].reason)
    if dry_run:
        shown = {preset: previewed(planned) for preset, planned in zip(BATCH, plans, strict=True)}
        if json:
            as_json(shown)
            return
        for facts in shown.values():
            table(f"{facts['directory']} asks for", list(facts["asks"].items()))
        return
    # Without Slurm they would only disturb each other.
    local = plans[0].profile.scheduler == "local"
    launched, failed = _launch_all(plans, one_by_one=local)
    if wait and not local:
        failed = _failed(launched)
    over = wait or local
    finished = [one.run for one in launched if one.run.name not in failed]
    report = None
    found = _comparable(run.paths.root for run in finished) if over else []
    if len(found) >= 2:
        where = make_run_directory(finished[0].paths.root.parent, "comparison_report", "comparison_report").root
        report = _report(found, where, plans[0].resolved.job.lang, quiet=json)
    if json:
        runs = {one.run.name: {"job_id": one.submitted.job_id, "state": str(one.run.state)} for one in launched}
        as_json({"runs": runs, "comparison": report})
    if not over:
        say(f"when they have finished: hpcft sensitivity --compare {' '.join(str(run.paths.root) for run in finished)}")
    if failed:
        raise HpcftError(f"not finished: {', '.join(failed)}", hint=f"hpcft show {failed[0]}")


def _launch_all(plans: Sequence[Plan], *, one_by_one: bool) -> tuple[list[Launched], list[str]]:
    """Submit jobs, and names of those that failed, as far as they were waited for."""
    from hpcft.cli import launch

    launched: list[Launched] = []
    failed: list[str] = []
    for planned in plans:
        try:
            launched.append(launch.launch(planned))
        except HpcftError:
            if launched:
                say(f"submitted already, and not cancelled: {', '.join(one.run.name for one in launched)}")
            raise
        say(f"{launched[-1].run.name}: job {launched[-1].submitted.job_id}")
        if one_by_one:
            failed += _failed(launched[-1:])
    return launched, failed


def _failed(launched: Sequence[Launched]) -> list[str]:
    """Wait for jobs; the names of those that did not finish."""
    from hpcft.cli import launch

    failed = []
    for one in launched:
        try:
            launch.wait(one, quiet=True)
        except HpcftError as error:
            say(f"{one.run.name}: {error}")
            failed.append(one.run.name)
    return failed


def _compare(request: Request, idle: list[str], json: bool) -> None:
    own = [*replace(request, words=[]).spelled("results", "lang"), *idle]
    if own:
        raise UsageError("means nothing with --compare: those runs are finished", where=own[0])
    results = Path(request.options.get("results", ("results", ""))[0])
    lang = known_language(*request.options.get("lang", ("en", "--lang")))
    found = _experiments(request.words, results)
    if len(found) < 2:
        raise UsageError(f"{len(found)} of what was named can be compared; two are needed", where="--compare")
    parent = Path(found[0].about["directory"]).parent
    report = _report(found, make_run_directory(parent, None, "comparison").root, lang, quiet=json)
    if json:
        as_json(report)


def _experiments(texts: Sequence[str], results: Path) -> list[Experiment]:
    """What was named; what cannot be compared is told of and left out."""
    folders: list[Path] = []
    # `results/SWEEP/*` names more than runs.
    no_runs: list[Path] = []
    for text in texts:
        if (group := group_folder(text, results)) is not None:
            folders += run_folders(group)
            continue
        folder = _folder(text, results)
        known = any((folder / name).is_file() for name in ("config.yaml", "gradient_analysis.group_norms.csv"))
        (folders if known else no_runs).append(folder)
    if no_runs:
        say(printable(f"left out, no runs: {', '.join(map(str, no_runs))}"))
    return _comparable(folders)


def _comparable(folders: Iterable[Path]) -> list[Experiment]:
    """The experiments in some folders, each once; of one that cannot be compared it is told why."""
    found: dict[Path, Experiment] = {}
    for folder in folders:
        try:
            found.setdefault(folder.resolve(), _experiment(folder))
        except HpcftError as error:
            say(printable(f"left out: {str(error).splitlines()[0]}"))
    return _distinct(list(found.values()))


def _folder(text: str, results: Path) -> Path:
    path = user_path(text)
    return path if path.exists() and not (path / "config.yaml").is_file() else find_run(text, results).paths.root


def _experiment(folder: Path) -> Experiment:
    """A run directory's, or of a folder with nothing but the tables of an earlier tool."""
    if (folder / "config.yaml").is_file():
        return experiment_of(Run(folder))
    return Experiment(folder.name, load_gradient_log_from_csv(folder), {"directory": str(folder.absolute())})


def _distinct(found: list[Experiment]) -> list[Experiment]:
    """Runs of one name in two folders are told apart by those."""
    names = [one.name for one in found]
    return [
        replace(one, name=f"{Path(one.about['directory']).parent.name}/{one.name}")
        if names.count(one.name) > 1
        else one
        for one in found
    ]


def _report(found: Sequence[Experiment], folder: Path, lang: Lang, *, quiet: bool) -> dict[str, Any]:
    about = {one.name: one.about for one in found}
    say(f"drawing {len(found)} experiments")
    logs = {one.name: one.gradients for one in found}
    summary = generate_summary_report(logs, folder, about=about, lang=lang)
    if not quiet:
        head = ["run", "attention, mean norm", "MLP, mean norm", "attention / MLP", "trained parameters"]
        rows = [
            [
                name,
                # A mean of 0 is that of what is not trained.
                *(_figure(figures[key] or None) for key in ("attention_mean", "mlp_mean", "attention_to_mlp_ratio")),
                _figure(about[name].get("model/trainable_params")),
            ]
            for name, figures in summary["comparison"].items()
        ]
        grid(head, rows)
    say(f"written: {folder}")
    return {"directory": str(folder), **summary}


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
