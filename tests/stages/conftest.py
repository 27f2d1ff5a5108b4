"""Models that stages made, each once."""

from __future__ import annotations

import pytest
from support.worker import Worker

from hpcft.runs.run import Run


@pytest.fixture(scope="session")
def merged(worker: Worker, finished: dict[str, Run]) -> dict[str, Run]:
    """The adapters merged into the 16-bit base."""
    return {variant: worker.stage("merge", finished[variant], f"merged-{variant}") for variant in ("lora", "qlora")}


@pytest.fixture(scope="session")
def quantized(worker: Worker, merged: dict[str, Run]) -> dict[str, Run]:
    """The merged LoRA in fewer bits, by method."""
    methods = ("bnb-int8", "bnb-nf4", "bnb-fp4", "torchao-int8")
    return {m: worker.stage("quantize", merged["lora"], f"in-{m}", quantize={"method": m}) for m in methods}
