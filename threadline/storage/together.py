"""Asking for many callers at once: what comes while one round trip is under way shares the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST = 128
"""Items in one round trip, at most."""
MOST_BYTES = 4 * 2**20
"""Bytes after which a round trip takes no further item, so that it does not run into a timeout."""


class Together(Generic[Item, Answer]):
    """Calls `ask` with the items of many callers; each gets the answer to its own, or None if there was none at all."""

    def __init__(
        self, ask: Callable[[Sequence[Item]], Awaitable[Sequence[Answer] | None]], *, size: Callable[[Item], int]
    ) -> None:
        self._ask = ask
        self._size = size
        self._brought: list[tuple[Item, asyncio.Future[Answer | None]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer | None:
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._brought.append((item, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._rounds())
        return await answer

    async def aclose(self) -> None:
        """Wait until everybody has an answer."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    async def _rounds(self) -> None:
        try:
            while self._brought:
                await self._round(self._next())
        finally:
            self._asking = None

    def _next(self) -> list[tuple[Item, asyncio.Future[Answer | None]]]:
        size = count = 0
        for item, _ in self._brought[:MOST]:
            count += 1
            size += self._size(item)
            if size > MOST_BYTES:
                break
        brought, self._brought = self._brought[:count], self._brought[count:]
        return brought

    async def _round(self, brought: Sequence[tuple[Item, asyncio.Future[Answer | None]]]) -> None:
        try:
            answers = await self._ask([item for item, _ in brought])
        except Exception as error:  # belongs to those who asked
            for _, answer in brought:
                if not answer.done():
                    answer.set_exception(error)
            return
        for place, (_, answer) in enumerate(brought):
            if not answer.done():
                answer.set_result(answers[place] if answers is not None else None)
