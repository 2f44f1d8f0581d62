"""The node that finds out what a message asks for and which tools that takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolCall
from langgraph.types import StreamWriter
from pydantic import ValidationError

from graph.intent import Intent, response_format
from graph.prompts import Prompt
from graph.state import State, Update, calls_made, this_turn
from graph.window import compressed, window
from threadline.domain.errors import ModelFault

MAX_STEPS = 8
"""How often one turn may go through the tools."""

UNKNOWN = Intent(kind="unknown", confidence=0, language="en")


async def analyze_intent(
    state: State,
    *,
    writer: StreamWriter,
    model: BaseChatModel,
    prompt: Prompt,
    specs: Sequence[Mapping[str, Any]],
    size: int,
) -> Update:
    """Ask the model for an `Intent`; invalid output once more with what was wrong; then go on with `unknown`."""
    messages = state["messages"]
    system = SystemMessage(prompt.render(tools=describe(specs)))
    asked = model.bind(response_format=response_format(specs)).with_config(tags=["nostream"])
    try:
        intent = await _ask(asked, [system, *window(messages, size=size)])
    except ModelFault as fault:
        if fault.kind != "context_overflow":
            raise
        intent = await _ask(asked, [system, *compressed(messages)])
    calls = _new_calls(intent, messages)
    brief = intent.model_dump(include={"kind", "confidence", "language"})
    planned = [{"name": call["name"], "args": call["args"]} for call in calls]
    writer({"type": "intent", **brief, "tool_calls": planned})
    update: Update = {"intent": {**brief, "needs_more": intent.needs_more and bool(calls)}}  # type: ignore[typeddict-item]
    if calls:
        update["messages"] = [AIMessage("", tool_calls=calls, id=str(uuid4()))]
    return update


def describe(specs: Sequence[Mapping[str, Any]]) -> str:
    """The tools as lines for a prompt."""
    return "\n".join(f"- {spec['name']}: {spec['description']} Arguments: {spec['parameters']}" for spec in specs)


async def _ask(model: Any, messages: list[AnyMessage]) -> Intent:
    reply = await model.ainvoke(messages)
    try:
        return _parsed(reply)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    correction = HumanMessage(f"That was not valid ({reasons}). Answer again with only the JSON object described.")
    try:
        return _parsed(await model.ainvoke([*messages, AIMessage(reply.text), correction]))
    except ValidationError:
        return UNKNOWN


def _parsed(reply: AIMessage) -> Intent:
    """The intent in a reply, which small models like to wrap in a code fence. Raises ValidationError."""
    found = re.search(r"\{.*\}", reply.text, re.DOTALL)
    return Intent.model_validate_json(found.group() if found else reply.text)


def _new_calls(intent: Intent, messages: Sequence[AnyMessage]) -> list[ToolCall]:
    """The calls to make: none that this turn has made already, none at all once it has gone through the tools often."""
    made = calls_made(messages)
    if sum(isinstance(m, AIMessage) and bool(m.tool_calls) for m in this_turn(messages)) >= MAX_STEPS:
        return []
    seen = [(call["name"], call["args"]) for call in made]
    calls: list[ToolCall] = []
    for planned in intent.tool_calls:
        if (planned.name, planned.args) not in seen:
            seen.append((planned.name, planned.args))
            calls.append(ToolCall(name=planned.name, args=planned.args, id=f"call_{uuid4().hex}", type="tool_call"))
    return calls
