"""What is wrong with one text, and the same text with that mended where it can be."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from hpcft.spec.job import ChecksSection

EMPTY, LENGTH, ENCODING, HTML = "empty_values", "length_violations", "encoding_issues", "html_content"
CODE_PAGE = "wrong_code_page"

# What a decoder writes for what it could not read, NUL, and one half of a UTF-16 pair.
_BROKEN = re.compile("[\ufffd\x00\ud800-\udfff]")
# Control characters that stand where Windows' code page 1252 has quotes, dashes and the euro: it was read as Latin-1.
_CONTROLS = re.compile("[\x80-\x9f]")
_TAG = re.compile(r"<[^>]+>")
_SPACE = re.compile(r"\s+")
_SPECIAL = re.compile(r"[^\w\s.,;:!?'\"()\[\]{}%&/+*=@#$€£-]")
# Each opening one of these without its closing one is the trace of an answer that was cut.
_BRACKETS = ("()", "[]", "{}", "“”", "「」", "（）", "【】")


def faults(text: str, rules: ChecksSection) -> Iterator[str]:
    """The kinds of fault that a text has."""
    bare = text.strip()
    if not bare:
        if not rules.allow_empty:
            yield EMPTY
        return
    if len(bare) < rules.min_text_length or (rules.max_text_length and len(bare) > rules.max_text_length):
        yield LENGTH
    if rules.check_encoding and _BROKEN.search(text):
        yield ENCODING
    if rules.check_encoding and not text.isascii() and _CONTROLS.search(text):
        yield CODE_PAGE
    if rules.remove_html and "<" in text and _TAG.search(text):
        yield HTML


def mended(text: str, rules: ChecksSection) -> str:
    """A text without what can be taken out of it; whitespace becomes single spaces.

    Doing it twice gives the same as doing it once: what is left has no tag that a second look would find.
    """
    if rules.check_encoding and not text.isascii():
        text = _CONTROLS.sub(_by_code_page, text)
    if rules.remove_html and "<" in text and _TAG.search(text):
        while _TAG.search(text):
            text = _TAG.sub(" ", text)
        text = _without_entities(text)
    if rules.remove_special_chars:
        text = _SPECIAL.sub(" ", text)
    return _SPACE.sub(" ", text).strip()


def _by_code_page(found: re.Match[str]) -> str:
    """The character of code page 1252; a space for the five that it leaves open."""
    return found[0].encode("latin-1").decode("cp1252", "replace").replace("\ufffd", " ")


def _without_entities(text: str) -> str:
    """`&amp;` and its like as characters, unless a tag or a broken character would come of it."""
    plain = html.unescape(text)
    return text if _TAG.search(plain) or _BROKEN.search(plain) else plain


def is_cut(answer: str) -> bool:
    """Whether a bracket is opened in an answer and never closed.

    >>> is_cut("[Local"), is_cut("[Local]"), is_cut("a :) b"), is_cut("f(x) = [1, 2")
    (True, False, False, True)
    """
    return any(answer.count(pair[0]) > answer.count(pair[1]) for pair in _BRACKETS)
