"""Crons of the LangGraph Server API, by its own Python clients and, where the wire counts, without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient
from sqlalchemy import update

from tests.conftest import Start
from tests.service import ROOT, Client, Shared, shared
from threadline.domain.records import system_assistant_id
from threadline.storage.crons import SqlCrons
from threadline.storage.database import open_database
from threadline.storage.tables import crons

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"
NOWHERE = "00000000-0000-4000-8000-000000000000"
AGENT = system_assistant_id("agent")
NEW_YEAR = "0 0 1 1 *"
SAID = {"messages": [{"role": "user", "content": "hi"}]}
NO_ZONE = "Invalid timezone: '{}'. Use IANA timezone format (e.g. 'America/New_York')."
WRONG = (
    "Invalid cron schedule: '{}'. Reason: Invalid cron schedule. Ensure the schedule uses the standard cron format "
    "(minute hour day_of_month month day_of_week). Example: '*/5 * * * *' for every 5 minutes."
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def project(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    async with shared(tmp_path_factory.mktemp("shared"), config=PROJECT) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def service(project: Shared) -> AsyncIterator[Client]:
    async with project.caller() as client:
        yield client


@pytest.fixture
def sdk(service: Client) -> LangGraphClient:
    return get_client(url=str(service.http.base_url), api_key=service.http.headers["x-api-key"])


async def made(service: Client, path: str = "/runs/crons", **body: Any) -> Any:
    answer = await service.http.post(path, json={"assistant_id": "agent", "schedule": NEW_YEAR, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(service: Client, method: str = "POST", path: str = "/runs/crons", **body: Any) -> tuple[int, str]:
    given = {"assistant_id": "agent", "schedule": NEW_YEAR, **body} if method == "POST" else body
    answer = await service.http.request(method, path, json=given)
    return answer.status_code, answer.json()["detail"]


async def test_a_cron_is_shown_as_langgraph_shows_it(service: Client) -> None:
    cron = await made(service, input=SAID)

    cron_id, created = cron["cron_id"], cron["created_at"]
    year = datetime.now(UTC).year + 1
    assert cron == {
        "cron_id": cron_id,
        "assistant_id": AGENT,
        "thread_id": None,
        "user_id": cron["user_id"],
        "end_time": None,
        "schedule": NEW_YEAR,
        "timezone": None,
        "payload": {
            "assistant_id": AGENT,
            "schedule": NEW_YEAR,
            "input": SAID,
            "config": {"configurable": {"cron_id": cron_id}},
        },
        "next_run_date": f"{year}-01-01T00:00:00+00:00",
        "metadata": {},
        "on_run_completed": "delete",
        "enabled": True,
        "created_at": created,
        "updated_at": created,
    }
    assert (await service.json(f"/runs/crons/{cron_id}")) == cron


async def test_every_method_of_the_client(service: Client, sdk: LangGraphClient) -> None:
    thread_id = (await sdk.threads.create())["thread_id"]
    first: Any = await sdk.crons.create(
        "agent", schedule="0 9 * * mon-fri", timezone="Asia/Seoul", input=SAID, metadata={"n": 1}, enabled=False
    )
    second: Any = await sdk.crons.create_for_thread(
        thread_id, "agent", schedule="@daily", input=SAID, metadata={"n": 2}, end_time=datetime(2090, 1, 1, tzinfo=UTC)
    )

    assert datetime.fromisoformat(first["next_run_date"]).astimezone(ZoneInfo("Asia/Seoul")).hour == 9
    assert first["enabled"] is False
    assert second["thread_id"] == thread_id
    assert second["on_run_completed"] is None
    assert second["end_time"] == "2090-01-01T00:00:00+00:00"

    changed = await sdk.crons.update(second["cron_id"], schedule="0 5 * * *", end_time=None, metadata={"k": "v"})
    assert changed["end_time"] is None
    assert changed["schedule"] == changed["payload"]["schedule"] == "0 5 * * *"
    assert changed["next_run_date"][11:16] == "05:00"
    assert changed["metadata"] == {"n": 2, "k": "v"}
    assert changed["payload"]["config"]["configurable"] == {"cron_id": second["cron_id"]}

    assert [cron["cron_id"] for cron in await sdk.crons.search()] == [second["cron_id"], first["cron_id"]]
    assert [cron["cron_id"] for cron in await sdk.crons.search(thread_id=thread_id)] == [second["cron_id"]]
    assert [cron["cron_id"] for cron in await sdk.crons.search(enabled=False)] == [first["cron_id"]]
    assert await sdk.crons.search(metadata={"n": 2}, select=["cron_id"]) == [{"cron_id": second["cron_id"]}]
    by_time = await sdk.crons.search(assistant_id="agent", sort_by="created_at", sort_order="asc", limit=1)
    assert [cron["cron_id"] for cron in by_time] == [first["cron_id"]]
    assert await sdk.crons.count() == await sdk.crons.count(assistant_id=AGENT) == 2
    assert await sdk.crons.count(metadata={"n": 1}) == 1

    await sdk.crons.delete(first["cron_id"])
    assert await sdk.crons.count() == 1
    await sdk.threads.delete(thread_id)
    assert await sdk.crons.count() == 0


async def test_the_client_without_asyncio(service: Client) -> None:
    def use() -> None:
        with get_sync_client(url=str(service.http.base_url), api_key=service.http.headers["x-api-key"]) as client:
            thread_id = client.threads.create()["thread_id"]
            one: Any = client.crons.create("agent", schedule=NEW_YEAR, input=SAID, on_run_completed="keep")
            client.crons.create_for_thread(thread_id, "agent", schedule=NEW_YEAR, input=SAID)
            assert client.crons.update(one["cron_id"], enabled=False)["enabled"] is False
            assert len(client.crons.search()) == client.crons.count() == 2
            client.crons.delete(one["cron_id"])
            assert client.crons.count() == 1

    await asyncio.to_thread(use)


async def test_pages_of_a_search(service: Client) -> None:
    for number in range(3):
        await made(service, metadata={"n": number})

    first = await service.http.post("/runs/crons/search", json={"limit": 2})
    last = await service.http.post("/runs/crons/search", json={"limit": 2, "offset": 2, "select": ["metadata", "now"]})

    assert [cron["metadata"]["n"] for cron in first.json()] == [2, 1]
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("3", "2")
    assert last.json()[0].keys() == {"metadata", "now"}
    assert "x-pagination-next" not in last.headers


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        *[
            ({"schedule": schedule}, 422, WRONG.format(schedule))
            for schedule in ("nope", "* * * *", "61 * * * *", "0 0 30 2 *", "", "*/0 * * * *", "@never")
        ],
        (
            {"schedule": "* * * * * *"},
            422,
            "Invalid cron schedule: '* * * * * *'. Reason: A cron runs once a minute at most: five fields, "
            "without seconds.",
        ),
        *[
            (
                {"timezone": zone},
                422,
                f"Invalid timezone: '{zone}'. Use IANA timezone format (e.g. 'America/New_York').",
            )
            for zone in ("Mars/X", "../../etc/passwd", "America", "", "/etc/localtime", "a\0b")
        ],
        ({"assistant_id": "nope"}, 404, "Assistant 'nope' not found"),
        ({"assistant_id": NOWHERE}, 404, f"Assistant '{NOWHERE}' not found"),
        ({"webhook": "http://127.0.0.1:1/x"}, 422, "Webhook host blocked: loopback IP range"),
    ],
)
async def test_what_cannot_be_made(service: Client, body: dict[str, Any], status: int, detail: str) -> None:
    assert await refused(service, **body) == (status, detail)
    assert (await service.http.post("/runs/crons/count", json={})).json() == 0


async def test_what_is_refused_of_bodies_and_ids(service: Client) -> None:
    cron = await made(service)
    path = f"/runs/crons/{cron['cron_id']}"

    for field, value in (("on_run_completed", "nope"), ("end_time", "x"), ("schedule", "0" * 300), ("enabled", "x")):
        status, detail = await refused(service, **{field: value})
        assert (status, detail.partition(":")[0]) == (422, field)
    assert (await refused(service, context={"a": 1}, config={"configurable": {"b": 1}}))[0] == 400
    assert (await service.http.post("/runs/crons", json={"assistant_id": "agent"})).status_code == 422
    assert (await refused(service, path=f"/threads/{NOWHERE}/runs/crons"))[0] == 404
    assert await refused(service, path="/threads/xx/runs/crons") == (422, "Invalid thread ID: must be a UUID")
    assert await refused(service, "PATCH", path) == (400, "Request body cannot be empty")
    assert await refused(service, "PATCH", path, schedule="nope") == (422, WRONG.format("nope"))
    assert await refused(service, "PATCH", path, schedule=None) == (422, "schedule: must not be null")
    assert (await refused(service, "PATCH", path, webhook="/x"))[0] == 422
    assert await service.json(path) == cron
    for method in ("GET", "PATCH", "DELETE"):
        assert await refused(service, method, f"/runs/crons/{NOWHERE}", enabled=True) == (404, "Not Found")
        assert await refused(service, method, "/runs/crons/xx", enabled=True) == (
            422,
            "Invalid cron ID: must be a UUID",
        )
    for body in ({"limit": 0}, {"limit": 1001}, {"sort_by": "x"}, {"select": ["x"]}, {"thread_id": "x"}):
        assert (await refused(service, path="/runs/crons/search", **body))[0] == 422
    assert (await service.http.post("/runs/crons/search", json={"assistant_id": "xx"})).json() == {
        "detail": "Invalid assistant ID: must be a UUID"
    }


async def test_nobody_sees_anothers(start: Start) -> None:
    async with start(config=PROJECT, api_keys=["one", "two"]) as client:
        cron = await made(client)
        path = f"/runs/crons/{cron['cron_id']}"
        other = {"x-api-key": "two"}

        for method in ("GET", "PATCH", "DELETE"):
            answer = await client.http.request(method, path, json={"enabled": False}, headers=other)
            assert answer.status_code == 404
        assert (await client.http.post("/runs/crons/count", json={}, headers=other)).json() == 0
        assert await client.json(path) == cron


class Clock:
    """A history in which crons can be made due, between one start of the service and the next."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "history.db"

    async def turn(self, **ago: Any) -> None:
        """All crons have been due for so long."""
        async with open_database(self._path) as database, database.writer.begin() as connection:
            await connection.execute(update(crons).values(next_run_at=datetime.now(UTC) - timedelta(**ago)))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "data")


async def ran(client: Client, thread_id: str, *, runs: int) -> list[Any]:
    """The thread's runs, once there are so many and all have ended."""
    async with asyncio.timeout(20):
        while True:
            found: list[Any] = await client.json(f"/threads/{thread_id}/runs")
            if len(found) >= runs and all(run["status"] not in ("pending", "running") for run in found):
                return found
            await asyncio.sleep(0.02)


async def test_it_runs_when_it_is_due_and_once_for_all_that_was_missed(start: Start, clock: Clock) -> None:
    async with start(config=PROJECT) as client:
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        path = f"/threads/{thread_id}/runs/crons"
        cron = await made(client, path, schedule="0 * * * *", input=SAID, context={"a": 1}, metadata={"m": 1})
        await made(client, path, schedule="@hourly", input=SAID)
    await clock.turn(days=3)

    async with start(config=PROJECT) as client:
        runs = await ran(client, thread_id, runs=2)

        assert len(runs) == 2
        [one] = [run for run in runs if run["metadata"].get("m") == 1]
        assert one["status"] == "success"
        assert one["assistant_id"] == AGENT
        assert one["kwargs"]["config"]["configurable"] == {"cron_id": cron["cron_id"]}
        assert one["kwargs"]["context"] == {"a": 1}
        state = await client.json(f"/threads/{thread_id}/state")
        assert state["values"]["messages"][0]["content"] == "hi"
        after = await client.json(f"/runs/crons/{cron['cron_id']}")
        assert timedelta() < datetime.fromisoformat(after["next_run_date"]) - datetime.now(UTC) <= timedelta(hours=1)


@pytest.mark.parametrize("kept", [True, False])
async def test_without_a_thread_each_run_has_its_own(start: Start, clock: Clock, kept: bool) -> None:
    async with start(config=PROJECT) as client:
        await made(client, input=SAID, on_run_completed="keep" if kept else "delete")
        await made(client, input=SAID, on_run_completed="keep", metadata={"second": True})
    await clock.turn(seconds=1)

    async with start(config=PROJECT) as client:
        async with asyncio.timeout(20):
            while True:
                threads = (await client.http.post("/threads/search", json={})).json()
                if len(threads) == 1 + kept and all(thread["status"] == "idle" for thread in threads):
                    break
                await asyncio.sleep(0.02)


async def test_it_wakes_for_what_is_due_next(start: Start, tmp_path: Path) -> None:
    async with start(config=PROJECT) as client:
        assert client.context is not None
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        cron = await made(client, f"/threads/{thread_id}/runs/crons", input=SAID)
        due = datetime.now(UTC) + timedelta(seconds=0.3)
        async with open_database(tmp_path / "data" / "history.db") as database:
            await SqlCrons(database).change(cron["cron_id"], lambda kept: replace(kept, next_run_at=due))
        await made(client)  # whatever is made wakes the clock, which looks again

        [run] = await ran(client, thread_id, runs=1)

        late = datetime.fromisoformat(run["created_at"]) - due
        assert timedelta() <= late < timedelta(seconds=2)


async def test_what_is_off_or_over_does_not_run(start: Start, clock: Clock) -> None:
    async with start(config=PROJECT) as client:
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        path = f"/threads/{thread_id}/runs/crons"
        await made(client, path, input=SAID, enabled=False, metadata={"not": "this"})
        over = await made(client, path, input=SAID, end_time="2020-01-01T00:00:00Z", metadata={"not": "this"})
        assert over["next_run_date"] is None
        await made(client, path, input=SAID, metadata={"this": "one"})
    await clock.turn(seconds=1)

    async with start(config=PROJECT) as client:
        runs = await ran(client, thread_id, runs=1)
        assert [run["metadata"].get("this") for run in runs] == ["one"]
        assert (await client.json(f"/runs/crons/{over['cron_id']}"))["next_run_date"] is None


async def test_turned_on_again_it_makes_nothing_up(start: Start, clock: Clock) -> None:
    async with start(config=PROJECT) as client:
        cron = await made(client, enabled=False)
    await clock.turn(days=2)

    async with start(config=PROJECT) as client:
        answer = await client.http.patch(f"/runs/crons/{cron['cron_id']}", json={"enabled": True})
        assert answer.json()["next_run_date"] == cron["next_run_date"]


async def test_a_cron_whose_assistant_is_gone_is_turned_off(start: Start, clock: Clock, tmp_path: Path) -> None:
    project = tmp_path / "langgraph.json"
    graphs = PROJECT.with_name("graphs.py")
    project.write_text(f'{{"dependencies": ["."], "graphs": {{"a": "{graphs}:agent", "agent": "{graphs}:agent"}}}}')
    async with start(config=project) as client:
        gone = await made(client, assistant_id="a", input=SAID)
        stays = await made(client, input=SAID)
    await clock.turn(seconds=1)

    async with start(config=PROJECT) as client:
        async with asyncio.timeout(20):
            while (await client.json(f"/runs/crons/{gone['cron_id']}"))["enabled"]:
                await asyncio.sleep(0.02)
        assert (await client.json(f"/runs/crons/{stays['cron_id']}"))["enabled"]


async def test_one_that_makes_no_sense_any_more_holds_up_no_other(start: Start, clock: Clock, tmp_path: Path) -> None:
    async with start(config=PROJECT) as client:
        thread_id = (await client.http.post("/threads", json={})).json()["thread_id"]
        odd = await made(client)
        await made(client, f"/threads/{thread_id}/runs/crons", input=SAID)
    async with open_database(tmp_path / "data" / "history.db") as database:  # its zone is known no longer
        await SqlCrons(database).change(odd["cron_id"], lambda kept: replace(kept, timezone="Mars/X"))
    await clock.turn(seconds=1)

    async with start(config=PROJECT) as client:
        await ran(client, thread_id, runs=1)
        assert (await client.json(f"/runs/crons/{odd['cron_id']}"))["next_run_date"] is None


async def test_deleting_an_assistant_deletes_its_crons(service: Client, sdk: LangGraphClient) -> None:
    own = await sdk.assistants.create("agent")
    await made(service, assistant_id=own["assistant_id"])
    await sdk.assistants.delete(own["assistant_id"])

    assert await sdk.crons.count() == 0


async def test_info_says_there_are_crons(service: Client) -> None:
    assert (await service.json("/info"))["flags"]["crons"] is True
