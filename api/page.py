"""The page: static files, served with a policy that lets nothing in from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header
from fastapi.responses import FileResponse, JSONResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(accept: Annotated[str, Header()] = "*/*") -> Response:
    """The page for browsers; clients of the LangGraph Server API ask here whether the server is well."""
    if "text/html" in accept:
        return FileResponse(STATIC / "index.html", headers={**HEADERS, "Vary": "Accept"})
    return JSONResponse({"ok": True, "services": {}}, headers={"Vary": "Accept"})


class Files(StaticFiles):
    """Static files that always ask whether they are still fresh."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def install(app: FastAPI) -> None:
    app.include_router(router)
    app.mount("/static", Files(directory=STATIC), name="static")
