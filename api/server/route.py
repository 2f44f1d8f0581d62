"""What all routes of the LangGraph Server API share: bodies of any content type, and `{"detail": "…"}` errors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api.problems import reason, status_of
from threadline.domain.errors import ThreadlineError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
                return await handle(Request(request.scope, request.receive))
            except ThreadlineError as error:
                return detail(status_of(error), error.message)
            except RequestValidationError as error:
                return detail(422, _words(error))
            except HTTPException as error:
                return detail(error.status_code, str(error.detail))

        return answer


def _words(error: RequestValidationError) -> str:
    """What the validator says. A body that is not there is no JSON either."""
    items = error.errors()
    for item in items:
        if item["type"] == "json_invalid" or (item["type"], item["loc"]) == ("missing", ("body",)):
            return "Invalid JSON in request body"
    return "; ".join(reason(item) for item in items)


def detail(status: int, words: str) -> JSONResponse:
    """An error's body as the LangGraph clients expect it."""
    return JSONResponse({"detail": words}, status)
