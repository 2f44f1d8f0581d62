"""The wire formats a recording is played in: how each reads an event's id, and makes frames of a run's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, get_args

from api.context import Context
from api.encoding import Encode, alone
from api.wire import chat, langgraph, protocol
from threadline.domain.records import Run
from threadline.services.calls import Mode

DIGITS = 17
LAST_SLOT = 99


class Format(Protocol):
    """One reader's format."""

    def event(self, run: Run, text: str) -> int | None:
        """The id in the run's log of the event that has this id on the wire; None if no event can have it."""
        ...

    def encoder(self, run: Run, *, prefix: str, after: int = 0, behind: str | None = None) -> Encode:
        """Makes frames of a run's events from its start: those after the line `after` and the frame `behind`."""
        ...

    def error(self, error: Mapping[str, Any]) -> bytes:
        """The frame for what went wrong outside a run: `{kind, message, retryable}`."""
        ...


class Chat:
    def __init__(self, context: Context, modes: frozenset[str], subgraphs: bool | None) -> None:
        pass

    def event(self, run: Run, text: str) -> int | None:
        return _number(text)

    def encoder(self, run: Run, *, prefix: str, after: int = 0, behind: str | None = None) -> Encode:
        floor = max(after, _number(behind or "") or 0)
        return alone(chat.Encoder(prefix), after=(floor,), line=floor)

    def error(self, error: Mapping[str, Any]) -> bytes:
        return chat.error_frame(error)


class LangGraph:
    """`modes` and `subgraphs` are those the run was started with, unless the reader says others."""

    def __init__(self, context: Context, modes: frozenset[str], subgraphs: bool | None) -> None:
        self._context = context
        self._modes = modes
        self._subgraphs = subgraphs

    def event(self, run: Run, text: str) -> int | None:
        place = _slot(text)
        return place[0] if place is not None else None

    def encoder(self, run: Run, *, prefix: str, after: int = 0, behind: str | None = None) -> Encode:
        asked = run.kwargs.get("stream_mode") or ()
        subgraphs = run.kwargs.get("subgraphs", False) if self._subgraphs is None else self._subgraphs
        floor = max((after, LAST_SLOT) if after else (0, -1), _slot(behind or "") or (0, -1))
        encoder = langgraph.Encoder(
            modes=self._modes or asked or ("values",),
            asked=asked,
            state=partial(self._context.snapshots.at, run),
            thread_id=run.thread_id,
            subgraphs=subgraphs,
            ids=True,
            prefix=prefix,
        )
        return alone(encoder, after=floor, line=floor[0])

    def error(self, error: Mapping[str, Any]) -> bytes:
        return langgraph.error_frame({"error": error["kind"], "message": error["message"]})


class Protocol2:
    """`modes` are channels."""

    def __init__(self, context: Context, modes: frozenset[str], subgraphs: bool | None) -> None:
        self._context = context
        self._channels = modes or frozenset(protocol.CHANNELS)

    def event(self, run: Run, text: str) -> int | None:
        seq = _number(text)
        return protocol.line_of(seq) if seq is not None and protocol.position_of(seq) == run.position else None

    def encoder(self, run: Run, *, prefix: str, after: int = 0, behind: str | None = None) -> Encode:
        floor = max(protocol.seq_of(run.position, after) if after else 0, _number(behind or "") or 0)
        encoder = protocol.Encoder(
            protocol.Subscription(self._channels),
            run_id=run.run_id,
            graph_id=run.graph_id,
            position=run.position,
            asked=run.kwargs.get("stream_mode") or (),
            state=partial(self._context.snapshots.at, run),
            prefix=prefix,
        )
        return alone(encoder, after=(floor,), line=protocol.line_of(floor))

    def error(self, error: Mapping[str, Any]) -> bytes:
        return protocol.error_frame(error)


FORMATS: dict[str, Callable[[Context, frozenset[str], bool | None], Format]] = {
    "chat": Chat,
    "langgraph": LangGraph,
    "protocol": Protocol2,
}


def check_modes(format: str, modes: Sequence[str]) -> None:
    """Raises ValueError for what the format does not know."""
    if format == "chat" and modes:
        raise ValueError("modes goes with format langgraph or protocol")
    known = get_args(Mode) if format == "langgraph" else protocol.CHANNELS
    unknown = [mode for mode in modes if mode not in known and not (format == "protocol" and _custom(mode))]
    if unknown:
        raise ValueError(f"modes must be of {', '.join(known)}")


def _custom(channel: str) -> bool:
    return channel.startswith("custom:") and len(channel) > len("custom:")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < DIGITS else None


def _slot(text: str) -> tuple[int, int] | None:
    event, dash, slot = text.partition("-")
    place = _number(event), _number(slot)
    return (place[0], place[1]) if dash and place[0] is not None and place[1] is not None else None
