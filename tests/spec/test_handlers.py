"""What a project's auth handlers are asked, by every endpoint there is, and that what they say is what is done."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError, PermissionDeniedError
from sqlalchemy import update

from tests.conftest import Start
from tests.guarded import Answer, Guarded, ask, guarded
from tests.service import Client
from threadline.domain.records import system_assistant_id
from threadline.storage.database import open_database
from threadline.storage.tables import crons

NEW_YEAR = "0 0 1 1 *"
NOWHERE = "00000000-0000-4000-8000-000000000000"
SAID = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def project(tmp_path: Path) -> Guarded:
    return guarded(tmp_path / "project")


@pytest.fixture
async def service(start: Start, project: Guarded) -> AsyncIterator[Client]:
    async with start(config=project.config) as client:
        yield client


@pytest.fixture
def people(service: Client, project: Guarded) -> People:
    return People(service, project)


@dataclass(frozen=True)
class People:
    """Speaks to the service as somebody."""

    service: Client
    project: Guarded

    async def __call__(self, who: str, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        return await ask(self.service.http, self.project, who, method, path, body, **options)

    async def get(self, who: str, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of an answer that is none of refusal."""
        answer = await self(who, method, path, body, **options)
        assert answer.status < 300, (method, path, answer)
        return answer.body


# The happy path


async def test_everybody_has_what_is_theirs_and_one_has_all(service: Client) -> None:
    clients = {
        who: get_client(url=str(service.http.base_url), api_key=None, headers={"authorization": who})
        for who in ("ada", "bob", "admin")
    }
    ada, bob, admin = clients.values()
    thread = await ada.threads.create(metadata={"kind": "note"})
    values: Any = await ada.runs.wait(thread["thread_id"], "agent", input=SAID)  # type: ignore[arg-type]
    assistant = await ada.assistants.create("agent", name="hers")
    cron: Any = await ada.crons.create(assistant["assistant_id"], schedule=NEW_YEAR, input=SAID)

    assert [message["type"] for message in values["messages"]] == ["human", "ai"]
    assert thread["metadata"] == {"kind": "note", "owner": "ada"}
    assert assistant["metadata"] == cron["metadata"] == {"owner": "ada"}
    assert cron["user_id"] == "ada"
    for client, theirs in ((ada, 1), (bob, 0), (admin, 1)):
        assert await client.threads.count() == len(await client.threads.search()) == theirs
        assert await client.crons.count() == len(await client.crons.search()) == theirs
        assert await client.assistants.count(name="hers") == theirs
    with pytest.raises(NotFoundError, match=f"Thread with ID {thread['thread_id']} not found"):
        await bob.threads.get(thread["thread_id"])
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await bob.runs.wait(thread["thread_id"], "agent", input=SAID)  # type: ignore[arg-type]
    await admin.threads.update(thread["thread_id"], metadata={"seen": True})
    await admin.runs.wait(thread["thread_id"], "agent", input=SAID)  # type: ignore[arg-type]
    assert len((await ada.threads.get_state(thread["thread_id"]))["values"]["messages"]) == 4  # type: ignore[call-overload]

    refused = get_client(
        url=str(service.http.base_url), api_key=None, headers={"authorization": "ada", "x-deny": "threads.create_run"}
    )
    with pytest.raises(PermissionDeniedError, match="Forbidden"):
        await refused.runs.create(thread["thread_id"], "agent", input=SAID)  # type: ignore[arg-type]


# Every endpoint


@dataclass(frozen=True)
class Things:
    """What ada has: a thread with a run that has ended and a branch it does not stand on, one with a run that waits, an
    assistant, a cron, an item; and the first as a file."""

    thread: str
    run: str
    checkpoint: str
    branch: str
    waiting_thread: str
    waiting_run: str
    assistant: str
    cron: str
    file: bytes

    def put_in(self, value: Any) -> Any:
        """A path or a body with the ids of these things, or the thread as a file."""
        if value == "{file}":
            return self.file
        if isinstance(value, str):
            return value.format_map(vars(self)) if "{" in value else value
        if isinstance(value, Mapping):
            return {name: self.put_in(inner) for name, inner in value.items()}
        return [self.put_in(inner) for inner in value] if isinstance(value, list) else value


async def things(people: People) -> Things:
    assistant = (await people.get("ada", "POST", "/assistants", {"graph_id": "agent"}))["assistant_id"]
    body = {"assistant_id": "agent", "input": SAID, "if_not_exists": "create"}
    thread = (await people.get("ada", "POST", "/threads", {}))["thread_id"]
    await people.get("ada", "POST", f"/threads/{thread}/runs/wait", body)
    [run] = await people.get("ada", "GET", f"/threads/{thread}/runs")
    state = await people.get("ada", "GET", f"/threads/{thread}/state")
    checkpoint = state["parent_checkpoint_id"]
    branch = await left(people, thread, checkpoint)
    waiting = (await people.get("ada", "POST", "/threads", {}))["thread_id"]
    late = await people.get("ada", "POST", f"/threads/{waiting}/runs", {**body, "after_seconds": 1000})
    cron = await people.get("ada", "POST", "/runs/crons", {"assistant_id": assistant, "schedule": NEW_YEAR})
    await people.get("ada", "PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {"owner": "ada"}})
    file = await people.get("ada", "GET", f"/sessions/{thread}/export")
    return Things(thread, run["run_id"], checkpoint, branch, waiting, late["run_id"], assistant, cron["cron_id"], file)


async def left(people: People, thread: str, checkpoint: str) -> str:
    """The branch that a thread stood on before a step was executed again."""
    path = f"/sessions/{thread}"
    await people.get("ada", "POST", f"{path}/replay", {"mode": "rerun", "checkpoint_id": checkpoint})
    young, old = (await people.get("ada", "GET", f"{path}/branches"))["items"]
    await people.get("ada", "POST", f"{path}/branches/{young['branch_id']}/promote")
    branch_id: str = old["branch_id"]
    return branch_id


@dataclass(frozen=True)
class Case:
    """One request to an endpoint, and what handlers must be asked before it is done.

    `other` is what somebody else is told, whom the filter keeps out; None where it is no matter of a record.
    """

    route: str
    asks: str
    body: Any = None
    path: str | None = None
    other: int | None = 404
    endless: bool = False

    @property
    def asked(self) -> list[str]:
        return self.asks.split()

    def request(self, of: Things) -> tuple[str, str, Any]:
        method, _, template = self.route.partition(" ")
        names = {"thread_id": "thread", "session_id": "thread", "run_id": "run", "assistant_id": "assistant"}
        path = self.path or template
        names |= {"cron_id": "cron", "checkpoint_id": "checkpoint", "branch_id": "branch"}
        for name, thing in names.items():
            path = path.replace(f"{{{name}}}", f"{{{thing}}}")
        return method, of.put_in(path), of.put_in(self.body)


RUN = {"assistant_id": "{assistant}", "input": SAID}
START = "threads.create_run assistants.read"
WATCH = f"{START} threads.read"
CRON = {"assistant_id": "{assistant}", "schedule": NEW_YEAR}
ITEM = {"namespace": ["a"], "key": "k"}
CASES = (
    Case("POST /chat", "threads.create_run threads.read", {"session_id": "{thread}", "message": "hi"}),
    Case("GET /sessions", "threads.search", other=200),
    Case("GET /sessions/{session_id}", "threads.read"),
    Case("DELETE /sessions/{session_id}", "threads.delete"),
    Case("GET /sessions/{session_id}/history", "threads.read"),
    Case("GET /sessions/{session_id}/checkpoints", "threads.read"),
    Case("GET /sessions/{session_id}/checkpoints/{checkpoint_id}", "threads.read"),
    Case("PUT /sessions/{session_id}/checkpoints/{checkpoint_id}/pin", "threads.update"),
    Case("DELETE /sessions/{session_id}/checkpoints/{checkpoint_id}/pin", "threads.update"),
    Case("GET /sessions/{session_id}/export", "threads.read"),
    Case("POST /sessions/import", "threads.create", "{file}", other=None),
    Case("GET /sessions/{session_id}/branches", "threads.read"),
    Case("PUT /sessions/{session_id}/branches/{branch_id}", "threads.update", {"name": "before"}),
    Case("POST /sessions/{session_id}/branches/{branch_id}/switch", "threads.update"),
    Case("POST /sessions/{session_id}/branches/{branch_id}/promote", "threads.update"),
    Case("DELETE /sessions/{session_id}/branches/{branch_id}", "threads.delete"),
    Case("GET /sessions/{session_id}/compare", "threads.read"),
    Case("GET /runs/{run_id}/compare", "threads.read", path="/runs/{run}/compare?with={run}"),
    Case("GET /sessions/{session_id}/replay", "threads.read"),
    Case("POST /sessions/{session_id}/replay", "threads.read", {"mode": "recorded"}),
    Case("GET /runs/{run_id}/replay", "threads.read"),
    Case("POST /runs/{run_id}/replay", "threads.read", {"mode": "recorded"}),
    Case("POST /runs/{run_id}/replay", "threads.read threads.create_run", {"mode": "rerun"}),
    Case(
        "POST /sessions/{session_id}/replay",
        "threads.read threads.update threads.create_run",
        {"mode": "rerun", "checkpoint_id": "{checkpoint}", "changes": {"state": {"values": SAID, "as_node": "agent"}}},
    ),
    Case(
        "POST /sessions/{session_id}/replay",
        "threads.read threads.create threads.create_run",
        {"mode": "rerun", "checkpoint_id": "{checkpoint}", "into": "session"},
    ),
    Case(
        "POST /sessions/{session_id}/replay",
        "threads.create_run threads.read",
        {"mode": "rerun", "checkpoint_id": "{checkpoint}"},
    ),
    Case("GET /runs/{run_id}/events", "threads.read"),
    Case("POST /runs/{run_id}/cancel", "threads.update", path="/runs/{waiting_run}/cancel"),
    Case("POST /assistants", "assistants.create", {"graph_id": "agent"}, other=None),
    Case("POST /assistants/search", "assistants.search", {}, other=200),
    Case("POST /assistants/count", "assistants.search", {}, other=200),
    Case("GET /assistants/{assistant_id}", "assistants.read"),
    Case("PATCH /assistants/{assistant_id}", "assistants.update", {"name": "another"}),
    Case("DELETE /assistants/{assistant_id}", "assistants.delete"),
    Case("POST /assistants/{assistant_id}/versions", "assistants.read", {}),
    Case("POST /assistants/{assistant_id}/latest", "assistants.update", {"version": 1}),
    Case("GET /assistants/{assistant_id}/graph", "assistants.read"),
    Case("GET /assistants/{assistant_id}/schemas", "assistants.read"),
    Case("GET /assistants/{assistant_id}/subgraphs", "assistants.read"),
    Case(
        "GET /assistants/{assistant_id}/subgraphs/{namespace}",
        "assistants.read",
        path="/assistants/{assistant}/subgraphs/x",
    ),
    Case("POST /threads", "threads.create", {}, other=None),
    Case("POST /threads/search", "threads.search", {}, other=200),
    Case("POST /threads/count", "threads.search", {}, other=200),
    Case("POST /threads/prune", "threads.delete", {"thread_ids": ["{waiting_thread}", "{thread}"]}, other=200),
    Case("GET /threads/{thread_id}", "threads.read"),
    Case("PATCH /threads/{thread_id}", "threads.update", {"metadata": {"a": 1}}),
    Case("DELETE /threads/{thread_id}", "threads.delete"),
    Case("POST /threads/{thread_id}/copy", "threads.read threads.create"),
    Case("GET /threads/{thread_id}/state", "threads.read"),
    Case("POST /threads/{thread_id}/state", "threads.update", {"values": SAID}),
    Case("GET /threads/{thread_id}/state/{checkpoint_id}", "threads.read"),
    Case(
        "POST /threads/{thread_id}/state/checkpoint", "threads.read", {"checkpoint": {"checkpoint_id": "{checkpoint}"}}
    ),
    Case("GET /threads/{thread_id}/history", "threads.read"),
    Case("POST /threads/{thread_id}/history", "threads.read", {}),
    Case("POST /runs/crons", "crons.create assistants.read", CRON),
    Case("POST /threads/{thread_id}/runs/crons", "crons.create assistants.read threads.read", CRON),
    Case("POST /runs/crons/search", "crons.search", {}, other=200),
    Case("POST /runs/crons/count", "crons.search", {}, other=200),
    Case("GET /runs/crons/{cron_id}", "crons.read"),
    Case("PATCH /runs/crons/{cron_id}", "crons.update", {"schedule": "0 0 2 1 *"}),
    Case("DELETE /runs/crons/{cron_id}", "crons.delete"),
    Case("POST /threads/{thread_id}/runs/stream", WATCH, RUN),
    Case("POST /threads/{thread_id}/runs/wait", WATCH, RUN),
    Case("POST /threads/{thread_id}/runs", START, RUN),
    Case(
        "POST /threads/{thread_id}/runs",
        f"{START} threads.update",
        {**RUN, "multitask_strategy": "rollback"},
        path="/threads/{waiting_thread}/runs",
    ),
    Case("GET /threads/{thread_id}/runs", "threads.read threads.search"),
    Case("POST /runs/stream", WATCH, RUN),
    Case("POST /runs/wait", WATCH, RUN),
    Case("POST /runs", START, RUN),
    Case("POST /runs/batch", START, [{"assistant_id": "agent", "input": SAID}, RUN]),
    Case("POST /runs/cancel", "threads.update", {"thread_id": "{waiting_thread}", "run_ids": ["{waiting_run}"]}),
    Case("POST /runs/cancel", "threads.update", {"status": "all"}),
    Case("GET /runs/{run_id}/stream", "threads.read", other=200),
    Case("GET /threads/{thread_id}/runs/{run_id}", "threads.read"),
    Case("DELETE /threads/{thread_id}/runs/{run_id}", "threads.delete"),
    Case("GET /threads/{thread_id}/runs/{run_id}/stream", "threads.read", other=200),
    Case(
        "GET /threads/{thread_id}/runs/{run_id}/stream",
        "threads.read threads.update",
        path="/threads/{thread}/runs/{run}/stream?cancel_on_disconnect=true",
        other=200,
    ),
    Case("GET /threads/{thread_id}/runs/{run_id}/join", "threads.read", other=200),
    Case(
        "GET /threads/{thread_id}/runs/{run_id}/join",
        "threads.read threads.update",
        path="/threads/{thread}/runs/{run}/join?cancel_on_disconnect=true",
        other=200,
    ),
    Case(
        "POST /threads/{thread_id}/runs/{run_id}/cancel",
        "threads.update",
        path="/threads/{waiting_thread}/runs/{waiting_run}/cancel",
    ),
    Case("POST /threads/{thread_id}/commands", START, {"id": 1, "method": "run.start", "params": RUN}, other=200),
    Case("POST /threads/{thread_id}/stream/events", "threads.read", {"channels": ["values"]}, endless=True),
    Case("GET /threads/{thread_id}/stream", "threads.read", endless=True),
    Case("PUT /store/items", "store.put", {**ITEM, "value": {"owner": "ada", "n": 1}}, other=403),
    Case("GET /store/items", "store.get", path="/store/items?namespace=a&key=k", other=200),
    Case("DELETE /store/items", "store.delete", ITEM, other=204),
    Case("POST /store/items/search", "store.search", {}, other=200),
    Case("POST /store/namespaces", "store.list_namespaces", {}, other=None),
)
NOT_ASKED = {
    "GET /ok": "tells nothing but that the process answers",
    "GET /ready": "tells nothing of what is kept",
    "GET /info": "tells nothing of what is kept",
    "GET /tools": "tells what the built-in agent is made of, nothing of what is kept",
    "GET /metrics": "counts, names nobody; who may see it is known, or it was made public",
}
"""Endpoints that no handler has a say in, and why."""
EMPTY = {
    "GET /sessions": {"items": [], "next": None},
    "GET /store/items": None,
    "POST /store/items/search": {"items": []},
}
"""What somebody with nothing finds."""


async def test_every_endpoint_is_known_here(service: Client) -> None:
    answer = await service.http.get("/openapi.json", headers={"authorization": "ada"})
    paths = answer.json()["paths"]
    endpoints = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    assert endpoints == {case.route for case in CASES} | NOT_ASKED.keys()


async def test_every_endpoint_asks_before_it_acts(people: People) -> None:
    for case in CASES:
        method, path, body = case.request(await things(people))
        answer = await people("ada", method, path, body, endless=case.endless)

        assert answer.status < 300, (case, answer)
        assert not _refused(answer), (case, answer)
        assert answer.what == set(case.asked), case


async def test_what_a_handler_refuses_is_not_done(people: People, tmp_path: Path) -> None:
    of = await things(people)
    before = kept(tmp_path / "data")
    for case in CASES:
        method, path, body = case.request(of)
        for what in case.asked:
            answer = await people("ada", method, path, body, deny=what)

            assert _refused(answer), (case, what, answer)
            assert kept(tmp_path / "data") == before, (case, what)


async def test_no_wire_format_gets_round_a_handler(people: People, tmp_path: Path) -> None:
    of = await things(people)
    before = kept(tmp_path / "data")
    swears = {"messages": [{"role": "user", "content": "I swear"}]}
    body = {"assistant_id": "agent", "input": swears}
    for path, given in (
        (f"/threads/{of.thread}/runs/wait", body),
        (f"/threads/{of.thread}/runs/stream", body),
        ("/runs", body),
        ("/runs/batch", [{**body, "input": SAID}, body]),
        ("/chat", {"message": "I swear", "session_id": of.thread}),
        ("/chat", {"message": "I swear", "stream": False}),
    ):
        answer = await people("ada", "POST", path, given)
        assert (answer.status, answer.body) == (402, {"detail": "That costs."}), path
    command = {"id": 1, "method": "run.start", "params": body}
    answer = await people("ada", "POST", f"/threads/{of.thread}/commands", command)
    assert answer.body == {"type": "error", "id": 1, "error": "unknown_error", "message": "402: That costs."}
    assert kept(tmp_path / "data") == before


async def test_what_a_filter_keeps_from_somebody_is_not_done_for_them(people: People, tmp_path: Path) -> None:
    of = await things(people)
    before = kept(tmp_path / "data")
    for case in CASES:
        if case.other is None:
            continue
        method, path, body = case.request(of)
        answer = await people("bob", method, path, body)

        assert answer.status == case.other, (case, answer)
        assert "ada" not in json.dumps(answer.body), (case, answer)
        assert "tok0" not in json.dumps(answer.body), (case, answer)
        if case.route in EMPTY:
            assert answer.body == EMPTY[case.route]
        elif case.route.endswith(("/search", "/count")):
            assert answer.body in ([], 0)
        assert kept(tmp_path / "data") == before, case


def _refused(answer: Answer) -> bool:
    if isinstance(answer.body, dict) and answer.body.get("type") == "error":
        return answer.status == 200 and answer.body["message"] == "403: Forbidden"
    return answer.status == 403


def kept(data_dir: Path) -> dict[str, list[Any]]:
    """Every row of every database."""
    rows: dict[str, list[Any]] = {}
    for file in sorted(data_dir.glob("*.db")):
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                rows[f"{file.name}/{table}"] = sorted(connection.execute(f'SELECT * FROM "{table}"'), key=repr)
        finally:
            connection.close()
    return rows


# Filters


async def test_a_filter_stands_beside_what_is_searched_for_and_totals_are_those_of_both(people: People) -> None:
    for who in ("ada", "bob", "ada", "ada"):
        for kind in ("open", "closed"):
            await people.get(who, "POST", "/threads", {"metadata": {"kind": kind}})
            body = {"graph_id": "agent", "metadata": {"kind": kind}}
            await people.get(who, "POST", "/assistants", body)
            await people.get(who, "POST", "/runs/crons", {"assistant_id": "agent", "schedule": NEW_YEAR, **body})

    for kind in ("threads", "assistants", "runs/crons"):
        page = {"metadata": {"kind": "open"}, "limit": 2, "offset": 0}
        first = await people("ada", "POST", f"/{kind}/search", page)
        last = await people("ada", "POST", f"/{kind}/search", {**page, "offset": 2})
        every = await people("admin", "POST", f"/{kind}/search", page)

        assert (len(first.body), len(last.body)) == (2, 1)
        assert [answer.headers["x-pagination-total"] for answer in (first, last, every)] == ["3", "3", "4"]
        assert first.headers["x-pagination-next"] == "2"
        assert "x-pagination-next" not in last.headers
        assert {one["metadata"]["owner"] for one in first.body + last.body} == {"ada"}
        assert await people.get("ada", "POST", f"/{kind}/count", {"metadata": {"kind": "open"}}) == 3


async def test_sessions_are_paged_by_what_the_filter_leaves(people: People) -> None:
    mine = [
        (await people.get("ada", "POST", "/chat", {"message": "hi", "stream": False}))["session_id"] for _ in range(3)
    ]
    other = (await people.get("bob", "POST", "/chat", {"message": "hi", "stream": False}))["session_id"]

    first = await people.get("ada", "GET", "/sessions?limit=2")
    rest = await people.get("ada", "GET", f"/sessions?limit=2&before={first['next']}")

    assert [item["session_id"] for item in first["items"] + rest["items"]] == mine[::-1]
    assert rest["next"] is None
    assert (await people("ada", "GET", f"/sessions?before={other}")).status == 404


async def test_a_thread_found_by_its_values_is_one_that_the_filter_leaves(people: People) -> None:
    for who in ("ada", "bob"):
        body = {"assistant_id": "agent", "input": SAID, "if_not_exists": "create", "on_completion": "keep"}
        await people.get(who, "POST", "/runs/wait", body)
    values = {"values": {"messages": [{"content": "hi"}]}}

    found = await people("ada", "POST", "/threads/search", values)
    every = await people("admin", "POST", "/threads/search", values)

    assert [thread["metadata"]["owner"] for thread in found.body] == ["ada"]
    assert [answer.headers["x-pagination-total"] for answer in (found, every)] == ["1", "2"]


async def test_cancelling_all_leaves_alone_what_the_filter_keeps_out(people: People) -> None:
    for who in ("ada", "bob"):
        thread = (await people.get(who, "POST", "/threads", {}))["thread_id"]
        body = {"assistant_id": "agent", "input": SAID, "after_seconds": 1000}
        await people.get(who, "POST", f"/threads/{thread}/runs", body)

    assert (await people("ada", "POST", "/runs/cancel", {"status": "all"})).status == 204
    async with asyncio.timeout(20):
        while (await people("ada", "POST", "/runs/cancel", {"status": "all"})).status != 404:
            await asyncio.sleep(0.05)
    assert (await people("bob", "POST", "/runs/cancel", {"status": "pending"})).status == 204


async def test_an_assistants_threads_go_with_it_if_they_may(people: People) -> None:
    of = await things(people)
    body = {"assistant_id": of.assistant, "input": SAID, "if_not_exists": "create"}
    await people.get("ada", "POST", f"/threads/{of.thread}/runs/wait", body)
    others = (await people.get("admin", "POST", "/threads", {}))["thread_id"]
    await people.get("admin", "POST", f"/threads/{others}/runs/wait", body)
    path = f"/assistants/{of.assistant}?delete_threads=true"

    assert (await people("ada", "DELETE", path, deny="threads.delete")).status == 403
    await people.get("ada", "GET", f"/assistants/{of.assistant}")
    await people.get("ada", "DELETE", path)
    assert (await people("admin", "GET", f"/threads/{of.thread}")).status == 404
    await people.get("admin", "GET", f"/threads/{others}")


async def test_the_graphs_own_assistants_are_whose_the_handlers_say(people: People) -> None:
    """Who may start a run may start one of a graph. Its assistant is seen and changed by whom a filter lets."""
    agent = f"/assistants/{system_assistant_id('agent')}"

    assert (await people("ada", "GET", agent)).status == 404
    assert (await people("ada", "PATCH", agent, {"name": "mine"})).status == 404
    assert (await people.get("admin", "PATCH", agent, {"name": "changed"}))["version"] == 2
    await people.get("ada", "POST", "/runs/wait", {"assistant_id": "agent", "input": SAID})


# What handlers are told, and what they change


async def test_handlers_are_told_what_the_table_says(people: People) -> None:
    of = await things(people)
    made = await people("ada", "POST", "/threads", {"metadata": {"a": 1}})
    read = await people("ada", "GET", f"/threads/{of.thread}/runs/{of.run}")
    said = await people("ada", "POST", "/chat", {"message": "hello", "session_id": of.thread, "stream": False})
    late = await people("ada", "POST", f"/threads/{of.waiting_thread}/runs/{of.waiting_run}/cancel?action=rollback")

    [create] = made.asked
    told = {"thread_id": made.body["thread_id"], "metadata": {"a": 1}, "if_exists": "raise"}
    assert create.value == told
    assert [question.value for question in read.asked] == [{"thread_id": of.thread, "run_id": of.run}]
    assert [question.value for question in late.asked] == [
        {
            "thread_id": of.waiting_thread,
            "action": "rollback",
            "metadata": {"run_ids": [of.waiting_run], "status": None},
        }
    ]
    run = said.asked[0].value
    assert {**run, "kwargs": None} == {
        "thread_id": of.thread,
        "assistant_id": system_assistant_id("agent"),
        "run_id": said.body["run_id"],
        "status": "pending",
        "metadata": {},
        "prevent_insert_if_inflight": False,
        "multitask_strategy": "enqueue",
        "if_not_exists": "reject",
        "after_seconds": 0,
        "kwargs": None,
    }
    message = {"role": "user", "content": "hello", "id": said.body["run_id"]}
    assert run["kwargs"]["input"] == {"messages": [message]}


async def test_what_a_handler_changes_is_what_is_done(people: People) -> None:
    body = {"assistant_id": "told", "input": SAID, "on_completion": "keep"}
    ran = await people.get("editor", "POST", "/runs/wait", body)
    [run_thread] = await people.get("admin", "POST", "/threads/search", {"metadata": {"edited": True}})
    [run] = await people.get("admin", "GET", f"/threads/{run_thread['thread_id']}/runs")
    chatted = await people.get("editor", "POST", "/chat", {"message": "hello", "stream": False})
    document = await people.get("admin", "GET", f"/sessions/{chatted['session_id']}")
    assistant = await people.get("editor", "POST", "/assistants", {"graph_id": "told"})
    cron = await people.get("editor", "POST", "/runs/crons", {"assistant_id": "told", "schedule": NEW_YEAR})

    assert ran["messages"][0]["content"] == document["messages"][0]["content"] == "as the handler has it"
    assert json.loads(ran["messages"][1]["content"]) == {"langgraph_auth_user_id": "editor", "tenant": "t1"}
    assert run["metadata"]["edited"] is True
    assert (assistant["name"], assistant["context"]) == ("named", {"tenant": "t2"})
    assert cron["schedule"] == "0 0 2 1 *"

    for kind in ("open", "closed", "open"):
        await people.get("admin", "POST", "/threads", {"metadata": {"kind": kind}})
    found = await people("editor", "POST", "/threads/search", {})
    assert [thread["metadata"] for thread in found.body] == [{"kind": "open"}]
    assert found.headers["x-pagination-total"] == "2"
    assert len((await people.get("editor", "GET", "/sessions"))["items"]) == 1


async def test_a_copy_is_its_makers(people: People) -> None:
    of = await things(people)
    copy = await people.get("admin", "POST", f"/threads/{of.thread}/copy")
    mine = await people.get("ada", "POST", f"/threads/{of.thread}/copy")

    edited = await people.get("editor", "POST", f"/threads/{of.thread}/copy")

    assert copy["metadata"]["owner"] == mine["metadata"]["owner"] == "ada"
    assert "edited" not in copy["metadata"]
    assert edited["metadata"]["edited"] is True
    assert len(copy["values"]["messages"]) == 2


# Graphs


async def test_a_graph_is_opened_for_who_looks_with_its_assistants_config(people: People) -> None:
    body = {"graph_id": "told", "config": {"configurable": {"tone": "calm"}}}
    assistant = (await people.get("ada", "POST", "/assistants", body))["assistant_id"]
    thread = (await people.get("ada", "POST", "/threads", {}))["thread_id"]
    await people.get("ada", "POST", f"/threads/{thread}/runs/wait", {"assistant_id": assistant, "input": SAID})
    people.project.opened()
    looks = (
        ("GET", f"/assistants/{assistant}/graph", None, "assistants.read"),
        ("GET", f"/assistants/{assistant}/schemas", None, "assistants.read"),
        ("GET", f"/assistants/{assistant}/subgraphs", None, "assistants.read"),
        ("GET", f"/threads/{thread}", None, "threads.read"),
        ("GET", f"/threads/{thread}/state", None, "threads.read"),
        ("POST", f"/threads/{thread}/history", {}, "threads.read"),
        ("POST", "/threads/search", {}, "threads.read"),
        ("GET", f"/sessions/{thread}/checkpoints", None, "threads.read"),
        ("POST", f"/threads/{thread}/state", {"values": SAID}, "threads.update"),
        ("POST", f"/threads/{thread}/runs/wait", {"assistant_id": assistant, "input": SAID}, "threads.create_run"),
    )
    for method, path, given, access in looks:
        await people.get("ada", method, path, given)
        opened = people.project.opened()

        assert opened[0] == {"access": access, "user": "ada", "id": "ada", "permissions": ["p"], "tone": "calm"}, path
        assert {(line["user"], line["tone"]) for line in opened} == {("ada", "calm")}

    await people.get("admin", "GET", f"/threads/{thread}/state")
    assert [line["user"] for line in people.project.opened()] == ["admin"]
    assert (await people.get("ada", "GET", f"/threads/{thread}"))["config"] == body["config"]


async def test_a_crons_runs_are_its_makers(start: Start, project: Guarded, tmp_path: Path) -> None:
    async with start(config=project.config) as service:
        people = People(service, project)
        body = {"assistant_id": "told", "schedule": NEW_YEAR, "input": SAID, "on_run_completed": "keep"}
        cron = await people.get("ada", "POST", "/runs/crons", body)
        shown = json.dumps(await people.get("admin", "POST", "/runs/crons/search", {}))
        assert "langgraph_auth" not in shown
        assert "permissions" not in shown
    async with open_database(tmp_path / "data" / "history.db") as database, database.writer.begin() as connection:
        due = (
            update(crons).where(crons.c.cron_id == cron["cron_id"]).values(next_run_at=datetime(2020, 1, 1, tzinfo=UTC))
        )
        await connection.execute(due)
    project.opened()
    async with start(config=project.config) as service:
        people = People(service, project)
        thread = await _idle(people)

        assert thread["metadata"]["owner"] == "ada"
        assert json.loads(thread["values"]["messages"][1]["content"])["langgraph_auth_user_id"] == "ada"
        assert [line for line in project.opened() if line["access"] == "threads.create_run"] == [
            {"access": "threads.create_run", "user": "ada", "id": "ada", "permissions": ["p"], "tone": None}
        ]


async def _idle(people: People) -> Any:
    """The one thread there is, once its run has ended."""
    async with asyncio.timeout(30):
        while True:
            found = await people.get("ada", "POST", "/threads/search", {"status": "idle"})
            if found and found[0]["values"]:
                return found[0]
            await asyncio.sleep(0.05)


# Strangers


async def test_a_stranger_is_told_what_this_is_and_no_more(service: Client) -> None:
    stranger = await service.http.get("/info")
    known = await service.http.get("/info", headers={"authorization": "ada"})

    assert stranger.status_code == 200
    assert stranger.json().keys() == {"version", "langgraph_py_version", "flags", "host"}
    assert known.json().keys() > stranger.json().keys()
    assert (await service.http.get("/threads/" + NOWHERE)).json() == {"detail": "Who are you?"}
