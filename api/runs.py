"""Runs: join or resume a stream, stop a run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import Response

from api.context import Asking, Using
from api.streams import run_stream
from threadline.domain.errors import Invalid

router = APIRouter(prefix="/runs", tags=["runs"])


@router.get(
    "/{run_id}/events",
    summary="The run's events, from the start or after Last-Event-ID, also once it has ended",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    run_id: str, caller: Asking, context: Using, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    run = await context.runs.check(run_id, caller, "read")
    return run_stream(context, run, after=_number(last_event_id))


@router.post("/{run_id}/cancel", status_code=202, summary="Stop the run and the model call it waits for")
async def cancel(run_id: str, caller: Asking, context: Using) -> dict[str, Any]:
    run = await context.runs.to_cancel(run_id, caller, "interrupt")
    await context.runs.cancel(run)
    return {"run_id": run.run_id, "status": "cancelling"}


def _number(last_event_id: str | None) -> int:
    if last_event_id is None or last_event_id == "-1":
        return 0
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 16):
        raise Invalid("Last-Event-ID must be the id of an event of this run.")
    return int(last_event_id)
