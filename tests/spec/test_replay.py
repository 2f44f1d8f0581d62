"""Replay: a session played again as it was, or executed again from one of its checkpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import together
from tests.service import Client, Frame
from tests.stubs.model_server import End, ModelStub, ToolCall, answer, intent

NOBODY = "00000000-0000-4000-8000-000000000000"


async def three_turns(client: Client, model: ModelStub) -> tuple[str, list[list[Frame]]]:
    """A session of three turns, the second with a tool; its id and what was streamed."""
    model.script(
        *(intent(), answer("hello ", "there")),
        *(intent("tool", ToolCall("calculator", {"expression": "6*7"})), answer("it is ", "42")),
        *(intent(), answer("good", "bye")),
    )
    turns: list[list[Frame]] = []
    session_id = None
    for message in ("hi", "what is 6*7?", "thanks"):
        turns.append(await client.chat(message, session_id))
        session_id = turns[0][0].data["session_id"]
    assert session_id is not None
    return session_id, turns


async def steps(client: Client, session_id: str) -> list[dict[str, Any]]:
    """The session's checkpoints, oldest first."""
    return (await client.json(f"/sessions/{session_id}/checkpoints", limit=500))["items"][::-1]


async def replay(client: Client, session_id: str, mode: str, checkpoint_id: str | None = None) -> list[Frame]:
    body: dict[str, Any] = {"mode": mode, **({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}
    if mode == "rerun":  # what it finds in the recording: see test_rerun
        body["changes"] = {"models": "live", "tools": "live"}
    return await client.read("POST", f"/sessions/{session_id}/replay", json=body)


Told = list[tuple[str, str, dict[str, Any]]]


def as_it_was(frames: list[Frame]) -> Told:
    """Replayed frames without the one that ends them."""
    return [(str(f.id), f.event, f.data) for f in frames if f.event != "replay_done"]


def as_it_came(frames: list[Frame]) -> Told:
    """Frames of one run, with the ids they have in a session's replay."""
    return [(f"{frames[0].data['run_id']}:{f.id}", f.event, f.data) for f in frames]


async def test_recorded_gives_the_same_frames_without_a_call(scripted: Client, model: ModelStub) -> None:
    session_id, turns = await three_turns(scripted, model)
    calls = len(model.calls)

    played = await replay(scripted, session_id, "recorded")

    assert as_it_was(played) == [frame for turn in turns for frame in as_it_came(turn)]
    assert [frame.event for frame in played].count("replay_done") == 1
    assert (played[-1].event, played[-1].id, played[-1].data) == ("replay_done", "", {})
    assert len(model.calls) == calls
    assert len(await steps(scripted, session_id)) == 13


async def test_recorded_from_a_checkpoint_plays_what_came_after_it(scripted: Client, model: ModelStub) -> None:
    session_id, turns = await three_turns(scripted, model)
    first_end = turns[0][-1].data["checkpoint_id"]

    played = await replay(scripted, session_id, "recorded", first_end)

    assert as_it_was(played) == [frame for turn in turns[1:] for frame in as_it_came(turn)]

    within = next(s for s in await steps(scripted, session_id) if s["next"] == ["execute_tools"])
    played = await replay(scripted, session_id, "recorded", within["checkpoint_id"])
    told = [(f.event, f.data.get("node"), f.data.get("status")) for f in played[:3]]
    assert told == [
        ("session", None, None),
        ("node", "execute_tools", "started"),
        ("tool", None, "started"),
    ]
    assert [f.event for f in played].count("done") == 2


async def test_rerun_makes_a_branch_and_leaves_the_old_one(scripted: Client, model: ModelStub) -> None:
    session_id, turns = await three_turns(scripted, model)
    before = await steps(scripted, session_id)
    second = before[1]
    assert second["next"] == ["analyze_intent"]
    model.script(intent(), answer("a new ", "hello"))

    frames = await replay(scripted, session_id, "rerun", second["checkpoint_id"])

    assert frames[-1].event == "done"
    assert frames[-2].data["content"] == "a new hello"
    after = await steps(scripted, session_id)
    assert after[: len(before)] == before
    assert after[len(before)]["parent_id"] == second["checkpoint_id"]
    head = frames[-1].data["checkpoint_id"]
    assert after[-1]["checkpoint_id"] == head
    whole = await scripted.json(f"/sessions/{session_id}/checkpoints/{head}")
    assert [m["content"] for m in whole["values"]["messages"]] == ["hi", "a new hello"]
    old = await scripted.json(f"/sessions/{session_id}/checkpoints/{turns[2][-1].data['checkpoint_id']}")
    assert len(old["values"]["messages"]) == 8


async def test_recorded_follows_the_branch_of_its_checkpoint(scripted: Client, model: ModelStub) -> None:
    session_id, turns = await three_turns(scripted, model)
    first_end = turns[0][-1].data["checkpoint_id"]
    second = (await steps(scripted, session_id))[1]["checkpoint_id"]
    model.script(intent(), answer("branch"))
    branch = await replay(scripted, session_id, "rerun", second)

    old = await replay(scripted, session_id, "recorded", first_end)
    assert as_it_was(old) == [frame for turn in turns[1:] for frame in as_it_came(turn)]

    new = await replay(scripted, session_id, "recorded", second)
    assert [f.data["text"] for f in new if f.event == "token"] == ["branch"]
    assert as_it_was(new) == as_it_came(branch)


async def test_a_rerun_is_a_turn_of_its_own(scripted: Client, model: ModelStub) -> None:
    session_id, _ = await three_turns(scripted, model)
    second = (await steps(scripted, session_id))[1]["checkpoint_id"]
    model.script(intent(), answer("again"))
    await replay(scripted, session_id, "rerun", second)

    row = (await scripted.json(f"/sessions/{session_id}/history"))["items"][0]
    assert row["user_message"] == "hi"
    assert row["assistant_message"] == "again"
    assert row["extra_metadata"]["rerun_of"] == second


async def test_a_failed_answer_can_be_run_again_from_its_node(scripted: Client, model: ModelStub) -> None:
    model.script(intent(), answer("half ", End.RESET))
    failed = await scripted.chat("hi")
    session_id = failed[0].data["session_id"]
    assert failed[-1].event == "error"
    assert failed[-1].data["kind"] == "model_stream_broken"
    last = (await steps(scripted, session_id))[-1]
    assert last["next"] == ["respond"]
    calls = len(model.calls)
    model.script(answer("whole"))

    frames = await replay(scripted, session_id, "rerun", last["checkpoint_id"])

    assert frames[-2].data["content"] == "whole"
    assert len(model.calls) == calls + 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"mode": "rerun"}, 422),
        ({"mode": "backwards", "checkpoint_id": NOBODY}, 422),
        ({"mode": "recorded", "checkpoint_id": NOBODY}, 404),
        ({"mode": "rerun", "checkpoint_id": NOBODY}, 404),
        ({"mode": "rerun", "checkpoint_id": 5}, 422),
        ({"mode": "rerun", "checkpoint_id": "'; --"}, 404),
        ({"mode": "rerun", "checkpoint_id": NOBODY, "speed": 2}, 422),
    ],
)
@together
async def test_replays_that_cannot_be(caller: Client, body: dict[str, Any], status: int) -> None:
    session_id = (await caller.chat("hello"))[0].data["session_id"]

    response = await caller.http.post(f"/sessions/{session_id}/replay", json=body)

    assert response.status_code == status
    assert isinstance(response.json()["detail"], str)


@together
async def test_nothing_to_execute_after_the_end(caller: Client) -> None:
    frames = await caller.chat("hello")
    body = {"mode": "rerun", "checkpoint_id": frames[-1].data["checkpoint_id"]}

    response = await caller.http.post(f"/sessions/{frames[0].data['session_id']}/replay", json=body)

    assert response.status_code == 409
