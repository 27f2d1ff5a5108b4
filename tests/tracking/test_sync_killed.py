"""R3: a job that is killed with SIGKILL at any moment, and synced: the server has every point that the job
acknowledged."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tracking.synced_run import Site, recorded, wrong


def killed_job(site: Site, seed: int) -> None:
    """Kill a job at a random moment, up to three times; let the last attempt end or not; sync, here and there in
    between too; compare."""
    dice = random.Random(seed)
    run = site.make(f"run{seed}", log_every=dice.choice([1, 1, 3]))
    first = 1
    acknowledged: set[int] = set()
    for _ in range(dice.randint(1, 3)):
        job = site.start(run, first=first, last=400, total=400, every=25, pause=dice.choice([0.0, 0.01, 0.03]))
        assert job.stdout is not None
        # Its start takes about a second, most of it imports: the moments are to be in what comes after.
        line = job.stdout.readline()
        time.sleep(dice.uniform(0.0, 2.5))
        job.kill()
        said = [int(text) for text in [line, *job.stdout.read().split()] if text.strip()]
        job.wait()
        acknowledged = {step for step in acknowledged if step < first} | set(said)
        if dice.random() < 0.5:
            assert site.sync() == 0, site.said
        saved = [e["step"] for e in run.events("checkpoint")]
        first = max(saved, default=0) + 1
        if not said or max(said) == 400:
            break
        time.sleep(1.0)  # wandb names its folders by the second
    assert site.sync() == 0, site.said
    log_every = run.config["tracking"]["log_every"]
    told = {p["step"] for p in site.remote(run).points() if "train/loss" in p}
    wanted = {step for step in acknowledged if step % log_every == 0 or step == 400}
    assert wanted <= told
    # A step may be recorded and its acknowledgement die with the process.
    assert told - wanted <= {p["step"] for p in recorded(run).points if "train/loss" in p}
    differences = wrong(run, site.remote(run))
    # What was synced between two attempts cannot be taken back; then the steps are there once, and out of order.
    assert [d for d in differences if not d.startswith("history")] == []
    steps = [p["step"] for p in site.remote(run).points() if "train/loss" in p]
    assert len(steps) == len(set(steps))
    assert sorted(steps) == sorted(p["step"] for p in recorded(run).points if "train/loss" in p)


@pytest.mark.parametrize("seed", range(3))
def test_r3_every_acknowledged_point_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path)
    killed_job(site, seed)
    assert site.server.unknown == []
    site.server.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_r3_every_acknowledged_point_is_there_after_many_kills(tmp_path: Path, seed: int) -> None:
    site = Site(tmp_path)
    killed_job(site, seed)
    site.server.close()
