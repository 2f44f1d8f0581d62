"""Backup and restore of a service: taken while it is busy, and what it answers once it is back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.conftest import Start
from tests.service import process, redis_of
from tests.spec.test_retention import command, steps
from tests.spec.test_sessions import talk


async def test_a_backup_under_load_has_every_turn_that_was_answered_before(tmp_path: Path, start: Start) -> None:
    target = tmp_path / "backup.zip"
    answered: dict[str, int] = {}
    async with process(tmp_path / "busy", THREADLINE_HISTORY_MAX_CHECKPOINTS="8", THREADLINE_HISTORY_SWEEP="0.2") as (
        _,
        client,
    ):
        enough, stop = asyncio.Event(), asyncio.Event()

        async def converse() -> None:
            session_id = None
            while not stop.is_set():
                frames = await client.chat("What is 6*7?", session_id)
                session_id = frames[0].data["session_id"]
                answered[session_id] = answered.get(session_id, 0) + 1
                if len(answered) == 6 and min(answered.values()) >= 3:
                    enough.set()

        talks = [asyncio.create_task(converse()) for _ in range(6)]
        async with asyncio.timeout(60):
            await enough.wait()
            before = dict(answered)
            code, out, err = await command("backup", str(target), data_dir=tmp_path / "busy")
        stop.set()
        await asyncio.gather(*talks)
    assert (code, err) == (0, "")
    assert out.startswith(f"Backed up to {target}: history.db ")
    assert sum(answered.values()) > sum(before.values()), "it was busy meanwhile"

    code, out, _ = await command("restore", str(target), data_dir=tmp_path / "data")
    assert code == 0
    assert out.startswith("Restored the backup of ")

    named = (
        "SELECT session_id, json_extract(extra_metadata, '$.checkpoint_id') FROM chat_history GROUP BY 1 HAVING max(id)"
    )
    with (
        closing(sqlite3.connect(tmp_path / "data" / "history.db")) as history,
        closing(sqlite3.connect(tmp_path / "data" / "checkpoints.db")) as checkpoints,
    ):
        newest = {row[0]: row[1] for row in history.execute(named.replace("GROUP BY 1 HAVING max(id)", "ORDER BY id"))}
        for checkpoint_id in newest.values():
            assert checkpoints.execute("SELECT 1 FROM checkpoints WHERE checkpoint_id = ?", (checkpoint_id,)).fetchone()
    async with start() as service:
        for session_id, turns in before.items():
            history_rows = (await service.json(f"/sessions/{session_id}/history"))["items"]
            assert len([row for row in history_rows if row["extra_metadata"]["status"] == "success"]) >= turns
            state = await service.json(f"/sessions/{session_id}/checkpoints/{newest[session_id]}")
            asked = [message for message in state["values"]["messages"] if message["type"] == "human"]
            assert len(asked) >= turns
            assert (await service.chat("What is 6*7?", session_id))[-1].data["status"] == "success"


async def test_after_a_restore_nothing_newer_shines_through(tmp_path: Path, start: Start) -> None:
    """Live state is newer than the backup: neither the session document nor the checkpoint in Redis is believed."""
    async with start() as service:
        session_id = await talk(service, "my name is Minji", "What is 6*7?")
        code, _, _ = await command("backup", str(tmp_path / "b.zip"), data_dir=tmp_path / "data")
        assert code == 0
        backed_up = await service.json(f"/sessions/{session_id}")
        then = await steps(service, session_id)
        await talk(service, "hello")
        await service.chat("my name is Jisoo", session_id)
        refused = await command("restore", str(tmp_path / "b.zip"), "--force", data_dir=tmp_path / "data")
        assert refused[0] == 1
        assert "in use by process" in refused[2]

    code, out, _ = await command("restore", str(tmp_path / "b.zip"), data_dir=tmp_path / "data")
    assert (code, out) == (1, "")
    code, out, _ = await command("restore", str(tmp_path / "b.zip"), "--force", data_dir=tmp_path / "data")
    assert code == 0
    assert "What was there before is in " in out

    async with start() as service:
        assert (await service.json("/sessions"))["items"][0]["session_id"] == session_id
        assert len((await service.json("/sessions"))["items"]) == 1
        assert (await service.json(f"/sessions/{session_id}"))["messages"] == backed_up["messages"]
        assert await steps(service, session_id) == then
        told = await service.chat("what's my name?", session_id)
        assert "Minji" in told[-2].data["content"]


async def test_a_redis_that_outlived_the_service_is_fenced(tmp_path: Path, start: Start) -> None:
    """Even where the live tier is put back behind our back: a newer live checkpoint is none of this history's."""
    async with start() as service:
        session_id = await talk(service, "my name is Minji")
        assert (await command("backup", str(tmp_path / "b.zip"), data_dir=tmp_path / "data"))[0] == 0
        await service.chat("my name is Jisoo", session_id)
    assert (await command("restore", str(tmp_path / "b.zip"), "--force", data_dir=tmp_path / "data"))[0] == 0
    (aside,) = (tmp_path / "data").glob("before-restore-*")
    (aside / "redis").rename(tmp_path / "data" / "redis")

    async with start() as service:
        async with redis_of(tmp_path / "data") as redis:
            keys = [key async for key in redis.scan_iter(f"checkpoint:{session_id}:*")]
            assert keys, "the newer live checkpoint is there"
        told = await service.chat("what's my name?", session_id)

    assert "Minji" in told[-2].data["content"]
    assert "Jisoo" not in told[-2].data["content"]
