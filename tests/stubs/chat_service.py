"""A stand-in for the service, for tests of the page: the HTTP API over scripted runs, all of it in memory.

What a run does follows from words in the message: "slowly" writes for a long time, "count" writes plain numbers,
"fail" ends in an error the first time, "markup" answers with HTML and scripts, "ask me" interrupts, "crash" restarts
in the middle of the answer, "stranger" runs the nodes of another graph. An expression calls the calculator.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

STATIC = Path(__file__).parents[2] / "api" / "static"
POLICY = "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
ATTEMPT_SPAN = 1_000_000
MARKUP = (
    "<img src=x onerror=\"window.__ran = 'img'\"> <script>window.__ran = 'script'</script>\n\n"
    "[click](javascript:window.__ran='link') and [safe](https://example.com/a?b=1) and **bold <b>text</b>**\n\n"
    "```html\n<script>window.__ran = 'code'</script>\n```\n\n- one `<i>code</i>`\n- two"
)

Frame = tuple[int | str | None, str, dict[str, Any]]
JsonBody = Annotated[dict[str, Any], Body()]


@dataclass
class StubRun:
    """One run: its frames so far, and what the script asked of it."""

    run_id: str
    session_id: str
    frames: list[Frame] = field(default_factory=list)
    grew: asyncio.Condition = field(default_factory=asyncio.Condition)
    cancelled: bool = False
    next_id: int = 1

    async def write(self, event: str, **data: Any) -> None:
        async with self.grew:
            self.frames.append((self.next_id, event, data))
            self.next_id += 1
            self.grew.notify_all()

    async def follow(self, after: int) -> AsyncIterator[Frame]:
        while True:
            async with self.grew:
                new = [frame for frame in self.frames if frame[0] > after]
                if not new:
                    await self.grew.wait()
                    continue
            for frame in new:
                yield frame
                after = frame[0]
                if frame[1] in ("done", "error"):
                    return


@dataclass
class StubSession:
    """One conversation: its messages, its checkpoints oldest first, and what it waits for."""

    session_id: str
    title: str
    created_at: str
    updated_at: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    interrupts: list[dict[str, Any]] = field(default_factory=list)
    intent: dict[str, Any] | None = None
    failed_once: bool = False

    def save(self, run: StubRun, *, source: str, nodes: list[str], following: list[str]) -> str:
        """Add a checkpoint of the state as it is now."""
        parent = self.checkpoints[-1] if self.checkpoints else None
        self.updated_at = now()
        self.checkpoints.append(
            {
                "checkpoint_id": str(uuid.uuid4()),
                "parent_id": parent and parent["checkpoint_id"],
                "step": parent["step"] + 1 if parent else -1,
                "source": source,
                "nodes": nodes,
                "next": following,
                "created_at": self.updated_at,
                "run_id": run.run_id,
                "values": {"messages": list(self.messages), "intent": self.intent},
                "mark": len(run.frames),
            }
        )
        return str(self.checkpoints[-1]["checkpoint_id"])


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def create_service(*, pace: float = 0.004, api_key: str | None = None) -> FastAPI:
    """The stub as an application. `pace` is the time a token takes, in seconds."""
    app = FastAPI()
    sessions: dict[str, StubSession] = {}
    runs: dict[str, StubRun] = {}
    tasks: set[asyncio.Task[None]] = set()
    app.state.sessions, app.state.runs = sessions, runs
    app.state.requests = []

    @app.middleware("http")
    async def guard(request: Request, proceed: Any) -> Response:
        app.state.requests.append((request.method, request.url.path, request.headers.get("last-event-id")))
        public = request.url.path == "/" or request.url.path.startswith("/static/")
        if api_key and not public and request.headers.get("authorization") != f"Bearer {api_key}":
            return JSONResponse({"title": "Denied", "status": 401, "kind": "denied", "detail": "A key is needed."}, 401)
        response: Response = await proceed(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.exception_handler(HTTPException)
    async def problem(_: Request, fault: HTTPException) -> JSONResponse:
        kind = {404: "missing", 409: "conflict"}.get(fault.status_code, "invalid")
        body = {"title": kind, "status": fault.status_code, "kind": kind, "detail": str(fault.detail)}
        return JSONResponse(body, fault.status_code, media_type="application/problem+json")

    def find(session_id: str) -> StubSession:
        if session_id not in sessions:
            raise HTTPException(404, "There is no such session.")
        return sessions[session_id]

    def begin(session: StubSession, work: Any) -> StreamingResponse:
        run = StubRun(str(uuid.uuid4()), session.session_id)
        runs[run.run_id] = run
        task = asyncio.create_task(work(session, run, pace))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return stream(run.follow(0))

    @app.post("/chat")
    async def chat(body: JsonBody) -> Response:
        if "resume" in body:
            session = find(body["session_id"])
            answer = body["resume"]["value"]
            return begin(session, lambda *args: resumed(*args, answer=answer))
        message = body["message"]
        session_id = body.get("session_id") or str(uuid.uuid4())
        if session_id not in sessions:
            sessions[session_id] = StubSession(session_id, message[:60], now(), now())
        return begin(sessions[session_id], lambda *args: answered(*args, message=message))

    @app.get("/runs/{run_id}/events")
    async def events(run_id: str, last_event_id: int = Header(0)) -> Response:
        if run_id not in runs:
            raise HTTPException(404, "There is no such run.")
        return stream(runs[run_id].follow(last_event_id))

    @app.post("/runs/{run_id}/cancel", status_code=202)
    async def cancel(run_id: str) -> dict[str, str]:
        runs[run_id].cancelled = True
        return {"run_id": run_id, "status": "cancelled"}

    @app.get("/sessions")
    async def list_sessions(limit: int = 50, before: str | None = None) -> dict[str, Any]:
        newest = sorted(sessions.values(), key=lambda one: one.updated_at, reverse=True)
        return page([listed(one) for one in newest], "session_id", limit=limit, before=before)

    @app.get("/sessions/{session_id}")
    async def read_session(session_id: str) -> dict[str, Any]:
        session = find(session_id)
        roles = {"human": "user", "ai": "assistant"}
        messages = [
            {
                "role": roles[message["type"]],
                "content": message["content"],
                "timestamp": session.updated_at,
                "metadata": {"tokens": 512, "cost": 0.00021, "status": "success"} if message["type"] == "ai" else {},
            }
            for message in session.messages
            if message["content"] and message["type"] in roles
        ]
        context = {"current_tool": None, "last_action": "respond"}
        return {
            "session_id": session_id,
            "created_at": session.created_at,
            "messages": messages,
            "context": context,
        }

    @app.delete("/sessions/{session_id}", status_code=204)
    async def delete_session(session_id: str) -> None:
        find(session_id)
        del sessions[session_id]

    @app.get("/sessions/{session_id}/checkpoints")
    async def list_checkpoints(session_id: str, limit: int = 50, before: str | None = None) -> dict[str, Any]:
        rows = [
            {k: v for k, v in row.items() if k not in ("values", "mark")}
            for row in reversed(find(session_id).checkpoints)
        ]
        return page(rows, "checkpoint_id", limit=limit, before=before)

    @app.get("/sessions/{session_id}/checkpoints/{checkpoint_id}")
    async def read_checkpoint(session_id: str, checkpoint_id: str) -> dict[str, Any]:
        return checkpoint(find(session_id), checkpoint_id)

    @app.post("/sessions/{session_id}/replay")
    async def replay(session_id: str, body: JsonBody) -> Response:
        session = find(session_id)
        start = checkpoint(session, body.get("checkpoint_id") or session.checkpoints[0]["checkpoint_id"])
        if body["mode"] == "recorded":
            return stream(recording(runs, session, start))
        if not start["next"]:
            raise HTTPException(409, "Nothing is left to run from this checkpoint.")
        return begin(session, lambda *args: rerun(*args, start=start))

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def listed(session: StubSession) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "title": session.title,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "status": "interrupted" if session.interrupts else "idle",
        "live": not session.title.startswith("Old"),
        "turns": sum(message["type"] == "human" for message in session.messages),
    }


def page(rows: list[dict[str, Any]], key: str, *, limit: int, before: str | None) -> dict[str, Any]:
    start = next((at + 1 for at, row in enumerate(rows) if row[key] == before), 0)
    items = rows[start : start + limit]
    return {"items": items, "next": items[-1][key] if start + limit < len(rows) else None}


def checkpoint(session: StubSession, checkpoint_id: str) -> dict[str, Any]:
    for row in session.checkpoints:
        if row["checkpoint_id"] == checkpoint_id:
            return row
    raise HTTPException(404, "There is no such checkpoint.")


def stream(frames: AsyncIterator[Frame]) -> StreamingResponse:
    async def encode() -> AsyncIterator[str]:
        yield ": ping\r\n\r\n"
        async for number, event, data in frames:
            place = f"id: {number}\r\n" if number is not None else ""
            yield f"{place}event: {event}\r\ndata: {json.dumps(data, ensure_ascii=False)}\r\n\r\n"

    return StreamingResponse(encode(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def recording(runs: dict[str, StubRun], session: StubSession, start: dict[str, Any]) -> AsyncIterator[Frame]:
    """What came after a checkpoint: the rest of the run that made it, then every later run."""
    later = session.checkpoints[session.checkpoints.index(start) :]
    for run_id in dict.fromkeys(row["run_id"] for row in later):
        frames = runs[run_id].frames
        if run_id == start["run_id"]:
            frames = [*frames[:1], *frames[max(1, start["mark"]) :]] if start["next"] else []
        for id, event, data in frames:
            yield f"{run_id}:{id}", event, data
    yield None, "replay_done", {}


# What runs do


async def answered(session: StubSession, run: StubRun, pace: float, *, message: str) -> None:
    await run.write("session", session_id=session.session_id, run_id=run.run_id)
    session.save(run, source="input", nodes=[], following=["__start__"])
    session.messages.append({"type": "human", "id": str(uuid.uuid4()), "content": message})
    stranger = "stranger" in message
    session.save(run, source="loop", nodes=[], following=["plan" if stranger else "analyze_intent"])
    if stranger:
        await strange(session, run, pace)
    else:
        await analysed(session, run, pace, message=message)


async def rerun(session: StubSession, run: StubRun, pace: float, *, start: dict[str, Any]) -> None:
    await run.write("session", session_id=session.session_id, run_id=run.run_id)
    session.messages = list(start["values"]["messages"])
    session.save(run, source="fork", nodes=[], following=start["next"])
    asked = [message["content"] for message in session.messages if message["type"] == "human"]
    if start["next"] == ["respond"]:
        await responded(session, run, pace, message=asked[-1])
    else:
        await analysed(session, run, pace, message=asked[-1])


async def analysed(session: StubSession, run: StubRun, pace: float, *, message: str) -> None:
    korean = bool(re.search(r"[가-힣]", message))
    calls = planned(message)
    kind = "tool" if calls else "chat"
    await run.write("node", node="analyze_intent", status="started", step=1, ms=None)
    await asyncio.sleep(pace * 5)
    plan = [{"name": call["name"], "args": call["args"]} for call in calls]
    session.intent = {"kind": kind, "confidence": 0.97, "language": "ko" if korean else "en", "tool_calls": plan}
    await run.write("intent", **session.intent)
    if calls:
        session.messages.append({"type": "ai", "id": str(uuid.uuid4()), "content": "", "tool_calls": calls})
    await run.write("node", node="analyze_intent", status="finished", step=1, ms=412.4)
    session.save(run, source="loop", nodes=["analyze_intent"], following=["execute_tools" if calls else "respond"])
    if calls:
        await executed(session, run, pace, calls)
    if "ask me" in message:
        await interrupted(session, run)
    else:
        await responded(session, run, pace, message=message)


async def executed(session: StubSession, run: StubRun, pace: float, calls: list[dict[str, Any]]) -> None:
    await run.write("node", node="execute_tools", status="started", step=2, ms=None)
    for call in calls:
        await run.write("tool", id=call["id"], name=call["name"], status="started", args=call["args"])
        await asyncio.sleep(pace * 5)
        result, error = used(call)
        told: dict[str, Any] = {"result": result} if error is None else {"error": error}
        status = "finished" if error is None else "failed"
        fields = {
            "id": call["id"],
            "name": call["name"],
            "args": call["args"],
            "ms": 38.2,
            "cached": "2+2" in str(call),
        }
        await run.write("tool", status=status, **fields, **told)
        session.messages.append(
            {
                "type": "tool",
                "id": str(uuid.uuid4()),
                "name": call["name"],
                "tool_call_id": call["id"],
                "status": "success" if error is None else "error",
                "content": json.dumps(result, ensure_ascii=False) if error is None else error,
            }
        )
    await run.write("node", node="execute_tools", status="finished", step=2, ms=41.0)
    session.save(run, source="loop", nodes=["execute_tools"], following=["respond"])


async def responded(session: StubSession, run: StubRun, pace: float, *, message: str) -> None:
    await run.write("node", node="respond", status="started", step=3, ms=None)
    if "fail" in message and not session.failed_once:
        session.failed_once = True
        await say(run, "This will not ", pace)
        await run.write("node", node="respond", status="failed", step=3, ms=120.0)
        detail = "The model server cannot be reached."
        await run.write("error", kind="model_unreachable", message=detail, retryable=True)
        return
    reply = reply_to(message, session)
    if "crash" in message:
        await say(run, reply[: len(reply) // 2], pace)
        run.next_id = ATTEMPT_SPAN + 1
        await run.write("session", session_id=session.session_id, run_id=run.run_id)
        await run.write("node", node="respond", status="started", step=3, ms=None)
    if not await say(run, reply, pace * 12 if "slowly" in message else pace):
        await run.write("done", status="cancelled", usage=None, cost=None, checkpoint_id=None, ms=900.0)
        return
    await finished(session, run, node="respond", step=3, text=reply)


async def interrupted(session: StubSession, run: StubRun) -> None:
    await run.write("node", node="respond", status="started", step=3, ms=None)
    value = {"question": "Which **city** do you mean?", "options": ["Seoul", "Busan"]}
    session.interrupts = [{"id": "int-1", "value": value}]
    await run.write("interrupt", **session.interrupts[0])
    await run.write("done", status="interrupted", usage=None, cost=None, checkpoint_id=None, ms=300.0)


async def resumed(session: StubSession, run: StubRun, pace: float, *, answer: Any) -> None:
    session.interrupts = []
    await run.write("session", session_id=session.session_id, run_id=run.run_id)
    await run.write("node", node="respond", status="started", step=3, ms=None)
    reply = f"You said {json.dumps(answer, ensure_ascii=False)}."
    await say(run, reply, pace)
    await finished(session, run, node="respond", step=3, text=reply)


async def strange(session: StubSession, run: StubRun, pace: float) -> None:
    for step, node in enumerate(("plan", "act"), start=1):
        await run.write("node", node=node, status="started", step=step, ms=None)
        if node == "act":
            await say(run, "Done elsewhere.", pace)
            await finished(session, run, node=node, step=step, text="Done elsewhere.")
        else:
            await run.write("node", node=node, status="finished", step=step, ms=5.0)


async def say(run: StubRun, text: str, pace: float) -> bool:
    """Write the text token by token; false as soon as the run is cancelled."""
    for token in re.findall(r"\s*\S{1,6}|\s+$", text):
        if run.cancelled:
            return False
        await run.write("token", text=token)
        await asyncio.sleep(pace)
    return not run.cancelled


async def finished(session: StubSession, run: StubRun, *, node: str, step: int, text: str) -> None:
    message = {"type": "ai", "id": str(uuid.uuid4()), "content": text}
    session.messages.append(message)
    await run.write("node", node=node, status="finished", step=step, ms=730.5)
    checkpoint_id = session.save(run, source="loop", nodes=[node], following=[])
    await run.write("message", **message)
    usage = {"input_tokens": 480, "output_tokens": 32, "total_tokens": 512}
    await run.write("done", status="success", usage=usage, cost=0.00021, checkpoint_id=checkpoint_id, ms=1204.0)


def planned(message: str) -> list[dict[str, Any]]:
    found: list[tuple[str, dict[str, Any]]] = []
    expression = re.search(r"[(\d][\d\s()+*/.-]*[\d)]", message)
    if expression and re.search(r"[+*/-]", expression[0]):
        found.append(("calculator", {"expression": expression[0]}))
    if re.search(r"weather|날씨", message):
        found.append(("weather", {"place": "서울" if "서울" in message else "Seoul", "days": 2}))
    if re.search(r"[Ss]earch|검색", message):
        found.append(("search", {"query": message, "limit": 2}))
    return [{"id": f"call_{uuid.uuid4().hex[:8]}", "name": name, "args": args} for name, args in found]


def used(call: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    if call["name"] == "calculator":
        expression = call["args"]["expression"]
        if "/0" in expression:
            return None, "Division by zero."
        return {
            "expression": expression,
            "result": {"(15+27)*3": "126", "2+2": "4"}.get(expression, "0"),
            "unit": None,
        }, None
    if call["name"] == "weather":
        days = [
            {"date": f"2026-11-{23 + n}", "min_c": 2.5 + n, "max_c": 9.1 + n, "condition": "partly cloudy"}
            for n in range(2)
        ]
        sky = {
            "temperature_c": 7.3,
            "feels_like_c": 5.0,
            "humidity_percent": 40,
            "wind_kmh": 9.7,
            "condition": "clear sky",
        }
        return {"place": "Seoul", "country": "South Korea", **sky, "days": days, "source": "Open-Meteo"}, None
    hits = [
        {"title": "Finite-state machine", "url": "https://example.org/fsm", "snippet": "A model of computation. " * 8},
        {"title": "Not a link", "url": "javascript:window.__ran='hit'", "snippet": "An address that must not work."},
    ]
    return {"query": call["args"]["query"], "provider": "wikipedia", "results": hits}, None


def reply_to(message: str, session: StubSession) -> str:
    if "markup" in message:
        return MARKUP
    if "count" in message:
        return " ".join(str(n) for n in range(100, 160))
    if "slowly" in message:
        return " ".join(f"word{n}" for n in range(400))
    asked = max(at for at, one in enumerate(session.messages) if one["type"] == "human")
    tools = [one for one in session.messages[asked:] if one["type"] == "tool" and one["status"] == "success"]
    results = [json.loads(one["content"]) for one in tools]
    korean = bool(re.search(r"[가-힣]", message))
    if results and "result" in results[-1]:
        number = results[-1]["result"]
        return f"계산 결과는 **{number}** 입니다." if korean else f"The result is **{number}**."
    if results and "temperature_c" in results[-1]:
        return "지금 서울은 **7.3 °C**, 맑습니다." if korean else "It is **7.3 °C** and clear in Seoul right now."
    if korean:
        return "안녕하세요! 세 가지를 도와드릴 수 있습니다.\n\n- 계산: `(15+27)*3`\n- 날씨: 서울\n- 검색: 무엇이든"
    return (
        "Three things, mostly:\n\n1. **Calculate** – `(15+27)*3`, units and percentages\n"
        "2. **Weather** – now and for the days to come\n3. **Search** – see https://example.com/docs.\n\n"
        "```python\nprint((15 + 27) * 3)  # 126\n```\n\nJust ask."
    )
