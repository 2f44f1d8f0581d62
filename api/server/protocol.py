"""A thread as one stream: Protocol v2's commands and events, and the thread stream of the older clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.exceptions import HTTPException

from api.context import Asking, Context, Using
from api.problems import reason
from api.server.lookup import ThreadInPath, thread_of, thread_uuid
from api.server.route import ServerRoute, described, reply
from api.server.streams import reader, respond
from api.streams import written
from api.wire import langgraph, protocol
from threadline.domain.errors import Conflict, Invalid, Limited, Missing, ThreadlineError
from threadline.domain.records import ENDED, Caller, Run, Thread
from threadline.services.bodies import Json
from threadline.services.calls import RunBody, SendBody, missing

router = APIRouter(tags=["thread streams"], route_class=ServerRoute)

MAX_SINCE = 2**53 - 1
RESPOND_SECONDS = 10
"""How long an answer may wait for the run that asked to come to its end."""


# Commands


class RespondEntry(BaseModel):
    interrupt_id: str = Field(min_length=1, max_length=1000)
    response: Json = None


class RespondBody(BaseModel):
    """The answer to one interrupt, or to several at once."""

    interrupt_id: str | None = Field(None, min_length=1, max_length=1000)
    response: Json = None
    responses: list[RespondEntry] = Field(default_factory=list, max_length=1000)
    update: dict[str, Json] | None = None
    goto: str | SendBody | list[str | SendBody] | None = None
    config: dict[str, Json] | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)

    def resume(self) -> dict[str, Any]:
        one = {self.interrupt_id: self.response} if self.interrupt_id is not None else {}
        return {**{entry.interrupt_id: entry.response for entry in self.responses}, **one}


class Refused(Exception):
    """A command that cannot be done, with the protocol's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CommandBody(BaseModel):
    """A command's envelope; `params` are those of the method: of a run, or an answer."""

    id: int
    method: Literal["run.start", "input.respond"]
    params: dict[str, Json] = Field(default_factory=dict)


@router.post(
    "/threads/{thread_id}/commands",
    summary="Start a run, or answer what one asks (Protocol v2)",
    openapi_extra=described(CommandBody),
)
async def command(thread_id: str, request: Request, caller: Asking, context: Using) -> Response:
    thread_uuid(thread_id)
    body = await _json(request)
    id, method = (body.get("id"), body.get("method")) if isinstance(body, dict) else (None, None)
    if not isinstance(id, int) or isinstance(id, bool) or not isinstance(method, str):
        words = "Protocol commands must include an integer id and string method."
        told = id if isinstance(id, int) and not isinstance(id, bool) else None
        return JSONResponse({"type": "error", "id": told, "error": "invalid_argument", "message": words}, 400)
    params = body.get("params") or {}
    try:
        result = await _obey(method, params if isinstance(params, dict) else {}, thread_id, caller, context)
    except Refused as refused:
        return reply({"type": "error", "id": id, "error": refused.code, "message": refused.message})
    return reply({"type": "success", "id": id, "result": result, "meta": {"applied_through_seq": 0}})


async def _obey(
    method: str, params: dict[str, Any], thread_id: str, caller: Caller, context: Context
) -> dict[str, Any]:
    if method == "run.start":
        if not params.get("assistant_id"):
            raise Refused("invalid_argument", "run.start requires an assistant_id.")
        run = await _start({**params, "if_not_exists": "create"}, thread_id, caller, context)
        return {"run_id": run.run_id}
    if method == "input.respond":
        await _respond(params, thread_id, caller, context)
        return {}
    raise Refused("unknown_command", f"Unknown protocol command: {method}")


async def _start(params: dict[str, Any], thread_id: str, caller: Caller, context: Context) -> Run:
    streamed = {"stream_mode": protocol.MODES, "stream_subgraphs": True, "stream_resumable": True}
    try:
        body = RunBody.model_validate({**params, **streamed})
        request = await context.calls.request(body, caller=caller, thread_id=thread_id)
        return await context.runs.start(request)
    except ValidationError as error:
        words = "; ".join(reason(dict(item)) for item in error.errors())
        raise Refused("invalid_argument", words) from None
    except Missing as error:
        raise Refused("invalid_argument", missing(error).message) from None
    except (Conflict, Invalid) as error:
        raise Refused("invalid_argument", error.message) from None
    except Limited:
        raise
    except ThreadlineError as error:
        raise Refused("unknown_error", error.message) from None


async def _respond(params: dict[str, Any], thread_id: str, caller: Caller, context: Context) -> None:
    try:
        body = RespondBody.model_validate(params)
    except ValidationError as error:
        raise Refused("invalid_argument", "; ".join(reason(dict(item)) for item in error.errors())) from None
    resume = body.resume()
    if not resume:
        raise Refused("invalid_argument", "input.respond requires an interrupt_id.")
    try:
        thread = await thread_of(thread_id, caller, context)
        if thread.status == "busy" and resume.keys() - _asked(thread):
            await _stopped(thread, context)
            thread = await thread_of(thread_id, caller, context)
    except ThreadlineError as error:
        raise Refused("no_such_interrupt", error.message) from None
    unknown = resume.keys() - _asked(thread)
    if unknown:
        raise Refused("no_such_interrupt", f"The thread does not wait for {', '.join(sorted(unknown))}.")
    answer = {"resume": resume, "update": body.update, "goto": body.goto}
    call = {
        "assistant_id": thread.metadata.get("assistant_id") or thread.metadata.get("graph_id"),
        "command": {key: value for key, value in answer.items() if value is not None},
        "config": body.config or {},
        "metadata": body.metadata,
    }
    await _start(call, thread_id, caller, context)


def _asked(thread: Thread) -> set[str]:
    return {interrupt["id"] for asked in thread.interrupts.values() for interrupt in asked}


async def _stopped(thread: Thread, context: Context) -> None:
    """Wait, not for long, for the run that goes on: it tells what it asks before it has ended."""
    run = await context.runs.newest(thread)
    if run is None or run.status in ENDED:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(RESPOND_SECONDS):
            await context.runs.ended(run)


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError):
        return None


# Events


class EventsBody(BaseModel):
    channels: list[str] = Field(max_length=100)
    namespaces: list[list[str]] = Field(default_factory=list, max_length=100)
    depth: int | None = Field(None, ge=0, le=1000)
    since: int = Field(0, ge=0, le=MAX_SINCE)


@router.post(
    "/threads/{thread_id}/stream/events",
    summary="Follow a thread's events, those of all its runs, for as long as the client stays (Protocol v2)",
    responses={200: {"content": {"text/event-stream": {}}}},
    openapi_extra=described(EventsBody),
)
async def events(
    thread_id: str,
    request: Request,
    caller: Asking,
    context: Using,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    thread_id = thread_uuid(thread_id)
    subscription = _subscription(await _json(request), last_event_id)
    try:
        await context.threads.check(thread_id, caller)
    except Missing:
        if await context.threads.exists(thread_id):
            raise Missing(f"Thread with ID {thread_id} not found") from None
    return respond(context, _events(context, thread_id, caller, subscription), headers={})


def _subscription(given: Any, last_event_id: str | None) -> protocol.Subscription:
    """Raises HTTPException 400, as the protocol has it, or Invalid."""
    channels = given.get("channels") if isinstance(given, dict) else None
    if not isinstance(channels, list) or not channels:
        raise HTTPException(400, "channels is required and must be a non-empty array")
    unknown = [str(name) for name in channels if not _is_channel(name)]
    if unknown:
        allowed = f"Allowed: {', '.join(protocol.CHANNELS)}, or any `custom:<name>`."
        raise HTTPException(400, f"channels contains unsupported entries: {', '.join(unknown)[:200]}. {allowed}")
    try:
        body = EventsBody.model_validate(given)
    except ValidationError as error:
        raise HTTPException(400, "; ".join(reason(dict(item)) for item in error.errors())) from None
    since = body.since
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 17:
        since = max(since, int(last_event_id))
    return protocol.Subscription(
        frozenset(body.channels), tuple(tuple(place) for place in body.namespaces), body.depth, since
    )


def _is_channel(name: Any) -> bool:
    return isinstance(name, str) and (name in protocol.CHANNELS or (name.startswith("custom:") and len(name) > 7))


async def _events(
    context: Context, thread_id: str, caller: Caller, subscription: protocol.Subscription
) -> AsyncGenerator[bytes]:
    after = max(0, protocol.position_of(subscription.since) - 1)
    async with aclosing(context.runs.on_thread(thread_id, after=after)) as runs:
        async for run in runs:
            await context.threads.check(thread_id, caller)  # the thread may be somebody else's who made it meanwhile
            encoder = protocol.Encoder(
                subscription,
                run_id=run.run_id,
                graph_id=run.graph_id,
                position=run.position,
                asked=run.kwargs.get("stream_mode") or (),
                state=reader(context, run),
            )
            async with aclosing(context.runs.portions(run)) as portions:
                async for portion in portions:
                    async for encoded in written(portion, encoder.encode):
                        yield encoded


# The thread stream of v1

ThreadMode = Literal["run_modes", "lifecycle", "state_update"]
Shown = Annotated[
    list[ThreadMode] | None,
    BeforeValidator(lambda given: [mode for mode in given or () if mode]),
    Query(alias="stream_mode", description="All frames of the runs, or only how each begins and ends."),
]


@router.get(
    "/threads/{thread_id}/stream",
    summary="Follow the frames of all of a thread's runs, for as long as the client stays",
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def follow(
    thread: ThreadInPath,
    context: Using,
    stream_mode: Shown = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    after = _place(last_event_id)
    if after is None:
        begun = await context.runs.newest(thread)
        after = (0, 0, -1)
        if begun is not None:  # one that has begun may have written nothing yet
            after = (begun.position, MAX_SINCE if begun.status in ENDED else context.runs.position(begun), 99)
    whole = not stream_mode or "run_modes" in stream_mode
    return respond(context, _frames(context, thread, after, whole=whole), headers={})


async def _frames(
    context: Context, thread: Thread, after: tuple[int, int, int], *, whole: bool
) -> AsyncGenerator[bytes]:
    async with aclosing(context.runs.on_thread(thread.thread_id, after=after[0] - 1)) as runs:
        async for run in runs:
            asked = run.kwargs.get("stream_mode") or ()
            encoder = langgraph.Encoder(
                modes=(asked or ("values",)) if whole else (),
                asked=asked,
                state=reader(context, run),
                thread_id=run.thread_id,
                subgraphs=run.kwargs.get("subgraphs", False),
                ids=True,
                prefix=f"{run.position}-",
                after=after[1:] if run.position == after[0] else (0, -1),
            )
            last = 0
            async with aclosing(context.runs.portions(run)) as portions:
                async for portion in portions:
                    last = portion[-1].id
                    async for encoded in written(portion, encoder.encode):
                        yield encoded
            if (run.position, last, 100) > after:
                done = orjson.dumps({"status": "run_done", "run_id": run.run_id})
                yield b"event: metadata\r\ndata: %s\r\nid: %d-%d-100\r\n\r\n" % (done, run.position, last)


def _place(last_event_id: str | None) -> tuple[int, int, int] | None:
    """What `Last-Event-ID` says; None if it says nothing. Raises Invalid."""
    if not last_event_id:
        return None
    if last_event_id in ("-1", "0"):
        return (0, 0, -1)
    parts = last_event_id.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
        raise Invalid("Last-Event-ID must be the id of an event of this thread.")
    position, event, slot = (int(part) for part in parts)
    return position, event, slot
