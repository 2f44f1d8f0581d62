"""Threads and states as the LangGraph Server API shows them; `langgraph_sdk.schema` has the types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from langgraph.types import Interrupt, PregelTask, StateSnapshot

from threadline.domain.records import Thread
from threadline.services.payload import jsonable

PLACE = ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")


def thread_json(thread: Thread, values: Any) -> dict[str, Any]:
    """A thread with its newest values, None if it has none yet. Only one with a past has an error and interrupts."""
    shown = {
        "thread_id": thread.thread_id,
        "created_at": thread.created_at.isoformat(),
        "updated_at": thread.updated_at.isoformat(),
        "state_updated_at": (thread.state_updated_at or thread.updated_at).isoformat(),
        "metadata": thread.metadata,
        "status": thread.status,
        "config": thread.config,
        "values": values,
    }
    if values is not None or thread.error or thread.interrupts:
        shown |= {"error": thread.error, "interrupts": thread.interrupts}
    return shown


def ttl_json(thread: Thread) -> dict[str, Any] | None:
    if thread.ttl is None or thread.expires_at is None:
        return None
    expires_at = thread.expires_at.isoformat()
    return {"strategy": thread.ttl["strategy"], "ttl_minutes": thread.ttl["ttl"], "expires_at": expires_at}


def state_json(
    thread: Thread, snapshot: StateSnapshot | None, asked: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A state; where there is none, an empty one that names the checkpoint that was `asked` for by its id."""
    if snapshot is None:
        checkpoint_id = (asked or {}).get("checkpoint_id")
        place = {"checkpoint_ns": "", **(asked or {}), "thread_id": thread.thread_id}
        return {
            "values": {},
            "next": [],
            "tasks": [],
            "metadata": None,
            "created_at": None,
            "checkpoint": place if checkpoint_id else None,
            "parent_checkpoint": None,
            "interrupts": [],
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": None,
        }
    checkpoint = place_json(snapshot.config)
    parent = place_json(snapshot.parent_config) if snapshot.parent_config else None
    return {
        "values": jsonable(snapshot.values),
        "next": list(snapshot.next),
        "tasks": [_task(thread, task) for task in snapshot.tasks],
        "metadata": {**jsonable(snapshot.metadata or {}), "thread_id": thread.thread_id},
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [_interrupt(interrupt) for interrupt in snapshot.interrupts],
        "checkpoint_id": checkpoint["checkpoint_id"],
        "parent_checkpoint_id": parent["checkpoint_id"] if parent else None,
    }


def place_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint a config points to."""
    place = config["configurable"]
    return {name: place[name] for name in PLACE if name in place}


def selected(shown: dict[str, Any], fields: Collection[str] | None) -> dict[str, Any]:
    """Only these fields; `values.messages` is the one value of that name. None or nothing selects all."""
    if not fields:
        return shown
    parts = {field.removeprefix("values.") for field in fields if field.startswith("values.")}
    chosen = {name: value for name, value in shown.items() if name in fields}
    if parts and "values" not in chosen and isinstance(shown.get("values"), dict):
        chosen["values"] = {name: value for name, value in shown["values"].items() if name in parts}
    return chosen


def _task(thread: Thread, task: PregelTask) -> dict[str, Any]:
    """A task; of a subgraph it has the state if that was asked for, else the checkpoint."""
    nested = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": jsonable(task.path),
        "error": jsonable(task.error if isinstance(task.error, str) else repr(task.error)) if task.error else None,
        "interrupts": [_interrupt(interrupt) for interrupt in task.interrupts],
        "checkpoint": place_json(nested) if isinstance(nested, dict) else None,
        "state": state_json(thread, nested) if isinstance(nested, StateSnapshot) else None,
        "result": jsonable(task.result),
    }


def _interrupt(interrupt: Interrupt) -> dict[str, Any]:
    return {"id": interrupt.id, "value": jsonable(interrupt.value)}
