"""Pages that are one file each: nothing is fetched, and nothing runs in them but what this package put there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "templates"


def render(page: str, styles: Sequence[str], script: str | None, **values: Any) -> str:
    """Fill in a page of `templates/`.

    Every value is escaped. The styles and the script are named by their digests in the page's content policy
    (W3C, Content Security Policy Level 3), so that a browser refuses any other, and any address.

    Args:
        page, styles, script: names of files in `templates/`; a page may do without a script.
        values: what the page shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = "".join(_read(name) for name in styles)
    code = "" if script is None else _read(script)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(page).render(
        # Ours, so not escaped.
        style=Markup(style),  # noqa: S704
        script=Markup(code),  # noqa: S704
        policy=f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(code)}; base-uri 'none'",
        **values,
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
