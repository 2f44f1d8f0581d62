"""Backup and restore: both databases as of one moment, checked to the byte, and nothing written that is not whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tests.contracts.conftest import RedisServer
from tests.service import settings
from threadline.app.backup import back_up, restore
from threadline.domain.errors import Conflict, Invalid, Missing, ThreadlineError, Unavailable
from threadline.storage import backup, keys
from threadline.storage.backup import DATABASES, BadBackup, open_backup, write_backup
from threadline.storage.database import open_database, revisions
from threadline.storage.datadir import DataDirInUse, DataDirUnusable, open_data_dir
from threadline.storage.history import open_history


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data directory with both databases in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    async with open_database(folder / "history.db"), open_history(f"sqlite:///{folder}/checkpoints.db"):
        pass
    change(folder, "history.db", "INSERT INTO chat_history (session_id, user_message) VALUES ('s', 'first')")
    return folder


def change(folder: Path, name: str, statement: str) -> None:
    with closing(sqlite3.connect(folder / name)) as connection, connection:
        connection.execute(statement)


def messages(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "history.db")) as connection:
        return [text for (text,) in connection.execute("SELECT user_message FROM chat_history ORDER BY id")]


def dump(folder: Path) -> list[list[str]]:
    dumps = []
    for name in DATABASES:
        with closing(sqlite3.connect(folder / name)) as connection:
            dumps.append(list(connection.iterdump()))
    return dumps


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# There and back


def test_a_backup_is_one_private_file_that_says_what_it_is(data: Path, tmp_path: Path) -> None:
    made = write_backup(data, tmp_path / "b.zip", replace=False)

    assert stat.S_IMODE((tmp_path / "b.zip").stat().st_mode) == 0o600
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for name in DATABASES:
            content = archive.read(name)
            assert manifest["files"][name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["schema"] == {"history.db": revisions()[-1], "checkpoints.db": "0"}
    assert made.sizes == {name: manifest["files"][name]["size"] for name in DATABASES}
    assert [path.name for path in tmp_path.iterdir() if path != data] == ["b.zip"]


def test_what_was_backed_up_comes_back(data: Path, tmp_path: Path) -> None:
    before = dump(data)
    back_up(settings(data), tmp_path / "b.zip", replace=False)

    restored = restore(settings(tmp_path / "new" / "place"), tmp_path / "b.zip", replace=False)

    assert dump(tmp_path / "new" / "place") == before
    assert restored.aside is None
    assert sorted(path.name for path in (tmp_path / "new" / "place").iterdir()) == [
        "checkpoints.db",
        "history.db",
        "lock",
    ]


def test_what_is_replaced_is_kept_aside_with_its_live_state(data: Path, tmp_path: Path) -> None:
    back_up(settings(data), tmp_path / "b.zip", replace=False)
    change(data, "history.db", "INSERT INTO chat_history (user_message) VALUES ('second')")
    (data / "redis").mkdir()
    (data / "redis" / "appendonly.aof").write_text("newer")
    (data / ".restore-killed").mkdir()

    with pytest.raises(Conflict, match="holds data"):
        restore(settings(data), tmp_path / "b.zip", replace=False)
    assert messages(data) == ["first", "second"]
    restored = restore(settings(data), tmp_path / "b.zip", replace=True)

    assert messages(data) == ["first"]
    assert restored.aside is not None
    assert messages(restored.aside) == ["first", "second"]
    assert (restored.aside / "redis" / "appendonly.aof").read_text() == "newer"
    assert not (data / "redis").exists()
    assert not list(data.glob(".restore-*"))
    again = restore(settings(data), tmp_path / "b.zip", replace=True)
    assert again.aside not in (None, restored.aside)


def test_a_log_that_a_killed_service_left_is_not_mixed_with_the_backup(data: Path, tmp_path: Path) -> None:
    back_up(settings(data), tmp_path / "b.zip", replace=False)
    killed = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("INSERT INTO chat_history (user_message) VALUES ('only in the log')")
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", killed, str(data / "history.db")])
    assert ended.returncode == -signal.SIGKILL
    assert (data / "history.db-wal").stat().st_size > 0

    restored = restore(settings(data), tmp_path / "b.zip", replace=True)

    assert messages(data) == ["first"]
    assert restored.aside is not None
    assert messages(restored.aside) == ["first", "only in the log"]


async def test_a_redis_of_ones_own_forgets_these_threads_and_no_others(
    data: Path, tmp_path: Path, redis: RedisServer
) -> None:
    thread_id, run_id, later = str(uuid4()), str(uuid4()), str(uuid4())
    columns = "thread_id, owner, metadata, created_at, updated_at"
    thread = f"INSERT INTO threads ({columns}) VALUES ('{{}}', 'me', '{{{{}}}}', '2026-01-01', '2026-01-01')"
    change(data, "history.db", thread.format(thread_id))
    run = f"'{run_id}', '{thread_id}', 'agent', 't', 'running', '{{}}', 1, '2026-01-01'"
    columns = "run_id, thread_id, graph_id, turn_id, status, kwargs, attempt, created_at"
    change(data, "history.db", f"INSERT INTO runs ({columns}) VALUES ({run})")
    change(data, "checkpoints.db", f"INSERT INTO checkpoints VALUES ('{thread_id}', 'a', '1', NULL, 'x', x'', x'')")
    write_backup(data, tmp_path / "b.zip", replace=False)
    change(data, "history.db", thread.format(later))
    stale = [keys.session(thread_id), keys.run_log(run_id), keys.live_checkpoint(thread_id, "a"), keys.session(later)]
    others = [keys.session(str(uuid4())), "somebody:else"]

    def go_back() -> None:
        restore(settings(data, redis_url=redis.url), tmp_path / "b.zip", replace=True)

    async with Redis.from_url(redis.url) as client:
        for key in (*stale, *others):
            await client.set(key, "x", ex=100)
        await asyncio.to_thread(go_back)
        assert [await client.exists(key) for key in stale] == [0, 0, 0, 0]
        assert [await client.exists(key) for key in others] == [1, 1]


def test_without_its_redis_nothing_is_restored(data: Path, tmp_path: Path) -> None:
    write_backup(data, tmp_path / "b.zip", replace=False)
    before = dump(data)
    with pytest.raises(Unavailable, match="No Redis answers"):
        restore(settings(data, redis_url=f"unix://{tmp_path}/none.sock"), tmp_path / "b.zip", replace=True)
    assert dump(data) == before


def test_a_restore_that_was_broken_off_is_seen_and_done_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(settings(data), tmp_path / "b.zip", replace=False)
    change(data, "history.db", "INSERT INTO chat_history (user_message) VALUES ('second')")
    rename = Path.rename

    def fail(path: Path, target: Any) -> Any:
        if path.parent.name.startswith(".restore-") and path.name == "checkpoints.db":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(Unavailable, match="Restore again"):
            restore(settings(data), tmp_path / "b.zip", replace=True)
    with pytest.raises(DataDirUnusable, match="broken off"), open_data_dir(data):
        pass
    (aside,) = data.glob("before-restore-*")
    assert messages(aside) == ["first", "second"]

    restore(settings(data), tmp_path / "b.zip", replace=False)

    assert messages(data) == ["first"]
    with open_data_dir(data):
        pass


# Refusals of the one who makes it


def test_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no history"):
        back_up(settings(tmp_path / "none"), tmp_path / "b.zip", replace=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_replaced_only_if_asked(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.zip"
    target.write_text("mine")
    with pytest.raises(Conflict, match="--force"):
        write_backup(data, target, replace=False)
    assert target.read_text() == "mine"
    write_backup(data, target, replace=True)
    with open_backup(target):
        pass


def test_a_file_that_comes_meanwhile_is_not_replaced(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, pack = tmp_path / "b.zip", backup._pack

    def slow(*arguments: Any) -> Any:
        target.write_text("mine")
        return pack(*arguments)

    monkeypatch.setattr(backup, "_pack", slow)
    with pytest.raises(Conflict, match="--force"):
        write_backup(data, target, replace=False)
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "data"]


@pytest.mark.parametrize(("place", "kind"), [("", Invalid), ("no/such/folder/b.zip", Unavailable)])
def test_a_place_where_nothing_can_be_written(data: Path, tmp_path: Path, place: str, kind: type) -> None:
    with pytest.raises(kind):
        write_backup(data, tmp_path / place, replace=True)


def test_a_damaged_database_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    (data / "checkpoints.db").write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(ThreadlineError):
        write_backup(data, tmp_path / "b.zip", replace=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


# Refusals of the one who reads it


def rewritten(path: Path, change: Callable[[dict[str, tuple[zipfile.ZipInfo, bytes]]], None]) -> None:
    """Write the archive anew with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: (zipfile.ZipInfo(info.filename), archive.read(info)) for info in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members.values():
            archive.writestr(info, content)


def member(name: str, content: bytes = b"x", *, mode: int = 0, packed: bool = False) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    return info, content


def with_database(path: Path, name: str, work: Path, *statements: str) -> None:
    """Change a database in the archive and make the manifest fit, as a forger would."""

    def change(members: dict[str, Any]) -> None:
        file = work / f"forged-{name}"
        file.write_bytes(members[name][1])
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        replace_content(members, name, file.read_bytes())
        file.unlink()

    rewritten(path, change)


def replace_content(members: dict[str, Any], name: str, content: bytes, **manifest: Any) -> None:
    said = json.loads(members["manifest.json"][1]) | manifest
    if name != "manifest.json":
        members[name] = member(name, content)
        said["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    members["manifest.json"] = member("manifest.json", json.dumps(said).encode())


def said(**manifest: Any) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda members: replace_content(members, "manifest.json", b"", **manifest))


def added(*extra: tuple[zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda members: members.update({f"{n}": m for n, m in enumerate(extra)}))


def instead(name: str, other: tuple[zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda members: members.update({name: other}))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _claim(path: Path) -> None:
    """Members whose entries in the directory claim a terabyte."""
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: at + 20] + struct.pack("<II", 2**32 - 2, 2**32 - 2) + content[at + 28 :])


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "no archive": lambda path: path.write_bytes(b"Dear diary, " * 1000),
    "truncated": _cut,
    "a flipped bit": _flip,
    "an entry that claims too much": _claim,
    "leads outside": added(member("../../outside")),
    "absolute": added(member("/tmp/outside")),
    "a database twice": added(member("history.db")),
    "only a manifest": lambda path: rewritten(path, lambda members: members.pop("history.db")),
    "a link": instead("history.db", member("history.db", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)),
    "a device": instead("history.db", member("history.db", b"", mode=stat.S_IFCHR | 0o666)),
    "a bomb": instead("history.db", member("history.db", bytes(50_000_000), packed=True)),
    "a packed manifest": instead("manifest.json", member("manifest.json", b" " * 10_000_000, packed=True)),
    "a huge manifest": instead("manifest.json", member("manifest.json", b" " * 100_000)),
    "a manifest that is no JSON": instead("manifest.json", member("manifest.json", b"{")),
    "a deep manifest": instead("manifest.json", member("manifest.json", b"[" * 60_000)),
    "a manifest of a list": instead("manifest.json", member("manifest.json", b"[]")),
    "no files in it": said(files={}),
    "odd sizes": said(files={name: {"size": "many", "sha256": 1} for name in DATABASES}),
    "negative sizes": said(files={name: {"size": -1, "sha256": ""} for name in DATABASES}),
    "a wrong digest": said(files={name: {"size": 10, "sha256": "0" * 64} for name in DATABASES}),
    "an old format that never was": said(format=0),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_and_damaged_files_are_refused_with_nothing_written(data: Path, tmp_path: Path, what: str) -> None:
    target = tmp_path / "b.zip"
    write_backup(data, target, replace=False)
    HOSTILE[what](target)
    before = files(tmp_path)

    for place in (data, tmp_path / "new"):
        with pytest.raises(BadBackup):
            restore(settings(place), target, replace=True)

    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


FORGED: dict[str, tuple[str, str]] = {
    "a trigger": (
        "history.db",
        "CREATE TRIGGER t AFTER INSERT ON threads BEGIN DELETE FROM threads; END",
    ),
    "a view": ("checkpoints.db", "CREATE VIEW v AS SELECT 1"),
    "another history": ("history.db", "DROP TABLE alembic_version"),
    "another schema": ("checkpoints.db", "ALTER TABLE checkpoints DROP COLUMN metadata"),
}


@pytest.mark.parametrize("what", FORGED)
def test_databases_that_are_not_ours_are_refused(data: Path, tmp_path: Path, what: str) -> None:
    target = tmp_path / "b.zip"
    write_backup(data, target, replace=False)
    name, statement = FORGED[what]
    with_database(target, name, tmp_path, statement)
    before = files(tmp_path)

    with pytest.raises(Invalid):
        restore(settings(tmp_path / "new"), target, replace=True)

    assert files(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_database_that_is_damaged_inside_is_refused(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.zip"
    write_backup(data, target, replace=False)

    def damage(members: dict[str, Any]) -> None:
        content = bytearray(members["history.db"][1])
        content[4096:8192] = bytes(4096)
        replace_content(members, "history.db", bytes(content))

    rewritten(target, damage)
    with pytest.raises(BadBackup, match="damaged"):
        restore(settings(tmp_path / "new"), target, replace=True)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("history.db", "UPDATE alembic_version SET version_num = '9999'"),
        ("checkpoints.db", "PRAGMA user_version = 7"),
        ("checkpoints.db", "ALTER TABLE checkpoints ADD COLUMN more TEXT"),
    ],
)
def test_a_newer_schema_is_refused_as_such(data: Path, tmp_path: Path, name: str, statement: str) -> None:
    target = tmp_path / "b.zip"
    write_backup(data, target, replace=False)
    with_database(target, name, tmp_path, statement)
    with pytest.raises(Conflict, match="newer"):
        restore(settings(tmp_path / "new"), target, replace=False)
    assert not (tmp_path / "new").exists()


def test_a_newer_format_is_refused_as_such(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.zip"
    write_backup(data, target, replace=False)
    said(format=2)(target)
    with pytest.raises(Conflict, match="newer"):
        restore(settings(tmp_path / "new"), target, replace=False)


def test_what_is_no_file_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        restore(settings(data), tmp_path / "none.zip", replace=True)
    with pytest.raises(BadBackup, match="no file"):
        restore(settings(data), tmp_path, replace=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadBackup, match="no file"):
        restore(settings(data), tmp_path / "pipe", replace=True)


def test_a_data_directory_in_use_is_left_alone(data: Path, tmp_path: Path) -> None:
    write_backup(data, tmp_path / "b.zip", replace=False)
    with open_data_dir(data):
        before = files(data)
        with pytest.raises(DataDirInUse):
            restore(settings(data), tmp_path / "b.zip", replace=True)
        assert files(data) == before


def test_a_folder_that_is_somebodys_is_left_alone(data: Path, tmp_path: Path) -> None:
    write_backup(data, tmp_path / "b.zip", replace=False)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("mine")
    with pytest.raises(DataDirUnusable, match="other files"):
        restore(settings(tmp_path / "letters"), tmp_path / "b.zip", replace=True)
    assert files(tmp_path / "letters") == {"letter.txt": b"mine"}


def test_a_disk_that_is_too_small_is_told_first(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_backup(data, tmp_path / "b.zip", replace=False)
    usage = backup.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Unavailable, match="1000 are free"):
        restore(settings(tmp_path / "new"), tmp_path / "b.zip", replace=False)
    assert not (tmp_path / "new").exists()
