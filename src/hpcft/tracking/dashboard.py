"""Dashboards in wandb: a saved view of the project's workspace and a report, made of wandb-workspaces' parts.

Which runs are on the Pareto front is computed here and written to their summaries, since wandb's own scatter plot
can only draw a running minimum or maximum.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcft.errors import UnavailableError
from hpcft.report.pareto import Measure, Point, ratio_text, ratio_title
from hpcft.runs.run import Run
from hpcft.tracking.credentials import key_available
from hpcft.tracking.names import STEP_METRICS, canonical

FRONT, MEASURES = "pareto/front", "pareto/measures"
VARIANT = "model_variant"
COMPARED = (
    "final/validation_f1_score",
    "train/peak_vram_gb",
    "inference/avg_latency_ms_per_sample",
    "inference/model_size_gb",
)
# Kinds of events that no tracker sees as points, and keys that are no measurement.
_NO_POINTS = frozenset(["summary"])
_NO_PLOTS = frozenset(["step", "epoch"])
# wandb draws ten runs of a project when it is told nothing else.
_MOST_RUNS = 100
# A report's grid is 24 columns wide.
_WIDE, _HALF = {"w": 24, "h": 12}, {"w": 12, "h": 8}


@dataclass(frozen=True)
class Member:
    """One compared model, as a run of wandb's.

    Attributes:
        point: its figures.
        run_id: wandb's id of the run that stands for it in the scatter plot.
        others: ids of the other runs about it.
        front: whether it is on the front.
    """

    point: Point
    run_id: str
    others: tuple[str, ...]
    front: bool


@dataclass(frozen=True)
class Dashboard:
    """What is pushed.

    Attributes:
        project, entity: where to; without an entity, the user's default one.
        measures: of the front; the first two are the scatter plot's y and x.
        members: what the front was looked for in, in the order of the table.
        unranked: wandb's ids of runs that have no part in the front.
        metrics: that were logged by step: one plot each.
        colors: wandb's run id → colour, the same for all runs of a variant.
        baseline: name of the model that the others are held against; None without one.
        ratios: model → key of a measure → Performance Retention or Efficiency Gain, where there is a baseline.
    """

    project: str
    entity: str | None
    measures: Sequence[Measure]
    members: Sequence[Member]
    unranked: Sequence[str]
    metrics: Sequence[str]
    colors: Mapping[str, str]
    baseline: str | None = None
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the view and the report: by it a later push finds them."""
        return f"hpcft: {self.project}"

    def summaries(self) -> dict[str, dict[str, Any]]:
        """wandb's run id → what its summary gets: the flag, the measures, and the figures that the flag is about.

        The figures of a model may have been measured by several runs; the plot needs them on one.
        """
        measures = ", ".join(f"{m.key}:{'max' if m.maximize else 'min'}" for m in self.measures)
        return {
            member.run_id: {FRONT: int(member.front), MEASURES: measures}
            | {m.key: member.point.values[m.key] for m in self.measures}
            for member in self.members
        }

    def document(self) -> dict[str, Any]:
        """All that a push sends, as wandb-workspaces serialises it. Asks no server."""
        return {
            "entity": self.entity,
            "project": self.project,
            "view": {"name": self.name, "spec": json.loads(_spec(self.workspace()))},
            "report": {"title": self.name, "spec": json.loads(_spec(self.report()))},
            "summaries": self.summaries(),
        }

    def workspace(self) -> Any:
        """The saved view, a `wandb_workspaces.workspaces.Workspace`."""
        import wandb_workspaces.workspaces as ws

        sections = [
            ws.Section(name=title, panels=panels, is_open=True)
            for title, panels in self._panels().items()
            # wandb refuses no empty section, but it would be one more thing to scroll past.
            if panels
        ]
        return ws.Workspace(
            entity=self.entity or "",
            project=self.project,
            name=self.name,
            sections=sections,
            settings=ws.WorkspaceSettings(x_axis="step", max_runs=_MOST_RUNS),
            runset_settings=ws.RunsetSettings(
                pinned_columns=self._columns(),
                run_settings={run_id: ws.RunSettings(color=color) for run_id, color in self.colors.items()},
            ),
        )

    def report(self) -> Any:
        """The report, a `wandb_workspaces.reports.v2.Report`."""
        import wandb_workspaces.expr as expr
        import wandb_workspaces.reports.v2 as wr

        def runs(**options: Any) -> Any:
            # Without a project of its own, a run set shows the report's.
            colors = {run_id: wr.RunSettings(color=color) for run_id, color in self.colors.items()}
            return wr.Runset(pinned_columns=self._columns(), run_settings=colors, **options)

        panels = self._panels()
        convergence, comparison, scatter = panels.items()
        compared = expr.And(expr.Summary(FRONT) >= 0)
        blocks: list[Any] = []
        if convergence[1]:
            blocks += [wr.H2(convergence[0]), wr.PanelGrid(runsets=[runs()], panels=convergence[1])]
        grouped = runs(name="by variant", groupby=[f"config.{VARIANT}"])
        blocks += [wr.H2(comparison[0]), wr.PanelGrid(runsets=[grouped], panels=comparison[1])]
        alone = runs(name="compared", filters=compared)
        blocks += [wr.H2(scatter[0]), wr.MarkdownBlock(self._table())]
        blocks += [wr.PanelGrid(runsets=[alone], panels=scatter[1])]
        return wr.Report(
            entity=self.entity or "",
            project=self.project,
            title=self.name,
            description="Written by hpcft dashboard push, which writes over changes that are made here.",
            width="fluid",
            blocks=blocks,
        )

    def _panels(self) -> dict[str, list[Any]]:
        """Title of a section → its panels; new ones at each call, since a panel knows its place."""
        import wandb_workspaces.reports.v2 as wr

        variant = wr.Config(VARIANT)
        y, x = self.measures[:2]
        bars = dict.fromkeys([*COMPARED, *(m.key for m in self.measures)])
        axes: Any = {"x": wr.SummaryMetric(x.key), "y": wr.SummaryMetric(y.key)}
        title = f"{y.label} by {x.label}"
        return {
            "Convergence": [
                wr.LinePlot(
                    title=metric,
                    x="step",
                    y=[metric],
                    groupby=variant,
                    groupby_aggfunc="mean",
                    groupby_rangefunc="minmax",
                    max_runs_to_show=_MOST_RUNS,
                    layout=wr.Layout(**_HALF),
                )
                for metric in self.metrics
            ],
            "Comparison by variant": [
                wr.BarPlot(
                    title=Measure(key, True).label,
                    metrics=[key],
                    groupby=variant,
                    groupby_aggfunc="mean",
                    groupby_rangefunc="stddev",
                    max_runs_to_show=_MOST_RUNS,
                    layout=wr.Layout(**_HALF),
                )
                for key in bars
            ],
            "Pareto": [
                wr.ScatterPlot(title=f"{title}, coloured by variant", **axes, layout=wr.Layout(**_WIDE)),
                wr.ScatterPlot(
                    title=f"{title}, those on the front dark",
                    **axes,
                    z=wr.SummaryMetric(FRONT),
                    gradient=[
                        wr.GradientPoint(color="#BBBBBB", offset=0),
                        wr.GradientPoint(color="#000000", offset=100),
                    ],
                    layout=wr.Layout(**_WIDE),
                ),
            ],
        }

    def _columns(self) -> list[str]:
        keys = dict.fromkeys([FRONT, *COMPARED, *(m.key for m in self.measures)])
        return ["run:displayName", f"config:{VARIANT}.value", *(f"summary:{key}" for key in keys)]

    def _table(self) -> str:
        """The compared models in words, so that the report says the same where a plot cannot be drawn."""
        compared = self.measures if self.baseline is not None else ()
        head = ["run", "variant", *(m.label for m in self.measures), *map(ratio_title, compared), "on the front"]
        lines = [head, ["---"] * len(head)]
        for member in self.members:
            figures = [f"{member.point.values[m.key]:.6g}" for m in self.measures]
            mine = self.ratios.get(member.point.name, {})
            ratios = [ratio_text(mine.get(m.key), m) for m in compared]
            lines.append([member.point.name, member.point.group, *figures, *ratios, "yes" if member.front else "no"])
        table = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        if self.baseline is None:
            return table
        note = "Performance Retention (what is left of a score) and Efficiency Gain (how many times cheaper)"
        return f"{table}\n\n{note}, held against {_cell(self.baseline)}."


@dataclass
class Pushed:
    """What became of a push.

    Attributes:
        view, report: where they are.
        written: wandb's ids of the runs whose summaries have what they should.
        missing: ids of runs that the server does not have.
    """

    view: str
    report: str
    written: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def logged_metrics(runs: Iterable[Run]) -> list[str]:
    """Everything that wandb was told of by step, losses and scores first."""
    found: set[str] = set()
    for run in runs:
        for record in run.events():
            if record["kind"] == "step":
                found |= canonical(dict.fromkeys(STEP_METRICS & record.keys(), 0.0)).keys()
            elif record["kind"] not in _NO_POINTS and isinstance(metrics := record.get("metrics"), dict):
                found |= metrics.keys()
    groups = ("train/loss", "validation/", "train/")
    rank = {key: next((i for i, g in enumerate(groups) if key.startswith(g)), len(groups)) for key in found}
    return sorted(found - _NO_PLOTS, key=lambda key: (rank[key], key))


def push(dashboard: Dashboard) -> Pushed:
    """Write the summaries, the view and the report; those of an earlier push are written over.

    Raises:
        UnavailableError: no key is stored, the server does not answer or refuses, or has none of the runs.
    """
    if not key_available():
        raise UnavailableError("no key for wandb is stored", hint="log in once with: wandb login")
    with _own_wandb():
        import wandb
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        try:
            return _push(dashboard)
        except (wandb.Error, WandbApiFailedError, TimeoutError) as error:
            raise UnavailableError(
                f"wandb's server cannot be used: {_words(error)}",
                hint="nothing is lost: `hpcft report` shows the same without a server, and a push can be repeated",
            ) from error


def _push(dashboard: Dashboard) -> Pushed:
    import wandb

    api = wandb.Api()
    place = f"{dashboard.entity or api.default_entity}/{dashboard.project}"
    summaries = dashboard.summaries()
    known = [*summaries, *(other for member in dashboard.members for other in member.others), *dashboard.unranked]
    found = {run_id: run for run_id in known if (run := _find(api, place, run_id)) is not None}
    if not found:
        raise UnavailableError(
            f"{place} in wandb has none of these runs",
            hint="upload those that ran offline with `hpcft sync`, or name another --project or --entity",
        )
    for run_id, run in found.items():
        _write(run, summaries.get(run_id, {}))
    workspace, report = dashboard.workspace(), dashboard.report()
    workspace.entity = report.entity = place.partition("/")[0]
    if (old := _saved(place, "project-view", dashboard.name)) is not None:
        workspace._internal_id, workspace._internal_name = old.id, old.name
    if (old := _saved(place, "runs", dashboard.name)) is not None:
        report.id = old.id
    return Pushed(
        workspace.save().url,
        report.save().url,
        [run_id for run_id in summaries if run_id in found],
        [run_id for run_id in summaries if run_id not in found],
    )


def _find(api: Any, place: str, run_id: str) -> Any:
    from wandb.errors import CommError

    try:
        return api.run(f"{place}/{run_id}")
    except (ValueError, CommError) as error:
        if "could not find run" in str(error).lower():
            return None
        raise


def _write(run: Any, values: Mapping[str, Any]) -> None:
    """Bring a run's summary up to date; what an earlier push said of it and this one does not is taken away."""
    summary = run.summary
    stale = {FRONT, MEASURES} & set(summary.keys()) - values.keys()
    if not stale and all(summary.get(key) == value for key, value in values.items()):
        return
    for key in stale:
        del summary[key]
    summary.update(values)


def _saved(place: str, kind: str, name: str) -> Any:
    """The view or report of a name that was saved first, of `project-view` or `runs`."""
    import wandb

    # An interface keeps the list that it has once made, of whichever kind.
    views = wandb.Api().reports(place)
    views.variables["viewType"] = kind
    return next((view for view in views if view.display_name == name), None)


@contextlib.contextmanager
def _own_wandb() -> Iterator[None]:
    """wandb without a word, its files in a folder that goes away, its service ended when we are done."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="hpcft-") as folder:
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ[name] = folder
        os.environ |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        import wandb

        try:
            yield
        finally:
            wandb.teardown()
            os.environ.clear()
            os.environ.update(before)


def _spec(saved: Any) -> str:
    text: str = saved._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
