"""The one map from error kinds to HTTP, and the one body every error has (RFC 9457 problem JSON)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from langgraph_sdk.auth.exceptions import HTTPException as Refusal
from starlette.exceptions import HTTPException

from threadline.domain.errors import (
    Conflict,
    Denied,
    Forbidden,
    Invalid,
    Limited,
    Missing,
    ModelFault,
    Rejected,
    ThreadlineError,
    Unavailable,
)

log = structlog.get_logger(__name__)

STATUS: dict[type[ThreadlineError], HTTPStatus] = {
    Rejected: HTTPStatus.BAD_REQUEST,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    Denied: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Missing: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Limited: HTTPStatus.TOO_MANY_REQUESTS,
    ModelFault: HTTPStatus.BAD_GATEWAY,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    ThreadlineError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

RUN_STATUS: dict[str, HTTPStatus] = {
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    **dict.fromkeys(ModelFault.KINDS, HTTPStatus.BAD_GATEWAY),
}
"""For the error that ended a run, by its kind; any other is the service's own."""


def problem(status: int, detail: str, *, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    detail = detail.encode("utf-8", "replace").decode()  # it may repeat half a character that a body held
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "kind": kind}
    return JSONResponse(body, status, media_type="application/problem+json", headers=headers)


def status_of(error: ThreadlineError) -> HTTPStatus:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def of_error(error: ThreadlineError) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if isinstance(error, Denied):
        headers["WWW-Authenticate"] = "Bearer"
    return problem(status, error.message, kind=error.kind, headers=headers)


def of_run(error: dict[str, Any]) -> JSONResponse:
    """For a run that ended in `error`, where the answer is not a stream."""
    status = RUN_STATUS.get(error["kind"], HTTPStatus.INTERNAL_SERVER_ERROR)
    return problem(status, error["message"], kind=error["kind"])


def refusal(error: Refusal | HTTPException) -> JSONResponse:
    """What a project's own auth handler answers with."""
    return JSONResponse({"detail": error.detail}, error.status_code, headers=dict(error.headers or {}))


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem."""

    @app.exception_handler(ThreadlineError)
    async def _known(request: Request, error: ThreadlineError) -> JSONResponse:
        return of_error(error)

    @app.exception_handler(Refusal)
    async def _refused(request: Request, error: Refusal) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, "; ".join(reason(item) for item in error.errors()), kind="invalid")

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        kind = "missing" if error.status_code == 404 else "invalid"
        return problem(error.status_code, str(error.detail), kind=kind, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", path=request.url.path, exc_info=error)
        return problem(500, "The service failed on this request. Its log says why.", kind="internal")


def reason(item: dict[str, Any]) -> str:
    """One complaint of the validator as `field: reason`, without the value complained of."""
    if item["type"] == "json_invalid":
        return "the body is not valid JSON"
    if item["loc"] == ("body",) and item["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return "the body must be a JSON object, sent with content-type: application/json"
    where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path", "header"))
    reason = item["msg"].removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason
