"""A service over the test project, and the Python client's two flavours."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.compat.sdk import Sdk
from tests.conftest import Start
from tests.service import ROOT, Client

PROJECT = ROOT / "tests" / "projects" / "server" / "langgraph.json"


@pytest.fixture
async def server(start: Start) -> AsyncIterator[Client]:
    async with start(config=PROJECT) as client:
        yield client


@pytest.fixture(params=["async", "sync"])
def sdk(server: Client, request: pytest.FixtureRequest) -> Sdk:
    return Sdk(str(server.http.base_url), request.param)
