"""Runs: create, stream, wait for, list, join, cancel and delete them, on threads and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, Field

from api.context import Asking, Context, Using
from api.server.lookup import ThreadToRead, thread_named, thread_uuid
from api.server.route import ServerRoute, reply
from api.server.streams import FROM_START, UNKNOWN, nothing, places, respond, stream_of, whole
from api.wire import langgraph
from threadline.domain.errors import Conflict, Invalid, Missing
from threadline.domain.records import ENDED, Caller, Run, RunStatus
from threadline.services.calls import Mode, RunBody, missing
from threadline.services.shapes import RUN_FIELDS, run_json

router = APIRouter(tags=["runs"], route_class=ServerRoute)

STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
Action = Literal["interrupt", "rollback"]
LastEventId = Annotated[str | None, Header()]
JoinModes = Annotated[
    list[Mode] | None,
    BeforeValidator(lambda given: [mode for mode in given or () if mode]),  # the Python client sends an empty one
    Query(description="Which of the run's modes to show; unset: all of them."),
]
Leaves = Annotated[bool, Query(description="A reader that leaves stops the run.")]


async def _start(
    body: RunBody,
    caller: Caller,
    context: Context,
    thread_id: str | None,
    *,
    shown: bool = False,
    whole: bool = False,
) -> Run:
    """`shown`: the caller reads what comes of it, its frames or, `whole`, the state at the end."""
    try:
        request = await context.calls.request(body, caller=caller, thread_id=thread_id, shown=shown, whole=whole)
        return await context.runs.start(request)
    except Missing as error:
        raise missing(error) from None


@contextmanager
def _named(thread_id: str | None) -> Iterator[None]:
    """Says in the words clients know what is missing, or no id, of a run on a thread."""
    if thread_id is not None:
        thread_uuid(thread_id)
    try:
        with thread_named(thread_id or ""):
            yield
    except Invalid as error:
        raise Invalid("Invalid run ID: must be a UUID") if error.message.startswith("The run id") else error from None
    except Missing as error:
        raise Missing("Not Found") if error.message.startswith("There is no run") else error from None


async def _run(
    thread_id: str | None,
    run_id: str,
    caller: Caller,
    context: Context,
    action: Literal["read", "delete"] = "read",
) -> Run:
    """The run, of the thread if one is named, if the caller may do this with it. Raises Invalid, Missing or
    Forbidden."""
    with _named(thread_id):
        return await context.runs.check(run_id, caller, action, thread_id=thread_id)


@router.post("/threads/{thread_id}/runs/stream", summary="Run and read the frames", responses=STREAM)
async def stream(thread_id: str, body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, thread_id, shown=True)
    return stream_of(context, run, headers=places(run, "stream"), cancels=body.on_disconnect == "cancel")


@router.post("/threads/{thread_id}/runs/wait", summary="Run and read the state at the end")
async def wait(thread_id: str, body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, thread_id, shown=True, whole=True)
    return whole(context, run, headers=places(run, "join"), cancels=body.on_disconnect == "cancel")


@router.post("/threads/{thread_id}/runs", summary="Run in the background")
async def create(thread_id: str, body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, thread_id)
    return reply(run_json(run), headers=places(run, ""))


@router.post("/runs/stream", summary="Run without a thread and read the frames", responses=STREAM)
async def stream_stateless(body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, None, shown=True)
    headers = places(run, "stream", thread=False)
    return stream_of(context, run, headers=headers, cancels=body.on_disconnect == "cancel")


@router.post("/runs/wait", summary="Run without a thread and read the state at the end")
async def wait_stateless(body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, None, shown=True, whole=True)
    return whole(context, run, headers=places(run, "join"), cancels=body.on_disconnect == "cancel")


@router.post("/runs/batch", summary="Run many in the background, each without a thread")
async def batch(
    bodies: Annotated[list[RunBody], Body(min_length=1, max_length=1000)], caller: Asking, context: Using
) -> Response:
    requests = [await context.calls.request(body, caller=caller, thread_id=None) for body in bodies]
    return reply([run_json(run) for run in await context.runs.start_all(requests)])


class CancelBody(BaseModel):
    thread_id: str | None = None
    run_ids: list[str] | None = Field(None, max_length=1000)
    status: Literal["pending", "running", "all"] | None = None


@router.post("/runs/cancel", status_code=204, summary="Stop many runs")
async def cancel_many(
    body: CancelBody, caller: Asking, context: Using, action: Annotated[Action, Query()] = "interrupt"
) -> Response:
    for run in await _meant(body, caller, context, action):
        await context.runs.cancel(run, action)
    return Response(status_code=204)


async def _meant(body: CancelBody, caller: Caller, context: Context, action: Action) -> list[Run]:
    """The runs a body means, those that have not ended. Raises Invalid, Forbidden, or Missing if there are none."""
    if body.status is not None:
        if body.run_ids is not None or body.thread_id is not None:
            raise Invalid("Give either status, or thread_id and run_ids")
        found = await context.runs.to_cancel_all(body.status, caller, action)
    else:
        if body.run_ids is None or body.thread_id is None:
            raise Invalid("Give either status, or thread_id and run_ids")
        with _named(body.thread_id):
            found = await context.runs.to_cancel_on(body.thread_id, body.run_ids, caller, action)
    unended = [run for run in found if run.status not in ENDED]
    if not unended:
        raise Missing("No runs found to cancel.")
    return unended


@router.post("/runs", summary="Run in the background, without a thread")
async def create_stateless(body: RunBody, caller: Asking, context: Using) -> Response:
    run = await _start(body, caller, context, None)
    return reply(run_json(run), headers=places(run, "", thread=False))


@router.get("/runs/{run_id}/stream", summary="Read a run's frames", responses=STREAM)
async def join_stream_stateless(
    run_id: str,
    caller: Asking,
    context: Using,
    stream_mode: JoinModes = None,
    cancel_on_disconnect: Leaves = False,
    last_event_id: LastEventId = None,
) -> Response:
    return await _join_stream(
        None, run_id, caller, context, modes=stream_mode, cancels=cancel_on_disconnect, last=last_event_id
    )


@router.get("/threads/{thread_id}/runs", summary="The thread's runs, newest first")
async def listed(
    thread: ThreadToRead,
    caller: Asking,
    context: Using,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    status: RunStatus | None = None,
    select: Annotated[list[str] | None, Query(description="Fields to show.")] = None,
) -> Response:
    found = await context.runs.of_thread(thread, caller, status=status, limit=limit, offset=offset)
    shown = [run_json(run) for run in found]
    if select:
        unknown = set(select) - RUN_FIELDS
        if unknown:
            raise Invalid(f"Invalid select fields: {', '.join(sorted(unknown))}")
        shown = [{key: value for key, value in run.items() if key in select} for run in shown]
    return reply(shown)


@router.get("/threads/{thread_id}/runs/{run_id}", summary="A run")
async def get(thread_id: str, run_id: str, caller: Asking, context: Using) -> Response:
    return reply(run_json(await _run(thread_id, run_id, caller, context)))


@router.get("/threads/{thread_id}/runs/{run_id}/stream", summary="Join a run's stream", responses=STREAM)
async def join_stream(
    thread_id: str,
    run_id: str,
    caller: Asking,
    context: Using,
    stream_mode: JoinModes = None,
    cancel_on_disconnect: Leaves = False,
    last_event_id: LastEventId = None,
) -> Response:
    return await _join_stream(
        thread_id, run_id, caller, context, modes=stream_mode, cancels=cancel_on_disconnect, last=last_event_id
    )


async def _join_stream(
    thread_id: str | None,
    run_id: str,
    caller: Caller,
    context: Context,
    *,
    modes: list[Mode] | None,
    cancels: bool,
    last: str | None,
) -> Response:
    """From the start or after an event where the client says which it saw last; else what comes from now on."""
    path = f"/threads/{thread_id}/runs/{run_id}" if thread_id else f"/runs/{run_id}"
    headers = {"Content-Location": path, "Location": f"{path}/stream"}
    try:
        run = await _run(thread_id, run_id, caller, context)
        if cancels:  # by leaving
            await _to_cancel(run, caller, context)
    except Missing:
        return respond(context, nothing(langgraph.error_frame(UNKNOWN)), headers=headers)
    after = _position(last)
    if after is None:
        if run.status in ENDED:
            return respond(context, nothing(), headers=headers)
        after = (context.runs.position(run), 99)
    return stream_of(
        context,
        run,
        headers=headers,
        modes=modes,
        after=after,
        ids=run.kwargs.get("resumable", False) or last is not None,
        cancels=cancels,
    )


async def _to_cancel(run: Run, caller: Caller, context: Context) -> None:
    """Raises Missing or Forbidden where the caller may not cancel the run."""
    await context.runs.to_cancel_on(run.thread_id, [run.run_id], caller, "interrupt")


def _position(last_event_id: str | None) -> tuple[int, int] | None:
    """What `Last-Event-ID` says; None if it says nothing. Raises Invalid."""
    if last_event_id is None:
        return None
    if last_event_id in ("-1", "0", ""):
        return FROM_START
    event, _, slot = last_event_id.partition("-")
    numbers = [part for part in (event, slot or "0") if part.isascii() and part.isdigit() and len(part) < 16]
    if len(numbers) < 2:
        raise Invalid("Last-Event-ID must be the id of an event of this run.")
    return int(numbers[0]), int(numbers[1])


@router.get("/threads/{thread_id}/runs/{run_id}/join", summary="Wait for a run's end and read the state")
async def join(
    thread_id: str, run_id: str, caller: Asking, context: Using, cancel_on_disconnect: Leaves = False
) -> Response:
    path = f"/threads/{thread_id}/runs/{run_id}"
    headers = {"Content-Location": path, "Location": f"{path}/join"}
    try:
        run = await _run(thread_id, run_id, caller, context)
        if cancel_on_disconnect:
            await _to_cancel(run, caller, context)
    except Missing:
        return reply({"__error__": UNKNOWN}, headers=headers)
    return whole(context, run, headers=headers, cancels=cancel_on_disconnect)


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", summary="Stop a run")
async def cancel(
    thread_id: str,
    run_id: str,
    caller: Asking,
    context: Using,
    wait: Annotated[bool, Query(description="Answer when it has stopped.")] = False,
    action: Annotated[Action, Query(description="rollback also undoes what it did.")] = "interrupt",
) -> Response:
    with _named(thread_id):
        [run] = await context.runs.to_cancel_on(thread_id, [run_id], caller, action)
    try:
        await context.runs.cancel(run, action)
    except Conflict:
        raise Missing("No runs found to cancel.") from None
    if not wait:
        return Response(status_code=202)
    await context.runs.ended(run)
    return reply({}, headers=places(run, "join"))


@router.delete("/threads/{thread_id}/runs/{run_id}", status_code=204, summary="Delete a run that has ended")
async def delete(thread_id: str, run_id: str, caller: Asking, context: Using) -> Response:
    await context.runs.delete(await _run(thread_id, run_id, caller, context, "delete"))
    return Response(status_code=204)
