"""What all routes of the LangGraph Server API share: bodies of any content type, and `{"detail": "…"}` errors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from langgraph_sdk.auth.exceptions import HTTPException as Refusal
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from api.problems import reason, refusal, status_of
from threadline.domain.errors import ThreadlineError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NO_JSON = "Invalid JSON in request body"
DEPTH = 200
"""How many lists and objects of a body may lie in each other. What is stored may have 254, and wraps bodies in more."""


class ServerRoute(APIRoute):
    """Give to `APIRouter(route_class=ServerRoute)`.

    A body is JSON whatever its content type says: LangGraph Studio posts text/plain to spare itself a preflight.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            request.scope["headers"] = [*headers, (b"content-type", b"application/json")]
            try:
                return await handle(ServerRequest(request.scope, request.receive))
            except ThreadlineError as error:
                return detail(status_of(error), error.message)
            except Refusal as error:
                return refusal(error)
            except RequestValidationError as error:
                return detail(422, "; ".join(_reason(item) for item in error.errors()))
            except HTTPException as error:
                return detail(error.status_code, str(error.detail))

        return answer

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self.methods or set()
        if scope["method"] in methods:
            await super().handle(scope, receive, send)
            return
        refused = detail(405, "Method Not Allowed")
        refused.headers["Allow"] = ", ".join(sorted(methods))
        await refused(scope, receive, send)


class ServerRequest(Request):
    """Reads bodies with orjson: what it refuses (half characters, NaN, bad UTF-8) could not be stored or sent."""

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            self._parsed = orjson.loads(body := await self.body())
            if body.count(b"[") + body.count(b"{") > DEPTH:
                _check_depth(self._parsed)
        return self._parsed


def _check_depth(value: Any) -> None:
    """Raises HTTPException beyond DEPTH."""
    level = [value]
    for _ in range(DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise HTTPException(422, f"More than {DEPTH} lists and objects lie in each other.")


def described(body: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body by itself. `body` must hold no other model."""
    return {"requestBody": {"content": {"application/json": {"schema": body.model_json_schema()}}, "required": True}}


def _reason(item: dict[str, Any]) -> str:
    no_body = item["type"] == "missing" and tuple(item["loc"]) == ("body",)
    return NO_JSON if no_body or item["type"] == "json_invalid" else reason(item)


def reply(value: Any, *, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; times as ISO 8601."""
    return Response(orjson.dumps(value), media_type="application/json", headers=dict(headers or {}))


def page(items: Sequence[Any], *, total: int, offset: int) -> Response:
    """One page of what a search found; its headers say how much there is in all, and where more begins."""
    headers = {"x-pagination-total": str(total)}
    if items and offset + len(items) < total:
        headers["x-pagination-next"] = str(offset + len(items))
    return reply(items, headers=headers)


def detail(status: int, words: str) -> JSONResponse:
    """An error's body as the LangGraph clients expect it."""
    return JSONResponse({"detail": words}, status)
