"""Fixtures every kind of test may use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from tests.service import Client, Shared, running, shared
from tests.stubs.model_server import ModelStub
from threadline.app.project import SHARED_NAMES

Start = Callable[..., AbstractAsyncContextManager[Client]]

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
"""Bytes that must be free in memory, so that the tests' files may lie there: nobody then waits for a disk."""


def pytest_configure() -> None:
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(autouse=True)
def unchanged_imports() -> Iterator[None]:
    """Undo what loading somebody's project does to this process's imports: the next test may load another."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in [name for name in sys.modules if name.partition(".")[0] in SHARED_NAMES]:
        del sys.modules[name]
    sys.modules.update({name: module for name, module in modules.items() if name not in sys.modules})


together = pytest.mark.asyncio(loop_scope="session")
"""For a test that uses `caller`."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def everybodys(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """One service as it comes, but with keys, for all tests that need none of their own."""
    async with shared(tmp_path_factory.mktemp("everybodys")) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def caller(everybodys: Shared) -> AsyncIterator[Client]:
    """Somebody who has never asked that service before."""
    async with everybodys.caller() as client:
        yield client


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the service with some settings; two starts in one test share the data directory."""
    return partial(running, tmp_path / "data")


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Client]:
    """The service as it comes: embedded Redis, SQLite, the offline model."""
    async with start() as client:
        yield client


@pytest.fixture
async def model() -> AsyncIterator[ModelStub]:
    """A scripted OpenAI-compatible server on loopback."""
    async with ModelStub() as stub:
        yield stub


@pytest.fixture
async def scripted(start: Start, model: ModelStub) -> AsyncIterator[Client]:
    """The service with the scripted model."""
    async with start(openai_base_url=model.url, model="stub") as client:
        yield client
