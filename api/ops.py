"""For operators and probes: alive, ready, what this is, what it counts."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.context import Using

log = structlog.get_logger(__name__)

router = APIRouter(tags=["ops"])
meta = APIRouter(tags=["ops"])
"""What tells of the service: a project may have it left out."""

READY_SECONDS = 2.0
TOLD = ("version", "langgraph_py_version", "flags", "host")
"""What `/info` tells a stranger: clients look there first, to know what they talk to."""


@router.get("/ok", summary="The process answers")
async def ok(
    context: Using, check_db: Annotated[bool, Query(description="Whether the history has to answer too.")] = False
) -> JSONResponse:
    well = not check_db or await _passes("history", context.checks["history"])
    return JSONResponse({"ok": well, "services": {}}, 200 if well else 503)


@router.get("/ready", summary="Redis and the history answer")
async def ready(request: Request, context: Using) -> JSONResponse:
    checks = {name: await _passes(name, check) for name, check in context.checks.items()}
    all_well = all(checks.values())
    body: dict[str, Any] = {"ready": all_well}
    if request.state.known:  # a stranger learns the status alone
        body["checks"] = {name: "ok" if well else "away" for name, well in checks.items()}
    return JSONResponse(body, 200 if all_well else 503)


async def _passes(name: str, check: Any) -> bool:
    try:
        async with asyncio.timeout(READY_SECONDS):
            await check()
    except Exception as error:
        log.warning("not_ready", check=name, error=type(error).__name__)
        return False
    return True


@meta.get("/info", summary="What this service is and serves")
async def info(request: Request, context: Using) -> dict[str, Any]:
    if request.state.known:
        return context.info
    return {name: context.info[name] for name in TOLD}


@meta.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(context: Using) -> Response:
    return Response(context.metrics.text(), media_type=CONTENT_TYPE_LATEST)
