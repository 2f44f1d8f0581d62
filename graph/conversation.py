"""The channel that holds the conversation: each step stores what it added, and now and then the whole is stored."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Self, cast
from uuid import UUID, uuid5

from langchain_core.messages import (
    AnyMessage,
    BaseMessage,
    BaseMessageChunk,
    RemoveMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langgraph.channels.delta import DeltaChannel
from langgraph.graph.message import REMOVE_ALL_MESSAGES

SNAPSHOT_LEAST = 100
"""Updates between two snapshots of a short conversation."""
SNAPSHOT_SHARE = 0.1
"""Updates between two snapshots of a long one, for each of its messages: a cold read replays at most a tenth of it. All
snapshots of a conversation together are about eleven times its size, the same for each turn however long it gets."""

_id = attrgetter("id")
_NAMELESS = UUID("5e4aa9ab-51b5-4bd2-9d6f-6e1d2f7a3b0c")


def merged(conversation: Sequence[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    """What `add_messages` makes of the writes, one after the other, in one pass.

    The same writes give the same conversation however they are batched, also its ids: a message without one gets it
    from its place and text. Removing what is not there does nothing.
    """
    new = _messages(writes)
    ids = {message.id for message in new}
    # An index of thousands of messages costs more than the rest of a step, and most steps only add to the end.
    adds = None not in ids and ids.isdisjoint(map(_id, conversation))
    places = {} if adds else {message.id: place for place, message in enumerate(conversation)}  # of those not removed
    result: list[AnyMessage | None] = list(conversation)
    gaps = False
    for message in new:
        if message.id is None:
            message.id = str(uuid5(_NAMELESS, f"{len(places)} {message.type} {message.content}"))
        place = places.get(message.id)
        if isinstance(message, RemoveMessage):
            if message.id == REMOVE_ALL_MESSAGES:
                result, places = [], {}
            elif place is not None:
                result[place], gaps = None, True
                del places[message.id]
        elif place is not None:
            result[place] = message
        else:
            places[message.id] = len(result)
            result.append(message)
    return [message for message in result if message is not None] if gaps else cast(list[AnyMessage], result)


class Conversation(DeltaChannel[list[AnyMessage]]):
    """A `DeltaChannel` of messages whose snapshots become rarer as it grows."""

    __slots__ = ("_least",)

    def __init__(self, reducer: Any = merged, typ: Any = None, *, snapshot_frequency: int = SNAPSHOT_LEAST) -> None:
        super().__init__(reducer, typ, snapshot_frequency=snapshot_frequency)

    @property
    def snapshot_frequency(self) -> int:  # LangGraph asks at each step
        held = len(self.value) if isinstance(getattr(self, "value", None), list) else 0
        return max(self._least, int(held * SNAPSHOT_SHARE))

    @snapshot_frequency.setter
    def snapshot_frequency(self, least: int) -> None:
        self._least = least

    def copy(self) -> Self:
        copied = super().copy()
        copied._least = self._least
        return copied

    def from_checkpoint(self, checkpoint: Any) -> Self:
        restored = super().from_checkpoint(checkpoint)
        restored._least = self._least
        return restored


def _messages(writes: Sequence[Any]) -> list[AnyMessage]:
    """The writes, each a message or a list of them, as messages and never as chunks of some."""
    flat = [item for write in writes for item in (write if isinstance(write, list) else [write])]
    if all(issubclass(kind, BaseMessage) and not issubclass(kind, BaseMessageChunk) for kind in set(map(type, flat))):
        return flat
    return [
        message_chunk_to_message(message) if isinstance(message, BaseMessageChunk) else message  # type: ignore[misc]
        for message in convert_to_messages(flat)
    ]
