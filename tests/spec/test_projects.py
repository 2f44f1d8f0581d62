"""Somebody else's project, served as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import process

PROJECT = {
    "graph/__init__.py": "",
    "graph/agent.py": """
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from api.words import greeting
from tools import shout


def greet(state: MessagesState):
    from api.late import mark  # as some do, to start faster
    return {"messages": [AIMessage(shout(greeting()) + mark)]}


graph = StateGraph(MessagesState)
graph.add_node("greet", greet)
graph.add_edge(START, "greet")
graph.add_edge("greet", END)
graph = graph.compile()
""",
    "tools.py": "def shout(text):\n    return text.upper()\n",
    "api/words.py": "def greeting():\n    return 'hello from elsewhere'\n",
    "api/late.py": "mark = '!'\n",
    "langgraph.json": '{"graphs": {"greeter": "./graph/agent.py:graph"}}',
}


async def test_a_project_with_its_own_graph_tools_and_api_gets_its_own(tmp_path: Path) -> None:
    for name, content in PROJECT.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    async with process(tmp_path / "data", "--config", str(tmp_path / "project" / "langgraph.json")) as (_, client):
        frames = await client.chat("hi")
        listed = await client.json("/sessions")
        page = await client.http.get("/", headers={"accept": "text/html"})
        described = await client.json("/openapi.json")

    assert [frame.data["content"] for frame in frames if frame.event == "message"] == ["HELLO FROM ELSEWHERE!"]
    assert [frame.data["node"] for frame in frames if frame.event == "node"] == ["greet", "greet"]
    assert listed["items"][0]["turns"] == 1
    assert page.status_code == 200
    assert "/chat" in described["paths"]


EXPORTS = {
    "builder": "agent = builder",
    "compiled": "agent = builder.compile()",
    "function": "def agent():\n    return builder.compile()",
    "with config": "def agent(config):\n    assert 'configurable' in config or config == {}\n    return builder",
    "async": "async def agent():\n    return builder",
    "async context": "@contextlib.asynccontextmanager\nasync def agent(config):\n    yield builder.compile()",
    "context": "@contextlib.contextmanager\ndef agent():\n    yield builder",
}
BUILDER = """
import contextlib
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

builder = StateGraph(MessagesState)
builder.add_node("echo", lambda state: {"messages": [AIMessage("echo " + state["messages"][-1].content)]})
builder.add_edge(START, "echo")
builder.add_edge("echo", END)
"""


@pytest.mark.parametrize("export", EXPORTS)
async def test_every_form_of_graph_langgraph_knows(start, tmp_path: Path, export: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "echo.py").write_text(f"{BUILDER}\n{EXPORTS[export]}\n")
    (tmp_path / "langgraph.json").write_text('{"graphs": {"agent": {"path": "./echo.py:agent"}}}')

    async with start(config=tmp_path / "langgraph.json") as service:
        first = await service.chat("one")
        second = await service.chat("two", first[0].data["session_id"])

    assert [frame.data["content"] for frame in [*first, *second] if frame.event == "message"] == [
        "echo one",
        "echo two",
    ]
