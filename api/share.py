"""Share: a session as a file, and a file as a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from api.context import Asking, Using
from threadline.services.sessionfile import CHUNK, ENDING

IMPORT = "/sessions/import"
"""The path whose bodies may be larger than others."""

router = APIRouter(prefix="/sessions", tags=["sessions"])


@router.get(
    "/{session_id}/export",
    summary="The session as one file, without secrets and without whose it is",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/gzip": {}}}},
)
async def export(session_id: str, caller: Asking, context: Using) -> StreamingResponse:
    thread = await context.threads.check(session_id, caller, "read")
    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(context.share.exported(thread, caller))
        size = await asyncio.to_thread(file.seek, 0, 2)
        file.seek(0)
        headers = {
            "Content-Disposition": f'attachment; filename="{thread.thread_id}{ENDING}"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return StreamingResponse(_sent(file, stack.pop_all()), media_type="application/gzip", headers=headers)


async def _sent(file: BinaryIO, stack: AsyncExitStack) -> AsyncGenerator[bytes]:
    async with stack:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


@router.post(
    "/import",
    status_code=201,
    summary="A new session from an exported file, which is the body",
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
)
async def import_session(request: Request, caller: Asking, context: Using) -> dict[str, Any]:
    made = await context.share.import_(caller, request.stream())
    return {
        "session_id": made.thread.thread_id,
        "title": made.thread.title,
        "turns": made.turns,
        "runs": made.runs,
        "checkpoints": made.checkpoints,
        "graph": {"id": made.graph_id, "served": made.served, "changed": made.changed},
        "note": _note(made.graph_id, served=made.served, changed=made.changed),
    }


def _note(graph_id: str, *, served: bool, changed: bool) -> str | None:
    if not served:
        return f"The graph {graph_id} is not served here: the session can be shown and replayed, but not continued."
    if changed:
        return f"The graph {graph_id} here has another shape than the one the session was made with."
    return None
