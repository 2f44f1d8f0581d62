"""What the services know of a graph: something to open for as long as a run or a look needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph_sdk.runtime import AccessContext

from threadline.domain.errors import Missing
from threadline.domain.records import Assistant, Caller, Run, Thread, User
from threadline.services.permission import configurable, user_of
from threadline.services.store import Scoped, Stores

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


class Graphs:
    """Opens graphs for callers: to run them, and to look at what they left or to change it.

    A factory is given the config of the assistant: of the one named, or of the one that ran last on the thread.
    """

    def __init__(self, graphs: Mapping[str, OpenGraph], *, default: str, stores: Stores) -> None:
        self._graphs = graphs
        self.default = default
        self._stores = stores

    @property
    def ids(self) -> list[str]:
        """The graphs that are served."""
        return list(self._graphs)

    def id_of(self, thread: Thread) -> str:
        """The graph a thread's state belongs to: that of its metadata, which is the one that ran on it.

        Raises Missing.
        """
        graph_id = thread.metadata.get("graph_id", self.default)
        if not isinstance(graph_id, str) or graph_id not in self._graphs:
            raise Missing(f"Graph '{graph_id}' not found. Expected one of: {sorted(self._graphs)}")
        return graph_id

    def of_thread(
        self, thread: Thread, caller: Caller, access: AccessContext = "threads.read"
    ) -> AbstractAsyncContextManager[Graph]:
        """A thread's graph. Raises Missing."""
        ids = {"thread_id": thread.thread_id}
        return self._open(self.id_of(thread), thread.config, ids, caller, access)

    def of_threads(
        self, threads: Iterable[Thread], caller: Caller
    ) -> list[tuple[AbstractAsyncContextManager[Graph], list[Thread]]]:
        """Each graph that is needed to look at some threads, and its threads. One whose graph is gone is left out."""
        alike: dict[tuple[str, bytes], list[Thread]] = {}
        for thread in threads:
            with suppress(Missing):
                key = self.id_of(thread), orjson.dumps(thread.config, option=orjson.OPT_SORT_KEYS)
                alike.setdefault(key, []).append(thread)
        return [
            (self._open(graph_id, theirs[0].config, {}, caller, "threads.read"), theirs)
            for (graph_id, _), theirs in alike.items()
        ]

    def of_run(
        self, run: Run, config: RunnableConfig, access: AccessContext = "threads.read"
    ) -> AbstractAsyncContextManager[Graph]:
        """A run's graph, opened for who started it, whoever looks. Raises Missing."""
        if run.graph_id not in self._graphs:
            raise Missing(f"Graph '{run.graph_id}' is not served any more, and only it can read its checkpoints.")
        opening = Opening(
            access,
            store=self._stores.within(run.kwargs["scope"]) if "scope" in run.kwargs else None,
            user=user_of(config["configurable"]),
            context=run.kwargs.get("context"),
        )
        return self._graphs[run.graph_id](config, opening)

    def of_assistant(self, assistant: Assistant, caller: Caller) -> AbstractAsyncContextManager[Graph]:
        """An assistant's graph, to be drawn and described."""
        return self._open(assistant.graph_id, assistant.config, {}, caller, "assistants.read")

    def _open(
        self,
        graph_id: str,
        config: Mapping[str, Any],
        ids: Mapping[str, Any],
        caller: Caller,
        access: AccessContext,
    ) -> AbstractAsyncContextManager[Graph]:
        given = {**config, "configurable": {**(config.get("configurable") or {}), **configurable(caller), **ids}}
        opening = Opening(access, store=self._stores.of(caller), user=caller.user)
        return self._graphs[graph_id](cast(RunnableConfig, given), opening)
