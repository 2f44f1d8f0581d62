"""What makes no sense to a saver: a clear typed error, and nothing is written."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from tests.contracts.conftest import RedisServer
from tests.contracts.test_savers import thread
from threadline.domain.errors import Conflict, Invalid, Unavailable
from threadline.storage import open_saver
from threadline.storage.tiered import TieredSaver

META: Any = {"source": "loop", "step": 1, "a": {"b": 1}}


@pytest.fixture(params=["history only", "tiered"])
async def saver(request: pytest.FixtureRequest, database: str) -> AsyncIterator[TieredSaver]:
    """At the end it still takes a checkpoint and reads it, and that is all there is."""
    live = request.getfixturevalue("redis").url if request.param == "tiered" else None
    async with open_saver(history=database, live=live) as opened:
        yield opened
        assert [item async for item in opened.alist(None)] == []
        config = await put(opened, thread(checkpoint_ns=""))
        found = await opened.aget_tuple(config)
        assert found is not None
        assert [item.config async for item in opened.alist(None)] == [config]


async def put(saver: TieredSaver, config: Any, metadata: Any = META) -> Any:
    return await saver.aput(config, empty_checkpoint(), metadata, {})


async def every(saver: TieredSaver, config: Any) -> None:
    """Each method refuses the config."""
    for call in (
        lambda: saver.aget_tuple(config),
        lambda: anext(saver.alist(config)),
        lambda: put(saver, config),
        lambda: saver.aput_writes(config, [("value", 1)], "task"),
        lambda: saver.aget_delta_channel_history(config=config, channels=["value"]),
    ):
        with pytest.raises(Invalid):
            await call()  # type: ignore[no-untyped-call]


# Where


@pytest.mark.parametrize(
    "thread_id", ["", None, 1.5, b"x", ["a"], {"a": 1}, "a,b", "a\nb", "a\x00", "\ud800"], ids=repr
)
async def test_thread_ids_that_are_none(saver: TieredSaver, thread_id: Any) -> None:
    await every(saver, {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
    for call in (
        saver.adelete_thread(thread_id),
        saver.aprune([thread_id]),
        saver.acopy_thread(thread_id, "fine"),
        saver.acopy_thread("fine", thread_id),
    ):
        with pytest.raises(Invalid):
            await call


@pytest.mark.parametrize("config", [{}, {"configurable": {}}, {"configurable": None}], ids=repr)
async def test_configs_that_name_no_thread(saver: TieredSaver, config: Any) -> None:
    await every(saver, config)


@pytest.mark.parametrize("checkpoint_ns", [None, 5, ["a"], "a\x00b", "\udfff"], ids=repr)
async def test_namespaces_that_are_none(saver: TieredSaver, checkpoint_ns: Any) -> None:
    await every(saver, thread(checkpoint_ns=checkpoint_ns))


@pytest.mark.parametrize(
    "thread_id", ["1", 5, UUID(int=1), "'; DROP TABLE checkpoints --", "스레드", "x" * 5000], ids=str
)
async def test_any_other_id_names_a_thread_of_its_own(database: str, redis: RedisServer, thread_id: Any) -> None:
    """The service's ids are UUIDs; whoever uses the saver alone has the ids that stock savers take."""
    async with open_saver(history=database, live=redis.url) as saver:
        config = await put(saver, thread(checkpoint_ns="") | {"configurable": {"thread_id": thread_id}})
        await put(saver, thread(checkpoint_ns=""))
        assert [item.config async for item in saver.alist(config)] == [config]
        assert config["configurable"]["thread_id"] == str(thread_id)
        await saver.adelete_thread(thread_id)
        assert await saver.aget_tuple(config) is None
        assert len([item async for item in saver.alist(None)]) == 1


async def test_unknown_checkpoints_are_none(saver: TieredSaver) -> None:
    for checkpoint_id in (str(uuid4()), "' OR 1=1 --", "x" * 5000, 5, ["a"], {"a": 1}):
        config = thread(checkpoint_ns="", checkpoint_id=checkpoint_id)
        assert await saver.aget_tuple(config) is None
        found = await saver.aget_delta_channel_history(config=config, channels=["value"])
        assert found == {"value": {"writes": []}}
    with pytest.raises(Invalid):
        await saver.aget_tuple(thread(checkpoint_ns="", checkpoint_id="\ud800"))


async def test_writes_that_name_no_checkpoint(saver: TieredSaver) -> None:
    with pytest.raises(Invalid, match="checkpoint"):
        await saver.aput_writes(thread(checkpoint_ns=""), [("value", 1)], "task")


@pytest.mark.parametrize("checkpoint", [{}, {"id": None}, {"id": 5}, None, [], "text"], ids=repr)
async def test_checkpoints_that_are_none(saver: TieredSaver, checkpoint: Any) -> None:
    with pytest.raises(Invalid):
        await saver.aput(thread(checkpoint_ns=""), checkpoint, META, {})


# What


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


UNSTORABLE: dict[str, Any] = {
    "object": object(),
    "function": print,
    "circle": circle(),
    "set": {1},
    "bytes": b"x",
    "not a number": math.nan,
    "infinity": -math.inf,
    "odd key": {(1, 2): 3},
    "text of its own": Odd(),
}


@pytest.mark.parametrize("name", UNSTORABLE)
async def test_metadata_that_cannot_be_serialized(saver: TieredSaver, name: str) -> None:
    with pytest.raises(Invalid, match="metadata"):
        await put(saver, thread(checkpoint_ns=""), {"source": "loop", "value": {"deep": [UNSTORABLE[name]]}})


@pytest.mark.parametrize("metadata", [None, [], "text", 5], ids=repr)
async def test_metadata_that_is_none(saver: TieredSaver, metadata: Any) -> None:
    with pytest.raises(Invalid, match="metadata"):
        await put(saver, thread(checkpoint_ns=""), metadata)


async def test_metadata_of_the_config_is_refused_as_well(saver: TieredSaver) -> None:
    """Where one NaN got in, SQLite refused every filtered list of the file as malformed JSON."""
    with pytest.raises(Invalid, match="metadata"):
        await put(saver, {**thread(checkpoint_ns=""), "metadata": {"score": math.nan}})


@pytest.mark.parametrize("name", ["object", "function", "circle", "text of its own"])
async def test_values_that_cannot_be_serialized(saver: TieredSaver, name: str) -> None:
    config = thread(checkpoint_ns="")
    checkpoint: Any = {**empty_checkpoint(), "channel_values": {"value": UNSTORABLE[name]}}
    with pytest.raises(Invalid):
        await saver.aput(config, checkpoint, META, {})
    config["configurable"]["checkpoint_id"] = str(uuid4())
    with pytest.raises(Invalid):
        await saver.aput_writes(config, [("fine", 1), ("value", UNSTORABLE[name])], "task")


# Which

ODD_KEYS: list[Any] = [
    *("'", '"', "a'b", 'a"b', "step') OR 1=1 --", "step'; DROP TABLE checkpoints; --", "a`b", "a\\b"),
    *(".", "..", "a.", ".a", "a..b", "a[0]", "[", "]", "$", "$.step", "a b", " ", "", "a\n", "\n", "a\x00", "\ud800"),
    *("스텝", "a;b", "a/b", "a*", "%", None, 1, 1.5, True, b"step", ("step",)),
]


@pytest.mark.parametrize("key", ODD_KEYS, ids=repr)
async def test_filters_with_odd_keys(saver: TieredSaver, key: Any) -> None:
    for config in (None, thread()):
        with pytest.raises(Invalid):
            [item async for item in saver.alist(config, filter={"step": 1, key: 1})]


@pytest.mark.parametrize("filter", ["step", ["step"], 5], ids=repr)
async def test_filters_that_are_none(saver: TieredSaver, filter: Any) -> None:
    with pytest.raises(Invalid):
        [item async for item in saver.alist(None, filter=filter)]


async def test_good_keys_with_odd_values(database: str) -> None:
    async with open_saver(history=database, live=None) as saver:
        await put(saver, thread(checkpoint_ns=""))
        for value in ("' OR 1=1 --", '"', ["x"], {"a": "'"}, None, math.nan, "\x00", Colourless()):
            assert [item async for item in saver.alist(None, filter={"source": value})] == []
        for value in (object, 2**70, "\ud800", [object()], {"a": {1}}):
            with pytest.raises(Invalid):
                assert [item async for item in saver.alist(None, filter={"source": value, "step": 2**70})] == []
        for key in ("a.b", "step"):
            assert len([item async for item in saver.alist(None, filter={key: 1})]) == 1
        for key in ("a-b", "_", "-", "1", "a.b.c", "x" * 1000):
            assert [item async for item in saver.alist(None, filter={key: 1})] == []


class Colourless:
    def __str__(self) -> str:
        return "' OR 1=1 --"


@pytest.mark.parametrize("before", [{}, {"configurable": {"checkpoint_id": ["a"]}}, {"configurable": None}], ids=repr)
async def test_lists_before_nothing(saver: TieredSaver, before: Any) -> None:
    with pytest.raises(Invalid):
        [item async for item in saver.alist(None, before=before)]


# The file and the Redis


@pytest.mark.parametrize(
    "history",
    [
        *("", "history.sqlite", "sqlite:", "sqlite://", "sqlite:///", "sqlite:///.", "sqlite:///./", None, 5),
        *("sqlite://history.sqlite", "sqlite:history.sqlite", "SQLITE:///history.sqlite", Path("history.sqlite")),
        *("sqlite:///:memory:", "sqlite:///./:memory:", "sqlite:///file:history.sqlite", "sqlite:///file::memory:"),
        *("sqlite:///history.sqlite?mode=ro", "sqlite:///history\x00.sqlite", "sqlite:///\ud800"),
        *("postgresql://host/db", "sqlite+aiosqlite:///history.sqlite", "file:///history.sqlite", "redis://localhost"),
    ],
    ids=repr,
)
async def test_addresses_that_are_no_file(history: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid, match="sqlite:///path"):
        async with open_saver(history=history, live=None):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "live",
    ["", "localhost", "http://localhost", "redis://host:port", "redis://h/?socket_timeout=soon", 5, b"x", object()],
    ids=repr,
)
async def test_addresses_that_are_no_redis(live: Any, database: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="redis://"):
        async with open_saver(history=database, live=live):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ttl", [0, -1, 1.5, "60", None], ids=repr)
async def test_leases_that_are_none(ttl: Any, database: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="seconds"):
        async with open_saver(history=database, live="redis://127.0.0.1:9", ttl=ttl):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("allow", [["nowhere:Type"], "nowhere:Type", ["Type"], [None]], ids=repr)
async def test_types_that_are_none(allow: Any, database: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="llowed"):
        async with open_saver(history=database, live=None, allow=allow):
            pass
    assert list(tmp_path.iterdir()) == []


def text(file: Path) -> None:
    file.write_bytes(b"Dear diary, " * 1000)


def header_alone(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\x00")


def header_and_noise(file: Path) -> None:
    file.write_bytes(b"SQLite format 3\x00" + b"\xff" * 8000)


def short(file: Path) -> None:
    file.write_bytes(b"x")


def other_tables(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE writes (id INTEGER)")


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version=7")


def newer_in_use(file: Path) -> None:
    """In the mode in which we leave files."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    newer(file)


def folder(file: Path) -> None:
    file.mkdir()


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link_to_itself(file: Path) -> None:
    file.symlink_to(file)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (text, Invalid),
        (short, Invalid),
        (header_alone, Invalid),
        (header_and_noise, Invalid),
        (other_tables, Invalid),
        (newer, Conflict),
        (newer_in_use, Conflict),
        (folder, Unavailable),
        (pipe, Unavailable),
        (link_to_itself, Unavailable),
    ],
)
async def test_files_that_are_no_history(
    made: Callable[[Path], None], kind: type[Exception], database: str, tmp_path: Path
) -> None:
    file = Path(database.removeprefix("sqlite:///"))
    made(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(kind):
        async with open_saver(history=database, live=None):
            pass
    assert (file.read_bytes() if file.is_file() else None) == before
    assert list(tmp_path.iterdir()) == [file]


# A folder that may not be written, a disk that is full: in a process that is no superuser, with a limit of its own


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may come to."""
    path = Path(tempfile.mkdtemp(prefix="threadline-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


CHILD = """
import asyncio, os, resource, sys
from pathlib import Path
from langgraph.checkpoint.base import empty_checkpoint
from threadline.domain.errors import ThreadlineError
from threadline.storage.checkpoints import open_saver

url = "sqlite:///" + sys.argv[1]

async def put(saver, text, config=None):
    checkpoint = dict(empty_checkpoint(), channel_values={"value": text})
    return await saver.aput(config or {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, checkpoint, {}, {})

async def told(work):
    try:
        await work
    except ThreadlineError as error:
        return f"{type(error).__name__}: {error.message}"
    return "no error"
"""


def child(code: str, *arguments: str) -> list[str]:
    """The lines that a process prints."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code, *arguments], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


NOBODY = """
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)

async def main():
    async def use():
        async with open_saver(history=url, live=None) as saver:
            await put(saver, "x")
    assert not os.access(Path(sys.argv[2]), os.W_OK, effective_ids=True)
    print(await told(use()))

asyncio.run(main())
"""


@pytest.mark.parametrize("case", ["no file", "no folder", "a file", "a file in use", "a read-only file"])
async def test_a_folder_that_may_not_be_written(case: str, open_folder: Path) -> None:
    file = open_folder / ("sub/history.sqlite" if case == "no folder" else "history.sqlite")
    if "file" in case and case != "no file":
        async with open_saver(history=f"sqlite:///{file}", live=None) as saver:
            await put(saver, thread(checkpoint_ns=""))
    locked = open_folder
    if case == "a read-only file":
        locked = file
        open_folder.chmod(0o777)
    with closing(sqlite3.connect(file if case == "a file in use" else ":memory:")) as connection:
        if case == "a file in use":
            connection.execute("SELECT * FROM checkpoints").fetchall()
        locked.chmod(0o444 if locked.is_file() else 0o555)
        before = {path.name: path.read_bytes() for path in open_folder.iterdir() if path.suffix == ".sqlite"}
        names = {path.name for path in open_folder.iterdir()}
        [told] = child(NOBODY, str(file), str(locked))
        assert told.startswith("Unavailable: The history file")
        assert {path.name: path.read_bytes() for path in open_folder.iterdir() if path.suffix == ".sqlite"} == before
        assert {path.name for path in open_folder.iterdir()} == names
        open_folder.chmod(0o755)


FULL = """
async def main():
    async with open_saver(history=url, live=None) as saver:
        before = await put(saver, "before")
        size = Path(sys.argv[1] + "-wal").stat().st_size
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50_000, hard))
        results = await asyncio.gather(*(told(put(saver, "x" * 100_000, before)) for _ in range(5)))
        print(*sorted(set(results)), sep="; ")
        print((await saver.aget_tuple(before)).checkpoint["channel_values"]["value"])
        small = await put(saver, "small", before)
        print((await saver.aget_tuple(small)).checkpoint["channel_values"]["value"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        after = await put(saver, "y" * 100_000, small)
        print(len((await saver.aget_tuple(after)).checkpoint["channel_values"]["value"]))
        print(len([item async for item in saver.alist(None)]))

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files here")
def test_a_disk_that_takes_no_more(open_folder: Path) -> None:
    """The runs that met it fail; what was there is read, what fits is written, and all is well once there is room."""
    file = open_folder / "history.sqlite"
    assert child(FULL, str(file)) == [
        "Unavailable: The disk of the history cannot be read or written.",
        "before",
        "small",
        "100000",
        "3",
    ]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
