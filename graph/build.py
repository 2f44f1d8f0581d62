"""The graph: its nodes and edges in one readable list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph

from graph import routes
from graph.choices import Choices
from graph.nodes.analyze_intent import analyze_intent
from graph.nodes.execute_tools import Tools, execute_tools
from graph.nodes.respond import respond
from graph.request import ask
from graph.state import State


def build(
    *,
    chat: BaseChatModel,
    analysis: BaseChatModel,
    specs: Sequence[Mapping[str, Any]],
    tools: Tools,
    window: int,
    name_tools: bool = False,
) -> StateGraph[State, Choices]:
    """The agent, not yet compiled. `specs` describes the tools that `tools` calls; `window` is in messages.

    `name_tools`: the model server wants the tools named in every request about a conversation that holds tool calls.
    """
    ask_chat = partial(ask, model=chat, specs=specs, name_tools=name_tools)
    ask_analysis = partial(ask, model=analysis, specs=specs, name_tools=name_tools)

    graph = StateGraph(State, context_schema=Choices)
    graph.add_node("analyze_intent", partial(analyze_intent, ask=ask_analysis, specs=specs, size=window))
    graph.add_node("execute_tools", partial(execute_tools, tools=tools))
    graph.add_node("respond", partial(respond, ask=ask_chat, specs=specs, size=window))

    graph.add_edge(START, "analyze_intent")
    graph.add_conditional_edges("analyze_intent", routes.after_analysis)
    graph.add_conditional_edges("execute_tools", routes.after_tools)
    graph.add_edge("respond", END)
    return graph
