"""What a run has left: pictures, tables, records, reports, models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from hpcft.runs.run import label
from hpcft.web.api.ids import RunId
from hpcft.web.beneath import listed, opened
from hpcft.web.experiments import find
from hpcft.web.settings import Settings

_BLOCK = 256 * 1024
_TEXT = "text/plain; charset=utf-8"
_PAGE = "text/html; charset=utf-8"
_OTHER = "application/octet-stream"
# What a browser may show; all else is for keeping. An SVG is a program.
_TYPES = {
    ".png": "image/png",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".html": _PAGE,
    **dict.fromkeys((".txt", ".log", ".jsonl", ".yaml", ".sh", ".md"), _TEXT),
}
# A report is a page whose scripts reach nothing: it has an origin of its own and no network.
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class File(BaseModel):
    """A file of a run.

    Attributes:
        name: its path below the run's directory.
        size: bytes. modified: seconds since the epoch. type: its Content-Type.
    """

    name: str
    size: int
    modified: float
    type: str


def router(settings: Settings) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["files"])
    results = settings.results

    @router.get("/experiments/{experiment_id:run}/files")
    def files(experiment_id: RunId) -> list[File]:
        """The files of an experiment, 10,000 at the most. A link is none of them."""
        folder = label(find(results, experiment_id).paths.root, results)
        return [File(**about, type=_type(about["name"])) for about in listed(results, folder)]

    @router.get(
        "/experiments/{experiment_id:run}/files/{path:path}",
        response_class=StreamingResponse,
        responses={200: {"content": {kind: {} for kind in (*sorted(set(_TYPES.values())), _OTHER)}}},
    )
    def file(experiment_id: RunId, path: str) -> StreamingResponse:
        """A file of an experiment."""
        found = opened(results, label(find(results, experiment_id).paths.root, results), path)
        kind = _type(path)
        headers = {"content-length": str(os.fstat(found.fileno()).st_size)}
        if kind == _OTHER:
            headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(PurePosixPath(path).name, safe='')}"
        if kind == _PAGE:
            headers["content-security-policy"] = _SANDBOX
        return StreamingResponse(_blocks(found), headers=headers, media_type=kind)

    return router


def _type(name: str) -> str:
    return _TYPES.get(PurePosixPath(name).suffix, _OTHER)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """A file as long as it was when it was opened: a log grows."""
    with file:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
