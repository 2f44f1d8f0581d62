"""The node that makes the calls the analysis asked for, all at once; a failed one is data for the model.

Calls that a person must allow are asked about first, before any is made: when the answer comes, the node begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from langchain_core.messages import AnyMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StreamWriter, interrupt

from graph import approval
from graph.approval import Verdict
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


class Tools(Protocol):
    """The tools, for whoever the run is for. See `tools.toolbox`."""

    async def call(self, name: str, args: Mapping[str, Any], asker: Any) -> Outcome:
        """Call a tool by name; trouble is in the outcome, never raised."""
        ...

    def asks(self, name: str, args: Mapping[str, Any], asker: Any) -> bool:
        """Whether a person must allow this call first."""
        ...

    def asker(self, config: RunnableConfig) -> Any:
        """On whose behalf a run calls."""
        ...


async def execute_tools(state: State, config: RunnableConfig, *, writer: StreamWriter, tools: Tools) -> Update:
    """Make the open calls in parallel and answer each with a tool message."""
    asker, allowed = tools.asker(config), state.get("allowed_tools", [])
    calls = open_calls(state["messages"])
    risky = [call for call in calls if call["name"] not in allowed and tools.asks(call["name"], call["args"], asker)]
    verdict = _ask(risky) if risky else Verdict([], {})
    changed = {call["id"]: call for call in verdict.calls}
    final = [changed.get(call["id"], call) for call in calls]

    async def answer(call: ToolCall) -> ToolMessage:
        if call["id"] in verdict.refused:
            return _refusal(call, verdict.refused[call["id"]], writer)
        return await _answer(call, writer, tools, asker)

    answers: list[AnyMessage] = [*await asyncio.gather(*map(answer, final))]
    update: Update = {"messages": answers if final == calls else [_with_calls(state, final), *answers]}
    if verdict.always:
        update["allowed_tools"] = sorted({*allowed, *verdict.always})
    return update


def _ask(calls: Sequence[ToolCall]) -> Verdict:
    """Wait for a person's decision. An answer that cannot be read is asked for again, with what was wrong."""
    trouble: str | None = None
    while True:
        answer = interrupt(approval.request(calls, trouble=trouble))
        try:
            return approval.decided(calls, answer)
        except ValueError as error:
            trouble = str(error)


def _with_calls(state: State, calls: list[ToolCall]) -> AnyMessage:
    """The message that made the calls, with what a person made of them."""
    return state["messages"][-1].model_copy(update={"tool_calls": calls})


def _refusal(call: ToolCall, reason: str, writer: StreamWriter) -> ToolMessage:
    """Tell the model and the readers that a call was not made, and why."""
    brief = {"type": "tool", "id": call["id"], "name": call["name"], "args": call["args"]}
    writer({**brief, "status": "failed", "error": reason, "ms": 0, "cached": False})
    return _message(call, reason, status="error")


async def _answer(call: ToolCall, writer: StreamWriter, tools: Tools, asker: Any) -> ToolMessage:
    brief = {"type": "tool", "id": call["id"], "name": call["name"]}
    writer({**brief, "status": "started", "args": call["args"]})
    outcome = await tools.call(call["name"], call["args"], asker)
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
