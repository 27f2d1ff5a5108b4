"""Pipelines: stages that are jobs, each on what an earlier one made, read from one file.

base:                        # keys of every stage's job
  model: {name: quickstart}
stages:
  lora:   {variant: lora}
  qlora:  {variant: qlora}
  merge:  {kind: merge, of: lora}
  scores: {kind: evaluate, of: [lora, qlora, merge]}    # one for each: scores-lora, scores-qlora, …
  report: {kind: report, of: scores}                    # one for all of them
  before: {kind: evaluate}                              # of the model that base names, as it is
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml

from hpcft.errors import ConfigError
from hpcft.spec.identifiers import identifier_fault
from hpcft.spec.kinds import ABOUT_RUNS
from hpcft.spec.layers import Layer, Problem, SpecError, entries, is_empty, node_layer, yaml_root

# What a kind of job works on: the kinds of the runs that have it.
_WORKS_ON: dict[str, tuple[str, ...]] = {
    "train": (),
    "merge": ("train",),
    "quantize": ("train", "merge"),
    "evaluate": ("train", "merge", "quantize"),
    "bench": ("train", "merge", "quantize", "evaluate"),
    "report": ("train", "merge", "quantize", "evaluate", "bench"),
    "lab": ("train", "merge", "quantize", "evaluate", "bench"),
}
# What may stand without another stage: it works on the job's own model as it is.
_ON_A_MODEL = ("evaluate", "bench")


@dataclass(frozen=True)
class Stage:
    """One job of a pipeline.

    Attributes:
        kind: of the job.
        of: names of the stages that it works on; several of a report or a lab's pictures alone.
        layer: what the file says of the job.
        own: keys of which the stage alone says something: what is typed of them is for the other stages.
    """

    name: str
    kind: str
    of: tuple[str, ...]
    layer: Layer
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """Stages, each behind those that it works on.

    Attributes:
        name: the file's.
        base: what holds for every stage.
    """

    name: str
    base: Layer
    stages: tuple[Stage, ...]


def read_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, or has no stages. SpecError: with every wrong stage.
    """
    root, shown = yaml_root(path)
    problems: list[Problem] = []
    parts = _mapping(root, shown, problems)
    if not isinstance(root, yaml.MappingNode) or "stages" not in parts:
        raise ConfigError("has no stages", where=shown, hint="stages: {NAME: {kind: …, of: …}}")
    problems += [
        Problem(f"{shown}:{node.start_mark.line + 1}", key, "is neither base nor stages")
        for key, node in parts.items()
        if key not in ("base", "stages")
    ]
    common = parts.get("base")
    base = node_layer(common, shown) if isinstance(common, yaml.MappingNode) else Layer()
    if common is not None and not isinstance(common, yaml.MappingNode) and not is_empty(common):
        where = f"{shown}:{common.start_mark.line + 1}"
        problems.append(Problem(where, "base", "is no mapping: the keys of every stage's job stand indented below it"))
    stages_of = _mapping(parts["stages"], shown, problems)
    read = [_read(name, node, shown, problems) for name, node in stages_of.items()]
    problems += base.problems + [problem for stage in read for problem in stage.layer.problems]
    stages = _ordered(list(_spread(read)), shown, problems)
    if problems:
        raise SpecError(problems)
    if not stages:
        raise ConfigError("has no stages", where=shown)
    return Pipeline(path.stem, base, tuple(stages))


def _mapping(node: yaml.Node | None, shown: str, problems: list[Problem]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key: value for key, _, value in entries(node, shown, problems)}


def _read(name: str, node: yaml.Node, shown: str, problems: list[Problem]) -> Stage:
    where = f"{shown}:{node.start_mark.line + 1}"
    if fault := identifier_fault(name):
        problems.append(Problem(where, name[:40], f"the name of a stage {fault}"))
    if not isinstance(node, yaml.MappingNode):
        problems.append(
            Problem(where, name, "is no mapping; write what the stage does, such as {kind: merge, of: lora}")
        )
        return Stage(name, "train", (), Layer())
    layer = node_layer(node, shown)
    kind = str(layer.values.pop("kind", ("train", where))[0])
    of, of_where = layer.values.pop("of", ([], where))
    names = [of] if isinstance(of, str) else of or []
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        problems.append(Problem(of_where, f"{name}.of", "is the name of a stage, or a list of names"))
        names = []
    if kind not in _WORKS_ON:
        near = get_close_matches(kind, _WORKS_ON, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        problems.append(Problem(where, f"{name}.kind", f"'{kind}' is not one of {', '.join(_WORKS_ON)}{guess}"))
        kind = "train"
    for key in ("name", "results", "runs"):
        if key in layer.values:
            problems.append(Problem(layer.values.pop(key)[1], f"{name}.{key}", "is the pipeline's to choose"))
    return Stage(name, kind, tuple(names), layer)


def _spread(stages: list[Stage]) -> Iterator[Stage]:
    """A stage on several others is several stages, one on each; what is about runs is one on all of them."""
    members: dict[str, list[str]] = {}
    # What a stage is about: scores-lora is about lora, and so is a bench of it, bench-lora.
    about: dict[str, str] = {}
    for stage in stages:
        of = [m for name in stage.of for m in members.get(name, [name])]
        if stage.kind in ABOUT_RUNS or len(of) <= 1:
            members[stage.name] = [stage.name]
            yield Stage(stage.name, stage.kind, tuple(of), stage.layer)
            continue
        members[stage.name] = [f"{stage.name}-{about.get(one, one)}" for one in of]
        for name, one in zip(members[stage.name], of, strict=True):
            about[name] = about.get(one, one)
            yield Stage(name, stage.kind, (one,), stage.layer)


def _ordered(stages: list[Stage], shown: str, problems: list[Problem]) -> list[Stage]:
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) < len(stages):
        twice = next(s.name for i, s in enumerate(stages) if s.name in {t.name for t in stages[:i]})
        problems.append(Problem(shown, twice, "two stages have this name"))
    for stage in stages:
        problems += _faults(stage, by_name, shown)
    known = {s.name: [name for name in s.of if name in by_name] for s in stages}
    try:
        order = list(TopologicalSorter(known).static_order())
    except CycleError as error:
        problems.append(Problem(shown, str(error.args[1][0]), f"waits for itself: {' → '.join(error.args[1])}"))
        return []
    return [by_name[name] for name in order]


def _faults(stage: Stage, by_name: dict[str, Stage], shown: str) -> Iterator[Problem]:
    allowed = _WORKS_ON[stage.kind]
    if not stage.of and allowed and stage.kind not in _ON_A_MODEL:
        yield Problem(shown, stage.name, f"a stage that is to {stage.kind} names the stage it works on: of: NAME")
    if stage.of and not allowed:
        yield Problem(shown, f"{stage.name}.of", "training works on no other stage")
    for name in stage.of:
        if name not in by_name:
            near = get_close_matches(name, by_name, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            yield Problem(shown, f"{stage.name}.of", f"there is no stage '{name[:40]}'{guess}")
        elif allowed and by_name[name].kind not in allowed:
            yield Problem(
                shown,
                f"{stage.name}.of",
                f"'{name}' is to {by_name[name].kind}; {stage.kind} works on {', '.join(allowed)}",
            )
