"""What the crash tests stand on: a Redis, a history file, and a process that may be killed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.conftest import _shared_server, own_redis, redis
from tests.crash.lives import Lives

__all__ = ["_shared_server", "own_redis", "redis"]


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    with Lives(tmp_path / "child.stderr") as server:
        yield server


@pytest.fixture
def seed() -> int:
    """Another one each time; `CRASH_SEED` repeats one."""
    chosen = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CRASH_SEED={chosen}")
    return chosen
