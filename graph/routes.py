"""Where the conversation goes next: pure functions of the state."""

from __future__ import annotations

from typing import Literal

from graph.state import State, open_calls


def after_analysis(state: State) -> Literal["execute_tools", "respond"]:
    return "execute_tools" if open_calls(state["messages"]) else "respond"


def after_tools(state: State) -> Literal["analyze_intent", "respond"]:
    intent = state.get("intent")
    return "analyze_intent" if intent and intent["needs_more"] else "respond"
