"""One lock for each thread: starting a run on it, editing its state and deleting it wait for one another."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Gates:
    """A lock is there for as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, thread_id: str) -> asyncio.Lock:
        return self._locks.setdefault(thread_id, asyncio.Lock())
