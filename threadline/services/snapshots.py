"""States as readers of a run are shown them: at hand while the run goes on, and out of its checkpoints ever after."""

from __future__ import annotations

from typing import Any

import orjson
from langchain_core.runnables import RunnableConfig

from threadline.domain import ports
from threadline.domain.records import Run
from threadline.services.graphs import Graph, Graphs
from threadline.services.invocation import config_of
from threadline.services.payload import jsonable


class Snapshots:
    """Reads states by the checkpoints a run's log names."""

    def __init__(self, *, graphs: Graphs, log: ports.EventLog) -> None:
        self._graphs = graphs
        self._log = log

    async def at(self, run: Run, ns: tuple[str, ...], checkpoint_id: str) -> bytes:
        """The JSON of the state as of a checkpoint; `{}` if the checkpoint is gone. Raises Missing for its graph."""
        kept = self._log.values(run.run_id, ns, checkpoint_id)
        if kept is not None:
            return kept
        place = {"thread_id": run.thread_id, "checkpoint_ns": "|".join(ns), "checkpoint_id": checkpoint_id}
        config: RunnableConfig = {"configurable": place}
        async with self._graphs.of_run(run, config_of(run, callbacks=[])) as graph:
            snapshot = await graph.aget_state(config)
            values = snapshot.values if ns else shown(graph, snapshot.values)
        return orjson.dumps(jsonable(values))


def shown(graph: Graph, values: Any) -> Any:
    """What of a state the graph's output schema shows."""
    if isinstance(graph.output_channels, str) or not isinstance(values, dict):
        return values
    return {name: values[name] for name in graph.output_channels if name in values}
