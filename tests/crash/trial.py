"""What every crash test does: begin lives on a file and a Redis, and finish what the last kill cut off."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from tests.contracts.conftest import RedisServer
from tests.crash.child import Order
from tests.crash.judge import Judge
from tests.crash.lives import Event, Lives

AT_ONCE = 8
"""Threads that take turns at the same time."""


@dataclass
class Trial:
    """Lives on one history and one Redis. `fault` names what is wrong with their saver, if anything is."""

    lives: Lives
    file: Path
    redis: RedisServer
    chance: random.Random
    fault: str = ""
    judge: Judge = field(default_factory=Judge)
    threads: list[str] = field(default_factory=list)

    def fill(self) -> None:
        """Let there be as many threads as take turns at the same time."""
        while len(self.threads) < AT_ONCE:
            self.threads.append(str(UUID(int=self.chance.getrandbits(128), version=4)))

    def life(self, threads: Sequence[str], *, ends: bool = False) -> Iterator[Event]:
        """A life that takes turns on these threads, or `ends` after the turns that were cut off. The judge hears it."""
        order = Order(
            life=self.judge.heard["born"],
            seed=self.chance.getrandbits(32),
            history=f"sqlite:///{self.file}",
            live=self.redis.url,
            threads=threads,
            ends=ends,
            fault=self.fault,
        )
        self.judge.begin()
        for event in self.lives.begin(order):
            self.judge.hear(event)
            yield event

    async def finish(self, threads: Sequence[str]) -> None:
        """Finish what was cut off, then look at all there is."""
        for event in self.life(threads, ends=True):
            last = event
        assert last.more["status"] == 0
        await self.judge.look(self.file, threads, all_over=True)
