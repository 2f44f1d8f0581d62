"""The history of every thread: LangGraph's own SQLite saver and schema, and the few questions asked beyond it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.checkpoint.sqlite.utils import load_pending_writes

from threadline.domain.errors import Conflict, Invalid
from threadline.storage.serde import strict_serializer

BUSY_TIMEOUT = 5.0
"""Seconds a statement waits for another process's write."""
PAGE = 100
"""Checkpoints read at once while listing."""


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint as it is stored: serialized, so that a copy of it is the same to the byte."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    type: str
    checkpoint: bytes
    metadata: bytes

    @classmethod
    def write(
        cls, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, serde: SerializerProtocol
    ) -> Row:
        """The row AsyncSqliteSaver writes for these arguments."""
        place = config["configurable"]
        type_, data = serde.dumps_typed(checkpoint)
        text = json.dumps(get_checkpoint_metadata(config, metadata), ensure_ascii=False)
        return cls(
            thread_id=str(place["thread_id"]),
            checkpoint_ns=place["checkpoint_ns"],
            checkpoint_id=checkpoint["id"],
            parent_id=place.get("checkpoint_id"),
            type=type_,
            checkpoint=data,
            metadata=text.encode("utf-8", "ignore"),
        )

    def read(self, serde: SerializerProtocol, *, pending_writes: list[PendingWrite]) -> CheckpointTuple:
        """What AsyncSqliteSaver reads from this row."""
        return CheckpointTuple(
            config=self.config,
            checkpoint=serde.loads_typed((self.type, self.checkpoint)),
            metadata=json.loads(self.metadata or "{}"),
            parent_config=self._place(self.parent_id) if self.parent_id else None,
            pending_writes=pending_writes,
        )

    @property
    def config(self) -> RunnableConfig:
        return self._place(self.checkpoint_id)

    def _place(self, checkpoint_id: str) -> RunnableConfig:
        place = {"thread_id": self.thread_id, "checkpoint_ns": self.checkpoint_ns, "checkpoint_id": checkpoint_id}
        return {"configurable": place}


@dataclass(frozen=True, slots=True)
class Newest:
    """Where a thread stands: the id of its newest checkpoint, and the writes that wait on it."""

    checkpoint_id: str
    pending_writes: list[PendingWrite]


@asynccontextmanager
async def open_history(url: str) -> AsyncIterator[History]:
    """Open the file of `sqlite:///path`, create what is missing and close it at the end."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise Invalid("The history must be given as sqlite:///path.")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    async with aiosqlite.connect(path, timeout=BUSY_TIMEOUT) as connection:
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute("PRAGMA secure_delete=ON")
        history = History(connection, serde=strict_serializer())
        await history.setup()
        yield history


class History(AsyncSqliteSaver):
    """AsyncSqliteSaver with what it leaves out: copying, deleting by run, pruning, and questions about stored rows."""

    async def newest(self, thread_id: str, checkpoint_ns: str) -> Newest | None:
        """Where a thread stands, asked in one query; None if it has no checkpoint."""
        query = """
            SELECT newest.checkpoint_id, w.task_id, w.channel, w.type, w.value, w.task_path, w.idx
            FROM (
                SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints
                WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1
            ) newest
            LEFT JOIN writes w USING (thread_id, checkpoint_ns, checkpoint_id)
        """
        rows = await self._all(query, thread_id, checkpoint_ns)
        if not rows:
            return None
        writes = [row[1:] for row in rows if row[1] is not None]
        return Newest(rows[0][0], load_pending_writes(writes, self.serde))

    async def row(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> Row | None:
        query = """
            SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
            FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?
        """
        rows = await self._all(query, thread_id, checkpoint_ns, checkpoint_id)
        return Row(*rows[0]) if rows else None

    async def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces in which a thread has checkpoints: its own, "", and those of its subgraphs."""
        rows = await self._all("SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ?", thread_id)
        return [checkpoint_ns for (checkpoint_ns,) in rows]

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List newest first, a page at a time: the stock saver holds its lock until the last item was taken.

        Checkpoints of different threads may share an id, so only a list of one thread can be cut into pages.
        """
        while limit is None or limit > 0:
            size = limit if config is None else min(PAGE, limit or PAGE)
            page = [item async for item in super().alist(config, filter=filter, before=before, limit=size)]
            for item in page:
                yield item
            if size is None or len(page) < size:
                return
            limit = limit and limit - size
            before = page[-1].config

    async def adelete_thread(self, thread_id: str) -> None:
        await super().adelete_thread(thread_id)
        await self._scrub()

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata names one of these runs. See the warning of the base class."""
        chosen = """(thread_id, checkpoint_ns, checkpoint_id) IN (
            SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints
            WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?)))"""
        runs = json.dumps(list(run_ids))
        await self._change(
            (f"DELETE FROM writes WHERE {chosen}", (runs,)), (f"DELETE FROM checkpoints WHERE {chosen}", (runs,))
        )
        await self._scrub()

    async def places_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str]]:
        """The thread and namespace of every checkpoint whose metadata names one of these runs."""
        query = """
            SELECT DISTINCT thread_id, checkpoint_ns FROM checkpoints
            WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?))
        """
        return [(thread_id, ns) for thread_id, ns in await self._all(query, json.dumps(list(run_ids)))]

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread under another id. Conflict if that one has a history already."""
        if await self.namespaces(target_thread_id):
            raise Conflict("The thread to copy to has a history already.")
        copies = [
            (
                f"INSERT INTO {table} (thread_id, {columns}) SELECT ?, {columns} FROM {table} WHERE thread_id = ?",
                (target_thread_id, source_thread_id),
            )
            for table, columns in (
                ("checkpoints", "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"),
                ("writes", "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"),
            )
        ]
        await self._change(*copies)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep each namespace's newest checkpoint ("keep_latest") or nothing ("delete").

        Conflict if a newest checkpoint is not whole without its ancestors, as with a `DeltaChannel` between snapshots.
        """
        if strategy not in ("keep_latest", "delete"):
            raise Invalid("The strategy must be keep_latest or delete.")
        for thread_id in thread_ids:
            if strategy == "delete":
                await super().adelete_thread(thread_id)
            else:
                await self._keep_newest(thread_id)
        await self._scrub()

    async def _keep_newest(self, thread_id: str) -> None:
        for checkpoint_ns in await self.namespaces(thread_id):
            query = """SELECT checkpoint_id, metadata FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?
                       ORDER BY checkpoint_id DESC LIMIT 1"""
            ((newest, metadata),) = await self._all(query, thread_id, checkpoint_ns)
            if json.loads(metadata or "{}").get("counters_since_delta_snapshot"):
                raise Conflict("The newest checkpoint needs earlier ones; they cannot be pruned.")
            where = "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?"
            older = (thread_id, checkpoint_ns, newest)
            await self._change((f"DELETE FROM writes {where}", older), (f"DELETE FROM checkpoints {where}", older))

    async def _all(self, query: str, *parameters: str) -> list[Any]:
        async with self.lock, self.conn.execute(query, parameters) as cursor:
            return list(await cursor.fetchall())

    async def _change(self, *statements: tuple[str, tuple[str, ...]]) -> None:
        """Run statements in one transaction."""
        async with self.lock:
            try:
                for statement, parameters in statements:
                    await self.conn.execute(statement, parameters)
                await self.conn.commit()
            except BaseException:
                await self.conn.rollback()
                raise

    async def _scrub(self) -> None:
        """Empty the write-ahead log, which still holds the pages as they were before a deletion."""
        async with self.lock:
            await self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
