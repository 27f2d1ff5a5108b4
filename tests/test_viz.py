"""Pictures: drawn without a screen, complete, and never in the way of training."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hpcft.viz import extract_history, guarded, plot_training_curves, plot_training_loss

PNG = b"\x89PNG"


def test_b32_the_loss_picture_is_written_and_its_figure_closed(tmp_path: Path) -> None:
    from matplotlib import pyplot

    path = plot_training_loss([(1, 3.0), (2, 2.0), (3, float("nan"))], [(2, 2.5)], tmp_path / "loss.png")
    assert path is not None
    assert path.read_bytes().startswith(PNG)
    assert pyplot.get_fignums() == []


def test_ta2_every_extra_series_is_drawn_with_all_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[int] = []
    original = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, xs, *a, **k: drawn.append(len(xs)) or original(self, xs, *a, **k))
    history = {"train_loss": [3.0, 2.0, 1.0], "eval_loss": [2.0], "eval_f1": [0.1, 0.2]}
    assert plot_training_curves(history, save_path=tmp_path / "curves.png") is not None
    assert drawn == [3, 1, 2]


def test_a6_a28_history_has_all_values_of_all_series() -> None:
    log = [
        {"loss": 3.0, "step": 1},
        {"eval_loss": 2.0, "eval_f1": 0.1},
        {"loss": 1.0, "note": "eval follows"},
        {"eval_loss": 1.5, "eval_f1": 0.2, "eval_perplexity": 4.0},
    ]
    assert extract_history(log) == {
        "train_loss": [3.0, 1.0],
        "eval_loss": [2.0, 1.5],
        "eval_perplexity": [4.0],
        "eval_f1": [0.1, 0.2],
    }


def test_nothing_to_draw_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plot_training_curves({}, save_path=tmp_path / "x.png") is None
    assert plot_training_loss([], [], tmp_path / "y.png") is None
    assert "nothing to draw" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a36_a_failing_picture_never_stops_training(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise RuntimeError("no disk")

    with caplog.at_level(logging.WARNING):
        assert guarded(broken)() is None
    assert "visualisation failed: no disk" in caplog.text


def test_importing_the_module_does_not_load_matplotlib() -> None:
    code = "import sys, hpcft.viz; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
