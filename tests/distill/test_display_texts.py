"""What is said of a student: laziness, comments, topics, trend, advice, in four languages (D2 to D5, D17 to D27)."""

from __future__ import annotations

import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcft.display import judge, texts
from hpcft.display.texts import comments, topic_keywords
from hpcft.errors import HpcftError
from hpcft.viz import LANGUAGES

D26 = "互联网, 人工智能, 科技, 医疗, 教育, 经济, 文化, 体育"


def fields(form: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(form) if name}


@pytest.mark.parametrize("key", texts._TEXTS)
def test_each_text_stands_in_every_language_with_the_same_values(key: str) -> None:
    forms = texts._TEXTS[key]
    assert len(forms) == len(LANGUAGES) == 4
    assert all(fields(form) == fields(forms[0]) for form in forms)


def test_english_is_the_default_and_an_unknown_language_is_refused() -> None:
    assert "Visual knowledge distillation" in texts.text("title")
    with pytest.raises(HpcftError, match=r"fr.*\n.*en, zh-TW, zh-CN, ko"):
        topic_keywords("fr")  # type: ignore[arg-type]


def test_the_texts_load_nothing_heavy() -> None:
    code = (
        "import sys, hpcft.display.console, hpcft.display.texts\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_d2_d17_laziness_is_60_percent_text_and_40_percent_kl() -> None:
    assert judge.laziness(1.0, 0.0) == 0
    assert judge.laziness(0.0, 0.0) == 60
    assert judge.laziness(1.0, 2.5) == 20
    assert judge.laziness(0.0, 5.0) == judge.laziness(0.0, 50.0) == 100
    assert judge.laziness(0.5, float("nan")) == judge.laziness(0.5, float("inf")) == 70
    assert judge.laziness(1.0, -1e-7) == 0


@given(st.floats(0, 1), st.floats(allow_nan=True))
def test_d17_laziness_is_from_0_to_100(alike: float, kl: float) -> None:
    assert 0 <= judge.laziness(alike, kl) <= 100


def test_d18_texts_are_compared_by_difflib_also_long_ones() -> None:
    assert judge.similarity("the cat", "the cat") == judge.similarity("", "") == 1
    assert judge.similarity("abcd", "bcde") == 0.75
    # Of 200 characters difflib would leave those out that are frequent, which are nearly all.
    long = "the cat sat on the mat " * 12
    assert judge.similarity(long, long[:-8] + "the dog ") > 0.9


@pytest.mark.parametrize(
    ("percent", "icon"), [(0, "🟢"), (29.99, "🟢"), (30, "🟡"), (59.99, "🟡"), (60, "🔴"), (100, "🔴")]
)
def test_d19_bands(percent: float, icon: str) -> None:
    assert judge.icon(percent) == icon


@pytest.mark.parametrize(("percent", "filled"), [(52.37, 15), (28.91, 8), (0, 0), (100, 30), (99.99, 29), (3.34, 1)])
def test_d5_d20_the_bar_has_30_cells_and_a_part_counts_as_none(percent: float, filled: int) -> None:
    assert judge.bar(percent) == "█" * filled + "░" * (30 - filled)


@pytest.mark.parametrize(
    ("laziness", "loss", "tier"),
    [
        (19.9, 0.49, 0),
        (20.0, 0.1, 1),
        (5.0, 0.5, 1),
        (39.9, 0.99, 1),
        (40.0, 0.1, 2),
        (5.0, 1.0, 2),
        (59.9, 1.99, 2),
        (60.0, 0.1, 3),
        (5.0, 2.0, 3),
        (5.0, float("nan"), 3),
    ],
)
def test_d3_d21_to_d24_the_worse_of_laziness_and_loss_decides(laziness: float, loss: float, tier: int) -> None:
    assert judge.tier(laziness, loss) == tier


def test_d21_to_d24_the_comments_of_each_tier() -> None:
    said = [comments(tier, "zh-CN") for tier in range(4)]
    assert all(len(of) == 4 for of in said)
    assert said[0][0] == "🌟 优秀！完全掌握了教师的知识"
    assert said[1][0] == "👍 很好！大部分知识已掌握"
    assert said[2][1] == "📚 主题不够熟练，需要再多学习"
    assert said[3][0] == "😓 偷懒太多了！需要认真学习"
    assert len({comment for lang in LANGUAGES for tier in range(4) for comment in comments(tier, lang)}) == 64


def test_d4_d26_the_topics_and_their_words() -> None:
    topics = topic_keywords("zh-CN")
    assert ", ".join(topics) == D26
    assert topics["人工智能"] == ["人工智能", "AI", "机器学习", "深度学习", "神经网络", "Transformer"]
    assert [len(words) for words in topics.values()] == [6, 6, 5, 6, 6, 6, 6, 6]


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("医院里的治疗和互联网", "医疗"),
        ("一个在线网站", "互联网"),
        ("transformer 和 internet", "互联网"),
        ("今天天气很好", "通用"),
        ("", "通用"),
    ],
)
def test_d26_the_topic_with_most_words_wins_and_the_first_of_several(text: str, topic: str) -> None:
    assert judge.find_topic(text, topic_keywords("zh-CN"), "通用") == topic


@pytest.mark.parametrize("text", ["send an email", "train the model", "web-AIs", "said", "MAIN"])
def test_td7_an_ascii_word_is_not_found_inside_another(text: str) -> None:
    assert judge.find_topic(text, {"AI": ["AI"]}, "none") == "none"


@pytest.mark.parametrize("text", ["AI", "an ai that", "用AI写作", "(AI)", "AI-based"])
def test_td7_an_ascii_word_is_found_as_a_word_also_between_chinese(text: str) -> None:
    assert judge.find_topic(text, {"AI": ["AI"]}, "none") == "AI"


@pytest.mark.parametrize(
    ("lang", "text", "topic"),
    [
        ("en", "The hospital treats a disease.", "Medicine"),
        ("en", "医院里的治疗", "Medicine"),
        ("zh-TW", "醫院的治療", "醫療"),
        ("ko", "병원 치료", "의료"),
    ],
)
def test_d26_topics_have_names_and_words_in_each_language(lang: str, text: str, topic: str) -> None:
    assert judge.find_topic(text, topic_keywords(lang), "-") == topic  # type: ignore[arg-type]
    assert len(topic_keywords(lang)) == 8  # type: ignore[arg-type]


def test_d27_own_topics_count_like_the_others() -> None:
    topics = topic_keywords("zh-CN")
    topics["量子计算"] = ["量子", "量子比特", "叠加态", "纠缠"]
    topics["区块链"] = ["区块链", "比特币", "以太坊", "智能合约"]
    assert judge.find_topic("量子比特的叠加态", topics, "通用") == "量子计算"
    assert judge.find_topic("比特币和以太坊的技术", topics, "通用") == "区块链"
    # Another training has its own.
    assert "区块链" not in topic_keywords("zh-CN")


@pytest.mark.parametrize(
    ("points", "key"),
    [(10.01, "trend_strong"), (10, "trend_steady"), (0.1, "trend_steady"), (0, "trend_none"), (-3, "trend_none")],
)
def test_d32_the_trend_is_the_first_less_the_last_epochs_mean(points: float, key: str) -> None:
    assert judge.trend(points) == key
    assert judge.improvement([50.0, 99.0, 50.0 - points]) == pytest.approx(points)
    assert judge.improvement([50.0]) is judge.improvement([]) is None


@pytest.mark.parametrize(
    ("percent", "key"),
    [
        (29.99, "advice_excellent"),
        (30, "advice_good"),
        (35.28, "advice_good"),
        (59.99, "advice_good"),
        (60, "advice_poor"),
    ],
)
def test_td5_advice_has_the_bounds_of_the_bands(percent: float, key: str) -> None:
    assert judge.advice(percent) == key


@pytest.mark.parametrize(
    ("student", "teacher", "told"),
    [
        ("the cat sat", "the dog sat", "the [-dog-]{+cat+} sat"),
        ("a b", "a b", ""),
        ("他学习", "她学习", "[-她-]{+他+}学习"),
        ("a", "a b", "a[- b-]"),
    ],
)
def test_d34_a_difference_is_told_word_by_word(student: str, teacher: str, told: str) -> None:
    assert judge.difference(student, teacher) == told
