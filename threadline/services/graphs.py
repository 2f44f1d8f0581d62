"""What the services know of a graph: something to open for as long as a run or a look needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel

from threadline.domain.errors import Missing
from threadline.domain.records import Thread

Graph = Pregel[Any, Any, Any, Any]
OpenGraph = Callable[[RunnableConfig], AbstractAsyncContextManager[Graph]]
"""Gives a compiled graph with its checkpointer."""


def graph_of(thread: Thread, graphs: Mapping[str, OpenGraph], *, default: str) -> OpenGraph:
    """The graph a thread's state belongs to: that of its metadata, which is the one that ran on it. Raises Missing."""
    graph_id = thread.metadata.get("graph_id", default)
    if not isinstance(graph_id, str) or graph_id not in graphs:
        raise Missing(f"Graph '{graph_id}' not found. Expected one of: {sorted(graphs)}")
    return graphs[graph_id]
