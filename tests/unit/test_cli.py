"""The commands, against a stub service on loopback that speaks the chat stream."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from threadline.app import cli, suite
from threadline.app import client as client_module
from threadline.app.client import Client, Frame, FrameParser, is_loopback, service_url
from threadline.app.doctor import examine, lines
from threadline.app.server import new_loop
from threadline.app.settings import Settings
from threadline.app.tables import rows
from threadline.app.transcript import clean, fit, width
from threadline.domain.errors import Conflict, Denied, Invalid, Limited, Missing, ThreadlineError, Unavailable

REPOSITORY = Path(suite.ROOT)
MAIN = "from threadline.app.cli import main; main()"
SESSION = "5f0c8d4e-0000-4000-8000-000000000001"
RUN = "5f0c8d4e-0000-4000-8000-00000000000a"

BEGIN: list[tuple[str, dict[str, Any]]] = [("session", {"session_id": SESSION, "run_id": RUN})]
ANSWER: list[tuple[str, dict[str, Any]]] = [
    *BEGIN,
    ("node", {"node": "analyze_intent", "status": "started", "step": 1, "ms": None}),
    ("intent", {"kind": "tool", "confidence": 0.9, "language": "en", "tool_calls": []}),
    ("node", {"node": "analyze_intent", "status": "finished", "step": 1, "ms": 12.4}),
    ("tool", {"id": "t", "name": "calculator", "status": "started", "args": {"expression": "6*7"}}),
    (
        "tool",
        {
            "id": "t",
            "name": "calculator",
            "status": "finished",
            "args": {"expression": "6*7"},
            "result": {"result": "42"},
            "ms": 3,
            "cached": True,
        },
    ),
    ("token", {"text": "The answer "}),
    ("token", {"text": "is 42, 사십이."}),
    ("message", {"type": "ai", "content": "The answer is 42, 사십이."}),
    ("done", {"status": "success", "usage": {"total_tokens": 9}, "cost": 0.0012, "checkpoint_id": "c", "ms": 30}),
]
DONE = ("done", {"status": "success", "usage": None, "cost": None, "checkpoint_id": "c", "ms": 1})


def sse(frames: list[tuple[str, Any]], *, after: int = 0) -> bytes:
    numbered = list(enumerate(frames, start=1))[after:]
    texts = (f"id: {i}\r\nevent: {event}\r\ndata: {json.dumps(data)}\r\n\r\n" for i, (event, data) in numbered)
    return b": ping\r\n\r\n" + "".join(texts).encode()


class Service:
    """Answers by `(method, path)`; an answer is JSON, or a function of the handler that writes one itself."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {
            ("GET", "/info"): {"threadline_version": "0.1.0", "model": {"provider": "offline", "names": []}},
            ("GET", "/ok"): {"ok": True},
        }
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.requests.append((self.command, self.path, json.loads(body) if body else None, headers))
                given = service.answers.get((self.command, path), (404, "Not Found"))
                if callable(given):
                    given(self)
                elif isinstance(given, tuple):
                    problem(self, *given)
                else:
                    reply(self, 200, "application/json", json.dumps(given).encode())

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def said(self) -> list[Any]:
        return [body for method, path, body, _ in self.requests if (method, path) == ("POST", "/chat")]


def reply(handler: BaseHTTPRequestHandler, status: int, kind: str, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def problem(handler: BaseHTTPRequestHandler, status: int, detail: str) -> None:
    reply(handler, status, "application/problem+json", json.dumps({"status": status, "detail": detail}).encode())


def begin_stream(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream; charset=utf-8")
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.close_connection = True


def stream(frames: list[tuple[str, Any]]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Frames after the Last-Event-ID, if one is given."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        begin_stream(handler)
        handler.wfile.write(sse(frames, after=int(handler.headers.get("last-event-id") or 0)))

    return answer


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield service
    service.server.shutdown()
    service.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine, and no .env of the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("THREADLINE_", "OPEN", "REDIS_URL", "TAVILY", "BRAVE")):
            monkeypatch.delenv(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: its exit code, output and error output."""

    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["threadline", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else int(code is not None)), shown.out, shown.err

    return run


Run = Callable[..., tuple[int, str, str]]


def process(*arguments: str) -> tuple[int, str, str]:
    """Runs a command in a process of its own, which may set up logging and change signals."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MAIN, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout, ended.stderr


# chat


def test_chat_shows_nodes_tools_and_the_answer(service: Service, run: Run) -> None:
    service.answers["POST", "/chat"] = stream(ANSWER)
    code, out, err = run("chat", "--url", service.url, stdin="what is 6*7?\n")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "you › what is 6*7?",
        f"session {SESSION}",
        "    intent: tool (90%)",
        "  ▸ analyze_intent … 12 ms",
        '    calculator {"expression": "6*7"} → {"result": "42"}  3 ms, cached',
        "The answer is 42, 사십이.",
        "  success · 9 tokens · $0.0012 · 30 ms",
    ]


def test_each_line_of_a_pipe_is_a_message_of_one_session(service: Service, run: Run) -> None:
    service.answers["POST", "/chat"] = stream(ANSWER)
    assert run("chat", "--url", service.url, stdin="안녕\n\nsecond")[0] == 0
    assert service.said() == [
        {"message": "안녕", "stream": True},
        {"message": "second", "stream": True, "session_id": SESSION},
    ]


def test_a_session_is_gone_on_with(service: Service, run: Run) -> None:
    service.answers["POST", "/chat"] = stream(ANSWER)
    service.answers["GET", f"/sessions/{SESSION}"] = {"messages": [{}, {}]}
    code, out, _ = run("chat", "--session", SESSION, "--url", service.url, stdin="again\n")
    assert code == 0
    assert f"session {SESSION}, 2 messages so far" in out
    assert service.said()[0]["session_id"] == SESSION


def test_a_session_that_is_not_there_ends_the_command(service: Service, run: Run) -> None:
    service.answers["GET", f"/sessions/{SESSION}"] = (404, "There is no such session.")
    assert run("chat", "--session", SESSION, "--url", service.url) == (1, "", "threadline: There is no such session.\n")


def test_an_answer_that_was_not_streamed_is_shown(service: Service, run: Run) -> None:
    whole = [*BEGIN, ("message", {"content": [{"type": "text", "text": "all at once"}]}), DONE]
    service.answers["POST", "/chat"] = stream(whole)
    assert "\nall at once\n" in run("chat", "--url", service.url, stdin="hi\n")[1]


def test_what_the_agent_asks_is_answered(service: Service, run: Run) -> None:
    asks = [*BEGIN, ("interrupt", {"id": "i1", "value": "How many?"}), ("done", {**DONE[1], "status": "interrupted"})]
    answers = iter([stream(asks), stream(asks), stream(ANSWER)])
    service.answers["POST", "/chat"] = lambda handler: next(answers)(handler)
    code, out, _ = run("chat", "--url", service.url, stdin='order\n{"count": 3}\nsome words\n')
    assert code == 0
    assert out.count("The agent asks: How many?") == 2
    assert service.said()[1:] == [
        {"resume": {"interrupt_id": "i1", "value": {"count": 3}}, "session_id": SESSION, "stream": True},
        {"resume": {"interrupt_id": "i1", "value": "some words"}, "session_id": SESSION, "stream": True},
    ]


def test_an_error_is_told_and_the_next_message_sent(service: Service, run: Run) -> None:
    broken = [*BEGIN, ("error", {"kind": "model_timeout", "message": "The model is silent.", "retryable": True})]
    answers = iter([stream(broken), stream(ANSWER)])
    service.answers["POST", "/chat"] = lambda handler: next(answers)(handler)
    code, out, _ = run("chat", "--url", service.url, stdin="one\ntwo\n")
    assert code == 1
    assert "✗ The model is silent. Sending it again may help." in out
    assert "The answer is 42" in out


def test_a_refused_message_is_told_and_the_next_one_sent(service: Service, run: Run) -> None:
    service.answers["POST", "/chat"] = lambda handler: (
        stream(ANSWER)(handler) if len(service.said()) == 2 else problem(handler, 429, "Too many requests.")
    )
    code, out, err = run("chat", "--url", service.url, stdin="one\ntwo\n")
    assert (code, err) == (1, "✗ Too many requests.\n")
    assert "The answer is 42" in out


def test_a_broken_stream_is_taken_up_behind_the_last_frame(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAUSES", (0.0, 0.0))
    service.answers["POST", "/chat"] = stream(ANSWER[:7])

    def break_again(handler: BaseHTTPRequestHandler) -> None:
        begin_stream(handler)
        handler.wfile.write(sse(ANSWER[:8], after=6))  # a frame seen before, a new one, and the end of the connection
        service.answers["GET", f"/runs/{RUN}/events"] = stream(ANSWER)

    service.answers["GET", f"/runs/{RUN}/events"] = break_again
    code, out, _ = run("chat", "--url", service.url, stdin="hi\n")
    assert code == 0
    assert out.count("The answer is 42, 사십이.") == 1
    assert [headers["last-event-id"] for _, path, _, headers in service.requests if "/events" in path] == ["7", "8"]


def test_a_lost_connection_is_told_after_some_attempts(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAUSES", (0.0, 0.0))
    service.answers["POST", "/chat"] = stream(ANSWER[:3])
    service.answers["GET", f"/runs/{RUN}/events"] = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    code, _, err = run("chat", "--url", service.url, stdin="hi\n")
    assert (code, err) == (1, "✗ The connection to the service is lost. The run goes on there without it.\n")


def test_the_words_of_a_model_cannot_steer_the_terminal(service: Service, run: Run) -> None:
    service.answers["POST", "/chat"] = stream([*BEGIN, ("token", {"text": "a\x1b]0;owned\x07b\x9b2Jc\n"}), DONE])
    out = run("chat", "--url", service.url, stdin="hi\n")[1]
    assert "a]0;ownedb2Jc\n" in out
    assert "\x1b" not in out


# A real terminal


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background has its children ignore it
            os.environ |= {"PYTHONPATH": str(REPOSITORY), "LC_ALL": "C", "TERM": "dumb", "INPUTRC": "/dev/null"}
            os.execv(sys.executable, [sys.executable, "-c", MAIN, *arguments])
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.raw = b""

    @property
    def shown(self) -> str:
        return self.raw.decode("utf-8", "replace")

    def wait_for(self, text: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown, but {self.shown!r}"
            self.raw += os.read(self.fd, 4096)

    def type(self, text: str) -> None:
        self.raw = b""
        os.write(self.fd, text.encode())

    def exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments)
    try:
        yield terminal
    except BaseException:
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.exit_code()
        raise


def test_on_a_terminal_a_line_is_begun_and_finished_in_place(service: Service) -> None:
    service.answers["POST", "/chat"] = stream(ANSWER)
    with terminal("chat", "--url", service.url) as screen:
        screen.wait_for("you › ")
        screen.type("안녕\n")
        screen.wait_for("30 ms")
        begun = '    calculator {"expression": "6*7"} …\x1b[0m\r\x1b[K'
        assert begun + '\x1b[2m    calculator {"expression": "6*7"} → {"result": "42"}  3 ms, cached' in screen.shown
        assert service.said() == [{"message": "안녕", "stream": True}]  # although LC_ALL is C
        screen.wait_for("you › ")
        screen.type("\x04")
        assert screen.exit_code() == 0


def test_ctrl_c_stops_the_run_and_stays(service: Service) -> None:
    stopped = threading.Event()
    tail = [*BEGIN, ("token", {"text": "slow"}), ("done", {**DONE[1], "status": "cancelled"})]

    def slow(handler: BaseHTTPRequestHandler) -> None:
        begin_stream(handler)
        handler.wfile.write(sse(tail[:2]))
        stopped.wait(20)

    def cancel(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 202, "application/json", b'{"status": "cancelling"}')
        stopped.set()

    service.answers["POST", "/chat"] = slow
    service.answers["POST", f"/runs/{RUN}/cancel"] = cancel
    service.answers["GET", f"/runs/{RUN}/events"] = stream(tail)
    with terminal("chat", "--url", service.url) as screen:
        screen.wait_for("you › ")
        screen.type("count to a million\n")
        screen.wait_for("slow")
        screen.type("\x03")
        screen.wait_for("Stopping…")
        screen.wait_for("cancelled")
        screen.wait_for("you › ")
        screen.type("\x04")
        assert screen.exit_code() == 0


def test_a_second_ctrl_c_leaves(service: Service) -> None:
    ended = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        begin_stream(handler)
        handler.wfile.write(sse([*BEGIN, ("token", {"text": "slow"})]))
        ended.wait(20)

    service.answers["POST", "/chat"] = endless
    service.answers["POST", f"/runs/{RUN}/cancel"] = {"status": "cancelling"}
    service.answers["GET", f"/runs/{RUN}/events"] = endless
    try:
        with terminal("chat", "--url", service.url) as screen:
            screen.wait_for("you › ")
            screen.type("go\n")
            screen.wait_for("slow")
            screen.type("\x03")
            screen.wait_for("Stopping…")
            screen.type("\x03")
            assert screen.exit_code() == 130
    finally:
        ended.set()


# sessions and replay


def test_sessions_are_a_table(service: Service, run: Run) -> None:
    item = {
        "session_id": SESSION,
        "updated_at": "2026-11-22T10:11:12.5+00:00",
        "turns": 3,
        "status": "idle",
        "live": True,
    }
    service.answers["GET", "/sessions"] = {
        "items": [{**item, "title": "서울 날씨\x1b[2J"}, {**item, "live": False, "title": None}],
        "next": SESSION,
    }
    code, out, _ = run("sessions", "--limit", "2", "--url", service.url)
    assert code == 0
    assert out.splitlines() == [
        "SESSION                               UPDATED              TURNS  STATUS  LIVE  TITLE",
        f"{SESSION}  2026-11-22 10:11:12  3      idle    live  서울 날씨[2J",
        f"{SESSION}  2026-11-22 10:11:12  3      idle    -",
        "More: --limit 4",
    ]
    assert service.requests[0][1] == "/sessions?limit=2"


def test_no_sessions_are_told(service: Service, run: Run) -> None:
    service.answers["GET", "/sessions"] = {"items": [], "next": None}
    assert run("sessions", "--url", service.url) == (0, "No sessions yet.\n", "")


def test_a_recorded_replay_plays_everything(service: Service, run: Run) -> None:
    service.answers["POST", f"/sessions/{SESSION}/replay"] = stream([*ANSWER, *ANSWER, ("replay_done", {})])
    code, out, _ = run("replay", SESSION, "--url", service.url)
    assert code == 0
    assert out.count(f"── run {RUN}\n") == out.count("The answer is 42, 사십이.\n") == 2
    assert service.requests[0][2] == {"checkpoint_id": None, "mode": "recorded"}


def test_one_run_is_replayed_at_a_pace(service: Service, run: Run) -> None:
    rebuilt = ("session", {**BEGIN[0][1], "rebuilt": "checkpoints"})
    service.answers["GET", f"/threads/{SESSION}/runs/{RUN}"] = {"run_id": RUN}
    service.answers["POST", f"/runs/{RUN}/replay"] = stream([rebuilt, *ANSWER[1:]])
    code, out, _ = run("replay", SESSION, "--run", RUN, "--speed", "4", "--url", service.url)
    assert code == 0
    assert f"── run {RUN}, rebuilt from checkpoints: the recording is gone\n" in out
    assert "The answer is 42, 사십이.\n" in out
    assert service.requests[-1][2] == {"mode": "recorded", "speed": "4"}


def test_a_replay_that_cannot_go_on_is_told(service: Service, run: Run) -> None:
    def deleted(handler: BaseHTTPRequestHandler) -> None:
        begin_stream(handler)
        gone = {"kind": "missing", "message": "The session was deleted while it was played.", "retryable": False}
        handler.wfile.write(sse(BEGIN) + f"event: error\r\ndata: {json.dumps(gone)}\r\n\r\n".encode())

    service.answers["POST", f"/sessions/{SESSION}/replay"] = deleted
    code, out, err = run("replay", SESSION, "--url", service.url)
    assert (code, err) == (1, "threadline: The session was deleted while it was played.\n")
    assert f"── run {RUN}\n" in out


@pytest.mark.parametrize(
    "options", [("--run", RUN, "--checkpoint", "c"), ("--mode", "rerun", "--checkpoint", "c", "--speed", "1")]
)
def test_what_does_not_go_together(service: Service, run: Run, options: tuple[str, ...]) -> None:
    assert run("replay", SESSION, *options, "--url", service.url)[0] == 2
    assert service.requests == []


def test_a_rerun_needs_the_checkpoint_to_start_from(service: Service, run: Run) -> None:
    code, _, told = run("replay", SESSION, "--mode", "rerun", "--url", service.url)

    assert code == 2
    assert "checkpoint" in told
    assert service.requests == []


def test_a_rerun_says_what_is_to_change(service: Service, run: Run, tmp_path: Path) -> None:
    usage = {"total_tokens": 0, "model_calls": 0, "recorded_calls": 2}
    node = {"node": "respond", "step": 3, "status": "finished", "ms": 1, "recorded": True}
    done = ("done", {"status": "success", "usage": usage, "cost": 0, "checkpoint_id": "c", "ms": 1})
    service.answers["POST", f"/sessions/{SESSION}/replay"] = stream([*BEGIN, ("node", node), done])
    (tmp_path / "respond.md").write_text("Be kind. 친절하게.", encoding="utf-8")
    changes = {
        "--model": "m",
        "--temperature": "0.5",
        "--prompt": f"respond=@{tmp_path / 'respond.md'}",
        "--state": '{"intent": null}',
        "--as-node": "respond",
        "--tools": "live",
        "--models": "live",
        "--answer": "respond=1+1=2",
        "--into": "session",
    }
    told = [part for option in changes.items() for part in option]
    where = ("--mode", "rerun", "--checkpoint", "c9", "--url", service.url)

    code, out, _ = run("replay", SESSION, *where, *told, "--prompt", "analyze_intent=2")

    assert code == 0
    assert "▸ respond … 1 ms, recorded" in out
    assert "model calls: 0 made, 2 recorded" in out
    assert service.requests[-1][2] == {
        "mode": "rerun",
        "checkpoint_id": "c9",
        "into": "session",
        "changes": {
            "model": "m",
            "temperature": 0.5,
            "prompts": {"respond": {"text": "Be kind. 친절하게."}, "analyze_intent": "2"},
            "state": {"values": {"intent": None}, "as_node": "respond"},
            "tools": "live",
            "models": "live",
            "answers": {"respond": "1+1=2"},
        },
    }


def test_a_run_is_run_again_from_where_it_began(service: Service, run: Run) -> None:
    done = ("done", {"status": "success", "usage": None, "cost": 0, "checkpoint_id": "c", "ms": 1})
    service.answers["GET", f"/threads/{SESSION}/runs/{RUN}"] = {"run_id": RUN}
    service.answers["POST", f"/runs/{RUN}/replay"] = stream([*BEGIN, done])

    code, _, _ = run("replay", SESSION, "--run", RUN, "--mode", "rerun", "--temperature", "0", "--url", service.url)

    assert code == 0
    assert service.requests[-1][2] == {"mode": "rerun", "changes": {"temperature": 0}, "into": "branch"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--prompt", "respond"), "NAME=VALUE"),
        (("--answer", "=x"), "NAME=VALUE"),
        (("--prompt", "respond=@/nowhere/at/all"), "/nowhere/at/all"),
        (("--state", "[1]"), "JSON object"),
        (("--state", "{"), "JSON object"),
        (("--as-node", "respond"), "--state"),
        (("--mode", "recorded", "--model", "m"), "rerun"),
    ],
)
def test_a_rerun_that_makes_no_sense_is_not_asked_for(
    service: Service, run: Run, options: tuple[str, ...], word: str
) -> None:
    code, _, told = run("replay", SESSION, "--mode", "rerun", "--checkpoint", "c", *options, "--url", service.url)

    assert code != 0
    assert word in told
    assert service.requests == []


def test_a_replay_from_a_checkpoint(service: Service, run: Run) -> None:
    service.answers["POST", f"/sessions/{SESSION}/replay"] = stream([("replay_done", {})])
    assert run("replay", SESSION, "--checkpoint", "c9", "--url", service.url)[0] == 0
    assert service.requests[-1][2] == {"checkpoint_id": "c9", "mode": "recorded"}


def test_a_replay_that_breaks_is_told(service: Service, run: Run) -> None:
    service.answers["POST", f"/sessions/{SESSION}/replay"] = stream(ANSWER)
    code, _, err = run("replay", SESSION, "--url", service.url)
    assert code == 1
    assert err == f"threadline: The connection to {service.url} broke.\n"


def test_an_unknown_mode_is_refused(service: Service, run: Run) -> None:
    assert run("replay", SESSION, "--mode", "live", "--url", service.url)[0] == 2


# What goes wrong


def test_no_service_is_told_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("THREADLINE_PORT", str(port))
        expected = (
            f"threadline: No service answers at http://127.0.0.1:{port}. Start it with: python3 -m threadline up\n"
        )
        for command in (["chat"], ["sessions"], ["replay", SESSION]):
            assert run(*command) == (1, "", expected)


def test_a_missing_and_a_wrong_key_are_told_apart(service: Service, run: Run) -> None:
    service.answers["GET", "/sessions"] = (401, "A valid API key is needed.")
    assert "The service wants a key. Give one with --key" in run("sessions", "--url", service.url)[2]
    assert "The service does not know this key" in run("sessions", "--url", service.url, "--key", "sk-x")[2]
    assert service.requests[-1][3]["authorization"] == "Bearer sk-x"


def test_the_key_configured_here_goes_to_the_service_configured_here_alone(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["GET", "/sessions"] = {"items": [], "next": None}
    monkeypatch.setenv("THREADLINE_API_KEYS", "sk-own,sk-other")
    monkeypatch.setenv("THREADLINE_PORT", service.url.rpartition(":")[2])
    run("sessions")
    run("sessions", "--url", service.url)
    assert [headers.get("authorization") for *_, headers in service.requests] == ["Bearer sk-own", None]


def test_something_else_at_the_address_is_told(service: Service, run: Run) -> None:
    service.answers["GET", "/sessions"] = lambda handler: reply(handler, 200, "text/html", b"<html>")
    service.answers["POST", f"/sessions/{SESSION}/replay"] = lambda handler: reply(handler, 200, "text/html", b"<html>")
    for command in (["sessions"], ["replay", SESSION]):
        code, _, err = run(*command, "--url", service.url)
        assert (code, err) == (1, f"threadline: What answers at {service.url} is not Threadline.\n")


@pytest.mark.parametrize("url", ["localhost:8123", "ftp://host", "http://", "http://a:b:c"])
def test_what_is_no_address_is_told(run: Run, url: str) -> None:
    code, _, err = run("sessions", "--url", url)
    assert code == 1
    assert "is not the address of a service" in err


def test_a_bad_setting_is_named_without_its_value(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADLINE_SESSION_TTL", "s3cret")
    code, out, err = run("sessions")
    assert (code, out) == (1, "")
    assert err.startswith("threadline: THREADLINE_SESSION_TTL: ")
    assert err.count("\n") == 1
    assert "s3cret" not in err


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Denied),
        (404, Missing),
        (409, Conflict),
        (429, Limited),
        (422, Invalid),
        (418, Invalid),
        (500, Unavailable),
    ],
)
def test_a_status_becomes_the_kind_of_error_it_stands_for(
    service: Service, status: int, kind: type[ThreadlineError]
) -> None:
    service.answers["GET", "/x"] = (status, "in words")
    with Client(service.url) as client, pytest.raises(kind):
        client.get("/x")


def test_a_proxy_is_not_asked_about_this_machine(service: Service, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    service.answers["GET", "/sessions"] = {"items": [], "next": None}
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert run("sessions", "--url", service.url)[0] == 0


# up, test, doctor


def test_flags_win_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("THREADLINE_PORT=1\nTHREADLINE_HOST=file\nTHREADLINE_LOG_LEVEL=error\n")
    monkeypatch.setenv("THREADLINE_PORT", "2")
    monkeypatch.setenv("THREADLINE_HOST", "environment")
    served: list[Settings] = []
    monkeypatch.setattr("threadline.app.server.serve", served.append)
    assert run("up", "--port", "3", "--data-dir", "d", "--config", "c.json", "--insecure")[0] == 0
    settings = served[0]
    assert (settings.port, settings.host, settings.log_level) == (3, "environment", "error")
    assert (settings.data_dir, settings.config, settings.insecure) == (Path("d"), Path("c.json"), True)


def test_a_start_that_fails_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    code, _, err = process("up", "--port", "0", "--data-dir", "state")
    assert code == 1
    assert err == f"threadline: The data directory {tmp_path}/state cannot be made: {tmp_path}/state is a file.\n"


def test_help_imports_nothing_heavy() -> None:
    heavy = "('fastapi', 'httpx', 'pydantic')"
    code = f"import sys; from threadline.app import cli; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.fixture
def tests_of_two_lengths(tmp_path: Path) -> list[str]:
    """Arguments by which pytest runs a short and a long test."""
    file = tmp_path / "test_two.py"
    file.write_text("import pytest\n@pytest.mark.long\ndef test_long(): pass\ndef test_short(): pass\n")
    return ["-c", str(REPOSITORY / "pyproject.toml"), "-p", "no:cacheprovider", str(file)]


def test_the_suite_leaves_long_tests_out_unless_asked(tests_of_two_lengths: list[str]) -> None:
    code, out, _ = process("test", "--no-system-packages", *tests_of_two_lengths)
    assert (code, "1 passed, 1 deselected" in out) == (0, True)
    code, out, _ = process("test", "--no-system-packages", "--long", *tests_of_two_lengths)
    assert (code, "2 passed" in out) == (0, True)


def test_the_suite_hands_arguments_and_exit_code_through(tests_of_two_lengths: list[str]) -> None:
    none = process("test", "--no-system-packages", *tests_of_two_lengths, "-k", "nothing and nowhere")
    assert none[0] == 5


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get that fails until `update` was called; the file it notes its calls in."""
    calls = tmp_path / "calls"
    script = tmp_path / "apt-get"
    script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n[ "$1" = update ] || grep -q update {calls}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_missing_system_packages_are_installed_for_root(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(suite, "SYSTEM_PACKAGES", {"there": lambda: True, "missing": lambda: False})
    suite.install_system_packages()
    install = "install -y -q --no-install-recommends missing"
    assert apt.read_text().splitlines() == [install, "update -q", install]


def test_nothing_is_installed_that_is_there(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SYSTEM_PACKAGES", {"there": lambda: True})
    suite.install_system_packages()
    assert not apt.exists()


def test_an_ordinary_user_is_told_what_is_missing(
    apt: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(suite, "SYSTEM_PACKAGES", {"missing": lambda: False})
    suite.install_system_packages()
    assert not apt.exists()
    assert "sudo apt-get install missing" in capsys.readouterr().err


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A langgraph.json that loads."""
    (tmp_path / "graph.py").write_text("def agent(): ...\n")
    config = tmp_path / "langgraph.json"
    config.write_text('{"graphs": {"agent": "./graph.py:agent"}}')
    return config


async def test_the_doctor_shows_no_secret_and_finds_what_is_broken(
    tmp_path: Path, graph: Path, service: Service
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        settings = Settings(
            port=int(service.url.rpartition(":")[2]),
            host="127.0.0.1",
            config=graph,
            data_dir=tmp_path / "state",
            redis_url=f"redis://u:s3cret@127.0.0.1:{silent.getsockname()[1]}/0",
            api_keys="s3cret",
            tavily_api_key="s3cret",
        )
        findings = {finding.subject: finding for finding in await examine(settings)}
    shown = "\n".join(lines(list(findings.values())))
    assert "s3cret" not in shown
    assert {name: found.verdict for name, found in findings.items() if found.verdict != "ok"} == {
        "redis": "broken",
        "model": "note",
    }
    assert "No Redis answers at 127.0.0.1:" in findings["redis"].text
    assert findings["search"].text.startswith("tavily, wikipedia, ddgs")
    assert "Threadline is running" in findings["address"].text
    assert findings["graphs"].text.endswith(": agent")
    assert not (tmp_path / "state").exists()


async def test_the_doctor_asks_the_model_server(
    tmp_path: Path, graph: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["GET", "/v1/models"] = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
    monkeypatch.setenv("OPENAI_BASE_URL", f"{service.url}/v1")
    settings = Settings(config=graph, port=0, data_dir=tmp_path)
    findings = {finding.subject: finding for finding in await examine(settings)}
    assert findings["model"].verdict == "ok"
    assert findings["model"].text == f"openai at {service.url.removeprefix('http://')}: tiny"


async def test_the_doctor_names_broken_graphs_and_the_projects_own_auth(tmp_path: Path, graph: Path) -> None:
    file = json.loads(graph.read_text())
    file |= {"auth": {"path": "./auth.py:auth"}, "graphs": {**file["graphs"], "other": "./other.py:graph"}}
    graph.write_text(json.dumps(file))
    (graph.parent / "auth.py").write_text("from langgraph_sdk import Auth\nauth = Auth()\n")
    (graph.parent / "other.py").write_text("1 / 0\n")
    findings = {f.subject: f for f in await examine(Settings(host="0.0.0.0", port=0, config=graph, data_dir=tmp_path))}

    assert findings["callers"].text == f"the auth of {graph} says who may ask"
    assert findings["graphs"].verdict == "broken"
    assert "ZeroDivisionError" in findings["graphs"].text
    assert "(other.py:1)" in findings["graphs"].text


async def test_the_doctor_warns_of_an_open_door(tmp_path: Path, graph: Path) -> None:
    open_door = Settings(host="0.0.0.0", port=0, config=graph, data_dir=tmp_path)
    findings = {finding.subject: finding for finding in await examine(open_door)}
    assert findings["callers"].verdict == "broken"


def test_the_doctor_exits_by_what_it_finds(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADLINE_PORT", "0")
    code, out, _ = process("doctor")
    assert (code, out.splitlines()[-1]) == (0, "Nothing is broken.")
    graph.write_text("{")
    code, out, _ = process("doctor")
    assert (code, out.splitlines()[-1]) == (1, "Broken: graphs.")


def test_the_version(run: Run) -> None:
    assert re.fullmatch(r"threadline \d+\.\d+\.\d+\n", run("--version")[1])


# Parts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_frames_are_read_at_any_line_end_and_in_any_pieces(end: str, size: int) -> None:
    text = (
        '\ufeff: a comment\n\nid: 7\nevent: token\ndata: {"text":\ndata: "한\u2028글"}\n\ndata:1\n\nid: 8\ndata: 2\n\n'
    )
    raw = text.replace("\n", end).encode()
    parser = FrameParser()
    frames = [frame for i in range(0, len(raw), size) for frame in parser.feed(raw[i : i + size])]
    assert frames == [Frame("7", "token", {"text": "한\u2028글"}), Frame("7", "message", 1), Frame("8", "message", 2)]


def test_a_frame_cut_short_is_no_frame() -> None:
    parser = FrameParser()
    assert parser.feed(b"id: 1\ndata: {}") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\n") == [Frame("1", "message", {})]


def test_korean_is_two_columns_wide() -> None:
    assert [width(text) for text in ("abc", "한글", "e\u0301")] == [3, 4, 1]
    assert fit("한글은 넓다", 6) == "한글…"
    assert fit("short\nlines", 20) == "short lines"
    assert list(rows([("가", "x"), ("ab", "y")])) == ["가  x", "ab  y"]


def test_clean_keeps_what_is_text() -> None:
    assert clean("a\tb\n\x00\x1b[1m\x7f\x85한") == "a\tb\n[1m한"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("box", "http://box:1"),
    ],
)
def test_a_service_is_found_where_it_listens(host: str, url: str) -> None:
    assert service_url(host, 1) == url


def test_loopback_is_this_machine_alone() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.8.8.8", "::1", "10.0.0.1", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")
def test_the_service_runs_on_the_fast_loop() -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert type(runner.get_loop()).__module__ == "uvloop"
