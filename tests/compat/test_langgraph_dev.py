"""`langgraph dev`: the agent is a LangGraph project like any other, so LangGraph's own server runs it as it stands."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient

from tests.compat.peer import langgraph_dev
from tests.service import ROOT
from tests.stubs.model_server import ModelStub

PROJECT = ("graph", "tools", "threadline", "api", "langgraph.json", "pyproject.toml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, since the server leaves its state beside the langgraph.json."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "static"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


async def test_the_agent_runs_without_a_key(project: Path) -> None:
    async with langgraph_dev(project) as client:
        assistant = await found(client)
        drawn = await client.assistants.get_graph(assistant["assistant_id"])
        assert {"analyze_intent", "execute_tools", "respond"} <= {node["id"] for node in drawn["nodes"]}

        thread_id = (await client.threads.create())["thread_id"]
        parts = await asked(client, thread_id, "What is (15+27)*3?")
        assert {"analyze_intent", "execute_tools", "respond"} <= updated(parts)
        assert "126" in streamed(parts)
        assert "126" in await last_message(client, thread_id)

        # A follow-up, and a tool that loads a good deal at its first use: the server refuses what blocks its loop.
        await asked(client, thread_id, "5 km in miles?")
        assert "3.1" in await last_message(client, thread_id)


async def test_the_agent_runs_with_a_model_server(project: Path, model: ModelStub) -> None:
    model.tokens = 5
    async with langgraph_dev(project, OPENAI_BASE_URL=model.url) as client:
        await found(client)
        thread_id = (await client.threads.create())["thread_id"]
        parts = await asked(client, thread_id, 'use calculator {"expression": "6*7"}')

        assert '"result":"42"' in str(parts)
        assert streamed(parts).endswith("word0 word1 word2 word3 word4 ")


async def found(client: LangGraphClient) -> Any:
    [assistant] = await client.assistants.search(graph_id="agent")
    return assistant


async def asked(client: LangGraphClient, thread_id: str, question: str) -> list[Any]:
    """The parts of one run, none of which is an error."""
    message = {"role": "user", "content": question}
    modes = ["messages-tuple", "updates", "custom"]
    run = client.runs.stream(thread_id, "agent", input={"messages": [message]}, stream_mode=modes)  # type: ignore[arg-type]
    parts = [part async for part in run]
    assert not [part for part in parts if part.event == "error"], parts
    return parts


def updated(parts: Sequence[Any]) -> set[str]:
    """The nodes that have run."""
    return {node for part in parts if part.event == "updates" for node in part.data}


def streamed(parts: Sequence[Any]) -> str:
    """The answer as its tokens came."""
    chunks = [part.data[0] for part in parts if part.event == "messages"]
    return "".join(chunk["content"] for chunk in chunks if chunk["type"] == "AIMessageChunk")


async def last_message(client: LangGraphClient, thread_id: str) -> str:
    state: Any = await client.threads.get_state(thread_id)
    return str(state["values"]["messages"][-1]["content"])
