"""Recorded replay: twenty sessions played again, to the byte, and not one call of a model or a tool."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Start
from tests.service import ROOT, Client
from threadline.services.pace import Clock
from threadline.storage.records import pack, unpack

PROJECT = ROOT / "tests" / "projects" / "recorded" / "langgraph.json"
MODES = ["values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "tools"]
CHANNELS = ["values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks", "checkpoints"]


class Raw(NamedTuple):
    """A frame as it came, to the byte."""

    id: str
    event: str
    data: bytes


class Turn(NamedTuple):
    """One run and what each kind of reader was streamed of it while it went on."""

    run_id: str
    chat: list[Raw]
    asked: list[Raw]
    others: dict[str, list[Raw]]
    protocol: list[Raw]


def parsed(body: bytes) -> list[Raw]:
    frames = []
    for block in body.split(b"\r\n\r\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\r\n") if line and not line.startswith(b":"))
        if fields:
            frames.append(Raw(fields.get(b"id", b"").decode(), fields[b"event"].decode(), fields[b"data"]))
    return frames


async def fetched(client: Client, method: str, path: str, **request: Any) -> list[Raw]:
    response = await client.http.request(method, path, **request)
    assert response.status_code == 200, response.text
    return parsed(response.content)


def named(frames: list[Raw], run_id: str) -> list[Raw]:
    """As they are in the replay of a session."""
    return [frame._replace(id=f"{run_id}:{frame.id}") for frame in frames]


def told(frames: list[Raw]) -> list[tuple[str, bytes]]:
    return [(frame.event, frame.data) for frame in frames]


class Calls:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(self._path.read_text().splitlines()) if self._path.exists() else 0


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setenv("RECORDED_CALLS", str(tmp_path / "calls"))
    return Calls(tmp_path / "calls")


@pytest.fixture
async def service(start: Start, calls: Calls) -> AsyncIterator[Client]:
    async with start(config=PROJECT) as client:
        yield client


async def chat_of(client: Client, run_id: str, *, cancel: str | None) -> list[Raw]:
    """A run's chat frames to their end; it is cancelled once the node of this name has begun."""
    body = b""
    async with client.http.stream("GET", f"/runs/{run_id}/events") as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            if cancel and f'"node":"{cancel}","status":"started"'.encode() in body:
                cancel = None
                await client.http.post(f"/runs/{run_id}/cancel")
    return parsed(body)


async def protocol_of(client: Client, thread_id: str, ends: Callable[[Any], bool], since: int) -> list[Raw]:
    """The frames of a thread's protocol v2 stream behind `since`, up to the one that ends it."""
    body, asked = b"", {"channels": CHANNELS, "since": since}
    async with client.http.stream("POST", f"/threads/{thread_id}/stream/events", json=asked) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            whole = parsed(body[: body.rfind(b"\r\n\r\n") + 4])
            for index, frame in enumerate(whole):
                if ends(json.loads(frame.data)):
                    return whole[: index + 1]
    raise AssertionError("the stream ended")


def is_end(envelope: Any) -> bool:
    data = envelope["params"]["data"]
    ended = envelope["method"] == "lifecycle" and data["event"] in ("completed", "failed", "interrupted")
    return ended and not envelope["params"]["namespace"]


async def lived(
    client: Client, thread_id: str, graph: str, *, since: int = 0, cancel: str | None = None, **asked: Any
) -> Turn:
    """Start a run and capture it while it goes on, with four readers at once."""
    body = {"assistant_id": graph, "stream_resumable": True, "multitask_strategy": "enqueue", **asked}
    path = f"/threads/{thread_id}/runs"
    run_id = ""
    first = bytearray()
    async with client.http.stream("POST", f"{path}/stream", json=body) as response:
        assert response.status_code == 200, await response.aread()
        run_id = response.headers["content-location"].rpartition("/")[2]
        others = [
            asyncio.create_task(chat_of(client, run_id, cancel=cancel)),
            asyncio.create_task(
                fetched(client, "GET", f"{path}/{run_id}/stream", params={"stream_mode": "values"}, headers=FROM_START)
            ),
            asyncio.create_task(protocol_of(client, thread_id, is_end, since)),
        ]
        async for chunk in response.aiter_bytes():
            first += chunk
    chat, values, protocol = await asyncio.gather(*others)
    return Turn(run_id, chat, parsed(bytes(first)), {"values": values}, protocol)


FROM_START = {"Last-Event-ID": "-1"}
EVERYTHING = {"stream_mode": MODES, "stream_subgraphs": True}
SCRIPTS = {
    "answer": ["hello"],
    "tool": ["tool please", "hello"],
    "parallel": ["both please"],
    "interrupt": ["ask me", "ANSWER", "hello"],
    "failure": ["boom", "hello"],
    "cancel": ["wait", "tool please"],
    "mixed": ["tool please", "boom", "ask me", "ANSWER", "wait", "both please"],
}
SESSIONS = [
    (name, graph, options)
    for graph in ("agent", "parent")
    for name in SCRIPTS
    for options in ("everything", "plain")
    if not (options == "plain" and name in ("answer", "cancel", "failure", "parallel"))
]


async def session(client: Client, graph: str, script: list[str], options: str) -> tuple[str, list[Turn]]:
    thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
    turns: list[Turn] = []
    for text in script:
        asked: dict[str, Any] = EVERYTHING if options == "everything" else {"stream_mode": ["messages-tuple"]}
        given: dict[str, Any] = {"input": {"messages": [{"role": "user", "content": text}]}}
        if text == "ANSWER":
            given = {"command": {"resume": {"yes": [1, "네"]}}}
        since = int(turns[-1].protocol[-1].id) if turns else 0
        waits = "child" if (graph, options) == ("parent", "plain") else "think"  # no reader is told what is within
        cancel = waits if text == "wait" else None
        turns.append(await lived(client, thread_id, graph, since=since, cancel=cancel, **asked, **given))
    return thread_id, turns


@pytest.mark.parametrize(("name", "graph", "options"), SESSIONS)
async def test_every_frame_is_the_one_that_was(
    service: Client, calls: Calls, name: str, graph: str, options: str
) -> None:
    thread_id, turns = await session(service, graph, SCRIPTS[name], options)
    made = len(calls)

    for turn in turns:
        path = f"/runs/{turn.run_id}/replay"
        assert await fetched(service, "GET", path) == turn.chat
        assert await fetched(service, "POST", path, json={"mode": "recorded"}) == turn.chat
        assert await fetched(service, "GET", path, params={"format": "langgraph"}) == turn.asked
        for mode, frames in turn.others.items():
            assert await fetched(service, "GET", path, params={"format": "langgraph", "modes": mode}) == frames
        assert await fetched(service, "GET", path, params={"format": "protocol"}) == turn.protocol

    path = f"/sessions/{thread_id}/replay"
    for format, which in (("chat", "chat"), ("langgraph", "asked"), ("protocol", "protocol")):
        *played, done = await fetched(service, "GET", path, params={"format": format})
        assert played == [frame for turn in turns for frame in named(getattr(turn, which), turn.run_id)]
        assert done == Raw("", "replay_done", b"{}")
    assert (len(calls), made > 0) == (made, True)


def test_there_are_twenty_sessions() -> None:
    assert len(SESSIONS) == 20


# From a checkpoint, in pieces, at a pace


async def talk(client: Client, *texts: str, graph: str = "agent", **asked: Any) -> str:
    """A session whose runs are waited for, one after the other."""
    thread_id: str = (await client.http.post("/threads", json={})).json()["thread_id"]
    for text in texts:
        given: dict[str, Any] = {"input": {"messages": [{"role": "user", "content": text}]}}
        if text == "ANSWER":
            given = {"command": {"resume": "yes"}}
        body = {"assistant_id": graph, "stream_resumable": True, **asked, **given}
        await client.http.post(f"/threads/{thread_id}/runs/wait", json=body)
    return thread_id


FORMATS = ("chat", "langgraph", "protocol")


@pytest.mark.parametrize("format", FORMATS)
async def test_it_goes_on_behind_any_event_and_stops_behind_any(service: Client, format: str) -> None:
    thread_id = await talk(service, "tool please", "ask me", "ANSWER", graph="parent", **EVERYTHING)
    path, asked = f"/sessions/{thread_id}/replay", {"format": format}
    whole = await fetched(service, "GET", path, params=asked)

    for index in {*range(0, len(whole) - 1, 9), len(whole) - 3, len(whole) - 2}:
        place = whole[index].id
        by_header = await service.http.get(path, params=asked, headers={"Last-Event-ID": place})
        by_query = await service.http.get(path, params={**asked, "after": place})
        assert by_header.content == by_query.content
        rest = parsed(by_header.content)
        if index == len(whole) - 2:
            assert (by_header.status_code, rest) == (204, [])
        else:
            assert rest == whole[index + 1 :]
        first = await fetched(service, "GET", path, params={**asked, "until": place})
        assert first[: index + 1] == whole[: index + 1]
        assert {frame.id.partition("-")[0] for frame in first[index + 1 :]} <= {place.partition("-")[0]} or (
            format == "protocol" and len(first) - index < 6
        )
        assert "replay_done" not in {frame.event for frame in first}
        end = first[-1].id
        again = await service.http.get(path, params={**asked, "until": end}, headers={"Last-Event-ID": end})
        assert again.status_code == 204

    [run_id] = {frame.id.partition(":")[0] for frame in whole[:3]}
    alone = await fetched(service, "GET", f"/runs/{run_id}/replay", params=asked)
    middle = len(alone) // 2
    seek = {"Last-Event-ID": alone[middle].id}
    assert await fetched(service, "GET", f"/runs/{run_id}/replay", params=asked, headers=seek) == alone[middle + 1 :]
    last = {"Last-Event-ID": alone[-1].id}
    assert (await service.http.get(f"/runs/{run_id}/replay", params=asked, headers=last)).status_code == 204


@pytest.mark.parametrize("format", FORMATS)
async def test_from_every_checkpoint_comes_what_came_after_it(service: Client, format: str) -> None:
    thread_id = await talk(service, "tool please", "both please", **EVERYTHING)
    path = f"/sessions/{thread_id}/replay"
    whole = await fetched(service, "GET", path, params={"format": format})
    steps = (await service.json(f"/sessions/{thread_id}/checkpoints"))["items"][::-1]
    assert len(steps) > 8

    lengths = []
    for step in steps:
        asked = {"format": format, "from": step["checkpoint_id"]}
        played = await fetched(service, "GET", path, params=asked)
        body = {"mode": "recorded", "checkpoint_id": step["checkpoint_id"], "format": format}
        assert await fetched(service, "POST", path, json=body) == played
        lengths.append(len(played))
        ends = {"chat": "session", "langgraph": "metadata", "protocol": "lifecycle"}
        if played[:-1]:
            assert played[0].event == ends[format]
        assert (
            played[1:] == whole[len(whole) - len(played) + 1 :]
        )  # the tail of it, behind the frame that names the run
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1


class Ticking:
    """A clock that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


async def test_the_pace_is_the_original_s_and_waits_between_turns_are_cut(
    service: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    thread_id = await talk(service, "hello", "hello")
    with closing(sqlite3.connect(tmp_path / "data" / "history.db")) as connection, connection:
        rows = connection.execute(
            "SELECT run_id, events FROM run_logs JOIN runs USING (run_id) ORDER BY position"
        ).fetchall()
        for number, (run_id, packed) in enumerate(rows):  # a second between any two events, an hour between the runs
            events = unpack(packed)
            spaced = [replace(event, at=3600.0 * number + at) for at, event in enumerate(events)]
            connection.execute("UPDATE run_logs SET events = ? WHERE run_id = ?", (pack(spaced), run_id))
    lines = [len(unpack(packed)) for _, packed in rows]
    within = sum(lines) - 2
    assert service.context is not None
    path = f"/sessions/{thread_id}/replay"
    whole = await fetched(service, "GET", path)

    for asked, wait in [
        ({"speed": "1"}, within + 3),
        ({"speed": "4"}, (within + 3) / 4),
        ({"speed": "0.5", "max_gap": "60"}, (within + 60) * 2),
        ({"speed": "1", "max_gap": "0"}, within),
        ({"speed": "max"}, 0),
    ]:
        clock = Ticking()
        monkeypatch.setattr(service.context.replay, "clock", Clock(clock.now, clock.sleep))
        assert await fetched(service, "GET", path, params=asked) == whole
        assert clock.time == pytest.approx(wait)
        assert len(clock.slept) == (0 if wait == 0 else sum(lines) - 1 - (asked.get("max_gap") == "0"))


# Without a recording


def forget_logs(data: Path, thread_id: str, *, first: int = 1000) -> None:
    """What retention does to a session's first runs."""
    with closing(sqlite3.connect(data / "history.db")) as connection, connection:
        gone = connection.execute(
            """DELETE FROM run_logs WHERE run_id IN
               (SELECT run_id FROM runs WHERE thread_id = ? ORDER BY position LIMIT ?)""",
            (thread_id, first),
        )
        assert gone.rowcount > 0


def brief(frames: list[Raw]) -> list[tuple[str, ...]]:
    """What a person sees of chat frames: where the agent is, its tools, its words, how it ended."""
    seen: list[tuple[str, ...]] = []
    for frame in frames:
        data = json.loads(frame.data)
        if frame.event == "node":
            seen.append(("node", "/".join([*data.get("path", ()), data["node"]]), data["status"]))
        elif frame.event == "interrupt":
            seen.append(("interrupt", json.dumps(data["value"])))
        elif frame.event == "message":
            seen.append(("message", str(data["content"])))
        elif frame.event in ("done", "error"):
            seen.append((frame.event, data.get("status") or data["kind"]))
    return seen


def no_order(steps: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Nodes of one step begin and end in any order."""
    return sorted(steps)


REBUILT = [
    ("agent", ["hello"]),
    ("agent", ["tool please", "both please"]),
    ("agent", ["ask me", "ANSWER", "hello"]),
    ("agent", ["boom", "hello"]),
    ("parent", ["tool please", "ask me", "ANSWER"]),
]


@pytest.mark.parametrize(("graph", "script"), REBUILT)
async def test_a_pruned_session_is_played_from_its_checkpoints(
    service: Client, calls: Calls, tmp_path: Path, graph: str, script: list[str]
) -> None:
    thread_id = await talk(service, *script, graph=graph, **EVERYTHING)
    path = f"/sessions/{thread_id}/replay"
    before = {format: await fetched(service, "GET", path, params={"format": format}) for format in FORMATS}
    made = len(calls)
    forget_logs(tmp_path / "data", thread_id)
    after = {format: await fetched(service, "GET", path, params={"format": format}) for format in FORMATS}

    assert len(calls) == made
    firsts = {"chat": "session", "langgraph": "metadata", "protocol": "lifecycle"}
    for format, first in firsts.items():
        told = [json.loads(frame.data) for frame in after[format] if frame.event == first]
        told = [one["params"]["data"] if format == "protocol" else one for one in told]
        runs = [one for one in told if format != "protocol" or one["event"] == "running"]
        assert [one.get("rebuilt") for one in runs] == ["checkpoints"] * len(script)
        assert len({frame.id for frame in after[format]}) == len(after[format])
        assert after[format][-1].event == "replay_done"
    assert no_order(brief(after["chat"])) == no_order(brief(before["chat"]))
    tools = [json.loads(frame.data) for frame in after["chat"] if frame.event == "tool"]
    wanted = {"tool please": ["서울"], "both please": ["Paris", "broken"]}
    asked = [city for text in script for city in wanted.get(text, ())]
    assert sorted(one["args"]["city"] for one in tools if one["status"] == "started") == sorted(asked)
    assert {one["result"] for one in tools if one["status"] == "finished"} <= {"sunny in 서울", "sunny in Paris"}

    def values(frames: list[Raw]) -> list[Any]:
        return [json.loads(frame.data) for frame in frames if frame.event == "values"]

    ended = [state for state in values(before["langgraph"]) if "__interrupt__" not in state]
    assert values(after["langgraph"])[-1] == ended[-1]
    nodes = [list(json.loads(f.data)) for f in before["langgraph"] if f.event == "updates" and "__int" not in str(f)]
    again = [list(json.loads(f.data)) for f in after["langgraph"] if f.event == "updates"]
    assert sorted(again) == sorted(nodes)
    ways = [json.loads(f.data)["params"]["data"]["event"] for f in after["protocol"] if f.event == "lifecycle"]
    assert ways == [json.loads(f.data)["params"]["data"]["event"] for f in before["protocol"] if f.event == "lifecycle"]

    middle = after["chat"][len(after["chat"]) // 2].id
    rest = await fetched(service, "GET", path, headers={"Last-Event-ID": middle})
    assert rest == after["chat"][len(after["chat"]) // 2 + 1 :]
    steps = (await service.json(f"/sessions/{thread_id}/checkpoints", limit=500))["items"]
    for step in steps:
        tail = await fetched(service, "GET", path, params={"from": step["checkpoint_id"]})
        assert tail[1:] == after["chat"][len(after["chat"]) - len(tail) + 1 :]


async def test_a_cancelled_run_without_its_recording(service: Client, tmp_path: Path) -> None:
    thread_id, turns = await session(service, "agent", ["tool please", "wait"], "everything")
    forget_logs(tmp_path / "data", thread_id)
    played = await fetched(service, "GET", f"/runs/{turns[1].run_id}/replay")
    assert no_order(brief(played)) == no_order(brief(turns[1].chat))
    assert brief(played)[-1] == ("done", "cancelled")


async def test_runs_with_and_without_a_recording_in_one_session(service: Client, tmp_path: Path) -> None:
    thread_id = await talk(service, "hello", "tool please", "hello")
    path = f"/sessions/{thread_id}/replay"
    before = await fetched(service, "GET", path)
    forget_logs(tmp_path / "data", thread_id, first=2)
    after = await fetched(service, "GET", path)

    last = before[-2].id.partition(":")[0]
    assert [f for f in after if f.id.startswith(last)] == [f for f in before if f.id.startswith(last)]
    assert [json.loads(f.data).get("rebuilt") for f in after if f.event == "session"] == ["checkpoints"] * 2 + [None]
    assert no_order(brief(after)) == no_order(brief(before))


async def test_a_copied_session_outlives_the_recordings_of_the_first(service: Client) -> None:
    thread_id = await talk(service, "hello", "tool please")
    copy = (await service.http.post(f"/threads/{thread_id}/copy")).json()["thread_id"]
    before = await fetched(service, "GET", f"/sessions/{thread_id}/replay")
    assert await fetched(service, "GET", f"/sessions/{copy}/replay") == before

    await service.http.delete(f"/sessions/{thread_id}")
    after = await fetched(service, "GET", f"/sessions/{copy}/replay")
    firsts = [json.loads(frame.data) for frame in after if frame.event == "session"]
    assert [(one["session_id"], one["rebuilt"]) for one in firsts] == [(copy, "checkpoints")] * 2
    assert no_order(brief(after)) == no_order(brief(before))


async def test_what_a_checkpoint_names_opens_nobody_else_s_recording(start: Start, calls: Calls) -> None:
    async with start(config=PROJECT, api_keys="ann,bob") as ann:
        bob = replace(
            ann, http=ann.http.__class__(base_url=ann.http.base_url, headers={"x-api-key": "bob"}, timeout=60)
        )
        async with bob.http:
            secret = await talk(ann, "hello my secret")
            run_id = (await ann.json(f"/threads/{secret}/runs"))[0]["run_id"]
            mine = await talk(bob, "hello", metadata={"run_id": run_id})
            assert ann.context is not None
            [newest, *_] = (await bob.json(f"/sessions/{mine}/checkpoints"))["items"]
            await forged(ann, mine, newest["checkpoint_id"], run_id)

            played = await fetched(bob, "GET", f"/sessions/{mine}/replay")
            assert run_id in {frame.id.partition(":")[0] for frame in played}
            assert b"secret" not in b"".join(frame.data for frame in played)
            assert [json.loads(f.data).get("rebuilt") for f in played if f.id == f"{run_id}:1"] == ["checkpoints"]
            assert (await bob.http.get(f"/runs/{run_id}/replay")).status_code == 404


async def forged(client: Client, thread_id: str, checkpoint_id: str, run_id: str) -> None:
    """A checkpoint of one's own that says another's run has made it."""
    assert client.context is not None
    saver = client.context.checkpoints._saver
    place = {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}
    saved = await saver.aget_tuple(place)  # type: ignore[arg-type]
    assert saved is not None
    checkpoint = {**saved.checkpoint, "id": f"2{saved.checkpoint['id'][1:]}"}
    metadata = {**saved.metadata, "run_id": run_id}
    await saver.aput(place, checkpoint, metadata, {})  # type: ignore[arg-type]


# What cannot be


NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "asked",
    [
        {"speed": "0"},
        {"speed": "-1"},
        {"speed": "nan"},
        {"speed": "inf"},
        {"speed": "fast"},
        {"speed": ""},
        {"max_gap": "-1"},
        {"max_gap": "nan"},
        {"format": "v3"},
        {"modes": "values"},
        {"format": "langgraph", "modes": "tokens"},
        {"format": "protocol", "modes": "debug"},
        {"subgraphs": "true"},
        {"until": "x"},
        {"until": f"{NOBODY}:1"},
        {"after": "1"},
        {"after": "-2"},
        {"after": f"{NOBODY}:1"},
        {"after": ":1"},
        {"after": "RUN:0"},
        {"after": "RUN:999999"},
        {"after": "RUN:1-0"},
        {"after": "RUN:²"},
        {"after": "OTHER:1"},
        {"until": "OTHER:1"},
        {"format": "langgraph", "after": "RUN:1"},
        {"format": "protocol", "after": "RUN:1"},
        {"after": "RUN:5", "until": "FIRST:1"},
        {"pace": "1"},
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(service: Client, asked: dict[str, str]) -> None:
    thread_id, other = await talk(service, "hello", "hello"), await talk(service, "hello")
    runs = [run["run_id"] for run in (await service.json(f"/threads/{thread_id}/runs"))][::-1]
    strange = (await service.json(f"/threads/{other}/runs"))[0]["run_id"]

    def filled(text: str) -> str:
        return text.replace("FIRST", runs[0]).replace("RUN", runs[1]).replace("OTHER", strange)

    asked = {key: filled(value) for key, value in asked.items()}
    answers = [
        await service.http.get(f"/sessions/{thread_id}/replay", params=asked),
        await service.http.post(f"/sessions/{thread_id}/replay", json={"mode": "recorded", **asked}),
    ]
    if "after" in asked and "until" not in asked:
        given = {key: value for key, value in asked.items() if key != "after"}
        header = {"Last-Event-ID": asked["after"].encode()}
        answers.append(await service.http.get(f"/sessions/{thread_id}/replay", params=given, headers=header))
    if not any(":" in value for value in asked.values()) and asked != {"after": "1"}:
        answers.append(await service.http.get(f"/runs/{runs[0]}/replay", params=asked))
    assert [(one.status_code, one.json()["kind"]) for one in answers] == [(422, "invalid")] * len(answers), asked
    assert all(isinstance(one.json()["detail"], str) for one in answers)


async def test_checkpoints_and_runs_that_are_not_there(service: Client, start: Start) -> None:
    thread_id, other = await talk(service, "hello", "hello"), await talk(service, "hello")
    theirs = (await service.json(f"/sessions/{other}/checkpoints"))["items"][0]["checkpoint_id"]
    steps = (await service.json(f"/sessions/{thread_id}/checkpoints", limit=500))["items"]
    await service.http.post("/threads/prune", json={"thread_ids": [thread_id], "strategy": "keep_latest"})
    left = {step["checkpoint_id"] for step in (await service.json(f"/sessions/{thread_id}/checkpoints"))["items"]}
    pruned = next(step["checkpoint_id"] for step in steps[::-1] if step["checkpoint_id"] not in left)

    for checkpoint_id in (theirs, pruned, NOBODY, "x", "'; --"):
        answer = await service.http.get(f"/sessions/{thread_id}/replay", params={"from": checkpoint_id})
        assert answer.status_code == 404
        assert answer.json()["detail"] == (
            f"This session has no checkpoint {checkpoint_id}: it is another session's, or retention has taken it."
        )
    for path in (f"/runs/{NOBODY}/replay", f"/sessions/{NOBODY}/replay"):
        for answer in (await service.http.get(path), await service.http.post(path, json={"mode": "recorded"})):
            assert answer.status_code == 404
    assert (await service.http.get("/runs/x/replay")).status_code == 422
    assert (await service.http.get(f"/runs/{NOBODY}/replay", params={"from": theirs})).status_code == 422


async def test_what_is_going_on_is_not_replayed(service: Client) -> None:
    thread_id = await talk(service, "hello")
    path = f"/sessions/{thread_id}/replay"
    before = await fetched(service, "GET", path)
    body = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "wait"}]}}
    run_id = (await service.http.post(f"/threads/{thread_id}/runs", json=body)).json()["run_id"]

    for going in (path, f"/runs/{run_id}/replay"):
        answer = await service.http.get(going)
        assert answer.status_code == 409
        assert answer.json()["detail"] == (
            f"The run is still going on. Follow it at /runs/{run_id}/events; once it has ended it can be replayed."
        )
    rest = await fetched(service, "GET", path, headers={"Last-Event-ID": before[3].id})
    assert rest == before[4:]  # who had begun can go on
    await service.http.post(f"/runs/{run_id}/cancel")
    [*_, last] = await fetched(service, "GET", f"/runs/{run_id}/events")
    assert json.loads(last.data)["status"] == "cancelled"
    assert (await service.http.get(path)).status_code == 200


@pytest.mark.parametrize("format", FORMATS)
async def test_a_session_deleted_while_it_is_played(
    service: Client, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    thread_id = await talk(service, "hello", "hello")
    assert service.context is not None
    deleted: list[int] = []

    class Deleting(Ticking):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(2)
            if not deleted:
                deleted.append((await service.http.delete(f"/sessions/{thread_id}")).status_code)

    clock = Deleting()
    monkeypatch.setattr(service.context.replay, "clock", Clock(clock.now, clock.sleep))
    asked = {"speed": "0.001", "format": format}
    played = await fetched(service, "GET", f"/sessions/{thread_id}/replay", params=asked)

    assert deleted == [204]
    assert (played[-1].event, played[-1].id) == ("error", "")
    told = json.loads(played[-1].data)
    assert told["message"] == "The session was deleted while it was played."
    assert {told.get("kind"), told.get("error")} & {"missing"}
    assert "replay_done" not in {frame.event for frame in played}
    assert len(played) < 6
    assert (await service.http.get(f"/sessions/{thread_id}/replay")).status_code == 404


async def test_a_run_deleted_while_its_session_is_played(service: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    thread_id = await talk(service, "hello", "hello")
    runs = [run["run_id"] for run in (await service.json(f"/threads/{thread_id}/runs"))][::-1]
    assert service.context is not None
    saver = service.context.checkpoints._saver

    class Deleting(Ticking):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(0.1)
            await saver.adelete_for_runs([runs[1]])
            await service.http.delete(f"/threads/{thread_id}/runs/{runs[1]}")

    clock = Deleting()
    monkeypatch.setattr(service.context.replay, "clock", Clock(clock.now, clock.sleep))
    played = await fetched(service, "GET", f"/sessions/{thread_id}/replay", params={"speed": "1"})
    assert {frame.id.partition(":")[0] for frame in played[:-1]} == {runs[0]}
    assert json.loads(played[-1].data)["message"] == "What was to be played next has been deleted meanwhile."


async def test_lines_that_no_format_shows_are_passed_over(service: Client, tmp_path: Path) -> None:
    thread_id = await talk(service, "tool please", **EVERYTHING)
    path = f"/sessions/{thread_id}/replay"
    before = {format: await fetched(service, "GET", path, params={"format": format}) for format in FORMATS}
    with closing(sqlite3.connect(tmp_path / "data" / "history.db")) as connection, connection:
        [(run_id, packed)] = connection.execute("SELECT run_id, events FROM run_logs").fetchall()
        events = unpack(packed)
        hidden = replace(events[4], type="calls", data={"kind": "model"}, ns=())  # type: ignore[arg-type]
        connection.execute(
            "UPDATE run_logs SET events = ? WHERE run_id = ?", (pack([*events[:5], hidden, *events[5:]]), run_id)
        )
    assert {format: await fetched(service, "GET", path, params={"format": format}) for format in FORMATS} == before
