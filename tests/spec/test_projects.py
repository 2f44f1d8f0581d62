"""Somebody else's project, served as it is."""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from langgraph_sdk import get_client

from tests.conftest import Start
from tests.service import Frame, process, settings
from threadline.app.graphs import opener
from threadline.app.project import load_object
from threadline.app.server import run
from threadline.domain.errors import Invalid
from threadline.domain.records import ThreadQuery, User
from threadline.services.auth import LOCAL
from threadline.services.graphs import Opening
from threadline.services.store import scoped

PROJECT = {
    "graph/__init__.py": "",
    "graph/agent.py": """
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

from api.words import greeting
from tools import shout


def greet(state: MessagesState):
    from api.late import mark  # as some do, to start faster
    return {"messages": [AIMessage(shout(greeting()) + mark)]}


graph = StateGraph(MessagesState)
graph.add_node("greet", greet)
graph.add_edge(START, "greet")
graph.add_edge("greet", END)
graph = graph.compile()
""",
    "tools.py": "def shout(text):\n    return text.upper()\n",
    "api/words.py": "def greeting():\n    return 'hello from elsewhere'\n",
    "api/late.py": "mark = '!'\n",
    "langgraph.json": '{"graphs": {"greeter": "./graph/agent.py:graph"}}',
}


LIKENESSES = (
    {"type": "tool"},
    {"type": "tool", "name": 1, "status": "started", "args": {}},
    {"type": "intent"},
    ["tool"],
)


async def test_custom_parts_of_anybody_are_not_taken_for_ours(start: Start, tmp_path: Path) -> None:
    source = f"""
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

def tell(state):
    for part in {LIKENESSES!r}:
        get_stream_writer()(part)
    return {{"messages": [("ai", "told")]}}

agent = StateGraph(MessagesState).add_node(tell).add_edge(START, "tell").add_edge("tell", END)
"""
    config = written(tmp_path, {"tell.py": source, "langgraph.json": '{"graphs": {"agent": "./tell.py:agent"}}'})

    async with start(config=config) as service:
        frames = await service.chat("hi")
        call = {"assistant_id": "agent", "input": {"messages": ["hi"]}, "stream_mode": "custom"}
        streamed = (await service.http.post("/runs/stream", json=call)).text

    assert [frame.event for frame in frames] == ["session", "node", "node", "message", "done"]
    assert streamed.count("event: custom") == len(LIKENESSES)


async def test_a_project_with_its_own_graph_tools_and_api_gets_its_own(tmp_path: Path) -> None:
    written(tmp_path / "project", PROJECT)

    async with process(tmp_path / "data", "--config", str(tmp_path / "project" / "langgraph.json")) as (_, client):
        frames = await client.chat("hi")
        listed = await client.json("/sessions")
        page = await client.http.get("/", headers={"accept": "text/html"})
        described = await client.json("/openapi.json")

    assert [frame.data["content"] for frame in frames if frame.event == "message"] == ["HELLO FROM ELSEWHERE!"]
    assert [frame.data["node"] for frame in frames if frame.event == "node"] == ["greet", "greet"]
    assert listed["items"][0]["turns"] == 1
    assert page.status_code == 200
    assert "/chat" in described["paths"]


SEES_RUNTIME = """
    runs = runtime.access_context == "threads.create_run"
    assert runs or runtime.access_context == "threads.read"
    assert runtime.user is None and (runtime.execution_runtime is not None) == runs
    assert isinstance(runtime.store, BaseStore)"""
EXPORTS = {
    "builder": "agent = builder",
    "compiled": "agent = builder.compile()",
    "function": "def agent():\n    return builder.compile()",
    "with config": "def agent(config):\n    assert 'configurable' in config or config == {}\n    return builder",
    "async": "async def agent():\n    return builder",
    "async context": "@contextlib.asynccontextmanager\nasync def agent(config):\n    yield builder.compile()",
    "context": "@contextlib.contextmanager\ndef agent():\n    yield builder",
    "with runtime": f"def agent(runtime: ServerRuntime):\n{SEES_RUNTIME}\n    return builder",
    "with context": f"def agent(it: ServerRuntime[dict]):\n    runtime = it\n{SEES_RUNTIME}\n    return builder",
    "with both": f"async def agent(runtime: ServerRuntime, *, config):\n{SEES_RUNTIME}\n    return builder",
    "with a default": "def agent(config, more=1):\n    assert more == 1\n    return builder",
    "by name": f"def agent(config, runtime):\n{SEES_RUNTIME}\n    return builder",
    "annotated as text": f"def agent(it: 'ServerRuntime'):\n    runtime = it\n{SEES_RUNTIME}\n    return builder",
    "own checkpointer": "agent = builder.compile(checkpointer=InMemorySaver())",
}
BUILDER = """
import contextlib
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import ServerRuntime
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph

builder = StateGraph(MessagesState)
builder.add_node("echo", lambda state: {"messages": [AIMessage("echo " + state["messages"][-1].content)]})
builder.add_edge(START, "echo")
builder.add_edge("echo", END)
"""


@pytest.mark.parametrize("export", EXPORTS)
async def test_every_form_of_graph_langgraph_knows(start: Start, tmp_path: Path, export: str) -> None:
    (tmp_path / "echo.py").write_text(f"{BUILDER}\n{EXPORTS[export]}\n")
    (tmp_path / "langgraph.json").write_text('{"graphs": {"agent": {"path": "./echo.py:agent"}}}')

    async with start(config=tmp_path / "langgraph.json") as service:
        first = await service.chat("one")
        second = await service.chat("two", first[0].data["session_id"])

    assert [frame.data["content"] for frame in [*first, *second] if frame.event == "message"] == [
        "echo one",
        "echo two",
    ]


def written(folder: Path, files: dict[str, str]) -> Path:
    """The files of a project; its langgraph.json."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder / "langgraph.json"


def file(**parts: Any) -> str:
    return json.dumps({"graphs": {"agent": "./echo.py:agent"}, **parts})


ECHO = f"{BUILDER}\nagent = builder\n"


def replies(frames: list[Frame]) -> list[str]:
    return [frame.data["content"] for frame in frames if frame.event == "message"]


# Where graphs are looked for


@pytest.mark.parametrize(
    ("path", "dependencies"),
    [
        ("./src/friendly/agents/main.py:agent", []),
        ("./src/friendly/agents/main.py:agent", ["."]),
        ("friendly.agents.main:agent", ["."]),
        ("friendly.agents.main:agent", ["./src"]),
        ("friendly.agents:agent", ["."]),
    ],
)
async def test_a_graph_in_a_package_may_import_its_own_and_other_modules(
    start: Start, tmp_path: Path, path: str, dependencies: list[str]
) -> None:
    name = f"friendly_{abs(hash((path, *dependencies)))}"  # another package in every test
    config = written(
        tmp_path / "project",
        {
            f"src/{name}/__init__.py": "",
            f"src/{name}/words.py": "WORD = 'echo '",
            f"src/{name}/agents/__init__.py": "from .main import agent",
            f"src/{name}/agents/main.py": f"from ..words import WORD\nfrom {name}.words import WORD as SAME\n{ECHO}",
            "langgraph.json": file(
                graphs={"agent": path.replace("friendly", name)}, dependencies=[*dependencies, "langchain_of_tomorrow"]
            ),
        },
    )
    async with start(config=config) as service:
        assert replies(await service.chat("one")) == ["echo one"]


# What is broken


async def test_a_broken_graph_does_not_take_the_others_down(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(
        tmp_path / "project",
        {
            "echo.py": ECHO,
            "sub/broken.py": "import os\n\n\nos.environ['NOT_SET_ANYWHERE']\n",
            "langgraph.json": file(
                graphs={
                    "other": "./sub/broken.py:graph",
                    "strange": 5,
                    "agent": "./echo.py:agent",
                    "late": "./echo.py:fails",
                }
            ),
        },
    )
    with (config.parent / "echo.py").open("a") as echo:
        echo.write("\n\ndef fails():\n    raise LookupError('a secret word')\n")
    async with start(config=config) as service:
        assert replies(await service.chat("one")) == ["echo one"]
        info = await service.json("/info")

    assert info["graphs"] == ["agent", "late"]
    assert info["broken_graphs"] == {
        "other": "sub/broken.py:4: KeyError",
        "strange": "not understood",
        "late": f"echo.py:{len(ECHO.splitlines()) + 4}: LookupError",
    }
    logged = capfd.readouterr().out
    assert re.search(
        r"Graph other: importing .*sub/broken.py failed: KeyError: 'NOT_SET_ANYWHERE' \(sub/broken.py:4\)", logged
    )
    assert "Graph strange: write it as" in logged


async def test_asking_for_a_broken_graph_says_so(start: Start, tmp_path: Path) -> None:
    config = written(
        tmp_path / "project",
        {"echo.py": ECHO, "langgraph.json": file(graphs={"agent": "./none.py:x", "other": "./echo.py:agent"})},
    )
    async with start(config=config) as service:
        frames = await service.chat("one")

    assert frames[-1].event == "error"
    assert frames[-1].data["message"] == "The graph agent could not be loaded. The service's log says why."


async def test_nothing_but_broken_graphs_is_refused(tmp_path: Path) -> None:
    config = written(
        tmp_path / "project",
        {
            "one.py": "def agent():\n    return 5",
            "two.py": "import sys\nsys.exit('bye')",
            "langgraph.json": file(graphs={"one": "./one.py:agent", "two": "./two.py:agent"}),
        },
    )
    with pytest.raises(Invalid, match="Graph one: its function makes no graph but this: int"):
        await run(settings(tmp_path / "data", config=config))

    written(tmp_path / "project", {"one.py": "def agent(config, runtime, more):\n    return 5"})
    with pytest.raises(Invalid, match="may ask for config and runtime, not for more"):
        await run(settings(tmp_path / "other", config=config))

    written(tmp_path / "project", {"one.py": "agent ="})
    with pytest.raises(Invalid, match=r"one.py failed: SyntaxError.* \(one.py:1\)\n.*two.py failed: SystemExit: bye"):
        await run(settings(tmp_path / "third", config=config))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"graphs": []}, "graphs: Input should be a valid dictionary"),
        ({"store": {"index": {"embed": "./x.py:y", "dims": "many"}}}, "store.index.dims"),
        ({"store": {"index": {"embed": "./x.py:y", "dims": 3}}}, "store.index.embed: there is no file"),
        ({"store": {"index": {"embed": "somebody:model", "dims": 3}}}, "somebody:model cannot be used"),
        ({"store": {"path": "./echo.py:builder"}}, "store.path"),
        ({"store": {"ttl": {"default_ttl": -1}}}, "store.ttl.default_ttl"),
        ({"checkpointer": {"ttl": {"strategy": "burn"}}}, "checkpointer.ttl.strategy"),
        ({"auth": {}}, "auth.path: Field required"),
        ({"auth": {"path": "./none.py:auth"}}, "auth.path: there is no file"),
        ({"http": {"app": "./none.py:app"}}, "http.app: there is no file"),
        ({"http": {"app": "./echo.py:NUMBER"}}, "http.app: .* is no ASGI application"),
        ({"http": {"mount_prefix": "api/"}}, "http.mount_prefix"),
        (
            {"webhooks": {"headers": {"x-a": "${{ env.PATH }}"}}},
            "x-a: PATH does not begin with LG_WEBHOOK_",
        ),
        ({"webhooks": {"headers": {"x-a": "${{ env.LG_WEBHOOK_NO }}"}}}, "LG_WEBHOOK_NO is not in the environment"),
        ({"webhooks": {"headers": {"x a": "b"}}}, "webhooks.headers.x a: it is no header"),
        ({"webhooks": {"headers": {"x-a": "b\r\nx-b: c"}}}, "webhooks.headers.x-a: it is no header"),
        ({"webhooks": {"url": {"allowed_domains": ["a.*.example"]}}}, "webhooks.url.allowed_domains.0"),
        ({"webhooks": {"url": {"allowed_ports": [0]}}}, "webhooks.url.allowed_ports.0"),
        ({"env": ["A"]}, "env"),
    ],
)
async def test_what_cannot_be_meant_is_said_with_its_name(tmp_path: Path, parts: dict[str, Any], reason: str) -> None:
    config = written(tmp_path / "project", {"echo.py": f"{ECHO}\nNUMBER = 5\n", "langgraph.json": file(**parts)})

    with pytest.raises(Invalid, match=reason):
        await run(settings(tmp_path / "data", config=config))


async def test_what_has_no_effect_is_named_in_one_line(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(
        tmp_path / "project",
        {
            "echo.py": ECHO,
            "langgraph.json": file(
                **{"$schema": "https://example.test/schema.json"},
                dependencies=[".", "langchain_community"],
                python_version="3.12",
                dockerfile_lines=["RUN true"],
                pip_config_file=None,
                checkpointer={"path": "./x.py:saver", "ttl": {"default_ttl": 5, "sweep_limit": 5}},
                http={"disable_mcp": True, "cors": {"allow_origins": ["https://page.test"]}},
                webhooks={"url": {"disable_loopback": True, "what": 1}},
                store={"index": None, "ttl": {"default_ttl": 5, "what": 1}},
                tomorrow={"x": 1},
            ),
        },
    )
    async with start(config=config) as service:
        assert replies(await service.chat("one")) == ["echo one"]

    lines = [line for line in capfd.readouterr().out.splitlines() if "project_keys_not_used" in line]
    assert len(lines) == 1
    named = {
        *("python_version", "dockerfile_lines", "tomorrow", "http.disable_mcp", "checkpointer.path"),
        *("webhooks.url.what",),
        *("checkpointer.ttl.sweep_limit", "store.ttl.what", "dependencies: langchain_community"),
    }
    assert set(re.findall(r"'([^']+)'", lines[0].partition("keys=")[2])) == named


# What it says of the HTTP side


TOLD = f"""{BUILDER}
async def tell(state, config):
    told = {{name: value for name, value in config["configurable"].items() if "-" in name}}
    return {{"messages": [AIMessage(str(told))]}}

agent = StateGraph(MessagesState).add_node("tell", tell).add_edge(START, "tell").add_edge("tell", END)
"""


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ({"includes": ["x-user-id", "My-*"]}, {"x-user-id": "u", "my-a": "1"}),
        ({"include": ["*-*"], "exclude": ["*token*", "*agent", "*cept*", "con*"]}, {"x-user-id": "u", "my-a": "1"}),
        ({"excludes": ["my-a"]}, {}),
        ({"includes": ["authorization", "x-api-key", "x-tenant-id", "x-service-key", "langgraph_auth_user-id"]}, {}),
        ({"includes": ["x-user.id", "x-user"]}, {}),
    ],
)
async def test_headers_that_a_graph_is_told_of(start: Start, tmp_path: Path, choice: Any, expected: Any) -> None:
    http = {"configurable_headers": choice} if choice else {}
    config = written(tmp_path / "project", {"echo.py": TOLD, "langgraph.json": file(http=http)})
    headers = {
        "X-User-Id": "u",
        "my-a": "1",
        "x-secret-token": "t",
        "authorization": "Bearer b",
        "x-api-key": "k",
        "x-tenant-id": "t",
        "x-service-key": "s",
        "langgraph_auth_user-id": "root",
    }
    async with start(config=config) as service:
        call = {"assistant_id": "agent", "input": {"messages": ["hi"]}}
        told = (await service.http.post("/runs/wait", json=call, headers=headers)).json()
        own = {**call, "config": {"configurable": {"x-user-id": "own"}}}
        both = (await service.http.post("/runs/wait", json=own, headers=headers)).json()
        spoken = await service.read("POST", "/chat", json={"message": "hi"}, headers=headers)

    assert told["messages"][-1]["content"] == str(expected)
    assert replies(spoken) == [str(expected)]
    assert both["messages"][-1]["content"] == str({"x-user-id": "own", **expected})


async def test_all_is_served_below_a_prefix_too(start: Start, tmp_path: Path) -> None:
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(http={"mount_prefix": "/one/two"})})
    async with start(config=config) as service:
        url = f"{service.http.base_url}/one/two"
        for path in ("", "/", "/ok", "/info", "/docs", "/openapi.json", "/metrics"):
            assert (await service.http.get(f"/one/two{path}")).status_code == 200, path
        for path in ("/one", "/one/twofold/ok", "/one/two/one/two/ok", "/two/ok"):
            assert (await service.http.get(path)).status_code == 404, path
        client = get_client(url=url, api_key=None)
        thread = await client.threads.create()
        parts = [part async for part in client.runs.stream(thread["thread_id"], "agent", input={"messages": ["a"]})]
        assert parts[-1].data["messages"][-1]["content"] == "echo a"
        run_id = parts[0].data["run_id"]
        joined = client.runs.join_stream(thread["thread_id"], run_id, last_event_id="0")
        assert (await anext(joined)).data["run_id"] == run_id
        assert replies(await service.read("POST", "/one/two/chat", json={"message": "one"})) == ["echo one"]


@pytest.mark.parametrize("key", [None, "k" * 32])
async def test_below_a_prefix_a_key_is_asked_for_as_well(start: Start, tmp_path: Path, key: str | None) -> None:
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(http={"mount_prefix": "/in"})})
    async with start(config=config, api_keys=["k" * 32]) as service:
        async with httpx.AsyncClient(base_url=service.http.base_url) as http:
            answer = await http.post("/in/threads", json={}, headers={"x-api-key": key} if key else {})
            assert answer.status_code == (200 if key else 401)
            assert (await http.get("/in/ok")).status_code == 200


async def test_a_service_that_tells_nothing_of_itself(start: Start, tmp_path: Path) -> None:
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(http={"disable_meta": True})})
    async with start(config=config) as service:
        for path in ("/info", "/metrics", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert (await service.http.get(path)).status_code == 404, path
        assert (await service.http.get("/ok")).json() == {"ok": True, "services": {}}
        assert (await service.http.get("/ready")).status_code == 200
        assert replies(await service.chat("one")) == ["echo one"]


# What a project brings


@pytest.mark.parametrize("form", ["file", "object"])
async def test_env_is_set_before_the_graphs_are_imported_and_overrides_nothing(
    start: Start, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROJECT_WORD", "to be put back")
    monkeypatch.delenv("PROJECT_WORD")
    monkeypatch.setenv("PROJECT_OTHER", "outer")
    env = {"PROJECT_WORD": "inner-4711", "PROJECT_OTHER": "inner-4711"}
    words = "import os\nWORD = os.environ['PROJECT_WORD'] + ' ' + os.environ['PROJECT_OTHER']\n"
    config = written(
        tmp_path / "project",
        {
            "echo.py": words + ECHO.replace('"echo " +', 'WORD + " " +'),
            ".env": "# a comment\nPROJECT_WORD='inner-4711'\nexport PROJECT_OTHER=inner-4711\n",
            "langgraph.json": file(env=".env" if form == "file" else env),
        },
    )
    async with start(config=config) as service:
        frames = await service.chat("one")

    said = capfd.readouterr()
    assert replies(frames) == ["inner-4711 outer one"]
    assert "inner-4711" not in said.out + said.err


async def test_an_env_file_that_is_not_there_is_no_fault(start: Start, tmp_path: Path) -> None:
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(env=".env")})
    async with start(config=config) as service:
        assert replies(await service.chat("one")) == ["echo one"]
    assert "PROJECT_WORD" not in os.environ


APP = """
from contextlib import asynccontextmanager
from fastapi import FastAPI, Request

started = []


@asynccontextmanager
async def lifespan(app):
    started.append("started")
    yield
    started.append("stopped")


app = FastAPI(lifespan=lifespan)


@app.get("/own/{name}")
async def own(name: str, request: Request):
    return {"own": name, "started": started, "caller": request.state.caller.id}


@app.get("/ok")
async def ok():
    return {"ok": "theirs"}
"""


async def test_an_application_of_the_project_answers_what_is_not_ours(start: Start, tmp_path: Path) -> None:
    config = written(
        tmp_path / "project",
        {"echo.py": ECHO, "web.py": APP, "langgraph.json": file(http={"app": "./web.py:app"})},
    )
    async with start(config=config, api_keys="alice-3f9c2b7d1e") as service:
        own = await service.http.get("/own/page")
        ours = await service.http.get("/ok")
        wrong = await service.http.delete("/ok")
        nothing = await service.http.get("/nowhere")
        async with httpx.AsyncClient(base_url=service.http.base_url) as stranger:
            refused = await stranger.get("/own/page")

    assert own.json()["started"] == ["started"]
    assert own.json()["own"] == "page"
    assert own.json()["caller"].startswith("key-")
    assert ours.json()["ok"] is True
    assert (wrong.status_code, nothing.status_code, refused.status_code) == (405, 404, 401)


async def test_pages_the_project_names_may_call_as_well(start: Start, tmp_path: Path) -> None:
    cors = {"allow_origins": ["https://theirs.test"], "expose_headers": ["X-Theirs"], "allow_credentials": True}
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(http={"cors": cors})})
    async with start(config=config, cors_origins="https://ours.test") as service:
        answers = {
            origin: await service.http.get("/ok", headers={"origin": f"https://{origin}.test"})
            for origin in ("theirs", "ours", "others")
        }

    assert answers["theirs"].headers["access-control-allow-origin"] == "https://theirs.test"
    assert answers["ours"].headers["access-control-allow-origin"] == "https://ours.test"
    assert "access-control-allow-origin" not in answers["others"].headers
    exposed = answers["ours"].headers["access-control-expose-headers"]
    assert "X-Theirs" in exposed
    assert "Location" in exposed


async def test_a_checkpointer_of_the_graph_is_replaced_with_a_word(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"{BUILDER}\n{EXPORTS['own checkpointer']}\n"
    config = written(tmp_path / "project", {"echo.py": source, "langgraph.json": file()})
    async with start(config=config) as service:
        await service.chat("one")
        await service.chat("two")

    assert capfd.readouterr().out.count("graph_checkpointer_replaced") == 1


async def test_threads_that_nobody_uses_are_deleted_when_the_project_says_so(start: Start, tmp_path: Path) -> None:
    ttl = {"strategy": "delete", "default_ttl": 0.005}  # 300 ms
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(checkpointer={"ttl": ttl})})
    async with start(config=config) as service:
        thread = (await service.http.post("/threads", json={})).json()
        deadline = asyncio.get_running_loop().time() + 20
        while (await service.http.get(f"/threads/{thread['thread_id']}")).status_code != 404:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)


async def test_using_a_thread_renews_its_time(start: Start, tmp_path: Path) -> None:
    ttl = {"strategy": "keep_latest", "default_ttl": 60}
    config = written(tmp_path / "project", {"echo.py": ECHO, "langgraph.json": file(checkpointer={"ttl": ttl})})
    async with start(config=config) as service:
        assert service.context is not None
        frames = await service.chat("one")
        expiries = []
        for word in ("two", "three"):
            page, _, _ = await service.context.states.search(LOCAL, ThreadQuery(expiring=True), {})
            expiries.append(page[0].expires_at)
            await service.chat(word, frames[0].data["session_id"])

    assert page[0].ttl == {"strategy": "keep_latest", "ttl": 60}
    assert expiries[0] is not None
    assert timedelta(minutes=59) < expiries[0] - datetime.now(UTC) <= timedelta(minutes=60)
    assert expiries[1] > expiries[0]


# How a graph is opened for a run


async def test_a_factory_is_told_whose_run_it_is(tmp_path: Path) -> None:
    records = (
        "seen = []\ndef agent(runtime: ServerRuntime, config):\n    seen.append((runtime, config))\n    return builder"
    )
    written(tmp_path, {"echo.py": f"{BUILDER}\n{records}\n"})
    factory = load_object("x", "./echo.py:agent", tmp_path)
    store, user = InMemoryStore(), User(identity="ada", permissions=[])
    opening = Opening("threads.create_run", scoped(store, "ada"), user, {"some": "context"})
    open_graph = opener("agent", factory, InMemorySaver(), scoped(store, "local"))

    async with open_graph({"configurable": {"x": 1}}, opening) as graph:
        assert graph.store is opening.store
    async with open_graph({}) as looked:
        assert looked.store is not opening.store

    (runtime, config), (other, _) = load_object("x", "./echo.py:seen", tmp_path)
    assert config == {"configurable": {"x": 1}}
    assert runtime.ensure_user().identity == "ada"
    assert runtime.execution_runtime.context == {"some": "context"}
    assert runtime.store is opening.store
    assert (other.access_context, other.execution_runtime) == ("threads.read", None)


async def test_each_caller_has_a_graph_of_its_own_store_and_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "echo.py": ECHO,
            "own.py": f"{BUILDER}\nagent = builder.compile(store=InMemoryStore())",
        },
    )
    store = InMemoryStore()
    open_graph = opener("agent", load_object("x", "./echo.py:agent", tmp_path), InMemorySaver(), scoped(store, "local"))
    brings = load_object("x", "./own.py:agent", tmp_path)
    open_own = opener("own", brings, InMemorySaver(), scoped(store, "local"))

    graphs = []
    for number in [*range(70), 69, 0]:
        async with open_graph({}, Opening(store=scoped(store, f"caller {number}"))) as graph:
            assert graph.store.scope == f"caller {number}"
            graphs.append(graph)
    async with open_own({}) as own:
        assert own.store is brings.store

    assert graphs[70] is graphs[69]
    assert graphs[71] is not graphs[0]
