"""The conversation's channel: `add_messages` in one pass, and how often the whole is stored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages

from graph.conversation import SNAPSHOT_LEAST, Conversation, merged


def one_by_one(writes: Sequence[Any]) -> list[AnyMessage]:
    conversation: Any = []
    for write in writes:
        conversation = add_messages(conversation, write)
    return list(conversation)


def some_writes(seed: int) -> list[Any]:
    """New messages, replaced ones and removals of what is there, alone and in lists."""
    chance, writes, present = random.Random(seed), list[Any](), list[str]()
    for number in range(30):
        kind = chance.choice(["new", "new", "new", "list", "again", "remove", "all"])
        if kind == "all" and chance.random() < 0.3:
            writes.append(RemoveMessage(REMOVE_ALL_MESSAGES))
            present = []
        elif kind == "again" and present:
            writes.append(AIMessage(f"again {number}", id=chance.choice(present)))
        elif kind == "remove" and present:
            writes.append([RemoveMessage(present.pop(chance.randrange(len(present))))])
        else:
            new = [f"{number}.{part}" for part in range(3 if kind == "list" else 1)]
            present += new
            writes.append([HumanMessage(id, id=id) for id in new])
    return writes


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_add_messages_makes_however_it_is_cut(seed: int) -> None:
    writes = some_writes(seed)
    expected = one_by_one(writes)
    assert merged([], writes) == expected
    for cut in range(0, len(writes), 4):
        assert merged(merged([], writes[:cut]), writes[cut:]) == expected


def test_messages_without_an_id_get_the_same_one_each_time() -> None:
    writes = ["hello", {"role": "user", "content": "hello"}, [("ai", "hi")], RemoveMessage("nothing")]
    once, again = merged([], writes), merged(merged([], writes[:1]), writes[1:])
    assert once == again
    assert [message.text for message in once] == ["hello", "hello", "hi"]
    assert len({message.id for message in once}) == 3


def test_a_chunk_becomes_a_message() -> None:
    (message,) = merged([], [AIMessageChunk("hi", id="1")])
    assert message == AIMessage("hi", id="1")


def test_what_is_given_is_not_changed() -> None:
    conversation: list[AnyMessage] = [HumanMessage("one", id="1")]
    merged(conversation, [RemoveMessage("1"), HumanMessage("two", id="2")])
    assert conversation == [HumanMessage("one", id="1")]


def test_snapshots_become_rarer_as_it_grows() -> None:
    channel = Conversation().from_checkpoint([HumanMessage(str(n), id=str(n)) for n in range(4000)])
    assert channel.snapshot_frequency == 400
    assert channel.copy().snapshot_frequency == 400
    channel.update([RemoveMessage(REMOVE_ALL_MESSAGES)])
    assert channel.snapshot_frequency == channel.copy().snapshot_frequency == SNAPSHOT_LEAST
