"""What a job works on: the run or the model that was typed, and what the job takes over from that run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError, UsageError
from hpcft.models.availability import QUICKSTART, model_folder, switched_off
from hpcft.runs.run import Run, RunState, find_run, label, run_folders
from hpcft.spec.identifiers import user_path

if TYPE_CHECKING:
    from hpcft.spec.job import Job
    from hpcft.spec.layers import Layer

# Of the run's own job: what its model is, and what it was trained and scored on.
_TAKEN = ("variant", "model.", "data.", "lora.", "peft.", "distill.", "evaluation.", "quantize.")
_TAKEN_ALONE = ("training.seed", "training.per_device_eval_batch_size")
# Where the new run stands and is told of; no score hangs on it, so files and the environment may say otherwise.
_PLACE = ("results", "tracking.")
_MAKES_A_MODEL = ("train", "merge", "quantize")


@dataclass(frozen=True)
class Subject:
    """A model, and the run that it is from, if any."""

    model: str
    run: Run | None
    name: str


def find_subject(text: str, results: Path) -> Subject:
    """The model that a user means.

    Raises:
        UsageError: nothing of that name; or a run that has not finished, or failed.
    """
    try:
        run = find_run(text, results)
    except UsageError:
        if text == QUICKSTART:
            return Subject(text, None, text)
        folder = user_path(text)
        if folder.is_dir() and any((folder / f).is_file() for f in ("config.json", "adapter_config.json")):
            return Subject(str(folder.absolute()), None, folder.name)
        if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not folder.exists():
            return Subject(text, None, text.partition("/")[2])
        raise
    if run.state is not RunState.SUCCESS:
        raise _no_model(run)
    return Subject(model_of(run), run, run.name)


def model_of(run: Run) -> str:
    """The model of a run: what it made, or what it evaluated or measured."""
    if run.config.get("kind", "train") in _MAKES_A_MODEL:
        return str(run.paths.final_model)
    return str(run.config["model"]["name"])


def with_teacher(job: Job) -> Job:
    """A distillation with its teacher where the job will find it: the model of the run that was named, or of a folder
    its whole path. A hub id stays one.

    Raises:
        UsageError: the run has not finished, or failed.
    """
    text = job.distill.teacher
    if not job.distills or text is None or text == QUICKSTART:
        return job
    try:
        run = find_run(text, Path(job.results))
    except UsageError:
        folder = user_path(text)
        found = str(folder.absolute()) if folder.is_dir() else text
    else:
        if run.state is not RunState.SUCCESS:
            raise _no_model(run, "distill.teacher")
        found = model_of(run)
    return job.model_copy(update={"distill": job.distill.model_copy(update={"teacher": found})})


def check_teacher_name(job: Job, internet: bool, environ: Mapping[str, str]) -> None:
    """Refuse a teacher that is nothing of what there is, where no hub can be asked.

    Args:
        job: with its teacher where the job will find it.
        internet: whether the job reaches the hub.
        environ: of the job, which says where its caches are.

    Raises:
        ConfigError: with the nearest name of a run, or quickstart.
    """
    text = str(job.distill.teacher)
    if text == QUICKSTART or text.startswith((".", "/", "~")) or (internet and not switched_off(environ)):
        return
    from hpcft.spec.job import ModelSection

    revision = job.distill.teacher_revision
    if model_folder(ModelSection(name=text, revision=revision), environ) is not None:
        return
    if revision is not None and text.count("/") == 1:
        # There may be another revision of it, and only the hub's words help.
        return
    near = get_close_matches(text, [QUICKSTART, *(label(f, Path(job.results)) for f in run_folders(Path(job.results)))])
    guess = f"did you mean '{near[0]}'? " if near else ""
    raise ConfigError(
        f"no run, folder or cached model is called '{text}', and the job has no internet",
        where="distill.teacher",
        hint=f"{guess}--teacher takes a finished run, a folder or a hub id; a model of the hub is fetched first, where "
        f"there is internet: hpcft fetch --model {text}",
    )


def _no_model(run: Run, where: str | None = None) -> UsageError:
    """What is said of a run that has made nothing."""
    if run.state is RunState.FAILURE:
        return UsageError(f"the run '{run.name}' failed", where=where, hint=f"hpcft explain {run.name}")
    return UsageError(f"the run '{run.name}' has not finished", where=where, hint=f"hpcft show {run.name}")


def around(layers: list[Layer], named: list[Layer], kind: str, text: str) -> tuple[list[Layer], str]:
    """Layers with the run's own values above them, except for what was named for this job.

    Args:
        layers: everything that files, the environment and the command line say, weakest first.
        named: those of them that are for this job alone: the job files that were named, and the command line.

    Returns:
        The layers, and what the job's run is called after.

    Raises:
        UsageError: the subject is not there; or a data set is missing.
    """
    from hpcft.spec.build import merge
    from hpcft.spec.layers import mapping_layer

    typed, told = merge(layers)[0], merge(named)[0]
    found = find_subject(text, Path(str(typed.get("results", ("results", ""))[0])))
    own: dict[str, Any] = {} if found.run is None else taken(found.run.config)
    strong: dict[str, Any] = {"kind": kind, "model.name": found.model}
    if found.run is not None:
        strong["of"] = str(found.run.paths.root)
    elif kind in ("evaluate", "bench", "quantize") and "data.dataset" not in typed and "data.validation" not in typed:
        raise UsageError(f"'{text}' is no run, so it is not known what to ask it", hint="name a data set: --dataset")
    # How a run that was not quantised would have been says nothing.
    below = (*_PLACE, "quantize.") if kind == "quantize" else _PLACE
    weak = {k: v for k, v in own.items() if k.startswith(below)}
    own = {k: v for k, v in own.items() if k not in told and k not in weak}
    if kind == "quantize":
        strong["variant"] = "ptq"
    if "data.dataset" in told and "data.validation" not in told:
        # A set that is named here is asked whole, and its columns are its own.
        own = {k: v for k, v in own.items() if not k.startswith("data.") or k == "data.max_length"}
        strong["data.validation"] = typed["data.dataset"][0]
    origin = f"run {found.name}" if found.run else f"model {found.name}"
    return [mapping_layer(weak, origin), *layers, mapping_layer(own | strong, origin)], found.name


def taken(config: dict[str, Any]) -> dict[str, Any]:
    """What a job that works on a run takes over from the run's own job; what that leaves unset too."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return {k: v for k, v in flat.items() if k.startswith((*_TAKEN, *_PLACE)) or k in _TAKEN_ALONE}
