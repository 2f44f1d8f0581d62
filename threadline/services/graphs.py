"""What the services know of a graph: something to open for as long as a run or a look needs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph_sdk.runtime import AccessContext

from threadline.domain.errors import Missing
from threadline.domain.records import Thread, User
from threadline.services.store import Scoped

Graph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a graph is opened for, and for whom.

    `store` is the caller's; without one the graph gets that of the service without keys. `context` is the run's.
    """

    access: AccessContext = "threads.read"
    store: Scoped | None = None
    user: User | None = None
    context: Any = None


LOOK = Opening()


class OpenGraph(Protocol):
    """Gives a compiled graph with its checkpointer and its store."""

    def __call__(self, config: RunnableConfig, opening: Opening = LOOK) -> AbstractAsyncContextManager[Graph]: ...


def graph_of(thread: Thread, graphs: Mapping[str, OpenGraph], *, default: str) -> OpenGraph:
    """The graph a thread's state belongs to: that of its metadata, which is the one that ran on it. Raises Missing."""
    graph_id = thread.metadata.get("graph_id", default)
    if not isinstance(graph_id, str) or graph_id not in graphs:
        raise Missing(f"Graph '{graph_id}' not found. Expected one of: {sorted(graphs)}")
    return graphs[graph_id]
