"""Assistants of the LangGraph Server API: made, searched, versioned; their graphs drawn and described."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from api.context import Asking, Using
from api.server.route import ServerRoute, page, reply
from threadline.domain.errors import Invalid, Missing
from threadline.domain.records import Assistant, AssistantOrder, AssistantQuery, AssistantVersion, Thread
from threadline.services import outline
from threadline.services.assistants import AssistantChange, NewAssistant
from threadline.services.bodies import Document

router = APIRouter(prefix="/assistants", route_class=ServerRoute, tags=["assistants"])

MOST = 2**63 - 1
Id = Annotated[str, Path(description="The assistant's id, a UUID.")]
IdOrGraph = Annotated[str, Path(description="The assistant's id, a UUID, or the name of a graph.")]
AssistantField = Literal[
    "assistant_id",
    "graph_id",
    "config",
    "context",
    "metadata",
    "name",
    "created_at",
    "updated_at",
    "version",
    "description",
]
FIELDS: tuple[AssistantField, ...] = get_args(AssistantField)


class Body(BaseModel):
    """A body of JSON types as they are: "3" is no number. Fields it does not know are ignored."""

    model_config = ConfigDict(strict=True)


class AssistantConfig(Body):
    """A config, of which LangGraph knows these fields and a project may know more."""

    model_config = ConfigDict(extra="allow")

    tags: list[str] | None = None
    recursion_limit: int | None = None
    configurable: Document | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were named."""
        return self.model_dump(exclude_none=True)


class CreateBody(Body):
    graph_id: str
    assistant_id: str | None = Field(None, description="A UUID of your own.")
    name: str | None = None
    description: str | None = None
    config: AssistantConfig | None = None
    context: Document | None = None
    metadata: Document | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None


class PatchBody(Body):
    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: AssistantConfig | None = None
    context: Document | None = None
    metadata: Document | None = Field(None, description="Merged into the present metadata.")


class CountBody(Body):
    metadata: Document | None = None
    graph_id: str | None = None
    name: str | None = Field(None, description="Any part of the name, in any case.")


class SearchBody(CountBody):
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=MOST)
    sort_by: AssistantOrder | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[AssistantField] | None = Field(None, description="The fields of the answer; all if empty.")


class VersionsBody(Body):
    metadata: Document | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=MOST)


class LatestBody(Body):
    version: int = Field(ge=-MOST, le=MOST)


@router.post("", summary="Make an assistant of a graph", response_class=Response)
async def create(body: CreateBody, caller: Asking, context: Using) -> Response:
    new = NewAssistant(
        body.graph_id,
        assistant_id=body.assistant_id,
        name=body.name,
        description=body.description,
        config=body.config.given() if body.config else {},
        context=body.context or {},
        metadata=body.metadata or {},
    )
    made = await context.assistants.create(new, caller, do_nothing=body.if_exists == "do_nothing")
    return reply(_shown(made))


@router.post("/search", summary="Assistants, the newest first", response_class=Response)
async def search(body: SearchBody, caller: Asking, context: Using) -> Response:
    query = AssistantQuery(
        context.assistants.graphs,
        metadata=body.metadata or {},
        graph_id=body.graph_id,
        name=body.name,
        sort_by=body.sort_by or "created_at",
        descending=body.sort_order != "asc",
        limit=body.limit,
        offset=body.offset,
    )
    found, total, query = await context.assistants.search(query, caller)
    return page([_shown(one, body.select or FIELDS) for one in found], total=total, offset=query.offset)


@router.post("/count", summary="How many assistants there are", response_class=Response)
async def count(body: CountBody, caller: Asking, context: Using) -> Response:
    query = AssistantQuery(
        context.assistants.graphs, metadata=body.metadata or {}, graph_id=body.graph_id, name=body.name, limit=0
    )
    return reply((await context.assistants.search(query, caller))[1])


@router.get("/{assistant_id}", summary="An assistant", response_class=Response)
async def get(assistant_id: IdOrGraph, caller: Asking, context: Using) -> Response:
    return reply(_shown(await context.assistants.get(assistant_id, caller)))


@router.patch("/{assistant_id}", summary="Make the next version of an assistant", response_class=Response)
async def patch(assistant_id: Id, body: PatchBody, caller: Asking, context: Using) -> Response:
    change = AssistantChange(
        graph_id=body.graph_id,
        name=body.name,
        description=body.description,
        config=body.config.given() if body.config else None,
        context=body.context,
        metadata=body.metadata,
    )
    return reply(_shown(await context.assistants.update(assistant_id, change, caller)))


@router.delete(
    "/{assistant_id}",
    status_code=204,
    summary="Delete an assistant, its versions and its crons",
    response_class=Response,
)
async def delete(
    assistant_id: Id,
    caller: Asking,
    context: Using,
    delete_threads: Annotated[str, Query(description="`true`: the threads it ran on last go too.")] = "",
) -> Response:
    assistant = await context.assistants.deletable(assistant_id, caller)
    threads: list[Thread] = []
    if delete_threads.lower() in ("true", "1"):
        for thread_id in await context.assistants.threads(assistant):
            with suppress(Missing):  # it is somebody else's
                threads.append(await context.threads.check(thread_id, caller, "delete"))
    for thread in threads:
        with suppress(Missing):  # it has gone meanwhile
            await context.runs.remove(thread)
    await context.assistants.delete(assistant)
    return Response(status_code=204)


@router.post("/{assistant_id}/versions", summary="An assistant's versions, the newest first", response_class=Response)
async def versions(assistant_id: IdOrGraph, body: VersionsBody, caller: Asking, context: Using) -> Response:
    kept = await context.assistants.versions(
        assistant_id, caller, metadata=body.metadata or {}, limit=body.limit, offset=body.offset
    )
    return reply([_shown(version) for version in kept])


@router.post("/{assistant_id}/latest", summary="Go back to a version", response_class=Response)
async def latest(assistant_id: Id, body: LatestBody, caller: Asking, context: Using) -> Response:
    return reply(_shown(await context.assistants.set_latest(assistant_id, body.version, caller)))


@router.get("/{assistant_id}/graph", summary="The graph as nodes and edges", response_class=Response)
async def graph(
    assistant_id: IdOrGraph,
    caller: Asking,
    context: Using,
    xray: Annotated[str, Query(description="`true`: draw subgraphs in place; a number: down to that depth.")] = "",
) -> Response:
    depth = _depth(xray)
    async with context.assistants.opened(await context.assistants.get(assistant_id, caller), caller) as opened:
        return reply(await outline.drawing(opened, xray=depth))


@router.get("/{assistant_id}/schemas", summary="The graph's JSON schemas", response_class=Response)
async def schemas(assistant_id: IdOrGraph, caller: Asking, context: Using) -> Response:
    assistant = await context.assistants.get(assistant_id, caller)
    async with context.assistants.opened(assistant, caller) as opened:
        return reply({"graph_id": assistant.graph_id, **await outline.schemas(opened)})


@router.get("/{assistant_id}/subgraphs", summary="The schemas of the graph's subgraphs", response_class=Response)
@router.get(
    "/{assistant_id}/subgraphs/{namespace:path}", summary="The schemas of one subgraph", response_class=Response
)
async def subgraphs(
    assistant_id: IdOrGraph,
    caller: Asking,
    context: Using,
    namespace: str | None = None,
    recurse: Annotated[str, Query(description="`true`: the subgraphs of subgraphs too.")] = "",
) -> Response:
    async with context.assistants.opened(await context.assistants.get(assistant_id, caller), caller) as opened:
        found = await outline.subgraphs(opened, namespace=namespace, recurse=recurse.lower() in ("true", "1"))
    return reply(found)


def _depth(xray: str) -> bool | int:
    """The wire's `xray`. Raises Invalid."""
    if xray.lower() in ("", "true", "false"):
        return xray.lower() == "true"
    if not xray.isascii() or not xray.isdigit() or int(xray[:9]) == 0:
        raise Invalid("Invalid xray value")
    return int(xray[:9])


def _shown(assistant: Assistant | AssistantVersion, fields: Collection[str] = FIELDS) -> dict[str, Any]:
    kept = asdict(assistant)
    return {name: kept[name] for name in FIELDS if name in fields and name in kept}
