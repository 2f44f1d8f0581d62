"""A LangGraph project that does what the page must show and the built-in agent never does.

Words in the message steer `agent`: "slowly" writes until it is stopped, "markup" answers with HTML, scripts and every
kind of Markdown, "fail" breaks the node the first time, "approve" asks for approval as LangChain's agents do, "ask me"
asks a question, "long" answers with a megabyte in one line, "right" with right-to-left marks, "huge" fills the state.
`parent` has it as a subgraph; `plain` is a graph that is no conversation.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from pydantic import BaseModel, Field

MARKUP = (
    "<img src=x onerror=\"window.__ran = 'img'\"> <script>window.__ran = 'script'</script>\n\n"
    "[click](javascript:window.__ran='link') and [safe](https://example.com/a?b=1) and **bold <b>text</b>**\n\n"
    "![picture](https://example.com/p.png)\n\n"
    "```html\n<script>window.__ran = 'code'</script>\n```\n\n- one `<i>code</i>`\n- two\n\n"
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "It costs $5, or $10 today; $E = mc^2$ and \\(a+b\\).\n\n$$\\int_0^1 x\\,dx$$\n\n```python\nprint('hi')\n```"
)
SLOW_STEP = 0.02


class Context(BaseModel):
    """What an assistant of this project sets."""

    tone: Literal["dry", "warm"] = Field("dry", title="Tone", description="How it speaks.")
    words: int = Field(3, ge=1, le=50, title="Words")
    shout: bool = Field(False, title="Shout")


class State(MessagesState):
    note: str


class Scripted(BaseChatModel):
    """Says a text word by word."""

    says: str = ""
    pause: float = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.says))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in self.says.split(" "):
            await asyncio.sleep(self.pause)
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))


_failed: set[str] = set()


def _last(state: State) -> str:
    return [str(message.content) for message in state["messages"] if message.type == "human"][-1]


async def plan(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Calls a tool where one is asked for."""
    text = _last(state)
    get_stream_writer()({"progress": "planning"})
    if "approve" in text:
        call = {"name": "send_mail", "args": {"to": "kim@example.com"}, "id": f"mail-{len(state['messages'])}"}
        return {"messages": [AIMessage("", tool_calls=[call], id=f"call-{len(state['messages'])}")]}
    if "huge" in text:
        return {"note": "x" * 5_000_000}
    return {"note": f"planned: {text}"}


async def act(state: State) -> dict[str, Any]:
    """Makes the call, once somebody has allowed it."""
    call = state["messages"][-1].tool_calls[0]  # type: ignore[union-attr]
    review = {"action_name": call["name"], "allowed_decisions": ["approve", "edit", "reject"]}
    asked = {"name": call["name"], "args": call["args"], "description": "Sends a mail."}
    answer = interrupt({"action_requests": [asked], "review_configs": [review]})
    decision = answer["decisions"][0]
    args = decision.get("edited_action", {}).get("args", call["args"])
    told = f"{decision['type']}: {decision.get('message') or args['to']}"
    return {"messages": [ToolMessage(told, tool_call_id=call["id"], name=call["name"], id=f"{call['id']}-done")]}


async def answer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Says something."""
    text = _last(state)
    if "fail" in text and text not in _failed:
        _failed.add(text)
        await Scripted(says="This will not").ainvoke(state["messages"])
        raise ValueError("the key was hunter2")
    if "ask me" in text:
        city = interrupt({"question": "Which city do you mean?", "options": ["Seoul", "Busan"]})
        return {"messages": [await Scripted(says=f"You said {city}").ainvoke(state["messages"])]}
    says, pause = f"You said {text}", 0.0
    if "slowly" in text:
        says, pause = " ".join(f"word{n}" for n in range(1, 2000)), SLOW_STEP
    elif "count" in text:
        says = " ".join(str(n) for n in range(100, 160))
    elif "markup" in text:
        says = MARKUP
    elif "long" in text:
        says = "x" * 1_000_000
    elif "right" in text:
        says = "\u202eabc\u202c \u05d0\u05d1"
    elif isinstance(state["messages"][-1], ToolMessage):
        says = str(state["messages"][-1].content)
    if runtime.context and runtime.context.shout:
        says = says.upper()
    return {"messages": [await Scripted(says=says, pause=pause).ainvoke(state["messages"])]}


def after_plan(state: State) -> Literal["act", "answer"]:
    last = state["messages"][-1]
    return "act" if isinstance(last, AIMessage) and last.tool_calls else "answer"


def _agent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State, context_schema=Context)
    builder.add_node("plan", plan)
    builder.add_node("act", act)
    builder.add_node("answer", answer)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", after_plan)
    builder.add_edge("act", "answer")
    builder.add_edge("answer", END)
    return builder


agent = _agent().compile()


def _parent() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State, context_schema=Context)
    builder.add_node("before", lambda state: None)
    builder.add_node("child", _agent().compile())
    builder.add_edge(START, "before")
    builder.add_edge("before", "child")
    builder.add_edge("child", END)
    return builder


parent = _parent().compile()


class Sum(TypedDict):
    numbers: Annotated[list[int], operator.add]
    total: int


def _plain() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(Sum)
    builder.add_node("add", lambda state: {"total": sum(state["numbers"])})
    builder.add_edge(START, "add")
    builder.add_edge("add", END)
    return builder


plain = _plain().compile()
