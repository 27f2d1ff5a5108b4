"""How a route names a run: `run`, `group/run`, or a run id, which has no slash."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

RunId = Annotated[str, Path(description="`run`, `group/run` or a run id")]


class _Run(Convertor[str]):
    # As little as fits: what follows is the route's. A run that is called like a route's last word has its id.
    regex = "[^/]+?(?:/[^/]+?)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("run", _Run())
