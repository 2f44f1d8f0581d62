"""Threads over the LangGraph Server API, as its own clients use them: the same things as the sessions of the chat."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError

from tests.conftest import Start
from tests.service import Client, Shared, redis_of, shared

NOBODY = "00000000-0000-4000-8000-000000000000"

GRAPHS = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

HERE = Path(__file__)


def think(state):
    if "boom" in state["messages"][-1].content:
        raise ValueError("boom happened")
    return {"messages": [AIMessage("thought about " + state["messages"][-1].content)]}


async def ask(state):
    said = next(m.content for m in reversed(state["messages"]) if m.type == "human")
    while "wait" in said and not Path(__file__).with_name("go").exists():
        await asyncio.sleep(0.01)
    if "approve" in said:
        return {"messages": [AIMessage(f"answer: {interrupt({'question': 'ok?'})}")]}


child = StateGraph(MessagesState)
child.add_node("think", think)
child.add_node("ask", ask)
child.add_edge(START, "think")
child.add_edge("think", "ask")
child.add_edge("ask", END)

parent = StateGraph(MessagesState)
parent.add_node("child", child.compile())
parent.add_edge(START, "child")
parent.add_edge("child", END)

thinker = child.compile()
family = parent.compile()


def broken():
    raise RuntimeError("this factory never worked")


@asynccontextmanager
async def careful(config):  # with "stop" there it takes its time, except for runs
    while "run_id" not in config.get("configurable", {}) and HERE.with_name("stop").exists():
        HERE.with_name("stopped").touch()
        await asyncio.sleep(0.01)
    yield thinker
"""


pytestmark = pytest.mark.asyncio(loop_scope="module")


def project(folder: Path, *graphs: str) -> Path:
    """The langgraph.json of a project of these graphs of the file above; the first one is what /chat runs."""
    (folder / "graphs.py").write_text(GRAPHS)
    named = ", ".join(f'"{graph}": "./graphs.py:{graph}"' for graph in graphs)
    config = folder / "langgraph.json"
    config.write_text(f'{{"graphs": {{{named}}}}}')
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("thinkers")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thinkers(folder: Path) -> AsyncIterator[Shared]:
    config = project(folder, "thinker", "family", "broken")
    async with shared(folder / "data", config=config) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def thinking(thinkers: Shared) -> AsyncIterator[Client]:
    async with thinkers.caller() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agents(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    async with shared(tmp_path_factory.mktemp("agents")) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def service(agents: Shared) -> AsyncIterator[Client]:
    async with agents.caller() as client:
        yield client


def sdk(service: Client) -> LangGraphClient:
    return get_client(url=str(service.http.base_url), api_key=service.http.headers.get("x-api-key"))


async def said(service: Client, message: str, thread_id: str | None = None) -> str:
    return str((await service.chat(message, thread_id))[0].data["session_id"])


def human(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def texts(state: Any) -> list[str]:
    return [message["content"] for message in state["values"]["messages"]]


async def until(condition: Any) -> None:
    """Wait for what the service does in its own time."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


# Threads


async def test_a_thread_from_its_creation_to_its_end(service: Client) -> None:
    async with sdk(service) as client:
        made = await client.threads.create(metadata={"user": "u1", "deep": {"a": 1}}, graph_id="agent")
        assert made == {
            "thread_id": made["thread_id"],
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
            "state_updated_at": made["created_at"],
            "metadata": {"user": "u1", "deep": {"a": 1}, "graph_id": "agent"},
            "status": "idle",
            "config": {},
            "values": None,
        }
        assert await client.threads.get(made["thread_id"]) == made

        changed = await client.threads.update(made["thread_id"], metadata={"deep": {"b": 2}, "user": None})
        assert changed["metadata"] == {"user": None, "deep": {"b": 2}, "graph_id": "agent"}
        assert changed["updated_at"] > made["updated_at"]
        assert changed["state_updated_at"] == made["state_updated_at"]
        assert await client.threads.update(made["thread_id"], metadata={"x": 1}, return_minimal=True) is None
        assert (await client.threads.get(made["thread_id"]))["metadata"]["x"] == 1

        await client.threads.delete(made["thread_id"])
        with pytest.raises(NotFoundError):
            await client.threads.get(made["thread_id"])


async def test_a_session_is_a_thread_and_a_thread_is_a_session(service: Client) -> None:
    async with sdk(service) as client:
        begun_in_chat = await said(service, "What is 6*7?")
        thread = await client.threads.get(begun_in_chat)
        assert [message["type"] for message in thread["values"]["messages"]] == ["human", "ai", "tool", "ai"]
        assert (thread["error"], thread["interrupts"]) == (None, {})

        made = (await client.threads.create())["thread_id"]
        assert made in [item["session_id"] for item in (await service.json("/sessions"))["items"]]
        await said(service, "my name is Minji", made)
        assert "my name is Minji" in texts(await client.threads.get_state(made))

        await client.threads.delete(begun_in_chat)
        assert (await service.http.get(f"/sessions/{begun_in_chat}")).status_code == 404


async def test_creating_what_is_there(service: Client) -> None:
    async with sdk(service) as client:
        thread_id = str(uuid4())
        made = await client.threads.create(thread_id=thread_id, metadata={"a": 1})
        with pytest.raises(ConflictError, match=f"Thread with ID {thread_id} already exists"):
            await client.threads.create(thread_id=thread_id)
        again = await client.threads.create(thread_id=thread_id.upper(), metadata={"b": 2}, if_exists="do_nothing")
        assert again == made


async def test_threads_are_searched_and_counted(service: Client) -> None:
    async with sdk(service) as client:
        create = client.threads.create
        odd = """k"'$.;--"""
        first = (await create(metadata={"tag": "a", "deep": {"list": [1, {"x": 1, "y": 2}], "yes": True}}))["thread_id"]
        second = (await create(metadata={"tag": "a", odd: "v"}))["thread_id"]
        third = (await create(metadata={"tag": "b", "deep": {}}))["thread_id"]

        async def found(**asked: Any) -> list[str]:
            counted = {key: value for key, value in asked.items() if key in ("metadata", "status", "values")}
            threads = [thread["thread_id"] for thread in await client.threads.search(**asked)]
            if asked.keys() == counted.keys():
                assert await client.threads.count(**counted) == len(threads)
            return threads

        assert await found() == [third, second, first]
        assert await found(metadata={"tag": "a"}) == [second, first]
        assert await found(metadata={"deep": {"list": [{"x": 1}]}}) == [first]
        assert await found(metadata={"deep": {"yes": 1}}) == []
        assert await found(metadata={"deep": {"list": [2]}}) == []
        assert await found(metadata={odd: "v"}) == [second]
        assert await found(metadata={odd: None}) == []
        assert await found(metadata={"tag') OR ('1'='1": "a"}) == []
        assert await found(ids=[first, third.upper()]) == [third, first]
        assert await found(status="idle") == [third, second, first]
        assert await found(status="busy") == []
        assert await found(sort_by="created_at", sort_order="asc") == [first, second, third]
        await client.threads.update(first, metadata={"later": 1})
        assert await found(sort_by="updated_at") == [first, third, second]
        assert await found(limit=1, offset=1) == [third]

        page = await service.http.post("/threads/search", json={"limit": 2, "select": ["thread_id", "status"]})
        assert page.json() == [{"thread_id": first, "status": "idle"}, {"thread_id": third, "status": "idle"}]
        assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
        rest = await service.http.post("/threads/search", json={"limit": 2, "offset": 2})
        assert rest.headers["x-pagination-total"] == "3"
        assert "x-pagination-next" not in rest.headers
        assert (await service.http.post("/threads/count", json={})).text == "3"


async def test_search_shows_values_and_finds_by_them(thinking: Client) -> None:
    async with sdk(thinking) as client:
        empty = (await client.threads.create())["thread_id"]
        hello, bye = await said(thinking, "hello"), await said(thinking, "bye")

        everything = await client.threads.search()
        assert [(t["thread_id"], t["values"] is None) for t in everything] == [
            (bye, False),
            (hello, False),
            (empty, True),
        ]
        wanted = {"messages": [{"content": "thought about hello"}]}
        assert [t["thread_id"] for t in await client.threads.search(values=wanted)] == [hello]
        assert await client.threads.count(values=wanted) == 1
        assert await client.threads.count(values={"messages": []}) == 2
        assert await client.threads.search(values=wanted, metadata={"no": "such"}) == []

        extract = {"last": "values.messages[-1].content", "none": "metadata.no[3].such", "odd": "values.messages["}
        [one] = await client.threads.search(ids=[hello], select=["thread_id"], extract=extract)
        assert one == {"thread_id": hello, "extracted": {"last": "thought about hello", "none": None, "odd": None}}


async def test_a_copy_goes_its_own_way(thinking: Client) -> None:
    async with sdk(thinking) as client:
        thread_id = await said(thinking, "hello")
        await client.threads.update(thread_id, metadata={"mine": True})
        copied: Any = await client.threads.copy(thread_id)

        assert copied["thread_id"] != thread_id
        assert copied["metadata"] == (await client.threads.get(thread_id))["metadata"]
        assert copied["metadata"]["mine"] is True
        assert texts(copied) == ["hello", "thought about hello"]
        original, copy = [await client.threads.get_history(one, limit=10) for one in (thread_id, copied["thread_id"])]
        assert [state["checkpoint_id"] for state in original] == [state["checkpoint_id"] for state in copy]
        assert {state["checkpoint"]["thread_id"] for state in copy} == {copied["thread_id"]}

        await said(thinking, "bye", copied["thread_id"])
        await client.threads.delete(thread_id)
        document = await thinking.json(f"/sessions/{copied['thread_id']}")
        assert [m["content"] for m in document["messages"]] == [
            "hello",
            "thought about hello",
            "bye",
            "thought about bye",
        ]
        turns = await thinking.json(f"/sessions/{copied['thread_id']}/history")
        assert [turn["user_message"] for turn in turns["items"]] == ["bye", "hello"]


async def test_pruning_keeps_the_newest_state_or_nothing(thinking: Client) -> None:
    async with sdk(thinking) as client:
        kept, gone = await said(thinking, "hello"), await said(thinking, "bye")
        before = await client.threads.get_state(kept)

        assert await client.threads.prune([kept, NOBODY], strategy="keep_latest") == {"pruned_count": 1}
        assert len(await client.threads.get_history(kept, limit=10)) == 1
        after = await client.threads.get_state(kept)
        assert (after["values"], after["checkpoint"]) == (before["values"], before["checkpoint"])
        await said(thinking, "again", kept)

        assert await client.threads.prune([gone, gone]) == {"pruned_count": 1}
        with pytest.raises(NotFoundError):
            await client.threads.get(gone)


@pytest.mark.parametrize("way", ["prune", "ttl"])
@pytest.mark.parametrize("graph", ["thinker", "family"])
async def test_pruning_leaves_what_is_pinned(thinking: Client, graph: str, way: str) -> None:
    async with sdk(thinking) as client:
        thread_id = (await client.threads.create())["thread_id"]
        for word in ("one", "two", "three"):
            await client.runs.wait(thread_id, graph, input=human(word))
        history: Any = await client.threads.get_history(thread_id, limit=100)
        pinned = next(state for state in history if texts(state)[-2:] == ["two", "thought about two"])["checkpoint"]
        inner: Any = await client.threads.get_state(thread_id, checkpoint=pinned, subgraphs=True)
        path = f"/sessions/{thread_id}/checkpoints/{pinned['checkpoint_id']}/pin"
        assert (await thinking.http.put(path, json={"name": "two"})).status_code == 200

        if way == "prune":
            assert await client.threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 1}
        else:
            await client.threads.update(thread_id, metadata={}, ttl={"ttl": 0.001, "strategy": "keep_latest"})

        async def pruned() -> bool:
            return len(await client.threads.get_history(thread_id, limit=100)) < len(history)

        await until(pruned)
        left: Any = await client.threads.get_history(thread_id, limit=100)
        assert left[0]["values"] == history[0]["values"]
        kept: Any = await client.threads.get_state(thread_id, checkpoint=pinned, subgraphs=True)
        assert {**kept, "parent_checkpoint": None, "parent_checkpoint_id": None} == {
            **inner,
            "parent_checkpoint": None,
            "parent_checkpoint_id": None,
        }
        fork: Any = await client.runs.wait(thread_id, graph, input=human("again"), checkpoint=pinned)
        assert [message["content"] for message in fork["messages"]][-3:] == [
            "thought about two",
            "again",
            "thought about again",
        ]

        assert (await thinking.http.delete(path)).status_code == 204
        await client.threads.prune([thread_id], strategy="keep_latest")
        assert len(await client.threads.get_history(thread_id, limit=100)) == 1


async def test_a_thread_goes_when_its_time_is_up(thinking: Client) -> None:
    async with sdk(thinking) as client:
        lasting = (await client.threads.create(ttl=60))["thread_id"]
        shown: Any = await client.threads.get(lasting, include=["ttl"])
        due = datetime.fromisoformat(shown["ttl"].pop("expires_at"))
        assert shown["ttl"] == {"strategy": "delete", "ttl_minutes": 60}
        assert timedelta(minutes=59) < due - datetime.now(UTC) <= timedelta(minutes=60)
        assert "ttl" not in await client.threads.get(lasting)

        brief = (await client.threads.create(ttl=0.001))["thread_id"]
        cut = await said(thinking, "hello")
        await client.threads.update(cut, metadata={}, ttl={"ttl": 0.001, "strategy": "keep_latest"})

        async def done() -> bool:
            left = {item["session_id"] for item in (await thinking.json("/sessions"))["items"]}
            return brief not in left and len(await client.threads.get_history(cut, limit=9)) == 1

        await until(done)
        assert texts(await client.threads.get_state(cut)) == ["hello", "thought about hello"]
        assert (await thinking.http.patch(f"/threads/{lasting}", json={"ttl": None})).status_code == 200
        assert "ttl" not in await client.threads.get(lasting, include=["ttl"])


async def test_a_thread_from_elsewhere_is_built_step_by_step(thinking: Client) -> None:
    async with sdk(thinking) as client:
        steps = [
            {"updates": [{"values": human("hello"), "as_node": "__input__"}]},
            {"updates": [{"values": human("hello"), "as_node": "__start__"}]},
            {"updates": [{"values": None, "command": {"update": human("q"), "goto": "ask"}, "as_node": "think"}]},
        ]
        made: Any = await client.threads.create(graph_id="thinker", supersteps=steps)  # type: ignore[arg-type]
        assert made["status"] == "interrupted"
        assert texts(made) == ["hello", "q"]
        assert (await client.threads.get_state(made["thread_id"]))["next"] == ["ask"]

        thread_id = str(uuid4())
        bad = {"updates": [{"values": human("x"), "as_node": "nope"}]}
        body = {"thread_id": thread_id, "metadata": {"graph_id": "thinker"}, "supersteps": [steps[0], bad]}
        refused = await thinking.http.post("/threads", json=body)
        assert (refused.status_code, refused.json()) == (400, {"detail": "Node nope does not exist"})
        assert (await thinking.http.get(f"/threads/{thread_id}")).status_code == 404


async def test_the_synchronous_client(thinking: Client) -> None:
    thread_id = await said(thinking, "hello")

    def speak() -> None:
        key = thinking.http.headers["x-api-key"]
        with get_sync_client(url=str(thinking.http.base_url), api_key=key) as client:
            threads = client.threads
            made = threads.create(graph_id="thinker", ttl=5)["thread_id"]
            assert threads.update(made, metadata={"a": 1})["metadata"] == {"graph_id": "thinker", "a": 1}
            assert threads.get(made)["values"] is None
            assert [thread["thread_id"] for thread in threads.search(metadata={"a": 1})] == [made]
            assert threads.count() == 2
            copied: Any = threads.copy(thread_id)
            state = threads.get_state(copied["thread_id"])
            assert texts(state) == ["hello", "thought about hello"]
            assert threads.get_state(copied["thread_id"], checkpoint=state["checkpoint"]) == state
            assert threads.update_state(made, human("x"))["checkpoint"]["thread_id"] == made
            assert len(threads.get_history(made)) == 1
            assert threads.prune([made]) == {"pruned_count": 1}
            threads.delete(copied["thread_id"])
            assert threads.count() == 1

    await asyncio.to_thread(speak)


# State


async def test_the_state_of_a_thread_that_waits(thinking: Client) -> None:
    async with sdk(thinking) as client:
        frames = await thinking.chat("approve this")
        thread_id, run_id = frames[0].data["session_id"], frames[0].data["run_id"]
        state: Any = await client.threads.get_state(thread_id)

        [task] = state["tasks"]
        question = {"id": task["interrupts"][0]["id"], "value": {"question": "ok?"}}
        place = {"checkpoint_id": state["checkpoint_id"], "thread_id": thread_id, "checkpoint_ns": ""}
        assert state == {
            "values": state["values"],
            "next": ["ask"],
            "tasks": [
                {
                    "id": task["id"],
                    "name": "ask",
                    "path": ["__pregel_pull", "ask"],
                    "error": None,
                    "interrupts": [question],
                    "checkpoint": None,
                    "state": None,
                    "result": None,
                }
            ],
            "metadata": {**state["metadata"], "thread_id": thread_id, "run_id": run_id, "source": "loop", "step": 1},
            "created_at": state["created_at"],
            "checkpoint": place,
            "parent_checkpoint": {**place, "checkpoint_id": state["parent_checkpoint_id"]},
            "interrupts": [question],
            "checkpoint_id": state["checkpoint_id"],
            "parent_checkpoint_id": state["parent_checkpoint_id"],
        }
        thread: Any = await client.threads.get(thread_id)
        assert (thread["status"], thread["interrupts"]) == ("interrupted", {task["id"]: [question]})
        assert thread["values"] == state["values"]
        copied: Any = await client.threads.copy(thread_id)
        assert (copied["status"], copied["interrupts"]) == ("interrupted", thread["interrupts"])
        message = state["values"]["messages"][0]
        assert {"type": "human", "content": "approve this"}.items() <= message.items()
        parts: Any = await client.threads.get_state(thread_id, select=["next", "values.messages"])
        assert parts == {"next": ["ask"], "values": state["values"]}


async def test_the_history_back_to_the_beginning(thinking: Client) -> None:
    async with sdk(thinking) as client:
        thread_id = await said(thinking, "hello")
        history: Any = await client.threads.get_history(thread_id)
        assert [state["next"] for state in history] == [[], ["ask"], ["think"], ["__start__"]]
        assert [len(state["values"]["messages"]) for state in history] == [2, 2, 1, 0]
        assert history[1]["tasks"][0]["result"] == {}
        assert history[0] == await client.threads.get_state(thread_id)
        assert history[1] == await client.threads.get_state(thread_id, checkpoint_id=history[1]["checkpoint_id"])
        assert history[2] == await client.threads.get_state(thread_id, checkpoint=history[2]["checkpoint"])

        ask = partial(client.threads.get_history, thread_id)
        second = history[1]["checkpoint"]
        assert await ask(limit=1) == history[:1]
        for before in (second, {"configurable": second}, second["checkpoint_id"]):
            assert await ask(before=before) == history[2:]  # type: ignore[arg-type]
        assert await ask(checkpoint=second) == [history[1]]
        assert await ask(metadata={"source": "input"}) == history[3:]
        assert await ask(metadata={"source": "loop", "step": 1}, limit=1) == [history[1]]
        assert await ask(metadata={"": 1}) == await ask(metadata={"a'.[": "x"}) == []
        listed = (await thinking.http.get(f"/threads/{thread_id}/history", params={"limit": 3})).json()
        assert listed == history[:3]
        later = {"limit": 9, "before": second["checkpoint_id"]}
        assert (await thinking.http.get(f"/threads/{thread_id}/history", params=later)).json() == history[2:]
        assert (await thinking.http.post(f"/threads/{thread_id}/history", json={})).json() == history[:1]


async def test_nothing_to_show_is_an_empty_state(service: Client) -> None:
    async with sdk(service) as client:
        for graph_id in (None, "agent"):
            thread_id = (await client.threads.create(graph_id=graph_id))["thread_id"]
            empty: Any = await client.threads.get_state(thread_id)
            assert (empty["values"], empty["next"], empty["tasks"], empty["interrupts"]) == ({}, [], [], [])
            for name in ("metadata", "created_at", "checkpoint", "parent_checkpoint", "checkpoint_id"):
                assert empty[name] is None
            assert await client.threads.get_history(thread_id) == []
            assert await client.threads.get_state(thread_id, subgraphs=True) == empty

        begun = await said(service, "hello")
        missing: Any = await client.threads.get_state(begun, checkpoint_id="1f1e6964-0000-6c41-8001-789ff816e192")
        assert missing["values"] == {}
        assert missing["checkpoint"] == {
            "checkpoint_id": "1f1e6964-0000-6c41-8001-789ff816e192",
            "thread_id": begun,
            "checkpoint_ns": "",
        }


async def test_the_state_is_edited(thinking: Client, folder: Path) -> None:
    async with sdk(thinking) as client:
        thread_id = await said(thinking, "hello")
        before: Any = await client.threads.get_state(thread_id)

        made: Any = await client.threads.update_state(thread_id, human("edited"), as_node="think")

        assert made["checkpoint"] == made["configurable"]
        assert made["checkpoint"]["checkpoint_id"] == made["checkpoint_id"]
        state: Any = await client.threads.get_state(thread_id)
        assert texts(state) == ["hello", "thought about hello", "edited"]
        assert state["next"] == ["ask"]
        assert state["metadata"]["source"] == "update"
        assert state["parent_checkpoint"] == before["checkpoint"]
        thread: Any = await client.threads.get(thread_id)
        assert thread["status"] == "interrupted"
        assert thread["updated_at"] == thread["state_updated_at"] > thread["created_at"]
        assert [t["thread_id"] for t in await client.threads.search(status="interrupted")] == [thread_id]

        # The live copy of the state is the new one, and the conversation is what was said.
        async with redis_of(folder / "data") as redis:
            assert [key async for key in redis.scan_iter(f"*{thread_id}*")]
        document = await thinking.json(f"/sessions/{thread_id}")
        assert [m["content"] for m in document["messages"]] == ["hello", "thought about hello"]
        answer = await thinking.chat("more", thread_id)
        assert answer[-2].data["content"] == "thought about more"
        assert texts(await client.threads.get_state(thread_id))[2:] == ["edited", "more", "thought about more"]


@asynccontextmanager
async def stopped(folder: Path, work: Coroutine[Any, Any, httpx.Response]) -> AsyncIterator[asyncio.Task[Any]]:
    """Something under way that writes to a state, and goes on when this is left."""
    (folder / "stop").touch()
    task = asyncio.create_task(work)

    async def has_stopped() -> bool:
        return (folder / "stopped").exists() or task.done()

    await until(has_stopped)
    yield task
    (folder / "stop").unlink()
    (folder / "stopped").unlink()
    assert (await task).is_success


@pytest_asyncio.fixture(loop_scope="module")
async def careful(start: Start, tmp_path: Path) -> AsyncIterator[Client]:
    async with start(config=project(tmp_path, "careful")) as service:
        yield service


def edit(service: Client, thread_id: str) -> Coroutine[Any, Any, httpx.Response]:
    return service.http.post(f"/threads/{thread_id}/state", json={"values": human("edited"), "as_node": "ask"})


async def test_a_run_begins_after_an_edit_that_is_under_way(careful: Client, tmp_path: Path) -> None:
    thread_id = await said(careful, "hello")
    async with stopped(tmp_path, edit(careful, thread_id)):
        body = {"assistant_id": "careful", "input": human("more")}
        run = asyncio.create_task(careful.http.post(f"/threads/{thread_id}/runs/wait", json=body))
        await asyncio.wait({run}, timeout=1)  # as long as it would take, if it did not wait for the edit

    ended = [message["content"] for message in (await run).json()["messages"]]
    assert ended == ["hello", "thought about hello", "edited", "more", "thought about more"]
    history: Any = await careful.json(f"/threads/{thread_id}/history", limit=100)
    parents = [state["parent_checkpoint"]["checkpoint_id"] for state in history[:-1]]
    assert parents == [state["checkpoint"]["checkpoint_id"] for state in history[1:]], "the past has one line"


@pytest.mark.parametrize("work", ["state", "copy"])
async def test_a_thread_that_is_deleted_meanwhile_leaves_nothing(careful: Client, tmp_path: Path, work: str) -> None:
    thread_id = await said(careful, "hello")
    busy = edit(careful, thread_id) if work == "state" else careful.http.post(f"/threads/{thread_id}/copy")
    async with stopped(tmp_path, busy):
        deleted = asyncio.create_task(careful.http.delete(f"/threads/{thread_id}"))
        await asyncio.wait({deleted}, timeout=1)

    assert (await deleted).status_code == 204
    with closing(sqlite3.connect(tmp_path / "data" / "checkpoints.db")) as connection:
        count = "SELECT count(*) FROM checkpoints WHERE thread_id = ?"
        assert connection.execute(count, (thread_id,)).fetchone() == (0,)
    assert (await edit(careful, thread_id)).status_code == 404


async def test_two_edits_come_one_after_the_other(careful: Client, tmp_path: Path) -> None:
    thread_id = await said(careful, "hello")
    async with stopped(tmp_path, edit(careful, thread_id)):
        second = asyncio.create_task(edit(careful, thread_id))
        await asyncio.wait({second}, timeout=0.2)

    assert (await second).is_success
    assert texts(await careful.json(f"/threads/{thread_id}/state"))[-2:] == ["edited", "edited"]


async def test_a_fork_is_written_at_an_earlier_checkpoint(thinking: Client) -> None:
    async with sdk(thinking) as client:
        thread_id = await said(thinking, "hello")
        history: Any = await client.threads.get_history(thread_id)
        earlier = history[2]["checkpoint"]

        forms: list[dict[str, Any]] = [
            {"checkpoint_id": earlier["checkpoint_id"]},
            {"checkpoint": earlier},
            {"checkpoint": {**earlier, "thread_id": NOBODY}},
        ]
        for form in forms:
            made: Any = await client.threads.update_state(thread_id, human("forked"), as_node="think", **form)
            state: Any = await client.threads.get_state(thread_id, checkpoint=made["checkpoint"])
            assert texts(state) == ["hello", "forked"]
            assert state["parent_checkpoint"] == earlier
        await client.threads.update_state(thread_id, None)
        newest: Any = await client.threads.get_state(thread_id)
        assert (texts(newest), newest["parent_checkpoint"]["checkpoint_id"]) == (texts(state), made["checkpoint_id"])


async def test_a_failed_task_is_shown_and_edited_away(thinking: Client) -> None:
    async with sdk(thinking) as client:
        thread_id = await said(thinking, "boom")
        state: Any = await client.threads.get_state(thread_id)
        assert state["tasks"][0]["error"] == "ValueError('boom happened')"
        failed: Any = await client.threads.get(thread_id)
        assert failed["status"] == "error"
        copied: Any = await client.threads.copy(thread_id)
        assert (copied["status"], copied["error"]) == ("error", failed["error"])

        await client.threads.update_state(thread_id, human("fixed"), as_node="ask")
        thread: Any = await client.threads.get(thread_id)
        assert (thread["status"], thread["error"]) == ("idle", None)


async def test_the_state_of_a_subgraph(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path, "family")) as service, sdk(service) as client:
        thread_id = await said(service, "approve this")

        outer: Any = await client.threads.get_state(thread_id)
        [task] = outer["tasks"]
        assert (task["name"], task["state"]) == ("child", None)
        place = task["checkpoint"]
        assert place == {"thread_id": thread_id, "checkpoint_ns": f"child:{task['id']}"}

        nested: Any = (await client.threads.get_state(thread_id, subgraphs=True))["tasks"][0]
        assert nested["checkpoint"] is None
        inner = nested["state"]
        assert (inner["next"], texts(inner)) == (["ask"], ["approve this", "thought about approve this"])
        assert inner["interrupts"] == outer["interrupts"]
        assert inner["checkpoint"]["checkpoint_map"][place["checkpoint_ns"]] == inner["checkpoint_id"]
        assert await client.threads.get_state(thread_id, checkpoint=place) == inner
        assert [s["next"] for s in await client.threads.get_history(thread_id, checkpoint=place)] == [
            ["ask"],
            ["think"],
            ["__start__"],
        ]

        made: Any = await client.threads.update_state(thread_id, human("x"), checkpoint=place, as_node="think")
        assert made["checkpoint"]["checkpoint_ns"] == place["checkpoint_ns"]
        thread: Any = await client.threads.get(thread_id)
        assert texts(thread) == ["approve this"]
        assert (thread["status"], thread["interrupts"]) == ("interrupted", {task["id"]: outer["interrupts"]})
        nobody = {"checkpoint_ns": "zzz", "checkpoint_id": made["checkpoint_id"], "thread_id": thread_id}
        empty: Any = await client.threads.get_state(thread_id, checkpoint=nobody)  # type: ignore[arg-type]
        assert (empty["values"], empty["checkpoint"]) == ({}, nobody)
        refused = await service.http.post(
            f"/threads/{thread_id}/state", json={"values": {}, "checkpoint": {"checkpoint_ns": "zzz"}}
        )
        assert refused.status_code == 400


async def test_a_thread_uses_its_own_graph(thinking: Client) -> None:
    async with sdk(thinking) as client:
        thread_id = (await client.threads.create(graph_id="family"))["thread_id"]
        await client.threads.update_state(thread_id, human("hello"), as_node="__start__")

        state: Any = await client.threads.get_state(thread_id)
        assert state["next"] == ["child"]
        assert state["metadata"]["graph_id"] == "family"
        [item] = (await thinking.json(f"/sessions/{thread_id}/checkpoints"))["items"]
        assert item["next"] == ["child"]

        gone = (await client.threads.create(graph_id="gone"))["thread_id"]
        told = "Graph 'gone' not found. Expected one of: ['broken', 'family', 'thinker']"
        for path in ("state", "history"):
            response = await thinking.http.get(f"/threads/{gone}/{path}")
            assert (response.status_code, response.json()) == (404, {"detail": told})
        assert (await thinking.http.get(f"/sessions/{gone}/checkpoints")).json()["detail"] == told
        broken = (await client.threads.create(graph_id="broken"))["thread_id"]
        assert [(await client.threads.get(one))["values"] for one in (gone, broken)] == [None, None]
        assert [thread["values"] is None for thread in await client.threads.search()] == [True, True, False]


async def test_a_busy_thread_is_not_edited(thinking: Client, folder: Path) -> None:
    async with sdk(thinking) as client:
        async with thinking.stream("POST", "/chat", json={"message": "wait"}) as frames:
            thread_id = (await anext(frames)).data["session_id"]

            assert (await client.threads.get(thread_id))["status"] == "busy"
            assert [t["thread_id"] for t in await client.threads.search(status="busy")] == [thread_id]
            assert await client.threads.count(status="idle") == 0
            with pytest.raises(ConflictError, match=f"Thread {thread_id} has in-flight runs"):
                await client.threads.update_state(thread_id, human("x"))
            assert await client.threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 0}
            assert (await client.threads.update(thread_id, metadata={"a": 1}))["status"] == "busy"
            copied: Any = await client.threads.copy(thread_id)
            assert copied["status"] in ("idle", "interrupted")

            (folder / "go").touch()
            assert [frame.event async for frame in frames][-1] == "done"
        (folder / "go").unlink()
        # No later than its last frame a run is over for everybody.
        assert (await client.threads.get(thread_id))["status"] == "idle"
        await client.threads.update_state(thread_id, human("x"))


# What goes wrong

UNKNOWN = f"Thread with ID {NOBODY} not found"
NO_UUID = "Invalid thread ID: must be a UUID"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("POST", "/copy", None),
        ("GET", "/state", None),
        ("POST", "/state", {"values": {}}),
        ("GET", "/state/1f1e6964-0000-6c41-8001-789ff816e192", None),
        ("POST", "/state/checkpoint", {"checkpoint": {}}),
        ("GET", "/history", None),
        ("POST", "/history", {}),
    ],
)
async def test_threads_that_are_not_there(service: Client, method: str, path: str, body: Any) -> None:
    for thread_id, status, told in ((NOBODY, 404, UNKNOWN), ("not-a-uuid", 422, NO_UUID)):
        response = await service.http.request(method, f"/threads/{thread_id}{path}", json=body)
        assert (response.status_code, response.json()) == (status, {"detail": told})


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/threads", "", 422, "Invalid JSON in request body"),
        ("/threads", "{bad", 422, "Invalid JSON in request body"),
        ("/threads/search", "", 422, "Invalid JSON in request body"),
        ("/threads", "[]", 422, "JSON object"),
        ("/threads", {"thread_id": "nope"}, 422, NO_UUID),
        ("/threads", {"thread_id": ""}, 422, NO_UUID),
        ("/threads", {"metadata": None}, 422, "metadata: "),
        ("/threads", '{"metadata": {"n": NaN}}', 422, "Invalid JSON"),
        ("/threads", b'{"metadata": {"n": "\xff"}}', 422, "Invalid JSON"),
        ("/threads", "[" * 100_000, 422, "Invalid JSON"),
        ("/threads", '{"metadata": {"a": "\\ud800"}}', 422, "Invalid JSON"),
        ("/threads", '{"metadata": {"a": ' + "[" * 200 + "]" * 200 + "}}", 422, "lie in each other"),
        ("/threads", {"if_exists": "x"}, 422, "if_exists: "),
        ("/threads", {"ttl": {"ttl": -1}}, 422, "ttl.ttl: "),
        ("/threads", {"ttl": {"ttl": 1e300}}, 422, "ttl.ttl: "),
        ("/threads", {"ttl": {"strategy": "x", "ttl": 1}}, 422, "ttl.strategy: "),
        ("/threads", {"supersteps": [{"updates": [{"values": {}}]}]}, 400, "has no assigned graph ID"),
        ("/threads/search", {"limit": 0}, 422, "limit: "),
        ("/threads/search", {"limit": 1001}, 422, "limit: "),
        ("/threads/search", {"offset": -1}, 422, "offset: "),
        ("/threads/search", {"offset": 2**63}, 422, "offset: "),
        ("/threads/search", {"status": "bogus"}, 422, "status: "),
        ("/threads/search", {"sort_by": "owner"}, 422, "sort_by: "),
        ("/threads/search", {"select": ["owner"]}, 422, "select.0: "),
        ("/threads/search", {"ids": ["nope"]}, 400, "Invalid thread ID nope"),
        ("/threads/search", '{"ids": ["\\ud800"]}', 422, "Invalid JSON"),
        ("/threads/search", '{"extract": {"\\ud800": "values"}}', 422, "Invalid JSON"),
        ("/threads/search", {"extract": {"a": "zzz.b"}}, 422, "must start with one of: config, interrupts, metadata"),
        ("/threads/search", {"extract": {"a b": "values"}}, 422, "Extract key 'a b' must be a valid identifier"),
        ("/threads/search", {"extract": {str(n): "values" for n in range(11)}}, 422, "at most 10"),
        ("/threads/search", {"metadata": {str(n): n for n in range(101)}}, 422, "at most 100 parts"),
        ("/threads/search", {"metadata": {"a": [[[[[[[[[[1]]]]]]]]]]}}, 422, "8 levels"),
        ("/threads/count", {"status": "bogus"}, 422, "status: "),
        ("/threads/prune", {}, 422, "thread_ids: "),
        ("/threads/prune", {"thread_ids": ["nope"]}, 422, NO_UUID),
        ("/threads/prune", {"thread_ids": [], "strategy": "x"}, 422, "strategy: "),
    ],
)
async def test_requests_that_make_no_sense(service: Client, path: str, body: Any, status: int, told: str) -> None:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    response = await service.http.post(path, content=content)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert told in response.json()["detail"]
    assert await service.json("/sessions") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("state", {"values": {"messages": []}, "as_node": "nope"}, 400, "Node nope does not exist"),
        ("state", {"values": [{"messages": []}]}, 400, "Expected dict, got [{'messages': []}]"),
        ("state", {"values": {"messages": [{"nope": 1}]}}, 400, "The graph could not take these values: ValueError."),
        ("state", {"values": "x"}, 422, "values: must be an object, a list or null"),
        ("state", {"values": {}, "checkpoint": []}, 422, "checkpoint: "),
        ("state", {"values": {}, "checkpoint_id": "zzz"}, 404, "Checkpoint zzz not found"),
        ("state", {"values": {"messages": []}, "as_node": "\ud800"}, 422, "Invalid JSON"),
        ("state", {"values": {}, "checkpoint": {"checkpoint_id": "\ud800"}}, 422, "Invalid JSON"),
        ("state", {"values": {"messages": [[]]}, "as_node": "a\x00b"}, 400, "does not exist"),
        ("state/checkpoint", {}, 422, "checkpoint: "),
        ("history", {"limit": 0}, 422, "limit: "),
        ("history", {"limit": 1001}, 422, "limit: "),
        ("history", {"before": 5}, 422, "before"),
    ],
)
async def test_states_that_make_no_sense(thinking: Client, path: str, body: Any, status: int, told: str) -> None:
    thread_id = await said(thinking, "hello")
    content = json.dumps(body).encode()  # httpx would not send half a character
    response = await thinking.http.post(f"/threads/{thread_id}/{path}", content=content)
    assert response.status_code == status, response.text
    assert told in response.json()["detail"]
    assert len((await thinking.json(f"/sessions/{thread_id}/checkpoints"))["items"]) == 4


async def test_deep_documents_come_back_as_they_went(thinking: Client) -> None:
    deep: Any = "core"
    for _ in range(190):
        deep = {"a": deep}
    made = (await thinking.http.post("/threads", json={"metadata": {"deep": deep, "graph_id": "thinker"}})).json()
    assert made["metadata"]["deep"] == deep
    values = {"messages": [{"role": "user", "content": "x", "additional_kwargs": {"deep": deep}}]}
    written = await thinking.http.post(f"/threads/{made['thread_id']}/state", json={"values": values})
    assert written.status_code == 200, written.text
    state = (await thinking.http.get(f"/threads/{made['thread_id']}/state")).json()
    assert state["values"]["messages"][0]["additional_kwargs"] == {"deep": deep}
    searched = await thinking.http.post("/threads/search", json={"values": values | {"messages": []}})
    assert len(searched.json()) == 1
    assert (await thinking.http.post("/threads/search", json={"metadata": {"deep": deep}})).status_code == 422


async def test_a_thread_without_a_graph_is_not_edited(service: Client) -> None:
    thread_id = (await service.http.post("/threads", json={})).json()["thread_id"]
    response = await service.http.post(f"/threads/{thread_id}/state", json={"values": {"messages": []}})
    assert response.status_code == 400
    assert response.json()["detail"].startswith(f"Thread '{thread_id}' has no assigned graph ID. This usually occurs")


async def test_a_body_is_json_whatever_it_says_it_is(service: Client) -> None:
    plain = {"content-type": "text/plain"}
    response = await service.http.post("/threads", content=b'{"metadata": {"a": 1}, "bogus": 1}', headers=plain)
    assert response.json()["metadata"] == {"a": 1}


async def test_somebody_elses_thread_is_not_there(start: Start) -> None:
    alice, bob = "alice-has-a-long-key", "bob-has-a-long-key-too"
    async with start(api_keys=f"{alice},{bob}") as service:
        url = str(service.http.base_url)
        mine = (await service.http.post("/threads", json={"metadata": {"secret": 1}})).json()["thread_id"]
        async with httpx.AsyncClient(base_url=url, headers={"x-api-key": bob}) as stranger:
            assert (await stranger.get(f"/threads/{mine}")).status_code == 404
            assert (await stranger.post("/threads/search", json={"ids": [mine]})).json() == []
            assert (await stranger.post("/threads/count", json={})).text == "0"
            assert (await stranger.post("/threads/prune", json={"thread_ids": [mine]})).json() == {"pruned_count": 0}
            for if_exists in ("raise", "do_nothing"):
                taken = await stranger.post("/threads", json={"thread_id": mine, "if_exists": if_exists})
                assert (taken.status_code, taken.json()["detail"]) == (409, f"Thread with ID {mine} already exists")
        assert (await service.http.get(f"/threads/{mine}")).json()["metadata"] == {"secret": 1}
