"""Boxes: exactly 70 columns, aligned whatever stands in them, whatever the terminal can show (D5, D28 to D34, TD6)."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcft.display.box import box
from hpcft.display.console import Console
from hpcft.display.room import cells, clean, fit, pad, shorten, shown_in, wrap
from hpcft.display.tally import Sample, Tally

HOSTILE = [
    "中文和emoji 🎉🇩🇪 mixed",
    "👨\u200d👩\u200d👧 family, 👍🏽 skin, ❤\ufe0f heart",
    "\x1b[31mred\x1b[0m \u202eright to left\u2066",
    "combining e\u0301\u0323 and hangul \u1112\u1161\u11ab",
    "tab\tand\r\nlines\u2028end",
    "x" * 300,
    "汉" * 150,
    "",
]


def by_hand(line: str) -> int:
    """Width by the rules of Annex 11, another way than the code's."""
    line = line.replace("⚙\ufe0f", "EE").replace("⚠\ufe0f", "EE")
    # The later letters of a Korean syllable that is written in parts stand in the room of the first.
    none = {c for c in line if unicodedata.category(c) in ("Mn", "Me", "Cf") or "\u1160" <= c <= "\u11ff"}
    return sum(0 if c in none else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def sample(**changes: object) -> Sample:
    values: dict[str, object] = {
        "epoch": 1,
        "batch": 0,
        "topic": "互联网",
        "teacher": "互联网是全球性的网络",
        "student": "互联网是网络",
        "similarity": 0.75,
        "kl": 1.0,
        "laziness": 52.37,
        "loss": 1.8765,
        "comment": "📚 主题不够熟练，需要再多学习",
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def lines_of(text: str, room: int) -> list[str]:
    lines = text.split("\n")
    assert {cells(line) for line in lines} == {room}, text
    return [line[2:-2].rstrip() for line in lines if line[0] in "│║|"]


def test_cells_are_those_of_a_terminal() -> None:
    assert [cells(t) for t in ("abc", "汉字", "한글", "🎓", "e\u0301", "⚙\ufe0f", "█░│")] == [3, 4, 4, 2, 1, 2, 3]


@given(st.text())
@example("👨\u200d🏫 ⚙\ufe0f")
@example("\u200d\u200da\u200d")
def test_td6_a_cleaned_text_is_one_line_that_does_nothing_to_a_terminal(text: str) -> None:
    line = clean(text)
    assert line.isprintable()
    assert line == line.strip()
    # Nothing whose width depends on the terminal is left.
    assert cells(line) == sum(cells(c) for c in line)


@given(st.text(), st.integers(4, 80))
def test_td6_fitting_keeps_the_room(text: str, room: int) -> None:
    line = clean(text)
    assert cells(fit(line, room)) <= room
    assert cells(pad(line, room)) == room
    assert fit(line, room) == line or fit(line, room).endswith("...")


@given(st.text(), st.integers(2, 80))
def test_wrapping_loses_nothing_but_blanks(text: str, room: int) -> None:
    line = clean(text)
    lines = wrap(line, room)
    assert all(cells(part) <= room for part in lines)
    assert "".join("".join(lines).split()) == "".join(line.split())


def test_words_stay_whole_and_chinese_fills_the_line() -> None:
    assert wrap("one three five", 9) == ["one three", "five"]
    assert wrap("一二三四五六", 5) == ["一二", "三四", "五六"]
    assert wrap("ab 一二三四", 6) == ["ab 一", "二三四"]
    assert wrap("abcdefgh", 3) == ["abc", "def", "gh"]


def test_d15_a_text_is_cut_with_three_dots() -> None:
    assert shorten("a" * 101, 100) == "a" * 100 + "..."
    assert shorten("a" * 100, 100) == "a" * 100
    assert shorten("a", 100, more=True) == "a..."


@given(
    st.lists(st.lists(st.text().map(clean), max_size=3), max_size=3).filter(any), st.sampled_from(["single", "double"])
)
def test_d30_td6_a_box_is_70_columns_wide_whatever_stands_in_it(sections: list[list[str]], frame: str) -> None:
    for line in box(sections, frame).split("\n"):  # type: ignore[arg-type]
        assert cells(line) == 70


@pytest.mark.parametrize("lang", ["en", "zh-TW", "zh-CN", "ko"])
@pytest.mark.parametrize("text", HOSTILE)
def test_td6_every_box_is_aligned_by_hand_count_too(text: str, lang: str) -> None:
    console, tally = Console(lang, show_diff=True), Tally()  # type: ignore[arg-type]
    tally.add(sample(teacher=text, student=text[::-1]))
    tally.add(sample(epoch=2, laziness=70.0, topic="区块链"))
    shown = [
        console.header(4.0, 0.7, 0.3, 50),
        console.header(4.0, 0.7, 0.3, None),
        console.epoch(1, 3),
        console.sample(sample(teacher=text, student=text[::-1])),
        console.epoch_end(1, 1.2345, tally),
        console.end(tally),
    ]
    for line in "\n".join(shown).split("\n"):
        assert by_hand(line) == 70, line


@given(st.text(max_size=60), st.text(max_size=60))
def test_d30_whatever_topic_or_comment_somebody_gives_the_border_stays(topic: str, comment: str) -> None:
    for encoding in (None, "ascii", "gbk"):
        text = Console("zh-CN", encoding).sample(sample(topic=topic, comment=comment))
        assert {cells(line) for line in text.split("\n")} == {70}


def test_d28_the_header() -> None:
    lines = lines_of(Console("zh-CN").header(4.0, 0.7, 0.3, 50), 70)
    assert lines == [
        "🎓 可视化知识蒸馏训练",
        "⚙️  配置: 温度=4.0, α=0.7, β=0.3",
        "📊 显示频率: 每 50 个batch显示一次样本",
    ]


def test_d29_an_epochs_header() -> None:
    assert lines_of(Console("zh-CN").epoch(1, 3), 70) == ["📖 Epoch 1/3"]


def test_d1_d30_a_samples_box() -> None:
    lines = lines_of(Console("zh-CN").sample(sample()), 70)
    assert lines == [
        "📍 Batch 0",
        "📚 教学主题:【互联网】",
        "👨🏫 教师模型: 互联网是全球性的网络",
        "👨🎓 学生模型: 互联网是网络",
        "🟡 偷懒程度: [███████████████░░░░░░░░░░░░░░░] 52.37%",
        "📉 训练损失: 1.8765",
        "💬 评语: 📚 主题不够熟练，需要再多学习",
    ]


def test_d30_a_long_text_goes_on_below_and_ends_with_three_dots() -> None:
    text = shorten("word " * 60, 100)
    lines = lines_of(Console().sample(sample(teacher=text)), 70)
    assert sum("word" in line for line in lines) == 2
    assert any(line.endswith("...") for line in lines)


def test_d6_d31_an_epochs_summary_has_the_five_most_frequent_topics() -> None:
    tally = Tally()
    for number, topic in enumerate(["互联网", "科技", "教育", "经济", "文化", "体育"]):
        for _ in range(30 - number):
            tally.add(sample(topic=topic, laziness=42.15))
    text = Console("zh-CN").epoch_end(1, 1.2345, tally)
    assert text.startswith("╔" + "═" * 68 + "╗")
    assert lines_of(text, 70) == [
        "📊 Epoch 1 总结",
        "📉 平均损失: 1.2345",
        "😴 平均偷懒程度: 42.15%",
        "📚 主题分布:",
        "互联网: 30 个样本",
        "科技: 29 个样本",
        "教育: 28 个样本",
        "经济: 27 个样本",
        "文化: 26 个样本",
    ]


def test_d6_d32_the_final_summary() -> None:
    tally = Tally()
    for epoch, laziness in ((1, 45.28), (2, 35.28), (3, 25.28)):
        for _ in range(100):
            tally.add(sample(epoch=epoch, laziness=laziness))
    assert lines_of(Console("zh-CN").end(tally), 70) == [
        "🎉 知识蒸馏训练完成！",
        "📊 总样本数: 300",
        "😴 总体平均偷懒程度: 35.28%",
        "学习趋势: 📈 显著进步！",
        "💡 建议:",
        "📚 蒸馏效果良好，建议继续训练或调整学习率",
    ]


def test_d32_there_is_no_trend_of_a_single_epoch_and_no_figure_without_samples() -> None:
    tally = Tally()
    assert lines_of(Console("zh-CN").end(tally), 70) == ["🎉 知识蒸馏训练完成！", "📊 总样本数: 0"]
    assert lines_of(Console("zh-CN").epoch_end(1, None, tally), 70) == ["📊 Epoch 1 总结"]
    tally.add(sample())
    assert not any("学习趋势" in line for line in lines_of(Console("zh-CN").end(tally), 70))


def test_d34_td4_the_difference_is_shown_when_it_is_asked_for() -> None:
    texts = {"teacher": "the dog", "student": "the cat"}
    assert "the [-dog-]{+cat+}" in Console(show_diff=True).sample(sample(**texts))
    assert "[-" not in Console().sample(sample(**texts))
    assert "🔍 差异: 无" in Console("zh-CN", show_diff=True).sample(sample(teacher="a", student="a"))


def test_progress_is_one_line() -> None:
    assert Console("zh-CN").progress(10, 100, 1.23456) == "⏳ Batch 10/100 | Loss: 1.2346"
    assert Console().progress(10, None, 1.0) == "⏳ Batch 10/? | Loss: 1.0000"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ANSI_X3.4-1968", "no-such"])
def test_a_terminal_without_utf8_gets_ascii_boxes_in_english(encoding: str) -> None:
    text = Console("zh-CN", encoding).sample(sample(teacher="naïve 猫"))
    lines = lines_of(text, 70)
    assert text.startswith("+" + "-" * 68 + "+")
    assert "Laziness: [###############---------------] 52.37%" in lines[4]
    assert lines[4].startswith("+- ")
    assert "??" in lines[2]
    if encoding == "latin-1":
        assert "naïve" in lines[2]
    else:
        assert text.isascii()


def test_a_chinese_terminal_without_utf8_keeps_its_words() -> None:
    lines = lines_of(Console("zh-CN", "gbk").sample(sample()), 70)
    assert lines[4].endswith("偷懒程度: [###############---------------] 52.37%")
    assert "互联网是全球性的网络" in lines[2]


@given(st.text(max_size=80), st.sampled_from(["ascii", "latin-1", "gbk"]))
def test_what_cannot_be_shown_is_replaced_in_as_much_room(text: str, encoding: str) -> None:
    line = clean(text)
    shown = shown_in(line, encoding)
    shown.encode(encoding)
    assert cells(shown) == cells(line)
