"""Threads: create, find, change, copy, delete; their state now, at any checkpoint, and before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException

from api.context import Asking, Context, Using
from api.server.lookup import ThreadToRead, ThreadToUpdate, thread_named, thread_of, thread_uuid
from api.server.route import ServerRoute, page, reply
from api.server.shapes import place_json, selected, state_json, thread_json, ttl_json
from threadline.domain.errors import Conflict, Invalid, Missing
from threadline.domain.records import Caller, Thread, ThreadQuery, ThreadStatus
from threadline.services.bodies import CheckpointBody, Document, Values
from threadline.services.documents import at
from threadline.services.states import Update, command
from threadline.services.threads import KEEP, Ttl, as_uuid

router = APIRouter(prefix="/threads", tags=["threads"], route_class=ServerRoute)

CENTURY = 60 * 24 * 36_525
Extracted = Literal["config", "interrupts", "metadata", "values"]
Alias = Annotated[str, StringConstraints(max_length=100)]
Path = Annotated[str, StringConstraints(max_length=1000)]
Many = Annotated[int, Field(ge=1, le=1000)]
Subgraphs = Annotated[bool, Query(description="Show the states of subgraphs inside their tasks.")]
Select = Annotated[list[str] | None, Query(description="Fields to show; values.<key> is one value alone.")]


class TtlBody(BaseModel):
    strategy: Literal["delete", "keep_latest"] = "delete"
    ttl: float | None = Field(None, gt=0, le=CENTURY, description="Minutes from now.")

    def chosen(self) -> Ttl | None:
        return Ttl(self.ttl, self.strategy) if self.ttl is not None else None


class UpdateBody(BaseModel):
    values: Values = None
    command: Document | None = None
    as_node: str | None = None


class SuperstepBody(BaseModel):
    updates: list[UpdateBody] = Field(min_length=1)


class CreateBody(BaseModel):
    thread_id: str | None = Field(None, description="A UUID; without it, a new one.")
    metadata: Document = Field(default_factory=dict)
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: TtlBody | None = None
    graph_id: str | None = Field(None, description="The graph whose state the thread holds: metadata.graph_id.")
    supersteps: list[SuperstepBody] = Field(default_factory=list)


class PatchBody(BaseModel):
    metadata: Document = Field(default_factory=dict)
    ttl: TtlBody | None = Field(None, description="null takes the time to live away.")


class CountBody(BaseModel):
    metadata: Document = Field(default_factory=dict)
    values: Document = Field(default_factory=dict)
    status: ThreadStatus | None = None


class SearchBody(CountBody):
    ids: list[str] = Field(default_factory=list)
    limit: Many = 10
    offset: int = Field(0, ge=0, le=2**62)
    sort_by: Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"] = "updated_at"
    sort_order: Literal["asc", "desc"] = "desc"
    select: (
        list[
            Literal[
                "thread_id",
                "created_at",
                "updated_at",
                "state_updated_at",
                "metadata",
                "config",
                "context",
                "status",
                "values",
                "interrupts",
            ]
        ]
        | None
    ) = None
    extract: dict[Alias, Path] = Field(default_factory=dict, max_length=10)


class PruneBody(BaseModel):
    thread_ids: list[str]
    strategy: Literal["delete", "keep_latest"] = "delete"


class StateBody(BaseModel):
    values: Values = None
    as_node: str | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: str | None = None


class AtBody(BaseModel):
    checkpoint: CheckpointBody
    subgraphs: bool = False
    select: list[str] | None = None


class BeforeBody(CheckpointBody):
    """A checkpoint, or a config that holds one."""

    configurable: CheckpointBody | None = None


class HistoryBody(BaseModel):
    limit: Many = 1
    before: BeforeBody | str | None = None
    metadata: Document | None = None
    checkpoint: CheckpointBody | None = None
    select: list[str] | None = None


@router.post("", summary="A new thread")
async def create(body: CreateBody, caller: Asking, context: Using) -> Response:
    metadata = {**body.metadata, **({"graph_id": body.graph_id} if body.graph_id is not None else {})}
    ttl = body.ttl.chosen() if body.ttl else None
    thread_id = thread_uuid(body.thread_id) if body.thread_id is not None else None
    steps = [[_update(update) for update in step.updates] for step in body.supersteps]
    thread, new = await context.threads.create(
        caller, thread_id=thread_id, metadata=metadata, ttl=ttl, if_exists=body.if_exists
    )
    if new and steps:
        try:
            thread = await context.states.apply(thread, caller, steps)
        except BaseException:
            await context.runs.remove(thread)
            raise
    return reply(await _whole(context, thread, caller))


@router.post("/search", summary="Threads by metadata, values and status")
async def search(body: SearchBody, caller: Asking, context: Using) -> Response:
    _check_extract(body.extract)
    query = ThreadQuery(
        ids=_ids(body.ids),
        metadata=body.metadata,
        status=body.status,
        sort_by=body.sort_by,
        descending=body.sort_order == "desc",
        limit=body.limit,
        offset=body.offset,
    )
    threads, total, query = await context.states.search(caller, query, body.values)
    parts = [*body.select, *(_root(path) for path in body.extract.values())] if body.select else ["values"]
    values = await context.states.values(threads, caller) if "values" in parts else {}
    items = [_item(thread, values.get(thread.thread_id), body) for thread in threads]
    return page(items, total=total, offset=query.offset)


@router.post("/count", summary="How many threads a search would find")
async def count(body: CountBody, caller: Asking, context: Using) -> int:
    query = ThreadQuery(metadata=body.metadata, status=body.status, limit=0)
    _, total, _ = await context.states.search(caller, query, body.values)
    return total


@router.post("/prune", summary="Delete threads, or all of their past but the newest state")
async def prune(body: PruneBody, caller: Asking, context: Using) -> dict[str, int]:
    """Threads that are not there, and with `keep_latest` those that are busy, are passed over."""
    pruned, found = 0, list[Thread]()
    for thread_id in dict.fromkeys(thread_uuid(thread_id) for thread_id in body.thread_ids):
        with suppress(Missing):  # before any is pruned: the caller may not be allowed one of them
            found.append(await thread_of(thread_id, caller, context, "delete"))
    for thread in found:
        try:
            if body.strategy == "delete":
                await context.runs.remove(thread)
            else:
                await context.states.prune(thread)
        except (Missing, Conflict):
            continue
        pruned += 1
    return {"pruned_count": pruned}


@router.get("/{thread_id}", summary="One thread with its newest values")
async def get(
    thread: ThreadToRead,
    caller: Asking,
    context: Using,
    include: Annotated[str, Query(description="`ttl`: its time to live as well.")] = "",
) -> Response:
    shown = await _whole(context, thread, caller)
    ttl = ttl_json(thread)
    if ttl is not None and "ttl" in include.split(","):
        shown["ttl"] = ttl
    return reply(shown)


@router.patch("/{thread_id}", summary="Merge metadata; set the time to live")
async def patch(
    thread_id: str, body: PatchBody, caller: Asking, context: Using, prefer: Annotated[str, Header()] = ""
) -> Response:
    ttl: Any = body.ttl.chosen() or KEEP if body.ttl else None if "ttl" in body.model_fields_set else KEEP
    with thread_named(thread_id):
        changed = await context.threads.change(thread_uuid(thread_id), caller, metadata=body.metadata, ttl=ttl)
    if "return=minimal" in prefer:
        return Response(status_code=204)
    return reply(await _whole(context, changed, caller))


@router.delete("/{thread_id}", status_code=204, summary="Delete every trace of the thread; what runs on it stops")
async def delete(thread_id: str, caller: Asking, context: Using) -> Response:
    with thread_named(thread_id):
        await context.runs.delete_thread(thread_uuid(thread_id), caller)
    return Response(status_code=204)


@router.post("/{thread_id}/copy", summary="A new thread with the same state, past and conversation")
async def copy(thread: ThreadToRead, caller: Asking, context: Using) -> Response:
    return reply(await _whole(context, await context.states.copy(thread, caller), caller))


@router.get("/{thread_id}/state", summary="The newest state")
async def state(
    thread: ThreadToRead, caller: Asking, context: Using, subgraphs: Subgraphs = False, select: Select = None
) -> Response:
    return await _state(context, thread, caller, subgraphs=subgraphs, select=select)


@router.post("/{thread_id}/state", summary="Write to the state, as if a node had")
async def update_state(thread: ThreadToUpdate, body: StateBody, caller: Asking, context: Using) -> Response:
    place = _place(body.checkpoint)
    if body.checkpoint_id is not None:
        place["checkpoint_id"] = body.checkpoint_id
    config = await context.states.update(thread, caller, Update(body.values, body.as_node), place)
    made = place_json(config)
    return reply({"checkpoint": made, "configurable": made, "checkpoint_id": made["checkpoint_id"]})


@router.post("/{thread_id}/state/checkpoint", summary="The state at a checkpoint, also of a subgraph")
async def state_at(thread: ThreadToRead, body: AtBody, caller: Asking, context: Using) -> Response:
    place = _place(body.checkpoint)
    return await _state(context, thread, caller, place, subgraphs=body.subgraphs, select=body.select)


@router.get("/{thread_id}/state/{checkpoint_id}", summary="The state at a checkpoint")
async def state_at_id(
    thread: ThreadToRead,
    checkpoint_id: str,
    caller: Asking,
    context: Using,
    subgraphs: Subgraphs = False,
    select: Select = None,
) -> Response:
    return await _state(context, thread, caller, {"checkpoint_id": checkpoint_id}, subgraphs=subgraphs, select=select)


@router.get("/{thread_id}/history", summary="States, newest first")
async def history(
    thread: ThreadToRead,
    caller: Asking,
    context: Using,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1,
    before: Annotated[str | None, Query(description="A checkpoint_id: the states before it.")] = None,
) -> Response:
    return await _history(context, thread, caller, HistoryBody(limit=limit, before=before))


@router.post("/{thread_id}/history", summary="States, newest first, by metadata or of a subgraph")
async def search_history(thread: ThreadToRead, body: HistoryBody, caller: Asking, context: Using) -> Response:
    return await _history(context, thread, caller, body)


async def _whole(context: Context, thread: Thread, caller: Caller) -> dict[str, Any]:
    return thread_json(thread, (await context.states.values([thread], caller)).get(thread.thread_id))


async def _state(
    context: Context,
    thread: Thread,
    caller: Caller,
    checkpoint: Mapping[str, Any] | None = None,
    *,
    subgraphs: bool,
    select: Sequence[str] | None,
) -> Response:
    snapshot = await context.states.get(thread, caller, checkpoint, subgraphs=subgraphs)
    return reply(selected(state_json(thread, snapshot, checkpoint), select))


async def _history(context: Context, thread: Thread, caller: Caller, body: HistoryBody) -> Response:
    before = body.before
    if isinstance(before, BeforeBody):
        before = (before.configurable or before).checkpoint_id
    snapshots = await context.states.history(
        thread, caller, limit=body.limit, before=before, metadata=body.metadata, checkpoint=_place(body.checkpoint)
    )
    return reply([selected(state_json(thread, snapshot), body.select) for snapshot in snapshots])


def _item(thread: Thread, values: Any, body: SearchBody) -> dict[str, Any]:
    shown = thread_json(thread, values)
    item = selected(shown, body.select)
    if body.extract:
        item["extracted"] = {alias: at(shown, path) for alias, path in body.extract.items()}
    return item


def _check_extract(extract: Mapping[str, str]) -> None:
    roots = get_args(Extracted)
    for alias, path in extract.items():
        if not (alias.isascii() and alias.replace("_", "a").isalnum()):
            raise Invalid(f"Extract key '{alias}' must be a valid identifier (letters, digits, underscores)")
        if _root(path) not in roots:
            raise Invalid(f"Extract path '{path}' must start with one of: {', '.join(roots)}")


def _place(body: CheckpointBody | None) -> dict[str, Any]:
    return body.model_dump(exclude_none=True, include=set(CheckpointBody.model_fields)) if body else {}


def _update(body: UpdateBody) -> Update:
    return Update(command(body.command) if body.command is not None else body.values, body.as_node)


def _ids(thread_ids: list[str]) -> list[str]:
    for thread_id in thread_ids:
        try:
            as_uuid(thread_id, "thread")
        except Invalid:
            raise HTTPException(400, f"Invalid thread ID {thread_id}") from None
    return [as_uuid(thread_id, "thread") for thread_id in thread_ids]


def _root(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]
