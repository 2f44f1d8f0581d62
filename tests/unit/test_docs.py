"""The documents are true: their links lead somewhere, their commands and examples work, and all routes are in them."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer
from fastapi import APIRouter
from fastapi.routing import APIRoute
from langchain_core.messages import HumanMessage
from starlette.routing import compile_path

from api import branches, chat, compare, ops, replay, runs, sessions, share, tools
from api.server import assistants, crons, protocol, store, threads
from api.server import runs as server_runs
from tests.conftest import Start
from threadline.app.cli import app
from threadline.app.settings import Settings
from tools.toolbox import Toolbox

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "docs/server.md"
GUIDES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def routes(*routers: APIRouter) -> list[tuple[str, str]]:
    found = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [(method, route.path.replace(":path}", "}")) for route in found for method in sorted(route.methods)]


ROUTES = routes(*(m.router for m in (chat, sessions, share, runs, replay, branches, compare, tools, ops)), ops.meta)
SERVER_ROUTES = routes(
    assistants.router, threads.router, server_runs.router, protocol.router, crons.router, store.router
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of a document in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


# Links


@pytest.mark.parametrize("guide", GUIDES, ids=named)
def test_every_relative_link_leads_somewhere(guide: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", guide.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not urlsplit(link).scheme]

    assert [link for link in links if not _leads_somewhere(guide, link)] == []


def _leads_somewhere(guide: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (guide.parent / unquote(path)).resolve() if path else guide
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not heading or heading in _anchors(target)


def _anchors(guide: Path) -> set[str]:
    """The headings of a document as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", guide.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Commands


def command_lines() -> Iterator[tuple[str, str]]:
    """Each line of a shell block, and each threadline command within a sentence."""
    for guide in GUIDES:
        for command in re.findall(r"`((?:python3 -m )?threadline \w[^`\n]*)`", guide.read_text("utf-8")):
            yield named(guide), command
        for block in blocks(guide, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                yield named(guide), line.partition(" #")[0].strip()


def test_every_threadline_command_exists() -> None:
    lines = [(guide, line) for guide, line in command_lines() if re.search(r"\bthreadline (?=\w|$)", line)]

    assert len(lines) > 10
    for guide, line in lines:
        environment, words = _parted(line)
        command = typer.main.get_command(app).commands.get(words[0])
        assert command is not None, (guide, line)
        flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in flags]
        assert unknown == [], (guide, line)
        assert set(environment) <= _settings(), (guide, line)


def _parted(line: str) -> tuple[list[str], list[str]]:
    """The variables set before a command, and its words after `threadline`."""
    before, _, after = re.sub(r"python3 -m threadline", "threadline", line).partition("threadline ")
    return re.findall(r"(\w+)=", before), after.split()


def _settings() -> set[str]:
    fields = Settings.model_fields.items()
    return {f.validation_alias.choices[0] if f.validation_alias else f"THREADLINE_{name.upper()}" for name, f in fields}


def test_every_curl_asks_for_a_route_there_is() -> None:
    lines = [(guide, line) for guide, line in command_lines() if line.startswith("curl ")]
    known = [(method, compile_path(path)[0]) for method, path in ROUTES + SERVER_ROUTES]

    assert len(lines) > 3
    for guide, line in lines:
        method = (re.search(r"-X (\w+)", line) or [None, "GET"])[1]
        path = urlsplit(re.search(r"http://\S+", line)[0]).path
        assert any(method == known_method and pattern.match(path) for known_method, pattern in known), (guide, line)


# The API


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda part: str(part))
def test_every_route_is_in_the_guide(method: str, path: str) -> None:
    assert f"| `{method} {path}` |" in (ROOT / "docs/api.md").read_text("utf-8")


def test_the_guide_has_no_other_route() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \|", (ROOT / "docs/api.md").read_text("utf-8"), re.MULTILINE)

    assert set(rows) - set(ROUTES) == {("GET", "/"), ("GET", "/docs")}


@pytest.mark.parametrize(("method", "path"), SERVER_ROUTES, ids=lambda part: str(part))
def test_every_route_of_the_server_api_is_in_its_guide(method: str, path: str) -> None:
    assert f"| `{method} {path}` |" in SERVER.read_text("utf-8")


def test_the_server_guide_has_no_other_route() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \|", SERVER.read_text("utf-8"), re.MULTILINE)

    assert set(rows) == set(SERVER_ROUTES)


async def test_the_example_of_auth_works(start: Start, tmp_path: Path) -> None:
    [auth] = [block for block in blocks(SERVER, "python") if block.startswith("# auth.py\n")]
    files = {"assistant.py": example("assistant.py"), "auth.py": auth}
    config = {"graphs": {"agent": "./assistant.py:graph"}, "auth": {"path": "./auth.py:auth"}}
    for name, content in {**files, "langgraph.json": json.dumps(config)}.items():
        (tmp_path / name).write_text(content, "utf-8")

    async with start(config=tmp_path / "langgraph.json") as service:
        item = {"namespace": ["m"], "key": "k", "value": {}}
        refused = await service.http.put("/store/items", json=item)
        known = {"authorization": "Bearer of-ada"}
        kept = await service.http.put("/store/items", json=item, headers=known)
        found = await service.http.post("/store/items/search", json={}, headers=known)

    assert (refused.status_code, refused.json()) == (401, {"detail": "Who are you?"})
    assert kept.status_code == 204
    assert [item["namespace"] for item in found.json()["items"]] == [["ada", "m"]]


async def test_every_event_seen_is_in_the_guide_with_its_fields(start: Start) -> None:
    guide = (ROOT / "docs/api.md").read_text("utf-8")

    async with start() as service:
        frames = await service.chat("What is (15+27)*3?")

    for frame in frames:
        section = re.search(rf"^### {frame.event}\n(.*?)^##", guide, re.MULTILINE | re.DOTALL)
        assert section is not None, frame.event
        for field in frame.data:
            assert f'"{field}":' in section[1], (frame.event, field)


# The examples of own-graph.md


OWN_GRAPH = ROOT / "docs/own-graph.md"


def example(name: str) -> str:
    """The complete file of this name in the guide."""
    [text] = [block for block in blocks(OWN_GRAPH, "python") if block.startswith(f"# {name}\n")]
    return text


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports an example, under a name of its own."""

    def load_example(name: str) -> Any:
        file = tmp_path / Path(name).name
        file.write_text(example(name), "utf-8")
        spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load_example


async def test_the_tool_works(load: Callable[[str], Any]) -> None:
    toolbox = Toolbox([load("tools/days.py").tool(timeout=5)])

    outcome = await toolbox.call("days", {"start": "2026-11-22", "end": "2026-12-25"})

    assert outcome.result == {"days": 33}
    assert (await toolbox.call("days", {"start": "tomorrow"})).error


async def test_the_node_works(load: Callable[[str], Any]) -> None:
    clarify = load("graph/nodes/clarify.py").clarify
    intent = {"kind": "unknown", "confidence": 0.2, "language": "ko", "needs_more": False}

    update = await clarify({"messages": [HumanMessage("ㅁㄴㅇㄹ")], "intent": intent})

    assert "다르게" in update["messages"][0].text


async def test_the_model_works(load: Callable[[str], Any]) -> None:
    echo = load("graph/echo.py").Echo()

    streamed = [chunk.text async for chunk in echo.astream([HumanMessage("good day")])]

    assert "".join(streamed).strip() == "You said: good day"
    assert streamed[:2] == ["You ", "said: "]


@pytest.mark.parametrize("change", blocks(OWN_GRAPH, "diff"), ids=lambda diff: diff.splitlines()[-1])
def test_every_change_fits_the_code(change: str) -> None:
    lines = change.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))

    files = [path for folder in ("graph", "tools") for path in (ROOT / folder).rglob("*.py")]
    assert [before in path.read_text("utf-8") for path in files].count(True) == 1


async def test_the_project_works(start: Start, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "assistant.py").write_text(example("assistant.py"), "utf-8")
    [config] = [block for block in blocks(OWN_GRAPH, "json") if "graphs" in block]
    (project / "langgraph.json").write_text(config, "utf-8")

    async with start(config=project / "langgraph.json") as service:
        asked = await service.chat("A table for two")
        resume = {"interrupt_id": asked[2].data["id"], "value": "yes"}
        body = {"session_id": asked[0].data["session_id"], "resume": resume}
        answered = await service.read("POST", "/chat", json=body)

    assert asked[2].data["value"] == {"question": "Shall I book it?", "options": ["yes", "no"]}
    assert [frame.data["status"] for frame in answered if frame.event == "tool"] == ["started", "finished"]
    assert answered[-2].data["content"] == "Table 7 is yours."


def test_the_saver_reads_back_own_types(tmp_path: Path) -> None:
    guide = ROOT / "docs/checkpoints.md"
    [program] = [block for block in blocks(guide, "python") if block.startswith("# seats.py\n")]
    [printed] = re.findall(r"^It prints `(.+)`\.$", guide.read_text("utf-8"), re.MULTILINE)
    (tmp_path / "seats.py").write_text(program, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "seats.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )

    assert (done.stdout.strip(), done.returncode) == (printed, 0), done.stderr


def test_examples_are_python() -> None:
    for guide in GUIDES:
        for block in blocks(guide, "python"):
            ast.parse(block)


# What no file may hold

FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.$}/])/(?:work|root|home/\w+|Users/\w+|tmp/w)/",
    "the address of a package index": r"(?:pypi\.org|pythonhosted\.org|registry\.npmjs\.org)",
    "the choice of a package index": r"(?<!emit-)(?:extra-)?index-url[ =]|find-links[ =]",
}


def tracked() -> list[Path]:
    """The files of the checkout, those not yet added included; none where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_tells_of_the_machine_it_was_written_on(what: str) -> None:
    files = tracked()
    if not files:
        pytest.skip("no git here")
    found = [f"{named(path)}: {line}" for path in files if path != Path(__file__) for line in _lines(path, what)]

    assert found == []


def _lines(path: Path, what: str) -> list[str]:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return []
    return [line.strip()[:120] for line in text.splitlines() if re.search(FORBIDDEN[what], line)]
