"""Retention: old checkpoints go, by age or number; pinned ones, the newest and the turns stay."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import Start
from tests.service import CLEAN, ROOT, Client, process
from tests.spec.test_sessions import talk
from tests.stubs.model_server import ModelStub, answer, intent


async def steps(client: Client, session_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.json(f"/sessions/{session_id}/checkpoints", limit=500))["items"]
    return items


async def states(client: Client, session_id: str) -> dict[str, Any]:
    """The whole state at each step, but for where it comes from."""
    found = {}
    for step in await steps(client, session_id):
        whole = await client.json(f"/sessions/{session_id}/checkpoints/{step['checkpoint_id']}")
        found[step["checkpoint_id"]] = {
            name: whole[name] for name in ("step", "source", "next", "values", "interrupts")
        }
    return found


async def until_left(client: Client, session_id: str, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 20
    while len(left := await steps(client, session_id)) != count:
        assert time.monotonic() < deadline, f"{len(left)} are left, not {count}"
        await asyncio.sleep(0.02)
    return left


async def command(*arguments: str, data_dir: Path) -> tuple[int, str, str]:
    """A command of its own process, as somebody would type it."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "threadline", *arguments, "--data-dir", str(data_dir)),
        cwd=ROOT,
        env=CLEAN,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_by_default_nothing_goes(start: Start) -> None:
    async with start(history_sweep=0.01) as service:
        session_id = await talk(service, *["hello"] * 3)
        first = await steps(service, session_id)
        await talk(service, *["hello"] * 3)
        assert await steps(service, session_id) == first
        assert "threadline_checkpoints_pruned_total 0.0" in (await service.http.get("/metrics")).text


async def test_a_session_keeps_so_many_steps_and_all_its_turns(start: Start) -> None:
    async with start() as service:
        session_id = await talk(service, "my name is Minji", "What is 6*7?", "hello", "What is 7*8?")
        before = await states(service, session_id)
        document, history = [await service.json(f"/sessions/{session_id}{path}") for path in ("", "/history")]

    async with start(history_max_checkpoints=6, history_sweep=0.05) as service:
        left = await until_left(service, session_id, 6)

        assert [step["checkpoint_id"] for step in left] == list(before)[:6]
        assert await states(service, session_id) == {
            step["checkpoint_id"]: before[step["checkpoint_id"]] for step in left
        }
        assert (left[-1]["parent_id"], left[-1]["nodes"]) == (None, [])
        assert await service.json(f"/sessions/{session_id}/history") == history
        assert (await service.json(f"/sessions/{session_id}"))["messages"] == document["messages"]
        metrics = (await service.http.get("/metrics")).text
        assert f"threadline_checkpoints_pruned_total {len(before) - 6}.0" in metrics
        assert float(re.search(r"^threadline_checkpoints_pruned_bytes_total (\S+)$", metrics, re.M)[1]) > 0
        told = await service.chat("what's my name?", session_id)
        assert "Minji" in told[-2].data["content"]


async def test_what_is_too_old_goes(start: Start, tmp_path: Path) -> None:
    async with start() as service:
        session_id = await talk(service, "hello", "What is 6*7?")
    age = "UPDATE {} SET checkpoint_id = '0' || substr(checkpoint_id, 2){}"
    with closing(sqlite3.connect(tmp_path / "data" / "checkpoints.db")) as connection, connection:
        (newest,) = connection.execute("SELECT max(checkpoint_id) FROM checkpoints").fetchone()
        where = f" WHERE checkpoint_id < '{newest}'"
        parent = ", parent_checkpoint_id = '0' || substr(parent_checkpoint_id, 2)"
        connection.execute(age.format("checkpoints", parent + where))
        connection.execute("UPDATE checkpoints SET parent_checkpoint_id = '0' || substr(parent_checkpoint_id, 2)")
        connection.execute(age.format("writes", where))

    async with start(history_max_age="30d", history_sweep=0.05) as service:
        [left] = await until_left(service, session_id, 1)
        assert left["checkpoint_id"] == newest
        assert len((await service.json(f"/sessions/{session_id}"))["messages"]) == 4


# Pins


async def test_a_pinned_step_has_a_name_and_stays(start: Start) -> None:
    async with start() as service:
        session_id = await talk(service, "What is 6*7?", "hello", "hello")
        before = await states(service, session_id)
        early = list(before)[-3]
        path = f"/sessions/{session_id}/checkpoints/{early}"

        pinned = await service.http.put(f"{path}/pin", json={"name": "  the question  "})

        assert pinned.status_code == 200
        assert pinned.json().items() >= {"checkpoint_id": early, "pinned": True, "name": "the question"}.items()
        listed = {step["checkpoint_id"]: (step["pinned"], step["name"]) for step in await steps(service, session_id)}
        assert listed == {one: (one == early, "the question" if one == early else None) for one in before}
        assert (await service.json(path)).items() >= {"pinned": True, "name": "the question"}.items()
        renamed = (await service.http.put(f"{path}/pin", json={"name": "6*7"})).json()
        assert (renamed["name"], renamed["pinned_at"]) == ("6*7", pinned.json()["pinned_at"])

    async with start(history_max_checkpoints=2, history_sweep=0.05) as service:
        left = await until_left(service, session_id, 3)
        newest, second, oldest = left
        assert (oldest["checkpoint_id"], oldest["name"]) == (early, "6*7")
        assert (newest["parent_id"], second["parent_id"]) == (second["checkpoint_id"], early)
        assert await states(service, session_id) == {
            step["checkpoint_id"]: before[step["checkpoint_id"]] for step in left
        }
        rerun = {"mode": "rerun", "checkpoint_id": early}
        again = await service.read("POST", f"/sessions/{session_id}/replay", json=rerun)
        assert "42" in again[-2].data["content"]

        for _ in range(2):
            assert (await service.http.delete(f"{path}/pin")).status_code == 204

    async with start(history_max_checkpoints=2, history_sweep=0.05) as service:
        await until_left(service, session_id, 2)
        assert (await service.http.put(f"{path}/pin")).status_code == 404
        assert (await service.http.delete(f"{path}/pin")).status_code == 404


async def test_pins_need_no_name_and_go_with_their_session(service: Client, tmp_path: Path) -> None:
    session_id = await talk(service, "hello")
    [newest, *_] = await steps(service, session_id)
    pinned = await service.http.put(f"/sessions/{session_id}/checkpoints/{newest['checkpoint_id']}/pin")
    assert pinned.json().items() >= {"pinned": True, "name": None}.items()

    await service.http.delete(f"/sessions/{session_id}")

    with closing(sqlite3.connect(tmp_path / "data" / "history.db")) as connection:
        assert connection.execute("SELECT count(*) FROM pins").fetchone() == (0,)


@pytest.mark.parametrize(
    "body", [{"name": ""}, {"name": "  "}, {"name": "a\nb"}, {"name": "a\x00"}, {"name": "n" * 201}, {"label": "x"}, []]
)
async def test_names_that_cannot_be(service: Client, body: Any) -> None:
    session_id = await talk(service, "hello")
    [newest, *_] = await steps(service, session_id)
    answered = await service.http.put(f"/sessions/{session_id}/checkpoints/{newest['checkpoint_id']}/pin", json=body)
    assert answered.status_code == 422
    assert (await steps(service, session_id))[0]["pinned"] is False


async def test_only_steps_of_ones_own_sessions_are_pinned(service: Client) -> None:
    mine, other = await talk(service, "hello"), await talk(service, "hello")
    theirs = (await steps(service, other))[0]["checkpoint_id"]
    for method in ("PUT", "DELETE"):
        for session_id in (mine, str(uuid4())):
            path = f"/sessions/{session_id}/checkpoints/{theirs}/pin"
            assert (await service.http.request(method, path)).status_code == 404
    assert (await steps(service, other))[0]["pinned"] is False


# Replay afterwards


async def test_a_recording_outlives_the_steps_it_passed(start: Start, model: ModelStub) -> None:
    async with start(openai_base_url=model.url, model="stub") as service:
        model.script(intent(), answer("one"), intent(), answer("two"))
        session_id = await talk(service, "first", "second")
        before = await service.read("GET", f"/sessions/{session_id}/replay")

    async with start(history_max_checkpoints=1, history_sweep=0.05) as service:
        await until_left(service, session_id, 1)
        assert await service.read("GET", f"/sessions/{session_id}/replay") == before


# Recordings


async def recordings(service: Client, session_id: str) -> list[bool]:
    """Of each run of a session, whether its recording is there."""
    played = await service.read("GET", f"/sessions/{session_id}/replay")
    return ["rebuilt" not in frame.data for frame in played if frame.event == "session"]


def aged(data: Path, session_id: str, days: int, *, runs: int) -> None:
    """As if a session's first runs had ended so long ago."""
    with closing(sqlite3.connect(data / "history.db")) as connection, connection:
        connection.execute(
            """UPDATE run_logs SET ended_at = datetime(ended_at, ?) WHERE run_id IN
               (SELECT run_id FROM runs WHERE thread_id = ? ORDER BY position LIMIT ?)""",
            (f"-{days} days", session_id, runs),
        )


async def test_old_recordings_go_and_their_sessions_stay(start: Start, tmp_path: Path) -> None:
    async with start() as service:
        session_id = await talk(service, "hello", "What is 6*7?", "hello")
        history = await service.json(f"/sessions/{session_id}/history")
        before = await states(service, session_id)
        assert await recordings(service, session_id) == [True] * 3
    aged(tmp_path / "data", session_id, 31, runs=2)

    async with start(history_max_log_age="30d", history_sweep=0.05) as service:
        deadline = time.monotonic() + 20
        while "threadline_logs_pruned_total 2.0" not in (await service.http.get("/metrics")).text:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert await recordings(service, session_id) == [False, False, True]
        assert await service.json(f"/sessions/{session_id}/history") == history
        assert await states(service, session_id) == before


async def test_the_command_takes_old_recordings(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with process(data) as (_, client):
        old, other = await talk(client, "hello", "hello"), await talk(client, "hello")
        aged(data, old, 2, runs=1)
        aged(data, other, 2, runs=1)
        before = await states(client, old)

        looked = await command("prune", "--dry-run", "--max-log-age", "1d", data_dir=data)
        assert await recordings(client, old) == [True, True]
        one = await command("prune", "--max-log-age", "1d", "--thread", other, data_dir=data)
        assert (await recordings(client, old), await recordings(client, other)) == ([True, True], [False])
        rest = await command("prune", "--max-log-age", "1d", "--max-checkpoints", "1000", data_dir=data)

        assert re.fullmatch(r"2 recordings would go, [0-9.]+ KB\.\n", looked[1]), looked
        assert re.fullmatch(r"1 recording went, [0-9.]+ K?B\.\n", one[1]), one
        assert rest[1].startswith("0 checkpoints of 0 sessions went, 0 B.\n1 recording went, "), rest
        assert await recordings(client, old) == [False, True]
        assert await states(client, old) == before


# From the command line


async def test_the_command_prunes_beside_the_service(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with process(data) as (_, client):
        session_id = await talk(client, *["hello"] * 5)
        before = await states(client, session_id)

        looked = await command("prune", "--dry-run", "--max-checkpoints", "4", data_dir=data)
        assert await states(client, session_id) == before
        done = await command("prune", "--max-checkpoints", "4", data_dir=data)

        rows = [line.split() for line in done[1].splitlines()]
        assert rows[0] == ["SESSION", "CHECKPOINTS", "KEPT", "SIZE"]
        assert rows[1][:3] == [session_id, str(len(before) - 4), "4"]
        assert done[1].splitlines()[-1].startswith(f"{len(before) - 4} checkpoints of 1 session went, ")
        assert (looked[0], done[0]) == (0, 0)
        assert looked[1] == done[1].replace("went", "would go")
        assert list(await states(client, session_id)) == list(before)[:4]
        assert {one: before[one] for one in list(before)[:4]} == await states(client, session_id)
        assert (await client.chat("hello", session_id))[-1].data["status"] == "success"
        assert len((await client.json(f"/sessions/{session_id}"))["messages"]) == 12


async def test_the_command_without_the_service(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with start() as service:
        first, second = await talk(service, "hello", "hello"), await talk(service, "hello", "hello")

    with closing(sqlite3.connect(data / "checkpoints.db")) as connection:
        before = list(connection.iterdump())
    assert (await command("prune", "--dry-run", "--max-checkpoints", "1", data_dir=data))[0] == 0
    with closing(sqlite3.connect(data / "checkpoints.db")) as connection:
        assert list(connection.iterdump()) == before
    assert (await command("prune", "--thread", first, "--max-checkpoints", "1", data_dir=data))[0] == 0
    code, out, _ = await command("prune", "--max-age", "1w", data_dir=data)
    assert (code, out) == (0, "0 checkpoints of 0 sessions went, 0 B.\n")

    async with start() as service:
        assert len(await steps(service, first)) == 1
        assert len(await steps(service, second)) > 4
        assert len((await service.json(f"/sessions/{first}"))["messages"]) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "No limit is set"),
        (("--max-age", "soon"), "THREADLINE_HISTORY_MAX_AGE: it must be a number and a unit"),
        (("--max-age", "0d"), "THREADLINE_HISTORY_MAX_AGE"),
        (("--max-age", "999999w"), "THREADLINE_HISTORY_MAX_AGE"),
        (("--max-checkpoints", "0"), "THREADLINE_HISTORY_MAX_CHECKPOINTS"),
        (("--max-checkpoints", "1"), "There are no checkpoints in"),
    ],
)
async def test_what_the_command_refuses(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = await command("prune", *arguments, data_dir=tmp_path / "none")
    assert (code, out) == (1, "")
    assert told in err
    assert not (tmp_path / "none").exists()


async def test_a_session_there_is_not(start: Start, tmp_path: Path) -> None:
    async with start() as service:
        await talk(service, "hello")
    nobody = str(uuid4())
    code, _, err = await command("prune", "--thread", nobody, "--max-checkpoints", "1", data_dir=tmp_path / "data")
    assert (code, err) == (1, f"threadline: There is no session {nobody}.\n")
