"""What the services know of a graph: something to open for as long as a run or a look needs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel

Graph = Pregel[Any, Any, Any, Any]
OpenGraph = Callable[[RunnableConfig], AbstractAsyncContextManager[Graph]]
"""Gives a compiled graph with its checkpointer."""
