"""What a graph keeps in the store and is told of its caller, where several callers use one service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from tests.conftest import Start

GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.config import get_config, get_store
from langgraph.graph import END, START, MessagesState, StateGraph


async def remember(state: MessagesState):
    store, said = get_store(), state["messages"][-1].content
    known = [item.value["said"] for item in await store.asearch(("notes",))]
    await store.aput(("notes",), said, {"said": said})
    told = get_config()["configurable"].get("langgraph_auth_user_id")
    return {"messages": [AIMessage(f"{told} {sorted(known)}")]}


builder = StateGraph(MessagesState)
builder.add_node("remember", remember)
builder.add_edge(START, "remember")
builder.add_edge("remember", END)
agent = builder.compile()
"""
AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def who(headers: dict) -> dict:
    return {"identity": headers[b"x-api-key"].decode()}
"""


def project(folder: Path, extra: str = "") -> Path:
    (folder / "remembers.py").write_text(GRAPH)
    (folder / "who.py").write_text(AUTH)
    (folder / "langgraph.json").write_text('{"graphs": {"agent": "./remembers.py:agent"}' + extra + "}")
    return folder / "langgraph.json"


async def answers(url: str, key: str, *, config: dict[str, Any] | None = None) -> list[str]:
    """What the graph says to two runs of one caller."""
    said = []
    client = get_client(url=url, api_key=key)
    for word in ("one", "two"):
        given = {"messages": [{"role": "user", "content": f"{key} {word}"}]}
        values: Any = await client.runs.wait(None, "agent", input=given, config=config or {})  # type: ignore[arg-type]
        said.append(values["messages"][-1]["content"])
    items = (await client.store.search_items(("notes",)))["items"]
    assert sorted(item["key"] for item in items) == [f"{key} one", f"{key} two"]
    return said


async def test_callers_with_keys_of_their_own(start: Start, tmp_path: Path) -> None:
    async with start(config=project(tmp_path), api_keys="alice-1234567890,bob-1234567890") as service:
        url = str(service.http.base_url)
        first = await answers(url, "alice-1234567890")
        second = await answers(url, "bob-1234567890")

    assert first == ["None []", "None ['alice-1234567890 one']"]
    assert second == ["None []", "None ['bob-1234567890 one']"]


async def test_callers_a_project_tells_apart(start: Start, tmp_path: Path) -> None:
    config = project(tmp_path, ', "auth": {"path": "./who.py:auth"}')
    forged = {"configurable": {"langgraph_auth_user_id": "alice", "langgraph_auth_user": {"identity": "alice"}}}
    async with start(config=config) as service:
        url = str(service.http.base_url)
        first = await answers(url, "alice")
        second = await answers(url, "bob", config=forged)

    assert first == ["alice []", "alice ['alice one']"]
    assert second == ["bob []", "bob ['bob one']"]
