"""The same requests to `langgraph dev` and to us: the same answers, but for the differences that are meant."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.compat.comparison import Difference, differences
from tests.compat.differences import ACCEPTED, reason_of
from tests.compat.exchanges import Asked, Exchange
from tests.compat.peer import langgraph_dev
from tests.compat.talks import TALKS
from tests.service import ROOT, process

PROJECT = ROOT / "tests" / "projects" / "server"
STUDIO = "https://smith.langchain.com"
AT_ONCE = 6
TALK_SECONDS = 60

Answers = Mapping[str, list[Exchange]]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

ENDPOINTS = """
GET /ok
GET /
GET /info
GET /metrics
GET /docs
GET /openapi.json
OPTIONS /assistants/search
POST /assistants
POST /assistants/search
POST /assistants/count
GET /assistants/{}
PATCH /assistants/{}
DELETE /assistants/{}
GET /assistants/{}/graph
GET /assistants/{}/schemas
GET /assistants/{}/subgraphs
GET /assistants/{}/subgraphs/child
POST /assistants/{}/versions
POST /assistants/{}/latest
POST /threads
GET /threads/{}
PATCH /threads/{}
DELETE /threads/{}
POST /threads/search
POST /threads/count
POST /threads/{}/copy
GET /threads/{}/state
POST /threads/{}/state
GET /threads/{}/state/{}
POST /threads/{}/state/checkpoint
GET /threads/{}/history
POST /threads/{}/history
POST /threads/{}/runs
POST /threads/{}/runs/stream
POST /threads/{}/runs/wait
GET /threads/{}/runs
GET /threads/{}/runs/{}
DELETE /threads/{}/runs/{}
GET /threads/{}/runs/{}/stream
GET /threads/{}/runs/{}/join
POST /threads/{}/runs/{}/cancel
POST /threads/{}/commands
POST /threads/{}/stream/events
GET /threads/{}/stream
POST /runs
POST /runs/stream
POST /runs/wait
POST /runs/batch
POST /runs/cancel
PUT /store/items
GET /store/items
DELETE /store/items
POST /store/items/search
POST /store/namespaces
POST /runs/crons
POST /threads/{}/runs/crons
POST /runs/crons/search
POST /runs/crons/count
PATCH /runs/crons/{}
DELETE /runs/crons/{}
"""
"""What clients need, by method and path."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Answers, Answers]]:
    """What we and `langgraph dev` answer to all talks."""
    folder: Path = tmp_path_factory.mktemp("differ")
    project = shutil.copytree(PROJECT, folder / "project")
    config = ("--config", str(PROJECT / "langgraph.json"))
    async with (
        langgraph_dev(project) as peer,
        process(folder / "data", *config, THREADLINE_CORS_ORIGINS=STUDIO) as (_, ours),
        httpx.AsyncClient(base_url=str(peer.http.client.base_url), timeout=60) as theirs,
    ):
        mine, other = await asyncio.gather(_held(ours.http), _held(theirs))
        yield mine, other


async def _held(http: httpx.AsyncClient) -> Answers:
    """All talks with one server, a few at a time."""
    free = asyncio.Semaphore(AT_ONCE)
    kept: dict[str, list[Exchange]] = {}

    async def hold(name: str) -> None:
        async with free:
            asked = Asked(http)
            try:
                async with asyncio.timeout(TALK_SECONDS):
                    await TALKS[name](asked)
            except Exception as error:
                broken = f"{error!r} with {http.base_url}, after {asked.exchanges[-1:]}"
                asked.exchanges.append(Exchange("broke off", "", 0, {}, broken))
            kept[name] = asked.exchanges

    async with asyncio.TaskGroup() as talks:
        for name in TALKS:
            talks.create_task(hold(name))
    return kept


def found(answers: tuple[Answers, Answers], talk: str) -> list[Difference]:
    ours, theirs = answers
    return differences(talk, ours[talk], theirs[talk])


@pytest.mark.parametrize("talk", sorted(TALKS))
async def test_no_difference_but_those_that_are_meant(answers: tuple[Answers, Answers], talk: str) -> None:
    unexplained = [difference for difference in found(answers, talk) if reason_of(difference) is None]
    assert not unexplained, "\n".join(map(str, unexplained))


@pytest.mark.parametrize("accepted", ACCEPTED, ids=[f"{number} {a.reason}" for number, a in enumerate(ACCEPTED)])
async def test_every_accepted_difference_is_one(answers: tuple[Answers, Answers], accepted: object) -> None:
    """A table that says more than what is so would hide what comes later."""
    assert any(accepted.covers(difference) for talk in TALKS for difference in found(answers, talk))  # type: ignore[attr-defined]


async def test_every_endpoint_is_reached(answers: tuple[Answers, Answers]) -> None:
    reached = {exchange.route for exchanges in answers[0].values() for exchange in exchanges}
    assert set(ENDPOINTS.split("\n")) - {""} <= reached
