"""Assistants of the LangGraph Server API: a graph with its config, named and versioned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError

from tests.conftest import Start
from tests.service import Client
from threadline.domain.errors import Invalid, Missing
from threadline.services.auth import LOCAL

AGENT = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
NOBODY = "00000000-0000-4000-8000-000000000000"

GRAPHS = """
import typing
from typing import Literal

from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from typing_extensions import TypedDict


@tool
def get_weather(city: str) -> str:
    "Weather."
    return "sunny"


class Taste(TypedDict, total=False):
    flavour: str


class OldTaste(typing.TypedDict):
    flavour: str


class Alien:
    pass


class Strange(TypedDict):
    alien: Alien
    _count: int


def stay(state):
    return {}


def route(state) -> Literal["tools", "ask"]:
    return "ask"


agent = StateGraph(MessagesState, context_schema=Taste)
agent.add_node("agent", stay)
agent.add_node("tools", ToolNode([get_weather]))
agent.add_node("ask", stay, metadata={"colour": "red"})
agent.add_edge(START, "agent")
agent.add_conditional_edges("agent", route)
agent.add_edge("tools", "agent")
agent.add_edge("ask", END)


def inside(inner, name):
    outer = StateGraph(MessagesState)
    outer.add_node("pre", stay)
    outer.add_node(name, inner)
    outer.add_edge(START, "pre")
    outer.add_edge("pre", name)
    outer.add_edge(name, END)
    return outer.compile()


parent = inside(agent.compile(), "child")
grand = inside(parent, "mid")


def alone(node, state, **more):
    graph = StateGraph(state, **more)
    graph.add_node(node, stay)
    graph.add_edge(START, node)
    return graph.compile(name="renamed")


old = alone("only", MessagesState, context_schema=OldTaste)
strange = alone("only", Strange)


def made(config):
    flavour = config["configurable"].get("flavour", "plain")
    if flavour == "sour":
        raise ValueError("a secret of the project")
    return alone("node_" + flavour, MessagesState)
"""
CONFIG = """{"graphs": {
    "agent": {"path": "./graphs.py:agent", "description": "Tastes."}, "parent": "./graphs.py:parent",
    "grand": "./graphs.py:grand", "old": "./graphs.py:old", "strange": "./graphs.py:strange", "made": "./graphs.py:made"
}}"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "graphs.py").write_text(GRAPHS)
    (tmp_path / "langgraph.json").write_text(CONFIG)
    return tmp_path / "langgraph.json"


@pytest.fixture
async def served(start: Start, project: Path) -> AsyncIterator[Client]:
    async with start(config=project) as client:
        yield client


@pytest.fixture
async def client(served: Client) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=str(served.http.base_url), api_key=None) as client:
        yield client


async def test_every_graph_has_an_assistant_of_its_own(client: LangGraphClient) -> None:
    found = await client.assistants.search(metadata={"created_by": "system"})

    assert [(one["graph_id"], one["name"]) for one in found] == [
        ("made", "made"),
        ("strange", "renamed"),
        ("old", "renamed"),
        ("grand", "grand"),
        ("parent", "parent"),
        ("agent", "agent"),
    ]
    assert found[-1] == {
        "assistant_id": AGENT,
        "graph_id": "agent",
        "config": {},
        "context": {},
        "metadata": {"created_by": "system"},
        "name": "agent",
        "created_at": found[-1]["created_at"],
        "updated_at": found[-1]["created_at"],
        "version": 1,
        "description": "Tastes.",
    }
    assert await client.assistants.get(AGENT) == await client.assistants.get("agent") == found[-1]


async def test_one_is_made_changed_taken_back_and_deleted(client: LangGraphClient) -> None:
    config: Any = {"configurable": {"flavour": "z"}, "tags": ["t"]}
    made = await client.assistants.create("agent", config, name="mine", metadata={"team": "a"}, description="d")
    changed = await client.assistants.update(
        made["assistant_id"], name="mine2", metadata={"b": 1}, context={"flavour": "q"}, graph_id="parent"
    )
    versions = await client.assistants.get_versions(made["assistant_id"])
    back = await client.assistants.set_latest(made["assistant_id"], 1)
    again = await client.assistants.update(made["assistant_id"], description="e")

    # The config and the context are two names of one thing: writing one fills the other.
    assert made["context"] == {"flavour": "z"}
    assert changed["config"] == {"configurable": {"flavour": "q"}, "tags": ["t"]}
    assert changed["metadata"] == {"team": "a", "b": 1}
    assert (changed["version"], changed["name"], changed["graph_id"]) == (2, "mine2", "parent")
    shared = changed.keys() - {"updated_at"}
    assert [{key: version[key] for key in shared} for version in versions] == [  # type: ignore[literal-required]
        {**{key: changed[key] for key in shared}, "created_at": changed["updated_at"]},  # type: ignore[literal-required]
        {key: made[key] for key in shared},  # type: ignore[literal-required]
    ]
    assert back == {**made, "updated_at": back["updated_at"]}
    assert (again["version"], again["name"], again["description"]) == (3, "mine", "e")
    assert await client.assistants.get_versions(made["assistant_id"], metadata={"b": 1}) == versions[:1]
    assert await client.assistants.get_versions(made["assistant_id"], metadata={"b": 2}) == []
    assert len(await client.assistants.get_versions(made["assistant_id"], limit=1, offset=2)) == 1

    await client.assistants.delete(made["assistant_id"])
    assert await client.assistants.search(name="mine") == []


async def test_an_id_of_ones_own(client: LangGraphClient) -> None:
    made = await client.assistants.create("agent", assistant_id=NOBODY.upper(), name="first")
    same = await client.assistants.create("parent", assistant_id=NOBODY, name="second", if_exists="do_nothing")

    assert made["assistant_id"] == NOBODY
    assert same == made
    with pytest.raises(ConflictError):
        await client.assistants.create("agent", assistant_id=NOBODY)


async def test_search_and_count(client: LangGraphClient) -> None:
    for number in range(3):
        await client.assistants.create("agent", name=f"Nr. {number}", metadata={"number": number, "of": {"all": 3}})

    page: Any = await client.assistants.search(graph_id="agent", limit=2, response_format="object")
    rest = await client.assistants.search(graph_id="agent", limit=2, offset=int(page["next"]))
    assert [one["name"] for one in [*page["assistants"], *rest]] == ["Nr. 2", "Nr. 1", "Nr. 0", "agent"]
    by_name = await client.assistants.search(
        name="nr.", sort_by="name", sort_order="asc", select=["name", "version"], metadata={"of": {"all": 3}}
    )
    assert by_name == [{"name": f"Nr. {number}", "version": 1} for number in range(3)]
    assert await client.assistants.count() == 9
    assert await client.assistants.count(graph_id="agent", name="NR", metadata={"number": 1}) == 1


async def test_the_headers_of_a_page(served: Client) -> None:
    first = await served.http.post("/assistants/search", json={"limit": 4})
    last = await served.http.post("/assistants/search", json={"limit": 4, "offset": 4})
    beyond = await served.http.post("/assistants/search", json={"offset": 100})

    assert first.headers["x-pagination-total"] == last.headers["x-pagination-total"] == "6"
    assert first.headers["x-pagination-next"] == "4"
    assert "x-pagination-next" not in last.headers
    assert (beyond.json(), beyond.headers["x-pagination-total"]) == ([], "6")
    assert "x-pagination-next" not in beyond.headers


def node(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "runnable", "data": {"name": name}, **more}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "target": target, **more}


async def test_the_graph_is_drawn(client: LangGraphClient) -> None:
    drawn = await client.assistants.get_graph("agent")
    inside = await client.assistants.get_graph("grand", xray=1)
    whole = await client.assistants.get_graph("grand", xray=True)

    assert drawn == {
        "nodes": [
            node("__start__"),
            node("agent"),
            node("tools", metadata={"__tools": ["get_weather"]}),
            node("ask", metadata={"colour": "red"}),
            {"id": "__end__"},
        ],
        "edges": [
            edge("__start__", "agent"),
            edge("agent", "ask", conditional=True),
            edge("agent", "tools", conditional=True),
            edge("tools", "agent"),
            edge("ask", "__end__"),
        ],
    }
    assert {one["id"] for one in inside["nodes"]} == {"__start__", "pre", "mid:pre", "mid:child", "__end__"}
    assert {"mid:child:agent", "mid:child:tools", "mid:child:ask"} <= {one["id"] for one in whole["nodes"]}


async def test_the_graph_is_described(client: LangGraphClient) -> None:
    described = await client.assistants.get_schemas("agent")

    taste = {"properties": {"flavour": {"title": "Flavour", "type": "string"}}, "title": "Taste", "type": "object"}
    assert list(described) == [
        "graph_id",
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    ]
    assert described["graph_id"] == "agent"
    assert described["config_schema"] == described["context_schema"] == taste
    for part in (described["input_schema"], described["output_schema"], described["state_schema"]):
        assert part is not None
        assert part["properties"]["messages"]["type"] == "array"
    assert described["state_schema"] is not None
    assert described["state_schema"]["title"] == "agent_state"
    plain = await client.assistants.get_schemas("parent")
    assert (plain["config_schema"], plain["context_schema"]) == ({}, None)


async def test_types_that_pydantic_cannot_describe_leave_the_rest_described(client: LangGraphClient) -> None:
    old = await client.assistants.get_schemas("old")
    strange = await client.assistants.get_schemas("strange")

    assert old["config_schema"] is old["context_schema"] is None
    assert old["input_schema"] is not None
    assert strange["input_schema"] is strange["output_schema"] is None
    assert strange["state_schema"] == {
        "properties": {
            "alien": {"default": None, "title": "Alien"},
            "_count": {"default": None, "title": "Count", "type": "integer"},
        },
        "title": "renamed_state",
        "type": "object",
    }


async def test_the_subgraphs(client: LangGraphClient) -> None:
    assert list(await client.assistants.get_subgraphs("agent")) == []
    assert list(await client.assistants.get_subgraphs("grand")) == ["mid"]
    everything = await client.assistants.get_subgraphs("grand", recurse=True)
    assert list(everything) == ["mid", "mid|child"]
    assert list(everything["mid"]) == [
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    ]
    assert await client.assistants.get_subgraphs("grand", "mid") == {"mid": everything["mid"]}
    assert await client.assistants.get_subgraphs("grand", "mid|child") == {"mid|child": everything["mid|child"]}
    assert await client.assistants.get_subgraphs("grand", "nope") == {}


async def test_a_factory_makes_the_graph_for_the_assistants_config(client: LangGraphClient) -> None:
    salty = await client.assistants.create("made", context={"flavour": "salty"})
    sour = await client.assistants.create("made", context={"flavour": "sour"})

    plain = await client.assistants.get_graph("made")
    assert [one["id"] for one in plain["nodes"]] == ["__start__", "node_plain", "__end__"]
    drawn = await client.assistants.get_graph(salty["assistant_id"])
    assert [one["id"] for one in drawn["nodes"]] == ["__start__", "node_salty", "__end__"]
    for look in (client.assistants.get_graph, client.assistants.get_schemas, client.assistants.get_subgraphs):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await look(sour["assistant_id"])  # type: ignore[operator]
        assert refused.value.response.status_code == 400
        assert "ValueError" in refused.value.response.text
        assert "secret" not in refused.value.response.text


async def test_the_sync_client(served: Client) -> None:
    def use() -> None:
        with get_sync_client(url=str(served.http.base_url), api_key=None) as client:
            made = client.assistants.create("agent", name="mine")
            id = made["assistant_id"]
            assert client.assistants.get(id) == made
            assert client.assistants.update(id, name="mine2")["version"] == 2
            assert [one["name"] for one in client.assistants.search(name="mine")] == ["mine2"]
            assert client.assistants.count(name="mine") == 1
            assert len(client.assistants.get_versions(id)) == 2
            assert client.assistants.set_latest(id, 1)["name"] == "mine"
            assert len(client.assistants.get_graph(id, xray=True)["nodes"]) == 5
            assert client.assistants.get_schemas(id)["graph_id"] == "agent"
            assert client.assistants.get_subgraphs(id, recurse=True) == {}
            client.assistants.delete(id)
            assert client.assistants.count(name="mine") == 0

    await asyncio.to_thread(use)


REFUSED = [
    ("GET", f"/assistants/{NOBODY}", None, 404, "Not Found"),
    ("GET", "/assistants/nope", None, 422, "Invalid assistant ID: must be a UUID"),
    ("GET", f"/assistants/{NOBODY}/graph", None, 404, "Not Found"),
    ("GET", "/assistants/nope/schemas", None, 422, "Invalid assistant ID: must be a UUID"),
    ("GET", f"/assistants/{NOBODY}/subgraphs/x", None, 404, "Not Found"),
    ("GET", "/assistants/agent/graph?xray=0", None, 422, "Invalid xray value"),
    ("GET", "/assistants/agent/graph?xray=-1", None, 422, "Invalid xray value"),
    ("GET", "/assistants/agent/graph?xray=x", None, 422, "Invalid xray value"),
    (
        "POST",
        "/assistants",
        {"graph_id": "nope"},
        404,
        "Graph 'nope' not found. Expected one of: ['agent', 'grand', 'made', 'old', 'parent', 'strange']",
    ),
    (
        "POST",
        "/assistants/search",
        {"graph_id": "nope"},
        404,
        "Graph 'nope' not found. Expected one of: ['agent', 'grand', 'made', 'old', 'parent', 'strange']",
    ),
    ("POST", "/assistants", {}, 422, "graph_id: Field required"),
    (
        "POST",
        "/assistants",
        {"graph_id": "agent", "assistant_id": "nope"},
        422,
        "Invalid assistant ID: must be a UUID",
    ),
    ("POST", "/assistants", {"graph_id": "agent", "assistant_id": AGENT}, 409, f"Assistant {AGENT} already exists"),
    (
        "POST",
        "/assistants",
        {"graph_id": "agent", "config": {"configurable": {"a": 1}}, "context": {"b": 1}},
        400,
        "Cannot specify both configurable and context. Prefer setting context alone. Context was introduced in "
        "LangGraph 0.6.0 and is the long term planned replacement for configurable.",
    ),
    ("PATCH", f"/assistants/{NOBODY}", {"name": "x"}, 404, f"Assistant {NOBODY} not found"),
    ("PATCH", "/assistants/agent", {"name": "x"}, 422, "Invalid assistant ID: must be a UUID"),
    ("POST", f"/assistants/{NOBODY}/versions", {}, 404, f"Assistant {NOBODY} not found"),
    ("POST", f"/assistants/{NOBODY}/latest", {"version": 1}, 404, f"Assistant {NOBODY} not found"),
    ("POST", f"/assistants/{AGENT}/latest", {"version": 9}, 404, f"Version 9 not found for assistant {AGENT}"),
    ("POST", f"/assistants/{AGENT}/latest", {}, 422, "version: Field required"),
    ("DELETE", f"/assistants/{NOBODY}", None, 404, f"Assistant with ID {NOBODY} not found"),
    ("DELETE", "/assistants/nope", None, 422, "Invalid assistant ID: must be a UUID"),
    (
        "DELETE",
        f"/assistants/{AGENT}",
        None,
        409,
        f"Assistant {AGENT} is graph 'agent' itself and cannot be deleted. "
        "Take the graph out of langgraph.json instead.",
    ),
]


async def test_what_is_refused(served: Client) -> None:
    for method, path, body, status, words in REFUSED:
        answer = await served.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()) == (status, {"detail": words}), (method, path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"limit": 0}',
        b'{"limit": 1001}',
        b'{"limit": "3"}',
        b'{"limit": true}',
        b'{"offset": -1}',
        b'{"offset": 99999999999999999999}',
        b'{"metadata": "x"}',
        b'{"select": ["nope"]}',
        b'{"sort_by": "nope"}',
        b'{"sort_order": "ASC"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
        b'{"metadata": ' + b'{"x":' * 1000 + b"1" + b"}" * 1001,
        b'{"metadata": {"x": NaN}}',
        b'{"metadata": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
)
async def test_bodies_that_make_no_sense(served: Client, body: bytes) -> None:
    answer = await served.http.post("/assistants/search", content=body)

    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert isinstance(answer.json()["detail"], str)


async def test_what_is_deep_but_allowed_is_kept(served: Client) -> None:
    deep: Any = 2**63 - 1
    for _ in range(90):
        deep = {"x": deep}

    made = await served.http.post("/assistants", json={"graph_id": "agent", "metadata": deep, "config": deep})
    found = await served.http.get(f"/assistants/{made.json()['assistant_id']}")
    patched = await served.http.patch(f"/assistants/{made.json()['assistant_id']}", json={"context": deep})

    assert made.status_code == found.status_code == patched.status_code == 200
    assert found.json()["metadata"] == deep


async def test_a_body_is_json_whatever_its_content_type_says(served: Client) -> None:
    answer = await served.http.post(
        "/assistants/search", content=b'{"limit": 1, "select": ["name"]}', headers={"content-type": "text/plain"}
    )

    assert answer.json() == [{"name": "made"}]


async def test_a_context_can_be_emptied_and_config_keeps_what_is_no_context(client: LangGraphClient) -> None:
    made = await client.assistants.create("agent", {"configurable": {"a": 1}, "recursion_limit": 7})
    emptied = await client.assistants.update(made["assistant_id"], context={})
    filled = await client.assistants.update(made["assistant_id"], config={"configurable": {"b": 2}})
    tagged = await client.assistants.update(made["assistant_id"], config={"tags": ["t"]})

    assert (emptied["config"], emptied["context"]) == ({"recursion_limit": 7}, {})
    assert (filled["config"], filled["context"]) == ({"configurable": {"b": 2}}, {"b": 2})
    assert (tagged["config"], tagged["context"]) == ({"tags": ["t"]}, {"b": 2})


async def test_callers_see_their_own_and_the_services(start: Start, project: Path) -> None:
    async with start(config=project, api_keys=("one-key", "other-key")) as served:
        url = str(served.http.base_url)
        async with get_client(url=url, api_key="one-key") as one, get_client(url=url, api_key="other-key") as other:
            mine = await one.assistants.create("agent", name="mine")
            id = mine["assistant_id"]

            assert await other.assistants.search(name="mine") == []
            assert await other.assistants.count() == 6
            for refused in (
                other.assistants.get(id),
                other.assistants.update(id, name="theirs"),
                other.assistants.get_versions(id),
                other.assistants.get_graph(id),
                other.assistants.delete(id),
            ):
                with pytest.raises(httpx.HTTPStatusError) as error:
                    await refused
                assert error.value.response.status_code == 404
            with pytest.raises(ConflictError):
                await other.assistants.create("agent", assistant_id=id, if_exists="do_nothing")
            # What all share, none may change.
            with pytest.raises(ConflictError):
                await other.assistants.update(AGENT, name="theirs")
            assert (await one.assistants.get(id)) == mine


async def test_deleting_an_assistants_threads_with_it(client: LangGraphClient) -> None:
    made = (await client.assistants.create("agent"))["assistant_id"]
    threads = [(await client.threads.create())["thread_id"] for _ in range(3)]
    for thread_id, assistant_id in zip(threads, (made, "agent", made), strict=True):
        await client.runs.wait(thread_id, assistant_id, input={"messages": []})

    await client.assistants.delete(made, delete_threads=True)

    assert [thread["thread_id"] for thread in await client.threads.search()] == [threads[1]]


async def test_the_next_start_keeps_assistants_and_follows_the_project(start: Start, project: Path) -> None:
    async with start(config=project) as served:
        url = str(served.http.base_url)
        async with get_client(url=url, api_key=None) as client:
            mine = await client.assistants.create("parent", name="mine")
            theirs = await client.assistants.create("grand", name="of a graph that goes")
            named = await client.assistants.update(AGENT, name="named by me")
            before = await client.assistants.get("parent")

    project.write_text(
        '{"graphs": {"agent": {"path": "./graphs.py:agent", "description": "New."}, '
        '"parent": {"path": "./graphs.py:parent", "description": "Described now."}}}'
    )
    async with start(config=project) as served:
        url = str(served.http.base_url)
        async with get_client(url=url, api_key=None) as client:
            found = await client.assistants.search(metadata={"created_by": "system"})
            assert {one["graph_id"] for one in found} == {"agent", "parent"}
            assert await client.assistants.get(mine["assistant_id"]) == mine
            assert await client.assistants.get(AGENT) == named
            after = await client.assistants.get("parent")
            assert (after["description"], after["version"]) == ("Described now.", before["version"])
            assert (await client.assistants.get(theirs["assistant_id"])) == theirs
            gone = await served.http.get(f"/assistants/{theirs['assistant_id']}/graph")
            assert (gone.status_code, gone.json()) == (
                404,
                {"detail": "Graph 'grand' not found. Expected one of: ['agent', 'parent']"},
            )


async def test_a_run_names_its_assistant_by_id_or_graph(served: Client) -> None:
    assert served.context is not None
    resolve = served.context.assistants.resolve

    assert (await resolve("agent", LOCAL)).assistant_id == AGENT
    assert (await resolve(AGENT, LOCAL)).graph_id == "agent"
    with pytest.raises(Invalid) as invalid:
        await resolve("nope", LOCAL)
    assert invalid.value.message == (
        "Invalid assistant: 'nope'. Must be either:\n- A valid assistant UUID, or\n"
        "- One of the registered graphs: agent, parent, grand, old, strange, made"
    )
    with pytest.raises(Missing) as missing:
        await resolve(NOBODY, LOCAL)
    assert missing.value.message == "Thread or assistant not found."
