"""Gradient norms in three dimensions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from support.gradients import made

from hpcft.errors import DataError, UsageError
from hpcft.runs.gradients import write_gradients
from hpcft.viz.gradients_3d import KINDS, MODULES, plot_gradients_3d


def drawn(saved: list[Figure], name: str) -> Figure:
    """The figure that was saved under a file's name."""
    (found,) = [figure for figure in saved if figure.get_label() == name]
    return found


def test_b46_all_types_are_drawn_under_their_names(tmp_path: Path, saved: list[Figure]) -> None:
    paths = plot_gradients_3d(made(30, 4, ends=True), tmp_path)
    assert [path.name for path in paths] == [f"gradient_3d_{kind}.png" for kind in ("surface", "wireframe", "bars")]
    for figure in saved:
        axes: Any = figure.axes[0]
        assert axes.name == "3d"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("Component", "Optimizer step")
        names = [label.get_text() for label in axes.get_xticklabels()]
        assert names == ["Embed", "L0", "L1", "L2", "L3", "LM head"]


def test_b46_bars_show_ten_steps_the_first_and_the_last_among_them(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradients_3d(made(100, 2), tmp_path, ["bars"])
    axes: Any = drawn(saved, "gradient_3d_bars.png").axes[0]
    shown = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert shown == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", [("attention", "mlp"), ("mlp",)], ids="+".join)
def test_b46_each_module_is_drawn_or_said_not_to_be_trained(
    tmp_path: Path, saved: list[Figure], module: str, kind: str, trained: tuple[str, ...]
) -> None:
    if module not in (*trained, "stacked", "combined"):
        with pytest.raises(DataError, match="not trained"):
            plot_gradients_3d(made(12, 2, trained=trained), tmp_path, [kind], module)
        return
    plot_gradients_3d(made(12, 2, trained=trained), tmp_path, [kind], module)
    (figure,) = saved
    words = {
        "stacked": "Attention, and MLP on top of it",
        "combined": "Attention + MLP (sum of both norms)",
        "attention": "Attention",
        "mlp": "MLP",
    }
    # What is not trained is not named.
    said = words[module] if len(trained) == 2 else "MLP"
    assert figure.get_suptitle() == f"Gradient norm by layer and step\n{said}"


def test_b46_the_title_names_the_run_and_the_axis_the_layers(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradients_3d(made(12, 2), tmp_path, ["wireframe"], name="mine")
    (figure,) = saved
    assert figure.get_suptitle().startswith("Gradient norm by layer and step: mine\n")
    assert figure.axes[0].get_xlabel() == "Layer"
    plot_gradients_3d(made(12, 2, trained=(), ends=True), tmp_path, ["wireframe"])
    assert saved[1].get_suptitle().endswith("\nEmbed / LM head")


def test_b46_the_colours_of_a_surface_have_the_scale_of_its_height(tmp_path: Path, saved: list[Figure]) -> None:
    log = made(30, 4)
    plot_gradients_3d(log, tmp_path, ["surface"], "attention")
    axes, bar = saved[0].axes
    assert bar.get_ylim() == pytest.approx((0, max(map(max, log.layer_norms["attention"]))))
    assert axes.collections[0].get_clim() == bar.get_ylim()


def test_b46_two_steps_with_layers_are_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least two measured steps, not 1\n.*log_frequency"):
        plot_gradients_3d(made(1, 2), tmp_path)
    with pytest.raises(DataError, match="layer_norm=true"):
        plot_gradients_3d(replace(made(5, 2), layer_norms={}), tmp_path)
    with pytest.raises(UsageError, match="'pie' is not one of surface, wireframe, bars"):
        plot_gradients_3d(made(5, 2), tmp_path, ["pie"])


def test_tb11_no_window_system_is_asked_for_and_the_module_can_be_imported(tmp_path: Path) -> None:
    write_gradients(made(5, 2), tmp_path / "gradient_analysis")
    code = (
        "import os, sys; os.environ['MPLBACKEND'] = 'TkAgg'\n"
        "import hpcft.viz.gradients_3d as views\n"
        "assert 'matplotlib' not in sys.modules, 'importing it draws nothing'\n"
        "from hpcft.runs.gradients import load_gradient_log_from_csv\n"
        "views.plot_gradients_3d(load_gradient_log_from_csv(sys.argv[1]), sys.argv[1], ['bars'])\n"
        "print(sorted({'tkinter', 'matplotlib.pyplot', 'PyQt5', 'PyQt6'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "gradient_3d_bars.png").read_bytes().startswith(b"\x89PNG")
