"""Pictures of gradient norms: every curve and cell is there, in its colour, and says what it is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from support.gradients import made

from hpcft.runs.gradients import GradientLog, Phase
from hpcft.viz.gradient_axes import evenly_spaced, smooth
from hpcft.viz.gradients import (
    draw_gradients,
    plot_gradient_evolution,
    plot_gradient_norms,
    plot_layer_comparison,
    plot_layer_heatmap,
)
from hpcft.viz.style import GROUP_COLORS

PHASES = [Phase(1, 1, "attention"), Phase(11, 2, "mlp"), Phase(21, 3, "both")]


def drawn(saved: list[Figure], name: str) -> Figure:
    """The figure that was saved under a file's name."""
    (found,) = [figure for figure in saved if figure.get_label() == name]
    return found


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def labelled(axes: Axes) -> dict[str, str]:
    """Label → colour of the curves that the legend names."""
    return {str(line.get_label()): to_hex(line.get_color()) for line in axes.lines if str(line.get_label())[0] != "_"}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_b36_each_group_has_its_curve_in_its_colour(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradient_norms(made(30, 4, ends=True), save_path=tmp_path / "gradient_norms.png")
    linear, logarithmic = drawn(saved, "gradient_norms.png").axes[0], drawn(saved, "gradient_norms_log.png").axes[0]
    expected = ["#4caf50", "#2196f3", "#ff9800", "#9c27b0", "#e53935"]
    assert [color.lower() for color in GROUP_COLORS.values()] == expected
    assert list(labelled(linear).values()) == expected
    assert (linear.get_yscale(), logarithmic.get_yscale()) == ("linear", "log")
    assert "logarithmic" in logarithmic.get_ylabel()


def test_b36_a_group_without_a_gradient_has_no_curve(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradient_norms(made(30, 4, trained=("attention",)), save_path=tmp_path / "a.png")
    assert list(labelled(drawn(saved, "a.png").axes[0])) == ["Attention", "All trained"]


def test_b36_curves_are_smoothed_over_five_points_and_the_first_four_stay_raw(
    tmp_path: Path, saved: list[Figure]
) -> None:
    log = made(30, 4)
    plot_gradient_norms(log, save_path=tmp_path / "a.png")
    (curve,) = [line for line in drawn(saved, "a.png").axes[0].lines if line.get_label() == "Attention"]
    norms = log.group_norms["attention"]
    values = list(curve.get_ydata())
    assert values[:4] == norms[:4]
    assert values[10] == pytest.approx(sum(norms[6:11]) / 5)
    assert smooth([1.0, 2.0]) == [1.0, 2.0]
    assert smooth([1.0, 1.0, 1.0, math.nan, 5.0])[4] == 2.0, "a gap spoils no other point"


def test_b36_phases_are_marked_where_they_begin(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradient_norms(made(30, 4, phases=PHASES), save_path=tmp_path / "a.png")
    axes = drawn(saved, "a.png").axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert marks == [11, 21]
    assert texts(axes) == ["phase 1: attention", "phase 2: mlp", "phase 3: both"]


def test_tb8_each_experiment_has_a_colour_and_a_name_of_its_own(tmp_path: Path, saved: list[Figure]) -> None:
    logs = {"Attention": made(30, 4, trained=("attention",)), "MLP": made(30, 4, trained=("mlp",))}
    logs |= {f"r={r}": made(30, 4, height=r) for r in (4, 8, 16, 32)}
    plot_gradient_norms(logs, title="Both", save_path=tmp_path / "all.png")
    figure = drawn(saved, "all.png")
    assert titles(figure) == ["Attention", "MLP", "All trained"]
    attention, mlp, total = (labelled(axes) for axes in figure.axes)
    assert list(attention) == ["Attention", "r=4", "r=8", "r=16", "r=32"]
    assert list(mlp) == ["MLP", "r=4", "r=8", "r=16", "r=32"]
    assert len(set(total.values())) == len(total) == 6
    assert all(total[name] == color for panel in (attention, mlp) for name, color in panel.items())
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == set(logs)
    assert figure.get_suptitle() == "Both"


def test_tb8_forty_experiments_still_look_different(tmp_path: Path, saved: list[Figure]) -> None:
    plot_gradient_norms({f"run {i}": made(3, 2) for i in range(40)}, save_path=tmp_path / "many.png")
    lines = [line for line in drawn(saved, "many.png").axes[0].lines if str(line.get_label())[0] != "_"]
    assert len({(to_hex(line.get_color()), str(line._dash_pattern)) for line in lines}) == 40


@pytest.mark.parametrize("layers", [2, 22])
def test_b37_the_heat_map_has_three_panels_of_every_layer_and_step(
    tmp_path: Path, saved: list[Figure], layers: int
) -> None:
    log = made(30, layers, phases=PHASES)
    plot_layer_heatmap(log, save_path=tmp_path / "layer_heatmap.png")
    figure = drawn(saved, "layer_heatmap.png")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == 3
    for axes, rows in zip(panels, (*log.layer_norms.values(), log.combined()), strict=True):
        mesh = axes.collections[0]
        assert mesh.get_cmap().name == "YlOrRd"
        assert np.allclose(mesh.get_array(), np.array(rows).T)
        assert [line.get_xdata()[0] for line in axes.lines] == [11, 21]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [f"L{n}" for n in range(layers)]
    logarithmic = drawn(saved, "layer_heatmap_log.png").axes[0].collections[0]
    assert isinstance(logarithmic.norm, LogNorm)


def test_tb9_three_panels_also_when_one_is_not_trained_and_combined_says_what_it_is(
    tmp_path: Path, saved: list[Figure]
) -> None:
    plot_layer_heatmap(made(30, 4, trained=("mlp",)), save_path=tmp_path / "a.png")
    for name in ("a.png", "a_log.png"):
        assert titles(drawn(saved, name)) == ["Attention", "MLP", "Attention + MLP (sum of both norms)"]
        assert texts(drawn(saved, name).axes[0]) == ["not trained"]


def test_b38_bars_are_the_means_stacked_and_side_by_side(tmp_path: Path, saved: list[Figure]) -> None:
    log = made(30, 22)
    plot_layer_comparison(log, save_path=tmp_path / "layer_comparison.png")
    stacked, beside = drawn(saved, "layer_comparison.png").axes
    assert titles(drawn(saved, "layer_comparison.png")) == ["Stacked", "Side by side"]
    attention, mlp = (np.mean(log.layer_norms[group], axis=0) for group in ("attention", "mlp"))
    bars = list(stacked.patches)
    assert [bar.get_height() for bar in bars] == pytest.approx([*attention, *mlp])
    assert [bar.get_y() for bar in bars[22:]] == pytest.approx(list(attention))
    centres = [bar.get_x() + bar.get_width() / 2 for bar in beside.patches]
    assert all(left < right for left, right in zip(centres[:22], centres[22:], strict=True))
    assert {to_hex(bar.get_facecolor()) for bar in beside.patches} == {"#2196f3", "#ff9800"}


def test_b39_seven_steps_from_red_to_violet_the_first_and_the_last_among_them(
    tmp_path: Path, saved: list[Figure]
) -> None:
    log = made(100, 4)
    plot_gradient_evolution(log, save_path=tmp_path / "gradient_evolution.png")
    figure = drawn(saved, "gradient_evolution.png")
    attention = figure.axes[0]
    assert [str(line.get_label()) for line in attention.lines] == ["1", "17", "34", "51", "67", "83", "100"]
    assert list(attention.lines[-1].get_ydata()) == log.layer_norms["attention"][-1]
    first, last = (line.get_color() for line in (attention.lines[0], attention.lines[-1]))
    assert (first[0] > 0.9, first[2] < 0.1) == (True, True), "the first step is red"
    assert (last[2] > 0.9, last[0] < 0.6) == (True, True), "the last step is violet"
    assert [tick.get_text() for tick in figure.axes[-1].get_yticklabels()] == ["1", "17", "34", "51", "67", "83", "100"]


def test_b39_fewer_than_seven_steps_are_all_drawn(tmp_path: Path, saved: list[Figure]) -> None:
    for steps in (1, 6):
        plot_gradient_evolution(made(steps, 2), save_path=tmp_path / f"{steps}.png")
        assert len(drawn(saved, f"{steps}.png").axes[0].lines) == steps
    assert evenly_spaced(7, 7) == list(range(7))
    assert evenly_spaced(10_000, 7)[-1] == 9_999


def test_b36_to_b39_every_picture_of_a_run_has_a_linear_and_a_logarithmic_version(
    tmp_path: Path, saved: list[Figure]
) -> None:
    draw_gradients(made(30, 2), tmp_path, "mine")
    names = ("gradient_norms", "layer_heatmap", "layer_comparison", "gradient_evolution")
    assert {figure.get_label() for figure in saved} == {f"{name}{end}.png" for name in names for end in ("", "_log")}
    assert "mine" in drawn(saved, "gradient_norms.png").get_suptitle()


def test_the_pictures_of_a_run_are_in_its_language(tmp_path: Path, saved: list[Figure]) -> None:
    draw_gradients(made(2, 2), tmp_path, "mine", "zh-TW")
    assert "梯度" in drawn(saved, "gradient_norms.png").get_suptitle()
    assert drawn(saved, "layer_heatmap.png").axes[0].get_ylabel() == "層"


def test_b22_without_layers_the_groups_alone_are_drawn(
    tmp_path: Path, saved: list[Figure], caplog: pytest.LogCaptureFixture
) -> None:
    draw_gradients(replace(made(30, 2), layer_norms={}), tmp_path, "mine")
    assert {figure.get_label() for figure in saved} == {"gradient_norms.png", "gradient_norms_log.png"}
    assert caplog.text == ""


_ODD = {
    "one step of one layer": made(1, 1),
    "nothing trained": made(3, 2, trained=()),
    "not finite, and all the same": replace(
        made(3, 2), layer_norms={"attention": [[math.nan, math.inf]] * 3, "mlp": [[0.5, 0.5]] * 3}
    ),
    "many layers": made(2, 48),
}


@pytest.mark.parametrize("log", _ODD.values(), ids=_ODD)
def test_whatever_was_measured_is_drawn_or_said_to_be_nothing(
    tmp_path: Path, saved: list[Figure], caplog: pytest.LogCaptureFixture, log: GradientLog
) -> None:
    draw_gradients(log, tmp_path, "mine")
    assert "failed" not in caplog.text
    assert saved or "nothing to draw" in caplog.text


def test_b36_the_file_is_a_png_and_its_folder_is_made(tmp_path: Path) -> None:
    paths = plot_gradient_norms(made(3, 2), save_path=tmp_path / "new" / "a.png")
    assert [path.name for path in paths] == ["a.png", "a_log.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
