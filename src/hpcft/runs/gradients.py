"""The gradient norms of a run: taken from its event log, kept as tables and JSON, and read back."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.errors import DataError
from hpcft.runs.files import make_private, read_json, write_atomic, write_json
from hpcft.runs.paths import RunPaths
from hpcft.runs.run import Run
from hpcft.spec.identifiers import user_path

GROUPS = ("embed", "attention", "mlp", "lm_head", "total")
# Those that are measured layer by layer.
LAYERED = ("attention", "mlp")
# A table may lack these columns: what has no such modules, or does not train them, has no gradient there.
_OPTIONAL = ("embed", "lm_head")
_GROUPS_END, _LAYERS_END = ".group_norms.csv", ".layer_norms.csv"
_SUMMARY_END, _JSON_END = ".summary.json", ".gradient_norms.json"
_ENDINGS = (_GROUPS_END, _LAYERS_END, _SUMMARY_END, _JSON_END, ".csv", ".json")
_LAYER_COLUMN = re.compile(r"layer_(\d{1,6})_(attention|mlp)", re.ASCII)


@dataclass(frozen=True)
class Phase:
    """A part of a training in which other modules learn than before.

    Attributes:
        step: optimizer step that it begins with.
        number: 1, 2, 3.
        trains: what learns in it, such as `attention`.
    """

    step: int
    number: int
    trains: str


@dataclass(frozen=True)
class GradientLog:
    """L2 norms of the gradient over all ranks, before clipping and without loss scaling.

    Attributes:
        steps: the optimizer steps that were measured, ascending.
        group_norms: each of `GROUPS` → its norm at each step; 0 where nothing of it is trained.
        layer_norms: each of `LAYERED` → at each step the norm of every layer; empty when layers were not measured.
        phases: in which the training had different modules learn; usually none.
    """

    steps: list[int]
    group_norms: dict[str, list[float]]
    layer_norms: dict[str, list[list[float]]] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)

    @property
    def layers(self) -> int:
        """Number of layers; 0 when layers were not measured."""
        rows = self.layer_norms.get(LAYERED[0], [])
        return len(rows[0]) if rows else 0

    def combined(self) -> list[list[float]]:
        """At each step the sum of attention's and the MLP's norm of every layer. It is no norm of both together, which
        would be the root of the sum of squares."""
        attention, mlp = (self.layer_norms.get(group, []) for group in LAYERED)
        return [[a + m for a, m in zip(*rows, strict=True)] for rows in zip(attention, mlp, strict=True)]

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Statistics of each group over the steps: `mean`, `std` (of the population), `max`, `min`, and `peak_step`,
        the first step with the maximum. Norms that are not finite are left out and counted as `not_finite`; where
        none is finite the others are None."""
        return {group: _statistics(self.steps, self.group_norms[group]) for group in GROUPS}


def _statistics(steps: Sequence[int], norms: Sequence[float]) -> dict[str, float | int | None]:
    finite = [(step, norm) for step, norm in zip(steps, norms, strict=True) if math.isfinite(norm)]
    lost = {"not_finite": len(norms) - len(finite)} if len(finite) < len(norms) else {}
    if not finite:
        return {"mean": None, "std": None, "max": None, "min": None, "peak_step": None, **lost}
    values = [norm for _, norm in finite]
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    peak_step, largest = max(finite, key=lambda point: point[1])
    return {"mean": mean, "std": std, "max": largest, "min": min(values), "peak_step": peak_step, **lost}


def gradients_of(run: Run) -> GradientLog | None:
    """The gradient norms in a run's event log, over all of its attempts; None when none were measured."""
    return gradients_in(run.events())


def gradients_in(events: Iterable[Mapping[str, Any]]) -> GradientLog | None:
    """The gradient norms in events; None when none were measured."""
    phases: dict[int, Phase] = {}
    measured: list[Mapping[str, Any]] = []
    for event in events:
        if event["kind"] == "phase":
            found = Phase(int(event["step"]), int(event["phase"]), str(event["trains"]))
            # A later attempt says it again when it goes on within the phase.
            phases.setdefault(found.number, found)
        elif event["kind"] == "step" and "total_norm" in event:
            measured.append(event)
    if not measured:
        return None
    by_layer = all("layer_norms" in event for event in measured)
    return GradientLog(
        [int(event["step"]) for event in measured],
        # A norm that is not finite stands in the log as a word.
        {group: [float(event[f"{group}_norm"]) for event in measured] for group in GROUPS},
        {g: [[float(v) for v in e["layer_norms"][g]] for e in measured] for g in LAYERED} if by_layer else {},
        list(phases.values()),
    )


def write_gradients(log: GradientLog, base: Path) -> None:
    """Write a log as `<base>.group_norms.csv`, `.layer_norms.csv` (where layers were measured), `.summary.json` and
    `.gradient_norms.json`.

    Args:
        base: path without an ending, usually `gradient_analysis` in the run directory.
    """
    make_private(base.parent)
    columns: dict[str, Sequence[float]] = {
        "step": log.steps,
        **{f"{group}_norm": log.group_norms[group] for group in GROUPS},
    }
    write_atomic(_named(base, _GROUPS_END), _table(columns))
    layered = {
        f"layer_{layer}_{group}": [row[layer] for row in log.layer_norms[group]]
        for layer in range(log.layers)
        for group in LAYERED
    }
    if layered:
        write_atomic(_named(base, _LAYERS_END), _table({"step": log.steps, **layered}))
    write_json(_named(base, _SUMMARY_END), log.summary())
    whole = {
        "steps": log.steps,
        "group_norms": log.group_norms,
        "layer_norms": log.layer_norms,
        "phases": [{"step": p.step, "phase": p.number, "trains": p.trains} for p in log.phases],
    }
    write_json(_named(base, _JSON_END), whole)


def load_gradient_log_from_csv(base: Path | str) -> GradientLog:
    """Read back what `write_gradients` wrote, or another program in the same form.

    Args:
        base: `results/RUN/gradient_analysis`, with or without one of the files' endings, or the run directory. The
            columns of `embed` and `lm_head` and the file of the layers may be missing; phases are taken from the JSON
            file beside them, where there is one.

    Raises:
        DataError: a table is missing or damaged; names file, line and column.
    """
    stem = tables_at(user_path(str(base)))
    groups_file, layers_file = _named(stem, _GROUPS_END), _named(stem, _LAYERS_END)
    if not groups_file.is_file():
        raise _missing(groups_file)
    steps, columns = _read_table(groups_file)
    lacking = [f"{g}_norm" for g in GROUPS if f"{g}_norm" not in columns and g not in _OPTIONAL]
    if lacking:
        raise DataError(f"lacks the column {', '.join(lacking)}", where=f"{groups_file}:1")
    norms = {group: columns.get(f"{group}_norm", [0.0] * len(steps)) for group in GROUPS}
    layers = _read_layers(layers_file, steps) if layers_file.is_file() else {}
    return GradientLog(steps, norms, layers, _read_phases(_named(stem, _JSON_END)))


def has_tables(path: Path) -> bool:
    """Whether `load_gradient_log_from_csv` finds a table of the groups' norms there."""
    return _named(tables_at(path), _GROUPS_END).is_file()


def _named(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def tables_at(path: Path) -> Path:
    """The path without an ending that tables begin with, of a run directory or of one of the tables."""
    if path.is_dir():
        return RunPaths(path).gradients
    ending = next((e for e in _ENDINGS if path.name.endswith(e) and path.name != e), "")
    return path.with_name(path.name.removesuffix(ending))


def _missing(file: Path) -> DataError:
    others = sorted(p.name.removesuffix(_GROUPS_END) for p in file.parent.glob(f"*{_GROUPS_END}"))
    if others:
        hint = f"there is {', '.join(others[:3])}"
    else:
        hint = "a finished run with gradients.enabled=true has it: hpcft sensitivity"
    return DataError("there is no such table of gradient norms", where=str(file), hint=hint)


def _table(columns: Mapping[str, Sequence[float]]) -> str:
    # repr gives a float with all of its digits and no more.
    lines = [",".join(columns)]
    lines += [",".join(map(repr, row)) for row in zip(*columns.values(), strict=True)]
    return "\n".join(lines) + "\n"


def _read_table(file: Path) -> tuple[list[int], dict[str, list[float]]]:
    """The steps and the other columns of a table."""
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=str(file)) from error
    head = [name.strip() for name in rows[0]] if rows else []
    if "step" not in head or len(set(head)) < len(head):
        raise DataError("does not begin with the names of its columns, such as step", where=f"{file}:1")
    columns: dict[str, list[float]] = {name: [] for name in head}
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(head):
            raise DataError(f"has {len(row)} values for {len(head)} columns", where=f"{file}:{line}")
        for name, text in zip(head, row, strict=True):
            try:
                columns[name].append(float(text))
            except ValueError:
                raise DataError(f"{name}: '{text[:40]}' is not a number", where=f"{file}:{line}") from None
    steps = columns.pop("step")
    if not steps:
        raise DataError("has no steps in it", where=str(file))
    for place, step in enumerate(steps):
        if not step.is_integer() or (place and step <= steps[place - 1]):
            raise DataError("its steps are not ascending whole numbers", where=f"{file}:{place + 2}")
    return [int(step) for step in steps], columns


def _read_layers(file: Path, steps: list[int]) -> dict[str, list[list[float]]]:
    own, columns = _read_table(file)
    if own != steps:
        raise DataError("has other steps than the table of the groups beside it", where=str(file))
    numbers = {int(match[1]) for name in columns if (match := _LAYER_COLUMN.fullmatch(name))}
    found: dict[str, list[list[float]]] = {}
    for group in LAYERED:
        names = [f"layer_{number}_{group}" for number in range(max(1, len(numbers)))]
        if lacking := [name for name in names if name not in columns]:
            raise DataError(f"lacks the column {', '.join(lacking[:3])}", where=f"{file}:1")
        found[group] = [list(row) for row in zip(*(columns[name] for name in names), strict=True)]
    return found


def _read_phases(file: Path) -> list[Phase]:
    kept = read_json(file)
    found = kept.get("phases", []) if isinstance(kept, dict) else []
    try:
        return [Phase(int(p["step"]), int(p["phase"]), str(p["trains"])) for p in found]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("is damaged: its phases cannot be read", where=str(file)) from error
