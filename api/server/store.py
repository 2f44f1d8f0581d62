"""The store over HTTP: the caller's long-term items.

An auth handler of the project is asked before each of them, with these values: put `namespace, key, value, index, ttl`;
get `namespace, key, refresh_ttl`; delete `namespace, key`; search `namespace, filter, limit, offset, query,
refresh_ttl`; list_namespaces `namespace, suffix, max_depth, limit, offset`. What it makes of them is what is done. A
filter it returns is held against an item's value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response
from langgraph.store.base import NOT_PROVIDED, Item, SearchItem
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.context import Asking, Using
from api.server.route import ServerRoute
from threadline.domain.errors import Forbidden
from threadline.domain.filters import Filter
from threadline.services.permission import matches

router = APIRouter(route_class=ServerRoute, prefix="/store", tags=["store"])

MOST = 10_000
"""Items or namespaces in one answer, whatever is asked for."""
MINUTES = 100 * 366 * 24 * 60

Namespace = list[str]
Minutes = Annotated[float, Field(ge=0, le=MINUTES, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**31)]


class Put(BaseModel):
    namespace: Namespace
    key: str
    value: dict[str, Any]
    index: Literal[False] | list[str] | None = Field(None, description="Which fields are found by meaning.")
    ttl: Minutes | None = Field(None, description="Minutes the item is kept.")


class Delete(BaseModel):
    namespace: Namespace = []
    key: str


class Search(BaseModel):
    namespace_prefix: Namespace = []
    filter: dict[str, Any] | None = None
    limit: Count = 10
    offset: Count = 0
    query: str | None = Field(None, description="What the items should be about, where an embedding is configured.")
    refresh_ttl: bool | None = None


class Namespaces(BaseModel):
    prefix: Namespace | None = None
    suffix: Namespace | None = None
    max_depth: Count | None = None
    limit: Count = 100
    offset: Count = 0


@router.put("/items", status_code=204, summary="Keep an item")
async def put(body: Put, caller: Asking, context: Using) -> Response:
    if refused := _refused(body.namespace):
        return refused
    value: dict[str, Any] = {**body.model_dump(), "namespace": tuple(body.namespace)}
    allowed = await context.permission.allow(caller, "store", "put", value)
    store, namespace = context.stores.of(caller), tuple(value["namespace"])
    if allowed is not None:
        there = await store.aget(namespace, value["key"], refresh_ttl=False)
        if not matches(allowed, value["value"]) or not _may_see(allowed, there):
            raise Forbidden("Forbidden")
    ttl = value["ttl"] if value["ttl"] is not None else NOT_PROVIDED
    try:
        await store.aput(namespace, value["key"], value["value"], value["index"], ttl=ttl)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return Response(status_code=204)


@router.get("/items", summary="An item, or null")
async def get(
    caller: Asking,
    context: Using,
    namespace: Annotated[str, Query(description="Its labels, joined by periods.")] = "",
    key: str | None = None,
    refresh_ttl: bool | None = None,
) -> Any:
    if key is None:
        raise HTTPException(400, "Key is required")
    if refused := _refused(namespace.split(".")):
        return refused
    value: dict[str, Any] = {"namespace": tuple(namespace.split(".")), "key": key, "refresh_ttl": refresh_ttl}
    allowed = await context.permission.allow(caller, "store", "get", value)
    store = context.stores.of(caller)
    try:
        item = await store.aget(tuple(value["namespace"]), value["key"], refresh_ttl=value["refresh_ttl"])
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return _shown(item) if item is not None and _may_see(allowed, item) else None


@router.delete("/items", status_code=204, summary="Delete an item")
async def delete(body: Delete, caller: Asking, context: Using) -> Response:
    if refused := _refused(body.namespace):
        return refused
    value: dict[str, Any] = {"namespace": tuple(body.namespace), "key": body.key}
    allowed = await context.permission.allow(caller, "store", "delete", value)
    store, namespace = context.stores.of(caller), tuple(value["namespace"])
    try:
        there = await store.aget(namespace, value["key"], refresh_ttl=False) if allowed is not None else None
        if _may_see(allowed, there):
            await store.adelete(namespace, value["key"])
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return Response(status_code=204)


@router.post("/items/search", summary="Items by namespace, by their fields and by meaning")
async def search(body: Search, caller: Asking, context: Using) -> Any:
    if refused := _refused(body.namespace_prefix):
        return refused
    value = body.model_dump(exclude={"namespace_prefix"})
    value["namespace"] = tuple(body.namespace_prefix)
    allowed = await context.permission.allow(caller, "store", "search", value)
    filter = value["filter"]
    if allowed is not None:
        filter = {"$and": [filter or {}, dict(allowed)]}
    try:
        items = await context.stores.of(caller).asearch(
            tuple(value["namespace"]),
            query=value["query"],
            filter=filter,
            limit=min(value["limit"], MOST),
            offset=value["offset"],
            refresh_ttl=value["refresh_ttl"],
        )
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return {"items": [{**_shown(item), "score": item.score} for item in items]}


@router.post("/namespaces", summary="The namespaces in use")
async def namespaces(body: Namespaces, caller: Asking, context: Using) -> Any:
    if refused := _refused([*(body.prefix or ()), *(body.suffix or ())]):
        return refused
    value: dict[str, Any] = {
        "namespace": tuple(body.prefix) if body.prefix is not None else None,
        "suffix": tuple(body.suffix) if body.suffix is not None else None,
        "max_depth": body.max_depth,
        "limit": body.limit,
        "offset": body.offset,
    }
    await context.permission.allow(caller, "store", "list_namespaces", value)
    try:
        found = await context.stores.of(caller).alist_namespaces(
            prefix=value["namespace"],
            suffix=value["suffix"],
            max_depth=value["max_depth"],
            limit=min(value["limit"], MOST),
            offset=value["offset"],
        )
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return {"namespaces": [list(namespace) for namespace in found]}


def _refused(labels: Iterable[str]) -> PlainTextResponse | None:
    """The answer to labels that are none, as the reference server words it and in plain text."""
    bad = next((label for label in labels if not label or "." in label), None)
    if bad is None:
        return None
    return PlainTextResponse(f"Namespace label '{bad}' must be a non-empty string without periods", 422)


def _may_see(allowed: Filter | None, item: Item | None) -> bool:
    return item is None or matches(allowed, item.value)


def _shown(item: Item | SearchItem) -> dict[str, Any]:
    return {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
    }
