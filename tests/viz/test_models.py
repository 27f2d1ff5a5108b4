"""Pictures of parameters, sizes and methods: exact colours, labels and texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hpcft.errors import HpcftError
from hpcft.viz import (
    plot_model_sizes,
    plot_parameter_distribution,
    plot_parameter_efficiency,
    plot_peft_comparison,
)

STATS = {"total_params": 6_742_609_920, "trainable_params": 4_194_304, "frozen_params": 6_738_415_616}
SIZES = {"adapter": 0.0313, "merged": 12.55, "base": 12.56}
RANKS = [
    {"method": "LoRA r=8", "trainable_params_%": 0.25, "performance": 85.2, "training_time": 120},
    {"method": "LoRA r=16", "trainable_params_%": 0.48, "performance": 86.1, "training_time": 135},
    {"method": "LoRA r=32", "trainable_params_%": 0.95, "performance": 86.5, "training_time": 155},
]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


@pytest.mark.parametrize(
    ("lang", "footer", "names"),
    [
        ("zh-TW", "總參數: 6,742.61M | 可訓練: 0.062%", ["總參數", "可訓練", "凍結"]),
        ("en", "Total: 6,742.61M | Trainable: 0.062%", ["Total", "Trainable", "Frozen"]),
    ],
)
def test_a10_shares_numbers_in_millions_and_the_footer(
    tmp_path: Path, saved: list[Figure], lang: str, footer: str, names: list[str]
) -> None:
    plot_parameter_distribution(STATS, tmp_path / "parameter_distribution.png", lang)
    (figure,) = saved
    pie, bars = figure.axes
    shares = [(wedge.theta2 - wedge.theta1) / 360 for wedge in pie.patches]
    assert shares == pytest.approx([STATS["trainable_params"] / STATS["total_params"], 1], rel=1e-3)
    assert [t.get_text() for t in pie.get_legend().get_texts()] == [f"{names[1]}: 0.062%", f"{names[2]}: 99.938%"]
    assert heights(bars) == [6742.60992, 4.194304, 6738.415616]
    assert texts(bars) == ["6,742.61M", "4.19M", "6,738.42M"]
    assert [label.get_text() for label in bars.get_xticklabels()] == names
    assert figure.get_supxlabel() == footer


def test_a10_few_parameters_are_told_in_thousands(tmp_path: Path, saved: list[Figure]) -> None:
    stats = {"total_params": 500_000, "trainable_params": 2_048, "frozen_params": 497_952}
    plot_parameter_distribution(stats, tmp_path / "a.png")
    assert texts(saved[0].axes[1]) == ["0.50M", "2.0K", "0.50M"]


def test_a12_its_message(tmp_path: Path, saved: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    plot_parameter_distribution(STATS, tmp_path / "a.png", "zh-TW", verbose=True)
    assert capsys.readouterr().out == "✅ 參數分佈圖已生成\n"


def test_a10_figures_that_lack_are_named(tmp_path: Path) -> None:
    with pytest.raises(HpcftError, match="frozen_params missing"):
        plot_parameter_distribution({"total_params": 2, "trainable_params": 1}, tmp_path / "a.png")
    with pytest.raises(HpcftError, match="no parameters"):
        plot_parameter_distribution(dict.fromkeys(STATS, 0), tmp_path / "a.png")


def test_a20_to_a24_sizes_exactly(tmp_path: Path, saved: list[Figure]) -> None:
    path = plot_model_sizes(SIZES, tmp_path / "model_size_comparison.png", "zh-TW")
    assert path == tmp_path / "model_size_comparison.png"
    (figure,) = saved
    (axes,) = figure.axes
    assert tuple(figure.get_size_inches()) == (10, 6)
    assert heights(axes) == [0.0313, 12.55, 12.56]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == ["#2ecc71", "#3498db", "#95a5a6"]
    assert {bar.get_alpha() for bar in axes.patches} == {0.8}
    names = ["LoRA Adapter", "Merged Model", "Original Model (參考)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    # Upright: there is room.
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0}
    label, title = axes.yaxis.label, axes.title
    assert (label.get_text(), label.get_fontsize(), label.get_fontweight()) == ("模型大小 (GB)", 12, "bold")
    assert (title.get_text(), title.get_fontsize(), title.get_fontweight()) == ("LoRA 模型大小對比", 14, "bold")
    assert axes.get_ygridlines()[0].get_visible()
    assert axes.get_ygridlines()[0].get_alpha() == 0.3
    assert not axes.get_xgridlines()[0].get_visible()
    *values, caption = axes.texts
    assert [value.get_text() for value in values] == ["0.03GB", "12.55GB", "12.56GB"]
    assert {(v.get_fontsize(), v.get_fontweight(), v.get_ha()) for v in values} == {(11, "bold", "center")}
    assert caption.get_text() == "LoRA Adapter 僅佔原模型大小的 0.25%"
    assert (caption.get_position(), caption.get_fontsize(), caption.get_style()) == ((0.5, -0.15), 10, "italic")


def test_a24_the_share_is_of_the_size_that_was_measured(tmp_path: Path, saved: list[Figure]) -> None:
    plot_model_sizes({"adapter": 0.5, "merged": 1.0, "base": 2.0}, tmp_path / "a.png")
    plot_model_sizes({"adapter": 0.5, "merged": 1.0}, tmp_path / "a.png", method="IA3")
    assert texts(saved[0].axes[0])[-1] == "The LoRA Adapter is 25.00% of the original model's size"
    assert texts(saved[1].axes[0]) == ["0.50GB", "1.00GB", "not measured"]
    assert heights(saved[1].axes[0]) == [0.5, 1.0]
    assert saved[1].axes[0].get_title() == "IA3 model sizes"


def test_small_models_are_drawn_in_megabytes(
    tmp_path: Path, saved: list[Figure], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"adapter": 0.25 / 1024, "merged": 4 / 1024, "base": 4 / 1024}
    plot_model_sizes(sizes, tmp_path / "a.png", "zh-TW", verbose=True)
    (axes,) = saved[0].axes
    assert axes.get_ylabel() == "模型大小 (MB)"
    assert texts(axes) == ["0.25MB", "4.00MB", "4.00MB", "LoRA Adapter 僅佔原模型大小的 6.25%"]
    assert capsys.readouterr().out.startswith("✅ LoRA Adapter: 0.25MB\n")


def test_a25_saved_at_300_dpi(tmp_path: Path) -> None:
    path = plot_model_sizes(SIZES, tmp_path / "merged" / "model_size_comparison.png")
    assert path is not None
    data = path.read_bytes()
    place = data.index(b"pHYs") + 4
    assert int.from_bytes(data[place : place + 4], "big") == round(300 / 0.0254)


def test_a26_its_messages(tmp_path: Path, saved: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    plot_model_sizes(SIZES, tmp_path / "a.png", "zh-TW", verbose=True)
    assert capsys.readouterr().out.splitlines() == [
        "✅ LoRA Adapter: 0.03GB",
        "✅ 合併模型: 12.55GB",
        "✅ 效率: Adapter 僅佔 0.2%",
    ]
    plot_model_sizes({"merged": 12.55}, tmp_path / "a.png", "zh-TW", verbose=True)
    assert capsys.readouterr().out == "✅ 合併模型: 12.55GB\n"


def test_a31_a_panel_for_each_metric(tmp_path: Path, saved: list[Figure]) -> None:
    metrics = ["trainable_params_%", "performance", "training_time"]
    plot_peft_comparison(RANKS, metrics=metrics, save_path=tmp_path / "a.png", lang="zh-TW")
    (figure,) = saved
    assert figure.get_suptitle() == "PEFT 方法對比"
    assert [axes.get_title() for axes in figure.axes] == ["可訓練參數 (%)", "性能", "訓練時間"]
    assert [heights(axes) for axes in figure.axes] == [[0.25, 0.48, 0.95], [85.2, 86.1, 86.5], [120, 135, 155]]
    assert {to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches} == {"#ff6b6b"}
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [str(r["method"]) for r in RANKS]


def test_a31_the_time_has_its_unit_and_the_score_its_name(tmp_path: Path, saved: list[Figure]) -> None:
    plot_peft_comparison(RANKS, save_path=tmp_path / "a.png", score_name="ROUGE-L F1")
    plot_parameter_efficiency(RANKS, tmp_path / "b.png", score_name="ROUGE-L F1")
    assert [axes.get_ylabel() for axes in saved[0].axes] == ["", "ROUGE-L F1", "Seconds"]
    assert saved[1].axes[0].get_ylabel() == "Performance (ROUGE-L F1)"


def test_a31_a_metric_that_a_method_lacks_is_said(tmp_path: Path, saved: list[Figure]) -> None:
    rows = [{"method": "LoRA", "bleu": 0.4, "note": "x"}, {"method": "IA3", "f1": 0.5}]
    plot_peft_comparison(rows, save_path=tmp_path / "a.png")
    assert [axes.get_title() for axes in saved[0].axes] == ["bleu", "f1"]
    assert [texts(axes) for axes in saved[0].axes] == [["0.4", "not measured"], ["not measured", "0.5"]]


def test_a_long_row_of_methods_is_drawn_whole(tmp_path: Path, saved: list[Figure]) -> None:
    names = ["Prefix Tuning", "Prompt Tuning", "P-Tuning v2", "LoRA", "QLoRA", "Adapter", "IA3", "BitFit", "P-Tuning"]
    rows = [{"method": name, "accuracy": 0.8, "training_time": 3} for name in names]
    plot_peft_comparison(rows, save_path=tmp_path / "a.png")
    (figure,) = saved
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 1)
    boxes = [label.get_window_extent() for label in figure.axes[1].get_xticklabels()]
    assert len({to_hex(bar.get_facecolor()) for bar in figure.axes[1].patches}) == len(names) == len(boxes)
    assert {label.get_rotation() for label in figure.axes[1].get_xticklabels()} == {25}


def test_efficiency_on_a_logarithmic_axis_with_plain_numbers(
    tmp_path: Path, saved: list[Figure], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*RANKS, {"method": "Base", "trainable_params_%": 0, "performance": 80}, {"method": "IA3"}]
    plot_parameter_efficiency(rows, tmp_path / "a.png")
    (axes,) = saved[0].axes
    assert axes.get_xscale() == "log"
    places = [tuple(dots.get_offsets()[0]) for dots in axes.collections]
    assert places == [(0.25, 85.2), (0.48, 86.1), (0.95, 86.5)]
    assert texts(axes) == [str(row["method"]) for row in RANKS]
    assert "$" not in "".join(label.get_text() for label in axes.get_xticklabels(which="both"))
    assert "Base is left out of a.png" in caplog.text
    assert "IA3 is left out of a.png" in caplog.text


@pytest.mark.parametrize("shares", [(0.02, 0.3), (0.012, 0.5), (0.06, 0.07), (0.001, 3)])
def test_the_logarithmic_axis_of_the_efficiency_has_a_few_numbers(
    tmp_path: Path, saved: list[Figure], shares: tuple[float, ...]
) -> None:
    rows = [{"method": f"LoRA {share}", "params_%": share, "accuracy": 0.8} for share in shares]
    plot_parameter_efficiency(rows, tmp_path / "a.png")
    axis = saved[0].axes[0].xaxis
    low, high = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    assert 2 <= sum(bool(t.label1.get_text()) and low <= t.get_loc() <= high for t in ticks) <= 9


def test_names_of_points_near_one_another_stay_readable(tmp_path: Path, saved: list[Figure]) -> None:
    near = [("P-Tuning v2", 0.3, 0.85), ("LoRA", 0.5, 0.86), ("QLoRA", 0.5, 0.85), ("Prompt", 0.001, 0.7)]
    rows = [{"method": name, "params_%": share, "accuracy": score} for name, share, score in near]
    plot_parameter_efficiency(rows, tmp_path / "a.png")
    boxes = [label.get_window_extent() for label in saved[0].axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_nothing_to_compare_is_no_picture(tmp_path: Path) -> None:
    assert plot_peft_comparison([], ["performance"], tmp_path / "a.png") is None
    assert plot_parameter_efficiency([{"method": "LoRA"}], tmp_path / "b.png") is None
    assert plot_model_sizes({}, tmp_path / "c.png") is None
    assert list(tmp_path.iterdir()) == []
