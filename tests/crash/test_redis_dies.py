"""No turn notices that Redis is killed, started again or wiped while turns are served.

After every turn the child reads the thread's state through the live tier, and the judge compares it with the turns that
were sent: an older state, a turn that fails or one that is lost is a fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.conftest import RedisServer, running_redis
from tests.crash.lives import Lives
from tests.crash.trial import AT_ONCE, Trial

FRESH = 3
"""Outages after which the load begins on new threads: long ones would only be slow."""


class Load(Trial):
    """One life after the other that serves turns until it is stopped."""

    def begin(self) -> None:
        """Take turns on new threads."""
        self.threads = []
        self.fill()
        self._life = self.life(self.threads)
        self.turn_on_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Listen until something has come about, or a fault was found."""
        while not condition() and not self.judge.faults:
            next(self._life)

    def turn_on_all(self) -> None:
        """Listen until every thread has begun a turn and finished it."""
        begun = {thread: self.judge.of(thread).sent for thread in self.threads}
        self.until(lambda: all(self.judge.of(thread).read > begun[thread] for thread in self.threads))

    def hit(self) -> None:
        """Listen until Redis has answered as often as there are threads."""
        before = self.judge.hits
        self.until(lambda: self.judge.hits >= before + AT_ONCE)

    async def end(self) -> None:
        """Kill it and finish what was cut off in another life."""
        self.lives.kill()
        for _ in self._life:
            pass
        await self.judge.look(self.file, self.threads)
        await self.finish(self.threads)


@pytest.fixture(params=["kept", "lost"])
def mortal_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis whose data, when it is killed, is kept or lost."""
    with running_redis(keeps=request.param == "kept") as server:
        yield server
        assert server.lasting() == set()


@pytest.mark.parametrize(
    "outages", [6, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids="{} outages".format
)
async def test_redis_is_killed_and_started_again(
    lives: Lives, mortal_redis: RedisServer, seed: int, tmp_path: Path, outages: int
) -> None:
    load = Load(lives, tmp_path / "history.sqlite", mortal_redis, random.Random(seed))
    for number in range(outages):
        if number % FRESH == 0:
            load.begin()
        load.hit()
        outage(load)
        load.hit()
        assert load.judge.faults == []
        if number % FRESH == FRESH - 1:
            await load.end()
            assert load.judge.faults == []


@pytest.mark.parametrize(
    "wipes", [40, pytest.param(400, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids="{} wipes".format
)
async def test_redis_is_wiped(lives: Lives, redis: RedisServer, seed: int, tmp_path: Path, wipes: int) -> None:
    load = Load(lives, tmp_path / "history.sqlite", redis, random.Random(seed))
    for number in range(wipes):
        if number % 20 == 0:
            load.begin()
        heard = load.judge.heard.total() + load.chance.randrange(100)
        load.until(lambda heard=heard: load.judge.heard.total() >= heard)
        with redis.client() as client:
            client.flushall()
        assert load.judge.faults == []
        if number % 20 == 19:
            load.hit()
            await load.end()
            assert load.judge.faults == []


async def test_a_saver_that_believes_redis_is_found_out(lives: Lives, seed: int, tmp_path: Path) -> None:
    """The tests above can fail: a Redis that kept what it had when it was killed does hold older states."""
    with running_redis(keeps=True) as server:
        load = Load(lives, tmp_path / "history.sqlite", server, random.Random(seed), fault="believes redis")
        for _ in range(10):
            load.begin()
            outage(load)
            load.turn_on_all()
            await load.end()
            if load.judge.faults:
                return
    pytest.fail("nothing was found wrong")


def outage(load: Load) -> None:
    """Redis is killed, turns are taken without it, and it is started again."""
    load.redis.kill()
    load.turn_on_all()
    load.redis.start()
