"""Pictures of several tasks' adapters, and of where an adapter stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hpcft.viz import AdapterPart, plot_adapter_structure, plot_task_comparison

TASKS = [
    {"task": "summary", "metric": "ROUGE-L F1", "base": 0.2, "tuned": 0.6},
    {"task": "questions", "metric": "token F1", "tuned": 0.8},
]
MODULES = ("self_attn.o_proj", "mlp.down_proj")
PARTS = [AdapterPart(layer, module, 100 + layer) for layer in (1, 2) for module in MODULES]


def test_a33_each_task_s_scores_stand_side_by_side_on_one_scale(tmp_path: Path, saved: list[Figure]) -> None:
    plot_task_comparison(TASKS, tmp_path / "a.png", "zh-TW")
    (figure,) = saved
    assert figure.get_suptitle() == "Adapter 多任務性能對比"
    assert [axes.get_title() for axes in figure.axes] == ["summary", "questions"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["ROUGE-L F1", "token F1"]
    assert [[bar.get_height() for bar in axes.patches] for axes in figure.axes] == [[0.2, 0.6], [0.8]]
    assert [text.get_text() for text in figure.axes[1].texts] == ["未測量", "0.800"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["Base Model", "Adapter"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert to_hex(figure.axes[0].patches[1].get_facecolor()) == "#4ecdc4"


def test_a33_layers_with_and_without_an_adapter_and_what_adapter_drop_leaves(
    tmp_path: Path, saved: list[Figure]
) -> None:
    plot_adapter_structure(PARTS, 3, tmp_path / "a.png", "zh-TW")
    (figure,) = saved
    assert figure.get_suptitle() == "Adapter 結構視覺化"
    layers, drop = figure.axes
    assert sorted((bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in layers.patches) == [
        *((1, 101), (1, 101), (2, 102), (2, 102))
    ]
    assert [text.get_text() for text in layers.texts] == ["無 Adapter", "202", "204"]
    assert [text.get_text() for text in layers.get_legend().get_texts()] == list(MODULES)
    assert [bar.get_height() for bar in drop.patches] == [406, 406, 204, 0]
    assert drop.get_title() == "AdapterDrop: 剩餘參數量"


def test_a33_a_deep_model_is_drawn_whole(tmp_path: Path, saved: list[Figure]) -> None:
    parts = [AdapterPart(layer, module, 1_000_000) for layer in range(80) for module in MODULES]
    plot_adapter_structure(parts, 80, tmp_path / "a.png")
    (figure,) = saved
    assert len(figure.axes[0].patches) == 160
    assert figure.axes[0].get_ylim() == pytest.approx((-0.6, 79.6))


def test_without_an_adapter_or_a_score_there_is_no_picture(tmp_path: Path) -> None:
    assert plot_adapter_structure([], 4, tmp_path / "a.png") is None
    assert plot_task_comparison([{"task": "a"}], tmp_path / "a.png") is None
    assert list(tmp_path.iterdir()) == []
