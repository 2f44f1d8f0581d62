"""Readers of streams that stop reading, and readers that come back again and again, cost the others nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import httpx
import psutil
import pytest

from api.encoding import WRITE_BYTES
from tests.conftest import Start
from tests.service import ROOT, Client, process
from threadline.app.connection import Patient

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"
PARTS, SIZE = 320, 64 * 1024
"""A run of the flood writes so many parts of so many characters: 20 MB for each reader."""
STALLED = 3
"""Readers of each kind that stop reading."""
TIMES = 200
"""How often a reader comes back."""
SECONDS = 60


@dataclass(frozen=True)
class Kind:
    """A way to read a run, which can be taken up again after an event."""

    method: str
    path: str
    body: Any = None
    from_start: str = "0"

    def at(self, thread_id: str, run_id: str) -> str:
        return self.path.format(thread=thread_id, run=run_id)


KINDS = {
    "chat": Kind("GET", "/runs/{run}/events", from_start="-1"),
    "v1": Kind("GET", "/threads/{thread}/runs/{run}/stream"),
    "thread": Kind("GET", "/threads/{thread}/stream"),
    "v2": Kind("POST", "/threads/{thread}/stream/events", {"channels": ["custom", "lifecycle"]}),
}


@dataclass(frozen=True)
class Seen:
    """A frame, by its id, and which part of the flood it is, if it is one."""

    id: str | None
    part: int | None
    last: bool


def seen(block: str) -> Seen | None:
    """What a frame shows; None for a comment."""
    fields = dict(line.split(": ", 1) for line in block.split("\r\n") if line and not line.startswith(":"))
    if "data" not in fields:
        return None
    data = json.loads(fields["data"])
    event = fields["event"]
    ends = event == "done" or data.get("status") == "run_done"
    if "params" in data:  # Protocol v2
        data = data["params"]["data"]
        ends = event == "lifecycle" and data.get("event") == "completed"
        data = data.get("payload", data)
    return Seen(fields.get("id"), data.get("part"), ends)


# A reader that stops reading


@pytest.fixture
def flood(tmp_path: Path) -> Path:
    """The langgraph.json of a graph that writes 20 MB once the file it is told of is there."""
    (tmp_path / "flood.py").write_text(
        f"""
import asyncio, pathlib
from langgraph.config import get_stream_writer
from langgraph.graph import MessagesState, StateGraph

async def flood(state: MessagesState):
    write, sign = get_stream_writer(), pathlib.Path(state["messages"][-1].content)
    def tell(part, **more):
        write({{"type": "tool", "name": "flood", "status": "started", "args": {{}}, "part": part, **more}})
    tell(-1)
    while not sign.exists():
        await asyncio.sleep(0.02)
    for part in range({PARTS}):
        tell(part, text=chr(97 + part % 26) * {SIZE})
        await asyncio.sleep(0)
    return {{"messages": [("ai", "done")]}}

agent = StateGraph(MessagesState).add_node(flood).set_entry_point("flood")
""",
        encoding="utf-8",
    )
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"agent": "./flood.py:agent"}}), encoding="utf-8")
    return config


@dataclass
class Stalled:
    """A reader with a small buffer that has read the first frame of the run, and then nothing."""

    line: socket.socket
    parser: h11.Connection
    text: str = ""

    def receive(self) -> bool:
        """Take what there is; False at the end of the line."""
        try:
            received = self.line.recv(65536)
        except ConnectionResetError:
            received = b""
        if received:
            self.parser.receive_data(received)
            while isinstance(event := self.parser.next_event(), h11.Event):
                if isinstance(event, h11.Response):
                    assert event.status_code == 200
                if isinstance(event, h11.Data):
                    self.text += event.data.decode()
        return bool(received)

    def rest(self) -> list[Seen]:
        """Read on to the end of the line: all the whole frames there were."""
        while self.receive():
            pass
        whole, _, _ = self.text.rpartition("\r\n\r\n")
        return [frame for block in whole.split("\r\n\r\n") if (frame := seen(block)) is not None]


@contextmanager
def stalled(url: httpx.URL, kind: Kind, thread_id: str, run_id: str) -> Iterator[Stalled]:
    body = json.dumps(kind.body).encode() if kind.body else b""
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(SECONDS)
        line.connect((url.host, url.port))
        head = f"{kind.method} {kind.at(thread_id, run_id)} HTTP/1.1\r\nhost: {url.host}\r\n"
        told = f"last-event-id: {kind.from_start}\r\ncontent-length: {len(body)}\r\n\r\n"
        line.sendall((head + told).encode() + body)
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=kind.method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        reader = Stalled(line, parser)
        while '"part":-1' not in reader.text:
            assert reader.receive()
        yield reader


async def test_a_reader_that_stops_is_let_go_of_and_comes_back_without_a_gap(tmp_path: Path, flood: Path) -> None:
    """And what the readers have not taken is not kept in memory for them."""
    environment = {"THREADLINE_STALL_TIMEOUT": "1", "THREADLINE_LOG_FORMAT": "json"}
    async with process(tmp_path / "data", "--config", str(flood), **environment) as (service, client):
        this = psutil.Process(service.pid)
        alone = 0
        for number in range(2):  # the first run takes memory that is there for the next one
            thread_id, _ = await begun(client, sign := tmp_path / f"alone {number}")
            sign.touch()
            alone = max(alone, await peak_until_idle(this, client, thread_id))
        lines_before = len(this.net_connections("tcp"))

        thread_id, run_id = await begun(client, sign := tmp_path / "second")
        with ExitStack() as lines:
            readers = []
            for kind in [kind for kind in KINDS.values() for _ in range(STALLED)]:
                line = stalled(client.http.base_url, kind, thread_id, run_id)
                readers.append((kind, await asyncio.to_thread(lines.enter_context, line)))
            assert await open_streams(client) == len(readers)
            sign.touch()
            peak = await peak_until_idle(this, client, thread_id)
            assert peak - alone < PARTS * SIZE * len(readers) / 4
            assert len(this.net_connections("tcp")) <= lines_before + 1

            for number, (kind, reader) in enumerate(readers):
                frames = await asyncio.to_thread(reader.rest)
                assert (frames[-1].part or 0) < PARTS - 1, "it has never been behind"
                if number % STALLED == 0:
                    frames += await read(client, kind, thread_id, run_id, after=frames[-1].id)
                    assert [frame.part for frame in frames if frame.part is not None] == list(range(-1, PARTS)), kind
                    ids = [frame.id for frame in frames if frame.id]
                    assert len(ids) == len(set(ids)), kind
    told = (tmp_path / "data.stderr").read_text()
    assert told.count('"reader_dropped"') == len(readers)


async def test_what_waits_for_a_reader_is_little(start: Start, tmp_path: Path, flood: Path) -> None:
    """Also where all is there to be sent: the run is over before anybody reads."""
    async with start(config=flood) as client:
        (sign := tmp_path / "sign").touch()
        thread_id, run_id = await begun(client, sign)
        await client.http.get(f"/threads/{thread_id}/runs/{run_id}/join")
        with ExitStack() as lines:
            for kind in KINDS.values():
                line = stalled(client.http.base_url, kind, thread_id, run_id)
                await asyncio.to_thread(lines.enter_context, line)
            async with asyncio.timeout(SECONDS):
                while len([size for size in waiting() if size]) < len(KINDS):
                    await asyncio.sleep(0.01)
            assert max(waiting()) < 2 * (WRITE_BYTES + SIZE)


def waiting() -> list[int]:
    """How much waits for each client of the services in this process."""
    lines = [connection._line for connection in gc.get_objects() if isinstance(connection, Patient)]
    return [line.get_write_buffer_size() for line in lines if not line.is_closing()]


async def test_a_slow_reader_is_not_let_go_of(tmp_path: Path, flood: Path) -> None:
    """It is behind for several times as long as the service is patient."""
    async with process(tmp_path / "data", "--config", str(flood), THREADLINE_STALL_TIMEOUT="0.5") as (_, client):
        thread_id, run_id = await begun(client, sign := tmp_path / "sign")
        with ExitStack() as lines:
            line = stalled(client.http.base_url, KINDS["chat"], thread_id, run_id)
            reader = await asyncio.to_thread(lines.enter_context, line)
            sign.touch()
            until = time.monotonic() + 2
            while time.monotonic() < until:
                assert await asyncio.to_thread(reader.receive)
                await asyncio.sleep(0.001)
            assert 0 < len(reader.text) < PARTS * SIZE
            assert await open_streams(client) == 1


async def begun(client: Client, sign: Path) -> tuple[str, str]:
    thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
    said = {"messages": [{"role": "user", "content": str(sign)}]}
    call = {"assistant_id": "agent", "input": said, "stream_mode": "custom", "stream_resumable": True}
    run = (await client.http.post(f"/threads/{thread_id}/runs", json=call)).json()
    return thread_id, run["run_id"]


async def peak_until_idle(this: psutil.Process, client: Client, thread_id: str) -> int:
    """The most memory the service had until the thread was idle and no reader was left."""
    peak = 0
    async with asyncio.timeout(SECONDS):
        while (await client.json(f"/threads/{thread_id}"))["status"] == "busy" or await open_streams(client):
            peak = max(peak, this.memory_info().rss)
            await asyncio.sleep(0.01)
    return peak


async def read(
    client: Client, kind: Kind, thread_id: str, run_id: str, *, after: str | None, frames: int | None = None
) -> list[Seen]:
    """What comes after an event: so many frames, or all to the end."""
    came, block = list[Seen](), ""
    path, headers = kind.at(thread_id, run_id), {"last-event-id": after or ""}
    async with asyncio.timeout(SECONDS):
        async with client.http.stream(kind.method, path, json=kind.body, headers=headers) as response:
            async for line in response.aiter_lines():
                block += f"{line}\r\n" if line else ""
                if line or not block:
                    continue
                frame, block = seen(block), ""
                if frame is not None:
                    came.append(frame)
                    if frame.last or len(came) == frames:
                        break
    return came


async def open_streams(client: Client) -> float:
    lines = (await client.http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("threadline_open_streams"))


# A reader that comes back again and again


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Client]:
    async with start(config=PROJECT) as client:
        yield client


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("said", ["forever", "hi"], ids=["a run that goes on", "a run that is over"])
async def test_a_reader_that_comes_back_in_a_loop_leaves_nothing_behind(service: Client, said: str, name: str) -> None:
    kind = KINDS[name]
    thread_id = (await service.http.post("/threads", json={})).json()["thread_id"]
    call = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": said}]}}
    run = {**call, "stream_mode": ["custom"], "stream_resumable": True}
    run_id = (await service.http.post(f"/threads/{thread_id}/runs", json=run)).json()["run_id"]
    first = await read(service, kind, thread_id, run_id, after=kind.from_start, frames=1)
    if said == "hi":
        await service.http.get(f"/threads/{thread_id}/runs/{run_id}/join")

    async def come_and_go(times: int) -> None:
        for _ in range(times):
            assert await read(service, kind, thread_id, run_id, after=kind.from_start, frames=1) == first

    async def left() -> tuple[float, int]:
        """Open streams, and tasks once they have come to an end."""
        tasks = 0
        async with asyncio.timeout(SECONDS):
            while await open_streams(service) or tasks != (tasks := len(asyncio.all_tasks())):
                await asyncio.sleep(0.05)
        return await open_streams(service), tasks

    await come_and_go(20)
    streams, tasks = await left()
    await come_and_go(TIMES)
    streams, after = await left()

    assert streams == 0
    assert after <= tasks + 2, "connections come and go"
    await service.http.post(f"/threads/{thread_id}/runs/{run_id}/cancel?wait=true")
