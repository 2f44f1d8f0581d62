"""The history of every thread: a checkpoint saver of its own on the schema of LangGraph's SQLite saver."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
)
from langgraph.checkpoint.sqlite.utils import search_where

from threadline.domain.errors import Invalid
from threadline.domain.records import Course, Place
from threadline.domain.stored import Stored, StoredHead
from threadline.storage import deltas, exchange, heads, lineage, retention
from threadline.storage.allowlist import Name
from threadline.storage.delta_cache import DeltaCache
from threadline.storage.lineage import OF, RUN_ID
from threadline.storage.lines import Forget, SavedLines
from threadline.storage.pruner import HistoryPruner, Rebuild, glance
from threadline.storage.readers import Readers
from threadline.storage.rows import Row, pending_writes, write_rows
from threadline.storage.serde import StrictSerializer, strict_serializer
from threadline.storage.sqlite_file import BUSY_TIMEOUT, COLUMNS, path_of
from threadline.storage.writer import Writer

PAGE = 100
"""Checkpoints read at once while listing, at most."""
PAGE_BYTES = 8 * 2**20
"""Bytes of checkpoints after which a page ends."""

CACHE = 128 * 2**20
FILTER_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

ROW = f"SELECT {', '.join(COLUMNS['checkpoints'])} FROM checkpoints"
WRITES = """SELECT task_id, channel, type, value, task_path, idx FROM writes
            WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"""


@dataclass(frozen=True, slots=True)
class Newest:
    """Where a thread stands: the ids of its newest checkpoint and that one's parent, and the writes that wait on it."""

    checkpoint_id: str
    parent_id: str | None
    pending_writes: list[PendingWrite]


@asynccontextmanager
async def open_history(
    url: str,
    *,
    allowed: frozenset[Name] = frozenset(),
    patience: float = BUSY_TIMEOUT,
    cache: int = CACHE,
    read_only: bool = False,
    records: Path | None = None,
) -> AsyncIterator[History]:
    """Open the file of `sqlite:///path`, create what is missing; at the end write what is waiting and close it.

    `allowed` are the types that may be built from it besides the standard ones; `patience` is how many seconds a put
    waits for another process to finish its own; `cache` is how many bytes the conversations may take that are kept
    rebuilt. `read_only`: the file must be there, and every put fails. `records` is the database that says what is
    pinned; without it nothing is.
    """
    path = path_of(url)
    async with AsyncExitStack() as stack:
        writer = Writer(path, patience=patience)
        stack.push_async_callback(writer.aclose)
        if not read_only:
            await writer.open()
        readers = Readers(path)
        stack.push_async_callback(readers.aclose)
        yield History(path, writer, readers, DeltaCache(cache), serde=strict_serializer(allowed), records=records)


class History(BaseCheckpointSaver[str]):
    """Keeps every checkpoint for good. What is put is on disk when the call returns.

    Values are serialized where the call is made, once, before anything can change them; reading and what reading
    builds is done beside the event loop. Every fault is a typed error of its own call.
    """

    serde: StrictSerializer

    def __init__(
        self,
        path: Path,
        writer: Writer,
        readers: Readers,
        cache: DeltaCache,
        *,
        serde: StrictSerializer,
        records: Path | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._records = records
        self._path = path
        self._cache = cache
        self._writer = writer
        self._readers = readers

    def pruner(
        self, records: Path | None = None, *, rebuild: Rebuild | None = None, thrifty: bool = False
    ) -> HistoryPruner:
        """Takes what limits do not leave. See HistoryPruner for the arguments."""
        return HistoryPruner(
            *(self._readers, self._writer, self._cache, self.serde), records=records, rebuild=rebuild, thrifty=thrifty
        )

    def lines(self, records: Path | None = None, *, forget: Forget) -> SavedLines:
        """How threads branch. `records` as for the pruner; `forget` is called with what was live of what went."""
        return SavedLines(self._readers, self._writer, self.pruner(records), self.serde, forget=forget)

    @property
    def commits(self) -> int:
        """How many transactions there were."""
        return self._writer.commits

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """Versions as AsyncSqliteSaver counts them: increasing, and different on every branch."""
        number = int(str(current).split(".")[0]) if current is not None else 0
        return f"{number + 1:032}.{random.random():016}"

    def row_of(self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> Row:
        return Row.write(config, checkpoint, metadata, self.serde)

    async def keep(self, row: Row) -> None:
        after = partial(self._cache.changed, (row.thread_id, row.checkpoint_ns), row.checkpoint_id)
        await self._writer.insert("checkpoint", [row.values], after=after)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        row = self.row_of(config, checkpoint, metadata)
        await self.keep(row)
        return row.config

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        rows = write_rows(config, writes, self.serde, task_id=task_id, path=task_path)
        after = partial(self._cache.changed, _place(config), str(config["configurable"]["checkpoint_id"]))
        await self._writer.insert("write", rows, after=after)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        place = _place(config)
        checkpoint_id = get_checkpoint_id(config)

        def read(connection: sqlite3.Connection) -> CheckpointTuple | None:
            row = _row(connection, *place, checkpoint_id)
            return self._tuple(connection, row) if row else None

        return await self._readers.ask(read)

    async def newest(self, thread_id: str, checkpoint_ns: str) -> Newest | None:
        """Where a thread stands, asked in one query; None if it has no checkpoint."""
        query = f"""
            SELECT newest.checkpoint_id, newest.parent_checkpoint_id,
                   w.task_id, w.channel, w.type, w.value, w.task_path, w.idx
            FROM (
                SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id FROM checkpoints
                WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ({heads.NEWEST})
            ) newest
            LEFT JOIN writes w USING (thread_id, checkpoint_ns, checkpoint_id)
        """

        def read(connection: sqlite3.Connection) -> Newest | None:
            rows = connection.execute(query, (thread_id, checkpoint_ns)).fetchall()
            if not rows:
                return None
            writes = pending_writes([row[2:] for row in rows if row[2] is not None], self.serde)
            return Newest(rows[0][0], rows[0][1], writes)

        return await self._readers.ask(read)

    async def row(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> Row | None:
        return await self._readers.ask(lambda connection: _row(connection, thread_id, checkpoint_ns, checkpoint_id))

    async def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces in which a thread has checkpoints: its own, "", and those of its subgraphs."""
        return await self._readers.ask(lambda connection: retention.namespaces(connection, thread_id))

    async def places(self, thread_id: str, *, run_id: str, ns: str = "") -> Sequence[Place]:
        query = f"SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints WHERE {OF} AND {RUN_ID} = ?"

        def read(connection: sqlite3.Connection) -> list[Place]:
            rows = connection.execute(f"{query} ORDER BY checkpoint_id", (thread_id, ns, run_id))
            return [Place(checkpoint_id, parent_id, run_id) for checkpoint_id, parent_id in rows]

        return await self._readers.ask(read, long=True)

    async def course(self, thread_id: str, *, through: str | None = None) -> Course | None:
        return await self._readers.ask(partial(lineage.course, thread_id=thread_id, through=through), long=True)

    async def places_of_runs(self, run_ids: Sequence[str]) -> list[tuple[str, str]]:
        """The thread and namespace of every checkpoint whose metadata names one of these runs."""
        return await self._readers.ask(lambda connection: retention.places_of_runs(connection, run_ids))

    def taken(self, thread_id: str) -> AbstractContextManager[Iterator[Stored]]:
        """All of a thread as of now, through a connection of its own. Blocks. Each checkpoint comes behind its parent
        and before its writes; a parent that is gone is none."""
        return exchange.taken(self._path, thread_id)

    async def keep_stored(self, thread_id: str, stored: Sequence[Stored]) -> None:
        """Write checkpoints, writes and heads as they are."""
        heads = [each for each in stored if isinstance(each, StoredHead)]
        checkpoints, writes = exchange.rows(thread_id, [e for e in stored if not isinstance(e, StoredHead)])
        await self._writer.insert("checkpoint", checkpoints)
        await self._writer.insert("write", writes)
        if heads:
            await self._writer.change(lambda connection: exchange.stand(connection, thread_id, heads))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List newest first, a page at a time, so that a slow reader holds up nobody. Raises Invalid for odd keys."""
        where, values = _search(config, filter, before)
        after: tuple[str, str, str] | None = None
        while limit is None or limit > 0:
            page, after = await self._page(where, values, after=after, size=min(PAGE, limit or PAGE))
            for item in page:
                yield item
            if after is None:
                return
            limit = limit and limit - len(page)

    async def adelete_thread(self, thread_id: str) -> None:
        await self._change(lambda connection: retention.delete(connection, str(thread_id)), scrubs=True)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata names one of these runs.

        Conflict if one that stays is not whole without them, as with a `DeltaChannel` between snapshots.
        """
        await self._change(lambda connection: retention.delete_runs(connection, run_ids, self.serde), scrubs=True)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread under another id. Conflict if that one has a history already."""
        await self._change(lambda connection: retention.copy(connection, source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep each namespace's newest checkpoint ("keep_latest") or nothing ("delete").

        Of earlier checkpoints those stay which a `DeltaChannel` of the newest is rebuilt from, and those that are
        pinned. Nobody may pin one meanwhile.
        """
        if strategy not in ("keep_latest", "delete"):
            raise Invalid("The strategy must be keep_latest or delete.")
        ids = list(thread_ids)

        def prune(connection: sqlite3.Connection) -> None:
            for thread_id in ids:
                if strategy == "delete":
                    retention.delete(connection, thread_id)
                else:
                    retention.keep_newest(connection, thread_id, pins=glance(self._records, thread_id)[1])

        if ids:
            await self._change(prune, scrubs=True)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        place = _place(config)
        checkpoint_id = get_checkpoint_id(config)

        def read(connection: sqlite3.Connection) -> Mapping[str, DeltaChannelHistory]:
            row = _row(connection, *place, checkpoint_id)
            if row is None:
                return {channel: {"writes": []} for channel in channels}
            return deltas.read(connection, row, channels, self.serde, self._cache)

        return await self._readers.ask(read)

    async def _change(self, work: Callable[[sqlite3.Connection], None], *, scrubs: bool = False) -> None:
        self._cache.clear()
        await self._writer.change(work, scrubs=scrubs)
        self._cache.clear()

    def _tuple(self, connection: sqlite3.Connection, row: Row) -> CheckpointTuple:
        place = (row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        return row.read(self.serde, pending_writes=pending_writes(connection.execute(WRITES, place), self.serde))

    async def _page(
        self, where: str, values: Sequence[Any], *, after: tuple[str, str, str] | None, size: int
    ) -> tuple[list[CheckpointTuple], tuple[str, str, str] | None]:
        """The checkpoints after a place, and the place to go on after if there may be more.

        Checkpoints of different threads may share an id, so a place is all three.
        """
        terms = [where.removeprefix("WHERE ")] if where else []
        if after is not None:
            terms.append("(checkpoint_id, thread_id, checkpoint_ns) < (?, ?, ?)")
        condition = f"WHERE {' AND '.join(terms)}" if terms else ""
        order = "ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT ?"
        query = f"{ROW} {condition} {order}"

        def read(connection: sqlite3.Connection) -> tuple[list[CheckpointTuple], tuple[str, str, str] | None]:
            rows, held = list[Row](), 0
            for found in connection.execute(query, (*values, *(after or ()), size)):
                rows.append(Row(*found))
                held += len(rows[-1].checkpoint)
                if held > PAGE_BYTES:
                    break
            page = [self._tuple(connection, row) for row in rows]
            if len(rows) < size and held <= PAGE_BYTES:
                return page, None
            return page, (rows[-1].checkpoint_id, rows[-1].thread_id, rows[-1].checkpoint_ns)

        return await self._readers.ask(read, long=True)


def _row(connection: sqlite3.Connection, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Row | None:
    """One checkpoint; where no id is given, the one its namespace stands at."""
    if not checkpoint_id:
        checkpoint_id = heads.current(connection, thread_id, checkpoint_ns) or ""
    query = f"{ROW} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
    found = connection.execute(query, (thread_id, checkpoint_ns, str(checkpoint_id))).fetchone()
    return Row(*found) if found else None


def _search(
    config: RunnableConfig | None, filter: Mapping[str, Any] | None, before: RunnableConfig | None
) -> tuple[str, Sequence[Any]]:
    """The condition of a list, and its values. A key becomes part of a path in SQL, so it is checked here as well."""
    if not isinstance(filter or {}, Mapping):
        raise Invalid("A filter must be a dict.")
    for key in filter or ():
        if not isinstance(key, str) or not FILTER_KEY.fullmatch(key):
            raise Invalid("A filter's key may hold letters, digits, hyphens and underscores, in parts joined by dots.")
    try:
        return search_where(_plain(config), dict(filter or {}), before)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid("A list is asked for with a config or a filter that makes no sense.") from error


def _place(config: RunnableConfig) -> tuple[str, str]:
    return str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", "")


def _plain(config: RunnableConfig | None) -> RunnableConfig | None:
    """The config with a thread id that SQLite can compare."""
    if config is None:
        return None
    return {"configurable": {**config["configurable"], "thread_id": str(config["configurable"]["thread_id"])}}
