"""Graphs that do all a recording may hold, and count every call of their model and their tools.

The text of the input steers `agent`: "tool" calls one, "both" two at once and in two nodes at once, "ask" asks, "boom"
fails, "wait" never ends. `parent` is the same as a subgraph. Appends a line to the file `CALLS` for each call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt


def count(what: str) -> None:
    with Path(os.environ["RECORDED_CALLS"]).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


class CountedModel(BaseChatModel):
    """Streams six words, or the calls the question wants."""

    @property
    def _llm_type(self) -> str:
        return "counted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        count("model")
        asked = str(messages[-1].content) if messages[-1].type == "human" else ""
        wanted = {"tool": ("서울",), "both": ("Paris", "broken")}
        for number, city in enumerate(wanted.get(asked.split(" ")[0], ())):
            call = {"name": "weather", "args": f'{{"city": "{city}"}}', "id": f"call-{len(messages)}-{number}"}
            yield _chunk(AIMessageChunk("", tool_call_chunks=[{**call, "index": number, "type": "tool_call_chunk"}]))  # type: ignore[list-item,typeddict-item]
        if not asked or asked.split(" ")[0] not in wanted:
            for word in ("the ", "sea ", "is ", "wide, ", "바다는 ", "넓다"):
                await asyncio.sleep(0)
                yield _chunk(AIMessageChunk(word))


def _chunk(message: AIMessageChunk) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=message)


@tool
async def weather(city: str) -> str:
    """The weather in a city."""
    count("tool")
    if city == "broken":
        raise ValueError("no such city")
    return f"sunny in {city}"


class State(MessagesState):
    notes: dict[str, int]


def question(state: State) -> str:
    return [str(message.content) for message in state["messages"] if message.type == "human"][-1]


async def think(state: State) -> dict[str, Any]:
    get_stream_writer()({"progress": "thinking"})
    if "boom" in question(state):
        raise ValueError("the key was hunter2")
    if "wait" in question(state):
        await asyncio.Event().wait()
    return {"messages": [await CountedModel().ainvoke(state["messages"])]}


def ask(state: State) -> dict[str, Any]:
    if "ask" not in question(state):
        return {"notes": {"asked": 0}}
    return {"messages": [AIMessage(f"you said {interrupt({'question': 'sure?'})}")], "notes": {"asked": 1}}


async def beside(state: State) -> None:
    """Runs at the same time as the node that thinks."""
    get_stream_writer()({"type": "tool", "id": "b", "name": "beside", "status": "started", "args": {}})


def after_thinking(state: State) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "ask"


def _agent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("think", think)
    builder.add_node("beside", beside)
    builder.add_node("tools", ToolNode([weather], handle_tool_errors=True))
    builder.add_node("ask", ask)
    builder.add_edge(START, "think")
    builder.add_edge(START, "beside")
    builder.add_conditional_edges("think", after_thinking, ["tools", "ask"])
    builder.add_edge("tools", "think")
    builder.add_edge("ask", END)
    return builder


agent = _agent().compile()


def _parent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("before", lambda state: {"notes": {"before": 1}})
    builder.add_node("child", _agent().compile())
    builder.add_edge(START, "before")
    builder.add_edge("before", "child")
    builder.add_edge("child", END)
    return builder


parent = _parent().compile()
