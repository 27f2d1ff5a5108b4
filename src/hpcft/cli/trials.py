"""From a sweep and a job to the trials: all of them checked before anything is submitted, then made and begun."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from hpcft.cli.job_options import COMMAND_LINE, Plan, Request, resolve, takes_job, typed_layers
from hpcft.cli.output import say
from hpcft.errors import ConfigError, UsageError
from hpcft.runs.create import discard, make_run_directory, new_run_id
from hpcft.runs.files import explained, make_private, write_atomic, write_json
from hpcft.runs.provenance import archive_code, record_provenance
from hpcft.runs.run import RunState
from hpcft.runs.submission import submissions
from hpcft.runs.sweep import PRUNED, Settings, SweepFolder, SweepPaths, Trial, sweep_rows
from hpcft.spec.build import build, flat, merge
from hpcft.spec.identifiers import slug, user_path
from hpcft.spec.job import Job
from hpcft.spec.layers import CLUSTER, Layer, Problem, SpecError, mapping_layer, yaml_layer
from hpcft.spec.sweep import Sweep, plain, proposals, trial_layer

if TYPE_CHECKING:
    # A dry run needs neither it nor submitit behind it.
    from hpcft.cluster.array import Queued

# Their values are found from here, and the trial runs elsewhere.
_PATHS = ("model.name", "data.dataset", "data.mix", "data.validation", "distill.teacher", "distill.cache_folder")
_SHOWN_PROBLEMS = 20


@dataclass
class SweepPlan:
    """A sweep that was checked.

    Attributes:
        base: the job of all trials.
        trials: all that are known before the first one runs.
        most: number of trials, or the most that a search makes.
        cluster: name or path of the profile, to find it again.
    """

    sweep: Sweep
    base: Plan
    trials: list[Trial]
    most: int
    seed: int
    concurrency: int | None
    cluster: str

    @property
    def controlled(self) -> bool:
        """Whether a controller runs beside the trials: for a search, and where there is no queue."""
        return not self.sweep.known or self.base.profile.scheduler == "local"


def sweep_layers(sweep: Sweep, typed: Request) -> list[Layer]:
    """What the sweep's command and the command line say of the job, weakest first.

    Raises:
        UsageError: the command is not `hpcft run`. SpecError: a key is swept and set too.
    """
    inner = command_request(sweep)
    files = [word for word in typed.words if "=" not in word]
    pairs = [word for word in typed.words if "=" in word]
    inner = replace(inner, preset=typed.preset or inner.preset, words=[*inner.words, *files])
    own = Request(options=typed.options, pairs=typed.pairs, words=pairs)
    layers = [*typed_layers(inner), *typed_layers(own)[-COMMAND_LINE:]]
    # The seed that is typed is the first of several.
    swept = {p.key: p.where for p in sweep.parameters if not p.where.startswith("--seeds")}
    twice = [
        Problem(where, key, f"is set, and swept by {swept[key]}")
        for layer in [layers[-4], *layers[-3:]]
        for key, (_, where) in layer.values.items()
        if key in swept
    ]
    if twice:
        raise SpecError(twice)
    return layers


def command_request(sweep: Sweep) -> Request:
    """What the command of a sweep's file says of the job: `hpcft run …`, as W&B's agents call it.

    Raises:
        UsageError: it is another command, or one that `hpcft run` does not take.
    """
    words = [word for word in sweep.command if not (word.startswith("${") and word.endswith("}"))]
    if not words:
        if sweep.command or sweep.where != "--sweep":
            hint = "command: [hpcft, run, --preset, quickstart, '${args_no_hyphens}']"
            raise UsageError("does not say which job is swept", where=sweep.where, hint=hint)
        return Request()
    at = next((i for i, word in enumerate(words) if Path(word).name == "hpcft"), None)
    if at is None or words[at + 1 : at + 2] not in (["run"], ["submit"]):
        raise UsageError(
            "the command does not call hpcft run", where=sweep.where, hint="other programs are swept by wandb agent"
        )
    found: list[Request] = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes_job
    def keep(request: Request) -> None:
        found.append(request)

    try:
        app(args=words[at + 2 :], standalone_mode=False)
    except typer.exceptions.TyperException as error:
        raise UsageError(f"its command: {error.format_message()}", where=sweep.where) from None
    return found[0]


def plan_trials(
    sweep: Sweep, layers: list[Layer], cluster: str | None, *, count: int | None, seed: int, concurrency: int | None
) -> SweepPlan:
    """Build every trial's job and check it.

    Args:
        layers: of the job of all trials, weakest first.
        count: most trials. seed: of random values. concurrency: trials at a time.

    Raises:
        SpecError, ConfigError, DataError, UsageError: with everything that is wrong in any of them.
    """
    from hpcft.cli.launch import absolute, check

    resolved, profile, reason = resolve(layers, cluster)
    keys = [p.key for p in sweep.parameters]
    if "training.seed" in keys and resolved.job.data.split_seed is None:
        # Trials are compared on the same validation inputs.
        layers = [*layers, mapping_layer({"data.split_seed": resolved.job.training.seed}, "one split for all seeds")]
        resolved, profile, reason = resolve(layers, cluster)
    if resolved.job.variant == "ptq":
        raise ConfigError("ptq is several jobs, and a trial is one", where="variant", hint="hpcft pipeline ptq")
    base = Plan(resolved, profile, reason, slug(sweep.name))
    values = flat(resolved.job)
    common = Layer({key: (values[key], where) for key, where in resolved.origins.items()})
    if sweep.method == "bayes":
        own, most = list(_ends(sweep)), count or sweep.run_cap
        if most is None:
            raise UsageError("does not say how many trials to make", where=sweep.where, hint="--count N")
    else:
        own = list(proposals(sweep, count, seed))
        most = len(own)
    jobs = _build(common, own)
    for job in _distinct(jobs):
        check(Plan(replace(resolved, job=job), profile, reason, base.stem))
    moved = any(key in _PATHS for key in keys)
    trials = [
        Trial(number, {key: _value(absolute(job) if moved else job, key) for key in keys})
        for number, job in enumerate([] if sweep.method == "bayes" else jobs)
    ]
    return SweepPlan(sweep, base, trials, most, seed, concurrency, profile_place(layers, cluster, profile.name))


def profile_place(layers: list[Layer], option: str | None, name: str) -> str:
    """Name or whole path of the cluster's profile, by which a controller finds it again."""
    configured = merge(layers)[0].get(CLUSTER, (None, ""))[0]
    named = str(option or os.environ.get("HPCFT_CLUSTER") or configured or name)
    return str(user_path(named).absolute()) if named.endswith(".yaml") else named


def _ends(sweep: Sweep) -> Iterator[Layer]:
    """Of a search, whose trials nobody knows yet: every listed value and both ends of every range."""
    texts = [p.values or tuple(plain(bound) for bound in p.bounds) for p in sweep.parameters]
    first = [text[0] for text in texts]
    yield trial_layer(sweep, first)
    for place, own in enumerate(texts):
        for text in own[1:]:
            yield trial_layer(sweep, [*first[:place], text, *first[place + 1 :]])


def _build(common: Layer, own: Sequence[Layer]) -> list[Job]:
    jobs: list[Job] = []
    wrong: dict[Problem, list[int]] = {}
    for number, layer in enumerate(own):
        try:
            jobs.append(build([common, layer]).job)
        except SpecError as error:
            for problem in error.problems:
                wrong.setdefault(problem, []).append(number)
    if wrong:
        raise SpecError(
            [replace(p, message=p.message + _whose(n, len(own))) for p, n in wrong.items()][:_SHOWN_PROBLEMS]
        )
    return jobs


def _whose(numbers: list[int], trials: int) -> str:
    if len(numbers) == trials:
        return ""
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return f" (trial {', '.join(map(str, numbers[:3]))}{more})"


def _distinct(jobs: Sequence[Job]) -> list[Job]:
    """One job for each model and set of data."""
    found: dict[Any, Job] = {}
    for job in jobs:
        data = job.data
        asked = (job.distill.teacher, job.distill.student_layers, job.distill.student_hidden) if job.distills else ()
        key = (job.model.name, job.model.revision, data.dataset, data.validation, *data.mix, data.task, *asked)
        found.setdefault(key, job)
    return list(found.values())


def _value(job: Job, key: str) -> Any:
    section, _, name = key.partition(".")
    value = getattr(job, section)
    return getattr(value, name) if name else value


def make_sweep(plan: SweepPlan) -> SweepFolder:
    """Make the sweep's folder with the intent of all trials; nothing is submitted.

    Raises:
        NotAllowedError: it cannot be made.
    """
    from hpcft.cli.launch import absolute

    base = plan.base
    job = absolute(base.resolved.job)
    root = make_run_directory(Path(job.results), job.name or base.stem, base.stem).root
    paths = SweepPaths(root)
    try:
        text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomic(paths.job, text)
        record_provenance(paths.as_run, Path.cwd(), base.resolved.origins)
        archive_code(paths.archive)
        with explained(paths.logs, "make the folder of the logs"):
            make_private(paths.logs)
        write_json(paths.settings, _settings(plan).as_dict())
        write_atomic(paths.manifest, "".join(trial.line for trial in plan.trials))
    except BaseException:
        discard(paths.as_run)
        raise
    return SweepFolder(root)


def _settings(plan: SweepPlan) -> Settings:
    sweep = plan.sweep
    early = None if sweep.early_end is None else vars(sweep.early_end)
    spec = None if sweep.known else {"parameters": [vars(p) for p in sweep.parameters], "early_end": early}
    return Settings(
        id=new_run_id(),
        method=sweep.method,
        metric=sweep.metric.name,
        goal=sweep.metric.goal,
        keys=[p.key for p in sweep.parameters],
        trials=plan.most,
        seed=plan.seed,
        concurrency=plan.concurrency,
        controlled=plan.controlled,
        cluster=plan.cluster,
        scheduler=plan.base.profile.scheduler,
        spec=spec,
    )


def begin(folder: SweepFolder, plan: SweepPlan) -> dict[str, Any]:
    """Submit the trials, or start the controller that does; a refusal of the first array leaves nothing behind.

    Returns:
        `arrays` (ids), `left` (trials that wait for room), `reason`, `controller` (pid or None).
    """
    from hpcft.cluster.array import submit_trials
    from hpcft.cluster.controller import start_controller

    if plan.controlled:
        return _begun(controller=start_controller(folder, Path.cwd()))
    try:
        numbers = [trial.number for trial in plan.trials]
        queued = submit_trials(folder, plan.base.resolved.job, plan.base.profile, numbers, say)
    finally:
        if sys.exc_info()[0] and not any(s.was_sent for s in submissions(folder.paths.as_run)):
            discard(folder.paths.as_run)
    return _begun(queued)


def _begun(queued: Queued | None = None, controller: int | None = None) -> dict[str, Any]:
    if queued is None:
        return {"arrays": [], "left": 0, "reason": None, "controller": controller}
    reason = queued.reason if queued.left else None
    return {"arrays": queued.job_ids, "left": len(queued.left), "reason": reason, "controller": None}


def go_on(folder: SweepFolder, *, failed: bool, dry_run: bool = False) -> dict[str, Any]:
    """Submit what is left of a sweep, or start its controller again.

    Args:
        failed: the trials that failed too. dry_run: submit and start nothing.

    Returns:
        As `begin`; of a dry run `left` has the numbers of the trials that would be submitted.

    Raises:
        TryAgainError: it is not known yet what became of an earlier submission.
        UnavailableError: Slurm does not answer.
    """
    from hpcft.cluster.array import in_queue, submit_trials
    from hpcft.cluster.controller import controller_of, repair_sweep, start_controller
    from hpcft.cluster.profile import load_profile

    if folder.settings.controlled:
        if failed:
            raise UsageError("a controller counts a failed trial as one", where="--failed", hint="hpcft resume RUN")
        if (holder := controller_of(folder)) is not None:
            say(f"its controller runs: {holder}")
            return _begun()
        if dry_run:
            say("its controller would be started again")
            return _begun()
        return _begun(controller=start_controller(folder, Path.cwd()))
    repair_sweep(folder)
    over = (RunState.SUCCESS, PRUNED) if failed else (RunState.SUCCESS, PRUNED, RunState.FAILURE)
    waiting = in_queue(folder)
    rows = sweep_rows(folder.paths.root)
    numbers = [row["number"] for row in rows if row["number"] not in waiting and row["state"] not in over]
    if not numbers:
        say("no trial is left to be submitted")
        return _begun()
    if dry_run:
        return _begun() | {"left": numbers}
    profile = load_profile(folder.settings.cluster, str(folder.paths.settings))
    return _begun(submit_trials(folder, build([yaml_layer(folder.paths.job)]).job, profile, numbers, say))
