"""Keeps a history within limits, in small transactions beside those of the runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from threadline.domain.records import Limits, Pruned
from threadline.storage import pruning, snapshots
from threadline.storage.delta_cache import DeltaCache
from threadline.storage.pruning import Cut, Plan, Spot, Victim
from threadline.storage.readers import Readers
from threadline.storage.snapshots import Snapshot
from threadline.storage.sqlite_file import typed
from threadline.storage.writer import Writer

PATIENCE = 0.1
"""Seconds a transaction waits for the history database. Others wait behind it, so it rather gives up."""


Rebuild = Callable[[str, str, str | None], Awaitable[Mapping[str, Any]]]
"""The values at a checkpoint, asked by thread id, checkpoint id and graph id: only its graph can rebuild them."""


class HistoryPruner:
    """The `Pruner` port on a history.

    `records` is the history database. While checkpoints are removed it is locked for writing, so nobody can pin one
    or start a run from it at that moment. Without it nothing is pinned, and nothing may run on the thread meanwhile.

    `rebuild` gives the conversation at the oldest checkpoint that stays, which is then stored there. Without it, all
    stays that the conversation is rebuilt from. `thrifty` does so only where it is worth the bytes.
    """

    def __init__(
        self,
        readers: Readers,
        writer: Writer,
        cache: DeltaCache,
        serde: SerializerProtocol,
        *,
        records: Path | None,
        rebuild: Rebuild | None,
        thrifty: bool,
    ) -> None:
        self._readers = readers
        self._writer = writer
        self._cache = cache
        self._serde = serde
        self._records = records
        self._rebuild = rebuild
        self._thrifty = thrifty

    async def crowded(self, limits: Limits, *, now: datetime, after: str, count: int) -> list[tuple[str, int]]:
        return await self._readers.ask(
            partial(pruning.crowded, limits=limits, now=now, after=after, count=count), long=True
        )

    async def look(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        plan = await self._plan(thread_id, limits, now)
        return _pruned(plan, plan.victims, left=plan.size - len(plan.victims)) if plan is not None else None

    async def prune(self, thread_id: str, limits: Limits, *, now: datetime) -> Pruned | None:
        plan = await self._plan(thread_id, limits, now)
        if plan is None:
            return None
        taken = await self._take(plan) if plan.victims and await self._save(plan) else []
        if plan.victims and not taken:
            return None
        return _pruned(plan, taken, left=plan.size)

    async def cut(self, thread_id: str, checkpoint_ids: Collection[str]) -> Collection[str] | None:
        """Take these checkpoints and what subgraphs did under them: the end of a branch. The namespaces they were in.

        None if that cannot be done now: the thread is in use or has changed, or one of them is pinned. Raises Conflict
        if one that stays comes after them. Whole wherever it is broken off, as `prune` is.
        """
        plan = await self._readers.ask(partial(pruning.cut, thread_id=thread_id, going=checkpoint_ids), long=True)
        taken = await self._take(plan)
        await self.settle()
        if len(taken) < len(plan.victims):
            return None
        return {victim.checkpoint_ns for victim in taken}

    async def settle(self) -> None:
        await self._writer.change(lambda connection: None, scrubs=True)

    async def _plan(self, thread_id: str, limits: Limits, now: datetime) -> Plan | None:
        """None if the thread is in use."""
        busy, pins = await asyncio.to_thread(glance, self._records, thread_id)
        if busy:
            return None
        found = [taken async for taken in self._snapshots(thread_id, limits, now, pins)]

        def plan(connection: sqlite3.Connection) -> Plan:
            return pruning.plan(connection, thread_id, limits, now=now, pins=pins, snapshots=found)

        return await self._readers.ask(plan, long=True)

    async def _snapshots(
        self, thread_id: str, limits: Limits, now: datetime, pins: set[Spot]
    ) -> AsyncIterator[Snapshot]:
        if self._rebuild is None:
            return

        def cuts(connection: sqlite3.Connection) -> list[Cut]:
            return pruning.cuts(connection, thread_id, limits, now=now, pins=pins, thrifty=self._thrifty)

        for cut in await self._readers.ask(cuts, long=True):
            values = await self._rebuild(thread_id, cut.checkpoint_id, cut.graph_id)
            found = {channel: values[channel] for channel in cut.channels if channel in values}
            place = (thread_id, "", cut.checkpoint_id)
            taken = await self._readers.ask(
                partial(snapshots.take, place=place, values=found, serde=self._serde), long=True
            )
            if taken is not None:
                yield taken

    async def _save(self, plan: Plan) -> bool:
        """Write out the conversation where the plan relies on it, each in a transaction of its own."""
        for snapshot in plan.snapshots:
            if not await self._change(plan, partial(snapshots.save, thread_id=plan.thread_id, snapshot=snapshot)):
                return False
        return True

    async def _take(self, plan: Plan) -> list[Victim]:
        """Remove the plan's victims, part by part, as far as it goes. What is removed."""
        taken = list[Victim]()
        for part in plan.parts():
            if not await self._remove(plan, part):
                break
            taken += part
            for victim in part:
                plan.counts[victim.checkpoint_ns] -= 1
        return taken

    async def _remove(self, plan: Plan, part: list[Victim]) -> bool:
        going = {(victim.checkpoint_ns, victim.checkpoint_id) for victim in part}

        def remove(connection: sqlite3.Connection) -> bool:
            pruning.remove(connection, plan.thread_id, part)
            return True

        return await self._change(plan, remove, going=going)

    async def _change(
        self, plan: Plan, work: Callable[[sqlite3.Connection], bool], *, going: Collection[Spot] = ()
    ) -> bool:
        """One transaction; False if the thread has changed or is in use, or one of those that go was pinned."""
        hold = _Hold(self._records, names=plan.heeds_names)

        def change(connection: sqlite3.Connection) -> bool:
            held = hold.take(plan.thread_id)
            if held is None or not pruning.fits(connection, plan):
                return False
            busy, pins = held
            return not busy and pins.isdisjoint(going) and work(connection)

        try:
            return await self._writer.change(change)
        finally:
            hold.release()
            for checkpoint_ns in plan.counts:
                self._cache.forget((plan.thread_id, checkpoint_ns))


class _Hold:
    """The lock on the history database: taken in the writer's thread, released once the transaction is on disk."""

    def __init__(self, path: Path | None, *, names: bool) -> None:
        self._path = path
        self._names = names
        self._connection: sqlite3.Connection | None = None
        self._released = False

    def take(self, thread_id: str) -> tuple[bool, set[Spot]] | None:
        """Whether a run is unfinished on the thread, and its pins; None if the lock cannot be had now."""
        if self._released:  # nobody waits for the result any more
            return None
        if self._path is None or not self._path.exists():
            return False, set()
        self._connection = _connect(self._path)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            return _state(self._connection, thread_id, names=self._names)
        except sqlite3.OperationalError:
            return None

    def release(self) -> None:
        self._released = True
        if self._connection is not None:
            self._connection.close()


def glance(path: Path | None, thread_id: str) -> tuple[bool, set[Spot]]:
    """Whether a run is unfinished on a thread, and its pins, in the history database at `path`, if there is one."""
    if path is None or not path.exists():
        return False, set()
    try:
        with closing(_connect(path)) as connection:
            connection.execute("PRAGMA query_only=ON")
            return _state(connection, thread_id, names=True)
    except sqlite3.Error as error:
        raise typed(error) from error


def _state(connection: sqlite3.Connection, thread_id: str, *, names: bool) -> tuple[bool, set[Spot]]:
    """Whether a run is unfinished on a thread or it is being imported; what is pinned, by a pin or a branch's name.

    An old database lacks tables.
    """
    unfinished = "SELECT 1 FROM runs WHERE thread_id = ? AND status IN ('pending', 'running') LIMIT 1"
    arriving = "SELECT 1 FROM imports WHERE thread_id = ?"
    pinned = "SELECT checkpoint_ns, checkpoint_id FROM pins WHERE thread_id = ?"
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    asked = [query for name, query in (("runs", unfinished), ("imports", arriving)) if name in tables]
    busy = any(connection.execute(query, (thread_id,)).fetchone() is not None for query in asked)
    kept = set(connection.execute(pinned, (thread_id,))) if "pins" in tables else set[Spot]()
    if names and "branches" in tables:
        kept |= set(connection.execute("SELECT '', checkpoint_id FROM branches WHERE thread_id = ?", (thread_id,)))
    return busy, kept


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


def _pruned(plan: Plan, victims: Sequence[Victim], *, left: int) -> Pruned:
    return Pruned(plan.thread_id, len(victims), sum(victim.size for victim in victims), left)
