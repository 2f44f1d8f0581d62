"""Nothing is lost when the process that serves turns is killed, and nothing that is finished is done again.

`judge.py` says what that means. The moment of each kill is an event the child tells, drawn by chance; where it was
when it died is read from all it told until then.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.contracts.conftest import RedisServer
from tests.crash.child import FAULTS
from tests.crash.judge import BETWEEN, ELSEWHERE, INSIDE
from tests.crash.lives import Lives
from tests.crash.trial import Trial

TURNS = 12
"""After so many a thread makes room for a new one, so that a long test costs no more a round than a short one."""
EVENTS = {"enter": 48, "writing": 10, "written": 16, "putting": 16, "kept": 4, "": 6}
"""What a kill follows, and how often of a hundred; "" is any event at all."""
FAR = 60
"""How many such events a life may live to see."""
WIPED = 0.2
"""How likely Redis is wiped between two lives; else the next one finds what the last one left."""


@dataclass
class Kills(Trial):
    """Kills round after round, and where they hit."""

    retired: list[str] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    at_work: Counter[str] = field(default_factory=Counter)
    half_done: int = 0

    async def round(self) -> None:
        """A life that ends by a kill, and a look at what it left."""
        self.retired += [thread for thread in self.threads if self.judge.of(thread).sent >= TURNS]
        self.threads = [thread for thread in self.threads if self.judge.of(thread).sent < TURNS]
        self.fill()
        if self.chance.random() < WIPED:
            with self.redis.client() as client:
                client.flushall()
        self._live()
        await self.judge.look(self.file, self.threads)

    async def end(self) -> None:
        await self.finish([*self.retired, *self.threads])

    def _live(self) -> None:
        [wanted] = self.chance.choices(list(EVENTS), list(EVENTS.values()))
        far, aimed = self.chance.randrange(FAR), None
        for event in self.life(self.threads):
            far -= wanted in ("", event.what)
            if aimed is None and (far < 0 or self.judge.faults):
                self.lives.kill()
                aimed = event.thread
        assert event.more["status"] == -SIGKILL, self.lives.errors.read_text()[-2000:]
        talks = [self.judge.of(thread) for thread in self.threads]
        self.hit[self.judge.of(aimed).where if aimed else ELSEWHERE] += 1
        self.at_work.update(talk.where for talk in talks)
        self.half_done += sum(talk.half_done for talk in talks)


@pytest.fixture
def kills(lives: Lives, redis: RedisServer, seed: int, tmp_path: Path) -> Kills:
    return Kills(lives, tmp_path / "history.sqlite", redis, random.Random(seed))


@pytest.mark.parametrize(
    "rounds", [50, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(1800)])], ids="{} rounds".format
)
async def test_no_turn_is_lost_and_no_finished_step_runs_twice(
    kills: Kills, seed: int, rounds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(rounds):
        await kills.round()
        assert kills.judge.faults == []
    await kills.end()
    assert kills.judge.faults == []

    heard = kills.judge.heard
    with capsys.disabled():
        print(
            f"\n{rounds} kills (seed {seed}): {told(kills.hit)}; turns cut off: {told(kills.at_work)},"
            f" {kills.half_done} half done; {heard['acknowledged']} turns acknowledged, {heard['resume']} resumed,"
            f" {heard['leave']} steps done; 0 turns lost, 0 finished steps done again"
        )
    assert kills.hit.total() == rounds
    assert kills.hit[INSIDE] + kills.hit[BETWEEN] >= 0.6 * rounds
    assert kills.half_done > 0
    assert heard["acknowledged"] > rounds


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_saver_that_is_wrong_is_found_out(kills: Kills, fault: str) -> None:
    """The test above can fail: it does, and soon, with each of these faults."""
    kills.fault = fault
    for _ in range(30):
        await kills.round()
        if kills.judge.faults:
            return
    pytest.fail(f"nothing was found wrong with a saver that {fault}")


def told(where: Counter[str]) -> str:
    return ", ".join(f"{count} {place}" for place, count in where.most_common())
