"""Writes a thread as a file for others: everything it takes to show, replay and continue it, and no secret or owner."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson

from threadline import __version__
from threadline.domain.errors import Conflict, Unavailable
from threadline.domain.events import Event
from threadline.domain.records import ENDED
from threadline.domain.stored import StoredCheckpoint, StoredWrite, Taken
from threadline.services import expectations, packed
from threadline.services.redaction import Redactor
from threadline.services.sessionfile import FORMAT, VERSION, Writer

OWNERS = frozenset({"owner", "user", "user_id"})
"""Keys of metadata and configs that say who somebody is."""
PRIVATE = re.compile(r"^langgraph_auth_")
NOT_SHARED = frozenset({"scope", "caller", "user", "headers", "webhook"})
"""Keys of `Run.kwargs` that are of use to the owner alone."""
CALLS = frozenset({"calls"})
"""Events that may name the prompt a model was asked with, as `name@version`."""
READABLE = 2**20
"""Bytes of a serialized value up to which it is written for people too."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file says of where it was made."""

    graph_id: str
    fingerprint: str | None


def write(out: BinaryIO, taken: Taken, origin: Origin, *, secrets: Collection[str]) -> None:
    """Write the file. Blocks. Raises Conflict while something runs on the thread, or for what is too large."""
    if any(run.status not in ENDED for run in taken.runs):
        raise Conflict("The session is busy. Export it when its run has ended.")
    redactor, writer = Redactor(secrets), Writer(out)
    models = sorted({turn.model_used for turn in taken.turns if turn.model_used})
    writer.line(
        "header",
        format=FORMAT,
        version=VERSION,
        threadline=__version__,
        created_at=datetime.now(UTC),
        graph={"id": origin.graph_id, "fingerprint": origin.fingerprint},
        prompts=_prompts(taken),
        models=redactor.value(models),
    )
    _thread(writer, redactor, taken)
    for turn in taken.turns:
        row = {name: value for name, value in asdict(turn).items() if name not in ("id", "session_id")}
        writer.line("turn", **redactor.value(row))
    logs = _runs(writer, redactor, taken)
    ids = _checkpoints(writer, redactor, taken)
    for pin in taken.pins:
        if (pin.checkpoint_ns, pin.checkpoint_id) in ids:
            fields = {"name": redactor.value(pin.name), "created_at": pin.created_at}
            writer.line("pin", ns=pin.checkpoint_ns, checkpoint=pin.checkpoint_id, **fields)
    for branch in taken.branches:
        if ("", branch.checkpoint_id) in ids:
            fields = {"name": redactor.value(branch.name), "main": branch.main, "created_at": branch.created_at}
            writer.line("branch", checkpoint=branch.checkpoint_id, **fields)
    for expected in logs:
        writer.line("expect", **expected)
    writer.end(redactor.counts)


def nameless(value: Any) -> Any:
    """Metadata or a config without what says who somebody is."""
    if isinstance(value, Mapping):
        return {key: nameless(item) for key, item in value.items() if key not in OWNERS and not PRIVATE.match(str(key))}
    if isinstance(value, list):
        return [nameless(item) for item in value]
    return value


def shared(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was asked to do, without what is its owner's."""
    kept = {key: value for key, value in kwargs.items() if key not in NOT_SHARED}
    return {**kept, **{key: nameless(kept[key]) for key in ("config", "context") if key in kept}}


def _prompts(taken: Taken) -> dict[str, str]:
    """The versions of the prompts that the runs have logged, by name."""
    calls = (event.data for run in taken.runs for event in taken.log(run.run_id) if event.type in CALLS)
    labels = (call.get("prompt") for call in calls if isinstance(call, Mapping))
    named = (label.rpartition("@") for label in labels if isinstance(label, str) and "@" in label)
    return {name: version for name, _, version in named}


def _thread(writer: Writer, redactor: Redactor, taken: Taken) -> None:
    thread = taken.thread
    status = thread.status if thread.status != "busy" else "idle"
    words = {"title": _title(redactor, taken), "metadata": nameless(thread.metadata), "config": nameless(thread.config)}
    words |= {"error": thread.error, "interrupts": thread.interrupts}
    times = {name: getattr(thread, name) for name in ("created_at", "updated_at", "state_updated_at")}
    writer.line("thread", thread_id=thread.thread_id, status=status, **redactor.value(words), **times)


def _title(redactor: Redactor, taken: Taken) -> str | None:
    """The title, which is the beginning of a message: where it was cut off, a secret may not look like one any more."""
    title = taken.thread.title
    said = [" ".join(turn.user_message.split()) for turn in taken.turns if turn.user_message]
    whole = next((message for message in said if title and message.startswith(title)), None)
    return title if title is None or whole is None else redactor.text(whole)[: len(title)]


def _runs(writer: Writer, redactor: Redactor, taken: Taken) -> list[dict[str, Any]]:
    """Write every run with its log; what its turns can be held to."""
    asked = expectations.asked(taken.runs, taken.turns)
    turn_of = {run.run_id: number for number, runs in enumerate(asked, start=1) for run in runs}
    done: dict[int, list[list[Event]]] = {}
    for run in taken.runs:
        fields = {name: value for name, value in asdict(run).items() if name != "thread_id"}
        words = {"kwargs": shared(run.kwargs), "metadata": nameless(run.metadata), "error": run.error}
        writer.line("run", **{**fields, **redactor.value(words)})
        events = redacted(taken.log(run.run_id), redactor)
        for event in events:
            line = {"id": event.id, "type": event.type, "ns": event.ns, "at": event.at, "data": event.data}
            writer.line("event", run_id=run.run_id, **line)
        if run.run_id in turn_of:
            done.setdefault(turn_of[run.run_id], []).append(_telling(events))
    turns = {number: expectations.done(logs) for number, logs in sorted(done.items())}
    return [{"turn": n, "nodes": turn.nodes, "tools": turn.tools} for n, turn in turns.items() if turn.ended]


def _telling(events: Sequence[Event]) -> list[Event]:
    """The events that expectations are made from."""
    return [event for event in events if event.type in ("tasks", "custom", "end")]


def redacted(events: Iterable[Event], redactor: Redactor) -> list[Event]:
    """A run's events without secrets, also those that were streamed in pieces, and without who asked."""
    result = list(events)
    pieces: dict[Any, list[tuple[Any, Any]]] = {}
    for number, event in enumerate(result):
        if any(True for _ in _texts(event)):
            copy = orjson.loads(orjson.dumps(event.data))  # what was logged is nobody's to change
            result[number] = event = replace(event, data=copy)
            for key, holder, place in _texts(event):
                pieces.setdefault((event.ns, key), []).append((holder, place))
    for places in pieces.values():
        if len(places) > 1:
            redactor.pieces(places)
    return [replace(event, data=redactor.value(_unnamed(event))) for event in result]


def _unnamed(event: Event) -> Any:
    data = event.data
    match event.type:
        case "messages" if data["metadata"]:
            return {**data, "metadata": nameless(data["metadata"])}
        case "tasks" | "checkpoints" if data.get("metadata"):
            return {**data, "metadata": nameless(data["metadata"])}
        case "events":
            return {**data, **{key: nameless(data[key]) for key in ("metadata",) if key in data}}
    return data


def _texts(event: Event) -> Iterator[tuple[Any, Any, Any]]:
    """Where an event holds a message, or a piece of one: the texts in it, and what tells which of them belong
    together."""
    data = event.data
    message, id = None, None
    if event.type == "messages":
        message, id = data["message"], data["message"].get("id")
    elif event.type == "events" and isinstance(data.get("data"), Mapping):
        message, id = data["data"].get("chunk"), data.get("run_id")
    if not isinstance(message, Mapping):
        return
    content = message.get("content")
    if isinstance(content, str) and content:
        yield (id, "content"), message, "content"
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict) and isinstance(block.get("text"), str) and block["text"]:
            yield (id, "block", block.get("index", number)), block, "text"
    for number, call in enumerate(message.get("tool_call_chunks") or ()):
        if isinstance(call, dict) and isinstance(call.get("args"), str) and call["args"]:
            yield (id, "call", call.get("index", number)), call, "args"


def _checkpoints(writer: Writer, redactor: Redactor, taken: Taken) -> set[tuple[str, str]]:
    ids = set[tuple[str, str]]()
    for each in taken.stored():
        try:
            if isinstance(each, StoredCheckpoint):
                ids.add((each.checkpoint_ns, each.checkpoint_id))
                _checkpoint(writer, redactor, each)
            elif isinstance(each, StoredWrite):
                _write(writer, redactor, each)
            else:
                writer.line("head", ns=each.checkpoint_ns, checkpoint=each.checkpoint_id, since=each.since)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Unavailable(f"Checkpoint {each.checkpoint_id} is damaged.") from error
    return ids


def _checkpoint(writer: Writer, redactor: Redactor, checkpoint: StoredCheckpoint) -> None:
    def clean(opened: Any) -> Any:
        """Values alone may hold secrets; what else there is names channels and nodes."""
        values = redactor.value(opened["channel_values"])
        return opened if values is opened["channel_values"] else {**opened, "channel_values": values}

    data, opened = packed.rewritten(checkpoint.type, checkpoint.data, clean)
    metadata = redactor.value(nameless(orjson.loads(checkpoint.metadata)))
    place = {"ns": checkpoint.checkpoint_ns, "id": checkpoint.checkpoint_id, "parent": checkpoint.parent_id}
    shown = {"values": packed.readable(opened["channel_values"])} if len(data) < READABLE else {}
    writer.line("checkpoint", **place, type=checkpoint.type, data=data, metadata=metadata, **shown)


def _write(writer: Writer, redactor: Redactor, write: StoredWrite) -> None:
    def clean(opened: Any) -> Any:
        return redactor.value({write.channel: opened}).get(write.channel, opened)

    data, opened = packed.rewritten(write.type, write.data, clean)
    place = {"ns": write.checkpoint_ns, "checkpoint": write.checkpoint_id}
    task = {"task_id": write.task_id, "task_path": write.task_path, "idx": write.idx, "channel": write.channel}
    shown = {"value": packed.readable(opened)} if len(data) < READABLE else {}
    writer.line("write", **place, **task, type=write.type, data=data, **shown)
