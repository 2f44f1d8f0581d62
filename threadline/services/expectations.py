"""What a session's turns did, as far as a later run of them can be held to it: nodes, tool calls, intent, answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from threadline.domain.events import Event
from threadline.domain.records import Run, Turn
from threadline.services.payload import text_of


@dataclass(slots=True)
class Done:
    """What a turn did. `nodes` are those of the outer graph in the order of their steps, side by side ones as a list;
    `tools` are `{name, args}` in the order of the calls."""

    nodes: list[str | list[str]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    intent: str | None = None
    answer: str | None = None
    error: str | None = None
    ended: bool = False
    """Whether it came to its end, or to a question."""


def done(logs: Iterable[Sequence[Event]]) -> Done:
    """What a turn's runs did, by their logs."""
    turn = Done()
    steps: list[tuple[tuple[int, int], list[str]]] = []
    called: dict[str, dict[str, Any]] = {}
    for number, events in enumerate(logs):
        for event in events:
            data = event.data
            match event.type:
                case "tasks" if "result" in data and not event.ns and not data["interrupts"]:
                    place = (number, data["step"])
                    if not steps or steps[-1][0] != place:
                        steps.append((place, []))
                    steps[-1][1].append(data["name"])
                    for call in _calls(data["result"]):
                        called.setdefault(str(call.get("id")), _brief(call))
                case "custom" if isinstance(data, dict) and data.get("type") == "tool":
                    called.setdefault(str(data.get("id")), _brief(data))
                case "custom" if isinstance(data, dict) and data.get("type") == "intent":
                    turn.intent = str(data.get("kind"))
                case "message":
                    turn.answer = text_of(data)
                case "end":
                    turn.error = data["error"]["kind"] if data["error"] else None
                    turn.ended = data["status"] in ("success", "interrupted")
    turn.nodes = [names[0] if len(names) == 1 else sorted(names) for _, names in steps]
    turn.tools = list(called.values())
    return turn


def asked(runs: Iterable[Run], turns: Sequence[Turn]) -> list[list[Run]]:
    """The runs of each turn that somebody asked, oldest first. One that was executed again is the same turn."""
    known = {run.run_id: run for run in runs}
    found = [
        [known[run_id] for run_id in turn.extra_metadata["run_ids"] if run_id in known]
        for turn in turns
        if "rerun_of" not in turn.extra_metadata
    ]
    return [of_turn for of_turn in found if of_turn]


def _calls(result: Any) -> list[Mapping[str, Any]]:
    messages = result.get("messages") if isinstance(result, Mapping) else None
    found = messages if isinstance(messages, list) else [messages]
    calls = [each.get("tool_calls") for each in found if isinstance(each, Mapping)]
    return [call for of_one in calls if isinstance(of_one, list) for call in of_one if isinstance(call, Mapping)]


def _brief(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": call.get("name"), "args": call.get("args")}
