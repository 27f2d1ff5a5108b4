"""Run directories as a finished run leaves them, without a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcft.runs.run import Run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Write a run directory; what is not given is not written."""

    def make(name: str, config: dict[str, Any], **files: Any) -> Run:
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        for file, content in files.items():
            (folder / f"{file}.json").write_text(json.dumps(content))
        return Run(folder)

    return make
