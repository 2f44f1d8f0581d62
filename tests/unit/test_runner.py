"""Where the runner takes a run up again after a crash."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from threadline.domain.records import Run
from threadline.services.runner import _left_off


class Killed(Exception):
    pass


class Killing(InMemorySaver):
    """Dies at its last put: the last node's writes are kept, the checkpoint that takes them up is not."""

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["step"] == 1:
            raise Killed
        return await super().aput(config, checkpoint, metadata, new_versions)


async def test_a_crash_between_the_last_writes_and_their_checkpoint_is_no_end() -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("respond", lambda state: {"messages": [AIMessage("42")]})
    graph.add_edge(START, "respond")
    graph.add_edge("respond", END)
    saver = Killing()
    config: Any = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "r"}}
    with pytest.raises(Killed):
        await graph.compile(saver).ainvoke({"messages": ["6*7"]}, config, durability="sync")

    run = Run("r", "t", "agent", "r", "running", {"message": "6*7"}, datetime.now(UTC), attempt=2)
    left_off = await _left_off(graph.compile(saver), run)

    assert left_off is not None
    assert left_off.next == ()
    assert [task.name for task in left_off.tasks] == ["respond"]

    healthy = InMemorySaver()
    healthy.storage, healthy.writes, healthy.blobs = saver.storage, saver.writes, saver.blobs
    done = await graph.compile(healthy).ainvoke(None, config)
    assert [message.content for message in done["messages"]] == ["6*7", "42"]
    assert (await _left_off(graph.compile(healthy), run)).tasks == ()  # type: ignore[union-attr]
