"""The same requests to `langgraph dev` and to us, over a project with handlers: the same is asked, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.compat.comparison import ABSENT, Difference
from tests.compat.differences import Accepted
from tests.compat.peer import langgraph_dev
from tests.guarded import Answer, Guarded, ask, guarded
from tests.service import process

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

NOWHERE = "00000000-0000-4000-8000-000000000000"
AGENT = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
NEW_YEAR = "0 0 1 1 *"
SAID = {"messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Talk:
    """Asks one server and keeps, by name, what it said and what it asked."""

    http: httpx.AsyncClient
    project: Guarded
    answers: dict[str, Answer] = field(default_factory=dict)

    async def __call__(
        self, name: str, who: str, method: str, path: str, body: Any = None, *, deny: str = "", endless: bool = False
    ) -> Any:
        told = f"{name}, {who}{f' without {deny}' if deny else ''}"
        assert told not in self.answers
        answer = await ask(self.http, self.project, who, method, path, body, deny=deny, endless=endless)
        self.answers[told] = answer
        return answer.body

    async def refused(self, name: str, what: str, *request: Any, **options: Any) -> None:
        """The same by somebody whom the filter keeps out, and by one whom the handlers refuse each of `what`."""
        await self(name, "bob", *request, **options)
        for each in what.split():
            await self(name, "ada", *request, deny=each, **options)


async def talk(ask: Talk) -> None:
    for path in ("/ok", "/info", "/docs", "/metrics", "/threads/" + NOWHERE, "/nowhere"):
        await ask(f"stranger at {path}", "", "GET", path)
    thread = (await ask("create", "ada", "POST", "/threads", {}))["thread_id"]
    await ask("create", "ada", "POST", "/threads", {}, deny="threads.create")
    await ask("create again", "ada", "POST", "/threads", {"thread_id": thread, "if_exists": "do_nothing"})
    await ask("create again", "bob", "POST", "/threads", {"thread_id": thread, "if_exists": "do_nothing"})
    path = f"/threads/{thread}"
    assistant = (await ask("assistant", "ada", "POST", "/assistants", {"graph_id": "agent"}))["assistant_id"]
    run = {"assistant_id": assistant, "input": SAID}
    late = {**run, "after_seconds": 1000}
    await assistants(ask, f"/assistants/{assistant}", {"graph_id": "agent", "assistant_id": assistant})
    await searches(ask)
    await ask("by name", "ada", "POST", f"{path}/runs/wait", {**run, "assistant_id": "agent"})
    await states(ask, path)

    for name, runs, body in (("run", f"{path}/runs", late), ("stateless run", "/runs", run)):
        await ask.refused(name, "threads.create_run assistants.read", "POST", runs, body)
        await ask(name, "ada", "POST", runs, body)
    run_id = ask.answers["run, ada"].body["run_id"]
    for name, runs in (("on a thread", f"{path}/runs"), ("stateless", "/runs")):
        for kind in ("wait", "stream"):
            body = {**run, "multitask_strategy": "interrupt"}
            await ask.refused(f"{kind} {name}", "threads.create_run assistants.read", "POST", f"{runs}/{kind}", body)
            await ask(f"{kind} {name}", "ada", "POST", f"{runs}/{kind}", body)
    batch = [run, {**run, "assistant_id": "agent"}]
    await ask.refused("batch", "threads.create_run", "POST", "/runs/batch", batch)
    await ask("batch", "ada", "POST", "/runs/batch", batch)
    await ask("if it is not there", "ada", "POST", f"/threads/{NOWHERE}/runs/wait", {**run, "if_not_exists": "create"})
    await ask("the thread it made", "ada", "GET", f"/threads/{NOWHERE}")
    await ask("if it is not theirs", "bob", "POST", f"/threads/{NOWHERE}/runs/wait", {**run, "if_not_exists": "create"})
    await of_runs(ask, path, run_id)
    run_id = (await ask("another run", "ada", "POST", f"{path}/runs", late))["run_id"]
    await cancelling(ask, thread, run_id)
    await ask.refused("delete a run", "threads.delete", "DELETE", f"{path}/runs/{run_id}")
    await ask("delete a run", "ada", "DELETE", f"{path}/runs/{run_id}")

    started = {"id": 1, "method": "run.start", "params": run}
    await ask.refused("command", "threads.create_run assistants.read", "POST", f"{path}/commands", started)
    await ask("command", "ada", "POST", f"{path}/commands", started)
    await ask.refused("copy", "threads.read threads.create", "POST", f"{path}/copy")
    await ask("copy", "ada", "POST", f"{path}/copy")
    await crons(ask, path, assistant)
    await ask.refused("prune", "threads.delete", "POST", "/threads/prune", {"thread_ids": [thread]})
    await ask.refused("delete", "threads.delete", "DELETE", path)
    await ask("delete", "ada", "DELETE", path)
    await ask("prune", "ada", "POST", "/threads/prune", {"thread_ids": [NOWHERE]})
    await ask.refused("delete an assistant", "assistants.delete", "DELETE", f"/assistants/{assistant}")
    await ask("delete an assistant", "ada", "DELETE", f"/assistants/{assistant}")


async def assistants(ask: Talk, path: str, same: Any) -> None:
    await ask("assistant", "ada", "POST", "/assistants", {"graph_id": "agent"}, deny="assistants.create")
    for who in ("ada", "bob"):
        await ask("assistant again", who, "POST", "/assistants", {**same, "if_exists": "do_nothing"})
    for name, method, place, body, what in (
        ("get", "GET", "", None, "read"),
        ("patch", "PATCH", "", {"name": "x"}, "update"),
        ("versions", "POST", "/versions", {}, "read"),
        ("latest", "POST", "/latest", {"version": 1}, "update"),
        ("graph", "GET", "/graph", None, "read"),
        ("schemas", "GET", "/schemas", None, "read"),
        ("subgraphs", "GET", "/subgraphs", None, "read"),
    ):
        await ask.refused(f"assistant: {name}", f"assistants.{what}", method, f"{path}{place}", body)
        await ask(f"assistant: {name}", "ada", method, f"{path}{place}", body)
    for who in ("ada", "admin"):
        await ask("a graph's own assistant", who, "GET", f"/assistants/{AGENT}")
    await ask("change a graph's own assistant", "admin", "PATCH", f"/assistants/{AGENT}", {"name": "changed"})


async def searches(ask: Talk) -> None:
    for kind in ("threads", "assistants", "runs/crons"):
        for sort in ("search", "count"):
            what = f"{kind.removeprefix('runs/')}.search"
            await ask.refused(f"{kind} {sort}", what, "POST", f"/{kind}/{sort}", {})
            for who in ("ada", "admin", "editor"):
                await ask(f"{kind} {sort}", who, "POST", f"/{kind}/{sort}", {})


async def states(ask: Talk, path: str) -> None:
    at = {"checkpoint": {"checkpoint_id": NOWHERE}}
    for name, method, place, body, what in (
        ("get", "GET", "", None, "read"),
        ("patch", "PATCH", "", {"metadata": {"a": 1}}, "update"),
        ("state", "GET", "/state", None, "read"),
        ("update state", "POST", "/state", {"values": SAID}, "update"),
        ("state at", "GET", f"/state/{NOWHERE}", None, "read"),
        ("state at checkpoint", "POST", "/state/checkpoint", at, "read"),
        ("history", "GET", "/history", None, "read"),
        ("search history", "POST", "/history", {}, "read"),
    ):
        await ask.refused(name, f"threads.{what}", method, f"{path}{place}", body)
        await ask(name, "ada", method, f"{path}{place}", body)
    for name, method, place, body in (
        ("thread stream", "GET", "/stream", None),
        ("events", "POST", "/stream/events", {"channels": ["values"]}),
    ):
        await ask.refused(name, "threads.read", method, f"{path}{place}", body, endless=True)
        await ask(name, "ada", method, f"{path}{place}", body, endless=True)


async def of_runs(ask: Talk, path: str, run_id: str) -> None:
    for name, place, what in (
        ("runs", "", "threads.read threads.search"),
        ("get a run", f"/{run_id}", "threads.read"),
        ("join", f"/{run_id}/join", "threads.read"),
        ("join a stream", f"/{run_id}/stream", "threads.read"),
    ):
        await ask.refused(name, what, "GET", f"{path}/runs{place}")
        await ask(name, "ada", "GET", f"{path}/runs{place}")


async def cancelling(ask: Talk, thread: str, run_id: str) -> None:
    named = {"thread_id": thread, "run_ids": [run_id]}
    for name, path, body in (
        ("cancel many", "/runs/cancel", named),
        ("cancel all", "/runs/cancel", {"status": "all"}),
        ("cancel", f"/threads/{thread}/runs/{run_id}/cancel", None),
    ):
        await ask.refused(name, "threads.update", "POST", path, body)
    await ask("cancel and wait", "ada", "POST", f"/threads/{thread}/runs/{run_id}/cancel?wait=true")


async def crons(ask: Talk, thread: str, assistant: str) -> None:
    body = {"assistant_id": assistant, "schedule": NEW_YEAR, "input": {}, "metadata": {"k": 1}}
    cron = (await ask("cron", "ada", "POST", "/runs/crons", body))["cron_id"]
    await ask.refused("cron", "crons.create assistants.read", "POST", "/runs/crons", body)
    await ask("cron on a thread", "ada", "POST", f"{thread}/runs/crons", body)
    theirs = {**body, "assistant_id": "agent"}
    await ask.refused("cron on a thread", "crons.create threads.read", "POST", f"{thread}/runs/crons", theirs)
    path = f"/runs/crons/{cron}"
    change = {"schedule": "0 0 2 1 *", "metadata": {"z": 1}}
    for name, method, given, what in (
        ("get a cron", "GET", None, "read"),
        ("patch a cron", "PATCH", change, "update"),
        ("delete a cron", "DELETE", None, "delete"),
    ):
        await ask.refused(name, f"crons.{what}", method, path, given)
        await ask(name, "ada", method, path, given)


# What they are told apart by


def more_of_us(difference: Difference) -> bool:
    """Handlers are told all that they are told there, and more."""
    return set(difference.theirs) < set(difference.ours) if difference.theirs != ABSENT else False


def asked_there(difference: Difference) -> bool:
    return bool(difference.ours == ABSENT)


def words(difference: Difference) -> bool:
    return isinstance(difference.ours, str) and isinstance(difference.theirs, str)


ACCEPTED = (
    Accepted("what the service keeps is told to nobody unknown", "stranger at /(docs|metrics), /(status|detail)"),
    Accepted("where a run is meant, it is named", ".*/asked/threads.read", more_of_us),
    Accepted("a copy's metadata can be marked", "copy, .*/asked/threads.create", more_of_us),
    Accepted("a copy of what is not theirs is not made", "copy, bob/(status|detail)", lambda d: True),
    Accepted(
        "what shows nothing of a thread need not be read",
        "(update state|cancel and wait|command).*/asked/threads.read",
        asked_there,
    ),
    Accepted(
        "of what is refused, no more needs to be asked",
        "(.*, bob|.* without .*)/asked/.*",
        lambda difference: ABSENT in (difference.ours, difference.theirs),
    ),
    Accepted(
        "deleting an assistant leaves its runs alone", "delete an assistant, ada/asked/threads.update", asked_there
    ),
    Accepted("a search for crons asks of crons", "runs/crons .*/asked/threads.search", asked_there),
    Accepted("pruning asks of each thread", "prune, .*/asked/threads.delete"),
    Accepted("pruning passes over what is not theirs", "prune, bob/(status|detail)"),
    Accepted("who may not join is told by the status", "(join a stream|thread stream|events), .*/(status|detail)"),
    Accepted("a run of another's thread is told as unknown", "join, bob/(status|detail)"),
    Accepted("a cron's thread is asked for by its id", "cron on a thread, .*/asked/threads.read"),
    Accepted("things are told to be missing in words of one kind", ".*/detail", words),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Talk, Talk]]:
    """The talk with us and with `langgraph dev`."""
    folder: Path = tmp_path_factory.mktemp("asked")
    mine, other = guarded(folder / "ours" / "project"), guarded(folder / "theirs" / "project")
    async with (
        langgraph_dev(other.folder) as peer,
        process(folder / "ours" / "data", "--config", str(mine.config)) as (_, ours),
        httpx.AsyncClient(base_url=str(peer.http.client.base_url), timeout=60) as theirs,
    ):
        talks = Talk(ours.http, mine), Talk(theirs, other)
        await asyncio.gather(*(talk(one) for one in talks))
        yield talks


def differences(both: tuple[Talk, Talk]) -> list[Difference]:
    ours, theirs = both
    assert list(ours.answers) == list(theirs.answers)
    found: list[Difference] = []
    for name, mine in ours.answers.items():
        other = theirs.answers[name]
        told: Sequence[tuple[str, Any, Any]] = (
            ("status", mine.status, other.status),
            ("detail", _detail(mine), _detail(other)),
            *((f"asked/{what}", _keys(mine, what), _keys(other, what)) for what in sorted(mine.what | other.what)),
            *((place, mine.headers.get(place), other.headers.get(place)) for place in ("x-pagination-next",)),
        )
        found += [Difference(f"{name}/{place}", one, two) for place, one, two in told if one != two]
    return found


def _detail(answer: Answer) -> Any:
    """The words of a refusal; what a count or a search comes to."""
    if isinstance(answer.body, Mapping) and answer.body.get("type") == "error":
        return answer.body["message"]
    if answer.status >= 400:
        return answer.body["detail"]
    return len(answer.body) if isinstance(answer.body, list) else answer.body if isinstance(answer.body, int) else None


def _keys(answer: Answer, what: str) -> Any:
    """All that a handler was told under any of the questions of this kind."""
    keys = {key for question in answer.asked if question.what == what for key in question.value}
    return sorted(keys) if what in answer.what else ABSENT


def reason_of(difference: Difference) -> str | None:
    return next((accepted.reason for accepted in ACCEPTED if accepted.covers(difference)), None)


async def test_the_same_is_asked_and_answered(both: tuple[Talk, Talk]) -> None:
    unexplained = [difference for difference in differences(both) if reason_of(difference) is None]
    assert not unexplained, "\n".join(map(str, unexplained))


@pytest.mark.parametrize("accepted", ACCEPTED, ids=[accepted.reason for accepted in ACCEPTED])
async def test_every_accepted_difference_is_one(both: tuple[Talk, Talk], accepted: Accepted) -> None:
    assert any(accepted.covers(difference) for difference in differences(both))
