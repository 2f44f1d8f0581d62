"""What a run's log says of each of its steps: who ran, how long, with which tools, for how many tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from threadline.domain.events import Event
from threadline.services.models.prices import price
from threadline.services.payload import text_of

_INTENT = ("kind", "confidence", "language")


@dataclass(slots=True)
class Spent:
    """Tokens and US dollars of the model calls of a step; None if nothing is known of them."""

    tokens: int | None = None
    cost: float | None = None

    def add(self, message: Mapping[str, Any]) -> None:
        """What one message, or the last part of one, says that it cost."""
        usage, said = message.get("usage_metadata"), message.get("response_metadata") or {}
        if usage is None:
            return
        cost = said.get("cost")
        if cost is None:
            cost = price(usage, said.get("model_name") or "", provider=said.get("model_provider"))
        first = self.tokens is None
        self.tokens = (self.tokens or 0) + (usage.get("total_tokens") or 0)
        self.cost = None if cost is None or (self.cost is None and not first) else (self.cost or 0.0) + cost


@dataclass(slots=True)
class Account:
    """One step. `checkpoint_id` is what it led to, None if it led to none: it asks, failed or was stopped."""

    checkpoint_id: str | None = None
    source: str | None = None
    results: dict[str, list[Any]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    interrupts: list[Any] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    intent: dict[str, Any] | None = None
    answer: str | None = None
    ms: int | None = None
    spent: Spent = field(default_factory=Spent)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, results in self.results.items() for _ in results))


def accounts(events: Iterable[Event]) -> list[Account]:
    """A run's steps, in order. Those of subgraphs belong to the step they were made in."""
    steps: list[Account] = []
    step, asked, seen = Account(), dict[str, Any](), set[str]()
    for event in events:
        data = event.data
        match event.type:
            case "run":  # a crash cut off what was begun; it is done again
                step = Account()
            case "tasks" if "result" in data and not event.ns:
                _ended(step, data, asked)
            case "custom" if isinstance(data, dict):
                _noted(step, data)
            case "messages":
                step.spent.add(data["message"])
            case "calls" if data.get("kind") == "model" and isinstance(data.get("answer"), dict):
                step.spent.add(data["answer"])
            case "checkpoints" if not event.ns and data["checkpoint_id"] not in seen:
                seen.add(data["checkpoint_id"])
                step.checkpoint_id, step.source = data["checkpoint_id"], data["source"]
                steps.append(step)
                step = Account()
    return [*steps, step] if step.results else steps


def _ended(step: Account, task: Mapping[str, Any], asked: dict[str, Any]) -> None:
    step.results.setdefault(task["name"], []).append(task["result"])
    step.interrupts += [interrupt.get("value") for interrupt in task["interrupts"]]
    if task["error"]:
        step.errors.append({"node": task["name"], "error": task["error"]})
    if task.get("ms") is not None:
        step.ms = max(step.ms or 0, task["ms"])  # those of one step run side by side
    told = bool(step.tool_calls)
    for message in _messages(task["result"]):
        for call in message.get("tool_calls") or ():
            asked[call.get("id")] = call.get("args")
        if message["type"] == "tool" and not told:
            step.tool_calls.append(_answered(message, asked.get(message.get("tool_call_id") or "")))
        elif message["type"] == "ai" and not message.get("tool_calls") and (text := text_of(message)):
            step.answer = text


def _answered(message: Mapping[str, Any], args: Any) -> dict[str, Any]:
    outcome = "error" if message.get("status") == "error" else "result"
    return {"name": message.get("name") or "tool", "args": args, outcome: text_of(message)}


def _noted(step: Account, data: Mapping[str, Any]) -> None:
    """What the built-in graph tells of its intent and its tools, or another one in the same words."""
    if data.get("type") == "intent":
        step.intent = {name: data[name] for name in _INTENT if name in data}
    elif data.get("type") == "tool" and data.get("status") in ("finished", "failed"):
        outcome = "result" if data["status"] == "finished" else "error"
        step.tool_calls.append({"name": data.get("name"), "args": data.get("args"), outcome: data.get(outcome)})


def _messages(result: Any) -> list[Mapping[str, Any]]:
    given = result.get("messages") if isinstance(result, Mapping) else None
    rows = given if isinstance(given, list) else [given]
    return [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("type"), str)]
