"""The node that makes the calls the analysis asked for, all at once; a failed one is data for the model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from langchain_core.messages import ToolCall, ToolMessage
from langgraph.types import StreamWriter

from graph.state import State, Update, open_calls


class Outcome(Protocol):
    """What a tool call came to: `result` or `error` is set. See `tools.contract`."""

    @property
    def args(self) -> dict[str, Any]: ...
    @property
    def result(self) -> dict[str, Any] | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def ms(self) -> int: ...
    @property
    def cached(self) -> bool: ...
    @property
    def recorded(self) -> bool: ...


class CallTool(Protocol):
    """Calls a tool by name; trouble is in the outcome, never raised. See `tools.toolbox`."""

    async def __call__(self, name: str, args: Mapping[str, Any]) -> Outcome: ...


async def execute_tools(state: State, *, writer: StreamWriter, call_tool: CallTool) -> Update:
    """Make the open calls in parallel and answer each with a tool message."""
    calls = open_calls(state["messages"])
    answers = await asyncio.gather(*(_answer(call, writer, call_tool) for call in calls))
    return {"messages": list(answers)}


async def _answer(call: ToolCall, writer: StreamWriter, call_tool: CallTool) -> ToolMessage:
    brief = {"type": "tool", "id": call["id"], "name": call["name"]}
    writer({**brief, "status": "started", "args": call["args"]})
    outcome = await call_tool(call["name"], call["args"])
    told = {**brief, "args": outcome.args, "ms": outcome.ms, "cached": outcome.cached}
    if outcome.recorded:
        told["recorded"] = True
    if outcome.error is not None:
        writer({**told, "status": "failed", "error": outcome.error})
        return _message(call, outcome.error, status="error")
    writer({**told, "status": "finished", "result": outcome.result})
    return _message(call, orjson.dumps(outcome.result).decode(), status="success", artifact=outcome.result)


def _message(call: ToolCall, content: str, *, status: str, artifact: Any = None) -> ToolMessage:
    # A call's message has the call's id, so that executing the node again replaces it instead of adding a second one.
    return ToolMessage(
        content, tool_call_id=call["id"], name=call["name"], status=status, artifact=artifact, id=f"{call['id']}_result"
    )
