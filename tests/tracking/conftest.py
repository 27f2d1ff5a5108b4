"""Fixtures: a fake wandb server, and jobs that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.wandb_server import FakeWandb
from tracking.played import Played, end_job, start_job


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    """A fake wandb server without trouble."""
    fake = FakeWandb()
    yield fake
    fake.close()


@pytest.fixture
def play(tmp_path: Path, server: FakeWandb) -> Callable[..., Played]:
    """Play one job to its end, in the test's folder, with the test's server."""

    def run(mode: str = "online", **options: Any) -> Played:
        return end_job(tmp_path, server, start_job(tmp_path, server.url, mode, **options))

    return run
