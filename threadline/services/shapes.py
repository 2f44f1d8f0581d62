"""Runs as the LangGraph Server API shows them, to its clients and to webhooks."""

from __future__ import annotations

from typing import Any

from threadline.domain.records import Run

KWARGS: dict[str, Any] = {
    "input": None,
    "command": None,
    "config": {},
    "context": {},
    "stream_mode": ["values"],
    "interrupt_before": None,
    "interrupt_after": None,
    "webhook": None,
    "feedback_keys": None,
    "temporary": False,
    "subgraphs": False,
    "resumable": False,
    "durability": "sync",
}


def run_json(run: Run) -> dict[str, Any]:
    """A run as the LangGraph Server API shows it."""
    kwargs = {key: run.kwargs.get(key, default) for key, default in KWARGS.items()}
    kwargs["checkpoint_during"] = kwargs["durability"] != "exit"
    if "input" not in run.kwargs and run.kwargs.get("message"):  # said in /chat
        kwargs["input"] = {"messages": [{"role": "user", "content": run.kwargs["message"], "id": run.run_id}]}
    return {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "metadata": run.metadata,
        "status": run.status,
        "kwargs": kwargs,
        "multitask_strategy": run.multitask_strategy,
        "created_at": run.created_at.isoformat(),
        "updated_at": (run.updated_at or run.ended_at or run.created_at).isoformat(),
    }


RUN_FIELDS = frozenset(
    (
        "run_id",
        "thread_id",
        "assistant_id",
        "metadata",
        "status",
        "kwargs",
        "multitask_strategy",
        "created_at",
        "updated_at",
    )
)
