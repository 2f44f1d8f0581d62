"""Crons of the LangGraph Server API: made, searched, changed and deleted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field

from api.context import Asking, Context, Using
from api.server.lookup import thread_of, thread_uuid
from api.server.route import ServerRoute, page, reply
from threadline.domain.errors import Invalid, Missing
from threadline.domain.records import Caller, Cron, CronOrder, CronQuery, MultitaskStrategy, Thread
from threadline.services.bodies import Document, Json
from threadline.services.calls import ConfigBody, Modes, Nodes
from threadline.services.crons import NewCron

router = APIRouter(tags=["crons"], route_class=ServerRoute)

MOST = 2**63 - 1
CronField = Literal[
    "cron_id",
    "assistant_id",
    "thread_id",
    "user_id",
    "end_time",
    "schedule",
    "timezone",
    "payload",
    "next_run_date",
    "metadata",
    "on_run_completed",
    "enabled",
    "created_at",
    "updated_at",
]
FIELDS: tuple[CronField, ...] = get_args(CronField)
CronSort = Literal["cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"]
ORDERS: dict[CronSort, CronOrder] = {
    "cron_id": "cron_id",
    "assistant_id": "assistant_id",
    "thread_id": "thread_id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "next_run_date": "next_run_at",
    "end_time": "end_time",
}


def _utc(time: datetime) -> datetime:
    """A time without a zone is UTC."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


Time = Annotated[datetime, AfterValidator(_utc)]
Schedule = Annotated[str, Field(max_length=200, description="Five fields, or a name such as `@daily`.")]
Timezone = Annotated[str, Field(max_length=100, description="Such as `Asia/Seoul`; UTC if left out.")]


class CronFields(BaseModel):
    """What a cron's runs are created with. Fields this service knows nothing of are passed over."""

    input: Json = None
    config: ConfigBody | None = None
    context: Document | None = None
    metadata: Document | None = None
    webhook: str | None = Field(None, max_length=2000)
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    multitask_strategy: MultitaskStrategy | None = None
    stream_mode: Modes | None = None
    stream_subgraphs: bool | None = None
    stream_resumable: bool | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: bool | None = None
    timezone: Timezone | None = None
    end_time: Time | None = Field(None, description="From then on it runs no more.")
    enabled: bool | None = None
    on_run_completed: Literal["delete", "keep"] | None = Field(None, description="Of a cron without a thread.")


class CreateBody(CronFields):
    assistant_id: str = Field(description="An assistant's UUID, or the name of a graph.")
    schedule: Schedule


class PatchBody(CronFields):
    schedule: Schedule | None = None


class CountBody(BaseModel):
    assistant_id: str | None = Field(None, description="An assistant's UUID, or the name of a graph.")
    thread_id: str | None = None
    metadata: Document | None = None
    enabled: bool | None = None


class SearchBody(CountBody):
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=MOST)
    sort_by: CronSort | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: list[CronField | Literal["now"]] | None = Field(None, description="The fields of the answer.")


@router.post("/runs/crons", summary="Run by the clock, each time on a thread of its own", response_class=Response)
async def create(body: CreateBody, caller: Asking, context: Using) -> Response:
    return await _create(body, caller, context, None)


@router.post("/threads/{thread_id}/runs/crons", summary="Run by the clock on a thread", response_class=Response)
async def create_for_thread(thread_id: str, body: CreateBody, caller: Asking, context: Using) -> Response:
    try:
        thread = await thread_of(thread_id, caller, context, "read")
    except Missing:
        raise Missing(
            f"Thread with ID '{thread_id}' not found. Please verify the ID is correct and the thread hasn't been "
            "deleted or expired."
        ) from None
    return await _create(body, caller, context, thread)


async def _create(body: CreateBody, caller: Caller, context: Context, thread: Thread | None) -> Response:
    new = NewCron(
        body.assistant_id,
        body.schedule,
        _payload(body),
        timezone=body.timezone,
        end_time=body.end_time,
        enabled=body.enabled is not False,
        on_run_completed=body.on_run_completed or "delete",
    )
    return reply(_shown(await context.crons.create(new, caller, thread=thread)))


@router.post("/runs/crons/search", summary="Crons, the newest first", response_class=Response)
async def search(body: SearchBody, caller: Asking, context: Using) -> Response:
    query = _query(
        body,
        context,
        sort_by=ORDERS[body.sort_by or "created_at"],
        descending=body.sort_order != "asc",
        limit=body.limit,
        offset=body.offset,
    )
    found, total, query = await context.crons.search(query, caller)
    return page([_shown(cron, body.select or FIELDS) for cron in found], total=total, offset=query.offset)


@router.post("/runs/crons/count", summary="How many crons there are", response_class=Response)
async def count(body: CountBody, caller: Asking, context: Using) -> Response:
    return reply((await context.crons.search(_query(body, context, limit=0), caller))[1])


@router.get("/runs/crons/{cron_id}", summary="A cron", response_class=Response)
async def get(cron_id: str, caller: Asking, context: Using) -> Response:
    return reply(_shown(await context.crons.get(cron_id, caller)))


@router.patch("/runs/crons/{cron_id}", summary="Change a cron", response_class=Response)
async def patch(cron_id: str, body: PatchBody, caller: Asking, context: Using) -> Response:
    """What is left out stays. `null` takes the end time or the time zone away; metadata is merged."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    for name in ("schedule", "enabled", "on_run_completed"):  # there is no cron without
        if name in changes and changes[name] is None:
            raise Invalid(f"{name}: must not be null")
    return reply(_shown(await context.crons.change(cron_id, changes, _payload(body), caller)))


@router.delete("/runs/crons/{cron_id}", status_code=204, summary="Delete a cron", response_class=Response)
async def delete(cron_id: str, caller: Asking, context: Using) -> Response:
    await context.crons.delete(cron_id, caller)
    return Response(status_code=204)


def _payload(body: CronFields) -> dict[str, Any]:
    """The body as it was sent."""
    return body.model_dump(mode="json", exclude_unset=True)


def _query(body: CountBody, context: Context, **page: Any) -> CronQuery:
    thread_id = body.thread_id
    if thread_id is not None:
        thread_id = thread_uuid(thread_id)
    assistant_id = body.assistant_id
    return CronQuery(
        assistant_id=context.crons.assistant_id(assistant_id) if assistant_id is not None else None,
        thread_id=thread_id,
        enabled=body.enabled,
        metadata=body.metadata or {},
        **page,
    )


def _shown(cron: Cron, fields: Collection[str] = FIELDS) -> dict[str, Any]:
    shown = {
        "cron_id": cron.cron_id,
        "assistant_id": cron.assistant_id,
        "thread_id": cron.thread_id,
        "user_id": cron.owner,
        "end_time": cron.end_time,
        "schedule": cron.schedule,
        "timezone": cron.timezone,
        "payload": cron.payload,
        "next_run_date": cron.next_run_at,
        "metadata": cron.metadata,
        "on_run_completed": cron.on_run_completed if cron.thread_id is None else None,
        "enabled": cron.enabled,
        "created_at": cron.created_at,
        "updated_at": cron.updated_at,
        "now": datetime.now(UTC),
    }
    return {name: value for name, value in shown.items() if name in fields}
