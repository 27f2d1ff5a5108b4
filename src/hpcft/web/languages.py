"""The languages of the pages: which one a reader gets, and the words."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from fastapi import Request

LANGUAGES = {"en": "English", "zh-TW": "繁體中文", "zh-CN": "简体中文"}


def preferred(accepted: str) -> str:
    """The language that an Accept-Language header asks for, as far as there is one.

    >>> preferred("zh-Hant;q=0.9, en"), preferred("zh-CN,zh"), preferred("fr, de")
    ('zh-TW', 'zh-CN', 'en')
    """
    for part in accepted.split(","):
        tag = part.split(";")[0].strip().lower()
        if tag.startswith("zh"):
            return "zh-CN" if any(mark in tag for mark in ("cn", "hans", "sg")) else "zh-TW"
        if tag.startswith("en"):
            break
    return "en"


def chosen(request: Request) -> str:
    """The language of a page: the one in its address, else the one chosen before, else the browser's."""
    for asked in (request.query_params.get("lang"), request.cookies.get("hpcft_lang")):
        if asked in LANGUAGES:
            return str(asked)
    return preferred(request.headers.get("accept-language", ""))


@cache
def texts() -> dict[str, list[str]]:
    """Every text, in the order of `LANGUAGES`."""
    found = yaml.safe_load(files("hpcft.web").joinpath("texts.yaml").read_text(encoding="utf-8"))
    return dict(found)


def text(key: str, lang: str, **given: Any) -> str:
    """A text in a language, with what belongs into its braces."""
    return texts()[key][list(LANGUAGES).index(lang)].format(**given)
