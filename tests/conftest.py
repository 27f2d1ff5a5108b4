"""Fixtures of all tests. Each test has a home, a cache and a project folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = [
    "fakes.fixtures",
    "support.command",
    "support.hostile",
    "support.jobs",
    "support.notebook",
    "support.runs",
    "support.slurm",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests out, begin with the files of the longest tests, so that none of them ends
    long after the others: those whose jobs run on the cluster, then those that run jobs here."""
    if hasattr(config, "workerinput"):
        order: dict[Path, int] = {}
        for item in items:
            fixtures = set(getattr(item, "fixturenames", ()))
            place = 0 if "slurm_cluster" in fixtures else 1 if fixtures & {"tiny_model", "small_quickstart"} else 2
            order[item.path] = min(place, order.get(item.path, 2))
        items.sort(key=lambda item: order[item.path])


@pytest.fixture(autouse=True)
def _clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide a test, and neither must a cluster that other tests have started."""
    if "slurm_cluster" not in request.fixturenames:
        monkeypatch.delenv("SLURM_CONF", raising=False)
    for name in list(os.environ):
        if name.startswith(("HPCFT_", "SBATCH_", "WANDB_")) and not name.startswith("HPCFT_TEST_"):
            monkeypatch.delenv(name)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, which is the current one, and a home without configuration."""
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HPCFT_INDEX", str(home / "index"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def small_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a quickstart model that was trained for no step at all, for tests of what is around it."""
    from hpcft.models.quickstart import build_model, model_folder

    cache = tmp_path_factory.mktemp("cache")
    folder = model_folder(cache)
    folder.mkdir()
    build_model(folder, steps=0, hidden=64, layers=2, vocab=512)
    return cache
