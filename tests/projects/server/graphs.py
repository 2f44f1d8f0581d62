"""A LangGraph project whose graphs do every thing a server must show: they stream, call tools, ask, fail and wait.

`agent` streams five tokens. Its input's text steers it: "weather" calls a tool, "approve" asks, "boom" fails,
"forever" never ends. `parent` is the same as a subgraph. `bench` streams as many tokens as its input says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt


class FakeModel(BaseChatModel):
    """Streams `tok0 tok1 …`, or a tool call in two parts where the weather is asked for."""

    tokens: int = 5

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said: AIMessageChunk | None = None
        for chunk in self._stream(messages):
            said = chunk.message if said is None else said + chunk.message  # type: ignore[assignment]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said.content, tool_calls=said.tool_calls))])  # type: ignore[union-attr]

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for part in self._parts(messages):
            yield ChatGenerationChunk(message=part)

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for part in self._parts(messages):
            await asyncio.sleep(0)
            yield ChatGenerationChunk(message=part)

    def _parts(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
        if messages[-1].type == "human" and "weather" in text_of(messages[-1]):
            call = {"name": "get_weather", "id": "call_1", "index": 0, "type": "tool_call_chunk"}
            yield AIMessageChunk("", tool_call_chunks=[{**call, "args": '{"city":'}])  # type: ignore[list-item]
            rest = {"name": None, "id": None, "index": 0, "type": "tool_call_chunk", "args": ' "Paris"}'}
            yield AIMessageChunk("", tool_call_chunks=[rest])  # type: ignore[list-item]
            return
        for number in range(self.tokens):
            yield AIMessageChunk(f"tok{number} ")


def text_of(message: BaseMessage) -> str:
    return message.content if isinstance(message.content, str) else str(message.content)


@tool
async def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def think(state: MessagesState) -> dict[str, Any]:
    text = text_of(state["messages"][-1])
    get_stream_writer()({"progress": "thinking"})
    if "boom" in text:
        raise ValueError("boom happened, the key was hunter2")
    if "forever" in text:
        await asyncio.Event().wait()
    return {"messages": [await FakeModel().ainvoke(state["messages"])]}


async def ask(state: MessagesState) -> dict[str, Any] | None:
    human = [text_of(message) for message in state["messages"] if message.type == "human"][-1]
    if "approve" in human:
        answer = interrupt({"question": "ok?", "for": human})
        return {"messages": [AIMessage(f"approved: {answer}", id=f"answer-{len(state['messages'])}")]}
    return None


def after_thinking(state: MessagesState) -> str:
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "ask"


def _agent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(MessagesState)
    builder.add_node("agent", think)
    builder.add_node("tools", ToolNode([get_weather]))
    builder.add_node("ask", ask)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", after_thinking, ["tools", "ask"])
    builder.add_edge("tools", "agent")
    builder.add_edge("ask", END)
    return builder


agent = _agent().compile()


def _parent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(MessagesState)
    builder.add_node("pre", lambda state: None)
    builder.add_node("child", _agent().compile())
    builder.add_edge(START, "pre")
    builder.add_edge("pre", "child")
    builder.add_edge("child", END)
    return builder


parent = _parent().compile()


async def _speak(state: MessagesState) -> dict[str, Any]:
    tokens = int(text_of(state["messages"][-1]) or 100)
    return {"messages": [await FakeModel(tokens=tokens).ainvoke(state["messages"])]}


_bench = StateGraph(MessagesState)
_bench.add_node("speak", _speak)
_bench.add_edge(START, "speak")
_bench.add_edge("speak", END)
bench = _bench.compile()
