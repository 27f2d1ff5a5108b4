"""The catalogue of messages: whole in each language."""

from __future__ import annotations

import string

import pytest

from hpcft.errors import HpcftError
from hpcft.viz import LANGUAGES
from hpcft.viz.texts import _TEXTS, metric_label, text


def fields(form: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(form) if name}


@pytest.mark.parametrize("key", _TEXTS)
def test_each_text_stands_in_every_language_with_the_same_values(key: str) -> None:
    texts = _TEXTS[key]
    assert len(texts) == len(LANGUAGES) == 4
    assert all(texts)
    assert all(fields(form) == fields(texts[0]) for form in texts)


def test_the_default_is_english() -> None:
    assert text("frozen") == "Frozen"
    signs = str.maketrans("", "", "⚠\ufe0f✅→")
    assert all(form[0].translate(signs).isascii() for form in _TEXTS.values())


def test_a_value_is_put_in_as_it_is() -> None:
    assert text("failed", "zh-TW", error="{0} %s") == "⚠️  視覺化失敗: {0} %s"


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(HpcftError, match=r"fr.*\n.*en, zh-TW, zh-CN, ko"):
        text("frozen", "fr")  # type: ignore[arg-type]


def test_a_metric_without_a_text_keeps_its_name() -> None:
    assert metric_label("performance", "zh-TW") == "性能"
    assert metric_label("my_score", "zh-TW") == "my_score"
