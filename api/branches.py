"""Branches of a session: list, name, switch, promote, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.context import Asking, Limit, Using, page

router = APIRouter(prefix="/sessions/{session_id}/branches", tags=["sessions"])


@router.get("", summary="The session's branches, the youngest first")
async def branches(
    session_id: str,
    caller: Asking,
    context: Using,
    limit: Limit = 50,
    before: Annotated[str | None, Query(description="A branch_id: list those that began before it.")] = None,
) -> dict[str, Any]:
    thread = await context.threads.check(session_id, caller, "read")
    items = await context.branches.page(thread, limit=limit + 1, before=before)
    return page(items, limit=limit, cursor=lambda item: item["branch_id"])


class NameBody(BaseModel):
    """What the branch is called; null takes its name away."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str | None = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")


@router.put("/{branch_id}", summary="Name a branch; its name keeps it from retention")
async def name(session_id: str, branch_id: str, body: NameBody, caller: Asking, context: Using) -> dict[str, Any]:
    return await context.branches.name(await context.threads.check(session_id, caller, "update"), branch_id, body.name)


@router.post("/{branch_id}/switch", summary="Go on from the end of this branch with the next message")
async def switch(session_id: str, branch_id: str, caller: Asking, context: Using) -> dict[str, Any]:
    return await context.branches.switch(await context.threads.check(session_id, caller, "update"), caller, branch_id)


@router.post("/{branch_id}/promote", summary="Switch to this branch, and show the session as it is on it")
async def promote(session_id: str, branch_id: str, caller: Asking, context: Using) -> dict[str, Any]:
    return await context.branches.switch(
        await context.threads.check(session_id, caller, "update"), caller, branch_id, promote=True
    )


@router.delete("/{branch_id}", status_code=204, summary="Delete what only this branch stands on")
async def delete(
    session_id: str,
    branch_id: str,
    caller: Asking,
    context: Using,
    force: Annotated[bool, Query(description="Also if a checkpoint of it is pinned.")] = False,
) -> None:
    await context.branches.delete(await context.threads.check(session_id, caller, "delete"), branch_id, force=force)
