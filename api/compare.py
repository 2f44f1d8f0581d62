"""Comparisons: two sessions, branches or runs, step by step."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.context import Asking, Limit, Using

router = APIRouter(tags=["sessions"])

After = Annotated[int, Query(ge=0, le=10**9, description="How many steps to leave out: the `next` of the page before.")]


@router.get("/sessions/{session_id}/compare", summary="Two branches, of one session or of two, aligned by node")
async def of_sessions(
    session_id: str,
    caller: Asking,
    context: Using,
    branch: Annotated[str | None, Query(description="A branch's id or name; else the one shown.")] = None,
    other: Annotated[str | None, Query(alias="with", description="Another session. Without it, the same.")] = None,
    with_branch: Annotated[str | None, Query(description="A branch of that one.")] = None,
    after: After = 0,
    limit: Limit = 50,
) -> dict[str, Any]:
    a = await context.threads.check(session_id, caller, "read")
    b = await context.threads.check(other, caller, "read") if other is not None else a
    return await context.comparison.of_sessions(caller, (a, branch), (b, with_branch), after=after, limit=limit)


@router.get("/runs/{run_id}/compare", summary="Two runs, aligned by node")
async def of_runs(
    run_id: str,
    caller: Asking,
    context: Using,
    other: Annotated[str, Query(alias="with", description="Another run.")],
    after: After = 0,
    limit: Limit = 50,
) -> dict[str, Any]:
    runs = [await context.runs.check(one, caller, "read") for one in (run_id, other)]
    a, b = [(await context.threads.check(run.thread_id, caller, "read"), run) for run in runs]
    return await context.comparison.of_runs(caller, a, b, after=after, limit=limit)
