"""Dashboards: what wandb-workspaces serialises, and what the real clients write to a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.wandb_server import HANG, KEY, FakeWandb

from hpcft.report.pareto import Point, front, parse_measure
from hpcft.runs.events import EventLog
from hpcft.runs.run import Run
from hpcft.tracking.dashboard import FRONT, MEASURES, logged_metrics
from hpcft.tracking.projection import wandb_id

F1, LATENCY = "final/validation_f1_score", "inference/avg_latency_ms_per_sample"
NAME = "hpcft: study"
# The replaced study's figures, of which it drew a dominated point on its front.
PUBLISHED = {"base": ("full", 393.1, 29.9), "adapter": ("lora", 636.2, 28.6), "small": ("qlora", 238.0, 27.4)}
LABELS = {"base": "Full FT", "adapter": "Full LoRA", "small": "QLoRA"}
OFFLINE = """
import json, logging, sys
from pathlib import Path
from hpcft.tracking.wandb import Tracker
for folder, settings, summary in json.loads(sys.argv[1]):
    tracker = Tracker(Path(folder), "offline", settings, logging.getLogger())
    for step in (1, 2):
        tracker.log({"train/loss": 1 / step}, step)
    tracker.summary(summary)
    assert tracker.finish().error is None
"""


def write_log(path: Path, *records: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = EventLog(path, sync_seconds=0)
    for record in records:
        log.append(**record)
    log.close()


def write_run(results: Path, name: str, metrics: dict[str, float], **config: Any) -> Path:
    """A finished run of which wandb knows under `id-<name>`."""
    folder = results / name
    folder.mkdir(parents=True)
    tracking = {"project": "study", "entity": "lab"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"tracking": tracking, **config}))
    write_log(folder / "client.jsonl", {"kind": "intent", "run_id": f"id-{name}"})
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@dataclass
class Place:
    """A project folder with a login for a server, and every word that was printed in it."""

    root: Path
    server: FakeWandb
    said: str = ""

    def call(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of ours or wandb's."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HPCFT_"))}
        environment |= {"HOME": str(self.root / "home"), "WANDB_BASE_URL": self.server.url, "TMPDIR": str(self.root)}
        environment |= {"OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false", **variables}
        done = subprocess.run(
            [sys.executable, *words], env=environment, cwd=self.root, capture_output=True, text=True, timeout=60
        )
        self.said += done.stdout + done.stderr
        return done

    def hpcft(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.call("-m", "hpcft.cli.main", *words, **variables)

    def push(self, *words: str) -> dict[str, Any]:
        done = self.hpcft("dashboard", "push", "--json", *words)
        assert done.returncode == 0, done.stderr
        pushed: dict[str, Any] = json.loads(done.stdout)
        return pushed

    def views(self, kind: str) -> list[Any]:
        return [view for view in self.server.views.values() if view.type == kind]


def make_place(root: Path) -> Place:
    server = FakeWandb()
    home = root / "home"
    home.mkdir()
    netrc = home / ".netrc"
    netrc.write_text(f"machine {server.url.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    return Place(root, server)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = make_place(tmp_path)
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The published runs: they ran offline and were uploaded by `wandb sync`; then the dashboard was pushed twice."""
    place = make_place(tmp_path_factory.mktemp("project"))
    runs = []
    for name, (variant, latency, f1) in PUBLISHED.items():
        figures = {F1: f1, LATENCY: latency, "train/peak_vram_gb": 2.0}
        folder = write_run(place.root / "results", name, figures, variant=variant, data={"dataset": "e2e.csv"})
        write_log(folder / "attempts/1/events.jsonl", {"kind": "step", "step": 1, "loss": 1.0, "seconds": 0.1})
        settings = {"project": "study", "entity": "lab", "id": f"id-{name}", "name": name, "config": {}}
        settings["config"] = {"model_variant": LABELS[name]}
        runs.append((str(folder / "wandb"), settings, figures))
    assert place.call("-c", OFFLINE, json.dumps(runs)).returncode == 0, place.said
    folders = [str(path) for path in place.root.glob("results/*/wandb/offline-run-*")]
    assert place.call("-m", "wandb", "sync", *folders).returncode == 0, place.said
    place.push()
    place.push()
    yield place
    place.server.close()


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels of a view's or a report's spec."""
    if "section" in spec:
        sections = spec["section"]["panelBankConfig"]["sections"]
        return [panel for section in sections for panel in section["panels"]]
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


def by_type(spec: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [panel["config"] for panel in panels(spec) if panel["viewType"] == kind]


def check_spec(spec: dict[str, Any]) -> None:
    """E26 to E28 are in it."""
    lines, bars, scatters = (by_type(spec, k) for k in ("Run History Line Plot", "Bar Chart", "Scatter Plot"))
    assert [(line["metrics"], line["xAxis"]) for line in lines] == [(["train/loss"], "step")]
    assert [bar["metrics"] for bar in bars] == [
        [F1],
        ["train/peak_vram_gb"],
        [LATENCY],
        ["inference/model_size_gb"],
    ]
    assert {panel["groupBy"] for panel in lines + bars} == {"model_variant.value"}
    assert {panel["groupAgg"] for panel in bars} == {"mean"}
    assert {(s["xAxis"], s["yAxis"]) for s in scatters} == {(f"summary:{LATENCY}", f"summary:{F1}")}
    assert [s.get("zAxis") for s in scatters] == [None, f"summary:{FRONT}"]


def test_e26_e27_e28_the_view_and_the_report_have_curves_comparison_and_scatter(synced: Place) -> None:
    (view,), (report,) = synced.views("project-view"), synced.views("runs")
    assert (view.display_name, report.display_name) == (NAME, NAME)
    check_spec(view.spec)
    check_spec(report.spec)
    section = view.spec["section"]
    (runset,) = section["runSets"]
    assert set(runset["runFeed"]["columnOrder"]) >= {f"summary:{k}" for k in (F1, LATENCY, FRONT)}
    # One point an experiment: a table that is grouped would make one point a variant.
    assert runset["grouping"] == []
    colors = section["customRunColors"]
    assert len({colors[f"id-{name}"] for name in PUBLISHED}) == len(PUBLISHED)


def test_the_report_groups_the_table_by_variant_and_plots_compared_runs_alone(synced: Place) -> None:
    (report,) = synced.views("runs")
    grids = [block["metadata"] for block in report.spec["blocks"] if block["type"] == "panel-grid"]
    _, comparison, scatter = [grid["runSets"][0] for grid in grids]
    assert comparison["grouping"] == [{"section": "config", "name": "model_variant.value"}]
    (only,) = scatter["filters"]["filters"]
    assert (only["key"], only["op"], only["value"]) == ({"section": "summary", "name": FRONT}, ">=", 0)
    (table,) = [block["content"] for block in report.spec["blocks"] if block["type"] == "markdown-block"]
    assert "| adapter | Full LoRA | 28.6 | 636.2 | no |" in table


def test_a_second_push_updates_and_does_not_duplicate(synced: Place) -> None:
    assert [view.saved for view in synced.server.views.values()] == [2, 2]
    (view,) = synced.views("project-view")
    assert view.name.startswith("nw-")
    assert synced.server.unknown == []


def test_u7_te1_the_flags_in_wandb_are_the_front_and_runs_that_were_synced_have_them(synced: Place) -> None:
    measures = [parse_measure("f1"), parse_measure("latency")]
    points = [Point(name, variant, {F1: f1, LATENCY: ms}) for name, (variant, ms, f1) in PUBLISHED.items()]
    members = {point.name for point in front(points, measures).members}
    runs = {name: synced.server.runs[f"id-{name}"] for name in PUBLISHED}
    assert {name for name, run in runs.items() if run.summary[FRONT] == 1} == members == {"base", "small"}
    assert runs["adapter"].summary[FRONT] == 0
    assert {run.summary[MEASURES] for run in runs.values()} == {f"{F1}:max, {LATENCY}:min"}
    # What was synced is still there.
    assert [p["train/loss"] for p in runs["small"].points()] == [1.0, 0.5]
    assert runs["small"].summary[LATENCY] == 238.0
    assert runs["small"].exit_code == 0


def test_s3_no_key_is_printed_or_sent_in_a_body_and_nothing_is_left_behind(synced: Place) -> None:
    assert KEY not in synced.said
    assert KEY.encode() not in bytes(synced.server.bodies)
    before = set(synced.root.rglob("*"))
    synced.push()
    assert set(synced.root.rglob("*")) == before


def test_other_views_and_reports_of_the_project_stay(synced: Place) -> None:
    server = synced.server
    before = {key: view.saved for key, view in server.views.items()}
    variables = {"projectName": "study", "name": "nw-mine-v", "displayName": "mine", "description": "", "spec": "{}"}
    for kind in ("project-view", "runs"):
        server.graphql("upsertView", {**variables, "type": kind})
    synced.push()
    mine = [view for view in server.views.values() if view.display_name == "mine"]
    assert [view.saved for view in mine] == [1, 1]
    assert {key: server.views[key].saved - saved for key, saved in before.items()} == dict.fromkeys(before, 1)


def test_another_choice_of_runs_takes_old_flags_away(synced: Place) -> None:
    synced.push("adapter", "small", "--measure", "f1", "--measure", "train_vram")
    runs = synced.server.runs
    assert [runs[f"id-{name}"].summary[FRONT] for name in ("adapter", "small")] == [1, 0]
    (metrics := json.loads((synced.root / "results/small/metrics.json").read_text())).pop(F1)
    (synced.root / "results/small/metrics.json").write_text(json.dumps(metrics))
    pushed = synced.push("adapter", "small")
    assert pushed["written"] == ["id-adapter"]
    assert not {FRONT, MEASURES} & runs["id-small"].summary.keys()
    assert runs["id-small"].summary[LATENCY] == 238.0


@pytest.fixture
def published(place: Place) -> Place:
    """The published runs as directories alone."""
    for name, (variant, latency, f1) in PUBLISHED.items():
        write_run(place.root / "results", name, {F1: f1, LATENCY: latency}, variant=variant)
    return place


def upload(place: Place, run_id: str, summary: dict[str, Any]) -> None:
    """Put a run onto the server as the client would."""
    run = {"name": run_id, "project": "study", "entity": "lab", "summaryMetrics": json.dumps(summary)}
    place.server.graphql("UpsertBucket", run)


def test_runs_that_are_not_in_wandb_are_named(published: Place) -> None:
    upload(published, "id-base", {})
    done = published.hpcft("dashboard", "push")
    assert done.returncode == 0
    assert "not in wandb, so in no plot there: small, adapter" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["view", "report"]
    assert published.server.runs["id-base"].summary[FRONT] == 1


def test_te13_score_and_latency_of_two_runs_come_to_stand_on_one(place: Place) -> None:
    results = place.root / "results"
    train = write_run(results, "train", {"final/validation_f1_score": 0.4}, kind="train", variant="lora")
    write_run(results, "bench", {LATENCY: 5.0, F1: 0.4}, kind="bench", variant="lora", of=str(train.resolve()))
    write_run(results, "scores", {F1: 0.5}, kind="evaluate", variant="lora", of=str(train.resolve()))
    for name in ("train", "bench", "scores"):
        upload(place, f"id-{name}", {FRONT: 1, "loss": 2.0})
    place.push()
    runs = place.server.runs
    expected = {FRONT: 1, MEASURES: f"{F1}:max, {LATENCY}:min", F1: 0.5, LATENCY: 5.0, "loss": 2.0}
    assert runs["id-bench"].summary == expected
    assert runs["id-train"].summary == runs["id-scores"].summary == {"loss": 2.0}


def test_a_dry_run_prints_what_would_be_sent_and_asks_no_server(published: Place) -> None:
    done = published.hpcft("dashboard", "push", "--dry-run", HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["entity"], document["project"]) == ("lab", "study")
    assert document["view"]["name"] == document["report"]["title"] == NAME
    assert {key: values[FRONT] for key, values in document["summaries"].items()} == {
        "id-base": 1,
        "id-small": 1,
        "id-adapter": 0,
    }
    assert by_type(document["report"]["spec"], "Scatter Plot")[0]["xAxis"] == f"summary:{LATENCY}"
    assert published.server.requests == []


def test_e27_the_report_says_what_is_kept_and_what_is_gained_against_a_baseline(published: Place) -> None:
    done = published.hpcft("dashboard", "push", "--dry-run", "--baseline", "full")
    assert done.returncode == 0, done.stderr
    text = json.dumps(json.loads(done.stdout)["report"]["spec"])
    assert "| f1 retention | latency gain |" in text
    # 27.4 of 29.9, and 393.1 ms against 238.0.
    assert "| 91.6 % | 1.65x | yes |" in text
    assert "Performance Retention" in text
    assert "held against base." in text
    alone = json.loads(published.hpcft("dashboard", "push", "--dry-run").stdout)
    assert "retention" not in json.dumps(alone["report"]["spec"])
    wrong = published.hpcft("dashboard", "push", "--dry-run", "--baseline", "nobody")
    assert wrong.returncode == 2
    assert "--baseline" in wrong.stderr


def test_without_a_key_it_says_how_to_get_one(published: Place) -> None:
    (published.root / "home/.netrc").unlink()
    done = published.hpcft("dashboard", "push")
    assert done.returncode == 69
    assert "wandb login" in done.stderr
    assert published.server.requests == []


@pytest.mark.parametrize("wrong", [None, 401, 500, HANG], ids=["refuses", "401", "500", "hangs"])
def test_a_server_that_cannot_be_used_is_told_in_one_sentence(published: Place, wrong: float | None) -> None:
    variables = {"WANDB_HTTP_TIMEOUT": "2"}
    if wrong is None:
        published.server.close()
    else:
        published.server.fault = lambda request: wrong
    done = published.hpcft("dashboard", "push", **variables)
    assert done.returncode == 69, done.stderr
    assert done.stderr.startswith("hpcft: wandb's server cannot be used")
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_project_without_these_runs_gets_no_dashboard(published: Place) -> None:
    upload(published, "other", {})
    for arguments in ((), ("--project", "nowhere")):
        done = published.hpcft("dashboard", "push", *arguments)
        assert done.returncode == 69
        assert "has none of these runs" in done.stderr
        assert "hpcft sync" in done.stderr
    assert published.server.views == {}


def test_runs_of_two_projects_need_a_word_where_to(published: Place) -> None:
    config = published.root / "results/small/config.yaml"
    config.write_text(config.read_text().replace("project: study", "project: other"))
    done = published.hpcft("dashboard", "push", "--dry-run")
    assert done.returncode == 2
    assert "study (base)" in done.stderr or "study (adapter)" in done.stderr
    assert "other (small)" in done.stderr
    assert published.hpcft("dashboard", "push", "--dry-run", "--project", "x y").returncode == 2


def test_the_id_that_a_wandb_agent_imposed_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "trial", {F1: 1.0})
    assert wandb_id(Run(folder)) == "id-trial"
    recorded = folder / "wandb" / "offline-run-20260101_000000-t1"
    recorded.mkdir(parents=True)
    (recorded / "run-t1.wandb").write_bytes(b"")
    assert wandb_id(Run(folder)) == "t1"


def test_e26_every_metric_that_wandb_was_told_has_a_plot(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "trained", {})
    records = [
        {"kind": "step", "step": 1, "loss": 1.0, "grad_norm": 2.0, "tokens": 7, "epoch": 0.5},
        {"kind": "validation", "step": 1, "metrics": {"validation/f1_score": 0.5, "epoch": 1.0}},
        {"kind": "epoch", "step": 1, "metrics": {"train/epoch_time_min": 0.5}},
        {"kind": "summary", "step": 1, "metrics": {F1: 0.5}},
    ]
    write_log(folder / "attempts/1/events.jsonl", *records)
    found = logged_metrics([Run(folder)])
    assert found == ["train/loss", "validation/f1_score", "train/epoch_time_min", "train/grad_norm"]
