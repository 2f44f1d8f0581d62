"""A factory that keeps what it is opened for; its graph says who runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph_sdk.runtime import ServerRuntime

OPENED = Path(__file__).with_name("opened.jsonl")


def say(state: MessagesState) -> dict[str, Any]:
    configurable = get_config()["configurable"]
    said = {name: configurable.get(name) for name in ("langgraph_auth_user_id", "tenant")}
    return {"messages": [AIMessage(json.dumps(said))]}


async def told(config: RunnableConfig, runtime: ServerRuntime) -> StateGraph[Any, Any, Any, Any]:
    configurable = config.get("configurable", {})
    line = {
        "access": runtime.access_context,
        "user": runtime.user.identity if runtime.user is not None else None,
        "id": configurable.get("langgraph_auth_user_id"),
        "permissions": configurable.get("langgraph_auth_permissions"),
        "tone": configurable.get("tone"),
    }
    await asyncio.to_thread(_keep, line)
    builder = StateGraph(MessagesState)
    builder.add_node("say", say)
    builder.add_edge(START, "say")
    builder.add_edge("say", END)
    return builder


def _keep(line: dict[str, Any]) -> None:
    with OPENED.open("a") as file:
        file.write(json.dumps(line) + "\n")
