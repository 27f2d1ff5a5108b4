"""A tiny random model, and runs of it through the real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.worker import Worker

from hpcft.runs.run import Run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 64 x 2 with its tokenizer."""
    from hpcft.models.quickstart import build_model

    folder = tmp_path_factory.mktemp("model")
    build_model(folder, steps=0, hidden=64, layers=2, vocab=512)
    return folder


@pytest.fixture(scope="session")
def worker(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    return Worker(tiny_model, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def finished(worker: Worker) -> dict[str, Run]:
    """One finished run of each variant."""
    return {variant: worker.finished(variant, variant, pictures=True) for variant in ("full", "lora", "qlora")}


@pytest.fixture(scope="session")
def stored_losses() -> dict[str, list[float]]:
    path = Path(__file__).parent.parent / "data" / "losses.json"
    losses: dict[str, list[float]] = json.loads(path.read_text())
    return losses
