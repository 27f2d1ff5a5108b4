"""`hpcft sync` with the real client and a server on this machine: what arrives is what was recorded, once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.wandb_server import KEY
from support.worker import Worker
from tracking.synced_run import Site, recorded, wrong
from tracking.wandb_file import written

from hpcft.runs.run import Run
from hpcft.tracking.offline import find_offline_runs


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Run]]:
    """A run of two attempts, the first of them killed behind its last checkpoint, synced twice."""
    site = Site(tmp_path_factory.mktemp("site"))
    run = site.make()
    # Slow enough for wandb to open its file: what it holds is less than the event log.
    site.attempt(run, die=25, pause=0.05)
    time.sleep(1.0)  # wandb names its folders by the second
    site.attempt(run, first=21)
    assert site.sync() == 0, site.said
    site.requests = len(site.server.requests)  # type: ignore[attr-defined]
    assert site.sync() == 0, site.said
    yield site, run
    site.server.close()


def test_u6_te7_a_resumed_run_arrives_as_one_run_equal_to_its_record(twice: tuple[Site, Run]) -> None:
    site, run = twice
    assert list(site.server.runs) == ["idfirst"]
    remote = site.remote(run)
    assert wrong(run, remote) == []
    assert [p["step"] for p in remote.points() if "train/loss" in p] == list(range(1, 41))
    assert remote.state == "finished"
    assert (remote.fields["project"], remote.fields["jobType"]) == ("study", "training")
    assert (remote.fields["tags"], remote.fields["notes"]) == (["night"], "a note")
    assert remote.fields["displayName"] == "QLoRA_pairs_run_idfirst"


def test_the_times_are_those_of_the_job_and_not_of_the_sync(twice: tuple[Site, Run]) -> None:
    site, run = twice
    remote, right = site.remote(run), recorded(run)
    assert [row["_timestamp"] for row in remote.history.values()] == [p["_timestamp"] for p in right.points]
    assert [row["_runtime"] for row in remote.history.values()] == [p["_runtime"] for p in right.points]
    assert remote.summary["_wandb"]["runtime"] == int(right.points[-1]["_runtime"])


def test_u6_e16_the_model_arrives_once(twice: tuple[Site, Run]) -> None:
    site, _ = twice
    (artifact,) = site.server.artifacts
    assert (artifact.name, artifact.committed) == ("model-qlora", True)
    assert artifact.files["adapter_model.safetensors"] == b"weights" * 100
    assert (artifact.metadata["model_variant"], artifact.metadata["job"]["variant"]) == ("QLoRA", "qlora")


def test_a_second_sync_adds_nothing_and_asks_nothing(twice: tuple[Site, Run]) -> None:
    site, run = twice
    assert len(site.server.requests) == site.requests  # type: ignore[attr-defined]
    assert site.said is not None
    assert "nothing new" in site.said.stderr
    assert wrong(run, site.remote(run)) == []


def test_everything_stays_inside_the_run_and_staging_is_gone(twice: tuple[Site, Run]) -> None:
    site, run = twice
    assert {p.name for p in (site.root / "home").iterdir()} <= {".netrc", ".cache", ".config"}
    assert list((site.root / "home").rglob("*andb*")) == []
    assert {p.name for p in site.root.iterdir()} == {"home", "results"}
    assert not (run.paths.wandb / "sync").exists()
    assert [p for paths in find_offline_runs(run.paths.wandb).values() for p in paths if "sync" in p.parts] == []
    assert [p for p in run.paths.wandb.rglob("*") if p.stat().st_mode & 0o077] == []


def test_s3_the_key_is_in_no_file_and_in_nothing_that_is_printed(twice: tuple[Site, Run]) -> None:
    site, run = twice
    assert site.said is not None
    assert KEY not in site.said.stdout + site.said.stderr
    assert [p for p in run.paths.root.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()] == []
    assert KEY.encode() not in bytes(site.server.bodies)


def test_no_question_of_the_client_is_unknown_to_the_server(twice: tuple[Site, Run]) -> None:
    assert twice[0].server.unknown == []


def test_verify_asks_the_server_and_sends_what_it_has_lost(twice: tuple[Site, Run]) -> None:
    site, run = twice
    del site.remote(run).summary["final/validation_f1_score"]
    assert site.sync("--verify") == 0
    assert wrong(run, site.remote(run)) == []
    assert len(site.server.artifacts) == 1


def test_of_a_run_that_goes_on_the_points_up_to_its_checkpoint_are_sent_and_each_step_once_in_the_end(
    site: Site,
) -> None:
    run = site.make()
    site.attempt(run, last=17, finish=75)
    (row,) = site.synced().values()
    assert (row["points"], row["waiting"], row["complete"]) == (11, 7, False)
    assert site.remote(run).state == "running"
    before = len(site.server.requests)
    assert site.sync() == 0
    assert "nothing new" in site.said.stderr  # type: ignore[union-attr]
    assert len(site.server.requests) == before
    site.attempt(run, first=11)
    assert site.sync() == 0
    assert wrong(run, site.remote(run)) == []


def test_an_online_run_that_lost_its_server_gets_what_it_lacks(site: Site) -> None:
    run = site.make()
    # The client writes a row's figures in any order.
    late = re.compile(rb'\\"step\\":15[,}]')
    site.server.fault = lambda request: (
        500 if request.operation.endswith("stream") and late.search(request.body) else None
    )
    site.attempt(run, mode="online", pause=0.3, last=20, total=20, timeout_s=4.0)
    site.wait_for_clients()
    site.server.fault = lambda request: None
    there = len(site.remote(run).history)
    (row,) = site.synced().values()
    assert row["sent"] == row["points"] - there > 0
    assert wrong(run, site.remote(run)) == []
    assert len(site.server.artifacts) == 1


def test_a_run_that_was_online_to_its_end_is_left_as_it_is(site: Site) -> None:
    run = site.make()
    site.attempt(run, mode="online")
    rows, artifacts = dict(site.remote(run).history), len(site.server.artifacts)
    (row,) = site.synced().values()
    assert (row["sent"], row["model"], row["complete"]) == (0, False, True)
    assert (site.remote(run).history, len(site.server.artifacts)) == (rows, artifacts)


def test_two_syncs_of_one_run_exclude_each_other(site: Site) -> None:
    run = site.written()
    site.server.fault = lambda request: 1.5 if request.operation.endswith("file_stream") else None
    syncs = [site.start_sync("first") for _ in range(2)]
    said = [sync.communicate(timeout=60) for sync in syncs]
    assert sorted(sync.returncode for sync in syncs) == [0, 75]
    assert any("another sync" in err for _, err in said)
    assert wrong(run, site.remote(run)) == []


def test_some_runs_are_chosen_by_name_group_or_time(site: Site) -> None:
    for name in ("a", "b", "c"):
        site.written(name, last=2)
    (site.root / "results" / "sweep").mkdir()
    (site.root / "results" / "c").rename(site.root / "results" / "sweep" / "0000")

    def named(*arguments: str) -> list[str]:
        assert site.sync(*arguments, "--dry-run", "--json") == 0
        return [row["run"] for row in json.loads(site.said.stdout)["runs"]]  # type: ignore[union-attr]

    assert named("idb") == ["b"]
    assert named("sweep") == ["sweep/0000"]
    assert named("--since", "1h") == ["a", "b", "sweep/0000"]
    assert named("--since", "2099-01-01") == []
    assert site.server.requests == []
    assert site.synced("sweep").keys() == {"sweep/0000"}
    assert list(site.server.runs) == ["idc"]
    assert site.synced().keys() == {"a", "b"}


def test_watch_ends_when_no_run_can_record_any_more(site: Site) -> None:
    run = site.make()
    job = site.start(run, pause=0.08)
    time.sleep(1.0)
    watch = site.start_sync("--watch", "--every", "0.5")
    job.communicate(timeout=60)
    _, err = watch.communicate(timeout=60)
    assert watch.returncode == 0, err
    assert wrong(run, site.remote(run)) == []


def test_without_a_login_it_says_how(site: Site) -> None:
    site.written()
    site.login = False
    assert site.sync() == 77
    assert site.said is not None
    assert "wandb login" in site.said.stderr
    assert site.server.requests == []
    # What would be sent is seen without one.
    assert site.sync("--dry-run") == 0


def test_what_is_not_to_be_synced_is_left_out_and_named(site: Site) -> None:
    site.make("unbegun")
    off = site.make("off", mode="disabled")
    site.attempt(off, mode="disabled", last=2, total=2)
    assert site.sync() == 0
    assert site.said is not None
    assert "unbegun: it has not begun" in site.said.stderr
    assert "off: not tracked" in site.said.stderr
    assert site.server.requests == []


def test_the_machines_load_comes_from_the_offline_files_once(site: Site) -> None:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at run time

    run = site.written()
    began = recorded(run).began
    folder = run.paths.wandb / "offline-run-20260101_000000-idfirst"
    folder.mkdir(parents=True)
    records = [Record() for _ in range(4)]
    records[0].run.run_id, records[0].run.project, records[0].run.entity = "idfirst", "study", "lab"
    for number, record in enumerate(records[1:]):
        record.stats.timestamp.FromMilliseconds(int((began + number) * 1000) + 5)
        item = record.stats.item.add()
        item.key, item.value_json = "gpu.0.gpu", str(90 + number)
    (folder / "run-idfirst.wandb").write_bytes(written([record.SerializeToString() for record in records]))
    assert site.synced()["first"]["system"] == 3
    events = list(site.remote(run).events.values())
    assert [event["system.gpu.0.gpu"] for event in events] == [90, 91, 92]
    assert [round(event["_runtime"]) for event in events] == [0, 1, 2]
    # Also when it is not known any more what was sent.
    run.paths.synced.unlink()
    again = site.synced()["first"]
    assert (again["system"], again["sent"]) == (0, 0)
    assert len(site.remote(run).events) == 3
    assert wrong(run, site.remote(run)) == []


def test_a_damaged_offline_file_costs_nothing_but_a_word(site: Site) -> None:
    run = site.written(last=3)
    folder = run.paths.wandb / "offline-run-20260101_000000-idfirst"
    folder.mkdir(parents=True)
    content = bytearray(written([b"some record", b"another one"]))
    content[20] ^= 1
    (folder / "run-idfirst.wandb").write_bytes(bytes(content))
    assert "damaged" in site.synced()["first"]["note"]
    assert wrong(run, site.remote(run)) == []


def test_u6_e19_te13_real_jobs_arrive_as_recorded_and_a_benchmark_is_an_inference_run_with_both_axes(
    worker: Worker, site: Site
) -> None:
    tracking = {"project": "study", "entity": "lab", "log_every": 1}
    trained = worker.finished("synced-lora", "lora", tracking=tracking)
    bench = {"queries": 2, "warmup": 0, "repeats": 2, "prompt_tokens": 8}
    measured = worker.stage("bench", trained, "synced-bench", tracking=tracking, bench=bench)
    assert site.synced(str(trained.paths.root), str(measured.paths.root))
    for run in (trained, measured):
        assert wrong(run, site.remote(run)) == []
    (artifact,) = [a for a in site.server.artifacts if a.metadata["run"] == "synced-lora"]
    weights = trained.paths.final_model / "adapter_model.safetensors"
    assert artifact.files["adapter_model.safetensors"] == weights.read_bytes()
    inference = site.remote(measured)
    assert inference.fields["jobType"] == "inference"
    assert inference.config["of"]["value"] == str(trained.paths.root)
    assert {"inference/avg_latency_ms_per_sample", "final/validation_f1_score"} <= inference.summary.keys()
