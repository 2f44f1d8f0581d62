"""A session as a test: exported files executed again today, and held to what they did then."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Start
from tests.service import CLEAN, ROOT, Client, Frame, settings
from tests.spec.test_share import exported, opened
from tests.stubs.model_server import ModelStub, ToolCall, answer, intent
from threadline.app.check import Answers, as_json, check, report
from threadline.domain.errors import Invalid
from threadline.services.expectations import Done
from threadline.services.trial import Verdict

PROJECT = """
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt


def plan(state: MessagesState):
    call = {"name": "book", "args": {"seats": SEATS, "api_key": "never-told"}, "id": "call_1", "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def left(state: MessagesState):
    return {}


def right(state: MessagesState):
    return {}


def ask(state: MessagesState):
    return {"messages": [AIMessage(f"you said {interrupt('sure?')}")]}


builder = StateGraph(MessagesState)
for node in (plan, left, right, ask):
    builder.add_node(node.__name__, node)
builder.add_edge(START, "plan")
builder.add_edge("plan", "left")
builder.add_edge("plan", "right")
builder.add_edge(["left", "right"], "ask")
builder.add_edge("ask", END)
agent = builder.compile()
"""


def project(folder: Path, *, seats: int = 2, change: tuple[str, str] = ("", "")) -> Path:
    """Somebody's project, as it is or changed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "booking.py").write_text(PROJECT.replace("SEATS", str(seats)).replace(*change))
    config = folder / "langgraph.json"
    config.write_text('{"graphs": {"booking": "./booking.py:agent"}}')
    return config


async def recorded(start: Start, tmp_path: Path) -> Path:
    """A folder with a session of two turns, each of which asked and was answered."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    async with start(config=project(tmp_path / "then")) as client:
        session_id = None
        for answer in ("yes", "no"):
            asked = await client.chat("a table", session_id)
            session_id = asked[0].data["session_id"]
            resume = {"interrupt_id": _interrupt(asked), "value": answer}
            await client.read("POST", "/chat", json={"session_id": session_id, "resume": resume})
        (folder / "booking.jsonl.gz").write_bytes(await exported(client, session_id))
    return folder


def _interrupt(frames: list[Frame]) -> str:
    return next(frame.data["id"] for frame in frames if frame.event == "interrupt")


async def verdict(folder: Path, tmp_path: Path, **values: Any) -> Verdict:
    [found] = await check(settings(tmp_path / "unused", **values), folder)
    return found


async def test_what_is_as_it_was_passes(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)

    found = await verdict(folder, tmp_path, config=tmp_path / "then/langgraph.json")

    assert (found.passed, found.turns, found.error) == (True, 2, None)
    expected = [line for line in opened((folder / "booking.jsonl.gz").read_bytes()) if line["kind"] == "expect"]
    assert expected[1] == {
        "kind": "expect",
        "turn": 2,
        "nodes": ["plan", ["left", "right"], "ask"],
        "tools": [{"name": "book", "args": {"seats": 2, "api_key": "[redacted]"}}],
    }
    assert not (tmp_path / "unused").exists()
    assert list(report([found])) == ["ok  booking.jsonl.gz  2 turns", "1 session, none failed."]


async def test_another_tool_call_and_another_path_are_told(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)

    calls = await verdict(folder, tmp_path, config=project(tmp_path / "calls", seats=3))
    change = ('builder.add_edge(["left", "right"], "ask")', 'builder.add_edge("left", "ask")')
    path = await verdict(folder, tmp_path, config=project(tmp_path / "path", change=change))
    silent = await verdict(
        folder, tmp_path, config=project(tmp_path / "silent", change=("{interrupt('sure?')}", "nothing"))
    )
    fails = await verdict(
        folder, tmp_path, config=project(tmp_path / "fails", change=("return {}", "raise ValueError"))
    )

    assert [(each.turn, each.what) for each in calls.differences] == [(1, "tools"), (2, "tools")]
    assert calls.differences[0].got[0]["args"]["seats"] == 3
    lines = list(report([calls]))
    assert lines[0].startswith("FAIL")
    assert '"seats": 2' in lines[2]
    assert lines[-1] == "1 session, 1 failed."
    assert [each.what for each in path.differences] == []  # the same nodes in the same steps
    assert silent.passed  # it ran the same nodes; what it says is not expected
    assert ("error", None, "internal") in [(d.what, d.expected, d.got) for d in fails.differences]


async def test_expectations_of_ones_own(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)
    config = tmp_path / "then/langgraph.json"
    beside = folder / "booking.expect.json"

    beside.write_text(json.dumps({"1": {"answer": {"contains": "said yes", "regex": "^you"}}, "2": None}))
    fine = await verdict(folder, tmp_path, config=config)
    beside.write_text(json.dumps({"2": {"answer": {"equals": "you said yes"}, "nodes": ["ask"], "tools": None}}))
    wrong = await verdict(folder, tmp_path, config=config)
    beside.write_text('{"1": {"answer": {"regex": "("}}}')
    broken = await verdict(folder, tmp_path, config=config)
    beside.write_text('{"3": {}}')
    beyond = await verdict(folder, tmp_path, config=config)

    assert fine.passed, fine
    assert [(each.turn, each.what) for each in wrong.differences] == [(2, "nodes"), (2, "answer")]
    assert "no regular expression" in (broken.error or "")
    assert beyond.error == "booking.jsonl.gz has 2 turns, and something is expected of turn 3."


async def test_an_edited_line_counts(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)
    file = folder / "booking.jsonl.gz"
    lines = gzip.decompress(file.read_bytes()).decode().replace('"turn":1,"nodes":["plan"', '"turn":1,"nodes":["start"')
    file.unlink()
    (folder / "edited.jsonl").write_text(lines, "utf-8")

    found = await verdict(folder, tmp_path, config=tmp_path / "then/langgraph.json")

    assert [(each.turn, each.what) for each in found.differences] == [(1, "nodes")]
    (folder / "edited.jsonl").write_text(lines.replace("a table", "a chair"), "utf-8")
    assert "damaged" in ((await verdict(folder, tmp_path)).error or "")


async def test_a_session_of_another_graph_or_none(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)

    found = await verdict(folder, tmp_path)

    assert found.error == "The graph booking is not served here."
    assert as_json([found])["sessions"][0]["passed"] is False
    with pytest.raises(Invalid, match="no exported session"):
        await verdict(tmp_path / "then", tmp_path)


async def test_how_it_is_executed_can_be_chosen(start: Start, tmp_path: Path) -> None:
    folder = await recorded(start, tmp_path)

    async def execute(context: Any, trial: Any) -> list[Done]:
        return [Done(nodes=["plan"], ended=True) for _ in trial.turns]

    chosen = settings(tmp_path / "unused", config=tmp_path / "then/langgraph.json")
    [found] = await check(chosen, folder, execute=execute)

    assert [each.what for each in found.differences] == ["nodes", "tools", "nodes", "tools"]


async def test_what_is_asked_as_it_was_is_answered_from_the_file(
    start: Start, model: ModelStub, tmp_path: Path
) -> None:
    """Nothing is called but by who says so; where today's answer makes a difference, what comes after it is."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    sums = ToolCall("calculator", {"expression": "6*7"})
    model.script(intent("tool", sums), answer("42"))
    async with start(openai_base_url=model.url, model="stub") as client:
        frames = await client.chat("6*7?")
        kept = await exported(client, frames[0].data["session_id"])
    (folder / "sums.jsonl.gz").write_bytes(kept)
    today = settings(tmp_path / "unused", openai_base_url=model.url, model="stub")
    asked = len(model.calls)

    [same] = await check(today, folder)
    assert (same.passed, len(model.calls)) == (True, asked)

    model.script(intent("tool", ToolCall("calculator", {"expression": "6+7"})), answer("13"))
    [live] = await check(today, folder, answers=Answers(models="live"))
    assert [each.what for each in live.differences] == ["tools"]
    assert len(model.calls) == asked + 2

    model.script(intent("tool", sums), answer("42"))
    [other] = await check(today.model_copy(update={"model": "another"}), folder)
    assert (other.passed, len(model.calls)) == (True, asked + 4)


async def run(*words: str, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=cwd,
        env={**CLEAN, "THREADLINE_CONFIG": str(ROOT / "langgraph.json")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_built_in_agent_by_command_and_in_pytest(service: Client, tmp_path: Path) -> None:
    session_id = None
    for message in ("What is (15+27)*3?", "thanks"):
        session_id = (await service.chat(message, session_id))[0].data["session_id"]
    file = await exported(service, session_id or "")
    for name in ("good", "bad"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(file)
    (tmp_path / "bad.expect.json").write_text('{"1": {"answer": {"contains": "127"}, "intent": "chat"}}')
    (tmp_path / "test_talks.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.parametrize('name', ['good', 'bad'])\n"
        "def test_talk(threadline_session, name):\n    threadline_session(f'{name}.jsonl.gz', model=None)\n"
    )
    command = ("-c", "from threadline.app.cli import main; main()", "replay", "--check")

    passed = await run(*command, "good.jsonl.gz", cwd=tmp_path)
    failed = await run(*command, ".", "--json", cwd=tmp_path)
    tested = await run(
        *("-m", "pytest", "-q", "-p", "threadline.app.pytest_plugin", "-p", "no:cacheprovider"), cwd=tmp_path
    )

    assert passed == (0, "ok  good.jsonl.gz  2 turns\n1 session, none failed.\n")
    assert failed[0] == 1
    bad, good = json.loads(failed[1])["sessions"]
    assert (good["passed"], bad["passed"]) == (True, False)
    assert [(each["what"], each["expected"]) for each in bad["differences"]] == [
        ("intent", "chat"),
        ("answer", {"contains": ["127"]}),
    ]
    assert tested[0] == 1, tested[1]
    assert "1 failed, 1 passed" in tested[1]
    assert "bad.jsonl.gz does otherwise:" in tested[1]
    assert "turn 1, answer" in tested[1]
