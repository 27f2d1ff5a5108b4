"""A pipeline's stages as plans: each one's job, the run that has it already, and what it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcft import __version__
from hpcft.cli.job_options import COMMAND_LINE, Plan, resolve
from hpcft.cli.subject import taken, with_teacher
from hpcft.errors import HpcftError
from hpcft.models.tools import check_environment
from hpcft.runs.run import Run, RunState, list_runs
from hpcft.spec.distill import DISPLAY
from hpcft.spec.identifiers import user_path
from hpcft.spec.kinds import ABOUT_RUNS
from hpcft.spec.layers import Layer, mapping_layer
from hpcft.spec.pipeline import Pipeline, Stage

if TYPE_CHECKING:
    from hpcft.spec.job import Job

# The sections of a job that decide what a stage of its kind makes, besides its variant and model.
_DECIDES = {
    "train": ("data", "lora", "peft", "training", "gradients", "evaluation"),
    "merge": ("data", "merge"),
    "quantize": ("data", "quantize"),
    "evaluate": ("data", "evaluation"),
    "bench": ("data", "evaluation", "bench"),
    "report": (),
    "lab": ("lang",),
}
_HASHED_BYTES = 256 * 1024 * 1024


@dataclass
class Planned:
    """A stage with its job.

    Attributes:
        content: hash of all that decides what the stage makes: its job, its data, the stages before it.
        run: the run that makes or has made it, when there is one.
        parents: the stages that it works on.
    """

    stage: Stage
    content: str
    layers: list[Layer]
    cluster: str | None
    parents: list[Planned]
    run: Run | None = None
    job_id: str | None = None

    def plan(self) -> Plan:
        """The plan, once the runs of the stages before it are known."""
        strong: dict[str, Any] = {}
        if self.stage.kind in ABOUT_RUNS:
            strong["runs"] = [str(p.run.paths.root) for p in self.parents if p.run]
        elif self.parents:
            strong |= {"of": str(self.parents[0].made().paths.root), "model.name": model_path(self.parents[0])}
        resolved, profile, reason = resolve([*self.layers, mapping_layer(strong, self.stage.name)], self.cluster)
        return Plan(resolved, profile, reason, self.stage.name)

    def made(self) -> Run:
        """The stage's run.

        Raises:
            HpcftError: it has none yet; stages are begun in their order.
        """
        if self.run is None:
            raise HpcftError("has no run yet", where=self.stage.name)
        return self.run

    @property
    def done(self) -> bool:
        """Whether it has finished before."""
        return self.run is not None and self.run.state is RunState.SUCCESS


def model_path(planned: Planned) -> str:
    """The model that a stage makes, or the one that it scores or measures."""
    if planned.stage.kind in ("evaluate", "bench") and planned.parents:
        return model_path(planned.parents[0])
    return str(planned.made().paths.final_model)


def plan_stages(pipeline: Pipeline, typed: list[Layer], cluster: str | None, results: Path) -> list[Planned]:
    """The stages in order, each with the finished or queued run that has the same content.

    Args:
        typed: what files, the environment and the command line say of every job, weakest first.
        results: folder of the pipeline's runs.

    Raises:
        SpecError, ConfigError: a stage's job is wrong.
    """
    runs = {_content_of(run): run for run in list_runs(results)}
    planned: dict[str, Planned] = {}
    jobs: dict[str, Job] = {}
    for stage in pipeline.stages:
        parents = [planned[name] for name in stage.of]
        below: dict[str, Any] = {"resources.nodes": 1, "resources.gpus_per_node": 1} if stage.kind != "train" else {}
        inherited = (
            taken(jobs[stage.of[0]].model_dump(mode="json")) if stage.of and stage.kind not in ABOUT_RUNS else {}
        )
        strong: dict[str, Any] = {"kind": stage.kind, "name": stage.name, "results": str(results)}
        if stage.kind == "quantize":
            strong["variant"] = "ptq"
        common = [*typed[:-COMMAND_LINE], pipeline.base]
        command_line = [_without(layer, ("variant", "name")) for layer in typed[-COMMAND_LINE:]]
        if stage.kind != "train":
            # Ranks and nodes are for training; what a stage itself says of them counts.
            common, command_line = ([_without(la, tuple(below)) for la in part] for part in (common, command_line))
        if stage.own:
            common, command_line = ([_without(la, stage.own) for la in part] for part in (common, command_line))
        layers = [
            mapping_layer(below, "a stage of one process"),
            *common,
            mapping_layer(inherited, f"stage {stage.of[0]}" if stage.of else ""),
            stage.layer,
            *command_line,
            mapping_layer(strong, f"stage {stage.name}"),
        ]
        # Without the runs before it, which may not be there yet, to know its job.
        jobs[stage.name] = with_teacher(resolve(layers, cluster)[0].job)
        check_environment(jobs[stage.name])
        content = _content(jobs[stage.name], [p.content for p in parents])
        planned[stage.name] = Planned(stage, content, layers, cluster, parents, runs.get(content))
    return list(planned.values())


def _without(layer: Layer, keys: tuple[str, ...]) -> Layer:
    return Layer({k: v for k, v in layer.values.items() if k not in keys}, layer.problems)


def _content(job: Job, before: list[str]) -> str:
    from hpcft.data.split import name_and_path

    told = job.model_dump(mode="json", include={"kind", "variant", "model", *_DECIDES[job.kind]})
    if job.distills:
        # How it is shown, and where what the teacher said is kept, changes nothing in the student.
        told["distill"] = job.distill.model_dump(mode="json", exclude={*DISPLAY, "cache_folder"})
        told["distill"]["files"] = _digest(str(job.distill.teacher))
    told["seed"] = job.training.seed
    mix = [name_and_path(text)[1] for text in job.data.mix]
    if "data" in told:
        paths = [job.data.dataset, *mix, *([job.data.validation] if job.data.validation else [])]
        told["files"] = [_digest(path) for path in paths]
    if before:
        # The model is what the stages before made.
        told["model"].pop("name")
    else:
        told["model"]["files"] = _digest(job.model.name)
    text = json.dumps([__version__, told, sorted(before)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(text: str) -> str | None:
    """Hash of a file's bytes, or of a folder's and a large file's names, sizes and times; None of what is no path."""
    path = user_path(text)
    if path.is_file() and path.stat().st_size <= _HASHED_BYTES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    seen = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in found]
    return hashlib.sha256(repr(seen).encode()).hexdigest() if seen else None


def _content_of(run: Run) -> str | None:
    return next((str(r["content"]) for r in reversed(run.journal()) if "content" in r), None)
