"""The inference benchmark's three panels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcft.viz import plot_inference_benchmark

BASE = {"latency_ms": 812.34, "throughput": 61.2, "memory_gb": 12.9}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("lang", "title", "panels"),
    [
        ("en", "Inference benchmark", ["Latency (ms)", "Throughput (tokens/s)", "Peak memory (GB)"]),
        ("zh-TW", "推理性能對比", ["延遲 (ms)", "吞吐量 (tokens/s)", "記憶體峰值 (GB)"]),
    ],
)
def test_a18_latency_throughput_and_memory_side_by_side(
    tmp_path: Path, saved: list[Figure], lang: str, title: str, panels: list[str]
) -> None:
    results = {"Base Model": BASE, "LoRA Fine-tuned": {"latency_ms": 840.0, "throughput": 59.0, "memory_gb": 13.0}}
    assert plot_inference_benchmark(results, tmp_path / "inference_benchmark.png", lang) is not None
    (figure,) = saved
    assert figure.axes[0].get_gridspec().get_geometry() == (1, 3)
    assert figure.get_suptitle() == title
    assert [axes.get_title() for axes in figure.axes] == panels
    assert [[bar.get_height() for bar in axes.patches] for axes in figure.axes] == [
        [812.34, 840.0],
        [61.2, 59.0],
        [12.9, 13.0],
    ]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["Base Model", "LoRA Fine-tuned"]
    assert texts(figure.axes[0]) == ["812.3", "840.0"]


@pytest.mark.parametrize("lost", [{}, {"memory_gb": math.nan}, {"memory_gb": None}], ids=["absent", "NaN", "None"])
def test_a_missing_figure_is_said_and_not_drawn_as_zero(
    tmp_path: Path, saved: list[Figure], lost: dict[str, float]
) -> None:
    results = {"Base Model": BASE, "LoRA Fine-tuned": {"latency_ms": 840.0, "throughput": 59.0, **lost}}
    plot_inference_benchmark(results, tmp_path / "a.png", "zh-TW")
    memory = saved[0].axes[2]
    assert [bar.get_height() for bar in memory.patches] == [12.9]
    assert texts(memory) == ["12.90", "未測量"]


def test_a18_its_message(tmp_path: Path, saved: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    plot_inference_benchmark({"Base Model": BASE}, tmp_path / "a.png", "zh-TW", verbose=True)
    plot_inference_benchmark({"Base Model": BASE}, tmp_path / "a.png")
    assert capsys.readouterr().out == "✅ 推理性能對比圖已生成\n"


def test_nothing_measured_is_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plot_inference_benchmark({"Base Model": {}}, tmp_path / "a.png") is None
    assert plot_inference_benchmark({}, tmp_path / "a.png") is None
    assert "nothing to draw" in caplog.text
    assert list(tmp_path.iterdir()) == []
