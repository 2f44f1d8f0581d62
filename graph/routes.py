"""Where the conversation goes next: pure functions of the state."""

from __future__ import annotations

from typing import Literal

from graph.state import MAX_ROUNDS, State, open_calls, rounds


def after_analysis(state: State) -> Literal["execute_tools", "respond"]:
    return "execute_tools" if open_calls(state["messages"]) else "respond"


def after_tools(state: State) -> Literal["analyze_intent", "respond"]:
    intent = state.get("intent")
    more = intent is not None and intent["needs_more"] and rounds(state["messages"]) < MAX_ROUNDS
    return "analyze_intent" if more else "respond"
