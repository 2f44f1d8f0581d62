"""Replay: a session or a run played again as it was, or executed again from a checkpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api.context import Asking, Context, Using
from api.playback import FORMATS, Format, check_modes
from api.reruns import RerunBody, rerun, rerun_run
from api.streams import respond
from api.wire.chat import REPLAY_DONE
from threadline.domain.errors import Invalid, Missing, ThreadlineError
from threadline.domain.records import Caller
from threadline.services.pace import Pace
from threadline.services.replay import Line, Recording

router = APIRouter(tags=["replay"])

FASTEST = 1000.0
MAX_GAP = 3.0
LOOK_AGAIN = 1.0
"""Seconds between two looks whether what is played is still there."""
GONE = "The session was deleted while it was played."


def _speed(value: Any) -> Any:
    """`max`, or a number."""
    if value == "max":
        return value
    try:
        speed = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        speed = 0.0
    if not 0 < speed <= FASTEST:
        raise ValueError(f"it must be max, or a number above 0 and at most {FASTEST:g}")
    return speed


def _words(value: Any) -> Any:
    """A list, also written with commas, as addresses have it."""
    given = [value] if isinstance(value, str) else value
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return [word.strip() for item in given for word in item.split(",") if word.strip()]
    return given


Id = Annotated[str, Field(min_length=1, max_length=200)]


class Recorded(BaseModel):
    """How a recording is played."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    speed: Annotated[Literal["max"] | float, BeforeValidator(_speed)] = Field(
        "max", description="`1` is the original's pace, `max` gives all at once."
    )
    max_gap: float = Field(
        MAX_GAP, ge=0, le=3600, allow_inf_nan=False, description="Seconds a wait between two runs may last, at most."
    )
    format: Literal["chat", "langgraph", "protocol"] = Field("chat", description="The wire format of the frames.")
    modes: Annotated[list[str], BeforeValidator(_words)] = Field(
        default_factory=list,
        description="Of `langgraph` the stream modes, of `protocol` the channels. Unset: as it was.",
    )
    subgraphs: bool | None = Field(None, description="Of `langgraph`: the frames of subgraphs too. Unset: as it was.")
    until: Id | None = Field(None, description="The id of an event to stop behind.")
    after: Id | None = Field(None, description="The id of an event to go on behind; Last-Event-ID says the same.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_modes(self.format, self.modes)
        if self.subgraphs is not None and self.format != "langgraph":
            raise ValueError("subgraphs goes with format langgraph")
        return self


class SessionQuery(Recorded):
    from_: Id | None = Field(None, alias="from", description="A checkpoint_id: play what came after it.")


def _of_one_mode(body: RunReplayBody) -> None:
    """Raises ValueError for what goes with the other mode."""
    others = (Recorded if body.mode == "rerun" else RerunBody).model_fields.keys()
    if wrong := body.model_fields_set & others:
        other = "recorded" if body.mode == "rerun" else "rerun"
        raise ValueError(f"{', '.join(sorted(wrong))} goes with mode {other}")


class RunReplayBody(Recorded, RerunBody):
    """`recorded` plays the run again, `rerun` executes it again from where it began."""

    mode: Literal["recorded", "rerun"]

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        _of_one_mode(self)
        return self


class ReplayBody(RunReplayBody):
    """`recorded` plays what came after the checkpoint, `rerun` executes it again."""

    checkpoint_id: str | None = Field(
        None,
        validation_alias=AliasChoices("checkpoint_id", "from"),
        description="Where to start. Without it, recorded plays all.",
    )

    @model_validator(mode="after")
    def _rerun_from_somewhere(self) -> Self:
        if self.mode == "rerun" and self.checkpoint_id is None:
            raise ValueError("rerun needs a checkpoint_id")
        return self


LastEventId = Annotated[str | None, Header(description="Go on behind this event.")]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}},
    204: {"description": "Nothing comes behind Last-Event-ID."},
}


@router.get(
    "/sessions/{session_id}/replay",
    summary="Play the session again as it was, for EventSource",
    response_class=Response,
    responses=STREAM,
)
async def play_session(
    session_id: str,
    query: Annotated[SessionQuery, Query()],
    caller: Asking,
    context: Using,
    last_event_id: LastEventId = None,
) -> Response:
    return await _session(context, caller, session_id, query, query.from_, last_event_id)


@router.post(
    "/sessions/{session_id}/replay",
    summary="Play the session again as it was, or execute it again from a checkpoint",
    response_class=Response,
    responses=STREAM,
)
async def replay(
    session_id: str, body: ReplayBody, caller: Asking, context: Using, last_event_id: LastEventId = None
) -> Response:
    if body.mode == "rerun" and body.checkpoint_id is not None:
        return await rerun(context, caller, body, session_id=session_id, checkpoint_id=body.checkpoint_id)
    return await _session(context, caller, session_id, body, body.checkpoint_id, last_event_id)


@router.get(
    "/runs/{run_id}/replay",
    summary="Play one run again as it was, for EventSource",
    response_class=Response,
    responses=STREAM,
)
async def play_run(
    run_id: str,
    query: Annotated[Recorded, Query()],
    caller: Asking,
    context: Using,
    last_event_id: LastEventId = None,
) -> Response:
    return await _run(context, caller, run_id, query, last_event_id)


@router.post(
    "/runs/{run_id}/replay",
    summary="Play one run again as it was, or execute it again from where it began",
    response_class=Response,
    responses=STREAM,
)
async def replay_run(
    run_id: str, body: RunReplayBody, caller: Asking, context: Using, last_event_id: LastEventId = None
) -> Response:
    if body.mode == "rerun":
        return await rerun_run(context, caller, body, run_id=run_id)
    return await _run(context, caller, run_id, body, last_event_id)


async def _session(
    context: Context,
    caller: Caller,
    session_id: str,
    asked: Recorded,
    checkpoint_id: str | None,
    last_event_id: str | None,
) -> Response:
    thread = await context.threads.check(session_id, caller, "read")
    after = _seek(last_event_id) or asked.after
    line = await context.replay.of_session(thread, checkpoint_id=checkpoint_id, again=after is not None)
    return await _respond(context, asked, line, after=after, named=True)


async def _run(context: Context, caller: Caller, run_id: str, asked: Recorded, last_event_id: str | None) -> Response:
    run = await context.runs.check(run_id, caller, "read")
    line = context.replay.of_run(run, await context.threads.granted(run.thread_id))
    return await _respond(context, asked, line, after=_seek(last_event_id) or asked.after, named=False)


def _seek(last_event_id: str | None) -> str | None:
    return None if last_event_id in (None, "", "-1") else last_event_id


@dataclass(frozen=True, slots=True)
class _Mark:
    """An event of the replay: the index of its run, the rest of its id, and its id in that run's log."""

    index: int
    text: str
    event: int


@dataclass(frozen=True, slots=True)
class _Play:
    """What one reader is played, and how. `named`: ids say which run they are of."""

    line: Line
    format: Format
    pace: Pace
    named: bool
    after: _Mark | None
    until: _Mark | None


async def _respond(context: Context, asked: Recorded, line: Line, *, after: str | None, named: bool) -> Response:
    format = FORMATS[asked.format](context, frozenset(asked.modes), asked.subgraphs)
    behind = await _mark(context, line, format, after, named=named, what="Last-Event-ID") if after else None
    until = await _mark(context, line, format, asked.until, named=named, what="until") if asked.until else None
    if behind is not None and until is not None and behind.index > until.index:
        raise Invalid("until: it lies before the event to go on behind")
    if behind is not None and await _at_end(context, line, format, behind, until):
        return Response(status_code=204)  # tells an EventSource not to come back
    speed = None if asked.speed == "max" else asked.speed
    pace = Pace(speed, max_gap=asked.max_gap, clock=context.replay.clock)
    play = _Play(line, format, pace, named, behind, until)
    return respond(context, _frames(context, play), headers={})


async def _mark(context: Context, line: Line, format: Format, id: str, *, named: bool, what: str) -> _Mark:
    """Raises Invalid for what is no id of this replay."""
    run_id, _, text = id.rpartition(":")
    if not named and not run_id:
        run_id = line.runs[0]
    if run_id in line.runs and text.isascii():
        recording = await context.replay.recording(line, run_id)
        event = format.event(recording.run, text) if recording is not None else None
        if recording is not None and event in {one.id for one in recording.events}:
            return _Mark(line.runs.index(run_id), text, event)
    raise Invalid(f"{what} must be the id of an event of this replay.")


async def _at_end(context: Context, line: Line, format: Format, behind: _Mark, until: _Mark | None) -> bool:
    """Whether no frame comes behind a mark."""
    if until is not None and (behind.index, behind.event) >= (until.index, until.event):
        return True
    if behind.index < len(line.runs) - 1:
        return False
    run_id = line.runs[behind.index]
    recording = await context.replay.recording(line, run_id)
    if recording is None:
        return True
    encode = format.encoder(recording.run, prefix="", after=recording.after, behind=behind.text)
    for event in recording.events:
        if await encode([event]):
            return False
    return True


async def _frames(context: Context, play: _Play) -> AsyncGenerator[bytes]:
    """The whole replay. What goes wrong on the way is its last frame."""
    first = play.after.index if play.after is not None else 0
    try:
        async with aclosing(context.replay.recordings(play.line, first=first)) as recordings:
            async for recording in recordings:
                async with aclosing(_of_run(context, play, recording)) as frames:
                    async for frame in frames:
                        yield frame
                if play.until is not None and recording.run.run_id == play.line.runs[play.until.index]:
                    return
    except ThreadlineError as error:
        words = GONE if isinstance(error, Missing) and not await _is_there(context, play) else error.message
        yield play.format.error({"kind": error.kind, "message": words, "retryable": error.retryable})
        return
    if play.named:
        yield REPLAY_DONE


async def _of_run(context: Context, play: _Play, recording: Recording) -> AsyncGenerator[bytes]:
    run_id, clock = recording.run.run_id, context.replay.clock
    prefix = f"{run_id}:" if play.named else ""
    seek = play.after if play.after is not None and play.line.runs[play.after.index] == run_id else None
    events = recording.events
    if play.until is not None and play.line.runs[play.until.index] == run_id:
        events = [event for event in events if event.id <= play.until.event]
    looked = clock.now()
    if recording.rebuilt:  # it was pruned, or all of it has just gone
        await _check_there(context, play)
    if seek is None and recording.opening:
        yield await play.format.encoder(recording.run, prefix=prefix)(recording.opening)
    floor = max(recording.after, seek.event - 1 if seek is not None else 0)
    encode = play.format.encoder(
        recording.run, prefix=prefix, after=recording.after, behind=seek.text if seek is not None else None
    )
    unseen = [event for event in events if event.id <= floor]
    if unseen:
        await encode(unseen)  # it may have to know them, and shows none
    async with aclosing(play.pace.portions(events[len(unseen) :])) as portions:
        async for portion in portions:
            if clock.now() - looked > LOOK_AGAIN:
                await _check_there(context, play)
                looked = clock.now()
            yield await encode(portion)


async def _check_there(context: Context, play: _Play) -> None:
    if not await _is_there(context, play):
        raise Missing(GONE)


async def _is_there(context: Context, play: _Play) -> bool:
    known = play.line.thread
    try:
        return (await context.threads.granted(known.thread_id)).created_at == known.created_at
    except Missing:
        return False
