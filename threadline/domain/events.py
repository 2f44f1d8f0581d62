"""A run's event log, line by line: what every wire format is encoded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

EventType = Literal[
    "run",
    "messages",
    "tasks",
    "custom",
    "checkpoints",
    "values",
    "updates",
    "tools",
    "events",
    "calls",
    "interrupt",
    "message",
    "end",
]
"""What a line holds. `data` of each, in JSON types:

- `run`         `{run_id, thread_id, graph_id, assistant_id, attempt}`, the first line of every attempt
- `messages`    `{message, metadata}`: one message or message delta as it was streamed, empty fields left out;
                `metadata` stands with a message's first line only and is null with the others
- `tasks`       a task's start `{id, name, step, triggers}` or end `{id, name, step, result, error, interrupts, ms}`;
                a run that was asked for tasks has `input` and `metadata` in the start too; the end has `recorded: true`
                where a re-run's recording answered all that the task asked
- `custom`      what a node wrote to its stream writer. The built-in graph writes `{"type": "intent", …}` and
                `{"type": "tool", …}`
- `checkpoints` `{checkpoint_id, parent_id, step, source, next}`: a checkpoint by id, never by value; a run that was
                asked for checkpoints has `metadata` and `tasks` (their ids, names, interrupts and states) too
- `values`      `{checkpoint_id, interrupts}`: the state as of a checkpoint, by id; `interrupts` is null or what waits.
                State that stands in no checkpoint is here as `{values, interrupts}`. Only where a run was asked for it
- `updates`     `{node: writes}` as LangGraph streams it, only where a run was asked for it
- `tools`       `{event, tool_call_id, …}` as LangGraph streams it, only where a run was asked for it
- `events`      an `astream_events` (v2) object, only where a run was asked for it
- `calls`       a model or tool call that was answered, for re-runs: `{kind: "model", node, key, prompt, model,
                recorded}` with the `answer` or, where that was streamed, its `message_id`; `{kind: "tool", node, key,
                name, args, recorded}` with `result`, `error` or `message`. No stream format shows it
- `interrupt`   `{id, value}`: the graph asks and waits
- `message`     the run's final message, whole
- `end`         `{status, error, usage, cost, checkpoint_id, ms}`, the last line; `error` is null or
                `{kind, message, retryable}`
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered line. `id` is unique and strictly increasing within a run; `at` is Unix time in seconds."""

    id: int
    type: EventType
    ns: tuple[str, ...]
    data: Any
    at: float


def is_tool_part(data: Any) -> bool:
    """Whether a custom part tells of a tool call as the built-in graph does. Anybody's graph writes what it likes."""
    if not isinstance(data, dict) or data.get("type") != "tool" or "args" not in data:
        return False
    outcome = {"started": "args", "finished": "result", "failed": "error"}.get(str(data.get("status")))
    return outcome is not None and outcome in data and isinstance(data.get("name"), str)


def is_intent_part(data: Any) -> bool:
    """Whether a custom part tells what was understood, as the built-in graph does."""
    return isinstance(data, dict) and data.get("type") == "intent" and isinstance(data.get("kind"), str)


ATTEMPT_SPAN = 1_000_000
"""Ids of a run's second attempt start above this, of its third above twice this: events that a crash lost after a
reader saw them can never be mistaken for later ones."""
