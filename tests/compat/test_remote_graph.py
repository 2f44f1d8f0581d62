"""`RemoteGraph`: a graph of ours as a node of somebody else's, by LangGraph's own client for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.pregel.remote import RemoteGraph

from tests.compat.talks import saying
from tests.compat.test_langgraph_sdk import TOKENS, said
from tests.service import Client


@pytest.fixture
def remote(server: Client) -> RemoteGraph:
    return RemoteGraph("agent", url=str(server.http.base_url))


@pytest.fixture
async def config(server: Client) -> RunnableConfig:
    thread_id = (await server.http.post("/threads", json={})).json()["thread_id"]
    return {"configurable": {"thread_id": thread_id}}


async def test_its_answer_and_its_state(remote: RemoteGraph, config: RunnableConfig) -> None:
    assert said(await remote.ainvoke(saying("hi"), config)) == ["hi", TOKENS]
    state = await remote.aget_state(config, subgraphs=True)
    assert said(state.values) == ["hi", TOKENS]
    past = [found async for found in remote.aget_state_history(config, limit=10)]
    assert [(found.metadata or {})["step"] for found in past] == [2, 1, 0, -1]
    written = await remote.aupdate_state(config, saying("edited"), as_node="ask")
    assert said((await remote.aget_state(written)).values) == ["hi", TOKENS, "edited"]


async def test_its_stream(remote: RemoteGraph, config: RunnableConfig) -> None:
    modes: Any = ["updates", "messages", "custom"]
    parts = [part async for part in remote.astream(saying("weather"), config, stream_mode=modes)]
    assert [list(data) for mode, data, _ in parts if mode == "updates"] == [["agent"], ["tools"], ["agent"], ["ask"]]
    assert "".join(data[0]["content"] for mode, data, _ in parts if mode == "messages").endswith(TOKENS)
    assert ("custom", {"progress": "thinking"}, None) in parts


async def test_its_subgraphs(server: Client, config: RunnableConfig) -> None:
    remote = RemoteGraph("parent", url=str(server.http.base_url))
    parts = [part async for part in remote.astream(saying("hi"), config, stream_mode="updates", subgraphs=True)]
    assert {place[0].partition(":")[0] for place, _ in parts if place} == {"child"}
    assert [name for place, data in parts if not place for name in data] == ["pre", "child"]


async def test_what_it_asks(remote: RemoteGraph, config: RunnableConfig) -> None:
    parts = [part async for part in remote.astream(saying("approve"), config, stream_mode="values")]
    assert said(parts[-1]) == ["approve", TOKENS]
    [asked] = (await remote.aget_state(config)).tasks[0].interrupts
    assert asked.value == {"question": "ok?", "for": "approve"}


async def test_its_drawing_and_the_synchronous_calls(remote: RemoteGraph, config: RunnableConfig) -> None:
    assert {"agent", "tools", "ask"} <= set((await remote.aget_graph()).nodes)

    def talk() -> tuple[Any, Any, Any]:
        answer = remote.invoke(saying("hi"), config)
        return answer, remote.get_state(config).values, remote.get_graph()

    answer, values, drawn = await asyncio.wait_for(asyncio.to_thread(talk), 30)
    assert said(answer) == said(values) == ["hi", TOKENS]
    assert "agent" in drawn.nodes
