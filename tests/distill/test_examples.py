"""The four examples run as they stand, each in less than a minute (D39)."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = {
    "distill_basic": ["Visual knowledge distillation", "Epoch 3/3", "Samples shown: 6", "samples shown: 6"],
    "distill_quick_start": ["A sample is shown every 5 batches", "'total_samples': 6"],
    "distill_custom": ["温度=6.0, α=0.9, β=0.1", "差异: ", "知识蒸馏训练完成", "网站"],
    "distill_integration": ["model size: ", "perplexity: teacher ", "saved in "],
}


@pytest.mark.parametrize("name", SAID)
def test_d39_an_example_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    began = time.monotonic()
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert time.monotonic() - began < 60
    out = capsys.readouterr().out
    assert [text for text in SAID[name] if text not in out] == []


def test_d39_there_are_four_and_each_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("distill_*.py")} == SAID.keys()
    assert len(SAID) == 4
