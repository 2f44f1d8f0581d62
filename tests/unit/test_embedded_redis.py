"""The embedded Redis, with the real binaries: it starts, keeps its data, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio import Redis

from threadline.domain.errors import Unavailable
from threadline.storage import embedded
from threadline.storage.embedded import (
    Binaries,
    available,
    check_redis,
    embedded_redis,
    embedded_server,
    find_binaries,
    servers_in,
)

pytestmark = pytest.mark.skipif(not available(), reason="no embedded Redis fits this machine")

SERVE = """
import asyncio, sys
from pathlib import Path
from threadline.storage.embedded import embedded_server

async def main():
    async with embedded_server(Path(sys.argv[1])) as server:
        print(server.process.pid, server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield redis


def socket_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@contextmanager
def orphan(data_dir: Path) -> Iterator[tuple[int, str]]:
    """The pid and URL of a server whose service was killed."""
    service = subprocess.Popen([sys.executable, "-c", SERVE, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    pid, url = next(line for line in service.stdout if "unix://" in line).split()
    service.kill()
    service.wait()
    service.stdout.close()
    try:
        assert alive(int(pid))
        yield int(pid), url
    finally:
        if alive(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def bystander(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in the folder and is no Redis."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], cwd=folder, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.communicate(b"\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a name that wants quoting."""
    path = tmp_path / "da ta%"
    path.mkdir()
    return path


async def test_json_and_search_answer_on_a_private_socket(folder: Path) -> None:
    async with embedded_redis(folder) as url, client(url) as redis:
        await redis.execute_command("JSON.SET", "doc", "$", '{"word":"안녕"}')
        await redis.execute_command("FT.CREATE", "i", "ON", "JSON", "SCHEMA", "$.word", "AS", "word", "TAG")
        assert await redis.execute_command("JSON.GET", "doc", "$.word") == '["안녕"]'
        assert (await redis.config_get("port"))["port"] == "0"
        assert socket_of(url).stat().st_mode & 0o077 == 0
        assert (folder / "redis").stat().st_mode & 0o077 == 0
        await check_redis(url)
    assert not socket_of(url).exists()


async def test_the_smoke_test_leaves_nothing(folder: Path) -> None:
    async with embedded_redis(folder) as url, client(url) as redis:
        assert await redis.dbsize() == 0
        assert await redis.execute_command("FT._LIST") == []


async def test_it_ends_with_the_context_and_keeps_its_data(folder: Path) -> None:
    async with embedded_server(folder) as server, client(server.url) as redis:
        await redis.set("key", "kept", ex=100)
    assert server.process.returncode == 0
    async with embedded_redis(folder) as url, client(url) as redis:
        assert await redis.get("key") == "kept"
        assert 0 < await redis.ttl("key") <= 100


async def test_it_is_started_again_on_its_data_when_it_ends_by_itself(folder: Path) -> None:
    async with embedded_server(folder) as server, client(server.url) as redis:
        first = server.process
        await redis.set("key", "kept")
        await redis.execute_command("FT.CREATE", "i", "ON", "JSON", "SCHEMA", "$.word", "AS", "word", "TAG")
        await redis.execute_command("WAITAOF", "1", "0", "5000")  # it is written to disk once a second
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while server.process is first:
                await asyncio.sleep(0.01)
        async with client(server.url) as redis_again:
            assert await redis_again.get("key") == "kept"
            assert await redis_again.execute_command("FT._LIST") == ["i"]
        second = server.process
    assert second.returncode == 0
    assert servers_in(folder / "redis") == []


async def test_one_that_cannot_start_again_is_tried_less_and_less_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    tried = asyncio.Event()
    slept = asyncio.sleep

    async def rest(seconds: float) -> None:
        if seconds != embedded.PAUSE:
            rests.append(seconds)
            if len(rests) == 8:
                tried.set()
        await slept(min(seconds, embedded.PAUSE))

    async with embedded_server(folder) as server:
        monkeypatch.setattr(embedded, "_command", lambda *given, **named: [sys.executable, "-c", "pass"])
        monkeypatch.setattr("threadline.storage.embedded.asyncio.sleep", rest)
        os.kill(server.process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await tried.wait()
    assert rests[:8] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_it_ends_when_the_service_is_cancelled(folder: Path) -> None:
    started: asyncio.Future[embedded.Server] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with embedded_server(folder) as server:
            started.set_result(server)
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    server = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.process.returncode == 0


async def test_ctrl_c_does_not_reach_it(folder: Path) -> None:
    async with embedded_server(folder) as server:
        assert os.getsid(server.process.pid) == server.process.pid != os.getsid(0)


async def test_secrets_of_the_service_are_not_handed_down(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")
    async with embedded_server(folder) as server:
        if sys.platform == "linux":
            assert b"sk-secret" not in environment_of(server.process.pid)


async def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with embedded_redis(folder) as url, client(url) as redis:
        assert len(os.fsencode(socket_of(url))) <= embedded.LONGEST_SOCKET
        assert socket_of(url).parent.stat().st_mode & 0o777 == 0o700
        assert await redis.ping()
    assert not socket_of(url).parent.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["redis", "redis.log"]


async def test_what_a_killed_service_left_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with orphan(folder) as (pid, url):
        async with embedded_redis(folder) as newer:
            assert newer != url
            assert not alive(pid)
            assert not socket_of(url).parent.exists()


async def test_the_orphan_of_a_killed_service_is_ended_and_its_data_kept(folder: Path) -> None:
    with orphan(folder) as (pid, url):
        async with client(url) as redis:
            await redis.set("key", "kept")
        async with embedded_server(folder) as server, client(server.url) as redis:
            assert server.process.pid != pid
            assert not alive(pid)
            assert await redis.get("key") == "kept"


async def test_an_orphan_that_hangs_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_DEADLINE", 0.3)
    with orphan(folder) as (pid, _):
        os.kill(pid, signal.SIGSTOP)
        async with embedded_redis(folder) as url, client(url) as redis:
            assert not alive(pid)
            assert await redis.ping()


async def test_nobody_else_is_ended(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (folder / "redis").mkdir()
    with bystander(folder / "redis") as innocent:
        async with embedded_server(other) as neighbour, embedded_server(folder) as server:
            assert servers_in(folder / "redis") == [server.process.pid]
            assert neighbour.process.poll() is None
            assert innocent.poll() is None


async def test_a_file_cut_short_loses_its_last_words_only(folder: Path) -> None:
    async with embedded_redis(folder) as url, client(url) as redis:
        await redis.set("first", "1")
        await redis.set("last", "2")
    journal = next((folder / "redis" / "appendonlydir").glob("*.incr.aof"))
    journal.write_bytes(journal.read_bytes()[:-3])
    async with embedded_redis(folder) as url, client(url) as redis:
        assert await redis.get("first") == "1"
        assert await redis.get("last") is None
    assert not (folder / "redis.damaged-1").exists()


async def test_a_damaged_file_is_kept_aside_and_a_fresh_start_made(folder: Path) -> None:
    for number in (1, 2):
        async with embedded_redis(folder) as url, client(url) as redis:
            await redis.set("key", "x" * 1000)
        journal = next((folder / "redis" / "appendonlydir").glob("*.incr.aof"))
        damaged = b"this is no journal\r\n" + journal.read_bytes()
        journal.write_bytes(damaged)
        async with embedded_redis(folder) as url, client(url) as redis:
            assert await redis.get("key") is None
        kept = folder / f"redis.damaged-{number}" / "appendonlydir" / journal.name
        assert kept.read_bytes() == damaged


async def test_a_start_that_fails_for_another_reason_touches_no_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with embedded_redis(folder) as url, client(url) as redis:
        await redis.set("key", "kept")
    binaries = find_binaries()
    assert binaries is not None
    with monkeypatch.context() as patch:
        broken = Binaries(binaries.server, (folder / "missing.so",))
        patch.setattr(embedded, "find_binaries", lambda: broken)
        with pytest.raises(Unavailable, match=r"(?s)did not start.*missing\.so"):
            async with embedded_redis(folder):
                pass
    assert not (folder / "redis.damaged-1").exists()
    async with embedded_redis(folder) as url, client(url) as redis:
        assert await redis.get("key") == "kept"


async def test_modules_that_do_not_work_are_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = find_binaries()
    assert binaries is not None
    monkeypatch.setattr(embedded, "find_binaries", lambda: Binaries(binaries.server, binaries.modules[:1]))
    with pytest.raises(Unavailable, match="JSON and Search modules do not work"):
        async with embedded_redis(folder):
            pass
    assert servers_in(folder / "redis") == []


async def test_a_machine_without_the_wheels_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_package_folder", lambda name: None)
    assert not available()
    with pytest.raises(Unavailable, match=r"No embedded Redis fits this machine .*REDIS_URL"):
        async with embedded_redis(folder):
            pass


async def test_a_log_that_grew_large_is_set_aside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOG_LIMIT", 10)
    (folder / "redis.log").write_text("older lines\n")
    async with embedded_redis(folder):
        assert (folder / "redis.log.1").read_text() == "older lines\n"
        assert "older" not in (folder / "redis.log").read_text()


# A Redis of the user's own


@contextmanager
def plain_redis(folder: Path, *options: str) -> Iterator[str]:
    """A Redis without modules; yields its socket's path."""
    binaries = find_binaries()
    assert binaries is not None
    path = folder / "plain.sock"
    command = [str(binaries.server), "--port", "0", "--unixsocket", str(path), "--save", "", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_for(path.is_socket)
        yield str(path)
    finally:
        process.kill()
        process.wait()


async def refusal(url: str) -> str:
    with pytest.raises(Unavailable) as refused:
        await check_redis(url)
    return refused.value.message


async def test_a_redis_without_json_is_refused(tmp_path: Path) -> None:
    with plain_redis(tmp_path) as path:
        assert "has no JSON module. Use Redis 8 or Redis Stack" in await refusal(f"unix://{path}")


async def test_a_redis_without_search_is_refused(tmp_path: Path) -> None:
    binaries = find_binaries()
    assert binaries is not None
    with plain_redis(tmp_path, "--loadmodule", str(binaries.modules[1])) as path:
        assert "has no Search module" in await refusal(f"unix://{path}")


async def test_a_wrong_password_is_told_and_never_shown(tmp_path: Path) -> None:
    with plain_redis(tmp_path, "--requirepass", "right-one") as path:
        for url in (f"unix://:wrong-one@{path}", f"unix://{path}"):
            message = await refusal(url)
            assert "wants another user or password" in message
            assert "wrong-one" not in message


async def test_an_absent_redis_is_told_by_its_place_alone() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there
        port = taken.getsockname()[1]
        message = await refusal(f"redis://user:s3cret@127.0.0.1:{port}/0")
    assert f"No Redis answers at 127.0.0.1:{port}" in message
    assert "unset REDIS_URL" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("url", ["http://localhost", "nonsense", "redis://localhost:port"])
async def test_what_is_no_redis_address_is_refused(url: str) -> None:
    assert "REDIS_URL is not a Redis address" in await refusal(url)
