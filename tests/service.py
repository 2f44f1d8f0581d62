"""The whole service, in this process or in one of its own, and a client that speaks to it as a stranger would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from api.context import Context
from threadline.app.server import Server, create_app, listen
from threadline.app.settings import Settings
from threadline.app.wiring import open_services
from threadline.storage.embedded import end_orphans

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Frame:
    """One server-sent event as it came over the wire."""

    id: int | str
    """A number, but in the replay of a session, and "" where there is none."""
    event: str
    data: dict[str, Any]


@dataclass
class Client:
    """Speaks HTTP to a service at `url`."""

    http: httpx.AsyncClient
    context: Context | None = None
    """The services behind it, where they run in this process: for looking, not for calling past the API."""

    async def chat(self, message: str, session_id: str | None = None, **body: Any) -> list[Frame]:
        """Say something and read the stream to its end."""
        return await self.read("POST", "/chat", json=said(message, session_id, **body))

    async def read(self, method: str, path: str, **request: Any) -> list[Frame]:
        async with self.stream(method, path, **request) as frames:
            return [frame async for frame in frames]

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[AsyncIterator[Frame]]:
        async with self.http.stream(method, path, **request) as response:
            if response.status_code != 200:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            assert response.headers["content-type"].startswith("text/event-stream")
            yield frames_of(response.aiter_lines())

    async def json(self, path: str, **params: Any) -> Any:
        response = await self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def said(message: str, session_id: str | None = None, **body: Any) -> dict[str, Any]:
    return {"message": message, **({"session_id": session_id} if session_id else {}), **body}


async def frames_of(lines: AsyncIterator[str]) -> AsyncIterator[Frame]:
    fields: dict[str, str] = {}
    async for line in lines:
        if line == "" and fields:
            id = fields.get("id", "")
            yield Frame(int(id) if id.isdigit() else id, fields["event"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def redis_of(data_dir: Path) -> Redis:
    """A client of the embedded Redis, whose socket lies elsewhere when the data directory's path is too long."""
    elsewhere = data_dir / "redis.socket-folder"
    folder = Path(elsewhere.read_text()) if elsewhere.exists() else data_dir
    return Redis(unix_socket_path=str(folder / "redis.sock"))


def settings(data_dir: Path, **values: Any) -> Settings:
    """Settings that owe nothing to the environment of whoever runs the tests."""
    defaults: dict[str, Any] = {
        "data_dir": data_dir,
        "config": ROOT / "langgraph.json",
        "port": 0,
        "openrouter_api_key": None,
        "openai_api_key": None,
        "openai_base_url": None,
        "redis_url": None,
        "weather_url": "http://127.0.0.1:9",  # the discard port: refused at once
        "geocoding_url": "http://127.0.0.1:9",
        "wikipedia_url": "http://127.0.0.1:9",
        "search_providers": ("wikipedia",),
        "log_level": "warning",
    }
    return Settings(_env_file=None, **{**defaults, **values})  # type: ignore[call-arg]


@asynccontextmanager
async def running(data_dir: Path, **values: Any) -> AsyncIterator[Client]:
    """The service in this process, on a port the system picks."""
    chosen = settings(data_dir, **values)
    async with open_services(chosen) as context:
        listener = listen("127.0.0.1", 0)
        server = Server(create_app(context, chosen), stall_seconds=chosen.stall_timeout)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        headers = {"x-api-key": chosen.api_keys[0].get_secret_value()} if chosen.api_keys else {}
        try:
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False) as http:
                yield Client(http, context)
        finally:
            server.should_exit = True
            await serving
            listener.close()


class Shared:
    """One service for many tests, each of which asks it with a key of its own: it sees nothing of the others."""

    def __init__(self, client: Client, keys: Iterator[str]) -> None:
        self._client = client
        self._keys = keys

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[Client]:
        """Somebody who has never asked before."""
        url, headers = self._client.http.base_url, {"x-api-key": next(self._keys)}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, verify=False) as http:
            yield Client(http, self._client.context)


@asynccontextmanager
async def shared(data_dir: Path, **values: Any) -> AsyncIterator[Shared]:
    """The service in this process, for as many callers as there may be tests."""
    keys = [f"the key of test {number} and no other" for number in range(300)]
    async with running(data_dir, api_keys=keys, **values) as client:
        yield Shared(client, iter(keys[1:]))


class Process:
    """The service as a process of its own, which may be stopped and killed."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url
        self.pid = process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, *, seconds: float) -> int:
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.returncode is None


@asynccontextmanager
async def process(data_dir: Path, *options: str, **environment: str) -> AsyncIterator[tuple[Process, Client]]:
    """`threadline up` on a port the system picks, with nothing of our environment but the path."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "threadline", "up", "--port", "0", "--data-dir", str(data_dir), *options),
        cwd=ROOT,
        env={**CLEAN, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=(data_dir.parent / f"{data_dir.name}.stderr").open("ab"),
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await child.stdout.readline()).decode()
        url = line.rpartition(" ")[2].strip()
        assert url.startswith("http://"), (line, (data_dir.parent / f"{data_dir.name}.stderr").read_text())
        async with httpx.AsyncClient(base_url=url, timeout=60, verify=False) as http:
            yield Process(child, url), Client(http)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        await end_orphans(data_dir / "redis")


CLEAN = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "THREADLINE_WEATHER_URL": "http://127.0.0.1:9",
    "THREADLINE_GEOCODING_URL": "http://127.0.0.1:9",
    "THREADLINE_WIKIPEDIA_URL": "http://127.0.0.1:9",
    "THREADLINE_SEARCH_PROVIDERS": "wikipedia",
}
