"""Bad input: whatever is sent, the service says what is wrong in a sentence, at once, and goes on serving.

The service runs in a process of its own. The bodies and parameters are made by schemathesis out of our own OpenAPI.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import randoms

from tests.service import ROOT, Client, Process, process

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"
SECONDS = 10
"""How long any answer may take to begin."""
UNTOLD = ("Traceback", "site-packages", "threadline/", "sqlalchemy", "sqlite3", "pydantic", 'File "', str(ROOT))
"""What would show a stranger the inside of the service."""

Serving = tuple[Process, Client]


in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Process, Client, Path]]:
    """One service, with what it writes to its log."""
    folder = tmp_path_factory.mktemp("fuzzed")
    async with process(folder / "data", "--config", str(PROJECT), THREADLINE_LOG_LEVEL="warning") as (service, client):
        yield service, client, folder / "data.stderr"


@pytest_asyncio.fixture(loop_scope="module")
async def serving(shared: tuple[Process, Client, Path]) -> AsyncIterator[Serving]:
    """Afterwards it still serves, and no request has failed inside."""
    service, client, log = shared
    before = len(log.read_text())
    yield service, client
    assert service.alive
    assert await said(client) == "tok0 tok1 tok2 tok3 tok4 "
    told = log.read_text()[before:]
    assert "request_failed" not in told, told[:4000]
    assert "run_not_kept" not in told, told[:4000]


async def said(client: Client) -> str:
    thread_id = await new_thread(client)
    call = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "hi"}]}}
    state = (await client.http.post(f"/threads/{thread_id}/runs/wait", json=call)).json()
    return str(state["messages"][-1]["content"])


async def new_thread(client: Client) -> str:
    return str((await client.http.post("/threads", json={})).json()["thread_id"])


def judge(status: int, content_type: str, body: bytes, path: str) -> None:
    """A good answer, or a refusal in a sentence that shows nothing of the inside."""
    assert status < 500, (path, status, body[:500])
    if status < 400:
        return
    if "/store/" in path and content_type.startswith("text/plain"):  # as LangGraph's clients know it
        assert not [word for word in UNTOLD if word in body.decode()], (path, body)
        return
    told: Any = httpx.Response(status, content=body).json()
    words = told["message" if "/commands" in path and told.get("type") == "error" else "detail"]
    assert words, (path, status)
    assert isinstance(words, str), (path, told)
    if content_type == "application/json":
        assert set(told) in ({"detail"}, {"type", "id", "error", "message"}), (path, told)
    else:
        assert content_type == "application/problem+json", (path, content_type)
    assert not [word for word in UNTOLD if word in words], (path, told)


# Bodies and parameters out of our own OpenAPI


def test_whatever_is_sent_is_answered_without_a_fault(tmp_path: Path) -> None:
    asyncio.run(fuzzed(tmp_path, examples=3))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_is_sent_is_answered_without_a_fault_many_times(tmp_path: Path) -> None:
    asyncio.run(fuzzed(tmp_path, examples=60))


async def fuzzed(folder: Path, *, examples: int) -> None:
    async with process(folder / "data", "--config", str(PROJECT), THREADLINE_LOG_LEVEL="warning") as (service, client):
        document = (await client.http.get("/openapi.json")).json()
        threads = [await new_thread(client) for _ in range(3)]
        await asyncio.to_thread(fuzz, document, service.url, threads, examples)
        assert service.alive
        assert await said(client) == "tok0 tok1 tok2 tok3 tok4 "
    told = (folder / "data.stderr").read_text()
    assert "request_failed" not in told, told[:4000]


def fuzz(document: dict[str, Any], url: str, threads: list[str], examples: int) -> None:
    """Send every operation what its description allows, and what it does not."""
    document["paths"] = {path: known for path, known in document["paths"].items() if path not in ("/metrics",)}
    schema = schemathesis.openapi.from_dict(document)
    with httpx.Client(base_url=url, timeout=SECONDS) as http:
        for result in schema.get_all_operations():
            operation = result.ok()
            attempt(operation, http, threads, examples)


JUNK = (
    None,
    True,
    -1,
    2**63,
    1e308,
    "",
    "\0",
    "x" * 5000,
    [],
    {},
    [[[]]],
    {"": None},
    "null",
    "-1",
    "\u202e\U0001f300",
)
"""What stands somewhere in a body, or in a parameter, where something else should."""


def attempt(operation: Any, http: httpx.Client, threads: list[str], examples: int) -> None:
    @seed(20260722)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), random=randoms(use_true_random=False))
    def one(case: Any, random: Random) -> None:
        if "thread_id" in case.path_parameters and case.method != "DELETE":
            case.path_parameters["thread_id"] = threads[0]  # else nearly all would be unknown ids
        send(http, case)
        if isinstance(case.body, dict | list):
            case.body = spoilt(case.body, random)
            send(http, case)
        if case.query:
            name = random.choice(list(case.query))
            case.query = {**case.query, name: random.choice(JUNK)}
            send(http, case)

    one()


def spoilt(value: Any, random: Random) -> Any:
    """`value` with junk somewhere in it."""
    if not value or not isinstance(value, dict | list) or random.random() < 0.2:
        return random.choice(JUNK)
    key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
    whole = copy(value)
    whole[key] = spoilt(value[key], random)
    return whole


def send(http: httpx.Client, case: Any) -> None:
    request = case.as_transport_kwargs(base_url=str(http.base_url))
    request.pop("cookies", None)
    try:
        built = http.build_request(
            request["method"],
            request["url"],
            params=request.get("params"),
            headers={k: v for k, v in (request.get("headers") or {}).items() if k.isascii() and v.isascii()},
            **({"json": request["json"]} if "json" in request else {"content": request.get("data") or b""}),
        )
    except (httpx.InvalidURL, UnicodeError, TypeError, ValueError):
        return  # no client could send it
    with_body(http, built)


def with_body(http: httpx.Client, request: httpx.Request) -> None:
    """Read as much of the answer as says what it is: a stream may go on for ever."""
    try:
        response = http.send(request, stream=True)
    except httpx.LocalProtocolError:
        return  # no client could send it
    try:
        if response.status_code >= 400:
            response.read()
            judge(
                response.status_code,
                response.headers.get("content-type", ""),
                response.content,
                f"{request.method} {request.url} {request.content[:300]!r}",
            )
    finally:
        response.close()


# By hand


async def sent(client: Client, method: str, path: str, content: bytes | None = None, **more: Any) -> httpx.Response:
    """The answer, which must be a good one or a refusal in words."""
    async with asyncio.timeout(SECONDS):
        answer = await client.http.request(method, path, content=content, **more)
    judge(answer.status_code, answer.headers.get("content-type", ""), answer.content, f"{method} {path}")
    return answer


def deep(levels: int) -> bytes:
    return b'{"assistant_id":"agent","metadata":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "NaN": b'{"metadata":{"a":NaN}}',
    "infinity": b'{"limit":1e999}',
    "half a character": rb'{"metadata":{"a":"\ud800"},"assistant_id":"\udfff","thread_id":"\ud800"}',
    "bad UTF-8": b'{"metadata":{"a":"\xff\xfe"}}',
    "a NUL": rb'{"metadata":{"a\u0000":"\u0000"},"assistant_id":"\u0000"}',
    "a key twice": b'{"assistant_id":"agent","assistant_id":7,"metadata":{},"metadata":[]}',
    "a great number": b'{"limit":' + b"9" * 400 + b',"metadata":{"a":' + b"9" * 400 + b"}}",
    "1,000 deep": deep(1000),
    "100,000 deep": b"[" * 100_000,
    "another type": b'{"assistant_id":{},"input":7,"metadata":"x","config":[],"stream_mode":{},"limit":"x","ids":3}',
}


@pytest.fixture(scope="module")
def posts() -> list[str]:
    """Every path of the LangGraph Server API that takes a body, by its method."""
    return [
        "POST /threads",
        "POST /threads/search",
        "POST /threads/count",
        "PATCH /threads/{thread}",
        "POST /threads/{thread}/state",
        "POST /threads/{thread}/state/checkpoint",
        "POST /threads/{thread}/history",
        "POST /threads/{thread}/runs",
        "POST /threads/{thread}/runs/wait",
        "POST /threads/{thread}/runs/stream",
        "POST /threads/{thread}/commands",
        "POST /threads/{thread}/stream/events",
        "POST /runs",
        "POST /runs/wait",
        "POST /runs/stream",
        "POST /runs/batch",
        "POST /runs/cancel",
        "POST /runs/crons",
        "POST /assistants",
        "POST /assistants/search",
        "POST /assistants/count",
        "PUT /store/items",
        "POST /store/items/search",
        "POST /store/namespaces",
        "POST /chat",
    ]


@in_one_loop
async def test_a_body_that_makes_no_sense_is_refused_in_a_sentence(serving: Serving, posts: list[str]) -> None:
    _, client = serving
    thread = await new_thread(client)
    refused = 0
    for post in posts:
        method, _, path = post.format(thread=thread).partition(" ")
        for name, body in BODIES.items():
            answer = await sent(client, method, path, body, headers={"content-type": "application/json"})
            if name in ("no JSON", "NaN", "half a character", "bad UTF-8", "1,000 deep", "100,000 deep"):
                assert answer.status_code in (400, 404, 422), (post, name, answer.text)
            refused += answer.status_code >= 400
    assert refused > len(posts) * 6


@in_one_loop
async def test_a_body_of_ten_megabytes_is_refused(serving: Serving, posts: list[str]) -> None:
    _, client = serving
    thread = await new_thread(client)
    large = b'{"assistant_id":"agent","input":{"text":"' + b"x" * 10_000_000 + b'"}}'

    async def unmeasured() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    for post in posts[:12:4]:
        method, _, path = post.format(thread=thread).partition(" ")
        for content in (large, unmeasured()):
            try:
                answer = await client.http.request(method, path, content=content)
            except (httpx.WriteError, httpx.ReadError):
                continue  # turned away before it was all sent
            judge(answer.status_code, answer.headers["content-type"], answer.content, path)
            assert answer.status_code in (413, 422)


UNKNOWN = ("nope", str(uuid4()), "%00", "..%2f..%2fetc%2fpasswd", "x" * 5000, "%ff%fe", "'; DROP TABLE runs; --")


@in_one_loop
async def test_unknown_ids_are_missing_or_no_ids(serving: Serving) -> None:
    _, client = serving
    thread = await new_thread(client)
    for id in UNKNOWN:
        for path in (
            f"/threads/{id}",
            f"/threads/{id}/state",
            f"/threads/{id}/history",
            f"/threads/{id}/runs",
            f"/threads/{id}/stream",
            f"/threads/{thread}/runs/{id}",
            f"/threads/{thread}/state/{id}",
            f"/assistants/{id}",
            f"/assistants/{id}/graph",
            f"/assistants/{id}/schemas",
            f"/sessions/{id}",
            f"/runs/{id}/events",
        ):
            answer = await sent(client, "GET", path)
            if "/state/" not in path:
                assert answer.status_code in (404, 422), (path, answer.status_code)
        for path in (f"/threads/{id}/runs/stream", f"/threads/{id}/runs/wait", f"/threads/{id}/runs"):
            answer = await sent(client, "POST", path, b'{"assistant_id":"agent","input":{}}')
            assert answer.status_code in (404, 405, 422), (path, answer.status_code)


@in_one_loop
async def test_a_wrong_method_is_refused_in_the_api_s_own_words(serving: Serving) -> None:
    _, client = serving
    for method, path, allowed in (("PUT", "/threads", "POST"), ("GET", "/runs/batch", "POST")):
        answer = await sent(client, method, path)
        if answer.status_code == 405:
            assert answer.json() == {"detail": "Method Not Allowed"}
            assert answer.headers["allow"] == allowed
    answer = await sent(client, "PUT", "/threads")
    assert answer.status_code == 405


POSITIONS = ("9" * 5000, "-", "-5", "1-2-3-4-5", "x", "1e9", "٣", "999999999999999-999999999999999", "0x1")


@in_one_loop
async def test_an_odd_last_event_id_is_refused_or_read_as_nothing(serving: Serving) -> None:
    _, client = serving
    thread = await new_thread(client)
    call = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "hi"}]}}
    run = (await client.http.post(f"/threads/{thread}/runs/wait", json=call)).headers["content-location"]
    for position in POSITIONS:
        headers = {"last-event-id": position.encode()}
        await sent(client, "GET", f"{run}/stream", headers=headers)
        async with client.http.stream("GET", f"/threads/{thread}/stream", headers=headers) as answer:
            assert answer.status_code in (200, 422)


@in_one_loop
async def test_a_flood_of_headers_is_turned_away(serving: Serving) -> None:
    _, client = serving
    for headers in ([(f"x-{n}", "y" * 100) for n in range(5000)], [("x-long", "y" * 200_000)]):
        try:
            answer = await client.http.get("/ok", headers=headers)
        except httpx.TransportError:
            continue  # the line was closed
        assert answer.status_code in (200, 400, 431)


@in_one_loop
async def test_a_client_that_comes_back_in_a_loop_costs_nothing_that_stays(serving: Serving) -> None:
    service, client = serving
    thread = await new_thread(client)
    call = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "forever"}]}}
    run = (await client.http.post(f"/threads/{thread}/runs", json=call)).json()["run_id"]
    path, this = f"/threads/{thread}/runs/{run}/stream", psutil.Process(service.pid)

    async def come_and_go(times: int) -> None:
        for _ in range(times):
            async with client.http.stream("GET", path, headers={"last-event-id": "-1"}) as answer:
                assert answer.status_code == 200
                await anext(answer.aiter_bytes())

    await come_and_go(50)
    lines, before = this.num_fds(), this.memory_info().rss
    await come_and_go(300)

    async with asyncio.timeout(SECONDS):
        while await streams(client):
            await asyncio.sleep(0.05)
    assert this.num_fds() <= lines + 5
    assert this.memory_info().rss < before + 8 * 2**20
    await client.http.post(f"/threads/{thread}/runs/{run}/cancel?wait=true")


async def streams(client: Client) -> float:
    """How many readers the service has."""
    lines = (await client.http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("threadline_open_streams"))


@in_one_loop
async def test_a_client_that_stops_reading_neither_holds_the_run_up_nor_takes_memory(serving: Serving) -> None:
    """The run writes some 10 MB for it; the service keeps a position, and what one connection holds."""
    service, client = serving
    thread = await new_thread(client)
    call = {
        "assistant_id": "bench",
        "input": {"messages": [{"role": "user", "content": "3000"}]},
        "stream_mode": ["messages"],  # each frame says again all that was said: what a reader misses is large
    }
    address = httpx.URL(service.url)
    with stalled(address, f"/threads/{thread}/stream"):
        before = psutil.Process(service.pid).memory_info().rss
        async with asyncio.timeout(60):
            state = (await client.http.post(f"/threads/{thread}/runs/wait", json=call)).json()
        assert state["messages"][-1]["content"].endswith("tok2999 ")
        assert psutil.Process(service.pid).memory_info().rss < before + 60 * 2**20


@contextmanager
def stalled(address: httpx.URL, path: str) -> Iterator[None]:
    """A connection that asked for a stream and does not read it."""
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect((address.host, address.port))
        line.sendall(f"GET {path} HTTP/1.1\r\nhost: {address.host}\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.1 200"
        yield
