"""What runs answer with: a stream of frames, or the state at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from functools import partial

import orjson
from fastapi.responses import Response, StreamingResponse

from api import streams
from api.context import Context
from api.wire import langgraph
from threadline.domain.errors import Conflict
from threadline.domain.records import Run
from threadline.services.results import followed

FROM_START = (0, -1)
UNKNOWN = {"error": "HTTPException", "message": "404: Run not found"}


def stream_of(
    context: Context,
    run: Run,
    *,
    headers: dict[str, str],
    modes: Collection[str] | None = None,
    after: tuple[int, int] = FROM_START,
    ids: bool | None = None,
    cancels: bool = False,
) -> Response:
    """The run's frames after `after`, until its end. `cancels`: a reader that leaves stops the run."""
    asked = run.kwargs.get("stream_mode") or ()
    encoder = langgraph.Encoder(
        modes=modes or asked or ("values",),
        asked=asked,
        state=reader(context, run),
        thread_id=run.thread_id,
        subgraphs=run.kwargs.get("subgraphs", False),
        ids=run.kwargs.get("resumable", False) if ids is None else ids,
        after=after,
    )
    return respond(context, _frames(context, run, encoder, cancels=cancels), headers=headers)


def reader(context: Context, run: Run) -> langgraph.ReadState:
    """How an encoder reads the states of a run."""
    return partial(context.snapshots.at, run)


def respond(context: Context, frames: AsyncGenerator[bytes], *, headers: dict[str, str]) -> Response:
    return streams.respond(context, frames, headers=headers, heartbeat="heartbeat", seconds=context.server_heartbeat)


async def nothing(*frames: bytes) -> AsyncGenerator[bytes]:
    """A stream of given frames."""
    for frame in frames:
        yield frame


async def _frames(context: Context, run: Run, encoder: langgraph.Encoder, *, cancels: bool) -> AsyncGenerator[bytes]:
    ended = False
    try:
        async with aclosing(context.runs.portions(run)) as portions:
            async for portion in portions:
                ended = portion[-1].type == "end"
                async for encoded in streams.written(portion, encoder.encode):
                    yield encoded
    finally:
        if cancels and not ended:
            await asyncio.shield(_cancel(context, run))


async def _cancel(context: Context, run: Run) -> None:
    try:
        await context.runs.cancel(run)
    except Conflict:  # it ended meanwhile
        return


def whole(context: Context, run: Run, *, headers: dict[str, str], cancels: bool = False) -> Response:
    """The state at the run's end as JSON; `{"__error__": …}` if it failed. The head is sent at once."""
    return StreamingResponse(_patiently(context, run, cancels=cancels), media_type="application/json", headers=headers)


async def _patiently(context: Context, run: Run, *, cancels: bool) -> AsyncGenerator[bytes]:
    """The answer, and until it is there a line end now and then, which JSON passes over, to keep the line open."""
    answer = asyncio.ensure_future(final(context, run))
    try:
        while not (await asyncio.wait({answer}, timeout=context.server_heartbeat))[0]:
            yield b"\n"
        yield await answer
    finally:
        if not answer.done():
            answer.cancel()
            if cancels:
                await asyncio.shield(_cancel(context, run))


async def final(context: Context, run: Run) -> bytes:
    """The JSON of the state a run ended with, or of its error."""
    async with aclosing(context.runs.follow(run)) as events:
        ending = await followed(events)
    result = await ending.result(lambda checkpoint_id: context.snapshots.at(run, (), checkpoint_id))
    if result is None:
        return orjson.dumps({"__error__": UNKNOWN})
    return result.values if result.error is None else orjson.dumps({"__error__": result.error})


def places(run: Run, tail: str, *, thread: bool = True) -> dict[str, str]:
    """The headers that tell a client where the run is, and where to come back to."""
    path = f"/threads/{run.thread_id}/runs/{run.run_id}" if thread else f"/runs/{run.run_id}"
    return {"Content-Location": path, **({"Location": f"{path}/{tail}"} if tail else {})}
