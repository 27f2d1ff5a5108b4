"""`hpcft fetch`: what a job needs from outside, into the cache, so that its nodes need no internet."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hpcft.cli.job_options import Plan, Request, plan, resolve, takes_job
from hpcft.cli.output import as_json, grid, say
from hpcft.cli.start import of_training
from hpcft.cli.texts import ending
from hpcft.errors import HpcftError
from hpcft.spec import assets

if TYPE_CHECKING:
    from hpcft.spec.job import Job, ModelSection

app = typer.Typer(rich_markup_mode=None, add_completion=False)

# Set where there is no internet; a fetch is meant to ask.
_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Fetched:
    """One thing that jobs need.

    Attributes:
        state: `there` before, `fetched` now, or `missing` where it is not had and the job goes without it.
    """

    what: str
    name: str
    state: str
    place: str
    gb: float


@app.command(
    epilog=ending(
        [
            "hpcft fetch --preset quickstart",
            "hpcft fetch --model quickstart --dataset quickstart --shared --json",
        ],
        {0: "everything is there", 2: "", 65: "", 69: "", 77: "", 78: ""},
    )
)
@takes_job
def fetch(
    request: Request,
    sweep: str = typer.Option(None, "--sweep", metavar="FILE", help="Everything that the trials of a sweep need."),
    shared: bool = typer.Option(False, "--shared", help="Let your group read what was fetched."),
    refresh: bool = typer.Option(False, "--refresh", help="Ask the hub for newer files of what is there already."),
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Bring a job's model, tokenizer, data and metrics into the cache that its nodes see. What was cut off goes on
    where it was, and what is there is only looked at."""
    plans = list(_plans(of_training(request), sweep))
    say(plans[0].reason)
    _look_where_jobs_look(plans[0])
    found = list(_fetch([planned.resolved.job for planned in plans], refresh=refresh))
    if shared:
        _share(found)
    if json:
        as_json([asdict(each) for each in found])
    else:
        grid(["what", "name", "", "GB", "where"], [[f.what, f.name, f.state, _gb(f.gb), f.place] for f in found])
    if not plans[0].profile.internet:
        say(f"jobs on {plans[0].profile.name} run with the hub switched off (HF_HUB_OFFLINE=1)")


def _gb(size: float) -> str:
    return f"{size:.2f}" if size >= 0.01 else f"{size:.1g}"


def _plans(request: Request, sweep: str | None) -> Iterator[Plan]:
    """The job; of a sweep one for each model and set that it tries."""
    if sweep is None:
        yield plan(request)
        return
    from hpcft.cli.trials import sweep_layers
    from hpcft.spec.layers import mapping_layer
    from hpcft.spec.sweep_file import read_sweep

    read = read_sweep(assets.find("sweeps", sweep, what="sweep", option="--sweep"))
    layers = sweep_layers(read, request)
    tried = [(p.key, value) for p in read.parameters if p.key.startswith(("model.", "data.")) for value in p.values]
    for key, value in tried or [("", "")]:
        own = [mapping_layer({key: value}, read.where)] if key else []
        resolved, profile, reason = resolve([*layers, *own], request.cluster)
        yield Plan(resolved, profile, reason, read.name)


def _look_where_jobs_look(planned: Plan) -> None:
    """Take the caches of the cluster's profile. Before the hub's client is loaded, which reads them once."""
    for name in _SWITCHES:
        os.environ.pop(name, None)
    os.environ.update({k: v for k, v in planned.profile.env.items() if k not in _SWITCHES})


def _fetch(jobs: list[Job], *, refresh: bool) -> Iterator[Fetched]:
    from hpcft.cli.preflight import hub_sets

    asked = [model for job in jobs for model in _models(job)]
    models = {model.model_dump_json(include={"name", "revision", "trust_remote_code"}): model for model in asked}
    for model in models.values():
        yield _model(model, refresh=refresh)
    sets = {(name, job.data.subset, job.data.revision): job for job in jobs for name in hub_sets(job)}
    for (name, _, _), job in sets.items():
        yield _set(name, job, refresh=refresh)
    if any(job.evaluation.enabled and job.data.task in ("auto", "generation") for job in jobs):
        yield _metrics()


def _models(job: Job) -> Iterator[ModelSection]:
    """The model that a job trains, unless it makes one, and the one that it learns from."""
    from hpcft.cli.subject import with_teacher
    from hpcft.models.open import subject
    from hpcft.models.teacher import teacher_job
    from hpcft.spec.distill import STUDENT

    if job.model.name != STUDENT:
        yield job.model
    if job.distills:
        yield subject(teacher_job(with_teacher(job))).base


def _model(model: ModelSection, *, refresh: bool) -> Fetched:
    from hpcft.models.fetch import fetch_model, has_model

    there = None if refresh else has_model(model)
    if there is None:
        say(f"fetching the model {model.name}")
    folder = fetch_model(model) if there is None else there
    state = "fetched" if there is None else "there"
    return Fetched("model", model.name, state, str(folder), _size([folder]))


def _set(name: str, job: Job, *, refresh: bool) -> Fetched:
    from hpcft.data.fetch import fetch_set
    from hpcft.data.sources import cache_of, is_cached

    there = not refresh and is_cached(name, job.data.subset)
    if not there:
        say(f"fetching the data set {name}")
        fetch_set(name, job.data)
    folder = cache_of(name)
    return Fetched("data", name, "there" if there else "fetched", str(folder), _size([folder]))


def _metrics() -> Fetched:
    from hpcft.data.fetch import fetch_wordnet, wordnet_folder

    there = wordnet_folder()
    folder = there or fetch_wordnet()
    if folder is None:
        say("WordNet cannot be had from here: METEOR matches exact words and stems, and says so")
        return Fetched("metric", "WordNet", "missing", "", 0.0)
    return Fetched("metric", "WordNet", "there" if there else "fetched", str(folder), _size([folder]))


def _files(folder: Path) -> Iterator[Path]:
    yield folder
    if folder.is_dir():
        yield from folder.rglob("*")


def _size(folders: Iterable[Path]) -> float:
    files = (path for folder in folders for path in _files(folder) if path.is_file())
    return sum(path.stat().st_size for path in files) / 1024**3


def _share(found: list[Fetched]) -> None:
    """Give the group the right to read, and to pass through the folders above as far as they are the user's own.

    Raises:
        HpcftError: something belongs to somebody else, so that its owner has to do it.
    """
    foreign = 0
    for each in filter(lambda f: f.place, found):
        folder = _whole(Path(each.place))
        for path in [*_files(folder), *_above(folder)]:
            if path.is_symlink():
                continue
            if path.stat().st_uid != os.getuid():
                foreign += 1
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            # A new file in a folder with the set-group bit is the group's too.
            added = stat.S_IRGRP | stat.S_IXGRP | stat.S_ISGID if path.is_dir() else stat.S_IRGRP
            path.chmod(mode | added if path == folder or folder in path.parents else mode | stat.S_IXGRP)
        if blocked := _blocked(folder):
            say(f"warning: your group cannot pass {blocked}; its owner may: chmod g+x {blocked}")
    if foreign:
        raise HpcftError(f"{foreign} files belong to somebody else, who has to share them", where="--shared")


def _whole(folder: Path) -> Path:
    """A hub model's folder with its blobs, which the snapshot's links lead to; others as they are."""
    return folder.parents[1] if folder.parent.name == "snapshots" else folder


def _above(folder: Path) -> Iterator[Path]:
    """The folders above that are the user's own, up to the home or the first of another one."""
    for parent in folder.parents:
        if parent == Path.home() or parent.stat().st_uid != os.getuid() or len(parent.parts) <= 2:
            return
        yield parent


def _blocked(folder: Path) -> Path | None:
    return next((p for p in reversed(folder.parents) if not p.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)), None)
