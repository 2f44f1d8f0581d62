"""How a run calls its graph: made from what the run was asked to do, in LangGraph's words.

The keys of `Run.kwargs`, all of them optional:

- `message`      what the user said; alone it is the input, beside `input` it is only what the turn is called
- `input`        the graph's input; null goes on from where the thread stands
- `command`      `{resume, update, goto}`
- `checkpoint`   `{checkpoint_id, checkpoint_ns, checkpoint_map}`: where to go on from, instead of the newest
- `rerun_of`     the checkpoint that a re-run was asked to start from
- `changes`      what a re-run does otherwise, as it was asked: see `threadline.services.rerun`
- `recording`    `{run_ids, after}`: the runs a re-run finds its answers in, and the checkpoint it starts from
- `edit`         `{values, as_node}`: written to the state before a re-run begins
- `config`, `context`, `interrupt_before`, `interrupt_after`, `durability`: handed to the graph
- `stream_mode`  the client's modes; `subgraphs`: whether it wants the streams of subgraphs
- `temporary`    the thread goes with the run
- `scope`, `caller`, `user`, `headers`: whose store the graph is given, who started the run, and what it is told of the
  caller and of the request
- `after_seconds`, `webhook`, `resumable`, `on_completion`, `feedback_keys`: see `threadline.services.runs`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from threadline.domain.records import Run
from threadline.services.prompts import chosen_labels

CALLER = "__threadline_caller"
"""Where graph code finds the id of the caller in `configurable`. It is never in a checkpoint's metadata."""
_RESERVED = ("langgraph_auth_", "__threadline_")
_PLACE = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")
_DEBUG = frozenset({"tasks", "checkpoints"})


def wanted(run: Run) -> frozenset[str]:
    """The stream modes the log must serve. `debug` is made of tasks and checkpoints; a webhook is told the state, which
    stands nowhere else where it is not saved."""
    asked = frozenset(run.kwargs.get("stream_mode") or ())
    if run.kwargs.get("webhook") and not saved(run):
        asked |= {"values"}
    return asked | _DEBUG if "debug" in asked else asked


def given(run: Run) -> Any:
    """The graph's input."""
    kwargs = run.kwargs
    if kwargs.get("command"):
        return _command(kwargs["command"])
    if "input" in kwargs:
        return kwargs["input"]
    if "checkpoint" in kwargs:
        return None
    # The run's id is the message's id: taken up again after a crash, the message cannot enter the state twice.
    return {"messages": [HumanMessage(kwargs["message"], id=run.run_id)]}


def config_of(run: Run, *, callbacks: list[BaseCallbackHandler]) -> RunnableConfig:
    """The config of the call, its checkpoint left out."""
    asked: Mapping[str, Any] = run.kwargs.get("config") or {}
    ids = {"run_id": run.run_id, "thread_id": run.thread_id, "graph_id": run.graph_id}
    if run.assistant_id is not None:
        ids["assistant_id"] = run.assistant_id
    chosen = {**_unreserved(run.kwargs.get("context")), **_unreserved(asked.get("configurable"))}
    config: RunnableConfig = {
        "configurable": {
            **chosen,
            **(run.kwargs.get("headers") or {}),
            **(run.kwargs.get("user") or {}),
            CALLER: run.kwargs.get("caller", ""),
            **ids,
        },
        "metadata": {
            **chosen_labels(chosen),
            **(asked.get("metadata") or {}),
            **run.metadata,
            **{key: value for key, value in ids.items() if key != "thread_id"},
            "run_attempt": run.attempt,
        },
        "callbacks": callbacks,
        "run_name": run.graph_id,
    }
    if asked.get("tags"):
        config["tags"] = list(asked["tags"])
    if asked.get("recursion_limit"):
        config["recursion_limit"] = asked["recursion_limit"]
    if asked.get("max_concurrency"):
        config["max_concurrency"] = asked["max_concurrency"]
    return config


def place(run: Run) -> dict[str, Any]:
    """Where on its thread the run goes on from, as configurable keys; empty for the newest checkpoint."""
    checkpoint = run.kwargs.get("checkpoint") or {}
    return {key: checkpoint[key] for key in _PLACE if checkpoint.get(key) is not None}


def options(run: Run) -> dict[str, Any]:
    """The other arguments of `astream`."""
    kwargs = run.kwargs
    chosen: dict[str, Any] = {
        "subgraphs": kwargs.get("subgraphs", True),
        "durability": kwargs.get("durability") or "sync",
    }
    for name in ("interrupt_before", "interrupt_after"):
        if kwargs.get(name) is not None:
            chosen[name] = kwargs[name]
    if kwargs.get("context"):
        chosen["context"] = kwargs["context"]
    return chosen


def saved(run: Run) -> bool:
    """Whether the run's checkpoints can be read once it has ended, and as it goes on."""
    return not run.kwargs.get("temporary") and run.kwargs.get("durability") != "exit"


def _unreserved(asked: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run may be asked with: who the caller is, is not for the caller to say."""
    return {key: value for key, value in (asked or {}).items() if not key.startswith(_RESERVED)}


def _command(asked: Mapping[str, Any]) -> Command[Any]:
    goto = asked.get("goto")
    targets = goto if isinstance(goto, list) else [] if goto is None else [goto]
    update = asked.get("update")
    if isinstance(update, list):  # pairs of a channel and what is written to it
        update = [(name, value) for name, value in update]
    return Command(
        update=update,
        resume=asked.get("resume"),
        goto=[Send(t["node"], t.get("input")) if isinstance(t, Mapping) else t for t in targets],
    )
