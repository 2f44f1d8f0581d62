"""The node that answers, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import SystemMessage

from graph.prompts import Prompt
from graph.state import State, Update
from graph.window import compressed, window
from threadline.domain.errors import ModelFault


async def respond(
    state: State, *, model: BaseChatModel, prompt: Prompt, specs: Sequence[Mapping[str, Any]], size: int
) -> Update:
    """Answer from the conversation and this turn's tool results."""
    messages = state["messages"]
    intent = state.get("intent")
    tools = "; ".join(f"{spec['name']}: {spec['description']}" for spec in specs)
    system = SystemMessage(prompt.render(intent=intent["kind"] if intent else "unknown", tools=tools))
    try:
        answer = await model.ainvoke([system, *window(messages, size=size)])
    except ModelFault as fault:
        if fault.kind != "context_overflow":
            raise
        answer = await model.ainvoke([system, *compressed(messages)])
    return {"messages": [answer]}
