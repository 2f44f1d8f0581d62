"""Sessions: list, read, delete; their history and checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.context import Asking, Limit, Using, page
from threadline.domain.records import TurnSummary

router = APIRouter(prefix="/sessions", tags=["sessions"])

OfBranch = Annotated[
    str | None,
    Query(
        description="The id or name of a branch: leave out what was said on others only, or `all`. "
        "Without it, the main line once one was promoted, else all."
    ),
]


@router.get("", summary="Every session, the last used first")
async def sessions(
    caller: Asking,
    context: Using,
    limit: Limit = 50,
    before: Annotated[str | None, Query(description="A session_id: list those used before it.")] = None,
) -> dict[str, Any]:
    threads = await context.threads.list(caller, limit=limit + 1, before=before)
    ids = [thread.thread_id for thread in threads]
    live, summaries = await context.sessions.live(ids), await context.turns.summary(ids)
    items = [
        {
            "session_id": thread.thread_id,
            "title": thread.title,
            "created_at": thread.created_at.isoformat(),
            "updated_at": thread.updated_at.isoformat(),
            "status": _status(summaries.get(thread.thread_id), busy=context.runs.busy(thread.thread_id)),
            "live": thread.thread_id in live,
            "turns": summaries[thread.thread_id].turns if thread.thread_id in summaries else 0,
        }
        for thread in threads
    ]
    return page(items, limit=limit, cursor=lambda item: item["session_id"])


def _status(summary: TurnSummary | None, *, busy: bool) -> str:
    """LangGraph's words for a thread: `busy`, `interrupted` (it waits for an answer), `error` or `idle`."""
    if busy:
        return "busy"
    last = summary.last if summary else None
    return {"interrupted": "interrupted", "error": "error", "timeout": "error"}.get(last or "", "idle")


@router.get("/{session_id}", summary="The session document; an expired one is rebuilt from the history")
async def session(session_id: str, caller: Asking, context: Using, branch: OfBranch = None) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "read")
    return await context.sessions.document(thread, without=await context.branches.beside(thread, branch))


@router.delete("/{session_id}", status_code=204, summary="Delete every trace of the session")
async def delete(session_id: str, caller: Asking, context: Using) -> None:
    await context.runs.delete_thread(session_id, caller)


@router.get("/{session_id}/history", summary="The rows of chat_history, newest first")
async def history(
    session_id: str,
    caller: Asking,
    context: Using,
    limit: Limit = 50,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="A row's id: list those before it.")] = None,
    branch: OfBranch = None,
) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "read")
    without = await context.branches.beside(thread, branch)
    turns = await context.turns.list(thread.thread_id, limit=limit + 1, before=before, without=without.runs)
    shown = [without.shown(turn) for turn in turns]
    items = [{**asdict(turn), "created_at": turn.created_at.isoformat()} for turn in shown]
    return page(items, limit=limit, cursor=lambda item: item["id"])


@router.get("/{session_id}/checkpoints", summary="Every step of the session, newest first")
async def checkpoints(
    session_id: str,
    caller: Asking,
    context: Using,
    limit: Limit = 50,
    before: Annotated[str | None, Query(description="A checkpoint_id: list those before it.")] = None,
    branch: Annotated[str | None, Query(description="A branch: only the steps that led to its end.")] = None,
) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "read")
    if branch is None:
        items = await context.checkpoints.history(thread, caller, limit=limit + 1, before=before)
    else:
        _, line = await context.branches.line(thread, branch)
        ids = [place.checkpoint_id for place in line]
        items = await context.checkpoints.along(thread, caller, ids, limit=limit + 1, before=before)
    return page(items, limit=limit, cursor=lambda item: item["checkpoint_id"])


@router.get("/{session_id}/checkpoints/{checkpoint_id}", summary="One step with its whole state")
async def checkpoint(session_id: str, checkpoint_id: str, caller: Asking, context: Using) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "read")
    return await context.checkpoints.get(thread, caller, checkpoint_id)


class PinBody(BaseModel):
    """What the checkpoint is called; it may stay nameless."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str | None = Field(None, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")


@router.put("/{session_id}/checkpoints/{checkpoint_id}/pin", summary="Keep a step whatever retention says; name it")
async def pin(
    session_id: str, checkpoint_id: str, caller: Asking, context: Using, body: PinBody | None = None
) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "update")
    kept = await context.checkpoints.pin(thread, caller, checkpoint_id, body.name if body else None)
    return {
        "checkpoint_id": kept.checkpoint_id,
        "pinned": True,
        "name": kept.name,
        "pinned_at": kept.created_at.isoformat(),
    }


@router.delete(
    "/{session_id}/checkpoints/{checkpoint_id}/pin", status_code=204, summary="Leave a step to retention again"
)
async def unpin(session_id: str, checkpoint_id: str, caller: Asking, context: Using) -> None:
    await context.checkpoints.unpin(await context.threads.check(session_id, caller, "update"), caller, checkpoint_id)
