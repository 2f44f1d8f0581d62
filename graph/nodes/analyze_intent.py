"""The node that finds out what a message asks for and which tools that takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolCall
from langchain_core.runnables import RunnableConfig
from langgraph.types import StreamWriter
from pydantic import ValidationError

from graph import choices
from graph.intent import Intent, response_format
from graph.request import Ask, fitting
from graph.state import State, Update, calls_made

UNKNOWN = Intent(kind="unknown", confidence=0, language="en")
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


async def analyze_intent(
    state: State,
    *,
    config: RunnableConfig,
    writer: StreamWriter,
    ask: Ask,
    specs: Sequence[Mapping[str, Any]],
    size: int,
) -> Update:
    """Ask the model for an `Intent`; invalid output once more with what was wrong; then go on with `unknown`."""
    messages = state["messages"]
    prompt = choices.prompt(config, "analyze_intent")
    system = SystemMessage(prompt.render(tools=describe(specs)))
    asking = partial(ask, config=config, prompt=prompt, tags=["nostream"], response_format=response_format(specs))

    async def analysed(shown: Sequence[AnyMessage]) -> Intent:
        return await _intent([system, *shown], ask=asking)

    intent = await fitting(messages, analysed, size=size)
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


async def _intent(messages: list[AnyMessage], *, ask: Callable[[Sequence[AnyMessage]], Awaitable[AIMessage]]) -> Intent:
    reply = await ask(messages)
    try:
        return _parsed(reply.text)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors())
    said = AIMessage(reply.text or "(nothing)")  # servers refuse a message without content
    correction = HumanMessage(f"That was not valid ({reasons}). Answer again with only the JSON object described.")
    reply = await ask([*messages, said, correction])
    try:
        return _parsed(reply.text)
    except ValidationError:
        return UNKNOWN


def _parsed(text: str) -> Intent:
    """The intent in a reply, which small models like to wrap in thoughts and code fences. Raises ValidationError."""
    text = _THOUGHTS.sub("", text)
    found = re.search(r"\{.*\}", text, re.DOTALL)
    return Intent.model_validate_json(found.group() if found else text)


def _new_calls(intent: Intent, messages: Sequence[AnyMessage]) -> list[ToolCall]:
    """The calls to make: none that this turn has made already."""
    made = calls_made(messages)
    seen = [(call["name"], call["args"]) for call in made]
    calls: list[ToolCall] = []
    for planned in intent.tool_calls:
        if (planned.name, planned.args) not in seen:
            seen.append((planned.name, planned.args))
            calls.append(ToolCall(name=planned.name, args=planned.args, id=f"call_{uuid4().hex}", type="tool_call"))
    return calls
