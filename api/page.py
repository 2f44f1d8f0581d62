"""The page: static files, served with a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Header, Query
from fastapi.responses import FileResponse, JSONResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
POLICY = "default-src 'self'; connect-src 'self'{others}; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
HEADERS = {
    "Content-Security-Policy": POLICY.format(others=""),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::\d{1,5})?", re.ASCII)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(
    accept: Annotated[str, Header()] = "*/*", api_url: Annotated[str, Query(alias="apiUrl")] = ""
) -> Response:
    """The page for browsers; clients of the LangGraph Server API ask here whether the server is well.

    `?apiUrl=` points the page at another server: that origin, and no other, is then one the page may ask.
    """
    if "text/html" in accept:
        other = _origin(api_url)
        policy = POLICY.format(others=f" {other}" if other else "")
        headers = {**HEADERS, "Content-Security-Policy": policy, "Vary": "Accept"}
        return FileResponse(STATIC / "index.html", headers=headers)
    return JSONResponse({"ok": True, "services": {}}, headers={"Vary": "Accept"})


def _origin(url: str) -> str:
    """The origin of a web address, fit to stand in a policy; empty for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.lower()
    return f"{parts.scheme}://{host}" if parts.scheme in ("http", "https") and _HOST.fullmatch(host) else ""


class Files(StaticFiles):
    """Static files that always ask whether they are still fresh."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def install(app: FastAPI) -> None:
    app.include_router(router)
    app.mount("/static", Files(directory=STATIC), name="static")
