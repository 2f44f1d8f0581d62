"""Every method of the Python client, asynchronous and synchronous: a method a new version adds turns this red."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError

from tests.compat.sdk import Sdk
from tests.compat.talks import AGENT, PARENT, saying
from tests.service import Client

TOKENS = "tok0 tok1 tok2 tok3 tok4 "


def said(state: Any) -> list[str]:
    return [message["content"] for message in state["messages"]]


def run_done(part: Any) -> bool:
    return part.event == "metadata" and part.data.get("status") == "run_done"


async def test_the_client_has_these_parts(sdk: Sdk) -> None:
    assert sdk.resources() == {"assistants", "threads", "runs", "store", "crons"}


async def test_assistants(sdk: Sdk) -> None:
    made = await sdk.assistants.create("agent", name="mine", metadata={"team": "a"}, config={"recursion_limit": 7})
    assistant_id = made["assistant_id"]
    assert (await sdk.assistants.get(assistant_id))["name"] == "mine"
    assert (await sdk.assistants.update(assistant_id, name="ours"))["version"] == 2
    assert [version["version"] for version in await sdk.assistants.get_versions(assistant_id)] == [2, 1]
    assert (await sdk.assistants.set_latest(assistant_id, 1))["name"] == "mine"
    assert [one["assistant_id"] for one in await sdk.assistants.search(metadata={"team": "a"})] == [assistant_id]
    page = await sdk.assistants.search(limit=1, response_format="object")
    assert (len(page["assistants"]), page["next"]) == (1, "1")
    assert await sdk.assistants.count(graph_id="agent") == 2
    drawn = await sdk.assistants.get_graph(PARENT, xray=True)
    assert "child:agent" in {node["id"] for node in drawn["nodes"]}
    assert (await sdk.assistants.get_schemas(AGENT))["input_schema"]["properties"].keys() == {"messages"}
    assert list(await sdk.assistants.get_subgraphs(PARENT)) == ["child"]
    assert list(await sdk.assistants.get_subgraphs(PARENT, namespace="child", recurse=True)) == ["child"]
    await sdk.assistants.delete(assistant_id)
    with pytest.raises(NotFoundError):
        await sdk.assistants.get(assistant_id)
    assert sdk.called["assistants"] == sdk.methods("assistants")


async def test_threads(sdk: Sdk) -> None:
    made = await sdk.threads.create(metadata={"team": "a"}, ttl=60, graph_id="agent")
    thread_id = made["thread_id"]
    with pytest.raises(ConflictError):
        await sdk.threads.create(thread_id=thread_id)
    assert (await sdk.threads.create(thread_id=thread_id, if_exists="do_nothing"))["thread_id"] == thread_id
    assert (await sdk.threads.get(thread_id, include=["ttl"]))["ttl"]["ttl_minutes"] == 60
    assert (await sdk.threads.update(thread_id, metadata={"more": 1}))["metadata"] == {
        "team": "a",
        "more": 1,
        "graph_id": "agent",
    }
    assert await sdk.threads.update(thread_id, metadata={}, return_minimal=True) is None

    await sdk.runs.wait(thread_id, "agent", input=saying("hi"))
    state = await sdk.threads.get_state(thread_id, subgraphs=True)
    assert said(state["values"]) == ["hi", TOKENS]
    history = await sdk.threads.get_history(thread_id, limit=10)
    assert [found["metadata"]["step"] for found in history] == [2, 1, 0, -1]
    older = await sdk.threads.get_history(thread_id, limit=10, before=history[1]["checkpoint"])
    assert [found["metadata"]["step"] for found in older] == [0, -1]
    at = history[2]["checkpoint"]
    assert said((await sdk.threads.get_state(thread_id, checkpoint=at))["values"]) == ["hi"]
    assert said((await sdk.threads.get_state(thread_id, checkpoint_id=at["checkpoint_id"]))["values"]) == ["hi"]
    written = await sdk.threads.update_state(thread_id, saying("edited"), as_node="ask")
    assert written["checkpoint"]["thread_id"] == thread_id
    assert said((await sdk.threads.get(thread_id))["values"]) == ["hi", TOKENS, "edited"]

    copy = await sdk.threads.copy(thread_id)
    assert said((await sdk.threads.get_state(copy["thread_id"]))["values"]) == ["hi", TOKENS, "edited"]
    found = await sdk.threads.search(
        metadata={"team": "a"}, select=["thread_id"], sort_by="created_at", sort_order="asc"
    )
    assert found == [{"thread_id": thread_id}, {"thread_id": copy["thread_id"]}]
    assert await sdk.threads.count(metadata={"team": "a"}, status="idle") == 2
    parts = await sdk.threads.join_stream(thread_id, last_event_id="0", until=run_done)
    assert parts[0].data["run_id"] == parts[-1].data["run_id"]
    assert await sdk.threads.prune([copy["thread_id"]]) == {"pruned_count": 1}
    await sdk.threads.delete(thread_id)
    with pytest.raises(NotFoundError):
        await sdk.threads.get(thread_id)
    assert sdk.called["threads"] == sdk.methods("threads") - {"stream"}  # which has tests of its own


async def test_runs(sdk: Sdk) -> None:
    created: list[Any] = []
    thread_id = (await sdk.threads.create())["thread_id"]
    parts = await sdk.runs.stream(
        thread_id,
        "agent",
        input=saying("hi"),
        stream_mode=["values", "messages-tuple"],
        stream_resumable=True,
        on_run_created=created.append,
    )
    run_id = created[0]["run_id"]
    assert (created[0]["thread_id"], parts[0].data["run_id"]) == (thread_id, run_id)
    assert "".join(part.data[0]["content"] for part in parts if part.event == "messages") == TOKENS
    again = await sdk.runs.join_stream(thread_id, run_id, last_event_id="0", stream_mode=["values", "messages-tuple"])
    assert [part.event for part in again] == [part.event for part in parts]
    typed = await sdk.runs.stream(thread_id, "agent", input=saying("hi"), stream_mode=["values"], version="v2")
    assert [part["type"] for part in typed] == ["metadata", "values", "values"]
    assert said(await sdk.runs.wait(None, "agent", input=saying("hi"))) == ["hi", TOKENS]
    with pytest.raises(Exception, match="The node agent failed"):
        await sdk.runs.wait(thread_id, "agent", input=saying("boom"))
    failed = await sdk.runs.wait(thread_id, "agent", input=saying("boom"), raise_error=False)
    assert failed["__error__"]["error"] == "ValueError"

    run = await sdk.runs.create(thread_id, "agent", input=saying("forever"), metadata={"team": "a"})
    waiting = await sdk.runs.create(thread_id, "agent", input=saying("next"), multitask_strategy="enqueue")
    assert (await sdk.runs.get(thread_id, run["run_id"]))["metadata"]["team"] == "a"
    with pytest.raises(ConflictError):
        await sdk.runs.create(thread_id, "agent", input=saying("no"), multitask_strategy="reject")
    await sdk.runs.cancel(thread_id, run["run_id"], wait=True)
    assert said(await sdk.runs.join(thread_id, waiting["run_id"]))[-2:] == ["next", TOKENS]
    listed = await sdk.runs.list(thread_id, limit=2, select=["run_id", "status"])
    assert [one["status"] for one in listed] == ["success", "interrupted"]

    batch = await sdk.runs.create_batch([{"assistant_id": "agent", "input": saying("forever")} for _ in range(2)])
    assert len(batch) == 2
    await sdk.runs.cancel_many(status="all")
    await sdk.runs.delete(thread_id, run["run_id"])
    with pytest.raises(NotFoundError):
        await sdk.runs.get(thread_id, run["run_id"])
    assert sdk.called["runs"] == sdk.methods("runs")


async def test_the_store(sdk: Sdk) -> None:
    place = ["people", "ada"]
    await sdk.store.put_item(place, key="likes", value={"tea": True})
    assert (await sdk.store.get_item(place, key="likes"))["value"] == {"tea": True}
    found = await sdk.store.search_items(["people"], filter={"tea": True})
    assert [item["key"] for item in found["items"]] == ["likes"]
    assert (await sdk.store.list_namespaces(prefix=["people"]))["namespaces"] == [place]
    await sdk.store.delete_item(place, key="likes")
    assert await sdk.store.get_item(place, key="likes") is None
    assert sdk.called["store"] == sdk.methods("store")


# Protocol v2


async def test_a_thread_as_a_stream(server: Client) -> None:
    thread_id = str(uuid4())
    async with get_client(url=str(server.http.base_url)) as client, asyncio.timeout(30):
        async with client.threads.stream(thread_id, assistant_id="agent") as thread:
            assert (await thread.run.start(input=saying("weather")))["run_id"]
            calls = [call async for call in thread.tool_calls]
            assert [(call.name, call.input) for call in calls] == [("get_weather", {"city": "Paris"})]
            state: Any = await thread.output
            assert said(state)[-1] == TOKENS
        async with client.threads.stream(assistant_id="agent") as thread:
            await thread.run.start(input=saying("hi"))
            messages = [message async for message in thread.messages]
            assert [await message.text for message in messages] == [TOKENS]
        async with client.threads.stream(assistant_id="agent") as thread:
            await thread.run.start(input=saying("hi"))
            kinds = []
            async for event in thread.subscribe(["custom", "lifecycle"]):
                kinds.append(event["method"])
                if event["params"]["data"].get("event") == "completed":  # type: ignore[union-attr]
                    break
            assert kinds == ["lifecycle", "custom", "lifecycle"]


async def test_an_interrupt_on_a_thread_as_a_stream(server: Client) -> None:
    async with get_client(url=str(server.http.base_url)) as client, asyncio.timeout(30):
        async with client.threads.stream(assistant_id="agent") as thread:
            await thread.run.start(input=saying("approve"))
            states = [state async for state in thread.values]
            assert said(states[-1]) == ["approve", TOKENS]
            assert thread.interrupted
            [asked] = thread.interrupts
            assert asked["interrupt_id"]
            await thread.run.respond("yes")
            final: Any = await thread.output
            assert said(final)[-1] == "approved: yes"


async def test_a_subgraph_on_a_thread_as_a_stream(server: Client) -> None:
    async with get_client(url=str(server.http.base_url)) as client, asyncio.timeout(30):
        async with client.threads.stream(assistant_id="parent") as thread:
            await thread.run.start(input=saying("hi"))
            below = [handle async for handle in thread.subgraphs]
            assert [handle.graph_name for handle in below] == ["child"]


async def test_a_thread_as_a_synchronous_stream(server: Client) -> None:
    def talk() -> tuple[Any, list[str], Any]:
        with get_sync_client(url=str(server.http.base_url)) as client:
            with client.threads.stream(assistant_id="agent") as thread:
                thread.run.start(input=saying("hi"))
                messages = [str(message.text) for message in thread.messages]
                state = thread.output
            with client.threads.stream(assistant_id="agent") as thread:
                thread.run.start(input=saying("approve"))
                list(thread.values)
                thread.run.respond("yes")
                return state, messages, thread.output

    state, messages, answered = await asyncio.wait_for(asyncio.to_thread(talk), 30)
    assert messages == [TOKENS]
    assert said(state) == ["hi", TOKENS]
    assert said(answered)[-1] == "approved: yes"
