"""Errors as the service tells them: a status, a code that programs can rely on, words, where, what next."""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from hpcft.errors import (
    ConfigError,
    DataError,
    HpcftError,
    NotAllowedError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from hpcft.web.languages import preferred

_STATUS: dict[type[HpcftError], tuple[int, str]] = {
    UsageError: (422, "INVALID_REQUEST"),
    ConfigError: (422, "INVALID_CONFIG"),
    DataError: (422, "DATA_INTEGRITY_ERROR"),
    UnavailableError: (503, "UNAVAILABLE"),
    TryAgainError: (409, "TRY_AGAIN"),
    NotAllowedError: (403, "NOT_ALLOWED"),
}
# By the exit code of a command that was run for a request.
BY_EXIT_CODE = {kind.exit_code: answer for kind, answer in _STATUS.items()}
NOT_FOUND = {"en": "no such experiment", "zh-TW": "實驗不存在", "zh-CN": "实验不存在"}


class Error(BaseModel):
    """What every answer that is none has."""

    error: Literal[
        "INVALID_REQUEST",
        "INVALID_CONFIG",
        "DATA_INTEGRITY_ERROR",
        "TRAINING_ERROR",
        "EXPERIMENT_NOT_FOUND",
        "NOT_FOUND",
        "TRY_AGAIN",
        "NOT_ALLOWED",
        "FORBIDDEN",
        "READ_ONLY",
        "UNAUTHORIZED",
        "METHOD_NOT_ALLOWED",
        "REFUSED",
        "UNAVAILABLE",
        "FAILED",
    ]
    message: str
    where: str | None = Field(None, description="key, field or file")
    hint: str | None = Field(None, description="what to do next")


_WORDS = {
    400: "no JSON",
    401: "no session",
    403: "not allowed",
    404: "not there",
    409: "try again",
    422: "means nothing",
    503: "Slurm or a hub does not answer",
}
# What any route may answer. FastAPI's own key for it would take the route's Content-Type, a stream's or a file's.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/json": {"schema": Error.model_json_schema()}}}
    for status, words in _WORDS.items()
}


class NoExperiment(HpcftError):
    """An id that no run has."""


class Missing(HpcftError):
    """Something else that is not there."""


class RefusedError(HpcftError):
    """A job that was not taken, with the status and the body to answer with."""

    def __init__(self, exit_code: int, body: dict[str, Any]) -> None:
        super().__init__(str(body.get("message", "")))
        self.exit_code = exit_code
        self.body = body


class _Answer(JSONResponse):
    # A request may hold half a character, which UTF-8 has not.
    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def document(code: str, message: str, where: str | None = None, hint: str | None = None) -> dict[str, Any]:
    """An error's body; what is not known is left out."""
    told = {"error": code, "message": message, "where": where, "hint": hint}
    return {name: value for name, value in told.items() if value is not None}


def handle(app: FastAPI) -> None:
    """Answer with them."""

    @app.exception_handler(HpcftError)
    def _ours(request: Request, error: HpcftError) -> JSONResponse:
        if isinstance(error, NoExperiment):
            return _Answer(
                document("EXPERIMENT_NOT_FOUND", NOT_FOUND[preferred(request.headers.get("accept-language", ""))]), 404
            )
        if isinstance(error, Missing):
            return _Answer(document("NOT_FOUND", error.message, error.where, error.hint), 404)
        if isinstance(error, RefusedError):
            status, code = BY_EXIT_CODE.get(error.exit_code, (500, "TRAINING_ERROR"))
            return _Answer({**error.body, "error": code}, status)
        status, code = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (500, "FAILED"))
        # An option of the command line is a field here.
        where = error.where and error.where.removeprefix("--")
        return _Answer(document(code, error.message, where, error.hint), status)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return _Answer(document("INVALID_REQUEST", str(first["msg"]), where), 422)

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "REFUSED")
        return _Answer(document(code, str(error.detail)), error.status_code, headers=error.headers)

    @app.exception_handler(RecursionError)
    def _deep(_: Request, __: RecursionError) -> JSONResponse:
        return _Answer(document("INVALID_REQUEST", "is nested too deeply", "body"), 422)

    @app.exception_handler(Exception)
    def _unforeseen(_: Request, error: Exception) -> JSONResponse:
        return _Answer(document("FAILED", f"{type(error).__name__}; the service's own output says more"), 500)
