"""The store of the LangGraph Server API: items that last beyond a thread, by key, by field and by meaning."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from tests.conftest import Start, together
from tests.service import Client

ALICE, BOB = "alice-3f9c2b7d1e", "bob-77aa01c2d4"


def sdk(service: Client, key: str | None = None) -> LangGraphClient:
    return get_client(url=str(service.http.base_url), api_key=key)


@pytest.fixture
async def client(service: Client) -> AsyncIterator[LangGraphClient]:
    async with sdk(service) as client:
        yield client


@pytest.fixture
def sync(service: Client) -> Iterator[SyncLangGraphClient]:
    with get_sync_client(url=str(service.http.base_url), api_key=None) as client:
        yield client


async def test_an_item_is_kept_found_overwritten_and_deleted(client: LangGraphClient) -> None:
    await client.store.put_item(["users", "ada"], "likes", {"food": "kimchi", "stars": 5})
    first = await client.store.get_item(["users", "ada"], "likes")
    await client.store.put_item(["users", "ada"], "likes", {"food": "김치"})
    second = await client.store.get_item(["users", "ada"], "likes")
    found = await client.store.search_items(["users"])
    namespaces = await client.store.list_namespaces()
    await client.store.delete_item(["users", "ada"], "likes")
    gone = await client.store.get_item(["users", "ada"], "likes")

    assert first["namespace"] == ["users", "ada"]
    assert (first["key"], first["value"]) == ("likes", {"food": "kimchi", "stars": 5})
    assert set(first) == {"namespace", "key", "value", "created_at", "updated_at"}
    assert first["created_at"].endswith("+00:00")
    assert second["value"] == {"food": "김치"}
    assert second["created_at"] == first["created_at"]
    assert second["updated_at"] > first["updated_at"]
    assert found == {"items": [{**second, "score": None}]}
    assert namespaces == {"namespaces": [["users", "ada"]]}
    assert gone is None


async def test_the_same_with_the_synchronous_client(sync: SyncLangGraphClient) -> None:
    def use() -> list[Any]:
        sync.store.put_item(["a", "b"], "k", {"x": 1}, index=False, ttl=5)
        got = sync.store.get_item(["a", "b"], "k", refresh_ttl=True)
        found = sync.store.search_items(["a"], filter={"x": {"$gte": 1}}, limit=1, offset=0, refresh_ttl=False)
        named = sync.store.list_namespaces(prefix=["a"], suffix=["b"], max_depth=2, limit=1, offset=0)
        sync.store.delete_item(["a", "b"], "k")
        return [got["value"], len(found["items"]), named["namespaces"], sync.store.get_item(["a", "b"], "k")]

    assert await asyncio.to_thread(use) == [{"x": 1}, 1, [["a", "b"]], None]


async def test_what_is_kept_outlives_the_service(start: Start) -> None:
    async with start() as service, sdk(service) as client:
        await client.store.put_item(["a"], "k", {"x": 1})
    async with start() as service, sdk(service) as client:
        assert (await client.store.get_item(["a"], "k"))["value"] == {"x": 1}


FILTERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "equal": ({"n": 2}, {"two"}),
    "not equal": ({"n": {"$ne": 2}}, {"one", "three", "none"}),
    "greater": ({"n": {"$gt": 1}}, {"two", "three"}),
    "between": ({"n": {"$gte": 2, "$lt": 3}}, {"two"}),
    "at most": ({"n": {"$lte": 1}}, {"one"}),
    "words in order": ({"word": {"$gt": "b"}}, {"two", "three"}),
    "null": ({"n": None}, {"none"}),
    "true": ({"flag": True}, {"one"}),
    "an object": ({"deep": {"a": {"b": 1}}}, {"one"}),
    "a list": ({"tags": ["x", "y"]}, {"two"}),
    "contains": ({"tags": {"$contains": "x"}}, {"two"}),
    "equal by name": ({"word": {"$eq": "셋"}}, {"three"}),
    "two fields": ({"n": 2, "word": "nothing"}, set()),
    "another type": ({"n": "2"}, set()),
    "either": ({"$or": [{"n": 1}, {"n": 3}]}, {"one", "three"}),
    "a name in Korean": ({"이름": "하나"}, {"one"}),
    "a name with a quote": ({"it's": 1}, set()),
}


async def test_filters(client: LangGraphClient) -> None:
    await client.store.put_item(
        ["f"], "one", {"n": 1, "word": "a", "flag": True, "deep": {"a": {"b": 1, "c": 2}}, "이름": "하나"}
    )
    await client.store.put_item(["f"], "two", {"n": 2, "word": "c", "flag": False, "tags": ["x", "y"]})
    await client.store.put_item(["f"], "three", {"n": 3, "word": "셋"})
    await client.store.put_item(["f"], "none", {"n": None})

    for name, (filter, expected) in FILTERS.items():
        found = await client.store.search_items(["f"], filter=filter)
        assert {item["key"] for item in found["items"]} == expected, name


async def test_a_page_at_a_time_the_last_written_first(client: LangGraphClient) -> None:
    for number in range(5):
        await client.store.put_item(["p", str(number % 2)], f"k{number}", {"n": number})
    await client.store.put_item(["pq"], "other", {})

    first = await client.store.search_items(["p"], limit=2)
    second = await client.store.search_items(["p"], limit=2, offset=2)
    last = await client.store.search_items(["p"], limit=2, offset=4)

    keys = [[item["key"] for item in page["items"]] for page in (first, second, last)]
    assert keys == [["k4", "k3"], ["k2", "k1"], ["k0"]]


async def test_namespaces_by_prefix_suffix_wildcard_and_depth(client: LangGraphClient) -> None:
    for namespace in (["a", "x", "m"], ["a", "y", "m"], ["a", "y", "n"], ["b", "x", "m"]):
        await client.store.put_item(namespace, "k", {})

    async def listed(**asked: Any) -> list[list[str]]:
        return (await client.store.list_namespaces(**asked))["namespaces"]  # type: ignore[return-value]

    assert await listed(prefix=["a"]) == [["a", "x", "m"], ["a", "y", "m"], ["a", "y", "n"]]
    assert await listed(suffix=["m"]) == [["a", "x", "m"], ["a", "y", "m"], ["b", "x", "m"]]
    assert await listed(prefix=["*", "x"]) == [["a", "x", "m"], ["b", "x", "m"]]
    assert await listed(max_depth=1) == [["a"], ["b"]]
    assert await listed(max_depth=2, prefix=["a"], limit=1, offset=1) == [["a", "y"]]
    assert await listed(suffix=["local", "a", "x", "m"]) == []
    assert await listed(prefix=["local"]) == []


async def test_an_expired_item_is_gone(client: LangGraphClient) -> None:
    await client.store.put_item(["t"], "short", {}, ttl=0.001)  # type: ignore[arg-type]  # 60 ms
    await client.store.put_item(["t"], "long", {}, ttl=1)

    await until_gone(client, ["t"], "short")
    assert [item["key"] for item in (await client.store.search_items(["t"]))["items"]] == ["long"]


async def test_reading_renews_the_time_of_an_item_unless_told_otherwise(service: Client, tmp_path: Path) -> None:
    async with sdk(service) as client:
        await client.store.put_item(["t"], "k", {}, ttl=1)
        with sqlite3.connect(tmp_path / "data" / "store.db") as file:
            file.execute("UPDATE store SET expires_at = DATETIME('now', '+5 seconds')")
        file.close()
        soon = expiry(tmp_path)
        await client.store.get_item(["t"], "k", refresh_ttl=False)
        await client.store.search_items(["t"], refresh_ttl=False)
        assert expiry(tmp_path) == soon
        await client.store.search_items(["t"])
        renewed = expiry(tmp_path)
        assert renewed > soon
        await client.store.get_item(["t"], "k", refresh_ttl=True)
        assert expiry(tmp_path) >= renewed


async def test_times_to_live_of_the_project(start: Start, tmp_path: Path) -> None:
    ttl = {"default_ttl": 0.001, "refresh_on_read": False, "sweep_interval_minutes": 0.001}
    async with start(config=project(tmp_path, store={"ttl": ttl})) as service, sdk(service) as client:
        await client.store.put_item(["t"], "k", {"x": 1})
        deadline = asyncio.get_running_loop().time() + 20
        while rows(tmp_path):  # nobody reads: the sweep alone deletes it
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("prefix", ["", "."], ids=["in the folder", "as a path"])
async def test_items_are_found_by_meaning(start: Start, tmp_path: Path, prefix: str) -> None:
    index = {"embed": f"{prefix}{'/' if prefix else ''}animals.py:embed", "dims": 3, "fields": ["text"]}
    config = project(tmp_path, store={"index": index})
    (config.parent / "animals.py").write_text(ANIMALS)
    async with start(config=config) as service, sdk(service) as client:
        await client.store.put_item(["m"], "cat", {"text": "a cat", "size": 1})
        await client.store.put_item(["m"], "dog", {"text": "a dog", "size": 2})
        await client.store.put_item(["m"], "hidden", {"text": "a cat"}, index=False)
        await client.store.put_item(["m"], "other", {"text": "a dog", "title": "my cat"}, index=["title"])

        found = (await client.store.search_items(["m"], query="cat"))["items"]
        filtered = (await client.store.search_items(["m"], query="cat", filter={"size": 2}))["items"]
        second = (await client.store.search_items(["m"], query="cat", limit=1, offset=2))["items"]
        await client.store.put_item(["m"], "cat", {"text": "a dog"}, index=False)
        after = (await client.store.search_items(["m"], query="cat"))["items"]

    assert {item["key"] for item in found[:2]} == {"cat", "other"}
    assert [item["score"] for item in found[:2]] == pytest.approx([1, 1])
    assert [item["key"] for item in found[2:]] == ["dog"]
    assert found[2]["score"] < 0.9
    assert [item["key"] for item in filtered] == ["dog"]
    assert [item["key"] for item in second] == ["dog"]
    assert [item["key"] for item in after] == ["other", "dog"]


async def test_an_embedding_of_an_openai_compatible_server(start: Start, tmp_path: Path) -> None:
    config = project(tmp_path, store={"index": {"embed": "openai:some-model", "dims": 2, "fields": ["text"]}})
    async with embedding_server() as (url, asked):
        async with start(config=config, openai_base_url=url, openai_api_key="x") as service, sdk(service) as client:
            await client.store.put_item(["m"], "cat", {"text": "a cat"})
            await client.store.put_item(["m"], "dog", {"text": "a dog"})
            found = await client.store.search_items(["m"], query="cat")

    assert [item["key"] for item in found["items"]] == ["cat", "dog"]
    assert [(body["model"], body["input"]) for body in asked] == [
        ("some-model", ["a cat"]),
        ("some-model", ["a dog"]),
        ("some-model", ["cat"]),
    ]


async def test_an_embedding_that_fails_keeps_nothing_and_hurts_nobody_else(start: Start, tmp_path: Path) -> None:
    config = project(tmp_path, store={"index": {"embed": "./animals.py:embed", "dims": 4}})
    (config.parent / "animals.py").write_text(ANIMALS)
    async with start(config=config) as service, sdk(service) as client:
        refused = await service.http.put("/store/items", json={"namespace": ["m"], "key": "k", "value": {}})
        await client.store.put_item(["m"], "plain", {}, index=False)
        kept = (await client.store.search_items(["m"]))["items"]

    assert refused.status_code == 503
    assert "4 numbers" in refused.json()["detail"]
    assert [item["key"] for item in kept] == ["plain"]


async def test_another_embedding_forgets_the_vectors_of_the_last(start: Start, tmp_path: Path) -> None:
    config = project(tmp_path, store={"index": {"embed": "./animals.py:embed", "dims": 3}})
    (config.parent / "animals.py").write_text(ANIMALS)
    async with start(config=config) as service, sdk(service) as client:
        await client.store.put_item(["m"], "cat", {"text": "cat"})
        assert len((await client.store.search_items(["m"], query="cat"))["items"]) == 1
    config = project(tmp_path, store={"index": {"embed": "./animals.py:other", "dims": 3}})
    async with start(config=config) as service, sdk(service) as client:
        assert (await client.store.search_items(["m"], query="cat"))["items"] == []
        assert len((await client.store.search_items(["m"]))["items"]) == 1
        await client.store.put_item(["m"], "cat", {"text": "cat"})
        assert len((await client.store.search_items(["m"], query="cat"))["items"]) == 1


async def test_callers_never_see_each_others_items(start: Start) -> None:
    async with start(api_keys=f"{ALICE},{BOB}") as service, sdk(service, ALICE) as alice, sdk(service, BOB) as bob:
        await alice.store.put_item(["a"], "k", {"of": "alice"})
        await bob.store.put_item(["a"], "k", {"of": "bob"})
        await bob.store.delete_item(["a"], "k")

        assert (await alice.store.get_item(["a"], "k"))["value"] == {"of": "alice"}
        assert await bob.store.get_item(["a"], "k") is None
        assert (await bob.store.search_items([]))["items"] == []
        assert (await bob.store.list_namespaces())["namespaces"] == []
        assert (await bob.store.list_namespaces(prefix=["*", "a"]))["namespaces"] == []
        assert (await alice.store.list_namespaces())["namespaces"] == [["a"]]


GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.config import get_store
from langgraph.graph import START, MessagesState, StateGraph


def remember(state: MessagesState):  # in a thread of its own, where the store may wait
    store = get_store()
    known = store.get(("memories",), "last")
    store.put(("memories",), "last", {"said": state["messages"][-1].content})
    return {"messages": [AIMessage(known.value["said"] if known else "nothing")]}


async def recall(state: MessagesState):
    found = await get_store().asearch(("memories",))
    return {"messages": [AIMessage(state["messages"][-1].content + f", then {len(found)}: {found[0].namespace}")]}


graph = StateGraph(MessagesState)
graph.add_node(remember)
graph.add_node(recall)
graph.add_edge(START, "remember")
graph.add_edge("remember", "recall")
"""


async def test_a_graph_and_its_caller_see_the_same_items(start: Start, tmp_path: Path) -> None:
    config = project(tmp_path)
    (config.parent / "agent.py").write_text(GRAPH)
    async with start(config=config) as service, sdk(service) as client:
        await client.store.put_item(["memories"], "last", {"said": "from outside"})
        frames = await service.chat("hello")
        kept = await client.store.get_item(["memories"], "last")

    answers = [frame.data["content"] for frame in frames if frame.event == "message"]
    assert answers == ["from outside, then 1: ('memories',)"]
    assert kept["value"] == {"said": "hello"}


OWN_STORE = """
import contextlib
from langgraph.store.memory import InMemoryStore

class Shown(InMemoryStore):
    pass

store = Shown()

@contextlib.asynccontextmanager
async def opened():
    yield store

def made():
    return store
"""


@pytest.mark.parametrize("name", ["store", "opened", "made"])
async def test_a_store_of_the_project(start: Start, tmp_path: Path, name: str) -> None:
    config = project(tmp_path, store={"path": f"./own_store.py:{name}"})
    (config.parent / "own_store.py").write_text(OWN_STORE)
    async with start(config=config) as service, sdk(service) as client:
        await client.store.put_item(["a", "b"], "k", {"x": 1})
        first = await client.store.get_item(["a", "b"], "k")
        again = await client.store.get_item(["a", "b"], "k")
        found = await client.store.search_items(["a"], filter={"x": 1})
        named = await client.store.list_namespaces(suffix=["b"])

    assert rows(tmp_path) is None
    assert first["namespace"] == again["namespace"] == ["a", "b"]
    assert len(found["items"]) == 1
    assert named == {"namespaces": [["a", "b"]]}


# Errors


def put(**changes: Any) -> tuple[str, str, Any]:
    body = {"namespace": ["a"], "key": "k", "value": {"x": 1}, **changes}
    return "PUT", "/store/items", {name: value for name, value in body.items() if value is not ...}


BAD_LABEL = "Namespace label '{}' must be a non-empty string without periods"


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (put(namespace=["a.b"]), 422, BAD_LABEL.format("a.b")),
        (put(namespace=[""]), 422, BAD_LABEL.format("")),
        (("POST", "/store/items/search", {"namespace_prefix": ["a.b"]}), 422, BAD_LABEL.format("a.b")),
        (("POST", "/store/namespaces", {"prefix": ["a.b"]}), 422, BAD_LABEL.format("a.b")),
        (("POST", "/store/namespaces", {"suffix": [""]}), 422, BAD_LABEL.format("")),
        (("DELETE", "/store/items", {"namespace": ["a.b"], "key": "k"}), 422, BAD_LABEL.format("a.b")),
        (("GET", "/store/items?key=k", None), 422, BAD_LABEL.format("")),
        (("GET", "/store/items?namespace=a..b&key=k", None), 422, BAD_LABEL.format("")),
    ],
)
@together
async def test_a_label_that_is_none(caller: Client, request_: Any, status: int, words: str) -> None:
    method, path, body = request_
    refused = await caller.http.request(method, path, json=body)

    assert (refused.status_code, refused.text) == (status, words)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (put(namespace=[]), 400, "Namespace cannot be empty."),
        (put(namespace=["langgraph"]), 400, "Root label"),
        (put(namespace="a"), 422, "namespace"),
        (put(key=1), 422, "key"),
        (put(value=...), 422, "value"),
        (put(value=None), 422, "value"),
        (put(value=[1]), 422, "value"),
        (put(index=True), 422, "index"),
        (put(ttl=-1), 422, "ttl"),
        (put(ttl=1e300), 422, "ttl"),
        (("GET", "/store/items?namespace=a", None), 400, "Key is required"),
        (("POST", "/store/items/search", {"namespace_prefix": ["a"], "limit": -1}), 422, "limit"),
        (("POST", "/store/items/search", {"filter": [1]}), 422, "filter"),
        (("POST", "/store/items/search", {"filter": {"x": {"$bogus": 1}}}), 400, "Unsupported operator: $bogus"),
        (("POST", "/store/namespaces", {"prefix": "a"}), 422, "prefix"),
        (("DELETE", "/store/items", {"namespace": ["a"]}), 422, "key"),
        (("PATCH", "/store/items", None), 405, "Method Not Allowed"),
    ],
)
@together
async def test_what_makes_no_sense(caller: Client, request_: Any, status: int, words: str) -> None:
    method, path, body = request_
    refused = await caller.http.request(method, path, json=body)

    assert refused.status_code == status
    assert words in refused.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"{nope",
        b"",
        b"[]",
        b'{"namespace": ["a"], "key": "\xff", "value": {}}',
        b'{"namespace": ["a"], "key": "\\ud800", "value": {}}',
        b'{"namespace": ["\\ud800"], "key": "k", "value": {}}',
        b'{"namespace": ["a\\u0000"], "key": "k", "value": {}}',
        b'{"namespace": ["a"], "key": "k", "value": {"x": "\\ud800"}}',
        b'{"namespace": ["a"], "key": "k", "value": {"x": ' + b"[" * 1000 + b"]" * 1000 + b"}}",
        b'{"namespace": ["a"], "key": "k", "value": {"x": ' + b"[" * 400 + b"]" * 400 + b"}}",
    ],
)
@together
async def test_bodies_that_are_none(caller: Client, body: bytes) -> None:
    refused = await caller.http.put("/store/items", content=body)
    found = await caller.http.post("/store/items/search", content=b'{"filter": ' + body + b"}")

    assert 400 <= refused.status_code < 500, refused.text
    assert found.status_code < 500, found.text
    assert (await caller.http.post("/store/items/search", json={})).json() == {"items": []}


@together
async def test_bodies_are_json_whatever_they_are_called(caller: Client) -> None:
    body = json.dumps({"namespace": ["a"], "key": "k", "value": {}, "unknown": 1})
    kept = await caller.http.put("/store/items", content=body, headers={"content-type": "text/plain"})

    assert (kept.status_code, kept.content) == (204, b"")


async def test_nothing_without_a_key_where_keys_are_set(start: Start) -> None:
    async with start(api_keys=ALICE) as service:
        async with httpx.AsyncClient(base_url=service.http.base_url) as stranger:
            refused = await stranger.post("/store/items/search", json={})

    assert refused.status_code == 401


async def test_a_project_may_leave_the_store_out(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path, http={"disable_store": True})) as service:
        assert (await service.http.post("/store/items/search", json={})).status_code == 404


ANIMALS = """
def embed(texts):
    return [[float("cat" in text), float("dog" in text), 0.5 * ("cat" not in text)] for text in texts]

async def other(texts):
    return embed(texts)
"""

ECHO = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

graph = StateGraph(MessagesState)
graph.add_node("echo", lambda state: {"messages": [AIMessage("echo")]})
graph.add_edge(START, "echo")
"""


def project(tmp_path: Path, **parts: Any) -> Path:
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    (folder / "agent.py").write_text(ECHO)
    (folder / "langgraph.json").write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, **parts}))
    return folder / "langgraph.json"


@asynccontextmanager
async def embedding_server() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server that knows cats, and what it was asked."""
    asked: list[dict[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        asked.append(body)
        vectors = [[float("cat" in text), 1.0] for text in body["input"]]
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        reply = json.dumps({"object": "list", "data": data, "model": body["model"], "usage": usage}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            + f"content-length: {len(reply)}\r\n\r\n".encode()
            + reply
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked


def expiry(tmp_path: Path) -> str:
    return str((rows(tmp_path) or [])[0][1])


def rows(tmp_path: Path) -> list[tuple[str, str]] | None:
    """What is in the file, expired or not; None if there is no file."""
    path = tmp_path / "data" / "store.db"
    if not path.exists():
        return None
    file = sqlite3.connect(path)
    try:
        return file.execute("SELECT key, expires_at FROM store").fetchall()
    finally:
        file.close()


async def until_gone(client: LangGraphClient, namespace: list[str], key: str) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while await client.store.get_item(namespace, key, refresh_ttl=False) is not None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
