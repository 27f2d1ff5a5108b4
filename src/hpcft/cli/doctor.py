"""`hpcft doctor`: will a job start here? The place, and with a job named also the job, in red and green."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from hpcft.cli.job_options import Plan, Request, plan, takes_job
from hpcft.cli.output import as_json, grid, say, table
from hpcft.cli.start import of_training
from hpcft.cli.texts import ending
from hpcft.cluster.findings import Finding, Light, green, grey, red, yellow
from hpcft.cluster.folders import clock, locks, on_the_nodes, quota, space, umask, writable
from hpcft.errors import ConfigError, HpcftError

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_Questions = list[Callable[[], Iterable[Finding]]]
_OTHER_CACHE = "export HF_HOME=FOLDER HPCFT_CACHE=FOLDER    # or in the profile's env"
# Of what may be said of a place without naming a job.
_OF_PLACES = ("results", "resources.", "tracking.")


@app.command(
    epilog=ending(
        [
            "hpcft doctor",
            "hpcft doctor --preset quickstart --variant lora --cluster local",
            "hpcft doctor --repair",
        ],
        {0: "nothing is red", 2: "", 65: "", 78: "something is red; each has its mend"},
    )
)
@takes_job
def doctor(
    request: Request,
    repair: bool = typer.Option(False, "--repair", help="Settle what a killed client left in the results folder."),
    json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Look whether a job can start here, in seconds: Slurm, account and limits, folders and space, clocks, Python and
    CUDA, wandb; and with a job its model, data and memory too. What is red has its mend beside it."""
    named = bool(request.preset or request.words or request.pairs) or any(
        not key.startswith(_OF_PLACES) for key in request.options
    )
    planned = plan(of_training(request) if named else request)
    say(planned.reason)
    if repair:
        _repair(Path(planned.resolved.job.results), json)
        return
    found = examine(planned, job=named)
    reds = sum(finding.light is Light.RED for finding in found)
    if json:
        as_json({"cluster": planned.profile.name, "red": reds, "findings": [asdict(finding) for finding in found]})
    else:
        _show(found)
    if reds:
        raise typer.Exit(ConfigError.exit_code)


def examine(planned: Plan, *, job: bool) -> list[Finding]:
    """Ask all questions at once, and give the answers in their order.

    Args:
        job: whether it is about a job too, and not about the place alone.
    """
    results = Path(planned.resolved.job.results)
    rest = _job(planned, results) if job else [lambda: _folder(results, None, 0.0)]
    questions = [*_slurm(planned), *_place(planned), *rest]
    with ThreadPoolExecutor(len(questions)) as pool:
        answers = list(pool.map(lambda question: list(question()), questions))
    return list({(f.check, f.message): f for answer in answers for f in answer}.values())


def _slurm(planned: Plan) -> _Questions:
    if planned.profile.scheduler == "local":
        return [lambda: [green("scheduler", "none: jobs are processes of this machine")]]
    from hpcft.cluster.admission import admission_findings, ask_sbatch
    from hpcft.cluster.preflight import partition_findings

    job = planned.resolved.job
    return [
        _controller,
        lambda: partition_findings(job, timeout_s=8.0),
        lambda: admission_findings(job),
        lambda: [ask_sbatch(_script(planned))],
    ]


def _controller() -> list[Finding]:
    from hpcft.cluster.slurm import call

    answer = call(["scontrol", "ping"], timeout_s=8.0)
    words = " ".join(f"{answer.out} {answer.err}".split())
    if answer.code is None and "not found" in answer.err:
        return [red("Slurm", words, "module load slurm    # or: --cluster local")]
    if answer.ok and "UP" in answer.out:
        return [green("Slurm", words)]
    return [red("Slurm", f"the controller does not answer: {words}", "try again in some minutes, or --cluster local")]


def _script(planned: Plan) -> str:
    """The job's script, in a folder that is there: what is asked for is what counts."""
    from hpcft.cli.launch import preview
    from hpcft.cluster.folders import existing

    paths, script = preview(planned)
    return script.replace(f'#SBATCH --chdir="{paths.root}"', f'#SBATCH --chdir="{existing(paths.root)}"')


def _place(planned: Plan) -> _Questions:
    from hpcft.cli.preflight import job_environment, wandb_findings
    from hpcft.cluster.containers import container_findings
    from hpcft.models.availability import hub_cache
    from hpcft.models.quickstart import cache_folder

    results, environ = Path(planned.resolved.job.results), job_environment(planned)
    hub, own = hub_cache(environ), cache_folder(environ)
    return [
        lambda: [
            writable("hub cache", hub, _OTHER_CACHE),
            writable("own cache", own, _OTHER_CACHE),
            locks(hub),
            locks(Path.home()),
        ],
        lambda: [clock(results), umask()],
        lambda: [*container_findings(planned.profile), *_python(planned)],
        lambda: [_cuda(planned)],
        lambda: wandb_findings(planned),
    ]


def _job(planned: Plan, results: Path) -> _Questions:
    from hpcft.cli.preflight import disk_needed, findings

    return [
        lambda: _inputs(planned),
        lambda: findings(planned),
        lambda: _folder(results, *disk_needed(planned)),
    ]


def _folder(results: Path, needed: float | None, least: float) -> list[Finding]:
    """Where runs are written."""
    place = writable("results", results, "--results FOLDER    # where you may write")
    if place.light is Light.RED:
        return [place]
    mend = "--results FOLDER    # with more room"
    return [place, space(results, needed, least, mend), quota(results, needed, mend)]


def _inputs(planned: Plan) -> list[Finding]:
    """Model and data, by the checks of a submission."""
    from hpcft.cli.launch import check_inputs

    try:
        check_inputs(planned)
    except HpcftError as error:
        return [red("inputs", error.message, error.hint or "", error.where or "")]
    return [green("inputs", f"the model {planned.resolved.job.model.name} and local data can be read")]


def _python(planned: Plan) -> list[Finding]:
    from hpcft.cluster.slurm import call

    path = planned.profile.python
    if path is None:
        if planned.profile.scheduler == "local":
            return [green("python", f"{sys.version.split()[0]}, {sys.executable}")]
        return [
            on_the_nodes(Path(sys.prefix), "this environment", "install hpcft on a file system that the nodes share")
        ]
    code = "import sys, importlib.util as u; print(sys.version.split()[0], bool(u.find_spec('torch')))"
    answer = call([path, "-c", code], timeout_s=10.0)
    if not answer.ok:
        return [grey("python", f"the nodes' {path} does not run here: {' '.join(answer.err.split())[:120]}")]
    version, torch = answer.out.split()[:2]
    if torch != "True":
        return [red("python", f"{path} ({version}) has no torch", "python: of an environment with hpcft", "python")]
    if version.rpartition(".")[0] != sys.version.split()[0].rpartition(".")[0]:
        return [yellow("python", f"the nodes' is {version}, this one {sys.version.split()[0]}", "use one environment")]
    return [green("python", f"{version}, {path}")]


def _cuda(planned: Plan) -> Finding:
    """Whether the installed torch can run on the driver, as far as it is seen from here; torch is not loaded."""
    from hpcft.train.device import driver_cuda

    if planned.resolved.job.resources.accelerator == "cpu":
        return green("CUDA", "not asked for: resources.accelerator is cpu")
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return red("CUDA", "torch is not installed here", "make sync")
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    built = re.search(r"^cuda: .*= ['\"](\d+)\.(\d+)", text, re.MULTILINE)
    if built is None:
        if planned.profile.scheduler == "local":
            return yellow("CUDA", "this torch is built without CUDA: jobs run on the CPU")
        mend = "uv pip install --torch-backend=auto torch    # on a node with a GPU"
        return red("CUDA", "this torch is built without CUDA, and the job asks for GPUs", mend)
    driver = driver_cuda()
    shown = f"torch is built for CUDA {built[1]}.{built[2]}"
    if driver is None:
        ask = "" if planned.profile.scheduler == "local" else "; a node tells: hpcft shell, then nvidia-smi"
        return grey("CUDA", f"{shown}; this machine has no NVIDIA driver{ask}")
    shown += f", the driver here runs {driver[0]}.{driver[1]}"
    if driver[0] < int(built[1]):
        mend = "uv pip install --torch-backend=auto torch    # the one that fits this driver"
        return red("CUDA", f"{shown}: too old", mend)
    return green("CUDA", shown)


def _repair(results: Path, json: bool) -> None:
    from hpcft.cluster.repair import repair

    outcomes = repair(results, say)
    if json:
        as_json([asdict(outcome) for outcome in outcomes])
    elif outcomes:
        table("settled", [(outcome.run.name, f"{outcome.outcome}: {outcome.message}") for outcome in outcomes])
    else:
        say(f"nothing is left open in {results}")


def _show(found: list[Finding]) -> None:
    shown = {Light.RED: "RED"}
    grid(["", "check", "seen"], [[shown.get(f.light, str(f.light)), f.check, f.message] for f in found])
    mends: list[tuple[str, Any]] = [
        (f"{shown.get(f.light, str(f.light))} {f.check}", f.mend)
        for f in found
        if f.mend and f.light is not Light.GREEN
    ]
    if mends:
        print()
        table("to mend", mends)
