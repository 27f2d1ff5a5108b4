"""Pictures of a training: drawn without a screen, complete, and never in the way of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcft import viz
from hpcft.viz import extract_history, history_by_step, plot_training_curves, plot_training_loss


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_b32_loss_picture_is_a_png_of_300_dpi(tmp_path: Path) -> None:
    path = plot_training_loss([(1, 3.0), (2, 2.0)], [(2, 2.5)], tmp_path / "run" / "training_loss.png")
    assert path is not None
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    # The chunk of a PNG that says its resolution, in dots per metre.
    place = data.index(b"pHYs") + 4
    assert int.from_bytes(data[place : place + 4], "big") == round(300 / 0.0254)


def test_b32_training_is_blue_evaluation_orange_and_each_minimum_marked_where_it_is(
    tmp_path: Path, saved: list[Figure]
) -> None:
    plot_training_loss([(1, 3.0), (2, 1.23456), (3, 2.0)], [(1, 2.5), (3, 1.5)], tmp_path / "loss.png")
    (axes,) = saved[0].axes
    train, evaluation, *marks = axes.lines
    assert (train.get_color(), evaluation.get_color()) == ("#2196F3", "#FF9800")
    assert [tuple(float(v[0]) for v in mark.get_data()) for mark in marks] == [(2.0, 1.23456), (3.0, 1.5)]
    assert texts(axes) == ["Min: 1.2346\nstep 2", "Min: 1.5000\nstep 3"]


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ([(s, 3 - 0.1 * s) for s in range(10)], [(5, 2.6), (9, 2.1)]),
        ([(1, 2.0)], [(1, 2.0)]),
        ([(s, 1 + s) for s in range(50)], [(s, 1.001 + s) for s in range(0, 50, 10)]),
    ],
    ids=["the same place", "one point each", "at the left edge"],
)
def test_the_boxes_of_the_minima_do_not_cover_one_another(
    tmp_path: Path, saved: list[Figure], train: viz.Points, evaluation: viz.Points
) -> None:
    plot_training_loss(train, evaluation, tmp_path / "loss.png")
    (axes,) = saved[0].axes
    first, second = (text.get_bbox_patch().get_window_extent() for text in axes.texts)
    assert not first.overlaps(second)
    for box in (first, second):
        assert axes.bbox.y0 <= box.y0
        assert box.y1 <= axes.bbox.y1


def test_points_that_are_not_finite_are_left_out_and_counted(tmp_path: Path, saved: list[Figure]) -> None:
    plot_training_loss([(1, 3.0), (2, math.nan), (3, math.inf)], [], tmp_path / "loss.png")
    plot_training_curves({"train_loss": [3.0, math.nan]}, save_path=tmp_path / "curves.png")
    (loss,), (curve,) = (figure.axes for figure in saved)
    assert [t.get_text() for t in loss.get_legend().get_texts()] == ["training loss (2 not finite)"]
    assert curve.get_title() == "train_loss (1 not finite)"


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e300, 1e300) | st.just(math.nan)), max_size=30))
def test_any_series_becomes_a_panel_or_a_message(values: list[tuple[int, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, path, **_: None)
        path = plot_training_loss(values, values[:1], Path("loss.png"))
    assert (path is None) == (not any(math.isfinite(y) for _, y in values))


def test_ta2_every_extra_series_is_drawn_with_all_its_values(tmp_path: Path, saved: list[Figure]) -> None:
    history = {
        "train_loss": [3.0, 2.0, 1.0],
        "eval_loss": [2.0],
        "eval_f1": [0.1, 0.2],
        "validation/bleu": [(10, 0.3)],
        "empty": [],
    }
    assert plot_training_curves(history, save_path=tmp_path / "curves.png") is not None
    panels = [axes for axes in saved[0].axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["train_loss", "eval_loss", "eval_f1", "validation/bleu"]
    assert [len(axes.lines[0].get_xdata()) for axes in panels] == [3, 1, 2, 1]


def test_ta7_the_x_axis_says_what_it_is(tmp_path: Path, saved: list[Figure]) -> None:
    history = {"train_loss": [3.0, 2.0], "eval_loss": [(10, 2.0), (20, 1.0)]}
    plot_training_curves(history, save_path=tmp_path / "a.png")
    plot_training_curves(history, ["eval_loss"], save_path=tmp_path / "b.png", x_label="Epoch")
    assert [axes.get_xlabel() for axes in saved[0].axes] == ["Log entry", "Optimizer step"]
    assert [axes.get_xlabel() for axes in saved[1].axes] == ["Epoch"]
    assert list(saved[1].axes[0].lines[0].get_xdata()) == [10, 20]


@pytest.mark.parametrize(
    ("count", "grid", "size"), [(1, (1, 1), (10, 6)), (2, (1, 2), (14, 4.5)), (5, (3, 2), (14, 13.5))]
)
def test_a8_panels_one_large_two_beside_each_other_then_two_columns(
    tmp_path: Path, saved: list[Figure], count: int, grid: tuple[int, int], size: tuple[float, float]
) -> None:
    history = {f"eval_{i}": [1.0, 2.0] for i in range(count)}
    plot_training_curves(history, title="LoRA", save_path=tmp_path / "curves.png")
    assert saved[0].axes[0].get_gridspec().get_geometry() == grid
    assert tuple(saved[0].get_size_inches()) == size
    assert sum(axes.get_visible() for axes in saved[0].axes) == count
    assert saved[0].get_suptitle() == "LoRA"


def test_a8_values_are_written_at_twenty_points_and_not_at_more(tmp_path: Path, saved: list[Figure]) -> None:
    history = {"eval_few": [0.12345] * 20, "eval_many": [0.12345] * 21}
    plot_training_curves(history, save_path=tmp_path / "curves.png")
    assert [texts(axes) for axes in saved[0].axes] == [["0.123"] * 20, []]


def test_a6_a7_a28_ta2_ta3_history_has_all_values_of_all_series() -> None:
    log = [
        {"loss": 3.0, "step": 1},
        {"eval_loss": 2.0, "eval_f1": 0.1},
        {"loss": 1.0, "note": "eval follows"},
        {"eval_loss": 1.5, "eval_f1": 0.2, "eval_perplexity": 4.0},
        {"train_runtime": 3.0, "train_loss": 2.0},
    ]
    history = extract_history(log)
    assert history == {
        "train_loss": [3.0, 1.0],
        "eval_loss": [2.0, 1.5],
        "eval_perplexity": [4.0],
        "eval_f1": [0.1, 0.2],
    }
    assert list(history) == ["train_loss", "eval_loss", "eval_perplexity", "eval_f1"]


def test_nothing_to_draw_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plot_training_curves({"eval_loss": [math.nan]}, save_path=tmp_path / "x.png") is None
    assert plot_training_loss([], [], tmp_path / "y.png") is None
    assert "nothing to draw" in caplog.text
    assert "no loss to draw in y.png" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_ta2_every_eval_series_is_complete(tmp_path: Path, saved: list[Figure]) -> None:
    """The whole way: what the Trainer logged, each value of each series, is what the panels show."""
    keys = ("eval_loss", "eval_perplexity", "eval_f1", "eval_runtime")
    log = [{"loss": 3.0 - 0.1 * step, "step": step} for step in range(1, 31)]
    log += [{key: step / 10 + number for number, key in enumerate(keys)} | {"step": step} for step in (10, 20, 30)]
    plot_training_curves(history_by_step(log), save_path=tmp_path / "curves.png")
    drawn = {axes.get_title(): axes.lines[0].get_xydata().tolist() for axes in saved[0].axes if axes.get_visible()}
    assert list(drawn) == ["train_loss", *keys]
    assert drawn["train_loss"] == [[step, 3.0 - 0.1 * step] for step in range(1, 31)]
    for number, key in enumerate(keys):
        assert drawn[key] == [[step, step / 10 + number] for step in (10, 20, 30)]


def test_ta3_an_entry_is_told_by_its_keys_and_not_by_its_text() -> None:
    log = [{"loss": 1.0, "note": "before the evaluation"}, {"loss": 0.5, "evaluated": 1}, {"loss": 9.0, "eval_loss": 2}]
    assert extract_history(log) == {"train_loss": [1.0, 0.5], "eval_loss": [2.0]}


def test_an_eval_value_that_is_no_number_costs_no_other_series() -> None:
    log = [{"eval_report": {"f1": 0.1}, "eval_note": "x", "eval_none": None, "eval_loss": 2.0, "step": 7}]
    assert history_by_step(log) == {"eval_loss": [(7.0, 2.0)]}


def test_a_curves_have_the_palettes_colours(tmp_path: Path, saved: list[Figure]) -> None:
    history = {"train_loss": [3.0], "eval_loss": [2.0], "eval_perplexity": [7.0], "test_loss": [1.0]}
    plot_training_curves(history, save_path=tmp_path / "curves.png")
    assert [axes.lines[0].get_color() for axes in saved[0].axes] == ["#3498db", "#e74c3c", "#e74c3c", "#2ecc71"]


def test_a8_texts_in_traditional_chinese(tmp_path: Path, saved: list[Figure], caplog: pytest.LogCaptureFixture) -> None:
    plot_training_curves({"eval_loss": [(1, 2.0)]}, save_path=tmp_path / "a.png", lang="zh-TW")
    assert saved[0].get_suptitle() == "訓練過程"
    assert plot_training_curves({}, save_path=tmp_path / "b.png", lang="zh-TW") is None
    assert "⚠️ 沒有可繪製的指標" in caplog.messages
