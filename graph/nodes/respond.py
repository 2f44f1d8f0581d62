"""The node that answers, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import RunnableConfig

from graph import choices
from graph.request import Ask, fitting
from graph.state import State, Update
from threadline.domain.errors import ModelFault


async def respond(
    state: State, *, config: RunnableConfig, ask: Ask, specs: Sequence[Mapping[str, Any]], size: int
) -> Update:
    """Answer from the conversation and this turn's tool results. Raises ModelFault, also where nothing is said."""
    intent = state.get("intent")
    tools = "; ".join(f"{spec['name']}: {spec['description']}" for spec in specs)
    prompt = choices.prompt(config, "respond")
    system = SystemMessage(prompt.render(intent=intent["kind"] if intent else "unknown", tools=tools))

    async def answered(shown: Sequence[AnyMessage]) -> AIMessage:
        return await ask([system, *shown], config=config, prompt=prompt)

    answer = await fitting(state["messages"], answered, size=size)
    if not answer.text.strip():
        raise ModelFault("model_stream_broken", "The model gave an empty answer.")
    # A call beside the words is one nobody asked for: kept, it would stand in the conversation for ever unanswered.
    return {"messages": [answer.model_copy(update={"tool_calls": [], "invalid_tool_calls": []})]}
