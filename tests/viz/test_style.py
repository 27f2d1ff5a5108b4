"""The common style: no screen, no open figure, a font or a word about it, and a failure that stops nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib import font_manager

from hpcft import viz
from hpcft.viz import PEFT_COLORS, guarded, picture, plot_training_loss, style


def test_a36_a_failing_picture_never_stops_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    assert guarded(plot_training_loss)([(1, 1.0)], [], tmp_path / "file" / "loss.png") is None
    assert "visualisation failed: " in caplog.text


def test_ta7_no_figure_stays_open_and_a_notebooks_settings_stay_whole(tmp_path: Path) -> None:
    code = (
        "import matplotlib, sys; from pathlib import Path; from hpcft.viz import plot_training_loss\n"
        "before = dict(matplotlib.rcParams)\n"
        "plot_training_loss([(1, 1.0)], [], Path(sys.argv[1]))\n"
        "print(dict(matplotlib.rcParams) == before, 'matplotlib.pyplot' in sys.modules)"
    )
    # A user's own backend, which needs a screen that is not there.
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, env={"MPLBACKEND": "TkAgg"}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    assert (tmp_path / "a.png").is_file()


def test_ta7_a_missing_font_is_said_once_and_only_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(style, "_cjk_fonts", lambda: ())
    style._say_boxes.cache_clear()
    for title in ("Training", "LoRA 訓練過程", "학습"):
        with caplog.at_level(logging.WARNING), picture(tmp_path / "a.png", size=(2, 2)) as (figure, _):
            figure.suptitle(title)
        assert caplog.text.count("Noto Sans CJK") == (title != "Training")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """matplotlib's list of fonts, none of which has Chinese, Japanese or Korean characters."""
    fonts: list[Any] = [SimpleNamespace(name="DejaVu Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    style._cjk_fonts.cache_clear()
    yield fonts
    style._cjk_fonts.cache_clear()


def test_ta7_a_font_that_is_newer_than_matplotlibs_list_is_found_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, listed: list[Any]
) -> None:
    added: list[str] = []

    def add(file: str) -> None:
        added.append(Path(file).name)
        if "Bold" in file:
            raise RuntimeError("damaged")
        listed.append(SimpleNamespace(name="Noto Sans CJK JP"))

    files = [f"/fonts/{name}" for name in ("DejaVuSans.ttf", "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    monkeypatch.setattr(font_manager.fontManager, "addfont", add)
    assert style._cjk_fonts() == ("Noto Sans CJK JP",)
    assert added == ["NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc"]


def test_ta7_a_font_in_matplotlibs_list_is_used_without_a_look_at_the_disk(
    monkeypatch: pytest.MonkeyPatch, listed: list[Any]
) -> None:
    listed.append(SimpleNamespace(name="NanumGothic"))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: pytest.fail("looked at the disk"))
    assert style._cjk_fonts() == ("NanumGothic",)


def test_a37_importing_from_any_folder_works_and_does_not_load_matplotlib(tmp_path: Path) -> None:
    code = "import sys, hpcft.viz; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a38_pictures_need_nothing_beside_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from hpcft.viz import plot_peft_comparison; "
        "plot_peft_comparison([{'method': 'LoRA', 'performance': 0.5}], save_path='a.png'); "
        "print(sorted({'torch', 'transformers', 'pandas', 'seaborn', 'scipy', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("zh-TW", ["⚠️  視覺化失敗: no room", "訓練結果已保存，請手動查看 log_history"]),
        ("en", ["⚠️  visualisation failed: no room", "the training's results are kept: see its log history"]),
    ],
)
def test_a36_the_two_lines_of_a_failed_picture(lang: viz.Lang, told: list[str]) -> None:
    code = (
        "import sys; from hpcft.viz import guarded\n"
        "def draw(): raise OSError('no room')\n"
        "print(guarded(draw, sys.argv[1])())"
    )
    # With no logging set up, as in a notebook: the lines stand there as they are.
    done = subprocess.run(
        [sys.executable, "-c", code, lang], env={"PYTHONUTF8": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None"]
    assert done.stderr.splitlines() == told


def test_a_palette() -> None:
    assert PEFT_COLORS == {
        "LoRA": "#FF6B6B",
        "QLoRA": "#FF8E8E",
        "Adapter": "#4ECDC4",
        "IA3": "#45B7D1",
        "Prefix": "#FFA07A",
        "Prompt": "#98D8C8",
        "BitFit": "#F7DC6F",
        "P-Tuning": "#BB8FCE",
        "P-Tuning-v2": "#9B59B6",
        "train": "#3498db",
        "eval": "#e74c3c",
        "test": "#2ecc71",
    }


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("LoRA r=8", "LoRA"),
        ("qlora", "QLoRA"),
        ("Full LoRA", "LoRA"),
        ("LoRA Fine-tuned", "LoRA"),
        ("LoRA Adapter", "LoRA"),
        ("P-Tuning v2", "P-Tuning-v2"),
        ("p_tuning", "P-Tuning"),
        ("prompt_tuning", "Prompt"),
        ("Prefix Tuning", "Prefix"),
    ],
)
def test_a_name_has_the_colour_of_its_method(name: str, method: str) -> None:
    assert style.method_color(name) == PEFT_COLORS[method]


@pytest.mark.parametrize("name", ["Base Model", "pretrained", "test", ""])
def test_a_name_of_no_method_is_grey(name: str) -> None:
    assert style.method_color(name) == "#95a5a6"


def test_a1_plt_is_there_for_a_notebook_and_not_loaded_before() -> None:
    code = "import sys, hpcft.viz as v; print('matplotlib' in sys.modules); print(v.plt.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "matplotlib.pyplot"]
    with pytest.raises(AttributeError, match="no_such_picture"):
        viz.no_such_picture  # noqa: B018


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    with picture(tmp_path / "a.png", size=(2, 2)) as (figure, _):
        figure.suptitle(r"$\frac{$")
    assert (tmp_path / "a.png").is_file()
