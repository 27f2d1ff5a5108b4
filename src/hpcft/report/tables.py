"""The tables of a report: comparison, costs, configs that differ, runs, environment."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcft.report.contents import Report
from hpcft.report.lineage import Lineage, kind_of
from hpcft.report.pareto import Group, Measure, Point, figure
from hpcft.report.summary import COSTS, size_text
from hpcft.runs.files import read_json
from hpcft.runs.run import Run
from hpcft.spec.secrets import without_secrets

NONE = "–"
# What names a run, so that it differs in every one; of a job that works on another, what that one gives.
_IDENTITY = frozenset(["kind", "name", "of", "results", "runs"])
_GIVEN = frozenset(["model.name", "variant"])
# Sections that say nothing to any other kind of job.
_SECTIONS = ("merge", "quantize", "bench")
_NAMED = 5


@dataclass
class Table:
    """A table: names are the runs', on its head or at the beginning of its rows."""

    head: list[str]
    rows: list[list[str]]
    names_in_head: bool = False


@dataclass
class Cell:
    """A figure, and under it how sure it is and how it stands to the baseline."""

    text: str
    below: list[str] = field(default_factory=list)


@dataclass
class Block:
    """The rows of one variant: their mean where there are several, then each: (name, its runs, cells, verdict)."""

    group: str
    mean: list[Cell]
    rows: list[tuple[str, str, list[Cell], str]]


def comparison(report: Report) -> list[Block]:
    """Rows by variant."""
    groups = {group.name: group for group in report.groups}
    blocks: dict[str, list[Lineage]] = defaultdict(list)
    for row in report.rows:
        point = report.points.get(row.name)
        blocks["no figures yet" if point is None else point.group].append(row)
    return [
        Block(
            name,
            [_mean_cell(groups[name], m, report) for m in report.measures] if len(rows) > 1 and name in groups else [],
            [_row(row, report) for row in rows],
        )
        for name, rows in blocks.items()
    ]


def _row(row: Lineage, report: Report) -> tuple[str, str, list[Cell], str]:
    others = ", ".join(run.name for run in row.runs if run.name != row.name)
    cells = [_cell(row, m, report) for m in report.measures]
    return row.name, others, cells, report.verdict(row.name) or report.state(row)


def _cell(row: Lineage, measure: Measure, report: Report) -> Cell:
    point = report.points.get(row.name)
    if point is None or measure.key not in point.values:
        return Cell(NONE)
    below = []
    if measure.maximize and (found := report.interval(row, measure)) is not None:
        below.append(f"{found[0]:.4g} to {found[1]:.4g}")
    return Cell(figure(point, measure, {}), below + _ratio(point, measure, report))


def _mean_cell(group: Group, measure: Measure, report: Report) -> Cell:
    point = group.point
    if measure.key not in point.values:
        return Cell(NONE)
    return Cell(figure(point, measure, {group.name: group}), _ratio(point, measure, report))


def _ratio(point: Point, measure: Measure, report: Report) -> list[str]:
    ratio = report.ratios.get(point.name, {}).get(measure.key)
    if ratio is None:
        return []
    return [f"{100 * ratio:.1f} % kept" if measure.maximize else f"{ratio:.2f}× gain"]


def about(report: Report) -> list[str]:
    """What was compared, in sentences."""
    found = list(report.points.values())
    datasets = sorted({point.dataset for point in found if point.dataset})
    # A name without a digest says less than the same name with one.
    datasets = [name for name in datasets if not any(other.startswith(f"{name}@") for other in datasets)]
    machines = sorted({point.hardware for point in found if point.hardware})
    sentences = [f"{_counted(len(report.rows), 'model')} from {_counted(len(report.runs), 'run')}."]
    sentences += [f"Scored on {', '.join(datasets)}."] if datasets else []
    sentences += [f"Answering was measured on the machine {', '.join(machines)}."] if machines else []
    sentences += [f"Baseline: {report.baseline.name}."] if report.baseline else []
    return sentences


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def best(report: Report) -> list[tuple[str, str, str]]:
    """Of each measure: its label, the rows with the best figure, and that figure."""
    found = []
    for measure in report.measures:
        points = [p for p in report.points.values() if not p.lacks([measure])]
        least = min(measure.cost(p.values[measure.key]) for p in points)
        winners = [p for p in points if measure.cost(p.values[measure.key]) == least]
        found.append((measure.label, few(p.name for p in winners), figure(winners[0], measure, {})))
    return found


def front_sentence(report: Report) -> str:
    """The front in words; empty where there is none."""
    if report.front is None:
        return ""
    y, x = next(iter(report.fronts))
    members = few((point.name for point in report.front.members), 20)
    text = f"On the front of {y.label} and {x.label}: {members}."
    if report.front.dominated:
        text += f" Dominated: {few((f'{p.name} (by {better})' for p, better in report.front.dominated), 20)}."
    return text


def few(names: Iterable[str], most: int = _NAMED) -> str:
    """Names, not more than so many."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def costs(report: Report) -> Table:
    """What each row cost: to make, and to use."""
    names = [row.name for row in report.rows if row.name in report.points]
    table = Table(["Cost", *names], [], names_in_head=True)
    wanted = [*COSTS, ("model size on disk", "inference/model_size_gb", "")]
    for label, key, form in wanted:
        values = [report.points[name].values.get(key) for name in names]
        if any(value is not None for value in values):
            table.rows.append([label, *(_formatted(value, form) for value in values)])
    return table


def _formatted(value: float | None, form: str) -> str:
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    if not form:
        return size_text(value)
    return form.format(int(value) if value.is_integer() and ":,}" in form else value)


def configs(report: Report) -> Table:
    """Keys whose values differ between rows, job by kind of job; of a single row, all keys of its first job."""
    names = [row.name for row in report.rows]
    by_kind: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in report.rows:
        for run in (*reversed(row.before), *row.runs):
            by_kind[kind_of(run)][row.name] = _keys(run)
    if len(names) == 1:
        first = (report.rows[0].runs[0], *report.rows[0].before)[-1]
        return Table(["Key", "Value"], [[key, value] for key, value in _keys(first).items()])
    table = Table(["Key", *names], [], names_in_head=True)
    for kind, of in by_kind.items():
        for key in dict.fromkeys(key for keys in of.values() for key in keys):
            values = {name: keys.get(key, NONE) for name, keys in of.items()}
            if len(set(values.values())) > 1:
                table.rows.append([f"{kind}: {key}" if kind else key, *(values.get(name, NONE) for name in names)])
    return table


def _keys(run: Run) -> dict[str, str]:
    hidden = _IDENTITY | (_GIVEN if run.config.get("of") else frozenset())
    foreign = tuple(f"{section}." for section in _SECTIONS if section != kind_of(run))
    return {
        key: _worded(key, value)
        for key, value in _flat(run.config)
        if key not in hidden and not key.startswith(foreign)
    }


def _flat(config: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _worded(key: str, value: Any) -> str:
    if not isinstance(value, str):
        return without_secrets(json.dumps(value, ensure_ascii=False, default=str))
    # First as the value of its key, then by what stands in it.
    shown = without_secrets(f"{key}: {value}")
    return without_secrets(shown.removeprefix(f"{key}: "))


def runs(report: Report) -> Table:
    """Every run that the report is made from."""
    table = Table(["Run", "Job", "State", "Attempts", "Submitted", "Code", "Tags", "Notes"], [])
    for name, run in report.runs.items():
        provenance = _mapping(read_json(run.paths.provenance))
        tracking = _mapping(run.config.get("tracking"))
        commit = provenance.get("git_commit")
        tags = tracking.get("tags")
        table.rows.append(
            [
                name,
                kind_of(run) or NONE,
                str(run.state),
                str(len(run.paths.attempt_numbers())),
                str(provenance.get("submitted") or NONE)[:16].replace("T", " "),
                str(commit)[:12] if commit else NONE,
                without_secrets(", ".join(map(str, tags))) if isinstance(tags, list) and tags else NONE,
                without_secrets(str(tracking.get("notes") or NONE)),
            ]
        )
    # Nobody has to have tags, notes or a repository.
    told = [i for i in range(len(table.head)) if i == 0 or any(row[i] != NONE for row in table.rows)]
    return Table([table.head[i] for i in told], [[row[i] for i in told] for row in table.rows])


def environment(report: Report) -> Table:
    """What the runs were made and measured on: each fact with its value, or its values and whose they are."""
    facts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, run in report.runs.items():
        provenance = _mapping(read_json(run.paths.provenance))
        benchmark = _mapping(read_json(run.paths.benchmark))
        told = {
            "submitted from": provenance.get("host"),
            "git commit": provenance.get("git_commit"),
            **{f"version of {key}": value for key, value in _flat(_mapping(provenance.get("versions")))},
            **{f"measured on: {key}": value for key, value in _flat(_mapping(benchmark.get("fingerprint")))},
            **{f"measured with: {key}": value for key, value in _flat(_mapping(benchmark.get("settings")))},
        }
        for fact, value in told.items():
            if value is not None:
                facts[fact][_worded("", value)].append(name)
    return Table(["Fact", "Value"], [[fact, _values(found)] for fact, found in facts.items()])


def _values(found: Mapping[str, list[str]]) -> str:
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({few(names)})" for value, names in found.items())


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
