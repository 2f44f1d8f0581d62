"""A small client of the service, for the commands: plain words for every failure, streams that outlive a connection."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from threadline.domain.errors import Conflict, Denied, Invalid, Limited, Missing, ThreadlineError, Unavailable
from threadline.services.auth import is_loopback

RUN_ENDS = frozenset({"done", "error"})
REPLAY_ENDS = frozenset({"replay_done"})
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each attempt to take up a broken stream; any frame starts the row afresh."""
SILENCE = 60.0  # seconds without a byte, heartbeats included, after which a connection counts as broken

_LINE_END = re.compile("\r\n|\n|\r")  # and nothing else: str.splitlines also breaks at U+2028, which JSON may hold
_KINDS: dict[int, type[ThreadlineError]] = {401: Denied, 403: Denied, 404: Missing, 409: Conflict, 429: Limited}


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event; `id` is "" as long as none was given."""

    id: str
    event: str
    data: Any


class FrameParser:
    """Bytes in, whole frames out, as the HTML standard reads them: any line end, comments, data over many lines."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._after_return = False
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames this chunk completes. Raises ValueError if their data is no JSON."""
        text = self._decoder.decode(chunk)
        if self._after_return and text:
            text = text.removeprefix("\n")
            self._after_return = False
        self._after_return = self._after_return or text.endswith("\r")
        *lines, rest = _LINE_END.split(text)
        if lines:
            lines[0] = self._rest + lines[0]
            self._rest = rest
        else:
            self._rest += rest
        return [frame for line in lines if (frame := self._line(line)) is not None]

    def _line(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Frame | None:
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return Frame(self._id, event, json.loads("\n".join(data))) if data else None


class Client:
    """`url` is the service's address, `key` the caller's key. Every method raises the domain's errors."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        if key is not None and not key.isascii():
            raise Invalid("The key holds characters no key has.")
        host = _host(self.url)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(30, connect=5),
            trust_env=not is_loopback(host),  # a proxy has no way to this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        with self._speaking():
            return self._answer(self._http.get(path, params=params))

    def send(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Change something."""
        with self._speaking():
            return self._answer(self._http.request(method, path, json=body, params=params))

    def download(self, path: str, out: BinaryIO) -> None:
        """Write a file of the service's to `out`."""
        with self._speaking(), self._http.stream("GET", path, timeout=_long()) as response:
            if response.is_error:
                response.read()
                self._answer(response)
            for chunk in response.iter_bytes():
                out.write(chunk)

    def upload(self, path: str, file: BinaryIO) -> Any:
        """Send a file, as the body; what the service answers."""
        with self._speaking():
            return self._answer(self._http.post(path, content=iter(lambda: file.read(2**18), b""), timeout=_long()))

    def cancel(self, run_id: str) -> None:
        with self._speaking():
            self._answer(self._http.post(f"/runs/{run_id}/cancel"))

    def say(self, message: str, *, session_id: str | None) -> Stream:
        return self._run("/chat", {"message": message, "stream": True} | _session(session_id))

    def resume(self, interrupt_id: str, value: Any, *, session_id: str) -> Stream:
        answer = {"interrupt_id": interrupt_id, "value": value}
        return self._run("/chat", {"resume": answer, "stream": True} | _session(session_id))

    def replay(self, session_id: str, *, checkpoint_id: str | None, speed: str | None = None) -> Stream:
        body = {"checkpoint_id": checkpoint_id, "mode": "recorded"} | ({"speed": speed} if speed else {})
        return Stream(self, _replay(session_id), body, ends=REPLAY_ENDS, recorded=True)

    def replay_run(self, run_id: str, *, speed: str | None = None) -> Stream:
        body = {"mode": "recorded"} | ({"speed": speed} if speed else {})
        return Stream(self, _replay_run(run_id), body, ends=RUN_ENDS, recorded=True)

    def rerun(self, session_id: str, *, checkpoint_id: str, changes: dict[str, Any], into: str) -> Stream:
        body = {"checkpoint_id": checkpoint_id, "mode": "rerun", "changes": changes, "into": into}
        return self._run(_replay(session_id), body)

    def rerun_run(self, run_id: str, *, changes: dict[str, Any], into: str) -> Stream:
        return self._run(_replay_run(run_id), {"mode": "rerun", "changes": changes, "into": into})

    def _run(self, path: str, body: dict[str, Any]) -> Stream:
        return Stream(self, path, body, ends=RUN_ENDS)

    @contextmanager
    def open_stream(self, method: str, path: str, **request: Any) -> Iterator[httpx.Response]:
        """The response, its head read. Raises httpx.TransportError as well, for whoever can take the stream up."""
        timeout = httpx.Timeout(30, connect=5, read=SILENCE)
        with self._http.stream(method, path, timeout=timeout, **request) as response:
            if response.is_error:
                response.read()
                self._answer(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise Unavailable(f"What answers at {self.url} is not Threadline.")
            yield response

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: httpx.TransportError) -> Unavailable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(f"No service answers at {self.url}. Start it with: python3 -m threadline up")
        return Unavailable(f"The connection to {self.url} broke.")

    def _answer(self, response: httpx.Response) -> Any:
        """The JSON of a good answer; the error a bad one stands for."""
        if response.is_success:
            try:
                return response.json() if response.content else None
            except ValueError as error:
                raise Unavailable(f"What answers at {self.url} is not Threadline.") from error
        if response.status_code == 401:
            known = "does not know this key" if "authorization" in response.request.headers else "wants a key"
            raise Denied(f"The service {known}. Give one with --key, or set THREADLINE_KEY.")
        kind = _KINDS.get(response.status_code, Unavailable if response.status_code >= 500 else Invalid)
        raise kind(_detail(response) or f"The service at {self.url} answered with status {response.status_code}.")


class Stream:
    """The frames of one request. Iterating again, after whatever ended the first time, goes on behind the last frame.

    A run's stream whose connection breaks is taken up by itself. `run_id` is None until the service has named the run,
    and always of what is `recorded`: nothing goes on there that could be stopped.
    """

    def __init__(
        self, client: Client, path: str, body: dict[str, Any], *, ends: frozenset[str], recorded: bool = False
    ) -> None:
        self.run_id: str | None = None
        self._recorded = recorded
        self._client = client
        self._path = path
        self._body = body
        self._ends = ends
        self._asked = False
        self._ended = False
        self._last_id = "" if recorded else "0"

    def __iter__(self) -> Iterator[Frame]:
        failures = 0
        while not self._ended:
            try:
                for frame in self._connection():
                    failures = 0
                    yield frame
            except httpx.TransportError as error:
                self._check_lost(error)
            if self._ended:
                return
            self._check_lost(None)
            if failures == len(PAUSES):
                raise Unavailable("The connection to the service is lost. The run goes on there without it.")
            time.sleep(PAUSES[failures])
            failures += 1

    def _check_lost(self, error: httpx.TransportError | None) -> None:
        """Raise unless the stream can be taken up."""
        if self.run_id is not None:
            return
        if error is not None:
            raise self._client.unreachable(error) from error
        raise Unavailable(f"The connection to {self._client.url} broke.")

    def _connection(self) -> Iterator[Frame]:
        """The frames of one connection, those already seen left out."""
        with self._open() as response:
            self._asked = True
            location = response.headers.get("content-location", "")
            if not self._recorded and location.startswith("/runs/"):
                self.run_id = location.removeprefix("/runs/")
            parser = FrameParser()
            for chunk in response.iter_bytes():
                for frame in self._parsed(parser, chunk):
                    if self._is_new(frame):
                        yield frame
                    if self._ended:
                        return

    def _open(self) -> AbstractContextManager[httpx.Response]:
        if not self._asked:
            return self._client.open_stream("POST", self._path, json=self._body)
        headers = {"Last-Event-ID": self._last_id}
        return self._client.open_stream("GET", f"/runs/{self.run_id}/events", headers=headers)

    def _parsed(self, parser: FrameParser, chunk: bytes) -> list[Frame]:
        try:
            return parser.feed(chunk)
        except ValueError as error:
            raise Unavailable(f"What answers at {self._client.url} is not Threadline.") from error

    def _is_new(self, frame: Frame) -> bool:
        if self._recorded:
            if frame.event == "error" and frame.id == self._last_id:  # without an id of its own it is of no run
                raise Unavailable(frame.data["message"])
            self._ended = frame.event in self._ends
            self._last_id = frame.id
            return True
        if frame.id.isdigit():
            if int(frame.id) <= int(self._last_id):
                return False
            self._last_id = frame.id
        if frame.event == "session":
            self.run_id = frame.data["run_id"]
        self._ended = frame.event in self._ends
        return True


def _long() -> httpx.Timeout:
    """For what takes the service a while before it answers."""
    return httpx.Timeout(600, connect=5)


def service_url(host: str, port: int) -> str:
    """Where a client on this machine finds a service that listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _host(url: str) -> str:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise Invalid(f"{url} is not the address of a service. It looks like http://127.0.0.1:8123.")
    return address.host


def _replay(session_id: str) -> str:
    return f"/sessions/{quote(session_id, safe='')}/replay"


def _replay_run(run_id: str) -> str:
    return f"/runs/{quote(run_id, safe='')}/replay"


def _session(session_id: str | None) -> dict[str, str]:
    return {} if session_id is None else {"session_id": session_id}


def _detail(response: httpx.Response) -> str | None:
    """What a problem document says."""
    try:
        problem = response.json()
    except ValueError:
        return None
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail if isinstance(detail, str) else None
