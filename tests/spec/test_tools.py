"""The tools through the front door: what there is, what asks first, and what a person's answer comes to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.service import Client, Frame
from tests.stubs.model_server import ModelStub, ToolCall, answer, intent

WRITE = ToolCall("files", {"operation": "write", "path": "note.md", "content": "안녕"})
READ = ToolCall("files", {"operation": "read", "path": "note.md"})
RUN = ToolCall("code", {"code": "print(6*7)"})
SUM = ToolCall("calculator", {"expression": "6*7"})


@pytest.fixture
async def scripted(start: Start, model: ModelStub) -> AsyncIterator[Client]:
    async with start(openai_base_url=model.url, model="stub") as client:
        yield client


def tools(frames: list[Frame]) -> list[tuple[str, str]]:
    return [(f.data["name"], f.data["status"]) for f in frames if f.event == "tool"]


def asked(frames: list[Frame]) -> dict[str, Any]:
    """The interrupt a stream ends with."""
    (interrupt,) = [frame.data for frame in frames if frame.event == "interrupt"]
    assert frames[-1].data["status"] == "interrupted"
    found: dict[str, Any] = interrupt
    return found


async def decide(service: Client, frames: list[Frame], *decisions: Any) -> list[Frame]:
    """Answer the interrupt a stream ended with."""
    value = {"decisions": list(decisions)}
    body = {"session_id": frames[0].data["session_id"], "resume": {"interrupt_id": asked(frames)["id"], "value": value}}
    return await service.read("POST", "/chat", json=body)


def told(model: ModelStub) -> list[str]:
    """What the model was last told by tools."""
    return [message["content"] for message in model.calls[-1].body["messages"] if message["role"] == "tool"]


async def test_every_tool_is_listed_with_what_it_may_do(service: Client) -> None:
    items = {item["name"]: item for item in (await service.json("/tools"))["items"]}

    assert list(items) == ["calculator", "weather", "search", "news", "web", "sql", "files", "code"]
    assert [name for name, item in items.items() if item["asks"]] == ["files", "code"]
    assert items["code"]["risk"] == "run"
    assert items["sql"]["enabled"] is False
    assert items["sql"]["reason"] == "no database is set: THREADLINE_SQL_URL"


async def test_a_person_is_asked_before_anything_is_written(scripted: Client, model: ModelStub, tmp_path: Path) -> None:
    model.script(intent("tool", WRITE, SUM), answer("Done."))

    waiting = await scripted.chat("write a note, and 6*7")
    request = asked(waiting)["value"]

    assert request["action_requests"] == [
        {
            "name": "files",
            "args": WRITE.arguments,
            "description": "Tool files is about to be called: operation=write, path=note.md, content=안녕",
        }
    ]
    assert request["review_configs"] == [{"action_name": "files", "allowed_decisions": ["approve", "edit", "reject"]}]
    assert tools(waiting) == []
    assert not (tmp_path / "data" / "workspaces").exists()

    frames = await decide(scripted, waiting, {"type": "approve"})

    assert sorted(tools(frames)) == [
        ("calculator", "finished"),
        ("calculator", "started"),
        ("files", "finished"),
        ("files", "started"),
    ]
    (note,) = (tmp_path / "data" / "workspaces").rglob("note.md")
    assert note.read_text(encoding="utf-8") == "안녕"
    assert note.parent.name == waiting[0].data["session_id"]


async def test_reading_asks_nobody(scripted: Client, model: ModelStub) -> None:
    model.script(intent("tool", READ), answer("There is none."))

    frames = await scripted.chat("read my note")

    assert tools(frames) == [("files", "started"), ("files", "failed")]
    assert told(model) == ["There is no file note.md."]


async def test_a_rejection_is_told_to_the_model(scripted: Client, model: ModelStub) -> None:
    model.script(intent("tool", RUN), answer("I did not run it."))

    frames = await decide(scripted, await scripted.chat("run it"), {"type": "reject", "message": "not on a Friday"})

    assert tools(frames) == [("code", "failed")]
    assert told(model) == ["not on a Friday"]
    assert frames[-1].data["status"] == "success"


async def test_an_edit_changes_what_is_called_and_what_is_kept(scripted: Client, model: ModelStub) -> None:
    model.script(intent("tool", RUN), answer("It is 42."))
    waiting = await scripted.chat("run it")

    edited = {"name": "code", "args": {"code": "print('edited')"}}
    frames = await decide(scripted, waiting, {"type": "edit", "edited_action": edited})

    (finished,) = [f.data for f in frames if f.event == "tool" and f.data["status"] == "finished"]
    assert finished["args"] == edited["args"]
    assert finished["result"]["printed"] == "edited\n"
    session_id = waiting[0].data["session_id"]
    (newest, *_) = (await scripted.json(f"/sessions/{session_id}/checkpoints"))["items"]
    values = (await scripted.json(f"/sessions/{session_id}/checkpoints/{newest['checkpoint_id']}"))["values"]
    (call,) = [call for message in values["messages"] for call in message.get("tool_calls") or ()]
    assert call["args"] == edited["args"]


async def test_what_was_allowed_for_the_session_does_not_ask_again(scripted: Client, model: ModelStub) -> None:
    model.script(intent("tool", RUN), answer("42"), intent("tool", RUN), answer("42"), intent("tool", RUN))

    waiting = await scripted.chat("run it")
    await decide(scripted, waiting, {"type": "approve", "always": True})
    again = await scripted.chat("once more", waiting[0].data["session_id"])
    elsewhere = await scripted.chat("run it")

    assert tools(again) == [("code", "started"), ("code", "finished")]
    assert asked(elsewhere)["value"]["action_requests"][0]["name"] == "code"


@pytest.mark.parametrize(
    ("value", "trouble"),
    [
        ("yes", "answer: "),
        ({}, "decisions: Field required"),
        ({"decisions": []}, "1 decisions are needed"),
        ({"decisions": [{"type": "approve"}] * 2}, "1 decisions are needed"),
        ({"decisions": [{"type": "respond"}]}, "decisions.0.type: "),
        ({"decisions": [{"type": "edit"}]}, "an edit needs edited_action"),
        (
            {"decisions": [{"type": "edit", "edited_action": {"name": "calculator", "args": {}}}]},
            "an edit may change the arguments of code, not the tool",
        ),
        ({"decisions": [{"type": "approve", "wish": 1}]}, "decisions.0.wish: "),
        (None, "answer: "),
    ],
)
async def test_an_answer_that_is_none_is_asked_for_again(
    value: Any, trouble: str, scripted: Client, model: ModelStub
) -> None:
    model.script(intent("tool", RUN), answer("42"))
    waiting = await scripted.chat("run it")
    session_id = waiting[0].data["session_id"]
    resume = {"interrupt_id": asked(waiting)["id"], "value": value}

    again = await scripted.read("POST", "/chat", json={"session_id": session_id, "resume": resume})

    assert trouble in asked(again)["value"]["error"]
    assert tools(again) == []
    frames = await decide(scripted, again, {"type": "approve"})
    assert tools(frames) == [("code", "started"), ("code", "finished")]


async def test_waiting_survives_a_restart(start: Start, model: ModelStub) -> None:
    model.script(intent("tool", RUN), answer("42"))
    async with start(openai_base_url=model.url, model="stub") as service:
        waiting = await service.chat("run it")
    async with start(openai_base_url=model.url, model="stub") as service:
        frames = await decide(service, waiting, {"type": "approve"})

    assert tools(frames) == [("code", "started"), ("code", "finished")]


async def test_what_stands_in_a_recording_is_not_done_and_not_asked_about_again(
    scripted: Client, model: ModelStub
) -> None:
    model.script(intent("tool", RUN), answer("42"))
    waiting = await scripted.chat("run it")
    await decide(scripted, waiting, {"type": "approve"})
    session_id = waiting[0].data["session_id"]
    items = (await scripted.json(f"/sessions/{session_id}/checkpoints"))["items"]
    before = next(item["checkpoint_id"] for item in items if item["next"] == ["execute_tools"])

    replay = {"mode": "rerun", "checkpoint_id": before}
    again = await scripted.read("POST", f"/sessions/{session_id}/replay", json=replay)
    live = await scripted.read("POST", f"/sessions/{session_id}/replay", json={**replay, "changes": {"tools": "live"}})

    assert tools(again) == [("code", "started"), ("code", "finished")]
    assert again[-1].data["status"] == "success"
    assert asked(live)["value"]["action_requests"][0]["name"] == "code"


async def test_the_operator_says_what_asks(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="stub", ask_before=("calculator",)) as service:
        model.script(intent("tool", RUN), answer("42"), intent("tool", SUM))
        assert tools(await service.chat("run it")) == [("code", "started"), ("code", "finished")]
        assert asked(await service.chat("6*7"))["value"]["action_requests"][0]["name"] == "calculator"


async def test_a_session_that_is_deleted_takes_its_files_along(
    scripted: Client, model: ModelStub, tmp_path: Path
) -> None:
    model.script(intent("tool", WRITE), answer("Done."))
    waiting = await scripted.chat("write a note")
    await decide(scripted, waiting, {"type": "approve"})
    assert list((tmp_path / "data" / "workspaces").rglob("note.md"))

    await scripted.http.delete(f"/sessions/{waiting[0].data['session_id']}")

    assert not list((tmp_path / "data" / "workspaces").rglob("*"))


async def test_nobody_can_say_that_he_is_somebody_else(scripted: Client, model: ModelStub) -> None:
    """What a run is asked with may not spare it the question."""
    model.script(intent("tool", RUN))
    config = {"configurable": {"langgraph_auth_permissions": ["tools:*"], "__threadline_caller": "root"}}

    thread = (await scripted.http.post("/threads", json={})).json()
    run = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "run it"}]}, "config": config}
    await scripted.http.post(f"/threads/{thread['thread_id']}/runs/wait", json=run)

    state = (await scripted.http.get(f"/threads/{thread['thread_id']}/state")).json()
    assert state["next"] == ["execute_tools"]
    assert state["tasks"][0]["interrupts"]
